//! Shows a test what passes between peers before it is encrypted: HTTPS bodies and heads, and DHT messages. It never changes a
//! byte, costs one look at an empty cell, and nothing in the program itself installs a recorder (`tests/tidy.rs` holds it).

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What goes one way over one connection. Pieces of one flow, put together in the order in which they are shown, are what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// What came in over the HTTPS connection with this number: requests.
    Requests(u64),
    /// What went out over it: answers.
    Answers(u64),
    /// One message of the DHT, whole.
    Dht,
}

/// Is given every piece of clear bytes, with the flow that it belongs to.
pub type Recorder = Box<dyn Fn(Flow, &[u8]) + Send + Sync>;

static RECORDER: OnceLock<Recorder> = OnceLock::new();
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Records from here on, in this process; the first recorder stays. Gives back whether it is this one.
pub fn install(recorder: Recorder) -> bool {
    RECORDER.set(recorder).is_ok()
}

/// Shows bytes to the recorder, if there is one.
pub(super) fn saw(flow: Flow, bytes: &[u8]) {
    if let Some(recorder) = RECORDER.get() {
        recorder(flow, bytes);
    }
}

/// A server's stream whose bytes the recorder sees, both ways.
#[derive(Debug)]
pub(super) struct Tapped<T> {
    stream: T,
    number: u64,
}

impl<T> Tapped<T> {
    /// The next connection.
    pub(super) fn new(stream: T) -> Self {
        Self { stream, number: CONNECTIONS.fetch_add(1, Ordering::Relaxed) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tapped<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(fresh) = buf.filled().get(before..).filter(|fresh| !fresh.is_empty()) {
            saw(Flow::Requests(self.number), fresh);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tapped<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(taken)) = &polled {
            saw(Flow::Answers(self.number), buf.get(..*taken).unwrap_or(buf));
        }
        polled
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(taken)) = &polled {
            let mut left = *taken;
            for buf in bufs {
                let part = buf.get(..left.min(buf.len())).unwrap_or_default();
                left -= part.len();
                if !part.is_empty() {
                    saw(Flow::Answers(self.number), part);
                }
            }
        }
        polled
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
