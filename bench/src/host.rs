//! The machine: pinning, and what the kernel says about a process.

use std::fs;
use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use rustix::process::Signal;
use rustix::thread::CpuSet;

/// Pins the calling thread, and so every thread it starts later, and ends the process with its parent: no measurement
/// leaves a server behind.
///
/// # Errors
/// There is no such CPU, or this process may not use it.
pub fn settle(cpu: usize) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// The line by which a server tells its starter where it listens.
const LISTENING: &str = "listening ";

/// Prints it.
pub fn announce(address: SocketAddr) {
    println!("{LISTENING}{address}");
}

/// Reads it.
pub fn announced(line: &str) -> Option<SocketAddr> {
    line.trim_end().strip_prefix(LISTENING)?.parse().ok()
}

/// CPU time of a process: every thread it has, io_uring's own workers included.
///
/// The kernel brings a running thread's figure up to date at its ticks (4 ms here) and switches: about 0.5 % of a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// Nanoseconds that the threads ran.
    pub ran_ns: u64,
    /// Nanoseconds that the one of them which has run the most was ready but something else had the CPU: a measure of how quiet
    /// the machine was. Another that looks for a signal now and then waits for that one, a whole turn each time.
    pub waited_ns: u64,
}

impl CpuTime {
    /// Reads `/proc/PID/task/*/schedstat`. A thread that ends while being read counts for nothing.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(process: u32) -> io::Result<Self> {
        let (mut sum, mut most) = (Self::default(), 0);
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let mut figures = text.split_ascii_whitespace().map_while(|figure| figure.parse::<u64>().ok());
            let (ran, waited) = (figures.next().unwrap_or(0), figures.next().unwrap_or(0));
            sum.ran_ns += ran;
            if ran > most {
                (most, sum.waited_ns) = (ran, waited);
            }
        }
        Ok(sum)
    }

    /// What was spent since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            ran_ns: self.ran_ns.saturating_sub(earlier.ran_ns),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
        }
    }
}

/// Resident bytes of a process, from `smaps_rollup`, which counts pages instead of estimating like `VmRSS` does.
///
/// # Errors
/// The process is gone or belongs to someone else.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("smaps_rollup without Rss")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// The thread that runs network work which nobody's own system call had time for; its time is reported apart.
#[must_use]
pub fn softirq_thread(cpu: usize) -> Option<u32> {
    let name = format!("ksoftirqd/{cpu}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        (fs::read_to_string(entry.path().join("comm")).ok()?.trim_end() == name).then_some(process)
    })
}

/// One line on processor, count and kernel, for the head of a table.
#[must_use]
pub fn machine() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu_info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".to_owned());
    let family = field("cpu family").unwrap_or_default();
    let processors = cpu_info.lines().filter(|line| line.starts_with("processor")).count();
    let virtual_machine = if cpu_info.contains(" hypervisor") { ", in a virtual machine" } else { "" };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{processors} × {model} (family {family}){virtual_machine}, Linux {kernel}")
}
