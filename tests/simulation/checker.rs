//! The checker: what is true, and one function a rule that says when a peer acts against it. It knows all disks and is asked by
//! the shells at the moment of each yes, each drop and each word.

use std::collections::{BTreeMap, BTreeSet};

use roost::core::Brain;
use roost::core::outbox::{self, Announcement, CancelAnswer, EndedAs};
use roost::core::placement::{Place, whole_copies};
use roost::core::postbox::access::MessageKey;
use roost::core::postbox::io::NrItem;
use roost::core::postbox::{self, MailKey};
use roost::core::replicator::MirrorOrder;
use roost::model::holding::{HoldingState, Holdings};
use roost::model::manifest::Manifest;
use roost::model::msglist::Ending;
use roost::model::notification::{Nr, Outcome, Refusal};
use roost::model::structure::Structure;
use roost::model::{Address, Encoding, MailId, Part, PeerId, SubmissionId, WallTime};
use roost::wire::{self, Signed};

use super::disk::{Disk, Record};
use super::liars::Lie;
use super::network::{Answer, CallRef, PATIENCE_MS, Pending};
use super::restore::Belief;
use super::world::World;

/// Far more than a few mails and members are ever worth at a time.
const CALLS_MAX: usize = 500;

/// The rules of DESIGN.md section 2 that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    R11,
    R12,
}

/// A rule was broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) why: String,
    pub(crate) at_ms: u64,
}

/// A clear mail.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) from: usize,
    /// When it was submitted, and what its sender's clock said then.
    pub(crate) made: u64,
    pub(crate) at: WallTime,
    pub(crate) receivers: Vec<Address>,
    pub(crate) header_block: Vec<u8>,
    pub(crate) structure: Structure,
    pub(crate) sealed_length: u64,
}

/// A sealed mail.
#[derive(Debug, Clone)]
pub(crate) struct SealedMail {
    pub(crate) owner: usize,
    /// When it was sealed.
    pub(crate) made: u64,
    pub(crate) submission: SubmissionId,
    pub(crate) receivers: Vec<Address>,
    pub(crate) length: u64,
    /// Its manifests, by what they are for: the first one, and those of later policies.
    pub(crate) manifests: BTreeMap<Encoding, Signed<Manifest>>,
    pub(crate) expiry: WallTime,
}

/// Since when a miss is known, and the time that the owner's journal says, once there is one.
pub(crate) type MissedAudit = (u64, Option<WallTime>);

