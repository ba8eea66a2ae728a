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
    recorded: bool,
}

/// Counts what is served.
#[derive(Debug, Default)]
pub struct Allowance(Mutex<BTreeMap<(PeerId, MailId), Count>>);

impl Allowance {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<(PeerId, MailId), Count>> {
        // A count is replaced in one step, so a panic elsewhere leaves a good one.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// The outbox has written down that `h`, one of its own mails, is served to `peer`.
    pub fn recorded(&self, now: MonoTime, peer: PeerId, h: MailId) {
        self.count(now, peer, h, 0, true);
    }
    /// Whether it has, as far as is remembered.
    pub fn is_recorded(&self, peer: &PeerId, h: &MailId) -> bool {
        self.counts().get(&(*peer, *h)).is_some_and(|count| count.recorded)
    }
    /// `bytes` of `h` go out to `peer`; says whether that is [recorded](Self::recorded) as an own mail.
    pub fn served(&self, now: MonoTime, peer: PeerId, h: MailId, bytes: u64) -> bool {
        self.count(now, peer, h, bytes, false)
    }
    fn count(&self, now: MonoTime, peer: PeerId, h: MailId, bytes: u64, record: bool) -> bool {
        let mut counts = self.counts();
        let count = counts.entry((peer, h)).or_insert(Count { bytes: 0, since: now, recorded: false });
        if now.since(count.since) >= WINDOW {
            (count.bytes, count.since) = (0, now);
        }
        count.bytes = count.bytes.saturating_add(bytes);
        count.recorded |= record;
        let recorded = count.recorded;
        if counts.len() > COUNTS_MAX {
            let oldest = counts.iter().min_by_key(|(_, c)| c.since).map(|(key, _)| *key);
            oldest.and_then(|key| counts.remove(&key));
        }
        recorded
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

    #[test]
    fn what_is_recorded_of_an_own_mail_is_remembered_by_peer_and_mail() {
        let (peer, h, now) = (PeerId::new([1; 32]), MailId::new([2; 20]), MonoTime(5));
        let allowance = Allowance::default();
        assert!(!allowance.served(now, peer, h, 10), "a manifest, before any part");
        allowance.recorded(now, peer, h);
        assert!(allowance.is_recorded(&peer, &h) && allowance.served(now + WINDOW, peer, h, 10));
        assert!(!allowance.is_recorded(&peer, &MailId::new([3; 20])));
    }
}
