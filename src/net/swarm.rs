//! The libp2p swarm in a task of its own: look-ups and DHT requests go in as commands, what comes of them and of others'
//! requests comes out as events. It never decides who stores what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::kad::{self, QueryId, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent as Libp2pEvent;
use libp2p::{Multiaddr, PeerId as Libp2pPeer, Swarm, identify};
use tokio::sync::{mpsc, oneshot};

use super::dht_links::{Links, Report, Then};
use super::dht_streams::StreamEvent;
use super::identity::{from_libp2p, keypair, to_libp2p};
use super::swarm_build::{ADDRS_MAX, Behaviour, BehaviourEvent, K, add_bounded, build, table_of};
use super::swarm_gate::{DialRule, is_local};
use crate::model::group::PeerAddr;
use crate::model::{Digest, PeerId};
use crate::wire::PeerKey;
use crate::wire::dht::{DHT_PROTOCOL, Request, Response};

/// Commands that wait for the swarm before their senders do.
const COMMANDS_MAX: usize = 256;
/// Events that wait for the brain before the swarm does.
const EVENTS_MAX: usize = 256;
/// Requests of other peers that await their answer; beyond, new ones are refused.
const SERVING_MAX: usize = 1024;
/// Twice the time in which an idle peer asks each of seven others.
const IDLE: Duration = Duration::from_secs(600);
/// The time in which a listener starts, or does not.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// TCP.
    Tcp,
    /// Memory of this process, for tests with many peers. A [`PeerAddr`]'s port is then libp2p's memory port.
    Memory,
}

/// How a swarm is set up.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Where to listen.
    pub listen: IpAddr,
    /// On which port; 0 lets the system choose.
    pub port: u16,
    /// TCP but in tests.
    pub wire: Wire,
    /// Whether private addresses of peers that this one does not know are dialled.
    pub dial_private: bool,
    /// Streams and connections without a request for this long are closed. Longer than an idle peer takes to poll all its
    /// neighbours by turns, or each poll would pay for a handshake.
    pub idle_timeout: Duration,
}

impl SwarmConfig {
    /// TCP on `listen`:`port`.
    pub fn tcp(listen: IpAddr, port: u16, dial_private: bool) -> Self {
        Self { listen, port, wire: Wire::Tcp, dial_private, idle_timeout: IDLE }
    }
    /// Memory of this process, for tests.
    pub fn memory(port: u16) -> Self {
        let listen = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Self { listen, port, wire: Wire::Memory, dial_private: true, idle_timeout: IDLE }
    }
}

/// Why a swarm did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwarmError {
    /// The peer's key is of no use.
    #[error("the peer's key cannot be used for libp2p: {why}; restore identity/ from a backup")]
    Keys {
        /// What libp2p says.
        why: String,
    },
    /// It cannot listen.
    #[error(
        "libp2p cannot listen on {addr}: {why}; stop what has the port, or change [net] libp2p_port in config.toml and tell the members"
    )]
    Listen {
        /// Where.
        addr: String,
        /// What the system says.
        why: String,
    },
}

/// What the swarm is told.
#[derive(Debug)]
pub enum Command {
    /// Look up the k closest live peers to a key.
    FindClosest {
        /// H(x).
        key: Digest,
    },
    /// Send a request.
    Send {
        /// Names it.
        id: u64,
        /// To whom.
        peer: PeerId,
        /// What.
        request: Request,
    },
    /// Answer a request.
    Respond {
        /// From [`SwarmEvent::Request`].
        channel: u64,
        /// The answers.
        response: Response,
    },
    /// Look up the k closest live peers to a key, past the brain; who asks is also told what it took.
    LookUp {
        /// H(x).
        key: Digest,
        /// Takes what was found.
        answer: oneshot::Sender<LookUp>,
    },
    /// Tell what is known and what was done.
    Observe(oneshot::Sender<SwarmStatus>),
    /// The peers that this one knows and where they are: entry points, and the only ones dialled at private addresses.
    Peers(Vec<(PeerId, Vec<PeerAddr>)>),
    /// Close every connection and end.
    Stop,
}

