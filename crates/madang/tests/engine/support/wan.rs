//! Encrypted servers, and peers for them: blocking sockets with the wire crate's client half, whose bytes a test may spoil.

use std::net::SocketAddr;

use madang::keys::{self, PublicKey, ServerKeys};
use madang::wire::wan::{
    ANSWER_MAX, Answer, ExpectAnswer, Hello, LogIn, Opening, PREAMBLE, RECORD_BARE, RECORD_HEAD, RECORD_TAIL,
    Sealing, Secured, Step,
};
use madang::wire::{Find, Kind, lan};
use madang::{DriverChoice, ServerBuilder, WanServer};

use super::Raw;

/// A server with a key that nobody keeps, and what its clients pin.
pub(crate) fn wan(driver: DriverChoice) -> (ServerBuilder, PublicKey) {
    let keys = keys::throwaway();
    let public = keys.public().next().expect("there is a key");
    (wan_with(driver, keys), public)
}

pub(crate) fn wan_with(driver: DriverChoice, keys: ServerKeys) -> ServerBuilder {
    WanServer::bind("127.0.0.1:0").keys(keys).set(|settings| {
        settings.driver = driver;
        settings.recv_messages_per_s = 0;
        settings.recv_bytes_per_s = 0;
        settings.recv_decoded_bytes_per_s = 0;
    })
}

/// A client's first bytes, and what reads the answer.
pub(crate) fn preamble(key: &PublicKey, hello: &Hello) -> (Vec<u8>, ExpectAnswer) {
    let mut bytes = vec![0; PREAMBLE];
    let entropy = *keys::generate().expose();
    let (len, expect) = ExpectAnswer::begin(key, hello, entropy, &mut bytes).expect("there is room");
    bytes.truncate(len);
    (bytes, expect)
}

/// A peer behind its handshake.
pub(crate) struct Sealed {
    pub(crate) raw: Raw,
    pub(crate) sealing: Sealing,
    opening: Opening,
    pub(crate) inbox: Vec<u8>,
}

impl Sealed {
    /// Connects and shakes hands.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, key: &PublicKey) -> Sealed {
        let mut raw = Raw::connect(address);
        let (bytes, expect) = preamble(key, &Hello { app_version: 1, ..Hello::default() });
        raw.write(&bytes);
        let mut answer = raw.read(2);
        let Ok(Find::Need { total }) = expect.find(&answer) else { panic!("an answer has a length") };
        answer.extend(raw.read(total - 2));
        let mut room = [0; ANSWER_MAX];
        match expect.read(&answer, &mut room).expect("the server has the key") {
            Answer::Accepted(_, Secured { sealing, opening, .. }) => {
                Sealed { raw, sealing, opening, inbox: Vec::new() }
            }
            Answer::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    /// Connects, shakes hands, logs in without a token, and waits for the welcome.
    #[track_caller]
    pub(crate) fn join(address: SocketAddr, key: &PublicKey) -> Sealed {
        let mut peer = Sealed::connect(address, key);
        let log_in = peer.record(&log_in(b""));
        peer.raw.write(&log_in);
        assert_eq!(peer.next().0, Kind::Welcome);
        peer
    }

    /// A record around frames.
    pub(crate) fn record(&mut self, frames: &[u8]) -> Vec<u8> {
        let mut record = [&[0; RECORD_HEAD][..], frames, &[0; RECORD_TAIL]].concat();
        self.sealing.seal(&mut record).expect("the frames fit a record");
        record
    }

    /// A bare record: one message without its header.
    pub(crate) fn bare(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut record = [&[0; RECORD_HEAD][..], payload, &[0; RECORD_TAIL]].concat();
        self.sealing.seal_message(&mut record).expect("the message fits a record");
        record
    }

    /// A record with one message.
    pub(crate) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        self.record(&frame(Kind::Message, payload))
    }

    /// The first two bytes of the next record: its length, and whether it is bare.
    pub(crate) fn head(&mut self) -> (usize, bool) {
        assert!(self.inbox.is_empty(), "a record begins");
        self.inbox.extend(self.raw.read(RECORD_HEAD));
        let head = u16::from_le_bytes([self.inbox[0], self.inbox[1]]);
        (usize::from(head & !RECORD_BARE), head & RECORD_BARE != 0)
    }

    /// The next frame.
    #[track_caller]
    pub(crate) fn next(&mut self) -> (Kind, Vec<u8>) {
        loop {
            match self.step() {
                Ok(frame) => return frame,
                Err(total) => self.inbox.extend(self.raw.read(total - self.inbox.len())),
            }
        }
    }

    /// The next frame of what has been read, if it is there whole.
    #[track_caller]
    pub(crate) fn here(&mut self) -> Option<(Kind, Vec<u8>)> {
        self.step().ok()
    }

    /// The next frame, or how many bytes must be there for it.
    #[track_caller]
    fn step(&mut self) -> Result<(Kind, Vec<u8>), usize> {
        match self.opening.next(&mut self.inbox).expect("the server seals well") {
            Step::Need { total } => Err(total),
            Step::Frame { kind, payload, used } => {
                let payload = self.inbox[payload].to_vec();
                self.inbox.drain(..used);
                Ok((kind, payload))
            }
            Step::Part { .. } => panic!("no message here is long"),
        }
    }

    #[track_caller]
    pub(crate) fn expect_message(&mut self) -> Vec<u8> {
        let (kind, payload) = self.next();
        assert_eq!(kind, Kind::Message);
        payload
    }
}

pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&lan::header(kind, payload.len() as u32)[..], payload].concat()
}

pub(crate) fn log_in(token: &[u8]) -> Vec<u8> {
    log_in_with(token, &[])
}

pub(crate) fn log_in_with(token: &[u8], ticket: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; LogIn::FRAME_MAX];
    let len = LogIn { token, ticket, ..LogIn::default() }.to_frame(&mut frame).expect("both are short");
    frame.truncate(len);
    frame
}
