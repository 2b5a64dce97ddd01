//! Stream sockets as the real drivers want them: how they are made, which options they get, whose addresses they bear.
//!
//! Every socket made here is close-on-exec, and non-blocking too, except where a function says otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::{ConnectOptions, ListenError, ListenOptions, NetError, SocketOptions};

/// A listening socket and the address that it really has.
///
/// An IPv6 wildcard takes IPv4 peers too where the system lets it; [`canonical`] gives those their IPv4 address back.
pub(crate) fn listening(options: &ListenOptions) -> Result<(Socket, SocketAddr), ListenError> {
    open_listening(options)
        .map_err(|error| ListenError { address: options.address, error: NetError::from_io(&error) })
}

fn open_listening(options: &ListenOptions) -> io::Result<(Socket, SocketAddr)> {
    let socket = stream(options.address)?;
    claim_port(&socket, options.exclusive)?;
    if options.address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        // Some systems know IPv6-only sockets alone; there the listener just stays one.
        let _ = socket.set_only_v6(false);
    }
    // Before listening: the window scale of accepted connections comes from the receive buffer at that time.
    apply(&socket, &options.socket)?;
    socket.bind(&options.address.into())?;
    socket.listen(options.backlog.try_into().unwrap_or(i32::MAX))?;
    let address = address_of(socket.local_addr()?)?;
    Ok((socket, address))
}

/// A socket for an outgoing connection, bound if a local address is asked for, not yet connecting.
pub(crate) fn outgoing(options: &ConnectOptions) -> io::Result<Socket> {
    let socket = stream(options.remote)?;
    apply(&socket, &options.socket)?;
    if let Some(local) = options.local {
        if local.port() == 0 {
            choose_port_at_connect(&socket)?;
        } else {
            // A link that reconnects from a fixed port must not wait for its own TIME_WAIT.
            reuse_port_in_time_wait(&socket)?;
        }
        socket.bind(&local.into())?;
    } else if cfg!(windows) {
        // ConnectEx takes bound sockets only.
        socket.bind(&any_address(options.remote).into())?;
    }
    Ok(socket)
}

/// A socket that an accept is to fill, for a listener at `listening`. Its options come later: the accept may change them.
#[cfg(windows)]
pub(crate) fn accepting(listening: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(listening), Type::STREAM, Some(Protocol::TCP))
}

/// Our own address of a connection that was just made, which also proves that it is one.
pub(crate) fn connected_address(socket: &Socket) -> io::Result<SocketAddr> {
    let (peer, local) = (address_of(socket.peer_addr()?)?, address_of(socket.local_addr()?)?);
    // The system had picked the very port we connect to as our own, and TCP connected the socket to itself.
    if peer == local { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(local) }
}

/// Takes one connection off the backlog. The error of an empty backlog is `WouldBlock`.
#[cfg(unix)]
pub(crate) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    #[cfg(not(target_vendor = "apple"))]
    return listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    #[cfg(target_vendor = "apple")]
    {
        let (socket, peer) = listener.accept()?;
        socket.set_nonblocking(true)?;
        Ok((socket, peer))
    }
}

/// Our own address of a connection that came in on `listening`: known without a call unless that is a wildcard.
#[cfg(unix)]
pub(crate) fn local_address(socket: &Socket, listening: SocketAddr) -> io::Result<SocketAddr> {
    if listening.ip().is_unspecified() { address_of(socket.local_addr()?) } else { Ok(listening) }
}

