//! What the running kernel's io_uring can do, found by doing it.
//!
//! Version numbers lie (vendors backport, containers forbid), and some features were broken on some kernels (U12). So each
//! is used once at start, on sockets of our own, before the driver relies on it.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::Fd;
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};

use super::buffers::Buffers;
use super::ring::{Ring, RingSize};

/// What this process may use of io_uring, and what it has to do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// How the ring is set up.
    pub ring: RingFlags,
    /// One receive buffer carries the bytes of many connections (6.12). Without: whole buffers of 16 KiB.
    pub incremental_buffers: bool,
    /// Options of sockets in the ring's own file table can be set (6.7). Without: an abort there is a FIN, not a reset.
    pub option_commands: bool,
}

impl fmt::Display for Features {
    /// One line: what is missing, if anything is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = [
            (self.ring.defer_taskrun, "deferred task work"),
            (self.ring.no_sqarray, "direct submission order"),
            (self.ring.registered_ring, "a registered ring"),
            (self.incremental_buffers, "incremental buffers"),
            (self.option_commands, "option commands"),
        ];
        let mut separator = "without ";
        for (_, name) in missing.into_iter().filter(|(there, _)| !there) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        if separator == "without " { f.write_str("with everything") } else { Ok(()) }
    }
}

/// Set-up flags of a ring, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFlags {
    /// The kernel takes submissions in queue order (6.6).
    pub no_sqarray: bool,
    /// Completions are made only when the shard asks for them (6.1): the largest single gain.
    pub defer_taskrun: bool,
    /// One thread submits (6.0).
    pub single_issuer: bool,
    /// The kernel does not interrupt the shard to make completions (5.19).
    pub coop_taskrun: bool,
    /// A bad submission does not hold up those behind it (5.18).
    pub submit_all: bool,
    /// The ring is known to the kernel by an index (5.18).
    pub registered_ring: bool,
}

impl RingFlags {
    pub(super) const ALL: RingFlags = RingFlags {
        no_sqarray: true,
        defer_taskrun: true,
        single_issuer: true,
        coop_taskrun: true,
        submit_all: true,
        registered_ring: true,
    };

    /// Tries with all of these flags, then without the newest, and so on: a kernel answers EINVAL to a flag that it does not know.
    pub(super) fn as_far_as(
        mut self,
        mut build: impl FnMut(RingFlags) -> io::Result<IoUring>,
    ) -> Result<(IoUring, RingFlags), Refused> {
        let without: [fn(&mut RingFlags); 5] = [
            |flags| flags.no_sqarray = false,
            |flags| flags.defer_taskrun = false,
            |flags| flags.single_issuer = false,
            |flags| flags.coop_taskrun = false,
            |flags| flags.submit_all = false,
        ];
        let mut without = without.into_iter();
        loop {
            match build(self) {
                Ok(ring) => return Ok((ring, self)),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => match without.next() {
                    Some(drop_newest) => drop_newest(&mut self),
                    None => return Err(Refused::from_setup(&error)),
                },
                Err(error) => return Err(Refused::from_setup(&error)),
            }
        }
    }

    pub(super) fn apply(self, builder: &mut Builder<squeue::Entry, cqueue::Entry>) {
        if self.no_sqarray {
            builder.setup_no_sqarray();
        }
        if self.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if self.single_issuer {
            builder.setup_single_issuer();
        }
        if self.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        if self.submit_all {
            builder.setup_submit_all();
        }
    }
}

/// Why there is no io_uring to be had here. The remedy is the readiness driver, or what the text names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// EPERM, EACCES.
    #[error(
        "io_uring is forbidden here (EPERM): a container's seccomp profile or the sysctl kernel.io_uring_disabled"
    )]
    Forbidden,
    /// ENOSYS.
    #[error("this kernel has no io_uring (ENOSYS)")]
    Missing,
    /// The kernel is older than 6.0, or its io_uring is cut down.
    #[error("this kernel's io_uring lacks {lacks} (Linux 6.0 has it)")]
    TooOld {
        /// What was tried in vain.
        lacks: &'static str,
    },
    /// ENOMEM, or the locked-memory limit on old kernels.
    #[error("no memory for the rings of io_uring (raise RLIMIT_MEMLOCK, or make the driver smaller)")]
    NoMemory,
    /// EMFILE, ENFILE.
    #[error("no descriptor left for io_uring (raise RLIMIT_NOFILE)")]
    NoDescriptor,
    /// Anything else.
    #[error("{step} failed with error number {errno}")]
    Failed {
        /// At what.
        step: &'static str,
        /// The system's number for it.
        errno: i32,
    },
}

impl Refused {
    fn from_setup(error: &io::Error) -> Refused {
        match error.raw_os_error().unwrap_or(0) {
            libc::EINVAL => Refused::TooOld { lacks: "a set-up that this driver knows" },
            _ => Refused::at("setting up io_uring")(error),
        }
    }

    /// For `map_err`: the words for an error at `step`.
    pub(super) fn at(step: &'static str) -> impl Fn(&io::Error) -> Refused {
        move |error| match error.raw_os_error().unwrap_or(0) {
            libc::EPERM | libc::EACCES => Refused::Forbidden,
            libc::ENOSYS => Refused::Missing,
            libc::ENOMEM => Refused::NoMemory,
            libc::EMFILE | libc::ENFILE => Refused::NoDescriptor,
            errno => Refused::Failed { step, errno },
        }
    }
}

