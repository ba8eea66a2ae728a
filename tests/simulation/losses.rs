//! Disks that die, as many at once as safe(f) says may go or one more, and mails that their own owners must get back: what is
//! readable from what is left, and what is not.

use std::collections::BTreeSet;

use roost::core::outbox::{self, MailStatus, RecoverJob};
use roost::core::postbox::MailKey;
use roost::core::{Brain, fetch, replicator};
use roost::model::notification::Ns;
use roost::model::{Address, Digest, Encoding, MailId, Part, PeerId, SubmissionId, Urgency};
use roost::wire;

use super::checker::{Letter, Orphan, Promise, readable};
use super::disk::{Disk, DiskOp, Record, SealedNs};
use super::liars::Lie;
use super::peer::{After, Tell, Waiter};
use super::sabotage::Saboteur;
use super::world::{Happening, World};

impl World {
    /// The disk of `owner` dies, and at the same moment those of as many other members as safe(f) of one of its mails allows;
    /// or of `beyond` more.
    pub(crate) fn disks_die(&mut self, owner: usize, beyond: usize) {
        let now = self.now(owner);
        let status = self.peers[owner].brains.as_ref().map(|brains| brains.outbox.observe(now));
        let mails = status.iter().flat_map(|s| &s.submissions).flat_map(|s| &s.mails);
        let safest = mails.max_by_key(|mail| mail.safe).map(|mail| (mail.h, mail.safe));
        let f = safest.map_or(0, |(_, safe)| usize::try_from(safe).unwrap_or(0));
        let holders: Vec<usize> = safest.map(|(h, _)| self.holders(owner, &h)).into_iter().flatten().collect();
        let most = self.rng.between(0, 1000);
        let many = if most < 700 { f } else { self.rng.index(f + 1) } + beyond;
        let mut others: Vec<usize> =
            self.gd.members.iter().copied().filter(|m| *m != owner && !self.peers[*m].dead).collect();
        let mut dying = vec![owner];
        while dying.len() <= many && !others.is_empty() {
            // Mostly those that hold the mail.
            let hold: Vec<usize> = others.iter().copied().filter(|other| holders.contains(other)).collect();
            let among = if !hold.is_empty() && self.rng.chance(850) { &hold } else { &others };
            let next = *self.rng.pick(among);
            others.retain(|other| *other != next);
            dying.push(next);
        }
        self.say(|w| {
            format!("safe({f}) is shown; the disks of {:?} die", dying.iter().map(|p| w.name(*p)).collect::<Vec<_>>())
        });
        for p in &dying {
            self.note_death(*p);
        }
        for p in dying {
            self.crash(p);
            self.peers[p].dead = true;
        }
    }

    /// Remembers what a dying disk leaves to the others.
    fn note_death(&mut self, p: usize) {
        self.orphan(p, self.promises(p));
    }

    /// The same of one who is removed: what it showed to be safe, those who stay keep for its readers.
    pub(crate) fn note_removal(&mut self, p: usize) {
        let before = || {
            let own = self.truth.shown.iter().filter(|(h, _)| self.truth.mails[h].owner == p);
            own.map(|(h, promise)| (*h, promise.clone())).collect()
        };
        let promises = match (self.peers[p].dead, self.peers[p].is_up()) {
            (true, _) => Vec::new(),
            (_, true) => self.promises(p),
            _ => before(),
        };
        self.orphan(p, promises);
    }

    /// Mails that their readers know of, and how safe they were shown to be.
    fn orphan(&mut self, p: usize, promises: Vec<(MailId, Promise)>) {
        for (h, promise) in promises {
            let sealed = &self.truth.mails[&h];
            let key = MailKey { sender: self.peers[p].fingerprint, submission: sealed.submission };
            for reader in &sealed.receivers {
                let told = self.at(reader).filter(|r| self.peers[*r].disk.ledger.announced.contains(&key));
                if told.is_some() {
                    let (reader, promise) = (reader.clone(), promise.clone());
                    self.truth.orphans.push(Orphan { h, reader, promise });
                }
            }
        }
    }

    /// Members that an owner may count for a mail.
    fn holders(&self, p: usize, h: &MailId) -> BTreeSet<usize> {
        self.counted(p, h).into_keys().map(|member| self.index(&member)).collect()
    }

