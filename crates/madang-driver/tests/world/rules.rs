//! Whoever breaks the contract is stopped, and told which rule it was.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use madang_driver::sim::{Faults, Peer, SimDriver, World};
use madang_driver::{
    Completion, Conn, ConnectOptions, Driver, DriverSettings, ListenOptions, Outgoing, Wait,
};
use madang_packet::{Depot, PoolSettings};

struct Scene {
    world: World,
    driver: SimDriver,
    conn: Conn,
    peer: Peer,
}

fn scene() -> Scene {
    let world = World::new(1, Faults::none());
    let mut driver = world.driver(DriverSettings::default());
    let (_, address) = driver.listen(&ListenOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let peer = world.peer("127.0.0.1:0".parse().unwrap(), address).unwrap();
    let conn = loop {
        if let Some(Completion::Accepted { incoming, .. }) = poll(&world, &mut driver).pop() {
            break driver.attach(incoming).unwrap();
        }
    };
    while !peer.is_open() {
        world.step();
    }
    Scene { world, driver, conn, peer }
}

fn poll(world: &World, driver: &mut SimDriver) -> Vec<Completion> {
    world.step();
    let mut told = Vec::new();
    driver.poll(&mut told, 8, Wait::until(driver.now() + Duration::from_millis(1)));
    told
}

fn outgoing() -> Outgoing {
    let mut packet = Depot::new(PoolSettings::default()).packet(8).unwrap();
    packet.extend_from_slice(b"to the peer");
    let mut outgoing = Outgoing::new();
    outgoing.push(packet.freeze());
    outgoing
}

fn check(rule: &str, breach: impl FnOnce(&mut Scene)) {
    let mut scene = scene();
    let panic = catch_unwind(AssertUnwindSafe(|| breach(&mut scene))).expect_err(rule);
    let message = panic.downcast_ref::<String>().expect("a panic with a message");
    assert!(message.contains("the driver contract was broken"), "{message}");
    assert!(message.contains(rule), "expected: {rule}; got: {message}");
}

#[test]
fn k08_two_sends_in_flight() {
    check("one send in flight", |scene| {
        scene.driver.send(scene.conn, outgoing()).unwrap();
        let _ = scene.driver.send(scene.conn, outgoing());
    });
}

#[test]
fn two_receives_in_flight() {
    check("one receive in flight", |scene| {
        scene.driver.recv_start(scene.conn).unwrap();
        let _ = scene.driver.recv_start(scene.conn);
    });
}

#[test]
fn a_receive_after_its_end() {
    check("not started again after Eof", |scene| {
        scene.peer.shutdown_write();
        scene.driver.recv_start(scene.conn).unwrap();
        while poll(&scene.world, &mut scene.driver).is_empty() {}
        let _ = scene.driver.recv_start(scene.conn);
    });
}

#[test]
fn k06_retire_with_a_receive_in_flight() {
    check("after the receive's terminal", |scene| {
        scene.driver.recv_start(scene.conn).unwrap();
        scene.driver.abort(scene.conn);
        scene.driver.retire(scene.conn);
    });
}

#[test]
fn k06_retire_with_a_send_in_flight() {
    check("after the send's terminal", |scene| {
        scene.driver.send(scene.conn, outgoing()).unwrap();
        scene.driver.retire(scene.conn);
    });
}

#[test]
fn k06_retire_with_a_connect_in_flight() {
    check("after the connect's terminal", |scene| {
        let conn = scene.driver.connect(&ConnectOptions::new("127.0.0.1:9".parse().unwrap())).unwrap();
        scene.driver.retire(conn);
    });
}

#[test]
fn k09_a_name_after_its_retirement() {
    check("not named after its retirement", |scene| {
        scene.driver.retire(scene.conn);
        scene.driver.abort(scene.conn);
    });
}

#[test]
fn a_loan_kept_over_a_poll() {
    check("given back before the next poll", |scene| {
        scene.peer.write(b"bytes");
        scene.driver.recv_start(scene.conn).unwrap();
        let kept = loop {
            let told = poll(&scene.world, &mut scene.driver);
            if !told.is_empty() {
                break told;
            }
        };
        poll(&scene.world, &mut scene.driver);
        drop(kept);
    });
}

#[test]
fn a_half_close_with_a_send_in_flight() {
    check("while no send is in flight", |scene| {
        scene.driver.send(scene.conn, outgoing()).unwrap();
        scene.driver.half_close(scene.conn);
    });
}

#[test]
fn a_send_after_half_close() {
    check("nothing is sent after half_close", |scene| {
        scene.driver.half_close(scene.conn);
        let _ = scene.driver.send(scene.conn, outgoing());
    });
}

#[test]
fn a_send_of_nothing() {
    check("at least one byte", |scene| {
        let _ = scene.driver.send(scene.conn, Outgoing::new());
    });
}

#[test]
fn a_receive_before_the_connect_has_ended() {
    check("that is connected", |scene| {
        let conn = scene.driver.connect(&ConnectOptions::new("127.0.0.1:9".parse().unwrap())).unwrap();
        let _ = scene.driver.recv_start(conn);
    });
}

#[test]
fn a_driver_after_its_shutdown() {
    check("after shutdown", |scene| {
        scene.driver.shutdown(Duration::ZERO);
        scene.driver.abort(scene.conn);
    });
}