/// What a look-up found, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookUp {
    /// The closest live peers but this one, nearest first.
    pub peers: Vec<PeerId>,
    /// Peers that were asked; some answers were not waited for in the end.
    pub asked: u32,
    /// Of those, how many could not be asked, or said that they do not answer.
    pub failed: u32,
    /// From the first question to the end.
    pub took: Duration,
}

/// What a swarm shows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwarmStatus {
    /// Who is in the routing table.
    pub table: Vec<PeerId>,
    /// Look-ups that ended, of the brain and of others.
    pub look_ups: u64,
    /// Peers asked in those.
    pub look_up_requests: u64,
    /// Peers asked to fill and to refresh the routing table.
    pub refresh_requests: u64,
}

/// Who waits for a look-up.
enum Asker {
    /// The brain, by the key.
    Brain(Digest),
    /// Whoever sent [`Command::LookUp`].
    Other(oneshot::Sender<LookUp>),
}

/// What the swarm tells.
#[derive(Debug)]
pub enum SwarmEvent {
    /// A look-up ended.
    Closest {
        /// H(x).
        key: Digest,
        /// The closest live peers but this one, nearest first.
        peers: Vec<PeerId>,
    },
    /// A request ended; without a response when the peer could not be reached or did not answer.
    Answered {
        /// From [`Command::Send`].
        id: u64,
        /// The response.
        response: Option<Response>,
    },
    /// Another peer asks.
    Request {
        /// For [`Command::Respond`].
        channel: u64,
        /// Who.
        from: PeerId,
        /// What.
        request: Request,
    },
    /// A peer that speaks our DHT is connected.
    PeerUp(PeerId),
    /// The last connection to such a peer ended.
    PeerDown(PeerId),
}

/// A swarm that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub port: u16,
    /// Takes commands.
    pub commands: mpsc::Sender<Command>,
    /// Brings events. When it is dropped, the swarm ends.
    pub events: mpsc::Receiver<SwarmEvent>,
}

/// Starts a swarm; it listens when this returns.
///
/// # Errors
/// [`SwarmError`] when the key is of no use or it cannot listen.
pub async fn start(config: SwarmConfig, key: &PeerKey) -> Result<Running, SwarmError> {
    let keys = keypair(key).map_err(|e| SwarmError::Keys { why: e.why })?;
    let rule = DialRule::new(config.dial_private);
    let mut swarm = build(&config, &keys, rule.clone())?;
    let addr = multiaddr(config.wire, config.listen, config.port);
    let failed = |why: String| SwarmError::Listen { addr: addr.to_string(), why };
    swarm.listen_on(addr.clone()).map_err(|e| failed(innermost(&e)))?;
    let port = match tokio::time::timeout(LISTEN_WITHIN, listening(&mut swarm)).await {
        Ok(port) => port.map_err(&failed)?,
        Err(_) => return Err(failed("it did not start in time".to_owned())),
    };
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (outbox, events) = mpsc::channel(EVENTS_MAX);
    let (found, resolved) = mpsc::channel(COMMANDS_MAX);
    let (links, reports) = Links::new(config.idle_timeout);
    let task = Task {
        swarm,
        links,
        rule,
        wire: config.wire,
        outbox,
        found,
        look_ups: HashMap::new(),
        counts: SwarmStatus::default(),
        channels: BTreeMap::new(),
        last_channel: 0,
        up: BTreeSet::new(),
        loopback: BTreeMap::new(),
        reserved: BTreeSet::new(),
    };
    tokio::spawn(task.run(inbox, resolved, reports));
    Ok(Running { port, commands, events })
}

/// What the system said: libp2p's own errors around it have no words.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn multiaddr(wire: Wire, ip: IpAddr, port: u16) -> Multiaddr {
    match wire {
        Wire::Tcp => Multiaddr::from(ip).with(Protocol::Tcp(port)),
        Wire::Memory => Multiaddr::empty().with(Protocol::Memory(port.into())),
    }
}

