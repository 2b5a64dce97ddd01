//! The words inside a WAN connection's records: their bounds, and which may come when. F01, F19.

use madang_wire::lan::{ControlError, Expect, HEADER};
use madang_wire::wan::{
    Draining, LogIn, QueueState, Suite, Ticket, TicketPurpose, log_in_is_proven, log_in_proof,
};
use madang_wire::{FrameError, Kind, ReadError, WriteError};
use proptest::prelude::*;

use crate::{frame, received, record, second, secured};

/// The payload of the frame that `write` makes, whose header is checked on the way.
fn payload(kind: Kind, write: impl FnOnce(&mut [u8]) -> Result<usize, WriteError>) -> Vec<u8> {
    let mut room = vec![0xEE; LogIn::FRAME_MAX];
    let len = write(&mut room).unwrap();
    let payload = room[HEADER..len].to_vec();
    assert_eq!(room[..len], frame(kind, &payload));
    assert!(kind.payload_bounds().contains(&payload.len()), "{kind:?} of {} bytes", payload.len());
    assert!(room[len..].iter().all(|byte| *byte == 0xEE), "wrote behind the frame");
    payload
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=most)
}

proptest! {
    #[test]
    fn a_log_in_is_read_as_it_was_written(token in bytes(2048), proof in bytes(64), ticket in bytes(128)) {
        let log_in = LogIn { token: &token, proof: &proof, ticket: &ticket };
        let payload = payload(Kind::LogIn, |out| log_in.to_frame(out));
        prop_assert_eq!(LogIn::from_payload(&payload), Ok(log_in));
        for len in 0..payload.len().min(40) {
            prop_assert!(LogIn::from_payload(&payload[..len]).is_err());
        }
        let more = [&payload[..], &[0]].concat();
        prop_assert_eq!(LogIn::from_payload(&more), Err(ControlError::Read(ReadError::Trailing(1))));
    }

    #[test]
    fn the_other_words_are_read_as_they_were_written(a: u32, b: u32, ticket in bytes(128), place: bool) {
        let (position, length) = (a.min(b).max(1), a.max(b).max(1));
        for estimate_ms in [None, Some(0), Some(a.min(u32::MAX - 1))] {
            let state = QueueState { position, length, estimate_ms };
            let payload = payload(Kind::Queue, |out| state.to_frame(out));
            prop_assert_eq!(QueueState::from_payload(&payload), Ok(state));
        }
        let purpose = if place { TicketPurpose::Place } else { TicketPurpose::Queue };
        let ticket = Ticket { purpose, grace_ms: a, bytes: &ticket };
        let written = payload(Kind::Ticket, |out| ticket.to_frame(out));
        prop_assert_eq!(Ticket::from_payload(&written), Ok(ticket));
        let draining = Draining { grace_ms: b };
        let written = payload(Kind::Draining, |out| draining.to_frame(out));
        prop_assert_eq!(Draining::from_payload(&written), Ok(draining));
    }

    #[test]
    fn any_payload_is_read_or_refused(bytes in bytes(200)) {
        let _ = (LogIn::from_payload(&bytes), Ticket::from_payload(&bytes));
        let _ = (QueueState::from_payload(&bytes), Draining::from_payload(&bytes));
    }
}

#[test]
fn f01_parts_of_a_log_in_are_no_longer_than_they_may_be() {
    let long = |len: u16| [&len.to_le_bytes()[..], &vec![0; len.into()]].concat();
    let check = |payload: Vec<u8>, expected: Result<(), ControlError>| {
        assert_eq!(LogIn::from_payload(&payload).map(|_| ()), expected);
    };
    check([long(2048), long(64), long(128)].concat(), Ok(()));
    let too_long = |len, limit| Err(ControlError::TextTooLong { len, limit });
    check([long(2049), long(0), long(0)].concat(), too_long(2049, 2048));
    check([long(0), long(65), long(0)].concat(), too_long(65, 64));
    check([long(0), long(0), long(129)].concat(), too_long(129, 128));
    // The length is refused before anyone looks whether so much is there.
    check(vec![0xFF, 0xFF], too_long(65_535, 2048));

    let over = [0; 2049];
    let written = LogIn { token: &over, ..LogIn::default() }.to_frame(&mut [0; 4096]);
    assert_eq!(written, Err(WriteError::TextTooLong { len: 2049, limit: 2048 }));
}

