//! Names of connections, listeners and operations.
//!
//! ```text
//!   Token, 64 bits   │ generation 32 │ index 24 │ kind 8 │
//! ```
//!
//! A recycled place must never receive an old operation's bytes (seen for real with fixed files), so everything that can
//! come back late carries the generation of the place it was meant for.

use std::fmt;
use std::marker::PhantomData;

/// A connection in a driver's table: index and generation. Copyable, but bound to the driver's thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn {
    index: u32,
    generation: u32,
    // A connection means something on its own shard only.
    thread: PhantomData<*const ()>,
}

impl Conn {
    /// The most places a table can have.
    pub const INDEX_MAX: u32 = (1 << 24) - 1;

    /// Names a place of a table. For drivers; an engine gets its names from them.
    ///
    /// # Panics
    /// When `index` is past [`Conn::INDEX_MAX`].
    pub fn new(index: u32, generation: u32) -> Conn {
        assert!(index <= Conn::INDEX_MAX, "a connection index has 24 bits");
        Conn { index, generation, thread: PhantomData }
    }

    /// The place in the table, below the connection limit of the driver's settings: an engine may index by it.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// How often the place was used before (wraps after 2^32 uses).
    pub fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}.{}", self.index, self.generation)
    }
}

/// A listening socket of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener(pub u32);

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// Accepting on a listener.
    Accept = 1,
    /// An outgoing connect.
    Connect = 2,
    /// A receive.
    Recv = 3,
    /// A send.
    Send = 4,
    /// Calling another operation off.
    Cancel = 5,
    /// Half-close or shutdown of a connection.
    Shutdown = 6,
    /// Closing a socket.
    Close = 7,
    /// The waker.
    Wake = 8,
    /// A time-out of the driver's own.
    Timer = 9,
    /// Setting an option of a socket.
    Option = 10,
}

impl OpKind {
    fn from_u8(byte: u8) -> Option<OpKind> {
        use OpKind::*;
        Some(match byte {
            1 => Accept,
            2 => Connect,
            3 => Recv,
            4 => Send,
            5 => Cancel,
            6 => Shutdown,
            7 => Close,
            8 => Wake,
            9 => Timer,
            10 => Option,
            _ => return None,
        })
    }
}

/// The name under which an operation is given to the system, and by which its completion is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The connection (for `Accept`, `Wake` and `Timer`: an index of the driver's own).
    pub conn: Conn,
    /// What was asked.
    pub kind: OpKind,
}

impl Token {
    /// Packs it for `user_data` and the like.
    pub fn to_u64(self) -> u64 {
        (u64::from(self.conn.generation) << 32) | (u64::from(self.conn.index) << 8) | self.kind as u64
    }

    /// Unpacks; `None` for a number that no token packs to.
    pub fn from_u64(packed: u64) -> Option<Token> {
        let kind = OpKind::from_u8(packed as u8)?;
        Some(Token { conn: Conn::new((packed >> 8) as u32 & Conn::INDEX_MAX, (packed >> 32) as u32), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_packing_at_every_edge() {
        for index in [0, 1, Conn::INDEX_MAX - 1, Conn::INDEX_MAX] {
            for generation in [0, 1, u32::MAX] {
                for kind in 1..=10u8 {
                    let token =
                        Token { conn: Conn::new(index, generation), kind: OpKind::from_u8(kind).unwrap() };
                    assert_eq!(Token::from_u64(token.to_u64()), Some(token));
                }
            }
        }
        assert_eq!(Token::from_u64(0), None);
        assert_eq!(Token::from_u64(11), None);
    }
}
