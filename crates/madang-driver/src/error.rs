//! Errors in our own words, the same on every system, so that a simulated seed means the same everywhere.

use std::io;
use std::net::SocketAddr;

/// What went wrong with a socket operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The operation was called off by us.
    #[error("cancelled")]
    Cancelled,
    /// The peer reset the connection.
    #[error("reset by the peer")]
    Reset,
    /// The connection was given up under us.
    #[error("connection aborted")]
    Aborted,
    /// Writing into a stream whose reader is gone.
    #[error("the peer no longer reads")]
    BrokenPipe,
    /// Not, or no longer, connected.
    #[error("not connected")]
    NotConnected,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The system gave up waiting for the peer.
    #[error("timed out")]
    TimedOut,
    /// No route to the peer's host.
    #[error("host unreachable")]
    HostUnreachable,
    /// No route to the peer's network.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// The port is taken.
    #[error("address in use")]
    AddrInUse,
    /// The address is not one of this machine.
    #[error("address not available")]
    AddrNotAvailable,
    /// No permission.
    #[error("permission denied")]
    PermissionDenied,
    /// The process's or the system's descriptor limit is reached.
    #[error("too many open files")]
    TooManyFiles,
    /// The kernel has no buffer space (ENOBUFS, WSAENOBUFS).
    #[error("no buffer space in the kernel")]
    NoBufferSpace,
    /// The kernel has no memory.
    #[error("out of memory")]
    OutOfMemory,
    /// Interrupted; harmless.
    #[error("interrupted")]
    Interrupted,
    /// It would block; harmless.
    #[error("would block")]
    WouldBlock,
    /// The driver's connection table is full: a limit of the settings.
    #[error("the driver's connection table is full")]
    TableFull,
    /// The system does not offer this.
    #[error("not supported by this system")]
    Unsupported,
    /// Something the engine has no name for.
    #[error("another system error")]
    Other,
}

impl NetError {
    /// Our word for a system error: the one place where error numbers become words.
    pub fn from_io(error: &io::Error) -> NetError {
        use io::ErrorKind as K;
        if let Some(word) = error.raw_os_error().and_then(from_number) {
            return word;
        }
        match error.kind() {
            K::ConnectionReset => NetError::Reset,
            K::ConnectionAborted => NetError::Aborted,
            K::BrokenPipe => NetError::BrokenPipe,
            K::NotConnected => NetError::NotConnected,
            K::ConnectionRefused => NetError::Refused,
            K::TimedOut => NetError::TimedOut,
            K::HostUnreachable => NetError::HostUnreachable,
            K::NetworkUnreachable => NetError::NetworkUnreachable,
            K::AddrInUse => NetError::AddrInUse,
            K::AddrNotAvailable => NetError::AddrNotAvailable,
            K::PermissionDenied => NetError::PermissionDenied,
            K::OutOfMemory => NetError::OutOfMemory,
            K::Interrupted => NetError::Interrupted,
            K::WouldBlock => NetError::WouldBlock,
            K::Unsupported => NetError::Unsupported,
            _ => NetError::Other,
        }
    }

    /// The word for a negative io_uring result.
    #[cfg(target_os = "linux")]
    pub(crate) fn from_result(result: i32) -> NetError {
        NetError::from_io(&io::Error::from_raw_os_error(result.wrapping_neg()))
    }

    /// The word for the status of a completion packet.
    #[cfg(windows)]
    pub(crate) fn from_status(status: windows_sys::Win32::Foundation::NTSTATUS) -> NetError {
        use windows_sys::Win32::Foundation::RtlNtStatusToDosError;

        // SAFETY: looks a number up.
        let number = unsafe { RtlNtStatusToDosError(status) };
        NetError::from_io(&io::Error::from_raw_os_error(number as i32))
    }
}

#[cfg(unix)]
fn from_number(errno: i32) -> Option<NetError> {
    Some(match errno {
        libc::ECANCELED => NetError::Cancelled,
        libc::EMFILE | libc::ENFILE => NetError::TooManyFiles,
        libc::ENOBUFS => NetError::NoBufferSpace,
        libc::ENOMEM => NetError::OutOfMemory,
        libc::EPROTO => NetError::Aborted,
        libc::ESHUTDOWN => NetError::BrokenPipe,
        libc::EOPNOTSUPP | libc::ENOSYS => NetError::Unsupported,
        _ => return None,
    })
}

/// Sockets' own numbers, and those that a packet's status is translated to.
#[cfg(windows)]
fn from_number(number: i32) -> Option<NetError> {
    use windows_sys::Win32::Foundation as win;
    use windows_sys::Win32::Networking::WinSock as wsa;

    if let wsa::WSAECANCELLED | wsa::WSA_E_CANCELLED = number {
        return Some(NetError::Cancelled);
    }
    Some(match number {
        wsa::WSAEMFILE => NetError::TooManyFiles,
        wsa::WSAENOBUFS => NetError::NoBufferSpace,
        wsa::WSAESHUTDOWN => NetError::BrokenPipe,
        wsa::WSAENETRESET => NetError::Reset,
        wsa::WSAEOPNOTSUPP => NetError::Unsupported,
        wsa::WSAEAFNOSUPPORT => NetError::AddrNotAvailable,
        _ => match u32::try_from(number).ok()? {
            win::ERROR_OPERATION_ABORTED => NetError::Cancelled,
            win::ERROR_NETNAME_DELETED => NetError::Reset,
            win::ERROR_CONNECTION_ABORTED => NetError::Aborted,
            win::ERROR_CONNECTION_REFUSED | win::ERROR_PORT_UNREACHABLE => NetError::Refused,
            win::ERROR_SEM_TIMEOUT => NetError::TimedOut,
            win::ERROR_HOST_UNREACHABLE => NetError::HostUnreachable,
            win::ERROR_NETWORK_UNREACHABLE => NetError::NetworkUnreachable,
            win::ERROR_ADDRESS_ALREADY_ASSOCIATED => NetError::AddrInUse,
            win::ERROR_BROKEN_PIPE | win::ERROR_PIPE_NOT_CONNECTED | win::ERROR_GRACEFUL_DISCONNECT => {
                NetError::BrokenPipe
            }
            win::ERROR_TOO_MANY_OPEN_FILES => NetError::TooManyFiles,
            win::ERROR_NO_SYSTEM_RESOURCES | win::ERROR_NOT_ENOUGH_QUOTA | win::ERROR_WORKING_SET_QUOTA => {
                NetError::NoBufferSpace
            }
            _ => return None,
        },
    })
}

impl From<io::Error> for NetError {
    fn from(error: io::Error) -> NetError {
        NetError::from_io(&error)
    }
}

/// Why [`Driver::listen`](crate::Driver::listen) failed, with the address that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen on {address}: {error}{}", self.remedy())]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub error: NetError,
}

impl ListenError {
    /// What to do about it, in brackets and with a space before; empty when there is nothing to say.
    pub fn remedy(&self) -> &'static str {
        match self.error {
            NetError::AddrInUse => " (another process has the port: stop it or choose another port)",
            NetError::AddrNotAvailable => " (no interface of this machine has the address)",
            NetError::PermissionDenied => " (ports below 1024 need a privilege)",
            NetError::TooManyFiles => " (raise the descriptor limit)",
            _ => "",
        }
    }
}
