//! safe(f): how many more members may be lost, the owner being lost already, until a mail cannot be read (R8).
//! Pure arithmetic over confirmed holdings; it never counts a plan.
//!
//! A mail is readable from what is left when somebody has it whole, or when for some k there are k distinct fragments of k.
//! To make it unreadable, every whole copy must go, and of each k's fragments all but k - 1 distinct ones. So f is one less
//! than the members in the cheapest such loss.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Encoding, Part, PeerId};

/// Most choices of "which fragments are left" that are tried one by one. Above it the answer may be too low, never too high.
const CHOICES_MAX: usize = 20_000;

/// What each member holds of one mail, as it confirmed.
pub type Held = BTreeMap<PeerId, BTreeSet<Part>>;

/// f of safe(f): the members that may still go, the owner not counted. Negative when what the members hold does not make the
/// mail: then it is minus the parts that are missing; `encoding` says what is missing while nobody holds anything.
///
/// Exact, except where so many members hold several fragments each that trying every loss would take too long; there it is
/// a lower bound.
pub fn safe(held: &Held, encoding: Encoding) -> i32 {
    let whole = held.values().filter(|parts| parts.contains(&Part::Whole)).count();
    let mut distinct: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
    for (k, i) in held.values().flatten().filter_map(fragment) {
        distinct.entry(k).or_default().insert(i);
    }
    let surplus = |(k, indices): (&u8, &BTreeSet<u8>)| signed(indices.len()) - i32::from(*k);
    let best = distinct.iter().map(surplus).max();
    if whole == 0 && best.is_none_or(|best| best < 0) {
        return best.unwrap_or(i32::MIN).max(-signed(encoding.needed()));
    }
    let readable: BTreeMap<u8, BTreeSet<u8>> =
        distinct.into_iter().filter(|(k, indices)| indices.len() >= usize::from(*k)).collect();
    let others: Vec<BTreeSet<(u8, u8)>> = held
        .values()
        .filter(|parts| !parts.contains(&Part::Whole))
        .map(|parts| parts.iter().filter_map(fragment).filter(|(k, _)| readable.contains_key(k)).collect())
        .filter(|fragments: &BTreeSet<_>| !fragments.is_empty())
        .collect();
    let left = most_left(&others, &readable);
    // It can be read as it is, so it survives no loss at all; the lower bound may be lower than that.
    (signed(whole + others.len() - left) - 1).max(0)
}

fn fragment(part: &Part) -> Option<(u8, u8)> {
    match part {
        // No code has k = 0; whoever says so holds nothing.
        Part::Whole | Part::Fragment { k: 0, .. } => None,
        Part::Fragment { k, i } => Some((*k, *i)),
    }
}

