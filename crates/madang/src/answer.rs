//! What a request about a session is answered.

/// The answer to a send, a post or a timer. The school answers `true` or `false`; this says which false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a message that was not queued is lost"]
#[non_exhaustive]
pub enum Answer {
    /// It will be done in order, unless the session leaves first.
    Queued,
    /// It took the place of a queued message with the same key: see [`Context::send_latest`](crate::Context::send_latest).
    Replaced,
    /// The message was droppable and the session reads too slowly for it. Nothing was queued; a newer one may fit.
    Dropped,
    /// The session has more queued than it may for long, and the policy is to tell the sender:
    /// [`WhenSlow::Throttle`](crate::WhenSlow::Throttle). Nothing was queued; send less, or later.
    Throttled,
    /// The session's queue, its shard's mailbox or the timer table is full. Nothing was queued. A session over its hard
    /// limit is disconnected as a slow consumer.
    Full,
    /// Nobody lives under this id: it left, it is leaving, or the id was invented. Content's mistake, without effect.
    Gone,
    /// The message is longer than the framing, or the peer, takes. Nothing was queued.
    TooLong,
    /// The packet could not be filled because the pool's budget is used up. Nothing was queued.
    PoolExhausted,
    /// A message of no bytes: every framing needs at least one. Nothing was queued.
    Empty,
}

impl Answer {
    /// Whether it was accepted.
    pub fn is_queued(self) -> bool {
        matches!(self, Answer::Queued | Answer::Replaced)
    }

    /// Drops the answer, for whoever does not mind.
    pub fn ignore(self) {}
}
