//! Availability by trying it: a group of real peers and a reader, mails that wait, peers killed with SIGKILL and started again as
//! the draws say, and each mail opened once. Every peer is gone at the end.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

use super::monte_carlo::{Draws, Failures};
use crate::cli::cluster::ClusterPeer;
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::demo::letter;
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::demo::stage::Stage;
use crate::cli::progress::Progress;
use crate::config::cluster::Cluster;
use crate::console::protocol::{OutboxLine, Request};
use crate::model::policy::KOfN;
use crate::model::{Address, ByteSize};

/// Attachment of each mail: enough to be kept as fragments.
const ATTACHED: ByteSize = ByteSize(16 << 10);
/// How often the peers are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait until all mails are safe and announced.
const PATIENCE: Duration = Duration::from_secs(180);
/// Most members: each is a process.
const OTHERS_MAX: u8 = 12;

/// What became of the trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tried {
    /// How many there were.
    pub(super) trials: u32,
    /// In how many the mail was had.
    pub(super) opened: u32,
    /// In how many it was had although too few were up, or not had although enough were.
    pub(super) against_the_rule: u32,
}

/// Sends `trials` mails, then opens each with the peers up that a draw says.
pub(super) fn try_out(policy: KOfN, up: f64, trials: u32, draws: &mut Draws) -> anyhow::Result<Tried> {
    let KOfN { k, n } = policy;
    ensure!(
        n <= OTHERS_MAX,
        "trials with {n} members are {n} processes: at most {OTHERS_MAX}; use --trials 0 for draws alone"
    );
    let stage = Stage::new("bench", None, cluster(policy)?)?;
    stage.cluster.up(&stage.file)?;
    let peers: Vec<Address> = stage.file.peers().map(|(address, _)| address).collect();
    let (reader, members) = peers.split_last().context("the bench has no reader")?;
    let owner = members.first().context("the bench has no members")?;
    let (owner, reader) = (stage.peer(&owner.to_string())?, stage.peer(&reader.to_string())?);
    let mut waiting = submit(&stage, &owner, &reader, trials)?;
    become_safe(&stage, &owner, i32::from(n) - i32::from(k), trials)?;
    let mut imap = ImapClient::login(&reader.imap, &reader.address.to_string(), &reader.password)?;
    let uids = stubs(&mut imap, trials)?;

    let bar = Progress::start("killing peers and opening mails");
    let mut tried = Tried { trials, opened: 0, against_the_rule: 0 };
    for (uid, number) in uids.into_iter().zip(0_u32..) {
        let who = draws.who_is_up(Failures::Independent { up }, members.len());
        set_up(&stage, members, &who)?;
        let held = who.iter().skip(1).filter(|up| **up).count();
        let can_be_had = who.first() == Some(&true) || held >= usize::from(k);
        let had = match imap.fetch(uid, "", &mut |_, _| {}) {
            Ok(got) => {
                let place = waiting.iter().position(|sent| letter::is_same(&got, sent));
                waiting.swap_remove(place.context("a mail came that is none of those that were sent")?);
                true
            }
            Err(error) if error.is_unavailable() => false,
            Err(error) => return Err(error.into()),
        };
        tried.opened += u32::from(had);
        tried.against_the_rule += u32::from(had != can_be_had);
        bar.at(
            &format!("{} of {trials} mails tried, {} opened", number + 1, tried.opened),
            percent(number + 1, trials),
        );
    }
    Ok(tried)
}

fn percent(done: u32, all: u32) -> Option<u8> {
    u8::try_from(u64::from(done) * 100 / u64::from(all.max(1))).ok()
}

