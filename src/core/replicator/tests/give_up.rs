//! Parts that are too many: the owner knows that one goes before its file does (R8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::{KN, LIFE, NAMES, World, id, key};
use super::{HOUR, SIX, all_five, indices};
use crate::core::Brain;
use crate::core::replicator::owner::Task;
use crate::core::replicator::{Input, Lookup};
use crate::model::holding::HoldingState;
use crate::model::msglist::{Ending, Tombstone};
use crate::model::{MailId, PeerId};

/// A member was lost, and another stood in for it: who went, and who stood in.
fn with_a_stand_in() -> (World, &'static str, &'static str) {
    let mut world = World::new(&NAMES);
    world.send("alice", 1, KN);
    let before = world.holders("alice", 1);
    let gone = *before.keys().next().unwrap();
    world.kill(gone);
    world.lost.insert(id(gone));
    world.set_roster();
    world.run(HOUR);
    let stand_in = *world.holders("alice", 1).keys().find(|name| !before.contains_key(*name)).unwrap();
    (world, gone, stand_in)
}

/// A member was lost, another stood in for it, and while the owner is off it is back: who went, and who stood in.
fn with_a_part_too_many() -> (World, &'static str, &'static str) {
    let (mut world, gone, stand_in) = with_a_stand_in();
    world.kill("alice");
    world.start(gone);
    world.lost.clear();
    world.set_roster();
    world.run(2 * HOUR);
    (world, gone, stand_in)
}

/// The same, and nobody has noticed yet that the owner cannot be reached: the part was given up in words, which do not arrive.
fn given_up_in_words() -> (World, &'static str, &'static str) {
    let (mut world, gone, stand_in) = with_a_stand_in();
    world.off.insert(id("alice"));
    world.start(gone);
    world.lost.clear();
    world.set_roster();
    world.run(Duration::from_secs(10));
    assert_eq!(shown(&mut world, stand_in), 0, "given up in words");
    assert_eq!(of_alice(&mut world, stand_in), (0, 1), "whoever leaves waits for it");
    (world, gone, stand_in)
}

/// How many parts a member shows to who asks.
fn shown(world: &mut World, name: &str) -> usize {
    if let Lookup::Known(known) = world.lookup(name, 1) { known.parts.len() } else { 0 }
}

/// What a member shows of alice's parts: held, and given up in words.
fn of_alice(world: &mut World, name: &str) -> (usize, usize) {
    let now = world.now;
    let status = world.peer(name).brain.as_ref().unwrap().observe(now);
    let of_alice = status.owners.iter().find(|owner| owner.peer == id("alice")).unwrap();
    (of_alice.parts, of_alice.going)
}

/// Frank counts as lost, and bob has more to ask about for that than may be asked at a time.
fn has_much_to_ask() -> (World, PeerId, BTreeSet<MailId>) {
    let mut world = World::new(&SIX);
    (1..=40).for_each(|x| world.send("alice", x, KN));
    world.run(HOUR);
    world.kill("frank");
    world.lost.insert(id("frank"));
    let (alice, roster) = (id("alice"), world.roster("bob"));
    world.log.clear();
    world.tell("bob", Input::Roster(roster));
    let owners = &world.peer("bob").brain.as_ref().unwrap().owners;
    let asks = owners.get(&alice).unwrap().mails.iter().filter(|(_, mail)| mail.task == Task::Asking);
    let asks: BTreeSet<MailId> = asks.map(|(h, _)| *h).collect();
    assert!(asks.len() > 9, "{}", asks.len());
    (world, alice, asks)
}

#[test]
fn r7_what_only_waits_to_be_asked_about_goes_without_that_when_it_is_over() {
    let (mut world, alice, asks) = has_much_to_ask();
    let last = *asks.last().unwrap();
    let tombstone = Tombstone {
        owner: alice,
        h: last,
        ending: Ending::Cancelled,
        at: world.now.wall,
        expiry: world.now.wall + LIFE,
    };
    let gone = vec![key("alice").sign(tombstone).to_entry().0];
    let first = *asks.first().unwrap();
    world.tell("bob", Input::Holders { owner: alice, h: first, answers: BTreeMap::new(), gone });
    let brain = world.peer("bob").brain.as_ref().unwrap();
    assert_eq!(brain.owners.mail(&alice, &last).unwrap().task, Task::Dropping);
}

