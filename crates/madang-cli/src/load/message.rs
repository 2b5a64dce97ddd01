//! What the load client says, and how it knows its own words again.
//!
//! ```text
//!  0     1              9
//!  ┌─────┬──────────────┬────────────────────────────┐
//!  │ 'E' │ sequence u64 │ pattern of the connection …│     messages under 9 bytes: 'E' and pattern
//!  └─────┴──────────────┴────────────────────────────┘
//! ```
//!
//! `E` asks `madang serve` for an echo. An echo that is lost, doubled, out of order or altered is told by a comparison
//! with what should have come; the dummy is the stricter judge (it shares no line of code with the engine), this one
//! must not cost what it measures.

/// Where the pattern starts in messages that have a sequence.
const HEADER: usize = 9;

/// So many connections have patterns that differ.
const PATTERNS: usize = 251;

/// The messages of one run.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    size: usize,
    /// Connection `n` has the part that starts at `n % PATTERNS`.
    pattern: Vec<u8>,
}

impl Messages {
    /// # Panics
    /// If `size` is 0: a message has at least one byte.
    pub(crate) fn new(size: usize) -> Self {
        assert!(size > 0, "messages of no bytes");
        // 251 is prime, so the pattern repeats at no power of two, where buffers end.
        Self { size, pattern: (0..size + PATTERNS).map(|at| (at % PATTERNS) as u8).collect() }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Writes message `sequence` of a connection into `out`, which has the right size.
    pub(crate) fn write(&self, connection: usize, sequence: u64, out: &mut [u8]) {
        out.copy_from_slice(self.pattern(connection));
        out[0] = b'E';
        if let Some(field) = out.get_mut(1..HEADER) {
            field.copy_from_slice(&sequence.to_le_bytes());
        }
    }

    /// Whether `echo` is message `sequence` of a connection, byte by byte.
    pub(crate) fn is(&self, connection: usize, sequence: u64, echo: &[u8]) -> bool {
        let pattern = self.pattern(connection);
        let rest = if self.size >= HEADER { HEADER } else { 1 };
        echo.len() == self.size
            && echo[0] == b'E'
            && echo[rest..] == pattern[rest..]
            && (rest == 1 || echo[1..HEADER] == sequence.to_le_bytes())
    }

    fn pattern(&self, connection: usize) -> &[u8] {
        &self.pattern[connection % PATTERNS..][..self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_itself_and_no_other() {
        for size in [1, 2, 8, 9, 10, 32, 300, 4_096] {
            let messages = Messages::new(size);
            let mut echo = vec![0; size];
            messages.write(7, 0x0102_0304, &mut echo);
            assert!(messages.is(7, 0x0102_0304, &echo), "{size}");
            assert_eq!(messages.is(7, 0x0102_0305, &echo), size < HEADER, "{size}: the next in line");
            assert_eq!(messages.is(8, 0x0102_0304, &echo), size == 1 || size == 9, "{size}: the neighbour's");
            assert!(!messages.is(7, 0x0102_0304, &echo[1..]), "{size}: a byte short");
            for at in 0..size {
                echo[at] ^= 0x40;
                assert!(!messages.is(7, 0x0102_0304, &echo), "{size}: altered at {at}");
                echo[at] ^= 0x40;
            }
        }
    }
}
