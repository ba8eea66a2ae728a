//! Fragments: every holder has one of n fragments, any k of which rebuild the mail. It never decides who is lost.
//!
//! For it: to survive n - k losses it stores n / k times the mail, where full copies store n - k + 1 times it (1.67 instead of
//! 3 at 3 of 5); a reader pulls from k uplinks at once, and any k will do, so a slow or silent one is simply left out; no
//! member needs room for a whole mail, and none alone has even its ciphertext.
//!
//! Against it: a reader needs k members, not one; a small mail becomes n small files and n requests; a repair reads k
//! fragments to make one; parity costs computing, though reading with fragments 0..k present costs none.

use std::collections::{BTreeMap, BTreeSet};

use super::scheme::Scheme;
use crate::core::placement::Held;
use crate::fragment::Layout;
use crate::model::{Encoding, Part, PeerId};

/// Fragments, any `k` of `n`, one each at the first `n` members in rank.
#[derive(Debug, Clone, Copy)]
pub struct Fragments {
    /// Fragments that a reader needs.
    pub k: u8,
    /// Fragments in all.
    pub n: u8,
}

impl Scheme for Fragments {
    fn places(&self) -> usize {
        usize::from(self.n)
    }
    fn needed(&self) -> usize {
        usize::from(self.k)
    }
    fn fits(&self, part: Part) -> bool {
        matches!(part, Part::Fragment { k, i } if k == self.k && i < self.n)
    }
    fn part_bytes(&self, length: u64) -> u64 {
        let layout = Layout::new(length, Encoding::Fragments { k: self.k, n: self.n });
        layout.map_or(u64::MAX, |layout| layout.fragment_len())
    }
    fn assign(&self, placed: &[PeerId], held: &Held) -> BTreeMap<PeerId, Part> {
        let mut assigned = BTreeMap::new();
        let mut free: BTreeSet<Part> = (0..self.n).map(|i| Part::Fragment { k: self.k, i }).collect();
        // Whoever holds one keeps it; of two that hold the same, the first in rank. One that holds several has a choice, so it
        // comes after those that have none.
        let fitting =
            |member: &PeerId| held.get(member).map_or(0, |parts| parts.iter().filter(|p| self.fits(**p)).count());
        let mut by_choice: Vec<&PeerId> = placed.iter().collect();
        by_choice.sort_by_key(|member| fitting(member));
        for member in by_choice {
            let kept = held.get(member).and_then(|parts| parts.iter().find(|part| free.contains(part)));
            if let Some(part) = kept {
                free.remove(part);
                assigned.insert(*member, *part);
            }
        }
        // What none of them holds goes, lowest first, to the first without one.
        for member in placed {
            if !assigned.contains_key(member)
                && let Some(part) = free.pop_first()
            {
                assigned.insert(*member, part);
            }
        }
        assigned
    }
}
