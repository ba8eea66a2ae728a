//! From the spool to the sealed mail: certificates are gathered, receivers are sealed for, the spool file goes. A receiver
//! whose certificate is late holds up the others for 30 s and no longer, and then gets a ciphertext of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::events::{EndedAs, Event, Facts, MailFacts, SealedReceiver, Submission};
use super::io::{Action, Certificate, Input, Reply, SealFailure, SealJob, Spooled};
use super::{Batch, FILE_AGAIN, Outbox, Timer, WAITING_MAX};
use crate::core::placement::live_others;
use crate::core::{Effect, Token};
use crate::model::msglist::{EntryBody, MailEntry};
use crate::model::{Address, Fingerprint, Now, PeerId, SubmissionId};

/// How long receivers at hand wait for the certificates of others (DESIGN.md section 5, step 2).
const GATHER: Duration = Duration::from_secs(30);
/// How long they wait at least, also after a restart: else one mail would become a ciphertext per receiver.
const GATHER_LEAST: Duration = Duration::from_secs(3);
/// Seals asked for at once; the shell works on fewer.
const SEALS_MAX: usize = 4;

/// Receivers on their way to being sealed for. Nothing in here survives a crash, nor needs to.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    gathers: BTreeMap<SubmissionId, Gather>,
    lookups: BTreeMap<Address, CertificateWanted>,
    queue: VecDeque<SealJob>,
    under_way: usize,
}

/// One submission whose receivers are gathered.
#[derive(Debug, Default)]
struct Gather {
    found: BTreeMap<Address, (Fingerprint, PeerId)>,
    sealing: BTreeSet<Address>,
    over: bool,
    failures: u32,
}

/// One address whose certificate is looked for, for all submissions that want it.
#[derive(Debug, Default)]
struct CertificateWanted {
    by: BTreeSet<SubmissionId>,
    attempts: u32,
    asked: bool,
}

