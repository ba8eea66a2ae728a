//! The replicator over real HTTPS and real files: an owner's peer on loopback, and a member that mirrors from it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::actors::serve_parts::{fragment_of_whole, mirrored_fragment, mirrored_manifest};
use crate::actors::serve_together;
use crate::actors::shell::Append;
use crate::core::outbox::{self, MailFacts};
use crate::core::replicator::{Config, Lookup, MirrorFailure, Reply};
use crate::fragment::stream::FragmentReader;
use crate::fragment::{Layout, ManifestBuilder};
use crate::model::group::{Member, PeerAddr};
use crate::model::holding::{HoldingRefusal, HoldingState};
use crate::model::manifest::Manifest;
use crate::model::msglist::{Ending, Entry, EntryBody, Epoch, Head, MailEntry, Seq, Tombstone};
use crate::model::{ByteSize, Encoding, Fingerprint, Policy, Urgency, WallTime};
use crate::net::body_source::BodySource;
use crate::net::https_client::ClientBounds;
use crate::net::https_server::{HttpsServer, ServerBounds};
use crate::net::locate::{Locate, Located};
use crate::net::peer_api::{ApiError, PeerApi};
use crate::net::tls::TlsIdentity;
use crate::net::upload_limit::UploadLimit;
use crate::store::files::{FILE_MODE, write_durable};
use crate::wire::Signed;
use crate::wire::http::{HoldingsAnswer, PartsAnswer, PartsPost};
use crate::wire::msglist::{Page, Run, chain_next, chain_start, encode_entry};

const KN: Encoding = Encoding::Fragments { k: 3, n: 5 };

fn key(seed: u8) -> PeerKey {
    PeerKey::from_seed(&[seed; 32])
}
/// Alice owns mail; bob mirrors.
fn alice() -> PeerId {
    key(1).peer_id()
}
fn alice_at() -> Address {
    "alice@acme".parse().unwrap()
}

/// A sealed mail with its signed manifest.
#[derive(Clone)]
struct Mail {
    bytes: Vec<u8>,
    manifest: Signed<Manifest>,
}

fn mail(length: usize, encoding: Encoding) -> Mail {
    let bytes: Vec<u8> = (0..length).map(|x| u8::try_from((x * 13 + x / 997) % 256).unwrap()).collect();
    let manifest = ManifestBuilder::from_reader(&bytes[..], alice(), encoding, &Codec::default()).unwrap();
    Mail { bytes, manifest: key(1).sign(manifest) }
}

#[derive(Default)]
struct Outbox {
    entries: Vec<Vec<u8>>,
    told: BTreeMap<(MailId, Part), HoldingState>,
}

/// The owner's peer: its outbox on disk, its msglist, what it was told.
#[derive(Clone)]
struct AlicePeer {
    home: Home,
    /// Whether it gives several parts in one answer; earlier versions do not.
    together: bool,
    /// How many parts it gave in each such answer.
    given: Arc<Mutex<Vec<usize>>>,
    encoding: Encoding,
    outbox: Arc<Mutex<Outbox>>,
    changed: Arc<tokio::sync::Notify>,
}

