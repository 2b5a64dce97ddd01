//! Triggers in, encoded turns out.

use std::collections::HashMap;
use std::rc::Rc;

use crate::wire::{self, Trigger};

/// The state of broadcast mode.
#[derive(Default)]
pub(super) struct Broadcasts {
    /// Bytes heard from a connection that are not yet a whole frame. Triggers are few, so this stays nearly empty.
    heard: HashMap<u32, Vec<u8>>,
    /// Broadcast messages so far.
    sequence: u64,
}

/// Frames, encoded once, and who gets them.
pub(super) enum Answer {
    Sender(Rc<[u8]>),
    Everyone(Rc<[u8]>),
}

impl Broadcasts {
    pub(super) fn hear(&mut self, slot: u32, bytes: &[u8]) {
        self.heard.entry(slot).or_default().extend_from_slice(bytes);
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.heard.remove(&slot);
    }

    /// The next answer to what `slot` said. Frames that are no trigger are passed over.
    pub(super) fn next(&mut self, slot: u32) -> Option<Answer> {
        let heard = self.heard.get_mut(&slot)?;
        loop {
            let payload = wire::first_payload(heard)?;
            let frame_bytes = wire::HEADER_BYTES + payload.len();
            let trigger = Trigger::parse(payload);
            let frame: Vec<u8> = heard.drain(..frame_bytes).collect();
            match trigger {
                Some(Trigger { messages: 0, .. }) => return Some(Answer::Sender(frame.into())),
                Some(trigger) => return Some(Answer::Everyone(turn(&mut self.sequence, trigger))),
                None => {}
            }
        }
    }
}

/// The frames of one turn, each with the next sequence number.
fn turn(sequence: &mut u64, trigger: Trigger) -> Rc<[u8]> {
    let mut frames = Vec::new();
    for _ in 0..trigger.messages {
        frames.extend_from_slice(&wire::header(trigger.payload_bytes as usize));
        wire::append_broadcast_payload(&mut frames, *sequence, trigger.payload_bytes);
        *sequence += 1;
    }
    frames.into()
}
