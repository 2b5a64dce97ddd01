//! Log-in: gives keys to players, after chat has heard of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock};

use madang::{
    Client, Context, ErrorKind, ForeignFraming, ForeignServer, Handler, LanClient, Leave, Message, Peer,
    Remote, SessionId,
};

use crate::say;
use crate::words::Word;

/// An admission that chat has not answered.
struct Waiting {
    player: SessionId,
    name: String,
    key: u64,
    /// The session of the link over which it went.
    link: SessionId,
}

/// What both sides of this process know.
#[derive(Default)]
struct State {
    next_request: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// The session of the link to chat, while it is up.
    chat: Option<SessionId>,
}

struct Desk {
    state: Mutex<State>,
    /// The way out of each side, for the other.
    chat: OnceLock<Remote>,
    players: OnceLock<Remote>,
    /// Where players find the chat.
    chat_players: String,
    /// Seeded by the system: keys are not to be guessed.
    entropy: RandomState,
}

impl Desk {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// A player wants in: chat is told first, so that the key is good when the player has it.
    fn log_in(&self, player: SessionId, name: &str) {
        let (request, key, link) = {
            let mut state = self.state();
            state.next_request += 1;
            (state.next_request, self.entropy.hash_one((state.next_request, name)), state.chat)
        };
        let chat = self.chat.get().expect("the link's side starts first");
        let Some(link) = link else { return self.lost(player, name, "the link is down") };
        // Noted before it is sent: the answer may be faster than we are.
        let waiting = Waiting { player, name: name.to_owned(), key, link };
        self.state().waiting.insert(request, waiting);
        let word = Word::Admit { request, key, name }.write(chat.packet(&[]));
        if !chat.send(link, word).is_queued() && self.state().waiting.remove(&request).is_some() {
            self.lost(player, name, "the link is down");
        }
    }

    /// Chat knows the key: the player gets it and goes.
    fn admitted(&self, request: u64) {
        if let Some(waiting) = self.state().waiting.remove(&request) {
            let last = format!("KEY {:016x} {}", waiting.key, self.chat_players);
            self.dismiss(waiting.player, &last);
        }
    }

    /// The link broke: whatever was not answered may or may not have arrived. A key that nobody has harms nobody, so each
    /// of them counts as lost, and its player may try again.
    fn link_broke(&self, link: SessionId) {
        let mut state = self.state();
        if state.chat == Some(link) {
            state.chat = None;
        }
        let (lost, kept) =
            std::mem::take(&mut state.waiting).into_iter().partition(|(_, waiting)| waiting.link == link);
        state.waiting = kept;
        drop(state);
        let lost: BTreeMap<u64, Waiting> = lost;
        for waiting in lost.into_values() {
            self.lost(waiting.player, &waiting.name, "the link broke before the answer");
        }
    }

    fn lost(&self, player: SessionId, name: &str, why: &str) {
        say(format_args!("lost: the admission of {name}: {why}"));
        self.dismiss(player, "LATER");
    }

    fn dismiss(&self, player: SessionId, last: &str) {
        let players = self.players.get().expect("a player came in");
        players.send_and_disconnect(player, players.packet(last.as_bytes()), 0).ignore();
    }
}

/// The players' side.
struct Players(Arc<Desk>);

impl Handler for Players {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        // Answers come on the other side's thread, which needs a way back to here.
        self.0.players.get_or_init(|| cx.remote());
        match String::from_utf8_lossy(message.bytes()).split_once(' ') {
            Some(("LOGIN", name)) if (1..=32).contains(&name.len()) => self.0.log_in(session, name),
            _ => {
                cx.disconnect(session, 0);
            }
        }
    }
}

/// The link to chat.
struct ChatLink(Arc<Desk>);

impl Handler for ChatLink {
    fn on_join(&self, _: &mut Context<'_>, link: SessionId, _: &Peer) {
        self.0.state().chat = Some(link);
        say(format_args!("the link to chat is up"));
    }

    fn on_recv(&self, _: &mut Context<'_>, _: SessionId, message: Message<'_>) {
        if let Some(Word::Admitted { request }) = Word::read(message) {
            self.0.admitted(request);
        }
    }

    fn on_leave(&self, _: &mut Context<'_>, link: SessionId, leave: &Leave) {
        say(format_args!(
            "the link to chat broke: {}; {} messages did not leave",
            leave.reason, leave.messages_unsent
        ));
        self.0.link_broke(link);
    }

    fn on_error(&self, error: &madang::Error) {
        if let ErrorKind::LinkDown { reason, .. } = &error.kind {
            say(format_args!("the link to chat is down: {reason}"));
        }
    }
}

pub(crate) fn run(
    players: &str,
    chat: &str,
    chat_players: &str,
    monitor: &str,
) -> Result<(), Box<dyn Error>> {
    let desk = Arc::new(Desk {
        state: Mutex::default(),
        chat: OnceLock::new(),
        players: OnceLock::new(),
        chat_players: chat_players.to_owned(),
        entropy: RandomState::new(),
    });
    let link: Client = LanClient::node("login", "login-1", 1)
        .set(crate::soon)
        .link(chat)
        .start(ChatLink(Arc::clone(&desk)))?;
    let _ = desk.chat.set(link.remote());
    let server =
        ForeignServer::bind(players, ForeignFraming::be32()).workers(2).start(Players(Arc::clone(&desk)))?;
    let reports = crate::report_to(monitor, "login", server.remote())?;
    say(format_args!("listening on {} for players", server.local_addr()));
    let report = server.run_until_signal();
    let clean = link.drain().map_err(|(_, error)| error)?.is_clean();
    let clean = clean && reports.drain().map_err(|(_, error)| error)?.is_clean() && report.is_clean();
    say(format_args!("stopped, clean: {clean}"));
    Ok(())
}
