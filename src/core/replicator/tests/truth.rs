//! Epochs, bases and audits as members see them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::world::{KN, LIFE, World, h, id, key, member};
use super::{SIX, all_five, indices, latest_round};
use crate::core::replicator::list::{KnownList, Taken};
use crate::core::replicator::{Event, Input, Lookup, Reply};
use crate::core::{Brain, Token};
use crate::model::holding::{HoldingState, Missed};
use crate::model::msglist::{Cursor, Ending, Entry, EntryBody, Epoch, Head, Seq, SignedTombstone, Tombstone};
use crate::model::{Encoding, Part, PeerId, WallTime};
use crate::wire::Signed;
use crate::wire::msglist::{Page, Run, chain_next, chain_start, encode_entry};

const HOUR: Duration = Duration::from_secs(3600);

/// Tells a member what the owner answers to its question under way.
fn answer(world: &mut World, name: &str, page: Page) {
    let round = latest_round(world, name, "alice");
    world.tell(name, Input::Page { owner: id("alice"), from: id("alice"), round, result: Ok(page) });
    world.settle();
}
fn holder(world: &World) -> (&'static str, Part) {
    let (name, parts) = world.holders("alice", 1).into_iter().next().unwrap();
    (name, parts[0])
}

#[test]
fn r8_a_part_that_its_owners_audit_missed_is_checked_before_it_is_confirmed_anew() {
    for rotten in [false, true] {
        let mut world = World::new(&SIX);
        world.send("alice", 1, KN);
        let (name, part) = holder(&world);
        world.run(HOUR);
        world.outbox("alice").told.insert((id(name), h(1), part), HoldingState::Lost);
        if rotten {
            world.peer(name).rotten.insert((id("alice"), h(1), part));
        }
        world.log.clear();
        let missed = Missed { parts: vec![(h(1), part)], upto: WallTime(7), said: WallTime::default() };
        world.tell(name, Input::Missed { owner: id("alice"), missed });
        world.tell(name, Input::PeerIsBack(id("alice")));
        world.settle();
        world.run(Duration::from_secs(10));
        assert_eq!(world.told("alice", name, 1), [(part, HoldingState::Held)], "rotten: {rotten}");
        assert_eq!((world.count("Scrub"), world.count("Mirror(")), (1, usize::from(rotten)));
        let first = |what: &str| world.log.iter().position(|line| line.contains(what)).unwrap();
        assert!(first("Scrub") < first("Report"), "{:?}", world.log);
        assert!(!world.peer(name).rotten.contains(&(id("alice"), h(1), part)));
    }
}

#[test]
fn r6_a_part_that_rots_is_found_within_a_round_of_the_scrub_and_made_again() {
    for every in [HOUR, 24 * HOUR] {
        let mut world = World::new(&SIX);
        for name in SIX {
            world.peer(name).brain.as_mut().unwrap().scrub_every(every);
        }
        world.send("alice", 1, KN);
        let (name, part) = holder(&world);
        world.run(every * 3);
        world.peer(name).rotten.insert((id("alice"), h(1), part));
        world.log.clear();
        world.run(every + HOUR);
        assert_eq!(world.count("Mirror("), 1, "every {every:?}");
        assert!(world.peer(name).rotten.is_empty());
        assert_eq!(world.told("alice", name, 1), [(part, HoldingState::Held)]);
    }
}

#[test]
fn r7_a_part_that_rotted_and_could_not_be_made_again_goes_with_its_mail() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let (name, part) = holder(&world);
    world.off = SIX.into_iter().filter(|other| *other != name).map(id).collect();
    world.tell(name, Input::BadPart { owner: id("alice"), h: h(1), part });
    world.settle();
    assert!(world.peer(name).disk.contains(&(id("alice"), h(1), part)), "its file is there still");
    world.end("alice", 1);
    world.off.clear();
    world.run(HOUR);
    assert!(world.peer(name).disk.is_empty());
}

#[test]
fn r7_a_part_that_rotted_does_not_stay_on_the_disk_of_who_has_left() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let (name, part) = holder(&world);
    world.leaving.insert(id(name));
    world.off = SIX.into_iter().filter(|other| *other != name && *other != "alice").map(id).collect();
    world.set_roster();
    world.tell(name, Input::BadPart { owner: id("alice"), h: h(1), part });
    world.settle();
    assert_eq!(world.told("alice", name, 1), [(part, HoldingState::Lost)]);
    let me = member(name);
    let mut roster = world.roster(name);
    (roster.members, roster.lost, roster.leaving) = (vec![me], BTreeSet::new(), BTreeSet::new());
    world.tell(name, Input::Roster(roster));
    world.run(HOUR);
    assert!(world.peer(name).disk.is_empty());
}

