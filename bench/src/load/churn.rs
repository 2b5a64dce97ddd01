//! Churn: connect, one message, its echo, reset. Each cycle is one chain of linked operations with one completion.
//!
//! ```text
//!   socket ─► linger 0 ─► connect ─► send ─► receive all ─► close (a reset, so that no port waits)
//! ```
//!
//! A chain that breaks posts one completion, that of the operation that failed: its user data says which.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Instant;

use anyhow::{bail, ensure};
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fixed};
use io_uring::{CompletionQueue, IoUring, cqueue, opcode};

use super::latency::Latency;
use super::window::Stopwatch;
use super::{ANSWER_DEADLINE, Probe, Span, Window};
use crate::ring::Submissions;
use crate::wire;

/// Keeps a number of such cycles going.
pub struct ChurnLoad<'ring> {
    submissions: Submissions<'ring>,
    completions: CompletionQueue<'ring>,
    memory: &'static Memory,
    /// Start of each slot's cycle; `None` when it is not running.
    started: Vec<Option<u64>>,
    cycles: u64,
    failures: u64,
    latency: Latency,
}

/// What the chains point to; lives as long as the process.
struct Memory {
    server: libc::sockaddr_in,
    linger: libc::linger,
    frame: Vec<u8>,
}

/// The operations of a chain, in order.
const STEPS: [&str; 6] = ["socket", "linger", "connect", "send", "receive", "close"];
const CLOSE: u64 = 5;
/// The close of a slot whose chain broke.
const CLEAN_UP: u64 = 6;

/// A server that drops this many cycles is not being measured.
const FAILURES_MAX: u64 = 100;

impl<'ring> ChurnLoad<'ring> {
    /// Cycles against `server`, `concurrent` at a time, with messages of `payload_bytes`. The ring is one of
    /// [`crate::ring::Wait::Spinning`].
    ///
    /// # Errors
    /// The ring refuses a file table of that size; the server's address is not IPv4.
    pub fn new(
        ring: &'ring mut IoUring,
        server: SocketAddr,
        concurrent: usize,
        payload_bytes: usize,
    ) -> anyhow::Result<Self> {
        let SocketAddr::V4(server) = server else { bail!("churn wants an IPv4 address") };
        let (submitter, queue, completions) = ring.split();
        let submissions = Submissions::new(submitter, queue)?;
        submissions.submitter().register_files_sparse(concurrent as u32)?;
        let mut frame = wire::header(payload_bytes).to_vec();
        frame.resize(wire::HEADER_BYTES + payload_bytes, 0x5a);
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let memory = Box::leak(Box::new(Memory { server: kernel_address(server), linger, frame }));
        let started = vec![None; concurrent];
        Ok(Self {
            submissions,
            completions,
            memory,
            started,
            cycles: 0,
            failures: 0,
            latency: Latency::new(),
        })
    }

    /// Cycles through `span`, then waits for the last ones. A message is a cycle; latency is that of a whole cycle.
    ///
    /// # Errors
    /// The server is gone, or too many cycles failed: a few may, when a reset overtakes an accept.
    pub fn window(&mut self, probe: Probe, span: Span) -> anyhow::Result<Window> {
        let mut stopwatch = Stopwatch::start(probe, span, self.cycles, self.started.len() as u64);
        for slot in 0..self.started.len() {
            self.start(slot, Instant::now())?;
        }
        loop {
            let now = self.turn(true)?;
            if !stopwatch.look(now, self.cycles, &mut self.latency)? {
                break;
            }
        }
        let window = stopwatch.window(&self.latency)?;
        let deadline = Instant::now() + ANSWER_DEADLINE;
        while self.started.iter().any(Option::is_some) {
            ensure!(self.turn(false)? < deadline, "a cycle does not end");
        }
        Ok(window)
    }

    fn turn(&mut self, restart: bool) -> anyhow::Result<Instant> {
        self.submissions.submit_and_look()?;
        self.completions.sync();
        let now = Instant::now();
        let batch: Vec<cqueue::Entry> = (&mut self.completions).collect();
        for completion in batch {
            let (slot, step) = ((completion.user_data() >> 8) as usize, completion.user_data() & 0xff);
            if step == CLOSE && completion.result() == 0 {
                let from = self.started[slot].take().expect("one completion a cycle");
                self.latency.record(from, self.latency.stamp(now), 1);
                self.cycles += 1;
            } else if step == CLEAN_UP {
                self.started[slot] = None;
            } else {
                self.failed(slot, step as usize, completion.result())?;
                continue;
            }
            if restart {
                self.start(slot, now)?;
            }
        }
        Ok(now)
    }

    fn start(&mut self, slot: usize, now: Instant) -> io::Result<()> {
        self.started[slot] = Some(self.latency.stamp(now));
        let chain = self.chain(slot as u32);
        // SAFETY: the chain points into `memory`, which is never freed. The receive writes nothing: it truncates.
        unsafe { self.submissions.push_linked(&chain) }
    }

    fn chain(&self, slot: u32) -> [Entry; STEPS.len()] {
        let Memory { server, linger, frame } = self.memory;
        let target = DestinationSlot::try_from_slot_target(slot).expect("a small slot number");
        let bytes = frame.len() as u32;
        let chain = [
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).file_index(Some(target)).build(),
            opcode::SetSockOpt::new(
                Fixed(slot),
                libc::SOL_SOCKET as u32,
                libc::SO_LINGER as u32,
                (&raw const *linger).cast(),
                size_of_val(linger) as u32,
            )
            .build(),
            opcode::Connect::new(
                Fixed(slot),
                (&raw const *server).cast(),
                size_of_val(server) as libc::socklen_t,
            )
            .build(),
            opcode::Send::new(Fixed(slot), frame.as_ptr(), bytes)
                .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build(),
            opcode::Recv::new(Fixed(slot), frame.as_ptr().cast_mut(), bytes)
                .flags(libc::MSG_WAITALL | libc::MSG_TRUNC)
                .build(),
            opcode::Close::new(Fixed(slot)).build(),
        ];
        let mut step = 0;
        chain.map(|entry| {
            let flags = if step == CLOSE { Flags::empty() } else { Flags::IO_LINK | Flags::SKIP_SUCCESS };
            let entry = entry.flags(flags).user_data(u64::from(slot) << 8 | step);
            step += 1;
            entry
        })
    }

    /// A step failed, and with it the rest of the chain: empties the slot, which starts again from there.
    fn failed(&mut self, slot: usize, step: usize, result: i32) -> anyhow::Result<()> {
        self.failures += 1;
        let cause = io::Error::from_raw_os_error(-result);
        ensure!(
            self.failures <= FAILURES_MAX,
            "{} cycles failed, this one to {}: {cause}",
            self.failures,
            STEPS[step]
        );
        let entry = opcode::Close::new(Fixed(slot as u32)).build().user_data((slot as u64) << 8 | CLEAN_UP);
        // SAFETY: the operation points to no memory.
        unsafe { self.submissions.push(&entry)? };
        Ok(())
    }
}

fn kernel_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}
