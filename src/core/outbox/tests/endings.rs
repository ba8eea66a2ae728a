//! Several receivers at once, late certificates, expiry and DSNs: how mails come to their ends, with power cuts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{Rules, START, World, address, fingerprint, peer, submission};
use super::{DAY, MINUTE, answers, end_of, ending, only_mail};
use crate::core::Brain as _;
use crate::core::Token;
use crate::core::outbox::{EndedAs, Event, Input, Notify, NrFrom};
use crate::model::msglist::Ending;
use crate::model::notification::{Outcome, Refusal};
use crate::model::{Address, Digest};

#[test]
fn one_sealed_file_is_freed_by_expiry_when_one_of_its_receivers_never_answers() {
    let mut world = World::new(5, answers(&["bob@acme", "carl@acme"], Outcome::Received));
    world.submit(1, &["bob@acme", "carl@acme", "rita@readers"], &[]);
    world.run(6 * DAY);
    let h = only_mail(&world);
    assert_eq!((world.outside.sealed.len(), world.outside.blobs.len()), (1, 1), "one file for all, kept for rita");
    world.run(2 * DAY);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Received));
    assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Expired));
    assert_eq!(ending(&world, &h), Some(Ending::Expired));
    assert_eq!(world.outside.dsns.values().collect::<Vec<_>>(), [&address("rita@readers")]);
    assert!(world.outside.blobs.is_empty());
}

#[test]
fn every_bcc_has_a_file_that_no_other_receiver_is_sealed_into() {
    let mut world = World::new(5, answers(&["eve@acme"], Outcome::Received));
    world.submit(1, &["bob@acme", "carl@acme"], &["eve@acme", "rita@readers"]);
    world.run(2 * MINUTE);
    let mut sealed: Vec<Vec<Address>> =
        world.outside.sealed.iter().map(|job| job.receivers.iter().map(|(who, ..)| who.clone()).collect()).collect();
    sealed.sort();
    let names = |all: &[&str]| all.iter().map(|name| address(name)).collect::<Vec<_>>();
    assert_eq!(sealed, [names(&["bob@acme", "carl@acme"]), names(&["eve@acme"]), names(&["rita@readers"])]);
    assert_eq!(world.outside.blobs.len(), 2, "eve's own file is freed by eve's own nr");
}

#[test]
fn a_bcc_whose_certificate_is_late_holds_up_nobody() {
    let late = [(address("late@far"), START + DAY)].into();
    let mut world = World::new(5, Rules { late, ..Rules::default() });
    world.submit(1, &["bob@acme"], &["late@far"]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.outside.sealed.len(), 1);
}

#[test]
fn a_certificate_is_asked_for_until_the_mail_expires_and_then_its_receiver_alone_gets_a_dsn() {
    let late = [(address("late@far"), START + 60 * DAY)].into();
    let mut world = World::new(5, Rules { late, ..answers(&["bob@acme"], Outcome::Received) });
    world.submit(1, &["bob@acme", "late@far"], &[]);
    world.run(MINUTE * 5);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Received));
    for _ in 0..6 {
        world.crash();
        world.run(DAY);
        assert!(world.outside.spool.contains_key(&submission(1)), "it stays in the spool");
    }
    world.run(2 * DAY);
    assert_eq!(end_of(&world, 1, "late@far"), Some(EndedAs::Expired));
    assert_eq!(world.outside.dsns.values().collect::<Vec<_>>(), [&address("late@far")]);
    assert!(world.outside.spool.is_empty());
}

