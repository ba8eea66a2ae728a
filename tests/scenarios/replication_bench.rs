//! `roost bench replication` from outside: it stores what theory says, repairs a lost member, and leaves nothing behind.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::ROOST;

/// Runs the bench with its temporary folder below `temp`; gives the last line of its standard output.
fn bench(temp: &std::path::Path, args: &[&str]) -> Value {
    let mut command = Command::new(ROOST);
    let done = command.args(["bench", "replication", "--json"]).args(args).env("TMPDIR", temp).output().unwrap();
    let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{said}");
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap()
}

fn rows<'a>(report: &'a Value, what: &str) -> Vec<&'a Value> {
    report["rows"].as_array().unwrap().iter().filter(|row| row["what"] == what).collect()
}

#[test]
fn the_bench_of_replication_stores_what_theory_says_and_repairs_a_lost_member() {
    let temp = tempfile::tempdir().unwrap();
    let plots = temp.path().join("plots");
    // Any 2 of 3 survives one loss, as two copies do; five members are a sender, three holders, and one to spare.
    let group = ["--policy", "2/3", "--members", "5", "--arm", "full,equal-losses"];
    let sizes = ["--sizes", "2KiB,1MiB", "--mails", "1"];
    let repair = ["--repair-mails", "3", "--repair-size", "64KiB", "--lost-after", "6 s", "--quiet", "1"];
    let out = ["--only-with-sender", "--plots", plots.to_str().unwrap()];
    let report = bench(temp.path(), &[&group[..], &sizes, &repair, &out].concat());

    let kept = rows(&report, "keep");
    assert_eq!(kept.len(), 6, "two sizes of two arms, and full copies in both comparisons: {report}");
    for row in kept {
        assert_eq!(row["mails"], row["verified_mails"], "{row}");
        let theory = if row["arm"] == "full 2 copies" { 2.0 } else { 1.5 };
        assert_eq!(row["theory_ratio"], theory, "{row}");
        // A manifest for each part, which weighs little beside a large mail.
        let most = if row["size"] == 1 << 20 { theory * 1.03 } else { theory * 2.0 };
        let stored = row["stored_ratio"].as_f64().unwrap();
        assert!(stored >= theory && stored <= most, "{stored}: {row}");
        // On a busy machine a part may have been pulled twice.
        let moved = row["moved_ratio"].as_f64().unwrap();
        assert!(moved >= theory && moved <= theory * 3.0, "{moved}: {row}");
        assert!(
            row["seconds_to_safe"].as_f64().unwrap() > 0.0 && row["allocated_bytes"].as_u64().unwrap() > 0,
            "{row}"
        );
    }
    let repaired = rows(&report, "repair");
    assert_eq!(repaired.len(), 3, "{report}");
    for row in repaired {
        assert!(row["lost_parts"].as_u64().unwrap() > 0 && row["repaired_from"] == "sender", "{row}");
        // How much that was, and whether nothing followed, is for a machine that does nothing else to show.
        assert!(row["must_move_bytes"].as_u64().unwrap() > 0 && row["repair_bytes"].as_u64().unwrap() > 0, "{row}");
        assert!(row["quiet_bytes"].is_u64() && row["repair_seconds"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["verified_mails"], 3, "{row}");
    }
    let below = &report["whole_copies_win_below_bytes"];
    assert!(below["equal_losses"].get("stored_bytes").is_some() && below["equal_storage"].is_null(), "{below}");
    assert!(report["machine"]["cores"].is_u64() && report["parameters"]["members"] == 5, "{report}");
    for name in ["stored", "disk", "moved", "safe", "cpu", "repair"] {
        assert!(plots.join(format!("replication-{name}.svg")).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "only the plots are left");
}

#[test]
fn a_bench_of_replication_that_compares_nothing_is_refused() {
    let done = Command::new(ROOST).args(["bench", "replication", "--copies", "9"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && said.contains("--copies 3"), "{said}");
}
