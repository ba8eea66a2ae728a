//! `roost bench outbox`: what an outbox of very many mails costs: one mail more, one less, an hour in which nothing happens, a
//! start; bytes between owner and members, bytes written, processor time, memory, beside the same with fewer mails.

pub(super) mod args;
pub(super) mod group;
mod measure;
pub(super) mod process;
pub(super) mod sockets;

use serde::Serialize;

use super::plot::{Axis, Chart, Line};
use super::report::{Report, table};
use crate::cli::output::Shown;
use args::OutboxBenchArgs;

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Parameters {
    sizes: Vec<u32>,
    members: u8,
    each: u32,
    idle_s: u64,
    connections: u32,
    filled_by: &'static str,
    bytes_counted_by: &'static str,
}

/// What was done with the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// It was filled up to its size.
    Fill,
    /// Nothing.
    Idle,
    /// Mails were added, one after the other.
    More,
    /// Mails were taken back, one after the other.
    Less,
    /// The owner was stopped and started.
    Start,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Fill => "fill",
            What::Idle => "idle hour",
            What::More => "one more",
            What::Less => "one less",
            What::Start => "start",
        }
    }
}

/// What one thing cost at one size of the outbox. `more` and `less`: of one mail, the idle traffic of that time taken off.
/// `idle`: of an hour. `fill`: of one mail, as far as it is counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    /// Mails in the outbox.
    mails: u32,
    /// What was done.
    what: What,
    /// How often, of which this is the mean.
    count: u32,
    /// How long it took, once.
    seconds: f64,
    /// Bytes that each member must be sent of one mail: its part and the manifest; 0 where none is.
    part_and_manifest_bytes: u64,
    /// The most that any member was sent besides.
    besides_bytes: f64,
    /// What the owner took.
    owner: Cost,
    /// What each member took, and what it and the owner sent each other.
    members: Vec<Cost>,
}

/// What one peer took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Cost {
    address: String,
    /// Payload bytes of TCP from the owner.
    from_owner_bytes: f64,
    /// And to it.
    to_owner_bytes: f64,
    /// Bytes that it had written to storage.
    written_bytes: f64,
    /// Processor time.
    cpu_ms: f64,
    /// Memory that no file backs, when it was over.
    rss_anon_bytes: u64,
}

/// Does what was asked.
pub(super) fn run(args: &OutboxBenchArgs) -> anyhow::Result<Shown> {
    let rows = measure::measure(args)?;
    let parameters = Parameters {
        sizes: args.sizes(),
        members: args.members,
        each: args.each,
        idle_s: args.idle.duration().as_secs(),
        connections: args.connections,
        filled_by: "SMTP submission, mail by mail",
        bytes_counted_by: "sock_diag: bytes acknowledged and received of each TCP connection",
    };
    let text = text(args, &rows);
    let charts = charts(&rows);
    let mut report = Report::new("outbox", parameters, rows);
    report.plot(args.plots.plots.as_deref(), &charts)?;
    report.shown(&text)
}

/// The dearest member, in one figure.
fn most(row: &Row, figure: impl Fn(&Cost) -> f64) -> f64 {
    row.members.iter().map(figure).fold(0.0, f64::max)
}

fn mib(bytes: u64) -> f64 {
    u32::try_from(bytes >> 10).map_or(f64::MAX, |kib| f64::from(kib) / 1024.0)
}

fn text(args: &OutboxBenchArgs, rows: &[Row]) -> String {
    let cells = |row: &Row| {
        vec![
            row.what.name().to_owned(),
            row.mails.to_string(),
            format!("{:.2}", row.seconds),
            format!("{:.0}", most(row, |c| c.from_owner_bytes)),
            format!("{:.0}", most(row, |c| c.to_owner_bytes)),
            format!("{:.0}", row.besides_bytes),
            format!("{:.1}", row.owner.cpu_ms),
            format!("{:.1}", most(row, |c| c.cpu_ms)),
            format!("{:.0}", row.owner.written_bytes),
            format!("{:.0}", most(row, |c| c.written_bytes)),
            format!("{:.0}", mib(row.owner.rss_anon_bytes)),
            format!("{:.0}", most(row, |c| mib(c.rss_anon_bytes))),
        ]
    };
    let head = [
        "what",
        "mails",
        "s",
        "B to member",
        "B back",
        "besides",
        "owner ms",
        "member ms",
        "owner wrote",
        "member wrote",
        "owner MiB",
        "member MiB",
    ];
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|row| (row.what, row.mails));
    let all: Vec<Vec<String>> = sorted.into_iter().map(cells).collect();
    format!(
        "one owner, {} members that hold every mail whole, a reader that opens none; means of {} mails; an hour is {} s, scaled\n\
         \"besides\" is what the dearest member is sent besides part and manifest; ms are processor time; the dearest member is shown\n\n\
         {}\n",
        args.members,
        args.each,
        args.idle.duration().as_secs(),
        table(&head, &all)
    )
}

