//! Links: outgoing connections that are kept.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use madang::wire::lan::{Goodbye, GoodbyeReason, RefusalReason};
use madang::{
    Answer, Client, ClientBuilder, DriverChoice, ErrorKind, ForeignClient, ForeignFraming, LanClient,
    LeaveReason, LinkDown, Server, Settings,
};

use crate::support::{Hello, PATIENCE, Raw, Recorder, Seen, Watch, be32, eventually, finish, kind, lan};

each_driver! {
    n5_a_client_starts_without_its_peer_and_the_link_comes_up_with_the_server,
    n5_a_link_comes_back_with_a_new_id_and_nothing_is_queued_while_it_is_down,
    n5_links_stand_side_by_side_and_one_can_be_dropped,
    n5_a_link_that_is_dropped_while_it_connects_makes_no_session,
    n5_a_link_goes_out_from_the_local_address_that_it_was_given,
    n5_a_link_to_something_else_says_why_it_is_down,
    l02_a_link_to_a_server_that_is_silent_is_given_up_and_tried_again,
    l04_what_did_not_leave_is_counted_when_the_link_breaks,
    n5_a_foreign_link_joins_when_it_is_connected,
    a_client_that_drains_delivers_what_it_had_queued,
}

/// A client that tries again soon, so that tests are short.
fn client(driver: DriverChoice) -> ClientBuilder {
    LanClient::node("tester", "tester-1", 1).set(|settings| {
        settings.driver = driver;
        settings.reconnect_min_ms = 20;
        settings.reconnect_max_ms = 100;
    })
}

/// An address where nobody listens now, and somebody may later.
fn vacant() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn serve(driver: DriverChoice, address: SocketAddr) -> (Server, Watch) {
    let (recorder, watch) = Recorder::echo();
    (lan(driver).set(|settings| settings.bind = address).start(recorder).unwrap(), watch)
}

#[track_caller]
fn end(client: Client, watch: &Watch) {
    let report = client.stop().expect("no callback stops it");
    assert!(report.is_clean(), "{report:?}");
    watch.check_ledger();
}

fn down(watch: &Watch) -> LinkDown {
    let error = watch.error("a link is down", |kind| matches!(kind, ErrorKind::LinkDown { .. }));
    let ErrorKind::LinkDown { reason, .. } = error.kind else { unreachable!("it was looked for") };
    reason
}

fn n5_a_client_starts_without_its_peer_and_the_link_comes_up_with_the_server(driver: DriverChoice) {
    let address = vacant();
    let (recorder, watch) = Recorder::new();
    let client = client(driver).link(&address.to_string()).start(recorder).unwrap();
    let link = client.link(0).unwrap();
    assert_eq!(client.session(link), None);
    assert_eq!(down(&watch), LinkDown::ConnectionRefused);
    // It is tried again and again, and told once.
    eventually("it was tried a few times", || client.figures().failed >= 4);
    assert!(watch.rest().is_empty(), "one report per change of state");

    let (server, served) = serve(driver, address);
    let id = watch.join();
    assert_eq!(client.session(link), Some(id));
    served.join();
    assert!(server.stop().unwrap().report().is_clean());
    let reason = watch.leave(id).reason;
    assert!(matches!(reason, LeaveReason::PeerReset | LeaveReason::PeerClosed), "{reason:?}");
    assert_eq!(down(&watch), LinkDown::ConnectionRefused, "and once again when it goes down again");
    eventually("the face knows", || client.session(link).is_none());
    end(client, &watch);
}

fn n5_a_link_comes_back_with_a_new_id_and_nothing_is_queued_while_it_is_down(driver: DriverChoice) {
    let (server, served) = serve(driver, vacant());
    let address = server.local_addr();
    let (recorder, watch) = Recorder::new();
    let client = client(driver).link(&address.to_string()).start(recorder).unwrap();
    let remote = client.remote();
    let first = watch.join();
    assert!(remote.send(first, remote.packet(b"one")).is_queued());
    assert_eq!(watch.recv(first), b"one");

    let stopped = server.drain().unwrap();
    assert_eq!(
        watch.leave(first).reason,
        LeaveReason::PeerGoodbye(Goodbye { reason: GoodbyeReason::Stopping, code: 0 })
    );
    assert_eq!(remote.send(first, remote.packet(b"lost")), Answer::Gone);
    let server = stopped.start_again().unwrap();
    assert_eq!(server.local_addr(), address, "the same port, at once");
    let second = watch.join();
    assert_ne!(first, second);
    assert_eq!(remote.send(first, remote.packet(b"lost")), Answer::Gone, "the old id stays gone");
    assert!(remote.send(second, remote.packet(b"two")).is_queued());
    assert_eq!(watch.recv(second), b"two");

    // Content ends a session: the link is kept all the same.
    assert!(remote.disconnect(second, 4));
    assert_eq!(watch.leave(second).reason, LeaveReason::Disconnected(4));
    let third = watch.join();
    assert!(third != second && client.session(client.link(0).unwrap()) == Some(third));
    end(client, &watch);
    finish(server, &served);
}

