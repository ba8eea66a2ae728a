//! Mails that their owner takes back, and those that it asks about once more: what the reader's peer promises by taking the
//! tombstone, and how often an ns that stays in the DHT is answered.

use super::*;
use crate::model::msglist::{Ending, Tombstone};
use crate::wire::PeerKey;

fn cancelled(world: &World, key: &PeerKey, n: u8) -> crate::wire::Signed<Tombstone> {
    let (at, expiry) = (world.now.wall, ns(n).expiry);
    key.sign(Tombstone { owner: key.peer_id(), h: ns(n).h, ending: Ending::Cancelled, at, expiry })
}

fn tells(world: &mut World, tombstone: crate::wire::Signed<Tombstone>, known: bool) -> Reply {
    let token = world.token();
    world.tell(Input::Tombstone { token: Some(token), tombstone, known });
    world.replies[&token].clone()
}

#[test]
fn a_tombstone_is_taken_only_when_the_mail_cannot_be_opened_and_no_word_of_it_is_under_way() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    let mine = |n| Ns { owner: key.peer_id(), ..ns(n) };
    world.send(&mine(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    let first = cancelled(&world, &key, 1);
    assert_eq!(tells(&mut world, first.clone(), true), Reply::TombstoneTaken, "a stub that nobody opened");
    assert_eq!(tells(&mut world, first, true), Reply::TombstoneTaken, "told again");
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Failed(MailboxFailure::Gone(_)))));
    let second = cancelled(&world, &key, 2);
    let unknown = Reply::TombstoneRefused(TombstoneRefusal::Unknown);
    assert_eq!(tells(&mut world, second.clone(), false), unknown, "a stranger's tombstone is not remembered");
    assert_eq!(tells(&mut world, second, true), Reply::TombstoneTaken, "it is remembered, and so is its mail ignored");
    world.sender.way = Way::Up;
    world.send(&mine(3), true);
    let uid = world.listed(Standard::Inbox).last().unwrap().uid;
    world.sender.deaf = true;
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Body(_))));
    let third = cancelled(&world, &key, 3);
    let not_yet = Reply::TombstoneRefused(TombstoneRefusal::NotYet);
    assert_eq!(tells(&mut world, third.clone(), true), not_yet, "it was read, and the nr is not taken");
    world.sender.deaf = false;
    assert_eq!(tells(&mut world, third.clone(), true), not_yet, "the nr goes first");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcomes(), [Outcome::Received]);
    assert_eq!(tells(&mut world, third, true), not_yet, "it was read: the owner has that word, or asks for it again");
}

/// Seed 2003393: an owner whose clock had been weeks behind asked for ever about a mail that was over for its reader before it came.
#[test]
fn r12_an_owner_that_asks_about_a_mail_that_is_over_here_is_told_that_nobody_can_open_it() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    let word = cancelled(&world, &key, 1);
    world.now.wall = word.expiry + Duration::from_secs(86_400);
    world.tell(Input::Tombstone { token: None, tombstone: word.clone(), known: true });
    assert!(world.brain.state.buried.is_empty(), "a list that says so asks nothing, and may be long");
    assert_eq!(tells(&mut world, word.clone(), true), Reply::TombstoneTaken);
    // Its clock is set back, and the ns comes.
    world.now.wall = WallTime(word.expiry.0 - 3_600_000);
    world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
    assert!(world.listed(Standard::Inbox).is_empty());
}

#[test]
fn r7_an_owner_that_forgot_a_word_that_it_took_hears_it_again_before_its_cancel_counts() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Body(_))));
    assert_eq!(world.outcomes(), [Outcome::Received]);
    // Restored from before that, it cancels, and asks whether the mail was read.
    world.pass(Duration::from_secs(120));
    let word = cancelled(&world, &key, 1);
    let not_yet = Reply::TombstoneRefused(TombstoneRefusal::NotYet);
    assert_eq!(tells(&mut world, word.clone(), true), not_yet);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcomes(), [Outcome::Received, Outcome::Received]);
    // Who repeats the question does not get an answer each time.
    for _ in 0..5 {
        assert_eq!(tells(&mut world, word.clone(), true), not_yet);
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcomes().len(), 2);
    // A member's list that says so asks nothing.
    world.pass(Duration::from_secs(120));
    world.tell(Input::Tombstone { token: None, tombstone: word, known: true });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcomes().len(), 2);
}

