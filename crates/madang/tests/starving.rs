//! Few receive buffers, many peers that all send at once: everybody is served, in turn.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use madang::{Context, DriverChoice, ForeignFraming, ForeignServer, Handler, Message, SessionId, Settings};

struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let reply = cx.packet(message.bytes());
        cx.send(session, reply).ignore();
    }
}

/// Each peer writes a burst that alone would fill the server's buffers, reads it all back, and begins again.
fn check(driver: DriverChoice) {
    const PEERS: usize = 24;
    const ROUNDS: usize = 12;
    let mut settings = Settings::default();
    settings.driver = driver;
    settings.recv_buffers = 2;
    settings.turn_completions_max = 16;
    settings.idle_timeout_ms = 2_000;
    let server = ForeignServer::with(settings, ForeignFraming::be32()).start(Echo).unwrap();
    let address = server.local_addr();
    let peers: Vec<_> = (0..PEERS)
        .map(|peer| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let frame: Vec<u8> = [&1_000u32.to_be_bytes()[..], &[peer as u8; 1_000]].concat();
                let burst = frame.repeat(150);
                let mut echo = vec![0; burst.len()];
                for round in 0..ROUNDS {
                    stream
                        .write_all(&burst)
                        .unwrap_or_else(|error| panic!("peer {peer}, round {round}: {error}"));
                    stream
                        .read_exact(&mut echo)
                        .unwrap_or_else(|error| panic!("peer {peer}, round {round}: {error}"));
                    assert!(echo == burst, "peer {peer}, round {round}: altered");
                }
            })
        })
        .collect();
    for peer in peers {
        peer.join().unwrap();
    }
    let stopped = server.stop().unwrap();
    assert!(stopped.report().is_clean(), "{:?}", stopped.report());
}

#[test]
fn u01_peers_that_starve_for_buffers_are_served_in_turn_and_not_cut_for_silence() {
    check(DriverChoice::Auto);
    #[cfg(unix)]
    check(DriverChoice::Readiness);
}
