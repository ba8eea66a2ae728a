//! A 250 is a promise: the sender is killed at random moments after it, and delivers every mail after its restart, once
//! (R1, R2, R5).

use std::time::Duration;

use crate::harness::{Mail, Random, Team, wait_for};

/// How often the sender is killed.
const ROUNDS: usize = 50;
/// Within this time after the 250.
const MOMENT_MS: u64 = 1000;

#[test]
fn a_sender_killed_within_a_second_after_the_250_delivers_every_mail_once() {
    let team = Team::of_two();
    let mut random = Random::new();
    let mut mails: Vec<Mail> = Vec::new();
    for _ in 0..ROUNDS {
        let size = usize::try_from(random.below(20_000)).unwrap();
        let letter = team.letter("alice", "bob", size);
        mails.push(team.submit("alice", &["bob"], letter));
        std::thread::sleep(Duration::from_millis(random.below(MOMENT_MS)));
        team.kill(&["alice"]);
        team.start(&["alice"]);
    }
    let mut bob = team.reader("bob");
    for mail in &mails {
        bob.reads_every_byte_of(mail);
    }
    // Once the sender has nothing left to deliver, nothing can come twice any more.
    wait_for("the sender's outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    let mut uids: Vec<u32> = mails.iter().flat_map(|mail| bob.uids_of(mail)).collect();
    assert_eq!(uids.len(), ROUNDS, "{uids:?}");
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), ROUNDS);
    assert_eq!(bob.imap.uid_search("ALL").unwrap().len(), ROUNDS);
}
