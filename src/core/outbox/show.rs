//! What the outbox shows: the Outbox mailbox's keywords and its own status. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::Outbox;
use super::events::{EndedAs, Mail, Receiver, Submission};
use super::io::{Action, MailStatus, OutboxStatus, ShownMail, WaitingStatus};
use crate::model::{Address, PeerId, SubmissionId};

/// Most submissions in a status.
const STATUS_MAX: usize = 1000;

impl Outbox {
    /// Shows a submission in the Outbox mailbox, if it looks different from what was shown last.
    pub(super) fn show(&mut self, id: SubmissionId) {
        let Some(submission) = self.state.submissions.get(&id) else { return };
        let shown = ShownMail {
            submission: id,
            keywords: self.keywords(id, submission),
            size: submission.facts.size,
            at: submission.facts.at,
            receivers: words(submission),
            mails: submission.mails(),
            done: submission.is_done(),
        };
        if self.shown.get(&id) == Some(&shown) {
            return;
        }
        if shown.done {
            self.shown.remove(&id);
        } else {
            self.shown.insert(id, shown.clone());
        }
        self.out.act(Action::Show(shown));
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
        let open = || self.state.open.iter().filter_map(|h| self.state.mails.get(h));
        let mut ended = BTreeMap::new();
        for (_, ending) in self.state.mails.values().filter_map(|mail| mail.tombstone) {
            *ended.entry(ending).or_insert(0) += 1;
        }
        let mut waiting: Vec<(&SubmissionId, &Submission)> =
            self.state.waiting.iter().filter_map(|id| Some((id, self.state.submissions.get(id)?))).collect();
        waiting.sort_by_key(|(id, submission)| (submission.facts.at, **id));
        OutboxStatus {
            head: self.state.list.head().to_string(),
            waiting: waiting.len(),
            mails: self.state.open.len(),
            unsafe_mails: open().filter(|mail| self.safe_of(mail) < 0).count(),
            missing: self.missing.iter().filter(|h| self.state.open.contains(*h)).copied().collect(),
            ended,
            submissions: waiting.into_iter().take(STATUS_MAX).map(|(id, s)| self.waiting_status(*id, s)).collect(),
        }
    }

    fn waiting_status(&self, id: SubmissionId, submission: &Submission) -> WaitingStatus {
        let mails = submission.mails();
        let open = mails.iter().filter(|h| self.state.open.contains(*h)).filter_map(|h| self.state.mails.get(h));
        WaitingStatus {
            submission: id,
            size: submission.facts.size,
            at: submission.facts.at,
            expiry: submission.facts.expiry,
            receivers: words(submission),
            mails: open.map(|mail| self.mail_status(mail)).collect(),
        }
    }

    fn mail_status(&self, mail: &Mail) -> MailStatus {
        let address =
            |peer: &PeerId| self.roster.members.iter().find(|m| m.peer_id == *peer).map(|m| m.address.clone());
        let held = self.held(mail);
        let holders = held.iter().filter_map(|(peer, parts)| Some((address(peer)?, parts)));
        MailStatus {
            h: mail.facts.h,
            length: mail.facts.length,
            encoding: mail.facts.encoding,
            safe: self.safe_of(mail),
            holders: holders.flat_map(|(who, parts)| parts.iter().map(move |part| (who.clone(), *part))).collect(),
        }
    }
}

fn words(submission: &Submission) -> Vec<(Address, &'static str)> {
    submission.receivers.iter().map(|(address, receiver)| (address.clone(), word(receiver))).collect()
}

/// A receiver's state in one word.
fn word(receiver: &Receiver) -> &'static str {
    match (receiver.end.as_ref().map(|end| end.why), &receiver.sealed) {
        (None, None) => "waiting",
        (None, Some(sealed)) if sealed.announced.is_some() => "announced",
        (None, Some(_)) => "sealed",
        (Some(EndedAs::Received), _) => "received",
        (Some(EndedAs::Filed), _) => "filed",
        (Some(EndedAs::Refused(_)), _) => "refused",
        (Some(EndedAs::UnknownAddress), _) => "unknown address",
        (Some(EndedAs::Cancelled), _) => "cancelled",
        (Some(EndedAs::Expired), _) => "expired",
        (Some(EndedAs::Lost), _) => "lost",
    }
}
