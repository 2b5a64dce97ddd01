//! Putting a server or client together and taking it apart.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use madang_driver::{
    Clock, Driver, DriverKind, DriverSettings, Leaked, ListenOptions, SocketOptions, UseDriver,
};
use madang_packet::{Depot, Policy, PoolSettings};

use crate::directory::Directory;
use crate::error::{SettingError, StartError};
use crate::fabric::Fabric;
use crate::figures::ShardFigures;
use crate::framing::Protocol;
use crate::gate::{Gate, RuleBook, is_inside};
use crate::id::{SerialSource, SlotLayout};
use crate::letters::Word;
use crate::mailbox::Mailbox;
use crate::offload::{Crew, JobQueue, Jobs, Kind, MakeState};
use crate::planted::{Planted, planted};
use crate::settings::ms;
use crate::shard::Shard;
use crate::user::Content;
use crate::{DriverChoice, Rules, Settings};

/// Idle pool memory that a client keeps for its next burst; a server keeps all that it paid for.
const CLIENT_KEEP_BYTES: usize = 1 << 20;

/// How much less than a shard's the priority of handshake threads is: a log-in can wait for a tenth of a processor, and is
/// not put off for ever.
const HANDSHAKES_GIVE_WAY: i32 = 10;

/// What is needed to start, over and over.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) protocol: Protocol,
    pub(crate) content: Content,
    pub(crate) make_state: MakeState,
    /// They outlive a stop.
    pub(crate) rules: Arc<RuleBook>,
    /// A server listens; a client does not.
    pub(crate) is_server: bool,
}

/// A factory of offload threads' state that makes nothing.
pub(crate) fn no_state() -> MakeState {
    Arc::new(|_| Box::new(()) as Box<dyn Any>)
}

/// Threads that run.
pub(crate) struct Running {
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) driver: &'static str,
    shards: Vec<JoinHandle<Leaked>>,
    crews: Vec<Crew>,
}

/// How a stop went. All zero is the rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// Operations that the system did not give back in time; their memory was leaked rather than freed under its hands.
    pub leaked_operations: usize,
    /// Connections that could not be closed.
    pub leaked_connections: usize,
    /// Packets that are still out: in content's hands, or lost.
    pub packets_out: usize,
    /// Sessions that did not leave before the stop's deadline.
    pub sessions_left_behind: usize,
}

impl StopReport {
    /// Whether nothing stayed behind.
    pub fn is_clean(&self) -> bool {
        *self == StopReport::default()
    }
}

impl Plan {
    /// A plan with the IP rules of its settings' file.
    pub(crate) fn new(
        settings: Settings,
        protocol: Protocol,
        content: Content,
        make_state: MakeState,
        is_server: bool,
    ) -> Result<Plan, StartError> {
        settings.check()?;
        let rules = Rules { book: Arc::new(RuleBook::new(Clock::machine(), settings.rules_max)) };
        if is_server && !settings.rules_file.is_empty() {
            rules
                .load(&settings.rules_file)
                .map_err(|error| SettingError::new("rules_file", error.to_string()))?;
        }
        Ok(Plan { settings, protocol, content, make_state, rules: rules.book, is_server })
    }

