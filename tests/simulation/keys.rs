//! The key of the group is replaced while mail flows: a member is removed, mostly one that is lost for good, or the recovery code is
//! used. Each peer has what `core::group` pins and follows, told of newer descriptors as its shell would be: a member by heartbeats,
//! anybody by a look into the DHT and at members that it reaches. An ns names the key by which its sender goes, and is judged by what
//! its reader has pinned (R11); nobody's mail may wait for ever or be refused for it (R2). One that holds an old key signs with it what
//! is not true.

use roost::core::group::{self, Action, Claim, GdFound, Group, Input, Known, Me, Reply, SignedGd, Standing, judge};
use roost::core::postbox::io::NsFrom;
use roost::core::{Brain, Effect, Token};
use roost::model::group::{GroupDescriptor, Member, PROTOCOL};
use roost::model::{Fingerprint, GroupName, Secret, SubmissionId, WallTime};
use roost::wire;
use serde_bytes::ByteBuf;

use super::checker::Rule;
use super::dht::{DhtOp, DhtValue};
use super::disk::{Record, SealedNs};
use super::failed_seeds::is_from_before;
use super::members::{Gd, Step};
use super::network::Answer;
use super::params::Params;
use super::peer::{Tell, Waiter, Wish};
use super::rng::Rng;
use super::sabotage::Saboteur;
use super::world::{Happening, START, World};

/// Seeds below that failed before keys were replaced are played without.
const FIRST_SEED: u64 = 8_000_000;
/// Until somebody tries again to have the key replaced, milliseconds.
const AGAIN_MS: u64 = 60_000;
/// A descriptor lies in the DHT for so long, milliseconds.
const LIES_MS: u64 = 86_400_000;
/// Who holds an old key uses it after so long, milliseconds: at once, and when readers have looked for a newer descriptor.
const FORGED_MS: [u64; 3] = [60_000, 4_200_000, 8_000_000];
/// Members that stay, at least.
const STAY_MIN: usize = 3;
/// Of a thousand times that nobody is lost, how often one who is there is removed.
const LIVE_REMOVED: u64 = 400;
/// The key of who is none of all.
const STRANGER: [u8; 20] = [66; 20];

/// The nth key of the group.
pub(crate) fn group_key(n: usize) -> Fingerprint {
    let mut bytes = [3; 20];
    bytes[0] += u8::try_from(n).unwrap();
    Fingerprint::new(bytes)
}

/// When the key is replaced in a run, milliseconds. The chance is its own, so that all else is as without it.
pub(crate) fn draw(params: &Params) -> Vec<u64> {
    let mut rng = Rng::new(params.seed ^ 0x6b31);
    if is_from_before(params.seed, FIRST_SEED) || !rng.chance(300) {
        return Vec::new();
    }
    (0..*rng.pick(&[1, 1, 2, 3])).map(|_| rng.below(params.faults_ms)).collect()
}

fn acme() -> GroupName {
    "acme".parse().unwrap()
}

impl World {
    /// Whether the keys of this run are played.
    pub(crate) fn has_keys(&self) -> bool {
        !self.params.rotations.is_empty()
    }

    /// What a peer pins when its home is made, and when the key is replaced.
    pub(crate) fn plan_keys(&mut self) {
        if !self.has_keys() {
            return;
        }
        for p in 0..self.peers.len() {
            if self.peers[p].in_group || self.truth.contacts.contains(&(p, 0)) {
                let records =
                    self.first_pin(0).iter().map(|event| Record::Group(wire::encode(event))).collect::<Vec<_>>();
                self.peers[p].disk.journal.extend(records);
            }
        }
        for at in self.params.rotations.clone() {
            self.later(at, Happening::Group(Step::Rotates));
        }
    }

