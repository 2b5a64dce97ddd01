//! The face of servers.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_driver::Clock;

use crate::engine::{Plan, Running, StopReport, no_state};
use crate::error::{Result, SettingError, StartError};
use crate::framing::{ForeignFraming, Protocol};
use crate::user::Content;
use crate::{Figures, Handler, Lobby, Remote, Rules, Settings, SlowConsumers};

/// A server for other servers: few peers, the simplest framing, a greeting. Its address is loopback or private.
#[derive(Debug)]
pub enum LanServer {}

impl LanServer {
    /// Begins a server on an address such as `10.0.0.5:7700`; port 0 asks for a free one.
    pub fn bind(address: &str) -> ServerBuilder {
        ServerBuilder::new(Settings::default(), Protocol::Lan).bind_to(address)
    }

    /// Begins a server with settings from elsewhere.
    pub fn with(settings: Settings) -> ServerBuilder {
        ServerBuilder::new(settings, Protocol::Lan)
    }
}

/// A server for players whose clients exist already and speak their own framing. Nothing protects what travels; the
/// engine's limits stand around it.
#[derive(Debug)]
pub enum ForeignServer {}

impl ForeignServer {
    /// Begins a server on an address, with [`Settings::for_players`].
    pub fn bind(address: &str, framing: ForeignFraming) -> ServerBuilder {
        ServerBuilder::new(Settings::for_players(), framing.0).bind_to(address)
    }

    /// Begins a server with settings from elsewhere.
    pub fn with(settings: Settings, framing: ForeignFraming) -> ServerBuilder {
        ServerBuilder::new(settings, framing.0)
    }
}

/// A server in the making.
#[derive(Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct ServerBuilder {
    settings: Settings,
    pub(crate) protocol: Protocol,
    make_state: crate::offload::MakeState,
    /// What was wrong with a call, told at the start.
    pub(crate) problem: Option<SettingError>,
}

impl ServerBuilder {
    pub(crate) fn new(settings: Settings, protocol: Protocol) -> ServerBuilder {
        ServerBuilder { settings, protocol, make_state: no_state(), problem: None }
    }

    pub(crate) fn bind_to(mut self, address: &str) -> ServerBuilder {
        match address.parse() {
            Ok(address) => self.settings.bind = address,
            Err(_) => {
                let problem = format!("`{address}` is no address with a port, such as 127.0.0.1:7777");
                self.problem = Some(SettingError::new("bind", problem));
            }
        }
        self
    }

    /// Changes settings: `.set(|settings| settings.heartbeat_ms = 500)`.
    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> ServerBuilder {
        change(&mut self.settings);
        self
    }

    /// Shards; see [`Settings::workers`].
    pub fn workers(self, workers: usize) -> ServerBuilder {
        self.set(|settings| settings.workers = workers)
    }

    /// Sessions at once; see [`Settings::max_sessions`].
    pub fn max_sessions(self, sessions: usize) -> ServerBuilder {
        self.set(|settings| settings.max_sessions = sessions)
    }

    /// What becomes of sessions that do not read what they are sent.
    pub fn slow_consumers(self, policy: SlowConsumers) -> ServerBuilder {
        self.set(|settings| policy.apply(settings))
    }

    /// One send per session and tick; see [`Settings::tick_ms`].
    pub fn tick(self, tick: Duration) -> ServerBuilder {
        self.set(|settings| settings.tick_ms = tick.as_millis() as u64)
    }

    /// Who we are to our peers: service, node, and the application's version.
    pub fn node(self, service: &str, node: &str, app_version: u32) -> ServerBuilder {
        self.set(|settings| {
            settings.service = service.to_owned();
            settings.node = node.to_owned();
            settings.app_version = app_version;
        })
    }

    /// Gives each offload thread a state of its own, made on that thread: a database connection for
    /// [`Context::offload_with`](crate::Context::offload_with).
    pub fn offload_state<S: Any>(
        mut self,
        make: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> ServerBuilder {
        self.make_state = Arc::new(move |thread| Box::new(make(thread)) as Box<dyn Any>);
        self
    }

    /// Starts with one handler for all sessions. When this returns, the server listens.
    ///
    /// # Errors
    /// A wrong setting by its key; a listening error by its address; a driver that cannot be used here.
    pub fn start(self, handler: impl Handler) -> Result<Server> {
        self.start_shared(Arc::new(handler))
    }

    /// As [`start`](ServerBuilder::start), with a handler that is shared with others.
    ///
    /// # Errors
    /// As [`start`](ServerBuilder::start).
    pub fn start_shared(self, handler: Arc<dyn Handler>) -> Result<Server> {
        self.start_content(Content::Handler(handler))
    }

    /// Starts in the user-object style: each session gets an object of its own.
    ///
    /// # Errors
    /// As [`start`](ServerBuilder::start).
    pub fn start_users(self, lobby: impl Lobby) -> Result<Server> {
        self.start_content(Content::Lobby(Arc::new(lobby)))
    }

    fn start_content(self, content: Content) -> Result<Server> {
        if let Some(problem) = self.problem {
            return Err(problem.into());
        }
        let ServerBuilder { settings, protocol, make_state, .. } = self;
        Server::start(Plan::new(settings, protocol, content, make_state, true)?)
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A server that runs. Dropping it stops it, abortively.
pub struct Server {
    plan: Plan,
    running: Option<Running>,
}

/// A server that was stopped and can be started again, with the same settings and content.
pub struct Stopped {
    plan: Plan,
    report: StopReport,
}

/// Why a stop was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "stop was called from a callback or an offloaded job: it waits for that very thread; call it from another one"
)]
pub struct StopError;

impl Server {
    fn start(plan: Plan) -> Result<Server, StartError> {
        let running = Some(plan.start()?);
        Ok(Server { plan, running })
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("only stopping takes it away")
    }

