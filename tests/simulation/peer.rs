//! One peer: its keys, its disk, and its brains while it runs. What is in memory only is gone after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use roost::core::fetch::{self, Fetch};
use roost::core::group::{self, Doubts, Group, SignedGd};
use roost::core::outbox::{self, Outbox, RecoverJob};
use roost::core::postbox::io::NsFrom;
use roost::core::postbox::{self, Postbox};
use roost::core::replicator::MirrorOrder;
use roost::core::replicator::{self, Replicator};
use roost::core::{Brain, Effect};
use roost::fragment::Layout;
use roost::model::group::{Member, Roster};
use roost::model::{Address, Digest, Fingerprint, MailId, Part, PeerId, SubmissionId, WallTime};
use roost::wire::PeerKey;
use roost::wire::msglist::Page;

use super::disk::{Disk, DiskOp, Record, SealedNs};
use super::network::{CallRef, Pending};
use super::restore::Image;

/// The brains of a running peer.
pub(crate) struct Brains {
    pub(crate) outbox: Outbox,
    pub(crate) replicator: Replicator,
    pub(crate) postbox: Postbox,
    pub(crate) fetch: Fetch,
    /// Where the keys of groups are played.
    pub(crate) group: Option<Group>,
}

/// An input for one of them.
#[derive(Debug)]
pub(crate) enum Tell {
    Outbox(outbox::Input),
    Replicator(replicator::Input),
    Postbox(postbox::Input),
    Fetch(fetch::Input),
    Group(group::Input),
}

/// An effect of one of them.
pub(crate) enum Wish {
    Outbox(Effect<Outbox>),
    Replicator(Effect<Replicator>),
    Postbox(Effect<Postbox>),
    Fetch(Effect<Fetch>),
    Group(Effect<Group>),
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Outbox(effect) => show(effect, f),
            Wish::Replicator(effect) => show(effect, f),
            Wish::Postbox(effect) => show(effect, f),
            Wish::Fetch(effect) => show(effect, f),
            Wish::Group(effect) => show(effect, f),
        }
    }
}

fn show<B: Brain>(effect: &Effect<B>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match effect {
        Effect::Act(action) => write!(f, "{action:?}"),
        Effect::Reply(token, reply) => write!(f, "reply {} {reply:?}", token.0),
        Effect::Feed(input) => write!(f, "feed {input:?}"),
        Effect::Commit { events, then } => write!(f, "commit {events:?}, then {} effects", then.len()),
    }
}

/// Events on their way to the disk, and what hangs on them.
pub(crate) struct Commit {
    pub(crate) records: Vec<Record>,
    pub(crate) then: Vec<Wish>,
}

/// What is to be done when a change of the files is durable.
#[derive(Debug)]
pub(crate) enum After {
    Nothing,
    Tell(Box<Tell>),
    /// The mail is in the spool: the outbox is asked to take it.
    Submit(SubmissionId),
}

/// Who waits for a reply of a brain.
#[derive(Debug, Clone)]
pub(crate) enum Waiter {
    /// Another peer.
    Answer(CallRef),
    /// The mail program that submits.
    Submit(SubmissionId),
    /// The outbox, for its postbox.
    FiledSpool(SubmissionId),
    FiledDsn(SubmissionId, Address),
    /// The postbox, for a pull.
    Pull {
        key: postbox::access::MessageKey,
        h: MailId,
    },
    /// The replicator, for a mail whose fragment it cuts.
    Rebuild(MirrorOrder),
    Progress(roost::core::Token),
    /// A look-up for another peer: in the outbox, then in the replicator, then the word that it may be served.
    Find(CallRef, MailId, Wanted),
    FindMirror(CallRef, MailId, Wanted),
    Serve(CallRef, MailId, Wanted),
    /// The same for a mirrored mail: from which of the parts that the replicator knows, if any will do.
    ServeMirrored(CallRef, MailId, Wanted, Option<Part>),
    /// The user at a mailbox.
    Listed(Deed),
    /// The user who took a mail back.
    Cancel,
    /// The outbox, for a mail of its own that its disk has not.
    Recover(Box<RecoverJob>),
    /// An ns that waits until its sender's group was looked for.
    Fresh(NsFrom, Box<SealedNs>),
    /// The user who grants.
    Judging,
    /// Nobody looks at it.
    Nobody,
}

/// What another peer wants of a mail.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Offer,
    Manifest(Option<u8>),
    Part(Part, Vec<(u64, u8)>),
}

/// What a user is about to do with a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    OpenAll,
    OpenOne(u64),
    DeleteOne(u64),
    MoveOne(u64, postbox::access::Standard),
}

/// nr on their way to one peer together.
#[derive(Debug)]
pub(crate) struct NrBatch {
    pub(crate) peer: PeerId,
    pub(crate) left: usize,
    pub(crate) results: Vec<(postbox::MailKey, MailId, postbox::io::NrSent)>,
}

/// Members being asked what they hold.
#[derive(Debug)]
pub(crate) struct HolderBatch {
    pub(crate) owner: PeerId,
    pub(crate) h: MailId,
    pub(crate) left: usize,
    pub(crate) answers: BTreeMap<PeerId, BTreeSet<Part>>,
    pub(crate) gone: Vec<Vec<u8>>,
}

