//! Bugs that the simulator must find.
//!
//! Each is a plausible slip at the place where it would be made, behind [`planted`], which is `false` at compile time
//! unless the feature `planted` is on. One at a time is switched on, for one thread, by the simulator alone.
//! `docs/simulation.md` tells how many seeds each one took.

macro_rules! bugs {
    ($($bug:ident: $what:literal,)+) => {
        /// The bugs there are.
        #[allow(unreachable_pub, reason = "it is told through `simulation`, with the feature alone")]
        #[cfg_attr(not(feature = "wan"), allow(dead_code, reason = "some are of encrypted sessions"))]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Planted { $(#[doc = $what] $bug,)+ }

        #[cfg(feature = "planted")]
        impl Planted {
            /// All of them.
            pub const ALL: &'static [Planted] = &[$(Planted::$bug,)+];

            /// What it is, in a line.
            pub fn what(self) -> &'static str {
                match self { $(Planted::$bug => $what,)+ }
            }
        }
    };
}

bugs! {
    ReceiveBeforeJoin: "What lay behind a greeting is delivered before `on_join` returned.",
    FreedInsideJoin: "A session that is disconnected inside its `on_join` is freed at once.",
    RearmOnResult: "A receive that told bytes is taken to go on, whatever its `more` says.",
    TimerWithoutSerial: "A timer outlives its session and fires for whoever lives in the slot then.",
    TwoSends: "A flush does not wait for the send that is in flight.",
    SerialsRestart: "Serials begin anew with each start.",
    LeaveTwice: "`on_leave` is called when the leave is decided, and once more at its end.",
    ShortWriteIsWhole: "What a short write left behind is thrown away.",
    PartialDropped: "The start of a frame at the end of a read is thrown away.",
    WakeWithoutSecondLook: "A shard falls asleep without a second look into its mailbox.",
    DeliveredDuringHold: "Messages are delivered while a job holds them.",
    EndOvertakesHeld: "The end of a stream ends the session, though messages before it wait for a job.",
    HoldForgotten: "A session stays held after its job came back.",
    RetireWithSend: "An aborted connection is retired although its send is in flight.",
    PlaceKept: "The gate does not count a place free when a session has left.",
    GroupIndexStale: "The member that moved into a gap of its group is not told.",
    SendLostOnFull: "A send that the driver had no room for is forgotten.",
    CloseWithoutDrain: "A graceful leave closes without half-close and drain.",
    StarvedForgotten: "A receive that found no buffer is not started again.",
    SerialNotCompared: "A request finds its session by the slot alone.",
    DisconnectLost: "A disconnect from another thread is marked and never told to the shard.",
    UnsentDropped: "What is queued when a graceful leave begins is dropped.",
    PacketLeaked: "The packet that a full queue refuses never goes back to the pool.",
    QueuePlaceLost: "Who waits and loses the connection loses the place in the queue.",
    TicketTakenTwice: "A ticket that was taken is good once more.",
    BlockEndsEarly: "A temporary block ends a little before its time.",
    BlockWithoutEnd: "A temporary block never ends.",
    ChunkRemembered: "The chunk of a broadcast is remembered beyond its flush.",
    GreetingWithoutEnd: "Patience with a peer that does not greet never ends.",
    LimitOffByOne: "A queue takes one message more than it may.",
    BudgetLeaks: "What a replaced message held stays counted.",
    StallBlamed: "What a shard did not hear while it stood still counts as its peers' silence.",
    ThrottleNeverLifted: "A session that was held for sending too much is not read again.",
    EntropyRestarts: "Each start of a server makes its handshakes' keys of the same chance again, so that nonces repeat.",
    RecordLimitOffByOne: "A record takes one byte of frames more than fits.",
    PrefixKept: "A session that took its time to leave stays counted at its prefix.",
    PrefixOneTooMany: "One too many of a prefix is let in when it has greeted.",
    PrefixRateOfNeighbours: "How fast an address comes counts against its neighbourhood alone.",
    ExemptLimited: "Who is exempt is limited all the same.",
    TokenUnbound: "A proof is taken for the log-in of any connection.",
}

#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn planted(_: Planted) -> bool {
    false
}

#[cfg(feature = "planted")]
mod at_run_time {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static BUG: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Whether this bug is switched on, on this thread.
    pub(crate) fn planted(bug: Planted) -> bool {
        BUG.get() == Some(bug)
    }

    /// Runs `body` with the bug switched on.
    pub(crate) fn with<R>(bug: Planted, body: impl FnOnce() -> R) -> R {
        BUG.set(Some(bug));
        let result = body();
        BUG.set(None);
        result
    }
}

#[cfg(feature = "planted")]
pub(crate) use at_run_time::{planted, with};
