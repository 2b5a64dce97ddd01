//! A throwaway echo server for the tests: one thread a connection, and misbehaviour on demand.
//!
//! It speaks the framings with the dummy's own codec: it stands in for a server, it does not judge the codec. The
//! goldens in `framing` and `lan` do that.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::framing::{Framing, Kind, encode_lan};
use super::lan;
use super::random::Random;

/// What the double does wrong, about once in 50 messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    Lose,
    Double,
    Swap,
    FlipBit,
    Shorten,
    Hang,
    CloseEarly,
    CutFrame,
    /// Echoes the last message that another connection sent.
    CrossTalk,
    /// Goes on echoing behind a disconnect.
    IgnoreDisconnect,
    /// Echoes the message that asks for a disconnect before it disconnects.
    EchoDisconnect,
    /// Ends the connection at a farewell without the last echo.
    ForgetFarewell,
    /// Keeps a connection that sent garbage.
    KeepGarbage,
    /// Answers a stranger.
    AnswerStranger,
    /// Refuses each third connection.
    Refuse,
}

/// Serves from its birth to its drop.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

struct Server {
    framing: Framing,
    flaw: Flaw,
    connections: AtomicU64,
    messages: AtomicU64,
    last: std::sync::Mutex<Vec<u8>>,
}

impl Double {
    pub(crate) fn start(framing: Framing, flaw: Flaw) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound listener");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let server = Arc::new(Server {
            framing,
            flaw,
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            last: std::sync::Mutex::default(),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (stream, server) = (stream.expect("an accepted stream"), server.clone());
                std::thread::spawn(move || {
                    let _gone = server.serve(stream);
                });
            }
        });
        Self { address, stop }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
    }
}

impl Server {
    /// Ends with an error when the stream does; dropping the stream closes it.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        if self.flaw == Flaw::Refuse && number % 3 == 2 {
            return Ok(());
        }
        if self.framing == Framing::Lan && !self.greet(&mut stream)? {
            return self.turn_away(stream);
        }
        let mut random = Random::new(number);
        let mut held = None;
        while let Some((kind, payload)) = self.read(&mut stream)? {
            match kind {
                Kind::Message => {
                    if self.echo(&mut stream, payload, &mut held, &mut random)?.is_break() {
                        return self.leave(stream);
                    }
                }
                Kind::Goodbye => return Ok(()),
                Kind::Ping | Kind::Pong => {}
                _ => break,
            }
        }
        self.turn_away(stream)
    }

    fn echo(
        &self,
        stream: &mut TcpStream,
        mut payload: Vec<u8>,
        held: &mut Option<Vec<u8>>,
        random: &mut Random,
    ) -> std::io::Result<ControlFlow<()>> {
        let ended = match payload[0] {
            b'D' => !matches!(self.flaw, Flaw::IgnoreDisconnect | Flaw::EchoDisconnect),
            b'F' if self.flaw == Flaw::ForgetFarewell => true,
            _ => false,
        };
        if ended {
            return Ok(ControlFlow::Break(()));
        }
        let farewell = payload[0] == b'F' || payload[0] == b'D' && self.flaw == Flaw::EchoDisconnect;
        let flawed = self.messages.fetch_add(1, Ordering::Relaxed) % 50 == 40;
        let mut frame = Vec::new();
        match self.flaw {
            Flaw::Lose if flawed => return Ok(ControlFlow::Continue(())),
            Flaw::Double if flawed => self.framing.encode(&payload, random, &mut frame),
            Flaw::Swap if flawed && held.is_none() => {
                *held = Some(payload);
                return Ok(ControlFlow::Continue(()));
            }
            Flaw::FlipBit if flawed => payload[20] ^= 4,
            Flaw::Shorten if flawed => payload.truncate(18),
            Flaw::Hang if flawed => std::thread::sleep(Duration::from_secs(2)),
            Flaw::CloseEarly if flawed => return Ok(ControlFlow::Break(())),
            Flaw::CrossTalk => {
                let mut last = self.last.lock().expect("no panic while held");
                let other = std::mem::replace(&mut *last, payload.clone());
                if flawed && !other.is_empty() && other[1..9] != payload[1..9] {
                    payload = other;
                }
            }
            _ => {}
        }
        self.framing.encode(&payload, random, &mut frame);
        if let Some(held) = held.take() {
            self.framing.encode(&held, random, &mut frame);
        }
        if self.flaw == Flaw::CutFrame && flawed {
            stream.write_all(&frame[..frame.len() - 3])?;
            return Ok(ControlFlow::Break(()));
        }
        stream.write_all(&frame)?;
        Ok(if farewell { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Reads one frame; `None` if it is none.
    fn read(&self, stream: &mut TcpStream) -> std::io::Result<Option<(Kind, Vec<u8>)>> {
        let mut head = [0; 5];
        let head = &mut head[..self.framing.header_len()];
        // A classic code is judged before the rest of the header comes.
        stream.read_exact(&mut head[..1])?;
        if self.framing == Framing::Classic && head[0] != super::framing::CLASSIC_CODE {
            return Ok(None);
        }
        stream.read_exact(&mut head[1..])?;
        let Ok(header) = self.framing.header(head) else { return Ok(None) };
        if header.len > 1024 * 1024 {
            return Ok(None);
        }
        let mut payload = vec![0; header.len];
        stream.read_exact(&mut payload)?;
        Ok(self.framing.open(header, &mut payload, true).is_ok().then_some((header.kind, payload)))
    }

    /// Answers a LAN greeting. False if it was none.
    fn greet(&self, stream: &mut TcpStream) -> std::io::Result<bool> {
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        let greeting = self.read(stream)?;
        stream.set_read_timeout(None)?;
        let Some((Kind::Greeting, payload)) = greeting else { return Ok(false) };
        if !payload.starts_with(b"MDNG") {
            return Ok(false);
        }
        let mut out = Vec::new();
        if lan::check_greeting(&payload).is_err() {
            encode_lan(Kind::Refusal, b"\x01\x02\x00no", &mut out);
            stream.write_all(&out)?;
            return Ok(false);
        }
        encode_lan(Kind::Greeting, &lan::greeting(0), &mut out);
        encode_lan(Kind::Ping, &[1; 8], &mut out);
        encode_lan(Kind::Welcome, &[0; 16], &mut out);
        stream.write_all(&out)?;
        Ok(true)
    }

    /// Ends a connection that the server was asked to end: half-close, drain, close.
    fn leave(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.shutdown(std::net::Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    }

    /// Ends a connection whose bytes were wrong.
    fn turn_away(&self, mut stream: TcpStream) -> std::io::Result<()> {
        match self.flaw {
            Flaw::KeepGarbage => std::io::copy(&mut stream, &mut std::io::sink()).map(|_| {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }),
            Flaw::AnswerStranger => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").and(self.leave(stream))
            }
            _ => Ok(()),
        }
    }
}
