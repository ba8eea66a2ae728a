//! `roost outbox`: what waits, page by page from the peer, the last hundred when nothing else is asked; and what ended of late.
//! It only shows.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::control::Control;
use super::output::Shown;
use super::status::{ended_text, outbox_text};
use crate::clock::system_wall;
use crate::console::protocol::{EndedLine, OutboxLine, OutboxPage, Request};

/// `roost outbox`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --last or --all the last 100 that wait are listed, the oldest of them first. With --json, \
                  `outbox_total` says how many wait in all, `mails` has those that are listed; `ended` has at most 200.\n\n\
                  Examples:\n  roost outbox\n  roost outbox --last 5\n  roost outbox --all --json"
)]
pub(super) struct OutboxArgs {
    /// Only the last N that wait
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) last: u32,
    /// Every one that waits, however many
    #[arg(long, conflicts_with = "last")]
    pub(super) all: bool,
}

/// `roost outbox`.
pub(super) fn run(home: &Path, args: &OutboxArgs) -> anyhow::Result<Shown> {
    let control = Control::of(home);
    let mut lines: Vec<OutboxLine> = Vec::new();
    let wanted = if args.all { None } else { Some(args.last) };
    let total = loop {
        // Only the first page counts from the end; the others go on where it ended.
        let after = lines.last().map(|line| (line.at, line.submission));
        let last = wanted.filter(|_| after.is_none());
        let page: OutboxPage = control.ask(&Request::OutboxAfter { after, last })?;
        if page.lines.is_empty() {
            break page.total;
        }
        lines.extend(page.lines);
        // What comes in meanwhile is not followed for ever.
        if lines.len() >= page.total
            || wanted.is_some_and(|last| lines.len() >= usize::try_from(last).unwrap_or(usize::MAX))
        {
            break page.total;
        }
    };
    let ended: Vec<EndedLine> = control.ask(&Request::OutboxEnded)?;
    let now = system_wall();
    let text = outbox_text(&lines, total, now) + &ended_text(&ended, now);
    Shown::of(&json!({ "mails": lines, "outbox_total": total, "ended": ended }), text)
}
