//! What one packet promises: typed little-endian writes (P2), limits that are remembered, growth, headroom, and sharing
//! (P3).
#![cfg(not(loom))]

use std::sync::LazyLock;

use madang_packet::{
    Depot, HEADROOM, NoHeadroom, PACKET_BYTES_MAX, Packet, PacketMut, PoolSettings, TAILROOM,
};

/// A packet of a pool that all tests share.
fn packet(capacity: usize) -> PacketMut {
    static DEPOT: LazyLock<Depot> = LazyLock::new(|| Depot::new(PoolSettings::default()));
    DEPOT.packet(capacity).expect("a pool without a limit")
}

/// `write` makes exactly `expected`, wherever in the packet it begins.
fn check(write: impl Fn(&mut PacketMut), expected: &[u8]) {
    for before in 0..9 {
        let mut packet = packet(0);
        packet.bytes(&[0xEE; 9][..before]);
        write(&mut packet);
        assert_eq!(&packet[..before], &[0xEE; 9][..before]);
        assert_eq!(&packet[before..], expected, "behind {before} bytes");
        assert!(!packet.is_too_long() && !packet.is_exhausted());
    }
}

#[test]
fn values_are_written_little_endian() {
    check(|p| _ = p.u8(0x01), &[0x01]);
    check(|p| _ = p.u16(0x0102), &[0x02, 0x01]);
    check(|p| _ = p.u32(0x0102_0304), &[4, 3, 2, 1]);
    check(|p| _ = p.u64(0x0102_0304_0506_0708), &[8, 7, 6, 5, 4, 3, 2, 1]);
    check(|p| _ = p.i8(-1), &[0xFF]);
    check(|p| _ = p.i16(-2), &[0xFE, 0xFF]);
    check(|p| _ = p.i32(i32::MIN), &[0, 0, 0, 0x80]);
    check(|p| _ = p.i64(-2), &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    check(|p| _ = p.f32(1.0), &[0, 0, 0x80, 0x3F]);
    check(|p| _ = p.f64(-2.0), &[0, 0, 0, 0, 0, 0, 0, 0xC0]);
    check(|p| _ = p.bool(false).bool(true), &[0, 1]);
    check(|p| _ = p.bytes(b"raw"), b"raw");
    check(|p| _ = p.bytes(b""), b"");
    check(|p| _ = p.str("é"), &[2, 0, 0xC3, 0xA9]);
    check(|p| _ = p.str(""), &[0, 0]);
    check(|p| _ = p.values(&[1u16, 0x0203]), &[1, 0, 3, 2]);
    check(|p| _ = p.values(&[-1i64]), &[0xFF; 8]);
    check(|p| _ = p.values::<u32>(&[]), &[]);
}

#[test]
fn a_string_is_written_whole_or_not_at_all() {
    let longest = "x".repeat(65_535);
    let mut fits = packet(0);
    fits.str(&longest);
    assert_eq!(fits.len(), 2 + 65_535);

    let mut too_long = packet(0);
    too_long.str(&format!("{longest}x"));
    assert!(too_long.is_empty() && too_long.is_too_long());

    let mut no_room = packet(0);
    no_room.set_limit(4);
    no_room.str("abc");
    assert!(no_room.is_empty() && no_room.is_too_long());
}

#[test]
fn a_packet_holds_what_it_was_made_for_in_place() {
    for capacity in [0, 1, 64, 65, 128, 256, 1024, 4096, 4097, 65_536, 65_537, 1 << 20, PACKET_BYTES_MAX] {
        let mut packet = packet(capacity);
        let at = packet.as_ptr();
        assert!(packet.capacity() >= capacity, "{capacity}");
        assert_eq!(packet.headroom(), HEADROOM);
        packet.bytes(&vec![7; capacity]);
        assert_eq!(
            (packet.len(), packet.as_ptr()),
            (capacity, at),
            "grew though it was promised room: {capacity}"
        );
        assert!(packet.tailroom() >= TAILROOM, "{capacity}");
    }
    assert!(Depot::new(PoolSettings::default()).packet(PACKET_BYTES_MAX + 1).is_err());
}

#[test]
fn a_write_past_the_limit_writes_nothing_and_is_remembered() {
    let mut packet = packet(8);
    packet.set_limit(6);
    packet.u32(1);
    assert!(!packet.is_too_long());
    packet.u32(2);
    assert!(packet.is_too_long());
    assert_eq!(&packet[..], &[1, 0, 0, 0]);
    packet.set_limit(100);
    assert!(packet.is_too_long(), "what is missing stays missing");
    packet.clear();
    assert!(!packet.is_too_long() && packet.limit() == 100);

    packet.bytes(&[1; 50]).set_limit(10);
    assert!(packet.is_too_long(), "more was written than the new limit allows");
    packet.u8(1);
    assert_eq!(packet.len(), 50);
    assert!(packet.freeze().is_too_long(), "freezing keeps it");
}

#[test]
fn a_header_and_its_bytes_are_written_both_or_neither() {
    check(|p| p.extend_from_parts([1, 2, 3, 4], b"five"), &[1, 2, 3, 4, b'f', b'i', b'v', b'e']);
    check(|p| p.extend_from_parts([9], &[7; 5_000]), &[&[9][..], &[7; 5_000]].concat());
    for limit in [0, 3, 4, 7] {
        let mut packet = packet(0);
        packet.set_limit(limit);
        packet.extend_from_parts([1, 2, 3, 4], b"five");
        assert!(packet.is_too_long() && packet.is_empty(), "limit {limit}");
    }
}

#[test]
fn a_limit_from_the_start_is_the_limit_that_is_set_later() {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    for limit in [0, 1, 64, 65, 1_000, PACKET_BYTES_MAX, usize::MAX] {
        let (mut early, mut late) =
            (magazine.packet_within(10, limit).unwrap(), magazine.packet(10).unwrap());
        late.set_limit(limit);
        assert_eq!(early.limit(), late.limit());
        let longest = limit.min(70_000);
        for packet in [&mut early, &mut late] {
            packet.bytes(&vec![1; longest]);
            assert!(!packet.is_too_long() && packet.len() == longest, "limit {limit}");
        }
        if longest == limit {
            early.u8(1);
            assert!(early.is_too_long() && !early.freeze().is_whole(), "limit {limit}");
        }
    }
}

#[test]
fn the_limit_is_exact_in_every_class() {
    for limit in [0usize, 1, 63, 64, 80, 81, 100, 4096, 4112, 4113, 65_552, 65_553, 200_000] {
        for step in [1usize, 7, 4096] {
            let mut packet = packet(0);
            packet.set_limit(limit);
            for _ in 0..limit / step {
                packet.bytes(&[0; 4096][..step]);
            }
            packet.bytes(&[0; 4096][..limit % step]);
            assert!(!packet.is_too_long() && packet.len() == limit, "{limit} by {step}");
            packet.u8(0);
            assert!(packet.is_too_long() && packet.len() == limit, "{limit} by {step}");
        }
    }
}

#[test]
fn the_longest_packet_is_what_a_24_bit_length_can_say() {
    let mut packet = packet(0);
    assert_eq!(packet.limit(), PACKET_BYTES_MAX);
    packet.set_limit(usize::MAX);
    assert_eq!(packet.limit(), PACKET_BYTES_MAX);
    packet.bytes(&vec![1; PACKET_BYTES_MAX]);
    assert!(packet.len() == PACKET_BYTES_MAX && !packet.is_too_long());
    packet.prepend(&[2; HEADROOM]).expect("a fresh packet's headroom");
    packet.u8(3);
    assert!(packet.is_too_long() && packet.len() == PACKET_BYTES_MAX + HEADROOM);
}

#[test]
fn growth_keeps_content_limit_and_header() {
    let mut packet = packet(0);
    packet.set_limit(100_000);
    packet.prepend(b"head").expect("fresh");
    let mut expected = b"head".to_vec();
    for round in 0u32..20_000 {
        packet.u32(round);
        expected.extend(round.to_le_bytes());
    }
    assert!(packet[..] == expected[..], "{} bytes of {}", packet.len(), expected.len());
    assert_eq!((packet.limit(), packet.headroom()), (100_000, HEADROOM - 4));
}

#[test]
fn a_header_goes_in_front_without_moving_the_content() {
    let mut packet = packet(8);
    packet.bytes(b"content");
    let at = packet.as_ptr();
    packet.prepend(b"22").expect("16 bytes of headroom");
    packet.prepend(b"1").expect("13 are left");
    assert_eq!(&packet[..], b"122content");
    assert_eq!(packet[3..].as_ptr(), at);
    assert_eq!(packet.prepend(&[0; 14]), Err(NoHeadroom { asked: 14, headroom: 13 }));
    assert_eq!(&packet[..], b"122content");
    packet.clear();
    assert_eq!(packet.headroom(), HEADROOM);
}

#[test]
fn truncate_never_lengthens() {
    let mut packet = packet(8);
    packet.bytes(b"12345678");
    packet.truncate(9);
    packet.truncate(usize::MAX);
    assert_eq!(packet.len(), 8);
    packet.truncate(3);
    packet.u8(b'4');
    assert_eq!(&packet[..], b"1234");
    packet.truncate(0);
    assert!(packet.is_empty());
}

/// F20: a recycled block never shows what it held before, whatever is done to the new packet.
#[test]
fn f20_a_recycled_block_shows_no_old_bytes() {
    let depot = Depot::new(PoolSettings::default());
    let magazine = depot.magazine();
    let _installed = magazine.install();
    let mut packet = magazine.packet(64).expect("no limit");
    let at = packet.as_ptr();
    packet.bytes(&[0x55; 64]).prepend(&[0x55; 16]).expect("fresh");
    drop(packet);

    let mut packet = magazine.packet(64).expect("no limit");
    assert_eq!(packet.as_ptr(), at, "the block came back, so the test means something");
    assert!(packet.is_empty() && packet.as_mut_slice().is_empty());
    packet.truncate(64);
    packet.set_limit(64);
    assert!(packet.is_empty());
    packet.u8(1).prepend(&[2]).expect("fresh");
    assert_eq!(packet.as_mut_slice(), &[2, 1]);
    assert_eq!(packet.freeze().as_slice(), &[2, 1]);
}

#[test]
fn packets_are_one_pointer_wide_and_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Packet>();
    crosses::<PacketMut>();
    crosses::<Depot>();
    assert_eq!(size_of::<Packet>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Packet>>(), size_of::<usize>());
    assert_eq!(size_of::<PacketMut>(), size_of::<usize>());
}

