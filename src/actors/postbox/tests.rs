//! The postbox over real files, real OpenPGP and real HTTPS: alice's peer on loopback, rita's postbox, a DHT of a few lines.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::actors::directory::{KnownGroup, KnownPeer};
use crate::actors::shell::Append;
use crate::core::Brain;
use crate::core::fetch::Offer;
use crate::core::postbox::access::{
    BodyState, MailboxFailure, MailboxName, MailboxReply, MailboxRequest, Message, Standard, Uid, View,
};
use crate::core::postbox::io::{Settings, Shown};
use crate::core::postbox::{Event, PostboxStatus};
use crate::fragment::{Codec, Layout, ManifestBuilder};
use crate::mime;
use crate::model::dht::value_hash;
use crate::model::group::{GroupDescriptor, Member, PeerAddr, Roster};
use crate::model::manifest::Manifest;
use crate::model::notification::{Nr, Ns, Outcome};
use crate::model::{Encoding, Policy};
use crate::net::https_client::ClientBounds;
use crate::net::https_server::{HttpsServer, ServerBounds};
use crate::net::locate::{Locate, Located};
use crate::net::peer_api::{ApiError, PeerApi};
use crate::net::tls::TlsIdentity;
use crate::net::upload_limit::UploadLimit;
use crate::seal::{decrypt_nr, seal_mail, seal_ns};
use crate::wire::notify::Notice;
use crate::wire::{PeerKey, Signed};

mod others;
use others::Others;

const MAIL: &[u8] = b"From: Alice <alice@acme>\r\nTo: rita@readers\r\nSubject: hello\r\n\r\nthe body\r\n";

fn key(seed: u8) -> PeerKey {
    PeerKey::from_seed(&[seed; 32])
}
fn alice() -> PeerId {
    key(1).peer_id()
}
fn at(text: &str) -> Address {
    text.parse().unwrap()
}
fn identity(address: &str) -> Arc<SecretIdentity> {
    Arc::new(SecretIdentity::generate(&at(address), crate::clock::system_wall()).unwrap())
}

/// Alice's peer: it only takes notices.
#[derive(Clone, Default)]
struct AlicePeer {
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl PeerApi for AlicePeer {
    fn is_known(&self, _: &PeerId) -> bool {
        true
    }
    fn reserve(&self, _: &PeerId, _: &MailId, _: u64) -> Result<(), ApiError> {
        Ok(())
    }
    fn give_back(&self, _: &PeerId, _: &MailId, _: u64) {}
    fn served(&self, _: &PeerId, _: &MailId, _: u64) {}
    async fn notify(&self, _: PeerId, notices: Vec<Notice>) -> Result<(), ApiError> {
        let sealed = notices.into_iter().filter_map(|notice| match notice {
            Notice::Nr { sealed, .. } => Some(sealed.into_vec()),
            _ => None,
        });
        self.taken.lock().unwrap().extend(sealed);
        Ok(())
    }
}

/// Alice is at this port, if anywhere.
struct AliceAt(Mutex<Option<u16>>);

impl Locate for AliceAt {
    fn locate(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        let port = *self.0.lock().unwrap();
        let addr = |https| PeerAddr { host: "127.0.0.1".to_owned(), https, libp2p: 1 };
        let addrs = port.filter(|_| peer == alice()).map(addr).into_iter().collect();
        Box::pin(async { Located { addrs, private: true } })
    }
    fn locate_again(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        self.locate(peer)
    }
}

/// A DHT of one peer.
#[derive(Default)]
struct OneDht {
    entries: Mutex<Vec<(DhtKey, DhtValue, Secret)>>,
    deleted: Mutex<BTreeSet<Digest>>,
}

impl NoticeDht for OneDht {
    fn put(&self, key: DhtKey, value: Bytes, password: Secret, _: WallTime) -> BoxFuture<'_, Result<(), String>> {
        let entry = DhtValue { id: value_hash(&value), publisher: alice(), value };
        self.entries.lock().unwrap().push((key, entry, password));
        Box::pin(async { Ok(()) })
    }
    fn poll(&self, key: DhtKey, have: BTreeSet<Digest>) -> BoxFuture<'_, Result<DhtNews, String>> {
        let entries = self.entries.lock().unwrap();
        let new = entries.iter().filter(|(k, value, _)| *k == key && !have.contains(&value.id));
        let values = new.map(|(_, value, _)| value.clone()).collect();
        Box::pin(async { Ok(DhtNews { values, gone: Vec::new(), sure: true }) })
    }
    fn get(&self, _: DhtKey) -> BoxFuture<'_, Result<Vec<Bytes>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn look(&self, _: DhtKey, value: Digest, _: Secret) -> BoxFuture<'_, Result<Look, String>> {
        let deleted = self.deleted.lock().unwrap().contains(&value);
        let is_there = self.entries.lock().unwrap().iter().any(|(_, entry, _)| entry.id == value);
        let look = if deleted {
            Look::Deleted
        } else if is_there {
            Look::There
        } else {
            Look::Missing
        };
        Box::pin(async move { Ok(look) })
    }
    fn del(&self, key: DhtKey, value: Digest, password: Secret) -> BoxFuture<'_, Result<(), String>> {
        self.entries.lock().unwrap().retain(|(k, v, p)| (k, v.id, p) != (&key, value, &password));
        self.deleted.lock().unwrap().insert(value);
        Box::pin(async { Ok(()) })
    }
}

