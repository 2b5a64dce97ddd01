//! A refusal in words.

use std::fmt;

use madang_wire::lan::{self, RefusalReason};

/// Why a peer is not let in: a reason for the program that reads it, and a text for the person in front of it.
///
/// ```
/// use madang::{Refusal, wire::lan::RefusalReason};
/// let closed = Refusal::new(RefusalReason::Draining, "maintenance until 9");
/// assert_eq!((closed.reason, closed.text()), (RefusalReason::Draining, "maintenance until 9"));
/// ```
///
/// On a WAN a client can trust both: they come from the server whose key it pins. Elsewhere nobody vouches for them. Either
/// way a text that came is at most [`TEXT_MAX`](Refusal::TEXT_MAX) bytes and holds no control characters, so it may be
/// logged and shown as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// From 16 on trying again later can help; see [`RefusalReason`].
    pub reason: RefusalReason,
    text: Box<str>,
}

impl Refusal {
    /// The most bytes of a text.
    pub const TEXT_MAX: usize = lan::Refusal::TEXT_MAX;

    /// A refusal with a text. What is longer than [`TEXT_MAX`](Refusal::TEXT_MAX) bytes is cut behind the last whole character;
    /// a control character becomes a space.
    pub fn new(reason: RefusalReason, text: &str) -> Refusal {
        let fits = |(at, char): &(usize, char)| at + char.len_utf8() <= Refusal::TEXT_MAX;
        let chars = text.char_indices().take_while(fits);
        // A space is no longer than what it stands for.
        let text: String = chars.map(|(_, char)| if char.is_control() { ' ' } else { char }).collect();
        Refusal { reason, text: text.into() }
    }

    /// The text; empty where there is none.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a peer's frame says. A text that cannot be read is none, and the reason stands.
    pub(crate) fn read(payload: &[u8]) -> Refusal {
        match lan::Refusal::from_payload(payload) {
            Ok(theirs) => theirs.into(),
            Err(_) => RefusalReason::from_u8(payload.first().copied().unwrap_or_default()).into(),
        }
    }

    /// Writes its frame.
    pub(crate) fn frame<'a>(&self, room: &'a mut [u8; lan::CONTROL_FRAME_MAX]) -> &'a [u8] {
        let len = self.wire().to_frame(room).expect("a text was cut when it was made");
        &room[..len]
    }

    pub(crate) fn wire(&self) -> lan::Refusal<'_> {
        lan::Refusal { reason: self.reason, text: &self.text }
    }
}

/// Without a text.
impl From<RefusalReason> for Refusal {
    fn from(reason: RefusalReason) -> Refusal {
        Refusal { reason, text: Box::default() }
    }
}

/// What a peer said.
impl From<lan::Refusal<'_>> for Refusal {
    fn from(theirs: lan::Refusal<'_>) -> Refusal {
        Refusal::new(theirs.reason, theirs.text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            "" => write!(f, "{:?}", self.reason),
            text => write!(f, "{:?}: {text}", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h01_a_text_fits_its_frame_whatever_it_was_made_of() {
        let check = |text: &str, expected: &str| {
            let refusal = Refusal::new(RefusalReason::NotAllowed, text);
            assert_eq!(refusal.text(), expected, "{text:?}");
            let mut room = [0; lan::CONTROL_FRAME_MAX];
            let frame = refusal.frame(&mut room);
            let read = lan::Refusal::from_payload(&frame[lan::HEADER..]).expect("a peer can read it");
            assert_eq!(Refusal::from(read), refusal);
        };
        check("", "");
        check("maintenance until 9", "maintenance until 9");
        check("점검 중입니다", "점검 중입니다");
        check("two\r\nlines\u{85}", "two  lines ");
        check(&"x".repeat(128), &"x".repeat(128));
        check(&"x".repeat(500), &"x".repeat(128));
        // Three bytes each: the 43rd would end at byte 129.
        check(&"마".repeat(43), &"마".repeat(42));
        check(&"\u{85}".repeat(100), &" ".repeat(64));
    }

    #[test]
    fn h01_a_text_that_is_none_leaves_the_reason() {
        let full = Refusal::from(RefusalReason::Full);
        for broken in
            [&b"\x10\x02\x00\xff\xfe"[..], b"\x10\x02\x00\x1b[", b"\x10\xff\xff", b"\x10\x00\x00more"]
        {
            assert_eq!(Refusal::read(broken), full, "{broken:?}");
        }
        assert_eq!(Refusal::read(b"\x10\x05\x00later").text(), "later");
        assert_eq!(Refusal::read(b"").reason, RefusalReason::Unknown(0));
    }

    #[test]
    fn it_is_shown_in_words() {
        assert_eq!(Refusal::from(RefusalReason::Full).to_string(), "Full");
        let closed = Refusal::new(RefusalReason::Draining, "back at 9");
        assert_eq!(closed.to_string(), "Draining: back at 9");
    }
}
