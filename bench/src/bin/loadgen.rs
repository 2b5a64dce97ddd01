//! The load client; see `madang_bench::load`.
//!
//! Alone it runs one window and prints it. With `--control` it obeys lines on its standard input, one answer a line:
//! `window <warm-up ms> <measure ms>` answers the window as JSON, `sweep <at most>` answers `done`.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};
use madang_bench::load::broadcast::BroadcastLoad;
use madang_bench::load::churn::ChurnLoad;
use madang_bench::load::echo::{EchoLoad, Pace};
use madang_bench::load::links::Links;
use madang_bench::load::{Probe, Span, Window, ramp, verify};
use madang_bench::wire::Framing;
use madang_bench::{host, ring};

#[derive(Parser)]
#[command(about = "Loads a be32 server (or an encrypted one) and measures its CPU time per message")]
struct Cli {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Closed loop: each connection keeps `depth` messages outstanding.
    Echo {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1)]
        depth: u32,
    },
    /// Echo at a fixed rate over all connections.
    Paced {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 100_000)]
        per_second: u32,
    },
    /// One connection triggers turns of a broadcast server, all receive.
    Broadcast {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1)]
        per_turn: u32,
    },
    /// Connect, one echo, reset; `connections` at a time.
    Churn {
        #[command(flatten)]
        common: Common,
    },
    /// Checks every byte of a server and measures nothing.
    Verify {
        #[arg(long)]
        server: SocketAddr,
        #[arg(long, default_value = "echo", value_parser = ["echo", "broadcast", "accept"])]
        mode: String,
        #[arg(long, value_enum, default_value = "be32")]
        framing: Framing,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args)]
struct Common {
    /// Where the server listens.
    #[arg(long)]
    server: SocketAddr,
    /// The server's process, whose CPU time is read.
    #[arg(long)]
    server_process: u32,
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Payload bytes of a message.
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// What the server speaks.
    #[arg(long, value_enum, default_value = "be32")]
    framing: Framing,
    /// Have plain payload copied too, as encrypted always is; by itself it is dropped in the kernel.
    #[arg(long)]
    copy: bool,
    /// Connections come from 127.0.0.this, and from the addresses after it when ports run short.
    #[arg(long, default_value_t = 1)]
    source: u8,
    #[arg(long, default_value_t = 200)]
    warm_up_ms: u64,
    #[arg(long, default_value_t = 500)]
    measure_ms: u64,
    /// Obey lines on standard input instead of running one window.
    #[arg(long)]
    control: bool,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().load {
        Load::Verify { server, mode, framing, seed } => {
            match mode.as_str() {
                "echo" => verify::echo(framing, server, seed),
                "broadcast" => verify::broadcast(framing, server, seed),
                _ if framing == Framing::Be32 => verify::accept(server, seed),
                _ => bail!("connections of one message are plain ones"),
            }?;
            println!("{mode}: every byte is right (seed {seed})");
            Ok(())
        }
        Load::Echo { common, depth } => echo(&common, Pace::Closed { depth }),
        Load::Paced { common, per_second } => echo(&common, Pace::Rate { per_second }),
        Load::Broadcast { common, per_turn } => {
            host::settle(common.cpu)?;
            let mut ring = ring::open(ring::Wait::Spinning)?;
            let mut load = BroadcastLoad::new(common.links(&mut ring)?, per_turn, common.size);
            common.run(|probe, order| match order {
                Order::Window(span) => load.window(probe, span).map(Some),
                Order::Sweep(_) => bail!("a broadcast has no sweep"),
            })
        }
        Load::Churn { common } => {
            ensure!(common.framing == Framing::Be32, "connections of one message are plain ones");
            host::settle(common.cpu)?;
            let mut ring = ring::open(ring::Wait::Spinning)?;
            let mut load = ChurnLoad::new(&mut ring, common.server, common.connections, common.size)?;
            common.run(|probe, order| match order {
                Order::Window(span) => load.window(probe, span).map(Some),
                Order::Sweep(_) => bail!("churn has no sweep"),
            })
        }
    }
}

fn echo(common: &Common, pace: Pace) -> anyhow::Result<()> {
    host::settle(common.cpu)?;
    let mut ring = ring::open(ring::Wait::Spinning)?;
    let mut load = EchoLoad::new(common.links(&mut ring)?, pace, common.size);
    common.run(|probe, order| match order {
        Order::Window(span) => load.window(probe, span).map(Some),
        Order::Sweep(at_most) => load.sweep(at_most).map(|()| None),
    })
}

enum Order {
    Window(Span),
    Sweep(u64),
}

impl Common {
    fn links<'ring>(&self, ring: &'ring mut io_uring::IoUring) -> anyhow::Result<Links<'ring>> {
        let peers = ramp::connect(self.framing, self.server, self.connections, self.source)?;
        Ok(Links::new(ring, peers, self.copy)?)
    }

    fn run(
        &self,
        mut obey: impl FnMut(Probe, Order) -> anyhow::Result<Option<Window>>,
    ) -> anyhow::Result<()> {
        let probe = Probe { server: self.server_process, softirq: host::softirq_thread(0) };
        if !self.control {
            let window = obey(probe, Order::Window(span(self.warm_up_ms, self.measure_ms)))?;
            print_window(&window.context("a window answers with figures")?);
            return Ok(());
        }
        println!("ready");
        for line in std::io::stdin().lock().lines() {
            let answer = obey(probe, parse(&line?)?)?;
            match answer {
                Some(window) => println!("{}", serde_json::to_string(&window)?),
                None => println!("done"),
            }
            std::io::stdout().flush()?;
        }
        Ok(())
    }
}

fn parse(line: &str) -> anyhow::Result<Order> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["window", warm_up, measure] => Ok(Order::Window(span(warm_up.parse()?, measure.parse()?))),
        ["sweep", at_most] => Ok(Order::Sweep(at_most.parse()?)),
        _ => bail!("cannot obey {line:?}"),
    }
}

fn span(warm_up_ms: u64, measure_ms: u64) -> Span {
    Span { warm_up: Duration::from_millis(warm_up_ms), measure: Duration::from_millis(measure_ms) }
}

fn print_window(window: &Window) {
    println!(
        "{:.0} ns of server CPU a message · {:.0} messages/s · p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs · \
         server busy {:.0} %, kept waiting {:.1} %",
        window.server_ns_per_message(),
        window.rate(),
        window.p50_us,
        window.p99_us,
        window.max_us,
        100.0 * window.server_ns as f64 / window.wall_ns as f64,
        100.0 * window.server_waited_ns as f64 / window.wall_ns as f64,
    );
}
