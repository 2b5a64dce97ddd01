//! The calls that begin operations, each with what it answers and what it leaves behind.
//!
//! ```text
//!   a call answers            a packet follows       here
//!   success                   yes                    Pending
//!   success, the socket       no                     Done
//!     skips packets then
//!   ERROR_IO_PENDING          yes                    Pending
//!   any other error           no                     Failed
//! ```

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::windows::io::AsRawSocket;
use std::ptr;

use socket2::{Domain, SockAddr, Socket, Type};
use windows_sys::Win32::Foundation::{HANDLE, NTSTATUS};
use windows_sys::Win32::Networking::WinSock::{
    IPPROTO_TCP, LPFN_ACCEPTEX, LPFN_CONNECTEX, LPFN_GETACCEPTEXSOCKADDRS,
    SIO_GET_EXTENSION_FUNCTION_POINTER, SO_UPDATE_ACCEPT_CONTEXT, SO_UPDATE_CONNECT_CONTEXT, SOCKADDR,
    SOCKADDR_STORAGE, SOCKET, SOCKET_ERROR, SOL_SOCKET, WSA_IO_PENDING, WSABUF, WSAEnumProtocolsW,
    WSAGetLastError, WSAID_ACCEPTEX, WSAID_CONNECTEX, WSAID_GETACCEPTEXSOCKADDRS, WSAIoctl,
    WSAPROTOCOL_INFOW, WSARecv, WSASend, XP1_IFS_HANDLES, setsockopt,
};
use windows_sys::Win32::Storage::FileSystem::SetFileCompletionNotificationModes;
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};
use windows_sys::core::GUID;

use crate::{NetError, OUTGOING_PIECES_MAX, Outgoing};

/// What became of an operation at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Its packet will come.
    Pending,
    /// It is over, with so many bytes. No packet will come.
    Done(u32),
    /// W05: it never began. No packet will come.
    Failed(NetError),
}

/// What a socket's provider does behind the plain names: looked up once, since each lookup is a call into it.
#[derive(Clone, Copy)]
pub(super) struct Extensions {
    accept: LPFN_ACCEPTEX,
    accept_addresses: LPFN_GETACCEPTEXSOCKADDRS,
    connect: LPFN_CONNECTEX,
}

/// AcceptEx wants room for each address and 16 bytes more.
pub(super) const ADDRESS_BYTES: usize = size_of::<SOCKADDR_STORAGE>() + 16;

impl Extensions {
    /// Of the provider of `socket`, which is that of all stream sockets of its family.
    pub(super) fn of(socket: &Socket) -> io::Result<Extensions> {
        // SAFETY: each name belongs to a function of the type that it is read as; all three are pointers, or null.
        unsafe {
            Ok(Extensions {
                accept: extension(socket, WSAID_ACCEPTEX)?,
                accept_addresses: extension(socket, WSAID_GETACCEPTEXSOCKADDRS)?,
                connect: extension(socket, WSAID_CONNECTEX)?,
            })
        }
    }

    /// Begins to accept from `listener` into `socket`. W07: no bytes are waited for, or an idle client would hold the accept.
    ///
    /// # Safety
    /// `overlapped` and `addresses` stay valid, and nobody else uses them, until the packet was taken.
    pub(super) unsafe fn accept(
        &self,
        listener: &Socket,
        socket: &Socket,
        addresses: *mut [u8; 2 * ADDRESS_BYTES],
        overlapped: *mut OVERLAPPED,
    ) -> Begun {
        let accept = self.accept.expect("it was looked up");
        let mut received = 0;
        // SAFETY: both sockets are open; for the memory the caller has promised.
        let is_done = unsafe {
            accept(
                raw(listener),
                raw(socket),
                addresses.cast(),
                0,
                ADDRESS_BYTES as u32,
                ADDRESS_BYTES as u32,
                &mut received,
                overlapped,
            )
        };
        // A listener does not skip packets.
        begun(is_done != 0, 0, false)
    }

    /// Our own address and the peer's, as an accept left them.
    pub(super) fn accept_addresses(
        &self,
        addresses: &[u8; 2 * ADDRESS_BYTES],
    ) -> io::Result<(SockAddr, SockAddr)> {
        let read = self.accept_addresses.expect("it was looked up");
        let (mut local, mut local_bytes) = (ptr::null_mut(), 0);
        let (mut peer, mut peer_bytes) = (ptr::null_mut(), 0);
        // SAFETY: the buffer has the sizes it is said to have. The pointers that come back point into it, or are null.
        unsafe {
            read(
                addresses.as_ptr().cast(),
                0,
                ADDRESS_BYTES as u32,
                ADDRESS_BYTES as u32,
                &mut local,
                &mut local_bytes,
                &mut peer,
                &mut peer_bytes,
            );
            Ok((address(local, local_bytes)?, address(peer, peer_bytes)?))
        }
    }