    /// What a peer shows of its open mails that are safe.
    fn promises(&self, p: usize) -> Vec<(MailId, Promise)> {
        let Some(brains) = &self.peers[p].brains else { return Vec::new() };
        let (status, owner) = (brains.outbox.observe(self.now(p)), self.peers[p].id);
        let mails = status.submissions.iter().flat_map(|s| &s.mails).filter(|mail| mail.safe >= 0);
        let encoding = |length: u64| self.gd.policy.encoding_for(length, self.gd.others_staying(p));
        let promise = |mail: &MailStatus| {
            let (h, safe) = (mail.h, mail.safe);
            let moving = mail.moving || mail.encoding != encoding(mail.length);
            let counted = self.counted(p, &h);
            let is_emptied = |m: &usize, parts: &BTreeSet<Part>| {
                let here = &self.peers[*m].disk.parts;
                self.truth.restored.contains_key(m) && !parts.iter().all(|part| here.contains(&(owner, h, *part)))
            };
            let all = || counted.iter().map(|(member, parts)| (self.index(member), parts));
            let emptied = all().filter(|(m, parts)| is_emptied(m, parts)).map(|(m, _)| m).collect();
            let whole = all().filter(|(_, parts)| parts.contains(&Part::Whole)).map(|(m, _)| m).collect();
            Promise { safe, holders: self.holders(p, &h), whole, emptied, moving, at: self.t }
        };
        mails.map(|mail| (mail.h, promise(mail))).collect()
    }

    /// Remembers what a peer shows as it goes down. What it was told of and has not written yet it has to be told again.
    pub(crate) fn note_shown(&mut self, p: usize) {
        self.forget_told_of(p);
        let (promises, mails) = (self.promises(p), &self.truth.mails);
        self.truth.shown.retain(|h, _| mails[h].owner != p);
        self.truth.shown.extend(promises);
    }

    /// A peer comes back with an old disk: what it showed of mails that are not on that one must hold.
    pub(crate) fn note_promised(&mut self, p: usize, old: &Disk) {
        let here = &self.peers[p].disk.blobs;
        let lost = self.truth.shown.iter().filter(|(h, _)| old.blobs.contains_key(h) && !here.contains_key(h));
        let own: Vec<_> = lost.filter(|(h, _)| self.truth.mails[h].owner == p).map(|(h, p)| (*h, p.clone())).collect();
        self.truth.promised.extend(own);
    }

    /// Whether more holders were lost to `reader` than safe(f) said may go.
    pub(crate) fn is_void(&self, h: &MailId, promise: &Promise, reader: usize) -> bool {
        let at = self.truth.mails[h].owner;
        let owner = self.peers[at].id;
        let (made, expiry) = (self.truth.mails[h].made, self.truth.mails[h].expiry);
        // Nobody need wait, to leave, for others to hold what it holds of one who was removed.
        let may_go = |m: usize| !self.gd.members.contains(&at) && self.has_left(m);
        // Who said falsely of this very mail that it is gone, say, is not asked for it again.
        let is_found_out = |m: &usize| self.truth.found_out.contains(&(reader, *h, self.peers[*m].id));
        // An owner that must get its own mail back has nothing from who says to it that the mail is gone; nobody has from one that says
        // so for good.
        let denies = |m: &usize| self.denies(*m, h) || (reader == at && self.lies(*m, Lie::DeniesParts));
        // Who lies about parts is a holder that is lost, as long as nobody has found it out; so is one that comes back with an old disk.
        let is_lost = |m: &&usize| {
            let restored = self.truth.restored.get(m).is_some_and(|when| *when >= promise.at);
            let rot = self.peers[**m].disk.rotted.iter().any(|(o, of, _)| (o, of) == (&owner, h));
            self.peers[**m].dead
                || self.peers[**m].removed
                || may_go(**m)
                || self.is_false_holder(**m)
                || is_found_out(m)
                || denies(m)
                || self.is_fooled_about(**m, made, expiry)
                || rot
                || restored
                || promise.emptied.contains(m)
        };
        // A liar that a holder gave its part up for, as placement says, stands for that one; so does one whose part has rotted. Who
        // kept only a fragment of what it had whole gave up what the others' fragments have to make up for.
        let holds = |m: &usize| self.peers[*m].disk.parts.iter().any(|(o, of, _)| (*o, of) == (owner, h));
        let has_whole = |m: &usize| self.peers[*m].disk.parts.contains(&(owner, *h, Part::Whole));
        let cut_down = |m: &usize| promise.whole.contains(m) && !has_whole(m);
        let gave_up = promise.holders.iter().any(|m| !self.peers[*m].dead && (!holds(m) || cut_down(m)));
        let stands_in = |m: &usize| {
            let is_false = self.is_false_holder(*m) || is_found_out(m) || denies(m);
            self.has_rot(*m, owner, h) || (is_false && (holds(m) || self.lies_of_parts(*m)))
        };
        let liars = self.once_members().filter(|m| gave_up && stands_in(m) && !promise.holders.contains(m));
        let lost: BTreeSet<usize> = promise.holders.iter().filter(is_lost).copied().collect();
        let fewer = i32::try_from(self.given_up_for_nobody(h, promise, &lost, &stands_in)).unwrap();
        // Nobody gives up what is needed for as many losses as are declared.
        let safe = (promise.safe - fewer).max(0).min(self.declared_since(promise, h));
        i32::try_from(lost.len() + liars.count()).unwrap() > safe
    }

