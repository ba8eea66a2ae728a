//! What a small outbox costs, as `roost bench outbox` tells it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::ROOST;

#[test]
fn the_bench_of_an_outbox_tells_what_one_mail_more_one_less_and_an_idle_hour_cost() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Command::new(ROOST);
    bench.args(["bench", "outbox", "--mails", "100", "--sizes", "100", "--each", "2", "--idle", "1s", "--json"]);
    let done = bench.arg("--plots").arg(dir.path()).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8(done.stdout).unwrap();
    assert_eq!(out.lines().count(), 1, "{out}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["bench"], "outbox");
    for key in ["commit", "machine", "parameters"] {
        assert!(!told[key].is_null(), "{key}: {told}");
    }
    let row = |what: &str| {
        let rows = told["rows"].as_array().unwrap();
        rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what}: {told}")).clone()
    };
    for what in ["fill", "idle", "more", "less", "start"] {
        let row = row(what);
        assert_eq!((row["mails"].as_u64(), row["members"].as_array().unwrap().len()), (Some(100), 2), "{row}");
        assert!(row["owner"]["rss_anon_bytes"].as_u64() > Some(1 << 20), "{row}");
    }
    // Of few mails in a short time no more than this is sure: idle traffic is taken off what one costs.
    let due = row("more")["part_and_manifest_bytes"].as_f64().unwrap();
    let filled = row("fill")["members"][0]["from_owner_bytes"].as_f64().unwrap();
    assert!(due > 500.0 && filled > 500.0, "the members pulled {filled} bytes a mail, of which {due} are due");
    let mut plots: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    plots.sort();
    let expected = ["bytes", "cpu", "idle", "start", "written"].map(|name| format!("outbox-{name}.svg"));
    assert_eq!(plots, expected);
}
