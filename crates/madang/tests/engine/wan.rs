//! Encrypted sessions between engines: players and their server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use madang::keys::{self, PublicKey, ServerKeys};
use madang::wire::Find;
use madang::wire::lan::RefusalReason;
use madang::wire::wan::{ANSWER_MAX, Answer, GateError, Hello};
use madang::{
    Account, Admission, CipherSuite, Client, ClientBuilder, Credentials, DriverChoice, ErrorKind, LinkDown,
    LogIn, Refusal, Server, ServerBuilder, Verdict, WaitState, WanClient,
};

use crate::support::{
    Raw, Recorder, Relay, Sealed, Watch, eventually, finish, pattern, preamble, wan, wan_with,
};

each_driver! {
    an_echo_travels_encrypted_under_either_cipher,
    s5_the_server_speaks_first_inside_on_join,
    long_messages_travel_in_many_records_both_ways,
    all_messages_of_a_turn_leave_under_one_seal,
    p3_a_message_that_content_keeps_is_not_sealed_under_its_hand,
    a_message_that_is_alone_has_a_bare_record,
    a_broadcast_reaches_every_encrypted_session,
    a_large_broadcast_makes_few_of_its_chunks_at_a_time,
    a_log_in_is_checked_and_content_learns_who_it_is,
    a_log_in_is_checked_on_an_offload_thread_with_its_state,
    a_check_that_panics_refuses,
    a_token_is_bound_to_its_connection,
    an_old_client_is_told_to_update,
    handshakes_are_worked_out_beside_the_shards,
    a_stop_leaves_nothing_of_handshakes_that_threads_have,
    h01_who_is_refused_reads_why_in_words_that_it_can_trust,
    f11_a_cipher_that_is_not_admitted_is_refused_in_words,
    f16_a_client_that_pins_the_old_key_gets_in_while_it_is_live,
    f16_a_client_that_pins_two_keys_finds_the_one_that_is_live,
    a_wrong_key_gets_no_answer_and_both_sides_say_why,
    a_server_that_is_full_says_so,
    o4_players_wait_by_the_class_of_their_account_and_hear_where_they_stand,
    s14_a_player_whose_link_drops_has_its_turn_back,
}

pub(crate) fn client(driver: DriverChoice, server: &Server, key: PublicKey) -> ClientBuilder {
    WanClient::pinning(key, 1).link(&server.local_addr().to_string()).set(|settings| {
        settings.driver = driver;
        settings.reconnect_min_ms = 20;
        settings.reconnect_max_ms = 40;
    })
}

/// Starts a client whose one link comes up.
#[track_caller]
pub(crate) fn joined(client: ClientBuilder) -> (Client, Watch, madang::SessionId) {
    let (recorder, watch) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let id = watch.join();
    (client, watch, id)
}

/// Starts a client whose link stays down, and says why.
#[track_caller]
pub(crate) fn down(client: ClientBuilder) -> (Client, LinkDown) {
    let (recorder, watch) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let told = watch.error("a link that is down", |kind| matches!(kind, ErrorKind::LinkDown { .. }));
    let ErrorKind::LinkDown { reason, .. } = told.kind else { unreachable!() };
    (client, reason)
}

fn an_echo_travels_encrypted_under_either_cipher(driver: DriverChoice) {
    for suite in [CipherSuite::AesGcm, CipherSuite::ChaChaPoly] {
        let (server, key) = wan(driver);
        let (recorder, watch) = Recorder::echo();
        let server = server.start(recorder).unwrap();
        let client = client(driver, &server, key).set(|settings| settings.suites = vec![suite]);
        let (client, seen, id) = joined(client);
        let (_, peer) = watch.join_of_peer();
        assert_eq!(peer.node.expect("the hello said so").app_version, 1);
        let remote = client.remote();
        for len in [1, 32, 300, 5_000, 16 << 10] {
            let message = pattern(len as u64, len);
            assert!(remote.send(id, remote.packet(&message)).is_queued());
            assert!(seen.recv(id) == message, "of {len} bytes");
        }
        client.drain().unwrap();
        finish(server, &watch);
    }
}

fn s5_the_server_speaks_first_inside_on_join(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join(|cx, id| {
        let hello = cx.packet(b"welcome, player");
        cx.send(id, hello).ignore();
    });
    let server = server.start(recorder).unwrap();
    let (client, seen, id) = joined(client(driver, &server, key));
    assert_eq!(seen.recv(id), b"welcome, player");
    client.drain().unwrap();
    finish(server, &watch);
}

