//! What the outbox is told, asks for and answers: the whole contract between this brain and its shell. It holds no logic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::adopt::OwnPage;
use super::dsn::Dsn;
use super::events::{How, MailFacts, SealedReceiver};
use crate::core::Token;
use crate::model::group::Roster;
use crate::model::holding::{HoldingRefusal, Holdings, Missed};
use crate::model::msglist::{Cursor, Ending, MailEntry};
use crate::model::notification::Nr;
use crate::model::{
    Address, Digest, Encoding, Fingerprint, MailId, Part, PeerId, Policy, Secret, SubmissionId, WallTime,
};
use crate::wire::Signed;
use crate::wire::msglist::Page;

/// A mail whose spool files are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Its submission id.
    pub submission: SubmissionId,
    /// Its receivers; `true` for one that is in no To or Cc.
    pub receivers: Vec<(Address, bool)>,
    /// Bytes of the clear mail.
    pub size: u64,
    /// When it was accepted.
    pub at: WallTime,
    /// Its Message-ID.
    pub message_id: Option<String>,
}

/// What was found out about a receiver's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// It is at hand.
    Found {
        /// Which one.
        fingerprint: Fingerprint,
        /// The receiver's peer.
        peer: PeerId,
    },
    /// The receiver's group does not name the address.
    Unknown,
    /// It cannot be had now.
    NotYet,
}

/// Why a mail could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealFailure {
    /// The spool file is gone or not readable: nothing can be sent.
    NoSpool,
    /// These receivers' certificates cannot be sealed to; they are asked for again.
    Certificates(Vec<Address>),
    /// Something that may pass, as a full disk.
    Again(String),
}

/// Where an nr came from, and so how it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NrFrom {
    /// Directly; answered with [`Reply::NrTaken`] or [`Reply::Refused`].
    Direct(Token),
    /// From the DHT, where it lies under this value hash; acknowledged by deleting it there.
    Dht(Digest),
}

/// What an ns is announced with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The sealed mail.
    pub h: MailId,
    /// Whom it tells.
    pub receiver: Address,
    /// The receiver's peer.
    pub peer: PeerId,
    /// Its DHT password comes from it.
    pub secret: Secret,
    /// Until when it is good.
    pub expiry: WallTime,
    /// Whether the receiver's peer is asked first.
    pub direct_first: bool,
    /// Whether the DHT may be used.
    pub dht: bool,
}

/// One mail to seal, once, for all of `receivers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealJob {
    /// The spool file.
    pub submission: SubmissionId,
    /// Whom to seal to: address, certificate, peer.
    pub receivers: Vec<(Address, Fingerprint, PeerId)>,
    /// When the mail expires.
    pub expiry: WallTime,
    /// What decides its encoding, once its length is known.
    pub policy: Policy,
    /// Members besides the owner.
    pub others: usize,
}

/// A sealed mail of this peer that its disk has not, to be put together from what the members hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverJob {
    /// What it was sealed from.
    pub submission: SubmissionId,
    /// Which mail: its name, length, digest, encoding.
    pub facts: MailFacts,
    /// Whom it is sealed to: address, certificate, peer, and the secret of the ns.
    pub receivers: Vec<(Address, Fingerprint, PeerId, Secret)>,
    /// When it expires.
    pub expiry: WallTime,
    /// Members that may hold parts of it.
    pub sources: Vec<PeerId>,
}

/// A batch of events is on disk. The brain's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// The msglist up to here.
    pub upto: Cursor,
    /// Submissions that changed.
    pub touched: BTreeSet<SubmissionId>,
    /// Mails that were sealed.
    pub sealed: Vec<MailId>,
    /// Submissions whose spool files are not needed from here on.
    pub spool_free: BTreeSet<SubmissionId>,
}

/// Which mail is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelTarget {
    /// All that was sealed from it, and what was not yet.
    Submission(SubmissionId),
    /// The submission of this mail.
    Mail(MailId),
}

