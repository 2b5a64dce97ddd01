//! What the shards, the gate and other threads share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use madang_packet::{Depot, Packet};
#[cfg(feature = "wan")]
use madang_wire::wan::LinkSecret;

use crate::directory::Directory;
use crate::figures::{self, Figures, ShardFigures};
use crate::framing::Protocol;
use crate::gate::RuleBook;
use crate::groups::GroupId;
use crate::id::SerialSource;
use crate::letters::{Letter, Word};
use crate::mailbox::Mailbox;
use crate::offload::Jobs;
use crate::planted::{Planted, planted};
use crate::user::Content;
use crate::{Answer, Event, LeaveReason, SessionId, Settings};

/// One server's or client's common ground: mailboxes, the directory, counters and settings. Threads meet here only.
pub(crate) struct Fabric {
    pub(crate) settings: Settings,
    pub(crate) protocol: Protocol,
    pub(crate) content: Content,
    pub(crate) directory: Directory,
    pub(crate) mailboxes: Box<[Mailbox<Letter, Word>]>,
    pub(crate) figures: Box<[ShardFigures]>,
    pub(crate) depot: Depot,
    pub(crate) serials: SerialSource,
    pub(crate) rules: Arc<RuleBook>,
    pub(crate) jobs: Arc<dyn Jobs>,
    /// Where handshakes are worked out; none: each shard does it in its turns.
    #[cfg(feature = "wan")]
    pub(crate) handshakes: Option<Arc<dyn Jobs>>,
    /// The shards have ended: nobody reads the mailboxes any more.
    pub(crate) ended: AtomicBool,
    /// Whether there is a gate on shard 0; a client has none.
    pub(crate) is_server: bool,
    /// Of sealed LAN links.
    #[cfg(feature = "wan")]
    pub(crate) link_secret: Option<LinkSecret>,
}

impl Fabric {
    /// The server will stop in so long: the gate is told, and passes it on.
    pub(crate) fn announce(&self, left: Duration) {
        self.mailboxes[0].control(Word::Announce { left });
    }

    /// Whether connections begin with a handshake.
    #[cfg(feature = "wan")]
    pub(crate) fn seals(&self) -> bool {
        matches!(self.protocol, Protocol::Wan(_)) || self.link_secret.is_some()
    }

    /// Sends from any thread: the shard's mailbox carries it.
    pub(crate) fn send(&self, id: SessionId, packet: Packet, urgent: bool) -> Answer {
        if let Some(answer) = refuse(&packet) {
            return answer;
        }
        self.deliver(id, |id| Letter::Send { id, packet, urgent })
    }

    pub(crate) fn send_latest(&self, id: SessionId, packet: Packet, key: u32) -> Answer {
        if let Some(answer) = refuse(&packet) {
            return answer;
        }
        self.deliver(id, |id| Letter::SendLatest { id, packet, key })
    }

    pub(crate) fn post(&self, id: SessionId, event: Event) -> Answer {
        self.deliver(id, |id| Letter::Post { id, event })
    }

    pub(crate) fn send_and_disconnect(&self, id: SessionId, packet: Packet, code: u32) -> Answer {
        if let Some(answer) = refuse(&packet) {
            return answer;
        }
        self.deliver(id, |id| Letter::SendAndDisconnect { id, packet, code })
    }

    pub(crate) fn group(&self, id: SessionId, group: GroupId, join: bool) -> Answer {
        self.deliver(id, |id| {
            if join { Letter::JoinGroup { id, group } } else { Letter::LeaveGroup { id, group } }
        })
    }

    fn deliver(&self, id: SessionId, letter: impl FnOnce(SessionId) -> Letter) -> Answer {
        let Some((shard, _)) = self.directory.layout().locate(id).filter(|_| self.directory.is_live(id))
        else {
            if let Some(figures) = self.figures.first() {
                figures.remote_gone.fetch_add(1, Ordering::Relaxed);
            }
            return Answer::Gone;
        };
        self.push(shard, letter(id))
    }

