//! `DIR/cluster.json`: what a cluster is made of, the throwaway passwords of its peers, and the processes that were started.
//! It never holds a key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::cli::process::ProcessId;
use crate::config::cluster::Cluster;
use crate::model::Address;
use crate::store::files::{FILE_MODE, FileError, read_bounded, write_durable};

/// Version of the file.
const VERSION: u32 = 1;
/// Largest file that is read, bytes.
const FILE_MAX: u64 = 4 << 20;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The cluster file as it was last brought up.
    pub(super) file: Cluster,
    /// Every peer that has a home.
    pub(super) peers: BTreeMap<Address, PeerState>,
}

/// What is remembered of one peer.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct PeerState {
    /// Its app password.
    pub(super) password: String,
    /// Its last process.
    pub(super) pid: Option<ProcessId>,
    /// Whether that was stopped on purpose.
    pub(super) stopped: bool,
    /// Whether it ever answered: from then on others know its ports.
    pub(super) answered: bool,
}

impl std::fmt::Debug for PeerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerState({:?}, stopped: {}, answered: {})", self.pid, self.stopped, self.answered)
    }
}

impl State {
    /// Of a cluster that has nothing yet.
    pub(super) fn new(file: Cluster) -> Self {
        Self { version: VERSION, file, peers: BTreeMap::new() }
    }

    /// Every peer, with whether it founds its group: those of the file, then those that another file brought up before, whose
    /// processes may still be there.
    pub(super) fn all(&self) -> impl Iterator<Item = (Address, bool)> + '_ {
        let named: BTreeSet<Address> = self.file.peers().map(|(address, _)| address).collect();
        let others = self.peers.keys().filter(move |address| !named.contains(*address));
        self.file.peers().chain(others.map(|address| (address.clone(), false)))
    }
}

/// The file on disk. Several commands may work on one cluster at once: every change is made under a lock.
#[derive(Debug, Clone)]
pub(super) struct StateFile {
    path: PathBuf,
    lock: PathBuf,
}

impl StateFile {
    /// In the folder `dir`.
    pub(super) fn of(dir: &Path) -> Self {
        Self { path: dir.join("cluster.json"), lock: dir.join("cluster.lock") }
    }

    /// What is there, or nothing when there is no cluster.
    pub(super) fn read(&self) -> anyhow::Result<Option<State>> {
        let bytes = match read_bounded(&self.path, FILE_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let state: State = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is damaged; remove the folder and bring the cluster up again", self.path.display())
        })?;
        if state.version != VERSION {
            bail!(
                "{} is of version {}, this build reads {VERSION}; use the Roost that made it, or another folder with --home",
                self.path.display(),
                state.version
            );
        }
        Ok(Some(state))
    }

    /// Changes it; `initial` is what a new one starts with, without it there must be one.
    pub(super) fn change<T>(
        &self,
        initial: Option<&Cluster>,
        change: impl FnOnce(&mut State) -> T,
    ) -> anyhow::Result<T> {
        let _lock = self.lock()?;
        let mut state = match (self.read()?, initial) {
            (Some(state), _) => state,
            (None, Some(file)) => State::new(file.clone()),
            (None, None) => bail!(
                "there is no cluster here: {} is missing; make one with `roost cluster up FILE`",
                self.path.display()
            ),
        };
        let before = state.clone();
        let done = change(&mut state);
        if state != before || initial.is_some() {
            self.write(&state)?;
        }
        Ok(done)
    }

    fn write(&self, state: &State) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(state)?;
        Ok(write_durable(&self.path, &bytes, FILE_MODE)?)
    }

    /// Keeps every other command from changing it.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&self.lock);
        let file = opened.map_err(|e| FileError::from_io(&self.lock, "open", &e))?;
        file.lock().map_err(|e| FileError::from_io(&self.lock, "lock", &e))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn changes_are_kept_in_a_file_of_ones_own_and_passwords_do_not_print() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::of(dir.path());
        assert_eq!(file.read().unwrap(), None);
        assert!(file.change(None, |_| ()).unwrap_err().to_string().contains("there is no cluster here"));
        let cluster = Cluster::parse("t", "[[group]]\nname = \"a\"\nmembers = [\"x\"]\n").unwrap();
        let address: Address = "x@a".parse().unwrap();
        let peer = PeerState { password: "secret".to_owned(), pid: Some(7), ..PeerState::default() };
        file.change(Some(&cluster), |state| state.peers.insert(address.clone(), peer.clone())).unwrap();
        file.change(None, |state| state.peers.values_mut().for_each(|p| p.stopped = true)).unwrap();
        let state = file.read().unwrap().unwrap();
        assert_eq!((&state.file, state.peers[&address].stopped), (&cluster, true));
        assert_eq!(std::fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{state:?}").contains("secret"));
    }
}