impl AlicePeer {
    fn append(&self, body: EntryBody) {
        let mut outbox = self.outbox.lock().unwrap();
        let seq = Seq(u64::try_from(outbox.entries.len()).unwrap() + 1);
        outbox.entries.push(encode_entry(&Entry { at: Cursor { epoch: Epoch(7), seq }, body }));
        self.changed.notify_waiters();
    }
    fn publish(&self, mail: &Mail) {
        let m = &mail.manifest;
        write_durable(&self.home.outbox_blob(&m.h), &mail.bytes, FILE_MODE).unwrap();
        write_durable(&self.home.outbox_manifest(&m.h), m.as_bytes(), FILE_MODE).unwrap();
        let expiry = crate::clock::system_wall() + Duration::from_secs(86_400);
        let (h, length, digest, encoding) = (m.h, m.length, m.digest, m.encoding);
        self.append(EntryBody::Mail(MailEntry { h, length, digest, expiry, encoding, for_owner: vec![] }));
    }
    fn page(&self, since: Cursor) -> Page {
        let outbox = self.outbox.lock().unwrap();
        let skip = usize::try_from(since.seq.0).unwrap();
        if skip >= outbox.entries.len() {
            return Page::default();
        }
        let start = chain_start(&alice(), Epoch(7));
        let chain = outbox.entries.iter().fold(start, |chain, entry| chain_next(&chain, entry));
        let at = Cursor { epoch: Epoch(7), seq: Seq(u64::try_from(outbox.entries.len()).unwrap()) };
        let head = key(1).sign(Head { owner: alice(), at, chain, base_seq: Seq(0), base_chain: start });
        let entries = outbox.entries[skip..].iter().map(|e| ByteBuf::from(e.clone())).collect();
        let run = Run { entries, after: since.seq, head: ByteBuf::from(head.as_bytes().to_vec()), base: None };
        Page { runs: vec![run], ..Page::default() }
    }
    /// Waits until bob's word on a part is what is expected; the test runner's patience is the limit.
    async fn is_told(&self, h: MailId, expected: impl Fn(&HoldingState) -> bool) -> Part {
        loop {
            let told = self.outbox.lock().unwrap().told.clone();
            if let Some(((_, part), _)) = told.iter().find(|((mail, _), state)| *mail == h && expected(state)) {
                return *part;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn nothing<T>() -> Result<T, ApiError> {
    Err(ApiError::NotFound { what: "It".to_owned() })
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
    async fn sealed(&self, _: PeerId, h: MailId) -> Result<BodySource, ApiError> {
        BodySource::open(self.home.outbox_blob(&h)).await.or_else(|_| nothing())
    }
    async fn manifest(&self, _: PeerId, h: MailId, _: Option<u8>) -> Result<BodySource, ApiError> {
        BodySource::open(self.home.outbox_manifest(&h)).await.or_else(|_| nothing())
    }
    async fn fragment(&self, _: PeerId, h: MailId, k: u8, i: u8) -> Result<BodySource, ApiError> {
        let path = self.home.outbox_blob(&h);
        let Ok(length) = std::fs::metadata(&path).map(|file| file.len()) else { return nothing() };
        fragment_of_whole(path, length, self.encoding, (k, i), &Codec::default()).await
    }
    async fn parts(&self, _: PeerId, post: PartsPost) -> Result<PartsAnswer, ApiError> {
        if !self.together {
            return nothing();
        }
        let known = |(h, _): &(MailId, Part)| {
            let read = std::fs::read(self.home.outbox_manifest(h)).ok();
            let manifest = read.and_then(|bytes| Signed::<Manifest>::verify(&bytes).ok());
            manifest.map_or(outbox::Lookup::Unknown, |m| {
                let (length, digest, encoding) = (m.length, m.digest, m.encoding);
                outbox::Lookup::Owned(MailFacts { h: *h, length, digest, expiry: WallTime(1), encoding })
            })
        };
        let (wanted, _) = serve_together::sort(&post.parts, post.parts.iter().map(known).collect());
        let given = serve_together::read(self.home.clone(), Codec::default(), wanted).await;
        self.given.lock().unwrap().push(given.parts.len());
        Ok(given)
    }
    async fn msglist(&self, _: PeerId, since: Cursor, wait: Duration) -> Result<Page, ApiError> {
        let changed = self.changed.notified();
        let page = self.page(since);
        if page.runs.is_empty() {
            let _ = tokio::time::timeout(wait, changed).await;
            return Ok(self.page(since));
        }
        Ok(page)
    }
    async fn holdings(&self, caller: PeerId, post: HoldingsPost) -> Result<HoldingsAnswer, ApiError> {
        if let HoldingsPost::Batch(bytes) = post {
            let holdings = Signed::<Holdings>::verify(&bytes).unwrap();
            assert_eq!((holdings.member, holdings.owner), (caller, alice()));
            let told = holdings.items.iter().map(|item| ((item.h, item.part), item.state.clone()));
            self.outbox.lock().unwrap().told.extend(told);
        }
        Ok(HoldingsAnswer::default())
    }
}

/// Alice is at this port; nobody else is anywhere.
struct OnlyAlice(u16);

impl Locate for OnlyAlice {
    fn locate(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: self.0, libp2p: 1 };
        let addrs = if peer == alice() { vec![addr] } else { vec![] };
        Box::pin(async { Located { addrs, private: true } })
    }
    fn locate_again(&self, _: PeerId) -> BoxFuture<'_, Located> {
        Box::pin(async { Located::default() })
    }
}

struct Memory;
impl EventLog for Memory {
    fn append(&self, _: &'static str, _: Vec<Vec<u8>>) -> Append {
        Box::pin(async { Ok(()) })
    }
}

/// A fetcher that has the mail, or not.
struct Fetched(Option<Vec<u8>>, Arc<Mutex<Vec<(MailId, PeerId)>>>);
impl Rebuild for Fetched {
    fn lied(&self, order: RebuildOrder, source: PeerId, _: String) -> BoxFuture<'static, ()> {
        self.1.lock().unwrap().push((order.h, source));
        Box::pin(async {})
    }
    fn fetch_whole(&self, _: RebuildOrder) -> BoxFuture<'static, Result<File, NotRebuilt>> {
        let bytes = self.0.clone();
        Box::pin(async move {
            let mut file = tempfile::tempfile().unwrap();
            let why = || NotRebuilt::NotNow("too few parts are left".to_owned());
            file.write_all(&bytes.ok_or_else(why)?).unwrap();
            Ok(file)
        })
    }
}