/// What is true, whatever any peer believes.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) letters: BTreeMap<SubmissionId, Letter>,
    pub(crate) by_header: BTreeMap<Vec<u8>, SubmissionId>,
    pub(crate) mails: BTreeMap<MailId, SealedMail>,
    /// Who knows whom outside the group.
    pub(crate) contacts: BTreeSet<(usize, usize)>,
    /// Who served a wrong block of what.
    pub(crate) lied: BTreeSet<(MailId, PeerId)>,
    /// Whom who found to lie about what: who may not be asked for it again (R6).
    pub(crate) found_out: BTreeSet<(usize, MailId, PeerId)>,
    /// DSNs that were asked for.
    pub(crate) dsns: BTreeMap<SubmissionId, (usize, SubmissionId, Address)>,
    pub(crate) cancelled: BTreeSet<SubmissionId>,
    /// All that readers signed: whoever is restored from before it read a mail may say another word of it.
    pub(crate) nrs: BTreeMap<(SubmissionId, MailId, Address), Vec<Outcome>>,
    /// When they first did.
    pub(crate) signed_at: BTreeMap<(SubmissionId, Address), u64>,
    /// Who was there from when, and on which side.
    pub(crate) presence: BTreeMap<usize, Vec<(u64, Option<u8>)>>,
    /// What got a 250.
    pub(crate) acknowledged: BTreeSet<SubmissionId>,
    /// Who came back with an old disk, and when.
    pub(crate) restored: BTreeMap<usize, u64>,
    /// When each of those first started with it.
    pub(crate) back: BTreeMap<usize, u64>,
    /// Which of their mails those were told of before they were over for too long, and when.
    pub(crate) told_in_time: BTreeMap<(usize, MailId), u64>,
    /// What was accepted before a restore.
    pub(crate) submitted_before: BTreeSet<SubmissionId>,
    /// Tombstones that were durable before a restore.
    pub(crate) endings_before: BTreeMap<MailId, BTreeSet<Ending>>,
    /// For whom of which submission a restored owner had ended its mail, forgot it, and has the reader's word.
    pub(crate) said_before: BTreeSet<(SubmissionId, Address)>,
    /// Bodies that a restored reader had.
    pub(crate) lost_bodies: BTreeSet<(usize, MailKey)>,
    /// What restored owners believe of members.
    pub(crate) beliefs: BTreeMap<(usize, PeerId), Belief>,
    /// What owners had been told to go, before they came back with an old disk: whose word, and on what.
    pub(crate) told_to_go: BTreeSet<(usize, PeerId, MailId, Part)>,
    /// Who served blocks of what to whom, and when last.
    pub(crate) served: BTreeMap<(usize, MailId, usize), u64>,
    /// What was served to whom by somebody who cannot know it.
    pub(crate) unknown_service: BTreeSet<(MailId, usize)>,
    /// The same by its owner, to which nothing said that its disk is an old one; and when it learned that.
    pub(crate) forgot_serving: BTreeMap<(MailId, usize), Option<u64>>,
    /// For whom a mail was said to be cancelled, and when last.
    pub(crate) cancelled_for: BTreeMap<(SubmissionId, Address), u64>,
    /// Parts that members reported to the owner, true when they were reported, and when that was.
    pub(crate) reported: BTreeMap<MailId, BTreeMap<PeerId, BTreeMap<Part, u64>>>,
    /// Audits that members missed, as the owner knows: what was reported before the last one does not count.
    pub(crate) missed: BTreeMap<(MailId, PeerId), Vec<MissedAudit>>,
    /// Who gave up parts of what as placement says, and holds none again since, and when last.
    pub(crate) moved_away: BTreeMap<(usize, MailId), u64>,
    /// Mails of owners whose disk died, that were announced then.
    pub(crate) orphans: Vec<Orphan>,
    /// What owners showed of their open mails when they were last up.
    pub(crate) shown: BTreeMap<MailId, Promise>,
    /// The same of mails that their owners then lost themselves, as they came back with an old disk.
    pub(crate) promised: BTreeMap<MailId, Promise>,
    /// Mails of which readers had heard that they were taken back, before they came back with an old disk, and not since.
    pub(crate) forgot_cancel: BTreeSet<(usize, MailKey)>,
    /// What a cancel was last said to have come to.
    pub(crate) cancel_said: BTreeMap<(SubmissionId, Address), CancelAnswer>,
    /// Readers whose nr a restored owner refused before it had learned of the mail again, and when.
    pub(crate) refused_unknown: BTreeMap<(usize, MailId), u64>,
    /// Readers whose word their mail's owner could not hear when it ended that as expired.
    pub(crate) unheard: BTreeSet<(SubmissionId, Address)>,
    /// ns that reached somebody once.
    pub(crate) told_once: BTreeSet<(MailId, Address)>,
}

/// What a shown safe(f) promises: when no more of these holders are lost, the mail is readable.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    /// f.
    pub(crate) safe: i32,
    /// Members on whose word it rests.
    pub(crate) holders: BTreeSet<usize>,
    /// Those of them that said to have it whole.
    pub(crate) whole: BTreeSet<usize>,
    /// Those of them that a restore had taken the part from already, unknown to the owner.
    pub(crate) emptied: BTreeSet<usize>,
    /// The mail was not kept as the policy says, or had not arrived there: what was shown counts what was going to go.
    pub(crate) moving: bool,
    /// When it was shown.
    pub(crate) at: u64,
}