/// Keeps events, as a journal does.
#[derive(Default)]
struct Memory(Mutex<Vec<Vec<u8>>>);

impl EventLog for Memory {
    fn append(&self, _: &'static str, events: Vec<Vec<u8>>) -> Append {
        self.0.lock().unwrap().extend(events);
        Box::pin(async { Ok(()) })
    }
}

/// Sealed mails with their manifests.
type Sealed = Arc<Mutex<BTreeMap<MailId, (Vec<u8>, Signed<Manifest>)>>>;

/// A fetcher that finds every block of the sealed mails that it has been given.
struct Found {
    home: Home,
    mails: Sealed,
}

impl Perform<Fetch> for Found {
    fn perform(&mut self, action: fetch::Action, back: &Handle<Fetch>) {
        let nothing = fetch::SourceFailure::Nothing;
        let mails = self.mails.lock().unwrap();
        let layout = |m: &Manifest| Layout::new(m.length, m.encoding).unwrap();
        let input = match action {
            fetch::Action::AskOffer { h, source, .. } => {
                let offer = Offer { whole: true, fragments: vec![(1, 0)] };
                let offer = if mails.contains_key(&h) { Ok(offer) } else { Err(nothing) };
                fetch::Input::Offered { h, source, offer }
            }
            fetch::Action::GetManifest { order, source, .. } => {
                let found = mails.get(&order.h).map(|(_, m)| (layout(m), Box::new(m.clone())));
                fetch::Input::Manifest { h: order.h, source, manifest: found.ok_or(nothing) }
            }
            fetch::Action::Open { h, manifest } => {
                let layout = layout(&manifest);
                let have = (0..layout.stripes()).flat_map(|s| (0..layout.k()).map(move |i| (s, i))).collect();
                fetch::Input::Opened { h, have }
            }
            fetch::Action::Finish { h } => {
                let path = self.home.fetch_dir().join(h.to_string());
                fs::write(&path, &mails[&h].0).unwrap();
                fetch::Input::Finished { h, result: Ok(PulledMail::File(path)) }
            }
            _ => return,
        };
        let back = back.clone();
        tokio::spawn(async move { back.tell(input).await });
    }
}

struct World {
    _dir: TempDir,
    home: Home,
    alice: Arc<SecretIdentity>,
    rita: Arc<SecretIdentity>,
    group_key: Fingerprint,
    peer: AlicePeer,
    _server: HttpsServer,
    locate: Arc<AliceAt>,
    https: u16,
    dht: Arc<OneDht>,
    log: Arc<Memory>,
    mails: Sealed,
    others: Arc<Others>,
    port: PostboxPort,
}

