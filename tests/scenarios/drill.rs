//! A drill as its users see it: the help, the JSON, the exit code.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{ROOST, Team};

fn drill(args: &[&str]) -> Output {
    Command::new(ROOST).arg("drill").args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_help_has_a_line_for_each_scenario() {
    let help = String::from_utf8(drill(&["--help"]).stdout).unwrap();
    let named = |name: &str| help.lines().any(|line| line.trim().starts_with(&format!("- {name}: ")));
    let scenarios = [
        "all",
        "sender-dead",
        "f-dead",
        "f-plus-one-dead",
        "master-dead",
        "slow-member",
        "lying-member",
        "empty-disk",
        "old-backup",
        "disk-full",
        "kill-storm",
        "rolling-restart",
    ];
    let missing: Vec<&str> = scenarios.into_iter().filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "{missing:?}: {help}");
    assert_eq!(drill(&["nonsense"]).status.code(), Some(2));
}

#[test]
fn a_cluster_of_ones_own_is_not_touched_without_a_yes() {
    let team = Team::of_three();
    let home = team.folder();
    let refused = drill(&["sender-dead", "--json", "--home", home.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert!(said["error"].as_str().unwrap().contains("--yes"), "{said}");
    let pids: Vec<_> = team.peers().into_iter().map(|peer| peer.pid).collect();
    assert!(pids.iter().all(Option::is_some), "all run as before");
    let nowhere = drill(&["sender-dead", "--yes", "--home", home.join("none").to_str().unwrap()]);
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
}