#[test]
fn a_mailing_to_100_is_one_sealed_file_and_one_ns_each_freed_by_the_last_nr() {
    let names: Vec<String> =
        (0..100).map(|n| format!("r{n}@{}", if n % 2 == 0 { "acme" } else { "readers" })).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(5, answers(&names[1..], Outcome::Received));
    world.rules.away =
        names.iter().filter(|name| name.ends_with("readers")).take(20).map(|name| address(name)).collect();
    world.submit(1, &names, &[]);
    world.run(Duration::from_secs(31));
    assert_eq!((world.outside.sealed.len(), world.outside.sealed[0].receivers.len()), (1, 100));
    let h = only_mail(&world);
    let told: BTreeSet<&Address> = world.outside.taken.iter().map(|(who, _)| who).collect();
    assert_eq!((told.len(), world.outside.taken.len(), world.outside.dht_ns.len()), (80, 80, 20));
    world.rules.away.clear();
    world.run(5 * MINUTE);
    assert_eq!(world.brain.status().submissions[0].receivers.iter().filter(|(_, s)| *s == "received").count(), 99);
    assert!(world.outside.blobs.contains(&h));
    let nr = world.nr(h, submission(1), &address(names[0]), Outcome::Received);
    world.tell(Input::Nr { from: NrFrom::Direct(Token(1 << 50)), nr, signer: fingerprint(&address(names[0])) });
    world.settle();
    assert_eq!(ending(&world, &h), Some(Ending::Received));
    assert!(world.outside.blobs.is_empty() && world.outside.dsns.is_empty());
    assert!(world.outside.dht_ns.is_empty() && world.outside.dht_nr.is_empty());
}

#[test]
fn a_reader_of_an_expired_mail_is_asked_itself_whatever_way_its_ns_went() {
    for notify in [Notify::DirectFirst, Notify::Dht] {
        let away = [address("rita@readers")].into();
        let mut world = World::with_notify(5, Rules { away, ..Rules::default() }, notify);
        world.submit(1, &["rita@readers"], &[]);
        world.run(7 * DAY - MINUTE);
        // Rita has read it, her nr was lost, and her peer can be reached again.
        world.rules.away.clear();
        world.rules.answers.insert(address("rita@readers"), Outcome::Received);
        world.rules.dht_down = true;
        world.outside.dht_ns.clear();
        world.rules.direct_nr = true;
        world.run(3 * MINUTE);
        assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Received), "{notify:?}");
        assert!(world.outside.dsns.is_empty());
    }
}

#[test]
fn an_expired_ns_is_never_put_into_the_dht_and_sent_to_nobody_after_its_last_chance() {
    // The world refuses an expired ns for the DHT wherever it comes from.
    let away = [address("rita@readers")].into();
    let mut world = World::new(5, Rules { away, ..Rules::default() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(7 * DAY + MINUTE);
    assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Expired));
    let sent = world.outside.announced;
    world.rules.away.clear();
    world.tell(Input::PeerIsBack(peer(&address("rita@readers"))));
    world.run(2 * DAY);
    world.crash();
    world.run(2 * DAY);
    assert_eq!((world.outside.announced, world.outside.taken.len()), (sent, 0));
}

#[test]
fn what_was_refused_unread_sends_no_dsn_and_is_shown_for_a_week() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Refused(Refusal::Unread)));
    world.submit(1, &["bob@acme"], &[]);
    world.submit(2, &["carl@acme"], &[]);
    world.run(2 * MINUTE);
    let nr =
        world.nr(*world.brain.state.open.first().unwrap(), submission(2), &address("carl@acme"), Outcome::Received);
    world.outside.dht_nr.insert(Digest::new([1; 32]), nr);
    world.run(2 * MINUTE);
    world.crash();
    world.run(MINUTE);
    let lately = world.brain.observe(world.now).ended_lately;
    assert_eq!(lately.len(), 1, "what was received is not listed");
    assert_eq!((lately[0].submission, &lately[0].receivers), (submission(1), &vec![(address("bob@acme"), "refused")]));
    assert!(world.outside.dsns.is_empty());
    world.run(8 * DAY);
    assert!(world.brain.observe(world.now).ended_lately.is_empty());
}

/// Two mails: one of which nothing ever comes, one to oneself and somebody unknown.
fn expiring(fuse: Option<usize>) -> World {
    let mut rules = answers(&["bob@acme"], Outcome::Received);
    rules.away.insert(address("rita@readers"));
    rules.unknown.insert(address("nobody@acme"));
    let mut world = World::new(5, rules);
    world.submit(1, &["rita@readers", "bob@acme"], &[]);
    world.submit(2, &["nobody@acme", "alice@acme"], &[]);
    world.run(7 * DAY - MINUTE);
    world.fuse = fuse.map(|fuse| world.steps + fuse);
    world.run(DAY);
    world
}

