//! The Outbox mailbox, and what this peer files itself: mail to oneself, copies in Sent, DSNs. What is filed is filed once by
//! its id (R5); what Outbox shows is what the outbox brain says, never more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::access::{BodyState, Flag, MessageKey, Standard};
use super::io::Shown;
use super::state::{Origin, Stored};
use super::{Action, Event, Postbox, Reply, Writing};
use crate::core::few::FewSet;
use crate::core::{Effect, Token};
use crate::model::{MailId, MonoTime, Now, SubmissionId, WallTime};

/// A submission is shown once it has waited this long: most are gone by then, and cost no file.
const SHOW_AFTER: Duration = Duration::from_secs(2);
/// One whose head could not be written is tried again after this.
const SHOW_AGAIN: Duration = Duration::from_secs(60);
/// What was filed is remembered this long: longer than anybody asks for it to be filed again.
const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);

/// Something this peer files once.
pub(super) type LocalName = (SubmissionId, Standard);

#[derive(Debug)]
enum Showing {
    /// It waits until it is worth a file; left when that moment comes, or when it is done.
    Waiting(MonoTime),
    /// Its head is being written.
    Writing,
    /// It is in the mailbox, or the user deleted it there.
    There,
}

/// What of Outbox is not durable: it is told again after each start.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    shown: BTreeMap<SubmissionId, (Showing, Shown)>,
    /// Those that wait for their moment, in its order: looking for what is due costs nothing, however many are shown.
    due: BTreeSet<(MonoTime, SubmissionId)>,
    /// Who waits for something to be filed.
    filing: BTreeMap<LocalName, Vec<Token>>,
}

impl Outbox {
    /// The state keywords of a submission.
    pub(super) fn keywords(&self, submission: &SubmissionId) -> BTreeSet<Flag> {
        let keywords = self.shown.get(submission).map(|(_, shown)| &shown.keywords);
        keywords.into_iter().flat_map(FewSet::iter).cloned().map(Flag::Keyword).collect()
    }
    /// The sealed mails of a submission.
    pub(super) fn mails(&self, submission: &SubmissionId) -> BTreeSet<MailId> {
        self.shown.get(submission).into_iter().flat_map(|(_, shown)| shown.mails.iter()).copied().collect()
    }
    /// It could not be shown now.
    pub(super) fn show_later(&mut self, now: Now, submission: &SubmissionId) {
        if let Some((showing, _)) = self.shown.get_mut(submission) {
            let at = now.mono + SHOW_AGAIN;
            *showing = Showing::Waiting(at);
            self.due.insert((at, *submission));
        }
    }
    /// When the next one is to be shown.
    pub(super) fn next(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| *at)
    }
    /// One whose moment has come.
    fn pop_due(&mut self, now: MonoTime) -> Option<SubmissionId> {
        self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.pop_first().map(|(_, submission)| submission)
    }
    fn forget(&mut self, submission: &SubmissionId) {
        if let Some((Showing::Waiting(at), _)) = self.shown.remove(submission) {
            self.due.remove(&(at, *submission));
        }
    }
}

impl Postbox {
    /// What the outbox brain says of a submission.
    pub(super) fn show(&mut self, now: Now, shown: Shown) {
        if shown.done {
            return self.shown_no_more(shown.submission);
        }
        let submission = shown.submission;
        let known = self.state.outgoing.get(&submission);
        match self.outbox.shown.get_mut(&submission) {
            Some((showing, before)) => {
                let changed = before.keywords != shown.keywords && matches!(showing, Showing::There);
                *before = shown;
                if changed {
                    self.touch_outbox();
                }
            }
            None => {
                let (at, there) = (now.mono + SHOW_AFTER, known.is_some());
                let showing = if there { Showing::There } else { Showing::Waiting(at) };
                self.outbox.shown.insert(submission, (showing, shown));
                if !there {
                    self.outbox.due.insert((at, submission));
                } else {
                    self.touch_outbox();
                }
            }
        }
    }

    /// Keywords of the outbox are not durable, and so neither is this change.
    fn touch_outbox(&mut self) {
        self.state.version += 1;
        let version = self.state.version;
        let outbox = self.state.standard(Standard::Outbox);
        if let Some(mailbox) = outbox.and_then(|id| self.state.mailboxes.get_mut(&id)) {
            mailbox.version = version;
            self.out.act(Action::Changed { version });
        }
    }

    fn shown_no_more(&mut self, submission: SubmissionId) {
        self.outbox.forget(&submission);
        if self.state.outgoing.contains_key(&submission) {
            self.commit(vec![Event::OutgoingDone { submission }], Vec::new());
        }
    }

    /// All that waits; the rest is done.
    pub(super) fn show_only(&mut self, waiting: &BTreeSet<SubmissionId>) {
        let known = self.state.outgoing.keys().chain(self.outbox.shown.keys());
        let done: BTreeSet<SubmissionId> = known.filter(|one| !waiting.contains(one)).copied().collect();
        for submission in done {
            self.shown_no_more(submission);
        }
    }

