//! What must hold at the end of a run, and at its turns: after everything has healed, nothing is lost, nothing stays, all rests.

use std::collections::BTreeSet;
use std::time::Duration;

use roost::core::outbox::EndedAs;
use roost::core::postbox::MailKey;
use roost::core::{Brain, outbox};
use roost::model::holding::HoldingState;
use roost::model::msglist::Ending;
use roost::model::notification::Outcome;
use roost::model::{Address, Encoding, MailId, Part, PeerId, Policy, SubmissionId, WallTime};

use super::checker::{Letter, Orphan, Rule, survives};
use super::dht::NrInDht;
use super::liars::Lie;
use super::network::{CallRef, PATIENCE_MS, Pending};
use super::policy::is_of;
use super::world::World;

/// Messages that a member may send a minute while nothing happens.
const MESSAGES_A_MINUTE: u64 = 60;
/// How long an owner asks the readers of a mail that is over before it ends it.
const LAST_CHANCE_MS: u64 = 10_000;
/// Whoever hears that a sender is there gives it its nr within this: after an attempt that was under way, and nobody answered.
const TOLD_MS: u64 = PATIENCE_MS + LAST_CHANCE_MS;
/// Pause between attempts of one who does not hear that, at most.
const TRIES_AGAIN_MS: u64 = 300_000;
/// A mirror keeps a part for a day after its mail has expired, and looks now and then.
pub(crate) const KEPT_AFTER: Duration = Duration::from_secs(26 * 3600);

impl World {
    /// An owner takes a word: from now on it knows what its member did not hold when that was said. A liar may have claimed the part
    /// since; then that is what counts. When the answer comes, the owner may have an old disk again, and know nothing of it.
    pub(crate) fn note_told(&mut self, from: CallRef) {
        let caller = &self.peers[from.caller];
        let call = caller.calls.get(&from.call).filter(|_| caller.life == from.life);
        let Some((_, Pending::Report { word, said_at, .. })) = call else { return };
        let (word, said_at, member) = (word.clone(), *said_at, word.member);
        for item in &word.items {
            let belief = self.truth.beliefs.get_mut(&(self.index(&word.owner), member));
            if let Some(parts) = belief.and_then(|belief| belief.get_mut(&item.h)) {
                parts.remove(&item.part);
            }
            if item.state != HoldingState::Held
                && let Some(parts) = self.truth.reported.get_mut(&item.h).and_then(|m| m.get_mut(&member))
            {
                parts.retain(|part, at| *part != item.part || *at > said_at);
            }
        }
    }

    /// Owners that are there, with their open mails.
    fn open_mails(&self) -> Vec<(usize, MailId)> {
        let is_open = |p: usize, h: &MailId| !self.peers[p].disk.ledger.tombstoned.contains_key(h);
        let mut all = Vec::new();
        for (p, peer) in self.peers.iter().enumerate().filter(|(_, peer)| peer.is_up()) {
            all.extend(peer.disk.ledger.sealed.iter().filter(|h| is_open(p, h)).map(|h| (p, *h)));
        }
        all
    }

