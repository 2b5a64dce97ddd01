//! A chat with rooms, each a group: `cargo run --release --example chat`.
//!
//! Clients send text, one message a line, framed as be32 (a 4-byte big-endian length, then the text). `/join room` changes
//! the room, `/who` counts it, `/quit` ends in good order; everything else goes to everybody in the room. A client in six
//! lines of Python, to be pasted into `python3 -i`:
//!
//! ```python
//! import socket, struct
//! s = socket.create_connection(("127.0.0.1", 7777)); f = s.makefile("rb")
//! say = lambda text: s.sendall(struct.pack(">I", len(text.encode())) + text.encode())
//! hear = lambda: f.read(struct.unpack(">I", f.read(4))[0]).decode()
//! say("/join kitchen"); print(hear())
//! say("good morning"); print(hear())
//! ```

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use madang::{
    Context, ForeignFraming, ForeignServer, GroupId, Handler, Leave, LeaveReason, Message, Peer, SessionId,
};

/// Who is in which room. One lock is enough for a chat: it is held for an insert, never while something is sent.
#[derive(Default)]
struct Chat {
    rooms: Mutex<BTreeMap<SessionId, String>>,
}

impl Handler for Chat {
    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, _: &Peer) {
        self.enter(cx, session, "hall");
    }

    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let text = String::from_utf8_lossy(message.bytes());
        match text.trim_end().split_once(' ').unwrap_or((text.trim_end(), "")) {
            ("/join", room) if !room.is_empty() => self.enter(cx, session, room),
            ("/who", _) => {
                let rooms = self.rooms.lock().expect("nothing panics under this lock");
                let here = rooms.values().filter(|room| Some(*room) == rooms.get(&session)).count();
                drop(rooms);
                tell(cx, session, &format!("{here} here"));
            }
            ("/quit", _) => {
                let goodbye = cx.packet(b"goodbye");
                cx.send_and_disconnect(session, goodbye, 0).ignore();
            }
            _ => self.say(cx, session, &format!("{}: {}", session.slot(), text.trim_end())),
        }
    }

    fn on_leave(&self, cx: &mut Context<'_>, session: SessionId, leave: &Leave) {
        // The engine has taken it out of its groups; the others are told by us.
        let room = self.rooms.lock().expect("nothing panics under this lock").remove(&session);
        if let (Some(room), true) = (room, leave.reason != LeaveReason::Stopping) {
            broadcast(cx, &room, &format!("{} left: {}", session.slot(), leave.reason));
        }
    }
}

impl Chat {
    fn enter(&self, cx: &mut Context<'_>, session: SessionId, room: &str) {
        let old = self.rooms.lock().expect("nothing panics under this lock").insert(session, room.to_owned());
        if let Some(old) = old {
            cx.leave_group(session, group(&old)).ignore();
            broadcast(cx, &old, &format!("{} went to {room}", session.slot()));
        }
        cx.join_group(session, group(room)).ignore();
        broadcast(cx, room, &format!("{} entered {room}", session.slot()));
    }

    fn say(&self, cx: &mut Context<'_>, session: SessionId, text: &str) {
        let room = self.rooms.lock().expect("nothing panics under this lock").get(&session).cloned();
        if let Some(room) = room {
            broadcast(cx, &room, text);
        }
    }
}

/// One packet, serialized once, whoever is in the room and on whatever shards they are.
fn broadcast(cx: &mut Context<'_>, room: &str, text: &str) {
    let packet = cx.packet(text.as_bytes()).freeze();
    cx.send_group(group(room), &packet).ignore();
}

fn tell(cx: &mut Context<'_>, session: SessionId, text: &str) {
    let packet = cx.packet(text.as_bytes());
    cx.send(session, packet).ignore();
}

/// A room's name as a number.
fn group(room: &str) -> GroupId {
    let mut hasher = DefaultHasher::new();
    room.hash(&mut hasher);
    GroupId(hasher.finish())
}

fn main() -> madang::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".to_owned());
    let server = ForeignServer::bind(&address, ForeignFraming::be32()).workers(2).start(Chat::default())?;
    println!("listening on {}", server.local_addr());
    let report = server.run_until_signal();
    println!("{report:?}");
    Ok(())
}
