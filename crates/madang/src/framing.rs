//! Which bytes a server or client speaks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use madang_wire::be32::Be32;
use madang_wire::{Find, FrameError, FrameLimit, Framing, Opened, Overhead, SealError, SealSlot, Sealed};

use crate::offload::panic_text;

/// A framing of a game that already has clients: not the engine's own. No greeting, no heartbeat, and no protection; the
/// limits around it are the engine's.
#[derive(Clone)]
pub struct ForeignFraming(pub(crate) Protocol);

impl ForeignFraming {
    /// A 4-byte big-endian length, then the payload: what `LengthDelimitedCodec` speaks by default.
    pub fn be32() -> ForeignFraming {
        ForeignFraming(Protocol::Be32)
    }

    /// Any framing: `make` is called once for each connection, with the longest message that the settings allow and a
    /// number that differs between connections (for a framing that wants a seed of its own).
    ///
    /// The framing finds, opens and seals frames with whatever state it likes, such as a checksum or a mask that is undone
    /// in place; see [`Framing`] for what it may rely on.
    pub fn custom<F>(make: impl Fn(FrameLimit, u64) -> F + Send + Sync + 'static) -> ForeignFraming
    where
        F: Framing + 'static,
    {
        ForeignFraming(Protocol::Custom(Arc::new(move |limit, seed| {
            Box::new(make(limit, seed)) as Box<dyn Framing>
        })))
    }
}

impl fmt::Debug for ForeignFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Protocol::Lan => f.write_str("lan"),
            #[cfg(feature = "wan")]
            Protocol::Wan(_) => f.write_str("wan"),
            Protocol::Be32 => f.write_str("be32"),
            Protocol::Custom(_) => f.write_str("custom"),
        }
    }
}

pub(crate) type MakeFraming = Arc<dyn Fn(FrameLimit, u64) -> Box<dyn Framing> + Send + Sync>;

/// The closed set of framings; only `Custom` is called through a table.
#[derive(Clone)]
pub(crate) enum Protocol {
    Lan,
    #[cfg(feature = "wan")]
    Wan(crate::wan::Wan),
    Be32,
    Custom(MakeFraming),
}

/// Content's framing of one connection, with a wall around it: a panic, or an answer that the contract rules out, is an
/// error of that connection and not the end of its shard.
pub(crate) struct Guarded {
    framing: Box<dyn Framing>,
    overhead: Overhead,
    limit: usize,
    panic: Option<String>,
}

impl Guarded {
    /// Has content make one; the panic's words if it did not.
    pub(crate) fn make(make: &MakeFraming, limit: FrameLimit, seed: u64) -> Result<Guarded, String> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let framing = make(limit, seed);
            let (overhead, limit) = (framing.overhead(), framing.limit());
            Guarded { framing, overhead, limit, panic: None }
        }));
        made.map_err(|panic| panic_text(&*panic))
    }

    /// The error that stands for a panic; [`take_panic`](Guarded::take_panic) has its words.
    pub(crate) const PANICKED: FrameError = FrameError::Foreign("the framing panicked");
    const BROKEN: FrameError = FrameError::Foreign("the framing broke its contract");

    /// The words of the last panic, once.
    pub(crate) fn take_panic(&mut self) -> Option<String> {
        self.panic.take()
    }

    fn guard<R>(&mut self, call: impl FnOnce(&mut dyn Framing) -> R) -> Option<R> {
        let framing = &mut *self.framing;
        // Unwind safety: after a panic the connection ends, and the framing is asked nothing more.
        catch_unwind(AssertUnwindSafe(|| call(framing)))
            .map_err(|panic| self.panic = Some(panic_text(&*panic)))
            .ok()
    }
}

impl Framing for Guarded {
    fn find(&mut self, bytes: &[u8]) -> Result<Find, FrameError> {
        let found = self.guard(|framing| framing.find(bytes)).unwrap_or(Err(Guarded::PANICKED))?;
        let right = match found {
            Find::Frame { len } => (1..=bytes.len()).contains(&len),
            Find::Need { total } => {
                total > bytes.len() && total <= self.limit.saturating_add(self.overhead.total())
            }
        };
        if right { Ok(found) } else { Err(Guarded::BROKEN) }
    }

    fn open(&mut self, frame: &mut [u8]) -> Result<Opened, FrameError> {
        let opened = self.guard(|framing| framing.open(frame)).unwrap_or(Err(Guarded::PANICKED))?;
        if frame.get(opened.payload.clone()).is_some_and(|payload| !payload.is_empty()) {
            Ok(opened)
        } else {
            Err(Guarded::BROKEN)
        }
    }

    fn overhead(&self) -> Overhead {
        self.overhead
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn seal(&mut self, slot: SealSlot<'_>) -> Result<Sealed, SealError> {
        self.guard(|framing| framing.seal(slot)).unwrap_or(Err(SealError::Foreign("the framing panicked")))
    }
}

/// What the data path needs of the protocol: a copy in each shard.
pub(crate) enum Wire {
    /// The engine's own frames, as they are or in records: each connection's [`Speech`](crate::speech::Speech) knows.
    Own,
    Be32(Be32),
    Custom(MakeFraming),
}

impl Protocol {
    pub(crate) fn wire(&self, limit: FrameLimit) -> Wire {
        match self {
            Protocol::Lan => Wire::Own,
            #[cfg(feature = "wan")]
            Protocol::Wan(_) => Wire::Own,
            Protocol::Be32 => Wire::Be32(Be32::new(limit)),
            Protocol::Custom(make) => Wire::Custom(Arc::clone(make)),
        }
    }

    /// Whether peers say who they are before a session exists.
    pub(crate) fn greets(&self) -> bool {
        match self {
            Protocol::Lan => true,
            #[cfg(feature = "wan")]
            Protocol::Wan(_) => true,
            Protocol::Be32 | Protocol::Custom(_) => false,
        }
    }

    /// Whether it is servers that talk to each other.
    pub(crate) fn is_lan(&self) -> bool {
        matches!(self, Protocol::Lan)
    }
}
