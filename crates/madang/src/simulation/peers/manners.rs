//! How a peer behaves, from impeccable to hostile.

use super::Table;
#[cfg(feature = "wan")]
use crate::simulation::codec::Tongue;

/// How a peer ends its connection, once it has said enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Never by itself.
    Stays,
    /// A half-close; it reads on to the end.
    HalfCloses,
    /// A goodbye first, then as `HalfCloses`.
    SaysGoodbye,
    Closes,
    Resets,
    Vanishes,
    /// Bytes that are no frame.
    TurnsHostile,
}

/// How a peer behaves, drawn for each connection.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// Reads all that comes at once; or now and then; or never before the liveness phase.
    pub(super) reads: Reads,
    /// Per million times that it acts: begins a message.
    pub(super) talks: u32,
    /// Puts out a byte now and then rather than all.
    pub(super) dribbles: bool,
    /// Never says a word.
    pub(super) is_mute: bool,
    /// Has messages right behind its greeting, before any welcome.
    pub(super) is_eager: bool,
    /// Logs in with what another proved.
    #[cfg(feature = "wan")]
    pub(super) is_thief: bool,
    pub(super) ending: Ending,
    /// Times that it acts before its ending.
    pub(super) acts: u32,
    pub(super) limit: usize,
    pub(super) node: String,
    pub(super) incarnation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    Seldom,
    Never,
}

impl Manners {
    pub(super) fn draw(table: &mut Table, calm: bool, seat: u32) -> Manners {
        let rudeness = if calm { 0 } else { table.rudeness };
        let frame_limit = table.frame_limit as usize;
        let dice = &mut table.dice;
        let endings = [
            Ending::HalfCloses,
            Ending::SaysGoodbye,
            Ending::Closes,
            Ending::Resets,
            Ending::Vanishes,
            Ending::TurnsHostile,
        ];
        let named = !calm && dice.below(6) == 0;
        Manners {
            reads: match () {
                () if dice.chance(rudeness / 2) => Reads::Seldom,
                () if dice.chance(rudeness / 4) => Reads::Never,
                () => Reads::All,
            },
            talks: if calm { 0 } else { dice.between(50_000, 700_000) as u32 },
            dribbles: dice.chance(rudeness / 2),
            is_mute: dice.chance(rudeness / 4),
            is_eager: !calm && dice.coin(),
            ending: if dice.chance(rudeness) { endings[dice.index(endings.len())] } else { Ending::Stays },
            acts: dice.below(40) as u32,
            #[cfg(feature = "wan")]
            is_thief: table.tongue == Tongue::Wan && table.loot.is_some() && dice.chance(rudeness / 4),
            limit: if dice.below(8) == 0 && table.tongue.is_own() {
                dice.between(20, 90) as usize
            } else {
                frame_limit
            },
            node: if named { format!("node-{}", seat % 3) } else { String::new() },
            incarnation: dice.between(1, 3),
        }
    }
}