/// A mail of an owner whose disk died, for one reader.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) h: MailId,
    pub(crate) reader: Address,
    /// What was shown at that moment.
    pub(crate) promise: Promise,
}

impl World {
    /// R1: SMTP says 250 only when the mail is in the spool and in the journal.
    pub(crate) fn check_accepted(&mut self, p: usize, submission: SubmissionId) {
        let disk = &self.peers[p].disk;
        if !disk.ledger.submitted.contains_key(&submission) {
            self.violate(Rule::R1, format!("{} says 250 to {submission} before it is durable", self.name(p)));
        }
    }

    /// R1: an nr is taken only when what it says is durable.
    pub(crate) fn check_outbox_answer(&mut self, p: usize, from: CallRef, answer: &Answer) {
        let caller = &self.peers[from.caller];
        let Some((_, Pending::Nr { item, .. })) = caller.calls.get(&from.call).filter(|_| caller.life == from.life)
        else {
            return;
        };
        let nr = &item.nr;
        let known = self.peers[p].disk.ledger.ended.contains_key(&(nr.submission, nr.reader.clone()));
        if matches!(answer, Answer::Done) && !known {
            let why = format!("{} takes the nr for {} of {} before that is durable", self.name(p), nr.h, nr.reader);
            self.violate(Rule::R1, why);
        }
    }

    /// R1: an ns is taken only when it is durable, or its mail was taken back.
    pub(crate) fn check_ns_taken(&mut self, p: usize, from: CallRef) {
        let caller = &self.peers[from.caller];
        let Some((_, Pending::Ns(_, sealed))) = caller.calls.get(&from.call).filter(|_| caller.life == from.life)
        else {
            return;
        };
        let (id, h) = (MailKey { sender: sealed.ns.from_fingerprint, submission: sealed.ns.submission }, sealed.ns.h);
        let taken_back = self.truth.cancelled.contains(&id.submission);
        if !self.peers[p].disk.ledger.announced.contains(&id) && !taken_back {
            self.violate(Rule::R1, format!("{} takes the ns of {h} before it is durable", self.name(p)));
        }
    }

    /// R1: only what is durable, blob and journal, is announced; and R7, only what is there.
    pub(crate) fn check_announced(&mut self, p: usize, what: &Announcement) {
        self.check_not_gone(p, &what.h, "announces");
        let disk = &self.peers[p].disk;
        if !disk.ledger.sealed.contains(&what.h) || !disk.blobs.contains_key(&what.h) {
            self.violate(Rule::R1, format!("{} announces {} before it is durable", self.name(p), what.h));
        }
    }

    /// R1: a member says that it has a part only when file and journal say so; R8 counts from here.
    pub(crate) fn check_report(&mut self, p: usize, word: &Holdings) {
        let me = self.peers[p].id;
        for item in &word.items {
            let part = (word.owner, item.h, item.part);
            let disk = &self.peers[p].disk;
            if item.state == HoldingState::Held {
                // A word that was on its way while the part went by right is followed by the word that it went.
                let is_here = disk.parts_once.contains(&part) || self.lies(p, Lie::HoldsNothing);
                if !disk.ledger.held_once.contains(&part) || !is_here {
                    let why = format!("{} reports {} of {} before it is durable", self.name(p), item.part, item.h);
                    self.violate(Rule::R1, why);
                }
                let reported = self.truth.reported.entry(item.h).or_default().entry(me).or_default();
                reported.insert(item.part, self.t);
            }
        }
    }

    /// R1: a file that an event names was durable before the event.
    pub(crate) fn check_damaged(&mut self, p: usize, damaged: &BTreeSet<MessageKey>) {
        if let Some(key) = damaged.first() {
            self.violate(
                Rule::R1,
                format!("{} has no files of the message {key:?} that its journal names", self.name(p)),
            );
        }
    }

