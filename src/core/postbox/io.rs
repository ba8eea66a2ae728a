//! What the postbox is told, asks for and answers: the whole contract between this brain and its shell. It holds no logic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::{MailboxReply, MailboxRequest, MessageKey, Standard, View};
use super::state::{MailKey, Verdict};
use crate::core::Token;
use crate::core::few::FewSet;
use crate::core::group::Candidates;
use crate::model::group::Roster;
use crate::model::msglist::Tombstone;
use crate::model::notification::{Nr, Ns};
use crate::model::structure::Structure;
use crate::model::{
    Address, Digest, Fingerprint, GroupName, MailId, PeerId, PulledMail, Secret, SubmissionId, WallTime,
};
use crate::wire::Signed;

/// What does not change while the peer runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose postbox it is.
    pub address: Address,
    /// Bodies of known senders are pulled as soon as they are announced.
    pub eager: bool,
    /// How often the DHT is asked for ns.
    pub poll: Duration,
    /// Requests of one sender that may wait.
    pub requests_per_sender: usize,
    /// Requests that may wait in all.
    pub requests_max: usize,
    /// Requests that are taken in an hour, of all unknown senders together.
    pub requests_per_hour: usize,
}

impl Settings {
    /// The defaults for `address`.
    pub fn new(address: Address) -> Self {
        let poll = Duration::from_secs(60);
        // Three cards are enough to know somebody by; five hundred are more than anybody reads, and a hundred an hour would
        // fill the day of whoever reads them.
        Self { address, eager: false, poll, requests_per_sender: 3, requests_max: 500, requests_per_hour: 100 }
    }
}

/// Where an ns came from, and so how it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NsFrom {
    /// Directly; answered with [`Reply::NsTaken`] or [`Reply::NsRefused`].
    Direct(Token),
    /// From the DHT, where it lies under this value hash; deleted there once the mail is done.
    Dht(Digest),
}

/// Why a tombstone is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TombstoneRefusal {
    /// The mail is here, or about to be, and its owner does not know that yet.
    #[error("this mail is here already, and the receive notification is on its way; tell it again later")]
    NotYet,
    /// Nothing is known of such a mail, and nothing was remembered.
    #[error("a mail of this owner that was announced here")]
    Unknown,
}

/// Why an ns is not taken. It stays with its sender, or in the DHT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NsRefusal {
    /// Its time is over.
    #[error("this send notification expired; seal the mail again")]
    Expired,
    /// Too many requests wait.
    #[error("{waiting} first mails wait for this user's consent already; send it again when some were read")]
    Requests {
        /// How many, of this sender or of all.
        waiting: usize,
    },
    /// Too many requests came of late.
    #[error("{taken} first mails of unknown senders came within the last hour, which is the most; send it again later")]
    RequestsTooFast {
        /// How many.
        taken: usize,
    },
    /// Too much is remembered.
    #[error("this peer remembers {limit} mails, which is the most; send it again later")]
    Full {
        /// The bound.
        limit: usize,
    },
    /// An earlier ns of the same submission announced something else.
    #[error("an earlier send notification of this submission announced another mail; send it as a new one")]
    OtherMail,
    /// Larger than the group of this peer takes.
    #[error("the mail is larger than {limit} bytes, the most that this peer's group takes; send a smaller one")]
    TooLarge {
        /// The bound for what is announced.
        limit: u64,
    },
    /// The disk.
    #[error("this peer could not write it down: {why}; send it again later")]
    Disk {
        /// What it said.
        why: String,
    },
}

/// Why a sealed mail could not be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchFailure {
    /// Not now; how many parts or members are missing.
    NotNow(String),
    /// The sources have the owner's tombstone.
    Gone(String),
    /// What was pulled is not what was announced.
    Mismatch(String),
}

/// What came of opening a sealed mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenResult {
    /// It fits its ns; the clear mail and its signature are durable.
    Here,
    /// It does not: signature, size, header block or structure.
    Mismatch(String),
    /// The disk failed, or this peer stops; nothing is known of the mail.
    Failed(String),
}

/// What came of sending one nr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NrSent {
    /// The sender has it on disk, or took it from the DHT.
    Taken,
    /// It lies in the DHT under this value hash.
    InDht(Digest),
    /// Neither; why, and whether trying again is of no use.
    Failed {
        /// What failed.
        why: String,
        /// The sender will never take it: it does not know the mail.
        for_good: bool,
    },
}

/// One nr to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NrItem {
    /// The mail that it answers.
    pub id: MailKey,
    /// What it says.
    pub nr: Nr,
    /// Whose certificate it is sealed to.
    pub sender: Fingerprint,
    /// Its password in the DHT.
    pub password: Secret,
    /// Until when it is kept there.
    pub until: WallTime,
    /// It lies in the DHT already, under this value hash: taken when it was deleted there.
    pub in_dht: Option<Digest>,
    /// Whether to look in the DHT if that one was deleted there; else only the direct way is tried for it.
    pub look: bool,
}

