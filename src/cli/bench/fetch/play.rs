//! The runs of a bench of fetches: a mail is sent, its sender goes, faults begin, the reader opens it, and what its peer measured
//! becomes a row. Arms take turns, so that whatever else the machine does meets all of them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;

use super::args::{ArmArg, FetchArgs};
use super::group::{Group, Sent};
use super::{Brought, Fault, Row, bound, faults, millis};
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::demo::letter;
use crate::cli::progress::Progress;
use crate::console::protocol::Pulled;
use crate::model::{Address, ByteSize};

/// How much of a mail is here when a dying source is killed, percent.
const MIDWAY: u64 = 40;
/// How often it is looked whether that is so.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Plays all runs; gives a row for each fetch.
pub(super) fn play(args: &FetchArgs, size: ByteSize) -> anyhow::Result<Vec<Row>> {
    let faults = faults(args.fault, args.uplinks.len());
    let mut group = Group::make(args, &faults)?;
    let mut rows = Vec::new();
    for run in 1..=args.runs {
        if args.stopped_sender {
            for cold in [false, true] {
                rows.push(stopped(&mut group, args, (run, size), cold)?);
            }
            continue;
        }
        for arm in args.arms() {
            let row = one(&mut group, args, (arm, run, size), &faults)?;
            group.stage.report.line(&format!(
                "{} run {run}: {:.1} Mbit/s, {:.1} % of the bound",
                arm.name(),
                row.rate_mbit,
                row.percent_of_bound
            ));
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Who is dead from the start, who lies, and who dies midway.
struct Cast {
    dead: Vec<usize>,
    lying: Vec<usize>,
    dying: Vec<usize>,
    /// All whose uplinks do not count.
    faulty: Vec<usize>,
    /// In words.
    fault: String,
}

fn cast(arm: ArmArg, uplinks: &[u64], faults: &[(usize, Fault)]) -> Cast {
    let of = |fault: Fault| faults.iter().filter(|(_, f)| *f == fault).map(|(i, _)| *i).collect::<Vec<usize>>();
    if arm == ArmArg::Single {
        // As in the papers: one source, and nothing to fall back on. The one in the middle of those without a fault.
        let mut good: Vec<usize> = (0..uplinks.len()).filter(|i| faults.iter().all(|(bad, _)| bad != i)).collect();
        good.sort_by_key(|i| (uplinks.get(*i).copied(), *i));
        let only = good.get(good.len() / 2).copied();
        let others: Vec<usize> = (0..uplinks.len()).filter(|i| Some(*i) != only).collect();
        let (lying, dying) = (Vec::new(), Vec::new());
        return Cast { dead: others.clone(), lying, dying, faulty: others, fault: "none".to_owned() };
    }
    let names: Vec<&str> = faults.iter().map(|(_, f)| f.name()).collect();
    let fault = if names.is_empty() { "none".to_owned() } else { names.join("+") };
    let faulty = faults.iter().map(|(i, _)| *i).collect();
    Cast { dead: of(Fault::Dead), lying: of(Fault::Lying), dying: of(Fault::Dying), faulty, fault }
}

fn pick(members: &[Address], which: &[usize]) -> Vec<Address> {
    which.iter().filter_map(|i| members.get(*i).cloned()).collect()
}

/// One fetch of one arm.
fn one(
    group: &mut Group,
    args: &FetchArgs,
    (arm, run, size): (ArmArg, u32, ByteSize),
    faults: &[(usize, Fault)],
) -> anyhow::Result<Row> {
    let bar = Progress::start(&format!("{} run {run}: sending", arm.name()));
    group.prepare(arm)?;
    let mut imap = group.imap()?;
    let sent = group.send(&mut imap, size)?;
    let cast = cast(arm, &args.uplinks, faults);
    let mut gone = pick(&group.members, &cast.dead);
    gone.push(group.sender.address.clone());
    group.kill(&gone)?;
    for liar in pick(&group.members, &cast.lying) {
        group.corrupt(&liar, &sent.sealed.h)?;
    }
    bar.at(&format!("{} run {run}: fetching", arm.name()), None);
    let dying = pick(&group.members, &cast.dying);
    let before = group.reader_cpu();
    let opened_ms = open(group, &mut imap, &sent, &dying)?;
    let cpu_s = before.zip(group.reader_cpu()).map(|(before, after)| hundredths(after - before));
    let pull = group.pulled(&sent.sealed.h)?;
    drop(bar);
    let bound = bound(arm, &args.uplinks, &cast.faulty, args.policy.0.k);
    Ok(Row { cpu_s, opened_ms, ..row(group, args, &sent, &pull, (arm, run, cast.fault, bound))? })
}

/// Opens the mail as a mail program does, and compares it; meanwhile kills those that are to die when it is half here. Gives how
/// many milliseconds the mail program waited for all of it.
fn open(group: &Group, imap: &mut ImapClient, sent: &Sent, dying: &[Address]) -> anyhow::Result<u64> {
    let over = std::sync::atomic::AtomicBool::new(false);
    let opened = Instant::now();
    let mut took = Duration::ZERO;
    let got = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let start = Instant::now();
            while !dying.is_empty() && start.elapsed() < PATIENCE && !over.load(std::sync::atomic::Ordering::SeqCst) {
                if group.percent(&sent.sealed.h).is_some_and(|percent| percent >= MIDWAY) {
                    return group.kill(dying).map(|()| true);
                }
                std::thread::sleep(LOOK);
            }
            Ok(false)
        });
        let got = imap.fetch(sent.uid, "", &mut |_, _| {});
        took = opened.elapsed();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let killed = killer.join().map_err(|_| anyhow::anyhow!("the thread that kills sources ended"))??;
        ensure!(
            killed || dying.is_empty(),
            "the fetch was over before a source could be killed midway; use a larger --size"
        );
        Ok(got?)
    })?;
    ensure!(letter::is_same(&got, &sent.mail), "WHAT WAS FETCHED IS NOT WHAT WAS SENT");
    Ok(u64::try_from(took.as_millis())?)
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn row(
    group: &Group,
    args: &FetchArgs,
    sent: &Sent,
    pull: &Pulled,
    (arm, run, fault, bound_mbit): (ArmArg, u32, String, f64),
) -> anyhow::Result<Row> {
    let last = pull.last_block_ms.context("the reader's peer does not say when the last block was here")?;
    let first_block_ms = pull.first_block_ms.context("the reader's peer does not say when the first block was here")?;
    let seconds = millis(last.max(1)) / 1000.0;
    let megabits = millis(sent.sealed.length.div_ceil(1000)) * 8.0 / 1000.0;
    let uplink = |address: &str| {
        let at = group.members.iter().position(|member| member.to_string() == address)?;
        args.uplinks.get(at).copied()
    };
    let brought = |source: &crate::console::protocol::Source| Brought {
        address: source.address.clone(),
        uplink_mbit: uplink(&source.address),
        bytes: source.bytes,
        bad_blocks: source.bad_blocks,
    };
    let rate_mbit = megabits / seconds;
    Ok(Row {
        arm,
        run,
        uplinks: args.uplinks.clone(),
        fault,
        bytes: sent.sealed.length,
        seconds,
        rate_mbit: hundredths(rate_mbit),
        bound_mbit: hundredths(bound_mbit),
        percent_of_bound: hundredths(rate_mbit / bound_mbit * 100.0),
        first_block_ms,
        opened_ms: 0,
        cpu_s: None,
        sources: pull.sources.iter().map(brought).collect(),
    })
}

