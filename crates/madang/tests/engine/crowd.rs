//! The goal of the waiting queue, on a LAN and encrypted: ten times as many clients as places all get in, in the order in
//! which they came, and those too who lose their link for two seconds on the way.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[cfg(feature = "wan")]
use madang::keys::PublicKey;
use madang::{DriverChoice, Server, ServerBuilder, WaitState, Waiter};

use crate::support::{Hello, PATIENCE, Raw, Recorder, finish, kind, lan, lan_frame, room_for_descriptors};

each_driver!(o4_a_thousand_clients_for_a_hundred_places_all_get_in_in_order,);

const CLIENTS: usize = 1_000;
const PLACES: usize = 100;

/// Four of these crowds, and the tests that run beside them; two descriptors a client.
const DESCRIPTORS: u64 = 16_384;

/// Waiters let in a second.
const RELEASE_RATE: u32 = 120;

/// Of those that come behind so many, every tenth loses its link: they have four seconds and more to wait then.
const DROP_BEHIND: usize = 600;

/// How long a link is down.
const AWAY: Duration = Duration::from_secs(2);

/// How long whoever is in plays.
const PLAYS: Duration = Duration::from_millis(500);

fn o4_a_thousand_clients_for_a_hundred_places_all_get_in_in_order(driver: DriverChoice) {
    let number = |waiter: &Waiter| waiter.peer.node.as_ref().expect("it greeted").incarnation;
    all_get_in(lan(driver), Tongue::Lan, number);
}

#[cfg(feature = "wan")]
mod encrypted {
    use madang::{Account, LogIn, Verdict};

    use super::*;
    use crate::support::wan;

    each_driver!(o4_a_thousand_players_for_a_hundred_places_all_get_in_in_order,);

    fn o4_a_thousand_players_for_a_hundred_places_all_get_in_in_order(driver: DriverChoice) {
        let (server, key) = wan(driver);
        let server = server.log_in(|log_in: &LogIn<'_>| {
            let number = log_in.token.try_into().expect("a token is a client's number");
            Verdict::Admit(Account::new(u64::from_le_bytes(number)))
        });
        let number = |waiter: &Waiter| waiter.peer.account.as_ref().expect("it logged in").id;
        all_get_in(server, Tongue::Wan(key), number);
    }
}

#[derive(Clone, Copy)]
enum Tongue {
    Lan,
    #[cfg(feature = "wan")]
    Wan(PublicKey),
}

