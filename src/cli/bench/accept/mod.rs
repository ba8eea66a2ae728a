//! `roost bench accept`: the paper's Figure 5: what the reader's peer sends and gets when the reader accepts only some of the mails and
//! deletes the others unread, beside a conventional system, which carries all of them.

pub(super) mod args;
mod play;

use serde::Serialize;

use super::plot::{Axis, Chart, Line};
use super::receive::args::{GroupArg, Kind, NotifyArg, short};
use super::receive::beside::Beside;
use super::replication::measure::real;
use super::report::{Report, table};
use crate::cli::output::Shown;
use args::AcceptArgs;

/// Bytes of a KiB.
const KIB: f64 = 1024.0;

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Parameters {
    n: u32,
    pull: &'static str,
    counted_until: &'static str,
}

/// One share.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    /// How many of a hundred mails are accepted.
    accept_percent: u32,
    /// Mails.
    n: u32,
    /// Of those, opened, and what was submitted to the byte.
    accepted: u32,
    /// Of those, deleted unread.
    refused: u32,
    /// What the attachments are made of.
    kind: Kind,
    /// Their length, bytes.
    size: u64,
    /// SMTP connections.
    connections: u32,
    /// Where the sender is.
    group: GroupArg,
    /// How the reader is told.
    notify: NotifyArg,
    /// From the first byte submitted to the last mail opened or deleted.
    seconds_total: f64,
    /// Processor time of all peers, until the sender knows of each mail.
    cpu_s: f64,
    /// Bytes to and from the reader's peer, until then.
    traffic_bytes: u64,
    /// How they were counted.
    traffic_counted_by: &'static str,
    /// Of those, what came.
    rx_bytes: u64,
    /// And what went.
    tx_bytes: u64,
    /// Frames, both ways; 0 where sockets are counted.
    packets: u64,
    /// Median of an append of 4 KiB and its fsync on this disk, before the run.
    fsync_ms: f64,
    /// Bytes of the mails as they were submitted.
    mail_bytes: u64,
}

impl Row {
    /// KiB a mail.
    fn traffic_kib(&self) -> f64 {
        real(self.traffic_bytes) / f64::from(self.n.max(1)) / KIB
    }
}

/// Does what was asked.
pub(super) fn run(args: &AcceptArgs) -> anyhow::Result<Shown> {
    let beside = Beside::load(args.beside.as_deref())?;
    let rows = args.accept.iter().map(|percent| play::run(args, *percent)).collect::<anyhow::Result<Vec<Row>>>()?;
    let conventional = beside.of(args.kind, args.size, args.connections).map(|theirs| theirs.traffic_bytes / KIB);
    let parameters = Parameters {
        n: args.n,
        pull: "on-open",
        counted_until: "the sender's peer knows of each mail whether it was received or refused",
    };
    let (text, chart) = (text(&rows, conventional), chart(args, &rows, conventional));
    let mut report = Report::new("accept", parameters, rows);
    if let Some(conventional) = conventional {
        report.findings.insert("conventional_traffic_bytes_a_mail".to_owned(), (conventional * KIB).into());
    }
    report.plot(args.plots.plots.as_deref(), &[("figure-5-traffic", chart)])?;
    report.shown(&text)
}

/// Whether the mail of this number is accepted, when so many of a hundred are: they are spread evenly.
fn accepted(number: u32, percent: u32) -> bool {
    let before = |number: u32| u64::from(number) * u64::from(percent) / 100;
    before(number.saturating_add(1)) > before(number)
}

fn text(rows: &[Row], conventional: Option<f64>) -> String {
    let mut head = vec!["accepted %", "opened", "deleted unread", "total ms", "cpu ms", "traffic KiB"];
    head.extend(conventional.map(|_| "of conventional"));
    let cells = |row: &Row| {
        let each = |figure: f64| figure * 1000.0 / f64::from(row.n.max(1));
        let mut cells = vec![
            row.accept_percent.to_string(),
            row.accepted.to_string(),
            row.refused.to_string(),
            format!("{:.2}", each(row.seconds_total)),
            format!("{:.2}", each(row.cpu_s)),
            format!("{:.2}", row.traffic_kib()),
        ];
        cells.extend(conventional.map(|theirs| format!("{:.0} %", row.traffic_kib() / theirs * 100.0)));
        cells
    };
    let all: Vec<Vec<String>> = rows.iter().map(cells).collect();
    format!("per mail; every mail that was opened is what was submitted, to the byte\n\n{}\n", table(&head, &all))
}

fn chart(args: &AcceptArgs, rows: &[Row], conventional: Option<f64>) -> Chart {
    let points: Vec<(f64, f64)> = rows.iter().map(|row| (f64::from(row.accept_percent), row.traffic_kib())).collect();
    let mut lines = vec![Line { name: format!("roost, {}", args.notify.name()), points, only_points: false }];
    if let Some(theirs) = conventional {
        let points = rows.iter().map(|row| (f64::from(row.accept_percent), theirs)).collect();
        lines.push(Line { name: "conventional".to_owned(), points, only_points: false });
    }
    Chart {
        title: format!(
            "Traffic of the reader, by what it accepts of {} {} (Figure 5)",
            short(args.size),
            args.kind.name()
        ),
        x: Axis::linear("accepted, %"),
        y: Axis::linear("KiB a mail"),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_mails_are_spread_evenly_and_as_many_as_asked() {
        for percent in [0, 10, 33, 50, 99, 100] {
            let count = (0..1000).filter(|number| accepted(*number, percent)).count();
            assert_eq!(count, usize::try_from(percent).unwrap() * 10, "{percent}");
        }
        let gaps: Vec<u32> = (0..40).filter(|number| accepted(*number, 25)).collect();
        assert!(gaps.windows(2).all(|two| two[1] - two[0] == 4), "{gaps:?}");
    }

    #[test]
    fn a_row_is_shown_as_a_share_of_what_a_conventional_system_carries() {
        let row = Row {
            accept_percent: 50,
            n: 10,
            accepted: 5,
            refused: 5,
            kind: Kind::Binary,
            size: 10_240,
            connections: 4,
            group: GroupArg::Alone,
            notify: NotifyArg::DirectFirst,
            seconds_total: 1.0,
            cpu_s: 1.0,
            traffic_bytes: 40 * 1024,
            traffic_counted_by: "test",
            rx_bytes: 30 * 1024,
            tx_bytes: 10 * 1024,
            packets: 10,
            fsync_ms: 1.0,
            mail_bytes: 140_000,
        };
        let text = text(std::slice::from_ref(&row), Some(16.0));
        assert!(text.contains("25 %") && text.contains("4.00"), "{text}");
    }
}
