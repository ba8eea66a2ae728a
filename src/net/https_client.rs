//! The HTTPS client between peers: one typed call for each route, over pooled connections that are authenticated by PeerId.
//! It never decides whom to ask and never believes what it gets beyond its shape.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RANGE};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::{Client, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::dial::{Connector, DialError, DialTiming, host_of};
use super::locate::Locate;
use super::peer_answer::{Answer, NetError, PeerBody, millis};
use super::priority::{PRIORITY, priority_header};
use super::range::range_header;
use super::routes::WAIT_MAX_S;
use super::tls::TlsIdentity;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, LeaveStage};
use crate::model::msglist::Cursor;
use crate::model::{Address, MailId, Part, PeerId, Urgency};
use crate::wire::http::{
    CERTIFICATE_BYTES_MAX, FRAGMENTS_LISTED_MAX, FragmentList, GD_BYTES_MAX, HEARTBEAT_BYTES_MAX, HOLDING_BUCKETS,
    HoldingsAnswer, HoldingsPost, PAGE_BYTES_MAX, PARTS_ANSWER_BYTES_MAX, PartsAnswer, PartsPost, ReachAnswer,
    ReachPost,
};
use crate::wire::msglist::Page;
use crate::wire::notify::Notice;
use crate::wire::{decode, encode};

/// Most bytes of small CBOR answers.
const SMALL_BYTES_MAX: usize = 16 * 1024;

/// What the client bears and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientBounds {
    /// How long a dial may take.
    pub dial: DialTiming,
    /// From a request to the head of its answer, a dial included; a long poll's wait is added.
    pub head_timeout: Duration,
    /// Longest silence inside a body.
    pub idle_timeout: Duration,
    /// A whole answer that is not streamed, from its head on.
    pub answer_timeout: Duration,
    /// How long an unused connection is kept. Shorter than the server keeps it.
    pub pool_idle: Duration,
    /// Unused connections kept to one peer: as many as a burst needs (16 pulls, a long poll, reports), or the next burst dials anew.
    pub pool_idle_per_peer: usize,
    /// Requests under way at once, to all peers, bodies that stream included.
    pub in_flight: usize,
}

impl Default for ClientBounds {
    fn default() -> Self {
        Self {
            dial: DialTiming::default(),
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            pool_idle: Duration::from_secs(90),
            pool_idle_per_peer: 20,
            in_flight: 1024,
        }
    }
}

/// Asks other peers. Clones share the pool.
#[derive(Clone)]
pub struct PeerClient {
    pool: Client<Connector, Full<Bytes>>,
    in_flight: Arc<Semaphore>,
    bounds: ClientBounds,
    urgency: Urgency,
}

/// One request before it is sent; it may be sent twice.
struct Ask {
    peer: PeerId,
    /// What is asked for, in the words of errors.
    what: &'static str,
    path: String,
    range: Option<Range<u64>>,
    /// A POST of CBOR; else a GET.
    body: Option<Bytes>,
    /// How long the other side may hold the answer back.
    wait: Duration,
}

impl Ask {
    fn get(peer: PeerId, what: &'static str, path: String) -> Self {
        Self { peer, what, path, range: None, body: None, wait: Duration::ZERO }
    }
    fn post<T: Serialize>(peer: PeerId, what: &'static str, path: &str, body: &T) -> Self {
        Self { body: Some(Bytes::from(encode(body))), ..Self::get(peer, what, path.to_owned()) }
    }
    fn request(&self, urgency: Urgency) -> Result<Request<Full<Bytes>>, NetError> {
        let malformed = |why: String| NetError::Malformed { peer: self.peer, what: self.what, why };
        let uri: Result<Uri, _> = format!("https://{}{}", host_of(&self.peer), self.path).parse();
        let mut request = Request::new(Full::new(self.body.clone().unwrap_or_default()));
        *request.uri_mut() = uri.map_err(|e| malformed(e.to_string()))?;
        // That URI's authority is this program's own name for a connection; a peer goes by its key, and has none to repeat here. RFC
        // 9112 section 3.2 asks for an empty field where a URI has no authority; between peers that saves a packet for each short mail.
        request.headers_mut().insert(HOST, HeaderValue::from_static(""));
        if self.body.is_some() {
            *request.method_mut() = Method::POST;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/cbor"));
        }
        if let Some(range) = &self.range {
            if range.is_empty() {
                return Err(malformed("an empty range was to be asked for".to_owned()));
            }
            let value = HeaderValue::from_str(&range_header(range)).map_err(|e| malformed(e.to_string()))?;
            request.headers_mut().insert(RANGE, value);
        }
        if let Some(value) = priority_header(urgency) {
            request.headers_mut().insert(PRIORITY, value);
        }
        Ok(request)
    }
}