    /// R12: each open mail is held by every member that placement names, and its owner knows.
    pub(crate) fn check_target(&mut self) {
        for (p, h) in self.open_mails() {
            let (owner, mail) = (&self.peers[p], &self.truth.mails[&h]);
            if mail.expiry <= self.now(p).wall || !owner.in_group || self.is_unreadable(&h) || self.lies_in_lists(p) {
                continue;
            }
            let members: Vec<PeerId> = owner.roster.others().map(|m| m.peer_id).collect();
            let Some(encoding) = self.encoding_of(p, &h) else { continue };
            let placed = self.placed_for(p, owner.id, h, encoding);
            let placed: Vec<usize> = placed.iter().map(|member| self.index(member)).collect();
            // So many died that nobody may say who counts as lost: nothing can be repaired.
            if self.gd.members.iter().filter(|member| self.peers[**member].dead).count() * 2 > self.gd.members.len() {
                continue;
            }
            let parts_of = |member: usize| -> BTreeSet<Part> {
                let disk = &self.peers[member].disk;
                let parts = disk.parts.iter().filter(|(o, m, _)| (*o, *m) == (owner.id, h));
                let parts = parts.filter(|part| !disk.rotten.contains_key(*part));
                parts.map(|(.., part)| *part).collect()
            };
            // Whoever had to take a wrong clock for right has forgotten what it held to be over.
            let (made, expiry) = (self.truth.mails[&h].made, self.truth.mails[&h].expiry);
            let is_blind = |member: usize| self.is_fooled_about(member, made, expiry) || self.hides_list_of(p, member);
            let keeps = |member: &&usize| !self.lies(**member, Lie::HoldsNothing) && !is_blind(**member);
            let held: Vec<BTreeSet<Part>> = placed.iter().filter(keeps).map(|member| parts_of(*member)).collect();
            // Nobody takes the part of whom names every part, nor hears what a liar holds that denies the mail for good: what the others
            // hold is distinct all the same.
            let is_true = |member: &&usize| !self.lies(**member, Lie::ClaimsAll) && !self.denies(**member, &h);
            let told: Vec<_> = placed.iter().filter(keeps).filter(is_true).map(|member| parts_of(*member)).collect();
            let distinct: BTreeSet<_> = told.iter().flatten().filter(|part| is_of(encoding, **part)).collect();
            let enough = match encoding {
                Encoding::Whole => true,
                Encoding::Fragments { n, .. } => distinct.len() >= told.len().min(usize::from(n)),
            };
            // A second sealed form of a mail, from before a restore, is not shown on its own.
            let Some(shown) = self.shown_safe(p, h).or_else(|| self.form_of_before(p, &h)) else { continue };
            // A liar confirms what it then cannot show, again and again.
            let honest: Vec<_> = placed.iter().filter(|m| !self.peers[**m].liar).map(|m| parts_of(*m)).collect();
            let (name, counted) = (self.name(p), survives(&honest));
            let live = members.iter().filter(|member| owner.roster.counts(member));
            // What a liar says it holds counts, as long as nobody has found it out.
            let said = self.counted(p, &h);
            let really = live.map(|member| {
                let mut parts = parts_of(self.index(member));
                let believed = said.get(member).filter(|_| self.lies_of_parts(self.index(member)));
                parts.extend(believed.into_iter().flatten());
                parts
            });
            let really = survives(&really.collect::<Vec<_>>());
            if shown >= 0 && shown > really {
                return self.violate(Rule::R8, format!("{name} shows safe({shown}) of {h}, and members hold {really}"));
            }
            if held.iter().any(BTreeSet::is_empty) || !enough {
                return self.violate(Rule::R12, format!("{h} of {name} is not held as placed: {held:?}"));
            }
            // Below zero the checker does not say how far.
            if !held.is_empty() && shown.max(-1) < counted {
                return self
                    .violate(Rule::R12, format!("{name} shows safe({shown}) of {h} and does not learn of {counted}"));
            }
        }
        self.check_moved();
    }

    pub(crate) fn shown_safe(&self, p: usize, h: MailId) -> Option<i32> {
        let status: outbox::OutboxStatus = self.peers[p].brains.as_ref()?.outbox.observe(self.now(p));
        status.submissions.iter().flat_map(|s| &s.mails).find(|m| m.h == h).map(|m| m.safe)
    }

    /// Whether every mail of every peer that is there has come to its end.
    pub(crate) fn all_ended(&self) -> bool {
        let ended = |(id, letter): (&SubmissionId, &Letter)| {
            let owner = &self.peers[letter.from];
            let waits = owner.is_up() && owner.disk.ledger.submitted.contains_key(id);
            let over = |r: &Address| self.end_of(id, letter, r).is_some() || self.is_excused(id, letter, r);
            !waits || letter.receivers.iter().all(over)
        };
        self.truth.letters.iter().all(ended)
            && (0..self.peers.len()).all(|p| self.open_nr(p) == 0)
            && self.truth.orphans.iter().all(|orphan| !self.is_missed(orphan))
    }

