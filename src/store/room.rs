//! Which stores of the homes in this process found no room on the disk, and whether there is room again. It never frees
//! anything, and never says that a write will succeed.
//!
//! A store is noted by the file whose write the operating system refused. It is forgotten once the disk has what that file
//! needed and some more, or, where free space says nothing (a quota, a limit on the size of files), once a later write of
//! that store succeeded.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::statvfs::statvfs;

use super::files::is_disk_full;
use crate::model::ByteSize;

/// What must be free besides the bytes of the file that did not fit before a disk counts as having room again.
const SPARE_BYTES: u64 = 1024 * 1024;
/// Stores that are remembered at once: eight a home, and a process has one home but in tests.
const NOTED_MAX: usize = 1024;

/// A folder of a home, and what is in it, in words.
const STORES: [(&str, &str); 9] = [
    ("spool", "mail that mail programs hand in"),
    ("outbox", "own sealed mail"),
    ("mirror", "what is held for other members"),
    ("mail", "the mailboxes"),
    ("fetch", "mail that is being pulled"),
    ("journal", "the journal of events"),
    ("keys", "keys of others"),
    ("identity", "this peer's own keys"),
    ("index", "the index"),
];

/// Noted stores, by home and folder.
static NOTED: Mutex<BTreeMap<(PathBuf, &'static str), Noted>> = Mutex::new(BTreeMap::new());
/// Whether there may be any, so that a write on a disk with room costs nothing.
static ANY: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Noted {
    /// Bytes that must be free before there is room again; `None` where free space says nothing.
    needs: Option<u64>,
}

/// A store without room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Its folder in the home: `spool`, `outbox`, `mirror`, …
    pub store: &'static str,
    /// What it means and what to do, in words.
    pub what: String,
}

