//! What can be typed after `roost bench outbox`. It does nothing.

use clap::Args;

use crate::cli::bench::args::PlotArgs;
use crate::model::Span;

/// `roost bench outbox`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  roost bench outbox --plots plots\n  roost bench outbox --mails 1000 --idle 10s\n  \
                  roost bench outbox --mails 30000 --sizes 1000,10000 --json\n\n\
                  Real peers as processes: an owner, members that hold every mail whole, a reader that is told of every mail and\n\
                  opens none. The outbox is filled by SMTP. Bytes are the payload of TCP connections between the peers, as the kernel\n\
                  counts it; processor, disk and memory are /proc's."
)]
pub(in crate::cli) struct OutboxBenchArgs {
    /// Mails in the largest outbox
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(in crate::cli) mails: u32,
    /// Smaller outboxes on the way there, at which the same is measured [default: 100,1000,10000]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(in crate::cli) sizes: Option<Vec<u32>>,
    /// Members besides the owner; each holds every mail
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=12))]
    pub(in crate::cli) members: u8,
    /// How many mails more, and less, are averaged
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(in crate::cli) each: u32,
    /// How long the group is watched while nothing happens; told as an hour
    #[arg(long, default_value = "60 s")]
    pub(in crate::cli) idle: Span,
    /// SMTP connections that fill the outbox
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(in crate::cli) connections: u32,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}

impl OutboxBenchArgs {
    /// The outboxes that are measured, from the smallest to the largest.
    pub(in crate::cli) fn sizes(&self) -> Vec<u32> {
        let smaller = self.sizes.clone().unwrap_or_else(|| vec![100, 1_000, 10_000]);
        let mut all: Vec<u32> = smaller.into_iter().filter(|size| *size < self.mails).chain([self.mails]).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
