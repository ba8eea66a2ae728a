//! What the outbox shows: the Outbox mailbox's keywords and its own status. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::Outbox;
use super::events::{EndedAs, Mail, Receiver, Submission};
use super::holdings::is_held;
use super::io::{Action, EndedStatus, MailStatus, OutboxStatus, PartsRefused, Reply, ShownMail, WaitingStatus};
use crate::core::Token;
use crate::model::holding::{HoldingRefusal, HoldingState};
use crate::model::{Address, Now, PeerId, SubmissionId, WallTime};
use crate::wire;

/// Most submissions that wait in a status.
const STATUS_MAX: usize = 1000;
/// Most submissions in one answer to who lists them.
const LISTED_MAX: usize = 256;
/// Mails that are named one by one.
pub(super) const NAMED_MAX: usize = 100;
/// What ended is shown this long: as long as mail lives by default.
const LATELY: Duration = Duration::from_secs(7 * 86_400);
/// Most submissions that ended in a status.
const ENDED_MAX: usize = 200;

/// Submissions of which the Outbox mailbox is told at a time.
pub(super) const SHOWN_AT_ONCE: usize = 64;

/// What the Outbox mailbox is being told. Nothing in here survives a crash, nor needs to.
#[derive(Debug, Default)]
pub(super) struct Showing {
    under_way: BTreeSet<SubmissionId>,
    /// Those that wait for their turn.
    queue: BTreeSet<SubmissionId>,
}

/// Enough to notice that a submission looks different.
fn in_short(shown: &ShownMail) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(&wire::encode(shown)).as_bytes()[..16]);
    short
}

/// Who said that it does not take a part of this mail, and holds no other of it; each once.
pub(super) fn refusals(mail: &Mail) -> impl Iterator<Item = (PeerId, HoldingRefusal)> {
    let mut refused = BTreeMap::new();
    for ((member, _), word) in &mail.holdings {
        if let HoldingState::Refused(why) = word.state {
            refused.insert(*member, why);
        }
    }
    for ((member, _), _) in mail.holdings.iter().filter(|(_, word)| is_held(word)) {
        refused.remove(member);
    }
    refused.into_iter()
}

impl Outbox {
    /// Shows a submission in the Outbox mailbox, if it looks different from what was shown last; a few at a time, so that a
    /// start does not put the words about all of them into memory.
    pub(super) fn show(&mut self, id: SubmissionId) {
        if self.showing.under_way.len() < SHOWN_AT_ONCE || self.showing.under_way.contains(&id) {
            self.show_now(id);
        } else {
            self.showing.queue.insert(id);
        }
    }

    /// The Outbox mailbox was told of one: others that wait for it follow.
    pub(super) fn show_next(&mut self, told: &SubmissionId) {
        self.showing.under_way.remove(told);
        while self.showing.under_way.len() < SHOWN_AT_ONCE
            && let Some(next) = self.showing.queue.pop_first()
        {
            self.show_now(next);
        }
    }

    fn show_now(&mut self, id: SubmissionId) {
        let Some(submission) = self.state.submissions.get(&id) else { return };
        if submission.is_done() && self.owes_dsn(&id) {
            return;
        }
        let shown = ShownMail {
            submission: id,
            keywords: self.keywords(id, submission),
            size: submission.facts.size,
            at: submission.facts.at,
            receivers: self.words(id, submission),
            mails: submission.mails(),
            done: submission.is_done(),
        };
        let in_short = in_short(&shown);
        if self.shown.get(&id) == Some(&in_short) {
            return;
        }
        if shown.done {
            self.shown.remove(&id);
        } else {
            self.shown.insert(id, in_short);
        }
        self.showing.under_way.insert(id);
        self.out.act(Action::Show(shown));
    }

    /// What the Outbox mailbox must keep: what waits, and what a DSN takes its header block from.
    pub(super) fn needed_in_mailbox(&self) -> BTreeSet<SubmissionId> {
        let owing = self.state.submissions.keys().filter(|id| self.owes_dsn(id));
        owing.chain(&self.state.waiting).copied().collect()
    }

    fn keywords(&self, id: SubmissionId, submission: &Submission) -> BTreeSet<String> {
        let mut keywords = BTreeSet::new();
        let open: Vec<&Receiver> = submission.receivers.values().filter(|r| r.end.is_none()).collect();
        if open.is_empty() || open.iter().any(|r| r.sealed.is_none()) {
            return keywords;
        }
        keywords.insert("$Sealed".to_owned());
        if open.iter().all(|r| r.open().is_some_and(|sealed| sealed.announced.is_some())) {
            keywords.insert("$Announced".to_owned());
        }
        if let Some(safe) = self.safe_of_submission(&id) {
            keywords.insert(if safe < 0 { "$Unsafe".to_owned() } else { format!("$Safe{safe}") });
        }
        keywords
    }

    /// What the outbox shows of itself.
    pub(super) fn status(&self) -> OutboxStatus {
        let by_safe = self.counts.by_safe.clone();
        let missing = self.missing.iter().filter(|h| self.state.open.contains(*h));
        let (moving, moving_waits_for) = self.shown_moves();
        OutboxStatus {
            unsafe_mails: by_safe.range(..0).map(|(_, mails)| *mails).sum(),
            moving,
            moving_waits_for,
            by_safe,
            ended_by_safe: self.counts.ended_by_safe.clone(),
            head: self.state.list.head().to_string(),
            waiting: self.state.waiting.len(),
            mails: self.state.open.len(),
            missing: missing.clone().take(NAMED_MAX).copied().collect(),
            missing_mails: missing.count(),
            unread: self.unread_members(),
            audits_missed: self.missed_so_far(),
            audit_misses: self.shown_misses(),
            refusals: self.shown_refusals(),
            ended: self.state.ended.clone(),
            ended_lately: Vec::new(),
            bytes: self.counts.bytes,
            submissions: self.listed(self.state.by_age.iter().take(STATUS_MAX)),
        }
    }

