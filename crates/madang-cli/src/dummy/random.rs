//! Seeded randomness, so that a run can be played again from its seed.

/// SplitMix64: eight lines, passes the usual batteries, any seed is a good seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for one thing among many under the same seed, for example one message of one connection.
    pub(crate) fn of(seed: u64, path: &[u64]) -> Self {
        let mut random = Self::new(seed);
        for &step in path {
            random.state = random.next() ^ step.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `low..=high`. The bias of the remainder is far below what a test could notice.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        debug_assert!(low <= high);
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.next() % n == 0
    }

    /// As many random bytes as are asked for.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = Vec::new();
        self.fill(N, &mut bytes);
        bytes.try_into().expect("N bytes")
    }

    /// Appends `len` random bytes.
    pub(crate) fn fill(&mut self, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        while out.len() < end {
            let bytes = self.next().to_le_bytes();
            out.extend_from_slice(&bytes[..bytes.len().min(end - out.len())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_path_gives_the_same_stream_and_another_path_another() {
        let draw = |seed, path: &[u64]| Random::of(seed, path).next();
        assert_eq!(draw(7, &[1, 2]), draw(7, &[1, 2]));
        let neighbours =
            [draw(7, &[1, 2]), draw(7, &[2, 1]), draw(8, &[1, 2]), draw(7, &[1]), draw(7, &[1, 2, 0])];
        for (i, a) in neighbours.iter().enumerate() {
            assert!(neighbours[i + 1..].iter().all(|b| a != b), "{neighbours:x?}");
        }
    }

    #[test]
    fn between_reaches_both_ends_and_never_passes_them() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 4];
        for _ in 0..1_000 {
            seen[random.between(3, 6) - 3] += 1;
        }
        assert!(seen.iter().all(|&n| n > 150), "{seen:?}");
    }
}
