//! What single peers keep of the DHT, asked by a stranger with a swarm of its own. It puts nothing and keeps nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use roost::config::Config;
use roost::model::WallTime;
use roost::model::dht::DhtKey;
use roost::model::group::PeerAddr;
use roost::net::swarm::{self, Command, Running, SwarmConfig, SwarmEvent};
use roost::wire::PeerKey;
use roost::wire::dht::{Answer, List, Op, Request};
use tokio::runtime::Runtime;

use super::Team;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// Somebody who asks single peers.
pub(crate) struct DhtLook {
    runtime: Runtime,
    swarm: Running,
    asked: u64,
}

impl DhtLook {
    /// A stranger to all.
    pub(crate) fn new() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = SwarmConfig::tcp(Ipv4Addr::LOCALHOST.into(), 0, true);
        let swarm = runtime.block_on(swarm::start(config, &PeerKey::from_seed(&seed))).unwrap();
        Self { runtime, swarm, asked: 0 }
    }

    /// When each entry under `key` expires that the running peer of `name` keeps; none when it gives no answer.
    pub(crate) fn kept_by(&mut self, team: &Team, name: &str, key: &DhtKey) -> Option<Vec<WallTime>> {
        let peer = roost::actors::identity::Identity::load(&team.home(name)).unwrap().peer_id();
        let net = Config::load(&team.home(name).config_file()).unwrap().net;
        let addr = PeerAddr { host: Ipv4Addr::LOCALHOST.to_string(), https: net.https_port, libp2p: net.libp2p_port };
        self.asked += 1;
        let (id, commands, events) = (self.asked, &self.swarm.commands, &mut self.swarm.events);
        let list = Op::List(List { key: key.hash(), values: false, have: Vec::new(), unless: None });
        let answer = self.runtime.block_on(async {
            commands.send(Command::Peers(vec![(peer, vec![addr])])).await.unwrap();
            commands.send(Command::Send { id, peer, request: Request { ops: vec![list] } }).await.unwrap();
            let answered = async {
                loop {
                    match events.recv().await.expect("the swarm runs") {
                        SwarmEvent::Answered { id: of, response } if of == id => break response,
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(ANSWER, answered).await.ok().flatten()
        })?;
        match answer.answers.into_iter().next() {
            Some(Answer::Listing(listing)) => Some(listing.live.into_iter().map(|(_, expiry)| expiry).collect()),
            Some(Answer::Missing) => Some(Vec::new()),
            other => panic!("{name}: {other:?}"),
        }
    }
}