    /// Checks the settings and makes what the shards share.
    pub(crate) fn assemble(
        &self,
        jobs: Arc<dyn Jobs>,
        #[cfg_attr(not(feature = "wan"), expect(unused_variables, reason = "there is no handshake"))]
        handshakes: Option<Arc<dyn Jobs>>,
        serials: SerialSource,
    ) -> Result<Arc<Fabric>, StartError> {
        let settings = &self.settings;
        settings.check_all_but_the_pool()?;
        let serials = if planted(Planted::SerialsRestart) {
            SerialSource::World(Arc::new(AtomicU64::new(1)))
        } else {
            serials
        };
        if self.is_server && self.protocol.is_lan() && !is_inside(settings.bind.ip(), settings) {
            let problem = format!(
                "a LAN server's framing is not protected, so it listens on loopback or private addresses only, and {} is \
                 none: bind the address of the inner network, or set allow_public = true",
                settings.bind.ip()
            );
            return Err(SettingError::new("bind", problem).into());
        }
        if self.protocol.is_lan() && settings.tick_ms > 0 {
            return Err(SettingError::new("tick_ms", "a LAN never ticks: leave it 0").into());
        }
        let slots = settings.slots_per_shard();
        let layout = SlotLayout::new(settings.workers, slots).expect("the settings were checked");
        let policy =
            if self.is_server { Policy::Keep } else { Policy::GiveBack { keep_bytes: CLIENT_KEEP_BYTES } };
        Ok(Arc::new(Fabric {
            directory: Directory::new(layout),
            mailboxes: (0..settings.workers).map(|_| Mailbox::new(settings.mailbox_messages_max)).collect(),
            figures: (0..settings.workers).map(|_| ShardFigures::default()).collect(),
            depot: Depot::new(
                PoolSettings::default().policy(policy).budget_bytes(settings.pool_budget_bytes),
            ),
            protocol: match &self.protocol {
                #[cfg(feature = "wan")]
                Protocol::Wan(wan) => Protocol::Wan(wan.assemble(settings, self.is_server)?),
                other => other.clone(),
            },
            content: self.content.clone(),
            settings: self.settings.clone(),
            serials,
            rules: Arc::clone(&self.rules),
            jobs,
            #[cfg(feature = "wan")]
            handshakes,
            ended: AtomicBool::new(false),
            is_server: self.is_server,
            #[cfg(feature = "wan")]
            link_secret: if self.protocol.is_lan() { settings.secret.link_secret()? } else { None },
        }))
    }

    /// How many handshakes may wait for threads; none if the shards work them out.
    pub(crate) fn handshakes_max(&self) -> Option<usize> {
        #[cfg(feature = "wan")]
        if self.is_server && matches!(self.protocol, Protocol::Wan(_)) && self.settings.handshake_threads > 0
        {
            return Some(self.settings.workers * crate::shard::HANDSHAKES_OUT_MAX);
        }
        None
    }

    /// Starts all threads; answers when the server listens, or why it does not.
    pub(crate) fn start(&self) -> Result<Running, StartError> {
        let mut plan = self.clone();
        let driver = choose_driver(plan.settings.driver)?;
        if plan.settings.incarnation == 0 {
            plan.settings.incarnation = wall_clock_ms();
        }
        let jobs = JobQueue::new(plan.settings.offload_jobs_max);
        let handshakes = plan.handshakes_max().map(JobQueue::new);
        let fabric = plan.assemble(
            Arc::clone(&jobs) as Arc<dyn Jobs>,
            handshakes.clone().map(|handshakes| handshakes as Arc<dyn Jobs>),
            SerialSource::Process,
        )?;
        let thread_error = |error: std::io::Error| StartError::Thread { reason: error.to_string() };

        let (tell, started) = mpsc::channel();
        let mut running = Running {
            fabric: Arc::clone(&fabric),
            address: None,
            driver: driver.name(),
            shards: vec![],
            crews: vec![],
        };
        let no_state = no_state();
        let offload = Kind { name: "offload", threads: plan.settings.offload_threads, nice: 0 };
        let shake = Kind {
            name: "handshake",
            threads: plan.settings.handshake_threads,
            nice: (plan.settings.nice + HANDSHAKES_GIVE_WAY).min(19),
        };
        let offloaded = std::iter::once((offload, jobs, &plan.make_state));
        for (kind, queue, state) in offloaded.chain(handshakes.map(|queue| (shake, queue, &no_state))) {
            match Crew::start(&kind, queue, &Arc::downgrade(&fabric), state) {
                Ok(crew) => running.crews.push(crew),
                Err(error) => {
                    running.abandon();
                    return Err(thread_error(error));
                }
            }
        }
        for shard in 0..plan.settings.workers {
            let (fabric, tell) = (Arc::clone(&fabric), tell.clone());
            let spawned =
                std::thread::Builder::new().name(format!("madang-shard-{shard}")).spawn(move || {
                    if let Some(core) = fabric.settings.cores.get(shard) {
                        if let Err(error) = madang_driver::pin_thread(*core) {
                            tracing::warn!(shard, core, %error, "the shard could not be pinned to its core");
                        }
                    }
                    if fabric.settings.nice != 0 {
                        if let Err(error) = madang_driver::prioritize_thread(fabric.settings.nice) {
                            let nice = fabric.settings.nice;
                            tracing::warn!(shard, nice, %error, "the shard keeps the usual priority");
                        }
                    }
                    ShardThread { shard, fabric, tell }.run(driver)
                });
            match spawned {
                Ok(thread) => running.shards.push(thread),
                Err(error) => {
                    running.abandon();
                    return Err(thread_error(error));
                }
            }
        }
        drop(tell);
        for _ in 0..plan.settings.workers {
            match started.recv().expect("every shard tells how its start went") {
                Ok(address) => running.address = running.address.or(address),
                Err(error) => {
                    running.abandon();
                    return Err(error);
                }
            }
        }
        if self.is_server && self.protocol.is_lan() && !plan.settings.secret.is_empty() {
            tracing::info!(address = ?running.address, "LAN links are sealed: who does not know the secret is refused");
        } else if self.is_server && self.protocol.is_lan() {
            tracing::info!(
                address = ?running.address,
                "LAN links are plain: without a secret the address filter is the only wall"
            );
        } else if self.is_server && self.protocol.greets() {
            tracing::info!(address = ?running.address, "WAN sessions are encrypted");
        } else if self.is_server {
            tracing::info!(address = ?running.address, framing = ?crate::ForeignFraming(self.protocol.clone()),
                "foreign framing: unprotected, peers can read and change what travels");
        }
        Ok(running)
    }
}

