//! How many bytes own and mirrored mails take on the disk, counted file by file. With very many files it counts only now and
//! then: a status must not keep the disk busy. It changes nothing.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::model::MonoTime;
use crate::store::home::Home;

/// A count that took longer than this is good for a while.
const SLOW: Duration = Duration::from_millis(200);
/// For so many times as long as it took: counting takes at most a twentieth of the time.
const REST: u32 = 20;

/// Bytes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Of own sealed mails.
    pub own_bytes: u64,
    /// Of parts of other members' mails.
    pub mirror_bytes: u64,
}

/// What was counted last.
#[derive(Debug, Default)]
pub struct DiskUse(Mutex<Option<(MonoTime, Used)>>);

impl DiskUse {
    /// Counts, unless the last count is still good. It blocks; who asks meanwhile waits for the same count.
    pub fn count(&self, home: &Home, clock: &Clock) -> Used {
        // A count that panicked left the one before it.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = clock.now().mono;
        if let Some((_, used)) = last.filter(|(good_until, _)| start < *good_until) {
            return used;
        }
        let used = Used { own_bytes: bytes_in(&home.outbox_dir()), mirror_bytes: bytes_in(&home.mirror_dir()) };
        let end = clock.now().mono;
        let took = end.since(start);
        *last = (took > SLOW).then(|| (end + took * REST, used));
        used
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_count_is_made_anew_each_time_and_a_slow_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (home, clock) = (Home::at(dir.path()), Clock::system());
        let folder = home.outbox_dir().join("ab");
        std::fs::create_dir_all(&folder).unwrap();
        let disk_use = DiskUse::default();
        std::fs::write(folder.join("x"), [0; 5]).unwrap();
        assert_eq!(disk_use.count(&home, &clock), Used { own_bytes: 5, mirror_bytes: 0 });
        std::fs::write(folder.join("y"), [0; 2]).unwrap();
        let kept = Used { own_bytes: 5, mirror_bytes: 0 };
        *disk_use.0.lock().unwrap() = Some((clock.now().mono + Duration::from_secs(3600), kept));
        assert_eq!(disk_use.count(&home, &clock), kept);
        *disk_use.0.lock().unwrap() = None;
        assert_eq!(disk_use.count(&home, &clock).own_bytes, 7);
    }
}
