//! The life of a mail at its reader: stub, body, nr; requests; endings; crashes between any two effects.

use std::sync::Arc;

use super::*;
use crate::model::group::{Member, Roster};
use crate::model::msglist::{Ending, Tombstone};
use crate::model::{ByteSize, Policy};
use crate::wire::PeerKey;

#[test]
fn a_mail_becomes_a_stub_is_pulled_when_opened_and_answered_once() {
    let mut world = World::new();
    assert_eq!(world.send(&ns(1), true), Some(Reply::NsTaken));
    let inbox = world.listed(Standard::Inbox);
    assert_eq!((inbox.len(), inbox[0].body, inbox[0].size), (1, BodyState::Absent, ns(1).structure.size));
    assert_eq!((world.pulled, world.sender.taken.len()), (0, 0));
    assert!(matches!(world.open(Standard::Inbox, inbox[0].uid), Some(MailboxReply::Body(_))));
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Here);
    assert_eq!(world.outcomes(), [Outcome::Received]);
    assert_eq!(world.sender.taken[0].h, ns(1).h);
    world.pass(40 * DAY);
    assert_eq!((world.pulled, world.sender.taken.len()), (1, 1));
    assert_eq!(world.listed(Standard::Inbox).len(), 1);
    assert_eq!(world.brain.observe(world.now).mails, 0, "long after its expiry the mail is forgotten");
}

#[test]
fn an_ns_that_is_repeated_files_nothing_and_once_done_is_answered_again() {
    let mut world = World::new();
    for _ in 0..3 {
        assert_eq!(world.send(&ns(1), true), Some(Reply::NsTaken));
    }
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    world.pass(Duration::from_secs(120));
    world.send(&ns(1), true);
    world.send(&ns(1), true);
    assert_eq!(
        world.outcomes(),
        [Outcome::Received; 2],
        "asked again after its nr was taken, within a minute only once"
    );
    let resealed = Ns { h: MailId::new([55; 20]), digest: Digest::new([55; 32]), ..ns(1) };
    world.send(&resealed, true);
    assert_eq!(world.sender.taken.last().unwrap().h, resealed.h);
    let other = Ns { header_block: b"From: alice@acme\r\n\r\n".to_vec(), h: MailId::new([56; 20]), ..ns(1) };
    assert!(matches!(world.send(&other, true), Some(Reply::NsRefused(_))));
    assert_eq!(world.listed(Standard::Inbox).len(), 1);
}

#[test]
fn two_ns_at_once_share_one_write_and_both_are_answered() {
    let mut world = World::new();
    let (a, b) = (world.token(), world.token());
    for token in [a, b] {
        world.brain.handle(world.now, Input::Ns { from: NsFrom::Direct(token), ns: Box::new(ns(1)), known: true });
    }
    world.run();
    assert_eq!((world.replies.get(&a), world.replies.get(&b)), (Some(&Reply::NsTaken), Some(&Reply::NsTaken)));
    assert_eq!(world.listed(Standard::Inbox).len(), 1);
}

#[test]
fn an_open_without_enough_parts_is_unavailable_and_the_next_one_asks_again() {
    let mut world = World::new();
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.sender.way = Way::Down;
    assert!(unavailable(world.open(Standard::Inbox, uid)).contains("2 more parts"));
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Absent);
    world.sender.way = Way::Up;
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Body(_))));
    assert_eq!(world.pulled, 2);
}

#[test]
fn a_stub_that_is_deleted_everywhere_is_refused_and_no_body_byte_moves() {
    let mut world = World::new();
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.mv(Standard::Inbox, &[uid], Standard::Trash);
    assert_eq!(world.outcomes(), [], "in Trash a stub is still a stub");
    let uid = world.listed(Standard::Trash)[0].uid;
    assert_eq!(world.delete(Standard::Trash, uid), MailboxReply::Expunged(vec![uid]));
    assert_eq!((world.outcomes(), world.pulled), (vec![UNREAD], 0));
    assert_eq!(world.files.len(), 0);
    world.send(&ns(1), true);
    assert_eq!(world.listed(Standard::Inbox).len(), 0, "a refused mail does not come back");
}

