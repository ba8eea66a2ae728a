//! `roost bench fetch`: how fast a mail comes from real peers behind limited uplinks, beside the bound of what they can bring: from
//! one whole copy, from whole copies by Range, and from fragments; with the sender off, and with faults.

pub(super) mod args;
mod group;
mod play;

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use super::bars::{self, Bar, Bars};
use super::plot::{Axis, Chart, Line};
use super::report::{Report, median, table};
use crate::cli::output::{Shown, WrongUse, size};
use crate::core::fetch::bound_of_fragments;
use crate::model::ByteSize;
use args::{ArmArg, FaultArg, FetchArgs};

/// Length of the attachment when none is asked for.
const SIZE: ByteSize = ByteSize::mib(64);
/// The same where only the first block counts.
const SIZE_STOPPED: ByteSize = ByteSize::mib(1);
/// Sources that four faults at once need: four with a fault, and five more, so that any policy has something to choose from.
const SOURCES_FOR_ALL: usize = 9;

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Parameters {
    uplinks_mbit: Vec<u64>,
    attachment_bytes: u64,
    k: u8,
    n: u8,
    fault: FaultArg,
    runs: u32,
    stopped_sender: bool,
}

/// One fetch.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    /// How the mail was kept and pulled.
    arm: ArmArg,
    /// Which run.
    run: u32,
    /// The members' uplinks, Mbit/s. The sender is off.
    uplinks: Vec<u64>,
    /// What was wrong with whom.
    fault: String,
    /// Length of the sealed mail.
    bytes: u64,
    /// From the first request to the last verified block, as the reader's peer measured it.
    seconds: f64,
    /// `bytes` over `seconds`.
    rate_mbit: f64,
    /// The most that sources without a fault can bring.
    bound_mbit: f64,
    /// The one over the other.
    percent_of_bound: f64,
    /// From the first request to the first verified block.
    first_block_ms: u64,
    /// From the mail program's FETCH to the last byte of the mail that it got: all of the above is within it.
    opened_ms: u64,
    /// Processor time of the reader's peer from opening to the last byte over IMAP: TLS, checks, rebuilding, disk, OpenPGP. With
    /// uplinks that do not hold it up (4000) this is what a fetch costs.
    cpu_s: Option<f64>,
    /// What came from whom.
    sources: Vec<Brought>,
}

/// What one source brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Brought {
    address: String,
    uplink_mbit: Option<u64>,
    bytes: u64,
    bad_blocks: u64,
}

/// What is wrong with one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Dead,
    Dying,
    Slow,
    Lying,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Dead => "dead",
            Fault::Dying => "dying",
            Fault::Slow => "slow",
            Fault::Lying => "lying",
        }
    }
}

/// Which members have which fault, by their place among the uplinks.
fn faults(asked: FaultArg, members: usize) -> Vec<(usize, Fault)> {
    // One in the middle: neither the one that matters most nor the one that matters least.
    let middle = members / 2;
    match asked {
        FaultArg::None => Vec::new(),
        FaultArg::Dead => vec![(middle, Fault::Dead)],
        FaultArg::Dying => vec![(middle, Fault::Dying)],
        FaultArg::Slow => vec![(middle, Fault::Slow)],
        FaultArg::Lying => vec![(middle, Fault::Lying)],
        FaultArg::All => vec![(0, Fault::Dead), (1, Fault::Dying), (2, Fault::Slow), (3, Fault::Lying)],
    }
}

/// The bound of an arm in Mbit/s (DESIGN.md section 7), of those members that are not in `faulty`.
fn bound(arm: ArmArg, uplinks: &[u64], faulty: &[usize], k: u8) -> f64 {
    let good: Vec<u64> =
        uplinks.iter().enumerate().filter(|(i, _)| !faulty.contains(i)).map(|(_, rate)| *rate).collect();
    match arm {
        ArmArg::Fragments => bound_of_fragments(&good, k),
        // All blocks of one source, and all of every source: any one of whole copies.
        ArmArg::Single | ArmArg::Ranged => bound_of_fragments(&good, 1),
    }
}