    /// Whether the reader of a mail whose owner's disk died has neither had it nor refused it, and still could: of the members
    /// that its safe(f) counted, no more were lost than it said may go.
    fn is_missed(&self, Orphan { h, reader, promise }: &Orphan) -> bool {
        let mail = &self.truth.mails[h];
        let key = MailKey { sender: self.peers[mail.owner].fingerprint, submission: mail.submission };
        // A restored reader that knows of it must get it too.
        let knows = |r: &usize| self.peers[*r].disk.ledger.announced.contains(&key);
        let there = |r: &usize| self.peers[*r].is_up() && knows(r);
        let Some(r) = self.at(reader).filter(there) else { return false };
        if self.is_void(h, promise, r) && !self.has_itself(r, h) {
            return false;
        }
        // One who was removed, whom nobody tells that its clock is wrong, ends its mail by that one: its signed word counts (R3).
        let owner = &self.peers[mail.owner];
        let is_fooled = self.is_fooled_about(mail.owner, mail.made, mail.expiry);
        let by_wrong_clock =
            owner.removed && is_fooled && owner.disk.ledger.tombstoned.get(h) == Some(&Ending::Expired);
        let cancelled = self.truth.cancelled.contains(&mail.submission) || by_wrong_clock;
        let said = cancelled || self.truth.nrs.contains_key(&(mail.submission, *h, reader.clone()));
        !said && !self.peers[r].disk.ledger.pulled.contains(&key) && mail.expiry > self.now(r).wall
    }

    fn end_of(&self, id: &SubmissionId, letter: &Letter, receiver: &Address) -> Option<EndedAs> {
        self.peers[letter.from].disk.ledger.ended.get(&(*id, receiver.clone())).copied()
    }

    /// Whether nobody can say anything about a mail before it expires: its reader is gone for good, or the mail is, with its
    /// owner's disk. Nor of a receiver that a restored owner truly cannot know.
    pub(crate) fn is_excused(&self, id: &SubmissionId, letter: &Letter, receiver: &Address) -> bool {
        if self.is_forgotten(id, letter, receiver) {
            return true;
        }
        let reader = self.at(receiver);
        let gone = reader.is_some_and(|r| self.peers[r].dead || self.peers[r].left);
        // Nobody believes any more what one who was removed says of its mails; who had heard of one before reads it, and says so. That
        // it says once: whoever came back with an old disk, and forgot that it had taken that word, asks in vain.
        let key = MailKey { sender: self.peers[letter.from].fingerprint, submission: *id };
        let has_heard = |r: usize| r == letter.from || self.peers[r].disk.ledger.announced.contains(&key);
        let forgot = self.truth.said_before.contains(&(*id, receiver.clone()));
        let is_new_to = reader.is_none_or(|r| !has_heard(r));
        // The same of one who left just as its user mailed, where the reader goes by a descriptor of the group.
        let is_nobody = is_new_to && reader.is_some_and(|r| self.is_named_by_no_gd(letter.from, r));
        let unheard = (self.peers[letter.from].removed && (forgot || is_new_to)) || is_nobody;
        let lives = self.lives_until(id, letter) + Duration::from_secs(600) > self.now(letter.from).wall;
        (gone || unheard || self.is_beyond_recovery(id, letter, receiver))
            && (lives || self.is_left_in_doubt(letter.from))
    }

    /// Until when a mail lives: as long as the policy says; or, where its owner was no member as it mailed, as long as one that is alone
    /// lets mails live. Which of the two that was, its own journal tells.
    fn lives_until(&self, id: &SubmissionId, letter: &Letter) -> WallTime {
        let by = |policy: &Policy| letter.at + policy.life.duration();
        let alone = by(&Policy::default());
        let noted = self.peers[letter.from].disk.ledger.expires.get(id);
        let was_alone = noted == Some(&alone) && self.came_or_went(letter.from);
        if was_alone { alone } else { by(&self.params.policy) }
    }

    /// nr that a peer owes to somebody who is there.
    fn open_nr(&self, p: usize) -> usize {
        let gone = self.peers.iter().any(|peer| peer.dead || peer.left);
        let status = self.peers[p].brains.as_ref().map(|b| b.postbox.observe(self.now(p)));
        status.filter(|_| !gone).map_or(0, |s| s.nr_open)
    }

