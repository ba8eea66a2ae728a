//! The table of HTTPS routes: strict reading of requests, typed calls to a [`PeerApi`], answers with ranges and bounded bodies.
//! It authenticates (the caller's PeerId comes from TLS) and never decides membership.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use hyper::Request;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service;

use super::answer::{self, Meter};
use super::body_source::BodySource;
use super::peer_api::{Answer, ApiError, PeerApi};
use super::request_body::{BodyRoom, read_body};
use super::upload_limit::UploadLimit;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, LeaveStage};
use crate::model::msglist::Cursor;
use crate::model::{Address, MailId, PeerId};
use crate::wire::http::{
    GivenPart, HEARTBEAT_BYTES_MAX, HOLDINGS_BYTES_MAX, HoldingsPost, JOIN_BYTES_MAX, PARTS_ASKED_MAX,
    PARTS_POST_BYTES_MAX, PartsPost, ReachPost,
};
use crate::wire::notify::{NOTIFY_BATCH_MAX, NOTIFY_BYTES_MAX, Notice};
use crate::wire::{decode, encode};

/// Longest wait of a long poll, seconds (DESIGN.md section 4).
pub const WAIT_MAX_S: u64 = 300;
/// How long the peer behind the routes may think, a long poll's wait not counted. Past it the caller is told to come again.
const THINK_MAX: Duration = Duration::from_secs(60);
/// Answers with parts of several mails at a time; whoever finds no room asks for each part alone.
const TOGETHER_AT_ONCE: usize = 16;
/// Longest path and longest query, bytes. The longest path that means something has about 150.
const PATH_MAX: usize = 256;

/// Who proved to be on the other side of the connection.
#[derive(Debug, Clone, Copy)]
struct Caller(PeerId);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let nobody = || ApiError::Forbidden { why: "The connection proves no PeerId.".to_owned(), gd_version: None };
        parts.extensions.get::<Caller>().copied().ok_or_else(|| answer::error(&nobody()))
    }
}

/// What every route has at hand.
#[derive(Clone)]
struct Shared<A> {
    api: A,
    limit: Arc<UploadLimit>,
    room: BodyRoom,
    /// Answers with parts of several mails: such an answer is in memory as a whole until it has gone out.
    together: Arc<Semaphore>,
}

/// The routes in front of `api`; what they serve goes through `limit`.
pub(super) fn router<A: PeerApi>(api: A, limit: Arc<UploadLimit>) -> Router {
    let together = Arc::new(Semaphore::new(TOGETHER_AT_ONCE));
    let shared = Shared { api, limit, room: BodyRoom::new(), together };
    Router::new()
        .route("/pubkey", get(own_pubkey::<A>))
        .route("/pubkey/{address}", get(pubkey::<A>))
        .route("/outbox/msglist", get(msglist::<A>))
        .route("/outbox/holdings", post(holdings::<A>))
        .route("/outbox/parts", post(parts::<A>))
        .route("/outbox/{h}", get(sealed::<A>))
        .route("/outbox/{h}/manifest", get(manifest::<A>))
        .route("/outbox/{h}/fragments", get(fragments::<A>))
        .route("/outbox/{h}/fragments/{k}/{i}", get(fragment::<A>))
        .route("/mirror/{address}/msglist", get(mirror_msglist::<A>))
        .route("/notify", post(notify::<A>))
        .route("/group", get(group::<A>))
        .route("/group/heartbeat", post(heartbeat::<A>))
        .route("/group/join", post(join::<A>))
        .route("/group/key", post(group_key::<A>))
        .route("/group/leave", post(leave::<A>))
        .route("/group/reach", post(reach::<A>))
        .fallback(async || answer::error(&no_route()))
        .with_state(shared)
}

/// Answers one request of `caller`.
pub(super) async fn call<B>(mut router: Router, caller: PeerId, mut request: Request<B>) -> Result<Response, Infallible>
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
{
    if !plain_path(request.uri().path()) || request.uri().query().is_some_and(|query| query.len() > PATH_MAX) {
        return Ok(answer::error(&no_route()));
    }
    request.extensions_mut().insert(Caller(caller));
    router.call(request).await
}

/// Whether a path is written the one way that the table has: nothing escaped, doubled, dotted or overlong.
fn plain_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'@');
    let step = |segment: &str| !segment.is_empty() && segment != "." && segment != "..";
    path.len() <= PATH_MAX
        && path.bytes().all(plain)
        && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(step))
}

fn no_route() -> ApiError {
    ApiError::NotFound { what: "That path".to_owned() }
}

