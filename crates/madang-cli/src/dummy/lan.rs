//! The control messages of a LAN link (docs/wire.md 1.2 to 1.7), as far as a client needs them. Those that a WAN
//! connection has too are the same there.

use super::framing::Malformed;

const MAGIC: &[u8; 4] = b"MDNG";
const PROTOCOL: u16 = 1;

/// What the dummy says it accepts: the default of the engine, so that no server has a reason to refuse.
const FRAME_LIMIT: u32 = 1024 * 1024;

/// The service that the dummy is; a server that admits only some services must know it.
const SERVICE: &str = "dummy";

/// The reason of our goodbye: content asked for the end.
const CONTENT: u8 = 0x31;

/// The greeting says that a ticket stands at its end.
const HAS_TICKET: u16 = 2;

/// The payload of the dummy's greeting. The node is empty: a client that is no node has no lives to compare.
pub(crate) fn greeting(longest: usize, ticket: &[u8]) -> Vec<u8> {
    let frame_limit = FRAME_LIMIT.max(longest as u32);
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&PROTOCOL.to_le_bytes());
    let flags = if ticket.is_empty() { 0 } else { HAS_TICKET };
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes()); // app version
    out.extend_from_slice(&frame_limit.to_le_bytes());
    out.extend_from_slice(&0_u64.to_le_bytes()); // incarnation
    out.extend_from_slice(&0_u64.to_le_bytes()); // schema hash: none
    for text in [SERVICE, ""] {
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    if !ticket.is_empty() {
        out.extend_from_slice(&(ticket.len() as u16).to_le_bytes());
        out.extend_from_slice(ticket);
    }
    out
}

/// The payload of our goodbye.
pub(crate) fn goodbye() -> [u8; 5] {
    [CONTENT, 0, 0, 0, 0]
}

/// Checks the server's greeting; gives the longest message that it accepts.
pub(crate) fn check_greeting(payload: &[u8]) -> Result<usize, Malformed> {
    let mut fields = Fields::of(payload);
    let magic = fields.take::<4>()?;
    let protocol = u16::from_le_bytes(fields.take()?);
    if &magic != MAGIC || protocol != PROTOCOL {
        return Err(Malformed(format!("a greeting with magic {magic:?} and protocol {protocol}")));
    }
    let flags = u16::from_le_bytes(fields.take()?);
    let _app_version = fields.take::<4>()?;
    let frame_limit = u32::from_le_bytes(fields.take()?);
    let _incarnation_and_schema = fields.take::<16>()?;
    let (service, node) = (fields.text(64)?, fields.text(64)?);
    fields.end()?;
    if flags != 0 || frame_limit == 0 || frame_limit > 0xff_ffff {
        return Err(Malformed(format!(
            "the greeting of {service:?}, node {node:?} has flags {flags:#x} and frame limit {frame_limit}"
        )));
    }
    Ok(frame_limit as usize)
}

/// Checks the welcome: its two times must be in bounds.
pub(crate) fn check_welcome(payload: &[u8]) -> Result<(), Malformed> {
    let mut fields = Fields::of(payload);
    let _session = fields.take::<8>()?;
    let heartbeat_ms = u32::from_le_bytes(fields.take()?);
    let dead_after_ms = u32::from_le_bytes(fields.take()?);
    fields.end()?;
    let fits = match heartbeat_ms {
        0 => dead_after_ms == 0,
        _ => (10..=600_000).contains(&heartbeat_ms) && dead_after_ms >= heartbeat_ms,
    };
    if fits {
        Ok(())
    } else {
        Err(Malformed(format!("a welcome with heartbeat {heartbeat_ms} ms, dead after {dead_after_ms} ms")))
    }
}

/// A refusal in words.
pub(crate) fn describe_refusal(payload: &[u8]) -> String {
    let mut fields = Fields::of(payload);
    let read = fields.take::<1>().and_then(|[reason]| Ok((reason, fields.text(128)?)));
    match read.and_then(|read| fields.end().map(|()| read)) {
        Ok((reason, text)) => format!("refusal {reason} ({}): {text:?}", refusal_name(reason)),
        Err(Malformed(why)) => format!("a malformed refusal: {why}"),
    }
}

/// A goodbye in words.
pub(crate) fn describe_goodbye(payload: &[u8]) -> String {
    match *payload {
        [reason, ref code @ ..] if code.len() == 4 => {
            let code = code.iter().rev().fold(0_u32, |code, &byte| code << 8 | u32::from(byte));
            format!("goodbye {reason:#04x} ({}), code {code}", goodbye_name(reason))
        }
        _ => format!("a goodbye of {} bytes", payload.len()),
    }
}

