//! What a put, a deletion and a re-put ask of other peers and make of the answers. They never send, and never wait.

use std::collections::{BTreeMap, BTreeSet};

use super::courier::Unreachable;
use super::get::GetJob;
use super::store::Store;
use super::{DelDone, DhtError, PutDone, Reply};
use crate::model::{Digest, PeerId, Secret, WallTime};
use crate::wire::dht::{Answer, Del, Entry, EntryTombstone, Fetch, List, Op, Refusal};

/// Most entries that one re-put hands to one peer; the rest goes with the next.
const PUSH_MAX: usize = 1024;

/// An operation for a peer.
pub(super) type Ask = (PeerId, Op);

/// What a job wants once every peer of a round has answered or will not.
#[derive(Debug)]
pub(super) enum Next {
    /// Another round.
    More(Vec<Ask>),
    /// A new look-up, then the peers it finds.
    Again,
    /// Nothing.
    Done,
}

/// Where a run is: how many peers are asked, and whether it may look up again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) now: WallTime,
    pub(super) targets: usize,
    pub(super) may_retry: bool,
}

/// One operation under way.
#[derive(Debug)]
pub(super) enum Job {
    Put(PutJob),
    Get(GetJob),
    Del(DelJob),
    Carry(CarryJob),
}

impl Job {
    /// What the first round asks of the closest peers.
    pub(super) fn open(&mut self, store: &mut Store, me: PeerId, targets: &[PeerId]) -> Vec<Ask> {
        match self {
            Job::Put(job) => job.open(targets),
            Job::Get(job) => job.open(me, targets),
            Job::Del(job) => job.open(targets),
            Job::Carry(job) => job.open(store, me, targets),
        }
    }
    /// Takes an answer; what it wants asked in the same round.
    pub(super) fn take(
        &mut self,
        store: &mut Store,
        now: WallTime,
        peer: PeerId,
        answer: Result<Answer, Unreachable>,
    ) -> Vec<Ask> {
        match self {
            Job::Put(job) => job.take(peer, answer),
            Job::Get(job) => job.take(now, peer, answer),
            Job::Del(job) => job.take(peer, answer),
            Job::Carry(job) => return job.take(store, now, peer, answer),
        }
        Vec::new()
    }
    /// Ends a round.
    pub(super) fn close(&mut self, round: Round) -> (Option<Reply>, Next) {
        match self {
            Job::Put(job) => job.close(round),
            Job::Get(job) => job.close(round),
            Job::Del(job) => job.close(round),
            Job::Carry(_) => (None, Next::Done),
        }
    }
}

/// Puts an entry on the closest peers.
#[derive(Debug)]
pub(super) struct PutJob {
    entry: Entry,
    stored: BTreeSet<PeerId>,
    refused: BTreeMap<PeerId, Refusal>,
    deleted: Option<EntryTombstone>,
    /// The round under way takes it back from those who stored it.
    burying: bool,
    failed: bool,
}

