//! Durable file primitives: what these functions have returned `Ok` for is on the disk (R1). They never run on an actor
//! thread: every one of them blocks, so callers put them on the blocking pool.
//!
//! A file appears whole or not at all: written to a temporary name, fsynced, renamed, its folder fsynced. Temporary names
//! start with a dot and end in `.tmp`; what a crash leaves of them is removed by [`sweep_temporaries`] at the next start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::room;
pub use crate::model::disk::is_disk_full;

/// Mode of every file in a home: its owner's only, since keys and clear mail are among them.
pub const FILE_MODE: u32 = 0o600;
/// Mode of every folder in a home.
pub const FOLDER_MODE: u32 = 0o700;
/// Bytes gathered before they are written: one block of a sealed mail.
const BUFFER_BYTES: usize = 64 * 1024;
/// Deepest folder that [`sweep_temporaries`] enters: `mirror/ADDRESS/HH` is three down from the home.
const SWEEP_DEPTH: u8 = 4;
/// Names tried for a temporary file before giving up; more than one only after a crash with the same process id.
const TEMP_ATTEMPTS: u8 = 16;

/// Why a file could not be written, read or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// No room: the disk, the quota or the file-size limit is used up. SMTP answers 452 by it.
    #[error("the disk is full: could not {action} {}; free some space, then try again", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
    },
    /// There is no such file.
    #[error("there is no file {}; it was removed, or never written", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than its place allows.
    #[error("{} has {found} bytes, at most {limit} are read; it is not a file of this peer, move it away", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// Anything else that the operating system says.
    #[error("could not {action} {}: {why}; check the disk and the rights on that folder", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's reason.
        why: String,
        /// Its kind.
        kind: io::ErrorKind,
    },
}

impl FileError {
    /// The error for what the operating system said while `action` was done to `path`. Want of room is noted
    /// ([`room::ran_out`]), whoever asked.
    pub fn from_io(path: &Path, action: &'static str, error: &io::Error) -> Self {
        let path = path.to_path_buf();
        if is_disk_full(error) {
            room::ran_out(&path, error);
            FileError::DiskFull { path, action }
        } else if error.kind() == io::ErrorKind::NotFound {
            FileError::NotFound { path }
        } else {
            FileError::Io { path, action, why: error.to_string(), kind: error.kind() }
        }
    }
    /// Whether there was no room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, FileError::DiskFull { .. })
    }
    /// Whether there was no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, FileError::NotFound { .. })
    }
}

/// Writes one file under a temporary name until [`DurableWriter::commit`]; dropped before that, nothing is left of it.
#[derive(Debug)]
pub struct DurableWriter {
    /// `None` once committed.
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    written: u64,
}

impl DurableWriter {
    /// A new file of mode [`FILE_MODE`] that will end somewhere below `folder` or beside it; the name may be decided later,
    /// as the name of a sealed mail is known only once it is written. The folder is made when it is missing.
    ///
    /// # Errors
    /// [`FileError`] when the folder or the file cannot be made.
    pub fn create(folder: &Path) -> Result<Self, FileError> {
        Self::create_with_mode(folder, FILE_MODE)
    }

    fn create_with_mode(folder: &Path, mode: u32) -> Result<Self, FileError> {
        ensure_folder(folder)?;
        let mut attempt = 0;
        loop {
            let temporary = temporary_name(folder);
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
                Ok(file) => {
                    let file = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
                    return Ok(Self { file, temporary, written: 0 });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < TEMP_ATTEMPTS => attempt += 1,
                Err(e) => return Err(FileError::from_io(&temporary, "create", &e)),
            }
        }
    }

    /// Bytes written until now.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The temporary name, with all that was written in it, for whoever reads it again before the commit. Not durable yet.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be written.
    pub fn settle(&mut self) -> Result<&Path, FileError> {
        let path = &self.temporary;
        let Some(file) = self.file.as_mut() else { return Err(FileError::NotFound { path: path.clone() }) };
        file.flush().map_err(|e| FileError::from_io(path, "write", &e))?;
        Ok(path)
    }

