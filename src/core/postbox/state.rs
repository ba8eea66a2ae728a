//! What the postbox remembers: mailboxes, messages, incoming mails, verdicts on senders. Plain data and look-ups; it changes
//! only by events (`events.rs`) and asks for nothing.
//!
//! ```text
//!           known sender            opened, pulled, verified
//!   ns ─────────────────▶ Stub ──────────────────────────────▶ Concluded(Received)
//!    │ unknown sender      ▲  │ └─ expunged unread, mismatch ─▶ Concluded(Refused)
//!    ▼                     │  ├─ sender's tombstone ──────────▶ Gone(Cancelled)
//!   Requested ── granted ──┘  └─ its time is over ────────────▶ Gone(Expired)
//!    └─ refused, deleted ─────────────────────────────────────▶ Concluded(Refused)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::access::{BodyState, Flag, MailboxName, MessageKey, Standard, Uid, View};
use crate::core::about_bytes;
use crate::core::few::FewSet;
use crate::model::notification::{Ns, Outcome};
use crate::model::{Address, Digest, Fingerprint, GroupName, MailId, PeerId, Secret, SubmissionId, WallTime};
use crate::wire;

/// What "once" is counted by (R5): the sender's key and its submission id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailKey {
    /// The sender's OpenPGP certificate.
    #[serde(rename = "f")]
    pub sender: Fingerprint,
    /// The sender's name for the mail.
    #[serde(rename = "s")]
    pub submission: SubmissionId,
}

/// Names a mailbox for as long as it is there, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailboxId(pub u32);

/// Something of each of the two views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PerView(pub u32, pub u32);

impl PerView {
    /// That of `view`.
    pub fn of(self, view: View) -> u32 {
        match view {
            View::Stubs => self.0,
            View::Full => self.1,
        }
    }
}

/// A message in one mailbox. Its UID in the view of stubs is its name in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Which message.
    #[serde(rename = "k")]
    pub key: MessageKey,
    /// Flags and keywords of this copy.
    #[serde(rename = "f", default, skip_serializing_if = "FewSet::is_empty")]
    pub flags: FewSet<Flag>,
    /// Its UID in the full view, once its body is here.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub full: Option<u32>,
}

/// A mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LocalMailbox {
    pub(super) name: String,
    pub(super) subscribed: bool,
    /// UIDVALIDITY of each view.
    pub(super) validity: PerView,
    /// The next UID of each view.
    pub(super) next: PerView,
    /// By UID in the view of stubs.
    pub(super) slots: BTreeMap<u32, Slot>,
    /// UIDs of the full view, each with that of the view of stubs.
    pub(super) full: BTreeMap<u32, u32>,
    /// Counts changes of this run; not durable, since sessions are not.
    pub(super) version: u64,
}

impl LocalMailbox {
    /// The UID in the view of stubs.
    pub(super) fn slot_of(&self, view: View, uid: Uid) -> Option<u32> {
        match view {
            View::Stubs => self.slots.contains_key(&uid.0).then_some(uid.0),
            View::Full => self.full.get(&uid.0).copied(),
        }
    }
}

/// Where a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A mail program's APPEND.
    #[serde(rename = "a")]
    Appended,
    /// A mail that its ns announced.
    #[serde(rename = "m")]
    Mail(MailKey),
    /// The card of a request for consent.
    #[serde(rename = "c")]
    Card(MailKey),
    /// An own submission that waits.
    #[serde(rename = "o")]
    Outgoing(SubmissionId),
    /// Filed by this peer itself, once: a DSN, a mail to oneself, a copy in Sent.
    #[serde(rename = "l")]
    Local(SubmissionId, Standard),
    /// The card of a key that says it is a group's.
    #[serde(rename = "k")]
    Candidate(GroupName, Fingerprint),
}

/// A message, whatever mailboxes it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Where it came from.
    #[serde(rename = "o")]
    pub origin: Origin,
    /// INTERNALDATE.
    #[serde(rename = "d")]
    pub date: WallTime,
    /// RFC822.SIZE.
    #[serde(rename = "z")]
    pub size: u64,
    /// Where its body is.
    #[serde(rename = "b")]
    pub body: BodyState,
    /// Every mailbox it is in; follows from the slots.
    #[serde(skip)]
    pub(super) places: Vec<(MailboxId, u32)>,
}

impl Stored {
    /// A message that is in no mailbox yet.
    pub fn new(origin: Origin, date: WallTime, size: u64, body: BodyState) -> Self {
        Self { origin, date, size, body, places: Vec::new() }
    }
}