#[test]
fn r12_what_only_waits_to_be_asked_about_is_asked_about_first_when_its_part_is_lost() {
    let (mut world, alice, asks) = has_much_to_ask();
    let last = *asks.last().unwrap();
    let part = *world.peer("bob").brain.as_ref().unwrap().owners.mail(&alice, &last).unwrap().held.first().unwrap();
    world.tell("bob", Input::BadPart { owner: alice, h: last, part });
    world.settle();
    let asked = world.log.iter().filter(|line| line.starts_with("bob: AskHolders"));
    let at = asked.clone().position(|line| line.contains(&last.to_string())).unwrap();
    assert!(at <= 9, "{at} of {}", asked.count());
}

#[test]
fn a_part_too_many_stays_until_its_owner_knows_that_it_goes() {
    let (mut world, _, stand_in) = with_a_part_too_many();
    assert_eq!(world.holders("alice", 1).len(), 6, "alice counts it still");
    assert_eq!(shown(&mut world, stand_in), 1, "and so may readers");
    world.start("alice");
    world.run(Duration::from_secs(60));
    assert_eq!(of_alice(&mut world, stand_in), (0, 0));
    assert_eq!((world.holders("alice", 1).len(), indices(&world, 1)), (5, all_five()));
    assert!(matches!(world.told("alice", stand_in, 1)[..], [(_, HoldingState::Dropped { .. })]));
}

/// Found by a kill storm: an owner that had been called lost was back, and showed safe(4) with a member whose part had gone
/// meanwhile, and which was off by then.
#[test]
fn r8_a_part_too_many_stays_also_while_its_owner_is_called_lost() {
    let (mut world, gone, stand_in) = with_a_part_too_many();
    world.lost.insert(id("alice"));
    world.set_roster();
    world.run(2 * HOUR);
    assert_eq!(world.count("DropParts"), 0, "{:?}", world.log);
    world.kill(stand_in);
    world.start("alice");
    world.lost.clear();
    world.set_roster();
    world.run(HOUR);
    assert!(world.holders("alice", 1).contains_key(stand_in), "alice counts it, and it is there");
    world.start(stand_in);
    world.run(HOUR);
    assert_eq!((world.holders("alice", 1).len(), indices(&world, 1)), (5, all_five()));
    assert!(world.holders("alice", 1).contains_key(gone));
}

#[test]
fn what_was_given_up_in_words_stands_in_again_while_its_owner_is_lost() {
    let (mut world, gone, stand_in) = given_up_in_words();
    world.log.clear();
    world.kill(gone);
    world.lost.extend([id("alice"), id(gone)]);
    world.set_roster();
    world.run(HOUR);
    assert!(matches!(world.lookup(stand_in, 1), Lookup::Known(known) if known.parts.len() == 1));
    assert_eq!((world.count("DropParts"), world.count("Mirror(")), (0, 0), "{:?}", world.log);
    assert_eq!(indices(&world, 1), all_five());
}

#[test]
fn what_was_given_up_in_words_goes_at_the_end_of_the_mail_though_its_owner_never_comes_back() {
    let (mut world, _, stand_in) = with_a_part_too_many();
    world.lost.insert(id("alice"));
    world.set_roster();
    assert!(world.holders("alice", 1).contains_key(stand_in));
    // Days of questions that nobody answers are left out, and the others' clocks are found to be right.
    world.now.wall = world.now.wall + LIFE + 24 * HOUR;
    world.run(HOUR);
    for name in &NAMES[1..] {
        world.tell(name, Input::ClockDoubtful(false));
    }
    world.run(2 * HOUR);
    assert_eq!(world.holders("alice", 1).len(), 0);
}

#[test]
fn nobody_counts_a_part_of_one_that_is_no_member_any_more_so_it_goes_at_once() {
    let (mut world, _, stand_in) = with_a_part_too_many();
    world.names.retain(|name| *name != "alice");
    world.set_roster();
    world.run(Duration::from_secs(60));
    assert!(!world.holders("alice", 1).contains_key(stand_in));
}

