//! The client's side of the engine's players' protocol, and the key of the server that it talks to.
//!
//! Two clients stand on it. The fast one ([`Records`]) seals what it sends, and of what comes it reads the lengths of the
//! records alone, as it drops plain payload in the kernel: opening everything would make the client the bottleneck, and the
//! server would answer larger batches. That every record opens, and to the right bytes, is [`verify`](crate::load::verify)'s
//! business ([`Writing`], [`Reading`]).

use std::io::{self, Read, Write as _};
use std::sync::Arc;

use anyhow::{bail, ensure};
use madang::wire::wan::{
    ANSWER_MAX, Answer, Expanded, ExpectAnswer, Hello, LogIn, Opening, PREAMBLE_MAX, RECORD_BARE,
    RECORD_FRAMES_MAX, RECORD_HEAD, RECORD_TAIL, Sealing, SecretKey, Secured, ServerKeys, Step,
};
use madang::wire::{Find, Kind, SealError, lan};
use rustix::rand::{GetRandomFlags, getrandom};
use socket2::Socket;

/// The server's key pair, which servers and clients of the bench know without telling each other. It protects nothing.
fn secret_key() -> SecretKey {
    SecretKey::from_bytes(&mut [7; 32])
}

/// What `engine --framing wan` answers under.
///
/// # Panics
/// Never: one key is a set of keys.
#[must_use]
pub fn server_keys() -> ServerKeys {
    ServerKeys::new([secret_key()]).expect("one key is a set of keys")
}

/// Shakes hands and logs in over a blocking socket that is connected, until the server says welcome.
///
/// # Errors
/// The connection breaks, or the server says something else.
pub fn enter(mut socket: &Socket) -> anyhow::Result<Secured> {
    let mut entropy = [0; 32];
    ensure!(getrandom(&mut entropy, GetRandomFlags::empty())? == entropy.len(), "no entropy");
    let mut preamble = [0; PREAMBLE_MAX];
    let (len, expect) =
        ExpectAnswer::begin(&secret_key().public(), &Hello::default(), entropy, &mut preamble)?;
    socket.write_all(&preamble[..len])?;

    let mut bytes = Vec::new();
    while let Find::Need { total } = expect.find(&bytes)? {
        read_up_to(socket, &mut bytes, total)?;
    }
    let mut secured = match expect.read(&bytes, &mut [0; ANSWER_MAX])? {
        Answer::Accepted(_, secured) => secured,
        Answer::Refused(refusal) => bail!("refused: {:?}", refusal.reason),
    };

    let mut log_in = vec![0; LogIn::FRAME_MAX];
    let len = LogIn::default().to_frame(&mut log_in)?;
    let mut record = Vec::new();
    append(&mut record, &log_in[..len], |record| secured.sealing.seal(record));
    socket.write_all(&record)?;

    // Nothing is read beyond the record in which the welcome is.
    bytes.clear();
    let mut welcome = false;
    while !welcome || !bytes.is_empty() {
        match secured.opening.next(&mut bytes)? {
            Step::Need { total } => read_up_to(socket, &mut bytes, total)?,
            Step::Frame { kind: Kind::Refusal, .. } => bail!("the log-in was refused"),
            Step::Frame { kind, used, .. } => {
                welcome |= kind == Kind::Welcome;
                bytes.drain(..used);
            }
            Step::Part { .. } => bail!("a long message before the welcome"),
        }
    }
    Ok(secured)
}

/// Reads until `bytes` are `total`, and not one more.
fn read_up_to(mut socket: &Socket, bytes: &mut Vec<u8>, total: usize) -> io::Result<()> {
    let here = bytes.len();
    bytes.resize(total, 0);
    socket.read_exact(&mut bytes[here..])
}

/// Puts a record with `text` behind what `out` holds, sealed by `seal`.
fn append(out: &mut Vec<u8>, text: &[u8], seal: impl FnOnce(&mut [u8]) -> Result<(), SealError>) {
    let start = out.len();
    out.extend([0; RECORD_HEAD]);
    out.extend_from_slice(text);
    out.extend([0; RECORD_TAIL]);
    seal(&mut out[start..]).expect("text within a record's bounds, and fewer records than a key may seal");
}

/// An encrypted connection of the fast client.
pub struct Records {
    sealing: Expanded<Sealing>,
    arriving: Arriving,
    /// Its heap is what a send points to.
    sealed: Vec<u8>,
}

impl Records {
    /// Of a connection that has been entered.
    #[must_use]
    pub fn new(secured: Secured) -> Self {
        Self { sealing: secured.sealing.expand(), arriving: Arriving::default(), sealed: Vec::new() }
    }

