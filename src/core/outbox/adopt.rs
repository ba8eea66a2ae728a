//! Adoption: after a start the tail of the own msglist is read from the members, so that an owner restored from an old disk
//! knows what it listed since. It never believes an entry that is not part of a list signed by this very peer, never takes a
//! tombstone back (R7), and holds up nothing but new msglist entries.
//!
//! ```text
//!   start --> holding ---- every member asked has answered, or 5 s ----> released
//!               |  entries go on where the list here ends                  |  what comes later is listed again:
//!               |  (epochs and positions as they were)                     |  in the epoch of now, or a new one above both
//!               '-- restored, or nobody answered and no clean stop: a new epoch
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::base::KEPT;
use super::events::{EndedAs, Event, Facts, MailFacts, SealedReceiver};
use super::io::{Action, Input};
use super::{Batch, Outbox, RETRY_FIRST, Timer};
use crate::model::group::Member;
use crate::model::msglist::{Cursor, Ending, EntryBody, Epoch, MailEntry, Seq, SignedTombstone, Tombstone};
use crate::model::{MailId, MonoTime, Now, PeerId, SubmissionId, WallTime};
use crate::wire::Signed;
use crate::wire::http::TOMBSTONE_BYTES_MAX;
use crate::wire::msglist::{Page, Run, VerifiedRun, decode_entry};

/// How long new entries wait for the members' answers (DESIGN.md section 5).
const HOLD: Duration = Duration::from_secs(5);
/// Pause until a member is asked again that did not answer while that was waited for. It may be the only one that knows.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// As long after the start an nr for an unknown mail may be for one that a member will tell of.
const MAY_BE_TOLD: Duration = Duration::from_secs(600);
/// An epoch that was opened within this is not taken for the whole truth: whoever knows more of the ones before it may have been
/// away since. As long as any mail lives.
const DOUBTED: Duration = Duration::from_secs(30 * 86_400);
/// Most tombstones from elsewhere than a list that are taken from a page.
const LOOSE_MAX: usize = 4096;
/// Most inputs that wait until the members have answered; what comes beyond is taken at once.
const DEFERRED_MAX: usize = 4096;

/// What an owner needs to finish a mail after a restore: sealed to itself in the mail's msglist entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerNote {
    /// What the mail was sealed from.
    #[serde(rename = "s")]
    pub submission: SubmissionId,
    /// Whom it was sealed to.
    #[serde(rename = "r")]
    pub receivers: Vec<SealedReceiver>,
    /// What else is known of the submission. Older notes have none.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// A page of the own msglist as a member has it, with the notes that could be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnPage {
    /// The page.
    pub page: Page,
    /// By mail.
    pub notes: BTreeMap<MailId, OwnerNote>,
}

impl OwnPage {
    /// Whether it tells of anything after `since`, as its heads say.
    pub fn reaches_beyond(&self, since: Cursor) -> bool {
        self.page.runs.iter().filter_map(head_of).any(|end| end > since)
    }
}

/// What the members are asked about the own msglist. Nothing in here survives a crash, nor needs to.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    /// New entries wait.
    pub(super) holding: bool,
    /// Whether the last run stopped in order, and nothing was restored since.
    trusted: bool,
    restored: bool,
    answered: bool,
    adopted: bool,
    /// When that was asked first.
    began: Option<MonoTime>,
    /// From where on members are asked.
    since: Cursor,
    /// Who is being asked, and from where on.
    asked: BTreeMap<PeerId, Cursor>,
    /// Who was heard of while it was being asked: a question that then comes to nothing is asked again.
    heard: BTreeSet<PeerId>,
    /// Who is read to the end.
    read: BTreeSet<PeerId>,
    /// Who is asked for all, because its tail does not continue the list here.
    from_start: BTreeSet<PeerId>,
    /// Tombstones that members have from elsewhere than a list: taken when new entries may be made.
    loose: BTreeMap<MailId, SignedTombstone>,
    /// Where else the mails stand that were listed again since the start, as far as that was read.
    believed: BTreeMap<MailId, Cursor>,
    deferred: Vec<Input>,
    blobs: Vec<MailId>,
    /// Sealed forms of a submission whose receivers were sealed for in another one.
    pub(super) doubled: BTreeSet<MailId>,
}