fn member(address: &str, peer_id: PeerId, identity: &SecretIdentity) -> Member {
    Member { address: at(address), peer_id, fingerprint: identity.fingerprint() }
}

fn directory(alice_id: &SecretIdentity, rita: &SecretIdentity, group_key: Fingerprint) -> Directory {
    let me = member("rita@readers", key(2).peer_id(), rita);
    let gd = GroupDescriptor {
        group: "acme".parse().unwrap(),
        version: 1,
        members: vec![member("alice@acme", alice(), alice_id)],
        policy: Policy::default(),
        key_holders: BTreeSet::new(),
        min_protocol: 1,
        group_certificate: Vec::new(),
        at: WallTime(0),
        handovers: Vec::new(),
        built_on: Vec::new(),
        leaving: BTreeSet::new(),
    };
    let roster = Roster {
        me: me.clone(),
        group: "readers".parse().unwrap(),
        gd_version: 0,
        policy: Policy::default(),
        members: vec![me],
        lost: BTreeSet::new(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    };
    let acme =
        KnownGroup { key: group_key, retired: BTreeSet::new(), gd: Some(Arc::new(gd)), signed_gd: Arc::default() };
    let certificate = Some(Arc::new(alice_id.certificate().as_bytes().to_vec()));
    let known = KnownPeer { address: Some(at("alice@acme")), peer_id: alice(), addrs: Vec::new(), certificate };
    Directory::new(Snapshot {
        roster: Arc::new(roster),
        groups: BTreeMap::from([("acme".parse().unwrap(), acme)]),
        contacts: BTreeSet::new(),
        peers: BTreeMap::from([(alice(), known)]),
    })
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let (alice_id, rita) = (identity("alice@acme"), identity("rita@readers"));
        let (peer, group_key) = (AlicePeer::default(), Fingerprint::new([8; 20]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = TlsIdentity::new(&key(1)).unwrap();
        let limit = Arc::new(UploadLimit::new(None));
        let server = HttpsServer::start(listener, &tls, peer.clone(), limit, ServerBounds::default()).unwrap();
        let https = server.local_addr().port();
        let locate = Arc::new(AliceAt(Mutex::new(Some(https))));
        let (dht, log, mails, others) = (Arc::default(), Arc::default(), Arc::default(), Arc::<Others>::default());
        others.contacts.lock().unwrap().insert(at("alice@acme"));
        let directory = directory(&alice_id, &rita, group_key);
        let tools = Tools { home: &home, rita: &rita, directory, locate: &locate, dht: &dht, log: &log, mails: &mails };
        let port = tools.start(others.clone());
        Self {
            _dir: dir,
            home,
            alice: alice_id,
            rita,
            group_key,
            peer,
            _server: server,
            locate,
            https,
            dht,
            log,
            mails,
            others,
            port,
        }
    }
    /// Stops the postbox and starts it from its files and events.
    async fn restart(&mut self) {
        self.port.handle().stop().await;
        let directory = directory(&self.alice, &self.rita, self.group_key);
        let tools = Tools {
            home: &self.home,
            rita: &self.rita,
            directory,
            locate: &self.locate,
            dht: &self.dht,
            log: &self.log,
            mails: &self.mails,
        };
        self.port = tools.start(self.others.clone());
    }

    /// Alice seals a mail for rita: its ns.
    fn seal(&self, mail: &[u8], n: u8) -> Ns {
        let now = crate::clock::system_wall();
        let mut sealed = Vec::new();
        seal_mail(mail, &self.alice, &[self.rita.certificate().clone()], &mut sealed, now).unwrap();
        let built = ManifestBuilder::from_reader(&sealed[..], alice(), Encoding::Whole, &Codec::default()).unwrap();
        let (h, length, digest) = (built.h, built.length, built.digest);
        let split = mime::split::split(mail);
        self.mails.lock().unwrap().insert(h, (sealed, key(1).sign(built)));
        Ns {
            submission: SubmissionId::new([n; 16]),
            h,
            length,
            digest,
            to: at("rita@readers"),
            from: at("alice@acme"),
            from_fingerprint: self.alice.fingerprint(),
            owner: alice(),
            group: "acme".parse().unwrap(),
            group_key: self.group_key,
            expiry: now + Duration::from_secs(86_400),
            header_block: split.header_block,
            structure: split.structure,
            secret: Secret::new([n; 32]),
        }
    }

    fn sealed_ns(&self, ns: &Ns) -> Vec<u8> {
        seal_ns(ns, &self.alice, self.rita.certificate(), crate::clock::system_wall()).unwrap()
    }

    async fn inbox(&self) -> Vec<Message> {
        match self.port.request(View::Stubs, MailboxRequest::Open(MailboxName::inbox())).await {
            MailboxReply::Opened { messages, .. } => messages,
            other => panic!("{other:?}"),
        }
    }

    async fn open(&self, uid: Uid) -> MailboxReply {
        self.port.request(View::Stubs, MailboxRequest::Body { mailbox: MailboxName::inbox(), uid }).await
    }

    /// Waits until the postbox shows this of itself.
    async fn until(&self, shown: impl Fn(&PostboxStatus) -> bool) {
        for _ in 0..2000 {
            if shown(&self.port.observe().await.unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.port.observe().await.unwrap());
    }

    fn read_nr(&self, sealed: &[u8]) -> Nr {
        decrypt_nr(sealed, &self.alice).unwrap().verify(self.rita.certificate()).unwrap()
    }
}

struct Tools<'a> {
    home: &'a Home,
    rita: &'a Arc<SecretIdentity>,
    directory: Directory,
    locate: &'a Arc<AliceAt>,
    dht: &'a Arc<OneDht>,
    log: &'a Arc<Memory>,
    mails: &'a Sealed,
}

impl Tools<'_> {
    fn start(self, others: Arc<Others>) -> PostboxPort {
        let clock = Clock::system();
        let client = PeerClient::new(TlsIdentity::new(&key(2)).unwrap(), self.locate.clone(), ClientBounds::default());
        let found = Found { home: self.home.clone(), mails: self.mails.clone() };
        let fetcher = Shell::start(Fetch::default(), found, Arc::new(Memory::default()), clock.clone(), None);
        let mut brain = Postbox::new(Settings::new(at("rita@readers")));
        for event in self.log.0.lock().unwrap().iter() {
            brain.replay(crate::wire::decode::<Event>(event).unwrap());
        }
        let parts = Parts {
            home: self.home.clone(),
            address: at("rita@readers"),
            peer_id: key(2).peer_id(),
            identity: self.rita.clone(),
            directory: self.directory,
            client,
            fetcher,
            dht: self.dht.clone(),
            neighbours: others,
            clock,
        };
        start(brain, parts, self.log.clone())
    }
}

#[actix::test]
async fn an_ns_becomes_a_stub_its_body_is_opened_and_the_nr_reaches_the_sender() {
    let mut world = World::new().await;
    let ns = world.seal(MAIL, 1);
    let mut changes = world.port.changes();
    world.port.take_ns(alice(), world.sealed_ns(&ns)).await.unwrap();
    changes.changed().await.unwrap();
    let stub = world.inbox().await.remove(0);
    assert_eq!((stub.body, stub.size), (BodyState::Absent, u64::try_from(MAIL.len()).unwrap()));
    assert_eq!(world.port.head(stub.key).await.unwrap().header_block, ns.header_block);
    world.restart().await;
    let MailboxReply::Body(path) = world.open(stub.uid).await else { panic!() };
    assert_eq!(fs::read(path).unwrap(), MAIL);
    assert!(signed_path(&world.home, stub.key).is_file());
    world.until(|status| status.nr_open == 0).await;
    let nr = world.read_nr(&world.peer.taken.lock().unwrap()[0]);
    assert_eq!((nr.submission, nr.h, nr.outcome), (ns.submission, ns.h, Outcome::Received));
    world.restart().await;
    world.port.take_ns(alice(), world.sealed_ns(&ns)).await.unwrap();
    assert_eq!(world.inbox().await.len(), 1);
}

#[actix::test]
async fn with_the_sender_off_line_ns_and_nr_go_through_the_dht() {
    let mut world = World::new().await;
    *world.locate.0.lock().unwrap() = None;
    let ns = world.seal(MAIL, 1);
    let key = DhtKey::Ns(at("rita@readers"));
    world.dht.put(key, world.sealed_ns(&ns).into(), ns.ns_password(), ns.expiry).await.unwrap();
    world.restart().await;
    world.until(|status| status.stubs == 1).await;
    let uid = world.inbox().await[0].uid;
    assert!(matches!(world.open(uid).await, MailboxReply::Body(_)));
    world.until(|status| status.nr_in_dht == 1).await;
    let (under, entry, password) = world.dht.entries.lock().unwrap().last().cloned().unwrap();
    assert_eq!((under, &password), (DhtKey::Nr(at("alice@acme")), &ns.nr_password()));
    assert_eq!(world.read_nr(&entry.value).outcome, Outcome::Received);
    assert_eq!(world.dht.entries.lock().unwrap().len(), 1, "the ns was deleted");
    // Those who kept it restart: entries live in memory only.
    world.dht.entries.lock().unwrap().clear();
    world.restart().await;
    while world.dht.entries.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_, entry, _) = world.dht.entries.lock().unwrap().last().cloned().unwrap();
    assert_eq!(world.read_nr(&entry.value).outcome, Outcome::Received, "the nr is put there again");
    world.dht.del(DhtKey::Nr(at("alice@acme")), entry.id, password).await.unwrap();
    world.restart().await;
    world.until(|status| status.nr_open == 0).await;
    *world.locate.0.lock().unwrap() = Some(world.https);
    assert!(world.peer.taken.lock().unwrap().is_empty());
}

