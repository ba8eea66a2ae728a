//! What can be typed after `roost bench fetch`. It does nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::bench::args::{KSlashN, PlotArgs};
use crate::model::ByteSize;

/// `roost bench fetch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roost bench fetch --uplinks 20,20,20,20,20 --size 64MiB\n  \
                  roost bench fetch --uplinks 5,10,20,40,80 --runs 3 --plots plots\n  \
                  roost bench fetch --fault dying --json\n  \
                  roost bench fetch --fault all --policy 3/9 --uplinks 20,20,20,20,20,20,20,20,20\n  \
                  roost bench fetch --stopped-sender --runs 20\n\n\
                  The bound: with fragments k*s for the largest s with sum(min(uplink, s)) >= k*s, with whole copies the sum of the\n\
                  uplinks; sources with a fault do not count. Peers are processes on this machine; their uplinks are `[net] upload_limit`.")]
pub(in crate::cli) struct FetchArgs {
    /// Uplinks of the members that hold the mail, Mbit/s; its sender is off
    #[arg(long, value_name = "MBIT,…", value_delimiter = ',', default_values_t = [20, 20, 20, 20, 20], value_parser = clap::value_parser!(u64).range(1..=4_000))]
    pub(in crate::cli) uplinks: Vec<u64>,
    /// Length of the mail's attachment, bytes that do not compress [default: 64MiB; 1MiB with --stopped-sender]
    #[arg(long)]
    pub(in crate::cli) size: Option<ByteSize>,
    /// Fragments: any K of N; N is the number of uplinks
    #[arg(long, value_name = "K/N", default_value = "3/5")]
    pub(in crate::cli) policy: KSlashN,
    /// What is wrong with sources
    #[arg(long, default_value = "none")]
    pub(in crate::cli) fault: FaultArg,
    /// Only these [default: all of them, in turns]
    #[arg(long = "arm", value_name = "ARM", value_delimiter = ',')]
    pub(in crate::cli) arms: Vec<ArmArg>,
    /// How often each is run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(in crate::cli) runs: u32,
    /// Measures the time to the first verified block instead, while the sender accepts and never answers; "cold" after a restart
    /// of the reader's peer, without connections and without its index
    #[arg(long)]
    pub(in crate::cli) stopped_sender: bool,
    /// Writes the plot to this SVG file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) svg: Option<PathBuf>,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}

impl FetchArgs {
    /// The arms that are run.
    pub(in crate::cli) fn arms(&self) -> Vec<ArmArg> {
        if self.arms.is_empty() { ArmArg::value_variants().to_vec() } else { self.arms.clone() }
    }
}

/// How a mail is kept and pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum ArmArg {
    /// One whole copy from one peer, as in the papers
    Single,
    /// Whole copies, by Range from all that have one
    Ranged,
    /// Fragments, any k blocks of each stripe
    Fragments,
}

impl ArmArg {
    /// As it is typed.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            ArmArg::Single => "single",
            ArmArg::Ranged => "ranged",
            ArmArg::Fragments => "fragments",
        }
    }
}

/// What is wrong with sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum FaultArg {
    /// Nothing
    None,
    /// One is dead from the start
    Dead,
    /// One is killed midway
    Dying,
    /// One sends 1 KB/s
    Slow,
    /// One serves altered blocks
    Lying,
    /// All four at once, on nine sources or more
    All,
}
