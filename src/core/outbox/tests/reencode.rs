//! What is kept in another way after a change of the policy or of the group.

use std::sync::Arc;
use std::time::Duration;

use super::MINUTE;
use super::world::{Rules, World, address, peer, roster};
use crate::core::outbox::{Event, Input, Lookup, OutboxStatus, Reply};
use crate::core::{Brain, Token};
use crate::model::group::Roster;
use crate::model::holding::HoldingState;
use crate::model::msglist::EntryBody;
use crate::model::policy::KOfN;
use crate::model::{Encoding, MailId, Part, Policy};
use crate::wire::msglist::decode_entry;

const HOUR: Duration = Duration::from_secs(3600);

const OLD: Encoding = Encoding::Fragments { k: 3, n: 5 };
const NEW: Encoding = Encoding::Fragments { k: 2, n: 4 };

fn with(others: u8, k: u8, n: u8) -> Arc<Roster> {
    let policy = Policy { fragments: KOfN { k, n }, copies: n - k + 1, ..Policy::default() };
    Arc::new(Roster { policy, ..(*roster(others)).clone() })
}

fn lost(others: u8, gone: usize) -> Arc<Roster> {
    let mut roster = (*roster(others)).clone();
    roster.lost = roster.others().take(gone).map(|m| m.peer_id).collect();
    Arc::new(roster)
}

fn status(world: &World) -> OutboxStatus {
    world.brain.observe(world.now)
}

/// The encodings under which the journal's msglist names the mail, in order.
fn listed(world: &World) -> Vec<Encoding> {
    let encoding = |entry: &[u8]| match decode_entry(entry).unwrap().body {
        EntryBody::Mail(mail) => Some(mail.encoding),
        _ => None,
    };
    let of = |event: &Event| match event {
        Event::Sealed { entry, .. } | Event::Reencoded { entry, .. } => encoding(entry),
        _ => None,
    };
    world.outside.journal.iter().filter_map(of).collect()
}

fn sealed(rules: Rules) -> (World, MailId) {
    let mut world = World::new(5, rules);
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let h = world.sealed_of(1);
    assert_eq!(listed(&world), [OLD]);
    (world, h)
}

#[test]
fn a_change_of_policy_lists_a_mail_anew_and_says_for_whom_it_waits() {
    let (mut world, h) = sealed(Rules::default());
    for member in 2..=6 {
        let part = Part::Fragment { k: 3, i: member - 2 };
        world.holds(member, h, part, HoldingState::Held, world.now.wall);
    }
    assert_eq!((status(&world).moving, status(&world).submissions[0].mails[0].safe), (0, 2));
    world.tell(Input::Roster(with(5, 2, 4)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, NEW]);
    let shown = status(&world);
    assert_eq!((shown.moving, shown.moving_waits_for.len(), shown.submissions[0].mails[0].safe), (1, 4, 2));
    assert_eq!(shown.submissions[0].mails[0].encoding, NEW);

    // Those that placement names confirm one after the other; what was held before counts until it is dropped.
    let placed: Vec<u8> =
        (2..=6).filter(|m| shown.moving_waits_for.contains(&address(&format!("m{m}@acme")))).collect();
    for (i, member) in (0..).zip(&placed) {
        assert_eq!(status(&world).moving_waits_for.len(), 4 - usize::from(i));
        world.holds(*member, h, Part::Fragment { k: 2, i }, HoldingState::Held, world.now.wall);
        assert!(status(&world).submissions[0].mails[0].safe >= 2);
    }
    assert_eq!((status(&world).moving, status(&world).moving_waits_for.len()), (1, 0), "the old parts are still there");
    for member in 2..=6 {
        let (part, served) = (Part::Fragment { k: 3, i: member - 2 }, Vec::new());
        world.holds(member, h, part, HoldingState::Dropped { served }, world.now.wall);
        assert!(status(&world).submissions[0].mails[0].safe >= 2);
    }
    assert_eq!((status(&world).moving, status(&world).submissions[0].mails[0].safe), (0, 2));
}

