//! What members tell an owner that was restored from an old disk when it has gone on meanwhile, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use super::truth::{members_know, sent_after_a_copy, silence};
use super::world::{Outside, Rules, World, address, fingerprint, key, roster, submission};
use super::{MINUTE, end_of, ending, only_mail};
use crate::core::outbox::{CancelAnswer, CancelTarget, EndedAs, Event, Input, NrFrom, Reply, Spooled};
use crate::core::{Brain, Token};
use crate::model::MailId;
use crate::model::group::Roster;
use crate::model::msglist::Ending;
use crate::model::notification::Outcome;

/// An owner, a copy of its disk from before mail 1 could be sealed, and that mail as it was sealed then.
fn sealed_after_a_copy() -> (World, Outside, MailId) {
    let mut world = World::new(5, Rules::default());
    let late = world.now.wall + Duration::from_secs(10);
    world.rules.late.insert(address("rita@readers"), late);
    world.submit(1, &["rita@readers"], &[]);
    world.settle();
    let backup = world.outside.copy();
    world.run(MINUTE);
    let first = only_mail(&world);
    (world, backup, first)
}

/// It starts on that copy and hears nobody; nor can it seal the mail again before `late`.
fn restore_unheard(world: &mut World, backup: &Outside, late: Duration) {
    members_know(world);
    silence(world);
    let late = world.now.wall + late;
    world.rules.late.insert(address("rita@readers"), late);
    world.restore(backup);
    world.run(MINUTE);
}

/// The members can be heard again.
fn told(world: &mut World) {
    world.rules.silent.clear();
    world.tell(Input::PeerIsBack(key(2).peer_id()));
    world.run(MINUTE);
}

fn cancel(world: &mut World) -> Vec<CancelAnswer> {
    let token = Token(world.fresh());
    world.tell(Input::Cancel { token, target: CancelTarget::Submission(submission(1)) });
    world.settle();
    match &world.replies[&token] {
        Reply::Cancel(_, answers) => answers.iter().map(|(_, answer)| *answer).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r7_what_came_of_a_mail_came_of_it_also_as_it_was_sealed_again() {
    for end in [EndedAs::Received, EndedAs::Cancelled] {
        let (mut world, backup, first) = sealed_after_a_copy();
        if end == EndedAs::Received {
            let nr = world.nr(first, submission(1), &address("rita@readers"), Outcome::Received);
            let signer = fingerprint(&address("rita@readers"));
            world.tell(Input::Nr { from: NrFrom::Direct(Token(70)), nr, signer });
            world.settle();
        } else {
            cancel(&mut world);
        }
        restore_unheard(&mut world, &backup, Duration::ZERO);
        let second = world.sealed_of(1);
        assert!(second != first && end_of(&world, 1, "rita@readers").is_none(), "it was sealed again");
        told(&mut world);
        assert_eq!(end_of(&world, 1, "rita@readers"), Some(end));
        assert!(world.brain.state.open.is_empty(), "neither form is open: {end:?}");
        assert!(ending(&world, &first).is_some() && ending(&world, &second).is_some());
    }
}

#[test]
fn r7_a_mail_of_which_members_tell_when_its_receivers_have_ended_is_gone() {
    let (mut world, backup, first) = sealed_after_a_copy();
    restore_unheard(&mut world, &backup, 3 * MINUTE);
    assert!(world.brain.state.mails.is_empty());
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain], "somebody may have read it, who was not heard");
    told(&mut world);
    assert_eq!(ending(&world, &first), Some(Ending::Cancelled));
    assert!(!world.outside.blobs.contains(&first) && world.brain.state.open.is_empty());
}

