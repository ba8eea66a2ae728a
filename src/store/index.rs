//! The index: sled, for what can be rebuilt from the files or asked for again (look-ups, DHT entries, peer scores). It
//! promises nothing durable, not even after [`Index::flush`]; nothing that R1 speaks of may live here alone.
//!
//! A sled that won't open is set aside as `index.broken-N` and started empty. sled may also panic on a damaged file, and a
//! panic ends the process; so the file `index.state` beside it remembers how far a start came:
//!
//! ```text
//!  (none) ──open──▶ "opening 1" ──ok──▶ "open" ──dropped──▶ (none)          a clean stop: opened as it is
//!                       │                 │ the process died
//!                       │ died            ▼
//!                       │             "opening 1" and every entry is read    not a clean stop: checked first
//!                       ▼
//!                   "opening 2" ──died──▶ set aside at the next start        sled does not get through: rebuilt
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{self, FileError};
use super::room;

/// Bytes that sled may cache. Small, since many peers may run on one machine and look-ups are few.
const CACHE_BYTES: u64 = 1024 * 1024;
/// sled's unit of writing; also what its write buffers take in memory. An entry above half of it goes to a file of its own.
const SEGMENT_BYTES: usize = 256 * 1024;
/// Starts that may die in sled before the index is set aside. One more than one, since a kill at the wrong moment is no damage.
const OPENINGS_MAX: u8 = 2;
/// Indexes set aside that are kept for a look; older ones are removed.
const BROKEN_KEPT: usize = 2;
/// sled gives its file lock back a moment after its last handle went.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How often that is tried: 2 s.
const LOCK_ATTEMPTS: u32 = 100;
/// Most entries of one [`Index::scan_prefix`].
pub const SCAN_MAX: usize = 10_000;
/// Version of what is kept in the index; another one is started empty.
const VERSION: u8 = 1;
/// The tree that holds the version, under an empty key.
const VERSION_TREE: &str = "version";

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Why the index cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Another process, or another part of this one, has it open.
    #[error("the index {} is in use; stop the other process on this home first", path.display())]
    InUse {
        /// The index.
        path: PathBuf,
    },
    /// An empty index cannot be opened either.
    #[error("could not open an index at {}: {why}; check the disk's room and the rights on that folder", path.display())]
    Open {
        /// The index.
        path: PathBuf,
        /// What sled says.
        why: String,
    },
    /// The disk is full.
    #[error("the disk is full: could not {action} the index; free some space, then try again")]
    DiskFull {
        /// What was tried.
        action: &'static str,
    },
    /// sled failed while the peer runs.
    #[error("could not {action} the index: {why}; restart this peer, it rebuilds the index if need be")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// What sled says.
        why: String,
    },
    /// A scan asks for more than is given at once.
    #[error("a scan of {asked} entries is more than the {SCAN_MAX} that are given at once; ask in pages")]
    ScanTooLarge {
        /// Entries asked for.
        asked: usize,
    },
    /// A file beside the index cannot be written or removed.
    #[error("the index cannot be used: {0}")]
    File(#[from] FileError),
}

impl IndexError {
    fn of(action: &'static str, error: &sled::Error) -> Self {
        match error {
            sled::Error::Io(e) if files::is_disk_full(e) => IndexError::DiskFull { action },
            e => IndexError::Failed { action, why: e.to_string() },
        }
    }
}

/// Named trees of bytes. An idle index writes nothing: what was put is written when a buffer is full, or by [`Index::flush`].
#[derive(Debug)]
pub struct Index {
    db: Option<sled::Db>,
    state: PathBuf,
    rebuilt: bool,
}