fn n5_links_stand_side_by_side_and_one_can_be_dropped(driver: DriverChoice) {
    let (server, served) = serve(driver, vacant());
    let (other, other_served) = serve(driver, vacant());
    let (recorder, watch) = Recorder::new();
    let address = server.local_addr().to_string();
    // Two to one server, on the client's two shards, and a third elsewhere.
    let client = client(driver).set(|settings| settings.workers = 2).link(&address).link(&address);
    let client = client.start(recorder).unwrap();
    let third = client.add_link(other.local_addr(), None);
    let (a, b) = (client.link(0).unwrap(), client.link(1).unwrap());
    for _ in 0..3 {
        watch.join();
    }
    assert!(client.link(3).is_none() && client.link(2) == Some(third));
    let [a_id, b_id, c_id] = [a, b, third].map(|link| client.session(link).expect("all are up"));
    assert!(a_id != b_id && b_id != c_id && a_id != c_id);
    let remote = client.remote();
    for id in [a_id, b_id, c_id] {
        assert!(remote.send(id, remote.packet(&id.to_u64().to_le_bytes())).is_queued());
        assert_eq!(watch.recv(id), id.to_u64().to_le_bytes());
    }

    client.drop_link(a);
    assert_eq!(watch.leave(a_id).reason, LeaveReason::Disconnected(0));
    eventually("it is down", || client.session(a).is_none());
    other.drain().unwrap();
    watch.leave(c_id);
    down(&watch);
    // Time enough to come back, if it did.
    eventually("the third was tried again", || client.figures().failed >= 5);
    assert_eq!((client.session(a), client.session(b)), (None, Some(b_id)));
    assert_eq!(server.figures().joins, 2);
    end(client, &watch);
    finish(server, &served);
    other_served.check_ledger();
}

fn n5_a_link_that_is_dropped_while_it_connects_makes_no_session(driver: DriverChoice) {
    // A listener by hand that answers when we say so.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (recorder, watch) = Recorder::new();
    let client = client(driver).link(&listener.local_addr().unwrap().to_string()).start(recorder).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut raw = Raw { stream };
    assert_eq!(raw.lan_next().0, kind::GREETING);
    client.drop_link(client.link(0).unwrap());
    // The answer comes too late, if it can be sent at all.
    let welcome = [&9u64.to_le_bytes()[..], &1_000u32.to_le_bytes(), &5_000u32.to_le_bytes()].concat();
    let answer = [Hello::default().frame(), crate::support::lan_frame(kind::WELCOME, &welcome)].concat();
    let _ = std::io::Write::write_all(&mut raw.stream, &answer);
    assert!(raw.is_cut());
    drop(raw);
    eventually("nothing is under way", || client.figures().embryos == 0 && client.figures().sessions == 0);
    listener.set_nonblocking(true).unwrap();
    thread::park_timeout(Duration::from_millis(300));
    assert!(listener.accept().is_err(), "it is not tried again");
    // The drop is a letter to the link's shard. A welcome that is read before it makes a session, which the letter then ends.
    let rest = watch.rest();
    let joins = rest.iter().filter(|seen| matches!(seen, Seen::Join(..))).count();
    let leaves = rest.iter().filter(|seen| matches!(seen, Seen::Leave(..))).count();
    assert!(joins == leaves && joins <= 1, "{rest:?}");
    end(client, &watch);
}

fn n5_a_link_goes_out_from_the_local_address_that_it_was_given(driver: DriverChoice) {
    let (server, served) = serve(driver, vacant());
    let (recorder, watch) = Recorder::new();
    let address = server.local_addr().to_string();
    let client = client(driver).link_from(&address, "127.0.0.5:0").link_from(&address, "192.0.2.1:0");
    let client = client.start(recorder).unwrap();
    let (_, peer) = watch.join_of_peer();
    assert_eq!((peer.remote, peer.local.ip().to_string()), (server.local_addr(), "127.0.0.5".to_owned()));
    assert_eq!(served.join_of_peer().1.remote, peer.local);
    assert_eq!(down(&watch), LinkDown::Local, "an address that is not ours");
    end(client, &watch);
    finish(server, &served);
}