impl Adoption {
    fn has_read_somebody(&self) -> bool {
        self.asked.is_empty() && !self.read.is_empty()
    }
}

/// A page fits neither the list here nor itself.
struct Misfit;

impl Outbox {
    /// The home was restored from a backup: its clean-stop record says nothing.
    pub fn mark_restored(&mut self) {
        self.adoption.restored = true;
    }

    /// Asks the members for the tail of the own msglist; without members there is nothing to wait for.
    pub(super) fn begin_adoption(&mut self, now: Now, blobs: Vec<MailId>) {
        self.adoption.blobs = blobs;
        self.adoption.trusted = self.state.clean_stop && !self.adoption.restored;
        let members: Vec<PeerId> = self.roster.others().map(|m| m.peer_id).collect();
        if members.is_empty() {
            return self.release(now);
        }
        self.adoption.holding = true;
        self.adoption.began = Some(now.mono);
        self.adoption.since = self.doubted_since(now);
        self.timers.set(Timer::Adoption, now.mono + HOLD);
        for member in members {
            self.ask_own_list(member, self.adoption.since);
        }
    }

    /// Where the part of the list begins that members may know more of: what comes after the end of the last epoch, unless that
    /// one was opened lately, above others, for want of an answer.
    fn doubted_since(&self, now: Now) -> Cursor {
        let epochs: Vec<Epoch> = self.state.list.epochs().collect();
        let old = |epoch: &&Epoch| WallTime(epoch.0) + DOUBTED <= now.wall;
        let Some(epoch) = epochs.iter().rev().find(old).or(epochs.first()).copied() else { return Cursor::default() };
        let entries = u64::try_from(self.state.list.entries(epoch).count()).unwrap_or(u64::MAX);
        Cursor { epoch, seq: Seq(self.base_of(epoch).0.saturating_add(entries)) }
    }

    fn ask_own_list(&mut self, member: PeerId, since: Cursor) {
        self.timers.cancel(&Timer::AskOwnList(member));
        self.adoption.asked.insert(member, since);
        self.out.act(Action::ReadOwnList { member, since });
    }

    /// Asks a member again that could not be asked.
    pub(super) fn ask_own_list_again(&mut self, member: PeerId) {
        let is_open = !self.adoption.asked.contains_key(&member) && !self.adoption.read.contains(&member);
        if is_open && self.is_other_member(&member) {
            self.ask_own_list(member, self.adoption.since);
        }
    }

    /// Whether a mail that is unknown here may yet be told of: the start is not long ago, and not everybody has answered.
    pub(super) fn may_be_told_of_more(&self, now: Now) -> bool {
        let is_unread = |m: &Member| !self.adoption.read.contains(&m.peer_id);
        let is_early = self.adoption.began.is_some_and(|began| now.mono.since(began) <= MAY_BE_TOLD);
        is_early && self.roster.others().any(is_unread)
    }

    /// How many members were asked what they know of the own list, count, and have not answered. None where the last run stopped in
    /// order and nothing was restored since: there is nothing that only they know.
    pub(super) fn unread_members(&self) -> usize {
        if self.adoption.trusted {
            return 0;
        }
        let is_asked = |member: &PeerId| {
            self.adoption.asked.contains_key(member) || self.timers.is_set(&Timer::AskOwnList(*member))
        };
        let others = self.roster.others().map(|m| m.peer_id);
        others.filter(|member| self.roster.counts(member) && is_asked(member)).count()
    }

    /// A member is there that has not been read since the start.
    pub(super) fn ask_own_list_of(&mut self, member: &PeerId) {
        if self.adoption.asked.contains_key(member) {
            self.adoption.heard.insert(*member);
        } else if !self.adoption.read.contains(member) && self.is_other_member(member) {
            self.ask_own_list(*member, self.adoption.since);
        }
    }

