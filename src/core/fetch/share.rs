//! What sources can bring together: the bound of a fetch, and how long the rest of one takes at best. Pure arithmetic of a
//! fluid; it never knows which block is where.

/// What one source can still bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Supply {
    /// Bytes a second.
    pub(super) rate: u64,
    /// Bytes that it has and that may still be needed: at most one block of a stripe for each fragment that it holds.
    pub(super) bytes: u64,
}

impl Supply {
    /// When it has brought all it can, microseconds from now.
    fn exhausted_us(&self) -> u64 {
        micros(u128::from(self.bytes), self.rate)
    }
    /// Whether it has brought all it can before `us` microseconds are over, with a margin against estimates that are only
    /// just so.
    pub(super) fn ends_before(&self, us: u64) -> bool {
        self.exhausted_us() < us / 100 * 97
    }
}

/// How long `bytes` take at `rate` bytes a second.
fn micros(bytes: u128, rate: u64) -> u64 {
    let us = bytes.saturating_mul(1_000_000).checked_div(u128::from(rate));
    us.and_then(|us| u64::try_from(us).ok()).unwrap_or(u64::MAX)
}

/// The least time, in microseconds, in which sources bring `missing` bytes when each goes on at its rate until it has no
/// more: the least T with sum(min(rate * T, bytes)) >= missing. None when all they have is not enough.
pub(super) fn least_time_us(supplies: &[Supply], missing: u64) -> Option<u64> {
    let mut by_end: Vec<Supply> = supplies.iter().copied().filter(|s| s.rate > 0).collect();
    by_end.sort_by_key(Supply::exhausted_us);
    let mut rate: u64 = by_end.iter().map(|s| s.rate).sum();
    let mut left = u128::from(missing);
    for supply in by_end {
        let us = micros(left, rate);
        if us <= supply.exhausted_us() {
            return Some(us);
        }
        left = left.saturating_sub(u128::from(supply.bytes));
        rate -= supply.rate;
        if left == 0 {
            return Some(supply.exhausted_us());
        }
    }
    (left == 0).then_some(0)
}

/// The most that a fetch can reach with `uplinks` of any one unit (DESIGN.md section 7): with fragments k * s for the largest
/// s with sum(min(uplink, s)) >= k * s, because no source has more than one block of a stripe. Zero with fewer than k sources.
pub fn bound_of_fragments(uplinks: &[u64], k: u8) -> f64 {
    let mut sorted = uplinks.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let needed = usize::from(k);
    if needed == 0 || sorted.iter().filter(|rate| **rate > 0).count() < needed {
        return 0.0;
    }
    let float = |rate: u64| u32::try_from(rate).map_or(f64::from(u32::MAX), f64::from);
    // The fastest m are cut down to s; the others give all they have.
    for m in 0..needed {
        let rest: f64 = sorted[m..].iter().map(|rate| float(*rate)).sum();
        let s = rest / float(u64::from(k) - u64::try_from(m).unwrap_or(0));
        if sorted.get(m).is_none_or(|next| float(*next) <= s) {
            return s * f64::from(k);
        }
    }
    float(sorted[needed - 1]) * f64::from(k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_fragments_cuts_the_fastest_down() {
        let is = |uplinks: &[u64], k, bound: f64| {
            let found = bound_of_fragments(uplinks, k);
            assert!((found - bound).abs() < 1e-9, "{uplinks:?} {k}: {found}");
        };
        is(&[20, 20, 20, 20, 20], 3, 100.0);
        is(&[5, 10, 20, 40, 80], 3, 105.0);
        is(&[20, 20, 20], 3, 60.0);
        is(&[1000, 1, 1], 3, 3.0);
        is(&[7, 9], 1, 16.0);
        is(&[7, 9], 3, 0.0);
        is(&[0, 7, 9], 3, 0.0);
    }

    #[test]
    fn the_least_time_agrees_with_the_bound() {
        for (uplinks, k) in [(vec![20, 20, 20, 20, 20], 3u8), (vec![5, 10, 20, 40, 80], 3), (vec![3, 9, 9, 1], 2)] {
            let stripes = 1_000_000u64;
            let supplies: Vec<Supply> = uplinks.iter().map(|rate| Supply { rate: *rate, bytes: stripes }).collect();
            let us = least_time_us(&supplies, stripes * u64::from(k)).unwrap();
            let bound = bound_of_fragments(&uplinks, k);
            let expected = f64::from(u32::try_from(stripes * u64::from(k)).unwrap()) / bound * 1e6;
            let found = us as f64;
            assert!((found / expected - 1.0).abs() < 1e-6, "{uplinks:?}: {found} {expected}");
        }
    }

    #[test]
    fn too_little_is_never_enough_and_nothing_missing_takes_no_time() {
        let supplies = [Supply { rate: 10, bytes: 5 }, Supply { rate: 0, bytes: 100 }];
        assert_eq!(least_time_us(&supplies, 6), None);
        assert_eq!(least_time_us(&supplies, 5), Some(500_000));
        assert_eq!(least_time_us(&[], 0), Some(0));
    }
}