/// What the outbox is told.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are those of the types above, or `token`: which request is answered")]
pub enum Input {
    /// First of all: the blobs that lie in `outbox/`.
    Start { blobs: Vec<MailId> },
    /// A mail program's mail is in the spool. Answered with `Accepted` or `Full`. Also, without a token, each that is found
    /// there at start.
    Submitted { token: Option<Token>, spooled: Spooled },
    /// Answered with `Safe` once safe(f) reaches `f`, after 60 s at the latest.
    WaitSafe { token: Token, submission: SubmissionId, f: i32 },
    /// Answers [`Action::FindCertificate`].
    Certificate { address: Address, found: Certificate },
    /// Answers [`Action::FileLocally`].
    FiledLocally { submission: SubmissionId },
    /// Answers [`Action::Seal`]: blob, manifest and ns are durable.
    Sealed { submission: SubmissionId, receivers: Vec<SealedReceiver>, entry: MailEntry },
    /// Answers [`Action::Seal`].
    SealFailed { submission: SubmissionId, receivers: Vec<Address>, why: SealFailure },
    /// Answers [`Action::Recover`]: mail, manifest and ns are durable; the name in the DHT of each receiver's ns. Or why not.
    Recovered { h: MailId, result: Result<Vec<(Address, Digest)>, String> },
    /// Answers [`Action::Reencode`]: the manifest is durable. Or why not.
    Reencoded { h: MailId, encoding: Encoding, result: Result<(), String> },
    /// Answers [`Action::Announce`]; `None` when it reached nobody.
    Announced { h: MailId, receiver: Address, how: Option<How> },
    /// Answers [`Action::DeleteNs`].
    NsDeleted { h: MailId, receiver: Address, done: bool },
    /// Answers [`Action::TellGone`].
    GoneTold { h: MailId, receiver: Address, done: bool },
    /// A peer was heard of again.
    PeerIsBack(PeerId),
    /// An nr, opened; `signer` made the signature on it.
    Nr { from: NrFrom, nr: Nr, signer: Fingerprint },
    /// Answers [`Action::Show`]: the Outbox mailbox has it, with what it needs of the spool files.
    Shown { submission: SubmissionId },
    /// Answers [`Action::FileDsn`].
    DsnFiled { submission: SubmissionId, receiver: Address },
    /// A member's word. Answered with `HoldingsTaken` or `Refused`.
    Holdings { token: Token, batch: Signed<Holdings> },
    /// A member's digests of what it holds. Answered with `Differ` or `Refused`.
    HoldingBuckets { token: Token, member: PeerId, digests: Vec<u8> },
    /// A member could not show a block of a part it had confirmed: what it holds of `h` counts as lost.
    AuditMissed { member: PeerId, h: MailId },
    /// A member that was to show a block says that the mail is gone: the tombstone as it came, checked here. One that this peer did
    /// not sign for this very mail is a miss.
    AuditedGone { member: PeerId, h: MailId, tombstone: Vec<u8> },
    /// Answered with `Page`, at once or when there is news.
    ReadMsglist { token: Token, since: Cursor, wait: Duration },
    /// Answered with `Waiting`: submissions that wait after this one, the oldest first; without one the last so many of all.
    List { token: Token, after: Option<(WallTime, SubmissionId)>, last: usize },
    /// Answered with `Lookup`.
    Lookup { token: Token, h: MailId },
    /// Bytes of an own mail are about to be served. Answered with `Serve` once it is recorded to whom, so that a cancel can
    /// tell the truth.
    Serving { token: Token, h: MailId, caller: PeerId },
    /// The same for several mails, each looked up first. Answered with `ServeAll`.
    ServingAll { token: Token, mails: Vec<MailId>, caller: PeerId },
    /// So many bytes of each of these own mails went out.
    Served { caller: PeerId, mails: Vec<(MailId, u64)> },
    /// Answered with `Cancel` or `Refused`. Asked again, it is answered with how things stand.
    Cancel { token: Token, target: CancelTarget },
    /// Answers [`Action::ReadOwnList`]; `None` when the member could not be asked, or knows nothing of this owner.
    OwnList { member: PeerId, since: Cursor, answer: Option<OwnPage> },
    /// The own group changed.
    Roster(Arc<Roster>),
    /// Whether this peer's clock may be wrong; then nothing expires.
    ClockDoubtful(bool),
    /// The peer stops in order. Answered with `Stopped`.
    Stopping { token: Token },
    /// A spool file was found at the start of whose mail some receiver is not known; all before it is on disk. The brain's own.
    SpoolFound(Box<Spooled>),
    /// All that a spool file found at the start waits for is on disk. The brain's own.
    SpoolStays { submission: SubmissionId, is_free: bool, is_done: bool },
    /// Events are on disk. The brain's own.
    Durable(Mark),
}

