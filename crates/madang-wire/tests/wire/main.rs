//! The wire, judged from outside. Names of tests carry the ids of the fault catalogue where there is one.
//!
//! Properties print the smallest failing input and keep its seed in a file of regressions; `PROPTEST_RNG_SEED` replays a run,
//! `PROPTEST_CASES` widens it.

mod classic;
mod codec;
mod control;
mod golden;
mod seal;
mod stream;
mod varint;

use madang_wire::be32::Be32;
use madang_wire::classic::{Classic, ClassicSettings};
use madang_wire::lan::LanFraming;
use madang_wire::{FrameLimit, Framing};

use crate::varint::Varint;

/// A limit that tests can reach.
const LIMIT: u32 = 1000;

/// Every framing that the suites below put through the same checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    LanServer,
    LanClient,
    Be32,
    Classic,
    /// A game's own, with a head of variable length and a tail: what the contract allows beyond ours.
    Varint,
}

impl Which {
    const ALL: [Self; 5] = [Self::LanServer, Self::LanClient, Self::Be32, Self::Classic, Self::Varint];

    fn framing(self) -> Box<dyn Framing> {
        let limit = FrameLimit::new(LIMIT).unwrap();
        match self {
            Self::LanServer => Box::new(LanFraming::server(limit)),
            Self::LanClient => Box::new(LanFraming::client(limit)),
            Self::Be32 => Box::new(Be32::new(limit)),
            Self::Classic => Box::new(classic(LIMIT as u16, 7)),
            Self::Varint => Box::new(Varint { limit: LIMIT as usize }),
        }
    }
}

fn classic(limit: u16, seed: u64) -> Classic {
    Classic::new(ClassicSettings { limit, ..ClassicSettings::default() }, seed)
}
