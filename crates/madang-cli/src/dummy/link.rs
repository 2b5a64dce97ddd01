//! One blocking TCP connection that speaks in whole messages.

mod join;
mod socket;

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::time::{Duration, Instant};

pub(crate) use self::join::News;
use self::socket::Socket;
use super::framing::{Framing, Header, Kind, Malformed, encode_frame};
use super::random::Random;
use super::wan::{Secured, words};
use super::{Settings, lan};

/// How a message to everybody begins (`madang serve --broadcast`), and how long it may be.
const BROADCAST: u8 = b'!';
const BROADCAST_LONGEST: usize = 16 * 1024;

/// How long to wait, so that a server that hangs is reported and never hangs the dummy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The most that one read or write may stand still.
    pub(crate) each: Duration,
    /// When the whole client gives up, even if bytes still trickle.
    pub(crate) until: Instant,
}

/// A connection. Dropping it closes the socket as the system does by itself.
///
/// ```text
///  put ► frames ► (records) ► outbox ► socket ► (records) ► inbox ► receive
/// ```
#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    framing: Framing,
    /// Bytes that were read, out of their records if there are any; those before `start` were handed out already.
    inbox: Vec<u8>,
    start: usize,
    /// Whole frames that wait to be written: what comes later must not overtake them, and must not come between.
    frames: Vec<u8>,
    /// The same as bytes of the stream, the first of them perhaps in the middle of a frame or record.
    outbox: Vec<u8>,
    /// WAN: the records, once the handshake is over.
    secured: Option<Secured>,
    /// What the server said in its goodbye, for the report.
    goodbye: Option<String>,
    said_goodbye: bool,
    /// The server has answered: it may say more than a greeting now.
    greeted: bool,
    /// Where we stood in the waiting queue when we last heard of it, and the ticket that keeps our turn.
    position: Option<u32>,
    ticket: Vec<u8>,
    /// The longest message that this client sends, and so the longest that may come back.
    longest_message: usize,
    /// Messages to everybody that were passed over; none where there should be none.
    broadcasts: Option<u64>,
    /// For keys, and for where writes and records are cut.
    random: Random,
}

/// Why no further message comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server closed in order, behind a whole frame.
    Closed,
    /// The server reset the connection behind a whole frame.
    Reset,
    /// WAN: the stream ended behind a whole frame and without the goodbye that says that nothing is missing.
    Truncated,
    /// The stream ended within a frame; `payload` is the opened part of a cut message.
    Cut { payload: Vec<u8>, reset: bool },
    /// Nothing came, or nothing could be written, for as long as patience lasts.
    Silent,
    /// What came is no frame.
    Malformed(String),
    /// Another error of the socket.
    Failed(ErrorKind),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoLink {
    /// This machine ran out of local ports for a moment: not the server's doing.
    NoLocalPort,
    /// The server did not take us in.
    Refused(String),
}

/// How far a [`Link::flush_some`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    All,
    Part,
    Nothing,
}

impl Link {
    /// Connects and says nothing. A `receive_buffer` makes the system's own small, so that the server feels soon that
    /// nothing is read.
    pub(crate) fn connect(
        settings: &Settings,
        receive_buffer: Option<usize>,
        patience: Patience,
        random: Random,
    ) -> Result<Self, NoLink> {
        Ok(Self {
            socket: Socket::connect(settings.address, receive_buffer, patience)?,
            framing: settings.framing,
            inbox: Vec::new(),
            start: 0,
            frames: Vec::new(),
            outbox: Vec::new(),
            secured: None,
            goodbye: None,
            said_goodbye: false,
            greeted: false,
            position: None,
            ticket: Vec::new(),
            broadcasts: settings.broadcasts.then_some(0),
            longest_message: settings.sizes.max,
            random,
        })
    }

    /// Connects and, where the framing has a greeting, greets and waits to be welcomed.
    pub(crate) fn open(
        settings: &Settings,
        receive_buffer: Option<usize>,
        patience: Patience,
        random: Random,
    ) -> Result<Self, NoLink> {
        let mut link = Self::connect(settings, receive_buffer, patience, random)?;
        link.knock(settings.wan.as_ref(), b"")?;
        link.await_welcome()?;
        Ok(link)
    }

    /// Puts a message behind all that waits to be written.
    pub(crate) fn put_message(&mut self, payload: &[u8]) {
        self.framing.encode(payload, &mut self.random, &mut self.frames);
    }

