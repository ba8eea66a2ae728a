//! A conventional system's figures for the same experiment, one JSON object a line, as the baseline's scripts write them. They are
//! read and averaged here, never measured.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::args::Kind;
use super::rows::PerMail;
use crate::cli::bench::replication::measure::real;
use crate::cli::bench::report::median;

/// The way of running that is ours: submission, delivery and reading at the same time.
const STREAM: &str = "stream";

/// One run.
#[derive(Debug, Clone, Deserialize)]
struct Run {
    kind: String,
    size: u64,
    n: u32,
    #[serde(alias = "connections")]
    conns: u32,
    #[serde(default)]
    mode: Option<String>,
    seconds_total: f64,
    cpu_s: f64,
    traffic_bytes: u64,
}

/// The runs of a conventional system.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::bench) struct Beside {
    runs: Vec<Run>,
}

/// What one mail costs there: medians of the runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli::bench) struct Conventional {
    /// Milliseconds from the first connection to the last body read.
    pub(in crate::cli::bench) total_ms: f64,
    /// Milliseconds of processor time of all its processes.
    pub(in crate::cli::bench) cpu_ms: f64,
    /// Bytes to and from the reader's mail server.
    pub(in crate::cli::bench) traffic_bytes: f64,
}

/// Ours over theirs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(in crate::cli::bench) struct Ratio {
    /// Of the time in all.
    pub(in crate::cli::bench) total: f64,
    /// Of the processor time.
    pub(in crate::cli::bench) cpu: f64,
    /// Of the reader's traffic.
    pub(in crate::cli::bench) traffic: f64,
}

impl Beside {
    /// Those in the file at `path`; none where there is no file named.
    ///
    /// # Errors
    /// When it cannot be read, or has no run in it.
    pub(in crate::cli::bench) fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let beside = Self::parse(&text);
        if beside.runs.is_empty() {
            bail!(
                "{} has no run of a conventional system: a line is a JSON object with kind, size, n, conns, seconds_total, cpu_s and traffic_bytes",
                path.display()
            );
        }
        Ok(beside)
    }

    fn parse(text: &str) -> Self {
        let runs = text.lines().filter_map(|line| serde_json::from_str::<Run>(line).ok());
        Self { runs: runs.filter(|run| run.mode.as_deref().is_none_or(|mode| mode == STREAM)).collect() }
    }

    /// What a mail with such an attachment costs there.
    pub(in crate::cli::bench) fn of(&self, kind: Kind, size: u64, connections: u32) -> Option<Conventional> {
        let such = |run: &&Run| run.kind == kind.name() && run.size == size && run.conns == connections && run.n > 0;
        let runs: Vec<&Run> = self.runs.iter().filter(such).collect();
        let middle =
            |figure: &dyn Fn(&Run) -> f64| median(runs.iter().map(|run| figure(run) / f64::from(run.n)).collect());
        (!runs.is_empty()).then(|| Conventional {
            total_ms: middle(&|run| run.seconds_total * 1000.0),
            cpu_ms: middle(&|run| run.cpu_s * 1000.0),
            traffic_bytes: middle(&|run| real(run.traffic_bytes)),
        })
    }

    /// Ours over theirs, for one row.
    pub(in crate::cli::bench) fn ratio(&self, ours: &PerMail) -> Option<Ratio> {
        let theirs = self.of(ours.of.kind, ours.of.size?, ours.of.connections)?;
        Some(Ratio {
            total: ours.total_ms / theirs.total_ms,
            cpu: ours.cpu_ms / theirs.cpu_ms,
            traffic: ours.traffic_bytes / theirs.traffic_bytes,
        })
    }

    /// Every size of a kind that there are runs of with so many connections, from the smallest.
    pub(in crate::cli::bench) fn sizes(&self, kind: Kind, connections: u32) -> Vec<u64> {
        let such = |run: &&Run| run.kind == kind.name() && run.conns == connections;
        let mut sizes: Vec<u64> = self.runs.iter().filter(such).map(|run| run.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

#[cfg(test)]
pub(in crate::cli::bench) mod tests {
    use super::super::rows::{medians, tests::run};
    use super::*;

    /// Runs of the baseline, as it writes them, with other lines between.
    pub(in crate::cli::bench) const LINES: &str = r#"# a note
{"system":"postfix+dovecot","kind":"text","size":1024,"n":1000,"conns":4,"mode":"stream","seconds_total":4.0,"cpu_s":5.5,"traffic_bytes":2700000,"rate":null}
{"system":"postfix+dovecot","kind":"text","size":1024,"n":1000,"conns":4,"mode":"stream","seconds_total":8.0,"cpu_s":6.5,"traffic_bytes":2700000}
{"system":"postfix+dovecot","kind":"text","size":1024,"n":1000,"conns":4,"mode":"hold","seconds_total":99.0,"cpu_s":6.5,"traffic_bytes":2700000}
{"kind":"binary","size":10240,"n":100,"connections":4,"seconds_total":0.5,"cpu_s":0.8,"traffic_bytes":1640000}
"#;

    #[test]
    fn medians_of_what_ran_as_ours_did_are_taken() {
        let beside = Beside::parse(LINES);
        let text = beside.of(Kind::Text, 1024, 4).unwrap();
        assert!((text.total_ms - 6.0).abs() < 1e-9 && (text.cpu_ms - 6.0).abs() < 1e-9 && text.traffic_bytes == 2700.0);
        assert!(beside.of(Kind::Text, 1024, 1).is_none() && beside.of(Kind::Binary, 10_240, 4).is_some());
        assert_eq!(beside.sizes(Kind::Text, 4), [1024]);
    }

    #[test]
    fn a_ratio_is_ours_over_theirs() {
        let ours = medians(&[run(1024, Kind::Text, 0.03)]);
        let ratio = Beside::parse(LINES).ratio(&ours[0]).unwrap();
        assert!((ratio.total - 0.5).abs() < 1e-9 && (ratio.traffic - 1024.0 / 2700.0).abs() < 1e-9, "{ratio:?}");
        assert_eq!(Beside::default().ratio(&ours[0]), None);
    }
}