/// Seed 80015963: a mail was listed anew while its ns was on its way into the DHT. Until that was durable it counted as ended: the ns was
/// taken back, and its reader never told again.
#[test]
fn r2_an_ns_on_its_way_while_its_mail_is_listed_anew_is_not_taken_back() {
    let rita = address("rita@readers");
    for is_sent_later in [false, true] {
        let rules = Rules { away: [rita.clone()].into(), dht_down: true, slow_disk: true, ..Rules::default() };
        let (mut world, h) = sealed(rules);
        assert!(world.outside.dht_ns.is_empty());
        world.rules.dht_down = false;
        world.tell(Input::Roster(with(5, 2, 4)));
        if !is_sent_later {
            world.tell(Input::PeerIsBack(peer(&rita)));
        }
        while world.brain.state.mails[&h].facts.encoding == OLD {
            assert!(world.step());
        }
        assert_eq!(listed(&world), [OLD], "it is not durable");
        if is_sent_later {
            world.tell(Input::PeerIsBack(peer(&rita)));
        }
        world.settle();
        assert_eq!(listed(&world), [OLD, NEW]);
        assert!(world.outside.dht_ns.contains(&(rita.clone(), h)), "sent later: {is_sent_later}");
        world.rules.away.clear();
        world.tell(Input::PeerIsBack(peer(&rita)));
        world.run(MINUTE);
        assert!(world.outside.taken.contains(&(rita.clone(), h)), "and its reader hears of it");
    }
}

#[test]
fn a_part_from_before_at_one_that_is_no_member_any_more_keeps_no_mail_on_its_way() {
    let (mut world, h) = sealed(Rules::default());
    world.holds(6, h, Part::Fragment { k: 3, i: 4 }, HoldingState::Held, world.now.wall);
    // It is removed without a word on its part; a restored owner may have missed that word as well.
    world.tell(Input::Roster(with(4, 2, 4)));
    world.run(MINUTE);
    assert_eq!((listed(&world), status(&world).moving), (vec![OLD, NEW], 1));
    for (i, member) in (0..4).zip(2..=5) {
        world.holds(member, h, Part::Fragment { k: 2, i }, HoldingState::Held, world.now.wall);
    }
    assert_eq!((status(&world).moving, status(&world).moving_waits_for.len()), (0, 0));
}

#[test]
fn a_mail_keeps_its_encoding_while_members_are_lost_for_now_and_moves_when_the_group_is_too_small_for_good() {
    let (mut world, _) = sealed(Rules::default());
    world.tell(Input::Roster(lost(5, 2)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD], "lost for now");
    world.tell(Input::Roster(roster(3)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, Encoding::Whole], "removed");
    world.tell(Input::Roster(lost(5, 1)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, Encoding::Whole], "not yet large enough");
    world.tell(Input::Roster(roster(5)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, Encoding::Whole, OLD], "large enough again");
}

#[test]
fn a_mail_moves_before_a_member_has_left_that_the_policy_cannot_spare() {
    let (mut world, _) = sealed(Rules::default());
    let leaving = |others| {
        let lost = (*lost(others, 1)).clone();
        Arc::new(Roster { leaving: lost.lost.clone(), ..lost })
    };
    world.tell(Input::Roster(leaving(6)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD], "there is one to spare");
    world.tell(Input::Roster(leaving(5)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, Encoding::Whole]);
    world.tell(Input::Roster(roster(4)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, Encoding::Whole], "and it has gone");
}

#[test]
fn a_mail_moves_too_when_the_member_that_leaves_falls_silent() {
    let (mut world, _) = sealed(Rules::default());
    let lost = (*lost(5, 1)).clone();
    let silent = Roster { leaving: lost.lost.clone(), silent: lost.lost.clone(), ..lost };
    assert!(!silent.lost.iter().any(|peer| silent.counts(peer)), "what it holds cannot be read");
    world.tell(Input::Roster(Arc::new(silent)));
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, Encoding::Whole]);
}

