//! One connection's bytes as frames, both ways, in any of the framings.

use madang::wire::be32::Be32;
use madang::wire::classic::{Classic, ClassicSettings};
use madang::wire::lan::{self, LanFraming};
use madang::wire::{Find, FrameError, FrameLimit, Kind, WriteError, seal_frame};

use super::failure::Failure;
use super::message::Messages;
use crate::framing::Framing;

#[derive(Debug)]
pub(crate) struct Stream {
    wire: Wire,
    /// The beginning of a frame whose rest has not come: never more than one frame.
    partial: Vec<u8>,
}

/// The state of a framing.
#[derive(Debug)]
enum Wire {
    Lan(LanFraming),
    Be32(Be32),
    Classic(Classic),
}

impl Stream {
    /// For messages of up to `size` bytes; `seed` differs between connections.
    pub(crate) fn new(framing: Framing, size: usize, seed: u64) -> Self {
        let limit = limit_for(size);
        let wire = match framing {
            Framing::Lan => Wire::Lan(LanFraming::client(limit)),
            Framing::Be32 => Wire::Be32(Be32::new(limit)),
            Framing::Classic => Wire::Classic(Classic::new(ClassicSettings::default(), seed)),
        };
        Self { wire, partial: Vec::new() }
    }

    /// What a client of this framing says before anything else; empty where there is no greeting.
    pub(crate) fn greeting(framing: Framing, size: usize) -> Vec<u8> {
        if framing != Framing::Lan {
            return Vec::new();
        }
        let greeting =
            lan::Greeting { service: "load", frame_limit: limit_for(size), ..lan::Greeting::default() };
        control(|room| greeting.to_frame(room))
    }

    /// What it says last.
    pub(crate) fn goodbye(framing: Framing) -> Vec<u8> {
        if framing != Framing::Lan {
            return Vec::new();
        }
        let goodbye = lan::Goodbye { reason: lan::GoodbyeReason::Stopping, code: 0 };
        control(|room| goodbye.to_frame(room))
    }

    /// Appends message `sequence` of a connection to `out`, framed.
    pub(crate) fn say(&mut self, messages: &Messages, connection: usize, sequence: u64, out: &mut Vec<u8>) {
        let framing = self.wire.framing();
        let overhead = framing.overhead();
        let start = out.len();
        out.resize(start + overhead.total() + messages.size(), 0);
        let room = &mut out[start..];
        messages.write(connection, sequence, &mut room[overhead.head..][..messages.size()]);
        let len = seal_frame(framing, room).expect("the size was checked against the framing's limit");
        out.truncate(start + len);
    }

    /// Hands each frame that is whole by now to `each`, in order, and keeps the rest.
    pub(crate) fn hear(
        &mut self,
        mut bytes: &mut [u8],
        mut each: impl FnMut(Kind, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let framing = self.wire.framing();
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

impl Wire {
    fn framing(&mut self) -> &mut dyn madang::wire::Framing {
        match self {
            Self::Lan(lan) => lan,
            Self::Be32(be32) => be32,
            Self::Classic(classic) => classic,
        }
    }
}

fn control(write: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut frame = vec![0; lan::CONTROL_FRAME_MAX];
    let len = write(&mut frame).expect("there is room for every control frame");
    frame.truncate(len);
    frame
}

/// The longest message that a framing can carry.
pub(crate) fn longest(framing: Framing) -> usize {
    match framing {
        Framing::Lan | Framing::Be32 => FrameLimit::MAX.get() as usize,
        Framing::Classic => ClassicSettings::default().limit.into(),
    }
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
        let mut stream = Stream::new(framing, SIZE, 5);
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
                    let mut stream = Stream::new(framing, SIZE, 9);
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
        let mut stream = Stream::new(Framing::Be32, SIZE, 0);
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
            let result = Stream::new(framing, SIZE, 0).hear(&mut bytes.to_vec(), |_, _| Ok(()));
            assert!(matches!(result, Err(Failure::Frame(_))), "{framing:?} {bytes:?}: {result:?}");
        }
    }
}
