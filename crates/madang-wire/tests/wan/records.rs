//! Records: what is delivered, and what ends the connection. F01, F03, F04, F05, F06, F08, F14 (nothing is unpacked), F20.

use madang_wire::lan::{Expect, HEADER};
use madang_wire::wan::{
    ANSWER_MAX, Accept, Gate, LogIn, Opening, RECORD_BARE, RECORD_FRAMES_MAX, RECORD_HEAD, RECORD_MAX,
    RECORD_MESSAGE_MAX, RECORD_TAIL, REKEY_RECORDS, Sealing, Secured, Step, Suite, parts,
};
use madang_wire::{Find, FrameError, FrameLimit, Kind, SealError};

use crate::second::{self, Cipher};
use crate::{LIMIT, accepted, begin, frame, joined, message, received, record, secured};

/// A client of the second writing, which can make what ours would not, joined with a server of ours.
fn clever(suite: Suite) -> (Cipher, Opening) {
    let hello = second::Hello::of(suite as u8);
    let (preamble, client) = second::Client::begin(&hello, second::public(crate::SERVER), [4; 32]);
    let (answer, mut server) = accepted(&preamble);
    let (_, mut client) = client.read(&answer).unwrap();
    received(&mut server.opening, &client.ours.seal(&crate::log_in())).unwrap();
    (client.ours, server.opening)
}

fn messages(count: u8) -> Vec<u8> {
    (0..count).flat_map(|at| frame(Kind::Message, &vec![at; usize::from(at) + 1])).collect()
}

#[test]
fn many_frames_under_one_seal_arrive_one_by_one_in_place() {
    for suite in Suite::ALL {
        let (mut client, mut server) = joined(suite);
        let frames = [messages(3), frame(Kind::Ping, &[7; 8]), messages(1)].concat();
        let mut stream = record(&mut client.sealing, &frames);
        assert_eq!(stream.len(), RECORD_HEAD + frames.len() + RECORD_TAIL);

        let mut at = 0;
        for (kind, payload) in [
            (Kind::Message, vec![0]),
            (Kind::Message, vec![1; 2]),
            (Kind::Message, vec![2; 3]),
            (Kind::Ping, vec![7; 8]),
        ] {
            let Step::Frame { kind: found, payload: place, used } =
                server.opening.next(&mut stream[at..]).unwrap()
            else {
                panic!("a frame is there");
            };
            assert_eq!((found, &stream[at..][place]), (kind, &payload[..]));
            at += used;
            // What is left of the record is one piece, tag included.
            assert_eq!(server.opening.find(&stream[at..]), Ok(Find::Frame { len: stream.len() - at }));
            let cut = server.opening.find(&stream[at..stream.len() - 1]);
            assert_eq!(cut, Ok(Find::Need { total: stream.len() - at }));
        }
        let last = server.opening.next(&mut stream[at..]).unwrap();
        assert_eq!(last, Step::Frame { kind: Kind::Message, payload: 4..5, used: stream.len() - at });
        assert_eq!(server.opening.records(), 2);
    }
}

#[test]
fn an_expanded_key_borrowed_or_kept_seals_and_opens_the_same() {
    for suite in Suite::ALL {
        let frames = messages(2);
        let stream = |seal: &mut dyn FnMut(&mut [u8])| -> Vec<u8> {
            let one = [&[0; RECORD_HEAD][..], &frames, &[0; RECORD_TAIL]].concat();
            (0..3)
                .flat_map(|_| {
                    let mut one = one.clone();
                    seal(&mut one);
                    one
                })
                .collect()
        };
        let (mut compact, _) = joined(suite);
        let plain = stream(&mut |record| compact.sealing.seal(record).unwrap());
        let (mut borrowed, mut server) = joined(suite);
        let mut ready = borrowed.sealing.expanded();
        assert_eq!(stream(&mut |record| ready.seal(record).unwrap()), plain);
        let (kept, _) = joined(suite);
        let mut kept = kept.sealing.expand();
        assert_eq!(stream(&mut |record| kept.seal(record).unwrap()), plain);
        assert_eq!((kept.half().records(), kept.compact().records()), (4, 4));

        let mut bytes = plain.clone();
        let (mut at, mut frames, mut ready) = (0, 0, server.opening.expanded());
        while at < bytes.len() {
            let Step::Frame { used, .. } = ready.next(&mut bytes[at..]).unwrap() else { panic!() };
            (at, frames) = (at + used, frames + 1);
        }
        assert_eq!((at, frames), (plain.len(), 6));
    }
}

