//! The later life of a group: a second holder of the key, a stolen laptop, a member that leaves for good, a recovery code.

use roost::console::protocol::{GroupChanged, GroupStatus, InboxLine, Line, Request};
use roost::model::Address;

use crate::harness::{Team, wait_for};

/// alice, bob and carol in acme, whole copies; rita reads.
fn team() -> Team {
    Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 2\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [\"bob@acme\"]\n",
    )
}

fn group(team: &Team, name: &str) -> GroupStatus {
    team.ask(name, &Request::GroupStatus)
}

fn refused(team: &Team, name: &str, request: &Request) -> String {
    match team.try_ask::<serde_json::Value>(name, request) {
        Ok(value) => panic!("{name}, asked {request:?}, did it: {value}"),
        Err(why) => why,
    }
}

fn names(group: &GroupStatus) -> Vec<String> {
    group.members.iter().map(|member| member.address.name().to_string()).collect()
}

fn holds_key(team: &Team, name: &str) {
    wait_for("the group key comes", || team.try_ask::<Line>(name, &Request::GroupRecoveryCode).ok());
}

fn key(team: &Team, name: &str) -> String {
    group(team, name).key.unwrap()
}

#[test]
fn a_stolen_laptop_is_removed_the_key_is_replaced_and_members_and_contacts_follow() {
    let team = team();
    let (alice, bob): (Address, Address) = (team.address("alice"), team.address("bob"));
    let why = refused(&team, "bob", &Request::GroupRemove { address: alice.clone() });
    assert!(why.contains("does not hold the key") && why.contains("alice@acme"), "{why}");
    let granted: GroupChanged = team.ask("alice", &Request::GroupGrant { address: bob.clone() });
    assert!(granted.group.members.iter().any(|m| m.address == bob && m.key_holder), "{granted:?}");
    holds_key(&team, "bob");
    let old: Line = team.ask("alice", &Request::GroupRecoveryCode);
    let before = key(&team, "bob");

    // Alice's mail waits for bob, and her machine is gone with the key.
    let letter = team.letter("alice", "bob", 40_000);
    let mail = team.submit("alice", &["bob"], letter);
    team.wait_until_safe(&mail, 1);
    team.kill(&["alice"]);
    let removed: GroupChanged = team.ask("bob", &Request::GroupRemove { address: alice.clone() });
    let code = removed.recovery_code.expect("a new recovery code");
    assert_ne!(code, old.line);
    assert_eq!(names(&removed.group), ["bob", "carol"]);
    assert!(removed.notes.iter().any(|note| note.contains("smaller than its policy")), "{:?}", removed.notes);
    assert!(removed.group.degraded.is_some());
    let since = key(&team, "bob");
    assert_ne!(since, before);
    wait_for("carol follows", || (key(&team, "carol") == since).then_some(()));
    let shown = group(&team, "carol").conflicts;
    assert!(shown.iter().any(|line| line.contains(&before) && line.contains(&since)), "{shown:?}");
    team.reader("bob").reads_every_byte_of(&mail);

    // The reader was off meanwhile, or looks once an hour; the mail that names the new key makes it look.
    let letter = team.letter("bob", "rita", 20_000);
    let mail = team.submit("bob", &["rita"], letter);
    team.reader("rita").reads_every_byte_of(&mail);
    let pinned = team.status("rita").brains["group"]["pins"][0]["key"].clone();
    assert_eq!(pinned, serde_json::json!(since));

    // Whoever has the laptop starts it: it is told, and sends nothing.
    team.start(&["alice"]);
    let alone = wait_for("alice is told", || Some(group(&team, "alice")).filter(|g| g.role == "removed"));
    assert!(alone.conflicts.iter().any(|line| line.contains("was removed from the group acme")), "{alone:?}");
    wait_for("the log says so", || team.log("alice").contains("does not name this peer any more").then_some(()));
    let file = team.folder().join("late.eml");
    std::fs::write(&file, team.letter("alice", "carol", 1000).bytes).unwrap();
    let send = Request::Send { file, receivers: vec![team.address("carol")], wait_safe: None };
    let why = refused(&team, "alice", &send);
    assert!(why.contains("no member of its group any more"), "{why}");
    let why = refused(&team, "alice", &Request::GroupInvite { name: "eve".parse().unwrap(), valid: None });
    assert!(why.contains("no group yet"), "{why}");
    let _: Vec<InboxLine> = team.ask("alice", &Request::Inbox { mailbox: None });
}

#[test]
fn a_member_leaves_once_others_hold_what_it_held_and_comes_back_by_a_new_invite() {
    let team = team();
    let why = refused(&team, "alice", &Request::GroupLeave { now: false, stay: false });
    assert!(why.contains("roost group grant"), "the last holder hands the key on first: {why}");
    let letter = team.letter("alice", "bob", 40_000);
    let mail = team.submit("alice", &["bob"], letter);
    let sealed = team.wait_until_safe(&mail, 1);
    let held = || team.home("carol").mirrored_parts(&team.address("alice")).unwrap().len();
    assert_eq!(held(), 1);
    let left: GroupChanged = team.ask("carol", &Request::GroupLeave { now: false, stay: false });
    assert_eq!((left.group.role.as_str(), held()), ("left", 0));
    wait_for("alice knows", || (names(&group(&team, "alice")) == ["alice", "bob"]).then_some(()));
    let at_bob = team.home("bob").mirrored_parts(&team.address("alice")).unwrap();
    assert!(at_bob.iter().any(|(h, _)| *h == sealed.h));
    let file = team.folder().join("late.eml");
    std::fs::write(&file, team.letter("carol", "bob", 1000).bytes).unwrap();
    let send = Request::Send { file, receivers: vec![team.address("bob")], wait_safe: None };
    assert!(refused(&team, "carol", &send).contains("no member of its group any more"));
    let _: Vec<InboxLine> = team.ask("carol", &Request::Inbox { mailbox: None });

    let invite: Line = team.ask("alice", &Request::GroupInvite { name: "carol".parse().unwrap(), valid: None });
    let joined: GroupStatus = team.ask("carol", &Request::GroupJoin { code: invite.line });
    assert_eq!((joined.role.as_str(), names(&joined)), ("member", vec!["alice".into(), "bob".into(), "carol".into()]));
    let letter = team.letter("carol", "bob", 20_000);
    let back = team.submit("carol", &["bob"], letter);
    team.reader("bob").reads_every_byte_of(&back);
}

#[test]
fn the_recovery_code_takes_the_group_over_when_its_only_holder_is_gone() {
    let team = team();
    let code: Line = team.ask("alice", &Request::GroupRecoveryCode);
    team.kill(&["alice"]);
    let why = refused(&team, "bob", &Request::GroupRecover { code: format!("{}x", code.line) });
    assert!(why.contains("no whole recovery code"), "{why}");
    let taken: GroupChanged = team.ask("bob", &Request::GroupRecover { code: code.line.clone() });
    let holders: Vec<&Address> = taken.group.members.iter().filter(|m| m.key_holder).map(|m| &m.address).collect();
    assert_eq!(holders, [&team.address("bob")]);
    assert!(taken.recovery_code.is_some_and(|new| new != code.line));
    let removed: GroupChanged = team.ask("bob", &Request::GroupRemove { address: team.address("alice") });
    assert_eq!(names(&removed.group), ["bob", "carol"]);
    let why = refused(&team, "carol", &Request::GroupRecover { code: code.line });
    assert!(why.contains("of no use any more") || why.contains("carol"), "{why}");
    wait_for("carol follows", || (key(&team, "carol") == key(&team, "bob")).then_some(()));
}
