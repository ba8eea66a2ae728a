//! What a cancel was answered, and whether that stays true: nobody reads what was `cancelled`, and `too late` is said only of
//! what its reader has.

use roost::core::fetch::SourceFailure;
use roost::core::outbox::{self, CancelAnswer, CancelTarget, EndedAs};
use roost::core::postbox::MailKey;
use roost::model::msglist::Ending;
use roost::model::notification::Outcome;
use roost::model::{Address, MailId, Part, PeerId, SubmissionId};

use super::checker::{Rule, readable};
use super::peer::{Peer, Tell, Waiter};
use super::sabotage::Saboteur;
use super::world::World;

impl World {
    /// A user takes one of its mails back, or asks again how that stands.
    pub(crate) fn cancel(&mut self, p: usize) {
        let own: Vec<SubmissionId> =
            self.truth.letters.iter().filter(|(_, letter)| letter.from == p).map(|(id, _)| *id).collect();
        if !own.is_empty() {
            let submission = *self.rng.pick(&own);
            self.cancel_this(p, submission);
        }
    }

    pub(crate) fn cancel_this(&mut self, p: usize, submission: SubmissionId) {
        self.truth.cancelled.insert(submission);
        let token = self.wait(p, Waiter::Cancel);
        let target = CancelTarget::Submission(submission);
        self.tell(p, Tell::Outbox(outbox::Input::Cancel { token, target }));
    }

    /// Users ask how it stands with what they took back.
    pub(crate) fn ask_about_cancelled(&mut self) {
        for submission in self.truth.cancelled.clone() {
            let from = self.truth.letters[&submission].from;
            if self.peers[from].is_up() {
                self.cancel_this(from, submission);
            }
        }
    }

    /// What the outbox says about a cancel.
    pub(crate) fn cancel_answered(&mut self, p: usize, id: SubmissionId, answers: Vec<(Address, CancelAnswer)>) {
        for (receiver, mut answer) in answers {
            if self.is(Saboteur::SaysCancelled) && answer == CancelAnswer::Uncertain {
                answer = CancelAnswer::Cancelled;
            }
            if self.is(Saboteur::SaysTooLate) && answer == CancelAnswer::Uncertain {
                answer = CancelAnswer::TooLate;
            }
            if self.is(Saboteur::NeverSure) {
                answer = CancelAnswer::Uncertain;
            }
            self.say(|w| format!("{} says of {id} for {receiver}: {}", w.name(p), answer.word()));
            self.truth.cancel_said.insert((id, receiver.clone()), answer);
            match answer {
                CancelAnswer::Cancelled => self.check_cancelled(p, id, receiver),
                CancelAnswer::TooLate => self.check_too_late(p, id, &receiver),
                CancelAnswer::Uncertain => {}
            }
        }
    }

    /// A cancel that is still called uncertain though everybody who could say more is there. A restored owner, or one that cannot tell
    /// whether it was, does not know whom it served, so only the reader can say more, and one that does not know of the mail, or has forgotten it, promises nothing to
    /// a stranger, as an owner is one that left since, to whom members report no more, and as all members are to a reader that left
    /// after it was served as one of them; and of a mail that had ended before, the tombstone may not say how for each receiver.
    pub(crate) fn unsure_cancel(&self) -> Option<&(SubmissionId, Address)> {
        let all_there = self.peers.iter().all(|p| p.is_up() && !p.dead && !p.left);
        let is_past = |which: &(SubmissionId, Address)| {
            let owner = &self.peers[self.truth.letters[&which.0].from];
            // What had expired before it was taken back: its reader is not asked any more.
            matches!(owner.disk.ledger.ended.get(which), Some(EndedAs::Forgotten | EndedAs::Expired))
        };
        let nobody_knows = |(id, reader): &(SubmissionId, Address)| {
            let from = self.truth.letters[id].from;
            let key = MailKey { sender: self.peers[from].fingerprint, submission: *id };
            let knows = |reader: usize| self.peers[reader].disk.ledger.announced.contains(&key);
            let is_old = |p: usize| self.truth.restored.contains_key(&p);
            // It started and heard nobody before it was sealed: for all that it knows it was restored.
            let is_doubted = self.peers[from].disk.ledger.doubted.contains(id);
            let may_have_read = |reader: usize| self.has_left(reader) && self.was_served(*id, reader);
            let has_gone = |reader: usize| self.has_left(from) || may_have_read(reader);
            let is_stranger = |reader: usize| has_gone(reader) && !self.knows(reader, from);
            let says_nothing = |reader: usize| is_old(reader) || is_stranger(reader);
            (is_old(from) || is_doubted || self.at(reader).is_some_and(says_nothing))
                && !self.at(reader).is_some_and(knows)
        };
        let is_forgotten = |(id, _): &(SubmissionId, Address)| self.is_forgotten_by_all(*id);
        // Who says falsely that it holds a mail never says that it has given it up; and nobody says anything to one that was removed.
        let lied_about = |(id, _): &(SubmissionId, Address)| {
            let from = self.truth.letters[id].from;
            self.peers[from].removed
                || self.lies_in_lists(from)
                || (0..self.params.members).any(|m| m != from && self.lies_of_parts(m))
        };
        // What it was served may still be with one that was removed before it said otherwise; then only the reader can say more.
        let is_with_removed = |(id, reader): &(SubmissionId, Address)| {
            let from = self.truth.letters[id].from;
            let key = MailKey { sender: self.peers[from].fingerprint, submission: *id };
            let promises = |r: usize| self.peers[r].disk.ledger.announced.contains(&key) || self.knows(r, from);
            (self.is_unheard_of_removed(*id) || self.rests_with_removed(*id)) && !self.at(reader).is_some_and(promises)
        };
        let mut unsure = self.truth.cancel_said.iter().filter(|(_, answer)| **answer == CancelAnswer::Uncertain);
        unsure
            .find(|(which, _)| {
                let is_excused =
                    nobody_knows(which) || is_forgotten(which) || lied_about(which) || is_with_removed(which);
                all_there && !is_past(which) && !is_excused
            })
            .map(|(which, _)| which)
    }

