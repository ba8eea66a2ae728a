//! What members tell of the own msglist, page by page: the list here goes on with it, or it is listed again. It never believes an
//! entry or a tombstone that this very peer did not sign, and never takes a tombstone back (R7).

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;

use super::adopt::{OwnerNote, head_of};
use super::base::KEPT;
use super::events::{EndedAs, Event, Facts, Mail, MailFacts};
use super::{Batch, Outbox};
use crate::model::msglist::{Cursor, Ending, EntryBody, Epoch, MailEntry, Seq, SignedTombstone, Tombstone};
use crate::model::{Address, MailId, Now, SubmissionId, WallTime};
use crate::wire::Signed;
use crate::wire::http::TOMBSTONE_BYTES_MAX;
use crate::wire::msglist::{Page, Run, VerifiedRun, decode_entry};

/// Most tombstones from elsewhere than a list that are taken from a page.
pub(super) const LOOSE_MAX: usize = 4096;

/// A page fits neither the list here nor itself.
pub(super) struct Misfit;

impl Outbox {
    pub(super) fn take_own_page(
        &mut self,
        now: Now,
        page: &Page,
        notes: &BTreeMap<MailId, OwnerNote>,
    ) -> Result<(), Misfit> {
        let mut batch = Batch::default();
        self.adoption.uncounted = false;
        let mut fits = Ok(());
        for run in &page.runs {
            if self.take_own_run(&mut batch, now, run, notes).is_err() {
                fits = Err(Misfit);
            }
        }
        for bytes in page.tombstones.iter().take(LOOSE_MAX) {
            let signed = SignedTombstone(bytes.to_vec());
            let is_short = signed.0.len() <= TOMBSTONE_BYTES_MAX;
            if let Some(tombstone) = self.own_tombstone(&signed).filter(|t| is_short && !self.is_known_end(t)) {
                self.adoption.keep_loose(tombstone.h, tombstone.expiry, signed);
            }
        }
        self.adoption.bound_loose(&self.state.open);
        if !self.adoption.holding {
            self.take_loose(&mut batch, now);
        }
        if !batch.events.is_empty() {
            self.learns(&mut batch);
        }
        let told_of = |event: &Event| match event {
            Event::Sealed { submission, facts, .. } => Some((*submission, facts.h)),
            _ => None,
        };
        let late: Vec<(SubmissionId, MailId)> = batch.events.iter().filter_map(told_of).collect();
        self.commit(batch);
        if !self.adoption.holding {
            self.note_doubled();
            // What is adopted before the release is looked after there.
            if !late.is_empty() {
                // Words about these were of no use before: members compare what they hold once more.
                self.say_hello();
            }
            for (submission, h) in late {
                // Its receivers may have ended while it was not known that it was sealed for them.
                self.entomb_late(now, h);
                self.await_expiry(now, submission);
                self.show(submission);
            }
            self.recover_next(now);
        }
        fits
    }

    /// Members know more than this disk: it is an old copy, and what it says of whom a mail was served to is not all. That comes before
    /// what they tell: a crash may keep only the beginning.
    fn learns(&mut self, batch: &mut Batch) {
        self.adoption.adopted = true;
        if !std::mem::replace(&mut self.adoption.uncounted, true) {
            self.uncount(batch);
        }
    }

    /// A tombstone that a member has from elsewhere than a list.
    pub(super) fn take_own_tombstone(&mut self, now: Now, tombstone: Vec<u8>) {
        let page = Page { tombstones: vec![ByteBuf::from(tombstone)], ..Page::default() };
        // Without a run there is nothing that could not fit.
        let _ = self.take_own_page(now, &page, &BTreeMap::new());
    }

    /// Takes the tombstones that no list here or there has, and lists them: those of mails that are known here whatever the clock
    /// says, which may be wrong; of others not those that are over for long.
    pub(super) fn take_loose(&mut self, batch: &mut Batch, now: Now) {
        for (h, (expiry, signed)) in std::mem::take(&mut self.adoption.loose) {
            let is_known = self.state.mails.contains_key(&h) || self.state.gone.contains_key(&h);
            if !is_known && self.seems_long_over(now, expiry) {
                // Whoever told it may be gone when a clock in doubt is right, and another tell the mail then.
                if self.clock.is_doubtful() {
                    self.adoption.loose.insert(h, (expiry, signed));
                }
                continue;
            }
            self.adopt(batch, now, EntryBody::Tombstone(signed), None, &BTreeMap::new());
        }
    }

