//! One visitor.

use madang::wire::Kind;
use madang::wire::lan::Refusal;
use madang_driver::{Conn, Outgoing};

use super::Sort;
use crate::load::failure::Failure;
use crate::load::link::Ops;
use crate::load::stream::Stream;

#[derive(Debug)]
pub(super) struct Visitor {
    /// Valid until the retire.
    pub(super) conn: Conn,
    pub(super) sort: Sort,
    /// When it was due to come, or was connected: in ns of the run's clock.
    pub(super) since_ns: u64,
    pub(super) stage: Stage,
    pub(super) ops: Ops,
    /// Bytes to be sent.
    pub(super) say: Vec<u8>,
    /// What a driver that was full gave back, or what is left of a short write.
    pub(super) unsent: Option<Outgoing>,
    /// A client's, who logs in.
    pub(super) stream: Option<Stream>,
    /// Bytes that one who dribbles has not said.
    dribbles: std::vec::IntoIter<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    /// Waits for the server to end it, or to let it in.
    Here,
    /// Welcome, and on its way out.
    Leaving {
        half_closed: bool,
    },
    /// Counted; the terminals of its operations are awaited.
    Gone,
}

impl Visitor {
    /// One who says `greeting` at once; who has a `stream` listens to the answer.
    pub(super) fn new(
        conn: Conn,
        sort: Sort,
        since_ns: u64,
        greeting: Vec<u8>,
        stream: Option<Stream>,
    ) -> Self {
        Self {
            conn,
            sort,
            since_ns,
            stage: Stage::Connecting,
            ops: Ops { connect: true, ..Ops::default() },
            say: greeting,
            unsent: None,
            stream,
            dribbles: Vec::new().into_iter(),
        }
    }

    /// Says these bytes in place of its greeting, one at a time.
    pub(super) fn dribbling(mut self, bytes: Vec<u8>) -> Self {
        self.dribbles = bytes.into_iter();
        self
    }

    /// Has one more byte to say, if it dribbles; whether it does.
    pub(super) fn dribble(&mut self) -> bool {
        if self.stage != Stage::Here || self.ops.send {
            return false;
        }
        self.say.extend(self.dribbles.next());
        !self.say.is_empty()
    }

    /// Takes in what the server said; whether it is welcome now.
    pub(super) fn hear(&mut self, bytes: &mut [u8]) -> Result<bool, Failure> {
        let Some(stream) = &mut self.stream else { return Err(Failure::Answered) };
        let (mut reply, mut welcome) = (Vec::new(), false);
        stream.hear(bytes, |kind, payload| {
            match kind {
                Kind::Accept => reply.extend_from_slice(payload),
                Kind::Welcome => welcome = true,
                Kind::Refusal => {
                    let refusal =
                        Refusal::from_payload(payload).map_err(|_| madang::wire::FrameError::NotOneFrame)?;
                    return Err(Failure::Refused(refusal.into()));
                }
                // Words of the queue, a ticket, a heartbeat, a broadcast: it is only passing through.
                _ => {}
            }
            Ok(())
        })?;
        if !reply.is_empty() {
            stream.pack(&mut reply);
            self.say.append(&mut reply);
        }
        Ok(welcome)
    }
}
