//! Members that come and go while mail flows: a peer joins and takes its share of what is held; a member leaves in good order, as
//! `roost group leave` does it: others take over what it holds first, and its own mails end; it may come back. The group's brain has
//! simulations of its own, of who signs what and who learns of it; here the descriptor is a model, and what the other brains make of it
//! is not.

use std::collections::BTreeSet;

use roost::core::{Brain, outbox};
use roost::model::group::{Member, Roster};
use roost::model::{MailId, Part, PeerId, Policy};

use super::checker::Rule;
use super::disk::{Disk, DiskOp};
use super::ending::KEPT_AFTER;
use super::failed_seeds::is_from_before;
use super::params::Params;
use super::peer::{After, Peer};
use super::rng::Rng;
use super::sabotage::Saboteur;
use super::users::UserAct;
use super::world::{Happening, World};

/// Seeds below that failed before there were such changes are played without.
const FIRST_SEED: u64 = 4_000_000;
/// A user who finds no holder of the group key tries again, milliseconds.
const AGAIN_MS: u64 = 60_000;
/// How often is looked whether a member that leaves may go.
const LOOK_MS: u64 = 30_000;
/// Members that stay, at least.
const STAY_MIN: usize = 2;

/// A change of who is in the group, and when, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new peer joins.
    Join(u64),
    /// A member leaves in good order.
    Leave(u64, usize),
    /// The acting master calls lost whom it likes, until then.
    FalseView(u64, u64),
}

/// What a member is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is made, and runs alone.
    Made(usize),
    /// It asks to be let in.
    Joins(usize),
    /// It says that it wants to leave.
    Leaves(usize),
    /// It goes if nothing is here any more that others need.
    Looks(usize),
    /// The acting master begins to lie.
    Lies,
    /// It tells the truth again.
    Tells,
    /// The group's key is replaced.
    Rotates,
    /// Who was removed hears of it.
    Hears(usize),
    /// Who holds an old one uses it.
    Forges,
}

/// The group as its newest descriptor names it.
#[derive(Debug, Clone)]
pub(crate) struct Gd {
    pub(crate) version: u64,
    pub(crate) policy: Policy,
    /// In the order of succession.
    pub(crate) members: Vec<usize>,
    pub(crate) leaving: BTreeSet<usize>,
    /// Which of its keys signed it: the first, or one that came after.
    pub(crate) key: usize,
}

impl Gd {
    /// Members besides `owner` that are not on their way out.
    pub(crate) fn others_staying(&self, owner: usize) -> usize {
        self.members.iter().filter(|m| **m != owner && !self.leaving.contains(m)).count()
    }
}

/// The changes of a run. Their chance is their own, so that all else is as without them.
pub(crate) fn draw(params: &Params) -> Vec<Change> {
    let mut rng = Rng::new(params.seed ^ 0x3e3b);
    if is_from_before(params.seed, FIRST_SEED) || !rng.chance(400) {
        return Vec::new();
    }
    some(params, &mut rng)
}

/// Some changes.
pub(crate) fn some(params: &Params, rng: &mut Rng) -> Vec<Change> {
    let many = *rng.pick(&[1, 1, 2, 3]);
    let one = |_| {
        let at = rng.below(params.faults_ms);
        if rng.chance(500) { Change::Join(at) } else { Change::Leave(at, rng.index(params.members)) }
    };
    (0..many).map(one).collect()
}

/// How many peers join.
pub(crate) fn joiners(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Join(_))).count()
}

impl World {
    /// Puts the changes into the run, and what new members mail.
    pub(crate) fn plan_members(&mut self, end: u64) {
        let mut rng = Rng::new(self.params.seed ^ 0x3e3c);
        let mut joiner = self.params.members;
        for change in self.params.changes.clone() {
            match change {
                Change::Join(at) => {
                    joiner += 1;
                    self.later(at, Happening::Group(Step::Made(joiner)));
                    self.later(at + rng.between(1, 20_000), Happening::Group(Step::Joins(joiner)));
                    for _ in 0..rng.between(1, 3) {
                        self.later(rng.between(at, end + AGAIN_MS), Happening::User(UserAct::Submit(joiner)));
                    }
                }
                Change::Leave(at, p) => self.later(at, Happening::Group(Step::Leaves(p))),
                Change::FalseView(from, until) => {
                    self.later(from, Happening::Group(Step::Lies));
                    self.later(until, Happening::Group(Step::Tells));
                }
            }
        }
    }

