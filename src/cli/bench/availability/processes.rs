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
use crate::console::protocol::{OutboxLine, OutboxPage, Request};
use crate::model::policy::KOfN;
use crate::model::{Address, ByteSize};

/// Attachment of each mail: enough to be kept as fragments.
const ATTACHED: ByteSize = ByteSize(16 << 10);
/// How often the peers are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait until all mails are safe and announced.
const PATIENCE: Duration = Duration::from_secs(600);
/// A member that was just started serves at once when others can tell it what it missed, and after a minute when nobody is left
/// to ask (R7): who is up by a draw has been up for longer than that.
pub(super) const UNTIL_SERVED: Duration = Duration::from_secs(80);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Most members: each is a process.
const OTHERS_MAX: u8 = 12;

/// What became of the trials at one probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tried {
    /// The probability that a peer was up.
    pub(super) up: f64,
    /// How many there were.
    pub(super) trials: u32,
    /// In how many the mail was had.
    pub(super) opened: u32,
    /// In how many it was had although too few were up, or not had although enough were.
    pub(super) against_the_rule: u32,
}

/// One draw: which mail is opened, at which of the probabilities it was drawn, and who is up then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Draw {
    /// First, so that draws with the same peers up follow each other.
    who: Vec<bool>,
    at: usize,
    uid: u32,
}

/// Whether a policy can be tried, said before anything is drawn or started: an arm takes minutes.
pub(super) fn check(option: &str, policy: KOfN) -> anyhow::Result<()> {
    let n = policy.n;
    ensure!(
        n <= OTHERS_MAX,
        "{option} cannot be tried: {n} members besides the owner are {n} processes, at most {OTHERS_MAX} are started; \
         use --trials 0 for draws alone"
    );
    Ok(())
}

/// Sends `trials` mails for each of `ups`, then opens each with the peers up that a draw of its own says. Draws with the same
/// peers up are tried one after the other: each mail is opened once and nothing is repaired, so their order changes nothing, and
/// peers are killed and started at most as often as there are sets of them.
pub(super) fn try_out(policy: KOfN, ups: &[f64], trials: u32, draws: &mut Draws) -> anyhow::Result<Vec<Tried>> {
    let KOfN { k, n } = policy;
    let stage = Stage::new("bench", None, cluster(policy)?)?;
    stage.cluster.up(&stage.file)?;
    let peers: Vec<Address> = stage.file.peers().map(|(address, _)| address).collect();
    let (reader, members) = peers.split_last().context("the bench has no reader")?;
    let owner = members.first().context("the bench has no members")?;
    let (owner, reader) = (stage.peer(&owner.to_string())?, stage.peer(&reader.to_string())?);
    let all = trials * u32::try_from(ups.len())?;
    let mut waiting = submit(&stage, &owner, &reader, all)?;
    become_safe(&stage, &owner, i32::from(n) - i32::from(k), all)?;
    let mut imap = ImapClient::login(&reader.imap, &reader.address.to_string(), &reader.password)?;
    let uids = stubs(&mut imap, all)?;

    let bar = Progress::start("killing peers and opening mails");
    let fresh = |up: &f64| Tried { up: *up, trials, opened: 0, against_the_rule: 0 };
    let mut tried: Vec<Tried> = ups.iter().map(fresh).collect();
    for (draw, number) in drawn(ups, &uids, members.len(), draws).into_iter().zip(1_u32..) {
        set_up(&stage, members, &draw.who)?;
        let held = draw.who.iter().skip(1).filter(|up| **up).count();
        let can_be_had = draw.who.first() == Some(&true) || held >= usize::from(k);
        let had =
            had_within(&mut imap, draw.uid, &mut waiting, if can_be_had { UNTIL_SERVED } else { Duration::ZERO })?;
        tried[draw.at].opened += u32::from(had);
        tried[draw.at].against_the_rule += u32::from(had != can_be_had);
        bar.at(&format!("{number} of {all} mails tried"), percent(number, all));
    }
    Ok(tried)
}

/// A draw for each mail; those with the same peers up follow each other.
fn drawn(ups: &[f64], uids: &[u32], members: usize, draws: &mut Draws) -> Vec<Draw> {
    let each = uids.iter().enumerate().map(|(i, uid)| (i % ups.len(), *uid));
    let mut all: Vec<Draw> = each
        .map(|(at, uid)| Draw { who: draws.who_is_up(Failures::Independent { up: ups[at] }, members), at, uid })
        .collect();
    all.sort_unstable();
    all
}