#[test]
fn a_body_that_does_not_fit_its_ns_is_refused_and_not_filed() {
    let mut world = World::new();
    world.sender.way = Way::Lying;
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Failed(MailboxFailure::Gone(_)))));
    assert_eq!(world.outcomes(), [Outcome::Refused(Refusal::Mismatch)]);
    assert_eq!((world.listed(Standard::Inbox).len(), world.brain.observe(world.now).mismatches), (0, 1));
}

#[test]
fn a_mail_larger_than_the_group_takes_is_refused_before_anything_is_kept_for_it() {
    let mut world = World::new();
    let (policy, address) = (Policy { max_mail: ByteSize::mib(1), ..Policy::default() }, rita());
    let me = Member { address, peer_id: PeerId::new([9; 32]), fingerprint: Fingerprint::new([9; 20]) };
    let (group, members) = (me.address.group().clone(), vec![me.clone()]);
    let limit = policy.max_sealed();
    world.tell(Input::Roster(Arc::new(Roster {
        me,
        group,
        gd_version: 1,
        policy,
        members,
        lost: BTreeSet::new(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    })));
    world.send(&Ns { length: limit + 1, ..ns(1) }, true);
    let mut huge = ns(2);
    huge.structure.size = u64::MAX;
    world.send(&huge, true);
    assert_eq!(world.outcomes(), [Outcome::Refused(Refusal::TooLarge); 2]);
    assert_eq!((world.listed(Standard::Inbox).len(), world.files.len()), (0, 0));
    world.send(&Ns { length: limit, ..ns(3) }, true);
    assert_eq!(world.listed(Standard::Inbox).len(), 1);
    // Another sealed form of a mail that was taken is bounded too.
    let again = Ns { length: limit + 1, h: MailId::new([99; 20]), ..ns(3) };
    assert_eq!(world.send(&again, true), Some(Reply::NsRefused(io::NsRefusal::TooLarge { limit })));
}

#[test]
fn an_ns_whose_from_is_not_its_signer_or_whose_reader_is_another_is_refused() {
    let mut world = World::new();
    let forged = Ns { header_block: b"From: bob@acme\r\n\r\n".to_vec(), ..ns(1) };
    world.send(&forged, true);
    let astray = Ns { to: "ralf@readers".parse().unwrap(), ..ns(2) };
    world.send(&astray, true);
    let refused = [Refusal::Mismatch, Refusal::UnknownAddress].map(Outcome::Refused);
    assert_eq!(world.outcomes(), refused);
    assert_eq!(world.listed(Standard::Inbox).len(), 0);
    let late = Ns { expiry: world.now.wall, ..ns(3) };
    assert_eq!(world.send(&late, true), Some(Reply::NsRefused(io::NsRefusal::Expired)));
}

#[test]
fn an_nr_waits_in_the_dht_and_is_offered_until_its_sender_is_back() {
    let mut world = World::new();
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    assert_eq!(world.outcomes(), [Outcome::Received]);
    world.send(&ns(2), true);
    world.sender.way = Way::Down;
    let uid = world.listed(Standard::Inbox)[1].uid;
    world.delete(Standard::Inbox, uid);
    assert_eq!((world.dht.len(), world.brain.observe(world.now).nr_in_dht), (1, 1));
    world.pass(Duration::from_secs(3600));
    world.crash();
    world.run();
    assert_eq!(world.brain.observe(world.now).nr_in_dht, 1);
    world.sender.way = Way::Up;
    world.tell(Input::PeerIsBack(ns(1).owner));
    assert_eq!(world.outcomes(), [Outcome::Received, UNREAD]);
    assert_eq!(world.brain.observe(world.now).nr_open, 0);
}

#[test]
fn an_ns_from_the_dht_is_deleted_there_once_its_mail_is_done() {
    let mut world = World::new();
    let value = Digest::new([3; 32]);
    world.tell(Input::Ns { from: NsFrom::Dht(value), ns: Box::new(ns(1)), known: true });
    assert_eq!(world.deleted_ns, []);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    assert_eq!(world.deleted_ns, [value]);
}

#[test]
fn an_unopened_mail_of_a_known_sender_is_pulled_late_in_its_life_and_tried_until_it_expires() {
    let mut world = World::new();
    world.send(&ns(1), true);
    world.sender.way = Way::Down;
    world.pass(5 * DAY);
    assert_eq!(world.pulled, 0);
    world.pass(DAY);
    assert!(world.pulled > 3, "{}", world.pulled);
    world.sender.way = Way::Up;
    world.pass(Duration::from_secs(4000));
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Here);
    assert_eq!(world.outcomes(), [Outcome::Received]);
}

