//! Clocks that are wrong: nothing is freed by one that was not compared with the members'.

use std::time::Duration;

use super::world::{KN, LIFE, World, h, id};
use super::{DAY, HOUR, SIX, all_five, indices};
use crate::core::replicator::{Event, Input, Scrub};
use crate::model::Encoding;
use crate::model::holding::{HoldingRefusal, HoldingState};

#[test]
fn a_clock_that_is_ahead_at_a_start_frees_nothing_before_it_was_compared() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.clock_unsure = true;
    world.kill("bob");
    world.now.wall = world.now.wall + LIFE + 2 * DAY;
    world.start("bob");
    world.send("alice", 2, KN);
    let bobs = |world: &World| world.holders("alice", 1).contains_key("bob");
    assert!(bobs(&world), "nothing is freed at the start");
    world.run(HOUR);
    assert!(bobs(&world), "nor later, while nobody said that the clock is right");
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(2 * HOUR);
    assert!(!bobs(&world));
}

#[test]
fn a_clock_that_is_set_while_the_peer_runs_frees_nothing_before_it_was_compared_anew() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    assert_eq!(indices(&world, 1), all_five());
    world.now.wall = world.now.wall + LIFE + 2 * DAY;
    world.run(HOUR);
    assert_eq!(indices(&world, 1), all_five(), "nobody said that the clock is right");
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(2 * HOUR);
    assert!(!world.holders("alice", 1).contains_key("bob"));
}

/// Seed 41582: an owner whose clock is behind counts a mail that is over for whoever's clock is right.
#[test]
fn r8_a_part_that_expired_goes_only_once_its_owner_knows() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.kill("alice");
    world.now.wall = world.now.wall + LIFE + 2 * DAY;
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(HOUR);
    assert!(world.holders("alice", 1).contains_key("bob"), "alice counts it, for all that he knows");
    world.start("alice");
    world.run(HOUR);
    assert!(!world.holders("alice", 1).contains_key("bob"));
    assert!(matches!(world.told("alice", "bob", 1)[..], [(_, HoldingState::Dropped { .. })]));
}

/// Seeds 40391 and 42867: a clock was set back, and what was said then was older than what was said before.
#[test]
fn r8_what_is_said_after_a_clock_was_set_back_is_signed_later_all_the_same() {
    for restarts in [false, true] {
        let mut world = World::new(&SIX);
        let right = world.now.wall;
        world.now.wall = right + Duration::from_secs(240);
        world.send("alice", 1, KN);
        let (part, _) = world.told("alice", "bob", 1)[0].clone();
        world.now.wall = right + Duration::from_secs(10);
        if restarts {
            // Then only alice knows when that was.
            world.kill("bob");
            world.start("bob");
        }
        let bad = Input::Scrubbed { owner: id("alice"), h: h(1), part, result: Scrub::Bad };
        world.peer("bob").full = true;
        world.tell("bob", bad);
        world.run(Duration::from_secs(60));
        let told = world.told("alice", "bob", 1);
        let full = HoldingState::Refused(HoldingRefusal::DiskFull);
        assert_eq!(told, [(part, full)], "it went, and cannot come back; restarts: {restarts}");
    }
}

/// Seed 6002929: a clock was days ahead, and then a little less; what was said last is no measure for a clock that is right.
#[test]
fn r12_a_word_that_was_refused_is_signed_by_the_clock_as_it_is_by_now() {
    let mut world = World::new(&SIX);
    world.peer("bob").clock_ahead = 2 * DAY + HOUR;
    world.send("alice", 1, KN);
    let (part, _) = world.told("alice", "bob", 1)[0].clone();
    world.kill("bob");
    world.peer("bob").clock_ahead = 2 * DAY;
    world.start("bob");
    world.peer("bob").full = true;
    world.tell("bob", Input::Scrubbed { owner: id("alice"), h: h(1), part, result: Scrub::Bad });
    world.run(Duration::from_secs(60));
    assert_eq!(world.told("alice", "bob", 1), [(part, HoldingState::Held)], "what was signed later counts");
    world.peer("bob").clock_ahead = Duration::ZERO;
    world.run(Duration::from_secs(60));
    assert_eq!(world.told("alice", "bob", 1), [(part, HoldingState::Lost)]);
}

/// Seed 602287: while a clock was days ahead, and nobody was there who could tell, the list said how a mail is kept from now on.
#[test]
fn r12_a_list_that_is_read_by_a_wrong_clock_is_heard_all_the_same() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.kill("alice");
    world.peer("bob").clock_ahead = LIFE + 2 * DAY;
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(HOUR);
    assert!(world.holders("alice", 1).contains_key("bob"), "its owner counts it");
    let later = world.mail(1, 1 << 20, Encoding::Fragments { k: 2, n: 5 });
    world.outbox("alice").add(later);
    world.start("alice");
    world.run(HOUR);
    let is_later = |event: &Event| matches!(event, Event::Noted { encoding: Encoding::Fragments { k: 2, .. }, .. });
    assert!(world.peer("bob").journal.iter().any(is_later), "it is read once, and bob still had a part to give up");
}

/// Seed 320002639: a clock was ahead, a part was given up for its expiry and held again when the clock was right; then the peer left.
#[test]
fn r7_what_seemed_over_by_a_clock_that_was_ahead_goes_when_it_is() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let bobs = |world: &World| world.holders("alice", 1).contains_key("bob");
    world.off = SIX.iter().map(|name| id(name)).filter(|name| *name != id("bob")).collect();
    world.peer("bob").clock_ahead = LIFE + 2 * DAY;
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(HOUR);
    world.peer("bob").clock_ahead = Duration::ZERO;
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(HOUR);
    assert!(bobs(&world), "its owner counts it");
    let mut alone = world.roster("bob");
    alone.members = vec![alone.me.clone()];
    world.tell("bob", Input::Roster(alone));
    world.run(LIFE);
    assert!(bobs(&world), "others' clocks may be behind");
    world.run(DAY);
    assert!(!bobs(&world));
}
