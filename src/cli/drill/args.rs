//! What can be typed after `roost drill`. It does nothing.

use clap::{Args, ValueEnum};

use crate::cli::bench::args::PlotArgs;

/// `roost drill`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each scenario runs a group of real peers under steady mail, makes something fail, heals it, and then says for every \
                  rule that it can check whether it held, and what was counted. Exit code 0: all rules held.\n\n\
                  Examples:\n  roost drill sender-dead\n  roost drill kill-storm --kills 1000 --plots plots\n  \
                  roost drill all --json\n  roost drill f-dead --home six          on your own running cluster; it asks first"
)]
pub(in crate::cli) struct DrillArgs {
    /// What fails
    #[arg(default_value = "all")]
    pub(in crate::cli) scenario: Name,
    /// Kills of the kill storm
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::cli) kills: u32,
    /// Where random choices start: the same seed chooses the same [default: drawn, and printed]
    #[arg(long)]
    pub(in crate::cli) seed: Option<u64>,
    /// Yes to the question before anything on a cluster of your own is made to fail
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Leaves the folders with homes and logs
    #[arg(long)]
    pub(in crate::cli) keep: bool,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(in crate::cli) enum Name {
    /// Each of the others, one after the other, within 30 minutes
    All,
    /// A sender is killed as soon as its mail is safe; readers open it all the same
    SenderDead,
    /// The sender and as many members as safe(f) says are killed; every mail is still read
    FDead,
    /// One member more is killed; what cannot be had is refused clearly, and comes back with any one of them
    FPlusOneDead,
    /// The acting master is killed; another acts, and what the first one held is made again
    MasterDead,
    /// The group is cut in two; both halves go on, and become one again (needs root, for network namespaces)
    Partition,
    /// A member is behind delay and breaking connections, and works a sixteenth of the time; nobody waits for it
    SlowMember,
    /// A member serves altered blocks, lacks what it said to hold, and forges what others must sign; nobody gets a wrong byte
    LyingMember,
    /// A member's and then a sender's disk is emptied; both get back what they had
    EmptyDisk,
    /// A peer's disk is lost and made anew from an older backup; nothing is lost, doubled or resurrected
    OldBackup,
    /// Clocks jump beyond the end of a mail's life, and back; nothing expires before its time
    ClockJump,
    /// Disks become full: mail is refused with a reason, and nothing that was taken is dropped
    DiskFull,
    /// Peers are killed at random moments, --kills times, while mail is sent, read, repaired and taken back
    KillStorm,
    /// Every peer is stopped and started in turn
    RollingRestart,
    /// Strangers fill the DHT with junk and put deleted entries back; mail is announced all the same, and once
    DhtJunk,
}

impl Name {
    /// As it is typed.
    pub(super) fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it stands for, in order.
    pub(super) fn each(self) -> Vec<Name> {
        match self {
            Name::All => Name::value_variants().iter().copied().filter(|name| *name != Name::All).collect(),
            one => vec![one],
        }
    }
}
