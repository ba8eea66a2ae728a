//! The DHT alone: fifty peers with real swarms in one process, a thousand puts, gets and deletions while peers come and go.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use roost::actors::dht_client::{DhtPort, PortError, start};
use roost::actors::shell::{Append, EventLog};
use roost::clock::{Clock, system_wall};
use roost::core::dht::{Dht, DhtError};
use roost::model::dht::{DhtKey, value_hash};
use roost::model::group::PeerAddr;
use roost::model::{PeerId, Secret, WallTime};
use roost::net::swarm::{self, SwarmConfig};
use roost::wire::PeerKey;

const PEERS: usize = 50;
const ROUNDS: usize = 10;
/// Of each operation in a round: a thousand of each in all.
const OPS: usize = 100;
const KEYS: u64 = 250;
/// Requests of the test under way at the same time.
const AT_ONCE: usize = 24;
/// Peers that stop in each round; as many start.
const CHURN: usize = 3;
const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3600);

/// The DHT keeps nothing in the journal.
struct NoLog;
impl EventLog for NoLog {
    fn append(&self, _: &'static str, _: Vec<Vec<u8>>) -> Append {
        Box::pin(async { Ok(()) })
    }
}

/// SplitMix64.
struct Dice(u64);
impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below).unwrap()).unwrap()
    }
}

#[derive(Clone)]
struct Peer {
    id: PeerId,
    addr: PeerAddr,
    port: DhtPort,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    key: u64,
    text: String,
}

impl Value {
    fn password(&self) -> Secret {
        Secret::new(*blake3::hash(self.text.as_bytes()).as_bytes())
    }
    fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.text.as_bytes())
    }
}

fn key(n: u64) -> DhtKey {
    DhtKey::Ns(format!("reader{n}@acme").parse().unwrap())
}

struct World {
    dice: Dice,
    peers: Vec<Peer>,
    started: u16,
    /// What was put and not deleted, and when it expires.
    live: BTreeMap<Value, WallTime>,
    deleted: BTreeSet<Value>,
}

impl World {
    async fn start_peer(&mut self) {
        self.started += 1;
        let port = self.started;
        let mut seed = [42; 32];
        seed[..2].copy_from_slice(&port.to_be_bytes());
        let key = PeerKey::from_seed(&seed);
        let id = key.peer_id();
        let running = swarm::start(SwarmConfig::memory(port), &key).await.unwrap();
        let dht = start(Dht::new(key, port.into()), running, Arc::new(NoLog), Clock::system(), None);
        let entry: Vec<_> = (0..3.min(self.peers.len()))
            .map(|_| self.peers[self.dice.roll(self.peers.len())].clone())
            .map(|peer| (peer.id, vec![peer.addr]))
            .collect();
        dht.peers(entry).await.unwrap();
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: 0, libp2p: port };
        self.peers.push(Peer { id, addr, port: dht });
    }

    /// A peer that stays until the round is over: the last ones of the list are those that stop.
    fn stayer(&mut self) -> DhtPort {
        let stayers = self.peers.len() - CHURN;
        self.peers[self.dice.roll(stayers)].port.clone()
    }

    /// Moves those that are to stop in this round to the end.
    fn draw_victims(&mut self) {
        for n in 0..CHURN {
            let victim = self.dice.roll(self.peers.len() - n);
            let end = self.peers.len() - 1 - n;
            self.peers.swap(victim, end);
        }
    }
}

async fn at_once<T, F: Future<Output = T>>(tasks: impl IntoIterator<Item = F>) -> Vec<T> {
    futures::stream::iter(tasks).buffer_unordered(AT_ONCE).collect().await
}

