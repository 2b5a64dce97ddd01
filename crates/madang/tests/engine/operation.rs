//! Operating a server: settings, where it may stand, starting and stopping, figures.

use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use madang::{
    DriverChoice, LanClient, LanServer, LeaveReason, Server, SessionId, Settings, StartError, WaitStrategy,
};

use crate::support::{Ended, Hello, Raw, Recorder, be32, be32_frame, eventually, finish, kind, lan, pattern};

each_driver! {
    o2_stop_and_start_twenty_times_with_traffic,
    o2_a_stop_ends_everybody_whatever_they_are_doing,
    o2_a_drain_delivers_what_was_queued_and_says_goodbye,
    o2_a_drain_does_not_wait_for_a_peer_that_never_reads,
    o2_stop_from_a_callback_is_refused_and_the_server_runs_on,
    o2_a_server_dropped_in_its_own_callback_stops,
    o8_a_spinning_server_serves,
    o12_the_sums_of_the_figures_hold,
    k05_a_port_in_use_is_an_error_that_names_the_address,
    n2_a_flooded_neighbour_does_not_stop_a_lan_server,
    spread_over_shards_peers_are_even,
}

#[test]
fn o1_a_wrong_setting_is_an_error_that_names_its_key() {
    type Wrong = fn(&mut Settings);
    let cases: [(&str, Wrong); 30] = [
        ("workers", |settings| settings.workers = 0),
        ("workers", |settings| settings.workers = 257),
        ("nice", |settings| settings.nice = -21),
        ("nice", |settings| settings.nice = 20),
        ("max_sessions", |settings| settings.max_sessions = 0),
        ("max_sessions", |settings| settings.max_sessions = 1 << 24),
        ("embryos_max", |settings| settings.embryos_max = 0),
        ("recv_buffers", |settings| settings.recv_buffers = 0),
        ("turn_completions_max", |settings| settings.turn_completions_max = 0),
        ("turn_handshakes_max", |settings| settings.turn_handshakes_max = 0),
        ("handshake_threads", |settings| settings.handshake_threads = 257),
        ("suites", |settings| settings.suites.clear()),
        ("backlog", |settings| settings.backlog = 0),
        ("frame_limit_bytes", |settings| settings.frame_limit_bytes = 0),
        ("frame_limit_bytes", |settings| settings.frame_limit_bytes = 1 << 24),
        ("queue_soft_bytes", |settings| settings.queue_soft_bytes = 0),
        ("queue_hard_bytes", |settings| settings.queue_hard_bytes = settings.queue_soft_bytes - 1),
        ("queue_hard_messages", |settings| settings.queue_hard_messages = 0),
        ("pool_budget_bytes", |settings| settings.pool_budget_bytes = 0),
        ("pool_budget_bytes", |settings| settings.pool_budget_bytes = 3 << 20),
        ("mailbox_messages_max", |settings| settings.mailbox_messages_max = 0),
        ("greeting_timeout_ms", |settings| settings.greeting_timeout_ms = 0),
        ("leave_timeout_ms", |settings| settings.leave_timeout_ms = 0),
        ("heartbeat_ms", |settings| settings.heartbeat_ms = 0),
        ("dead_after_ms", |settings| settings.dead_after_ms = settings.heartbeat_ms),
        ("reconnect_max_ms", |settings| settings.reconnect_max_ms = settings.reconnect_min_ms - 1),
        ("service", |settings| settings.service = "x".repeat(65)),
        ("node", |settings| settings.node = "new\nline".into()),
        ("tick_ms", |settings| settings.tick_ms = 20),
        ("secret", |settings| settings.secret = "a password".into()),
    ];
    for (key, wrong) in cases {
        let error =
            LanServer::bind("127.0.0.1:0").set(wrong).start(Recorder::silent()).map(drop).unwrap_err();
        let StartError::Setting(setting) = &error else { panic!("{key}: {error}") };
        assert_eq!(setting.key, key, "{error}");
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        assert!(!error.to_string().contains("a password"), "a secret is not for a log: {error}");
    }
    for address in ["localhost", "127.0.0.1", "", "300.0.0.1:5"] {
        let error = LanServer::bind(address).start(Recorder::silent()).map(drop).unwrap_err().to_string();
        assert!(error.contains("`bind`") && error.contains(&format!("`{address}`")), "{error}");
        let error =
            LanClient::node("a", "b", 1).link(address).start(Recorder::silent()).map(drop).unwrap_err();
        assert!(error.to_string().contains("`link`"), "{error}");
    }
}

