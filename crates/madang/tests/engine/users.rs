//! The user-object style: content's own object for each session.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use madang::{
    Context, DriverChoice, Error, ErrorKind, Event, Leave, LeaveReason, Lobby, Message, Peer, Sent,
    SessionId, User,
};

use crate::support::{Ended, ON_PURPOSE, PATIENCE, Raw, be32, hush_panics_on_purpose};

each_driver! {
    s13_each_session_has_an_object_of_its_own,
    s13_a_lobby_that_declines_or_panics_costs_a_connection_and_no_callback,
    s13_an_object_that_panicked_is_dropped_uncalled,
}

struct Hall(Sender<Told>);

#[derive(Debug, PartialEq)]
enum Told {
    Left(SessionId, u32, LeaveReason),
    Dropped(SessionId),
    Error(ErrorKind),
}

struct Player {
    id: SessionId,
    messages: u32,
    sent: usize,
    tell: Sender<Told>,
}

impl Lobby for Hall {
    type User = Player;

    fn enter(&self, session: SessionId, peer: &Peer) -> Option<Player> {
        match peer.remote.ip().to_string().as_str() {
            "127.0.0.3" => None,
            "127.0.0.4" => panic!("{ON_PURPOSE}"),
            _ => Some(Player { id: session, messages: 0, sent: 0, tell: self.0.clone() }),
        }
    }

    fn on_error(&self, error: &Error) {
        let _ = self.0.send(Told::Error(error.kind.clone()));
    }
}

impl User for Player {
    fn on_join(&mut self, cx: &mut Context<'_>, _: &Peer) {
        let hello = cx.packet(b"hello");
        assert!(cx.send(self.id, hello).is_queued());
    }

    fn on_recv(&mut self, cx: &mut Context<'_>, message: Message<'_>) {
        self.messages += 1;
        assert!(message.bytes() != b"panic", "{ON_PURPOSE}");
        let number = cx.packet(&self.messages.to_le_bytes());
        assert!(cx.send(self.id, number).is_queued());
        match message.bytes() {
            b"event" => assert!(cx.post(self.id, 40u64).is_queued()),
            b"then" => {
                // What comes back from an offload thread has the object's session, not the object.
                let count = self.messages;
                let then = move |cx: &mut Context<'_>, id: SessionId, sum: u32| {
                    let packet = cx.packet(&sum.to_le_bytes());
                    cx.send(id, packet).ignore();
                };
                assert!(cx.offload(self.id, move || count + 100, then).is_queued());
            }
            b"leave" => assert!(cx.disconnect(self.id, 3)),
            _ => {}
        }
    }

    fn on_send(&mut self, _: &mut Context<'_>, sent: Sent) {
        self.sent += sent.messages;
    }

    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) {
        self.messages += event.downcast::<u64>().expect("a number") as u32;
        assert!(cx.timer(self.id, Duration::from_millis(1), 5).is_queued());
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) {
        self.messages += key as u32;
        let number = cx.packet(&self.messages.to_le_bytes());
        assert!(cx.send(self.id, number).is_queued());
    }

    fn on_leave(&mut self, _: &mut Context<'_>, leave: &Leave) {
        let _ = self.tell.send(Told::Left(self.id, self.messages, leave.reason));
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.tell.send(Told::Dropped(self.id));
    }
}

fn number(peer: &mut Raw) -> u32 {
    u32::from_le_bytes(peer.be32_next().try_into().expect("a number"))
}

fn s13_each_session_has_an_object_of_its_own(driver: DriverChoice) {
    let (tell, told) = channel();
    let server = be32(driver).workers(2).start_users(Hall(tell)).unwrap();
    let mut peers: Vec<Raw> = (0..4).map(|_| Raw::connect(server.local_addr())).collect();
    for (times, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.be32_next(), b"hello");
        for round in 1..=times as u32 {
            peer.be32(b"count");
            assert_eq!(number(peer), round, "its own count");
        }
    }
    let peer = &mut peers[1];
    peer.be32(b"event");
    assert_eq!(number(peer), 2);
    assert_eq!(number(peer), 2 + 40 + 5, "event and timer reach the object");
    peer.be32(b"then");
    assert_eq!((number(peer), number(peer)), (48, 148));
    peer.be32(b"leave");
    let Told::Left(id, 49, LeaveReason::Disconnected(3)) = told.recv_timeout(PATIENCE).unwrap() else {
        panic!("the leave is the last call")
    };
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Told::Dropped(id));
    assert!(server.stop().unwrap().report().is_clean());
    let rest: Vec<Told> = told.try_iter().collect();
    assert_eq!(rest.len(), 6, "three are told to leave, and dropped: {rest:?}");
}

fn s13_a_lobby_that_declines_or_panics_costs_a_connection_and_no_callback(driver: DriverChoice) {
    hush_panics_on_purpose();
    let (tell, told) = channel();
    let server = be32(driver).start_users(Hall(tell)).unwrap();
    let mut declined = Raw::connect_from([127, 0, 0, 3], server.local_addr());
    assert_eq!(declined.ended(), Ended::Eof(vec![]));
    drop(declined);
    // The reset may be there before the connect returns.
    assert!(Raw::try_connect_from([127, 0, 0, 4], server.local_addr()).map_or(true, |mut raw| raw.is_cut()));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Told::Error(ErrorKind::Panic(ON_PURPOSE.into())));
    let mut welcome = Raw::connect(server.local_addr());
    assert_eq!(welcome.be32_next(), b"hello");
    drop(welcome);
    assert!(matches!(told.recv_timeout(PATIENCE).unwrap(), Told::Left(..)));
    let remote = server.remote();
    assert!(server.stop().unwrap().report().is_clean());
    let figures = remote.figures();
    assert_eq!(figures.leaves[usize::from(LeaveReason::Declined.code())], 2);
    assert_eq!((figures.accepted, figures.joins, figures.left()), (3, 3, 3), "{figures:?}");
}

fn s13_an_object_that_panicked_is_dropped_uncalled(driver: DriverChoice) {
    hush_panics_on_purpose();
    let (tell, told) = channel();
    let server = be32(driver).start_users(Hall(tell)).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    assert_eq!(peer.be32_next(), b"hello");
    peer.be32(b"panic");
    let (first, second) = (told.recv_timeout(PATIENCE).unwrap(), told.recv_timeout(PATIENCE).unwrap());
    assert!(matches!(first, Told::Dropped(_)), "{first:?}");
    assert_eq!(second, Told::Error(ErrorKind::Panic(ON_PURPOSE.into())));
    assert!(peer.is_cut());
    let remote = server.remote();
    assert!(server.stop().unwrap().report().is_clean());
    assert!(told.try_iter().next().is_none(), "no call after the panic");
    assert_eq!(remote.figures().leaves[usize::from(LeaveReason::HandlerPanic.code())], 1);
}
