//! Members that took the same fragment come apart, and every index is held again. Each of these was found by the simulator.

use super::{HOUR, NAMES, SIX, World, id};
use crate::core::replicator::Input;
use crate::core::replicator::tests::world::KN;

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

/// Seed 3: a member placed a mail by a view of which it had not heard that it had changed. The one that took the same index
/// never asked, so the one that finds it moves.
#[test]
fn a_member_with_an_old_view_gives_way_to_its_twin() {
    for slow in &SIX[1..5] {
        let mut world = World::new(&SIX);
        world.kill("frank");
        world.lost.insert(id("frank"));
        for name in SIX[..5].iter().filter(|name| *name != slow) {
            let roster = world.roster(name);
            world.tell(name, Input::Roster(roster));
        }
        world.send("alice", 1, KN);
        let roster = world.roster(slow);
        world.tell(slow, Input::Roster(roster));
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
}

/// Seed 1136: the question who holds what went astray while the long polls did not, so nobody seemed to have been away.
#[test]
fn r12_a_question_that_nobody_heard_is_asked_again_though_nobody_was_away() {
    for slow in &SIX[1..5] {
        let mut world = World::new(&SIX);
        world.kill("frank");
        world.lost.insert(id("frank"));
        for name in SIX[..5].iter().filter(|name| *name != slow) {
            let roster = world.roster(name);
            world.tell(name, Input::Roster(roster));
        }
        world.send("alice", 1, KN);
        world.unheard = 8;
        let roster = world.roster(slow);
        world.tell(slow, Input::Roster(roster));
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
}

/// Seed 7223: a member that took the index of one that was off forgot in a crash that it had not heard it.
#[test]
fn r12_twins_come_apart_though_both_restarted_before_they_heard_of_each_other() {
    for slow in &SIX[1..5] {
        let mut world = World::new(&SIX);
        world.kill("frank");
        world.lost.insert(id("frank"));
        for name in SIX[..5].iter().filter(|name| *name != slow) {
            let roster = world.roster(name);
            world.tell(name, Input::Roster(roster));
        }
        world.send("alice", 1, KN);
        world.unheard = usize::MAX;
        let roster = world.roster(slow);
        world.tell(slow, Input::Roster(roster));
        world.run(HOUR);
        let others = &SIX[1..5];
        others.iter().for_each(|name| world.kill(name));
        world.unheard = 0;
        others.iter().for_each(|name| world.start(name));
        world.run(HOUR);
        assert_eq!(world.distinct("alice", 1), 4, "{slow} was slow: {:?}", world.holders("alice", 1));
    }
}
