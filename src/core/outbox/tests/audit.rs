//! The audit of holdings, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::{Rules, World, key};
use super::{DAY, MINUTE, only_mail};
use crate::core::outbox::holdings::is_held;
use crate::core::outbox::{CancelTarget, Event, Input, Reply};
use crate::core::{Brain, Token};
use crate::model::holding::{HoldingRefusal, HoldingState};
use crate::model::msglist::{Ending, Tombstone};
use crate::model::{MailId, Part, PeerId, WallTime};

const HOUR: Duration = Duration::from_secs(3600);

fn part(i: u8) -> Part {
    Part::Fragment { k: 3, i }
}
/// A mail of which five members confirmed a fragment each; they are audited from now on.
fn held_by_five(rules: Rules) -> (World, MailId) {
    let mut world = World::new(5, rules);
    // Told before its first input.
    world.brain.audit_every(HOUR, 7);
    world.submit(1, &["rita@readers"], &[]);
    world.run(Duration::from_secs(10));
    let h = only_mail(&world);
    for i in 0..5 {
        world.holds(i + 2, h, part(i), HoldingState::Held, world.now.wall);
    }
    (world, h)
}
fn safe(world: &World) -> i32 {
    world.brain.status().submissions[0].mails[0].safe
}
fn liar() -> PeerId {
    key(3).peer_id()
}
/// The member compares what it holds with what its owner knows, and learns what it is to look at.
fn compares(world: &mut World, h: MailId) -> (usize, Vec<(MailId, Part)>) {
    let digests = crate::model::holding::bucket_digests([(h, part(1))]);
    let token = Token(world.fresh());
    world.tell(Input::HoldingBuckets { token, member: liar(), digests });
    world.settle();
    let Reply::Differ { differ, missed } = &world.replies[&token] else { panic!() };
    (differ.len(), missed.parts.clone())
}

/// Seed 350048166: a word that took long came after a later one, of which nothing had been kept.
#[test]
fn r8_a_word_that_a_part_is_there_does_not_count_after_a_later_one_that_it_is_lost() {
    let mut world = World::new(5, Rules::default());
    world.run(MINUTE);
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let (h, member, said) = (only_mail(&world), key(3).peer_id(), world.now.wall);
    assert_eq!(world.holds(3, h, Part::Whole, HoldingState::Lost, said), Reply::HoldingsTaken);
    let before = WallTime(said.0 - 400);
    assert!(matches!(world.holds(3, h, Part::Whole, HoldingState::Held, before), Reply::Refused(_)));
    assert!(!world.brain.state.mails[&h].holdings.contains_key(&(member, Part::Whole)));
    assert_eq!(world.brain.latest_word(&member), said, "so that it signs the next one later");
    assert_eq!(world.holds(3, h, Part::Whole, HoldingState::Held, WallTime(said.0 + 1)), Reply::HoldingsTaken);
    assert!(world.brain.state.mails[&h].holdings.contains_key(&(member, Part::Whole)));
    // A word that both clocks took for right when they were ahead keeps none back.
    let other = key(4).peer_id();
    world.now.wall = said + DAY;
    assert_eq!(world.holds(4, h, Part::Whole, HoldingState::Lost, said + DAY), Reply::HoldingsTaken);
    world.now.wall = said;
    assert_eq!(world.holds(4, h, Part::Whole, HoldingState::Held, said), Reply::HoldingsTaken);
    assert!(world.brain.state.mails[&h].holdings.contains_key(&(other, Part::Whole)));
}

#[test]
fn r12_every_member_is_audited_about_once_an_hour_and_a_passed_audit_writes_nothing() {
    let (mut world, h) = held_by_five(Rules::default());
    world.run(MINUTE);
    let written = world.outside.journal.len();
    world.run(20 * HOUR);
    let mut asked: BTreeMap<PeerId, usize> = BTreeMap::new();
    for (member, mail, of) in &world.outside.audits {
        assert_eq!(*mail, h);
        assert!((0..5).any(|i| *member == key(i + 2).peer_id() && *of == part(i)), "what that member confirmed");
        *asked.entry(*member).or_default() += 1;
    }
    assert_eq!(asked.len(), 5);
    assert!(asked.values().all(|n| (20..=80).contains(n)), "{asked:?}");
    assert_eq!(world.outside.journal.len(), written);
}

