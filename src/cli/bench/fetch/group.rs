//! The group of a bench of fetches: its members behind their uplinks, what is wrong with some of them, and how a mail gets there.
//! It looks at peers from outside, and alters nothing of theirs but the files of those that are to lie.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::Fault;
use super::args::{ArmArg, FetchArgs};
use crate::cli::bench::cpu;
use crate::cli::cluster::ClusterPeer;
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::demo::letter;
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::demo::stage::Stage;
use crate::config::Rate;
use crate::config::cluster::Cluster;
use crate::console::protocol::{GroupStatus, OutboxLine, PeerStatus, Pulled, Request, SealedLine};
use crate::model::{Address, ByteSize, MailId, Mode, Policy};
use crate::store::home::Home;

/// How often peers are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for anything, besides a second for each MiB of the mail.
const PATIENCE: Duration = Duration::from_secs(120);
/// Uplink of a slow member: 1 KB/s.
const SLOW: Rate = Rate(Some(1000));

/// Who takes part.
pub(super) struct Group {
    /// Where it happens; ends every peer when it goes.
    pub(super) stage: Stage,
    /// Whose mail it is; founds the group.
    pub(super) sender: ClusterPeer,
    /// Who fetches.
    pub(super) reader: ClusterPeer,
    /// Who holds parts, in the order of the uplinks.
    pub(super) members: Vec<Address>,
    policy: Policy,
}

/// A mail that is safe and announced.
pub(super) struct Sent {
    /// As it was submitted.
    pub(super) mail: Vec<u8>,
    /// As it is kept.
    pub(super) sealed: SealedLine,
    /// Where the reader's mailbox shows it.
    pub(super) uid: u32,
}

/// The cluster file: a sender without a limit, a member for each uplink, a reader outside that has everybody's card.
pub(super) fn cluster(args: &FetchArgs, faults: &[(usize, Fault)]) -> anyhow::Result<Cluster> {
    let policy = args.policy.0;
    let names: Vec<String> = (0..=args.uplinks.len()).map(|i| format!("\"m{i}\"")).collect();
    let with: Vec<String> = (0..=args.uplinks.len()).map(|i| format!("\"m{i}@acme\"")).collect();
    let limits: Vec<String> = args
        .uplinks
        .iter()
        .enumerate()
        .map(|(i, mbit)| {
            let is_slow = faults.contains(&(i, Fault::Slow));
            let rate = if is_slow { SLOW } else { Rate(Some(mbit.saturating_mul(125_000))) };
            format!("\"m{}@acme\" = \"{}\"\n", i + 1, String::from(rate))
        })
        .collect();
    let text = format!(
        "[upload_limits]\n{}[[group]]\nname = \"acme\"\nmembers = [{}]\n[group.replication]\n\
         fragments = {{ k = {}, n = {} }}\ncopies = {}\nwhole_below = \"1 KiB\"\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n[[contacts]]\npeer = \"rita@readers\"\nwith = [{}]\n",
        limits.concat(),
        names.join(", "),
        policy.k,
        policy.n,
        policy.n,
        with.join(", ")
    );
    Ok(Cluster::parse("bench", &text)?)
}

impl Group {
    /// Makes and starts all of it.
    pub(super) fn make(args: &FetchArgs, faults: &[(usize, Fault)]) -> anyhow::Result<Self> {
        let stage = Stage::new("bench", None, cluster(args, faults)?)?;
        stage.cluster.up(&stage.file)?;
        let mut all: Vec<Address> = stage.file.peers().map(|(address, _)| address).collect();
        let reader = all.pop().context("the bench has no reader")?;
        let sender = all.remove(0);
        let known: GroupStatus =
            stage.cluster.control_of(&sender).ask_telling(&Request::GroupStatus, &mut |_, _| {})?;
        Ok(Self {
            sender: stage.peer(&sender.to_string())?,
            reader: stage.peer(&reader.to_string())?,
            members: all,
            policy: known.policy,
            stage,
        })
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, of: &Address, request: &Request) -> anyhow::Result<T> {
        self.stage.cluster.control_of(of).ask_telling(request, &mut |_, _| {}).with_context(|| of.to_string())
    }

