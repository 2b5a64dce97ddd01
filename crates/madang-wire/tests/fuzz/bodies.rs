//! The bodies of the fuzz targets, which the fuzzer (`fuzz/`) and the replay of the corpus (`tests/fuzz_corpus.rs`) run.
//! Each takes any bytes, and panics where a promise is broken.

use madang_wire::lan::{CONTROL_FRAME_MAX, Expect, LanFraming};
use madang_wire::wan::{
    ANSWER_MAX, Accept, Answer, Expanded, ExpectAnswer, ExpectSeal, Gate, HandshakeError, Hello, LinkSecret,
    LogIn, Opening, PREAMBLE, PREAMBLE_MAX, QueueState, RECORD_FRAMES_MAX, RECORD_HEAD, RECORD_MAX,
    RECORD_MESSAGE_MAX, RECORD_TAIL, SEAL_FRAME, SecretKey, Secured, ServerKeys, Step, Suite, Ticket,
    TicketKey, seal_link,
};
use madang_wire::{Find, FrameLimit, Framing, Kind, Next, Reader, lan};

/// Takes any bytes.
pub(crate) type Body = fn(&[u8]);

/// The targets, by the names of their folders in the corpus.
pub(crate) const TARGETS: [(&str, Body); 4] = [
    ("fz1_lan_deframer", lan_deframer),
    ("fz2_record_layer", record_layer),
    ("fz3_handshake_responder", handshake_responder),
    ("fz4_tags_and_tickets", tags_and_tickets),
];

const LIMIT: u32 = 60_000;

/// Cuts a stream where its first bytes say, which are taken off it.
fn cuts(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((count, rest)) = data.split_first() else { return (vec![1], &[]) };
    let (plan, stream) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let plan: Vec<usize> = plan.iter().map(|len| usize::from(*len) + 1).collect();
    (if plan.is_empty() { vec![usize::MAX] } else { plan }, stream)
}

/// FZ1: any split of any bytes gives the same frames, and never more is kept than one frame.
pub(crate) fn lan_deframer(data: &[u8]) {
    let (plan, stream) = cuts(data);
    let limit = FrameLimit::new(LIMIT).expect("a sound limit");
    for server in [true, false] {
        let make = || if server { LanFraming::server(limit) } else { LanFraming::client(limit) };
        let whole = frames(&mut make(), stream, &[usize::MAX]);
        assert_eq!(frames(&mut make(), stream, &plan), whole);
        assert_eq!(frames(&mut make(), stream, &[1]), whole);
    }
}

/// The frames of a stream that comes in pieces, and whether it ended in an error.
fn frames(framing: &mut LanFraming, mut stream: &[u8], plan: &[usize]) -> (Vec<(Kind, Vec<u8>)>, bool) {
    let (mut kept, mut got) = (Vec::new(), Vec::new());
    for cut in plan.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (read, rest) = stream.split_at(stream.len().min(*cut));
        kept.extend_from_slice(read);
        stream = rest;
        loop {
            match Framing::next(framing, &mut kept) {
                Ok(Next::Frame { len, opened }) => {
                    got.push((opened.kind, kept[opened.payload].to_vec()));
                    kept.drain(..len);
                }
                Ok(Next::Need { total }) => {
                    assert!(total > kept.len() && total <= LIMIT as usize + CONTROL_FRAME_MAX);
                    break;
                }
                Err(_) => return (got, true),
            }
        }
    }
    (got, false)
}

