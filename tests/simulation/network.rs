//! Messages between peers: requests and their answers, dropped, doubled, delayed and cut off as the run says.

use std::collections::BTreeSet;
use std::time::Duration;

use roost::core::fetch::{Order, RequestId};
use roost::core::outbox::Announcement;
use roost::core::postbox::io::NrItem;
use roost::core::replicator::MirrorOrder;
use roost::model::holding::{Holdings, Missed};
use roost::model::manifest::Manifest;
use roost::model::msglist::Cursor;
use roost::model::{Address, MailId, Part, PeerId};
use roost::wire::Signed;
use roost::wire::msglist::Page;

use super::disk::{SealedNr, SealedNs};
use super::world::{Happening, World};

/// A caller gives up after this, milliseconds.
pub(crate) const PATIENCE_MS: u64 = 20_000;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallRef {
    pub(crate) caller: usize,
    pub(crate) life: u64,
    pub(crate) call: u64,
}

/// What `POST /notify` carries.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Ns(Box<SealedNs>),
    Nr(Box<SealedNr>),
    Tombstone(Vec<u8>),
    Hello,
}

/// What one peer asks of another.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Notify(Notice),
    Msglist(Cursor, Duration),
    MirrorMsglist(Address, Cursor),
    Holdings(Signed<Holdings>),
    Buckets(Vec<u8>),
    Offer(MailId),
    /// Of fragments any that many of which are enough; of what it holds, if none.
    Manifest(MailId, Option<u8>),
    Part(MailId, Part, Vec<(u64, u8)>),
}

impl Request {
    /// Whether only members may ask it.
    pub(crate) fn is_for_members(&self) -> bool {
        matches!(self, Request::Msglist(..) | Request::MirrorMsglist(..) | Request::Holdings(_) | Request::Buckets(_))
    }
}

/// What it is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Done,
    Page(Page),
    /// Buckets that differ, and parts that an audit missed.
    Differ(Vec<u8>, Missed),
    Offer(BTreeSet<Part>),
    Manifest(Box<Signed<Manifest>>),
    /// Blocks, each right or wrong.
    Blocks(Vec<(u64, u8, bool)>),
    Gone(Vec<u8>),
    NotFound,
    /// For good.
    Refused(String),
    /// Not now.
    Later(String),
    Unreachable,
}

/// What an answer is waited for.
#[derive(Debug)]
pub(crate) enum Pending {
    Ignored,
    Ns(Box<Announcement>, Box<SealedNs>),
    OwnList { member: PeerId, since: Cursor },
    Audit { member: PeerId, h: MailId },
    Gone(MailId, Address),
    Follow { owner: PeerId, from: PeerId, round: u64 },
    Report { owner: PeerId, upto: u64, word: Box<Holdings>, said_at: u64 },
    Compare { owner: PeerId },
    Holders { batch: u64, member: PeerId },
    MirrorFromOwner(MirrorOrder),
    MirrorFromOther { order: MirrorOrder, rest: Vec<PeerId> },
    FetchOffer { h: MailId, source: PeerId, owner: PeerId },
    FetchManifest { order: Order, source: PeerId },
    FetchBlocks { h: MailId, request: RequestId, asked_at: u64 },
    FetchShort { order: Order, request: RequestId },
    Nr { batch: u64, item: Box<NrItem> },
}

impl World {
    /// Sends a request; what comes of it ends `pending`.
    pub(crate) fn call(&mut self, from: usize, to: usize, request: Request, pending: Pending) {
        self.check_calls(from);
        let call = self.fresh();
        let to_ref = CallRef { caller: from, life: self.peers[from].life, call };
        self.peers[from].calls.insert(call, (to, pending));
        let held = if let Request::Msglist(_, wait) = &request { wait.as_millis() } else { 0 };
        let patience = PATIENCE_MS + u64::try_from(held).unwrap();
        if from == to {
            self.later(0, Happening::Arrives { to, from: to_ref, request });
            return;
        }
        self.check_request(to, &request);
        self.count_message(from);
        self.later(patience, Happening::Answered { to: to_ref, answer: Answer::Unreachable });
        if !self.is_joined(from, to) || self.is_dropped() {
            return;
        }
        if self.faulty && self.rng.chance(self.params.duplicate) {
            let delay = self.latency() * 3;
            self.later(delay, Happening::Arrives { to, from: to_ref, request: request.clone() });
        }
        let delay = self.latency();
        self.later(delay, Happening::Arrives { to, from: to_ref, request });
    }

