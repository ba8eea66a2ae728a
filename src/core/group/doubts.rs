//! Doubts: ns that do not fit what is pinned for their sender's group, and how often a newer gd was looked for because of each.
//! They only count: they judge nothing and ask nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Digest, GroupName, MonoTime};

/// From the first look for one ns to the last that decides: a gd is put into the DHT again at half of its validity of a day, and each
/// pinned group is looked for hourly besides. The last pause is that of all looks after.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
    Duration::from_secs(7200),
    Duration::from_secs(21_600),
    Duration::from_secs(86_400),
];
/// Looks that found a gd of the pinned key which says nothing of what an ns claims: after so many the claim is not waited for.
const LOOKS: u32 = 7;
/// ns that are remembered: as many entries as one key of the DHT has at least.
const DOUBTS_MAX: usize = 4096;
/// One that nobody has brought for so long since it was due is not there any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);
/// What a look found a moment ago holds for other ns of that group too.
const SHARED: Duration = Duration::from_secs(10);

/// One ns.
#[derive(Debug)]
struct Doubt {
    /// Looks, whatever they found.
    looks: u32,
    /// Those that found a gd of the pinned key.
    fresh: u32,
    /// No look before this.
    next: MonoTime,
}

/// ns that did not fit, by the digest of their sealed form. Not durable: after a restart it is looked again.
#[derive(Debug, Default)]
pub struct Doubts {
    doubts: BTreeMap<Digest, Doubt>,
    /// The last look for a group: when it ended, and whether it found a gd of the pinned key.
    looks: BTreeMap<GroupName, (MonoTime, bool)>,
}

impl Doubts {
    /// Whether a newer gd is to be looked for because of this ns.
    pub fn is_due(&self, now: MonoTime, ns: &Digest) -> bool {
        self.doubts.get(ns).is_none_or(|doubt| doubt.next <= now)
    }

    /// What a look for this group found a moment ago, if there was one.
    pub fn shared(&self, now: MonoTime, group: &GroupName) -> Option<bool> {
        self.looks.get(group).filter(|(at, _)| now.since(*at) < SHARED).map(|(_, fresh)| *fresh)
    }

    /// It was looked because of this ns; whether a gd of the pinned key was found.
    pub fn looked(&mut self, now: MonoTime, group: &GroupName, ns: Digest, fresh: bool) {
        if self.shared(now, group).is_none() {
            self.looks.retain(|_, (at, _)| now.since(*at) < SHARED);
            self.looks.insert(group.clone(), (now, fresh));
        }
        if self.doubts.len() >= DOUBTS_MAX && !self.doubts.contains_key(&ns) {
            self.doubts.retain(|_, doubt| now < doubt.next + FORGOTTEN_AFTER);
        }
        if self.doubts.len() >= DOUBTS_MAX && !self.doubts.contains_key(&ns) {
            // The youngest: who lays many of them pushes out its own.
            let youngest = self.doubts.iter().min_by_key(|(_, doubt)| (doubt.looks, doubt.next)).map(|(ns, _)| *ns);
            youngest.map(|ns| self.doubts.remove(&ns));
        }
        let doubt = self.doubts.entry(ns).or_insert(Doubt { looks: 0, fresh: 0, next: now });
        let pause = usize::try_from(doubt.looks).unwrap_or(usize::MAX).min(PAUSES.len() - 1);
        doubt.next = now + PAUSES[pause];
        doubt.looks = doubt.looks.saturating_add(1);
        doubt.fresh = doubt.fresh.saturating_add(u32::from(fresh));
    }

    /// Whether the newest gd that could be had said nothing of what this ns claims, again and again for more than a day.
    pub fn is_over(&self, ns: &Digest) -> bool {
        self.doubts.get(ns).is_some_and(|doubt| doubt.fresh >= LOOKS)
    }

    /// It fits now.
    pub fn settled(&mut self, ns: &Digest) {
        self.doubts.remove(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn acme() -> GroupName {
        "acme".parse().unwrap()
    }

    fn ns(n: u64) -> Digest {
        Digest::new(*blake3::hash(&n.to_be_bytes()).as_bytes())
    }

    /// Polls once a minute; when it was looked.
    fn polled(doubts: &mut Doubts, from: MonoTime, until: MonoTime, fresh: bool) -> Vec<MonoTime> {
        let (mut now, mut looked) = (from, Vec::new());
        while now < until {
            if doubts.is_due(now, &ns(1)) {
                doubts.looked(now, &acme(), ns(1), fresh);
                looked.push(now);
            }
            now = now + Duration::from_secs(60);
        }
        looked
    }

    #[test]
    fn one_ns_costs_few_looks_however_often_it_is_polled_and_is_not_refused_by_the_first_that_finds_an_older_gd() {
        let mut doubts = Doubts::default();
        let looked = polled(&mut doubts, MonoTime(0), MonoTime(0) + DAY, true);
        assert_eq!(looked.len(), 6, "{looked:?}");
        assert!(!doubts.is_over(&ns(1)), "the gd that tells of it may have been on its way for a day");
        let again = polled(&mut doubts, MonoTime(0) + DAY, MonoTime(0) + DAY * 3, true);
        assert!(!again.is_empty() && again.len() <= 2, "{again:?}");
        assert!(doubts.is_over(&ns(1)), "bounded");
        assert!(!doubts.is_over(&ns(2)));
    }

    #[test]
    fn looks_that_find_nothing_refuse_nothing_and_are_bounded_all_the_same() {
        let mut doubts = Doubts::default();
        let looked = polled(&mut doubts, MonoTime(0), MonoTime(0) + DAY * 30, false);
        assert!(looked.len() < 40, "{}", looked.len());
        assert!(!doubts.is_over(&ns(1)));
    }

    #[test]
    fn many_ns_of_one_group_share_a_look_and_push_out_no_older_doubt() {
        let (mut doubts, start) = (Doubts::default(), MonoTime(0));
        doubts.looked(start, &acme(), ns(0), true);
        assert_eq!(doubts.shared(start + SHARED / 2, &acme()), Some(true));
        assert_eq!(doubts.shared(start + SHARED, &acme()), None);
        let later = start + Duration::from_secs(60);
        doubts.looked(later, &acme(), ns(0), true);
        for n in 1..5000 {
            doubts.looked(later + Duration::from_millis(n), &acme(), ns(n), true);
        }
        assert!(doubts.doubts.len() <= DOUBTS_MAX);
        assert!(!doubts.is_due(later + Duration::from_secs(200), &ns(0)), "the first is still remembered");
    }
}
