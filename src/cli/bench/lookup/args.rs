//! What can be typed after `roost bench lookup`. It does nothing.

use clap::Args;

use crate::cli::bench::args::PlotArgs;
use crate::model::Span;

/// `roost bench lookup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roost bench lookup --plots plots\n  \
                  roost bench lookup --peers 10,30 --model 1000 --churn-peers 0 --group-peers 0       half a minute\n  \
                  roost bench lookup --peers 10,100,600 --look-ups 1000 --json\n  \
                  roost bench lookup --peers 10 --churn 0,60,240 --churn-peers 200 --churn-for 60s\n  \
                  roost bench lookup --peers 10 --churn-peers 0 --group-peers 1000 --group-for 7d\n\n\
                  Peers are this program's own swarms and DHT brains, all in this process, over libp2p's memory transport (with\n\
                  Noise and Yamux); 2 to 9 MB each. Rows with `model: true` are computed: the same walk over routing tables, by\n\
                  the swarms' own tables (\"own\"), or by drawn ones (\"drawn\"), which have up to 20 peers of every bucket.\n\
                  Chord's figure is ½ log2 N (Stoica et al.; Ramesh et al. built the papers' store on it).")]
pub(in crate::cli) struct LookupArgs {
    /// Real peers, for each row
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [10, 30, 100, 300], value_parser = clap::value_parser!(u32).range(2..=2_000))]
    pub(in crate::cli) peers: Vec<u32>,
    /// Peers of the model, for each row; it is also asked for the numbers of real peers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1_000, 3_000, 10_000], value_parser = clap::value_parser!(u32).range(2..=50_000))]
    pub(in crate::cli) model: Vec<u32>,
    /// Look-ups for each row, of random keys by random peers
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub(in crate::cli) look_ups: u32,
    /// Peers that leave, and as many that come, in a minute, while entries are put, read and deleted; for each row
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_values_t = [0, 30, 120], value_parser = clap::value_parser!(u32).range(0..=600))]
    pub(in crate::cli) churn: Vec<u32>,
    /// Real peers of those rows; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=2_000))]
    pub(in crate::cli) churn_peers: u32,
    /// How long each of those rows takes
    #[arg(long, value_name = "SPAN", default_value = "30 s")]
    pub(in crate::cli) churn_for: Span,
    /// Peers, in groups of up to 100, whose group brains run under virtual time while members fail and return; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(in crate::cli) group_peers: u32,
    /// How much virtual time passes for them; a week of 1 000 takes long
    #[arg(long, value_name = "SPAN", default_value = "1 h")]
    pub(in crate::cli) group_for: Span,
    /// Where all draws start: the same seed draws the same
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) seed: u64,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}
