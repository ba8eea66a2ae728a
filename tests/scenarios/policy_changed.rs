//! A policy is changed while mail waits: it moves to the new encoding, and at no moment fewer losses are survived than before.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use roost::console::protocol::{GroupStatus, Request};
use roost::model::policy::KOfN;
use roost::model::{MailId, Mode, Part, Policy};

use crate::harness::{Mail, ROOST, Team, wait_for};

const OTHERS: [&str; 5] = ["bob", "carol", "dave", "erin", "frank"];

fn team() -> Team {
    Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\", \"dave\", \"erin\", \"frank\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 3\nwhole_below = \"1 KiB\"\n",
    )
}

fn change(team: &Team, change: impl FnOnce(Policy) -> Policy) {
    let now: GroupStatus = team.ask("alice", &Request::GroupStatus);
    let _: GroupStatus = team.ask("alice", &Request::GroupPolicy { policy: change(now.policy) });
}

/// Waits until the mail is kept as `encoding` by `holders` members, and by nobody in another way; it is safe(2) all the time.
fn arrives(team: &Team, mail: &Mail, encoding: &str, holders: usize) {
    wait_for("it has arrived in the new encoding", || {
        let sealed = team.outbox_line(mail)?.sealed.into_iter().next()?;
        assert!(sealed.safe >= 2, "safe({}) on the way to {encoding}: {:?}", sealed.safe, sealed.holders);
        let moving = team.status("alice").brains["outbox"]["moving"] == 0;
        (sealed.encoding == encoding && moving && sealed.holders.len() == holders).then_some(())
    });
}

/// What the others have of the mail on their disks.
fn on_disks(team: &Team, h: &MailId) -> Vec<BTreeSet<Part>> {
    let owner = team.address("alice");
    let of = |name| team.home(name).mirrored_parts(&owner).unwrap().into_iter().filter(|(held, _)| held == h);
    OTHERS
        .map(|name| of(name).map(|(_, part)| part).collect())
        .into_iter()
        .filter(|p: &BTreeSet<_>| !p.is_empty())
        .collect()
}

/// Waits until the others have just these on their disks, in any order: a file goes a moment after its holder said so.
fn come_to_have(team: &Team, h: &MailId, wanted: impl IntoIterator<Item = Part>) {
    let mut wanted: Vec<_> = wanted.into_iter().map(|part| BTreeSet::from([part])).collect();
    wanted.sort();
    wait_for(&format!("the disks hold {wanted:?}"), || {
        let mut held = on_disks(team, h);
        held.sort();
        (held == wanted).then_some(())
    });
}

#[test]
fn a_waiting_mail_moves_from_copies_to_fragments_to_others_and_back_and_two_losses_are_survived_all_the_time() {
    let team = team();
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 400_000));
    let h = team.wait_until_safe(&mail, 2).h;
    let fragments = |k, n| {
        change(&team, |now| Policy { mode: Mode::Fragments, fragments: KOfN { k, n }, ..now });
        arrives(&team, &mail, &format!("fragments {k} of {n}"), usize::from(n));
        come_to_have(&team, &h, (0..n).map(|i| Part::Fragment { k, i }));
    };
    fragments(3, 5);
    fragments(2, 4);
    change(&team, |now| Policy { mode: Mode::Full, ..now });
    arrives(&team, &mail, "whole", 3);
    come_to_have(&team, &h, [Part::Whole; 3]);
    fragments(3, 5);
    // Which encoding it has outlives its owner.
    team.kill(&["alice", "carol", "dave"]);
    team.reader("bob").reads_every_byte_of(&mail);
}

#[test]
fn a_change_while_half_the_group_is_away_waits_for_them_says_so_and_is_never_less_safe() {
    let team = team();
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 400_000));
    let h = team.wait_until_safe(&mail, 2).h;
    let copies = on_disks(&team, &h);
    assert_eq!(copies, vec![BTreeSet::from([Part::Whole]); 3]);
    let away = ["dave", "erin", "frank"];
    team.stop(&away);
    let told = |names: &str| away.iter().all(|name| names.contains(&format!("{name}@acme")));
    let home = team.peer("alice").home;
    wait_for("it is noticed that they are away", || {
        let group: GroupStatus = team.ask("alice", &Request::GroupStatus);
        (group.members.iter().filter(|member| !member.up).count() == away.len()).then_some(())
    });
    let args = ["group", "policy", "--mode", "fragments", "--k", "3", "--n", "5", "--home"];
    let done = Command::new(ROOST).args(args).arg(&home).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.split("waits for").nth(1).is_some_and(told), "{said}");
    assert!(said.contains("any 3 of 5") && said.contains("stays held too"), "{said}");
    let waits = wait_for("who is there has taken its fragment, and the others are waited for", || {
        let sealed = team.outbox_line(&mail)?.sealed.into_iter().next()?;
        assert!(sealed.safe >= 2, "safe({}): {:?}", sealed.safe, sealed.holders);
        let parts: BTreeSet<Part> = on_disks(&team, &h).into_iter().flatten().collect();
        let lines = team.status("alice").attention;
        let line = lines.into_iter().find(|line| line.contains("waiting for") && told(line))?;
        (parts.len() == 3 && sealed.encoding == "fragments 3 of 5").then_some(line)
    });
    assert!(!waits.contains("bob@acme") && !waits.contains("carol@acme"), "{waits}");
    let copies = on_disks(&team, &h).into_iter().filter(|parts| parts.contains(&Part::Whole)).count();
    assert_eq!(copies, 3, "all that was held stays held");
    team.start(&away);
    arrives(&team, &mail, "fragments 3 of 5", 5);
    come_to_have(&team, &h, (0..5).map(|i| Part::Fragment { k: 3, i }));
    team.kill(&["alice", "carol", "dave"]);
    team.reader("bob").reads_in_the_end(&mail);
}
