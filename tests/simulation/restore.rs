//! A peer that comes back with an old disk: what of the time between it truly cannot know any more, and what it must learn again
//! from the others. Nothing else is excused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roost::core::outbox;
use roost::core::postbox::{self, MailKey};
use roost::model::holding::HoldingState;
use roost::model::msglist::{Cursor, Entry, EntryBody, Head, Seq, Tombstone};
use roost::model::{Address, MailId, Part, PeerId, SubmissionId};
use roost::wire::msglist::{Page, Run, chain_next, chain_start, decode_entry, encode_entry};
use roost::wire::{self, Signed};
use serde_bytes::ByteBuf;

use super::checker::{Letter, Rule};
use super::disk::{Disk, Record};
use super::network::{CallRef, Pending};
use super::peer::Peer;
use super::world::World;

/// Owners remember a mail for so long after it was over (DESIGN.md section 5).
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// An older image of a disk.
#[derive(Debug)]
pub(crate) struct Image {
    disk: Disk,
    /// When it was taken.
    at: u64,
    /// What members held of this peer's mails then, as it had been told.
    told: BTreeMap<PeerId, Belief>,
}

/// What a restored owner still believes that a member holds, until that one says otherwise, or the two have compared.
pub(crate) type Belief = BTreeMap<MailId, BTreeSet<Part>>;

/// What an owner's journal says that members gave up, and nothing else since.
fn told_to_go(disk: &Disk) -> BTreeSet<(PeerId, MailId, Part)> {
    let mut told = BTreeSet::new();
    for record in &disk.journal {
        let Record::Outbox(bytes) = record else { continue };
        let outbox::Event::Holdings { member, items, .. } = wire::decode(bytes).unwrap() else { continue };
        for item in items {
            let which = (member, item.h, item.part);
            match item.state {
                HoldingState::Dropped { .. } => told.insert(which),
                _ => told.remove(&which),
            };
        }
    }
    told
}

impl World {
    /// Whether the owner of a mail forgot, with an old disk, that a member gives a part up, which did not say since that it holds it.
    pub(crate) fn is_forgotten_to_go(&self, owner: usize, member: PeerId, h: MailId, part: Part) -> bool {
        let said_at = self.truth.reported.get(&h).and_then(|all| all.get(&member)?.get(&part)).copied();
        let before = self.truth.restored.get(&owner).is_some_and(|at| said_at.is_none_or(|said| said < *at));
        before && self.truth.told_to_go.contains(&(owner, member, h, part))
    }

    /// An image of a disk is taken.
    pub(crate) fn take_image(&mut self, p: usize) {
        if !self.peers[p].made {
            return;
        }
        let mut told: BTreeMap<PeerId, Belief> = BTreeMap::new();
        let own = self.truth.reported.iter().filter(|(h, _)| self.truth.mails[h].owner == p);
        for (h, members) in own {
            for (member, parts) in members {
                told.entry(*member).or_default().insert(*h, parts.keys().copied().collect());
            }
        }
        self.peers[p].image = Some(Image { disk: self.peers[p].disk.clone(), at: self.t, told });
    }

    /// A peer starts; one that was given an old disk is back from now on, and asks who is a member now.
    pub(crate) fn note_back(&mut self, p: usize) {
        if self.truth.restored.contains_key(&p) {
            self.truth.back.entry(p).or_insert(self.t);
        }
    }

