//! `roost demo` from outside: its JSON, its options, and that it leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::ROOST;

/// Runs a demo whose temporary folder is below `temp`; gives the last line of its standard output.
fn demo(temp: &Path, args: &[&str]) -> Value {
    let done = Command::new(ROOST).arg("demo").arg("--json").args(args).env("TMPDIR", temp).output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{out}\n{said}");
    let last = out.lines().last().unwrap_or_default();
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(last).unwrap()
}

fn check(report: &Value, killed: usize) {
    assert_eq!((&report["ok"], &report["identical"]), (&true.into(), &true.into()), "{report}");
    assert_eq!(report["killed"].as_array().unwrap().len(), killed, "{report}");
    assert_eq!(report["killed"][0], "alice@acme");
    for key in ["submit", "safe", "stub", "fetch"] {
        assert!(report["seconds"][key].as_f64().unwrap() >= 0.0, "{report}");
    }
    let sources = report["sources"].as_array().unwrap();
    let bytes: u64 = sources.iter().map(|source| source["bytes"].as_u64().unwrap()).sum();
    assert!(bytes >= report["sealed_bytes"].as_u64().unwrap(), "{report}");
    assert!(sources.iter().all(|s| !report["killed"].as_array().unwrap().contains(&s["address"]) || s["bytes"] == 0));
    assert!(report["stored_bytes"]["members"].as_u64().unwrap() > 0 && report["stored_bytes_if_full"].is_u64());
}

#[test]
fn the_demo_does_the_main_job_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let report = demo(temp.path(), &["--size", "2MiB"]);
    check(&report, 3);
    assert_eq!(report["policy"], serde_json::json!({ "mode": "fragments", "k": 3, "n": 5 }));
    let members = report["stored_bytes"]["members"].as_u64().unwrap();
    assert!(members < report["sealed_bytes"].as_u64().unwrap() * 2, "{report}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_takes_ones_own_mail_and_full_copies() {
    let temp = tempfile::tempdir().unwrap();
    let mail = temp.path().join("own.eml");
    fs::write(&mail, format!("From: me@example.org\nTo: you@example.org\nSubject: own\n\n{}", "text\n".repeat(40_000)))
        .unwrap();
    let report = demo(temp.path(), &["--mode", "full", "--kill", "1", "--mail", mail.to_str().unwrap()]);
    check(&report, 2);
    assert_eq!(report["policy"]["mode"], "full");
}
