//! Clocks that were ahead while nobody was there to tell: what they ended lives again, and what was filed once is not filed again.

use std::time::Duration;

use super::{DAY, Way, World, ns};
use crate::core::postbox::access::{BodyState, Standard};
use crate::core::postbox::io::NsFrom;
use crate::core::postbox::{Event, Input, Reply, TombstoneRefusal};
use crate::model::msglist::{Ending, Tombstone};
use crate::model::notification::{Ns, Outcome};
use crate::model::{Digest, Now, WallTime};
use crate::wire::PeerKey;

const HOUR: Duration = Duration::from_secs(3600);

/// The clock is set, and the group has no objection.
fn set(world: &mut World, wall: WallTime) {
    world.now = Now { wall, ..world.now };
    world.pass(Duration::from_secs(1));
    world.tell(Input::ClockDoubtful(false));
    world.pass(Duration::from_secs(60));
}

/// Seeds 40057 and 42763: it was ended and forgotten at one moment, and came as another message with its next ns.
#[test]
fn r5_a_stub_that_a_clock_ahead_ended_waits_again_and_its_mail_is_filed_once() {
    let mut world = World::new();
    world.sender.way = Way::Down;
    world.send(&ns(1), true);
    let right = world.now.wall;
    set(&mut world, right + 45 * DAY);
    world.pass(HOUR);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Expired);
    set(&mut world, right + HOUR);
    let stub = world.listed(Standard::Inbox)[0].clone();
    assert_eq!(stub.body, BodyState::Absent, "it lives");
    world.sender.way = Way::Up;
    world.send(&ns(1), true);
    world.open(Standard::Inbox, stub.uid);
    let all = world.listed(Standard::Inbox);
    assert_eq!((all.len(), all[0].body), (1, BodyState::Here));
    assert_eq!(world.outcomes(), [Outcome::Received]);
}

#[test]
fn r5_what_was_received_is_remembered_though_the_clock_was_far_ahead_for_hours() {
    let mut world = World::new();
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    let right = world.now.wall;
    set(&mut world, right + 45 * DAY);
    world.pass(5 * HOUR);
    set(&mut world, right + 5 * HOUR);
    world.send(&ns(1), true);
    assert_eq!(world.listed(Standard::Inbox).len(), 1);
}

/// Seed 43893: the sender came back with an old disk and asked for the nr again, which had been sent by a clock ahead.
#[test]
fn r2_an_nr_that_was_sent_by_a_clock_ahead_is_sent_again_when_it_is_asked_for() {
    let mut world = World::new();
    let right = world.now.wall;
    set(&mut world, right + DAY);
    world.send(&ns(1), true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    set(&mut world, right + HOUR);
    world.send(&ns(1), true);
    assert_eq!(world.outcomes(), [Outcome::Received, Outcome::Received]);
}

#[test]
fn r7_an_owner_that_forgot_a_word_that_a_clock_ahead_sent_hears_it_again_before_its_cancel_counts() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    let right = world.now.wall;
    set(&mut world, right + DAY);
    world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
    let uid = world.listed(Standard::Inbox)[0].uid;
    world.open(Standard::Inbox, uid);
    set(&mut world, right + HOUR);
    assert_eq!(told_gone(&mut world, &key, Ending::Cancelled), Reply::TombstoneRefused(TombstoneRefusal::NotYet));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.outcomes(), [Outcome::Received, Outcome::Received]);
}

#[test]
fn r7_what_its_owner_calls_expired_is_not_revived_by_a_clock_that_is_behind() {
    let (key, mut world) = (PeerKey::from_seed(&[4; 32]), World::new());
    world.send(&Ns { owner: key.peer_id(), ..ns(1) }, true);
    assert_eq!(told_gone(&mut world, &key, Ending::Expired), Reply::TombstoneTaken);
    world.tell(Input::ClockDoubtful(true));
    world.tell(Input::ClockDoubtful(false));
    world.pass(HOUR);
    assert_eq!(world.listed(Standard::Inbox)[0].body, BodyState::Expired);
}

/// It is announced anew, and begins anew: what was noted of it before would stay for as long as the peer runs.
#[test]
fn what_is_in_no_mailbox_when_the_clock_is_right_again_is_forgotten_whole() {
    let mut world = World::new();
    world.tell(Input::Ns { from: NsFrom::Dht(Digest::new([3; 32])), ns: Box::new(ns(1)), known: true });
    assert_eq!(world.brain.arriving.in_dht.len(), 1);
    let right = world.now.wall;
    set(&mut world, right + 45 * DAY);
    world.pass(HOUR);
    let stub = world.listed(Standard::Inbox)[0].clone();
    assert_eq!(stub.body, BodyState::Expired);
    world.delete(Standard::Inbox, stub.uid);
    set(&mut world, right + HOUR);
    assert!(world.journal.iter().any(|event| matches!(event, Event::Forgotten { .. })));
    assert!(world.brain.arriving.in_dht.is_empty());
}

fn told_gone(world: &mut World, key: &PeerKey, ending: Ending) -> Reply {
    let (token, at) = (world.token(), world.now.wall);
    let word = Tombstone { owner: key.peer_id(), h: ns(1).h, ending, at, expiry: ns(1).expiry };
    world.tell(Input::Tombstone { token: Some(token), tombstone: key.sign(word), known: true });
    world.replies[&token].clone()
}
