//! Any sequence of writes gives what the same sequence on a plain vector gives (P2, F20).
#![cfg(not(loom))]

use madang_packet::{Depot, HEADROOM, PACKET_BYTES_MAX, PacketMut, PoolSettings};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Bytes(usize),
    U8(u8),
    U32(u32),
    Str(usize),
    Values(usize),
    Prepend(usize),
    Truncate(usize),
    Flip(usize),
    SetLimit(usize),
    Clear,
    Refreeze,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![8 => 0..100usize, 2 => 100..5000usize, 1 => 60_000..140_000usize];
    let step = prop_oneof![
        4 => length().prop_map(Step::Bytes),
        2 => any::<u8>().prop_map(Step::U8),
        2 => any::<u32>().prop_map(Step::U32),
        2 => length().prop_map(Step::Str),
        1 => length().prop_map(Step::Values),
        1 => (0..20usize).prop_map(Step::Prepend),
        1 => length().prop_map(Step::Truncate),
        1 => length().prop_map(Step::Flip),
        1 => length().prop_map(Step::SetLimit),
        1 => Just(Step::Clear),
        1 => Just(Step::Refreeze),
    ];
    prop::collection::vec(step, 1..40)
}

/// The packet as one would describe it.
struct Model {
    bytes: Vec<u8>,
    prepended: usize,
    limit: usize,
    too_long: bool,
}

impl Model {
    fn new() -> Model {
        Model { bytes: Vec::new(), prepended: 0, limit: PACKET_BYTES_MAX, too_long: false }
    }

    fn append(&mut self, bytes: &[u8]) {
        // From the first write that is missing on, all are; nothing at all fits everywhere.
        let fits = self.bytes.len() + bytes.len() <= self.limit + self.prepended || bytes.is_empty();
        self.too_long |= !fits;
        if !self.too_long {
            self.bytes.extend(bytes);
        }
    }
}

fn apply(step: &Step, packet: &mut PacketMut, model: &mut Model, spare: &mut Option<PacketMut>) {
    let text = |length: usize| "가나abc".chars().cycle().take(length).collect::<String>();
    match *step {
        Step::Bytes(length) => {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            packet.bytes(&bytes);
            model.append(&bytes);
        }
        Step::U8(value) => {
            packet.u8(value);
            model.append(&[value]);
        }
        Step::U32(value) => {
            packet.u32(value);
            model.append(&value.to_le_bytes());
        }
        Step::Str(length) => {
            let text = text(length);
            packet.str(&text);
            match u16::try_from(text.len()) {
                Ok(bytes) => model.append(&[&bytes.to_le_bytes()[..], text.as_bytes()].concat()),
                Err(_) => model.too_long = true,
            }
        }
        Step::Values(count) => {
            let values: Vec<i16> = (0..count).map(|index| (index as i16).wrapping_neg()).collect();
            packet.values(&values);
            model.append(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
        }
        Step::Prepend(length) => {
            let header = vec![0xAB; length];
            let fits = model.prepended + length <= HEADROOM;
            assert_eq!(packet.prepend(&header).is_ok(), fits);
            if fits {
                model.bytes.splice(0..0, header);
                model.prepended += length;
            }
        }
        Step::Truncate(length) => {
            packet.truncate(length);
            model.bytes.truncate(length);
        }
        Step::Flip(index) => {
            if let Some(byte) = packet.get_mut(index) {
                *byte = !*byte;
                model.bytes[index] = *byte;
            }
        }
        Step::SetLimit(limit) => {
            packet.set_limit(limit);
            model.limit = limit;
            model.too_long |= model.bytes.len() > limit + model.prepended;
        }
        Step::Clear => {
            packet.clear();
            *model = Model { limit: model.limit, ..Model::new() };
        }
        Step::Refreeze => {
            let whole = std::mem::replace(packet, spare.take().expect("put back below")).freeze();
            let clone = whole.clone();
            let whole = whole.try_into_mut().expect_err("a clone lives");
            assert_eq!(clone[..], whole[..]);
            drop(clone);
            *spare = Some(std::mem::replace(packet, whole.try_into_mut().expect("the last")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_is_what_was_written_to_it(steps in steps(), capacity in 0..300usize) {
        let depot = Depot::new(PoolSettings::default());
        let magazine = depot.magazine();
        let _installed = magazine.install();
        let mut spare = Some(depot.packet(0).expect("no limit"));
        let mut packet = depot.packet(capacity).expect("no limit");
        let mut model = Model::new();
        for step in &steps {
            apply(step, &mut packet, &mut model, &mut spare);
            let expected = &model.bytes;
            prop_assert!(packet[..] == expected[..], "{packet:?}, {} bytes expected, after {step:?}", expected.len());
            prop_assert_eq!(packet.is_too_long(), model.too_long);
            prop_assert!(!packet.is_exhausted());
            prop_assert_eq!(packet.headroom(), HEADROOM - model.prepended);
            prop_assert_eq!(packet.limit(), model.limit);
        }
        drop((packet, spare));
        prop_assert_eq!(depot.figures().in_use.blocks, 0);
    }
}
