//! How the engine's frames lie in a connection's bytes: as they are, or in records.

#[cfg(feature = "wan")]
use madang_packet::{Magazine, PacketMut};
use madang_wire::lan::{Expect, LanFraming};
#[cfg(feature = "wan")]
use madang_wire::wan::{Opening, RECORD_HEAD, RECORD_TAIL, Sealing, Secured, Step};
use madang_wire::{Find, FrameError, Next};
#[cfg(feature = "wan")]
use madang_wire::{Kind, Opened};

/// What a connection speaks: the state of both its directions.
pub(crate) enum Speech {
    /// A foreign framing; what state it has is elsewhere.
    Foreign,
    /// The engine's frames as they are: a plain LAN link.
    Plain(LanFraming),
    /// The engine's frames in records: players, and sealed LAN links.
    #[cfg(feature = "wan")]
    Sealed(Box<Records>),
}

/// The records of a connection: 136 bytes, of which no key is expanded. That is done for each receive and each flush.
#[cfg(feature = "wan")]
pub(crate) struct Records {
    /// Ours. Nothing but the flush (before the join: the embryo's last step) seals, in the order in which bytes leave.
    pub(crate) sealing: Sealing,
    /// The peer's.
    pub(crate) opening: Opening,
    /// What has come of a message that is too long for a record.
    pub(crate) long: Option<PacketMut>,
    /// Bytes of the message in front of the queue that have left, when it is too long for a record.
    pub(crate) cut_at: usize,
}

impl Speech {
    #[cfg(feature = "wan")]
    pub(crate) fn sealed(secured: Secured) -> Speech {
        let Secured { sealing, opening, .. } = secured;
        Speech::Sealed(Box::new(Records { sealing, opening, long: None, cut_at: 0 }))
    }

    /// How much of the stream the next frame, or its record, wants in one piece.
    pub(crate) fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        match self {
            Speech::Foreign => Err(FrameError::NotOneFrame),
            Speech::Plain(frames) => frames.find(bytes),
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.opening.find(bytes),
        }
    }

    /// The next frame, before there is a session: no message is in turn yet.
    pub(crate) fn next(&mut self, bytes: &mut [u8]) -> Result<Next, FrameError> {
        match self {
            Speech::Foreign => Err(FrameError::NotOneFrame),
            Speech::Plain(frames) => frames.next(bytes),
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => match records.opening.next(bytes)? {
                Step::Need { total } => Ok(Next::Need { total }),
                Step::Frame { kind, payload, used } => {
                    Ok(Next::Frame { len: used, opened: Opened { kind, payload } })
                }
                Step::Part { .. } => Err(FrameError::OutOfTurn(Kind::Message)),
            },
        }
    }

    /// Which kinds may come next.
    pub(crate) fn expect(&self) -> Expect {
        match self {
            Speech::Foreign => Expect::Traffic,
            Speech::Plain(frames) => frames.expect(),
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.opening.expect(),
        }
    }

    /// Whether what goes out has to be sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        match self {
            Speech::Foreign | Speech::Plain(_) => false,
            #[cfg(feature = "wan")]
            Speech::Sealed(_) => true,
        }
    }

    /// Whether a goodbye may go out instead of what is queued: in records, and not in the middle of a long message.
    pub(crate) fn can_say_goodbye(&self) -> bool {
        match self {
            Speech::Foreign | Speech::Plain(_) => false,
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.cut_at == 0,
        }
    }

    /// Whether a stream that ends here was cut off by whoever stands between: inside records a peer says goodbye first.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_sealed() && self.expect() != Expect::End
    }
}

#[cfg(feature = "wan")]
impl Records {
    /// One record around `frames`, for the few words of an embryo.
    pub(crate) fn seal_all(&mut self, frames: &[u8], magazine: &Magazine) -> Result<PacketMut, Unsealed> {
        let room = RECORD_HEAD + frames.len() + RECORD_TAIL;
        let mut record = magazine.packet_past_budget(room).map_err(|_| Unsealed)?;
        record.bytes(&[0; RECORD_HEAD]).bytes(frames).bytes(&[0; RECORD_TAIL]);
        self.sealing.seal(record.as_mut_slice()).map_err(|_| Unsealed)?;
        Ok(record)
    }
}

/// There was no memory for a record, or the direction's records are used up.
#[cfg(feature = "wan")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsealed;
