//! What the replicator is told, asks for, keeps, answers and shows. Plain data; nothing in here decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::list::ReadRun;
use crate::core::Token;
use crate::model::group::Roster;
use crate::model::holding::{Holding, HoldingRefusal, Holdings, Missed};
use crate::model::msglist::Cursor;
use crate::model::{Address, ByteSize, Digest, Encoding, MailId, Part, PeerId, Urgency, WallTime};
use crate::wire::msglist::Page;

/// What is fixed when the brain is made.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes held for one owner; what goes beyond it is refused.
    pub quota: ByteSize,
    /// Spreads timers; drawn at random by the shell.
    pub seed: u64,
}

/// Why a member gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskFailure {
    /// It could not be reached, or the connection broke.
    #[error("it cannot be reached: {why}")]
    Unreachable {
        /// What the network said.
        why: String,
    },
    /// It answered, but not with what was asked for.
    #[error("it refused: {why}")]
    Refused {
        /// What it said.
        why: String,
    },
}

/// Why a part could not be mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorFailure {
    /// Neither the owner nor enough other holders gave it.
    NoSource {
        /// What the last of them said.
        why: String,
    },
    /// The owner says the mail is gone: its tombstone, as it came.
    Gone {
        /// The signed tombstone; checked here.
        tombstone: Vec<u8>,
    },
    /// The manifest or the blocks do not fit the msglist entry, at every source that answered.
    BadBlocks {
        /// What did not fit.
        why: String,
    },
    /// No room on this peer's disk.
    DiskFull,
    /// This peer's disk failed otherwise.
    Disk {
        /// What the system said.
        why: String,
    },
}

/// What a check of a held part found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scrub {
    /// Every block is right.
    Good,
    /// The file is missing or a block is not what the manifest says.
    Bad,
    /// It could not be read now; that says nothing about it.
    Unknown {
        /// What the system said.
        why: String,
    },
}

/// What the replicator is told.
#[derive(Debug)]
pub enum Input {
    /// The first input: the own group as it is known now.
    Start(Roster),
    /// The group or the view changed.
    Roster(Roster),
    /// A member that could not be reached, or was silent, is there (again).
    PeerIsBack(PeerId),
    /// Whether this clock is too far off its members' to let anything expire.
    ClockDoubtful(bool),
    /// The answer to [`Action::Follow`].
    Page {
        /// Whose msglist.
        owner: PeerId,
        /// Who answered.
        from: PeerId,
        /// As in the action; an older one is not waited for any more.
        round: u64,
        /// What came.
        result: Result<Page, AskFailure>,
    },
    /// The answer to [`Action::CheckParts`].
    Checked {
        /// As in the action.
        address: Address,
        /// Parts whose files are not there.
        missing: Vec<(PeerId, MailId, Part)>,
    },
    /// The answer to [`Action::AskHolders`].
    Holders {
        /// Whose mail.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// What each member that answered says it holds. A member that did not answer is not in here.
        answers: BTreeMap<PeerId, BTreeSet<Part>>,
        /// What those sent who say that the mail is gone: its owner's tombstones, as they came; checked here. They are not in `answers`.
        gone: Vec<Vec<u8>>,
    },
    /// The answer to [`Action::Mirror`]: of all its parts, or of some of them now and of the others later.
    Mirrored {
        /// Whose mails.
        owner: PeerId,
        /// What came of each.
        results: Vec<Mirrored>,
    },
    /// From the brain to itself: all that a decision to give up parts hangs on is durable.
    DropDue {
        /// Whose mail.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which parts.
        parts: Vec<Part>,
        /// Who was placed when every one of them confirmed.
        placed: Vec<PeerId>,
    },
    /// The answers to some [`Action::DropParts`].
    PartsDropped(Vec<PartsDropped>),
    /// The answer to [`Action::Report`]. `Ok`: the owner has it on its disk.
    Reported {
        /// To whom.
        owner: PeerId,
        /// As in the action.
        upto: u64,
        /// Whether it took it.
        result: Result<(), AskFailure>,
    },
    /// The answer to [`Action::CompareHoldings`].
    Compared {
        /// With whom.
        owner: PeerId,
        /// The first bytes of h whose buckets differ.
        result: Result<Vec<u8>, AskFailure>,
    },
    /// Comes before [`Input::Compared`]: the owner's audit missed these parts, so they are checked before they are confirmed.
    Missed {
        /// Who audited.
        owner: PeerId,
        /// What it could not be shown.
        missed: Missed,
    },
    /// The answer to [`Action::Scrub`].
    Scrubbed {
        /// Whose mail.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which part.
        part: Part,
        /// What was found.
        result: Scrub,
    },
    /// A held part was found bad or missing while it was read for somebody.
    BadPart {
        /// Whose mail.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which part.
        part: Part,
    },
    /// What is known of a mail? Answered with [`Reply::Lookup`].
    Lookup {
        /// Carried by the reply.
        token: Token,
        /// Which mail.
        h: MailId,
    },
    /// Bytes of a mail are about to be served. Answered with [`Reply::Serve`] once it is recorded to whom, so that a cancel
    /// can tell the truth about who may have it.
    Serving {
        /// Carried by the reply.
        token: Token,
        /// Which mail.
        h: MailId,
        /// To whom.
        caller: PeerId,
    },
    /// Bytes of a mail went out.
    Served {
        /// Which mail.
        h: MailId,
        /// To whom.
        caller: PeerId,
        /// How many.
        bytes: u64,
    },
    /// A page of a member's msglist as this peer knows it. Answered with [`Reply::Page`].
    ReadMirrorMsglist {
        /// Carried by the reply.
        token: Token,
        /// Whose list.
        address: Address,
        /// What the caller has read.
        since: Cursor,
        /// Who asks.
        caller: PeerId,
    },
}

