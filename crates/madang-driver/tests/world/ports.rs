//! The manners of completion ports, one by one and always: what each shows to whoever keeps the contract, and whom it
//! catches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use madang_driver::sim::{FaultKind, Faults, Peer, SimDriver, World};
use madang_driver::{
    Completion, Conn, Driver, DriverSettings, ListenOptions, NetError, Outgoing, RecvEnd, Wait,
};
use madang_packet::{Depot, PoolSettings};

/// One connection in a world that has this manner, and no other fault.
struct Scene {
    kind: FaultKind,
    world: World,
    driver: SimDriver,
    depot: Depot,
    conn: Conn,
    peer: Peer,
}

/// More than is on its way at once: a send of so much stays in flight while nobody reads.
const LONG: usize = 1 << 20;

impl Scene {
    fn new(kind: FaultKind) -> Scene {
        let world = World::new(1, Faults::none().with(kind, 1_000_000));
        let mut driver = world.driver(DriverSettings::default());
        let (_, address) = driver.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let peer = world.peer("127.0.0.1:0".parse().unwrap(), address).unwrap();
        let mut told = Vec::new();
        let conn = loop {
            driver.poll(&mut told, 8, Wait::until(driver.now() + Duration::from_millis(1)));
            world.step();
            if let Some(Completion::Accepted { incoming, .. }) = told.pop() {
                break driver.attach(incoming).unwrap();
            }
        };
        Scene { kind, world, driver, depot: Depot::new(PoolSettings::default()), conn, peer }
    }

    fn send(&mut self, bytes: usize) {
        let mut packet = self.depot.packet(bytes).unwrap();
        packet.extend_from_slice(&vec![7; bytes]);
        let mut outgoing = Outgoing::new();
        outgoing.push(packet.freeze());
        self.driver.send(self.conn, outgoing).unwrap();
    }

    /// Lets everything happen that happens by itself within a moment, in which nothing is told that is told late.
    fn pass(&mut self) {
        self.world.advance(self.world.now() + Duration::from_micros(2));
    }

    /// What is told now.
    fn told(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        self.driver.poll(&mut told, 8, Wait::until(self.world.now()));
        told.into_iter().map(Told::of).collect()
    }

    /// What is told from now on, when all is told.
    fn told_in_the_end(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..100 {
            told.extend(self.told());
            self.world.advance(self.world.now() + Duration::from_millis(10));
        }
        assert!(self.world.fault_counts().of(self.kind) > 0, "it has happened");
        told
    }
}

/// A completion without what it gives back.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Sent(Result<usize, NetError>),
    Data(usize, More),
    RecvEnded(RecvEnd),
}

#[derive(Debug, PartialEq, Eq)]
enum More {
    Comes,
    Ends,
}

impl Told {
    fn of(completion: Completion) -> Told {
        match completion {
            Completion::Sent { result, .. } => Told::Sent(result),
            Completion::Data { bytes, more, .. } => {
                Told::Data(bytes.len(), if more { More::Comes } else { More::Ends })
            }
            Completion::RecvEnded { end, .. } => Told::RecvEnded(end),
            other => panic!("nothing else is under way: {other:?}"),
        }
    }
}

/// Whoever does this breaks the contract, and is told the rule.
#[track_caller]
fn check_caught(scene: &mut Scene, rule: &str, breach: impl FnOnce(&mut Scene)) {
    let panic = catch_unwind(AssertUnwindSafe(|| breach(scene))).expect_err(rule);
    let message = panic.downcast_ref::<String>().expect("a panic with a message");
    assert!(message.contains(rule), "expected: {rule}; got: {message}");
}

#[test]
fn w04_a_send_that_is_done_at_once_is_told_when_its_bytes_were_read_long_since() {
    let mut scene = Scene::new(FaultKind::SentAtOnceToldLate);
    scene.send(100);
    scene.pass();
    assert_eq!(scene.peer.read(&mut [0; 200]), 100);
    assert_eq!(scene.told(), []);
    assert_eq!(scene.depot.figures().in_use.blocks, 1, "its packet is the operation's until then");
    assert_eq!(scene.told_in_the_end(), [Told::Sent(Ok(100))]);
    assert_eq!(scene.depot.figures().in_use.blocks, 0);
    // Whoever takes the peer's answer for the end of the send.
    check_caught(&mut scene, "one send in flight", |scene| {
        scene.send(100);
        scene.pass();
        assert_eq!(scene.peer.read(&mut [0; 200]), 100);
        scene.send(100);
    });
}

#[test]
fn w05_a_send_that_fails_at_once_is_told_once_and_brings_its_packets_back() {
    let mut scene = Scene::new(FaultKind::SendFailsAtOnce);
    scene.driver.recv_start(scene.conn).unwrap();
    scene.send(100);
    assert_eq!(scene.told()[0], Told::Sent(Err(NetError::Reset)));
    assert_eq!(scene.depot.figures().in_use.blocks, 0);
    assert_eq!(scene.peer.read(&mut [0; 200]), 0);
    // Whoever takes it for the end of the receive too.
    let mut scene = Scene::new(FaultKind::SendFailsAtOnce);
    scene.driver.recv_start(scene.conn).unwrap();
    scene.send(100);
    check_caught(&mut scene, "after the receive's terminal", |scene| scene.driver.retire(scene.conn));
}

#[test]
fn w02_what_an_abort_called_off_is_told_a_while_after_the_close() {
    let mut scene = Scene::new(FaultKind::WordsAfterClose);
    scene.driver.recv_start(scene.conn).unwrap();
    scene.send(LONG);
    scene.driver.abort(scene.conn);
    assert_eq!(scene.told(), []);
    assert!(scene.depot.figures().in_use.blocks > 0, "its packet is the operation's until then");
    // Whoever retires what was aborted without waiting for its words.
    check_caught(&mut scene, "after the receive's terminal", |scene| scene.driver.retire(scene.conn));
    let mut told = scene.told_in_the_end();
    told.sort_by_key(|told| matches!(told, Told::Sent(_)));
    assert!(matches!(told[..], [Told::RecvEnded(_), Told::Sent(_)]), "{told:?}");
    scene.driver.retire(scene.conn);
}

#[test]
fn w01_what_an_abort_called_off_was_done_already_with_all_its_bytes() {
    let mut scene = Scene::new(FaultKind::CancelledAfterSuccess);
    scene.peer.write(&[3; 50]);
    scene.pass();
    scene.driver.recv_start(scene.conn).unwrap();
    scene.send(LONG);
    scene.driver.abort(scene.conn);
    let mut told = scene.told_in_the_end();
    told.sort_by_key(|told| matches!(told, Told::Sent(_)));
    assert_eq!(told, [Told::Data(50, More::Ends), Told::Sent(Ok(LONG))]);
    scene.driver.retire(scene.conn);
}
