//! The look-up as a model: peers that are only places and routing tables, and the walk of libp2p's Kademlia over them, message by
//! message; answers overtake each other, as in a network. It opens no connection; the tables are drawn, or real swarms' own.

use std::collections::BTreeMap;

use crate::core::dht::Place;
use crate::core::jitter::Jitter;
use crate::model::dht::K_CLOSEST;
use crate::model::{Digest, PeerId};

/// α of Kademlia, as libp2p has it: questions under way while a look-up comes closer.
const ALPHA: usize = 3;
/// Kademlia's k, as libp2p has it: peers in one answer, in one bucket, and to begin a look-up with.
const BUCKET: usize = 20;

/// How long an answer takes: drawn between these, so the slowest takes twice as long as the fastest.
const ANSWERS_WITHIN: [u64; 2] = [1_000, 2_000];

/// A peer's place, seen from one fixed point: distances between two are the same as between the peers.
type Coord = [u8; 32];

/// Peers and whom each has in its routing table, by their numbers.
#[derive(Debug, Clone)]
pub(super) struct Net {
    coords: Vec<Coord>,
    tables: Vec<Vec<usize>>,
}

/// What a look-up of the model found, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walked {
    /// Peers that were asked.
    pub(super) asked: u32,
    /// Peers that were asked one after the other, each named by the one before, until the closest was: 1 when that was in the
    /// own table.
    pub(super) hops: u32,
    /// The closest peers, nearest first.
    pub(super) found: Vec<usize>,
}

fn xor(a: &Coord, b: &Coord) -> Coord {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// Whether the bit is set, counted from the highest.
fn bit(coord: &Coord, at: usize) -> bool {
    coord.get(at / 8).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
}

/// From where all places are seen; any would do.
fn origin() -> Place {
    Place::of_key(&Digest::new([0; 32]))
}

/// The `count` smallest, in order.
fn smallest(mut all: Vec<(Coord, usize)>, count: usize) -> Vec<usize> {
    if all.len() > count {
        all.select_nth_unstable(count);
        all.truncate(count);
    }
    all.sort_unstable();
    all.into_iter().map(|(_, peer)| peer).collect()
}

impl Net {
    /// Peers with the tables that they have.
    pub(super) fn real(peers: &[PeerId], tables: &[Vec<PeerId>]) -> Self {
        let number: BTreeMap<PeerId, usize> = peers.iter().enumerate().map(|(i, peer)| (*peer, i)).collect();
        // Who has left since is not among them.
        let of = |table: &Vec<PeerId>| table.iter().filter_map(|peer| number.get(peer).copied()).collect();
        Self { coords: coords(peers.iter()), tables: tables.iter().map(of).collect() }
    }

    /// `count` peers at random places, each of which knows up to [`BUCKET`] of the peers in every bucket, drawn from those there
    /// are: what peers come to know once they have met many.
    pub(super) fn drawn(count: usize, draws: &mut Jitter) -> Self {
        let byte = |draws: &mut Jitter| u8::try_from(draws.below(256)).unwrap_or_default();
        let ids: Vec<PeerId> = (0..count).map(|_| PeerId::new(std::array::from_fn(|_| byte(draws)))).collect();
        let mut coords = coords(ids.iter());
        coords.sort_unstable();
        let tables = (0..count).map(|me| drawn_table(&coords, me, draws)).collect();
        Self { coords, tables }
    }

    /// How many peers there are.
    pub(super) fn len(&self) -> usize {
        self.coords.len()
    }

    /// How many peers a table has, the mean of all.
    pub(super) fn mean_table(&self) -> f64 {
        let mean = |sizes: &mut dyn Iterator<Item = usize>| {
            let all: usize = sizes.sum();
            u32::try_from(all).map_or(0.0, f64::from) / u32::try_from(self.len().max(1)).map_or(1.0, f64::from)
        };
        mean(&mut self.tables.iter().map(Vec::len))
    }

    /// The peers that are really the closest to `key`, but `from`.
    pub(super) fn closest_of_all(&self, key: &Digest, from: usize) -> Vec<usize> {
        let target = coord_of(key);
        let others = self.coords.iter().enumerate().filter(|(peer, _)| *peer != from);
        smallest(others.map(|(peer, coord)| (xor(coord, &target), peer)).collect(), K_CLOSEST)
    }

    /// What `peer` answers to `from`.
    fn answer(&self, peer: usize, target: &Coord, from: usize) -> Vec<usize> {
        let known = self.tables[peer].iter().filter(|known| **known != from);
        smallest(known.map(|known| (xor(&self.coords[*known], target), *known)).collect(), BUCKET)
    }

    /// Looks up the closest peers to `key`, as `from` does.
    pub(super) fn look_up(&self, from: usize, key: &Digest, draws: &mut Jitter) -> Walked {
        let target = coord_of(key);
        let mut walk = Walk { seen: BTreeMap::new(), waiting: 0, fruitless: 0, stalled: false };
        for peer in self.answer(from, &target, from) {
            walk.seen.insert(xor(&self.coords[peer], &target), Seen { peer, state: State::NotAsked, depth: 1 });
        }
        let (mut asked, mut now) = (0, 0);
        // By when they come, and what was asked first.
        let mut answers = BTreeMap::new();
        loop {
            match walk.next() {
                Next::Ask(distance) => {
                    asked += 1;
                    let [fastest, slowest] = ANSWERS_WITHIN;
                    answers.insert((now + fastest + draws.below(slowest - fastest), asked), distance);
                }
                Next::Wait => {
                    let Some(((at, _), distance)) = answers.pop_first() else { break };
                    now = at;
                    let Some(peer) = walk.seen.get(&distance).map(|seen| seen.peer) else { break };
                    let answer = self.answer(peer, &target, from);
                    let closer = answer.into_iter().filter(|peer| *peer != from);
                    walk.answered(distance, closer.map(|peer| (xor(&self.coords[peer], &target), peer)));
                }
                Next::Done => break,
            }
        }
        let done: Vec<&Seen> =
            walk.seen.values().filter(|seen| seen.state == State::Answered).take(K_CLOSEST).collect();
        let hops = done.first().map_or(0, |seen| seen.depth);
        Walked { asked, hops, found: done.into_iter().map(|seen| seen.peer).collect() }
    }
}

fn coords<'a>(peers: impl Iterator<Item = &'a PeerId>) -> Vec<Coord> {
    let origin = origin();
    peers.map(|peer| origin.distance(&Place::of_peer(peer))).collect()
}

