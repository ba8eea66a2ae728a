//! What a drill ends with: a verdict for each rule, the availability over time, as text, JSON and plots. It decides nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::availability::Availability;
use super::verdict::RuleVerdict;
use crate::cli::bench::machine::{Machine, commit};
use crate::cli::output::Shown;

/// One scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    /// What went wrong besides its rules: it could not begin, or its plot cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
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

fn cannot(folder: &Path) -> String {
    format!("plots cannot be written to {}", folder.display())
}

/// Makes the folder of plots, and tries whether something can be written there.
pub(super) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| cannot(folder))?;
    try_to_write(folder).with_context(|| cannot(folder))
}

fn try_to_write(folder: &Path) -> std::io::Result<()> {
    let tried = folder.join(format!(".drill-{}", std::process::id()));
    std::fs::write(&tried, "")?;
    std::fs::remove_file(&tried)
}

impl Outcome {
    /// One that cannot run here.
    pub(super) fn skipped(scenario: &str, why: String) -> Self {
        Self { scenario: scenario.to_owned(), ok: true, skipped: Some(why), ..Self::default() }
    }

    /// One of which nothing is known.
    pub(super) fn failed(scenario: &str, why: String) -> Self {
        Self { scenario: scenario.to_owned(), failed: Some(why), ..Self::default() }
    }

    /// Something went wrong that is no verdict of a rule; what is known stays.
    pub(super) fn fails(&mut self, why: String) {
        (self.ok, self.failed) = (false, Some(why));
    }

    /// Writes its plot into `folder`, which is made when it is not there.
    pub(super) fn plot(&mut self, folder: Option<&Path>) -> anyhow::Result<()> {
        let (Some(folder), Some(availability)) = (folder, &self.availability) else { return Ok(()) };
        make_folder(folder)?;
        let path = folder.join(format!("drill-{}.svg", self.scenario));
        std::fs::write(&path, availability.chart(&self.scenario).svg()?).with_context(|| cannot(folder))?;
        self.plot = Some(path);
        Ok(())
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let broke = self.broken().next().is_some();
        let verdict = match (&self.skipped, &self.failed) {
            (Some(why), _) => return format!("{:<16} skipped: {why}", self.scenario),
            (None, Some(why)) if !broke => return format!("{:<16} FAILED: {why}", self.scenario),
            (None, _) if broke => "A RULE BROKE",
            (None, _) => "all rules held",
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
        if let Some(why) = self.failed.as_ref().filter(|_| self.broken().next().is_some()) {
            text.push_str(&format!("  failed: {why}\n"));
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

/// The scenarios of which this is so.
fn names(all: &[Outcome], is: impl Fn(&Outcome) -> bool) -> Vec<&str> {
    all.iter().filter(|outcome| is(outcome)).map(|outcome| outcome.scenario.as_str()).collect()
}

impl Report {
    /// Of these scenarios.
    pub(super) fn new(scenarios: Vec<Outcome>, seed: u64) -> Self {
        Self { scenarios, seed, commit: commit(), machine: Machine::this() }
    }

    /// As a command's answer.
    pub(super) fn shown(&self) -> anyhow::Result<Shown> {
        let broken = names(&self.scenarios, |outcome| outcome.broken().next().is_some());
        let failed = names(&self.scenarios, |outcome| outcome.failed.is_some());
        let skipped = self.scenarios.iter().filter(|outcome| outcome.skipped.is_some()).count();
        let mut text = format!("\ndrill at commit {}, seed {}\n{}\n\n", self.commit, self.seed, self.machine.line());
        text.extend(self.scenarios.iter().map(|outcome| outcome.text() + "\n"));
        text.push_str(&match (broken.is_empty(), failed.is_empty()) {
            (true, true) => format!("{} scenarios, {skipped} skipped: all rules held.", self.scenarios.len()),
            (true, false) => format!("FAILED: {}; no rule is known to have broken.", failed.join(", ")),
            (false, true) => format!("RULES BROKE in: {}.", broken.join(", ")),
            (false, false) => format!("RULES BROKE in: {}; FAILED: {}.", broken.join(", "), failed.join(", ")),
        });
        let shown = Shown::of(self, text)?;
        Ok(if self.scenarios.iter().all(|outcome| outcome.ok) { shown } else { shown.failed() })
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
            ..Outcome::default()
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

    #[test]
    fn what_could_not_begin_is_no_broken_rule_and_no_success() {
        let failed = Outcome::failed("empty-disk", "no space left".to_owned());
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!((json["ok"].as_bool(), json["failed"].as_str()), (Some(false), Some("no space left")));
        assert!(failed.text().ends_with("FAILED: no space left\n"), "{}", failed.text());
        let mut unplotted = Outcome { scenario: "f-dead".to_owned(), ok: true, ..Outcome::default() };
        unplotted.fails("plots cannot be written".to_owned());
        assert!(!unplotted.ok && unplotted.line().contains("FAILED: plots cannot be written"));
        let folder = tempfile::tempdir().unwrap();
        make_folder(&folder.path().join("plots")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(make_folder(&folder.path().join("file")).is_err());
    }
}
