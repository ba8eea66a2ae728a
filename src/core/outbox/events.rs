//! What the outbox makes durable, and the state that replaying it gives. Applying an event asks for nothing and never fails.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::msglist::Msglist;
use crate::core::few::{FewMap, FewSet};
use crate::model::holding::{Holding, HoldingState};
use crate::model::msglist::{Cursor, Ending, Epoch, Seq};
use crate::model::notification::Refusal;
use crate::model::{Address, Digest, Encoding, Fingerprint, MailId, Part, PeerId, Secret, SubmissionId, WallTime};

/// What is known of a submission without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Bytes of the clear mail.
    #[serde(rename = "z")]
    pub size: u64,
    /// When it was accepted.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// When it expires.
    #[serde(rename = "x")]
    pub expiry: WallTime,
    /// Its Message-ID, so that a DSN stands beside it in the mail program.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// One receiver of a submission: waiting, then sealed for, then ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Receiver {
    /// Found in no To or Cc: gets a ciphertext of its own.
    #[serde(rename = "b")]
    pub bcc: bool,
    /// What was sealed for it. Entered when that is durable; never left.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedFor>,
    /// What became of it. Entered once; only `Cancelled` may still turn out as `Received`.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

impl Receiver {
    /// Whether nothing was sealed for it yet and something should be.
    pub fn waits(&self) -> bool {
        self.sealed.is_none() && self.end.is_none()
    }
    /// What was sealed for it, while its word is awaited.
    pub fn open(&self) -> Option<&SealedFor> {
        self.sealed.as_ref().filter(|_| self.end.is_none())
    }
}

/// A sealed mail as it concerns one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFor {
    /// The sealed mail.
    pub h: MailId,
    /// The certificate it was sealed to, which must sign the nr.
    #[serde(rename = "f")]
    pub fingerprint: Fingerprint,
    /// The receiver's peer.
    #[serde(rename = "p")]
    pub peer: PeerId,
    /// Both DHT passwords come from it.
    #[serde(rename = "k")]
    pub secret: Secret,
    /// BLAKE3 of the sealed ns: its name in the DHT.
    #[serde(rename = "n")]
    pub ns: Digest,
    /// How and when the ns was last taken.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<(How, WallTime)>,
    /// Whether the ns lies in the DHT.
    #[serde(rename = "d", default)]
    pub in_dht: bool,
}

/// How an ns reached its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The reader's peer has it on disk.
    Direct,
    /// It lies in the DHT.
    Dht,
    /// It lies only in this peer's own share of the DHT: nobody else was there to take it.
    OwnShare,
}

/// What became of one receiver's copy, and whether its DSN is filed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// What became of it.
    #[serde(rename = "w")]
    pub why: EndedAs,
    /// When.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// Whether the DSN is in INBOX, if one is due.
    #[serde(rename = "d", default)]
    pub dsn_filed: bool,
    /// Whether it was taken back before, too late.
    #[serde(rename = "c", default)]
    pub was_cancelled: bool,
    /// Whether the reader's peer knows that it was taken back, and cannot open it any more.
    #[serde(rename = "g", default)]
    pub gone_told: bool,
}

/// What became of one receiver's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedAs {
    /// The reader has it.
    Received,
    /// Filed by this very peer.
    Filed,
    /// The reader did not take it.
    Refused(Refusal),
    /// The receiver's group does not name the address.
    UnknownAddress,
    /// Taken back.
    Cancelled,
    /// Its time was over.
    Expired,
    /// The spool file could not be read any more.
    Lost,
    /// It ended in a run of this peer that a restore took back; the tombstone does not say how for each receiver.
    Forgotten,
}

impl EndedAs {
    /// Whether the sender is told by a DSN (DESIGN.md section 5, step 8).
    pub fn sends_dsn(self) -> bool {
        match self {
            EndedAs::Received | EndedAs::Filed | EndedAs::Cancelled | EndedAs::Forgotten => false,
            EndedAs::Refused(Refusal::Unread | Refusal::Sender) => false,
            EndedAs::Refused(Refusal::UnknownAddress | Refusal::Mismatch | Refusal::Expired | Refusal::TooLarge) => {
                true
            }
            EndedAs::UnknownAddress | EndedAs::Expired | EndedAs::Lost => true,
        }
    }
}

/// A mail that its user submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// What is known of it.
    #[serde(rename = "f")]
    pub facts: Facts,
    /// Its receivers.
    #[serde(rename = "r")]
    pub receivers: FewMap<Address, Receiver>,
}

