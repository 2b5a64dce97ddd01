//! Runs servers side by side and says by how much they differ, and how sure that is.
//!
//! ```text
//!   scenario ─┬─ generation: every contender's server (CPU 0) and load client (CPU 1) started afresh, connections open
//!             │    round 0:  A  B  C     each letter: load one server for warm-up + window, wait until it is silent
//!             │    round 1:  C  B  A     (the others hold their connections and sleep: they cost nothing)
//!             │    ...
//!             └─ generation ...
//! ```
//!
//! A ratio compares two windows of the **same round**: seconds apart, so that what slows the machine slows both. A limit
//! is judged by the median of these ratios and its 95 % interval. Fresh generations matter: where a process's memory
//! happens to lie moves its speed by several percent for as long as it lives.

pub mod contender;
pub mod judge;
pub mod measure;
pub mod plan;
pub mod process;
pub mod record;
pub mod report;