    /// The brain that pins, as a peer starts.
    pub(crate) fn new_group(&self, p: usize) -> Option<Group> {
        let peer = &self.peers[p];
        let member = Member { address: peer.address.clone(), peer_id: peer.id, fingerprint: peer.fingerprint };
        let (certificate, addrs, key) = (peer.fingerprint.as_bytes().to_vec().into(), Vec::new(), peer.key.clone());
        self.has_keys().then(|| Group::new(Me { member, certificate, addrs, key }))
    }

    /// A descriptor with its signature: `key` is the number of the key.
    fn signed(&self, gd: &Gd) -> SignedGd {
        let member = |m: &usize| {
            let peer = &self.peers[*m];
            Member { address: peer.address.clone(), peer_id: peer.id, fingerprint: peer.fingerprint }
        };
        let descriptor = GroupDescriptor {
            group: acme(),
            version: gd.version,
            members: gd.members.iter().map(member).collect(),
            policy: gd.policy.clone(),
            key_holders: gd.members.iter().map(|m| self.peers[*m].address.clone()).collect(),
            min_protocol: PROTOCOL,
            group_certificate: group_key(gd.key).as_bytes().to_vec(),
            at: WallTime(START),
            handovers: Vec::new(),
            built_on: Vec::new(),
            leaving: gd.leaving.iter().map(|m| self.peers[*m].address.clone()).collect(),
        };
        sign(descriptor, gd.key)
    }

    /// Events by which a peer has pinned the nth key, with the descriptor of now.
    fn first_pin(&self, n: usize) -> [group::Event; 2] {
        [
            group::Event::Pinned { group: acme(), key: group_key(n), at: Some(WallTime(START)) },
            group::Event::Gd(self.signed(&self.gd)),
        ]
    }

    /// A peer that is let in pins what its invite named.
    pub(crate) fn pin_at_join(&mut self, p: usize) {
        let events = self.first_pin(self.gd.key);
        let pins = self.peers[p].brains.as_mut().and_then(|brains| brains.group.as_mut());
        let Some(pins) = pins.filter(|pins| !pins.current().groups.contains_key(&acme())) else { return };
        for event in &events {
            pins.replay(event.clone());
        }
        let records = events.iter().map(|event| Record::Group(wire::encode(event))).collect();
        self.commit(p, records, Vec::new());
    }

    /// The key by which a peer goes, once it knows one.
    pub(crate) fn key_of(&self, p: usize) -> Fingerprint {
        let pins = self.peers[p].brains.as_ref().and_then(|brains| brains.group.as_ref());
        let pinned = pins.and_then(|pins| pins.current().groups.get(&acme()).map(|pin| pin.key));
        pinned.filter(|_| p != self.params.members).unwrap_or(group_key(0))
    }

    /// Whether a member has an older descriptor than it should have heard of.
    pub(crate) fn lags(&self, p: usize) -> bool {
        let pins = self.peers[p].brains.as_ref().and_then(|brains| brains.group.as_ref());
        let has =
            |pins: &Group| pins.current().groups.get(&acme()).and_then(|pin| pin.gd.as_ref()).map(|gd| gd.version);
        pins.is_some_and(|pins| has(pins) != Some(self.gd.version))
    }

    /// A heartbeat brought the newest descriptor.
    pub(crate) fn tell_gd(&mut self, p: usize) {
        if self.has_keys() {
            let candidates = vec![self.signed(&self.gd)];
            self.found(p, acme(), candidates);
        }
    }

    fn found(&mut self, p: usize, group: GroupName, mut candidates: Vec<SignedGd>) {
        if self.is(Saboteur::KeepsOldKey) && p == self.params.members {
            candidates.retain(|candidate| candidate.lineage.is_empty());
        }
        if self.is(Saboteur::FollowsRetired) {
            let newest = candidates.iter().max_by_key(|candidate| candidate.gd.version).cloned();
            self.peers[p].believed = newest;
        }
        let before = self.pinned(p);
        self.tell(p, Tell::Group(Input::GdFetched { group, found: GdFound { candidates, why: None } }));
        let after = self.pinned(p);
        let is_known = |key: &Fingerprint| (0..=self.gd.key).position(|n| group_key(n) == *key);
        let (was, is) = (before.as_ref().and_then(is_known), after.as_ref().and_then(is_known));
        if after.is_some() && (is.is_none() || is < was) {
            self.violate(Rule::R11, format!("{} went from {before:?} to {after:?}", self.name(p)));
        }
    }

