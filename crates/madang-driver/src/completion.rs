//! What `poll` tells.

use std::net::SocketAddr;

use crate::{Conn, Incoming, Lent, Listener, NetError, Outgoing};

/// One thing that happened. A closed enum, handled in one `match`: nothing between driver and session is called back.
#[derive(Debug)]
pub enum Completion {
    /// A peer is at the door. Owned, attached to nobody yet; dropping it closes the socket.
    Accepted {
        /// Whose backlog it came from.
        listener: Listener,
        /// The socket with both addresses.
        incoming: Incoming,
    },
    /// Accepting had to back off, by itself and for now. Told once per stall.
    AcceptStalled {
        /// The listener that waits.
        listener: Listener,
        /// Mostly [`NetError::TooManyFiles`].
        error: NetError,
    },
    /// The last word of a listener.
    Unlistened {
        /// Which; the name may be handed out again.
        listener: Listener,
    },
    /// A connect ended (terminal). With an error the connection is still to be retired.
    Connected {
        /// The outgoing connection.
        conn: Conn,
        /// Our own address of it, or why it failed.
        result: Result<SocketAddr, NetError>,
    },
    /// Bytes came. Never empty. Terminal without `more`.
    Data {
        /// Where from.
        conn: Conn,
        /// Memory that the driver lends; give it back (drop it) before the next poll.
        bytes: Lent,
        /// Whether this receive goes on. Without it, the receive has ended and may be started again.
        more: bool,
    },
    /// A receive ended without bytes (terminal).
    RecvEnded {
        /// Which connection's.
        conn: Conn,
        /// Why.
        end: RecvEnd,
    },
    /// A send ended (terminal).
    Sent {
        /// Which connection's.
        conn: Conn,
        /// What of the bytes given to `send` has not left: nothing after a whole write, the rest after a short one, all of them
        /// after an error. The room for the pieces is kept.
        outgoing: Outgoing,
        /// How many bytes left (at least one; fewer than given is a short write), or why none did.
        result: Result<usize, NetError>,
    },
}

/// Why a receive ended without bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvEnd {
    /// The peer ended its direction of the stream.
    Eof,
    /// No receive buffer was free. The connection is whole: start again once others had their turn (at once is a busy loop).
    NoBuffers,
    /// The connection is broken, or was aborted ([`NetError::Cancelled`]).
    Error(NetError),
}
