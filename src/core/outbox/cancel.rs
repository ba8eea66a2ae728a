//! Taking a mail back: what that came to for each receiver, counted from what this peer, the holders and the reader's peer
//! know, and told again until it is known. It never calls a mail `cancelled` that somebody may still read.
//!
//! ```text
//!   cancel ──▶ uncertain ──the reader's peer took the tombstone, or its nr says refused ────────────▶ cancelled
//!                 │ └────── nobody served the reader, and too few parts are left unconfirmed ───────▶ cancelled
//!                 └──────── its nr says received ───────────────────────────────────────────────────▶ too late
//! ```
//!
//! A mail may have been sealed more than once, in lives of which this disk is older: then its reader's peer has to take the tombstones of
//! all forms, and none of that is sure before the members that count have been heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::events::{EndedAs, Event, Mail, Receiver, Submission};
use super::io::{Action, CancelAnswer, CancelTarget, OutboxRefusal, Reply};
use super::{Batch, Outbox, Timer};
use crate::core::{Effect, Token};
use crate::model::holding::HoldingState;
use crate::model::msglist::Epoch;
use crate::model::{Address, MailId, Now, Part, PeerId, SubmissionId};

/// How long past its expiry a reader's word about a cancelled mail is asked for: as long as mirrors keep its parts.
const GRACE: Duration = Duration::from_secs(86_400);

impl Outbox {
    /// Takes a submission back, as far as it can be.
    pub(super) fn cancel(&mut self, now: Now, token: Token, target: CancelTarget) {
        let id = match target {
            CancelTarget::Submission(id) => Some(id),
            CancelTarget::Mail(h) => self.state.mails.get(&h).map(|mail| mail.submission),
        };
        let Some(id) = id.filter(|id| self.state.submissions.contains_key(id)) else {
            return self.out.reply(token, Reply::Refused(OutboxRefusal::NoMail));
        };
        let mut batch = Batch::default();
        self.end_all_in(&mut batch, now, id, EndedAs::Cancelled);
        let receivers = self.state.submissions.get(&id).map(|s| &s.receivers).into_iter().flatten();
        let answers =
            receivers.map(|(address, receiver)| (address.clone(), self.cancel_answer(id, address, receiver))).collect();
        batch.then.insert(0, Effect::Reply(token, Reply::Cancel(id, answers)));
        self.commit(batch);
    }

    /// What taking a mail back came to for one receiver, as far as is known now.
    pub(super) fn cancel_answer(&self, id: SubmissionId, address: &Address, receiver: &Receiver) -> CancelAnswer {
        let Some(end) = &receiver.end else { return CancelAnswer::Uncertain };
        match end.why {
            EndedAs::Received | EndedAs::Filed => CancelAnswer::TooLate,
            // Its reader never had it, and never will.
            EndedAs::Refused(_) | EndedAs::UnknownAddress | EndedAs::Lost => CancelAnswer::Cancelled,
            EndedAs::Forgotten => CancelAnswer::Uncertain,
            EndedAs::Cancelled | EndedAs::Expired => {
                let is_sure = match &receiver.sealed {
                    None => !self.may_be_an_old_copy(),
                    Some(sealed) => {
                        let gone = |mail: &Mail| self.is_out_of_reach(mail, &sealed.peer);
                        let all_gone =
                            || self.forms_for(id, address).iter().all(|h| self.state.mails.get(h).is_some_and(gone));
                        end.gone_told || all_gone()
                    }
                };
                if is_sure { CancelAnswer::Cancelled } else { CancelAnswer::Uncertain }
            }
        }
    }

    /// Whether a submission is from before this epoch, and that is not the list's first.
    pub(super) fn is_older_than(&self, epoch: Epoch, id: &SubmissionId) -> bool {
        let is_first = self.state.list.epochs().next() == Some(epoch);
        !is_first && self.state.submissions.get(id).is_some_and(|s| s.facts.at.0 <= epoch.0)
    }

