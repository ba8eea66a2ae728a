//! The replicator in a group of brains in memory, told in the words of the design.

mod apart;
mod clocks;
mod give_up;
mod moves;
mod probe;
mod random;
mod together;
mod truth;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::{Action, AskFailure, Config, Event, FollowShown, Input, Lookup, Mirrored, Replicator};
use crate::core::{Brain, Effect};
use crate::model::holding::{HoldingRefusal, HoldingState};
use crate::model::msglist::{Cursor, EntryBody, Epoch, Seq, SignedTombstone};
use crate::model::{ByteSize, Encoding, MailId, Part};
use crate::wire::msglist::Page;
use world::{KN, LIFE, NAMES, World, h, id, key, member};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const SIX: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];

fn indices(world: &World, x: u8) -> BTreeSet<Part> {
    world.holders("alice", x).into_values().flatten().collect()
}
fn all_five() -> BTreeSet<Part> {
    (0..5).map(|i| Part::Fragment { k: 3, i }).collect()
}
fn journaled(world: &mut World, name: &str) -> usize {
    world.peer(name).journal.len()
}

#[test]
fn each_member_mirrors_its_fragment_and_reports_it() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    assert_eq!(indices(&world, 1), all_five());
    for name in &SIX[1..] {
        assert_eq!(world.holders("alice", 1)[name].len(), 1);
        assert!(matches!(world.told("alice", name, 1)[..], [(_, HoldingState::Held)]), "{name}");
    }
    assert_eq!(world.count("Mirror(") + world.count("AskHolders"), 5);
}

#[test]
fn whole_copies_are_as_many_as_the_policy_says() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, Encoding::Whole);
    assert_eq!(world.holders("alice", 1).len(), 3);
    assert_eq!(indices(&world, 1), BTreeSet::from([Part::Whole]));
}

#[test]
fn a_tombstone_frees_every_part_and_nothing_brings_the_mail_back() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.end("alice", 1);
    assert!(world.holders("alice", 1).is_empty());
    for name in &SIX[1..] {
        assert!(matches!(world.told("alice", name, 1)[..], [(_, HoldingState::Dropped { .. })]), "{name}");
        assert!(matches!(world.lookup(name, 1), Lookup::Gone { .. }));
    }
    // R7: a later entry for the same mail, also of a later epoch, is ignored.
    world.send("alice", 1, KN);
    let mail = world.mail(1, 1 << 20, KN);
    let outbox = world.outbox("alice");
    (outbox.epoch, outbox.entries) = (Epoch(2000), vec![]);
    outbox.add(mail);
    world.settle();
    world.run(HOUR);
    assert!(world.holders("alice", 1).is_empty());
}

#[test]
fn a_tombstone_that_somebody_else_signed_frees_nothing() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let forged = world.outboxes[&id("bob")].tombstone(h(1), world.now.wall);
    let mut broken = world.outboxes[&id("alice")].tombstone(h(1), world.now.wall).as_bytes().to_vec();
    *broken.last_mut().unwrap() ^= 1;
    for bytes in [forged.as_bytes().to_vec(), broken] {
        world.outbox("alice").append(EntryBody::Tombstone(SignedTombstone(bytes)));
        world.settle();
    }
    world.run(HOUR);
    assert_eq!(indices(&world, 1), all_five());
}

#[test]
fn an_empty_shorter_stale_or_forked_list_deletes_nothing() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.send("alice", 2, KN);
    let kept = world.outbox("alice").entries.clone();
    let check = |world: &mut World, what: &str| {
        world.run(2 * HOUR);
        for x in [1, 2] {
            assert_eq!(indices(world, x), all_five(), "{what}");
        }
    };
    world.outbox("alice").entries.clear();
    check(&mut world, "empty");
    world.outbox("alice").entries = kept[..1].to_vec();
    check(&mut world, "shorter");
    // A fork: another second entry, and a third that ends the first mail.
    world.send("alice", 3, KN);
    let expiry = world.now.wall + LIFE;
    let tombstone = world.outbox("alice").tombstone(h(1), expiry).to_entry();
    world.outbox("alice").append(EntryBody::Tombstone(tombstone));
    check(&mut world, "forked");
    let now = world.now;
    for name in &SIX[1..] {
        let status = world.peer(name).brain.as_ref().unwrap().observe(now);
        let alice = status.owners.iter().find(|o| o.peer == id("alice")).unwrap();
        assert!(alice.conflicts.iter().any(|c| c.contains("contradict")), "{name}: {alice:?}");
    }
    // The right list again: it goes on where it stopped.
    world.outbox("alice").entries = kept;
    world.send("alice", 4, KN);
    world.run(HOUR);
    assert_eq!(indices(&world, 4), all_five());
}

