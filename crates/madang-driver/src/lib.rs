//! Completion I/O for Madang: one contract, [`Driver`], and the systems that keep it.
//!
//! ```text
//!   shard ── attach / recv_start / send / abort / retire ──►  ┌────────┐ ──► io_uring │ epoll, kqueue │ IOCP │ simulation
//!         ◄── poll: Accepted, Data, Sent, RecvEnded … ──────  └────────┘ ◄── sockets, clock, entropy
//! ```
//!
//! A driver belongs to one shard thread. It knows sockets, bytes, time and randomness; it does not know sessions, frames
//! or handlers, and the engine has no other source of I/O, time or randomness. That is what lets the whole engine run in
//! the simulation ([`sim`]) unchanged.
//!
//! What it deliberately does not do: it calls nobody back, spawns no thread, parses nothing, and retries nothing that the
//! engine has to decide about.
//!
//! Which memory belongs to whom and when is written on each method of [`Driver`]; the contract suite
//! (`tests/contract`) holds every implementation to it, and `docs/driver.md` walks the same rules through io_uring,
//! readiness and I/O completion ports.
#![warn(missing_docs)]

mod choice;
mod clock;
mod completion;
mod contract;
mod error;
mod host;
mod incoming;
mod lent;
mod memory;
mod options;
mod outgoing;
mod private;
mod sockets;
mod time;
mod token;
mod turn;
mod waker;

#[cfg(windows)]
pub mod iocp;
#[cfg(unix)]
pub mod readiness;
pub mod sim;
#[cfg(target_os = "linux")]
pub mod uring;

pub use choice::{DriverKind, UseDriver, idle_thread, pin_thread, prioritize_thread};
pub use clock::Clock;
pub use completion::{Completion, RecvEnd};
pub use contract::{AttachError, ConnectError, Driver, DriverFigures, Full, Leaked, Wait};
pub use error::{ListenError, NetError};
pub use incoming::Incoming;
pub use lent::{Desk, Lent};
pub use memory::resident_bytes;
pub use options::{ConnectOptions, DriverSettings, ListenOptions, SocketOptions};
pub use outgoing::{OUTGOING_PIECES_MAX, Outgoing};
pub use private::{create_private, entropy, is_private};
pub use time::Time;
pub use token::{Conn, Listener, OpKind, Token};
pub use waker::{Wake, Waker};
