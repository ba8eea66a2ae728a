//! How the swarm is put together: transports, behaviours and their bounds. It never runs it.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, connection_limits, identify, kad, noise, ping};
use libp2p::{tcp, yamux};

use super::dht_streams::Streams;
use super::swarm::{SwarmConfig, SwarmError, Wire};
use super::swarm_gate::{DialRule, Gate};
use crate::model::dht::K_CLOSEST;

/// Kademlia, only to find the closest peers.
const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/roost/kad/1");
/// What the peers of all versions agree on in identify.
const IDENTIFY_VERSION: &str = "/roost/1";
/// A connection is set up within this time, or not at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A look-up ends after this time with what it has.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(15);
/// A step of a look-up: a dead peer must not hold it up for long.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// Connections that died without a word are noticed by a ping, if no request met them before; one costs ten packets, and every
/// pair of peers has its own.
const PING_EVERY: Duration = Duration::from_secs(900);
/// Addresses change rarely, and a new connection tells them.
const IDENTIFY_EVERY: Duration = Duration::from_secs(3600);
/// The routing table is refreshed by look-ups; this is for a peer that makes none.
const BOOTSTRAP_EVERY: Duration = Duration::from_secs(3600);
/// Connections in all; beyond, new ones are refused.
const CONNECTIONS_MAX: u32 = 1024;
/// Connections being accepted.
const PENDING_MAX: u32 = 128;
/// Addresses of one peer that are kept; the newest.
pub(super) const ADDRS_MAX: usize = 8;
/// Both sides may dial at the same moment.
const PER_PEER_MAX: u32 = 4;

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// Over all peers; those that this one knows pass it.
    pub(super) limits: connection_limits::Behaviour,
    /// Of each peer; nobody passes it.
    per_peer: connection_limits::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) dht: Streams,
}

/// k as Kademlia takes it.
pub(super) const K: NonZeroUsize = match NonZeroUsize::new(K_CLOSEST) {
    Some(k) => k,
    None => NonZeroUsize::MIN,
};

fn transport(wire: Wire, keys: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SwarmError> {
    let noise = noise::Config::new(keys).map_err(|e| SwarmError::Keys { why: e.to_string() })?;
    let yamux = yamux::Config::default();
    Ok(match wire {
        Wire::Tcp => tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux)
            .timeout(CONNECT_WITHIN)
            .boxed(),
        Wire::Memory => MemoryTransport::default()
            .upgrade(Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux)
            .timeout(CONNECT_WITHIN)
            .boxed(),
    })
}

fn kademlia(me: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(LOOK_UP_WITHIN)
        .set_substreams_timeout(STEP_WITHIN)
        .set_periodic_bootstrap_interval(Some(BOOTSTRAP_EVERY))
        // Its record store is not used: records that others send are not kept, and nothing is re-published.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None);
    let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

/// Tells Kademlia where a peer is; the oldest of more than [`ADDRS_MAX`] addresses go, or a peer that names new ones with
/// each connection would fill the table.
pub(super) fn add_bounded(kad: &mut kad::Behaviour<MemoryStore>, peer: &PeerId, addr: Multiaddr) {
    kad.add_address(peer, addr);
    for old in addresses_of(kad, peer).into_iter().rev().skip(ADDRS_MAX) {
        kad.remove_address(peer, &old);
    }
}

/// Where Kademlia's table says that a peer is, oldest first.
fn addresses_of(kad: &mut kad::Behaviour<MemoryStore>, peer: &PeerId) -> Vec<Multiaddr> {
    let bucket = kad.kbucket(*peer);
    let entries = bucket.iter().flat_map(|bucket| bucket.iter());
    let found = entries.filter(|entry| entry.node.key.preimage() == peer);
    found.flat_map(|entry| entry.node.value.iter().cloned()).collect()
}

/// Who is in Kademlia's table.
pub(super) fn table_of(kad: &mut kad::Behaviour<MemoryStore>) -> Vec<PeerId> {
    let mut all = Vec::new();
    for bucket in kad.kbuckets() {
        all.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
    }
    all
}

fn behaviour(keys: &Keypair) -> Behaviour {
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX));
    let per_peer = connection_limits::ConnectionLimits::default().with_max_established_per_peer(Some(PER_PEER_MAX));
    let identify = identify::Config::new(IDENTIFY_VERSION.to_owned(), keys.public())
        .with_agent_version(concat!("roost/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_interval(IDENTIFY_EVERY);
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        per_peer: connection_limits::Behaviour::new(per_peer),
        kad: kademlia(keys.public().to_peer_id()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY)),
        dht: Streams::default(),
    }
}

/// Puts the swarm together; nothing listens or dials yet.
pub(super) fn build(config: &SwarmConfig, keys: &Keypair, rule: DialRule) -> Result<Swarm<Behaviour>, SwarmError> {
    let gate = Gate::new(transport(config.wire, keys)?, rule).boxed();
    let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(config.idle_timeout);
    Ok(Swarm::new(gate, behaviour(keys), keys.public().to_peer_id(), settings))
}

#[cfg(test)]
mod tests {
    use libp2p::kad::KBucketKey;

    use super::super::identity::to_libp2p;
    use crate::core::dht::Place;
    use crate::model::{Digest, PeerId};
    use crate::wire::PeerKey;

    fn peer(n: u8) -> PeerId {
        PeerKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn the_brain_measures_distances_as_kademlia_does() {
        let key = Digest::new([9; 32]);
        let theirs = KBucketKey::new(key.as_bytes().to_vec());
        let mut by_brain: Vec<PeerId> = (0..40).map(peer).collect();
        let mut by_kad = by_brain.clone();
        by_brain.sort_by_key(|peer| Place::of_key(&key).distance(&Place::of_peer(peer)));
        by_kad.sort_by_key(|peer| theirs.distance(&KBucketKey::from(to_libp2p(peer).unwrap())));
        assert_eq!(by_brain, by_kad);
    }

    #[test]
    fn a_peer_has_at_most_eight_addresses_the_newest() {
        let mut kad = super::kademlia(to_libp2p(&peer(1)).unwrap());
        let other = to_libp2p(&peer(2)).unwrap();
        for port in 1..=20 {
            super::add_bounded(&mut kad, &other, format!("/ip4/8.8.8.8/tcp/{port}").parse().unwrap());
        }
        let kept = super::addresses_of(&mut kad, &other);
        let expected: Vec<String> = (13..=20).map(|port| format!("/ip4/8.8.8.8/tcp/{port}/p2p/{other}")).collect();
        assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }
}