    /// Begins to connect `socket`, which is bound.
    ///
    /// # Safety
    /// `overlapped` stays valid, and nobody else uses it, until the packet was taken.
    pub(super) unsafe fn connect(
        &self,
        socket: &Socket,
        remote: &SockAddr,
        overlapped: *mut OVERLAPPED,
        skips: bool,
    ) -> Begun {
        let connect = self.connect.expect("it was looked up");
        // SAFETY: the socket is open, the address valid for the call, which copies it. `overlapped`: the caller.
        let is_done = unsafe {
            connect(
                raw(socket),
                remote.as_ptr().cast(),
                remote.len(),
                ptr::null(),
                0,
                ptr::null_mut(),
                overlapped,
            )
        };
        begun(is_done != 0, 0, skips)
    }
}

/// Begins to wait for bytes (or the end) of `socket`, of which nothing is taken: a buffer given here would be pinned for
/// most of an idle session's life.
///
/// # Safety
/// `overlapped` stays valid, and nobody else uses it, until the packet was taken.
pub(super) unsafe fn wait_readable(socket: &Socket, overlapped: *mut OVERLAPPED, skips: bool) -> Begun {
    // Nobody writes there: it has no length.
    let nothing = WSABUF { len: 0, buf: ptr::NonNull::dangling().as_ptr() };
    let (mut received, mut flags) = (0, 0);
    // SAFETY: the socket is open; the buffer's description is copied by the call. `overlapped`: the caller.
    let answer = unsafe { WSARecv(raw(socket), &nothing, 1, &mut received, &mut flags, overlapped, None) };
    begun(answer != SOCKET_ERROR, 0, skips)
}

/// Takes what has come; never blocks, since the socket was told so.
pub(super) fn read(mut socket: &Socket, room: &mut [u8]) -> Result<usize, NetError> {
    socket.read(room).map_err(|error| NetError::from_io(&error))
}

/// Begins to send all pieces of `outgoing` at once.
///
/// # Safety
/// `overlapped` stays valid, and nobody else uses it, until the packet was taken; so do the bytes of `outgoing`, which
/// nobody writes to.
pub(super) unsafe fn send(
    socket: &Socket,
    outgoing: &Outgoing,
    overlapped: *mut OVERLAPPED,
    skips: bool,
) -> Begun {
    let mut pieces = [WSABUF { len: 0, buf: ptr::null_mut() }; OUTGOING_PIECES_MAX];
    let mut used = 0;
    for (piece, bytes) in pieces.iter_mut().zip(outgoing.slices()) {
        // The system only reads. A packet is at most 16 MiB.
        *piece = WSABUF { len: bytes.len() as u32, buf: bytes.as_ptr().cast_mut() };
        used += 1;
    }
    let mut sent = 0;
    // SAFETY: the socket is open; `used` descriptions are there, and the call copies them. Their bytes and `overlapped`: the
    // caller.
    let answer = unsafe { WSASend(raw(socket), pieces.as_ptr(), used, &mut sent, 0, overlapped, None) };
    begun(answer != SOCKET_ERROR, sent, skips)
}

/// Asks for an early end of everything that is under way on `socket`. W01: each operation still has its packet, which may
/// tell of success. W09: a socket may read nothing after it, so this is for the way to its close only.
pub(super) fn cancel(socket: &Socket) {
    // SAFETY: the socket is open. No operation is named, so no memory is.
    // It answers "not found" where everything has ended meanwhile.
    let _ = unsafe { CancelIoEx(raw(socket) as HANDLE, ptr::null()) };
}

/// Lets `socket`, which is attached to a port, queue no packet for what succeeds at once. W04: legal only where
/// [`all_providers_are_handles`]. Answers whether it is so now.
pub(super) fn skip_packets_on_success(socket: &Socket) -> bool {
    /// `FILE_SKIP_COMPLETION_PORT_ON_SUCCESS` and `FILE_SKIP_SET_EVENT_ON_HANDLE`: nobody waits for the handle itself.
    const MODES: u8 = 1 | 2;
    // SAFETY: the socket is open.
    unsafe { SetFileCompletionNotificationModes(raw(socket) as HANDLE, MODES) != 0 }
}

