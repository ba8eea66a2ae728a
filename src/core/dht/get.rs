//! What a read asks of the closest peers and makes of their answers: values from one, ids from the others, then what is
//! missing, and the proof of every deletion that somebody claims. It believes nothing that does not verify.

use std::collections::{BTreeMap, BTreeSet};

use super::courier::Unreachable;
use super::job::{Ask, Next, Round};
use super::{DhtError, Found, GetDone, Reply};
use crate::model::{Digest, PeerId, WallTime};
use crate::wire::dht::{Answer, Entry, EntryTombstone, Fetch, IDS_MAX, List, Listing, Op, short_id};

/// Most ids of one fetch.
const FETCH_IDS: usize = 512;
/// Most bytes of values that one read brings.
const READ_BYTES_MAX: usize = 64 << 20;

/// Of the other peers, how many a watch asks.
const WATCHED: usize = 2;
/// Every so many watches all are asked, whatever those few say.
const WATCHES_MAX: usize = 10;

/// What a key held when it was last read completely.
#[derive(Debug, Clone, Default)]
pub(super) struct LastRead {
    /// What was live.
    ids: BTreeSet<Digest>,
    /// What each peer called its listing; none when it had nothing.
    prints: BTreeMap<PeerId, Option<Digest>>,
    /// How often the key was watched since.
    watches: usize,
}

impl LastRead {
    /// Notes a watch. Whether it may do with a few peers, and which turn it is.
    pub(super) fn watch(&mut self) -> Option<usize> {
        self.watches += 1;
        Some(self.watches).filter(|watches| *watches < WATCHES_MAX)
    }
}

/// Reads a key.
#[derive(Debug)]
pub(super) struct GetJob {
    key: Digest,
    have: BTreeSet<Digest>,
    last: LastRead,
    /// Only a few peers are asked, by turns, and what they say is as it was at the last read.
    watch: Option<usize>,
    /// Who is asked when it is not.
    unwatched: Vec<Ask>,
    prints: BTreeMap<PeerId, Option<Digest>>,
    /// Who said that nothing changed, so that its tombstones are not in `dead`.
    unchanged: BTreeSet<PeerId>,
    /// How many deletions were proven when those were last asked; none when they were not.
    checked_at: Option<usize>,
    /// Who says that an entry is live.
    live: BTreeMap<Digest, BTreeSet<PeerId>>,
    /// Until when, as they say.
    until: BTreeMap<Digest, WallTime>,
    /// Who says that it is deleted.
    dead: BTreeMap<u64, BTreeSet<PeerId>>,
    asked: BTreeMap<PeerId, Vec<Digest>>,
    values: BTreeMap<Digest, Entry>,
    bytes: usize,
    proofs: BTreeMap<Digest, EntryTombstone>,
    answered: usize,
    replied: bool,
}

impl GetJob {
    /// Reads what is not in `have`. `last` is what the last complete read left; with `watch` (a turn) it is enough that a few
    /// peers still say the same.
    pub(super) fn new(key: Digest, have: BTreeSet<Digest>, last: Option<&LastRead>, watch: Option<usize>) -> Self {
        // Only for one who has exactly what was read then, "the same" says all.
        let last = last.filter(|last| last.ids == have).cloned().unwrap_or_default();
        Self {
            key,
            have,
            last,
            watch,
            unwatched: Vec::new(),
            prints: BTreeMap::new(),
            unchanged: BTreeSet::new(),
            checked_at: None,
            live: BTreeMap::new(),
            until: BTreeMap::new(),
            dead: BTreeMap::new(),
            asked: BTreeMap::new(),
            values: BTreeMap::new(),
            bytes: 0,
            proofs: BTreeMap::new(),
            answered: 0,
            replied: false,
        }
    }

    pub(super) fn open(&mut self, me: PeerId, targets: &[PeerId]) -> Vec<Ask> {
        self.answered = 0;
        // Values from this peer itself cost nothing; else from the nearest.
        let from = if targets.contains(&me) { Some(me) } else { targets.first().copied() };
        let list = |peer: &PeerId| {
            let values = from == Some(*peer);
            let have = if values { self.have.iter().take(IDS_MAX).copied().collect() } else { Vec::new() };
            let unless = self.last.prints.get(peer).copied().flatten();
            (*peer, Op::List(List { key: self.key, values, have, unless }))
        };
        let asks: Vec<Ask> = targets.iter().map(list).collect();
        // Who was not there at the last read may know what nobody else does.
        let turn = self.watch.take().filter(|_| targets.iter().all(|peer| self.last.prints.contains_key(peer)));
        let (mine, mut others): (Vec<Ask>, Vec<Ask>) = asks.into_iter().partition(|(peer, _)| *peer == me);
        if let Some(turn) = turn.filter(|_| others.len() > WATCHED) {
            self.watch = Some(turn);
            let first = turn * WATCHED % others.len();
            others.rotate_left(first);
            self.unwatched = others.split_off(WATCHED);
        }
        mine.into_iter().chain(others).collect()
    }

