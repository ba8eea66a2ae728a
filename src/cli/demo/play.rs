//! The demo's acts, in order: submit, become safe, kill, open, compare. Each looks at the peers from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::imap_client::ImapClient;
use super::smtp_client::SmtpClient;
use super::stage::Stage;
use super::{DemoReport, Kept, Seconds, Stored, letter, measure};
use crate::cli::args::DemoArgs;
use crate::cli::cluster::ClusterPeer;
use crate::cli::output::{self, WrongUse};
use crate::cli::progress::Progress;
use crate::console::protocol::{GroupStatus, OutboxLine, PeerStatus, Request, SealedLine, Source};
use crate::model::{Address, Encoding, Mode, Policy, SubmissionId};
use crate::store::home::Home;
use crate::store::manifests;

/// How often the peers are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for safe(f) and for the stub, besides a second for each MiB.
const PATIENCE: Duration = Duration::from_secs(60);

/// The sender, the reader and the group's policy.
struct Cast {
    sender: ClusterPeer,
    reader: ClusterPeer,
    members: Vec<Address>,
    policy: Policy,
}

/// Plays it all.
pub(super) fn play(stage: &Stage, args: &DemoArgs, own: Option<Vec<u8>>) -> anyhow::Result<DemoReport> {
    let start = Instant::now();
    stage.cluster.up(&stage.file)?;
    let cast = cast(stage)?;
    stage.report.line(&format!(
        "{} peers run: the group {} and the reader {} ({})",
        stage.file.peers().count(),
        cast.sender.group,
        cast.reader.address,
        output::seconds(start.elapsed())
    ));
    let (from, to) = (&cast.sender.address, &cast.reader.address);
    let mail = match own {
        Some(mail) => mail,
        None => letter::made(&cast.sender.home, from, to, args.size)?,
    };
    let mut reader = ImapClient::login(&cast.reader.imap, &to.to_string(), &cast.reader.password)?;
    let first_uid = reader.select("INBOX")?.uid_next;

    let mut seconds = Seconds::default();
    let before = submissions(stage, &cast)?;
    let taken = submit(stage, &cast, &mail, &mut seconds)?;
    let line = become_safe(stage, &cast, &before, (&mut reader, first_uid, taken), (&mail, &mut seconds))?;
    let sealed = line.sealed.first().context("the mail is announced, but not sealed; see `roost outbox`")?;
    let killed = kill(stage, &cast, sealed, args.kill)?;
    let uid = stub(&mut reader, first_uid, taken, &mut seconds)?;
    let (got, sources) = open(stage, &cast, &mut reader, uid, (sealed, &mut seconds))?;
    Ok(DemoReport {
        mail_bytes: length(&mail),
        sealed_bytes: sealed.length,
        identical: letter::is_same(&got, &mail),
        policy: kept(&cast, sealed),
        safe: sealed.safe,
        killed,
        sources,
        seconds,
        stored_bytes: stored(stage, &cast, sealed),
        stored_bytes_if_full: if_full(stage, &cast, sealed),
        running: None,
    })
}

fn cast(stage: &Stage) -> anyhow::Result<Cast> {
    let group = stage.file.groups.first().context("the demo has no group")?;
    let address = |name: &crate::model::LocalName| Address::new(name.clone(), group.name.clone());
    let members: Vec<Address> = group.members.iter().map(address).collect();
    let sender = members.first().context("the demo's group is empty")?;
    let reader = stage.file.peers().map(|(address, _)| address).last().context("the demo has no reader")?;
    // Not the file's: the policy in force is what the group agreed on.
    let known: GroupStatus = stage.cluster.control_of(sender).ask_telling(&Request::GroupStatus, &mut |_, _| {})?;
    Ok(Cast {
        sender: stage.peer(&sender.to_string())?,
        reader: stage.peer(&reader.to_string())?,
        policy: known.policy,
        members,
    })
}

fn length(mail: &[u8]) -> u64 {
    u64::try_from(mail.len()).unwrap_or(u64::MAX)
}

/// Seconds with milliseconds: more would only look exact.
fn rounded(span: Duration) -> f64 {
    (span.as_secs_f64() * 1000.0).round() / 1000.0
}

fn outbox(stage: &Stage, cast: &Cast) -> anyhow::Result<Vec<OutboxLine>> {
    Ok(stage.cluster.control_of(&cast.sender.address).ask_telling(&Request::Outbox, &mut |_, _| {})?)
}

