//! An acting master that lies about who is lost: members that are there are called lost, some or all, for as long as it acts and
//! lies. Whoever follows it tells the truth, as `core::group` sees to. It may cost work and extra copies, and no mail.

use std::collections::BTreeSet;

use roost::model::PeerId;

use super::failed_seeds::is_from_before;
use super::members::Change;
use super::params::Params;
use super::rng::Rng;
use super::world::World;

/// Seeds below that failed before there were such lies are played without.
const FIRST_SEED: u64 = 8_000_000;

/// Whom somebody calls lost.
#[derive(Debug, Clone)]
pub(crate) struct FalseView {
    by: usize,
    lost: BTreeSet<PeerId>,
}

/// The false views of a run. Their chance is their own, so that all else is as without them.
pub(crate) fn draw(params: &Params) -> Vec<Change> {
    let mut rng = Rng::new(params.seed ^ 0x71e3);
    if is_from_before(params.seed, FIRST_SEED) || !rng.chance(250) {
        return Vec::new();
    }
    let one = |_| {
        let from = rng.below(params.faults_ms);
        Change::FalseView(from, rng.between(from, params.faults_ms))
    };
    (0..*Rng::new(params.seed ^ 0x71e4).pick(&[1, 1, 2])).map(one).collect()
}

impl World {
    /// The acting master begins to lie, while it acts.
    pub(crate) fn master_lies(&mut self) {
        let Some(by) = self.acting_master() else { return };
        let share = *self.rng.pick(&[200, 400, 1000]);
        let members = self.gd.members.clone();
        let called: Vec<usize> = members.into_iter().filter(|_| self.rng.chance(share)).collect();
        self.say(|w| format!("{} says that {called:?} are lost", w.name(by)));
        let lost = called.into_iter().map(|m| self.peers[m].id).collect();
        self.false_view = Some(FalseView { by, lost });
        self.spread_view();
    }

    /// It tells the truth again.
    pub(crate) fn master_tells(&mut self) {
        self.false_view = None;
        self.spread_view();
    }

    /// Whom the acting master falsely calls lost, if it lies.
    pub(crate) fn falsely_lost(&self) -> Option<&BTreeSet<PeerId>> {
        let acting = self.acting_master();
        self.false_view.as_ref().filter(|view| acting == Some(view.by)).map(|view| &view.lost)
    }
}
