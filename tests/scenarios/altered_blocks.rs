//! Altered blocks on a member's disk: a reader gets the mail whole all the same, and the member is named (R6); the member's own
//! scrub finds them, and the part is made again.

use std::fs;

use crate::harness::{Team, wait_for};

#[test]
fn a_member_that_serves_altered_blocks_is_named_and_the_mail_arrives_whole() {
    let team = Team::of_six();
    let letter = team.letter("alice", "rita", 8_000_000);
    let mail = team.submit("alice", &["rita"], letter);
    let sealed = team.wait_until_safe(&mail, 2);
    let mut holders: Vec<(&String, &str)> =
        sealed.holders.iter().map(|(holder, part)| (part, holder.name().as_str())).collect();
    holders.sort_unstable();
    // The one with the first part: a piece of the mail itself, which every reader would take first.
    let liar = holders[0].1;
    team.corrupt(liar, "alice", &sealed.h);
    // Four are left for three parts, so the one that lies is asked and can be done without.
    team.kill(&["alice", holders[4].1]);

    let mut rita = team.reader("rita");
    rita.reads_every_byte_of(&mail);

    let liar = format!("{liar}@acme");
    let status = team.status("rita");
    let pull = status.pulls.iter().find(|pull| pull.h == sealed.h && pull.ok).expect("the pull is shown");
    for source in &pull.sources {
        assert_eq!(source.bad_blocks > 0, source.address == liar, "{:?}", pull.sources);
    }
    assert!(status.attention.iter().any(|line| line.contains(&liar)), "{:?}", status.attention);
    wait_for("the log names the member", || team.log("rita").contains(&liar).then_some(()));
}

#[test]
fn a_part_that_rots_on_a_members_disk_is_found_by_its_scrub_and_made_again() {
    let team = Team::of_six();
    let mail = team.submit("alice", &["rita"], team.letter("alice", "rita", 900_000));
    let sealed = team.wait_until_safe(&mail, 2);
    let carol = team.address("carol");
    assert!(sealed.holders.contains_key(&carol), "carol holds a part: {sealed:?}");
    let alice = team.address("alice");
    let parts = team.home("carol").mirrored_parts(&alice).unwrap();
    let path = team.home("carol").mirror_part(&alice, &sealed.h, parts.first().expect("a part").1);
    let good = fs::read(&path).unwrap();

    team.corrupt("carol", "alice", &sealed.h);
    assert_ne!(fs::read(&path).unwrap(), good);
    // Nobody opens the mail, and the sender is off: what is missing is made of what three others hold.
    team.stop(&["alice"]);
    team.configure("carol", "quota", "scrub_every = \"2 s\"");
    wait_for("the part is as it was", || (fs::read(&path).ok()? == good).then_some(()));
}
