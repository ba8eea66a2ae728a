//! The group of a bench of replication: its peers, how they are told to keep mail, and what they show of themselves. It looks at
//! peers from outside and alters nothing of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

use super::args::ReplicationArgs;
use super::arms::Arm;
use super::measure::{self, Loopback, Stored};
use crate::cli::cluster::{ClusterPeer, RunState};
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::demo::letter;
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::demo::stage::Stage;
use crate::config::cluster::Cluster;
use crate::console::protocol::{GroupStatus, OutboxLine, PeerStatus, Request, SealedLine};
use crate::model::{Address, ByteSize, MailId, Part, Policy, Span, SubmissionId};
use crate::store::home::Home;

/// How often peers are looked at while something small is waited for, and when that takes longer.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
/// From when on it takes longer.
const LONGER: Duration = Duration::from_secs(2);
/// Longest wait for anything, besides two seconds for each MiB and what the uplink needs.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a group that was told something is left alone, and what it does without mail is measured.
const SETTLE: Duration = Duration::from_secs(1);

/// Who takes part.
pub(super) struct Group {
    /// Where it happens; ends every peer when it goes.
    pub(super) stage: Stage,
    /// Whose mail it is; founds the group, and says who is lost.
    pub(super) sender: ClusterPeer,
    /// Who reads.
    pub(super) reader: ClusterPeer,
    /// Everybody else of the group.
    pub(super) members: Vec<Address>,
    policy: Policy,
    uplink_mbit: Option<u64>,
    seen: BTreeSet<SubmissionId>,
}

/// A mail that is as safe as its arm makes it.
pub(super) struct Sent {
    /// As it was submitted.
    pub(super) mail: Vec<u8>,
    /// As it is kept.
    pub(super) sealed: SealedLine,
    /// From the 250 until it was safe.
    pub(super) seconds_to_safe: f64,
}

/// What all peers that ran had done at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    at: Option<Instant>,
    /// Processor seconds and bytes written to disk of every process, the reader's too.
    used: BTreeMap<u32, (f64, u64)>,
    /// Bytes of parts and manifests that each member served.
    served: BTreeMap<Address, u64>,
    loopback: Loopback,
}

/// What they did between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Done {
    /// How long that was.
    pub(super) seconds: f64,
    /// Processor seconds of all peers.
    pub(super) cpu: f64,
    /// Bytes of parts and manifests that members served.
    pub(super) served: u64,
    /// Bytes written to disk.
    pub(super) written: u64,
    /// What the loopback carried.
    pub(super) loopback: Loopback,
}

impl Counters {
    /// What was done since `before`, by those that lived through it.
    fn since(&self, before: &Self) -> Done {
        let mut done = Done::default();
        for (pid, (cpu, written)) in &self.used {
            if let Some((cpu_before, written_before)) = before.used.get(pid) {
                done.cpu += (cpu - cpu_before).max(0.0);
                done.written += written.saturating_sub(*written_before);
            }
        }
        let served = |(who, count): (&Address, &u64)| Some(count.saturating_sub(*before.served.get(who)?));
        done.served = self.served.iter().filter_map(served).sum();
        if let (Some(now), Some(then)) = (self.at, before.at) {
            done.seconds = now.duration_since(then).as_secs_f64();
        }
        done.loopback = Loopback {
            bytes: self.loopback.bytes.saturating_sub(before.loopback.bytes),
            packets: self.loopback.packets.saturating_sub(before.loopback.packets),
        };
        done
    }
    /// Reads what the kernel tells of these processes.
    fn read_kernel(&mut self, pids: impl Iterator<Item = u32>) {
        self.used = pids.map(|pid| (pid, (measure::cpu_seconds(pid), measure::written_bytes(pid)))).collect();
        self.loopback = measure::loopback();
        self.at = Some(Instant::now());
    }
}

/// The cluster file: a group, and a reader outside that has everybody's card.
pub(super) fn cluster(args: &ReplicationArgs, policy: &Policy) -> anyhow::Result<Cluster> {
    let names: Vec<String> = (0..args.members).map(|i| format!("\"m{i}\"")).collect();
    let with: Vec<String> = (0..args.members).map(|i| format!("\"m{i}@acme\"")).collect();
    let net = args.uplink.map(|mbit| format!("[net]\nupload_limit = \"{mbit} Mbit/s\"\n")).unwrap_or_default();
    let text = format!(
        "{net}[[group]]\nname = \"acme\"\nmembers = [{}]\n[[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [{}]\n",
        names.join(", "),
        with.join(", ")
    );
    let mut cluster = Cluster::parse("bench", &text)?;
    if let Some(group) = cluster.groups.first_mut() {
        group.replication = policy.clone();
    }
    Ok(cluster)
}

