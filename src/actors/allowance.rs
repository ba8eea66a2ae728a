//! How much of each mail each peer was served of late: at most four times its length in 24 h (DESIGN.md section 4). What a
//! request may still bring is reserved when it is admitted, so that many at once get no more than one after the other.

use std::collections::{BTreeMap, BTreeSet};
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

/// When a request that only waits for others under way may come again: most of them end soon, and give back what was not
/// sent.
const RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Count {
    /// Sent in the window.
    sent: u64,
    /// Of requests under way.
    reserved: u64,
    /// How much may be sent.
    bound: u64,
    since: MonoTime,
    recorded: bool,
}

/// The counts, and the oldest of them: at the bound each new one costs no look at all others.
#[derive(Debug, Default)]
struct Counts {
    of: BTreeMap<(PeerId, MailId), Count>,
    by_age: BTreeSet<(MonoTime, (PeerId, MailId))>,
}

/// Counts what is served.
#[derive(Debug, Default)]
pub struct Allowance(Mutex<Counts>);

impl Allowance {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // A panic elsewhere leaves good counts; one that is only in the order of age is passed over there.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    /// The outbox has written down that `h`, one of its own mails, is served to `peer`.
    pub fn recorded(&self, now: MonoTime, peer: PeerId, h: MailId) {
        self.count(now, peer, h, |count| count.recorded = true);
    }
    /// Whether it has, as far as is remembered.
    pub fn is_recorded(&self, peer: &PeerId, h: &MailId) -> bool {
        self.counts().of.get(&(*peer, *h)).is_some_and(|count| count.recorded)
    }
    /// Reserves `bytes` of `h`, before the first of them goes out to `peer`.
    ///
    /// # Errors
    /// When the peer may come again, if they are more than it may have.
    pub fn reserve(&self, now: MonoTime, peer: PeerId, h: MailId, bytes: u64) -> Result<(), Duration> {
        self.count(now, peer, h, |count| {
            let sent = count.sent.saturating_add(bytes);
            if sent > count.bound {
                return Err(WINDOW.saturating_sub(now.since(count.since)));
            }
            if sent.saturating_add(count.reserved) > count.bound {
                return Err(RETRY);
            }
            count.reserved = count.reserved.saturating_add(bytes);
            Ok(())
        })
    }
    /// `bytes` of what was reserved go out.
    pub fn sent(&self, now: MonoTime, peer: PeerId, h: MailId, bytes: u64) {
        self.count(now, peer, h, |count| {
            count.reserved = count.reserved.saturating_sub(bytes);
            count.sent = count.sent.saturating_add(bytes);
        });
    }
    /// `bytes` of what was reserved will not go out.
    pub fn give_back(&self, peer: &PeerId, h: &MailId, bytes: u64) {
        if let Some(count) = self.counts().of.get_mut(&(*peer, *h)) {
            count.reserved = count.reserved.saturating_sub(bytes);
        }
    }
    fn count<T>(&self, now: MonoTime, peer: PeerId, h: MailId, change: impl FnOnce(&mut Count) -> T) -> T {
        let mut counts = self.counts();
        let Counts { of, by_age } = &mut *counts;
        let key = (peer, h);
        let count = of.entry(key).or_insert_with(|| {
            by_age.insert((now, key));
            // Without a bound until the length is known.
            Count { sent: 0, reserved: 0, bound: u64::MAX, since: now, recorded: false }
        });
        if now.since(count.since) >= WINDOW {
            by_age.remove(&(count.since, key));
            by_age.insert((now, key));
            (count.sent, count.since) = (0, now);
        }
        let outcome = change(count);
        while of.len() > COUNTS_MAX
            && let Some((_, oldest)) = by_age.pop_first()
        {
            of.remove(&oldest);
        }
        outcome
    }
    /// Whether `peer` has had enough of a mail of `length` bytes, and when it may come again.
    pub fn spent(&self, now: MonoTime, peer: PeerId, h: MailId, length: u64) -> Option<Duration> {
        let bound = length.max(LENGTH_MIN).saturating_mul(TIMES);
        self.count(now, peer, h, |count| {
            count.bound = bound;
            (count.sent >= bound).then(|| WINDOW.saturating_sub(now.since(count.since)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 1 << 20;

    fn serve(allowance: &Allowance, now: MonoTime, peer: PeerId, h: MailId, bytes: u64) {
        allowance.reserve(now, peer, h, bytes).unwrap();
        allowance.sent(now, peer, h, bytes);
    }

    #[test]
    fn four_times_its_length_is_enough_for_a_day() {
        let (peer, h) = (PeerId::new([1; 32]), MailId::new([2; 20]));
        let allowance = Allowance::default();
        let start = MonoTime(5);
        assert_eq!(allowance.spent(start, peer, h, LENGTH), None);
        serve(&allowance, start, peer, h, 4 * LENGTH - 1);
        assert_eq!(allowance.spent(start, peer, h, LENGTH), None);
        assert_eq!(allowance.reserve(start, peer, h, 2), Err(WINDOW));
        serve(&allowance, start, peer, h, 1);
        assert!(allowance.spent(start, peer, h, LENGTH).is_some());
        assert_eq!(allowance.spent(start, PeerId::new([9; 32]), h, LENGTH), None);
        let tomorrow = start + WINDOW;
        assert_eq!(allowance.spent(tomorrow, peer, h, LENGTH), None);
        serve(&allowance, tomorrow, peer, h, 1);
        assert_eq!(allowance.spent(tomorrow, peer, h, LENGTH), None);
    }

    #[test]
    fn requests_at_the_same_time_get_no_more_than_one_after_the_other() {
        let (peer, h, now) = (PeerId::new([1; 32]), MailId::new([2; 20]), MonoTime(5));
        let allowance = Allowance::default();
        let admit = || match allowance.spent(now, peer, h, LENGTH) {
            None => allowance.reserve(now, peer, h, LENGTH),
            Some(pause) => Err(pause),
        };
        let admitted = (0..100).filter(|_| admit().is_ok()).count();
        assert_eq!(admitted, 4);
        assert_eq!(admit(), Err(RETRY), "those under way may end early");
        // One ends after half of it, and gives the other half back.
        allowance.sent(now, peer, h, LENGTH / 2);
        allowance.give_back(&peer, &h, LENGTH / 2);
        assert_eq!(allowance.reserve(now, peer, h, LENGTH / 2 + 1), Err(RETRY));
        allowance.reserve(now, peer, h, LENGTH / 2).unwrap();
    }

    #[test]
    fn what_is_recorded_of_an_own_mail_is_remembered_by_peer_and_mail() {
        let (peer, h, now) = (PeerId::new([1; 32]), MailId::new([2; 20]), MonoTime(5));
        let allowance = Allowance::default();
        serve(&allowance, now, peer, h, 10);
        assert!(!allowance.is_recorded(&peer, &h), "a manifest, before any part");
        allowance.recorded(now, peer, h);
        serve(&allowance, now + WINDOW, peer, h, 10);
        assert!(allowance.is_recorded(&peer, &h));
        assert!(!allowance.is_recorded(&peer, &MailId::new([3; 20])));
    }

    #[test]
    fn at_the_bound_the_oldest_goes_and_is_found_without_looking_at_the_others() {
        let (peer, allowance) = (PeerId::new([1; 32]), Allowance::default());
        let h = |n: usize| {
            let mut bytes = [0; MailId::LEN];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            MailId::new(bytes)
        };
        let at = |n: usize| MonoTime::default() + Duration::from_millis(u64::try_from(n).unwrap());
        for n in 0..COUNTS_MAX {
            serve(&allowance, at(n), peer, h(n), 1);
        }
        // The count of the first one starts anew, which makes the second one the oldest.
        serve(&allowance, at(0) + WINDOW, peer, h(0), 1);
        for n in COUNTS_MAX..COUNTS_MAX + 3 {
            serve(&allowance, at(n) + WINDOW, peer, h(n), 1);
        }
        let counts = allowance.counts();
        assert_eq!((counts.of.len(), counts.by_age.len()), (COUNTS_MAX, COUNTS_MAX));
        let there: Vec<bool> = (0..5).map(|n| counts.of.contains_key(&(peer, h(n)))).collect();
        assert_eq!(there, [true, false, false, false, true]);
        assert!(counts.by_age.iter().all(|(since, key)| counts.of.get(key).is_some_and(|c| c.since == *since)));
    }
}
