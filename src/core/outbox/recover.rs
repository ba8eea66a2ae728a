//! Own mails that this disk has not: adopted after a restore, or lost with a broken disk. They are put together again from what
//! the members hold, one at a time, and announced; it never gives one up, and never keeps what is not the very mail.
//!
//! ```text
//!   missing --asked--> put together by the shell: mail, manifest, ns --durable--> here again, announced
//!      '<-- not to be had now: the next one in turn, after a pause that grows, or when a member is back --'
//! ```
//! One that nobody gives back is shown as missing, and ends as every mail does: by its reader's word (who may pull it from the
//! members), by a cancel, or by expiry with a DSN.

use std::collections::BTreeSet;

use super::events::Event;
use super::io::{Action, RecoverJob};
use super::{Batch, Outbox, RETRY_FIRST, RETRY_OTHER_MAX, Timer};
use crate::core::placement;
use crate::model::{Address, Digest, Encoding, MailId, Now, PeerId};

/// Members that are asked beyond those that placement names.
const SOURCES_BEYOND: usize = 4;

/// Where the recovery stands. Nothing in here survives a crash, nor needs to.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    under_way: Option<MailId>,
    /// The mail that was tried last: the next one is in turn.
    last: Option<MailId>,
    /// Attempts in vain since the last that went well.
    tries: u32,
}

impl Outbox {
    /// Notes the open mails that have no blob.
    pub(super) fn note_missing(&mut self, blobs: &[MailId]) {
        let there: BTreeSet<MailId> = blobs.iter().copied().collect();
        self.missing = self.state.open.difference(&there).copied().collect();
    }

    /// Asks for the next mail that is missing.
    pub(super) fn recover_next(&mut self, now: Now) {
        if self.adoption.holding || self.recovery.under_way.is_some() {
            return;
        }
        self.timers.cancel(&Timer::Recover);
        let open = |h: &&MailId| self.state.open.contains(*h);
        let last = self.recovery.last;
        let later = self.missing.iter().find(|h| open(h) && last.is_none_or(|last| **h > last));
        let Some(h) = later.or_else(|| self.missing.iter().find(open)).copied() else { return };
        match self.recover_job(h) {
            Some(job) => {
                self.recovery.under_way = Some(h);
                self.recovery.last = Some(h);
                self.out.act(Action::Recover(job));
            }
            None => self.timers.set(Timer::Recover, now.mono + RETRY_OTHER_MAX),
        }
    }

    fn recover_job(&self, h: MailId) -> Option<RecoverJob> {
        let mail = self.state.mails.get(&h)?;
        let submission = self.state.submissions.get(&mail.submission)?;
        let sealed = |address: &Address| self.state.receiver(&mail.submission, address)?.sealed.as_ref();
        let receivers = mail.receivers.iter().filter_map(|address| {
            let sealed = sealed(address).filter(|sealed| sealed.h == h)?;
            Some((address.clone(), sealed.fingerprint, sealed.peer, sealed.secret.clone()))
        });
        let others: Vec<PeerId> = self.roster.others().map(|m| m.peer_id).collect();
        // Also those on their way out: what they hold is to be taken over.
        let mut sources = placement::rank(&h, others.iter().copied().filter(|peer| self.roster.counts(peer)));
        let places = match mail.facts.encoding {
            Encoding::Whole => placement::whole_copies(&self.roster, &self.key.peer_id()),
            Encoding::Fragments { n, .. } => usize::from(n),
        };
        sources.truncate(places.saturating_add(SOURCES_BEYOND));
        let receivers: Vec<_> = receivers.collect();
        let (facts, expiry) = (mail.facts.clone(), submission.facts.expiry);
        let is_possible = !sources.is_empty() && !receivers.is_empty();
        is_possible.then_some(RecoverJob { submission: mail.submission, facts, receivers, expiry, sources })
    }

    /// What came of asking for one.
    pub(super) fn recovered(&mut self, now: Now, h: MailId, result: Result<Vec<(Address, Digest)>, String>) {
        if self.recovery.under_way == Some(h) {
            self.recovery.under_way = None;
        }
        match result {
            Ok(_) if !self.state.open.contains(&h) => {
                // It came to its end meanwhile.
                let mut batch = Batch::default();
                batch.act(Action::DropBlob { h });
                self.commit(batch);
            }
            Ok(notices) => {
                self.recovery.tries = 0;
                self.missing.remove(&h);
                let mut batch = Batch::default();
                self.record(&mut batch, Event::Recovered { h, notices });
                // Once that is durable it is announced.
                batch.mark.sealed.push(h);
                self.commit(batch);
                self.plan_reencoding_of(h);
            }
            Err(_) => {
                let pause = RETRY_FIRST.saturating_mul(1 << self.recovery.tries.min(16)).min(RETRY_OTHER_MAX);
                self.recovery.tries = self.recovery.tries.saturating_add(1);
                self.timers.set(Timer::Recover, now.mono + pause);
                return;
            }
        }
        self.recover_next(now);
    }

    /// A member is back that may hold what is missing.
    pub(super) fn recover_from(&mut self, now: Now, peer: &PeerId) {
        if !self.missing.is_empty() && self.is_other_member(peer) {
            self.recovery.tries = 0;
            self.recover_next(now);
        }
    }
}