    /// R1: a reader says received only once the body is filed; R2: and expired only when it is.
    pub(crate) fn check_nr(&mut self, p: usize, item: &NrItem) {
        let mail = &self.truth.mails[&item.nr.h];
        let over = self.is_over_for(p, mail.made, mail.expiry);
        if item.nr.outcome == Outcome::Refused(Refusal::Expired) && !over {
            self.violate(Rule::R2, format!("{} says that {} expired, which lives", self.name(p), item.nr.h));
        }
        if item.nr.outcome == Outcome::Received && !self.peers[p].disk.ledger.pulled.contains(&item.id) {
            self.violate(Rule::R1, format!("{} signs that it has {} before that is durable", self.name(p), item.nr.h));
        }
    }

    /// R5: a reader that was not restored says one word of a mail.
    pub(crate) fn note_nr(&mut self, p: usize, nr: &Nr) {
        let said = self.truth.nrs.entry((nr.submission, nr.h, nr.reader.clone())).or_default();
        if !said.contains(&nr.outcome) {
            said.push(nr.outcome);
        }
        if said.len() > 1 && !self.truth.restored.contains_key(&p) {
            let why = format!("{} says of {}: {said:?}", nr.reader, nr.h);
            self.violate(Rule::R5, why);
        }
    }

    /// R1: a blob goes only when its end is durable.
    pub(crate) fn check_blob_dropped(&mut self, p: usize, h: MailId) {
        let ledger = &self.peers[p].disk.ledger;
        if ledger.sealed.contains(&h) && !ledger.tombstoned.contains_key(&h) {
            self.violate(Rule::R1, format!("{} removes its mail {h} before its end is durable", self.name(p)));
        }
    }

    /// R2: a sender takes the true word of a reader.
    pub(crate) fn check_nr_refused(&mut self, p: usize, item: &NrItem, why: &str) {
        // Only the one refusal that is on its way.
        let excused = self.truth.refused_unknown.remove(&(p, item.nr.h));
        if excused.is_some_and(|at| self.t - at <= PATIENCE_MS) {
            return;
        }
        let why = format!("the true nr of {} for {} is refused: {why}", self.name(p), item.nr.h);
        self.violate(Rule::R2, why);
    }

    /// R3: a part goes for a tombstone, for expiry, or when every holder now placed confirmed its own.
    pub(crate) fn check_drop(&mut self, p: usize, owner: PeerId, h: MailId, parts: &[Part]) {
        // Who kept nothing gives up nothing.
        let Some(mail) = self.truth.mails.get(&h).filter(|_| !self.lies(p, Lie::HoldsNothing)) else { return };
        let Disk { parts: here, rotten, .. } = &self.peers[p].disk;
        let is_lost = |part: (PeerId, MailId, Part)| rotten.contains_key(&part) || !here.contains(&part);
        if !self.peers[p].in_group && parts.iter().all(|part| is_lost((owner, h, *part))) {
            // Who has left removes what is lost already.
            return;
        }
        let tombstoned = self.was_tombstoned(&h);
        let expired = self.is_over_for(p, mail.made, mail.expiry);
        if tombstoned && !expired && !self.peers[p].disk.ledger.buried_parts.contains(&(owner, h)) {
            // It may be a move all the same.
            if !self.is_confirmed_move(p, owner, h, parts) {
                self.violate(Rule::R1, format!("{} drops {h} before the tombstone is durable there", self.name(p)));
            }
            self.truth.moved_away.insert((p, h), self.t);
            return;
        }
        if tombstoned || expired {
            return;
        }
        if !self.is_confirmed_move(p, owner, h, parts) {
            return self.violate(Rule::R3, format!("{} drops {parts:?} of {h} without right", self.name(p)));
        }
        self.check_still_survives(p, owner, h, parts);
        self.truth.moved_away.insert((p, h), self.t);
    }

