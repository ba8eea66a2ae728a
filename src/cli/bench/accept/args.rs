//! What can be typed after `roost bench accept`. It does nothing.

use std::path::PathBuf;

use clap::Args;

use crate::cli::bench::args::PlotArgs;
use crate::cli::bench::receive::args::{GroupArg, Kind, NotifyArg, size};

/// `roost bench accept`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  roost bench accept --plots plots\n  roost bench accept --n 100 --accept 0,50,100 --json\n  \
                  roost bench accept --beside conventional.jsonl --plots plots\n\n\
                  Real peers as processes, new ones for each share: a sender and a reader in another group whose peer pulls a body when\n\
                  it is opened. As stubs come, the reader's mail program opens those that are accepted, compares them to the byte, and\n\
                  deletes the others unread. A conventional system carries every mail whatever its reader does."
)]
pub(in crate::cli) struct AcceptArgs {
    /// How many mails
    #[arg(long, visible_alias = "count", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::cli) n: u32,
    /// How many of a hundred mails the reader accepts; a row each
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', default_values_t = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100], value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(in crate::cli) accept: Vec<u32>,
    /// What the attachments are made of
    #[arg(long, default_value = "binary")]
    pub(in crate::cli) kind: Kind,
    /// Length of the attachments
    #[arg(long, default_value = "10K", value_parser = size)]
    pub(in crate::cli) size: u64,
    /// SMTP connections that submit at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in crate::cli) connections: u32,
    /// Where the sender is
    #[arg(long, default_value = "alone")]
    pub(in crate::cli) group: GroupArg,
    /// How the reader is told
    #[arg(long, default_value = "direct-first")]
    pub(in crate::cli) notify: NotifyArg,
    /// Counts traffic by the sockets of the processes even where a network namespace can be made
    #[arg(long)]
    pub(in crate::cli) no_namespace: bool,
    /// A conventional system's figures, a JSON object a line; they become a line in the plot and shares in the table
    #[arg(long, value_name = "FILE.jsonl")]
    pub(in crate::cli) beside: Option<PathBuf>,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}
