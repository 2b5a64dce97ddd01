//! Goal: the servers are right, the fast client counts right, and both would notice if they were not.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use madang_bench::floor::{self, Mode};
use madang_bench::load::churn::ChurnLoad;
use madang_bench::load::echo::{EchoLoad, Pace};
use madang_bench::load::links::Links;
use madang_bench::load::{Probe, Span, broadcast::BroadcastLoad, ramp, verify};
use madang_bench::wire::Framing;
use madang_bench::{host, ring, tokio_server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Content of the verifying clients; `BENCH_SEED` replays another.
fn seed() -> u64 {
    std::env::var("BENCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Runs a server on a thread of its own for as long as the test process lives.
fn start(
    serve: impl FnOnce(SocketAddr, Box<dyn FnOnce(SocketAddr)>) -> io::Result<()> + Send + 'static,
) -> SocketAddr {
    let (sender, address) = mpsc::channel();
    thread::spawn(move || {
        let listening = Box::new(move |address| sender.send(address).expect("the test waits for it"));
        serve(([127, 0, 0, 1], 0).into(), listening)
    });
    address.recv().expect("the server listens")
}

fn start_floor(mode: Mode) -> SocketAddr {
    start(move |address, listening| floor::serve(mode, address, listening))
}

#[test]
fn floor_echoes_every_byte() {
    verify::echo(Framing::Be32, start_floor(Mode::Echo), seed()).unwrap();
}

#[test]
fn floor_serves_connections_of_one_message() {
    verify::accept(start_floor(Mode::Accept), seed()).unwrap();
}

#[test]
fn floor_broadcasts_every_byte_in_order() {
    verify::broadcast(Framing::Be32, start_floor(Mode::Broadcast), seed()).unwrap();
}

#[test]
fn tokio_with_the_codec_echoes_every_byte() {
    let server = start(|address, listening| tokio_server::serve(address, tokio_server::codec, listening));
    verify::echo(Framing::Be32, server, seed()).unwrap();
    verify::accept(server, seed()).unwrap();
}

#[test]
fn tuned_tokio_echoes_every_byte() {
    let server = start(|address, listening| tokio_server::serve(address, tokio_server::tuned, listening));
    verify::echo(Framing::Be32, server, seed()).unwrap();
    verify::accept(server, seed()).unwrap();
}

/// The engine as a process of its own, which ends with this one.
struct Engine {
    child: Child,
    address: SocketAddr,
}

fn start_engine(framing: Framing, mode: &str) -> Engine {
    let mut child = Command::new(env!("CARGO_BIN_EXE_engine"))
        .args(["--framing", framing.name(), "--mode", mode])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built with the tests");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).unwrap();
    let address = host::announced(&line).expect("the engine says where it listens");
    Engine { child, address }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_engine_echoes_every_byte() {
    for framing in [Framing::Be32, Framing::Wan] {
        let engine = start_engine(framing, "echo");
        verify::echo(framing, engine.address, seed())
            .unwrap_or_else(|error| panic!("{framing:?}: {error:#}"));
    }
}

#[test]
fn the_engine_broadcasts_every_byte_in_order() {
    for framing in [Framing::Be32, Framing::Wan] {
        let engine = start_engine(framing, "broadcast");
        verify::broadcast(framing, engine.address, seed())
            .unwrap_or_else(|error| panic!("{framing:?}: {error:#}"));
    }
}

#[test]
fn the_fast_client_counts_encrypted_messages_as_plain_ones() {
    let engine = start_engine(Framing::Wan, "echo");
    // The last one takes several records a send.
    for (depth, payload_bytes) in [(1, 256), (16, 256), (16, 4096)] {
        with_framed_links(Framing::Wan, engine.address, 20, |links| {
            let mut load = EchoLoad::new(links, Pace::Closed { depth }, payload_bytes);
            for _ in 0..2 {
                let window = load.window(probe(), SPAN).unwrap();
                assert!(window.messages > 0, "{depth} of {payload_bytes}: {window:?}");
            }
        });
    }
    let engine = start_engine(Framing::Wan, "broadcast");
    with_framed_links(Framing::Wan, engine.address, 50, |links| {
        let window = BroadcastLoad::new(links, 8, 1200).window(probe(), SPAN).unwrap();
        assert_eq!(window.messages % (8 * 50), 0, "{window:?}");
    });
}

/// What a server may do to an answer that it should have left alone.
type Lie = fn(&mut Vec<u8>);

const FLIP: Lie = |bytes| bytes[0] ^= 1;
const LOSE: Lie = |bytes| bytes.truncate(bytes.len() - 1);
const DOUBLE: Lie = |bytes| bytes.push(bytes[bytes.len() - 1]);

/// An echo server that hands the bytes after the first MiB of a connection to `lie`.
async fn liar(mut stream: TcpStream, lie: Lie) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut total = 0;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mut answer = buffer[..read].to_vec();
        if total <= 1 << 20 && total + read > 1 << 20 {
            lie(&mut answer);
        }
        total += read;
        stream.write_all(&answer).await?;
    }
}

fn start_liar(lie: Lie) -> SocketAddr {
    start(move |address, listening| tokio_server::serve(address, move |stream| liar(stream, lie), listening))
}

#[test]
fn verify_notices_one_wrong_one_missing_and_one_extra_byte() {
    for (name, lie) in [("a flipped bit", FLIP), ("a lost byte", LOSE), ("a doubled byte", DOUBLE)] {
        assert!(verify::echo(Framing::Be32, start_liar(lie), seed()).is_err(), "{name} went unnoticed");
    }
}

/// In tests the servers live in this process, so its CPU time stands for theirs.
fn probe() -> Probe {
    Probe { server: std::process::id(), softirq: None }
}

const SPAN: Span = Span { warm_up: Duration::from_millis(50), measure: Duration::from_millis(300) };

fn with_links<T>(server: SocketAddr, connections: usize, load: impl FnOnce(Links<'_>) -> T) -> T {
    with_framed_links(Framing::Be32, server, connections, load)
}

fn with_framed_links<T>(
    framing: Framing,
    server: SocketAddr,
    connections: usize,
    load: impl FnOnce(Links<'_>) -> T,
) -> T {
    let sockets = ramp::connect(framing, server, connections, 1).unwrap();
    let mut ring = ring::open(ring::Wait::Spinning).unwrap();
    load(Links::new(&mut ring, sockets, false).unwrap())
}

#[test]
fn the_echo_load_counts_and_settles_at_every_pace() {
    let server = start_floor(Mode::Echo);
    for (pace, payload_bytes) in [
        (Pace::Closed { depth: 1 }, 32),
        (Pace::Closed { depth: 16 }, 4096),
        (Pace::Rate { per_second: 5000 }, 256),
    ] {
        with_links(server, 40, |links| {
            let mut load = EchoLoad::new(links, pace, payload_bytes);
            for _ in 0..2 {
                let window = load.window(probe(), SPAN).unwrap();
                assert!(window.messages > 0 && window.server_ns > 0, "{pace:?}: {window:?}");
                assert!(window.p50_us > 0.0 && window.p50_us <= window.p99_us, "{pace:?}: {window:?}");
                assert!(window.p99_us <= window.max_us, "{pace:?}: {window:?}");
                if let Pace::Rate { per_second } = pace {
                    // A loaded machine may fall behind a little, never run ahead.
                    assert!(window.rate() < 1.3 * f64::from(per_second), "{window:?}");
                }
            }
        });
    }
}

#[test]
fn a_sweep_reaches_every_connection_once() {
    with_links(start_floor(Mode::Echo), 300, |links| {
        EchoLoad::new(links, Pace::Closed { depth: 1 }, 200).sweep(100).unwrap();
    });
}

#[test]
fn the_echo_load_notices_a_server_that_adds_or_loses_bytes() {
    for lie in [DOUBLE, LOSE] {
        let outcome = with_links(start_liar(lie), 1, |links| {
            EchoLoad::new(links, Pace::Closed { depth: 16 }, 4096).window(probe(), SPAN)
        });
        assert!(outcome.is_err(), "{outcome:?}");
    }
}

#[test]
fn the_broadcast_load_counts_a_message_for_each_receiver() {
    with_links(start_floor(Mode::Broadcast), 50, |links| {
        let window = BroadcastLoad::new(links, 8, 200).window(probe(), SPAN).unwrap();
        assert!(window.messages > 0, "{window:?}");
        assert_eq!(window.messages % (8 * 50), 0, "{window:?}");
    });
}

#[test]
fn the_churn_load_keeps_cycling() {
    let server = start_floor(Mode::Accept);
    let mut ring = ring::open(ring::Wait::Spinning).unwrap();
    let mut load = ChurnLoad::new(&mut ring, server, 16, 32).unwrap();
    for _ in 0..2 {
        let window = load.window(probe(), SPAN).unwrap();
        assert!(window.messages > 16, "{window:?}");
    }
}
