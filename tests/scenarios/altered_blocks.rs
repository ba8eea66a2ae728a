//! A member serves altered blocks: the mail arrives whole all the same, and the member is named (R6).

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