fn signed(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The most members that can be left while no k has k distinct fragments among them.
fn most_left(members: &[BTreeSet<(u8, u8)>], readable: &BTreeMap<u8, BTreeSet<u8>>) -> usize {
    if members.iter().all(|fragments| fragments.len() == 1) {
        return most_left_of_singles(members);
    }
    let choices = readable
        .iter()
        .map(|(k, indices)| binomial(indices.len(), usize::from(*k) - 1))
        .try_fold(1usize, |all, one| all.checked_mul(one?).filter(|all| *all <= CHOICES_MAX));
    if choices.is_none() {
        // With less held, no more losses are survived: one fragment a member gives a number that is true, if not the best.
        let first: Vec<_> = members.iter().map(|fragments| fragments.iter().take(1).copied().collect()).collect();
        return most_left_of_singles(&first);
    }
    let families: Vec<(u8, Vec<u8>)> = readable.iter().map(|(k, s)| (*k, s.iter().copied().collect())).collect();
    let mut left = BTreeSet::new();
    most_left_of_choices(members, &families, &mut left)
}

/// As [`most_left`], each member having one fragment: of each k the k - 1 indices that most members hold are left.
fn most_left_of_singles(members: &[BTreeSet<(u8, u8)>]) -> usize {
    let mut holders: BTreeMap<u8, BTreeMap<u8, usize>> = BTreeMap::new();
    for (k, i) in members.iter().flatten() {
        *holders.entry(*k).or_default().entry(*i).or_default() += 1;
    }
    let left = |(k, by_index): (u8, BTreeMap<u8, usize>)| {
        let mut counts: Vec<usize> = by_index.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.into_iter().take(usize::from(k) - 1).sum::<usize>()
    };
    holders.into_iter().map(left).sum()
}

/// As [`most_left`], by trying for each k every choice of k - 1 indices that are left.
fn most_left_of_choices(
    members: &[BTreeSet<(u8, u8)>],
    families: &[(u8, Vec<u8>)],
    left: &mut BTreeSet<(u8, u8)>,
) -> usize {
    let Some(((k, indices), rest)) = families.split_first() else {
        return members.iter().filter(|fragments| fragments.is_subset(left)).count();
    };
    let size = usize::from(*k) - 1;
    let mut chosen: Vec<usize> = (0..size).collect();
    let mut best = 0;
    loop {
        let mut with: BTreeSet<(u8, u8)> = left.clone();
        with.extend(chosen.iter().filter_map(|at| indices.get(*at)).map(|i| (*k, *i)));
        best = best.max(most_left_of_choices(members, rest, &mut with));
        if !next_choice(&mut chosen, indices.len()) {
            return best;
        }
    }
}

/// Moves `chosen` to the next choice of as many out of `of`; false when it was the last.
fn next_choice(chosen: &mut [usize], of: usize) -> bool {
    let size = chosen.len();
    let Some(at) = (0..size).rev().find(|at| chosen[*at] < of - size + at) else { return false };
    chosen[at] += 1;
    for later in at + 1..size {
        chosen[later] = chosen[later - 1] + 1;
    }
    true
}

fn binomial(n: usize, k: usize) -> Option<usize> {
    let mut value = 1usize;
    for i in 0..k.min(n) {
        value = value.checked_mul(n - i)? / (i + 1);
        if value > CHOICES_MAX {
            return None;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(n: u8) -> PeerId {
        PeerId::new([n; 32])
    }
    fn held(parts: &[&[Part]]) -> Held {
        (0u8..).zip(parts).map(|(n, parts)| (member(n), parts.iter().copied().collect())).collect()
    }
    fn f(k: u8, i: u8) -> Part {
        Part::Fragment { k, i }
    }
    fn readable(parts: &BTreeSet<Part>) -> bool {
        let enough =
            |k: u8| parts.iter().filter(|p| matches!(p, Part::Fragment { k: of, .. } if *of == k)).count() >= k.into();
        parts.contains(&Part::Whole) || (1..=100).any(enough)
    }
    /// The most members of which any may be lost; -1 when it cannot be read as it is.
    fn by_brute_force(held: &Held) -> i32 {
        let members: Vec<&BTreeSet<Part>> = held.values().collect();
        let mut survived = -1;
        for lost in 0..=members.len() {
            let all_survive = (0u32..1 << members.len()).filter(|set| set.count_ones() as usize == lost).all(|set| {
                let left = members.iter().enumerate().filter(|(n, _)| set & (1 << n) == 0);
                readable(&left.flat_map(|(_, parts)| parts.iter().copied()).collect())
            });
            if !all_survive {
                break;
            }
            survived = i32::try_from(lost).unwrap();
        }
        survived
    }

    #[test]
    fn whole_copies_survive_all_but_one() {
        assert_eq!(safe(&held(&[]), Encoding::Whole), -1);
        assert_eq!(safe(&held(&[&[Part::Whole]]), Encoding::Whole), 0);
        assert_eq!(safe(&held(&[&[Part::Whole], &[Part::Whole], &[Part::Whole]]), Encoding::Whole), 2);
    }

    #[test]
    fn fragments_survive_as_many_as_there_are_above_k() {
        let encoding = Encoding::Fragments { k: 3, n: 5 };
        assert_eq!(safe(&held(&[]), encoding), -3);
        assert_eq!(safe(&held(&[&[f(3, 0)], &[f(3, 1)]]), encoding), -1);
        assert_eq!(safe(&held(&[&[f(3, 0)], &[f(3, 1)], &[f(3, 1)]]), encoding), -1);
        assert_eq!(safe(&held(&[&[f(3, 0)], &[f(3, 1)], &[f(3, 2)], &[f(3, 3)], &[f(3, 4)]]), encoding), 2);
    }

    #[test]
    fn one_member_with_several_fragments_is_still_one_member() {
        let encoding = Encoding::Fragments { k: 3, n: 5 };
        assert_eq!(safe(&held(&[&[f(3, 0), f(3, 1), f(3, 2)]]), encoding), 0);
        assert_eq!(safe(&held(&[&[f(3, 0), f(3, 1)], &[f(3, 2)], &[f(3, 3)]]), encoding), 0);
    }

    #[test]
    fn a_change_of_policy_counts_both_encodings() {
        let mixed = held(&[&[Part::Whole], &[f(2, 0)], &[f(2, 1)], &[f(2, 2)]]);
        assert_eq!(safe(&mixed, Encoding::Fragments { k: 2, n: 3 }), 2);
    }

    #[test]
    fn a_hundred_members_are_counted_at_once() {
        let many: Held = (0..100).map(|i| (member(i), BTreeSet::from([f(50, i), f(50, (i + 1) % 100)]))).collect();
        assert!((0..=50).contains(&safe(&many, Encoding::Fragments { k: 50, n: 100 })));
    }

    fn any_part() -> impl Strategy<Value = Part> {
        prop_oneof![
            1 => Just(Part::Whole),
            6 => (1u8..=3, 0u8..5).prop_map(|(k, i)| Part::Fragment { k, i }),
        ]
    }

    proptest! {
        #[test]
        fn it_is_exactly_the_losses_that_are_survived(
            parts in prop::collection::vec(prop::collection::btree_set(any_part(), 0..3), 0..8)
        ) {
            let held: Held = (0u8..).zip(parts).map(|(n, parts)| (member(n), parts)).collect();
            let f = safe(&held, Encoding::Fragments { k: 3, n: 5 });
            let true_f = by_brute_force(&held);
            prop_assert_eq!(f.max(-1), true_f);
        }

        #[test]
        fn with_one_fragment_a_member_it_is_exact(indices in prop::collection::vec((2u8..=4, 0u8..6), 0..9)) {
            let held: Held = (0u8..).zip(indices).map(|(n, (k, i))| (member(n), BTreeSet::from([f(k, i)]))).collect();
            prop_assert_eq!(safe(&held, Encoding::Whole).max(-1), by_brute_force(&held));
        }
    }
}