#[test]
fn a_page_that_is_not_signed_by_the_owner_or_altered_is_not_used() {
    let mut world = World::new(&SIX);
    let mail = world.mail(9, 1000, KN);
    let since = Cursor::default();
    let mut theirs = World::new(&SIX);
    theirs.outbox("bob").add(mail.clone());
    theirs.outbox("alice").add(mail);
    let forged = theirs.outboxes[&id("bob")].page(since);
    let mut altered = theirs.outboxes[&id("alice")].page(since);
    let last = altered.runs[0].entries[0].len() - 1;
    altered.runs[0].entries[0][last] ^= 1;
    for page in [forged, altered] {
        let round = latest_round(&world, "carol", "alice");
        let input = Input::Page { owner: id("alice"), from: id("alice"), round, result: Ok(page) };
        world.tell("carol", input);
        world.settle();
        world.run(2 * HOUR);
    }
    assert!(world.holders("alice", 9).is_empty());
}

/// The round of the last question that a member asked an owner.
fn latest_round(world: &World, name: &str, owner: &str) -> u64 {
    let line = world.log.iter().rev().find(|l| l.starts_with(name) && l.contains(&format!("from: {:?}", id(owner))));
    let (_, rest) = line.unwrap().split_once("round: ").unwrap();
    rest.split_once(',').unwrap().0.parse().unwrap()
}

#[test]
fn expiry_frees_a_part_only_after_a_day_of_grace_and_never_under_a_doubtful_clock() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.tell("bob", Input::ClockDoubtful(true));
    world.run(LIFE + DAY - HOUR);
    assert_eq!(indices(&world, 1), all_five());
    world.run(3 * HOUR);
    assert_eq!(world.holders("alice", 1).into_keys().collect::<Vec<_>>(), ["bob"]);
    world.tell("bob", Input::ClockDoubtful(false));
    world.run(2 * HOUR);
    assert!(world.holders("alice", 1).is_empty());
}

#[test]
fn a_lost_member_is_replaced_and_nothing_that_stayed_moves() {
    let mut world = World::new(&NAMES);
    world.send("alice", 1, KN);
    assert_eq!(
        (world.count("urgency: Prompt"), world.count("urgency: Background")),
        (5, 0),
        "a new mail is waited for"
    );
    let before = world.holders("alice", 1);
    let gone = *before.keys().next().unwrap();
    world.kill(gone);
    world.kill("alice");
    world.log.clear();
    world.lost.extend([id(gone), id("alice")]);
    world.set_roster();
    world.run(HOUR);
    let after = world.holders("alice", 1);
    assert_eq!(world.distinct("alice", 1), 5);
    for (name, parts) in before.iter().filter(|(name, _)| **name != gone) {
        assert_eq!(&after[name], parts);
    }
    assert_eq!(world.count("Mirror("), 1);
    assert_eq!(world.count("urgency: Background"), 1, "nobody waits for a repair");
    // It comes back: what it holds it keeps, and the one that stood in gives its part up, but not before the owner knows.
    world.start(gone);
    world.lost.remove(&id(gone));
    world.set_roster();
    world.run(2 * HOUR);
    assert_eq!(world.holders("alice", 1), after.into_iter().chain(before.clone()).collect());
    world.start("alice");
    world.lost.clear();
    world.set_roster();
    world.run(2 * HOUR);
    assert_eq!(world.holders("alice", 1), before);
}