/// The port, once there is one.
async fn listening(swarm: &mut Swarm<Behaviour>) -> Result<u16, String> {
    loop {
        match swarm.select_next_some().await {
            Libp2pEvent::NewListenAddr { address, .. } => {
                let port = address.iter().find_map(|part| match part {
                    Protocol::Tcp(port) => Some(port),
                    Protocol::Memory(port) => u16::try_from(port).ok(),
                    _ => None,
                });
                return port.ok_or_else(|| format!("{address} has no port of 16 bits"));
            }
            Libp2pEvent::ListenerClosed { reason, .. } => {
                return Err(reason.err().map_or_else(|| "it was closed".to_owned(), |e| e.to_string()));
            }
            Libp2pEvent::ListenerError { error, .. } => return Err(error.to_string()),
            _ => {}
        }
    }
}

/// The brain does not listen any more.
struct Gone;

struct Task {
    swarm: Swarm<Behaviour>,
    links: Links,
    rule: DialRule,
    wire: Wire,
    outbox: mpsc::Sender<SwarmEvent>,
    found: mpsc::Sender<(Libp2pPeer, Multiaddr)>,
    look_ups: HashMap<QueryId, Asker>,
    /// Its counts; the table is looked at when somebody asks.
    counts: SwarmStatus,
    channels: BTreeMap<u64, oneshot::Sender<Response>>,
    last_channel: u64,
    up: BTreeSet<Libp2pPeer>,
    /// Whether a peer is connected from this very machine: only then its loopback addresses mean it.
    loopback: BTreeMap<Libp2pPeer, bool>,
    /// For whom places are kept.
    reserved: BTreeSet<Libp2pPeer>,
}

