//! How long mails and words about them live: pulled before it is too late, kept until taken, shown when they are over.

use roost::console::protocol::{EndedLine, InboxLine, OutboxLine, Request};
use serde_json::Value;

use crate::harness::{Team, wait_for};

/// A group whose mail lives for `life`, with one whole copy besides the owner's.
fn group(life: &str) -> Team {
    Team::of_text(&format!(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 1\nlife = \"{life}\"\n"
    ))
}

fn inbox(team: &Team, name: &str) -> Vec<InboxLine> {
    team.ask(name, &Request::Inbox { mailbox: None })
}

fn ended(team: &Team, name: &str) -> Vec<EndedLine> {
    team.ask(name, &Request::OutboxEnded)
}

#[test]
fn a_mail_that_nobody_opens_is_pulled_before_its_life_is_over_and_stays_unread() {
    let team = group("20 s");
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 100_000));
    let mut bob = team.reader("bob");
    let uid = bob.sees(&mail);
    assert_eq!(inbox(&team, "bob")[0].body, "stub");
    wait_for("bob's peer has it and says so", || team.waiting("alice").is_empty().then_some(()));
    assert!(ended(&team, "alice").is_empty(), "it was received");
    assert_eq!(inbox(&team, "bob")[0].body, "here");
    let flags = bob.imap.fetch_items(uid, "FLAGS").unwrap();
    assert!(!flags.contains("\\Seen") && !flags.contains("$Expired"), "{flags}");
    team.kill(&["alice", "carol"]);
    bob.reads_every_byte_of(&mail);
}

#[test]
fn a_stub_whose_mail_expired_stays_under_its_uid_with_a_keyword_and_cannot_be_opened() {
    let team = group("30 s");
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 100_000));
    let sealed = team.wait_until_safe(&mail, 0);
    let mut bob = team.reader("bob");
    let uid = bob.sees(&mail);
    // The one part may lie at bob himself: then he is restarted without it, as after a disk was replaced.
    let owner = team.address("alice");
    team.kill(&["alice", "bob", "carol"]);
    for (h, part) in team.home("bob").mirrored_parts(&owner).unwrap() {
        assert_eq!(h, sealed.h);
        std::fs::remove_file(team.home("bob").mirror_part(&owner, &h, part)).unwrap();
    }
    team.start(&["bob"]);
    let mut bob = team.reader("bob");
    let flags = wait_for("the stub says that it is over", || {
        bob.imap.command("NOOP").unwrap();
        let flags = bob.imap.fetch_items(uid, "FLAGS").unwrap();
        flags.contains("$Expired").then_some(flags)
    });
    assert!(!flags.contains("\\Seen"), "{flags}");
    let no = bob.opens(&mail).unwrap_err().to_string();
    assert!(no.contains("NO ["), "{no}");
    assert_eq!(inbox(&team, "bob")[0].body, "expired");
    team.kill(&["bob"]);
    team.start(&["bob"]);
    assert_eq!(team.reader("bob").sees(&mail), uid, "it stays where it was");
}

#[test]
fn a_reader_keeps_its_nr_over_restarts_until_its_sender_is_back_to_take_it() {
    let team = Team::of_three();
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 60_000));
    team.wait_until_safe(&mail, 1);
    let mut bob = team.reader("bob");
    bob.sees(&mail);
    team.kill(&["alice", "carol"]);
    bob.reads_every_byte_of(&mail);
    for _ in 0..2 {
        team.kill(&["bob"]);
        team.start(&["bob"]);
    }
    let open: Value = serde_json::to_value(&team.status("bob").brains["postbox"]).unwrap();
    assert_eq!(open["nr_open"], 1, "{open}");
    team.kill(&["bob"]);
    team.start(&["alice"]);
    assert_eq!(team.waiting("alice").len(), 1, "nobody could tell alice");
    team.start(&["bob"]);
    wait_for("alice has the nr", || team.waiting("alice").is_empty().then_some(()));
    wait_for("bob knows that she has", || {
        let postbox = team.status("bob").brains["postbox"].clone();
        (postbox["nr_open"] == 0).then_some(())
    });
    assert!(ended(&team, "alice").is_empty(), "received, nothing else");
    assert_eq!(inbox(&team, "bob").len(), 1);
}

#[test]
fn a_receiver_whose_certificate_is_late_holds_up_nobody_and_gets_its_own_ciphertext() {
    let team = Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\"]\n[group.replication]\nmode = \"full\"\ncopies = 1\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [\"alice@acme\"]\n",
    );
    let card: roost::console::protocol::Line = team.ask("rita", &Request::Card);
    let _: Value = team.ask("alice", &Request::ContactRemove { address: team.address("rita") });
    let mail = team.submit("alice", &["bob", "rita"], team.letter("alice", "bob", 50_000));
    team.reader("bob").reads_in_the_end(&mail);
    let rita = team.address("rita");
    let line = wait_for("alice has bob's nr", || {
        let line = team.outbox_line(&mail)?;
        (line.receivers[&team.address("bob")] == "received").then_some(line)
    });
    assert_eq!(line.receivers[&rita], "waiting", "{line:?}");
    let _: Value = team.ask("alice", &Request::ContactAdd { card: card.line });
    team.reader("rita").reads_in_the_end(&mail);
    wait_for("that was the last one", || {
        let lines: Vec<OutboxLine> = team.ask("alice", &Request::Outbox);
        lines.is_empty().then_some(())
    });
}