    /// R2: what got a 250 ends, and its sender is told of each failure exactly once.
    pub(crate) fn check_outcomes(&mut self) {
        let mut wrong = Vec::new();
        for (id, letter) in &self.truth.letters {
            let owner = &self.peers[letter.from];
            if !owner.is_up() || !owner.disk.ledger.submitted.contains_key(id) {
                let all_forgotten = || letter.receivers.iter().all(|r| self.is_forgotten(id, letter, r));
                if self.truth.acknowledged.contains(id) && owner.is_up() && !all_forgotten() {
                    wrong.push(format!("{id} of {} got a 250 and is gone", owner.address));
                }
                continue;
            }
            for receiver in &letter.receivers {
                let Some(why) = self.end_of(id, letter, receiver) else {
                    if self.is_excused(id, letter, receiver) {
                        continue;
                    }
                    wrong.push(format!("{id} of {} never ends for {receiver}", owner.address));
                    continue;
                };
                let asked = self.truth.dsns.iter().find(|(_, (p, s, r))| (*p, s, r) == (letter.from, id, receiver));
                let filed = asked.map_or(0, |(dsn, _)| owner.disk.ledger.filed.get(dsn).copied().unwrap_or(0));
                if filed != usize::from(why.sends_dsn()) {
                    wrong.push(format!("{} was told {filed} times that {id} is {why:?} for {receiver}", owner.address));
                }
                if why == EndedAs::Expired && self.is_falsely_expired(id, letter, receiver) {
                    wrong.push(format!("{id} counts as expired for {receiver}, who has it"));
                }
                let reader = self.at(receiver);
                let key = MailKey { sender: owner.fingerprint, submission: *id };
                if why == EndedAs::Received
                    && let Some(reader) = reader.filter(|r| !self.is_body_lost(*r, key))
                    && !self.peers[reader].disk.ledger.pulled.contains(&key)
                {
                    wrong.push(format!("{id} counts as received by {receiver}, who has it not"));
                }
            }
        }
        for orphan in self.truth.orphans.iter().filter(|orphan| self.is_missed(orphan)) {
            let Orphan { h, reader, .. } = orphan;
            wrong.push(format!("{h} was safe when its owner was lost, and {reader} cannot read it"));
        }
        if let Some(why) = wrong.into_iter().next() {
            self.violate(Rule::R2, why);
        }
    }

    /// An owner ends a mail as expired: whether its reader's word could have come. A mail that was sent by a clock far behind is over
    /// as soon as that is right again, and who read it may be off by then, and have met its owner at no time since: it said so to nobody.
    pub(crate) fn note_unheard(&mut self, p: usize, id: SubmissionId, receiver: &Address) {
        let (owner, which) = (&self.peers[p], (id, receiver.clone()));
        // Who is there for the whole of the last chance says it then, straight or over the DHT.
        let is_away = |r: usize| {
            let reader = &self.peers[r];
            !reader.is_up() || self.t - reader.started < LAST_CHANCE_MS || reader.side != owner.side
        };
        // Members hear at once that the other one is there. Whoever is outside tries again after a while.
        let are_members = |r: usize| owner.in_group && owner.roster.has(&self.peers[r].id);
        let chance = |r: usize| if are_members(r) { TOLD_MS } else { TOLD_MS + TRIES_AGAIN_MS };
        let signed_at = self.truth.signed_at.get(&which).copied();
        let could_say = |r: usize| signed_at.is_some_and(|since| self.were_together(p, r, since, chance(r)));
        let is_unheard = |r: usize| is_away(r) && !could_say(r) && !self.is_said_by_dht(p, r, &which);
        if self.at(receiver).is_some_and(is_unheard) {
            self.truth.unheard.insert(which);
        } else {
            self.truth.unheard.remove(&which);
        }
    }

    /// Whether a reader's word lies in the DHT where the owner can read it, or was there and the owner has deleted it, or would have to
    /// be there: the reader had as much time to put it as one has who hears nobody, since it signed it or last tried in vain.
    fn is_said_by_dht(&self, p: usize, r: usize, which: &(SubmissionId, Address)) -> bool {
        let owner = &self.peers[p];
        match self.dht.nr(&owner.address, &which.0, &which.1) {
            NrInDht::Lies => owner.side == 0,
            NrInDht::Deleted => true,
            NrInDht::Lost => false,
            NrInDht::Never => {
                let signed_at = self.truth.signed_at.get(which);
                let since = signed_at.max(self.dht.failed.get(which)).filter(|_| signed_at.is_some());
                since.is_some_and(|since| self.reached_dht(r, *since, TOLD_MS + TRIES_AGAIN_MS))
            }
        }
    }

