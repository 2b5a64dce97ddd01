//! Reading: a cursor over borrowed bytes.

use std::marker::PhantomData;

use super::Scalar;

/// A checked cursor over bytes that someone else owns. Cloning copies the position, not the bytes, so a clone is a
/// look-ahead.
///
/// Every read either returns a value made of bytes that it has seen, and moves behind them, or returns a
/// [`ReadError`] and does not move.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    unread: &'a [u8],
}

/// Why a value could not be read. The writer of the bytes is at fault, never the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes end before the value does.
    #[error("{needed} bytes needed, {available} left")]
    Truncated {
        /// Bytes that the value takes; `usize::MAX` stands for more than can be counted.
        needed: usize,
        /// Bytes that are left.
        available: usize,
    },
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A truth value is neither 0 nor 1.
    #[error("bool is {0}, not 0 or 1")]
    Bool(u8),
    /// [`Reader::finish`] found bytes behind the last value.
    #[error("{0} bytes behind the last value")]
    Trailing(usize),
}

macro_rules! read {
    ($($(#[$doc:meta])* $type:ident),*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $type(&mut self) -> Result<$type, ReadError> {
            self.scalar()
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A cursor at the first of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { unread: bytes }
    }

    read! {
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
        /// Four bytes, any bit pattern: check for NaN and infinities where they matter.
        f32,
        /// Eight bytes, any bit pattern: check for NaN and infinities where they matter.
        f64
    }

    /// One byte that must be 0 or 1.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, ReadError> {
        let mut ahead = self.clone();
        let value = match ahead.u8()? {
            0 => false,
            1 => true,
            other => return Err(ReadError::Bool(other)),
        };
        *self = ahead;
        Ok(value)
    }

    /// The next `len` bytes, borrowed.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        let (bytes, rest) = self.unread.split_at_checked(len).ok_or(self.truncated(len))?;
        self.unread = rest;
        Ok(bytes)
    }

    /// The next `N` bytes, copied.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (array, rest) = self.unread.split_first_chunk().ok_or(self.truncated(N))?;
        self.unread = rest;
        Ok(*array)
    }

    /// A text: `u16` length in bytes, then UTF-8, borrowed.
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, ReadError> {
        let mut ahead = self.clone();
        let len = ahead.u16()?;
        let text = std::str::from_utf8(ahead.take(usize::from(len))?).map_err(|_| ReadError::Utf8)?;
        *self = ahead;
        Ok(text)
    }

    /// The next `count` integers or floats. The whole run is checked against what is left before the first is
    /// made, so a count that a stranger wrote is safe to pass, and the iterator's length safe to reserve.
    #[inline]
    pub fn values<T: Scalar>(&mut self, count: usize) -> Result<Values<'a, T>, ReadError> {
        let len = count.checked_mul(T::SIZE).ok_or(self.truncated(usize::MAX))?;
        Ok(Values { bytes: self.take(len)?, value: PhantomData })
    }

    /// All that is left, borrowed; the cursor stands at the end.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.unread)
    }

    /// Bytes left.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.unread.len()
    }

    /// Whether all was read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Ends the reading of a message whose every byte has a meaning: an error if some are left.
    #[inline]
    pub const fn finish(self) -> Result<(), ReadError> {
        match self.unread.len() {
            0 => Ok(()),
            left => Err(ReadError::Trailing(left)),
        }
    }

    #[inline]
    fn scalar<T: Scalar>(&mut self) -> Result<T, ReadError> {
        let truncated = self.truncated(T::SIZE);
        T::take(&mut self.unread).ok_or(truncated)
    }

    #[inline]
    const fn truncated(&self, needed: usize) -> ReadError {
        ReadError::Truncated { needed, available: self.unread.len() }
    }
}

/// Integers or floats standing behind each other, decoded one at a time: [`Reader::values`].
#[derive(Clone, Debug)]
pub struct Values<'a, T> {
    /// A whole number of values.
    bytes: &'a [u8],
    value: PhantomData<T>,
}

impl<T: Scalar> Iterator for Values<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        T::take(&mut self.bytes)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.bytes.len().checked_div(T::SIZE).unwrap_or(0);
        (left, Some(left))
    }
}

impl<T: Scalar> ExactSizeIterator for Values<'_, T> {}

impl<T: Scalar> std::iter::FusedIterator for Values<'_, T> {}
