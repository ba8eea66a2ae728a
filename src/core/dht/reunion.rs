//! Known peers that this one is not connected with: one of them at a time is asked something now and then, so that a DHT that was
//! cut in two becomes one again. It never decides where anything is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Dht;
use crate::model::{Digest, MonoTime, PeerId};
use crate::wire::dht::{List, Op};

/// How often one is asked. Any one of the other side is enough: it knows the rest. A peer that is off costs two attempts a
/// minute, whoever else is off.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// The run that nobody waits for: what is answered does not matter, but that it is.
const NO_RUN: (u64, u32) = (0, 0);

/// Who is asked when.
#[derive(Debug, Default)]
pub(super) struct Reunion {
    /// Known peers that could not be reached and have not been heard of since.
    failed: BTreeSet<PeerId>,
    /// The one that was asked last: the next one is in turn.
    last: Option<PeerId>,
    at: Option<MonoTime>,
}

impl Reunion {
    /// Somebody may be missing.
    pub(super) fn arm(&mut self, now: MonoTime) {
        self.at.get_or_insert(now + ASK_EVERY);
    }
    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        self.at
    }
}

impl Dht {
    /// Notes that a peer could not be reached; gives whether that is new.
    pub(super) fn is_missed(&mut self, peer: PeerId) -> bool {
        self.reunion.arm(self.now.mono);
        !self.store.knows(&peer) || self.reunion.failed.insert(peer)
    }

    /// A peer that could not be reached asks or answers again: its connection may never have ended.
    pub(super) fn heard_of(&mut self, peer: PeerId) {
        if self.reunion.failed.contains(&peer) {
            self.is_up(peer);
        }
    }

    /// A peer is connected.
    pub(super) fn is_up(&mut self, peer: PeerId) {
        self.reunion.failed.remove(&peer);
        self.ring.up(peer);
        self.carrier.newcomer(self.now.mono, peer);
    }

    /// Asks the next one that is missing, when it is time.
    pub(super) fn reunite(&mut self) {
        let now = self.now.mono;
        if self.reunion.at.is_none_or(|at| at > now) {
            return;
        }
        self.reunion.at = None;
        self.reunion.failed.retain(|peer| self.store.knows(peer));
        // In a small network everybody is connected with everybody; in a large one nobody is with most.
        let is_missing = |peer: &&PeerId| {
            **peer != self.ring.me()
                && !self.ring.is_connected(peer)
                && (self.ring.is_small() || self.reunion.failed.contains(peer))
        };
        let last = self.reunion.last;
        let missing = || self.store.known().filter(is_missing);
        let next = missing().find(|peer| Some(**peer) > last).or_else(|| missing().next()).copied();
        let Some(peer) = next else { return };
        (self.reunion.last, self.reunion.at) = (Some(peer), Some(now + ASK_EVERY));
        let key = Digest::new(*peer.as_bytes());
        let op = Op::List(List { key, values: false, have: Vec::new(), unless: None });
        self.courier.ask(now, peer, NO_RUN, op);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::dht::Input;
    use crate::core::dht::sim::{HOUR, Net, ns};

    /// So many peers, each of which knows all.
    fn acquainted(peers: usize) -> Net {
        let mut net = Net::new(peers);
        let all: BTreeSet<PeerId> = net.order.iter().copied().collect();
        for peer in net.order.clone() {
            net.tell(peer, Input::Known(all.clone()));
        }
        net
    }

    #[test]
    fn r12_a_dht_that_was_cut_in_two_is_one_again_within_a_minute_although_no_connection_was_seen_to_end() {
        let mut net = acquainted(6);
        let (east, west) = (net.order[0], net.order[5]);
        net.put(east, &ns(1), "before", 1, HOUR).unwrap();
        net.cut(3);
        net.put(east, &ns(1), "in the east", 1, HOUR).unwrap();
        net.put(west, &ns(1), "in the west", 1, HOUR).unwrap();
        net.pass(Duration::from_secs(180));
        assert_eq!(net.get(west, &ns(1)), ["before", "in the west"]);
        net.heal();
        net.pass(Duration::from_secs(60));
        for peer in [east, west] {
            assert_eq!(net.get(peer, &ns(1)), ["before", "in the east", "in the west"]);
            assert_eq!(net.status(peer).peers, 5);
        }
    }

    #[test]
    fn r12_a_known_peer_that_stays_away_costs_two_requests_a_minute_and_nobody_missing_costs_none() {
        let mut net = acquainted(5);
        let (here, away) = (net.order[0], net.order[4]);
        net.put(here, &ns(1), "x", 1, HOUR).unwrap();
        net.kill(away);
        net.get(here, &ns(1));
        net.pass(Duration::from_secs(60));
        let asked_in = |net: &mut Net| {
            let before = net.status(here).requests;
            net.pass(Duration::from_secs(600));
            net.status(here).requests - before
        };
        let asked = asked_in(&mut net);
        assert!((15..=25).contains(&asked), "{asked}");
        assert_eq!(asked_in(&mut acquainted(5)), 0);
    }
}
