//! The golden bytes of the WAN (`vectors/wan.txt`) against this codec. Test data is all that the two codecs share.

use super::*;
use crate::dummy::framing::{Kind, encode_frame, golden};
use crate::dummy::lan;

const WAN: &str = include_str!("../../../../madang-wire/vectors/wan.txt");

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(kind, payload, &mut frame);
    frame
}

fn hello(suite: Suite) -> Hello {
    Hello { app_version: 7, frame_limit: 100_000, schema: 0xabcd, ..Hello::new(suite, 0) }
}

/// The client of the golden conversation, whose preamble is the golden one.
#[track_caller]
fn begin(suite: Suite, name: &str) -> Shaking {
    let pinned = Pinned { server: Server::new([0x51; 32]).public(), suite, token: Vec::new() };
    let (shaking, preamble) = Shaking::begin(&pinned, hello(suite), [0xc1; 32]);
    assert_eq!(preamble, golden(WAN, &format!("{name}-preamble")));
    shaking
}

#[test]
fn the_golden_conversation_is_this_codec_s_own() {
    for (suite, name) in [(Suite::Aesgcm, "aesgcm"), (Suite::Chachapoly, "chachapoly")] {
        let bytes = |what: &str| golden(WAN, &format!("{name}-{what}"));
        let answer = bytes("answer");
        let (head, message_2) = answer.split_first_chunk().expect("a length");
        assert_eq!(Shaking::answer_len(*head), Ok(message_2.len()));
        let (limit, mut ours) = begin(suite, name).end(message_2).expect("it opens").expect("it accepts");
        assert_eq!(limit, 100_000);

        let mut sealed = Vec::new();
        let log_in = frame(Kind::LogIn, &words::log_in(b"token", b""));
        ours.seal(&[log_in, frame(Kind::Message, &[1, 2, 3])].concat(), &mut sealed);
        assert_eq!(sealed, bytes("client-0"), "{name}");
        sealed.clear();
        ours.seal(&frame(Kind::Ping, &0x1122_3344_5566_7788_u64.to_le_bytes()), &mut sealed);
        assert_eq!(sealed, bytes("client-1"), "{name}");
        for _ in 2..65_535 {
            ours.seal(&frame(Kind::Message, &[0]), &mut Vec::new());
        }
        // Across the change of keys.
        for (number, payload) in [(65_535, 7), (65_536, 8)] {
            sealed.clear();
            ours.seal(&frame(Kind::Message, &[payload]), &mut sealed);
            assert_eq!(sealed, bytes(&format!("client-{number}")), "{name}");
        }
        sealed.clear();
        ours.seal_message(&[9], &mut sealed);
        assert_eq!(sealed, bytes("client-65537"), "{name}");

        let mut frames = Vec::new();
        for number in 0..3 {
            ours.arrived(&bytes(&format!("server-{number}")), &mut frames).expect("golden records");
        }
        let queue = |numbers: [u32; 3]| frame(Kind::Queue, &numbers.map(u32::to_le_bytes).concat());
        let ticket = b"\x02\x60\xea\0\0\x06\0ticket";
        let mut welcome = 5_u64.to_le_bytes().to_vec();
        welcome.extend([1_000_u32, 5_000].map(u32::to_le_bytes).concat());
        let expected = [
            queue([5, 9, 30_000]),
            queue([1, 9, u32::MAX]),
            frame(Kind::Ticket, ticket),
            frame(Kind::Welcome, &welcome),
            frame(Kind::Draining, &10_000_u32.to_le_bytes()),
            frame(Kind::Goodbye, &[0x45, 0, 0, 0, 0]),
        ];
        assert_eq!(frames, expected.concat(), "{name}");
        assert_eq!(words::check_ticket(ticket), Ok(&b"ticket"[..]));
        assert_eq!(lan::check_welcome(&welcome), Ok(()));
    }
}

#[test]
fn the_golden_refusal_is_read() {
    let refusal = begin(Suite::Aesgcm, "aesgcm")
        .end(&golden(WAN, "aesgcm-refused")[2..])
        .expect("it opens")
        .expect_err("it refuses");
    assert_eq!((refusal.reason, &*refusal.words), (3, "refusal 3 (AppVersion): \"please update\""));
}
