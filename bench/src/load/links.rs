//! Open connections on the client's ring: receives that only count, sends from memory that never changes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::bail;
use io_uring::{CompletionQueue, IoUring, cqueue, opcode, types};
use socket2::Socket;

use crate::ring::{ReceiveBuffers, Submissions};

/// One connection.
pub(super) struct Link {
    socket: Socket,
    /// Bytes received of a frame that is not whole yet.
    pub(super) partial_bytes: u32,
    /// Messages to send as soon as the way is free.
    pub(super) due: u32,
    /// With the kernel; at most one send at a time.
    in_flight: Option<&'static [u8]>,
    pub(super) dirty: bool,
    /// When the messages under way were sent (or should have been), oldest first.
    pub(super) stamps: VecDeque<Stamp>,
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
    pub(super) all: Vec<Link>,
    /// Completions being handled; kept for its memory.
    batch: Vec<cqueue::Entry>,
}

/// What a turn brought to a link.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Received {
        link: usize,
        bytes: u32,
    },
    /// The way is free again.
    Sent {
        link: usize,
    },
}

const SEND: u64 = 1 << 56;

impl<'ring> Links<'ring> {
    /// Arms a receive on each socket. The ring is one of [`crate::ring::Wait::Spinning`].
    ///
    /// # Errors
    /// What [`ReceiveBuffers::register`] names.
    pub fn new(ring: &'ring mut IoUring, sockets: Vec<Socket>) -> io::Result<Self> {
        let (submitter, queue, completions) = ring.split();
        let submissions = Submissions::new(submitter, queue)?;
        let buffers = ReceiveBuffers::register(submissions.submitter())?;
        let all = sockets
            .into_iter()
            .map(|socket| Link {
                socket,
                partial_bytes: 0,
                due: 0,
                in_flight: None,
                dirty: false,
                stamps: VecDeque::new(),
            })
            .collect();
        let mut links = Self { submissions, completions, buffers, all, batch: Vec::new() };
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

    fn receive(&mut self, link: usize) -> io::Result<()> {
        let descriptor = types::Fd(self.all[link].socket.as_raw_fd());
        let entry = opcode::RecvMulti::new(descriptor, ReceiveBuffers::GROUP).flags(libc::MSG_TRUNC).build();
        // SAFETY: the memory is that of the registered buffers, which are never freed (and, truncating, not even written).
        unsafe { self.submissions.push(&entry.user_data(link as u64)) }
    }

    /// Sends `bytes`, which live as long as the process, on a link with nothing in flight.
    pub(super) fn send(&mut self, link: usize, bytes: &'static [u8]) -> io::Result<()> {
        debug_assert!(self.is_free(link), "one send at a time");
        self.all[link].in_flight = Some(bytes);
        self.submit_send(link)
    }

    pub(super) fn is_free(&self, link: usize) -> bool {
        self.all[link].in_flight.is_none()
    }

    fn submit_send(&mut self, link: usize) -> io::Result<()> {
        let Some(bytes) = self.all[link].in_flight else { return Ok(()) };
        let descriptor = types::Fd(self.all[link].socket.as_raw_fd());
        let entry = opcode::Send::new(descriptor, bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the bytes are `'static` and shared: nothing writes them.
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
        if bytes > 0 {
            self.buffers.take(completion.flags(), bytes);
        }
        if !cqueue::more(completion.flags()) {
            self.receive(link)?;
        }
        Ok((bytes > 0).then_some(bytes))
    }

    /// True when all of the send is out.
    fn sent(&mut self, link: usize, result: i32) -> anyhow::Result<bool> {
        let Ok(sent) = u32::try_from(result) else {
            bail!("sending on connection {link}: {}", io::Error::from_raw_os_error(-result));
        };
        let in_flight = self.all[link].in_flight.take();
        let rest = in_flight.map(|bytes| &bytes[sent as usize..]).filter(|rest| !rest.is_empty());
        self.all[link].in_flight = rest;
        self.submit_send(link)?;
        Ok(rest.is_none())
    }
}
