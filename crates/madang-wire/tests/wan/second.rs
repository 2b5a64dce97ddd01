//! A second writing of the WAN's bytes, from docs/wire.md alone, on other cryptography than the first: a codec and its
//! mirror image could be wrong together. It also plays the clever peer, who can make what no honest one would.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::ChaCha20Poly1305;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

pub(crate) const AES_GCM: u8 = 1;
pub(crate) const CHACHA_POLY: u8 = 2;

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

pub(crate) fn public(secret: [u8; 32]) -> [u8; 32] {
    x25519(secret, X25519_BASEPOINT_BYTES)
}

/// One key, and the counter of what was encrypted under it.
#[derive(Clone)]
pub(crate) struct Cipher {
    pub(crate) suite: u8,
    pub(crate) key: [u8; 32],
    pub(crate) counter: u64,
}

impl Cipher {
    fn nonce(&self, counter: u64) -> [u8; 12] {
        let counter = if self.suite == AES_GCM { counter.to_be_bytes() } else { counter.to_le_bytes() };
        [&[0; 4][..], &counter].concat().try_into().unwrap()
    }

    fn encrypt_at(&self, counter: u64, aad: &[u8], msg: &[u8]) -> Vec<u8> {
        let (nonce, payload) = (self.nonce(counter).into(), Payload { msg, aad });
        match self.suite {
            AES_GCM => Aes256Gcm::new(&self.key.into()).encrypt(&nonce, payload).unwrap(),
            _ => ChaCha20Poly1305::new(&self.key.into()).encrypt(&nonce, payload).unwrap(),
        }
    }

    fn encrypt(&mut self, aad: &[u8], msg: &[u8]) -> Vec<u8> {
        let sealed = self.encrypt_at(self.counter, aad, msg);
        self.counter += 1;
        sealed
    }

    fn decrypt_at(&self, counter: u64, aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
        let (nonce, payload) = (self.nonce(counter).into(), Payload { msg, aad });
        match self.suite {
            AES_GCM => Aes256Gcm::new(&self.key.into()).decrypt(&nonce, payload).ok(),
            _ => ChaCha20Poly1305::new(&self.key.into()).decrypt(&nonce, payload).ok(),
        }
    }

    fn decrypt(&mut self, aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
        let plain = self.decrypt_at(self.counter, aad, msg)?;
        self.counter += 1;
        Some(plain)
    }

    fn rekey_if_due(&mut self) {
        if self.counter % 65_536 == 0 {
            self.rekey();
        }
    }

    /// Moves on behind a record that is not looked at.
    pub(crate) fn skip(&mut self) {
        self.counter += 1;
        self.rekey_if_due();
    }

    fn rekey(&mut self) {
        self.key = self.encrypt_at(u64::MAX, &[], &[0; 32])[..32].try_into().unwrap();
    }

    /// A record around any bytes, right or wrong.
    pub(crate) fn seal(&mut self, frames: &[u8]) -> Vec<u8> {
        let head = u16::try_from(frames.len() + 16).unwrap().to_le_bytes();
        let sealed = self.encrypt(&[], frames);
        self.rekey_if_due();
        [&head[..], &sealed].concat()
    }

    /// A bare record around any bytes, right or wrong.
    pub(crate) fn seal_bare(&mut self, message: &[u8]) -> Vec<u8> {
        let head = (u16::try_from(message.len() + 16).unwrap() + 0x8000).to_le_bytes();
        let sealed = self.encrypt_at(self.counter + (1 << 63), &[], message);
        self.skip();
        [&head[..], &sealed].concat()
    }

    /// The frames of one whole record, or the message of a bare one.
    pub(crate) fn open(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = record.split_at(2);
        let head = u16::from_le_bytes(head.try_into().unwrap());
        let (bare, len) = (head / 0x8000, head % 0x8000);
        assert_eq!(usize::from(len), sealed.len());
        let text = self.decrypt_at(self.counter + (u64::from(bare) << 63), &[], sealed)?;
        self.skip();
        Some(text)
    }
}

/// Noise's symmetric state.
pub(crate) struct Symmetric {
    suite: u8,
    hash: [u8; 32],
    chain: [u8; 32],
    cipher: Option<Cipher>,
}