#[test]
fn o1_a_pool_that_is_too_small_hears_the_least_that_does() {
    let mut settings = Settings::for_players();
    (settings.workers, settings.pool_budget_bytes) = (3, 1 << 20);
    let problem = settings.check().unwrap_err().to_string();
    assert!(problem.contains("1048576 is too small") && problem.contains("3 workers"), "{problem}");
    settings.pool_budget_bytes = problem.rsplit(' ').next().unwrap().parse().expect("the least");
    assert_eq!(settings.check(), Ok(()));
    settings.pool_budget_bytes -= 1;
    assert_eq!(settings.check().unwrap_err().key, "pool_budget_bytes");
    // No limit is allowed, and so is the largest server there can be, with what is the default.
    settings.pool_budget_bytes = usize::MAX;
    assert_eq!(settings.check(), Ok(()));
    let mut settings = Settings::default();
    (settings.workers, settings.max_sessions) = (256, 1_000);
    assert_eq!(settings.check(), Ok(()));
}

#[test]
fn o1_settings_come_from_a_file_and_a_wrong_key_is_named() {
    let text = "bind = '10.0.0.1:7700'\nworkers = 3\ncores = [0, 1]\ndriver = 'readiness'\nwait = 'spin'\nnodelay = false\n\
                allowed_peers = ['203.0.113.9', '2001:db8::1']\nservice = 'chat'";
    let path = std::env::temp_dir().join(format!("madang-settings-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let settings = Settings::from_file(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((settings.workers, settings.cores.as_slice(), settings.nodelay), (3, &[0, 1][..], false));
    assert_eq!((settings.driver, settings.wait), (DriverChoice::Readiness, WaitStrategy::Spin));
    assert_eq!((settings.bind.to_string().as_str(), settings.service.as_str()), ("10.0.0.1:7700", "chat"));
    assert_eq!(settings.allowed_peers.len(), 2);
    assert_eq!(
        settings.heartbeat_ms,
        Settings::default().heartbeat_ms,
        "what is not there keeps its default"
    );

    for (text, key) in [
        ("workrs = 2", "workrs"),
        ("workers = 'two'", "workers"),
        ("workers = -1", "workers"),
        ("bind = 'somewhere'", "bind"),
        ("driver = 'rio'", "driver"),
        ("recv_buffers = 70000", "recv_buffers"),
        ("allowed_peers = ['10.0.0.0/8']", "allowed_peers"),
    ] {
        let error = Settings::from_toml(text).unwrap_err();
        assert_eq!(error.key, key, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    assert!(Settings::from_toml("workers = ").unwrap_err().to_string().contains("(file)"));
    let error = Settings::from_file("/there/is/no/such/file.toml").unwrap_err();
    assert!(error.to_string().contains("/there/is/no/such/file.toml"), "{error}");
}

#[test]
fn n3_a_lan_server_stands_on_inner_addresses_only_unless_told_otherwise() {
    for address in ["0.0.0.0:0", "[::]:0", "8.8.8.8:7700", "[2001:db8::1]:7700"] {
        let error = LanServer::bind(address).start(Recorder::silent()).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("`bind`") && error.contains("not protected") && error.contains("allow_public"),
            "{error}"
        );
    }
    let (recorder, watch) = Recorder::new();
    let server =
        LanServer::bind("0.0.0.0:0").set(|settings| settings.allow_public = true).start(recorder).unwrap();
    let address = ([127, 0, 0, 1], server.local_addr().port()).into();
    Raw::join_lan(address, &Hello::default());
    finish(server, &watch);
    // A listed address may be bound too, if it were ours: the next thing that is said is the system's word.
    let listed = LanServer::bind("203.0.113.9:0")
        .set(|settings| settings.allowed_peers = vec!["203.0.113.9".parse().unwrap()]);
    let error = listed.start(Recorder::silent()).map(drop).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
}

fn k05_a_port_in_use_is_an_error_that_names_the_address(driver: DriverChoice) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error =
        be32(driver).set(|settings| settings.bind = address).start(Recorder::silent()).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StartError::Listen { address: named, .. } if named == address), "{text}");
    assert!(text.contains(&address.to_string()), "{text}");
    // Several shards and offload threads were under way; nothing of them stays in the way of a second try.
    let error =
        be32(driver).workers(3).set(|settings| settings.bind = address).start(Recorder::silent()).map(drop);
    assert!(error.is_err());
    drop(taken);
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).workers(3).set(|settings| settings.bind = address).start(recorder).unwrap();
    finish(server, &watch);
}

