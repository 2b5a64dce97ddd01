//! One driver under test with a referee beside it: cases speak to the [`Station`], and whatever they do, the rules that
//! hold for every completion are checked on each of them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use madang_driver::{
    AttachError, Completion, Conn, ConnectError, ConnectOptions, Driver, DriverSettings, Incoming,
    ListenOptions, Listener, NetError, OUTGOING_PIECES_MAX, Outgoing, RecvEnd, Wait,
};
use madang_packet::{Depot, Packet, PoolSettings};

use crate::rig::{RawPeer, Rig};

/// No case takes so long: by the machine's clock, by the driver's, and in polls.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_VIRTUAL: Duration = Duration::from_secs(3_600);
const POLLS_MAX: usize = 400_000;

pub struct Station<R: Rig> {
    pub driver: R::Driver,
    conns: BTreeMap<Conn, Seen>,
    pub accepted: VecDeque<(Listener, Incoming)>,
    pub stalls: Vec<NetError>,
    pub unlistened: Vec<Listener>,
    listeners: Vec<Listener>,
    address: Option<SocketAddr>,
    depot: Depot,
    // Last: the drivers go before the world that they are in.
    pub rig: R,
}

/// What became of a connection so far.
#[derive(Default)]
pub struct Seen {
    /// All bytes that came.
    pub bytes: Vec<u8>,
    /// How many completions with bytes there were.
    pub data_told: usize,
    pub recv: Recv,
    /// How the last receive that ended without bytes ended.
    pub end: Option<RecvEnd>,
    /// How often a receive ended for want of a buffer.
    pub no_buffers: usize,
    pub connected: Option<Result<SocketAddr, NetError>>,
    pub sent: Option<(Outgoing, Result<usize, NetError>)>,
    is_connecting: bool,
    sending_bytes: Option<usize>,
    is_paused: bool,
    is_aborted: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Recv {
    #[default]
    Idle,
    Started,
    Over,
}

pub fn settings() -> DriverSettings {
    DriverSettings {
        connections_max: 128,
        listeners_max: 4,
        submissions_max: 256,
        recv_buffers: 16,
        recv_buffer_bytes: 16 * 1024,
        ..DriverSettings::default()
    }
}

/// Bytes whose order shows when it is disturbed.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8 ^ (index / 251) as u8).collect()
}

impl<R: Rig> Station<R> {
    pub fn new(rig: R) -> Station<R> {
        Station::with(rig, &settings())
    }

    pub fn with(rig: R, settings: &DriverSettings) -> Station<R> {
        Station {
            driver: rig.driver(settings),
            conns: BTreeMap::new(),
            accepted: VecDeque::new(),
            stalls: Vec::new(),
            unlistened: Vec::new(),
            listeners: Vec::new(),
            address: None,
            depot: Depot::new(PoolSettings::default()),
            rig,
        }
    }

    /// Another driver of the same system.
    pub fn sibling(&self, settings: &DriverSettings) -> R::Driver {
        self.rig.driver(settings)
    }