/// What the shell is to pull for one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorOrder {
    /// Whose mail.
    pub owner: PeerId,
    /// The owner's address: where its parts are kept.
    pub address: Address,
    /// Which mail.
    pub h: MailId,
    /// Which part of it.
    pub part: Part,
    /// Length of the sealed mail.
    pub length: u64,
    /// BLAKE3 of the sealed mail.
    pub digest: Digest,
    /// How it is kept.
    pub encoding: Encoding,
    /// When it expires.
    pub expiry: WallTime,
    /// Whether the owner answered last time; if not, the others are asked first.
    pub owner_answers: bool,
    /// Other members that placement names, in rank: where to rebuild it from when the owner is off.
    pub sources: Vec<PeerId>,
    /// Whether the owner waits for it to be safe, or it is moved or repaired.
    pub urgency: Urgency,
}

impl MirrorOrder {
    /// Bytes of the part.
    pub fn bytes(&self) -> u64 {
        super::part_bytes(self.length, self.part)
    }
}

/// What came of one [`Action::DropParts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsDropped {
    /// Whose mail.
    pub owner: PeerId,
    /// Which mail.
    pub h: MailId,
    /// Which parts.
    pub parts: Vec<Part>,
    /// Whether the files are gone, durably. An error leaves them; it is tried again.
    pub result: Result<(), String>,
}

/// What came of one [`MirrorOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// Which mail.
    pub h: MailId,
    /// Which part.
    pub part: Part,
    /// `Ok`: on disk, fsynced, every block checked.
    pub result: Result<(), MirrorFailure>,
}

/// What the replicator asks its shell to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask `from` for `owner`'s msglist after `since`, waiting up to `wait_s` seconds for something new: `/outbox/msglist` of the
    /// owner itself, `/mirror/{address}/msglist` of another member. A new one for the same owner and member replaces the last.
    Follow {
        /// Whose msglist.
        owner: PeerId,
        /// The owner's address.
        address: Address,
        /// Whom to ask.
        from: PeerId,
        /// Carried by the answer.
        round: u64,
        /// What has been read.
        since: Cursor,
        /// Seconds that the other may hold the request; 0 only the first time and for mirrors.
        wait_s: u32,
    },
    /// Look which of these files are there, and remove every other one below this address: what no event names is nobody's.
    CheckParts {
        /// Whose folder.
        address: Address,
        /// What should be there. More than one owner when a name came back with another key.
        parts: BTreeMap<PeerId, BTreeSet<(MailId, Part)>>,
    },
    /// Ask these members what they hold of a mail (`GET /outbox/{h}/fragments`).
    AskHolders {
        /// Whose mail.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Whom.
        members: Vec<PeerId>,
    },
    /// Pull, check and keep one part, or several short ones of one owner that answers: those are asked for in one request, and made
    /// durable together. What is wrong with one of them does not concern the others.
    Mirror(Vec<MirrorOrder>),
    /// Remove these parts' files.
    DropParts {
        /// Whose mail.
        owner: PeerId,
        /// The owner's address.
        address: Address,
        /// Which mail.
        h: MailId,
        /// Which parts.
        parts: Vec<Part>,
        /// Whether nothing of the mail stays, so that its manifest goes too.
        last: bool,
    },
    /// Sign these holdings and post them to their owner.
    Report {
        /// To whom.
        owner: PeerId,
        /// Carried by the answer.
        upto: u64,
        /// What to sign.
        holdings: Holdings,
    },
    /// Compare what is held for this owner with what it knows (256 buckets).
    CompareHoldings {
        /// With whom.
        owner: PeerId,
        /// The digests, bucket after bucket.
        buckets: Vec<u8>,
    },
    /// Read a held part and check every block.
    Scrub {
        /// Whose mail.
        owner: PeerId,
        /// The owner's address.
        address: Address,
        /// Which mail.
        h: MailId,
        /// Which part.
        part: Part,
    },
}