/// Alice's peer on loopback, and bob's tools.
struct World {
    _homes: (TempDir, TempDir),
    peer: AlicePeer,
    server: HttpsServer,
    bob: Home,
    client: PeerClient,
}

impl World {
    async fn new(encoding: Encoding) -> Self {
        Self::with(encoding, true).await
    }
    async fn with(encoding: Encoding, together: bool) -> Self {
        let homes = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (home, bob) = (Home::at(homes.0.path()), Home::at(homes.1.path()));
        home.create().unwrap();
        bob.create().unwrap();
        let (given, outbox, changed) = (Arc::default(), Arc::default(), Arc::default());
        let peer = AlicePeer { home, together, given, encoding, outbox, changed };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = TlsIdentity::new(&key(1)).unwrap();
        let limit = Arc::new(UploadLimit::new(None));
        let server = HttpsServer::start(listener, &tls, peer.clone(), limit, ServerBounds::default()).unwrap();
        let locate = Arc::new(OnlyAlice(server.local_addr().port()));
        let client = PeerClient::new(TlsIdentity::new(&key(2)).unwrap(), locate, ClientBounds::default());
        Self { _homes: homes, peer, server, bob, client }
    }
    fn start(&self, names: &[&str]) -> Handle<Replicator> {
        let member = |(x, name): (usize, &&str)| Member {
            address: format!("{name}@acme").parse().unwrap(),
            peer_id: key(u8::try_from(x).unwrap() + 1).peer_id(),
            fingerprint: Fingerprint::new([0; 20]),
        };
        let members: Vec<Member> = names.iter().enumerate().map(member).collect();
        let roster = Roster {
            me: members[1].clone(),
            group: "acme".parse().unwrap(),
            gd_version: 1,
            policy: Policy::default(),
            members,
            lost: BTreeSet::new(),
            leaving: BTreeSet::new(),
            silent: BTreeSet::new(),
        };
        let tools = Tools {
            client: self.client.clone(),
            home: self.bob.clone(),
            codec: Codec::default(),
            key: key(2),
            rebuild: Arc::new(Fetched(None, Arc::default())),
        };
        let brain = Replicator::new(Config { quota: ByteSize::gib(1), seed: 3 });
        start(tools, brain, roster, Arc::new(Memory), Clock::system())
    }
    fn puller(&self, fetched: Option<Vec<u8>>) -> Puller {
        self.naming_puller(fetched, &Arc::default())
    }
    fn naming_puller(&self, fetched: Option<Vec<u8>>, named: &Arc<Mutex<Vec<(MailId, PeerId)>>>) -> Puller {
        let rebuild = Arc::new(Fetched(fetched, named.clone()));
        let (client, home) = (self.client.clone(), self.bob.clone());
        Puller { client, home, codec: Codec::default(), rebuild, lies: Lies::default() }
    }
    fn order(&self, mail: &Mail, part: Part, owner_answers: bool) -> MirrorOrder {
        let m = &mail.manifest;
        MirrorOrder {
            owner: alice(),
            address: alice_at(),
            h: m.h,
            part,
            length: m.length,
            digest: m.digest,
            encoding: m.encoding,
            expiry: WallTime(u64::MAX),
            owner_answers,
            sources: vec![],
            urgency: Urgency::Prompt,
        }
    }
}

fn fragment(mail: &Mail, i: u8) -> Vec<u8> {
    let layout = Layout::new(mail.manifest.length, mail.manifest.encoding).unwrap();
    let mut reader = FragmentReader::new(std::io::Cursor::new(&mail.bytes), layout, i, &Codec::default()).unwrap();
    reader.blocks(0..layout.stripes()).flat_map(Result::unwrap).collect()
}

