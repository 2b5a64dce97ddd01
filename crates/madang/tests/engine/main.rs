//! The engine on real sockets of loopback, with each driver: what a peer that knows nothing of the engine, and content
//! that records everything, can see of it.
//!
//! Peers are blocking sockets that speak the bytes of `docs/wire.md` by hand. Content is a [`support::Recorder`]; its
//! ledger checks in every test that callbacks come in the order of a session's life.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests look at the engine from outside: they have a clock and tables of their own"
)]

#[macro_use]
mod support;

mod admission;
mod budget;
mod content;
mod crowd;
#[cfg(unix)]
mod descriptors;
mod framings;
mod greeting;
mod groups;
mod handler;
mod leaving;
mod limits;
mod links;
mod operation;
mod overload;
mod queue;
mod rules;
#[cfg(feature = "wan")]
mod sealed;
mod sending;
mod sessions;
mod slow;
mod users;
#[cfg(feature = "wan")]
mod wan;
#[cfg(feature = "wan")]
mod wan_attacks;
#[cfg(feature = "wan")]
mod wan_endings;
#[cfg(feature = "wan")]
mod wan_line;
