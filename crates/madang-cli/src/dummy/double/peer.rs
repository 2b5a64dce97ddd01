//! The double's end of one connection: whole frames, in records where the framing is the WAN's.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::dummy::framing::{CLASSIC_CODE, Framing, Kind};
use crate::dummy::random::Random;
use crate::dummy::wan::{Secured, Server};

/// How long a stranger may take.
const GREETING: Duration = Duration::from_millis(300);

/// The longest preamble of any version, and the shortest.
const PREAMBLES: std::ops::RangeInclusive<usize> = 77..=512;

/// The longest message that is taken.
const LONGEST: usize = 1024 * 1024;

pub(super) struct Peer {
    stream: TcpStream,
    framing: Framing,
    secured: Option<Secured>,
    /// Bytes of frames that came out of records and were not read.
    inbox: Vec<u8>,
    pub(super) random: Random,
}

impl Peer {
    pub(super) fn new(stream: TcpStream, framing: Framing, number: u64) -> Self {
        Self { stream, framing, secured: None, inbox: Vec::new(), random: Random::new(number) }
    }

    /// Whether the peer has a deadline, as before it is let in.
    pub(super) fn hurry(&self, hurry: bool) -> Result<()> {
        self.stream.set_read_timeout(hurry.then_some(GREETING))
    }

    /// Reads one frame; `None` if it is none.
    pub(super) fn read(&mut self) -> Result<Option<(Kind, Vec<u8>)>> {
        let mut head = [0; 5];
        let head = &mut head[..self.framing.header_len()];
        // A classic code is judged before the rest of the header comes.
        if !self.fill(&mut head[..1])? || self.framing == Framing::Classic && head[0] != CLASSIC_CODE {
            return Ok(None);
        }
        if !self.fill(&mut head[1..])? {
            return Ok(None);
        }
        let Ok(header) = self.framing.header(head) else { return Ok(None) };
        if header.len > LONGEST {
            return Ok(None);
        }
        let mut payload = vec![0; header.len];
        let opens = self.fill(&mut payload)? && self.framing.open(header, &mut payload, true).is_ok();
        Ok(opens.then_some((header.kind, payload)))
    }

    /// Answers a preamble as docs/wire.md says. False if there is nothing to be said to it, or a refusal was.
    pub(super) fn shake_hands(&mut self, server: &Server) -> Result<bool> {
        let mut preamble = Vec::new();
        for expected in *b"MDWN" {
            self.take(1, &mut preamble)?;
            if preamble.last() != Some(&expected) {
                return Ok(false);
            }
        }
        self.take(2, &mut preamble)?;
        let len = usize::from(u16::from_le_bytes([preamble[4], preamble[5]]));
        if !PREAMBLES.contains(&len) {
            return Ok(false);
        }
        self.take(len - 6, &mut preamble)?;
        let Ok((answer, secured)) = server.answer(&preamble, self.random.bytes()) else { return Ok(false) };
        self.stream.write_all(&answer)?;
        self.secured = secured;
        Ok(self.secured.is_some())
    }

    pub(super) fn is_secured(&self) -> bool {
        self.secured.is_some()
    }

    /// Sends whole frames.
    pub(super) fn send(&mut self, frames: &[u8]) -> Result<()> {
        let bytes = self.pack(frames);
        self.stream.write_all(&bytes)
    }

    /// Sends whole frames but for the last bytes.
    pub(super) fn send_cut(&mut self, frames: &[u8]) -> Result<()> {
        let bytes = self.pack(frames);
        self.stream.write_all(&bytes[..bytes.len() - 3])
    }

    /// Sends bytes that are no frame.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn half_close_and_drain(&mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.drain()
    }

    pub(super) fn drain(&mut self) -> Result<()> {
        self.stream.set_read_timeout(None)?;
        std::io::copy(&mut self.stream, &mut std::io::sink()).map(drop)
    }

    fn pack(&mut self, frames: &[u8]) -> Vec<u8> {
        let Some(secured) = &mut self.secured else { return frames.to_vec() };
        let mut bytes = Vec::new();
        secured.wrap(frames, &mut self.random, &mut bytes);
        bytes
    }

    /// Reads as many bytes of frames as there is room for. False where a record is none.
    fn fill(&mut self, room: &mut [u8]) -> Result<bool> {
        let Some(secured) = &mut self.secured else { return self.stream.read_exact(room).map(|()| true) };
        let mut chunk = [0; 4 * 1024];
        while self.inbox.len() < room.len() {
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(Error::from(ErrorKind::UnexpectedEof));
            }
            // What came in good records before the bad one is not echoed any more, which a server may do.
            if secured.arrived(&chunk[..read], &mut self.inbox).is_err() {
                return Ok(false);
            }
        }
        room.copy_from_slice(&self.inbox[..room.len()]);
        self.inbox.drain(..room.len());
        Ok(true)
    }

    fn take(&mut self, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let from = into.len();
        into.resize(from + len, 0);
        self.stream.read_exact(&mut into[from..])
    }
}
