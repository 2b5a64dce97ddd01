//! Content that records what it is told, does what a test asks for, and checks the order of every session's callbacks.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use madang::packet::Packet;
use madang::{
    Admission, Context, Error, ErrorKind, Event, Handler, Leave, LeaveReason, Message, Peer, Sent, SessionId,
    WaitState, Waiter, WaiterId,
};

use super::PATIENCE;

/// What content was told.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Request,
    Join(SessionId, Peer),
    Recv(SessionId, Vec<u8>),
    Sent(SessionId, Sent),
    /// Events of these tests are numbers.
    Event(SessionId, u64),
    Timer(SessionId, u64),
    Draining(SessionId, std::time::Duration),
    Leave(SessionId, Leave),
    Error(Error),
    Wait(Waiter, WaitState),
}

type Hook<A> = Box<dyn Fn(&mut Context<'_>, SessionId, A) + Send + Sync>;
type WaitHook = Box<dyn Fn(&mut Context<'_>, &Waiter, WaitState) -> Option<Packet> + Send + Sync>;
type RecvHook = Box<dyn Fn(&mut Context<'_>, SessionId, Message<'_>) + Send + Sync>;

/// A handler that tells a [`Watch`], then runs the test's own hook.
pub(crate) struct Recorder {
    tell: Option<Sender<Seen>>,
    ledger: Arc<Ledger>,
    request: Box<dyn Fn(&Peer) -> Admission + Send + Sync>,
    join: Hook<()>,
    recv: RecvHook,
    sent: Hook<Sent>,
    event: Hook<u64>,
    timer: Hook<u64>,
    leave: Hook<LeaveReason>,
    wait: WaitHook,
}

fn nothing<A>() -> Hook<A> {
    Box::new(|_, _, _| {})
}

impl Recorder {
    pub(crate) fn new() -> (Recorder, Watch) {
        let (tell, seen) = channel();
        let ledger = Arc::new(Ledger::default());
        let recorder = Recorder { tell: Some(tell), ledger: Arc::clone(&ledger), ..Recorder::silent() };
        (recorder, Watch { seen, backlog: RefCell::default(), ledger })
    }

    /// One that records nothing.
    pub(crate) fn silent() -> Recorder {
        Recorder {
            tell: None,
            ledger: Arc::default(),
            request: Box::new(|_| Admission::Accept),
            join: nothing(),
            recv: Box::new(|_, _, _| {}),
            sent: nothing(),
            event: nothing(),
            timer: nothing(),
            leave: nothing(),
            wait: Box::new(|_, _, _| None),
        }
    }

    /// One that sends every message back.
    pub(crate) fn echo() -> (Recorder, Watch) {
        let (recorder, watch) = Recorder::new();
        (recorder.on_recv(echo), watch)
    }

    pub(crate) fn on_request(self, hook: impl Fn(&Peer) -> Admission + Send + Sync + 'static) -> Recorder {
        Recorder { request: Box::new(hook), ..self }
    }

    pub(crate) fn on_join(
        self,
        hook: impl Fn(&mut Context<'_>, SessionId) + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { join: Box::new(move |cx, id, ()| hook(cx, id)), ..self }
    }

    pub(crate) fn on_recv(
        self,
        hook: impl Fn(&mut Context<'_>, SessionId, Message<'_>) + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { recv: Box::new(hook), ..self }
    }

    pub(crate) fn on_sent(
        self,
        hook: impl Fn(&mut Context<'_>, SessionId, Sent) + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { sent: Box::new(hook), ..self }
    }

    pub(crate) fn on_event(
        self,
        hook: impl Fn(&mut Context<'_>, SessionId, u64) + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { event: Box::new(hook), ..self }
    }

    pub(crate) fn on_timer(
        self,
        hook: impl Fn(&mut Context<'_>, SessionId, u64) + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { timer: Box::new(hook), ..self }
    }

    pub(crate) fn on_leave(
        self,
        hook: impl Fn(&mut Context<'_>, SessionId, LeaveReason) + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { leave: Box::new(hook), ..self }
    }

    pub(crate) fn on_wait(
        self,
        hook: impl Fn(&mut Context<'_>, &Waiter, WaitState) -> Option<Packet> + Send + Sync + 'static,
    ) -> Recorder {
        Recorder { wait: Box::new(hook), ..self }
    }

    fn tell(&self, seen: Seen) {
        self.ledger.note(&seen);
        if let Some(tell) = &self.tell {
            // A test that is over listens no more.
            let _ = tell.send(seen);
        }
    }
}

/// Sends a message back.
pub(crate) fn echo(cx: &mut Context<'_>, id: SessionId, message: Message<'_>) {
    let reply = cx.packet(message.bytes());
    cx.send(id, reply).ignore();
}

impl Handler for Recorder {
    fn on_connection_request(&self, peer: &Peer) -> Admission {
        self.tell(Seen::Request);
        (self.request)(peer)
    }

    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, peer: &Peer) {
        self.tell(Seen::Join(session, peer.clone()));
        (self.join)(cx, session, ());
    }

    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        self.tell(Seen::Recv(session, message.bytes().to_vec()));
        (self.recv)(cx, session, message);
    }

    fn on_send(&self, cx: &mut Context<'_>, session: SessionId, sent: Sent) {
        self.tell(Seen::Sent(session, sent));
        (self.sent)(cx, session, sent);
    }

    fn on_event(&self, cx: &mut Context<'_>, session: SessionId, event: Event) {
        let number = event.downcast().expect("events of these tests are numbers");
        self.tell(Seen::Event(session, number));
        (self.event)(cx, session, number);
    }

    fn on_timer(&self, cx: &mut Context<'_>, session: SessionId, key: u64) {
        self.tell(Seen::Timer(session, key));
        (self.timer)(cx, session, key);
    }

    fn on_draining(&self, _: &mut Context<'_>, session: SessionId, left: std::time::Duration) {
        self.tell(Seen::Draining(session, left));
    }

    fn on_leave(&self, cx: &mut Context<'_>, session: SessionId, leave: &Leave) {
        self.tell(Seen::Leave(session, *leave));
        (self.leave)(cx, session, leave.reason);
    }

    fn on_wait(&self, cx: &mut Context<'_>, waiter: &Waiter, state: WaitState) -> Option<Packet> {
        self.tell(Seen::Wait(waiter.clone(), state));
        (self.wait)(cx, waiter, state)
    }

    fn on_error(&self, error: &Error) {
        self.tell(Seen::Error(error.clone()));
    }
}

/// The test's view of a [`Recorder`]. What was looked past stays to be looked at.
pub(crate) struct Watch {
    seen: Receiver<Seen>,
    backlog: RefCell<VecDeque<Seen>>,
    ledger: Arc<Ledger>,
}

impl Watch {
    /// The first thing seen, and not taken yet, that `pick` likes; waits for it.
    #[track_caller]
    pub(crate) fn find<T>(&self, what: &str, pick: impl Fn(&Seen) -> Option<T>) -> T {
        let mut backlog = self.backlog.borrow_mut();
        if let Some((at, found)) = backlog.iter().enumerate().find_map(|(at, seen)| Some((at, pick(seen)?))) {
            backlog.remove(at);
            return found;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(seen) = self.seen.recv_timeout(left) else {
                panic!("{what}: not within {PATIENCE:?}; seen instead: {backlog:?}");
            };
            match pick(&seen) {
                Some(found) => return found,
                None => backlog.push_back(seen),
            }
        }
    }

    #[track_caller]
    pub(crate) fn join(&self) -> SessionId {
        self.join_of_peer().0
    }

    #[track_caller]
    pub(crate) fn join_of_peer(&self) -> (SessionId, Peer) {
        self.find(
            "a join",
            |seen| if let Seen::Join(id, peer) = seen { Some((*id, peer.clone())) } else { None },
        )
    }

    #[track_caller]
    pub(crate) fn recv(&self, id: SessionId) -> Vec<u8> {
        self.find("a message", |seen| match seen {
            Seen::Recv(from, bytes) if *from == id => Some(bytes.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn event(&self, id: SessionId) -> u64 {
        self.find("an event", |seen| match seen {
            Seen::Event(of, number) if *of == id => Some(*number),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn timer(&self, id: SessionId) -> u64 {
        self.find("a timer", |seen| match seen {
            Seen::Timer(of, key) if *of == id => Some(*key),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn leave(&self, id: SessionId) -> Leave {
        self.find("a leave", |seen| match seen {
            Seen::Leave(of, leave) if *of == id => Some(*leave),
            _ => None,
        })
    }

    /// The next word about a waiter.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, of: impl Fn(&WaitState) -> bool) -> (Waiter, WaitState) {
        self.find(what, |seen| match seen {
            Seen::Wait(waiter, state) if of(state) => Some((waiter.clone(), *state)),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn error(&self, what: &str, of: impl Fn(&ErrorKind) -> bool) -> Error {
        self.find(what, |seen| match seen {
            Seen::Error(error) if of(&error.kind) => Some(error.clone()),
            _ => None,
        })
    }

    /// Everything seen so far and not taken, without waiting.
    pub(crate) fn rest(&self) -> Vec<Seen> {
        let mut backlog = self.backlog.borrow_mut();
        backlog.extend(self.seen.try_iter());
        backlog.drain(..).collect()
    }

    /// That callbacks came in the order of a session's life, and every join got its leave.
    #[track_caller]
    pub(crate) fn check_ledger(&self) {
        let book = self.ledger.book.lock().expect("nothing panics under this lock");
        assert!(book.faults.is_empty(), "{:?}", book.faults);
        let staying: Vec<_> = book.lives.iter().filter(|(_, left)| !**left).map(|(id, _)| id).collect();
        assert!(staying.is_empty(), "joined and did not leave: {staying:?}");
        let waiting: Vec<_> = book.waits.iter().filter(|(_, over)| !**over).map(|(id, _)| id).collect();
        assert!(waiting.is_empty(), "entered the queue, and were neither admitted nor gone: {waiting:?}");
    }
}

/// Every session's life: joined once, called while it is there, left once.
#[derive(Default)]
struct Ledger {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Whether each session that ever joined has left.
    lives: HashMap<SessionId, bool>,
    /// Whether each waiter's wait is over.
    waits: HashMap<WaiterId, bool>,
    faults: Vec<String>,
}

impl Book {
    /// Whether this may be told of a waiter now.
    fn waits(&mut self, id: WaiterId, state: WaitState) -> bool {
        match state {
            WaitState::Entered(_) => self.waits.insert(id, false).is_none_or(|over| over),
            WaitState::Admitted | WaitState::Gone => self.waits.insert(id, true) == Some(false),
            _ => self.waits.get(&id) == Some(&false),
        }
    }
}

impl Ledger {
    fn note(&self, seen: &Seen) {
        let mut book = self.book.lock().expect("nothing panics under this lock");
        let right = match seen {
            Seen::Join(id, _) => book.lives.insert(*id, false).is_none(),
            Seen::Leave(id, _) => book.lives.insert(*id, true) == Some(false),
            Seen::Recv(id, _)
            | Seen::Sent(id, _)
            | Seen::Event(id, _)
            | Seen::Timer(id, _)
            | Seen::Draining(id, _) => book.lives.get(id) == Some(&false),
            Seen::Wait(waiter, state) => book.waits(waiter.id, *state),
            Seen::Request | Seen::Error(_) => true,
        };
        if !right {
            book.faults.push(format!("out of turn: {seen:?}"));
        }
    }
}