    /// The sealed forms of a submission that this receiver can open: those from before a restore too.
    fn forms_for(&self, id: SubmissionId, address: &Address) -> Vec<MailId> {
        let opens = |h: &MailId| self.state.mails.get(h).is_some_and(|mail| mail.receivers.contains(address));
        let sealed = self.state.receiver(&id, address).and_then(|receiver| receiver.sealed.as_ref()).map(|s| s.h);
        self.doubles_of(id).into_iter().filter(opens).chain(sealed).collect()
    }

    /// The reader's peer took the tombstone of one sealed form. That says nothing of another, which it may have.
    pub(super) fn tombstone_was_taken(&mut self, h: MailId, id: SubmissionId, address: &Address) {
        if self.state.receiver(&id, address).is_some_and(is_unsure) {
            let who = (id, address.clone());
            self.unsure.entry(who.clone()).or_default().insert(h);
            self.settle(vec![who]);
        }
    }

    /// Whoever has taken the tombstones of all forms can open none of them any more. Of a form that was sealed in a life which this disk
    /// does not know somebody may yet tell; then this waits, as it is recorded for good.
    pub(super) fn settle_told(&mut self) {
        let taken = self.unsure.iter().filter(|(_, taken)| !taken.is_empty());
        self.settle(taken.map(|(who, _)| who.clone()).collect());
    }

    fn settle(&mut self, whose: Vec<(SubmissionId, Address)>) {
        if self.adoption.holding || self.may_be_an_old_copy() {
            return;
        }
        let mut batch = Batch::default();
        for (id, address) in whose {
            let taken = self.unsure.get(&(id, address.clone()));
            if taken.is_some_and(|taken| self.forms_for(id, &address).iter().all(|h| taken.contains(h))) {
                self.reader_is_told(&mut batch, id, &address);
            }
        }
        self.commit(batch);
    }

    /// Tells of the forms that were gone before a receiver's copy was taken back, each of whose tombstones its peer has to take.
    pub(super) fn tell_of_forms(&self, batch: &mut Batch, gone: Vec<MailId>, whom: impl Fn(&Address) -> bool) {
        for h in gone {
            let mail = self.state.mails.get(&h).and_then(|mail| Some((mail.submission, mail.tombstone?.0)));
            let Some((id, tombstone)) = mail.and_then(|(id, at)| Some((id, self.tombstone_bytes(at)?))) else {
                continue;
            };
            for (receiver, peer) in self.to_be_told(h).into_iter().filter(|(receiver, _)| whom(receiver)) {
                let taken = self.unsure.get(&(id, receiver.clone()));
                let is_under_way = self.timers.is_set(&Timer::TellGone(h, receiver.clone()));
                if !is_under_way && taken.is_none_or(|taken| !taken.contains(&h)) {
                    batch.act(Action::TellGone { h, receiver, peer, tombstone: tombstone.clone() });
                }
            }
        }
    }

    /// The forms of a submission that are gone.
    pub(super) fn gone_forms(&self, id: SubmissionId) -> Vec<MailId> {
        let submission = self.state.submissions.get(&id);
        let forms = submission.map(Submission::mails).unwrap_or_default().into_iter().chain(self.doubles_of(id));
        let is_gone = |h: &MailId| self.state.mails.get(h).is_some_and(|mail| mail.tombstone.is_some());
        forms.filter(is_gone).collect::<BTreeSet<MailId>>().into_iter().collect()
    }

    /// Whether a submission was taken back: that is so for all of its receivers, also for those of whom this disk hears later.
    pub(super) fn is_taken_back(&self, id: &SubmissionId) -> bool {
        let is_cancelled = |r: &Receiver| r.end.as_ref().is_some_and(|end| end.why == EndedAs::Cancelled);
        self.state.submissions.get(id).is_some_and(|s| s.receivers.values().any(is_cancelled))
    }

