//! Peers over real HTTPS on loopback, with real OpenPGP; only the DHT is a map in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{GroupDht, GroupPort, Setup, me, snapshot_of, start};
use crate::actors::directory::{Directory, Locator};
use crate::actors::identity::Identity;
use crate::actors::shell::{Append, EventLog};
use crate::clock::{Clock, system_wall};
use crate::core::Brain;
use crate::core::group::{Event, Group, GroupError, INVITE_VALIDITY, Input, Reply};
use crate::model::card::{Invite, JoinRequest};
use crate::model::dht::DhtKey;
use crate::model::group::{Heartbeat, HeartbeatAnswer, PeerAddr};
use crate::model::{Address, MailId, PeerId, Policy, Secret, WallTime};
use crate::net::https_client::{ClientBounds, PeerClient};
use crate::net::https_server::{HttpsServer, ServerBounds};
use crate::net::peer_api::{ApiError, PeerApi};
use crate::net::tls::TlsIdentity;
use crate::net::upload_limit::UploadLimit;
use crate::store::home::Home;
use crate::wire::decode;
use crate::wire::notify::Notice;

#[derive(Clone, Default)]
struct Map(Arc<Mutex<BTreeMap<DhtKey, Vec<Bytes>>>>);

impl GroupDht for Map {
    fn put(&self, key: DhtKey, value: Bytes, _: Secret, _: WallTime) -> BoxFuture<'_, Result<(), String>> {
        self.0.lock().unwrap().entry(key).or_default().push(value);
        async { Ok(()) }.boxed()
    }
    fn get(&self, key: DhtKey) -> BoxFuture<'_, Result<Vec<Bytes>, String>> {
        let values = self.0.lock().unwrap().get(&key).cloned().unwrap_or_default();
        async { Ok(values) }.boxed()
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Vec<u8>>>>);

impl EventLog for Log {
    fn append(&self, _: &'static str, events: Vec<Vec<u8>>) -> Append {
        self.0.lock().unwrap().extend(events);
        Box::pin(async { Ok(()) })
    }
}

fn nothing<T>() -> Result<T, ApiError> {
    Err(ApiError::NotFound { what: "that".to_owned() })
}

/// A peer that has a group and no mail.
#[derive(Clone)]
struct Api {
    group: GroupPort,
    directory: Directory,
    hellos: Arc<Mutex<Vec<PeerId>>>,
}

impl PeerApi for Api {
    fn is_known(&self, caller: &PeerId) -> bool {
        self.directory.snapshot().peers.contains_key(caller)
    }
    fn reserve(&self, _: &PeerId, _: &MailId, _: u64) -> Result<(), ApiError> {
        Ok(())
    }
    fn give_back(&self, _: &PeerId, _: &MailId, _: u64) {}
    fn served(&self, _: &PeerId, _: &MailId, _: u64) {}
    async fn pubkey(&self, _: PeerId, address: Address) -> Result<Bytes, ApiError> {
        let held = self.directory.snapshot().at(&address).and_then(|known| known.certificate.clone());
        held.map_or_else(nothing, |certificate| Ok(Bytes::from(certificate.to_vec())))
    }
    async fn notify(&self, caller: PeerId, notices: Vec<Notice>) -> Result<(), ApiError> {
        let hellos = notices.iter().filter(|notice| **notice == Notice::Hello).map(|_| caller);
        self.hellos.lock().unwrap().extend(hellos);
        Ok(())
    }
    async fn group(&self, _: PeerId) -> Result<Bytes, ApiError> {
        let roster = self.directory.snapshot();
        let own = roster.groups.get(&roster.roster.group).map(|group| group.signed_gd.to_vec());
        own.map_or_else(nothing, |signed| Ok(Bytes::from(signed)))
    }
    async fn heartbeat(&self, caller: PeerId, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        self.group.heartbeat(caller, heartbeat).await
    }
    async fn join(&self, caller: PeerId, request: JoinRequest) -> Result<Bytes, ApiError> {
        self.group.admit(caller, request).await
    }
}

