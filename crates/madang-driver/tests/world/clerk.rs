//! The smallest shard that keeps the contract: it echoes what comes in, or sends and checks what comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use madang_driver::sim::{Random, SimDriver, World};
use madang_driver::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Driver, DriverSettings, Incoming,
    ListenOptions, Listener, NetError, Outgoing, RecvEnd, Wait,
};
use madang_packet::{Depot, PoolSettings};

pub struct Clerk {
    pub driver: SimDriver,
    depot: Depot,
    links: BTreeMap<Conn, Link>,
    pub at_the_door: Vec<Incoming>,
    pub listeners: Vec<Listener>,
    pub completions: u64,
    /// Something was refused for want of room: try again soon.
    retries: bool,
}

#[derive(Default)]
struct Link {
    is_connecting: bool,
    is_receiving: bool,
    is_recv_over: bool,
    is_paused: bool,
    is_sending: bool,
    is_half_closed: bool,
    is_aborted: bool,
    is_broken: bool,
    /// Sends that failed for want of kernel buffers are repeated; these bytes come first.
    unsent: Option<Outgoing>,
    queued: Vec<u8>,
    received: usize,
    /// A client's: what it sends and wants back. A server's echoes are what it received.
    script: Option<Vec<u8>>,
}

impl Clerk {
    pub fn new(world: &World, settings: DriverSettings) -> Clerk {
        Clerk {
            driver: world.driver(settings),
            depot: Depot::new(PoolSettings::default()),
            links: BTreeMap::new(),
            at_the_door: Vec::new(),
            listeners: Vec::new(),
            completions: 0,
            retries: false,
        }
    }

    pub fn listen(&mut self, address: SocketAddr) -> SocketAddr {
        let (listener, address) = self.driver.listen(&ListenOptions::new(address)).expect("the port is free");
        self.listeners.push(listener);
        address
    }

    /// Gives the socket back when the driver is full.
    pub fn attach(&mut self, incoming: Incoming) -> Option<Incoming> {
        match self.driver.attach(incoming) {
            Ok(conn) => {
                assert!(self.links.insert(conn, Link::default()).is_none(), "{conn:?} was given out twice");
                None
            }
            Err(AttachError::Full(incoming)) => Some(incoming),
            Err(AttachError::Failed(_)) => None,
        }
    }

    pub fn connect(&mut self, remote: SocketAddr, script: Vec<u8>) {
        match self.driver.connect(&ConnectOptions::new(remote)) {
            Ok(conn) => {
                let queued = script.clone();
                let link = Link { is_connecting: true, queued, script: Some(script), ..Link::default() };
                assert!(self.links.insert(conn, link).is_none(), "{conn:?} was given out twice");
            }
            Err(ConnectError::Full | ConnectError::Failed(_)) => {}
        }
    }

    /// One turn: what was told, then what is to be done about each link. Answers how it would sleep next.
    pub fn turn(&mut self) -> Wait {
        let mut told = Vec::new();
        self.driver.poll(&mut told, 24, Wait::NO);
        self.completions += told.len() as u64;
        self.retries = false;
        for completion in told {
            self.handle(completion);
        }
        let conns: Vec<Conn> = self.links.keys().copied().collect();
        for conn in conns {
            self.serve(conn);
        }
        let span = if self.retries { Duration::from_millis(1) } else { Duration::from_millis(200) };
        Wait::until(self.driver.now() + span)
    }

