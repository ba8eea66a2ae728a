//! The asking end of a stream: requests out, answers in, whatever their order. It never sends what it was not told to send.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use futures::{AsyncReadExt as _, AsyncWrite};
use libp2p::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{ANSWER_WITHIN, Errand, FLYING_MAX, FRAME_WITHIN, Report};
use crate::net::dht_codec::{Frame, read_frame, write_frame};
use crate::wire::dht::{RESPONSE_MAX, Response};

/// A request that was sent.
#[derive(Debug)]
struct Flight {
    errand: Errand,
    deadline: Instant,
}

/// Why a link ends.
enum End {
    /// Nobody asks any more, or nothing was asked for long.
    Quiet,
    /// The stream is of no use any more: what is under way may be sent on another.
    Broken,
    /// The peer does not answer, or does not speak the protocol: what is under way is not answered.
    Unfit,
}

/// Frames as they come, none lost when nobody waits for them.
pub(super) fn frames<T>(stream: T, limit: usize) -> BoxStream<'static, io::Result<Frame>>
where
    T: futures::AsyncRead + Unpin + Send + 'static,
{
    let next = move |mut stream: T| async move {
        let frame = read_frame(&mut stream, limit, FRAME_WITHIN).await.transpose()?;
        Some((frame, stream))
    };
    futures::stream::unfold(stream, next).boxed()
}

/// Writes frames; an item for each that is on its way, until there are no more, or one does not go out.
pub(super) fn written<T>(stream: T, frames: mpsc::Receiver<Frame>) -> BoxStream<'static, ()>
where
    T: AsyncWrite + Unpin + Send + 'static,
{
    let next = |(mut stream, mut frames): (T, mpsc::Receiver<Frame>)| async move {
        let frame = frames.recv().await?;
        write_frame(&mut stream, &frame, FRAME_WITHIN).await.ok()?;
        Some(((), (stream, frames)))
    };
    futures::stream::unfold((stream, frames), next).boxed()
}

/// The state of one link.
struct Asking<'a> {
    flying: BTreeMap<u32, Flight>,
    next: u32,
    /// Whether there was an answer: this tells a stream that died from a peer that hangs up on every request.
    answered: bool,
    heard: Instant,
    reports: &'a mpsc::Sender<Report>,
}

/// Sends what comes in, until the stream ends or nothing came for `idle`. What is left to be sent on another stream.
pub(super) async fn run(
    stream: Stream,
    mut inbox: mpsc::Receiver<Errand>,
    reports: &mpsc::Sender<Report>,
    idle: Duration,
) -> Vec<Errand> {
    let (reader, writer) = stream.split();
    let mut answers = frames(reader, RESPONSE_MAX);
    let (out, outbox) = mpsc::channel(FLYING_MAX);
    let mut written = written(writer, outbox);
    let mut asking = Asking { flying: BTreeMap::new(), next: 0, answered: false, heard: Instant::now(), reports };
    let mut quiet_since = Instant::now();
    let end = loop {
        let deadline = asking.flying.values().map(|flight| flight.deadline).min();
        let wake = deadline.unwrap_or(quiet_since + idle);
        let went = tokio::select! {
            errand = inbox.recv(), if asking.flying.len() < FLYING_MAX => match errand {
                Some(errand) => asking.send(errand, &out),
                None => Err(End::Quiet),
            },
            frame = answers.next() => match frame {
                Some(Ok(frame)) => asking.take(frame).await,
                Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(End::Unfit),
                Some(Err(_)) | None => Err(End::Broken),
            },
            one = written.next() => one.ok_or(End::Broken),
            () = tokio::time::sleep_until(wake) => match deadline {
                Some(_) => asking.time_out().await,
                None => Err(End::Quiet),
            },
        };
        quiet_since = if asking.flying.is_empty() { quiet_since } else { Instant::now() };
        if let Err(end) = went {
            break end;
        }
    };
    asking.end(end, inbox).await
}

impl Asking<'_> {
    fn send(&mut self, errand: Errand, out: &mpsc::Sender<Frame>) -> Result<(), End> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let body = errand.request.encode();
        self.flying.insert(number, Flight { errand, deadline: Instant::now() + ANSWER_WITHIN });
        // There is room for as many as may be under way; it is gone only when the stream does not take them.
        out.try_send(Frame { number, body }).map_err(|_| End::Broken)
    }

    async fn take(&mut self, frame: Frame) -> Result<(), End> {
        self.heard = Instant::now();
        let Some(flight) = self.flying.remove(&frame.number) else {
            // It took too long, or it answers what was never asked.
            return if frame.number < self.next { Ok(()) } else { Err(End::Unfit) };
        };
        let response = if frame.body.is_empty() { None } else { Response::decode(&frame.body).ok() };
        let unfit = response.is_none() && !frame.body.is_empty();
        self.answered |= response.is_some();
        self.tell(flight.errand.id, response).await;
        if unfit { Err(End::Unfit) } else { Ok(()) }
    }

    /// Ends what took too long; a peer that said nothing at all meanwhile is left.
    async fn time_out(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let mut silent = false;
        while let Some((number, _)) = self.flying.iter().find(|(_, flight)| flight.deadline <= now) {
            let number = *number;
            if let Some(flight) = self.flying.remove(&number) {
                silent |= self.heard + ANSWER_WITHIN <= flight.deadline;
                self.tell(flight.errand.id, None).await;
            }
        }
        if silent { Err(End::Unfit) } else { Ok(()) }
    }

    /// What is left for another stream.
    async fn end(self, end: End, mut inbox: mpsc::Receiver<Errand>) -> Vec<Errand> {
        inbox.close();
        let mut left = Vec::new();
        for (_, flight) in self.flying.iter() {
            let errand = flight.errand.clone();
            if matches!(end, End::Broken) && self.answered && !errand.again {
                left.push(Errand { again: true, ..errand });
            } else {
                self.tell(errand.id, None).await;
            }
        }
        while let Some(errand) = inbox.recv().await {
            match end {
                End::Quiet | End::Broken => left.push(errand),
                End::Unfit => self.tell(errand.id, None).await,
            }
        }
        left
    }

    async fn tell(&self, id: u64, response: Option<Response>) {
        // A swarm that has stopped wants no answers.
        let _ = self.reports.send(Report::Answered { id, response }).await;
    }
}
