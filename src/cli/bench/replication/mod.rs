//! `roost bench replication`: what full copies and fragments cost a group of real peers, at equal storage and at equal losses
//! survived: bytes stored and moved, time to safe, processor time by mail size, and repair. It judges no arm but by those figures.

pub(super) mod args;
mod arms;
mod group;
mod lines;
pub(super) mod measure;
mod play;
mod repair;
mod rows;
mod shown;

use anyhow::Context as _;
use serde::Serialize;

use super::report::Report;
use crate::cli::output::{Shown, WrongUse};
use crate::model::ByteSize;
use args::ReplicationArgs;
use arms::Comparison;
use group::Group;
use lines::Lines;
use rows::{Idle, Row};

/// Most sizes.
const SIZES_MAX: usize = 32;
/// Largest attachment.
const SIZE_MAX: ByteSize = ByteSize::mib(512);
/// Most bytes of mails that wait for a repair: they are kept in memory to be compared.
const REPAIR_MAX: ByteSize = ByteSize::gib(1);

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Parameters {
    sizes_bytes: Vec<u64>,
    turns: u32,
    mix_mails: u32,
    seed: u64,
    runs: u32,
    k: u8,
    n: u8,
    copies: u8,
    members: u8,
    arms: Vec<String>,
    left_out: Vec<String>,
    uplink_mbit: Option<u64>,
    repair_mails: u32,
    repair_size_bytes: u64,
    lost_after_ms: u64,
    idle_cpu_s_per_s: f64,
}

/// Does what was asked.
pub(super) fn run(args: &ReplicationArgs) -> anyhow::Result<Shown> {
    let (arms, left_out) = arms::arms(args)?;
    check(args, &arms)?;
    let first = arms.first().context("there is no arm")?;
    let mut group = Group::make(args, first)?;
    let mut idle = Idle::default();
    let mut rows = Vec::new();
    if args.mails > 0 {
        rows.extend(play::sizes(&mut group, args, &arms, &mut idle)?);
    }
    rows.extend(play::mixed(&mut group, args, &arms, &mut idle)?);
    rows.extend(repair::repairs(&mut group, args, &arms)?);
    drop(group);
    let both = [Comparison::EqualStorage, Comparison::EqualLosses];
    let lines: Vec<(Comparison, Lines)> =
        both.into_iter().filter_map(|comparison| Some((comparison, lines::lines(&rows, comparison)?))).collect();
    let text = shown::text(&rows, &lines, &left_out);
    let parameters = Parameters {
        sizes_bytes: args.sizes.iter().map(|size| size.bytes()).collect(),
        turns: args.mails,
        mix_mails: args.mix,
        seed: args.seed,
        runs: args.runs,
        k: args.policy.0.k,
        n: args.policy.0.n,
        copies: arms::copies(args),
        members: args.members,
        arms: arms.iter().map(arms::Arm::name).collect(),
        left_out,
        uplink_mbit: args.uplink,
        repair_mails: args.repair_mails,
        repair_size_bytes: args.repair_size.bytes(),
        lost_after_ms: u64::try_from(args.lost_after.duration().as_millis()).unwrap_or(u64::MAX),
        idle_cpu_s_per_s: rows::thousandths(idle.cpu_in(1.0)),
    };
    report(args, parameters, rows, &lines)?.shown(&text)
}

fn report(
    args: &ReplicationArgs,
    parameters: Parameters,
    rows: Vec<Row>,
    lines: &[(Comparison, Lines)],
) -> anyhow::Result<Report<Parameters, Row>> {
    let (charts, bars) = (shown::charts(&rows), shown::bars(&rows));
    let mut report = Report::new("replication", parameters, rows);
    let mut by_comparison = serde_json::Map::new();
    for (comparison, lines) in lines {
        let name = serde_json::to_value(comparison)?;
        by_comparison.insert(name.as_str().unwrap_or_default().to_owned(), serde_json::to_value(lines)?);
    }
    report.findings.insert("whole_copies_win_below_bytes".to_owned(), by_comparison.into());
    let folder = args.plots.plots.as_deref();
    report.plot(folder, &charts)?;
    if let Some(bars) = bars {
        report.plot_svg(folder, "repair", super::bars::svg(&bars)?)?;
    }
    Ok(report)
}

/// Looks whether what was asked can be, before any peer is made.
fn check(args: &ReplicationArgs, arms: &[arms::Arm]) -> anyhow::Result<()> {
    let wrong = |why: String| Err(WrongUse { why }.into());
    if args.sizes.len() > SIZES_MAX || args.sizes.iter().any(|size| *size > SIZE_MAX) {
        return wrong(format!("--sizes takes at most {SIZES_MAX} sizes, of at most {SIZE_MAX} each"));
    }
    if args.mails == 0 && args.mix == 0 && args.repair_mails == 0 {
        return wrong("--mails, --mix and --repair-mails are all 0: nothing would be measured".to_owned());
    }
    let waiting = args.repair_size.bytes().saturating_mul(args.repair_mails.into());
    if waiting > REPAIR_MAX.bytes() {
        return wrong(format!("--repair-mails of --repair-size are more than {REPAIR_MAX}: use fewer or smaller ones"));
    }
    let least = std::time::Duration::from_secs(3);
    if args.repair_mails > 0 && args.lost_after.duration() < least {
        return wrong("--lost-after is below 3 s: a member that is merely busy would count as lost".to_owned());
    }
    let without_spare = arms.iter().find(|arm| args.repair_mails > 0 && arm.others() + 1 >= args.members);
    if let Some(arm) = without_spare {
        let (name, members) = (arm.name(), arm.others() + 2);
        return wrong(format!(
            "{name} has no spare member in a group of {}: --members {members}, or --repair-mails 0",
            args.members
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ReplicationArgs,
    }

    fn checked(words: &[&str]) -> anyhow::Result<()> {
        let args = Typed::try_parse_from([&["bench"], words].concat())?.args;
        check(&args, &arms::arms(&args)?.0)
    }

    #[test]
    fn what_cannot_be_is_refused_before_a_peer_is_made() {
        assert!(checked(&[]).is_ok() && checked(&["--members", "8", "--mails", "0"]).is_ok());
        for wrong in [
            vec!["--mails", "0", "--repair-mails", "0"],
            vec!["--sizes", "1GiB"],
            vec!["--repair-mails", "600", "--repair-size", "2MiB"],
            vec!["--lost-after", "1 s"],
            vec!["--members", "10"],
        ] {
            assert!(checked(&wrong).unwrap_err().is::<WrongUse>(), "{wrong:?}");
        }
    }
}
