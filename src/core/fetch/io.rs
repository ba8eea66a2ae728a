//! What the fetch brain is told, asks for, answers and shows. Plain data; nothing in here decides.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Offer, RequestId, Run, Totals, WAITING_MAX};
use crate::core::Token;
use crate::core::peer_score::Score;
use crate::fragment::Layout;
use crate::model::manifest::Manifest;
use crate::model::msglist::Ending;
use crate::model::{Digest, MailId, PeerId, PulledMail, Urgency};
use crate::wire::Signed;

/// A mail that somebody wants whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name.
    pub h: MailId,
    /// Length of the sealed mail, bytes.
    pub length: u64,
    /// BLAKE3 of the sealed mail.
    pub digest: Digest,
    /// Its owner: the signer of its manifest.
    pub owner: PeerId,
    /// Who may have it: the owner and members in rendezvous order, at most n + 4; and this peer.
    pub sources: Vec<PeerId>,
    /// How soon it is needed.
    pub urgency: Urgency,
}

impl Order {
    /// Whether both are of the very same mail: the same bytes, of the same owner. Anybody may announce another one by the same h.
    pub(super) fn is_same_mail(&self, other: &Order) -> bool {
        (self.h, self.length, self.digest, self.owner) == (other.h, other.length, other.digest, other.owner)
    }
}

/// What the fetch brain is told.
#[derive(Debug)]
pub enum Input {
    /// Somebody wants a mail.
    Want(Token, Order),
    /// Somebody asks how far a pull is.
    Progress(Token, MailId),
    /// What a source offers, or that it cannot be asked.
    Offered {
        /// The mail.
        h: MailId,
        /// Which source.
        source: PeerId,
        /// Its offer, or why there is none.
        offer: Result<Offer, SourceFailure>,
    },
    /// A manifest of the mail, checked against the order.
    Manifest {
        /// The mail.
        h: MailId,
        /// From which source.
        source: PeerId,
        /// The manifest's geometry, and the manifest; or why there is none.
        manifest: Found,
    },
    /// The file is open; these blocks of it were verified already.
    Opened {
        /// The mail.
        h: MailId,
        /// Stripe and index of each block that is there.
        have: Vec<(u64, u8)>,
    },
    /// The first bytes of a request came, or some that do not make a whole block yet: a sign of life, and a measure of the
    /// source.
    Arrived {
        /// The mail.
        h: MailId,
        /// By which request.
        request: RequestId,
        /// Bytes that were not told of yet.
        bytes: u64,
    },
    /// A block came, was verified, and is in the file.
    Block {
        /// The mail.
        h: MailId,
        /// By which request.
        request: RequestId,
        /// Its stripe.
        stripe: u64,
        /// Its index.
        index: u8,
        /// Its bytes as they travelled.
        bytes: u64,
    },
    /// A request is over.
    Ended {
        /// The mail.
        h: MailId,
        /// Which request.
        request: RequestId,
        /// From the request to the first block, and to the end; or why it failed.
        result: Result<(Duration, Duration), SourceFailure>,
    },
    /// What came of [`Action::GetShort`].
    Short {
        /// The mail.
        h: MailId,
        /// By which request.
        request: RequestId,
        /// Its bytes, verified, or why not.
        result: Result<Bytes, SourceFailure>,
    },
    /// The mail is whole and has the announced BLAKE3, or not.
    Finished {
        /// The mail.
        h: MailId,
        /// What it is, or what is wrong.
        result: Result<PulledMail, String>,
    },
    /// A peer served somebody else in here what is not in the manifest of this mail: it counts as a lie to this brain would.
    Lied {
        /// The mail, as it was wanted.
        order: Order,
        /// Which peer.
        source: PeerId,
        /// What was wrong.
        why: String,
    },
    /// The disk failed under a pull.
    DiskFailed {
        /// The mail.
        h: MailId,
        /// What it said.
        why: String,
        /// Whether it has no room.
        full: bool,
    },
}

/// A manifest with its geometry, or why there is none.
pub type Found = Result<(Layout, Box<Signed<Manifest>>), SourceFailure>;

/// Why a source gives nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFailure {
    /// It cannot be reached, or it broke off.
    Unreachable(String),
    /// It has nothing of the mail.
    Nothing,
    /// The mail is gone, in this way: it has the owner's tombstone.
    Gone(Ending),
    /// It served a block or manifest that is not the announced one. It is not asked again for this mail.
    Lied(String),
}