#[test]
fn f01_a_record_is_judged_by_its_length_before_any_of_it_is_kept() {
    let (client, server) = joined(Suite::AesGcm);
    for opening in [&client.opening, &server.opening] {
        assert_eq!(opening.find(&[]), Ok(Find::Need { total: 2 }));
        assert_eq!(opening.find(&[9]), Ok(Find::Need { total: 2 }));
        for (bare, least, limit) in [(0, 5, 16_388), (RECORD_BARE, 1, 16_384)] {
            for sealed in 0..=u16::MAX >> 1 {
                let len = usize::from(sealed).saturating_sub(16);
                let expected = match len {
                    _ if len < least => Err(FrameError::TooShort { len, least }),
                    _ if len > limit => Err(FrameError::TooLong { len, limit }),
                    _ => Ok(Find::Need { total: usize::from(sealed) + 2 }),
                };
                assert_eq!(opening.find(&(sealed | bare).to_le_bytes()), expected, "{bare} {sealed}");
            }
        }
    }
    assert_eq!((RECORD_FRAMES_MAX, RECORD_MESSAGE_MAX, RECORD_MAX), (16_388, 16_384, 16_406));
}

/// Before its log-in a peer gets no more room than a log-in takes.
#[test]
fn f01_a_first_record_is_no_longer_than_a_log_in() {
    let (_, server) = secured(Suite::AesGcm);
    let limit = LogIn::FRAME_MAX;
    assert_eq!(limit, 2_250);
    let find = |len: usize| server.opening.find(&((len + 16) as u16).to_le_bytes());
    assert_eq!(find(limit), Ok(Find::Need { total: limit + 18 }));
    assert_eq!(find(limit + 1), Err(FrameError::TooLong { len: limit + 1, limit }));
}

/// The bit that says that a record is bare is one of them: what is frames opens as no message, and the other way round.
#[test]
fn f04_a_record_with_one_bit_changed_delivers_nothing() {
    for suite in Suite::ALL {
        for bare in [false, true] {
            let (mut client, mut server) = joined(suite);
            let sound = if bare {
                self::bare(&mut client.sealing, &[9; 30])
            } else {
                record(&mut client.sealing, &messages(4))
            };
            for bit in 0..sound.len() * 8 {
                let mut changed = sound.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                match server.opening.next(&mut changed) {
                    Err(FrameError::Forged) => {}
                    // The length was made larger: no more than that comes.
                    Ok(Step::Need { total }) => assert!(bit < 15 && total > sound.len()),
                    Err(FrameError::TooLong { .. } | FrameError::TooShort { .. }) => assert!(bit < 15),
                    other => panic!("bit {bit}: {other:?}"),
                }
            }
            let count = if bare { 1 } else { 4 };
            assert_eq!(received(&mut server.opening, &sound).unwrap().len(), count, "unchanged it opens");
        }
    }
}

/// A bare record around a message.
fn bare(sealing: &mut Sealing, payload: &[u8]) -> Vec<u8> {
    let mut record = [&[0xEE; RECORD_HEAD][..], payload, &[0xEE; RECORD_TAIL]].concat();
    sealing.seal_message(&mut record).unwrap();
    record
}

#[test]
fn a_message_that_is_alone_needs_no_header() {
    for suite in Suite::ALL {
        let (mut client, mut server) = joined(suite);
        let lens = [1, 12, 256, RECORD_MESSAGE_MAX];
        let stream: Vec<u8> = lens
            .iter()
            .flat_map(|len| {
                let record = bare(&mut client.sealing, &vec![7; *len]);
                assert_eq!(record.len(), RECORD_HEAD + len + RECORD_TAIL);
                // Among others, in its turn.
                [record, crate::record(&mut client.sealing, &messages(2))].concat()
            })
            .collect();
        let got: Vec<_> =
            received(&mut server.opening, &stream).unwrap().into_iter().map(|(_, payload)| payload).collect();
        let expected: Vec<_> = lens.iter().flat_map(|len| [vec![7; *len], vec![0], vec![1; 2]]).collect();
        assert!(got == expected);
    }
}

