//! Adoption: after a start the tail of the own msglist is read from the members, so that an owner restored from an old disk
//! knows what it listed since. It says who is asked and when; what they tell is judged in `own_list`. It never holds up anything but
//! new msglist entries.
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

use super::events::{Event, Facts, Mail, SealedReceiver};
use super::holdings::is_held;
use super::io::{Action, Input};
use super::own_list::LOOSE_MAX;
use super::{Batch, Outbox, RETRY_FIRST, Timer};
use crate::model::group::Member;
use crate::model::holding::{Holding, HoldingState};
use crate::model::msglist::{Cursor, Epoch, Head, Seq, SignedTombstone};
use crate::model::{MailId, MonoTime, Now, PeerId, SubmissionId, WallTime};
use crate::wire::Signed;
use crate::wire::msglist::{Page, Run};

/// Pauses between asking a member once more that has answered: the first, and the longest.
const ONCE_MORE: (Duration, Duration) = (RETRY_FIRST, Duration::from_secs(300));
/// How long new entries wait for the members' answers (DESIGN.md section 5).
const HOLD: Duration = Duration::from_secs(5);
/// Pause until a member is asked again that did not answer while that was waited for. It may be the only one that knows.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// As long after the start an nr for an unknown mail may be for one that a member will tell of.
const MAY_BE_TOLD: Duration = Duration::from_secs(600);
/// An epoch that was opened within this is not taken for the whole truth: whoever knows more of the ones before it may have been
/// away since. As long as any mail lives.
const DOUBTED: Duration = Duration::from_secs(30 * 86_400);
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
    pub(super) adopted: bool,
    /// Whether what was counted before is given up in the commit that is being made.
    pub(super) uncounted: bool,
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
    /// Who is or was asked once more after that.
    once_more: BTreeMap<PeerId, OnceMore>,
    /// Who is asked for all, because its tail does not continue the list here.
    from_start: BTreeSet<PeerId>,
    /// Tombstones that members have from elsewhere than a list, each with its mail's expiry: taken when new entries may be made.
    pub(super) loose: BTreeMap<MailId, (WallTime, SignedTombstone)>,
    /// Whether something that members told was passed over for the clock alone, since they were asked for all of it.
    pub(super) passed_over: bool,
    /// Where else the mails stand that were listed again since the start, as far as that was read.
    pub(super) believed: BTreeMap<MailId, Cursor>,
    deferred: Vec<Input>,
    blobs: Vec<MailId>,
    /// Sealed forms of a submission whose receivers were sealed for in another one.
    pub(super) doubled: BTreeSet<MailId>,
}

/// When a member is asked once more what it knows.
#[derive(Debug, Clone, Copy, Default)]
struct OnceMore {
    /// It may know more than what it has answered.
    is_due: bool,
    tries: u32,
    not_before: MonoTime,
}

impl Adoption {
    fn has_read_somebody(&self) -> bool {
        self.asked.is_empty() && !self.read.is_empty()
    }

    /// Keeps a tombstone from elsewhere than a list, until [`Self::bound_loose`].
    pub(super) fn keep_loose(&mut self, h: MailId, expiry: WallTime, signed: SignedTombstone) {
        self.loose.entry(h).or_insert((expiry, signed));
    }

    /// Of those that are kept stay the ones of open mails, and of so many others whose mails end last: a member that tells old ones
    /// crowds none out.
    pub(super) fn bound_loose(&mut self, open: &BTreeSet<MailId>) {
        let beyond = self.loose.len().saturating_sub(LOOSE_MAX);
        if beyond > 0 {
            let others = self.loose.iter().filter(|(h, _)| !open.contains(h));
            let mut others: Vec<(WallTime, MailId)> = others.map(|(h, (expiry, _))| (*expiry, *h)).collect();
            others.sort_unstable();
            others.into_iter().take(beyond).for_each(|(_, h)| drop(self.loose.remove(&h)));
        }
    }

    /// A member that has answered may know more by now: when it is to be asked for that, unless that is planned already.
    fn once_more(&mut self, member: PeerId, now: MonoTime) -> MonoTime {
        let again = self.once_more.entry(member).or_default();
        again.is_due = true;
        (now + ONCE_MORE.0).max(again.not_before)
    }