#[test]
fn eager_pulls_at_once() {
    let mut world = World::with(Settings { eager: true, ..Settings::new(rita()) });
    world.send(&ns(1), true);
    assert_eq!((world.pulled, world.outcomes()), (1, vec![Outcome::Received]));
}

#[test]
fn a_stub_that_expired_stays_and_says_so() {
    let mut world = World::new();
    world.sender.way = Way::Down;
    world.send(&ns(1), true);
    world.tell(Input::ClockDoubtful(true));
    world.pass(8 * DAY);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Absent, "a doubtful clock expires nothing");
    world.tell(Input::ClockDoubtful(false));
    world.pass(DAY);
    let stub = &world.listed(Standard::Inbox)[0];
    assert_eq!(stub.body, BodyState::Expired);
    assert!(stub.flags.contains(&Flag::Keyword("$Expired".to_owned())));
    let uid = stub.uid;
    assert!(matches!(world.open(Standard::Inbox, uid), Some(MailboxReply::Failed(MailboxFailure::Gone(_)))));
    world.delete(Standard::Inbox, uid);
    assert_eq!(world.outcomes(), [], "what expired is answered by nobody");
}

#[test]
fn a_clock_that_is_ahead_at_a_start_ends_and_forgets_nothing_before_it_was_compared() {
    let mut world = World::new();
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    world.sender.way = Way::Down;
    world.send(&ns(2), true);
    world.clock_unsure = true;
    world.now.wall = world.now.wall + 80 * DAY;
    world.crash();
    world.pass(DAY);
    assert_eq!(world.listed(Standard::Inbox)[1].body, BodyState::Absent);
    // The sender repeats its ns, and the same mail is not filed a second time (R5).
    world.send(&ns(1), true);
    assert_eq!(world.listed(Standard::Inbox).len(), 2);
    world.tell(Input::ClockDoubtful(false));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.listed(Standard::Inbox)[1].body, BodyState::Expired, "at once, when the doubt is over");
}

#[test]
fn a_clock_that_is_set_while_the_peer_runs_ends_nothing_before_it_was_compared_anew() {
    let mut world = World::new();
    world.sender.way = Way::Down;
    world.send(&ns(1), true);
    world.now.wall = world.now.wall + 20 * DAY;
    world.pass(DAY);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Absent);
    world.tell(Input::ClockDoubtful(false));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Expired);
}

#[test]
fn many_pulls_that_fail_are_tried_again_one_at_a_time_and_at_once_when_a_member_of_the_senders_group_is_back() {
    let mut world = World::with(Settings { eager: true, ..Settings::new(rita()) });
    world.sender.way = Way::Down;
    for n in 1..=40 {
        world.send(&ns(n), true);
    }
    world.pass(Duration::from_secs(3600));
    let before = world.pulled;
    world.pass(Duration::from_secs(3600));
    let tried = world.pulled - before;
    assert!((100..=360).contains(&tried), "{tried}");
    let group = world.brain.state.mails.values().next().unwrap().group.clone();
    let (member, fingerprint) = (PeerKey::from_seed(&[77; 32]).peer_id(), crate::model::Fingerprint::new([7; 20]));
    let me = Member { address: rita(), peer_id: PeerKey::from_seed(&[76; 32]).peer_id(), fingerprint };
    let other = Member { peer_id: member, ..me.clone() };
    let (policy, lost) = (crate::model::Policy::default(), BTreeSet::new());
    let members = vec![me.clone(), other];
    world.tell(Input::Roster(Arc::new(Roster {
        me,
        group,
        gd_version: 1,
        policy,
        members,
        leaving: lost.clone(),
        silent: lost.clone(),
        lost,
    })));
    world.sender.way = Way::Up;
    world.tell(Input::PeerIsBack(member));
    assert!(world.listed(Standard::Inbox).iter().all(|stub| stub.body == BodyState::Here));
}

