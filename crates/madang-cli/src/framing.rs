//! The framings that a server or the load client can be told to speak. (The dummy has a list of its own.)

use clap::ValueEnum;
use madang::wire::classic::{Classic, ClassicSettings};
use madang::{ForeignFraming, ForeignServer, LanServer, ServerBuilder, Settings};

/// How messages are cut out of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// Madang's own server-to-server framing: a greeting, heartbeats, 24-bit length and kind
    Lan,
    /// A 4-byte big-endian length, then the payload
    Be32,
    /// The school's header of code, length, key and checksum before a masked payload
    Classic,
}

impl Framing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Be32 => "be32",
            Self::Classic => "classic",
        }
    }

    /// A server that speaks it.
    pub(crate) fn server(self, settings: Settings) -> ServerBuilder {
        match self {
            Self::Lan => LanServer::with(settings),
            Self::Be32 => ForeignServer::with(settings, ForeignFraming::be32()),
            Self::Classic => ForeignServer::with(settings, classic()),
        }
    }
}

/// The example of docs/wire.md, under the engine's limit where that is the lower one.
fn classic() -> ForeignFraming {
    ForeignFraming::custom(|limit, seed| {
        let limit = u16::try_from(limit.get()).unwrap_or(u16::MAX);
        Classic::new(ClassicSettings { limit, ..ClassicSettings::default() }, seed)
    })
}
