//! One message that arrived.

use std::fmt;
use std::ops::{Deref, DerefMut};

use madang_wire::Reader;

/// A whole message: it reads like a cursor, and its bytes are there as long as the callback runs.
///
/// Borrowed from the memory that it arrived in; whoever wants to keep it copies it, for instance into a packet
/// ([`Context::packet`](crate::Context::packet)). It dereferences to the [`Reader`] of `madang-wire`: `message.u16()?`,
/// `message.str()?`. Reading past the end is an error value, never a panic or a stale byte.
#[derive(Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
}

impl<'a> Message<'a> {
    /// A message of these bytes: for tests of handlers.
    pub fn new(bytes: &'a [u8]) -> Message<'a> {
        Message { bytes, reader: Reader::new(bytes) }
    }

    /// The whole message, wherever the cursor stands. Never empty when it comes from a peer.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the whole message.
    #[expect(
        clippy::len_without_is_empty,
        reason = "`is_empty` is the reader's: whether anything is left to read"
    )]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Deref for Message<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl<'a> DerefMut for Message<'a> {
    fn deref_mut(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }
}

impl fmt::Debug for Message<'_> {
    /// The length only: payloads do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.bytes.len())
    }
}
