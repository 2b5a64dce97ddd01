//! The pool's budget: who holds the most makes way, nobody else notices, and all of it comes back.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use madang::{Context, DriverChoice, ErrorKind, LeaveReason, Message, Remote, SessionId};

use crate::support::{Hello, PATIENCE, Raw, Recorder, be32, be32_frame, echo, eventually, finish, kind, lan};

each_driver! {
    b02_the_largest_holder_of_all_shards_makes_way_and_the_pool_comes_back,
    b02_broadcasts_pass_over_who_holds_the_most,
    b11_players_who_flood_take_nothing_from_a_lan_link,
}

const MEGABYTE: usize = 1 << 20;

/// Queues as many packets of 16 KiB for the sender as its message says; nobody reads them.
fn pile_up(cx: &mut Context<'_>, id: SessionId, message: Message<'_>) {
    for _ in 0..u32::from_le_bytes(*message.bytes().first_chunk().unwrap()) {
        let packet = cx.packet(&[9; 16 << 10]);
        assert!(cx.send(id, packet).is_queued());
    }
}

fn ask_for(peer: &mut Raw, bytes: usize) {
    peer.be32(&((bytes >> 14) as u32).to_le_bytes());
}

fn in_use(remote: &Remote) -> usize {
    remote.figures().pool.in_use.bytes
}

/// Takes packets out of the pool until so many hundredths of the budget are in use. All at once, so that whoever makes way
/// for the first of them is not made up for by the last; and only when the kernel has taken what it takes of what is queued,
/// so that nothing goes back while it counts.
fn fill(remote: &Remote, budget: usize, hundredths: usize) -> Vec<madang::packet::PacketMut> {
    let before = settled(remote);
    let content = |bytes| bytes >= 16 << 10;
    let class = remote.figures().pool.classes.into_iter().find(|class| content(class.content_bytes)).unwrap();
    let count = (budget / 100 * hundredths - before).div_ceil(class.block_bytes);
    (0..count).map(|_| remote.packet(&[1; 16 << 10])).collect()
}

/// What is in use once it has stayed the same for a while.
fn settled(remote: &Remote) -> usize {
    let mut last = (in_use(remote), Instant::now());
    eventually("nothing comes and goes", || {
        let now = in_use(remote);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() >= Duration::from_millis(100)
    });
    last.0
}

fn server(driver: DriverChoice, budget: usize) -> madang::ServerBuilder {
    be32(driver).workers(2).set(|settings| {
        settings.pool_budget_bytes = budget;
        settings.send_buffer_bytes = 64 << 10;
        settings.queue_soft_bytes = 64 << 20;
        settings.queue_hard_bytes = 64 << 20;
        settings.queue_hard_messages = 1 << 20;
    })
}

fn b02_the_largest_holder_of_all_shards_makes_way_and_the_pool_comes_back(driver: DriverChoice) {
    const BUDGET: usize = 32 * MEGABYTE;
    let (recorder, watch) = Recorder::new();
    let (tell, told) = channel();
    let recorder = recorder.on_recv(move |cx, id, message| match message.bytes() {
        b"echo" => crate::support::echo(cx, id, message),
        _ => {
            pile_up(cx, id, message);
            tell.send(()).unwrap();
        }
    });
    let server = server(driver, BUDGET).start(recorder).unwrap();
    let remote = server.remote();
    let baseline = in_use(&remote);
    let mut peers: Vec<(Raw, SessionId)> =
        (0..4).map(|_| (Raw::connect(server.local_addr()), watch.join())).collect();
    // Not all on one shard, and no two adjacent ones on the same.
    for (at, megabytes) in [(0, 5), (1, 9), (2, 3)] {
        ask_for(&mut peers[at].0, megabytes * MEGABYTE);
        told.recv_timeout(PATIENCE).unwrap();
    }
    let held = fill(&remote, BUDGET, 93);
    let (_first, largest) = peers.remove(1);
    assert_eq!(watch.leave(largest).reason, LeaveReason::Evicted);
    watch.error("a shortage", |kind| *kind == ErrorKind::PoolShort);
    // With that it is at ease; the next shortage costs the next.
    eventually("what it held is back", || in_use(&remote) < BUDGET / 100 * 80);
    let more = fill(&remote, BUDGET, 93);
    let (_second, next) = peers.remove(0);
    assert_eq!(watch.leave(next).reason, LeaveReason::Evicted);
    eventually("what it held is back", || in_use(&remote) < BUDGET / 100 * 85);
    // Who holds nothing never noticed.
    let (honest, _) = peers.last_mut().unwrap();
    honest.be32(b"echo");
    assert_eq!(honest.be32_next(), b"echo");
    eventually("two left", || server.figures().left() == 2);
    drop((held, more, peers));
    eventually("all of it is back", || in_use(&remote) <= baseline);
    finish(server, &watch);
}

