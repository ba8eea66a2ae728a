//! Brains joined in memory under virtual time, for tests. Every message crosses the wire format.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;

use super::{
    Action, Change, Dht, DhtError, GetDone, Input, Limits, Place, PutDone, Record, Reply, RequestId, Unreachable,
};
use crate::core::{Brain as _, Effect, Token};
use crate::model::dht::{DhtKey, K_CLOSEST, value_hash};
use crate::model::{Digest, MonoTime, Now, PeerId, Secret, WallTime};
use crate::wire::PeerKey;
use crate::wire::dht::{Answer, Entry, EntryTombstone, Listing, RESPONSE_MAX, Request, Response, short_id};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) enum Delivery {
    Tell(PeerId, Input),
    Ask { from: PeerId, to: PeerId, request: RequestId, body: Request },
}

pub(super) struct Node {
    pub(super) dht: Dht,
    pub(super) alive: bool,
    pub(super) liar: bool,
    pub(super) disk: BTreeMap<(Digest, Digest), Record>,
    pub(super) writes: usize,
}

/// Brains joined in memory, under virtual time.
pub(super) struct Net {
    pub(super) now: Now,
    pub(super) nodes: BTreeMap<PeerId, Node>,
    pub(super) order: Vec<PeerId>,
    pub(super) line: BTreeMap<u64, Delivery>,
    pub(super) due: BinaryHeap<Reverse<(MonoTime, u64)>>,
    pub(super) sent: u64,
    pub(super) channels: BTreeMap<u64, (PeerId, PeerId, RequestId)>,
    pub(super) replies: BTreeMap<Token, Reply>,
    pub(super) requests: u64,
    pub(super) response_bytes: usize,
    pub(super) limits: (Limits, Limits),
    /// The first so many reach each other only, and so do the others.
    pub(super) cut: Option<usize>,
}

pub(super) fn key_of(n: usize) -> PeerKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&u64::try_from(n).unwrap().to_be_bytes());
    PeerKey::from_seed(&seed)
}

pub(super) fn ns(n: usize) -> DhtKey {
    DhtKey::Ns(format!("reader{n}@acme").parse().unwrap())
}

pub(super) fn password(n: u8) -> Secret {
    Secret::new([n; 32])
}

pub(super) fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

