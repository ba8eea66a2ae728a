//! What a bench of receiving shows people: a table and the paper's plots, from its rows. It measures nothing.

use super::args::{GroupArg, Kind, NotifyArg, OpenArg, short};
use super::beside::{Beside, Conventional};
use super::latency::Latency;
use super::rows::PerMail;
use crate::cli::bench::plot::{Axis, Chart, Line};
use crate::cli::bench::report::table;

/// Bytes of a KiB.
const KIB: f64 = 1024.0;

/// The table, a line for each row.
pub(super) fn text(medians: &[PerMail], beside: &Beside) -> String {
    let mut head = vec![
        "kind",
        "size",
        "n",
        "conns",
        "group",
        "notify",
        "open",
        "submit ms",
        "total ms",
        "cpu ms",
        "traffic B",
        "stored B",
        "peak MiB",
    ];
    let compared = medians.iter().any(|row| beside.ratio(row).is_some());
    if compared {
        head.extend(["time x", "cpu x", "traffic x"]);
    }
    let cells = |row: &PerMail| {
        let mut cells = vec![
            row.of.kind.name().to_owned(),
            row.of.size.map_or_else(|| "as they are".to_owned(), short),
            row.of.n.to_string(),
            row.of.connections.to_string(),
            row.of.group.name().to_owned(),
            row.of.notify.name().to_owned(),
            row.of.open.name().to_owned(),
            format!("{:.2}", row.submit_ms),
            format!("{:.2}", row.total_ms),
            format!("{:.2}", row.cpu_ms),
            format!("{:.0}", row.traffic_bytes),
            format!("{:.0}", row.stored_bytes),
            format!("{:.0}", row.peak_rss_bytes / KIB / KIB),
        ];
        if compared {
            let ratio = beside.ratio(row);
            let figures = ratio.map_or([None; 3], |ratio| [Some(ratio.total), Some(ratio.cpu), ratio.traffic]);
            cells.extend(figures.map(|x| x.map_or_else(String::new, |x| format!("{x:.2}"))));
        }
        cells
    };
    let rows: Vec<Vec<String>> = medians.iter().map(cells).collect();
    let about = "per mail, medians of the runs; every mail that was read is what was submitted, to the byte";
    let ratios = if compared { "\nx: ours over the conventional system's" } else { "" };
    let unmatched = beside.unmatched(medians).map(|why| format!("\n{why}\n")).unwrap_or_default();
    format!("{about}{ratios}\n\n{}\n{unmatched}", table(&head, &rows))
}

