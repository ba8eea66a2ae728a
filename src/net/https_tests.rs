//! Two peers over loopback with real TLS: what the routes, the client and the server promise together.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use serde_bytes::ByteBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::body_source::BodySource;
use super::dial::DialTiming;
use super::https_client::{ClientBounds, PeerClient};
use super::https_server::{HttpsServer, ServerBounds};
use super::locate::{Locate, Located};
use super::peer_answer::NetError;
use super::peer_api::{ApiError, PeerApi};
use super::tls::TlsIdentity;
use super::upload_limit::UploadLimit;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, PeerAddr};
use crate::model::msglist::{Cursor, Ending, Seq, Tombstone};
use crate::model::{Address, MailId, PeerId, WallTime};
use crate::wire::http::{FragmentList, HoldingsAnswer, HoldingsPost};
use crate::wire::msglist::Page;
use crate::wire::notify::{NOTIFY_BATCH_MAX, NOTIFY_BYTES_MAX, Notice};
use crate::wire::{PeerKey, Signed};

/// The mail that is here, the one that is gone, and one nobody has.
const HERE: MailId = MailId::new([1; 20]);
const GONE: MailId = MailId::new([2; 20]);
const NOWHERE: MailId = MailId::new([3; 20]);

fn key(seed: u8) -> PeerKey {
    PeerKey::from_seed(&[seed; 32])
}

