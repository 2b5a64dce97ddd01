//! What each session may send: a bucket each for messages, bytes and decoded bytes.
//!
//! A bucket is one number: the time at which it will be full again.
//!
//! ```text
//!   now          now + burst
//!    │  ▒▒▒▒▒▒▒▒▒▒▒▒▒│                 what came pushes the time to the right by what it costs: n / rate
//!    │               ●──────►          beyond the burst is debt, and time pays it off
//! ```
//!
//! It is charged once for a batch of bytes, not once for a message, and what has come is always delivered: the debt is what
//! keeps the next from being read.

use madang_driver::Time;

use crate::Settings;

/// The least that a frame costs of the bytes: an empty one is a header, a look-up and a callback all the same.
const FRAME_COST_MIN: usize = 64;

/// What a batch of bytes turned out to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    /// Frames, the engine's own words among them: a flood of pings is a flood.
    frames: usize,
    /// Bytes of the frames as they came.
    bytes: usize,
    /// Bytes of the messages as content got them.
    decoded: usize,
}

impl Taken {
    /// A frame of `len` bytes was found.
    #[inline]
    pub(crate) fn frame(&mut self, len: usize) {
        self.frames += 1;
        self.bytes += len.max(FRAME_COST_MIN);
    }

    /// It was a message of so many bytes.
    #[inline]
    pub(crate) fn message(&mut self, len: usize) {
        self.decoded += len;
    }
}

/// Time for one unit, in nanoseconds of 20 fractional bits: a gigabyte a second is one nanosecond a byte.
#[derive(Debug, Clone, Copy)]
struct Price(u64);

impl Price {
    /// `per_s` 0 costs nothing: no limit.
    fn new(per_s: u64) -> Price {
        Price((1_000_000_000u64 << 20).checked_div(per_s).unwrap_or(0))
    }

    fn of(self, units: usize) -> u64 {
        ((units as u128 * u128::from(self.0)) >> 20) as u64
    }
}

/// The buckets of a shard's sessions, by local index: 24 bytes a session, in memory that is touched when bytes come first.
#[derive(Debug)]
pub(crate) struct Intakes {
    prices: [Price; 3],
    burst: u64,
    full_at: Vec<[u64; 3]>,
}

impl Intakes {
    /// `None` when nothing is limited: then nothing is counted either.
    pub(crate) fn new(settings: &Settings) -> Option<Intakes> {
        let limits =
            [settings.recv_messages_per_s, settings.recv_bytes_per_s, settings.recv_decoded_bytes_per_s];
        limits.iter().any(|limit| *limit > 0).then(|| Intakes {
            prices: limits.map(Price::new),
            burst: settings.recv_burst_ms * 1_000_000,
            full_at: vec![[0; 3]; settings.slots_per_shard()],
        })
    }

    /// A new session in slot `local` begins with full buckets.
    pub(crate) fn begin(&mut self, local: u32) {
        let buckets = &mut self.full_at[local as usize];
        // Looked at first: memory that was never written stays untouched.
        if *buckets != [0; 3] {
            *buckets = [0; 3];
        }
    }

    /// Takes what came out of the session's buckets. Until when it is in debt, if it is.
    pub(crate) fn charge(&mut self, local: u32, now: Time, taken: &Taken) -> Option<Time> {
        let costs = [taken.frames, taken.bytes, taken.decoded];
        let mut latest = 0;
        for ((full_at, price), units) in self.full_at[local as usize].iter_mut().zip(self.prices).zip(costs) {
            if price.0 > 0 {
                *full_at = (*full_at).max(now.as_nanos()).saturating_add(price.of(units));
                latest = latest.max(*full_at);
            }
        }
        let paid = Time::from_nanos(latest.saturating_sub(self.burst));
        (paid > now).then_some(paid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn intakes(messages: u64, bytes: u64, decoded: u64) -> Intakes {
        let settings = Settings {
            recv_messages_per_s: messages,
            recv_bytes_per_s: bytes,
            recv_decoded_bytes_per_s: decoded,
            recv_burst_ms: 2_000,
            ..Settings::default()
        };
        Intakes::new(&settings).unwrap()
    }

    fn taken(frames: usize, len: usize) -> Taken {
        let mut taken = Taken::default();
        for _ in 0..frames {
            taken.frame(len + 4);
            taken.message(len);
        }
        taken
    }

    #[test]
    fn b04_each_bucket_gives_its_burst_and_then_its_rate() {
        let now = Time::from_nanos(3 * SECOND);
        let check = |limits: (u64, u64, u64), frames: usize, len: usize, debt_until: Option<f64>| {
            let mut intakes = intakes(limits.0, limits.1, limits.2);
            let debt = intakes.charge(0, now, &taken(frames, len));
            // To the millisecond: a price is rounded down by less than a millionth.
            let debt = debt.map(|paid_at| paid_at.since(now).as_secs_f64() * 1_000.0).map(f64::round);
            assert_eq!(debt, debt_until, "{frames} frames of {len} against {limits:?}");
        };
        // The burst, and not one message more: two seconds of each rate.
        check((100, 0, 0), 200, 10, None);
        check((100, 0, 0), 201, 10, Some(10.0));
        check((0, 10_400, 0), 200, 100, None);
        check((0, 10_400, 0), 300, 100, Some(1_000.0));
        check((0, 0, 10_000), 200, 100, None);
        check((0, 0, 10_000), 300, 100, Some(1_000.0));
        // The tightest decides.
        check((100, 10_400, 0), 300, 100, Some(1_000.0));
        check((100, 10_400, 5_000), 300, 100, Some(4_000.0));
    }

    #[test]
    fn b05_a_tiny_frame_costs_as_much_as_one_of_64_bytes() {
        let now = Time::from_nanos(SECOND);
        let tiny = intakes(0, 64_000, 0).charge(0, now, &taken(3_000, 1));
        let small = intakes(0, 64_000, 0).charge(0, now, &taken(3_000, 60));
        assert_eq!(tiny, Some(now + std::time::Duration::from_secs(1)));
        assert_eq!(tiny, small);
    }

    #[test]
    fn buckets_fill_up_with_time_and_no_further() {
        let mut intakes = intakes(100, 0, 0);
        let at = |seconds: u64| Time::from_nanos(seconds * SECOND);
        for seconds in [1, 10, 1_000] {
            assert_eq!(intakes.charge(0, at(seconds), &taken(200, 10)), None, "after {seconds} s");
            assert_eq!(intakes.charge(0, at(seconds), &taken(100, 10)), Some(at(seconds + 1)));
            assert_eq!(intakes.charge(0, at(seconds + 1), &Taken::default()), None, "it is paid");
        }
        intakes.charge(0, at(2_000), &taken(300, 10));
        intakes.begin(0);
        assert_eq!(intakes.charge(0, at(2_000), &taken(200, 10)), None, "the next session owes nothing");
    }

    #[test]
    fn without_a_limit_there_are_no_buckets() {
        assert!(Intakes::new(&Settings::default()).is_none());
    }
}
