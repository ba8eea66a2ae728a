//! `roost cancel` before and after the mail was read, with readers that are on, off, and served by a holder.

use std::collections::BTreeMap;

use roost::console::protocol::{Cancelled, EndedLine, Request};
use roost::core::outbox::CancelAnswer;
use roost::model::SubmissionId;

use crate::harness::hostile::{Hostile, peer_id};
use crate::harness::{Mail, ROOST, Team, wait_for};

/// Takes the mail back, and asks until it is known what that came to.
fn cancel(team: &Team, from: &str, submission: SubmissionId, wait_s: u64) -> CancelAnswer {
    let cancelled: Cancelled = team.ask(from, &Request::Cancel { which: submission.to_string(), wait_s });
    assert_eq!(cancelled.submission, submission);
    let answers: Vec<CancelAnswer> = cancelled.receivers.into_values().collect();
    assert_eq!(answers.len(), 1);
    answers[0]
}

/// What `roost outbox` says became of the mail.
fn ended(team: &Team, from: &str, submission: SubmissionId) -> Vec<String> {
    let ended: Vec<EndedLine> = team.ask(from, &Request::OutboxEnded);
    let line = ended.into_iter().find(|line| line.submission == submission).map(|line| line.receivers);
    line.map(BTreeMap::into_values).into_iter().flatten().collect()
}

fn submitted(team: &Team, from: &str, to: &str, size: usize, f: i32) -> (Mail, SubmissionId) {
    let letter = team.letter(from, to, size);
    let mail = team.submit(from, &[to], letter);
    team.wait_until_safe(&mail, f);
    let submission = team.waiting(from)[0];
    (mail, submission)
}

/// Waits until no member holds a part for `owner` any more.
fn all_parts_go(team: &Team, owner: &str, members: &[&str]) {
    for member in members {
        wait_for("the members free their parts", || {
            team.home(member).mirrored_parts(&team.address(owner)).unwrap().is_empty().then_some(())
        });
    }
}

#[test]
fn a_mail_that_nobody_opened_is_cancelled_also_while_its_reader_is_off() {
    let team = Team::of_six();
    let (mail, submission) = submitted(&team, "alice", "rita", 300_000, 2);
    let mut rita = team.reader("rita");
    let uid = rita.sees(&mail);
    team.kill(&["rita"]);
    assert_eq!(
        cancel(&team, "alice", submission, 60),
        CancelAnswer::Cancelled,
        "every holder confirmed that its part is gone"
    );
    assert_eq!(ended(&team, "alice", submission), ["cancelled"]);
    assert!(team.waiting("alice").is_empty());
    all_parts_go(&team, "alice", &["bob", "carol", "dave", "erin", "frank"]);
    team.start(&["rita"]);
    let mut rita = team.reader("rita");
    wait_for("rita's stub says that it was taken back", || {
        rita.imap.fetch_items(uid, "FLAGS").unwrap().contains("$Cancelled").then_some(())
    });
    let opened = rita.opens(&mail).unwrap_err().to_string();
    assert!(opened.contains("NO [NONEXISTENT]"), "{opened}");
    assert_eq!(cancel(&team, "alice", submission, 0), CancelAnswer::Cancelled, "asked again, it is still so");
}

#[test]
fn a_mail_that_was_read_is_too_late_to_cancel() {
    let team = Team::of_two();
    let (mail, submission) = submitted(&team, "alice", "bob", 5_000, 0);
    team.reader("bob").reads_every_byte_of(&mail);
    assert_eq!(cancel(&team, "alice", submission, 60), CancelAnswer::TooLate);
    team.reader("bob").reads_every_byte_of(&mail);
}

#[test]
fn a_mail_of_which_holders_served_the_reader_is_uncertain_and_not_cancelled() {
    let team = Team::of_six();
    let (mail, submission) = submitted(&team, "alice", "rita", 300_000, 2);
    team.reader("rita").sees(&mail);
    // Rita's peer had every fragment of the members, and was switched off before it could say a word of it.
    team.kill(&["rita"]);
    let rita = Hostile::with_the_keys_of(&team, "rita");
    let sealed = team.wait_until_safe(&mail, 2);
    let mut served = 0;
    for holder in sealed.holders.keys() {
        let (peer, h) = (peer_id(&team, holder.name().as_str()), sealed.h);
        let bytes = rita.asks(async |client| {
            let mut bytes = 0;
            for (k, i) in client.get_fragments(peer, &h).await? {
                bytes += client.get_fragment(peer, &h, (k, i), None).await?.collect(1 << 20).await?.len();
            }
            Ok(bytes)
        });
        served += bytes.unwrap();
    }
    assert!(u64::try_from(served).unwrap() >= sealed.length, "{served} bytes are enough to rebuild it");
    for wait_s in [5, 0] {
        assert_eq!(cancel(&team, "alice", submission, wait_s), CancelAnswer::Uncertain, "holders served the reader");
        assert_eq!(ended(&team, "alice", submission), ["uncertain"]);
    }
}

