//! What waits for other members: a few mails at a time, and at once when a member is back.

use super::world::*;
use super::{DAY, HOUR, SIX};
use crate::core::replicator::Input;
use crate::model::msglist::EntryBody;
use crate::model::{Encoding, PeerId};
use std::time::Duration;

const MANY: u8 = 200;

/// Bob follows alice's list, and nobody has what it names.
fn nothing_can_be_had() -> World {
    let mut world = World::new(&SIX[..3]);
    world.kill("carol");
    for x in 1..=MANY {
        let mail = world.mail(x, 100, Encoding::Whole);
        world.outbox("alice").append(EntryBody::Mail(mail));
    }
    world.run(HOUR);
    world.log.clear();
    world
}

#[test]
fn what_cannot_be_had_is_tried_within_five_minutes_and_not_once_for_every_mail() {
    let mut world = nothing_can_be_had();
    world.run(HOUR);
    let tried = world.count("bob: Mirror(");
    assert!((12..=30).contains(&tried), "{tried}");
    (1..=MANY).for_each(|x| {
        world.outbox("alice").mails.insert(h(x));
    });
    world.run(Duration::from_secs(400));
    assert!((1..=MANY).all(|x| world.holders("alice", x).contains_key("bob")));
    world.log.clear();
    world.run(DAY);
    assert_eq!(world.count("bob: Mirror("), 0, "and then it rests");
}

#[test]
fn a_member_that_answers_again_has_everything_tried_that_waits() {
    let mut world = nothing_can_be_had();
    world.start("carol");
    world.run(Duration::from_secs(15));
    assert!(world.count("bob: Mirror(") >= usize::from(MANY), "carol may hold what was missing");
}

#[test]
fn a_strangers_hello_starts_nothing() {
    let mut world = nothing_can_be_had();
    world.tell("bob", Input::PeerIsBack(PeerId::new([99; 32])));
    world.settle();
    assert_eq!(world.count("bob: Mirror("), 0);
    world.tell("bob", Input::PeerIsBack(id("carol")));
    world.settle();
    assert_eq!(world.count("bob: Mirror("), usize::from(MANY));
}
