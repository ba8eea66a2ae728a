//! The fetch brain: pulls sealed mails from the sender and the members in parallel, any k distinct blocks of each stripe. It
//! never sees a byte: the shell verifies every block against the manifest before it tells (R6).
//!
//! ```text
//!  Want --> asking sources (manifest and offers, all at once) --first good manifest--> opening the file
//!   opening --opened, with the blocks an earlier run left--> pulling --every stripe complete--> finishing --ok--> done
//!   asking, pulling --too few parts left, or silent for 30 s--> failed (the next open asks all again)
//! ```

#[cfg(test)]
mod fluid;
mod plan;
mod pull;
mod schedule;
mod share;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use plan::{Offer, RequestId, Run};
pub use pull::Totals;
use pull::{Lie, Pull};
pub use share::bound_of_fragments;

use super::peer_score::{PeerScores, Score};
use super::{Brain, Effect, Outgoing, Token, earliest};
use crate::fragment::Layout;
use crate::model::manifest::Manifest;
use crate::model::{Digest, MailId, MonoTime, Now, PeerId, Urgency};
use crate::wire::Signed;

/// Mails that are pulled at a time; the others wait their turn.
const PULLS_MAX: usize = 8;
/// Mails that may wait.
const WAITING_MAX: usize = 1024;
/// Lies that are remembered over pulls.
const LIED_MAX: usize = 1024;
/// Reports of finished pulls that are kept for whoever asks.
const REPORTS_MAX: usize = 64;

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
    /// Who may have it: the owner and members in rendezvous order, at most n + 4.
    pub sources: Vec<PeerId>,
    /// How soon it is needed.
    pub urgency: Urgency,
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
    /// The file is whole and has the announced BLAKE3, or not.
    Finished {
        /// The mail.
        h: MailId,
        /// Where it lies, or what is wrong.
        result: Result<PathBuf, String>,
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
    /// The mail is gone: it has the owner's tombstone.
    Gone,
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
    /// Close the file; verified blocks stay for the next try.
    Close {
        /// The mail.
        h: MailId,
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
    /// The sealed mail lies here, whole and verified.
    Fetched(PathBuf),
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

/// The brain.
#[derive(Debug, Default)]
pub struct Fetch {
    pulls: BTreeMap<MailId, Pull>,
    waiting: Vec<(Token, Order)>,
    next_request: u64,
    scores: PeerScores,
    reports: Vec<Report>,
    totals: Totals,
    liars: BTreeMap<PeerId, u64>,
    /// Who lied about which mail, oldest first: not asked for it again.
    lied: VecDeque<Lie>,
    out: Outgoing<Fetch>,
}

impl Fetch {
    fn want(&mut self, now: Now, token: Token, order: Order) {
        let is_free = self.pulls.len() < PULLS_MAX;
        match self.pulls.get_mut(&order.h) {
            Some(pull) if pull.is_of(&order) => {
                pull.join(token, order.urgency);
                self.settle(now, order.h);
            }
            None if is_free => {
                let h = order.h;
                let mut pull = Pull::new(now, token, order);
                pull.start(&self.lied, &mut self.out);
                self.pulls.insert(h, pull);
                self.settle(now, h);
            }
            // h is only a name, and anybody may announce another mail by it. One of them at a time: what comes of the one is
            // never told of the other.
            Some(_) | None if self.waiting.len() < WAITING_MAX => self.waiting.push((token, order)),
            Some(_) | None => self.out.reply(token, Reply::Failed(Failure::Busy)),
        }
    }

    /// Starts pulls that wait for their turn, the oldest first.
    fn start_waiting(&mut self, now: Now) {
        while self.pulls.len() < PULLS_MAX {
            let free = self.waiting.iter().position(|(_, order)| !self.pulls.contains_key(&order.h));
            let Some(at) = free else { return };
            let (token, order) = self.waiting.remove(at);
            self.want(now, token, order);
        }
    }

    /// Lets a pull go on, and ends it when it is over.
    fn settle(&mut self, now: Now, h: MailId) {
        let others = self.pulls.iter().filter(|(other, _)| **other != h);
        let room = plan::parity_room(others.map(|(_, pull)| pull.parity_kept()));
        let Some(pull) = self.pulls.get_mut(&h) else { return };
        pull.give_room(room);
        pull.go_on(now, &mut self.scores, &mut self.next_request, &mut self.out);
        let Some(ending) = pull.ended(now) else { return };
        let Some(mut pull) = self.pulls.remove(&h) else { return };
        let ok = ending.is_ok();
        let report = pull.report(now, ok);
        self.totals.add(&report);
        self.reports.push(report);
        if self.reports.len() > REPORTS_MAX {
            self.reports.remove(0);
        }
        if !ok {
            pull.cancel_all(&mut self.out);
            self.out.act(Action::Close { h });
        }
        let reply = match ending {
            Ok(path) => Reply::Fetched(path),
            Err(failure) => Reply::Failed(failure),
        };
        for token in &pull.waiters {
            self.out.reply(*token, reply.clone());
        }
        let same: Vec<usize> = (0..self.waiting.len()).filter(|i| pull.is_of(&self.waiting[*i].1)).collect();
        for at in same.into_iter().rev() {
            let (token, _) = self.waiting.remove(at);
            self.out.reply(token, reply.clone());
        }
        self.start_waiting(now);
    }

    fn lied(&mut self, h: MailId, peer: PeerId, why: &str) {
        if let Some(lie) = self.pulls.get(&h).map(|pull| pull.lie_of(peer)) {
            self.remember(lie);
        }
        self.name_liar(h, peer, why);
    }

    fn name_liar(&mut self, h: MailId, peer: PeerId, why: &str) {
        *self.liars.entry(peer).or_default() += 1;
        self.out.act(Action::NameLiar { h, peer, why: why.to_owned() });
    }

    fn remember(&mut self, lie: Lie) {
        if !self.lied.contains(&lie) {
            self.lied.push_back(lie);
            if self.lied.len() > LIED_MAX {
                self.lied.pop_front();
            }
        }
    }

    /// A peer lied about a mail outside of any pull.
    fn lied_elsewhere(&mut self, order: &Order, source: PeerId, why: &str) {
        self.remember(Lie::of(order, source));
        self.name_liar(order.h, source, why);
    }

    fn source_failed(&mut self, h: MailId, source: PeerId, failure: &SourceFailure) {
        if let SourceFailure::Lied(why) = failure {
            self.lied(h, source, why);
        }
        if let Some(pull) = self.pulls.get_mut(&h) {
            pull.source_failed(source, failure, &mut self.out);
        }
    }

    fn ended(&mut self, now: Now, h: MailId, request: RequestId, result: Result<(Duration, Duration), SourceFailure>) {
        let Some(pull) = self.pulls.get_mut(&h) else { return };
        let Some(asked) = pull.request_ended(now, request, &mut self.scores) else { return };
        if let Err(failure) = result {
            if let SourceFailure::Lied(why) = &failure {
                self.lied(h, asked.0, why);
            }
            if let Some(pull) = self.pulls.get_mut(&h) {
                pull.request_failed(now, asked, &failure, &mut self.out);
            }
        }
        self.settle(now, h);
    }

    fn offered(&mut self, now: Now, h: MailId, source: PeerId, offer: Result<Offer, SourceFailure>) {
        match offer {
            Ok(offer) => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.offered(now, source, offer, &self.scores, &mut self.out);
                }
            }
            Err(failure) => self.source_failed(h, source, &failure),
        }
        self.settle(now, h);
    }

    fn manifest(&mut self, now: Now, h: MailId, source: PeerId, manifest: Found) {
        if let Err(SourceFailure::Lied(why)) = &manifest {
            self.lied(h, source, why);
        }
        if let Some(pull) = self.pulls.get_mut(&h) {
            match manifest {
                Ok((layout, manifest)) => pull.manifest(source, layout, manifest, &mut self.out),
                Err(failure) => pull.manifest_failed(now, source, &failure, &mut self.out),
            }
        }
        self.settle(now, h);
    }
}

