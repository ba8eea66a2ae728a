//! DhtClient: the shell of the DHT's brain, the swarm it works through, and the share's place on disk. It never decides who
//! stores what.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::directory::Snapshot;
use super::shell::{EventLog, Handle, Perform, Shell, Stopped};
use crate::clock::Clock;
use crate::core::dht::{
    Action, Change, DelDone, Dht, DhtError, GetDone, Input, PutDone, Reply, RequestId, Status, Unreachable,
};
use crate::model::dht::DhtKey;
use crate::model::group::PeerAddr;
use crate::model::{Digest, PeerId, Secret, WallTime};
use crate::net::swarm::{Command, LookUp, Running, SwarmEvent, SwarmStatus};
use crate::store::dht_share::{DhtShare, Page};

/// What is on disk is read back once it is known who is known, or after this time: publishers that a gd names have more room.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// How long a stop waits for what is not on disk yet.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks whether it is.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// The performer of the DHT's brain.
#[derive(Debug)]
pub struct DhtClient {
    commands: mpsc::Sender<Command>,
    share: Option<Arc<DhtShare>>,
}

impl DhtClient {
    /// Writes a batch off the actor's thread; the brain sends one at a time.
    fn keep(&self, changes: Vec<Change>, back: Handle<Dht>) {
        let Some(share) = self.share.clone() else { return };
        tokio::spawn(async move {
            let written = tokio::task::spawn_blocking(move || share.write(&changes)).await;
            if let Ok(Err(error)) = &written {
                tracing::warn!(%error, "DHT entries are not kept over a restart for now");
            }
            // A stopped brain keeps nothing any more.
            let _ = back.tell(Input::Kept(matches!(written, Ok(Ok(()))))).await;
        });
    }
}

impl Perform<Dht> for DhtClient {
    fn perform(&mut self, action: Action, back: &Handle<Dht>) {
        let command = match action {
            Action::Keep { changes } => return self.keep(changes, back.clone()),
            Action::FindClosest { key } => Command::FindClosest { key },
            Action::Send { request, peer, body } => Command::Send { id: request.0, peer, request: body },
            Action::Respond { channel, response } => Command::Respond { channel, response },
        };
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            // The brain bounds what is under way, so few wait here.
            let commands = self.commands.clone();
            tokio::spawn(async move {
                // A swarm that has stopped needs no commands.
                let _ = commands.send(command).await;
            });
        }
    }
}

/// Why the DHT did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// It could not.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// This peer is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The answer is one to another question. Only a bug makes one.
    #[error("the DHT's brain answered another question than it was asked; report this")]
    Mismatch,
}

/// The DHT as other actors use it: cloneable, from any thread.
#[derive(Debug, Clone)]
pub struct DhtPort {
    handle: Handle<Dht>,
    commands: mpsc::Sender<Command>,
    share: Option<Arc<DhtShare>>,
    /// Told once it is known who is known.
    known: Arc<Notify>,
}

/// Starts the brain on a running swarm, on the current actix system. With a `share`, what this peer stores for others is there
/// again after a restart.
pub fn start(
    brain: Dht,
    swarm: Running,
    log: Arc<dyn EventLog>,
    clock: Clock,
    share: Option<Arc<DhtShare>>,
) -> DhtPort {
    let Running { commands, events, .. } = swarm;
    let performer = DhtClient { commands: commands.clone(), share: share.clone() };
    let brain = if share.is_some() { brain.kept_on_disk() } else { brain };
    let handle = Shell::start(brain, performer, log, clock, Some(Input::Start));
    tokio::spawn(pump(events, handle.clone()));
    let known = Arc::new(Notify::new());
    if let Some(share) = share.clone() {
        tokio::spawn(restore(share, known.clone(), handle.clone()));
    }
    DhtPort { handle, commands, share, known }
}