/// A running peer with a home of its own.
struct Peer {
    folder: tempfile::TempDir,
    address: Address,
    group: GroupPort,
    directory: Directory,
    log: Log,
    api: Api,
    dht: Map,
    _server: HttpsServer,
}

impl Peer {
    async fn start(address: &str, dht: &Map) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        home.create().unwrap();
        let address: Address = address.parse().unwrap();
        Identity::create(&home, &address, system_wall()).unwrap();
        Self::run(folder, address, Log::default(), dht).await
    }

    async fn run(folder: tempfile::TempDir, address: Address, log: Log, dht: &Map) -> Self {
        let home = Home::at(folder.path());
        let identity = Identity::load(&home).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let https = listener.local_addr().unwrap().port();
        let addrs = vec![PeerAddr { host: "127.0.0.1".to_owned(), https, libp2p: 1 }];
        let mut brain = Group::new(me(&identity, &address, addrs));
        for event in log.0.lock().unwrap().iter() {
            brain.replay(decode::<Event>(event).unwrap());
        }
        let directory = Directory::new(snapshot_of(&brain.current()));
        let (tell_failed, failed) = mpsc::channel(64);
        let locator = Arc::new(Locator::new(directory.clone(), false, tell_failed));
        let tls = TlsIdentity::new(&identity.key).unwrap();
        let client = PeerClient::new(tls.clone(), locator, ClientBounds::default());
        let (dht_access, clock) = (Arc::new(dht.clone()), Clock::system());
        let setup = Setup { identity, home, client, directory: directory.clone(), dht: dht_access, failed, clock };
        let group = start(brain, setup, Arc::new(log.clone()));
        let api = Api { group: group.clone(), directory: directory.clone(), hellos: Arc::default() };
        let limit = Arc::new(UploadLimit::new(None));
        let server = HttpsServer::start(listener, &tls, api.clone(), limit, ServerBounds::default()).unwrap();
        Self { folder, address, group, directory, log, api, dht: dht.clone(), _server: server }
    }

    /// Stops it and starts it again on another port.
    async fn restart(self) -> Self {
        self.group.handle.stop().await;
        let Self { folder, address, log, dht, .. } = self;
        Self::run(folder, address, log, &dht).await
    }

    fn peer_id(&self) -> PeerId {
        self.directory.snapshot().roster.me.peer_id
    }
    async fn create(&self) -> String {
        let (group, policy) = (self.address.group().clone(), Policy::default());
        match self.group.handle.ask(|token| Input::CreateGroup { token, group, policy }).await.unwrap() {
            Reply::Created { recovery, .. } => recovery.0.to_string(),
            other => panic!("{other:?}"),
        }
    }
    async fn invite(&self, name: &str) -> Invite {
        let (name, secret) = (name.parse().unwrap(), Secret::new([7; 32]));
        match self
            .group
            .handle
            .ask(|token| Input::Invite { token, name, secret, valid: INVITE_VALIDITY })
            .await
            .unwrap()
        {
            Reply::Invite(invite) => invite,
            other => panic!("{other:?}"),
        }
    }
    async fn join(&self, invite: Invite) -> Reply {
        self.group.handle.ask(|token| Input::Join { token, invite }).await.unwrap()
    }
    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut snapshots = self.group.snapshots();
        let wait = async {
            while !holds(self) {
                snapshots.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap_or_else(|_| panic!("{}: {what}", self.address));
    }
    fn has_certificate_of(&self, other: &Peer) -> bool {
        let snapshot = self.directory.snapshot();
        let known = snapshot.at(&other.address).cloned();
        known.is_some_and(|known| known.certificate.is_some() && known.peer_id == other.peer_id())
    }
}