    /// Gives the file its name; once this returns, the file survives a power cut. It replaces a file of that name.
    ///
    /// # Errors
    /// [`FileError`]. The file may be there in spite of it, but nobody may be told so.
    pub fn commit(self, path: &Path) -> Result<(), FileError> {
        commit_together(vec![(self, path.to_path_buf())])
    }

    /// Fsyncs what was written; it has only its temporary name yet.
    fn finish(&mut self) -> Result<(), FileError> {
        let path = &self.temporary;
        let Some(buffered) = self.file.as_mut() else { return Err(FileError::NotFound { path: path.clone() }) };
        buffered.flush().map_err(|e| FileError::from_io(path, "write", &e))?;
        buffered.get_ref().sync_all().map_err(|e| FileError::from_io(path, "fsync", &e))
    }

    fn name(mut self, path: &Path) -> Result<(), FileError> {
        fs::rename(&self.temporary, path).map_err(|e| FileError::from_io(path, "rename a new file to", &e))?;
        self.file = None;
        Ok(())
    }
}

/// Gives several files their names, in this order; once this returns, all of them survive a power cut. All are fsynced before the
/// first gets its name, and each folder once. (A thread for each fsync makes a lone mail some milliseconds faster, and costs more
/// processor than all the rest of this function; mails in flight share the disk's commits either way.) After a crash in between
/// the first few may be there, each of them whole.
///
/// # Errors
/// [`FileError`] of the first that failed. Files may be there in spite of it, but nobody may be told so.
pub fn commit_together(mut files: Vec<(DurableWriter, PathBuf)>) -> Result<(), FileError> {
    for (_, path) in &files {
        ensure_folder(folder_of(path)?)?;
    }
    files.iter_mut().try_for_each(|(file, _)| file.finish())?;
    let mut folders: Vec<PathBuf> = Vec::new();
    for (file, path) in files {
        file.name(&path)?;
        let folder = folder_of(&path)?;
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_path_buf());
        }
        room::had_room(&path);
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

/// A file with these bytes that has only a temporary name yet, for [`commit_together`].
///
/// # Errors
/// [`FileError`] when it cannot be written.
pub fn staged(path: &Path, bytes: &[u8]) -> Result<(DurableWriter, PathBuf), FileError> {
    let mut writer = DurableWriter::create(folder_of(path)?)?;
    writer.write_all(bytes).map_err(|e| FileError::from_io(path, "write", &e))?;
    Ok((writer, path.to_path_buf()))
}

impl Write for DurableWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let count = file.write(bytes).inspect_err(|e| room::ran_out(&self.temporary, e))?;
        self.written = self.written.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for DurableWriter {
    fn drop(&mut self) {
        if let Some(buffered) = self.file.take() {
            // Taken apart, so that what is still buffered is not written only to be removed.
            drop(buffered.into_parts());
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to `path` with `mode`, whole or not at all; replaces a file of that name.
///
/// # Errors
/// [`FileError`]; then nobody may be told that the file is there.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut writer = DurableWriter::create_with_mode(folder_of(path)?, mode)?;
    writer.write_all(bytes).map_err(|e| FileError::from_io(path, "write", &e))?;
    writer.commit(path)
}

/// Moves a file that was written in place (a half-fetched mail that is whole now) to its durable name.
///
/// # Errors
/// [`FileError`]; then nobody may be told that the file is there.
pub fn rename_durable(from: &Path, to: &Path) -> Result<(), FileError> {
    let folder = folder_of(to)?;
    ensure_folder(folder)?;
    let file = File::open(from).map_err(|e| FileError::from_io(from, "open", &e))?;
    file.sync_all().map_err(|e| FileError::from_io(from, "fsync", &e))?;
    fs::rename(from, to).map_err(|e| FileError::from_io(to, "rename a file to", &e))?;
    sync_folder(folder)?;
    room::had_room(to);
    Ok(())
}

/// Gives a file a second name, under which it stays as it is when the first one goes or is taken by another file. Where
/// the disk has no second names, it is copied. Not durable: for what need not outlive this process.
///
/// # Errors
/// [`FileError::NotFound`] when there is no such file; [`FileError::Io`] also when the second name is taken.
pub fn link_or_copy(path: &Path, to: &Path) -> Result<(), FileError> {
    match fs::hard_link(path, to) {
        Ok(()) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
            Err(FileError::from_io(path, "link", &e))
        }
        Err(_) => copy_new(path, to).map_err(|e| FileError::from_io(path, "copy", &e)),
    }
}

/// Gives a durable file a second name beside others that a [`commit_together`] in the same folder makes durable next; what has that name
/// goes. Where that is on another disk, it is copied.
///
/// # Errors
/// As [`link_or_copy`].
pub fn link_again(path: &Path, to: &Path) -> Result<(), FileError> {
    ensure_folder(folder_of(to)?)?;
    remove_known(to)?;
    match fs::hard_link(path, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FileError::from_io(path, "link", &e)),
        Err(_) => {
            let copied = copy_new(path, to).and_then(|()| File::open(to)?.sync_all());
            copied.map_err(|e| {
                // Half of it is of no use, and takes the room that is missing.
                let _ = fs::remove_file(to);
                FileError::from_io(to, "copy to", &e)
            })
        }
    }
}

