//! The engine as a contender: Madang behind the same framing (or its own, encrypted), one worker on one CPU.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use madang::{
    Context, DriverChoice, ForeignFraming, ForeignServer, Handler, Message, SessionId, Settings, WanServer,
};
use madang_bench::wire::{self, Framing, Trigger};
use madang_bench::{host, wan};

#[derive(Parser)]
#[command(about = "The engine, as users start it, as a contender of the benchmark")]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
    #[arg(long, value_enum, default_value = "auto")]
    driver: Driver,
    #[arg(long, value_enum, default_value = "be32")]
    framing: Framing,
    /// Flush once per tick of so many milliseconds; 0 flushes each turn.
    #[arg(long, default_value_t = 0)]
    tick_ms: u64,
    /// io_uring: keep sockets in the ring's own table, as the floor does.
    #[arg(long)]
    own_file_table: bool,
    /// Completions a turn, at most; the engine's default when 0.
    #[arg(long, default_value_t = 0)]
    batch: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Echo,
    Broadcast,
    Accept,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    Auto,
    Uring,
    Readiness,
}

struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let reply = cx.packet(message.bytes());
        cx.send(session, reply).ignore();
    }
}

/// Answers triggers; one connection gives them, so the count needs no order of its own.
#[derive(Default)]
struct Broadcast {
    sequence: std::sync::atomic::AtomicU64,
}

impl Handler for Broadcast {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let Some(trigger) = Trigger::parse(message.bytes()) else { return };
        if trigger.messages == 0 {
            let reply = cx.packet(message.bytes());
            cx.send(session, reply).ignore();
            return;
        }
        let mut payload = Vec::new();
        for _ in 0..trigger.messages {
            payload.clear();
            let sequence = self.sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            wire::append_broadcast_payload(&mut payload, sequence, trigger.payload_bytes);
            let packet = cx.packet(&payload).freeze();
            cx.send_all(&packet).ignore();
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    host::settle(args.cpu)?;
    // The queue limits of a LAN: the load client's threads share one processor and may all lag at once, and what they lag
    // behind is not what is measured.
    let mut settings = Settings::default();
    settings.bind = args.listen;
    settings.max_sessions = 16_384;
    settings.cores = vec![args.cpu];
    settings.driver = match args.driver {
        Driver::Auto => DriverChoice::Auto,
        Driver::Uring => DriverChoice::Uring,
        Driver::Readiness => DriverChoice::Readiness,
    };
    settings.tick_ms = args.tick_ms;
    settings.own_file_table = args.own_file_table;
    if args.batch > 0 {
        settings.turn_completions_max = args.batch;
    }
    settings.congestion = "reno".to_owned();
    settings.idle_timeout_ms = 0;
    // Nobody pings while others are being measured.
    settings.heartbeat_ms = 600_000;
    settings.dead_after_ms = 3_600_000;
    // The accept load is to find the engine's own limit.
    settings.accept_rate_max = Some(0);
    let server = match args.framing {
        Framing::Be32 => ForeignServer::with(settings, ForeignFraming::be32()),
        Framing::Wan => WanServer::with(settings).keys(wan::server_keys()),
    };
    let server = match args.mode {
        Mode::Echo | Mode::Accept => server.start(Echo)?,
        Mode::Broadcast => server.start(Broadcast::default())?,
    };
    host::announce(server.local_addr());
    server.run_until_signal();
    Ok(())
}