#[actix::test]
async fn a_group_forms_over_https_and_survives_a_restart_on_another_port() {
    let dht = Map::default();
    let alice = Peer::start("alice@acme", &dht).await;
    let recovery = alice.create().await;
    assert!(recovery.starts_with("roost-recovery:") && recovery.len() > 500);
    let key = alice.folder.path().join("keys/group-acme.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let bob = Peer::start("bob@acme", &dht).await;
    let invite = alice.invite("bob").await;
    assert_eq!(bob.join(invite.clone()).await, Reply::Joined { gd_version: 2, members: 2 });
    let carol = Peer::start("carol@acme", &dht).await;
    let to_carol = alice.invite("carol").await;
    assert_eq!(carol.join(to_carol.clone()).await, Reply::Joined { gd_version: 3, members: 3 });
    for peer in [&alice, &bob, &carol] {
        peer.until("three members with certificates", |peer| {
            peer.directory.snapshot().roster.members.len() == 3
                && [&alice, &bob, &carol].iter().all(|other| peer.has_certificate_of(other))
        })
        .await;
    }
    assert_eq!(bob.group.rosters().borrow().gd_version, 3);

    let bob = bob.restart().await;
    assert_eq!(bob.directory.snapshot().roster.members.len(), 3, "from its own disk");
    let place = bob.directory.snapshot().peers[&bob.peer_id()].addrs.clone();
    for peer in [&alice, &carol] {
        peer.until("bob's new port", |peer| peer.directory.snapshot().peers[&bob.peer_id()].addrs == place).await;
    }
    assert!(alice.api.hellos.lock().unwrap().contains(&bob.peer_id()), "it said hello");

    // Somebody else with carol's invite.
    let imposter = Peer::start("carol@acme", &dht).await;
    let error = imposter.join(to_carol).await;
    assert!(
        matches!(&error, Reply::Refused(GroupError::JoinRefused { why, .. }) if why.contains("another peer")),
        "{error:?}"
    );
}

#[actix::test]
async fn a_card_brings_a_contact_whose_peer_is_off() {
    let dht = Map::default();
    let alice = Peer::start("alice@acme", &dht).await;
    alice.create().await;
    let bob = Peer::start("bob@acme", &dht).await;
    let invite = alice.invite("bob").await;
    assert!(matches!(bob.join(invite).await, Reply::Joined { .. }));
    alice.until("bob's certificate", |alice| alice.has_certificate_of(&bob)).await;
    let Reply::Card(card) = bob.group.handle.ask(|token| Input::MakeCard { token }).await.unwrap() else { panic!() };
    assert_eq!(card.peers.len(), 2);
    let peer_id = bob.peer_id();
    bob.group.handle.stop().await;
    drop(bob);
    dht.0.lock().unwrap().clear();

    let rita = Peer::start("rita@readers", &dht).await;
    rita.create().await;
    let reply = rita.group.handle.ask(|token| Input::AddContact { token, card }).await.unwrap();
    assert_eq!(reply, Reply::ContactAdded { gd_version: Some(2), certificate: true, note: None });
    let snapshot = rita.directory.snapshot();
    let known = snapshot.at(&"bob@acme".parse().unwrap()).unwrap();
    assert_eq!(known.peer_id, peer_id);
    assert!(!known.addrs.is_empty(), "by its card");
    assert!(snapshot.is_unknown(&"nobody@acme".parse().unwrap()));
}

#[actix::test]
async fn garbage_from_strangers_is_refused() {
    let dht = Map::default();
    let alice = Peer::start("alice@acme", &dht).await;
    alice.create().await;
    let mallory = PeerId::new([9; 32]);
    let garbage = serde_bytes::ByteBuf::from(vec![1, 2, 3]);
    let beat = Heartbeat { gd: Some(garbage.clone()), descriptors: vec![garbage], ..Heartbeat::default() };
    let error = alice.group.heartbeat(mallory, beat).await.unwrap_err();
    assert!(matches!(error, ApiError::Forbidden { gd_version: Some(1), .. }));
    let request = JoinRequest { descriptor: vec![1, 2, 3], proof: vec![] };
    assert!(matches!(alice.group.admit(mallory, request).await, Err(ApiError::BadRequest { .. })));
}
