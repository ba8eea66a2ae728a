//! The control socket's protocol: JSON lines on `HOME/control.sock`. One request a connection; zero or more `progress` lines,
//! then one `done` or `failed` line. Types only; no IO.
//!
//! Participants: the command line (client) and a running peer (server), of the same user on the same machine (mode 0600).
//! Goals: everything a command needs of a running peer. Non-goals: remote use, other users.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::actors::postbox::Proof;
use crate::core::group::Candidates;
use crate::core::outbox::CancelAnswer;
use crate::core::postbox::Verdict;
use crate::model::{Address, Fingerprint, GroupName, LocalName, MailId, PeerId, Policy, Span, SubmissionId, WallTime};

/// Longest line, bytes.
pub const LINE_MAX: usize = 4 * 1024 * 1024;

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// Everything the peer shows of itself. Answered with [`PeerStatus`].
    Status,
    /// Founds the group of the peer's address. Answered with [`Founded`].
    GroupCreate {
        /// Must be the group of the peer's address.
        group: GroupName,
        /// How members' mail is kept.
        policy: Policy,
    },
    /// Makes an invite. Answered with [`Line`].
    GroupInvite {
        /// For whom.
        name: LocalName,
        /// How long it is good; a day when nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        valid: Option<Span>,
    },
    /// Joins by an invite. Answered with [`GroupStatus`].
    GroupJoin {
        /// The invite's line.
        code: String,
    },
    /// Changes the policy. Answered with [`GroupStatus`].
    GroupPolicy {
        /// The new one.
        policy: Policy,
    },
    /// Removes a member. Answered with [`GroupChanged`].
    GroupRemove {
        /// Who.
        address: Address,
    },
    /// Has a member hold the group key too. Answered with [`GroupChanged`].
    GroupGrant {
        /// Who.
        address: Address,
    },
    /// Takes the group over with its recovery code. Answered with [`GroupChanged`].
    GroupRecover {
        /// The code's line.
        code: String,
    },
    /// The recovery code of the key that this peer holds. Answered with [`Line`].
    GroupRecoveryCode,
    /// Leaves the group; progress lines while others take over. Answered with [`GroupChanged`].
    GroupLeave {
        /// At once, without waiting.
        now: bool,
        /// Stay after all, after a leave that was broken off.
        stay: bool,
    },
    /// Answered with [`GroupStatus`].
    GroupStatus,
    /// The peer's own contact card. Answered with [`Line`].
    Card,
    /// Adds a contact. Answered with [`Contact`].
    ContactAdd {
        /// The card's line.
        card: String,
    },
    /// Removes a contact. Answered with `{}`.
    ContactRemove {
        /// Whose.
        address: Address,
    },
    /// Answered with a list of [`Contact`].
    Contacts,
    /// Pins a group's key. Answered with [`PinnedNow`].
    PinGroup {
        /// The group.
        group: GroupName,
        /// Its key.
        key: Fingerprint,
    },
    /// First mails that wait for consent, and judged senders. Answered with [`Requests`](crate::core::postbox::io::Requests).
    Requests,
    /// The user's word on a sender. Answered with [`Judged`].
    Judge {
        /// An address or a fingerprint.
        who: String,
        /// The word.
        verdict: Verdict,
    },
    /// Proves who wrote a kept mail. Answered with [`Verified`].
    Verify {
        /// `INBOX` when absent.
        mailbox: Option<String>,
        /// The message.
        uid: Option<u32>,
        /// Or a copy of it, which is compared with what was signed.
        file: Option<PathBuf>,
        /// A folder for the signed message and the certificate.
        export: Option<PathBuf>,
    },
    /// Submits the mail in a file, as SMTP would. Answered with [`Submitted`].
    Send {
        /// A clear mail (RFC 5322) that the daemon may read.
        file: PathBuf,
        /// Envelope receivers.
        receivers: Vec<Address>,
        /// Wait until this many more members could be lost, at most 60 s; progress lines meanwhile.
        wait_safe: Option<u8>,
    },
    /// The first messages of a mailbox, as [`Request::InboxAfter`] 0 gives them.
    Inbox {
        /// `INBOX` when absent.
        mailbox: Option<String>,
    },
    /// The messages of a mailbox from a UID on, as many as fit into a line. Answered with a list of [`InboxLine`], which is empty
    /// at the end.
    InboxAfter {
        /// `INBOX` when absent.
        mailbox: Option<String>,
        /// The last UID that was read; 0 to begin.
        after: u32,
        /// To begin with the last so many.
        last: Option<u32>,
    },
    /// Opens a message, pulling it when it is not here; progress lines meanwhile. Answered with [`Read`].
    Read {
        /// `INBOX` when absent.
        mailbox: Option<String>,
        /// Its UID.
        uid: u32,
    },
    /// Where this peer can be reached; it costs nothing, so it also tells whether it answers. Answered with [`Ports`].
    Ports,
    /// The oldest that wait in the outbox, as many as fit into a line. Answered with a list of [`OutboxLine`].
    Outbox,
    /// What waits in the outbox, as much as fits into a line. Answered with [`OutboxPage`], whose list is empty at the end.
    OutboxAfter {
        /// Time and submission id of the last one that was read; none to begin.
        after: Option<(WallTime, SubmissionId)>,
        /// To begin with the last so many.
        last: Option<u32>,
    },
    /// What ended of late in another way than being received. Answered with a list of [`EndedLine`].
    OutboxEnded,
    /// Takes a mail back, or asks again what became of that. Answered with [`Cancelled`].
    Cancel {
        /// Its submission id, or the name of one of its sealed mails, in hex.
        which: String,
        /// How long it may wait for `uncertain` to become known, seconds; at most 600.
        wait_s: u64,
    },
    /// What `roost doctor` checks in a running peer. Answered with a list of [`Check`].
    Doctor,
    /// Whether members reach this peer. Answered with a list of [`Check`]: a member each.
    Reach,
    /// Holds on to the files of this moment. Answered with [`Staged`](crate::actors::backup::Staged), which the command packs.
    Backup {
        /// The command's process.
        pid: u32,
    },
    /// Stops the peer cleanly. Answered with `{}` before it does.
    Stop,
}

