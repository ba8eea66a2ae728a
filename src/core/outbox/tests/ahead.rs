//! An owner restored from an older copy of its disk whose clock is far ahead when its members tell it what it listed since, in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::truth::{
    as_read_by_a_member, cancel, mails_listed, members, members_know, restored_from_before_a_cancel, sent_after_a_copy,
    silence,
};
use super::world::{Outside, Rules, World, address, key};
use super::{DAY, MINUTE, end_of, ending};
use crate::core::outbox::adopt::{Adoption, OwnPage};
use crate::core::outbox::own_list::LOOSE_MAX;
use crate::core::outbox::{EndedAs, Input};
use crate::model::msglist::{Cursor, Ending, SignedTombstone, Tombstone};
use crate::model::{MailId, WallTime};
use crate::wire::msglist::Page;

/// Beyond the life of every mail, and the time for which it is remembered.
const AHEAD: Duration = Duration::from_secs(45 * 86_400);

/// The peer starts with this disk, by a clock that is ahead, and nobody has compared that yet.
fn starts_ahead(world: &mut World, disk: &Outside) {
    world.clock_unsure = true;
    world.now.wall = world.now.wall + AHEAD;
    world.restore(disk);
}

fn clock_is_right(world: &mut World) {
    world.now.wall.0 -= u64::try_from(AHEAD.as_millis()).unwrap();
    world.run(Duration::from_secs(1));
    world.tell(Input::ClockDoubtful(false));
    world.settle();
}

/// How often members were asked for the own list while this happened.
fn asks(world: &mut World, happens: impl FnOnce(&mut World)) -> Vec<Cursor> {
    let before = world.outside.own_list_asked.len();
    happens(world);
    world.outside.own_list_asked[before..].iter().map(|(_, since)| *since).collect()
}

/// An owner that sent a mail since its copy was made, which its members have read; its clock is ahead, it opened an epoch for want of
/// an answer, and is told late.
fn passed_over() -> (World, MailId) {
    let (mut world, backup, h) = sent_after_a_copy();
    members_know(&mut world);
    silence(&mut world);
    world.restored = true;
    starts_ahead(&mut world, &backup);
    world.run(MINUTE);
    world.restored = false;
    (world, h)
}

#[test]
fn r2_what_a_clock_that_is_ahead_takes_for_long_over_is_asked_for_again_when_the_clock_is_right() {
    let (mut world, h) = passed_over();
    world.rules.silent.clear();
    world.run(2 * MINUTE);
    assert!(world.brain.state.mails.is_empty(), "it cannot know");
    let asked = asks(&mut world, |world| world.run(DAY));
    assert_eq!(asked, [], "nor is anybody asked while the clock is as it is");
    let asked = asks(&mut world, clock_is_right);
    assert_eq!(asked.len(), 5, "each once");
    assert!(world.outside.taken.contains(&(address("rita@readers"), h)), "its reader is told");
    assert_eq!(mails_listed(&mut world), [h], "and members that read on learn of it");
    // One round for the end of a doubt, and none where nothing was passed over.
    let asked = asks(&mut world, |world| {
        world.tell(Input::ClockDoubtful(true));
        world.tell(Input::ClockDoubtful(false));
        world.run(DAY);
    });
    assert_eq!(asked, []);
    world.run(7 * DAY);
    assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Expired));
    assert_eq!(world.outside.dsns.len(), 1);
}

#[test]
fn r2_only_who_told_something_by_a_clock_that_was_ahead_is_asked_again() {
    let (mut world, h) = passed_over();
    world.rules.unheard = true;
    world.run(MINUTE);
    let (told, away) = (key(3).peer_id(), key(4).peer_id());
    let (read, since) = (world.rules.own_lists[&told].clone(), world.outside.own_list_asked.last().unwrap().1);
    world.tell(Input::OwnList { member: told, since, answer: Some(read.clone()) });
    world.tell(Input::OwnList { member: away, since, answer: None });
    // What this one tells does not end with one page.
    let (more, page) = (key(5).peer_id(), Page { more: true, ..read.page.clone() });
    world.tell(Input::OwnList { member: more, since, answer: Some(OwnPage { page, ..read.clone() }) });
    world.settle();
    assert!(world.outside.own_list_asked.last().unwrap().1 > since, "it is asked for the next");
    let before = world.outside.own_list_asked.len();
    clock_is_right(&mut world);
    let asked: BTreeSet<_> = world.outside.own_list_asked[before..].iter().copied().collect();
    assert_eq!(
        asked,
        BTreeSet::from([(told, since), (more, since)]),
        "the others were not heard, or are asked in time"
    );
    assert!(world.brain.state.mails.is_empty());
    world.tell(Input::OwnList { member: more, since, answer: Some(read) });
    world.settle();
    assert!(world.brain.state.open.contains(&h));
}