/// Does what was asked.
pub(super) fn run(args: &FetchArgs) -> anyhow::Result<Shown> {
    check(args)?;
    let rows = play::play(args, attachment(args))?;
    let parameters = Parameters {
        uplinks_mbit: args.uplinks.clone(),
        attachment_bytes: attachment(args).bytes(),
        k: args.policy.0.k,
        n: args.policy.0.n,
        fault: args.fault,
        runs: args.runs,
        stopped_sender: args.stopped_sender,
    };
    let text = text(args, &rows);
    let plot = if args.stopped_sender { chart_of_starts(&rows).svg() } else { plot(args, &rows) };
    let mut report = Report::new("fetch", parameters, rows);
    if args.svg.is_some() || args.plots.plots.is_some() {
        let name = if args.stopped_sender { "fetch-first-block.svg" } else { "fetch-rate.svg" };
        let in_folder = args.plots.plots.as_ref().map(|folder| folder.join(name));
        report.plots = write(&plot?, args.svg.iter().cloned().chain(in_folder))?;
    }
    report.shown(&text)
}

fn write(svg: &str, files: impl Iterator<Item = PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for file in files {
        let cannot = || format!("{} cannot be written", file.display());
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(cannot)?;
        }
        std::fs::write(&file, svg).with_context(cannot)?;
        written.push(file);
    }
    Ok(written)
}

/// Length of each mail's attachment.
fn attachment(args: &FetchArgs) -> ByteSize {
    args.size.unwrap_or(if args.stopped_sender { SIZE_STOPPED } else { SIZE })
}

/// Looks whether what was asked can be, before any peer is made.
fn check(args: &FetchArgs) -> anyhow::Result<()> {
    let (members, policy) = (args.uplinks.len(), args.policy.0);
    let wrong = |why: String| Err(WrongUse { why }.into());
    if members != usize::from(policy.n) {
        return wrong(format!(
            "--policy {}/{} has {} members that hold the mail, --uplinks names {members}: give as many",
            policy.k, policy.n, policy.n
        ));
    }
    let faulty = faults(args.fault, members).len();
    if args.fault == FaultArg::All && members < SOURCES_FOR_ALL {
        return wrong(format!(
            "--fault all needs {SOURCES_FOR_ALL} uplinks or more, for example --policy 3/9 --uplinks 20,20,20,20,20,20,20,20,20"
        ));
    }
    if members - faulty < usize::from(policy.k) {
        return wrong(format!("with {faulty} of {members} members at fault fewer than {} are left", policy.k));
    }
    if args.stopped_sender && args.fault != FaultArg::None {
        return wrong("--stopped-sender stands alone: leave --fault out".to_owned());
    }
    if attachment(args).bytes() > 700 << 20 {
        return wrong("--size: at most 700 MiB, so that the mail stays below 1 GiB".to_owned());
    }
    Ok(())
}

fn text(args: &FetchArgs, rows: &[Row]) -> String {
    let cells = |row: &Row| {
        vec![
            row.arm.name().to_owned(),
            row.fault.clone(),
            row.run.to_string(),
            size(row.bytes),
            format!("{:.2}", row.seconds),
            format!("{:.1}", row.rate_mbit),
            format!("{:.1}", row.bound_mbit),
            format!("{:.1} %", row.percent_of_bound),
            row.first_block_ms.to_string(),
            row.opened_ms.to_string(),
            row.cpu_s.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2}")),
        ]
    };
    let head = [
        "arm",
        "fault",
        "run",
        "sealed",
        "s",
        "Mbit/s",
        "bound",
        "of bound",
        "first block ms",
        "opened ms",
        "reader's CPU s",
    ];
    let all: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let uplinks: Vec<String> = args.uplinks.iter().map(u64::to_string).collect();
    let mut out = format!(
        "uplinks {} Mbit/s, any {} of {}, sender {}\n\n{}\n\n",
        uplinks.join(", "),
        args.policy.0.k,
        args.policy.0.n,
        if args.stopped_sender { "stopped: it accepts and never answers" } else { "off" },
        table(&head, &all)
    );
    for (what, rows) in groups(rows) {
        let first = median(rows.iter().map(|row| millis(row.first_block_ms)).collect());
        let share = median(rows.iter().map(|row| row.percent_of_bound).collect());
        out.push_str(&if args.stopped_sender {
            let opened = median(rows.iter().map(|row| millis(row.opened_ms)).collect());
            format!(
                "{what}: first verified block {first:.0} ms after the first request, the whole mail {opened:.0} ms after it was \
                 opened (medians of {})\n",
                rows.len()
            )
        } else {
            format!("{what}: {share:.1} % of the bound (median of {})\n", rows.len())
        });
    }
    out.push_str("Every fetched mail was compared with what was sent, to the byte.\n");
    out
}

/// Rows of one arm and fault together, in the order of the first of each.
fn groups(rows: &[Row]) -> Vec<(String, Vec<&Row>)> {
    let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let name =
            if row.fault == "none" { row.arm.name().to_owned() } else { format!("{}, {}", row.arm.name(), row.fault) };
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((name, vec![row])),
        }
    }
    groups
}

