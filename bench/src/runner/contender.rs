//! The servers that are compared.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::wire::Framing;

/// A server, by the name it has in tables and in `limits.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// The barest io_uring server.
    Floor,
    /// The floor a second time: its ratio to the floor says what the method itself gets wrong.
    FloorAgain,
    /// tokio as users write it.
    TokioCodec,
    /// tokio as someone who measured writes it.
    TokioTuned,
    /// The engine on io_uring; flushes each turn.
    MadangUring,
    /// The engine on readiness; flushes each turn.
    MadangReadiness,
    /// The engine on io_uring with a tick of 20 ms.
    MadangTick,
    /// The engine on io_uring with encrypted sessions.
    MadangWan,
}

impl Contender {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorAgain => "floor-again",
            Self::TokioCodec => "tokio-codec",
            Self::TokioTuned => "tokio-tuned",
            Self::MadangUring => "madang-uring",
            Self::MadangReadiness => "madang-readiness",
            Self::MadangTick => "madang-tick",
            Self::MadangWan => "madang-wan",
        }
    }

    /// Its program and what that needs to be told besides address, CPU and mode.
    pub(super) fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Floor | Self::FloorAgain => ("floor", &[]),
            Self::TokioCodec => ("tokio_codec", &[]),
            Self::TokioTuned => ("tokio_tuned", &[]),
            Self::MadangUring => ("engine", &["--driver", "uring"]),
            Self::MadangReadiness => ("engine", &["--driver", "readiness"]),
            Self::MadangTick => ("engine", &["--driver", "uring", "--tick-ms", "20"]),
            Self::MadangWan => ("engine", &["--driver", "uring", "--framing", "wan"]),
        }
    }

    /// What its clients speak.
    pub(super) fn framing(self) -> Framing {
        match self {
            Self::MadangWan => Framing::Wan,
            _ => Framing::Be32,
        }
    }

    /// Whether its program lies among the built ones.
    #[must_use]
    pub fn is_built(self, programs: &Path) -> bool {
        programs.join(self.program().0).exists()
    }

    /// Whether it is ours, and so has limits to keep.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::MadangUring | Self::MadangReadiness | Self::MadangTick | Self::MadangWan)
    }
}
