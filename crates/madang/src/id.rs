//! Naming a session by a number.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SLOT_BITS: u32 = 24;
const SERIAL_BITS: u32 = 40;
const SERIAL_MAX: u64 = (1 << SERIAL_BITS) - 1;

/// The name of a session: all that content ever holds of it.
///
/// ```text
///   64 bits   │ slot 24 │ serial 40 │      never zero
/// ```
///
/// The *slot* is where the engine keeps the session, so finding it is one array access. The *serial* is never used twice
/// in the life of a process, whatever server or client the session belonged to and however often they were stopped and
/// started: an id that outlived its session is answered [`Gone`](crate::Answer::Gone) and can never reach the next one in
/// the same slot. At 100,000 joins a second the serials last 127 days of nothing but joins (10^12 of them).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// How many slots there can be; [`slot`](SessionId::slot) is below it.
    pub const SLOTS_MAX: usize = 1 << SLOT_BITS;

    pub(crate) fn new(slot: u32, serial: u64) -> SessionId {
        assert!(u64::from(slot) < 1 << SLOT_BITS, "a slot has {SLOT_BITS} bits");
        assert!((1..=SERIAL_MAX).contains(&serial), "a serial has {SERIAL_BITS} bits and is not zero");
        SessionId(NonZeroU64::new((u64::from(slot) << SERIAL_BITS) | serial).expect("the serial is not zero"))
    }

    /// The session's place: unique among the sessions of its server that live now, and bounded by
    /// [`slots`](crate::Remote::slots) of the server, so content can index arrays of its own by it.
    #[inline]
    pub fn slot(self) -> usize {
        (self.0.get() >> SERIAL_BITS) as usize
    }

    pub(crate) fn serial(self) -> u64 {
        self.0.get() & SERIAL_MAX
    }

    /// As a number, for messages between nodes and for logs.
    #[inline]
    pub fn to_u64(self) -> u64 {
        self.0.get()
    }

    /// From a number. Any number with a serial that is not zero is a name; whether it names somebody, each request says.
    pub fn from_u64(number: u64) -> Option<SessionId> {
        if number & SERIAL_MAX == 0 {
            return None;
        }
        NonZeroU64::new(number).map(SessionId)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.slot(), self.serial())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// How slot numbers are shared out: the shard in the high bits, its local index below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotLayout {
    shards: u32,
    local_bits: u32,
}

impl SlotLayout {
    /// `None` when so many shards with so many slots each do not fit 24 bits.
    pub(crate) fn new(shards: usize, slots_per_shard: usize) -> Option<SlotLayout> {
        let local_bits = slots_per_shard.max(2).next_power_of_two().trailing_zeros();
        let shards = u32::try_from(shards).ok()?;
        let fits = local_bits <= SLOT_BITS && u64::from(shards) << local_bits <= 1 << SLOT_BITS;
        fits.then_some(SlotLayout { shards, local_bits })
    }

    pub(crate) fn slot(self, shard: usize, local: u32) -> u32 {
        ((shard as u32) << self.local_bits) | local
    }

    /// The shard and local index of an id; `None` for one that was invented.
    #[inline]
    pub(crate) fn locate(self, id: SessionId) -> Option<(usize, u32)> {
        let slot = id.slot() as u32;
        let shard = slot >> self.local_bits;
        (shard < self.shards).then_some((shard as usize, slot & ((1 << self.local_bits) - 1)))
    }

    /// One past the highest slot.
    pub(crate) fn slots(self) -> usize {
        (self.shards as usize) << self.local_bits
    }
}

/// The counter that serials come from: one for the whole process, or one for a simulated world.
#[derive(Debug, Clone)]
pub(crate) enum SerialSource {
    Process,
    #[cfg_attr(
        not(feature = "simulation"),
        allow(dead_code, reason = "made by the simulation and by tests only")
    )]
    World(Arc<AtomicU64>),
}

static PROCESS_SERIALS: AtomicU64 = AtomicU64::new(1);

/// A shard's own supply of serials, taken from the source in blocks so that joins of different shards meet rarely.
#[derive(Debug)]
pub(crate) struct Serials {
    source: SerialSource,
    next: u64,
    end: u64,
}

impl Serials {
    const BLOCK: u64 = 1_024;

    pub(crate) fn new(source: SerialSource) -> Serials {
        Serials { source, next: 0, end: 0 }
    }

    /// The next serial; `None` once all 2^40 are used up, and for ever after.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if self.next == self.end {
            let counter = match &self.source {
                SerialSource::Process => &PROCESS_SERIALS,
                SerialSource::World(counter) => counter,
            };
            // Relaxed: only the numbers have to differ; nothing else is published by taking a block.
            let start = counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
                    (at <= SERIAL_MAX).then_some(at + Self::BLOCK)
                })
                .ok()?;
            self.next = start;
            self.end = start + Self::BLOCK;
        }
        let serial = self.next;
        self.next += 1;
        (serial <= SERIAL_MAX).then_some(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_slot_and_serial_at_every_edge() {
        for slot in [0, 1, 65_535, (1 << SLOT_BITS) - 1] {
            for serial in [1, 2, SERIAL_MAX] {
                let id = SessionId::new(slot, serial);
                assert_eq!((id.slot(), id.serial()), (slot as usize, serial));
                assert_eq!(SessionId::from_u64(id.to_u64()), Some(id));
            }
        }
        assert_eq!(SessionId::from_u64(0), None);
        assert_eq!(SessionId::from_u64(1 << SERIAL_BITS), None, "a slot without a serial names nobody");
    }

    #[test]
    fn slots_of_different_shards_never_meet() {
        let layout = SlotLayout::new(3, 1_000).unwrap();
        for (shard, local) in [(0, 0), (0, 999), (1, 0), (2, 999)] {
            let id = SessionId::new(layout.slot(shard, local), 7);
            assert_eq!(layout.locate(id), Some((shard, local)));
            assert!(id.slot() < layout.slots());
        }
        assert_eq!(layout.locate(SessionId::new(3 << 10, 7)), None, "an invented shard");
        assert!(SlotLayout::new(256, 65_537).is_none());
    }

    #[test]
    fn s06_serials_differ_between_shards_and_end_in_a_refusal() {
        let world = SerialSource::World(Arc::new(AtomicU64::new(1)));
        let (mut a, mut b) = (Serials::new(world.clone()), Serials::new(world));
        let mut seen: Vec<u64> = (0..3_000).flat_map(|_| [a.take().unwrap(), b.take().unwrap()]).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6_000);

        let mut last = Serials::new(SerialSource::World(Arc::new(AtomicU64::new(SERIAL_MAX))));
        assert_eq!(last.take(), Some(SERIAL_MAX));
        assert_eq!(last.take(), None);
        assert_eq!(last.take(), None);
    }
}