impl PutJob {
    pub(super) fn new(entry: Entry) -> Self {
        let (stored, refused) = (BTreeSet::new(), BTreeMap::new());
        Self { entry, stored, refused, deleted: None, burying: false, failed: false }
    }
    fn open(&mut self, targets: &[PeerId]) -> Vec<Ask> {
        self.failed = false;
        let new = |peer: &&PeerId| !self.stored.contains(*peer) && !self.refused.contains_key(*peer);
        targets.iter().filter(new).map(|peer| (*peer, Op::Put(self.entry.clone()))).collect()
    }
    fn take(&mut self, peer: PeerId, answer: Result<Answer, Unreachable>) {
        match answer {
            Ok(Answer::Stored) if self.burying => {}
            Ok(Answer::Stored) => {
                self.stored.insert(peer);
            }
            Ok(Answer::Buried(tombstones)) => {
                let id = self.entry.terms().id();
                self.deleted = tombstones.into_iter().find(|t| t.terms().id() == id).or(self.deleted.take());
            }
            Ok(Answer::Refused(why)) => {
                self.refused.insert(peer, why);
            }
            Ok(_) => {
                self.refused.insert(peer, Refusal::Other("unsupported".to_owned()));
            }
            Err(Unreachable) => self.failed = true,
        }
    }
    /// Enough are more than half of the closest peers: any later set of closest peers that overlaps them reads it.
    fn close(&mut self, round: Round) -> (Option<Reply>, Next) {
        if let Some(tombstone) = &self.deleted {
            // Those who took it did not know.
            let bury = std::mem::take(&mut self.stored).into_iter().map(|peer| (peer, Op::Bury(tombstone.clone())));
            let bury: Vec<Ask> = bury.collect();
            self.burying = true;
            let next = if bury.is_empty() { Next::Done } else { Next::More(bury) };
            return (Some(Reply::Put(Err(DhtError::Deleted))), next);
        }
        let enough = self.stored.len() * 2 > round.targets;
        let retry = self.failed && round.may_retry;
        let reply = (enough || !retry).then(|| Reply::Put(self.outcome(enough, round.targets)));
        (reply, if retry { Next::Again } else { Next::Done })
    }
    fn outcome(&self, enough: bool, asked: usize) -> Result<PutDone, DhtError> {
        let stored = self.stored.len();
        match self.refused.values().next() {
            Some(why) if !enough => Err(DhtError::Refused { why: why.clone(), stored }),
            None if stored == 0 => Err(DhtError::Unreachable { asked }),
            _ => {
                let terms = self.entry.terms();
                let elsewhere = self.stored.iter().filter(|peer| **peer != terms.publisher).count();
                Ok(PutDone { id: terms.id(), stored, elsewhere, asked })
            }
        }
    }
}

/// Deletes what has a value and a password: first at those who have it, then with the proof at all others.
#[derive(Debug)]
pub(super) struct DelJob {
    key: Digest,
    value: Digest,
    password: Secret,
    proofs: BTreeMap<Digest, EntryTombstone>,
    confirmed: BTreeMap<PeerId, BTreeSet<Digest>>,
    /// What was sent to whom for [`Answer::Stored`] to confirm.
    sent: BTreeMap<PeerId, Vec<Digest>>,
    answered: BTreeSet<PeerId>,
    refused: Option<Refusal>,
    failed: bool,
}

impl DelJob {
    pub(super) fn new(key: Digest, value: Digest, password: Secret) -> Self {
        Self {
            key,
            value,
            password,
            proofs: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            sent: BTreeMap::new(),
            answered: BTreeSet::new(),
            refused: None,
            failed: false,
        }
    }
    fn open(&mut self, targets: &[PeerId]) -> Vec<Ask> {
        self.failed = false;
        let new = targets.iter().filter(|peer| !self.answered.contains(*peer));
        let del = Del { key: self.key, value: self.value, password: self.password.clone() };
        new.map(|peer| (*peer, Op::Del(del.clone()))).collect()
    }
    fn take(&mut self, peer: PeerId, answer: Result<Answer, Unreachable>) {
        let Ok(answer) = answer else {
            self.failed = true;
            return;
        };
        self.answered.insert(peer);
        match answer {
            Answer::Buried(tombstones) => {
                let mine = |t: &EntryTombstone| t.terms().key == self.key && t.terms().value == self.value;
                for tombstone in tombstones.into_iter().filter(mine) {
                    let id = tombstone.terms().id();
                    self.confirmed.entry(peer).or_default().insert(id);
                    let longest = match self.proofs.remove(&id) {
                        Some(known) => known.prolonged(tombstone.terms()),
                        None => tombstone,
                    };
                    self.proofs.insert(id, longest);
                }
            }
            Answer::Stored => {
                let sent = self.sent.remove(&peer).unwrap_or_default();
                self.confirmed.entry(peer).or_default().extend(sent);
            }
            Answer::Refused(why) => self.refused = Some(why),
            _ => {}
        }
    }
    fn close(&mut self, round: Round) -> (Option<Reply>, Next) {
        let mut asks = Vec::new();
        for peer in &self.answered {
            let has = self.confirmed.get(peer);
            let lacks = self.proofs.iter().filter(|(id, _)| has.is_none_or(|has| !has.contains(id)));
            for (id, proof) in lacks {
                let sent = self.sent.entry(*peer).or_default();
                if !sent.contains(id) {
                    sent.push(*id);
                    asks.push((*peer, Op::Bury(proof.clone())));
                }
            }
        }
        if !asks.is_empty() {
            return (None, Next::More(asks));
        }
        let confirmed = self.confirmed.len();
        let enough = confirmed * 2 > round.targets;
        let retry = self.failed && round.may_retry;
        let reply = (enough || !retry).then(|| Reply::Del(self.outcome(confirmed, round.targets)));
        (reply, if retry { Next::Again } else { Next::Done })
    }
    fn outcome(&self, confirmed: usize, asked: usize) -> Result<DelDone, DhtError> {
        if confirmed > 0 {
            return Ok(DelDone { confirmed, asked, ids: self.proofs.keys().copied().collect() });
        }
        match &self.refused {
            Some(Refusal::WrongPassword) => Err(DhtError::WrongPassword),
            Some(why) => Err(DhtError::Refused { why: why.clone(), stored: 0 }),
            None if self.answered.is_empty() => Err(DhtError::Unreachable { asked }),
            None => Err(DhtError::NotFound),
        }
    }
}

