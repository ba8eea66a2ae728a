//! How a mail ends: the reader's signed word, cancel, expiry; then tombstone and DSN. Nothing else ends one (R4).

use std::collections::BTreeSet;
use std::time::Duration;

use super::cancel::is_unsure;
use super::dsn;
use super::events::{EndedAs, Event, Mail, Receiver};
use super::io::{Action, NrFrom, OutboxRefusal, Reply};
use super::{Batch, FILE_AGAIN, Outbox, Timer};
use crate::model::msglist::{Cursor, Ending, EntryBody, SignedTombstone, Tombstone};
use crate::model::notification::{Nr, Outcome};
use crate::model::{Address, Fingerprint, MailId, Now, PeerId, Secret, SubmissionId};
use crate::wire;

/// What readers of an expired mail have left to say that they have it: one poll of the DHT, and one direct question.
const LAST_CHANCE: Duration = Duration::from_secs(10);
/// Longest time between two looks at the wall clock, which may be set.
const LOOK_MAX: Duration = Duration::from_secs(60);

impl Outbox {
    /// The reader's word. Only the one whose certificate the mail was sealed to frees it; said again, it is acknowledged
    /// again and changes nothing.
    pub(super) fn nr(&mut self, now: Now, from: NrFrom, nr: &Nr, signer: Fingerprint) {
        let secret = match self.fitting_receiver(nr, signer) {
            Ok(secret) => secret,
            Err(why) => {
                if let NrFrom::Direct(token) = from {
                    let is_known = self.state.mails.contains_key(&nr.h) || self.state.gone.contains_key(&nr.h);
                    let refusal = match !is_known && self.may_be_told_of_more(now) {
                        true => OutboxRefusal::NotYet,
                        false => OutboxRefusal::BadNr { why },
                    };
                    self.out.reply(token, Reply::Refused(refusal));
                }
                return;
            }
        };
        let why = match nr.outcome {
            Outcome::Received => EndedAs::Received,
            Outcome::Refused(refusal) => EndedAs::Refused(refusal),
        };
        let mut batch = Batch::default();
        self.end(&mut batch, now, nr.submission, &nr.reader, why);
        match from {
            NrFrom::Direct(token) => batch.reply(token, Reply::NrTaken),
            NrFrom::Dht(value) => batch.act(Action::DeleteNr { value, secret }),
        }
        self.commit(batch);
    }

