//! The engine's face for threads that are no shard.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use madang_packet::{Packet, PacketMut};

use crate::fabric::Fabric;
use crate::figures::Figures;
use crate::groups::GroupId;
use crate::{Answer, Event, LeaveReason, Rules, SessionId};

/// What [`Context`](crate::Context) is inside a callback, for any other thread: clone it, keep it, never wait on it.
///
/// Requests travel through the mailbox of the session's shard. What one thread sends, posts or disconnects on one session
/// takes effect in call order; between threads there is no order. After the server stopped, everything is answered
/// [`Gone`](Answer::Gone).
#[derive(Clone)]
pub struct Remote {
    pub(crate) fabric: Arc<Fabric>,
}

impl Remote {
    /// A packet with `bytes` in it, to write more into and to send.
    pub fn packet(&self, bytes: &[u8]) -> PacketMut {
        let Ok(mut packet) = self.fabric.depot.packet(bytes.len()) else {
            return self.fabric.depot.exhausted();
        };
        packet.set_limit(self.fabric.settings.frame_limit_bytes as usize);
        packet.bytes(bytes);
        packet
    }

    /// Queues a message. `Full` here means the shard's mailbox; a session whose own queue is full when the shard gets to it
    /// follows the policy for slow consumers, and is counted.
    pub fn send(&self, session: SessionId, packet: impl Into<Packet>) -> Answer {
        self.fabric.send(session, packet.into(), false)
    }

    /// As [`send`](Remote::send), and does not wait for the tick.
    pub fn send_now(&self, session: SessionId, packet: impl Into<Packet>) -> Answer {
        self.fabric.send(session, packet.into(), true)
    }

    /// One packet to many: one mailbox entry for each shard that owns some of them, no payload copied. Those that are gone
    /// are passed over.
    pub fn send_many(&self, sessions: &[SessionId], packet: &Packet) -> Answer {
        self.fabric.send_many(sessions, packet, None, None)
    }

    /// As [`Context::send_latest`](crate::Context::send_latest). Whether it replaced another, or was dropped, is found out on
    /// the session's shard, and counted there.
    pub fn send_latest(&self, session: SessionId, key: u32, packet: impl Into<Packet>) -> Answer {
        self.fabric.send_latest(session, packet.into(), key)
    }

    /// As [`send_many`](Remote::send_many), droppable, with a key: see [`send_latest`](Remote::send_latest).
    pub fn send_many_latest(&self, sessions: &[SessionId], key: u32, packet: &Packet) -> Answer {
        self.fabric.send_many(sessions, packet, Some(key), None)
    }

    /// One packet to every joined session.
    pub fn send_all(&self, packet: &Packet) -> Answer {
        self.fabric.send_all(packet, None, None)
    }

    /// As [`send_all`](Remote::send_all), droppable, with a key: see [`send_latest`](Remote::send_latest).
    pub fn send_all_latest(&self, key: u32, packet: &Packet) -> Answer {
        self.fabric.send_all(packet, Some(key), None)
    }

    /// One packet to every member of a group.
    pub fn send_group(&self, group: GroupId, packet: &Packet) -> Answer {
        self.fabric.send_group(group, packet, None, None)
    }

    /// As [`send_group`](Remote::send_group), droppable, with a key: see [`send_latest`](Remote::send_latest).
    pub fn send_group_latest(&self, group: GroupId, key: u32, packet: &Packet) -> Answer {
        self.fabric.send_group(group, packet, Some(key), None)
    }

    /// Puts a session into a group.
    pub fn join_group(&self, session: SessionId, group: GroupId) -> Answer {
        self.fabric.group(session, group, true)
    }

    /// Takes a session out of a group.
    pub fn leave_group(&self, session: SessionId, group: GroupId) -> Answer {
        self.fabric.group(session, group, false)
    }

    /// Ends a session: what is queued is dropped, the connection is reset (an encrypted peer that reads hears the code before,
    /// as `PeerGoodbye`), `on_leave` comes soon with
    /// [`LeaveReason::Disconnected`] and this code. Never blocks, never fails for want of room. From its return on, every
    /// thread's sends to the session answer `Gone`. False when it is gone already.
    pub fn disconnect(&self, session: SessionId, code: u32) -> bool {
        self.fabric.disconnect(session, LeaveReason::Disconnected(code))
    }

    /// Sends a last message behind all that is queued, and leaves in good order: flush, half-close, drain the peer's
    /// input, close; reset if that takes longer than the leave time-out.
    pub fn send_and_disconnect(&self, session: SessionId, packet: impl Into<Packet>, code: u32) -> Answer {
        self.fabric.send_and_disconnect(session, packet.into(), code)
    }

    /// Has `event` delivered to the session's `on_event`, on its shard, in order with its messages; never after its leave.
    pub fn post<T: Send + 'static>(&self, session: SessionId, event: T) -> Answer {
        self.fabric.post(session, Event::new(event))
    }

    /// Whether a session may be sent to right now.
    pub fn is_live(&self, session: SessionId) -> bool {
        self.fabric.directory.is_live(session)
    }

    /// One past the highest [`SessionId::slot`]: the size of an array that content indexes by it.
    pub fn slots(&self) -> usize {
        self.fabric.directory.layout().slots()
    }

    /// Announces a stop; see [`Server::announce`](crate::Server::announce).
    pub fn announce(&self, left: Duration) {
        if self.fabric.is_server {
            self.fabric.announce(left);
        }
    }

    /// The IP rules: who may come in.
    pub fn rules(&self) -> Rules {
        Rules { book: Arc::clone(&self.fabric.rules) }
    }

    /// A snapshot of the figures.
    pub fn figures(&self) -> Figures {
        self.fabric.figures()
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}