    /// A peer comes back with an old image of its disk: out of a backup, which leaves a mark, or as a copy that nobody marked.
    pub(crate) fn restore(&mut self, p: usize) {
        let Some(Image { disk, at, told }) = self.peers[p].image.take() else { return };
        // The old disk of one who has left is that of a member that nobody knows any more: there is nobody whom it could ask.
        if self.peers[p].dead || self.peers[p].left || self.has_left(p) {
            return;
        }
        let marked = self.rng.chance(500);
        self.say(|w| format!("{} is restored from a disk of {at} ms, marked: {marked}", w.name(p)));
        self.crash(p);
        let old = std::mem::replace(&mut self.peers[p].disk, disk);
        self.note_promised(p, &old);
        self.truth.told_to_go.extend(told_to_go(&old).into_iter().map(|(member, h, part)| (p, member, h, part)));
        let old = old.ledger;
        let new = &self.peers[p].disk.ledger;
        self.truth.lost_bodies.extend(old.pulled.difference(&new.pulled).map(|key| (p, *key)));
        self.truth.forgot_cancel.extend(old.withdrawn.difference(&new.withdrawn).map(|key| (p, *key)));
        for (h, ending) in &old.tombstoned {
            self.truth.endings_before.entry(*h).or_default().insert(*ending);
        }
        // A word that had not come yet before the restore is not among these: its reader says it until it is heard.
        let said: BTreeSet<_> = self.truth.nrs.keys().map(|(id, _, reader)| (*id, reader.clone())).collect();
        let forgot = old.ended.into_keys().filter(|which| !new.ended.contains_key(which) && said.contains(which));
        self.truth.said_before.extend(forgot);
        self.forget_misses(p);
        let mails = &self.truth.mails;
        // Marked, an owner knows that it does not know whom it served.
        let forgotten = |(server, h, _): &(usize, MailId, usize), when: u64| {
            *server == p && when >= at && !(marked && mails[h].owner == p)
        };
        let unknown = self.truth.served.iter().filter(|(which, when)| forgotten(which, **when));
        let unknown = unknown.map(|((_, h, reader), _)| (*h, *reader));
        let (own, of_others): (Vec<_>, Vec<_>) = unknown.partition(|(h, _)| mails[h].owner == p);
        self.truth.unknown_service.extend(of_others);
        self.truth.forgot_serving.extend(own.into_iter().map(|which| (which, None)));
        for (member, parts) in told {
            self.truth.beliefs.insert((p, member), parts);
        }
        self.truth.restored.insert(p, self.t);
        self.truth.back.remove(&p);
        self.truth.told_in_time.retain(|(owner, _), _| *owner != p);
        self.truth.submitted_before.extend(old.submitted.keys().copied());
        if marked {
            self.peers[p].disk.restored = true;
            self.peers[p].disk.append(Record::Postbox(wire::encode(&postbox::Event::Restored)));
        }
    }

    /// Whether somebody else who is still there has read in the owner's msglist that it has this mail.
    fn is_listed_elsewhere(&self, h: &MailId) -> bool {
        let at = self.truth.mails[h].owner;
        self.who_may_tell(at).any(|p| p.disk.ledger.read.contains(&(self.peers[at].id, *h)))
    }

    /// Whether somebody else who is still there has read that it is gone.
    pub(crate) fn is_entombed_elsewhere(&self, h: &MailId) -> bool {
        let at = self.truth.mails[h].owner;
        self.who_may_tell(at).any(|p| p.disk.ledger.buried_parts.contains(&(self.peers[at].id, *h)))
    }

    /// Whether a restored owner asks this peer for its own msglist. It asks members: whoever was none any more when it came back, by
    /// its own wish or removed, and never became one again, is not asked.
    pub(crate) fn is_asked(&self, owner: usize, p: usize) -> bool {
        let truth = &self.truth;
        let Some(back) = truth.back.get(&owner).or(truth.restored.get(&owner)) else { return true };
        let first = self.gds.iter().rposition(|(since, _)| since <= back).unwrap_or(0);
        // Whoever becomes one again when the owner has left itself is none beside it.
        self.gds[first..].iter().any(|(_, gd)| [owner, p].iter().all(|member| gd.members.contains(member)))
    }

    /// The others who are still there and may tell a restored owner of its own msglist.
    fn who_may_tell(&self, owner: usize) -> impl Iterator<Item = &Peer> {
        let tells = move |p: usize, peer: &Peer| !peer.dead && !peer.left && !self.lies_in_lists(p);
        let others = self.peers.iter().enumerate().filter(move |(p, _)| *p != owner);
        others.filter(move |(p, peer)| tells(*p, peer) && self.is_asked(owner, *p)).map(|(_, peer)| peer)
    }

    /// Whether a tombstone of this mail was ever durable at its owner.
    pub(crate) fn was_tombstoned(&self, h: &MailId) -> bool {
        let owner = &self.peers[self.truth.mails[h].owner];
        owner.disk.ledger.tombstoned.contains_key(h) || self.truth.endings_before.contains_key(h)
    }

    /// Whether the owner of a mail knows that it is gone: a member told it, or it is on its disk.
    pub(crate) fn owner_knows_tombstone(&self, h: &MailId) -> bool {
        let owner = &self.peers[self.truth.mails[h].owner];
        owner.disk.ledger.tombstoned.contains_key(h) || owner.told_gone.contains(h)
    }

