//! Distances in Kademlia's space, who is connected, and which peers were found closest to a key. It never asks the network.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::model::dht::K_CLOSEST;
use crate::model::{Digest, MonoTime, PeerId};

/// How long a look-up's result is used. Failures and newcomers end it earlier; a look-up costs about a hundred packets, so an
/// idle peer makes few.
const FOUND_FOR: Duration = Duration::from_secs(2400);
/// Most look-up results kept.
const FOUND_MAX: usize = 4096;

/// A place in Kademlia's space: SHA-256 of what is placed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place([u8; 32]);

impl Place {
    /// Where a peer is.
    pub fn of_peer(peer: &PeerId) -> Self {
        Self(Sha256::digest(peer.to_multihash()).into())
    }
    /// Where the key with this hash is.
    pub fn of_key(key: &Digest) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
    /// How far apart two places are (XOR).
    pub fn distance(&self, other: &Place) -> [u8; 32] {
        let mut distance = self.0;
        distance.iter_mut().zip(other.0).for_each(|(a, b)| *a ^= b);
        distance
    }
}

#[derive(Debug, Clone)]
struct Found {
    peers: Vec<PeerId>,
    until: MonoTime,
}

/// What this peer knows of where others are.
#[derive(Debug)]
pub(super) struct Ring {
    me: PeerId,
    my_place: Place,
    connected: BTreeMap<PeerId, Place>,
    found: BTreeMap<Digest, Found>,
    /// All other peers, when the last look-up found fewer than k: then they are the closest to every key.
    everybody: Option<Found>,
}

impl Ring {
    pub(super) fn new(me: PeerId) -> Self {
        Self { me, my_place: Place::of_peer(&me), connected: BTreeMap::new(), found: BTreeMap::new(), everybody: None }
    }

    /// The k closest live peers, nearest first, this one among them where it belongs; none when a look-up is due.
    pub(super) fn targets(&self, now: MonoTime, key: &Digest) -> Option<Vec<PeerId>> {
        let everybody = self.everybody.as_ref().filter(|found| found.until > now);
        let found = everybody.or_else(|| self.found.get(key).filter(|found| found.until > now))?;
        Some(self.closest(key, &found.peers))
    }

    /// The k closest of `peers`, those connected, and this one.
    pub(super) fn closest(&self, key: &Digest, peers: &[PeerId]) -> Vec<PeerId> {
        let key = Place::of_key(key);
        let mut by_distance: BTreeMap<[u8; 32], PeerId> = BTreeMap::new();
        by_distance.insert(key.distance(&self.my_place), self.me);
        by_distance.extend(self.connected.iter().map(|(peer, place)| (key.distance(place), *peer)));
        by_distance.extend(peers.iter().map(|peer| (key.distance(&Place::of_peer(peer)), *peer)));
        by_distance.into_values().take(K_CLOSEST).collect()
    }

    /// Whether the last look-up found so few peers that they are all there are.
    pub(super) fn is_small(&self) -> bool {
        self.everybody.is_some()
    }

    /// Learns the result of a look-up.
    pub(super) fn found(&mut self, now: MonoTime, key: Digest, peers: Vec<PeerId>) {
        let found = Found { peers, until: now + FOUND_FOR };
        if found.peers.len() < K_CLOSEST {
            self.everybody = Some(found);
            return;
        }
        self.everybody = None;
        if self.found.len() >= FOUND_MAX {
            self.found.retain(|_, found| found.until > now);
        }
        if self.found.len() >= FOUND_MAX {
            self.found.pop_first();
        }
        self.found.insert(key, found);
    }

    /// A look-up is due for this key.
    pub(super) fn forget(&mut self, key: &Digest) {
        self.found.remove(key);
        if let Some(everybody) = &mut self.everybody {
            everybody.until = MonoTime(0);
        }
    }

    /// A peer is connected: results in whose range it lies are out of date.
    pub(super) fn up(&mut self, peer: PeerId) {
        let place = Place::of_peer(&peer);
        self.connected.insert(peer, place);
        let in_range = |key: &Digest, found: &Found| {
            let key = Place::of_key(key);
            let reach = found.peers.iter().map(|p| key.distance(&Place::of_peer(p))).max();
            !found.peers.contains(&peer) && reach.is_none_or(|reach| key.distance(&place) < reach)
        };
        self.found.retain(|key, found| !in_range(key, found));
        if let Some(everybody) = self.everybody.as_mut().filter(|found| !found.peers.contains(&peer)) {
            everybody.until = MonoTime(0);
        }
    }

    /// A connection ended; that alone says nothing about the peer.
    pub(super) fn down(&mut self, peer: &PeerId) {
        self.connected.remove(peer);
    }

    /// A peer could not be reached: results that name it are out of date.
    pub(super) fn failed(&mut self, peer: &PeerId) {
        self.connected.remove(peer);
        self.found.retain(|_, found| !found.peers.contains(peer));
        if let Some(everybody) = self.everybody.as_mut().filter(|found| found.peers.contains(peer)) {
            everybody.until = MonoTime(0);
        }
    }

    /// Which of `keys` a peer should keep, as far as the connected peers tell.
    pub(super) fn range_of<'a>(&self, peer: &PeerId, keys: impl Iterator<Item = &'a Digest>) -> Vec<Digest> {
        let place = Place::of_peer(peer);
        let others = || self.connected.iter().filter(|(p, _)| *p != peer).map(|(_, place)| place);
        let in_range = |key: &&Digest| {
            let key = Place::of_key(key);
            let reach = key.distance(&place);
            others().chain([&self.my_place]).filter(|p| key.distance(p) < reach).take(K_CLOSEST).count() < K_CLOSEST
        };
        keys.filter(in_range).copied().collect()
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = &PeerId> {
        self.connected.keys()
    }
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.connected.contains_key(peer)
    }
    pub(super) fn me(&self) -> PeerId {
        self.me
    }
}
