//! The body of a message as FETCH reads it: a short one whole when it is opened, a long one piece by piece. It never holds more than
//! one piece of a long one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::store::cached::read_if_cached;

/// A body of at most so many bytes is read when it is opened: that is one wait for a thread less for each piece.
const SHORT: u64 = 64 * 1024;

/// An open body.
#[derive(Debug)]
pub(super) enum BodyFile {
    /// All of it.
    Short(Bytes),
    /// The file that it lies in.
    Long(Arc<File>),
}

fn read_at(file: &File, start: u64, len: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(Bytes::from(bytes))
}

fn open(path: &Path, size: u64) -> io::Result<BodyFile> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len != size {
        return Err(io::Error::other(format!("it has {len} bytes instead of {size}")));
    }
    if len <= SHORT { read_at(&file, 0, len).map(BodyFile::Short) } else { Ok(BodyFile::Long(Arc::new(file))) }
}

impl BodyFile {
    /// Opens a body that has to have `size` bytes.
    ///
    /// # Errors
    /// When it has not, or cannot be read.
    pub(super) async fn open(path: PathBuf, size: u64) -> io::Result<Self> {
        spawn_blocking(move || open(&path, size)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Exactly these bytes of it. `len` is bounded by the caller.
    ///
    /// # Errors
    /// When it has not so many, or cannot be read.
    pub(super) async fn read(&self, start: u64, len: u64) -> io::Result<Bytes> {
        match self {
            BodyFile::Short(all) => {
                let index = |at: u64| usize::try_from(at).ok().filter(|at| *at <= all.len());
                let ends = index(start).zip(start.checked_add(len).and_then(index));
                let (from, to) = ends.ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(all.slice(from..to))
            }
            BodyFile::Long(file) => {
                let length = usize::try_from(len).map_err(io::Error::other)?;
                if let Some(bytes) = read_if_cached(file, start, length) {
                    return Ok(bytes);
                }
                let file = file.clone();
                let read = spawn_blocking(move || read_at(&file, start, len)).await;
                read.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn short_and_long_bodies_give_the_same_pieces_and_nothing_beyond_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.body");
        for size in [0, 1, SHORT, SHORT + 1] {
            let bytes: Vec<u8> = (0..size).map(|x| u8::try_from(x % 251).unwrap()).collect();
            std::fs::write(&path, &bytes).unwrap();
            let body = BodyFile::open(path.clone(), size).await.unwrap();
            assert_eq!(matches!(body, BodyFile::Short(_)), size <= SHORT);
            assert_eq!(body.read(0, size).await.unwrap(), bytes);
            let half = usize::try_from(size / 2).unwrap();
            assert_eq!(body.read(size / 2, size - size / 2).await.unwrap(), bytes[half..]);
            for (start, len) in [(0, size + 1), (size, 1), (size + 1, 0), (u64::MAX, 2)] {
                let beyond = body.read(start, len).await;
                assert!(beyond.is_err() || (len == 0 && size > SHORT), "{size}: {start} {len}");
            }
            assert!(BodyFile::open(path.clone(), size + 1).await.is_err(), "another size than the head says");
        }
    }
}
