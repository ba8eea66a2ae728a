//! Changes of the group's policy while mails wait: manifests for other encodings, and the rule that at no moment fewer losses
//! are survived than before, or than the new policy declares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roost::core::Brain;
use roost::core::outbox::{Input, OutboxStatus};
use roost::core::placement::whole_copies;
use roost::core::replicator::{self, KnownMail, MirrorOrder};
use roost::fragment::Layout;
use roost::model::manifest::{BLOCK_BYTES, Manifest};
use roost::model::{Digest, Encoding, MailId, Part, PeerId, Policy};
use roost::store::manifests::covers;
use roost::wire::Signed;

use super::checker::{Promise, Rule, SealedMail, survives};
use super::disk::DiskOp;
use super::liars::{Lie, all_parts};
use super::members::Gd;
use super::network::Answer;
use super::peer::{After, Peer, Tell};
use super::world::World;

/// Mirrors keep a part this long after its mail has expired.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Whether a part is one of this encoding.
pub(crate) fn is_of(encoding: Encoding, part: Part) -> bool {
    match part {
        Part::Whole => encoding == Encoding::Whole,
        Part::Fragment { .. } => covers(encoding, part),
    }
}

impl SealedMail {
    /// The stripes that a part has blocks of.
    pub(crate) fn layout_of(&self, part: Part) -> Layout {
        let of_it = self.manifests.keys().find(|encoding| is_of(**encoding, part));
        let encoding = of_it.or(self.manifests.keys().next()).copied().unwrap();
        Layout::new(self.length, encoding).unwrap()
    }
}

impl World {
    /// The group key signs another policy. Who is there hears of it; the others do when they are back.
    pub(crate) fn change_policy(&mut self, policy: Policy) {
        if usize::from(policy.others_needed()) >= self.gd.members.len() {
            // Refused: others joined or left since it was thought of.
            return;
        }
        self.say(|_| format!("the policy is now {:?} {:?}, {} copies", policy.mode, policy.fragments, policy.copies));
        self.gd.policy = policy;
        self.gd.version += u64::from(self.has_keys());
        self.gds.push((self.t, self.gd.clone()));
        self.spread_view();
    }

    /// What the policies that held at a moment or later declare at least, in the group as it was then: losses that a mail survives beside its owner's.
    /// Of a mail that was kept as its policy says, what is shown must be kept as long as that policy holds.
    pub(crate) fn declared_since(&self, promise: &Promise, h: &MailId) -> i32 {
        let SealedMail { length, owner, .. } = self.truth.mails[h];
        let declared = |gd: &Gd| match gd.policy.encoding_for(length, gd.others_staying(owner)) {
            Encoding::Whole => i32::try_from(gd.policy.whole_copies(gd.others_staying(owner))).unwrap() - 1,
            Encoding::Fragments { k, n } => i32::from(n) - i32::from(k),
        };
        let first = self.gds.iter().rposition(|(since, _)| *since <= promise.at).unwrap_or(0);
        let held = &self.gds[first..];
        if held.len() == 1 && !promise.moving {
            i32::MAX
        } else {
            held.iter().map(|(_, gd)| declared(gd)).min().unwrap()
        }
    }

    /// A manifest, signed for real, of digests that nobody computes.
    pub(crate) fn manifest_of(&self, p: usize, h: MailId, length: u64, encoding: Encoding) -> Signed<Manifest> {
        let (peer, digest) = (&self.peers[p], Digest::new(*blake3::hash(h.as_bytes()).as_bytes()));
        let (owner, block_bytes, block_digests) = (peer.id, BLOCK_BYTES, Vec::new());
        peer.key.sign(Manifest { owner, h, length, digest, encoding, block_bytes, block_digests })
    }

    /// An owner has a manifest made for another encoding.
    pub(crate) fn reencode(&mut self, p: usize, h: MailId, encoding: Encoding) {
        if self.faulty && self.rng.chance(50) {
            let result = Err("the disk is full".to_owned());
            return self.tell_later(p, 3, Tell::Outbox(Input::Reencoded { h, encoding, result }));
        }
        let manifest = self.manifest_of(p, h, self.truth.mails[&h].length, encoding);
        self.truth.mails.get_mut(&h).unwrap().manifests.insert(encoding, manifest);
        let told = Tell::Outbox(Input::Reencoded { h, encoding, result: Ok(()) });
        self.disk(p, DiskOp::Manifest(h, encoding), After::Tell(Box::new(told)));
    }