fn n5_a_link_to_something_else_says_why_it_is_down(driver: DriverChoice) {
    let check = |answer: &dyn Fn(&mut Raw), expected: LinkDown| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (recorder, watch) = Recorder::new();
        let client = client(driver).set(|settings| settings.connect_timeout_ms = 400);
        let client = client.link(&listener.local_addr().unwrap().to_string()).start(recorder).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Raw { stream };
        assert_eq!(raw.lan_next().0, kind::GREETING, "a client greets at once");
        answer(&mut raw);
        assert_eq!(down(&watch), expected);
        assert!(watch.rest().iter().all(|seen| !matches!(seen, Seen::Join(..))));
        drop(listener);
        end(client, &watch);
    };
    check(&|_| {}, LinkDown::Unreachable);
    check(&|raw| raw.half_close(), LinkDown::NoWelcome);
    check(&|raw| raw.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), LinkDown::NoWelcome);
    check(&|raw| raw.lan(kind::MESSAGE, b"a message before the welcome"), LinkDown::NoWelcome);
    check(&|raw| raw.write(&Hello::default().frame()), LinkDown::Unreachable);
    check(&|raw| raw.lan(kind::REFUSAL, &[17, 0, 0]), LinkDown::Refused(RefusalReason::Draining.into()));
    check(&|raw| raw.lan(kind::REFUSAL, &[4, 0, 0]), LinkDown::Refused(RefusalReason::Schema.into()));
}

fn l02_a_link_to_a_server_that_is_silent_is_given_up_and_tried_again(driver: DriverChoice) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (recorder, watch) = Recorder::new();
    let client = client(driver).set(|settings| {
        settings.heartbeat_ms = 50;
        settings.dead_after_ms = 400;
    });
    let client = client.link(&listener.local_addr().unwrap().to_string()).start(recorder).unwrap();
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Raw { stream };
        assert_eq!(raw.lan_next().0, kind::GREETING);
        let welcome = [&9u64.to_le_bytes()[..], &50u32.to_le_bytes(), &400u32.to_le_bytes()].concat();
        raw.write(&Hello::default().frame());
        raw.lan(kind::WELCOME, &welcome);
        let begun = Instant::now();
        let id = watch.join();
        // It pings, and hears nothing.
        assert_eq!(raw.read(4), [8, 0, 0, kind::PING]);
        assert_eq!(watch.leave(id).reason, LeaveReason::Idle);
        assert!(begun.elapsed() >= Duration::from_millis(390), "{:?}", begun.elapsed());
    }
    drop(listener);
    end(client, &watch);
}

fn l04_what_did_not_leave_is_counted_when_the_link_breaks(driver: DriverChoice) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(|cx, id| {
        for _ in 0..300 {
            let packet = cx.packet(&[6; 100_000]);
            assert!(cx.send(id, packet).is_queued());
        }
    });
    let client = client(driver).link(&listener.local_addr().unwrap().to_string()).start(recorder).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut raw = Raw { stream };
    assert_eq!(raw.lan_next().0, kind::GREETING);
    let welcome = [&9u64.to_le_bytes()[..], &1_000u32.to_le_bytes(), &5_000u32.to_le_bytes()].concat();
    raw.write(&Hello::default().frame());
    raw.lan(kind::WELCOME, &welcome);
    let id = watch.join();
    let mut arrived = 0;
    for _ in 0..5 {
        assert_eq!(raw.expect_message().len(), 100_000);
        arrived += 1;
    }
    raw.reset();
    let leave = watch.leave(id);
    assert_eq!(leave.reason, LeaveReason::PeerReset);
    assert!(leave.messages_unsent > 200 && leave.messages_unsent <= 300 - arrived, "{leave:?}");
    let told: usize = watch
        .rest()
        .iter()
        .map(|seen| if let Seen::Sent(of, sent) = seen { sent.messages * usize::from(*of == id) } else { 0 })
        .sum();
    assert_eq!(told + leave.messages_unsent, 300, "each message left or did not");
    drop(listener);
    end(client, &watch);
}

fn n5_a_foreign_link_joins_when_it_is_connected(driver: DriverChoice) {
    let (recorder, served) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    let (recorder, watch) = Recorder::new();
    let mut settings = Settings::for_players();
    settings.driver = driver;
    let client = ForeignClient::with(settings, ForeignFraming::be32()).link(&server.local_addr().to_string());
    let client = client.start(recorder).unwrap();
    let id = watch.join();
    let remote = client.remote();
    assert!(remote.send(id, remote.packet(b"hello")).is_queued());
    assert_eq!(watch.recv(id), b"hello");
    end(client, &watch);
    finish(server, &served);
}

fn a_client_that_drains_delivers_what_it_had_queued(driver: DriverChoice) {
    let (server, served) = serve(driver, vacant());
    let (recorder, watch) = Recorder::new();
    let client = client(driver).link(&server.local_addr().to_string()).start(recorder).unwrap();
    let id = watch.join();
    let theirs = served.join();
    let remote = client.remote();
    for number in 0..200u32 {
        assert!(
            remote.send(id, remote.packet(&[&number.to_le_bytes()[..], &[0; 10_000]].concat())).is_queued()
        );
    }
    let report = client.drain().unwrap();
    assert!(report.is_clean(), "{report:?}");
    watch.check_ledger();
    for number in 0..200u32 {
        assert_eq!(served.recv(theirs)[..4], number.to_le_bytes());
    }
    let reason = served.leave(theirs).reason;
    assert_eq!(reason, LeaveReason::PeerGoodbye(Goodbye { reason: GoodbyeReason::Stopping, code: 0 }));
    finish(server, &served);
}
