//! What a bench of receiving shows people: a table and the paper's plots, from its rows. It measures nothing.

use super::args::short;
use super::rows::PerMail;
use crate::cli::bench::report::table;

/// The table, a line for each row.
pub(super) fn text(medians: &[PerMail]) -> String {
    let head = [
        "kind",
        "size",
        "n",
        "conns",
        "group",
        "notify",
        "submit ms",
        "total ms",
        "cpu ms",
        "traffic B",
        "stored B",
        "peak MiB",
    ];
    let cells = |row: &PerMail| {
        vec![
            row.of.kind.name().to_owned(),
            row.of.size.map_or_else(|| "as they are".to_owned(), short),
            row.of.n.to_string(),
            row.of.connections.to_string(),
            row.of.group.name().to_owned(),
            row.of.notify.name().to_owned(),
            format!("{:.2}", row.submit_ms),
            format!("{:.2}", row.total_ms),
            format!("{:.2}", row.cpu_ms),
            format!("{:.0}", row.traffic_bytes),
            format!("{:.0}", row.stored_bytes),
            format!("{:.0}", row.peak_rss_bytes / 1_048_576.0),
        ]
    };
    let rows: Vec<Vec<String>> = medians.iter().map(cells).collect();
    format!(
        "per mail, medians of the runs; every mail that was read is what was submitted, to the byte\n\n{}\n",
        table(&head, &rows)
    )
}
