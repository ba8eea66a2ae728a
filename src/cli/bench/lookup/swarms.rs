//! Many real peers of the DHT in this one process: the product's swarms and brains, over memory instead of TCP. It says nothing of
//! what is looked up or put.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::model::Net;
use crate::actors::dht_client::{DhtPort, start};
use crate::actors::shell::{Append, EventLog};
use crate::cli::progress::Progress;
use crate::clock::Clock;
use crate::core::dht::Dht;
use crate::core::jitter::Jitter;
use crate::model::PeerId;
use crate::model::group::PeerAddr;
use crate::net::swarm::{self, SwarmConfig};
use crate::wire::PeerKey;

/// Peers that a new one is told of.
const ENTRIES: usize = 3;
/// Between two starts: a peer that starts asks some dozens of others.
const PACE: Duration = Duration::from_millis(20);
/// Peers that start before it is waited until they have met others: more at once would wait for this machine, and give up.
const WAVE: u32 = 25;
/// Between two looks whether tables still grow; longer than Kademlia waits before it fills one.
const LOOK: Duration = Duration::from_millis(700);
/// The last look comes after a longer time.
const LAST_LOOK: Duration = Duration::from_millis(2000);
/// So long at most.
const SETTLE_WITHIN: Duration = Duration::from_secs(180);
/// The next memory port. Each is used once in this process.
static PORT: AtomicU16 = AtomicU16::new(20_000);

/// The DHT keeps nothing in the journal.
struct NoLog;
impl EventLog for NoLog {
    fn append(&self, _: &'static str, _: Vec<Vec<u8>>) -> Append {
        Box::pin(async { Ok(()) })
    }
}

/// One peer.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    addr: PeerAddr,
    pub(super) port: DhtPort,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Swarms {
    pub(super) peers: Vec<Peer>,
    seed: u64,
    started: u64,
    draws: Jitter,
}

impl Swarms {
    /// Starts `count` peers, each of which is told of a few that started before, and waits until their tables do not grow any more.
    pub(super) async fn start(count: u32, seed: u64, progress: &Progress) -> anyhow::Result<Self> {
        let mut swarms = Self { peers: Vec::new(), seed, started: 0, draws: Jitter::new(seed) };
        for n in 0..count {
            swarms.start_one().await?;
            progress.at(&format!("{count} peers: {} started", n + 1), None);
            tokio::time::sleep(PACE).await;
            if (n + 1) % WAVE == 0 {
                swarms.settle(LOOK).await?;
            }
        }
        progress.at(&format!("{count} peers: they get to know each other"), None);
        swarms.settle(LAST_LOOK).await?;
        Ok(swarms)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        usize::try_from(self.draws.below(limit)).unwrap_or_default()
    }

    /// Starts one more.
    pub(super) async fn start_one(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let mut seed = [0x5e; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&self.started.to_be_bytes());
        let key = PeerKey::from_seed(&seed);
        let id = key.peer_id();
        let libp2p = PORT.fetch_add(1, Ordering::Relaxed);
        ensure!(libp2p >= 20_000, "this process has no memory port left; start the bench anew");
        let running = swarm::start(SwarmConfig::memory(libp2p), &key).await.context("a swarm does not start")?;
        let port = start(Dht::new(key, self.started), running, Arc::new(NoLog), Clock::system(), None);
        let known = ENTRIES.min(self.peers.len());
        let entries: Vec<usize> = (0..known).map(|_| self.below(self.peers.len())).collect();
        let entries = entries.into_iter().filter_map(|n| self.peers.get(n));
        port.peers(entries.map(|peer| (peer.id, vec![peer.addr.clone()])).collect()).await?;
        self.peers.push(Peer { id, addr: PeerAddr { host: "memory".to_owned(), https: 0, libp2p }, port });
        Ok(())
    }

    /// Waits until no table grows and none is being filled.
    async fn settle(&self, look: Duration) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + SETTLE_WITHIN;
        let mut last = (0, 0);
        loop {
            tokio::time::sleep(look).await;
            let mut now = (0, 0);
            let mut alone = 0;
            for peer in &self.peers {
                let status = peer.port.observe_swarm().await?;
                alone += u32::from(status.table.is_empty());
                now = (now.0 + status.table.len(), now.1 + status.refresh_requests);
            }
            if now == last && (alone == 0 || self.peers.len() == 1) {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < until,
                "{alone} of {} peers know nobody, and the others still meet, after {} s: this machine is too slow for so many",
                self.peers.len(),
                SETTLE_WITHIN.as_secs()
            );
            last = now;
        }
    }

    /// Who is there, and whom each has in its table, as the model takes it.
    pub(super) async fn net(&self) -> anyhow::Result<Net> {
        let mut tables = Vec::with_capacity(self.peers.len());
        for peer in &self.peers {
            tables.push(peer.port.observe_swarm().await?.table);
        }
        let ids: Vec<PeerId> = self.peers.iter().map(|peer| peer.id).collect();
        Ok(Net::real(&ids, &tables))
    }

    /// Stops all.
    pub(super) async fn stop(self) {
        for peer in self.peers {
            peer.port.stop().await;
        }
    }
}