/// FZ2: of a stream of records that is changed on the way, the part before the change arrives and nothing else.
///
/// The input is a script: a plan of cuts, then records (a size each), then changes (a place, a mask, and what to do).
pub(crate) fn record_layer(data: &[u8]) {
    let (plan, script) = cuts(data);
    let mut read = Reader::new(script);
    let suite = if read.u8().unwrap_or(0) % 2 == 0 { Suite::AesGcm } else { Suite::ChaChaPoly };
    // As sessions keep them: a stream that comes byte by byte asks for the key as often.
    let (sealing, opening) = joined(suite);
    let (mut sealing, mut opening) = (sealing.expand(), opening.expand());

    let (mut stream, mut sent, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..read.u8().unwrap_or(0) % 8 {
        // Most are small, so that many fit into a second; some need one to three records.
        let len = match usize::from(read.u16().unwrap_or(9)) {
            size @ 0xF000.. => 16_000 + (size - 0xF000) * 6,
            size => size % 400 + 1,
        };
        let payload: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
        if len <= RECORD_MESSAGE_MAX && len % 2 == 1 {
            let mut record = [&[0; RECORD_HEAD], &payload[..], &[0; RECORD_TAIL]].concat();
            sealing.seal_message(&mut record).expect("it is sound");
            stream.extend(record);
            sent.push(payload);
            ends.push(stream.len());
            continue;
        }
        let header = lan::header(Kind::Message, len as u32);
        for (at, part) in madang_wire::wan::parts(len).enumerate() {
            let header: &[u8] = if at == 0 { &header } else { &[] };
            let mut record = [&[0; RECORD_HEAD], header, &payload[part], &[0; RECORD_TAIL]].concat();
            sealing.seal(&mut record).expect("it is sound");
            stream.extend(record);
        }
        sent.push(payload);
        ends.push(stream.len());
    }

    let honest = stream.clone();
    while let (Ok(place), Ok(what)) = (read.u16(), read.u16()) {
        let place = usize::from(place) % (stream.len() + 1);
        let [mask, action] = what.to_le_bytes();
        match action % 4 {
            0 => stream.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= mask),
            1 => stream.truncate(place),
            2 => stream.insert(place, mask),
            _ => drop(stream.drain(place..stream.len().min(place + usize::from(mask)))),
        }
    }
    let same = stream.iter().zip(&honest).take_while(|(now, then)| now == then).count();
    let whole = ends.iter().filter(|end| **end <= same).count();

    let got = received(&mut opening, &stream, &plan);
    assert!(got.iter().zip(&sent).all(|(got, sent)| got == sent));
    assert_eq!(got.len(), whole, "what was not touched came, and nothing else");
}

/// The messages that come out of a stream of records.
fn received(opening: &mut Expanded<Opening>, mut stream: &[u8], plan: &[usize]) -> Vec<Vec<u8>> {
    let (mut kept, mut long, mut got) = (Vec::new(), Vec::new(), Vec::new());
    for cut in plan.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (read, rest) = stream.split_at(stream.len().min(*cut));
        kept.extend_from_slice(read);
        stream = rest;
        loop {
            let used = match opening.next(&mut kept) {
                Ok(Step::Need { total }) => {
                    assert!(total > kept.len() && total <= RECORD_MAX);
                    break;
                }
                Ok(Step::Frame { payload, used, .. }) => {
                    got.push(kept[payload].to_vec());
                    used
                }
                Ok(Step::Part { payload, left, used }) => {
                    assert!(payload.len() <= RECORD_FRAMES_MAX && left < LIMIT as usize);
                    long.extend_from_slice(&kept[payload]);
                    if left == 0 {
                        got.push(std::mem::take(&mut long));
                    }
                    used
                }
                Err(_) => return got,
            };
            kept.drain(..used);
        }
    }
    got
}

const SERVER: [u8; 32] = [0x51; 32];

fn keys() -> ServerKeys {
    ServerKeys::new([SecretKey::from_bytes(&mut SERVER.clone())]).expect("one key")
}

fn begin(suite: Suite) -> ([u8; PREAMBLE], ExpectAnswer) {
    let mut preamble = [0; PREAMBLE];
    let server = keys().public().next().expect("one key");
    let hello = Hello { suite, frame_limit: FrameLimit::new(LIMIT).expect("sound"), ..Hello::default() };
    let (_, client) = ExpectAnswer::begin(&server, &hello, [2; 32], &mut preamble).expect("there is room");
    (preamble, client)
}

fn accepted(preamble: &[u8], answer: &mut [u8; ANSWER_MAX]) -> (usize, Secured) {
    let keys = keys();
    let Ok(Gate::Passed(preamble)) = keys.gate(preamble) else { panic!("it passes") };
    let verdict = preamble.read(FrameLimit::new(LIMIT).expect("sound"), [3; 32]).expect("it opens");
    verdict.accept(&Accept::default(), answer).expect("there is room")
}

/// A client's sending half and the server's receiving half, the log-in said.
fn joined(suite: Suite) -> (madang_wire::wan::Sealing, Opening) {
    let (preamble, client) = begin(suite);
    let (mut answer, mut room) = ([0; ANSWER_MAX], [0; ANSWER_MAX]);
    let (len, mut server) = accepted(&preamble, &mut answer);
    let Ok(Answer::Accepted(_, mut client)) = client.read(&answer[..len], &mut room) else { panic!() };
    let mut log_in = [0; RECORD_HEAD + 10 + RECORD_TAIL];
    LogIn::default().to_frame(&mut log_in[RECORD_HEAD..]).expect("there is room");
    client.sealing.seal(&mut log_in).expect("it fits");
    server.opening.next(&mut log_in).expect("it opens");
    assert_eq!(server.opening.expect(), Expect::Traffic);
    (client.sealing, server.opening)
}