    /// Something happens on somebody's way into the group or out of it.
    pub(crate) fn take_step(&mut self, step: Step) {
        match step {
            Step::Made(p) => {
                self.peers[p].made = true;
                self.start(p);
            }
            Step::Joins(p) => self.joins(p),
            Step::Leaves(p) => self.leaves(p),
            Step::Looks(p) => self.looks_whether_it_may_go(p),
            Step::Lies => self.master_lies(),
            Step::Tells => self.master_tells(),
            Step::Rotates => self.rotates(),
            Step::Hears(p) => self.hears_that_it_was_removed(p),
            Step::Forges => self.forges(),
        }
    }

    /// Whether a holder of the group key hears a peer: any other member that is there.
    pub(crate) fn hears_a_holder(&self, p: usize) -> bool {
        let joined = |a: usize, b: usize| self.is_joined(a, b) && self.is_joined(b, a);
        let is_there = |m: &&usize| **m != p && self.peers[**m].is_up() && joined(p, **m);
        self.peers[p].is_up() && self.gd.members.iter().any(|m| is_there(&m))
    }

    fn joins(&mut self, p: usize) {
        if self.gd.members.contains(&p) || self.peers[p].dead {
            return;
        }
        if !self.hears_a_holder(p) {
            return self.later(AGAIN_MS, Happening::Group(Step::Joins(p)));
        }
        self.say(|w| format!("{} joins", w.name(p)));
        self.gd.members.push(p);
        self.peers[p].in_group = true;
        self.peers[p].silent_since = None;
        self.pin_at_join(p);
        self.change_group(p);
    }

    fn leaves(&mut self, p: usize) {
        let staying = self.gd.members.len() - self.gd.leaving.len();
        if !self.gd.members.contains(&p) || self.peers[p].dead || staying <= STAY_MIN {
            return;
        }
        if !self.hears_a_holder(p) {
            return self.later(AGAIN_MS, Happening::Group(Step::Leaves(p)));
        }
        self.say(|w| format!("{} is leaving", w.name(p)));
        self.gd.leaving.insert(p);
        self.change_group(p);
        if self.is(Saboteur::LeavesWithParts) {
            self.drop_all(p, |_, _| true);
        }
        self.later(LOOK_MS, Happening::Group(Step::Looks(p)));
    }

    fn looks_whether_it_may_go(&mut self, p: usize) {
        if !self.gd.leaving.contains(&p) || self.peers[p].dead || self.idle {
            return;
        }
        if !self.hears_a_holder(p) || !self.is_empty(p) {
            return self.later(LOOK_MS, Happening::Group(Step::Looks(p)));
        }
        self.say(|w| format!("{} goes", w.name(p)));
        self.check_goes(p);
        self.gd.members.retain(|m| *m != p);
        self.gd.leaving.remove(&p);
        self.peers[p].in_group = false;
        self.change_group(p);
        if self.faulty && self.rng.chance(400) {
            let pause = self.rng.between(1000, 1_200_000);
            self.later(pause, Happening::Group(Step::Joins(p)));
        }
    }

    /// What a peer shows that others need: parts, own mails that wait, and members that have not said what they know of those.
    fn shows(&self, p: usize) -> Option<(usize, usize, usize)> {
        let (brains, now) = (self.peers[p].brains.as_ref()?, self.now(p));
        let outbox: outbox::OutboxStatus = brains.outbox.observe(now);
        Some((brains.replicator.observe(now).waited_for(), outbox.waiting.max(outbox.mails), outbox.unread))
    }

