//! What a driver and its sockets can be told.

use std::net::SocketAddr;
use std::time::Duration;

/// How big a driver is made. Everything is reserved at start and has this bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverSettings {
    /// Places in the connection table: sessions and their slack, greeting and waiting peers, outgoing links.
    pub connections_max: usize,
    /// Listeners at once.
    pub listeners_max: usize,
    /// Operations that may wait for one submission (io_uring: submission queue entries; a power of two).
    pub submissions_max: u32,
    /// Receive buffers of the shard.
    pub recv_buffers: u16,
    /// Bytes of each. 64 KiB lets one buffer carry the bytes of many connections one after the other.
    pub recv_buffer_bytes: u32,
    /// About the most bytes kept for a paused receive; the rest stays with the kernel, and TCP holds the peer back. What
    /// was on its way already when the pause came is kept on top of it: nothing on readiness, some 0.5 MiB on io_uring.
    pub pause_bytes_max: usize,
    /// Windows: connections send straight from the packets, without a send buffer of the system's (SO_SNDBUF 0), as long as
    /// no more than so many bytes are locked in memory by it; a connection that would pass the bound gets a send buffer for
    /// the rest of its life. 0, the default: everybody has a send buffer. It saves a copy, and costs every send the peer's
    /// round trip before the next may start: for few fast links, not for players. Ignored elsewhere.
    pub unbuffered_sends_bytes_max: usize,
    /// io_uring: keep sockets in the ring's own file table instead of the process's, which lifts the process's descriptor
    /// limit. Ignored elsewhere.
    pub own_file_table: bool,
}

impl Default for DriverSettings {
    fn default() -> DriverSettings {
        DriverSettings {
            connections_max: 4_096,
            listeners_max: 4,
            submissions_max: 4_096,
            recv_buffers: 64,
            recv_buffer_bytes: 64 * 1024,
            pause_bytes_max: 256 * 1024,
            unbuffered_sends_bytes_max: 0,
            own_file_table: false,
        }
    }
}

/// Options of a stream socket; `None` leaves the system's default. A listener's options hold for what it accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small segments at once (the opposite of Nagle's algorithm).
    pub nodelay: Option<bool>,
    /// TCP keep-alive: idle time before the first probe; probes follow at a third of it.
    pub keepalive: Option<Duration>,
    /// Give up on a peer that acknowledges nothing for so long (Linux TCP_USER_TIMEOUT; elsewhere ignored).
    pub user_timeout: Option<Duration>,
    /// Kernel send buffer, bytes.
    pub send_buffer_bytes: Option<usize>,
    /// Kernel receive buffer, bytes.
    pub recv_buffer_bytes: Option<usize>,
    /// Congestion control by name, such as `reno` or `bbr` (Linux; elsewhere ignored).
    pub congestion: Option<String>,
    /// Report writable only below so many unsent bytes (TCP_NOTSENT_LOWAT; elsewhere ignored).
    pub unsent_low_water_bytes: Option<u32>,
}

/// Where and how to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// Port 0 asks the system for a free one.
    pub address: SocketAddr,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// Windows: nobody else can bind the port, or take it over (SO_EXCLUSIVEADDRUSE). Elsewhere no second listener can in
    /// any case, and this is ignored.
    pub exclusive: bool,
    /// For the listener and, by inheritance, what it accepts.
    pub socket: SocketOptions,
}

impl ListenOptions {
    /// The system's defaults, a backlog of 4,096, the port for this listener alone.
    pub fn new(address: SocketAddr) -> ListenOptions {
        ListenOptions { address, backlog: 4_096, exclusive: true, socket: SocketOptions::default() }
    }
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The peer.
    pub remote: SocketAddr,
    /// Our own address, if it matters (port 0: any).
    pub local: Option<SocketAddr>,
    /// For this socket.
    pub socket: SocketOptions,
}

impl ConnectOptions {
    /// The system's defaults.
    pub fn new(remote: SocketAddr) -> ConnectOptions {
        ConnectOptions { remote, local: None, socket: SocketOptions::default() }
    }
}
