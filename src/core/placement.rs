//! Who should hold which part of a mail: rendezvous hashing of h over the members. It computes; it never asks and never moves.
//!
//! To readers placement is a hint: what a peer says it holds is the truth.

use std::collections::{BTreeMap, BTreeSet};

use super::replicator::scheme::scheme;
use crate::model::group::Roster;
use crate::model::{Encoding, MailId, Part, PeerId, Policy};

/// Members that are asked beyond the n that hold a mail: those that moved since (DESIGN.md section 7).
const SPARE_SOURCES: usize = 4;

/// The parts that each member is known to hold.
pub type Held = BTreeMap<PeerId, BTreeSet<Part>>;

/// `members` in rendezvous order for h: each hashed with h, the greatest first. The order of one pair never depends on others.
pub fn rank(h: &MailId, members: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let score = |peer: &PeerId| {
        let mut hasher = blake3::Hasher::new_derive_key("roost 1 placement");
        hasher.update(h.as_bytes());
        hasher.update(peer.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut scored: Vec<([u8; 32], PeerId)> = members.into_iter().map(|peer| (score(&peer), peer)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, peer)| peer).collect()
}

/// The members among which one mail is placed.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The mail.
    pub h: &'a MailId,
    /// How it is kept.
    pub encoding: Encoding,
    /// How many members hold it when it is kept whole.
    pub whole_copies: usize,
    /// Every member but its owner.
    pub members: &'a [PeerId],
    /// Those that the view calls lost.
    pub lost: &'a BTreeSet<PeerId>,
}

impl Place<'_> {
    /// The members that hold one part each, in rank; fewer than the encoding asks for when there are no more.
    pub fn placed(&self) -> Vec<PeerId> {
        let live = self.members.iter().filter(|m| !self.lost.contains(*m)).copied();
        let mut ranked = rank(self.h, live);
        ranked.truncate(scheme(self.encoding, self.whole_copies).places());
        ranked
    }
    /// Who holds what: whoever of the placed holds a part keeps it (two that hold the same are settled by rank); a part that
    /// none of them holds goes, lowest first, to the first of them without one. With nothing held, rank alone decides.
    pub fn assign(&self, held: &Held) -> BTreeMap<PeerId, Part> {
        scheme(self.encoding, self.whole_copies).assign(&self.placed(), held)
    }
}

/// How many members hold a mail kept whole that `owner` sent: all while the live members are too few for the policy.
pub fn whole_copies(roster: &Roster, owner: &PeerId) -> usize {
    roster.policy.whole_copies(live_others(roster, owner))
}

/// Members besides `owner` that the view does not call lost.
pub fn live_others(roster: &Roster, owner: &PeerId) -> usize {
    roster.members.iter().filter(|m| m.peer_id != *owner && !roster.lost.contains(&m.peer_id)).count()
}

