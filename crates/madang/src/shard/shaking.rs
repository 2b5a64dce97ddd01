//! The server's Diffie-Hellmans: where they are worked out, and what comes of them.
//!
//! ```text
//!   preamble ─► gate (one hash) ─► line ─┬─ its turn comes, on the shard ───────┬─► answer ─► the log-in is awaited
//!                                        └─ handshake thread ─ control lane ────┘
//! ```
//!
//! Those of one handshake take as long as some hundred messages. With `handshake_threads` they are worked out beside the
//! shards, and a message never waits for one. Without, they are steps of the shard's own (`line.rs`). Either way a storm of
//! log-ins makes log-ins wait.

use std::sync::Arc;

use madang_driver::Driver;
use madang_packet::PacketMut;
use madang_wire::FrameError;
use madang_wire::lan::RefusalReason;
use madang_wire::wan::{
    ANSWER_MAX, Accept, ExpectVerdict, Gate, HandshakeError, Hello, Preamble, Secured, ServerKeys,
};

use super::Shard;
use super::embryos::{Embryo, Stage};
use crate::Refusal;
use crate::error::ErrorKind;
use crate::figures::Count;
use crate::letters::{EmbryoKey, Word};
use crate::offload::{Job, Jobs};
use crate::planted::{Planted, planted};
use crate::speech::Speech;

/// Who knocked with the right tag, and all that his handshake takes: nothing of a shard is in it.
pub(super) struct Knock {
    keys: Arc<ServerKeys>,
    preamble: PacketMut,
    /// What he said of himself, and whether that suits us; without a reason he does not speak our protocol.
    suits: Result<Hello, Option<Refusal>>,
    accept: Accept,
    entropy: [u8; 32],
}

/// Whose preamble was read, and who is owed an answer.
pub(super) struct Begun {
    verdict: ExpectVerdict,
    suits: Result<Hello, Option<Refusal>>,
    accept: Accept,
}

/// What came of a handshake, and the bytes that say so.
pub(crate) enum Shaken {
    Accepted { hello: Hello, secured: Secured, answer: Vec<u8> },
    Refused { refusal: Refusal, answer: Vec<u8> },
    Malformed(FrameError),
    Failed(HandshakeError),
}

impl<D: Driver> Shard<D> {
    /// Its handshake waits, or is under way. Who was here under that name may be gone.
    pub(super) fn awaits_answer(&mut self, key: EmbryoKey) -> bool {
        self.embryos.by_key(key).is_some_and(|embryo| embryo.stage == Stage::ExpectTurn)
    }

    /// Has a handshake worked out by another thread.
    pub(super) fn give_away(&mut self, threads: &dyn Jobs, key: EmbryoKey, knock: Knock) {
        self.line.out += 1;
        let job = Job::new(
            self.core.shard,
            move |_| Box::new(knock.work_out()),
            move |shaken| Word::Shaken { embryo: key, shaken },
        );
        let submitted = threads.submit(job);
        assert!(submitted.is_ok(), "the queue has room for what all shards may have out");
    }

    /// What the handshake of one who knocked takes; nothing if he does not speak our protocol.
    pub(super) fn knock(&mut self, key: EmbryoKey) -> Option<Knock> {
        let preamble = self.embryos.by_key(key)?.inbox.take()?;
        let knock = self.knock_with(key, preamble);
        match knock {
            Some(_) => self.core.counters.add(Count::Handshakes, 1),
            // He has more to say before he was answered.
            None => self.embryo_malformed(key.index, FrameError::NotOneFrame),
        }
        knock
    }

    /// `None` if there is more than the preamble.
    fn knock_with(&mut self, key: EmbryoKey, preamble: PacketMut) -> Option<Knock> {
        let keys = self.server_keys();
        let said = {
            let passed = passed(&keys, &preamble)?;
            passed.hello().map_err(|error| error.refusal().map(Refusal::from))
        };
        let suits = match said {
            Ok(hello) => self.check_hello(&hello, key.index).map(|()| hello).map_err(Some),
            Err(reason) => Err(reason),
        };
        let mut entropy = [0; 32];
        self.driver.random(&mut entropy);
        if planted(Planted::EntropyRestarts) {
            entropy = [self.core.counters.get(Count::Handshakes) as u8; 32];
        }
        let settings = &self.core.fabric.settings;
        let accept = Accept {
            app_version: settings.app_version,
            frame_limit: self.frame_limit,
            schema_hash: settings.schema_hash,
        };
        Some(Knock { keys, preamble, suits, accept, entropy })
    }

