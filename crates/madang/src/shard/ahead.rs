//! Looking ahead: the sessions whose turn comes next are asked for while another is worked on.
//!
//! Between two turns of a session the others, and the kernel, have used the cache for themselves. What an encrypted one needs
//! first is the direction's key, 0.6 KiB that lie nowhere near its slot: its lines would be waited for one after the other.

use madang_driver::{Completion, Driver};

use super::Shard;
use super::connections::Owner;
use crate::speech::Speech;

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
        if let Some(speech) = session_of(AHEAD / 2).and_then(|local| self.speech_of(local)) {
            speech.prefetch_theirs();
        }
    }

    /// Before a session is flushed: `rest` are those behind it.
    #[inline]
    pub(super) fn look_ahead_of_flush(&self, rest: &[u32]) {
        if let Some(local) = rest.get(AHEAD) {
            self.core.sessions.prefetch(*local);
        }
        if let Some(speech) = rest.get(AHEAD / 2).and_then(|local| self.speech_of(*local)) {
            speech.prefetch_ours();
        }
    }

    #[inline]
    fn speech_of(&self, local: u32) -> Option<&Speech> {
        self.core.sessions.get(local).map(|session| &session.speech)
    }
}