    /// Some of what waits: those after `after`, or else the last so many; never more than one answer carries.
    pub(super) fn list(&mut self, token: Token, after: Option<(WallTime, SubmissionId)>, last: usize) {
        let by_age = &self.state.by_age;
        let first = match after {
            Some(_) => after,
            // The one before the last so many.
            None => by_age.iter().rev().nth(last).copied(),
        };
        let from = first.map_or(Bound::Unbounded, Bound::Excluded);
        let some = self.listed(by_age.range((from, Bound::Unbounded)).take(LISTED_MAX));
        self.out.reply(token, Reply::Waiting { some, total: by_age.len() });
    }

    fn listed<'a>(&self, which: impl Iterator<Item = &'a (WallTime, SubmissionId)>) -> Vec<WaitingStatus> {
        which.filter_map(|(_, id)| Some(self.waiting_status(*id, self.state.submissions.get(id)?))).collect()
    }

    fn waiting_status(&self, id: SubmissionId, submission: &Submission) -> WaitingStatus {
        let mails = submission.mails();
        let open = mails.iter().filter(|h| self.state.open.contains(*h)).filter_map(|h| self.state.mails.get(h));
        WaitingStatus {
            submission: id,
            size: submission.facts.size,
            at: submission.facts.at,
            expiry: submission.facts.expiry,
            receivers: self.words(id, submission),
            mails: open.map(|mail| self.mail_status(mail)).collect(),
        }
    }

    fn mail_status(&self, mail: &Mail) -> MailStatus {
        let held = self.held(mail);
        let holders = held.iter().filter_map(|(peer, parts)| Some((self.address_of(peer)?, parts)));
        let refused = refusals(mail).filter_map(|(peer, why)| Some((self.address_of(&peer)?, why)));
        MailStatus {
            h: mail.facts.h,
            length: mail.facts.length,
            encoding: mail.facts.encoding,
            moving: self.is_moving(&mail.facts.h),
            safe: self.safe_of(mail),
            holders: holders.flat_map(|(who, parts)| parts.iter().map(move |part| (who.clone(), *part))).collect(),
            refused: refused.collect(),
        }
    }

    fn address_of(&self, member: &PeerId) -> Option<Address> {
        self.roster.members.iter().find(|m| m.peer_id == *member).map(|m| m.address.clone())
    }

    /// Members that do not take parts of open mails.
    fn shown_refusals(&self) -> Vec<PartsRefused> {
        let counted = self.counts.refused.iter().filter(|((peer, _), _)| !self.roster.lost.contains(peer));
        let named = counted.filter_map(|((peer, why), mails)| {
            self.address_of(peer).map(|member| PartsRefused { member, why: *why, mails: *mails })
        });
        named.collect()
    }

    /// Submissions that ended of late in another way than being received, or of which it is not known yet: the newest first.
    pub(super) fn ended_lately(&self, now: Now) -> Vec<EndedStatus> {
        let newest = self.state.odd_by_end.iter().rev().take_while(|(at, _)| *at + LATELY > now.wall).take(ENDED_MAX);
        let mut lately: Vec<(WallTime, &SubmissionId, &Submission)> =
            newest.filter_map(|(at, id)| Some((*at, id, self.state.submissions.get(id)?))).collect();
        lately.sort_by_key(|(at, id, _)| (std::cmp::Reverse(*at), **id));
        let status = |(ended_at, id, submission): (WallTime, &SubmissionId, &Submission)| EndedStatus {
            submission: *id,
            size: submission.facts.size,
            at: submission.facts.at,
            ended_at,
            receivers: self.words(*id, submission),
        };
        lately.into_iter().map(status).collect()
    }

    fn words(&self, id: SubmissionId, submission: &Submission) -> Vec<(Address, &'static str)> {
        let word = |(address, receiver): (&Address, &Receiver)| (address.clone(), self.word(id, address, receiver));
        submission.receivers.iter().map(word).collect()
    }

    /// A receiver's state in a word or two.
    fn word(&self, id: SubmissionId, address: &Address, receiver: &Receiver) -> &'static str {
        match (receiver.end.as_ref().map(|end| (end.why, end.was_cancelled)), &receiver.sealed) {
            (None, None) => "waiting",
            (None, Some(sealed)) if sealed.announced.is_some() => "announced",
            (None, Some(_)) => "sealed",
            (Some((EndedAs::Cancelled, _) | (EndedAs::Received, true)), _) => {
                self.cancel_answer(id, address, receiver).word()
            }
            (Some((EndedAs::Received, false)), _) => "received",
            (Some((EndedAs::Filed, _)), _) => "filed",
            (Some((EndedAs::Refused(_), _)), _) => "refused",
            (Some((EndedAs::UnknownAddress, _)), _) => "unknown address",
            (Some((EndedAs::Expired, _)), _) => "expired",
            (Some((EndedAs::Lost, _)), _) => "lost",
            (Some((EndedAs::Forgotten, _)), _) => "ended",
        }
    }
}