/// One fetch while the sender accepts and never answers.
fn stopped(group: &mut Group, args: &FetchArgs, (run, size): (u32, ByteSize), cold: bool) -> anyhow::Result<Row> {
    let arm = ArmArg::Fragments;
    group.prepare(arm)?;
    let mut imap = group.imap()?;
    let sent = group.send(&mut imap, size)?;
    group.stop_sender()?;
    let opened = || -> anyhow::Result<(u64, Pulled)> {
        if cold {
            group.forget()?;
            imap = group.imap()?;
            imap.select("INBOX")?;
        }
        let opened_ms = open(group, &mut imap, &sent, &[])?;
        Ok((opened_ms, group.pulled(&sent.sealed.h)?))
    };
    let opened = { opened }();
    // Whatever came of it, the sender goes on.
    group.continue_sender()?;
    let fault = if cold { "stopped sender, cold" } else { "stopped sender" };
    let bound = bound(arm, &args.uplinks, &[], args.policy.0.k);
    let (opened_ms, pull) = opened?;
    Ok(Row { opened_ms, ..row(group, args, &sent, &pull, (arm, run, fault.to_owned(), bound))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_is_the_middle_one_of_those_without_a_fault() {
        let single = cast(ArmArg::Single, &[5, 10, 20, 40, 80], &[(2, Fault::Slow)]);
        assert_eq!((single.dead, single.fault), (vec![0, 1, 2, 4], "none".to_owned()));
        let all = [(0, Fault::Dead), (1, Fault::Dying), (2, Fault::Slow), (3, Fault::Lying)];
        let ranged = cast(ArmArg::Ranged, &[20; 9], &all);
        assert_eq!((ranged.dead, ranged.dying, ranged.lying), (vec![0], vec![1], vec![3]));
        assert_eq!((ranged.faulty, ranged.fault.as_str()), (vec![0, 1, 2, 3], "dead+dying+slow+lying"));
    }
}
