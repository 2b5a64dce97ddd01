//! Everything at once, in an order drawn from a seed: bytes both ways, pauses, ends of every kind, each racing the others.
//! `MADANG_CHAOS_ROUNDS` connections live through it; a short run is part of every test run, 10^5 is an evening's.

use madang_driver::sim::Random;
use madang_driver::{Driver, Outgoing, RecvEnd};

use crate::rig::{Heard, RawPeer, Rig};
use crate::station::{Recv, Station, pattern};

const ROUNDS: usize = 120;

pub fn chaos_loses_doubles_and_alters_nothing<R: Rig>(rig: R) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let rounds = match number("MADANG_CHAOS_ROUNDS") {
        Some(rounds) => rounds as usize,
        None if rig.is_unruly() => ROUNDS / 10,
        None => ROUNDS,
    };
    let seed = number("MADANG_CHAOS_SEED").unwrap_or(20_260_101);
    eprintln!("chaos: seed {seed}, {rounds} rounds");
    let mut random = Random::new(seed);
    let mut station = Station::new(rig);
    for _ in 0..rounds {
        live_one_life(&mut station, &mut random);
    }
    station.finish();
}

/// What one connection has been through.
struct Life<P> {
    peer: P,
    to_us: Vec<u8>,
    written: usize,
    from_us: Vec<u8>,
    /// How much of `from_us` was given to a send; what it left over is `unsent`.
    given: usize,
    unsent: Option<Outgoing>,
    got: Vec<u8>,
}

fn live_one_life<R: Rig>(station: &mut Station<R>, random: &mut Random) {
    let (conn, peer) = station.pair();
    let size_max = station.amount(30_000) as u64;
    let mut life = Life {
        peer,
        to_us: pattern(random.between(1, size_max) as usize),
        written: 0,
        from_us: pattern(random.between(1, size_max) as usize),
        given: 0,
        unsent: None,
        got: Vec::new(),
    };
    for _ in 0..random.below(40) {
        match random.below(8) {
            0 => life.peer_writes(random),
            1 => station.keep_receiving(conn),
            2 => station.pause(conn),
            3 => station.resume(conn),
            4 | 5 => life.send(station, conn, random),
            6 => {
                life.peer.read(&mut life.got);
            }
            _ => station.turn(),
        }
    }
    match random.below(4) {
        0 => {
            let seen = station.leave(conn);
            assert!(life.to_us.starts_with(&seen.bytes), "an abort tells a prefix");
        }
        1 => {
            station.resume(conn);
            let Life { peer, to_us, .. } = life;
            peer.reset();
            let end = station.receive_to_end(conn);
            assert!(end != RecvEnd::NoBuffers, "{end:?}");
            let seen = station.settle(conn);
            assert!(to_us.starts_with(&seen.bytes), "a reset leaves a prefix");
            return;
        }
        _ => life.end_gracefully(station, conn),
    }
    life.peer.read(&mut life.got);
    assert!(life.from_us.starts_with(&life.got), "the peer has a prefix of what was sent");
}

impl<P: RawPeer> Life<P> {
    fn peer_writes(&mut self, random: &mut Random) {
        let end = (self.written + random.between(1, 9_000) as usize).min(self.to_us.len());
        self.written += self.peer.write(&self.to_us[self.written..end]);
    }

    fn send<R: Rig<Peer = P>>(
        &mut self,
        station: &mut Station<R>,
        conn: madang_driver::Conn,
        random: &mut Random,
    ) {
        if station.is_sending(conn) {
            return;
        }
        if let Some((outgoing, result)) = station.seen(conn).sent.take() {
            result.expect("nothing breaks this connection");
            self.unsent = (!outgoing.is_empty()).then_some(outgoing);
        }
        if self.unsent.is_none() && self.given < self.from_us.len() {
            let end = (self.given + random.between(1, 9_000) as usize).min(self.from_us.len());
            self.unsent =
                Some(station.outgoing(&self.from_us[self.given..end], random.between(1, 900) as usize));
            self.given = end;
        }
        if let Some(outgoing) = self.unsent.take() {
            self.unsent = station.send(conn, outgoing).err();
        }
    }

    /// Everything goes over in both directions, then both end.
    fn end_gracefully<R: Rig<Peer = P>>(&mut self, station: &mut Station<R>, conn: madang_driver::Conn) {
        station.resume(conn);
        let mut random = Random::new(self.given as u64);
        let (mut is_half_closed, mut is_shut) = (false, false);
        station.until("a graceful end", |station| {
            self.written += self.peer.write(&self.to_us[self.written..]);
            if self.written == self.to_us.len() && !std::mem::replace(&mut is_shut, true) {
                self.peer.shutdown_write();
            }
            station.keep_receiving(conn);
            self.send(station, conn, &mut random);
            let is_sent =
                self.given == self.from_us.len() && self.unsent.is_none() && !station.is_sending(conn);
            if is_sent && station.seen(conn).sent.is_none() && !std::mem::replace(&mut is_half_closed, true) {
                station.driver.half_close(conn);
            }
            let heard = self.peer.read(&mut self.got);
            heard == Heard::Eof && station.seen(conn).recv == Recv::Over
        });
        let seen = station.settle(conn);
        assert_eq!(seen.end, Some(RecvEnd::Eof));
        assert!(seen.bytes == self.to_us, "a graceful end loses nothing on the way to us");
        assert!(self.got == self.from_us, "a graceful end loses nothing on the way to the peer");
    }
}