#[actix::test]
async fn a_member_mirrors_its_fragment_over_https_serves_it_and_drops_it_for_a_tombstone() {
    let world = World::new(KN).await;
    let mail = mail(2_500_001, KN);
    let h = mail.manifest.h;
    let replicator = world.start(&["alice", "bob", "carol", "dave", "erin", "frank"]);
    world.peer.publish(&mail);
    let part = world.peer.is_told(h, |state| *state == HoldingState::Held).await;
    let Part::Fragment { k: 3, i } = part else { panic!("{part}") };
    assert_eq!(std::fs::read(world.bob.mirror_part(&alice_at(), &h, part)).unwrap(), fragment(&mail, i));
    let Ok(Reply::Lookup(Lookup::Known(known))) = replicator.ask(move |token| Input::Lookup { token, h }).await else {
        panic!("it is not known");
    };
    assert_eq!(known.parts, BTreeSet::from([part]));
    let served = mirrored_fragment(&world.bob, &Codec::default(), &h, &known, (3, i)).await.unwrap();
    assert_eq!(served.len(), u64::try_from(fragment(&mail, i).len()).unwrap());
    assert!(mirrored_fragment(&world.bob, &Codec::default(), &h, &known, (3, (i + 1) % 5)).await.is_err());
    assert!(mirrored_manifest(&world.bob, &h, &known, None).await.unwrap().len() > 32);

    let tombstone =
        Tombstone { owner: alice(), h, ending: Ending::Received, at: WallTime(1), expiry: WallTime(u64::MAX / 2) };
    world.peer.append(EntryBody::Tombstone(key(1).sign(tombstone).to_entry()));
    world.peer.is_told(h, |state| matches!(state, HoldingState::Dropped { .. })).await;
    assert!(world.bob.mirrored_parts(&alice_at()).unwrap().is_empty());
    assert!(world.bob.mirrored_manifests(&alice_at()).unwrap().is_empty());
    world.server.stop(Duration::ZERO).await;
}

/// What came of some orders that were given together.
async fn together(puller: Puller, orders: Vec<MirrorOrder>) -> Vec<Mirrored> {
    let told = Mutex::new(Vec::new());
    let tell = |some: Vec<Mirrored>| {
        told.lock().unwrap().extend(some);
        std::future::ready(())
    };
    puller.mirror_together(orders, tell).await;
    told.into_inner().unwrap()
}

#[actix::test]
async fn short_parts_come_in_one_request_each_checked_by_its_own_manifest() {
    for by_one_request in [true, false] {
        let world = World::with(KN, by_one_request).await;
        let mails: Vec<Mail> = [1, 70_000, 190_000, 65_536].map(|length| mail(length, KN)).into();
        mails.iter().for_each(|mail| world.peer.publish(mail));
        let part = |x: usize| Part::Fragment { k: 3, i: u8::try_from(x).unwrap() };
        let orders: Vec<MirrorOrder> =
            mails.iter().enumerate().map(|(x, mail)| world.order(mail, part(x), true)).collect();
        let told = together(world.puller(None), orders.clone()).await;
        assert!(told.len() == 4 && told.iter().all(|one| one.result == Ok(())), "{told:?}");
        assert_eq!(*world.peer.given.lock().unwrap(), if by_one_request { vec![4] } else { vec![] });
        for (x, (order, mail)) in orders.iter().zip(&mails).enumerate() {
            let path = world.bob.mirror_part(&alice_at(), &order.h, order.part);
            assert_eq!(std::fs::read(path).unwrap(), fragment(mail, u8::try_from(x).unwrap()));
            assert_eq!(scrub(&world.bob, &alice(), &alice_at(), &order.h, order.part), Scrub::Good);
        }
    }
}

#[actix::test]
async fn r6_one_altered_part_among_several_is_refused_and_the_others_are_kept() {
    let world = World::new(Encoding::Whole).await;
    let (first, mut second, third) =
        (mail(1000, Encoding::Whole), mail(2000, Encoding::Whole), mail(3000, Encoding::Whole));
    second.bytes[7] ^= 1;
    let mails = [first, second, third];
    mails.iter().for_each(|mail| world.peer.publish(mail));
    let named = Arc::default();
    let orders = mails.iter().map(|mail| world.order(mail, Part::Whole, true)).collect();
    let told = together(world.naming_puller(None, &named), orders).await;
    let bad = mails[1].manifest.h;
    for one in &told {
        assert_eq!(one.result.is_err(), one.h == bad, "{told:?}");
    }
    assert!(told.len() == 3 && matches!(told[2].result, Err(MirrorFailure::BadBlocks { .. })), "it is told last");
    assert_eq!(*named.lock().unwrap(), [(bad, alice())]);
    assert_eq!(world.bob.mirrored_parts(&alice_at()).unwrap().len(), 2);
}

