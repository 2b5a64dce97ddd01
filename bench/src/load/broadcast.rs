//! Broadcast load: one connection triggers a turn, all of them receive it.

use std::time::Instant;

use anyhow::ensure;

use super::latency::Latency;
use super::links::{Event, Links};
use super::window::Stopwatch;
use super::{ANSWER_DEADLINE, Probe, Span, Window};
use crate::wire::{self, Trigger};

/// Turns before a window. A receiver that was idle acknowledges its first sixteen segments one by one (Linux'
/// `TCP_MAX_QUICKACKS`), and then every second: until that is over a server pays a third more, and who was measured right
/// before, and had not been idle, would win. The warm-up's fifth of a second is seven turns of five thousand receivers.
const TURNS_AFTER_IDLE: usize = 20;

/// Triggers the next turn when every receiver has all of the one before. A message counts once per receiver; latency is
/// from the trigger to the last receiver's last byte.
pub struct BroadcastLoad<'ring> {
    links: Links<'ring>,
    latency: Latency,
    trigger: &'static [u8],
    messages_per_turn: u32,
    /// What each receiver gets per turn.
    bytes_per_turn: u64,
}

impl<'ring> BroadcastLoad<'ring> {
    /// A load of turns with `messages_per_turn` messages of `payload_bytes`. The first link triggers, and receives too.
    pub fn new(links: Links<'ring>, messages_per_turn: u32, payload_bytes: usize) -> Self {
        let trigger = Trigger { messages: messages_per_turn, payload_bytes: payload_bytes as u32 };
        let frame_bytes = (wire::HEADER_BYTES + payload_bytes) as u64;
        let trigger = Box::leak(trigger.frame(links.framing()).into_boxed_slice());
        Self {
            links,
            latency: Latency::new(),
            trigger,
            messages_per_turn,
            bytes_per_turn: frame_bytes * u64::from(messages_per_turn),
        }
    }

    /// Loads through `span`. The window is a whole number of turns.
    ///
    /// # Errors
    /// A connection broke, the server is gone, or deliveries are missing.
    pub fn window(&mut self, probe: Probe, span: Span) -> anyhow::Result<Window> {
        for _ in 0..TURNS_AFTER_IDLE {
            self.turn_of_the_server()?;
        }
        let mut stopwatch = Stopwatch::start(probe, span, 0, 0);
        let mut messages = 0;
        let per_turn = u64::from(self.messages_per_turn) * self.links.count() as u64;
        loop {
            let now = self.turn_of_the_server()?;
            messages += per_turn;
            if !stopwatch.look(now, messages, &mut self.latency)? {
                return stopwatch.window(&self.latency);
            }
        }
    }

    /// Triggers one turn and waits until it has arrived everywhere.
    fn turn_of_the_server(&mut self) -> anyhow::Result<Instant> {
        let started = Instant::now();
        let mut missing = self.bytes_per_turn * self.links.count() as u64;
        self.links.send(0, self.trigger)?;
        let mut now = started;
        while missing > 0 || !self.links.is_free(0) {
            ensure!(now - started < ANSWER_DEADLINE, "{missing} bytes of a turn did not arrive");
            self.links.look()?;
            now = Instant::now();
            let mut surplus = false;
            let expected = self.bytes_per_turn;
            self.links.each(|links, event| {
                if let Event::Received { link, bytes } = event {
                    let received = u64::from(links.all[link].partial_bytes + bytes);
                    surplus |= received > expected;
                    links.all[link].partial_bytes = (received % expected) as u32;
                    missing = missing.saturating_sub(u64::from(bytes));
                }
                Ok(())
            })?;
            ensure!(!surplus, "a receiver got more than its turn");
        }
        let ragged = self.links.all.iter().position(|link| link.partial_bytes > 0);
        ensure!(ragged.is_none(), "connection {ragged:?} got part of another's turn");
        self.latency.record(self.latency.stamp(started), self.latency.stamp(now), self.messages_per_turn);
        Ok(now)
    }
}
