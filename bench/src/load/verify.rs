//! Is every byte right? Asked of a server before its speed is.
//!
//! Plain blocking sockets and a codec of its own, so that an error of the fast client cannot hide one of a server (what is
//! encrypted is opened, by the engine's own codec, and then read in the same way). All content follows from a seed, which is
//! printed and accepted.

use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use madang::wire::Kind;
use madang::wire::lan::{Goodbye, GoodbyeReason};
use socket2::Socket;

use super::ANSWER_DEADLINE;
use super::ramp::{self, Peer};
use crate::sockets;
use crate::wan::{self, Reading, Writing};
use crate::wire::Framing;

/// Connections that echo at the same time.
const ECHO_CONNECTIONS: u64 = 32;
/// Frames that each of them sends.
const ECHO_FRAMES: u32 = 1500;
/// Past the 4 KiB of the matrix, so that frames cross the servers' buffers.
const ECHO_PAYLOAD_BYTES_MAX: u64 = 9000;
const BROADCAST_RECEIVERS: usize = 200;
const BROADCAST_TURNS: u32 = 100;
const CHURN_CYCLES: u64 = 2000;

/// Writes frames to a connection, encrypted or not.
struct Sender {
    socket: Arc<Socket>,
    records: Option<Writing>,
}

impl Sender {
    /// What is to be sent of a frame, behind what `out` holds.
    fn pack(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        match &mut self.records {
            Some(records) => records.append(frame, out),
            None => out.extend_from_slice(frame),
        }
    }
}

/// Reads frames, headers included.
enum Receiver {
    Plain(Arc<Socket>),
    Records(Box<Reading>),
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => (&**socket).read(buffer),
            Self::Records(records) => records.read(buffer),
        }
    }
}

fn halves(peer: Peer) -> (Sender, Receiver) {
    let socket = Arc::new(peer.socket);
    match peer.secured {
        None => (Sender { socket: Arc::clone(&socket), records: None }, Receiver::Plain(socket)),
        Some(secured) => {
            let (writing, reading) = wan::halves(Arc::clone(&socket), secured);
            (Sender { socket, records: Some(writing) }, Receiver::Records(Box::new(reading)))
        }
    }
}