#[test]
fn r7_a_stop_in_order_makes_no_old_copy_whole() {
    // Nobody has marked it as one, and member 2, who would tell, is not heard before it stops.
    let (mut world, backup, _) = sent_after_a_copy();
    members_know(&mut world);
    let knows = key(2).peer_id();
    let known = world.rules.own_lists[&knows].clone();
    world.restore(&backup);
    world.rules.own_lists.clear();
    world.rules.silent = [knows].into();
    world.crash();
    world.run(MINUTE);
    assert!(world.brain.may_be_an_old_copy());
    for _ in 0..2 {
        world.tell(Input::Stopping { token: Token(90) });
        world.settle();
        assert_eq!(world.replies[&Token(90)], Reply::Stopped);
        world.crash();
        world.run(MINUTE);
        assert!(world.brain.may_be_an_old_copy(), "it is as it was");
    }
    world.rules.silent.clear();
    world.rules.own_lists.insert(knows, known);
    world.tell(Input::PeerIsBack(knows));
    world.run(MINUTE);
    assert_eq!(world.brain.state.mails.len(), 1, "now it was told");
    assert!(!world.brain.may_be_an_old_copy());
    world.tell(Input::Stopping { token: Token(91) });
    world.settle();
    silence(&mut world);
    world.crash();
    world.run(MINUTE);
    assert!(!world.brain.may_be_an_old_copy(), "nobody knows more than it did");
}

#[test]
fn r7_whom_a_mail_went_to_is_unknown_from_the_first_record_on_of_what_members_know_better() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let first = only_mail(&world);
    let backup = world.outside.copy();
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    members_know(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    let journal = &world.outside.journal[backup.journal.len()..];
    assert!(matches!(journal.first(), Some(Event::Uncounted { h }) if *h == first), "{journal:?}");
    assert!(journal.iter().any(|event| matches!(event, Event::Sealed { adopted: Some(_), .. })));
}

#[test]
fn r7_a_tombstone_that_is_taken_while_somebody_may_tell_of_another_form_settles_nothing() {
    let rita = address("rita@readers");
    let (mut world, backup, first) = sealed_after_a_copy();
    restore_unheard(&mut world, &backup, Duration::ZERO);
    let second = world.sealed_of(1);
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    world.run(MINUTE);
    assert!(!world.outside.gone_told.is_empty(), "she took the tombstone of the second, and has the first");
    world.crash();
    world.run(MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain], "a start makes nothing sure");
    // Now members tell of the first, while she is away.
    world.rules.away = [rita.clone()].into();
    let attempts = world.outside.gone_attempts;
    told(&mut world);
    assert_eq!(ending(&world, &first), Some(Ending::Cancelled));
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    assert!(world.outside.gone_attempts > attempts, "she is told that it is gone");
    world.rules.away.clear();
    world.run(10 * MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "she can open neither {first} nor {second}");
    world.crash();
    world.run(MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "for good");
}

