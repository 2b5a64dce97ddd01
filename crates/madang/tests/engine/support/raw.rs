//! Peers by hand: blocking sockets that share no code with the engine.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// Frame kinds of the LAN wire.
pub(crate) mod kind {
    pub(crate) const GREETING: u8 = 1;
    pub(crate) const WELCOME: u8 = 2;
    pub(crate) const REFUSAL: u8 = 3;
    pub(crate) const MESSAGE: u8 = 4;
    pub(crate) const PING: u8 = 5;
    pub(crate) const PONG: u8 = 6;
    pub(crate) const GOODBYE: u8 = 7;
    pub(crate) const QUEUE: u8 = 10;
    pub(crate) const TICKET: u8 = 11;
}

/// How a stream ended, and what came before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Eof(Vec<u8>),
    Reset,
}

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Raw {
        Raw::try_connect(address).expect("the server listens")
    }

    pub(crate) fn try_connect(address: SocketAddr) -> std::io::Result<Raw> {
        Raw::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    /// From an address of loopback, so that the server can tell peers apart.
    #[track_caller]
    pub(crate) fn connect_from(local: [u8; 4], address: SocketAddr) -> Raw {
        Raw::try_connect_from(local, address).expect("the server listens")
    }

    pub(crate) fn try_connect_from(local: [u8; 4], address: SocketAddr) -> std::io::Result<Raw> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((local, 0)).into())?;
        // Without a time-out, which on Windows would make an error of a server that hangs up at once.
        socket.connect(&address.into())?;
        Raw::over(socket.into())
    }

    fn over(stream: TcpStream) -> std::io::Result<Raw> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // Refused when the connection has been reset already, which the test will see by itself.
        let _ = stream.set_nodelay(true);
        Ok(Raw { stream })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    #[track_caller]
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("the server writes");
        bytes
    }

    /// Reads to the stream's end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Ended {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ended::Eof(bytes),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ended::Reset,
            Err(error) => panic!("the stream neither goes on nor ends: {error}"),
        }
    }

    /// Whether the stream ends now, in whatever way: an abort is a reset, but the reader may see an end of stream before.
    #[track_caller]
    pub(crate) fn is_cut(&mut self) -> bool {
        matches!(self.ended(), Ended::Reset | Ended::Eof(_))
    }

    /// Whether the stream ends, in whatever way, before a byte comes.
    pub(crate) fn is_empty_end(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0]), Ok(1))
    }

    /// Writes as much as the server and the kernels take, up to `most` bytes; answers how many.
    pub(crate) fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        self.stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a plain option");
        let mut written = 0;
        while written < most {
            match self.stream.write(&bytes[..bytes.len().min(most - written)]) {
                Ok(more) => written += more,
                Err(_) => break,
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).expect("a plain option");
        written
    }

    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("it is connected");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a plain option");
    }

    // --- be32

    #[track_caller]
    pub(crate) fn be32(&mut self, payload: &[u8]) {
        self.write(&be32_frame(payload));
    }

    #[track_caller]
    pub(crate) fn be32_next(&mut self) -> Vec<u8> {
        let len = u32::from_be_bytes(self.read(4).try_into().expect("four bytes"));
        self.read(len as usize)
    }

    // --- LAN

    #[track_caller]
    pub(crate) fn lan(&mut self, kind: u8, payload: &[u8]) {
        self.write(&lan_frame(kind, payload));
    }

    /// The next frame that is no ping.
    #[track_caller]
    pub(crate) fn lan_next(&mut self) -> (u8, Vec<u8>) {
        loop {
            let header = u32::from_le_bytes(self.read(4).try_into().expect("four bytes"));
            let payload = self.read((header & 0x00ff_ffff) as usize);
            let kind = (header >> 24) as u8;
            if kind != kind::PING {
                return (kind, payload);
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect_message(&mut self) -> Vec<u8> {
        let (kind, payload) = self.lan_next();
        assert_eq!(kind, kind::MESSAGE, "{payload:?}");
        payload
    }

    /// Greets and waits for the welcome; answers the session's id as the server says it.
    #[track_caller]
    pub(crate) fn join_lan(address: SocketAddr, hello: &Hello) -> (Raw, u64) {
        let mut raw = Raw::connect(address);
        raw.write(&hello.frame());
        let id = raw.welcomed();
        (raw, id)
    }

    #[track_caller]
    pub(crate) fn welcomed(&mut self) -> u64 {
        let (kind, _) = self.lan_next();
        assert_eq!(kind, kind::GREETING);
        let (kind, welcome) = self.lan_next();
        assert_eq!((kind, welcome.len()), (kind::WELCOME, 16));
        u64::from_le_bytes(welcome[..8].try_into().expect("eight bytes"))
    }

    /// The reason of the refusal that comes instead of a welcome; nothing comes behind it.
    #[track_caller]
    pub(crate) fn refused(&mut self) -> u8 {
        let reason = self.refusal();
        self.half_close();
        assert_eq!(self.ended(), Ended::Eof(vec![]));
        reason
    }

    /// The same of a peer that does not hang up.
    pub(crate) fn refusal(&mut self) -> u8 {
        let (mut kind, mut payload) = self.lan_next();
        if kind == kind::GREETING {
            (kind, payload) = self.lan_next();
        }
        assert_eq!(kind, kind::REFUSAL);
        payload[0]
    }
}

pub(crate) fn be32_frame(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
}

pub(crate) fn lan_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let header = payload.len() as u32 | u32::from(kind) << 24;
    [&header.to_le_bytes()[..], payload].concat()
}

/// A greeting, field by field.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) magic: [u8; 4],
    pub(crate) protocol: u16,
    pub(crate) flags: u16,
    pub(crate) app_version: u32,
    pub(crate) frame_limit: u32,
    pub(crate) incarnation: u64,
    pub(crate) schema: u64,
    pub(crate) service: &'static str,
    pub(crate) node: &'static str,
    pub(crate) ticket: Vec<u8>,
}

impl Default for Hello {
    fn default() -> Hello {
        Hello {
            magic: *b"MDNG",
            protocol: 1,
            flags: 0,
            app_version: 1,
            frame_limit: 1 << 20,
            incarnation: 1,
            schema: 0,
            service: "raw",
            node: "",
            ticket: vec![],
        }
    }
}

impl Hello {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut payload = self.magic.to_vec();
        payload.extend(self.protocol.to_le_bytes());
        let flags = self.flags | if self.ticket.is_empty() { 0 } else { 2 };
        payload.extend(flags.to_le_bytes());
        payload.extend(self.app_version.to_le_bytes());
        payload.extend(self.frame_limit.to_le_bytes());
        payload.extend(self.incarnation.to_le_bytes());
        payload.extend(self.schema.to_le_bytes());
        for name in [self.service, self.node] {
            payload.extend((name.len() as u16).to_le_bytes());
            payload.extend(name.as_bytes());
        }
        if !self.ticket.is_empty() {
            payload.extend((self.ticket.len() as u16).to_le_bytes());
            payload.extend(&self.ticket);
        }
        lan_frame(kind::GREETING, &payload)
    }
}
