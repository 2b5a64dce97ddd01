//! The codec: requirement P2, and catalogue R03 and R05 where they touch it.

use madang_wire::{ReadError, Reader, WriteError, Writer};
use proptest::prelude::*;

/// One value of any type that the codec knows.
#[derive(Clone, Debug)]
enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    Bool(bool),
    Str(String),
    Bytes(Vec<u8>),
    U16s(Vec<u16>),
    I64s(Vec<i64>),
}

impl Value {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            any::<u8>().prop_map(Self::U8),
            any::<u16>().prop_map(Self::U16),
            any::<u32>().prop_map(Self::U32),
            any::<u64>().prop_map(Self::U64),
            any::<i8>().prop_map(Self::I8),
            any::<i16>().prop_map(Self::I16),
            any::<i32>().prop_map(Self::I32),
            any::<i64>().prop_map(Self::I64),
            any::<u32>().prop_map(Self::F32),
            any::<u64>().prop_map(Self::F64),
            any::<bool>().prop_map(Self::Bool),
            any::<String>().prop_map(Self::Str),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Self::Bytes),
            prop::collection::vec(any::<u16>(), 0..20).prop_map(Self::U16s),
            prop::collection::vec(any::<i64>(), 0..20).prop_map(Self::I64s),
        ]
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), WriteError> {
        match self {
            Self::U8(value) => out.u8(*value),
            Self::U16(value) => out.u16(*value),
            Self::U32(value) => out.u32(*value),
            Self::U64(value) => out.u64(*value),
            Self::I8(value) => out.i8(*value),
            Self::I16(value) => out.i16(*value),
            Self::I32(value) => out.i32(*value),
            Self::I64(value) => out.i64(*value),
            Self::F32(bits) => out.f32(f32::from_bits(*bits)),
            Self::F64(bits) => out.f64(f64::from_bits(*bits)),
            Self::Bool(value) => out.bool(*value),
            Self::Str(value) => out.str(value),
            Self::Bytes(value) => out.bytes(value),
            Self::U16s(values) => out.values(values),
            Self::I64s(values) => out.values(values),
        }
    }

    /// Reads a value of the same type and length, and whether it is the same.
    fn matches(&self, read: &mut Reader<'_>) -> Result<bool, ReadError> {
        Ok(match self {
            Self::U8(value) => read.u8()? == *value,
            Self::U16(value) => read.u16()? == *value,
            Self::U32(value) => read.u32()? == *value,
            Self::U64(value) => read.u64()? == *value,
            Self::I8(value) => read.i8()? == *value,
            Self::I16(value) => read.i16()? == *value,
            Self::I32(value) => read.i32()? == *value,
            Self::I64(value) => read.i64()? == *value,
            Self::F32(bits) => read.f32()?.to_bits() == *bits,
            Self::F64(bits) => read.f64()?.to_bits() == *bits,
            Self::Bool(value) => read.bool()? == *value,
            Self::Str(value) => read.str()? == *value,
            Self::Bytes(value) => read.take(value.len())? == *value,
            Self::U16s(values) => read.values::<u16>(values.len())?.eq(values.iter().copied()),
            Self::I64s(values) => read.values::<i64>(values.len())?.eq(values.iter().copied()),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::U8(_) | Self::I8(_) | Self::Bool(_) => 1,
            Self::U16(_) | Self::I16(_) => 2,
            Self::U32(_) | Self::I32(_) | Self::F32(_) => 4,
            Self::U64(_) | Self::I64(_) | Self::F64(_) => 8,
            Self::Str(value) => 2 + value.len(),
            Self::Bytes(value) => value.len(),
            Self::U16s(values) => 2 * values.len(),
            Self::I64s(values) => 8 * values.len(),
        }
    }
}

proptest! {
    #[test]
    fn p2_what_was_written_is_read(values in prop::collection::vec(Value::any(), 0..20)) {
        let len = values.iter().map(Value::len).sum();
        let mut room = vec![0xEE; len];
        let mut out = Writer::new(&mut room);
        for value in &values {
            value.write(&mut out).unwrap();
        }
        prop_assert_eq!((out.position(), out.remaining()), (len, 0));

        let mut read = Reader::new(&room);
        for value in &values {
            prop_assert!(value.matches(&mut read).unwrap(), "{value:?}");
        }
        prop_assert_eq!(read.finish(), Ok(()));
    }

    #[test]
    fn p2_a_value_that_is_cut_short_is_an_error_and_moves_nothing(value in Value::any(), before in 0..4_usize) {
        for len in 0..value.len() {
            let mut room = vec![0xEE; before + value.len()];
            let mut out = Writer::new(&mut room);
            out.bytes(&vec![9; before]).unwrap();
            value.write(&mut out).unwrap();
            let mut read = Reader::new(&room[..before + len]);
            read.take(before).unwrap();
            prop_assert!(
                matches!(value.matches(&mut read), Err(ReadError::Truncated { .. })), "{value:?} in {len} bytes"
            );
            prop_assert_eq!(read.rest(), &room[before..before + len]);

            let mut room = vec![0xEE; before + len];
            let mut out = Writer::new(&mut room);
            out.bytes(&vec![9; before]).unwrap();
            prop_assert_eq!(value.write(&mut out), Err(WriteError::Full { needed: value.len(), available: len }));
            prop_assert_eq!(out.position(), before);
            prop_assert!(room[before..].iter().all(|byte| *byte == 0xEE), "wrote half a value");
        }
    }

    #[test]
    fn p2_reading_garbage_never_panics(values in prop::collection::vec(Value::any(), 0..20), bytes: Vec<u8>) {
        let mut read = Reader::new(&bytes);
        for value in &values {
            let before = read.remaining();
            if value.matches(&mut read).is_err() {
                prop_assert_eq!(read.remaining(), before, "{:?} failed and moved", value);
            }
        }
    }
}

