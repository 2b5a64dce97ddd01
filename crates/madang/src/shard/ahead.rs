//! Looking ahead: the sessions whose turn comes next are asked for while another is worked on.
//!
//! Between two turns of a session the others, and the kernel, have used the cache for themselves. What an encrypted one needs
//! first is the direction's key, 0.6 KiB that lie nowhere near its slot: its lines would be waited for one after the other.

use madang_driver::{Completion, Driver};

use super::Shard;
use super::connections::Owner;
#[cfg(feature = "wan")]
use crate::speech::{Records, Speech};

/// So many turns ahead a session's slot is asked for, and at half the way, when that has come, what it points to.
const AHEAD: usize = 4;

impl<D: Driver> Shard<D> {
    /// Before a completion is handled: `rest` are those behind it.
    #[inline]
    pub(super) fn look_ahead(&self, rest: &[Completion]) {
        let session_of = |at: usize| match rest.get(at)? {
            Completion::Data { conn, .. } => match self.connections.of(*conn)? {
                Owner::Session(local) => Some(local),
                Owner::Embryo(_) => None,
            },
            _ => None,
        };
        if let Some(local) = session_of(AHEAD) {
            self.core.sessions.prefetch(local);
        }
        if let Some(local) = session_of(AHEAD / 2) {
            self.prefetch_opening(local);
        }
    }

    /// Before a session is flushed: `rest` are those behind it.
    #[inline]
    pub(super) fn look_ahead_of_flush(&self, rest: &[u32]) {
        if let Some(local) = rest.get(AHEAD) {
            self.core.sessions.prefetch(*local);
        }
        if let Some(local) = rest.get(AHEAD / 2) {
            self.prefetch_sealing(*local);
        }
    }

    #[inline]
    fn prefetch_opening(&self, local: u32) {
        #[cfg(feature = "wan")]
        if let Some(records) = self.records(local) {
            madang_packet::prefetch(&records.theirs);
        }
        #[cfg(not(feature = "wan"))]
        let _ = local;
    }

    #[inline]
    fn prefetch_sealing(&self, local: u32) {
        #[cfg(feature = "wan")]
        if let Some(records) = self.records(local) {
            madang_packet::prefetch(&records.ours);
        }
        #[cfg(not(feature = "wan"))]
        let _ = local;
    }

    #[cfg(feature = "wan")]
    #[inline]
    fn records(&self, local: u32) -> Option<&Records> {
        match &self.core.sessions.get(local)?.speech {
            Speech::Sealed(records) => Some(records),
            _ => None,
        }
    }
}