/// Gives the brain what is on disk, page by page.
async fn restore(share: Arc<DhtShare>, known: Arc<Notify>, handle: Handle<Dht>) {
    let _ = tokio::time::timeout(KNOWN_WITHIN, known.notified()).await;
    let mut after = None;
    loop {
        let share = share.clone();
        let page = match tokio::task::spawn_blocking(move || share.page(after.as_deref())).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                tracing::warn!(%error, "DHT entries of the last run cannot be read; other peers have them");
                Page { records: Vec::new(), next: None }
            }
            Err(_) => return,
        };
        if handle.tell(Input::Restore(page.records)).await.is_err() {
            return;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    // A stopped brain needs nothing any more.
    let _ = handle.tell(Input::Restored).await;
}

/// Tells the brain what the swarm tells; a busy brain makes the swarm wait. Dropping the events ends the swarm.
async fn pump(mut events: mpsc::Receiver<SwarmEvent>, handle: Handle<Dht>) {
    while let Some(event) = events.recv().await {
        let input = match event {
            SwarmEvent::Closest { key, peers } => Input::Closest { key, peers },
            SwarmEvent::Answered { id, response } => {
                Input::Answer { request: RequestId(id), result: response.ok_or(Unreachable) }
            }
            SwarmEvent::Request { channel, from, request } => Input::Serve { channel, from, request },
            SwarmEvent::PeerUp(peer) => Input::PeerUp(peer),
            SwarmEvent::PeerDown(peer) => Input::PeerDown(peer),
        };
        if handle.tell(input).await.is_err() {
            return;
        }
    }
}

impl DhtPort {
    /// The brain's handle.
    pub fn handle(&self) -> &Handle<Dht> {
        &self.handle
    }

    /// Puts `value` under `key` until `expiry`, at most 60 days ahead; who knows `password` can delete it. What must live
    /// longer is put again before it expires.
    ///
    /// # Errors
    /// [`PortError`]; a refusal may be over later.
    pub async fn put(
        &self,
        key: DhtKey,
        value: Bytes,
        password: Secret,
        expiry: WallTime,
    ) -> Result<PutDone, PortError> {
        match self.handle.ask(move |token| Input::Put { token, key, value, password, expiry }).await? {
            Reply::Put(done) => Ok(done?),
            Reply::Get(_) | Reply::Del(_) => Err(PortError::Mismatch),
        }
    }

    /// Reads what is under `key`.
    ///
    /// # Errors
    /// [`PortError`] when no peer answers.
    pub async fn get(&self, key: DhtKey) -> Result<GetDone, PortError> {
        self.poll(key, BTreeSet::new()).await
    }

    /// Reads what is under `key` and not in `have` (ids of entries read before), and which of those were deleted. When
    /// `have` is what the last read left, peers with nothing new answer in a few bytes.
    ///
    /// # Errors
    /// [`PortError`] when no peer answers.
    pub async fn poll(&self, key: DhtKey, have: BTreeSet<Digest>) -> Result<GetDone, PortError> {
        self.read(key, have, false).await
    }

    /// As [`DhtPort::poll`], but asks only a few peers, by turns, as long as these have nothing new: what is new is seen after
    /// some polls at the latest.
    ///
    /// # Errors
    /// [`PortError`] when no peer answers.
    pub async fn watch(&self, key: DhtKey, have: BTreeSet<Digest>) -> Result<GetDone, PortError> {
        self.read(key, have, true).await
    }

    async fn read(&self, key: DhtKey, have: BTreeSet<Digest>, watch: bool) -> Result<GetDone, PortError> {
        match self.handle.ask(move |token| Input::Get { token, key, have, watch }).await? {
            Reply::Get(done) => Ok(done?),
            Reply::Put(_) | Reply::Del(_) => Err(PortError::Mismatch),
        }
    }

    /// Deletes the entries under `key` with the value hash `value` (see [`crate::model::dht::value_hash`]) and this password.
    ///
    /// # Errors
    /// [`PortError`] when the password is wrong, nothing is there, or no peer answers.
    pub async fn del(&self, key: DhtKey, value: Digest, password: Secret) -> Result<DelDone, PortError> {
        match self.handle.ask(move |token| Input::Del { token, key, value, password }).await? {
            Reply::Del(done) => Ok(done?),
            Reply::Put(_) | Reply::Get(_) => Err(PortError::Mismatch),
        }
    }

