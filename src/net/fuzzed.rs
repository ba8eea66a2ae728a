//! The fuzz target for the HTTPS routes, ranges and bodies, and a door to the frames of `/roost/dht/1`. Never in an ordinary
//! build, and without TLS: who the caller is, is given.

#![allow(clippy::unwrap_used, reason = "a panic is how a target says that a law is broken")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::io::Cursor as Stream;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use hyper::{Request, StatusCode};
use serde_bytes::ByteBuf;

use super::body_source::BodySource;
use super::dht_codec::{read_frame, write_frame};
use super::peer_api::{ApiError, PeerApi};
use super::range::{ByteRange, content_range, parse_content_range, range_header};
use super::routes::{WAIT_MAX_S, call, router};
use super::upload_limit::UploadLimit;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, LeaveStage};
use crate::model::msglist::{Cursor, SignedTombstone};
use crate::model::{Address, MailId, Part, PeerId};
use crate::wire::http::{
    FragmentList, GivenPart, HoldingsAnswer, HoldingsPost, PartsAnswer, PartsPost, ReachAnswer, ReachPost,
};
use crate::wire::laws::{decodes, door, encodes_and_decodes};
use crate::wire::msglist::Page;
use crate::wire::notify::{NOTIFY_BATCH_MAX, Notice};

/// Bytes of every body that the peer behind the routes serves.
const BODY: u64 = 1000;
/// Most bytes of a frame's body.
const FRAME_MAX: usize = 300;

/// A peer that has every mail, and takes everything that is well-formed.
#[derive(Clone)]
struct Generous;

fn body() -> Bytes {
    (0..BODY).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<u8>>().into()
}

impl PeerApi for Generous {
    fn is_known(&self, _: &PeerId) -> bool {
        true
    }
    fn reserve(&self, _: &PeerId, _: &MailId, bytes: u64) -> Result<(), ApiError> {
        assert!(bytes <= BODY);
        Ok(())
    }
    fn give_back(&self, _: &PeerId, _: &MailId, bytes: u64) {
        assert!(bytes <= BODY);
    }
    fn served(&self, _: &PeerId, _: &MailId, bytes: u64) {
        assert!(bytes <= BODY);
    }
    async fn pubkey(&self, _: PeerId, address: Address) -> Result<Bytes, ApiError> {
        Ok(address.to_string().into())
    }
    async fn sealed(&self, _: PeerId, h: MailId) -> Result<BodySource, ApiError> {
        if h.as_bytes()[0] == 0 {
            return Err(ApiError::Gone { tombstone: SignedTombstone(vec![1, 2, 3]) });
        }
        Ok(BodySource::Bytes(body()))
    }
    async fn manifest(&self, _: PeerId, _: MailId, _: Option<u8>) -> Result<BodySource, ApiError> {
        Ok(BodySource::Bytes(body()))
    }
    async fn fragment(&self, _: PeerId, _: MailId, _: u8, _: u8) -> Result<BodySource, ApiError> {
        Ok(BodySource::Bytes(body()))
    }
    async fn msglist(&self, _: PeerId, since: Cursor, wait: Duration) -> Result<Page, ApiError> {
        assert!(wait.as_secs() <= WAIT_MAX_S);
        assert_eq!(since.to_string().parse(), Ok(since));
        Ok(Page::default())
    }
    async fn mirror_msglist(&self, _: PeerId, address: Address, _: Cursor) -> Result<Page, ApiError> {
        assert_eq!(address.to_string().parse(), Ok(address));
        Ok(Page::default())
    }
    async fn holdings(&self, _: PeerId, post: HoldingsPost) -> Result<HoldingsAnswer, ApiError> {
        encodes_and_decodes(&post);
        Ok(HoldingsAnswer::default())
    }
    async fn notify(&self, _: PeerId, notices: Vec<Notice>) -> Result<(), ApiError> {
        assert!(notices.len() <= NOTIFY_BATCH_MAX);
        encodes_and_decodes(&notices);
        Ok(())
    }
    async fn heartbeat(&self, _: PeerId, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        encodes_and_decodes(&heartbeat);
        Ok(HeartbeatAnswer::default())
    }
    async fn parts(&self, _: PeerId, post: PartsPost) -> Result<PartsAnswer, ApiError> {
        encodes_and_decodes(&post);
        let given = |(h, part): (MailId, Part)| GivenPart {
            h,
            part,
            manifest: ByteBuf::from(vec![1; 300]),
            bytes: ByteBuf::from(vec![2; 700]),
        };
        Ok(PartsAnswer { parts: post.parts.into_iter().map(given).collect(), gone: Vec::new() })
    }
    async fn join(&self, _: PeerId, request: JoinRequest) -> Result<Bytes, ApiError> {
        encodes_and_decodes(&request);
        Ok(body())
    }
    async fn leave(&self, _: PeerId, stage: LeaveStage) -> Result<Bytes, ApiError> {
        encodes_and_decodes(&stage);
        Ok(body())
    }
    async fn reach(&self, _: PeerId, post: ReachPost) -> Result<ReachAnswer, ApiError> {
        encodes_and_decodes(&post);
        Ok(ReachAnswer::default())
    }
}

