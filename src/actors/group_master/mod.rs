//! GroupMaster: keeps the group key, signs and checks gds and peer descriptors, talks to other peers, publishes the directory.
//! It never decides who is a member or whom to believe.

mod calls;
mod holders;
mod keys;
mod port;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, watch};

pub use port::GroupPort;

use super::directory::{Directory, KnownGroup, KnownPeer, Snapshot};
use super::identity::Identity;
use super::shell::{EventLog, Handle, Perform, Shell};
use crate::clock::Clock;
use crate::core::group::{Action, Candidates, Entry, Group, Input, Me, Picture, Role};
use crate::model::dht::DhtKey;
use crate::model::group::{PeerAddr, Roster};
use crate::model::{Address, PeerId, Secret, WallTime};
use crate::net::https_client::PeerClient;
use crate::store::home::Home;
use crate::wire::notify::Notice;
use port::Watched;

/// The part of the DHT that is needed here. Each error is a text for the log.
pub trait GroupDht: Send + Sync + 'static {
    /// Puts `value` under `key` until `expiry`.
    fn put(&self, key: DhtKey, value: Bytes, password: Secret, expiry: WallTime) -> BoxFuture<'_, Result<(), String>>;
    /// Reads what is under `key`.
    fn get(&self, key: DhtKey) -> BoxFuture<'_, Result<Vec<Bytes>, String>>;
}

/// What the shell needs.
pub struct Setup {
    /// This peer's keys.
    pub identity: Identity,
    /// Where the group key lies.
    pub home: Home,
    /// Asks other peers.
    pub client: PeerClient,
    /// What is published; begins with [`snapshot_of`] the replayed brain's picture.
    pub directory: Directory,
    /// The DHT.
    pub dht: Arc<dyn GroupDht>,
    /// Peers that could not be dialled, from the [`super::directory::Locator`].
    pub failed: mpsc::Receiver<PeerId>,
    /// Both clocks.
    pub clock: Clock,
}

/// This peer as the brain knows it.
pub fn me(identity: &Identity, address: &Address, addrs: Vec<PeerAddr>) -> Me {
    Me {
        member: identity.member(address),
        certificate: Arc::new(identity.openpgp.certificate().as_bytes().to_vec()),
        addrs,
        key: Arc::new(identity.key.clone()),
    }
}

/// The directory's form of a picture.
pub fn snapshot_of(picture: &Picture) -> Snapshot {
    let groups = picture.groups.iter().map(|(name, pinned)| {
        let (gd, signed_gd) = (pinned.gd.clone(), Arc::clone(&pinned.signed_gd));
        (name.clone(), KnownGroup { key: pinned.key, retired: pinned.retired.clone(), gd, signed_gd })
    });
    let peers = picture.peers.iter().map(|(peer, located)| {
        let (address, addrs) = (located.address.clone(), located.addrs.clone());
        (*peer, KnownPeer { address, peer_id: *peer, addrs, certificate: located.certificate.clone() })
    });
    let (roster, contacts) = (Arc::clone(&picture.roster), picture.contacts.clone());
    Snapshot { roster, groups: groups.collect(), contacts, peers: peers.collect() }
}

/// Starts the actor around a replayed brain, on the current actix system.
pub fn start(brain: Group, setup: Setup, log: Arc<dyn EventLog>) -> GroupPort {
    let first = brain.current();
    let snapshot = Arc::new(snapshot_of(&first));
    setup.directory.publish((*snapshot).clone());
    let (rosters, roster) = watch::channel(Arc::clone(&first.roster));
    let (snapshots, latest) = watch::channel(snapshot);
    let (clocks, clock_doubtful) = watch::channel(first.clock_doubtful);
    let (unpinned, candidates) = watch::channel(first.candidates.clone());
    let Setup { identity, home, client, directory, dht, failed, clock } = setup;
    let performer = GroupMaster {
        kit: Kit { identity, home, client, dht, directory: directory.clone(), clock: clock.clone() },
        directory: directory.clone(),
        rosters,
        snapshots,
        clocks,
        unpinned,
        clock_off: false,
        role: first.role,
    };
    let kit = performer.kit.clone();
    let handle = Shell::start(brain, performer, log, clock, Some(Input::Started));
    tokio::spawn(look_again(failed, handle.clone()));
    GroupPort::new(handle, kit, Watched { roster, snapshot: latest, clock_doubtful, candidates })
}

/// Has the descriptor of every peer that could not be dialled read again; the brain limits that to once a minute a peer.
async fn look_again(mut failed: mpsc::Receiver<PeerId>, handle: Handle<Group>) {
    while let Some(peer) = failed.recv().await {
        let handle = handle.clone();
        // What is found reaches the connector by the directory; the answer itself is of no use here.
        tokio::spawn(async move { handle.ask(move |token| Input::LookAgain { token, peer }).await });
    }
}

