//! Reads a backup: all of it is checked before anything of it is used, and again while it is unpacked.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

use super::super::files::{FILE_MODE, FOLDER_MODE, FileError};
use super::error::BackupError;
use super::{CHUNK, DIGEST_ENTRY, DIGEST_ENTRY_BYTES, HEAD_ENTRY, LIST_ENTRY, copy_hashed, is_path_of_a_home};
use crate::model::Digest;
use crate::wire::backup::{
    BACKUP_HEAD_BYTES_MAX, BACKUP_LIST_BYTES_MAX, BACKUP_VERSION, BackupFile, BackupHead, BackupList,
};
use crate::wire::decode;

/// A backup that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Whose, of which moment.
    pub head: BackupHead,
    /// Its files.
    pub files: Vec<BackupFile>,
    /// Its length, bytes.
    pub length: u64,
}

impl Backup {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }
}

/// Reads all of the backup at `path` and checks every digest; changes nothing.
///
/// # Errors
/// [`BackupError`] says what is wrong with it.
pub fn verify(path: &Path) -> Result<Backup, BackupError> {
    let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
    walk(path, file, &mut |_, content| Ok(copy_hashed(content, io::sink())))
}

/// Unpacks the backup at `path`, which [`verify`] has passed, into the new folder `folder`, and makes all of it durable.
///
/// # Errors
/// [`BackupError`]; what was unpacked until then is to be thrown away.
pub fn unpack(path: &Path, folder: &Path) -> Result<Backup, BackupError> {
    let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
    DirBuilder::new()
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|e| FileError::from_io(folder, "make the folder", &e))?;
    let backup = walk(path, file, &mut |name, content| {
        let target = folder.join(name);
        let failed = |e: &io::Error| BackupError::from(FileError::from_io(&target, "write", e));
        if let Some(above) = target.parent() {
            DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(above).map_err(|e| failed(&e))?;
        }
        let new = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&target);
        Ok(copy_hashed(content, new.map_err(|e| failed(&e))?))
    })?;
    sync_all_below(folder)?;
    Ok(backup)
}

/// One commit of the file system for all of a folder, instead of one for each file.
fn sync_all_below(folder: &Path) -> Result<(), FileError> {
    let failed = |e: &io::Error| FileError::from_io(folder, "fsync", e);
    let opened = File::open(folder).map_err(|e| failed(&e))?;
    nix::unistd::syncfs(&opened).map_err(|e| failed(&e.into()))
}

/// What becomes of a file's content: how much it was, and its digest.
type Take<'a> = dyn FnMut(&str, &mut dyn Read) -> Result<io::Result<(u64, blake3::Hash)>, BackupError> + 'a;

/// Hashes what is read, up to the digest entry.
struct Hashing {
    file: BufReader<File>,
    left: u64,
    hasher: Rc<RefCell<blake3::Hasher>>,
}

impl Read for Hashing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(into)?;
        let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(n);
        self.hasher.borrow_mut().update(&into[..part]);
        self.left = self.left.saturating_sub(u64::try_from(n).unwrap_or(u64::MAX));
        Ok(n)
    }
}

/// Goes through every entry, checks order, names, lengths and digests, and that nothing is behind the end.
fn walk(path: &Path, mut file: File, take: &mut Take<'_>) -> Result<Backup, BackupError> {
    let unreadable = |e: &io::Error| BackupError::from(FileError::from_io(path, "read", e));
    let damaged = |why: String| BackupError::Damaged { path: path.to_owned(), why };
    let length = file.seek(SeekFrom::End(0)).map_err(|e| unreadable(&e))?;
    file.rewind().map_err(|e| unreadable(&e))?;
    let Some(hashed) = length.checked_sub(DIGEST_ENTRY_BYTES) else {
        return Err(damaged(format!("it has only {length} bytes, so it is no backup or was cut off")));
    };
    let hasher = Rc::new(RefCell::new(blake3::Hasher::new()));
    let reader = Hashing { file: BufReader::with_capacity(CHUNK, file), left: hashed, hasher: hasher.clone() };
    let mut archive = Archive::new(reader);
    let mut walker = Walker { path, head: None, found: Vec::new(), names: BTreeSet::new(), list: None, digest: None };
    let torn = |e: io::Error| damaged(format!("it is no backup, or is cut off or damaged ({e})"));
    for entry in archive.entries().map_err(torn)? {
        walker.step(entry.map_err(torn)?, take)?;
    }
    let Walker { head: Some(head), list: Some(list), digest: Some(digest), found, .. } = walker else {
        return Err(damaged("its end is missing: it was cut off".to_owned()));
    };
    if list.files != found {
        return Err(damaged("its list of files is not what it holds".to_owned()));
    }
    if hasher.borrow().finalize() != digest {
        return Err(damaged("its digest does not match: it was changed or the disk fails".to_owned()));
    }
    Ok(Backup { head, files: found, length })
}

