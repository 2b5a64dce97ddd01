//! One blocking TCP connection that speaks in whole messages.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::framing::{Framing, Header, Kind, Malformed, encode_lan};
use super::{Settings, lan};

/// How long to wait, so that a server that hangs is reported and never hangs the dummy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The most that one read or write may stand still.
    pub(crate) each: Duration,
    /// When the whole client gives up, even if bytes still trickle.
    pub(crate) until: Instant,
}

/// A connection. Dropping it closes the socket as the system does by itself.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    framing: Framing,
    patience: Patience,
    /// Bytes that were read; those before `start` were handed out already.
    inbox: Vec<u8>,
    start: usize,
    /// What the server said in its goodbye, for the report (LAN only).
    goodbye: Option<String>,
    /// The longest message that this client sends, and so the longest that may come back.
    longest_message: usize,
}

/// Why no further message comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server closed in order, behind a whole frame.
    Closed,
    /// The server reset the connection behind a whole frame.
    Reset,
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

impl Link {
    /// Connects and says nothing. A `receive_buffer` makes the system's own small, so that the server feels soon that
    /// nothing is read.
    pub(crate) fn connect(
        settings: &Settings,
        receive_buffer: Option<usize>,
        patience: Patience,
    ) -> Result<Self, NoLink> {
        Ok(Self {
            stream: connect(settings.address, receive_buffer, patience.each)?,
            framing: settings.framing,
            patience,
            inbox: Vec::new(),
            start: 0,
            goodbye: None,
            longest_message: settings.sizes.max,
        })
    }

    /// Connects and, with the LAN framing, greets and waits to be welcomed.
    pub(crate) fn open(
        settings: &Settings,
        receive_buffer: Option<usize>,
        patience: Patience,
    ) -> Result<Self, NoLink> {
        let mut link = Self::connect(settings, receive_buffer, patience)?;
        if link.framing == Framing::Lan {
            link.greet()?;
        }
        Ok(link)
    }

    /// Waits for the next message and gives its payload. Pings are answered on the way.
    pub(crate) fn receive(&mut self) -> Result<&[u8], End> {
        loop {
            let (kind, payload) = self.frame()?;
            if self.goodbye.is_some() {
                return Err(End::Malformed(format!("{kind:?} after the goodbye")));
            }
            match kind {
                Kind::Message => return Ok(&self.inbox[payload]),
                Kind::Ping => {
                    let mut pong = Vec::new();
                    encode_lan(Kind::Pong, &self.inbox[payload], &mut pong);
                    self.write(&pong)?;
                }
                Kind::Pong => {}
                Kind::Goodbye => self.goodbye = Some(lan::describe_goodbye(&self.inbox[payload])),
                Kind::Greeting | Kind::Welcome | Kind::Refusal => {
                    return Err(End::Malformed(format!("{kind:?} after the welcome")));
                }
            }
        }
    }

    /// Writes all bytes. A connection that the server ended is no error here: reading tells how it ended, and what
    /// still came before.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let written = self.write_once(bytes)?.ok_or(End::Silent)?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Writes as much as there is room for now; `None` if there is none. It does not wait, because on Windows a
    /// socket is not to be used any more after a write that timed out.
    pub(crate) fn write_without_waiting(&mut self, bytes: &[u8]) -> Result<Option<usize>, End> {
        let blocking = |link: &Self, blocks: bool| {
            link.stream.set_nonblocking(!blocks).map_err(|error| End::Failed(error.kind()))
        };
        blocking(self, false)?;
        let written = self.write_once(bytes);
        blocking(self, true)?;
        written
    }