    /// Tells which peers are known and where: entry points, and the ones that may be dialled at private addresses.
    ///
    /// # Errors
    /// [`Stopped`] when the swarm has stopped.
    pub async fn peers(&self, peers: Vec<(PeerId, Vec<PeerAddr>)>) -> Result<(), Stopped> {
        self.commands.send(Command::Peers(peers)).await.map_err(|_| Stopped)
    }

    /// Follows the directory: its peers, and which publishers verified gds name. To be called with every new snapshot.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn follow(&self, snapshot: &Snapshot) -> Result<(), Stopped> {
        let named = snapshot.groups.values().filter_map(|group| group.gd.as_ref());
        let known = named.flat_map(|gd| gd.members.iter().map(|member| member.peer_id)).collect();
        self.handle.tell(Input::Known(known)).await?;
        self.known.notify_one();
        self.peers(snapshot.peers.values().map(|peer| (peer.peer_id, peer.addrs.clone())).collect()).await
    }

    /// What the brain shows of itself.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn observe(&self) -> Result<Status, Stopped> {
        self.handle.observe().await
    }

    /// Looks up the closest peers to a key, as a put or a get does, and tells what that took. The brain does not hear of it.
    ///
    /// # Errors
    /// [`Stopped`] when the swarm has stopped.
    pub async fn look_up(&self, key: Digest) -> Result<LookUp, Stopped> {
        let (answer, found) = oneshot::channel();
        self.commands.send(Command::LookUp { key, answer }).await.map_err(|_| Stopped)?;
        found.await.map_err(|_| Stopped)
    }

    /// What the swarm shows of itself: its routing table, and what look-ups have asked.
    ///
    /// # Errors
    /// [`Stopped`] when the swarm has stopped.
    pub async fn observe_swarm(&self) -> Result<SwarmStatus, Stopped> {
        let (answer, status) = oneshot::channel();
        self.commands.send(Command::Observe(answer)).await.map_err(|_| Stopped)?;
        status.await.map_err(|_| Stopped)
    }

    /// Stops brain and swarm; connections are closed, and what is kept on disk is there.
    pub async fn stop(&self) {
        // A swarm that has stopped already is what was wanted.
        let _ = self.commands.send(Command::Stop).await;
        if let Some(share) = self.share.clone() {
            // What takes longer than this is asked of others after the next start.
            let _ = tokio::time::timeout(STOP_WITHIN, self.write_all()).await;
            let _ = tokio::task::spawn_blocking(move || share.close()).await;
        }
        self.handle.stop().await;
    }

    async fn write_all(&self) -> Result<(), Stopped> {
        self.handle.tell(Input::KeepNow).await?;
        while self.handle.observe().await?.unwritten > 0 {
            tokio::time::sleep(STOP_LOOK).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::actors::shell::Append;
    use crate::model::dht::value_hash;
    use crate::net::swarm::{self, SwarmConfig};
    use crate::store::index::Index;
    use crate::wire::PeerKey;

    const SHORT: Duration = Duration::from_secs(3);
    const LONG: Duration = Duration::from_secs(60);

    struct NoLog;
    impl EventLog for NoLog {
        fn append(&self, _: &'static str, _: Vec<Vec<u8>>) -> Append {
            Box::pin(async { Ok(()) })
        }
    }

    /// A peer on TCP that does not dial private addresses of strangers.
    async fn peer(n: u8, host: &str, idle_timeout: Duration) -> (DhtPort, PeerId, PeerAddr) {
        let key = PeerKey::from_seed(&[n; 32]);
        let id = key.peer_id();
        let mut config = SwarmConfig::tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, false);
        config.idle_timeout = idle_timeout;
        let running = swarm::start(config, &key).await.unwrap();
        let addr = PeerAddr { host: host.to_owned(), https: 0, libp2p: running.port };
        (start(Dht::new(key, n.into()), running, Arc::new(NoLog), Clock::system(), None), id, addr)
    }

    /// Waits until the number of connected peers is as it should be.
    async fn connected(port: &DhtPort, is_right: impl Fn(usize) -> bool) {
        for _ in 0..1500 {
            if is_right(port.observe().await.unwrap().peers) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}", port.observe().await);
    }

    fn key() -> DhtKey {
        DhtKey::Peer("alice@acme".parse().unwrap())
    }

    #[test]
    fn peers_on_tcp_find_each_other_also_after_their_connections_closed() {
        actix::System::new().block_on(async {
            let (a, a_id, a_addr) = peer(1, "127.0.0.1", SHORT).await;
            let (b, b_id, b_addr) = peer(2, "localhost", SHORT).await;
            a.peers(vec![(b_id, vec![b_addr])]).await.unwrap();
            b.peers(vec![(a_id, vec![a_addr])]).await.unwrap();
            connected(&a, |peers| peers == 1).await;
            connected(&b, |peers| peers == 1).await;
            let (value, password) = (Bytes::from_static(b"descriptor"), Secret::new([1; 32]));
            let expiry = Clock::system().now().wall + Duration::from_secs(600);
            let put = a.put(key(), value.clone(), password.clone(), expiry).await.unwrap();
            assert_eq!((put.stored, put.asked), (2, 2));
            connected(&a, |peers| peers == 0).await;
            let read = b.get(key()).await.unwrap();
            assert_eq!((read.entries.len(), read.answered), (1, 2));
            assert_eq!((read.entries[0].publisher, &read.entries[0].value), (a_id, &value));
            assert_eq!(b.del(key(), value_hash(&value), password).await.unwrap().confirmed, 2);
            assert_eq!(a.poll(key(), BTreeSet::from([put.id])).await.unwrap().gone, [put.id]);
            a.stop().await;
            assert!(matches!(a.get(key()).await, Err(PortError::Stopped(_))));
            b.stop().await;
        });
    }

    #[test]
    fn what_a_peer_stores_is_there_again_after_a_restart() {
        actix::System::new().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let began = || async {
                let key = PeerKey::from_seed(&[6; 32]);
                let config = SwarmConfig::tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, false);
                let running = swarm::start(config, &key).await.unwrap();
                let share = Arc::new(DhtShare::new(Index::open(&dir.path().join("index")).unwrap()));
                let port = start(Dht::new(key, 1), running, Arc::new(NoLog), Clock::system(), Some(share));
                port.known.notify_one();
                port
            };
            let (first, password) = (began().await, Secret::new([1; 32]));
            let expiry = Clock::system().now().wall + Duration::from_secs(600);
            for value in [&b"kept"[..], b"gone"] {
                first.put(key(), Bytes::copy_from_slice(value), password.clone(), expiry).await.unwrap();
            }
            first.del(key(), value_hash(b"gone"), password).await.unwrap();
            first.stop().await;
            let second = began().await;
            for _ in 0..1500 {
                let status = second.observe().await.unwrap();
                if (status.entries, status.tombstones) == (1, 1) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let read = second.get(key()).await.unwrap();
            assert_eq!(read.entries.iter().map(|e| &e.value[..]).collect::<Vec<_>>(), [b"kept"]);
            second.stop().await;
        });
    }

    #[test]
    fn a_stranger_at_a_private_address_is_not_dialled() {
        actix::System::new().block_on(async {
            let (hub, hub_id, hub_addr) = peer(3, "127.0.0.1", LONG).await;
            let (a, ..) = peer(4, "127.0.0.1", LONG).await;
            let (b, ..) = peer(5, "127.0.0.1", LONG).await;
            // Both know the hub, and learn of each other only from it.
            for port in [&a, &b] {
                port.peers(vec![(hub_id, vec![hub_addr.clone()])]).await.unwrap();
                connected(port, |peers| peers == 1).await;
            }
            connected(&hub, |peers| peers == 2).await;
            let expiry = Clock::system().now().wall + Duration::from_secs(600);
            let put = a.put(key(), Bytes::from_static(b"v"), Secret::new([1; 32]), expiry).await.unwrap();
            assert_eq!(put.stored, 2, "at the hub and here, not at the stranger");
            for port in [hub, a, b] {
                port.stop().await;
            }
        });
    }
}