/// Who may have a mail: its owner, and the members of the owner's group in rendezvous order, some more than are placed. `reader`, who
/// goes by a name in that group, is always among them: what is on its own disk nobody has to give it, whatever its rank, and also when
/// the group has removed it.
pub fn sources(
    h: &MailId,
    owner: PeerId,
    group: Option<(&Policy, BTreeSet<PeerId>)>,
    reader: Option<PeerId>,
) -> Vec<PeerId> {
    let most = |policy: &Policy| usize::from(policy.fragments.n).max(usize::from(policy.copies)) + SPARE_SOURCES;
    let others = |(policy, members): (&Policy, BTreeSet<PeerId>)| {
        let mut others = rank(h, members.into_iter().filter(|member| *member != owner));
        others.truncate(most(policy));
        others
    };
    let mut sources = vec![owner];
    sources.extend(group.into_iter().flat_map(others));
    let reader = reader.filter(|reader| !sources.contains(reader));
    sources.extend(reader);
    sources
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn peers(n: u8) -> Vec<PeerId> {
        (0..n).map(|x| PeerId::new([x; 32])).collect()
    }
    fn part(k: u8, i: u8) -> Part {
        Part::Fragment { k, i }
    }
    fn held(map: &BTreeMap<PeerId, Part>) -> Held {
        map.iter().map(|(m, p)| (*m, BTreeSet::from([*p]))).collect()
    }
    fn place<'a>(h: &'a MailId, members: &'a [PeerId], lost: &'a BTreeSet<PeerId>) -> Place<'a> {
        Place { h, encoding: Encoding::Fragments { k: 3, n: 5 }, whole_copies: 3, members, lost }
    }

    proptest! {
        #[test]
        fn every_peer_computes_the_same_in_whatever_order_it_knows_the_members(h in any::<[u8; 20]>(), seed in vec(any::<u32>(), 9)) {
            let (h, lost) = (MailId::new(h), BTreeSet::new());
            let members = peers(9);
            let mut order: Vec<usize> = (0..9).collect();
            order.sort_by_key(|i| seed[*i]);
            let shuffled: Vec<PeerId> = order.iter().map(|i| members[*i]).collect();
            let first = place(&h, &members, &lost).assign(&Held::new());
            prop_assert_eq!(&first, &place(&h, &shuffled, &lost).assign(&Held::new()));
            let distinct: BTreeSet<Part> = first.values().copied().collect();
            prop_assert_eq!(distinct, (0..5).map(|i| part(3, i)).collect());
        }

        #[test]
        fn who_holds_a_part_keeps_it_and_only_what_is_missing_moves(h in any::<[u8; 20]>(), gone in btree_set(0_u8..9, 0..4)) {
            let (h, members) = (MailId::new(h), peers(9));
            let none = BTreeSet::new();
            let before = place(&h, &members, &none).assign(&Held::new());
            let lost: BTreeSet<PeerId> = gone.iter().map(|x| PeerId::new([*x; 32])).collect();
            let after = place(&h, &members, &lost).assign(&held(&before));
            for (member, part) in &before {
                prop_assert!(lost.contains(member) || after.get(member) == Some(part));
            }
            prop_assert_eq!(after.values().collect::<BTreeSet<_>>().len(), 5);
            let moved = after.iter().filter(|(m, p)| before.get(*m) != Some(*p)).count();
            prop_assert_eq!(moved, before.keys().filter(|m| lost.contains(*m)).count());
            // It is stable: asking again with what is now held changes nothing.
            prop_assert_eq!(&place(&h, &members, &lost).assign(&held(&after)), &after);
        }

        #[test]
        fn members_that_come_and_go_move_only_the_parts_of_those_who_went_or_were_overtaken(
            h in any::<[u8; 20]>(),
            (first, then, lost) in (vec(any::<bool>(), 12), vec(any::<bool>(), 12), vec(0_u8..6, 12)),
            (k, n, whole) in (1_u8..5, 0_u8..4, any::<bool>()),
        ) {
            let (h, all) = (MailId::new(h), peers(12));
            let encoding = if whole { Encoding::Whole } else { Encoding::Fragments { k, n: k + n } };
            let those = |chosen: &[bool]| all.iter().zip(chosen).filter(|(_, c)| **c).map(|(m, _)| *m).collect::<Vec<_>>();
            let (first, then) = (those(&first), those(&then));
            let (none, lost) = (BTreeSet::new(), all.iter().zip(lost).filter(|(_, x)| *x == 0).map(|(m, _)| *m).collect());
            let place = |members, lost| Place { h: &h, encoding, whole_copies: usize::from(k), members, lost };
            let before = place(&first, &none).assign(&Held::new());
            let after = place(&then, &lost).assign(&held(&before));
            let live = then.iter().filter(|m| !lost.contains(*m)).count();
            let places = if whole { usize::from(k) } else { usize::from(k + n) };
            prop_assert_eq!(after.len(), places.min(live));
            if !whole {
                prop_assert_eq!(after.values().collect::<BTreeSet<_>>().len(), after.len());
            }
            let kept = after.iter().filter(|(m, part)| before.get(*m) == Some(*part)).count();
            let stays = |m: &&PeerId| before.contains_key(*m);
            prop_assert_eq!(kept, after.keys().filter(stays).count(), "who stays keeps its part");
            // A place changes hands only where its holder is away or somebody came who ranks before it.
            let away = before.keys().filter(|m| !then.contains(m) || lost.contains(*m)).count();
            let came = then.iter().filter(|m| !first.contains(m)).count();
            prop_assert!(after.len() - kept <= away + came, "{before:?} {after:?}");
            prop_assert_eq!(&place(&then, &lost).assign(&held(&after)), &after);
        }

        #[test]
        fn two_that_took_the_same_part_are_settled_by_rank(h in any::<[u8; 20]>()) {
            let (h, members, lost) = (MailId::new(h), peers(5), BTreeSet::new());
            let p = place(&h, &members, &lost);
            let ranked = p.placed();
            let both = Held::from([(ranked[1], BTreeSet::from([part(3, 4)])), (ranked[3], BTreeSet::from([part(3, 4)]))]);
            let settled = p.assign(&both);
            prop_assert_eq!(settled[&ranked[1]], part(3, 4));
            prop_assert_eq!(settled.values().collect::<BTreeSet<_>>().len(), 5);
        }
    }

    #[test]
    fn parts_are_balanced_over_the_members() {
        let (members, lost) = (peers(10), BTreeSet::new());
        let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
        for x in 0_u32..2000 {
            let digest = blake3::hash(&x.to_be_bytes());
            let h = MailId::from_slice(&digest.as_bytes()[..20]).unwrap();
            for member in place(&h, &members, &lost).placed() {
                *counts.entry(member).or_default() += 1;
            }
        }
        // 2000 mails, 5 of 10 members each: 1000 expected, standard deviation about 22.
        assert!(counts.len() == 10 && counts.values().all(|c| (880..1120).contains(c)), "{counts:?}");
    }

    #[test]
    fn who_reads_looks_on_its_own_disk_whatever_its_rank_and_also_when_it_was_removed() {
        let (h, members, policy) = (MailId::new([1; 20]), peers(20), Policy::default());
        let (owner, others) = (members[0], rank(&h, members[1..].iter().copied()));
        let asked = |members: &[PeerId], reader| {
            let group = Some((&policy, members.iter().copied().collect::<BTreeSet<_>>()));
            sources(&h, owner, group, reader)
        };
        let first = [&[owner], &others[..usize::from(policy.fragments.n) + SPARE_SOURCES]].concat();
        assert_eq!(asked(&members, None), first, "one outside");
        assert_eq!(asked(&members, Some(others[2])), first, "it is among the first");
        for reader in [others[18], PeerId::new([99; 32])] {
            assert_eq!(asked(&members, Some(reader)), [&first[..], &[reader]].concat());
        }
        assert_eq!(asked(&members, Some(owner)), first);
        assert_eq!(sources(&h, owner, None, None), [owner], "its group is not known");
    }

    #[test]
    fn a_group_that_is_too_small_places_what_it_can() {
        let (h, members, lost) = (MailId::new([1; 20]), peers(3), BTreeSet::new());
        assert_eq!(place(&h, &members, &lost).assign(&Held::new()).len(), 3);
        let whole = Place { encoding: Encoding::Whole, whole_copies: 2, ..place(&h, &members, &lost) };
        let assigned = whole.assign(&Held::new());
        assert!(assigned.len() == 2 && assigned.values().all(|p| *p == Part::Whole));
    }
}