#[test]
fn f01_fields_outside_their_bounds_are_refused() {
    let queue = |position: u32, length: u32| {
        let bytes = [position.to_le_bytes(), length.to_le_bytes(), [0; 4]].concat();
        QueueState::from_payload(&bytes).map(|_| ())
    };
    let field = |value| Err(ControlError::Field { field: "position", value });
    assert_eq!((queue(1, 1), queue(0, 1), queue(3, 2)), (Ok(()), field(0), field(3)));

    let ticket = |purpose| Ticket::from_payload(&[purpose, 0, 0, 0, 0, 1, 0, 9]).map(|_| ());
    assert_eq!((ticket(1), ticket(2)), (Ok(()), Ok(())));
    for purpose in [0, 3, 255] {
        let value = u64::from(purpose);
        assert_eq!(ticket(purpose), Err(ControlError::Field { field: "purpose", value }));
    }
}

/// The table of docs/wire.md, part 4, row by row: a frame of each kind, in a record, in each state.
#[test]
fn each_state_takes_the_kinds_of_its_row_and_no_other() {
    use Expect::{End, LogIn, Queue, Served, Traffic};
    let served = |then| {
        vec![
            (Kind::Ping, then),
            (Kind::Pong, then),
            (Kind::Goodbye, End),
            (Kind::Ticket, then),
            (Kind::Draining, then),
        ]
    };
    let rows: [(Expect, Vec<(Kind, Expect)>); 4] = [
        (LogIn, vec![(Kind::LogIn, Traffic)]),
        (
            Traffic,
            vec![
                (Kind::Message, Traffic),
                (Kind::Ping, Traffic),
                (Kind::Pong, Traffic),
                (Kind::Goodbye, End),
            ],
        ),
        (
            Queue,
            [&served(Queue)[..], &[(Kind::Queue, Queue), (Kind::Welcome, Served), (Kind::Refusal, End)]]
                .concat(),
        ),
        (Served, [&served(Served)[..], &[(Kind::Message, Served)]].concat()),
    ];
    for (state, row) in rows {
        for kind in Kind::ALL {
            let (mut client, mut server) = secured(Suite::AesGcm);
            let (sealing, opening) = match state {
                LogIn | Traffic => (&mut client.sealing, &mut server.opening),
                _ => (&mut server.sealing, &mut client.opening),
            };
            let before = match state {
                Traffic => Some(Kind::LogIn),
                Served => Some(Kind::Welcome),
                _ => None,
            };
            if let Some(kind) = before {
                received(opening, &record(sealing, &shortest(kind))).unwrap();
            }
            assert_eq!(opening.expect(), state);
            let got = received(opening, &record(sealing, &shortest(kind)));
            match row.iter().find(|(allowed, _)| *allowed == kind) {
                Some((_, after)) => {
                    assert_eq!(got.map(|frames| frames[0].0), Ok(kind), "{kind:?} in {state:?}");
                    assert_eq!(opening.expect(), *after, "{kind:?} in {state:?}");
                }
                None => assert_eq!(got, Err(FrameError::OutOfTurn(kind)), "{kind:?} in {state:?}"),
            }
        }
    }
}

fn shortest(kind: Kind) -> Vec<u8> {
    frame(kind, &vec![0; *kind.payload_bounds().start()])
}

#[test]
fn a_proof_is_worth_something_on_its_own_connection_only() {
    let (client, server) = secured(Suite::AesGcm);
    let (other, _) = secured(Suite::ChaChaPoly);
    let proof = log_in_proof(b"secret", &client.hash);
    assert_eq!(proof, second::hmac_sha256(b"secret", &[b"madang log-in 1", client.hash.bytes()]));
    assert!(log_in_is_proven(b"secret", &server.hash, &proof));
    assert!(!log_in_is_proven(b"secret", &other.hash, &proof), "relayed to another connection");
    assert!(!log_in_is_proven(b"another", &server.hash, &proof));
}

/// F19: each bit counts, and so does the length.
#[test]
fn f19_a_proof_with_one_bit_changed_proves_nothing() {
    let (client, _) = secured(Suite::AesGcm);
    let proof = log_in_proof(b"secret", &client.hash);
    for bit in 0..proof.len() * 8 {
        let mut changed = proof;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!log_in_is_proven(b"secret", &client.hash, &changed));
    }
    for len in 0..proof.len() {
        assert!(!log_in_is_proven(b"secret", &client.hash, &proof[..len]));
    }
    assert!(!log_in_is_proven(b"secret", &client.hash, &[&proof[..], &[0]].concat()));
}