    fn take_own_run(
        &mut self,
        batch: &mut Batch,
        now: Now,
        run: &Run,
        notes: &BTreeMap<MailId, OwnerNote>,
    ) -> Result<(), Misfit> {
        let me = self.key.peer_id();
        let epoch = head_of(run).ok_or(Misfit)?.epoch;
        let known = self.state.list.chain_at(Cursor { epoch, seq: run.after });
        let verified = run.verify(&me, known.as_ref()).or_else(|_| run.verify(&me, None)).map_err(|_| Misfit)?;
        if self.adoption.holding {
            self.make_place(batch, epoch, &verified);
        }
        let mut again = Vec::new();
        let mut fork = None;
        for (entry, bytes) in verified.entries {
            let ours = self.state.list.entry(entry.at);
            if ours == Some(bytes.as_slice()) || self.is_behind_base(entry.at) {
                continue;
            }
            let follows = self.state.list.next_at() == entry.at && fork.is_none();
            if ours.is_some() {
                fork.get_or_insert(entry.at);
            }
            if ours.is_none() && self.adoption.holding && follows {
                self.adopt(batch, now, entry.body, Some(bytes), notes);
            } else if self.is_to_be_believed(now, entry.at, &entry.body) {
                again.push(entry.body);
            } else if entry.at > self.state.list.head() {
                // What comes after it would stand here where it stands for the members.
                fork.get_or_insert(entry.at);
            }
        }
        self.list_again(batch, now, epoch, fork, again, notes);
        Ok(())
    }

    /// What stood elsewhere comes at every start: it says nothing of a mail that is long over, and nothing against a later epoch.
    fn is_to_be_believed(&mut self, now: Now, at: Cursor, body: &EntryBody) -> bool {
        let EntryBody::Mail(mail) = body else { return true };
        let goes_on = self.adoption.believed.get(&mail.h).is_some_and(|before| *before < at);
        let known = self.state.mails.get(&mail.h).map(|known| known.entry_at.epoch);
        let is_believed = match known {
            Some(epoch) => goes_on || epoch <= at.epoch,
            None => !self.seems_long_over(now, mail.expiry),
        };
        if is_believed {
            self.adoption.believed.insert(mail.h, at);
        }
        is_believed
    }

    /// Whether what ends at `expiry` is passed over as long over. That is for the clock of now to say, which may be wrong.
    fn seems_long_over(&mut self, now: Now, expiry: WallTime) -> bool {
        let is_over = expiry + KEPT <= now.wall;
        self.adoption.passed_over |= is_over;
        is_over
    }

    /// Makes the list end where the run begins, if what lies between is over or in another epoch.
    fn make_place(&mut self, batch: &mut Batch, epoch: Epoch, run: &VerifiedRun) {
        if epoch > self.state.list.head().epoch {
            self.learns(batch);
            self.record(batch, Event::EpochOpened(epoch));
        }
        let head = self.state.list.head();
        if head.epoch == epoch && run.after > head.seq {
            self.learns(batch);
            self.record(batch, Event::Rebased { epoch, base: run.after, chain: run.before });
        }
    }

    fn is_behind_base(&self, at: Cursor) -> bool {
        self.state.list.base(at.epoch).is_some_and(|(base, _)| at.seq <= base)
    }

