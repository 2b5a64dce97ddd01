//! Who may come in: IP rules, limits of a prefix, the pace of accepting, patch control.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use madang::{DriverChoice, ErrorKind, Figures, Prefix, RuleKind, Server, StartError, TurnedAway};

use crate::support::{Hello, Raw, Recorder, Seen, be32, eventually, finish, kind, lan};

each_driver!(
    s13_a_banned_address_is_closed_before_anything_is_set_up,
    o3_a_block_ends_by_itself,
    o3_only_listed_addresses_enter_while_the_list_holds,
    o3_rules_outlive_a_stop_and_come_from_a_file,
    b07_one_address_has_so_many_connections,
    b07_one_address_has_so_many_connections_a_second,
    b07_a_lan_has_no_limits_of_prefixes,
    b08_accepting_keeps_its_pace_and_loses_nobody,
    b08_a_flood_from_one_neighbourhood_makes_way_for_others,
    b09_many_who_are_turned_away_are_counted_and_few_are_told,
    o13_the_smallest_app_version_changes_while_peers_come,
);

fn address(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn cause(figures: &Figures, cause: TurnedAway) -> u64 {
    figures.turned_away[usize::from(cause.code())]
}

/// An echo over a connection from this address: it is in.
#[track_caller]
fn is_in(server: &Server, from: [u8; 4]) -> Raw {
    let mut raw = Raw::connect_from(from, server.local_addr());
    raw.be32(b"in?");
    assert_eq!(raw.be32_next(), b"in?");
    raw
}

/// A connection from this address ends without a byte.
#[track_caller]
fn is_out(server: &Server, from: [u8; 4]) {
    // It may be reset before the connect has returned.
    if let Ok(mut raw) = Raw::try_connect_from(from, server.local_addr()) {
        assert!(raw.is_cut());
    }
}

fn s13_a_banned_address_is_closed_before_anything_is_set_up(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let mut before = is_in(&server, [127, 0, 0, 2]);
    server.rules().ban(address("127.0.0.2")).unwrap();
    is_out(&server, [127, 0, 0, 2]);
    eventually("it is counted", || cause(&server.figures(), TurnedAway::Banned) == 1);
    let error = watch.error("it is told", |kind| *kind == ErrorKind::TurnedAway(TurnedAway::Banned));
    assert_eq!(error.peer.unwrap().ip(), IpAddr::from([127, 0, 0, 2]));
    let requests = watch.rest().into_iter().filter(|seen| matches!(seen, Seen::Request)).count();
    assert_eq!(requests, 1, "content was not asked about the banned one");
    assert_eq!(server.rules().list()[0].turned_away, 1);
    is_in(&server, [127, 0, 0, 3]);
    before.be32(b"who is here stays");
    assert_eq!(before.be32_next(), b"who is here stays");
    assert!(server.remote().rules().pardon(address("127.0.0.2")));
    is_in(&server, [127, 0, 0, 2]);
    finish(server, &watch);
}

fn o3_a_block_ends_by_itself(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    let begun = Instant::now();
    server.rules().block(address("127.0.0.0/24"), Duration::from_millis(600)).unwrap();
    let mut tries = 0;
    loop {
        let mut raw = Raw::connect_from([127, 0, 0, 9], server.local_addr());
        if std::io::Write::write_all(&mut raw.stream, &[0, 0, 0, 1, 7]).is_ok() && !raw.is_empty_end() {
            break;
        }
        tries += 1;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    assert!(tries > 0 && cause(&server.figures(), TurnedAway::Blocked) == tries);
    assert!(server.rules().list().is_empty());
    finish(server, &watch);
}

fn o3_only_listed_addresses_enter_while_the_list_holds(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    let rules = server.rules();
    rules.allow_only([address("127.0.1.0/24")]).unwrap();
    is_out(&server, [127, 0, 0, 2]);
    is_in(&server, [127, 0, 1, 2]);
    assert_eq!(cause(&server.figures(), TurnedAway::NotListed), 1);
    rules.allow_all();
    is_in(&server, [127, 0, 0, 2]);
    finish(server, &watch);
}

fn o3_rules_outlive_a_stop_and_come_from_a_file(driver: DriverChoice) {
    let path = std::env::temp_dir().join(format!("madang-rules-{}-{driver:?}.toml", std::process::id()));
    std::fs::write(&path, "[[rule]]\nprefix = '127.0.0.2'\nkind = 'ban'\n").unwrap();
    let with_file = |file: &std::path::Path| {
        let file = file.display().to_string();
        be32(driver).set(move |settings| settings.rules_file = file)
    };
    let (recorder, watch) = Recorder::echo();
    let server = with_file(&path).start(recorder).unwrap();
    is_out(&server, [127, 0, 0, 2]);
    server.rules().ban(address("127.0.0.3")).unwrap();
    server.rules().block(address("127.0.0.4"), Duration::from_secs(600)).unwrap();
    let server = finish(server, &watch).start_again().unwrap();
    for last in 2..=4 {
        is_out(&server, [127, 0, 0, last]);
    }
    is_in(&server, [127, 0, 0, 5]);
    server.rules().save(&path).unwrap();
    server.stop().unwrap();

    let (recorder, watch) = Recorder::echo();
    let server = with_file(&path).start(recorder).unwrap();
    let kinds: Vec<RuleKind> = server.rules().list().iter().map(|rule| rule.kind).collect();
    assert_eq!(kinds, [RuleKind::Ban, RuleKind::Ban, RuleKind::Block]);
    is_out(&server, [127, 0, 0, 4]);
    // A file with a mistake changes nothing.
    std::fs::write(&path, "allow_only = 7").unwrap();
    assert!(server.rules().load(&path).unwrap_err().to_string().contains("allow_only"));
    assert_eq!(server.rules().list().len(), 3);
    finish(server, &watch);

    let StartError::Setting(error) = with_file(&path).start(Recorder::silent()).unwrap_err() else {
        panic!("a wrong file is a wrong setting");
    };
    assert_eq!(error.key, "rules_file");
    std::fs::remove_file(&path).unwrap();
    let StartError::Setting(error) = with_file(&path).start(Recorder::silent()).unwrap_err() else {
        panic!("a file that is not there is a wrong setting");
    };
    assert_eq!(error.key, "rules_file");
}

fn b07_one_address_has_so_many_connections(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).workers(2).set(|settings| {
        settings.prefix_spares_loopback = false;
        settings.prefix_connections_max = Some(3);
        settings.prefix_wide_factor = 2;
    });
    let server = server.start(recorder).unwrap();
    let mut first: Vec<Raw> = (0..3).map(|_| is_in(&server, [127, 0, 0, 2])).collect();
    is_out(&server, [127, 0, 0, 2]);
    let _others: Vec<Raw> = (3..6).map(|last| is_in(&server, [127, 0, 0, last])).collect();
    is_out(&server, [127, 0, 0, 6]); // the neighbourhood is full
    is_in(&server, [127, 0, 1, 2]);
    server.rules().exempt(address("127.0.0.6")).unwrap();
    let _exempt = is_in(&server, [127, 0, 0, 6]); // and is not counted
    assert_eq!(cause(&server.figures(), TurnedAway::PrefixConnections), 2);
    // Who goes makes room, once his session has left.
    first.pop().unwrap().reset();
    eventually("the session has left", || server.figures().left() >= 2);
    is_in(&server, [127, 0, 0, 2]);
    finish(server, &watch);
}

fn b07_one_address_has_so_many_connections_a_second(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| {
        settings.prefix_spares_loopback = false;
        settings.prefix_rate_max = Some(2);
        settings.prefix_burst_max = Some(3);
    });
    let server = server.start(recorder).unwrap();
    let begun = Instant::now();
    let tries = 12;
    for _ in 0..tries {
        drop(Raw::try_connect_from([127, 0, 0, 2], server.local_addr()));
    }
    is_in(&server, [127, 0, 1, 2]);
    eventually("all were looked at", || server.figures().accepted == tries + 1);
    let passed = tries - cause(&server.figures(), TurnedAway::PrefixRate);
    let most = 3 + 2 * (begun.elapsed().as_secs() + 1);
    assert!((3..=most).contains(&passed), "{passed} passed, {most} may");
    finish(server, &watch);
}

