//! The simulated world: machines, network, clock and chance, all from one seed.
//!
//! ```text
//!   harness ── step, advance ──► ┌ World ─────────────────────────────────┐
//!   SimDriver (a shard) ───────► │ shard │ shard │ …   words owed, sleeps │  each word: told, withheld, overtaken
//!   SimDriver (a shard) ───────► │ streams, pipes, ports, agenda          │  each segment: split, delayed, lost by reset
//!   Peer (scripted) ───────────► │ clock · dice · faults · trace          │  each draw: from the seed
//!                                └────────────────────────────────────────┘
//! ```
//!
//! A [`World`] runs any number of [`SimDriver`]s in one thread. They are to the engine what io_uring or readiness are on a
//! real machine, except that nothing blocks, time is a number that [`World::advance`] moves, and whatever the contract
//! permits does happen: [`FaultKind`] lists it, [`Faults`] says how often, [`World::fault_counts`] how often it did. Whoever
//! breaks the contract ends in a panic that names the rule.
//!
//! Equal seeds, faults and calls give equal runs, which [`World::trace_hash`] shows.
//!
//! A verb that answered *full* makes nobody runnable: whoever has to try again plans a wait that ends soon.
//!
//! What is not simulated: congestion and retransmission inside TCP, memory shortage of the kernel beyond ENOBUFS, TIME_WAIT,
//! threads (their interleaving is the harness's choice of who runs next), and what io_uring or completion ports do under
//! the contract's surface.
//!
//! ```
//! use madang_driver::sim::{Faults, World};
//! use madang_driver::{Completion, Driver, DriverSettings, ListenOptions, Wait};
//!
//! let world = World::new(7, Faults::none());
//! let mut driver = world.driver(DriverSettings::default());
//! let (_, address) = driver.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
//! let mut peer = world.peer("127.0.0.9:0".parse().unwrap(), address).unwrap();
//! let mut completions = Vec::new();
//! while completions.is_empty() {
//!     driver.poll(&mut completions, 16, Wait::FOREVER);
//!     world.step();
//! }
//! assert!(matches!(&completions[0], Completion::Accepted { incoming, .. } if incoming.peer() == peer.local()));
//! ```

mod driver;
mod faults;
mod lending;
mod machine;
mod peer;
mod pipe;
mod ports;
mod random;
mod shard;
mod socket;
mod stream;
mod trace;

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use driver::SimDriver;
pub use faults::{FaultCounts, FaultKind, Faults, Harm};
pub use peer::{Peer, PeerListener, PeerState};
pub use random::Random;
pub use socket::SimSocket;

use self::machine::Machine;
use self::shard::{Alarm, Shard};
use crate::Clock;
use crate::{DriverSettings, ListenError, ListenOptions, NetError, Time, Wait};

/// A simulated world, as a handle: clones are the same world. It and everything made from it stay on one thread.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

struct State {
    machine: Machine,
    /// By their drivers' numbers; `None` once the driver has ended.
    shards: Vec<Option<Shard>>,
}

impl World {
    /// A world in which everything random comes from `seed`.
    pub fn new(seed: u64, faults: Faults) -> World {
        World(Rc::new(RefCell::new(State { machine: Machine::new(seed, faults), shards: Vec::new() })))
    }

    /// A driver for one more shard. Shards of one process and of several are the same to the world.
    pub fn driver(&self, settings: DriverSettings) -> SimDriver {
        let alarm = Arc::new(Alarm::default());
        let number = self.with(|machine, shards| {
            machine.add_shard();
            let entropy = machine.dice.random.fork();
            shards.push(Some(Shard::new(shards.len(), settings, entropy, Arc::clone(&alarm))));
            shards.len() - 1
        });
        SimDriver::new(self.clone(), number, alarm)
    }

    /// A scripted peer that connects from `from` (port 0: any) to `to`. What became of it is its state, later.
    ///
    /// # Errors
    /// `from` is not an address of the simulated machine (127/8, 10/8, `::1`).
    pub fn peer(&self, from: SocketAddr, to: SocketAddr) -> Result<Peer, NetError> {
        Peer::connect(self, from, to)
    }

    /// A scripted listener.
    ///
    /// # Errors
    /// As [`Driver::listen`](crate::Driver::listen).
    pub fn peer_listener(&self, options: &ListenOptions) -> Result<PeerListener, ListenError> {
        PeerListener::listen(self, options)
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.with(|machine, _| machine.now())
    }

