//! Whose turn is next: a loud peer's or the others', doors' or connections', the system's or those who wait to be told.

/// What a driver keeps so that nobody waits for somebody louder.
pub(crate) struct Fair {
    /// Completions told since the system was last asked what happened.
    told_since_look: usize,
    /// A peer had more than one read could take: the others are looked at before its next one.
    look_before_reading: bool,
    /// Whether doors or connections were told first the last time: they take turns, so that a small `max` starves neither.
    doors_first: bool,
}

/// Completions after which the system is asked although some are still due: one system call among so many costs a nanosecond
/// each, and nobody waits longer for his first byte.
const TOLD_PER_LOOK: usize = 256;

impl Fair {
    pub(crate) fn new() -> Fair {
        Fair { told_since_look: 0, look_before_reading: false, doors_first: true }
    }

    /// Whether the system is to be asked before anything is told.
    pub(super) fn owes_a_look(&self) -> bool {
        self.look_before_reading || self.told_since_look >= TOLD_PER_LOOK
    }

    pub(super) fn looked(&mut self) {
        (self.told_since_look, self.look_before_reading) = (0, false);
    }

    /// Whether doors are told before connections this time; they take turns.
    pub(super) fn doors_go_first(&mut self) -> bool {
        self.doors_first = !self.doors_first;
        self.doors_first
    }

    /// A connection was told; `was_cut`: it has more than one read could take.
    pub(super) fn told_connection(&mut self, was_cut: bool) {
        self.look_before_reading |= was_cut;
    }

    pub(super) fn told(&mut self, completions: usize) {
        self.told_since_look += completions;
    }
}