/// What actions are done with. Cheap to clone into tasks.
#[derive(Clone)]
struct Kit {
    identity: Identity,
    home: Home,
    client: PeerClient,
    dht: Arc<dyn GroupDht>,
    directory: Directory,
    clock: Clock,
}

/// The performer of the group's brain.
pub struct GroupMaster {
    kit: Kit,
    directory: Directory,
    rosters: watch::Sender<Arc<Roster>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    clocks: watch::Sender<bool>,
    unpinned: watch::Sender<Candidates>,
    clock_off: bool,
    role: Role,
}

impl GroupMaster {
    fn publish(&mut self, picture: &Picture) {
        let snapshot = Arc::new(snapshot_of(picture));
        self.directory.publish((*snapshot).clone());
        self.snapshots.send_replace(snapshot);
        self.rosters.send_if_modified(|roster| {
            let changed = **roster != *picture.roster;
            *roster = Arc::clone(&picture.roster);
            changed
        });
        self.clocks.send_replace(picture.clock_doubtful);
        self.unpinned.send_if_modified(|candidates| {
            let changed = *candidates != picture.candidates;
            candidates.clone_from(&picture.candidates);
            changed
        });
        let was = std::mem::replace(&mut self.role, picture.role);
        if picture.role == Role::Removed && was != Role::Removed {
            tracing::warn!(
                group = %picture.roster.group,
                "the group does not name this peer any more: its mailboxes stay, it sends nothing until it joins again by a new invite"
            );
        }
        let was_off = std::mem::replace(&mut self.clock_off, picture.clock_off);
        if picture.clock_off && !was_off {
            tracing::warn!(
                "this machine's clock is more than 5 minutes off its members'; nothing expires here until it is right"
            );
        }
    }
}

/// Runs what an action takes in a task of its own and tells the brain what came of it.
fn back_with(back: &Handle<Group>, work: impl Future<Output = Input> + Send + 'static) {
    let back = back.clone();
    tokio::spawn(async move {
        let input = work.await;
        // A brain that has stopped needs no answer.
        let _ = back.tell(input).await;
    });
}

impl Perform<Group> for GroupMaster {
    fn perform(&mut self, action: Action, back: &Handle<Group>) {
        let kit = self.kit.clone();
        match action {
            Action::Publish(picture) => self.publish(&picture),
            Action::SignDescriptor(descriptor) => back_with(back, kit.sign_descriptor(descriptor)),
            Action::CreateGroup(gd) => back_with(back, kit.create_group(gd)),
            Action::SignGd { gd, key } => back_with(back, kit.sign_gd(gd, key)),
            Action::RotateKey { gd, old } => back_with(back, kit.rotate_key(gd, old)),
            Action::FetchKey { group, key, ask } => back_with(back, kit.fetch_key(group, key, ask)),
            Action::ForgetKeys { group, but } => {
                tokio::spawn(kit.forget_keys(group, but));
            }
            Action::AskLeave { stage, ask } => back_with(back, kit.ask_leave(stage, ask)),
            Action::AskJoin { peer, key, descriptor, proof } => {
                back_with(back, kit.ask_join(peer, key, descriptor, proof));
            }
            Action::SendHeartbeat { peer, heartbeat, errand } => {
                back_with(back, kit.send_heartbeat(peer, heartbeat, errand));
            }
            Action::SayHello { peer } => {
                tokio::spawn(async move {
                    if let Err(error) = kit.client.post_notify(peer, &[Notice::Hello]).await {
                        tracing::debug!(%peer, %error, "a member does not hear that this peer is up");
                    }
                });
            }
            Action::FetchGd { group, ask } => back_with(back, kit.fetch_gd(group, ask)),
            Action::FetchPeer { member, ask } => back_with(back, kit.fetch_peer(member, ask)),
            Action::PublishGd { group, signed, expiry } => {
                back_with(back, kit.put(Entry::Gd, DhtKey::Group(group), signed, expiry));
            }
            Action::PublishDescriptor { address, signed, expiry } => {
                back_with(back, kit.put(Entry::Descriptor, DhtKey::Peer(address), signed, expiry));
            }
        }
    }
}

impl Kit {
    async fn put(self, entry: Entry, key: DhtKey, signed: ByteBuf, expiry: WallTime) -> Input {
        let seed = Secret::new(*self.identity.key.seed());
        let password = match entry {
            Entry::Gd => seed.derive("roost 1 gd password"),
            Entry::Descriptor => seed.derive("roost 1 peer descriptor password"),
        };
        let put = self.dht.put(key.clone(), Bytes::from(signed.into_vec()), password, expiry).await;
        if let Err(why) = &put {
            tracing::info!(%key, %why, "the DHT did not take an entry; it is put again");
        }
        Input::Published { entry, ok: put.is_ok() }
    }
}
