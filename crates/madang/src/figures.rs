//! Figures of a running server or client: a snapshot from any thread, no shard stopped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub use madang_packet::PoolFigures;

use crate::{LeaveReason, TurnedAway};

/// A snapshot of what a server or client did and holds. Counters count from the start; each shard publishes its own once a
/// turn, so they are as fresh as its last turn, and sums over shards are not of one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Peers connected that have not greeted yet.
    pub embryos: u64,
    /// Peers in the waiting queue now, those whose connection broke and whose turn is kept among them.
    pub waiting: u64,
    /// Peers that entered the waiting queue, were let in from it, and came back to it with a ticket. Who entered and neither
    /// waits nor was let in is gone.
    pub queue_entered: u64,
    /// See `queue_entered`.
    pub queue_admitted: u64,
    /// See `queue_entered`.
    pub queue_returned: u64,
    /// Sessions joined now.
    pub sessions: u64,
    /// Sessions on their way out now.
    pub sessions_leaving: u64,
    /// Peers accepted.
    pub accepted: u64,
    /// Peers turned away at accept: by the filter, by content, or for want of room.
    pub refused: u64,
    /// Those by cause, by [`TurnedAway::code`].
    pub turned_away: [u64; TurnedAway::COUNT],
    /// Strangers, and peers that stayed on though they were refused, that made way because `embryos_max` of them were here;
    /// among those that failed.
    pub evicted: u64,
    /// Times that accepting paused for `accept_rate_max`.
    pub accept_pauses: u64,
    /// Peers that ended before they were joined, refused greetings included.
    pub failed: u64,
    /// Sessions that joined, those that a lobby declined at once included.
    pub joins: u64,
    /// Sessions that left, by [`LeaveReason::code`].
    pub leaves: [u64; LeaveReason::COUNT],
    /// Messages delivered to content.
    pub messages_in: u64,
    /// Messages that left.
    pub messages_out: u64,
    /// Bytes received, framing included.
    pub bytes_in: u64,
    /// Bytes that left, framing included.
    pub bytes_out: u64,
    /// Sends given to the system: many messages share one.
    pub sends: u64,
    /// Records sealed, on encrypted sessions: many messages share one.
    pub records_out: u64,
    /// Records opened.
    pub records_in: u64,
    /// Handshakes worked out: the servers' part, failed ones included.
    pub handshakes: u64,
    /// Peers of a WAN server that did not speak its protocol or did not know its key.
    pub strangers: u64,
    /// Bytes that wait in the sessions' queues now.
    pub queued_bytes: u64,
    /// Times that a session was not read for a while because it had sent more than it may.
    pub input_throttled: u64,
    /// Shares of broadcasts that were not queued because the pool was short and their session held much of it.
    pub broadcasts_refused: u64,
    /// Sends answered `Throttled`.
    pub sends_throttled: u64,
    /// Queued messages that a newer one of their key replaced.
    pub replaced: u64,
    /// Droppable messages that were dropped because their session was slow.
    pub dropped: u64,
    /// Requests refused because a queue or mailbox was full.
    pub full: u64,
    /// Requests for sessions that are gone.
    pub gone: u64,
    /// Late results of offloaded jobs whose session had left.
    pub jobs_late: u64,
    /// Errors told, and errors suppressed.
    pub errors: u64,
    /// Turns of all shards.
    pub turns: u64,
    /// Time spent in turns, sleep not counted.
    pub busy: Duration,
    /// How overloaded the busiest shard is, 0 to 3: see `overload_lag_ms`.
    pub overload: u8,
    /// How late that shard is, smoothed; zero where overload is not looked for.
    pub lag: Duration,
    /// Turns that took longer than `slow_turn_ms`, or sleeps that overran by so much.
    pub slow_turns: u64,
    /// The longest turn since the start: what a message may have had to wait.
    pub longest_turn: Duration,
    /// The packet pool.
    pub pool: PoolFigures,
}

impl Figures {
    /// Sessions that left, for whatever reason.
    pub fn left(&self) -> u64 {
        self.leaves.iter().sum()
    }
}

/// One shard's counters: written by the shard alone, read by anybody.
#[derive(Default)]
pub(crate) struct ShardFigures {
    words: Words<AtomicU64>,
    leaves: [AtomicU64; LeaveReason::COUNT],
    turned_away: [AtomicU64; TurnedAway::COUNT],
    /// Requests of other threads that were refused: counted by those threads.
    pub(crate) remote_full: AtomicU64,
    pub(crate) remote_gone: AtomicU64,
    /// While the pool is short: what the shard's largest holder holds.
    pub(crate) largest_holder: AtomicUsize,
}

/// What a shard counts. `Embryos` to `Queued`, the overload and the lag are levels, the others only grow.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Count {
    Embryos,
    Waiting,
    Sessions,
    Leaving,
    Queued,
    Accepted,
    Refused,
    Evicted,
    AcceptPauses,
    QueueEntered,
    QueueAdmitted,
    QueueReturned,
    Failed,
    Joins,
    MessagesIn,
    MessagesOut,
    BytesIn,
    BytesOut,
    Sends,
    RecordsOut,
    RecordsIn,
    Handshakes,
    Strangers,
    InputThrottled,
    BroadcastsRefused,
    SendsThrottled,
    Replaced,
    Dropped,
    Full,
    Gone,
    JobsLate,
    Errors,
    Turns,
    BusyNanos,
    SlowTurns,
    OverloadLevel,
    LagNanos,
    LongestTurnNanos,
}