    fn push(&self, shard: usize, letter: Letter) -> Answer {
        // Acquire pairs with the Release of the stop, which empties the mailboxes after it; who comes between the two
        // leaves a letter that nobody reads, and that goes with the fabric.
        if self.ended.load(Ordering::Acquire) {
            return Answer::Gone;
        }
        match self.mailboxes[shard].push(letter) {
            Ok(()) => Answer::Queued,
            Err(_) => {
                self.figures[shard].remote_full.fetch_add(1, Ordering::Relaxed);
                Answer::Full
            }
        }
    }

    /// One letter to each shard but `except`; the worst answer.
    fn push_all(&self, except: Option<usize>, letter: impl Fn() -> Letter) -> Answer {
        let mut answer = Answer::Queued;
        for shard in (0..self.mailboxes.len()).filter(|shard| Some(*shard) != except) {
            match self.push(shard, letter()) {
                Answer::Queued => {}
                worse => answer = worse,
            }
        }
        answer
    }

    pub(crate) fn send_all(&self, packet: &Packet, key: Option<u32>, except: Option<usize>) -> Answer {
        refuse(packet)
            .unwrap_or_else(|| self.push_all(except, || Letter::SendAll { packet: packet.clone(), key }))
    }

    pub(crate) fn send_group(
        &self,
        group: GroupId,
        packet: &Packet,
        key: Option<u32>,
        except: Option<usize>,
    ) -> Answer {
        refuse(packet).unwrap_or_else(|| {
            self.push_all(except, || Letter::SendGroup { group, packet: packet.clone(), key })
        })
    }

    /// One letter for each shard that owns some of `ids`, but `except`.
    pub(crate) fn send_many(
        &self,
        ids: &[SessionId],
        packet: &Packet,
        key: Option<u32>,
        except: Option<usize>,
    ) -> Answer {
        if let Some(answer) = refuse(packet) {
            return answer;
        }
        let layout = self.directory.layout();
        let mut answer = Answer::Queued;
        for shard in (0..self.mailboxes.len()).filter(|shard| Some(*shard) != except) {
            let theirs: Arc<[SessionId]> = ids
                .iter()
                .copied()
                .filter(|id| layout.locate(*id).is_some_and(|(at, _)| at == shard))
                .collect();
            if !theirs.is_empty() {
                match self.push(shard, Letter::SendMany { ids: theirs, packet: packet.clone(), key }) {
                    Answer::Queued => {}
                    worse => answer = worse,
                }
            }
        }
        answer
    }

    /// True for exactly one caller: from then on every send to `id` answers `Gone`, and its shard ends it.
    pub(crate) fn disconnect(&self, id: SessionId, reason: LeaveReason) -> bool {
        if !self.directory.leave(id) {
            return false;
        }
        let (shard, _) = self.directory.layout().locate(id).expect("an id that was live has a shard");
        if !planted(Planted::DisconnectLost) {
            self.mailboxes[shard].control(Word::Disconnect { id, reason });
        }
        true
    }

    /// How overloaded the busiest shard is: 0 to 3.
    pub(crate) fn overload(&self) -> u64 {
        figures::overload(&self.figures)
    }

    pub(crate) fn figures(&self) -> Figures {
        figures::sum(&self.figures, self.depot.figures())
    }
}

/// The answer to a packet that cannot be sent to anybody.
#[inline]
pub(crate) fn refuse(packet: &Packet) -> Option<Answer> {
    if packet.is_whole() && !packet.is_empty() { None } else { Some(refusal(packet)) }
}

#[cold]
fn refusal(packet: &Packet) -> Answer {
    if packet.is_exhausted() {
        Answer::PoolExhausted
    } else if packet.is_too_long() {
        Answer::TooLong
    } else {
        Answer::Empty
    }
}
