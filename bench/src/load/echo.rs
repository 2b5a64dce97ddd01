//! Echo load: a closed loop with a fixed number of messages outstanding, or a paced one at a fixed rate.

use std::io;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::latency::Latency;
use super::links::{Event, Links, Stamp};
use super::window::Stopwatch;
use super::{ANSWER_DEADLINE, Probe, Span, Window};

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection keeps this many outstanding: an answer is what lets the next message go. Latency counts from the
    /// send.
    Closed {
        /// Messages outstanding on each connection.
        depth: u32,
    },
    /// So many messages a second over all connections, in turn, whether answers come or not. Latency counts from when a
    /// message was due, so that a stalled server cannot hide the wait of the messages behind.
    Rate {
        /// Messages per second.
        per_second: u32,
    },
}

impl Pace {
    /// Messages that each connection keeps outstanding; a rate keeps none.
    fn depth(self) -> u32 {
        match self {
            Self::Closed { depth } => depth,
            Self::Rate { .. } => 0,
        }
    }
}

/// Sends equal frames on all links and counts what comes back.
pub struct EchoLoad<'ring> {
    links: Links<'ring>,
    pace: Pace,
    frame_bytes: u32,
    /// As many frames as one send may carry.
    frames: &'static [u8],
    state: State,
}

/// Apart from the links, so that a turn can lend the one to the other.
struct State {
    latency: Latency,
    frame_bytes: u32,
    /// Answers make room for new messages.
    refill: bool,
    messages: u64,
    outstanding: u64,
    dirty: Vec<usize>,
    /// The time of this turn's events.
    now: u64,
}

/// A paced connection that is behind sends at most this many messages at once.
const PACED_BURST: u32 = 16;

impl<'ring> EchoLoad<'ring> {
    /// A load of messages with `payload_bytes` each. The frames live as long as the process.
    pub fn new(links: Links<'ring>, pace: Pace, payload_bytes: usize) -> Self {
        let burst = match pace {
            Pace::Closed { depth } => depth,
            Pace::Rate { .. } => PACED_BURST,
        };
        let mut frame = links.framing().header(payload_bytes).to_vec();
        frame.extend((0..payload_bytes).map(|index| index as u8));
        let frame_bytes = frame.len() as u32;
        let frames = Box::leak(frame.repeat(burst as usize).into_boxed_slice());
        let state = State {
            latency: Latency::new(),
            frame_bytes,
            refill: false,
            messages: 0,
            outstanding: 0,
            dirty: Vec::new(),
            now: 0,
        };
        Self { links, pace, frame_bytes, frames, state }
    }

    /// Loads through `span` and then waits until every message has come back.
    ///
    /// # Errors
    /// A connection broke, the server is gone, or answers are missing or too many.
    pub fn window(&mut self, probe: Probe, span: Span) -> anyhow::Result<Window> {
        let depth = self.pace.depth();
        let rotation = u64::from(depth) * self.links.count() as u64;
        let mut stopwatch = Stopwatch::start(probe, span, self.state.messages, rotation);
        let started = Instant::now();
        let mut paced = 0;
        if depth > 0 {
            self.state.refill = true;
            for link in 0..self.links.count() {
                self.state.owe(&mut self.links, link, depth);
            }
        }
        loop {
            let now = self.turn()?;
            if let Pace::Rate { per_second } = self.pace {
                paced = self.send_due(started, now, paced, per_second);
            }
            if !stopwatch.look(now, self.state.messages, &mut self.state.latency)? {
                break;
            }
        }
        let window = stopwatch.window(&self.state.latency)?;
        self.state.refill = false;
        self.settle()?;
        Ok(window)
    }

    /// On every link once as many messages as the closed loop has outstanding; at most `at_most` messages (and one link's
    /// more) are under way at a time. An exact number of messages, however slow the server.
    ///
    /// # Errors
    /// As [`EchoLoad::window`].
    pub fn sweep(&mut self, at_most: u64) -> anyhow::Result<()> {
        ensure!(self.pace.depth() > 0, "only the closed loop has a sweep");
        for link in 0..self.links.count() {
            self.state.owe(&mut self.links, link, self.pace.depth());
            let deadline = Instant::now() + ANSWER_DEADLINE;
            while self.state.outstanding >= at_most {
                let now = self.turn()?;
                ensure!(now < deadline, "{} messages were not answered", self.state.outstanding);
            }
        }
        self.settle()
    }