    /// The manifest that a peer serves: of now if it has that one, else one that does, else the one that it has.
    pub(crate) fn served_manifest(&self, p: usize, h: MailId, encoding: Encoding, k: Option<u8>) -> Answer {
        let needed = k.map_or(encoding.needed(), usize::from);
        let here = self.peers[p].disk.manifests.iter().filter(|(of, _)| *of == h).map(|(_, encoding)| *encoding);
        let here: Vec<Encoding> = here.collect();
        let exact = here.iter().find(|of| **of == encoding && of.needed() == needed);
        let like = exact.or_else(|| here.iter().find(|of| of.needed() == needed));
        let Some(of) = like.or(here.first()) else { return Answer::NotFound };
        Answer::Manifest(Box::new(self.truth.mails[&h].manifests[of].clone()))
    }

    /// The same of a mail that it holds parts of.
    pub(crate) fn mirrored_manifest(&self, p: usize, h: MailId, known: &KnownMail, k: Option<u8>) -> Answer {
        let is_of_now = |part: &Part| *part == Part::Whole || covers(known.encoding, *part);
        let k = match (k, known.parts.iter().any(is_of_now), known.parts.first()) {
            (None, false, Some(Part::Fragment { k, .. })) => Some(*k),
            (k, ..) => k,
        };
        self.served_manifest(p, h, known.encoding, k)
    }

    /// The manifest by which a member checks a part: one that it has, else that of somebody who is there.
    pub(crate) fn manifest_for(&self, p: usize, order: &MirrorOrder) -> Option<Encoding> {
        let of_peer = |p: usize| {
            let mut here = self.peers[p].disk.manifests.iter().filter(|(of, _)| *of == order.h);
            here.find(|(_, encoding)| covers(*encoding, order.part)).map(|(_, encoding)| *encoding)
        };
        let mut others = (0..self.peers.len()).filter(|other| self.peers[*other].is_up() && self.is_joined(p, *other));
        of_peer(p).or_else(|| others.find_map(of_peer))
    }

    /// A pull begins with this manifest. Blocks of other stripes are of no use.
    pub(crate) fn open_as(&mut self, p: usize, manifest: &Manifest) {
        let (h, layout) = (manifest.h, Layout::new(manifest.length, manifest.encoding).unwrap());
        let peer = &mut self.peers[p];
        if peer.disk.fetched_k.insert(h, layout.k()).is_some_and(|k| k != layout.k()) {
            peer.disk.fetched.remove(&h);
        }
        peer.pulling.insert(h, layout);
    }

    /// How an owner keeps a mail now, as it shows.
    pub(crate) fn encoding_of(&self, p: usize, h: &MailId) -> Option<Encoding> {
        let status = self.peers[p].brains.as_ref()?.outbox.observe(self.now(p));
        let mut mails = status.submissions.into_iter().flat_map(|s| s.mails);
        mails.find(|mail| mail.h == *h).map(|mail| mail.encoding)
    }

    /// R12: when everybody is there, each mail has arrived in the encoding that the policy says.
    pub(crate) fn check_moved(&mut self) {
        if self.peers.iter().any(|peer| peer.in_group && !peer.is_up()) {
            return;
        }
        let policy = self.gd.policy.clone();
        // Who claims every part says that it holds what is left from before, too, however often it is asked.
        let claimed = self.once_members().any(|p| self.lies(p, Lie::ClaimsAll));
        // Of one that forks its msglist nobody learns how it keeps its mails.
        for p in self.gd.members.clone().into_iter().filter(|p| !self.lies_in_lists(*p)).collect::<Vec<_>>() {
            let Some(brains) = &self.peers[p].brains else { continue };
            let status = brains.outbox.observe(self.now(p));
            let others = self.gd.others_staying(p);
            let mut mails = status.submissions.iter().flat_map(|s| &s.mails);
            let stays = mails
                .find(|mail| mail.encoding != policy.encoding_for(mail.length, others) && !self.is_unreadable(&mail.h));
            let why = match stays {
                Some(mail) => format!("{} still keeps {} as {:?}", self.name(p), mail.h, mail.encoding),
                None if claimed || self.waits_in_vain(p, &status) => continue,
                None => {
                    let denied = self.denied(p);
                    let mut mails = status.submissions.iter().flat_map(|s| &s.mails);
                    // Of what nobody can read any more nobody gets a part either.
                    let is_excused = |h: &MailId| self.is_unreadable(h) || self.waits_for_the_fooled(h, &status);
                    let may_arrive = |h: &MailId| !denied.contains(h) && !is_excused(h);
                    let Some(stays) = mails.find(|mail| mail.moving && may_arrive(&mail.h)) else { continue };
                    format!("{} of {} never arrives: {:?}", stays.h, self.name(p), status.moving_waits_for)
                }
            };
            return self.violate(Rule::R12, why);
        }
    }

