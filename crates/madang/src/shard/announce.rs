//! A stop that is announced: players hear how long there is left, and nobody else comes in.
//!
//! ```text
//!   announce ─► the gate: newcomers and waiters are refused (Draining) ─► every shard: a word to each player
//!   … they leave by themselves, or at the end with the drain
//! ```

use std::time::Duration;

use madang_driver::Driver;

use super::Shard;
use crate::letters::Word;

impl<D: Driver> Shard<D> {
    /// The server will stop in so long. Said again, it counts from then.
    pub(super) fn announce(&mut self, left: Duration) {
        if self.stopping.is_some() {
            return;
        }
        self.stops_at = Some(self.core.now + left);
        if let Some(gate) = &mut self.gate {
            gate.announce(&mut self.core);
            for mailbox in &self.core.fabric.mailboxes[1..] {
                mailbox.control(Word::Announce { left });
            }
        }
        for local in 0..self.core.sessions.end() {
            self.say_draining(local);
        }
    }

    /// Tells a session's peer how long there is left, if it was announced and the framing has a word for it.
    pub(super) fn say_draining(&mut self, local: u32) {
        #[cfg(feature = "wan")]
        {
            let (Some(stops_at), crate::framing::Protocol::Wan(_)) =
                (self.stops_at, &self.core.fabric.protocol)
            else {
                return;
            };
            if self.core.sessions.get(local).is_none_or(|session| session.is_leaving()) {
                return;
            }
            let left = stops_at.since(self.core.now).as_millis();
            let draining = madang_wire::wan::Draining { grace_ms: u32::try_from(left).unwrap_or(u32::MAX) };
            let mut frame = [0; madang_wire::lan::CONTROL_FRAME_MAX];
            let len = draining.to_frame(&mut frame).expect("a control frame fits its room");
            self.core.queue_control(local, &frame[..len]);
        }
        #[cfg(not(feature = "wan"))]
        let _ = local;
    }

    /// Client: the server of a session says that it will stop.
    #[cfg(feature = "wan")]
    pub(super) fn hear_draining(&mut self, local: u32, payload: &[u8]) {
        let Ok(draining) = madang_wire::wan::Draining::from_payload(payload) else { return };
        let Some(id) = self.core.sessions.get(local).map(|session| session.id) else { return };
        let left = Duration::from_millis(draining.grace_ms.into());
        self.call(local, id, super::callbacks::Call::Draining(left));
    }
}