/// Requests (a line, header lines, an empty line, a body), ranges, `Content-Range`, and the answers that a peer reads.
pub fn http(data: &[u8]) {
    let Some((which, rest)) = door(data, 3) else { return };
    match which {
        0 => request(rest),
        1 => drop(std::str::from_utf8(rest).map(ranges)),
        _ => {
            decodes::<HoldingsPost>(rest);
            decodes::<HoldingsAnswer>(rest);
            decodes::<FragmentList>(rest);
            decodes::<PartsPost>(rest);
            decodes::<PartsAnswer>(rest);
            decodes::<Heartbeat>(rest);
            decodes::<HeartbeatAnswer>(rest);
            decodes::<JoinRequest>(rest);
            decodes::<LeaveStage>(rest);
            decodes::<Vec<Notice>>(rest);
            decodes::<ReachAnswer>(rest);
        }
    }
}

/// A range lies in what there is, and what is said of it reads as it prints.
fn ranges(text: &str) {
    if let Some(range) = ByteRange::parse(text) {
        for len in [0, 1, BODY, u64::MAX] {
            let Some(Range { start, end }) = range.resolve(len) else { continue };
            assert!(start < end && end <= len, "{text:?} of {len}");
            assert_eq!(parse_content_range(&content_range(&(start..end), len)), Some((start..end, len)));
            let again = ByteRange::parse(&range_header(&(start..end))).and_then(|range| range.resolve(len));
            assert_eq!(again, Some(start..end));
        }
    }
    if let Some((range, len)) = parse_content_range(text) {
        assert!(range.start < range.end && range.end <= len);
        assert_eq!(parse_content_range(&content_range(&range, len)), Some((range, len)));
    }
}

fn read(data: &[u8]) -> Option<(Request<Body>, String)> {
    let empty_line = data.windows(2).position(|w| w == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..empty_line], data.get(empty_line + 2..).unwrap_or_default());
    let mut lines = head.split(|b| *b == b'\n');
    let (method, uri) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut builder = Request::builder().method(method).uri(uri);
    for line in lines {
        let colon = line.iter().position(|b| *b == b':')?;
        builder = builder.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    let request = builder.body(Body::from(body.to_vec())).ok()?;
    let path = request.uri().path().to_owned();
    Some((request, path))
}

/// A request is answered with one of the codes of the table, and a range with exactly its bytes.
fn request(data: &[u8]) {
    let Some((request, path)) = read(data) else { return };
    let range = request.headers().get(RANGE).cloned();
    block_on(async {
        let router = router(Generous, Arc::new(UploadLimit::new(None)));
        let Ok(response) = call(router, PeerId::new([9; 32]), request).await;
        answer_fits(&path, range.is_some(), response).await;
    });
}

async fn answer_fits(path: &str, asked_for_range: bool, response: Response) {
    let status = response.status();
    let known = [200, 204, 206, 400, 404, 405, 408, 410, 413, 416, 503];
    assert!(known.contains(&status.as_u16()), "{status} to {path}");
    let told = response.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(told.is_none_or(|told| told == u64::try_from(bytes.len()).unwrap()) || status == StatusCode::OK);
    if status == StatusCode::PARTIAL_CONTENT {
        let (range, len) = parse_content_range(&range.unwrap()).unwrap();
        let index = |at: u64| usize::try_from(at).unwrap();
        assert!(asked_for_range && len == BODY && bytes == body()[index(range.start)..index(range.end)]);
    }
    if let Some(address) = path.strip_prefix("/pubkey/").filter(|_| status == StatusCode::OK && !bytes.is_empty()) {
        assert_eq!(bytes, address.as_bytes(), "an address is read as it prints, or not at all");
    }
}

/// Runs one answer to its end.
fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Frames: those that are read are written as they were, and none is larger than the bound.
pub(crate) fn dht_frames(data: &[u8]) {
    let within = Duration::from_secs(60);
    block_on(async {
        let (mut stream, mut written, mut end) = (Stream::new(data), Stream::new(Vec::new()), 0);
        while let Ok(Some(frame)) = read_frame(&mut stream, FRAME_MAX, within).await {
            assert!(frame.body.len() <= FRAME_MAX);
            write_frame(&mut written, &frame, within).await.unwrap();
            end = usize::try_from(stream.position()).unwrap();
        }
        assert_eq!(written.get_ref()[..], data[..end]);
    });
}