/// Copies into a file that must be new: `to` may never be another name of `path`.
fn copy_new(path: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let mut new = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(to)?;
    io::copy(&mut from, &mut new).map(drop)
}

/// Removes `path`; once this returns, it does not come back. A file that is not there is no error.
///
/// # Errors
/// [`FileError`] when it is there and cannot be removed, or its folder cannot be fsynced.
pub fn remove_durable(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(FileError::from_io(path, "remove", &e)),
    }
}

/// Removes a file as [`remove_all`] does; says whether it was there.
///
/// # Errors
/// [`FileError`] when it is there and cannot be removed.
pub fn remove_known(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(FileError::from_io(path, "remove", &e)),
    }
}

/// Removes files that may come back after a power cut, as they might if it came a moment earlier: for what the next start finds
/// and removes again. What is not there is no error.
///
/// # Errors
/// [`FileError`] when one is there and cannot be removed; those after it stay.
pub fn remove_all(paths: &[PathBuf]) -> Result<(), FileError> {
    paths.iter().try_for_each(|path| remove_known(path).map(drop))
}

/// All of `path`, if it has at most `limit` bytes.
///
/// # Errors
/// [`FileError::NotFound`], [`FileError::TooLarge`], or what the operating system says.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
    let found = file.metadata().map_err(|e| FileError::from_io(path, "look at", &e))?.len();
    if found > limit {
        return Err(FileError::TooLarge { path: path.to_path_buf(), found, limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found).unwrap_or(0));
    // The file may have grown since it was looked at.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| FileError::from_io(path, "read", &e))?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found > limit {
        return Err(FileError::TooLarge { path: path.to_path_buf(), found, limit });
    }
    Ok(bytes)
}

/// Removes what a crash left of temporary files in `folder` and below, and fsyncs every folder that holds folders, so that
/// one made just before the crash stays. Only for a home that is locked. Gives the number of files removed.
///
/// # Errors
/// [`FileError`] when a folder cannot be read or a file cannot be removed.
pub fn sweep_temporaries(folder: &Path) -> Result<usize, FileError> {
    sweep(folder, SWEEP_DEPTH)
}

fn sweep(folder: &Path, depth: u8) -> Result<usize, FileError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(FileError::from_io(folder, "list", &e)),
    };
    let (mut removed, mut holds_folders) = (0, false);
    for entry in entries {
        let entry = entry.map_err(|e| FileError::from_io(folder, "list", &e))?;
        let kind = entry.file_type().map_err(|e| FileError::from_io(&entry.path(), "look at", &e))?;
        if kind.is_dir() {
            holds_folders = true;
            if depth > 0 {
                removed += sweep(&entry.path(), depth - 1)?;
            }
        } else if kind.is_file() && is_temporary(&entry.path()) {
            fs::remove_file(entry.path()).map_err(|e| FileError::from_io(&entry.path(), "remove", &e))?;
            removed += 1;
        }
    }
    if holds_folders {
        sync_folder(folder)?;
    }
    Ok(removed)
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with('.') && n.ends_with(".tmp"))
}

fn temporary_name(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".{}-{count}.tmp", std::process::id()))
}

