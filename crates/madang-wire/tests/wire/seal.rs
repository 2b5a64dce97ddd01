//! Sealing: what is put around a payload, and what is refused.

use madang_wire::{Find, FrameError, FrameLimit, Opened};
use madang_wire::{Framing, Overhead, SealError, SealSlot, Sealed, seal_frame};

use crate::{LIMIT, Which};

#[test]
fn sealing_refuses_what_no_peer_would_take() {
    for which in Which::ALL {
        let mut framing = which.framing();
        let Overhead { head, tail } = framing.overhead();
        let limit = LIMIT as usize;
        let check = |framing: &mut dyn Framing, room: usize, expected: Result<(), SealError>| {
            let sealed = seal_frame(framing, &mut vec![0; room]);
            assert_eq!(sealed.map(|_| ()), expected, "{which:?} with {room} bytes");
        };
        let overhead = head + tail;
        check(&mut *framing, 0, Err(SealError::Room { needed: overhead, available: 0 }));
        check(
            &mut *framing,
            overhead - 1,
            Err(SealError::Room { needed: overhead, available: overhead - 1 }),
        );
        check(&mut *framing, overhead, Err(SealError::Empty));
        check(&mut *framing, overhead + 1, Ok(()));
        check(&mut *framing, overhead + limit, Ok(()));
        check(&mut *framing, overhead + limit + 1, Err(SealError::TooLong { len: limit + 1, limit }));
    }
}

/// The same, asked of the framing itself: it must not lean on `seal_frame` having looked.
#[test]
fn a_framing_judges_its_slot_by_itself() {
    for which in [Which::LanServer, Which::Be32, Which::Classic] {
        let limit = LIMIT as usize;
        let seal = |head: usize, payload: usize| {
            let (mut head, mut payload) = (vec![0; head], vec![0; payload]);
            which.framing().seal(SealSlot { head: &mut head, payload: &mut payload, tail: &mut [] })
        };
        let head = which.framing().overhead().head;
        assert_eq!(seal(head, 0), Err(SealError::Empty), "{which:?}");
        assert_eq!(seal(head, limit + 1), Err(SealError::TooLong { len: limit + 1, limit }), "{which:?}");
        assert_eq!(seal(head, 70_000), Err(SealError::TooLong { len: 70_000, limit }), "{which:?}");
        assert_eq!(
            seal(head - 1, 1),
            Err(SealError::Room { needed: head, available: head - 1 }),
            "{which:?}"
        );
        assert_eq!(seal(head, 1), Ok(Sealed { head, tail: 0 }), "{which:?}");
    }
}

#[test]
fn a_short_head_leaves_no_gap_in_front_of_the_frame() {
    let mut framing = Which::Varint.framing();
    for (len, head) in [(1, 1), (127, 1), (128, 2), (LIMIT as usize, 2)] {
        let mut bytes = vec![0xEE; 2 + len + 1];
        bytes[2..2 + len].fill(7);
        assert_eq!(seal_frame(&mut *framing, &mut bytes), Ok(head + len + 1));
        assert_eq!(framing.find(&bytes), Ok(Find::Frame { len: head + len + 1 }));
        assert!(bytes[head..head + len].iter().all(|byte| *byte == 7));
    }
}

/// A framing that claims to have used more room than it was given is an error, not a frame over someone else's bytes.
#[test]
fn a_framing_that_overdraws_its_room_is_an_error() {
    struct Overdrawn(Sealed);

    impl Framing for Overdrawn {
        fn find(&mut self, _: &[u8]) -> Result<Find, FrameError> {
            Err(FrameError::Foreign("sends only"))
        }
        fn open(&mut self, _: &mut [u8]) -> Result<Opened, FrameError> {
            Err(FrameError::Foreign("sends only"))
        }
        fn overhead(&self) -> Overhead {
            Overhead { head: 2, tail: 1 }
        }
        fn limit(&self) -> usize {
            8
        }
        fn seal(&mut self, _: SealSlot<'_>) -> Result<Sealed, SealError> {
            Ok(self.0)
        }
    }

    for (sealed, expected) in [
        (Sealed { head: 3, tail: 1 }, Err(SealError::Room { needed: 3, available: 7 })),
        (Sealed { head: 2, tail: 2 }, Err(SealError::Room { needed: 3, available: 7 })),
        (Sealed { head: 2, tail: 1 }, Ok(7)),
        (Sealed { head: 0, tail: 0 }, Ok(4)),
    ] {
        assert_eq!(seal_frame(&mut Overdrawn(sealed), &mut [0; 7]), expected, "{sealed:?}");
    }
}

#[test]
fn a_frame_limit_is_one_byte_to_24_bits() {
    for (bytes, sound) in [(0, false), (1, true), (0xFF_FFFF, true), (0x100_0000, false), (u32::MAX, false)] {
        assert_eq!(FrameLimit::new(bytes).map(FrameLimit::get), sound.then_some(bytes));
    }
}
