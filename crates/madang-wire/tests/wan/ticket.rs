//! Tickets: none is accepted without the key. F18 (its TCP half), F19.

use madang_wire::wan::{TICKET, TicketClaim, TicketError, TicketKey, TicketPurpose};
use proptest::prelude::*;

use crate::second;

fn claim() -> TicketClaim {
    TicketClaim { purpose: TicketPurpose::Queue, place: 77, expires_ms: 5_000, holder: [3; 20] }
}

#[test]
fn a_ticket_says_what_it_was_issued_for_until_it_expires() {
    let key = TicketKey::new([1; 32]);
    for purpose in [TicketPurpose::Queue, TicketPurpose::Place] {
        let claim = TicketClaim { purpose, ..claim() };
        let ticket = key.issue(&claim);
        assert_eq!(key.check(&ticket, 0), Ok(claim));
        assert_eq!(key.check(&ticket, 4_999), Ok(claim));
        assert_eq!(key.check(&ticket, 5_000), Err(TicketError::Expired));
        assert_eq!(key.check(&ticket, u64::MAX), Err(TicketError::Expired));
    }
}

#[test]
fn a_ticket_is_laid_out_as_documented() {
    let body = [&[1, 1][..], &77u64.to_le_bytes(), &5_000u64.to_le_bytes(), &[3; 20]].concat();
    let tag = second::hmac_sha256(&[1; 32], &[&body]);
    assert_eq!(TicketKey::new([1; 32]).issue(&claim())[..], [&body[..], &tag[..16]].concat());
}

#[test]
fn f18_f19_a_ticket_that_was_changed_or_is_anothers_is_forged() {
    let key = TicketKey::new([1; 32]);
    let ticket = key.issue(&claim());
    for bit in 0..TICKET * 8 {
        let mut changed = ticket;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.check(&changed, 0), Err(TicketError::Forged), "bit {bit}");
    }
    for len in 0..TICKET {
        assert_eq!(key.check(&ticket[..len], 0), Err(TicketError::Forged));
    }
    assert_eq!(key.check(&[&ticket[..], &[0]].concat(), 0), Err(TicketError::Forged));
    assert_eq!(TicketKey::new([2; 32]).check(&ticket, 0), Err(TicketError::Forged), "of another life");

    // Well tagged, and still nothing that we issue.
    for (at, value) in [(0, 2), (1, 0), (1, 3)] {
        let mut body = ticket[..TICKET - 16].to_vec();
        body[at] = value;
        let tag = second::hmac_sha256(&[1; 32], &[&body]);
        assert_eq!(key.check(&[&body[..], &tag[..16]].concat(), 0), Err(TicketError::Forged));
    }
}

proptest! {
    #[test]
    fn no_bytes_are_a_ticket_by_chance(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(TicketKey::new([1; 32]).check(&bytes, 0), Err(TicketError::Forged));
    }
}
