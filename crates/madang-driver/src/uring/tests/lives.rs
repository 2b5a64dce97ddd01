//! Listeners and connections: their beginnings, their ends, and the end of the driver.

use std::io::Read;

use super::*;

#[test]
fn k02_an_abort_ends_a_blocked_send_and_a_receive_without_the_peers_help() {
    for features in every_kernel() {
        for own_file_table in [false, true] {
            for paused in [false, true] {
                let settings = DriverSettings { own_file_table, ..small() };
                check_abort(rig_with(&settings, features).unwrap(), paused, own_file_table);
            }
        }
    }
}

fn check_abort(mut rig: Rig, paused: bool, own_file_table: bool) {
    let (mut peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    // A peer that never reads: the send blocks once both kernels are full.
    let big = vec![7; 1 << 20];
    let mut outgoing = rig.outgoing(&[big.as_slice(); 16]);
    loop {
        rig.uring.send(conn, outgoing).unwrap();
        rig.poll_once(Duration::from_millis(30));
        match rig.told.pop_front() {
            Some(Completion::Sent { .. }) => outgoing = rig.outgoing(&[big.as_slice(); 16]),
            None => break,
            other => panic!("expected a short send, was told {other:?}"),
        }
    }
    if paused {
        rig.uring.recv_pause(conn);
        rig.poll_once(Duration::ZERO);
    }
    let start = Instant::now();
    rig.uring.abort(conn);
    rig.uring.abort(conn);
    let (mut sent, mut ended) = (false, false);
    while !(sent && ended) {
        match rig.next() {
            Completion::Sent { outgoing, .. } => {
                assert!(!outgoing.is_empty(), "what did not leave is given back");
                sent = true;
            }
            Completion::RecvEnded { end, .. } => {
                assert_eq!(end, RecvEnd::Error(NetError::Cancelled));
                ended = true;
            }
            other => panic!("expected the two ends, was told {other:?}"),
        }
    }
    rig.uring.retire(conn);
    while rig.uring.figures().connections > 0 {
        rig.poll_once(Duration::from_millis(1));
    }
    assert!(start.elapsed() < DEADLINE / 2, "nothing waited for the peer");
    // The close leaves with a poll.
    rig.poll_once(Duration::ZERO);
    if !own_file_table || rig.uring.features().option_commands {
        let mut received = Vec::new();
        let error = peer.read_to_end(&mut received).expect_err("a reset, not an end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    rig.finish();
}

/// Each abort made the kernel go through all that waited in the ring, twice: with a few thousand strangers at the door it was a
/// fifth of the shard's long turns. What is called off by its name is found at once, and found means that its end will follow.
#[test]
fn an_abort_calls_off_by_name_and_does_not_ask_again_for_what_it_found() {
    for features in every_kernel() {
        let mut rig = rig_with(&small(), features).unwrap();
        let (_peer, conn) = rig.accept();
        rig.uring.recv_start(conn).unwrap();
        rig.poll_once(Duration::ZERO);
        rig.uring.abort(conn);
        let ended = Completion::RecvEnded { conn, end: RecvEnd::Error(NetError::Cancelled) };
        assert_eq!(format!("{:?}", rig.next()), format!("{ended:?}"));
        rig.poll_once(Duration::ZERO);
        let entry = rig.uring.table.named(conn);
        assert_eq!((entry.cancels, entry.chores), (1, 0), "{features:?}");
        rig.uring.retire(conn);
        rig.finish();
    }
}

/// Seen with peers that never read and reset: the kernel told the send, and about one receive in a hundred nothing. The driver
/// waited for it for ever, and with it the session and the stop of its server.
#[test]
fn a_receive_that_slept_through_a_reset_ends_with_the_abort() {
    for features in every_kernel() {
        let mut rig = rig_with(&small(), features).unwrap();
        let (_peer, conn) = rig.accept();
        rig.uring.recv_start(conn).unwrap();
        rig.poll_once(Duration::ZERO);
        rig.uring.table.named(conn).note_broken(NetError::Reset);
        rig.uring.abort(conn);
        rig.await_end(conn);
        rig.uring.retire(conn);
        rig.finish();
    }
}

/// A shard that panics drops its driver without another poll. Its peers must hear of it, those too whose close only waited for
/// one, or they would sit before a silent connection until their patience ends.
#[test]
fn a_driver_that_a_panic_drops_leaves_no_connection_open() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let (heard, conn) = rig.accept();
        rig.uring.recv_start(conn).unwrap();
        rig.poll_once(Duration::ZERO);
        let (silent, _) = rig.accept();
        let (retired, conn) = rig.accept();
        rig.uring.retire(conn);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _rig = rig;
            panic!("what an assert of the engine does");
        }));
        assert!(panicked.is_err());
        for (name, mut peer) in [("heard", heard), ("silent", silent), ("retired", retired)] {
            let end = peer.read_to_end(&mut Vec::new());
            assert!(matches!(end, Ok(0)), "{name}, own table {own_file_table}: {end:?}");
        }
    }
}

