//! Open connections on the client's ring: receives that only count, sends from memory that never changes (or, encrypted, from
//! records that do not before they have left).

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::bail;
use io_uring::{CompletionQueue, IoUring, cqueue, opcode, types};
use socket2::Socket;

use super::ramp::Peer;
use crate::ring::{ReceiveBuffers, Submissions};
use crate::wan::Records;
use crate::wire::Framing;

/// One connection.
pub(super) struct Link {
    socket: Socket,
    /// Bytes received of a frame that is not whole yet.
    pub(super) partial_bytes: u32,
    /// Messages to send as soon as the way is free.
    pub(super) due: u32,
    /// With the kernel; at most one send at a time.
    in_flight: Option<Sending>,
    /// Of an encrypted connection.
    records: Option<Box<Records>>,
    pub(super) dirty: bool,
    /// When the messages under way were sent (or should have been), oldest first.
    pub(super) stamps: VecDeque<Stamp>,
}

/// Bytes that are being sent: they live as long as the process, or are the records of the link itself, which makes no others
/// before these have left.
#[derive(Clone, Copy)]
struct Sending {
    start: *const u8,
    bytes: u32,
}

impl Sending {
    fn of(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), bytes: bytes.len() as u32 }
    }
}

/// Messages of one connection that were sent together.
pub(super) struct Stamp {
    pub(super) at: u64,
    pub(super) messages: u32,
}

/// The connections and the ring that carries them.
pub struct Links<'ring> {
    submissions: Submissions<'ring>,
    completions: CompletionQueue<'ring>,
    buffers: ReceiveBuffers,
    framing: Framing,
    /// For receives: nothing, or that payload is dropped in the kernel.
    receive_flags: i32,
    pub(super) all: Vec<Link>,
    /// Completions being handled; kept for its memory.
    batch: Vec<cqueue::Entry>,
}

/// What a turn brought to a link.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// So many bytes of frames.
    Received { link: usize, bytes: u32 },
    /// The way is free again.
    Sent { link: usize },
}

const SEND: u64 = 1 << 56;

impl<'ring> Links<'ring> {
    /// Arms a receive on each socket. The ring is one of [`crate::ring::Wait::Spinning`]. With `copy` plain payload is copied
    /// to us, as records always are; else the kernel drops it.
    ///
    /// # Errors
    /// What [`ReceiveBuffers::register`] names.
    pub fn new(ring: &'ring mut IoUring, peers: Vec<Peer>, copy: bool) -> io::Result<Self> {
        let (submitter, queue, completions) = ring.split();
        let submissions = Submissions::new(submitter, queue)?;
        let buffers = ReceiveBuffers::register(submissions.submitter())?;
        let encrypted = peers.iter().any(|peer| peer.secured.is_some());
        let framing = if encrypted { Framing::Wan } else { Framing::Be32 };
        let receive_flags = if copy || encrypted { 0 } else { libc::MSG_TRUNC };
        let all = peers
            .into_iter()
            .map(|peer| Link {
                socket: peer.socket,
                partial_bytes: 0,
                due: 0,
                in_flight: None,
                records: peer.secured.map(|secured| Box::new(Records::new(secured))),
                dirty: false,
                stamps: VecDeque::new(),
            })
            .collect();
        let mut links =
            Self { submissions, completions, buffers, framing, receive_flags, all, batch: Vec::new() };
        for link in 0..links.all.len() {
            links.receive(link)?;
        }
        Ok(links)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// What frames have to look like.
    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    fn receive(&mut self, link: usize) -> io::Result<()> {
        let descriptor = types::Fd(self.all[link].socket.as_raw_fd());
        let entry =
            opcode::RecvMulti::new(descriptor, ReceiveBuffers::GROUP).flags(self.receive_flags).build();
        // SAFETY: the memory is that of the registered buffers, which are never freed.
        unsafe { self.submissions.push(&entry.user_data(link as u64)) }
    }

    /// Sends equal `frames`, which live as long as the process, on a link with nothing in flight; as records where it is
    /// encrypted.
    pub(super) fn send(&mut self, link: usize, frames: &'static [u8]) -> io::Result<()> {
        assert!(self.is_free(link), "one send at a time");
        let sending = match &mut self.all[link].records {
            Some(records) => Sending::of(records.seal(frames)),
            None => Sending::of(frames),
        };
        self.all[link].in_flight = Some(sending);
        self.submit_send(link)
    }

    pub(super) fn is_free(&self, link: usize) -> bool {
        self.all[link].in_flight.is_none()
    }

    fn submit_send(&mut self, link: usize) -> io::Result<()> {
        let Some(sending) = self.all[link].in_flight else { return Ok(()) };
        let descriptor = types::Fd(self.all[link].socket.as_raw_fd());
        let entry = opcode::Send::new(descriptor, sending.start, sending.bytes)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: plain bytes are `'static` and shared: nothing writes them. Records are the link's own, and only `send`
        // writes those, which insists that nothing is in flight; they are not freed before the ring is gone (see `drop`).
        unsafe { self.submissions.push(&entry.user_data(SEND | link as u64)) }
    }

    /// Submits what is queued and collects what has happened, without ever sleeping. [`Links::each`] comes next.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.submissions.submit_and_look()?;
        self.completions.sync();
        self.batch.extend(&mut self.completions);
        Ok(())
    }