    /// Whether all for whom a peer waits hid from it what it had listed before it was restored: it listed something else in that place, so
    /// they take its list for forked and read no more of it.
    fn waits_in_vain(&self, p: usize, status: &OutboxStatus) -> bool {
        let waits = &status.moving_waits_for;
        let mut known = waits.iter().map(|member| self.at(member));
        !waits.is_empty() && known.all(|m| m.is_some_and(|m| self.hides_list_of(p, m)))
    }

    /// Whether one for whom a peer waits had to take a clock for right that was ahead: it may have forgotten this mail as over.
    fn waits_for_the_fooled(&self, h: &MailId, status: &OutboxStatus) -> bool {
        let (made, expiry) = (self.truth.mails[h].made, self.truth.mails[h].expiry);
        let mut known = status.moving_waits_for.iter().filter_map(|member| self.at(member));
        known.any(|m| self.is_fooled_about(m, made, expiry))
    }

    /// Which open mails of a peer a liar denies for good: its fork says under its own name that they are gone, it read that back
    /// from its members as it started, and tells it to whoever asks. What it holds of them it shows to nobody, so nobody who is not
    /// placed any more may rely on it (R3).
    fn denied(&self, p: usize) -> BTreeSet<MailId> {
        let ledger = &self.peers[p].disk.ledger;
        let open = ledger.sealed.iter().filter(|h| !ledger.tombstoned.contains_key(*h));
        open.filter(|h| self.gd.members.iter().any(|m| *m != p && self.denies(*m, h))).copied().collect()
    }
    /// Whether this member is such a liar.
    pub(crate) fn denies(&self, m: usize, h: &MailId) -> bool {
        self.peers[m].liar && self.peers[m].disk.ledger.learned_gone.contains(h)
    }

    /// Answers of members who hold whatever may be asked for.
    pub(crate) fn all_hold_all(&self, owner: &PeerId, h: &MailId) -> BTreeMap<PeerId, BTreeSet<Part>> {
        let all = all_parts(self.truth.mails[h].manifests.keys());
        let members = self.peers.iter().filter(|peer| peer.in_group && peer.id != *owner);
        members.map(|peer| (peer.id, all.clone())).collect()
    }

    /// What each member has on its disk of a mail, without what it is about to remove. A restored one has what it said. Of whom a peer
    /// has not heard yet that it was removed, it is one still: that holder is lost by the removal, not by what the peer does meanwhile.
    fn on_disks(&self, p: usize, owner: PeerId, h: MailId) -> Vec<BTreeSet<Part>> {
        let confirmed = self.peers[p].confirmed.get(&(owner, h));
        let of = |(m, peer): (usize, &Peer)| {
            let going: Vec<_> = peer
                .ops
                .values()
                .filter_map(|(op, _)| if let DiskOp::DropParts(parts) = op { Some(parts) } else { None })
                .flatten()
                .collect();
            let here = peer.disk.parts.iter().filter(|part| !going.contains(part));
            let mut parts: BTreeSet<Part> = here.filter(|(o, of, _)| (*o, *of) == (owner, h)).map(|p| p.2).collect();
            if (self.truth.restored.contains_key(&m) || self.lies_of_parts(m)) && m != p {
                parts.extend(confirmed.and_then(|all| all.get(&peer.id)).into_iter().flatten());
            }
            parts
        };
        let counts = |peer: &Peer| self.is_member_for(p, peer) && peer.id != owner;
        self.peers.iter().enumerate().filter(|(_, peer)| counts(peer)).map(of).collect()
    }

    /// Whether somebody is a member, or a peer has to take it for one.
    fn is_member_for(&self, p: usize, peer: &Peer) -> bool {
        peer.in_group || self.peers[p].roster.has(&peer.id)
    }

