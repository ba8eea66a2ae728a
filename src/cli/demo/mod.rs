//! `roost demo`: the main job on this machine. Real peers, real SMTP and IMAP, real SIGKILL; it looks at the peers only from
//! outside, as their users do, and never reaches into one.

mod asked;
pub mod imap_client;
pub(super) mod letter;
mod measure;
pub(super) mod play;
pub mod smtp_client;
pub(super) mod stage;

use std::path::Path;

use serde::Serialize;

use super::args::DemoArgs;
use super::cluster::ClusterStatus;
use super::cluster::commands::logins;
use super::output::{self, Shown};
use crate::config::cluster::Cluster;
use crate::console::protocol::Source;
use crate::model::{Address, Mode};
use stage::Stage;

/// The cluster that is built in.
const CLUSTER: &str = include_str!("../../../cluster-config/demo.toml");

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DemoReport {
    /// Length of the mail as submitted.
    mail_bytes: u64,
    /// Length of the sealed mail.
    sealed_bytes: u64,
    /// Whether the reader got what was submitted, to the byte.
    identical: bool,
    /// How the mail was kept.
    policy: Kept,
    /// safe(f) before anybody was killed.
    safe: i32,
    /// The sender, then members that held the mail.
    killed: Vec<Address>,
    /// What came from whom.
    sources: Vec<Source>,
    /// How long each step took.
    seconds: Seconds,
    /// Bytes on disk.
    stored_bytes: Stored,
    /// Bytes on disk at the owner and the members, had whole copies to survive as many losses.
    stored_bytes_if_full: u64,
    /// What goes on after it, with `--keep`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    running: Option<ClusterStatus>,
}

/// How a mail was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Kept {
    mode: Mode,
    /// Parts that a reader needs.
    k: u8,
    /// Parts that members hold.
    n: u8,
}

/// How long each step took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
struct Seconds {
    /// From the connection to the 250.
    submit: f64,
    /// From the 250 until safe(f) was what the policy promises.
    safe: f64,
    /// From the 250 until the reader's mailbox showed the mail.
    stub: f64,
    /// From opening it to its last byte, with the sender and members dead.
    fetch: f64,
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Stored {
    /// In the sender's outbox.
    owner: u64,
    /// In all mirrors together.
    members: u64,
}

/// Does what was asked.
pub(super) fn run(home: Option<&Path>, args: &DemoArgs) -> anyhow::Result<Shown> {
    let mut cluster = Cluster::parse("demo.toml", CLUSTER)?;
    for group in &mut cluster.groups {
        group.replication.mode = args.mode.into();
    }
    let own = asked::check(args, &cluster)?;
    let mut stage = Stage::new("demo", home, cluster)?;
    let mut report = play::play(&stage, args, own)?;
    let mut text = text(&report);
    if args.keep {
        let status = stage.cluster.status()?;
        text.push_str(&format!("\nIt goes on in {}:\n\n{}", status.home.display(), logins(&status)));
        text.push_str(&format!("End it with: roost cluster down --home {}\n", status.home.display()));
        stage.leave();
        report.running = Some(status);
    }
    let shown = Shown::of(&report, text)?;
    Ok(if report.identical { shown } else { shown.failed() })
}

fn text(report: &DemoReport) -> String {
    let total: u64 = report.sources.iter().map(|source| source.bytes).sum();
    let mut out = String::from("\n");
    for source in &report.sources {
        let share = source.bytes.saturating_mul(30).checked_div(total).unwrap_or_default();
        let bar = "█".repeat(usize::try_from(share).unwrap_or_default());
        out.push_str(&format!("  {:<14} {:>9}  {bar}\n", source.address, output::size(source.bytes)));
    }
    let Stored { owner, members } = report.stored_bytes;
    let stored = owner.saturating_add(members);
    out.push_str(&format!(
        "\n{}\nOn disk: {} in all ({} at the sender, {} at the members); full copies that survive as much: {}.\n",
        if report.identical {
            "What the reader got is what was submitted, to the byte."
        } else {
            "WHAT THE READER GOT IS NOT WHAT WAS SUBMITTED."
        },
        output::size(stored),
        output::size(owner),
        output::size(members),
        output::size(report.stored_bytes_if_full)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_what_is_promised() {
        let report = DemoReport {
            mail_bytes: 9,
            sealed_bytes: 8,
            identical: true,
            policy: Kept { mode: Mode::Fragments, k: 3, n: 5 },
            safe: 2,
            killed: vec!["alice@acme".parse().unwrap()],
            sources: vec![Source { address: "dave@acme".to_owned(), bytes: 8, bad_blocks: 0 }],
            seconds: Seconds::default(),
            stored_bytes: Stored { owner: 8, members: 14 },
            stored_bytes_if_full: 32,
            running: None,
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["policy"], serde_json::json!({ "mode": "fragments", "k": 3, "n": 5 }));
        assert_eq!(json["sources"][0], serde_json::json!({ "address": "dave@acme", "bytes": 8, "bad_blocks": 0 }));
        for key in ["submit", "safe", "stub", "fetch"] {
            assert!(json["seconds"][key].is_f64());
        }
        assert!(text(&report).contains("to the byte") && text(&report).contains("32 B"));
        assert!(json.get("home").is_none() && json.get("peers").is_none() && json.get("running").is_none());
        let running = Some(ClusterStatus { home: "/somewhere".into(), peers: Vec::new() });
        let json = serde_json::to_value(DemoReport { running, ..report }).unwrap();
        assert_eq!((&json["home"], &json["peers"]), (&"/somewhere".into(), &serde_json::json!([])));
    }

    #[test]
    fn the_built_in_cluster_is_a_group_of_six_and_a_reader() {
        let cluster = Cluster::parse("demo.toml", CLUSTER).unwrap();
        assert_eq!(cluster.peers().count(), 7);
    }
}
