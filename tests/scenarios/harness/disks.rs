//! Disks of stopped peers: older copies of them put back.

use std::fs;
use std::path::{Path, PathBuf};

use super::Team;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What a stopped peer's disk was like at a moment, and can be again.
pub(crate) struct OldDisk(PathBuf);

impl OldDisk {
    /// The disk of a stopped peer now.
    pub(crate) fn of(team: &Team, name: &str) -> Self {
        let copied = team.folder().join(format!("{name}-old"));
        copy(&team.home_dir(name), &copied);
        Self(copied)
    }
    /// The peer of `name`, which does not run, has that disk again.
    pub(crate) fn put_back(&self, team: &Team, name: &str) {
        let home = team.home_dir(name);
        fs::remove_dir_all(&home).unwrap();
        copy(&self.0, &home);
    }
}
