//! Members that took the same fragment come apart, and every index is held again. Each of these was found by the simulator.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{HOUR, NAMES, SIX, World, all_five, h, id, indices};
use crate::core::Brain;
use crate::core::replicator::follow::FollowState;
use crate::core::replicator::tests::world::KN;
use crate::core::replicator::{Config, Input, Lookup, Replicator, Scrub};
use crate::model::msglist::Cursor;
use crate::model::{ByteSize, Encoding, Part};

/// Alice's mail, placed once everybody but `slow` had heard that frank is lost.
fn sent_before_all_heard(slow: &str) -> World {
    let mut world = World::new(&SIX);
    lose_frank_and_send(&mut world, slow);
    world
}
fn lose_frank_and_send(world: &mut World, slow: &str) {
    lose_frank(world, slow);
    world.send("alice", 1, KN);
}
fn lose_frank(world: &mut World, slow: &str) {
    world.kill("frank");
    world.lost.insert(id("frank"));
    for name in SIX[..5].iter().filter(|name| **name != slow) {
        let roster = world.roster(name);
        world.tell(name, Input::Roster(roster));
    }
}

/// `slow` hears it too; an hour goes by.
fn hears(world: &mut World, slow: &str) {
    let roster = world.roster(slow);
    world.tell(slow, Input::Roster(roster));
    world.run(HOUR);
}

/// Seed 80: whoever had known the mail for long took what rank gave it, which somebody else had.
#[test]
fn a_stand_in_for_a_mail_that_it_has_known_for_long_takes_the_index_that_is_missing() {
    let holders: Vec<&str> = {
        let mut world = World::new(&NAMES);
        world.send("alice", 1, KN);
        world.holders("alice", 1).into_keys().collect()
    };
    for gone in holders {
        let mut world = World::new(&NAMES);
        world.send("alice", 1, KN);
        world.run(HOUR);
        world.kill(gone);
        world.lost.insert(id(gone));
        world.set_roster();
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 5, "without {gone}: {:?}", world.holders("alice", 1));
    }
}

/// Seed 30: a member that came back an hour later read of the mail for the first time, and took what rank gave it.
#[test]
fn a_member_that_reads_of_a_mail_late_asks_what_is_left_for_it() {
    for late in &SIX[1..] {
        let mut world = World::new(&SIX);
        world.kill(late);
        world.lost.insert(id(late));
        world.set_roster();
        world.send("alice", 1, KN);
        world.run(HOUR);
        world.lost.clear();
        world.start(late);
        world.set_roster();
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 5, "{late} was late: {:?}", world.holders("alice", 1));
    }
}

/// Seed 80001470: an owner that came back with an old disk was told of a mail of long ago, and a member that had been away when that
/// was placed read of it in the next page, as if it were new.
#[test]
fn r12_a_mail_of_long_ago_that_its_owner_had_forgotten_is_not_placed_by_rank() {
    for late in &SIX[1..] {
        let mut world = World::new(&SIX);
        world.kill(late);
        world.lost.insert(id(late));
        world.set_roster();
        world.send("alice", 1, KN);
        world.run(HOUR);
        let forgotten = world.outbox("alice").entries.pop().unwrap();
        world.lost.clear();
        world.start(late);
        world.set_roster();
        world.run(Duration::from_secs(60));
        world.outbox("alice").entries.push(forgotten);
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 5, "{late} was late: {:?}", world.holders("alice", 1));
    }
}

/// Seed 320015878: the same of one that had been listed anew before its owner forgot that. Its second entry seemed to be a new placement.
#[test]
fn r12_a_mail_of_long_ago_that_was_listed_anew_before_its_owner_forgot_it_is_not_placed_by_rank() {
    let three_of_four = Encoding::Fragments { k: 3, n: 4 };
    for (late, forgotten) in SIX[1..].iter().flat_map(|late| [(late, 2), (late, 1)]) {
        let mut world = World::new(&SIX);
        let away = |world: &mut World| {
            world.kill(late);
            world.lost.insert(id(late));
            world.set_roster();
        };
        if forgotten == 2 {
            away(&mut world);
        }
        world.send("alice", 1, Encoding::Whole);
        if forgotten == 1 {
            away(&mut world);
        }
        world.run(HOUR);
        world.send("alice", 1, three_of_four);
        world.run(HOUR);
        let all = world.outbox("alice").entries.len();
        let tail = world.outbox("alice").entries.split_off(all - forgotten);
        world.lost.clear();
        world.start(late);
        world.set_roster();
        world.run(Duration::from_secs(60));
        world.outbox("alice").entries.extend(tail);
        world.run(HOUR);
        let held = world.holders("alice", 1);
        assert_eq!((held.len(), world.distinct("alice", 1)), (4, 4), "{late} was late: {held:?}");
    }
}

