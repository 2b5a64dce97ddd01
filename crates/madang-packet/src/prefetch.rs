//! Memory that is needed soon.

/// Asks the processor to bring `value` into its cache. A hint: it changes nothing but how long the next look at it takes, and
/// where the processor has no such hint it does nothing at all.
///
/// Thousands of sessions with half a kilobyte of keys each do not stay in a cache between their turns. Whoever knows which
/// comes next asks for it while it still works on another.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let start = core::ptr::from_ref(value).cast::<i8>();
        let last = size_of::<T>().saturating_sub(1);
        let line = |byte| {
            // SAFETY: the address is at most the value's last byte (or its start, if it has none); a prefetch neither reads nor
            // writes, and every x86_64 has it (SSE).
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(byte)) };
        };
        (0..last).step_by(LINE).for_each(line);
        // A value that begins in the middle of a line ends in one more.
        line(last);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

/// Bytes of a cache line.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LINE: usize = 64;