#[test]
fn a_part_stays_until_every_holder_now_placed_has_confirmed_its_own() {
    let mut world = World::new(&NAMES);
    world.send("alice", 1, KN);
    let before = world.holders("alice", 1);
    let gone = *before.keys().next().unwrap();
    world.kill(gone);
    world.lost.insert(id(gone));
    world.set_roster();
    world.run(HOUR);
    let stand_in = *world.holders("alice", 1).keys().find(|n| !before.contains_key(*n)).unwrap();
    // Back, with an empty disk, while the owner is off and another holder does not answer.
    world.peer(gone).disk.clear();
    world.peer(gone).journal.clear();
    let silent = *before.keys().rev().find(|n| **n != gone).unwrap();
    world.kill(silent);
    world.lost.remove(&id(gone));
    world.start(gone);
    world.set_roster();
    world.run(6 * HOUR);
    assert!(world.holders("alice", 1).contains_key(stand_in), "not everybody has confirmed");
    world.start(silent);
    world.run(2 * HOUR);
    assert!(!world.holders("alice", 1).contains_key(stand_in), "{:?}", world.holders("alice", 1));
    assert_eq!(world.distinct("alice", 1), 5);
}

#[test]
fn re_encoding_brings_the_new_parts_before_the_old_go() {
    let mut world = World::new(&SIX[..5]);
    world.send("alice", 1, Encoding::Whole);
    assert_eq!(world.holders("alice", 1).len(), 4, "too small for 5 fragments: whole at every other member");
    world.names = SIX.to_vec();
    let more = World::new(&SIX);
    world.peers.extend(more.peers.into_iter().filter(|(p, _)| *p == id("frank")));
    world.outboxes.extend(more.outboxes.into_iter().filter(|(p, _)| *p == id("frank")));
    // Frank cannot mirror yet: until he can, the others keep their whole copies beside their fragments.
    world.peer("frank").full = true;
    world.start("frank");
    world.set_roster();
    world.send("alice", 1, KN);
    world.run(HOUR / 2);
    let holders = world.holders("alice", 1);
    assert!(holders.values().filter(|parts| parts.contains(&Part::Whole)).count() >= 3, "{holders:?}");
    assert!(holders.len() == 4 && holders.values().all(|parts| parts.iter().any(|p| *p != Part::Whole)), "{holders:?}");
    world.peer("frank").full = false;
    world.run(3 * HOUR);
    assert_eq!(indices(&world, 1), all_five());
    assert!(world.holders("alice", 1).values().all(|parts| parts.len() == 1));
}

#[test]
fn killed_at_every_event_a_member_ends_with_the_same_holdings() {
    let script = |world: &mut World| {
        let bob_back = |world: &mut World| {
            if world.peer("bob").brain.is_none() {
                world.start("bob");
            }
            world.run(Duration::from_secs(30));
        };
        world.send("alice", 1, KN);
        bob_back(world);
        world.send("alice", 2, Encoding::Whole);
        bob_back(world);
        world.end("alice", 1);
        bob_back(world);
        world.send("carol", 3, KN);
        bob_back(world);
        world.run(HOUR);
    };
    let mut calm = World::new(&SIX);
    script(&mut calm);
    let commits = 40;
    for fuse in 0..commits {
        let mut world = World::new(&SIX);
        world.peer("bob").fuse = Some(fuse);
        script(&mut world);
        for x in 1..=3 {
            let owner = if x == 3 { "carol" } else { "alice" };
            assert_eq!(world.holders(owner, x), calm.holders(owner, x), "killed after {fuse} commits");
            let said = |w: &World| w.told(owner, "bob", x);
            assert_eq!(said(&world), said(&calm), "killed after {fuse} commits");
        }
    }
}

#[test]
fn a_compacted_journal_brings_back_the_same_state() {
    let mut world = World::new(&SIX);
    (1..=5).for_each(|x| world.send("alice", x, if x % 2 == 0 { KN } else { Encoding::Whole }));
    world.end("alice", 2);
    world.kill("alice");
    world.run(HOUR);
    let now = world.now;
    let snapshot = world.peer("bob").brain.as_ref().unwrap().snapshot();
    let replayed = |events: &[Event]| {
        let mut brain = Replicator::new(Config { quota: ByteSize::gib(1), seed: 1 });
        events.iter().for_each(|e| brain.replay(e.clone()));
        brain
    };
    let (from_journal, from_snapshot) = (replayed(&world.peer("bob").journal.clone()), replayed(&snapshot));
    assert_eq!(from_journal.observe(now), from_snapshot.observe(now));
    assert_eq!(from_journal.snapshot(), from_snapshot.snapshot());
    assert_eq!(snapshot, from_snapshot.snapshot());
}

