//! What can be typed after `roost bench`. It does nothing.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::accept::args::AcceptArgs;
use super::fetch::args::FetchArgs;
use super::lookup::args::LookupArgs;
use super::outbox::args::OutboxBenchArgs;
use super::receive::args::ReceiveArgs;
use super::replication::args::ReplicationArgs;
use crate::model::policy::{KOfN, MEMBERS_MAX};

/// `roost bench …`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BenchCommand {
    /// What the reader sends and gets when it accepts only some of the mails (the paper's Figure 5)
    Accept(AcceptArgs),
    /// How likely a mail can be had: closed forms, draws over the real placement code, and real peers killed
    Availability(AvailabilityArgs),
    /// How fast a mail comes from real peers behind limited uplinks: one source, whole copies by Range, fragments
    Fetch(FetchArgs),
    /// What a look-up in the DHT costs by the number of peers, beside Chord's ½ log2 N; under churn; whole groups for a week
    Lookup(LookupArgs),
    /// What an outbox of 100 000 mails costs: one mail more, one less, an idle hour, a start; beside smaller ones
    Outbox(OutboxBenchArgs),
    /// The paper's experiment: mails from one sender to one reader, by size; time, processor, traffic, beside a conventional system
    Receive(Box<ReceiveArgs>),
    /// What full copies and fragments cost: bytes stored and moved, time to safe, processor time, repair; by mail size
    Replication(ReplicationArgs),
}

/// Where plots go.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct PlotArgs {
    /// Writes the plots as SVG files into this folder
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) plots: Option<PathBuf>,
}

/// `roost bench availability`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roost bench availability --plots plots\n  \
                  roost bench availability --policy 3/9 --up 0.99,0.9 --trials 0\n  \
                  roost bench availability --trials 500                  3 000 mails, about ten minutes on two cores\n\n\
                  Each row of trials is a test at 1 %, so a few seeds end with exit code 1 though nothing is wrong: of the six rows that\n\
                  are tried by default, one seed in 67 with 30 trials and one in 35 with 500; never more than one in 17. A mail that\n\
                  is had or not against the rule is never chance.\n\n\
                  Closed forms: Kangasharju, Ross, Turner, equations 1 to 6; Bouwsma and Visser, 1 and 2; the binomial for k of n.")]
pub(in crate::cli) struct AvailabilityArgs {
    /// Fragments: any K of N
    #[arg(long, value_name = "K/N", default_value = "3/5")]
    pub(in crate::cli) policy: KSlashN,
    /// Whole copies beside it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(in crate::cli) copies: u8,
    /// Probabilities that a peer is up
    #[arg(long, value_delimiter = ',', default_values_t = [0.99, 0.9, 0.7, 0.5, 0.3], value_parser = probability)]
    pub(in crate::cli) up: Vec<f64>,
    /// Mails that are drawn for each figure
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(in crate::cli) draws: u32,
    /// Mails that a real reader opens while real peers are killed, for each way to keep them and each probability; 0 starts no
    /// peer
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(in crate::cli) trials: u32,
    /// Probabilities that a real peer is up in a trial
    #[arg(long, value_delimiter = ',', value_name = "UP,…", default_values_t = [0.9, 0.7, 0.5], value_parser = probability)]
    pub(in crate::cli) trial_up: Vec<f64>,
    /// Where the draws start: the same seed draws the same
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) seed: u64,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}

/// `3/5`: any 3 of 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct KSlashN(pub(in crate::cli) KOfN);

impl FromStr for KSlashN {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let parts = text.split_once('/').map(|(k, n)| (k.trim(), n.trim()));
        let Some((k, n)) = parts.filter(|(k, n)| is_number(k) && is_number(n)) else {
            return Err("write it as K/N, for example 3/5".to_owned());
        };
        match (k.parse(), n.parse()) {
            (Ok(k), Ok(n)) if 1 <= k && k <= n && n <= MEMBERS_MAX => Ok(Self(KOfN { k, n })),
            _ => Err(format!("{k}/{n} is impossible: 1 <= K <= N <= {MEMBERS_MAX} must hold")),
        }
    }
}

/// A probability; the ends are of no use in a bench.
fn probability(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(p) if p > 0.0 && p < 1.0 => Ok(p),
        _ => Err("a probability is a number above 0 and below 1, for example 0.9".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_k_slash_n() {
        assert_eq!("3/5".parse(), Ok(KSlashN(KOfN { k: 3, n: 5 })));
        for wrong in ["", "3", "3/", "0/5", "6/5", "3/101", "3/5/7", "-1/5"] {
            assert!(wrong.parse::<KSlashN>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_probability_is_between_0_and_1() {
        assert_eq!(probability("0.9"), Ok(0.9));
        for wrong in ["0", "1", "1.5", "-0.1", "NaN", "inf", "x"] {
            assert!(probability(wrong).is_err(), "{wrong}");
        }
    }
}
