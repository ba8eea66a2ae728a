//! What lies only in the DHT: entries there live in memory, and readers may come back without a word.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{Rules, World, address, submission};
use super::{DAY, MINUTE};
use crate::core::outbox::{Event, How};

fn rita_is_away() -> Rules {
    Rules { away: BTreeSet::from([address("rita@readers")]), ..Rules::default() }
}
fn times_recorded(world: &World, wanted: How) -> usize {
    world.outside.journal.iter().filter(|e| matches!(e, Event::Announced { how, .. } if *how == wanted)).count()
}

#[test]
fn r2_r12_an_ns_that_went_into_the_dht_is_put_there_again_after_a_restart() {
    let mut world = World::new(5, rita_is_away());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    assert_eq!(world.outside.dht_ns.len(), 1);
    // Everybody restarts: entries live in memory only.
    world.outside.dht_ns.clear();
    world.crash();
    world.run(Duration::from_secs(10));
    assert_eq!(world.outside.dht_ns.len(), 1);
}

#[test]
fn r2_a_reader_that_came_back_without_a_word_is_told_within_5_minutes_and_the_tries_cost_nothing() {
    let mut world = World::new(5, rita_is_away());
    world.submit(1, &["rita@readers"], &[]);
    world.run(DAY / 2);
    assert_eq!(times_recorded(&world, How::Dht), 1, "one put a day");
    assert!((140..=150).contains(&world.outside.announced), "{}", world.outside.announced);
    world.rules.away.clear();
    world.run(5 * MINUTE + Duration::from_secs(1));
    assert_eq!(world.outside.taken.len(), 1);
    let before = world.outside.announced;
    world.run(DAY / 2);
    assert_eq!(world.outside.announced, before, "once it has it, it is told daily");
}

#[test]
fn r2_a_member_that_was_cut_off_is_told_within_10_seconds_although_the_dht_took_its_ns() {
    let away = BTreeSet::from([address("m2@acme")]);
    let mut world = World::new(5, Rules { away, ..Rules::default() });
    world.submit(1, &["m2@acme"], &[]);
    world.run(20 * MINUTE);
    assert_eq!(times_recorded(&world, How::Dht), 1, "one put a day");
    world.rules.away.clear();
    world.run(Duration::from_secs(11));
    assert_eq!(world.outside.taken.len(), 1);
}

#[test]
fn r12_an_ns_in_the_own_share_of_the_dht_alone_is_not_announced_and_is_tried_with_the_usual_pauses() {
    let mut world = World::new(5, Rules { dht_alone: true, ..rita_is_away() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(20 * MINUTE);
    assert!(!world.outside.shown[&submission(1)].keywords.contains("$Announced"));
    assert_eq!((times_recorded(&world, How::OwnShare), times_recorded(&world, How::Dht)), (1, 0));
    world.rules.dht_alone = false;
    world.run(5 * MINUTE + Duration::from_secs(1));
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Announced"));
    assert_eq!(times_recorded(&world, How::Dht), 1);
}

#[test]
fn r12_a_reader_that_is_off_costs_no_more_however_many_mails_wait_for_it_and_gets_all_of_them() {
    for dht_down in [false, true] {
        let tried = |mails: u8| {
            let mut world = World::new(5, Rules { dht_down, ..rita_is_away() });
            for n in 1..=mails {
                world.submit(n, &["rita@readers"], &[]);
            }
            world.run(30 * MINUTE);
            let before = world.outside.announced;
            world.run(60 * MINUTE);
            (world.outside.announced - before, world)
        };
        let (few, _) = tried(20);
        let (many, mut world) = tried(200);
        assert_eq!(few, many, "attempts in an idle hour; the DHT is down: {dht_down}");
        world.rules.away.clear();
        world.run(5 * MINUTE + Duration::from_secs(1));
        assert_eq!(world.outside.taken.len(), 200, "the DHT is down: {dht_down}");
    }
}

#[test]
fn after_a_restart_a_reader_that_is_off_is_asked_for_a_few_mails_and_one_that_is_there_gets_all() {
    let mut world = World::new(5, Rules { dht_down: true, ..rita_is_away() });
    for n in 1..=200 {
        world.submit(n, &["rita@readers"], &[]);
    }
    world.run(MINUTE);
    let before = world.outside.announced;
    world.crash();
    world.run(Duration::from_secs(6));
    let at_start = world.outside.announced - before;
    assert!((1..=64).contains(&at_start), "{at_start}");
    world.rules.away.clear();
    world.crash();
    world.run(Duration::from_secs(6));
    assert_eq!(world.outside.taken.len(), 200);
}

#[test]
fn r2_an_open_ns_is_sent_again_daily_although_the_clock_was_far_ahead_when_it_was_sent() {
    let mut world = World::new(5, Rules::default());
    let right = world.now.wall;
    world.now.wall = right + DAY * 5;
    world.submit(1, &["bob@acme"], &[]);
    world.run(MINUTE);
    world.now.wall = right + MINUTE;
    world.crash();
    let before = world.outside.taken.len();
    world.run(DAY + MINUTE * 5);
    assert_eq!(world.outside.taken.len(), before + 1);
}

#[test]
fn r12_what_readers_have_been_told_is_repeated_daily_without_a_record_and_after_a_start_not_all_at_once() {
    let mut world = World::new(5, Rules::default());
    for n in 1..=100 {
        world.submit(n, &["rita@readers"], &[]);
    }
    world.run(3 * DAY);
    assert_eq!(times_recorded(&world, How::Direct), 100, "each once");
    assert!((300..=400).contains(&world.outside.announced), "{} in three days", world.outside.announced);
    let told = |world: &mut World, span: Duration| {
        let before = world.outside.announced;
        world.run(span);
        world.outside.announced - before
    };
    world.crash();
    let first = told(&mut world, MINUTE);
    assert!((20..=80).contains(&first), "{first} in a minute");
    assert_eq!(told(&mut world, 10 * MINUTE), 100 - first, "and all of them soon");
    let next = told(&mut world, DAY);
    assert_eq!((next, times_recorded(&world, How::Direct)), (100, 100), "then once a day");
}