/// A line that the peer sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Answer {
    /// How far it is.
    Progress {
        /// In words, for a terminal.
        text: String,
        /// Percent, when that is known.
        percent: Option<u8>,
    },
    /// The end, with what was asked for.
    Done {
        /// Of the type that the request names.
        value: serde_json::Value,
    },
    /// The end.
    Failed {
        /// What happened, why, and what to do next.
        why: String,
    },
}

/// One line of text that people hand each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// An invite or a card.
    pub line: String,
}

/// A group that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founded {
    /// As `group status`.
    pub group: GroupStatus,
    /// Shown once: whoever has it can act for the group.
    pub recovery_code: String,
}

/// A change of the group that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupChanged {
    /// As `group status` since.
    pub group: GroupStatus,
    /// The group key is another since; shown once, and the code of before is of no use any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_code: Option<String>,
    /// What follows from it, a sentence each.
    pub notes: Vec<String>,
}

/// A group as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: GroupName,
    /// The gd's version; 0 when there is none yet.
    pub version: u64,
    /// The group key's fingerprint, once there is one.
    pub key: Option<String>,
    /// How members' mail is kept.
    pub policy: Policy,
    /// Who says at the moment who counts as lost.
    pub acting_master: Option<Address>,
    /// Why the group is not large enough for its policy, when it is not.
    pub degraded: Option<String>,
    /// Candidates that contradict what is pinned, and members' keys that changed of late, a sentence each.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// What this peer is in it: `founder`, `member`, `alone`, `left` or `removed`.
    #[serde(default)]
    pub role: String,
    /// Every member.
    pub members: Vec<MemberStatus>,
    /// Names that are invited and have not joined.
    pub invited: Vec<LocalName>,
}