impl Index {
    /// Opens the index at `path`, or an empty one when what is there won't open; then [`Index::is_rebuilt`] says so, with
    /// one warning. Only for a home that is locked.
    ///
    /// # Errors
    /// [`IndexError::InUse`], [`IndexError::DiskFull`], or [`IndexError::Open`] when an empty one cannot be had either.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        files::ensure_folder(path.parent().unwrap_or(Path::new(".")))?;
        let state = beside(path, "state");
        let before = Before::read(&state);
        let set_aside_for = match before {
            Before::DiedOpening(times) if times >= OPENINGS_MAX => {
                Some("the last starts ended while opening it".to_owned())
            }
            _ => match try_open(path, &state, before) {
                Ok(db) => return Self::opened(db, state, false),
                Err(Refused::Final(error)) => return Err(error),
                Err(Refused::Broken(why)) => Some(why),
            },
        };
        if let Some(why) = set_aside_for {
            let broken = set_aside(path)?;
            tracing::warn!("the index would not open ({why}); it is at {} now and is rebuilt", broken.display());
        }
        match try_open(path, &state, Before::Clean) {
            Ok(db) => Self::opened(db, state, true),
            Err(Refused::Final(error)) => Err(error),
            Err(Refused::Broken(why)) => Err(IndexError::Open { path: path.to_path_buf(), why }),
        }
    }

    fn opened(db: sled::Db, state: PathBuf, rebuilt: bool) -> Result<Self, IndexError> {
        write_state(&state, "open")?;
        Ok(Self { db: Some(db), state, rebuilt })
    }

    /// Whether this start found an index that would not open, and so began with an empty one.
    pub fn is_rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// A path in its folder, by which the store is known.
    fn inside(&self) -> PathBuf {
        self.state.with_extension("").join("db")
    }

    /// The error, after a disk without room was noted.
    fn failed(&self, action: &'static str, error: &sled::Error) -> IndexError {
        if let sled::Error::Io(error) = error {
            room::ran_out(&self.inside(), error);
        }
        IndexError::of(action, error)
    }

    fn tree(&self, tree: &'static str, action: &'static str) -> Result<sled::Tree, IndexError> {
        let db = self.db.as_ref().ok_or(IndexError::Failed { action, why: "it is closed".to_owned() })?;
        db.open_tree(tree).map_err(|e| self.failed(action, &e))
    }

    /// The value of `key` in `tree`.
    ///
    /// # Errors
    /// [`IndexError::Failed`].
    pub fn get(&self, tree: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let found = self.tree(tree, "read")?.get(key).map_err(|e| self.failed("read", &e))?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// Sets `key` in `tree` to `value`.
    ///
    /// # Errors
    /// [`IndexError::DiskFull`] or [`IndexError::Failed`].
    pub fn put(&self, tree: &'static str, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        self.tree(tree, "write")?.insert(key, value).map_err(|e| self.failed("write", &e))?;
        Ok(())
    }

    /// Removes `key` from `tree`; says whether it was there.
    ///
    /// # Errors
    /// [`IndexError::DiskFull`] or [`IndexError::Failed`].
    pub fn remove(&self, tree: &'static str, key: &[u8]) -> Result<bool, IndexError> {
        let removed = self.tree(tree, "write")?.remove(key).map_err(|e| self.failed("write", &e))?;
        Ok(removed.is_some())
    }

    /// At most `limit` entries of `tree` whose keys start with `prefix`, in order of the keys, those after the key `after`
    /// if one is given: a page.
    ///
    /// # Errors
    /// [`IndexError::ScanTooLarge`] for a limit above [`SCAN_MAX`]; [`IndexError::Failed`].
    pub fn scan_prefix(
        &self,
        tree: &'static str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, IndexError> {
        use std::ops::Bound;
        if limit > SCAN_MAX {
            return Err(IndexError::ScanTooLarge { asked: limit });
        }
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        for entry in self.tree(tree, "read")?.range::<&[u8], _>((from, Bound::Unbounded)).take(limit) {
            let (key, value) = entry.map_err(|e| self.failed("read", &e))?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key.to_vec(), value.to_vec()));
        }
        Ok(found)
    }

    /// Removes every entry of `tree`.
    ///
    /// # Errors
    /// [`IndexError::DiskFull`] or [`IndexError::Failed`].
    pub fn clear(&self, tree: &'static str) -> Result<(), IndexError> {
        self.tree(tree, "write")?.clear().map_err(|e| self.failed("write", &e))
    }

    /// Writes what is buffered to the operating system. It spares the next start some asking; it is no promise.
    ///
    /// # Errors
    /// [`IndexError::DiskFull`] or [`IndexError::Failed`].
    pub fn flush(&self) -> Result<(), IndexError> {
        match &self.db {
            Some(db) => {
                db.flush().map_err(|e| self.failed("write", &e))?;
                room::had_room(&self.inside());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Removes the index at `path`, so that the next [`Index::open`] starts an empty one. Only while no peer runs.
    ///
    /// # Errors
    /// [`IndexError::File`] when it cannot be removed.
    pub fn discard(path: &Path) -> Result<(), IndexError> {
        remove_any(path)?;
        files::remove_durable(&beside(path, "state"))?;
        Ok(())
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let clean = self.flush().is_ok();
        // Its last handle: sled closes its files here.
        self.db = None;
        if clean {
            // Left there, it only makes the next start check more.
            let _ = fs::remove_file(&self.state);
        }
    }
}

/// How the last use of the index ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It was closed, or there was none.
    Clean,
    /// The process died with it open.
    DiedOpen,
    /// This many starts in a row died while they opened it.
    DiedOpening(u8),
}

impl Before {
    fn read(state: &Path) -> Self {
        match files::read_bounded(state, 64) {
            Err(FileError::NotFound { .. }) => Before::Clean,
            // What cannot be read says only that the stop was not clean.
            Err(_) => Before::DiedOpen,
            Ok(text) => {
                let times = std::str::from_utf8(&text).ok().and_then(|t| t.strip_prefix("opening ")?.parse().ok());
                times.map_or(Before::DiedOpen, Before::DiedOpening)
            }
        }
    }
}

enum Refused {
    /// Setting it aside may help.
    Broken(String),
    /// Setting it aside does not help.
    Final(IndexError),
}

fn try_open(path: &Path, state: &Path, before: Before) -> Result<sled::Db, Refused> {
    let times = if let Before::DiedOpening(times) = before { times.saturating_add(1) } else { 1 };
    write_state(state, &format!("opening {times}")).map_err(Refused::Final)?;
    let db = open_sled(path)?;
    let broken = |e: &sled::Error| match IndexError::of("open", e) {
        full @ IndexError::DiskFull { .. } => Refused::Final(full),
        other => Refused::Broken(other.to_string()),
    };
    let version = db.open_tree(VERSION_TREE).map_err(|e| broken(&e))?;
    match version.get([]).map_err(|e| broken(&e))? {
        Some(found) if found.as_ref() == [VERSION] => {}
        Some(found) => return Err(Refused::Broken(format!("it has version {found:?}, this build uses {VERSION}"))),
        None if db.tree_names().len() > 2 => return Err(Refused::Broken("it has no version".to_owned())),
        None => {
            version.insert([], &[VERSION]).map_err(|e| broken(&e))?;
        }
    }
    if before != Before::Clean {
        read_all(&db).map_err(|e| broken(&e))?;
    }
    Ok(db)
}

fn open_sled(path: &Path) -> Result<sled::Db, Refused> {
    // Made here, since sled would make it for everybody to read.
    match files::ensure_folder(path) {
        Err(FileError::DiskFull { action, .. }) => return Err(Refused::Final(IndexError::DiskFull { action })),
        Err(e) => return Err(Refused::Broken(e.to_string())),
        Ok(()) => {}
    }
    let mut attempt = 0;
    loop {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        match config.segment_size(SEGMENT_BYTES).open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(e)) if files::is_disk_full(&e) => {
                return Err(Refused::Final(IndexError::DiskFull { action: "open" }));
            }
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => {
                if attempt == LOCK_ATTEMPTS {
                    return Err(Refused::Final(IndexError::InUse { path: path.to_path_buf() }));
                }
                attempt += 1;
                std::thread::sleep(LOCK_RETRY);
            }
            Err(e) => return Err(Refused::Broken(e.to_string())),
        }
    }
}

