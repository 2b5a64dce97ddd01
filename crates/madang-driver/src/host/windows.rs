//! Windows.

use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::Security::Cryptography::{BCRYPT_USE_SYSTEM_PREFERRED_RNG, BCryptGenRandom};
use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
use windows_sys::Win32::System::SystemInformation::GetSystemTimePreciseAsFileTime;

use crate::Time;

/// The monotonic clock. All drivers of the process (and of the machine, until its next boot) read the same one.
pub(crate) fn now() -> Time {
    let (mut ticks, mut per_second) = (0, 0);
    // SAFETY: both numbers are writable. Neither call fails on a system that Rust runs on, and both are reads of memory.
    unsafe {
        QueryPerformanceCounter(&mut ticks);
        QueryPerformanceFrequency(&mut per_second);
    }
    let (ticks, per_second) = (ticks as u64, per_second.max(1) as u64);
    // In two parts: the product of all ticks would overflow within an hour's uptime.
    let nanos = ticks / per_second * 1_000_000_000 + ticks % per_second * 1_000_000_000 / per_second;
    Time::from_nanos(nanos)
}

/// Wall-clock time since the Unix epoch; zero for a clock that is set to before it.
pub(crate) fn wall() -> Duration {
    /// From the first of January 1601, where the system begins to count, to that of 1970, in units of 100 ns.
    const EPOCH: u64 = 11_644_473_600 * 10_000_000;
    let mut time = FILETIME::default();
    // SAFETY: the structure is writable.
    unsafe { GetSystemTimePreciseAsFileTime(&mut time) };
    let units = (u64::from(time.dwHighDateTime) << 32) | u64::from(time.dwLowDateTime);
    let since = units.saturating_sub(EPOCH);
    Duration::new(since / 10_000_000, (since % 10_000_000) as u32 * 100)
}

/// Fills `bytes` with the system's entropy.
///
/// # Panics
/// When the system has none to give: keys made of anything else would be worse than no server.
pub(crate) fn random(bytes: &mut [u8]) {
    // One call takes four gigabytes.
    for piece in bytes.chunks_mut(1 << 20) {
        // SAFETY: the piece is writable for its length.
        let status = unsafe {
            BCryptGenRandom(
                std::ptr::null_mut(),
                piece.as_mut_ptr(),
                piece.len() as u32,
                BCRYPT_USE_SYSTEM_PREFERRED_RNG,
            )
        };
        assert!(status >= 0, "the system gives entropy: {status:#x}");
    }
}
