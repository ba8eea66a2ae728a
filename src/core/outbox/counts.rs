//! What the status says of all mails, counted as they change: it costs the same however many there are. It decides nothing.

use std::collections::BTreeMap;

use super::Outbox;
use super::events::{EndedAs, Event, Mail, Receiver, State, Submission};
use super::show::refusals;
use crate::model::holding::HoldingRefusal;
use crate::model::msglist::Ending;
use crate::model::{MailId, PeerId, SubmissionId, WallTime};

/// What is counted of open mails.
#[derive(Debug, Default)]
pub(super) struct Counts {
    of: BTreeMap<MailId, Counted>,
    /// Mails by f of safe(f).
    pub(super) by_safe: BTreeMap<i32, usize>,
    /// Mails by who does not take a part of them, and why.
    pub(super) refused: BTreeMap<(PeerId, HoldingRefusal), usize>,
    /// Bytes of the sealed mails.
    pub(super) bytes: u64,
    /// Mails that ended since the start, by f of safe(f) when they did.
    pub(super) ended_by_safe: BTreeMap<i32, usize>,
    /// How many mails were looked at.
    #[cfg(test)]
    pub(super) looked_at: usize,
}

/// What one mail was counted as.
#[derive(Debug)]
struct Counted {
    safe: i32,
    length: u64,
    refused: Vec<(PeerId, HoldingRefusal)>,
}

/// One less of a kind.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, kind: &K) {
    if let Some(count) = counts.get_mut(kind) {
        *count -= 1;
        if *count == 0 {
            counts.remove(kind);
        }
    }
}

impl Counts {
    fn forget(&mut self, h: &MailId) {
        let Some(counted) = self.of.remove(h) else { return };
        take_one(&mut self.by_safe, &counted.safe);
        counted.refused.iter().for_each(|refusal| take_one(&mut self.refused, refusal));
        self.bytes = self.bytes.saturating_sub(counted.length);
    }

    fn note(&mut self, h: MailId, counted: Counted) {
        *self.by_safe.entry(counted.safe).or_default() += 1;
        counted.refused.iter().for_each(|refusal| *self.refused.entry(*refusal).or_default() += 1);
        self.bytes = self.bytes.saturating_add(counted.length);
        self.of.insert(h, counted);
    }
}

impl Outbox {
    /// Counts a mail as it is now.
    pub(super) fn count_mail(&mut self, h: &MailId) {
        let before = self.counts.of.get(h).map(|counted| counted.safe);
        self.counts.forget(h);
        let Some(mail) = self.state.mails.get(h).filter(|_| self.state.open.contains(h)) else {
            if let Some(safe) = before {
                *self.counts.ended_by_safe.entry(safe).or_default() += 1;
            }
            return;
        };
        let (safe, length, refused) = (self.safe_of(mail), mail.facts.length, refusals(mail).collect());
        self.counts.note(*h, Counted { safe, length, refused });
        #[cfg(test)]
        {
            self.counts.looked_at += 1;
        }
    }

    /// Counts every mail: after a start, and when it changed who counts.
    pub(super) fn count_all(&mut self) {
        self.counts = Counts { ended_by_safe: std::mem::take(&mut self.counts.ended_by_safe), ..Counts::default() };
        for h in self.state.open.clone() {
            self.count_mail(&h);
        }
    }

    /// Counts the mails that an event changed.
    pub(super) fn count_changed(&mut self, event: &Event) {
        match event {
            Event::Sealed { facts, .. } => self.count_mail(&facts.h),
            Event::Reencoded { h, .. } | Event::Tombstoned { h, .. } | Event::Missed { h, .. } => self.count_mail(h),
            Event::Holdings { items, .. } => {
                // Reports of one mail come one after the other.
                let mut mails: Vec<MailId> = items.iter().map(|item| item.h).collect();
                mails.dedup();
                mails.iter().for_each(|h| self.count_mail(h));
            }
            _ => {}
        }
    }
}

/// When a submission came to its end, if that is worth a word: it ended in another way than being received, or that is not known.
fn ended_oddly(submission: &Submission) -> Option<WallTime> {
    let plain = |r: &Receiver| matches!(r.end.as_ref().map(|end| end.why), Some(EndedAs::Received | EndedAs::Filed));
    let too_late = |r: &Receiver| r.end.as_ref().is_some_and(|end| end.was_cancelled);
    let is_odd = submission.is_done() && submission.receivers.values().any(|r| !plain(r) || too_late(r));
    submission.receivers.values().filter_map(|r| Some(r.end.as_ref()?.at)).max().filter(|_| is_odd)
}

impl State {
    /// Finds again what follows from a submission.
    pub(super) fn index(&mut self, id: SubmissionId) {
        if let Some(at) = self.odd.remove(&id) {
            self.odd_by_end.remove(&(at, id));
        }
        let Some(submission) = self.submissions.get(&id) else { return };
        let age = (submission.facts.at, id);
        if submission.is_done() {
            self.waiting.remove(&id);
            self.by_age.remove(&age);
        } else {
            self.waiting.insert(id);
            self.by_age.insert(age);
        }
        if let Some(at) = ended_oddly(submission) {
            self.odd.insert(id, at);
            self.odd_by_end.insert((at, id));
        }
    }

    /// A mail is gone.
    pub(super) fn apply_tombstoned(&mut self, h: MailId, ending: Ending, entry: &[u8]) {
        let at = self.list.append(entry);
        self.open.remove(&h);
        self.misses.retain(|(_, of), _| *of != h);
        let before = self.mails.get_mut(&h).map(|mail| mail.tombstone.replace((at, ending)));
        if let Some(before) = before {
            self.count_ended(before.map(|t| t.1), false);
            self.count_ended(Some(ending), true);
        }
    }
    /// A mail as a compacted journal has it.
    pub(super) fn keep(&mut self, mail: &Mail) {
        if mail.tombstone.is_none() {
            self.open.insert(mail.facts.h);
        }
        self.count_ended(mail.tombstone.map(|t| t.1), true);
        let before = self.mails.insert(mail.facts.h, mail.clone());
        self.count_ended(before.and_then(|mail| mail.tombstone).map(|t| t.1), false);
    }

    /// One mail more that ended so, or one less.
    pub(super) fn count_ended(&mut self, ending: Option<Ending>, is_there: bool) {
        match ending {
            Some(ending) if is_there => *self.ended.entry(ending).or_default() += 1,
            Some(ending) => take_one(&mut self.ended, &ending),
            None => {}
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// Counts all there is and compares.
    pub(super) fn check_counts(&self) {
        let mut counts = Counts::default();
        for mail in self.state.open.iter().filter_map(|h| self.state.mails.get(h)) {
            let (safe, length, refused) = (self.safe_of(mail), mail.facts.length, refusals(mail).collect());
            counts.note(mail.facts.h, Counted { safe, length, refused });
        }
        let known = &self.counts;
        assert_eq!((&known.by_safe, &known.refused, known.bytes), (&counts.by_safe, &counts.refused, counts.bytes));
        let mut ended = BTreeMap::new();
        for (_, ending) in self.state.mails.values().filter_map(|mail| mail.tombstone) {
            *ended.entry(ending).or_insert(0) += 1;
        }
        assert_eq!(self.state.ended, ended);
        let odd: BTreeMap<SubmissionId, WallTime> =
            self.state.submissions.iter().filter_map(|(id, s)| Some((*id, ended_oddly(s)?))).collect();
        assert!(self.state.odd == odd && self.state.odd_by_end == odd.iter().map(|(id, at)| (*at, *id)).collect());
    }
}