/// Puts until it is done: a refusal or a failure may be over a moment later.
async fn put(port: DhtPort, value: Value, expiry: WallTime) {
    for _ in 0..5 {
        match port.put(key(value.key), value.bytes(), value.password(), expiry).await {
            Ok(done) => {
                assert!(done.stored * 2 > done.asked, "{done:?}");
                return;
            }
            // On a busy machine what expires soon has expired before it could be put.
            Err(_) if system_wall() >= expiry => return,
            Err(error) => eprintln!("once more: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    panic!("{value:?} could not be put");
}

async fn del(port: DhtPort, value: Value) {
    for _ in 0..5 {
        match port.del(key(value.key), value_hash(&value.bytes()), value.password()).await {
            Ok(_) => return,
            Err(error) => eprintln!("once more: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    panic!("{value:?} could not be deleted");
}

async fn del_with_a_wrong_password(port: DhtPort, value: Value) {
    let wrong = Secret::new([0; 32]);
    let refused = port.del(key(value.key), value_hash(&value.bytes()), wrong).await;
    assert_eq!(refused, Err(PortError::Dht(DhtError::WrongPassword)), "{value:?}");
}

/// Reads a key and compares: all that is live, nothing deleted, nothing expired.
async fn check(port: DhtPort, n: u64, live: BTreeMap<Value, WallTime>) -> usize {
    let before = system_wall();
    let read = port.get(key(n)).await.unwrap();
    let after = system_wall();
    assert!(read.complete, "{read:?}");
    let found = read.entries.iter().map(|e| String::from_utf8(e.value.to_vec()).unwrap());
    let found: BTreeSet<Value> = found.map(|text| Value { key: n, text }).collect();
    for (value, expiry) in &live {
        assert!(found.contains(value) || *expiry <= after, "{value:?} is live and was not read");
    }
    for value in &found {
        let expiry = live.get(value);
        assert!(expiry.is_some_and(|expiry| *expiry > before), "{value:?} was read: deleted, expired or never put");
    }
    found.len()
}

impl World {
    async fn puts(&mut self, round: usize) {
        let now = system_wall();
        let mut tasks = Vec::new();
        for n in 0..OPS {
            let key = u64::try_from(self.dice.roll(usize::try_from(KEYS).unwrap())).unwrap();
            let value = Value { key, text: format!("round {round} value {n}") };
            // Every tenth expires soon.
            let expiry = now + if n % 10 == 0 { SHORT } else { LONG };
            self.live.insert(value.clone(), expiry);
            tasks.push(put(self.stayer(), value, expiry));
        }
        at_once(tasks).await;
    }

    /// Half of the deletions have the right password.
    async fn dels(&mut self) {
        let soon = system_wall() + SHORT * 4;
        let mut lasting: Vec<Value> = self.live.iter().filter(|(_, t)| **t > soon).map(|(v, _)| v.clone()).collect();
        let mut right = Vec::new();
        for _ in 0..OPS / 2 {
            let value = lasting.swap_remove(self.dice.roll(lasting.len()));
            self.live.remove(&value);
            self.deleted.insert(value.clone());
            right.push(del(self.stayer(), value));
        }
        let mut wrong = Vec::new();
        for _ in 0..OPS / 2 {
            let value = lasting[self.dice.roll(lasting.len())].clone();
            wrong.push(del_with_a_wrong_password(self.stayer(), value));
        }
        tokio::join!(at_once(right), at_once(wrong));
    }

    async fn gets(&mut self, keys: impl Iterator<Item = u64>) -> usize {
        let mut tasks = Vec::new();
        for n in keys {
            let live = self.live.iter().filter(|(v, _)| v.key == n).map(|(v, t)| (v.clone(), *t)).collect();
            tasks.push(check(self.stayer(), n, live));
        }
        at_once(tasks).await.into_iter().sum()
    }

    /// Stops peers, abruptly, while the rest of the round goes on.
    fn stop_victims(&mut self) {
        for peer in self.peers.split_off(self.peers.len() - CHURN) {
            tokio::spawn(async move { peer.port.stop().await });
        }
    }
}

async fn settle(peers: &[Peer]) {
    for _ in 0..150 {
        let mut connected = Vec::new();
        for peer in peers {
            connected.push(peer.port.observe().await.unwrap().peers);
        }
        if connected.iter().all(|n| *n >= 10) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the peers did not find each other");
}

async fn story(seed: u64) {
    let mut world =
        World { dice: Dice(seed), peers: vec![], started: 0, live: BTreeMap::new(), deleted: BTreeSet::new() };
    for _ in 0..PEERS {
        world.start_peer().await;
    }
    settle(&world.peers).await;
    let started = tokio::time::Instant::now();
    let mut values_read = 0;
    for round in 0..ROUNDS {
        world.draw_victims();
        world.puts(round).await;
        // Half way through, peers go and others come; what follows meets both.
        world.draw_victims();
        world.stop_victims();
        for _ in 0..CHURN {
            world.start_peer().await;
        }
        world.draw_victims();
        world.dels().await;
        let keys: Vec<u64> =
            (0..OPS).map(|_| u64::try_from(world.dice.roll(usize::try_from(KEYS).unwrap())).unwrap()).collect();
        values_read += world.gets(keys.into_iter()).await;
        eprintln!("round {round}: {:.1?}", started.elapsed());
    }
    // What expires soon expires on time, and every key is right at the end.
    let last = world.live.values().filter(|t| **t <= system_wall() + SHORT).max();
    if let Some(last) = last {
        tokio::time::sleep(last.since(system_wall())).await;
    }
    let now = system_wall();
    world.live.retain(|_, expiry| *expiry > now);
    values_read += world.gets(0..KEYS).await;
    assert_eq!(world.live.len(), ROUNDS * OPS - ROUNDS * OPS / 10 - ROUNDS * OPS / 2);
    assert_eq!(world.deleted.len(), ROUNDS * OPS / 2);
    eprintln!(
        "{} puts, {} deletions, half of them with a wrong password and refused, {} gets, {values_read} values read; \
         {} peers stopped and as many started: {:.1?}",
        ROUNDS * OPS,
        ROUNDS * OPS,
        ROUNDS * OPS + usize::try_from(KEYS).unwrap(),
        ROUNDS * CHURN,
        started.elapsed()
    );
    for (n, peer) in world.peers.iter().enumerate() {
        if n % 10 == 0 {
            eprintln!("{:?}", peer.port.observe().await.unwrap());
        }
        peer.port.stop().await;
    }
}

#[test]
fn fifty_peers_a_thousand_puts_gets_and_dels_while_peers_come_and_go() {
    let seed = std::env::var("ROOST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| system_wall().0);
    eprintln!("ROOST_TEST_SEED={seed}, libp2p's memory transport with Noise and Yamux");
    // The actors share one thread; the swarms' tasks use the others.
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    });
    system.block_on(story(seed));
}