fn coord_of(key: &Digest) -> Coord {
    origin().distance(&Place::of_key(key))
}

/// Up to [`BUCKET`] peers of each bucket of `me`. Those that share the first bits with it lie side by side in order.
fn drawn_table(coords: &[Coord], me: usize, draws: &mut Jitter) -> Vec<usize> {
    let Some(mine) = coords.get(me) else { return Vec::new() };
    let (mut low, mut high) = (0, coords.len());
    let mut table = Vec::new();
    for at in 0..256 {
        if high - low <= 1 {
            break;
        }
        let ones = low + coords[low..high].partition_point(|coord| !bit(coord, at));
        let (bucket, rest) = if bit(mine, at) { (low..ones, ones..high) } else { (ones..high, low..ones) };
        table.extend(some_of(bucket, draws));
        (low, high) = (rest.start, rest.end);
    }
    table
}

/// [`BUCKET`] of these numbers, or all of them.
fn some_of(all: std::ops::Range<usize>, draws: &mut Jitter) -> Vec<usize> {
    let mut numbers: Vec<usize> = Vec::new();
    if all.len() <= BUCKET {
        return all.collect();
    }
    while numbers.len() < BUCKET {
        let below = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let drawn = all.start + usize::try_from(draws.below(below)).unwrap_or_default();
        if !numbers.contains(&drawn) {
            numbers.push(drawn);
        }
    }
    numbers
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotAsked,
    Waiting,
    Answered,
}

/// A peer that the look-up has heard of.
#[derive(Debug)]
struct Seen {
    peer: usize,
    state: State,
    /// How many were asked one after the other to be told of it, and itself.
    depth: u32,
}

enum Next {
    /// The peer at this distance.
    Ask(Coord),
    /// For an answer.
    Wait,
    Done,
}

/// The state of a look-up: libp2p's `ClosestPeersIter`, without peers that fail.
#[derive(Debug)]
struct Walk {
    /// By the distance to the target.
    seen: BTreeMap<Coord, Seen>,
    waiting: usize,
    /// Answers in a row that named nobody closer.
    fruitless: usize,
    /// So many of them that all of the closest are asked at once.
    stalled: bool,
}

impl Walk {
    fn next(&mut self) -> Next {
        let room = if self.stalled { K_CLOSEST.max(ALPHA) } else { ALPHA };
        let is_full = self.waiting >= room;
        let mut answered = Some(0);
        for (distance, seen) in &mut self.seen {
            match seen.state {
                State::Waiting | State::NotAsked if is_full => return Next::Wait,
                State::Waiting => answered = None,
                State::NotAsked => {
                    seen.state = State::Waiting;
                    self.waiting += 1;
                    return Next::Ask(*distance);
                }
                State::Answered => {
                    answered = answered.map(|count| count + 1);
                    if answered >= Some(K_CLOSEST) {
                        return Next::Done;
                    }
                }
            }
        }
        if self.waiting > 0 { Next::Wait } else { Next::Done }
    }