    /// The address of its first listener, made when first asked for.
    pub fn address(&mut self) -> SocketAddr {
        match self.address {
            Some(address) => address,
            None => self.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).1,
        }
    }

    pub fn listen(&mut self, options: &ListenOptions) -> (Listener, SocketAddr) {
        let (listener, address) = self.driver.listen(options).expect("listening");
        self.address.get_or_insert(address);
        self.listeners.push(listener);
        (listener, address)
    }

    pub fn unlisten(&mut self, listener: Listener) {
        self.listeners.retain(|other| *other != listener);
        self.driver.unlisten(listener);
    }

    /// So many bytes; fewer where faults may make each of them travel alone.
    pub fn amount(&self, bytes: usize) -> usize {
        if self.rig.is_unruly() { bytes.min(3_000) } else { bytes }
    }

    pub fn packet(&self, bytes: &[u8]) -> Packet {
        let mut packet = self.depot.packet(bytes.len()).expect("no budget is set");
        packet.extend_from_slice(bytes);
        packet.freeze()
    }

    /// Packets of these sizes that carry `bytes` together.
    pub fn outgoing(&self, bytes: &[u8], piece: usize) -> Outgoing {
        let mut outgoing = Outgoing::new();
        for piece in bytes.chunks(piece.max(bytes.len().div_ceil(OUTGOING_PIECES_MAX))) {
            outgoing.push(self.packet(piece));
        }
        outgoing
    }

    /// A connection with a raw peer at its other end.
    pub fn pair(&mut self) -> (Conn, R::Peer) {
        let address = self.address();
        let peer = self.rig.peer(address);
        let conn = self.attach_next();
        self.until("a connected peer", |_| peer.is_connected());
        (conn, peer)
    }

    /// Waits for the next peer at the door and attaches it.
    pub fn attach_next(&mut self) -> Conn {
        self.until("a peer at the door", |station| !station.accepted.is_empty());
        let (_, incoming) = self.accepted.pop_front().expect("one is there");
        self.attach(incoming)
    }

    pub fn attach(&mut self, incoming: Incoming) -> Conn {
        self.try_attach(incoming).expect("attaching")
    }

    /// Attaches, however full the driver is; `None` when it has closed the socket.
    pub fn try_attach(&mut self, incoming: Incoming) -> Option<Conn> {
        let mut offered = Some(incoming);
        let mut attached = Err(NetError::Other);
        self.until("an answer to attach", |station| {
            match station.driver.attach(offered.take().expect("it came back")) {
                Ok(conn) => attached = Ok(conn),
                Err(AttachError::Full(incoming)) => offered = Some(incoming),
                Err(AttachError::Failed(error)) => attached = Err(error),
            }
            offered.is_none()
        });
        let conn = attached.ok()?;
        let before = self.conns.insert(conn, Seen::default());
        assert!(before.is_none(), "{conn:?} was given out twice");
        Some(conn)
    }

    pub fn connect(&mut self, options: &ConnectOptions) -> Conn {
        let mut started = None;
        self.until("a started connect", |station| {
            match station.driver.connect(options) {
                Ok(conn) => started = Some(conn),
                Err(ConnectError::Full) => {}
                Err(ConnectError::Failed(error)) => panic!("connect failed: {error}"),
            }
            started.is_some()
        });
        let conn = started.expect("until saw it");
        let before = self.conns.insert(conn, Seen { is_connecting: true, ..Seen::default() });
        assert!(before.is_none(), "{conn:?} was given out twice");
        conn
    }

    pub fn seen(&mut self, conn: Conn) -> &mut Seen {
        self.conns.get_mut(&conn).expect("a connection that was not retired")
    }

    /// Starts a receive; `false` when the driver is full.
    pub fn recv_start(&mut self, conn: Conn) -> bool {
        let is_started = self.driver.recv_start(conn).is_ok();
        if is_started {
            let seen = self.seen(conn);
            seen.recv = Recv::Started;
            seen.is_paused = false;
        }
        is_started
    }

    /// Keeps a receive going: starts it if it is not started and may be.
    pub fn keep_receiving(&mut self, conn: Conn) {
        if self.seen(conn).recv == Recv::Idle {
            self.recv_start(conn);
        }
    }

    pub fn pause(&mut self, conn: Conn) {
        if self.seen(conn).recv == Recv::Started {
            self.driver.recv_pause(conn);
            self.seen(conn).is_paused = true;
        }
    }

    pub fn resume(&mut self, conn: Conn) {
        self.driver.recv_resume(conn);
        self.seen(conn).is_paused = false;
    }

    /// Receives until `count` bytes have come in all.
    pub fn receive(&mut self, conn: Conn, count: usize) {
        self.until("bytes", |station| {
            station.keep_receiving(conn);
            let seen = station.seen(conn);
            assert!(
                seen.bytes.len() >= count || seen.recv != Recv::Over,
                "{conn:?} ended early: {:?}",
                seen.end
            );
            seen.bytes.len() >= count
        });
    }

    /// Receives until the receive is over, and answers how it ended.
    pub fn receive_to_end(&mut self, conn: Conn) -> RecvEnd {
        self.until("the receive's end", |station| {
            station.keep_receiving(conn);
            station.seen(conn).recv == Recv::Over
        });
        self.seen(conn).end.expect("it is over")
    }

    /// Starts a send; gives back what was not accepted.
    pub fn send(&mut self, conn: Conn, outgoing: Outgoing) -> Result<(), Outgoing> {
        let bytes = outgoing.len();
        let pieces = outgoing.pieces();
        self.driver.send(conn, outgoing).inspect_err(|outgoing| {
            assert_eq!(
                (outgoing.len(), outgoing.pieces()),
                (bytes, pieces),
                "a full driver gives back all it was given"
            );
        })?;
        self.seen(conn).sending_bytes = Some(bytes);
        Ok(())
    }

    /// Sends all of `outgoing`, however short the writes are; `meanwhile` runs between the polls.
    pub fn send_all(&mut self, conn: Conn, outgoing: Outgoing, mut meanwhile: impl FnMut(&mut Station<R>)) {
        let mut left = Some(outgoing);
        self.until("a whole send", |station| {
            if let Some(outgoing) = left.take() {
                left = station.send(conn, outgoing).err();
            }
            if let Some((outgoing, result)) = station.seen(conn).sent.take() {
                result.expect("nothing breaks this connection");
                left = (!outgoing.is_empty()).then_some(outgoing);
            }
            meanwhile(station);
            left.is_none() && !station.is_sending(conn)
        });
    }

    /// Sends to a peer that does not read until a send stays in flight.
    pub fn clog(&mut self, conn: Conn) {
        let bytes = vec![7; 1 << 20];
        for _ in 0..200 {
            if !self.is_sending(conn) {
                self.seen(conn).sent = None;
                let outgoing = self.outgoing(&bytes, 64 * 1024);
                let _ = self.send(conn, outgoing);
            }
            self.idle(Duration::from_millis(10));
            if self.is_sending(conn) {
                return;
            }
        }
        panic!("200 MiB went to a peer that does not read");
    }

    /// Waits until the peer has read `count` bytes in all.
    pub fn peer_reads(&mut self, peer: &mut R::Peer, into: &mut Vec<u8>, count: usize) {
        self.until("bytes at the peer", |_| {
            peer.read(into);
            into.len() >= count
        });
    }

    /// Waits until the peer has written all of `bytes`; the driver receives meanwhile.
    pub fn peer_writes(&mut self, conn: Conn, peer: &mut R::Peer, bytes: &[u8]) {
        let mut written = 0;
        self.until("room for the peer's bytes", |station| {
            written += peer.write(&bytes[written..]);
            station.keep_receiving(conn);
            written == bytes.len()
        });
    }

    /// Waits until the peer has written all of `bytes`, which the system has to have room for: nobody receives.
    pub fn peer_sends(&mut self, peer: &mut R::Peer, bytes: &[u8]) {
        let mut written = 0;
        self.until("room for the peer's bytes", |_| {
            written += peer.write(&bytes[written..]);
            written == bytes.len()
        });
    }

    /// The peer writes the first of `bytes`, and of the others what has room at once.
    pub fn peer_tries(&mut self, peer: &mut R::Peer, bytes: &[u8]) {
        self.peer_sends(peer, &bytes[..1]);
        peer.write(&bytes[1..]);
    }

    pub fn is_sending(&mut self, conn: Conn) -> bool {
        self.seen(conn).sending_bytes.is_some()
    }

    pub fn abort(&mut self, conn: Conn) {
        self.driver.abort(conn);
        self.seen(conn).is_aborted = true;
    }

    pub fn retire(&mut self, conn: Conn) -> Seen {
        self.driver.retire(conn);
        self.conns.remove(&conn).expect("a connection that was not retired")
    }

    /// Waits for what is in flight of a connection that is on its way out, and retires it.
    pub fn settle(&mut self, conn: Conn) -> Seen {
        self.until("the terminal completions", |station| {
            let seen = station.seen(conn);
            !seen.is_connecting && seen.recv != Recv::Started && seen.sending_bytes.is_none()
        });
        self.retire(conn)
    }

    pub fn leave(&mut self, conn: Conn) -> Seen {
        self.abort(conn);
        self.settle(conn)
    }

    /// Polls until the case is satisfied.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_there: impl FnMut(&mut Station<R>) -> bool) {
        let (start, start_virtual) = (Instant::now(), self.driver.now());
        for _ in 0..POLLS_MAX {
            if is_there(self) {
                return;
            }
            self.turn();
            let patience_is_over =
                start.elapsed() > PATIENCE || self.driver.now().since(start_virtual) > PATIENCE_VIRTUAL;
            assert!(!patience_is_over, "waited in vain for {what}");
        }
        panic!("waited {POLLS_MAX} polls in vain for {what}");
    }

    /// Polls for a while: for what should not happen.
    pub fn idle(&mut self, span: Duration) {
        let end = self.driver.now() + span;
        while self.driver.now() < end {
            self.turn();
        }
    }

    pub fn turn(&mut self) {
        let wait = Wait::until(self.driver.now() + Duration::from_millis(2));
        let told = self.poll(64, wait);
        self.rig.pass(told == 0);
    }

    /// Polls once; answers how many completions there were.
    pub fn poll(&mut self, max: usize, wait: Wait) -> usize {
        let mut completions = Vec::new();
        let before = self.driver.now();
        self.driver.poll(&mut completions, max, wait);
        let told = completions.len();
        assert!(told <= max, "poll told {told} completions of at most {max}");
        assert!(self.driver.now() >= before, "time went back");
        for completion in completions {
            self.judge(completion);
        }
        told
    }

    /// The referee: what holds for each completion, whatever the case is about.
    fn judge(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { listener, incoming } => self.accepted.push_back((listener, incoming)),
            Completion::AcceptStalled { error, .. } => self.stalls.push(error),
            Completion::Unlistened { listener } => {
                assert!(!self.listeners.contains(&listener), "{listener:?} ended without our asking");
                self.unlistened.push(listener);
            }
            Completion::Connected { conn, result } => {
                let seen = self.told(conn);
                assert!(std::mem::take(&mut seen.is_connecting), "{conn:?}: a connect ended twice");
                seen.connected = Some(result);
            }
            Completion::Data { conn, mut bytes, more } => {
                let seen = self.told(conn);
                seen.check_recv_may_speak(conn);
                assert!(!bytes.is_empty(), "{conn:?}: data without a byte");
                seen.bytes.extend_from_slice(&bytes);
                seen.data_told += 1;
                bytes.fill(0xaa); // lent memory is ours to write
                if !more {
                    seen.recv = Recv::Idle;
                }
            }
            Completion::RecvEnded { conn, end } => {
                let seen = self.told(conn);
                seen.check_recv_may_speak(conn);
                seen.recv = if end == RecvEnd::NoBuffers { Recv::Idle } else { Recv::Over };
                seen.no_buffers += usize::from(end == RecvEnd::NoBuffers);
                seen.end = Some(end);
            }
            Completion::Sent { conn, outgoing, result } => {
                let seen = self.told(conn);
                let given =
                    seen.sending_bytes.take().unwrap_or_else(|| panic!("{conn:?}: a send ended twice"));
                if let Ok(sent) = result {
                    assert!((1..=given).contains(&sent), "{conn:?}: {sent} of {given} bytes were sent");
                }
                let left = given - result.unwrap_or(0);
                assert_eq!(outgoing.len(), left, "{conn:?}: what has not left comes back, and nothing else");
                seen.sent = Some((outgoing, result));
            }
        }
    }

    fn told(&mut self, conn: Conn) -> &mut Seen {
        self.conns
            .get_mut(&conn)
            .unwrap_or_else(|| panic!("{conn:?} is named after its retirement, or was never given out"))
    }

    /// Leaves everything, shuts down, and checks that nothing remains.
    pub fn finish(mut self) {
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            self.leave(conn);
        }
        for listener in std::mem::take(&mut self.listeners) {
            self.driver.unlisten(listener);
            self.until("the listener's last word", |station| station.unlistened.contains(&listener));
        }
        self.accepted.clear();
        self.until("closed connections", |station| station.driver.figures().connections == 0);
        let leaked = self.driver.shutdown(Duration::from_secs(5));
        assert!(leaked.is_none(), "{leaked}");
        self.check_gone();
    }

    /// The driver is shut down: nothing may be left of it.
    pub fn check_gone(self) {
        let Station { driver, rig, depot, conns, accepted, .. } = self;
        drop((driver, conns, accepted));
        assert_eq!(depot.figures().in_use.blocks, 0, "packets are still out");
        rig.check_balance();
    }
}

impl Seen {
    fn check_recv_may_speak(&self, conn: Conn) {
        assert_eq!(self.recv, Recv::Started, "{conn:?}: a receive speaks that is not started");
        assert!(!self.is_paused || self.is_aborted, "{conn:?}: a paused receive speaks");
    }
}

/// Polls until the peer hears its connection's end, whatever comes before.
pub fn peer_hears_end<R: Rig>(station: &mut Station<R>, peer: &mut R::Peer) -> (Vec<u8>, crate::rig::Heard) {
    use crate::rig::Heard;
    let (mut bytes, mut last) = (Vec::new(), Heard::Nothing);
    station.until("the end at the peer", |_| {
        last = peer.read(&mut bytes);
        matches!(last, Heard::Eof | Heard::Broken)
    });
    (bytes, last)
}
