//! The waiting queue: order, places, tickets, and what everybody is told.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use madang::wire::classic::{Classic, ClassicSettings};
use madang::{
    Admission, DriverChoice, ErrorKind, ForeignFraming, LanClient, Server, ServerBuilder, SessionId,
    WaitState,
};

use crate::support::{
    Ended, Hello, PATIENCE, Raw, Recorder, eventually, finish, foreign, kind, lan, lan_frame,
};

each_driver!(
    o4_waiters_hear_where_they_stand_and_are_let_in_in_order,
    o4_a_higher_priority_waits_ahead,
    o4_a_queue_that_is_full_says_so,
    o4_who_leaves_the_queue_makes_room_in_it,
    s14_a_ticket_gives_the_turn_back_once_and_to_nobody_else,
    s14_a_turn_is_kept_for_its_grace_and_no_longer,
    s14_whoever_has_the_ticket_takes_over_from_a_link_that_is_dead,
    s12_waiters_take_no_room_of_strangers_and_stay_alive,
    s12_a_waiter_is_asked_whether_it_lives_though_words_to_it_are_under_way,
    h10_a_foreign_framing_carries_the_words_of_content,
    h10_a_link_tells_its_content_and_keeps_its_ticket,
    o4_waiters_of_a_server_that_stops_hear_so,
    o4_places_are_given_out_at_the_pace_of_the_settings,
    o3_a_ban_reaches_those_who_wait,
);

