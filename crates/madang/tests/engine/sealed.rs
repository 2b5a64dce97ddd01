//! Sealed LAN links: only who knows the secret is a node of the cluster, and nobody reads or changes what travels.

use std::net::TcpListener;

use madang::wire::lan::RefusalReason;
use madang::wire::wan::HandshakeError;
use madang::{Client, ClientBuilder, DriverChoice, ErrorKind, LanClient, LeaveReason, LinkDown, Server};

use crate::support::{Hello, Raw, Recorder, Watch, finish, kind, lan, lan_frame, pattern};

const SECRET: &str = "6f1c4a9be8d0275336aa41c97d5e0fb2";

each_driver! {
    n4_a_sealed_link_carries_greetings_and_messages,
    n4_only_who_knows_the_secret_gets_in,
    n4_a_link_that_was_to_be_sealed_is_never_made_plain,
    n4_an_older_life_of_a_node_is_refused_on_a_sealed_link_too,
    a_sealed_link_reports_when_it_was_cut_off,
}

fn started(driver: DriverChoice, secret: &str) -> (Server, Watch) {
    let (recorder, watch) = Recorder::echo();
    let server = lan(driver).set(|settings| settings.secret = secret.into()).start(recorder).unwrap();
    (server, watch)
}

fn client(driver: DriverChoice, address: &str, secret: &str) -> ClientBuilder {
    LanClient::node("gate", "gate-1", 1).link(address).set(|settings| {
        settings.driver = driver;
        settings.secret = secret.into();
        settings.reconnect_min_ms = 20;
        settings.reconnect_max_ms = 40;
    })
}

#[track_caller]
fn down(client: ClientBuilder) -> (Client, LinkDown) {
    let (recorder, watch) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let told = watch.error("a link that is down", |kind| matches!(kind, ErrorKind::LinkDown { .. }));
    let ErrorKind::LinkDown { reason, .. } = told.kind else { unreachable!() };
    (client, reason)
}

fn n4_a_sealed_link_carries_greetings_and_messages(driver: DriverChoice) {
    let (server, watch) = started(driver, SECRET);
    let (recorder, seen) = Recorder::new();
    let client = client(driver, &server.local_addr().to_string(), SECRET).start(recorder).unwrap();
    let (id, there) = seen.join_of_peer();
    let (_, here) = watch.join_of_peer();
    let names = |peer: madang::Peer| peer.node.map(|node| (node.service.clone(), node.name.clone()));
    assert_eq!(names(here), Some(("gate".to_owned(), "gate-1".to_owned())));
    assert_eq!(names(there), Some(("test".to_owned(), "test-1".to_owned())));
    let remote = client.remote();
    for len in [1, 300, 5_000, 200_000] {
        assert!(remote.send(id, remote.packet(&pattern(len as u64, len))).is_queued());
        assert!(seen.recv(id) == pattern(len as u64, len), "of {len} bytes");
    }
    assert!(client.figures().records_out >= 4);
    client.drain().unwrap();
    finish(server, &watch);
}

fn n4_only_who_knows_the_secret_gets_in(driver: DriverChoice) {
    let another = "6f1c4a9be8d0275336aa41c97d5e0fb3";
    // Server's, client's: one of them wants a seal, or both under different secrets.
    for (theirs, ours) in [(SECRET, another), (SECRET, ""), ("", SECRET)] {
        let (server, watch) = started(driver, theirs);
        let (client, why) = down(client(driver, &server.local_addr().to_string(), ours));
        assert_eq!(why, LinkDown::Refused(RefusalReason::Sealing.into()), "{theirs:?}, {ours:?}");
        watch.error("the refusal", |kind| *kind == ErrorKind::Refused(RefusalReason::Sealing.into()));
        assert_eq!(server.figures().joins, 0);
        client.stop().unwrap();
        finish(server, &watch);
    }
}

fn n4_a_link_that_was_to_be_sealed_is_never_made_plain(driver: DriverChoice) {
    // Somebody in between answers with a plain greeting and a welcome, which on a plain link would be fine.
    let liar = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = liar.local_addr().unwrap().to_string();
    let lying = std::thread::spawn(move || {
        let (stream, _) = liar.accept().unwrap();
        let mut raw = Raw { stream };
        let (first, wish) = raw.lan_next();
        assert_eq!((first, wish.len()), (kind::GREETING, 56));
        // In one write: behind the greeting a second could meet the reset that it causes.
        let greeting = Hello { node: "test-1", service: "test", ..Hello::default() }.frame();
        raw.write(&[greeting, lan_frame(kind::WELCOME, &[0; 16])].concat());
        assert!(raw.is_cut());
    });
    let (recorder, watch) = Recorder::new();
    let client = client(driver, &address, SECRET).start(recorder).unwrap();
    watch.error("a plain greeting", |kind| matches!(kind, ErrorKind::Handshake(HandshakeError::Content(_))));
    watch.error("a link that is down", |kind| {
        matches!(kind, ErrorKind::LinkDown { reason: LinkDown::Untrusted, .. })
    });
    lying.join().unwrap();
    client.stop().unwrap();
}

fn n4_an_older_life_of_a_node_is_refused_on_a_sealed_link_too(driver: DriverChoice) {
    let (server, watch) = started(driver, SECRET);
    let address = server.local_addr().to_string();
    let life =
        |incarnation| client(driver, &address, SECRET).set(|settings| settings.incarnation = incarnation);
    let (recorder, seen) = Recorder::new();
    let newer = life(9).start(recorder).unwrap();
    seen.join();
    let (older, why) = down(life(8));
    assert_eq!(why, LinkDown::Refused(RefusalReason::Incarnation.into()));
    older.stop().unwrap();
    newer.drain().unwrap();
    finish(server, &watch);
}

fn a_sealed_link_reports_when_it_was_cut_off(driver: DriverChoice) {
    // In between: passes on what comes, until it is told to end both ways in order.
    let (server, watch) = started(driver, SECRET);
    let (to, between) = (server.local_addr(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = between.local_addr().unwrap().to_string();
    let (cut, cutting) = std::sync::mpsc::channel::<()>();
    let passing = std::thread::spawn(move || {
        let (near, _) = between.accept().unwrap();
        let far = std::net::TcpStream::connect(to).unwrap();
        let pass = |mut from: std::net::TcpStream, mut into: std::net::TcpStream| {
            std::thread::spawn(move || {
                // Ends when the socket is shut.
                let _ = std::io::copy(&mut from, &mut into);
            })
        };
        let ways = [
            pass(near.try_clone().unwrap(), far.try_clone().unwrap()),
            pass(far.try_clone().unwrap(), near.try_clone().unwrap()),
        ];
        cutting.recv().unwrap();
        for stream in [&near, &far] {
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        ways.into_iter().for_each(|way| way.join().unwrap());
    });
    let (recorder, seen) = Recorder::new();
    let client = client(driver, &address, SECRET).start(recorder).unwrap();
    let (here, there) = (seen.join(), watch.join());
    cut.send(()).unwrap();
    assert_eq!(seen.leave(here).reason, LeaveReason::Truncated);
    assert_eq!(watch.leave(there).reason, LeaveReason::Truncated);
    passing.join().unwrap();
    client.stop().unwrap();
    finish(server, &watch);
}
