//! What a peer may send: held back first, cut off when it goes on; and what it costs the others.

use std::time::{Duration, Instant};

use madang::{DriverChoice, ErrorKind, LeaveReason};

use crate::support::{Hello, Raw, Recorder, be32, be32_frame, eventually, finish, kind, lan, lan_frame};

each_driver! {
    b04_who_sends_too_much_is_read_no_faster_than_it_may,
    b04_who_goes_on_leaves_and_the_others_do_not_notice,
    b04_on_a_lan_the_flooder_is_told_why,
    b05_a_flood_of_tiny_frames_is_no_cheaper,
    b05_a_flood_of_pings_is_a_flood,
}

fn b04_who_sends_too_much_is_read_no_faster_than_it_may(driver: DriverChoice) {
    let (recorder, watch) = Recorder::echo();
    let server = be32(driver).set(|settings| {
        settings.recv_messages_per_s = 100;
        settings.recv_burst_ms = 500;
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    watch.join();
    let mut debt_seconds = 0.0;
    for (count, held) in [(50, false), (100, true), (20, true)] {
        let began = Instant::now();
        peer.write(&be32_frame(b"one of many").repeat(count));
        for _ in 0..count {
            assert_eq!(peer.be32_next(), b"one of many");
        }
        // What the burst does not cover is paid in time, here by the message behind the flood.
        peer.be32(b"behind");
        assert_eq!(peer.be32_next(), b"behind");
        if held {
            debt_seconds += count as f64 / 100.0;
            let took = began.elapsed().as_secs_f64();
            assert!(took >= debt_seconds - 0.6, "{count} messages and one passed within {took} s");
            debt_seconds -= took.min(debt_seconds);
        }
    }
    assert!(server.figures().input_throttled >= 1, "{:?}", server.figures());
    finish(server, &watch);
}

fn b04_who_goes_on_leaves_and_the_others_do_not_notice(driver: DriverChoice) {
    for decoded_only in [false, true] {
        let (recorder, watch) = Recorder::echo();
        let server = be32(driver).set(|settings| {
            match decoded_only {
                false => settings.recv_bytes_per_s = 100_000,
                true => settings.recv_decoded_bytes_per_s = 100_000,
            }
            settings.recv_burst_ms = 200;
            settings.recv_over_ms = 300;
            // The echoes are not read: that is another test's matter.
            settings.queue_soft_bytes = 32 << 20;
            settings.queue_hard_bytes = 64 << 20;
            settings.queue_hard_messages = 1 << 20;
        });
        let server = server.start(recorder).unwrap();
        let mut honest = Raw::connect(server.local_addr());
        watch.join();
        let mut flooder = Raw::connect(server.local_addr());
        let id = watch.join();
        let began = Instant::now();
        let written = flooder.flood(&be32_frame(&[7; 1_000]).repeat(64), 32 << 20);
        for _ in 0..10 {
            honest.be32(b"well?");
            assert_eq!(honest.be32_next(), b"well?");
        }
        let error = watch.error("a peer that is too fast", |kind| *kind == ErrorKind::TooFast);
        assert_eq!(error.session, Some(id));
        let leave = watch.leave(id);
        assert_eq!(leave.reason, LeaveReason::TooFast);
        assert!(began.elapsed() >= Duration::from_millis(300), "patience first: {:?}", began.elapsed());
        // It was held back: of what it sent, the engine took what one look tells, and not all.
        let figures = server.figures();
        assert!(figures.bytes_in < 2 << 20, "{} of {written} bytes were read", figures.bytes_in);
        assert!(flooder.is_cut());
        eventually("the honest one alone is here", || server.figures().sessions == 1);
        finish(server, &watch);
    }
}

fn b04_on_a_lan_the_flooder_is_told_why(driver: DriverChoice) {
    const FLOODING: u8 = 0x12;
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| {
        settings.recv_messages_per_s = 1_000;
        settings.recv_burst_ms = 100;
        settings.recv_over_ms = 200;
    });
    let server = server.start(recorder).unwrap();
    let (mut flooder, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    let id = watch.join();
    flooder.flood(&lan_frame(kind::MESSAGE, b"again and again").repeat(1_000), 4 << 20);
    assert_eq!(watch.leave(id).reason, LeaveReason::TooFast);
    let (kind, goodbye) = flooder.lan_next();
    assert_eq!((kind, goodbye[0]), (kind::GOODBYE, FLOODING));
    finish(server, &watch);
}

fn b05_a_flood_of_tiny_frames_is_no_cheaper(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = be32(driver).set(|settings| {
        settings.recv_bytes_per_s = 64_000;
        settings.recv_burst_ms = 1_000;
    });
    let server = server.start(recorder).unwrap();
    let mut peer = Raw::connect(server.local_addr());
    let id = watch.join();
    // By their own 5 bytes 900 of them are nothing; as 64 bytes each they are nearly the burst, and 1,100 are above it.
    for (frames, throttled) in [(900, 0), (200, 1)] {
        peer.write(&be32_frame(b"x").repeat(frames));
        for _ in 0..frames {
            watch.recv(id);
        }
        if throttled > 0 {
            eventually("it is held", || server.figures().input_throttled == throttled);
        } else {
            assert_eq!(server.figures().input_throttled, 0);
        }
    }
    finish(server, &watch);
}

fn b05_a_flood_of_pings_is_a_flood(driver: DriverChoice) {
    let (recorder, watch) = Recorder::new();
    let server = lan(driver).set(|settings| {
        settings.recv_messages_per_s = 100;
        settings.recv_burst_ms = 1_000;
    });
    let server = server.start(recorder).unwrap();
    let (mut peer, _) = Raw::join_lan(server.local_addr(), &Hello::default());
    watch.join();
    peer.write(&lan_frame(kind::PING, &[1; 8]).repeat(300));
    eventually("it is held", || server.figures().input_throttled == 1);
    finish(server, &watch);
}
