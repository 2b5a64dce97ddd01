//! Whole servers and clients in a simulated world: everything that can go wrong, from one seed, and again from the same.
//!
//! ```text
//!   seed ──► scenario ──► town:  house 0, a server  ── shards on simulated drivers ──┐
//!                                house 1, a client  ── its links ────────────────────┤ one world: network, clock,
//!                                scripted peers, from impeccable to hostile ─────────┤ chance, faults
//!                                other threads, offload threads ─────────────────────┘
//!                         ledger: what content and peers saw, and the rules ──► a violation, or none
//! ```
//!
//! The engine in here is the real one: the same shards, gate, mailboxes and framings, on the simulated driver. All of it
//! runs in one thread; who goes next is drawn, between any two half turns of a shard. A run has a phase of faults in which
//! no rule may break (safety), a phase without in which everybody must be served (liveness), and a stop after which
//! everything must be back where it came from. `docs/simulation.md` lists the rules and where each is looked at.
//!
//! ```
//! let report = madang::simulation::run(7);
//! assert_eq!(report.violation, None, "{report}");
//! ```

mod chronicle;
#[cfg(feature = "wan")]
mod cloak;
mod codec;
mod content;
mod doorway;
mod house;
mod jobs;
mod ledger;
mod payload;
mod peers;
mod scenario;
mod town;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use madang_driver::sim::{FaultCounts, Random};

use self::chronicle::Chronicle;
pub use self::doorway::Doorway;
use self::ledger::Ledger;
pub use self::ledger::Violation;
use self::scenario::Scenario;
use self::town::Town;
#[cfg(feature = "planted")]
pub use crate::planted::Planted;

/// What came of a seed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// Over everything that happened: equal for equal runs.
    pub trace_hash: u64,
    /// Half turns of shards.
    pub turns: u64,
    /// Messages delivered to content.
    pub messages: u64,
    /// Sessions that joined.
    pub sessions: u64,
    /// Time that passed in the world.
    pub virtual_time: Duration,
    /// The last events before the violation.
    pub events: Vec<String>,
    faults: FaultCounts,
    deeds: BTreeMap<&'static str, u64>,
}

/// Runs one seed. After a violation it is run a second time for its last events.
pub fn run(seed: u64) -> Report {
    let report = run_once(seed, Chronicle::new(false, false));
    if report.violation.is_none() {
        return report;
    }
    let again = run_once(seed, Chronicle::new(true, false));
    if (again.trace_hash, &again.violation) == (report.trace_hash, &report.violation) {
        return again;
    }
    let what = format!("the run ended with {:?}, its replay with {:?}", report.violation, again.violation);
    Report { violation: Some(Violation { rule: "I24".to_owned(), what }), ..again }
}

/// Runs one seed twice: equal seeds must give equal traces (I24).
pub fn run_twice(seed: u64) -> Report {
    let (first, second) = (run(seed), run_once(seed, Chronicle::new(false, false)));
    if first.violation.is_none() && first.trace_hash != second.trace_hash {
        let what =
            format!("one run has the trace {:016x}, another {:016x}", first.trace_hash, second.trace_hash);
        return Report { violation: Some(Violation { rule: "I24".to_owned(), what }), ..first };
    }
    first
}

/// Runs one seed and prints its events as they happen.
pub fn trace(seed: u64) -> Report {
    run_once(seed, Chronicle::new(true, true))
}

/// Runs one seed with a bug planted, which some seed must find.
#[cfg(feature = "planted")]
pub fn run_planted(seed: u64, bug: Planted) -> Report {
    crate::planted::with(bug, || run(seed))
}

fn run_once(seed: u64, chronicle: Chronicle) -> Report {
    listen_to_panics();
    let scenario = Scenario::draw(seed);
    let ledger = Arc::new(Mutex::new(Ledger::new(Random::new(seed ^ 0x6c65_6467_6572), chronicle, false)));
    if let Ok(mut ledger) = ledger.lock() {
        ledger.note(|| format!("{scenario:#?}"));
    }
    HEARD.with(|heard| *heard.borrow_mut() = Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(|| Town::found(seed, scenario, &ledger).run()));
    let heard = HEARD.with(|heard| heard.borrow_mut().take()).unwrap_or_default();
    let ledger = ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut report = Report {
        seed,
        violation: ledger.violation.clone(),
        trace_hash: ledger.hash,
        turns: 0,
        messages: ledger.delivered,
        sessions: ledger.sessions.len() as u64,
        virtual_time: Duration::ZERO,
        events: ledger.chronicle.last_events(),
        faults: FaultCounts::default(),
        deeds: ledger.deeds.clone(),
    };
    match outcome {
        Ok(outcome) => {
            report.violation = outcome.violation;
            report.trace_hash = outcome.trace_hash;
            report.turns = outcome.turns;
            report.virtual_time = outcome.virtual_time;
            report.faults = outcome.faults;
        }
        // The first thing that broke stands; a panic behind it may be its consequence.
        Err(_) => {
            report.violation.get_or_insert(Violation { rule: "no panic".to_owned(), what: heard });
        }
    }
    report
}

