//! How the engine's frames lie in a connection's bytes: as they are, or in records.

#[cfg(feature = "wan")]
use madang_packet::{Magazine, PacketMut};
use madang_wire::lan::{Expect, LanFraming};
#[cfg(feature = "wan")]
use madang_wire::wan::{Expanded, Opening, RECORD_HEAD, RECORD_TAIL, Sealing, Secured, Step};
use madang_wire::{Find, FrameError, Next};
#[cfg(feature = "wan")]
use madang_wire::{Kind, Opened};

/// What a connection speaks: the state of both its directions.
pub(crate) enum Speech {
    /// A foreign framing, whose state is elsewhere; or a handshake that is not over.
    Foreign,
    /// The engine's frames as they are: a plain LAN link.
    Plain(LanFraming),
    /// The engine's frames in records, before the join: 176 bytes, no key expanded.
    #[cfg(feature = "wan")]
    Secured(Box<Secured>),
    /// The engine's frames in records: players, and sealed LAN links.
    #[cfg(feature = "wan")]
    Sealed(Box<Records>),
}

/// The records of a session, both keys expanded: 1.2 KiB. Expanding one for each receive and each flush would save nine
/// tenths of that and cost 150 ns each time, which is a twentieth of an echo.
#[cfg(feature = "wan")]
pub(crate) struct Records {
    pub(crate) ours: OurRecords,
    pub(crate) theirs: TheirRecords,
}

/// What a flush needs of them. It alone seals, in the order in which bytes leave.
#[cfg(feature = "wan")]
pub(crate) struct OurRecords {
    pub(crate) sealing: Expanded<Sealing>,
    /// Bytes of the message in front of the queue that have left, when it is too long for a record.
    pub(crate) cut_at: usize,
}

/// What a receive needs of them.
#[cfg(feature = "wan")]
pub(crate) struct TheirRecords {
    pub(crate) opening: Expanded<Opening>,
    /// What has come of a message that is too long for a record.
    pub(crate) long: Option<PacketMut>,
}

#[cfg(feature = "wan")]
const _: () = assert!(size_of::<Records>() <= 1_248, "an idle encrypted session is to cost at most 1.75 KiB");

impl Speech {
    /// What the session speaks that an embryo becomes.
    pub(crate) fn joined(self) -> Speech {
        match self {
            #[cfg(feature = "wan")]
            Speech::Secured(secured) => {
                let Secured { sealing, opening, .. } = *secured;
                Speech::Sealed(Box::new(Records {
                    ours: OurRecords { sealing: sealing.expand(), cut_at: 0 },
                    theirs: TheirRecords { opening: opening.expand(), long: None },
                }))
            }
            other => other,
        }
    }

    /// How much of the stream the next frame, or its record, wants in one piece.
    pub(crate) fn find(&self, bytes: &[u8]) -> Result<Find, FrameError> {
        match self {
            Speech::Foreign => Err(FrameError::NotOneFrame),
            Speech::Plain(frames) => frames.find(bytes),
            #[cfg(feature = "wan")]
            Speech::Secured(secured) => secured.opening.find(bytes),
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.theirs.opening.half().find(bytes),
        }
    }

    /// The next frame of an embryo. No message is in turn yet.
    pub(crate) fn next(&mut self, bytes: &mut [u8]) -> Result<Next, FrameError> {
        match self {
            Speech::Plain(frames) => frames.next(bytes),
            #[cfg(feature = "wan")]
            Speech::Secured(secured) => match secured.opening.next(bytes)? {
                Step::Need { total } => Ok(Next::Need { total }),
                Step::Frame { kind, payload, used } => {
                    Ok(Next::Frame { len: used, opened: Opened { kind, payload } })
                }
                Step::Part { .. } => Err(FrameError::OutOfTurn(Kind::Message)),
            },
            _ => Err(FrameError::NotOneFrame),
        }
    }

    /// One record around the few words of an embryo, which otherwise go out as they are.
    #[cfg(feature = "wan")]
    pub(crate) fn seal(&mut self, frames: PacketMut, magazine: &Magazine) -> Result<PacketMut, Unsealed> {
        let Speech::Secured(secured) = self else { return Ok(frames) };
        let room = RECORD_HEAD + frames.len() + RECORD_TAIL;
        let mut record = magazine.packet_past_budget(room).map_err(|_| Unsealed)?;
        record.bytes(&[0; RECORD_HEAD]).bytes(&frames).bytes(&[0; RECORD_TAIL]);
        secured.sealing.seal(record.as_mut_slice()).map_err(|_| Unsealed)?;
        Ok(record)
    }

    /// Asks for what the next receive needs.
    #[inline]
    pub(crate) fn prefetch_theirs(&self) {
        #[cfg(feature = "wan")]
        if let Speech::Sealed(records) = self {
            madang_packet::prefetch(&records.theirs);
        }
    }

    /// Asks for what the next flush needs.
    #[inline]
    pub(crate) fn prefetch_ours(&self) {
        #[cfg(feature = "wan")]
        if let Speech::Sealed(records) = self {
            madang_packet::prefetch(&records.ours);
        }
    }

    /// Which kinds may come next.
    pub(crate) fn expect(&self) -> Expect {
        match self {
            Speech::Foreign => Expect::Traffic,
            Speech::Plain(frames) => frames.expect(),
            #[cfg(feature = "wan")]
            Speech::Secured(secured) => secured.opening.expect(),
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.theirs.opening.half().expect(),
        }
    }

    /// Whether some of a long message has come, and not all.
    pub(crate) fn is_assembling(&self) -> bool {
        match self {
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.theirs.long.is_some(),
            _ => false,
        }
    }

    /// Whether a goodbye may go out instead of what is queued: in records, and not in the middle of a long message.
    pub(crate) fn can_say_goodbye(&self) -> bool {
        match self {
            #[cfg(feature = "wan")]
            Speech::Sealed(records) => records.ours.cut_at == 0,
            _ => false,
        }
    }

    /// Whether a stream that ends here was cut off by whoever stands between: inside records a peer says goodbye first.
    pub(crate) fn is_cut_off(&self) -> bool {
        match self {
            #[cfg(feature = "wan")]
            Speech::Sealed(_) => self.expect() != Expect::End,
            _ => false,
        }
    }
}

/// There was no memory for a record, or the direction's records are used up.
#[cfg(feature = "wan")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsealed;
