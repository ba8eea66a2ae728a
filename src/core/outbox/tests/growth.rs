//! What one mail costs does not depend on how many wait: work is counted as effects, inputs and commits, never as time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::MINUTE;
use super::world::{Rules, World, address, submission};
use crate::core::outbox::show::SHOWN_AT_ONCE;
use crate::core::outbox::{CancelTarget, Input, Reply};
use crate::core::{Brain as _, Token};
use crate::model::holding::HoldingState;
use crate::model::{Part, WallTime};

/// A world in which so many mails wait, held whole by a member.
fn with(mails: u8, rules: &Rules) -> World {
    let mut world = World::new(5, rules.clone());
    for n in 1..=mails {
        world.submit(n, &["rita@readers"], &[]);
        world.settle();
        let h = world.sealed_of(n);
        world.holds(2, h, Part::Whole, HoldingState::Held, WallTime(world.now.wall.0 + 1));
    }
    world.run(30 * MINUTE);
    world
}

fn steps(world: &mut World, work: impl FnOnce(&mut World)) -> usize {
    let before = world.steps;
    work(world);
    world.run(Duration::from_secs(2));
    world.steps - before
}

/// Steps of one mail more, of one less, and of an hour in which nothing happens.
fn costs(mails: u8, rules: &Rules) -> [usize; 3] {
    let mut world = with(mails, rules);
    let more = steps(&mut world, |world| {
        world.submit(250, &["rita@readers"], &[]);
        world.settle();
        let h = world.sealed_of(250);
        world.holds(2, h, Part::Whole, HoldingState::Held, WallTime(world.now.wall.0 + 1));
    });
    let token = Token(world.fresh());
    let less = steps(&mut world, |world| {
        world.tell(Input::Cancel { token, target: CancelTarget::Submission(submission(250)) });
    });
    assert!(matches!(world.replies[&token], Reply::Cancel(..)));
    world.run(10 * MINUTE);
    let idle = steps(&mut world, |world| world.run(60 * MINUTE));
    [more, less, idle]
}

#[test]
fn one_mail_more_one_less_and_an_idle_hour_take_as_many_steps_with_200_mails_as_with_20() {
    let there = Rules::default();
    let away = Rules { away: BTreeSet::from([address("rita@readers")]), ..Rules::default() };
    for rules in [there, away] {
        assert_eq!(costs(20, &rules), costs(200, &rules), "the reader is away: {}", !rules.away.is_empty());
    }
}

/// How many mails are looked at for a status, for an hour in which nothing happens, and for a word of a member about one mail.
fn looked_at(mails: u8) -> [usize; 3] {
    let mut world = with(mails, &Rules::default());
    let mut looked_at = |work: &dyn Fn(&mut World)| {
        let before = world.brain.counts.looked_at;
        work(&mut world);
        world.brain.counts.looked_at - before
    };
    let status = looked_at(&|world| {
        let status = world.brain.observe(world.now);
        assert_eq!((status.by_safe[&0], status.mails), (mails.into(), mails.into()));
    });
    let idle = looked_at(&|world| world.run(60 * MINUTE));
    let word = looked_at(&|world| {
        let (h, at) = (world.sealed_of(3), WallTime(world.now.wall.0 + 1));
        world.holds(3, h, Part::Whole, HoldingState::Held, at);
        assert_eq!(world.brain.observe(world.now).by_safe[&1], 1);
    });
    [status, idle, word]
}

#[test]
fn a_status_and_an_idle_hour_look_at_no_mail_and_a_word_about_one_mail_at_one() {
    assert_eq!((looked_at(20), looked_at(200)), ([0, 0, 1], [0, 0, 1]));
}

#[test]
fn after_a_start_the_outbox_mailbox_is_told_of_all_that_waits_but_of_few_at_a_time() {
    let mut world = with(200, &Rules::default());
    (world.outside.shown, world.outside.shown_at_once) = Default::default();
    world.crash();
    world.run(MINUTE);
    assert_eq!(world.outside.shown.len(), 200);
    assert!(world.outside.shown_at_once <= SHOWN_AT_ONCE, "{}", world.outside.shown_at_once);
}
