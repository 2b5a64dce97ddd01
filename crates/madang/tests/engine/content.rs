//! Work away from the shards: what waits for it, what does not, and what becomes of it.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use madang::{Answer, DriverChoice, ErrorKind, LeaveReason};

use crate::support::{
    ON_PURPOSE, PATIENCE, Raw, Recorder, be32, be32_frame, eventually, finish, hush_panics_on_purpose,
};

each_driver! {
    b3_later_messages_wait_for_the_answer_and_other_sessions_do_not,
    b3_the_unordered_form_holds_nothing,
    b3_a_job_that_panics_ends_its_session,
    b3_a_leave_does_not_wait_and_the_late_answer_is_dropped_and_counted,
    b3_the_queue_is_bounded,
    b3_each_thread_owns_its_state,
    b3_a_long_job_is_not_the_peers_silence,
}

/// Jobs wait here until the test lets them go, one by one.
struct Turnstile {
    go: Sender<()>,
    wait: Arc<Mutex<Receiver<()>>>,
}

impl Turnstile {
    fn new() -> Turnstile {
        let (go, wait) = channel();
        Turnstile { go, wait: Arc::new(Mutex::new(wait)) }
    }
}

fn pass(wait: &Mutex<Receiver<()>>) {
    let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
}

fn b3_later_messages_wait_for_the_answer_and_other_sessions_do_not(driver: DriverChoice) {
    let turnstile = Turnstile::new();
    let wait = Arc::clone(&turnstile.wait);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, message| {
        let bytes = message.bytes().to_vec();
        if bytes.starts_with(b"query") {
            let wait = Arc::clone(&wait);
            let job = move || {
                pass(&wait);
                bytes
            };
            let answer = cx.offload(id, job, |cx, id, mut bytes| {
                bytes.extend(b" answered");
                let packet = cx.packet(&bytes);
                assert!(cx.send(id, packet).is_queued());
            });
            assert_eq!(answer, Answer::Queued);
        } else {
            crate::support::echo(cx, id, message);
        }
    });
    let server = be32(driver).set(|settings| {
        settings.queue_soft_bytes = 64 << 20;
        settings.queue_hard_bytes = 64 << 20;
        settings.queue_hard_messages = 1 << 20;
    });
    let server = server.start(recorder).unwrap();
    let mut asking = Raw::connect(server.local_addr());
    let id = watch.join();
    let mut other = Raw::connect(server.local_addr());
    watch.join();
    // Queries and what lies behind them come in one read; and more comes while they are held.
    asking.write(&[b"query 1", b"plain 1", b"query 2", b"plain 2"].map(|text| be32_frame(text)).concat());
    assert_eq!(watch.recv(id), b"query 1");
    asking.be32(&[7; 10_000]);
    asking.be32(b"plain 3");
    for round in 0..5u8 {
        other.be32(&[round]);
        assert_eq!(other.be32_next(), [round], "others are served");
    }
    let early = watch.rest();
    assert!(
        early.iter().all(|seen| !matches!(seen, crate::support::Seen::Recv(of, _) if *of == id)),
        "{early:?}"
    );
    turnstile.go.send(()).unwrap();
    assert_eq!(asking.be32_next(), b"query 1 answered");
    assert_eq!(asking.be32_next(), b"plain 1");
    turnstile.go.send(()).unwrap();
    assert_eq!(asking.be32_next(), b"query 2 answered");
    assert_eq!(asking.be32_next(), b"plain 2");
    assert_eq!(asking.be32_next(), [7; 10_000]);
    assert_eq!(asking.be32_next(), b"plain 3");
    // A flood behind a query stays with the peer and the kernels, but for a bound.
    asking.be32(b"query 3");
    eventually(
        "it is held",
        || matches!(watch.rest().pop(), Some(crate::support::Seen::Recv(_, bytes)) if bytes == b"query 3"),
    );
    let flood = be32_frame(&[1; 1_000]).repeat(100);
    let sent = asking.flood(&flood, 64 << 20);
    assert!(sent < 64 << 20, "TCP holds the peer back");
    assert!(server.figures().pool.in_use.bytes < 4 << 20, "{:?}", server.figures().pool.in_use);
    turnstile.go.send(()).unwrap();
    assert_eq!(asking.be32_next(), b"query 3 answered");
    assert_eq!(asking.be32_next(), [1; 1_000], "and reading goes on");
    asking.reset();
    finish(server, &watch);
}

fn b3_the_unordered_form_holds_nothing(driver: DriverChoice) {
    let turnstile = Turnstile::new();
    let wait = Arc::clone(&turnstile.wait);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, message| {
        if message.bytes() == b"query" {
            let wait = Arc::clone(&wait);
            cx.offload_unordered(
                id,
                move || pass(&wait),
                |cx, id, ()| {
                    let packet = cx.packet(b"answered");
                    cx.send(id, packet).ignore();
                },
            )
            .ignore();
        } else {
            crate::support::echo(cx, id, message);
        }
    });
    let server = be32(driver).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    peer.write(&[be32_frame(b"query"), be32_frame(b"plain")].concat());
    assert_eq!(peer.be32_next(), b"plain");
    turnstile.go.send(()).unwrap();
    assert_eq!(peer.be32_next(), b"answered");
    finish(server, &watch);
}