/// A LAN server of so many places, with a queue.
fn full(driver: DriverChoice, places: usize) -> ServerBuilder {
    lan(driver).max_sessions(places).set(|settings| {
        settings.queue_max = 10;
        settings.queue_update_ms = 20;
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Stands {
    position: u32,
    length: u32,
}

/// Greets, with a ticket perhaps.
fn greets(server: &Server, ticket: &[u8]) -> Raw {
    let mut raw = Raw::connect(server.local_addr());
    raw.write(&Hello { ticket: ticket.to_vec(), ..Hello::default() }.frame());
    raw
}

/// Reads what somebody hears first who has to wait: where he stands, and his ticket.
#[track_caller]
fn waits(raw: &mut Raw) -> (Stands, Vec<u8>) {
    assert_eq!(raw.lan_next().0, kind::GREETING);
    let (kind, ticket) = raw.lan_next();
    assert_eq!((kind, ticket[0]), (kind::TICKET, 1), "a ticket for the queue");
    let len = usize::from(u16::from_le_bytes([ticket[5], ticket[6]]));
    assert_eq!(ticket.len(), 7 + len);
    (stands(raw), ticket[7..].to_vec())
}

#[track_caller]
fn stands(raw: &mut Raw) -> Stands {
    let (kind, queue) = raw.lan_next();
    assert_eq!((kind, queue.len()), (kind::QUEUE, 12));
    let number = |at: usize| u32::from_le_bytes(queue[at..at + 4].try_into().unwrap());
    Stands { position: number(0), length: number(4) }
}

/// Reads news until it stands there.
#[track_caller]
fn moves_to(raw: &mut Raw, position: u32) {
    while stands(raw).position != position {}
}

/// Reads news until the welcome comes; nothing else may.
#[track_caller]
fn is_welcomed(raw: &mut Raw) -> u64 {
    loop {
        let (kind, payload) = raw.lan_next();
        if kind == kind::WELCOME {
            return u64::from_le_bytes(payload[..8].try_into().unwrap());
        }
        assert_eq!(kind, kind::QUEUE);
    }
}

fn o4_waiters_hear_where_they_stand_and_are_let_in_in_order(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = full(driver, 1).workers(2).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let mut waiters: Vec<Raw> = (1..=3)
        .map(|position| {
            let mut raw = greets(&server, &[]);
            assert_eq!(waits(&mut raw).0, Stands { position, length: position });
            let (waiter, state) = watch.wait("an entry", |state| matches!(state, WaitState::Entered(_)));
            let WaitState::Entered(standing) = state else { unreachable!() };
            assert_eq!((standing.position, waiter.peer.remote), (position, raw.local()));
            assert_eq!(waiter.peer.node.unwrap().service, "raw");
            raw
        })
        .collect();
    eventually("three wait", || server.figures().waiting == 3);
    drop(first);
    for turn in 0..3 {
        let mut raw = waiters.remove(0);
        is_welcomed(&mut raw);
        let (waiter, _) = watch.wait("an admission", |state| *state == WaitState::Admitted);
        assert_eq!(waiter.peer.remote, raw.local());
        let (_, peer) = watch.join_of_peer();
        assert_eq!(peer.remote, raw.local());
        // It is a session as any other.
        raw.lan(kind::MESSAGE, b"in");
        assert_eq!(raw.expect_message(), b"in");
        if let Some(next) = waiters.first_mut() {
            moves_to(next, 1);
        }
        eventually("it is counted", || server.figures().queue_admitted == turn + 1);
    }
    finish(server, &watch);
}

fn o4_a_higher_priority_waits_ahead(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    // Whoever comes from 127.0.0.x has priority x.
    let recorder = recorder.on_request(|peer| match peer.remote.ip() {
        std::net::IpAddr::V4(ip) => Admission::Priority(ip.octets()[3]),
        std::net::IpAddr::V6(_) => Admission::Refuse,
    });
    let server = full(driver, 1).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let come = |priority: u8| {
        let mut raw = Raw::connect_from([127, 0, 0, priority], server.local_addr());
        raw.write(&Hello::default().frame());
        let position = waits(&mut raw).0.position;
        (raw, position)
    };
    let (mut low, at) = come(3);
    assert_eq!(at, 1);
    let (mut high, at) = come(9);
    assert_eq!(at, 1);
    let (mut also_high, at) = come(9);
    assert_eq!(at, 2);
    moves_to(&mut low, 3);
    drop(first);
    for (raw, priority) in [(&mut high, 9), (&mut also_high, 9), (&mut low, 3)] {
        is_welcomed(raw);
        let (waiter, _) = watch.wait("an admission", |state| *state == WaitState::Admitted);
        assert_eq!((waiter.peer.remote, waiter.priority), (raw.local(), priority));
        raw.half_close();
    }
    finish(server, &watch);
}

fn o4_a_queue_that_is_full_says_so(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).set(|settings| settings.queue_max = 2).start(recorder).unwrap();
    let (_first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut two: Vec<Raw> = (0..2).map(|_| greets(&server, &[])).collect();
    for raw in &mut two {
        waits(raw);
    }
    assert_eq!(greets(&server, &[]).refused(), 16);
    watch.error("it is told", |kind| *kind == ErrorKind::ServerFull);
    finish(server, &watch);
}

fn o4_who_leaves_the_queue_makes_room_in_it(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).set(|settings| settings.queue_grace_ms = 0).start(recorder).unwrap();
    let (_first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut waiters: Vec<Raw> = Vec::new();
    for position in 1..=3 {
        let mut raw = greets(&server, &[]);
        assert_eq!(raw.lan_next().0, kind::GREETING);
        assert_eq!(stands(&mut raw).position, position, "and no ticket, which would keep nothing");
        waiters.push(raw);
    }
    drop(waiters.remove(0));
    watch.wait("it is gone", |state| *state == WaitState::Gone);
    moves_to(&mut waiters[0], 1);
    moves_to(&mut waiters[1], 2);
    // A goodbye leaves at once, too.
    waiters[0].lan(kind::GOODBYE, &[0x44, 0, 0, 0, 0]);
    watch.wait("it is gone", |state| *state == WaitState::Gone);
    moves_to(&mut waiters[1], 1);
    eventually("one waits", || server.figures().waiting == 1);
    finish(server, &watch);
}

fn s14_a_ticket_gives_the_turn_back_once_and_to_nobody_else(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).workers(2).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut lost = greets(&server, &[]);
    let (_, ticket) = waits(&mut lost);
    let mut second = greets(&server, &[]);
    waits(&mut second);
    drop(lost);
    eventually("the link is gone and the turn is kept", || {
        server.figures().embryos == 1 && server.figures().waiting == 2
    });

    // Wrong ones: a bit off in each part, cut, and of nobody. They are newcomers, and harm nobody.
    let mut wrong: Vec<Vec<u8>> = [0, 1, 8, 9, 24]
        .map(|at| (at, ticket.clone()))
        .map(|(at, mut ticket)| {
            ticket[at] ^= 1;
            ticket
        })
        .to_vec();
    wrong.push(ticket[1..].to_vec());
    wrong.push(vec![7; 128]);
    let mut strangers = Vec::new();
    for (index, wrong) in wrong.iter().enumerate() {
        let mut raw = greets(&server, wrong);
        assert_eq!(waits(&mut raw).0.position, index as u32 + 3, "{wrong:?}");
        strangers.push(raw);
    }

    let mut back = greets(&server, &ticket);
    let (stands, fresh) = waits(&mut back);
    assert_eq!(stands.position, 1);
    assert_ne!(fresh, ticket);
    let mut thief = greets(&server, &ticket);
    assert_eq!(waits(&mut thief).0.position, 10, "a ticket that was taken is good for nothing");
    eventually("it is counted", || server.figures().queue_returned == 1);
    drop(first);
    is_welcomed(&mut back);
    drop(back);
    is_welcomed(&mut second);
    // After the welcome the ticket keeps nothing.
    let mut late = greets(&server, &fresh);
    assert_eq!(waits(&mut late).0.position, 9);
    finish(server, &watch);
}

fn s14_a_turn_is_kept_for_its_grace_and_no_longer(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).set(|settings| settings.queue_grace_ms = 400).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let mut lost = greets(&server, &[]);
    let (_, ticket) = waits(&mut lost);
    let (waiter, _) = watch.wait("an entry", |state| matches!(state, WaitState::Entered(_)));
    let mut second = greets(&server, &[]);
    waits(&mut second);
    drop(lost);
    // Whoever is away is passed over.
    drop(first);
    is_welcomed(&mut second);
    let gone = watch.wait("its grace is over", |state| *state == WaitState::Gone);
    assert_eq!(gone.0.id, waiter.id);
    let mut late = greets(&server, &ticket);
    let (stands, ticket) = waits(&mut late);
    assert_eq!(stands, Stands { position: 1, length: 1 });
    // And whoever is back in time has the next place.
    let mut third = greets(&server, &[]);
    waits(&mut third);
    drop(late);
    let mut back = greets(&server, &ticket);
    assert_eq!(waits(&mut back).0.position, 1);
    drop(second);
    is_welcomed(&mut back);
    finish(server, &watch);
}

fn s14_whoever_has_the_ticket_takes_over_from_a_link_that_is_dead(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).workers(2).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    // The server cannot know yet that this one is dead.
    let mut dead = greets(&server, &[]);
    let (_, ticket) = waits(&mut dead);
    let mut other = greets(&server, &[]);
    waits(&mut other);
    let mut back = greets(&server, &ticket);
    assert_eq!(waits(&mut back).0, Stands { position: 1, length: 2 });
    assert!(dead.is_cut());
    drop(first);
    is_welcomed(&mut back);
    finish(server, &watch);
}

