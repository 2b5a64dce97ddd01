//! Chat: admits whom log-in announced, once a key, and one session a name.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use madang::{
    Context, ForeignFraming, ForeignServer, GroupId, Handler, LanServer, Leave, Message, SessionId,
};

use crate::say;
use crate::words::Word;

/// Everybody who has entered.
const HALL: GroupId = GroupId(1);
/// The code with which a session leaves whose player came in again.
const REPLACED: u32 = 1;
/// Keys that may wait for their player. Log-in is trusted; its players are not.
const KEYS_MAX: usize = 10_000;

#[derive(Default)]
struct State {
    keys: BTreeMap<u64, String>,
    /// Who is in, by session and by name; a name has one session.
    names: BTreeMap<SessionId, String>,
    sessions: BTreeMap<String, SessionId>,
}

type Shared = Arc<Mutex<State>>;

/// The side of the log-in servers.
struct Admissions(Shared);

impl Handler for Admissions {
    fn on_recv(&self, cx: &mut Context<'_>, link: SessionId, message: Message<'_>) {
        let Some(Word::Admit { request, key, name }) = Word::read(message) else { return };
        let mut state = self.0.lock().expect("nothing panics under this lock");
        if state.keys.len() < KEYS_MAX {
            state.keys.insert(key, name.to_owned());
            drop(state);
            let answer = Word::Admitted { request }.write(cx.packet(&[]));
            cx.send(link, answer).ignore();
        }
    }
}

/// The players' side.
struct Chat(Shared);

impl Handler for Chat {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let text = String::from_utf8_lossy(message.bytes());
        let name = self.0.lock().expect("nothing panics under this lock").names.get(&session).cloned();
        match (name, text.split_once(' ')) {
            (Some(name), _) => {
                let packet = cx.packet(format!("{name}: {text}").as_bytes()).freeze();
                cx.send_group(HALL, &packet).ignore();
            }
            (None, Some(("ENTER", key))) => self.enter(cx, session, key),
            (None, _) => turn_away(cx, session),
        }
    }

    fn on_leave(&self, _: &mut Context<'_>, session: SessionId, leave: &Leave) {
        let mut state = self.0.lock().expect("nothing panics under this lock");
        if let Some(name) = state.names.remove(&session) {
            // Unless the name has another session by now.
            if state.sessions.get(&name) == Some(&session) {
                state.sessions.remove(&name);
            }
            say(format_args!("{name} left: {}", leave.reason));
        }
    }
}

impl Chat {
    fn enter(&self, cx: &mut Context<'_>, session: SessionId, key: &str) {
        let mut state = self.0.lock().expect("nothing panics under this lock");
        let Some(name) = u64::from_str_radix(key, 16).ok().and_then(|key| state.keys.remove(&key)) else {
            drop(state);
            return turn_away(cx, session);
        };
        state.names.insert(session, name.clone());
        let older = state.sessions.insert(name.clone(), session);
        drop(state);
        if let Some(older) = older {
            // By its id, on whatever shard it lives; nothing that it sent is delivered after.
            cx.disconnect(older, REPLACED);
            say(format_args!("{name} is replaced"));
        }
        say(format_args!("{name} entered"));
        cx.join_group(session, HALL).ignore();
        let welcome = cx.packet(format!("WELCOME {name}").as_bytes());
        cx.send(session, welcome).ignore();
    }
}

fn turn_away(cx: &mut Context<'_>, session: SessionId) {
    let word = cx.packet(b"NO");
    cx.send_and_disconnect(session, word, 0).ignore();
}

pub(crate) fn run(lan: &str, players: &str, monitor: &str) -> Result<(), Box<dyn Error>> {
    let state = Shared::default();
    let chat =
        ForeignServer::bind(players, ForeignFraming::be32()).workers(2).start(Chat(Arc::clone(&state)))?;
    let admissions =
        LanServer::bind(lan).node("chat", "chat-1", 1).set(crate::soon).start(Admissions(state))?;
    let reports = crate::report_to(monitor, "chat", chat.remote())?;
    say(format_args!(
        "listening on {} for log-in, on {} for players",
        admissions.local_addr(),
        chat.local_addr()
    ));
    let report = chat.run_until_signal();
    let clean = admissions.drain().map_err(|(_, error)| error)?.report().is_clean();
    let clean = clean && reports.drain().map_err(|(_, error)| error)?.is_clean() && report.is_clean();
    say(format_args!("stopped, clean: {clean}"));
    Ok(())
}
