//! What must hold at the end of a run, and at its turns: after everything has healed, nothing is lost, nothing stays, all rests.

use std::collections::BTreeSet;
use std::time::Duration;

use roost::core::outbox::EndedAs;
use roost::core::placement::{Place, whole_copies};
use roost::core::postbox::MailKey;
use roost::core::{Brain, outbox};
use roost::model::holding::HoldingState;
use roost::model::{Address, Encoding, MailId, PeerId, SubmissionId};

use super::checker::{Letter, Rule, survives};
use super::world::World;

/// Messages that a member may send a minute while nothing happens.
const MESSAGES_A_MINUTE: u64 = 60;

impl World {
    /// Remembers what a dying disk leaves to the others: mails that were shown as safe and that their readers know of.
    pub(crate) fn note_death(&mut self, p: usize) {
        let now = self.now(p);
        let Some(brains) = &self.peers[p].brains else { return };
        let status = brains.outbox.observe(now);
        // A liar is a holder that is lost, as long as nobody has found it out; so is one that comes back with an old disk.
        let off = self.params.liars + usize::from(self.params.old_disk);
        let off = i32::try_from(off).unwrap();
        let safe: BTreeSet<MailId> =
            status.submissions.iter().flat_map(|s| &s.mails).filter(|m| m.safe >= off).map(|m| m.h).collect();
        for h in safe {
            let mail = &self.truth.mails[&h];
            let key = MailKey { sender: self.peers[p].fingerprint, submission: mail.submission };
            for reader in &mail.receivers {
                let told = self.at(reader).filter(|r| self.peers[*r].disk.ledger.announced.contains(&key));
                if told.is_some() {
                    self.truth.orphans.push((h, reader.clone()));
                }
            }
        }
    }

    /// An owner took a word: from now on it knows what its member does not hold.
    pub(crate) fn note_told(&mut self, member: PeerId, word: &roost::model::holding::Holdings) {
        for item in &word.items {
            if item.state != HoldingState::Held
                && let Some(parts) = self.truth.reported.get_mut(&item.h).and_then(|m| m.get_mut(&member))
            {
                parts.remove(&item.part);
            }
        }
    }