    /// Hands over what [`Links::look`] collected.
    ///
    /// # Errors
    /// A connection ended or broke: in a measurement none may.
    pub(super) fn each(
        &mut self,
        mut on_event: impl FnMut(&mut Self, Event) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut batch = std::mem::take(&mut self.batch);
        for completion in batch.drain(..) {
            let link = (completion.user_data() & !SEND) as usize;
            let event = if completion.user_data() & SEND == 0 {
                self.received(link, &completion)?.map(|bytes| Event::Received { link, bytes })
            } else {
                self.sent(link, completion.result())?.then_some(Event::Sent { link })
            };
            if let Some(event) = event {
                on_event(self, event)?;
            }
        }
        self.batch = batch;
        self.buffers.recycle();
        Ok(())
    }

    fn received(&mut self, link: usize, completion: &cqueue::Entry) -> anyhow::Result<Option<u32>> {
        let bytes = match completion.result() {
            bytes @ 1.. => bytes as u32,
            0 => bail!("the server closed connection {link}"),
            error if error == -libc::ENOBUFS => 0,
            error => bail!("connection {link}: {}", io::Error::from_raw_os_error(-error)),
        };
        let mut counted = 0;
        if bytes > 0 {
            let piece = self.buffers.take(completion.flags(), bytes);
            counted = match &mut self.all[link].records {
                Some(records) => records.arrived(piece),
                None => bytes,
            };
        }
        if !cqueue::more(completion.flags()) {
            self.receive(link)?;
        }
        Ok((counted > 0).then_some(counted))
    }

    /// True when all of the send is out.
    fn sent(&mut self, link: usize, result: i32) -> anyhow::Result<bool> {
        let Ok(sent) = u32::try_from(result) else {
            bail!("sending on connection {link}: {}", io::Error::from_raw_os_error(-result));
        };
        let in_flight = self.all[link].in_flight.take();
        let rest = in_flight.and_then(|all| {
            // Within the same bytes: the kernel sends no more than it was given.
            let rest = Sending { start: all.start.wrapping_add(sent as usize), bytes: all.bytes - sent };
            (rest.bytes > 0).then_some(rest)
        });
        self.all[link].in_flight = rest;
        self.submit_send(link)?;
        Ok(rest.is_none())
    }
}

impl Drop for Links<'_> {
    fn drop(&mut self) {
        for link in &mut self.all {
            // A ring that goes with a send in flight still reads its memory.
            if link.in_flight.is_some() {
                std::mem::forget(link.records.take());
            }
        }
    }
}
