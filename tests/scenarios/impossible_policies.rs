//! Policies that cannot be, by every door through which one can come: each is refused with what is wrong and what would do, and
//! nothing changes.

use std::fs;
use std::process::{Command, Output, Stdio};

use roost::console::protocol::{GroupStatus, Request};
use roost::model::policy::KOfN;
use roost::model::{Mode, Policy};

use crate::harness::{ROOST, Team};

fn roost(args: &[&str]) -> Output {
    Command::new(ROOST).args(args).stdin(Stdio::null()).output().unwrap()
}

/// It fails with `code` and says each of `says`.
fn refused(args: &[&str], code: i32, says: &[&str]) {
    let done = roost(args);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
    assert!(says.iter().all(|word| said.contains(word)), "{args:?}, {says:?}: {said}");
}

const RANGE: &str = "1 <= k <= n <= 100 must hold";
const BENCH_RANGE: &str = "1 <= K <= N <= 100 must hold";
const FORM: &str = "write it as K/N, for example 3/5";

#[test]
fn a_bench_refuses_an_impossible_policy_before_it_starts_a_peer() {
    for bench in ["fetch", "replication", "availability"] {
        for (policy, why) in [
            ("0/5", BENCH_RANGE),
            ("6/5", BENCH_RANGE),
            ("0/0", BENCH_RANGE),
            ("3/101", BENCH_RANGE),
            ("3/300", BENCH_RANGE),
            ("99999999999/99999999999", BENCH_RANGE),
            ("-1/5", FORM),
            ("3/", FORM),
            ("/5", FORM),
            ("3/5/7", FORM),
            ("3 5", FORM),
            ("3.0/5", FORM),
            ("", FORM),
            (" ", FORM),
        ] {
            refused(&["bench", bench, &format!("--policy={policy}")], 2, &["--policy", why]);
        }
    }
    let few = ["bench", "fetch", "--policy", "3/9", "--uplinks", "20,20,20,20,20"];
    refused(&few, 2, &["9 members", "--uplinks names 5"]);
    for mode in ["none", "", "3/5"] {
        refused(&["demo", &format!("--mode={mode}")], 2, &["--mode", "[possible values: full, fragments]"]);
    }
}

#[test]
fn a_cluster_file_with_an_impossible_policy_is_refused_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, home) = (dir.path().join("team.toml"), dir.path().join("team"));
    for (policy, why) in [
        ("fragments = { k = 0, n = 5 }", RANGE),
        ("fragments = { k = 6, n = 5 }", RANGE),
        ("fragments = { k = 3, n = 101 }", RANGE),
        ("fragments = { k = 3, n = 300 }", "line 5"),
        ("fragments = { k = -1, n = 5 }", "line 5"),
        ("fragments = { k = 3 }", "missing field `n`"),
        ("fragments = \"3/5\"", "line 5"),
        ("mode = \"full\"\ncopies = 0", "from 1 to 100"),
        ("mode = \"half\"", "unknown variant `half`"),
        ("copies = 2", "set copies to at least 3"),
        ("life = \"31 d\"", "at most 30 d"),
    ] {
        let text =
            format!("[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\"]\n[group.replication]\n{policy}\n");
        fs::write(&file, text).unwrap();
        let args = ["cluster", "up", file.to_str().unwrap(), "--home", home.to_str().unwrap()];
        refused(&args, 1, &["team.toml", "correct it and start again", why]);
        assert!(!home.join("alice").exists(), "{policy}: nothing was made");
    }
}

#[test]
fn a_group_refuses_an_impossible_policy_says_what_would_do_and_keeps_the_one_it_has() {
    let team = Team::of_three();
    let home = team.peer("alice").home;
    let home = home.to_str().unwrap();
    let before: GroupStatus = team.ask("alice", &Request::GroupStatus);
    let policy = |args: &[&str], code, says: &[&str]| {
        refused(&[&["group", "policy", "--home", home], args].concat(), code, says);
    };
    for (args, says) in [
        (&["--mode", "fragments", "--k", "0", "--n", "2"][..], &[RANGE, "k = 0"][..]),
        (&["--mode", "fragments", "--k", "3", "--n", "2"], &[RANGE, "k = 3, n = 2"]),
        (&["--n", "101"], &[RANGE, "n = 101"]),
        (&["--mode", "full", "--copies", "0"], &["copies = 0", "from 1 to 100"]),
        (&["--mode", "full", "--copies", "101"], &["copies = 101", "from 1 to 100"]),
        (&["--life", "31 d"], &["at most 30 d"]),
        (&["--life", "0 s"], &["more than 0"]),
        // Possible, but not for a group of three.
        (
            &["--mode", "fragments", "--k", "2", "--n", "3", "--copies", "2"],
            &["a group of 3 is too small", "copies up to 2 would do"],
        ),
        (&["--mode", "full", "--copies", "3"], &["a group of 3 is too small", "copies up to 2 would do"]),
    ] {
        policy(args, 1, says);
    }
    for (args, says) in [
        (&["--n", "300"][..], &["300", "0..=255"][..]),
        (&["--k=-1"], &["-1", "0..=255"]),
        (&["--k", "3x"], &["3x", "--k"]),
        (&["--k", ""], &["--k"]),
        (&["--copies", "1e9"], &["--copies"]),
        (&["--mode", "half"], &["[possible values: full, fragments]"]),
    ] {
        policy(args, 2, says);
    }
    // Who asks the peer without the command is refused too.
    for (k, n, copies) in [(0, 5, 5), (6, 5, 5), (3, 255, 255), (0, 0, 0)] {
        let policy = Policy { mode: Mode::Fragments, fragments: KOfN { k, n }, copies, ..before.policy.clone() };
        let said = team.try_ask::<GroupStatus>("alice", &Request::GroupPolicy { policy }).unwrap_err();
        assert!(said.contains("impossible") && said.contains("must hold"), "{said}");
    }
    let after: GroupStatus = team.ask("alice", &Request::GroupStatus);
    assert_eq!((after.policy, after.version), (before.policy, before.version));
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 100_000));
    team.wait_until_safe(&mail, 1);
}