    /// Equal messages' frames as records, as few as hold them; one that is alone as a bare record. They stay where they are
    /// until the next call.
    pub fn seal(&mut self, frames: &[u8]) -> &[u8] {
        let [low, middle, high, _] = *frames.first_chunk().expect("a send begins with a header");
        let frame = lan::HEADER + u32::from_le_bytes([low, middle, high, 0]) as usize;
        self.sealed.clear();
        if frame == frames.len() && frame <= RECORD_FRAMES_MAX {
            append(&mut self.sealed, &frames[lan::HEADER..], |record| self.sealing.seal_message(record));
            return &self.sealed;
        }
        for together in frames.chunks(frame * (RECORD_FRAMES_MAX / frame).max(1)) {
            append(&mut self.sealed, together, |record| self.sealing.seal(record));
        }
        &self.sealed
    }

    /// Bytes of frames in the records that `bytes` completes.
    pub fn arrived(&mut self, bytes: &[u8]) -> u32 {
        self.arriving.take(bytes)
    }
}

/// Where the stream stands between the lengths of records, which travel in the clear.
#[derive(Default)]
struct Arriving {
    head: [u8; RECORD_HEAD],
    head_bytes: usize,
    /// Of the record whose head is there.
    missing: usize,
}

impl Arriving {
    fn take(&mut self, mut bytes: &[u8]) -> u32 {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.head_bytes < RECORD_HEAD {
                self.head[self.head_bytes] = bytes[0];
                self.head_bytes += 1;
                bytes = &bytes[1..];
                self.missing = usize::from(u16::from_le_bytes(self.head) & !RECORD_BARE);
                continue;
            }
            let here = self.missing.min(bytes.len());
            self.missing -= here;
            bytes = &bytes[here..];
            if self.missing == 0 {
                let head = u16::from_le_bytes(self.head);
                let text = usize::from(head & !RECORD_BARE).saturating_sub(RECORD_TAIL);
                // Whoever waits for an answer knows how long it is with its header.
                let header = if head & RECORD_BARE == 0 { 0 } else { lan::HEADER };
                frames += (text + header) as u32;
                self.head_bytes = 0;
            }
        }
        frames
    }
}

/// The sending half of a connection of the slow client: makes records of frames, and leaves it to others to send them.
pub struct Writing(Expanded<Sealing>);

/// The receiving half: reads what the records hold, headers included.
pub struct Reading {
    socket: Arc<Socket>,
    opening: Expanded<Opening>,
    /// Of the stream, from the first byte that is not used.
    bytes: Vec<u8>,
    /// Of frames, not read yet.
    plain: Vec<u8>,
    /// Bytes of a long message that are still to come.
    part_left: usize,
}

/// Both halves of a connection that has been entered.
#[must_use]
pub fn halves(socket: Arc<Socket>, secured: Secured) -> (Writing, Reading) {
    let Secured { sealing, opening, .. } = secured;
    let reading =
        Reading { socket, opening: opening.expand(), bytes: Vec::new(), plain: Vec::new(), part_left: 0 };
    (Writing(sealing.expand()), reading)
}

impl Writing {
    /// Seals `frames`, which fit one record, behind what `out` holds.
    pub fn append(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        append(out, frames, |record| self.0.seal(record));
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() {
            if !self.open()? {
                return Ok(0);
            }
        }
        let here = buffer.len().min(self.plain.len());
        buffer[..here].copy_from_slice(&self.plain[..here]);
        self.plain.drain(..here);
        Ok(here)
    }
}

impl Reading {
    /// One step along the stream; false at its end. What is said between the messages (a goodbye) is passed over.
    fn open(&mut self) -> io::Result<bool> {
        let step = self.opening.next(&mut self.bytes).map_err(io::Error::other)?;
        let used = match step {
            Step::Need { total } => {
                let here = self.bytes.len();
                self.bytes.resize(total, 0);
                let read = (&*self.socket).read(&mut self.bytes[here..])?;
                self.bytes.truncate(here + read);
                if read == 0 && here > 0 {
                    return Err(io::Error::other("the stream ends within a record"));
                }
                return Ok(read > 0);
            }
            Step::Frame { kind, payload, used } => {
                if kind == Kind::Message {
                    self.plain.extend(lan::header(kind, payload.len() as u32));
                    self.plain.extend_from_slice(&self.bytes[payload]);
                }
                used
            }
            Step::Part { payload, left, used } => {
                if self.part_left == 0 {
                    self.plain.extend(lan::header(Kind::Message, (payload.len() + left) as u32));
                }
                self.part_left = left;
                self.plain.extend_from_slice(&self.bytes[payload]);
                used
            }
        };
        self.bytes.drain(..used);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_at_every_cut() {
        let mut stream = Vec::new();
        for (text, bare) in [(26usize, RECORD_BARE), (1, 0), (300, 0)] {
            stream.extend(((text + RECORD_TAIL) as u16 | bare).to_le_bytes());
            stream.extend(vec![0xff; text + RECORD_TAIL]);
        }
        for piece in 1..stream.len() {
            let mut arriving = Arriving::default();
            let counted: u32 = stream.chunks(piece).map(|piece| arriving.take(piece)).sum();
            assert_eq!(counted, 331, "in pieces of {piece}");
        }
        let mut arriving = Arriving::default();
        assert_eq!(arriving.take(&stream[..stream.len() - 1]), 31, "the last one is not whole");
    }
}