/// What the fetch brain asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask a source what it has of a mail.
    AskOffer {
        /// The mail.
        h: MailId,
        /// Whose mail it is: only its tombstone counts.
        owner: PeerId,
        /// Which source.
        source: PeerId,
    },
    /// Get and check the manifest of a mail.
    GetManifest {
        /// The order it must fit.
        order: Order,
        /// Which source.
        source: PeerId,
        /// For fragments any k of which are enough; of what it holds, if none.
        k: Option<u8>,
    },
    /// Stop getting a manifest; nobody waits for it any more.
    StopManifest {
        /// The mail.
        h: MailId,
        /// From which source.
        source: PeerId,
    },
    /// Open the file of a mail, or go on with the one that an earlier run left.
    Open {
        /// The mail.
        h: MailId,
        /// Its manifest.
        manifest: Box<Signed<Manifest>>,
    },
    /// Get blocks, verify each, put it into the file, and tell.
    Get {
        /// The mail.
        h: MailId,
        /// Which source.
        source: PeerId,
        /// The request's name.
        request: RequestId,
        /// Fragments' k, for the route.
        k: u8,
        /// Which blocks.
        run: Run,
        /// How soon they are needed.
        urgency: Urgency,
    },
    /// Get all of a mail of one block from its owner, check its length and BLAKE3, and put it where a pull would.
    GetShort {
        /// The mail.
        order: Order,
        /// The request's name.
        request: RequestId,
    },
    /// Stop a request; nobody waits for it any more.
    Cancel {
        /// Which request.
        request: RequestId,
    },
    /// Check the whole and hand the file over.
    Finish {
        /// The mail.
        h: MailId,
    },
    /// Close the file.
    Close {
        /// The mail.
        h: MailId,
        /// Whether there may be another try, for which verified blocks stay.
        keep: bool,
    },
    /// Name a peer that served a wrong block or manifest.
    NameLiar {
        /// The mail.
        h: MailId,
        /// Which peer.
        peer: PeerId,
        /// What was wrong.
        why: String,
    },
}

/// What requests are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The sealed mail, whole and verified.
    Fetched(PulledMail),
    /// It cannot be had now.
    Failed(Failure),
    /// Percent of the pull, if one runs.
    Progress(Option<u8>),
}

/// Why a mail cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too few parts are to be reached.
    #[error(
        "{missing} more part(s) are needed: {found} of {needed} can be reached; {unreachable} of {asked} peers do not answer. Try again when more members are on line"
    )]
    TooFew {
        /// Distinct parts that were found.
        found: usize,
        /// Distinct parts that are needed.
        needed: usize,
        /// The difference.
        missing: usize,
        /// Peers that did not answer.
        unreachable: usize,
        /// Peers that were asked.
        asked: usize,
    },
    /// No verified block came for 30 s.
    #[error("no source sent anything for {silent_s} s. Try again when the members' lines are better")]
    Silent {
        /// For how long, seconds.
        silent_s: u64,
    },
    /// The sources have the owner's tombstone.
    #[error("the mail is gone: its sender took it back, or its time was over; ask for it to be sent again")]
    Gone,
    /// The blocks fit the manifest, the whole does not fit the ns.
    #[error("what was pulled is not what was announced: {why}; ask its sender to send it again")]
    Mismatch {
        /// What does not fit.
        why: String,
    },
    /// The own disk failed.
    #[error("{}", disk_failed(why, *full))]
    Disk {
        /// What it said.
        why: String,
        /// Whether it has no room.
        full: bool,
    },
    /// Too much is pulled already.
    #[error("{WAITING_MAX} pulls wait already; try again later")]
    Busy,
}

fn disk_failed(why: &str, full: bool) -> String {
    if full {
        return format!("this peer's disk is full: free some space, then open it again ({why})");
    }
    format!("this peer's disk failed: {why}; see `roost doctor`, then open it again")
}

/// What came from one source for one mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct SourceReport {
    /// Verified bytes.
    pub bytes: u64,
    /// Blocks that were not what the manifest says.
    pub bad_blocks: u64,
}

/// A finished pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The mail.
    pub h: MailId,
    /// What came from whom.
    pub sources: BTreeMap<PeerId, SourceReport>,
    /// From the first request to the end, milliseconds.
    pub took_ms: u64,
    /// From the first request to the first verified block, milliseconds.
    pub first_block_ms: Option<u64>,
    /// From the first request to the last verified block, milliseconds.
    pub last_block_ms: Option<u64>,
    /// Whether the mail is here.
    pub ok: bool,
}

/// What the fetch brain shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Pulls under way with their percent.
    pub under_way: BTreeMap<MailId, u8>,
    /// Mails that wait their turn.
    pub waiting: usize,
    /// The last finished pulls, newest last.
    pub reports: Vec<Report>,
    /// What all pulls since the start came to.
    pub totals: Totals,
    /// Peers that served wrong blocks since the start, and how many.
    pub liars: BTreeMap<PeerId, u64>,
    /// Rate and delay of the sources of running pulls.
    pub scores: BTreeMap<PeerId, Score>,
}

/// Nothing of a fetch is journalled: the blocks in its file are its memory.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {}