/// What was seen of a backup so far.
struct Walker<'a> {
    path: &'a Path,
    head: Option<BackupHead>,
    found: Vec<BackupFile>,
    names: BTreeSet<String>,
    list: Option<BackupList>,
    digest: Option<blake3::Hash>,
}

impl Walker<'_> {
    fn damaged(&self, why: impl Into<String>) -> BackupError {
        BackupError::Damaged { path: self.path.to_owned(), why: why.into() }
    }

    fn step<R: Read>(&mut self, mut entry: Entry<'_, R>, take: &mut Take<'_>) -> Result<(), BackupError> {
        if entry.header().entry_type() != EntryType::Regular {
            return Err(self.damaged("it holds something that is no file"));
        }
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name).map_err(|_| self.damaged("a name in it is not UTF-8"))?;
        match (name.as_str(), &self.head, &self.list, &self.digest) {
            (HEAD_ENTRY, None, ..) => self.head(&mut entry),
            (_, None, ..) => Err(self.damaged("it does not begin as a backup does")),
            (LIST_ENTRY, _, None, None) => {
                let bytes = self.small(&mut entry, BACKUP_LIST_BYTES_MAX)?;
                self.list = Some(self.decoded(&bytes)?);
                Ok(())
            }
            (DIGEST_ENTRY, _, Some(_), None) => {
                let text = self.small(&mut entry, 64)?;
                let digest = blake3::Hash::from_hex(&text).map_err(|_| self.damaged("its digest is none"))?;
                self.digest = Some(digest);
                Ok(())
            }
            (_, _, None, None) => self.file(name, &mut entry, take),
            _ => Err(self.damaged(format!("{name:?} stands where nothing may be"))),
        }
    }

    fn head(&mut self, entry: &mut impl Read) -> Result<(), BackupError> {
        let bytes = self.small(entry, BACKUP_HEAD_BYTES_MAX)?;
        let head: BackupHead = self.decoded(&bytes)?;
        if head.version > BACKUP_VERSION {
            let (path, found) = (self.path.to_owned(), head.version);
            return Err(BackupError::Newer { path, found, known: BACKUP_VERSION });
        }
        self.head = Some(head);
        Ok(())
    }

    fn file(&mut self, path: String, content: &mut dyn Read, take: &mut Take<'_>) -> Result<(), BackupError> {
        if !is_path_of_a_home(&path) || !self.names.insert(path.clone()) {
            return Err(self.damaged(format!("it holds {path:?}, which no home has, or has twice")));
        }
        let (length, digest) = take(&path, content)?.map_err(|e| self.damaged(format!("{path}: {e}")))?;
        self.found.push(BackupFile { path, length, digest: Digest::new(*digest.as_bytes()) });
        Ok(())
    }

    /// A record of this format, of at most `limit` bytes.
    fn small(&self, entry: &mut impl Read, limit: u64) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        let read = entry.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|e| self.damaged(e.to_string()))?;
        if u64::try_from(bytes.len()).is_ok_and(|n| n > limit) {
            return Err(self.damaged(format!("a record of it has more than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn decoded<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, BackupError> {
        decode(bytes).map_err(|source| BackupError::Record { path: self.path.to_owned(), source })
    }
}
