//! F02, F03: however a stream is cut into reads, and wherever the engine stops between frames, the same frames arrive.

use madang_wire::wan::{Opening, RECORD_FRAMES_MAX, RECORD_MAX, Suite};
use madang_wire::{Find, Kind};
use proptest::prelude::*;

use crate::{Inbox, frame, joined, message, record};

/// What one record, or one long message, holds.
#[derive(Clone, Debug)]
enum Sent {
    Together(Vec<usize>),
    Long(usize),
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        6 => proptest::collection::vec(1..300usize, 1..12).prop_map(Sent::Together),
        1 => (RECORD_FRAMES_MAX - 3..40_000usize).prop_map(Sent::Long),
    ]
}

fn payload(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed.wrapping_mul(31).wrapping_add(at) % 251) as u8).collect()
}

type Frames = Vec<(Kind, Vec<u8>)>;

/// The stream, the frames that must come out of it, and who takes them.
fn stream(suite: Suite, sent: &[Sent]) -> (Vec<u8>, Frames, Opening) {
    let (mut client, server) = joined(suite);
    let (mut stream, mut frames) = (Vec::new(), Vec::new());
    for (seed, sent) in sent.iter().enumerate() {
        match sent {
            Sent::Together(lens) => {
                let mut together = Vec::new();
                for len in lens {
                    let kind = if *len == 8 { Kind::Ping } else { Kind::Message };
                    together.extend(frame(kind, &payload(seed, *len)));
                    frames.push((kind, payload(seed, *len)));
                }
                stream.extend(record(&mut client.sealing, &together));
            }
            Sent::Long(len) => {
                stream.extend(message(&mut client.sealing, &payload(seed, *len)));
                frames.push((Kind::Message, payload(seed, *len)));
            }
        }
    }
    (stream, frames, server.opening)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn f02_any_cutting_of_a_stream_gives_the_same_frames(
        sent in proptest::collection::vec(sent(), 1..6),
        cuts in proptest::collection::vec(1..5000usize, 1..40),
        chacha: bool,
    ) {
        let suite = if chacha { Suite::ChaChaPoly } else { Suite::AesGcm };
        let (stream, frames, mut opening) = stream(suite, &sent);
        let mut inbox = Inbox::default();
        let (mut rest, mut cuts) = (&stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (read, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            inbox.take(&mut opening, read).unwrap();
            prop_assert!(inbox.stream.len() < RECORD_MAX, "no more than one record is kept");
            rest = behind;
        }
        prop_assert!(inbox.stream.is_empty() && inbox.long.is_empty());
        prop_assert_eq!(inbox.frames, frames);
    }

    /// The engine stops after any frame (a job holds the messages), keeps what it was shown, and goes on later; meanwhile
    /// more may have come. `find` is right about what must lie in one piece at each of these moments.
    #[test]
    fn f02_stopping_between_frames_loses_and_repeats_nothing(
        sent in proptest::collection::vec(sent(), 1..4),
        stops in proptest::collection::vec(0..5usize, 1..20),
    ) {
        let (stream, frames, mut opening) = stream(Suite::AesGcm, &sent);
        let mut inbox = Inbox::default();
        let (mut rest, mut stops) = (&stream[..], stops.iter().cycle());
        while !rest.is_empty() || !inbox.stream.is_empty() {
            match opening.find(&inbox.stream).unwrap() {
                Find::Need { total } => {
                    let (read, behind) = rest.split_at(total - inbox.stream.len());
                    inbox.stream.extend(read);
                    rest = behind;
                }
                Find::Frame { len } => {
                    let before = inbox.stream.len();
                    for _ in 0..=*stops.next().unwrap() {
                        inbox.step(&mut opening).unwrap();
                    }
                    prop_assert!(before > inbox.stream.len() && before - inbox.stream.len() <= len.max(before));
                }
            }
        }
        prop_assert_eq!(inbox.frames, frames);
    }

    /// F03: no bytes make it panic, or want more than a record.
    #[test]
    fn f03_any_bytes_are_refused_or_waited_for(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, mut server) = joined(Suite::ChaChaPoly);
        match server.opening.find(&bytes) {
            Ok(Find::Need { total }) => prop_assert!(total > bytes.len() && total <= RECORD_MAX),
            Ok(Find::Frame { len }) => prop_assert!(len <= bytes.len()),
            Err(_) => {}
        }
        let mut inbox = Inbox::default();
        let taken = inbox.take(&mut server.opening, &bytes);
        prop_assert!(taken.is_err() || inbox.frames.is_empty());
    }
}

/// One byte at a time, the slowest of peers.
#[test]
fn f02_a_stream_of_single_bytes_gives_the_same_frames() {
    let sent = [Sent::Together(vec![1, 8, 200]), Sent::Long(RECORD_FRAMES_MAX + 5), Sent::Together(vec![3])];
    let (stream, frames, mut opening) = stream(Suite::AesGcm, &sent);
    let mut inbox = Inbox::default();
    for byte in stream {
        inbox.take(&mut opening, &[byte]).unwrap();
    }
    assert_eq!(inbox.frames, frames);
}
