//! Bits that flip on disks, in parts that members hold and in mails that are being pulled: found by checks of the disk, by audits
//! and by whoever reads, and made good from others (R6, R8, R12). A part with a wrong bit counts as one that its holder lost.

use roost::model::{MailId, Part, PeerId};

use super::rng::Rng;
use super::world::{Happening, World};

/// How often held parts are checked in a run in which bits flip: several times while holdings reach their target.
pub(crate) const SCRUB_EVERY_MS: u64 = 40 * 60_000;

/// How many bits flip in a run.
pub(crate) fn draw(seed: u64) -> u64 {
    let mut rng = Rng::new(seed ^ 0xb17);
    if rng.chance(300) { rng.between(1, 5) } else { 0 }
}

impl World {
    /// Draws when bits flip.
    pub(crate) fn plan_rot(&mut self, end: u64) {
        let mut rng = Rng::new(self.params.seed ^ 0xb18);
        for _ in 0..self.params.rots {
            let p = rng.index(self.peers.len());
            self.later(rng.between(end / 4, end), Happening::Rots(p));
        }
    }

    /// A bit flips: in a block of a mail that is being pulled, or of a part.
    pub(crate) fn rots(&mut self, p: usize) {
        let disk = &self.peers[p].disk;
        let pulled: Vec<(MailId, (u64, u8))> =
            disk.fetched.iter().flat_map(|(h, blocks)| blocks.keys().map(|at| (*h, *at))).collect();
        let parts: Vec<(PeerId, MailId, Part)> =
            disk.parts.iter().filter(|part| !disk.rotten.contains_key(*part)).copied().collect();
        if !pulled.is_empty() && (parts.is_empty() || self.rng.chance(300)) {
            let (h, at) = *self.rng.pick(&pulled);
            self.say(|w| format!("a bit of {h} flips that {} is pulling", w.name(p)));
            self.peers[p].disk.fetched.entry(h).or_default().insert(at, false);
        } else if !parts.is_empty() {
            let part = *self.rng.pick(&parts);
            let stripe = self.rng.below(self.truth.mails[&part.1].layout_of(part.2).stripes());
            self.say(|w| format!("a bit of {} of {} flips at {}", part.2, part.1, w.name(p)));
            self.peers[p].disk.rotten.insert(part, stripe);
            self.peers[p].disk.rotted.insert(part);
        }
    }

    /// Whether a block that a peer serves is as it was: `part` is what it has on its disk.
    pub(crate) fn is_block_right(&self, p: usize, part: &(PeerId, MailId, Part), stripe: u64) -> bool {
        self.peers[p].disk.rotten.get(part) != Some(&stripe)
    }
    /// Whether a peer has a part of this mail in which a bit flipped.
    pub(crate) fn has_rot(&self, p: usize, owner: PeerId, h: &MailId) -> bool {
        self.peers[p].disk.rotten.keys().any(|(o, of, _)| (*o, of) == (owner, h))
    }
}
