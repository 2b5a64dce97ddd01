//! The readiness driver allocates nothing per operation once it is warm: receives, pauses, sends and edges.
#![cfg(unix)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;

use madang_driver::readiness::Readiness;
use madang_driver::{Completion, Driver, DriverSettings, ListenOptions, Outgoing, Wait};
use madang_packet::{Depot, PoolSettings};

/// The system's allocator, counting what the calling thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain thread-local that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise that `alloc` gave `block` for `layout` is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn no_operation_allocates_after_warm_up() {
    let mut driver = Readiness::new(&DriverSettings::default()).unwrap();
    let (_, address) = driver.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    let mut out = Vec::with_capacity(64);
    driver.poll(&mut out, 64, Wait::FOREVER);
    let Some(Completion::Accepted { incoming, .. }) = out.pop() else { panic!("the peer is at the door") };
    let conn = driver.attach(incoming).unwrap();
    driver.recv_start(conn).unwrap();

    let depot = Depot::new(PoolSettings::default());
    let mut packet = depot.packet(4_096).unwrap();
    packet.extend_from_slice(&[7; 4_096]);
    let packet = packet.freeze();
    let mut spare = Some(Outgoing::new());
    let mut inbox = [0; 4_096];

    let mut round = |driver: &mut Readiness, out: &mut Vec<Completion>| {
        peer.write_all(b"question").unwrap();
        driver.recv_pause(conn);
        driver.poll(out, 64, Wait::NO);
        driver.recv_resume(conn);
        driver.poll(out, 64, Wait::FOREVER);
        assert!(matches!(out.pop(), Some(Completion::Data { bytes, .. }) if &*bytes == b"question"));
        let mut outgoing = spare.take().unwrap();
        (0..4).for_each(|_| outgoing.push(packet.clone()));
        driver.send(conn, outgoing).unwrap();
        driver.poll(out, 64, Wait::FOREVER);
        let Some(Completion::Sent { outgoing, result, .. }) = out.pop() else { panic!("the send ended") };
        assert_eq!(result, Ok(4 * 4_096));
        spare = Some(outgoing);
        (0..4).for_each(|_| peer.read_exact(&mut inbox).unwrap());
    };
    (0..10).for_each(|_| round(&mut driver, &mut out));
    let before = ALLOCATIONS.with(Cell::get);
    (0..1_000).for_each(|_| round(&mut driver, &mut out));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 1,000 rounds");
}