#[actix::test]
async fn what_an_answer_leaves_out_is_asked_for_alone() {
    let world = World::new(Encoding::Whole).await;
    let (here, elsewhere) = (mail(1000, Encoding::Whole), mail(1001, Encoding::Whole));
    world.peer.publish(&here);
    let orders = [&here, &elsewhere].map(|mail| world.order(mail, Part::Whole, true)).into();
    let told = together(world.puller(None), orders).await;
    assert_eq!((told[0].h, &told[0].result), (here.manifest.h, &Ok(())));
    assert!(matches!(told[1].result, Err(MirrorFailure::NoSource { .. })), "{told:?}");
}

#[actix::test]
async fn whole_copies_of_every_awkward_length_are_mirrored() {
    let world = World::new(Encoding::Whole).await;
    let _replicator = world.start(&["alice", "bob"]);
    for length in [1, 65_535, 65_536, 65_537, 131_072, 131_073, 3_000_000] {
        let mail = mail(length, Encoding::Whole);
        world.peer.publish(&mail);
        let part = world.peer.is_told(mail.manifest.h, |state| *state == HoldingState::Held).await;
        let path = world.bob.mirror_part(&alice_at(), &mail.manifest.h, part);
        assert!(std::fs::read(path).unwrap() == mail.bytes, "{length}");
    }
}

#[actix::test]
async fn altered_blocks_are_refused_and_nothing_of_them_is_kept() {
    let world = World::new(Encoding::Whole).await;
    let _replicator = world.start(&["alice", "bob"]);
    for length in [200_000, 20_000] {
        let mut mail = mail(length, Encoding::Whole);
        mail.bytes[15_000] ^= 1;
        world.peer.publish(&mail);
        world.peer.is_told(mail.manifest.h, |state| *state == HoldingState::Refused(HoldingRefusal::BadBlocks)).await;
        assert!(world.bob.mirrored_parts(&alice_at()).unwrap().is_empty());
    }
}

#[actix::test]
async fn r6_whoever_served_bad_blocks_to_the_replicator_is_named_once_and_not_asked_again_for_that_mail() {
    let world = World::new(Encoding::Whole).await;
    let mut mail = mail(200_000, Encoding::Whole);
    mail.bytes[150_000] ^= 1;
    world.peer.publish(&mail);
    let named = Arc::default();
    let puller = world.naming_puller(None, &named);
    // As the owner, and as one of the other holders.
    for owner_answers in [true, false, true] {
        let order = MirrorOrder { sources: vec![alice()], ..world.order(&mail, Part::Whole, owner_answers) };
        assert!(puller.clone().mirror(order).await.is_err());
        assert_eq!(*named.lock().unwrap(), [(mail.manifest.h, alice())]);
    }
}

#[actix::test]
async fn a_fragment_of_an_owner_that_is_off_is_cut_from_the_mail_that_others_give() {
    let world = World::new(KN).await;
    let mail = mail(900_000, KN);
    let part = Part::Fragment { k: 3, i: 4 };
    world.peer.publish(&mail);
    // The manifest is had from whoever has it: here from alice, who is on but not asked for blocks.
    let order = world.order(&mail, part, false);
    let nobody = world.puller(None).mirror(order.clone()).await;
    assert!(matches!(nobody, Err(MirrorFailure::NoSource { .. })), "{nobody:?}");
    world.puller(Some(mail.bytes.clone())).mirror(order.clone()).await.unwrap();
    assert_eq!(std::fs::read(world.bob.mirror_part(&alice_at(), &order.h, part)).unwrap(), fragment(&mail, 4));
    // What others give is checked as well.
    let mut altered = mail.bytes.clone();
    altered[5] ^= 1;
    assert!(world.puller(Some(altered)).mirror(order).await.is_err());
}