#[test]
fn a_mail_that_is_taken_back_while_it_is_pulled_is_not_filed() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.held = Some(Vec::new());
    assert_eq!(world.open(Standard::Inbox, uid), None);
    let word = cancelled(&world, &key, 1);
    assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken);
    world.release();
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Cancelled);
    assert_eq!((world.outcomes(), world.files.values().filter(|(_, body)| *body).count()), (vec![], 0));
}

#[test]
fn an_owner_that_asks_about_a_mail_that_has_just_expired_hears_that_it_was_received() {
    let mut world = World::new();
    world.sender.deaf = true;
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Body(_))));
    world.pass(8 * DAY);
    assert_eq!(world.outcomes(), []);
    world.sender.deaf = false;
    assert_eq!(world.send(&ns(1), true), Some(Reply::NsTaken));
    world.pass(Duration::from_secs(600));
    assert_eq!(world.outcomes(), [Outcome::Received]);
    assert!(matches!(world.send(&ns(2), true), Some(Reply::NsRefused(_))), "one that was never known is not taken");
}

#[test]
fn r9_what_was_half_fetched_of_a_mail_that_is_over_is_removed() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    for n in 1..=3 {
        world.send(&Ns { owner: key.peer_id(), ..ns(n) }, true);
    }
    // Opened in vain, each leaves half a file.
    world.sender.way = Way::Down;
    for message in world.listed(Standard::Inbox) {
        unavailable(world.open(Standard::Inbox, message.uid));
    }
    assert!(world.dropped.is_empty(), "the next open goes on with it");
    assert_eq!(world.brain.mails_to_fetch().len(), 3);
    let word = cancelled(&world, &key, 1);
    assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken);
    assert_eq!(world.dropped, [ns(1).h]);
    let uid = world.listed(Standard::Inbox)[1].uid;
    world.delete(Standard::Inbox, uid);
    assert_eq!(world.dropped, [ns(1).h, ns(2).h]);
    world.pass(8 * DAY);
    assert_eq!(world.dropped, [ns(1).h, ns(2).h, ns(3).h]);
    assert!(world.brain.mails_to_fetch().is_empty());
}

#[test]
fn r2_a_reader_that_starts_says_hello_to_the_peers_of_mails_that_wait() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    assert!(world.greeted.is_empty());
    world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
    world.crash();
    world.run();
    assert_eq!(world.greeted, BTreeSet::from([key.peer_id()]));
}

#[test]
fn r7_a_mail_of_the_same_h_under_another_submission_or_owner_hides_none_from_its_tombstone() {
    let (alice, mallory) = (PeerKey::from_seed(&[4; 32]), PeerKey::from_seed(&[5; 32]));
    let mine = |n| Ns { owner: alice.peer_id(), ..ns(n) };
    // Mallory announces alice's h as a mail of its own; alice sends one sealed mail under two submissions.
    let foreign = Ns { h: ns(1).h, owner: mallory.peer_id(), from_fingerprint: Fingerprint::new([6; 20]), ..ns(3) };
    let second = Ns { h: ns(1).h, ..mine(2) };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut world = World::new();
        let all = [mine(1), second.clone(), foreign.clone()];
        for at in order {
            world.send(&all[at], true);
        }
        let word = cancelled(&world, &alice, 1);
        assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken, "{order:?}");
        let states: BTreeMap<usize, BodyState> =
            order.iter().zip(world.listed(Standard::Inbox)).map(|(at, message)| (*at, message.body)).collect();
        let expected = [(0, BodyState::Cancelled), (1, BodyState::Cancelled), (2, BodyState::Absent)];
        assert_eq!(states, BTreeMap::from(expected), "{order:?}");
        // What is forgotten of one leaves the others findable.
        world.crash();
        let word = cancelled(&world, &mallory, 1);
        assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken, "{order:?}");
        assert!(world.listed(Standard::Inbox).iter().all(|message| message.body == BodyState::Cancelled));
    }
}