fn long_messages_travel_in_many_records_both_ways(driver: DriverChoice) {
    let longest = 1 << 20;
    let wide = move |settings: &mut madang::Settings| {
        settings.frame_limit_bytes = longest;
        settings.queue_soft_bytes = 32 << 20;
        settings.queue_hard_bytes = 64 << 20;
    };
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.set(wide).start(recorder).unwrap();
    let (client, seen, id) = joined(client(driver, &server, key).set(wide));
    let remote = client.remote();
    // Around what a record holds, and with small ones between that may not get in between the parts.
    let lens = [16_384, 16_385, 16_388, 32_772, 32_773, 100_000, 600_000, 1 << 20];
    for len in lens {
        assert!(remote.send(id, remote.packet(&pattern(len as u64, len))).is_queued());
        assert!(remote.send(id, remote.packet(b"small")).is_queued());
    }
    for len in lens {
        assert!(seen.recv(id) == pattern(len as u64, len), "of {len} bytes");
        assert_eq!(seen.recv(id), b"small");
    }
    client.drain().unwrap();
    finish(server, &watch);
}

fn all_messages_of_a_turn_leave_under_one_seal(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| {
        let count = u64::from_le_bytes(message.bytes().try_into().expect("the client sends a count"));
        for number in 0..count {
            let packet = cx.packet(&number.to_le_bytes());
            cx.send(id, packet).ignore();
        }
    });
    let server = server.start(recorder).unwrap();
    let (client, seen, id) = joined(client(driver, &server, key));
    let remote = client.remote();
    let mut total = 0;
    // The first one alone, behind which the records of the welcome are counted as well.
    let mut records = 0;
    for (turn, count) in [1u64, 2, 16, 1_000].into_iter().enumerate() {
        remote.send(id, remote.packet(&count.to_le_bytes())).ignore();
        for number in 0..count {
            assert_eq!(seen.recv(id), number.to_le_bytes());
        }
        total += count;
        eventually("all are counted", || server.figures().messages_out == total);
        let now = server.figures().records_out;
        assert!(turn == 0 || now == records + 1, "{count} messages under {} seals", now - records);
        records = now;
    }
    client.drain().unwrap();
    finish(server, &watch);
}

fn p3_a_message_that_content_keeps_is_not_sealed_under_its_hand(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let server = server.start(recorder).unwrap();
    let (client, seen, peer) = joined(client(driver, &server, key));
    let id = watch.join();
    let remote = server.remote();
    for len in [1, 64, 300, 5_000, 16 << 10] {
        let message = pattern(len as u64, len);
        let kept = remote.packet(&message).freeze();
        assert!(remote.send(id, kept.clone()).is_queued());
        assert!(seen.recv(peer) == message);
        assert!(kept[..] == message, "of {len} bytes");
        // And the same packet once nobody keeps it.
        assert!(remote.send(id, kept).is_queued());
        assert!(seen.recv(peer) == message, "of {len} bytes");
    }
    client.drain().unwrap();
    finish(server, &watch);
}

/// Its header would say what the record says. Whoever else holds the packet, and on the way in as well.
fn a_message_that_is_alone_has_a_bare_record(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let server = server.start(recorder).unwrap();
    let mut peer = Sealed::join(server.local_addr(), &key);
    let id = watch.join();
    let remote = server.remote();
    for len in [1, 20, 256, 5_000, 16 << 10] {
        let (free, kept) =
            (remote.packet(&pattern(len as u64, len)), remote.packet(&pattern(7, len)).freeze());
        for packet in [free.freeze(), kept.clone()] {
            let message = packet.to_vec();
            assert!(remote.send(id, packet).is_queued());
            assert_eq!(peer.head(), (len + 16, true));
            assert!(peer.expect_message() == message);
        }
        let said = peer.bare(&kept);
        peer.raw.write(&said);
        assert!(watch.recv(id) == kept[..]);
    }
    drop(peer);
    watch.leave(id);
    finish(server, &watch);
}

