//! What lies in the spool when a peer starts: its outbox is told of one mail after the other, and of much else between them. And when
//! it may go from there.

use roost::core::outbox::{Input, Spooled};
use roost::model::{Address, SubmissionId};

use super::checker::Rule;
use super::disk::DiskOp;
use super::failed_seeds::is_from_before;
use super::peer::{After, Tell};
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
    /// A mail leaves the spool.
    pub(crate) fn drop_spool(&mut self, p: usize, submission: SubmissionId) {
        self.check_spool_dropped(p, submission);
        self.disk(p, DiskOp::DropSpool(submission), After::Nothing);
    }

    /// R1: that is right only when for each of its receivers it is sealed, or ended, and that is durable.
    fn check_spool_dropped(&mut self, p: usize, id: SubmissionId) {
        let ledger = &self.peers[p].disk.ledger;
        let is_sealed = |receiver: &Address| {
            let mut forms = ledger.sealed.iter().map(|h| &self.truth.mails[h]);
            forms.any(|form| form.submission == id && form.receivers.contains(receiver))
        };
        let is_ended = |receiver: &Address| ledger.ended.contains_key(&(id, receiver.clone()));
        let waits = |receiver: &&Address| !is_sealed(receiver) && !is_ended(receiver);
        if let Some(receiver) = self.truth.letters[&id].receivers.iter().find(waits) {
            let why =
                format!("{} drops {id} from its spool before what it seals for {receiver} is durable", self.name(p));
            self.violate(Rule::R1, why);
        }
    }
}
