//! Handshakes: from a stranger's first bytes to a connection that speaks in records, and to who the player is.
//!
//! ```text
//!   server:  preamble ─► gate (one hash) ─► its turn ─► answer ─► log-in ─► check ─► asks for a place
//!   client:  preamble ─────────────────────────► answer ─► log-in ─► waits for the welcome
//!   sealed LAN link:  greeting that wants it ─► answer ─► the greetings, in records
//! ```
//!
//! What the Diffie-Hellmans of the server's side cost, and where they are worked out, is told in `shaking.rs`. Whoever fails
//! before the server has proved itself gets no byte, only a reset.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use madang_driver::Driver;
use madang_packet::PacketMut;
use madang_wire::Find;
use madang_wire::lan::RefusalReason;
use madang_wire::wan::{
    self, ANSWER_MAX, Answer, ExpectAnswer, ExpectSeal, Gate, GateError, HandshakeError, HandshakeHash,
    Hello, LinkAnswer, PREAMBLE, SEAL_FRAME, ServerKeys,
};

use super::Shard;
use super::embryos::{Embryo, Origin, Stage};
use crate::error::{ErrorKind, LinkDown};
use crate::figures::Count;
use crate::framing::Protocol;
use crate::letters::{EmbryoKey, Report, TicketBytes, Word};
use crate::offload::{Job, panic_text};
use crate::speech::Speech;
use crate::wan::{Check, LogIn, Verdict, Wan};
use crate::{Link, Node, Refusal};

/// What a client has of a handshake under way.
pub(super) enum Handshake {
    /// A client of a WAN: the answer is to come.
    Answer(ExpectAnswer),
    /// A client of a sealed link: the answer is to come.
    Seal(ExpectSeal),
}

impl<D: Driver> Shard<D> {
    /// Takes the other side's part of a handshake from the front of `bytes`. How many bytes that was; `None` while it is not
    /// all there, or has to wait for its turn, or the embryo is gone.
    pub(super) fn embryo_handshake(&mut self, index: u32, bytes: &[u8]) -> Option<usize> {
        let embryo = self.embryos.get(index)?;
        match embryo.stage {
            Stage::ExpectPreamble => self.knocked(index, bytes),
            _ => self.answered(index, bytes),
        }
    }

    /// Server: a stranger's first bytes.
    fn knocked(&mut self, index: u32, bytes: &[u8]) -> Option<usize> {
        let keys = self.server_keys();
        match keys.gate(bytes) {
            Ok(Gate::Need { .. }) => None,
            Err(error) => {
                self.stranger(index, error);
                None
            }
            Ok(Gate::Passed(_)) => {
                let embryo = self.embryos.get(index)?;
                embryo.stage = Stage::ExpectTurn;
                let key = EmbryoKey { index, serial: embryo.serial };
                self.line.knocked(key);
                None
            }
        }
    }

    /// Server: a client begins to say who its player is.
    pub(super) fn wants_to_log_in(&mut self, index: u32) {
        let Some(embryo) = self.embryos.get(index) else { return };
        embryo.stage = Stage::ExpectLogInTurn;
        let key = EmbryoKey { index, serial: embryo.serial };
        self.line.wants_to_log_in(key);
    }

    /// Server: a client says who its player is.
    pub(super) fn log_in(&mut self, index: u32, payload: &[u8]) {
        let log_in = match wan::LogIn::from_payload(payload) {
            Ok(log_in) => log_in,
            Err(error) => return self.handshake_failed(index, HandshakeError::Content(error)),
        };
        let fabric = Arc::clone(&self.core.fabric);
        let Some(embryo) = self.embryos.get(index) else { return };
        let Speech::Secured(secured) = &embryo.speech else { return };
        let hash = secured.hash;
        embryo.ticket = TicketBytes::read(log_in.ticket);
        let key = EmbryoKey { index, serial: embryo.serial };
        let verdict = match &of(&fabric.protocol).check {
            Check::Nothing => None,
            Check::Here(check) => {
                let log_in =
                    LogIn { token: log_in.token, proof: log_in.proof, hash: &hash, peer: &embryo.peer };
                // Unwind safety: the check is content's, and content's to keep whole.
                let checked = catch_unwind(AssertUnwindSafe(|| check(&log_in)));
                Some(checked.map_err(|panic| panic_text(&*panic)))
            }
            Check::Offloaded(check) => {
                embryo.stage = Stage::ExpectVerdict;
                let (check, peer) = (Arc::clone(check), embryo.peer.clone());
                let (token, proof) = (log_in.token.to_vec(), log_in.proof.to_vec());
                let job = Job::new(
                    self.core.shard,
                    move |state| {
                        check(state, &LogIn { token: &token, proof: &proof, hash: &hash, peer: &peer })
                    },
                    move |verdict| Word::LogIn { embryo: key, verdict },
                );
                if fabric.jobs.submit(job).is_err() {
                    self.core.counters.add(Count::Full, 1);
                    self.refuse(index, RefusalReason::Busy);
                }
                return;
            }
        };
        embryo.stage = Stage::ExpectVerdict;
        match verdict {
            Some(verdict) => self.log_in_checked(key, verdict),
            None => self.prove(key),
        }
    }

