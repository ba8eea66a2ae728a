//! Moves to another encoding while members are lost: at no moment fewer losses are survived than before.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{KN, LIFE, NAMES, World, h, id};
use super::{HOUR, SIX, all_five, indices, journaled};
use crate::core::Brain;
use crate::core::replicator::{Input, Lookup};
use crate::model::holding::HoldingState;
use crate::model::{Encoding, Mode, Part};

#[test]
fn copies_stay_beside_the_fragments_while_lost_members_leave_places_empty() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, Encoding::Whole);
    let copies = world.holders("alice", 1);
    let away: Vec<&str> = SIX[1..].iter().copied().filter(|name| !copies.contains_key(name)).collect();
    assert_eq!(away.len(), 2);
    for name in &away {
        world.kill(name);
        world.lost.insert(id(name));
    }
    world.set_roster();
    world.send("alice", 1, KN);
    world.run(6 * HOUR);
    // Three fragments, any three of which are needed, survive no loss; three copies survive two.
    let held = world.holders("alice", 1);
    assert_eq!(held.len(), 3);
    assert!(held.values().all(|parts| parts.contains(&Part::Whole) && parts.len() == 2), "{held:?}");
    world.log.clear();
    let journals: Vec<usize> = copies.keys().map(|name| journaled(&mut world, name)).collect();
    world.run(6 * HOUR);
    assert_eq!(world.count("AskHolders"), 0, "what cannot be changed is not tried again: {:?}", world.log);
    assert_eq!(copies.keys().map(|name| journaled(&mut world, name)).collect::<Vec<_>>(), journals);

    world.lost.clear();
    for name in &away {
        world.start(name);
    }
    world.set_roster();
    world.run(2 * HOUR);
    let held = world.holders("alice", 1);
    assert_eq!(indices(&world, 1), all_five(), "{held:?}");
    assert!(held.values().all(|parts| parts.len() == 1), "{held:?}");
}

/// The owner is off and the other holders are gone: what is left is at a member that leaves.
#[test]
fn what_a_member_holds_that_leaves_is_taken_over_from_it() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, Encoding::Whole);
    let copies: Vec<&str> = world.holders("alice", 1).keys().copied().collect();
    for name in ["alice"].iter().chain(&copies[1..]) {
        world.kill(name);
        world.lost.insert(id(name));
    }
    world.leaving.insert(id(copies[0]));
    world.set_roster();
    world.run(HOUR);
    let stay = SIX[1..].iter().filter(|name| !copies.contains(name));
    let held = world.holders("alice", 1);
    assert!(stay.clone().count() > 0 && stay.clone().all(|name| held.contains_key(name)), "{held:?}");
}

/// Who joined after the owner was removed never learns of its mails, and never holds what it is placed for.
#[test]
fn what_nobody_takes_over_of_one_who_is_no_member_any_more_keeps_nobody_from_leaving() {
    let mut world = World::new(&NAMES);
    world.policy.copies = 5;
    world.names.retain(|name| *name != "grace");
    world.kill("grace");
    world.set_roster();
    world.send("alice", 1, Encoding::Whole);
    assert_eq!(world.holders("alice", 1).len(), 5);
    world.kill("alice");
    world.names = NAMES[1..].to_vec();
    world.start("grace");
    world.set_roster();
    world.run(HOUR);
    let shown = |world: &mut World| {
        let now = world.now;
        let status = world.peer("bob").brain.as_ref().unwrap().observe(now);
        (status.waited_for(), status.untaken())
    };
    assert_eq!(shown(&mut world), (1, 0), "who stays leaves nothing behind");
    world.leaving.insert(id("bob"));
    world.set_roster();
    world.run(Duration::from_secs(590));
    assert_eq!(shown(&mut world), (1, 0), "somebody may take it over yet");
    world.run(Duration::from_secs(20));
    assert_eq!(shown(&mut world), (0, 1));
    assert!(world.holders("alice", 1).contains_key("bob"), "it goes with its part, and does not remove it");
    world.leaving.clear();
    world.set_roster();
    assert_eq!(shown(&mut world), (1, 0));
}