    /// What a member has of the own list.
    pub(super) fn own_list(&mut self, now: Now, member: PeerId, since: Cursor, answer: Option<OwnPage>) {
        if self.adoption.asked.get(&member) != Some(&since) {
            return;
        }
        self.adoption.asked.remove(&member);
        let was_heard = self.adoption.heard.remove(&member);
        match answer {
            None if self.adoption.holding => {
                self.timers.set(Timer::AskOwnList(member), now.mono + RETRY_FIRST);
            }
            None if was_heard => self.ask_own_list(member, since),
            None => self.timers.set(Timer::AskOwnList(member), now.mono + ASK_AGAIN),
            Some(OwnPage { page, notes }) => {
                let last = page.runs.iter().filter_map(head_of).next_back();
                let fits = self.take_own_page(now, &page, &notes).is_ok();
                if !fits && since != Cursor::default() && self.adoption.from_start.insert(member) {
                    return self.ask_own_list(member, Cursor::default());
                }
                if let Some(last) = last.filter(|last| fits && page.more && *last > since) {
                    return self.ask_own_list(member, last);
                }
                self.adoption.answered |= fits;
                self.adoption.read.insert(member);
            }
        }
        if self.adoption.holding && self.adoption.has_read_somebody() {
            self.release(now);
        }
    }

    /// The 5 s are over, or everybody has answered: new entries may be made, and what waited for that goes on.
    pub(super) fn release(&mut self, now: Now) {
        self.adoption.holding = false;
        self.timers.cancel(&Timer::Adoption);
        let has_members = self.roster.others().next().is_some();
        let blind = has_members && !self.adoption.answered && !self.adoption.trusted;
        let mut batch = Batch::default();
        // Who answered a restored owner may have hidden what it read, and would pass over what came to stand at the same place.
        if blind || self.adoption.restored || self.state.list.is_fresh() {
            self.open_epoch(&mut batch, now, Epoch::default());
        }
        self.take_loose(&mut batch, now);
        let restored = std::mem::take(&mut self.adoption.restored);
        if restored {
            batch.act(Action::ForgetRestored);
        }
        if restored || self.adoption.adopted {
            self.uncount(&mut batch);
        }
        self.commit(batch);
        self.note_doubled();
        self.clear_blobs();
        for h in self.state.open.clone() {
            self.entomb_late(now, h);
            let at = self.state.mails.get(&h).map(|mail| mail.entry_at);
            if at.is_some_and(|at| at > self.state.list.durable()) {
                // Listed anew just now: told of when that is durable.
                self.unlisted.insert(h);
            } else {
                self.announce_all(now, h, true);
            }
        }
        if self.adoption.adopted {
            self.say_hello();
        }
        for submission in self.state.waiting.clone() {
            self.await_expiry(now, submission);
            self.show(submission);
        }
        self.rebase_now_and_then(now);
        self.plan_audits(now);
        self.seal_next();
        self.recover_next(now);
        self.begin_reencoding();
        self.poll_nr(now);
        for input in std::mem::take(&mut self.adoption.deferred) {
            self.take_input(now, input);
        }
    }

    /// What this disk says of whom a mail was served to is not all: a cancel must not answer from it.
    fn uncount(&mut self, batch: &mut Batch) {
        let counted: Vec<MailId> =
            self.state.mails.iter().filter(|(_, mail)| mail.served.is_some()).map(|(h, _)| *h).collect();
        for h in counted {
            self.record(batch, Event::Uncounted { h });
        }
    }

    /// Keeps what may concern a mail that is about to be adopted until the members have answered.
    pub(super) fn defer(&mut self, input: Input) -> Option<Input> {
        let waits = matches!(
            input,
            Input::Holdings { .. } | Input::HoldingBuckets { .. } | Input::Nr { .. } | Input::Cancel { .. }
        );
        if self.adoption.holding && waits && self.adoption.deferred.len() < DEFERRED_MAX {
            self.adoption.deferred.push(input);
            return None;
        }
        Some(input)
    }