/// {h}: exactly 40 lower-case hexadecimal digits.
fn mail_id(text: &str) -> Result<MailId, ApiError> {
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.parse().ok().filter(|_| lower).ok_or_else(no_route)
}

/// {address}: as it prints, so in lower case.
fn address(text: &str) -> Result<Address, ApiError> {
    text.parse().ok().filter(|address: &Address| address.to_string() == text).ok_or_else(no_route)
}

/// {k} and {i}: decimal, without sign or leading zeros.
fn small(text: &str) -> Result<u8, ApiError> {
    text.parse().ok().filter(|n: &u8| n.to_string() == text).ok_or_else(no_route)
}

#[derive(Deserialize)]
struct MsglistQuery {
    since: Option<String>,
    wait: Option<String>,
}

impl MsglistQuery {
    fn read(self) -> Result<(Cursor, Duration), ApiError> {
        let bad = |why: String| ApiError::BadRequest { why };
        let since = self.since.map_or(Ok(Cursor::default()), |text| text.parse().map_err(|_| bad_since(&text)))?;
        let wait = self.wait.map_or(Ok(0), |text| text.parse::<u64>());
        let wait = wait.map_err(|_| bad("wait is a whole number of seconds, at most 300.".to_owned()))?;
        Ok((since, Duration::from_secs(wait.min(WAIT_MAX_S))))
    }
}

fn bad_since(text: &str) -> ApiError {
    let text: String = text.chars().take(60).collect();
    ApiError::BadRequest { why: format!("{text:?} is no reading position; since reads EPOCH.SEQ, for example 0.0.") }
}

/// A query that axum could not read, as an error of ours.
type ReadQuery = Result<Query<MsglistQuery>, axum::extract::rejection::QueryRejection>;

fn read_query(query: ReadQuery) -> Result<(Cursor, Duration), ApiError> {
    query.map_err(|e| ApiError::BadRequest { why: format!("The query cannot be read: {e}.") })?.0.read()
}

/// Waits for the peer behind the routes, but not for ever.
async fn within<T>(patience: Duration, answer: impl Answer<T>) -> Result<T, ApiError> {
    let late = |_| ApiError::Unavailable {
        why: "This peer is too busy to answer now.".to_owned(),
        retry_after: Duration::from_secs(10),
    };
    tokio::time::timeout(patience, answer).await.map_err(late)?
}

/// One answer with bytes of a mail in the account of its caller; gives back what did not go out.
struct OfMail<A: PeerApi> {
    api: A,
    caller: PeerId,
    h: MailId,
    left: u64,
}

impl<A: PeerApi> answer::Account for OfMail<A> {
    fn reserve(&mut self, bytes: u64) -> Result<(), ApiError> {
        self.api.reserve(&self.caller, &self.h, bytes)?;
        self.left = self.left.saturating_add(bytes);
        Ok(())
    }
    fn sent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.api.served(&self.caller, &self.h, bytes);
    }
}

impl<A: PeerApi> Drop for OfMail<A> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.api.give_back(&self.caller, &self.h, self.left);
        }
    }
}

/// One answer with parts of several mails: all of them count as served once its first byte goes out.
struct OfMails<A: PeerApi> {
    api: A,
    caller: PeerId,
    left: Vec<(MailId, u64)>,
    _room: OwnedSemaphorePermit,
}

impl<A: PeerApi> answer::Account for OfMails<A> {
    fn reserve(&mut self, _: u64) -> Result<(), ApiError> {
        Ok(())
    }
    fn sent(&mut self, _: u64) {
        if !self.left.is_empty() {
            self.api.served_parts(&self.caller, std::mem::take(&mut self.left));
        }
    }
}

impl<A: PeerApi> Drop for OfMails<A> {
    fn drop(&mut self) {
        self.left.iter().for_each(|(h, bytes)| self.api.give_back(&self.caller, h, *bytes));
    }
}

impl<A: PeerApi> Shared<A> {
    fn body(&self, caller: PeerId, h: MailId, headers: &HeaderMap, source: BodySource) -> Response {
        let account = Box::new(OfMail { api: self.api.clone(), caller, h, left: 0 });
        answer::body(source, headers, Meter { limit: Arc::clone(&self.limit), account })
    }
    async fn read<T: DeserializeOwned>(
        &self,
        caller: PeerId,
        request: Request<Body>,
        limit: usize,
    ) -> Result<T, ApiError> {
        let room = self.room.of(self.api.is_known(&caller));
        let bytes = read_body(request, limit, room).await?;
        decode(&bytes).map_err(|e| ApiError::BadRequest { why: format!("The body cannot be read: {e}.") })
    }
}