fn a_broadcast_reaches_every_encrypted_session(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let server = server.workers(2).start(recorder).unwrap();
    let address = server.local_addr().to_string();
    let client = (1..20).fold(client(driver, &server, key), |client, _| client.link(&address));
    let (recorder, seen) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let ids: Vec<_> = (0..20).map(|_| seen.join()).collect();
    for _ in 0..20 {
        watch.join();
    }
    let news = pattern(7, 1_200);
    let remote = server.remote();
    assert!(remote.send_all(&remote.packet(&news).freeze()).is_queued());
    for id in ids {
        assert!(seen.recv(id) == news);
    }
    client.drain().unwrap();
    finish(server, &watch);
}

/// Each session's copy is its own, 128 times 15,000 B: all at a time they would leave the cache before the kernel has them.
fn a_large_broadcast_makes_few_of_its_chunks_at_a_time(driver: DriverChoice) {
    const SESSIONS: usize = 128;
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::new();
    let server = server.start(recorder).unwrap();
    let address = server.local_addr().to_string();
    let client = (1..SESSIONS).fold(client(driver, &server, key), |client, _| client.link(&address));
    let (recorder, seen) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let ids: Vec<_> = (0..SESSIONS).map(|_| seen.join()).collect();
    for _ in 0..SESSIONS {
        watch.join();
    }
    let news = pattern(9, 15_000);
    let remote = server.remote();
    assert!(remote.send_all(&remote.packet(&news).freeze()).is_queued());
    for id in ids {
        assert!(seen.recv(id) == news);
    }
    let chunks =
        server.figures().pool.classes.into_iter().find(|class| class.content_bytes == 16 << 10).unwrap();
    // A port may keep a packet until its send is told.
    let most = if driver == DriverChoice::Iocp { SESSIONS + 8 } else { SESSIONS / 2 };
    assert!(chunks.high_water <= most, "{} chunks at a time", chunks.high_water);
    client.drain().unwrap();
    finish(server, &watch);
}

fn a_log_in_is_checked_and_content_learns_who_it_is(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let server = server.log_in(|log_in: &LogIn<'_>| match log_in.token {
        b"alice" => Verdict::Admit(Account::new(7).class(2).with("Alice".to_owned())),
        b"mallory" => Verdict::Refuse(RefusalReason::Banned.into()),
        _ => Verdict::Refuse(RefusalReason::LogIn.into()),
    });
    let (recorder, watch) = Recorder::echo();
    let server = server.start(recorder).unwrap();
    let (alice, ..) = joined(client(driver, &server, key).token(b"alice"));
    let (_, peer) = watch.join_of_peer();
    let account = peer.account.expect("the check said who it is");
    assert_eq!((account.id, account.class), (7, 2));
    assert_eq!(account.value::<String>().map(String::as_str), Some("Alice"));
    for (token, reason) in [(&b"mallory"[..], RefusalReason::Banned), (b"", RefusalReason::LogIn)] {
        let (client, why) = down(client(driver, &server, key).token(token));
        assert_eq!(why, LinkDown::Refused(reason.into()));
        client.stop().unwrap();
    }
    alice.drain().unwrap();
    finish(server, &watch);
}

fn a_log_in_is_checked_on_an_offload_thread_with_its_state(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let server = server.offload_state(|_| vec![b"alice".to_vec()]).log_in_offloaded(
        move |players: &mut Vec<Vec<u8>>, log_in: &LogIn<'_>| {
            counting.fetch_add(1, Ordering::Relaxed);
            match players.iter().position(|player| player == log_in.token) {
                Some(number) => Verdict::Admit(Account::new(number as u64)),
                None => Verdict::Refuse(RefusalReason::LogIn.into()),
            }
        },
    );
    let (recorder, watch) = Recorder::echo();
    let server = server.start(recorder).unwrap();
    let (alice, seen, id) = joined(client(driver, &server, key).token(b"alice"));
    assert_eq!(watch.join_of_peer().1.account.expect("it was checked").id, 0);
    let remote = alice.remote();
    remote.send(id, remote.packet(b"hello")).ignore();
    assert_eq!(seen.recv(id), b"hello");
    let (bob, why) = down(client(driver, &server, key).token(b"bob"));
    assert_eq!(why, LinkDown::Refused(RefusalReason::LogIn.into()));
    assert!(asked.load(Ordering::Relaxed) >= 2);
    bob.stop().unwrap();
    alice.drain().unwrap();
    finish(server, &watch);
}

