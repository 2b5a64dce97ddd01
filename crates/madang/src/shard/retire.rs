//! Closing connections that are over: a few a turn.
//!
//! To the system a close is as much work as some ten messages, 20 µs on a loopback, and ends come in bunches: five of them in
//! one system call kept the messages behind it waiting for 100 µs. Until it is closed a connection keeps its place in the
//! driver and nothing else; its session has left, its slot may be another's.

use madang_driver::Driver;

use super::Shard;

impl<D: Driver> Shard<D> {
    /// Closes as many as a turn may.
    pub(super) fn retire_some(&mut self) {
        for conn in self.retiring.drain(..closes_a_turn(self.retiring.len())) {
            self.driver.retire(conn);
        }
    }

    /// Closes all.
    pub(super) fn retire_all(&mut self) {
        for conn in self.retiring.drain(..) {
            self.driver.retire(conn);
        }
    }
}

/// One, and a quarter of those beyond: a bunch goes one by one, and thousands in the time of some dozen turns.
fn closes_a_turn(waiting: usize) -> usize {
    waiting.min(1) + waiting.saturating_sub(1) / 4
}

#[cfg(test)]
mod tests {
    use super::closes_a_turn;

    /// How many of `waiting` are closed in each turn, if no more come.
    fn check(waiting: usize, first: &[usize], turns_most: usize) {
        let mut left = waiting;
        let mut turns = Vec::new();
        while left > 0 {
            let closed = closes_a_turn(left);
            assert!((1..=left).contains(&closed), "{closed} of {left}");
            left -= closed;
            turns.push(closed);
        }
        assert!(turns.starts_with(first), "{waiting}: {turns:?}");
        assert!(turns.len() <= turns_most, "{waiting}: {} turns", turns.len());
    }

    #[test]
    fn a_bunch_is_closed_one_by_one_and_thousands_within_some_dozen_turns() {
        check(0, &[], 0);
        check(1, &[1], 1);
        check(4, &[1, 1, 1, 1], 4);
        check(7, &[2, 2, 1], 5);
        check(10_000, &[2_500, 1_875], 36);
    }
}