    /// It is asked now, if it is time for that: the next time comes after twice the pause, unless long after this one.
    fn begin_once_more(&mut self, member: &PeerId, now: MonoTime) {
        let Some(again) = self.once_more.get_mut(member).filter(|again| again.is_due) else { return };
        if !self.read.remove(member) {
            return;
        }
        // Its tail may fit by now.
        self.from_start.remove(member);
        let is_long_ago = now >= again.not_before + ONCE_MORE.1;
        let tries = if is_long_ago { 1 } else { again.tries.saturating_add(1) };
        let pause = ONCE_MORE.0.saturating_mul(2_u32.saturating_pow(tries.min(20))).min(ONCE_MORE.1);
        *again = OnceMore { is_due: false, tries, not_before: now + pause };
    }
}

impl Outbox {
    /// The home was restored from a backup: its clean-stop record says nothing.
    pub fn mark_restored(&mut self) {
        self.adoption.restored = true;
    }

    /// Asks the members for the tail of the own msglist; without members there is nothing to wait for.
    pub(super) fn begin_adoption(&mut self, now: Now, blobs: Vec<MailId>) {
        self.adoption.blobs = blobs;
        self.adoption.trusted = self.state.clean_stop && !self.adoption.restored;
        // The power failed between a mail and the end that was known before it.
        for h in self.state.open.clone() {
            self.take_known_end(&h);
        }
        let members: Vec<PeerId> = self.roster.others().map(|m| m.peer_id).collect();
        if members.is_empty() {
            return self.release(now);
        }
        self.adoption.holding = true;
        self.adoption.began = Some(now.mono);
        self.adoption.since = self.doubted_since(now.wall);
        self.timers.set(Timer::Adoption, now.mono + HOLD);
        for member in members {
            self.ask_own_list(member, self.adoption.since);
        }
    }

    /// Where the part of the list begins that members may know more of: what comes after the end of the last epoch, unless that
    /// one was opened lately, above others, for want of an answer.
    fn doubted_since(&self, now: WallTime) -> Cursor {
        let epochs: Vec<Epoch> = self.state.list.epochs().collect();
        let old = |epoch: &&Epoch| WallTime(epoch.0) + DOUBTED <= now;
        let Some(epoch) = epochs.iter().rev().find(old).or(epochs.first()).copied() else { return Cursor::default() };
        let entries = u64::try_from(self.state.list.entries(epoch).count()).unwrap_or(u64::MAX);
        Cursor { epoch, seq: Seq(self.base_of(epoch).0.saturating_add(entries)) }
    }

    /// The clock was found to be right. Under one that was not, what a member told may have been passed over, or not have been
    /// asked for: then whoever has answered is asked once more.
    pub(super) fn read_again_by_a_right_clock(&mut self, now: Now) {
        if !self.adoption.holding {
            // Of what was told already; nothing is in this page that could not fit.
            let _ = self.take_own_page(now, &Page::default(), &BTreeMap::new());
        }
        let since = self.doubted_since(now.wall).min(self.adoption.since);
        let is_wider = std::mem::replace(&mut self.adoption.since, since) != since;
        if !std::mem::take(&mut self.adoption.passed_over) && !is_wider {
            return;
        }
        self.adoption.from_start.clear();
        let mut again = std::mem::take(&mut self.adoption.read);
        // Who is being asked for all of it answers a clock that is right.
        again.extend(self.adoption.asked.iter().filter(|(_, from)| **from != since).map(|(member, _)| *member));
        for member in again {
            self.adoption.asked.remove(&member);
            if self.is_other_member(&member) {
                self.ask_own_list(member, since);
            }
        }
    }

    fn ask_own_list(&mut self, member: PeerId, since: Cursor) {
        self.timers.cancel(&Timer::AskOwnList(member));
        self.adoption.asked.insert(member, since);
        self.out.act(Action::ReadOwnList { member, since });
    }

