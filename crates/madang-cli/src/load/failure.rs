//! What can go wrong with a connection of a load run.

use std::fmt;

use madang::Refusal;
use madang::wire::FrameError;
use madang::wire::lan::GoodbyeReason;
use madang::wire::wan::HandshakeError;
use madang_driver::NetError;

/// Why a connection counts as failed. Each kind is one line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It could not be made.
    Connect(NetError),
    /// It was made and not admitted until the time for it was over.
    NotAdmitted,
    /// WAN: the server's answer is not that of the server whose key was given.
    Handshake(HandshakeError),
    /// WAN: the server does not take messages as long as ours.
    TooLong { limit: u32 },
    /// The server refused us, perhaps with a text.
    Refused(Refusal),
    /// The server said goodbye.
    Goodbye(GoodbyeReason),
    /// The server ended it.
    Ended,
    /// The system ended it.
    Broken(NetError),
    /// A stranger was answered.
    Answered,
    /// What came is no frame.
    Frame(FrameError),
    /// An echo is not what was said: lost, doubled, out of order or altered.
    WrongEcho,
    /// Echoes that had not come when patience was over.
    Silent,
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "could not connect: {error}"),
            Self::NotAdmitted => f.write_str("not admitted in time"),
            Self::Handshake(error) => write!(f, "handshake: {error}"),
            Self::TooLong { limit } => write!(f, "the server takes messages of {limit} bytes at most"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Goodbye(reason) => write!(f, "the server said goodbye: {reason:?}"),
            Self::Ended => f.write_str("ended by the server"),
            Self::Broken(error) => write!(f, "broken: {error}"),
            Self::Answered => f.write_str("the server answered a stranger"),
            Self::Frame(error) => write!(f, "no frame came: {error}"),
            Self::WrongEcho => f.write_str("an echo was lost, doubled, out of order or altered"),
            Self::Silent => f.write_str("echoes did not come in time"),
        }
    }
}