fn cancelled(world: &World, key: &PeerKey, n: u8) -> crate::wire::Signed<Tombstone> {
    let (at, expiry) = (world.now.wall, ns(n).expiry);
    key.sign(Tombstone { owner: key.peer_id(), h: ns(n).h, ending: Ending::Cancelled, at, expiry })
}

#[test]
fn a_cancelled_stub_stays_and_a_later_ns_is_ignored() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    let mine = |n| Ns { owner: key.peer_id(), ..ns(n) };
    world.send(&mine(1), true);
    world.send(&ns(2), true);
    for n in [1, 2, 3] {
        let tombstone = cancelled(&world, &key, n);
        world.tell(Input::Tombstone { token: None, tombstone, known: true });
    }
    let inbox = world.listed(Standard::Inbox);
    assert_eq!(inbox[0].body, BodyState::Cancelled);
    assert_eq!(inbox[1].body, BodyState::Absent, "another peer's tombstone says nothing");
    for n in [1, 3] {
        assert_eq!(world.send(&mine(n), true), Some(Reply::NsTaken));
    }
    world.crash();
    world.run();
    world.send(&mine(3), true);
    assert_eq!(world.listed(Standard::Inbox).len(), 2);
}

#[test]
fn a_request_moved_to_inbox_grants_its_sender_and_brings_the_stub() {
    let mut world = World::new();
    for n in [1, 2] {
        assert_eq!(world.send(&ns(n), false), Some(Reply::NsTaken));
    }
    assert_eq!((world.listed(Standard::Inbox).len(), world.listed(Standard::Requests).len()), (0, 2));
    let card = world.listed(Standard::Requests)[0].uid;
    let reply = world.mv(Standard::Requests, &[card], Standard::Inbox);
    assert!(matches!(reply, MailboxReply::Copied { uids, .. } if uids.is_empty()));
    assert_eq!((world.listed(Standard::Inbox).len(), world.listed(Standard::Requests).len()), (2, 0));
    assert_eq!(world.pinned, 1);
    world.send(&ns(3), false);
    let inbox = world.listed(Standard::Inbox);
    assert_eq!(inbox.len(), 3, "a granted sender needs no consent again");
    assert!(matches!(world.open(Standard::Inbox, inbox[0].uid), Some(MailboxReply::Body(_))));
}

#[test]
fn candidates_are_shown_one_card_each_and_the_one_that_is_moved_to_inbox_is_pinned() {
    let mut world = World::new();
    let (acme, keys) = ("acme".parse().unwrap(), [7, 8].map(|n| Fingerprint::new([n; 20])));
    let both = crate::core::group::Candidates::from([(acme, keys.into())]);
    world.tell(Input::Candidates(both.clone()));
    world.tell(Input::Candidates(both.clone()));
    let cards = world.listed(Standard::Requests);
    assert_eq!((cards.len(), world.pinned), (2, 0), "a card each, and nothing is chosen silently");
    world.crash();
    assert_eq!(world.listed(Standard::Requests).len(), 2, "they are durable");
    world.mv(Standard::Requests, &[cards[0].uid], Standard::Trash);
    world.tell(Input::Candidates(both.clone()));
    assert_eq!(world.listed(Standard::Requests).len(), 1, "a card that was deleted stays away");
    world.mv(Standard::Requests, &[cards[1].uid], Standard::Inbox);
    assert_eq!((world.pinned, world.listed(Standard::Requests).len(), world.listed(Standard::Inbox).len()), (1, 0, 0));
    world.tell(Input::Candidates(crate::core::group::Candidates::new()));
    world.tell(Input::Candidates(both));
    assert_eq!(world.listed(Standard::Requests).len(), 1, "asked anew; the other one is in Trash still");
    world.tell(Input::Candidates(crate::core::group::Candidates::new()));
    assert!(world.listed(Standard::Requests).is_empty(), "nothing waits any more");
}

