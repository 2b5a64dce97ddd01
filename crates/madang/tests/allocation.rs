//! Never 7: after warm-up, a shard that echoes allocates nothing, with each driver.
//!
//! The allocator of this test counts for each thread. The handler runs on the shard's thread, so it can say how often that
//! thread has allocated; peers ask it before and after.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use madang::{
    Context, DriverChoice, ForeignFraming, ForeignServer, Handler, Message, ServerBuilder, SessionId,
    StartError,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more; it is none of the shards that are asked.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes on to the system's allocator unchanged, which keeps the contract; counting allocates nothing,
// because the counter is a plain cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the memory came from `alloc` above, so from the system's allocator; the rest is the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        if message.bytes() == b"wait" {
            return std::thread::park_timeout(Duration::from_millis(60));
        }
        let reply = if message.bytes() == b"how often?" {
            cx.packet(&ALLOCATIONS.get().to_le_bytes())
        } else {
            cx.packet(message.bytes())
        };
        cx.send(session, reply).ignore();
    }
}

/// A blocking socket, and how frames lie in its bytes.
struct Peer {
    stream: TcpStream,
    frames: Frames,
}

enum Frames {
    Be32,
    #[cfg(feature = "wan")]
    Records(Box<records::Records>),
}

impl Peer {
    fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, frames: Frames::Be32 }
    }

    /// The bytes of one message.
    fn frame(&mut self, payload: &[u8]) -> Vec<u8> {
        match &mut self.frames {
            Frames::Be32 => [&(payload.len() as u32).to_be_bytes()[..], payload].concat(),
            #[cfg(feature = "wan")]
            Frames::Records(records) => records.seal(payload),
        }
    }

    fn write(&mut self, payload: &[u8]) {
        let frame = self.frame(payload);
        self.stream.write_all(&frame).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        match &mut self.frames {
            Frames::Be32 => {
                let mut len = [0; 4];
                self.stream.read_exact(&mut len).unwrap();
                let mut payload = vec![0; u32::from_be_bytes(len) as usize];
                self.stream.read_exact(&mut payload).unwrap();
                payload
            }
            #[cfg(feature = "wan")]
            Frames::Records(records) => records.read(&mut self.stream),
        }
    }

    fn allocations(&mut self) -> u64 {
        self.write(b"how often?");
        u64::from_le_bytes(self.read().try_into().unwrap())
    }
}

/// The client's half of an encrypted session.
#[cfg(feature = "wan")]
mod records {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use madang::keys::{self, PublicKey};
    use madang::wire::wan::{
        ANSWER_MAX, Answer, ExpectAnswer, Hello, LogIn, Opening, PREAMBLE_MAX, Sealing, Secured, Step,
    };
    use madang::wire::{Find, Kind, lan};

    use super::{Frames, Peer};

    pub(super) struct Records {
        sealing: Sealing,
        opening: Opening,
        inbox: Vec<u8>,
    }

    impl Records {
        pub(super) fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
            self.record(&[&lan::header(Kind::Message, payload.len() as u32)[..], payload].concat())
        }

        fn record(&mut self, frame: &[u8]) -> Vec<u8> {
            let mut record = [&[0; 2][..], frame, &[0; 16]].concat();
            self.sealing.seal(&mut record).unwrap();
            record
        }

        /// The payload of the next frame that is no ping.
        pub(super) fn read(&mut self, stream: &mut TcpStream) -> Vec<u8> {
            loop {
                match self.opening.next(&mut self.inbox).unwrap() {
                    Step::Need { total } => {
                        let missing = total - self.inbox.len();
                        let read = stream.take(missing as u64).read_to_end(&mut self.inbox).unwrap();
                        assert_eq!(read, missing);
                    }
                    Step::Frame { kind, payload, used } => {
                        let payload = self.inbox[payload].to_vec();
                        self.inbox.drain(..used);
                        if kind != Kind::Ping {
                            return payload;
                        }
                    }
                    Step::Part { .. } => unreachable!("no message here is long"),
                }
            }
        }
    }

    pub(super) fn join(address: SocketAddr, key: &PublicKey) -> Peer {
        let mut peer = Peer::connect(address);
        let mut bytes = [0; PREAMBLE_MAX];
        let entropy = *keys::generate().expose();
        let (len, expect) = ExpectAnswer::begin(key, &Hello::default(), entropy, &mut bytes).unwrap();
        peer.stream.write_all(&bytes[..len]).unwrap();
        let mut answer = vec![0; 2];
        peer.stream.read_exact(&mut answer).unwrap();
        let Ok(Find::Need { total }) = expect.find(&answer) else { panic!("an answer has a length") };
        answer.resize(total, 0);
        peer.stream.read_exact(&mut answer[2..]).unwrap();
        let mut room = [0; ANSWER_MAX];
        let Ok(Answer::Accepted(_, secured)) = expect.read(&answer, &mut room) else { panic!("it is ours") };
        let Secured { sealing, opening, .. } = secured;
        let mut records = Records { sealing, opening, inbox: Vec::new() };
        let mut frame = [0; LogIn::FRAME_MAX];
        let len = LogIn::default().to_frame(&mut frame).unwrap();
        let log_in = records.record(&frame[..len]);
        peer.stream.write_all(&log_in).unwrap();
        assert_eq!(records.read(&mut peer.stream).len(), 16, "the welcome");
        peer.frames = Frames::Records(Box::new(records));
        peer
    }
}

