//! What may go wrong in a world, how often, and how often it did.

use std::fmt;
use std::time::Duration;

use super::random::Random;

/// What a fault does to those who keep the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// None: another order, size or moment of something legal. Every byte still comes.
    Manners,
    /// A connection dies of it, or never lives.
    Loss,
    /// Somebody in between touches what travels. No swarm has it: only what is sealed survives it, and a world that is
    /// has to ask for it.
    Tampering,
}

macro_rules! fault_kinds {
    ($($(#[$doc:meta])+ $kind:ident: $harm:ident, $often:expr;)+) => {
        /// The kinds of faults. Each is counted when it really happens.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FaultKind { $($(#[$doc])+ $kind,)+ }

        impl FaultKind {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$kind,)+];

            /// What it does to those who keep the contract.
            pub fn harm(self) -> Harm {
                match self { $(FaultKind::$kind => Harm::$harm,)+ }
            }

            /// The highest rate a swarm gives it, per million opportunities: the fewer chances a run offers, the higher.
            fn swarm_rate_max(self) -> u32 {
                match self { $(FaultKind::$kind => $often,)+ }
            }
        }
    };
}

/// Per opportunity that comes once in a connection's life, and costs nothing.
const ALWAYS: u32 = 700_000;
/// Per opportunity that comes with each operation, and costs nothing.
const OFTEN: u32 = 300_000;
/// Per opportunity that comes with each operation, but costs time or progress.
const AT_TIMES: u32 = 60_000;
/// Kills a connection, and its opportunity comes with each operation.
const SELDOM: u32 = 4_000;
/// Kills a connection, and its opportunity comes once in a connection's life.
const PER_LIFE: u32 = 120_000;