#[test]
fn what_somebody_takes_over_of_one_who_is_no_member_any_more_is_waited_for() {
    let mut world = World::new(&SIX);
    (world.policy.mode, world.policy.copies) = (Mode::Full, 1);
    world.set_roster();
    for x in 1..10 {
        world.send("alice", x, Encoding::Whole);
    }
    let held = |world: &World, name: &str| (1..10).filter(|x| world.holders("alice", *x).contains_key(name)).count();
    let name = SIX[1..].iter().copied().max_by_key(|name| held(&world, name)).unwrap();
    assert!(held(&world, name) > 0);
    world.kill("alice");
    world.names.retain(|name| *name != "alice");
    world.leaving.insert(id(name));
    world.set_roster();
    world.run(Duration::from_secs(590));
    assert_eq!(held(&world, name), 0);
    assert!((1..10).all(|x| world.holders("alice", x).len() == 1));
}

#[test]
fn a_member_with_a_disk_from_before_a_mail_denies_its_parts_of_every_encoding_that_it_had() {
    let mut world = World::new(&SIX);
    let (journal, disk) = (world.peer("bob").journal.clone(), world.peer("bob").disk.clone());
    world.send("alice", 1, KN);
    let [(part, HoldingState::Held)] = world.told("alice", "bob", 1)[..] else { panic!("bob holds no fragment") };
    world.kill("bob");
    world.send("alice", 1, Encoding::Fragments { k: 2, n: 5 });
    (world.peer("bob").journal, world.peer("bob").disk) = (journal, disk);
    world.start("bob");
    world.run(HOUR);
    let told = world.told("alice", "bob", 1);
    assert!(told.contains(&(part, HoldingState::Lost)), "{told:?}");
    assert!(
        told.iter().any(|(part, state)| matches!(part, Part::Fragment { k: 2, .. }) && *state == HoldingState::Held)
    );

    // The same after a restart from a compacted journal.
    let brain = world.peer("bob").brain.as_ref().unwrap();
    let before: Vec<Vec<Encoding>> =
        brain.owners.iter().flat_map(|(_, o)| o.mails.values().map(|m| m.before.clone())).collect();
    assert_eq!(before, [[KN]]);
    let snapshot = brain.owners.snapshot();
    world.kill("bob");
    world.peer("bob").journal = snapshot;
    world.start("bob");
    let brain = world.peer("bob").brain.as_ref().unwrap();
    let again: Vec<Vec<Encoding>> =
        brain.owners.iter().flat_map(|(_, o)| o.mails.values().map(|m| m.before.clone())).collect();
    assert_eq!(again, before);
}

/// The owner has gone for good, and so nobody follows its list: who was asked what it holds knows the end, and says so.
#[test]
fn r7_who_is_asked_what_it_holds_and_sends_its_owners_word_that_the_mail_is_gone_is_believed() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, Encoding::Whole);
    let name = world.holders("alice", 1).into_keys().next().unwrap();
    let word = |owner: &str| world.outboxes[&id(owner)].tombstone(h(1), world.now.wall + LIFE).to_entry().0;
    let (of_other, of_owner) = (word("frank"), word("alice"));
    world.kill("alice");
    let answer = |gone| Input::Holders { owner: id("alice"), h: h(1), answers: BTreeMap::new(), gone };
    world.tell(name, answer(vec![of_other.clone(), vec![7; 90]]));
    world.settle();
    assert!(world.holders("alice", 1).contains_key(name), "only the owner's own word counts");
    world.tell(name, answer(vec![of_other, of_owner.clone()]));
    world.settle();
    assert!(!world.holders("alice", 1).contains_key(name));
    let Lookup::Gone { tombstone } = world.lookup(name, 1) else { panic!("{name}") };
    assert_eq!(tombstone, of_owner, "and it says so to others");
}