fn a_check_that_panics_refuses(driver: DriverChoice) {
    crate::support::hush_panics_on_purpose();
    for offloaded in [false, true] {
        let (server, key) = wan(driver);
        let server = match offloaded {
            true => server.log_in_offloaded(|_: &mut (), _| panic!("{}", crate::support::ON_PURPOSE)),
            false => server.log_in(|_| panic!("{}", crate::support::ON_PURPOSE)),
        };
        let (recorder, watch) = Recorder::echo();
        let server = server.start(recorder).unwrap();
        let (client, why) = down(client(driver, &server, key));
        assert_eq!(why, LinkDown::Refused(RefusalReason::Busy.into()));
        watch.error("the panic", |kind| matches!(kind, ErrorKind::Panic(words) if words == "on purpose"));
        client.stop().unwrap();
        finish(server, &watch);
    }
}

fn a_token_is_bound_to_its_connection(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let server = server.log_in(|log_in| match log_in.is_proven(b"the secret of this token") {
        true => Verdict::Admit(Account::new(1)),
        false => Verdict::Refuse(RefusalReason::LogIn.into()),
    });
    let (recorder, watch) = Recorder::echo();
    let server = server.start(recorder).unwrap();
    // Who knows the secret makes a proof for this very connection; who has only seen one made elsewhere has nothing.
    let stolen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let overheard = Arc::clone(&stolen);
    let (honest, ..) = joined(client(driver, &server, key).log_in(move |_, hash| {
        let proof = madang::wire::wan::log_in_proof(b"the secret of this token", hash);
        *overheard.lock().unwrap() = proof.to_vec();
        Credentials::token(b"token").with_proof(proof)
    }));
    let proof = stolen.lock().unwrap().clone();
    let thieves = [Credentials::token(b"token"), Credentials::token(b"token").with_proof(proof)];
    for thief in thieves {
        let (client, why) = down(client(driver, &server, key).log_in(move |_, _| thief.clone()));
        assert_eq!(why, LinkDown::Refused(RefusalReason::LogIn.into()));
        client.stop().unwrap();
    }
    let proving = |_, hash: &_| Credentials::token(b"token").prove(b"the secret of this token", hash);
    let (another, ..) = joined(client(driver, &server, key).log_in(proving));
    honest.drain().unwrap();
    another.drain().unwrap();
    finish(server, &watch);
}

fn an_old_client_is_told_to_update(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.set(|settings| settings.app_version_min = 3).start(recorder).unwrap();
    for (version, answer) in [(2, Some(RefusalReason::AppVersion)), (3, None)] {
        let client = client(driver, &server, key).set(|settings| settings.app_version = version);
        match answer {
            Some(reason) => {
                let (client, why) = down(client);
                assert_eq!(why, LinkDown::Refused(reason.into()));
                client.stop().unwrap();
            }
            None => drop(joined(client).0.drain().unwrap()),
        }
    }
    finish(server, &watch);
}

/// As with handshakes on the shards: who suits gets in, who does not reads why, who has more to say before he was answered
/// gets no byte, and the others' sessions talk on.
fn handshakes_are_worked_out_beside_the_shards(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.workers(2).set(|settings| {
        settings.handshake_threads = 2;
        settings.app_version_min = 1;
        settings.embryos_max = 4_096;
    });
    let server = server.start(recorder).unwrap();
    let mut first = Sealed::join(server.local_addr(), &key);
    let knocks: Vec<_> = (0..100)
        .map(|number| {
            let mut raw = Raw::connect(server.local_addr());
            let hello = Hello { app_version: u32::from(number % 2 == 0), ..Hello::default() };
            let (mut bytes, expect) = preamble(&key, &hello);
            if number % 4 == 0 {
                bytes.push(7);
            }
            raw.write(&bytes);
            (number, raw, expect)
        })
        .collect();
    let message = first.message(b"still here");
    first.raw.write(&message);
    assert_eq!(first.expect_message(), b"still here");
    for (number, mut raw, expect) in knocks {
        if number % 4 == 0 {
            assert!(raw.is_empty_end(), "{number} said more than a preamble");
            continue;
        }
        let mut answer = raw.read(2);
        let Ok(Find::Need { total }) = expect.find(&answer) else { panic!("an answer has a length") };
        answer.extend(raw.read(total - 2));
        match (expect.read(&answer, &mut [0; ANSWER_MAX]).expect("the server has the key"), number % 2) {
            (Answer::Accepted(..), 0) => {}
            (Answer::Refused(refusal), 1) => assert_eq!(refusal.reason, RefusalReason::AppVersion),
            _ => panic!("{number} had the other's answer"),
        }
    }
    assert!(server.figures().handshakes >= 76, "{:?}", server.figures());
    drop(first);
    finish(server, &watch);
}

