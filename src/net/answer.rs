//! Answers of the HTTPS routes: bodies with ranges, through the upload limit and the caller's account, and errors as sentences.
//! It never reads a request but for its `Range` and its `Priority`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};

use super::body_source::{BodySource, ChunkStream};
use super::peer_api::ApiError;
use super::priority::urgency;
use super::range::{ByteRange, content_range, content_range_none};
use super::upload_limit::UploadLimit;
use crate::model::Urgency;

/// The header of a 403 for membership: the version of the gd that says so.
pub(super) const GD_VERSION: &str = "roost-gd-version";

/// The account that served bytes are counted in. Dropped when the answer has ended, whether all went out or not.
pub(super) trait Account: Send {
    /// Makes room for an answer of this many bytes.
    ///
    /// # Errors
    /// Whatever the caller is to be told instead.
    fn reserve(&mut self, bytes: u64) -> Result<(), ApiError>;
    /// So many of them go out now.
    fn sent(&mut self, bytes: u64);
}

/// For what counts in nobody's account.
pub(super) struct Free;

impl Account for Free {
    fn reserve(&mut self, _: u64) -> Result<(), ApiError> {
        Ok(())
    }
    fn sent(&mut self, _: u64) {}
}

/// What served bytes pass on their way out.
pub(super) struct Meter {
    pub(super) limit: Arc<UploadLimit>,
    pub(super) account: Box<dyn Account>,
}

fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A 200 with these bytes.
pub(super) fn bytes(bytes: Bytes, content_type: &'static str) -> Response {
    response(StatusCode::OK, content_type, Body::from(bytes))
}

/// A 200, 206 or 416 for what `source` has and the request's `Range` asks for (RFC 9110 section 14), or what the account
/// says to that many bytes.
pub(super) fn body(source: BodySource, request: &HeaderMap, mut meter: Meter) -> Response {
    let len = source.len();
    let asked = single(request).and_then(ByteRange::parse);
    let range = match asked.map(|range| range.resolve(len)) {
        None => 0..len,
        Some(Some(range)) => range,
        Some(None) => {
            let text = format!("The range lies outside the {len} bytes that there are.");
            let mut refusal = response(StatusCode::RANGE_NOT_SATISFIABLE, "text/plain", Body::from(text));
            refusal.headers_mut().insert(CONTENT_RANGE, header(&content_range_none(len)));
            return refusal;
        }
    };
    let size = range.end - range.start;
    if let Err(refusal) = meter.account.reserve(size) {
        return error(&refusal);
    }
    let chunks = source.into_chunks(range.clone(), meter.limit.chunk_bytes());
    let frames = metered(chunks, size, urgency(request), meter).map(|chunk| chunk.map(Frame::data));
    let status = if asked.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    // No content type: octets are what stands for none (RFC 9110 section 8.3), and a short mail is not to need a second packet.
    let mut answer = Response::new(Body::new(StreamBody::new(frames)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    if asked.is_some() {
        headers.insert(CONTENT_RANGE, header(&content_range(&range, len)));
    }
    answer
}

/// The one `Range` header, if there is exactly one.
fn single(request: &HeaderMap) -> Option<&str> {
    let mut all = request.get_all(RANGE).iter();
    match (all.next(), all.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
    }
}

/// Lets chunks through as the limit allows and counts them; ends at exactly `size` bytes, or with an error when there are
/// fewer or more, so that a wrong source never passes for a whole body.
fn metered(chunks: ChunkStream, size: u64, urgency: Urgency, meter: Meter) -> ChunkStream {
    stream::unfold(Some((chunks, Bytes::new(), size, meter)), move |state| async move {
        let (mut chunks, mut rest, left, mut meter) = state?;
        let wrong = |why| Some((Err(io::Error::new(io::ErrorKind::InvalidData, why)), None));
        if rest.is_empty() {
            rest = match chunks.next().await {
                None if left == 0 => return None,
                None => return wrong("the body ends too early"),
                Some(Err(error)) => return Some((Err(error), None)),
                Some(Ok(chunk)) => chunk,
            };
        }
        // Computed bodies come in pieces of their own size; none takes a longer turn than the others.
        let now = rest.split_to(rest.len().min(meter.limit.chunk_bytes()));
        let bytes = u64::try_from(now.len()).unwrap_or(u64::MAX);
        let Some(left) = left.checked_sub(bytes) else {
            return wrong("the body has more bytes than it said");
        };
        meter.limit.take(now.len(), urgency).await;
        meter.account.sent(bytes);
        Some((Ok(now), Some((chunks, rest, left, meter))))
    })
    .boxed()
}

/// An error as a response: status, one sentence, and what the caller needs to act on it.
pub(super) fn error(error: &ApiError) -> Response {
    let status = match error {
        ApiError::BadRequest { .. } => StatusCode::BAD_REQUEST,
        ApiError::Forbidden { .. } => StatusCode::FORBIDDEN,
        ApiError::NotFound { .. } => StatusCode::NOT_FOUND,
        ApiError::Gone { .. } => StatusCode::GONE,
        ApiError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ApiError::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        ApiError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    if let ApiError::Gone { tombstone } = error {
        return response(status, "application/octet-stream", Body::from(tombstone.0.clone()));
    }
    let mut answer = response(status, "text/plain; charset=utf-8", Body::from(error.to_string()));
    match error {
        ApiError::TooMany { retry_after, .. } | ApiError::Unavailable { retry_after, .. } => {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds_up(*retry_after)));
        }
        ApiError::Forbidden { gd_version: Some(version), .. } => {
            answer.headers_mut().insert(GD_VERSION, HeaderValue::from(*version));
        }
        _ => {}
    }
    answer
}

/// Whole seconds, rounded up and at least one.
fn seconds_up(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}