    /// A record is durable. Who holds a part of a mail again by that has not given it up any more: if it goes once more, then by what
    /// is right at that time. Not where the file is gone or about to go: then it was written before that.
    pub(crate) fn append(&mut self, p: usize, record: Record) {
        if let Record::Replicator(bytes) = &record
            && let replicator::Event::Held { owner, h, part } = wire::decode(bytes).unwrap()
        {
            let (peer, part) = (&self.peers[p], (owner, h, part));
            let is_going = |op: &DiskOp| matches!(op, DiskOp::DropParts(parts) if parts.contains(&part));
            if peer.disk.parts.contains(&part) && !peer.ops.values().any(|(op, _)| is_going(op)) {
                self.truth.moved_away.remove(&(p, h));
            }
        }
        self.check_record(p, &record);
        self.check_written(p, &record);
        let is_news = self.is_news(p, &record);
        self.peers[p].disk.append(record);
        if is_news {
            self.learns(p);
        }
    }

    /// How many that had a mail whole gave it up by right since it was shown, with nobody in their place: as placement says, others were
    /// enough. The checker looks at each such drop (R3). From then on as many losses fewer are survived than were shown, while there were
    /// more than needed.
    fn given_up_for_nobody(
        &self,
        h: &MailId,
        promise: &Promise,
        lost: &BTreeSet<usize>,
        stands_in: &impl Fn(&usize) -> bool,
    ) -> usize {
        let owner = self.peers[self.truth.mails[h].owner].id;
        let holds = |m: &usize| self.peers[*m].disk.parts.iter().any(|(o, of, _)| (*o, of) == (owner, h));
        let by_right = |m: &usize| self.truth.moved_away.get(&(*m, *h)).is_some_and(|at| *at >= promise.at);
        let gave_up = promise.whole.difference(lost).filter(|m| !holds(m) && by_right(m)).count();
        // What was left on a disk that died, or with one who is no member any more, is in nobody's place: nobody asks there.
        let can_give = |m: &usize| holds(m) && !self.peers[*m].dead && self.peers[*m].in_group;
        let is_in_place = |m: &usize| !promise.holders.contains(m) && (can_give(m) || stands_in(m));
        let came = self.once_members().filter(is_in_place).count();
        gave_up.saturating_sub(came)
    }

    /// An owner learns that a member missed an audit: what that one reported before does not count any more.
    pub(crate) fn audit_missed(&mut self, p: usize, member: PeerId, h: MailId, input: outbox::Input) {
        self.say(|w| format!("{} finds that {} cannot show {h}", w.name(p), w.name(w.index(&member))));
        self.truth.missed.entry((h, member)).or_default().push((self.t, None));
        if let Some(belief) = self.truth.beliefs.get_mut(&(p, member)) {
            belief.remove(&h);
        }
        if !self.is(Saboteur::IgnoresMisses) {
            self.hand(p, Tell::Outbox(input));
            // Of a member that has said meanwhile that it lost its part nothing is counted that could be missed, and what it says next
            // is new. That nothing else is passed over is for the brain's own tests.
            if let Some(all) = self.truth.missed.get_mut(&(h, member)) {
                all.pop_if(|(at, wall)| *at == self.t && wall.is_none());
            }
        }
        // What it shows must be lower as soon as that is durable.
        let life = self.peers[p].life;
        let soon = self.params.fsync_ms * 4 + 1000;
        self.later(soon, Happening::LooksAtSafety { p, life });
    }

