//! Availability by drawing: mails are placed by the real placement code, peers are up or down at random, and it is counted how
//! often a mail can be had. It starts no peer.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::jitter::Jitter;
use crate::core::placement::Place;
use crate::model::{Encoding, MailId, Part, PeerId};

/// How mails are kept, and among how many members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// Whole or as fragments.
    pub(super) encoding: Encoding,
    /// Members that hold a mail kept whole.
    pub(super) copies: u8,
    /// Members besides the owner.
    pub(super) others: u8,
}

/// How peers fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Failures {
    /// Each for itself.
    Independent {
        /// The probability that a peer is up.
        up: f64,
    },
    /// At sites that fail as a whole, and each for itself besides. The peers are dealt out to the sites in turn.
    Sites {
        /// How many sites there are.
        sites: u8,
        /// The probability that a site is up.
        site_up: f64,
        /// The probability that a peer at a site that is up is up.
        up: f64,
    },
}

/// The share of draws in which a mail could be had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shares {
    /// From the members alone.
    pub(super) owner_dead: f64,
    /// From the owner or the members.
    pub(super) owner_as_others: f64,
}

/// Draws from a seed.
#[derive(Debug)]
pub(super) struct Draws(Jitter);

impl Draws {
    /// The draws that `seed` gives.
    pub(super) fn new(seed: u64) -> Self {
        Self(Jitter::new(seed))
    }
    /// True with probability `p`.
    pub(super) fn happens(&mut self, p: f64) -> bool {
        // 32 bits are exact as a float, and finer than any share that is counted here.
        let drawn = u32::try_from(self.0.below(1 << 32)).unwrap_or(u32::MAX);
        f64::from(drawn) < p * 4_294_967_296.0
    }
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| u8::try_from(self.0.below(256)).unwrap_or_default())
    }
    /// Who of `peers` is up.
    pub(super) fn who_is_up(&mut self, failures: Failures, peers: usize) -> Vec<bool> {
        match failures {
            Failures::Independent { up } => (0..peers).map(|_| self.happens(up)).collect(),
            Failures::Sites { sites, site_up, up } => {
                let sites: Vec<bool> = (0..sites).map(|_| self.happens(site_up)).collect();
                (0..peers).map(|peer| self.happens(up) && sites[peer % sites.len()]).collect()
            }
        }
    }
}

/// Counts over `count` mails, each placed and met with failures anew.
pub(super) fn count(kept: Kept, failures: Failures, count: u32, draws: &mut Draws) -> Shares {
    let members: Vec<PeerId> = (0..kept.others).map(|_| PeerId::new(draws.bytes())).collect();
    let place_of: BTreeMap<PeerId, usize> = members.iter().enumerate().map(|(i, peer)| (*peer, i + 1)).collect();
    let lost = BTreeSet::new();
    let (mut alone, mut with_owner) = (0_u32, 0_u32);
    for _ in 0..count {
        let h = MailId::new(draws.bytes());
        let copies = usize::from(kept.copies);
        let place = Place { h: &h, encoding: kept.encoding, whole_copies: copies, members: &members, lost: &lost };
        let assigned = place.assign(&BTreeMap::new());
        // The owner is the first.
        let up = draws.who_is_up(failures, members.len() + 1);
        let parts =
            assigned.iter().filter(|(peer, _)| place_of.get(peer).is_some_and(|i| up[*i])).map(|(_, part)| *part);
        let had = can_be_had(kept.encoding, parts);
        alone += u32::from(had);
        with_owner += u32::from(had || up[0]);
    }
    let share = |hits: u32| f64::from(hits) / f64::from(count.max(1));
    Shares { owner_dead: share(alone), owner_as_others: share(with_owner) }
}

/// Whether these parts make the mail.
fn can_be_had(encoding: Encoding, parts: impl Iterator<Item = Part>) -> bool {
    let parts: BTreeSet<Part> = parts.collect();
    match encoding {
        Encoding::Whole => !parts.is_empty(),
        Encoding::Fragments { k, .. } => parts.contains(&Part::Whole) || parts.len() >= usize::from(k),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::availability::{k_of_n, owner_or_k_of_n, with_a_common_cause};

    const FRAGMENTS: Kept = Kept { encoding: Encoding::Fragments { k: 3, n: 5 }, copies: 3, others: 7 };
    const WHOLE: Kept = Kept { encoding: Encoding::Whole, copies: 3, others: 7 };

    #[test]
    fn independent_failures_give_the_binomial() {
        for up in [0.3, 0.9] {
            let mut draws = Draws::new(7);
            let counted = count(FRAGMENTS, Failures::Independent { up }, 20_000, &mut draws);
            // Five times the standard error of the worst share.
            assert!((counted.owner_dead - k_of_n(up, 3, 5)).abs() < 0.018, "{counted:?}");
            assert!((counted.owner_as_others - owner_or_k_of_n(up, up, 3, 5)).abs() < 0.018, "{counted:?}");
            let whole = count(WHOLE, Failures::Independent { up }, 20_000, &mut draws);
            assert!((whole.owner_dead - k_of_n(up, 1, 3)).abs() < 0.018, "{whole:?}");
        }
    }

    #[test]
    fn at_one_site_all_fail_together() {
        let failures = Failures::Sites { sites: 1, site_up: 0.8, up: 0.9 };
        let counted = count(FRAGMENTS, failures, 20_000, &mut Draws::new(7));
        let closed = with_a_common_cause(0.2, owner_or_k_of_n(0.9, 0.9, 3, 5));
        assert!((counted.owner_as_others - closed).abs() < 0.018, "{counted:?}, {closed}");
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let drawn = || count(FRAGMENTS, Failures::Independent { up: 0.5 }, 500, &mut Draws::new(42));
        assert_eq!(drawn(), drawn());
    }
}
