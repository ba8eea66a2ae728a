//! What lies in the spool when a peer starts: its outbox is told of one mail after the other, and of much else between them.

use roost::core::outbox::{Input, Spooled};

use super::failed_seeds::is_from_before;
use super::peer::Tell;
use super::rng::Rng;
use super::world::World;

/// Of a thousand starts, how many take a while for that.
const SLOW: u64 = 500;

impl World {
    /// Tells the outbox of a peer that starts what is in its spool: at once, or each at a moment of its own while the peer lives. Their
    /// chance is their own, so that all else is as without it.
    pub(crate) fn tell_spooled(&mut self, p: usize, waiting: Vec<Spooled>) {
        let seed = self.params.seed;
        let start = (u64::try_from(p).unwrap() << 32) ^ (self.peers[p].life << 40);
        let mut rng = Rng::new(seed ^ 0x5b001 ^ start);
        let is_slow = !is_from_before(seed, u64::MAX) && rng.chance(SLOW);
        let most = *rng.pick(&[100, 1000, 8000]);
        for spooled in waiting {
            let told = Tell::Outbox(Input::Submitted { token: None, spooled });
            if is_slow {
                self.tell_later(p, rng.below(most), told);
            } else {
                self.tell(p, told);
            }
        }
    }
}