#[test]
fn an_owner_that_is_off_is_asked_again_within_ten_seconds_and_at_once_when_it_is_back() {
    let mut world = World::new(&SIX[..2]);
    world.kill("alice");
    world.run(Duration::from_secs(60));
    world.log.clear();
    world.run(Duration::from_secs(600));
    let asked = world.count("bob: Follow");
    assert!((60..=90).contains(&asked), "{asked}");
    let now = world.now;
    let status = world.peer("bob").brain.as_ref().unwrap().observe(now);
    assert!(status.owners[0].follow == FollowShown::Unreachable && status.owners[0].unreachable_s > Some(600));
    world.off.remove(&id("alice"));
    let mail = world.mail(1, 100, Encoding::Whole);
    world.outbox("alice").add(mail);
    world.tell("bob", Input::PeerIsBack(id("alice")));
    world.settle();
    assert_eq!(world.holders("alice", 1).len(), 1, "at once, without any time passing");
}

#[test]
fn an_idle_group_asks_little_and_writes_nothing() {
    let mut world = World::new(&SIX);
    (1..=20).for_each(|x| world.send("alice", x, KN));
    world.run(HOUR);
    world.log.clear();
    let before: Vec<usize> = SIX.iter().map(|n| journaled(&mut world, n)).collect();
    world.run(HOUR);
    let after: Vec<usize> = SIX.iter().map(|n| journaled(&mut world, n)).collect();
    assert_eq!(before, after);
    let others = world.log.iter().filter(|l| !l.contains("Follow {") && !l.contains("Scrub {")).collect::<Vec<_>>();
    assert!(others.is_empty(), "{others:?}");
    // 5 owners each, a long poll of 240 to 300 s: 12 to 15 an hour.
    let per_member = world.count("Follow {") / SIX.len();
    assert!((60..=75).contains(&per_member), "{per_member}");
}

#[test]
fn a_part_that_goes_bad_is_found_reported_and_mirrored_again() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let part = world.holders("alice", 1)["bob"][0];
    world.peer("bob").rotten.insert((id("alice"), h(1), part));
    world.log.clear();
    world.run(7 * DAY - HOUR);
    assert!(world.peer("bob").rotten.is_empty());
    assert!(world.peer("bob").journal.contains(&Event::Lost { owner: id("alice"), h: h(1), part }));
    assert_eq!(world.told("alice", "bob", 1), [(part, HoldingState::Held)]);
    assert_eq!(world.count("bob: Scrub {"), 1);
}

#[test]
fn a_file_that_is_gone_at_the_start_is_lost_and_mirrored_again_and_a_stray_one_is_removed() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let part = world.holders("alice", 1)["bob"][0];
    world.kill("bob");
    world.peer("bob").disk = BTreeSet::from([(id("alice"), h(77), Part::Whole)]);
    world.start("bob");
    world.run(Duration::from_secs(30));
    assert_eq!(world.holders("alice", 1)["bob"], [part]);
    assert_eq!(world.peer("bob").disk.len(), 1);
}

#[test]
fn what_goes_beyond_the_quota_is_refused_and_taken_when_there_is_room() {
    let mut world = World::new(&SIX[..2]);
    let length = 40 << 20;
    for x in [1, 2] {
        let mail = world.mail(x, length, Encoding::Whole);
        world.outbox("alice").add(mail);
        world.settle();
    }
    let refused = [(Part::Whole, HoldingState::Refused(HoldingRefusal::Quota))];
    assert_eq!(world.told("alice", "bob", 2), refused);
    world.log.clear();
    world.run(DAY);
    assert_eq!(world.count("Mirror("), 0, "R12: not tried again before something changed");
    world.end("alice", 1);
    assert_eq!(world.told("alice", "bob", 2), [(Part::Whole, HoldingState::Held)]);
}

#[test]
fn a_full_disk_is_reported_once_and_tried_again_slowly() {
    let mut world = World::new(&SIX[..2]);
    world.peer("bob").full = true;
    world.send("alice", 1, Encoding::Whole);
    world.send("alice", 2, Encoding::Whole);
    assert_eq!(world.told("alice", "bob", 1), [(Part::Whole, HoldingState::Refused(HoldingRefusal::DiskFull))]);
    world.log.clear();
    world.run(DAY);
    assert!(world.count("Mirror(") < 200 && world.count("Report {") <= 1, "{}", world.count("Mirror("));
    world.peer("bob").full = false;
    world.run(HOUR);
    assert!((1..=2).all(|x| world.told("alice", "bob", x) == [(Part::Whole, HoldingState::Held)]));
}

