//! Groups: a broadcast to a set of sessions on whatever shards.

use std::collections::BTreeMap;

use madang::{Answer, DriverChoice, GroupId, SessionId};

use crate::support::{Raw, Recorder, be32, eventually, finish};

each_driver! {
    b1_a_group_reaches_its_members_on_every_shard_and_nobody_else,
    b1_members_come_and_go_and_leave_with_their_session,
}

fn b1_a_group_reaches_its_members_on_every_shard_and_nobody_else(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    // A peer says which rooms it wants; a message of one byte is for the room of that number.
    let recorder = recorder.on_recv(|cx, id, message| match *message.bytes() {
        [room] => {
            let packet = cx.packet(&[room, 0xff]).freeze();
            assert_eq!(cx.send_group(GroupId(room.into()), &packet), Answer::Queued);
        }
        ref rooms => {
            for room in rooms {
                assert_eq!(cx.join_group(id, GroupId((*room).into())), Answer::Queued);
                assert_eq!(
                    cx.join_group(id, GroupId((*room).into())),
                    Answer::Queued,
                    "joining twice is joining once"
                );
            }
            let ready = cx.packet(b"ready");
            assert!(cx.send(id, ready).is_queued());
        }
    });
    let server = be32(driver).workers(3).start(recorder).unwrap();
    let mut peers: Vec<Raw> = (0..9).map(|_| Raw::connect(server.local_addr())).collect();
    // Everybody is in room 1, every third in room 2 too; 9 is nobody's.
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.be32(if number % 3 == 0 { &[1, 2] } else { &[1, 1] });
        assert_eq!(peer.be32_next(), b"ready");
    }
    for (room, asking) in [(2, 0), (9, 3), (1, 4), (2, 5), (1, 8)] {
        peers[asking].be32(&[room]);
        for (number, peer) in peers.iter_mut().enumerate() {
            if room == 1 || room == 2 && number % 3 == 0 {
                assert_eq!(peer.be32_next(), [room, 0xff], "peer {number}, and each once");
            }
        }
    }
    finish(server, &watch);
}

fn b1_members_come_and_go_and_leave_with_their_session(driver: DriverChoice) {
    const ROOM: GroupId = GroupId(7);
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).workers(2).start(recorder).unwrap();
    let remote = server.remote();
    let mut peers: BTreeMap<usize, (Raw, SessionId)> = BTreeMap::new();
    for number in 0..8 {
        let peer = Raw::connect(server.local_addr());
        let id = watch.join();
        assert_eq!(remote.join_group(id, ROOM), Answer::Queued);
        peers.insert(number, (peer, id));
    }
    // Three leave the room, two leave the server: from the front, the middle and the end.
    for number in [0, 3, 7] {
        assert_eq!(remote.leave_group(peers[&number].1, ROOM), Answer::Queued);
        assert_eq!(
            remote.leave_group(peers[&number].1, ROOM),
            Answer::Queued,
            "leaving twice is leaving once"
        );
    }
    for number in [1, 6] {
        let (peer, id) = peers.remove(&number).unwrap();
        drop(peer);
        watch.leave(id);
        assert_eq!(remote.join_group(id, ROOM), Answer::Gone);
    }
    assert_eq!(remote.send_group(ROOM, &remote.packet(b"room").freeze()), Answer::Queued);
    assert_eq!(remote.send_all(&remote.packet(b"all").freeze()), Answer::Queued);
    for (number, (peer, _)) in &mut peers {
        if [2, 4, 5].contains(number) {
            assert_eq!(peer.be32_next(), b"room", "peer {number}");
        }
        assert_eq!(peer.be32_next(), b"all", "peer {number}");
    }
    for (peer, id) in peers.into_values() {
        drop(peer);
        watch.leave(id);
    }
    // The room is empty; a broadcast into it goes to nobody.
    assert_eq!(remote.send_group(ROOM, &remote.packet(b"anybody?").freeze()), Answer::Queued);
    eventually("nothing is queued", || server.figures().queued_bytes == 0 && server.figures().sessions == 0);
    finish(server, &watch);
}