#[test]
fn a_mail_that_was_read_of_its_holders_is_never_said_to_be_cancelled_and_the_readers_word_makes_it_too_late() {
    let team = Team::of_six();
    let (mail, submission) = submitted(&team, "alice", "rita", 300_000, 2);
    team.stop(&["alice"]);
    team.reader("rita").reads_every_byte_of(&mail);
    // Rita's word cannot reach alice: her peer is off, and so is rita's when alice is back.
    team.kill(&["rita"]);
    team.start(&["alice"]);
    let answer = cancel(&team, "alice", submission, 3);
    assert_ne!(answer, CancelAnswer::Cancelled, "holders served it");
    team.start(&["rita"]);
    assert_eq!(cancel(&team, "alice", submission, 60), CancelAnswer::TooLate);
    assert!(
        ["too late", "received"]
            .contains(&ended(&team, "alice", submission).first().map_or("received", String::as_str))
    );
    team.reader("rita").reads_every_byte_of(&mail);
}

#[test]
fn a_mail_deleted_in_the_outbox_mailbox_is_taken_back() {
    let team = Team::of_two();
    let (mail, submission) = submitted(&team, "alice", "bob", 5_000, 0);
    let mut bob = team.reader("bob");
    let stub = bob.sees(&mail);
    let mut alice = team.reader("alice");
    let uid = wait_for("the mail is in Outbox", || {
        alice.imap.select("Outbox").unwrap();
        alice.imap.uid_search("ALL").unwrap().first().copied()
    });
    alice.imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)")).unwrap();
    alice.imap.command("EXPUNGE").unwrap();
    wait_for("bob's stub says that it was taken back", || {
        bob.imap.command("NOOP").unwrap();
        bob.imap.fetch_items(stub, "FLAGS").unwrap().contains("$Cancelled").then_some(())
    });
    wait_for("it is known that it was cancelled", || {
        (ended(&team, "alice", submission) == ["cancelled"]).then_some(())
    });
}

#[test]
fn a_reader_that_holds_the_mail_itself_keeps_a_cancel_uncertain_until_its_peer_is_back() {
    let team = Team::of_two();
    let (mail, submission) = submitted(&team, "alice", "bob", 5_000, 0);
    let uid = team.reader("bob").sees(&mail);
    team.kill(&["bob"]);
    assert_eq!(cancel(&team, "alice", submission, 1), CancelAnswer::Uncertain, "bob has the whole mail on his disk");
    assert_eq!(ended(&team, "alice", submission), ["uncertain"]);
    team.start(&["bob"]);
    assert_eq!(cancel(&team, "alice", submission, 60), CancelAnswer::Cancelled);
    assert_eq!(ended(&team, "alice", submission), ["cancelled"]);
    assert!(team.reader("bob").imap.fetch_items(uid, "FLAGS").unwrap().contains("$Cancelled"));
}

#[test]
fn the_command_answers_for_each_receiver_in_json_and_in_text() {
    let team = Team::of_two();
    let (mail, submission) = submitted(&team, "alice", "bob", 5_000, 0);
    let h = team.outbox_line(&mail).unwrap().sealed[0].h;
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(ROOST);
        let done = command.args(args).arg("--home").arg(team.home("alice").root()).output().unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap())
    };
    let (done, json) = run(&["cancel", &h.to_string(), "--wait", "60", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(done && json["ok"] == true && json["submission"] == submission.to_string(), "{json}");
    assert_eq!(json["receivers"], serde_json::json!({ "bob@acme": "cancelled" }));
    let (done, text) = run(&["cancel", &submission.to_string()]);
    assert!(done && text.starts_with("bob@acme: cancelled, it cannot be read any more"), "{text}");
    let (_, outbox) = run(&["outbox", "--json"]);
    let outbox: serde_json::Value = serde_json::from_str(&outbox).unwrap();
    assert_eq!(outbox["mails"], serde_json::json!([]));
    assert_eq!(outbox["ended"][0]["receivers"], serde_json::json!({ "bob@acme": "cancelled" }));
    let (done, none) = run(&["cancel", &"0".repeat(32), "--json"]);
    assert!(!done && none.contains("no such mail in this outbox"), "{none}");
}
