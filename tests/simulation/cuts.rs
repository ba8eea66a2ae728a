//! Ways between two peers that are cut: in one direction only, or between two that everybody else reaches. And what the group
//! makes of it: who hears whom, who is silent, who learns of the view.

use std::collections::BTreeSet;

use super::params::Params;
use super::rng::Rng;
use super::world::{Happening, World};

/// What is cut, and when.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// From then, milliseconds.
    from: u64,
    /// Until then.
    until: u64,
    /// Who does not reach whom.
    ways: BTreeSet<(usize, usize)>,
}

/// The cuts of a run.
pub(crate) fn draw(params: &Params) -> Vec<Cut> {
    let mut rng = Rng::new(params.seed ^ 0xc07);
    if !rng.chance(350) {
        return Vec::new();
    }
    (0..rng.between(1, 3)).map(|_| one(&mut rng, params)).collect()
}

fn one(rng: &mut Rng, params: &Params) -> Cut {
    let peers = params.members + 1;
    let from = rng.below(params.faults_ms);
    let until = rng.between(from, params.faults_ms);
    let a = rng.index(peers);
    let b = (a + 1 + rng.index(peers - 1)) % peers;
    let others = || (0..peers).filter(|other| *other != a);
    let ways = match rng.index(4) {
        // One does not reach another, but is reached by it.
        0 => [(a, b)].into(),
        // Two do not reach each other, but all others.
        1 => [(a, b), (b, a)].into(),
        // One is heard by nobody, but hears all.
        2 => others().map(|other| (a, other)).collect(),
        // One hears nobody, but is heard by all.
        _ => others().map(|other| (other, a)).collect(),
    };
    Cut { from, until, ways }
}

impl World {
    /// Puts the cuts into the run.
    pub(crate) fn plan_cuts(&mut self) {
        for Cut { from, until, ways } in self.params.cuts.clone() {
            self.later(from, Happening::Cut(ways.clone()));
            self.later(until, Happening::Mend(ways));
        }
    }

    /// Ways are cut.
    pub(crate) fn cut(&mut self, ways: BTreeSet<(usize, usize)>) {
        self.say(|_| format!("cut are {ways:?}"));
        for way in ways {
            *self.cuts.entry(way).or_default() += 1;
        }
        self.note_silences();
    }

    /// They are ways again, as far as no other cut holds.
    pub(crate) fn mend(&mut self, ways: &BTreeSet<(usize, usize)>) {
        self.say(|_| format!("mended are {ways:?}"));
        for way in ways {
            let left = self.cuts.get(way).map_or(0, |n| n.saturating_sub(1));
            if left == 0 {
                self.cuts.remove(way);
            } else {
                self.cuts.insert(*way, left);
            }
        }
        self.note_silences();
        for (a, b) in ways {
            self.hear_of_each_other(*a, *b);
            self.compare_clock_soon(*a);
        }
    }

    /// Whether what `a` sends arrives at `b`.
    pub(crate) fn is_joined(&self, a: usize, b: usize) -> bool {
        self.peers[a].side == self.peers[b].side && !self.cuts.contains_key(&(a, b))
    }
    fn is_joined_both_ways(&self, a: usize, b: usize) -> bool {
        self.is_joined(a, b) && self.is_joined(b, a)
    }

    /// A peer is there or not, and on which side.
    pub(crate) fn note_presence(&mut self, p: usize) {
        let side = self.peers[p].is_up().then_some(self.peers[p].side);
        let all = self.truth.presence.entry(p).or_default();
        if all.last().is_none_or(|(_, before)| *before != side) {
            all.push((self.t, side));
        }
    }

    /// Whether two peers were both there, on one side, for so long at a stretch since then.
    pub(crate) fn were_together(&self, a: usize, b: usize, since: u64, long: u64) -> bool {
        self.lasted(&[a, b], since, long, |sides| sides[0].is_some() && sides[0] == sides[1])
    }
    /// Whether a peer was there, on the DHT's side, for so long at a stretch since then.
    pub(crate) fn reached_dht(&self, p: usize, since: u64, long: u64) -> bool {
        self.lasted(&[p], since, long, |sides| sides[0] == Some(0))
    }

    /// Whether something was true of where peers were for so long at a stretch since then.
    fn lasted(&self, peers: &[usize], since: u64, long: u64, is_so: impl Fn(&[Option<u8>]) -> bool) -> bool {
        let all = |p: &usize| self.truth.presence.get(p).into_iter().flatten();
        let at = |p: &usize, t: u64| all(p).take_while(|(from, _)| *from <= t).last().and_then(|(_, side)| *side);
        let changes = peers.iter().flat_map(all).map(|(t, _)| *t).filter(|t| *t > since);
        let turns: BTreeSet<u64> = changes.chain([since, self.t]).collect();
        let mut from = None;
        for t in turns {
            if from.is_some_and(|from| t - from >= long) {
                return true;
            }
            let sides: Vec<Option<u8>> = peers.iter().map(|p| at(p, t)).collect();
            from = if is_so(&sides) { from.or(Some(t)) } else { None };
        }
        false
    }

    /// The first member that is there and that half of the others hear: it says who counts as lost.
    pub(crate) fn acting_master(&self) -> Option<usize> {
        let there = |p: &usize| self.peers[*p].is_up() && self.peers[*p].side == 0;
        let all: Vec<usize> = self.gd.members.iter().copied().filter(there).collect();
        let hear = |p: usize| all.iter().filter(|other| self.is_joined_both_ways(p, **other)).count();
        all.iter().copied().find(|p| self.cuts.is_empty() || hear(*p) * 2 > all.len()).or(all.first().copied())
    }

    /// Whether a member is not heard by the acting master.
    pub(crate) fn is_silent(&self, p: usize) -> bool {
        let peer = &self.peers[p];
        let unheard = |master| master != p && !self.is_joined_both_ways(p, master);
        !peer.is_up() || peer.side != 0 || self.acting_master().is_some_and(unheard)
    }

    /// Whether the view of the acting master reaches a member, straight or over another one.
    pub(crate) fn learns_of_view(&self, p: usize) -> bool {
        let Some(master) = self.acting_master() else { return false };
        let joined = |a: usize, b: usize| a == b || self.is_joined_both_ways(a, b);
        let is_between = |other: usize| self.peers[other].is_up() && joined(p, other) && joined(other, master);
        self.peers[p].is_up() && (joined(p, master) || self.gd.members.iter().copied().any(is_between))
    }

    /// A peer is there, or not any more: where ways are cut, that changes who hears whom.
    pub(crate) fn note_silences_by(&mut self, p: usize) {
        if self.cuts.is_empty() { self.note_silence(p) } else { self.note_silences() }
    }

    /// Who is silent may have changed for everybody.
    pub(crate) fn note_silences(&mut self) {
        for p in 0..self.peers.len() {
            self.note_silence(p);
        }
    }
}