#[test]
fn r2_r7_what_is_over_for_long_stays_so_at_a_start_whose_clock_is_in_doubt_for_a_moment() {
    let (mut world, h) = passed_over();
    world.now.wall.0 -= u64::try_from(AHEAD.as_millis()).unwrap();
    world.clock_unsure = false;
    world.crash();
    world.run(10 * DAY);
    world.outside.dsns.clear();
    world.now.wall = world.now.wall + AHEAD;
    world.clock_unsure = true;
    world.rules.silent.clear();
    let asked = asks(&mut world, |world| {
        world.crash();
        world.run(Duration::from_secs(10));
        world.tell(Input::ClockDoubtful(false));
        world.run(DAY);
    });
    assert_eq!(asked.len(), 10, "all are asked twice, and then no more");
    assert!(
        !world.brain.state.mails.contains_key(&h) && world.outside.dsns.is_empty() && world.outside.taken.is_empty()
    );
}

#[test]
fn r7_a_tombstone_that_no_list_has_ends_an_open_mail_by_whatever_clock() {
    let (mut world, before, h) = sent_after_a_copy();
    let open = world.outside.copy();
    let read = as_read_by_a_member(&mut world);
    let tombstone = cancel(&mut world, h);
    let alone = Page { tombstones: vec![ByteBuf::from(tombstone.clone())], ..Page::default() };
    let alone = OwnPage { page: alone, ..read.clone() };
    world.rules.own_lists = members().map(|member| (member, alone.clone())).collect();
    let is_ended = |world: &World, how: &str| {
        assert_eq!(ending(world, &h), Some(Ending::Cancelled), "{how}");
        assert_eq!(world.outside.gone_told, [address("rita@readers")], "{how}");
        assert!(world.outside.taken.is_empty(), "nothing that is gone is announced: {how}");
    };
    let right = world.now.wall;
    starts_ahead(&mut world, &open);
    world.run(MINUTE);
    is_ended(&world, "it is open on the disk");
    world.now.wall = right;
    // One member has the mail, and only another one its end, and tells that first.
    world.rules.own_lists.insert(key(6).peer_id(), read);
    starts_ahead(&mut world, &before);
    world.run(MINUTE);
    is_ended(&world, "it is told of by members");
    // Nobody answers, and it is shown at an audit.
    world.now.wall = right;
    silence(&mut world);
    starts_ahead(&mut world, &open);
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), None);
    world.tell(Input::AuditedGone { member: key(3).peer_id(), h, tombstone });
    world.settle();
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled), "at an audit");
}

#[test]
fn r7_a_tombstone_that_is_passed_over_ends_its_mail_though_who_told_it_is_gone_when_the_clock_is_right() {
    let (mut world, backup, h) = sent_after_a_copy();
    let read = as_read_by_a_member(&mut world);
    let tombstone = ByteBuf::from(cancel(&mut world, h));
    let alone = OwnPage { page: Page { tombstones: vec![tombstone], ..Page::default() }, ..read.clone() };
    let (knows_the_end, knows_the_mail) = (key(3).peer_id(), key(6).peer_id());
    world.rules.own_lists = [(knows_the_end, alone), (knows_the_mail, read)].into();
    world.rules.silent = [knows_the_mail].into();
    starts_ahead(&mut world, &backup);
    world.run(DAY);
    assert!(world.brain.state.gone.is_empty() && world.brain.state.mails.is_empty(), "it seems to be over for long");
    world.rules.silent = [knows_the_end].into();
    clock_is_right(&mut world);
    world.tell(Input::PeerIsBack(knows_the_mail));
    world.run(DAY);
    assert!(world.outside.taken.is_empty(), "nobody is told of a mail that is gone");
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
}