thread_local! {
    /// While a run is under way on this thread: the first panic that nobody meant.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics inside a run are its findings: they are kept for the report instead of printed.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let in_a_run = HEARD.with(|heard| {
                let Ok(mut heard) = heard.try_borrow_mut() else { return false };
                let Some(heard) = &mut *heard else { return false };
                if heard.is_empty() {
                    *heard = panic.to_string();
                }
                true
            });
            if !in_a_run {
                before(panic);
            }
        }));
    });
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violation {
            None => write!(
                f,
                "seed {}: clean. {} sessions, {} messages, {} half turns, {:?} of virtual time, trace {:016x}",
                self.seed, self.sessions, self.messages, self.turns, self.virtual_time, self.trace_hash
            ),
            Some(Violation { rule, what }) => {
                writeln!(f, "seed {}: broken rule {rule}: {what}", self.seed)?;
                writeln!(f, "replay: cargo run --release -p madang-cli -- sim --seed {} --trace", self.seed)?;
                self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
            }
        }
    }
}

/// What a batch of seeds went through.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Seeds.
    pub seeds: u64,
    /// Half turns of shards.
    pub turns: u64,
    /// Messages delivered to content.
    pub messages: u64,
    /// Sessions that joined.
    pub sessions: u64,
    /// Time that passed in the worlds.
    pub virtual_time: Duration,
    faults: FaultCounts,
    deeds: BTreeMap<&'static str, u64>,
}

/// What content and peers do, all of which some seed of a batch must do.
#[cfg(feature = "wan")]
const ENCRYPTED_DEEDS: &[&str] = &["log-in with a stolen proof"];
#[cfg(not(feature = "wan"))]
const ENCRYPTED_DEEDS: &[&str] = &[];

const DEEDS: &[&str] = &[
    "answer Dropped",
    "answer Replaced",
    "answer Throttled",
    "block",
    "broadcast",
    "call from another thread",
    "callback blocks",
    "callback panics",
    "comes back with a ticket",
    "disconnect",
    "draining heard",
    "graceful stop",
    "group joined or left",
    "hard stop",
    "house stands still",
    "input held back",
    "job panics",
    "largest holder cut",
    "last word heard",
    "offload",
    "offload_unordered",
    "one too many refused",
    "peer closes",
    "peer connects",
    "peer half-closes",
    "peer resets",
    "peer turns hostile",
    "peer vanishes",
    "post",
    "prefix at its limit",
    "prefix at its limit of strangers",
    "prefix at its rate",
    "refusal at the door",
    "refusal for overload",
    "refusal in words",
    "send inside on_join",
    "shows a spent ticket",
    "stop announced",
    "send_latest",
    "send_and_disconnect",
    "stale or invented id",
    "timer",
    "too long a message",
    "user declined",
    "waits in the queue",
    "worst consumer cut",
];

impl Tally {
    /// Adds a seed's report.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.turns += report.turns;
        self.messages += report.messages;
        self.sessions += report.sessions;
        self.virtual_time += report.virtual_time;
        self.faults.add(&report.faults);
        for (deed, count) in &report.deeds {
            *self.deeds.entry(deed).or_default() += count;
        }
    }

    /// Adds another batch.
    pub fn merge(&mut self, other: &Tally) {
        self.seeds += other.seeds;
        self.turns += other.turns;
        self.messages += other.messages;
        self.sessions += other.sessions;
        self.virtual_time += other.virtual_time;
        self.faults.add(&other.faults);
        for (deed, count) in &other.deeds {
            *self.deeds.entry(deed).or_default() += count;
        }
    }

    /// Kinds of faults and deeds that never happened: a batch of some hundred seeds in which one did not has proven less
    /// than it says.
    pub fn never_happened(&self) -> Vec<String> {
        let faults = self.faults.never().into_iter().map(|kind| format!("fault {kind}"));
        let deeds = DEEDS
            .iter()
            .chain(ENCRYPTED_DEEDS)
            .filter(|deed| !self.deeds.contains_key(**deed))
            .map(|deed| format!("deed `{deed}`"));
        faults.chain(deeds).collect()
    }

    /// How often each fault and deed happened.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let faults = self.faults.iter().map(|(kind, count)| (kind.to_string(), count));
        faults.chain(self.deeds.iter().map(|(deed, count)| ((*deed).to_owned(), *count))).collect()
    }
}