#[test]
fn r2_a_power_cut_at_any_step_of_an_expiry_gives_each_dsn_exactly_once() {
    let before = {
        let world = expiring(Some(usize::MAX / 2));
        world.steps
    };
    for fuse in 1..=before {
        let world = expiring(Some(fuse));
        let dsns: Vec<String> = world.outside.dsns.values().map(ToString::to_string).collect();
        assert_eq!(BTreeSet::from_iter(dsns.clone()).len(), dsns.len(), "cut at step {fuse}: {dsns:?}");
        assert_eq!(dsns.len(), 2, "cut at step {fuse}: {dsns:?}");
        assert!(world.outside.blobs.is_empty() && world.outside.spool.is_empty(), "cut at step {fuse}");
        assert!(world.brain.state.submissions.values().all(|s| s.is_done()), "cut at step {fuse}");
        if world.fuse.is_some_and(|fuse| fuse > world.steps) {
            return;
        }
    }
}

#[test]
fn spool_and_mailbox_keep_the_header_block_until_its_dsn_is_filed() {
    let unknown = [address("nobody@acme")].into();
    let mut world = World::new(5, Rules { unknown, postbox_down: true, ..Rules::default() });
    world.submit(1, &["nobody@acme"], &[]);
    world.run(MINUTE / 2);
    assert!(world.outside.spool.contains_key(&submission(1)) && !world.outside.shown[&submission(1)].done);
    world.crash();
    world.settle();
    assert!(world.outside.shown_only.contains(&submission(1)), "a start keeps it in the mailbox");
    assert!(world.outside.spool.contains_key(&submission(1)));
    world.rules.postbox_down = false;
    world.run(5 * MINUTE);
    assert_eq!(world.outside.dsns.len(), 1);
    assert!(world.outside.spool.is_empty() && world.outside.shown[&submission(1)].done);
}

#[test]
fn a_mail_to_oneself_and_others_is_filed_from_the_spool_before_anybody_elses_certificate_is_there() {
    let late = [(address("late@far"), START + DAY)].into();
    let mut world = World::new(5, Rules { late, ..Rules::default() });
    world.submit(1, &["late@far", "alice@acme"], &[]);
    world.run(Duration::from_secs(1));
    assert!(world.outside.filed.contains(&submission(1)) && world.outside.sealed.is_empty());
    assert_eq!(end_of(&world, 1, "alice@acme"), Some(EndedAs::Filed));
    assert!(!world.outside.spool.is_empty(), "the late one still needs it");
}

/// Simulator, seed 59: the journal was torn between the last end of a mail and its tombstone, and the mail stayed for ever.
#[test]
fn a_tombstone_that_a_crash_tore_from_the_last_end_is_made_up_for_at_the_start() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Received));
    world.submit(1, &["bob@acme"], &[]);
    world.run(MINUTE);
    let h = only_mail(&world);
    assert_eq!(ending(&world, &h), Some(Ending::Received));
    let is_tombstone = |e: &Event| matches!(e, Event::Tombstoned { .. });
    let torn = world.outside.journal.iter().position(is_tombstone).unwrap();
    world.outside.journal.truncate(torn);
    world.outside.blobs.insert(h);
    world.crash();
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Received));
    assert!(world.outside.blobs.is_empty());
}

/// Seed 42640: the clock was set right while the readers had their last chance.
#[test]
fn r4_a_mail_whose_last_chance_a_wrong_clock_began_lives_on_once_the_clock_is_right() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(MINUTE);
    let right = world.now.wall;
    world.now.wall = right + 8 * DAY;
    world.run(Duration::from_secs(1));
    // Nobody is there to tell it better.
    world.tell(Input::ClockDoubtful(false));
    world.run(Duration::from_secs(61));
    world.now.wall = right + 2 * MINUTE;
    world.run(MINUTE);
    world.tell(Input::ClockDoubtful(false));
    world.run(DAY);
    assert_eq!(end_of(&world, 1, "bob@acme"), None);
    world.run(7 * DAY);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Expired), "but no longer than it should");
}