/// A number that the kernel has closed may be another's by now.
#[test]
fn a_ring_that_goes_closes_nothing_twice() {
    let Some(mut rig) = rig(&small()) else { return };
    let (_peer, conn) = rig.accept();
    rig.uring.retire(conn);
    rig.poll_once(Duration::ZERO);
    // The lowest number that is free: the one that was just closed, unless another test was faster.
    let others: Vec<_> = (0..8).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
    rig.finish();
    for mut file in others {
        file.read_to_end(&mut Vec::new()).expect("it is open still");
    }
}

#[test]
fn u02_an_overflowing_completion_queue_loses_no_connection() {
    let Some(mut rig) = rig(&DriverSettings { connections_max: 1, ..small() }) else { return };
    // More than the queue's 512 entries, all in the backlog before the first look.
    let peers: Vec<_> = (0..700).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < peers.len() {
        let Completion::Accepted { incoming, .. } = rig.next() else { panic!("not an accept") };
        assert!(seen.insert(incoming.peer()));
    }
    assert!(rig.uring.figures().overflows > 0, "the test made it overflow");
    rig.finish();
}

#[test]
fn k17_a_connect_ends_once_whether_it_succeeds_fails_or_is_aborted() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for round in 0..50 {
            let remote = if round % 2 == 0 { taken.local_addr().unwrap() } else { closed };
            let conn = rig.uring.connect(&ConnectOptions::new(remote)).unwrap();
            let aborted = round % 3 == 0;
            if round % 5 == 0 {
                rig.poll_once(Duration::ZERO);
            }
            if aborted {
                rig.uring.abort(conn);
            }
            let Completion::Connected { conn: of, result } = rig.next() else { panic!("not a connect") };
            assert_eq!(of, conn);
            match (round % 2, aborted, result) {
                (0, _, Ok(local)) => {
                    let (mut peer, from) = taken.accept().unwrap();
                    assert_eq!(from, local);
                    if !aborted {
                        let outgoing = rig.outgoing(&[b"hello"]);
                        rig.send_all(conn, outgoing);
                        let mut hello = [0; 5];
                        peer.read_exact(&mut hello).unwrap();
                    }
                }
                (1, _, Err(NetError::Refused)) | (_, true, Err(NetError::Cancelled)) => {}
                other => panic!("round {round}: {other:?}"),
            }
            rig.uring.retire(conn);
        }
        rig.finish();
    }
}

#[test]
fn k09_a_place_is_used_again_under_another_name_only_when_the_kernel_let_go() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { connections_max: 1, own_file_table, ..small() }) else {
            return;
        };
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let peer = TcpStream::connect(rig.address).unwrap();
            let Completion::Accepted { mut incoming, .. } = rig.next() else { panic!("not an accept") };
            let conn = loop {
                match rig.uring.attach(incoming) {
                    Ok(conn) => break conn,
                    Err(AttachError::Full(back)) => incoming = back,
                    Err(AttachError::Failed(error)) => panic!("{error}"),
                }
                rig.poll_once(Duration::from_millis(1));
            };
            assert!(names.insert(conn));
            rig.uring.recv_start(conn).unwrap();
            rig.leave(conn);
            drop(peer);
        }
        rig.finish();
    }
}

/// The close is a submission, and the next poll is none of the engine's any more.
#[test]
fn who_was_retired_last_is_closed_by_the_drivers_end() {
    for (own_file_table, dropped) in [(false, false), (false, true), (true, false), (true, true)] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let (mut peer, conn) = rig.accept();
        rig.uring.retire(conn);
        if dropped {
            drop(rig.uring);
        } else {
            rig.finish();
        }
        // A socket that is still open somewhere would run into the peer's time-out.
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "own table: {own_file_table}, dropped: {dropped}");
    }
}

#[test]
fn each_peer_is_told_with_his_own_address_alone_in_a_crowd_and_when_a_poll_tells_one_at_a_time() {
    for features in every_kernel() {
        let mut rig = rig_with(&small(), features).unwrap();
        for (count, max) in [(1, 256), (2, 256), (1, 1), (7, 256), (7, 1), (1, 256), (30, 3), (30, 256)] {
            let peers: Vec<_> = (0..count).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
            let start = Instant::now();
            let mut told = Vec::new();
            while told.len() < count {
                assert!(start.elapsed() < DEADLINE, "{} of {count} were told", told.len());
                let until = rig.uring.precise_now() + Duration::from_millis(50);
                rig.uring.poll(&mut told, max, Wait::until(until));
            }
            for (peer, completion) in peers.iter().zip(told) {
                let Completion::Accepted { incoming, .. } = completion else { panic!("not an accept") };
                assert_eq!(incoming.peer(), peer.local_addr().unwrap(), "of {count}, {max} a poll");
            }
        }
        rig.finish();
    }
}

