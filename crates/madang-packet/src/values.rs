//! The typed writers. Reading them back is the codec's affair (`madang-wire`).

use crate::packet_mut::PacketMut;

macro_rules! writers {
    ($($type:ident),*) => {$(
        #[doc = concat!("Appends a `", stringify!($type), "`, little-endian.")]
        #[inline]
        pub fn $type(&mut self, value: $type) -> &mut Self {
            self.put(value.to_le_bytes())
        }
    )*};
}

impl PacketMut {
    writers!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

    /// Appends one byte, 0 or 1.
    #[inline]
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.put([u8::from(value)])
    }

    /// Appends the bytes as they are: their number is the message's affair.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }

    /// Appends a string: its length in bytes as a `u16`, then its UTF-8. One that is longer than a `u16` can say makes
    /// the packet [too long](PacketMut::is_too_long); both parts are written, or neither.
    pub fn str(&mut self, text: &str) -> &mut Self {
        let length = match u16::try_from(text.len()) {
            Ok(length) => length.to_le_bytes(),
            Err(_) => {
                self.mark_too_long();
                return self;
            }
        };
        if let Some(room) = self.claim(length.len() + text.len()) {
            // SAFETY: `claim` answered room for both, which nothing of the caller's overlaps.
            unsafe {
                room.cast::<[u8; 2]>().write(length);
                room.add(length.len()).copy_from_nonoverlapping(text.as_ptr(), text.len());
            }
        }
        self
    }

    /// Appends the values, each little-endian: their number is the message's affair. All are written, or none.
    pub fn values<T: Scalar>(&mut self, values: &[T]) -> &mut Self {
        let Some(room) = self.claim(size_of_val(values)) else { return self };
        for (index, value) in values.iter().enumerate() {
            // SAFETY: `claim` answered room for all of them.
            unsafe { value.store(room.add(index * size_of::<T>())) }
        }
        self
    }

    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        if let Some(room) = self.claim(N) {
            // SAFETY: `claim` answered room for N bytes.
            unsafe { room.cast::<[u8; N]>().write(bytes) }
        }
        self
    }
}

/// An integer or float that [`PacketMut::values`] writes. Closed: implemented for `u8`…`u64`, `i8`…`i64`, `f32`, `f64`.
pub trait Scalar: Copy + closed::Store {}

mod closed {
    pub trait Store {
        /// Writes the value's little-endian bytes.
        ///
        /// # Safety
        /// `at` begins room for a `Self`, aligned or not.
        unsafe fn store(self, at: *mut u8);
    }
}

macro_rules! scalars {
    ($($type:ident),*) => {$(
        impl Scalar for $type {}

        impl closed::Store for $type {
            #[inline(always)]
            unsafe fn store(self, at: *mut u8) {
                // SAFETY: the caller has the room; an array of bytes needs no alignment.
                unsafe { at.cast::<[u8; size_of::<$type>()]>().write(self.to_le_bytes()) }
            }
        }
    )*};
}

scalars!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);