    /// Whether somebody else served this peer blocks of a form of a mail.
    fn was_served(&self, id: SubmissionId, reader: usize) -> bool {
        let is_of_it = |h: &MailId| self.truth.mails[h].submission == id;
        self.truth.served.keys().any(|(by, h, to)| *to == reader && *by != reader && is_of_it(h))
    }

    /// Whether a form of a mail was served to a member that was removed before its owner had any word from it of what it holds of
    /// that: its reports are refused since.
    fn is_unheard_of_removed(&self, id: SubmissionId) -> bool {
        let from = self.truth.letters[&id].from;
        let is_unheard = |h: &MailId, m: usize| {
            let mut words = self.peers[from].disk.ledger.words.keys();
            m != from && self.peers[m].removed && !words.any(|(of, who, _)| (of, *who) == (h, self.peers[m].id))
        };
        let is_of_it = |h: &MailId| self.truth.mails[h].submission == id;
        self.truth.served.keys().any(|(_, h, to)| is_of_it(h) && is_unheard(h, *to))
    }

    /// Whether all others said that they gave up what they held of a form of a mail, and who was removed was heard to hold what a
    /// reader needs beside that: what it says since is refused.
    pub(crate) fn rests_with_removed(&self, id: SubmissionId) -> bool {
        let words = &self.peers[self.truth.letters[&id].from].disk.ledger.words;
        let left = |h: MailId, counts: &dyn Fn(&PeerId) -> bool| -> Vec<Part> {
            let of_it = words.iter().filter(|((of, who, _), is_left)| **is_left && *of == h && counts(who));
            of_it.map(|((.., part), _)| *part).collect()
        };
        let is_removed = |member: &PeerId| self.peers[self.index(member)].removed;
        let mut forms = self.truth.mails.iter().filter(|(_, mail)| mail.submission == id).map(|(h, _)| *h);
        forms.any(|h| readable(left(h, &|_| true).iter()) && !readable(left(h, &|member| !is_removed(member)).iter()))
    }

    /// Whether a mail is on no journal of its owner, which came back with an old disk, and none of its members' either but of one
    /// that hides what it read, or was no member any more by then: there is nobody from whom its owner could hear that there was
    /// such a mail.
    fn is_forgotten_by_all(&self, id: SubmissionId) -> bool {
        let from = self.truth.letters[&id].from;
        let forms =
            self.truth.mails.iter().filter(|(_, mail)| mail.submission == id).map(|(h, _)| (self.peers[from].id, *h));
        let knows = |p: usize, form: &(PeerId, MailId)| {
            let ledger = &self.peers[p].disk.ledger;
            let here = ledger.noted.contains_key(form) || ledger.buried_parts.contains(form);
            (here || ledger.sealed.contains(&form.1)) && !self.hides_list_of(from, p)
        };
        let is_heard = |p: usize| p == from || self.is_asked(from, p);
        self.truth.restored.contains_key(&from)
            && forms.into_iter().all(|form| !self.once_members().any(|p| is_heard(p) && knows(p, &form)))
    }

