//! The asked end of a stream: requests in, answers out. It reads no further while as many as are allowed await their answers,
//! and never believes what it reads.

use std::time::Duration;

use futures::AsyncReadExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::asking::{frames, written};
use super::{FLYING_MAX, Report};
use crate::net::dht_codec::Frame;
use crate::wire::dht::{REQUEST_MAX, Request};

/// Passes requests on and answers back, until the stream ends, something in it is no request, or nothing came for `idle`.
pub(super) async fn run(peer: PeerId, stream: Stream, reports: mpsc::Sender<Report>, idle: Duration) {
    let (reader, writer) = stream.split();
    let mut requests = frames(reader, REQUEST_MAX);
    let (out, outbox) = mpsc::channel(FLYING_MAX);
    let mut written = written(writer, outbox);
    let mut serving = FuturesUnordered::new();
    let mut quiet_since = Instant::now();
    loop {
        // Answers that wait to go out count too: a peer that does not read is not served.
        let unsent = out.max_capacity() - out.capacity();
        tokio::select! {
            frame = requests.next(), if serving.len() + unsent < FLYING_MAX => {
                let Some(Ok(Frame { number, body })) = frame else { return };
                let Ok(request) = Request::decode(&body) else {
                    tracing::debug!(%peer, "a DHT message is no request");
                    return;
                };
                let (answer, answered) = oneshot::channel();
                if reports.send(Report::Asked { peer, request, answer }).await.is_err() {
                    return;
                }
                serving.push(async move { (number, answered.await) });
            },
            Some((number, answered)) = serving.next() => {
                // Nothing says that there will be no answer.
                let body = answered.map(|response| response.encode()).unwrap_or_default();
                if out.try_send(Frame { number, body }).is_err() {
                    return;
                }
            },
            one = written.next() => if one.is_none() {
                return;
            },
            () = tokio::time::sleep_until(quiet_since + idle), if serving.is_empty() => return,
        }
        quiet_since = Instant::now();
    }
}