impl Brain for Fetch {
    const NAME: &'static str = "fetch";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = Status;

    fn replay(&mut self, event: Event) {
        match event {}
    }
    fn snapshot(&self) -> Vec<Event> {
        Vec::new()
    }
    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Want(token, order) => self.want(now, token, order),
            Input::Progress(token, h) => {
                let percent = self.pulls.get(&h).map(Pull::percent);
                self.out.reply(token, Reply::Progress(percent));
            }
            Input::Offered { h, source, offer } => self.offered(now, h, source, offer),
            Input::Manifest { h, source, manifest } => self.manifest(now, h, source, manifest),
            Input::Opened { h, have } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.opened(&have, &self.scores);
                }
                self.settle(now, h);
            }
            Input::Arrived { h, request, bytes } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.arrived(now, request, bytes);
                }
                self.settle(now, h);
            }
            Input::Block { h, request, stripe, index, bytes } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.block(now, request, stripe, index, bytes);
                }
                self.settle(now, h);
            }
            Input::Ended { h, request, result } => self.ended(now, h, request, result),
            Input::Lied { order, source, why } => self.lied_elsewhere(&order, source, &why),
            Input::Finished { h, result } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.finished(result);
                }
                self.settle(now, h);
            }
            Input::DiskFailed { h, why, full } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.disk_failed(Failure::Disk { why, full }, &mut self.out);
                }
                self.settle(now, h);
            }
        }
    }
    fn wake(&mut self, now: Now) {
        let all: Vec<MailId> = self.pulls.keys().copied().collect();
        for h in all {
            if let Some(pull) = self.pulls.get_mut(&h) {
                pull.check_silence(now, &mut self.scores, &mut self.out);
            }
            self.settle(now, h);
        }
    }
    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }
    fn poll_timeout(&self) -> Option<MonoTime> {
        earliest(self.pulls.values().map(Pull::timeout))
    }
    fn observe(&self, _: Now) -> Status {
        let sources = self.pulls.values().flat_map(Pull::sources);
        Status {
            under_way: self.pulls.iter().map(|(h, pull)| (*h, pull.percent())).collect(),
            waiting: self.waiting.len(),
            reports: self.reports.clone(),
            totals: self.totals,
            liars: self.liars.clone(),
            scores: sources.filter_map(|s| self.scores.of(s).map(|score| (*s, score))).collect(),
        }
    }
}