#[test]
fn r12_what_its_owner_reads_for_an_audit_is_written_nowhere() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let (name, _) = holder(&world);
    let before = world.peer(name).journal.len();
    for n in 0..10 {
        world.tell(name, Input::Serving { token: Token(900 + n), h: h(1), caller: id("alice") });
        world.tell(name, Input::Served { h: h(1), caller: id("alice"), bytes: 65_536 });
        world.settle();
        assert_eq!(world.peer(name).replies.remove(&Token(900 + n)), Some(Reply::Serve(true)));
    }
    assert_eq!(world.peer(name).journal.len(), before);
}

#[test]
fn a_new_epoch_is_followed_although_the_old_one_was_forked_and_held_parts_are_told_again() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let (name, part) = holder(&world);
    // A restored owner: its old epoch has another first entry, and in a new one it lists mail 1 again and mail 2.
    let (first, second) = (world.mail(1, 1 << 20, KN), world.mail(2, 1 << 20, KN));
    let other = world.mail(7, 1 << 20, KN);
    let outbox = world.outbox("alice");
    outbox.entries.clear();
    outbox.add(other);
    let forked = outbox.page(Cursor::default());
    (outbox.epoch, outbox.entries) = (Epoch(2000), vec![]);
    outbox.told.clear();
    outbox.add(first);
    outbox.add(second);
    let newer = outbox.page(Cursor::default());
    let both = Page { runs: forked.runs.into_iter().chain(newer.runs).collect(), ..Page::default() };
    for member in &SIX[1..] {
        answer(&mut world, member, both.clone());
    }
    world.run(HOUR);
    assert_eq!((indices(&world, 1), indices(&world, 2)), (all_five(), all_five()));
    assert_eq!(world.told("alice", name, 1), [(part, HoldingState::Held)], "the owner may have forgotten");
    assert!(world.holders("alice", 7).is_empty(), "nothing of a forked run is used");
}

/// An owner's list of `count` unknown entries, of which those up to `base` are dropped.
fn run_of(epoch: Epoch, entries: &[Vec<u8>], after: usize, to: usize, base: usize) -> Run {
    let (alice, owner) = (key("alice"), id("alice"));
    let chain = |n: usize| entries[..n].iter().fold(chain_start(&owner, epoch), |chain, e| chain_next(&chain, e));
    let seq = |n: usize| Seq(u64::try_from(n).unwrap());
    let at = Cursor { epoch, seq: seq(to) };
    let head = alice.sign(Head { owner, at, chain: chain(to), base_seq: seq(base), base_chain: chain(base) });
    let entries = entries[after..to].iter().map(|e| ByteBuf::from(e.clone())).collect();
    Run { entries, after: seq(after), head: ByteBuf::from(head.as_bytes()), base: None }
}
fn take(list: &mut KnownList, owner: &PeerId, run: &Run) -> usize {
    match list.check(owner, run, true).unwrap() {
        Taken::Known => 0,
        Taken::New(entries, run) => {
            list.apply(&run);
            entries.len()
        }
    }
}

#[test]
fn a_member_behind_the_base_is_given_a_snapshot_that_proves_itself_also_by_another_member() {
    let (epoch, owner) = (Epoch(1000), id("alice"));
    let entry = |n: u64| {
        let body = EntryBody::Unknown { kind: "test".to_owned(), body: vec![7; 2000] };
        encode_entry(&Entry { at: Cursor { epoch, seq: Seq(n) }, body })
    };
    let entries: Vec<Vec<u8>> = (1..=1200).map(entry).collect();
    let mut member = KnownList::default();
    for (after, to, base) in [(0, 500, 0), (500, 900, 0), (900, 1200, 100)] {
        assert_eq!(take(&mut member, &owner, &run_of(epoch, &entries, after, to, base)), to - after);
    }
    // One that read up to 50 and was away since, and one that knows nothing: both get on, page by page.
    let behind = {
        let mut list = KnownList::default();
        take(&mut list, &owner, &run_of(epoch, &entries, 0, 50, 0));
        list
    };
    for mut other in [behind, KnownList::default()] {
        let mut pages = 0;
        loop {
            let page = member.page(other.cursor());
            page.runs.iter().for_each(|run| assert!(take(&mut other, &owner, run) > 0));
            pages += 1;
            if !page.more {
                break;
            }
        }
        assert_eq!(other.cursor(), Cursor { epoch, seq: Seq(1200) });
        assert!(pages > 2, "{pages}");
    }
    // A run from the middle without the proof of a base is refused.
    let mut cut = run_of(epoch, &entries, 200, 300, 100);
    assert!(KnownList::default().check(&owner, &cut, true).is_err());
    cut.base = Some(run_of(epoch, &entries, 1199, 1200, 100).head);
    assert!(KnownList::default().check(&owner, &cut, true).is_err(), "that base is another");
}

