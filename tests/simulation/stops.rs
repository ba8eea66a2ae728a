//! Peers that are stopped in order, and started again: what was under way is on the disk by then, and what such a disk says of its own
//! list is all, as far as its peer knew (R7).

use roost::core::{Brain, Token, outbox};
use roost::wire;

use super::disk::Record;
use super::params::Params;
use super::peer::{Brains, Tell};
use super::rng::Rng;
use super::world::{Happening, World};

/// The stops of a run: when, milliseconds, and whose. Their chance is their own, so that all else is as without them.
pub(crate) fn draw(params: &Params) -> Vec<(u64, usize)> {
    let mut rng = Rng::new(params.seed ^ 0x5709);
    if !rng.chance(250) {
        return Vec::new();
    }
    (0..rng.between(1, 4)).map(|_| (rng.below(params.faults_ms), rng.index(params.members + 1))).collect()
}

impl World {
    /// Puts the stops into the run.
    pub(crate) fn plan_stops(&mut self) {
        for (at, p) in self.params.stops.clone() {
            self.later(at, Happening::Stops(p));
        }
    }

    /// A peer is stopped in order. One whose disk is full stops as if the power failed: its journal has no room for that.
    pub(crate) fn stops(&mut self, p: usize) {
        let life = self.peers[p].life;
        if !self.peers[p].is_up() {
            return;
        }
        if self.full_until(p).is_none() {
            self.say(|w| format!("{} stops in order", w.name(p)));
            // Nobody waits for the answer: what is under way is written below.
            self.tell(p, Tell::Outbox(outbox::Input::Stopping { token: Token(u64::MAX) }));
            if self.peers[p].life != life || !self.peers[p].is_up() {
                return;
            }
            for (op, _) in std::mem::take(&mut self.peers[p].ops).into_values() {
                self.peers[p].disk.apply(op);
            }
            let commits = std::mem::take(&mut self.peers[p].commits);
            for record in commits.into_iter().flat_map(|commit| commit.records) {
                self.append(p, record);
            }
        }
        self.crash(p);
    }
    /// The journal is compacted: what the brains know now takes the place of all that they ever wrote.
    pub(crate) fn compact(&mut self, p: usize, brains: &Brains) {
        let outbox = brains.outbox.snapshot().into_iter().map(|e| Record::Outbox(wire::encode(&e)));
        let replicator = brains.replicator.snapshot().into_iter().map(|e| Record::Replicator(wire::encode(&e)));
        let postbox = brains.postbox.snapshot().into_iter().map(|e| Record::Postbox(wire::encode(&e)));
        let group = brains.group.iter().flat_map(Brain::snapshot).map(|e| Record::Group(wire::encode(&e)));
        let journal: Vec<Record> = outbox.chain(replicator).chain(postbox).chain(group).collect();
        journal.iter().for_each(|record| self.check_written(p, record));
        self.peers[p].disk.journal = journal;
    }
}