    /// Owners that are there, with their open mails.
    fn open_mails(&self) -> Vec<(usize, MailId)> {
        let is_open = |p: usize, h: &MailId| !self.peers[p].disk.ledger.tombstoned.contains(h);
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
            if mail.expiry <= self.now(p).wall || !owner.in_group {
                continue;
            }
            let members: Vec<PeerId> = owner.roster.others().map(|m| m.peer_id).collect();
            let copies = whole_copies(&owner.roster, &owner.id);
            let place = Place {
                h: &h,
                encoding: mail.encoding,
                whole_copies: copies,
                members: &members,
                lost: &owner.roster.lost,
            };
            let mut held = Vec::new();
            for member in place.placed() {
                let disk = &self.peers[self.index(&member)].disk;
                held.push(
                    disk.parts
                        .iter()
                        .filter(|(o, m, _)| (*o, *m) == (owner.id, h))
                        .map(|(.., part)| *part)
                        .collect::<BTreeSet<_>>(),
                );
            }
            let distinct: BTreeSet<_> = held.iter().flatten().collect();
            let enough = match mail.encoding {
                Encoding::Whole => true,
                Encoding::Fragments { n, .. } => distinct.len() >= held.len().min(usize::from(n)),
            };
            let shown = self.shown_safe(p, h).unwrap_or(i32::MIN);
            let (name, counted) = (self.name(p), survives(&held));
            if held.iter().any(BTreeSet::is_empty) || !enough {
                return self.violate(Rule::R12, format!("{h} of {name} is not held as placed: {held:?}"));
            }
            if !held.is_empty() && shown < counted {
                return self
                    .violate(Rule::R12, format!("{name} shows safe({shown}) of {h} and does not learn of {counted}"));
            }
        }
    }

    fn shown_safe(&self, p: usize, h: MailId) -> Option<i32> {
        let status: outbox::OutboxStatus = self.peers[p].brains.as_ref()?.outbox.observe(self.now(p));
        status.submissions.iter().flat_map(|s| &s.mails).find(|m| m.h == h).map(|m| m.safe)
    }

    /// Whether every mail of every peer that is there has come to its end.
    pub(crate) fn all_ended(&self) -> bool {
        let ended = |(id, letter): (&SubmissionId, &Letter)| {
            let owner = &self.peers[letter.from];
            let waits = owner.is_up() && owner.disk.ledger.submitted.contains(id);
            !waits
                || letter.receivers.iter().all(|r| self.end_of(id, letter, r).is_some() || self.is_excused(letter, r))
        };
        self.truth.letters.iter().all(ended)
            && (0..self.peers.len()).all(|p| self.open_nr(p) == 0)
            && self.truth.orphans.iter().all(|(h, reader)| !self.is_missed(h, reader))
    }

    /// Whether the reader of a mail whose owner's disk died has neither had it nor refused it, and still could.
    fn is_missed(&self, h: &MailId, reader: &Address) -> bool {
        let mail = &self.truth.mails[h];
        let key = MailKey { sender: self.peers[mail.owner].fingerprint, submission: mail.submission };
        let there = |r: &usize| self.peers[*r].is_up() && !self.truth.restored.contains(r);
        let Some(r) = self.at(reader).filter(there) else { return false };
        let said = self.truth.nrs.contains_key(&(mail.submission, *h, reader.clone()));
        !said && !self.peers[r].disk.ledger.pulled.contains(&key) && mail.expiry > self.now(r).wall
    }

    fn end_of(&self, id: &SubmissionId, letter: &Letter, receiver: &Address) -> Option<EndedAs> {
        self.peers[letter.from].disk.ledger.ended.get(&(*id, receiver.clone())).copied()
    }

    /// Whether nobody can say anything about a mail before it expires: its reader is gone for good.
    fn is_excused(&self, letter: &Letter, receiver: &Address) -> bool {
        let gone = self.at(receiver).is_some_and(|r| self.peers[r].dead || self.peers[r].left);
        gone && letter.at + self.params.policy.life.duration() + Duration::from_secs(600) > self.now(letter.from).wall
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
            if !owner.is_up() || !owner.disk.ledger.submitted.contains(id) {
                if self.truth.acknowledged.contains(id) && owner.is_up() && !self.truth.restored.contains(&letter.from)
                {
                    wrong.push(format!("{id} of {} got a 250 and is gone", owner.address));
                }
                continue;
            }
            for receiver in &letter.receivers {
                let Some(why) = self.end_of(id, letter, receiver) else {
                    if self.is_excused(letter, receiver) {
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
                let reader = self.at(receiver);
                let key = MailKey { sender: owner.fingerprint, submission: *id };
                if why == EndedAs::Received
                    && let Some(reader) = reader.filter(|r| !self.truth.restored.contains(r))
                    && !self.peers[reader].disk.ledger.pulled.contains(&key)
                {
                    wrong.push(format!("{id} counts as received by {receiver}, who has it not"));
                }
            }
        }
        for (h, reader) in self.truth.orphans.iter().filter(|(h, reader)| self.is_missed(h, reader)) {
            wrong.push(format!("{h} was safe when its owner was lost, and {reader} cannot read it"));
        }
        if let Some(why) = wrong.into_iter().next() {
            self.violate(Rule::R2, why);
        }
    }

    /// R7: nothing that is gone is still on a disk. An owner that is lost itself may have told nobody.
    pub(crate) fn check_gone(&mut self) {
        let gone = |h: &MailId| {
            let owner = &self.peers[self.truth.mails[h].owner];
            owner.is_up() && owner.disk.ledger.tombstoned.contains(h)
        };
        let mut wrong = None;
        for peer in self.peers.iter().filter(|p| p.is_up()) {
            let part = peer.disk.parts.iter().find(|(_, h, _)| gone(h)).map(|(_, h, _)| *h);
            let blob = peer.disk.blobs.keys().find(|h| gone(h)).copied();
            if let Some(h) = part.or(blob) {
                wrong = Some(format!("{} still has {h}, which is gone", peer.address));
            }
        }
        if let Some(why) = wrong {
            self.violate(Rule::R7, why);
        }
    }

    /// R12: while nothing happens, nothing is written and little is said.
    pub(crate) fn check_rest(&mut self, minutes: u64, commits: &[u64], messages: &[u64]) {
        for p in 0..self.peers.len() {
            let (wrote, said) = (self.commits[p] - commits[p], self.messages[p] - messages[p]);
            if wrote > 0 {
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