impl Group {
    /// Makes and starts all of it.
    pub(super) fn make(args: &ReplicationArgs, arm: &Arm) -> anyhow::Result<Self> {
        let policy = arm.policy(None);
        let stage = Stage::new("bench", None, cluster(args, &policy)?)?;
        stage.cluster.up(&stage.file)?;
        let mut all: Vec<Address> = stage.file.peers().map(|(address, _)| address).collect();
        let reader = all.pop().context("the bench has no reader")?;
        let sender = all.remove(0);
        Ok(Self {
            sender: stage.peer(&sender.to_string())?,
            reader: stage.peer(&reader.to_string())?,
            members: all,
            policy,
            uplink_mbit: args.uplink,
            seen: BTreeSet::new(),
            stage,
        })
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, of: &Address, request: &Request) -> anyhow::Result<T> {
        self.stage.cluster.control_of(of).ask_telling(request, &mut |_, _| {}).with_context(|| of.to_string())
    }

    /// Looks until there is something, for as long as `bytes` may take to be copied to everybody.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        bytes: u64,
        mut see: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let copied = bytes.saturating_mul(u64::try_from(self.members.len())?);
        let on_the_way = self.uplink_mbit.map_or(0, |mbit| copied / (mbit.saturating_mul(50_000)).max(1));
        let patience = PATIENCE + Duration::from_secs((bytes >> 19).saturating_add(on_the_way));
        let start = Instant::now();
        loop {
            if let Some(seen) = see()? {
                return Ok(seen);
            }
            let waited = start.elapsed();
            if waited > patience {
                bail!("{what}: not after {} s", patience.as_secs());
            }
            std::thread::sleep(if waited < LONGER { LOOK.0 } else { LOOK.1 });
        }
    }

    /// Has the group keep mail as `arm` does, once nothing is left of the mail before; gives what it does when it does nothing.
    pub(super) fn prepare(&mut self, arm: &Arm, lost_after: Option<Span>) -> anyhow::Result<Done> {
        self.rests()?;
        let policy = arm.policy(lost_after);
        if self.policy != policy {
            let asked = Request::GroupPolicy { policy: policy.clone() };
            let known: GroupStatus = self.ask(&self.sender.address, &asked)?;
            self.policy = policy;
            self.wait("every member knows the policy", 0, || {
                let mut aware = true;
                for member in &self.members {
                    aware &= self.group_seen_by(member)?.version >= known.version;
                }
                Ok(aware.then_some(()))
            })?;
        }
        // What the change itself costs is over when the measuring begins.
        std::thread::sleep(SETTLE);
        let before = self.begin()?;
        std::thread::sleep(SETTLE);
        self.done_since(&before)
    }

    /// Waits until nothing waits in the outbox and nothing of it lies on a member's disk.
    fn rests(&self) -> anyhow::Result<()> {
        self.wait("the last mails are freed everywhere", 0, || {
            let lines: Vec<OutboxLine> = self.ask(&self.sender.address, &Request::Outbox)?;
            Ok((lines.is_empty() && self.stored(&[]).files == 0).then_some(()))
        })
    }

    /// The group as a member sees it.
    pub(super) fn group_seen_by(&self, member: &Address) -> anyhow::Result<GroupStatus> {
        self.ask(member, &Request::GroupStatus)
    }

    /// What waits in the sender's outbox.
    pub(super) fn outbox(&self) -> anyhow::Result<Vec<OutboxLine>> {
        self.ask(&self.sender.address, &Request::Outbox)
    }

    /// A mail for the reader.
    pub(super) fn letter(&self, size: ByteSize) -> anyhow::Result<Vec<u8>> {
        letter::made(&self.sender.home, &self.sender.address, &self.reader.address, size)
    }

    /// Sends a mail, and waits until it is as safe as `arm` makes it.
    pub(super) fn send(&mut self, arm: &Arm, mail: Vec<u8>) -> anyhow::Result<Sent> {
        let (from, to) = (self.sender.address.clone(), self.reader.address.clone());
        let mut smtp = SmtpClient::login(&self.sender.smtp, &from.to_string(), &self.sender.password)?;
        smtp.submit(&from, std::slice::from_ref(&to), &mail)?;
        let start = Instant::now();
        let (submission, sealed) = self.wait("a mail is safe", u64::try_from(mail.len())?, || {
            let lines = self.outbox()?;
            let Some(line) = lines.into_iter().find(|line| !self.seen.contains(&line.submission)) else {
                return Ok(None);
            };
            let sealed = line.sealed.into_iter().next();
            let safe = sealed.filter(|sealed| sealed.safe >= arm.safe(sealed.length));
            Ok(safe.map(|sealed| (line.submission, sealed)))
        })?;
        let seconds_to_safe = start.elapsed().as_secs_f64();
        self.seen.insert(submission);
        Ok(Sent { mail, sealed, seconds_to_safe })
    }

    /// Opens the mails as a mail program does, compares each with what was sent, and deletes it. `first` is the first UID that they
    /// may have.
    pub(super) fn read(&self, imap: &mut ImapClient, first: u32, sent: &[Sent]) -> anyhow::Result<()> {
        let uids = self.stubs(imap, first, sent)?;
        let mut waiting: Vec<&Sent> = sent.iter().collect();
        for uid in uids {
            let got = imap.fetch(uid, "", &mut |_, _| {})?;
            let place = waiting.iter().position(|sent| letter::is_same(&got, &sent.mail));
            waiting.swap_remove(place.context("WHAT THE READER OPENED IS NOT WHAT WAS SENT")?);
            imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)"))?;
        }
        ensure!(waiting.is_empty(), "{} mails were not opened", waiting.len());
        imap.command("EXPUNGE")?;
        Ok(())
    }

    /// Waits until the reader's mailbox shows the mails; gives their UIDs.
    pub(super) fn stubs(&self, imap: &mut ImapClient, first: u32, sent: &[Sent]) -> anyhow::Result<Vec<u32>> {
        let bytes = sent.iter().map(|sent| sent.sealed.length).sum();
        self.wait("the reader's mailbox shows the mails", bytes, || {
            imap.command("NOOP")?;
            let uids = imap.uids_from(first)?;
            Ok((uids.len() >= sent.len()).then_some(uids))
        })
    }

    /// A mail program of the reader, and the first UID of what is sent from now on.
    pub(super) fn reader(&self) -> anyhow::Result<(ImapClient, u32)> {
        let mut imap = ImapClient::login(&self.reader.imap, &self.reader.address.to_string(), &self.reader.password)?;
        let first = imap.select("INBOX")?.uid_next;
        Ok((imap, first))
    }

    /// The members that run, the sender not counted.
    pub(super) fn running(&self) -> anyhow::Result<Vec<Address>> {
        let running = self.stage.cluster.who_runs()?;
        Ok(self.members.iter().filter(|member| running.contains(member)).cloned().collect())
    }

    /// What lies on the members' disks of these mails; of all when none is named.
    pub(super) fn stored(&self, mails: &[MailId]) -> Stored {
        let of = |member: &Address| {
            let home = Home::at(self.stage.cluster.home_of(member));
            measure::stored(&home.mirror_of(&self.sender.address), mails)
        };
        self.members.iter().map(of).fold(Stored::default(), Stored::and)
    }

    /// The parts on a member's disk.
    pub(super) fn parts_at(&self, member: &Address) -> anyhow::Result<BTreeSet<(MailId, Part)>> {
        Ok(Home::at(self.stage.cluster.home_of(member)).mirrored_parts(&self.sender.address)?)
    }

    /// The start of something that is to be measured.
    pub(super) fn begin(&self) -> anyhow::Result<Counters> {
        let mut counters = Counters::default();
        let peers = self.stage.cluster.status()?.peers;
        let running: Vec<&ClusterPeer> = peers.iter().filter(|peer| peer.state == RunState::Running).collect();
        for peer in running.iter().filter(|peer| peer.address != self.reader.address) {
            counters.served.insert(peer.address.clone(), self.served_by(&peer.address)?);
        }
        // Last, for asking costs too.
        counters.read_kernel(running.iter().filter_map(|peer| peer.pid));
        Ok(counters)
    }

    /// What was done since.
    pub(super) fn done_since(&self, before: &Counters) -> anyhow::Result<Done> {
        let mut now = Counters::default();
        now.read_kernel(before.used.keys().copied());
        let running = self.stage.cluster.who_runs()?;
        for peer in before.served.keys().filter(|peer| running.contains(peer)) {
            now.served.insert(peer.clone(), self.served_by(peer)?);
        }
        Ok(now.since(before))
    }

    fn served_by(&self, peer: &Address) -> anyhow::Result<u64> {
        Ok(self.ask::<PeerStatus>(peer, &Request::Status)?.served_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_counted_of_those_that_lived_through_it() {
        let (one, two): (Address, Address) = ("m1@acme".parse().unwrap(), "m2@acme".parse().unwrap());
        let before = Counters {
            used: BTreeMap::from([(1, (1.0, 5)), (2, (4.0, 5))]),
            served: BTreeMap::from([(one.clone(), 10), (two, 5)]),
            ..Counters::default()
        };
        let after = Counters {
            used: BTreeMap::from([(1, (1.5, 9)), (2, (0.0, 0))]),
            served: BTreeMap::from([(one, 30)]),
            loopback: Loopback { bytes: 7, packets: 1 },
            ..Counters::default()
        };
        let done = after.since(&before);
        assert_eq!((done.cpu, done.written, done.served, done.loopback.bytes), (0.5, 4, 20, 7));
    }
}
