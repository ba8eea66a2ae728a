//! The same among members: the reader is one of those who hold the mail.

use crate::harness::Team;

#[test]
fn a_member_reads_20_mb_after_the_sender_and_two_others_were_killed() {
    let team = Team::of_six();
    let letter = team.letter("alice", "frank", 20_000_000);
    let mail = team.submit("alice", &["frank"], letter);
    let sealed = team.wait_until_safe(&mail, 2);
    let others: Vec<&str> = sealed.holders.keys().map(|h| h.name().as_str()).filter(|name| *name != "frank").collect();
    team.kill(&["alice", others[0], others[1]]);
    team.reader("frank").reads_every_byte_of(&mail);
}
