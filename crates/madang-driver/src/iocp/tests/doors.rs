//! Accepting: whole sockets, no waiting for bytes, and what happens when there are no more.

use std::io::Read;
use std::net::{Shutdown, TcpListener};

use super::*;
use crate::SocketOptions;
use crate::iocp::doors::{ACCEPTS, SOCKETS_LEFT};

#[test]
fn w06_an_accepted_socket_is_a_whole_one() {
    let mut rig = Rig::new();
    let mut peer = TcpStream::connect(rig.address).unwrap();
    let incoming = rig.next_incoming();
    let IncomingSocket::System(socket) = &incoming.socket else { panic!("of this system") };
    let address = |address: io::Result<SockAddr>| address.unwrap().as_socket().unwrap();
    assert_eq!(address(socket.peer_addr()), peer.local_addr().unwrap());
    assert_eq!(address(socket.local_addr()), peer.peer_addr().unwrap());
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the shutdown is heard");
    drop(incoming);
    rig.finish(&[]);
}

#[test]
fn w07_clients_that_say_nothing_hold_no_accept() {
    let mut rig = Rig::new();
    let silent: Vec<TcpStream> = (0..3 * ACCEPTS).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    for _ in &silent {
        drop(rig.next_incoming());
    }
    rig.finish(&[]);
}

#[test]
fn options_of_a_listener_hold_for_what_it_accepts() {
    let mut rig = Rig::new();
    let mut options = ListenOptions::new("127.0.0.1:0".parse().unwrap());
    options.socket = SocketOptions {
        nodelay: Some(true),
        keepalive: Some(Duration::from_secs(30)),
        recv_buffer_bytes: Some(128 * 1024),
        ..SocketOptions::default()
    };
    let (listener, address) = rig.driver.listen(&options).unwrap();
    let _peer = TcpStream::connect(address).unwrap();
    let incoming = rig.next_incoming();
    let IncomingSocket::System(socket) = &incoming.socket else { panic!("of this system") };
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert!(socket.recv_buffer_size().unwrap() >= 128 * 1024);
    drop(incoming);
    rig.driver.unlisten(listener);
    rig.expect(|told| {
        matches!(told, Completion::Unlistened { listener: of } if *of == listener).then_some(())
    });
    rig.finish(&[]);
}

#[test]
fn an_exclusive_port_is_not_shared_with_one_who_asks_to_reuse_it() {
    let rig = Rig::new();
    let thief = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    thief.set_reuse_address(true).unwrap();
    assert!(thief.bind(&rig.address.into()).is_err());
    assert!(TcpListener::bind(rig.address).is_err());
    rig.finish(&[]);
}

#[test]
fn k15_without_sockets_accepting_backs_off_tells_once_and_recovers() {
    let mut rig = Rig::new();
    // The posted accepts have theirs; those that follow do not.
    SOCKETS_LEFT.set(0);
    let peers: Vec<TcpStream> = (0..ACCEPTS + 4).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    for _ in 0..ACCEPTS {
        drop(rig.next_incoming());
    }
    let error = rig.expect(|told| match told {
        Completion::AcceptStalled { error, .. } => Some(*error),
        _ => None,
    });
    assert_eq!(error, NetError::TooManyFiles);
    // Tried again with growing pauses: 1 + 2 + 4 … + 64 + 64 ms.
    let enters = rig.driver.figures().enters;
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        rig.poll(Duration::from_millis(300));
        assert!(rig.out.is_empty(), "{:?}", rig.out);
    }
    let enters = rig.driver.figures().enters - enters;
    assert!((4..100).contains(&enters), "{enters} calls in 300 ms");
    assert_eq!(rig.driver.figures().accept_stalls, 1);
    SOCKETS_LEFT.set(usize::MAX);
    for _ in ACCEPTS..peers.len() {
        drop(rig.next_incoming());
    }
    rig.finish(&[]);
}
