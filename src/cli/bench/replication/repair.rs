//! Repair: mails wait, one member that holds parts of them is killed and counted as lost, and it is measured what the others move
//! until everything is as safe as before, whether they rest then, and what moves when it comes back. Once while the sender is there,
//! and once while it is off, when parts are rebuilt from members alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;

use super::args::ReplicationArgs;
use super::arms::Arm;
use super::group::{Group, Sent};
use super::measure::{part_bytes, parts_to_rebuild, real};
use super::rows::{Repair, Row, thousandths};
use crate::cli::progress::Progress;
use crate::model::{Address, Encoding, MailId, Part};

/// Repairs of every arm.
pub(super) fn repairs(group: &mut Group, args: &ReplicationArgs, arms: &[Arm]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if args.repair_mails == 0 {
        return Ok(rows);
    }
    for _ in 0..args.runs {
        for arm in arms {
            rows.extend(of_arm(group, args, arm)?);
        }
    }
    Ok(rows)
}

/// Sends mails, loses a member, gets it back, loses the sender and a member, and has the mails read.
fn of_arm(group: &mut Group, args: &ReplicationArgs, arm: &Arm) -> anyhow::Result<Vec<Row>> {
    let bar = Progress::start(&format!("{}: mails for a repair", arm.name()));
    group.prepare(arm, Some(args.lost_after))?;
    all_heard(group, args)?;
    let (mut imap, first) = group.reader()?;
    let mut sent: Vec<Sent> = Vec::new();
    for _ in 0..args.repair_mails {
        let mail = group.letter(args.repair_size)?;
        sent.push(group.send(arm, mail)?);
    }
    group.stubs(&mut imap, first, &sent)?;
    let spare = usize::from(args.members).saturating_sub(1 + arm.places(u64::MAX));
    ensure!(spare > 0, "{} needs a spare member for a repair: raise --members", arm.name());
    bar.at(&format!("{}: repair from the sender", arm.name()), None);
    let mut repairs = vec![lose_one(group, args, arm, &sent)?];
    if !args.only_with_sender {
        let sender = group.sender.address.clone();
        group.stage.cluster.kill(std::slice::from_ref(&sender))?;
        let witness = group.running()?.into_iter().next().context("no member runs")?;
        wait_lost(group, &witness, &sender, true)?;
        bar.at(&format!("{}: repair while the sender is off", arm.name()), None);
        repairs.push(lose_one(group, args, arm, &sent)?);
    }
    bar.at(&format!("{}: opening the mails", arm.name()), None);
    group.read(&mut imap, first, &sent)?;
    let sender = group.sender.address.clone();
    group.stage.cluster.start(std::slice::from_ref(&sender))?;
    Ok(repairs.into_iter().flat_map(|repair| rows(args, arm, &sent, repair)).collect())
}

fn rows(args: &ReplicationArgs, arm: &Arm, sent: &[Sent], repair: Repair) -> Vec<Row> {
    let mails = u64::try_from(sent.len()).unwrap_or(u64::MAX);
    let row = |comparison: &_| Row {
        what: "repair",
        arm: arm.name(),
        comparison: *comparison,
        size: Some(args.repair_size.bytes()),
        mails,
        sealed_bytes: sent.iter().map(|sent| sent.sealed.length).sum(),
        verified_mails: mails,
        kept: None,
        repair: Some(repair),
    };
    arm.comparisons().iter().map(row).collect()
}

/// A group that was told to beat faster has to be heard at the new pace before anybody's silence means something.
fn all_heard(group: &Group, args: &ReplicationArgs) -> anyhow::Result<()> {
    let soon = (args.lost_after.duration() / 2).as_secs().max(1);
    group.wait("every member is heard", 0, || {
        let seen = group.group_seen_by(&group.sender.address)?;
        let others = seen.members.iter().filter(|member| member.address != group.sender.address);
        let heard = others.fold(true, |all, m| all && !m.lost && m.silent_s.is_some_and(|silent| silent <= soon));
        Ok(heard.then_some(()))
    })
}

/// Waits until a member sees another one called lost, or not any more.
fn wait_lost(group: &Group, witness: &Address, who: &Address, lost: bool) -> anyhow::Result<()> {
    let what = if lost { "counts as lost" } else { "is back" };
    group.wait(&format!("{who} {what}"), 0, || {
        let seen = group.group_seen_by(witness)?;
        Ok(seen.members.iter().any(|member| member.address == *who && member.lost == lost).then_some(()))
    })
}

/// The parts of each mail on the disks of those that run.
fn held(group: &Group, sent: &[Sent]) -> anyhow::Result<BTreeMap<MailId, Vec<Part>>> {
    let mut held: BTreeMap<MailId, Vec<Part>> = sent.iter().map(|sent| (sent.sealed.h, Vec::new())).collect();
    for member in group.running()? {
        for (h, part) in group.parts_at(&member)? {
            held.entry(h).or_default().push(part);
        }
    }
    Ok(held)
}