    /// Server: what the check of a log-in says, or the words of its panic.
    pub(super) fn log_in_checked(&mut self, key: EmbryoKey, verdict: Result<Verdict, String>) {
        let waiting = |embryo: &&mut Embryo| embryo.stage == Stage::ExpectVerdict;
        let Some(embryo) = self.embryos.by_key(key).filter(waiting) else { return };
        match verdict {
            Ok(Verdict::Admit(account)) => {
                embryo.peer.account = Some(Arc::new(account));
                self.prove(key);
            }
            Ok(Verdict::Refuse(refusal)) => self.refuse(key.index, refusal),
            Err(words) => {
                let remote = embryo.peer.remote;
                self.core.error_of(ErrorKind::Panic(words), None, Some(remote));
                self.refuse(key.index, RefusalReason::Busy);
            }
        }
    }

    /// Server: a client is who it says, and wants a place.
    fn prove(&mut self, key: EmbryoKey) {
        let Some(embryo) = self.embryos.by_key(key) else { return };
        let Origin::Gate { guest, .. } = embryo.origin else { return };
        embryo.stage = Stage::ExpectPlace;
        let node = embryo.peer.node.clone().unwrap_or_default();
        let priority = embryo.peer.account.as_ref().map_or(0, |account| account.class);
        let ticket = embryo.ticket.take().map(|ticket| embryo.shows(ticket));
        self.core.report(Report::Proven { guest, node, ticket, priority });
    }

    /// Client: the connection is there, the preamble goes out; on a sealed link, the wish.
    pub(super) fn begin_handshake(&mut self, index: u32) {
        let mut entropy = [0; 32];
        self.driver.random(&mut entropy);
        let fabric = Arc::clone(&self.core.fabric);
        let Some(embryo) = self.embryos.get(index) else { return };
        let mut room = [0; if SEAL_FRAME > PREAMBLE { SEAL_FRAME } else { PREAMBLE }];
        let begun = match (&fabric.protocol, &fabric.link_secret) {
            (Protocol::Wan(wan), _) => {
                let settings = &fabric.settings;
                let hello = Hello {
                    suite: settings.suites.first().copied().unwrap_or_default().wire(),
                    app_version: settings.app_version,
                    frame_limit: self.frame_limit,
                    schema_hash: settings.schema_hash,
                };
                let pin = embryo.link().map_or(0, |link| self.links.pin_of(link)) % wan.pins.len();
                ExpectAnswer::begin(&wan.pins[pin], &hello, entropy, &mut room)
                    .map(|(len, expect)| (len, Handshake::Answer(expect)))
            }
            (_, Some(secret)) => ExpectSeal::begin(secret, self.frame_limit, entropy, &mut room)
                .map(|(len, expect)| (len, Handshake::Seal(expect))),
            (_, None) => return self.greet(index),
        };
        match begun {
            Ok((len, handshake)) => {
                embryo.stage = Stage::ExpectAnswer;
                embryo.handshake = Some(Box::new(handshake));
                self.embryo_send_bytes(index, &room[..len]);
            }
            Err(error) => self.handshake_failed(index, error),
        }
    }

    /// Client: the server's part of the handshake comes.
    fn answered(&mut self, index: u32, bytes: &[u8]) -> Option<usize> {
        let embryo = self.embryos.get(index)?;
        let found = match embryo.handshake.as_deref()? {
            Handshake::Answer(expect) => expect.find(bytes),
            Handshake::Seal(expect) => expect.find(bytes),
        };
        let len = match found {
            Ok(Find::Frame { len }) => len,
            Ok(Find::Need { .. }) => return None,
            Err(error) => {
                let remote = embryo.peer.remote;
                self.core.error_of(ErrorKind::Malformed(error), None, Some(remote));
                self.embryo_down(index, LinkDown::Untrusted);
                return None;
            }
        };
        let mut room = [0; ANSWER_MAX];
        let outcome = match *embryo.handshake.take()? {
            Handshake::Answer(expect) => expect.read(&bytes[..len], &mut room).map(|answer| match answer {
                Answer::Accepted(accept, secured) => Ok((Some(accept), secured)),
                Answer::Refused(refusal) => Err(refusal.into()),
            }),
            Handshake::Seal(expect) => expect.read(&bytes[..len]).map(|answer| match answer {
                LinkAnswer::Sealed(secured) => Ok((None, secured)),
                LinkAnswer::Refused(refusal) => Err(Refusal::from(refusal)),
            }),
        };
        match outcome {
            Ok(Ok((accept, secured))) => {
                let hash = secured.hash;
                embryo.speech = Speech::Secured(Box::new(secured));
                match accept {
                    Some(accept) => {
                        embryo.stage = Stage::ExpectWelcome;
                        embryo.send_limit = accept.frame_limit.get().min(self.frame_limit.get());
                        embryo.peer.node = Some(self.versions.node_of(accept.app_version));
                        self.say_log_in(index, &hash);
                    }
                    None => self.greet(index),
                }
            }
            Ok(Err(refusal)) => self.embryo_down(index, LinkDown::Refused(refusal)),
            Err(error) => self.handshake_failed(index, error),
        }
        Some(len)
    }