    /// Lists in the epoch of now what could not be put where it stood. If the epoch of now is contradicted, or another above
    /// it was read by members, a new one is opened above all, and what only the list here says is said again there.
    fn list_again(
        &mut self,
        batch: &mut Batch,
        now: Now,
        epoch: Epoch,
        fork: Option<Cursor>,
        again: Vec<EntryBody>,
        notes: &BTreeMap<MailId, OwnerNote>,
    ) {
        let current = self.state.list.head().epoch;
        let fork = fork.filter(|at| at.epoch == current);
        if fork.is_some() || epoch > current {
            self.open_epoch(batch, now, epoch);
        }
        if let Some(fork) = fork {
            let skip = usize::try_from(fork.seq.0.saturating_sub(self.base_of(current).0).saturating_sub(1));
            let ours: Vec<Vec<u8>> =
                self.state.list.entries(current).skip(skip.unwrap_or(usize::MAX)).map(<[u8]>::to_vec).collect();
            for entry in ours.iter().filter_map(|bytes| decode_entry(bytes).ok()) {
                let (_, bytes) = self.state.list.next_entry(entry.body);
                self.record(batch, Event::KeptEntry(bytes));
            }
        }
        for body in again {
            self.adopt(batch, now, body, None, notes);
        }
    }

    pub(super) fn base_of(&self, epoch: Epoch) -> Seq {
        self.state.list.base(epoch).map(|(base, _)| base).unwrap_or_default()
    }

    /// Takes what one entry says: with its bytes where the list goes on with it, without them to be listed again.
    fn adopt(
        &mut self,
        batch: &mut Batch,
        now: Now,
        body: EntryBody,
        bytes: Option<Vec<u8>>,
        notes: &BTreeMap<MailId, OwnerNote>,
    ) {
        let must_stand = bytes.is_some();
        let bytes = bytes.unwrap_or_else(|| self.state.list.next_entry(body.clone()).1);
        let is_news = match body {
            EntryBody::Mail(mail) => self.adopt_mail(batch, now, &mail, &bytes, notes),
            EntryBody::Tombstone(signed) => self.adopt_tombstone(batch, now, &signed, &bytes),
            EntryBody::Unknown { .. } => false,
        };
        if must_stand && !is_news {
            self.learns(batch);
            self.record(batch, Event::KeptEntry(bytes));
        }
    }

    /// A mail that this peer sealed and does not know: it is open again. Whether that is news.
    fn adopt_mail(
        &mut self,
        batch: &mut Batch,
        now: Now,
        mail: &MailEntry,
        entry: &[u8],
        notes: &BTreeMap<MailId, OwnerNote>,
    ) -> bool {
        let h = mail.h;
        let Some(note) = notes.get(&h) else { return false };
        if let Some(known) = self.state.mails.get(&h) {
            // It was re-encoded since: the members keep it as they were told last.
            let is_news = known.tombstone.is_none() && known.facts.encoding != mail.encoding;
            if is_news {
                self.learns(batch);
                let (encoding, entry) = (mail.encoding, entry.to_vec());
                self.record(batch, Event::Reencoded { h, encoding, entry, adopted: true });
                self.make_told_manifest(h);
            }
            return is_news;
        }
        self.learns(batch);
        // Of which only the end was told until now: it ends as that says, so that its sender hears of it.
        self.take_known_end(&h);
        let submission = note.submission;
        let nothing = Facts { size: mail.length, at: WallTime::default(), expiry: mail.expiry, message_id: None };
        // In one event with the sealed mail: nobody has a spool file for the submission alone.
        let adopted = Some(note.facts.clone().unwrap_or(nothing));
        let (length, digest, expiry, encoding) = (mail.length, mail.digest, mail.expiry, mail.encoding);
        let facts = MailFacts { h, length, digest, expiry, encoding };
        let (receivers, entry) = (note.receivers.clone(), entry.to_vec());
        let is_taken_back = self.is_taken_back(&submission);
        self.record(batch, Event::Sealed { submission, facts, receivers, entry, counted: false, adopted });
        if is_taken_back {
            self.end_open_copies(batch, now, submission, EndedAs::Cancelled);
        }
        // It is not on this disk, unless the blob is found when all is adopted.
        self.missing.insert(h);
        true
    }

    /// A tombstone that came before its mail ends that as soon as new entries may be made (R7).
    pub(super) fn take_known_end(&mut self, h: &MailId) {
        if let Some((expiry, tombstone)) = self.state.gone.get(h) {
            self.adoption.loose.insert(*h, (*expiry, SignedTombstone(tombstone.clone())));
        }
    }

