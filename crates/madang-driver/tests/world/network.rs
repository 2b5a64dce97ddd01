//! The simulated network does what real ones were seen to do (the M rows of the fault catalogue).

use std::net::SocketAddr;
use std::time::Duration;

use madang_driver::sim::{Faults, Peer, PeerState, SimDriver, World};
use madang_driver::{
    Completion, Conn, ConnectOptions, Driver, DriverSettings, ListenOptions, NetError, Outgoing, RecvEnd,
    Wait,
};
use madang_packet::{Depot, PoolSettings};

struct Scene {
    world: World,
    driver: SimDriver,
    address: SocketAddr,
    told: Vec<Completion>,
}

impl Scene {
    fn new(options: ListenOptions) -> Scene {
        let world = World::new(1, Faults::none());
        let mut driver = world.driver(DriverSettings::default());
        let (_, address) = driver.listen(&options).unwrap();
        Scene { world, driver, address, told: Vec::new() }
    }

    fn plain() -> Scene {
        Scene::new(ListenOptions::new("127.0.0.1:0".parse().unwrap()))
    }

    fn peer(&self) -> Peer {
        self.world.peer("10.0.0.7:0".parse().unwrap(), self.address).unwrap()
    }

    /// Polls until `wanted` finds what it looks for; at most an hour.
    fn expect<T>(&mut self, mut wanted: impl FnMut(&Completion) -> Option<T>) -> T {
        let deadline = self.world.now() + Duration::from_secs(3_600);
        while self.world.now() < deadline {
            if let Some(found) = self.told.iter().find_map(&mut wanted) {
                self.told.retain(|completion| wanted(completion).is_none());
                return found;
            }
            self.told.retain(|completion| !matches!(completion, Completion::Data { .. }));
            self.driver.poll(&mut self.told, 64, Wait::until(self.world.now() + Duration::from_millis(100)));
            self.world.step();
        }
        panic!("it never came; told: {:?}", self.told);
    }

    fn attach_next(&mut self) -> Conn {
        loop {
            let accepted =
                self.told.iter().position(|completion| matches!(completion, Completion::Accepted { .. }));
            if let Some(Completion::Accepted { incoming, .. }) = accepted.map(|index| self.told.remove(index))
            {
                return self.driver.attach(incoming).unwrap();
            }
            self.driver.poll(&mut self.told, 64, Wait::until(self.world.now() + Duration::from_millis(100)));
            self.world.step();
        }
    }

    fn pair(&mut self) -> (Conn, Peer) {
        let peer = self.peer();
        let conn = self.attach_next();
        while !peer.is_open() {
            self.world.step();
        }
        (conn, peer)
    }

    fn send(&mut self, conn: Conn, bytes: usize) {
        let mut packet = Depot::new(PoolSettings::default()).packet(bytes).unwrap();
        packet.extend_from_slice(&vec![1; bytes]);
        let mut outgoing = Outgoing::new();
        outgoing.push(packet.freeze());
        self.driver.send(conn, outgoing).unwrap();
    }

    fn recv_end(&mut self) -> RecvEnd {
        self.expect(|completion| match completion {
            Completion::RecvEnded { end, .. } => Some(*end),
            _ => None,
        })
    }

    /// Lets everything happen that happens by itself within `span`.
    fn pass(&mut self, span: Duration) {
        self.world.advance(self.world.now() + span);
    }
}

#[test]
fn m7_a_close_with_unread_input_resets_and_loses_the_tail() {
    let mut scene = Scene::plain();
    for unread in [false, true] {
        let (conn, mut peer) = scene.pair();
        if unread {
            peer.write(b"never read");
            scene.pass(Duration::from_millis(1));
        }
        scene.send(conn, 10_000);
        scene.expect(|completion| matches!(completion, Completion::Sent { .. }).then_some(()));
        scene.driver.retire(conn);
        scene.pass(Duration::from_secs(1));
        let mut tail = vec![0; 20_000];
        let got = peer.read(&mut tail);
        let expected = if unread { PeerState::Failed(NetError::Reset) } else { PeerState::Ended };
        assert_eq!(peer.state(), expected, "unread: {unread}");
        assert!(unread || got == 10_000);
    }
}

#[test]
fn m12_data_and_reset_before_the_accept_are_told_as_data_and_error() {
    let mut scene = Scene::plain();
    let (mut told_data, mut gone) = (0, 0);
    for _ in 0..40 {
        let mut peer = scene.peer();
        while !peer.is_open() {
            scene.world.step();
        }
        assert_eq!(peer.write(b"hello"), 5);
        scene.pass(Duration::from_millis(1));
        peer.reset();
        scene.pass(Duration::from_millis(1));
        let gone_before = scene.driver.figures().accepts_gone;
        scene.driver.poll(&mut scene.told, 8, Wait::NO);
        if scene.driver.figures().accepts_gone > gone_before {
            gone += 1;
            continue;
        }
        let Some(Completion::Accepted { incoming, .. }) = scene.told.pop() else {
            panic!("{:?}", scene.told)
        };
        let Ok(conn) = scene.driver.attach(incoming) else {
            gone += 1;
            continue;
        };
        scene.driver.recv_start(conn).unwrap();
        told_data += scene.expect(|completion| match completion {
            Completion::Data { bytes, .. } => Some(bytes.len()),
            _ => None,
        });
        assert_eq!(scene.recv_end(), RecvEnd::Error(NetError::Reset));
        scene.driver.retire(conn);
    }
    assert!(told_data >= 5 && gone >= 1, "both ways are met: {told_data} bytes told, {gone} gone");
}

