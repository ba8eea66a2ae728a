//! A disk that dies takes a home with it, and nothing more: out of a backup that was made while the peer ran, the same peer
//! comes back with its mail, keys, pins and what it still had to deliver (R2, R5).

use std::fs;
use std::path::Path;
use std::process::Command;

use roost::console::protocol::{Contact, GroupStatus, OutboxLine, Request};
use serde_json::Value;

use crate::harness::{Mail, ROOST, Team, wait_for};

/// Runs `roost` on a home; gives its one JSON line.
fn roost(home: &Path, args: &[&str]) -> Value {
    let mut command = Command::new(ROOST);
    command.args(args).arg("--json").arg("--home").arg(home);
    let out = command.output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

fn pins(team: &Team, name: &str) -> String {
    let group: GroupStatus = team.ask(name, &Request::GroupStatus);
    let contacts: Vec<Contact> = team.ask(name, &Request::Contacts);
    assert!(!contacts.is_empty());
    let members: Vec<_> = group.members.iter().map(|m| (&m.address, m.peer_id)).collect();
    format!("{:?} {:?} {members:?} {contacts:?}", group.group, group.key)
}

/// How the letter's receivers stand in the outbox of `from`.
fn states(team: &Team, from: &str) -> Vec<(String, String)> {
    let lines: Vec<OutboxLine> = team.ask(from, &Request::Outbox);
    let receivers = lines.into_iter().flat_map(|line| line.receivers);
    let mut states: Vec<_> = receivers.map(|(address, state)| (address.to_string(), state)).collect();
    states.sort();
    states
}

/// Waits until `from` has announced its mail to `to`.
fn announced(team: &Team, from: &str, to: &str) {
    let to = team.address(to).to_string();
    wait_for("the mail is announced", || {
        states(team, from).contains(&(to.clone(), "announced".to_owned())).then_some(())
    });
}

fn received_once(team: &Team, name: &str, mail: &Mail) {
    let mut reader = team.reader(name);
    reader.reads_every_byte_of(mail);
    assert_eq!(reader.uids_of(mail).len(), 1, "{name} has it once");
}

#[test]
fn a_home_that_is_lost_comes_back_from_a_backup_with_mail_keys_pins_and_what_it_had_to_deliver() {
    let team = Team::of_six();
    let home = team.home("alice").root().to_owned();
    // Read already, read by nobody yet, and not to be had by its reader now.
    let kept = team.submit("bob", &["alice"], team.letter("bob", "alice", 200_000));
    let stub = team.submit("carol", &["alice"], team.letter("carol", "alice", 300_000));
    let mut alice = team.reader("alice");
    alice.reads_every_byte_of(&kept);
    let uid = alice.sees(&kept);
    alice.imap.command(&format!("UID STORE {uid} +FLAGS (\\Flagged \\Seen)")).unwrap();
    let last_uid = uid.max(alice.sees(&stub));
    drop(alice);
    team.stop(&["frank"]);
    let pending = team.submit("alice", &["frank"], team.letter("alice", "frank", 400_000));
    announced(&team, "alice", "frank");
    let pins_before = pins(&team, "alice");

    let file = team.folder().join("alice.backup");
    let file = file.to_str().unwrap();
    let written = roost(&home, &["backup", file]);
    assert_eq!((&written["ok"], &written["missing"]), (&Value::Bool(true), &serde_json::json!([])), "{written}");
    assert!(roost(&home, &["backup", file])["error"].as_str().unwrap().contains("--force"));
    assert_eq!(roost(&home, &["backup", file, "--force"])["ok"], true);
    let refused = roost(&home, &["init", "--restore", file]);
    assert!(refused["error"].as_str().unwrap().contains("not empty"), "{refused}");

    team.kill(&["alice"]);
    fs::remove_dir_all(&home).unwrap();
    let refused = roost(&home, &["init", "bob@acme", "--restore", file]);
    assert!(refused["error"].as_str().unwrap().contains("alice@acme") && !home.exists(), "{refused}");
    let restored = roost(&home, &["init", "alice@acme", "--restore", file]);
    assert_eq!(restored["peer_id"], written["peer_id"], "{restored}");
    team.start(&["alice"]);

    assert_eq!(pins(&team, "alice"), pins_before);
    let mut alice = team.reader("alice");
    assert_eq!(alice.sees(&kept), uid);
    alice.reads_every_byte_of(&kept);
    assert!(alice.imap.fetch_items(uid, "FLAGS").unwrap().contains("\\Flagged"));
    alice.reads_every_byte_of(&stub);
    team.start(&["frank"]);
    received_once(&team, "frank", &pending);
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    received_once(&team, "frank", &pending);
    // A mail program that knew newer messages than the backup takes no other one for them.
    let new = team.submit("bob", &["alice"], team.letter("bob", "alice", 1_000));
    assert!(alice.sees(&new) > last_uid + 1_000_000, "UIDs may have been given out since the backup");
    let again = team.submit("alice", &["bob"], team.letter("alice", "bob", 70_000));
    received_once(&team, "bob", &again);
}

#[test]
fn a_backup_of_a_peer_that_is_stopped_is_taken_under_its_lock() {
    let team = Team::of_two();
    let mail = team.submit("bob", &["alice"], team.letter("bob", "alice", 5_000));
    team.reader("alice").reads_every_byte_of(&mail);
    team.stop(&["alice"]);
    let home = team.home("alice").root().to_owned();
    let file = team.folder().join("stopped.backup");
    let written = roost(&home, &["backup", file.to_str().unwrap()]);
    assert_eq!(written["ok"], true, "{written}");
    assert!(!home.join("backup").exists(), "nothing is left of it");
    fs::remove_dir_all(&home).unwrap();
    assert_eq!(roost(&home, &["init", "--restore", file.to_str().unwrap()])["ok"], true);
    team.start(&["alice"]);
    team.reader("alice").reads_every_byte_of(&mail);
    assert_eq!(roost(&home, &["status"])["attention"], serde_json::json!([]));
}

#[test]
fn backups_while_mail_comes_and_goes_are_each_of_one_moment() {
    let team = Team::of_two();
    let home = team.home("alice").root().to_owned();
    let done = std::sync::atomic::AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut bob = team.reader("bob");
            for _ in 0..25 {
                // Sealed, pulled and freed; filed straight from the spool; come from another peer and opened.
                let to_bob = team.submit("alice", &["bob"], team.letter("alice", "bob", 20_000));
                team.submit("alice", &["alice"], team.letter("alice", "alice", 5_000));
                bob.reads_every_byte_of(&to_bob);
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut taken = Vec::new();
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            assert!(!traffic.is_finished() || done.load(std::sync::atomic::Ordering::Acquire), "the traffic broke off");
            let file = team.folder().join(format!("{}.backup", taken.len()));
            let written = roost(&home, &["backup", file.to_str().unwrap()]);
            assert_eq!(
                (&written["ok"], &written["missing"]),
                (&Value::Bool(true), &serde_json::json!([])),
                "{written}"
            );
            taken.push(file);
        }
        taken
    });
    assert!(taken.len() > 2, "{} backups", taken.len());
    let half = &taken[taken.len() / 2];
    for file in [&taken[0], half, &taken[taken.len() - 1]] {
        let place = team.folder().join("restored");
        assert_eq!(roost(&place, &["init", "--restore", file.to_str().unwrap()])["ok"], true);
        fs::remove_dir_all(&place).unwrap();
    }
    team.kill(&["alice"]);
    fs::remove_dir_all(&home).unwrap();
    roost(&home, &["init", "--restore", half.to_str().unwrap()]);
    team.start(&["alice"]);
    let status = roost(&home, &["status"]);
    assert_eq!(status["brains"]["postbox"]["damaged"], 0, "{}", status["attention"]);
    // Bob's msglist may name a mail that was sealed after this backup, until his word that he opened it has come.
    wait_for("nothing is missing", || {
        let missing = roost(&home, &["status"])["brains"]["outbox"]["missing"].clone();
        (missing == serde_json::json!([])).then_some(())
    });
}

