//! The engine's framing on the open internet: a handshake, then records. Sealed LAN links use the same records.
//!
//! ```text
//!  client                                                     server
//!  preamble: hello, message 1, gate tag ───────────────────►  gate: one hash
//!            ◄────────────── answer: message 2 (accept, or why not)
//!  ════════════════ records, each way ══════════════════════
//!  log-in ─────────────────────────────────────────────────►
//!            ◄────────────────── queue … ticket … welcome
//!  messages, heartbeats ◄──────────────────────────────────►
//!  goodbye ─► (either side, its last frame: without it the end was cut off)
//! ```
//!
//! * [`ServerKeys::gate`] tells strangers from clients for the price of one hash; [`Preamble::read`] and
//!   [`ExpectVerdict`] answer, [`ExpectAnswer`] is the client's side.
//! * [`Sealing`] and [`Opening`] are the two directions of a [`Secured`] connection. Records hold the frames of
//!   [`lan`](crate::lan): the same header, and the kinds of this module beside those of a LAN.
//! * [`ExpectSeal`] and [`seal_link`] begin a sealed LAN link, whose records hold a LAN's frames from the greeting on.
//!
//! The protocol is `Noise_NK_25519_AESGCM_SHA256` or `…ChaChaPoly…`, for links `Noise_NNpsk0_25519_AESGCM_SHA256`. Keys are
//! wiped when they are dropped; what `snow`, `ring` and the curves hold of them while they work is theirs, and
//! not all of it is wiped.
//! Handshakes allocate, records do not. Randomness is an argument: 32 fresh bytes a handshake, which become its ephemeral
//! key.
//!
//! ```
//! use madang_wire::wan::{
//!     ANSWER_MAX, Accept, Answer, ExpectAnswer, Gate, Hello, LogIn, PREAMBLE_MAX, RECORD_HEAD, RECORD_MAX,
//!     RECORD_TAIL, SecretKey, ServerKeys, Step,
//! };
//! use madang_wire::{FrameLimit, Kind, lan};
//!
//! let keys = ServerKeys::new([SecretKey::from_bytes(&mut [1; 32])])?;
//! let pinned = keys.public().next().unwrap();
//! let limit = FrameLimit::new(16 << 10).unwrap();
//!
//! // Client: the preamble. Server: the gate, a Diffie-Hellman, the verdict. Client: what was said.
//! let (mut preamble, mut answer) = ([0; PREAMBLE_MAX], [0; ANSWER_MAX]);
//! let hello = Hello { app_version: 7, frame_limit: limit, ..Hello::default() };
//! let (len, client) = ExpectAnswer::begin(&pinned, &hello, [2; 32], &mut preamble)?;
//! let Gate::Passed(theirs) = keys.gate(&preamble[..len])? else { panic!("all of it is there") };
//! assert_eq!(theirs.hello()?.app_version, 7);
//! let verdict = theirs.read(limit, [3; 32])?;
//! let accept = Accept { frame_limit: limit, ..Accept::default() };
//! let (len, mut server) = verdict.accept(&accept, &mut answer)?;
//! let mut room = [0; ANSWER_MAX];
//! let Answer::Accepted(_, mut client) = client.read(&answer[..len], &mut room)? else { panic!("it was taken") };
//! assert_eq!(client.hash, server.hash);
//!
//! // Client: frames into a chunk with room around them, sealed in place. Here the log-in and a message.
//! let mut chunk = vec![0; RECORD_HEAD];
//! let mut frame = [0; LogIn::FRAME_MAX];
//! let len = LogIn { token: b"who I am", ..LogIn::default() }.to_frame(&mut frame)?;
//! chunk.extend(&frame[..len]);
//! chunk.extend(lan::header(Kind::Message, 3));
//! chunk.extend(b"run");
//! chunk.extend([0; RECORD_TAIL]);
//! client.sealing.expanded().seal(&mut chunk)?;
//!
//! // Server: frames one at a time, in the memory they arrived in.
//! let mut rest = &mut chunk[..];
//! let mut kinds = Vec::new();
//! while !rest.is_empty() {
//!     match server.opening.next(rest)? {
//!         Step::Frame { kind, payload, used } => {
//!             kinds.push((kind, rest[payload].len()));
//!             rest = &mut rest[used..];
//!         }
//!         Step::Part { .. } => unreachable!("no message here is too long for a record"),
//!         Step::Need { total } => panic!("{total} bytes, at most {RECORD_MAX}, have to be there"),
//!     }
//! }
//! assert_eq!(kinds, [(Kind::LogIn, 14), (Kind::Message, 3)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod control;
mod curve;
mod gate;
mod handshake;
mod keys;
mod link;
mod noise;
mod preamble;
mod record;
mod suite;
mod ticket;

pub use crate::lan::{QueueState, Ticket, TicketPurpose};
pub use control::{Draining, LogIn, PROOF, log_in_is_proven, log_in_proof};
pub use gate::{Gate, GateError, Preamble, ServerKeys, ServerKeysError, Stranger};
pub use handshake::{ANSWER_MAX, Accept, Answer, ExpectAnswer, ExpectVerdict, HandshakeHash, Secured};
pub use keys::{
    KeyId, LINK_SECRET_LEAST, LinkSecret, LinkSecretTooShort, NotAPublicKey, PublicKey, SERVER_KEYS_MAX,
    SecretKey,
};
pub use link::{ExpectSeal, LinkAnswer, SEAL_FRAME, seal_link, wants_seal};
pub use noise::HandshakeError;
pub use preamble::{GATE_TAG, Hello, MAGIC, PREAMBLE, PREAMBLE_MAX, PROTOCOL};
pub use record::{
    Expanded, Opening, RECORD_BARE, RECORD_FRAMES_MAX, RECORD_HEAD, RECORD_MAX, RECORD_MESSAGE_MAX,
    RECORD_TAIL, RECORDS_MAX, REKEY_RECORDS, Sealing, Step, parts,
};
pub use suite::Suite;
pub use ticket::{TICKET, TicketClaim, TicketError, TicketKey};

use crate::FrameLimit;

/// The longest message a WAN server and client accept unless their settings say otherwise: 16 KiB.
pub const FRAME_LIMIT_DEFAULT: FrameLimit = match FrameLimit::new(16 << 10) {
    Some(limit) => limit,
    None => FrameLimit::DEFAULT,
};

/// The longest first flight of either side: it fits the buffer of an embryo, and is there after one look.
const FLIGHT_MAX: usize = 512;