fn a_stop_leaves_nothing_of_handshakes_that_threads_have(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.set(|settings| settings.handshake_threads = 1).start(recorder).unwrap();
    let (bytes, _) = preamble(&key, &Hello::default());
    let mut peers: Vec<Raw> = (0..100).map(|_| Raw::connect(server.local_addr())).collect();
    peers.iter_mut().for_each(|peer| peer.write(&bytes));
    eventually("handshakes are under way", || server.figures().handshakes > 0);
    finish(server, &watch);
}

fn h01_who_is_refused_reads_why_in_words_that_it_can_trust(driver: DriverChoice) {
    let closed = Refusal::new(RefusalReason::Draining, "점검 중, back at 9");
    // At the door, in the answer to the hello; and by the check of the log-in.
    for at_the_door in [true, false] {
        let words = closed.clone();
        let (recorder, watch) = Recorder::new();
        let (server, key) = wan(driver);
        let server = match at_the_door {
            true => server.start(recorder.on_request(move |_| Admission::RefuseWith(words.clone()))),
            false => server.log_in(move |_| Verdict::Refuse(words.clone())).start(recorder),
        };
        let server = server.unwrap();
        let (client, why) = down(client(driver, &server, key));
        assert_eq!(why, LinkDown::Refused(closed.clone()));
        assert_eq!(why.to_string(), "refused by the server: Draining: 점검 중, back at 9");
        watch.error("it is told here, too", |kind| *kind == ErrorKind::Refused(closed.clone()));
        client.stop().unwrap();
        assert_eq!(server.figures().joins, 0);
        finish(server, &watch);
    }
}

fn f11_a_cipher_that_is_not_admitted_is_refused_in_words(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.set(|settings| settings.suites = vec![CipherSuite::AesGcm]).start(recorder).unwrap();
    let chacha = |settings: &mut madang::Settings| settings.suites = vec![CipherSuite::ChaChaPoly];
    let (client, why) = down(client(driver, &server, key).set(chacha));
    assert_eq!(why, LinkDown::Refused(RefusalReason::Suite.into()));
    client.stop().unwrap();
    finish(server, &watch);
}

fn f16_a_client_that_pins_the_old_key_gets_in_while_it_is_live(driver: DriverChoice) {
    let (new, old) = (keys::generate(), keys::generate());
    let (new_public, old_public) = (new.public(), old.public());
    let (recorder, watch) = Recorder::echo();
    let server = wan_with(driver, ServerKeys::new([new, old]).unwrap()).start(recorder).unwrap();
    for key in [new_public, old_public] {
        joined(client(driver, &server, key)).0.drain().unwrap();
    }
    finish(server, &watch);
}

fn f16_a_client_that_pins_two_keys_finds_the_one_that_is_live(driver: DriverChoice) {
    let (server, live) = wan(driver);
    let gone = keys::generate().public();
    let (recorder, watch) = Recorder::echo();
    let server = server.start(recorder).unwrap();
    joined(client(driver, &server, gone).pin(live)).0.drain().unwrap();
    watch.error("the old key", |kind| *kind == ErrorKind::Stranger(GateError::Key { id: gone.id() }));
    finish(server, &watch);
}

fn a_wrong_key_gets_no_answer_and_both_sides_say_why(driver: DriverChoice) {
    let (server, _) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.start(recorder).unwrap();
    let wrong = keys::generate().public();
    let (client, why) = down(client(driver, &server, wrong));
    assert_eq!(why, LinkDown::NoAnswer);
    watch.error("the wrong key", |kind| *kind == ErrorKind::Stranger(GateError::Key { id: wrong.id() }));
    assert_eq!(server.figures().handshakes, 0, "no Diffie-Hellman for a stranger");
    client.stop().unwrap();
    finish(server, &watch);
}