impl Task {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut resolved: mpsc::Receiver<(Libp2pPeer, Multiaddr)>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        loop {
            let went = tokio::select! {
                command = inbox.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.command(command).await,
                },
                Some((peer, addr)) = resolved.recv() => {
                    self.add(peer, addr);
                    Ok(())
                }
                event = self.swarm.select_next_some() => self.event(event).await,
                Some(report) = reports.recv() => self.report(report).await,
                () = self.outbox.closed() => return,
            };
            if went.is_err() {
                return;
            }
        }
    }

    async fn tell(&mut self, event: SwarmEvent) -> Result<(), Gone> {
        self.outbox.send(event).await.map_err(|_| Gone)
    }

    async fn command(&mut self, command: Command) -> Result<(), Gone> {
        match command {
            Command::FindClosest { key } => self.look_up(key, Asker::Brain(key)),
            Command::LookUp { key, answer } => self.look_up(key, Asker::Other(answer)),
            Command::Observe(answer) => {
                let table = table_of(&mut self.swarm.behaviour_mut().kad);
                let table = table.iter().filter_map(from_libp2p).collect();
                // Who asked may have gone; then nobody wants the answer.
                let _ = answer.send(SwarmStatus { table, ..self.counts.clone() });
            }
            Command::Send { id, peer, request } => match to_libp2p(&peer) {
                Some(peer) => match self.links.send(peer, id, request) {
                    Then::Open => self.swarm.behaviour_mut().dht.open(peer),
                    Then::Wait => {}
                    Then::Refused => return self.tell(SwarmEvent::Answered { id, response: None }).await,
                },
                None => return self.tell(SwarmEvent::Answered { id, response: None }).await,
            },
            Command::Respond { channel, response } => {
                if let Some(channel) = self.channels.remove(&channel) {
                    // Who asked may have gone; then nobody wants the answer.
                    let _ = channel.send(response);
                }
            }
            Command::Peers(peers) => self.know(peers),
            Command::Stop => {}
        }
        Ok(())
    }

    fn look_up(&mut self, key: Digest, asker: Asker) {
        let query = self.swarm.behaviour_mut().kad.get_n_closest_peers(key.as_bytes().to_vec(), K);
        self.look_ups.insert(query, asker);
    }

    fn know(&mut self, peers: Vec<(PeerId, Vec<PeerAddr>)>) {
        let me = *self.swarm.local_peer_id();
        let known = peers.iter().filter_map(|(peer, addrs)| Some((to_libp2p(peer)?, addrs)));
        let known: Vec<_> = known.filter(|(peer, _)| *peer != me).collect();
        let now_known: BTreeSet<Libp2pPeer> = known.iter().map(|(peer, _)| *peer).collect();
        self.reserve_places(&now_known);
        self.rule.know(now_known);
        for (peer, addrs) in known {
            for addr in addrs.iter().take(ADDRS_MAX) {
                match (self.wire, addr.host.parse::<IpAddr>()) {
                    (Wire::Tcp, Ok(ip)) => self.add(peer, multiaddr(Wire::Tcp, ip, addr.libp2p)),
                    (Wire::Memory, _) => {
                        let anywhere = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
                        self.add(peer, multiaddr(Wire::Memory, anywhere, addr.libp2p));
                    }
                    (Wire::Tcp, Err(_)) => self.resolve(peer, addr),
                }
            }
        }
    }

    /// Keeps places for the peers that this one knows: they connect even when strangers have taken all others.
    fn reserve_places(&mut self, known: &BTreeSet<Libp2pPeer>) {
        let limits = &mut self.swarm.behaviour_mut().limits;
        self.reserved.difference(known).for_each(|peer| limits.remove_peer_id(peer));
        known.difference(&self.reserved).for_each(|peer| limits.bypass_peer_id(peer));
        self.reserved.clone_from(known);
    }

    /// Finds the IP addresses of a host name; they come back through `resolved`.
    fn resolve(&self, peer: Libp2pPeer, addr: &PeerAddr) {
        let (found, host, port) = (self.found.clone(), addr.host.clone(), addr.libp2p);
        tokio::spawn(async move {
            match tokio::net::lookup_host((host.as_str(), port)).await {
                Ok(addrs) => {
                    for addr in addrs.take(ADDRS_MAX) {
                        let addr = multiaddr(Wire::Tcp, addr.ip(), addr.port());
                        if found.send((peer, addr)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::debug!(%host, %error, "a peer's host name has no address now"),
            }
        });
    }

    /// Learns where a peer is, if it may be dialled there.
    fn add(&mut self, peer: Libp2pPeer, addr: Multiaddr) {
        if self.rule.allows(Some(&peer), &addr) {
            add_bounded(&mut self.swarm.behaviour_mut().kad, &peer, addr.clone());
            self.swarm.add_peer_address(peer, addr);
        }
    }

    async fn event(&mut self, event: Libp2pEvent<BehaviourEvent>) -> Result<(), Gone> {
        match event {
            Libp2pEvent::Behaviour(BehaviourEvent::Kad(event)) => self.kad(event).await,
            Libp2pEvent::Behaviour(BehaviourEvent::Dht((peer, event))) => self.dht(peer, event).await,
            Libp2pEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                self.identified(peer_id, info).await
            }
            Libp2pEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                self.loopback.insert(peer_id, is_local(endpoint.get_remote_address()));
                Ok(())
            }
            Libp2pEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.loopback.remove(&peer_id);
                match (self.up.remove(&peer_id), from_libp2p(&peer_id)) {
                    (true, Some(peer)) => self.tell(SwarmEvent::PeerDown(peer)).await,
                    _ => Ok(()),
                }
            }
            Libp2pEvent::ListenerClosed { reason, addresses, .. } => {
                tracing::error!(?addresses, ?reason, "libp2p does not listen any more; restart this peer");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn identified(&mut self, peer: Libp2pPeer, info: identify::Info) -> Result<(), Gone> {
        if !info.protocols.iter().any(|protocol| protocol.as_ref() == DHT_PROTOCOL) {
            return Ok(());
        }
        // Somebody else lives at the loopback addresses of a peer on another machine.
        let same_machine = self.loopback.get(&peer).copied().unwrap_or(false);
        let means_it = |addr: &Multiaddr| same_machine || !is_local(addr);
        for addr in info.listen_addrs.into_iter().filter(means_it).take(ADDRS_MAX) {
            self.add(peer, addr);
        }
        if !self.swarm.is_connected(&peer) || !self.up.insert(peer) {
            return Ok(());
        }
        match from_libp2p(&peer) {
            Some(peer) => self.tell(SwarmEvent::PeerUp(peer)).await,
            None => Ok(()),
        }
    }

    async fn kad(&mut self, event: kad::Event) -> Result<(), Gone> {
        let kad::Event::OutboundQueryProgressed { id, result, step, stats } = event else {
            return Ok(());
        };
        let result = match result {
            QueryResult::GetClosestPeers(result) if step.last => result,
            QueryResult::Bootstrap(_) => {
                // Each of its steps is counted by itself.
                self.counts.refresh_requests += u64::from(stats.num_requests());
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.counts.look_ups += 1;
        self.counts.look_up_requests += u64::from(stats.num_requests());
        let Some(asker) = self.look_ups.remove(&id) else { return Ok(()) };
        let infos = match result {
            Ok(ok) => ok.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let mut peers = Vec::with_capacity(infos.len());
        for info in infos.into_iter().take(K.get()) {
            peers.extend(from_libp2p(&info.peer_id));
            // The look-up's connection may be gone when the peer is asked; then it is dialled again.
            for addr in info.addrs.into_iter().take(ADDRS_MAX) {
                if self.rule.allows(Some(&info.peer_id), &addr) {
                    self.swarm.add_peer_address(info.peer_id, addr);
                }
            }
        }
        match asker {
            Asker::Brain(key) => self.tell(SwarmEvent::Closest { key, peers }).await,
            Asker::Other(answer) => {
                let (asked, failed) = (stats.num_requests(), stats.num_failures());
                let took = stats.duration().unwrap_or_default();
                // Who asked may have gone; then nobody wants the answer.
                let _ = answer.send(LookUp { peers, asked, failed, took });
                Ok(())
            }
        }
    }

    async fn dht(&mut self, peer: Libp2pPeer, event: StreamEvent) -> Result<(), Gone> {
        match event {
            StreamEvent::Opened(stream) => self.links.opened(peer, stream),
            StreamEvent::Taken(stream) => self.links.taken(peer, stream),
            StreamEvent::NotOpened => {
                tracing::debug!(%peer, "a peer cannot be asked for DHT entries");
                let unanswered = self.links.not_opened(&peer);
                return self.unanswered(unanswered).await;
            }
        }
        Ok(())
    }

    async fn report(&mut self, report: Report) -> Result<(), Gone> {
        match report {
            Report::Answered { id, response } => self.tell(SwarmEvent::Answered { id, response }).await,
            Report::Asked { peer, request, answer } => self.asked(peer, request, answer).await,
            Report::Ended(ended) => {
                let (unanswered, open) = self.links.ended(ended);
                if let Some(peer) = open {
                    self.swarm.behaviour_mut().dht.open(peer);
                }
                self.unanswered(unanswered).await
            }
        }
    }

    async fn unanswered(&mut self, ids: Vec<u64>) -> Result<(), Gone> {
        for id in ids {
            self.tell(SwarmEvent::Answered { id, response: None }).await?;
        }
        Ok(())
    }

    async fn asked(
        &mut self,
        peer: Libp2pPeer,
        request: Request,
        answer: oneshot::Sender<Response>,
    ) -> Result<(), Gone> {
        if self.channels.len() >= SERVING_MAX {
            self.channels.retain(|_, channel| !channel.is_closed());
        }
        let Some(from) = from_libp2p(&peer).filter(|_| self.channels.len() < SERVING_MAX) else {
            // Dropping the channel tells the other side that there will be no answer.
            return Ok(());
        };
        self.last_channel += 1;
        self.channels.insert(self.last_channel, answer);
        self.tell(SwarmEvent::Request { channel: self.last_channel, from, request }).await
    }
}