/// What the replicator makes durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A member whose msglist is followed from now on.
    Following {
        /// Who.
        owner: PeerId,
        /// Its address.
        address: Address,
    },
    /// Entries of its msglist were read and verified.
    Read {
        /// Whose.
        owner: PeerId,
        /// What.
        run: ReadRun,
    },
    /// The list names a mail, for the first time or with another encoding.
    Noted {
        /// Whose.
        owner: PeerId,
        /// Which.
        h: MailId,
        /// Where the list says so.
        at: Cursor,
        /// Length of the sealed mail.
        length: u64,
        /// BLAKE3 of the sealed mail.
        digest: Digest,
        /// When it expires.
        expiry: WallTime,
        /// How it is kept.
        encoding: Encoding,
    },
    /// The owner said, signed, that a mail is gone.
    Tombstoned {
        /// Whose.
        owner: PeerId,
        /// Which.
        h: MailId,
        /// The mail's expiry; the tombstone is kept 30 days longer.
        expiry: WallTime,
        /// The signed tombstone.
        tombstone: ByteBuf,
        /// Whether its list had named the mail before.
        #[serde(default)]
        named: bool,
    },
    /// A part is on disk, checked.
    Held {
        /// Whose.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which part.
        part: Part,
    },
    /// The part that is held was chosen by asking the others, of whom another may have chosen the same at the same time.
    Chosen {
        /// Whose.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Whether all others answered since, and none of them holds the same.
        settled: bool,
        /// A short name of who was placed when they did. Journals of earlier versions do not have it.
        #[serde(default)]
        among: Option<u64>,
    },
    /// A part was on disk and is not any more, or is bad.
    Lost {
        /// Whose.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which part.
        part: Part,
    },
    /// A part was not taken.
    Refused {
        /// Whose.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which part.
        part: Part,
        /// Why.
        why: HoldingRefusal,
    },
    /// Parts were given up by right (R3). Their files are gone if the mail is over, else they go once the owner knows.
    Dropped {
        /// Whose.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// Which parts; none when nothing was held.
        parts: Vec<Part>,
        /// Whether the mail is over, so that only its tombstone, if it has one, is remembered.
        over: bool,
    },
    /// Bytes of a mail were served to a peer; in all so far.
    Served {
        /// Whose.
        owner: PeerId,
        /// Which mail.
        h: MailId,
        /// To whom.
        caller: PeerId,
        /// How many in all.
        bytes: u64,
    },
    /// The owner has every report up to this one.
    Acknowledged {
        /// Who.
        owner: PeerId,
        /// The number of the last one.
        upto: u64,
    },
    /// The owner signed two lists that contradict each other.
    Forked {
        /// Who.
        owner: PeerId,
        /// Where.
        at: Cursor,
    },
    /// In a compacted journal: the reports that are not acknowledged, and the number of the next.
    Reports {
        /// To whom.
        owner: PeerId,
        /// The number of the next report.
        next: u64,
        /// Numbered reports.
        items: Vec<(u64, Holding)>,
        /// Whether they come on top of those of the event before.
        #[serde(default)]
        more: bool,
    },
}

/// What a look-up of a mail found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This peer has just started and has not read the msglists yet; ask again in a moment.
    NotReady,
    /// No member's msglist names it.
    Unknown,
    /// It is gone; the signed tombstone says why.
    Gone {
        /// The tombstone as the owner signed it.
        tombstone: Vec<u8>,
    },
    /// What this peer holds of it; nothing when `parts` is empty.
    Known(KnownMail),
}

/// A mail of another member, as far as this peer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMail {
    /// Whose mail.
    pub owner: PeerId,
    /// The owner's address: where its parts are kept.
    pub address: Address,
    /// Length of the sealed mail.
    pub length: u64,
    /// BLAKE3 of the sealed mail.
    pub digest: Digest,
    /// How it is kept.
    pub encoding: Encoding,
    /// The parts on this peer's disk.
    pub parts: BTreeSet<Part>,
}

/// What requests are answered with.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Input::Lookup`].
    Lookup(Lookup),
    /// To [`Input::Serving`]: whether the mail may be served; not when it is gone, or was served to too many peers.
    Serve(bool),
    /// To [`Input::ReadMirrorMsglist`]; none when no such member is known.
    Page(Option<Page>),
}
