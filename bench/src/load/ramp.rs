//! Opening many connections without outrunning the server's accept queue.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use madang::wire::wan::Secured;
use socket2::Socket;

use super::ANSWER_DEADLINE;
use crate::wire::{self, Framing, Trigger};
use crate::{sockets, wan};

/// Connections between two proofs that the server keeps up; far below the listener's backlog.
const STEP: usize = 256;

/// Connections from one source address: Linux hands out 28,232 ephemeral ports by default.
const PER_SOURCE: usize = 25_000;

/// A connection that a server has taken.
pub struct Peer {
    /// Blocking, with a deadline for reads.
    pub socket: Socket,
    /// What the handshake of an encrypted one gave.
    pub secured: Option<Secured>,
}

/// Opens `count` connections to `server` from 127.0.0.`first_source` and, when ports run short, the addresses after it.
///
/// After every 256, and at the end, the last connection makes a round trip: the server has accepted all before it. Encrypted
/// ones have each been welcomed.
///
/// # Errors
/// As `connect(2)`, or the server does not answer the trip's trigger by itself, or the log-in with a welcome.
pub fn connect(
    framing: Framing,
    server: SocketAddr,
    count: usize,
    first_source: u8,
) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::with_capacity(count);
    for number in 0..count {
        let source = Ipv4Addr::new(127, 0, 0, first_source + (number / PER_SOURCE) as u8);
        let socket = sockets::connect(source, server)
            .with_context(|| format!("connection {number} of {count} from {source}"))?;
        socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
        let secured = match framing {
            Framing::Be32 => None,
            Framing::Wan => {
                Some(wan::enter(&socket).with_context(|| format!("log-in of connection {number}"))?)
            }
        };
        if secured.is_none() && ((number + 1) % STEP == 0 || number + 1 == count) {
            round_trip(&socket).with_context(|| format!("round trip of connection {number}"))?;
        }
        peers.push(Peer { socket, secured });
    }
    Ok(peers)
}

/// A trigger for nothing comes back from a broadcast server as from an echo server.
fn round_trip(mut socket: &Socket) -> anyhow::Result<()> {
    let trigger = Trigger { messages: 0, payload_bytes: Trigger::PAYLOAD_BYTES_MIN };
    let frame = trigger.frame(Framing::Be32);
    let mut answer = [0; wire::HEADER_BYTES + Trigger::BYTES];
    socket.write_all(&frame)?;
    socket.read_exact(&mut answer)?;
    ensure!(answer == frame[..], "the server answered {answer:?}");
    Ok(())
}
