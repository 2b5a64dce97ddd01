//! The echo server that every command of this program talks to.

use madang::{Answer, Context, Error, Handler, Message, SessionId};

/// What [`madang::LeaveReason::Disconnected`] says when a client asked for it with `D` or `F`.
pub(crate) const ASKED: u32 = 1;

/// The same when an echo could not be queued: a session with a gap in its echoes is worth nothing.
pub(crate) const NO_ROOM: u32 = 2;

/// How every message to everybody begins (`--broadcast`); no echo of a client of ours does.
pub(crate) const BROADCAST: u8 = b'!';

/// Sends each message back, and acts on its first byte:
///
/// | byte | the server |
/// |---|---|
/// | `D` | disconnects the session and sends nothing more; queued echoes may be dropped |
/// | `F` | sends the message back as the last one and disconnects: all that was queued arrives |
/// | any other | sends the message back |
#[derive(Debug)]
pub(crate) struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let bytes = message.bytes();
        let answer = match bytes.first() {
            Some(b'D') => {
                cx.disconnect(session, ASKED);
                return;
            }
            Some(b'F') => {
                let last = cx.packet(bytes);
                cx.send_and_disconnect(session, last, ASKED)
            }
            _ => {
                let echo = cx.packet(bytes);
                cx.send(session, echo)
            }
        };
        match answer {
            // A session that is full is on its way out already, as a slow consumer.
            Answer::Queued | Answer::Gone => {}
            refused => {
                tracing::debug!(?session, ?refused, "an echo found no room");
                cx.disconnect(session, NO_ROOM);
            }
        }
    }

    fn on_error(&self, error: &Error) {
        let Error { kind, peer, suppressed, .. } = error;
        let suppressed = (*suppressed > 0).then_some(*suppressed);
        tracing::warn!(peer = peer.map(tracing::field::display), suppressed, "{kind}");
    }
}