fn o2_stop_and_start_twenty_times_with_traffic(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = be32(driver).workers(2).set(|settings| settings.bind = address).start(recorder).unwrap();
    let mut ids: Vec<SessionId> = Vec::new();
    for round in 0..20 {
        let mut peers: Vec<Raw> = (0..4).map(|_| Raw::connect(address)).collect();
        ids.extend(peers.iter().map(|_| watch.join()));
        for peer in &mut peers {
            peer.be32(&pattern(round, 3_000));
        }
        for peer in &mut peers {
            assert!(peer.be32_next() == pattern(round, 3_000));
            // Something is always under way when the stop comes.
            peer.write(&be32_frame(&[1; 2_000]).repeat(20));
        }
        let remote = server.remote();
        let stopped = finish(server, &watch);
        for id in &ids {
            assert_eq!(remote.send(*id, remote.packet(b"late")), madang::Answer::Gone);
        }
        let packet = remote.packet(b"late").freeze();
        assert_eq!(remote.send_all(&packet), madang::Answer::Gone);
        assert_eq!(remote.send_group(madang::GroupId(1), &packet), madang::Answer::Gone);
        server = stopped.start_again().unwrap();
        assert_eq!(server.local_addr(), address);
    }
    let number = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), number, "no id comes twice");
    assert!(server.stop().unwrap().report().is_clean());
}

fn o2_a_stop_ends_everybody_whatever_they_are_doing(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| match message.bytes() {
        b"much" => {
            for _ in 0..200 {
                let packet = cx.packet(&[1; 50_000]);
                cx.send(id, packet).ignore();
            }
        }
        b"job" => cx.offload(id, || thread::park_timeout(Duration::from_millis(200)), |_, _, ()| ()).ignore(),
        _ => {
            let packet = cx.packet(b"bye");
            cx.send_and_disconnect(id, packet, 1).ignore();
        }
    });
    let server =
        lan(driver).workers(2).set(|settings| settings.leave_timeout_ms = 5_000).start(recorder).unwrap();
    let address = server.local_addr();
    let hello = Hello::default();
    // One never greeted, one greeted half, one does not read, one waits for a job, one lingers in a graceful leave.
    let _silent = Raw::connect(address);
    let mut half = Raw::connect(address);
    half.write(&hello.frame()[..9]);
    let peers: Vec<Raw> = ["much", "job", "leave"]
        .map(|word| {
            let (mut peer, _) = Raw::join_lan(address, &hello);
            let id = watch.join();
            peer.lan(kind::MESSAGE, word.as_bytes());
            watch.recv(id);
            peer
        })
        .into();
    let begun = Instant::now();
    finish(server, &watch);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for mut peer in peers {
        assert!(peer.is_cut());
    }
}

fn o2_a_drain_delivers_what_was_queued_and_says_goodbye(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server =
        lan(driver).workers(2).set(|settings| settings.leave_timeout_ms = 10_000).start(recorder).unwrap();
    let mut peers: Vec<(Raw, u64)> =
        (0..4).map(|_| Raw::join_lan(server.local_addr(), &Hello::default())).collect();
    let remote = server.remote();
    for _ in 0..4 {
        let id = watch.join();
        for number in 0..40 {
            assert!(remote.send(id, remote.packet(&pattern(number, 50_000))).is_queued());
        }
    }
    thread::scope(|scope| {
        for (peer, _) in &mut peers {
            scope.spawn(move || {
                for number in 0..40 {
                    assert!(peer.expect_message() == pattern(number, 50_000));
                }
                let (goodbye, payload) = peer.lan_next();
                assert_eq!((goodbye, payload[0]), (kind::GOODBYE, 0x44), "stopping");
                assert_eq!(peer.ended(), Ended::Eof(vec![]));
                peer.half_close();
            });
        }
        let stopped = server.drain().unwrap();
        assert!(stopped.report().is_clean(), "{:?}", stopped.report());
    });
    watch.check_ledger();
    let left = watch.rest();
    let unsent = left.iter().filter_map(|seen| match seen {
        crate::support::Seen::Leave(_, leave) => Some((leave.reason, leave.messages_unsent)),
        _ => None,
    });
    assert_eq!(unsent.collect::<Vec<_>>(), [(LeaveReason::Stopping, 0); 4]);
}