#[test]
fn a_request_moved_to_junk_refuses_its_sender_for_good() {
    let mut world = World::new();
    world.send(&ns(1), false);
    world.send(&ns(2), false);
    let card = world.listed(Standard::Requests)[0].uid;
    world.mv(Standard::Requests, &[card], Standard::Junk);
    assert_eq!((world.listed(Standard::Requests).len(), world.listed(Standard::Junk).len()), (0, 1));
    world.send(&ns(3), true);
    assert_eq!(world.outcomes(), [Outcome::Refused(Refusal::Sender); 3]);
    let token = world.token();
    let sender = io::SenderName::Address("alice@acme".parse().unwrap());
    world.tell(Input::Judge { token, sender, verdict: Verdict::Withdrawn });
    assert_eq!(world.replies[&token], Reply::Judged { senders: 1, mails: 0 });
    world.send(&ns(4), false);
    assert_eq!(world.listed(Standard::Requests).len(), 1);
}

#[test]
fn a_deleted_request_refuses_this_mail_only_also_from_trash() {
    let mut world = World::new();
    world.send(&ns(1), false);
    let card = world.listed(Standard::Requests)[0].uid;
    world.mv(Standard::Requests, &[card], Standard::Trash);
    assert_eq!(world.outcomes(), []);
    let card = world.listed(Standard::Trash)[0].uid;
    world.delete(Standard::Trash, card);
    assert_eq!((world.outcomes(), world.files.len()), (vec![UNREAD], 0));
    world.send(&ns(2), false);
    assert_eq!(world.listed(Standard::Requests).len(), 1);
}

#[test]
fn requests_are_bounded_by_sender_and_in_all() {
    let settings = Settings { requests_per_sender: 3, requests_max: 5, ..Settings::new(rita()) };
    let mut world = World::with(settings);
    let by = |who: u8, n: u8| Ns { from_fingerprint: Fingerprint::new([who; 20]), ..ns(n) };
    let taken: Vec<bool> = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 6), (4, 7)]
        .into_iter()
        .map(|(who, n)| world.send(&by(who, n), false) == Some(Reply::NsTaken))
        .collect();
    assert_eq!(taken, [true, true, true, false, true, true, false]);
}

#[test]
fn own_mail_that_waits_is_shown_with_its_state_and_deleting_it_takes_it_back() {
    let mut world = World::new();
    world.tell(show(1, "$Sealed", false));
    world.tell(show(2, "$Sealed", false));
    world.tell(show(2, "$Sealed", true));
    world.pass(Duration::from_secs(2));
    world.tell(show(1, "$Safe1", false));
    let outbox = world.listed(Standard::Outbox);
    assert_eq!(outbox.len(), 1);
    assert!(outbox[0].flags.contains(&Flag::Keyword("$Safe1".to_owned())));
    let token = world.token();
    world.tell(Input::FindOwn { token, submission: SubmissionId::new([1; 16]) });
    assert_eq!(world.replies[&token], Reply::Own(Some(outbox[0].key)));
    assert!(matches!(world.open(Standard::Outbox, outbox[0].uid), Some(MailboxReply::Body(_))));
    world.delete(Standard::Outbox, outbox[0].uid);
    assert_eq!(world.cancelled, [SubmissionId::new([1; 16])]);
    world.crash();
    world.run();
    world.tell(show(1, "$Safe1", false));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.listed(Standard::Outbox).len(), 0, "what the user deleted does not come back");
    world.tell(show(3, "$Sealed", false));
    world.pass(Duration::from_secs(2));
    world.tell(Input::ShowOnly(BTreeSet::new()));
    assert_eq!((world.listed(Standard::Outbox).len(), world.files.len()), (0, 0));
    assert_eq!(world.cancelled.len(), 1);
}