    /// Whether a restored owner truly cannot know of this receiver of a mail that it accepted before: it is not on its old disk,
    /// and nobody who is still there has read of anything sealed for it, or would say so to one that was removed. Nor has it to know
    /// of one that said what came of the mail: of what is over, only that it is over is listed. Nor of a mail that is over for longer than
    /// owners remember one when it is told of it, as it is at once when it was sent by a clock that was so far behind: told of it late it
    /// cannot know any more whether its sender heard of that.
    pub(crate) fn is_forgotten(&self, id: &SubmissionId, letter: &Letter, receiver: &Address) -> bool {
        let known = self.peers[letter.from].disk.ledger.submitted.get(id).is_some_and(|all| all.contains(receiver));
        let mut forms = self.truth.mails.iter().filter(|(_, m)| m.submission == *id && m.receivers.contains(receiver));
        let before = self.truth.restored.contains_key(&letter.from) && self.truth.submitted_before.contains(id);
        let now = self.now(letter.from).wall;
        let was_told = |h: &MailId| self.truth.told_in_time.contains_key(&(letter.from, *h));
        let is_remembered = |h: &MailId| was_told(h) || self.truth.mails[h].expiry + REMEMBERED > now;
        let is_open = |h: &MailId| !self.truth.nrs.contains_key(&(*id, *h, receiver.clone()));
        let says = |h: &MailId| self.is_listed_elsewhere(h) && is_open(h) && is_remembered(h);
        before && !known && (self.peers[letter.from].removed || !forms.any(|(h, _)| says(h)))
    }

    /// Notes which mails of its own a restored owner is told of in time: by its clock of now it has to take them up.
    pub(crate) fn note_told_of(&mut self, p: usize, page: &Page) {
        if !self.truth.restored.contains_key(&p) {
            return;
        }
        let (me, now) = (self.peers[p].id, self.now(p).wall);
        let is_own = |run: &&Run| Signed::<Head>::verify(&run.head).is_ok_and(|head| head.owner == me);
        for bytes in page.runs.iter().filter(is_own).flat_map(|run| &run.entries) {
            let Ok(Entry { body: EntryBody::Mail(mail), .. }) = decode_entry(bytes) else { continue };
            if mail.expiry + REMEMBERED > now {
                self.truth.told_in_time.entry((p, mail.h)).or_insert(self.t);
            }
        }
    }

    /// An owner is about to crash: what it made of what it was told may not be durable yet. Then it is told again, perhaps late.
    pub(crate) fn forget_told_of(&mut self, p: usize) {
        let (is_durable, now) = (self.peers[p].commits.is_empty(), self.t);
        self.truth.told_in_time.retain(|(owner, _), at| *owner != p || (is_durable && *at < now));
    }

    /// An owner and a member compared, and found nothing that differs: what the owner believed is what the member says. The member
    /// may have come back with an old disk itself, on which is again what it had reported as dropped. A mail that the owner has just
    /// been told to be gone is not compared: a crash before that is on its disk lets it believe the same of it again.
    pub(crate) fn belief_confirmed(&mut self, p: usize, member: usize) {
        let (owner, id) = (self.peers[p].id, self.peers[member].id);
        let Some(belief) = self.truth.beliefs.remove(&(p, id)) else { return };
        let gone = &self.peers[p].disk.ledger.tombstoned;
        let uncompared = |h: &MailId| self.shown_safe(p, *h).is_none() && !gone.contains_key(h);
        let (kept, belief): (Belief, Belief) = belief.into_iter().partition(|(h, _)| uncompared(h));
        self.truth.beliefs.insert((p, id), kept);
        let here = &self.peers[member].disk.parts;
        for (h, parts) in belief {
            for part in parts.into_iter().filter(|part| here.contains(&(owner, h, *part))) {
                self.truth.reported.entry(h).or_default().entry(id).or_default().insert(part, self.t);
            }
        }
    }

    /// An owner refuses an nr: one that was restored, and has not learned of the mail again, cannot know better. It is told of
    /// it by another nr, once it has.
    pub(crate) fn note_nr_refused(&mut self, p: usize, from: CallRef) {
        let caller = &self.peers[from.caller];
        if let Some((_, Pending::Nr { item, .. })) = caller.calls.get(&from.call).filter(|_| caller.life == from.life)
            && self.truth.restored.contains_key(&p)
            && !self.peers[p].disk.ledger.sealed.contains(&item.nr.h)
        {
            self.truth.refused_unknown.insert((from.caller, item.nr.h), self.t);
        }
    }

    /// Whether a restored reader lost a body that it had said it has.
    pub(crate) fn is_body_lost(&self, reader: usize, key: MailKey) -> bool {
        self.truth.lost_bodies.contains(&(reader, key))
    }