/// A peer.
pub(crate) struct Peer {
    pub(crate) address: Address,
    pub(crate) key: Arc<PeerKey>,
    pub(crate) id: PeerId,
    pub(crate) fingerprint: Fingerprint,
    /// Whether the newest group descriptor names it.
    pub(crate) in_group: bool,
    /// It was removed from the group, and is there all the same.
    pub(crate) removed: bool,
    /// Its home was made.
    pub(crate) made: bool,
    /// Milliseconds that its clock is ahead.
    pub(crate) skew: i64,
    /// Its group found that its clock is wrong.
    pub(crate) clock_off: bool,
    /// Since when its clock waits to be compared.
    pub(crate) unsure_since: Option<u64>,
    /// Whether it takes its clock for right.
    pub(crate) trusts: bool,
    /// What its clock said at last each time that it had to take one for right that was ahead, and until when it really did.
    pub(crate) fooled: Vec<(WallTime, u64)>,
    pub(crate) liar: bool,
    /// Pages that a liar once showed.
    pub(crate) old_pages: Vec<Page>,
    pub(crate) disk: Disk,
    /// An older image of the disk, to be restored.
    pub(crate) image: Option<Image>,
    /// Its disk is gone for good.
    pub(crate) dead: bool,
    /// It is off and stays off.
    pub(crate) left: bool,
    pub(crate) side: u8,
    /// What it knows of its group.
    pub(crate) roster: Roster,
    /// A broken peer: the descriptor that it goes by, whoever signed it.
    pub(crate) believed: Option<SignedGd>,
    /// Whom the view that it has calls lost.
    pub(crate) view: BTreeSet<PeerId>,

    // What follows is of one life.
    pub(crate) life: u64,
    pub(crate) brains: Option<Brains>,
    pub(crate) started: u64,
    /// Since when its group hears nothing of it.
    pub(crate) silent_since: Option<u64>,
    pub(crate) wake_at: Option<u64>,
    pub(crate) commits: VecDeque<Commit>,
    pub(crate) durable_at: u64,
    pub(crate) ops: BTreeMap<u64, (DiskOp, After)>,
    pub(crate) waiters: BTreeMap<u64, Waiter>,
    pub(crate) calls: BTreeMap<u64, (usize, Pending)>,
    pub(crate) nr_batches: BTreeMap<u64, NrBatch>,
    pub(crate) holder_batches: BTreeMap<u64, HolderBatch>,
    /// The last answers about holders that its replicator was given.
    pub(crate) confirmed: BTreeMap<(PeerId, MailId), BTreeMap<PeerId, BTreeSet<Part>>>,
    /// ns of the DHT that were read.
    pub(crate) read: BTreeSet<Digest>,
    /// Since when they are remembered.
    pub(crate) read_since: Option<u64>,
    /// Those that do not fit what is pinned.
    pub(crate) doubts: Doubts,
    /// Peers that were named as liars, by mail, since the pull began.
    pub(crate) named: BTreeSet<(MailId, PeerId)>,
    pub(crate) polling_nr: bool,
    /// Own mails that members said to be gone.
    pub(crate) told_gone: BTreeSet<MailId>,
    /// Stripes of the pulls under way.
    pub(crate) pulling: BTreeMap<MailId, Layout>,
    /// Files of pulls under way that have no name any more.
    pub(crate) unlinked: BTreeSet<MailId>,
    /// Effects until it crashes, and whether after the effect or before.
    pub(crate) fuse: Option<(u64, bool)>,
}

impl Peer {
    /// A peer that has never run.
    pub(crate) fn new(member: &Member, key: PeerKey, roster: Roster, in_group: bool) -> Self {
        Self {
            address: member.address.clone(),
            id: member.peer_id,
            fingerprint: member.fingerprint,
            key: Arc::new(key),
            in_group,
            removed: false,
            made: true,
            skew: 0,
            clock_off: false,
            unsure_since: None,
            trusts: false,
            fooled: Vec::new(),
            liar: false,
            old_pages: Vec::new(),
            disk: Disk::default(),
            image: None,
            dead: false,
            left: false,
            side: 0,
            roster,
            believed: None,
            view: BTreeSet::new(),
            life: 0,
            brains: None,
            started: 0,
            silent_since: Some(0),
            wake_at: None,
            commits: VecDeque::new(),
            durable_at: 0,
            ops: BTreeMap::new(),
            waiters: BTreeMap::new(),
            calls: BTreeMap::new(),
            nr_batches: BTreeMap::new(),
            holder_batches: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            read: BTreeSet::new(),
            read_since: None,
            doubts: Doubts::default(),
            named: BTreeSet::new(),
            polling_nr: false,
            told_gone: BTreeSet::new(),
            pulling: BTreeMap::new(),
            unlinked: BTreeSet::new(),
            fuse: None,
        }
    }
    /// Forgets what only memory had.
    pub(crate) fn forget(&mut self) {
        self.life += 1;
        self.brains = None;
        self.wake_at = None;
        self.commits.clear();
        self.ops.clear();
        self.waiters.clear();
        self.calls.clear();
        self.nr_batches.clear();
        self.holder_batches.clear();
        self.confirmed.clear();
        self.read.clear();
        self.read_since = None;
        self.doubts = Doubts::default();
        self.named.clear();
        self.polling_nr = false;
        self.told_gone.clear();
        self.pulling.clear();
        for h in std::mem::take(&mut self.unlinked) {
            self.disk.fetched.remove(&h);
        }
        self.fuse = None;
    }
    pub(crate) fn is_up(&self) -> bool {
        self.brains.is_some()
    }
}
