//! Clocks that jump, by minutes or over the end of a mail's life, forwards and back; and the word of the group's brain about
//! them. While a clock is wrong nothing may expire by it (R2, R3), and nothing that was said then may outlive it (R8).

use std::time::Duration;

use roost::core::{outbox, postbox, replicator};
use roost::model::WallTime;

use super::params::Params;
use super::peer::Tell;
use super::rng::Rng;
use super::sabotage::Saboteur;
use super::world::{Happening, START, World};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// A clock further from its members' median is off.
const OFF_MS: i64 = 5 * MINUTE;
/// What a clock that counts as right may be wrong by, and what comes on top while nobody has noticed.
const SLACK_MS: u64 = 6 * 60_000;
/// Until the next heartbeat tells how clocks stand.
pub(crate) const BEAT_MS: u64 = 10_000;
/// A peer that hears nobody for so long takes its clock to be right.
const ALONE_MS: u64 = 60_000;
/// How long a clock that was heard counts.
const HEARD_MS: u64 = 600_000;

/// A clock that is set wrong, and set right again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jump {
    p: usize,
    from: u64,
    until: u64,
    by: i64,
}

/// The jumps of a run.
pub(crate) fn draw(params: &Params) -> Vec<Jump> {
    let mut rng = Rng::new(params.seed ^ 0xc10c);
    if !rng.chance(250) {
        return Vec::new();
    }
    let jumps = (0..rng.between(1, 2)).map(|_| {
        let from = rng.below(params.faults_ms);
        let until = rng.between(from, params.faults_ms);
        let by = *rng.pick(&[4 * MINUTE, 20 * MINUTE, 3 * HOUR, 8 * DAY, 45 * DAY]);
        let by = if rng.chance(350) { -by } else { by };
        Jump { p: rng.index(params.members), from, until, by }
    });
    jumps.collect()
}

/// A member's clock far beyond every expiry, for long: what a broken member is tried with.
pub(crate) fn far_ahead(params: &Params) -> Vec<Jump> {
    vec![Jump { p: 1, from: params.faults_ms / 2, until: params.faults_ms, by: 45 * DAY }]
}

impl World {
    /// Puts the jumps into the run.
    pub(crate) fn plan_jumps(&mut self) {
        for Jump { p, from, until, by } in self.params.jumps.clone() {
            self.later(from, Happening::Jumps(p, by));
            self.later(until, Happening::Jumps(p, -by));
        }
    }

    /// A clock is set.
    pub(crate) fn jumps(&mut self, p: usize, by: i64) {
        self.say(|w| format!("the clock of {} jumps by {} s", w.name(p), by / 1000));
        self.note_fooled(p);
        self.peers[p].skew += by;
        // The brains see that a clock was set as soon as they look at it.
        self.peers[p].trusts &= by.abs() <= OFF_MS;
        (self.peers[p].unsure_since, self.peers[p].clock_off) = (Some(self.t), false);
        // The clock of one who was removed is set like another's, and nobody else hears it.
        let alone = self.peers[p].removed.then_some(p);
        for other in self.gd.members.clone().into_iter().chain(alone) {
            self.compare_clock_soon(other);
        }
    }

    /// The time that it really is.
    pub(crate) fn true_wall(&self) -> WallTime {
        WallTime(START + self.t)
    }
    /// The wall time that a peer reads.
    pub(crate) fn wall(&self, p: usize) -> WallTime {
        WallTime((START + self.t).saturating_add_signed(self.peers[p].skew))
    }

    /// Until a member is heard, or none was for a minute, a clock that was set is doubtful, and so is that of a start. The next
    /// heartbeats tell how it stands, and so do those after which nobody's word from before counts any more.
    pub(crate) fn compare_clock_soon(&mut self, p: usize) {
        if self.params.jumps.is_empty() {
            return;
        }
        let life = self.peers[p].life;
        let beat = self.rng.between(1, BEAT_MS);
        for delay in [beat, beat + BEAT_MS, ALONE_MS + beat, HEARD_MS + beat] {
            self.later(delay, Happening::ComparesClock { p, life });
        }
    }

    /// One who is no member any more has none to compare its clock with: what was found before holds no longer.
    pub(crate) fn forget_clocks(&mut self, p: usize) {
        if !self.params.jumps.is_empty() {
            (self.peers[p].unsure_since, self.peers[p].clock_off) = (None, false);
            self.compare_clock(p);
        }
    }

    /// What the group's brain says of a peer's clock.
    pub(crate) fn compare_clock(&mut self, p: usize) {
        if !self.is_clock_doubtful(p) {
            return self.trust_clock(p);
        }
        self.distrust_clock(p);
        self.tell_clock(p, !self.is(Saboteur::ExpiresByAnyClock));
    }

