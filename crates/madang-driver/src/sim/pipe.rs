//! One direction of a connection: bytes on their way and bytes that came.
//!
//! ```text
//!   read ◄── │ arrived, unread │ segment │ segment │ segment + FIN │ ◄── write
//!            └──────────────── at most `window` bytes ─────────────┘
//! ```

use std::collections::VecDeque;

use crate::Time;

/// What travels towards one end of a connection, and waits there. It belongs to the reader's end: whatever becomes of the
/// writer, what it had sent is here.
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    arrived: usize,
    segments: VecDeque<Segment>,
    window: usize,
    /// When the last segment is due: none overtakes another.
    last_due: Time,
    eof: bool,
    /// Bytes that were ever read: a writer's patience is measured by it.
    pub(super) read_total: u64,
    /// Whether the writer found no room and wants to hear of some.
    pub(super) writer_waits: bool,
}

struct Segment {
    len: usize,
    fin: bool,
}

impl Pipe {
    pub(super) fn new(window: usize) -> Pipe {
        Pipe {
            bytes: VecDeque::new(),
            arrived: 0,
            segments: VecDeque::new(),
            window,
            last_due: Time::ZERO,
            eof: false,
            read_total: 0,
            writer_waits: false,
        }
    }

    /// How many bytes a writer may add now.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.bytes.len())
    }

    /// Whether the window was narrower than that; it is not any more.
    pub(super) fn widen(&mut self, bytes: usize) -> bool {
        let is_narrow = self.window < bytes;
        self.window = self.window.max(bytes);
        is_narrow
    }

    pub(super) fn set_window(&mut self, window: usize) {
        self.window = window;
    }

    /// Bytes on their way and unread.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that can be read.
    pub(super) fn arrived(&self) -> usize {
        self.arrived
    }

    pub(super) fn is_in_flight(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Whether the reader has not taken in what a writer sent: it is on its way still, or the reader's half of the window
    /// is full. TCP counts such bytes as not acknowledged.
    pub(super) fn is_unacknowledged(&self) -> bool {
        self.is_in_flight() || self.arrived > self.window / 2
    }

    /// Whether the writer's FIN has come: nothing follows the bytes that are here.
    pub(super) fn is_at_end(&self) -> bool {
        self.eof
    }

    /// Puts a segment on its way; answers when it is due: as asked, but not before its predecessor.
    pub(super) fn push(&mut self, bytes: &[u8], fin: bool, due: Time) -> Time {
        self.bytes.extend(bytes);
        self.segments.push_back(Segment { len: bytes.len(), fin });
        self.last_due = self.last_due.max(due);
        self.last_due
    }

    /// Adds to the segment that was sent last, if it is still on its way.
    pub(super) fn ride(&mut self, bytes: &[u8], fin: bool) -> bool {
        let Some(last) = self.segments.back_mut() else { return false };
        last.len += bytes.len();
        last.fin |= fin;
        self.bytes.extend(bytes);
        true
    }

    /// The next segment is here; answers its length.
    pub(super) fn arrive(&mut self) -> Option<usize> {
        let segment = self.segments.pop_front()?;
        self.arrived += segment.len;
        self.eof |= segment.fin;
        Some(segment.len)
    }

    /// Reads what has arrived into `into`.
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.arrived);
        let (front, back) = self.bytes.as_slices();
        let from_front = count.min(front.len());
        into[..from_front].copy_from_slice(&front[..from_front]);
        into[from_front..count].copy_from_slice(&back[..count - from_front]);
        self.bytes.drain(..count);
        self.arrived -= count;
        self.read_total += count as u64;
        count
    }

    /// What is on its way never comes.
    pub(super) fn lose_in_flight(&mut self) {
        self.bytes.truncate(self.arrived);
        self.segments.clear();
    }

    /// What came and was not read is lost too.
    pub(super) fn lose_all(&mut self) {
        self.lose_in_flight();
        self.bytes.clear();
        self.arrived = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable_segment_by_segment_in_order_and_the_window_counts_both_kinds() {
        let mut pipe = Pipe::new(8);
        assert_eq!(pipe.push(b"abc", false, Time::from_nanos(50)), Time::from_nanos(50));
        assert_eq!(
            pipe.push(b"de", true, Time::from_nanos(10)),
            Time::from_nanos(50),
            "no segment overtakes"
        );
        assert_eq!((pipe.arrived(), pipe.room()), (0, 3));
        assert_eq!(pipe.arrive(), Some(3));
        let mut two = [0; 2];
        assert_eq!((pipe.read(&mut two), &two), (2, b"ab"));
        assert_eq!((pipe.arrived(), pipe.room(), pipe.is_at_end()), (1, 5, false));
        assert_eq!(pipe.arrive(), Some(2));
        let mut rest = [0; 9];
        assert_eq!((pipe.read(&mut rest), &rest[..3]), (3, b"cde".as_slice()));
        assert!(pipe.is_at_end());
        assert_eq!(pipe.arrive(), None);
    }

    #[test]
    fn what_is_lost_in_flight_leaves_what_arrived() {
        let mut pipe = Pipe::new(8);
        pipe.push(b"ab", false, Time::ZERO);
        pipe.push(b"cd", false, Time::ZERO);
        pipe.arrive();
        pipe.lose_in_flight();
        assert_eq!((pipe.arrived(), pipe.room(), pipe.is_in_flight()), (2, 6, false));
    }
}
