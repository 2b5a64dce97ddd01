//! The load client: one thread that spins on its own ring, fast enough to keep one server CPU busy.
//!
//! It drops payload in the kernel (`MSG_TRUNC`) and counts bytes, so that it costs less than the server it measures; that
//! every byte is right is [`verify`]'s business, before anything is timed. Around each measurement it reads the server's
//! CPU time itself: a process in between would blur the window's edges.
//!
//! ```text
//!   ramp ──► links ──► echo (closed loop, or paced) ──┐
//!                  ──► broadcast                      ├──► Window: messages, server CPU, latency
//!   churn (connects by itself) ───────────────────────┘
//! ```

pub mod broadcast;
pub mod churn;
pub mod echo;
mod latency;
pub mod links;
pub mod ramp;
pub mod verify;
mod window;

pub use window::{Probe, Span, Window};

use std::time::Duration;

/// How long a client waits for answers that are due before it gives up: tokio's slowest at 10,000 connections are below
/// a second.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
