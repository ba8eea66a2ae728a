//! `roost cluster`: many peers on one machine, from one file. Each is made, invited and run exactly as on machines of their
//! own; this never makes a group in a second way, and never touches what a peer keeps in its home.

pub(super) mod commands;
mod make;
mod ready;
mod state;
pub(super) mod surroundings;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::control::{Control, ControlError};
use super::process::{self, ProcessId};
use super::progress::Report;
use crate::config::Config;
use crate::config::cluster::Cluster;
use crate::console::protocol::{Ports, Request};
use crate::model::{Address, GroupName};
use crate::store::files::ensure_folder;
use crate::store::home::Home;
use state::{PeerState, State, StateFile};
use surroundings::{StartedWith, Surroundings};

/// Longest clean stop of a peer.
const STOP: Duration = Duration::from_secs(30);

/// What a peer is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Founded its group.
    Founder,
    /// Was invited.
    Member,
    /// Alone in a group that is not the first.
    Reader,
}

/// Whether a peer of a cluster runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Its process is there.
    Running,
    /// It was stopped on purpose, or never started.
    Stopped,
    /// Its process is gone and nobody stopped it.
    Dead,
}

/// One peer of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeer {
    /// Whose peer it is.
    pub address: Address,
    /// Its group.
    pub group: GroupName,
    /// What it is there.
    pub role: Role,
    /// Its home.
    pub home: PathBuf,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Where SMTP submission listens, `127.0.0.1:PORT`.
    pub smtp: String,
    /// Where IMAP listens.
    pub imap: String,
    /// Where the web page is, when it is on.
    pub console: Option<String>,
    /// Its throwaway app password; the login is the address.
    pub password: String,
    /// Whether it runs.
    pub state: RunState,
}

impl std::fmt::Debug for ClusterPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?} pid {:?} on {}", self.address, self.role, self.state, self.pid, self.home.display())
    }
}

/// A cluster as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its folder.
    pub home: PathBuf,
    /// Every peer, in the order of the file; then those that another file brought up here before.
    pub peers: Vec<ClusterPeer>,
}

/// A cluster in which nothing can be started.
#[derive(Debug)]
pub struct Closed {
    _lock: File,
}

/// The folder of a cluster, and the program that its peers run.
#[derive(Debug, Clone)]
pub struct ClusterDir {
    dir: PathBuf,
    program: PathBuf,
    report: Report,
    file: StateFile,
    surroundings: Option<Arc<dyn Surroundings>>,
}