fn o2_a_drain_does_not_wait_for_a_peer_that_never_reads(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        settings.queue_hard_bytes = 64 << 20;
        settings.leave_timeout_ms = 300;
    });
    let server = server.start(recorder).unwrap();
    let _deaf = Raw::connect(server.local_addr());
    let id = watch.join();
    let remote = server.remote();
    for _ in 0..1_000 {
        assert!(remote.send(id, remote.packet(&[1; 16_000])).is_queued());
    }
    let begun = Instant::now();
    let stopped = server.drain().unwrap();
    assert!(stopped.report().is_clean(), "{:?}", stopped.report());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let leave = watch.leave(id);
    assert!(leave.messages_unsent > 0 && leave.reason == LeaveReason::Stopping, "{leave:?}");
}

fn o2_stop_from_a_callback_is_refused_and_the_server_runs_on(driver: DriverChoice) {
    let place: Arc<Mutex<Option<Server>>> = Arc::default();
    let (tell, told) = channel();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv({
        let place = Arc::clone(&place);
        move |cx, id, message| {
            let server = place.lock().unwrap().take().unwrap();
            let (server, error) = if message.bytes() == b"stop" {
                server.stop().expect_err("it waits for this very thread")
            } else {
                server.drain().expect_err("it waits for this very thread")
            };
            *place.lock().unwrap() = Some(*server);
            tell.send(error.to_string()).unwrap();
            crate::support::echo(cx, id, message);
        }
    });
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let address = server.local_addr();
    *place.lock().unwrap() = Some(server);
    let mut peer = Raw::connect(address);
    for word in [&b"stop"[..], b"drain", b"stop"] {
        peer.be32(word);
        assert_eq!(peer.be32_next(), word, "it runs on");
        assert!(told.recv().unwrap().contains("callback"));
    }
    let server = place.lock().unwrap().take().unwrap();
    finish(server, &watch);
}

fn o2_a_server_dropped_in_its_own_callback_stops(driver: DriverChoice) {
    let place: Arc<Mutex<Option<Server>>> = Arc::default();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv({
        let place = Arc::clone(&place);
        move |_, _, _| drop(place.lock().unwrap().take())
    });
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let address = server.local_addr();
    *place.lock().unwrap() = Some(server);
    let mut peer = Raw::connect(address);
    let id = watch.join();
    peer.be32(b"go away");
    assert_eq!(watch.leave(id).reason, LeaveReason::Stopping);
    assert!(peer.is_cut());
    eventually("nobody listens", || Raw::try_connect(address).is_err());
}

fn o8_a_spinning_server_serves(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| settings.wait = WaitStrategy::Spin).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    for round in 0..20u8 {
        peer.be32(&[round]);
        assert_eq!(peer.be32_next(), [round]);
    }
    let (turns, remote) = (server.figures().turns, server.remote());
    thread::park_timeout(Duration::from_millis(200));
    assert!(server.figures().turns > turns + 100, "it asks again and again");
    assert!(remote.send(id, remote.packet(b"from another thread")).is_queued());
    assert_eq!(peer.be32_next(), b"from another thread");
    finish(server, &watch);
    // One that blocks does not.
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).start(recorder).unwrap();
    thread::park_timeout(Duration::from_millis(30));
    assert!(server.figures().turns < 50);
    finish(server, &watch);
}

