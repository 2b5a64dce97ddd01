//! A throwaway echo server for the tests: one thread a connection, and misbehaviour on demand.
//!
//! It speaks the framings with the dummy's own codec: it stands in for a server, it does not judge the codec. The
//! goldens in `framing`, `lan` and `wan` do that.

mod peer;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;

use self::peer::Peer;
use super::framing::{Framing, Kind, encode_frame};
use super::{lan, wan};

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
    /// Waits for good for a client that does not read.
    SufferAll,
    /// Refuses each third connection.
    Refuse,
    /// WAN: ends a connection without the goodbye that says that nothing is missing.
    ForgetGoodbye,
    /// WAN: sends a client back in the queue.
    PositionRises,
    /// WAN: puts a client that shows its ticket behind others.
    LoseTurn,
    /// WAN: takes a message from a record that does not open, or a second time.
    TakeGarbage,
}

/// Serves from its birth to its drop.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

/// How long a client may not read.
const SUFFERED: Duration = Duration::from_millis(700);

/// As little as a double needs: it is to feel soon that a client does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// The secret key of every double.
const SECRET: [u8; 32] = [0x5e; 32];

/// What a client of the double must pin.
pub(crate) fn public_key() -> wan::PublicKey {
    wan::Server::new(SECRET).public()
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
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        if self.flaw != Flaw::SufferAll {
            stream.set_write_timeout(Some(SUFFERED))?;
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        }
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        if self.flaw == Flaw::Refuse && number % 3 == 2 {
            return Ok(());
        }
        let mut peer = Peer::new(stream, self.framing, number);
        if !self.let_in(&mut peer)? {
            return self.turn_away(peer);
        }
        let mut held = None;
        loop {
            match peer.read()? {
                Some((Kind::Message, payload)) => {
                    if self.echo(&mut peer, payload, &mut held)?.is_break() {
                        return self.leave(peer);
                    }
                }
                Some((Kind::Goodbye, _)) => return Ok(()),
                Some((Kind::Ping | Kind::Pong, _)) => {}
                _ => return self.turn_away(peer),
            }
        }
    }

    fn echo(
        &self,
        peer: &mut Peer,
        mut payload: Vec<u8>,
        held: &mut Option<Vec<u8>>,
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
            Flaw::Double if flawed => self.framing.encode(&payload, &mut peer.random, &mut frame),
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
        self.framing.encode(&payload, &mut peer.random, &mut frame);
        if let Some(held) = held.take() {
            self.framing.encode(&held, &mut peer.random, &mut frame);
        }
        if self.flaw == Flaw::CutFrame && flawed {
            peer.send_cut(&frame)?;
            return Ok(ControlFlow::Break(()));
        }
        peer.send(&frame)?;
        Ok(if farewell { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// The LAN's greeting, or the WAN's handshake and log-in. False if it was none.
    fn let_in(&self, peer: &mut Peer) -> std::io::Result<bool> {
        peer.hurry(true)?;
        let let_in = match self.framing {
            Framing::Lan => self.greet(peer)?,
            Framing::Wan => peer.shake_hands(&wan::Server::new(SECRET))? && self.log_in(peer)?,
            Framing::Be32 | Framing::Classic => true,
        };
        peer.hurry(false)?;
        Ok(let_in)
    }

    /// Answers a LAN greeting.
    fn greet(&self, peer: &mut Peer) -> std::io::Result<bool> {
        let Some((Kind::Greeting, payload)) = peer.read()? else { return Ok(false) };
        if !payload.starts_with(b"MDNG") {
            return Ok(false);
        }
        let mut out = Vec::new();
        if lan::check_greeting(&payload).is_err() {
            encode_frame(Kind::Refusal, b"\x01\x02\x00no", &mut out);
            peer.send(&out)?;
            return Ok(false);
        }
        encode_frame(Kind::Greeting, &lan::greeting(0, b""), &mut out);
        encode_frame(Kind::Ping, &[1; 8], &mut out);
        encode_frame(Kind::Welcome, &[0; 16], &mut out);
        peer.send(&out)?;
        Ok(true)
    }

    /// Takes any log-in, after a while in the queue.
    fn log_in(&self, peer: &mut Peer) -> std::io::Result<bool> {
        let Some((Kind::LogIn, payload)) = peer.read()? else { return Ok(false) };
        let shows_ticket = payload == wan::words::log_in(b"let me in", b"me");
        if !shows_ticket && payload != wan::words::log_in(b"let me in", b"") {
            return Ok(false);
        }
        let positions = match self.flaw {
            Flaw::PositionRises => [2, 3],
            Flaw::LoseTurn if shows_ticket => [3, 1],
            _ => [2, 1],
        };
        let mut out = Vec::new();
        encode_frame(Kind::Ticket, b"\x01\x88\x13\0\0\x02\0me", &mut out);
        for position in positions {
            let state = [position, 3, u32::MAX].map(u32::to_le_bytes).concat();
            encode_frame(Kind::Queue, &state, &mut out);
        }
        encode_frame(Kind::Welcome, &[0; 16], &mut out);
        peer.send(&out)?;
        Ok(true)
    }

    /// Ends a connection that the server was asked to end: goodbye, half-close, drain, close.
    fn leave(&self, mut peer: Peer) -> std::io::Result<()> {
        if self.framing == Framing::Wan && !matches!(self.flaw, Flaw::ForgetGoodbye | Flaw::CutFrame) {
            let mut goodbye = Vec::new();
            encode_frame(Kind::Goodbye, &lan::goodbye(), &mut goodbye);
            peer.send(&goodbye)?;
        }
        peer.half_close_and_drain()
    }

    /// Ends a connection whose bytes were wrong.
    fn turn_away(&self, mut peer: Peer) -> std::io::Result<()> {
        match self.flaw {
            Flaw::KeepGarbage => {
                peer.drain()?;
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Flaw::AnswerStranger => {
                peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").and(peer.half_close_and_drain())
            }
            Flaw::TakeGarbage if peer.is_secured() => {
                let mut frame = Vec::new();
                encode_frame(Kind::Message, b"garbage", &mut frame);
                peer.send(&frame.repeat(2))
            }
            _ => Ok(()),
        }
    }
}
