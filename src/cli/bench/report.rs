//! What every bench ends with: a table for people, one JSON object for programs, plots in a folder. It measures nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::machine::{Machine, commit};
use super::plot::Chart;
use crate::cli::output::Shown;

/// The result of one bench: `{bench, commit, machine, parameters, rows}`.
#[derive(Debug, Serialize)]
pub(super) struct Report<P, R> {
    /// Its name.
    pub(super) bench: &'static str,
    /// The commit that was measured.
    pub(super) commit: String,
    /// On what.
    pub(super) machine: Machine,
    /// With what.
    pub(super) parameters: P,
    /// What was measured.
    pub(super) rows: Vec<R>,
    /// What follows from the rows, by names of their own.
    #[serde(flatten)]
    pub(super) findings: serde_json::Map<String, serde_json::Value>,
    /// The plots that were written.
    pub(super) plots: Vec<PathBuf>,
}

impl<P: Serialize, R: Serialize> Report<P, R> {
    /// What `bench` measured, on this machine.
    pub(super) fn new(bench: &'static str, parameters: P, rows: Vec<R>) -> Self {
        Self {
            bench,
            commit: commit(),
            machine: Machine::this(),
            parameters,
            rows,
            findings: serde_json::Map::new(),
            plots: Vec::new(),
        }
    }

    /// Writes the plots as SVG files `BENCH-NAME.svg` into `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn plot(&mut self, folder: Option<&Path>, charts: &[(&str, Chart)]) -> anyhow::Result<()> {
        for (name, chart) in charts {
            self.plot_svg(folder, name, chart.svg()?)?;
        }
        Ok(())
    }

    /// The same for a plot that is SVG already.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn plot_svg(&mut self, folder: Option<&Path>, name: &str, svg: String) -> anyhow::Result<()> {
        let Some(folder) = folder else {
            return Ok(());
        };
        let cannot = || format!("plots cannot be written to {}", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        let path = folder.join(format!("{}-{name}.svg", self.bench));
        std::fs::write(&path, svg).with_context(cannot)?;
        self.plots.push(path);
        Ok(())
    }

    /// As a command's answer: for people the run's particulars, then `text`, then where the plots are.
    ///
    /// # Errors
    /// When a row is no JSON.
    pub(super) fn shown(&self, text: &str) -> anyhow::Result<Shown> {
        let mut all = format!("{} at commit {}\n{}\n\n{text}", self.bench, self.commit, self.machine.line());
        for plot in &self.plots {
            all.push_str(&format!("\nplot: {}", plot.display()));
        }
        Shown::of(self, all)
    }
}

/// Columns under each other: words to the left, numbers to the right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let starts_a_word = |row: &Vec<String>, i: usize| {
        row.get(i).is_some_and(|text| text.chars().next().is_some_and(char::is_alphabetic))
    };
    let words: Vec<bool> = (0..head.len()).map(|i| rows.iter().any(|row| starts_a_word(row, i))).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(widths.iter().zip(&words));
        let padded = cells.map(|(text, (&width, is_word))| match is_word {
            true => format!("{text:<width$}"),
            false => format!("{text:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// The value in the middle, or between the two there; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(one)) => *one,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["whole".to_owned(), "7".to_owned()], vec!["fragments".to_owned(), "1234".to_owned()]];
        assert_eq!(table(&["arm", "bytes"], &rows), "arm        bytes\nwhole          7\nfragments   1234");
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
