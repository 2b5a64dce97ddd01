//! The system's timer: its waits end with its tick, which is 15.6 ms unless a program asks for better.

use windows_sys::Win32::Media::{TIMERR_NOERROR, timeBeginPeriod, timeEndPeriod};

/// Asks for a tick of a millisecond as long as it lives; the system counts who asks. Without it a server's 20 ms tick would
/// come at 31.
pub(super) struct FineTick {
    is_granted: bool,
}

const MILLISECONDS: u32 = 1;

impl FineTick {
    pub(super) fn begin() -> FineTick {
        // SAFETY: takes a number.
        FineTick { is_granted: unsafe { timeBeginPeriod(MILLISECONDS) } == TIMERR_NOERROR }
    }
}

impl Drop for FineTick {
    fn drop(&mut self) {
        if self.is_granted {
            // SAFETY: takes a number, the same that was granted.
            unsafe { timeEndPeriod(MILLISECONDS) };
        }
    }
}
