//! The face of clients: any number of kept links.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::engine::{Plan, Running, StopReport, no_state};
use crate::error::{Result, SettingError};
use crate::framing::{ForeignFraming, Protocol};
use crate::letters::{Route, Word};
use crate::links::{Link, LinkCell, LinkSpec};
use crate::user::Content;
use crate::{Figures, Handler, Remote, SessionId, Settings, StopError};

/// The client side of LAN links: one object for all outgoing links of a process, on shards of its own.
#[derive(Debug)]
pub enum LanClient {}

impl LanClient {
    /// Begins a client; `service`, `node` and `app_version` are what its greeting says.
    pub fn node(service: &str, node: &str, app_version: u32) -> ClientBuilder {
        let (service, node) = (service.to_owned(), node.to_owned());
        LanClient::with(Settings { service, node, app_version, ..Settings::default() })
    }

    /// Begins a client with settings from elsewhere.
    pub fn with(settings: Settings) -> ClientBuilder {
        ClientBuilder::new(settings, Protocol::Lan)
    }
}

/// Links that speak a foreign framing: joined when they are connected.
#[derive(Debug)]
pub enum ForeignClient {}

impl ForeignClient {
    /// Begins a client.
    pub fn with(settings: Settings, framing: ForeignFraming) -> ClientBuilder {
        ClientBuilder::new(settings, framing.0)
    }
}

/// A client in the making.
#[derive(Clone)]
#[must_use = "a builder does nothing until it is started"]
pub struct ClientBuilder {
    settings: Settings,
    pub(crate) protocol: Protocol,
    make_state: crate::offload::MakeState,
    links: Vec<Route>,
    /// What was wrong with a call, told at the start.
    pub(crate) problem: Option<SettingError>,
}

impl ClientBuilder {
    pub(crate) fn new(settings: Settings, protocol: Protocol) -> ClientBuilder {
        ClientBuilder { settings, protocol, make_state: no_state(), links: vec![], problem: None }
    }

    /// Adds a link; they are numbered in order, see [`Client::link`].
    pub fn link(self, remote: &str) -> ClientBuilder {
        self.add(remote, None)
    }

    /// Adds a link that goes out from a given local address.
    pub fn link_from(self, remote: &str, local: &str) -> ClientBuilder {
        self.add(remote, Some(local))
    }

    fn add(mut self, remote: &str, local: Option<&str>) -> ClientBuilder {
        let parse = |address: &str| address.parse::<SocketAddr>().map_err(|_| address.to_owned());
        match (parse(remote), local.map(parse).transpose()) {
            (Ok(remote), Ok(local)) => self.links.push(Route { remote, local }),
            (Err(address), _) | (_, Err(address)) => {
                let problem = format!("`{address}` is no address with a port, such as 10.0.0.5:7700");
                self.problem = Some(SettingError::new("link", problem));
            }
        }
        self
    }

    /// Changes settings.
    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> ClientBuilder {
        change(&mut self.settings);
        self
    }

    /// Gives each offload thread a state of its own; see [`ServerBuilder::offload_state`](crate::ServerBuilder::offload_state).
    pub fn offload_state<S: Any>(
        mut self,
        make: impl Fn(usize) -> S + Send + Sync + 'static,
    ) -> ClientBuilder {
        self.make_state = Arc::new(move |thread| Box::new(make(thread)) as Box<dyn Any>);
        self
    }

    /// Starts. It succeeds while the peers are absent; `on_join` tells each link that came up.
    ///
    /// # Errors
    /// A wrong setting or address; a driver that cannot be used here.
    pub fn start(self, handler: impl Handler) -> Result<Client> {
        self.start_shared(Arc::new(handler))
    }

    /// As [`start`](ClientBuilder::start), with a handler that is shared with others, a server perhaps.
    ///
    /// # Errors
    /// As [`start`](ClientBuilder::start).
    pub fn start_shared(self, handler: Arc<dyn Handler>) -> Result<Client> {
        if let Some(problem) = self.problem {
            return Err(problem.into());
        }
        let ClientBuilder { settings, protocol, make_state, links, .. } = self;
        let content = Content::Handler(handler);
        let plan = Plan::new(settings, protocol, content, make_state, false)?;
        let client = Client { running: Some(plan.start()?), cells: Mutex::default() };
        for route in links {
            client.connect(route);
        }
        Ok(client)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("settings", &self.settings)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

/// A client that runs. Dropping it stops it, abortively.
pub struct Client {
    running: Option<Running>,
    /// By link number. The lock is of the face alone: no shard ever takes it.
    cells: Mutex<Vec<LinkCell>>,
}

impl Client {
    fn running(&self) -> &Running {
        self.running.as_ref().expect("only stopping takes it away")
    }

    fn cells(&self) -> std::sync::MutexGuard<'_, Vec<LinkCell>> {
        self.cells.lock().expect("nothing panics under this lock")
    }

    fn connect(&self, route: Route) -> Link {
        let cell: LinkCell = Arc::new(AtomicU64::new(0));
        let link = {
            let mut cells = self.cells();
            cells.push(Arc::clone(&cell));
            (cells.len() - 1) as u32
        };
        let fabric = &self.running().fabric;
        let shard = link as usize % fabric.mailboxes.len();
        fabric.mailboxes[shard].control(Word::Connect(LinkSpec { link, route, cell }));
        Link(link)
    }

    /// The link that was added as number `index` in the builder.
    pub fn link(&self, index: usize) -> Option<Link> {
        (index < self.cells().len()).then_some(Link(index as u32))
    }

    /// Adds a link while running.
    pub fn add_link(&self, remote: SocketAddr, local: Option<SocketAddr>) -> Link {
        self.connect(Route { remote, local })
    }

    /// Lets go of a link for good: its session leaves in good order, and no other is made.
    pub fn drop_link(&self, link: Link) {
        let fabric = &self.running().fabric;
        fabric.mailboxes[link.0 as usize % fabric.mailboxes.len()].control(Word::DropLink { link: link.0 });
    }

    /// The session of a link; `None` while it is down. It changes with every reconnect.
    pub fn session(&self, link: Link) -> Option<SessionId> {
        SessionId::from_u64(self.cells().get(link.0 as usize)?.load(Ordering::Acquire))
    }

    /// Which driver it runs on.
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

    /// Stops: every session is reset, every join gets its leave, the threads are joined.
    ///
    /// # Errors
    /// [`StopError`] from a callback or job of this client; it runs on, and comes back.
    pub fn stop(self) -> Result<StopReport, (Box<Client>, StopError)> {
        self.stop_gait(false)
    }

    /// Stops in good order: what is queued goes out first.
    ///
    /// # Errors
    /// As [`stop`](Client::stop).
    pub fn drain(self) -> Result<StopReport, (Box<Client>, StopError)> {
        self.stop_gait(true)
    }

    fn stop_gait(mut self, graceful: bool) -> Result<StopReport, (Box<Client>, StopError)> {
        if self.running().has_thread(std::thread::current().id()) {
            return Err((Box::new(self), StopError));
        }
        Ok(self.running.take().expect("it runs").stop(graceful))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("links", &self.cells().len()).finish_non_exhaustive()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.ask_to_stop(false);
            if !running.has_thread(std::thread::current().id()) {
                running.join();
            }
        }
    }
}