#[test]
fn values_stand_little_endian_and_unpadded() {
    fn check(expected: &[u8], write: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>) {
        let mut room = [0xEE; 16];
        let mut out = Writer::new(&mut room);
        write(&mut out).unwrap();
        let len = out.position();
        assert_eq!(&room[..len], expected);
        assert!(room[len..].iter().all(|byte| *byte == 0xEE), "wrote behind the value");
    }
    check(&[0x12], |out| out.u8(0x12));
    check(&[0x34, 0x12], |out| out.u16(0x1234));
    check(&[0x78, 0x56, 0x34, 0x12], |out| out.u32(0x1234_5678));
    check(&[8, 7, 6, 5, 4, 3, 2, 1], |out| out.u64(0x0102_0304_0506_0708));
    check(&[0xFE], |out| out.i8(-2));
    check(&[0xFE, 0xFF], |out| out.i16(-2));
    check(&[0xFE, 0xFF, 0xFF, 0xFF], |out| out.i32(-2));
    check(&[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], |out| out.i64(-2));
    check(&[0, 0, 0xC0, 0x3F], |out| out.f32(1.5));
    check(&[0, 0, 0, 0, 0, 0, 0xF8, 0x3F], |out| out.f64(1.5));
    check(&[1], |out| out.bool(true));
    check(&[0], |out| out.bool(false));
    check(&[3, 0, 0xEB, 0xA7, 0x88], |out| out.str("마"));
    check(&[0, 0], |out| out.str(""));
    check(&[1, 2, 3], |out| out.bytes(&[1, 2, 3]));
    check(&[1, 0, 2, 0], |out| out.values(&[1_u16, 2]));
}

#[test]
fn r03_a_count_is_checked_against_what_is_left() {
    fn check(count: usize, expected: Result<usize, ReadError>) {
        let mut read = Reader::new(&[1, 0, 0, 0, 2, 0, 0, 0, 3]);
        let values = read.values::<u32>(count);
        assert_eq!(values.as_ref().map(ExactSizeIterator::len).map_err(|error| *error), expected);
        if let Ok(values) = values {
            assert!(values.eq([1, 2].into_iter().take(count)));
        } else {
            assert_eq!(read.remaining(), 9, "moved");
        }
    }
    check(0, Ok(0));
    check(2, Ok(2));
    check(3, Err(ReadError::Truncated { needed: 12, available: 9 }));
    check(usize::MAX, Err(ReadError::Truncated { needed: usize::MAX, available: 9 }));
    check(usize::MAX / 4 + 1, Err(ReadError::Truncated { needed: usize::MAX, available: 9 }));
}

#[test]
fn r05_bytes_that_are_no_value_are_errors() {
    for byte in 2..=255 {
        let bytes = [byte];
        let mut read = Reader::new(&bytes);
        assert_eq!(read.bool(), Err(ReadError::Bool(byte)));
        assert_eq!(read.remaining(), 1, "moved");
    }
    for text in [&[1, 0, 0xFF][..], &[2, 0, 0xEB, 0xA7], &[3, 0, 0xED, 0xA0, 0x80], &[2, 0, 0xC0, 0x80]] {
        let mut read = Reader::new(text);
        assert_eq!(read.str(), Err(ReadError::Utf8), "{text:?}");
        assert_eq!(read.rest(), text, "moved");
    }
}

#[test]
fn p2_bytes_behind_the_last_value_are_an_error() {
    let mut read = Reader::new(&[1, 2, 3]);
    read.u8().unwrap();
    assert_eq!(read.clone().finish(), Err(ReadError::Trailing(2)));
    assert_eq!(read.array(), Ok([2, 3]));
    assert!(read.is_empty());
    assert_eq!(read.finish(), Ok(()));
}

#[test]
fn p2_a_text_longer_than_its_length_field_is_refused() {
    let mut room = vec![0; 70_000];
    let text = "a".repeat(65_536);
    let mut out = Writer::new(&mut room);
    assert_eq!(out.str(&text), Err(WriteError::TextTooLong { len: 65_536, limit: 65_535 }));
    assert_eq!(out.position(), 0);
    out.str(&text[1..]).unwrap();
    assert_eq!(Reader::new(&room).str().unwrap(), &text[1..]);
}