#[test]
fn what_this_peer_files_itself_is_filed_once() {
    let mut world = World::new();
    for _ in 0..2 {
        let (a, b) = (world.token(), world.token());
        let (id, at) = (SubmissionId::new([1; 16]), world.now.wall);
        world.tell(Input::FileMessage { token: a, id, at, message: b"From: x\r\n\r\n".to_vec() });
        let submission = SubmissionId::new([2; 16]);
        world.tell(Input::FileSpooled { token: b, submission, mailbox: Standard::Inbox });
        assert_eq!((&world.replies[&a], &world.replies[&b]), (&Reply::Filed(Ok(())), &Reply::Filed(Ok(()))));
        world.crash();
        world.run();
    }
    assert_eq!(world.listed(Standard::Inbox).len(), 2);
}

/// One mail from its ns to its nr, everybody repeating what was not answered.
fn whole_life(world: &mut World, known: bool) {
    let mut accepted = false;
    for _ in 0..20 {
        accepted |= world.send(&ns(1), known) == Some(Reply::NsTaken);
        world.run();
        let shown = world.listed_twice(Standard::Inbox) + world.listed_twice(Standard::Requests);
        assert!(!accepted || shown == 1, "an accepted mail is shown once, not {shown} times");
        if let Some(card) = world.first(Standard::Requests) {
            let (mailbox, to) = (name(Standard::Requests), name(Standard::Inbox));
            world.ask_in(View::Stubs, MailboxRequest::Move { mailbox, uids: vec![card], to });
        }
        if let Some(stub) = world.first(Standard::Inbox)
            && let Some(MailboxReply::Body(_)) = world.open(Standard::Inbox, stub)
        {
            world.pass(Duration::from_secs(600));
            break;
        }
    }
    world.fuse = None;
    world.pass(DAY);
    assert_eq!(world.listed(Standard::Inbox).len(), 1);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Here);
    assert!(!world.outcomes().is_empty() && world.outcomes().iter().all(|o| *o == Outcome::Received));
    assert_eq!(world.files.len(), 1, "nothing is left of what was interrupted");
}

impl World {
    /// How many messages are shown, asking again when a crash swallowed the answer.
    fn listed_twice(&mut self, which: Standard) -> usize {
        let open = || MailboxRequest::Open(name(which));
        let first = self.ask_in(View::Stubs, open());
        match first.or_else(|| self.ask_in(View::Stubs, open())) {
            Some(MailboxReply::Opened { messages, .. }) => messages.len(),
            other => panic!("{other:?}"),
        }
    }
    fn first(&mut self, which: Standard) -> Option<Uid> {
        match self.ask_in(View::Stubs, MailboxRequest::Open(name(which))) {
            Some(MailboxReply::Opened { messages, .. }) => messages.first().map(|m| m.uid),
            _ => None,
        }
    }
}

#[test]
fn a_crash_between_any_two_effects_loses_nothing_and_doubles_nothing() {
    for known in [true, false] {
        let mut fuse = 0;
        loop {
            let mut world = World::new();
            world.fuse = Some(fuse);
            whole_life(&mut world, known);
            if world.crashes == 0 {
                assert!(fuse > 20, "{fuse}");
                break;
            }
            fuse += 1;
        }
    }
}

#[test]
fn a_grant_that_is_taken_back_makes_later_mails_requests_again_also_after_a_restart() {
    let mut world = World::new();
    world.send(&ns(1), false);
    for (verdict, n) in [(Verdict::Granted, 2), (Verdict::Withdrawn, 3)] {
        let (token, sender) = (world.token(), io::SenderName::Fingerprint(ns(1).from_fingerprint));
        world.tell(Input::Judge { token, sender, verdict });
        world.crash();
        world.run();
        world.send(&ns(n), verdict == Verdict::Withdrawn);
    }
    assert_eq!((world.listed(Standard::Inbox).len(), world.listed(Standard::Requests).len()), (2, 1));
}

