//! When each message of a paced run is due.

/// An even pace that never bends to the server.
///
/// Message `n` is due at `n / rate` seconds, whatever became of those before it. A load client sends what is due, and
/// counts latency *from the time that a message was due*, not from when it got round to sending it. A client that
/// waits for a slow server before it sends the next message would leave the slow time out of its figures just when it
/// matters (coordinated omission).
///
/// The times are computed from the number each time, never added up, so that a long run does not drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    messages_per_second: u64,
    /// This part takes messages `part`, `part + parts`, `part + 2 · parts` … of the whole.
    part: u32,
    parts: u32,
    /// Messages of this part that were taken.
    taken: u64,
}

const NANOS: u128 = 1_000_000_000;

impl Schedule {
    /// The part of one of `parts` threads or connections in a pace of `messages_per_second` for all of them together;
    /// the parts interleave evenly.
    ///
    /// # Panics
    /// If the rate is 0 or `part` is not below `parts`.
    pub(crate) fn new(messages_per_second: u64, part: u32, parts: u32) -> Self {
        assert!(messages_per_second > 0, "a pace of no messages");
        assert!(part < parts, "part {part} of {parts}");
        Self { messages_per_second, part, parts, taken: 0 }
    }

    /// When the next message is due, in ns since the run began.
    pub(crate) fn next_due_ns(&self) -> u64 {
        // 64 + 32 + 30 bits fit.
        let number = u128::from(self.taken) * u128::from(self.parts) + u128::from(self.part);
        u64::try_from(number * NANOS / u128::from(self.messages_per_second)).unwrap_or(u64::MAX)
    }

    /// Takes the next message if it is due at `now_ns`: the time it was due at, which is where its latency starts.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next_due_ns();
        (due <= now_ns).then(|| {
            self.taken += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_until(schedule: &mut Schedule, now_ns: u64) -> Vec<u64> {
        std::iter::from_fn(|| schedule.take(now_ns)).collect()
    }

    #[test]
    fn what_is_due_does_not_depend_on_when_it_is_asked() {
        let often = |step: usize| {
            let mut schedule = Schedule::new(3, 0, 1);
            (0..=2_000_000_000_u64)
                .step_by(step)
                .flat_map(|now| due_until(&mut schedule, now))
                .collect::<Vec<_>>()
        };
        let third = 1_000_000_000 / 3;
        assert_eq!(often(1_000_000), often(2_000_000_000));
        assert_eq!(often(2_000_000_000)[..4], [0, third, 2 * third, 1_000_000_000]);
    }

    #[test]
    fn parts_interleave_to_the_whole_pace() {
        let whole = due_until(&mut Schedule::new(1_000, 0, 1), 1_000_000_000);
        let mut parts: Vec<_> =
            (0..7).flat_map(|part| due_until(&mut Schedule::new(1_000, part, 7), 1_000_000_000)).collect();
        parts.sort_unstable();
        assert_eq!(parts, whole);
    }

    #[test]
    fn an_hour_at_a_rate_that_does_not_divide_a_second_is_exact() {
        let mut schedule = Schedule::new(7, 0, 1);
        schedule.taken = 7 * 3_600;
        assert_eq!(schedule.next_due_ns(), 3_600 * 1_000_000_000);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let schedule = Schedule { messages_per_second: 1, part: 1, parts: u32::MAX, taken: u64::MAX };
        assert_eq!(schedule.next_due_ns(), u64::MAX);
    }
}