fn tombstone() -> Signed<Tombstone> {
    let (owner, at, expiry) = (key(2).peer_id(), WallTime(1), WallTime(2));
    key(2).sign(Tombstone { owner, h: GONE, ending: Ending::Received, at, expiry })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[derive(Default)]
struct Log {
    callers: Vec<PeerId>,
    notices: Vec<Notice>,
    served: BTreeMap<(PeerId, MailId), u64>,
    reserved: u64,
    /// How much may be under way; anything, if nothing is said.
    room: Option<u64>,
}

/// A peer with one mail in a file, whose fragment (3, 1) is that mail, computed.
#[derive(Clone)]
struct TestPeer {
    mail: Arc<tempfile::NamedTempFile>,
    log: Arc<Mutex<Log>>,
    arrived: Arc<tokio::sync::Notify>,
    strangers_known: bool,
}

impl TestPeer {
    fn with_mail(bytes: &[u8]) -> Self {
        let mut mail = tempfile::NamedTempFile::new().unwrap();
        mail.write_all(bytes).unwrap();
        Self { mail: Arc::new(mail), log: Arc::default(), arrived: Arc::default(), strangers_known: true }
    }
    fn served(&self, to: u8) -> u64 {
        self.log.lock().unwrap().served.get(&(key(to).peer_id(), HERE)).copied().unwrap_or(0)
    }
}

fn not_here(what: &str) -> ApiError {
    ApiError::NotFound { what: what.to_owned() }
}

impl PeerApi for TestPeer {
    fn is_known(&self, _: &PeerId) -> bool {
        self.strangers_known
    }
    fn reserve(&self, _: &PeerId, _: &MailId, bytes: u64) -> Result<(), ApiError> {
        let mut log = self.log.lock().unwrap();
        if log.room.is_some_and(|room| log.reserved + bytes > room) {
            let (why, retry_after) = ("Enough at once.".to_owned(), Duration::from_secs(30));
            return Err(ApiError::TooMany { why, retry_after });
        }
        log.reserved += bytes;
        Ok(())
    }
    fn give_back(&self, _: &PeerId, _: &MailId, bytes: u64) {
        self.log.lock().unwrap().reserved -= bytes;
    }
    fn served(&self, caller: &PeerId, h: &MailId, bytes: u64) {
        self.log.lock().unwrap().reserved -= bytes;
        *self.log.lock().unwrap().served.entry((*caller, *h)).or_default() += bytes;
    }
    async fn own_pubkey(&self, caller: PeerId) -> Result<Bytes, ApiError> {
        self.log.lock().unwrap().callers.push(caller);
        Ok(Bytes::from_static(b"mine"))
    }
    async fn pubkey(&self, _: PeerId, address: Address) -> Result<Bytes, ApiError> {
        if address.name().as_str() == "nobody" {
            Err(not_here("The certificate"))
        } else {
            Ok(address.to_string().into())
        }
    }
    async fn sealed(&self, _: PeerId, h: MailId) -> Result<BodySource, ApiError> {
        match h {
            HERE => Ok(BodySource::open(self.mail.path().to_owned()).await.unwrap()),
            GONE => Err(ApiError::Gone { tombstone: tombstone().to_entry() }),
            _ => Err(not_here("The mail")),
        }
    }
    async fn manifest(&self, _: PeerId, _: MailId, _: Option<u8>) -> Result<BodySource, ApiError> {
        Ok(BodySource::Bytes(Bytes::from(vec![7; 1000])))
    }
    async fn fragments(&self, _: PeerId, _: MailId) -> Result<FragmentList, ApiError> {
        Ok(FragmentList { fragments: vec![(3, 1), (3, 4)] })
    }
    async fn fragment(&self, _: PeerId, _: MailId, k: u8, i: u8) -> Result<BodySource, ApiError> {
        if (k, i) == (3, 4) {
            let short = |_| stream::iter([Ok(Bytes::from_static(b"half"))]).boxed();
            return Ok(BodySource::stream(8, short));
        }
        if (k, i) != (3, 1) {
            return Err(ApiError::TooMany {
                why: "Enough for today.".to_owned(),
                retry_after: Duration::from_millis(1500),
            });
        }
        let mail = std::fs::read(self.mail.path()).unwrap();
        let open = move |range: std::ops::Range<u64>| {
            let piece = mail[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec();
            stream::iter([Ok(Bytes::from(piece))]).boxed()
        };
        Ok(BodySource::stream(self.mail.as_file().metadata().unwrap().len(), open))
    }
    async fn msglist(&self, caller: PeerId, since: Cursor, wait: Duration) -> Result<Page, ApiError> {
        if caller == key(9).peer_id() {
            return Err(ApiError::Forbidden { why: "Members only.".to_owned(), gd_version: Some(7) });
        }
        let new = tokio::time::timeout(wait, self.arrived.notified()).await.is_ok();
        Ok(Page { more: new && since.seq == Seq(4), ..Page::default() })
    }
    async fn holdings(&self, _: PeerId, post: HoldingsPost) -> Result<HoldingsAnswer, ApiError> {
        let differ = if matches!(post, HoldingsPost::Buckets(_)) { vec![1, 2] } else { vec![] };
        Ok(HoldingsAnswer { differ: ByteBuf::from(differ), missed: Vec::new(), missed_upto: None, said: None })
    }
    async fn mirror_msglist(&self, _: PeerId, _: Address, since: Cursor) -> Result<Page, ApiError> {
        Ok(Page { more: since.seq == Seq(5), ..Page::default() })
    }
    async fn notify(&self, _: PeerId, notices: Vec<Notice>) -> Result<(), ApiError> {
        self.log.lock().unwrap().notices.extend(notices);
        Ok(())
    }
    async fn group(&self, _: PeerId) -> Result<Bytes, ApiError> {
        Ok(Bytes::from(vec![1; 300 * 1024]))
    }
    async fn heartbeat(&self, _: PeerId, beat: Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        Ok(HeartbeatAnswer { gd_version: beat.gd_version + 1, at: beat.at, ..HeartbeatAnswer::default() })
    }
    async fn join(&self, _: PeerId, request: JoinRequest) -> Result<Bytes, ApiError> {
        Ok(request.descriptor.into())
    }
}

/// Everybody is at these addresses; after a failed dial, at those.
struct Everywhere {
    first: Located,
    again: Located,
    asked_again: AtomicU64,
}

impl Locate for Everywhere {
    fn locate(&self, _: PeerId) -> BoxFuture<'_, Located> {
        Box::pin(async { self.first.clone() })
    }
    fn locate_again(&self, _: PeerId) -> BoxFuture<'_, Located> {
        self.asked_again.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.again.clone() })
    }
}