#[test]
fn r12_a_new_mail_is_placed_by_rank_though_a_clock_in_doubt_says_that_it_is_old() {
    let mut world = World::new(&SIX);
    // Just after a start it would be confirmed.
    world.run(HOUR);
    for name in &SIX[1..] {
        world.peer(name).clock_ahead = HOUR;
        world.tell(name, Input::ClockDoubtful(true));
    }
    world.send("alice", 1, KN);
    for name in &SIX[1..] {
        let brain = world.peers[&id(name)].brain.as_ref().unwrap();
        let mail = brain.owners.mail(&id("alice"), &h(1)).unwrap();
        assert!(mail.noted.is_some() && !mail.chosen, "{name} takes it for an old one");
    }
    assert_eq!(indices(&world, 1), all_five());
}

/// Seed 3: a member placed a mail by a view of which it had not heard that it had changed. The one that took the same index
/// never asked, so the one that finds it moves.
#[test]
fn a_member_with_an_old_view_gives_way_to_its_twin() {
    for slow in &SIX[1..5] {
        let mut world = sent_before_all_heard(slow);
        hears(&mut world, slow);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
}

/// Seed 320007701: who had its part by rank took no later change for a reason to ask, though another had taken the same by another view.
#[test]
fn r12_a_member_that_hears_late_that_rank_gives_it_another_index_finds_its_twin() {
    let mut twins = 0;
    for slow in &SIX[1..5] {
        let mut world = World::new(&SIX);
        lose_frank(&mut world, slow);
        world.run(HOUR);
        world.send("alice", 1, KN);
        world.run(HOUR);
        twins += usize::from(world.distinct("alice", 1) < 4);
        hears(&mut world, slow);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
    assert!(twins > 0, "none had a twin: this shows nothing");
}

/// Seed 340023851: a member that heard of a mail just after the group had changed took what rank gives it by now. Who has had the same by
/// rank since before had asked it already, when it knew nothing of the mail. It may have started since it heard of that change.
#[test]
fn r12_what_rank_gives_just_after_a_change_of_the_group_comes_apart_from_what_it_gave_before() {
    for starts in [false, true] {
        let mut twins = 0;
        for late in &SIX[1..5] {
            let mut world = World::new(&SIX);
            world.run(HOUR);
            world.kill("frank");
            if starts {
                world.lost.insert(id("frank"));
                world.kill(late);
                world.start(late);
                world.run(Duration::from_secs(60));
            }
            hears_late(&mut world, late);
            twins += usize::from(world.distinct("alice", 1) < 4);
            world.run(HOUR);
            assert_eq!(world.distinct("alice", 1), 4, "{late} was late: {:?}", world.holders("alice", 1));
        }
        assert!(twins > 0, "none had a twin: this shows nothing");
    }
}

/// The answer to its long poll is on the way to this one while the others place the mail, and while frank counts as lost.
fn hears_late(world: &mut World, late: &str) {
    let brain = world.peer(late).brain.take();
    world.send("alice", 1, KN);
    world.lost.insert(id("frank"));
    world.set_roster();
    world.peer(late).brain = brain;
    let (alice, roster) = (id("alice"), world.roster(late));
    world.tell(late, Input::Roster(roster));
    let follow = world.peer(late).brain.as_ref().unwrap().owners.get(&alice).unwrap().follow.state;
    let FollowState::Asked { round, .. } = follow else { panic!("{late} does not follow alice") };
    let page = world.outboxes[&alice].page(Cursor::default());
    world.tell(late, Input::Page { owner: alice, from: alice, round, result: Ok(page) });
    world.settle();
}

/// Its twin may have been lost when that was settled, and be back when it starts: then nothing changes any more that it could see.
#[test]
fn r12_a_choice_that_was_settled_among_others_is_confirmed_after_a_start() {
    let last = Part::Fragment { k: 3, i: 4 };
    let mut world = World::new(&NAMES);
    world.send("alice", 1, KN);
    let held = world.holders("alice", 1);
    let gone = held.iter().find(|(_, parts)| **parts == [last]).map(|(name, _)| *name).unwrap();
    let stand_in = NAMES[1..].iter().copied().find(|name| !held.contains_key(name)).unwrap();
    world.kill(gone);
    world.lost.insert(id(gone));
    world.set_roster();
    world.run(HOUR);
    assert_eq!(world.holders("alice", 1)[stand_in], [last], "rank would give it the same");
    world.kill(stand_in);
    let mut brain = Replicator::new(Config { quota: ByteSize::mib(64), seed: 7 });
    world.peer(stand_in).journal.iter().for_each(|event| brain.replay(event.clone()));
    for lost in held.into_keys() {
        world.lost = BTreeSet::from([id(lost)]);
        world.peer(stand_in).journal = brain.snapshot();
        world.log.clear();
        world.start(stand_in);
        world.run(Duration::from_secs(100));
        let asks = world.log.iter().any(|line| line.starts_with(stand_in) && line.contains("AskHolders"));
        assert_eq!(asks, lost != gone, "{lost} is lost by now, and it was {gone}");
        world.kill(stand_in);
    }
}

/// Seed 1136: the question who holds what went astray while the long polls did not, so nobody seemed to have been away.
#[test]
fn r12_a_question_that_nobody_heard_is_asked_again_though_nobody_was_away() {
    for slow in &SIX[1..5] {
        let mut world = sent_before_all_heard(slow);
        world.unheard = 8;
        hears(&mut world, slow);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
}

/// Seed 7223: a member that took the index of one that was off forgot in a crash that it had not heard it.
#[test]
fn r12_twins_come_apart_though_both_restarted_before_they_heard_of_each_other() {
    for slow in &SIX[1..5] {
        let mut world = sent_before_all_heard(slow);
        world.unheard = usize::MAX;
        hears(&mut world, slow);
        let others = &SIX[1..5];
        others.iter().for_each(|name| world.kill(name));
        world.unheard = 0;
        others.iter().for_each(|name| world.start(name));
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
}

/// Seed 2104: a stand-in that nobody answered took what rank gave it, which another held, and forgot in a crash that it had
/// chosen.
#[test]
fn r12_a_choice_that_nobody_confirmed_is_not_forgotten_in_a_crash() {
    let mut twins = 0;
    for gone in &NAMES[1..] {
        let mut world = World::new(&NAMES);
        world.send("alice", 1, KN);
        world.run(HOUR);
        let before = world.holders("alice", 1);
        world.kill(gone);
        world.lost.insert(id(gone));
        world.unheard = usize::MAX;
        world.set_roster();
        world.run(Duration::from_secs(600));
        twins += usize::from(world.distinct("alice", 1) < 5);
        world.unheard = 0;
        for stand_in in NAMES[1..].iter().filter(|name| !before.contains_key(*name) && *name != gone) {
            world.kill(stand_in);
            world.start(stand_in);
        }
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 5, "without {gone}: {:?}", world.holders("alice", 1));
    }
    assert!(twins > 0, "no stand-in took what another held: this shows nothing");
}

#[test]
fn without_a_spare_member_who_leaves_keeps_its_fragment_until_the_others_hold_the_mail_in_another_way() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.lost.insert(id("frank"));
    world.set_roster();
    world.run(HOUR);
    assert_eq!(indices(&world, 1), all_five(), "as many losses are survived as before");
    assert_eq!(world.holders("alice", 1)["frank"].len(), 1);
    // Its owner lists it anew for the group as it is going to be.
    world.send("alice", 1, Encoding::Whole);
    world.run(HOUR);
    let held = world.holders("alice", 1);
    assert_eq!(held.len(), 4, "{held:?}");
    assert!(!held.contains_key("frank") && held.values().all(|parts| *parts == [Part::Whole]), "{held:?}");
    // It has gone: it still knows of the mail, and is a group of one.
    let mut alone = world.roster("frank");
    (alone.members, alone.lost) = (vec![alone.me.clone()], std::collections::BTreeSet::new());
    world.tell("frank", Input::Roster(alone));
    world.settle();
    assert!(!world.holders("alice", 1).contains_key("frank"), "it takes nothing any more");
}

#[test]
fn who_is_called_lost_for_a_moment_in_a_group_without_a_spare_member_moves_nothing() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.log.clear();
    world.lost.insert(id("frank"));
    world.set_roster();
    world.run(HOUR);
    world.lost.clear();
    world.set_roster();
    world.run(HOUR);
    assert_eq!(indices(&world, 1), all_five());
    assert_eq!(world.count("Mirror("), 0, "{:?}", world.log);
}

#[test]
fn a_member_that_starts_a_moment_later_is_asked_too_for_the_list_of_an_absent_owner() {
    let mut world = World::new(&SIX[..3]);
    world.send("alice", 1, Encoding::Whole);
    ["alice", "bob", "carol"].iter().for_each(|name| world.kill(name));
    world.start("bob");
    world.run(Duration::from_secs(3));
    assert_eq!(world.lookup("bob", 1), Lookup::NotReady);
    world.start("carol");
    world.tell("bob", Input::PeerIsBack(id("carol")));
    world.run(Duration::from_secs(6));
    for name in ["bob", "carol"] {
        assert!(matches!(world.lookup(name, 1), Lookup::Known(_)), "{name} need not wait for a minute");
    }
}

/// Seed 42883: a member that names every part left nothing free for whoever found its twin.
#[test]
fn r12_twins_come_apart_though_another_member_says_that_it_holds_every_part() {
    for slow in &SIX[1..5] {
        let mut world = sent_before_all_heard(slow);
        let holders = world.holders("alice", 1);
        let twin = |name: &&&str| holders.iter().any(|(other, parts)| *other != **name && *parts == holders[**name]);
        let single = SIX[1..].iter().find(|name| holders.contains_key(*name) && !twin(name)).copied();
        world.liar = single.map(id);
        hears(&mut world, slow);
        let honest: Vec<_> = world.holders("alice", 1).into_iter().filter(|(name, _)| Some(*name) != single).collect();
        let distinct: BTreeSet<&Part> = honest.iter().flat_map(|(_, parts)| parts).collect();
        assert!(distinct.len() >= honest.len(), "{slow} was slow, {single:?} lies: {honest:?}");
    }
}

/// Seed 3011612: a member that came back with a fragment left from another encoding beside its own never gave way to its twin.
#[test]
fn r12_twins_come_apart_though_one_has_something_left_from_another_encoding() {
    let two_of_three = Encoding::Fragments { k: 2, n: 3 };
    let holders: Vec<&str> = {
        let mut world = World::new(&SIX);
        world.send("alice", 1, two_of_three);
        world.holders("alice", 1).into_keys().collect()
    };
    let mut twins = 0;
    for away in SIX[1..].iter().filter(|name| holders.contains(name)) {
        let mut world = World::new(&SIX);
        world.send("alice", 1, two_of_three);
        let silent = SIX[1..].iter().find(|name| !holders.contains(name)).unwrap();
        world.kill(silent);
        // While one has not confirmed what it is to hold, all keep what they have.
        world.send("alice", 1, KN);
        assert_eq!(world.holders("alice", 1)[away].len(), 2);
        world.kill(away);
        world.lost.insert(id(away));
        world.start(silent);
        world.set_roster();
        for encoding in [Encoding::Whole, two_of_three] {
            world.send("alice", 1, encoding);
            world.run(HOUR);
        }
        let held = world.holders("alice", 1);
        let is_twin = |name: &&str| name != away && held[name].iter().any(|part| held[away].contains(part));
        twins += usize::from(holders.iter().any(is_twin));
        world.lost.clear();
        world.start(away);
        world.set_roster();
        world.run(HOUR);
        let held = world.holders("alice", 1);
        assert_eq!(world.distinct("alice", 1), 3, "{away} was away: {held:?}");
        assert_eq!(held.len(), 3, "{away} was away: {held:?}");
    }
    assert!(twins > 0, "none had a twin: this shows nothing");
}

/// Seed 70004548: a fragment rotted at a member that was cut off. Whoever had taken the same one asked it before it had pulled that
/// again, heard that it holds nothing, and settled.
#[test]
fn r12_a_part_that_was_lost_and_pulled_again_comes_apart_from_its_twin() {
    let holders: Vec<&str> = {
        let mut world = World::new(&NAMES);
        world.send("alice", 1, KN);
        world.holders("alice", 1).into_keys().collect()
    };
    let is_unsettled = |world: &World, name: &str| {
        let brain = world.peers[&id(name)].brain.as_ref();
        brain.unwrap().owners.mail(&id("alice"), &h(1)).is_some_and(|mail| mail.unsettled)
    };
    let pairs = holders.iter().flat_map(|gone| holders.iter().map(move |away| (*gone, *away)));
    let mut twins = 0;
    for (gone, away) in pairs.filter(|(gone, away)| gone != away) {
        let mut world = World::new(&NAMES);
        world.send("alice", 1, KN);
        world.off.insert(id(away));
        world.kill(gone);
        world.lost.insert(id(gone));
        let there: Vec<&str> = NAMES.iter().copied().filter(|name| ![gone, away].contains(name)).collect();
        for name in &there {
            let roster = world.roster(name);
            world.tell(name, Input::Roster(roster));
        }
        world.run(HOUR);
        let held = world.holders("alice", 1);
        let part = held[away][0];
        let is_twin = |name: &&str| held.get(name).is_some_and(|held| held.contains(&part));
        let Some(twin) = there.iter().copied().find(is_twin) else { continue };
        twins += 1;
        assert!(is_unsettled(&world, twin), "{away} did not answer it");
        // It rots while nobody is there to pull it from.
        world.off = NAMES.iter().map(|name| id(name)).filter(|name| *name != id(away)).collect();
        world.peer(away).disk.remove(&(id("alice"), h(1), part));
        world.tell(away, Input::Scrubbed { owner: id("alice"), h: h(1), part, result: Scrub::Bad });
        world.settle();
        world.off = BTreeSet::from([id(gone)]);
        world.tell(twin, Input::PeerIsBack(id(away)));
        world.settle();
        assert!(!is_unsettled(&world, twin) && !world.holders("alice", 1).contains_key(away), "it asked in between");
        world.run(HOUR);
        assert_eq!(world.holders("alice", 1)[away], [part], "{away} does not know yet that {gone} is lost");
        world.set_roster();
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 5, "{gone} is gone, {away} was away: {:?}", world.holders("alice", 1));
    }
    assert!(twins > 0, "nobody else took it: this shows nothing");
}

/// Seed 320008926: a member whose disk was full told one that asked that it holds nothing. When it had room it took what rank had
/// given it, which the other had taken and confirmed long before.
#[test]
fn r12_what_rank_gave_to_a_member_that_had_no_room_for_long_comes_apart_from_its_twin() {
    let pairs = SIX[1..5].iter().flat_map(|slow| SIX[1..5].iter().map(move |full| (*slow, *full)));
    let mut twins = 0;
    for (slow, full) in pairs.filter(|(slow, full)| slow != full) {
        let mut world = World::new(&SIX);
        world.peer(full).full = true;
        lose_frank_and_send(&mut world, slow);
        hears(&mut world, slow);
        let brain = world.peers[&id(full)].brain.as_ref().unwrap();
        let goal = brain.owners.mail(&id("alice"), &h(1)).unwrap().goal.unwrap();
        twins += usize::from(world.holders("alice", 1).values().any(|held| held.contains(&goal)));
        world.peer(full).full = false;
        world.run(2 * HOUR);
        let held = world.holders("alice", 1);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow, the disk of {full} full: {held:?}");
    }
    assert!(twins > 0, "nobody took what rank gave it: this shows nothing");
}