impl Running {
    /// Ends all sessions and joins all threads.
    pub(crate) fn stop(self, graceful: bool) -> StopReport {
        self.ask_to_stop(graceful);
        self.join()
    }

    pub(crate) fn ask_to_stop(&self, graceful: bool) {
        ask_to_stop(&self.fabric, graceful);
    }

    /// Ends a start that failed half-way: some shards run, the gate's perhaps not among them.
    fn abandon(self) {
        for mailbox in &self.fabric.mailboxes {
            mailbox.control(Word::Stop { graceful: false });
        }
        self.join();
    }

    /// Whether all shards have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.shards.iter().all(JoinHandle::is_finished)
    }

    pub(crate) fn has_thread(&self, thread: ThreadId) -> bool {
        self.shards.iter().any(|shard| shard.thread().id() == thread)
            || self.crews.iter().any(|crew| crew.has_thread(thread))
    }

    pub(crate) fn join(self) -> StopReport {
        let mut report = StopReport::default();
        for shard in self.shards {
            // A shard that panicked has a broken invariant; what it held is unknown, and the process should know. While
            // a panic unwinds already (a test that fails drops its server), that one tells more.
            let leaked = shard.join().unwrap_or_else(|panic| match std::thread::panicking() {
                true => Leaked::default(),
                false => std::panic::resume_unwind(panic),
            });
            report.leaked_operations += leaked.operations;
            report.leaked_connections += leaked.connections;
        }
        self.crews.into_iter().for_each(Crew::join);
        let figures = self.fabric.figures();
        report.sessions_left_behind = (figures.sessions + figures.sessions_leaving) as usize;
        self.fabric.ended.store(true, Ordering::Release);
        drain_mailboxes(&self.fabric);
        report.packets_out = self.fabric.depot.figures().in_use.blocks;
        report
    }
}

/// A server's stop goes to the gate, which closes the door and passes it on behind whatever it has given to the other
/// shards: so a shard that has stopped is given nothing more, and the gate, which ends last, has heard of everybody.
pub(crate) fn ask_to_stop(fabric: &Fabric, graceful: bool) {
    let first_told = if fabric.is_server { &fabric.mailboxes[..1] } else { &fabric.mailboxes[..] };
    for mailbox in first_told {
        mailbox.control(Word::Stop { graceful });
    }
}

/// What was on its way when the shards ended goes back where it came from.
fn drain_mailboxes(fabric: &Fabric) {
    for mailbox in &fabric.mailboxes {
        while mailbox.pop_control().is_some() {}
        while mailbox.pop().is_some() {}
    }
}