    /// Looks until there is something, for as long as a mail of `size` may take.
    fn wait<T>(
        &self,
        what: &str,
        size: ByteSize,
        mut see: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let patience = PATIENCE + Duration::from_secs(size.bytes() >> 20);
        let start = Instant::now();
        loop {
            if let Some(seen) = see()? {
                return Ok(seen);
            }
            if start.elapsed() > patience {
                bail!("{what}: not after {} s", patience.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Lets every member and the sender run, and has the group keep mail as `arm` needs it.
    pub(super) fn prepare(&mut self, arm: ArmArg) -> anyhow::Result<()> {
        let all: Vec<Address> = [&self.sender.address].into_iter().chain(&self.members).cloned().collect();
        self.stage.cluster.start(&all)?;
        // Nothing of the last run is re-encoded when the policy changes.
        self.wait("the last mail is received", ByteSize(0), || {
            let lines: Vec<OutboxLine> = self.ask(&self.sender.address, &Request::Outbox)?;
            Ok(lines.is_empty().then_some(()))
        })?;
        let mode = if arm == ArmArg::Fragments { Mode::Fragments } else { Mode::Full };
        if self.policy.mode != mode {
            let policy = Policy { mode, ..self.policy.clone() };
            let known: GroupStatus = self.ask(&self.sender.address, &Request::GroupPolicy { policy })?;
            self.policy = known.policy.clone();
            self.wait("every member knows the policy", ByteSize(0), || {
                let mut aware = true;
                for member in &self.members {
                    aware &= self.ask::<GroupStatus>(member, &Request::GroupStatus)?.version >= known.version;
                }
                Ok(aware.then_some(()))
            })?;
        }
        Ok(())
    }

    /// Sends a mail, and waits until every member holds its part and the reader knows of it.
    pub(super) fn send(&self, imap: &mut ImapClient, size: ByteSize) -> anyhow::Result<Sent> {
        let (from, to) = (&self.sender.address, &self.reader.address);
        let first = imap.select("INBOX")?.uid_next;
        let mail = letter::made(&self.sender.home, from, to, size)?;
        let mut smtp = SmtpClient::login(&self.sender.smtp, &from.to_string(), &self.sender.password)?;
        smtp.submit(from, std::slice::from_ref(to), &mail)?;
        let sealed = self.wait("every member holds its part", size, || {
            let lines: Vec<OutboxLine> = self.ask(from, &Request::Outbox)?;
            let Some(line) = lines.into_iter().next() else { return Ok(None) };
            let announced = line.receivers.values().all(|state| state == "announced");
            let sealed = line.sealed.into_iter().next();
            Ok(sealed.filter(|sealed| announced && sealed.holders.len() >= self.members.len()))
        })?;
        let uid = self.wait("the reader's mailbox shows the mail", size, || {
            imap.command("NOOP")?;
            Ok(imap.uids_from(first)?.first().copied())
        })?;
        Ok(Sent { mail, sealed, uid })
    }

    /// Kills with SIGKILL whoever of these runs.
    pub(super) fn kill(&self, peers: &[Address]) -> anyhow::Result<()> {
        self.stage.cluster.kill(peers).map(drop)
    }

    /// Alters a bit in every 4 KiB of the part that a member holds.
    pub(super) fn corrupt(&self, member: &Address, h: &MailId) -> anyhow::Result<()> {
        let home = Home::at(self.stage.cluster.home_of(member));
        let parts = home.mirrored_parts(&self.sender.address)?;
        let (_, part) = parts.iter().find(|(mail, _)| mail == h).context("the member that is to lie holds no part")?;
        let path = home.mirror_part(&self.sender.address, h, *part);
        let mut bytes = fs::read(&path)?;
        bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
        Ok(fs::write(&path, bytes)?)
    }

    /// Stops the sender without ending it: its kernel accepts, and it never answers.
    pub(super) fn stop_sender(&self) -> anyhow::Result<()> {
        self.stage.cluster.signal(&self.sender.address, Signal::SIGSTOP)
    }
    /// Lets the sender go on.
    pub(super) fn continue_sender(&self) -> anyhow::Result<()> {
        self.stage.cluster.signal(&self.sender.address, Signal::SIGCONT)
    }

    /// Lets the reader's peer start anew, without connections and without its index; whom it knows is in its journal.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        let reader = std::slice::from_ref(&self.reader.address);
        self.stage.cluster.stop(reader)?;
        fs::remove_dir_all(Home::at(&self.reader.home).index_dir())?;
        self.stage.cluster.start(reader).map(drop)
    }

    /// Processor time of the reader's peer until now, in seconds.
    pub(super) fn reader_cpu(&self) -> Option<f64> {
        let status: PeerStatus = self.ask(&self.reader.address, &Request::Status).ok()?;
        cpu::seconds(status.pid)
    }

    /// How far the reader's pull of a mail is, in percent.
    pub(super) fn percent(&self, h: &MailId) -> Option<u64> {
        let status: PeerStatus = self.ask(&self.reader.address, &Request::Status).ok()?;
        status.brains.get("fetch")?.get("under_way")?.get(h.to_string())?.as_u64()
    }

    /// How the reader's peer says that it pulled a mail.
    pub(super) fn pulled(&self, h: &MailId) -> anyhow::Result<Pulled> {
        let status: PeerStatus = self.ask(&self.reader.address, &Request::Status)?;
        let pull = status.pulls.into_iter().rev().find(|pull| pull.h == *h && pull.ok);
        pull.context("the reader's peer reports no pull of the mail")
    }

    /// A mail program of the reader.
    pub(super) fn imap(&self) -> anyhow::Result<ImapClient> {
        Ok(ImapClient::login(&self.reader.imap, &self.reader.address.to_string(), &self.reader.password)?)
    }
}