    /// What a peer thinks of its clock that just started.
    pub(crate) fn start_clock(&mut self, p: usize) {
        if self.params.jumps.is_empty() || !self.peers[p].in_group && !self.peers[p].removed {
            return self.trust_clock(p);
        }
        self.distrust_clock(p);
        (self.peers[p].unsure_since, self.peers[p].clock_off) = (Some(self.t), false);
        self.compare_clock_soon(p);
    }

    /// A peer takes its clock for right, as whoever is in no group does at its start. It cannot know that all that it hears is wrong,
    /// or that nobody is there who could tell. By one that is ahead it takes for over what lives; by one that is behind nothing.
    pub(crate) fn trust_clock(&mut self, p: usize) {
        self.peers[p].trusts = true;
        self.note_fooled(p);
        self.tell_clock(p, false);
    }

    /// What a peer's clock says, if it is ahead and taken for right.
    fn says_ahead(&self, p: usize) -> Option<WallTime> {
        (self.peers[p].trusts && self.peers[p].skew > OFF_MS).then(|| self.wall(p))
    }

    /// Before that changes.
    fn note_fooled(&mut self, p: usize) {
        let Some(said) = self.says_ahead(p) else { return };
        let fooled = &mut self.peers[p].fooled;
        fooled.retain(|(before, _)| *before > said);
        fooled.push((said, self.t));
    }

    /// A peer does not go by its clock any more, also while it is down: what that says then fools nobody.
    pub(crate) fn distrust_clock(&mut self, p: usize) {
        self.note_fooled(p);
        self.peers[p].trusts = false;
    }

    /// Tells the brains whether their clock is doubtful.
    pub(crate) fn tell_clock(&mut self, p: usize, doubtful: bool) {
        self.tell(p, Tell::Postbox(postbox::Input::ClockDoubtful(doubtful)));
        self.tell(p, Tell::Replicator(replicator::Input::ClockDoubtful(doubtful)));
        self.tell(p, Tell::Outbox(outbox::Input::ClockDoubtful(doubtful)));
    }

    /// Whether a clock is too far from the median of those that can be heard, the own among them, or was not compared yet. Nobody
    /// answers one who was removed: it hears no clock but its own.
    fn is_clock_doubtful(&mut self, p: usize) -> bool {
        let mine = self.peers[p].skew;
        let is_answered = !self.peers[p].removed;
        let joined = |other: usize| is_answered && self.is_joined(p, other) && self.is_joined(other, p);
        let heard = self.gd.members.iter().copied().filter(|m| *m != p && self.peers[*m].is_up() && joined(*m));
        let mut offsets: Vec<i64> = heard.map(|other| self.peers[other].skew - mine).collect();
        let (agrees, alone) = (offsets.iter().any(|offset| offset.abs() <= OFF_MS), offsets.is_empty());
        let now = self.t;
        let peer = &mut self.peers[p];
        let waited = peer.unsure_since.is_some_and(|since| now - since >= ALONE_MS);
        if agrees || (alone && waited) {
            peer.unsure_since = None;
        }
        // While nobody is heard, what was found before stands.
        if !alone {
            offsets.push(0);
            offsets.sort_unstable();
            let middle = offsets.len() / 2;
            let even = offsets.len().is_multiple_of(2);
            let median = if even { i64::midpoint(offsets[middle - 1], offsets[middle]) } else { offsets[middle] };
            peer.clock_off = median.abs() > OFF_MS;
        }
        peer.clock_off || peer.unsure_since.is_some()
    }

    /// Whether a peer was found to be off, and then everybody died whom it could compare its clock with: it expires nothing, and says so.
    pub(crate) fn is_left_in_doubt(&self, p: usize) -> bool {
        let is_heard = |m: &usize| *m != p && self.peers[*m].is_up();
        self.peers[p].clock_off && !self.gd.members.iter().any(is_heard)
    }

    /// Whether something is over that is there since `made` and ends at `expiry`, or a peer must think so, which nobody told better.
    pub(crate) fn is_over_for(&self, p: usize, made: u64, expiry: WallTime) -> bool {
        expiry <= self.true_wall() + Duration::from_millis(SLACK_MS) || self.is_fooled_about(p, made, expiry)
    }

    /// Whether a peer may have taken for over, by a clock that is ahead, what ends at `expiry`. What was made after that clock was right
    /// again, or in doubt, it never saw by it.
    pub(crate) fn is_fooled_about(&self, p: usize, made: u64, expiry: WallTime) -> bool {
        let now = self.says_ahead(p).map(|said| (said, self.t));
        let mut fooled = self.peers[p].fooled.iter().copied().chain(now);
        fooled.any(|(said, until)| made <= until && expiry <= said + Duration::from_millis(SLACK_MS))
    }
}