#[test]
fn r3_a_snapshot_behind_a_base_deletes_nothing() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let mail = world.mail(2, 1 << 20, KN);
    let outbox = world.outbox("alice");
    outbox.mails.insert(h(2));
    // The owner says that the first 40 entries are over, which nobody here has read, and mail 1 was among them.
    let entry = |n: u64, body| encode_entry(&Entry { at: Cursor { epoch: Epoch(1000), seq: Seq(n) }, body });
    let unknown = || EntryBody::Unknown { kind: "test".to_owned(), body: vec![] };
    let mut entries: Vec<Vec<u8>> = vec![outbox.entries[0].clone()];
    entries.extend((2..=40).map(|n| entry(n, unknown())));
    entries.push(entry(41, EntryBody::Mail(mail)));
    let page = Page { runs: vec![run_of(Epoch(1000), &entries, 40, 41, 40)], ..Page::default() };
    for name in &SIX[1..] {
        answer(&mut world, name, page.clone());
    }
    world.run(Duration::from_secs(60));
    assert_eq!((indices(&world, 1), indices(&world, 2)), (all_five(), all_five()));
    let kept: BTreeSet<&str> = world.holders("alice", 1).into_keys().collect();
    assert_eq!(kept.len(), 5, "until it expires");
    world.run(LIFE + 26 * HOUR);
    assert!(world.holders("alice", 1).is_empty());
}

#[test]
fn a_tombstone_in_another_owners_list_hides_no_mail_that_is_held() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let expiry = world.now.wall + LIFE;
    // Frank never had this mail; its word is well signed.
    let tombstone = world.outboxes[&id("frank")].tombstone(h(1), expiry).to_entry();
    world.outbox("frank").append(EntryBody::Tombstone(tombstone));
    world.settle();
    for name in &SIX[1..5] {
        assert!(matches!(world.lookup(name, 1), Lookup::Known(known) if known.owner == id("alice")), "{name}");
    }
    // Once the owner ended it, its own word is the answer, and not the one of who never had it.
    world.end("alice", 1);
    for name in &SIX[1..5] {
        let Lookup::Gone { tombstone } = world.lookup(name, 1) else { panic!("{name}") };
        assert_eq!(Signed::<Tombstone>::verify(&tombstone).unwrap().owner, id("alice"), "{name}");
    }
    // The same after a compaction: who had the mail is remembered.
    let snapshot = world.peer("bob").brain.as_ref().unwrap().snapshot();
    world.kill("bob");
    world.peer("bob").journal = snapshot;
    world.start("bob");
    let Lookup::Gone { tombstone } = world.lookup("bob", 1) else { panic!("bob") };
    assert_eq!(Signed::<Tombstone>::verify(&tombstone).unwrap().owner, id("alice"));
}

#[test]
fn r7_a_tombstone_from_elsewhere_than_the_list_goes_along_with_the_list() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let tombstone = world.outboxes[&id("alice")].tombstone(h(1), world.now.wall + LIFE);
    let expiry = tombstone.expiry;
    world.kill("alice");
    world.kill("bob");
    world.kill("carol");
    // Bob was told by a 410.
    let bytes = ByteBuf::from(tombstone.to_entry().0);
    let told = Event::Tombstoned { owner: id("alice"), h: h(1), expiry, tombstone: bytes.clone(), named: true };
    world.peer("bob").journal.push(told);
    world.start("bob");
    assert_eq!(world.mirror_page("bob", "alice", Cursor::default()).tombstones, std::slice::from_ref(&bytes));
    assert_eq!(world.mirror_page("dave", "alice", Cursor::default()).tombstones, Vec::<ByteBuf>::new());
    // Who catches up by bob learns it.
    world.start("carol");
    world.run(HOUR / 60);
    assert!(matches!(world.lookup("carol", 1), Lookup::Gone { .. }), "{:?}", world.lookup("carol", 1));
    // The same after a compaction.
    let snapshot = world.peer("bob").brain.as_ref().unwrap().snapshot();
    world.kill("bob");
    world.peer("bob").journal = snapshot;
    world.start("bob");
    assert_eq!(world.mirror_page("bob", "alice", Cursor::default()).tombstones, std::slice::from_ref(&bytes));
    // Once the list says it too, it does not go along any more.
    world.start("alice");
    world.outbox("alice").append(EntryBody::Tombstone(SignedTombstone(bytes.to_vec())));
    world.run(HOUR / 60);
    assert_eq!(world.mirror_page("bob", "alice", Cursor::default()).tombstones, Vec::<ByteBuf>::new());
}

