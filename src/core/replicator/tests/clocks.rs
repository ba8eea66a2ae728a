//! Clocks that are wrong: nothing is freed by one that was not compared with the members'.

use super::world::{KN, LIFE, World};
use super::{DAY, HOUR, SIX, all_five, indices};
use crate::core::replicator::Input;

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