    fn put(&mut self, kind: Kind, payload: &[u8]) {
        encode_frame(kind, payload, &mut self.frames);
    }

    /// Writes all that waits: at once, or now and then in two parts that are cut at any byte.
    pub(crate) fn flush(&mut self) -> Result<(), End> {
        self.pack();
        if self.outbox.len() > 1 && self.random.one_in(16) {
            let cut = self.random.between(1, self.outbox.len() - 1);
            self.socket.write(&self.outbox[..cut])?;
            std::thread::yield_now();
            self.socket.write(&self.outbox[cut..])?;
        } else {
            self.socket.write(&self.outbox)?;
        }
        self.outbox.clear();
        Ok(())
    }

    /// Writes as much of what waits as there is room for now.
    pub(crate) fn flush_some(&mut self) -> Result<Flushed, End> {
        self.pack();
        let written = self.socket.write_without_waiting(&self.outbox)?;
        self.outbox.drain(..written.unwrap_or(0));
        Ok(match written {
            _ if self.outbox.is_empty() => Flushed::All,
            Some(_) => Flushed::Part,
            None => Flushed::Nothing,
        })
    }

    /// Writes only a beginning of what waits, of any length short of the whole.
    pub(crate) fn flush_cut(&mut self) -> Result<(), End> {
        self.pack();
        let cut = self.random.between(0, self.outbox.len().saturating_sub(1));
        self.socket.write(&self.outbox[..cut])
    }

