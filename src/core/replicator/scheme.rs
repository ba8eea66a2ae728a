//! What full copies and fragments have in common: the one trait behind which each keeps its parts. It never does IO.

use std::collections::BTreeMap;

use super::fragments::Fragments;
use super::full::Full;
use crate::core::placement::Held;
use crate::model::{Encoding, Part, PeerId};

/// How the parts of one mail are spread over the members that placement names.
pub trait Scheme {
    /// How many members hold a part.
    fn places(&self) -> usize;
    /// How many distinct parts a reader needs.
    fn needed(&self) -> usize;
    /// Whether a part is of this kind; one that is not is left from an earlier encoding.
    fn fits(&self, part: Part) -> bool;
    /// Bytes that one part of a mail of `length` bytes takes on a disk.
    fn part_bytes(&self, length: u64) -> u64;
    /// Which of the placed members, given in rank, holds what (DESIGN.md section 6, placement).
    fn assign(&self, placed: &[PeerId], held: &Held) -> BTreeMap<PeerId, Part>;
}

/// The scheme of an encoding; `whole_copies` members hold a mail that is kept whole.
pub fn scheme(encoding: Encoding, whole_copies: usize) -> Box<dyn Scheme> {
    match encoding {
        Encoding::Whole => Box::new(Full { copies: whole_copies }),
        Encoding::Fragments { k, n } => Box::new(Fragments { k, n }),
    }
}

/// Whether k and n of an encoding that came from elsewhere are possible.
pub fn is_possible(encoding: Encoding) -> bool {
    match encoding {
        Encoding::Whole => true,
        // With k = 1 each fragment would be the mail itself, and readers ask for that as a whole copy.
        Encoding::Fragments { k, n } => k >= 2 && k <= n && n <= crate::model::policy::MEMBERS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_of_which_one_is_enough_are_not_possible() {
        assert!(is_possible(Encoding::Fragments { k: 2, n: 3 }));
        assert!(!is_possible(Encoding::Fragments { k: 1, n: 3 }) && !is_possible(Encoding::Fragments { k: 3, n: 2 }));
    }
}