/// A group in which every member but the owner holds a fragment of every mail, and an outside reader.
fn cluster(KOfN { k, n }: KOfN) -> anyhow::Result<Cluster> {
    let names: Vec<String> = (0..=n).map(|i| format!("\"m{i}\"")).collect();
    let with: Vec<String> = (0..=n).map(|i| format!("\"m{i}@acme\"")).collect();
    let (names, with) = (names.join(", "), with.join(", "));
    let replication = if k == 1 {
        format!("mode = \"full\"\ncopies = {n}\n")
    } else {
        format!("fragments = {{ k = {k}, n = {n} }}\ncopies = {}\nwhole_below = \"1 KiB\"\n", n - k + 1)
    };
    let text = format!(
        "[[group]]\nname = \"acme\"\nmembers = [{names}]\n[group.replication]\n{replication}\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n[[contacts]]\npeer = \"rita@readers\"\nwith = [{with}]\n"
    );
    Ok(Cluster::parse("bench", &text)?)
}

fn submit(stage: &Stage, owner: &ClusterPeer, reader: &ClusterPeer, count: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut smtp = SmtpClient::login(&owner.smtp, &owner.address.to_string(), &owner.password)?;
    let mut sent = Vec::new();
    for _ in 0..count {
        let mail = letter::made(&owner.home, &owner.address, &reader.address, ATTACHED)?;
        smtp.submit(&owner.address, std::slice::from_ref(&reader.address), &mail)?;
        sent.push(mail);
    }
    stage.report.line(&format!("{} submits {count} mails for {}", owner.address, reader.address));
    Ok(sent)
}

fn become_safe(stage: &Stage, owner: &ClusterPeer, f: i32, count: u32) -> anyhow::Result<()> {
    let bar = Progress::start("the members pull the mails");
    let start = Instant::now();
    loop {
        let control = stage.cluster.control_of(&owner.address);
        let lines: Vec<OutboxLine> = control.ask_telling(&Request::Outbox, &mut |_, _| {})?;
        let is_ready = |line: &&OutboxLine| {
            let announced = line.receivers.values().all(|state| state == "announced");
            announced && line.sealed.iter().all(|sealed| sealed.safe >= f) && !line.sealed.is_empty()
        };
        let ready = u32::try_from(lines.iter().filter(is_ready).count()).unwrap_or(u32::MAX);
        if ready >= count {
            return Ok(());
        }
        bar.at(&format!("{ready} of {count} mails are safe"), percent(ready, count));
        if start.elapsed() > PATIENCE {
            bail!("only {ready} of {count} mails are safe({f}) after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits until the reader's mailbox shows every mail; gives the UIDs.
fn stubs(imap: &mut ImapClient, count: u32) -> anyhow::Result<Vec<u32>> {
    let start = Instant::now();
    imap.select("INBOX")?;
    loop {
        imap.command("NOOP")?;
        let uids = imap.uids_from(1)?;
        if uids.len() >= usize::try_from(count)? {
            return Ok(uids);
        }
        if start.elapsed() > PATIENCE {
            bail!("the reader's mailbox shows {} of {count} mails after {} s", uids.len(), PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// Kills and starts until exactly those run that `who` says.
fn set_up(stage: &Stage, members: &[Address], who: &[bool]) -> anyhow::Result<()> {
    let running = stage.cluster.who_runs()?;
    let (mut kill, mut start) = (Vec::new(), Vec::new());
    for (member, up) in members.iter().zip(who) {
        match (running.contains(member), *up) {
            (true, false) => kill.push(member.clone()),
            (false, true) => start.push(member.clone()),
            _ => {}
        }
    }
    if !kill.is_empty() {
        stage.cluster.kill(&kill)?;
    }
    if !start.is_empty() {
        stage.cluster.start(&start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_as_large_as_its_policy_so_that_every_other_member_holds_a_part() {
        for (k, n) in [(3, 5), (1, 3), (3, 9)] {
            let cluster = cluster(KOfN { k, n }).unwrap();
            assert_eq!(cluster.groups[0].members.len(), usize::from(n) + 1);
            assert_eq!(cluster.peers().count(), usize::from(n) + 2);
        }
    }
}
