//! A peer's disk: what is durable on it, and what the journal on it says. What is under way to it is not in here, and is lost
//! or there by chance when the peer crashes.

use std::collections::{BTreeMap, BTreeSet};

use roost::core::outbox::{self, EndedAs, Spooled};
use roost::core::postbox::access::{BodyState, MessageKey};
use roost::core::{postbox, replicator};
use roost::model::holding::HoldingState;
use roost::model::msglist::{Ending, EntryBody};
use roost::model::notification::{Nr, Ns};
use roost::model::{Address, Digest, Encoding, Fingerprint, MailId, Part, PeerId, SubmissionId, WallTime};
use roost::wire;
use roost::wire::msglist::decode_entry;

/// An ns as it travels: sealing is a model.
#[derive(Debug, Clone)]
pub(crate) struct SealedNs {
    pub(crate) ns: Ns,
    /// Whose signature is on it.
    pub(crate) signer: Fingerprint,
    /// Sealed once more, it is another ciphertext.
    pub(crate) nonce: u64,
}

impl SealedNs {
    /// Its name in the DHT.
    pub(crate) fn name(&self) -> Digest {
        digest_of(&(&self.ns, self.nonce), &self.signer)
    }
}

/// An nr as it travels.
#[derive(Debug, Clone)]
pub(crate) struct SealedNr {
    pub(crate) nr: Nr,
    /// Whose signature is on it.
    pub(crate) signer: Fingerprint,
}

/// Its name in the DHT.
pub(crate) fn digest_of(what: &impl serde::Serialize, signer: &Fingerprint) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&wire::encode(what));
    hasher.update(signer.as_bytes());
    Digest::new(*hasher.finalize().as_bytes())
}

/// One record of the journal, encoded as on a real disk.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    Outbox(Vec<u8>),
    Replicator(Vec<u8>),
    Postbox(Vec<u8>),
    Group(Vec<u8>),
}

/// A message's files.
#[derive(Debug, Clone, Default)]
pub(crate) struct MailFile {
    /// The submission whose mail it is, if it is one.
    pub(crate) letter: Option<SubmissionId>,
    /// The body: whether every byte of it is right.
    pub(crate) body: Option<bool>,
}

/// A change of the files.
#[derive(Debug, Clone)]
pub(crate) enum DiskOp {
    Spool(Spooled),
    DropSpool(SubmissionId),
    Blob(MailId, Vec<(Address, SealedNs)>, Encoding),
    /// Another manifest of an own mail.
    Manifest(MailId, Encoding),
    DropBlob(MailId),
    /// With the manifest that it was checked by.
    Part((PeerId, MailId, Part), Encoding),
    DropParts(Vec<(PeerId, MailId, Part)>),
    File(MessageKey, MailFile),
    Body(MessageKey, bool),
    Remove(Vec<MessageKey>),
    DropFetched(MailId),
    /// The mark of a restore goes.
    ForgetRestored,
}

/// What is durable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) journal: Vec<Record>,
    pub(crate) ledger: Ledger,
    pub(crate) spool: BTreeMap<SubmissionId, Spooled>,
    pub(crate) blobs: BTreeMap<MailId, Vec<(Address, SealedNs)>>,
    pub(crate) parts: BTreeSet<(PeerId, MailId, Part)>,
    /// Parts in which a bit flipped since they were written, and in which stripe.
    pub(crate) rotten: BTreeMap<(PeerId, MailId, Part), u64>,
    /// Parts that rotted and were not made again, also when that was found and they are gone since.
    pub(crate) rotted: BTreeSet<(PeerId, MailId, Part)>,
    /// Also those that were given up since.
    pub(crate) parts_once: BTreeSet<(PeerId, MailId, Part)>,
    pub(crate) files: BTreeMap<MessageKey, MailFile>,
    /// Blocks of mails being pulled: whether each is right.
    pub(crate) fetched: BTreeMap<MailId, BTreeMap<(u64, u8), bool>>,
    /// The k of the stripes that these are of.
    pub(crate) fetched_k: BTreeMap<MailId, u8>,
    /// Which manifests are here, of own mails and of others'.
    pub(crate) manifests: BTreeSet<(MailId, Encoding)>,
    /// The mark that `roost init --restore` leaves.
    pub(crate) restored: bool,
}

