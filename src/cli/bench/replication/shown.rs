//! What a bench of replication shows people: tables, sentences and charts, from its rows. It measures and computes nothing new.

use super::arms::Comparison;
use super::lines::{Criterion, Lines};
use super::measure::real;
use super::rows::{Kept, Repair, Row};
use crate::cli::bench::bars::{Bar, Bars};
use crate::cli::bench::plot::{Axis, Chart, Line};
use crate::cli::bench::report::{median, table};
use crate::cli::output::size;

/// From this sealed length on, bytes stored and moved must be what theory says.
const LARGE: u64 = 1 << 20;

/// Rows of full copies stand in two comparisons; here each stands once.
fn once(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| !(row.arm.starts_with("full") && row.comparison == Comparison::EqualLosses))
}

/// Everything, for a terminal.
pub(super) fn text(rows: &[Row], lines: &[(Comparison, Lines)], left_out: &[String]) -> String {
    let mut out = String::new();
    if !left_out.is_empty() {
        out.push_str(&format!("left out, the group is too small: {}\n\n", left_out.join(", ")));
    }
    let kept: Vec<(&Row, Kept)> = once(rows).filter_map(|row| Some((row, row.kept?))).collect();
    if !kept.is_empty() {
        out.push_str(&table_of_kept(&kept));
        out.push_str(&deviations(&kept));
    }
    for (comparison, lines) in lines {
        out.push_str(&sentence(*comparison, lines));
    }
    let repairs: Vec<(&Row, Repair)> = once(rows).filter_map(|row| Some((row, row.repair?))).collect();
    if !repairs.is_empty() {
        out.push_str(&format!("\n{}\n", table_of_repairs(&repairs)));
        out.push_str(
            "must: the lost parts; while the sender is off, what they are rebuilt from. rest: after the repair the group was watched;\n\
             packets are those of the loopback, for each peer and minute. back: bytes that moved when the member came back.\n",
        );
    }
    out.push_str("Every mail was opened by a reader and compared with what was sent, to the byte.\n");
    out
}

fn table_of_kept(kept: &[(&Row, Kept)]) -> String {
    let cells = |(row, kept): &(&Row, Kept)| {
        let mails = real(row.mails.max(1));
        vec![
            row.size.map_or("mix".to_owned(), size),
            row.arm.clone(),
            row.mails.to_string(),
            format!("{:.0}", real(row.sealed_bytes) / mails),
            format!("{:.2}", kept.theory_ratio),
            format!("{:.2}", kept.stored_ratio),
            format!("{:.2}", real(kept.allocated_bytes) / real(row.sealed_bytes.max(1))),
            format!("{:.2}", kept.moved_ratio),
            format!("{:.2}", real(kept.wire_bytes) / real(row.sealed_bytes.max(1))),
            format!("{:.3}", kept.seconds_to_safe),
            format!("{:.1}", kept.cpu_ms_per_mail),
        ]
    };
    let head = [
        "attached",
        "arm",
        "mails",
        "sealed B",
        "theory",
        "stored",
        "on disk",
        "moved",
        "wire",
        "s to safe",
        "CPU ms/mail",
    ];
    let rows: Vec<Vec<String>> = kept.iter().map(cells).collect();
    format!(
        "{}\n\ntheory to wire: bytes for each byte of sealed mail; theory: n/k, or copies; stored: lengths of members' files; on disk:\n\
         their blocks; moved: parts and manifests served; wire: all on the loopback, with TLS, heads, msglists and holdings.\n\n",
        table(&head, &rows)
    )
}

/// How far large mails are from theory.
fn deviations(kept: &[(&Row, Kept)]) -> String {
    let large = || kept.iter().filter(|(row, _)| row.sealed_bytes / row.mails.max(1) >= LARGE);
    if large().next().is_none() {
        return String::new();
    }
    let most = |ratio: fn(&Kept) -> f64| {
        large().map(|(_, kept)| (ratio(kept) / kept.theory_ratio - 1.0).abs() * 100.0).fold(0.0, f64::max)
    };
    format!(
        "Mails of {} and more: stored within {:.2} %, moved within {:.2} % of n/k and of the number of copies.\n",
        size(LARGE),
        most(|kept| kept.stored_ratio),
        most(|kept| kept.moved_ratio)
    )
}

fn sentence(comparison: Comparison, lines: &Lines) -> String {
    let what = match comparison {
        Comparison::EqualStorage => "At equal storage",
        Comparison::EqualLosses => "At equal losses survived",
        Comparison::DefaultPolicy => return String::new(),
    };
    let line = |(criterion, line): (&Criterion, &Option<u64>)| match line {
        None => format!("{}: they win or tie at every size", criterion.name()),
        Some(0) => format!("{}: at no size", criterion.name()),
        Some(below) => format!("{}: {}", criterion.name(), size(*below)),
    };
    let all: Vec<String> = lines.iter().map(line).collect();
    format!("{what} whole copies win below this sealed length, by {}.\n", all.join("; "))
}

