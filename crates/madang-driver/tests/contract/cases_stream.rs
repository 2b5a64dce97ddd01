//! Bytes: order, and partial reads and writes at every split.

use crate::rig::{Heard, RawPeer, Rig};
use crate::station::{Station, pattern, peer_hears_end, settings};
use madang_driver::{Driver, DriverSettings, OUTGOING_PIECES_MAX, RecvEnd};

pub fn k07_bytes_keep_their_order_both_ways<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let bytes = pattern(station.amount(200_000));
    station.peer_writes(conn, &mut peer, &bytes);
    station.receive(conn, bytes.len());
    assert!(station.seen(conn).bytes == bytes, "what came is what was sent");

    let mut got = Vec::new();
    let outgoing = station.outgoing(&bytes, 1_000);
    station.send_all(conn, outgoing, |_| {
        peer.read(&mut got);
    });
    station.peer_reads(&mut peer, &mut got, bytes.len());
    assert!(got == bytes, "what came is what was sent");
    station.finish();
}

pub fn k07_a_message_cut_anywhere_arrives_whole<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let message = pattern(24);
    let mut expected = 0;
    for cut in 1..message.len() {
        let (head, tail) = message.split_at(cut);
        station.peer_writes(conn, &mut peer, head);
        station.receive(conn, expected + cut);
        station.peer_writes(conn, &mut peer, tail);
        expected += message.len();
        station.receive(conn, expected);
        assert_eq!(&station.seen(conn).bytes[expected - message.len()..], &message, "cut at {cut}");
    }
    assert_eq!(station.seen(conn).bytes.len(), expected);
    station.finish();
}

pub fn k07_a_send_of_any_number_of_pieces_leaves_whole_and_in_order<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let mut got = Vec::new();
    for pieces in 1..=OUTGOING_PIECES_MAX {
        let bytes = pattern(pieces * 37);
        let outgoing = station.outgoing(&bytes, 37);
        assert_eq!(outgoing.pieces(), pieces);
        got.clear();
        station.send_all(conn, outgoing, |_| {
            peer.read(&mut got);
        });
        station.peer_reads(&mut peer, &mut got, bytes.len());
        assert!(got == bytes, "{pieces} pieces");
    }
    station.finish();
}

pub fn k07_short_writes_to_a_slow_reader_continue_at_the_exact_byte<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    // More than any loopback window holds: the reader's pace makes the writes short.
    let bytes = pattern(station.amount(6_000_000));
    let outgoing = station.outgoing(&bytes, usize::MAX);
    let (mut got, mut polls) = (Vec::new(), 0);
    station.send_all(conn, outgoing, |_| {
        polls += 1;
        if polls % 3 == 0 {
            peer.read(&mut got);
        }
    });
    station.peer_reads(&mut peer, &mut got, bytes.len());
    assert!(got == bytes);
    station.finish();
}

pub fn data_that_came_before_the_first_receive_is_told<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    station.peer_sends(&mut peer, b"e");
    peer.shutdown_write();
    station.idle(std::time::Duration::from_millis(20));
    assert!(station.seen(conn).bytes.is_empty(), "nothing is told before recv_start");
    assert_eq!(station.receive_to_end(conn), RecvEnd::Eof);
    assert_eq!(station.seen(conn).bytes, b"e");
    station.finish();
}

pub fn s03_many_connections_do_not_mix_their_bytes<R: Rig>(rig: R) {
    let tight = DriverSettings { recv_buffers: 4, recv_buffer_bytes: 4 * 1024, ..settings() };
    let mut station = Station::with(rig, &tight);
    let mut pairs: Vec<_> = (0..20).map(|_| station.pair()).collect();
    let streams: Vec<Vec<u8>> = (0..20u8)
        .map(|number| pattern(5_000).iter().map(|byte| byte.wrapping_add(number)).collect())
        .collect();
    let mut written = [0; 20];
    station.until("every connection's bytes", |station| {
        let mut done = true;
        for (number, (conn, peer)) in pairs.iter_mut().enumerate() {
            let end = (written[number] + 700).min(5_000);
            written[number] += peer.write(&streams[number][written[number]..end]);
            station.keep_receiving(*conn);
            done &= station.seen(*conn).bytes.len() == 5_000;
        }
        done
    });
    for ((conn, _), stream) in pairs.iter().zip(&streams) {
        assert!(station.seen(*conn).bytes == *stream, "{conn:?}");
    }
    station.finish();
}

pub fn k03_half_close_sends_the_tail_and_drains_the_peer<R: Rig>(rig: R) {
    let mut station = Station::new(rig);
    let (conn, mut peer) = station.pair();
    let bytes = pattern(station.amount(100_000));
    let outgoing = station.outgoing(&bytes, 4_096);
    let mut got = Vec::new();
    station.send_all(conn, outgoing, |_| {
        peer.read(&mut got);
    });
    station.driver.half_close(conn);
    let (rest, heard) = peer_hears_end(&mut station, &mut peer);
    got.extend(rest);
    assert_eq!(heard, Heard::Eof);
    assert!(got == bytes, "everything sent before half_close arrives before the end");
    // The other direction is as open as before.
    station.peer_writes(conn, &mut peer, b"last words");
    peer.shutdown_write();
    assert_eq!(station.receive_to_end(conn), RecvEnd::Eof);
    assert_eq!(station.seen(conn).bytes, b"last words");
    station.settle(conn);
    station.finish();
}