#[test]
fn accepting_pauses_resumes_and_ends_with_a_last_word() {
    let Some(mut rig) = rig(&small()) else { return };
    for _ in 0..20 {
        rig.uring.accept_pause(rig.listener);
        rig.poll_once(Duration::from_millis(1));
        rig.poll_once(Duration::from_millis(1));
        assert!(rig.told.is_empty());
        let _waiting = TcpStream::connect(rig.address).unwrap();
        rig.poll_once(Duration::from_millis(2));
        assert!(rig.told.is_empty(), "a paused listener leaves its peers in the backlog");
        rig.uring.accept_resume(rig.listener);
        rig.uring.accept_pause(rig.listener);
        rig.uring.accept_resume(rig.listener);
        assert!(matches!(rig.next(), Completion::Accepted { .. }));
    }
    rig.uring.unlisten(rig.listener);
    assert!(matches!(rig.next(), Completion::Unlistened { listener } if listener == rig.listener));
    assert!(TcpStream::connect(rig.address).is_err(), "nobody listens");
    let (again, _) = rig.uring.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    assert_eq!(again, rig.listener, "the name is free");
    rig.finish();
}

#[test]
fn a_backlog_that_filled_in_a_pause_does_not_come_in_one_poll() {
    const CALLERS: usize = 40;
    let Some(mut rig) = rig(&small()) else { return };
    rig.uring.accept_pause(rig.listener);
    rig.poll_once(Duration::from_millis(10));
    let _callers: Vec<_> = (0..CALLERS).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    rig.poll_once(Duration::from_millis(10));
    assert!(rig.told.is_empty(), "a paused listener leaves its peers in the backlog");
    rig.uring.accept_resume(rig.listener);
    let (mut came, mut most) = (0, 0);
    while came < CALLERS {
        rig.poll_once(DEADLINE);
        let of_this_poll =
            rig.told.drain(..).filter(|told| matches!(told, Completion::Accepted { .. })).count();
        assert!(of_this_poll > 0, "{came} came, and then nobody");
        came += of_this_poll;
        most = most.max(of_this_poll);
    }
    assert!(most <= 2, "{most} came in one poll, and nothing else was done meanwhile");
}

#[test]
fn u14_a_driver_dropped_in_the_middle_of_everything_leaves_no_packet_and_no_socket() {
    for own_file_table in [false, true] {
        let Some(mut rig) = rig(&DriverSettings { own_file_table, ..small() }) else { return };
        let mut links: Vec<_> = (0..10).map(|_| rig.accept()).collect();
        for (_, conn) in &links {
            rig.uring.recv_start(*conn).unwrap();
            let big = vec![1; 1 << 20];
            let outgoing = rig.outgoing(&[big.as_slice(); 8]);
            rig.uring.send(*conn, outgoing).unwrap();
        }
        rig.poll_once(Duration::ZERO);
        let Rig { uring, told, depot, address, .. } = rig;
        drop((told, uring));
        assert_eq!(depot.figures().in_use.blocks, 0);
        for (peer, _) in &mut links {
            // An end or a reset: a socket that is still open somewhere would run into the peer's time-out.
            let error = peer.read_to_end(&mut Vec::new()).err().map(|error| error.kind());
            assert!(matches!(error, None | Some(std::io::ErrorKind::ConnectionReset)), "{error:?}");
        }
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    }
}

#[test]
fn u16_a_refusal_says_why() {
    let table = [
        (libc::EPERM, "forbidden"),
        (libc::ENOSYS, "no io_uring"),
        (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        (libc::EMFILE, "RLIMIT_NOFILE"),
        (libc::EIO, "error number 5"),
    ];
    for (errno, word) in table {
        let refused = Refused::at("setting up io_uring")(&std::io::Error::from_raw_os_error(errno));
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

#[test]
#[should_panic(expected = "at most one")]
fn k08_two_sends_in_flight_are_the_callers_bug() {
    let Some(mut rig) = rig(&small()) else { panic!("at most one: skipped") };
    let (_peer, conn) = rig.accept();
    for _ in 0..2 {
        let outgoing = rig.outgoing(&[b"x"]);
        rig.uring.send(conn, outgoing).unwrap();
    }
}

#[test]
#[should_panic(expected = "the retire rule")]
fn k06_retiring_with_a_receive_in_flight_is_the_callers_bug() {
    let Some(mut rig) = rig(&small()) else { panic!("the retire rule: skipped") };
    let (_peer, conn) = rig.accept();
    rig.uring.recv_start(conn).unwrap();
    rig.uring.retire(conn);
}
