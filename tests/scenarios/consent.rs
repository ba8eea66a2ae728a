//! Mail of unknown senders asks first: consent by MOVE in a mail program and by command; and proof of who wrote a kept mail.

use std::process::{Command, Output};

use crate::harness::{ROOST, Team, wait_for};

fn roost(team: &Team, name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(ROOST);
    command.args(args).arg("--json").arg("--home").arg(team.home(name).root());
    command.output().unwrap()
}

fn said(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Rita forgets alice, so that she is a stranger.
fn stranger(team: &Team) {
    assert!(roost(team, "rita", &["contacts", "remove", "alice@acme"]).status.success());
}

#[test]
fn a_stranger_is_accepted_by_command_read_verified_and_asks_again_once_that_is_taken_back() {
    let team = Team::of_six();
    stranger(&team);
    let first = team.submit("alice", &["rita"], team.letter("alice", "rita", 5_000));
    wait_for("alice asks", || said(&roost(&team, "rita", &["requests"])).contains("alice@acme").then_some(()));
    assert!(team.reader("rita").uids_of(&first).is_empty());
    assert!(roost(&team, "rita", &["accept", "alice@acme"]).status.success());
    team.reader("rita").reads_every_byte_of(&first);
    let uid = team.reader("rita").sees(&first).to_string();
    let proof = roost(&team, "rita", &["verify", &uid]);
    assert!(proof.status.success(), "{}", said(&proof));
    assert!(said(&proof).contains("\"from\":\"alice@acme\"") && said(&proof).contains("\"same\":true"));
    let changed = team.folder().join("changed.eml");
    std::fs::write(&changed, [&first.letter.bytes[..], b"x"].concat()).unwrap();
    assert_eq!(roost(&team, "rita", &["verify", changed.to_str().unwrap()]).status.code(), Some(1));
    wait_for("alice's outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    assert!(roost(&team, "rita", &["accept", "--undo", "alice@acme"]).status.success());
    team.submit("alice", &["rita"], team.letter("alice", "rita", 5_000));
    let waits = || said(&roost(&team, "rita", &["requests"])).contains("\"from\":\"alice@acme\"").then_some(());
    wait_for("alice asks again", waits);
}

#[test]
fn a_request_moved_to_inbox_by_a_mail_program_brings_the_mail_and_one_that_is_refused_sends_no_dsn() {
    let team = Team::of_six();
    stranger(&team);
    let first = team.submit("alice", &["rita"], team.letter("alice", "rita", 5_000));
    let mut rita = team.reader("rita");
    wait_for("a card is in Requests", || {
        rita.imap.select("Requests").unwrap();
        (!rita.imap.uid_search("ALL").unwrap().is_empty()).then_some(())
    });
    let card = rita.imap.uid_search("ALL").unwrap()[0];
    rita.imap.command(&format!("UID MOVE {card} INBOX")).unwrap();
    team.reader("rita").reads_every_byte_of(&first);
    wait_for("alice's outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    assert!(roost(&team, "rita", &["refuse", "alice@acme"]).status.success());
    team.submit("alice", &["rita"], team.letter("alice", "rita", 5_000));
    wait_for("the refusal ends the mail", || team.waiting("alice").is_empty().then_some(()));
    let mut alice = team.reader("alice");
    assert!(alice.imap.uid_search("ALL").unwrap().is_empty(), "a refusal sends no DSN");
}