#[test]
fn r8_a_missed_audit_counts_as_lost_until_the_part_is_confirmed_anew_after_it() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    assert_eq!(safe(&world), 2);
    let before = world.now.wall;
    world.run(HOUR + MINUTE);
    assert_eq!(safe(&world), 1);
    let misses = world.brain.status().audit_misses;
    assert_eq!((misses.len(), misses[0].member.to_string(), misses[0].h), (1, "m3@acme".to_owned(), h));
    assert_eq!(
        world.outside.audits.iter().filter(|(who, ..)| *who == liar()).count(),
        1,
        "what is lost is not audited"
    );

    assert_eq!(compares(&mut world, h), (1, vec![(h, part(1))]), "the member is told what to look at");

    world.holds(3, h, part(1), HoldingState::Held, before);
    assert_eq!(safe(&world), 1, "a word from before the miss says nothing");
    world.crash();
    world.run(MINUTE);
    assert_eq!((safe(&world), world.brain.status().audit_misses.len()), (1, 1), "also after a restart");
    compares(&mut world, h);
    world.holds(3, h, part(1), HoldingState::Held, world.now.wall);
    assert_eq!((safe(&world), world.brain.status().audit_misses.len()), (2, 0));
}

#[test]
fn r8_a_member_whose_clock_is_behind_confirms_anew_after_a_miss() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    let before = world.now.wall;
    world.run(HOUR + MINUTE);
    assert_eq!(safe(&world), 1);
    world.holds(3, h, part(1), HoldingState::Held, before);
    assert_eq!(safe(&world), 1, "the word that was proved wrong, once more");
    world.crash();
    world.run(MINUTE);
    compares(&mut world, h);
    world.holds(3, h, part(1), HoldingState::Held, before + MINUTE);
    assert_eq!(safe(&world), 2, "signed after the miss, by a clock that is behind");
}

#[test]
fn r8_a_second_word_that_was_signed_before_a_miss_and_comes_after_it_restores_nothing() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    let (first, second, third) = (world.now.wall, world.now.wall + MINUTE, world.now.wall + MINUTE * 2);
    world.run(MINUTE * 3);
    world.holds(3, h, part(1), HoldingState::Held, second);
    world.run(HOUR);
    assert_eq!(safe(&world), 1);
    world.holds(3, h, part(1), HoldingState::Held, third);
    assert_eq!(safe(&world), 1, "on its way while the audit was missed");
    compares(&mut world, h);
    world.holds(3, h, part(1), HoldingState::Held, second);
    world.holds(3, h, part(1), HoldingState::Held, first);
    assert_eq!(safe(&world), 1, "both had been taken before, and come twice");
    world.holds(3, h, part(1), HoldingState::Held, world.now.wall);
    assert_eq!(safe(&world), 2, "the member has looked");
}

#[test]
fn a_miss_is_kept_by_a_compacted_journal_and_goes_with_its_mail() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    world.run(2 * HOUR);
    assert!(world.brain.snapshot().iter().any(|event| matches!(event, Event::Missed { h: of, .. } if *of == h)));
    world.run(8 * DAY);
    assert!(world.brain.status().audit_misses.is_empty(), "it expired");
}

#[test]
fn who_refuses_a_part_is_shown_with_the_reason_until_it_takes_one() {
    let (mut world, h) = held_by_five(Rules::default());
    let refused = HoldingState::Refused(HoldingRefusal::Quota);
    world.holds(3, h, part(1), HoldingState::Lost, world.now.wall);
    world.holds(3, h, part(1), refused, world.now.wall);
    let refusals = world.brain.status().refusals;
    assert_eq!((refusals.len(), refusals[0].member.to_string(), refusals[0].mails), (1, "m3@acme".to_owned(), 1));
    let shown = world.brain.status().submissions[0].mails[0].refused.clone();
    assert_eq!(shown, [("m3@acme".parse().unwrap(), HoldingRefusal::Quota)]);
    world.holds(3, h, part(1), HoldingState::Held, world.now.wall);
    assert!(world.brain.status().refusals.is_empty());
}

#[test]
fn r8_a_batch_that_was_signed_before_its_member_heard_of_a_miss_restores_nothing_however_late_it_comes() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    let on_its_way = world.now.wall + MINUTE;
    world.run(HOUR + MINUTE);
    assert_eq!(safe(&world), 1);
    // Its request failed at the member, which compared, and was told.
    assert_eq!(compares(&mut world, h).1, vec![(h, part(1))]);
    let missed_at = world.brain.status().audit_misses[0].at;
    let never = WallTime(0);
    world.says(3, &[(h, part(1), HoldingState::Held)], on_its_way, Some(never));
    assert_eq!(safe(&world), 1, "it comes after the comparison, and was signed before the miss");
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(never));
    assert_eq!(safe(&world), 1, "signed after the comparison by who had not its answer yet");
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(missed_at));
    assert_eq!((safe(&world), world.brain.status().audit_misses.len()), (2, 0), "it has looked");
    // The next miss is another one.
    world.run(2 * HOUR);
    assert_eq!(safe(&world), 1);
    compares(&mut world, h);
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(missed_at));
    assert_eq!(safe(&world), 1, "it heard of the first miss, not of the second");
}

