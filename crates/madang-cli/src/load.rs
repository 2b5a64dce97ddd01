//! Measuring a server under load: when a message is due, how long its echo took, and how a run is shown.
//!
//! The parts here know neither sockets nor clocks: a caller says what time it is, in nanoseconds since the run began.

pub(crate) mod latency;
pub(crate) mod report;
pub(crate) mod schedule;