fn b02_broadcasts_pass_over_who_holds_the_most(driver: DriverChoice) {
    const BUDGET: usize = 32 * MEGABYTE;
    let (recorder, watch) = Recorder::new();
    let (tell, told) = channel();
    let recorder = recorder.on_recv(move |cx, id, message| {
        pile_up(cx, id, message);
        tell.send(()).unwrap();
    });
    let server = server(driver, BUDGET).start(recorder).unwrap();
    let remote = server.remote();
    let mut heavy = Raw::connect(server.local_addr());
    let heavy_id = watch.join();
    let mut light = Raw::connect(server.local_addr());
    watch.join();
    let mut largest = Raw::connect(server.local_addr());
    let largest_id = watch.join();
    for (peer, kilobytes) in [(&mut heavy, 2_000), (&mut largest, 2_400)] {
        ask_for(peer, kilobytes << 10);
        told.recv_timeout(PATIENCE).unwrap();
    }
    // The largest makes way, and that is enough to spare the next, but not to be at ease again.
    let held = fill(&remote, BUDGET, 93);
    assert_eq!(watch.leave(largest_id).reason, LeaveReason::Evicted);
    eventually("what it held is back", || in_use(&remote) < BUDGET / 100 * 90);
    assert!(in_use(&remote) > BUDGET / 100 * 80, "the test's sums are wrong: {}", in_use(&remote));
    let before = server.figures().broadcasts_refused;
    for number in 0..10u8 {
        assert!(remote.send_all(&remote.packet(&[number]).freeze()).is_queued());
        assert_eq!(light.be32_next(), [number]);
    }
    eventually("they pass it over", || server.figures().broadcasts_refused == before + 10);
    drop(held);
    eventually("it is at ease", || in_use(&remote) < BUDGET / 100 * 80);
    // Soon broadcasts are for everybody again.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = server.figures().broadcasts_refused;
        let sent = server.figures().messages_out;
        assert!(remote.send_all(&remote.packet(b"all").freeze()).is_queued());
        eventually("it is sent", || server.figures().messages_out > sent);
        if server.figures().broadcasts_refused == refused {
            break;
        }
        assert!(Instant::now() < deadline, "broadcasts stay refused");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(remote.is_live(heavy_id));
    finish(server, &watch);
}

/// In one process: a players' server that is flooded until it is short of packets, and a LAN server with a shard and a pool of
/// its own, whose link answers all the while. (How quickly is the bench's question: `neighbour`.)
fn b11_players_who_flood_take_nothing_from_a_lan_link(driver: DriverChoice) {
    const FLOOD: Duration = Duration::from_secs(2);
    let players = be32(driver).set(|settings| settings.pool_budget_bytes = 2 * MEGABYTE);
    let players = players.start(Recorder::silent().on_recv(echo)).unwrap();
    let (recorder, watch) = Recorder::echo();
    let server = lan(driver).start(recorder).unwrap();
    let (mut peer, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    let begun = Instant::now();
    let mut answers = 0u32;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while begun.elapsed() < FLOOD {
                    // Nothing of the echoes is read.
                    if let Ok(mut flooder) = Raw::try_connect(players.local_addr()) {
                        flooder.flood(&be32_frame(&[7; 4_000]).repeat(16), 4 * MEGABYTE);
                    }
                }
            });
        }
        while begun.elapsed() < FLOOD {
            peer.lan(kind::MESSAGE, &answers.to_le_bytes());
            assert_eq!(peer.expect_message(), answers.to_le_bytes());
            answers += 1;
        }
    });
    let flooded = players.figures();
    assert!(flooded.pool.refusals > 0 || flooded.left() > 0, "the flood was felt: {flooded:?}");
    let figures = server.figures();
    assert!(answers > 10 && figures.sessions == 1, "{answers} answers: {figures:?}");
    assert_eq!((figures.pool.refusals, figures.left()), (0, 0));
    assert!(players.stop().unwrap().report().is_clean());
    finish(server, &watch);
}