    /// Drops blobs that no record names, and notes open mails that have none.
    fn clear_blobs(&mut self) {
        let blobs = std::mem::take(&mut self.adoption.blobs);
        let mut batch = Batch::default();
        for h in blobs.iter().filter(|h| !self.state.open.contains(h)) {
            batch.act(Action::DropBlob { h: *h });
        }
        // Behind all that was recorded: the tombstone of one of them may not be on the disk yet.
        self.commit(batch);
        self.note_missing(&blobs);
    }

    fn note_doubled(&mut self) {
        let is_double = |h: &&MailId| {
            let Some(mail) = self.state.mails.get(*h) else { return false };
            let sealed = |a| self.state.receiver(&mail.submission, a).and_then(|r| r.sealed.as_ref()).map(|s| s.h);
            mail.receivers.iter().any(|address| sealed(address) != Some(**h))
        };
        self.adoption.doubled = self.state.mails.keys().filter(is_double).copied().collect();
    }

    /// Other sealed forms of a submission.
    pub(super) fn doubles_of(&self, id: SubmissionId) -> Vec<MailId> {
        let of = |h: &&MailId| self.state.mails.get(*h).is_some_and(|mail| mail.submission == id);
        self.adoption.doubled.iter().filter(of).copied().collect()
    }

    /// Opens an epoch above every one that is known, and above `beyond`.
    fn open_epoch(&mut self, batch: &mut Batch, now: Now, beyond: Epoch) {
        let last = self.state.list.head().epoch.max(beyond);
        let epoch = if last == Epoch::default() { now.wall.0 } else { now.wall.0.max(last.0.saturating_add(1)) };
        self.record(batch, Event::EpochOpened(Epoch(epoch)));
    }

    fn take_own_page(&mut self, now: Now, page: &Page, notes: &BTreeMap<MailId, OwnerNote>) -> Result<(), Misfit> {
        let mut batch = Batch::default();
        let mut fits = Ok(());
        for run in &page.runs {
            if self.take_own_run(&mut batch, now, run, notes).is_err() {
                fits = Err(Misfit);
            }
        }
        for bytes in page.tombstones.iter().take(LOOSE_MAX) {
            let signed = SignedTombstone(bytes.to_vec());
            let is_short = signed.0.len() <= TOMBSTONE_BYTES_MAX && self.adoption.loose.len() < LOOSE_MAX;
            if let Some(tombstone) = self.own_tombstone(&signed).filter(|t| is_short && t.expiry + KEPT > now.wall) {
                self.adoption.loose.entry(tombstone.h).or_insert(signed);
            }
        }
        if !self.adoption.holding {
            self.take_loose(&mut batch, now);
        }
        if !batch.events.is_empty() {
            self.adoption.adopted = true;
            if !self.adoption.holding {
                self.uncount(&mut batch);
            }
        }
        let told_of = |event: &Event| match event {
            Event::Sealed { submission, .. } => Some(*submission),
            _ => None,
        };
        let late: Vec<SubmissionId> = batch.events.iter().filter_map(told_of).collect();
        self.commit(batch);
        if !self.adoption.holding {
            self.note_doubled();
            // What is adopted before the release is looked after there.
            if !late.is_empty() {
                // Words about these were of no use before: members compare what they hold once more.
                self.say_hello();
            }
            for submission in late {
                self.await_expiry(now, submission);
                self.show(submission);
            }
            self.recover_next(now);
        }
        fits
    }

    /// A member that was to show a block of a mail has this peer's own word that the mail is gone: it wins (R7), though those who were
    /// asked for the own msglist may have kept it back. Anybody else's word says nothing.
    pub(super) fn audited_gone(&mut self, now: Now, tombstone: Vec<u8>) {
        let page = Page { tombstones: vec![ByteBuf::from(tombstone)], ..Page::default() };
        // Without a run there is nothing that could not fit.
        let _ = self.take_own_page(now, &page, &BTreeMap::new());
    }