/// Who has the keys can seal what no honest peer would: a bare record where no message may come, and one too long.
#[test]
fn f01_a_bare_record_keeps_to_the_rules_of_messages() {
    let out_of_turn = Err(FrameError::OutOfTurn(Kind::Message));
    for suite in Suite::ALL {
        let hello = second::Hello::of(suite as u8);
        let (preamble, client) = second::Client::begin(&hello, second::public(crate::SERVER), [4; 32]);
        let (answer, mut server) = accepted(&preamble);
        let (_, mut stranger) = client.read(&answer).unwrap();
        assert_eq!(
            received(&mut server.opening, &stranger.ours.seal_bare(&[1])),
            out_of_turn,
            "before a log-in"
        );

        let (mut client, mut server) = clever(suite);
        let goodbye = client.seal(&frame(Kind::Goodbye, &[0x44, 0, 0, 0, 0]));
        let stream = [goodbye, client.seal_bare(&[1])].concat();
        assert_eq!(received(&mut server, &stream), out_of_turn, "behind a goodbye");

        let (mut client, mut server) = clever(suite);
        let long = RECORD_FRAMES_MAX + 7;
        let header = madang_wire::lan::header(Kind::Message, long as u32);
        let first = client.seal(&[&header[..], &vec![1; RECORD_MESSAGE_MAX]].concat());
        let stream = [first, client.seal_bare(&[1; 11])].concat();
        assert_eq!(received(&mut server, &stream), out_of_turn, "instead of a part");

        let (mut client, mut server) = clever(suite);
        let empty = FrameError::TooShort { len: 0, least: 1 };
        assert_eq!(received(&mut server, &client.seal_bare(&[])), Err(empty));
        let (mut client, mut server) = clever(suite);
        let (len, limit) = (RECORD_MESSAGE_MAX + 1, RECORD_MESSAGE_MAX);
        let got = received(&mut server, &client.seal_bare(&vec![1; len]));
        assert_eq!(got, Err(FrameError::TooLong { len, limit }));
    }
}

/// A server that takes only short messages does so in either kind of record.
#[test]
fn f01_a_bare_record_is_no_longer_than_the_limit() {
    let small = FrameLimit::new(100).unwrap();
    let (preamble, _) = begin(Suite::AesGcm);
    let keys = crate::keys();
    let Ok(Gate::Passed(preamble)) = keys.gate(&preamble) else { panic!("it passes") };
    let mut answer = [0; ANSWER_MAX];
    let accept = Accept { frame_limit: small, ..crate::accept() };
    let (_, mut server) = preamble.read(small, [0x5E; 32]).unwrap().accept(&accept, &mut answer).unwrap();
    let (mut client, _) = joined(Suite::AesGcm);
    // The same keys: the server's ephemeral key is the same.
    let mut log_in = [&[0; RECORD_HEAD][..], &crate::log_in(), &[0; RECORD_TAIL]].concat();
    let mut again = secured(Suite::AesGcm).0;
    again.sealing.seal(&mut log_in).unwrap();
    received(&mut server.opening, &log_in).unwrap();
    assert_eq!(received(&mut server.opening, &bare(&mut client.sealing, &[1; 100])).unwrap().len(), 1);
    let over = bare(&mut client.sealing, &[1; 101]);
    assert_eq!(received(&mut server.opening, &over), Err(FrameError::TooLong { len: 101, limit: 100 }));
}

/// F05: a counter moves behind a record that opened, and not otherwise.
#[test]
fn f05_a_record_that_does_not_open_moves_no_counter() {
    for suite in Suite::ALL {
        let (mut client, mut server) = joined(suite);
        let sound = record(&mut client.sealing, &messages(1));
        for at in [2, 7, sound.len() - 1] {
            let mut changed = sound.clone();
            changed[at] ^= 1;
            assert_eq!(server.opening.next(&mut changed), Err(FrameError::Forged));
            assert_eq!(server.opening.records(), 1);
        }
        assert_eq!(received(&mut server.opening, &sound).unwrap(), [(Kind::Message, vec![0])]);
    }
}