#[test]
fn a_member_back_from_an_old_disk_learns_of_tombstones_from_others_before_it_serves() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let (journal, disk) = (world.peer("bob").journal.clone(), world.peer("bob").disk.clone());
    world.end("alice", 1);
    world.kill("bob");
    world.kill("alice");
    (world.peer("bob").journal, world.peer("bob").disk) = (journal, disk);
    world.start("bob");
    assert!(matches!(world.lookup("bob", 1), Lookup::Gone { .. }), "{:?}", world.lookup("bob", 1));
    assert!(world.holders("alice", 1).is_empty());
    // The owner learns that it was dropped, once it is back.
    world.start("alice");
    world.run(Duration::from_secs(30));
    assert!(matches!(world.told("alice", "bob", 1)[..], [(_, HoldingState::Dropped { .. })]));
}

#[test]
fn with_nobody_to_ask_a_member_serves_after_a_minute() {
    let mut world = World::new(&SIX[..2]);
    world.send("alice", 1, Encoding::Whole);
    world.kill("alice");
    world.kill("bob");
    world.start("bob");
    assert_eq!(world.lookup("bob", 1), Lookup::NotReady);
    world.run(Duration::from_secs(59));
    assert_eq!(world.lookup("bob", 1), Lookup::NotReady);
    world.run(Duration::from_secs(2));
    assert!(matches!(world.lookup("bob", 1), Lookup::Known(known) if known.parts.contains(&Part::Whole)));
    assert_eq!(world.lookup("bob", 2), Lookup::Unknown);
}

#[test]
fn a_mirrored_msglist_is_passed_on_in_pages_that_prove_themselves() {
    let mut world = World::new(&SIX[..3]);
    (1..=200).for_each(|x| world.send("alice", x, Encoding::Whole));
    (0..=150).for_each(|x| world.end("alice", x));
    let all = world.outbox("alice").entries.len();
    let mut list = super::list::KnownList::default();
    for _ in 0..100 {
        let page: Page = world.mirror_page("bob", "alice", list.cursor());
        for run in &page.runs {
            let super::list::Taken::New(_, read) = list.check(&id("alice"), run, false).unwrap() else { panic!() };
            list.apply(&read);
        }
        if !page.more {
            break;
        }
    }
    assert_eq!(list.cursor(), Cursor { epoch: Epoch(1000), seq: Seq(u64::try_from(all).unwrap()) });
    // From every position a page leads to the end, and an unknown epoch is answered from the start.
    for seq in 0..=u64::try_from(all).unwrap() {
        let page = world.mirror_page("bob", "alice", Cursor { epoch: Epoch(1000), seq: Seq(seq) });
        assert_eq!(page.runs.is_empty(), seq == u64::try_from(all).unwrap(), "{seq}");
    }
    let page = world.mirror_page("bob", "alice", Cursor { epoch: Epoch(5), seq: Seq(9) });
    assert_eq!(page.runs[0].after, Seq(0));
}

#[test]
fn a_member_that_lost_its_disk_tells_the_owner_and_fills_up_again() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    world.kill("bob");
    world.peer("bob").disk.clear();
    world.peer("bob").journal.clear();
    world.start("bob");
    world.run(HOUR);
    assert_eq!(indices(&world, 1), all_five());
    assert!(matches!(world.told("alice", "bob", 1)[..], [(_, HoldingState::Held)]));
}