    /// The members that a peer would name for a mail, from what it knows of group and mail.
    pub(crate) fn placed_for(&self, p: usize, owner: PeerId, h: MailId, encoding: Encoding) -> Vec<PeerId> {
        let roster = &self.peers[p].roster;
        let members: Vec<PeerId> = roster.members.iter().map(|m| m.peer_id).filter(|m| *m != owner).collect();
        let whole_copies = whole_copies(roster, &owner);
        Place { h: &h, encoding, whole_copies, members: &members, lost: &roster.lost }.placed()
    }

    fn is_confirmed_move(&self, p: usize, owner: PeerId, h: MailId, parts: &[Part]) -> bool {
        let peer = &self.peers[p];
        let Some(encoding) = peer.disk.ledger.noted.get(&(owner, h)) else { return false };
        let placed = self.placed_for(p, owner, h, *encoding);
        let Some(answers) = peer.confirmed.get(&(owner, h)) else { return false };
        let kept = peer.disk.parts.iter().any(|(o, m, part)| (*o, *m) == (owner, h) && !parts.contains(part));
        !placed.is_empty()
            && placed
                .iter()
                .all(|m| if *m == peer.id { kept } else { answers.get(m).is_some_and(|parts| !parts.is_empty()) })
    }

    /// R3: a sweep removes only what no event names.
    pub(crate) fn check_swept(&mut self, p: usize, part: &(PeerId, MailId, Part)) {
        if self.peers[p].disk.ledger.held.contains(part) {
            self.violate(Rule::R3, format!("{} sweeps {:?} away, which its journal says it holds", self.name(p), part));
        }
    }

    /// R4, and R2 for spool files: looks at what is about to be durable.
    pub(crate) fn check_record(&mut self, p: usize, record: &Record) {
        let Record::Outbox(bytes) = record else { return };
        match wire::decode(bytes).unwrap() {
            outbox::Event::Ended { submission, receiver, why, at } => self.check_end(p, submission, &receiver, why, at),
            outbox::Event::Tombstoned { h, ending, .. } => {
                let mail = &self.truth.mails[&h];
                let ended = &self.peers[p].disk.ledger.ended;
                let open = mail.receivers.iter().find(|r| !ended.contains_key(&(mail.submission, (*r).clone())));
                // One that is adopted is as true as it was before.
                let was_so = self.truth.endings_before.get(&h).is_some_and(|before| before.contains(&ending));
                if let Some(open) = open.filter(|_| !was_so) {
                    self.violate(Rule::R4, format!("{} entombs {h}, for which {open} still waits", self.name(p)));
                }
            }
            _ => {}
        }
    }

    fn check_end(&mut self, p: usize, submission: SubmissionId, receiver: &Address, why: EndedAs, at: WallTime) {
        let signed = |outcome: Outcome| {
            self.truth
                .nrs
                .iter()
                .any(|((id, _, reader), said)| id == &submission && reader == receiver && said.contains(&outcome))
        };
        let letter = &self.truth.letters[&submission];
        let (made, expiry) = (letter.made, letter.at + self.params.policy.life.duration());
        let right = match why {
            EndedAs::Received => signed(Outcome::Received),
            EndedAs::Refused(refusal) => signed(Outcome::Refused(refusal)),
            EndedAs::Cancelled => self.truth.cancelled.contains(&submission),
            // It may take long until it is durable: a wrong clock that was taken for right then may be right by now.
            EndedAs::Expired => {
                self.is_over_for(p, made, expiry)
                    || (self.is_fooled_about(p, made, expiry) && expiry <= at)
                    || self.was_declared_over(&submission, receiver)
            }
            EndedAs::Filed => *receiver == self.peers[p].address,
            EndedAs::UnknownAddress => self.at(receiver).is_none_or(|reader| self.came_or_went(reader)),
            EndedAs::Forgotten => self.is_end_forgotten(&submission, receiver),
            EndedAs::Lost => {
                return self.violate(Rule::R2, format!("{} lost {submission}, to which it said 250", self.name(p)));
            }
        };
        if !right {
            let why = format!("{} ends {submission} for {receiver} as {why:?}, which nobody said", self.name(p));
            self.violate(Rule::R4, why);
        }
        if why == EndedAs::Expired {
            self.note_unheard(p, submission, receiver);
        }
    }