#[test]
fn f06_records_open_once_in_their_order_and_on_their_way_only() {
    for suite in Suite::ALL {
        let stream = || {
            let (mut client, server) = joined(suite);
            let records: Vec<_> = (1..=3).map(|at| record(&mut client.sealing, &messages(at))).collect();
            (client, server, records)
        };
        let orders: [(&str, &[usize], usize); 5] = [
            ("in order", &[0, 1, 2], 3),
            ("replayed at once", &[0, 0], 1),
            ("replayed later", &[0, 1, 2, 0], 3),
            ("swapped", &[1, 0], 0),
            ("one left out", &[0, 2], 1),
        ];
        for (what, order, opened) in orders {
            let (_, mut server, records) = stream();
            let outcome: Vec<_> =
                order.iter().map(|at| received(&mut server.opening, &records[*at])).collect();
            assert!(outcome[..opened].iter().all(Result::is_ok), "{what}");
            assert!(outcome[opened..].iter().take(1).all(|last| *last == Err(FrameError::Forged)), "{what}");
            assert_eq!(opened == 3 && order.len() == 3, outcome.iter().all(Result::is_ok), "{what}");
        }
        let (mut client, _, records) = stream();
        assert_eq!(received(&mut client.opening, &records[0]), Err(FrameError::Forged), "sent back");
        let strange = clever(suite).0.seal(&messages(1));
        let (_, mut server, _) = stream();
        assert_eq!(received(&mut server.opening, &strange), Err(FrameError::Forged), "of another connection");
    }
}

/// F06: whatever byte the stream ends at, what was whole is delivered, and the end is known for one that was cut off
/// unless the peer had said goodbye.
#[test]
fn f06_a_stream_that_is_cut_off_is_not_one_that_ended() {
    let (mut client, _) = joined(Suite::AesGcm);
    let first = record(&mut client.sealing, &messages(2));
    let last = record(&mut client.sealing, &frame(Kind::Goodbye, &[0x44, 0, 0, 0, 0]));
    let stream = [&first[..], &last].concat();
    for len in 0..=stream.len() {
        let (_, mut server) = joined(Suite::AesGcm);
        let mut inbox = crate::Inbox::default();
        inbox.take(&mut server.opening, &stream[..len]).unwrap();
        let whole = if len < first.len() {
            0
        } else if len < stream.len() {
            2
        } else {
            3
        };
        assert_eq!(inbox.frames.len(), whole, "{len} bytes");
        let ended = server.opening.expect() == Expect::End;
        assert_eq!(ended, len == stream.len(), "{len} bytes");
    }
}

#[test]
fn f06_nothing_comes_behind_a_goodbye() {
    let goodbye = frame(Kind::Goodbye, &[0x44, 0, 0, 0, 0]);
    let (mut client, mut server) = joined(Suite::AesGcm);
    let same_record = record(&mut client.sealing, &[&goodbye[..], &messages(1)].concat());
    assert_eq!(received(&mut server.opening, &same_record), Err(FrameError::OutOfTurn(Kind::Message)));

    let (mut client, mut server) = joined(Suite::AesGcm);
    let stream = [record(&mut client.sealing, &goodbye), record(&mut client.sealing, &goodbye)].concat();
    assert_eq!(received(&mut server.opening, &stream), Err(FrameError::OutOfTurn(Kind::Goodbye)));
}