#[test]
fn a_manifest_that_cannot_be_made_is_tried_again_and_one_for_a_policy_of_before_is_not_listed() {
    let (mut world, h) = sealed(Rules { disk_full: true, ..Rules::default() });
    world.tell(Input::Roster(with(5, 2, 4)));
    world.run(HOUR);
    assert_eq!(listed(&world), [OLD]);
    world.rules.disk_full = false;
    world.run(2 * MINUTE);
    assert_eq!(listed(&world), [OLD, NEW]);
    world.tell(Input::Reencoded { h, encoding: Encoding::Whole, result: Ok(()) });
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, NEW], "nobody wants it whole");
}

#[test]
fn a_power_cut_at_any_step_of_a_re_encoding_ends_in_the_encoding_of_the_policy() {
    let mut last = 0;
    for fuse in 0..60 {
        let (mut world, _) = sealed(Rules::default());
        let begun = world.steps;
        world.fuse = Some(fuse);
        world.tell(Input::Roster(with(5, 2, 4)));
        world.run(MINUTE);
        world.fuse = None;
        // After a crash the world starts with the roster of before.
        world.tell(Input::Roster(with(5, 2, 4)));
        world.run(10 * MINUTE);
        assert_eq!(listed(&world).last(), Some(&NEW), "cut after {fuse} steps");
        assert_eq!(status(&world).submissions[0].mails[0].encoding, NEW);
        last = world.steps - begun;
    }
    assert!(last > 0);
}

#[test]
fn r2_a_mail_that_is_listed_anew_before_its_first_entry_is_durable_is_announced_all_the_same() {
    let changes_while_sealing = Some(with(5, 2, 4));
    let mut world = World::new(5, Rules { slow_disk: true, changes_while_sealing, ..Rules::default() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    assert_eq!(listed(&world), [OLD, NEW]);
    assert_eq!(world.outside.taken.len(), 1, "rita was told");
}

/// A reader was told that there is no such mail, and a member that this peer has nothing of it.
#[test]
fn while_a_mail_is_listed_anew_this_peer_answers_for_it_as_before() {
    let (mut world, h) = sealed(Rules { slow_disk: true, ..Rules::default() });
    let caller = peer(&address("rita@readers"));
    world.tell(Input::Roster(with(5, 2, 4)));
    while world.brain.state.mails[&h].facts.encoding == OLD {
        assert!(world.step());
    }
    let [looks, one, all] = [(); 3].map(|()| Token(world.fresh()));
    world.tell(Input::Lookup { token: looks, h });
    world.tell(Input::Serving { token: one, h, caller });
    world.tell(Input::ServingAll { token: all, mails: vec![h], caller });
    while !world.replies.contains_key(&looks) {
        assert!(world.step());
    }
    assert_eq!(listed(&world), [OLD], "it is not durable");
    let encoding = |found: &Lookup| match found {
        Lookup::Owned(facts) => facts.encoding,
        other => panic!("{other:?}"),
    };
    let Reply::Lookup(found) = &world.replies[&looks] else { panic!() };
    assert_eq!(encoding(found), OLD);
    world.settle();
    assert_eq!(world.replies[&one], Reply::Serve(true));
    let Reply::ServeAll(known) = &world.replies[&all] else { panic!() };
    assert_eq!(known.iter().map(encoding).collect::<Vec<_>>(), [OLD]);
    assert_eq!(listed(&world), [OLD, NEW]);
    let later = Token(world.fresh());
    world.tell(Input::Lookup { token: later, h });
    world.settle();
    let Reply::Lookup(found) = &world.replies[&later] else { panic!() };
    assert_eq!(encoding(found), NEW);
}
