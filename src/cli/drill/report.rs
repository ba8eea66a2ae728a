//! What a drill ends with: a verdict for each rule, the availability over time, as text, JSON and plots. It decides nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::availability::Availability;
use super::verdict::RuleVerdict;
use crate::cli::bench::machine::{Machine, commit};
use crate::cli::output::Shown;

/// One scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Outcome {
    /// Its name.
    pub(super) scenario: String,
    /// Whether all its rules held, or it was skipped.
    pub(super) ok: bool,
    /// How long it took.
    pub(super) seconds: f64,
    /// Mails that were taken with 250.
    pub(super) mails: usize,
    /// A verdict for each rule that it checks.
    pub(super) rules: Vec<RuleVerdict>,
    /// Why it cannot run here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) skipped: Option<String>,
    /// What of it could not be done here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<String>,
    /// What could be had, over time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) availability: Option<Availability>,
    /// Its plot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plot: Option<PathBuf>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Each scenario.
    pub(super) scenarios: Vec<Outcome>,
    /// Where random choices started.
    pub(super) seed: u64,
    /// What was drilled.
    pub(super) commit: String,
    /// On what.
    pub(super) machine: Machine,
}

impl Outcome {
    /// One that cannot run here.
    pub(super) fn skipped(scenario: &str, why: String) -> Self {
        Self {
            scenario: scenario.to_owned(),
            ok: true,
            seconds: 0.0,
            mails: 0,
            rules: Vec::new(),
            skipped: Some(why),
            left_out: Vec::new(),
            availability: None,
            plot: None,
        }
    }

    /// Writes its plot into `folder`, which is made when it is not there.
    pub(super) fn plot(&mut self, folder: Option<&Path>) -> anyhow::Result<()> {
        let (Some(folder), Some(availability)) = (folder, &self.availability) else { return Ok(()) };
        let cannot = || format!("plots cannot be written to {}", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        let path = folder.join(format!("drill-{}.svg", self.scenario));
        std::fs::write(&path, availability.chart(&self.scenario).svg()?).with_context(cannot)?;
        self.plot = Some(path);
        Ok(())
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let verdict = match (&self.skipped, self.ok) {
            (Some(why), _) => return format!("{:<16} skipped: {why}", self.scenario),
            (None, true) => "all rules held",
            (None, false) => "A RULE BROKE",
        };
        format!("{:<16} {verdict}; {} mails, {:.0} s", self.scenario, self.mails, self.seconds)
    }

    /// The rules that broke, a line each.
    pub(super) fn broken(&self) -> impl Iterator<Item = String> {
        self.rules.iter().filter(|verdict| !verdict.ok).map(line_of)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = self.line() + "\n";
        if self.skipped.is_some() {
            return text;
        }
        for verdict in &self.rules {
            text.push_str(&(line_of(verdict) + "\n"));
        }
        if let Some(availability) = &self.availability {
            let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"));
            text.push_str(&format!(
                "  had  {} {} of {} mails at the first try",
                availability.sparkline(),
                share(availability.measured),
                availability.asked
            ));
            if let Some(form) = &availability.form {
                text.push_str(&format!("; closed form {} ({form})", share(availability.closed_form)));
            }
            text.push('\n');
        }
        for left_out in &self.left_out {
            text.push_str(&format!("  left out: {left_out}\n"));
        }
        if let Some(plot) = &self.plot {
            text.push_str(&format!("  plot: {}\n", plot.display()));
        }
        text
    }
}

fn line_of(RuleVerdict { rule, ok, why }: &RuleVerdict) -> String {
    format!("  {rule:<4} {} {why}", if *ok { "held " } else { "BROKE" })
}

impl Report {
    /// Of these scenarios.
    pub(super) fn new(scenarios: Vec<Outcome>, seed: u64) -> Self {
        Self { scenarios, seed, commit: commit(), machine: Machine::this() }
    }

    /// As a command's answer.
    pub(super) fn shown(&self) -> anyhow::Result<Shown> {
        let broken: Vec<&str> =
            self.scenarios.iter().filter(|outcome| !outcome.ok).map(|outcome| outcome.scenario.as_str()).collect();
        let skipped = self.scenarios.iter().filter(|outcome| outcome.skipped.is_some()).count();
        let mut text = format!("\ndrill at commit {}, seed {}\n{}\n\n", self.commit, self.seed, self.machine.line());
        text.extend(self.scenarios.iter().map(|outcome| outcome.text() + "\n"));
        text.push_str(&match broken.is_empty() {
            true => format!("{} scenarios, {skipped} skipped: all rules held.", self.scenarios.len()),
            false => format!("RULES BROKE in: {}.", broken.join(", ")),
        });
        let shown = Shown::of(self, text)?;
        Ok(if broken.is_empty() { shown } else { shown.failed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_what_is_promised_and_a_broken_rule_is_seen() {
        let verdict = RuleVerdict { rule: "R2".to_owned(), ok: false, why: "1 of 9 taken mails are lost".to_owned() };
        let outcome = Outcome {
            scenario: "sender-dead".to_owned(),
            ok: false,
            seconds: 1.5,
            mails: 9,
            rules: vec![verdict],
            skipped: None,
            left_out: Vec::new(),
            availability: None,
            plot: None,
        };
        let json = serde_json::to_value(&outcome).unwrap();
        let expected = serde_json::json!({
            "scenario": "sender-dead", "ok": false, "seconds": 1.5, "mails": 9,
            "rules": [{ "rule": "R2", "ok": false, "why": "1 of 9 taken mails are lost" }]
        });
        assert_eq!(json, expected);
        assert!(outcome.text().contains("R2   BROKE 1 of 9"));
        assert_eq!(outcome.broken().collect::<Vec<_>>(), ["  R2   BROKE 1 of 9 taken mails are lost"]);
        let skipped = Outcome { ok: true, skipped: Some("no root".to_owned()), ..outcome };
        assert!(skipped.text().ends_with("skipped: no root\n"));
    }
}
