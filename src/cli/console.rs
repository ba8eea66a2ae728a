//! `roost console`: the address of a running peer's web page, with the token that opens it. It starts nothing.

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::control::Control;
use super::output::Shown;
use crate::console::login::ConsoleToken;
use crate::console::protocol::{PeerStatus, Request};
use crate::store::home::Home;

/// `roost console`.
///
/// # Errors
/// When no peer runs on the home, or its page is switched off.
pub(super) fn run(home: &Path) -> anyhow::Result<Shown> {
    let home = Home::at(home).initialised()?;
    let status: PeerStatus = Control::of(home.root()).ask(&Request::Status)?;
    let Some(console) = status.ports.console else {
        bail!("this peer has no web page: set `enabled = true` under [console] in config.toml and start it again");
    };
    let token = ConsoleToken::of(&home)?;
    let url = format!("http://{console}/login?token={}", token.expose());
    let text =
        format!("{url}\n\nOpen it on this machine. Whoever has the link can see and cancel what this peer sends.");
    Shown::of(&json!({ "console": console, "url": url }), text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{CommandFactory as _, Parser as _};

    use crate::cli::args::Cli;

    /// Commands in the code blocks of a page, as words.
    fn commands(page: &str) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let blocks = text.split("```").skip(1).step_by(2);
        let lines = blocks.flat_map(str::lines).map(|line| line.split(['#', '<']).next().unwrap_or_default().trim());
        let lines = lines.filter(|line| line.starts_with("roost "));
        let words =
            |line: &str| line.split_whitespace().filter(|w| *w != "&").map(|w| w.replace(['\'', '"'], "")).collect();
        lines.map(words).collect()
    }

    #[test]
    fn every_command_that_the_runbook_and_the_readme_name_can_be_typed() {
        for page in ["ops/runbook.md", "README.md"] {
            let all = commands(page);
            assert!(all.len() > 10, "{page}");
            for command in all {
                if let Err(error) = Cli::try_parse_from(&command) {
                    panic!("{page}: {}: {error}", command.join(" "));
                }
            }
        }
    }

    /// Examples in the help of a command and of those below it, as words.
    fn examples(command: &clap::Command) -> Vec<Vec<String>> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let line = |line: &str| {
            let typed = line.rsplit("| ").next().unwrap_or_default().trim();
            let typed = typed.split("  ").next().unwrap_or_default().split(['<', '>']).next().unwrap_or_default();
            let words = typed.split_whitespace().map(str::to_owned).collect();
            typed.starts_with("roost ").then_some(words)
        };
        help.lines().filter_map(line).chain(command.get_subcommands().flat_map(examples)).collect()
    }

    #[test]
    fn every_example_of_every_help_can_be_typed() {
        let all = examples(&Cli::command());
        assert!(all.len() > 20, "{all:?}");
        for example in all {
            if let Err(error) = Cli::try_parse_from(&example) {
                panic!("{}: {error}", example.join(" "));
            }
        }
    }

    #[test]
    fn every_alert_has_its_section_in_the_runbook() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops");
        let runbook = std::fs::read_to_string(root.join("runbook.md")).unwrap();
        let anchor = |title: &str| title.to_lowercase().replace(' ', "-");
        let sections: Vec<String> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
        let alerts = std::fs::read_to_string(root.join("alerts.yml")).unwrap();
        for link in alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: \"ops/runbook.md#")) {
            assert!(sections.iter().any(|section| section == link.trim_end_matches('"')), "{link}: {sections:?}");
        }
        let rules = alerts.matches("- alert: ").count();
        assert_eq!(rules, alerts.matches("runbook: ").count());
    }
}