fault_kinds! {
    /// A send takes fewer bytes than it could.
    ShortWrite: Manners, OFTEN;
    /// A receive tells one byte of many.
    OneByteRead: Manners, OFTEN;
    /// A receive tells some of the bytes that are there.
    PartialRead: Manners, OFTEN;
    /// A write travels as several segments, cut at any byte.
    SegmentSplit: Manners, OFTEN;
    /// A write rides on the segment before it.
    SegmentsCoalesced: Manners, OFTEN;
    /// A segment takes up to 50 ms.
    SegmentDelayed: Manners, AT_TIMES;
    /// A link stands still for up to 2 s.
    LinkStalled: Manners, SELDOM;
    /// A writer learns late that there is room again.
    RoomToldLate: Manners, OFTEN;
    /// A window of a few bytes for a connection's life.
    TinyWindow: Manners, PER_LIFE;
    /// The FIN comes with the last bytes rather than behind them.
    FinWithData: Manners, OFTEN;
    /// A receive ends with data, without need.
    RecvEndsWithData: Manners, OFTEN;
    /// A receive with data waiting ends for want of a buffer.
    NoBuffers: Manners, AT_TIMES;
    /// A receive on an idle socket ends at once for want of a buffer.
    NoBuffersIdle: Manners, AT_TIMES;
    /// A shard has none to four buffers for a while.
    BufferFamine: Manners, SELDOM;
    /// `attach` answers full.
    FullAttach: Manners, OFTEN;
    /// `connect` answers full.
    FullConnect: Manners, OFTEN;
    /// `recv_start` answers full.
    FullRecvStart: Manners, OFTEN;
    /// `send` answers full.
    FullSend: Manners, OFTEN;
    /// A send's bytes are taken after the submit returned, at the next poll.
    SendTakenLate: Manners, OFTEN;
    /// A shard's completions are withheld for a while.
    ShardClogged: Manners, SELDOM;
    /// A completion is withheld for a while.
    CompletionWithheld: Manners, AT_TIMES;
    /// A completion overtakes those of other operations.
    CompletionsReordered: Manners, OFTEN;
    /// A poll returns early and empty though something is ready.
    EarlyEmptyPoll: Manners, AT_TIMES;
    /// A sleep ends without a reason.
    SpuriousWake: Manners, AT_TIMES;
    /// A wake wakes twice.
    DuplicateWake: Manners, OFTEN;
    /// A wake arrives late.
    DelayedWake: Manners, OFTEN;
    /// A deadline of a poll is noticed late.
    LateTimer: Manners, AT_TIMES;
    /// The wall clock jumps, up to an hour either way.
    WallClockJump: Manners, SELDOM;
    /// An index is handed out again right after its retirement.
    IndexReusedAtOnce: Manners, ALWAYS;
    /// Accepting finds no descriptor and backs off.
    AcceptStall: Manners, AT_TIMES;
    /// A connection that waited at the door is told after `unlisten`.
    LateAccept: Manners, ALWAYS;
    /// A pause finds bytes already taken off the socket; they are kept.
    PauseTakesBytes: Manners, ALWAYS;
    /// An abort finds some of the bytes that came already under way.
    AbortTellsSomeData: Manners, ALWAYS;
    /// An abort finds all the bytes that came already under way, the last as the terminal.
    AbortTellsAllData: Manners, ALWAYS;
    /// An abort is followed by several `Data` before the terminal.
    AbortTellsPieces: Manners, ALWAYS;
    /// An aborted receive ends with another word than `Cancelled`.
    AbortEndsOtherwise: Manners, ALWAYS;
    /// An aborted send ends with success, whole or in part.
    AbortedSendSucceeds: Manners, ALWAYS;
    /// An aborted connect ends with success.
    AbortedConnectSucceeds: Manners, ALWAYS;
    /// A reset throws away what was not read yet (some systems do, some do not).
    ResetDropsUnread: Manners, ALWAYS;
    /// A reset is told once, to a send; the receive then ends as if the peer had finished.
    ResetToldToSend: Manners, ALWAYS;
    /// A peer is gone before its socket can be handed over.
    GoneBeforeAccept: Loss, PER_LIFE;
    /// A peer has sent FIN and left when its socket is handed over.
    AcceptedThenFin: Loss, PER_LIFE;
    /// A peer has reset when its socket is handed over; nothing of it is left.
    AcceptedThenReset: Loss, PER_LIFE;
    /// A peer has sent data and reset when its socket is handed over.
    AcceptedDataThenReset: Loss, PER_LIFE;
    /// An accepted socket cannot be attached: its peer is gone.
    AttachFails: Loss, PER_LIFE;
    /// A connection is reset in flight, both ends learn of it.
    ConnectionReset: Loss, SELDOM;
    /// A connection goes silent, neither end learns of it.
    LinkVanished: Loss, SELDOM / 4;
    /// A send fails for want of kernel buffers; the connection lives.
    SendNoBufferSpace: Manners, AT_TIMES;
    /// A send ends with a time-out, the connection with it.
    SendTimedOut: Loss, SELDOM;
    /// A send finds that the reader is gone.
    SendBrokenPipe: Loss, SELDOM;
    /// A receive fails, the connection with it.
    RecvError: Loss, SELDOM;
    /// A connect is refused though somebody listens.
    ConnectRefused: Loss, PER_LIFE;
    /// A connect ends in a time-out.
    ConnectTimedOut: Loss, PER_LIFE;
    /// A bit of a segment is flipped on the way.
    BitFlipped: Tampering, 0;
    /// A segment comes twice.
    SegmentReplayed: Tampering, 0;
    /// A connection is cut off with what looks like an orderly end to both.
    CutOff: Tampering, 0;
    /// Completion ports: a send succeeds at once, and its packet comes a while later all the same.
    SentAtOnceToldLate: Manners, OFTEN;
    /// Completion ports: a send fails inside its submit, the connection with it. No packet comes: it is told at once.
    SendFailsAtOnce: Loss, SELDOM;
    /// Completion ports: an abort closes the socket, and the packets of what was in flight come a while later.
    WordsAfterClose: Manners, ALWAYS;
    /// Completion ports: what an abort called off was done already: a send whole, a receive with all the bytes there are.
    CancelledAfterSuccess: Manners, ALWAYS;
}