fn charts(rows: &[Row]) -> Vec<(&'static str, Chart)> {
    let line = |name: &str, what: What, y: &dyn Fn(&Row) -> f64| Line {
        name: name.to_owned(),
        points: rows.iter().filter(|row| row.what == what).map(|row| (f64::from(row.mails), y(row))).collect(),
        only_points: false,
    };
    let chart = |title: &str, y: &str, lines: Vec<Line>| Chart {
        title: title.to_owned(),
        x: Axis::log("mails in the outbox"),
        y: Axis::linear(y),
        lines,
    };
    let besides = |row: &Row| row.besides_bytes;
    let to_member = |row: &Row| most(row, |c| c.from_owner_bytes);
    let owner_ms = |row: &Row| row.owner.cpu_ms;
    let member_ms = |row: &Row| most(row, |c| c.cpu_ms);
    let bytes = vec![
        line("one more: to a member", What::More, &to_member),
        line("one more: besides part, manifest", What::More, &besides),
        line("one less: to a member", What::Less, &to_member),
    ];
    let cpu = vec![
        line("one more: owner", What::More, &owner_ms),
        line("one more: member", What::More, &member_ms),
        line("one less: owner", What::Less, &owner_ms),
        line("one less: member", What::Less, &member_ms),
    ];
    let written = vec![
        line("one more: owner", What::More, &|row| row.owner.written_bytes / 1024.0),
        line("one more: member", What::More, &|row| most(row, |c| c.written_bytes) / 1024.0),
        line("one less: owner", What::Less, &|row| row.owner.written_bytes / 1024.0),
        line("one less: member", What::Less, &|row| most(row, |c| c.written_bytes) / 1024.0),
    ];
    let idle = vec![
        line("bytes to a member, KiB", What::Idle, &|row| to_member(row) / 1024.0),
        line("written by the owner, KiB", What::Idle, &|row| row.owner.written_bytes / 1024.0),
        line("written by a member, KiB", What::Idle, &|row| most(row, |c| c.written_bytes) / 1024.0),
        line("processor, owner, s", What::Idle, &|row| owner_ms(row) / 1000.0),
        line("processor, a member, s", What::Idle, &|row| member_ms(row) / 1000.0),
    ];
    let start = vec![
        line("start of the owner, s", What::Start, &|row| row.seconds),
        line("RssAnon of the owner, 100 MiB", What::Start, &|row| mib(row.owner.rss_anon_bytes) / 100.0),
        line("RssAnon of a member, 100 MiB", What::Start, &|row| most(row, |c| mib(c.rss_anon_bytes)) / 100.0),
    ];
    vec![
        ("bytes", chart("Bytes that one mail costs, by what else is in the outbox", "bytes a mail", bytes)),
        ("cpu", chart("Processor time that one mail costs, by what else is in the outbox", "ms a mail", cpu)),
        ("written", chart("Bytes written for one mail, by what else is in the outbox", "KiB a mail", written)),
        ("idle", chart("An hour in which nothing happens, by what is in the outbox", "an hour", idle)),
        ("start", chart("Start and memory, by what is in the outbox", "s, and 100 MiB", start)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_charts_come_of_rows() {
        let cost = |address: &str, to: f64| Cost {
            address: address.to_owned(),
            from_owner_bytes: to,
            rss_anon_bytes: 100 << 20,
            ..Cost::default()
        };
        let row = |mails, what| Row {
            mails,
            what,
            count: 1,
            seconds: 0.1,
            part_and_manifest_bytes: 2000,
            besides_bytes: 1234.0,
            owner: cost("m0@acme", 0.0),
            members: vec![cost("m1@acme", 3234.0), cost("m2@acme", 3000.0)],
        };
        let all = [What::Fill, What::Idle, What::More, What::Less, What::Start];
        let rows: Vec<Row> = all.iter().flat_map(|what| [row(100, *what), row(1000, *what)]).collect();
        let args = OutboxBenchArgs {
            mails: 1000,
            sizes: Some(vec![100, 5000]),
            members: 2,
            each: 1,
            idle: crate::model::Span::secs(60),
            connections: 1,
            plots: crate::cli::bench::args::PlotArgs::default(),
        };
        assert_eq!(args.sizes(), [100, 1000]);
        let text = text(&args, &rows);
        assert!(text.contains("one more") && text.contains("3234") && text.contains("1234"), "{text}");
        assert!(charts(&rows).iter().all(|(_, chart)| chart.svg().is_ok()));
    }
}
