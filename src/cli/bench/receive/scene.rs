//! Who takes part in a bench of receiving: a sender, alone or with members, and a reader in another group; each a process, the
//! reader's in a network of its own where that can be. It looks at peers from outside.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::args::{GroupArg, NotifyArg};
use super::place::Wire;
use crate::cli::bench::cpu;
use crate::cli::bench::outbox::group::number;
use crate::cli::bench::replication::measure::stored;
use crate::cli::cluster::ClusterPeer;
use crate::cli::demo::stage::Stage;
use crate::cli::output;
use crate::config::cluster::Cluster;
use crate::console::protocol::{PeerStatus, Request};
use crate::model::Address;

/// How often peers are looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait without any progress.
const PATIENCE: Duration = Duration::from_secs(120);
/// Appends of the probe of a disk, and bytes of each.
const PROBES: usize = 60;
const PROBE_BYTES: usize = 4096;
/// f of the safe(f) that a group of six is to reach.
const SAFE: i64 = 2;

/// How the peers of a scene are made.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli::bench) struct Setting {
    /// Where the sender is.
    pub(in crate::cli::bench) group: GroupArg,
    /// How the reader is told.
    pub(in crate::cli::bench) notify: NotifyArg,
    /// Whether bodies are pulled at once, or when they are opened.
    pub(in crate::cli::bench) eager: bool,
    /// Whether the reader's peer is in a network of its own, where one can be made.
    pub(in crate::cli::bench) namespaces: bool,
}

/// Who takes part.
pub(in crate::cli::bench) struct Scene {
    /// Where it happens; ends every peer when it goes.
    pub(in crate::cli::bench) stage: Stage,
    /// Between the reader's peer and the others.
    pub(in crate::cli::bench) wire: Option<Arc<Wire>>,
    /// Who writes.
    pub(in crate::cli::bench) sender: ClusterPeer,
    /// Who reads.
    pub(in crate::cli::bench) reader: ClusterPeer,
    /// Every peer.
    pub(in crate::cli::bench) peers: Vec<ClusterPeer>,
}

/// The cluster file.
fn cluster(setting: Setting) -> anyhow::Result<Cluster> {
    let members: Vec<String> =
        (0..=setting.group.others()).map(|i| if i == 0 { "sam".to_owned() } else { format!("m{i}") }).collect();
    let names: Vec<String> = members.iter().map(|name| format!("\"{name}\"")).collect();
    let with: Vec<String> = members.iter().map(|name| format!("\"{name}@acme\"")).collect();
    let text = format!(
        "[mail]\nnotify = \"{}\"\npull = \"{}\"\n[[group]]\nname = \"acme\"\nmembers = [{}]\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n[[contacts]]\npeer = \"rita@readers\"\nwith = [{}]\n",
        setting.notify.name(),
        if setting.eager { "eager" } else { "on-open" },
        names.join(", "),
        with.join(", ")
    );
    Ok(Cluster::parse("bench", &text)?)
}

impl Scene {
    /// Makes and starts all of it.
    ///
    /// # Errors
    /// When peers do not start.
    pub(in crate::cli::bench) fn make(setting: Setting) -> anyhow::Result<Self> {
        let file = cluster(setting)?;
        let all: Vec<Address> = file.peers().map(|(address, _)| address).collect();
        let (Some(sender), Some(reader)) = (all.first(), all.last()) else { bail!("the bench has no peers") };
        let wire = if setting.namespaces { wire_to(reader) } else { None };
        let stage = match &wire {
            Some(wire) => Stage::within("bench", None, file, Some(wire.clone()))?,
            None => Stage::new("bench", None, file)?,
        };
        if let Some(wire) = wire.clone() {
            stage.at_end(move || wire.remove());
        }
        let peers = stage.cluster.up(&stage.file)?.peers;
        Ok(Self {
            sender: stage.peer(&sender.to_string())?,
            reader: stage.peer(&reader.to_string())?,
            wire,
            peers,
            stage,
        })
    }

    /// The namespace of the reader's peer, or of the others.
    pub(in crate::cli::bench) fn namespace(&self, peer: &ClusterPeer) -> Option<String> {
        self.wire.as_ref().map(|wire| wire.namespace(&peer.address))
    }

    /// The processes of the reader's peer, and of the others.
    pub(in crate::cli::bench) fn pids(&self) -> anyhow::Result<(u32, Vec<u32>)> {
        let reader = self.reader.pid.context("the reader's peer does not run")?;
        Ok((reader, self.peers.iter().filter_map(|peer| peer.pid).filter(|pid| *pid != reader).collect()))
    }

    /// What a peer shows.
    pub(in crate::cli::bench) fn status(&self, of: &ClusterPeer) -> anyhow::Result<PeerStatus> {
        let control = self.stage.cluster.control_of(&of.address);
        control.ask_telling(&Request::Status, &mut |_, _| {}).with_context(|| of.address.to_string())
    }

    /// How many of the sender's mails wait, and how many of those are not safe(2).
    pub(in crate::cli::bench) fn waiting(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.status(&self.sender)?;
        let (waiting, mails) = (number(&status, "/outbox/waiting"), number(&status, "/outbox/mails"));
        let safe: u64 = counts(&status, "by_safe").filter(|(f, _)| *f >= SAFE).map(|(_, mails)| mails).sum();
        Ok((waiting.max(mails), waiting.max(mails).saturating_sub(safe)))
    }

