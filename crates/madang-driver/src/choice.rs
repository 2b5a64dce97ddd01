//! Picking a driver by name, at run time.

use std::fmt;

use crate::{Driver, DriverSettings};

/// The drivers of real systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverKind {
    /// io_uring; Linux.
    Uring,
    /// epoll or kqueue; Linux, macOS, BSD.
    Readiness,
    /// I/O completion ports; Windows.
    Iocp,
}

impl DriverKind {
    /// The drivers that this system may have, best first.
    pub const IN_ORDER: &'static [DriverKind] = if cfg!(windows) {
        &[DriverKind::Iocp]
    } else if cfg!(target_os = "linux") {
        &[DriverKind::Uring, DriverKind::Readiness]
    } else {
        &[DriverKind::Readiness]
    };

    /// Its name in settings and logs.
    pub fn name(self) -> &'static str {
        match self {
            DriverKind::Uring => "uring",
            DriverKind::Readiness => "readiness",
            DriverKind::Iocp => "iocp",
        }
    }

    /// Whether it can be used here and now, or in words why not. Cheap enough for each start of a server.
    ///
    /// # Errors
    /// What the system said: many containers forbid io_uring.
    pub fn probe(self) -> Result<(), String> {
        match self {
            #[cfg(target_os = "linux")]
            DriverKind::Uring => crate::uring::probe().map(drop).map_err(|refused| refused.to_string()),
            #[cfg(not(target_os = "linux"))]
            DriverKind::Uring => Err("io_uring is a Linux interface".to_owned()),
            #[cfg(unix)]
            DriverKind::Readiness => Ok(()),
            #[cfg(not(unix))]
            DriverKind::Readiness => {
                Err("there is no readiness driver for this system; iocp is the one".to_owned())
            }
            #[cfg(windows)]
            DriverKind::Iocp => Ok(()),
            #[cfg(not(windows))]
            DriverKind::Iocp => Err("I/O completion ports are a Windows interface".to_owned()),
        }
    }

    /// Makes the driver, on this thread, and hands it to `user`: the one place where a driver's type is chosen.
    ///
    /// # Errors
    /// In words, why it could not be made; `user` comes back.
    pub fn open<U: UseDriver>(self, settings: &DriverSettings, user: U) -> Result<U::Output, (String, U)> {
        match self {
            #[cfg(target_os = "linux")]
            DriverKind::Uring => match crate::uring::Uring::new(settings) {
                Ok(driver) => Ok(user.with(driver)),
                Err(refused) => Err((refused.to_string(), user)),
            },
            #[cfg(unix)]
            DriverKind::Readiness => match crate::readiness::Readiness::new(settings) {
                Ok(driver) => Ok(user.with(driver)),
                Err(error) => Err((error.to_string(), user)),
            },
            #[cfg(windows)]
            DriverKind::Iocp => match crate::iocp::Iocp::new(settings) {
                Ok(driver) => Ok(user.with(driver)),
                Err(error) => Err((error.to_string(), user)),
            },
            #[allow(unreachable_patterns, reason = "which arms there are depends on the system")]
            other => {
                let _ = settings;
                Err((other.probe().err().unwrap_or_default(), user))
            }
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done with a driver once its type is known: compiled once for each.
pub trait UseDriver {
    /// What comes of it.
    type Output;

    /// Uses the driver.
    fn with<D: Driver>(self, driver: D) -> Self::Output;
}

/// Gives the current thread another share of the processors than its neighbours: `nice` as Unix has it, from -20 (most) to
/// 19 (least). Windows knows five levels: up to -10 highest, up to -1 above normal, 0 normal, up to 9 below normal, lowest.
///
/// # Errors
/// The number is no such value; raising it is not permitted (Linux: CAP_SYS_NICE, or the limit RLIMIT_NICE); the system has
/// no such thing for a thread (macOS, BSD).
pub fn prioritize_thread(nice: i32) -> std::io::Result<()> {
    if !(-20..=19).contains(&nice) {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    #[cfg(target_os = "linux")]
    {
        // On Linux "this process" is the calling thread.
        Ok(rustix::process::setpriority_process(None, nice)?)
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Threading::{
            GetCurrentThread, SetThreadPriority, THREAD_PRIORITY_ABOVE_NORMAL, THREAD_PRIORITY_BELOW_NORMAL,
            THREAD_PRIORITY_HIGHEST, THREAD_PRIORITY_LOWEST, THREAD_PRIORITY_NORMAL,
        };

        let level = match nice {
            ..=-10 => THREAD_PRIORITY_HIGHEST,
            -9..=-1 => THREAD_PRIORITY_ABOVE_NORMAL,
            0 => THREAD_PRIORITY_NORMAL,
            1..=9 => THREAD_PRIORITY_BELOW_NORMAL,
            10.. => THREAD_PRIORITY_LOWEST,
        };
        // SAFETY: the pseudo handle of the calling thread needs no closing.
        match unsafe { SetThreadPriority(GetCurrentThread(), level) } {
            0 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Lets the current thread run only when nobody else wants its processor, and stop at once when somebody does. The least
/// `nice` of [`prioritize_thread`] is more than that: on Linux such a thread keeps a processor for its slice, some
/// milliseconds, while others wait. On a processor that is always busy it hardly runs at all (Linux: three thousandths).
///
/// # Errors
/// The system has no such thing for a thread (macOS, BSD).
pub fn idle_thread() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a struct of numbers, for all of which zero is a value: no priority. Some systems' have more of them.
        let no_priority: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: the call reads `no_priority`, which lives until it returns; 0 is the calling thread.
        match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &no_priority) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Threading::{
            GetCurrentThread, SetThreadPriority, THREAD_PRIORITY_IDLE,
        };

        // SAFETY: the pseudo handle of the calling thread needs no closing.
        match unsafe { SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_IDLE) } {
            0 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Pins the current thread to one processor.
///
/// # Errors
/// There is no such processor, or the system (macOS) does not pin threads.
pub fn pin_thread(core: usize) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let mut cores = rustix::thread::CpuSet::new();
        if core >= rustix::thread::CpuSet::MAX_CPU {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        cores.set(core);
        Ok(rustix::thread::sched_setaffinity(None, &cores)?)
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Threading::{GetCurrentThread, SetThreadAffinityMask};

        // The mask has a bit for each processor of one group, the process's first.
        let mask = u32::try_from(core).ok().and_then(|core| 1_usize.checked_shl(core));
        let Some(mask) = mask else { return Err(std::io::ErrorKind::InvalidInput.into()) };
        // SAFETY: the pseudo handle of the calling thread needs no closing.
        match unsafe { SetThreadAffinityMask(GetCurrentThread(), mask) } {
            0 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        let _ = core;
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn an_idle_thread_is_one_to_the_system_and_its_neighbours_are_none() {
        // SAFETY: the call takes a number and touches no memory; 0 is the calling thread.
        let class = || unsafe { libc::sched_getscheduler(0) };
        let idle = std::thread::spawn(move || super::idle_thread().map(|()| class()));
        assert_eq!(idle.join().expect("no panic").expect("everybody may be idle"), libc::SCHED_IDLE);
        assert_ne!(class(), libc::SCHED_IDLE);
    }
}