    /// Whether a client's hello suits us, and content wants it.
    fn check_hello(&mut self, hello: &Hello, index: u32) -> Result<(), Refusal> {
        let Some(Embryo { origin, refusal, .. }) = self.embryos.get(index) else { return Ok(()) };
        if !self.core.fabric.settings.suites.iter().any(|suite| suite.wire() == hello.suite) {
            return Err(RefusalReason::Suite.into());
        }
        self.core.check_versions(hello.app_version, hello.schema_hash, *origin)?;
        refusal.take().map_or(Ok(()), |refusal| Err(*refusal))
    }

    /// A thread has worked a handshake out, or fell over it.
    pub(super) fn shaken_elsewhere(&mut self, key: EmbryoKey, shaken: Result<Box<Shaken>, String>) {
        self.line.out -= 1;
        match shaken {
            Ok(shaken) => self.worked_out(key, *shaken),
            Err(words) if self.awaits_answer(key) => {
                let remote = self.embryos.by_key(key).map(|embryo| embryo.peer.remote);
                self.core.error_of(ErrorKind::Panic(words), None, remote);
                self.embryo_abort(key.index);
            }
            Err(_) => {}
        }
    }

    /// A handshake is worked out. Its embryo may be gone, and another one in its place.
    pub(super) fn worked_out(&mut self, key: EmbryoKey, shaken: Shaken) {
        if !self.awaits_answer(key) {
            return;
        }
        if self.embryos.by_key(key).is_some_and(|embryo| embryo.inbox.is_some()) {
            // He said more before he was answered.
            return self.embryo_malformed(key.index, FrameError::NotOneFrame);
        }
        self.shaken(key, shaken);
    }

    fn shaken(&mut self, key: EmbryoKey, shaken: Shaken) {
        let Some(embryo) = self.embryos.by_key(key) else { return };
        let answer = match shaken {
            Shaken::Accepted { hello, secured, answer } => {
                embryo.stage = Stage::ExpectLogIn;
                embryo.speech = Speech::Secured(Box::new(secured));
                embryo.send_limit = hello.frame_limit.get().min(self.frame_limit.get());
                embryo.peer.node = Some(self.versions.node_of(hello.app_version));
                answer
            }
            Shaken::Refused { refusal, answer } => {
                embryo.stage = Stage::Refusing;
                let remote = embryo.peer.remote;
                self.core.error_of(ErrorKind::Refused(refusal), None, Some(remote));
                answer
            }
            Shaken::Malformed(error) => return self.embryo_malformed(key.index, error),
            Shaken::Failed(error) => return self.handshake_failed(key.index, error),
        };
        self.embryo_send_bytes(key.index, &answer);
    }
}

impl Knock {
    /// Both steps. Who does not suit us has to prove that he means us, too, before he is told in words that he can trust.
    fn work_out(self) -> Shaken {
        self.read().map_or_else(|shaken| *shaken, Begun::answer)
    }

    /// The first Diffie-Hellman: whether he means us.
    pub(super) fn read(self) -> Result<Begun, Box<Shaken>> {
        let Knock { keys, preamble, suits, accept, entropy } = self;
        let preamble = passed(&keys, &preamble).ok_or(Shaken::Malformed(FrameError::NotOneFrame))?;
        let verdict = preamble.read(accept.frame_limit, entropy).map_err(Shaken::Failed)?;
        Ok(Begun { verdict, suits, accept })
    }
}

impl Begun {
    /// A key of our own and the second Diffie-Hellman.
    pub(super) fn answer(self) -> Shaken {
        let mut room = [0; ANSWER_MAX];
        let shaken = match self.suits {
            Ok(hello) => self
                .verdict
                .accept(&self.accept, &mut room)
                .map(|(len, secured)| Shaken::Accepted { hello, secured, answer: room[..len].to_vec() }),
            Err(Some(refusal)) => self
                .verdict
                .refuse(&refusal.wire(), &mut room)
                .map(|len| Shaken::Refused { refusal, answer: room[..len].to_vec() }),
            Err(None) => Ok(Shaken::Malformed(FrameError::Magic)),
        };
        shaken.unwrap_or_else(Shaken::Failed)
    }
}

/// The preamble, if `bytes` are one that the gate let through, and nothing else.
fn passed<'a>(keys: &'a ServerKeys, bytes: &'a [u8]) -> Option<Preamble<'a>> {
    match keys.gate(bytes) {
        Ok(Gate::Passed(preamble)) if preamble.used() == bytes.len() => Some(preamble),
        _ => None,
    }
}