fn s12_waiters_take_no_room_of_strangers_and_stay_alive(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = full(driver, 1).set(|settings| {
        settings.embryos_max = 2;
        settings.greeting_timeout_ms = 300;
        settings.heartbeat_ms = 100;
        settings.dead_after_ms = 600;
    });
    let server = server.start(recorder).unwrap();
    let (mut first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let come = || {
        let mut raw = greets(&server, &[]);
        waits(&mut raw);
        raw
    };
    let mut waiters: Vec<Raw> = (0..8).map(|_| come()).collect();
    // They stay beyond the time for greeting, answer pings, and one of them does not.
    let mut silent = waiters.remove(3);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        for raw in waiters.iter_mut().chain([&mut first]) {
            raw.lan(kind::PONG, &[0; 8]);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(silent.is_cut());
    first.lan(kind::MESSAGE, b"still here");
    assert_eq!(first.expect_message(), b"still here");
    eventually("the silent one's turn is kept for a while", || {
        let figures = server.figures();
        (figures.waiting, figures.embryos) == (8, 7)
    });
    // What a waiter says before its place is held for it.
    waiters[0].lan(kind::MESSAGE, b"early");
    drop(first);
    is_welcomed(&mut waiters[0]);
    assert_eq!(waiters[0].expect_message(), b"early");
    finish(server, &watch);
}

/// A waiter that was not asked because its last news had not left yet could not answer, and was cut.
fn s12_a_waiter_is_asked_whether_it_lives_though_words_to_it_are_under_way(driver: DriverChoice) {
    const PATIENCE_MS: u64 = 4_000;
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).set(|settings| {
        settings.heartbeat_ms = PATIENCE_MS / 4;
        settings.dead_after_ms = PATIENCE_MS;
        settings.send_buffer_bytes = 4 << 10;
    });
    let server = server.start(recorder).unwrap();
    let (mut first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut waiter = greets(&server, &[]);
    waits(&mut waiter);
    // It reads nothing more, and asks for answers until they stay with the server.
    const ASKS: usize = 100;
    let answers = (lan_frame(kind::PONG, &[0; 8]).len() * ASKS) as u64;
    let mut has_left = || {
        let before = server.figures().bytes_out;
        waiter.write(&lan_frame(kind::PING, &[7; 8]).repeat(ASKS));
        let asked = Instant::now();
        while server.figures().bytes_out < before + answers {
            if asked.elapsed() > Duration::from_millis(200) {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        true
    };
    let deadline = Instant::now() + PATIENCE;
    while has_left() {
        assert!(Instant::now() < deadline, "the kernel takes it all");
    }
    // The server looks twice within its patience, so once in a little more than half of it.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(PATIENCE_MS / 2 + 200) {
        first.lan(kind::PONG, &[0; 8]);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    // What comes ahead of this answer was said before it read again.
    waiter.write(&lan_frame(kind::PING, &[9; 8]));
    let mut was_asked = false;
    loop {
        let header = u32::from_le_bytes(waiter.read(4).try_into().unwrap());
        let payload = waiter.read((header & 0x00ff_ffff) as usize);
        match (header >> 24) as u8 {
            kind::PONG if payload == [9; 8] => break,
            kind::PING => {
                was_asked = true;
                waiter.lan(kind::PONG, &payload);
            }
            _ => {}
        }
    }
    assert!(was_asked, "its words that were under way were all that it heard");
    finish(server, &watch);
}

/// A framing without greeting: content says where its peers stand, in frames of theirs.
fn h10_a_foreign_framing_carries_the_words_of_content(driver: DriverChoice) {
    let classic = ForeignFraming::custom(|_, seed| Classic::new(ClassicSettings::default(), seed));
    for (framing, is_be32) in [(ForeignFraming::be32(), true), (classic, false)] {
        let (recorder, watch) = Recorder::echo();
        let recorder = recorder
            .on_wait(|cx, _, state| {
                let words = match state {
                    WaitState::Entered(standing) | WaitState::Moved(standing) => {
                        format!("at {}", standing.position)
                    }
                    WaitState::Admitted => "come in".to_owned(),
                    _ => return None,
                };
                Some(cx.packet(words.as_bytes()).freeze())
            })
            .on_join(|cx, id| {
                let hello = cx.packet(b"hello");
                cx.send(id, hello).ignore();
            });
        let server = foreign(driver, framing).workers(2).max_sessions(1).set(|settings| {
            settings.queue_max = 10;
            settings.queue_update_ms = 20;
        });
        let server = server.start(recorder).unwrap();
        let mut codec: BTreeMap<SocketAddr, Classic> = BTreeMap::new();
        let mut next = |raw: &mut Raw| {
            if is_be32 {
                return raw.be32_next();
            }
            let classic =
                codec.entry(raw.local()).or_insert_with(|| Classic::new(ClassicSettings::default(), 1));
            next_of(classic, raw)
        };
        let mut first = Raw::connect(server.local_addr());
        assert_eq!(next(&mut first), b"hello");
        let mut waiters: Vec<Raw> = Vec::new();
        for position in 1..=3 {
            let mut raw = Raw::connect(server.local_addr());
            assert_eq!(next(&mut raw), format!("at {position}").as_bytes());
            waiters.push(raw);
        }
        // One goes, the others move up.
        drop(waiters.remove(0));
        watch.wait("it is gone", |state| *state == WaitState::Gone);
        assert_eq!(next(&mut waiters[0]), b"at 1");
        assert_eq!(next(&mut waiters[1]), b"at 2");
        if is_be32 {
            waiters[0].be32(b"early");
        }
        drop(first);
        assert_eq!(next(&mut waiters[0]), b"come in", "ahead of what on_join sends");
        assert_eq!(next(&mut waiters[0]), b"hello");
        if is_be32 {
            assert_eq!(waiters[0].be32_next(), b"early");
        }
        finish(server, &watch);
    }
}

fn next_of(classic: &mut Classic, raw: &mut Raw) -> Vec<u8> {
    use madang::wire::{Find, Framing};
    let mut frame = raw.read(1);
    loop {
        match classic.find(&frame).unwrap() {
            Find::Need { total } => frame.extend(raw.read(total - frame.len())),
            Find::Frame { .. } => {
                let payload = classic.open(&mut frame).unwrap().payload;
                return frame[payload].to_vec();
            }
        }
    }
}

/// The engine's client against a server by hand.
fn h10_a_link_tells_its_content_and_keeps_its_ticket(driver: DriverChoice) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (recorder, watch) = Recorder::new();
    let client = LanClient::node("game", "game-1", 1)
        .link(&listener.local_addr().unwrap().to_string())
        .set(|settings| {
            settings.driver = driver;
            settings.connect_timeout_ms = 400;
            settings.reconnect_min_ms = 10;
        })
        .start(recorder)
        .unwrap();
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Raw { stream };
        let (kind, greeting) = raw.lan_next();
        assert_eq!(kind, kind::GREETING);
        (raw, greeting)
    };
    let queue = |position: u32| {
        let fields = [position, 9, 4_000].map(u32::to_le_bytes).concat();
        lan_frame(kind::QUEUE, &fields)
    };
    let (mut raw, greeting) = accept();
    assert_eq!(greeting[6..8], [0, 0]);
    raw.write(&Hello::default().frame());
    raw.write(&lan_frame(kind::TICKET, &[&[1, 0, 0, 0, 0, 3, 0][..], b"abc"].concat()));
    raw.write(&queue(7));
    let (waiter, state) = watch.wait("an entry", |state| matches!(state, WaitState::Entered(_)));
    let WaitState::Entered(standing) = state else { unreachable!() };
    assert_eq!((standing.position, standing.length), (7, 9));
    assert_eq!(standing.estimate, Some(Duration::from_secs(4)));
    assert_eq!((waiter.link, waiter.peer.remote), (client.link(0), raw.stream.local_addr().unwrap()));
    // Beyond the time for connecting it waits on, as long as it hears something.
    for round in 0..12 {
        raw.lan(kind::PING, &[round; 8]);
        assert_eq!(raw.lan_next(), (kind::PONG, vec![round; 8]));
        std::thread::park_timeout(Duration::from_millis(50));
    }
    raw.write(&queue(2));
    let (_, state) = watch.wait("news", |state| matches!(state, WaitState::Moved(_)));
    assert!(matches!(state, WaitState::Moved(standing) if standing.position == 2));
    drop(raw);
    watch.wait("the connection is gone", |state| *state == WaitState::Gone);

    // It comes back with its ticket, and has the place.
    let (mut raw, greeting) = accept();
    assert_eq!(greeting[6..8], [2, 0]);
    assert_eq!(greeting[greeting.len() - 5..], [3, 0, b'a', b'b', b'c']);
    raw.write(&Hello::default().frame());
    raw.write(&queue(1));
    watch.wait("an entry", |state| matches!(state, WaitState::Entered(_)));
    raw.write(&lan_frame(kind::WELCOME, &[[5; 8], [0; 8]].concat()));
    watch.wait("an admission", |state| *state == WaitState::Admitted);
    let id: SessionId = watch.join();
    assert_eq!(client.session(client.link(0).unwrap()), Some(id));
    drop(raw);
    watch.leave(id);
    let (_raw, greeting) = accept();
    assert_eq!(greeting[6..8], [0, 0], "a ticket is for the queue, and that is over");
    client.stop().unwrap();
    watch.check_ledger();
}

fn o4_waiters_of_a_server_that_stops_hear_so(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).workers(2).start(recorder).unwrap();
    let (_first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut here = greets(&server, &[]);
    waits(&mut here);
    let mut away = greets(&server, &[]);
    waits(&mut away);
    drop(away);
    eventually("one is away", || server.figures().embryos == 1);
    // The ledger of the watch sees to it that both are told to be gone.
    finish(server, &watch);
    assert!(here.is_cut());
}

fn o4_places_are_given_out_at_the_pace_of_the_settings(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 6).set(|settings| settings.queue_release_rate = 10).start(recorder).unwrap();
    let joined: Vec<_> = (0..6).map(|_| Raw::join_lan(server.local_addr(), &Hello::default())).collect();
    let mut waiters: Vec<Raw> = (0..6).map(|_| greets(&server, &[])).collect();
    for raw in &mut waiters {
        waits(raw);
    }
    let begun = Instant::now();
    drop(joined);
    for raw in &mut waiters {
        is_welcomed(raw);
    }
    assert!(begun.elapsed() >= Duration::from_millis(490), "five intervals: {:?}", begun.elapsed());
    finish(server, &watch);
}

fn o3_a_ban_reaches_those_who_wait(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = full(driver, 1).start(recorder).unwrap();
    let (first, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let mut banned = Raw::connect_from([127, 0, 0, 9], server.local_addr());
    banned.write(&Hello::default().frame());
    waits(&mut banned);
    let mut other = greets(&server, &[]);
    waits(&mut other);
    server.rules().ban("127.0.0.9".parse::<madang::Prefix>().unwrap()).unwrap();
    drop(first);
    is_welcomed(&mut other);
    let (mut kind, mut refusal) = banned.lan_next();
    while kind == kind::QUEUE {
        (kind, refusal) = banned.lan_next();
    }
    assert_eq!((kind, refusal[0]), (kind::REFUSAL, 9));
    banned.half_close();
    assert_eq!(banned.ended(), Ended::Eof(vec![]));
    watch.wait("it is told", |state| *state == WaitState::Gone);
    finish(server, &watch);
}