    /// Adds the messages that are due by now; returns how many have been due so far.
    fn send_due(&mut self, started: Instant, now: Instant, sent: u64, per_second: u32) -> u64 {
        let due = ((now - started).as_nanos() * u128::from(per_second) / 1_000_000_000) as u64;
        for number in sent..due {
            let link = (number % self.links.count() as u64) as usize;
            let since_start = Duration::from_nanos(number * 1_000_000_000 / u64::from(per_second));
            let at = self.state.latency.stamp(started + since_start);
            self.links.all[link].stamps.push_back(Stamp { at, messages: 1 });
            self.state.owe(&mut self.links, link, 1);
        }
        due
    }

    /// Handles what has happened and sends what is due; returns the time that its events were stamped with.
    fn turn(&mut self) -> anyhow::Result<Instant> {
        self.links.look()?;
        let now = Instant::now();
        self.state.now = self.state.latency.stamp(now);
        let state = &mut self.state;
        self.links.each(|links, event| state.handle(links, event))?;
        self.flush()?;
        Ok(now)
    }

    /// One send for each link that owes messages and has nothing in flight.
    fn flush(&mut self) -> io::Result<()> {
        let closed = self.pace.depth() > 0;
        let mut dirty = std::mem::take(&mut self.state.dirty);
        for link in dirty.drain(..) {
            let free = self.links.is_free(link);
            let owing = &mut self.links.all[link];
            owing.dirty = false;
            if !free {
                continue; // its `Sent` makes it dirty again
            }
            let messages = owing.due.min(self.frames.len() as u32 / self.frame_bytes);
            owing.due -= messages;
            if closed {
                owing.stamps.push_back(Stamp { at: self.state.now, messages });
            }
            self.links.send(link, &self.frames[..(messages * self.frame_bytes) as usize])?;
        }
        self.state.dirty = dirty;
        Ok(())
    }

    /// Waits for what is outstanding, and checks that it was whole frames and no more.
    fn settle(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        while self.state.outstanding > 0 {
            let now = self.turn()?;
            ensure!(now < deadline, "{} messages were not answered", self.state.outstanding);
        }
        let ragged = self.links.all.iter().position(|link| link.partial_bytes > 0);
        ensure!(ragged.is_none(), "connection {ragged:?} got part of a frame too many");
        Ok(())
    }
}

impl State {
    /// `link` is to send so many messages more.
    fn owe(&mut self, links: &mut Links<'_>, link: usize, messages: u32) {
        self.outstanding += u64::from(messages);
        links.all[link].due += messages;
        self.mark(links, link);
    }

    fn mark(&mut self, links: &mut Links<'_>, link: usize) {
        if !std::mem::replace(&mut links.all[link].dirty, true) {
            self.dirty.push(link);
        }
    }

    fn handle(&mut self, links: &mut Links<'_>, event: Event) -> io::Result<()> {
        match event {
            Event::Sent { link } if links.all[link].due > 0 => self.mark(links, link),
            Event::Sent { .. } => {}
            Event::Received { link, bytes } => {
                let bytes = links.all[link].partial_bytes + bytes;
                links.all[link].partial_bytes = bytes % self.frame_bytes;
                self.answered(links, link, bytes / self.frame_bytes)?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, links: &mut Links<'_>, link: usize, messages: u32) -> io::Result<()> {
        let mut left = messages;
        while left > 0 {
            let Some(stamp) = links.all[link].stamps.front_mut() else {
                return Err(io::Error::other(format!("connection {link} got {left} answers too many")));
            };
            let here = left.min(stamp.messages);
            self.latency.record(stamp.at, self.now, here);
            stamp.messages -= here;
            left -= here;
            if stamp.messages == 0 {
                links.all[link].stamps.pop_front();
            }
        }
        self.messages += u64::from(messages);
        self.outstanding -= u64::from(messages);
        if self.refill && messages > 0 {
            self.owe(links, link, messages);
        }
        Ok(())
    }
}