/// FZ3: whatever a stranger sends in the place of a handshake message, each side of each pattern. No panic, no acceptance.
pub(crate) fn handshake_responder(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    let suite = if which & 0x80 == 0 { Suite::AesGcm } else { Suite::ChaChaPoly };
    let limit = FrameLimit::DEFAULT;
    match which % 4 {
        // A preamble whose tag is right, because everybody knows the public key: message 1 is what is tried.
        0 => {
            let (sound, _) = begin(suite);
            let mut preamble = sound;
            preamble.iter_mut().zip(bytes).for_each(|(byte, mask)| *byte ^= mask);
            let tag = gate_tag(&preamble[..PREAMBLE - 16]);
            preamble[PREAMBLE - 16..].copy_from_slice(&tag);
            let changed = preamble != sound;
            if let Ok(Gate::Passed(passed)) = keys().gate(&preamble) {
                let _ = passed.hello();
                let read = passed.read(limit, [3; 32]).map(|_| ());
                assert_eq!(read.is_ok(), !changed, "{read:?}");
            }
        }
        1 => {
            let (sound, client) = begin(suite);
            let mut answer = [0; ANSWER_MAX];
            let (len, _) = accepted(&sound, &mut answer);
            answer.iter_mut().zip(bytes).for_each(|(byte, mask)| *byte ^= mask);
            let changed = bytes.iter().take(len).any(|mask| *mask != 0);
            if let Ok(Find::Frame { len }) = client.find(&answer) {
                let read = client.read(&answer[..len], &mut [0; ANSWER_MAX]).map(|_| ());
                assert_eq!(read.is_ok(), !changed, "{read:?}");
            }
        }
        2 => {
            let secret = LinkSecret::derive("0123456789abcdef0123456789abcdef").expect("long enough");
            let (mut first, mut second) = ([0; SEAL_FRAME], [0; SEAL_FRAME]);
            ExpectSeal::begin(&secret, limit, [2; 32], &mut first).expect("there is room");
            first.iter_mut().zip(bytes).for_each(|(byte, mask)| *byte ^= mask);
            let changed = bytes.iter().take(SEAL_FRAME).any(|mask| *mask != 0);
            let sealed = seal_link(&secret, &first, limit, [3; 32], &mut second).map(|_| ());
            assert_eq!(sealed.is_ok(), !changed, "{sealed:?}");
        }
        _ => {
            // A secret of its own, which nothing in the corpus knows.
            let secret = LinkSecret::derive("a secret that no golden frame has").expect("long enough");
            let mut room = [0; SEAL_FRAME];
            let sealed = seal_link(&secret, bytes, limit, [3; 32], &mut room).map(|_| ());
            assert!(!matches!(sealed, Ok(()) | Err(HandshakeError::Disorder)), "{sealed:?}");
            let (_, client) = begin(suite);
            assert!(client.read(bytes, &mut [0; ANSWER_MAX]).is_err());
            let (_, client) = ExpectSeal::begin(&secret, limit, [2; 32], &mut room).expect("there is room");
            let _ = client.find(bytes);
            assert!(!matches!(client.read(bytes), Ok(madang_wire::wan::LinkAnswer::Sealed(_))));
        }
    }
}

/// The tag that anyone who knows the server's public key can make.
fn gate_tag(tagged: &[u8]) -> [u8; 16] {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};
    let public = keys().public().next().expect("one key");
    let key = Sha256::new().chain_update(b"madang gate 1").chain_update(public.bytes()).finalize();
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).expect("any length does");
    mac.update(tagged);
    mac.finalize().into_bytes()[..16].try_into().expect("32 bytes")
}

/// FZ4: without the key no bytes pass the gate and none are a ticket; and no payload of a control frame makes a reader
/// panic.
pub(crate) fn tags_and_tickets(data: &[u8]) {
    match keys().gate(data) {
        Ok(Gate::Need { total }) => assert!(total > data.len() && total <= PREAMBLE_MAX),
        Ok(Gate::Passed(passed)) => {
            // Honest preambles are in the corpus, and whoever copies one copies its tag.
            let tagged = &data[..passed.used() - 16];
            assert_eq!(data[tagged.len()..passed.used()], gate_tag(tagged));
        }
        Err(_) => {}
    }
    assert!(TicketKey::new([9; 32]).check(data, 0).is_err());
    let _ = (LogIn::from_payload(data), QueueState::from_payload(data), Ticket::from_payload(data));
    let _ = (lan::Greeting::from_payload(data), lan::Refusal::from_payload(data));
    let _ = (lan::Welcome::from_payload(data), lan::Goodbye::from_payload(data));
}