    fn pinned(&self, p: usize) -> Option<Fingerprint> {
        let pins = self.peers[p].brains.as_ref()?.group.as_ref()?;
        pins.current().groups.get(&acme()).map(|pin| pin.key)
    }

    /// Whether a reader has pinned the group of one who has left it: what that one mails waits for a descriptor that names it (R11).
    pub(crate) fn is_named_by_no_gd(&self, gone: usize, reader: usize) -> bool {
        self.has_left(gone) && self.pinned(reader).is_some()
    }

    /// The key is replaced: whoever is lost for good is removed, or nobody, by one who is there.
    pub(crate) fn rotates(&mut self) {
        let by = self.gd.members.iter().copied().find(|m| self.peers[*m].is_up() && self.peers[*m].side == 0);
        let Some(by) = by else { return self.later(AGAIN_MS, Happening::Group(Step::Rotates)) };
        let gone = self.who_is_removed(by);
        self.say(|w| format!("{} replaces the group's key, and removes {gone:?}", w.name(by)));
        if let Some(gone) = gone {
            self.removes(gone);
        }
        self.gd.key += 1;
        self.change_group(by);
        // A pin that stays behind believes who holds the old key, too: that saboteur is to be caught by what it costs.
        let is_forged = !self.is(Saboteur::KeepsOldKey);
        for after in FORGED_MS.into_iter().filter(|_| is_forged) {
            self.later(after, Happening::Group(Step::Forges));
        }
    }

    /// A member is none any more, whatever it says to that.
    pub(crate) fn removes(&mut self, gone: usize) {
        self.note_removal(gone);
        self.gd.members.retain(|m| *m != gone);
        self.gd.leaving.remove(&gone);
        (self.peers[gone].in_group, self.peers[gone].removed) = (false, !self.peers[gone].dead);
        self.later(1, Happening::Group(Step::Hears(gone)));
    }

    /// One who is lost for good, else by chance one who is there.
    fn who_is_removed(&mut self, by: usize) -> Option<usize> {
        let staying = self.gd.members.len() - self.gd.leaving.len();
        if staying <= STAY_MIN {
            return None;
        }
        if let Some(dead) = self.gd.members.iter().copied().find(|m| self.peers[*m].dead) {
            return self.rng.chance(700).then_some(dead);
        }
        let others: Vec<usize> = self.gd.members.iter().copied().filter(|m| *m != by).collect();
        let one = *self.rng.pick(&others);
        (self.rng.chance(LIVE_REMOVED) && !self.gd.leaving.contains(&one)).then_some(one)
    }

    /// Whoever is removed learns it as soon as it calls a member.
    pub(crate) fn hears_that_it_was_removed(&mut self, p: usize) {
        if self.peers[p].dead || self.idle {
            return;
        }
        if !self.hears_a_holder(p) {
            return self.later(AGAIN_MS, Happening::Group(Step::Hears(p)));
        }
        self.peers[p].roster = self.roster_for(p);
        self.tell_roster(p);
        self.forget_clocks(p);
    }

