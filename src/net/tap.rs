//! Shows a test what passes between peers before it is encrypted: HTTPS bodies and heads, and DHT messages. It never changes a
//! byte, costs one look at an empty cell, and nothing in the program itself installs a recorder (`tests/tidy.rs` holds it).

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Is given every piece of clear bytes, in the order in which one connection carries them.
pub type Recorder = Box<dyn Fn(&[u8]) + Send + Sync>;

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Records from here on, in this process; the first recorder stays. Gives back whether it is this one.
pub fn install(recorder: Recorder) -> bool {
    RECORDER.set(recorder).is_ok()
}

/// Shows bytes to the recorder, if there is one.
pub(super) fn saw(bytes: &[u8]) {
    if let Some(recorder) = RECORDER.get() {
        recorder(bytes);
    }
}

/// A stream whose bytes the recorder sees, both ways.
#[derive(Debug)]
pub(super) struct Tapped<T>(pub(super) T);

impl<T: AsyncRead + Unpin> AsyncRead for Tapped<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(cx, buf);
        if let Some(fresh) = buf.filled().get(before..).filter(|fresh| !fresh.is_empty()) {
            saw(fresh);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tapped<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.0).poll_write(cx, buf);
        if let Poll::Ready(Ok(taken)) = &polled {
            saw(buf.get(..*taken).unwrap_or(buf));
        }
        polled
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.0).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(taken)) = &polled {
            let mut left = *taken;
            for buf in bufs {
                let part = buf.get(..left.min(buf.len())).unwrap_or_default();
                left -= part.len();
                if !part.is_empty() {
                    saw(part);
                }
            }
        }
        polled
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