/// What the outbox asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the types above")]
pub enum Action {
    /// Find a receiver's certificate: key cache, its peer, its group's members, DHT. Comes back as [`Input::Certificate`].
    FindCertificate { address: Address },
    /// File a mail for this very peer straight from the spool; a submission id that is filed already files nothing.
    FileLocally { submission: SubmissionId },
    /// Seal, write blob, manifest and ns durably in this order. Comes back as [`Input::Sealed`] or [`Input::SealFailed`].
    Seal(SealJob),
    /// Put a mail together from what members hold, check it, make its ns anew, and make all of it durable, the mail last. Comes
    /// back as [`Input::Recovered`].
    Recover(RecoverJob),
    /// Make the manifest of an own mail for another encoding, durably, beside those it has. Comes back as
    /// [`Input::Reencoded`].
    Reencode { facts: MailFacts, encoding: Encoding },
    /// The spool files are not needed any more.
    DropSpool { submission: SubmissionId },
    /// Blob, manifest and ns of a mail are not needed any more.
    DropBlob { h: MailId },
    /// Send an ns. Comes back as [`Input::Announced`].
    Announce(Announcement),
    /// Delete an ns in the DHT. Comes back as [`Input::NsDeleted`].
    DeleteNs { h: MailId, receiver: Address, ns: Digest, secret: Secret },
    /// Tell a receiver's peer that a mail was taken back. Comes back as [`Input::GoneTold`].
    TellGone { h: MailId, receiver: Address, peer: PeerId, tombstone: Vec<u8> },
    /// Ask the DHT for nr; each comes as [`Input::Nr`].
    PollNr,
    /// Delete an nr in the DHT: its reader sees that it was taken. The secret is that of the ns.
    DeleteNr { value: Digest, secret: Secret },
    /// Ask a member what comes after `since` in the own msglist, and open the notes of its entries. Comes back as
    /// [`Input::OwnList`].
    ReadOwnList { member: PeerId, since: Cursor },
    /// Read one block of what a member holds, and check it: `block` is a random number, whatever the part's length. Only a
    /// wrong or an absent block is a miss and comes back as [`Input::AuditMissed`]; a member that cannot be asked is none,
    /// and one that says that the mail is gone comes back as [`Input::AuditedGone`].
    Audit { member: PeerId, h: MailId, part: Part, block: u64 },
    /// The members were asked after a restore, or could not be: the mark of the restore goes.
    ForgetRestored,
    /// Tell these peers that this one is here again.
    Hello { peers: BTreeSet<PeerId> },
    /// File a DSN in INBOX, once per id. Comes back as [`Input::DsnFiled`].
    FileDsn(Dsn),
    /// What the Outbox mailbox shows, besides what [`Action::Show`] will add, is done.
    ShowOnly(BTreeSet<SubmissionId>),
    /// Show a submission in the Outbox mailbox as this, or no more. Comes back as [`Input::Shown`].
    Show(ShownMail),
}

/// A submission as the Outbox mailbox shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownMail {
    /// Which one.
    pub submission: SubmissionId,
    /// `$Sealed`, `$Announced`, `$Safe0`, …, `$Unsafe`.
    pub keywords: BTreeSet<String>,
    /// Bytes of the clear mail.
    pub size: u64,
    /// When it was accepted.
    pub at: WallTime,
    /// Each receiver and its state in one word.
    pub receivers: Vec<(Address, &'static str)>,
    /// The sealed mails.
    pub mails: BTreeSet<MailId>,
    /// Whether nothing is left to wait for: it goes from the mailbox.
    pub done: bool,
}

/// What is known of a mail id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It lies in `outbox/`.
    Owned(MailFacts),
    /// It is gone; the signed tombstone.
    Gone(Vec<u8>),
    /// Never heard of.
    Unknown,
}

/// What a cancel came to for one receiver; as text and in JSON in these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelAnswer {
    /// It cannot be read any more.
    #[serde(rename = "cancelled")]
    Cancelled,
    /// The reader has it.
    #[serde(rename = "too late")]
    TooLate,
    /// Not known yet.
    #[serde(rename = "uncertain")]
    Uncertain,
}

impl CancelAnswer {
    /// In one or two words, the same as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            CancelAnswer::Cancelled => "cancelled",
            CancelAnswer::TooLate => "too late",
            CancelAnswer::Uncertain => "uncertain",
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxRefusal {
    /// Only members report holdings.
    #[error("{peer} is no member of this group; members only")]
    NotMember {
        /// Who asked.
        peer: PeerId,
    },
    /// The batch is about somebody else's mails, or too long.
    #[error("this batch of holdings cannot be taken: {why}")]
    BadBatch {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The nr fits no mail of this peer.
    #[error("this receive notification is not taken: {why}")]
    BadNr {
        /// What does not fit.
        why: &'static str,
    },
    /// The nr is about a mail that is unknown here as long as not all members have said what they know of the own msglist.
    #[error(
        "this peer has just started and does not know yet of all that it sent; send this receive notification again"
    )]
    NotYet,
    /// No such mail.
    #[error("there is no such mail in this outbox; `roost outbox --all` lists what waits")]
    NoMail,
}