    fn check_cancelled(&mut self, p: usize, id: SubmissionId, receiver: Address) {
        let key = MailKey { sender: self.peers[p].fingerprint, submission: id };
        if let Some(reader) = self.at(&receiver) {
            let has = self.peers[reader].disk.ledger.pulled.contains(&key) && reader != p;
            let knows_better = self.peers[p].disk.ledger.ended.get(&(id, receiver.clone())) == Some(&EndedAs::Received);
            let may_not_know = self.is_service_unknown(id, reader, self.t) || self.has_forgotten_cancel(reader, key);
            if has && (knows_better || !may_not_know) {
                let why = format!("{} says that {id} is cancelled for {receiver}, who has it", self.name(p));
                return self.violate(Rule::R7, why);
            }
        }
        self.truth.cancelled_for.insert((id, receiver), self.t);
    }

    fn check_too_late(&mut self, p: usize, id: SubmissionId, receiver: &Address) {
        let said = |((submission, _, reader), outcomes): (&(SubmissionId, MailId, Address), &Vec<Outcome>)| {
            *submission == id && reader == receiver && outcomes.contains(&Outcome::Received)
        };
        if *receiver != self.peers[p].address && !self.truth.nrs.iter().any(said) {
            let why = format!("{} says that it is too late to cancel {id} for {receiver}, who has not", self.name(p));
            self.violate(Rule::R7, why);
        }
    }

    /// Whether somebody served a form of this mail to a reader and lost the memory of it with its disk: the owner of one when it said
    /// something of it at `said`, as long as it had heard nothing by which it knows that.
    fn is_service_unknown(&self, id: SubmissionId, reader: usize, said: u64) -> bool {
        let mut forms = self.truth.mails.iter().filter(|(_, mail)| mail.submission == id).map(|(h, _)| (*h, reader));
        let forgot = |form: &(MailId, usize)| {
            self.truth.forgot_serving.get(form).is_some_and(|at| at.is_none_or(|at| said <= at))
        };
        forms.any(|form| self.truth.unknown_service.contains(&form) || forgot(&form))
    }

    /// Notes to whom what was served. A restored owner that nobody told yet that the mail is gone cannot know better.
    pub(crate) fn note_served(&mut self, server: usize, h: MailId, reader: usize) {
        self.truth.served.insert((server, h, reader), self.t);
        let owner = self.truth.mails[&h].owner;
        if self.truth.restored.contains_key(&owner) && self.was_tombstoned(&h) && !self.owner_knows_tombstone(&h) {
            self.truth.unknown_service.insert((h, reader));
        }
    }

    /// R7: a mail that was `cancelled` for a reader is not read by it.
    pub(crate) fn check_not_cancelled(&mut self, p: usize, h: MailId) {
        let mail = &self.truth.mails[&h];
        let (id, owner) = (mail.submission, mail.owner);
        let Some(at) = self.truth.cancelled_for.get(&(id, self.peers[p].address.clone())).copied() else { return };
        // A cancel that a restore took back, and that nobody else was told of, is none any more.
        let restored = self.truth.restored.get(&owner).is_some_and(|when| *when >= at);
        let forms = self.truth.mails.iter().filter(|(_, form)| form.submission == id);
        let taken_back = restored && !forms.into_iter().any(|(form, _)| self.owner_knows_tombstone(form));
        let key = MailKey { sender: self.peers[owner].fingerprint, submission: id };
        if !taken_back && !self.is_service_unknown(id, p, at) && !self.has_forgotten_cancel(p, key) {
            let why =
                format!("{} reads {h}, of which its sender was told at {at} ms that it is cancelled", self.name(p));
            self.violate(Rule::R7, why);
        }
    }

    /// Whether a reader had heard that a mail was taken back, and forgot it with its disk, while the mail's owner is a member no
    /// more: those who were members with it hold its parts on, for they hear nothing of it any more. Only the owner itself can tell
    /// the reader again, when that asks it for the mail.
    fn has_forgotten_cancel(&self, reader: usize, key: MailKey) -> bool {
        let is_removed = |owner: &Peer| owner.fingerprint == key.sender && owner.removed;
        self.truth.forgot_cancel.contains(&(reader, key)) && self.peers.iter().any(is_removed)
    }

    /// A source showed a reader that asked for a mail its owner's word that it was taken back: from then on it is not read.
    pub(crate) fn note_heard(&mut self, reader: usize, h: MailId, failure: &SourceFailure) {
        if *failure == SourceFailure::Gone(Ending::Cancelled) {
            let mail = &self.truth.mails[&h];
            let key = MailKey { sender: self.peers[mail.owner].fingerprint, submission: mail.submission };
            self.truth.forgot_cancel.remove(&(reader, key));
        }
    }
}