    /// Notes which tombstones of its own an owner is told.
    pub(crate) fn note_told_gone(&mut self, p: usize, page: &Page) {
        let mut told = Vec::new();
        for bytes in page.runs.iter().flat_map(|run| &run.entries) {
            let Ok(Entry { body: EntryBody::Tombstone(signed), .. }) = decode_entry(bytes) else { continue };
            told.extend(Signed::<Tombstone>::verify(&signed.0));
        }
        told.extend(page.tombstones.iter().filter_map(|bytes| Signed::<Tombstone>::verify(bytes).ok()));
        let me = self.peers[p].id;
        let told: BTreeSet<MailId> = told.into_iter().filter(|t| t.owner == me).map(|t| t.h).collect();
        self.peers[p].told_gone.extend(&told);
    }

    /// Whether an owner that was restored is about to write what only its members can have told it.
    pub(crate) fn is_news(&self, p: usize, record: &Record) -> bool {
        let Record::Outbox(bytes) = record else { return false };
        self.truth.restored.contains_key(&p)
            && match wire::decode(bytes).unwrap() {
                outbox::Event::Sealed { adopted, .. } => adopted.is_some(),
                outbox::Event::Gone { .. } => true,
                outbox::Event::Tombstoned { h, .. } => self.peers[p].told_gone.contains(&h),
                _ => false,
            }
    }

    /// By news an owner knows that its disk is an old copy: from now on it does not know whom it served any mail that it knows.
    pub(crate) fn learns(&mut self, p: usize) {
        let (mails, sealed) = (&self.truth.mails, &self.peers[p].disk.ledger.sealed);
        for ((h, _), learned) in &mut self.truth.forgot_serving {
            if mails[h].owner == p && sealed.contains(h) {
                learned.get_or_insert(self.t);
            }
        }
    }

    /// A run of the own msglist as a broken owner hears it: without any tombstone that is new to it, and signed anew by itself.
    /// One that does not begin at the start of its epoch does not fit then, and the owner asks for all of it.
    pub(crate) fn without_tombstones(&self, p: usize, run: Run) -> Run {
        let (peer, epoch) = (&self.peers[p], Signed::<Head>::verify(&run.head).unwrap().at.epoch);
        let is_new_end = |entry: &Entry| match &entry.body {
            EntryBody::Tombstone(signed) => {
                let tombstone = Signed::<Tombstone>::verify(&signed.0).unwrap();
                !peer.disk.ledger.tombstoned.contains_key(&tombstone.h)
            }
            _ => false,
        };
        let all: Vec<Entry> = run.entries.iter().map(|bytes| decode_entry(bytes).unwrap()).collect();
        if !all.iter().any(is_new_end) {
            return run;
        }
        let start = chain_start(&peer.id, epoch);
        let (mut entries, mut chain, mut at) = (Vec::new(), start, Cursor { epoch, seq: run.after });
        for entry in all.into_iter().filter(|entry| !is_new_end(entry)) {
            at.seq = at.seq.next();
            let bytes = encode_entry(&Entry { at, ..entry });
            chain = chain_next(&chain, &bytes);
            entries.push(ByteBuf::from(bytes));
        }
        let head = peer.key.sign(Head { owner: peer.id, at, chain, base_seq: Seq(0), base_chain: start });
        Run { entries, head: ByteBuf::from(head.as_bytes().to_vec()), ..run }
    }

    /// R7: an owner that was told, or knows itself, that a mail is gone does not speak of it as if it were there.
    pub(crate) fn check_not_gone(&mut self, p: usize, h: &MailId, does: &str) {
        if self.owner_knows_tombstone(h) {
            self.violate(Rule::R7, format!("{} {does} {h} again, which is gone", self.name(p)));
        }
    }

    /// R7: what was tombstoned before a restore is gone for its owner again, as soon as everybody could tell it.
    pub(crate) fn check_adopted(&mut self) {
        let before = self.truth.endings_before.keys();
        let open = before.into_iter().find(|h| {
            let owner = &self.peers[self.truth.mails[h].owner];
            let ledger = &owner.disk.ledger;
            let is_open = ledger.sealed.contains(h) && !ledger.tombstoned.contains_key(h);
            owner.is_up() && !owner.removed && is_open && self.is_entombed_elsewhere(h)
        });
        if let Some(h) = open.copied() {
            let owner = self.name(self.truth.mails[&h].owner);
            self.violate(Rule::R7, format!("{owner} still has {h} as open, which members know to be gone"));
        }
    }
}