fn a_server_that_is_full_says_so(driver: DriverChoice) {
    let (server, key) = wan(driver);
    let (recorder, watch) = Recorder::echo();
    let server = server.max_sessions(1).start(recorder).unwrap();
    let (first, ..) = joined(client(driver, &server, key));
    let (second, why) = down(client(driver, &server, key));
    assert_eq!(why, LinkDown::Refused(RefusalReason::Full.into()));
    second.stop().unwrap();
    first.drain().unwrap();
    finish(server, &watch);
}

/// A server of one place, with a queue; a token is the class of its account.
fn server_with_a_queue(driver: DriverChoice) -> (ServerBuilder, PublicKey) {
    let (server, key) = wan(driver);
    let server = server.max_sessions(1).workers(2).set(|settings| {
        settings.queue_max = 10;
        settings.queue_update_ms = 20;
        settings.heartbeat_ms = 300;
        settings.dead_after_ms = 1_200;
    });
    let check = |log_in: &LogIn<'_>| {
        let class = log_in.token.first().copied().unwrap_or(0);
        Verdict::Admit(Account::new(class.into()).class(class))
    };
    (server.log_in(check), key)
}

/// A client that has to wait; where it stands at first.
#[track_caller]
fn waiting(client: ClientBuilder) -> (Client, Watch, u32) {
    let (recorder, watch) = Recorder::new();
    let client = client.start(recorder).unwrap();
    let (waiter, state) = watch.wait("an entry", |state| matches!(state, WaitState::Entered(_)));
    assert_eq!(waiter.link, client.link(0));
    let WaitState::Entered(standing) = state else { unreachable!() };
    (client, watch, standing.position)
}

fn o4_players_wait_by_the_class_of_their_account_and_hear_where_they_stand(driver: DriverChoice) {
    let (server, key) = server_with_a_queue(driver);
    let (recorder, watch) = Recorder::new();
    let server = server.start(recorder).unwrap();
    let player = |class: u8| client(driver, &server, key).log_in(move |_, _| Credentials::token(vec![class]));
    let (first, ..) = joined(player(0));
    let (low, low_seen, at) = waiting(player(1));
    assert_eq!(at, 1);
    let (high, high_seen, at) = waiting(player(7));
    assert_eq!(at, 1, "it waits ahead");
    low_seen
        .wait("it is told", |state| matches!(state, WaitState::Moved(standing) if standing.position == 2));
    let (waiter, _) = watch
        .wait("the high one", |state| matches!(state, WaitState::Entered(standing) if standing.length == 2));
    assert_eq!((waiter.priority, waiter.peer.account.unwrap().id), (7, 7));
    // Nobody who waits is taken for dead: pings go both ways.
    std::thread::park_timeout(std::time::Duration::from_millis(2_000));
    assert_eq!(server.figures().waiting, 2);
    first.stop().unwrap();
    high_seen.wait("an admission", |state| *state == WaitState::Admitted);
    high_seen.join();
    low_seen
        .wait("it is next", |state| matches!(state, WaitState::Moved(standing) if standing.position == 1));
    high.stop().unwrap();
    low_seen.join();
    low.stop().unwrap();
    for seen in [low_seen, high_seen] {
        seen.check_ledger();
    }
    finish(server, &watch);
}

fn s14_a_player_whose_link_drops_has_its_turn_back(driver: DriverChoice) {
    let (server, key) = server_with_a_queue(driver);
    let (recorder, watch) = Recorder::new();
    let server = server.start(recorder).unwrap();
    let (first, ..) = joined(client(driver, &server, key));
    let relay = Relay::start(server.local_addr());
    let behind = WanClient::pinning(key, 1).link(&relay.address().to_string()).set(move |settings| {
        settings.driver = driver;
        settings.reconnect_min_ms = 20;
        settings.reconnect_max_ms = 40;
    });
    let (dropped, seen, at) = waiting(behind);
    assert_eq!(at, 1);
    let (second, second_seen, at) = waiting(client(driver, &server, key));
    assert_eq!(at, 2);
    relay.cut();
    seen.wait("its link is gone", |state| *state == WaitState::Gone);
    let (_, state) = seen.wait("it waits again", |state| matches!(state, WaitState::Entered(_)));
    assert!(matches!(state, WaitState::Entered(standing) if standing.position == 1), "{state:?}");
    eventually("it is counted", || server.figures().queue_returned == 1);
    first.stop().unwrap();
    seen.join();
    drop(relay);
    second_seen.join();
    dropped.stop().unwrap();
    second.stop().unwrap();
    finish(server, &watch);
}
