//! One line of a verdict: what was measured, what it must be, and whether it is.

use super::parts::{Of, Side};
use super::ratio::{Ratio, Verdict};
use crate::demo::words::time;

#[derive(Clone, Debug)]
pub(crate) struct Line {
    what: String,
    measured: String,
    must_be: String,
    verdict: Verdict,
}

impl Line {
    /// Something that is as it must be, or is not.
    pub(crate) fn new(what: impl Into<String>, measured: impl ToString, must_be: &str, holds: bool) -> Self {
        let verdict = if holds { Verdict::Holds } else { Verdict::Fails };
        Self { what: what.into(), measured: measured.to_string(), must_be: must_be.to_owned(), verdict }
    }

    /// A count that must be this one.
    pub(crate) fn exactly(what: &str, measured: u64, must_be: u64) -> Self {
        Self::new(what, measured, &must_be.to_string(), measured == must_be)
    }

    /// The p99 of a time, which may be so many hundredths longer than on the other side.
    pub(crate) fn within(what: &str, of: Of, without: &Side, beside: &Side, hundredths: u32) -> Self {
        let (measured, ratio) = compared(of, without, beside);
        Self {
            what: what.to_owned(),
            measured,
            must_be: format!("+{hundredths} % at the most"),
            verdict: ratio.verdict(1.0 + f64::from(hundredths) / 100.0),
        }
    }

    /// The same, told and not judged.
    pub(crate) fn beside(what: &str, of: Of, without: &Side, beside: &Side) -> Self {
        Self::told(what, compared(of, without, beside).0)
    }

    /// Something that is told and not judged.
    pub(crate) fn told(what: &str, measured: impl ToString) -> Self {
        Self::new(what, measured, "", true)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }
}

/// The two medians of the slices' p99, their ratio by pairs, and for who asks of the worst the p99 of all slices as one.
fn compared(of: Of, without: &Side, beside: &Side) -> (String, Ratio) {
    let ratio = Ratio::of(without.p99s(of).zip(beside.p99s(of)));
    let more = |ratio: f64| format!("{:+.0}", (ratio - 1.0) * 100.0);
    let text = format!(
        "{} beside {}: {} % ({} to {} %); all slices as one {} beside {}",
        time(beside.median_p99(of)),
        time(without.median_p99(of)),
        more(ratio.median),
        more(ratio.low),
        more(ratio.high),
        time(beside.pooled_p99(of)),
        time(without.pooled_p99(of)),
    );
    (text, ratio)
}

/// Prints lines below each other.
pub(crate) fn print(lines: &[Line]) {
    let width =
        |text: fn(&Line) -> &str| lines.iter().map(|line| text(line).chars().count()).max().unwrap_or(0);
    let (what, measured) = (width(|line| &line.what), width(|line| &line.measured));
    for line in lines {
        let verdict = match (line.must_be.is_empty(), line.verdict) {
            (true, _) => "    ",
            (_, Verdict::Holds) => "ok  ",
            (_, Verdict::Fails) => "FAIL",
            (_, Verdict::NotResolved) => "????",
        };
        let text =
            format!("  {verdict}  {:<what$}  {:<measured$}  {}", line.what, line.measured, line.must_be);
        println!("{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::parts::Slice;
    use crate::load::latency::Latency;

    /// Parts of three slices with a hundred echoes of so many microseconds each.
    fn side(parts: &[u64]) -> Side {
        let slice = |us: u64| {
            let mut echoes = Latency::coarse();
            (0..100).for_each(|_| echoes.record(0, us * 1_000));
            Slice { echoes, log_ins: Latency::coarse() }
        };
        let mut side = Side::default();
        parts.iter().for_each(|us| side.add((0..3).map(|_| slice(*us)).collect()));
        side
    }

    #[test]
    fn a_line_holds_up_to_its_bound_and_not_beyond() {
        let within = |beside: u64| {
            let (without, beside) = (side(&[100; 8]), side(&[beside; 8]));
            Line::within("p99", Of::Echoes, &without, &beside, 10).verdict()
        };
        assert_eq!(within(109), Verdict::Holds);
        assert_eq!(within(112), Verdict::Fails);
        assert_eq!(
            Line::within("p99", Of::LogIns, &side(&[]), &side(&[]), 10).verdict(),
            Verdict::NotResolved
        );
        assert_eq!(Line::exactly("left", 500, 500).verdict(), Verdict::Holds);
        assert_eq!(Line::exactly("left", 499, 500).verdict(), Verdict::Fails);
        assert_eq!(Line::told("came", 3).verdict(), Verdict::Holds);
    }

    #[test]
    fn what_is_worst_is_told_although_it_does_not_decide() {
        let mut bursts = [100; 8];
        bursts[3] = 50_000;
        let line = Line::within("p99", Of::Echoes, &side(&[100; 8]), &side(&bursts), 10);
        assert_eq!(line.verdict(), Verdict::Holds);
        assert!(line.measured.contains("all slices as one 50 ms beside 10"), "{}", line.measured);
    }
}