/// What requests are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The submission is taken.
    Accepted,
    /// So many wait that no more are taken now.
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// safe(f) of the submission, and whether it is what was asked for.
    Safe {
        /// safe(f) now; `None` while nothing is sealed.
        safe: Option<i32>,
        /// Whether it was reached.
        reached: bool,
    },
    /// The nr is on disk.
    NrTaken,
    /// The holdings are on disk.
    HoldingsTaken,
    /// First bytes of h whose buckets differ.
    Differ {
        /// Those first bytes.
        differ: Vec<u8>,
        /// What this member could not show: it looks at it before it confirms it anew.
        missed: Missed,
    },
    /// Entries, or none.
    Page(Page),
    /// Some of those that wait, and how many wait in all.
    Waiting {
        /// The oldest first.
        some: Vec<WaitingStatus>,
        /// How many wait.
        total: usize,
    },
    /// What is known of the mail id.
    Lookup(Lookup),
    /// To [`Input::Serving`]: whether it may be served; not when it is gone, or was served to too many peers.
    Serve(bool),
    /// To [`Input::ServingAll`]: what is known of each, in their order; one that may not be served is not known.
    ServeAll(Vec<Lookup>),
    /// Of which submission, and what it came to for each receiver.
    Cancel(SubmissionId, Vec<(Address, CancelAnswer)>),
    /// The clean-stop record is on disk.
    Stopped,
    /// It is refused.
    Refused(OutboxRefusal),
}

/// What the outbox shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutboxStatus {
    /// Sealed mails without a tombstone, by their safe(f).
    pub by_safe: BTreeMap<i32, usize>,
    /// Sealed mails that ended since the start, by their safe(f) when they did.
    pub ended_by_safe: BTreeMap<i32, usize>,
    /// The msglist's last entry, `EPOCH.SEQ`.
    pub head: String,
    /// Submissions that wait.
    pub waiting: usize,
    /// Sealed mails without a tombstone.
    pub mails: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, mails that no member-readable set holds: safe(f) below zero.
    pub unsafe_mails: usize,
    /// Open mails that members do not hold yet as the policy says; what they held before stays until they do.
    pub moving: usize,
    /// Members that are waited for with these.
    pub moving_waits_for: Vec<Address>,
    /// Open mails whose blob was not there at start: a broken disk. Members may hold them. At most 100 of them.
    pub missing: BTreeSet<MailId>,
    /// How many they are.
    pub missing_mails: usize,
    /// Members that count and have not said yet, since the start, what they know of this peer's msglist: there may be more mails.
    pub unread: usize,
    /// Audits that members missed since the start.
    pub audits_missed: BTreeMap<Address, u64>,
    /// Members that could not show what they had confirmed, and have not confirmed it anew; at most 100.
    pub audit_misses: Vec<AuditMiss>,
    /// Members that do not take parts of open mails, and why.
    pub refusals: Vec<PartsRefused>,
    /// Mails by how they ended.
    pub ended: BTreeMap<Ending, usize>,
    /// Submissions that ended within 7 days in another way than being received, the newest first, at most 200.
    pub ended_lately: Vec<EndedStatus>,
    /// The oldest that wait, at most 1000.
    pub submissions: Vec<WaitingStatus>,
}

/// A submission that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndedStatus {
    /// Its id.
    pub submission: SubmissionId,
    /// Bytes of the clear mail.
    pub size: u64,
    /// When it was accepted.
    pub at: WallTime,
    /// When the last of its receivers ended.
    pub ended_at: WallTime,
    /// Each receiver and what became of the mail, in a word or two.
    pub receivers: Vec<(Address, &'static str)>,
}

/// A member that could not show a block of what it had confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditMiss {
    /// Who.
    pub member: Address,
    /// Of which mail.
    pub h: MailId,
    /// When that was found.
    pub at: WallTime,
}

/// A member that does not take parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartsRefused {
    /// Who.
    pub member: Address,
    /// Why.
    pub why: HoldingRefusal,
    /// Of how many mails.
    pub mails: usize,
}

/// A submission that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingStatus {
    /// Its id.
    pub submission: SubmissionId,
    /// Bytes of the clear mail.
    pub size: u64,
    /// When it was accepted.
    pub at: WallTime,
    /// When it expires.
    pub expiry: WallTime,
    /// Each receiver and its state in one word.
    pub receivers: Vec<(Address, &'static str)>,
    /// What was sealed from it.
    pub mails: Vec<MailStatus>,
}

/// A sealed mail that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MailStatus {
    /// Its name.
    pub h: MailId,
    /// Bytes of the sealed mail.
    pub length: u64,
    /// How the members keep it.
    pub encoding: Encoding,
    /// Whether it is on its way to it: somebody still holds it in an earlier one, or not all that are placed hold theirs.
    pub moving: bool,
    /// safe(f): members that may still be lost, the owner not counted.
    pub safe: i32,
    /// Who confirmed what.
    pub holders: Vec<(Address, Part)>,
    /// Who does not take a part, and why.
    pub refused: Vec<(Address, HoldingRefusal)>,
}