    fn handle(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { incoming, .. } => self.at_the_door.push(incoming),
            Completion::AcceptStalled { error, .. } => assert_eq!(error, NetError::TooManyFiles),
            Completion::Unlistened { listener } => self.listeners.retain(|other| *other != listener),
            Completion::Connected { conn, result } => {
                let link = self.link(conn);
                assert!(std::mem::take(&mut link.is_connecting));
                link.is_broken = result.is_err();
                link.is_recv_over = result.is_err();
            }
            Completion::Data { conn, bytes, more } => {
                let link = self.link(conn);
                assert!(link.is_receiving && (!link.is_paused || link.is_aborted) && !bytes.is_empty());
                match &link.script {
                    Some(script) => {
                        assert!(script[link.received..].starts_with(&bytes), "an echo is what was sent");
                    }
                    None => link.queued.extend_from_slice(&bytes),
                }
                link.received += bytes.len();
                link.is_receiving = more;
            }
            Completion::RecvEnded { conn, end } => {
                let link = self.link(conn);
                assert!(link.is_receiving && (!link.is_paused || link.is_aborted));
                link.is_receiving = false;
                link.is_recv_over = end != RecvEnd::NoBuffers;
                link.is_broken |= matches!(end, RecvEnd::Error(_));
                self.retries |= end == RecvEnd::NoBuffers;
            }
            Completion::Sent { conn, outgoing, result } => {
                let link = self.link(conn);
                assert!(std::mem::take(&mut link.is_sending));
                match result {
                    Ok(_) => {}
                    Err(NetError::NoBufferSpace) => self.retries = true,
                    Err(_) => self.link(conn).is_broken = true,
                }
                self.link(conn).unsent = (!outgoing.is_empty()).then_some(outgoing);
            }
        }
    }

    fn link(&mut self, conn: Conn) -> &mut Link {
        self.links.get_mut(&conn).unwrap_or_else(|| panic!("{conn:?} is told after its retirement"))
    }

    fn serve(&mut self, conn: Conn) {
        let Clerk { driver, depot, links, .. } = self;
        let link = links.get_mut(&conn).expect("it was just listed");
        let is_quiet = !link.is_connecting && !link.is_receiving && !link.is_sending;
        if link.is_aborted || link.is_broken || (link.is_recv_over && link.is_half_closed) {
            if is_quiet {
                driver.retire(conn);
                links.remove(&conn);
            } else if !std::mem::replace(&mut link.is_aborted, true) {
                driver.abort(conn);
            }
            return;
        }
        if link.is_connecting {
            return;
        }
        if !link.is_receiving && !link.is_recv_over {
            link.is_receiving = driver.recv_start(conn).is_ok();
            link.is_paused = false;
            self.retries |= !link.is_receiving;
        }
        if link.is_sending || link.is_half_closed {
            return;
        }
        if link.unsent.is_none() && !link.queued.is_empty() {
            let mut outgoing = Outgoing::new();
            for piece in link.queued.chunks(link.queued.len().div_ceil(7)) {
                let mut packet = depot.packet(piece.len()).expect("no budget is set");
                packet.extend_from_slice(piece);
                outgoing.push(packet.freeze());
            }
            link.queued.clear();
            link.unsent = Some(outgoing);
        }
        if let Some(outgoing) = link.unsent.take() {
            link.unsent = driver.send(conn, outgoing).err();
            link.is_sending = link.unsent.is_none();
            self.retries |= !link.is_sending;
        } else if link.is_recv_over || link.script.is_some() {
            // A client has sent all it has; a server has echoed all that came before the end.
            link.is_half_closed = true;
            driver.half_close(conn);
        }
    }

    /// Does something to a drawn link that its peer does not expect.
    pub fn meddle(&mut self, random: &mut Random) {
        let Some(conn) = self.links.keys().nth(random.index(self.links.len())).copied() else { return };
        let Clerk { driver, links, .. } = self;
        let link = links.get_mut(&conn).expect("it was just found");
        match random.below(8) {
            0 | 1 => {
                link.is_aborted = true;
                driver.abort(conn);
            }
            2..=4 if link.is_receiving && !link.is_aborted => {
                link.is_paused = true;
                driver.recv_pause(conn);
            }
            _ => {
                link.is_paused = false;
                driver.recv_resume(conn);
            }
        }
    }

    /// Everything is to end: resumes what is paused, aborts if `at_once`.
    pub fn wind_up(&mut self, at_once: bool) {
        self.at_the_door.clear();
        for listener in std::mem::take(&mut self.listeners) {
            self.driver.unlisten(listener);
        }
        for (conn, link) in &mut self.links {
            link.is_paused = false;
            self.driver.recv_resume(*conn);
            if at_once && !std::mem::replace(&mut link.is_aborted, true) {
                self.driver.abort(*conn);
            }
        }
    }

    pub fn is_at_rest(&self) -> bool {
        self.links.is_empty() && self.at_the_door.is_empty()
    }

    pub fn check_gone(mut self) {
        assert_eq!(self.driver.figures().connections, 0);
        assert!(self.driver.shutdown(Duration::ZERO).is_none());
        drop(self.driver);
        assert_eq!(self.depot.figures().in_use.blocks, 0, "packets are still out");
    }
}