fn b07_a_lan_has_no_limits_of_prefixes(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| settings.prefix_spares_loopback = false).start(recorder).unwrap();
    let peers: Vec<_> = (0..300).map(|_| Raw::join_lan(server.local_addr(), &Hello::default())).collect();
    assert_eq!(server.figures().refused, 0);
    drop(peers);
    finish(server, &watch);
}

fn b08_accepting_keeps_its_pace_and_loses_nobody(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| settings.accept_rate_max = Some(20)).start(recorder).unwrap();
    let begun = Instant::now();
    // One after the other, so that no two are accepted in one batch: 64 pass, the rest keeps the pace, which is slower than
    // any machine's own.
    let _peers: Vec<Raw> = (0..74).map(|_| is_in(&server, [127, 0, 0, 1])).collect();
    assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    let figures = server.figures();
    assert!(figures.accept_pauses >= 1 && figures.refused == 0, "{figures:?}");
    finish(server, &watch);
}

fn b08_a_flood_from_one_neighbourhood_makes_way_for_others(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).workers(2).set(|settings| {
        settings.embryos_max = 8;
        settings.greeting_timeout_ms = 60_000;
    });
    let server = server.start(recorder).unwrap();
    // Two honest peers are slow to greet, and are here first.
    let mut honest: Vec<Raw> =
        (1..=2).map(|net| Raw::connect_from([127, 0, net, 1], server.local_addr())).collect();
    eventually("they are here", || server.figures().accepted == 2);
    let _flood: Vec<Raw> =
        (0..100u8).map(|last| Raw::connect_from([127, 9, 9, last], server.local_addr())).collect();
    eventually("the flood is over", || server.figures().accepted == 102);
    for raw in &mut honest {
        raw.write(&Hello::default().frame());
        raw.welcomed();
    }
    let figures = server.figures();
    assert!(figures.evicted + cause(&figures, TurnedAway::Full) >= 94, "{figures:?}");
    finish(server, &watch);
}