    fn write_once(&mut self, bytes: &[u8]) -> Result<Option<usize>, End> {
        if Instant::now() > self.patience.until {
            return Err(End::Silent);
        }
        match self.stream.write(bytes) {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(0)),
            Err(error) if timed_out(&error) => Ok(None),
            Err(error) if ended(&error) => Ok(Some(bytes.len())),
            Err(error) => Err(End::Failed(error.kind())),
        }
    }

    /// Reads to the end, whatever the bytes are: how many came, and how it ended.
    pub(crate) fn drain(&mut self) -> (usize, End) {
        loop {
            if let Err(end) = self.fill(self.inbox.len() + 1) {
                return (self.inbox.len() - self.start, end);
            }
        }
    }

    /// Like [`Link::drain`], but gives up after about `wait` when the connection has not ended by then.
    pub(crate) fn drain_for(&mut self, wait: Duration) -> Option<(usize, End)> {
        let _unset = self.stream.set_read_timeout(Some(wait));
        let (bytes, end) = self.drain();
        let _unset = self.stream.set_read_timeout(Some(self.patience.each));
        (end != End::Silent).then_some((bytes, end))
    }

    /// Says that nothing more will be written, with a goodbye where the framing has one.
    pub(crate) fn half_close(&mut self) {
        if self.framing == Framing::Lan {
            let mut goodbye = Vec::new();
            encode_lan(Kind::Goodbye, &lan::goodbye(), &mut goodbye);
            // Whatever keeps it from being written shows itself when the end is read.
            let _unsaid = self.write(&goodbye);
        }
        self.half_close_without_goodbye();
    }

    /// Says that nothing more will be written, as a program that ends does.
    pub(crate) fn half_close_without_goodbye(&self) {
        // A peer that is gone already makes this fail, and reading says so.
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset in place of an orderly end; what is in flight is thrown away on both sides.
    pub(crate) fn reset(self) {
        let _unsupported = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The server's goodbye, if it said one.
    pub(crate) fn goodbye(&self) -> Option<&str> {
        self.goodbye.as_deref()
    }

    /// Sends our greeting, and reads the server's greeting and its welcome.
    fn greet(&mut self) -> Result<(), NoLink> {
        let refused = |end: End| NoLink::Refused(format!("during the greeting: {end}"));
        let longest_message = self.longest_message;
        let mut greeting = Vec::new();
        encode_lan(Kind::Greeting, &lan::greeting(longest_message), &mut greeting);
        self.write(&greeting).map_err(refused)?;
        let mut greeted = false;
        loop {
            let (kind, payload) = self.frame().map_err(refused)?;
            let payload = &self.inbox[payload];
            let checked = match kind {
                Kind::Greeting if !greeted => lan::check_greeting(payload).and_then(|frame_limit| {
                    greeted = true;
                    if frame_limit >= longest_message {
                        return Ok(());
                    }
                    Err(Malformed(format!("it accepts only {frame_limit} bytes, and --size goes beyond")))
                }),
                Kind::Welcome if greeted => {
                    return lan::check_welcome(payload).map_err(|error| refused(error.into()));
                }
                Kind::Ping if greeted => {
                    let mut pong = Vec::new();
                    encode_lan(Kind::Pong, payload, &mut pong);
                    self.write(&pong).map_err(refused)?;
                    Ok(())
                }
                Kind::Refusal => return Err(NoLink::Refused(lan::describe_refusal(payload))),
                Kind::Goodbye if greeted => return Err(NoLink::Refused(lan::describe_goodbye(payload))),
                _ => Err(Malformed(format!("{kind:?} out of turn"))),
            };
            checked.map_err(|malformed| refused(malformed.into()))?;
        }
    }

    /// Reads one whole frame of any kind: where its opened payload lies in the inbox.
    fn frame(&mut self) -> Result<(Kind, std::ops::Range<usize>), End> {
        self.inbox.drain(..self.start);
        self.start = 0;
        let head = self.framing.header_len();
        self.fill(head).map_err(|end| self.cut(end, None))?;
        let header = self.framing.header(&self.inbox[..head])?;
        if header.kind == Kind::Message && header.len > self.longest_message {
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
            if Instant::now() > self.patience.until {
                return Err(End::Silent);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(End::Closed),
                Ok(read) => self.inbox.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if timed_out(&error) => return Err(End::Silent),
                Err(error) if ended(&error) => return Err(End::Reset),
                Err(error) => return Err(End::Failed(error.kind())),
            }
        }
        Ok(())
    }

    /// An end in the middle of a frame is a cut.
    fn cut(&mut self, end: End, header: Option<Header>) -> End {
        let reset = end == End::Reset;
        if self.inbox.is_empty() || !(reset || end == End::Closed) {
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
}

/// Opens a plain connection with the settings of every dummy.
fn connect(
    address: SocketAddr,
    receive_buffer: Option<usize>,
    patience: Duration,
) -> Result<TcpStream, NoLink> {
    let open = || -> io::Result<TcpStream> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        if let Some(bytes) = receive_buffer {
            // It must stand before the connection does, or the window is negotiated without it.
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect_timeout(&address.into(), patience)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(stream)
    };
    open().map_err(|error| match error.kind() {
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => NoLink::NoLocalPort,
        _ => NoLink::Refused(format!("connect: {error}")),
    })
}

/// The read or write stood still; which of the two kinds it is depends on the system.
fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The server ended the connection.
fn ended(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
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