/// B05, F01: who has the keys can seal what no honest peer would.
#[test]
fn b05_records_of_nothing_and_of_empty_frames_end_the_connection() {
    let straddles = FrameError::Straddles;
    let too_long = FrameError::TooLong { len: LIMIT as usize + 1, limit: LIMIT as usize };
    let long = |len: usize| madang_wire::lan::header(Kind::Message, len as u32).to_vec();
    let fits = RECORD_FRAMES_MAX - HEADER;
    let table: [(&str, Vec<u8>, FrameError); 13] = [
        ("no bytes", vec![], FrameError::TooShort { len: 0, least: 5 }),
        ("half a header", vec![1, 0], FrameError::TooShort { len: 2, least: 5 }),
        ("a header alone", vec![1, 0, 0, 4], FrameError::TooShort { len: 4, least: 5 }),
        ("an empty message", vec![0, 0, 0, 4, 0], FrameError::Zero),
        ("empty messages", [0, 0, 0, 4].repeat(1000), FrameError::Zero),
        ("an empty ping", vec![0, 0, 0, 5, 0], FrameError::Zero),
        ("no kind", vec![1, 0, 0, 0, 1], FrameError::UnknownKind(0)),
        ("a kind of a later version", vec![1, 0, 0, 13, 1], FrameError::UnknownKind(13)),
        ("a message over the limit", [long(LIMIT as usize + 1), vec![0; fits]].concat(), too_long),
        ("a message that fits, cut", [long(9), vec![0; 8]].concat(), straddles),
        ("the longest that fits, cut", [long(fits), vec![0; fits - 1]].concat(), straddles),
        (
            "a long message in a record that is not full",
            [long(fits + 1), vec![0; fits - 1]].concat(),
            straddles,
        ),
        ("a cut header behind a message", [frame(Kind::Message, &[1]), vec![1, 0, 0]].concat(), straddles),
    ];
    for suite in Suite::ALL {
        for (what, frames, error) in &table {
            let (mut client, mut server) = clever(suite);
            assert_eq!(received(&mut server, &client.seal(frames)), Err(*error), "{what}");
        }
        let (mut client, mut server) = clever(suite);
        let behind = [frame(Kind::Message, &[1]), long(fits + 1), vec![0; fits - 5]].concat();
        assert_eq!(behind.len(), RECORD_FRAMES_MAX);
        let mut inbox = crate::Inbox::default();
        assert_eq!(inbox.take(&mut server, &client.seal(&behind)), Err(straddles), "not the record's first");
        assert_eq!(inbox.frames.len(), 1, "the frame before it is whole");
    }
}

#[test]
fn a_long_message_takes_as_many_records_as_it_must() {
    let fits = RECORD_FRAMES_MAX - HEADER;
    for len in [1, fits, fits + 1, fits + RECORD_FRAMES_MAX, fits + RECORD_FRAMES_MAX + 1, LIMIT as usize] {
        let cut: Vec<_> = parts(len).collect();
        assert_eq!(cut.len(), 1 + len.saturating_sub(fits).div_ceil(RECORD_FRAMES_MAX), "{len} bytes");
        assert_eq!((cut[0].start, cut.last().unwrap().end), (0, len));
        assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start && !pair[1].is_empty()));

        let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let (mut client, mut server) = joined(Suite::AesGcm);
        let stream =
            [message(&mut client.sealing, &payload), record(&mut client.sealing, &messages(1))].concat();
        let got = received(&mut server.opening, &stream).unwrap();
        assert!(got == [(Kind::Message, payload), (Kind::Message, vec![0])], "{len} bytes");
    }
    assert!(parts(0).eq(std::iter::once(0..0)));
}

/// The parts of a long message have no headers: what else comes between them is taken for a part, or ends the connection.
#[test]
fn f01_the_parts_of_a_long_message_are_as_long_as_they_must_be() {
    let fits = RECORD_FRAMES_MAX - HEADER;
    let len = fits + RECORD_FRAMES_MAX + 7;
    let header = madang_wire::lan::header(Kind::Message, len as u32);
    let first = [&header[..], &vec![1; fits]].concat();
    let full = RECORD_FRAMES_MAX;
    let table: [(&[usize], Option<FrameError>); 5] = [
        (&[full, 7], None),
        (&[full - 1], Some(FrameError::TooShort { len: full - 1, least: full })),
        (&[1], Some(FrameError::TooShort { len: 1, least: full })),
        (&[full, 6], Some(FrameError::TooShort { len: 6, least: 7 })),
        (&[full, 8], Some(FrameError::TooLong { len: 8, limit: 7 })),
    ];
    for (lens, error) in table {
        let (mut client, mut server) = clever(Suite::ChaChaPoly);
        let mut stream = client.seal(&first);
        lens.iter().for_each(|len| stream.extend(client.seal(&vec![1; *len])));
        let got = received(&mut server, &stream).map(|frames| frames[0].1.len());
        assert_eq!(got, error.map_or(Ok(len), Err), "{lens:?}");
    }
}