#[test]
fn r9_tombstones_beside_a_list_are_taken_of_named_mails_only_and_never_from_their_owner() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, KN);
    let expiry = world.now.wall + LIFE;
    let bytes = |world: &World, owner: &str, x: u8| {
        ByteBuf::from(world.outboxes[&id(owner)].tombstone(h(x), expiry).to_entry().0)
    };
    // The owner itself: not in its list, not taken. A mail that no list named: not taken either, nor a foreign word.
    let beside = vec![bytes(&world, "alice", 1)];
    answer(&mut world, "bob", Page { tombstones: beside, ..Page::default() });
    assert!(matches!(world.lookup("bob", 1), Lookup::Known(_)));
    world.kill("alice");
    world.kill("carol");
    world.kill("bob");
    let beside = vec![bytes(&world, "alice", 2), bytes(&world, "frank", 1), ByteBuf::from(vec![0; 10])];
    for tombstone in &beside {
        let told = Event::Tombstoned { owner: id("alice"), h: h(9), expiry, tombstone: tombstone.clone(), named: true };
        world.peer("bob").journal.push(told);
    }
    world.start("bob");
    assert!(!world.mirror_page("bob", "alice", Cursor::default()).tombstones.is_empty());
    world.start("carol");
    world.run(HOUR / 60);
    assert!(matches!(world.lookup("carol", 1), Lookup::Known(_)), "{:?}", world.lookup("carol", 1));
    assert!(matches!(world.lookup("carol", 2), Lookup::Unknown), "{:?}", world.lookup("carol", 2));
}

#[test]
fn r8_a_member_that_differs_from_its_owner_names_what_it_has_not_also_where_it_is_not_placed() {
    let mut world = World::new(&SIX);
    world.send("alice", 1, Encoding::Whole);
    let holders = world.holders("alice", 1);
    let other = SIX[1..].iter().find(|name| !holders.contains_key(*name)).unwrap();
    assert_eq!(world.told("alice", other, 1), []);
    // It was a holder once, and came back with an older disk: its owner counts it.
    world.outbox("alice").told.insert((id(other), h(1), Part::Whole), HoldingState::Held);
    world.tell(other, Input::PeerIsBack(id("alice")));
    world.run(HOUR / 60);
    assert_eq!(world.told("alice", other, 1), [(Part::Whole, HoldingState::Lost)]);
}

/// Seed 100079: a member without a place read the mail of its owner, who could not know that it held no part of it.
#[test]
fn r12_a_member_without_a_place_says_that_nothing_of_a_cancelled_mail_is_here() {
    for (ending, who_speaks) in [(Ending::Received, 3), (Ending::Cancelled, 5), (Ending::Refused, 5)] {
        let mut world = World::new(&SIX);
        world.send("alice", 1, Encoding::Whole);
        assert_eq!(world.holders("alice", 1).len(), 3);
        world.end_as("alice", 1, ending);
        world.run(HOUR);
        let spoke = |name: &&&str| matches!(world.told("alice", name, 1)[..], [(_, HoldingState::Dropped { .. })]);
        assert_eq!(SIX[1..].iter().filter(spoke).count(), who_speaks, "{ending}");
    }
}

/// Seed 80009897: an owner restored from an old disk had listed something else where this member had read further. It asked for what
/// came after that, heard that there was nothing, and a tombstone that it listed there was never read.
#[test]
fn r7_an_owner_that_asks_for_what_comes_after_its_list_is_shown_the_last_entry_of_it() {
    let mut world = World::new(&SIX);
    for x in 1..=3 {
        world.send("alice", x, KN);
    }
    world.run(HOUR);
    let all = world.mirror_page("bob", "alice", Cursor::default());
    let verified = all.runs[0].verify(&id("alice"), None).unwrap();
    let (tip, last) = (verified.head.at, all.runs[0].entries.last().unwrap());
    for ahead in [0, 1, 5] {
        let since = Cursor { seq: Seq(tip.seq.0 + ahead), ..tip };
        let page = world.mirror_page_for(id("alice"), "bob", "alice", since);
        let run = &page.runs[0];
        assert_eq!((&run.entries, run.after.next()), (&vec![last.clone()], tip.seq), "{ahead} ahead");
        let known = all.runs[0].entries.iter().take(2).fold(verified.before, |chain, entry| chain_next(&chain, entry));
        assert!(run.verify(&id("alice"), Some(&known)).is_ok());
        // To others it says nothing that they know.
        assert_eq!(world.mirror_page("bob", "alice", since), Page::default());
    }
    let behind = Cursor { seq: Seq(1), ..tip };
    let page = world.mirror_page_for(id("alice"), "bob", "alice", behind);
    assert_eq!(page, world.mirror_page("bob", "alice", behind), "who is behind is shown what comes after that");
}
