//! The fixed-size values that the codec knows.

/// An integer or float that stands on the wire as its little-endian bytes. Closed: implemented for `u8`…`u64`,
/// `i8`…`i64`, `f32` and `f64`.
pub trait Scalar: Copy + closed::Closed {
    /// Bytes on the wire.
    const SIZE: usize;

    /// Takes one value off the front of `bytes`; `None`, and `bytes` as it was, when it is too short.
    fn take(bytes: &mut &[u8]) -> Option<Self>;

    /// Puts the value at the front of `room` and moves `room` behind it; `None`, and `room` as it was, when it is
    /// too short.
    fn put(self, room: &mut &mut [u8]) -> Option<()>;
}

mod closed {
    pub trait Closed {}
}

macro_rules! scalar {
    ($($type:ty),*) => {$(
        impl closed::Closed for $type {}

        impl Scalar for $type {
            const SIZE: usize = size_of::<$type>();

            #[inline]
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (value, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(<$type>::from_le_bytes(*value))
            }

            #[inline]
            fn put(self, room: &mut &mut [u8]) -> Option<()> {
                room.get(..Self::SIZE)?;
                let (place, rest) = std::mem::take(room).split_at_mut_checked(Self::SIZE)?;
                place.copy_from_slice(&self.to_le_bytes());
                *room = rest;
                Some(())
            }
        }
    )*};
}

scalar!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);
