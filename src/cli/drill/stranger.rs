//! A stranger with a swarm of its own, who fills the DHT with junk and puts old entries back. It speaks the real protocol, knows no
//! secret, and reads no peer's files but where that is and who it is.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::actors::identity::Identity;
use crate::clock::system_wall;
use crate::config::Config;
use crate::model::dht::DhtKey;
use crate::model::group::PeerAddr;
use crate::model::{PeerId, Secret};
use crate::net::swarm::{self, Command, Running, SwarmConfig, SwarmEvent};
use crate::store::home::Home;
use crate::wire::PeerKey;
use crate::wire::dht::{Answer, Entry, List, Op, Request};

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// How long junk says that it is good for.
const VALID: Duration = Duration::from_secs(3600);

/// Where somebody is.
pub(super) type Place = (PeerId, PeerAddr);

/// Somebody whom nobody knows.
pub(super) struct Stranger {
    runtime: Runtime,
    swarm: Running,
    key: PeerKey,
    asked: u64,
}

/// What became of what was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Put {
    /// Kept.
    pub(super) stored: usize,
    /// Refused, each with a reason.
    pub(super) refused: usize,
    /// Without any answer.
    pub(super) unanswered: usize,
}

impl Put {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            stored: self.stored + other.stored,
            refused: self.refused + other.refused,
            unanswered: self.unanswered + other.unanswered,
        }
    }
}

/// Where the peer on a home of this machine is.
pub(super) fn place_of(home: &Home) -> anyhow::Result<Place> {
    let net = Config::load(&home.config_file())?.net;
    let host = net.announce.first().cloned().unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
    Ok((Identity::load(home)?.peer_id(), PeerAddr { host, https: net.https_port, libp2p: net.libp2p_port }))
}

fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("the operating system gives no randomness: {e}"))?;
    Ok(seed)
}

impl Stranger {
    /// A new one, with a key of its own.
    pub(super) fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let key = PeerKey::from_seed(&seed()?);
        let swarm = runtime.block_on(swarm::start(SwarmConfig::tcp(Ipv4Addr::LOCALHOST.into(), 0, true), &key))?;
        Ok(Self { runtime, swarm, key, asked: 0 })
    }

    /// Asks one peer; nothing when it gives no answer.
    fn ask(&mut self, (peer, addr): &Place, ops: Vec<Op>) -> anyhow::Result<Option<Vec<Answer>>> {
        self.asked += 1;
        let (id, peer, addr) = (self.asked, *peer, addr.clone());
        let (commands, events) = (&self.swarm.commands, &mut self.swarm.events);
        self.runtime.block_on(async {
            commands.send(Command::Peers(vec![(peer, vec![addr])])).await.context("the swarm has ended")?;
            commands.send(Command::Send { id, peer, request: Request { ops } }).await.context("the swarm has ended")?;
            let answered = async {
                loop {
                    match events.recv().await {
                        Some(SwarmEvent::Answered { id: of, response }) if of == id => return response,
                        Some(_) => {}
                        None => return None,
                    }
                }
            };
            let answer = tokio::time::timeout(ANSWER, answered).await.ok().flatten();
            Ok(answer.map(|response| response.answers))
        })
    }

    /// Puts one junk entry of `length` bytes under each of these keys, at one peer.
    pub(super) fn junk(&mut self, to: &Place, keys: &[DhtKey], length: usize) -> anyhow::Result<Put> {
        let expiry = system_wall() + VALID;
        let mut entries = Vec::new();
        for key in keys {
            let mut value = vec![0; length];
            blake3::Hasher::new().update(&seed()?).finalize_xof().fill(&mut value);
            let password = Secret::new(seed()?);
            entries.push(Entry::publish(&self.key, key.hash(), Bytes::from(value), &password, expiry));
        }
        self.put(to, entries)
    }

    /// Puts entries, whoever published them, at one peer.
    pub(super) fn put(&mut self, to: &Place, entries: Vec<Entry>) -> anyhow::Result<Put> {
        let count = entries.len();
        let Some(answers) = self.ask(to, entries.into_iter().map(Op::Put).collect())? else {
            return Ok(Put { unanswered: count, ..Put::default() });
        };
        let stored = answers.iter().filter(|answer| matches!(answer, Answer::Stored)).count();
        Ok(Put { stored, refused: count.saturating_sub(stored), unanswered: 0 })
    }

    /// Everything that one peer keeps under a key.
    pub(super) fn take(&mut self, of: &Place, key: &DhtKey) -> anyhow::Result<Vec<Entry>> {
        let list = List { key: key.hash(), values: true, have: Vec::new(), unless: None };
        let answers = self.ask(of, vec![Op::List(list)])?.unwrap_or_default();
        let listed = answers.into_iter().filter_map(|answer| match answer {
            Answer::Listing(listing) => Some(listing.entries),
            _ => None,
        });
        Ok(listed.flatten().collect())
    }
}