    /// The address that it listens on, with the port that was really given.
    pub fn local_addr(&self) -> SocketAddr {
        self.running().address.expect("a server listens")
    }

    /// Which driver it runs on: `uring` or `readiness`.
    pub fn driver(&self) -> &'static str {
        self.running().driver
    }

    /// The engine for other threads.
    pub fn remote(&self) -> Remote {
        Remote { fabric: Arc::clone(&self.running().fabric) }
    }

    /// A snapshot of the figures.
    pub fn figures(&self) -> Figures {
        self.running().fabric.figures()
    }

    /// The IP rules: who may come in. They hold over stops.
    pub fn rules(&self) -> Rules {
        Rules { book: Arc::clone(&self.plan.rules) }
    }

    /// Stops: the listener closes, every session is reset (on encrypted ones a goodbye goes out before, where the peer takes it
    /// at once), every join gets its leave, the threads are joined. Offloaded
    /// jobs that were queued are run to their end (a save to a database is not thrown away), so a job that waits for ever
    /// makes the stop wait for ever.
    ///
    /// # Errors
    /// [`StopError`] from a callback or job of this server, which would wait for itself; the server runs on, and comes back.
    pub fn stop(self) -> Result<Stopped, (Box<Server>, StopError)> {
        self.stop_gait(false)
    }

    /// Announces a stop: players of a WAN server are told how long there is left
    /// ([`on_draining`](crate::Handler::on_draining)) and are served until they leave by themselves; whoever comes from now
    /// on, or waits for a place, is refused with `Draining` (a foreign framing has no word for it: closed). Returns at once, and
    /// does not stop by itself: call [`drain`](Server::drain) when it is time, or use [`drain_in`](Server::drain_in). Called
    /// again, it counts from then. On a LAN and in a foreign framing it is content that tells its peers.
    pub fn announce(&self, left: Duration) {
        self.running().fabric.announce(left);
    }

    /// [Announces](Server::announce) a stop, waits until all sessions have left or that time is over, and
    /// [drains](Server::drain): for patches.
    ///
    /// # Errors
    /// As [`stop`](Server::stop).
    pub fn drain_in(self, left: Duration) -> Result<Stopped, (Box<Server>, StopError)> {
        if self.running().has_thread(std::thread::current().id()) {
            return Err((Box::new(self), StopError));
        }
        self.announce(left);
        let clock = Clock::machine();
        let until = clock.now() + left;
        while clock.now() < until && self.figures().sessions > 0 {
            std::thread::park_timeout(until.since(clock.now()).min(Duration::from_millis(20)));
        }
        self.drain()
    }

    /// Stops in good order: the listener closes, what is queued goes out, peers are told goodbye where the framing can;
    /// sessions that take longer than `leave_timeout_ms` are reset.
    ///
    /// # Errors
    /// As [`stop`](Server::stop).
    pub fn drain(self) -> Result<Stopped, (Box<Server>, StopError)> {
        self.stop_gait(true)
    }

    fn stop_gait(mut self, graceful: bool) -> Result<Stopped, (Box<Server>, StopError)> {
        if self.running().has_thread(std::thread::current().id()) {
            return Err((Box::new(self), StopError));
        }
        let report = self.running.take().expect("it runs").stop(graceful);
        Ok(Stopped { plan: self.plan.clone(), report })
    }

    /// Runs until Ctrl-C or a termination signal, then drains; a second signal stops at once.
    pub fn run_until_signal(mut self) -> StopReport {
        let signals = Signals::listen();
        signals.wait();
        let running = self.running.take().expect("it runs");
        running.ask_to_stop(true);
        while !running.is_finished() {
            if signals.came() {
                running.ask_to_stop(false);
                break;
            }
        }
        running.join()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.running().address).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.ask_to_stop(false);
            if !running.has_thread(std::thread::current().id()) {
                running.join();
            }
        }
    }
}

impl Stopped {
    /// What the stop left behind; nothing is the rule.
    pub fn report(&self) -> StopReport {
        self.report
    }

    /// Starts again. Ids of the time before name nobody now.
    ///
    /// # Errors
    /// As [`ServerBuilder::start`].
    pub fn start_again(self) -> Result<Server> {
        Server::start(self.plan)
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped").field("report", &self.report).finish_non_exhaustive()
    }
}

/// Termination signals: each raises the flag, each look takes it down.
struct Signals {
    raised: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> Signals {
        let signals = Signals { raised: Arc::default() };
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let registered = signal_hook::flag::register(signal, Arc::clone(&signals.raised));
            if let Err(error) = registered {
                tracing::warn!(signal, %error, "a signal cannot be listened for");
            }
        }
        signals
    }

    fn wait(&self) {
        while !self.came() {}
    }

    /// Whether one came, now or within a moment: 50 ms is soon enough for somebody at a keyboard.
    fn came(&self) -> bool {
        if self.raised.swap(false, Ordering::AcqRel) {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(50));
        self.raised.swap(false, Ordering::AcqRel)
    }
}
