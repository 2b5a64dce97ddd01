//! The wire of the WAN and of sealed links, judged from outside. Names of tests carry the ids of the fault catalogue.
#![cfg(feature = "wan")]

mod control;
mod gate;
mod golden;
mod handshake;
mod link;
mod records;
mod second;
mod split;
mod ticket;

use madang_wire::wan::{
    ANSWER_MAX, Accept, Answer, ExpectAnswer, Gate, Hello, LogIn, Opening, PREAMBLE, RECORD_HEAD,
    RECORD_TAIL, Sealing, SecretKey, Secured, ServerKeys, Step, Suite,
};
use madang_wire::{FrameError, FrameLimit, Kind, lan};

/// The server's secret key in all tests.
const SERVER: [u8; 32] = [0x51; 32];

/// A limit that lets messages be cut.
const LIMIT: u32 = 100_000;

fn keys() -> ServerKeys {
    ServerKeys::new([SecretKey::from_bytes(&mut SERVER.clone())]).unwrap()
}

fn limit() -> FrameLimit {
    FrameLimit::new(LIMIT).unwrap()
}

fn hello(suite: Suite) -> Hello {
    Hello { suite, app_version: 7, frame_limit: limit(), schema_hash: 0xABCD }
}

fn accept() -> Accept {
    Accept { app_version: 9, frame_limit: limit(), schema_hash: 0xABCD }
}

/// What [`accept`] is on the wire, without its header.
fn accept_payload() -> Vec<u8> {
    [&[1, 0, 0, 0, 9, 0, 0, 0][..], &LIMIT.to_le_bytes(), &0xABCD_u64.to_le_bytes()].concat()
}

/// A client's preamble, and the client that waits.
fn begin(suite: Suite) -> ([u8; PREAMBLE], ExpectAnswer) {
    let mut preamble = [0xEE; PREAMBLE];
    let server = keys().public().next().unwrap();
    let (len, client) = ExpectAnswer::begin(&server, &hello(suite), [0xC1; 32], &mut preamble).unwrap();
    assert_eq!(len, PREAMBLE);
    (preamble, client)
}

/// The server's answer to a whole preamble, accepted.
fn accepted(preamble: &[u8]) -> (Vec<u8>, Secured) {
    let keys = keys();
    let Ok(Gate::Passed(preamble)) = keys.gate(preamble) else { panic!("an honest preamble passes") };
    let mut answer = [0xEE; ANSWER_MAX];
    let verdict = preamble.read(limit(), [0x5E; 32]).unwrap();
    let (len, server) = verdict.accept(&accept(), &mut answer).unwrap();
    (answer[..len].to_vec(), server)
}

/// Both ends of a connection, accepted: client and server.
fn secured(suite: Suite) -> (Secured, Secured) {
    let (preamble, client) = begin(suite);
    let (answer, server) = accepted(&preamble);
    let mut room = [0; ANSWER_MAX];
    match client.read(&answer, &mut room).unwrap() {
        Answer::Accepted(said, client) => {
            assert_eq!(said, accept());
            (client, server)
        }
        Answer::Refused(_) => panic!("it was accepted"),
    }
}

/// The same with log-in and welcome said: either side takes messages.
fn joined(suite: Suite) -> (Secured, Secured) {
    let (mut client, mut server) = secured(suite);
    let log_in = record(&mut client.sealing, &log_in());
    assert_eq!(received(&mut server.opening, &log_in).unwrap().len(), 1);
    let welcome = record(&mut server.sealing, &frame(Kind::Welcome, &[0; 16]));
    assert_eq!(received(&mut client.opening, &welcome).unwrap().len(), 1);
    (client, server)
}

fn log_in() -> Vec<u8> {
    let mut room = [0; LogIn::FRAME_MAX];
    let len = LogIn { token: b"token", ..LogIn::default() }.to_frame(&mut room).unwrap();
    room[..len].to_vec()
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&lan::header(kind, payload.len() as u32)[..], payload].concat()
}

/// One record around `frames`, as the engine makes it.
fn record(sealing: &mut Sealing, frames: &[u8]) -> Vec<u8> {
    let mut record = [&[0xEE; RECORD_HEAD][..], frames, &[0xEE; RECORD_TAIL]].concat();
    sealing.seal(&mut record).unwrap();
    record
}

/// A message in as many records as it takes.
fn message(sealing: &mut Sealing, payload: &[u8]) -> Vec<u8> {
    let header = lan::header(Kind::Message, payload.len() as u32);
    let parts = madang_wire::wan::parts(payload.len()).enumerate();
    parts
        .flat_map(|(at, part)| {
            let header: &[u8] = if at == 0 { &header } else { &[] };
            record(sealing, &[header, &payload[part]].concat())
        })
        .collect()
}

/// Everything that lies in `stream`, as the engine would take it; the stream must end where a record does.
fn received(opening: &mut Opening, stream: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
    let mut inbox = Inbox::default();
    inbox.take(opening, stream)?;
    assert!(inbox.stream.is_empty(), "{} bytes are left", inbox.stream.len());
    Ok(inbox.frames)
}

/// What an engine keeps for one connection: the stream's unused bytes, and the parts of a long message.
#[derive(Default)]
struct Inbox {
    stream: Vec<u8>,
    long: Vec<u8>,
    frames: Vec<(Kind, Vec<u8>)>,
}

impl Inbox {
    /// Bytes came: takes all the frames that are whole.
    fn take(&mut self, opening: &mut Opening, bytes: &[u8]) -> Result<(), FrameError> {
        self.stream.extend(bytes);
        while self.step(opening)? {}
        Ok(())
    }

    /// Takes one frame or part; false where more bytes are needed.
    fn step(&mut self, opening: &mut Opening) -> Result<bool, FrameError> {
        let used = match opening.next(&mut self.stream)? {
            Step::Need { total } => {
                assert!(total > self.stream.len(), "needs {total}, has {}", self.stream.len());
                return Ok(false);
            }
            Step::Frame { kind, payload, used } => {
                assert!(self.long.is_empty(), "a frame between the parts of a message");
                self.frames.push((kind, self.stream[payload].to_vec()));
                used
            }
            Step::Part { payload, left, used } => {
                self.long.extend(&self.stream[payload]);
                if left == 0 {
                    self.frames.push((Kind::Message, std::mem::take(&mut self.long)));
                }
                used
            }
        };
        self.stream.drain(..used);
        Ok(true)
    }
}