/// W04: whether every provider of TCP has sockets that are true handles of the system. A layered one without may queue a
/// packet although a call that succeeded was to skip it.
pub(super) fn all_providers_are_handles() -> bool {
    // The first socket of a process starts the library, and the question needs it started.
    if Socket::new(Domain::IPV4, Type::STREAM, None).is_err() {
        return false;
    }
    let protocols = [IPPROTO_TCP, 0];
    let mut bytes = 0;
    // SAFETY: asks for the size alone; the list of protocols ends with a zero.
    unsafe { WSAEnumProtocolsW(protocols.as_ptr(), ptr::null_mut(), &mut bytes) };
    let mut providers =
        vec![WSAPROTOCOL_INFOW::default(); (bytes as usize).div_ceil(size_of::<WSAPROTOCOL_INFOW>())];
    // SAFETY: as above; the providers have room for as many bytes as is said.
    let count = unsafe { WSAEnumProtocolsW(protocols.as_ptr(), providers.as_mut_ptr(), &mut bytes) };
    let Ok(count) = usize::try_from(count) else { return false };
    count > 0 && providers[..count].iter().all(|provider| provider.dwServiceFlags1 & XP1_IFS_HANDLES != 0)
}

/// W06: makes an accepted socket a whole one: without it neither its addresses nor its shutdown work.
pub(super) fn finish_accept(socket: &Socket, listener: &Socket) -> io::Result<()> {
    set_option(socket, SO_UPDATE_ACCEPT_CONTEXT, &raw(listener).to_ne_bytes())
}

/// The same for a connected one.
pub(super) fn finish_connect(socket: &Socket) -> io::Result<()> {
    set_option(socket, SO_UPDATE_CONNECT_CONTEXT, &[])
}

/// What `status` says of the operation that ended with it.
pub(super) fn outcome(status: NTSTATUS) -> Result<(), NetError> {
    if status >= 0 { Ok(()) } else { Err(NetError::from_status(status)) }
}

fn set_option(socket: &Socket, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the socket is open, the value readable for its length.
    let answer = unsafe { setsockopt(raw(socket), SOL_SOCKET, option, value.as_ptr(), value.len() as i32) };
    if answer == SOCKET_ERROR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn begun(is_done: bool, bytes: u32, skips: bool) -> Begun {
    if is_done {
        return if skips { Begun::Done(bytes) } else { Begun::Pending };
    }
    // SAFETY: reads a number of this thread.
    match unsafe { WSAGetLastError() } {
        WSA_IO_PENDING => Begun::Pending,
        error => Begun::Failed(NetError::from_io(&io::Error::from_raw_os_error(error))),
    }
}

fn raw(socket: &Socket) -> SOCKET {
    socket.as_raw_socket() as SOCKET
}

/// # Safety
/// The function of that name is an `F`, which is a nullable function pointer.
unsafe fn extension<F: Copy>(socket: &Socket, name: GUID) -> io::Result<F> {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    let mut function = MaybeUninit::<F>::zeroed();
    let mut bytes = 0;
    // SAFETY: the socket is open; name and function are valid for the sizes that are given.
    let answer = unsafe {
        WSAIoctl(
            raw(socket),
            SIO_GET_EXTENSION_FUNCTION_POINTER,
            (&raw const name).cast(),
            size_of::<GUID>() as u32,
            function.as_mut_ptr().cast(),
            size_of::<F>() as u32,
            &mut bytes,
            ptr::null_mut(),
            None,
        )
    };
    if answer == SOCKET_ERROR || bytes as usize != size_of::<F>() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call filled it with the function that the caller vouches for.
    Ok(unsafe { function.assume_init() })
}

/// # Safety
/// `address` is null, or points to `bytes` bytes that hold an address.
unsafe fn address(address: *const SOCKADDR, bytes: i32) -> io::Result<SockAddr> {
    if address.is_null() || bytes <= 0 {
        return Err(io::ErrorKind::NotConnected.into());
    }
    // SAFETY: the storage is as large as any address, and as many bytes are copied as there are and fit.
    let (_, copied) = unsafe {
        SockAddr::try_init(|storage, length| {
            let bytes = bytes.min(*length);
            ptr::copy_nonoverlapping(address.cast::<u8>(), storage.cast::<u8>(), bytes as usize);
            *length = bytes;
            Ok(())
        })?
    };
    Ok(copied)
}