/// Opens a mail, again and again for `patience`; whether it came.
fn had_within(imap: &mut ImapClient, uid: u32, waiting: &mut Vec<Vec<u8>>, patience: Duration) -> anyhow::Result<bool> {
    let start = Instant::now();
    loop {
        if had(imap, uid, waiting)? {
            return Ok(true);
        }
        if start.elapsed() >= patience {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Opens a mail; whether it came. What came must be one of those that were sent, to the byte, and none before.
fn had(imap: &mut ImapClient, uid: u32, waiting: &mut Vec<Vec<u8>>) -> anyhow::Result<bool> {
    match imap.fetch(uid, "", &mut |_, _| {}) {
        Ok(got) => {
            let place = waiting.iter().position(|sent| letter::is_same(&got, sent));
            waiting.swap_remove(place.context("a mail came that is none of those that were sent")?);
            Ok(true)
        }
        Err(error) if error.is_unavailable() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn percent(done: u32, all: u32) -> Option<u8> {
    u8::try_from(u64::from(done) * 100 / u64::from(all.max(1))).ok()
}

/// A group in which every member but the owner holds a fragment of every mail, and an outside reader. Nobody in it counts as lost
/// before a mail's life is over: what was killed for a draw is not to be repaired meanwhile, however long all draws take.
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
        "[[group]]\nname = \"acme\"\nmembers = [{names}]\n[group.replication]\nlost_after = \"7 d\"\n{replication}\
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

/// Waits until every mail is announced and as safe as it can be. There may be more than fit into one answer of the peer; those
/// that were found to be so are not asked about again.
fn become_safe(stage: &Stage, owner: &ClusterPeer, f: i32, count: u32) -> anyhow::Result<()> {
    let bar = Progress::start("the members pull the mails");
    let start = Instant::now();
    let control = stage.cluster.control_of(&owner.address);
    let is_ready = |line: &&OutboxLine| {
        let announced = line.receivers.values().all(|state| state == "announced");
        announced && line.sealed.iter().all(|sealed| sealed.safe >= f) && !line.sealed.is_empty()
    };
    let (mut ready, mut after) = (0, None);
    loop {
        let page: OutboxPage = control.ask_telling(&Request::OutboxAfter { after, last: None }, &mut |_, _| {})?;
        let found: Vec<&OutboxLine> = page.lines.iter().take_while(is_ready).collect();
        ready += u32::try_from(found.len())?;
        after = found.last().map(|line| (line.at, line.submission)).or(after);
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
    fn every_mail_has_a_draw_of_its_own_and_those_with_the_same_peers_up_follow_each_other() {
        let (ups, uids) = ([0.9, 0.5], (1..=400).collect::<Vec<u32>>());
        let all = drawn(&ups, &uids, 6, &mut Draws::new(5));
        let mut seen: Vec<u32> = all.iter().map(|draw| draw.uid).collect();
        seen.sort_unstable();
        assert_eq!(seen, uids);
        let changes = all.windows(2).filter(|two| two[0].who != two[1].who).count();
        assert!(changes < 64, "{changes}");
        let share = |at: usize| {
            let of_one: Vec<bool> = all.iter().filter(|d| d.at == at).flat_map(|d| d.who.clone()).collect();
            of_one.iter().filter(|up| **up).count() * 100 / of_one.len()
        };
        assert!((87..=93).contains(&share(0)) && (45..=55).contains(&share(1)), "{} {}", share(0), share(1));
    }

    #[test]
    fn all_of_four_are_down_as_often_as_they_should_be() {
        let uids: Vec<u32> = (1..=8000).collect();
        let all = drawn(&[0.7, 0.5], &uids, 4, &mut Draws::new(1));
        let none_up = all.iter().filter(|draw| draw.at == 1 && draw.who.iter().all(|up| !up)).count();
        // A sixteenth of 4000, more or less four standard errors.
        assert!((189..=311).contains(&none_up), "{none_up}");
    }

    #[test]
    fn the_group_is_as_large_as_its_policy_so_that_every_other_member_holds_a_part() {
        for (k, n) in [(3, 5), (1, 3), (3, 9)] {
            let cluster = cluster(KOfN { k, n }).unwrap();
            assert_eq!(cluster.groups[0].members.len(), usize::from(n) + 1);
            assert_eq!(cluster.peers().count(), usize::from(n) + 2);
            let policy = &cluster.groups[0].replication;
            assert!(policy.lost_after >= policy.life, "nothing is repaired while mails are tried");
        }
    }

    #[test]
    fn more_members_than_can_be_started_are_refused_with_the_option_that_asked_for_them() {
        let most = KOfN { k: 1, n: OTHERS_MAX };
        assert!(check("--copies 12", most).is_ok());
        let error = check("--copies 13", KOfN { n: OTHERS_MAX + 1, ..most }).unwrap_err().to_string();
        assert!(error.starts_with("--copies 13 cannot be tried") && error.contains("--trials 0"), "{error}");
    }
}