    fn is_dropped(&mut self) -> bool {
        self.faulty && self.rng.chance(self.params.drop)
    }

    fn latency(&mut self) -> u64 {
        let most = if self.faulty { self.params.latency_ms } else { self.params.latency_ms.min(100) };
        self.rng.between(1, most)
    }

    /// A request reaches a peer, or the machine where it should be.
    pub(crate) fn arrives(&mut self, to: usize, from: CallRef, request: Request) {
        if from.caller != to && !self.is_joined(from.caller, to) {
            return;
        }
        if self.peers[to].is_up() {
            self.serve(to, from, request);
        } else if !self.peers[to].dead && !self.peers[to].left {
            // The machine says that nobody listens; one that is gone says nothing.
            self.answer(to, from, Answer::Unreachable);
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, from: usize, to: CallRef, answer: Answer) {
        if from == to.caller {
            self.later(0, Happening::Answered { to, answer });
            return;
        }
        let answer = self.twisted(from, to.caller, answer);
        self.check_answer(to.caller, &answer);
        self.count_message(from);
        if self.is_joined(from, to.caller) && !self.is_dropped() {
            let delay = self.latency();
            self.later(delay, Happening::Answered { to, answer });
        }
    }

    /// An answer, or the end of patience, reaches the caller.
    pub(crate) fn answered(&mut self, to: CallRef, answer: Answer) {
        if self.peers[to.caller].life != to.life {
            return;
        }
        if let Some((peer, pending)) = self.peers[to.caller].calls.remove(&to.call) {
            self.finish_call(to.caller, peer, pending, answer);
            self.pump(to.caller);
        }
    }

    /// Connections to a peer that crashed break; some callers learn of it.
    pub(crate) fn break_connections(&mut self, gone: usize) {
        let mut broken = Vec::new();
        for (caller, peer) in self.peers.iter().enumerate() {
            let to_gone = peer.calls.iter().filter(|(_, (to, _))| *to == gone);
            broken.extend(to_gone.map(|(call, _)| CallRef { caller, life: peer.life, call: *call }));
        }
        for to in broken {
            if self.rng.chance(500) {
                let delay = self.latency();
                self.later(delay, Happening::Answered { to, answer: Answer::Unreachable });
            }
        }
    }

    fn finish_call(&mut self, p: usize, peer: usize, pending: Pending, answer: Answer) {
        match pending {
            Pending::Ignored => {}
            Pending::Ns(what, sealed) => self.ns_sent(p, &what, *sealed, &answer),
            Pending::OwnList { member, since } => self.own_list_came(p, member, since, answer),
            Pending::Audit { member, h } => self.audited(p, member, h, &answer),
            Pending::Gone(h, receiver) => self.gone_told(p, h, receiver, &answer),
            Pending::Follow { owner, from, round } => self.followed(p, owner, from, round, answer),
            Pending::Report { owner, upto, .. } => self.reported(p, owner, upto, &answer),
            Pending::Compare { owner } => self.compared(p, owner, answer),
            Pending::Holders { batch, member } => self.holder_answered(p, batch, member, answer),
            Pending::MirrorFromOwner(order) => self.owner_gave(p, order, answer),
            Pending::MirrorFromOther { order, rest } => self.other_gave(p, order, rest, answer),
            Pending::FetchOffer { h, source, owner } => self.offered(p, h, source, owner, answer),
            Pending::FetchManifest { order, source } => self.manifest_came(p, &order, source, answer),
            Pending::FetchBlocks { h, request, asked_at } => self.blocks_came(p, peer, h, request, asked_at, answer),
            Pending::FetchShort { order, request } => self.short_came(p, &order, request, answer),
            Pending::Nr { batch, item } => self.nr_answered(p, batch, *item, answer),
        }
    }
}