#[test]
fn one_owner_with_much_mail_does_not_hold_up_another() {
    let mut brain = Replicator::new(Config { quota: ByteSize::gib(1), seed: 1 });
    let mut world = World::new(&SIX[..3]);
    let roster = world.roster("carol");
    (1..=100).for_each(|x| {
        let mail = world.mail(x, 2 << 20, Encoding::Whole);
        world.outbox("alice").add(mail);
    });
    let mail = world.mail(200, 2 << 20, Encoding::Whole);
    world.outbox("bob").add(mail);
    let now = world.now;
    brain.handle(now, Input::Start(roster));
    let mut mirrored: Vec<MailId> = vec![];
    let take = |brain: &mut Replicator, mirrored: &mut Vec<MailId>| {
        let mut follows = vec![];
        let mut queue = std::collections::VecDeque::new();
        while let Some(effect) = brain.poll_effect() {
            queue.push_back(effect);
            while let Some(effect) = queue.pop_front() {
                match effect {
                    Effect::Act(Action::Mirror(orders)) => mirrored.extend(orders.iter().map(|order| order.h)),
                    Effect::Act(Action::Follow { owner, round, .. }) => follows.push((owner, round)),
                    Effect::Act(Action::CheckParts { address, .. }) => {
                        brain.handle(now, Input::Checked { address, missing: vec![] });
                    }
                    Effect::Commit { then, .. } => queue.extend(then),
                    _ => {}
                }
            }
        }
        follows
    };
    let mut follows = take(&mut brain, &mut mirrored);
    follows.sort_by_key(|(owner, _)| *owner != id("alice"));
    for (owner, round) in follows {
        let page = world.outboxes[&owner].page(Cursor::default());
        brain.handle(now, Input::Page { owner, from: owner, round, result: Ok(page) });
        take(&mut brain, &mut mirrored);
    }
    assert_eq!(mirrored.len(), 4, "large parts are bounded");
    let done = Mirrored { h: mirrored[0], part: Part::Whole, result: Ok(()) };
    brain.handle(now, Input::Mirrored { owner: id("alice"), results: vec![done] });
    take(&mut brain, &mut mirrored);
    assert_eq!(mirrored[4], h(200), "the other owner's turn comes next");
}

#[test]
fn an_answer_of_an_earlier_round_changes_nothing() {
    let mut world = World::new(&SIX[..2]);
    let stale = AskFailure::Unreachable { why: "late".to_owned() };
    world.tell("bob", Input::Page { owner: id("alice"), from: id("alice"), round: 1, result: Err(stale) });
    world.settle();
    let now = world.now;
    assert_eq!(world.peer("bob").brain.as_ref().unwrap().observe(now).owners[0].follow, FollowShown::Ok);
}

#[test]
fn who_was_served_is_durable_before_the_first_byte_and_reported_when_the_part_is_dropped() {
    let mut world = World::new(&SIX[..2]);
    world.send("alice", 1, Encoding::Whole);
    let reader = key("grace").peer_id();
    world.tell("bob", Input::Serving { token: crate::core::Token(99), h: h(1), caller: reader });
    world.settle();
    assert_eq!(world.peer("bob").replies[&crate::core::Token(99)], super::Reply::Serve(true));
    let recorded = Event::Served { owner: id("alice"), h: h(1), caller: reader, bytes: 0 };
    assert!(world.peer("bob").journal.contains(&recorded));
    (0..10).for_each(|_| world.tell("bob", Input::Served { h: h(1), caller: reader, bytes: 100 }));
    world.settle();
    world.end("alice", 1);
    assert_eq!(world.told("alice", "bob", 1), [(Part::Whole, HoldingState::Dropped { served: vec![(reader, 1000)] })]);
    world.tell("bob", Input::Serving { token: crate::core::Token(100), h: h(1), caller: reader });
    world.settle();
    assert_eq!(world.peer("bob").replies[&crate::core::Token(100)], super::Reply::Serve(false));
}

#[test]
fn a_member_that_was_to_hold_a_part_and_has_none_confirms_that_too_when_the_mail_ends() {
    let mut world = World::new(&SIX[..2]);
    world.peer("bob").full = true;
    world.send("alice", 1, Encoding::Whole);
    assert!(world.holders("alice", 1).is_empty(), "its disk is full");
    world.end("alice", 1);
    world.run(HOUR);
    let dropped = HoldingState::Dropped { served: vec![] };
    assert_eq!(world.told("alice", "bob", 1), [(Part::Whole, dropped)], "alice may have served it before");
}

#[test]
fn an_unknown_kind_of_entry_is_kept_and_passed_on() {
    let mut world = World::new(&SIX[..3]);
    world.outbox("alice").append(EntryBody::Unknown { kind: "later".to_owned(), body: vec![1, 2] });
    world.send("alice", 1, Encoding::Whole);
    let page = world.mirror_page("bob", "alice", Cursor::default());
    let kept: Vec<ByteBuf> = world.outbox("alice").entries.iter().map(|e| ByteBuf::from(e.clone())).collect();
    assert_eq!(page.runs[0].entries, kept);
    assert_eq!(member("alice").peer_id, id("alice"));
}
