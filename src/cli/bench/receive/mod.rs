//! `roost bench receive`: the papers' experiment on real peers: mails of one size from one sender to one reader, submitted by SMTP,
//! sealed, pulled, opened and read over IMAP; how long it takes, and what it costs, beside a conventional system where its figures
//! are given. Every mail that is read is compared with what was submitted.

pub(super) mod args;
pub(super) mod beside;
pub(super) mod clients;
mod latency;
mod made;
pub(super) mod mails;
pub(super) mod place;
mod play;
pub(super) mod rows;
pub(super) mod scene;
mod shown;

use anyhow::ensure;
use serde::Serialize;
use serde_json::json;

use super::report::Report;
use crate::cli::output::Shown;
use args::{OpenArg, ReceiveArgs};
use beside::Beside;
use mails::Source;
use rows::{Row, Wanted, medians};

/// Mails of a row when none are asked for, as in the paper.
const MAILS: u32 = 1000;
/// The same where each is waited for.
const SINGLE_MAILS: u32 = 20;

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Parameters {
    runs: u32,
    pull: &'static str,
    clock: &'static str,
    counted_until: &'static str,
}

/// Does what was asked.
pub(super) fn run(args: &ReceiveArgs) -> anyhow::Result<Shown> {
    let parameters = Parameters {
        runs: args.runs,
        pull: "eager; on-open in rows with open = when-safe",
        clock: "from the first byte submitted to the last body read over IMAP; connections are logged in before",
        counted_until: "the sender's peer knows that every mail was received",
    };
    let all = wanted(args);
    ensure!(
        !all.is_empty(),
        "alone no mail ever becomes safe(2), so there is nothing to open --open when-safe; add --group 3-of-5, or leave --open out"
    );
    if args.latency {
        return single_mails(args, &all, parameters);
    }
    let beside = Beside::load(args.beside.as_deref())?;
    let mut runs: Vec<(Wanted, Row)> = Vec::new();
    for _ in 0..args.runs {
        for wanted in all.iter().copied() {
            runs.push((wanted, play::run(&wanted, &source(args, &wanted), !args.no_namespace)?));
        }
    }
    let medians = medians(&runs);
    let (text, charts) = (shown::text(&medians, &beside), shown::charts(&medians, &beside));
    let compared: Vec<_> = medians.iter().map(|row| json!({ "ours": row, "ratio": beside.ratio(row) })).collect();
    let mut report = Report::new("receive", parameters, runs.into_iter().map(|(_, row)| row).collect());
    report.findings.insert("medians".to_owned(), json!(compared));
    report.plot(args.plots.plots.as_deref(), &charts)?;
    report.shown(&text)
}

/// The same with single mails on idle peers.
fn single_mails(args: &ReceiveArgs, all: &[Wanted], parameters: Parameters) -> anyhow::Result<Shown> {
    let mut rows = Vec::new();
    for _ in 0..args.runs {
        for wanted in all {
            rows.push(latency::run(wanted, &source(args, wanted), !args.no_namespace)?);
        }
    }
    let text = shown::latencies(&rows);
    Report::new("receive", parameters, rows).shown(&text)
}

fn source<'a>(args: &'a ReceiveArgs, wanted: &Wanted) -> Source<'a> {
    match &args.eml {
        Some(folder) => Source::Folder(folder),
        None => Source::Made { kind: wanted.kind, size: wanted.size.unwrap_or_default() },
    }
}

/// The rows, in the order in which they are measured: what differs least stands next to each other.
fn wanted(args: &ReceiveArgs) -> Vec<Wanted> {
    let mut all = Vec::new();
    let n = args.n.unwrap_or(if args.latency { SINGLE_MAILS } else { MAILS });
    for (kind, size) in args.attachments() {
        for group in &args.group {
            for notify in &args.notify {
                for open in args.open.iter().filter(|open| group.others() > 0 || **open == OpenArg::AtOnce) {
                    for connections in &args.connections {
                        let (group, notify, open, connections) = (*group, *notify, *open, *connections);
                        all.push(Wanted { group, notify, open, connections, kind, size, n });
                    }
                }
            }
        }
    }
    all
}
