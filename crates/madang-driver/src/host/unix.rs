//! Linux, macOS, BSD.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Time;

/// The monotonic clock. All drivers of the process (and of the machine, until its next boot) read the same one.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Wall-clock time since the Unix epoch; zero for a clock that is set to before it.
pub(crate) fn wall() -> Duration {
    let now = clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec).map_or(Duration::ZERO, |seconds| Duration::new(seconds, now.tv_nsec as u32))
}

/// Fills `bytes` with the system's entropy. It may wait for the pool once, right after the machine's boot.
///
/// # Panics
/// When the system has none to give: keys made of anything else would be worse than no server.
pub(crate) fn random(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        let filled = entropy(bytes).expect("the system gives entropy");
        bytes = &mut bytes[filled..];
    }
}

#[cfg(target_os = "linux")]
fn entropy(bytes: &mut [u8]) -> rustix::io::Result<usize> {
    rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()))
}

#[cfg(not(target_os = "linux"))]
fn entropy(bytes: &mut [u8]) -> std::io::Result<usize> {
    // The call refuses more than 256 bytes at once.
    let piece = bytes.len().min(256);
    // SAFETY: `bytes` is valid for writing `piece` bytes, since `piece` is at most its length.
    match unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), piece) } {
        0 => Ok(piece),
        _ => Err(std::io::Error::last_os_error()),
    }
}
