//! A conventional system's figures for the same experiment, one JSON object a line, as the baseline's scripts write them. They are
//! read and averaged here, never measured.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::args::{Kind, short};
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
    conns: Option<u32>,
    connections: Option<u32>,
    mode: Option<String>,
    seconds_total: f64,
    cpu_s: f64,
    traffic_bytes: u64,
    /// Mails that were not what was submitted, and what was wrong.
    bad: Option<u64>,
    error: Option<serde_json::Value>,
}

impl Run {
    fn connections(&self) -> Option<u32> {
        self.conns.or(self.connections)
    }
    fn is_good(&self) -> bool {
        self.n > 0 && self.bad.unwrap_or_default() == 0 && self.error.as_ref().is_none_or(serde_json::Value::is_null)
    }
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
    /// Of the reader's traffic, where ours was counted as theirs.
    pub(in crate::cli::bench) traffic: Option<f64>,
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
                "{} has no good run of a conventional system: a line is a JSON object with kind, size, n, conns, seconds_total, cpu_s and traffic_bytes, and without mails that are bad",
                path.display()
            );
        }
        Ok(beside)
    }

    fn parse(text: &str) -> Self {
        let runs = text.lines().filter_map(|line| serde_json::from_str::<Run>(line).ok());
        let is_ours = |run: &Run| run.is_good() && run.mode.as_deref().is_none_or(|mode| mode == STREAM);
        Self { runs: runs.filter(is_ours).collect() }
    }

    /// What a mail with such an attachment costs there.
    pub(in crate::cli::bench) fn of(&self, kind: Kind, size: u64, connections: u32) -> Option<Conventional> {
        self.middle(|run| run.kind == kind.name() && run.size == size && run.connections() == Some(connections))
    }

    /// What a mail of a folder costs there whose mails differ in size, which is written as 0.
    fn of_folder(&self, connections: u32) -> Option<Conventional> {
        self.middle(|run| run.size == 0 && run.connections() == Some(connections))
    }

    fn middle(&self, such: impl Fn(&Run) -> bool) -> Option<Conventional> {
        let runs: Vec<&Run> = self.runs.iter().filter(|run| such(run)).collect();
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
        let theirs = match ours.of.size {
            Some(size) => self.of(ours.of.kind, size, ours.of.connections),
            None => self.of_folder(ours.of.connections),
        }?;
        Some(Ratio {
            total: ours.total_ms / theirs.total_ms,
            cpu: ours.cpu_ms / theirs.cpu_ms,
            traffic: ours.traffic_in_frames.then_some(ours.traffic_bytes / theirs.traffic_bytes),
        })
    }

    /// What there is instead, when not one of our rows has its like here.
    pub(in crate::cli::bench) fn unmatched(&self, ours: &[PerMail]) -> Option<String> {
        if self.runs.is_empty() || ours.iter().any(|row| self.ratio(row).is_some()) {
            return None;
        }
        let named = |run: &Run| {
            let size = if run.size == 0 { "several sizes".to_owned() } else { short(run.size) };
            let connections = run.connections().map_or_else(|| "?".to_owned(), |all| all.to_string());
            format!("{} of {size} over {connections} connections", run.kind)
        };
        let there: BTreeSet<String> = self.runs.iter().map(named).collect();
        let there = there.into_iter().collect::<Vec<_>>().join(", ");
        Some(format!(
            "nothing is compared: --beside has no run of the kind, size and connections of a row here; it has {there}"
        ))
    }

    /// Every size of a kind that there are runs of with so many connections, from the smallest.
    pub(in crate::cli::bench) fn sizes(&self, kind: Kind, connections: u32) -> Vec<u64> {
        let such = |run: &&Run| run.kind == kind.name() && run.connections() == Some(connections);
        let mut sizes: Vec<u64> = self.runs.iter().filter(such).map(|run| run.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

#[cfg(test)]
pub(in crate::cli::bench) mod tests {
    use super::super::rows::{Row, Wanted, medians, tests::run};
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
        assert!(
            (ratio.total - 0.5).abs() < 1e-9 && (ratio.traffic.unwrap() - 1024.0 / 2700.0).abs() < 1e-9,
            "{ratio:?}"
        );
        assert_eq!(Beside::default().ratio(&ours[0]), None);
        // What sockets passed on is less than whole frames.
        let (wanted, row) = run(1024, Kind::Text, 0.03);
        let sockets = medians(&[(wanted, Row { packets: 0, ..row })]);
        assert_eq!(Beside::parse(LINES).ratio(&sockets[0]).unwrap().traffic, None);
    }

    #[test]
    fn a_run_with_bad_mails_is_none_and_a_folder_stands_beside_a_folder() {
        let line = |end: &str| {
            format!(
                "{{\"kind\":\"mixed\",\"size\":0,\"n\":10,\"conns\":4,\"connections\":4,\"seconds_total\":1.0,\"cpu_s\":1.0,\"traffic_bytes\":100{end}}}\n"
            )
        };
        for bad in [",\"bad\":1", ",\"bad\":0,\"error\":[\"000001.eml\"]"] {
            assert!(Beside::parse(&line(bad)).runs.is_empty(), "{bad}");
        }
        let beside = Beside::parse(&line(",\"bad\":0,\"error\":null"));
        let (wanted, row) = run(1024, Kind::Text, 0.03);
        assert!(beside.ratio(&medians(&[(Wanted { size: None, ..wanted }, row)])[0]).is_some());
    }
}