#[actix::test]
async fn what_is_forged_or_turned_is_refused_and_files_nothing() {
    let world = World::new().await;
    let mallory = identity("alice@acme");
    let ns = world.seal(MAIL, 1);
    let mine = Ns { from_fingerprint: mallory.fingerprint(), ..ns.clone() };
    let now = crate::clock::system_wall();
    let forged = seal_ns(&mine, &mallory, world.rita.certificate(), now).unwrap();
    let other_group = Ns { group_key: Fingerprint::new([1; 20]), ..ns.clone() };
    let other_peer = Ns { owner: PeerId::new([3; 32]), ..ns.clone() };
    let all = [forged, world.sealed_ns(&other_peer), b"noise".to_vec()];
    for sealed in all {
        let error = world.port.take_ns(alice(), sealed).await.unwrap_err();
        assert!(!error.is_passing(), "{error}");
    }
    // The named member under another group key: a newer gd may say that the key was replaced, so it may be sent again.
    let error = world.port.take_ns(alice(), world.sealed_ns(&other_group)).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(world.inbox().await.is_empty());
}

#[actix::test]
async fn a_body_under_anothers_ns_is_refused() {
    let world = World::new().await;
    let mut ns = world.seal(b"From: alice@acme\r\nSubject: other\r\n\r\nx\r\n", 1);
    let split = mime::split::split(MAIL);
    (ns.header_block, ns.structure) = (split.header_block, split.structure);
    world.port.take_ns(alice(), world.sealed_ns(&ns)).await.unwrap();
    let stub = world.inbox().await.remove(0);
    assert!(matches!(world.open(stub.uid).await, MailboxReply::Failed(MailboxFailure::Gone(_))));
    world.until(|status| status.mismatches == 1 && status.nr_open == 0).await;
    let outcome = world.read_nr(&world.peer.taken.lock().unwrap()[0]).outcome;
    assert_eq!(outcome, Outcome::Refused(crate::model::notification::Refusal::Mismatch));
    assert!(world.inbox().await.is_empty());
}

