//! A game-server network engine: it keeps one stateful connection for each of tens of thousands of players, turns bytes
//! into messages and back, and hands them to your game through a handful of callbacks.
//!
//! ```text
//!                        ┌──────────────────────── one shard, one thread ────────────────────────┐
//!   peers ══ bytes ══►   │ driver ─► session ─► framing ─► Handler::on_recv ─► your game         │
//!         ◄═ 1 send ══   │ driver ◄── chunk ◄── flush ◄── queue ◄──────────── Context::send      │
//!                        └────────────────────────────────────▲──────────────────────────────────┘
//!                                              any thread: Remote::send, post, disconnect
//! ```
//!
//! Sessions are hidden: content names them by [`SessionId`] and never holds one. A session lives on one shard for life, so
//! its callbacks are never concurrent. Everything queued for a session in a turn leaves as one send.
//!
//! What it deliberately does not do: it has no async runtime in it, no global state but a counter, and no opinion about your
//! game; it never blocks a shard, and nothing that a peer sends can hurt it.
//!
//! ```
//! use madang::{Context, Handler, LanServer, Message, SessionId};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
//!         let reply = cx.packet(message.bytes());
//!         cx.send(session, reply).ignore();
//!     }
//! }
//!
//! let server = LanServer::bind("127.0.0.1:0").workers(2).start(Echo)?;
//! println!("listening on {}", server.local_addr());
//! # server.stop().unwrap(); // a real one: server.run_until_signal();
//! # Ok::<(), madang::StartError>(())
//! ```
//!
//! Three kinds of servers and clients take the same content:
//!
//! ```text
//!   WanServer      players: a handshake against a key that clients pin, then records      feature `wan`
//!   LanServer      other servers: plain frames on inner networks; sealed with a `secret`  (sealing: feature `wan`)
//!   ForeignServer  players whose clients exist already: their own framing, unprotected
//! ```
#![forbid(unsafe_code)]

mod answer;
mod client;
mod context;
mod directory;
mod engine;
mod error;
mod event;
mod fabric;
mod figures;
mod framing;
mod gate;
mod groups;
mod handler;
mod id;
mod leave;
mod letters;
mod links;
mod mailbox;
mod message;
mod offload;
mod planted;
mod refusal;
mod remote;
mod server;
mod session;
mod settings;
mod shard;
#[cfg(feature = "simulation")]
pub mod simulation;
mod slow;
mod speech;
mod timers;
mod user;
mod waiting;
#[cfg(feature = "wan")]
mod wan;

pub use answer::Answer;
pub use client::{Client, ClientBuilder, ForeignClient, LanClient};
pub use context::Context;
pub use engine::StopReport;
pub use error::{Error, ErrorKind, LinkDown, Result, SettingError, StartError};
pub use event::Event;
pub use figures::{Figures, PoolFigures};
pub use framing::ForeignFraming;
pub use gate::{Prefix, Rule, RuleError, RuleKind, RuleLine, RuleSet, Rules, TurnedAway};
pub use groups::GroupId;
pub use handler::{Account, Admission, Handler, Node, Peer, Sent};
pub use id::SessionId;
pub use leave::{Fault, Leave, LeaveReason};
pub use links::Link;
pub use message::Message;
pub use refusal::Refusal;
pub use remote::Remote;
pub use server::{ForeignServer, LanServer, Server, ServerBuilder, StopError, Stopped};
pub use settings::{CipherSuite, DriverChoice, Secret, Settings, WaitStrategy};
pub use slow::{SlowConsumers, WhenSlow};
pub use user::{Lobby, User};
pub use waiting::{Standing, WaitState, Waiter, WaiterId};
#[cfg(feature = "wan")]
pub use wan::{Credentials, LogIn, Verdict, WanClient, WanServer, keys};

/// Packets and pools: `madang-packet`.
pub use madang_packet as packet;
/// Framings and the codec: `madang-wire`.
pub use madang_wire as wire;

/// What users read compiles: the programs of the texts beside the crates.
#[cfg(all(doctest, feature = "wan"))]
mod texts {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../README.ko.md")]
    struct ReadmeKo;
    #[doc = include_str!("../../../docs/porting.ko.md")]
    struct Porting;
}