impl Submission {
    /// Whether no receiver is left to wait for.
    pub fn is_done(&self) -> bool {
        self.receivers.values().all(|r| r.end.is_some())
    }
    /// Whether its spool file is still needed.
    pub fn needs_spool(&self) -> bool {
        self.receivers.values().any(Receiver::waits)
    }
    /// Whether its spool file may go. One that could not be read stays for its user to look at.
    pub fn spool_is_free(&self) -> bool {
        let lost = |r: &Receiver| r.end.as_ref().is_some_and(|end| end.why == EndedAs::Lost);
        !self.needs_spool() && !self.receivers.values().any(lost)
    }
    /// The mails sealed from it.
    pub fn mails(&self) -> BTreeSet<MailId> {
        self.receivers.values().filter_map(|r| r.sealed.as_ref()).map(|s| s.h).collect()
    }
}

/// A sealed mail's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailFacts {
    /// Its name.
    pub h: MailId,
    /// Bytes.
    #[serde(rename = "n")]
    pub length: u64,
    /// BLAKE3 of all of it.
    #[serde(rename = "b")]
    pub digest: Digest,
    /// When it expires.
    #[serde(rename = "x")]
    pub expiry: WallTime,
    /// How the members keep it.
    #[serde(rename = "c")]
    pub encoding: Encoding,
}

/// A member's latest word about one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// When, by the member's clock.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// What became of the part.
    #[serde(rename = "s")]
    pub state: HoldingState,
}

/// A sealed mail in the outbox, or the memory of one that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// What it was sealed from.
    #[serde(rename = "s")]
    pub submission: SubmissionId,
    /// Its facts.
    #[serde(rename = "f")]
    pub facts: MailFacts,
    /// Whom it is sealed to.
    #[serde(rename = "r")]
    pub receivers: FewSet<Address>,
    /// Its msglist entry.
    #[serde(rename = "a")]
    pub entry_at: Cursor,
    /// Its tombstone's msglist entry, and what it says.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<(Cursor, Ending)>,
    /// What the members said about its parts.
    #[serde(rename = "o", default)]
    pub holdings: FewMap<(PeerId, Part), Word>,
    /// Bytes that this peer served to whom; `None` when that was not counted from the start.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub served: Option<FewMap<PeerId, u64>>,
    /// Whether the members, and not this disk, told of the encoding: its manifest may not be here.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub encoding_told: bool,
}

/// A receiver that a mail was sealed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedReceiver {
    /// The receiver.
    #[serde(rename = "r")]
    pub address: Address,
    /// The certificate it was sealed to.
    #[serde(rename = "f")]
    pub fingerprint: Fingerprint,
    /// Its peer.
    #[serde(rename = "p")]
    pub peer: PeerId,
    /// The secret in its ns.
    #[serde(rename = "k")]
    pub secret: Secret,
    /// BLAKE3 of its sealed ns.
    #[serde(rename = "n")]
    pub ns: Digest,
}

