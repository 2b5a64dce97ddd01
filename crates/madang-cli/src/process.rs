//! What the operating system knows of this process. Each answer is `None` where the system does not tell.

use std::time::Duration;

/// Descriptors that are open now; on Windows handles.
pub(crate) fn descriptors() -> Option<usize> {
    #[cfg(windows)]
    return madang_driver::iocp::open_handles();
    #[cfg(not(windows))]
    // One of them is the listing's own, each time.
    std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() - 1)
}

/// Bytes of memory that are resident now, or were at the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    pub(crate) most: u64,
}

pub(crate) fn resident() -> Option<Resident> {
    if !cfg!(target_os = "linux") {
        // Wine shows a file of that name, of another process.
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Resident { now: kibibytes("VmRSS:")? * 1024, most: kibibytes("VmHWM:")? * 1024 })
}

/// Processor time of all threads so far.
pub(crate) fn cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(Duration::new(time.tv_sec.try_into().ok()?, time.tv_nsec.try_into().ok()?))
    }
    #[cfg(not(unix))]
    None
}

/// Asks for as many descriptors as the system allows this user, and says how many that is. A fresh machine starts
/// programs with 1,024 (macOS: 256), a limit for the sake of `select`, which nothing here uses.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current == maximum {
            return current;
        }
        // macOS says "no limit" and refuses more than 10,240 at once (OPEN_MAX).
        for wanted in [maximum, Some(maximum.map_or(10_240, |most| most.min(10_240)))] {
            if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum }).is_ok() {
                return wanted;
            }
        }
        current
    }
    #[cfg(not(unix))]
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted_exactly() {
        // Other tests of this process open files too: some count must show the difference.
        let shows = || {
            let before = descriptors()?;
            let files = [(); 10].map(|()| std::fs::File::open("/proc/self/status"));
            let with = descriptors()?;
            drop(files);
            Some(with == before + 10)
        };
        assert!((0..100).any(|_| shows() == Some(true)));
    }

    #[test]
    fn memory_and_time_are_told() {
        let resident = resident().expect("Linux tells it");
        assert!(resident.now > 100 << 10 && resident.most >= resident.now, "{resident:?}");
        assert!(cpu_time().expect("Linux tells it") > Duration::ZERO);
        assert!(raise_descriptor_limit().is_none_or(|limit| limit >= 256));
    }
}
