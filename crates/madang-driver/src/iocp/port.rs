//! The completion port: what is attached to it, and the packets that come out of it.

use std::io;
use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, OwnedHandle};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE, WAIT_TIMEOUT};
use windows_sys::Win32::System::IO::{
    CreateIoCompletionPort, GetQueuedCompletionStatusEx, OVERLAPPED, OVERLAPPED_ENTRY,
    PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::Threading::INFINITE;

use crate::turn::Signal;
use crate::{Conn, OpKind, Token};

/// Shared with the wakers, which may outlive the driver; the last one closes it.
pub(crate) struct Port {
    handle: OwnedHandle,
}

/// What a packet came from. It is the completion key, chosen when a handle is attached, and is packed as a [`Token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// An operation of this connection; which one, its `OVERLAPPED` tells.
    Connection(Conn),
    /// An accept of the listener at this place, with the place's generation.
    Door(Conn),
    /// The bell.
    Bell,
}

/// One thing that the port tells.
pub(super) struct Packet {
    /// `None`: a key that nobody here gave out.
    pub(super) source: Option<Source>,
    pub(super) overlapped: *mut OVERLAPPED,
    pub(super) bytes: u32,
}

/// Packets taken in one call. 4 KiB of them; a fuller queue costs a call more for each so many.
const PACKETS_PER_TAKE: usize = 128;

pub(super) struct Packets {
    entries: Box<[OVERLAPPED_ENTRY; PACKETS_PER_TAKE]>,
    taken: usize,
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "a completion key holds a whole token");

impl Port {
    /// A port for one thread: with one thread taking packets, its concurrency value has nothing to hold back.
    pub(super) fn open() -> io::Result<Arc<Port>> {
        // SAFETY: no handle is attached here; the call makes a port or answers null.
        let handle = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, ptr::null_mut(), 0, 1) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call made the handle, and nobody else has it.
        Ok(Arc::new(Port { handle: unsafe { OwnedHandle::from_raw_handle(handle) } }))
    }

    /// Attaches `socket` for its whole life: a handle belongs to one port, once.
    pub(super) fn attach(&self, socket: &Socket, source: Source) -> io::Result<()> {
        let socket = socket.as_raw_socket() as HANDLE;
        // SAFETY: both handles are open for the length of the call, since they are borrowed.
        let port = unsafe { CreateIoCompletionPort(socket, self.handle.as_raw_handle(), source.to_key(), 0) };
        if port.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what is queued, sleeping up to `span` for it (`None`: as long as it takes).
    pub(super) fn take(&self, packets: &mut Packets, span: Option<Duration>) {
        let mut taken = 0;
        // No key is zero: an entry that the call did not write is known by it.
        packets.entries[0] = OVERLAPPED_ENTRY::default();
        // SAFETY: the port is open, and the array is writable for as many entries as it is said to have.
        let is_any = unsafe {
            GetQueuedCompletionStatusEx(
                self.handle.as_raw_handle(),
                packets.entries.as_mut_ptr(),
                PACKETS_PER_TAKE as u32,
                &mut taken,
                span.map_or(INFINITE, milliseconds),
                0,
            )
        };
        packets.taken = taken as usize;
        if is_any == 0 {
            let error = io::Error::last_os_error();
            // W12: packets that come with a failure are packets. (Wine 8 counts one at each time-out, and writes none.)
            if packets.entries[0].lpCompletionKey == 0 {
                packets.taken = 0;
            }
            assert!(
                packets.taken > 0 || error.raw_os_error() == Some(WAIT_TIMEOUT as i32),
                "the port of a living driver can be waited on: {error}"
            );
        }
    }
}

impl Packets {
    pub(super) fn new() -> Packets {
        Packets { entries: Box::new([OVERLAPPED_ENTRY::default(); PACKETS_PER_TAKE]), taken: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.taken
    }

    pub(super) fn at(&self, number: usize) -> Packet {
        let entry = &self.entries[..self.taken][number];
        Packet {
            source: Source::from_key(entry.lpCompletionKey),
            overlapped: entry.lpOverlapped,
            bytes: entry.dwNumberOfBytesTransferred,
        }
    }
}

impl Source {
    pub(super) fn to_key(self) -> usize {
        let (conn, kind) = match self {
            // The key of both directions: the kind is any that no other source has.
            Source::Connection(conn) => (conn, OpKind::Recv),
            Source::Door(door) => (door, OpKind::Accept),
            Source::Bell => (Conn::new(0, 0), OpKind::Wake),
        };
        Token { conn, kind }.to_u64() as usize
    }

    fn from_key(key: usize) -> Option<Source> {
        let Token { conn, kind } = Token::from_u64(key as u64)?;
        match kind {
            OpKind::Recv => Some(Source::Connection(conn)),
            OpKind::Accept => Some(Source::Door(conn)),
            OpKind::Wake => Some(Source::Bell),
            _ => None,
        }
    }
}

#[cfg(test)]
impl AsRawHandle for Port {
    fn as_raw_handle(&self) -> HANDLE {
        self.handle.as_raw_handle()
    }
}

impl Signal for Arc<Port> {
    fn fire(&self) -> io::Result<()> {
        // SAFETY: the port is open while somebody shares it. The packet carries no memory.
        let posted = unsafe {
            PostQueuedCompletionStatus(self.handle.as_raw_handle(), 0, Source::Bell.to_key(), ptr::null())
        };
        if posted == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Rounded up, so that no sleep ends before its time; the longest but for ever is 49 days.
fn milliseconds(span: Duration) -> u32 {
    let milliseconds = span.as_nanos().div_ceil(1_000_000);
    u32::try_from(milliseconds).unwrap_or(INFINITE).min(INFINITE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_source_and_no_other() {
        for index in [0, 7, Conn::INDEX_MAX] {
            for generation in [0, 1, u32::MAX] {
                let conn = Conn::new(index, generation);
                for source in [Source::Connection(conn), Source::Door(conn)] {
                    assert_eq!(Source::from_key(source.to_key()), Some(source));
                }
            }
        }
        assert_eq!(Source::from_key(Source::Bell.to_key()), Some(Source::Bell));
        assert_eq!(Source::from_key(0), None);
    }

    #[test]
    fn a_sleep_is_rounded_up_and_has_an_end() {
        for (nanos, wanted) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(milliseconds(Duration::from_nanos(nanos)), wanted, "{nanos} ns");
        }
        assert_eq!(milliseconds(Duration::MAX), INFINITE - 1);
    }
}
