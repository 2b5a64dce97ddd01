//! The bound on what sends without a send buffer pin.
//!
//! A socket whose send buffer is zero sends straight from the packets: no copy, but their pages stay locked until the peer
//! has acknowledged them, however slow it is. The system has an end of pages it will lock, and answers WSAENOBUFS then, to
//! whoever asks next (W10). So a driver lends it so many bytes and no more; a connection that finds no room gets a send
//! buffer back, for the rest of its life, and its sends are copied like everybody's.

/// What a connection gets back: about the system's own default.
pub(super) const SEND_BUFFER_BYTES: usize = 64 * 1024;

pub(super) struct Pinned {
    bytes: usize,
    /// Zero: every socket has a send buffer.
    bytes_max: usize,
}

impl Pinned {
    pub(super) fn new(bytes_max: usize) -> Pinned {
        Pinned { bytes: 0, bytes_max }
    }

    /// Whether connections begin without a send buffer.
    pub(super) fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// Takes `bytes` of the room, all or nothing.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let has_room = bytes <= self.bytes_max - self.bytes;
        if has_room {
            self.bytes += bytes;
        }
        has_room
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes = self.bytes.checked_sub(bytes).expect("what is given back was taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w10_no_more_is_pinned_than_the_bound() {
        let mut pinned = Pinned::new(100);
        assert!(pinned.is_on() && pinned.take(60) && !pinned.take(41) && pinned.take(40) && !pinned.take(1));
        pinned.give_back(60);
        assert!(pinned.take(60));
        assert!(!Pinned::new(0).is_on(), "off unless it is asked for");
    }
}