/// A member as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its address.
    pub address: Address,
    /// Who it is.
    pub peer_id: PeerId,
    /// Whether it answers.
    pub up: bool,
    /// For how long nothing was heard of it, seconds.
    pub silent_s: Option<u64>,
    /// Whether the acting master calls it lost.
    pub lost: bool,
    /// Whether it holds the group key, as the gd says.
    #[serde(default)]
    pub key_holder: bool,
    /// Whether it is on its way out.
    #[serde(default)]
    pub leaving: bool,
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Whose.
    pub address: Address,
    /// The pinned key of its group.
    pub group_key: String,
    /// When that was pinned, as far as it was written down.
    #[serde(default)]
    pub pinned_since: Option<WallTime>,
    /// Its OpenPGP certificate, once that was fetched.
    pub fingerprint: Option<String>,
}

/// A group's key that was pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedNow {
    /// The group.
    pub group: GroupName,
    /// The key.
    pub key: String,
    /// What could not be had yet.
    pub note: Option<String>,
}

/// What the user's word on a sender touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Who was named.
    pub who: String,
    /// Keys that were judged.
    pub senders: usize,
    /// Waiting mails that were moved or refused by it.
    pub mails: usize,
}

/// What is proven of a kept mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The message.
    pub uid: u32,
    /// The pinned key of the sender's group, if one is pinned.
    pub group_key: Option<String>,
    /// Whether that group names this certificate for the sender today; unknown when its descriptor is not here.
    pub named_by_group: Option<bool>,
    /// What the signature says.
    #[serde(flatten)]
    pub proof: Proof,
}

/// A mail that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its submission id.
    pub submission: SubmissionId,
    /// safe(f) that was reached, when it was waited for.
    pub safe: Option<i32>,
    /// Whether that is what was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<bool>,
}

/// Fields of a header as people read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoded {
    /// From.
    pub from: String,
    /// Subject.
    pub subject: String,
}

/// A message in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxLine {
    /// Its UID.
    pub uid: u32,
    /// From, as it stands.
    pub from: String,
    /// Subject, as it stands.
    pub subject: String,
    /// From and Subject with their encoded words (RFC 2047) decoded.
    #[serde(default)]
    pub decoded: Decoded,
    /// Date, as it stands.
    pub date: String,
    /// Length of the clear mail, bytes.
    pub size: u64,
    /// `here`, `stub`, `cancelled` or `expired`.
    pub body: String,
    /// IMAP flags and keywords.
    pub flags: Vec<String>,
}

/// A message that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The clear mail on disk; the command copies it out.
    pub file: PathBuf,
    /// Its length, bytes.
    pub size: u64,
}

/// How a mail was pulled: in [`PeerStatus::pulls`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The mail.
    pub h: MailId,
    /// What came from whom.
    pub sources: Vec<Source>,
    /// From the first request to the end, milliseconds.
    pub took_ms: u64,
    /// From the first request to the first verified block, milliseconds.
    #[serde(default)]
    pub first_block_ms: Option<u64>,
    /// From the first request to the last verified block, milliseconds.
    #[serde(default)]
    pub last_block_ms: Option<u64>,
    /// Whether the mail is here.
    pub ok: bool,
}

/// What came from one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its address, or its PeerId when that is all that is known.
    pub address: String,
    /// Verified bytes.
    pub bytes: u64,
    /// Blocks that were not what the manifest says.
    pub bad_blocks: u64,
}

/// Some of the mails that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxPage {
    /// How many wait in all.
    pub total: usize,
    /// The oldest first.
    pub lines: Vec<OutboxLine>,
}

/// A mail that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxLine {
    /// Its submission id.
    pub submission: SubmissionId,
    /// Its subject, decoded, once the Outbox mailbox shows it.
    #[serde(default)]
    pub subject: Option<String>,
    /// Its sealed files.
    pub sealed: Vec<SealedLine>,
    /// Receivers and what became of the mail at each: `waiting`, `sealed`, `announced`, or how it
    /// ended, as in [`EndedLine`].
    pub receivers: BTreeMap<Address, String>,
    /// Length of the clear mail, bytes.
    pub size: u64,
    /// When it was submitted.
    pub at: WallTime,
}