    /// Writes the heads of those that have waited long enough.
    pub(super) fn write_shown(&mut self, now: Now) {
        while let Some(submission) = self.outbox.pop_due(now.mono) {
            let key = self.allot();
            let Some((showing, shown)) = self.outbox.shown.get_mut(&submission) else { continue };
            *showing = Showing::Writing;
            self.writing.insert(key, Writing::Own(shown.clone()));
            self.out.act(Action::WriteOwnHead { key, submission, mails: shown.mails.iter().copied().collect() });
        }
    }

    pub(super) fn own_head_written(&mut self, shown: &Shown, key: MessageKey, size: u64) {
        let mailbox = self.state.standard(Standard::Outbox);
        let (Some(mailbox), Some((showing, _))) = (mailbox, self.outbox.shown.get_mut(&shown.submission)) else {
            // Done meanwhile.
            return self.out.act(Action::Remove { keys: vec![key] });
        };
        *showing = Showing::There;
        let message = Stored::new(Origin::Outgoing(shown.submission), shown.at, size, BodyState::Absent);
        let flags = BTreeSet::from([Flag::Seen]);
        self.commit(vec![Event::Filed { key, message, mailbox, flags }], Vec::new());
    }

    /// Files a mail from the spool: to oneself, or a copy in Sent.
    pub(super) fn file_spooled(&mut self, now: Now, token: Token, submission: SubmissionId, mailbox: Standard) {
        if let Some(key) = self.begin_filing(now, token, (submission, mailbox), now.wall) {
            self.out.act(Action::WriteSpooled { key, submission });
        }
    }

    /// Files a message that this peer made.
    pub(super) fn file_message(&mut self, token: Token, id: SubmissionId, at: WallTime, message: Vec<u8>) {
        if let Some(key) = self.begin_filing(self.now, token, (id, Standard::Inbox), at) {
            self.out.act(Action::WriteMessage { key, message });
        }
    }

    /// The key to write it under, unless that was done or is under way.
    fn begin_filing(&mut self, now: Now, token: Token, name: LocalName, at: WallTime) -> Option<MessageKey> {
        if self.state.local.contains_key(&name) {
            let reply = Effect::Reply(token, Reply::Filed(Ok(())));
            self.out.commit(Vec::new(), vec![reply]);
            return None;
        }
        if let Some(waiting) = self.outbox.filing.get_mut(&name) {
            waiting.push(token);
            return None;
        }
        if !self.clock.is_doubtful() {
            self.state.local.retain(|_, at| *at + REMEMBERED > now.wall);
        }
        self.outbox.filing.insert(name, vec![token]);
        let key = self.allot();
        self.writing.insert(key, Writing::Local(name, at));
        Some(key)
    }

    pub(super) fn local_written(&mut self, name: LocalName, at: WallTime, key: MessageKey, size: u64) {
        let waiting = self.outbox.filing.remove(&name).unwrap_or_default();
        let replies = |result: Result<(), String>| -> Vec<Effect<Postbox>> {
            waiting.iter().map(|token| Effect::Reply(*token, Reply::Filed(result.clone()))).collect()
        };
        let Some(mailbox) = self.state.standard(name.1) else {
            self.out.act(Action::Remove { keys: vec![key] });
            let effects = replies(Err(format!("there is no mailbox {}", name.1.name())));
            return self.out.commit(Vec::new(), effects);
        };
        let message = Stored::new(Origin::Local(name.0, name.1), at, size, BodyState::Here);
        let own = name.1 == Standard::Sent;
        let flags = own.then_some(Flag::Seen).into_iter().collect();
        self.commit(vec![Event::Filed { key, message, mailbox, flags }], replies(Ok(())));
    }

    pub(super) fn local_not_written(&mut self, name: LocalName, why: &str) {
        for token in self.outbox.filing.remove(&name).unwrap_or_default() {
            self.out.reply(token, Reply::Filed(Err(why.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::postbox::Settings;

    #[test]
    fn what_is_shown_already_is_not_looked_at_when_something_is_due() {
        let mut postbox = Postbox::new(Settings::new("alice@acme".parse().unwrap()));
        let now = Now::default();
        let shown = |n: u8, done| Shown {
            submission: SubmissionId::new([n; 16]),
            keywords: FewSet::default(),
            at: WallTime(1),
            mails: FewSet::default(),
            done,
        };
        for n in 0..200 {
            postbox.show(now, shown(n, false));
        }
        assert_eq!((postbox.outbox.due.len(), postbox.outbox.next()), (200, Some(now.mono + SHOW_AFTER)));
        postbox.show(now, shown(7, true));
        let later = now.after(SHOW_AFTER);
        postbox.write_shown(later);
        assert_eq!((postbox.outbox.due.len(), postbox.outbox.next()), (0, None), "199 shown, and none is due");
        assert_eq!(postbox.writing.len(), 199);
        postbox.outbox.show_later(later, &SubmissionId::new([8; 16]));
        assert_eq!(postbox.outbox.next(), Some(later.mono + SHOW_AGAIN));
    }
}