#[test]
fn r7_a_mail_that_was_read_in_another_life_was_taken_back_too_late() {
    let rita = address("rita@readers");
    let mut world = World::new(5, Rules { away: [rita.clone()].into(), ..Rules::default() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let (h, backup) = (only_mail(&world), world.outside.copy());
    let nr = world.nr(h, submission(1), &rita, Outcome::Received);
    world.tell(Input::Nr { from: NrFrom::Direct(Token(70)), nr, signer: fingerprint(&rita) });
    world.settle();
    assert_eq!(ending(&world, &h), Some(Ending::Received));
    members_know(&mut world);
    silence(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    told(&mut world);
    assert_eq!(cancel(&mut world), [CancelAnswer::TooLate]);
    let records = world.outside.journal.len();
    world.crash();
    world.run(MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::TooLate]);
    let news = &world.outside.journal[records..];
    assert!(
        !news.iter().any(|e| matches!(e, Event::Ended { .. } | Event::Tombstoned { .. })),
        "nothing is new: {news:?}"
    );
}

#[test]
fn r7_what_was_taken_back_is_so_also_for_whom_it_was_not_sealed_yet() {
    let mut world = World::new(5, Rules::default());
    let late = world.now.wall + 10 * MINUTE;
    world.rules.late.insert(address("bob@acme"), late);
    world.submit(1, &["rita@readers", "bob@acme"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    assert_eq!(cancel(&mut world).len(), 2);
    world.run(MINUTE);
    members_know(&mut world);
    world.restore(&backup);
    world.run(20 * MINUTE);
    for who in ["rita@readers", "bob@acme"] {
        assert_eq!(end_of(&world, 1, who), Some(EndedAs::Cancelled), "{who}");
    }
    assert!(world.outside.sealed.is_empty(), "nothing was sealed again");
}

#[test]
fn r1_spool_files_that_a_start_finds_late_go_behind_what_came_of_them() {
    let mut world = World::new(0, Rules::default());
    let late = world.now.wall + MINUTE;
    world.rules.late.insert(address("rita@readers"), late);
    world.submit(1, &["rita@readers"], &[]);
    world.settle();
    // After a start it is sealed before anybody has looked into the spool, on a disk that takes its time.
    world.rules = Rules { slow_disk: true, ..Rules::default() };
    world.crash();
    let found = world.without_spool_files();
    while !world.is_sealed_but_not_durable() {
        assert!(world.step(), "it is sealed");
    }
    let now = world.now;
    found.into_iter().for_each(|input| world.brain.handle(now, input));
    while world.is_sealed_but_not_durable() {
        assert_eq!(world.outside.spool_drops, 0, "no record says yet what came of it");
        assert!(world.step());
    }
    world.run(MINUTE);
    assert_eq!(world.outside.spool_drops, 1);
}

#[test]
fn r7_a_form_that_is_heard_of_when_all_seemed_settled_is_told_of_and_counts() {
    let (mut world, backup, first) = sealed_after_a_copy();
    restore_unheard(&mut world, &backup, Duration::ZERO);
    let second = world.sealed_of(1);
    cancel(&mut world);
    // Whoever knows of the first is called lost, so that nobody who counts was not heard.
    let lost = Roster { lost: world.rules.silent.clone(), ..(*roster(5)).clone() };
    world.tell(Input::Roster(Arc::new(lost)));
    world.run(MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "{second} is gone for all that anybody says");
    world.rules.away = [address("rita@readers")].into();
    world.tell(Input::Roster(roster(5)));
    told(&mut world);
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain], "she may have {first}");
    world.rules.away.clear();
    world.run(10 * MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled]);
}

#[test]
fn r7_what_was_taken_back_is_so_for_a_receiver_of_whom_the_spool_tells_later() {
    let mut world = World::new(0, Rules { away: [address("rita@readers")].into(), ..Rules::default() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    cancel(&mut world);
    let to = ["rita@readers", "bob@acme"].map(|to| (address(to), false));
    let (at, size) = (world.now.wall, 1000);
    let spooled = Spooled { submission: submission(1), receivers: to.into(), size, at, message_id: None };
    world.outside.spool.insert(submission(1), spooled.clone());
    world.tell(Input::Submitted { token: None, spooled });
    world.run(MINUTE);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Cancelled));
    assert_eq!(world.outside.sealed.len(), 1, "for rita alone");
}

/// Seed 21933: the mail was adopted for one of its receivers, and the other was waited for when the spool was looked into.
#[test]
fn r1_a_spool_file_stays_for_a_receiver_that_only_it_names() {
    let mut world = World::new(0, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    let spooled = world.outside.spool[&submission(1)].clone();
    world.run(MINUTE);
    assert_eq!((world.outside.spool_drops, world.outside.spool.len()), (1, 0));
    // It is there again, with one more receiver, whose certificate is late.
    let late = world.now.wall + MINUTE;
    world.rules.late.insert(address("bob@acme"), late);
    let receivers = spooled.receivers.iter().cloned().chain([(address("bob@acme"), false)]).collect();
    let spooled = Spooled { receivers, ..spooled };
    world.outside.spool.insert(submission(1), spooled.clone());
    world.brain.spool_free.insert(submission(1));
    world.brain.shown_taken.insert(submission(1));
    world.tell(Input::Submitted { token: None, spooled });
    world.run(Duration::from_secs(30));
    assert_eq!(world.outside.spool_drops, 1, "nothing was sealed for bob yet");
    world.run(2 * MINUTE);
    assert_eq!((world.outside.spool_drops, world.outside.sealed.len()), (2, 2));
}