    /// R5: one message for each mail in a reader's mailboxes.
    pub(crate) fn check_once(&mut self, p: usize) {
        let Some(brains) = &self.peers[p].brains else { return };
        let mut seen: BTreeSet<SubmissionId> = BTreeSet::new();
        let mut twice = None;
        for event in brains.postbox.snapshot() {
            let postbox::Event::KeptMessage { key, message } = event else { continue };
            if matches!(message.origin, postbox::Origin::Mail(_) | postbox::Origin::Local(..)) {
                let letter = self.peers[p].disk.files.get(&key).and_then(|file| file.letter);
                if let Some(letter) = letter.filter(|letter| !seen.insert(*letter)) {
                    twice = Some(letter);
                }
            }
        }
        if let Some(letter) = twice {
            self.violate(Rule::R5, format!("{} has the mail {letter} twice", self.name(p)));
        }
    }

    /// R6: only who lied is named.
    pub(crate) fn check_named(&mut self, p: usize, h: MailId, peer: PeerId) {
        // One that forks its msglist may learn from it what it forged itself, and then say so.
        if !self.truth.lied.contains(&(h, peer)) && !self.lies(self.index(&peer), Lie::Forks) {
            self.violate(Rule::R6, format!("{} names {peer}, which served no wrong block of {h}", self.name(p)));
        }
    }

    /// R6: who was named is not asked again for that mail.
    pub(crate) fn check_asked(&mut self, p: usize, h: MailId, source: PeerId) {
        if self.peers[p].named.contains(&(h, source)) {
            self.violate(Rule::R6, format!("{} asks {source} for {h} again, though it lied", self.name(p)));
        }
    }

    /// R6: a body is made of right blocks only.
    pub(crate) fn check_body(&mut self, p: usize, h: MailId, good: bool) {
        if !good {
            self.violate(
                Rule::R6,
                format!("{} hands a body of {h} with wrong bytes to its mail program", self.name(p)),
            );
        }
    }

    /// R6: a part is kept, and reported, only when every block of it is right.
    pub(crate) fn check_kept(&mut self, p: usize, h: MailId) {
        self.violate(Rule::R6, format!("{} keeps a part of {h} with wrong bytes", self.name(p)));
    }

    /// R6: every mail of a run fits its ns.
    pub(crate) fn check_mismatch(&mut self, p: usize, h: MailId) {
        self.violate(Rule::R6, format!("{} calls {h} a mismatch, which fits its ns", self.name(p)));
    }

    /// R7: nobody mirrors what it knows to be gone.
    pub(crate) fn check_mirror(&mut self, p: usize, order: &MirrorOrder) {
        if self.peers[p].disk.ledger.buried_parts.contains(&(order.owner, order.h)) {
            self.violate(Rule::R7, format!("{} mirrors {} again, which is gone", self.name(p), order.h));
        }
    }

    /// R9: what a peer asks others at a time is bounded, however much there is to do.
    pub(crate) fn check_calls(&mut self, p: usize) {
        let many = self.peers[p].calls.len();
        if many > CALLS_MAX {
            self.violate(Rule::R9, format!("{} asks {many} things at a time", self.name(p)));
        }
    }