#[actix::test]
async fn r12_a_part_that_its_owner_lost_is_rebuilt_from_the_others_while_the_owner_answers() {
    let world = World::new(KN).await;
    let mail = mail(900_000, KN);
    let part = Part::Fragment { k: 3, i: 2 };
    world.peer.publish(&mail);
    let order = world.order(&mail, part, true);
    write_durable(&world.bob.mirror_manifest(&alice_at(), &order.h), mail.manifest.as_bytes(), FILE_MODE).unwrap();
    remove_durable(&world.peer.home.outbox_blob(&order.h)).unwrap();
    let nobody = world.puller(None).mirror(order.clone()).await;
    assert!(matches!(nobody, Err(MirrorFailure::NoSource { .. })), "{nobody:?}");
    world.puller(Some(mail.bytes.clone())).mirror(order.clone()).await.unwrap();
    assert_eq!(std::fs::read(world.bob.mirror_part(&alice_at(), &order.h, part)).unwrap(), fragment(&mail, 2));
}

#[actix::test]
async fn a_manifest_that_does_not_fit_the_entry_is_refused() {
    let world = World::new(KN).await;
    let good = mail(300_000, KN);
    world.peer.publish(&good);
    let path = world.peer.home.outbox_manifest(&good.manifest.h);
    let refused = async |order: MirrorOrder| {
        let result = world.puller(None).mirror(order).await;
        assert!(matches!(result, Err(MirrorFailure::BadBlocks { .. })), "{result:?}");
    };
    let order = world.order(&good, Part::Fragment { k: 3, i: 0 }, true);
    refused(MirrorOrder { digest: Digest::new([9; 32]), ..order.clone() }).await;
    refused(MirrorOrder { length: 300_001, ..order.clone() }).await;
    // One of another encoding is no lie either: the mail was re-encoded meanwhile.
    let other = MirrorOrder { part: Part::Fragment { k: 2, i: 0 }, ..order.clone() };
    let result = world.puller(None).mirror(other).await;
    assert!(matches!(result, Err(MirrorFailure::NoSource { .. })), "{result:?}");
    // One that another owner signed for its own mail of the same h is no lie.
    let others = key(3).sign(Manifest { owner: key(3).peer_id(), ..good.manifest.clone().into_value() });
    write_durable(&path, others.as_bytes(), FILE_MODE).unwrap();
    let result = world.puller(None).mirror(order).await;
    assert!(matches!(result, Err(MirrorFailure::NoSource { .. })), "{result:?}");
    assert!(world.bob.mirrored_parts(&alice_at()).unwrap().is_empty());
}

#[test]
fn files_that_nobody_named_are_removed_and_missing_ones_told() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let (a, b, c) = (MailId::new([1; 20]), MailId::new([2; 20]), MailId::new([3; 20]));
    for h in [a, b] {
        write_durable(&home.mirror_part(&alice_at(), &h, Part::Whole), b"x", FILE_MODE).unwrap();
        write_durable(&home.mirror_manifest(&alice_at(), &h), b"x", FILE_MODE).unwrap();
    }
    let named = BTreeMap::from([(alice(), BTreeSet::from([(a, Part::Whole), (c, Part::Whole)]))]);
    assert_eq!(check_parts(&home, &alice_at(), named.clone()).unwrap(), [(alice(), c, Part::Whole)]);
    assert_eq!(home.mirrored_parts(&alice_at()).unwrap(), [(a, Part::Whole)].into());
    assert_eq!(home.mirrored_manifests(&alice_at()).unwrap(), [a].into());
    remove_durable(&home.mirror_manifest(&alice_at(), &a)).unwrap();
    assert_eq!(check_parts(&home, &alice_at(), named).unwrap().len(), 2, "without its manifest a part is no use");
}

#[test]
fn a_scrub_finds_one_altered_bit_and_a_missing_file() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let mail = mail(500_000, KN);
    let (h, part) = (mail.manifest.h, Part::Fragment { k: 3, i: 4 });
    let path = home.mirror_part(&alice_at(), &h, part);
    let mut bytes = fragment(&mail, 4);
    write_durable(&path, &bytes, FILE_MODE).unwrap();
    assert_eq!(scrub(&home, &alice(), &alice_at(), &h, part), Scrub::Bad, "no manifest");
    write_durable(&home.mirror_manifest(&alice_at(), &h), mail.manifest.as_bytes(), FILE_MODE).unwrap();
    assert_eq!(scrub(&home, &alice(), &alice_at(), &h, part), Scrub::Good);
    bytes[100_000] ^= 1;
    write_durable(&path, &bytes, FILE_MODE).unwrap();
    assert_eq!(scrub(&home, &alice(), &alice_at(), &h, part), Scrub::Bad);
    remove_durable(&path).unwrap();
    assert_eq!(scrub(&home, &alice(), &alice_at(), &h, part), Scrub::Bad);
}