    /// Whether a mail was declared expired though its reader, who was there to say so, signed that it has it. Not by one that had to
    /// take a wrong clock for right: it heard nobody, so no reader either.
    fn is_falsely_expired(&self, id: &SubmissionId, letter: &Letter, receiver: &Address) -> bool {
        let expiry = letter.at + self.params.policy.life.duration();
        let is_fooled = self.is_fooled_about(letter.from, letter.made, expiry);
        if is_fooled || self.truth.unheard.contains(&(*id, receiver.clone())) {
            return false;
        }
        let stayed = |p: usize| self.peers[p].is_up() && !self.truth.restored.contains_key(&p);
        let signed = |((of, _, reader), outcomes): (&(SubmissionId, MailId, Address), &Vec<Outcome>)| {
            of == id && reader == receiver && outcomes.contains(&Outcome::Received)
        };
        stayed(letter.from) && self.at(receiver).is_some_and(stayed) && self.truth.nrs.iter().any(signed)
    }

    /// R7: nothing that is gone is still on a disk. An owner that is lost itself may have told nobody.
    pub(crate) fn check_gone(&mut self) {
        self.check_adopted();
        let gone = |h: &MailId| {
            let at = self.truth.mails[h].owner;
            let owner = &self.peers[at];
            // Nobody can read the end of a mail in a msglist that forks.
            owner.is_up() && !self.lies_in_lists(at) && owner.disk.ledger.tombstoned.contains_key(h)
        };
        // Nobody follows the list of one who has left: whoever had not heard of the end by then keeps its part until the mail expires.
        let is_followed = |h: &MailId| !self.has_left(self.truth.mails[h].owner);
        let hides = |p: usize, h: &MailId| self.hides_list_of(self.truth.mails[h].owner, p);
        // Nobody tells one who was removed either: it keeps what it did not know to be gone by then, and that until the mail expires.
        let may_keep = |p: usize, owner: PeerId, h: &MailId| {
            let is_over = self.truth.mails[h].expiry + KEPT_AFTER <= self.now(p).wall;
            self.peers[p].removed && !is_over && !self.peers[p].disk.ledger.buried_parts.contains(&(owner, *h))
        };
        let mut wrong = None;
        for (p, peer) in self.peers.iter().enumerate().filter(|(_, peer)| peer.is_up()) {
            let mut parts = peer.disk.parts.iter().map(|(owner, h, _)| (*owner, *h));
            let part = parts.find(|(o, h)| gone(h) && is_followed(h) && !may_keep(p, *o, h) && !hides(p, h));
            let part = part.map(|(_, h)| h);
            let blob = peer.disk.blobs.keys().find(|h| gone(h)).copied();
            if let Some(h) = part.or(blob) {
                wrong = Some(format!("{} still has {h}, which is gone", peer.address));
            }
        }
        if let Some(why) = wrong {
            self.violate(Rule::R7, why);
        }
    }

    /// Whether one that forked its msglist has it from there that an open mail of another is gone, and this peer is one of the two. It
    /// says so whenever it is audited, looks, and confirms its part again: each of these misses is news (R8).
    fn is_denied_for_good(&self, p: usize) -> bool {
        let says_gone = |m: usize, h: &MailId| self.peers[m].disk.ledger.learned_gone.contains(h);
        let open = self.open_mails();
        let denied = |m: usize, of: usize| m != of && open.iter().any(|(owner, h)| *owner == of && says_gone(m, h));
        (0..self.peers.len()).any(|other| denied(other, p) || denied(p, other))
    }

    /// R12: while nothing happens, nothing is written and little is said.
    pub(crate) fn check_rest(&mut self, minutes: u64, commits: &[u64], messages: &[u64]) {
        for p in 0..self.peers.len() {
            let (wrote, said) = (self.commits[p] - commits[p], self.messages[p] - messages[p]);
            if wrote > 0 && !self.is_denied_for_good(p) {
                return self
                    .violate(Rule::R12, format!("{} commits {wrote} times in {minutes} idle minutes", self.name(p)));
            }
            if said > MESSAGES_A_MINUTE * minutes {
                return self
                    .violate(Rule::R12, format!("{} sends {said} messages in {minutes} idle minutes", self.name(p)));
            }
        }
    }
}
