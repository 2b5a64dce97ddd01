//! One line of a verdict: what was measured, what it must be, and whether it is.

use crate::demo::words::time;

#[derive(Clone, Debug)]
pub(crate) struct Line {
    what: String,
    measured: String,
    must_be: String,
    holds: bool,
}

impl Line {
    /// Something that is as it must be, or is not.
    pub(crate) fn new(what: impl Into<String>, measured: impl ToString, must_be: &str, holds: bool) -> Self {
        Self { what: what.into(), measured: measured.to_string(), must_be: must_be.to_owned(), holds }
    }

    /// A count that must be this one.
    pub(crate) fn exactly(what: &str, measured: u64, must_be: u64) -> Self {
        Self::new(what, measured, &must_be.to_string(), measured == must_be)
    }

    /// A time that may be so many hundredths longer than the undisturbed one.
    pub(crate) fn within(what: &str, quiet_us: f64, disturbed_us: f64, hundredths: u32) -> Self {
        let more = (disturbed_us / quiet_us - 1.0) * 100.0;
        Self::new(
            what,
            format!("{} beside {} undisturbed: {more:+.0} %", time(disturbed_us), time(quiet_us)),
            &format!("+{hundredths} % at the most"),
            quiet_us.is_finite() && disturbed_us <= quiet_us * (1.0 + f64::from(hundredths) / 100.0),
        )
    }

    /// Something that is told and not judged.
    pub(crate) fn told(what: &str, measured: impl ToString) -> Self {
        Self::new(what, measured, "", true)
    }

    pub(crate) fn holds(&self) -> bool {
        self.holds
    }
}

/// Prints lines below each other.
pub(crate) fn print(lines: &[Line]) {
    let width =
        |text: fn(&Line) -> &str| lines.iter().map(|line| text(line).chars().count()).max().unwrap_or(0);
    let (what, measured) = (width(|line| &line.what), width(|line| &line.measured));
    for line in lines {
        let verdict = match (line.must_be.is_empty(), line.holds) {
            (true, _) => "    ",
            (_, true) => "ok  ",
            (_, false) => "FAIL",
        };
        let text =
            format!("  {verdict}  {:<what$}  {:<measured$}  {}", line.what, line.measured, line.must_be);
        println!("{}", text.trim_end());
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

    #[test]
    fn a_line_holds_up_to_its_bound_and_not_beyond() {
        assert!(Line::within("p99", 100.0, 110.0, 10).holds());
        assert!(!Line::within("p99", 100.0, 110.1, 10).holds());
        assert!(!Line::within("p99", median(vec![]), median(vec![]), 10).holds());
        assert!(Line::exactly("left", 500, 500).holds());
        assert!(!Line::exactly("left", 499, 500).holds());
        assert!(Line::told("came", 3).holds());
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        for (values, middle) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 1.0), (vec![7.0], 7.0)] {
            assert_eq!(median(values).to_bits(), f64::to_bits(middle));
        }
    }
}