    /// The owner is about to write that a member missed an audit: by this the miss is known again after a crash.
    pub(crate) fn note_misses(&mut self, events: &[outbox::Event]) {
        for event in events {
            let outbox::Event::Missed { member, h, at, .. } = event else { continue };
            if let Some((_, wall)) = self.truth.missed.get_mut(&(*h, *member)).and_then(|all| all.last_mut()) {
                *wall = Some(*at);
            }
        }
    }

    /// A crash lets an owner forget what was not durable yet.
    pub(crate) fn forget_misses(&mut self, p: usize) {
        let (mails, known) = (&self.truth.mails, &self.peers[p].disk.ledger.missed);
        for ((h, member), all) in self.truth.missed.iter_mut().filter(|((h, _), _)| mails[h].owner == p) {
            let durable = known.get(&(*member, *h));
            all.retain(|(_, wall)| wall.is_some_and(|wall| durable.is_some_and(|durable| durable.contains(&wall))));
        }
    }

    /// Puts an own mail together again from what members hold, as the actor does it.
    pub(crate) fn recover(&mut self, p: usize, job: RecoverJob) {
        let facts = &job.facts;
        let (h, length, digest, owner) = (facts.h, facts.length, facts.digest, self.peers[p].id);
        let (sources, urgency) = (job.sources.clone(), Urgency::Background);
        let order = fetch::Order { h, length, digest, owner, sources, urgency };
        let token = self.wait(p, Waiter::Recover(Box::new(job)));
        self.hand(p, Tell::Fetch(fetch::Input::Want(token, order)));
    }

    /// It was pulled, or not: mail and ns made anew become durable.
    pub(crate) fn recovered(&mut self, p: usize, job: RecoverJob, reply: fetch::Reply) {
        let h = job.facts.h;
        match reply {
            fetch::Reply::Fetched(_) => {
                self.peers[p].disk.fetched.remove(&h);
                let notices: Vec<(Address, SealedNs)> =
                    job.receivers.iter().map(|(to, ..)| (to.clone(), self.sealed_again(p, &job, to))).collect();
                let names: Vec<(Address, Digest)> = notices.iter().map(|(to, ns)| (to.clone(), ns.name())).collect();
                let told = Tell::Outbox(outbox::Input::Recovered { h, result: Ok(names) });
                self.disk(p, DiskOp::Blob(h, notices, job.facts.encoding), After::Tell(Box::new(told)));
            }
            fetch::Reply::Failed(why) => {
                let result = Err(why.to_string());
                self.tell_later(p, 50, Tell::Outbox(outbox::Input::Recovered { h, result }));
            }
            fetch::Reply::Progress(_) => {}
        }
    }

    fn sealed_again(&mut self, p: usize, job: &RecoverJob, to: &Address) -> SealedNs {
        let letter = &self.truth.letters[&job.submission];
        let secret = job.receivers.iter().find(|(address, ..)| address == to).map(|(.., secret)| secret.clone());
        let peer = &self.peers[p];
        let ns = Ns {
            submission: job.submission,
            h: job.facts.h,
            length: job.facts.length,
            digest: job.facts.digest,
            to: to.clone(),
            from: peer.address.clone(),
            from_fingerprint: peer.fingerprint,
            owner: peer.id,
            group: peer.address.group().clone(),
            group_key: self.key_of(p),
            expiry: job.expiry,
            header_block: letter.header_block.clone(),
            structure: letter.structure.clone(),
            secret: secret.unwrap(),
        };
        SealedNs { ns, signer: peer.fingerprint, nonce: self.fresh() }
    }

