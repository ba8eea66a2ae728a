//! Spreads timers apart: pseudo-random numbers from a seed that the shell drew. Never a secret, never a source of its own.

use std::time::Duration;

/// A small deterministic generator (SplitMix64). The same seed gives the same timers, so a run can be repeated.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
    /// A length of time in `from..=to`, in whole milliseconds.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX / 2);
        let (from, to) = (millis(from), millis(to));
        let width = to.saturating_sub(from) + 1;
        Duration::from_millis(from + self.next() % width)
    }
    /// The pause before try number `tries` (from 1): `first`, doubled each time, never above `most`; three quarters to all of it.
    pub fn back_off(&mut self, first: Duration, most: Duration, tries: u32) -> Duration {
        let doubled = first.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1).min(20)));
        let full = doubled.min(most);
        self.between(full * 3 / 4, full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_off_doubles_and_stops_at_its_bound() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(10));
        let mut jitter = Jitter::new(7);
        for (tries, full) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (99, 10)] {
            let pause = jitter.back_off(first, most, tries);
            assert!(
                pause <= Duration::from_secs(full) && pause >= Duration::from_secs(full) * 3 / 4,
                "{tries} {pause:?}"
            );
        }
    }
}
