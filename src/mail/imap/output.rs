//! What goes to the mail program, in a buffer that never grows without bound. Never waits for ever on a mail program that
//! does not read.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::End;

/// Bytes that may gather before they are written.
const BUFFER_MAX: usize = 64 * 1024;

/// Buffers and writes responses.
#[derive(Debug)]
pub(crate) struct Output<W> {
    writer: W,
    /// What is not written yet; responses are built right here.
    pub(crate) buffer: Vec<u8>,
    patience: Duration,
}

impl<W: AsyncWrite + Unpin + Send> Output<W> {
    pub(crate) fn new(writer: W, patience: Duration) -> Self {
        Self { writer, buffer: Vec::new(), patience }
    }
    /// Adds a line; its line break is added.
    pub(crate) fn line(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.extend_from_slice(b"\r\n");
    }
    /// Writes what has gathered, if that is much.
    ///
    /// # Errors
    /// [`End`] when the mail program does not take it.
    pub(crate) async fn relieve(&mut self) -> Result<(), End> {
        if self.buffer.len() >= BUFFER_MAX { self.flush().await } else { Ok(()) }
    }
    /// Writes everything that has gathered.
    ///
    /// # Errors
    /// [`End`] when the mail program does not take it.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        let work = async {
            self.writer.write_all(&self.buffer).await?;
            self.writer.flush().await
        };
        let done = timeout(self.patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_MAX);
        Ok(done?)
    }
    /// Writes what has gathered, then `chunk`.
    ///
    /// # Errors
    /// [`End`] when the mail program does not take it.
    pub(crate) async fn stream(&mut self, chunk: &[u8]) -> Result<(), End> {
        self.flush().await?;
        let work = self.writer.write_all(chunk);
        let done = timeout(self.patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Ok(done?)
    }
    /// Writes everything and closes this direction. It is the last thing done, so a failure changes nothing.
    pub(crate) async fn close(&mut self) {
        if self.flush().await.is_ok() {
            let _ = timeout(Duration::from_secs(1), self.writer.shutdown()).await;
        }
    }
}