fn o12_the_sums_of_the_figures_hold(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let recorder = recorder.on_request(|peer| {
        let banned = peer.remote.ip() == std::net::IpAddr::from([127, 0, 0, 9]);
        if banned { madang::Admission::Refuse } else { madang::Admission::Accept }
    });
    let server = lan(driver).workers(2).set(|settings| settings.app_version_min = 1).start(recorder).unwrap();
    let address = server.local_addr();
    let old = Hello { app_version: 0, ..Hello::default() };
    let mut bytes = (0, 0);
    for round in 0..10u64 {
        Raw::connect_from([127, 0, 0, 9], address);
        Raw::connect(address).write(&old.frame());
        Raw::connect(address).write(b"GET /");
        bytes.0 += old.frame().len() as u64 + 5;
        let (mut peer, _) = Raw::join_lan(address, &Hello::default());
        let id = watch.join();
        for len in [1, 5_000] {
            peer.lan(kind::MESSAGE, &pattern(round, len));
            assert!(peer.expect_message() == pattern(round, len));
        }
        bytes = (bytes.0 + Hello::default().frame().len() as u64 + 5_009, bytes.1 + 5_009);
        if round % 2 == 0 {
            peer.half_close();
            watch.leave(id);
        } else {
            std::mem::forget(peer);
        }
    }
    eventually("all is over", || {
        let figures = server.figures();
        // A peer on its way from the gate to its shard is in no shard's figures yet: the sum says when nobody is.
        let settled = figures.accepted == figures.refused + figures.failed + figures.joins;
        let quiet = figures.embryos == 0 && figures.sessions_leaving == 0 && settled;
        figures.sessions == 5 && quiet && figures.messages_out == 20
    });
    let figures = server.figures();
    assert_eq!(
        (figures.accepted, figures.refused, figures.failed, figures.joins),
        (40, 10, 20, 10),
        "{figures:?}"
    );
    assert_eq!(figures.joins, figures.left() + figures.sessions);
    assert_eq!(figures.leaves[usize::from(LeaveReason::PeerClosed.code())], 5);
    assert_eq!((figures.messages_in, figures.messages_out, figures.queued_bytes), (20, 20, 0));
    assert_eq!(figures.bytes_in, bytes.0, "{figures:?}");
    // Greetings, welcomes and refusals are the engine's own words, on top of the messages.
    assert!(figures.bytes_out > bytes.1 && figures.bytes_out < bytes.1 + 20 * 200, "{figures:?}");
    assert!(figures.busy > Duration::ZERO && figures.longest_turn > Duration::ZERO && figures.turns > 0);
    assert_eq!(server.remote().figures().joins, figures.joins);
    finish(server, &watch);
}

fn spread_over_shards_peers_are_even(driver: DriverChoice) {
    let shards: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_join({
        let shards = Arc::clone(&shards);
        move |cx, _| shards.lock().unwrap().push(cx.shard())
    });
    let server = be32(driver).workers(3).start(recorder).unwrap();
    let _peers: Vec<Raw> = (0..12).map(|_| Raw::connect(server.local_addr())).collect();
    for _ in 0..12 {
        watch.join();
    }
    eventually("each has said where it is", || shards.lock().unwrap().len() == 12);
    let mut shards = shards.lock().unwrap().clone();
    shards.sort_unstable();
    assert_eq!(shards, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    finish(server, &watch);
}

fn n2_a_flooded_neighbour_does_not_stop_a_lan_server(driver: DriverChoice) {
    let (recorder, loud_watch) = Recorder::echo();
    let loud = lan(driver).start(recorder).unwrap();
    let (recorder, watch) = Recorder::echo();
    let quiet = lan(driver).start(recorder).unwrap();
    let loud_address = loud.local_addr();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            let over = Arc::clone(&over);
            scope.spawn(move || {
                let (mut peer, _) = Raw::join_lan(loud_address, &Hello::default());
                let mut reader = peer.stream.try_clone().unwrap();
                thread::spawn(move || {
                    while std::io::Read::read(&mut reader, &mut [0; 65_536]).is_ok_and(|n| n > 0) {}
                });
                let shout = crate::support::lan_frame(kind::MESSAGE, &[1; 100]).repeat(200);
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    peer.flood(&shout, shout.len());
                }
                peer.reset();
            });
        }
        eventually("it is loud next door", || loud.figures().messages_in > 10_000);
        let (mut peer, _) = Raw::join_lan(quiet.local_addr(), &Hello::default());
        let mut times: Vec<Duration> = (0..100u8)
            .map(|round| {
                let asked = Instant::now();
                peer.lan(kind::MESSAGE, &[round]);
                assert_eq!(peer.expect_message(), [round]);
                asked.elapsed()
            })
            .collect();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        times.sort_unstable();
        // The measurement is a benchmark's; here it is only that nobody waits for the neighbour's queue.
        assert!(times[50] < Duration::from_millis(100), "median {:?}", times[50]);
    });
    finish(quiet, &watch);
    finish(loud, &loud_watch);
}