    /// Asks a member again that could not be asked, or once more.
    pub(super) fn ask_own_list_again(&mut self, now: Now, member: PeerId) {
        self.adoption.begin_once_more(&member, now.mono);
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

    /// Whether there is nothing that only members know: the last run stopped in order, nothing was restored since, nor lately, no
    /// epoch was opened for want of an answer, and no member knew more.
    fn is_whole(&self) -> bool {
        // By a clock that is in doubt no epoch is old.
        let wall = if self.clock.is_doubtful() { WallTime::default() } else { self.wall };
        let knows_all = self.adoption.trusted && !self.adoption.adopted;
        knows_all && self.doubted_since(wall).epoch == self.state.list.head().epoch
    }

    /// Whether this disk may be an old copy for all that is known: somebody who counts has not been read since the start, or has said
    /// since that there is more to tell; or something told is passed over by a clock in doubt.
    pub(super) fn may_be_an_old_copy(&self) -> bool {
        let is_due = |member: &PeerId| self.adoption.once_more.get(member).is_some_and(|again| again.is_due);
        let is_read = |member: &PeerId| self.adoption.read.contains(member) && !is_due(member);
        let mut others = self.roster.others().map(|m| m.peer_id);
        let has_more = self.adoption.passed_over || !self.adoption.loose.is_empty();
        let is_passed_over = self.clock.is_doubtful() && has_more;
        let is_unread = others.any(|member| self.roster.counts(&member) && !is_read(&member));
        !self.is_whole() && (is_passed_over || is_unread)
    }

    /// How many members were asked what they know of the own list, count, and have not answered. None where there is nothing that only
    /// they know.
    pub(super) fn unread_members(&self) -> usize {
        if self.is_whole() {
            return 0;
        }
        let is_asked = |member: &PeerId| {
            let is_to_be = self.timers.is_set(&Timer::AskOwnList(*member)) && !self.adoption.read.contains(member);
            self.adoption.asked.contains_key(member) || is_to_be
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

    /// A member says that it holds nothing of a mail that is open here. It may have heard of an end that this peer lost with its disk,
    /// from another one and after it made its answer: then it is asked once more, and seldom, as a liar may say so for ever.
    pub(super) fn ask_what_ended(&mut self, now: Now, member: PeerId, items: &[Holding]) {
        let is_read = self.adoption.read.contains(&member);
        if self.is_whole() || !(is_read || self.adoption.asked.contains_key(&member)) {
            return;
        }
        let open = |item: &Holding| self.state.mails.get(&item.h).filter(|_| self.state.open.contains(&item.h));
        let holds = |mail: &Mail| mail.holdings.iter().any(|((who, _), word)| *who == member && is_held(word));
        let gave_up = |item: &&Holding| matches!(item.state, HoldingState::Dropped { .. });
        if items.iter().filter(gave_up).filter_map(open).any(|mail| !holds(mail)) {
            self.plan_once_more(now, member);
        }
    }

    fn plan_once_more(&mut self, now: Now, member: PeerId) {
        let at = self.adoption.once_more(member, now.mono);
        // What is being asked may have been answered before that: then it is planned with the answer.
        if self.adoption.read.contains(&member) && !self.timers.is_set(&Timer::AskOwnList(member)) {
            self.timers.set(Timer::AskOwnList(member), at);
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
                if self.adoption.once_more.get(&member).is_some_and(|again| again.is_due) {
                    self.plan_once_more(now, member);
                }
            }
        }
        if self.adoption.holding && self.adoption.has_read_somebody() {
            self.release(now);
        }
        self.settle_told();
    }

    /// The 5 s are over, or everybody has answered: new entries may be made, and what waited for that goes on.
    pub(super) fn release(&mut self, now: Now) {
        self.adoption.holding = false;
        self.adoption.uncounted = false;
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
        self.settle_told();
    }

    /// What this disk says of whom a mail was served to is not all: a cancel must not answer from it.
    pub(super) fn uncount(&mut self, batch: &mut Batch) {
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

    pub(super) fn note_doubled(&mut self) {
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
    pub(super) fn open_epoch(&mut self, batch: &mut Batch, now: Now, beyond: Epoch) {
        let last = self.state.list.head().epoch.max(beyond);
        let epoch = if last == Epoch::default() { now.wall.0 } else { now.wall.0.max(last.0.saturating_add(1)) };
        self.record(batch, Event::EpochOpened(Epoch(epoch)));
    }
}

/// Where a run ends, as its head says; not yet verified against the entries.
pub(super) fn head_of(run: &Run) -> Option<Cursor> {
    Signed::<Head>::verify(&run.head).ok().map(|head| head.at)
}
