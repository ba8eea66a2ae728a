//! The index is only an index: deleted between stop and start, everything is back.

use std::fs;

use roost::console::protocol::{Contact, GroupStatus, InboxLine, OutboxLine, Request};

use crate::harness::{Team, wait_for};

/// Everything that people see of a peer, except what depends on the moment.
fn seen(team: &Team, name: &str) -> String {
    let group: GroupStatus = team.ask(name, &Request::GroupStatus);
    let contacts: Vec<Contact> = team.ask(name, &Request::Contacts);
    let inbox: Vec<InboxLine> = team.ask(name, &Request::Inbox { mailbox: None });
    let outbox: Vec<OutboxLine> = team.ask(name, &Request::Outbox);
    let outbox: Vec<_> = outbox.iter().map(|line| (line.submission, line.sealed.first().map(|s| s.h))).collect();
    let selected = team.reader(name).imap.select("INBOX").unwrap();
    format!("{} {:?} {} {contacts:?} {inbox:?} {outbox:?} {selected:?}", group.version, group.key, group.members.len())
}

#[test]
fn with_every_index_deleted_while_stopped_everything_is_back() {
    let everybody = ["alice", "bob", "carol"];
    let team = Team::of_three();
    let opened = team.letter("alice", "bob", 5_000);
    let opened = team.submit("alice", &["bob"], opened);
    let mut bob = team.reader("bob");
    bob.reads_every_byte_of(&opened);
    let uid = bob.sees(&opened);
    bob.imap.command(&format!("UID STORE {uid} +FLAGS (\\Flagged \\Seen)")).unwrap();
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    let stub = team.letter("alice", "bob", 300_000);
    let stub = team.submit("alice", &["bob"], stub);
    team.wait_until_safe(&stub, 1);
    bob.sees(&stub);

    drop(bob);
    let before: Vec<String> = everybody.iter().map(|name| seen(&team, name)).collect();
    team.stop(&everybody);
    for name in everybody {
        let index = team.home(name).index_dir();
        assert!(index.exists(), "{name} has no index");
        fs::remove_dir_all(index).unwrap();
    }
    team.start(&everybody);

    for (name, before) in everybody.iter().zip(before) {
        assert_eq!(seen(&team, name), before, "{name}");
    }
    // The owner is killed before the stub is opened: the mirrors are back too.
    team.kill(&["alice"]);
    let mut bob = team.reader("bob");
    bob.reads_every_byte_of(&opened);
    bob.reads_every_byte_of(&stub);
    assert!(bob.imap.fetch_items(uid, "FLAGS").unwrap().contains("\\Flagged"));
}