impl Disk {
    /// Makes a change.
    pub(crate) fn apply(&mut self, op: DiskOp) {
        match op {
            DiskOp::Spool(spooled) => drop(self.spool.insert(spooled.submission, spooled)),
            DiskOp::DropSpool(submission) => drop(self.spool.remove(&submission)),
            DiskOp::Blob(h, notices, encoding) => {
                self.blobs.insert(h, notices);
                self.manifests.insert((h, encoding));
            }
            DiskOp::Manifest(h, encoding) => drop(self.manifests.insert((h, encoding))),
            DiskOp::DropBlob(h) => {
                self.blobs.remove(&h);
                self.manifests.retain(|(of, _)| *of != h);
            }
            DiskOp::Part(part, encoding) => {
                self.manifests.insert((part.1, encoding));
                self.parts.insert(part);
                self.rotten.remove(&part);
                self.rotted.remove(&part);
                self.parts_once.insert(part);
            }
            DiskOp::DropParts(parts) => {
                self.parts.retain(|part| !parts.contains(part));
                self.rotten.retain(|part, _| !parts.contains(part));
                let held: BTreeSet<MailId> = self.parts.iter().map(|part| part.1).collect();
                let is_over = |h: &MailId| !held.contains(h) && parts.iter().any(|part| part.1 == *h);
                self.manifests.retain(|(h, _)| !is_over(h));
            }
            DiskOp::File(key, file) => drop(self.files.insert(key, file)),
            DiskOp::Body(key, good) => self.files.entry(key).or_default().body = Some(good),
            DiskOp::Remove(keys) => self.files.retain(|key, _| !keys.contains(key)),
            DiskOp::DropFetched(h) => drop(self.fetched.remove(&h)),
            DiskOp::ForgetRestored => self.restored = false,
        }
    }
    /// Makes a record durable.
    pub(crate) fn append(&mut self, record: Record) {
        self.ledger.learn(&record);
        self.journal.push(record);
    }
}

/// What the journal says, for the checker: kept beside it and never used by a brain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// With the receivers that are known.
    pub(crate) submitted: BTreeMap<SubmissionId, BTreeSet<Address>>,
    /// Until when each of these lives.
    pub(crate) expires: BTreeMap<SubmissionId, WallTime>,
    pub(crate) sealed: BTreeSet<MailId>,
    /// Submissions of which this peer cannot tell whether it sealed and served them before, in a life of which nobody told it.
    pub(crate) doubted: BTreeSet<SubmissionId>,
    pub(crate) ended: BTreeMap<(SubmissionId, Address), EndedAs>,
    pub(crate) tombstoned: BTreeMap<MailId, Ending>,
    /// Mails of which it learned from its own msglist, as its members have it, that they are gone, and nothing else.
    pub(crate) learned_gone: BTreeSet<MailId>,
    /// What members said last of each part that they held of an own mail: whether it may still be with them.
    pub(crate) words: BTreeMap<(MailId, PeerId, Part), bool>,
    /// Audits that members missed.
    pub(crate) missed: BTreeMap<(PeerId, MailId), BTreeSet<WallTime>>,
    /// Mails that members' msglists name, as read.
    pub(crate) read: BTreeSet<(PeerId, MailId)>,
    /// How members' msglists say that their mails are kept.
    pub(crate) noted: BTreeMap<(PeerId, MailId), Encoding>,
    pub(crate) held: BTreeSet<(PeerId, MailId, Part)>,
    /// Also those that were given up since.
    pub(crate) held_once: BTreeSet<(PeerId, MailId, Part)>,
    pub(crate) buried_parts: BTreeSet<(PeerId, MailId)>,
    /// ns that were taken.
    pub(crate) announced: BTreeSet<postbox::MailKey>,
    pub(crate) pulled: BTreeSet<postbox::MailKey>,
    /// Mails of others that were taken back, as this peer knows: those with a stub, those without.
    pub(crate) withdrawn: BTreeSet<postbox::MailKey>,
    pub(crate) buried: BTreeSet<MailId>,
    /// What was filed from here, and how often.
    pub(crate) filed: BTreeMap<SubmissionId, usize>,
}