fn table_of_repairs(repairs: &[(&Row, Repair)]) -> String {
    let cells = |(row, repair): &(&Row, Repair)| {
        vec![
            row.arm.clone(),
            repair.repaired_from.to_owned(),
            repair.members.to_string(),
            format!("{} of {}", row.mails, row.size.map_or_else(String::new, size)),
            repair.lost_parts.to_string(),
            repair.must_move_bytes.to_string(),
            repair.repair_bytes.to_string(),
            format!("{:.3}", repair.repair_ratio),
            format!("{:.1}", repair.detect_seconds),
            format!("{:.2}", repair.repair_seconds),
            format!("{:.0}", repair.quiet_seconds),
            repair.quiet_bytes.to_string(),
            format!("{:.0}", repair.quiet_packets_per_peer_minute),
            repair.return_bytes.to_string(),
        ]
    };
    let head = [
        "arm",
        "repair from",
        "members",
        "mails",
        "lost parts",
        "must B",
        "moved B",
        "moved/must",
        "s to lost",
        "s to repair",
        "s at rest",
        "rest B",
        "packets",
        "back B",
    ];
    let rows: Vec<Vec<String>> = repairs.iter().map(cells).collect();
    table(&head, &rows)
}

/// One chart over mail sizes, a line for each arm.
fn by_size(rows: &[Row], title: &str, y: Axis, value: impl Fn(&Row, &Kept) -> f64) -> Chart {
    let mut lines: Vec<Line> = Vec::new();
    for row in once(rows) {
        let (Some(size), Some(kept)) = (row.size, row.kept) else { continue };
        let point = (real(size) / 1024.0, value(row, &kept));
        match lines.iter_mut().find(|line| line.name == row.arm) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name: row.arm.clone(), points: vec![point], only_points: false }),
        }
    }
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    Chart { title: title.to_owned(), x: Axis::log("attachment, KiB"), y, lines }
}

/// The charts over mail sizes; none when only one size was tried.
pub(super) fn charts(rows: &[Row]) -> Vec<(&'static str, Chart)> {
    let sizes: std::collections::BTreeSet<u64> =
        once(rows).filter(|r| r.kept.is_some()).filter_map(|r| r.size).collect();
    if sizes.len() < 2 {
        return Vec::new();
    }
    let share = |bytes: u64, row: &Row| real(bytes) / real(row.sealed_bytes.max(1));
    vec![
        (
            "stored",
            by_size(
                rows,
                "Stored on the members' disks: parts and manifests",
                Axis::linear("bytes for each byte of sealed mail"),
                |_, kept| kept.stored_ratio,
            ),
        ),
        (
            "disk",
            by_size(
                rows,
                "Stored on the members' disks, in whole blocks",
                Axis::log("bytes for each byte of sealed mail"),
                |row, kept| share(kept.allocated_bytes, row),
            ),
        ),
        (
            "moved",
            by_size(
                rows,
                "Moved between peers until safe, everything counted",
                Axis::log("bytes for each byte of sealed mail"),
                |row, kept| share(kept.wire_bytes, row),
            ),
        ),
        (
            "safe",
            by_size(rows, "From the 250 to safe(target), median", Axis::log("seconds"), |_, kept| kept.seconds_to_safe),
        ),
        (
            "cpu",
            by_size(
                rows,
                "Processor time of all peers from submission to safe",
                Axis::log("milliseconds a mail"),
                |_, kept| kept.cpu_ms_per_mail,
            ),
        ),
    ]
}

/// What repairs moved beside what they had to.
pub(super) fn bars(rows: &[Row]) -> Option<Bars<'static>> {
    let mib = |bytes: u64| real(bytes) / 1_048_576.0;
    let mut all: Vec<(String, Vec<Repair>)> = Vec::new();
    for (row, repair) in once(rows).filter_map(|row| Some((row, row.repair?))) {
        let name = format!("{}, from {}", row.arm, repair.repaired_from);
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, runs)) => runs.push(repair),
            None => all.push((name, vec![repair])),
        }
    }
    let bar = |(name, runs): (String, Vec<Repair>)| Bar {
        reached: median(runs.iter().map(|repair| mib(repair.repair_bytes)).collect()),
        bound: median(runs.iter().map(|repair| mib(repair.must_move_bytes)).collect()),
        name,
    };
    let bars: Vec<Bar> = all.into_iter().map(bar).collect();
    (!bars.is_empty()).then(|| Bars {
        title: "Repair after one member was lost".to_owned(),
        x: "how mails are kept, and from whom they are repaired",
        y: "served by peers, MiB",
        reached: "moved, median of the runs",
        bound: "must move: what was lost, or what it is rebuilt from",
        bars,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::replication::lines::lines;
    use crate::cli::bench::replication::rows::{Idle, Turn, kept_rows};

    #[test]
    fn a_table_sentences_and_charts_come_of_rows() {
        let arm = super::super::arms::tests_arm();
        let turn = |length| Turn { mails: vec![(length, 0.5)], ..Turn::default() };
        let mut rows = kept_rows(&arm, Some(1 << 20), &[turn(1 << 20)], Idle::default());
        rows.extend(kept_rows(&arm, Some(1 << 21), &[turn(1 << 21)], Idle::default()));
        let coded =
            |row: &Row| Row { arm: "fragments 3/5".to_owned(), comparison: Comparison::EqualLosses, ..row.clone() };
        let twins: Vec<Row> = rows.iter().filter(|row| row.comparison == Comparison::EqualLosses).map(coded).collect();
        rows.extend(twins);
        let found = vec![(Comparison::EqualLosses, lines(&rows, Comparison::EqualLosses).unwrap())];
        let text = text(&rows, &found, &["fragments 3/9".to_owned()]);
        assert_eq!(text.matches("full 3 copies").count(), 2, "{text}");
        for words in ["left out", "stored within 100.00 %", "time to safe: they win or tie at every size"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let charts = charts(&rows);
        let safe = &charts.iter().find(|(name, _)| *name == "safe").unwrap().1;
        assert!(safe.lines.len() == 2 && safe.svg().is_ok(), "{safe:?}");
        assert!(bars(&rows).is_none());
    }
}