#[actix::test]
async fn a_mail_that_nobody_has_is_unavailable() {
    let world = World::new().await;
    let ns = world.seal(MAIL, 1);
    world.mails.lock().unwrap().clear();
    world.port.take_ns(alice(), world.sealed_ns(&ns)).await.unwrap();
    let uid = world.inbox().await[0].uid;
    assert!(matches!(world.open(uid).await, MailboxReply::Failed(MailboxFailure::Unavailable(_))));
}

#[actix::test]
async fn an_unknown_sender_asks_and_acceptance_brings_the_mail_and_pins_the_group() {
    let world = World::new().await;
    world.others.contacts.lock().unwrap().clear();
    let ns = world.seal(MAIL, 1);
    world.port.take_ns(alice(), world.sealed_ns(&ns)).await.unwrap();
    assert!(world.inbox().await.is_empty());
    let requests = MailboxName::standard(Standard::Requests);
    let reply = world.port.request(View::Stubs, MailboxRequest::Open(requests.clone())).await;
    let MailboxReply::Opened { messages, .. } = reply else { panic!() };
    let card = fs::read_to_string(body_path(&world.home, messages[0].key)).unwrap();
    for part in ["Subject: Request: hello", "alice@acme", &world.alice.fingerprint().to_string(), "Size:"] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }
    let uids = vec![messages[0].uid];
    world.port.request(View::Stubs, MailboxRequest::Move { mailbox: requests, uids, to: MailboxName::inbox() }).await;
    let uid = world.inbox().await[0].uid;
    assert!(matches!(world.open(uid).await, MailboxReply::Body(_)));
    assert_eq!(*world.others.pinned.lock().unwrap(), ["acme".parse().unwrap()]);
    assert_eq!(world.port.requests().await.unwrap().senders.len(), 1);
}