/// One sealed form of a mail, as an ns announced it. A sender restored from an old disk may announce another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The sealed mail.
    pub h: MailId,
    /// Its length, bytes.
    #[serde(rename = "n")]
    pub length: u64,
    /// Its BLAKE3.
    #[serde(rename = "b")]
    pub digest: Digest,
    /// Whose outbox it is in.
    #[serde(rename = "ow")]
    pub owner: PeerId,
    /// When it expires.
    #[serde(rename = "x")]
    pub expiry: WallTime,
    /// Both DHT passwords come from it.
    #[serde(rename = "k")]
    pub secret: Secret,
    /// How far the nr for it is.
    #[serde(rename = "r")]
    pub nr: NrState,
}

impl Offer {
    /// What `ns` offers; no nr is due.
    pub(super) fn of(ns: &Ns) -> Self {
        Self {
            h: ns.h,
            length: ns.length,
            digest: ns.digest,
            owner: ns.owner,
            expiry: ns.expiry,
            secret: ns.secret.clone(),
            nr: NrState::None,
        }
    }
}

/// How far an nr is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NrState {
    /// There is nothing to say yet. Left when the mail is concluded.
    #[serde(rename = "n")]
    None,
    /// It is to be sent. Left when the sender took it or the DHT has it.
    #[serde(rename = "o")]
    Owed,
    /// It lies in the DHT under this value hash, and is still offered directly. Left when the sender took it.
    #[serde(rename = "d")]
    InDht(Digest),
    /// The sender took it. Left when the sender asks again.
    #[serde(rename = "t")]
    Taken(WallTime),
}

impl NrState {
    /// Whether the sender has not taken it yet.
    pub fn is_open(self) -> bool {
        matches!(self, NrState::Owed | NrState::InDht(_))
    }
}

/// Where an incoming mail is in its life; see the diagram on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Its card waits for consent.
    #[serde(rename = "q")]
    Requested,
    /// It is in a mailbox, its body is not here.
    #[serde(rename = "s")]
    Stub,
    /// It has its outcome, since then.
    #[serde(rename = "c")]
    Concluded(Outcome, WallTime),
    /// It can never be had.
    #[serde(rename = "g")]
    Gone(BodyState),
}

/// An incoming mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// Who wrote it.
    #[serde(rename = "fr")]
    pub from: Address,
    /// Who it is for.
    #[serde(rename = "to")]
    pub to: Address,
    /// The sender's group.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// That group's key.
    #[serde(rename = "gk")]
    pub group_key: Fingerprint,
    /// Bytes of the clear mail.
    #[serde(rename = "z")]
    pub size: u64,
    /// Digest of header block and structure: every offer must have the same.
    #[serde(rename = "hd")]
    pub head: Digest,
    /// When its first ns came.
    #[serde(rename = "t")]
    pub arrived: WallTime,
    /// Its message; none for one that was refused at once.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageKey>,
    /// The card that asks for consent, while it does.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub card: Option<MessageKey>,
    /// Where it is in its life.
    #[serde(rename = "s")]
    pub stage: Stage,
    /// Its sealed forms, the newest last.
    #[serde(rename = "o")]
    pub offers: Vec<Offer>,
}

impl Mail {
    /// The mail that `ns` announces.
    pub(super) fn of(ns: &Ns, arrived: WallTime, stage: Stage) -> Self {
        Self {
            from: ns.from.clone(),
            to: ns.to.clone(),
            group: ns.group.clone(),
            group_key: ns.group_key,
            size: ns.structure.size,
            head: head_digest(ns),
            arrived,
            message: None,
            card: None,
            stage,
            offers: vec![Offer::of(ns)],
        }
    }
    /// The last moment at which one of its offers is good.
    pub fn expiry(&self) -> WallTime {
        self.offers.iter().map(|o| o.expiry).max().unwrap_or_default()
    }
    /// Whether its body may still come.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Requested | Stage::Stub)
    }
    /// Whether an nr about it is to be sent.
    pub fn owes_nr(&self) -> bool {
        self.offers.iter().any(|o| o.nr.is_open())
    }
    /// The offer of this sealed mail.
    pub fn offer(&self, h: &MailId) -> Option<&Offer> {
        self.offers.iter().find(|o| o.h == *h)
    }
    pub(super) fn offer_mut(&mut self, h: &MailId) -> Option<&mut Offer> {
        self.offers.iter_mut().find(|o| o.h == *h)
    }
}

