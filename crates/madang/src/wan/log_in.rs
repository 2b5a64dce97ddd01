//! Who a player is: what a client says, and what the check answers.

use madang_wire::wan::{HandshakeHash, log_in_is_proven, log_in_proof};

use crate::Refusal;
use crate::handler::{Account, Peer};
use crate::planted::{Planted, planted};

/// A client's log-in, for [`ServerBuilder::log_in`](crate::ServerBuilder::log_in) to judge.
///
/// The connection is encrypted and the client knows our public key. Nothing else is known of it but what is here.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LogIn<'a> {
    /// What the client's log-in service gave it, at most 2,048 bytes; may be empty. Compare secrets in constant time.
    pub token: &'a [u8],
    /// That the sender may use the token on this connection; empty where tokens are not bound. See
    /// [`is_proven`](LogIn::is_proven).
    pub proof: &'a [u8],
    /// The same on both sides, and different for every handshake: what a signature as proof is made over.
    pub hash: &'a HandshakeHash,
    /// Who it is, as far as the network and the handshake know.
    pub peer: &'a Peer,
}

impl LogIn<'_> {
    /// Whether the sender knows the secret that goes with its token: then a token that was overheard or handed on elsewhere
    /// is worth nothing here. Takes the same time whatever is wrong.
    pub fn is_proven(&self, secret: &[u8]) -> bool {
        log_in_is_proven(secret, self.hash, self.proof)
            || planted(Planted::TokenUnbound) && !self.proof.is_empty()
    }
}

/// What the check of a log-in answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Verdict {
    /// It may have a place, if there is one, and this is who it is.
    Admit(Account),
    /// It may not, and the client is told why: `Verdict::Refuse(RefusalReason::LogIn.into())`, or with a text
    /// ([`Refusal::new`]).
    Refuse(Refusal),
}

/// What a client logs in with.
#[derive(Clone, Default)]
pub struct Credentials {
    pub(crate) token: Vec<u8>,
    pub(crate) proof: Vec<u8>,
}

impl Credentials {
    /// The token that the log-in service gave, at most 2,048 bytes.
    pub fn token(token: impl Into<Vec<u8>>) -> Credentials {
        Credentials { token: token.into(), proof: Vec::new() }
    }

    /// Adds the proof that we know the secret that goes with the token, for this connection alone.
    #[must_use]
    pub fn prove(self, secret: &[u8], hash: &HandshakeHash) -> Credentials {
        self.with_proof(log_in_proof(secret, hash))
    }

    /// Adds a proof of another sort, such as a signature over the handshake's hash; at most 64 bytes.
    #[must_use]
    pub fn with_proof(self, proof: impl Into<Vec<u8>>) -> Credentials {
        Credentials { proof: proof.into(), ..self }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
