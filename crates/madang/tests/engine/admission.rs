//! Whom content lets in, and what it tells whom it does not.

use madang::wire::lan::RefusalReason;
use madang::{
    Admission, ClientBuilder, DriverChoice, ErrorKind, LanClient, LinkDown, Refusal, Server, TurnedAway,
};

use crate::support::{Hello, Raw, Recorder, Watch, be32, eventually, finish, kind, lan};

each_driver! {
    h01_a_peer_reads_why_content_does_not_want_it,
    h01_a_foreign_framing_has_no_word_for_it,
    h01_a_link_is_told_in_words_and_tries_on,
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
