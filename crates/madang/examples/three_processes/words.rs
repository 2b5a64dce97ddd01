//! What the servers say to each other.

use madang::Message;
use madang::packet::PacketMut;

/// One message on a LAN link.
pub(crate) enum Word<'a> {
    /// Log-in to chat: who comes with this key is `name`.
    Admit { request: u64, key: u64, name: &'a str },
    /// Chat to log-in: the key may be used from now on.
    Admitted { request: u64 },
    /// Anybody to the monitor.
    Figures { sessions: u64, messages_in: u64, messages_out: u64 },
}

impl<'a> Word<'a> {
    /// Writes it into a packet.
    pub(crate) fn write(&self, mut packet: PacketMut) -> PacketMut {
        match *self {
            Word::Admit { request, key, name } => packet.u8(1).u64(request).u64(key).str(name),
            Word::Admitted { request } => packet.u8(2).u64(request),
            Word::Figures { sessions, messages_in, messages_out } => {
                packet.u8(3).u64(sessions).u64(messages_in).u64(messages_out)
            }
        };
        packet
    }

    /// Reads it; `None` for bytes that are none of ours.
    pub(crate) fn read(mut message: Message<'a>) -> Option<Word<'a>> {
        let word = match message.u8().ok()? {
            1 => Word::Admit {
                request: message.u64().ok()?,
                key: message.u64().ok()?,
                name: message.str().ok()?,
            },
            2 => Word::Admitted { request: message.u64().ok()? },
            3 => Word::Figures {
                sessions: message.u64().ok()?,
                messages_in: message.u64().ok()?,
                messages_out: message.u64().ok()?,
            },
            _ => return None,
        };
        message.is_empty().then_some(word)
    }
}
