//! Puts, reads and deletions while peers leave and join: real peers in this process, and every value that is read compared with
//! what must be there. It decides nothing of where entries are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use tokio::time::Instant;

use super::look_ups::Figures;
use super::swarms::{Peer, Swarms};
use crate::actors::dht_client::PortError;
use crate::cli::progress::Progress;
use crate::clock::system_wall;
use crate::core::dht::GetDone;
use crate::model::dht::{DhtKey, value_hash};
use crate::model::{PeerId, Secret};

/// Keys that are used; few enough that most have values soon.
const KEYS: usize = 200;
/// Between two operations: not as fast as this machine can, or it is the machine that is measured.
const PACE: Duration = Duration::from_millis(20);
/// Operations under way; at this bound they come as others end.
const AT_ONCE: usize = 32;
/// How long each value is to live: longer than any run.
const VALIDITY: Duration = Duration::from_secs(86_400);
/// Between the end of churn and the last look at every key.
const REST: Duration = Duration::from_secs(10);

/// What operations came to while peers left and joined.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Churn {
    /// Peers there were at any moment.
    pub(super) peers: u32,
    /// Peers that left in a minute, and as many that came.
    pub(super) leave_a_minute: u32,
    /// For how long.
    pub(super) seconds: f64,
    /// Peers that left, without a word; as many came.
    pub(super) left: u32,
    /// How long a peer stays, in the mean; nothing when none leaves.
    pub(super) mean_stay_s: Option<f64>,
    /// Values that were put.
    pub(super) puts: u32,
    /// Puts that were refused or not answered.
    pub(super) puts_failed: u32,
    /// Reads of a key.
    pub(super) gets: u32,
    /// Of those, reads that failed; and, where nobody leaves, those that lack something while not all who were asked answered. A busy
    /// machine makes them, and what they lack is not known to be missing.
    pub(super) unanswered: u32,
    /// Reads that brought every value that must be there.
    pub(super) gets_whole: u32,
    /// Values that had to be read, by reads that were answered.
    pub(super) values_due: u32,
    /// Of those, how many were.
    pub(super) values_read: u32,
    /// Values that were read although they were deleted, or never put.
    pub(super) values_wrong: u32,
    /// Deletions.
    pub(super) dels: u32,
    /// Deletions that were refused or not answered.
    pub(super) dels_failed: u32,
    /// The share of keys that are read whole by a peer, some seconds after the last one left, of those whose read was answered; 0 when
    /// none was.
    pub(super) whole_at_rest: f64,
    /// Of those reads, how many were unanswered.
    pub(super) unanswered_at_rest: u32,
    /// Peers that look-ups asked, for each operation; what holders do by themselves is in it.
    pub(super) look_up_messages: f64,
    /// Requests with operations on entries, for each operation; what holders hand over is in it.
    pub(super) entry_messages: f64,
    /// Peers asked to fill routing tables, for each peer that came.
    pub(super) join_messages: f64,
    /// Milliseconds of a put, a read and a deletion, on this machine and its memory.
    pub(super) put_ms: Figures,
    pub(super) get_ms: Figures,
    pub(super) del_ms: Figures,
}

/// A read, held against what must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Compared {
    /// How many values were due and how many of those were read; nothing of a read that was not answered.
    answer: Option<(u32, u32)>,
    /// How many were read that must not be.
    wrong: u32,
}

/// What lies under one key.
#[derive(Debug)]
struct Shelf {
    key: DhtKey,
    /// Put, and not deleted.
    live: BTreeSet<String>,
    /// A put or a deletion of it failed, so it may be there or not.
    unsure: BTreeSet<String>,
    /// An operation on it is under way.
    locked: bool,
}

enum What {
    Put(String),
    Get,
    Del(String),
}

enum Came {
    Put(String, bool),
    Got(Result<GetDone, PortError>),
    Del(String, bool),
}

struct Ended {
    caller: PeerId,
    shelf: usize,
    ms: f64,
    came: Came,
}

type Operations = FuturesUnordered<Pin<Box<dyn Future<Output = Ended>>>>;

/// What all peers have sent, those that left among them.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    look_ups: u64,
    entries: u64,
    joins: u64,
}

impl Sent {
    fn and(self, other: Self) -> Self {
        Self {
            look_ups: self.look_ups + other.look_ups,
            entries: self.entries + other.entries,
            joins: self.joins + other.joins,
        }
    }
}