#[test]
fn m9_a_peer_that_never_reads_ends_by_the_user_timeout_or_not_at_all() {
    for timeout in [None, Some(Duration::from_secs(2))] {
        let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
        options.socket.user_timeout = timeout;
        let mut scene = Scene::new(options);
        let (conn, peer) = scene.pair();
        scene.driver.recv_start(conn).unwrap();
        scene.send(conn, 4 << 20);
        scene.pass(Duration::from_secs(12));
        scene.driver.poll(&mut scene.told, 8, Wait::NO);
        let ended = scene.told.iter().any(|completion| {
            matches!(completion, Completion::RecvEnded { end: RecvEnd::Error(NetError::TimedOut), .. })
        });
        assert_eq!(ended, timeout.is_some(), "{timeout:?}");
        drop(peer);
    }
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_keepalive_only() {
    for keepalive in [None, Some(Duration::from_secs(30))] {
        let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
        options.socket.keepalive = keepalive;
        let mut scene = Scene::new(options);
        let (conn, mut peer) = scene.pair();
        scene.driver.recv_start(conn).unwrap();
        peer.vanish();
        assert_eq!(peer.state(), PeerState::Closed);
        scene.pass(Duration::from_secs(600));
        scene.driver.poll(&mut scene.told, 8, Wait::NO);
        assert_eq!(scene.told.len(), usize::from(keepalive.is_some()), "{keepalive:?}: {:?}", scene.told);
    }
}

#[test]
fn what_is_sent_to_a_closed_peer_comes_back_as_a_reset() {
    let mut scene = Scene::plain();
    let (conn, mut peer) = scene.pair();
    peer.close();
    scene.driver.recv_start(conn).unwrap();
    assert_eq!(scene.recv_end(), RecvEnd::Eof, "an orderly close is an end");
    scene.send(conn, 10);
    let first = scene.expect(|completion| match completion {
        Completion::Sent { result, .. } => Some(*result),
        _ => None,
    });
    assert_eq!(first, Ok(10), "the first send finds nothing wrong");
    scene.pass(Duration::from_millis(1));
    scene.send(conn, 10);
    let second = scene.expect(|completion| match completion {
        Completion::Sent { result, .. } => Some(*result),
        _ => None,
    });
    assert!(second.is_err(), "{second:?}");
}

#[test]
fn a_full_backlog_makes_peers_wait_and_then_fail() {
    let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
    options.backlog = 2;
    let mut scene = Scene::new(options);
    let peers: Vec<Peer> = (0..4).map(|_| scene.peer()).collect();
    scene.pass(Duration::from_millis(500));
    let states = |peers: &[Peer]| peers.iter().filter(|peer| peer.is_open()).count();
    assert_eq!(states(&peers), 2);
    assert_eq!(peers[3].state(), PeerState::Connecting);
    scene.attach_next();
    scene.attach_next();
    scene.pass(Duration::from_secs(2));
    assert_eq!(states(&peers), 4, "room in the backlog lets in who knocks again");
    let late: Vec<Peer> = (0..2).map(|_| scene.peer()).collect();
    scene.pass(Duration::from_secs(60));
    assert!(late.iter().all(|peer| peer.state() == PeerState::Failed(NetError::TimedOut)));
}

#[test]
fn a_killed_process_leaves_no_socket_and_its_peers_learn_of_it() {
    let mut scene = Scene::plain();
    let (conn, peer) = scene.pair();
    scene.driver.recv_start(conn).unwrap();
    let waiting = scene.peer();
    scene.pass(Duration::from_millis(1));
    let Scene { world, driver, .. } = scene;
    drop(driver);
    assert_eq!(world.open_sockets(), 0);
    while world.step() {}
    assert_eq!(peer.state(), PeerState::Ended);
    assert_eq!(waiting.state(), PeerState::Failed(NetError::Reset));
}

#[test]
fn two_drivers_of_one_world_talk_to_each_other() {
    let mut scene = Scene::plain();
    let mut client = scene.world.driver(DriverSettings::default());
    let conn = client.connect(&ConnectOptions::new(scene.address)).unwrap();
    let accepted = scene.attach_next();
    scene.send(accepted, 3);
    let mut told = Vec::new();
    client.poll(&mut told, 8, Wait::NO);
    assert!(matches!(told[..], [Completion::Connected { result: Ok(_), .. }]), "{told:?}");
    client.recv_start(conn).unwrap();
    scene.pass(Duration::from_millis(1));
    told.clear();
    client.poll(&mut told, 8, Wait::NO);
    assert!(matches!(&told[..], [Completion::Data { bytes, .. }] if **bytes == [1, 1, 1]), "{told:?}");
}
