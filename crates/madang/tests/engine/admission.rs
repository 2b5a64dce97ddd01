//! Whom content lets in, and what it tells whom it does not.

use std::time::Duration;

use madang::wire::lan::RefusalReason;
use madang::{
    Admission, ClientBuilder, DriverChoice, ErrorKind, LanClient, LinkDown, Refusal, Server, ServerBuilder,
    TurnedAway,
};

use crate::support::{Hello, Raw, Recorder, Watch, be32, eventually, finish, kind, lan};

each_driver! {
    h01_a_peer_reads_why_content_does_not_want_it,
    h01_a_foreign_framing_has_no_word_for_it,
    h01_a_link_is_told_in_words_and_tries_on,
    s12_who_comes_back_at_once_gets_in_though_its_prefix_is_at_its_limit,
    s12_one_too_many_from_an_address_is_told_when_it_has_greeted,
    s12_who_was_refused_and_stays_on_takes_no_place_of_its_prefix,
    b08_who_was_refused_and_stays_on_makes_way_for_strangers,
    s14_a_ticket_is_read_though_its_prefix_is_at_its_limit,
}

const WORDS: &str = "점검 중, back at 9";

fn closed() -> Refusal {
    Refusal::new(RefusalReason::Draining, WORDS)
}

/// Content that wants nobody.
fn nobody() -> (Recorder, Watch) {
    let (recorder, watch) = Recorder::new();
    (recorder.on_request(|_| Admission::RefuseWith(closed())), watch)
}

/// What a client's content is told of its one link.
#[track_caller]
fn link_is_down(client: ClientBuilder) -> LinkDown {
    let (recorder, watch) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let told = watch.error("a link that is down", |kind| matches!(kind, ErrorKind::LinkDown { .. }));
    assert!(told.kind.to_string().ends_with("refused by the server: Draining: 점검 중, back at 9"));
    let ErrorKind::LinkDown { reason, .. } = told.kind else { unreachable!() };
    client.stop().unwrap();
    reason
}

fn quick(client: ClientBuilder, driver: DriverChoice) -> ClientBuilder {
    client.set(|settings| {
        settings.driver = driver;
        settings.reconnect_min_ms = 20;
        settings.reconnect_max_ms = 40;
    })
}

fn is_refused_and_gone(server: Server, watch: &Watch, failed: u64) {
    let told = watch.error("it is told", |kind| matches!(kind, ErrorKind::Refused(_)));
    assert_eq!(told.kind, ErrorKind::Refused(closed()));
    eventually("nobody is left", || server.figures().failed >= failed && server.figures().embryos == 0);
    assert_eq!(server.figures().joins, 0);
    finish(server, watch);
}

fn h01_a_peer_reads_why_content_does_not_want_it(driver: DriverChoice) {
    let (recorder, watch) = nobody();
    let server = lan(driver).set(|settings| settings.app_version_min = 5).start(recorder).unwrap();
    let mut raw = Raw::connect(server.local_addr());
    raw.write(&Hello { app_version: 5, ..Hello::default() }.frame());
    let (what, payload) = raw.lan_next();
    assert_eq!((what, payload[0], payload[1], payload[2]), (kind::REFUSAL, 17, WORDS.len() as u8, 0));
    assert_eq!(&payload[3..], WORDS.as_bytes());
    assert!(raw.is_empty_end());
    // Who would not suit anyway hears that: an update is what it needs first.
    let mut old = Raw::connect(server.local_addr());
    old.write(&Hello { app_version: 4, ..Hello::default() }.frame());
    assert_eq!(old.refused(), 3);
    is_refused_and_gone(server, &watch, 2);
}

fn h01_a_foreign_framing_has_no_word_for_it(driver: DriverChoice) {
    let (recorder, watch) = nobody();
    let server = be32(driver).start(recorder).unwrap();
    assert!(Raw::connect(server.local_addr()).is_empty_end());
    let turned_away = || server.figures().turned_away[usize::from(TurnedAway::Content.code())];
    eventually("it is counted", || turned_away() == 1);
    assert_eq!(server.figures().refused, 1);
    finish(server, &watch);
}

fn h01_a_link_is_told_in_words_and_tries_on(driver: DriverChoice) {
    let (recorder, watch) = nobody();
    let server = lan(driver).start(recorder).unwrap();
    let client = LanClient::node("a", "a-1", 1).link(&server.local_addr().to_string());
    assert_eq!(link_is_down(quick(client, driver)), LinkDown::Refused(closed()));
    is_refused_and_gone(server, &watch, 1);
}

