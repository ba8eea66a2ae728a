//! A cluster's folder that is used again: with another policy, with another file, and for a demo.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::ROOST;

/// Whatever happens, no peer is left behind.
struct Folder(tempfile::TempDir);

impl Folder {
    fn roost(&self, args: &[&str]) -> (Option<i32>, Value) {
        self.roost_at(self.0.path(), args)
    }

    fn roost_at(&self, home: &Path, args: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new(ROOST);
        let done = command.args(args).arg("--json").arg("--home").arg(home).stdin(Stdio::null()).output().unwrap();
        let out = String::from_utf8(done.stdout).unwrap();
        (done.status.code(), serde_json::from_str(out.lines().last().unwrap_or("null")).unwrap())
    }

    fn up(&self, name: &str, text: &str) -> (Option<i32>, Value) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        self.roost(&["cluster", "up", path.to_str().unwrap()])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.roost(&["cluster", "down"]);
    }
}

fn file(group: &str, max_mail: u8) -> String {
    let members = if group == "acme" { "\"alice\", \"bob\"" } else { "\"zed\"" };
    format!(
        "[[group]]\nname = \"{group}\"\nmembers = [{members}]\n\
         [group.replication]\nmode = \"full\"\ncopies = 1\nmax_mail = \"{max_mail} MiB\"\n"
    )
}

fn running(status: &Value) -> Vec<(&str, &str)> {
    let peers = status["peers"].as_array().unwrap().iter();
    peers.map(|peer| (peer["address"].as_str().unwrap(), peer["state"].as_str().unwrap())).collect()
}

#[test]
fn a_folder_used_again_has_the_policy_of_its_file_and_loses_no_peer() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let (code, said) = folder.up("one.toml", &file("acme", 3));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = folder.up("one.toml", &file("acme", 4));
    assert_eq!(code, Some(0), "{said}");
    let (_, policy) = folder.roost_at(&folder.0.path().join("alice"), &["group", "policy"]);
    assert!(policy["policy"].to_string().contains("4 MiB"), "{policy}");

    let (code, said) = folder.roost(&["demo"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said["error"].as_str().unwrap().contains("roost cluster down --home"), "{said}");
    let (_, status) = folder.roost(&["cluster", "status"]);
    assert_eq!(running(&status), [("alice@acme", "running"), ("bob@acme", "running")]);

    let (code, said) = folder.up("other.toml", &file("zoo", 3));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running(&said), [("zed@zoo", "running"), ("alice@acme", "running"), ("bob@acme", "running")]);
    let (code, said) = folder.roost(&["cluster", "down"]);
    assert_eq!((code, &said["stopped"]), (Some(0), &serde_json::json!(["zed@zoo", "alice@acme", "bob@acme"])));
}