/// What stands before a payload.
fn header(framing: Framing, payload_bytes: u32) -> [u8; 4] {
    match framing {
        Framing::Be32 => payload_bytes.to_be_bytes(),
        Framing::Wan => (payload_bytes | (Kind::Message as u32) << 24).to_le_bytes(),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 1 to `most`.
    fn up_to(&mut self, most: u64) -> u64 {
        1 + self.next() % most
    }

    /// A frame of random content; small ones are as frequent as large ones.
    fn frame(&mut self, framing: Framing, payload_bytes_max: u64) -> Vec<u8> {
        let most = if self.next() % 2 == 0 { 64 } else { payload_bytes_max };
        let payload_bytes = self.up_to(most.min(payload_bytes_max)) as usize;
        let mut frame = header(framing, payload_bytes as u32).to_vec();
        while frame.len() < 4 + payload_bytes {
            frame.extend_from_slice(&self.next().to_le_bytes());
        }
        frame.truncate(4 + payload_bytes);
        frame
    }
}

/// Random frames, cut at random places, on many connections at once; each echo is compared byte by byte, and after the
/// half-close at the end nothing but the end may follow.
///
/// # Errors
/// The first difference, with its connection and offset.
pub fn echo(framing: Framing, server: SocketAddr, seed: u64) -> anyhow::Result<()> {
    let peers = ramp::connect(framing, server, ECHO_CONNECTIONS as usize, 1)?;
    let readers: Vec<_> = peers
        .into_iter()
        .zip(0..)
        .map(|(peer, number)| {
            let (mut sender, mut receiver) = halves(peer);
            thread::spawn(move || write_frames(framing, &mut sender, seed ^ number));
            thread::spawn(move || {
                read_frames(framing, &mut receiver, seed ^ number)
                    .with_context(|| format!("connection {number} of seed {seed}"))
            })
        })
        .collect();
    for reader in readers {
        reader.join().map_err(|_| anyhow!("a reader panicked"))??;
    }
    Ok(())
}

fn write_frames(framing: Framing, sender: &mut Sender, seed: u64) {
    let (mut content, mut cuts) = (Random(seed), Random(!seed));
    let mut waiting = Vec::new();
    for number in 0..ECHO_FRAMES {
        sender.pack(&content.frame(framing, ECHO_PAYLOAD_BYTES_MAX), &mut waiting);
        if number + 1 == ECHO_FRAMES && framing == Framing::Wan {
            // An end without a goodbye would have been cut off.
            let mut goodbye = [0; 9];
            let leaving = Goodbye { reason: GoodbyeReason::Stopping, code: 0 };
            leaving.to_frame(&mut goodbye).expect("there is room for its nine bytes");
            sender.pack(&goodbye, &mut waiting);
        }
        // Odd pieces: often a few bytes, sometimes several frames.
        while waiting.len() > 30_000 || (number + 1 == ECHO_FRAMES && !waiting.is_empty()) {
            let piece = if cuts.next() % 4 == 0 { cuts.up_to(9) } else { cuts.up_to(20_000) };
            let piece = waiting.len().min(piece as usize);
            // The reader notices what did not arrive, with a better message.
            if (&*sender.socket).write_all(&waiting[..piece]).is_err() {
                return;
            }
            waiting.drain(..piece);
        }
    }
    let _ = sender.socket.shutdown(Shutdown::Write);
}

fn read_frames(framing: Framing, receiver: &mut impl Read, seed: u64) -> anyhow::Result<()> {
    let mut content = Random(seed);
    let mut offset = 0;
    for _ in 0..ECHO_FRAMES {
        offset = expect(receiver, &content.frame(framing, ECHO_PAYLOAD_BYTES_MAX), offset)?;
    }
    ensure!(receiver.read(&mut [0])? == 0, "more than was sent, after {offset} bytes");
    Ok(())
}

/// Reads as many bytes as `expected` has and compares them; returns the offset after them.
fn expect(receiver: &mut impl Read, expected: &[u8], offset: usize) -> anyhow::Result<usize> {
    let mut bytes = vec![0; expected.len()];
    receiver.read_exact(&mut bytes).with_context(|| format!("after {offset} bytes"))?;
    let difference = bytes.iter().zip(expected).position(|(got, wanted)| got != wanted);
    ensure!(difference.is_none(), "wrong byte at {}", offset + difference.unwrap_or(0));
    Ok(offset + bytes.len())
}

/// Turns of random counts and sizes; every receiver's bytes are compared, and their sequence is without a gap.
///
/// # Errors
/// The first difference, with its receiver and offset.
pub fn broadcast(framing: Framing, server: SocketAddr, seed: u64) -> anyhow::Result<()> {
    let peers = ramp::connect(framing, server, BROADCAST_RECEIVERS, 1)?;
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = peers.into_iter().map(halves).unzip();
    let mut random = Random(seed);
    let mut sequence = 0u64;
    let mut offset = 0;
    for turn in 0..BROADCAST_TURNS {
        let (messages, payload_bytes) = (random.up_to(16) as u32, 7 + random.up_to(1200) as u32);
        let mut trigger = Vec::new();
        let sender = random.next() as usize % senders.len();
        senders[sender].pack(&trigger_frame(framing, messages, payload_bytes), &mut trigger);
        let cut = random.up_to(trigger.len() as u64 - 1) as usize;
        let mut socket = &*senders[sender].socket;
        socket.write_all(&trigger[..cut])?;
        thread::sleep(Duration::from_micros(random.next() % 200));
        socket.write_all(&trigger[cut..])?;

        let mut expected = Vec::new();
        for _ in 0..messages {
            expected.extend(header(framing, payload_bytes));
            expected.extend(sequence.to_be_bytes());
            expected.extend(vec![sequence as u8; payload_bytes as usize - 8]);
            sequence += 1;
        }
        for (number, receiver) in receivers.iter_mut().enumerate() {
            expect(receiver, &expected, offset)
                .with_context(|| format!("receiver {number}, turn {turn} of seed {seed}"))?;
        }
        offset += expected.len();
    }
    // Nothing doubled: the next thing to come is the answer to a trigger for nothing.
    let last = trigger_frame(framing, 0, 8);
    for (sender, receiver) in senders.iter_mut().zip(&mut receivers) {
        let mut bytes = Vec::new();
        sender.pack(&last, &mut bytes);
        (&*sender.socket).write_all(&bytes)?;
        expect(receiver, &last, offset)?;
    }
    Ok(())
}

fn trigger_frame(framing: Framing, messages: u32, payload_bytes: u32) -> Vec<u8> {
    [header(framing, 8), messages.to_be_bytes(), payload_bytes.to_be_bytes()].concat()
}

/// Plain connections that live for one message: the echo is compared, then the connection is reset. The server must stay
/// whole: the last connection is served like the first.
///
/// # Errors
/// The first difference.
pub fn accept(server: SocketAddr, seed: u64) -> anyhow::Result<()> {
    let mut random = Random(seed);
    for cycle in 0..CHURN_CYCLES {
        let socket = sockets::connect(Ipv4Addr::LOCALHOST, server)?;
        socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
        let frame = random.frame(Framing::Be32, ECHO_PAYLOAD_BYTES_MAX);
        (&socket).write_all(&frame)?;
        expect(&mut &socket, &frame, 0).with_context(|| format!("cycle {cycle} of seed {seed}"))?;
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}