/// What the outbox makes durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are those of the types above")]
pub enum Event {
    /// A new epoch of the msglist.
    EpochOpened(Epoch),
    /// A mail lies in the spool.
    Submitted { submission: SubmissionId, facts: Facts, receivers: Vec<(Address, bool)> },
    /// Blob, manifest and ns are durable; `entry` is appended to the msglist.
    Sealed {
        submission: SubmissionId,
        facts: MailFacts,
        receivers: Vec<SealedReceiver>,
        #[serde(with = "serde_bytes")]
        entry: Vec<u8>,
        /// Whether it is counted from here on to whom the mail is served.
        #[serde(default)]
        counted: bool,
        /// Of one that was adopted from the msglist: what is known of its submission. Nothing of that was ever in the spool here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adopted: Option<Facts>,
    },
    /// A mail is kept in another way from here on; `entry`, appended to the msglist, says so.
    Reencoded {
        h: MailId,
        encoding: Encoding,
        #[serde(with = "serde_bytes")]
        entry: Vec<u8>,
        /// Whether it was adopted from the msglist, as members have it: the manifest may not be on this disk.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        adopted: bool,
    },
    /// A mail that was missing is on the disk again, with an ns made anew for each receiver.
    Recovered { h: MailId, notices: Vec<(Address, Digest)> },
    /// An ns was taken.
    Announced { submission: SubmissionId, receiver: Address, how: How, at: WallTime },
    /// An ns is gone from the DHT.
    NsDeleted { submission: SubmissionId, receiver: Address },
    /// One receiver's copy came to its end. A DSN is due from here on, if the end sends one.
    Ended { submission: SubmissionId, receiver: Address, why: EndedAs, at: WallTime },
    /// That DSN is in INBOX.
    DsnFiled { submission: SubmissionId, receiver: Address },
    /// A mail is gone; `entry` is appended to the msglist.
    Tombstoned {
        h: MailId,
        ending: Ending,
        #[serde(with = "serde_bytes")]
        entry: Vec<u8>,
    },
    /// Bytes of an own mail were served to a peer; in all so far. 0 before the first of them goes out.
    Served { h: MailId, caller: PeerId, bytes: u64 },
    /// It is not known any more to whom a mail was served: the home was restored from an older disk.
    Uncounted { h: MailId },
    /// The reader's peer knows that a mail was taken back, and cannot open it any more.
    GoneTold { submission: SubmissionId, receiver: Address },
    /// A member's word about parts.
    Holdings { member: PeerId, at: WallTime, items: Vec<Holding> },
    /// A member could not show a block of these parts, which it had confirmed: they count as lost.
    Missed { member: PeerId, h: MailId, at: WallTime, parts: Vec<Part> },
    /// Entries of an epoch at or before `base` were dropped: 30 days have passed since what they name expired.
    Rebased { epoch: Epoch, base: Seq, chain: Digest },
    /// Adopted: the tombstone of a mail of which nothing else is known.
    Gone {
        h: MailId,
        expiry: WallTime,
        #[serde(with = "serde_bytes")]
        tombstone: Vec<u8>,
    },
    /// The last event before an orderly stop.
    CleanStop,
    /// In a compacted journal: a msglist entry as it stands.
    KeptEntry(#[serde(with = "serde_bytes")] Vec<u8>),
    /// In a compacted journal: a submission as it stands.
    KeptSubmission(SubmissionId, Submission),
    /// In a compacted journal: a mail as it stands.
    KeptMail(Mail),
}

impl Event {
    /// The submission whose state it changes.
    fn submission(&self) -> Option<SubmissionId> {
        match self {
            Event::Submitted { submission, .. }
            | Event::Sealed { submission, .. }
            | Event::Announced { submission, .. }
            | Event::NsDeleted { submission, .. }
            | Event::Ended { submission, .. }
            | Event::GoneTold { submission, .. }
            | Event::DsnFiled { submission, .. } => Some(*submission),
            Event::EpochOpened(_)
            | Event::Served { .. }
            | Event::Uncounted { .. }
            | Event::Reencoded { .. }
            | Event::Recovered { .. }
            | Event::Tombstoned { .. }
            | Event::Holdings { .. }
            | Event::Missed { .. }
            | Event::Rebased { .. }
            | Event::Gone { .. }
            | Event::CleanStop
            | Event::KeptEntry(_)
            | Event::KeptSubmission(..)
            | Event::KeptMail(_) => None,
        }
    }
    /// The submissions that look different after it.
    pub(super) fn touches(&self, state: &State) -> BTreeSet<SubmissionId> {
        let of_mail = |h: &MailId| state.mails.get(h).map(|m| m.submission);
        match self {
            Event::Tombstoned { h, .. }
            | Event::Missed { h, .. }
            | Event::Reencoded { h, .. }
            | Event::Recovered { h, .. } => of_mail(h).into_iter().collect(),
            Event::Holdings { items, .. } => items.iter().filter_map(|item| of_mail(&item.h)).collect(),
            other => other.submission().into_iter().collect(),
        }
    }
}

/// What survives a crash.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// The msglist.
    pub(super) list: Msglist,
    /// Every submission that is remembered.
    pub(super) submissions: BTreeMap<SubmissionId, Submission>,
    /// Every mail that is remembered.
    pub(super) mails: BTreeMap<MailId, Mail>,
    /// Submissions with a receiver that has not ended; follows from the above.
    pub(super) waiting: BTreeSet<SubmissionId>,
    /// The same, the oldest first.
    pub(super) by_age: BTreeSet<(WallTime, SubmissionId)>,
    /// Mails with a tombstone, by what it says; follows from the above, as what comes next.
    pub(super) ended: BTreeMap<Ending, usize>,
    /// Submissions that are done and worth a word, with when they ended.
    pub(super) odd: BTreeMap<SubmissionId, WallTime>,
    /// The same, the one that ended first first.
    pub(super) odd_by_end: BTreeSet<(WallTime, SubmissionId)>,
    /// Mails without a tombstone; follows from the above.
    pub(super) open: BTreeSet<MailId>,
    /// Signed tombstones that came before their mails, if those came at all, each with the mail's expiry. A mail that is told later
    /// stands in `mails` as well.
    pub(super) gone: BTreeMap<MailId, (WallTime, Vec<u8>)>,
    /// Members that could not show what they had confirmed of a mail, until they confirm it anew.
    pub(super) misses: BTreeMap<(PeerId, MailId), WallTime>,
    /// Whether the last event was an orderly stop.
    pub(super) clean_stop: bool,
}