/// Compares one key with other peers, and hands them what they lack.
#[derive(Debug)]
pub(super) struct CarryJob {
    key: Digest,
    /// The one peer to compare with; else all of the closest.
    with: Option<PeerId>,
    /// Nobody was unreachable and nothing refused.
    clean: bool,
    /// There was more than goes at once.
    more: bool,
    pushed: u64,
}

impl CarryJob {
    pub(super) fn new(key: Digest, with: Option<PeerId>) -> Self {
        Self { key, with, clean: true, more: false, pushed: 0 }
    }
    pub(super) fn with(&self) -> Option<PeerId> {
        self.with
    }
    /// Whether all of the closest peers now have what is here.
    pub(super) fn is_complete(&self) -> bool {
        self.with.is_none() && self.clean && !self.more
    }
    pub(super) fn wants_more(&self) -> bool {
        self.more
    }
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }
    fn open(&mut self, store: &mut Store, me: PeerId, targets: &[PeerId]) -> Vec<Ask> {
        let Some(print) = store.print(&self.key) else { return Vec::new() };
        let list = List { key: self.key, values: false, have: Vec::new(), unless: Some(print) };
        targets.iter().filter(|peer| **peer != me).map(|peer| (*peer, Op::List(list.clone()))).collect()
    }
    fn take(
        &mut self,
        store: &mut Store,
        now: WallTime,
        peer: PeerId,
        answer: Result<Answer, Unreachable>,
    ) -> Vec<Ask> {
        let tombstones = match answer {
            Ok(Answer::Listing(theirs)) => {
                let (lacked, claimed) = store.compare(&self.key, &theirs, PUSH_MAX);
                self.more |= lacked.len() >= PUSH_MAX;
                self.pushed += u64::try_from(lacked.len()).unwrap_or(u64::MAX);
                let fetch = |ids: &[Digest]| Op::Fetch(Fetch { key: self.key, ids: ids.to_vec(), dead_only: true });
                let proofs = claimed.chunks(1024).map(fetch);
                return lacked.into_iter().chain(proofs).map(|op| (peer, op)).collect();
            }
            Ok(Answer::Buried(tombstones) | Answer::Fetched { tombstones, .. }) => tombstones,
            Ok(Answer::Same | Answer::Stored | Answer::Missing) => Vec::new(),
            Ok(Answer::Refused(_) | Answer::Unsupported) | Err(Unreachable) => {
                self.clean = false;
                Vec::new()
            }
        };
        for tombstone in tombstones.iter().filter(|t| t.terms().key == self.key) {
            // No room for a tombstone: the entry stays, and the next comparison tries again.
            self.clean &= store.bury(now, tombstone).is_ok();
        }
        Vec::new()
    }
}
