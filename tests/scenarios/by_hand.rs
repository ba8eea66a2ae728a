//! Two people make a group as they would on two machines, with nothing but the commands, and mail each other from scripts.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Machine, wait_for};

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_people_make_a_group_by_invite_and_mail_each_other_from_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut alice, mut bob) = (Machine::new(dir.path(), "alice"), Machine::new(dir.path(), "bob"));
    alice.roost(&["init", "alice@acme"], "");
    alice.reachable_on_loopback();
    alice.start();
    // Right after it, as in the README: the command waits until the peer listens.
    let founded = alice.roost(&["group", "create", "acme", "--mode", "full", "--copies", "1"], "");
    assert!(founded["recovery_code"].as_str().is_some_and(|code| !code.is_empty()));
    let invite = alice.roost(&["group", "invite", "--as", "bob"], "")["invite"].as_str().unwrap().to_owned();
    bob.roost(&["init", "bob@acme"], "");
    bob.reachable_on_loopback();
    let joined = bob.roost(&["group", "join", &invite], "");
    assert_eq!((&joined["stopped_again"], &joined["group"]["group"]), (&true.into(), &"acme".into()));
    bob.start();
    assert_eq!(bob.roost(&["group", "status"], "")["members"].as_array().unwrap().len(), 2);

    // Long enough to be read in many chunks, some of which end between a CR and its LF.
    let attached = dir.path().join("plan.pdf");
    fs::write(&attached, vec![7; 3 << 20]).unwrap();
    let sent = alice.roost(
        &["send", "--to", "bob@acme", "--subject", "Grüße", "--attach", path_text(&attached), "--wait-safe", "0"],
        "See you\nat nine.\n",
    );
    assert_eq!(sent["ok"], true);
    let message = wait_for("the mail is in bob's inbox", || bob.inbox().into_iter().next());
    let (uid, out) = (message["uid"].to_string(), dir.path().join("got.eml"));
    bob.roost(&["read", &uid, "-o", path_text(&out)], "");
    let got = fs::read_to_string(&out).unwrap();
    assert!(got.contains("From: alice@acme\r\n") && got.contains("See you\r\nat nine.\r\n"), "{got}");
    wait_for("alice's outbox is empty", || {
        alice.roost(&["outbox"], "")["mails"].as_array().unwrap().is_empty().then_some(())
    });
    assert_eq!(bob.inbox()[0]["body"], "here");

    let imap = bob.roost(&["status"], "")["ports"]["imap"].as_str().unwrap().to_owned();
    let mut program = BufReader::new(TcpStream::connect(imap).unwrap());
    program.get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut said = String::new();
    program.read_line(&mut said).unwrap();
    assert!(said.starts_with("* OK"), "{said}");
    bob.stop();
    program.read_to_string(&mut said).unwrap();
    assert!(said.contains("* BYE"), "a mail program is told that the peer stops: {said}");
}