    fn fitting_receiver(&self, nr: &Nr, signer: Fingerprint) -> Result<Secret, &'static str> {
        if nr.to != *self.me() {
            return Err("it is for another sender");
        }
        let mail = self.state.mails.get(&nr.h).filter(|mail| mail.receivers.contains(&nr.reader));
        let submission = mail.map(|mail| mail.submission);
        // Of two sealed forms, one of them from before a restore, the reader may have opened either.
        let sealed = submission.and_then(|id| self.state.receiver(&id, &nr.reader)?.sealed.as_ref());
        let (Some(submission), Some(sealed)) = (submission, sealed) else {
            return Err("there is no such mail for this reader");
        };
        if submission != nr.submission {
            return Err("mail and submission do not belong together");
        }
        if sealed.fingerprint != signer {
            return Err("it is not signed by the reader's certificate");
        }
        Ok(sealed.secret.clone())
    }

    /// One receiver's copy comes to its end, and the mail with the last of them. One that has ended stays as it is, but for
    /// a cancelled mail that its reader had already.
    pub(super) fn end(&mut self, batch: &mut Batch, now: Now, id: SubmissionId, address: &Address, why: EndedAs) {
        if !self.end_copy(batch, now, id, address, why) {
            return;
        }
        let gone = if why == EndedAs::Cancelled { self.gone_forms(id) } else { Vec::new() };
        let sealed = self.state.receiver(&id, address).and_then(|receiver| receiver.sealed.as_ref());
        for h in sealed.map(|sealed| sealed.h).into_iter().chain(self.doubles_of(id)) {
            self.entomb_if_done(batch, now, h);
        }
        self.tell_of_forms(batch, gone, |receiver| receiver == address);
    }

    /// The same without a tombstone. Whether it is news.
    pub(super) fn end_copy(
        &mut self,
        batch: &mut Batch,
        now: Now,
        id: SubmissionId,
        address: &Address,
        why: EndedAs,
    ) -> bool {
        let Some(receiver) = self.state.receiver(&id, address) else { return false };
        let is_news = match receiver.end.as_ref().map(|end| end.why) {
            None => true,
            Some(EndedAs::Cancelled) => why == EndedAs::Received,
            Some(_) => false,
        };
        if !is_news {
            if let EndedAs::Refused(_) = why {
                self.reader_is_told(batch, id, address);
            }
            return false;
        }
        let sealed = receiver.sealed.as_ref().map(|sealed| (sealed.h, sealed.in_dht, sealed.ns, sealed.secret.clone()));
        self.record(batch, Event::Ended { submission: id, receiver: address.clone(), why, at: now.wall });
        if let Some(dsn) = self.dsn(id, address) {
            self.timers.set(Timer::Dsn(id, address.clone()), now.mono + FILE_AGAIN);
            batch.act(Action::FileDsn(dsn));
        }
        self.stop_looking(id, address);
        if why == EndedAs::Cancelled && sealed.is_some() {
            self.note_unsure(id, address);
        } else {
            self.unsure.remove(&(id, address.clone()));
        }
        if let Some((h, in_dht, ns, secret)) = sealed {
            self.stop_announcing(h, address);
            if in_dht {
                batch.act(Action::DeleteNs { h, receiver: address.clone(), ns, secret });
            }
        }
        true
    }

    /// After a start: says that a mail is gone whose last receiver ended while nothing could be listed.
    pub(super) fn entomb_late(&mut self, now: Now, h: MailId) {
        let mut batch = Batch::default();
        let others = self.state.mails.get(&h).map(|mail| self.gone_forms(mail.submission)).unwrap_or_default();
        let others = others.into_iter().filter(|other| *other != h).collect();
        self.entomb_if_done(&mut batch, now, h);
        self.tell_of_forms(&mut batch, others, |_| true);
        self.commit(batch);
    }

    /// Says that a mail is gone, once its last receiver has ended.
    pub(super) fn entomb_if_done(&mut self, batch: &mut Batch, now: Now, h: MailId) {
        // New entries wait until the members have told what this list ends with; then it is looked at again.
        if self.adoption.holding {
            return;
        }
        let Some(mail) = self.state.mails.get(&h).filter(|mail| mail.tombstone.is_none()) else { return };
        let ends: Vec<EndedAs> = mail
            .receivers
            .iter()
            .filter_map(|address| self.state.receiver(&mail.submission, address))
            .filter_map(|receiver| receiver.end.as_ref().map(|end| end.why))
            .collect();
        if ends.len() < mail.receivers.len() {
            return;
        }
        let ending = ending_of(&ends);
        let owner = self.key.peer_id();
        let tombstone = Tombstone { owner, h, ending, at: now.wall, expiry: mail.facts.expiry };
        let signed = self.key.sign(tombstone).to_entry();
        let (_, entry) = self.state.list.next_entry(EntryBody::Tombstone(signed.clone()));
        self.entomb(batch, h, ending, entry, &signed);
    }

    /// Lists the tombstone, and tells it to those of whom the mail was taken back.
    pub(super) fn entomb(
        &mut self,
        batch: &mut Batch,
        h: MailId,
        ending: Ending,
        entry: Vec<u8>,
        signed: &SignedTombstone,
    ) {
        let untold = self.to_be_told(h);
        self.record(batch, Event::Tombstoned { h, ending, entry });
        self.stop_counting(h);
        batch.act(Action::DropBlob { h });
        let submission = self.state.mails.get(&h).map(|mail| mail.submission);
        for (receiver, peer) in untold {
            // One that was ended before it was known that anything was sealed for it is unsure from now on.
            submission.into_iter().for_each(|id| self.note_unsure(id, &receiver));
            batch.act(Action::TellGone { h, receiver, peer, tombstone: signed.0.clone() });
        }
    }

    /// Readers who were told of a mail that was taken back since.
    pub(super) fn to_be_told(&self, h: MailId) -> Vec<(Address, PeerId)> {
        let Some(mail) = self.state.mails.get(&h) else { return Vec::new() };
        let told = |address: &Address| {
            let receiver = self.state.receiver(&mail.submission, address).filter(|receiver| is_unsure(receiver))?;
            Some((address.clone(), receiver.sealed.as_ref()?.peer))
        };
        mail.receivers.iter().filter_map(told).collect()
    }

    /// The signed tombstone in the msglist entry at `at`.
    pub(super) fn tombstone_bytes(&self, at: Cursor) -> Option<Vec<u8>> {
        let entry = wire::msglist::decode_entry(self.state.list.entry(at)?).ok()?;
        match entry.body {
            EntryBody::Tombstone(tombstone) => Some(tombstone.0),
            EntryBody::Mail(_) | EntryBody::Unknown { .. } => None,
        }
    }

    /// Tells a reader's peer, until the mail's expiry, that a mail was taken back.
    pub(super) fn tell_gone(&mut self, h: MailId, receiver: &Address) {
        let found = self.to_be_told(h).into_iter().find(|(address, _)| address == receiver);
        let tombstone = self.state.mails.get(&h).and_then(|mail| self.tombstone_bytes(mail.tombstone?.0));
        if let (Some((receiver, peer)), Some(tombstone)) = (found, tombstone) {
            self.timers.cancel(&Timer::TellGone(h, receiver.clone()));
            self.out.act(Action::TellGone { h, receiver, peer, tombstone });
        }
    }

    /// Tries at once what waits to be told to `peer`.
    pub(super) fn tell_gone_to(&mut self, peer: &PeerId) {
        let waits = |h: &MailId, address: &Address| self.timers.is_set(&Timer::TellGone(*h, address.clone()));
        let cancelled = self.state.mails.iter().filter(|(_, m)| m.tombstone.is_some_and(|t| t.1 == Ending::Cancelled));
        let due: Vec<(MailId, Address)> = cancelled
            .flat_map(|(h, _)| self.to_be_told(*h).into_iter().map(|(address, who)| (*h, address, who)))
            .filter(|(h, address, who)| who == peer && waits(h, address))
            .map(|(h, address, _)| (h, address))
            .collect();
        for (h, address) in due {
            self.tell_gone(h, &address);
        }
    }

    /// What came of telling a reader that a mail was taken back. Its peer takes the tombstone only when it cannot open the
    /// mail any more, so that is the end of it.
    pub(super) fn gone_told(&mut self, now: Now, h: MailId, receiver: &Address, done: bool) {
        let which = (h, receiver.clone());
        // A clock that was ahead for a while is no reason not to tell it any more.
        let has_expired = |mail: &Mail| self.clock.has_stood(now) && self.is_past(mail.facts.expiry);
        let expired = self.state.mails.get(&h).is_none_or(has_expired);
        // Whichever of its sealed forms it is.
        let Some(id) = self.state.mails.get(&h).map(|mail| mail.submission) else { return };
        let sealed = self.state.receiver(&id, receiver).and_then(|receiver| receiver.sealed.as_ref());
        let Some(peer) = sealed.map(|sealed| sealed.peer) else { return };
        if done || expired {
            self.told_in_vain.remove(&which);
        }
        if done {
            self.tombstone_was_taken(h, id, receiver);
        } else if !expired {
            let attempts = self.told_in_vain.entry(which).or_default();
            let so_far = *attempts;
            *attempts = so_far.saturating_add(1);
            let pause = self.pause(so_far, Some(&peer), receiver);
            self.timers.set(Timer::TellGone(h, receiver.clone()), now.mono + pause);
        }
    }

    fn dsn(&self, id: SubmissionId, address: &Address) -> Option<dsn::Dsn> {
        let submission = self.state.submissions.get(&id)?;
        let end = submission.receivers.get(address)?.end.as_ref().filter(|end| !end.dsn_filed)?;
        dsn::build(self.me(), id, &submission.facts, address, end.why, end.at)
    }

    /// Whether a DSN about this submission is due and not filed: until then its header block is kept, in the spool or in the
    /// Outbox mailbox.
    pub(super) fn owes_dsn(&self, id: &SubmissionId) -> bool {
        let owed = |r: &Receiver| r.end.as_ref().is_some_and(|end| end.why.sends_dsn() && !end.dsn_filed);
        self.state.submissions.get(id).is_some_and(|submission| submission.receivers.values().any(owed))
    }

    /// Asks for a DSN that is due to be filed, and again until it is.
    pub(super) fn file_dsn(&mut self, now: Now, id: SubmissionId, receiver: &Address) {
        if let Some(dsn) = self.dsn(id, receiver) {
            self.timers.set(Timer::Dsn(id, receiver.clone()), now.mono + FILE_AGAIN);
            self.out.act(Action::FileDsn(dsn));
        }
    }

    /// The DSN is in INBOX.
    pub(super) fn dsn_filed(&mut self, submission: SubmissionId, receiver: Address) {
        if self.dsn(submission, &receiver).is_some() {
            self.timers.cancel(&Timer::Dsn(submission, receiver.clone()));
            let mut batch = Batch::default();
            self.record(&mut batch, Event::DsnFiled { submission, receiver });
            self.commit(batch);
        }
    }

    /// After a start: does what a crash kept from following the end of a mail.
    pub(super) fn finish_endings(&mut self, now: Now) {
        let (mut dsns, mut in_dht, mut unsure, mut untold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, submission) in &self.state.submissions {
            for (address, receiver) in &submission.receivers {
                if receiver.end.is_none() {
                    continue;
                }
                dsns.push((*id, address.clone()));
                let Some(sealed) = &receiver.sealed else { continue };
                if sealed.in_dht {
                    in_dht.push((sealed.h, address.clone()));
                }
                if is_unsure(receiver) {
                    unsure.push((*id, address.clone()));
                }
            }
        }
        for (id, address) in unsure {
            self.note_unsure(id, &address);
        }
        // Of each form that was sealed for them.
        for (h, mail) in &self.state.mails {
            let is_unsure = |to: &&Address| self.unsure.contains_key(&(mail.submission, (*to).clone()));
            let lives = !self.is_past(mail.facts.expiry);
            untold.extend(mail.receivers.iter().filter(|to| lives && is_unsure(to)).map(|to| (*h, to.clone())));
        }
        for (id, receiver) in dsns {
            self.file_dsn(now, id, &receiver);
        }
        for (h, receiver) in in_dht {
            self.delete_ns(h, &receiver);
        }
        for (h, receiver) in untold {
            self.tell_gone(h, &receiver);
        }
        // A crash may have torn the tombstone from the last end.
        let mut batch = Batch::default();
        for h in self.state.open.clone() {
            self.entomb_if_done(&mut batch, now, h);
        }
        self.commit(batch);
    }

    /// What is done does not expire any more.
    pub(super) fn forget_expiry_of_done(&mut self, touched: &BTreeSet<SubmissionId>) {
        for id in touched.iter().filter(|id| !self.state.waiting.contains(*id)) {
            if let Some(submission) = self.state.submissions.get(id) {
                self.expiries.remove(&(submission.facts.expiry, *id));
                self.closing.remove(id);
                self.timers.cancel(&Timer::Close(*id));
            }
        }
        if self.expiries.is_empty() {
            self.timers.cancel(&Timer::Expiry);
        }
    }

    pub(super) fn arm_expiry(&mut self, now: Now) {
        if let Some((earliest, _)) = self.expiries.first() {
            self.timers.set_earlier(Timer::Expiry, now.mono + earliest.since(now.wall).min(LOOK_MAX));
        }
    }

    /// Gives the readers of expired submissions a last chance.
    pub(super) fn look_for_expired(&mut self, now: Now) {
        while !self.clock.is_doubtful() && self.expiries.first().is_some_and(|(at, _)| *at <= now.wall) {
            let Some((_, id)) = self.expiries.pop_first() else { break };
            if !self.state.waiting.contains(&id) || !self.closing.insert(id) {
                continue;
            }
            self.timers.set(Timer::Close(id), now.mono + LAST_CHANCE);
            self.out.act(Action::PollNr);
            let mails = self.state.submissions.get(&id).map(super::events::Submission::mails).unwrap_or_default();
            for h in mails {
                // A reader that has the mail answers its ns with the nr.
                let receivers = self.state.mails.get(&h).map(|mail| mail.receivers.clone()).unwrap_or_default();
                for receiver in receivers {
                    self.announce(h, &receiver);
                }
            }
        }
        if self.clock.is_doubtful() && !self.expiries.is_empty() {
            self.timers.set(Timer::Expiry, now.mono + LOOK_MAX);
        } else {
            self.arm_expiry(now);
        }
    }

    /// The last chance is over.
    pub(super) fn close(&mut self, now: Now, id: SubmissionId) {
        if self.clock.is_doubtful() {
            self.timers.set(Timer::Close(id), now.mono + LOOK_MAX);
            return;
        }
        self.closing.remove(&id);
        let expiry = self.state.submissions.get(&id).map(|submission| submission.facts.expiry);
        if let Some(expiry) = expiry.filter(|expiry| *expiry > now.wall) {
            // The clock that began this was ahead, and was set right since.
            self.expiries.insert((expiry, id));
            return self.arm_expiry(now);
        }
        self.end_all(now, id, EndedAs::Expired);
    }

    fn end_all(&mut self, now: Now, id: SubmissionId, why: EndedAs) {
        let mut batch = Batch::default();
        self.end_all_in(&mut batch, now, id, why);
        self.commit(batch);
    }

    /// Ends what is open of a submission, without tombstones.
    pub(super) fn end_open_copies(&mut self, batch: &mut Batch, now: Now, id: SubmissionId, why: EndedAs) {
        for address in self.open_receivers(&id) {
            self.end_copy(batch, now, id, &address, why);
        }
    }

    fn open_receivers(&self, id: &SubmissionId) -> Vec<Address> {
        let receivers = self.state.submissions.get(id).map(|submission| &submission.receivers);
        receivers.into_iter().flatten().filter(|(_, r)| r.end.is_none()).map(|(a, _)| a.clone()).collect()
    }

    pub(super) fn end_all_in(&mut self, batch: &mut Batch, now: Now, id: SubmissionId, why: EndedAs) {
        for address in self.open_receivers(&id) {
            self.end(batch, now, id, &address, why);
        }
    }
}

/// How a mail ended, from how it ended for each of its receivers.
fn ending_of(ends: &[EndedAs]) -> Ending {
    let any = |fits: fn(&EndedAs) -> bool| ends.iter().any(fits);
    if any(|end| matches!(end, EndedAs::Cancelled)) {
        Ending::Cancelled
    } else if any(|end| matches!(end, EndedAs::Expired)) {
        Ending::Expired
    } else if any(|end| !matches!(end, EndedAs::Received | EndedAs::Filed)) {
        Ending::Refused
    } else {
        Ending::Received
    }
}