    /// One who holds the key before the newest signs that its own is a member's, and mails in that one's name.
    pub(crate) fn forges(&mut self) {
        let Some(old) = self.gd.key.checked_sub(1) else { return };
        let mut gd = self.signed(&self.gd).gd;
        let victim = self.rng.index(gd.members.len());
        gd.version += 1000;
        (gd.members[victim].fingerprint, gd.handovers) = (Fingerprint::new(STRANGER), Vec::new());
        let victim = gd.members[victim].address.clone();
        self.forged_gds.push(sign(gd, old));
        let of_victim = |sealed: &SealedNs| sealed.ns.from == victim;
        let all = self.dht.once.iter().map(|(_, _, entry)| &entry.value);
        let laid =
            all.filter_map(|value| if let DhtValue::Ns(sealed) = value { Some((**sealed).clone()) } else { None });
        let blobs =
            self.peers.iter().flat_map(|peer| peer.disk.blobs.values().flatten().map(|(_, sealed)| sealed.clone()));
        let like: Vec<SealedNs> = laid.chain(blobs).filter(of_victim).collect();
        for mut sealed in like {
            let reader = self.at(&sealed.ns.to).filter(|reader| self.pinned(*reader).is_some());
            if reader.is_none() {
                continue;
            }
            let mut other = *sealed.ns.submission.as_bytes();
            other[14] ^= 0xff;
            (sealed.ns.submission, sealed.nonce) = (SubmissionId::new(other), self.fresh());
            (sealed.ns.from_fingerprint, sealed.signer) = (Fingerprint::new(STRANGER), Fingerprint::new(STRANGER));
            sealed.ns.group_key = group_key(old);
            let to = sealed.ns.to.clone();
            self.dht.lay_ns(&to, sealed, Secret::new([0x5c; 32]));
        }
    }

    /// What a look for the group's descriptor finds: in the DHT if that works, and at members that are reached.
    pub(crate) fn gd_looked_for(&mut self, p: usize, works: bool, group: GroupName) {
        let mut candidates = Vec::new();
        if group == acme() {
            let joined = |m: usize| m != p && self.peers[m].is_up() && self.is_joined(p, m) && self.is_joined(m, p);
            if works {
                let late = self.gds.iter().rev().take_while(|(since, _)| *since + LIES_MS >= self.t).take(3);
                let last = self.gds.last().into_iter().chain(late);
                candidates.extend(last.map(|(_, gd)| self.signed(gd)));
                candidates.extend(self.forged_gds.iter().cloned());
            }
            let asked = self.gd.members.iter().copied().find(|m| joined(*m));
            let known =
                asked.and_then(|m| self.peers[m].brains.as_ref()?.group.as_ref()?.current().groups.remove(&acme()));
            let known = known.and_then(|pin| wire::decode::<(GroupDescriptor, usize)>(&pin.signed_gd).ok());
            candidates.extend(known.map(|(gd, key)| sign(gd, key)));
        }
        self.found(p, group, candidates);
    }

    /// Does what the brain that pins asks for.
    pub(crate) fn act_group(&mut self, p: usize, wish: Effect<Group>) {
        match wish {
            Effect::Act(Action::FetchGd { group, .. }) => self.dht(p, DhtOp::FetchGd(group)),
            // Heartbeats, addresses and signatures are played by that brain's own simulations.
            Effect::Act(_) => {}
            Effect::Reply(token, reply) => self.reply_group(p, token, &reply),
            Effect::Feed(input) => self.hand(p, Tell::Group(input)),
            Effect::Commit { events, then } => {
                // Who is called lost comes of heartbeats, too: without them a member that looks for a newer descriptor calls all so.
                let kept = events.iter().filter(|event| !matches!(event, group::Event::View(_)));
                let records = kept.map(|event| Record::Group(wire::encode(event))).collect();
                self.commit(p, records, then.into_iter().map(Wish::Group).collect());
            }
        }
    }

    fn reply_group(&mut self, p: usize, token: Token, reply: &Reply) {
        if let (Waiter::Fresh(from, sealed), Reply::Freshened { fresh }) = (self.waiter(p, token), reply) {
            self.judge_ns(p, from, *sealed, Some(*fresh));
        }
    }