/// More than [`exchange`] ever has on its way, all at once and with a message of `cut` bytes of which half is still to come.
/// How much of an exchange meets in one turn is left to the machine; here it meets, because the shard stands still meanwhile.
fn crest(peers: &mut [Peer], cut: usize) {
    let lengths = || LENGTHS.into_iter().chain(LENGTHS).chain([32; 2 * BURST]);
    peers[0].write(b"wait");
    let mut tails = Vec::new();
    for peer in peers.iter_mut() {
        for len in lengths() {
            peer.write(&vec![len as u8; len]);
        }
        let frame = peer.frame(&vec![cut as u8; cut]);
        let (head, tail) = frame.split_at(frame.len() / 2);
        peer.stream.write_all(head).unwrap();
        tails.push(tail.to_vec());
    }
    for peer in peers.iter_mut() {
        for len in lengths() {
            assert_eq!(peer.read().len(), len);
        }
    }
    for (peer, tail) in peers.iter_mut().zip(tails) {
        peer.stream.write_all(&tail).unwrap();
        assert_eq!(peer.read().len(), cut);
    }
}

/// Bytes of the messages that go alone, and how many of 32 B go together.
const LENGTHS: [usize; 6] = [1, 32, 300, 4_000, 5_000, 16_000];
const BURST: usize = 16;

/// A bit of everything that the data path does: one outstanding, many in one read, cut in two, small and large.
fn exchange(peers: &mut [Peer]) {
    for len in LENGTHS {
        let message = vec![len as u8; len];
        for peer in peers.iter_mut() {
            peer.write(&message);
        }
        for peer in peers.iter_mut() {
            assert!(peer.read() == message);
        }
    }
    for peer in peers.iter_mut() {
        let many: Vec<u8> = (0..BURST).flat_map(|_| peer.frame(&[7; 32])).collect();
        peer.stream.write_all(&many).unwrap();
        for _ in 0..BURST {
            assert_eq!(peer.read(), [7; 32]);
        }
        let frame = peer.frame(&[7; 32]);
        let (head, tail) = frame.split_at(9);
        peer.stream.write_all(head).unwrap();
        std::thread::park_timeout(Duration::from_millis(1));
        peer.stream.write_all(tail).unwrap();
        assert_eq!(peer.read(), [7; 32]);
    }
}

fn check(driver: DriverChoice) {
    check_server(driver, ForeignServer::bind("127.0.0.1:0", ForeignFraming::be32()), Peer::connect);
    #[cfg(feature = "wan")]
    {
        let keys = madang::keys::throwaway();
        let key = keys.public().next().unwrap();
        let server = madang::WanServer::bind("127.0.0.1:0").keys(keys);
        check_server(driver, server, |address| records::join(address, &key));
    }
}

fn check_server(driver: DriverChoice, server: ServerBuilder, connect: impl Fn(SocketAddr) -> Peer) {
    let server = server.set(|settings| {
        settings.driver = driver;
        // Far away, but looked at.
        settings.recv_messages_per_s = 1 << 20;
        settings.recv_bytes_per_s = 1 << 30;
        settings.recv_decoded_bytes_per_s = 1 << 30;
    });
    let server = match server.start(Echo) {
        Err(error @ StartError::Driver { .. }) => return println!("skipped: {error}"),
        started => started.unwrap(),
    };
    let mut peers: Vec<Peer> = (0..8).map(|_| connect(server.local_addr())).collect();
    for _ in 0..8 {
        for cut in LENGTHS {
            crest(&mut peers, cut);
        }
        exchange(&mut peers);
    }
    let before = peers[0].allocations();
    assert!(before > 0, "the counter counts: starting allocates");
    for _ in 0..40 {
        exchange(&mut peers);
    }
    let after = peers[0].allocations();
    assert_eq!(
        after - before,
        0,
        "allocations in 40 rounds of 23 messages with 8 peers on {}",
        server.driver()
    );
    assert!(server.stop().unwrap().report().is_clean());
}

/// What a flood makes the gate do most often must cost it no memory.
#[cfg(feature = "simulation")]
#[test]
fn s13_who_is_turned_away_costs_no_allocation() {
    struct Shut;
    impl Handler for Shut {
        fn on_connection_request(&self, _: &madang::Peer) -> madang::Admission {
            madang::Admission::Refuse
        }
    }
    let mut door = madang::simulation::Doorway::new(madang::Settings::for_players(), Shut);
    let banned: std::net::IpAddr = [99, 1, 2, 3].into();
    door.rules().ban(banned).unwrap();
    let stranger = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from_bits(number), 5_000));
    let mut round = |from: u32| {
        for number in from..from + 10_000 {
            door.pass(Duration::from_micros(250));
            assert!(!door.admits(SocketAddr::from((banned, 5_000))));
            assert!(!door.admits(stranger(number << 8)), "content lets nobody in");
            assert!(!door.admits(stranger(7 << 24)), "one of a flood");
        }
    };
    // Those that are told, a few a second, are noted: nobody empties the list here, so it grows to its bound first.
    round(1);
    let before = ALLOCATIONS.get();
    round(20_000);
    let told = ALLOCATIONS.get() - before;
    assert!(told <= 2, "{told} allocations for 30,000 strangers");
}

#[cfg(unix)]
#[test]
fn an_echo_allocates_nothing_on_its_shard_with_readiness() {
    check(DriverChoice::Readiness);
}

#[cfg(windows)]
#[test]
fn an_echo_allocates_nothing_on_its_shard_with_iocp() {
    check(DriverChoice::Iocp);
}

#[cfg(target_os = "linux")]
#[test]
fn an_echo_allocates_nothing_on_its_shard_with_uring() {
    check(DriverChoice::Uring);
}
