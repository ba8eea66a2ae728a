//! Mail from scripts: what is printed of mailboxes of any size and of strange subjects, and what a wait that was too short says.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{ROOST, Team, wait_for};

fn roost(team: &Team, name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(ROOST);
    command.args(args).arg("--home").arg(team.home(name).root()).stdin(Stdio::null());
    command.output().unwrap()
}

fn json(done: &Output) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&done.stderr)))
}

#[test]
fn a_send_that_waits_for_more_than_is_reached_sends_all_the_same_says_so_and_exits_with_1() {
    let team = Team::of_two();
    team.kill(&["bob"]);
    let mut text = None;
    // Each waits for 60 s, side by side.
    std::thread::scope(|scope| {
        let with_json =
            scope.spawn(|| roost(&team, "alice", &["send", "--to", "bob@acme", "--wait-safe", "0", "--json"]));
        text = Some(roost(&team, "alice", &["send", "--to", "bob@acme", "--wait-safe", "3"]));
        let done = with_json.join().unwrap();
        let said = json(&done);
        assert_eq!(
            (done.status.code(), &said["ok"], &said["reached"]),
            (Some(1), &false.into(), &false.into()),
            "{said}"
        );
        assert_eq!(said["safe"], -1, "{said}");
    });
    let text = text.unwrap();
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert_eq!(text.status.code(), Some(1));
    assert!(said.starts_with("taken as ") && said.contains("but after 60 s still unsafe"), "{said}");
    assert_eq!(team.waiting("alice").len(), 2, "both are sent all the same");
    team.start(&["bob"]);
    wait_for("bob has both", || {
        let messages = json(&roost(&team, "bob", &["inbox", "--json"]))["messages"].as_array().unwrap().len();
        (messages == 2).then_some(())
    });
    let done = roost(&team, "alice", &["send", "--to", "bob@acme", "--wait-safe", "0", "--json"]);
    assert_eq!((done.status.code(), json(&done)["reached"].as_bool()), (Some(0), Some(true)));
}

#[test]
fn a_mailbox_far_larger_than_one_answer_is_listed_whole_and_its_end_alone() {
    const MESSAGES: u64 = 400;
    let team = Team::of_two();
    let mut bob = team.reader("bob");
    // What is printed of each is about 20 KB, of all about 8 MB: twice what one answer may have.
    let long = "long ".repeat(800);
    for i in 0..MESSAGES {
        let mail = format!("From: a@b {long}\r\nSubject: n{i} {long}\r\nDate: {long}\r\n\r\nx\r\n");
        bob.imap.command(&format!("APPEND INBOX {{{}+}}\r\n{mail}", mail.len())).unwrap();
    }
    let all = json(&roost(&team, "bob", &["inbox", "--json"]));
    let messages = all["messages"].as_array().unwrap();
    assert!(all.to_string().len() > 5 << 20);
    assert_eq!(messages.len(), 400);
    for (i, message) in (0..MESSAGES).zip(messages) {
        assert_eq!(message["uid"], i + 1);
        assert!(message["subject"].as_str().unwrap().starts_with(&format!("n{i} long")));
    }
    for (asked, got) in [("3", 3), ("300", 300), ("0", 0), ("1000", 400)] {
        let last = json(&roost(&team, "bob", &["inbox", "--last", asked, "--json"]));
        let uids: Vec<u64> = last["messages"].as_array().unwrap().iter().map(|m| m["uid"].as_u64().unwrap()).collect();
        assert_eq!(uids, (MESSAGES - got + 1..=MESSAGES).collect::<Vec<_>>(), "--last {asked}");
    }
}

#[test]
fn subjects_are_decoded_for_people_and_no_control_character_reaches_a_terminal() {
    let team = Team::of_two();
    let mut bob = team.reader("bob");
    let mail = "From: =?utf-8?q?J=C3=BCrgen=1B]0;title=07?= <j@b>\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?= =?utf-8?q?=1B[2J?= \x1b[31mred\r\n\r\nx\r\n";
    bob.imap.command(&format!("APPEND INBOX {{{}+}}\r\n{mail}", mail.len())).unwrap();
    team.kill(&["alice"]);
    team.submit("bob", &["alice"], crate::harness::Letter {
        id: "<odd@acme>".to_owned(),
        bytes: b"From: bob@acme\r\nTo: alice@acme\r\nMessage-ID: <odd@acme>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe=1B[2J?=\r\n\r\nx\r\n".to_vec(),
    });
    wait_for("the subject is shown", || {
        let lines = json(&roost(&team, "bob", &["outbox", "--json"]));
        lines["mails"][0]["subject"].as_str().filter(|s| s.starts_with("Grüße")).map(drop)
    });
    for command in [&["inbox"][..], &["outbox"], &["status"], &["requests"]] {
        let done = roost(&team, "bob", command);
        let out = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success());
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{command:?}: {out:?}");
        if command[0] != "requests" && command[0] != "status" {
            assert!(out.contains("Grüße"), "{command:?}: {out:?}");
        }
    }
    let message = json(&roost(&team, "bob", &["inbox", "--json"]))["messages"][0].clone();
    assert!(message["subject"].as_str().unwrap().starts_with("=?utf-8?b?R3LDvMOfZQ==?="), "as it stands");
    assert!(message["decoded"]["subject"].as_str().unwrap().starts_with("Grüße"), "{message}");
    assert!(message["decoded"]["from"].as_str().unwrap().starts_with("Jürgen"), "{message}");
}
