//! Sockets with the options that make servers comparable, set in one place for all of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

/// The same congestion control on both ends of every connection. The machine's default differs from host to host, and
/// bbr paces even loopback: it costs 5–20 %.
pub const CONGESTION_CONTROL: &[u8] = b"reno";

/// What this kind of machine allows (`net.core.somaxconn`); the load client keeps its ramp well below.
const BACKLOG: i32 = 4096;

/// A listener whose accepted sockets inherit no-delay and [`CONGESTION_CONTROL`], so that no server pays a call for
/// them per connection.
///
/// # Errors
/// The port is taken, or the kernel has no such congestion control (`modprobe tcp_reno` is never needed: it is built in).
pub fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_congestion(CONGESTION_CONTROL)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A connected blocking socket from `source` (any port) to `server`, with the same options as [`listen`] sets.
///
/// # Errors
/// As `connect(2)`; `EADDRNOTAVAIL` says that the source's ephemeral ports towards this server are used up.
pub fn connect(source: Ipv4Addr, server: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_congestion(CONGESTION_CONTROL)?;
    bind_address_only(&socket, source)?;
    socket.connect(&server.into())?;
    Ok(socket)
}

/// Binds the address and leaves the port to `connect`, which may then share it between destinations; a plain bind
/// would take it for this source whatever the destination, and 28,000 ports would have to last for all servers.
fn bind_address_only(socket: &Socket, source: Ipv4Addr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open while `socket` is borrowed; the option is an int, and `on` outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::from((source, 0)).into())
}