    /// A peer said what its listing is now: a watch goes on only while nothing changes.
    fn watched(&mut self, peer: &PeerId, print: Option<Digest>) {
        if self.last.prints.get(peer) != Some(&print) {
            self.watch = None;
        }
    }

    pub(super) fn take(&mut self, now: WallTime, peer: PeerId, answer: Result<Answer, Unreachable>) {
        let asked = self.asked.remove(&peer);
        match answer {
            Ok(Answer::Listing(listing)) => self.take_listing(now, peer, listing),
            Ok(Answer::Same) => {
                self.answered += 1;
                self.unchanged.insert(peer);
                self.prints.extend(self.last.prints.get(&peer).map(|print| (peer, *print)));
            }
            Ok(Answer::Fetched { entries, tombstones }) => {
                let asked = asked.unwrap_or_default();
                let known = |job: &Self| job.values.len() + job.proofs.len();
                let before = known(self);
                self.take_values(now, entries);
                for tombstone in tombstones.into_iter().filter(|t| t.terms().key == self.key) {
                    let id = tombstone.terms().id();
                    if self.live.contains_key(&id) || self.values.contains_key(&id) || self.have.contains(&id) {
                        self.proofs.insert(id, tombstone);
                    }
                }
                if known(self) == before {
                    self.disbelieve(peer, &asked);
                }
            }
            Ok(_) | Err(Unreachable) => {
                self.watch = None;
                self.disbelieve(peer, &asked.unwrap_or_default());
            }
        }
    }

    fn take_listing(&mut self, now: WallTime, peer: PeerId, listing: Listing) {
        self.answered += 1;
        self.watched(&peer, listing.print);
        self.prints.insert(peer, listing.print);
        // Bounded for each peer by itself: one that lists what nobody has hides nothing of the others'.
        for (id, expiry) in listing.live.into_iter().filter(|(_, expiry)| *expiry > now).take(IDS_MAX) {
            self.live.entry(id).or_default().insert(peer);
            let until = self.until.entry(id).or_insert(expiry);
            *until = expiry.max(*until);
        }
        for short in listing.dead.into_iter().take(IDS_MAX) {
            self.dead.entry(short).or_default().insert(peer);
        }
        self.take_values(now, listing.entries);
    }

    fn take_values(&mut self, now: WallTime, entries: Vec<Entry>) {
        for entry in entries {
            let id = entry.terms().id();
            let wanted = entry.terms().key == self.key && entry.terms().expiry > now && !self.have.contains(&id);
            let fits = self.bytes + entry.value().len() <= READ_BYTES_MAX;
            if wanted && fits && !self.values.contains_key(&id) {
                self.bytes += entry.value().len();
                self.values.insert(id, entry);
            }
        }
    }

    /// A peer did not hand over what it said it has.
    fn disbelieve(&mut self, peer: PeerId, ids: &[Digest]) {
        for id in ids {
            if let Some(claim) = self.live.get_mut(id) {
                claim.remove(&peer);
            }
            if let Some(claim) = self.dead.get_mut(&short_id(id)) {
                claim.remove(&peer);
            }
        }
    }

    /// What is still worth asking for, spread over those who say they have it.
    fn wanted(&self) -> BTreeMap<PeerId, Vec<Digest>> {
        let mut plan: BTreeMap<PeerId, Vec<Digest>> = BTreeMap::new();
        let all: BTreeSet<&Digest> = self.live.keys().chain(self.values.keys()).chain(&self.have).collect();
        for id in all.into_iter().filter(|id| !self.proofs.contains_key(*id)) {
            let missing = !self.values.contains_key(id) && !self.have.contains(id) && self.bytes < READ_BYTES_MAX;
            let claims = self.dead.get(&short_id(id)).filter(|claims| !claims.is_empty());
            let claims = claims.or_else(|| self.live.get(id).filter(|_| missing));
            let load = |peer: &&PeerId| plan.get(*peer).map_or(0, Vec::len);
            if let Some(peer) = claims.into_iter().flatten().min_by_key(load).copied() {
                let ids = plan.entry(peer).or_default();
                if ids.len() < FETCH_IDS {
                    ids.push(*id);
                }
            }
        }
        plan
    }

