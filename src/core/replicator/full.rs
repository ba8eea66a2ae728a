//! Full: every holder has the whole sealed mail. It never splits anything.
//!
//! For it: a holder serves the mail alone and at once, in any range; a repair reads one copy and nothing is computed; what a
//! small mail costs is a file and one request, not n of them; a lost member never makes two others matter.
//!
//! Against it: to survive f losses it stores f + 1 times the mail, where fragments store (k + f) / k times it; a reader is
//! only as fast as the holders it splits its ranges over, and every holder must have room for the largest mail.

use std::collections::BTreeMap;

use super::scheme::Scheme;
use crate::core::placement::Held;
use crate::model::{Part, PeerId};

/// `copies` whole copies, at the first `copies` members in rank.
#[derive(Debug, Clone, Copy)]
pub struct Full {
    /// Members that hold one, the owner not counted.
    pub copies: usize,
}

impl Scheme for Full {
    fn places(&self) -> usize {
        self.copies
    }
    fn needed(&self) -> usize {
        1
    }
    fn fits(&self, part: Part) -> bool {
        part == Part::Whole
    }
    fn part_bytes(&self, length: u64) -> u64 {
        length
    }
    fn assign(&self, placed: &[PeerId], _: &Held) -> BTreeMap<PeerId, Part> {
        placed.iter().map(|member| (*member, Part::Whole)).collect()
    }
}
