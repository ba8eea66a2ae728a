//! Whether members reach this peer is tested by them, not guessed by it: `roost doctor` and `roost group join` say which port is
//! closed and what to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{ROOST, Team, wait_for};

fn roost(home: &Path, args: &[&str]) -> Output {
    Command::new(ROOST).args(args).arg("--home").arg(home).stdin(Stdio::null()).output().unwrap()
}

/// What `roost doctor` says that members found of `name`.
fn reached(team: &Team, name: &str) -> Vec<Value> {
    let done = roost(&team.home_dir(name), &["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    let tested = |check: &&Value| check.get("reach").is_some();
    said["checks"].as_array().unwrap().iter().filter(tested).cloned().collect()
}

#[test]
fn doctor_says_which_members_reach_this_peer_and_which_port_to_open_when_none_does() {
    let team = Team::of_three();
    let well = wait_for("both members have tested alice", || {
        let tested = reached(&team, "alice");
        (tested.len() == 2).then_some(tested)
    });
    for check in &well {
        assert_eq!(check["ok"], true, "{check}");
        let ports = check["reach"]["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 2, "{check}");
        assert!(ports.iter().all(|port| port["reached"] == true && port["why"].is_null()), "{check}");
        assert_eq!(ports[0]["port"], team.https_port("alice"), "{check}");
        assert!(check["what"].as_str().unwrap().contains("the mail port (HTTPS) at 127.0.0.1:"), "{check}");
    }

    // Whoever asks again at once waits a little, and is told the same.
    let again = roost(&team.home_dir("alice"), &["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&again.stdout).unwrap_or_else(|e| panic!("{e}: {again:?}"));
    let about = |check: &&Value| check["check"].as_str().is_some_and(|name| name.starts_with("reached by"));
    let checks: Vec<&Value> = said["checks"].as_array().unwrap().iter().filter(about).collect();
    assert!(checks.iter().all(|check| check["ok"] == true), "{checks:?}");
    assert!(checks.iter().any(|check| check.get("reach").is_some()), "a member tested it again: {checks:?}");

    // She says that she is where nobody listens, as behind a router that forwards nothing.
    team.configure("alice", "net", "announce = [\"127.0.0.2\"]");
    let closed = wait_for("both members have tested alice again", || {
        let tested = reached(&team, "alice");
        (tested.len() == 2).then_some(tested)
    });
    let port = team.https_port("alice");
    for check in &closed {
        assert_eq!((&check["ok"], &check["reach"]["reached"]), (&Value::Bool(false), &Value::Bool(false)), "{check}");
        let what = check["what"].as_str().unwrap();
        assert!(what.contains(&format!("127.0.0.2:{port}")) && what.contains("refused"), "{what}");
        assert!(what.contains(&format!("open TCP port {port} and")) && what.contains("NAT"), "{what}");
    }
    wait_for("doctor says so in words", || {
        let done = roost(&team.home_dir("alice"), &["doctor"]);
        let text = String::from_utf8(done.stdout).unwrap();
        // A member that was asked a moment ago tests nothing.
        let named = text.contains("BAD  reached by bob@acme") || text.contains("BAD  reached by carol@acme");
        (named && done.status.code() == Some(1)).then_some(())
    });
}

#[test]
fn a_join_says_loudly_that_no_member_reaches_the_new_one() {
    let team = Team::of_two();
    let invited = roost(&team.home_dir("alice"), &["group", "invite", "--as", "carol", "--json"]);
    let invited: Value = serde_json::from_slice(&invited.stdout).unwrap();
    let carol = team.folder().join("carol");
    assert!(roost(&carol, &["init", "carol@acme"]).status.success());
    let path = carol.join("config.toml");
    let config = fs::read_to_string(&path).unwrap().replace("announce = []", "announce = [\"127.0.0.2\"]");
    let config = config.replace("listen = \"0.0.0.0\"", "listen = \"127.0.0.1\"");
    fs::write(&path, config.replace("dial_private = false", "dial_private = true")).unwrap();
    let joined = roost(&carol, &["group", "join", invited["invite"].as_str().unwrap(), "--json"]);
    let said = String::from_utf8_lossy(&joined.stderr);
    assert!(joined.status.success(), "it is a member all the same: {said}");
    assert!(said.contains("WARNING: no member can reach this peer"), "{said}");
    assert!(said.contains("127.0.0.2:") && said.contains("open TCP port"), "{said}");
    let joined: Value = serde_json::from_slice(&joined.stdout).unwrap();
    assert!(joined["reach"].as_array().unwrap().iter().any(|check| check["reach"]["reached"] == false), "{joined}");
}
