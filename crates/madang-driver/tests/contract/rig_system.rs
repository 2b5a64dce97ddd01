//! The real systems as rigs: loopback sockets of the standard library are the peers.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use madang_driver::readiness::Readiness;
use madang_driver::{Driver, DriverSettings};
use socket2::{Domain, Socket, Type};

use crate::rig::{Heard, RawListener, RawPeer, Rig};

pub struct SystemRig<D>(PhantomData<D>);

/// A driver of this machine that may be refused here.
pub trait SystemDriver: Driver + Sized {
    fn make(settings: &DriverSettings) -> Result<Self, String>;
}

impl SystemDriver for Readiness {
    fn make(settings: &DriverSettings) -> Result<Readiness, String> {
        Readiness::new(settings).map_err(|error| error.to_string())
    }
}

#[cfg(target_os = "linux")]
impl SystemDriver for madang_driver::uring::Uring {
    fn make(settings: &DriverSettings) -> Result<Self, String> {
        Self::new(settings).map_err(|refused| refused.to_string())
    }
}

/// Runs the case, or says in a line why it cannot.
pub fn run<D: SystemDriver>(case: fn(SystemRig<D>)) {
    match D::make(&DriverSettings::default()) {
        Ok(_) => case(SystemRig(PhantomData)),
        Err(refusal) => eprintln!("skipped: {refusal}"),
    }
}

impl<D: SystemDriver> Rig for SystemRig<D> {
    type Driver = D;
    type Peer = TcpStream;
    type PeerListener = TcpListener;

    fn driver(&self, settings: &DriverSettings) -> D {
        D::make(settings).expect("the system had one a moment ago")
    }

    fn peer_from(&self, host: u8, to: SocketAddr) -> TcpStream {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        if to.is_ipv4() {
            socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).expect("a loopback address");
        }
        // The backlog answers at once; whoever wants it otherwise fills the backlog first.
        socket.connect_timeout(&to.into(), Duration::from_secs(5)).expect("somebody listens");
        socket.set_nonblocking(true).expect("a plain option");
        socket.into()
    }

    fn refuses(&self, to: SocketAddr) -> bool {
        TcpStream::connect(to).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    fn peer_listener(&self) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a plain option");
        listener
    }

    fn pass(&self, _idle: bool) {}
}

impl RawPeer for TcpStream {
    fn local(&self) -> SocketAddr {
        self.local_addr().expect("it is bound")
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        Write::write(self, bytes).unwrap_or(0)
    }

    fn read(&mut self, into: &mut Vec<u8>) -> Heard {
        let mut buffer = [0; 64 * 1024];
        match Read::read(self, &mut buffer) {
            Ok(0) => Heard::Eof,
            Ok(count) => {
                into.extend_from_slice(&buffer[..count]);
                Heard::Bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::Broken,
        }
    }

    fn shutdown_write(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn reset(self) {
        let socket = Socket::from(self);
        socket.set_linger(Some(Duration::ZERO)).expect("a plain option");
    }
}

impl RawListener for TcpListener {
    type Peer = TcpStream;

    fn address(&self) -> SocketAddr {
        self.local_addr().expect("it is bound")
    }

    fn accept(&mut self) -> Option<TcpStream> {
        let (stream, _) = TcpListener::accept(self).ok()?;
        stream.set_nonblocking(true).expect("a plain option");
        Some(stream)
    }
}