/// A mail that ended in another way than being received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedLine {
    /// Its submission id.
    pub submission: SubmissionId,
    /// Receivers and what became of the mail at each: `received`, `filed`, `refused`, `unknown address`, `expired`, `lost`,
    /// `cancelled`, `too late` or `uncertain`.
    pub receivers: BTreeMap<Address, String>,
    /// Length of the clear mail, bytes.
    pub size: u64,
    /// When it was submitted.
    pub at: WallTime,
    /// When it ended.
    pub ended_at: WallTime,
}

/// One sealed mail of a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedLine {
    /// Its name.
    pub h: MailId,
    /// Its length, bytes.
    pub length: u64,
    /// `whole` or `fragments k of n`.
    pub encoding: String,
    /// safe(f): how many more members can go, the owner counted as lost already; below zero it is unsafe.
    pub safe: i32,
    /// Who confirmed which part: address to `whole` or `fragment I`.
    pub holders: BTreeMap<Address, String>,
    /// Who does not take its part: address to the reason in a few words.
    #[serde(default)]
    pub refused: BTreeMap<Address, String>,
}

/// What became of a mail that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Its submission id.
    pub submission: SubmissionId,
    /// For each receiver `cancelled` (it cannot read it any more), `too late` (it has it) or `uncertain` (not known yet).
    pub receivers: BTreeMap<Address, CancelAnswer>,
}

/// One check of `roost doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub check: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found, and what to do when it is not well.
    pub what: String,
    /// Of a test whether a member reaches this peer: what that member found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<ReachShown>,
}

/// What a member found when it dialled this peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachShown {
    /// The member.
    pub member: Address,
    /// Whether it reached both ports, be it at different addresses.
    pub reached: bool,
    /// Each port of each address.
    pub ports: Vec<PortDialled>,
}

/// One port of this peer that a member dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDialled {
    /// `https`, which moves mail, or `libp2p`, which finds.
    pub service: String,
    /// The address, as this peer announces it.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether it answered.
    pub reached: bool,
    /// How long that took, milliseconds.
    pub ms: u64,
    /// Why it did not.
    pub why: Option<String>,
}

/// A store of a home that has no room on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullStore {
    /// Its folder in the home: `spool`, `outbox`, `mirror`, `mail`, `fetch`, `journal`, …
    pub store: String,
    /// What that means and what to do.
    pub what: String,
}

/// Where a running peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// SMTP submission, `ADDRESS:PORT`.
    pub smtp: String,
    /// IMAP.
    pub imap: String,
    /// HTTPS routes.
    pub https: String,
    /// libp2p.
    pub libp2p: String,
    /// The web page, when it is on.
    pub console: Option<String>,
}

/// Everything a peer shows of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Whose peer it is.
    pub address: Address,
    /// Who it is.
    pub peer_id: PeerId,
    /// Its process.
    pub pid: u32,
    /// Its build.
    pub version: String,
    /// When it started.
    pub started: WallTime,
    /// Where it can be reached.
    pub ports: Ports,
    /// Its group.
    pub group: GroupStatus,
    /// Groups that mail waits for and whose key is not pinned, with the keys that say they are theirs.
    #[serde(default)]
    pub candidates: Candidates,
    /// What waits in its outbox: the last hundred at most. `roost outbox` gives all.
    pub outbox: Vec<OutboxLine>,
    /// How many wait there in all.
    #[serde(default)]
    pub outbox_total: usize,
    /// What ended there of late in another way than being received: the newest first, a hundred at most.
    #[serde(default)]
    pub outbox_ended: Vec<EndedLine>,
    /// The last pulls, newest last.
    pub pulls: Vec<Pulled>,
    /// What needs attention, a sentence each: unsafe or degraded mails, unreachable members, conflicts, peers that lied.
    pub attention: Vec<String>,
    /// Stores that have no room on the disk.
    #[serde(default)]
    pub disk_full: Vec<FullStore>,
    /// Bytes on disk: own sealed mails.
    pub stored_own_bytes: u64,
    /// Bytes on disk: parts of other members' mails.
    pub stored_mirror_bytes: u64,
    /// Bytes of mails, parts and manifests that it served to others since it started.
    #[serde(default)]
    pub served_bytes: u64,
    /// Each brain's own status, by its name.
    pub brains: BTreeMap<String, serde_json::Value>,
}
