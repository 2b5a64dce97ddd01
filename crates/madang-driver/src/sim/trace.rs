//! What happened, as one number.

use crate::Time;

/// A running hash over everything that happens in a world: equal for equal runs, so that a replay can be trusted.
pub(super) struct Trace {
    hash: u64,
    pub(super) is_told: bool,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Arrive = 1,
    Reset,
    Connect,
    Close,
    Vanish,
    Accepted,
    Stalled,
    Unlistened,
    Connected,
    Data,
    RecvEnded,
    Sent,
    Poll,
    Advance,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        Trace { hash: seed ^ 0xcbf2_9ce4_8422_2325, is_told: false }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn note(&mut self, now: Time, event: Event, what: u64, more: u64) {
        if self.is_told {
            eprintln!("{now:?} {event:?} {what} {more}");
        }
        self.mix(event as u64);
        self.mix(what);
        self.mix(more);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    /// One step of FNV-1a over words instead of bytes, rotated so that high bits come back down.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}