impl Net {
    pub(super) fn new(peers: usize) -> Self {
        Self::with_limits(peers, Limits::ENTRIES, Limits::TOMBSTONES)
    }
    pub(super) fn with_limits(peers: usize, entries: Limits, tombstones: Limits) -> Self {
        let start = Now { mono: MonoTime(0), wall: WallTime(1_700_000_000_000) };
        let mut net = Self {
            now: start,
            nodes: BTreeMap::new(),
            order: Vec::new(),
            line: BTreeMap::new(),
            due: BinaryHeap::new(),
            sent: 0,
            channels: BTreeMap::new(),
            replies: BTreeMap::new(),
            requests: 0,
            response_bytes: 0,
            limits: (entries, tombstones),
            cut: None,
        };
        for _ in 0..peers {
            net.start();
        }
        net.pass(Duration::from_secs(5));
        net
    }
    pub(super) fn later(&mut self, ms: u64, delivery: Delivery) {
        self.sent += 1;
        self.line.insert(self.sent, delivery);
        self.due.push(Reverse((self.now.mono + Duration::from_millis(ms), self.sent)));
    }
    pub(super) fn start(&mut self) -> PeerId {
        let key = key_of(self.order.len());
        let peer = key.peer_id();
        let seed = u64::try_from(self.order.len()).unwrap();
        let dht = Dht::with_limits(key, seed, self.limits.0, self.limits.1).kept_on_disk();
        self.nodes.insert(peer, Node { dht, alive: true, liar: false, disk: BTreeMap::new(), writes: 0 });
        self.order.push(peer);
        self.begin(peer);
        peer
    }
    fn begin(&mut self, peer: PeerId) {
        self.tell(peer, Input::Start);
        for other in self.alive().into_iter().filter(|other| *other != peer) {
            self.tell(peer, Input::PeerUp(other));
            self.tell(other, Input::PeerUp(peer));
        }
    }
    /// Starts a peer that was killed, with what is on its disk.
    pub(super) fn restart(&mut self, peer: PeerId) {
        let n = self.order.iter().position(|other| *other == peer).unwrap();
        let seed = u64::try_from(1000 + n).unwrap();
        let node = self.nodes.get_mut(&peer).unwrap();
        node.dht = Dht::with_limits(key_of(n), seed, self.limits.0, self.limits.1).kept_on_disk();
        node.alive = true;
        let records = node.disk.values().cloned().collect();
        self.begin(peer);
        self.tell(peer, Input::Restore(records));
        self.tell(peer, Input::Restored);
    }
    pub(super) fn kill(&mut self, peer: PeerId) {
        self.nodes.get_mut(&peer).unwrap().alive = false;
        for other in self.alive() {
            self.tell(other, Input::PeerDown(peer));
        }
    }
    /// From now on the first `east` peers and the others do not reach each other. No connection ends: packets vanish.
    pub(super) fn cut(&mut self, east: usize) {
        self.cut = Some(east);
    }
    /// They do again, and nobody is told.
    pub(super) fn heal(&mut self) {
        self.cut = None;
    }
    fn reach_each_other(&self, one: PeerId, other: PeerId) -> bool {
        let is_east = |peer| self.order.iter().position(|p| *p == peer).zip(self.cut).is_some_and(|(at, cut)| at < cut);
        is_east(one) == is_east(other)
    }
    pub(super) fn alive(&self) -> Vec<PeerId> {
        self.order.iter().filter(|peer| self.nodes[peer].alive).copied().collect()
    }
    pub(super) fn tell(&mut self, peer: PeerId, input: Input) {
        let node = self.nodes.get_mut(&peer).unwrap();
        if node.alive {
            node.dht.handle(self.now, input);
            self.perform(peer);
        }
    }
    pub(super) fn perform(&mut self, peer: PeerId) {
        while let Some(effect) = self.nodes.get_mut(&peer).unwrap().dht.poll_effect() {
            match effect {
                Effect::Reply(token, reply) => assert!(self.replies.insert(token, reply).is_none(), "one reply each"),
                Effect::Act(Action::FindClosest { key }) => {
                    let mut peers = self.alive();
                    peers.retain(|other| *other != peer && self.reach_each_other(peer, *other));
                    peers.sort_by_key(|p| Place::of_key(&key).distance(&Place::of_peer(p)));
                    peers.truncate(K_CLOSEST);
                    self.later(4, Delivery::Tell(peer, Input::Closest { key, peers }));
                }
                Effect::Act(Action::Send { request, peer: to, body }) => {
                    self.requests += 1;
                    let body = Request::decode(&body.encode()).unwrap();
                    self.later(1, Delivery::Ask { from: peer, to, request, body });
                }
                Effect::Act(Action::Respond { channel, mut response }) => {
                    let (from, to, request) = self.channels.remove(&channel).unwrap();
                    if self.nodes[&to].liar {
                        response.answers.iter_mut().for_each(lie);
                    }
                    let bytes = response.encode();
                    assert!(bytes.len() <= RESPONSE_MAX);
                    self.response_bytes += bytes.len();
                    let result = Response::decode(&bytes).map_err(|_| Unreachable);
                    self.later(1, Delivery::Tell(from, Input::Answer { request, result }));
                }
                Effect::Act(Action::Keep { changes }) => {
                    let node = self.nodes.get_mut(&peer).unwrap();
                    node.writes += 1;
                    for Change { key, id, record } in changes {
                        match record {
                            Some(record) => drop(node.disk.insert((key, id), record)),
                            None => drop(node.disk.remove(&(key, id))),
                        }
                    }
                    self.later(2, Delivery::Tell(peer, Input::Kept(true)));
                }
                Effect::Feed(_) | Effect::Commit { .. } => unreachable!("the DHT keeps nothing in the journal"),
            }
        }
    }
    /// The next thing that happens, if it happens before `until`.
    pub(super) fn step(&mut self, until: MonoTime) -> bool {
        let timer = self.nodes.iter().filter(|(_, n)| n.alive);
        let timer = timer.filter_map(|(peer, n)| Some((n.dht.poll_timeout()?, *peer))).min();
        let line = self.due.peek().map(|Reverse((at, _))| *at);
        let at = [timer.map(|(at, _)| at), line].into_iter().flatten().min();
        let Some(at) = at.filter(|at| *at <= until) else {
            self.now = self.now.after(until.since(self.now.mono));
            return false;
        };
        self.now = self.now.after(at.since(self.now.mono));
        if line == Some(at) {
            let Some(Reverse((_, id))) = self.due.pop() else { return false };
            match self.line.remove(&id).unwrap() {
                Delivery::Tell(peer, input) => self.tell(peer, input),
                Delivery::Ask { from, to, request, .. }
                    if !self.nodes[&to].alive || !self.reach_each_other(from, to) =>
                {
                    self.later(5, Delivery::Tell(from, Input::Answer { request, result: Err(Unreachable) }));
                }
                Delivery::Ask { from, to, request, body } => {
                    self.channels.insert(id, (from, to, request));
                    self.tell(to, Input::Serve { channel: id, from, request: body });
                }
            }
        } else if let Some((_, peer)) = timer {
            self.nodes.get_mut(&peer).unwrap().dht.wake(self.now);
            self.perform(peer);
        }
        true
    }
    pub(super) fn pass(&mut self, span: Duration) {
        let until = self.now.mono + span;
        while self.step(until) {}
    }
    pub(super) fn ask(&mut self, peer: PeerId, input: impl FnOnce(Token) -> Input) -> Reply {
        let token = self.ask_later(peer, input);
        self.reply(token)
    }
    pub(super) fn ask_later(&mut self, peer: PeerId, input: impl FnOnce(Token) -> Input) -> Token {
        self.sent += 1;
        let token = Token(self.sent);
        self.tell(peer, input(token));
        token
    }
    pub(super) fn reply(&mut self, token: Token) -> Reply {
        let until = self.now.mono + Duration::from_secs(120);
        while !self.replies.contains_key(&token) {
            assert!(self.step(until), "every request is answered");
        }
        self.replies.remove(&token).unwrap()
    }
    pub(super) fn put(
        &mut self,
        peer: PeerId,
        key: &DhtKey,
        value: &str,
        p: u8,
        validity: Duration,
    ) -> Result<PutDone, DhtError> {
        let (key, value, expiry) = (key.clone(), text(value), self.now.wall + validity);
        match self.ask(peer, |token| Input::Put { token, key, value, password: password(p), expiry }) {
            Reply::Put(done) => done,
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn read(&mut self, peer: PeerId, key: &DhtKey, have: &BTreeSet<Digest>) -> GetDone {
        self.look(peer, key, have, false)
    }
    pub(super) fn look(&mut self, peer: PeerId, key: &DhtKey, have: &BTreeSet<Digest>, watch: bool) -> GetDone {
        let (key, have) = (key.clone(), have.clone());
        match self.ask(peer, |token| Input::Get { token, key, have, watch }) {
            Reply::Get(done) => done.unwrap(),
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn get(&mut self, peer: PeerId, key: &DhtKey) -> Vec<String> {
        let mut values: Vec<String> = self.read(peer, key, &BTreeSet::new()).entries.iter().map(string).collect();
        values.sort();
        values
    }
    pub(super) fn del(&mut self, peer: PeerId, key: &DhtKey, value: &str, p: u8) -> Result<usize, DhtError> {
        let (key, value) = (key.clone(), value_hash(value.as_bytes()));
        match self.ask(peer, |token| Input::Del { token, key, value, password: password(p) }) {
            Reply::Del(done) => done.map(|done| done.confirmed),
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn status(&self, peer: PeerId) -> super::Status {
        self.nodes[&peer].dht.observe(self.now)
    }
}

pub(super) fn string(found: &super::Found) -> String {
    String::from_utf8(found.value.to_vec()).unwrap()
}

/// What a peer that wants to do harm answers.
pub(super) fn lie(answer: &mut Answer) {
    match answer {
        Answer::Listing(listing) => {
            let claims = listing.live.iter().map(|(id, _)| short_id(id)).collect();
            let invented = (Digest::new([0xee; 32]), WallTime(u64::MAX));
            *listing = Listing { print: listing.print, live: vec![invented], dead: claims, entries: vec![] };
        }
        Answer::Fetched { entries, tombstones } => {
            entries.clear();
            let other = key_of(9999);
            let forged = Entry::publish(&other, Digest::new([3; 32]), text("lie"), &password(9), WallTime(u64::MAX));
            tombstones.push(EntryTombstone::new(forged.terms().clone(), password(9)).unwrap());
            entries.push(forged);
        }
        _ => {}
    }
}
