//! The real systems as rigs: loopback sockets of the standard library are the peers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use madang_driver::{Driver, DriverSettings};
use socket2::{Domain, Socket, Type};

use crate::rig::{Heard, RawListener, RawPeer, Rig};

pub struct SystemRig<D> {
    make: fn(&DriverSettings) -> Result<D, String>,
}

/// A driver of this machine that may be refused here.
pub trait SystemDriver: Driver + Sized {
    fn make(settings: &DriverSettings) -> Result<Self, String>;
}

#[cfg(unix)]
impl SystemDriver for madang_driver::readiness::Readiness {
    fn make(settings: &DriverSettings) -> Result<Self, String> {
        Self::new(settings).map_err(|error| error.to_string())
    }
}

#[cfg(target_os = "linux")]
impl SystemDriver for madang_driver::uring::Uring {
    fn make(settings: &DriverSettings) -> Result<Self, String> {
        Self::new(settings).map_err(|refused| refused.to_string())
    }
}

#[cfg(windows)]
impl SystemDriver for madang_driver::iocp::Iocp {
    fn make(settings: &DriverSettings) -> Result<Self, String> {
        Self::new(settings).map_err(|error| error.to_string())
    }
}

/// Runs the case, or says in a line why it cannot.
pub fn run<D: SystemDriver>(case: fn(SystemRig<D>)) {
    run_with(D::make, case);
}

/// The same with sockets in the ring's own file table.
#[cfg(target_os = "linux")]
pub fn run_with_own_file_table<D: SystemDriver>(case: fn(SystemRig<D>)) {
    run_with(|settings| D::make(&DriverSettings { own_file_table: true, ..settings.clone() }), case);
}

/// The same with a packet for everything, as on a machine with a layered network provider.
#[cfg(windows)]
pub fn run_with_packets_always(case: fn(SystemRig<madang_driver::iocp::Iocp>)) {
    use madang_driver::iocp::Iocp;
    run_with(|settings| Iocp::with_packets_always(settings).map_err(|error| error.to_string()), case);
}

/// The same with sockets that have no send buffer, as long as few bytes are locked by it.
#[cfg(windows)]
pub fn run_without_send_buffers<D: SystemDriver>(case: fn(SystemRig<D>)) {
    run_with(
        |settings| D::make(&DriverSettings { unbuffered_sends_bytes_max: 256 * 1024, ..settings.clone() }),
        case,
    );
}

fn run_with<D: SystemDriver>(make: fn(&DriverSettings) -> Result<D, String>, case: fn(SystemRig<D>)) {
    match make(&DriverSettings::default()) {
        Ok(_) => case(SystemRig { make }),
        Err(refusal) => eprintln!("skipped: {refusal}"),
    }
}

/// Runs a test of this binary that is otherwise ignored, in a process of its own: it changes what the whole process has.
#[cfg(unix)]
pub fn in_own_process(test: &str) {
    let binary = std::env::current_exe().expect("a test knows its binary");
    let output = std::process::Command::new(binary)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .output()
        .expect("a test can start itself");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{test} in its own process: {told}");
}

impl<D: SystemDriver> Rig for SystemRig<D> {
    type Driver = D;
    type Peer = TcpStream;
    type PeerListener = TcpListener;

    fn driver(&self, settings: &DriverSettings) -> D {
        (self.make)(settings).expect("the system had one a moment ago")
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

    #[cfg(unix)]
    fn limit_descriptors(&self, more: Option<usize>) {
        use std::os::fd::AsRawFd;

        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        // Descriptors are handed out lowest first, and the limit is on their numbers.
        let lowest_free = || std::fs::File::open("/dev/null").expect("a descriptor").as_raw_fd() as u64;
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = more.map(|more| lowest_free() + more as u64).or(maximum);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("below the hard limit");
    }

    #[cfg(not(unix))]
    fn limit_descriptors(&self, _more: Option<usize>) {
        unreachable!("here a process has no limit to lower: the driver's own tests have the case");
    }

    fn pass(&self, _idle: bool) {}

    #[cfg(windows)]
    fn tells_resets(&self) -> bool {
        !is_wine()
    }
}

/// Wine (8.0) shuts a socket down in both directions before it closes it, whatever its linger option says: a FIN goes out,
/// and the reset behind it comes too late to be heard for certain.
#[cfg(windows)]
fn is_wine() -> bool {
    // A program that Windows itself does not have.
    std::path::Path::new(r"C:\windows\system32\wineboot.exe").exists()
}

impl RawPeer for TcpStream {
    fn local(&self) -> SocketAddr {
        self.local_addr().expect("it is bound")
    }

    fn is_connected(&self) -> bool {
        true // it was made so
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