impl State {
    /// The state of a fresh home.
    pub(super) fn new(owner: PeerId) -> Self {
        Self {
            list: Msglist::new(owner),
            submissions: BTreeMap::new(),
            mails: BTreeMap::new(),
            waiting: BTreeSet::new(),
            by_age: BTreeSet::new(),
            ended: BTreeMap::new(),
            odd: BTreeMap::new(),
            odd_by_end: BTreeSet::new(),
            open: BTreeSet::new(),
            gone: BTreeMap::new(),
            misses: BTreeMap::new(),
            clean_stop: false,
        }
    }
    /// One receiver.
    pub(super) fn receiver(&self, submission: &SubmissionId, address: &Address) -> Option<&Receiver> {
        self.submissions.get(submission)?.receivers.get(address)
    }
    fn receiver_mut(&mut self, submission: &SubmissionId, address: &Address) -> Option<&mut Receiver> {
        self.submissions.get_mut(submission)?.receivers.get_mut(address)
    }
    fn sealed_mut(&mut self, submission: &SubmissionId, address: &Address) -> Option<&mut SealedFor> {
        self.receiver_mut(submission, address)?.sealed.as_mut()
    }
    fn end_mut(&mut self, submission: &SubmissionId, address: &Address) -> Option<&mut End> {
        self.receiver_mut(submission, address)?.end.as_mut()
    }
    /// Applies an event. What it names and is not there was forgotten by right, and is passed over.
    pub(super) fn apply(&mut self, event: &Event) {
        self.clean_stop = matches!(event, Event::CleanStop);
        match event {
            Event::EpochOpened(epoch) => self.list.open(*epoch),
            Event::Submitted { submission, facts, receivers } => self.apply_submitted(*submission, facts, receivers),
            Event::Sealed { submission, facts, receivers, entry, counted, adopted } => {
                if let Some(adopted) = adopted {
                    let receivers: Vec<_> = receivers.iter().map(|r| (r.address.clone(), false)).collect();
                    self.apply_submitted(*submission, adopted, &receivers);
                }
                self.apply_sealed(*submission, facts, receivers, entry);
                if let Some(mail) = self.mails.get_mut(&facts.h).filter(|_| *counted) {
                    mail.served = Some(FewMap::default());
                }
            }
            Event::Reencoded { h, encoding, entry, adopted } => self.apply_reencoded(h, *encoding, entry, *adopted),
            Event::Recovered { h, notices } => self.apply_recovered(h, notices),
            Event::Announced { submission, receiver, how, at } => {
                if let Some(sealed) = self.sealed_mut(submission, receiver) {
                    if *how != How::OwnShare {
                        sealed.announced = Some((*how, *at));
                    }
                    sealed.in_dht |= *how != How::Direct;
                }
            }
            Event::NsDeleted { submission, receiver } => {
                if let Some(sealed) = self.sealed_mut(submission, receiver) {
                    sealed.in_dht = false;
                }
            }
            Event::Ended { submission, receiver, why, at } => self.apply_ended(submission, receiver, *why, *at),
            Event::DsnFiled { submission, receiver } => {
                if let Some(end) = self.end_mut(submission, receiver) {
                    end.dsn_filed = true;
                }
            }
            Event::Tombstoned { h, ending, entry } => self.apply_tombstoned(*h, *ending, entry),
            Event::Served { h, caller, bytes } => {
                if let Some(served) = self.mails.get_mut(h).and_then(|mail| mail.served.as_mut()) {
                    served.insert(*caller, *bytes);
                }
            }
            Event::Uncounted { h } => {
                if let Some(mail) = self.mails.get_mut(h) {
                    mail.served = None;
                }
            }
            Event::GoneTold { submission, receiver } => {
                if let Some(end) = self.end_mut(submission, receiver) {
                    end.gone_told = true;
                }
            }
            Event::Holdings { member, at, items } => self.apply_holdings(*member, *at, items),
            Event::Missed { member, h, at, parts } => self.apply_missed(*member, *h, *at, parts),
            Event::Rebased { epoch, base, chain } => self.rebase(*epoch, *base, *chain),
            Event::Gone { h, expiry, tombstone } => {
                self.gone.insert(*h, (*expiry, tombstone.clone()));
            }
            Event::CleanStop => {}
            Event::KeptEntry(entry) => {
                self.list.append(entry);
            }
            Event::KeptSubmission(id, submission) => {
                self.submissions.insert(*id, submission.clone());
                self.index(*id);
            }
            Event::KeptMail(mail) => self.keep(mail),
        }
        if let Some(submission) = event.submission() {
            self.index(submission);
        }
    }
    fn apply_ended(&mut self, submission: &SubmissionId, receiver: &Address, why: EndedAs, at: WallTime) {
        if let Some(receiver) = self.receiver_mut(submission, receiver) {
            let was_cancelled = receiver.end.as_ref().is_some_and(|end| end.why == EndedAs::Cancelled);
            receiver.end = Some(End { why, at, dsn_filed: false, was_cancelled, gone_told: false });
        }
    }
    fn apply_submitted(&mut self, submission: SubmissionId, facts: &Facts, receivers: &[(Address, bool)]) {
        let one = |(address, bcc): &(Address, bool)| (address.clone(), Receiver { bcc: *bcc, ..Receiver::default() });
        let fresh = || Submission { facts: facts.clone(), receivers: FewMap::default() };
        let known = self.submissions.entry(submission).or_insert_with(fresh);
        // One that was adopted from the msglist may know only some of its receivers.
        for (address, receiver) in receivers.iter().map(one) {
            known.receivers.insert_new(address, receiver);
        }
    }
    fn apply_sealed(&mut self, submission: SubmissionId, facts: &MailFacts, to: &[SealedReceiver], entry: &[u8]) {
        let entry_at = self.list.append(entry);
        let receivers = to.iter().map(|r| r.address.clone()).collect();
        let (facts, holdings) = (facts.clone(), FewMap::default());
        let h = facts.h;
        let (tombstone, served, encoding_told) = (None, None, false);
        let mail = Mail { submission, facts, receivers, entry_at, tombstone, holdings, served, encoding_told };
        self.mails.insert(h, mail);
        self.open.insert(h);
        for one in to {
            // A second sealed form of the same submission, from before a restore, changes nothing for its receivers, but that whoever took
            // the tombstones of the others may have this one.
            let mut receiver = self.receiver_mut(&submission, &one.address);
            if let Some(end) = receiver.as_mut().and_then(|r| r.end.as_mut()).filter(|e| e.why == EndedAs::Cancelled) {
                end.gone_told = false;
            }
            if let Some(receiver) = receiver.filter(|receiver| receiver.sealed.is_none()) {
                receiver.sealed = Some(SealedFor {
                    h,
                    fingerprint: one.fingerprint,
                    peer: one.peer,
                    secret: one.secret.clone(),
                    ns: one.ns,
                    announced: None,
                    in_dht: false,
                });
            }
        }
    }
    fn apply_recovered(&mut self, h: &MailId, notices: &[(Address, Digest)]) {
        let Some(submission) = self.mails.get(h).map(|mail| mail.submission) else { return };
        for (address, ns) in notices {
            if let Some(sealed) = self.sealed_mut(&submission, address).filter(|sealed| sealed.h == *h) {
                (sealed.ns, sealed.in_dht) = (*ns, false);
            }
        }
    }
    /// Events that bring the state of a fresh home to this one.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for epoch in self.list.epochs() {
            events.push(Event::EpochOpened(epoch));
            let base = self.list.base(epoch).filter(|(base, _)| *base > Seq(0));
            events.extend(base.map(|(base, chain)| Event::Rebased { epoch, base, chain }));
            events.extend(self.list.entries(epoch).map(|entry| Event::KeptEntry(entry.to_vec())));
        }
        let gone = self.gone.iter();
        events.extend(gone.map(|(h, (expiry, bytes))| Event::Gone {
            h: *h,
            expiry: *expiry,
            tombstone: bytes.clone(),
        }));
        events.extend(self.submissions.iter().map(|(id, submission)| Event::KeptSubmission(*id, submission.clone())));
        events.extend(self.mails.values().map(|mail| Event::KeptMail(mail.clone())));
        for ((member, h), at) in &self.misses {
            events.push(Event::Missed { member: *member, h: *h, at: *at, parts: Vec::new() });
        }
        if self.clean_stop {
            events.push(Event::CleanStop);
        }
        events
    }
}
