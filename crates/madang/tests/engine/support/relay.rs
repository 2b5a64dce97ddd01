//! A wire between a client and a server that a test can cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes bytes on, both ways, between whoever connects and a server.
pub(crate) struct Relay {
    address: SocketAddr,
    /// Both ends of all that was passed on.
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    pub(crate) fn start(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let relay = Relay { address: listener.local_addr().expect("it is bound"), ends: Arc::default() };
        let ends = Arc::clone(&relay.ends);
        // It ends with the test's process, or when the server is gone.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { return };
                let [client_again, server_again] =
                    [&client, &server].map(|end| end.try_clone().expect("a handle"));
                ends.lock()
                    .expect("nothing panics under this lock")
                    .extend([&client, &server].map(|end| end.try_clone().expect("a handle")));
                thread::spawn(move || pass_on(client, server_again));
                thread::spawn(move || pass_on(server, client_again));
            }
        });
        relay
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts what is connected now.
    pub(crate) fn cut(&self) {
        for end in self.ends.lock().expect("nothing panics under this lock").drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut room = [0; 4_096];
    while let Ok(len @ 1..) = from.read(&mut room) {
        if to.write_all(&room[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
