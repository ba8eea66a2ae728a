//! DhtClient: the shell of the DHT's brain and the swarm it works through. It never decides who stores what.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::directory::Snapshot;
use super::shell::{EventLog, Handle, Perform, Shell, Stopped};
use crate::clock::Clock;
use crate::core::dht::{
    Action, DelDone, Dht, DhtError, GetDone, Input, PutDone, Reply, RequestId, Status, Unreachable,
};
use crate::model::dht::DhtKey;
use crate::model::group::PeerAddr;
use crate::model::{Digest, PeerId, Secret, WallTime};
use crate::net::swarm::{Command, Running, SwarmEvent};

/// The performer of the DHT's brain.
#[derive(Debug)]
pub struct DhtClient {
    commands: mpsc::Sender<Command>,
}

impl Perform<Dht> for DhtClient {
    fn perform(&mut self, action: Action, _: &Handle<Dht>) {
        let command = match action {
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
}

/// Starts the brain on a running swarm, on the current actix system.
pub fn start(brain: Dht, swarm: Running, log: Arc<dyn EventLog>, clock: Clock) -> DhtPort {
    let Running { commands, events, .. } = swarm;
    let performer = DhtClient { commands: commands.clone() };
    let handle = Shell::start(brain, performer, log, clock, Some(Input::Start));
    tokio::spawn(pump(events, handle.clone()));
    DhtPort { handle, commands }
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
        match self.handle.ask(move |token| Input::Get { token, key, have }).await? {
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
        self.peers(snapshot.peers.values().map(|peer| (peer.peer_id, peer.addrs.clone())).collect()).await
    }

    /// What the brain shows of itself.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn observe(&self) -> Result<Status, Stopped> {
        self.handle.observe().await
    }

    /// Stops brain and swarm; connections are closed.
    pub async fn stop(&self) {
        // A swarm that has stopped already is what was wanted.
        let _ = self.commands.send(Command::Stop).await;
        self.handle.stop().await;
    }
}
