//! Exit codes and `--json`, as scripts rely on them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{ROOST, wait_for};

fn roost(home: &Path, args: &[&str]) -> Output {
    Command::new(ROOST).args(args).arg("--home").arg(home).stdin(Stdio::null()).output().unwrap()
}

fn json(done: &Output) -> Value {
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn wrong_use_is_2_failure_is_1_and_done_is_0() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    for wrong in
        [&["frobnicate"][..], &["init", "nobody"], &["read"], &["read", "1", "--raw", "--json"], &["cluster", "kill"]]
    {
        assert_eq!(roost(&home, wrong).status.code(), Some(2), "{wrong:?}");
    }
    let done = roost(&home, &["status"]);
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("no peer is running on") && said.contains("roost up --home"), "{said}");
    assert!(done.stdout.is_empty());
    assert_eq!(roost(&home, &["init", "alice@acme"]).status.code(), Some(0));
    // Nothing would take the text, so none is asked for: its input is never read, nor closed.
    let mut send = Command::new(ROOST);
    send.args(["send", "--to", "bob@acme", "--home"]).arg(&home).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut send = send.spawn().unwrap();
    let ended = wait_for("roost send ends", || send.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
    assert_eq!(roost(&home, &["init", "alice@acme"]).status.code(), Some(1));
}

#[test]
fn json_is_one_object_on_the_last_line_in_success_and_failure() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let failed = json(&roost(&home, &["inbox", "--json"]));
    assert_eq!(failed["ok"], false);
    assert!(failed["error"].as_str().unwrap().contains("roost up"), "{failed}");
    let made = json(&roost(&home, &["init", "alice@acme", "--json"]));
    assert_eq!((&made["ok"], &made["address"]), (&true.into(), &"alice@acme".into()));
    let again = json(&roost(&home, &["init", "--new-password", "--json"]));
    assert_ne!(made["password"], again["password"]);
    let checks = json(&roost(&home, &["doctor", "--json"]));
    assert_eq!(checks["ok"], true, "{checks}");
    assert_eq!(json(&roost(&home, &["doctor", "--rebuild-index", "--json"]))["index"], "discarded");
}

#[test]
fn every_command_explains_itself() {
    let commands: [&[&str]; 14] = [
        &["demo"],
        &["init"],
        &["up"],
        &["group", "create"],
        &["group", "join"],
        &["cluster", "up"],
        &["send"],
        &["inbox"],
        &["read"],
        &["outbox"],
        &["card"],
        &["contacts", "add"],
        &["status"],
        &["doctor"],
    ];
    for command in commands {
        let done = Command::new(ROOST).args(command).arg("--help").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success() && said.contains("Usage: roost") && said.contains("--json"),
            "{command:?}: {said}"
        );
    }
}
