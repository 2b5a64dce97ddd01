//! Writing: a cursor over borrowed room.

use super::Scalar;

/// A checked cursor that fills room that someone else owns, from its front.
///
/// Every write puts the whole value and moves behind it, or returns a [`WriteError`], writes nothing and does not
/// move. Content writes through its packet, which has writes of its own; this one serves fixed room.
#[derive(Debug)]
pub struct Writer<'a> {
    room: &'a mut [u8],
    position: usize,
}

/// Why a value could not be written. Local misuse: the room was sized wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The value does not fit: give more room.
    #[error("{needed} bytes needed, {available} left")]
    Full {
        /// Bytes that the value takes.
        needed: usize,
        /// Bytes of room that are left.
        available: usize,
    },
    /// The text is longer than its length field, or the message's own limit, allows: shorten it.
    #[error("text of {len} bytes, at most {limit} allowed")]
    TextTooLong {
        /// Bytes of the text.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The text of a control frame holds control characters, which a peer would refuse: take them out.
    #[error("text with control characters")]
    TextControl,
}

macro_rules! write {
    ($($(#[$doc:meta])* $type:ident),*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $type(&mut self, value: $type) -> Result<(), WriteError> {
            self.scalar(value)
        }
    )*};
}

impl<'a> Writer<'a> {
    /// A cursor at the first byte of `room`.
    #[inline]
    pub const fn new(room: &'a mut [u8]) -> Self {
        Self { room, position: 0 }
    }

    write! {
        /// One byte.
        u8,
        /// Two bytes.
        u16,
        /// Four bytes.
        u32,
        /// Eight bytes.
        u64,
        /// One byte, two's complement.
        i8,
        /// Two bytes, two's complement.
        i16,
        /// Four bytes, two's complement.
        i32,
        /// Eight bytes, two's complement.
        i64,
        /// Four bytes, the bits as they are.
        f32,
        /// Eight bytes, the bits as they are.
        f64
    }

    /// One byte, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) -> Result<(), WriteError> {
        self.u8(u8::from(value))
    }

    /// `bytes` as they are, without a length.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.next(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// A text: `u16` length in bytes, then UTF-8.
    #[inline]
    pub fn str(&mut self, text: &str) -> Result<(), WriteError> {
        let limit = usize::from(u16::MAX);
        let len =
            u16::try_from(text.len()).map_err(|_| WriteError::TextTooLong { len: text.len(), limit })?;
        let needed = text.len().saturating_add(size_of::<u16>());
        if needed > self.remaining() {
            return Err(WriteError::Full { needed, available: self.remaining() });
        }
        self.u16(len)?;
        self.bytes(text.as_bytes())
    }

    /// Integers or floats behind each other, without a count.
    #[inline]
    pub fn values<T: Scalar>(&mut self, values: &[T]) -> Result<(), WriteError> {
        let mut place = self.next(values.len().saturating_mul(T::SIZE))?;
        for value in values {
            value.put(&mut place);
        }
        Ok(())
    }

    /// Bytes written so far.
    #[inline]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Bytes of room left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.room.len().saturating_sub(self.position)
    }

    #[inline]
    fn scalar<T: Scalar>(&mut self, value: T) -> Result<(), WriteError> {
        value.put(&mut self.next(T::SIZE)?);
        Ok(())
    }

    /// Moves behind the next `len` bytes and lends them.
    #[inline]
    fn next(&mut self, len: usize) -> Result<&mut [u8], WriteError> {
        let full = WriteError::Full { needed: len, available: self.remaining() };
        let start = self.position;
        let end = start.checked_add(len).ok_or(full)?;
        let place = self.room.get_mut(start..end).ok_or(full)?;
        self.position = end;
        Ok(place)
    }
}