#[test]
fn sealing_refuses_what_no_peer_would_take() {
    let (mut client, mut server) = joined(Suite::AesGcm);
    let needed = RECORD_HEAD + RECORD_TAIL;
    let mut check = |len: usize, expected: Result<(), SealError>| {
        assert_eq!(client.sealing.seal(&mut vec![0; len]), expected, "{len} bytes");
    };
    check(0, Err(SealError::Room { needed, available: 0 }));
    check(1, Err(SealError::Room { needed, available: 1 }));
    check(needed - 1, Err(SealError::Room { needed, available: needed - 1 }));
    check(needed, Err(SealError::Empty));
    let len = RECORD_FRAMES_MAX + 1;
    check(needed + len, Err(SealError::TooLong { len, limit: RECORD_FRAMES_MAX }));
    let (len, limit) = (RECORD_MESSAGE_MAX + 1, RECORD_MESSAGE_MAX);
    let bare = client.sealing.seal_message(&mut vec![0; needed + len]);
    assert_eq!(bare, Err(SealError::TooLong { len, limit }));
    assert_eq!(client.sealing.seal_message(&mut vec![0; needed]), Err(SealError::Empty));
    // None of these used a counter up.
    let sound = record(&mut client.sealing, &messages(1));
    assert_eq!(received(&mut server.opening, &sound).unwrap().len(), 1);
}

/// F20: of the room nothing is left that was not written over, and nothing beside it is touched.
#[test]
fn f20_a_record_is_all_written_and_nothing_but_the_record() {
    let frames = messages(5);
    let sealed = |junk: u8| {
        let (mut client, _) = joined(Suite::AesGcm);
        let mut room = vec![junk; RECORD_HEAD + frames.len() + RECORD_TAIL];
        room[RECORD_HEAD..][..frames.len()].copy_from_slice(&frames);
        client.sealing.seal(&mut room).unwrap();
        room
    };
    assert_eq!(sealed(0x00), sealed(0xFF));
}

/// F08: each direction changes its key after so many records, both ends by count, while the counter runs on. The second
/// writing follows the same stream, and looks at the records around each change.
#[test]
fn f08_keys_change_by_count_and_counters_run_on() {
    for suite in Suite::ALL {
        let (preamble, _) = begin(suite);
        let second = second::Server::read(&preamble, crate::SERVER).unwrap();
        let (_, mut second) = second.answer(&frame(Kind::Accept, &crate::accept_payload()), [0x5E; 32]);
        second.theirs.skip();

        let (client, server) = joined(suite);
        let (mut sealing, mut opening) = (client.sealing.expand(), server.opening.expand());
        let one = frame(Kind::Message, &[7]);
        let mut room = vec![0; RECORD_HEAD + one.len() + RECORD_TAIL];
        for count in 1..2 * REKEY_RECORDS + 2 {
            room[RECORD_HEAD..][..one.len()].copy_from_slice(&one);
            // Bare or not, a record is one more.
            let seal = if count % 2 == 0 { sealing.seal(&mut room) } else { sealing.seal_message(&mut room) };
            seal.unwrap();
            if (count + 2) % REKEY_RECORDS < 4 {
                assert_eq!(second.theirs.open(&room).unwrap(), one, "record {count}");
            } else {
                second.theirs.skip();
            }
            assert!(matches!(opening.next(&mut room), Ok(Step::Frame { .. })), "record {count}");
        }
        assert_eq!(opening.half().records(), 2 * REKEY_RECORDS + 2);
    }
}

/// Keys move between threads and print nothing of themselves.
#[test]
fn f15_the_halves_can_be_sent_and_printed() {
    fn check<T: Send + std::fmt::Debug>(value: &T) {
        let text = format!("{value:?}");
        assert!(text.contains("***"), "{text}");
        assert!(!text.contains("81, 81"), "{text}");
    }
    let (client, server) = secured(Suite::AesGcm);
    check(&client.sealing);
    check(&server.opening);
    check(&server.sealing.expand());
    check(&crate::keys());
}

/// What an engine keeps for a session: these figures stand in docs/wire.md.
#[test]
fn the_halves_are_as_small_as_documented() {
    use madang_wire::wan::Expanded;
    assert_eq!(size_of::<Sealing>(), 48);
    assert_eq!(size_of::<Opening>(), 72);
    assert_eq!(size_of::<Secured>(), 152);
    let key = size_of::<Expanded<Sealing>>() - size_of::<Sealing>();
    assert!((500..600).contains(&key), "an expanded key takes {key} bytes");
}