    /// Client: who we are.
    fn say_log_in(&mut self, index: u32, hash: &HandshakeHash) {
        let fabric = Arc::clone(&self.core.fabric);
        let Some(link) = self.embryos.get(index).and_then(|embryo| embryo.link()) else { return };
        let make = of(&fabric.protocol).credentials.as_ref();
        // Unwind safety: as with any callback.
        let made =
            catch_unwind(AssertUnwindSafe(|| make.map(|make| make(Link(link), hash)).unwrap_or_default()));
        let credentials = match made {
            Ok(credentials) => credentials,
            Err(panic) => {
                self.core.error_of(ErrorKind::Panic(panic_text(&*panic)), None, None);
                return self.embryo_down(index, LinkDown::Local);
            }
        };
        let ticket = self.links.ticket(Some(link));
        let log_in = wan::LogIn { token: &credentials.token, proof: &credentials.proof, ticket };
        let mut frame = [0; wan::LogIn::FRAME_MAX];
        match log_in.to_frame(&mut frame) {
            Ok(len) => self.embryo_say(index, &frame[..len]),
            Err(error) => {
                self.core.error_of(ErrorKind::Credentials(error.to_string()), None, None);
                self.embryo_down(index, LinkDown::Local);
            }
        }
    }

    /// Whether a LAN client's greeting has to ask for a sealed link first.
    pub(super) fn has_to_seal(&mut self, index: u32) -> bool {
        let plain = |embryo: &mut Embryo| {
            embryo.stage == Stage::ExpectGreeting && matches!(embryo.speech, Speech::Plain(_))
        };
        self.core.fabric.link_secret.is_some() && self.embryos.get(index).is_some_and(plain)
    }

    /// Server of sealed links: a client's first frame.
    pub(super) fn seal_link(&mut self, index: u32, frame: &[u8]) {
        let fabric = Arc::clone(&self.core.fabric);
        let Some(secret) = &fabric.link_secret else { return };
        if !wan::wants_seal(frame.get(madang_wire::lan::HEADER..).unwrap_or_default()) {
            return self.refuse(index, RefusalReason::Sealing);
        }
        let mut entropy = [0; 32];
        self.driver.random(&mut entropy);
        self.core.counters.add(Count::Handshakes, 1);
        let mut room = [0; SEAL_FRAME];
        match wan::seal_link(secret, frame, self.frame_limit, entropy, &mut room) {
            Ok((len, secured)) => {
                let Some(embryo) = self.embryos.get(index) else { return };
                embryo.speech = Speech::Secured(Box::new(secured));
                self.embryo_send_bytes(index, &room[..len]);
            }
            // It happens to honest people: they are told.
            Err(HandshakeError::Forged) => self.refuse(index, RefusalReason::Sealing),
            Err(error) => self.handshake_failed(index, error),
        }
    }

    pub(super) fn embryo_send_bytes(&mut self, index: u32, bytes: &[u8]) {
        let Ok(mut packet): Result<PacketMut, _> = self.core.magazine.packet_past_budget(bytes.len()) else {
            return self.embryo_abort(index);
        };
        packet.bytes(bytes);
        self.embryo_send(index, packet);
    }

    /// Somebody knocked who does not speak our protocol or does not know our key: no byte for him.
    fn stranger(&mut self, index: u32, error: GateError) {
        let remote = self.embryos.get(index).map(|embryo| embryo.peer.remote);
        self.core.counters.add(Count::Strangers, 1);
        self.core.error_of(ErrorKind::Stranger(error), None, remote);
        self.embryo_abort(index);
    }

    pub(super) fn handshake_failed(&mut self, index: u32, error: HandshakeError) {
        let remote = self.embryos.get(index).map(|embryo| embryo.peer.remote);
        self.core.error_of(ErrorKind::Handshake(error), None, remote);
        self.embryo_down(index, LinkDown::Untrusted);
    }

    pub(super) fn server_keys(&self) -> Arc<ServerKeys> {
        let keys = of(&self.core.fabric.protocol).keys.as_ref();
        Arc::clone(keys.expect("an assembled server has its keys"))
    }
}

fn of(protocol: &Protocol) -> &Wan {
    match protocol {
        Protocol::Wan(wan) => wan,
        _ => unreachable!("only peers of a WAN are in its stages"),
    }
}

/// What is known of clients without a name: nodes that are an app version and nothing else, shared by all of the same one.
#[derive(Default)]
pub(super) struct Versions {
    last: Option<Arc<Node>>,
}

impl Versions {
    pub(super) fn node_of(&mut self, app_version: u32) -> Arc<Node> {
        match &self.last {
            Some(node) if node.app_version == app_version => Arc::clone(node),
            _ => {
                let node = Arc::new(Node { app_version, ..Node::default() });
                Arc::clone(self.last.insert(node))
            }
        }
    }
}
