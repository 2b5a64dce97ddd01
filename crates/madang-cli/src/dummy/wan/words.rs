//! The control messages of the WAN, as far as a client needs them; those of the queue are the LAN's too.

use crate::dummy::framing::Malformed;
use crate::dummy::lan::Fields;

/// What the dummy says it accepts: the default of WAN servers, so that none has a reason to refuse.
pub(super) const FRAME_LIMIT: u32 = 16 * 1024;

/// The payload of a log-in without a proof.
pub(crate) fn log_in(token: &[u8], ticket: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in [token, &[], ticket] {
        out.extend((part.len() as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Checks the server's word that it takes our hello; gives the longest message that it accepts.
pub(super) fn check_accept(payload: &[u8]) -> Result<usize, Malformed> {
    let mut fields = Fields::of(payload);
    let (protocol, flags) = (u16::from_le_bytes(fields.take()?), u16::from_le_bytes(fields.take()?));
    let _app_version = fields.take::<4>()?;
    let frame_limit = u32::from_le_bytes(fields.take()?);
    let _schema_hash = fields.take::<8>()?;
    fields.end()?;
    match (protocol, flags, frame_limit) {
        (1, 0, 1..=0xff_ffff) => Ok(frame_limit as usize),
        _ => Err(Malformed(format!("protocol {protocol}, flags {flags:#x}, frame limit {frame_limit}"))),
    }
}

/// Where a client stands in the waiting queue.
pub(crate) fn check_queue(payload: &[u8]) -> Result<u32, Malformed> {
    let mut fields = Fields::of(payload);
    let (position, length) = (u32::from_le_bytes(fields.take()?), u32::from_le_bytes(fields.take()?));
    let _estimate_ms = fields.take::<4>()?;
    fields.end()?;
    if (1..=length).contains(&position) {
        Ok(position)
    } else {
        Err(Malformed(format!("position {position} of {length}")))
    }
}

/// Checks a ticket and gives its bytes; none takes an earlier one back.
pub(crate) fn check_ticket(payload: &[u8]) -> Result<&[u8], Malformed> {
    let mut fields = Fields::of(payload);
    let [purpose] = fields.take()?;
    let _grace_ms = fields.take::<4>()?;
    let ticket = fields.bytes(128)?;
    fields.end()?;
    match purpose {
        1 | 2 => Ok(ticket),
        _ => Err(Malformed(format!("a ticket for purpose {purpose}"))),
    }
}

/// The server's word that it takes a hello, for the tests' double.
#[cfg(test)]
pub(super) fn accept(frame_limit: u32) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0, 0, 0, 0, 0];
    out.extend(frame_limit.to_le_bytes());
    out.extend([0; 8]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_is_three_texts() {
        assert_eq!(log_in(b"ab", b"c"), b"\x02\0ab\0\0\x01\0c");
        assert_eq!(log_in(b"", b""), [0; 6]);
    }

    #[test]
    fn wrong_fields_are_malformed() {
        assert_eq!(check_accept(&accept(7)), Ok(7));
        for (at, byte) in [(0, 2), (2, 1), (8, 0), (11, 1)] {
            let mut payload = accept(7);
            payload[at] = byte;
            assert!(check_accept(&payload).is_err(), "{at}");
        }
        let queue = |position: u32, length: u32| {
            let numbers = [position, length, u32::MAX];
            check_queue(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
        };
        assert_eq!(queue(1, 1), Ok(1));
        assert!(queue(0, 1).is_err() && queue(2, 1).is_err());
        assert_eq!(check_ticket(b"\x01\0\0\0\0\x01\0x"), Ok(&b"x"[..]));
        for wrong in [&b"\x03\0\0\0\0\x01\0x"[..], b"\x01\0\0\0\0\x01\0", b"\x01\0\0\0\0\x01\0xy", b""] {
            assert!(check_ticket(wrong).is_err(), "{wrong:?}");
        }
    }
}