/// The manners of I/O completion ports: on together, in one world of eight.
const COMPLETION_PORTS: [FaultKind; 4] = [
    FaultKind::SentAtOnceToldLate,
    FaultKind::SendFailsAtOnce,
    FaultKind::WordsAfterClose,
    FaultKind::CancelledAfterSuccess,
];

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const KINDS: usize = FaultKind::ALL.len();

/// How often each fault happens, and the weather of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    per_million: [u32; KINDS],
    /// The shortest and the longest time a segment takes when nothing delays it.
    pub latency: (Duration, Duration),
    /// The longest time a completion is withheld, a shard clogged, a timer late.
    pub hold_max: Duration,
    /// Bytes that may be on their way and unread, per direction of a connection.
    pub window_bytes: usize,
    /// Sizes that cuts of segments and reads prefer beside 1: a header's size and its neighbours, for instance.
    pub cut_sizes: Vec<usize>,
}

impl Faults {
    /// Nothing goes wrong, and the network takes a microsecond.
    pub fn none() -> Faults {
        Faults {
            per_million: [0; KINDS],
            latency: (Duration::from_micros(1), Duration::from_micros(1)),
            hold_max: Duration::from_millis(200),
            window_bytes: 256 * 1024,
            cut_sizes: vec![2, 3, 4, 5],
        }
    }

    /// A good day on a real machine: some latency, cuts and reordering; nobody loses anything.
    pub fn calm() -> Faults {
        let mut faults =
            Faults { latency: (Duration::from_micros(10), Duration::from_micros(300)), ..Faults::none() };
        use FaultKind::*;
        for kind in
            [ShortWrite, PartialRead, SegmentSplit, SegmentsCoalesced, RecvEndsWithData, CompletionsReordered]
        {
            faults = faults.with(kind, 20_000);
        }
        faults
    }

    /// A subset of the faults and their rates, drawn from `seed`: many are off in each swarm, and none in all of them,
    /// since a fault that is always there hides what only shows without it.
    pub fn swarm(seed: u64) -> Faults {
        let mut random = Random::new(seed ^ 0x5377_6172_6d53_6565);
        let mut faults = Faults::none();
        // Even the share of faults that are on differs: a quiet seed reaches states that a wild one never does.
        let share = *pick(&mut random, &[50_000, 200_000, 400_000, 700_000]);
        let drawn_apart =
            |kind: &FaultKind| kind.harm() == Harm::Tampering || COMPLETION_PORTS.contains(kind);
        for kind in FaultKind::ALL.iter().filter(|kind| !drawn_apart(kind)) {
            if random.chance(share) {
                let rate = kind.swarm_rate_max() >> random.below(6);
                faults = faults.with(*kind, rate.max(1));
            }
        }
        let slowest_micros = *pick(&mut random, &[1, 100, 1_000, 20_000]);
        faults.latency = (Duration::from_micros(1), Duration::from_micros(slowest_micros));
        faults.hold_max = Duration::from_micros(*pick(&mut random, &[50, 2_000, 50_000, 800_000]));
        faults.window_bytes = *pick(&mut random, &[512, 4 * 1024, 64 * 1024, 256 * 1024]);
        // A stream of its own: a seed without them is the same as before they were thought of.
        let mut ports = Random::new(seed ^ 0x506f_7274_4d61_6e6e);
        if ports.below(8) == 0 {
            for kind in COMPLETION_PORTS {
                faults = faults.with(kind, (kind.swarm_rate_max() >> ports.below(4)).max(1));
            }
        }
        faults
    }

    /// The same with `kind` happening `per_million` times in a million opportunities.
    pub fn with(mut self, kind: FaultKind, per_million: u32) -> Faults {
        self.per_million[kind as usize] = per_million;
        self
    }