/// Finds out whether, and how well, io_uring works for this process. The first success is remembered: the later ones cost
/// nothing. Takes about a millisecond, opens a few descriptors and closes them again.
///
/// # Errors
/// [`Refused`] says in words why not; start on readiness then.
pub fn probe() -> Result<Features, Refused> {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    if let Some(features) = FEATURES.get() {
        return Ok(*features);
    }
    let features = probe_afresh()?;
    Ok(*FEATURES.get_or_init(|| features))
}

fn probe_afresh() -> Result<Features, Refused> {
    let (ring, flags) = small_ring()?;
    drop(ring);
    let incremental_buffers = receives_in_order(true).unwrap_or(false);
    if !incremental_buffers && !receives_in_order(false)? {
        return Err(Refused::TooOld { lacks: "multishot receive from a ring of buffers" });
    }
    Ok(Features { ring: flags, incremental_buffers, option_commands: sets_options().unwrap_or(false) })
}

/// U12: two connections, served from the same buffers in turn: does each byte arrive once, in order and at its own?
fn receives_in_order(incremental: bool) -> Result<bool, Refused> {
    const BUFFERS: u16 = 4;
    const BUFFER_BYTES: u32 = 256;
    const PER_PEER: usize = 600;

    let refused = Refused::at("the receive self-test");
    let (ring, _) = small_ring()?;
    let buffers = Buffers::new(&ring, BUFFERS, BUFFER_BYTES, incremental)?;
    let mut wired = Wired { ring, buffers };
    let Wired { ring, buffers } = &mut wired;
    let mut links = [
        loopback_pair().map_err(|error| refused(&error))?,
        loopback_pair().map_err(|error| refused(&error))?,
    ];
    let mut received: [Vec<u8>; 2] = Default::default();
    let mut taken = Vec::new();
    let mut armed = [false; 2];
    let mut sent = 0;
    // Each round moves at least one chunk; a kernel that answers nothing at all ends at the bound.
    for _ in 0..64 {
        for (index, (_, ours)) in links.iter().enumerate() {
            if !armed[index] {
                let receive = opcode::RecvMulti::new(Fd(ours.as_raw_fd()), 0).build().user_data(index as u64);
                // SAFETY: the operation points to no memory of ours but the buffers, which live until after the ring.
                armed[index] = unsafe { ring.push(&receive) }.is_ok();
            }
        }
        if sent < PER_PEER {
            // From one byte each upwards: ranges begin and end everywhere inside the buffers.
            let chunk = (1 + sent / 4).min(PER_PEER - sent);
            for (index, (peer, _)) in links.iter_mut().enumerate() {
                let bytes: Vec<u8> = (sent..sent + chunk).map(|at| pattern(index, at)).collect();
                peer.write_all(&bytes).map_err(|error| refused(&error))?;
            }
            sent += chunk;
        }
        ring.sleep(2, Some(crate::host::now() + Duration::from_millis(20)));
        ring.take(&mut taken, 64);
        for completion in taken.drain(..) {
            let index = (completion.user_data() & 1) as usize;
            if let Some(bytes) = buffers.lend(completion.flags(), completion.result()) {
                received[index].extend_from_slice(&bytes);
            }
            armed[index] = cqueue::more(completion.flags());
            if completion.result() == -libc::EINVAL {
                return Ok(false);
            }
        }
        buffers.take_back();
        if received.iter().all(|bytes| bytes.len() >= PER_PEER) {
            break;
        }
    }
    Ok(received.iter().enumerate().all(|(index, bytes)| {
        bytes.len() == PER_PEER && bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(index, at))
    }))
}

/// Whatever way the test ends, the ring is closed before the buffers are freed (U14).
struct Wired {
    ring: Ring,
    buffers: Buffers,
}

fn small_ring() -> Result<(Ring, RingFlags), Refused> {
    Ring::open(RingSize { submissions: 16, completions: 64 }, RingFlags::ALL)
}

fn pattern(link: usize, at: usize) -> u8 {
    (at as u8).wrapping_mul(31).wrapping_add(link as u8 * 101)
}

fn loopback_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    peer.set_nodelay(true)?;
    Ok((peer, ours))
}

/// Can an option of a socket be set by a submission?
fn sets_options() -> Result<bool, Refused> {
    let (mut ring, _) = small_ring()?;
    let refused = Refused::at("the option self-test");
    let (_peer, ours) = loopback_pair().map_err(|error| refused(&error))?;
    let entry = super::leave::linger_zero(Fd(ours.as_raw_fd()), Flags::empty());
    // SAFETY: the entry points to a static.
    unsafe { ring.push(&entry) }.expect("an empty queue takes an entry");
    let mut taken = Vec::new();
    ring.sleep(1, Some(crate::host::now() + Duration::from_millis(100)));
    ring.take(&mut taken, 1);
    let set = taken.first().is_some_and(|completion| completion.result() == 0);
    let linger = rustix::net::sockopt::socket_linger(&ours).map_err(|error| refused(&error.into()))?;
    Ok(set && linger == Some(Duration::ZERO))
}