/// A submission as the Outbox mailbox shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Which one.
    pub submission: SubmissionId,
    /// `$Sealed`, `$Announced`, `$Safe0`, …, `$Unsafe`.
    pub keywords: FewSet<String>,
    /// When it was accepted.
    pub at: WallTime,
    /// The sealed mails.
    pub mails: FewSet<MailId>,
    /// Whether nothing is left to wait for: it goes from the mailbox.
    pub done: bool,
}

/// Which sender is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderName {
    /// The one with this certificate.
    Fingerprint(Fingerprint),
    /// Every one that calls itself so.
    Address(Address),
}

/// What the postbox is told.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are those of the types above, or `token`: which request is answered")]
pub enum Input {
    /// First of all.
    Start,
    /// Answers [`Action::Sweep`]: messages whose files are missing.
    Swept { damaged: BTreeSet<MessageKey> },
    /// A mail program's request. Answered with `Mailbox`, or `BodyHere`.
    Mailbox { token: Token, view: View, request: MailboxRequest },
    /// An ns, opened and verified; whether its sender is a known one.
    Ns { from: NsFrom, ns: Box<Ns>, known: bool },
    /// An owner's word that a mail is gone; whether it is a member or known sender. Answered with
    /// `TombstoneTaken` once the mail cannot be opened any more and no nr about it is under way; else with `TombstoneRefused`.
    Tombstone { token: Option<Token>, tombstone: Signed<Tombstone>, known: bool },
    /// Answers every `Write…`: the files of the message are durable.
    Written { key: MessageKey, size: u64 },
    /// Answers every `Write…`: they are not.
    WriteFailed { key: MessageKey, why: String },
    /// Answers [`Action::Fetch`].
    Fetched { key: MessageKey, h: MailId, result: Result<PulledMail, FetchFailure> },
    /// Answers [`Action::OpenSealed`] and [`Action::OpenOwn`].
    Opened { key: MessageKey, result: OpenResult },
    /// Answers [`Action::AskProgress`].
    Progressed { token: Token, percent: Option<u8> },
    /// Answers [`Action::PollNs`], after what was found: whether most of those who keep ns have answered.
    Polled { sure: bool },
    /// Answers [`Action::SendNr`].
    NrSent { peer: PeerId, results: Vec<(MailKey, MailId, NrSent)> },
    /// A peer was heard of again.
    PeerIsBack(PeerId),
    /// The own group changed.
    Roster(Arc<Roster>),
    /// Whether this peer's clock may be wrong; then nothing expires.
    ClockDoubtful(bool),
    /// A submission as Outbox shows it.
    Show(Shown),
    /// Which message of Outbox a submission is. Answered with `Own`.
    FindOwn { token: Token, submission: SubmissionId },
    /// What Outbox shows besides these is done.
    ShowOnly(BTreeSet<SubmissionId>),
    /// File a mail straight from the spool, once. Answered with `Filed`.
    FileSpooled { token: Token, submission: SubmissionId, mailbox: Standard },
    /// File a DSN in INBOX, once per id. Answered with `Filed`.
    FileMessage { token: Token, id: SubmissionId, at: WallTime, message: Vec<u8> },
    /// Groups that mail waits for, with the keys that say they are theirs: all of them, whenever that changes.
    Candidates(Candidates),
    /// Answered with `Requests`.
    Requests(Token),
    /// The user's word on a sender. Answered with `Judged`.
    Judge { token: Token, sender: SenderName, verdict: Verdict },
    /// Which mail a message is. Answered with `MailOf`.
    MailOf { token: Token, key: MessageKey },
    /// Own mail goes to these certificates. Answered with `WroteTo`.
    WroteTo { token: Token, certificates: Vec<Fingerprint> },
    /// Mails were concluded, durably. The brain's own.
    Concluded(Vec<MailKey>),
    /// Stubs are on disk that may be pulled at once. The brain's own.
    Filed(Vec<MailKey>),
}