/// All come, wait, play and go.
fn all_get_in(server: ServerBuilder, tongue: Tongue, number_of: fn(&Waiter) -> u64) {
    room_for_descriptors(DESCRIPTORS);
    let order: Arc<Mutex<Vec<(usize, u64)>>> = Arc::default();
    let joins = Arc::clone(&order);
    let (recorder, watch) = Recorder::new();
    let recorder = recorder.on_wait(move |cx, waiter, state| {
        if state == WaitState::Admitted {
            joins.lock().unwrap().push((cx.shard(), number_of(waiter)));
        }
        None
    });
    let server = server.max_sessions(PLACES).workers(2).set(|settings| {
        settings.queue_max = CLIENTS;
        settings.queue_update_ms = 200;
        settings.queue_release_rate = RELEASE_RATE;
        // Both sides may be as late as the machine makes them.
        settings.overload_lag_ms = 0;
        settings.dead_after_ms = 30_000;
    });
    let server = server.start(recorder).unwrap();
    let mut clients: Vec<Client> = Vec::with_capacity(CLIENTS);
    let mut read = Instant::now();
    for number in 0..CLIENTS {
        clients.push(Client::comes(&server, number, tongue));
        // Where connecting takes its time, those who are here have to show that they live.
        if read.elapsed() >= Duration::from_millis(500) {
            clients.iter_mut().for_each(Client::read);
            read = Instant::now();
        }
    }
    for client in clients.iter_mut().filter(|client| client.drops) {
        client.line = None;
        client.away_since = Some(Instant::now());
    }
    let deadline = Instant::now() + 3 * PATIENCE;
    while !clients.iter().all(|client| client.is_done) {
        assert!(Instant::now() < deadline, "{:?}", server.figures());
        for client in &mut clients {
            if client.away_since.is_some_and(|since| since.elapsed() >= AWAY) {
                client.away_since = None;
                client.connect(&server, tongue);
            }
            client.read();
            if client.joined.is_some_and(|joined| joined.elapsed() >= PLAYS) && !client.is_done {
                client.is_done = true;
                client.line = None;
            }
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let figures = server.figures();
    let dropped = clients.iter().filter(|client| client.drops).count() as u64;
    let waited = (CLIENTS - PLACES) as u64;
    assert!(dropped > 0, "nobody lost its link");
    assert_eq!((figures.queue_entered, figures.queue_admitted), (waited, waited), "{figures:?}");
    assert_eq!(figures.queue_returned, dropped);
    assert_eq!((figures.joins, figures.refused), (CLIENTS as u64, 0));
    let order = order.lock().unwrap();
    // Two shards tell of their own, each when it has its turn: what one lets in is in order, whatever the other does.
    for shard in 0..2 {
        let own = || order.iter().filter(|(of, _)| *of == shard).map(|(_, number)| *number);
        assert!(own().is_sorted_by(|a, b| a < b), "shard {shard}: {:?}", own().collect::<Vec<u64>>());
    }
    let mut numbers: Vec<u64> = order.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(PLACES as u64..CLIENTS as u64), "everybody got in, once");
    for client in clients.iter().filter(|client| client.number >= PLACES) {
        let Client { number, positions, .. } = client;
        let falls = positions.windows(2).all(|pair| pair[1] <= pair[0]);
        // The first in line may be in before there is news.
        assert!(falls && positions.len() > 1 || *number < PLACES + 30, "client {number}: {positions:?}");
    }
    drop(order);
    finish(server, &watch);
}

/// One client of the crowd, without a thread of its own.
struct Client {
    line: Option<Line>,
    number: usize,
    positions: Vec<u32>,
    ticket: Vec<u8>,
    joined: Option<Instant>,
    away_since: Option<Instant>,
    drops: bool,
    is_done: bool,
}

impl Client {
    /// One after the other, so that there is an order to keep.
    fn comes(server: &Server, number: usize, tongue: Tongue) -> Client {
        let mut client = Client {
            line: None,
            number,
            positions: vec![],
            ticket: vec![],
            joined: None,
            away_since: None,
            drops: number % 10 == 0 && number > DROP_BEHIND,
            is_done: false,
        };
        client.connect(server, tongue);
        let deadline = Instant::now() + PATIENCE;
        while client.joined.is_none() && client.positions.is_empty() {
            client.read();
            assert!(Instant::now() < deadline, "client {number} hears nothing");
            std::thread::yield_now();
        }
        assert_eq!(client.joined.is_some(), number < PLACES, "client {number}: {:?}", client.positions);
        client
    }

    fn connect(&mut self, server: &Server, tongue: Tongue) {
        let mut line = match tongue {
            Tongue::Lan => {
                let ticket = self.ticket.clone();
                let hello = Hello { incarnation: self.number as u64, ticket, ..Hello::default() };
                let mut raw = Raw::connect(server.local_addr());
                raw.write(&hello.frame());
                Line::Lan { raw, inbox: vec![] }
            }
            #[cfg(feature = "wan")]
            Tongue::Wan(key) => {
                let mut sealed = crate::support::Sealed::connect(server.local_addr(), &key);
                let log_in = crate::support::log_in_with(&(self.number as u64).to_le_bytes(), &self.ticket);
                let log_in = sealed.record(&log_in);
                sealed.raw.write(&log_in);
                Line::Wan(Box::new(sealed))
            }
        };
        line.raw().stream.set_nonblocking(true).unwrap();
        self.line = Some(line);
    }

    /// Reads what is there.
    fn read(&mut self) {
        let Some(line) = &mut self.line else { return };
        line.fill(self.number);
        while let Some((frame, payload)) = line.next() {
            match frame {
                kind::QUEUE => self.positions.push(u32::from_le_bytes(payload[..4].try_into().unwrap())),
                kind::TICKET => self.ticket = payload[7..].to_vec(),
                kind::WELCOME => self.joined = Some(Instant::now()),
                kind::PING => line.pong(&payload),
                other => assert_eq!(other, kind::GREETING, "client {}", self.number),
            }
        }
    }
}

/// A connection that does not block.
enum Line {
    Lan {
        raw: Raw,
        inbox: Vec<u8>,
    },
    #[cfg(feature = "wan")]
    Wan(Box<crate::support::Sealed>),
}

impl Line {
    fn raw(&mut self) -> &mut Raw {
        match self {
            Line::Lan { raw, .. } => raw,
            #[cfg(feature = "wan")]
            Line::Wan(sealed) => &mut sealed.raw,
        }
    }

    fn fill(&mut self, number: usize) {
        let (raw, inbox) = match self {
            Line::Lan { raw, inbox } => (raw, inbox),
            #[cfg(feature = "wan")]
            Line::Wan(sealed) => (&mut sealed.raw, &mut sealed.inbox),
        };
        let mut room = [0; 4_096];
        while let Ok(len) = raw.stream.read(&mut room) {
            assert!(len > 0, "client {number} was cut");
            inbox.extend(&room[..len]);
        }
    }

    /// The next frame, if it is there whole.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        match self {
            Line::Lan { inbox, .. } => {
                let header = u32::from_le_bytes(*inbox.first_chunk()?);
                let len = 4 + (header & 0x00ff_ffff) as usize;
                if inbox.len() < len {
                    return None;
                }
                let frame: Vec<u8> = inbox.drain(..len).collect();
                Some(((header >> 24) as u8, frame[4..].to_vec()))
            }
            #[cfg(feature = "wan")]
            Line::Wan(sealed) => sealed.here().map(|(kind, payload)| (kind as u8, payload)),
        }
    }

    fn pong(&mut self, payload: &[u8]) {
        let pong = lan_frame(kind::PONG, payload);
        let pong = match self {
            Line::Lan { .. } => pong,
            #[cfg(feature = "wan")]
            Line::Wan(sealed) => sealed.record(&pong),
        };
        self.raw().write(&pong);
    }
}