impl Symmetric {
    fn new(name: &str, suite: u8, prologue: &[u8]) -> Self {
        let hash = match name.len() {
            0..=32 => [name.as_bytes(), &[0; 32][name.len()..]].concat().try_into().unwrap(),
            _ => sha256(&[name.as_bytes()]),
        };
        let mut state = Self { suite, hash, chain: hash, cipher: None };
        state.mix_hash(prologue);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    fn hkdf<const N: usize>(&self, input: &[u8]) -> [[u8; 32]; N] {
        let key = hmac_sha256(&self.chain, &[input]);
        let mut outputs = [[0; 32]; N];
        for at in 0..N {
            let before: &[u8] = if at == 0 { &[] } else { &outputs[at - 1].clone() };
            outputs[at] = hmac_sha256(&key, &[before, &[at as u8 + 1]]);
        }
        outputs
    }

    fn mix_key(&mut self, input: &[u8]) {
        let [chain, key] = self.hkdf(input);
        (self.chain, self.cipher) = (chain, Some(Cipher { suite: self.suite, key, counter: 0 }));
    }

    fn mix_key_and_hash(&mut self, input: &[u8]) {
        let [chain, hash, key] = self.hkdf(input);
        self.chain = chain;
        self.mix_hash(&hash);
        self.cipher = Some(Cipher { suite: self.suite, key, counter: 0 });
    }

    fn encrypt(&mut self, plain: &[u8]) -> Vec<u8> {
        let hash = self.hash;
        let sealed = self.cipher.as_mut().unwrap().encrypt(&hash, plain);
        self.mix_hash(&sealed);
        sealed
    }

    fn decrypt(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let hash = self.hash;
        let plain = self.cipher.as_mut().unwrap().decrypt(&hash, sealed)?;
        self.mix_hash(sealed);
        Some(plain)
    }

    /// Initiator's and responder's cipher.
    fn split(&self) -> (Cipher, Cipher) {
        let [initiator, responder] = self.hkdf(&[]);
        let cipher = |key| Cipher { suite: self.suite, key, counter: 0 };
        (cipher(initiator), cipher(responder))
    }
}

/// What a finished handshake gives: the same fields as the first writing's.
pub(crate) struct Secured {
    pub(crate) hash: [u8; 32],
    pub(crate) ours: Cipher,
    pub(crate) theirs: Cipher,
}

impl Secured {
    fn of(state: &Symmetric, we_began: bool) -> Self {
        let (initiator, responder) = state.split();
        let (ours, theirs) = if we_began { (initiator, responder) } else { (responder, initiator) };
        Self { hash: state.hash, ours, theirs }
    }
}

/// The fields of a preamble before message 1, any values.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) protocol: u16,
    pub(crate) suite: u8,
    pub(crate) flags: u8,
    pub(crate) app_version: u32,
    pub(crate) frame_limit: u32,
    pub(crate) schema_hash: u64,
    /// Behind the fields of version 1: a later version's.
    pub(crate) more: Vec<u8>,
}

impl Hello {
    pub(crate) fn of(suite: u8) -> Self {
        Self {
            protocol: 1,
            suite,
            flags: 0,
            app_version: 7,
            frame_limit: 16_384,
            schema_hash: 0xABCD,
            more: Vec::new(),
        }
    }

    pub(crate) fn prologue(&self, server: [u8; 32]) -> Vec<u8> {
        let mut bytes = b"MDWN".to_vec();
        bytes.extend(u16::try_from(94 + self.more.len()).unwrap().to_le_bytes());
        bytes.extend(&sha256(&[&server])[..4]);
        bytes.extend(self.protocol.to_le_bytes());
        bytes.extend([self.suite, self.flags]);
        bytes.extend(self.app_version.to_le_bytes());
        bytes.extend(self.frame_limit.to_le_bytes());
        bytes.extend(self.schema_hash.to_le_bytes());
        bytes.extend(&self.more);
        bytes
    }
}

/// The tag that lets bytes through the gate.
pub(crate) fn gate_tag(server: [u8; 32], tagged: &[u8]) -> [u8; 16] {
    hmac_sha256(&sha256(&[b"madang gate 1", &server]), &[tagged])[..16].try_into().unwrap()
}

fn nk_name(suite: u8) -> &'static str {
    if suite == CHACHA_POLY { "Noise_NK_25519_ChaChaPoly_SHA256" } else { "Noise_NK_25519_AESGCM_SHA256" }
}

pub(crate) struct Client {
    state: Symmetric,
    ephemeral: [u8; 32],
}

impl Client {
    pub(crate) fn begin(hello: &Hello, server: [u8; 32], ephemeral: [u8; 32]) -> (Vec<u8>, Self) {
        Self::begin_with_key(hello, server, ephemeral, public(ephemeral))
    }

    /// A preamble whose ephemeral public key need not be the key it should be; the tag in message 1 is right for what the
    /// server will compute, as far as that can be known.
    pub(crate) fn begin_with_key(
        hello: &Hello,
        server: [u8; 32],
        ephemeral: [u8; 32],
        public_key: [u8; 32],
    ) -> (Vec<u8>, Self) {
        let prologue = hello.prologue(server);
        let mut state = Symmetric::new(nk_name(hello.suite), hello.suite, &prologue);
        state.mix_hash(&server);
        state.mix_hash(&public_key);
        // With a worthless key the server's result is zeros, which the sender knows too.
        let honest = public_key == public(ephemeral);
        state.mix_key(&if honest { x25519(ephemeral, server) } else { [0; 32] });
        let tag = state.encrypt(&[]);
        let mut bytes = [&prologue[..], &public_key, &tag].concat();
        bytes.extend(gate_tag(server, &bytes));
        (bytes, Self { state, ephemeral })
    }