fn millis(ms: u64) -> f64 {
    u32::try_from(ms).map_or(f64::from(u32::MAX), f64::from)
}

/// Measured rates beside their bounds.
fn plot(args: &FetchArgs, rows: &[Row]) -> anyhow::Result<String> {
    let bar = |(name, rows): (String, Vec<&Row>)| Bar {
        reached: median(rows.iter().map(|row| row.rate_mbit).collect()),
        bound: median(rows.iter().map(|row| row.bound_mbit).collect()),
        name,
    };
    let bars: Vec<Bar> = groups(rows).into_iter().map(bar).collect();
    let uplinks: Vec<String> = args.uplinks.iter().map(u64::to_string).collect();
    bars::svg(&Bars {
        title: format!("Fetching {} from uplinks of {} Mbit/s", attachment(args), uplinks.join(", ")),
        x: "how the mail is kept and pulled",
        y: "rate, Mbit/s",
        reached: "reached, median of the runs",
        bound: "bound of sources without a fault",
        bars,
    })
}

/// When the first block was here, run by run.
fn chart_of_starts(rows: &[Row]) -> Chart {
    let line = |(name, rows): (String, Vec<&Row>)| {
        let points = rows.iter().map(|row| (f64::from(row.run), millis(row.first_block_ms))).collect();
        Line { name, points, only_points: true }
    };
    Chart {
        title: "First verified block while the sender accepts and never answers".to_owned(),
        x: Axis::linear("run"),
        y: Axis::log("after the first request, ms"),
        lines: groups(rows).into_iter().map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::args::{KSlashN, PlotArgs};
    use crate::model::policy::KOfN;

    fn asked(uplinks: &[u64], (k, n): (u8, u8), fault: FaultArg) -> FetchArgs {
        FetchArgs {
            uplinks: uplinks.to_vec(),
            size: None,
            policy: KSlashN(KOfN { k, n }),
            fault,
            arms: Vec::new(),
            runs: 1,
            stopped_sender: false,
            svg: None,
            plots: PlotArgs::default(),
        }
    }

    #[test]
    fn bounds_are_those_of_the_design() {
        let mixed = [5, 10, 20, 40, 80];
        assert_eq!(bound(ArmArg::Fragments, &mixed, &[], 3), 105.0);
        assert_eq!(bound(ArmArg::Ranged, &mixed, &[], 3), 155.0);
        assert_eq!(bound(ArmArg::Fragments, &[20; 9], &[0, 1, 2, 3], 3), 100.0);
        assert_eq!(bound(ArmArg::Single, &mixed, &[0, 1, 3, 4], 3), 20.0);
    }

    #[test]
    fn what_cannot_be_is_refused_before_a_peer_is_made() {
        assert!(check(&asked(&[20; 5], (3, 5), FaultArg::Dead)).is_ok());
        assert!(check(&asked(&[20; 9], (3, 9), FaultArg::All)).is_ok());
        for wrong in [
            asked(&[20; 4], (3, 5), FaultArg::None),
            asked(&[20; 5], (3, 5), FaultArg::All),
            asked(&[20; 3], (3, 3), FaultArg::Slow),
            FetchArgs { stopped_sender: true, ..asked(&[20; 5], (3, 5), FaultArg::Slow) },
            FetchArgs { size: Some(ByteSize::gib(1)), ..asked(&[20; 5], (3, 5), FaultArg::None) },
        ] {
            assert!(check(&wrong).unwrap_err().is::<WrongUse>(), "{wrong:?}");
        }
    }

    #[test]
    fn a_table_and_a_chart_come_of_rows() {
        let row = Row {
            arm: ArmArg::Fragments,
            run: 1,
            uplinks: vec![20; 5],
            fault: "none".to_owned(),
            bytes: 64 << 20,
            seconds: 5.5,
            rate_mbit: 97.6,
            bound_mbit: 100.0,
            percent_of_bound: 97.6,
            first_block_ms: 40,
            opened_ms: 90,
            cpu_s: Some(0.5),
            sources: Vec::new(),
        };
        let args = asked(&[20; 5], (3, 5), FaultArg::None);
        let text = text(&args, std::slice::from_ref(&row));
        assert!(text.contains("97.6 %") && text.contains("fragments: 97.6 % of the bound"), "{text}");
        assert!(plot(&args, &[row]).unwrap().contains("fragments: 97.6"));
    }
}
