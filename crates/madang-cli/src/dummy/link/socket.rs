//! The socket under a link: blocking, and never for longer than patience lasts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{End, NoLink, Patience};

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    patience: Patience,
    /// A write found that the server has ended the connection.
    ended: bool,
}

impl Socket {
    /// Opens a plain connection with the settings of every dummy.
    pub(super) fn connect(
        to: SocketAddr,
        receive_buffer: Option<usize>,
        patience: Patience,
    ) -> Result<Self, NoLink> {
        let open = || -> io::Result<TcpStream> {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(to),
                socket2::Type::STREAM,
                Some(socket2::Protocol::TCP),
            )?;
            if let Some(bytes) = receive_buffer {
                // It must stand before the connection does, or the window is negotiated without it.
                socket.set_recv_buffer_size(bytes)?;
            }
            socket.connect_timeout(&to.into(), patience.each)?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience.each))?;
            stream.set_write_timeout(Some(patience.each))?;
            Ok(stream)
        };
        let stream = open().map_err(|error| match error.kind() {
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => NoLink::NoLocalPort,
            _ => NoLink::Refused(format!("connect: {error}")),
        })?;
        Ok(Self { stream, patience, ended: false })
    }

    /// Reads what has come, or waits for something to come. None is an error: the end is one too.
    pub(super) fn read(&mut self, chunk: &mut [u8]) -> Result<usize, End> {
        loop {
            if Instant::now() > self.patience.until {
                return Err(End::Silent);
            }
            return match self.stream.read(chunk) {
                Ok(0) => Err(End::Closed),
                Ok(read) => Ok(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if timed_out(&error) => Err(End::Silent),
                Err(error) if ended(&error) => Err(End::Reset),
                Err(error) => Err(End::Failed(error.kind())),
            };
        }
    }

    /// Writes all bytes. A connection that the server ended is no error here: reading tells how it ended, and what
    /// still came before.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            let written = self.write_once(bytes)?.ok_or(End::Silent)?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Writes as much as there is room for now; `None` if there is none. It does not wait, because on Windows a
    /// socket is not to be used any more after a write that timed out.
    pub(super) fn write_without_waiting(&mut self, bytes: &[u8]) -> Result<Option<usize>, End> {
        let blocking = |socket: &Self, blocks: bool| {
            socket.stream.set_nonblocking(!blocks).map_err(|error| End::Failed(error.kind()))
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
            Err(error) if ended(&error) => {
                self.ended = true;
                Ok(Some(bytes.len()))
            }
            Err(error) => Err(End::Failed(error.kind())),
        }
    }

    /// Reads to the end, whatever the bytes are: how many came, and how it ended.
    pub(super) fn drain(&mut self) -> (usize, End) {
        let (mut chunk, mut bytes) = ([0; 4 * 1024], 0);
        loop {
            match self.read(&mut chunk) {
                Ok(read) => bytes += read,
                Err(end) => return (bytes, end),
            }
        }
    }

    /// Like [`Socket::drain`], but gives up after about `wait` when the connection has not ended by then.
    pub(super) fn drain_for(&mut self, wait: Duration) -> Option<(usize, End)> {
        let _unset = self.stream.set_read_timeout(Some(wait));
        let (bytes, end) = self.drain();
        let _unset = self.stream.set_read_timeout(Some(self.patience.each));
        (end != End::Silent).then_some((bytes, end))
    }

    /// Whether the connection has ended, seen without taking what came before the end.
    pub(super) fn has_ended(&self) -> bool {
        // A reset shows itself behind the bytes that wait to be read; the socket's own error does not wait.
        if self.ended || !matches!(self.stream.take_error(), Ok(None)) {
            return true;
        }
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let seen = self.stream.peek(&mut [0]);
        let _unset = self.stream.set_nonblocking(false);
        match seen {
            Ok(bytes) => bytes == 0,
            Err(error) => !timed_out(&error),
        }
    }

    /// Says that nothing more will be written.
    pub(super) fn half_close(&self) {
        // A peer that is gone already makes this fail, and reading says so.
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset in place of an orderly end; what is in flight is thrown away on both sides.
    pub(super) fn reset(self) {
        let _unsupported = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// The read or write stood still; which of the two kinds it is depends on the system.
fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The server ended the connection; or we have said that nothing more will be written, and still answer a ping.
fn ended(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    /// Windows' broken pipe, which the standard library has no kind for.
    const WSAESHUTDOWN: i32 = 10058;
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
        || cfg!(windows) && error.raw_os_error() == Some(WSAESHUTDOWN)
}