    /// Writes these bytes, whatever they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.socket.write(bytes)
    }

    /// Somewhere in front of this place in the queue is where we must be told to stand.
    pub(crate) fn must_not_stand_behind(&mut self, position: u32) {
        self.position = Some(position);
    }

    pub(crate) fn waits_to_be_written(&self) -> bool {
        !self.frames.is_empty() || !self.outbox.is_empty()
    }

    /// See [`Socket::has_ended`].
    pub(crate) fn has_ended(&self) -> bool {
        self.socket.has_ended()
    }

    /// Frames become bytes of the stream: in records, or as they are.
    fn pack(&mut self) {
        match &mut self.secured {
            Some(secured) => secured.wrap(&self.frames, &mut self.random, &mut self.outbox),
            None => self.outbox.extend_from_slice(&self.frames),
        }
        self.frames.clear();
    }

    /// The records of a WAN connection, to make such as no client should.
    pub(crate) fn secured(&mut self) -> Option<&mut Secured> {
        self.secured.as_mut()
    }

    /// Waits for the next message and gives its payload. Pings are answered on the way.
    pub(crate) fn receive(&mut self) -> Result<&[u8], End> {
        loop {
            let (kind, payload) = self.frame().map_err(|end| self.without_goodbye(end))?;
            if self.goodbye.is_some() {
                return Err(End::Malformed(format!("{kind:?} after the goodbye")));
            }
            let payload = &self.inbox[payload];
            match kind {
                // For everybody, and no echo.
                Kind::Message if self.broadcasts.is_some() && payload.first() == Some(&BROADCAST) => {
                    self.broadcasts = self.broadcasts.map(|heard| heard + 1);
                }
                // Found again below: a payload that is given away cannot be borrowed on the other paths.
                Kind::Message => break,
                Kind::Ping => {
                    let pong = payload.to_vec();
                    let in_between = self.outbox.is_empty() && self.frames.is_empty();
                    self.put(Kind::Pong, &pong);
                    // Else it goes behind what is half written, with the next flush.
                    if in_between {
                        self.flush()?;
                    }
                }
                Kind::Pong => {}
                Kind::Goodbye => self.goodbye = Some(lan::describe_goodbye(payload)),
                Kind::Ticket => drop(words::check_ticket(payload)?),
                Kind::Draining => {}
                Kind::Greeting | Kind::Welcome | Kind::Refusal | Kind::Accept | Kind::LogIn | Kind::Queue => {
                    return Err(End::Malformed(format!("{kind:?} after the welcome")));
                }
            }
        }
        let head = self.framing.header_len();
        Ok(&self.inbox[head..self.start])
    }

    /// Reads to the end, whatever the bytes are: how many came, and how it ended.
    pub(crate) fn drain(&mut self) -> (usize, End) {
        self.socket.drain()
    }

    /// Like [`Link::drain`], but gives up after about `wait` when the connection has not ended by then.
    pub(crate) fn drain_for(&mut self, wait: Duration) -> Option<(usize, End)> {
        self.socket.drain_for(wait)
    }

    /// Says that nothing more will be written, with a goodbye where the framing has one.
    pub(crate) fn half_close(&mut self) {
        if self.framing.has_control() {
            self.said_goodbye = true;
            self.put(Kind::Goodbye, &lan::goodbye());
            // Whatever keeps it from being written shows itself when the end is read.
            let _unsaid = self.flush();
        }
        self.half_close_without_goodbye();
    }

    /// Says that nothing more will be written, as a program that ends does.
    pub(crate) fn half_close_without_goodbye(&self) {
        self.socket.half_close();
    }

    /// Closes with a reset in place of an orderly end; what is in flight is thrown away on both sides.
    pub(crate) fn reset(self) {
        self.socket.reset();
    }

    /// Messages to everybody that came.
    pub(crate) fn broadcasts(&self) -> u64 {
        self.broadcasts.unwrap_or(0)
    }

    /// The server's goodbye, if it said one.
    pub(crate) fn goodbye(&self) -> Option<&str> {
        self.goodbye.as_deref()
    }

    /// Reads one whole frame of any kind: where its opened payload lies in the inbox.
    fn frame(&mut self) -> Result<(Kind, Range<usize>), End> {
        self.inbox.drain(..self.start);
        self.start = 0;
        let head = self.framing.header_len();
        self.fill(head).map_err(|end| self.cut(end, None))?;
        let header = self.framing.header(&self.inbox[..head])?;
        let longest = if self.broadcasts.is_some() { BROADCAST_LONGEST } else { 0 };
        if header.kind == Kind::Message && header.len > self.longest_message.max(longest) {
            return Err(End::Malformed(format!("a message of {} bytes, longer than any sent", header.len)));
        }
        let whole = head + header.len;
        self.fill(whole).map_err(|end| self.cut(end, Some(header)))?;
        self.framing.open(header, &mut self.inbox[head..whole], true)?;
        self.start = whole;
        Ok((header.kind, head..whole))
    }

    /// Reads until the inbox holds `need` bytes.
    fn fill(&mut self, need: usize) -> Result<(), End> {
        let mut chunk = [0; 16 * 1024];
        while self.inbox.len() < need {
            let read = self.socket.read(&mut chunk)?;
            match &mut self.secured {
                Some(secured) => secured.arrived(&chunk[..read], &mut self.inbox)?,
                None => self.inbox.extend_from_slice(&chunk[..read]),
            }
        }
        Ok(())
    }

    /// An end in the middle of a frame or record is a cut.
    fn cut(&mut self, end: End, header: Option<Header>) -> End {
        let reset = end == End::Reset;
        let within = !self.inbox.is_empty() || self.secured.as_ref().is_some_and(Secured::within_a_record);
        if !within || !(reset || end == End::Closed) {
            return end;
        }
        let mut payload = self.inbox.split_off(self.framing.header_len().min(self.inbox.len()));
        match header {
            Some(header) if header.kind == Kind::Message => {
                match self.framing.open(header, &mut payload, false) {
                    Ok(()) => End::Cut { payload, reset },
                    Err(malformed) => malformed.into(),
                }
            }
            _ => End::Cut { payload: Vec::new(), reset },
        }
    }

    /// On the WAN somebody on the way can close a connection: only a goodbye, ours or theirs, says that nothing is missing.
    fn without_goodbye(&self, end: End) -> End {
        match end {
            End::Closed if self.framing == Framing::Wan && self.goodbye.is_none() && !self.said_goodbye => {
                End::Truncated
            }
            end => end,
        }
    }
}

impl From<Malformed> for End {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the server closed"),
            Self::Reset => write!(f, "the server reset the connection"),
            Self::Truncated => write!(f, "the stream ended without a goodbye"),
            Self::Cut { payload, reset } => {
                let how = if *reset { "reset" } else { "closed" };
                write!(f, "the server {how} within a frame, after {} bytes of its payload", payload.len())
            }
            Self::Silent => write!(f, "the server was silent for longer than patience lasts"),
            Self::Malformed(why) => write!(f, "not a frame: {why}"),
            Self::Failed(kind) => write!(f, "socket error: {kind}"),
        }
    }
}