/// A word for each.
struct Words<T>([T; Count::COUNT]);

impl<T: Default> Default for Words<T> {
    fn default() -> Words<T> {
        Words(std::array::from_fn(|_| T::default()))
    }
}

impl Count {
    const COUNT: usize = Count::LongestTurnNanos as usize + 1;
}

/// The shard's own copy, counted without atomics and published once a turn.
#[derive(Default)]
pub(crate) struct Counters {
    words: Words<u64>,
    leaves: [u64; LeaveReason::COUNT],
    leaves_changed: bool,
    turned_away: [u64; TurnedAway::COUNT],
    turned_away_changed: bool,
}

impl Counters {
    #[inline]
    pub(crate) fn add(&mut self, what: Count, n: u64) {
        self.words.0[what as usize] += n;
    }

    #[inline]
    pub(crate) fn sub(&mut self, what: Count, n: u64) {
        self.words.0[what as usize] -= n;
    }

    #[inline]
    pub(crate) fn set(&mut self, what: Count, n: u64) {
        self.words.0[what as usize] = n;
    }

    pub(crate) fn get(&self, what: Count) -> u64 {
        self.words.0[what as usize]
    }

    pub(crate) fn left(&mut self, reason: LeaveReason) {
        self.leaves[usize::from(reason.code())] += 1;
        self.leaves_changed = true;
    }

    /// Somebody was not let in.
    pub(crate) fn turned_away(&mut self, cause: TurnedAway) {
        self.add(Count::Refused, 1);
        self.turned_away[usize::from(cause.code())] += 1;
        self.turned_away_changed = true;
    }

    /// Makes the counters visible. Relaxed: each stands for itself.
    pub(crate) fn publish(&mut self, to: &ShardFigures) {
        for (word, value) in to.words.0.iter().zip(self.words.0) {
            word.store(value, Ordering::Relaxed);
        }
        if std::mem::take(&mut self.leaves_changed) {
            for (word, value) in to.leaves.iter().zip(self.leaves) {
                word.store(value, Ordering::Relaxed);
            }
        }
        if std::mem::take(&mut self.turned_away_changed) {
            for (word, value) in to.turned_away.iter().zip(self.turned_away) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }
}

/// How overloaded the busiest shard is.
pub(crate) fn overload(shards: &[ShardFigures]) -> u64 {
    let levels =
        shards.iter().map(|shard| shard.words.0[Count::OverloadLevel as usize].load(Ordering::Relaxed));
    levels.max().unwrap_or(0)
}

/// Sums the shards up.
pub(crate) fn sum(shards: &[ShardFigures], pool: PoolFigures) -> Figures {
    let total = |what: Count| {
        shards.iter().map(|shard| shard.words.0[what as usize].load(Ordering::Relaxed)).sum::<u64>()
    };
    let most = |what: Count| {
        shards.iter().map(|shard| shard.words.0[what as usize].load(Ordering::Relaxed)).max().unwrap_or(0)
    };
    let remote = |word: fn(&ShardFigures) -> &AtomicU64| {
        shards.iter().map(|shard| word(shard).load(Ordering::Relaxed)).sum::<u64>()
    };
    let mut leaves = [0; LeaveReason::COUNT];
    for shard in shards {
        for (sum, word) in leaves.iter_mut().zip(&shard.leaves) {
            *sum += word.load(Ordering::Relaxed);
        }
    }
    // The gate's shard alone counts these.
    let turned_away = shards.first().map_or([0; TurnedAway::COUNT], |gate| {
        std::array::from_fn(|cause| gate.turned_away[cause].load(Ordering::Relaxed))
    });
    Figures {
        embryos: total(Count::Embryos),
        waiting: total(Count::Waiting),
        queue_entered: total(Count::QueueEntered),
        queue_admitted: total(Count::QueueAdmitted),
        queue_returned: total(Count::QueueReturned),
        sessions: total(Count::Sessions),
        sessions_leaving: total(Count::Leaving),
        accepted: total(Count::Accepted),
        refused: total(Count::Refused),
        turned_away,
        evicted: total(Count::Evicted),
        accept_pauses: total(Count::AcceptPauses),
        failed: total(Count::Failed),
        joins: total(Count::Joins),
        leaves,
        messages_in: total(Count::MessagesIn),
        messages_out: total(Count::MessagesOut),
        bytes_in: total(Count::BytesIn),
        bytes_out: total(Count::BytesOut),
        sends: total(Count::Sends),
        records_out: total(Count::RecordsOut),
        records_in: total(Count::RecordsIn),
        handshakes: total(Count::Handshakes),
        strangers: total(Count::Strangers),
        input_throttled: total(Count::InputThrottled),
        broadcasts_refused: total(Count::BroadcastsRefused),
        sends_throttled: total(Count::SendsThrottled),
        replaced: total(Count::Replaced),
        dropped: total(Count::Dropped),
        queued_bytes: total(Count::Queued),
        full: total(Count::Full) + remote(|shard| &shard.remote_full),
        gone: total(Count::Gone) + remote(|shard| &shard.remote_gone),
        jobs_late: total(Count::JobsLate),
        errors: total(Count::Errors),
        turns: total(Count::Turns),
        busy: Duration::from_nanos(total(Count::BusyNanos)),
        overload: most(Count::OverloadLevel) as u8,
        lag: Duration::from_nanos(most(Count::LagNanos)),
        slow_turns: total(Count::SlowTurns),
        longest_turn: Duration::from_nanos(most(Count::LongestTurnNanos)),
        pool,
    }
}
