//! What becomes of sessions that do not read what they are sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Settings;

/// What happens to a session with more than `queue_soft_bytes` queued. Past the hard limits it leaves in any case, and
/// past the soft one after `queue_soft_ms`; both with [`SlowConsumer`](crate::LeaveReason::SlowConsumer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WhenSlow {
    /// Nothing more: it may catch up until then.
    #[default]
    Kick,
    /// Droppable messages ([`send_latest`](crate::Context::send_latest)) are dropped, oldest first, until it is below the
    /// soft limit again; those that find it above are answered [`Dropped`](crate::Answer::Dropped).
    DropMarked,
    /// [`Context::send`](crate::Context::send) to a session of the own shard is answered
    /// [`Throttled`](crate::Answer::Throttled), and nothing is queued: the sender waits for `on_send`, or sends less. Who
    /// cannot be told (other threads and shards, broadcasts) queues up to the hard limits.
    Throttle,
}

/// The policy for slow consumers, as one object: limits, and what happens past them. In a settings file it is the keys
/// `queue_soft_bytes`, `queue_soft_ms`, `queue_hard_bytes`, `queue_hard_messages` and `queue_when_slow`.
///
/// ```
/// use std::time::Duration;
/// use madang::{ForeignFraming, ForeignServer, SlowConsumers};
///
/// let builder = ForeignServer::bind("127.0.0.1:0", ForeignFraming::be32()).slow_consumers(
///     SlowConsumers::drop_marked().soft(128 << 10, Duration::from_secs(5)).hard(1 << 20, 1_024),
/// );
/// # let _ = builder;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a policy does nothing until a builder has it"]
pub struct SlowConsumers {
    when_slow: WhenSlow,
    soft: Option<(usize, Duration)>,
    hard: Option<(usize, usize)>,
}

impl SlowConsumers {
    const fn when(when_slow: WhenSlow) -> SlowConsumers {
        SlowConsumers { when_slow, soft: None, hard: None }
    }

    /// See [`WhenSlow::Kick`].
    pub const fn kick() -> SlowConsumers {
        SlowConsumers::when(WhenSlow::Kick)
    }

    /// See [`WhenSlow::DropMarked`].
    pub const fn drop_marked() -> SlowConsumers {
        SlowConsumers::when(WhenSlow::DropMarked)
    }

    /// See [`WhenSlow::Throttle`].
    pub const fn throttle() -> SlowConsumers {
        SlowConsumers::when(WhenSlow::Throttle)
    }

    /// So many bytes may be queued for long, and more for so long.
    pub const fn soft(self, bytes: usize, patience: Duration) -> SlowConsumers {
        SlowConsumers { soft: Some((bytes, patience)), ..self }
    }

    /// So many bytes and messages may be queued at all.
    pub const fn hard(self, bytes: usize, messages: usize) -> SlowConsumers {
        SlowConsumers { hard: Some((bytes, messages)), ..self }
    }

    /// Lays the policy over settings; limits that it does not name stay as they are.
    pub(crate) fn apply(self, settings: &mut Settings) {
        settings.queue_when_slow = self.when_slow;
        if let Some((bytes, patience)) = self.soft {
            settings.queue_soft_bytes = bytes;
            settings.queue_soft_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        }
        if let Some((bytes, messages)) = self.hard {
            settings.queue_hard_bytes = bytes;
            settings.queue_hard_messages = messages;
        }
    }
}
