//! A member's quota: what does not fit is refused, and the owner is told who refused, why, and what helps.

use crate::harness::{Team, wait_for};

#[test]
fn a_mail_beyond_a_members_quota_is_refused_there_and_its_sender_is_told_and_room_takes_it() {
    let team = Team::of_three();
    team.configure("carol", "quota", "per_member = \"100 KiB\"");
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 500_000));
    let (alice, carol) = (team.address("alice"), team.address("carol"));
    let said = wait_for("alice is told", || {
        team.status("alice").attention.into_iter().find(|line| line.contains("carol@acme") && line.contains("quota"))
    });
    assert!(said.contains("per_member"), "it says what helps: {said}");
    let sealed = team.wait_until_safe(&mail, 0);
    assert!(sealed.refused.contains_key(&carol) && !sealed.holders.contains_key(&carol), "{sealed:?}");
    assert!(team.home("carol").mirrored_parts(&alice).unwrap().is_empty(), "nothing half-stored");

    team.configure("carol", "quota", "per_member = \"1 GiB\"");
    let sealed = team.wait_until_safe(&mail, 1);
    assert!(sealed.refused.is_empty() && sealed.holders.contains_key(&carol), "{sealed:?}");
    assert!(!team.status("alice").attention.iter().any(|line| line.contains("quota")));
    team.reader("bob").reads_every_byte_of(&mail);
}