#[test]
fn clones_share_the_bytes_and_the_last_one_may_write_again() {
    let mut packet = packet(8);
    packet.bytes(b"shared");
    let packet = packet.freeze();
    let clone = packet.clone();
    assert_eq!(clone.as_ptr(), packet.as_ptr());
    assert!(!packet.is_unique());
    let packet = packet.try_into_mut().expect_err("it is shared");
    assert_eq!(&packet[..], b"shared");
    drop(clone);
    assert!(packet.is_unique());
    let mut writable = packet.try_into_mut().expect("it is the last");
    writable.as_mut_slice()[0] = b'S';
    writable.u8(b'!');
    assert_eq!(&writable.freeze()[..], b"Shared!");
}

#[test]
fn shares_are_taken_back_by_their_own_packet_only_and_given_up_together() {
    let depot = Depot::new(PoolSettings::default());
    let [packet, other] = [1, 2].map(|_| depot.packet(8).expect("no limit").freeze());
    let kept = packet.clone();
    let mut shares = packet.shares(3);
    let mut held: Vec<_> = shares.by_ref().collect();
    assert_eq!((held.len(), shares.len()), (3, 0));
    held.drain(1..).for_each(|share| shares.take_back(share).expect("it is one of them"));
    let other = shares.take_back(other).expect_err("it is another packet");
    assert!(other.is_unique());
    assert_eq!(shares.len(), 2);
    held.extend(shares.next());
    drop(shares);
    assert!(!kept.is_unique());
    drop(held);
    assert!(kept.is_unique());

    // The last reference of all may be one that was taken back.
    let mut shares = kept.shares(1);
    let last = shares.next().expect("one");
    shares.take_back(last).expect("it is one of them");
    drop(shares);
    drop(other);
    assert_eq!(depot.figures().in_use.blocks, 0);
}

#[test]
fn shares_that_are_not_taken_are_given_back() {
    for (count, taken) in [(0, 0), (1, 0), (1, 1), (2, 1), (1000, 1000), (1000, 999), (1000, 1), (1000, 0)] {
        let depot = Depot::new(PoolSettings::default());
        let packet = depot.packet(8).expect("no limit").freeze();
        let kept = packet.clone();
        let mut shares = packet.shares(count);
        assert_eq!(shares.len(), count);
        let held: Vec<_> = shares.by_ref().take(taken).collect();
        assert_eq!((held.len(), shares.len()), (taken, count - taken));
        assert_eq!(kept.is_unique(), count == 0);
        drop(shares);
        assert_eq!(kept.is_unique(), taken == 0, "{taken} of {count}");
        drop(held);
        assert!(kept.is_unique());
        drop(kept);
        assert_eq!(depot.figures().in_use.blocks, 0, "{taken} of {count}");
    }
}