/// The table of single mails.
pub(super) fn latencies(rows: &[Latency]) -> String {
    let head = ["group", "notify", "kind", "size", "n", "250 ms", "stub ms", "body ms", "stub ms p90", "body ms p90"];
    let cells = |row: &Latency| {
        let mut cells = vec![
            row.group.name().to_owned(),
            row.notify.name().to_owned(),
            row.kind.name().to_owned(),
            row.size.map_or_else(|| "as they are".to_owned(), short),
            row.n.to_string(),
        ];
        let figures = [row.accepted_ms, row.stub_ms, row.body_ms, row.stub_ms_p90, row.body_ms_p90];
        cells.extend(figures.map(|ms| format!("{ms:.1}")));
        cells
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let about = "single mails, one after the other, medians: from the first byte submitted to the 250, to the stub in the reader's IDLE, to the body over IMAP";
    format!("{about}\n\n{}\n", table(&head, &rows))
}

/// The paper's Figures 3 and 4; none for a folder's mails of unknown lengths.
pub(super) fn charts(medians: &[PerMail], beside: &Beside) -> Vec<(&'static str, Chart)> {
    if !medians.iter().any(|row| row.of.size.is_some()) {
        return Vec::new();
    }
    let chart = |title: &str, y: &str, ours: &dyn Fn(&PerMail) -> f64, theirs: &dyn Fn(&Conventional) -> f64| Chart {
        title: title.to_owned(),
        x: Axis::log("attachment, bytes"),
        y: Axis::log(y),
        lines: lines(medians, beside, ours, theirs),
    };
    vec![
        (
            "figure-3-time",
            chart("Time to receive, by size (Figure 3)", "ms a mail", &|row| row.total_ms, &|c| c.total_ms),
        ),
        (
            "figure-4-traffic",
            chart(
                "Traffic of the reader, in and out, by size (Figure 4)",
                "KiB a mail",
                &|row| row.traffic_bytes / KIB,
                &|c| c.traffic_bytes / KIB,
            ),
        ),
        ("cpu", chart("Processor time of all processes, by size", "ms a mail", &|row| row.cpu_ms, &|c| c.cpu_ms)),
    ]
}

/// What a line is of.
type Of = (Kind, GroupArg, NotifyArg, OpenArg, u32);

fn lines(
    medians: &[PerMail],
    beside: &Beside,
    ours: &dyn Fn(&PerMail) -> f64,
    theirs: &dyn Fn(&Conventional) -> f64,
) -> Vec<Line> {
    let of = |row: &PerMail| -> Of { (row.of.kind, row.of.group, row.of.notify, row.of.open, row.of.connections) };
    let mut kinds: Vec<Of> = medians.iter().map(of).collect();
    kinds.sort();
    kinds.dedup();
    let several = kinds.iter().any(|(.., connections)| *connections != kinds.first().map_or(0, |first| first.4));
    let mut lines = Vec::new();
    for wanted in &kinds {
        let (kind, group, notify, open, connections) = *wanted;
        let notify = if notify == NotifyArg::Dht { ", dht" } else { "" };
        let over = if several { format!(", {connections} connections") } else { String::new() };
        let open = if open == OpenArg::WhenSafe { ", when safe" } else { "" };
        let point = |row: &PerMail| Some((log_size(row.of.size?), ours(row)));
        lines.push(Line {
            name: format!("{}, {}{notify}{open}{over}", kind.name(), group.name()),
            points: medians.iter().filter(|row| of(row) == *wanted).filter_map(point).collect(),
            only_points: false,
        });
    }
    let mut conventional: Vec<(Kind, u32)> =
        kinds.iter().map(|(kind, .., connections)| (*kind, *connections)).collect();
    conventional.sort();
    conventional.dedup();
    for (kind, connections) in conventional {
        let point = |size: u64| Some((log_size(size), theirs(&beside.of(kind, size, connections)?)));
        let points: Vec<(f64, f64)> = beside.sizes(kind, connections).into_iter().filter_map(point).collect();
        let over = if several { format!(", {connections} connections") } else { String::new() };
        if !points.is_empty() {
            lines.push(Line { name: format!("{}, conventional{over}", kind.name()), points, only_points: false });
        }
    }
    lines
}

fn log_size(size: u64) -> f64 {
    u32::try_from(size).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::super::beside::tests::LINES;
    use super::super::rows::{medians, tests::run};
    use super::*;

    #[test]
    fn the_papers_plots_have_a_conventional_line_where_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.jsonl");
        std::fs::write(&path, LINES).unwrap();
        let beside = Beside::load(Some(&path)).unwrap();
        let medians =
            medians(&[run(1024, Kind::Text, 0.1), run(10_240, Kind::Text, 0.2), run(10_240, Kind::Binary, 0.2)]);
        let charts = charts(&medians, &beside);
        assert_eq!(charts.len(), 3);
        for (_, chart) in &charts {
            let names: Vec<&str> = chart.lines.iter().map(|line| line.name.as_str()).collect();
            assert_eq!(names, ["text, alone", "binary, alone", "text, conventional", "binary, conventional"]);
            assert!(chart.svg().is_ok());
        }
        let text = text(&medians, &beside);
        assert!(text.contains("time x") && text.contains("1.67"), "{text}");
        assert!(!super::text(&medians, &Beside::default()).contains("time x"));
        let far = super::text(&super::super::rows::medians(&[run(77, Kind::Text, 0.1)]), &beside);
        assert!(far.contains("nothing is compared") && far.contains("text of 1K over 4 connections"), "{far}");
    }
}
