//! Look-ups in small, as `roost bench lookup` tells them.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::ROOST;

#[test]
fn the_bench_of_look_ups_tells_what_they_cost_and_checks_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Command::new(ROOST);
    bench.args(["bench", "lookup", "--peers", "5,25", "--model", "500", "--look-ups", "40", "--json"]);
    bench.args([
        "--churn",
        "60",
        "--churn-peers",
        "15",
        "--churn-for",
        "4 s",
        "--group-peers",
        "3",
        "--group-for",
        "6 h",
    ]);
    let done = bench.arg("--plots").arg(dir.path()).stdin(Stdio::null()).output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{out}\n{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(out.lines().count(), 1, "{out}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["bench"], "lookup");
    for key in ["commit", "machine", "parameters"] {
        assert!(!told[key].is_null(), "{key}: {told}");
    }
    let rows = |part: &str| -> Vec<Value> {
        told["rows"].as_array().unwrap().iter().filter(|row| row["part"] == part).cloned().collect()
    };
    let look_ups = rows("look-up");
    let seen: Vec<(u64, bool, &str)> = look_ups
        .iter()
        .map(|row| (row["peers"].as_u64().unwrap(), row["model"] == true, row["tables"].as_str().unwrap()))
        .collect();
    for peers in [5, 25] {
        for by in [(peers, false, "own"), (peers, true, "own"), (peers, true, "drawn")] {
            assert!(seen.contains(&by), "{by:?}: {seen:?}");
        }
    }
    assert!(seen.contains(&(500, true, "drawn")) && seen.len() == 7, "{seen:?}");
    for row in &look_ups {
        let chord = row["peers"].as_f64().unwrap().log2() / 2.0;
        assert!((row["chord"].as_f64().unwrap() - chord).abs() < 1e-9, "{row}");
        let mean = |what: &str| row[what]["mean"].as_f64().unwrap();
        assert!(mean("messages") >= 3.9 && mean("messages") < 60.0, "{row}");
        assert!(mean("hops") >= 1.0 && mean("hops") < 5.0 && row["right"].as_f64() > Some(0.9), "{row}");
    }
    assert_eq!(told["model_checked"].as_array().unwrap().len(), 2, "{told}");
    let churn = rows("churn").remove(0);
    assert!(churn["left"].as_u64() > Some(0) && churn["gets"].as_u64() > Some(0), "{churn}");
    assert_eq!(churn["values_wrong"], 0, "{churn}");
    let groups = rows("groups").remove(0);
    assert_eq!((groups["peers"].as_u64(), groups["lost_wrong"].as_u64()), (Some(3), Some(0)), "{groups}");
    assert!(groups["rest_messages_a_minute"].as_f64() < Some(60.0) && groups["rest_events"] == 0, "{groups}");
    let mut plots: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    plots.sort();
    assert_eq!(plots, ["lookup-hops.svg", "lookup-messages.svg"]);
}
