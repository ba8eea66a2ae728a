//! Moves to another encoding while members are lost: at no moment fewer losses are survived than before.

use super::world::{KN, World, id};
use super::{HOUR, SIX, all_five, indices, journaled};
use crate::model::{Encoding, Part};

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