impl ClusterDir {
    /// The cluster in the folder `dir`, which is made when it is missing; its peers run `program`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn make(dir: &Path, program: &Path, report: Report) -> anyhow::Result<Self> {
        ensure_folder(&std::path::absolute(dir)?)?;
        Self::at(dir, program, report)
    }

    /// The cluster in the folder `dir`; its peers run `program`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn at(dir: &Path, program: &Path, report: Report) -> anyhow::Result<Self> {
        // A process is recognised by its home's path, so there must be one way to write it.
        let dir = std::fs::canonicalize(dir).with_context(|| dir.display().to_string())?;
        Ok(Self { file: StateFile::of(&dir), dir, program: program.to_owned(), report, surroundings: None })
    }

    /// The same, its peers in other surroundings than this machine; before they are made.
    pub(super) fn within(self, surroundings: Arc<dyn Surroundings>) -> Self {
        Self { surroundings: Some(surroundings), ..self }
    }

    /// The cluster's folder.
    pub(super) fn home(&self) -> &Path {
        &self.dir
    }

    /// The home of a peer: `DIR/NAME`.
    pub fn home_of(&self, address: &Address) -> PathBuf {
        self.dir.join(address.name().as_str())
    }

    /// Asks a running peer.
    pub fn control_of(&self, address: &Address) -> Control {
        Control::of(&self.home_of(address)).at_once()
    }

    /// Makes and starts every peer of `cluster`, and returns once all of it answers and knows the last gd. On an existing
    /// folder it starts what is there and finishes what is missing.
    ///
    /// # Errors
    /// What could not be done, with the end of the log of the peer that failed.
    pub fn up(&self, cluster: &Cluster) -> anyhow::Result<ClusterStatus> {
        make::check_homes(self, cluster)?;
        self.file.change(Some(cluster), |state| state.file = cluster.clone())?;
        let all: Vec<Address> = cluster.peers().map(|(address, _)| address).collect();
        make::homes(self, cluster)?;
        self.run(&all)?;
        make::groups(self, cluster)?;
        make::contacts(self, cluster)?;
        ready::whole_groups(self, cluster)?;
        self.status()
    }

    /// The cluster file as it was last brought up.
    ///
    /// # Errors
    /// When there is no cluster in the folder.
    pub(super) fn made_of(&self) -> anyhow::Result<Cluster> {
        Ok(self.state()?.file)
    }

    /// Every peer as it is now.
    ///
    /// # Errors
    /// When there is no cluster in the folder.
    pub fn status(&self) -> anyhow::Result<ClusterStatus> {
        let state = self.state()?;
        let peer = |(address, founder)| self.line(&state, address, founder);
        Ok(ClusterStatus { home: self.dir.clone(), peers: state.all().map(peer).collect() })
    }

    fn line(&self, state: &State, address: Address, founder: bool) -> ClusterPeer {
        let home = self.home_of(&address);
        let known = state.peers.get(&address).cloned().unwrap_or_default();
        let pid = known.pid.filter(|pid| process::is_peer(*pid, &home));
        let run_state = match pid {
            Some(_) => RunState::Running,
            None if known.stopped || known.pid.is_none() => RunState::Stopped,
            None => RunState::Dead,
        };
        let alone = state.file.groups.iter().skip(1).any(|g| g.name == *address.group() && g.members.len() == 1);
        let role = match (alone, founder) {
            (true, _) => Role::Reader,
            (false, true) => Role::Founder,
            (false, false) => Role::Member,
        };
        let config = Config::load(&Home::at(&home).config_file()).ok();
        let listens = |port: Option<u16>| format!("127.0.0.1:{}", port.unwrap_or_default());
        ClusterPeer {
            group: address.group().clone(),
            role,
            pid,
            smtp: listens(config.as_ref().map(|c| c.mail.smtp_port)),
            imap: listens(config.as_ref().map(|c| c.mail.imap_port)),
            console: pid.and_then(|_| self.console(&address)),
            password: known.password,
            state: run_state,
            address,
            home,
        }
    }

    /// Where the web page of a running peer is; only the peer knows.
    fn console(&self, address: &Address) -> Option<String> {
        let control = self.control_of(address).giving_up_after(Duration::from_secs(2));
        control.ask::<Ports>(&Request::Ports).ok()?.console
    }

    /// The peer that `text` names: an address, or a name alone.
    ///
    /// # Errors
    /// When no peer of the cluster is called so.
    pub fn find(&self, text: &str) -> anyhow::Result<Address> {
        let state = self.state()?;
        let lower = text.to_ascii_lowercase();
        let mut peers = state.all().map(|(address, _)| address);
        let found = peers.find(|address| address.to_string() == lower || address.name().as_str() == lower);
        found.with_context(|| {
            let all: Vec<String> = state.all().map(|(address, _)| address.to_string()).collect();
            format!("no peer of this cluster is called {text:?}; there are {}", all.join(", "))
        })
    }

    /// Kills peers with SIGKILL; gives those that ran.
    ///
    /// # Errors
    /// When a process cannot be signalled.
    pub fn kill(&self, peers: &[Address]) -> anyhow::Result<Vec<Address>> {
        let state = self.state()?;
        let mut killed = Vec::new();
        for address in peers {
            let home = self.home_of(address);
            if let Some(pid) = state.peers.get(address).and_then(|peer| peer.pid)
                && process::kill_peer(pid, &home)?
            {
                killed.push(address.clone());
            }
        }
        Ok(killed)
    }

    /// Sends a signal to a peer that runs.
    ///
    /// # Errors
    /// When it does not run, or cannot be signalled.
    pub fn signal(&self, peer: &Address, signal: Signal) -> anyhow::Result<()> {
        let pid = self.state()?.peers.get(peer).and_then(|known| known.pid);
        match pid.map(|pid| process::signal(pid, &self.home_of(peer), signal)).transpose()? {
            Some(true) => Ok(()),
            _ => bail!("{peer} does not run; `roost cluster start {peer}` starts it"),
        }
    }

    /// Stops peers cleanly; gives those that ran.
    ///
    /// # Errors
    /// When one does not stop within 30 s.
    pub fn stop(&self, peers: &[Address]) -> anyhow::Result<Vec<Address>> {
        let running = self.running(peers)?;
        // All are asked before one is waited for: a cluster stops in the time of its slowest peer.
        for (address, pid) in &running {
            match self.control_of(address).ask::<serde_json::Value>(&Request::Stop) {
                Ok(_) => {}
                // It may still be starting, or stopping already; the signal means the same.
                Err(ControlError::Refused { why }) => {
                    bail!("{address} does not stop: {why}; `roost cluster kill {address}` ends it")
                }
                Err(_) => {
                    process::signal(*pid, &self.home_of(address), Signal::SIGTERM)?;
                }
            }
        }
        for (address, pid) in &running {
            if !process::wait_gone(*pid, &self.home_of(address), STOP) {
                bail!(
                    "{address} (pid {pid}) does not stop within {} s; `roost cluster kill {address}` ends it",
                    STOP.as_secs()
                );
            }
            self.remember(address, |peer| peer.stopped = true)?;
        }
        Ok(running.into_iter().map(|(address, _)| address).collect())
    }

    /// Starts peers that do not run, and returns once each answers and knows the last gd that is known here.
    ///
    /// # Errors
    /// When one does not start, with the end of its log.
    pub fn start(&self, peers: &[Address]) -> anyhow::Result<ClusterStatus> {
        self.run(peers)?;
        ready::last_gd(self, peers)?;
        self.status()
    }

    /// Starts the process of a peer that does not run, and returns before it answers.
    pub(super) fn launch(&self, address: &Address) -> anyhow::Result<()> {
        self.wait_for_the_last(address)?;
        self.spawn(address).map(drop)
    }

    /// Stops every peer; gives those that ran.
    ///
    /// # Errors
    /// When one does not stop within 30 s.
    pub fn down(&self) -> anyhow::Result<Vec<Address>> {
        let all: Vec<Address> = self.state()?.all().map(|(address, _)| address).collect();
        self.stop(&all)
    }

    /// The peers that run; none when there is no cluster in the folder.
    ///
    /// # Errors
    /// When the cluster's file cannot be read.
    pub fn who_runs(&self) -> anyhow::Result<Vec<Address>> {
        let Some(state) = self.file.read()? else { return Ok(Vec::new()) };
        let all: Vec<Address> = state.all().map(|(address, _)| address).collect();
        Ok(self.running(&all)?.into_iter().map(|(address, _)| address).collect())
    }

    /// Ends whatever runs, at once, for when nothing of it is needed any more. What cannot be ended is left. While the
    /// result is held nothing is started.
    pub fn kill_all(&self) -> Option<Closed> {
        let lock = self.file.lock().ok()?;
        let state = self.file.read().ok()??;
        for (address, peer) in &state.peers {
            if let Some(pid) = peer.pid {
                // Best effort: there is nobody left to tell.
                let _ = process::signal(pid, &self.home_of(address), Signal::SIGKILL);
            }
        }
        for (address, peer) in &state.peers {
            peer.pid.map(|pid| process::wait_gone(pid, &self.home_of(address), STOP));
        }
        Some(Closed { _lock: lock })
    }

    /// Starts the processes of `peers` that do not run, and waits until each answers.
    fn run(&self, peers: &[Address]) -> anyhow::Result<()> {
        let running = self.running(peers)?;
        for address in peers {
            if !running.iter().any(|(there, _)| there == address) {
                self.wait_for_the_last(address)?;
                self.spawn(address)?;
            }
        }
        let _bar = self.report.under_way("starting peers");
        peers.iter().try_for_each(|address| ready::answers(self, address))
    }

    /// Waits until the last process of a peer that does not run has let go of its home.
    fn wait_for_the_last(&self, address: &Address) -> anyhow::Result<()> {
        let last = self.state()?.peers.get(address).and_then(|peer| peer.pid);
        match last.filter(|pid| !process::wait_gone(*pid, &self.home_of(address), STOP)) {
            Some(pid) => bail!(
                "{address} cannot start: its last process (pid {pid}) does not end; look at its log, then end it with `kill -9 {pid}`"
            ),
            None => Ok(()),
        }
    }

    fn spawn(&self, address: &Address) -> anyhow::Result<ProcessId> {
        let home = self.home_of(address);
        if !Home::at(&home).is_initialised() {
            bail!("{address} has no home yet; `roost cluster up FILE` makes it");
        }
        let with = match &self.surroundings {
            Some(around) => {
                around.starts(address, &Config::load(&Home::at(&home).config_file())?)?;
                around.started_with(address)
            }
            None => StartedWith::default(),
        };
        // Under the lock, so that no process is there that the file does not name.
        self.file.change(None, |state| {
            let peer = state.peers.entry(address.clone()).or_default();
            let pid = process::spawn_peer(&self.program, &home, &with)?;
            peer.pid = Some(pid);
            peer.stopped = false;
            Ok(pid)
        })?
    }

    fn running(&self, peers: &[Address]) -> anyhow::Result<Vec<(Address, ProcessId)>> {
        let state = self.state()?;
        let pid = |address: &Address| {
            let pid = state.peers.get(address)?.pid?;
            process::is_peer(pid, &self.home_of(address)).then(|| (address.clone(), pid))
        };
        Ok(peers.iter().filter_map(pid).collect())
    }

    fn remember(&self, address: &Address, change: impl FnOnce(&mut PeerState)) -> anyhow::Result<()> {
        self.file.change(None, |state| change(state.peers.entry(address.clone()).or_default()))
    }

    fn state(&self) -> anyhow::Result<State> {
        let missing =
            || format!("there is no cluster in {}; make one with `roost cluster up FILE`", self.dir.display());
        self.file.read()?.with_context(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\"]\n[[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n";

    #[test]
    fn peers_are_found_by_name_and_have_their_roles() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::make(&dir.path().join("deep/c"), Path::new("false"), Report::silent()).unwrap();
        assert!(cluster.status().unwrap_err().to_string().contains("roost cluster up FILE"));
        let file = Cluster::parse("t", FILE).unwrap();
        cluster.file.change(Some(&file), |_| ()).unwrap();
        make::homes(&cluster, &file).unwrap();
        let status = cluster.status().unwrap();
        let roles: Vec<Role> = status.peers.iter().map(|peer| peer.role).collect();
        assert_eq!(roles, [Role::Founder, Role::Member, Role::Reader]);
        assert!(status.peers.iter().all(|p| p.state == RunState::Stopped && !p.password.is_empty()));
        assert_eq!(cluster.find("Bob").unwrap(), status.peers[1].address);
        assert_eq!(cluster.find("rita@readers").unwrap(), status.peers[2].address);
        assert!(cluster.find("eve").unwrap_err().to_string().contains("alice@acme, bob@acme, rita@readers"));
        assert!(cluster.kill(&[status.peers[0].address.clone()]).unwrap().is_empty());
    }

    #[test]
    fn what_another_file_brought_up_is_still_found_and_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::at(dir.path(), Path::new("false"), Report::silent()).unwrap();
        assert!(cluster.who_runs().unwrap().is_empty());
        let bob: Address = "bob@acme".parse().unwrap();
        // Stands for the peer: a process with its home among its words.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "read line", "sh"]).arg(cluster.home_of(&bob)).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let known = PeerState { pid: Some(child.id()), ..PeerState::default() };
        cluster.file.change(Some(&Cluster::parse("t", FILE).unwrap()), |s| s.peers.insert(bob.clone(), known)).unwrap();
        let other = Cluster::parse("t", "[[group]]\nname = \"zoo\"\nmembers = [\"zed\"]\n").unwrap();
        cluster.file.change(None, |state| state.file = other).unwrap();
        assert_eq!(cluster.who_runs().unwrap(), std::slice::from_ref(&bob));
        let status = cluster.status().unwrap();
        let states: Vec<(String, RunState)> = status.peers.iter().map(|p| (p.address.to_string(), p.state)).collect();
        assert_eq!(states, [("zed@zoo".to_owned(), RunState::Stopped), ("bob@acme".to_owned(), RunState::Running)]);
        assert_eq!(cluster.find("bob").unwrap(), bob);
        assert_eq!(cluster.down().unwrap(), [bob]);
        assert!(cluster.who_runs().unwrap().is_empty());
        // Its end was taken already; what is left is to close its input.
        let _ = child.wait();
    }

    #[test]
    fn a_home_of_somebody_else_or_in_use_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::at(dir.path(), Path::new("false"), Report::silent()).unwrap();
        let file = Cluster::parse("t", FILE).unwrap();
        let home = Home::at(cluster.home_of(&"bob@acme".parse().unwrap()));
        super::super::init::run(home.root(), "bob@other".parse().unwrap()).unwrap();
        let password = || std::fs::read(home.identity_dir().join("password.argon2id")).unwrap();
        let before = password();
        let error = cluster.up(&file).unwrap_err().to_string();
        assert!(error.contains("bob@other") && error.contains("bob@acme"), "{error}");
        assert!(!dir.path().join("cluster.json").exists() && password() == before);
        let own = Cluster::parse("t", "[[group]]\nname = \"other\"\nmembers = [\"bob\"]\n").unwrap();
        let lock = home.lock().unwrap();
        cluster.file.change(Some(&own), |_| ()).unwrap();
        make::homes(&cluster, &own).unwrap_err();
        assert!(password() == before);
        drop(lock);
        make::homes(&cluster, &own).unwrap();
        assert!(password() != before);
    }

    #[test]
    fn homes_are_made_once_with_ports_that_no_two_share() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::at(dir.path(), Path::new("false"), Report::silent()).unwrap();
        let file = Cluster::parse("t", FILE).unwrap();
        cluster.file.change(Some(&file), |_| ()).unwrap();
        make::homes(&cluster, &file).unwrap();
        let before = cluster.status().unwrap();
        make::homes(&cluster, &file).unwrap();
        assert_eq!(cluster.status().unwrap(), before);
        let mut ports = Vec::new();
        for peer in &before.peers {
            let config = Config::load(&peer.home.join("config.toml")).unwrap();
            assert!(config.net.dial_private && config.net.listen.is_loopback());
            ports.extend([config.mail.smtp_port, config.mail.imap_port, config.net.https_port, config.net.libp2p_port]);
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
    }

    #[test]
    fn a_peer_that_does_not_start_is_named_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::at(dir.path(), Path::new("false"), Report::silent()).unwrap();
        let error = cluster.up(&Cluster::parse("t", FILE).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("alice@acme did not start"), "{error}");
        cluster.kill_all();
    }
}
