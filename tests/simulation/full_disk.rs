//! Disks that are full for a while: files are refused, the journal waits, and nothing is said to be there that is not (R1, R9).

use roost::core::outbox::{self, SealFailure};
use roost::core::postbox::{self, io::OpenResult};
use roost::core::replicator::{self, MirrorFailure};

use super::disk::DiskOp;
use super::params::Params;
use super::peer::{After, Tell};
use super::rng::Rng;
use super::sabotage::Saboteur;
use super::world::World;

/// A disk without room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Full {
    p: usize,
    from: u64,
    until: u64,
}

/// The full disks of a run.
pub(crate) fn draw(params: &Params) -> Vec<Full> {
    let mut rng = Rng::new(params.seed ^ 0xf111);
    if rng.chance(200) { some(params, &mut rng) } else { Vec::new() }
}

/// Some full disks.
pub(crate) fn some(params: &Params, rng: &mut Rng) -> Vec<Full> {
    let one = |_| {
        let from = rng.below(params.faults_ms);
        let until = (from + rng.between(1_000, 1_800_000)).min(params.faults_ms);
        Full { p: rng.index(params.members + 1), from, until }
    };
    (0..2).map(one).collect()
}

fn why() -> String {
    "the disk is full".to_owned()
}

/// What is told instead of what would have been, had there been room.
fn instead(after: Tell) -> Option<Tell> {
    Some(match after {
        Tell::Outbox(outbox::Input::Sealed { submission, receivers, .. }) => {
            let receivers = receivers.into_iter().map(|receiver| receiver.address).collect();
            Tell::Outbox(outbox::Input::SealFailed { submission, receivers, why: SealFailure::Again(why()) })
        }
        Tell::Outbox(outbox::Input::Reencoded { h, encoding, .. }) => {
            Tell::Outbox(outbox::Input::Reencoded { h, encoding, result: Err(why()) })
        }
        Tell::Outbox(outbox::Input::Recovered { h, .. }) => {
            Tell::Outbox(outbox::Input::Recovered { h, result: Err(why()) })
        }
        Tell::Replicator(replicator::Input::Mirrored { owner, mut results }) => {
            results.iter_mut().for_each(|one| one.result = Err(MirrorFailure::DiskFull));
            Tell::Replicator(replicator::Input::Mirrored { owner, results })
        }
        Tell::Postbox(postbox::Input::Written { key, .. }) => {
            Tell::Postbox(postbox::Input::WriteFailed { key, why: why() })
        }
        Tell::Postbox(postbox::Input::Opened { key, .. }) => {
            Tell::Postbox(postbox::Input::Opened { key, result: OpenResult::Failed(why()) })
        }
        _ => return None,
    })
}

impl World {
    /// Until when the disk of a peer is full, if it is.
    pub(crate) fn full_until(&self, p: usize) -> Option<u64> {
        let now = self.t;
        self.params
            .full
            .iter()
            .filter(|full| full.p == p && full.from <= now && now < full.until)
            .map(|f| f.until)
            .max()
    }

    /// A change of the files for which there is no room; the same change back when there is.
    pub(crate) fn refuse_write(&mut self, p: usize, op: DiskOp, after: After) -> Option<(DiskOp, After)> {
        let needs_room = matches!(
            op,
            DiskOp::Spool(_)
                | DiskOp::Blob(..)
                | DiskOp::Manifest(..)
                | DiskOp::Part(..)
                | DiskOp::File(..)
                | DiskOp::Body(..)
        );
        if !needs_room || self.full_until(p).is_none() {
            return Some((op, after));
        }
        self.say(|w| format!("the disk of {} is full: {op:?}", w.name(p)));
        match after {
            // The mail program is told to come again.
            After::Submit(_) | After::Nothing => {}
            After::Tell(tell) if self.is(Saboteur::HoldsWithoutRoom) => self.tell_later(p, 2, *tell),
            After::Tell(tell) => {
                if let Some(failed) = instead(*tell) {
                    self.tell_later(p, 2, failed);
                }
            }
        }
        None
    }
}