    /// The payload of an answer, and what follows from it.
    pub(crate) fn read(mut self, answer: &[u8]) -> Option<(Vec<u8>, Secured)> {
        let (head, message) = answer.split_at(2);
        assert_eq!(usize::from(u16::from_le_bytes(head.try_into().unwrap())), message.len());
        let (theirs, sealed) = message.split_at(32);
        self.state.mix_hash(theirs);
        self.state.mix_key(&x25519(self.ephemeral, theirs.try_into().unwrap()));
        let payload = self.state.decrypt(sealed)?;
        Some((payload, Secured::of(&self.state, true)))
    }
}

pub(crate) struct Server {
    state: Symmetric,
    theirs: [u8; 32],
}

impl Server {
    /// Reads a preamble of 94 bytes.
    pub(crate) fn read(preamble: &[u8], secret: [u8; 32]) -> Option<Self> {
        let server = public(secret);
        let (tagged, tag) = preamble.split_at(preamble.len() - 16);
        assert_eq!(gate_tag(server, tagged), tag);
        let (prologue, message) = tagged.split_at(tagged.len() - 48);
        let suite = prologue[12];
        let mut state = Symmetric::new(nk_name(suite), suite, prologue);
        let theirs: [u8; 32] = message[..32].try_into().unwrap();
        state.mix_hash(&server);
        state.mix_hash(&theirs);
        state.mix_key(&x25519(secret, theirs));
        assert_eq!(state.decrypt(&message[32..])?, []);
        Some(Self { state, theirs })
    }

    /// An answer around any payload, and what follows from it.
    pub(crate) fn answer(self, payload: &[u8], ephemeral: [u8; 32]) -> (Vec<u8>, Secured) {
        let key = public(ephemeral);
        self.answer_with_key(payload, ephemeral, key)
    }

    /// The same under an ephemeral public key that need not be the key it should be.
    pub(crate) fn answer_with_key(
        mut self,
        payload: &[u8],
        ephemeral: [u8; 32],
        public_key: [u8; 32],
    ) -> (Vec<u8>, Secured) {
        self.state.mix_hash(&public_key);
        let honest = public_key == public(ephemeral);
        self.state.mix_key(&if honest { x25519(ephemeral, self.theirs) } else { [0; 32] });
        let sealed = self.state.encrypt(payload);
        let head = u16::try_from(32 + sealed.len()).unwrap().to_le_bytes();
        ([&head[..], &public_key, &sealed].concat(), Secured::of(&self.state, false))
    }
}

/// The key that a secret of the settings stands for, by HKDF's own definition.
pub(crate) fn link_key(secret: &str) -> [u8; 32] {
    let extracted = hmac_sha256(b"madang lan 1", &[secret.as_bytes()]);
    hmac_sha256(&extracted, &[&[1]])
}

/// Either side of a sealed link: its prologue and the state behind message 1.
fn link_state(key: [u8; 32], prologue: &[u8], initiator: [u8; 32]) -> Symmetric {
    let mut state = Symmetric::new("Noise_NNpsk0_25519_AESGCM_SHA256", AES_GCM, prologue);
    state.mix_key_and_hash(&key);
    state.mix_hash(&initiator);
    state.mix_key(&initiator);
    state
}

/// Header of a greeting of 56 bytes, magic, protocol 1, the flag that asks for a seal.
pub(crate) const LINK_PROLOGUE: [u8; 12] = [56, 0, 0, 1, b'M', b'D', b'N', b'G', 1, 0, 1, 0];

pub(crate) struct LinkClient {
    state: Symmetric,
    ephemeral: [u8; 32],
}

impl LinkClient {
    pub(crate) fn begin(secret: &str, ephemeral: [u8; 32], public_key: [u8; 32]) -> (Vec<u8>, Self) {
        let mut state = link_state(link_key(secret), &LINK_PROLOGUE, public_key);
        let tag = state.encrypt(&[]);
        ([&LINK_PROLOGUE[..], &public_key, &tag].concat(), Self { state, ephemeral })
    }

    pub(crate) fn read(mut self, frame: &[u8]) -> Option<Secured> {
        assert_eq!(frame[..12], LINK_PROLOGUE);
        let (theirs, sealed) = frame[12..].split_at(32);
        self.state.mix_hash(theirs);
        self.state.mix_key(theirs);
        self.state.mix_key(&x25519(self.ephemeral, theirs.try_into().unwrap()));
        assert_eq!(self.state.decrypt(sealed)?, []);
        Some(Secured::of(&self.state, true))
    }
}

/// The listening side: answers a whole first frame.
pub(crate) fn link_answer(secret: &str, frame: &[u8], ephemeral: [u8; 32]) -> Option<(Vec<u8>, Secured)> {
    let theirs: [u8; 32] = frame[12..44].try_into().unwrap();
    let mut state = link_state(link_key(secret), &frame[..12], theirs);
    assert_eq!(state.decrypt(&frame[44..])?, []);
    let ours = public(ephemeral);
    state.mix_hash(&ours);
    state.mix_key(&ours);
    state.mix_key(&x25519(ephemeral, theirs));
    let sealed = state.encrypt(&[]);
    Some(([&LINK_PROLOGUE[..], &ours, &sealed].concat(), Secured::of(&state, false)))
}