struct World<'a> {
    swarms: &'a mut Swarms,
    shelves: Vec<Shelf>,
    busy: BTreeMap<PeerId, u32>,
    /// Of peers that left.
    sent: Sent,
    values: u32,
    told: Churn,
    ms: [Vec<f64>; 3],
}

/// Runs operations for `span` while `leave_a_minute` peers leave and join.
pub(super) async fn run(
    swarms: &mut Swarms,
    leave_a_minute: u32,
    span: Duration,
    progress: &Progress,
) -> anyhow::Result<Churn> {
    let peers = u32::try_from(swarms.peers.len()).unwrap_or(u32::MAX);
    let mean_stay_s = (leave_a_minute > 0).then(|| f64::from(peers) * 60.0 / f64::from(leave_a_minute));
    let told = Churn { peers, leave_a_minute, mean_stay_s, ..Churn::default() };
    let shelves = (0..KEYS).map(Shelf::new).collect::<anyhow::Result<_>>()?;
    let (busy, sent, ms) = (BTreeMap::new(), Sent::default(), Default::default());
    let mut world = World { swarms, shelves, busy, sent, values: 0, told, ms };
    let before = world.sent_by_all().await?;
    world.play(leave_a_minute, span, progress).await?;
    let after = world.sent_by_all().await?;
    world.told.whole_at_rest = world.at_rest().await?;
    Ok(world.ended(before, after))
}