    /// Of whom it may not be known yet whether a cancel was in time.
    pub(super) fn note_unsure(&mut self, id: SubmissionId, address: &Address) {
        self.unsure.entry((id, address.clone())).or_default();
    }

    /// Whether `reader` cannot have read the mail and never will: nobody served it, and fewer parts than it needs are left
    /// with those that have not confirmed that theirs are gone. A part that was lost was not counted by its holder to the
    /// end, so it counts as one that is left.
    fn is_out_of_reach(&self, mail: &Mail, reader: &PeerId) -> bool {
        // Served by this peer; not known of a mail from before it was counted, or from before a restore. This disk may be an old copy as
        // long as somebody who would know that has not been heard.
        let Some(served) = mail.served.as_ref().filter(|_| !self.may_be_an_old_copy()) else { return false };
        let mut served: BTreeSet<PeerId> = served.keys().copied().collect();
        let (mut left, mut heard): (BTreeSet<Part>, BTreeSet<PeerId>) = Default::default();
        for ((member, part), word) in &mail.holdings {
            match &word.state {
                HoldingState::Dropped { served: to } => {
                    heard.insert(*member);
                    served.extend(to.iter().map(|(peer, _)| *peer));
                }
                HoldingState::Held | HoldingState::Lost => {
                    heard.insert(*member);
                    left.insert(*part);
                }
                HoldingState::Refused(_) => {}
            }
        }
        // Whoever was served and said nothing may hold a part, unless it only reads.
        let readers: BTreeSet<PeerId> = mail
            .receivers
            .iter()
            .filter_map(|address| Some(self.state.receiver(&mail.submission, address)?.sealed.as_ref()?.peer))
            .collect();
        let only_reads = |peer: &PeerId| readers.contains(peer) && !self.roster.has(peer);
        let may_hold = |peer: &&PeerId| !heard.contains(*peer) && !only_reads(peer) && **peer != self.key.peer_id();
        !served.contains(reader) && !served.iter().any(|peer| may_hold(&peer)) && are_too_few(&left)
    }

    /// The reader's peer cannot open a cancelled mail any more: it says so by taking the tombstone, or by refusing the mail.
    pub(super) fn reader_is_told(&mut self, batch: &mut Batch, id: SubmissionId, address: &Address) {
        if self.state.receiver(&id, address).is_some_and(is_unsure) {
            self.record(batch, Event::GoneTold { submission: id, receiver: address.clone() });
            self.unsure.remove(&(id, address.clone()));
        }
    }

    /// Whether the word of some reader of a cancelled mail is still worth asking for.
    pub(super) fn is_any_uncertain(&mut self, now: Now) -> bool {
        // A clock that was ahead for a while is no reason not to ask any more.
        let (state, doubtful) = (&self.state, !self.clock.has_stood(now));
        self.unsure.retain(|(id, address), _| {
            let lives = |s: &&Submission| doubtful || s.facts.expiry + GRACE > now.wall;
            let submission = state.submissions.get(id).filter(lives);
            submission.and_then(|s| s.receivers.get(address)).is_some_and(is_unsure)
        });
        self.unsure.keys().any(|(id, address)| {
            let receiver = self.state.receiver(id, address);
            receiver.is_some_and(|receiver| self.cancel_answer(*id, address, receiver) == CancelAnswer::Uncertain)
        })
    }
}

/// Whether a mail was taken back from this receiver, whose peer has not said yet that it cannot open it any more.
pub(super) fn is_unsure(receiver: &Receiver) -> bool {
    receiver.end.as_ref().is_some_and(|end| end.why == EndedAs::Cancelled && !end.gone_told)
}

/// Whether no reader can rebuild a mail from these parts.
fn are_too_few(parts: &BTreeSet<Part>) -> bool {
    let mut fragments: BTreeMap<u8, u8> = BTreeMap::new();
    for part in parts {
        match part {
            Part::Whole => return false,
            Part::Fragment { k, .. } => {
                let count = fragments.entry(*k).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
    fragments.iter().all(|(k, count)| count < k)
}