fn folder_of(path: &Path) -> Result<&Path, FileError> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(folder) => Ok(folder),
        None => Err(FileError::NotFound { path: path.to_path_buf() }),
    }
}

/// Makes `folder` and what is missing above it, mode [`FOLDER_MODE`], durably.
///
/// # Errors
/// [`FileError`] when it cannot be made, or is a file.
pub fn ensure_folder(folder: &Path) -> Result<(), FileError> {
    // One at a time: who finds the folder there may rely on its being on the disk, and not half-way to it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    make_missing(folder)
}

fn make_missing(folder: &Path) -> Result<(), FileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder)?;
    make_missing(above)?;
    let made = DirBuilder::new().mode(FOLDER_MODE).create(folder);
    made.map_err(|e| FileError::from_io(folder, "make the folder", &e))?;
    sync_folder(above)
}

/// Fsyncs `folder`, so that the names in it survive a power cut.
///
/// # Errors
/// [`FileError`] when it cannot be opened or fsynced.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    let opened = File::open(folder).and_then(|f| f.sync_all());
    opened.map_err(|e| FileError::from_io(folder, "fsync the folder", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_committed_is_there_whole_with_its_mode_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox/ab/abcd");
        let mut writer = DurableWriter::create(&dir.path().join("outbox")).unwrap();
        writer.write_all(b"sealed ").unwrap();
        writer.write_all(b"mail").unwrap();
        assert_eq!(writer.written(), 11);
        assert!(!path.exists());
        writer.commit(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"sealed mail");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, FILE_MODE);
        assert_eq!(names(&dir.path().join("outbox")), ["ab"]);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = DurableWriter::create(dir.path()).unwrap();
        writer.write_all(&[0; 100_000]).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(writer);
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_commit_that_cannot_be_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        let mut writer = DurableWriter::create(dir.path()).unwrap();
        writer.write_all(b"x").unwrap();
        writer.commit(&dir.path().join("taken")).unwrap_err();
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn write_replaces_remove_removes_and_both_may_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        write_durable(&path, b"1", 0o640).unwrap();
        write_durable(&path, b"22", FILE_MODE).unwrap();
        assert_eq!(read_bounded(&path, 2).unwrap(), b"22");
        remove_durable(&path).unwrap();
        remove_durable(&path).unwrap();
        assert!(read_bounded(&path, 2).unwrap_err().is_not_found());
    }

    #[test]
    fn a_file_above_its_bound_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        write_durable(&path, &[7; 10], FILE_MODE).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), [7; 10]);
        assert!(matches!(read_bounded(&path, 9), Err(FileError::TooLarge { found: 10, limit: 9, .. })));
    }

    #[test]
    fn a_half_fetched_file_gets_its_durable_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("half"), b"whole now").unwrap();
        let to = dir.path().join("mail/00/1");
        rename_durable(&dir.path().join("half"), &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"whole now");
        assert!(!dir.path().join("half").exists());
    }

    #[test]
    fn the_sweep_removes_temporaries_at_every_depth_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("mirror/bob@acme/ab");
        fs::create_dir_all(&deep).unwrap();
        for name in [".1-1.tmp", "kept", ".hidden", "mail.tmp"] {
            fs::write(deep.join(name), b"x").unwrap();
        }
        fs::write(dir.path().join(".1-2.tmp"), b"x").unwrap();
        assert_eq!(sweep_temporaries(dir.path()).unwrap(), 2);
        assert_eq!(names(&deep), [".hidden", "kept", "mail.tmp"]);
        assert_eq!(sweep_temporaries(&dir.path().join("missing")).unwrap(), 0);
    }

    #[test]
    fn no_room_is_told_from_other_errors() {
        // ENOSPC, EDQUOT, EFBIG on Linux.
        for code in [28, 122, 27] {
            let error = FileError::from_io(Path::new("/h/x"), "write", &io::Error::from_raw_os_error(code));
            assert!(error.is_disk_full(), "{code}");
            assert!(error.to_string().contains("the disk is full: could not write /h/x"), "{error}");
        }
        // EIO.
        assert!(!FileError::from_io(Path::new("x"), "write", &io::Error::from_raw_os_error(5)).is_disk_full());
    }
}