/// Which driver is used here, and one line if it is not the first choice.
fn choose_driver(choice: DriverChoice) -> Result<DriverKind, StartError> {
    let needed = |kind: DriverKind| match kind.probe() {
        Ok(()) => Ok(kind),
        Err(reason) => Err(StartError::Driver { driver: kind.name(), reason }),
    };
    match choice {
        DriverChoice::Uring => needed(DriverKind::Uring),
        DriverChoice::Readiness => needed(DriverKind::Readiness),
        DriverChoice::Iocp => needed(DriverKind::Iocp),
        DriverChoice::Auto => {
            let (last, better) = DriverKind::IN_ORDER.split_last().expect("every system has a driver");
            for kind in better {
                match needed(*kind) {
                    Ok(kind) => return Ok(kind),
                    Err(error) => tracing::warn!(%error, "the next best driver is used instead"),
                }
            }
            needed(*last)
        }
    }
}

type Tell = mpsc::Sender<Result<Option<SocketAddr>, StartError>>;

/// A shard's thread from the moment that its driver's type is known.
struct ShardThread {
    shard: usize,
    fabric: Arc<Fabric>,
    tell: Tell,
}

impl ShardThread {
    fn run(self, driver: DriverKind) -> Leaked {
        let settings = driver_settings(&self.fabric.settings);
        driver.open(&settings, self).unwrap_or_else(|(reason, this)| {
            let _ = this.tell.send(Err(StartError::Driver { driver: driver.name(), reason }));
            Leaked::default()
        })
    }
}

impl UseDriver for ShardThread {
    type Output = Leaked;

    fn with<D: Driver>(self, mut driver: D) -> Leaked {
        let ShardThread { shard, fabric, tell } = self;
        let (gate, address) = if shard == 0 && fabric.is_server {
            match open_gate(&mut driver, &fabric) {
                Ok((gate, address)) => (Some(gate), Some(address)),
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return driver.shutdown(Duration::ZERO);
                }
            }
        } else {
            (None, None)
        };
        let shard = Shard::new(shard, driver, &fabric, gate);
        let _ = tell.send(Ok(address));
        shard.run()
    }
}

/// Opens the listener.
pub(crate) fn open_gate<D: Driver>(
    driver: &mut D,
    fabric: &Fabric,
) -> Result<(Gate, SocketAddr), StartError> {
    let settings = &fabric.settings;
    let options = ListenOptions {
        address: settings.bind,
        backlog: settings.backlog,
        exclusive: settings.exclusive_address,
        socket: socket_options(settings),
    };
    match driver.listen(&options) {
        Ok((listener, address)) => {
            let mut secret = [0; 16];
            driver.random(&mut secret);
            let gate = Gate::new(listener, &fabric.protocol, settings, &fabric.rules, secret, driver.now());
            Ok((gate, address))
        }
        Err(error) => Err(StartError::Listen {
            address: settings.bind,
            reason: format!("{}{}", error.error, error.remedy()),
        }),
    }
}

pub(crate) fn driver_settings(settings: &Settings) -> DriverSettings {
    DriverSettings {
        connections_max: settings.connections_max(),
        recv_buffers: settings.recv_buffers,
        own_file_table: settings.own_file_table,
        unbuffered_sends_bytes_max: settings.unbuffered_sends_bytes_max,
        ..DriverSettings::default()
    }
}

pub(crate) fn socket_options(settings: &Settings) -> SocketOptions {
    let some_ms = |milliseconds: u64| (milliseconds > 0).then(|| ms(milliseconds));
    SocketOptions {
        nodelay: Some(settings.nodelay),
        keepalive: some_ms(settings.keepalive_ms),
        user_timeout: some_ms(settings.user_timeout_ms),
        send_buffer_bytes: (settings.send_buffer_bytes > 0).then_some(settings.send_buffer_bytes),
        recv_buffer_bytes: (settings.recv_buffer_bytes > 0).then_some(settings.recv_buffer_bytes),
        congestion: (!settings.congestion.is_empty()).then(|| settings.congestion.clone()),
        unsent_low_water_bytes: None,
    }
}

/// For the incarnation: grows with every start.
#[expect(
    clippy::disallowed_methods,
    reason = "read once at start, before there is a driver; no deadline depends on it"
)]
fn wall_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_millis() as u64)
}