/// An address as people write it. A system that tells none (a peer that is gone already) gives `NotConnected`.
pub(crate) fn address_of(address: SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().map(canonical).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// The IPv4 address of an IPv4 peer that came through an IPv6 socket, so that filters know it by one name only.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Makes the close of `socket` a reset: unsent data is thrown away, the kernel's memory is freed, no TIME_WAIT stays.
pub(crate) fn reset_on_close(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

/// Sets the options that are given; the first that the system refuses is the error.
pub(crate) fn apply(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    if let Some(nodelay) = options.nodelay {
        socket.set_tcp_nodelay(nodelay)?;
    }
    if let Some(idle) = options.keepalive {
        // The systems count whole seconds and refuse zero.
        let second = Duration::from_secs(1);
        let probes = TcpKeepalive::new().with_time(idle.max(second)).with_interval((idle / 3).max(second));
        socket.set_tcp_keepalive(&probes)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    #[cfg(target_os = "linux")]
    apply_linux(socket, options)?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn apply_linux(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    if let Some(bytes) = options.unsent_low_water_bytes {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    if let Some(name) = &options.congestion {
        socket.set_tcp_congestion(name.as_bytes()).map_err(|error| match error.kind() {
            // The kernel's words for "no such algorithm here" are those for a missing file.
            io::ErrorKind::NotFound => io::ErrorKind::Unsupported.into(),
            _ => error,
        })?;
    }
    Ok(())
}

fn stream(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// K05: a restart binds at once although connections of the last run are in TIME_WAIT.
#[cfg(unix)]
fn claim_port(socket: &Socket, _exclusive: bool) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// Here TIME_WAIT keeps nobody from binding, and SO_REUSEADDR is another thing: it takes a port away from who has it.
#[cfg(windows)]
fn claim_port(socket: &Socket, exclusive: bool) -> io::Result<()> {
    use std::os::windows::io::AsRawSocket;

    use windows_sys::Win32::Networking::WinSock::{SO_EXCLUSIVEADDRUSE, SOCKET, SOL_SOCKET, setsockopt};

    let on = u32::from(exclusive).to_ne_bytes();
    // SAFETY: the socket is open; the option's value is four bytes, readable for the length of the call.
    let answer = unsafe {
        setsockopt(
            socket.as_raw_socket() as SOCKET,
            SOL_SOCKET,
            SO_EXCLUSIVEADDRUSE,
            on.as_ptr(),
            on.len() as i32,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(unix)]
fn reuse_port_in_time_wait(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// As in `claim_port`: it would take a port away.
#[cfg(windows)]
fn reuse_port_in_time_wait(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// The wildcard of the family of `address`, any port.
fn any_address(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Without this a bind to port 0 takes a port for this socket alone, and one local address ends at 28,000 connections; with
/// it the port is chosen when the peer is known, and may be used towards every other peer as well.
#[cfg(target_os = "linux")]
fn choose_port_at_connect(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let on: libc::c_int = 1;
    // SAFETY: the option's value is one `int`, valid for reading for the length of the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn choose_port_at_connect(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen_on(address: &str) -> Result<(Socket, SocketAddr), ListenError> {
        listening(&ListenOptions::new(address.parse().unwrap()))
    }

    #[test]
    fn a_listener_tells_its_port_and_a_second_one_names_the_address_that_is_taken() {
        let (_socket, address) = listen_on("127.0.0.1:0").unwrap();
        assert_ne!(address.port(), 0);
        let error = listen_on(&address.to_string()).unwrap_err();
        assert_eq!(error, ListenError { address, error: NetError::AddrInUse });
        assert!(error.to_string().contains(&address.to_string()));
    }

    #[test]
    fn addresses_that_cannot_be_listened_on_are_typed_errors() {
        // 192.0.2.0/24 is for documentation: no machine has it.
        assert_eq!(listen_on("192.0.2.1:0").unwrap_err().error, NetError::AddrNotAvailable);
        let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
        options.socket.congestion = Some("no-such-algorithm".into());
        #[cfg(target_os = "linux")]
        assert_eq!(listening(&options).unwrap_err().error, NetError::Unsupported);
    }

    #[cfg(unix)]
    #[test]
    fn options_are_really_set() {
        let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
        options.socket = SocketOptions {
            nodelay: Some(true),
            keepalive: Some(Duration::from_millis(30)),
            user_timeout: Some(Duration::from_secs(7)),
            send_buffer_bytes: Some(64 * 1024),
            recv_buffer_bytes: Some(64 * 1024),
            congestion: Some("reno".into()),
            unsent_low_water_bytes: Some(16 * 1024),
        };
        let (listener, address) = listening(&options).unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = accept(&listener).unwrap();
        for socket in [&listener, &accepted] {
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert!(socket.nonblocking().unwrap());
            assert!(socket.send_buffer_size().unwrap() >= 64 * 1024);
            assert!(socket.recv_buffer_size().unwrap() >= 64 * 1024);
            #[cfg(target_os = "linux")]
            {
                assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
                assert_eq!(socket.tcp_notsent_lowat().unwrap(), 16 * 1024);
                assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_ipv4_peer_keeps_its_name_through_an_ipv6_wildcard() {
        let Ok((listener, address)) = listen_on("[::]:0") else { return eprintln!("skipped: no IPv6 here") };
        let Ok(peer) = std::net::TcpStream::connect(("127.0.0.1", address.port())) else {
            return eprintln!("skipped: IPv6 sockets take no IPv4 peers here");
        };
        let (accepted, from) = accept(&listener).unwrap();
        assert_eq!(address_of(from).unwrap(), peer.local_addr().unwrap());
        assert_eq!(local_address(&accepted, address).unwrap(), peer.peer_addr().unwrap());
    }

    #[test]
    fn an_outgoing_socket_keeps_the_local_address_it_was_given() {
        let (_listener, address) = listen_on("127.0.0.1:0").unwrap();
        for local in ["127.0.0.1:0", "127.0.0.2:0"] {
            let local: SocketAddr = local.parse().unwrap();
            let options = ConnectOptions { local: Some(local), ..ConnectOptions::new(address) };
            let Ok(socket) = outgoing(&options) else { continue };
            let _ = socket.connect(&address.into());
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().ip(), local.ip());
        }
    }
}