    fn is_empty(&self, p: usize) -> bool {
        // What is under way to the journal comes before the word that it has left.
        self.shows(p) == Some((0, 0, 0)) && self.peers[p].commits.is_empty()
    }

    /// The group key signs the next version. The peer that it is about has it in the answer; the others hear of it.
    pub(crate) fn change_group(&mut self, p: usize) {
        self.gd.version += 1;
        self.gds.push((self.t, self.gd.clone()));
        if self.peers[p].is_up() {
            self.peers[p].roster = self.roster_for(p);
            self.tell_roster(p);
        }
        self.spread_view();
        self.note_silences();
    }

    /// What a peer knows of its group with the newest descriptor, and the view that it has.
    pub(crate) fn roster_for(&self, p: usize) -> Roster {
        let as_member = |m: usize| {
            let Peer { address, id, fingerprint, .. } = &self.peers[m];
            Member { address: address.clone(), peer_id: *id, fingerprint: *fingerprint }
        };
        if !self.gd.members.contains(&p) {
            return alone(as_member(p), self.gd.version);
        }
        let ids = |all: &BTreeSet<usize>| all.iter().map(|m| self.peers[*m].id).collect::<BTreeSet<_>>();
        let leaving = ids(&self.gd.leaving);
        let members: Vec<Member> = self.gd.members.iter().map(|m| as_member(*m)).collect();
        let is_named = |peer: &&PeerId| members.iter().any(|m| m.peer_id == **peer);
        let view: BTreeSet<PeerId> = self.peers[p].view.iter().filter(is_named).copied().collect();
        Roster {
            me: as_member(p),
            group: self.peers[p].roster.group.clone(),
            gd_version: self.gd.version,
            policy: self.gd.policy.clone(),
            members,
            lost: view.union(&leaving).copied().collect(),
            silent: view.intersection(&leaving).copied().collect(),
            leaving,
        }
    }

    /// Peers that are members, or were once.
    pub(crate) fn once_members(&self) -> impl Iterator<Item = usize> + use<> {
        let reader = self.params.members;
        (0..self.peers.len()).filter(move |p| *p != reader)
    }

    /// The other members that a peer knows of.
    pub(crate) fn others_known(&self, p: usize) -> Vec<usize> {
        self.peers[p].roster.others().map(|member| self.index(&member.peer_id)).collect()
    }

    /// Whether an address is one of the group as a peer knows it, or one outside.
    pub(crate) fn is_named(&self, p: usize, at: usize) -> bool {
        let roster = &self.peers[p].roster;
        let is_outside = at == self.params.members;
        is_outside
            || if self.peers[p].in_group { roster.has(&self.peers[at].id) } else { self.gd.members.contains(&at) }
    }

    /// Whether a peer has anybody to send to: who is in no group sends nothing.
    pub(crate) fn may_send(&self, p: usize) -> bool {
        self.peers[p].in_group || p == self.params.members
    }

    /// Whether somebody was a member and is none any more.
    pub(crate) fn has_left(&self, p: usize) -> bool {
        !self.peers[p].in_group && self.gds.iter().any(|(_, gd)| gd.members.contains(&p))
    }

    /// Whether somebody was not a member all the time.
    pub(crate) fn came_or_went(&self, p: usize) -> bool {
        p > self.params.members || self.gds.iter().any(|(_, gd)| !gd.members.contains(&p))
    }