    /// Whether the brain that pins is to be woken: a member's is not, as its heartbeats are a model, but while somebody waits for it.
    pub(crate) fn wakes_group(&self, p: usize) -> bool {
        let waits = self.peers[p].waiters.values().any(|waiter| matches!(waiter, Waiter::Fresh(..)));
        waits || !self.gd.members.contains(&p)
    }

    /// Holds an ns against what its reader has pinned for its sender's group, as `actors::postbox` does it.
    pub(crate) fn judge_ns(&mut self, p: usize, from: NsFrom, sealed: SealedNs, fresh: Option<bool>) {
        let named = super::world::fingerprint(&sealed.ns.from);
        let (now, name, group) = (self.now(p).mono, sealed.name(), sealed.ns.from.group().clone());
        if let Some(fresh) = fresh {
            self.peers[p].doubts.looked(now, &group, name, fresh);
        }
        let is_due = fresh.is_none() && self.peers[p].doubts.is_due(now, &name);
        match self.standing(p, &sealed, self.peers[p].doubts.is_over(&name)) {
            Some(Standing::NotYet(_) | Standing::Pinned) if is_due => {
                let token = self.wait(p, Waiter::Fresh(from, Box::new(sealed)));
                self.hand(p, Tell::Group(Input::Freshen { token, group }));
            }
            // Its user would be asked, and sees a key that is not the one of whom it knows.
            None | Some(Standing::Pinned) if sealed.ns.from_fingerprint != named => {
                self.pass_over(p, &from, Answer::Refused("unknown".to_owned()))
            }
            None | Some(Standing::Pinned) => self.believe_ns(p, from, sealed),
            Some(Standing::Named(peer)) if peer == sealed.ns.owner => self.believe_ns(p, from, sealed),
            Some(Standing::NotYet(why)) => self.pass_over(p, &from, Answer::Later(why)),
            Some(standing) => {
                let is_true = (sealed.signer, sealed.ns.from_fingerprint) == (named, named);
                if is_true && !self.is(Saboteur::FollowsRetired) {
                    let why = format!("{} refuses an ns of {}: {standing:?}", self.name(p), sealed.ns.from);
                    self.violate(Rule::R2, why);
                }
                self.pass_over(p, &from, Answer::Refused(format!("{standing:?}")));
            }
        }
    }

    fn standing(&self, p: usize, sealed: &SealedNs, is_over: bool) -> Option<Standing> {
        let pins = self.peers[p].brains.as_ref()?.group.as_ref()?;
        let group = sealed.ns.from.group();
        let pin = pins.current().groups.remove(group)?;
        let claim =
            Claim { from: &sealed.ns.from, fingerprint: sealed.ns.from_fingerprint, group_key: sealed.ns.group_key };
        let known = Known { group, key: &pin.key, retired: &pin.retired, gd: pin.gd.as_deref() };
        let believed = self.peers[p].believed.as_ref().filter(|_| group == &acme());
        let known = believed.map_or(known, |gd| Known { gd: Some(&gd.gd), ..known });
        Some(judge(&claim, &known, is_over))
    }

    fn pass_over(&mut self, p: usize, from: &NsFrom, answer: Answer) {
        match from {
            NsFrom::Direct(token) => {
                if let Waiter::Answer(caller) = self.waiter(p, *token) {
                    self.answer(p, caller, answer);
                }
            }
            // What may hold later is looked at again.
            NsFrom::Dht(name) if matches!(answer, Answer::Later(_)) => drop(self.peers[p].read.remove(name)),
            NsFrom::Dht(_) => {}
        }
    }
}

/// A signature that is only claimed: that of the nth key, with those before it.
fn sign(gd: GroupDescriptor, n: usize) -> SignedGd {
    let signed = ByteBuf::from(wire::encode(&(&gd, n)));
    SignedGd { gd, key: group_key(n), signed, lineage: (0..n).map(group_key).collect() }
}
