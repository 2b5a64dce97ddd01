//! Never 7: after warm-up, a shard that echoes allocates nothing, with each driver.
//!
//! The allocator of this test counts for each thread. The handler runs on the shard's thread, so it can say how often that
//! thread has allocated; peers ask it before and after.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use madang::{Context, DriverChoice, ForeignFraming, ForeignServer, Handler, Message, SessionId, StartError};

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
        let reply = if message.bytes() == b"how often?" {
            cx.packet(&ALLOCATIONS.get().to_le_bytes())
        } else {
            cx.packet(message.bytes())
        };
        cx.send(session, reply).ignore();
    }
}

struct Peer(TcpStream);

impl Peer {
    fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    fn write(&mut self, payload: &[u8]) {
        self.0.write_all(&[&(payload.len() as u32).to_be_bytes()[..], payload].concat()).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut payload = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut payload).unwrap();
        payload
    }

    fn allocations(&mut self) -> u64 {
        self.write(b"how often?");
        u64::from_le_bytes(self.read().try_into().unwrap())
    }
}

/// A bit of everything that the data path does: one outstanding, many in one read, cut in two, small and large.
fn exchange(peers: &mut [Peer]) {
    for len in [1, 32, 300, 4_000, 5_000, 16_000] {
        let message = vec![len as u8; len];
        for peer in peers.iter_mut() {
            peer.write(&message);
        }
        for peer in peers.iter_mut() {
            assert!(peer.read() == message);
        }
    }
    let frame = [&32u32.to_be_bytes()[..], &[7; 32]].concat();
    for peer in peers.iter_mut() {
        peer.0.write_all(&frame.repeat(16)).unwrap();
        for _ in 0..16 {
            assert_eq!(peer.read(), [7; 32]);
        }
        let (head, tail) = frame.split_at(9);
        peer.0.write_all(head).unwrap();
        std::thread::park_timeout(Duration::from_millis(1));
        peer.0.write_all(tail).unwrap();
        assert_eq!(peer.read(), [7; 32]);
    }
}

fn check(driver: DriverChoice) {
    let server = ForeignServer::bind("127.0.0.1:0", ForeignFraming::be32()).set(|settings| {
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
    let mut peers: Vec<Peer> = (0..8).map(|_| Peer::connect(server.local_addr())).collect();
    for _ in 0..60 {
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