    /// The clock, for what is no shard: another thread of a server in this world.
    pub fn clock(&self) -> Clock {
        Clock::world(self.with(|machine, _| machine.clock()))
    }

    /// Moves the clock to `to` (never back); what is due on the way happens, each at its moment.
    pub fn advance(&self, to: Time) {
        self.with(|machine, _| machine.advance(to));
    }

    /// Moves the clock to the next moment after which something is different: a segment arrives, a withheld completion is
    /// due, a sleep ends. Shards that are runnable already do not hold it. `false` when nothing will ever happen by itself.
    pub fn step(&self) -> bool {
        self.with(|machine, shards| {
            let now = machine.now();
            let of_shards = shards
                .iter_mut()
                .flatten()
                .filter_map(|shard| shard.next_event(machine))
                .filter(|at| *at > now);
            let next = of_shards.min().into_iter().chain(machine.next_appointment()).min();
            next.map(|at| machine.advance(at)).is_some()
        })
    }

    /// When the next thing happens: now, if a shard is runnable; never, if `None`.
    pub fn next_event(&self) -> Option<Time> {
        self.with(|machine, shards| {
            machine.close_dropped();
            let of_shards = shards.iter_mut().flatten().filter_map(|shard| shard.next_event(machine)).min();
            of_shards.into_iter().chain(machine.next_appointment().map(|at| at.max(machine.now()))).min()
        })
    }

    /// The drivers whose poll would return now rather than sleep, by their numbers, ascending.
    pub fn runnable(&self) -> Vec<usize> {
        self.with(|machine, shards| {
            machine.close_dropped();
            let runnable = shards
                .iter_mut()
                .flatten()
                .filter_map(|shard| shard.is_runnable(machine).then_some(shard.number));
            runnable.collect()
        })
    }

    /// One of the runnable drivers, drawn.
    pub fn pick_runnable(&self) -> Option<usize> {
        let runnable = self.runnable();
        let index = self.with(|machine, _| machine.dice.random.index(runnable.len()));
        runnable.get(index).copied()
    }

    /// Tells how the driver `number` will sleep in its next poll. A shard that decides so at the end of its turn says it
    /// here; otherwise the world takes it to sleep as it did the last time.
    pub fn plan_wait(&self, number: usize, wait: Wait) {
        self.with(|machine, shards| {
            if let Some(shard) = &mut shards[number] {
                shard.sleep.plan(machine, wait);
            }
        });
    }

    /// Changes what may go wrong from here on: [`Faults::none`] begins the phase in which everything has to come to its
    /// end. What is under way (a withheld completion, a delayed segment, a reset) still comes.
    pub fn set_faults(&self, faults: Faults) {
        self.with(|machine, _| machine.dice.faults = faults);
    }

    /// Ends [`FaultKind::TinyWindow`] for the connections that live: what is under way fits at least so many bytes at a time from
    /// here on.
    pub fn widen_windows(&self, bytes: usize) {
        self.with(|machine, _| machine.widen_windows(bytes));
    }

    /// How often each fault has happened.
    pub fn fault_counts(&self) -> FaultCounts {
        self.with(|machine, _| machine.dice.counts.clone())
    }

    /// Chance for the harness, from the world's seed but apart from the world's own draws after this call.
    pub fn random(&self) -> Random {
        self.with(|machine, _| machine.dice.random.fork())
    }

    /// A hash over everything that has happened.
    pub fn trace_hash(&self) -> u64 {
        self.with(|machine, _| machine.trace.hash())
    }

    /// From here on, each event of the trace is also written to the standard error: for looking into one seed.
    pub fn narrate(&self) {
        self.with(|machine, _| machine.trace.is_told = true);
    }

    /// How many descriptors drivers may hold together; past it accepting stalls and connecting fails.
    pub fn set_descriptors_max(&self, descriptors_max: usize) {
        self.with(|machine, _| machine.descriptors_max = descriptors_max);
    }

    /// Descriptors that drivers hold: listeners, accepted and not attached sockets, connections. Zero when all have ended.
    pub fn open_sockets(&self) -> usize {
        self.with(|machine, _| {
            machine.close_dropped();
            machine.descriptors
        })
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine, &mut Vec<Option<Shard>>) -> R) -> R {
        let State { machine, shards } = &mut *self.0.borrow_mut();
        act(machine, shards)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World(at {:?}, trace {:016x})", self.now(), self.trace_hash())
    }
}
