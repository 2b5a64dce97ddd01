//! One connection's bytes as frames, both ways, in any of the framings.

pub(crate) mod wan;

use std::fmt;

use madang::wire::be32::Be32;
use madang::wire::classic::{Classic, ClassicSettings};
use madang::wire::lan::{self, LanFraming};
use madang::wire::{Find, FrameError, FrameLimit, Kind, WriteError, seal_frame};

use self::wan::{Pinned, Prepared, Wan};
use super::failure::Failure;
use super::message::Messages;
use crate::framing::Framing;

/// What the connections of a run speak.
#[derive(Clone, Debug)]
pub(crate) enum Speech {
    Plain(Framing),
    Wan(Pinned),
}

#[derive(Debug)]
pub(crate) struct Stream {
    wire: Wire,
    /// The beginning of a frame or record whose rest has not come: never more than one.
    partial: Vec<u8>,
}

/// The state of a framing, or of a handshake and the records behind it.
enum Wire {
    Plain(Box<dyn madang::wire::Framing>),
    Wan(Box<Wan>),
}

impl Speech {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Plain(framing) => framing.name(),
            Self::Wan(_) => "wan",
        }
    }

    /// The longest message that it can carry.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Self::Plain(Framing::Lan | Framing::Be32) | Self::Wan(_) => FrameLimit::MAX.get() as usize,
            Self::Plain(Framing::Classic) => ClassicSettings::default().limit.into(),
        }
    }

    /// What a client says last; empty where there is no such word.
    pub(crate) fn goodbye(&self) -> Vec<u8> {
        if let Self::Plain(Framing::Be32 | Framing::Classic) = self {
            return Vec::new();
        }
        let goodbye = lan::Goodbye { reason: lan::GoodbyeReason::Stopping, code: 0 };
        control(|room| goodbye.to_frame(room))
    }

    /// A connection for messages of up to `size` bytes, and what it says first: nothing where there is no greeting. `seed`
    /// differs between connections, and so does what `entropy` gives.
    pub(crate) fn begin(
        &self,
        size: usize,
        seed: u64,
        entropy: impl FnOnce() -> [u8; 32],
    ) -> (Stream, Vec<u8>) {
        match self {
            Self::Plain(framing) => (Stream::plain(*framing, size, seed), greeting(*framing, size)),
            Self::Wan(pinned) => Stream::wan(pinned, Prepared::new(pinned, size, entropy()), size),
        }
    }
}

impl Stream {
    fn plain(framing: Framing, size: usize, seed: u64) -> Self {
        let limit = limit_for(size);
        let wire: Box<dyn madang::wire::Framing> = match framing {
            Framing::Lan => Box::new(LanFraming::client(limit)),
            Framing::Be32 => Box::new(Be32::new(limit)),
            Framing::Classic => Box::new(Classic::new(ClassicSettings::default(), seed)),
        };
        Self { wire: Wire::Plain(wire), partial: Vec::new() }
    }

    /// A client of a WAN server whose preamble was made before, and that preamble.
    pub(crate) fn wan(pinned: &Pinned, prepared: Prepared, size: usize) -> (Self, Vec<u8>) {
        let (wan, preamble) = Wan::new(pinned, prepared, size);
        (Self { wire: Wire::Wan(Box::new(wan)), partial: Vec::new() }, preamble)
    }

    /// Appends message `sequence` of a connection to `out`, framed.
    pub(crate) fn say(&mut self, messages: &Messages, connection: usize, sequence: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let framing = match &mut self.wire {
            Wire::Plain(framing) => framing,
            Wire::Wan(_) => {
                out.extend(lan::header(Kind::Message, messages.size() as u32));
                out.resize(start + lan::HEADER + messages.size(), 0);
                return messages.write(connection, sequence, &mut out[start + lan::HEADER..]);
            }
        };
        let overhead = framing.overhead();
        out.resize(start + overhead.total() + messages.size(), 0);
        let room = &mut out[start..];
        messages.write(connection, sequence, &mut room[overhead.head..][..messages.size()]);
        let len = seal_frame(&mut **framing, room).expect("the size was checked against the framing's limit");
        out.truncate(start + len);
    }

    /// Records so far, ours and the server's; none where there is no such thing.
    pub(crate) fn records(&self) -> Option<(u64, u64)> {
        match &self.wire {
            Wire::Plain(_) => None,
            Wire::Wan(wan) => Some(wan.records()),
        }
    }

    /// Frames become bytes of the stream, which they are already but on a WAN.
    pub(crate) fn pack(&mut self, frames: &mut Vec<u8>) {
        if let Wire::Wan(wan) = &mut self.wire {
            let plain = std::mem::take(frames);
            wan.pack(&plain, frames);
        }
    }