impl Outbox {
    /// A mail is in the spool; told once more, it changes nothing (R5).
    pub(super) fn submitted(&mut self, now: Now, token: Option<Token>, spooled: Spooled) {
        let id = spooled.submission;
        let is_whole = |known: &&Submission| spooled.receivers.iter().all(|(to, _)| known.receivers.contains_key(to));
        if let Some(known) = self.state.submissions.get(&id).filter(is_whole) {
            let (is_free, is_done) = (known.spool_is_free(), known.is_done());
            match token {
                Some(token) => self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Accepted)]),
                None => {
                    self.spool_there.insert(id);
                    // What came of it was replayed, or came since the start and may be under way to the disk: behind that (R1).
                    let stays = Input::SpoolStays { submission: id, is_free, is_done };
                    self.out.commit(Vec::new(), vec![Effect::Feed(stays)]);
                }
            }
            return;
        }
        if token.is_none() {
            // Some of its receivers may have been adopted, for whom alone it was free: nothing that says so is under way behind this (R1).
            return self.out.commit(Vec::new(), vec![Effect::Feed(Input::SpoolFound(Box::new(spooled)))]);
        }
        self.take_submission(now, token, spooled);
    }

    /// Receivers that are not known yet.
    pub(super) fn take_submission(&mut self, now: Now, token: Option<Token>, spooled: Spooled) {
        let id = spooled.submission;
        let waiting = self.state.waiting.len();
        if let Some(token) = token.filter(|_| waiting >= WAITING_MAX) {
            return self.out.reply(token, Reply::Full { waiting });
        }
        let expiry = spooled.at + self.roster.policy.life.duration();
        let facts = Facts { size: spooled.size, at: spooled.at, expiry, message_id: spooled.message_id };
        self.spool_there.insert(id);
        self.spool_free.remove(&id);
        let mut batch = Batch::default();
        let is_taken_back = self.is_taken_back(&id);
        self.record(&mut batch, Event::Submitted { submission: id, facts, receivers: spooled.receivers });
        if is_taken_back {
            self.end_all_in(&mut batch, now, id, EndedAs::Cancelled);
        }
        if let Some(token) = token {
            batch.reply(token, Reply::Accepted);
        }
        self.commit(batch);
        self.await_expiry(now, id);
        self.gather(now, id);
    }

    /// What came of a submission before its spool files were found at the start is durable. Of one that is done the Outbox mailbox needs
    /// nothing.
    pub(super) fn spool_stays(&mut self, id: SubmissionId, is_free: bool, is_done: bool) {
        if is_free {
            self.spool_free.insert(id);
        }
        if is_done {
            self.shown_taken.insert(id);
        }
        self.drop_spool_if_free(id);
    }

    /// Sets out for whatever the waiting receivers of a submission need.
    pub(super) fn gather(&mut self, now: Now, id: SubmissionId) {
        let Some(submission) = self.state.submissions.get(&id).filter(|s| s.needs_spool()) else { return };
        let waiting: Vec<Address> =
            submission.receivers.iter().filter(|(_, r)| r.waits()).map(|(address, _)| address.clone()).collect();
        let gather = self.sealing.gathers.entry(id).or_default();
        if !gather.over {
            let left = (submission.facts.at + GATHER).since(now.wall).clamp(GATHER_LEAST, GATHER);
            self.timers.set_earlier(Timer::Gather(id), now.mono + left);
        }
        let me = &self.roster.me.address;
        let waits_for_me = waiting.contains(me);
        let wanted: Vec<Address> = waiting
            .into_iter()
            .filter(|a| a != me && !gather.found.contains_key(a) && !gather.sealing.contains(a))
            .collect();
        if waits_for_me && !self.timers.is_set(&Timer::FileLocally(id)) {
            self.file_locally(now, id);
        }
        for address in wanted {
            self.sealing.lookups.entry(address.clone()).or_default().by.insert(id);
            self.find_certificate(&address);
        }
        self.seal_what_is_at_hand(id);
    }

    pub(super) fn find_certificate(&mut self, address: &Address) {
        if let Some(wanted) = self.sealing.lookups.get_mut(address).filter(|wanted| !wanted.asked) {
            wanted.asked = true;
            self.timers.cancel(&Timer::Certificate(address.clone()));
            self.out.act(Action::FindCertificate { address: address.clone() });
        }
    }

    /// What was found out about a certificate, for every submission that wants it.
    pub(super) fn certificate(&mut self, now: Now, address: &Address, found: Certificate) {
        let Some(wanted) = self.sealing.lookups.get_mut(address) else { return };
        wanted.asked = false;
        match found {
            Certificate::NotYet => {
                let attempts = wanted.attempts;
                wanted.attempts = attempts.saturating_add(1);
                let pause = self.pause(attempts, None, address);
                self.timers.set(Timer::Certificate(address.clone()), now.mono + pause);
            }
            Certificate::Found { fingerprint, peer } => {
                for id in self.forget_lookup(address) {
                    if let Some(gather) = self.sealing.gathers.get_mut(&id) {
                        gather.found.insert(address.clone(), (fingerprint, peer));
                    }
                    self.seal_what_is_at_hand(id);
                }
            }
            Certificate::Unknown => {
                let by = self.forget_lookup(address);
                let mut batch = Batch::default();
                for id in &by {
                    self.end(&mut batch, now, *id, address, EndedAs::UnknownAddress);
                }
                self.commit(batch);
                for id in by {
                    self.seal_what_is_at_hand(id);
                }
            }
        }
    }

    fn forget_lookup(&mut self, address: &Address) -> BTreeSet<SubmissionId> {
        self.timers.cancel(&Timer::Certificate(address.clone()));
        self.sealing.lookups.remove(address).map(|wanted| wanted.by).unwrap_or_default()
    }

    /// A receiver of this submission does not need a certificate any more.
    pub(super) fn stop_looking(&mut self, id: SubmissionId, address: &Address) {
        if let Some(wanted) = self.sealing.lookups.get_mut(address) {
            wanted.by.remove(&id);
            if wanted.by.is_empty() && !wanted.asked {
                self.forget_lookup(address);
            }
        }
    }

    /// The 30 s are over.
    pub(super) fn stop_gathering(&mut self, id: SubmissionId) {
        if let Some(gather) = self.sealing.gathers.get_mut(&id) {
            gather.over = true;
        }
        self.seal_what_is_at_hand(id);
    }

    /// Seals once for all receivers of To and Cc that are at hand, when no other is worth waiting for, and once for each Bcc.
    fn seal_what_is_at_hand(&mut self, id: SubmissionId) {
        let Some(submission) = self.state.submissions.get(&id) else { return };
        let Some(gather) = self.sealing.gathers.get_mut(&id) else { return };
        if !submission.needs_spool() {
            self.forget_gather(id);
            return;
        }
        for (group, is_complete) in groups(submission, gather, &self.roster.me.address) {
            if group.is_empty() || !(is_complete || gather.over) {
                continue;
            }
            gather.sealing.extend(group.iter().map(|(address, ..)| address.clone()));
            let (expiry, policy) = (submission.facts.expiry, self.roster.policy.clone());
            // As placement counts: a lost member takes no part.
            let others = live_others(&self.roster, &self.roster.me.peer_id);
            self.sealing.queue.push_back(SealJob { submission: id, receivers: group, expiry, policy, others });
        }
        self.seal_next();
    }

    fn forget_gather(&mut self, id: SubmissionId) {
        self.sealing.gathers.remove(&id);
        self.timers.cancel(&Timer::Gather(id));
        self.timers.cancel(&Timer::SealAgain(id));
    }

    pub(super) fn seal_next(&mut self) {
        // A mail that was sealed before a restore is not sealed twice (R5).
        if self.adoption.holding {
            return;
        }
        while self.sealing.under_way < SEALS_MAX {
            let Some(mut job) = self.sealing.queue.pop_front() else { return };
            let submission = self.state.submissions.get(&job.submission);
            let waits = |a: &Address| submission.and_then(|s| s.receivers.get(a)).is_some_and(|r| r.waits());
            job.receivers.retain(|(address, ..)| waits(address));
            if !job.receivers.is_empty() {
                self.sealing.under_way += 1;
                self.out.act(Action::Seal(job));
            }
        }
    }

    /// Blob, manifest and ns are on disk: one event makes the mail this outbox's own and appends it to the msglist.
    pub(super) fn sealed(&mut self, id: SubmissionId, mut receivers: Vec<SealedReceiver>, entry: MailEntry) {
        self.sealing.under_way = self.sealing.under_way.saturating_sub(1);
        if let Some(gather) = self.sealing.gathers.get_mut(&id) {
            gather.failures = 0;
            for receiver in &receivers {
                gather.sealing.remove(&receiver.address);
                gather.found.remove(&receiver.address);
            }
        }
        let h = entry.h;
        receivers.retain(|r| self.state.receiver(&id, &r.address).is_some_and(|known| known.waits()));
        if self.state.mails.contains_key(&h) {
            self.seal_next();
        } else if receivers.is_empty() {
            // All of them ended while the mail was being sealed.
            self.out.act(Action::DropBlob { h });
            self.seal_next();
        } else {
            let (length, digest, expiry, encoding) = (entry.length, entry.digest, entry.expiry, entry.encoding);
            let facts = MailFacts { h, length, digest, expiry, encoding };
            let (_, entry) = self.state.list.next_entry(EntryBody::Mail(entry));
            let mut batch = Batch::default();
            // What a life sealed for them that this disk does not know, it may have served.
            let counted = !self.is_older_than(self.state.list.head().epoch, &id);
            self.record(&mut batch, Event::Sealed { submission: id, facts, receivers, entry, counted, adopted: None });
            self.commit(batch);
            // The policy may have changed while it was being sealed.
            self.plan_reencoding_of(h);
            self.seal_what_is_at_hand(id);
            self.seal_next();
        }
    }

    /// Sealing came to nothing; what may pass is tried again until the mail expires.
    pub(super) fn seal_failed(&mut self, now: Now, id: SubmissionId, receivers: &[Address], why: SealFailure) {
        self.sealing.under_way = self.sealing.under_way.saturating_sub(1);
        let mut failures = 0;
        if let Some(gather) = self.sealing.gathers.get_mut(&id) {
            failures = gather.failures;
            gather.failures = failures.saturating_add(1);
            gather.sealing.retain(|address| !receivers.contains(address));
            if let SealFailure::Certificates(bad) = &why {
                gather.found.retain(|address, _| !bad.contains(address));
            }
        }
        if why == SealFailure::NoSpool {
            let waiting = self.state.submissions.get(&id).map(waiting_receivers).unwrap_or_default();
            let mut batch = Batch::default();
            for address in waiting {
                self.end(&mut batch, now, id, &address, EndedAs::Lost);
            }
            self.commit(batch);
        } else {
            let pause = receivers.first().map(|first| self.pause(failures, None, first)).unwrap_or_default();
            self.timers.set(Timer::SealAgain(id), now.mono + pause);
        }
        self.seal_next();
    }

    /// Asks for the user's own copy to be filed, and again until it is.
    pub(super) fn file_locally(&mut self, now: Now, id: SubmissionId) {
        if self.state.receiver(&id, self.me()).is_some_and(|me| me.waits()) {
            self.timers.set(Timer::FileLocally(id), now.mono + FILE_AGAIN);
            self.out.act(Action::FileLocally { submission: id });
        }
    }

    /// The user's own copy is filed.
    pub(super) fn filed_locally(&mut self, now: Now, id: SubmissionId) {
        let me = self.me().clone();
        self.timers.cancel(&Timer::FileLocally(id));
        let mut batch = Batch::default();
        self.end(&mut batch, now, id, &me, EndedAs::Filed);
        self.commit(batch);
        self.seal_what_is_at_hand(id);
    }

    /// The Outbox mailbox has taken what it needs from the spool.
    pub(super) fn shown(&mut self, id: SubmissionId) {
        self.show_next(&id);
        if self.state.waiting.contains(&id) || self.spool_there.contains(&id) {
            self.shown_taken.insert(id);
            self.drop_spool_if_free(id);
        }
    }

    /// Drops the spool files once neither a receiver nor the Outbox mailbox needs them.
    pub(super) fn drop_spool_if_free(&mut self, id: SubmissionId) {
        let free = self.spool_free.contains(&id) && self.shown_taken.contains(&id) && !self.owes_dsn(&id);
        if free && self.spool_there.remove(&id) {
            self.forget_gather(id);
            self.out.act(Action::DropSpool { submission: id });
        }
        if !self.spool_there.contains(&id) && !self.state.waiting.contains(&id) {
            self.shown_taken.remove(&id);
            self.spool_free.remove(&id);
        }
    }

    /// Sees to it that a submission expires.
    pub(super) fn await_expiry(&mut self, now: Now, id: SubmissionId) {
        if let Some(submission) = self.state.submissions.get(&id) {
            self.expiries.insert((submission.facts.expiry, id));
            self.arm_expiry(now);
        }
    }
}

fn waiting_receivers(submission: &Submission) -> Vec<Address> {
    submission.receivers.iter().filter(|(_, r)| r.waits()).map(|(address, _)| address.clone()).collect()
}

type Group = Vec<(Address, Fingerprint, PeerId)>;

/// What can be sealed together, and whether nobody is missing from it.
fn groups(submission: &Submission, gather: &Gather, me: &Address) -> Vec<(Group, bool)> {
    let (mut together, mut apart, mut is_complete) = (Vec::new(), Vec::new(), true);
    let waiting = submission.receivers.iter().filter(|(address, r)| r.waits() && *address != me);
    for (address, receiver) in waiting.filter(|(address, _)| !gather.sealing.contains(*address)) {
        match gather.found.get(address) {
            Some((fingerprint, peer)) if receiver.bcc => {
                apart.push((vec![(address.clone(), *fingerprint, *peer)], true));
            }
            Some((fingerprint, peer)) => together.push((address.clone(), *fingerprint, *peer)),
            None => is_complete &= receiver.bcc,
        }
    }
    apart.push((together, is_complete));
    apart
}
