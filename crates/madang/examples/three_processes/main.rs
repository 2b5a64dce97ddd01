//! Three servers that talk over LAN links: log-in, chat and a monitor, each a process of its own.
//!
//! ```text
//!   player ── LOGIN bob ──► login ══ admit(bob, key) ══► chat          ──  be32, text
//!          ◄─ KEY key ─────       ◄══ admitted ═════════               ══  LAN
//!          ── ENTER key ───────────────────────────────► chat
//!          ◄─ WELCOME bob ──────────────────────────────
//!                           login ══ figures ══► monitor ◄══ figures ══ chat      once a second
//! ```
//!
//! The key is good once. Who logs in twice replaces himself: chat disconnects the older session by its id. When chat goes
//! away, every admission that it did not answer is reported by log-in and its player is told; when it comes back, so do the
//! links.
//!
//! ```text
//! cargo build --release --example three_processes; cd target/release/examples
//! ./three_processes monitor 127.0.0.1:7700 &
//! ./three_processes chat    127.0.0.1:7701 127.0.0.1:7778 127.0.0.1:7700 &
//! ./three_processes login   127.0.0.1:7777 127.0.0.1:7701 127.0.0.1:7778 127.0.0.1:7700 &
//! ```

mod chat;
mod login;
mod monitor;
mod words;

use std::error::Error;
use std::time::Duration;

use madang::{Client, LanClient, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["monitor", lan] => monitor::run(lan),
        ["chat", lan, players, monitor] => chat::run(lan, players, monitor),
        ["login", players, chat, chat_players, monitor] => login::run(players, chat, chat_players, monitor),
        _ => Err("monitor LAN | chat LAN PLAYERS MONITOR | login PLAYERS CHAT CHAT_PLAYERS MONITOR".into()),
    }
}

/// Says something that an operator, or a test, waits for.
fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: then nobody misses it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What the links of this little cluster have in common: a peer that is gone is tried again soon.
fn soon(settings: &mut Settings) {
    settings.reconnect_max_ms = 500;
}

/// The link over which a service sends its figures to the monitor.
fn report_to(monitor: &str, service: &str, figures: madang::Remote) -> madang::Result<Client> {
    let name = format!("{service}-1");
    LanClient::node(service, &name, 1)
        .set(soon)
        .link(monitor)
        .start(monitor::Reporter { figures, every: Duration::from_secs(1) })
}
