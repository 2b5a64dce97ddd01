//! The monitor, and what the others tell it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang::{Context, ErrorKind, Handler, LanServer, Leave, Message, Node, Peer, Remote, SessionId};

use crate::say;
use crate::words::Word;

/// Prints what the services report.
#[derive(Default)]
struct Monitor {
    services: Mutex<BTreeMap<SessionId, Arc<Node>>>,
}

impl Handler for Monitor {
    fn on_join(&self, _: &mut Context<'_>, session: SessionId, peer: &Peer) {
        let node = peer.node.clone().expect("a LAN peer has greeted");
        say(format_args!("{} is up, life {}", node.name, node.incarnation));
        self.services.lock().expect("nothing panics under this lock").insert(session, node);
    }

    fn on_recv(&self, _: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let node = self.services.lock().expect("nothing panics under this lock").get(&session).cloned();
        if let (Some(node), Some(Word::Figures { sessions, messages_in, messages_out })) =
            (node, Word::read(message))
        {
            say(format_args!(
                "{}: {sessions} sessions, {messages_in} messages in, {messages_out} out",
                node.name
            ));
        }
    }

    fn on_leave(&self, _: &mut Context<'_>, session: SessionId, leave: &Leave) {
        if let Some(node) = self.services.lock().expect("nothing panics under this lock").remove(&session) {
            say(format_args!("{} is gone: {}", node.name, leave.reason));
        }
    }
}

pub(crate) fn run(lan: &str) -> Result<(), Box<dyn Error>> {
    let server =
        LanServer::bind(lan).node("monitor", "monitor-1", 1).set(crate::soon).start(Monitor::default())?;
    say(format_args!("listening on {}", server.local_addr()));
    let report = server.run_until_signal();
    say(format_args!("stopped, clean: {}", report.is_clean()));
    Ok(())
}

/// The other end: sends figures while the link is up. A timer of the link's session does it, so it ends with the session
/// and begins anew with the next.
pub(crate) struct Reporter {
    pub(crate) figures: Remote,
    pub(crate) every: Duration,
}

impl Handler for Reporter {
    fn on_join(&self, cx: &mut Context<'_>, link: SessionId, _: &Peer) {
        self.on_timer(cx, link, 0);
    }

    fn on_timer(&self, cx: &mut Context<'_>, link: SessionId, key: u64) {
        let figures = self.figures.figures();
        let word = Word::Figures {
            sessions: figures.sessions,
            messages_in: figures.messages_in,
            messages_out: figures.messages_out,
        };
        let packet = word.write(cx.packet(&[]));
        cx.send(link, packet).ignore();
        cx.timer(link, self.every, key).ignore();
    }

    fn on_error(&self, error: &madang::Error) {
        if let ErrorKind::LinkDown { reason, .. } = &error.kind {
            say(format_args!("the link to the monitor is down: {reason}"));
        }
    }
}
