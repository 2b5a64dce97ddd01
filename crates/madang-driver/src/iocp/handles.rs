//! How many handles the process has: what a server that has stopped is judged by.

use windows_sys::Win32::Foundation::{GetHandleInformation, HANDLE};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

/// Handles that the process has open now, of every kind; `None` where the system does not tell.
pub fn open_handles() -> Option<usize> {
    let mut count = 0;
    // SAFETY: the pseudo handle of the own process needs no closing; the number is writable.
    let is_told = unsafe { GetProcessHandleCount(GetCurrentProcess(), &mut count) } != 0;
    match count {
        _ if !is_told => None,
        // What Wine 8 answers, and no process has: they are counted one by one.
        0 => Some(handles_found()),
        count => Some(count as usize),
    }
}

/// Handles that are found by asking about each value that one may have.
pub(super) fn handles_found() -> usize {
    /// They are handed out from the bottom, in steps of four. Whoever has more than 16,384 of them hears of so many.
    const VALUE_MAX: usize = 4 * 16_384;
    let is_open = |value: &usize| {
        let mut flags = 0;
        // SAFETY: asks about a number, whatever it is.
        unsafe { GetHandleInformation(*value as HANDLE, &mut flags) != 0 }
    };
    (4..=VALUE_MAX).step_by(4).filter(is_open).count()
}