    pub(super) fn close(&mut self, round: Round) -> (Option<Reply>, Next) {
        // Who did not answer in this round is not waited for again.
        for (peer, ids) in std::mem::take(&mut self.asked) {
            self.disbelieve(peer, &ids);
        }
        if self.replied {
            return (None, Next::Done);
        }
        if let Some(reply) = self.end_watch(round) {
            return (Some(reply), Next::Done);
        }
        if !self.unwatched.is_empty() {
            return (None, Next::More(std::mem::take(&mut self.unwatched)));
        }
        if self.answered * 2 <= round.targets && round.may_retry {
            return (None, Next::Again);
        }
        if self.answered == 0 {
            return (Some(Reply::Get(Err(DhtError::Unreachable { asked: round.targets }))), Next::Done);
        }
        let check = self.check();
        if !check.is_empty() {
            return (None, Next::More(check));
        }
        self.asked = self.wanted();
        if !self.asked.is_empty() {
            let fetch = |(peer, ids): (&PeerId, &Vec<Digest>)| (*peer, self.fetch(ids.clone(), false));
            return (None, Next::More(self.asked.iter().map(fetch).collect()));
        }
        self.replied = true;
        let repairs = self.repairs();
        let next = if repairs.is_empty() { Next::Done } else { Next::More(repairs) };
        (Some(Reply::Get(Ok(self.outcome(round)))), next)
    }

    /// The answer of a watch in which all who were asked said that nothing changed.
    fn end_watch(&self, round: Round) -> Option<Reply> {
        let asked = round.targets - self.unwatched.len();
        self.watch.filter(|_| self.answered == asked).map(|_| {
            let (entries, gone, kept) = (Vec::new(), Vec::new(), self.have.iter().copied().collect());
            Reply::Get(Ok(GetDone { entries, gone, kept, asked, answered: asked, complete: true }))
        })
    }

    fn fetch(&self, ids: Vec<Digest>, dead_only: bool) -> Op {
        Op::Fetch(Fetch { key: self.key, ids, dead_only })
    }

    /// Asks those with nothing new whether what somebody else lists as live is deleted at theirs: their old tombstones
    /// count as much as anybody's new listing (R7). Repeated as long as that proves deletions.
    fn check(&mut self) -> Vec<Ask> {
        let doubtful = self.live.keys().filter(|id| !self.have.contains(id) && !self.proofs.contains_key(*id));
        let doubtful: Vec<Digest> = doubtful.copied().collect();
        if doubtful.is_empty() || self.checked_at == Some(self.proofs.len()) {
            return Vec::new();
        }
        self.checked_at = Some(self.proofs.len());
        // No request names more ids than are read.
        let asks = |ids: &[Digest]| {
            let op = self.fetch(ids.to_vec(), true);
            self.unchanged.iter().map(move |peer| (*peer, op.clone())).collect::<Vec<_>>()
        };
        doubtful.chunks(IDS_MAX).flat_map(asks).collect()
    }

    /// Proven deletions, for those who still keep the entry.
    fn repairs(&self) -> Vec<Ask> {
        let stale = |(id, proof): (&Digest, &EntryTombstone)| {
            let op = Op::Bury(proof.clone());
            self.live.get(id).into_iter().flatten().map(move |peer| (*peer, op.clone())).collect::<Vec<_>>()
        };
        self.proofs.iter().flat_map(stale).take(1024).collect()
    }

    fn outcome(&self, round: Round) -> GetDone {
        let live = self.values.iter().filter(|(id, _)| !self.proofs.contains_key(*id));
        let entries = live.filter(|(_, entry)| entry.terms().expiry > round.now).map(|(id, entry)| Found {
            id: *id,
            publisher: entry.terms().publisher,
            value: entry.value().clone(),
            expiry: entry.terms().expiry,
        });
        GetDone {
            entries: entries.collect(),
            gone: self.have.iter().filter(|id| self.proofs.contains_key(*id)).copied().collect(),
            kept: self.have.iter().filter(|id| self.is_kept(id)).copied().collect(),
            asked: round.targets,
            answered: self.answered,
            complete: self.missing(round.now) == 0,
        }
    }

    /// Whether somebody lists this entry as live, or says that nothing changed since the last read.
    fn is_kept(&self, id: &Digest) -> bool {
        let is_claimed = self.live.get(id).is_some_and(|claims| !claims.is_empty()) || !self.unchanged.is_empty();
        is_claimed && !self.proofs.contains_key(id)
    }

    /// How many listed entries could not be had, but for those that expired meanwhile.
    fn missing(&self, now: WallTime) -> usize {
        let known =
            |id: &Digest| self.values.contains_key(id) || self.have.contains(id) || self.proofs.contains_key(id);
        self.until.iter().filter(|(id, until)| **until > now && !known(id)).count()
    }

