//! How much of each mail each peer was served of late: at most four times its length in 24 h (DESIGN.md section 4).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::model::{MailId, MonoTime, PeerId};

/// Times its own length that a mail is served to one peer in [`WINDOW`].
const TIMES: u64 = 4;
/// A mail shorter than this counts as this long: a request costs more than its bytes.
const LENGTH_MIN: u64 = 64 * 1024;
/// After this long the count starts anew.
const WINDOW: Duration = Duration::from_secs(86_400);
/// Most counts that are kept; the oldest goes first.
const COUNTS_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy)]
struct Count {
    bytes: u64,
    since: MonoTime,
}

/// Counts what is served.
#[derive(Debug, Default)]
pub struct Allowance(Mutex<BTreeMap<(PeerId, MailId), Count>>);

impl Allowance {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<(PeerId, MailId), Count>> {
        // A count is replaced in one step, so a panic elsewhere leaves a good one.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// `bytes` of `h` go out to `peer`.
    pub fn served(&self, now: MonoTime, peer: PeerId, h: MailId, bytes: u64) {
        let mut counts = self.counts();
        let count = counts.entry((peer, h)).or_insert(Count { bytes: 0, since: now });
        if now.since(count.since) >= WINDOW {
            *count = Count { bytes: 0, since: now };
        }
        count.bytes = count.bytes.saturating_add(bytes);
        if counts.len() > COUNTS_MAX {
            let oldest = counts.iter().min_by_key(|(_, c)| c.since).map(|(key, _)| *key);
            oldest.and_then(|key| counts.remove(&key));
        }
    }
    /// Whether `peer` has had enough of a mail of `length` bytes, and when it may come again.
    pub fn spent(&self, now: MonoTime, peer: &PeerId, h: &MailId, length: u64) -> Option<Duration> {
        let counts = self.counts();
        let count = counts.get(&(*peer, *h))?;
        let age = now.since(count.since);
        let enough = count.bytes >= length.max(LENGTH_MIN).saturating_mul(TIMES);
        (enough && age < WINDOW).then(|| WINDOW.saturating_sub(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_times_its_length_is_enough_for_a_day() {
        let (peer, h, length) = (PeerId::new([1; 32]), MailId::new([2; 20]), 1 << 20);
        let allowance = Allowance::default();
        let start = MonoTime(5);
        allowance.served(start, peer, h, 4 * length - 1);
        assert_eq!(allowance.spent(start, &peer, &h, length), None);
        allowance.served(start, peer, h, 1);
        assert!(allowance.spent(start, &peer, &h, length).is_some());
        assert_eq!(allowance.spent(start, &PeerId::new([9; 32]), &h, length), None);
        let tomorrow = start + WINDOW;
        assert_eq!(allowance.spent(tomorrow, &peer, &h, length), None);
        allowance.served(tomorrow, peer, h, 1);
        assert_eq!(allowance.spent(tomorrow, &peer, &h, length), None);
    }
}
