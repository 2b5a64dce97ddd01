//! Which bytes a server or client speaks.

use std::fmt;
use std::sync::Arc;

use madang_wire::be32::Be32;
use madang_wire::{FrameLimit, Framing};

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
        ForeignFraming(Protocol::Custom(Arc::new(move |limit, seed| Box::new(make(limit, seed)) as Box<dyn Framing>)))
    }
}

impl fmt::Debug for ForeignFraming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Protocol::Lan => f.write_str("lan"),
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
    Be32,
    Custom(MakeFraming),
}

/// What the data path needs of the protocol: a copy in each shard.
pub(crate) enum Wire {
    Lan,
    Be32(Be32),
    Custom(MakeFraming),
}

impl Protocol {
    pub(crate) fn wire(&self, limit: FrameLimit) -> Wire {
        match self {
            Protocol::Lan => Wire::Lan,
            Protocol::Be32 => Wire::Be32(Be32::new(limit)),
            Protocol::Custom(make) => Wire::Custom(Arc::clone(make)),
        }
    }

    /// Whether peers greet each other before a session exists.
    pub(crate) fn greets(&self) -> bool {
        matches!(self, Protocol::Lan)
    }
}