#[test]
fn a_part_given_up_in_words_is_held_again_when_others_are_placed_before_its_file_goes() {
    let (mut world, gone, stand_in) = given_up_in_words();
    world.log.clear();
    world.kill(gone);
    world.lost.insert(id(gone));
    world.set_roster();
    world.run(Duration::from_secs(10));
    assert_eq!(shown(&mut world, stand_in), 1);
    world.off.remove(&id("alice"));
    world.run(Duration::from_secs(60));
    assert_eq!(shown(&mut world, stand_in), 1);
    assert!(matches!(world.told("alice", stand_in, 1)[..], [(_, HoldingState::Held)]));
    assert_eq!((world.count("DropParts"), world.count("Mirror(")), (0, 0), "{:?}", world.log);
}

/// Seed 609900: an owner was off when its mail was to be kept by fewer members, and never came back. The one that had a copy too
/// many showed it to nobody, though it was the last: the others were lost as well, and too many at once for the view to say so.
#[test]
fn r2_a_part_too_many_is_shown_to_readers_until_its_owner_can_be_told() {
    let (mut world, gone, stand_in) = with_a_part_too_many();
    assert_eq!(shown(&mut world, stand_in), 1, "the owner was off already");
    assert_eq!(world.told("alice", stand_in, 1).len(), 1);
    world.kill(gone);
    world.run(HOUR);
    assert_eq!((shown(&mut world, stand_in), world.count("DropParts")), (1, 0));

    let (mut world, _, stand_in) = given_up_in_words();
    world.run(HOUR);
    assert_eq!((shown(&mut world, stand_in), world.count("DropParts")), (1, 0), "the owner went off meanwhile");
    assert!(matches!(world.told("alice", stand_in, 1)[..], [(_, HoldingState::Held)]));
    let journal = world.peer(stand_in).journal.len();
    world.run(3 * HOUR);
    assert_eq!(world.peer(stand_in).journal.len(), journal, "it is said once");
    world.off.remove(&id("alice"));
    world.run(Duration::from_secs(60));
    assert_eq!((world.holders("alice", 1).len(), indices(&world, 1)), (5, all_five()));
    assert!(matches!(world.told("alice", stand_in, 1)[..], [(_, HoldingState::Dropped { .. })]));
}

/// Seed 40330: a holder that had confirmed was gone by the time that the file could go.
#[test]
fn r3_holders_that_confirmed_long_ago_are_asked_again_before_the_file_goes() {
    let (mut world, gone, stand_in) = with_a_part_too_many();
    // Nobody has noticed yet.
    world.kill(gone);
    world.start("alice");
    world.run(HOUR);
    assert!(world.holders("alice", 1).contains_key(stand_in));
    assert!(matches!(world.lookup(stand_in, 1), Lookup::Known(known) if known.parts.len() == 1));
    world.start(gone);
    world.run(HOUR);
    assert!(!world.holders("alice", 1).contains_key(stand_in));
    assert_eq!(indices(&world, 1), all_five());
}

#[test]
fn after_a_restart_what_was_given_up_in_words_is_held_again_until_its_owner_knows() {
    let (mut world, _, stand_in) = given_up_in_words();
    world.kill(stand_in);
    world.start(stand_in);
    assert!(world.holders("alice", 1).contains_key(stand_in), "alice counts it still");
    world.run(HOUR);
    assert_eq!(world.holders("alice", 1).len(), 6);
    world.off.remove(&id("alice"));
    world.run(HOUR);
    assert_eq!((world.holders("alice", 1).len(), indices(&world, 1)), (5, all_five()));
    assert!(matches!(world.told("alice", stand_in, 1)[..], [(_, HoldingState::Dropped { .. })]));
}

#[test]
fn r7_what_was_given_up_in_words_goes_with_a_mail_that_is_over_before_the_disk_was_looked_at() {
    let (mut world, _, stand_in) = given_up_in_words();
    world.kill(stand_in);
    world.off.remove(&id("alice"));
    world.end("alice", 1);
    world.looks_last = true;
    world.start(stand_in);
    world.run(HOUR);
    assert!(world.peer(stand_in).disk.is_empty());
}
