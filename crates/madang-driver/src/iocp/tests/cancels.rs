//! Operations that are called off while they end by themselves.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::Socket;
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::*;
use crate::iocp::system::{self, Begun};

/// W01: whatever a called-off wait ends with, it ends once, its memory is the system's until then, and the bytes that
/// raced the cancel are all still there.
#[test]
fn w01_ten_thousand_raced_cancels_lose_no_byte() {
    const ROUNDS: usize = 10_000;
    const ROUND_BYTES: usize = 10;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = Socket::from(listener.accept().unwrap().0);
    socket.set_nonblocking(true).unwrap();
    let port = Port::open().unwrap();
    let conn = Conn::new(0, 5);
    port.attach(&socket, Source::Connection(conn)).unwrap();
    let blocks = Blocks::<OVERLAPPED>::new(1);
    let mut packets = Packets::new();
    let (mut called_off, mut ended, mut received) = (0, 0, 0usize);
    let round = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Writes at every distance from the other side's cancel.
            for number in 0..ROUNDS {
                while round.load(Ordering::Acquire) < number {
                    std::hint::spin_loop();
                }
                (0..number % 997 * 7).for_each(|_| std::hint::spin_loop());
                let bytes: Vec<u8> = (0..ROUND_BYTES).map(|at| byte_at(number * ROUND_BYTES + at)).collect();
                (&peer).write_all(&bytes).unwrap();
            }
        });
        for number in 0..ROUNDS {
            // SAFETY: the block is used by one wait at a time, and outlives its packet, which is awaited below.
            let begun = unsafe { system::wait_readable(&socket, blocks.begin(0), false) };
            assert_eq!(begun, Begun::Pending, "without skipping there is always a packet");
            round.store(number, Ordering::Release);
            (0..number % 991 * 7).for_each(|_| std::hint::spin_loop());
            system::cancel(&socket);
            port.take(&mut packets, Some(PATIENCE));
            assert_eq!(packets.len(), 1, "round {number}: one packet, whatever it says");
            let packet = packets.at(0);
            assert_eq!(packet.source, Some(Source::Connection(conn)));
            assert_eq!(blocks.index_of(packet.overlapped), Some(0));
            match system::outcome(blocks.status(0)) {
                Ok(()) => ended += 1,
                Err(NetError::Cancelled) => called_off += 1,
                Err(error) => panic!("round {number}: {error}"),
            }
            received = read_all(&socket, received);
        }
    });
    let start = Instant::now();
    while received < ROUNDS * ROUND_BYTES {
        assert!(start.elapsed() < PATIENCE, "{received} bytes of {}", ROUNDS * ROUND_BYTES);
        received = read_all(&socket, received);
    }
    eprintln!("{called_off} called off, {ended} ended by themselves");
    assert!(called_off > 0 && ended > 0, "the race has both outcomes: {called_off}, {ended}");
    port.take(&mut packets, Some(Duration::from_millis(20)));
    assert_eq!(packets.len(), 0, "no packet was owed twice");
}

/// Reads what is there, and checks that it goes on where `received` bytes ended.
fn read_all(socket: &Socket, mut received: usize) -> usize {
    let mut room = [0; 4_096];
    loop {
        match system::read(socket, &mut room) {
            Ok(0) => panic!("the peer has not left"),
            Ok(count) => {
                for byte in &room[..count] {
                    assert_eq!(*byte, byte_at(received), "byte {received}");
                    received += 1;
                }
            }
            Err(NetError::WouldBlock) => return received,
            Err(error) => panic!("{error}"),
        }
    }
}

fn byte_at(place: usize) -> u8 {
    (place % 251) as u8
}

#[test]
fn w02_a_socket_closed_with_operations_pending_has_its_packets_and_keeps_its_memory() {
    let mut rig = Rig::new();
    let (_peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    rig.clog(conn, &[7; 60_000]);
    let before = rig.in_flight();
    rig.driver.abort(conn);
    rig.driver.abort(conn);
    assert_eq!(rig.in_flight(), before, "the close ends nothing by itself");
    assert!(rig.depot.figures().in_use.blocks > 0, "the packets are still the system's");
    assert_eq!(rig.sent(conn), Err(NetError::Cancelled));
    assert_eq!(rig.end(conn), RecvEnd::Error(NetError::Cancelled));
    assert_eq!(rig.in_flight(), before - 2);
    rig.out.clear();
    assert_eq!(rig.depot.figures().in_use.blocks, 0);
    // Whatever is asked of it now ends at once.
    rig.send(conn, b"late");
    assert_eq!(rig.sent(conn), Err(NetError::Cancelled));
    rig.finish(&[conn]);
}

/// W09: a socket may read nothing after a cancel, so a pause is none: its wait stays posted.
#[test]
fn w09_a_pause_calls_nothing_off() {
    let mut rig = Rig::new();
    let (mut peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    rig.poll(Duration::from_millis(10));
    let before = rig.in_flight();
    for round in 0..20u8 {
        rig.driver.recv_pause(conn);
        rig.poll(Duration::from_millis(5));
        assert_eq!(rig.in_flight(), before, "the wait is as posted as before");
        rig.driver.recv_resume(conn);
        peer.write_all(&[round]).unwrap();
        assert_eq!(rig.data(conn), [round]);
    }
    rig.driver.abort(conn);
    rig.end(conn);
    rig.finish(&[conn]);
}