    /// Whether a mail is known to have ended, and nothing is left to do for that.
    fn is_known_end(&self, told: &Tombstone) -> bool {
        let is_known = |mail: &Mail| mail.tombstone.is_some() && self.read_after_all(mail, told.ending).is_empty();
        self.state.mails.get(&told.h).map_or_else(|| self.state.gone.contains_key(&told.h), is_known)
    }

    /// For whom a mail was taken back here, of which its readers have said in another life that they had it.
    fn read_after_all(&self, mail: &Mail, told: Ending) -> Vec<Address> {
        let is_other =
            told == Ending::Received && mail.tombstone.is_some_and(|(_, ending)| ending == Ending::Cancelled);
        let is_cancelled = |address: &&Address| {
            let receiver = self.state.receiver(&mail.submission, address);
            is_other && receiver.and_then(|r| r.end.as_ref()).is_some_and(|end| end.why == EndedAs::Cancelled)
        };
        mail.receivers.iter().filter(is_cancelled).cloned().collect()
    }

    /// A tombstone that this peer signed (R4).
    fn own_tombstone(&self, signed: &SignedTombstone) -> Option<Signed<Tombstone>> {
        let me = self.key.peer_id();
        Signed::<Tombstone>::verify(&signed.0).ok().filter(|tombstone| tombstone.owner == me)
    }

    /// A tombstone of this peer that it does not know: it wins, always (R7). Whether that is news.
    fn adopt_tombstone(&mut self, batch: &mut Batch, now: Now, signed: &SignedTombstone, entry: &[u8]) -> bool {
        let Some(tombstone) = self.own_tombstone(signed) else { return false };
        let (h, ending, expiry) = (tombstone.h, tombstone.ending, tombstone.expiry);
        let Some(mail) = self.state.mails.get(&h) else {
            if !self.state.gone.contains_key(&h) {
                self.learns(batch);
                self.record(batch, Event::Gone { h, expiry, tombstone: signed.0.clone() });
                self.record(batch, Event::KeptEntry(entry.to_vec()));
                return true;
            }
            return false;
        };
        let submission = mail.submission;
        if mail.tombstone.is_some() {
            let readers = self.read_after_all(mail, ending);
            if !readers.is_empty() {
                self.learns(batch);
            }
            for reader in readers {
                self.end_copy(batch, now, submission, &reader, EndedAs::Received);
            }
            return false;
        }
        let why = ended_as(ending, mail.receivers.len());
        let receivers = match ending {
            // What is taken back is so for all of its receivers, also for whom this form was not sealed.
            Ending::Cancelled => self.state.submissions.get(&submission).map(|s| s.receivers.keys().cloned().collect()),
            _ => None,
        };
        let receivers = receivers.unwrap_or_else(|| mail.receivers.clone());
        self.learns(batch);
        // Also for whom it was sealed again since: what came of the mail came of it in either form.
        let is_of_both = matches!(ending, Ending::Received | Ending::Cancelled);
        let form = |receiver: &Address| Some(self.state.receiver(&submission, receiver)?.sealed.as_ref()?.h);
        let others: BTreeSet<MailId> = receivers.iter().filter_map(form).filter(|other| *other != h).collect();
        // Before the tombstone: a crash that keeps only the beginning of this leaves nothing that nobody would end any more.
        for receiver in receivers {
            if is_of_both || self.sealed_for(&h, &receiver).is_some() {
                self.end_copy(batch, now, submission, &receiver, why);
            }
        }
        let gone = self.gone_forms(submission);
        self.entomb(batch, h, ending, entry.to_vec(), signed);
        self.tell_of_forms(batch, gone, |_| true);
        for other in others.into_iter().chain(self.doubles_of(submission)) {
            self.entomb_if_done(batch, now, other);
        }
        true
    }
}

/// How a receiver's copy ended, as far as the tombstone of its mail says so.
fn ended_as(ending: Ending, receivers: usize) -> EndedAs {
    match ending {
        Ending::Received => EndedAs::Received,
        Ending::Cancelled => EndedAs::Cancelled,
        Ending::Expired if receivers == 1 => EndedAs::Expired,
        Ending::Expired | Ending::Refused => EndedAs::Forgotten,
    }
}