#[test]
fn r12_a_member_that_did_not_hear_of_a_miss_is_told_again_when_it_speaks_and_with_its_next_audit() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    // All are greeted at a start.
    world.outside.hellos.clear();
    world.run(HOUR + MINUTE);
    let told = |world: &mut World| std::mem::take(&mut world.outside.hellos);
    let first = told(&mut world);
    assert!(!first.is_empty() && first.iter().all(|peer| *peer == liar()), "{first:?}");
    // All that went astray.
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(WallTime(0)));
    world.settle();
    assert_eq!((safe(&world), told(&mut world)), (1, vec![liar()]), "it has not looked, and is told to");
    world.run(HOUR);
    let again = told(&mut world);
    assert!((1..=4).contains(&again.len()) && again.iter().all(|peer| *peer == liar()), "{again:?}");
    let missed_at = world.brain.status().audit_misses[0].at;
    compares(&mut world, h);
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(missed_at));
    assert_eq!(safe(&world), 2);
}

#[test]
fn r8_a_word_about_one_part_makes_no_old_word_about_another_good() {
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    world.holds(3, h, part(7), HoldingState::Held, world.now.wall);
    let on_its_way = world.now.wall + MINUTE;
    world.run(2 * HOUR);
    assert_eq!(world.brain.status().audit_misses.len(), 1);
    let missed_at = world.brain.status().audit_misses[0].at;
    compares(&mut world, h);
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(missed_at));
    let holders = |world: &World| world.brain.state.mails[&h].holdings.values().filter(|word| is_held(word)).count();
    assert_eq!(holders(&world), 5);
    world.says(3, &[(h, part(7), HoldingState::Held)], on_its_way, Some(WallTime(0)));
    assert_eq!(holders(&world), 5, "its other part was not looked at yet");
    world.says(3, &[(h, part(7), HoldingState::Held)], world.now.wall, Some(missed_at));
    assert_eq!(holders(&world), 6);
}

/// Seed 70002692: the greeting after a miss went astray, and the member gave up the part that was left from an earlier encoding. That
/// word ended the miss, so the member was never told to look at the part that it had to hold, and never confirmed it anew.
#[test]
fn r8_r12_a_word_that_a_part_goes_of_who_has_not_heard_of_a_miss_does_not_end_it() {
    let dropped = || HoldingState::Dropped { served: Vec::new() };
    let (mut world, h) = held_by_five(Rules { liars: BTreeSet::from([liar()]), ..Rules::default() });
    world.holds(3, h, part(7), HoldingState::Held, world.now.wall);
    world.run(2 * HOUR);
    let missed_at = world.brain.status().audit_misses[0].at;
    world.outside.hellos.clear();
    world.says(3, &[(h, part(7), dropped())], world.now.wall, Some(WallTime(0)));
    assert_eq!((safe(&world), world.brain.status().audit_misses.len()), (1, 1), "the other part was not looked at");
    assert_eq!(world.outside.hellos, [liar()], "it is told at once, not with its next audit");
    world.says(3, &[(h, part(7), dropped())], world.now.wall, Some(WallTime(0)));
    assert_eq!(world.outside.hellos.len(), 1, "the same word says nothing new");
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(WallTime(0)));
    assert_eq!(safe(&world), 1, "signed by who has not looked");
    world.outside.hellos.clear();
    world.run(HOUR);
    assert!(world.outside.hellos.contains(&liar()), "it is told again with its next audit");
    assert_eq!(compares(&mut world, h).1, vec![(h, part(1))], "and what to look at");
    world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(missed_at));
    assert_eq!((safe(&world), world.brain.status().audit_misses.len()), (2, 0));
    // The next one; this time nothing is left that it could look at.
    world.run(2 * HOUR);
    assert_eq!(world.brain.status().audit_misses.len(), 1);
    world.says(3, &[(h, part(1), dropped())], world.now.wall, Some(missed_at));
    assert_eq!(world.brain.status().audit_misses.len(), 0);
}