/// Connections that one address may have.
fn limited(driver: DriverChoice, most: u32) -> ServerBuilder {
    lan(driver).set(|settings| {
        settings.prefix_spares_loopback = false;
        settings.prefix_connections_max = Some(most);
        settings.leave_timeout_ms = 20_000;
    })
}

fn greets(server: &Server, ticket: &[u8]) -> Raw {
    let mut raw = Raw::connect(server.local_addr());
    raw.write(&Hello { ticket: ticket.to_vec(), ..Hello::default() }.frame());
    raw
}

fn s12_who_comes_back_at_once_gets_in_though_its_prefix_is_at_its_limit(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = limited(driver, 2).workers(2).start(recorder).unwrap();
    let (_other, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let id = watch.join();
    // The session is on its way out for as long as its peer keeps its end open.
    let remote = server.remote();
    remote.send_and_disconnect(id, remote.packet(b"bye"), 1).ignore();
    eventually("it leaves", || server.figures().sessions_leaving == 1);
    let (again, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    eventually("two stay and one leaves", || {
        let figures = server.figures();
        (figures.sessions, figures.sessions_leaving) == (2, 1)
    });
    // That was all there is beyond the limit: the next is turned away at the door.
    assert!(Raw::connect(server.local_addr()).is_empty_end());
    drop(first);
    watch.leave(id);
    drop(again);
    eventually("it has left, too", || server.figures().sessions == 1);
    Raw::join_lan(server.local_addr(), &Hello::default());
    finish(server, &watch);
}

fn s12_one_too_many_from_an_address_is_told_when_it_has_greeted(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = limited(driver, 1).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    assert_eq!(greets(&server, &[]).refused(), 18);
    watch.error("it is told", |kind| *kind == ErrorKind::TurnedAway(TurnedAway::PrefixConnections));
    eventually("it is gone", || server.figures().embryos == 0);
    drop(first);
    Raw::join_lan(server.local_addr(), &Hello::default());
    finish(server, &watch);
}

fn s12_who_was_refused_and_stays_on_takes_no_place_of_its_prefix(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = limited(driver, 2).set(|settings| settings.greeting_timeout_ms = 60_000);
    let server = server.start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let (_second, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut refused = greets(&server, &[]);
    assert_eq!(refused.refusal(), 18);
    drop(first);
    eventually("its session has left", || server.figures().left() == 1);
    Raw::join_lan(server.local_addr(), &Hello::default());
    eventually("the one who was refused is the only one outside", || server.figures().embryos == 1);
    drop(refused);
    finish(server, &watch);
}

fn b08_who_was_refused_and_stays_on_makes_way_for_strangers(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).max_sessions(1).set(|settings| {
        settings.session_slack = Some(0);
        settings.embryos_max = 2;
        settings.greeting_timeout_ms = 60_000;
    });
    let server = server.start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut refused: Vec<Raw> = (0..2).map(|_| greets(&server, &[])).collect();
    refused.iter_mut().for_each(|raw| assert_eq!(raw.refusal(), 16));
    drop(first);
    eventually("its session has left", || server.figures().left() == 1);
    // They fill the room of strangers until they were here for half a second: then the first of them makes way.
    std::thread::sleep(Duration::from_millis(600));
    Raw::join_lan(server.local_addr(), &Hello::default());
    eventually("one has made way", || {
        let figures = server.figures();
        (figures.evicted, figures.embryos) == (1, 1)
    });
    finish(server, &watch);
}

fn s14_a_ticket_is_read_though_its_prefix_is_at_its_limit(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = limited(driver, 2).max_sessions(1).set(|settings| settings.queue_max = 10);
    let server = server.start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let ticket_of = |raw: &mut Raw| loop {
        match raw.lan_next() {
            (kind::TICKET, payload) => break payload[7..].to_vec(),
            (what, _) => assert!(matches!(what, kind::GREETING | kind::QUEUE), "{what}"),
        }
    };
    let mut waiter = greets(&server, &[]);
    let ticket = ticket_of(&mut waiter);
    waiter.reset();
    eventually("its link is gone", || server.figures().embryos == 0);
    // The one who is here and the one who may come back are all that the address may have; the ticket tells who it is.
    let mut back = greets(&server, &ticket);
    let next = ticket_of(&mut back);
    assert_ne!(next, ticket);
    // Its old link may look alive still.
    let mut again = greets(&server, &next);
    ticket_of(&mut again);
    drop(first);
    while again.lan_next().0 != kind::WELCOME {}
    finish(server, &watch);
}