/// Any result of a route as a response.
fn respond<T: IntoResponse>(result: Result<T, ApiError>) -> Response {
    match result {
        Ok(value) => value.into_response(),
        Err(error) => answer::error(&error),
    }
}

/// A CBOR answer.
fn cbor<T: serde::Serialize>(result: Result<T, ApiError>) -> Response {
    respond(result.map(|value| answer::bytes(Bytes::from(encode(&value)), "application/cbor")))
}

/// An answer of bytes that prove themselves.
fn opaque(result: Result<Bytes, ApiError>) -> Response {
    respond(result.map(|bytes| answer::bytes(bytes, "application/octet-stream")))
}

async fn own_pubkey<A: PeerApi>(State(shared): State<Shared<A>>, Caller(caller): Caller) -> Response {
    opaque(within(THINK_MAX, shared.api.own_pubkey(caller)).await)
}

async fn pubkey<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    Path(text): Path<String>,
) -> Response {
    opaque(match address(&text) {
        Ok(address) => within(THINK_MAX, shared.api.pubkey(caller, address)).await,
        Err(error) => Err(error),
    })
}

async fn sealed<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    Path(h): Path<String>,
    headers: HeaderMap,
) -> Response {
    respond(
        async {
            let h = mail_id(&h)?;
            let source = within(THINK_MAX, shared.api.sealed(caller, h)).await?;
            Ok(shared.body(caller, h, &headers, source))
        }
        .await,
    )
}

/// For which fragments a manifest is wanted; whatever else stands there is none.
#[derive(Deserialize)]
struct ManifestQuery {
    k: Option<u8>,
}

async fn manifest<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    Path(h): Path<String>,
    query: Result<Query<ManifestQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    respond(
        async {
            let source =
                within(THINK_MAX, shared.api.manifest(caller, mail_id(&h)?, query.ok().and_then(|query| query.k)))
                    .await?;
            // A manifest is no byte of the mail: it counts against the upload limit, not against the caller's account.
            let meter = Meter { limit: Arc::clone(&shared.limit), account: Box::new(answer::Free) };
            Ok(answer::body(source, &headers, meter))
        }
        .await,
    )
}

async fn fragments<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    Path(h): Path<String>,
) -> Response {
    cbor(match mail_id(&h) {
        Ok(h) => within(THINK_MAX, shared.api.fragments(caller, h)).await,
        Err(error) => Err(error),
    })
}

async fn fragment<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    Path((h, k, i)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    respond(
        async {
            let (h, k, i) = (mail_id(&h)?, small(&k)?, small(&i)?);
            let source = within(THINK_MAX, shared.api.fragment(caller, h, k, i)).await?;
            Ok(shared.body(caller, h, &headers, source))
        }
        .await,
    )
}

async fn msglist<A: PeerApi>(State(shared): State<Shared<A>>, Caller(caller): Caller, query: ReadQuery) -> Response {
    cbor(match read_query(query) {
        Ok((since, wait)) => within(wait + THINK_MAX, shared.api.msglist(caller, since, wait)).await,
        Err(error) => Err(error),
    })
}

async fn mirror_msglist<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    Path(text): Path<String>,
    query: ReadQuery,
) -> Response {
    let asked = address(&text).and_then(|address| Ok((address, read_query(query)?.0)));
    cbor(match asked {
        Ok((address, since)) => within(THINK_MAX, shared.api.mirror_msglist(caller, address, since)).await,
        Err(error) => Err(error),
    })
}

async fn parts<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    headers: HeaderMap,
    request: Request<Body>,
) -> Response {
    respond(
        async {
            let post: PartsPost = shared.read(caller, request, PARTS_POST_BYTES_MAX).await?;
            if post.parts.len() > PARTS_ASKED_MAX {
                let (what, limit) = ("The list".to_owned(), format!("{PARTS_ASKED_MAX} parts"));
                return Err(ApiError::TooLarge { what, limit });
            }
            let busy = |_| ApiError::Unavailable {
                why: "This peer serves too many parts at once now.".to_owned(),
                retry_after: Duration::from_secs(1),
            };
            let room = Arc::clone(&shared.together).try_acquire_owned().map_err(busy)?;
            let given = within(THINK_MAX, shared.api.parts(caller, post)).await?;
            let bytes = |part: &GivenPart| u64::try_from(part.bytes.len()).unwrap_or(u64::MAX);
            let left = given.parts.iter().map(|part| (part.h, bytes(part))).collect();
            let account = Box::new(OfMails { api: shared.api.clone(), caller, left, _room: room });
            let source = BodySource::Bytes(Bytes::from(encode(&given)));
            Ok(answer::body(source, &headers, Meter { limit: Arc::clone(&shared.limit), account }))
        }
        .await,
    )
}