    /// The same without the faults that kill connections.
    pub fn harmless(mut self) -> Faults {
        for kind in FaultKind::ALL.iter().filter(|kind| kind.harm() != Harm::Manners) {
            self.per_million[*kind as usize] = 0;
        }
        self
    }

    /// How often `kind` happens in a million opportunities.
    pub fn rate(&self, kind: FaultKind) -> u32 {
        self.per_million[kind as usize]
    }
}

fn pick<'a, T>(random: &mut Random, choices: &'a [T]) -> &'a T {
    &choices[random.index(choices.len())]
}

/// How often each fault happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultCounts([u64; KINDS]);

impl FaultCounts {
    /// How often `kind` happened.
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }

    /// Each kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> {
        FaultKind::ALL.iter().map(|kind| (*kind, self.0[*kind as usize]))
    }

    /// Adds another world's counts: for a batch of seeds.
    pub fn add(&mut self, other: &FaultCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The kinds that never happened.
    pub fn never(&self) -> Vec<FaultKind> {
        self.iter().filter(|(_, count)| *count == 0).map(|(kind, _)| kind).collect()
    }
}

impl Default for FaultCounts {
    fn default() -> FaultCounts {
        FaultCounts([0; KINDS])
    }
}

/// Chance, bent by the faults.
pub(super) struct Dice {
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) counts: FaultCounts,
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Dice {
        Dice { random: Random::new(seed), faults, counts: FaultCounts::default() }
    }

    /// Whether somebody in between does this now. Where nobody does, chance is not asked.
    pub(super) fn tampers(&mut self, kind: FaultKind) -> bool {
        self.faults.rate(kind) > 0 && self.fires(kind)
    }

    /// Whether the fault happens now; asked only where it would make a difference, since a yes is counted.
    pub(super) fn fires(&mut self, kind: FaultKind) -> bool {
        let fires = self.random.chance(self.faults.rate(kind));
        if fires {
            self.counts.0[kind as usize] += 1;
        }
        fires
    }

    /// How long a segment takes: mostly near the lower bound, now and then far from it.
    pub(super) fn latency(&mut self) -> Duration {
        let (low, high) = self.faults.latency;
        let spread = (high.saturating_sub(low)).as_nanos() as u64;
        let skewed = self.random.below(spread + 1) >> self.random.below(4);
        low + Duration::from_nanos(skewed)
    }

    /// A span up to `max`, at least a nanosecond.
    pub(super) fn span(&mut self, max: Duration) -> Duration {
        Duration::from_nanos(self.random.between(1, (max.as_nanos() as u64).max(1)))
    }

    /// A span for which something is held back.
    pub(super) fn hold(&mut self) -> Duration {
        self.span(self.faults.hold_max)
    }

    /// Where to cut `len` bytes (at least 2): 1, a preferred size, or anywhere; always below `len`.
    pub(super) fn cut(&mut self, len: usize) -> usize {
        let favourites = self.faults.cut_sizes.len();
        let at = match self.random.below(3) {
            0 => 1,
            1 if favourites > 0 => self.faults.cut_sizes[self.random.index(favourites)],
            _ => 1 + self.random.index(len - 1),
        };
        at.clamp(1, len - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_is_the_seeds_and_over_many_seeds_each_fault_is_on_and_off() {
        assert_eq!(Faults::swarm(3), Faults::swarm(3));
        assert_ne!(Faults::swarm(3), Faults::swarm(4));
        for kind in FaultKind::ALL.iter().filter(|kind| kind.harm() != Harm::Tampering) {
            let on = (0..400).filter(|seed| Faults::swarm(*seed).rate(*kind) > 0).count();
            assert!((20..380).contains(&on), "{kind} is on in {on} of 400 swarms");
        }
    }

    #[test]
    fn harmless_faults_kill_nobody() {
        let harmless = Faults::swarm(9).harmless();
        assert!(FaultKind::ALL.iter().all(|kind| kind.harm() == Harm::Manners || harmless.rate(*kind) == 0));
    }
}
