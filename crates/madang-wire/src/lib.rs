//! Madang's codec and framings: what its bytes look like on a stream, and nothing else.
//!
//! ```text
//!  bytes of one connection          this crate                      the engine
//!  ───────────────────────► find ──► open ──► kind, payload ──► message, or control
//!                                    seal ◄── payload       ◄── packet in a send queue
//! ```
//!
//! * [`Reader`] and [`Writer`] read and write typed little-endian values, checked.
//! * [`Framing`] is what every framing does: *find* a frame in a stream, *open* it in place, *seal* a payload.
//! * [`lan`] is the engine's framing between servers, with its greeting, heartbeat and goodbye.
//! * [`be32`] and [`classic`] are two framings of games that already have clients.
//! * `wan` (feature `wan`) is the engine's framing on the open internet, and seals LAN links: a Noise handshake, then
//!   records that are opened and sealed in place.
//!
//! The crate names no socket, clock, thread, pool or session, allocates nothing (handshakes apart), and holds no buffer:
//! the caller keeps the bytes of a partial frame and asks again. All that arrives here was written by a stranger, so every function is
//! total: it answers or returns a typed error, whatever the bytes. `docs/wire.md` of the project is the normative
//! description of the bytes; the tests and the golden frames in `vectors/` hold the two together.
//!
//! ```
//! use madang_wire::lan::LanFraming;
//! use madang_wire::{Find, FrameLimit, Kind, Reader, lan};
//!
//! // Our half of the link: the peer's bytes are a server's.
//! let mut framing = LanFraming::server(FrameLimit::DEFAULT);
//!
//! // What a client sends first.
//! let greeting = lan::Greeting { service: "login", node: "login-1", incarnation: 7, ..lan::Greeting::default() };
//! let mut stream = [0; lan::CONTROL_FRAME_MAX];
//! let len = greeting.to_frame(&mut stream)?;
//!
//! assert_eq!(framing.find(&stream[..3])?, Find::Need { total: 4 });
//! assert_eq!(framing.find(&stream[..len])?, Find::Frame { len });
//! let opened = framing.open(&stream[..len])?;
//! assert_eq!(opened.kind, Kind::Greeting);
//! assert_eq!(lan::Greeting::from_payload(&stream[opened.payload])?.node, "login-1");
//!
//! // A message is a header and the payload.
//! let mut frame = lan::header(Kind::Message, 2).to_vec();
//! frame.extend(777u16.to_le_bytes());
//! let payload = framing.open(&frame)?.payload;
//! assert_eq!(Reader::new(&frame[payload]).u16()?, 777);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
// A peer's bytes come here: nothing may panic on them, wrap, or index past an end.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

pub mod be32;
pub mod classic;
pub mod codec;
pub mod framing;
pub mod lan;
#[cfg(feature = "wan")]
pub mod wan;

pub use codec::{ReadError, Reader, WriteError, Writer};
pub use framing::{
    Find, FrameError, FrameLimit, Framing, Kind, Next, Opened, Overhead, SealError, SealSlot, Sealed,
    seal_frame,
};