    /// A broken member: what it is about to give up goes before its owner knows.
    pub(crate) fn drop_untold(&mut self, p: usize, input: &replicator::Input) {
        if let replicator::Input::DropDue { owner, h, parts, .. } = input {
            self.check_drop_told(p, *owner, *h, parts);
        }
    }

    /// R8: what goes is not counted any more in the safe(f) that its owner shows at that moment.
    pub(crate) fn check_drop_told(&mut self, p: usize, owner: PeerId, h: MailId, parts: &[Part]) {
        let (at, me) = (self.index(&owner), self.peers[p].id);
        let (made, expiry) = (self.truth.mails[&h].made, self.truth.mails[&h].expiry);
        // An owner that is called lost shows what it knew as soon as it is back. A wrong clock that nobody corrects loses a holder.
        if self.peers[p].liar || self.is_fooled_about(p, made, expiry) || !self.peers[p].roster.has(&owner) {
            return;
        }
        // What its owner ended is gone by its own word, at once, also when a restore made it forget that word and nobody could
        // remind it yet.
        if self.truth.endings_before.contains_key(&h) && self.peers[p].disk.ledger.buried_parts.contains(&(owner, h)) {
            return;
        }
        // What has expired goes a day later without a word to an owner that the view calls lost, or that leaves and is silent: with a
        // clock that is behind by more it shows what it knew until it is told. One that is there is told first.
        let is_there = self.peers[p].roster.counts(&owner);
        if !is_there && self.is_over_for(p, made, expiry + GRACE) {
            return;
        }
        // The same where it was told that the part goes.
        if parts.iter().all(|part| self.is_forgotten_to_go(at, me, h, *part)) {
            return;
        }
        let mut counted = self.counted(at, &h);
        let shown = if self.peers[at].is_up() { self.shown_safe(at, h) } else { self.will_show(at, h, &counted) };
        let Some(shown) = shown.filter(|shown| *shown >= 0) else { return };
        if let Some(left) = counted.get_mut(&me) {
            left.retain(|part| !parts.contains(part));
        }
        let left = survives(&counted.into_values().collect::<Vec<_>>());
        if shown > left {
            let (name, owner) = (self.name(p), self.name(at));
            let why = format!("{name} drops {parts:?} of {h}, of which {owner} shows safe({shown}), and it is {left}");
            self.violate(Rule::R8, why);
        }
    }

    /// safe(f) that an owner which is off shows as soon as it is back, of a mail that is open: it counts what it had been told.
    fn will_show(&self, at: usize, h: MailId, counted: &BTreeMap<PeerId, BTreeSet<Part>>) -> Option<i32> {
        let ledger = &self.peers[at].disk.ledger;
        let is_open = ledger.sealed.contains(&h) && !self.was_tombstoned(&h) && self.peers[at].in_group;
        let mail = self.truth.mails.get(&h)?;
        let is_over = self.is_over_for(at, mail.made, mail.expiry);
        (is_open && !is_over).then(|| survives(&counted.values().cloned().collect::<Vec<_>>()))
    }

    /// R3: what goes for a move leaves as many losses survived as before, or as many as the mail's policy declares.
    pub(crate) fn check_still_survives(&mut self, p: usize, owner: PeerId, h: MailId, parts: &[Part]) {
        let peer = &self.peers[p];
        let Some(encoding) = peer.disk.ledger.noted.get(&(owner, h)).copied() else { return };
        let declared = match encoding {
            Encoding::Whole => i32::try_from(whole_copies(&peer.roster, &owner)).unwrap() - 1,
            Encoding::Fragments { k, n } => i32::from(n) - i32::from(k),
        };
        let before = self.on_disks(p, owner, h);
        let others =
            (0..self.peers.len()).filter(|m| self.is_member_for(p, &self.peers[*m]) && self.peers[*m].id != owner);
        let mut after = before.clone();
        if let Some(at) = others.into_iter().position(|m| m == p) {
            after[at].retain(|part| !parts.contains(part));
        }
        let (before, after) = (survives(&before), survives(&after));
        if after < before.min(declared) {
            let why = format!(
                "{} drops {parts:?} of {h}, now {encoding:?}: {before} losses were survived, {after} are, {declared} are declared",
                self.name(p)
            );
            self.violate(Rule::R3, why);
        }
    }
}