    /// Whether a restored owner has lost the sealed mail for a receiver, and what members that are there hold does not make it,
    /// as more holders were lost than its safe(f) said may go, if it was safe at all.
    pub(crate) fn is_beyond_recovery(&self, id: &SubmissionId, letter: &Letter, receiver: &Address) -> bool {
        let owner = &self.peers[letter.from];
        let forms = self.truth.mails.iter().filter(|(h, mail)| {
            mail.submission == *id && mail.receivers.contains(receiver) && owner.disk.ledger.sealed.contains(*h)
        });
        let mut forms = forms.peekable();
        let kept =
            |h: &MailId| self.truth.promised.get(h).is_some_and(|promise| !self.is_void(h, promise, letter.from));
        // Nobody looks for a mail of which it was never told.
        let key = MailKey { sender: owner.fingerprint, submission: *id };
        let knows = |reader: usize| self.peers[reader].disk.ledger.announced.contains(&key);
        let is_here = |h: &MailId| self.at(receiver).is_some_and(|r| knows(r) && self.has_itself(r, h));
        forms.peek().is_some() && forms.all(|(h, _)| self.is_unreadable(h) && !kept(h) && !is_here(h))
    }

    /// Whether a reader has on its own disk what makes a mail: it needs nobody else, also when it was removed.
    pub(crate) fn has_itself(&self, reader: usize, h: &MailId) -> bool {
        let (peer, owner) = (&self.peers[reader], self.peers[self.truth.mails[h].owner].id);
        let is_right =
            |part: &&(PeerId, MailId, Part)| (part.0, part.1) == (owner, *h) && !peer.disk.rotten.contains_key(*part);
        peer.is_up() && !peer.liar && readable(peer.disk.parts.iter().filter(is_right).map(|(.., part)| part))
    }

    /// Whether a restored owner has lost a sealed mail, and what members that are there hold does not make it. One that served
    /// wrong blocks of it holds nothing for those who found that out: they do not ask it for that mail again (R6).
    pub(crate) fn is_unreadable(&self, h: &MailId) -> bool {
        let at = self.truth.mails[h].owner;
        let owner = &self.peers[at];
        if !self.truth.restored.contains_key(&at) || owner.disk.blobs.contains_key(h) {
            return false;
        }
        let lacking = self.lacking(at, h);
        let is_shunned = |m: &PeerId| lacking.iter().all(|p| self.truth.found_out.contains(&(*p, *h, *m)));
        // Nobody asks one that was removed.
        let there = self.peers.iter().filter(|p| p.is_up() && !p.liar && !p.removed && !is_shunned(&p.id));
        let right = |p: &'_ super::peer::Peer| -> Vec<(PeerId, MailId, Part)> {
            p.disk.parts.iter().filter(|part| !p.disk.rotten.contains_key(*part)).copied().collect()
        };
        let parts = there.flat_map(right).filter(|(o, m, _)| (*o, m) == (owner.id, h));
        let parts: Vec<Part> = parts.map(|(.., part)| part).collect();
        !readable(parts.iter())
    }

    /// Who would put together a mail that its owner has lost: the owner, and who is placed for it and holds no part of it; but only the
    /// owner where nobody has the manifest by which what others hold is made into what is placed.
    fn lacking(&self, at: usize, h: &MailId) -> Vec<usize> {
        let owner = self.peers[at].id;
        let encoding = self.encoding_of(at, h);
        let is_known = |encoding: &Encoding| {
            let mut there = self.peers.iter().filter(|p| p.is_up() && !p.liar && !p.removed);
            there.any(|p| p.disk.manifests.contains(&(*h, *encoding)))
        };
        let placed = encoding.filter(is_known).map(|encoding| self.placed_for(at, owner, *h, encoding));
        let placed = placed.into_iter().flatten().map(|member| self.index(&member));
        let holds = |m: &usize| self.peers[*m].disk.parts.iter().any(|(o, of, _)| (*o, of) == (owner, h));
        placed.filter(|m| !holds(m)).chain([at]).collect()
    }

    /// What is shown for a mail that is not shown: less than anything, but for one of two sealed forms of one submission.
    pub(crate) fn form_of_before(&self, p: usize, h: &MailId) -> Option<i32> {
        let of = |other: &MailId| self.truth.mails[other].submission == self.truth.mails[h].submission;
        let mut others = self.peers[p].disk.ledger.sealed.iter().filter(|other| *other != h);
        let is_double = self.truth.restored.contains_key(&p) && others.any(of);
        (!is_double).then_some(i32::MIN)
    }
}
