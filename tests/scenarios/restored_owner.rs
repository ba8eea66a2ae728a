//! A home replaced by an older copy of itself: nothing is delivered twice, nothing that is gone comes back, and what was
//! pending is delivered (R5, R7).

use roost::console::protocol::{OutboxLine, Request};
use roost::model::MailId;

use crate::harness::{Mail, OldDisk, Team, wait_for};

fn submit(team: &Team, to: &str, size: usize) -> Mail {
    let letter = team.letter("alice", to, size);
    team.submit("alice", &[to], letter)
}
fn lines(team: &Team) -> Vec<OutboxLine> {
    team.ask("alice", &Request::Outbox)
}
fn wait_until_held(team: &Team) -> Vec<MailId> {
    wait_for("every mail is held by two members", || {
        let sealed: Vec<_> = lines(team).into_iter().flat_map(|line| line.sealed).collect();
        let held = !sealed.is_empty() && sealed.iter().all(|mail| mail.safe >= 1);
        held.then(|| sealed.iter().map(|mail| mail.h).collect())
    })
}

#[test]
fn an_owner_on_an_older_copy_of_its_disk_delivers_what_was_pending_and_repeats_nothing() {
    let team = Team::of_three();
    let before = submit(&team, "bob", 20_000);
    team.reader("bob").sees(&before);
    team.stop(&["alice"]);
    let old = OldDisk::of(&team, "alice");
    team.start(&["alice"]);

    let mut bob = team.reader("bob");
    let after = submit(&team, "bob", 20_000);
    bob.reads_every_byte_of(&before);
    bob.reads_every_byte_of(&after);
    wait_for("both are received", || lines(&team).is_empty().then_some(()));
    drop(bob);
    // One is told and not opened, one is taken back.
    let pending = submit(&team, "bob", 300_000);
    let cancelled = submit(&team, "carol", 5_000);
    let (mut bob, mut carol) = (team.reader("bob"), team.reader("carol"));
    bob.sees(&pending);
    carol.sees(&cancelled);
    wait_until_held(&team);
    let taken_back =
        lines(&team).into_iter().find(|line| line.receivers.keys().any(|to| to.name().as_str() == "carol"));
    let taken_back = taken_back.unwrap();
    let h = taken_back.sealed[0].h;
    let mut alice = team.reader("alice");
    alice.imap.select("Outbox").unwrap();
    let uid = wait_for("it is shown in Outbox", || {
        alice.imap.command("NOOP").unwrap();
        alice.imap.uid_search(&format!("HEADER Message-ID \"{}\"", cancelled.letter.id)).unwrap().first().copied()
    });
    alice.imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)")).unwrap();
    alice.imap.command("EXPUNGE").unwrap();
    drop(alice);
    wait_for("it is taken back", || (lines(&team).len() == 1).then_some(()));
    wait_for("the members drop it", || {
        let held =
            |name: &&str| team.home(name).mirrored_parts(&team.address("alice")).unwrap().iter().any(|p| p.0 == h);
        (!["bob", "carol"].iter().any(held)).then_some(())
    });

    team.kill(&["alice"]);
    old.put_back(&team, "alice");
    team.start(&["alice"]);

    wait_for("what was pending is known again, and only that", || {
        let lines = lines(&team);
        let known = lines.len() == 1 && lines[0].receivers.keys().all(|to| to.name().as_str() == "bob");
        known.then_some(())
    });
    bob.reads_every_byte_of(&pending);
    wait_for("its reader's word ends it", || lines(&team).is_empty().then_some(()));
    for mail in [&before, &after, &pending] {
        assert_eq!(bob.uids_of(mail).len(), 1, "nothing is delivered twice");
    }
    let carol_has = carol.uids_of(&cancelled);
    assert_eq!(carol_has.len(), 1);
    assert!(carol.opens(&cancelled).is_err(), "what was taken back does not come back");
    let parts = team.home("bob").mirrored_parts(&team.address("alice")).unwrap();
    assert!(!parts.iter().any(|part| part.0 == h), "nor to the members' disks");
}

#[test]
fn a_member_on_an_older_copy_of_its_disk_brings_nothing_back() {
    let team = Team::of_three();
    let mail = submit(&team, "carol", 20_000);
    let mut carol = team.reader("carol");
    carol.sees(&mail);
    let h = wait_until_held(&team)[0];
    let holds = |name: &str| team.home(name).mirrored_parts(&team.address("alice")).unwrap().iter().any(|p| p.0 == h);
    wait_for("bob holds it", || holds("bob").then_some(()));
    team.stop(&["bob"]);
    let old = OldDisk::of(&team, "bob");
    team.start(&["bob"]);
    carol.reads_every_byte_of(&mail);
    drop(carol);
    wait_for("it is received", || lines(&team).is_empty().then_some(()));
    wait_for("the members drop it", || (!holds("bob") && !holds("carol")).then_some(()));

    // Its owner is off, so only the other member can tell that it is gone.
    team.kill(&["alice", "bob"]);
    old.put_back(&team, "bob");
    assert!(holds("bob"));
    team.start(&["bob"]);
    wait_for("it is gone again", || (!holds("bob")).then_some(()));
    team.start(&["alice"]);
    let mut carol = team.reader("carol");
    assert_eq!(carol.uids_of(&mail).len(), 1);
    assert!(lines(&team).is_empty() && !holds("carol"));
}