impl World<'_> {
    async fn play(&mut self, leave_a_minute: u32, span: Duration, progress: &Progress) -> anyhow::Result<()> {
        let began = Instant::now();
        let pause = Duration::from_secs(60).checked_div(leave_a_minute).unwrap_or(Duration::from_secs(86_400));
        let mut leave = tokio::time::interval_at(began + pause, pause);
        let mut next = tokio::time::interval(PACE);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut operations = Operations::new();
        while began.elapsed() < span {
            tokio::select! {
                Some(ended) = operations.next() => self.ended_one(ended),
                _ = leave.tick() => self.replace_one().await?,
                _ = next.tick(), if operations.len() < AT_ONCE => {
                    if let Some(operation) = self.begin() {
                        operations.push(operation);
                    }
                }
            }
            let part = began.elapsed().as_secs_f64() / span.as_secs_f64().max(0.001);
            progress.at(&format!("{} peers, {leave_a_minute} leave a minute", self.told.peers), percent(part));
        }
        while let Some(ended) = operations.next().await {
            self.ended_one(ended);
        }
        self.told.seconds = began.elapsed().as_secs_f64();
        Ok(())
    }

    /// One peer that waits for nothing leaves without a word, and another one comes.
    async fn replace_one(&mut self) -> anyhow::Result<()> {
        let idle = |peer: &Peer| self.busy.get(&peer.id).is_none_or(|count| *count == 0);
        let idle: Vec<usize> = (0..self.swarms.peers.len()).filter(|n| idle(&self.swarms.peers[*n])).collect();
        let Some(gone) = idle.get(self.swarms.below(idle.len())) else { return Ok(()) };
        let peer = self.swarms.peers.swap_remove(*gone);
        self.sent = self.sent.and(sent_by(&peer).await?);
        tokio::spawn(async move { peer.port.stop().await });
        self.told.left += 1;
        self.swarms.start_one().await
    }

    /// The next operation: half are reads, a third are puts, the rest deletions of what is there.
    fn begin(&mut self) -> Option<Pin<Box<dyn Future<Output = Ended>>>> {
        let (key, drawn, caller) = (self.swarms.below(KEYS), self.swarms.below(100), self.swarms.below(usize::MAX));
        let caller = self.swarms.peers.get(caller % self.swarms.peers.len())?.clone();
        let shelf = self.shelves.get_mut(key).filter(|shelf| !shelf.locked)?;
        let what = match (drawn, shelf.live.first()) {
            (0..50, _) => What::Get,
            (50..65, Some(text)) => What::Del(text.clone()),
            _ => {
                self.values += 1;
                What::Put(format!("value {}", self.values))
            }
        };
        shelf.locked = true;
        *self.busy.entry(caller.id).or_default() += 1;
        Some(Box::pin(operation(caller, key, shelf.key.clone(), what)))
    }

    fn ended_one(&mut self, Ended { caller, shelf, ms, came }: Ended) {
        if let Some(count) = self.busy.get_mut(&caller) {
            *count -= 1;
        }
        let Some(shelf) = self.shelves.get_mut(shelf) else { return };
        shelf.locked = false;
        let told = &mut self.told;
        match came {
            Came::Put(text, done) => {
                told.puts += 1;
                told.puts_failed += u32::from(!done);
                self.ms[0].push(ms);
                if done { &mut shelf.live } else { &mut shelf.unsure }.insert(text);
            }
            Came::Got(read) => {
                self.ms[1].push(ms);
                told.gets += 1;
                let compared = shelf.compare(&read, told.leave_a_minute == 0);
                told.values_wrong += compared.wrong;
                match compared.answer {
                    None => told.unanswered += 1,
                    Some((due, found)) => {
                        told.gets_whole += u32::from(found == due);
                        (told.values_due, told.values_read) = (told.values_due + due, told.values_read + found);
                    }
                }
            }
            Came::Del(text, done) => {
                told.dels += 1;
                told.dels_failed += u32::from(!done);
                self.ms[2].push(ms);
                shelf.live.remove(&text);
                if !done {
                    shelf.unsure.insert(text);
                }
            }
        }
    }

    async fn sent_by_all(&self) -> anyhow::Result<Sent> {
        let mut all = self.sent;
        for peer in &self.swarms.peers {
            all = all.and(sent_by(peer).await?);
        }
        Ok(all)
    }

    /// The share of keys that a peer reads whole once nobody leaves any more.
    async fn at_rest(&mut self) -> anyhow::Result<f64> {
        tokio::time::sleep(REST).await;
        let callers: Vec<Peer> = (0..KEYS)
            .filter_map(|_| {
                let n = self.swarms.below(self.swarms.peers.len());
                self.swarms.peers.get(n).cloned()
            })
            .collect();
        let is_still = self.told.leave_a_minute == 0;
        let reads = self.shelves.iter().zip(callers).map(|(shelf, caller)| async move {
            let read = caller.port.get(shelf.key.clone()).await;
            shelf.compare(&read, is_still)
        });
        let reads: Vec<Compared> = futures::stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
        self.told.values_wrong += reads.iter().map(|read| read.wrong).sum::<u32>();
        let answers: Vec<(u32, u32)> = reads.iter().filter_map(|read| read.answer).collect();
        self.told.unanswered_at_rest = u32::try_from(reads.len() - answers.len())?;
        let whole = answers.iter().filter(|(due, found)| due == found).count();
        Ok(f64::from(u32::try_from(whole)?) / f64::from(u32::try_from(answers.len().max(1))?))
    }

    fn ended(mut self, before: Sent, after: Sent) -> Churn {
        let [put, get, del] = self.ms;
        let figures = |all: Vec<f64>| Figures::of(all.into_iter());
        (self.told.put_ms, self.told.get_ms, self.told.del_ms) = (figures(put), figures(get), figures(del));
        let each = |now: u64, then: u64, of: u32| {
            let count = u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
            if of == 0 { 0.0 } else { f64::from(count) / f64::from(of) }
        };
        let operations = self.told.puts + self.told.gets + self.told.dels;
        self.told.look_up_messages = each(after.look_ups, before.look_ups, operations);
        self.told.entry_messages = each(after.entries, before.entries, operations);
        self.told.join_messages = each(after.joins, before.joins, self.told.left);
        self.told
    }
}

impl Shelf {
    fn new(n: usize) -> anyhow::Result<Self> {
        let key = DhtKey::Ns(format!("reader{n}@bench").parse()?);
        Ok(Self { key, live: BTreeSet::new(), unsure: BTreeSet::new(), locked: false })
    }