fn noted() -> MutexGuard<'static, BTreeMap<(PathBuf, &'static str), Noted>> {
    // An entry is put in or taken out in one step, so a panic elsewhere leaves good ones.
    NOTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The home and the store that a path is in: the innermost folder with a store's name.
fn place_of(path: &Path) -> Option<(PathBuf, &'static str)> {
    path.ancestors().skip(1).find_map(|folder| {
        let name = folder.file_name()?.to_str()?;
        let (store, _) = STORES.iter().find(|(store, _)| *store == name)?;
        Some((folder.parent()?.to_path_buf(), *store))
    })
}

/// Notes that `error` ended the write of the new file `path`, if it was for want of room.
pub fn ran_out(path: &Path, error: &io::Error) {
    if is_disk_full(error) {
        ran_out_of(path, fs::metadata(path).map_or(0, |meta| meta.len()), error);
    }
}

/// The same, of a write that needed `bytes` more.
pub(super) fn ran_out_of(path: &Path, bytes: u64, error: &io::Error) {
    let Some(place) = place_of(path).filter(|_| is_disk_full(error)) else { return };
    let needs = (error.kind() == io::ErrorKind::StorageFull).then(|| bytes.saturating_add(SPARE_BYTES));
    let mut noted = noted();
    if noted.len() < NOTED_MAX || noted.contains_key(&place) {
        if noted.insert(place.clone(), Noted { needs }).is_none() {
            let (home, store) = place;
            tracing::warn!(%error, "no room for {}: free some space", home.join(store).display());
        }
        ANY.store(true, Ordering::Release);
    }
}

/// Notes that a write of `path` succeeded.
pub(super) fn had_room(path: &Path) {
    // A small file may fit where a large one did not: where free space tells, it is believed instead.
    forget(path, |noted| noted.needs.is_none());
}

/// Notes that the store of `path` has all the room that it wanted.
pub(super) fn has_room(path: &Path) {
    forget(path, |_| true);
}

fn forget(path: &Path, if_it: impl Fn(&Noted) -> bool) {
    if !ANY.load(Ordering::Acquire) {
        return;
    }
    let Some(place) = place_of(path) else { return };
    let mut noted = noted();
    if noted.get(&place).is_some_and(if_it) {
        noted.remove(&place);
        ANY.store(!noted.is_empty(), Ordering::Release);
    }
}

/// The stores of the home at `root` that have no room now. Blocking: it asks the disk.
pub fn full(root: &Path) -> Vec<Full> {
    full_by(root, |folder| {
        let disk = statvfs(folder).ok()?;
        Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
    })
}

fn full_by(root: &Path, free: impl Fn(&Path) -> Option<u64>) -> Vec<Full> {
    if !ANY.load(Ordering::Acquire) {
        return Vec::new();
    }
    let mut noted = noted();
    let mut full = Vec::new();
    noted.retain(|(home, store), noted| {
        if home != root {
            return true;
        }
        let free = free(&home.join(store));
        let is_full = noted.needs.is_none_or(|needs| free.is_none_or(|free| free < needs));
        if is_full {
            full.push(Full { store, what: sentence(home, store, noted.needs, free) });
        }
        is_full
    });
    ANY.store(!noted.is_empty(), Ordering::Release);
    full
}

fn sentence(home: &Path, store: &str, needs: Option<u64>, free: Option<u64>) -> String {
    let what = STORES.iter().find(|(name, _)| *name == store).map_or("files", |(_, what)| *what);
    let folder = home.join(store);
    let folder = folder.display();
    let meanwhile = match store {
        "spool" => "mail programs are told 452 until then",
        "mirror" => "members are told that this peer cannot hold it",
        _ => "nothing that was accepted is lost meanwhile",
    };
    match (needs, free) {
        (Some(needs), Some(free)) => format!(
            "the disk is full: no room in {folder} ({what}), {} are free on that disk; free at least {} there, and the peer \
             goes on by itself; {meanwhile}",
            ByteSize::kib(free / 1024),
            ByteSize::mib(needs.saturating_sub(free).div_ceil(SPARE_BYTES).max(1)),
        ),
        _ => format!(
            "the disk is full: a file in {folder} ({what}) may not grow, because of a quota or of a limit on the size of files \
             (`ulimit -f`, LimitFSIZE= in the unit); raise it or free some space, and the peer goes on by itself; {meanwhile}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_space() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    #[test]
    fn a_path_tells_its_home_and_its_store() {
        for (path, store) in
            [("/h/spool/.1.tmp", "spool"), ("/h/mirror/mail@acme/ab/abcd.3.1", "mirror"), ("/h/mail/00/12", "mail")]
        {
            assert_eq!(place_of(Path::new(path)), Some((PathBuf::from("/h"), store)), "{path}");
        }
        assert_eq!(place_of(Path::new("/h/config.toml")), None);
    }

    #[test]
    fn a_store_that_ran_out_is_full_until_the_disk_has_what_it_needed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("spool")).unwrap();
        let path = root.join("spool/.1-1.tmp");
        fs::write(&path, vec![0; 3_000_000]).unwrap();
        ran_out(&path, &io::Error::from_raw_os_error(5));
        assert_eq!(full_by(root, |_| Some(0)), [], "another error is not for want of room");
        ran_out(&path, &no_space());
        let seen = full_by(root, |_| Some(100));
        assert_eq!(seen.len(), 1);
        assert!(seen[0].store == "spool" && seen[0].what.contains("free at least"), "{seen:?}");
        assert!(full_by(Path::new("/another"), |_| Some(0)).is_empty(), "another home is another home");
        had_room(&root.join("spool/small"));
        assert_eq!(full_by(root, |_| Some(3_000_000)).len(), 1, "a small file that fits is no room for the large one");
        assert_eq!(full_by(root, |_| Some(3_000_000 + SPARE_BYTES)), []);
        assert_eq!(full_by(root, |_| Some(0)), [], "and that is remembered");
    }

    #[test]
    fn what_a_limit_refused_is_full_until_a_write_of_that_store_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox/ab/abcd");
        ran_out(&path, &io::ErrorKind::FileTooLarge.into());
        let seen = full_by(dir.path(), |_| Some(u64::MAX));
        assert!(seen.len() == 1 && seen[0].what.contains("ulimit -f"), "{seen:?}");
        had_room(&dir.path().join("spool/x"));
        assert_eq!(full(dir.path()).len(), 1, "another store says nothing of this one");
        had_room(&dir.path().join("outbox/cd/cdef"));
        assert_eq!(full(dir.path()), []);
    }
}
