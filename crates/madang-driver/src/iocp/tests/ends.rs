//! What a driver leaves behind: nothing.

use std::io::Write;

use super::*;

/// Handles that are open now: as the system tells, which is what was found.
fn handles() -> usize {
    let told = open_handles().expect("it is told");
    let found = handles::handles_found();
    assert!(told >= found, "{told} handles are told, {found} were found");
    told
}

/// Runs in a process of its own, since handles are the process's: see the test below.
#[test]
#[ignore = "w08 is what starts it: w08_a_stop_leaves_no_handle_slot_or_packet"]
fn child_that_stops_with_work_in_flight() {
    // The first round loads what the system loads once.
    live();
    let before = handles();
    for _ in 0..20 {
        live();
    }
    assert_eq!(handles(), before);
}

/// A driver with everything in flight that can be, stopped.
fn live() {
    let mut rig = Rig::new();
    let mut peers = Vec::new();
    for number in 0..8u8 {
        let (mut peer, conn) = rig.pair();
        rig.driver.recv_start(conn).unwrap();
        match number % 4 {
            0 => peer.write_all(b"unread").unwrap(),
            1 => rig.driver.recv_pause(conn),
            2 => rig.send(conn, &vec![number; 8 << 20]),
            _ => rig.driver.abort(conn),
        }
        peers.push(peer);
    }
    // Some are at the door, untold, and one is on its way to somebody who does not answer.
    peers.extend((0..3).map(|_| TcpStream::connect(rig.address).unwrap()));
    let unanswering = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rig.driver.connect(&ConnectOptions::new(unanswering.local_addr().unwrap())).unwrap();
    assert!(rig.in_flight() > 16);
    let leaked = rig.driver.shutdown(PATIENCE);
    assert!(leaked.is_none(), "{leaked}");
    assert_eq!(rig.driver.figures().in_flight, 0);
    let Rig { driver, depot, out, .. } = rig;
    drop((driver, out));
    assert_eq!(depot.figures().in_use.blocks, 0);
}

#[test]
fn w08_a_stop_leaves_no_handle_slot_or_packet() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "iocp::tests::ends::child_that_stops_with_work_in_flight",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
fn a_driver_that_is_dropped_with_work_in_flight_frees_nothing_under_the_systems_hands() {
    let mut rig = Rig::new();
    let (_peer, conn) = rig.pair();
    rig.driver.recv_start(conn).unwrap();
    rig.clog(conn, &[7; 60_000]);
    let Rig { driver, depot, out, .. } = rig;
    drop((driver, out));
    assert_eq!(depot.figures().in_use.blocks, 0, "the drop waited for the packets");
}
