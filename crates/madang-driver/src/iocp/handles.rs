//! How many handles the process has: what a server that has stopped is judged by.

use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

/// Handles that the process has open now, of every kind; `None` where the system does not tell.
pub fn open_handles() -> Option<usize> {
    let mut count = 0;
    // SAFETY: the pseudo handle of the own process needs no closing; the number is writable.
    let is_told = unsafe { GetProcessHandleCount(GetCurrentProcess(), &mut count) } != 0;
    // Wine 8 answers zero, which no process has.
    (is_told && count > 0).then_some(count as usize)
}
