//! How a time beside others compares with the time without them, and how sure that is.

/// Pairs below this number have no interval worth the name: the smallest and the largest of five are met by chance in one
/// case of sixteen.
const PAIRS_LEAST: usize = 6;

/// The median over pairs of the one time over the other, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) pairs: usize,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Fails,
    /// The bound lies within the interval, or there are too few pairs.
    NotResolved,
}

impl Ratio {
    /// Of pairs of `(without, beside)`. Nothing is assumed of how they scatter but that a pair does not know of the others:
    /// the interval is that of the ranks 0.98 √n from the middle.
    pub(crate) fn of(pairs: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut ratios: Vec<f64> = pairs
            .into_iter()
            .map(|(without, beside)| beside / without)
            .filter(|ratio| ratio.is_finite())
            .collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        let rank = ((count as f64 - 1.96 * (count as f64).sqrt()) / 2.0).floor().max(0.0) as usize;
        let at = |rank: usize| ratios.get(rank).copied().unwrap_or(f64::INFINITY);
        let median = (at(count.saturating_sub(1) / 2) + at(count / 2)) / 2.0;
        Self { pairs: count, median, low: at(rank), high: at(count.saturating_sub(1 + rank)) }
    }

    /// Whether it is at most `bound`.
    pub(crate) fn verdict(&self, bound: f64) -> Verdict {
        match self {
            ratio if ratio.pairs < PAIRS_LEAST => Verdict::NotResolved,
            ratio if ratio.high <= bound => Verdict::Holds,
            ratio if ratio.low > bound => Verdict::Fails,
            _ => Verdict::NotResolved,
        }
    }
}

/// The middle one, or the better of the two in the middle; none of nothing is endless, so that nothing holds with it.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(of: &[f64]) -> Ratio {
        Ratio::of(of.iter().map(|ratio| (10.0, ratio * 10.0)))
    }

    #[test]
    fn a_verdict_needs_its_whole_interval_and_enough_pairs() {
        for (ratios, bound, verdict) in [
            (&[1.0; 15][..], 1.1, Verdict::Holds),
            (&[1.2; 15], 1.1, Verdict::Fails),
            (&[1.0; 5], 1.1, Verdict::NotResolved),
            (&[1.0, 1.0, 1.0, 1.2, 1.2, 1.2], 1.1, Verdict::NotResolved),
            (&[], 1.1, Verdict::NotResolved),
        ] {
            assert_eq!(ratio(ratios).verdict(bound), verdict, "{ratios:?}");
        }
    }

    /// A host that takes its share falls into some pairs, on either side: neither a miss nor a pass comes of it.
    #[test]
    fn bursts_in_some_pairs_move_nothing() {
        let mut ratios = vec![1.05; 15];
        (ratios[2], ratios[7], ratios[11]) = (40.0, 0.01, 30.0);
        assert_eq!(ratio(&ratios).verdict(1.1), Verdict::Holds);
        let mut ratios = vec![1.3; 15];
        (ratios[2], ratios[7], ratios[11]) = (40.0, 0.01, 0.02);
        assert_eq!(ratio(&ratios).verdict(1.2), Verdict::Fails);
    }

    #[test]
    fn the_interval_is_that_of_the_ranks() {
        let ratios: Vec<f64> = (1..=15).map(f64::from).collect();
        let Ratio { pairs, median, low, high } = ratio(&ratios);
        assert_eq!((pairs, median, low, high), (15, 8.0, 4.0, 12.0));
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        for (values, middle) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 1.0), (vec![7.0], 7.0)] {
            assert_eq!(median(values).to_bits(), f64::to_bits(middle));
        }
        assert!(median(vec![]).is_infinite());
    }
}