fn b3_a_job_that_panics_ends_its_session(driver: DriverChoice) {
    hush_panics_on_purpose();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, message| {
        if message.bytes() == b"panic" {
            cx.offload(id, || panic!("{ON_PURPOSE}"), |_, _, ()| unreachable!("there is no answer")).ignore();
        } else {
            cx.offload(
                id,
                || (),
                |cx, id, ()| {
                    let packet = cx.packet(b"answered");
                    cx.send(id, packet).ignore();
                },
            )
            .ignore();
        }
    });
    let server = be32(driver).set(|settings| settings.offload_threads = 1).start(recorder).unwrap();
    for _ in 0..3 {
        let mut peer = Raw::connect(server.local_addr());
        let id = watch.join();
        peer.be32(b"panic");
        let error = watch.error("a panic", |kind| *kind == ErrorKind::JobPanic(ON_PURPOSE.into()));
        assert_eq!(error.session, Some(id));
        assert_eq!(watch.leave(id).reason, LeaveReason::HandlerPanic);
        let mut other = Raw::connect(server.local_addr());
        watch.join();
        other.be32(b"still there?");
        assert_eq!(other.be32_next(), b"answered", "the one thread lives");
    }
    finish(server, &watch);
}

fn b3_a_leave_does_not_wait_and_the_late_answer_is_dropped_and_counted(driver: DriverChoice) {
    let turnstile = Turnstile::new();
    let wait = Arc::clone(&turnstile.wait);
    let (tell, asked) = channel();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, _| {
        let wait = Arc::clone(&wait);
        let answer =
            cx.offload(id, move || pass(&wait), |_, _, ()| unreachable!("nobody is there to hear it"));
        tell.send(answer).unwrap();
    });
    let server = be32(driver).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    peer.be32(b"query");
    assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), Answer::Queued);
    assert!(server.remote().disconnect(id, 6));
    assert_eq!(watch.leave(id).reason, LeaveReason::Disconnected(6));
    // The slot is somebody else's when the answer comes.
    let _next = Raw::connect(server.local_addr());
    assert_eq!(watch.join().slot(), id.slot());
    turnstile.go.send(()).unwrap();
    eventually("it is counted", || server.figures().jobs_late == 1);
    finish(server, &watch);
}

fn b3_the_queue_is_bounded(driver: DriverChoice) {
    let turnstile = Turnstile::new();
    let wait = Arc::clone(&turnstile.wait);
    let (tell, answers) = channel();
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(move |cx, id, _| {
        let wait = Arc::clone(&wait);
        let answer = cx.offload_unordered(
            id,
            move || pass(&wait),
            |cx, id, ()| {
                let packet = cx.packet(b"done");
                cx.send(id, packet).ignore();
            },
        );
        tell.send(answer).unwrap();
    });
    let server = be32(driver).set(|settings| {
        settings.offload_threads = 1;
        settings.offload_jobs_max = 2;
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    peer.be32(b"one");
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), Answer::Queued);
    // The thread has taken the first one by now, or will before the others fill the queue.
    std::thread::park_timeout(Duration::from_millis(50));
    for _ in 0..4 {
        peer.be32(b"more");
    }
    let answers: Vec<Answer> = (0..4).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
    let queued = answers.iter().take_while(|answer| answer.is_queued()).count();
    assert!((1..=2).contains(&queued), "{answers:?}");
    assert!(answers[queued..].iter().all(|answer| *answer == Answer::Full), "{answers:?}");
    for _ in 0..=queued {
        turnstile.go.send(()).unwrap();
        assert_eq!(peer.be32_next(), b"done");
    }
    finish(server, &watch);
}

fn b3_each_thread_owns_its_state(driver: DriverChoice) {
    struct Connection {
        thread: ThreadId,
        queries: u32,
    }
    let made: &'static Mutex<BTreeSet<usize>> = Box::leak(Box::default());
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        let job = |connection: &mut Connection| {
            assert_eq!(connection.thread, std::thread::current().id(), "it never leaves its thread");
            connection.queries += 1;
            connection.queries
        };
        let answer = cx.offload_with(id, job, |cx, id, queries| {
            let packet = cx.packet(&queries.to_le_bytes());
            cx.send(id, packet).ignore();
        });
        assert!(answer.is_queued());
    });
    let server = be32(driver).set(|settings| settings.offload_threads = 3).offload_state(|number| {
        made.lock().unwrap().insert(number);
        Connection { thread: std::thread::current().id(), queries: 0 }
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    let mut most = 0;
    for _ in 0..50 {
        peer.be32(b"query");
        most = most.max(u32::from_le_bytes(peer.be32_next().try_into().unwrap()));
    }
    assert!(most >= 17, "fifty queries over three states: one has a third at least, not {most}");
    finish(server, &watch);
    assert_eq!(made.lock().unwrap().len(), 3, "one for each thread");
}

fn b3_a_long_job_is_not_the_peers_silence(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_recv(|cx, id, _| {
        cx.offload(
            id,
            || std::thread::park_timeout(Duration::from_millis(700)),
            |cx, id, ()| {
                let packet = cx.packet(b"at last");
                cx.send(id, packet).ignore();
            },
        )
        .ignore();
    });
    let server = be32(driver).set(|settings| settings.idle_timeout_ms = 400).start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    peer.be32(b"a long question");
    assert_eq!(peer.be32_next(), b"at last");
    std::thread::park_timeout(Duration::from_millis(200));
    assert!(server.remote().is_live(id), "the peer has its own time again");
    assert_eq!(watch.leave(id).reason, LeaveReason::Idle, "and no more than that");
    finish(server, &watch);
}
