//! Progress bars and the lines of a story, on standard error and only where a person sees them. It never writes to standard
//! output, so that `--json` stays one line.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Shows how far one piece of work is.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on standard error, if that is a terminal.
    pub(super) fn start(text: &str) -> Self {
        let seen = std::io::stderr().is_terminal();
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {msg}"));
        bar.set_message(text.to_owned());
        if seen {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// How far it is, in words, and in percent when that is known.
    pub(super) fn at(&self, text: &str, percent: Option<u8>) {
        if let Some(percent) = percent {
            if self.bar.length().is_none() {
                self.bar.set_length(100);
                self.bar.set_style(style("{bar:30} {pos:>3} % {msg}"));
            }
            self.bar.set_position(u64::from(percent.min(100)));
        }
        self.bar.set_message(text.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Tells what long work does, step by step. The library's callers (tests) may pass [`Report::silent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    told: bool,
}

impl Report {
    /// Lines on standard error.
    pub fn to_people() -> Self {
        Self { told: true }
    }
    /// Nothing.
    pub fn silent() -> Self {
        Self { told: false }
    }
    /// One line.
    pub(super) fn line(self, text: &str) {
        if self.told {
            output::note(text);
        }
    }
    /// A spinner for what is under way, when it is told at all.
    pub(super) fn under_way(self, text: &str) -> Option<Progress> {
        self.told.then(|| Progress::start(text))
    }
}