    /// What the next read may build on, after a complete one.
    pub(super) fn last_read(&self) -> Option<(Digest, LastRead)> {
        if !self.replied || self.missing(WallTime(0)) > 0 {
            return None;
        }
        let ids = self.values.keys().chain(&self.have).filter(|id| !self.proofs.contains_key(*id));
        Some((self.key, LastRead { ids: ids.copied().collect(), prints: self.prints.clone(), watches: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize) -> Digest {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&u64::try_from(n).unwrap().to_be_bytes());
        Digest::new(bytes)
    }

    fn listing(live: impl Iterator<Item = Digest>) -> Answer {
        let live = live.map(|id| (id, WallTime(100))).collect();
        Answer::Listing(Listing { print: None, live, dead: Vec::new(), entries: Vec::new() })
    }

    #[test]
    fn a_peer_that_lists_what_nobody_has_hides_nothing_of_the_others() {
        let (hostile, honest, idle) = (PeerId::new([1; 32]), PeerId::new([2; 32]), PeerId::new([3; 32]));
        let mut job = GetJob::new(Digest::new([9; 32]), BTreeSet::new(), None, None);
        job.open(idle, &[hostile, honest, idle]);
        job.take(WallTime(1), idle, Ok(Answer::Same));
        job.take(WallTime(1), hostile, Ok(listing((0..2 * IDS_MAX).map(numbered))));
        let true_one = Digest::new([0xff; 32]);
        job.take(WallTime(1), honest, Ok(listing([true_one].into_iter())));
        let round = Round { now: WallTime(1), targets: 3, may_retry: true };
        let (_, Next::More(checks)) = job.close(round) else { panic!("what is new is checked with the idle") };
        let ids = |ask: &Ask| match &ask.1 {
            Op::Fetch(fetch) if ask.0 == idle && fetch.dead_only => fetch.ids.clone(),
            other => panic!("{other:?}"),
        };
        let asked: Vec<Vec<Digest>> = checks.iter().map(ids).collect();
        assert!(asked.iter().all(|ids| ids.len() <= IDS_MAX), "or the other side does not read it");
        assert_eq!(asked.concat().len(), IDS_MAX + 1);
        let (_, Next::More(fetches)) = job.close(round) else { panic!("then it is fetched") };
        let wanted = |ask: &Ask| matches!(&ask.1, Op::Fetch(fetch) if fetch.ids == [true_one]);
        assert!(fetches.iter().any(|ask| ask.0 == honest && wanted(ask)));
    }

    #[test]
    fn a_watch_comes_round_to_every_peer_and_asks_the_rest_when_one_says_something_else() {
        let peers: Vec<PeerId> = (0..8).map(|n| PeerId::new([n; 32])).collect();
        let (me, round) = (peers[0], Round { now: WallTime(1), targets: 8, may_retry: true });
        let prints = peers.iter().map(|peer| (*peer, None)).collect();
        let last = LastRead { ids: BTreeSet::new(), prints, watches: 0 };
        let mut asked = BTreeSet::new();
        for turn in 1..5 {
            let mut job = GetJob::new(Digest::new([9; 32]), BTreeSet::new(), Some(&last), Some(turn));
            let asks: Vec<PeerId> = job.open(me, &peers).into_iter().map(|(peer, _)| peer).collect();
            assert_eq!((asks.len(), asks[0]), (3, me));
            for peer in &asks {
                job.take(WallTime(1), *peer, Ok(listing([].into_iter())));
            }
            assert!(matches!(job.close(round), (Some(Reply::Get(Ok(_))), Next::Done)));
            asked.extend(asks);
        }
        assert_eq!(asked.len(), 8, "each has its turn");
        let changed = Listing { print: Some(Digest::new([1; 32])), ..Listing::default() };
        for other in [Ok(Answer::Listing(changed)), Err(Unreachable), Ok(Answer::Unsupported)] {
            let mut job = GetJob::new(Digest::new([9; 32]), BTreeSet::new(), Some(&last), Some(1));
            let asks = job.open(me, &peers);
            job.take(WallTime(1), asks[0].0, Ok(listing([].into_iter())));
            job.take(WallTime(1), asks[1].0, Ok(listing([].into_iter())));
            job.take(WallTime(1), asks[2].0, other);
            let (None, Next::More(rest)) = job.close(round) else { panic!("the rest is asked") };
            assert_eq!(rest.len(), 5);
        }
        // One that was not there at the last read may know what nobody else does.
        let mut job = GetJob::new(Digest::new([9; 32]), BTreeSet::new(), Some(&last), Some(1));
        let newcomer: Vec<PeerId> = peers[1..].iter().copied().chain([PeerId::new([9; 32])]).collect();
        assert_eq!(job.open(me, &newcomer).len(), 8);
    }
}