impl PeerClient {
    /// A client of the peer that `tls` is; `locate` tells where other peers are.
    pub fn new(tls: TlsIdentity, locate: Arc<dyn Locate>, bounds: ClientBounds) -> Self {
        let pool = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(bounds.pool_idle)
            .pool_max_idle_per_host(bounds.pool_idle_per_peer)
            .build(Connector::new(tls, locate, bounds.dial));
        Self { pool, in_flight: Arc::new(Semaphore::new(bounds.in_flight)), bounds, urgency: Urgency::Prompt }
    }

    /// The same client, whose requests say how soon their answers are needed.
    #[must_use]
    pub fn with_urgency(&self, urgency: Urgency) -> Self {
        Self { urgency, ..self.clone() }
    }

    /// The peer's own OpenPGP certificate (`GET /pubkey`).
    ///
    /// # Errors
    /// [`NetError`]. The same holds for every call here.
    pub async fn get_own_pubkey(&self, peer: PeerId) -> Result<Bytes, NetError> {
        self.bytes(Ask::get(peer, "certificate", "/pubkey".to_owned()), CERTIFICATE_BYTES_MAX).await
    }

    /// The OpenPGP certificate of `address` as the peer holds it (`GET /pubkey/{address}`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_pubkey(&self, peer: PeerId, address: &Address) -> Result<Bytes, NetError> {
        self.bytes(Ask::get(peer, "certificate", format!("/pubkey/{address}")), CERTIFICATE_BYTES_MAX).await
    }

    /// A sealed mail, or a range of it (`GET /outbox/{h}`).
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::Gone`] carries the tombstone.
    pub async fn get_sealed(&self, peer: PeerId, h: &MailId, range: Option<Range<u64>>) -> Result<PeerBody, NetError> {
        self.body(Ask { range, ..Ask::get(peer, "sealed mail", format!("/outbox/{h}")) }).await
    }

    /// A part of a mail, or a range of it: one of the two routes.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::Gone`] carries the tombstone.
    pub async fn get_part(
        &self,
        peer: PeerId,
        h: &MailId,
        part: Part,
        range: Option<Range<u64>>,
    ) -> Result<PeerBody, NetError> {
        match part {
            Part::Whole => self.get_sealed(peer, h, range).await,
            Part::Fragment { k, i } => self.get_fragment(peer, h, (k, i), range).await,
        }
    }

    /// The signed manifest (`GET /outbox/{h}/manifest`); the caller knows from the mail's length how long it may be.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_manifest(&self, peer: PeerId, h: &MailId, limit: usize) -> Result<Bytes, NetError> {
        self.bytes(Ask::get(peer, "manifest", format!("/outbox/{h}/manifest")), limit).await
    }

    /// The same, for fragments any `k` of which are enough: while a mail moves to another encoding there are two.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_manifest_for(&self, peer: PeerId, h: &MailId, k: u8, limit: usize) -> Result<Bytes, NetError> {
        self.bytes(Ask::get(peer, "manifest", format!("/outbox/{h}/manifest?k={k}")), limit).await
    }

    /// Which fragments (k, i) the peer holds (`GET /outbox/{h}/fragments`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_fragments(&self, peer: PeerId, h: &MailId) -> Result<Vec<(u8, u8)>, NetError> {
        let what = "list of fragments";
        let list: FragmentList =
            self.cbor(Ask::get(peer, what, format!("/outbox/{h}/fragments")), SMALL_BYTES_MAX).await?;
        if list.fragments.len() > FRAGMENTS_LISTED_MAX {
            return Err(NetError::Malformed { peer, what, why: "it has too many entries".to_owned() });
        }
        Ok(list.fragments)
    }

    /// A fragment, or a range of it (`GET /outbox/{h}/fragments/{k}/{i}`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_fragment(
        &self,
        peer: PeerId,
        h: &MailId,
        (k, i): (u8, u8),
        range: Option<Range<u64>>,
    ) -> Result<PeerBody, NetError> {
        self.body(Ask { range, ..Ask::get(peer, "fragment", format!("/outbox/{h}/fragments/{k}/{i}")) }).await
    }

    /// The peer's msglist after `since`; it may hold the answer for `wait`, at most 300 s (`GET /outbox/msglist`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_msglist(&self, peer: PeerId, since: Cursor, wait: Duration) -> Result<Page, NetError> {
        let seconds = wait.as_secs().min(WAIT_MAX_S);
        let path = format!("/outbox/msglist?since={since}&wait={seconds}");
        let ask = Ask { wait: Duration::from_secs(seconds), ..Ask::get(peer, "msglist", path) };
        self.cbor(ask, PAGE_BYTES_MAX).await
    }

    /// The msglist of `address` as the peer knows it (`GET /mirror/{address}/msglist`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_mirror_msglist(&self, peer: PeerId, address: &Address, since: Cursor) -> Result<Page, NetError> {
        let path = format!("/mirror/{address}/msglist?since={since}");
        self.cbor(Ask::get(peer, "msglist", path), PAGE_BYTES_MAX).await
    }

    /// Short parts of several of the peer's own mails (`POST /outbox/parts`). What was not asked for may be in the answer, and what was
    /// may be missing.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_parts(&self, peer: PeerId, post: &PartsPost) -> Result<PartsAnswer, NetError> {
        self.cbor(Ask::post(peer, "parts", "/outbox/parts", post), PARTS_ANSWER_BYTES_MAX).await
    }

    /// Reports holdings, or compares buckets (`POST /outbox/holdings`); once it returns, the owner has the batch on disk.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_holdings(&self, peer: PeerId, post: &HoldingsPost) -> Result<HoldingsAnswer, NetError> {
        let what = "answer to holdings";
        let answer: HoldingsAnswer =
            self.cbor(Ask::post(peer, what, "/outbox/holdings", post), SMALL_BYTES_MAX).await?;
        if answer.differ.len() > HOLDING_BUCKETS {
            return Err(NetError::Malformed { peer, what, why: "it names too many buckets".to_owned() });
        }
        Ok(answer)
    }

    /// Hands over ns, nr and tombstones (`POST /notify`); once it returns, the peer has them on disk.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_notify(&self, peer: PeerId, notices: &[Notice]) -> Result<(), NetError> {
        let ask = Ask::post(peer, "answer to a notification", "/notify", &notices);
        self.bytes(ask, SMALL_BYTES_MAX).await.map(drop)
    }

    /// The peer's signed gd (`GET /group`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn get_group(&self, peer: PeerId) -> Result<Bytes, NetError> {
        self.bytes(Ask::get(peer, "group descriptor", "/group".to_owned()), GD_BYTES_MAX).await
    }

    /// A sign of life (`POST /group/heartbeat`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_heartbeat(&self, peer: PeerId, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, NetError> {
        let ask = Ask::post(peer, "answer to a heartbeat", "/group/heartbeat", heartbeat);
        self.cbor(ask, HEARTBEAT_BYTES_MAX).await
    }

    /// Asks for admission (`POST /group/join`); the answer is the signed gd that names this peer.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_join(&self, peer: PeerId, request: &JoinRequest) -> Result<Bytes, NetError> {
        self.bytes(Ask::post(peer, "answer to a join", "/group/join", request), GD_BYTES_MAX).await
    }

    /// Asks for the group key, sealed to this peer (`POST /group/key`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_group_key(&self, peer: PeerId) -> Result<Bytes, NetError> {
        self.bytes(Ask::post(peer, "group key", "/group/key", &()), SMALL_BYTES_MAX).await
    }

    /// Asks a holder of the group key to write down that this peer leaves (`POST /group/leave`); the answer is the signed gd.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_leave(&self, peer: PeerId, stage: LeaveStage) -> Result<Bytes, NetError> {
        self.bytes(Ask::post(peer, "answer to a leave", "/group/leave", &stage), GD_BYTES_MAX).await
    }

    /// Asks a member whether it reaches this peer at the addresses in this peer's signed descriptor (`POST /group/reach`).
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn post_reach(&self, peer: PeerId, post: &ReachPost) -> Result<ReachAnswer, NetError> {
        self.cbor(Ask::post(peer, "answer to a test of reach", "/group/reach", post), SMALL_BYTES_MAX).await
    }

    async fn bytes(&self, ask: Ask, limit: usize) -> Result<Bytes, NetError> {
        let (peer, what) = (ask.peer, ask.what);
        let answer = self.send(ask).await?;
        let whole = tokio::time::timeout(self.bounds.answer_timeout, answer.collect(limit)).await;
        whole.map_err(|_| NetError::Timeout { peer, what, after_ms: millis(self.bounds.answer_timeout) })?
    }

    async fn cbor<T: DeserializeOwned>(&self, ask: Ask, limit: usize) -> Result<T, NetError> {
        let (peer, what) = (ask.peer, ask.what);
        let bytes = self.bytes(ask, limit).await?;
        decode(&bytes).map_err(|e| NetError::Malformed { peer, what, why: e.to_string() })
    }

    async fn body(&self, ask: Ask) -> Result<PeerBody, NetError> {
        let range = ask.range.clone();
        self.send(ask).await?.stream(range)
    }

    /// Sends and waits for the head of the answer. Every request of the table may be repeated, so one that met a connection
    /// the other side was just closing is sent once more.
    async fn send(&self, ask: Ask) -> Result<Answer, NetError> {
        let busy = |_| NetError::Busy { limit: self.bounds.in_flight };
        let permit = Arc::clone(&self.in_flight).try_acquire_owned().map_err(busy)?;
        let Ask { peer, what, wait, .. } = ask;
        let exchange = async {
            match self.pool.request(ask.request(self.urgency)?).await {
                Err(error) if !error.is_connect() => self.pool.request(ask.request(self.urgency)?).await,
                first => first,
            }
            .map_err(|error| explain(peer, &error))
        };
        let patience = self.bounds.head_timeout + wait;
        let response = tokio::time::timeout(patience, exchange).await.map_err(|_| NetError::Timeout {
            peer,
            what,
            after_ms: millis(patience),
        })??;
        let answer = Answer { peer, what, response, idle: self.bounds.idle_timeout, permit };
        match tokio::time::timeout(self.bounds.answer_timeout, answer.accepted()).await {
            Ok(accepted) => accepted,
            Err(_) => Err(NetError::Timeout { peer, what, after_ms: millis(self.bounds.answer_timeout) }),
        }
    }
}

/// The reason of ours inside the pool's error, or all that the libraries say.
fn explain(peer: PeerId, error: &PoolError) -> NetError {
    let mut whys = Vec::new();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(dial) = inner.downcast_ref::<DialError>() {
            return NetError::from_dial(peer, dial);
        }
        whys.push(inner.to_string());
        cause = inner.source();
    }
    let why = if whys.is_empty() { error.to_string() } else { whys.join(": ") };
    NetError::Unreachable { peer, why }
}