    /// R3, R2: who leaves in good order takes nothing with it that somebody may still read.
    fn check_goes(&mut self, p: usize) {
        let lives = |h: &MailId| {
            let mail = &self.truth.mails[h];
            !self.was_tombstoned(h) && !self.is_over_for(p, mail.made, mail.expiry)
        };
        let is_going = |part: &(PeerId, MailId, Part)| {
            let mut ops = self.peers[p].ops.values();
            ops.any(|(op, _)| matches!(op, DiskOp::DropParts(parts) if parts.contains(part)))
        };
        let mut parts = self.peers[p].disk.parts.iter();
        // One with a wrong bit counts as lost already.
        let is_right = |part: &(PeerId, MailId, Part)| !self.peers[p].disk.rotten.contains_key(part);
        // What is held of one who is no member any more is handed on where somebody can take it, and not waited for without end.
        let is_owed = |part: &(PeerId, MailId, Part)| self.peers[p].roster.has(&part.0);
        let part = parts.find(|part| is_owed(part) && lives(&part.1) && is_right(part) && !is_going(part)).copied();
        if let Some((_, h, part)) = part {
            self.violate(Rule::R3, format!("{} goes with {part} of {h}", self.name(p)));
        }
        let ledger = &self.peers[p].disk.ledger;
        let open = ledger.sealed.iter().find(|h| !ledger.tombstoned.contains_key(*h)).copied();
        if let Some(h) = open {
            self.violate(Rule::R2, format!("{} goes while its mail {h} waits", self.name(p)));
        }
    }

    /// A broken member: what it holds for these goes.
    pub(crate) fn drop_all(&mut self, p: usize, is_one: impl Fn(&World, &PeerId) -> bool) {
        let parts: Vec<_> = self.peers[p].disk.parts.iter().filter(|part| is_one(self, &part.0)).copied().collect();
        for (owner, h, part) in parts {
            self.check_drop(p, owner, h, &[part]);
            self.disk(p, DiskOp::DropParts(vec![(owner, h, part)]), After::Nothing);
        }
    }

    /// What became of the group, in a few words.
    pub(crate) fn who_came_and_went(&self) -> String {
        let new = self.gd.members.iter().filter(|m| **m > self.params.members);
        let held: usize = new.clone().map(|m| self.peers[*m].disk.parts_once.len()).sum();
        let gone = self.once_members().filter(|p| self.came_or_went(*p) && !self.peers[*p].in_group).count();
        format!("{} joined and held {held} parts, {gone} went, {} want to", new.count(), self.gd.leaving.len())
    }

    /// R12: when everything has healed and everybody is there, who wanted to leave has left.
    pub(crate) fn check_left(&mut self) {
        // Of a mail of one that lies in its list nobody is sure, and one that keeps nothing takes nothing over.
        let hinders = |p: usize| self.lies_in_lists(p) || self.lies_of_parts(p);
        let is_there = |p: usize| !self.peers[p].dead && !self.peers[p].left && !hinders(p);
        let all_there = (0..self.peers.len()).all(is_there);
        // Whose own mail nobody has any more waits for who may bring it back, until it expires or is cancelled. So does who holds a
        // part of such a mail: nobody can take that over, and whoever brings back another part needs it. What is held of one who is no
        // member is not waited for without end.
        let waits = |p: usize| {
            let Disk { ledger, parts, .. } = &self.peers[p].disk;
            let own = ledger.sealed.iter().any(|h| !ledger.tombstoned.contains_key(h) && self.is_unreadable(h));
            let is_kept = |h: &MailId| self.truth.mails[h].expiry + KEPT_AFTER > self.now(p).wall;
            let is_owed = |owner: &PeerId, h: &MailId| self.peers[p].roster.has(owner) && is_kept(h);
            let is_lost = |h: &MailId| !self.was_tombstoned(h) && self.is_unreadable(h);
            own || parts.iter().any(|(owner, h, _)| is_owed(owner, h) && is_lost(h))
        };
        if let Some(p) = self.gd.leaving.iter().copied().find(|p| all_there && !waits(*p)) {
            self.violate(
                Rule::R12,
                format!("{} never gets away: parts, mails, members unread {:?}", self.name(p), self.shows(p)),
            );
        }
    }
}

/// A peer that is in no group, as it knows itself.
pub(crate) fn alone(me: Member, gd_version: u64) -> Roster {
    Roster {
        group: me.address.group().clone(),
        gd_version,
        policy: Policy::default(),
        members: vec![me.clone()],
        me,
        lost: BTreeSet::new(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    }
}