#[test]
fn r5_what_was_filed_is_not_forgotten_by_a_clock_that_may_be_wrong() {
    let mut world = World::new();
    let file = |world: &mut World, n: u8| {
        let (token, at) = (world.token(), world.now.wall);
        let (id, message) = (SubmissionId::new([n; 16]), b"Subject: x\r\n\r\nx\r\n".to_vec());
        world.tell(Input::FileMessage { token, id, at, message });
    };
    file(&mut world, 1);
    world.tell(Input::ClockDoubtful(true));
    world.now = world.now.after(400 * DAY);
    file(&mut world, 2);
    file(&mut world, 1);
    assert_eq!(world.listed(Standard::Inbox).len(), 2, "filed once");
    world.tell(Input::ClockDoubtful(false));
    file(&mut world, 3);
    file(&mut world, 1);
    assert_eq!(world.listed(Standard::Inbox).len(), 4, "by a right clock it is forgotten in the end");
}

#[test]
fn an_ns_that_nobody_can_delete_in_the_dht_asks_for_its_nr_once_more_and_then_writes_nothing() {
    let mut world = World::new();
    let lies_there =
        |value| Input::Ns { from: NsFrom::Dht(Digest::new([value; 32])), ns: Box::new(ns(1)), known: true };
    world.tell(lies_there(3));
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    assert_eq!(world.outcomes(), [Outcome::Received]);
    // Its sender may have lost the nr with its disk.
    world.pass(Duration::from_secs(3600));
    world.tell(lies_there(3));
    assert_eq!(world.outcomes(), [Outcome::Received; 2]);
    let written = world.journal.len();
    for _ in 0..3 {
        world.pass(Duration::from_secs(3600));
        world.tell(lies_there(3));
    }
    assert_eq!((world.outcomes().len(), world.journal.len()), (2, written));
    assert_eq!(world.deleted_ns.len(), 5);
    // Another one is the sender's: it was sealed anew. And the sender itself is always heard.
    world.tell(lies_there(4));
    assert_eq!(world.outcomes().len(), 3);
    world.pass(Duration::from_secs(3600));
    world.send(&ns(1), true);
    assert_eq!(world.outcomes().len(), 4);
}

#[test]
fn r7_a_mail_that_was_announced_in_two_sealed_forms_is_over_when_both_are_taken_back() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    let first = Ns { owner: key.peer_id(), ..ns(1) };
    let second = Ns { h: ns(2).h, ..first.clone() };
    world.send(&first, true);
    world.send(&second, true);
    let word = cancelled(&world, &key, 1);
    assert_eq!(tells(&mut world, word.clone(), true), Reply::TombstoneTaken, "it cannot be had in this form any more");
    assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken, "told again");
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Absent, "it may be had in the other");
    world.crash();
    let word = cancelled(&world, &key, 2);
    assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Cancelled);
}

#[test]
fn r7_a_form_that_was_taken_back_before_it_came_is_not_pulled() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    let first = Ns { owner: key.peer_id(), ..ns(1) };
    world.send(&first, true);
    let word = cancelled(&world, &key, 2);
    assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken);
    assert_eq!(world.send(&Ns { h: ns(2).h, ..first }, true), Some(Reply::NsTaken));
    let word = cancelled(&world, &key, 1);
    assert_eq!(tells(&mut world, word, true), Reply::TombstoneTaken);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Cancelled, "that was the only one to be had");
}

#[test]
fn r7_whatever_the_tombstone_says_an_owner_that_asks_hears_that_the_mail_was_read() {
    for ending in [Ending::Cancelled, Ending::Refused, Ending::Expired] {
        let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
        world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
        let uid = world.listed(Standard::Inbox)[0].uid;
        assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Body(_))));
        world.pass(Duration::from_secs(120));
        let (at, expiry) = (world.now.wall, ns(1).expiry);
        let word = key.sign(Tombstone { owner: key.peer_id(), h: ns(1).h, ending, at, expiry });
        assert_eq!(tells(&mut world, word, true), Reply::TombstoneRefused(TombstoneRefusal::NotYet), "{ending:?}");
        world.pass(Duration::from_secs(1));
        assert_eq!(world.outcomes(), [Outcome::Received, Outcome::Received], "{ending:?}");
    }
}
