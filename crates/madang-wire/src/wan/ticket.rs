//! Tickets of our own: what a server can believe when it sees it again.

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::codec::{ReadError, Reader};
use crate::lan::TicketPurpose;

/// Bytes of a ticket that [`TicketKey`] makes.
pub const TICKET: usize = CLAIM + TAG;

const CLAIM: usize = 38;
const TAG: usize = 16;
const VERSION: u8 = 1;

/// What a ticket says. A client can read it, and cannot make or change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketClaim {
    /// What it keeps.
    pub purpose: TicketPurpose,
    /// Which place: the server's own number for it.
    pub place: u64,
    /// Until when, in milliseconds of the server's clock.
    pub expires_ms: u64,
    /// Who: the first 20 bytes of a hash of the account, or what content likes; zeros for whoever holds the ticket.
    pub holder: [u8; 20],
}

/// Why a ticket is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not one of ours: made under another key, changed, or no ticket at all.
    #[error("not a ticket of this server")]
    Forged,
    /// Once it was good.
    #[error("ticket has expired")]
    Expired,
}

/// The key under which a server makes and checks tickets: HMAC-SHA256, 16 bytes of it. Drawn at every start, unless
/// tickets are to outlive one.
#[derive(Debug)]
pub struct TicketKey(hmac::Key);

impl TicketKey {
    /// A key of 32 random bytes of the driver's.
    pub fn new(entropy: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &entropy))
    }

    /// Makes a ticket.
    pub fn issue(&self, claim: &TicketClaim) -> [u8; TICKET] {
        let mut ticket = [0; TICKET];
        let fields = [VERSION, claim.purpose as u8]
            .into_iter()
            .chain(claim.place.to_le_bytes())
            .chain(claim.expires_ms.to_le_bytes())
            .chain(claim.holder);
        let (body, tag) = ticket.split_at_mut(CLAIM);
        body.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        tag.copy_from_slice(&self.tag(body));
        ticket
    }

    /// Reads a ticket that a client showed; `now_ms` is the time on the clock that it was issued by. Compares in a time
    /// that does not depend on where it is wrong. A ticket can be shown twice: who keeps places sees to it that each is
    /// taken once.
    pub fn check(&self, ticket: &[u8], now_ms: u64) -> Result<TicketClaim, TicketError> {
        let ticket: &[u8; TICKET] = ticket.try_into().map_err(|_| TicketError::Forged)?;
        let (body, tag) = ticket.split_at(CLAIM);
        if !bool::from(self.tag(body).ct_eq(tag)) {
            return Err(TicketError::Forged);
        }
        let claim = Self::claim(body).map_err(|_| TicketError::Forged)?.ok_or(TicketError::Forged)?;
        if claim.expires_ms <= now_ms { Err(TicketError::Expired) } else { Ok(claim) }
    }

    fn claim(body: &[u8]) -> Result<Option<TicketClaim>, ReadError> {
        let mut read = Reader::new(body);
        let (version, purpose) = (read.u8()?, TicketPurpose::from_u8(read.u8()?));
        let (place, expires_ms, holder) = (read.u64()?, read.u64()?, read.array()?);
        let purpose = purpose.filter(|_| version == VERSION);
        Ok(purpose.map(|purpose| TicketClaim { purpose, place, expires_ms, holder }))
    }

    fn tag(&self, body: &[u8]) -> [u8; TAG] {
        hmac::sign(&self.0, body).as_ref().first_chunk().copied().unwrap_or_default()
    }
}