#[actix::test]
async fn what_mail_programs_append_and_what_is_submitted_is_there() {
    let mut world = World::new().await;
    let file = world.port.append_path();
    fs::write(&file, MAIL).unwrap();
    let (mailbox, flags) = (MailboxName::inbox(), BTreeSet::new());
    let append = MailboxRequest::Append { mailbox, file: file.clone(), flags, internal_date: None };
    assert!(matches!(world.port.request(View::Stubs, append).await, MailboxReply::Appended(_, Uid(1))));
    assert!(!file.exists());
    let submission = SubmissionId::new([5; 16]);
    fs::write(world.home.spool_mail_of_version_1(&submission), MAIL).unwrap();
    for _ in 0..2 {
        world.port.file_spooled(submission, Standard::Inbox).await.unwrap();
    }
    let shown = Shown {
        submission,
        keywords: std::iter::once("$Sealed".to_owned()).collect(),
        at: WallTime(1),
        mails: std::iter::empty().collect(),
        done: false,
    };
    world.port.show(shown).await.unwrap();
    world.until(|status| status.mailboxes["Outbox"] == 1).await;
    let trash = MailboxName::standard(Standard::Trash);
    let mailbox = MailboxName::standard(Standard::Outbox);
    world.port.request(View::Stubs, MailboxRequest::Move { mailbox, uids: vec![Uid(1)], to: trash }).await;
    world.until(|status| status.mailboxes["Outbox"] == 0).await;
    assert_eq!(*world.others.cancelled.lock().unwrap(), [submission]);
    world.restart().await;
    let inbox = world.inbox().await;
    assert_eq!(inbox.len(), 2);
    for message in inbox {
        let MailboxReply::Body(path) = world.open(message.uid).await else { panic!() };
        assert_eq!(fs::read(path).unwrap(), MAIL);
    }
}