    /// Takes the tombstones that no list here or there has, and lists them.
    fn take_loose(&mut self, batch: &mut Batch, now: Now) {
        for (_, signed) in std::mem::take(&mut self.adoption.loose) {
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
        let is_believed = known.map_or(mail.expiry + KEPT > now.wall, |epoch| goes_on || epoch <= at.epoch);
        if is_believed {
            self.adoption.believed.insert(mail.h, at);
        }
        is_believed
    }

    /// Makes the list end where the run begins, if what lies between is over or in another epoch.
    fn make_place(&mut self, batch: &mut Batch, epoch: Epoch, run: &VerifiedRun) {
        if epoch > self.state.list.head().epoch {
            self.record(batch, Event::EpochOpened(epoch));
        }
        let head = self.state.list.head();
        if head.epoch == epoch && run.after > head.seq {
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

    fn base_of(&self, epoch: Epoch) -> Seq {
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
            EntryBody::Mail(mail) => self.adopt_mail(batch, &mail, &bytes, notes),
            EntryBody::Tombstone(signed) => self.adopt_tombstone(batch, now, &signed, &bytes),
            EntryBody::Unknown { .. } => false,
        };
        if must_stand && !is_news {
            self.record(batch, Event::KeptEntry(bytes));
        }
    }

    /// A mail that this peer sealed and does not know: it is open again. Whether that is news.
    fn adopt_mail(
        &mut self,
        batch: &mut Batch,
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
                let (encoding, entry) = (mail.encoding, entry.to_vec());
                self.record(batch, Event::Reencoded { h, encoding, entry, adopted: true });
                self.make_told_manifest(h);
            }
            return is_news;
        }
        if self.state.gone.contains_key(&h) {
            return false;
        }
        let submission = note.submission;
        let nothing = Facts { size: mail.length, at: WallTime::default(), expiry: mail.expiry, message_id: None };
        // In one event with the sealed mail: nobody has a spool file for the submission alone.
        let adopted = Some(note.facts.clone().unwrap_or(nothing));
        let (length, digest, expiry, encoding) = (mail.length, mail.digest, mail.expiry, mail.encoding);
        let facts = MailFacts { h, length, digest, expiry, encoding };
        let (receivers, entry) = (note.receivers.clone(), entry.to_vec());
        self.record(batch, Event::Sealed { submission, facts, receivers, entry, counted: false, adopted });
        // It is not on this disk, unless the blob is found when all is adopted.
        self.missing.insert(h);
        true
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
                self.record(batch, Event::Gone { h, expiry, tombstone: signed.0.clone() });
                self.record(batch, Event::KeptEntry(entry.to_vec()));
                return true;
            }
            return false;
        };
        if mail.tombstone.is_some() {
            return false;
        }
        let (submission, receivers) = (mail.submission, mail.receivers.clone());
        let why = ended_as(ending, receivers.len());
        // Before the tombstone: a crash that keeps only the beginning of this leaves nothing that nobody would end any more.
        for receiver in receivers {
            if self.sealed_for(&h, &receiver).is_some() {
                self.end_copy(batch, now, submission, &receiver, why);
            }
        }
        let untold = self.to_be_told(h);
        self.record(batch, Event::Tombstoned { h, ending, entry: entry.to_vec() });
        self.stop_counting(h);
        batch.act(Action::DropBlob { h });
        for (receiver, peer) in untold {
            batch.act(Action::TellGone { h, receiver, peer, tombstone: signed.0.clone() });
        }
        for other in self.doubles_of(submission) {
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

/// Where a run ends, as its head says; not yet verified against the entries.
fn head_of(run: &Run) -> Option<Cursor> {
    Signed::<crate::model::msglist::Head>::verify(&run.head).ok().map(|head| head.at)
}