    /// Hands each frame that is whole by now to `each`, in order, and keeps the rest.
    pub(crate) fn hear(
        &mut self,
        mut bytes: &mut [u8],
        mut each: impl FnMut(Kind, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let framing = match &mut self.wire {
            Wire::Plain(framing) => framing,
            Wire::Wan(wan) if self.partial.is_empty() => {
                let used = wan.hear(bytes, &mut each)?;
                self.partial.extend_from_slice(&bytes[used..]);
                return Ok(());
            }
            Wire::Wan(wan) => {
                self.partial.extend_from_slice(bytes);
                let used = wan.hear(&mut self.partial, &mut each)?;
                self.partial.drain(..used);
                return Ok(());
            }
        };
        while !self.partial.is_empty() {
            match framing.find(&self.partial)? {
                Find::Need { total } => {
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    let more = (total - self.partial.len()).min(bytes.len());
                    let (head, rest) = bytes.split_at_mut(more);
                    self.partial.extend_from_slice(head);
                    bytes = rest;
                }
                Find::Frame { len } if len == self.partial.len() => {
                    let opened = framing.open(&mut self.partial)?;
                    each(opened.kind, &self.partial[opened.payload])?;
                    self.partial.clear();
                }
                Find::Frame { .. } => return Err(FrameError::NotOneFrame.into()),
            }
        }
        while let Find::Frame { len } = framing.find(bytes)? {
            let (frame, rest) = bytes.split_at_mut(len);
            let opened = framing.open(frame)?;
            each(opened.kind, &frame[opened.payload])?;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain"),
            Self::Wan(wan) => wan.fmt(f),
        }
    }
}

/// A LAN's greeting. Who speaks another framing begins with messages.
fn greeting(framing: Framing, size: usize) -> Vec<u8> {
    if framing != Framing::Lan {
        return Vec::new();
    }
    let greeting =
        lan::Greeting { service: "load", frame_limit: limit_for(size), ..lan::Greeting::default() };
    control(|room| greeting.to_frame(room))
}

fn control(write: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut frame = vec![0; lan::CONTROL_FRAME_MAX];
    let len = write(&mut frame).expect("there is room for every control frame");
    frame.truncate(len);
    frame
}

fn limit_for(size: usize) -> FrameLimit {
    let size = u32::try_from(size).ok().and_then(FrameLimit::new);
    size.unwrap_or(FrameLimit::MAX).max(FrameLimit::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 40;

    /// Three messages in a framing that has no greeting, or the payloads of a LAN server's first words.
    fn said(framing: Framing) -> Vec<u8> {
        let messages = Messages::new(SIZE);
        let mut stream = Stream::plain(framing, SIZE, 5);
        let mut bytes = Vec::new();
        (0..3).for_each(|sequence| stream.say(&messages, 1, sequence, &mut bytes));
        bytes
    }

    #[test]
    fn frames_are_heard_however_the_stream_is_cut() {
        for framing in [Framing::Be32, Framing::Classic] {
            let bytes = said(framing);
            for first in 0..=bytes.len() {
                for second in [first, (first + 1).min(bytes.len()), (first + 50).min(bytes.len())] {
                    let messages = Messages::new(SIZE);
                    let mut stream = Stream::plain(framing, SIZE, 9);
                    let mut heard = 0;
                    for part in [0..first, first..second, second..bytes.len()] {
                        let each = |kind, payload: &[u8]| {
                            assert_eq!(kind, Kind::Message);
                            assert!(
                                messages.is(1, heard, payload),
                                "{framing:?}: {heard}, cut at {first}, {second}"
                            );
                            heard += 1;
                            Ok(())
                        };
                        stream.hear(&mut bytes[part].to_vec(), each).expect("our own frames");
                    }
                    assert_eq!(
                        (heard, stream.partial.len()),
                        (3, 0),
                        "{framing:?}: cut at {first} and {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_partial_frame_never_holds_more_than_itself() {
        let bytes = said(Framing::Be32);
        let mut stream = Stream::plain(Framing::Be32, SIZE, 0);
        for part in bytes.chunks(SIZE + 3) {
            stream.hear(&mut part.to_vec(), |_, _| Ok(())).expect("our own frames");
            assert!(stream.partial.len() <= SIZE + 4);
        }
    }

    #[test]
    fn what_is_no_frame_is_a_failure() {
        for (framing, bytes) in [
            (Framing::Be32, &[0, 0, 0, 0][..]),
            (Framing::Be32, &[0xff; 4]),
            (Framing::Classic, &[0]),
            (Framing::Lan, &[1, 0, 0, 4, 1]),
        ] {
            let result = Stream::plain(framing, SIZE, 0).hear(&mut bytes.to_vec(), |_, _| Ok(()));
            assert!(matches!(result, Err(Failure::Frame(_))), "{framing:?} {bytes:?}: {result:?}");
        }
    }
}
