//! Speed and memory of the engine, measured beside what could be had without it.
//!
//! ```text
//!   runner ──starts──► servers, pinned to CPU 0:  floor · tokio_codec · tokio_tuned · engine
//!      │                      ▲
//!      │                      │ be32 frames over loopback, or (one contender) encrypted records
//!      └──commands──► one loadgen a server, pinned to CPU 1: counts, times, reads the server's CPU time
//! ```
//!
//! The *floor* is the barest io_uring server that still echoes and broadcasts; it says what the kernel costs. The
//! tokio servers say what a user would have written instead. The figure that counts is **server CPU time per
//! message**, compared between servers that took turns within the same second: see [`runner`].
//!
//! What this crate deliberately does not do: measure over a real network, or compare absolute nanoseconds between
//! runs. On a shared machine those move by 1.4 times; ratios of neighbouring windows hold still.
//!
//! Linux only, as is the driver it judges.

pub mod floor;
pub mod host;
pub mod load;
pub mod ring;
pub mod runner;
pub mod sockets;
pub mod tokio_server;
pub mod wan;
pub mod wire;
