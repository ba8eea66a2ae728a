//! `roost bench receive`: the papers' experiment on real peers: mails of one size from one sender to one reader, submitted by SMTP,
//! sealed, pulled, opened and read over IMAP; how long it takes, and what it costs, beside a conventional system where its figures
//! are given. Every mail that is read is compared with what was submitted.

pub(super) mod args;
pub(super) mod clients;
mod made;
pub(super) mod mails;
pub(super) mod place;
mod play;
pub(super) mod rows;
pub(super) mod scene;
mod shown;

use serde::Serialize;

use super::report::Report;
use crate::cli::output::Shown;
use args::ReceiveArgs;
use mails::Source;
use rows::{Row, Wanted, medians};

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Parameters {
    n: u32,
    runs: u32,
    pull: &'static str,
    clock: &'static str,
    counted_until: &'static str,
}

/// Does what was asked.
pub(super) fn run(args: &ReceiveArgs) -> anyhow::Result<Shown> {
    let mut runs: Vec<(Wanted, Row)> = Vec::new();
    for _ in 0..args.runs {
        for wanted in wanted(args) {
            let source = match (&args.eml, wanted.size) {
                (Some(folder), _) => Source::Folder(folder),
                (None, size) => Source::Made { kind: wanted.kind, size: size.unwrap_or_default() },
            };
            runs.push((wanted, play::run(&wanted, &source, !args.no_namespace)?));
        }
    }
    let medians = medians(&runs);
    let parameters = Parameters {
        n: args.n,
        runs: args.runs,
        pull: "eager",
        clock: "from the first byte submitted to the last body read over IMAP; connections are logged in before",
        counted_until: "the sender's peer knows that every mail was received",
    };
    let text = shown::text(&medians);
    let mut report = Report::new("receive", parameters, runs.into_iter().map(|(_, row)| row).collect());
    report.findings.insert("medians".to_owned(), serde_json::to_value(&medians)?);
    report.shown(&text)
}

/// The rows, in the order in which they are measured: what differs least stands next to each other.
fn wanted(args: &ReceiveArgs) -> Vec<Wanted> {
    let mut all = Vec::new();
    for (kind, size) in args.attachments() {
        for group in &args.group {
            for notify in &args.notify {
                for connections in &args.connections {
                    let (group, notify, connections) = (*group, *notify, *connections);
                    all.push(Wanted { group, notify, connections, kind, size, n: args.n });
                }
            }
        }
    }
    all
}