/// What all offers of one mail have in common.
pub(super) fn head_digest(ns: &Ns) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("roost 1 head of a mail");
    hasher.update(&u64::try_from(ns.header_block.len()).unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(&ns.header_block);
    hasher.update(&wire::encode(&ns.structure));
    Digest::new(*hasher.finalize().as_bytes())
}

/// The user's word on a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Its mails become stubs.
    Granted,
    /// Its mails are refused.
    Refused,
    /// An earlier word was taken back: its later mails ask again, also those of a contact.
    Withdrawn,
}

/// What survives a crash.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct State {
    pub(super) mailboxes: BTreeMap<MailboxId, LocalMailbox>,
    pub(super) names: BTreeMap<MailboxName, MailboxId>,
    pub(super) messages: BTreeMap<MessageKey, Stored>,
    pub(super) mails: BTreeMap<MailKey, Mail>,
    /// Every offer by its sealed mail; follows from `mails`. h is a name that anybody may use again.
    pub(super) by_h: BTreeSet<(MailId, MailKey)>,
    /// Granted and refused senders.
    pub(super) verdicts: BTreeMap<Fingerprint, (Address, Verdict)>,
    /// Certificates that own mail was written to.
    pub(super) wrote_to: BTreeSet<Fingerprint>,
    /// What this peer filed itself, and when.
    pub(super) local: BTreeMap<(SubmissionId, Standard), WallTime>,
    /// Submissions in Outbox; without a message: the user deleted it there.
    pub(super) outgoing: BTreeMap<SubmissionId, Option<MessageKey>>,
    /// Mails that were taken back before their ns came, with the end of that memory.
    pub(super) buried: BTreeMap<(PeerId, MailId), WallTime>,
    pub(super) next_key: u64,
    pub(super) next_mailbox: u32,
    /// Greater than every UIDVALIDITY that was ever given.
    pub(super) next_validity: u32,
    /// Grows with every change of a mailbox in this run.
    pub(super) version: u64,
}

impl State {
    /// The mailbox of this name.
    pub(super) fn mailbox(&self, name: &MailboxName) -> Option<(MailboxId, &LocalMailbox)> {
        let id = self.names.get(name)?;
        Some((*id, self.mailboxes.get(id)?))
    }
    /// One of the standard mailboxes.
    pub(super) fn standard(&self, which: Standard) -> Option<MailboxId> {
        self.names.get(&MailboxName::standard(which)).copied()
    }
    /// The mails that have an offer of this sealed mail.
    pub(super) fn offered_as(&self, h: MailId) -> impl Iterator<Item = (MailKey, &Mail)> {
        let least = MailKey { sender: Fingerprint::new([0; 20]), submission: SubmissionId::new([0; 16]) };
        let named = self.by_h.range((h, least)..).take_while(move |(other, _)| *other == h);
        named.filter_map(|(_, id)| self.mails.get(id).map(|mail| (*id, mail)))
    }
    /// Waiting requests, of one sender or of all.
    pub(super) fn requests(&self, sender: Option<Fingerprint>) -> impl Iterator<Item = (&MailKey, &Mail)> {
        self.mails
            .iter()
            .filter(move |(key, mail)| mail.stage == Stage::Requested && sender.is_none_or(|s| s == key.sender))
    }
    /// Whether the user granted or refused this sender.
    pub(super) fn verdict(&self, sender: &Fingerprint) -> Option<Verdict> {
        self.verdicts.get(sender).map(|(_, verdict)| *verdict)
    }
}

impl State {
    /// About how many bytes its snapshot takes; what there is little of is left out.
    pub(super) fn live_bytes(&self) -> u64 {
        let messages = about_bytes(self.messages.iter(), |(key, stored)| (*key, stored));
        let slots = self.mailboxes.values().map(|mailbox| about_bytes(mailbox.slots.iter(), |slot| slot));
        let mails = about_bytes(self.mails.iter(), |mail| mail);
        messages + slots.sum::<u64>() + mails + about_bytes(self.local.iter(), |local| local)
    }
}

/// Runs of UIDs, ascending: how events name many messages in few bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Runs(Vec<(u32, u32)>);

impl Runs {
    /// The UIDs, which need not be in order.
    pub fn of(uids: impl IntoIterator<Item = u32>) -> Self {
        let ordered: BTreeSet<u32> = uids.into_iter().collect();
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for uid in ordered {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
                _ => runs.push((uid, uid)),
            }
        }
        Self(runs)
    }
    /// Each UID, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
