//! Holdings are measured: a member that cannot show a block of what it confirmed is named, does not count, and mends it (R8).

use std::fs;
use std::process::Command;

use roost::console::protocol::{OutboxLine, Request};

use crate::harness::{Team, wait_for};

/// No file of the peer of `name` may grow any more, as long as it runs: it can mend nothing.
fn writes_nothing(team: &Team, name: &str) {
    let pid = team.peer(name).pid.unwrap().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, "--fsize=0:unlimited"]).status().unwrap();
    assert!(set.success());
}

#[test]
fn a_member_that_cannot_show_what_it_confirmed_is_named_does_not_count_and_mends_its_disk() {
    let team = Team::of_three();
    team.configure("alice", "mail", "audit_every = \"2s\"");
    let letter = team.letter("alice", "carol", 30_000);
    let mail = team.submit("alice", &["carol"], letter);
    let sealed = team.wait_until_safe(&mail, 1);
    let (h, owner, home) = (sealed.h, team.address("alice"), team.home("bob"));
    let (_, part) = home.mirrored_parts(&owner).unwrap().into_iter().find(|(held, _)| *held == h).unwrap();
    let file = home.mirror_part(&owner, &h, part);
    let right = fs::read(&file).unwrap();
    let named = || team.log("alice").matches("could not show a block").count();

    let safe = || {
        let lines: Vec<OutboxLine> = team.ask("alice", &Request::Outbox);
        Some(lines.first()?.sealed.first()?.safe)
    };

    for (n, harm) in ["altered", "deleted"].into_iter().enumerate() {
        assert_eq!(safe(), Some(1));
        writes_nothing(&team, "bob");
        match harm {
            "altered" => team.corrupt("bob", "alice", &h),
            _ => fs::remove_file(&file).unwrap(),
        }
        wait_for("the log names a miss", || (named() > n).then_some(()));
        wait_for("it does not count", || (safe()? == 0).then_some(()));
        let told = |line: &String| line.contains("bob@acme") && line.contains("could not show");
        wait_for("the owner is told", || team.status("alice").attention.iter().any(told).then_some(()));
        // A peer that starts does not wait until its disk may have room again.
        team.kill(&["bob"]);
        team.start(&["bob"]);
        wait_for("the part is right again", || fs::read(&file).ok().filter(|now| *now == right));
        wait_for("it counts again", || {
            let misses = team.status("alice").attention.iter().any(|line| line.contains("could not show"));
            (safe()? >= 1 && !misses).then_some(())
        });
    }
    assert!(team.log("alice").contains("bob@acme"));
    assert!(!team.log("alice").contains("member=carol@acme"), "the other member showed what it holds");
}