async fn holdings<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    request: Request<Body>,
) -> Response {
    cbor(match shared.read::<HoldingsPost>(caller, request, HOLDINGS_BYTES_MAX).await {
        Ok(post) => within(THINK_MAX, shared.api.holdings(caller, post)).await,
        Err(error) => Err(error),
    })
}

async fn notify<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    request: Request<Body>,
) -> Response {
    respond(
        async {
            let notices: Vec<Notice> = shared.read(caller, request, NOTIFY_BYTES_MAX).await?;
            if notices.len() > NOTIFY_BATCH_MAX {
                let (what, limit) = ("The batch".to_owned(), format!("{NOTIFY_BATCH_MAX} items"));
                return Err(ApiError::TooLarge { what, limit });
            }
            within(THINK_MAX, shared.api.notify(caller, notices)).await?;
            Ok(hyper::StatusCode::NO_CONTENT)
        }
        .await,
    )
}

async fn group<A: PeerApi>(State(shared): State<Shared<A>>, Caller(caller): Caller) -> Response {
    opaque(within(THINK_MAX, shared.api.group(caller)).await)
}

async fn heartbeat<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    request: Request<Body>,
) -> Response {
    cbor(match shared.read::<Heartbeat>(caller, request, HEARTBEAT_BYTES_MAX).await {
        Ok(heartbeat) => within(THINK_MAX, shared.api.heartbeat(caller, heartbeat)).await,
        Err(error) => Err(error),
    })
}

async fn join<A: PeerApi>(State(shared): State<Shared<A>>, Caller(caller): Caller, request: Request<Body>) -> Response {
    opaque(match shared.read::<JoinRequest>(caller, request, JOIN_BYTES_MAX).await {
        Ok(request) => within(THINK_MAX, shared.api.join(caller, request)).await,
        Err(error) => Err(error),
    })
}

async fn group_key<A: PeerApi>(State(shared): State<Shared<A>>, Caller(caller): Caller) -> Response {
    opaque(within(THINK_MAX, shared.api.group_key(caller)).await)
}

async fn leave<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    request: Request<Body>,
) -> Response {
    opaque(match shared.read::<LeaveStage>(caller, request, JOIN_BYTES_MAX).await {
        Ok(stage) => within(THINK_MAX, shared.api.leave(caller, stage)).await,
        Err(error) => Err(error),
    })
}

async fn reach<A: PeerApi>(
    State(shared): State<Shared<A>>,
    Caller(caller): Caller,
    request: Request<Body>,
) -> Response {
    cbor(match shared.read::<ReachPost>(caller, request, JOIN_BYTES_MAX).await {
        Ok(post) => within(THINK_MAX, shared.api.reach(caller, post)).await,
        Err(error) => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_way_of_writing_a_path_is_read() {
        let long = format!("/{}", "a".repeat(300));
        for bad in [
            "",
            "/",
            "outbox",
            "/outbox/",
            "//outbox",
            "/outbox//x",
            "/outbox/../group",
            "/outbox/./x",
            "/outbox/%2e%2e/group",
            "/outbox/%2E",
            "/group/..",
            "/a b",
            "/a\\b",
            "/a;b",
            "/outbox/\u{e4}",
            &long,
        ] {
            assert!(!plain_path(bad), "{bad}");
        }
        for good in ["/group", "/pubkey/alice@acme", "/outbox/msglist", "/mirror/a.b-c_d@x/msglist"] {
            assert!(plain_path(good), "{good}");
        }
    }

    #[test]
    fn the_parts_of_a_path_are_read_strictly() {
        assert!(mail_id(&"ab".repeat(20)).is_ok());
        for bad in ["AB".repeat(20), "ab".repeat(19), "zz".repeat(20), "..".to_owned()] {
            assert!(mail_id(&bad).is_err(), "{bad}");
        }
        assert!(small("0").is_ok() && small("255").is_ok());
        for bad in ["", "256", "-1", "+1", "01", "1.0"] {
            assert!(small(bad).is_err(), "{bad}");
        }
        assert!(address("alice@acme").is_ok() && address("Alice@acme").is_err() && address("alice").is_err());
    }
}
