//! `roost bench`: the papers' figures and ours, each as a table, one JSON object and plots. Every bench checks what it measures,
//! and says with what, on what and at which commit.

mod accept;
pub(super) mod args;
mod availability;
mod bars;
mod cpu;
mod fetch;
mod lookup;
pub(super) mod machine;
mod outbox;
pub(super) mod plot;
mod receive;
mod replication;
mod report;

use super::output::Shown;
use args::BenchCommand;

/// Runs one bench.
pub(super) fn run(command: &BenchCommand) -> anyhow::Result<Shown> {
    match command {
        BenchCommand::Accept(args) => accept::run(args),
        BenchCommand::Availability(args) => availability::run(args),
        BenchCommand::Fetch(args) => fetch::run(args),
        BenchCommand::Lookup(args) => lookup::run(args),
        BenchCommand::Outbox(args) => outbox::run(args),
        BenchCommand::Receive(args) => receive::run(args),
        BenchCommand::Replication(args) => replication::run(args),
    }
}