fn at(ports: &[u16]) -> Located {
    let addr = |https: &u16| PeerAddr { host: "127.0.0.1".to_owned(), https: *https, libp2p: 1 };
    Located { addrs: ports.iter().map(addr).collect(), private: true }
}

async fn serve_with(peer: &TestPeer, bounds: ServerBounds, limit: Option<u64>) -> HttpsServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = TlsIdentity::new(&key(2)).unwrap();
    HttpsServer::start(listener, &tls, peer.clone(), Arc::new(UploadLimit::new(limit)), bounds).unwrap()
}

async fn serve(peer: &TestPeer) -> HttpsServer {
    serve_with(peer, ServerBounds::default(), None).await
}

fn client_at(seed: u8, first: Located, again: Located) -> (PeerClient, Arc<Everywhere>) {
    let everywhere = Arc::new(Everywhere { first, again, asked_again: AtomicU64::new(0) });
    let dial = DialTiming { stagger: Duration::from_millis(50), total: Duration::from_secs(5) };
    let bounds = ClientBounds { dial, ..ClientBounds::default() };
    (PeerClient::new(TlsIdentity::new(&key(seed)).unwrap(), everywhere.clone(), bounds), everywhere)
}

fn client(server: &HttpsServer) -> PeerClient {
    client_at(1, at(&[server.local_addr().port()]), Located::default()).0
}

/// The other peer.
fn bob() -> PeerId {
    key(2).peer_id()
}

#[tokio::test]
async fn every_route_answers_and_the_caller_is_known_by_its_peer_id() {
    let peer = TestPeer::with_mail(b"sealed");
    let server = serve(&peer).await;
    let client = client(&server);
    let alice: Address = "alice@acme".parse().unwrap();
    assert_eq!(client.get_own_pubkey(bob()).await.unwrap(), "mine");
    assert_eq!(peer.log.lock().unwrap().callers, [key(1).peer_id()]);
    assert_eq!(client.get_pubkey(bob(), &alice).await.unwrap(), "alice@acme");
    assert_eq!(client.get_manifest(bob(), &HERE, 1000).await.unwrap().len(), 1000);
    assert_eq!(client.get_fragments(bob(), &HERE).await.unwrap(), [(3, 1), (3, 4)]);
    let since = "7.5".parse().unwrap();
    assert!(client.get_mirror_msglist(bob(), &alice, since).await.unwrap().more);
    let buckets = HoldingsPost::Buckets(ByteBuf::from(vec![0; 2048]));
    assert_eq!(client.post_holdings(bob(), &buckets).await.unwrap().differ, vec![1, 2]);
    client.post_notify(bob(), &[Notice::Hello]).await.unwrap();
    assert_eq!(peer.log.lock().unwrap().notices, [Notice::Hello]);
    let beat = Heartbeat { gd_version: 4, at: WallTime(9), ..Heartbeat::default() };
    assert_eq!(client.post_heartbeat(bob(), &beat).await.unwrap().gd_version, 5);
    let join = JoinRequest { descriptor: vec![5; 10], proof: vec![6; 32] };
    assert_eq!(client.post_join(bob(), &join).await.unwrap(), vec![5; 10]);
    assert_eq!(server.accepted(), 1, "one connection carried all of it");
}