/// What the postbox asks for.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the types above")]
pub enum Action {
    /// Remove every file in `mail/` but those of these messages (`true`: its body is here), and those being written. Comes back
    /// as [`Input::Swept`].
    Sweep { keep: BTreeMap<MessageKey, bool> },
    /// Ask the DHT for ns; each comes as [`Input::Ns`].
    PollNs,
    /// Delete an ns in the DHT.
    DeleteNs { value: Digest, password: Secret },
    /// Write a head. Comes back as [`Input::Written`], as all that follow.
    WriteHead { key: MessageKey, header_block: Vec<u8>, structure: Box<Structure> },
    /// Write a whole message.
    WriteMessage { key: MessageKey, message: Vec<u8> },
    /// Make a temporary file the body of a message, and write its head.
    Adopt { key: MessageKey, file: PathBuf },
    /// Write a message from a mail in the spool.
    WriteSpooled { key: MessageKey, submission: SubmissionId },
    /// Write the head of an own mail: from the spool, or from the sealed mail.
    WriteOwnHead { key: MessageKey, submission: SubmissionId, mails: BTreeSet<MailId> },
    /// Remove a temporary file that is not taken over.
    Discard { file: PathBuf },
    /// Remove the files of messages.
    Remove { keys: Vec<MessageKey> },
    /// Pull a sealed mail. Comes back as [`Input::Fetched`].
    Fetch { key: MessageKey, h: MailId, length: u64, digest: Digest, owner: PeerId, group: GroupName },
    /// How far a pull is. Comes back as [`Input::Progressed`].
    AskProgress { token: Token, h: MailId },
    /// Open a pulled mail into the body of a message, and check it against head, sender and size. Comes back as
    /// [`Input::Opened`].
    OpenSealed { key: MessageKey, sealed: PulledMail, sender: Fingerprint, from: Address, size: u64 },
    /// Open an own mail: from the spool, or from the sealed mail. Comes back as [`Input::Opened`].
    OpenOwn { key: MessageKey, submission: SubmissionId, mails: BTreeSet<MailId> },
    /// A pulled mail is not needed any more.
    DropFetched { h: MailId, sealed: PulledMail },
    /// What was pulled of a mail, all or half of it, is not needed any more.
    DropHalfFetched { h: MailId, owner: PeerId, length: u64, digest: Digest },
    /// Send nr to one peer: directly, else through the DHT. Comes back as [`Input::NrSent`].
    SendNr { peer: PeerId, items: Vec<NrItem> },
    /// Tell peers that this one is here again.
    Hello { peers: BTreeSet<PeerId> },
    /// The user deleted a mail in Outbox: take it back.
    Cancel { submission: SubmissionId },
    /// The user granted a sender: pin the group key that it claims.
    Pin { address: Address, sender: Fingerprint, group: GroupName, group_key: Fingerprint },
    /// The user chose this key for this group.
    PinCandidate { group: GroupName, key: Fingerprint },
    /// Sessions look again: mailboxes have changed up to this version.
    Changed { version: u64 },
    /// Name a sender whose mail does not fit its ns.
    NameMismatch { id: MailKey, from: Address, h: MailId, why: String },
}

/// What requests are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a mail program.
    Mailbox(MailboxReply),
    /// To a mail program: the clear mail is the body of this message.
    BodyHere(MessageKey),
    /// The ns is on disk, or was known.
    NsTaken,
    /// It is not.
    NsRefused(NsRefusal),
    /// The tombstone was taken note of.
    TombstoneTaken,
    /// The message of Outbox, if it shows the submission.
    Own(Option<MessageKey>),
    /// The tombstone is not taken, or not yet.
    TombstoneRefused(TombstoneRefusal),
    /// It is filed, now or earlier; or why not.
    Filed(Result<(), String>),
    /// The mail that the message is; none for a card, an appended message or one that this peer made.
    MailOf(Option<MailKey>),
    /// They are known senders.
    WroteTo,
    /// What waits for consent, and the senders that were judged.
    Requests(Requests),
    /// How many senders, and how many of their mails, the verdict touched. No sender: nobody of that name asked or was judged.
    Judged {
        /// Senders.
        senders: usize,
        /// Mails.
        mails: usize,
    },
}

/// What waits for consent, and the senders that were judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// First mails, oldest first.
    pub waiting: Vec<RequestInfo>,
    /// Judged senders.
    pub senders: Vec<(Address, Fingerprint, Verdict)>,
}

/// A first mail of an unknown sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfo {
    /// Who.
    pub from: Address,
    /// The sender's key.
    pub sender: Fingerprint,
    /// Its group's key.
    pub group_key: Fingerprint,
    /// Bytes of the mail.
    pub size: u64,
    /// When it came.
    pub arrived: WallTime,
    /// When it expires.
    pub expiry: WallTime,
}

/// What the postbox shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostboxStatus {
    /// Messages by mailbox.
    pub mailboxes: BTreeMap<String, usize>,
    /// Messages in all, copies counted once.
    pub messages: usize,
    /// Stubs whose body may still come.
    pub stubs: usize,
    /// Pulls under way.
    pub pulls: usize,
    /// Requests that wait for consent.
    pub requests: usize,
    /// nr that no sender took yet.
    pub nr_open: usize,
    /// Of these, in the DHT.
    pub nr_in_dht: usize,
    /// Incoming mails that are remembered.
    pub mails: usize,
    /// Messages whose files are missing on this disk.
    pub damaged: usize,
    /// Mails that did not fit their ns, since the start.
    pub mismatches: u64,
}
