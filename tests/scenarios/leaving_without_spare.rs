//! A member leaves a group that cannot spare it: what it held counts until the others hold the mail in another way, and the group
//! is shown as degraded meanwhile and afterwards.

use std::collections::BTreeSet;

use roost::console::protocol::{GroupChanged, GroupStatus, Request, SealedLine};

use crate::harness::{Mail, Team, wait_for};

fn sealed(team: &Team) -> Vec<SealedLine> {
    team.status("alice").outbox.into_iter().flat_map(|line| line.sealed).collect()
}

fn degraded(team: &Team, name: &str) -> Option<String> {
    let group: GroupStatus = team.ask(name, &Request::GroupStatus);
    group.degraded
}

#[test]
fn a_member_that_nobody_replaces_leaves_and_at_no_moment_fewer_losses_are_survived() {
    let team = Team::of_six();
    let mails: Vec<Mail> =
        (0..4).map(|_| team.submit("alice", &["rita"], team.letter("alice", "rita", 200_000))).collect();
    wait_for("every mail is safe(2)", || {
        let sealed = sealed(&team);
        (sealed.len() == mails.len() && sealed.iter().all(|mail| mail.safe == 2)).then_some(())
    });
    assert_eq!(degraded(&team, "alice"), None);

    let mut seen_degraded = false;
    let left: GroupChanged = std::thread::scope(|scope| {
        let leaving = scope.spawn(|| team.ask("frank", &Request::GroupLeave { now: false, stay: false }));
        while !leaving.is_finished() {
            for mail in sealed(&team) {
                assert!(mail.safe >= 2, "safe({}) while frank leaves: {mail:?}", mail.safe);
            }
            let group: GroupStatus = team.ask("alice", &Request::GroupStatus);
            let is_leaving = group.members.iter().any(|member| member.leaving);
            assert!(!is_leaving || group.degraded.is_some(), "it is shown");
            seen_degraded |= is_leaving;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        leaving.join().unwrap()
    });
    assert!(seen_degraded, "frank had to wait, and that was shown");
    assert!(left.notes.iter().any(|note| note.contains("smaller than its policy")), "{:?}", left.notes);
    let frank_holds = team.home("frank").mirrored_parts(&team.address("alice")).unwrap();
    assert!(frank_holds.is_empty(), "{frank_holds:?}");
    wait_for("each of the four that are left has every mail whole, and only that", || {
        let right = |mail: &SealedLine| {
            let parts: BTreeSet<&str> = mail.holders.values().map(String::as_str).collect();
            (mail.safe, mail.holders.len(), parts) == (3, 4, BTreeSet::from(["whole"]))
        };
        sealed(&team).iter().all(right).then_some(())
    });
    assert!(degraded(&team, "alice").is_some_and(|why| why.contains("every mail is kept whole")));
    team.rests(&["alice", "bob", "carol", "dave", "erin"]);
    team.kill(&["alice", "bob", "carol", "dave"]);
    let mut rita = team.reader("rita");
    mails.iter().for_each(|mail| rita.reads_in_the_end(mail));
}