/// A member replays tombstones that this peer signed, more than are kept, before or after another one tells what is news.
#[test]
fn r7_tombstones_that_are_replayed_crowd_out_none_of_a_mail_that_is_open_or_ends_later() {
    let mut world = World::new(5, Rules::default());
    let kept = &mut world.brain.adoption;
    let mail = |n: usize| MailId::new(std::array::from_fn(|i| n.to_be_bytes().get(i).copied().unwrap_or_default()));
    let open = BTreeSet::from([mail(1_000_002), mail(1_000_003)]);
    let keep = |kept: &mut Adoption, n: usize, expiry: u64| {
        kept.keep_loose(mail(n), WallTime(expiry), SignedTombstone(Vec::new()));
        kept.bound_loose(&open);
    };
    keep(kept, 1_000_002, 10);
    (0..LOOSE_MAX + 10).for_each(|n| keep(kept, n, 100 + n as u64 % 2));
    keep(kept, 1_000_000, 200);
    keep(kept, 1_000_001, 50);
    keep(kept, 1_000_003, 10);
    assert_eq!(kept.loose.len(), LOOSE_MAX);
    assert!(kept.loose.contains_key(&mail(1_000_000)) && !kept.loose.contains_key(&mail(1_000_001)));
    assert!(open.iter().all(|h| kept.loose.contains_key(h)), "the two that are open");
}

#[test]
fn r7_a_tombstone_of_a_mail_that_is_known_to_have_ended_takes_no_room() {
    let (mut world, _, h) = sent_after_a_copy();
    let tombstone = ByteBuf::from(cancel(&mut world, h));
    world.brain.adoption.holding = true;
    world.brain.take_own_tombstone(world.now, tombstone.into_vec());
    assert!(world.brain.adoption.loose.is_empty());
}

#[test]
fn r7_no_cancel_answers_from_a_disk_that_a_tombstone_told_while_the_clock_was_ahead_shows_to_be_old() {
    let (mut world, backup, h) = sent_after_a_copy();
    let tombstone = ByteBuf::from(cancel(&mut world, h));
    let alone = OwnPage { page: Page { tombstones: vec![tombstone], ..Page::default() }, ..OwnPage::default() };
    world.restore(&backup);
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    let (other, disk) = (world.sealed_of(2), world.outside.copy());
    world.rules.own_lists = [(key(3).peer_id(), alone)].into();
    starts_ahead(&mut world, &disk);
    world.run(MINUTE);
    assert!(world.brain.state.gone.is_empty() && world.brain.state.mails[&other].served.is_some());
    clock_is_right(&mut world);
    assert!(world.brain.state.gone.contains_key(&h) && world.brain.state.mails[&other].served.is_none());
}

#[test]
fn r7_a_tombstone_that_is_passed_over_is_asked_for_again_from_where_the_list_ended_at_the_start() {
    let (mut world, backup, h) = sent_after_a_copy();
    let other = MailId::new([99; 20]);
    members_know(&mut world);
    // Of this mail nobody knows more than its end.
    let (owner, at) = (key(1).peer_id(), world.now.wall);
    let gone = key(1).sign(Tombstone { owner, h: other, ending: Ending::Cancelled, at, expiry: at + DAY });
    let told = world.rules.own_lists.get_mut(&key(6).peer_id()).unwrap();
    told.page.tombstones.push(ByteBuf::from(gone.to_entry().0));
    starts_ahead(&mut world, &backup);
    world.run(MINUTE);
    let since = world.outside.own_list_asked[0].1;
    assert!(world.brain.state.open.contains(&h) && world.brain.state.gone.is_empty());
    assert!(world.outside.own_list_asked.iter().all(|(_, from)| *from == since));
    let asked = asks(&mut world, clock_is_right);
    assert_eq!(asked, [since; 5], "the list goes further by now");
    assert!(world.brain.state.gone.contains_key(&other));
}

#[test]
fn r7_an_epoch_of_yesterday_that_a_clock_ahead_takes_for_an_old_one_is_doubted_when_the_clock_is_right() {
    let (mut world, h) = restored_from_before_a_cancel(silence);
    let before = world.outside.own_list_asked.last().unwrap().1;
    world.run(DAY);
    world.rules.unheard = true;
    let disk = world.outside.copy();
    starts_ahead(&mut world, &disk);
    world.settle();
    let since = world.outside.own_list_asked.last().unwrap().1;
    assert!(since.epoch > before.epoch, "members have read of it meanwhile, and know nothing after that");
    for member in members() {
        world.tell(Input::OwnList { member, since, answer: Some(OwnPage::default()) });
    }
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), None);
    world.rules.unheard = false;
    world.rules.silent.clear();
    let asked = asks(&mut world, clock_is_right);
    assert_eq!(asked, [before; 5]);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
}