/// Alice's home, lost and restored from `file`; she runs when this returns.
fn lose_and_restore(team: &Team, file: &Path) {
    let home = team.home("alice").root().to_owned();
    team.kill(&["alice"]);
    fs::remove_dir_all(&home).unwrap();
    assert_eq!(roost(&home, &["init", "--restore", file.to_str().unwrap()])["ok"], true);
    team.start(&["alice"]);
}

fn back_up(team: &Team) -> std::path::PathBuf {
    let (home, file) = (team.home("alice").root().to_owned(), team.folder().join("alice.backup"));
    assert_eq!(roost(&home, &["backup", file.to_str().unwrap()])["ok"], true);
    file
}

#[test]
fn a_mail_sent_after_the_backup_comes_back_from_the_members_and_is_delivered_by_its_owner() {
    let team = Team::of_six();
    let file = back_up(&team);
    team.stop(&["rita"]);
    let fragments = team.submit("alice", &["rita"], team.letter("alice", "rita", 700_000));
    let sealed = team.wait_until_safe(&fragments, 2);
    assert_eq!(sealed.encoding, "fragments 3 of 5");
    lose_and_restore(&team, &file);

    let home = team.home("alice");
    wait_for("the sealed mail is in the outbox again", || {
        let missing = team.status("alice").brains["outbox"]["missing"].clone();
        (missing == serde_json::json!([]) && home.outbox_blob(&sealed.h).exists()).then_some(())
    });
    announced(&team, "alice", "rita");
    // Its reader can have it from nobody but its owner.
    team.kill(&["bob", "carol", "dave", "erin", "frank"]);
    team.start(&["rita"]);
    received_once(&team, "rita", &fragments);
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    assert_eq!(team.reader("rita").uids_of(&fragments).len(), 1);
}

#[test]
fn a_mail_in_the_backup_reaches_an_outside_reader_that_was_off_all_the_time() {
    let team = Team::of_six();
    team.stop(&["rita"]);
    let pending = team.submit("alice", &["rita"], team.letter("alice", "rita", 400_000));
    announced(&team, "alice", "rita");
    let file = back_up(&team);
    lose_and_restore(&team, &file);
    team.start(&["rita"]);
    received_once(&team, "rita", &pending);
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
}