    /// How many mails were safe(2) when they were received.
    pub(in crate::cli::bench) fn ended_safe(&self) -> anyhow::Result<u64> {
        let status = self.status(&self.sender)?;
        Ok(counts(&status, "ended_by_safe").filter(|(f, _)| *f >= SAFE).map(|(_, mails)| mails).sum())
    }

    /// Waits until every mail of the sender is safe(2), or received before it was.
    pub(in crate::cli::bench) fn all_safe(&self) -> anyhow::Result<Instant> {
        self.until("every mail is safe(2) or received", |(_, unsafe_mails)| unsafe_mails)
    }

    /// Waits until nothing of the sender waits: every mail was received, and it knows.
    pub(in crate::cli::bench) fn all_ended(&self) -> anyhow::Result<Instant> {
        self.until("the sender knows that every mail was received", |(waiting, _)| waiting)
    }

    fn until(&self, what: &str, left: impl Fn((u64, u64)) -> u64) -> anyhow::Result<Instant> {
        let (mut since, mut last) = (Instant::now(), None);
        loop {
            let left = left(self.waiting()?);
            let now = Instant::now();
            if left == 0 {
                return Ok(now);
            }
            if last != Some(left) {
                (since, last) = (now, Some(left));
            } else if since.elapsed() > PATIENCE {
                bail!("{what}: {left} are left, and nothing went on for {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What each peer took until now.
    pub(in crate::cli::bench) fn taken(&self) -> Vec<Taken> {
        self.peers.iter().map(Taken::by).collect()
    }

    /// From now on, the peak of each peer's memory is that of what comes.
    pub(in crate::cli::bench) fn forget_peaks(&self) {
        for pid in self.peers.iter().filter_map(|peer| peer.pid) {
            // Where the kernel does not let us, the peak is that since the start of the peer.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Median milliseconds of an append of 4 KiB and its fsync on this disk, now.
    pub(in crate::cli::bench) fn fsync_ms(&self) -> anyhow::Result<f64> {
        use std::io::Write as _;
        let path = self.stage.cluster.home().join("fsync-probe");
        let mut file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut all = Vec::with_capacity(PROBES);
        for _ in 0..PROBES {
            let start = Instant::now();
            file.write_all(&[b'x'; PROBE_BYTES])?;
            file.sync_all()?;
            all.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        fs::remove_file(&path)?;
        Ok(crate::cli::bench::report::median(all))
    }
}

/// A wire, or nothing where none can be made; people are told why.
fn wire_to(reader: &Address) -> Option<Arc<Wire>> {
    match Wire::new(reader.clone()) {
        Ok(wire) => Some(wire),
        Err(e) => {
            output::note(&format!(
                "no network namespace here ({e:#}): traffic is counted by the sockets of the processes"
            ));
            None
        }
    }
}

/// A map of counts in what the outbox shows, by f of safe(f).
fn counts<'a>(status: &'a PeerStatus, name: &str) -> impl Iterator<Item = (i64, u64)> + 'a {
    let map = status.brains.get("outbox").and_then(|outbox| outbox.get(name)).and_then(serde_json::Value::as_object);
    map.into_iter().flatten().filter_map(|(f, mails)| Some((f.parse().ok()?, mails.as_u64()?)))
}

/// What one peer took so far.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::bench) struct Taken {
    /// Whose it is.
    pub(in crate::cli::bench) address: Address,
    /// Processor time, seconds.
    pub(in crate::cli::bench) cpu_s: f64,
    /// The most memory it had.
    pub(in crate::cli::bench) peak_rss_bytes: u64,
    /// Lengths of all files of its home.
    pub(in crate::cli::bench) stored_bytes: u64,
}

impl Taken {
    fn by(peer: &ClusterPeer) -> Self {
        let pid = peer.pid.unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Self {
            address: peer.address.clone(),
            cpu_s: cpu::seconds(pid).unwrap_or(0.0),
            peak_rss_bytes: peak_in(&status).unwrap_or(0),
            stored_bytes: stored(&peer.home, &[]).bytes,
        }
    }

    /// What was taken since `before`; the peak as it is now.
    pub(in crate::cli::bench) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            stored_bytes: self.stored_bytes.saturating_sub(before.stored_bytes),
            ..self.clone()
        }
    }
}

/// The peak of a process's memory, as its status tells it.
fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_six_keeps_any_three_of_five_and_its_reader_is_outside() {
        let setting = Setting { group: GroupArg::ThreeOfFive, notify: NotifyArg::Dht, eager: true, namespaces: false };
        let file = cluster(setting).unwrap();
        let policy = &file.groups[0].replication;
        assert_eq!((file.groups[0].members.len(), policy.fragments.k, policy.fragments.n), (6, 3, 5));
        assert_eq!(file.peers().last().unwrap().0.to_string(), "rita@readers");
        assert!(toml::to_string(&file.mail).unwrap().contains("eager"));
        let alone = cluster(Setting { group: GroupArg::Alone, ..setting }).unwrap();
        assert_eq!(alone.peers().count(), 2);
    }

    #[test]
    fn a_peak_is_read_and_this_process_has_one() {
        assert_eq!(peak_in("Name:\tx\nVmHWM:\t  12 kB\n"), Some(12_288));
        assert!(peak_in(&fs::read_to_string("/proc/self/status").unwrap()) > Some(1 << 20));
    }
}
