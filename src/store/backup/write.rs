//! Writes a backup. Under its name it appears whole and read again, or not at all.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::super::files::{DurableWriter, FileError};
use super::error::BackupError;
use super::{DIGEST_ENTRY, HEAD_ENTRY, LIST_ENTRY, read};
use crate::model::Digest;
use crate::wire::backup::{BackupFile, BackupHead, BackupList};
use crate::wire::encode;

/// What goes out, hashed on its way.
struct Hashed {
    file: DurableWriter,
    hasher: blake3::Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A backup that is being written. Dropped before [`BackupWriter::finish`], it leaves nothing.
pub struct BackupWriter {
    path: PathBuf,
    replace: bool,
    out: Builder<Hashed>,
    made: u64,
    list: BackupList,
}

impl BackupWriter {
    /// Begins a backup at `path`, mode 0600; what is there is replaced only with `replace`.
    ///
    /// # Errors
    /// [`BackupError::Exists`], or [`BackupError::File`] when nothing can be written there.
    pub fn create(path: &Path, head: &BackupHead, replace: bool) -> Result<Self, BackupError> {
        let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut new = Self {
            path: path.to_owned(),
            replace,
            out: Builder::new(Hashed { file: DurableWriter::create(folder)?, hasher: blake3::Hasher::new() }),
            made: head.made.0 / 1000,
            list: BackupList { files: Vec::new() },
        };
        new.check_free()?;
        new.entry(HEAD_ENTRY, &encode(head))?;
        Ok(new)
    }

    fn check_free(&self) -> Result<(), BackupError> {
        if !self.replace && self.path.symlink_metadata().is_ok() {
            return Err(BackupError::Exists { path: self.path.clone() });
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> BackupError {
        FileError::from_io(&self.path, "write", error).into()
    }

    fn header(&self, name: &str, length: u64) -> io::Result<Header> {
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_size(length);
        header.set_mode(0o600);
        header.set_mtime(self.made);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        Ok(header)
    }

    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let header = self.header(name, length).map_err(|e| self.failed(&e))?;
        self.out.append(&header, Cursor::new(bytes)).map_err(|e| self.failed(&e))
    }

    /// Adds the first `length` bytes of a file as `name`, its path below the home.
    ///
    /// # Errors
    /// [`BackupError::Changed`] when it has fewer, or [`BackupError::File`].
    pub fn add(&mut self, name: &str, path: &Path, length: u64) -> Result<(), BackupError> {
        let unreadable = |e: &io::Error| BackupError::from(FileError::from_io(path, "read", e));
        let file = File::open(path).map_err(|e| unreadable(&e))?;
        let header = self.header(name, length).map_err(|e| self.failed(&e))?;
        let mut tee = Tee { from: file.take(length), hasher: blake3::Hasher::new(), count: 0, failed: None };
        let added = self.out.append(&header, &mut tee);
        if let Some(error) = &tee.failed {
            return Err(unreadable(error));
        }
        added.map_err(|e| self.failed(&e))?;
        if tee.count != length {
            return Err(BackupError::Changed { name: name.to_owned(), expected: length, found: tee.count });
        }
        let digest = Digest::new(*tee.hasher.finalize().as_bytes());
        self.list.files.push(BackupFile { path: name.to_owned(), length, digest });
        Ok(())
    }

    /// Ends the backup, fsyncs it, reads all of it again, and gives it its name. Gives its length.
    ///
    /// # Errors
    /// [`BackupError`]: then there is no backup at its place, or the one that was there before.
    pub fn finish(mut self) -> Result<u64, BackupError> {
        let list = encode(&self.list);
        self.entry(LIST_ENTRY, &list)?;
        let digest = self.out.get_ref().hasher.finalize();
        self.entry(DIGEST_ENTRY, digest.to_hex().as_bytes())?;
        let failed = |e: &io::Error| BackupError::from(FileError::from_io(&self.path, "write", e));
        let mut file = self.out.into_inner().map_err(|e| failed(&e))?.file;
        let length = file.written();
        let written = read::verify(file.settle()?)?;
        if written.files != self.list.files {
            let why = "what was read again is not what was written: the disk or the memory fails".to_owned();
            return Err(BackupError::Damaged { path: self.path, why });
        }
        if !self.replace && self.path.symlink_metadata().is_ok() {
            // Somebody else was faster.
            return Err(BackupError::Exists { path: self.path });
        }
        file.commit(&self.path)?;
        Ok(length)
    }
}

/// A source, hashed and counted on its way; keeps its error apart from the target's.
struct Tee<R> {
    from: R,
    hasher: blake3::Hasher,
    count: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.from.read(into) {
            Ok(n) => {
                self.hasher.update(&into[..n]);
                self.count = self.count.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let kind = e.kind();
                self.failed = Some(e);
                Err(kind.into())
            }
        }
    }
}