/// Whether every mail has all the parts that its arm names, and no more where none may be left over.
fn complete(arm: &Arm, sent: &[Sent], held: &BTreeMap<MailId, Vec<Part>>, none_over: bool) -> bool {
    sent.iter().all(|sent| {
        let parts = held.get(&sent.sealed.h).map(Vec::as_slice).unwrap_or_default();
        let places = arm.places(sent.sealed.length);
        let distinct = match arm.encoding(sent.sealed.length) {
            Encoding::Whole => parts.len(),
            Encoding::Fragments { .. } => parts.iter().collect::<BTreeSet<_>>().len(),
        };
        distinct >= places && !(none_over && parts.len() > places)
    })
}

/// Kills the member that holds the most, waits until everything is repaired, watches whether the group rests, and gets it back.
fn lose_one(group: &Group, args: &ReplicationArgs, arm: &Arm, sent: &[Sent]) -> anyhow::Result<Repair> {
    let running = group.stage.cluster.who_runs()?;
    let from_sender = running.contains(&group.sender.address);
    let mut victims: Vec<(BTreeSet<(MailId, Part)>, Address)> = Vec::new();
    for member in group.running()? {
        victims.push((group.parts_at(&member)?, member));
    }
    let (lost, victim) = victims.into_iter().max_by_key(|(parts, _)| parts.len()).context("no member runs")?;
    let others = group.running()?.into_iter().find(|member| *member != victim).context("no member is left")?;
    let witness = if from_sender { group.sender.address.clone() } else { others };
    let length = |h: &MailId| sent.iter().find(|sent| sent.sealed.h == *h).map_or(0, |sent| sent.sealed.length);
    let read = |part: Part| if from_sender { 1 } else { parts_to_rebuild(part) };
    let must_move: u64 = lost.iter().map(|(h, part)| part_bytes(length(h), *part) * read(*part)).sum();
    ensure!(must_move > 0, "nobody holds a part: give more --repair-mails");

    let before = group.begin()?;
    group.stage.cluster.kill(std::slice::from_ref(&victim))?;
    let killed = Instant::now();
    wait_lost(group, &witness, &victim, true)?;
    let (detect_seconds, called) = (killed.elapsed(), Instant::now());
    group.wait("what was lost is repaired", must_move, || {
        let safe = !from_sender || is_safe(group, arm)?;
        Ok((safe && complete(arm, sent, &held(group, sent)?, false)).then_some(()))
    })?;
    let repair_seconds = called.elapsed();
    let done = group.done_since(&before)?;

    let quiet = group.begin()?;
    std::thread::sleep(Duration::from_secs(args.quiet.into()));
    let rested = group.done_since(&quiet)?;
    // What the heartbeats of this `lost_after` cost without a repair.
    let idle_cpu = rested.cpu / rested.seconds * done.seconds;
    let quiet_bytes = group.done_since(&before)?.served.saturating_sub(done.served);
    let peers = group.stage.cluster.who_runs()?.len();

    let came_back = group.begin()?;
    group.stage.cluster.start(std::slice::from_ref(&victim))?;
    wait_lost(group, &witness, &victim, false)?;
    let surplus = "nothing is left over after a member came back";
    group.wait(surplus, must_move, || Ok(complete(arm, sent, &held(group, sent)?, true).then_some(())))?;
    let packets = real(rested.loopback.packets) / real(u64::try_from(peers)?) / rested.seconds * 60.0;
    Ok(Repair {
        repaired_from: if from_sender { "sender" } else { "members" },
        members: u64::from(args.members),
        lost_parts: u64::try_from(lost.len())?,
        must_move_bytes: must_move,
        repair_bytes: done.served,
        repair_ratio: thousandths(real(done.served) / real(must_move)),
        detect_seconds: thousandths(detect_seconds.as_secs_f64()),
        repair_seconds: thousandths(repair_seconds.as_secs_f64()),
        cpu_s: thousandths((done.cpu - idle_cpu).max(0.0)),
        quiet_seconds: thousandths(rested.seconds),
        quiet_bytes,
        quiet_written_bytes: rested.written,
        quiet_packets_per_peer_minute: thousandths(packets),
        return_bytes: group.done_since(&came_back)?.served,
    })
}

/// Whether the sender counts all of its mails as safe as their arm makes them.
fn is_safe(group: &Group, arm: &Arm) -> anyhow::Result<bool> {
    let lines = group.outbox()?;
    Ok(lines.iter().flat_map(|line| &line.sealed).all(|sealed| sealed.safe >= arm.safe(sealed.length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::protocol::SealedLine;

    #[test]
    fn a_mail_is_complete_with_as_many_copies_as_its_arm_names() {
        let arm = super::super::arms::tests_arm();
        let h = MailId::new([1; 20]);
        let sealed = SealedLine {
            h,
            length: 10,
            encoding: "whole".to_owned(),
            safe: 2,
            holders: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        let sent = [Sent { mail: Vec::new(), sealed, seconds_to_safe: 0.0 }];
        let holding = |copies| BTreeMap::from([(h, vec![Part::Whole; copies])]);
        assert!(!complete(&arm, &sent, &holding(2), false) && complete(&arm, &sent, &holding(3), true));
        assert!(complete(&arm, &sent, &holding(4), false) && !complete(&arm, &sent, &holding(4), true));
    }
}
