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
        "partition",
        "slow-member",
        "lying-member",
        "empty-disk",
        "old-backup",
        "clock-jump",
        "disk-full",
        "kill-storm",
        "rolling-restart",
        "dht-junk",
    ];
    let missing: Vec<&str> = scenarios.into_iter().filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "{missing:?}: {help}");
    assert_eq!(drill(&["nonsense"]).status.code(), Some(2));
}

#[test]
fn a_drill_with_a_dead_sender_says_of_every_rule_that_it_held_and_leaves_nothing_behind() {
    let (plots, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = Command::new(ROOST);
    command.args(["drill", "sender-dead", "--json", "--seed", "7", "--plots"]).arg(plots.path());
    let done = command.env("TMPDIR", temporary.path()).stdin(Stdio::null()).output().unwrap();
    let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{out}\n{said}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((told["ok"].as_bool(), told["seed"].as_u64()), (Some(true), Some(7)));
    let scenario = &told["scenarios"][0];
    assert_eq!((&scenario["scenario"], &scenario["ok"]), (&"sender-dead".into(), &true.into()), "{scenario}");
    assert!(scenario["seconds"].as_f64() > Some(1.0) && scenario["mails"].as_u64() > Some(5), "{scenario}");
    let rules = scenario["rules"].as_array().unwrap();
    for rule in ["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R9", "R10", "R11", "R12"] {
        let verdict =
            rules.iter().find(|verdict| verdict["rule"] == rule).unwrap_or_else(|| panic!("{rule}: {scenario}"));
        assert!(verdict["ok"] == true && !verdict["why"].as_str().unwrap().is_empty(), "{verdict}");
    }
    assert!(!scenario["availability"]["points"].as_array().unwrap().is_empty(), "{scenario}");
    assert!(plots.path().join("drill-sender-dead.svg").exists());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "its folder is gone, and its peers with it");
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
