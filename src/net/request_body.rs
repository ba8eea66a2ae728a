//! Reads request bodies whole, each within its limit, all together within a room, and none for ever. It never decodes them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Body as _;
use tokio::sync::Semaphore;

use super::peer_api::ApiError;

/// KiB of request bodies of known callers that are read at once, and as much for strangers, so that strangers who dawdle hold
/// up no member: eight of the largest, hundreds of the usual.
const BODY_ROOM_KIB: usize = 32 * 1024;
/// How long a body may take to arrive, waiting for room included.
const READ_MAX: Duration = Duration::from_secs(60);

/// Memory for request bodies that are being read, over all connections (R9).
#[derive(Debug, Clone)]
pub(super) struct BodyRoom {
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl BodyRoom {
    pub(super) fn new() -> Self {
        let room = || Arc::new(Semaphore::new(BODY_ROOM_KIB));
        Self { known: room(), strangers: room() }
    }
    /// The room for a caller who is known, or is not.
    pub(super) fn of(&self, known: bool) -> &Arc<Semaphore> {
        if known { &self.known } else { &self.strangers }
    }
}

/// The body of `request`, at most `limit` bytes.
///
/// # Errors
/// [`ApiError::TooLarge`], [`ApiError::Unavailable`] when there is no room in time, [`ApiError::BadRequest`] when it does not
/// arrive.
pub(super) async fn read_body(request: Request<Body>, limit: usize, room: &Arc<Semaphore>) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::TooLarge { what: "The body".to_owned(), limit: format!("{limit} bytes") };
    let body = request.into_body();
    // A body that does not say its length is counted as the largest.
    let upper = body.size_hint().upper().map_or(limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if upper > limit {
        return Err(too_large());
    }
    let kib = u32::try_from(upper.div_ceil(1024).clamp(1, BODY_ROOM_KIB)).map_err(|_| too_large())?;
    let read = async {
        let room = Arc::clone(room).acquire_many_owned(kib).await;
        let _room = room.map_err(|_| unavailable())?;
        let whole =
            Limited::new(body, limit).collect().await.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
                Some(_) => too_large(),
                None => lost(e.as_ref()),
            })?;
        Ok(whole.to_bytes())
    };
    tokio::time::timeout(READ_MAX, read).await.unwrap_or_else(|_| Err(unavailable()))
}

fn lost(error: &(dyn Error + Send + Sync)) -> ApiError {
    ApiError::BadRequest { why: format!("The body did not arrive: {error}.") }
}

fn unavailable() -> ApiError {
    let why = "The body did not arrive in time, or there is no room for it now.".to_owned();
    ApiError::Unavailable { why, retry_after: Duration::from_secs(10) }
}
