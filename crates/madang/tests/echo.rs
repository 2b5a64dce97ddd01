//! A LAN client and server on loopback, with each driver.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use madang::{
    Context, DriverChoice, Handler, LanClient, LanServer, Leave, LeaveReason, Message, Peer, SessionId,
};

struct Echo;

impl Handler for Echo {
    fn on_recv(&self, cx: &mut Context<'_>, session: SessionId, message: Message<'_>) {
        let reply = cx.packet(message.bytes());
        assert!(cx.send(session, reply).is_queued());
    }
}

enum Seen {
    Join(SessionId),
    Recv(Vec<u8>),
    Leave(LeaveReason),
}

struct Client(Sender<Seen>);

impl Handler for Client {
    fn on_join(&self, cx: &mut Context<'_>, session: SessionId, peer: &Peer) {
        assert_eq!(peer.node.as_ref().unwrap().service, "echo");
        for round in 0..100u32 {
            let packet = cx.packet(&vec![round as u8; 1 + round as usize * 777]);
            assert!(cx.send(session, packet).is_queued());
        }
        self.0.send(Seen::Join(session)).unwrap();
    }

    fn on_recv(&self, _: &mut Context<'_>, _: SessionId, message: Message<'_>) {
        self.0.send(Seen::Recv(message.bytes().to_vec())).unwrap();
    }

    fn on_leave(&self, _: &mut Context<'_>, _: SessionId, leave: &Leave) {
        self.0.send(Seen::Leave(leave.reason)).unwrap();
    }
}

fn check(driver: DriverChoice, workers: usize) {
    let server = LanServer::bind("127.0.0.1:0").node("echo", "echo-1", 1).workers(workers);
    let server = server.set(|settings| settings.driver = driver).start(Echo).unwrap();
    let (tell, seen) = channel();
    let client = LanClient::node("test", "test-1", 1).link(&server.local_addr().to_string());
    let client = client.set(|settings| settings.driver = driver).start(Client(tell)).unwrap();
    let next = || seen.recv_timeout(Duration::from_secs(10)).expect("something happens within ten seconds");

    let Seen::Join(id) = next() else { panic!("a join comes first") };
    for round in 0..100u32 {
        let Seen::Recv(bytes) = next() else { panic!("echo {round} comes next") };
        assert_eq!(bytes, vec![round as u8; 1 + round as usize * 777]);
    }
    assert_eq!(client.session(client.link(0).unwrap()), Some(id));
    assert!(client.remote().disconnect(id, 7));
    let Seen::Leave(reason) = next() else { panic!("the leave comes last") };
    assert_eq!(reason, LeaveReason::Disconnected(7));

    let Seen::Join(again) = next() else { panic!("the link comes back") };
    assert_ne!(again, id);
    let stopped = server.drain().unwrap();
    assert!(stopped.report().is_clean(), "{:?}", stopped.report());
    let report = client.stop().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[cfg(unix)]
#[test]
fn lan_echo_on_readiness() {
    check(DriverChoice::Readiness, 1);
    check(DriverChoice::Readiness, 3);
}

#[test]
fn lan_echo_on_the_first_choice() {
    check(DriverChoice::Auto, 1);
    check(DriverChoice::Auto, 2);
}