#[tokio::test]
async fn twenty_megabytes_stream_and_are_counted() {
    let data = pattern(20 * 1024 * 1024 + 17);
    let peer = TestPeer::with_mail(&data);
    let server = serve(&peer).await;
    let client = client(&server);
    let whole = client.get_sealed(bob(), &HERE, None).await.unwrap();
    assert_eq!(whole.total(), u64::try_from(data.len()).unwrap());
    assert!(whole.collect(data.len()).await.unwrap() == data);
    assert_eq!(peer.served(1), u64::try_from(data.len()).unwrap());
    let computed = client.get_fragment(bob(), &HERE, (3, 1), None).await.unwrap();
    assert!(computed.collect(data.len()).await.unwrap() == data);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn every_body_of_a_mail_goes_through_the_limit_of_all_connections_together() {
    let data = pattern(300_000);
    let (peer, tls) = (TestPeer::with_mail(&data), TlsIdentity::new(&key(2)).unwrap());
    let limit = Arc::new(UploadLimit::new(Some(20_000_000)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = HttpsServer::start(listener, &tls, peer, limit.clone(), ServerBounds::default()).unwrap();
    let (one, other) = (client(&server), client_at(3, at(&[server.local_addr().port()]), Located::default()).0);
    let whole = async { one.get_sealed(bob(), &HERE, None).await.unwrap().collect(data.len()).await.unwrap() };
    let part =
        async { other.get_fragment(bob(), &HERE, (3, 1), None).await.unwrap().collect(data.len()).await.unwrap() };
    let (whole, part) = tokio::join!(whole, part);
    let manifest = one.get_manifest(bob(), &HERE, 1 << 20).await.unwrap();
    assert_eq!(limit.passed(), u64::try_from(whole.len() + part.len() + manifest.len()).unwrap());
}

#[tokio::test]
async fn rfc9110_range_requests_yield_exactly_the_range() {
    let data = pattern(1000);
    let peer = TestPeer::with_mail(&data);
    let server = serve(&peer).await;
    let client = client(&server);
    let body = client.get_sealed(bob(), &HERE, Some(100..200)).await.unwrap();
    assert_eq!((body.range(), body.total()), (100..200, 1000));
    assert_eq!(body.collect(100).await.unwrap(), &data[100..200]);
    let clipped = client.get_fragment(bob(), &HERE, (3, 1), Some(990..5000)).await.unwrap();
    assert_eq!(clipped.range(), 990..1000);
    assert_eq!(clipped.collect(100).await.unwrap(), &data[990..]);
    let outside = client.get_sealed(bob(), &HERE, Some(1000..1001)).await.unwrap_err();
    assert!(matches!(outside, NetError::Status { code: 416, .. }), "{outside}");
    assert!(client.get_sealed(bob(), &HERE, Some(5..5)).await.is_err());
    assert_eq!(peer.served(1), 110);
}

#[tokio::test]
async fn an_answer_is_reserved_before_it_starts_and_given_back_when_it_ends_early() {
    let data = pattern(1 << 20);
    let peer = TestPeer::with_mail(&data);
    peer.log.lock().unwrap().room = Some(1 << 20);
    let server = serve_with(&peer, ServerBounds::default(), Some(64 * 1024)).await;
    let (slow, other) = (client(&server), client(&server));
    let whole = slow.get_sealed(bob(), &HERE, None).await.unwrap();
    let refused = other.get_sealed(bob(), &HERE, None).await.unwrap_err();
    assert!(matches!(refused, NetError::Status { code: 429, .. }), "{refused}");
    drop((whole, slow));
    let given_back = async {
        while peer.log.lock().unwrap().reserved > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given_back).await.unwrap();
    assert!(peer.served(1) < 1 << 20);
    other.get_sealed(bob(), &HERE, Some(0..1000)).await.unwrap().collect(1000).await.unwrap();
    assert_eq!(peer.log.lock().unwrap().reserved, 0);
}

#[tokio::test]
async fn a_body_that_ends_too_early_is_never_taken_for_a_whole_one() {
    let server = serve(&TestPeer::with_mail(b"")).await;
    // How much gets out before the connection is cut is chance: nothing at all, the head, or the half as well.
    match client(&server).get_fragment(bob(), &HERE, (3, 4), None).await {
        Ok(body) => assert!(matches!(body.collect(100).await, Err(NetError::Broken { received: 0..=4, .. }))),
        Err(error) => assert!(matches!(error, NetError::Unreachable { .. }), "{error}"),
    }
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_a_finished_one_makes_room() {
    let server = serve(&TestPeer::with_mail(b"sealed")).await;
    let everywhere = client_at(1, at(&[server.local_addr().port()]), Located::default()).1;
    let bounds = ClientBounds { in_flight: 1, ..ClientBounds::default() };
    let client = PeerClient::new(TlsIdentity::new(&key(1)).unwrap(), everywhere, bounds);
    let body = client.get_sealed(bob(), &HERE, None).await.unwrap();
    assert_eq!(client.get_own_pubkey(bob()).await.unwrap_err(), NetError::Busy { limit: 1 });
    body.collect(6).await.unwrap();
    assert!(client.get_own_pubkey(bob()).await.is_ok());
}

#[tokio::test]
async fn a_gone_mail_is_410_with_the_signed_tombstone() {
    let server = serve(&TestPeer::with_mail(b"")).await;
    let error = client(&server).get_sealed(bob(), &GONE, None).await.unwrap_err();
    let NetError::Gone { tombstone: bytes, .. } = error else { panic!("{error}") };
    assert_eq!(Signed::<Tombstone>::verify(&bytes).unwrap(), tombstone());
}

#[tokio::test]
async fn refusals_say_why_and_what_to_do() {
    let server = serve(&TestPeer::with_mail(b"")).await;
    let client = client(&server);
    let missing = client.get_sealed(bob(), &NOWHERE, None).await.unwrap_err();
    assert!(
        matches!(missing, NetError::Status { code: 404, ref text, .. } if text == "The mail is not here"),
        "{missing}"
    );
    let enough = client.get_fragment(bob(), &HERE, (3, 2), None).await.unwrap_err();
    assert!(matches!(enough, NetError::Status { code: 429, retry_after_s: Some(2), .. }), "{enough}");
    let (stranger, _) = client_at(9, at(&[server.local_addr().port()]), Located::default());
    let forbidden = stranger.get_msglist(bob(), Cursor::default(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(forbidden, NetError::Status { code: 403, gd_version: Some(7), .. }), "{forbidden}");
}

#[tokio::test]
async fn answers_and_requests_over_their_bounds_are_refused() {
    let server = serve(&TestPeer::with_mail(&[0; 100])).await;
    let client = client(&server);
    assert!(matches!(client.get_group(bob()).await.unwrap_err(), NetError::TooLarge { .. }));
    assert!(matches!(client.get_manifest(bob(), &HERE, 999).await.unwrap_err(), NetError::TooLarge { limit: 999, .. }));
    let body = client.get_sealed(bob(), &HERE, None).await.unwrap();
    assert!(matches!(body.collect(99).await.unwrap_err(), NetError::TooLarge { .. }));
    let many = vec![Notice::Hello; NOTIFY_BATCH_MAX + 1];
    let refused = client.post_notify(bob(), &many).await.unwrap_err();
    assert!(matches!(refused, NetError::Status { code: 413, .. }), "{refused}");
    let long = [Notice::Tombstone(ByteBuf::from(vec![0; NOTIFY_BYTES_MAX + 1]))];
    // The server need not read such a body to its end: the client hears 413, or that the connection was closed on it.
    let refused = client.post_notify(bob(), &long).await.unwrap_err();
    assert!(matches!(refused, NetError::Status { code: 413, .. } | NetError::Unreachable { .. }), "{refused}");
}

#[tokio::test]
async fn a_long_poll_is_answered_when_something_arrives_or_its_time_is_over() {
    let peer = TestPeer::with_mail(b"");
    let server = serve(&peer).await;
    let client = client(&server);
    let since: Cursor = "1.4".parse().unwrap();
    assert!(!client.get_msglist(bob(), since, Duration::from_secs(1)).await.unwrap().more);
    let (poll, ()) = tokio::join!(client.get_msglist(bob(), since, Duration::from_secs(200)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        peer.arrived.notify_one();
    });
    assert!(poll.unwrap().more);
}

#[tokio::test]
async fn somebody_else_at_the_address_is_never_asked() {
    let peer = TestPeer::with_mail(b"");
    let server = serve(&peer).await;
    let error = client(&server).get_own_pubkey(key(3).peer_id()).await.unwrap_err();
    assert_eq!(error, NetError::WrongPeer { peer: key(3).peer_id(), answered: bob() });
    assert!(peer.log.lock().unwrap().callers.is_empty());
}

#[tokio::test]
async fn a_failed_dial_looks_the_peer_up_again_and_an_address_that_is_dead_holds_up_nothing() {
    let server = serve(&TestPeer::with_mail(b"")).await;
    // A port nobody listens on, and one that accepts and then keeps silent.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dead_only, port) = (at(&[dead]), server.local_addr().port());
    let (client, everywhere) = client_at(1, dead_only.clone(), at(&[silent.local_addr().unwrap().port(), dead, port]));
    assert!(client.get_own_pubkey(bob()).await.is_ok());
    assert_eq!(everywhere.asked_again.load(Ordering::Relaxed), 1);
    let (client, _) = client_at(1, dead_only, Located::default());
    let error = client.get_own_pubkey(bob()).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { ref why, .. } if why.contains("127.0.0.1")), "{error}");
}

#[tokio::test]
async fn a_private_address_of_a_stranger_is_not_dialled() {
    let server = serve(&TestPeer::with_mail(b"")).await;
    let mut located = at(&[server.local_addr().port()]);
    located.private = false;
    let (client, _) = client_at(1, located, Located::default());
    let error = client.get_own_pubkey(bob()).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { ref why, .. } if why.contains("private")), "{error}");
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_peer_has_a_bounded_number_of_connections_and_is_told_so() {
    let peer = TestPeer::with_mail(b"");
    let server = serve_with(&peer, ServerBounds { per_peer: 2, ..ServerBounds::default() }, None).await;
    let client = client(&server);
    let poll = || client.get_msglist(bob(), Cursor::default(), Duration::from_secs(100));
    let third = async {
        while server.connections() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = client.get_own_pubkey(bob()).await.unwrap_err();
        assert!(matches!(refused, NetError::Status { code: 503, retry_after_s: Some(30), .. }), "{refused}");
        peer.arrived.notify_one();
        peer.arrived.notify_one();
        while client.get_own_pubkey(bob()).await.is_err() {
            peer.arrived.notify_one();
        }
        peer.arrived.notify_waiters();
    };
    let (first, second, ()) = tokio::join!(poll(), poll(), third);
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test]
async fn strangers_use_at_most_half_of_the_connections() {
    let peer = TestPeer { strangers_known: false, ..TestPeer::with_mail(b"") };
    let server = serve_with(&peer, ServerBounds { connections: 2, ..ServerBounds::default() }, None).await;
    let (first, second) = (client(&server), client(&server));
    first.get_own_pubkey(bob()).await.unwrap();
    assert_eq!(server.connections(), 1, "the first keeps its connection");
    let refused = second.get_own_pubkey(bob()).await.unwrap_err();
    assert!(matches!(refused, NetError::Status { code: 503, .. }), "{refused}");
}

#[tokio::test]
async fn stopping_lets_an_answer_finish_and_a_client_notices_and_dials_anew() {
    let peer = TestPeer::with_mail(&pattern(3_000_000));
    let server = serve_with(&peer, ServerBounds::default(), Some(6_000_000)).await;
    let client = client(&server);
    let port = server.local_addr().port();
    let mut body = client.get_sealed(bob(), &HERE, None).await.unwrap();
    let mut received = body.next().await.unwrap().unwrap().len();
    let (_, ()) = tokio::join!(
        async {
            while let Some(chunk) = body.next().await.unwrap() {
                received += chunk.len();
            }
        },
        server.stop(Duration::from_secs(30))
    );
    assert_eq!(received, 3_000_000);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let tls = TlsIdentity::new(&key(2)).unwrap();
    let limit = Arc::new(UploadLimit::new(None));
    let _again = HttpsServer::start(listener, &tls, peer, limit, ServerBounds::default()).unwrap();
    assert!(client.get_own_pubkey(bob()).await.is_ok());
}

/// The first bytes that the server answers to raw bytes on a new TCP connection.
async fn raw(server: &HttpsServer, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the alert is as good as an orderly end.
    tcp.read_to_end(&mut answer).await.ok();
    answer
}

#[tokio::test]
async fn tls_1_2_and_plain_http_are_refused() {
    let peer = TestPeer::with_mail(b"");
    let server = serve(&peer).await;
    // A TLS 1.2 ClientHello: ECDHE-ECDSA with AES-GCM, x25519, ECDSA with SHA-256; no supported_versions extension.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3];
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let mut record =
        vec![22, 3, 1, 0, u8::try_from(hello.len() + 4).unwrap(), 1, 0, 0, u8::try_from(hello.len()).unwrap()];
    record.extend(hello);
    let alert = raw(&server, &record).await;
    assert_eq!((alert.first(), alert.last()), (Some(&21), Some(&70)), "a protocol_version alert, not {alert:?}");
    assert!(!raw(&server, b"GET /pubkey HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with(b"HTTP"));
    assert!(peer.log.lock().unwrap().callers.is_empty());
}

/// A TLS stream to the server as peer 1, to write what no client of ours writes.
async fn raw_tls(server: &HttpsServer) -> tokio_rustls::client::TlsStream<TcpStream> {
    let (connector, name) = TlsIdentity::new(&key(1)).unwrap().connector(bob()).unwrap();
    connector.connect(name, TcpStream::connect(server.local_addr()).await.unwrap()).await.unwrap()
}

async fn status_of(server: &HttpsServer, head: &str) -> u16 {
    let mut tls = raw_tls(server).await;
    tls.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.ok();
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}: {text}"))
}

#[tokio::test]
async fn paths_and_queries_are_read_strictly() {
    let server = serve(&TestPeer::with_mail(b"0123456789")).await;
    let (here, long) = (HERE.to_string(), "a".repeat(400));
    for path in [
        "/".to_owned(),
        "/outbox/../group".to_owned(),
        "/outbox/%2e%2e/group".to_owned(),
        "/outbox/..%2fgroup".to_owned(),
        "//group".to_owned(),
        "/group/".to_owned(),
        format!("/outbox/{}", here.replace("01", "0A")),
        format!("/outbox/{here}/"),
        format!("/outbox//{here}"),
        format!("/outbox/{here}%00"),
        format!("/outbox/{here}/fragments/03/1"),
        format!("/outbox/{here}/fragments/256/1"),
        format!("/outbox/{here}/fragments/3/1/x"),
        format!("/outbox/{long}"),
        format!("/group?{long}"),
        "/pubkey/Alice@acme".to_owned(),
        "/pubkey/alice".to_owned(),
        "/pubkey/..@acme".to_owned(),
    ] {
        assert_eq!(status_of(&server, &format!("GET {path} HTTP/1.1")).await, 404, "{path}");
    }
    for query in ["since=x", "since=1", "wait=-1", "wait=x", "since=1.2&since=3.4"] {
        assert_eq!(status_of(&server, &format!("GET /outbox/msglist?{query} HTTP/1.1")).await, 400, "{query}");
    }
    let get = format!("GET /outbox/{here} HTTP/1.1");
    assert_eq!(status_of(&server, &get).await, 200);
    assert_eq!(status_of(&server, &format!("{get}\r\nRange: bytes=1-")).await, 206);
    assert_eq!(status_of(&server, &format!("{get}\r\nRange: bytes=0-1,4-5")).await, 200);
    assert_eq!(status_of(&server, &format!("{get}\r\nRange: bytes=10-")).await, 416);
    assert_eq!(status_of(&server, "POST /pubkey HTTP/1.1\r\nContent-Length: 0").await, 405);
    assert_eq!(status_of(&server, "POST /notify HTTP/1.1\r\nContent-Length: 99999999").await, 413);
    assert_eq!(status_of(&server, "POST /group/join HTTP/1.1\r\nContent-Length: 0").await, 400);
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    use tokio_rustls::rustls::client::danger::ServerCertVerifier;
    use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};
    let peer = TestPeer::with_mail(b"");
    let server = serve(&peer).await;
    let verifier: Arc<dyn ServerCertVerifier> = super::tls::verifier_for_tests(bob());
    let config = ClientConfig::builder_with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let name = ServerName::try_from("peer.invalid").unwrap();
    let answer = async {
        let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        tls.write_all(b"GET /pubkey HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        tls.read_u8().await
    };
    assert!(answer.await.is_err());
    assert!(peer.log.lock().unwrap().callers.is_empty());
}