/// Reads every entry once, so that damage shows now and not while mail is served.
fn read_all(db: &sled::Db) -> Result<(), sled::Error> {
    for name in db.tree_names() {
        for entry in &db.open_tree(name)? {
            entry?;
        }
    }
    Ok(())
}

/// Moves the index out of the way and removes the oldest of those moved before; gives its new place.
fn set_aside(path: &Path) -> Result<PathBuf, IndexError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mark = format!("{}.broken-", path.file_name().unwrap_or_default().to_string_lossy());
    let mut numbers = Vec::new();
    let listed = |e| FileError::from_io(folder, "list", &e);
    for entry in fs::read_dir(folder).map_err(listed)? {
        let name = entry.map_err(listed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&mark)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let broken = beside(path, &format!("broken-{next}"));
    match fs::rename(path, &broken) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(FileError::from_io(path, "set aside", &e).into()),
    }
    for number in numbers.iter().rev().skip(BROKEN_KEPT - 1) {
        remove_any(&beside(path, &format!("broken-{number}")))?;
    }
    Ok(broken)
}

fn remove_any(path: &Path) -> Result<(), FileError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(FileError::from_io(path, "remove", &e)),
        _ => Ok(()),
    }
}

/// `PATH.ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Not fsynced: a process that dies leaves it to the next one; after a power cut a missing mark costs one more start.
fn write_state(state: &Path, text: &str) -> Result<(), IndexError> {
    fs::write(state, text).map_err(|e| FileError::from_io(state, "write", &e).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DHT: &str = "dht";

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_put_is_found_scanned_in_pages_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index")).unwrap();
        assert!(!index.is_rebuilt());
        for key in ["a", "ab", "ab1", "ab2", "b"] {
            index.put(DHT, key.as_bytes(), key.to_uppercase().as_bytes()).unwrap();
        }
        assert_eq!(index.get(DHT, b"ab1").unwrap().unwrap(), b"AB1");
        assert_eq!(index.get("scores", b"ab1").unwrap(), None);
        let keys = |after: Option<&[u8]>, limit| -> Vec<String> {
            let page = index.scan_prefix(DHT, b"ab", after, limit).unwrap();
            page.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
        };
        assert_eq!(keys(None, 10), ["ab", "ab1", "ab2"]);
        assert_eq!(keys(None, 1), ["ab"]);
        assert_eq!(keys(Some(b"ab"), 10), ["ab1", "ab2"]);
        assert_eq!(keys(Some(b"a"), 10), ["ab", "ab1", "ab2"]);
        assert!(index.scan_prefix(DHT, b"", None, SCAN_MAX + 1).is_err());
        assert!(index.remove(DHT, b"ab1").unwrap() && !index.remove(DHT, b"ab1").unwrap());
        index.clear(DHT).unwrap();
        assert_eq!(keys(None, 10), Vec::<String>::new());
    }

    #[test]
    fn a_clean_stop_keeps_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let index = Index::open(&path).unwrap();
        index.put(DHT, b"k", &vec![9; 300_000]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("index.state")).unwrap(), "open");
        drop(index);
        assert_eq!(names(dir.path()), ["index"]);
        let index = Index::open(&path).unwrap();
        assert_eq!(index.get(DHT, b"k").unwrap().unwrap().len(), 300_000);
        assert!(!index.is_rebuilt());
    }

    #[test]
    fn a_stop_that_was_not_clean_is_checked_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        Index::open(&path).unwrap().put(DHT, b"k", b"v").unwrap();
        for state in ["open", "opening 1", "?"] {
            fs::write(dir.path().join("index.state"), state).unwrap();
            let index = Index::open(&path).unwrap();
            assert_eq!((index.get(DHT, b"k").unwrap().as_deref(), index.is_rebuilt()), (Some(&b"v"[..]), false));
        }
    }

    #[test]
    fn an_index_that_ends_the_process_twice_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        Index::open(&path).unwrap().put(DHT, b"k", b"v").unwrap();
        fs::write(dir.path().join("index.state"), "opening 2").unwrap();
        let index = Index::open(&path).unwrap();
        assert_eq!((index.get(DHT, b"k").unwrap(), index.is_rebuilt()), (None, true));
        assert_eq!(names(dir.path()), ["index", "index.broken-1", "index.state"]);
    }

    #[test]
    fn an_index_that_will_not_open_is_set_aside_and_few_of_them_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        for round in 1..=4 {
            drop(Index::open(&path).unwrap());
            // A version that sled does not know, with the checksum that sled 0.34 wants of it broken.
            fs::write(path.join("conf"), "segment_size: 17\nuse_compression: false\nversion: 0.1\n....").unwrap();
            let index = Index::open(&path).unwrap();
            assert!(index.is_rebuilt(), "round {round}");
            index.put(DHT, b"k", b"v").unwrap();
        }
        assert_eq!(names(dir.path()), ["index", "index.broken-3", "index.broken-4"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_index_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        fs::write(&path, "no folder").unwrap();
        assert!(Index::open(&path).unwrap().is_rebuilt());
        assert_eq!(names(dir.path()), ["index", "index.broken-1"]);
    }

    #[test]
    fn an_index_of_another_version_is_started_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        Index::open(&path).unwrap().put(VERSION_TREE, b"", &[VERSION + 1]).unwrap();
        assert!(Index::open(&path).unwrap().is_rebuilt());
    }

    #[test]
    fn discarded_it_starts_empty_without_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        Index::open(&path).unwrap().put(DHT, b"k", b"v").unwrap();
        Index::discard(&path).unwrap();
        let index = Index::open(&path).unwrap();
        assert_eq!((index.get(DHT, b"k").unwrap(), index.is_rebuilt()), (None, false));
    }

    #[test]
    fn an_idle_index_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let index = Index::open(&path).unwrap();
        index.flush().unwrap();
        let stamp = || fs::metadata(path.join("db")).map(|m| (m.len(), m.modified().unwrap())).unwrap();
        let before = stamp();
        // sled's own timer would write every 500 ms.
        index.put(DHT, b"k", b"v").unwrap();
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!(stamp(), before);
    }
}