    /// Where nobody leaves, `is_still`, who does not answer is only busy, and may have what a read lacks. Where peers leave, that is what
    /// is measured.
    fn compare(&self, read: &Result<GetDone, PortError>, is_still: bool) -> Compared {
        let entries = read.as_ref().map(|done| done.entries.as_slice()).unwrap_or_default();
        let found: BTreeSet<String> = entries.iter().map(|e| String::from_utf8_lossy(&e.value).into_owned()).collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let wrong = found.iter().filter(|text| !self.live.contains(*text) && !self.unsure.contains(*text));
        let wrong = count(wrong.count());
        let (due, found) = (count(self.live.len()), count(self.live.intersection(&found).count()));
        let all_answered = |done: &GetDone| done.complete && done.answered == done.asked;
        let is_answered = read.as_ref().is_ok_and(|done| !is_still || found == due || all_answered(done));
        Compared { answer: is_answered.then_some((due, found)), wrong }
    }
}

async fn sent_by(peer: &Peer) -> anyhow::Result<Sent> {
    let (swarm, brain) = (peer.port.observe_swarm().await?, peer.port.observe().await?);
    Ok(Sent { look_ups: swarm.look_up_requests, entries: brain.requests, joins: swarm.refresh_requests })
}

async fn operation(caller: Peer, shelf: usize, key: DhtKey, what: What) -> Ended {
    let began = Instant::now();
    let came = match what {
        What::Put(text) => {
            let (value, expiry) = (Bytes::from(text.clone()), system_wall() + VALIDITY);
            let done = caller.port.put(key, value, password(&text), expiry).await;
            Came::Put(text, done.is_ok())
        }
        What::Get => Came::Got(caller.port.get(key).await),
        What::Del(text) => {
            let done = caller.port.del(key, value_hash(text.as_bytes()), password(&text)).await;
            Came::Del(text, done.is_ok())
        }
    };
    Ended { caller: caller.id, shelf, ms: began.elapsed().as_secs_f64() * 1000.0, came }
}

fn password(text: &str) -> Secret {
    Secret::new(*blake3::hash(text.as_bytes()).as_bytes())
}

fn percent(part: f64) -> Option<u8> {
    (0..=100_u8).rev().find(|percent| f64::from(*percent) <= part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::dht::{DhtError, Found};
    use crate::model::{Digest, WallTime};

    #[test]
    fn a_read_is_whole_when_all_that_must_be_there_is() {
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<String>>();
        let shelf = Shelf { live: set(&["a", "b"]), unsure: set(&["u"]), ..Shelf::new(0).unwrap() };
        let read_of = |texts: &[&str], answered: usize| {
            let found = |text: &&str| Found {
                id: Digest::new([0; 32]),
                publisher: PeerId::new([0; 32]),
                value: Bytes::copy_from_slice(text.as_bytes()),
                expiry: WallTime(1),
            };
            let (gone, kept) = (Vec::new(), Vec::new());
            let entries = texts.iter().map(found).collect();
            Ok(GetDone { entries, gone, kept, asked: 8, answered, complete: true })
        };
        let compared = |read| {
            let Compared { answer, wrong } = shelf.compare(&read, true);
            (answer, wrong)
        };
        assert_eq!(compared(read_of(&["a", "b", "u"], 8)), (Some((2, 2)), 0));
        assert_eq!(compared(read_of(&["b", "deleted"], 8)), (Some((2, 1)), 1));
        // One who was too busy to answer may be the one who has it; what must not be there is wrong all the same.
        assert_eq!(compared(read_of(&["b", "deleted"], 7)), (None, 1));
        assert_eq!(compared(read_of(&["a", "b"], 7)), (Some((2, 2)), 0));
        assert_eq!(shelf.compare(&read_of(&["b"], 7), false).answer, Some((2, 1)), "who left had it, it may be");
        assert_eq!(compared(Err(DhtError::Unreachable { asked: 8 }.into())), (None, 0));
    }

    #[test]
    fn values_are_read_whole_while_peers_leave_and_join() {
        super::super::system().unwrap().block_on(async {
            let progress = Progress::start("");
            let mut swarms = Swarms::start(20, 7, &progress).await.unwrap();
            let told = run(&mut swarms, 60, Duration::from_secs(5), &progress).await.unwrap();
            assert!(told.left >= 2 && told.puts > 0 && told.gets > 0, "{told:?}");
            assert_eq!((told.values_wrong, swarms.peers.len()), (0, 20), "{told:?}");
            // Eight of twenty have each value, so a few that left are no loss.
            assert!(told.whole_at_rest > 0.95, "{told:?}");
            assert!(told.entry_messages > 0.5 && told.join_messages > 5.0, "{told:?}");
            swarms.stop().await;
        });
    }
}
