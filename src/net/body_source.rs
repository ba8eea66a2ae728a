//! Where a served body comes from, and its way out in chunks of bounded size. Of a body that lies in a file it never holds more
//! than one chunk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};

use crate::store::cached::read_if_cached;

/// A file of at most so many bytes, one block of a sealed mail, is read when it is opened: that is one wait for a thread less.
const SHORT_FILE: u64 = 64 * 1024;

/// Chunks of a body, in order.
pub type ChunkStream = BoxStream<'static, io::Result<Bytes>>;

/// Opens a computed body at a range of it.
pub type OpenRange = Box<dyn FnOnce(Range<u64>) -> ChunkStream + Send>;

/// Where the bytes of an answer come from.
pub enum BodySource {
    /// A piece of an open file, so that removing its name meanwhile harms nobody.
    File {
        /// The file.
        file: File,
        /// Where the body starts in it.
        offset: u64,
        /// How long the body is.
        len: u64,
    },
    /// Bytes at hand.
    Bytes(Bytes),
    /// Computed on the fly. Only the range that was asked for is opened; the stream must yield exactly its bytes.
    Stream {
        /// How long the whole body is.
        len: u64,
        /// Starts it.
        open: OpenRange,
    },
}

impl BodySource {
    /// The whole file at `path`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn open(path: PathBuf) -> io::Result<Self> {
        Self::open_with(move || {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        })
        .await
    }
    /// The first bytes, as many as it says, of a file that `open` opens on the blocking pool.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn open_with(open: impl FnOnce() -> io::Result<(File, u64)> + Send + 'static) -> io::Result<Self> {
        let opened = tokio::task::spawn_blocking(move || {
            let (file, len) = open()?;
            if len > SHORT_FILE {
                return Ok(Self::File { file, offset: 0, len });
            }
            let mut bytes = BytesMut::zeroed(usize::try_from(len).unwrap_or(0));
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Self::Bytes(bytes.freeze()))
        });
        opened.await.map_err(io::Error::other)?
    }
    /// A computed body of `len` bytes.
    pub fn stream(len: u64, open: impl FnOnce(Range<u64>) -> ChunkStream + Send + 'static) -> Self {
        Self::Stream { len, open: Box::new(open) }
    }
    /// How long the whole body is.
    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } | Self::Stream { len, .. } => *len,
            Self::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }
    }
    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes in `range`, which lies within the body, in chunks of at most `chunk` bytes where this module cuts them.
    pub fn into_chunks(self, range: Range<u64>, chunk: usize) -> ChunkStream {
        match self {
            Self::File { file, offset, .. } => file_chunks(file, offset + range.start..offset + range.end, chunk),
            Self::Bytes(bytes) => {
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let rest = bytes.slice(index(range.start)..index(range.end));
                stream::unfold(rest, move |mut rest| async move {
                    let now = rest.split_to(chunk.min(rest.len()));
                    (!now.is_empty()).then_some((Ok(now), rest))
                })
                .boxed()
            }
            Self::Stream { open, .. } => open(range),
        }
    }
}

/// Reads what is in memory at once and all else on the blocking pool, one chunk ahead of nobody: the next is read when this one was taken.
fn file_chunks(file: File, range: Range<u64>, chunk: usize) -> ChunkStream {
    let file = Arc::new(file);
    stream::unfold((file, range), move |(file, range)| async move {
        if range.is_empty() {
            return None;
        }
        let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(chunk);
        let result = match read_if_cached(&file, range.start, size) {
            Some(bytes) => Ok(bytes),
            None => {
                let reader = Arc::clone(&file);
                let read = tokio::task::spawn_blocking(move || {
                    let mut buf = BytesMut::zeroed(size);
                    reader.read_exact_at(&mut buf, range.start).map(|()| buf.freeze())
                });
                read.await.map_err(io::Error::other).and_then(|read| read)
            }
        };
        let next = match result {
            Ok(_) => range.start + u64::try_from(size).unwrap_or(u64::MAX)..range.end,
            Err(_) => range.end..range.end,
        };
        Some((result, (file, next)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn collect(source: BodySource, range: Range<u64>, chunk: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut chunks = source.into_chunks(range, chunk);
        while let Some(next) = chunks.next().await {
            let next = next?;
            assert!(next.len() <= chunk);
            all.extend_from_slice(&next);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn every_source_yields_exactly_the_range() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&data).unwrap();
        for range in [0..1000, 0..0, 17..18, 990..1000] {
            let expected = &data[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            let whole = BodySource::open(file.path().to_owned()).await.unwrap();
            assert_eq!(whole.len(), 1000);
            assert_eq!(collect(whole, range.clone(), 64).await.unwrap(), expected);
            let bytes = BodySource::Bytes(Bytes::from(data.clone()));
            assert_eq!(collect(bytes, range.clone(), 64).await.unwrap(), expected);
        }
        let piece = BodySource::File { file: file.reopen().unwrap(), offset: 100, len: 50 };
        assert_eq!(collect(piece, 10..20, 64).await.unwrap(), &data[110..120]);
    }

    #[tokio::test]
    async fn a_file_cut_short_meanwhile_is_an_error_not_a_short_body() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SHORT_FILE + 1).unwrap();
        let source = BodySource::open(file.path().to_owned()).await.unwrap();
        file.as_file().set_len(10).unwrap();
        assert!(collect(source, 0..100, 64).await.is_err());
    }
}