#[test]
fn whoever_was_written_to_may_answer_without_asking_and_another_key_may_not() {
    let mut world = World::new();
    let token = world.token();
    world.tell(Input::WroteTo { token, certificates: vec![ns(1).from_fingerprint] });
    assert_eq!(world.replies[&token], Reply::WroteTo);
    world.crash();
    world.run();
    world.send(&ns(1), false);
    world.send(&Ns { from_fingerprint: Fingerprint::new([66; 20]), ..ns(2) }, false);
    assert_eq!((world.listed(Standard::Inbox).len(), world.listed(Standard::Requests).len()), (1, 1));
}

#[test]
fn strangers_are_bounded_by_the_hour_and_never_block_a_known_sender() {
    let mut world = World::with(Settings { requests_per_hour: 2, ..Settings::new(rita()) });
    let by = |who: u8| Ns { from_fingerprint: Fingerprint::new([who; 20]), ..ns(who) };
    let taken = |world: &mut World, who| world.send(&by(who), false) == Some(Reply::NsTaken);
    assert_eq!([1, 2, 3].map(|who| taken(&mut world, who)), [true, true, false]);
    assert_eq!(world.send(&ns(9), true), Some(Reply::NsTaken));
    world.pass(Duration::from_secs(3700));
    assert!(taken(&mut world, 3), "the hour is over");
}

#[test]
fn r9_strangers_are_taken_by_100_an_hour_to_500_in_all_and_nothing_that_was_taken_is_dropped_for_the_next() {
    let mut world = World::new();
    let by = |n: u16| {
        let mut id = [1; 20];
        id[..2].copy_from_slice(&n.to_be_bytes());
        let submission = SubmissionId::from_slice(&id[..16]).unwrap();
        Ns { submission, h: MailId::new(id), from_fingerprint: Fingerprint::new(id), ..ns(1) }
    };
    let mut next = 0..;
    let mut taken: Vec<Ns> = Vec::new();
    for hour in 0..7 {
        let before = taken.len();
        for ns in next.by_ref().take(120).map(by) {
            match world.send(&ns, false) {
                Some(Reply::NsTaken) => taken.push(ns),
                Some(Reply::NsRefused(io::NsRefusal::RequestsTooFast { .. } | io::NsRefusal::Requests { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken.len() - before, if hour < 5 { 100 } else { 0 }, "hour {hour}");
        world.pass(Duration::from_secs(3601));
    }
    assert_eq!(world.listed(Standard::Requests).len(), 500);
    world.crash();
    world.run();
    assert_eq!(world.listed(Standard::Requests).len(), 500, "also after a restart");
    assert!(matches!(world.send(&by(5000), false), Some(Reply::NsRefused(io::NsRefusal::Requests { .. }))));
    assert_eq!(world.send(&taken[0].clone(), false), Some(Reply::NsTaken), "one that was taken may come again");
    assert_eq!(world.send(&ns(9), true), Some(Reply::NsTaken), "a known sender is not held up");
    assert_eq!((world.listed(Standard::Requests).len(), world.listed(Standard::Inbox).len()), (500, 1));
    // Each of them can still be had, and makes room for one.
    let token = world.token();
    let sender = io::SenderName::Fingerprint(taken[499].from_fingerprint);
    world.tell(Input::Judge { token, sender, verdict: Verdict::Granted });
    assert_eq!((world.listed(Standard::Requests).len(), world.listed(Standard::Inbox).len()), (499, 2));
    assert_eq!(world.send(&by(5000), false), Some(Reply::NsTaken));
}

#[test]
fn r12_a_poll_that_too_few_answered_is_soon_made_again_and_less_and_less_often() {
    let mut world = World::new();
    world.pass(Duration::from_secs(600));
    assert_eq!(world.polls, 11, "at start and once a minute");
    world.dht_answers = false;
    world.crash();
    world.polls = 0;
    world.pass(Duration::from_secs(10));
    assert!((3..=5).contains(&world.polls), "{} in the first seconds of a start", world.polls);
    world.pass(Duration::from_secs(600));
    assert!((12..=20).contains(&world.polls), "{} in ten minutes", world.polls);
}
