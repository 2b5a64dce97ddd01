//! One connection of a load run.

use std::collections::VecDeque;

use madang::wire::lan::{Goodbye, Heartbeat, Refusal};
use madang::wire::{FrameError, Kind};
use madang_driver::{Conn, Outgoing};

use super::failure::Failure;
use super::message::Messages;
use super::report::Seals;
use super::stream::Stream;
use crate::serve::echo::BROADCAST;

/// So many bytes of messages leave in one send, or a single message that is longer.
const SEND_BYTES: usize = 64 * 1024;

/// Messages become *due*, are said in that order, and their echoes are heard in that order.
///
/// ```text
///   due:  │ heard … │ said, not yet heard … │ not yet said … │
///                   ^ front of `due`        ^ said - heard further
/// ```
#[derive(Debug)]
pub(crate) struct Link {
    /// Among all connections of the run.
    pub(crate) number: usize,
    /// Valid from the connect until the retire.
    pub(crate) conn: Conn,
    pub(crate) stage: Stage,
    stream: Stream,
    /// Frames that are no messages and wait to be sent: a greeting, a log-in, pongs.
    control: Vec<u8>,
    /// When each message that has no echo yet was due, in ns of the run's clock.
    due: VecDeque<u64>,
    said: u64,
    heard: u64,
    /// Messages to everybody.
    everybody: u64,
    pub(crate) ops: Ops,
    /// What a driver that was full gave back, or what is left of a short write.
    pub(crate) unsent: Option<Outgoing>,
    /// Whether it stands on the list of those that want something of the driver.
    pub(crate) marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting,
    /// Greeted, not welcomed yet.
    Greeting,
    Ready,
    /// On its way out in good order: what is queued leaves, then our direction ends.
    Leaving {
        half_closed: bool,
    },
    /// Aborted; the terminals of its operations are awaited.
    Aborted,
    /// Retired.
    Gone,
}

/// What is in the driver's hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ops {
    pub(crate) connect: bool,
    pub(crate) recv: bool,
    pub(crate) send: bool,
    /// The peer's direction has ended: there is nothing to receive any more.
    pub(crate) ended: bool,
}

impl Ops {
    pub(crate) fn none(self) -> bool {
        !self.connect && !self.recv && !self.send
    }
}

/// What the words of a server came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// When each message was due whose echo came now; the caller empties it.
    pub(crate) echoes: Vec<u64>,
    pub(crate) welcome: bool,
    /// Messages to everybody; the caller takes them.
    pub(crate) broadcasts: u64,
}

impl Link {
    pub(crate) fn new(number: usize, conn: Conn, stream: Stream, greeting: Vec<u8>) -> Self {
        Self {
            number,
            conn,
            stage: Stage::Connecting,
            stream,
            control: greeting,
            due: VecDeque::new(),
            said: 0,
            heard: 0,
            everybody: 0,
            ops: Ops { connect: true, ..Ops::default() },
            unsent: None,
            marked: false,
        }
    }

    /// Its records so far and the messages in them, if it has records.
    pub(crate) fn seals(&self) -> Option<Seals> {
        let (records_out, records_in) = self.stream.records()?;
        let (messages_out, messages_in) = (self.said, self.heard + self.everybody);
        Some(Seals { records_out, messages_out, records_in, messages_in })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Queues a control frame ahead of the messages that are not said yet.
    pub(crate) fn control(&mut self, frame: &[u8]) {
        self.control.extend_from_slice(frame);
    }

    /// One more message is due since `at_ns`.
    pub(crate) fn due(&mut self, at_ns: u64) {
        self.due.push_back(at_ns);
    }

    /// Messages whose echo has not come, said or not.
    pub(crate) fn outstanding(&self) -> usize {
        self.due.len()
    }

    /// When the messages were due whose echo will not be waited for any longer.
    pub(crate) fn give_up(&mut self) -> impl Iterator<Item = u64> {
        std::mem::take(&mut self.due).into_iter()
    }

    fn unsaid(&self) -> usize {
        self.due.len() - (self.said - self.heard) as usize
    }

    pub(crate) fn has_something_to_say(&self) -> bool {
        !self.control.is_empty() || self.is_ready() && self.unsaid() > 0
    }

    /// Makes of `out`, which is empty, what is to be said next; how many messages are in it.
    pub(crate) fn say(&mut self, messages: &Messages, out: &mut Vec<u8>) -> u64 {
        out.append(&mut self.control);
        let before = self.said;
        while self.is_ready() && self.unsaid() > 0 {
            self.stream.say(messages, self.number, self.said, out);
            self.said += 1;
            if out.len() >= SEND_BYTES {
                break;
            }
        }
        self.stream.pack(out);
        self.said - before
    }

    /// Takes in what came.
    pub(crate) fn hear(
        &mut self,
        bytes: &mut [u8],
        messages: &Messages,
        into: &mut Heard,
    ) -> Result<(), Failure> {
        let Self { number, stream, control, due, said, heard, everybody, .. } = self;
        stream.hear(bytes, |kind, payload| {
            match kind {
                Kind::Message if payload.first() == Some(&BROADCAST) => {
                    *everybody += 1;
                    into.broadcasts += 1;
                }
                Kind::Message => {
                    if heard == said || !messages.is(*number, *heard, payload) {
                        return Err(Failure::WrongEcho);
                    }
                    *heard += 1;
                    into.echoes.push(due.pop_front().expect("what was said and not heard is due"));
                }
                Kind::Ping => {
                    let ping = Heartbeat::from_payload(payload).map_err(|_| FrameError::NotOneFrame)?;
                    control.extend_from_slice(&ping.pong());
                }
                // It comes with the answer that is due.
                Kind::Accept => control.extend_from_slice(payload),
                Kind::Welcome => into.welcome = true,
                Kind::Refusal => {
                    let refusal = Refusal::from_payload(payload).map_err(|_| FrameError::NotOneFrame)?;
                    return Err(Failure::Refused(refusal.into()));
                }
                Kind::Goodbye => {
                    let goodbye = Goodbye::from_payload(payload).map_err(|_| FrameError::NotOneFrame)?;
                    return Err(Failure::Goodbye(goodbye.reason));
                }
                // A greeting, a pong, a place in the queue: nothing that is counted. The wire lets no other kind through.
                _ => {}
            }
            Ok(())
        })
    }
}