const fn refusal_name(reason: u8) -> &'static str {
    match reason {
        1 => "Malformed",
        2 => "Protocol",
        3 => "AppVersion",
        4 => "Schema",
        5 => "Service",
        6 => "FrameLimit",
        7 => "Sealing",
        8 => "Incarnation",
        9 => "NotAllowed",
        10 => "Suite",
        11 => "LogIn",
        12 => "Banned",
        16 => "Full",
        17 => "Draining",
        18 => "Busy",
        _ => "without a name",
    }
}

const fn goodbye_name(reason: u8) -> &'static str {
    match reason {
        0x11 => "Malformed",
        0x12 => "Flooding",
        0x13 => "Silent",
        0x14 => "SlowConsumer",
        0x21 => "Incompatible",
        0x31 => "Content",
        0x32 => "HandlerPanic",
        0x41 => "Idle",
        0x42 => "Replaced",
        0x43 => "Kicked",
        0x44 => "Stopping",
        0x45 => "Draining",
        0x46 => "Overloaded",
        0x51 => "Exhausted",
        _ => "without a name",
    }
}

/// What is left to read of a control message.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| Malformed("fields are missing".into()))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self, longest: usize) -> Result<&'a [u8], Malformed> {
        let len = u16::from_le_bytes(self.take()?).into();
        if len > longest || len > self.rest.len() {
            return Err(Malformed(format!("a text of {len} bytes")));
        }
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self, longest: usize) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.bytes(longest)?)
            .map_err(|error| Malformed(format!("a text: {error}")))?;
        if text.chars().any(char::is_control) {
            return Err(Malformed("a text with control characters".into()));
        }
        Ok(text)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed(format!("{} bytes too many", self.rest.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_greeting_is_the_bytes_of_the_wire_document() {
        let mut expected = b"MDNG\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00".to_vec();
        expected.extend_from_slice(&[0; 16]);
        expected.extend_from_slice(b"\x05\x00dummy\x00\x00");
        assert_eq!(greeting(512, b""), expected);
        assert_eq!(check_greeting(&expected).map_err(|error| error.0), Ok(1_048_576));
        expected[6] = 2;
        expected.extend_from_slice(b"\x02\x00me");
        assert_eq!(greeting(512, b"me"), expected);
    }

    #[test]
    fn a_greeting_with_a_wrong_field_is_malformed() {
        type Edit = fn(&mut Vec<u8>);
        let edits: [(&str, Edit); 9] = [
            ("magic", |g| g[0] = b'm'),
            ("protocol", |g| g[4] = 2),
            ("flags", |g| g[7] = 1),
            ("no frame limit", |g| g[14] = 0),
            ("frame limit", |g| g[15] = 1),
            ("service length", |g| g[32] = 65),
            ("service text", |g| g[34] = 0xff),
            ("control character", |g| g[34] = 0x0a),
            ("trailing", |g| g.push(0)),
        ];
        for (name, edit) in edits {
            let mut payload = greeting(512, b"");
            edit(&mut payload);
            assert!(check_greeting(&payload).is_err(), "{name}");
        }
        for len in 0..greeting(512, b"").len() {
            assert!(check_greeting(&greeting(512, b"")[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn the_times_of_a_welcome_are_checked() {
        let welcome = |heartbeat: u32, dead: u32| {
            let mut payload = vec![7; 8];
            payload.extend_from_slice(&heartbeat.to_le_bytes());
            payload.extend_from_slice(&dead.to_le_bytes());
            check_welcome(&payload).is_ok()
        };
        for (heartbeat, dead, fits) in [
            (0, 0, true),
            (10, 10, true),
            (600_000, 600_001, true),
            (0, 1, false),
            (9, 90, false),
            (600_001, 700_000, false),
            (100, 99, false),
        ] {
            assert_eq!(welcome(heartbeat, dead), fits, "{heartbeat} {dead}");
        }
    }

    #[test]
    fn refusals_and_goodbyes_are_described() {
        assert_eq!(describe_refusal(b"\x10\x02\x00no"), "refusal 16 (Full): \"no\"");
        assert_eq!(describe_refusal(b"\x10\x02\x00n"), "a malformed refusal: a text of 2 bytes");
        assert_eq!(describe_goodbye(&[0x31, 1, 2, 0, 0]), "goodbye 0x31 (Content), code 513");
    }
}