fn b09_many_who_are_turned_away_are_counted_and_few_are_told(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    server.rules().ban(address("127.0.0.2")).unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        is_out(&server, [127, 0, 0, 2]);
    }
    eventually("all are counted", || cause(&server.figures(), TurnedAway::Banned) == 200);
    let most = 10 * (begun.elapsed().as_secs() + 2);
    let told = watch.rest().into_iter().filter(|seen| matches!(seen, Seen::Error(_))).count() as u64;
    assert!((1..=most).contains(&told), "{told} of 200 were told");
    assert_eq!(server.rules().list()[0].turned_away, 200);
    finish(server, &watch);
}

fn o13_the_smallest_app_version_changes_while_peers_come(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).workers(2).set(|settings| settings.app_version_min = 2).start(recorder).unwrap();
    let hello = |app_version| Hello { app_version, ..Hello::default() };
    let refused = |app_version| {
        let mut raw = Raw::connect_from([127, 0, 0, 2], server.local_addr());
        raw.write(&hello(app_version).frame());
        assert_eq!(raw.refused(), 3, "version {app_version}");
    };
    let admitted = |from, app_version| {
        let mut raw = Raw::connect_from(from, server.local_addr());
        raw.write(&hello(app_version).frame());
        raw.welcomed();
        raw
    };
    refused(1);
    let mut old = admitted([127, 0, 0, 2], 2);
    server.rules().set_app_version_min(5);
    refused(2);
    refused(4);
    admitted([127, 0, 0, 2], 5);
    old.lan(kind::PING, &[3; 8]);
    assert_eq!(old.lan_next(), (kind::PONG, vec![3; 8]), "who is here stays");
    server.rules().exempt(address("127.0.7.0/24")).unwrap();
    admitted([127, 0, 7, 1], 1);
    refused(4);
    server.rules().set_app_version_min(0);
    admitted([127, 0, 0, 2], 2);
    refused(1); // the setting holds
    finish(server, &watch);
}
