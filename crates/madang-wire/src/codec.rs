//! Typed values as bytes: little-endian, unaligned, nothing implied.
//!
//! | value | bytes |
//! |---|---|
//! | `u8`…`u64`, `i8`…`i64` | little-endian, two's complement |
//! | `f32`, `f64` | the IEEE 754 bits, little-endian; every bit pattern is a value, NaNs keep theirs |
//! | `bool` | one byte, 0 or 1; any other is an error |
//! | `str` | `u16` length in bytes, then UTF-8 |
//! | `bytes`, `values` | as they are; the length or count is the message's affair |
//!
//! A read or write that fails has no effect: the cursor stays where it was, so that no half of a value is ever taken
//! for the next one.

mod reader;
mod scalar;
mod writer;

pub use reader::{ReadError, Reader, Values};
pub use scalar::Scalar;
pub use writer::{WriteError, Writer};