    /// R8: safe(f) as shown is not more than what distinct members reported truly.
    pub(crate) fn check_shown_safety(&mut self, p: usize) {
        let now = self.now(p);
        let Some(brains) = &self.peers[p].brains else { return };
        let status = brains.outbox.observe(now);
        for mail in status.submissions.into_iter().flat_map(|s| s.mails) {
            let counted = survives(&self.counted(p, &mail.h).into_values().collect::<Vec<_>>());
            if mail.safe >= 0 && mail.safe > counted {
                let why = format!("{} shows safe({}) for {}, counted are {counted}", self.name(p), mail.safe, mail.h);
                self.violate(Rule::R8, why);
                return;
            }
        }
    }
}

impl World {
    /// How it ended before a restore, which its tombstone does not say for each receiver.
    fn is_end_forgotten(&self, id: &SubmissionId, receiver: &Address) -> bool {
        let vague = |ending: &Ending, receivers: usize| match ending {
            Ending::Refused => true,
            Ending::Expired => receivers > 1,
            Ending::Received | Ending::Cancelled => false,
        };
        self.truth.endings_before.iter().any(|(h, before)| {
            let mail = &self.truth.mails[h];
            let is_vague = before.iter().any(|ending| vague(ending, mail.receivers.len()));
            mail.submission == *id && mail.receivers.contains(receiver) && is_vague
        })
    }

    /// Whether its tombstone from before a restore says of this receiver alone that it expired. A wrong clock that had to be taken for
    /// right may have said so then: tombstones win, whatever the clock is when they are adopted (R7).
    fn was_declared_over(&self, id: &SubmissionId, receiver: &Address) -> bool {
        self.truth.endings_before.iter().any(|(h, before)| {
            let mail = &self.truth.mails[h];
            let is_it = mail.submission == *id && mail.receivers.len() == 1 && mail.receivers.contains(receiver);
            is_it && before.contains(&Ending::Expired)
        })
    }

    /// What each member that is not lost holds of a mail of `p`, as the owner may count it: reported, and no audit missed since.
    pub(crate) fn counted(&self, p: usize, h: &MailId) -> BTreeMap<PeerId, BTreeSet<Part>> {
        let members = self.peers[p].roster.members.iter().map(|m| m.peer_id);
        let live = members.filter(|member| self.peers[p].roster.counts(member));
        let parts = |member: PeerId| {
            let missed = self.truth.missed.get(&(*h, member)).and_then(|all| all.last());
            let reported = self.truth.reported.get(h).and_then(|all| all.get(&member)).into_iter().flatten();
            let since =
                reported.filter(|(_, at)| missed.is_none_or(|(missed, _)| *at >= missed)).map(|(part, _)| *part);
            let believed = self.truth.beliefs.get(&(p, member)).and_then(|belief| belief.get(h));
            since.chain(believed.into_iter().flatten().copied()).collect::<BTreeSet<Part>>()
        };
        live.map(|member| (member, parts(member))).filter(|(_, parts)| !parts.is_empty()).collect()
    }
}

/// Whether a mail can be read from these parts.
pub(crate) fn readable<'a>(parts: impl Iterator<Item = &'a Part>) -> bool {
    let mut fragments: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
    for part in parts {
        match part {
            Part::Whole => return true,
            Part::Fragment { k, i } => drop(fragments.entry(*k).or_default().insert(*i)),
        }
    }
    fragments.iter().any(|(k, indices)| indices.len() >= usize::from(*k))
}

/// How many of the holders may go, whichever they are; -1 when it cannot be read as it is. By trying every loss.
pub(crate) fn survives(held: &[BTreeSet<Part>]) -> i32 {
    let all: u32 = 1 << held.len();
    let mut survived = i32::try_from(held.len()).unwrap();
    for lost in 0..all {
        let left = held.iter().enumerate().filter(|(n, _)| lost & (1 << n) == 0);
        if !readable(left.flat_map(|(_, parts)| parts)) {
            survived = survived.min(i32::try_from(lost.count_ones()).unwrap() - 1);
        }
    }
    survived
}