    fn answered(&mut self, distance: Coord, closer: impl Iterator<Item = (Coord, usize)>) {
        let Some(seen) = self.seen.get_mut(&distance) else { return };
        seen.state = State::Answered;
        let depth = seen.depth + 1;
        self.waiting -= 1;
        let reach = self.seen.keys().take(K_CLOSEST).next_back().copied().unwrap_or(distance);
        let mut progress = self.seen.len() < K_CLOSEST;
        for (distance, peer) in closer {
            self.seen.entry(distance).or_insert_with(|| {
                progress |= distance < reach;
                Seen { peer, state: State::NotAsked, depth }
            });
        }
        self.fruitless = if progress { 0 } else { self.fruitless + 1 };
        self.stalled = if self.stalled { !progress } else { self.fruitless >= ALPHA };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Digest {
        Digest::new([n; 32])
    }

    #[test]
    fn everybody_knows_everybody_in_a_small_net_so_one_hop_is_enough() {
        let mut draws = Jitter::new(1);
        let net = Net::drawn(15, &mut draws);
        assert_eq!(net.mean_table(), 14.0);
        for n in 0..50 {
            let walked = net.look_up(usize::from(n % 15), &key(n), &mut draws);
            assert_eq!(walked.found, net.closest_of_all(&key(n), usize::from(n % 15)));
            // Nobody is asked twice, and all of the eight that are found.
            assert!((8..=14).contains(&walked.asked) && walked.hops == 1, "{walked:?}");
        }
    }

    #[test]
    fn a_drawn_table_has_every_near_peer_and_twenty_of_each_far_bucket() {
        let net = Net::drawn(2000, &mut Jitter::new(2));
        for (me, table) in net.tables.iter().enumerate().take(50) {
            assert!(!table.contains(&me));
            let mut in_bucket = [0_usize; 256];
            let mut there_are = [0_usize; 256];
            let bucket = |other: usize| {
                let distance = xor(&net.coords[me], &net.coords[other]);
                (0..256).find(|at| bit(&distance, *at)).unwrap()
            };
            table.iter().for_each(|other| in_bucket[bucket(*other)] += 1);
            (0..net.len()).filter(|other| *other != me).for_each(|other| there_are[bucket(other)] += 1);
            for (known, all) in in_bucket.iter().zip(there_are) {
                assert_eq!(*known, all.min(BUCKET));
            }
        }
    }

    #[test]
    fn a_look_up_finds_the_closest_and_asks_few() {
        let mut draws = Jitter::new(3);
        let net = Net::drawn(3000, &mut draws);
        for n in 0..100 {
            let from = usize::from(n) * 7;
            let walked = net.look_up(from, &key(n), &mut draws);
            assert_eq!(walked.found, net.closest_of_all(&key(n), from));
            assert!(walked.asked >= 8 && walked.asked < 40, "{walked:?}");
            assert!(walked.hops >= 1 && walked.hops <= 5, "{walked:?}");
        }
    }

    #[test]
    fn a_chain_of_peers_is_walked_hop_by_hop() {
        let ids: Vec<PeerId> = (0..6).map(|n| PeerId::new([n; 32])).collect();
        // Each knows the next one only, and the last one nobody.
        let next: Vec<Vec<PeerId>> = (1..=6).map(|n| ids.get(n).copied().into_iter().collect()).collect();
        let net = Net::real(&ids, &next);
        for n in 0..20 {
            let walked = net.look_up(0, &key(n), &mut Jitter::new(1));
            assert_eq!(walked.found, net.closest_of_all(&key(n), 0), "all five are asked, one after the other");
            let nearest = walked.found.first().copied().unwrap();
            assert_eq!((walked.asked, walked.hops), (5, u32::try_from(nearest).unwrap()));
        }
    }

    #[test]
    fn a_table_that_names_who_has_left_is_no_harm() {
        let ids: Vec<PeerId> = (0..3).map(|n| PeerId::new([n; 32])).collect();
        let gone = PeerId::new([9; 32]);
        let net = Net::real(&ids, &[vec![ids[1], gone], vec![ids[2], ids[0]], vec![gone]]);
        assert_eq!(net.look_up(0, &key(1), &mut Jitter::new(1)).found.len(), 2);
    }
}
