//! How much a loud neighbour costs a link between servers (N2): in one process a server for players that is saturated, and
//! beside it a LAN server and its client, which echo a hundred times a second.
//!
//! ```text
//!   flood (CPU 1, a process of its own) ══► players' server (CPU 0) ┐
//!                                           LAN server, LAN client  ┘ one process, `--nice` for both
//! ```
//!
//! The quiet value is taken first, with the players' server idle. The loud one holds when its p99 is at most twice that,
//! or a millisecond; the exit code says so.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use madang::{
    Context, ForeignFraming, ForeignServer, Handler, LanClient, LanServer, Message, Peer, SessionId,
    Settings, WanServer,
};
use madang_bench::host::CpuTime;
use madang_bench::wan;
use madang_bench::wire::Framing;

#[derive(Parser)]
#[command(about = "The latency of a LAN link beside a saturated players' server, in one process")]
struct Args {
    /// Length of each part.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Echoes a second on the link.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// The priority of the link's shards, see `Settings::nice`.
    #[arg(long, default_value_t = -20, allow_negative_numbers = true)]
    nice: i32,
    /// The players' connections.
    #[arg(long, default_value_t = 1_000)]
    connections: u32,
    /// Messages that each of them has outstanding.
    #[arg(long, default_value_t = 16)]
    depth: u32,
    /// What they speak.
    #[arg(long, value_enum, default_value = "be32")]
    framing: Framing,
}

/// Both servers' content.
struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let reply = cx.packet(message.bytes());
        cx.send(session, reply).ignore();
    }
}

/// The link's client: asks at a fixed pace and times the answers from when each question was due.
struct Asker {
    pace: Duration,
    epoch: Instant,
    times: Arc<Mutex<Histogram<u32>>>,
}

impl Asker {
    const NEXT: u64 = 0;

    /// Sends the question that is due now, and sets the timer for the next.
    fn ask(&self, cx: &mut Context<'_>, session: SessionId) {
        let now = self.epoch.elapsed();
        let beat = now.as_nanos() / self.pace.as_nanos();
        let due = (beat * self.pace.as_nanos()) as u64;
        let mut question = cx.packet(&[]);
        question.u64(due);
        cx.send(session, question).ignore();
        let next = Duration::from_nanos(due) + self.pace;
        cx.timer(session, next.saturating_sub(now), Asker::NEXT).ignore();
    }
}

impl Handler for Asker {
    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, _: &Peer) {
        self.ask(cx, session);
    }

    fn on_timer(&self, cx: &mut Context<'_>, session: SessionId, _: u64) {
        self.ask(cx, session);
    }

    fn on_recv(&self, _: &mut Context<'_>, _: SessionId, mut message: Message<'_>) {
        if let Ok(due) = message.u64() {
            let took = self.epoch.elapsed().as_nanos() as u64 - due;
            self.times.lock().expect("nobody panics with it").saturating_record(took);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let players = match args.framing {
        Framing::Be32 => ForeignServer::with(players_settings(), ForeignFraming::be32()),
        Framing::Wan => WanServer::with(players_settings()).keys(wan::server_keys()),
    };
    let players = players.start(Echo)?;
    let urgent = |settings: &mut Settings| settings.nice = args.nice;
    let lan = LanServer::bind("127.0.0.1:0").set(urgent).start(Echo)?;
    let times = Arc::new(Mutex::new(Histogram::new_with_bounds(100, 60_000_000_000, 3)?));
    let asker =
        Asker { pace: Duration::from_secs(1) / args.rate, epoch: Instant::now(), times: Arc::clone(&times) };
    let client = LanClient::node("bench", "bench-1", 1).set(urgent);
    let client = client.link(&lan.local_addr().to_string()).start(asker)?;

    println!("| part | echoes | p50 µs | p99 µs | max µs | players' messages/s | CPU of the process |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    thread::sleep(Duration::from_secs(1));
    let quiet = part(&args, "quiet", &times, &players)?;
    let mut flood = Flood::start(&args, players.local_addr())?;
    thread::sleep(Duration::from_secs(2));
    let loud = part(&args, "loud", &times, &players)?;
    flood.check()?;
    drop(flood);

    let limit = (2 * quiet).max(Duration::from_millis(1));
    let verdict = if loud <= limit { "met" } else { "missed" };
    println!(
        "\np99 beside the flood {} µs, limit {} µs (twice the quiet value, or 1 ms): {verdict}",
        loud.as_micros(),
        limit.as_micros()
    );
    client.stop().map_err(|(_, error)| error)?;
    lan.stop().map_err(|(_, error)| error)?;
    players.stop().map_err(|(_, error)| error)?;
    ensure!(loud <= limit, "the link felt its neighbour");
    Ok(())
}

/// One worker on CPU 0, and no limit that would keep it from being saturated.
fn players_settings() -> Settings {
    let mut settings = Settings::default();
    settings.max_sessions = 16_384;
    settings.cores = vec![0];
    settings.congestion = "reno".to_owned();
    settings.idle_timeout_ms = 0;
    settings.accept_rate_max = Some(0);
    // The load client does not answer pings.
    settings.heartbeat_ms = 600_000;
    settings.dead_after_ms = 3_600_000;
    settings
}

/// Measures for the given time, prints a row, and answers the p99.
fn part(
    args: &Args,
    name: &str,
    times: &Mutex<Histogram<u32>>,
    players: &madang::Server,
) -> anyhow::Result<Duration> {
    times.lock().expect("nobody panics with it").clear();
    let before = (players.figures(), CpuTime::of(std::process::id())?, Instant::now());
    thread::sleep(Duration::from_secs(args.seconds));
    let (figures, cpu, span) =
        (players.figures(), CpuTime::of(std::process::id())?, before.2.elapsed().as_secs_f64());
    let times = times.lock().expect("nobody panics with it");
    let expected = args.seconds * u64::from(args.rate);
    ensure!(times.len() * 10 >= expected * 9, "{} echoes of {expected}: the link is down", times.len());
    let us = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
    let messages = (figures.messages_in - before.0.messages_in) as f64 / span;
    let busy = (cpu.ran_ns - before.1.ran_ns) as f64 / 1e9 / span;
    println!(
        "| {name} | {} | {:.0} | {:.0} | {:.0} | {messages:.0} | {:.0} % |",
        times.len(),
        us(0.5),
        us(0.99),
        times.max() as f64 / 1_000.0,
        100.0 * busy
    );
    Ok(Duration::from_nanos(times.value_at_quantile(0.99)))
}

/// The load client beside this program, in a closed loop for as long as it lives here.
struct Flood(Child);

impl Flood {
    fn start(args: &Args, server: std::net::SocketAddr) -> anyhow::Result<Flood> {
        let own = std::env::current_exe()?;
        let program = own.parent().context("a program lies in a directory")?.join("loadgen");
        let measure = Duration::from_secs(args.seconds + 6).as_millis();
        let child = Command::new(&program)
            .arg("echo")
            .args(["--server", &server.to_string(), "--server-process", &std::process::id().to_string()])
            .args(["--connections", &args.connections.to_string(), "--depth", &args.depth.to_string()])
            .args(["--framing", args.framing.name()])
            .args(["--cpu", "1", "--measure-ms", &measure.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Ok(Flood(child.with_context(|| format!("{} is built by `cargo build --bins`", program.display()))?))
    }

    /// Still there: the loud part was loud to its end.
    fn check(&mut self) -> anyhow::Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the flood ended early");
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