fn submissions(stage: &Stage, cast: &Cast) -> anyhow::Result<BTreeSet<SubmissionId>> {
    Ok(outbox(stage, cast)?.into_iter().map(|line| line.submission).collect())
}

/// Submits the mail; gives the moment of the 250.
fn submit(stage: &Stage, cast: &Cast, mail: &[u8], seconds: &mut Seconds) -> anyhow::Result<Instant> {
    let bar = Progress::start("submitting");
    let start = Instant::now();
    let login = cast.sender.address.to_string();
    let mut smtp = SmtpClient::login(&cast.sender.smtp, &login, &cast.sender.password)?;
    smtp.submit(&cast.sender.address, std::slice::from_ref(&cast.reader.address), mail)?;
    let taken = Instant::now();
    seconds.submit = rounded(taken - start);
    drop(bar);
    stage.report.line(&format!(
        "{} submits {} by SMTP for {} ({})",
        cast.sender.address,
        output::size(length(mail)),
        cast.reader.address,
        output::seconds(taken - start)
    ));
    Ok(taken)
}

/// Waits until the mail is announced and as safe as the policy promises.
fn become_safe(
    stage: &Stage,
    cast: &Cast,
    before: &BTreeSet<SubmissionId>,
    (reader, first_uid, taken): (&mut ImapClient, u32, Instant),
    (mail, seconds): (&[u8], &mut Seconds),
) -> anyhow::Result<OutboxLine> {
    let bar = Progress::start("sealing");
    let patience = PATIENCE + Duration::from_secs(length(mail) >> 20);
    loop {
        let line = outbox(stage, cast)?.into_iter().find(|line| !before.contains(&line.submission));
        if seconds.stub == 0.0 && !new_mail(reader, first_uid)?.is_empty() {
            seconds.stub = rounded(taken.elapsed());
        }
        if let Some(line) = &line
            && let Some(sealed) = line.sealed.first()
        {
            let (Kept { n, .. }, f) = (kept(cast, sealed), promised(cast, sealed));
            let have = sealed.holders.len();
            bar.at(&format!("{have} of {n} members hold it"), u8::try_from(have * 100 / usize::from(n.max(1))).ok());
            if sealed.safe >= f && line.receivers.values().all(|state| state == "announced") {
                seconds.safe = rounded(taken.elapsed());
                drop(bar);
                stage.report.line(&format!(
                    "sealed to {}, mirrored as {}: safe({}), so {} and {} members more may go ({})",
                    output::size(sealed.length),
                    sealed.encoding,
                    sealed.safe,
                    cast.sender.address,
                    sealed.safe,
                    output::seconds(taken.elapsed())
                ));
                return Ok(line.clone());
            }
        }
        if taken.elapsed() > patience {
            let how = line.map_or_else(|| "it is not in the outbox".to_owned(), |line| format!("{line:?}"));
            bail!("the mail is not safe after {} s: {how}", patience.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// How a sealed mail is kept.
fn kept(cast: &Cast, sealed: &SealedLine) -> Kept {
    match encoding(sealed) {
        Encoding::Whole => {
            let copies = cast.policy.whole_copies(cast.members.len() - 1);
            Kept { mode: Mode::Full, k: 1, n: u8::try_from(copies).unwrap_or(u8::MAX) }
        }
        Encoding::Fragments { k, n } => Kept { mode: Mode::Fragments, k, n },
    }
}

/// As the sender's peer says it was encoded: `whole` or `fragments k of n`.
pub(in crate::cli) fn encoding(sealed: &SealedLine) -> Encoding {
    let numbers = sealed.encoding.strip_prefix("fragments ").and_then(|rest| rest.split_once(" of "));
    let numbers = numbers.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    numbers.map_or(Encoding::Whole, |(k, n)| Encoding::Fragments { k, n })
}

/// safe(f) that the policy promises for it.
fn promised(cast: &Cast, sealed: &SealedLine) -> i32 {
    let Kept { k, n, .. } = kept(cast, sealed);
    i32::from(n) - i32::from(k)
}

/// Kills the sender, and `count` members that hold the mail: those that hold its first parts, so that the others must really
/// be decoded.
fn kill(stage: &Stage, cast: &Cast, sealed: &SealedLine, count: Option<u8>) -> anyhow::Result<Vec<Address>> {
    let count = count.map_or_else(|| usize::try_from(promised(cast, sealed)).unwrap_or_default(), usize::from);
    let mut holders: Vec<(&String, &Address)> = sealed.holders.iter().map(|(address, part)| (part, address)).collect();
    holders.sort();
    if count > holders.len() {
        let why = format!("--kill {count}: only {} members hold the mail", holders.len());
        return Err(WrongUse { why }.into());
    }
    let mut victims = vec![cast.sender.address.clone()];
    victims.extend(holders.into_iter().take(count).map(|(_, address)| address.clone()));
    let killed = stage.cluster.kill(&victims)?;
    if killed != victims {
        bail!("somebody died before: killed {killed:?}, wanted {victims:?}");
    }
    let names: Vec<String> = killed.iter().map(Address::to_string).collect();
    stage.report.line(&format!("killed with SIGKILL: {}", names.join(", ")));
    Ok(killed)
}

fn new_mail(reader: &mut ImapClient, first_uid: u32) -> anyhow::Result<Vec<u32>> {
    // A server tells of new messages when it is asked for nothing (RFC 3501, 6.1.2).
    reader.command("NOOP")?;
    Ok(reader.uids_from(first_uid)?)
}

/// Waits until the reader's mailbox shows the mail.
fn stub(reader: &mut ImapClient, first_uid: u32, taken: Instant, seconds: &mut Seconds) -> anyhow::Result<u32> {
    let start = Instant::now();
    loop {
        if let Some(uid) = new_mail(reader, first_uid)?.first() {
            if seconds.stub == 0.0 {
                seconds.stub = rounded(taken.elapsed());
            }
            return Ok(*uid);
        }
        if start.elapsed() > PATIENCE {
            bail!("the reader's mailbox does not show the mail after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// Opens the mail as a mail program does; gives its bytes, and what came from whom.
fn open(
    stage: &Stage,
    cast: &Cast,
    reader: &mut ImapClient,
    uid: u32,
    (sealed, seconds): (&SealedLine, &mut Seconds),
) -> anyhow::Result<(Vec<u8>, Vec<Source>)> {
    let bar = Progress::start("opening it over IMAP");
    let start = Instant::now();
    let got = reader.fetch(uid, "", &mut |text, percent| bar.at(text, percent))?;
    let took = start.elapsed();
    seconds.fetch = rounded(took);
    drop(bar);
    stage.report.line(&format!(
        "{} opens it over IMAP: {} ({})",
        cast.reader.address,
        output::size(length(&got)),
        output::seconds(took)
    ));
    let control = stage.cluster.control_of(&cast.reader.address);
    let status: PeerStatus = control.ask_telling(&Request::Status, &mut |_, _| {})?;
    let pull = status.pulls.into_iter().rev().find(|pull| pull.h == sealed.h);
    // Those who were asked and gave nothing, the dead among them, are no sources.
    let gave = |source: &Source| source.bytes > 0 || source.bad_blocks > 0;
    Ok((got, pull.map(|pull| pull.sources).unwrap_or_default().into_iter().filter(gave).collect()))
}

fn stored(stage: &Stage, cast: &Cast, sealed: &SealedLine) -> Stored {
    let home = |address: &Address| Home::at(stage.cluster.home_of(address));
    let owner = measure::bytes_of(&home(&cast.sender.address).outbox_dir(), &sealed.h);
    let mirrors = cast.members.iter().map(|member| measure::bytes_of(&home(member).mirror_dir(), &sealed.h));
    Stored { owner, members: mirrors.sum() }
}

/// The owner's files, and the sealed mail with its manifest at as many members as must be there to lose as many as may fail.
fn if_full(stage: &Stage, cast: &Cast, sealed: &SealedLine) -> u64 {
    let owner = Home::at(stage.cluster.home_of(&cast.sender.address));
    let manifest = manifests::open(&owner.outbox_manifest(&sealed.h)).map_or(0, |(_, length)| length);
    let copies = u64::try_from(promised(cast, sealed) + 1).unwrap_or_default();
    stored(stage, cast, sealed).owner.saturating_add(copies.saturating_mul(sealed.length + manifest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MailId;

    #[test]
    fn how_a_mail_is_kept_is_what_its_sender_says() {
        let sealed = |encoding: &str| SealedLine {
            h: MailId::new([7; 20]),
            length: 1,
            encoding: encoding.to_owned(),
            safe: 0,
            holders: std::collections::BTreeMap::new(),
            refused: std::collections::BTreeMap::new(),
        };
        assert_eq!(encoding(&sealed("fragments 2 of 4")), Encoding::Fragments { k: 2, n: 4 });
        assert_eq!(encoding(&sealed("whole")), Encoding::Whole);
    }
}