impl Ledger {
    fn learn(&mut self, record: &Record) {
        match record {
            Record::Outbox(bytes) => self.learn_outbox(wire::decode(bytes).unwrap()),
            Record::Replicator(bytes) => self.learn_replicator(wire::decode(bytes).unwrap()),
            Record::Postbox(bytes) => self.learn_postbox(wire::decode(bytes).unwrap()),
            Record::Group(_) => {}
        }
    }
    fn learn_outbox(&mut self, event: outbox::Event) {
        match event {
            outbox::Event::Submitted { submission, facts, receivers } => {
                self.expires.insert(submission, facts.expiry);
                self.submitted.entry(submission).or_default().extend(receivers.into_iter().map(|(a, _)| a));
            }
            outbox::Event::Sealed { submission, facts, receivers, adopted, counted, .. } => {
                self.sealed.insert(facts.h);
                if adopted.is_none() && !counted {
                    self.doubted.insert(submission);
                }
                if adopted.is_some() {
                    self.expires.entry(submission).or_insert(facts.expiry);
                    self.submitted.entry(submission).or_default().extend(receivers.into_iter().map(|r| r.address));
                }
            }
            outbox::Event::Ended { submission, receiver, why, .. } => {
                self.ended.insert((submission, receiver), why);
            }
            outbox::Event::Tombstoned { h, ending, .. } => drop(self.tombstoned.insert(h, ending)),
            outbox::Event::Gone { h, .. } => drop(self.learned_gone.insert(h)),
            outbox::Event::Holdings { member, items, .. } => {
                let told = items.iter().filter(|item| !matches!(item.state, HoldingState::Refused(_)));
                let is_left = |state: &HoldingState| matches!(state, HoldingState::Held | HoldingState::Lost);
                self.words.extend(told.map(|item| ((item.h, member, item.part), is_left(&item.state))));
            }
            outbox::Event::Missed { member, h, at, .. } => drop(self.missed.entry((member, h)).or_default().insert(at)),
            _ => {}
        }
    }
    fn learn_replicator(&mut self, event: replicator::Event) {
        match event {
            replicator::Event::Held { owner, h, part } => {
                self.held.insert((owner, h, part));
                self.held_once.insert((owner, h, part));
            }
            replicator::Event::Noted { owner, h, encoding, .. } => drop(self.noted.insert((owner, h), encoding)),
            replicator::Event::Lost { owner, h, part } => drop(self.held.remove(&(owner, h, part))),
            replicator::Event::Dropped { owner, h, parts, .. } => {
                for part in parts {
                    self.held.remove(&(owner, h, part));
                }
            }
            replicator::Event::Read { owner, run } => {
                for entry in run.entries.iter().filter_map(|bytes| decode_entry(bytes).ok()) {
                    if let EntryBody::Mail(mail) = entry.body {
                        self.read.insert((owner, mail.h));
                    }
                }
            }
            replicator::Event::Tombstoned { owner, h, .. } => drop(self.buried_parts.insert((owner, h))),
            _ => {}
        }
    }
    fn learn_postbox(&mut self, event: postbox::Event) {
        match event {
            postbox::Event::Announced { id, .. } => drop(self.announced.insert(id)),
            postbox::Event::Pulled { id, .. } => drop(self.pulled.insert(id)),
            postbox::Event::Ended { id, body: BodyState::Cancelled } => drop(self.withdrawn.insert(id)),
            postbox::Event::Buried { h, .. } => drop(self.buried.insert(h)),
            postbox::Event::Filed { message, .. } => {
                if let postbox::Origin::Local(id, _) = message.origin {
                    *self.filed.entry(id).or_default() += 1;
                }
            }
            _ => {}
        }
    }
}
