//! What can be typed after `roost bench replication`. It does nothing.

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::bench::args::{KSlashN, PlotArgs};
use crate::model::{ByteSize, Span};

/// `roost bench replication`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roost bench replication --plots plots\n  \
                  roost bench replication --members 8 --mails 0        eight members, one lost: what its repair moves\n  \
                  roost bench replication --sizes 2KiB,64KiB,1MiB --mails 5 --repair-mails 0 --json\n  \
                  roost bench replication --mails 0 --mix 200 --repair-mails 0\n  \
                  roost bench replication --uplink 20 --sizes 64KiB,1MiB,8MiB\n\n\
                  The arms: full copies; fragments at equal storage (3/9 stores as much as 3 copies); fragments at equal losses survived\n\
                  (3/5 survives 2 losses, as 3 copies do); and, in the mix, the default policy, which keeps mails below whole_below whole.\n\
                  Peers are processes on this machine; run nothing else on it: what the loopback carries is counted for the whole machine.\n\
                  A group that has to notice a loss soon beats more often, every third of --lost-after: --lost-after \"30 s\" beats as usual.\n\
                  Attachments are random bytes, as compressed photos and archives are.\n\
                  The mix is an assumption, no measurement: of 100 mails 70 have 1 to 16 KiB, 15 have 16 to 128 KiB, 12 have 128 KiB\n\
                  to 2 MiB, 3 have 2 to 16 MiB, even in the logarithm within each class.")]
pub(in crate::cli) struct ReplicationArgs {
    /// Lengths of the mails' attachments
    #[arg(long, value_delimiter = ',', default_values = ["2KiB", "8KiB", "32KiB", "128KiB", "1MiB", "8MiB", "64MiB"])]
    pub(in crate::cli) sizes: Vec<ByteSize>,
    /// Turns of each arm at each size: a mail, or ten below 1 MiB; 0 leaves sizes out
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(in crate::cli) mails: u32,
    /// Mails of a realistic mix, for each arm the same; see below
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(in crate::cli) mix: u32,
    /// Where the draws of the mix start: the same seed draws the same
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) seed: u64,
    /// How often all of it is run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(in crate::cli) runs: u32,
    /// Fragments at equal losses survived: any K of N. At equal storage it is K of K times the copies
    #[arg(long, value_name = "K/N", default_value = "3/5")]
    pub(in crate::cli) policy: KSlashN,
    /// Whole copies: N - K + 1 survive as many losses [default: that]
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=20))]
    pub(in crate::cli) copies: Option<u8>,
    /// Members of the group, the sender counted; an arm that needs more is left out
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u8).range(4..=24))]
    pub(in crate::cli) members: u8,
    /// Only these [default: full, equal-storage, equal-losses; and default-policy in the mix]
    #[arg(long = "arm", value_name = "ARM", value_delimiter = ',')]
    pub(in crate::cli) arms: Vec<ArmArg>,
    /// Uplink of every peer, Mbit/s [default: no limit]
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..=4_000))]
    pub(in crate::cli) uplink: Option<u64>,
    /// Mails that wait while a member is killed; 0 leaves repair out
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(in crate::cli) repair_mails: u32,
    /// Length of each one's attachment
    #[arg(long, default_value = "2MiB")]
    pub(in crate::cli) repair_size: ByteSize,
    /// A killed member counts as lost after this
    #[arg(long, default_value = "6 s")]
    pub(in crate::cli) lost_after: Span,
    /// How long it is watched whether the group rests after a repair, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(in crate::cli) quiet: u32,
    /// Repairs only while the sender is there, not also while it is off
    #[arg(long)]
    pub(in crate::cli) only_with_sender: bool,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}

/// How mails are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum ArmArg {
    /// Whole copies
    Full,
    /// Fragments that store as much as the copies
    EqualStorage,
    /// Fragments that survive as many losses as the copies
    EqualLosses,
    /// As equal losses, but small mails whole, as the default config has it
    DefaultPolicy,
}
