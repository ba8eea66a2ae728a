//! A drill on a team's own cluster on this machine: asks first, and leaves the cluster as it found it, running. It never begins
//! without a yes.

use std::io::{BufRead, Write as _};
use std::path::Path;

use nix::sys::signal::Signal;

use super::args::{DrillArgs, Name};
use crate::cli::cluster::ClusterDir;
use crate::cli::demo::stage::Stage;
use crate::cli::output::WrongUse;
use crate::cli::progress::Report;
use crate::model::Address;

fn wrong<T>(why: String) -> anyhow::Result<T> {
    Err(WrongUse { why }.into())
}

/// The cluster in `home`, if all of it runs and its user says yes.
pub(super) fn ask(home: &Path, args: &DrillArgs) -> anyhow::Result<()> {
    let cluster = open(home)?;
    let folder = cluster.home().display();
    let file = cluster.made_of().or_else(|e| wrong(format!("{e:#}")))?;
    let running = cluster.who_runs()?;
    if let Some((missing, _)) = file.peers().find(|(address, _)| !running.contains(address)) {
        return wrong(format!("{missing} does not run; roost cluster start {missing} --home {folder} starts it"));
    }
    if file.groups.first().is_none_or(|group| group.members.len() < 3) {
        return wrong(format!(
            "the first group in {folder} has fewer than three members: nothing of it can fail and be read"
        ));
    }
    if args.yes {
        return Ok(());
    }
    let what = what_it_does(&folder.to_string(), &args.scenario.each());
    let mut error = std::io::stderr().lock();
    // Whoever cannot see the question does not say yes.
    let _ = write!(error, "{what}\nGo on? [y/N] ").and_then(|()| error.flush());
    answered(std::io::stdin().lock(), &what)
}

/// Goes on after a line that says yes, typed or from another program.
fn answered(mut from: impl BufRead, what: &str) -> anyhow::Result<()> {
    let mut answer = String::new();
    // An input that cannot be read answers as little as one that is at its end.
    let read = from.read_line(&mut answer).unwrap_or(0);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ if read == 0 => wrong(format!("{what} Nobody answered, and nothing was done; --yes says yes.")),
        _ => wrong("nothing was done; --yes says yes without a question".to_owned()),
    }
}

/// What somebody who says yes should know.
fn what_it_does(folder: &str, scenarios: &[Name]) -> String {
    let names: Vec<String> =
        scenarios.iter().copied().filter(|name| why_not(*name).is_none()).map(Name::word).collect();
    let junk = match scenarios.contains(&Name::DhtJunk) {
        true => " dht-junk leaves junk in what they keep of the DHT, for an hour.",
        false => "",
    };
    format!(
        "This kills and restarts peers of the cluster in {folder}, and empties or falsifies what they hold for each other, as the \
         scenarios say ({}).{junk} Mail that its users send meanwhile goes through the same.",
        names.join(", ")
    )
}

fn open(home: &Path) -> anyhow::Result<ClusterDir> {
    let program = std::env::current_exe()?;
    ClusterDir::at(home, &program, Report::to_people()).or_else(|e| wrong(format!("{e:#}")))
}

/// Why a scenario does not run on a team's own peers, when it does not.
pub(super) fn why_not(name: Name) -> Option<&'static str> {
    match name {
        Name::Partition | Name::ClockJump => Some("a team's own peers have this machine's network and clock"),
        Name::OldBackup => Some("what came to a team's own peer since the backup would be gone from its mailboxes"),
        Name::DiskFull => Some("a team's own mail is not moved to a small disk"),
        _ => None,
    }
}

/// A stage on it for one scenario. Afterwards every peer runs, as before.
pub(super) fn stage(home: &Path) -> anyhow::Result<Stage> {
    let cluster = open(home)?;
    let file = cluster.made_of()?;
    let everybody: Vec<Address> = file.peers().map(|(address, _)| address).collect();
    let stage = Stage::of_running(cluster.clone(), file, Report::to_people())?;
    stage.at_end(move || {
        for peer in &everybody {
            // One that does not run is started below.
            let _ = cluster.signal(peer, Signal::SIGCONT);
        }
        if let Err(error) = cluster.start(&everybody) {
            let home = cluster.home().display();
            let text = format!("not all peers run again: {error:#}; roost cluster status --home {home} says which");
            crate::cli::output::note(&text);
        }
    });
    Ok(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_says_yes_is_a_yes_wherever_it_comes_from_and_silence_is_none() {
        assert!(["y\n", "Y\n", "yes\r\n", "y"].into_iter().all(|said| answered(said.as_bytes(), "").is_ok()));
        for said in ["", "n\n", "\n", "yesterday\n"] {
            let refused = answered(said.as_bytes(), "This kills.").unwrap_err().to_string();
            assert!(refused.contains("--yes") && refused.contains("nothing was done"), "{said:?}: {refused}");
            assert_eq!(refused.starts_with("This kills."), said.is_empty(), "who saw no question is told what it does");
        }
    }

    #[test]
    fn the_question_names_what_is_played_and_what_stays_for_a_while() {
        let all = what_it_does("/six", &Name::All.each());
        assert!(all.contains("kill-storm") && all.contains("junk in what they keep of the DHT, for an hour"), "{all}");
        assert!(!all.contains("old-backup"), "it is skipped: {all}");
        assert!(!what_it_does("/six", &Name::SenderDead.each()).contains("junk"));
    }
}
