//! Those who came while every place was taken, for a moment.
//!
//! A client that closes and comes back at once is here before its old session's end was noticed: the new connection and
//! the old one's end arrive in any order, often on different shards. So whoever finds no place waits on the doorstep for
//! places that come free, in order and for so short a time that nobody takes it for a queue.

use std::collections::VecDeque;
use std::time::Duration;

use madang_driver::{Incoming, Time};

use super::guests::GuestId;
use crate::timers::TimerKey;

/// The end of a connection that lies in our kernel is noticed within a turn of its shard: a few milliseconds, many times
/// that on a machine that is too busy.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// Who waits.
pub(super) struct Knock {
    pub(super) guest: GuestId,
    /// His socket, with a framing that does not greet; else a shard has it, and his greeting was fine.
    pub(super) incoming: Option<Incoming>,
}

/// The doorstep; as large as the slack, since more sessions than that cannot be on their way out.
pub(super) struct Doorstep {
    /// Each with the timer that ends his patience.
    waiting: VecDeque<(TimerKey, Knock)>,
    most: usize,
}

impl Doorstep {
    pub(super) fn new(most: usize) -> Doorstep {
        Doorstep { waiting: VecDeque::new(), most }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.most
    }

    /// Takes somebody in; there is room.
    pub(super) fn wait(&mut self, patience: TimerKey, knock: Knock) {
        self.waiting.push_back((patience, knock));
    }

    /// Who came first, and his timer: to be cancelled.
    pub(super) fn first(&mut self) -> Option<(TimerKey, Knock)> {
        self.waiting.pop_front()
    }

    /// Somebody is gone; his timer, to be cancelled, if he was here.
    pub(super) fn leave(&mut self, guest: GuestId) -> Option<TimerKey> {
        let at = self.waiting.iter().position(|(_, knock)| knock.guest == guest)?;
        self.waiting.remove(at).map(|(patience, _)| patience)
    }

    /// Who came first, if his time is over.
    pub(super) fn overdue(&mut self, now: Time) -> Option<Knock> {
        self.waiting.front()?.0.is_due(now).then(|| self.waiting.pop_front().map(|(_, knock)| knock))?
    }
}