/// A member that answered every audit so counted as a holder for ever.
#[test]
fn r8_a_member_that_says_at_an_audit_that_a_mail_is_gone_has_missed_it_unless_its_owner_signed_that() {
    let (mut world, h) = held_by_five(Rules::default());
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    let (other, expiry) = (world.sealed_of(2), world.now.wall + DAY);
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(other) });
    world.run(MINUTE);
    let own = world.brain.tombstone_bytes(world.brain.state.mails[&other].tombstone.unwrap().0).unwrap();
    let word = |owner, h| Tombstone { owner, h, ending: Ending::Received, at: WallTime(1), expiry };
    let signed = |n: u8, of: PeerId| key(n).sign(word(of, h)).as_bytes().to_vec();
    let false_words = [signed(3, liar()), b"no tombstone".to_vec(), Vec::new(), own];
    for (n, tombstone) in false_words.into_iter().enumerate() {
        world.outside.hellos.clear();
        world.tell(Input::AuditedGone { member: liar(), h, tombstone });
        world.settle();
        let misses = world.brain.status().audit_misses;
        assert_eq!((safe(&world), misses.len(), &world.outside.hellos), (1, 1, &vec![liar()]), "word {n}");
        assert_eq!((misses[0].member.to_string(), misses[0].h), ("m3@acme".to_owned(), h));
        assert_eq!(compares(&mut world, h).1, vec![(h, part(1))]);
        world.run(MINUTE);
        world.says(3, &[(h, part(1), HoldingState::Held)], world.now.wall, Some(misses[0].at));
        assert_eq!((safe(&world), world.brain.status().audit_misses.len()), (2, 0));
    }
    // Its owner's own word is heard, and nobody has missed anything.
    world.tell(Input::AuditedGone { member: liar(), h, tombstone: signed(1, key(1).peer_id()) });
    world.settle();
    assert!(world.brain.state.mails[&h].tombstone.is_some() && world.brain.status().audit_misses.is_empty());
    assert_eq!(world.brain.status().audits_missed.values().copied().collect::<Vec<_>>(), [4]);
}

#[test]
fn of_several_words_about_one_part_in_a_batch_the_last_counts() {
    use HoldingState::{Held, Lost};
    let (mut world, h) = held_by_five(Rules::default());
    assert_eq!(safe(&world), 2);
    world.says(3, &[(h, part(1), Lost), (h, part(1), Held)], world.now.wall, Some(WallTime(0)));
    assert_eq!(safe(&world), 2, "it was lost and is here again");
    world.says(3, &[(h, part(1), Held), (h, part(1), Lost)], world.now.wall, Some(WallTime(0)));
    assert_eq!(safe(&world), 1);
    world.crash();
    world.settle();
    assert_eq!(safe(&world), 1);
}

#[test]
fn r8_a_word_that_a_wrong_clock_took_from_the_future_does_not_outlive_true_ones() {
    let mut world = World::new(5, Rules::default());
    let right = world.now.wall;
    world.now.wall = right + DAY * 8;
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let h = world.sealed_of(1);
    world.holds(2, h, part(0), HoldingState::Held, right + DAY * 9);
    let holds = |world: &World| {
        let all = &world.brain.state.mails[&h].holdings;
        all.values().any(|word| word.state == HoldingState::Held)
    };
    assert!(holds(&world));
    // Both clocks are right again.
    world.now.wall = right + MINUTE * 2;
    world.holds(2, h, part(0), HoldingState::Lost, right + MINUTE);
    assert!(!holds(&world));
}

/// Seed 609280: a member's clock was three hours ahead, and a word of it that came twice replaced the one that it had signed after it.
#[test]
fn r12_of_two_words_from_the_future_the_one_that_was_signed_later_counts() {
    let (mut world, h) = held_by_five(Rules::default());
    let ahead = world.now.wall + 3 * HOUR;
    let later = ahead + Duration::from_millis(200);
    world.holds(3, h, part(1), HoldingState::Lost, ahead);
    assert_eq!(safe(&world), 1);
    world.holds(3, h, part(1), HoldingState::Held, later);
    assert_eq!(safe(&world), 2);
    world.run(Duration::from_millis(300));
    assert!(
        matches!(world.holds(3, h, part(1), HoldingState::Lost, ahead), Reply::Refused(_)),
        "it was on its way for long"
    );
    assert_eq!(safe(&world), 2);
    // Once its clock is right, what it says counts again.
    world.holds(3, h, part(1), HoldingState::Lost, world.now.wall);
    assert_eq!(safe(&world), 1);
}

/// Seed 42867: a member's clock was four minutes ahead and set right, and its word that a part went was passed over as old.
#[test]
fn r8_a_word_of_a_clock_that_was_set_back_is_refused_and_the_member_learns_when_its_last_one_was_signed() {
    let (mut world, h) = held_by_five(Rules::default());
    let dropped = HoldingState::Dropped { served: Vec::new() };
    let behind = WallTime(world.now.wall.0 - 240_000);
    assert!(
        matches!(world.holds(3, h, part(1), dropped.clone(), behind), Reply::Refused(_)),
        "not taken and forgotten"
    );
    assert_eq!(safe(&world), 2);
    let digests = crate::model::holding::bucket_digests([(h, part(1))]);
    let token = Token(world.fresh());
    world.tell(Input::HoldingBuckets { token, member: key(3).peer_id(), digests });
    world.settle();
    let Reply::Differ { missed, .. } = world.replies[&token].clone() else { panic!() };
    assert!(missed.said > behind && missed.parts.is_empty());
    assert_eq!(world.holds(3, h, part(1), dropped, missed.said + Duration::from_millis(1)), Reply::HoldingsTaken);
    assert_eq!(safe(&world), 1);
}
