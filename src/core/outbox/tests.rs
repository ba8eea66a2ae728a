mod ahead;
mod announce;
mod audit;
mod cancel;
mod endings;
mod growth;
mod late;
mod leisure;
mod random;
mod reencode;
mod restored;
mod truth;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::holding::{HoldingState, Missed};
use crate::model::msglist::{Ending, EntryBody, Seq};
use crate::model::notification::{Outcome, Refusal};
use crate::model::{Digest, Part};
use crate::wire::msglist::Page;
use world::{Rules, START, World, address, fingerprint, key, peer, roster, submission};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn answers(who: &[&str], outcome: Outcome) -> Rules {
    Rules { answers: who.iter().map(|a| (address(a), outcome)).collect(), ..Rules::default() }
}
fn only_mail(world: &World) -> MailId {
    assert_eq!(world.brain.state.mails.len(), 1);
    *world.brain.state.mails.first_key_value().unwrap().0
}
fn ending(world: &World, h: &MailId) -> Option<Ending> {
    world.brain.state.mails[h].tombstone.map(|(_, ending)| ending)
}
fn end_of(world: &World, n: u8, who: &str) -> Option<EndedAs> {
    world.brain.state.receiver(&submission(n), &address(who)).unwrap().end.as_ref().map(|end| end.why)
}
fn page(world: &mut World, since: Cursor) -> Page {
    let token = Token(5000 + u64::try_from(world.replies.len()).unwrap());
    world.tell(Input::ReadMsglist { token, since, wait: Duration::ZERO });
    world.settle();
    match world.replies[&token].clone() {
        Reply::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mail_is_sealed_once_announced_to_each_and_freed_by_the_last_nr() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Received));
    world.submit(1, &["bob@acme", "rita@readers"], &[]);
    world.run(Duration::from_secs(90));
    let h = only_mail(&world);
    assert_eq!(world.outside.sealed.len(), 1);
    assert_eq!(world.outside.sealed[0].receivers.len(), 2);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Received));
    assert_eq!(ending(&world, &h), None);
    assert!(world.outside.spool.is_empty(), "the spool file goes once all are sealed for");
    assert!(world.outside.blobs.contains(&h), "one receiver is still awaited");
    let nr = world.nr(h, submission(1), &address("rita@readers"), Outcome::Received);
    world.tell(Input::Nr { from: NrFrom::Direct(Token(70)), nr, signer: fingerprint(&address("rita@readers")) });
    world.settle();
    assert_eq!(world.replies[&Token(70)], Reply::NrTaken);
    assert_eq!(ending(&world, &h), Some(Ending::Received));
    assert!(world.outside.blobs.is_empty());
    assert!(world.outside.dsns.is_empty());
    assert!(world.outside.dht_nr.is_empty(), "the reader sees its nr taken");
    assert!(world.outside.shown[&submission(1)].done);
}

#[test]
fn a_bcc_receiver_gets_a_ciphertext_of_its_own() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme", "carl@acme"], &["eve@acme"]);
    world.run(Duration::from_secs(1));
    let receivers: BTreeSet<usize> = world.outside.sealed.iter().map(|job| job.receivers.len()).collect();
    assert_eq!(receivers, BTreeSet::from([1, 2]));
    assert_eq!(world.brain.state.mails.len(), 2);
}

#[test]
fn a_late_certificate_holds_up_the_others_for_30_s_and_no_longer() {
    let late = [(address("late@far"), START + 10 * MINUTE)].into();
    let mut world = World::new(5, Rules { late, ..answers(&["bob@acme"], Outcome::Received) });
    world.submit(1, &["bob@acme", "late@far"], &[]);
    world.run(Duration::from_secs(29));
    assert!(world.outside.sealed.is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(world.outside.sealed.len(), 1);
    assert!(!world.outside.spool.is_empty(), "the late one still needs it");
    world.run(16 * MINUTE);
    assert_eq!(world.outside.sealed.len(), 2);
    assert_eq!(world.outside.sealed[1].receivers[0].0, address("late@far"));
    assert!(world.outside.spool.is_empty());
}

#[test]
fn an_unknown_address_gives_one_dsn_and_a_user_of_this_peer_is_filed_straight_from_the_spool() {
    let unknown = [address("nobody@acme")].into();
    let mut world = World::new(5, Rules { unknown, ..Rules::default() });
    world.submit(1, &["nobody@acme", "alice@acme"], &[]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.outside.dsns.values().collect::<Vec<_>>(), [&address("nobody@acme")]);
    assert!(world.outside.filed.contains(&submission(1)));
    assert!(world.outside.spool.is_empty() && world.outside.sealed.is_empty());
    world.crash();
    world.run(MINUTE);
    assert_eq!(world.outside.dsns.len(), 1);
}

#[test]
fn a_reader_who_is_away_is_told_by_the_dht_and_directly_when_it_is_back() {
    let away = [address("rita@readers")].into();
    let mut world = World::new(5, Rules { away, ..answers(&["rita@readers"], Outcome::Received) });
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    assert_eq!(world.outside.dht_ns.len(), 1);
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Announced"));
    world.rules.away.clear();
    world.tell(Input::PeerIsBack(peer(&address("rita@readers"))));
    world.run(2 * MINUTE);
    assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Received));
    assert!(world.outside.dht_ns.is_empty(), "the ns is deleted");
}

#[test]
fn when_neither_reader_nor_dht_can_be_had_it_is_tried_again_with_bounded_pauses() {
    let away = [address("m2@acme"), address("rita@readers")].into();
    let mut world = World::new(5, Rules { away, dht_down: true, ..Rules::default() });
    world.submit(1, &["m2@acme"], &[]);
    world.submit(2, &["rita@readers"], &[]);
    world.run(20 * MINUTE);
    world.rules.away.clear();
    world.run(Duration::from_secs(11));
    assert!(world.outside.taken.iter().any(|(who, _)| *who == address("m2@acme")));
    world.run(5 * MINUTE);
    assert!(world.outside.taken.iter().any(|(who, _)| *who == address("rita@readers")));
}

#[test]
fn notify_dht_does_not_go_direct_and_polls_every_5_s() {
    let mut world = World::with_notify(5, Rules::default(), Notify::Dht);
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    assert!(world.outside.taken.is_empty() && world.outside.dht_ns.len() == 1);
    let nr = world.nr(only_mail(&world), submission(1), &address("bob@acme"), Outcome::Received);
    world.outside.dht_nr.insert(Digest::new([1; 32]), nr);
    world.run(Duration::from_secs(5));
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Received));
    assert!(world.outside.dht_nr.is_empty() && world.outside.dht_ns.is_empty());
    world.run(MINUTE);
    assert!(world.brain.poll_timeout().is_none_or(|at| at.since(world.now.mono) > Duration::from_secs(5)));
}

#[test]
fn notify_dht_tells_a_reader_itself_when_it_has_said_nothing_for_a_day() {
    let mut world = World::with_notify(5, Rules::default(), Notify::Dht);
    world.submit(1, &["bob@acme"], &[]);
    world.run(DAY - 60 * MINUTE);
    assert!(world.outside.taken.is_empty() && world.outside.dht_ns.len() == 1);
    world.run(120 * MINUTE);
    assert_eq!(world.outside.taken.iter().filter(|(who, _)| *who == address("bob@acme")).count(), 1);
    world.run(DAY - 60 * MINUTE);
    assert_eq!(world.outside.taken.len(), 2, "again a day later");
}

#[test]
fn r4_a_forged_or_foreign_nr_frees_nothing() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    let (h, bob, eve) = (only_mail(&world), address("bob@acme"), address("eve@acme"));
    let good = world.nr(h, submission(1), &bob, Outcome::Received);
    let forged = [
        (good.clone(), fingerprint(&eve)),
        (world::Nr { reader: eve.clone(), ..good.clone() }, fingerprint(&eve)),
        (world::Nr { submission: submission(9), ..good.clone() }, fingerprint(&bob)),
        (world::Nr { to: eve, ..good.clone() }, fingerprint(&bob)),
        (world::Nr { h: MailId::new([99; 20]), ..good.clone() }, fingerprint(&bob)),
    ];
    for (n, (nr, signer)) in (200..).zip(forged) {
        world.tell(Input::Nr { from: NrFrom::Direct(Token(n)), nr, signer });
        world.settle();
        assert!(matches!(world.replies[&Token(n)], Reply::Refused(OutboxRefusal::BadNr { .. })), "{n}");
    }
    assert_eq!(ending(&world, &h), None);
    for n in [300, 301] {
        world.tell(Input::Nr { from: NrFrom::Direct(Token(n)), nr: good.clone(), signer: fingerprint(&bob) });
        world.settle();
        assert_eq!(world.replies[&Token(n)], Reply::NrTaken);
    }
    let tombstones = world.outside.journal.iter().filter(|e| matches!(e, Event::Tombstoned { .. })).count();
    assert_eq!(tombstones, 1, "said again, it is acknowledged again and changes nothing");
}

#[test]
fn a_refusal_ends_the_mail_and_only_a_failure_sends_a_dsn() {
    for (refusal, dsns) in [(Refusal::Unread, 0), (Refusal::Sender, 0), (Refusal::Mismatch, 1), (Refusal::TooLarge, 1)]
    {
        let mut world = World::new(5, answers(&["bob@acme"], Outcome::Refused(refusal)));
        world.submit(1, &["bob@acme"], &[]);
        world.run(2 * MINUTE);
        assert_eq!(ending(&world, &only_mail(&world)), Some(Ending::Refused));
        assert_eq!(world.outside.dsns.len(), dsns, "{refusal:?}");
    }
}

#[test]
fn what_is_not_taken_in_its_life_expires_with_a_dsn_for_each_receiver() {
    let unknown_yet = [(address("late@far"), START + 60 * DAY)].into();
    let away = [address("rita@readers")].into();
    let mut world = World::new(5, Rules { late: unknown_yet, away, ..Rules::default() });
    world.submit(1, &["rita@readers", "late@far"], &[]);
    world.run(6 * DAY);
    assert!(world.outside.dsns.is_empty());
    world.run(2 * DAY);
    assert_eq!(world.outside.dsns.len(), 2);
    assert_eq!(ending(&world, &only_mail(&world)), Some(Ending::Expired));
    assert!(world.outside.spool.is_empty() && world.outside.blobs.is_empty() && world.outside.dht_ns.is_empty());
    assert!(world.brain.poll_timeout().is_none(), "nothing is left to wait for: {:?}", world.brain.timers);
}

#[test]
fn a_reader_that_has_the_mail_when_it_expires_is_heard_first() {
    let away = [address("rita@readers")].into();
    let mut world = World::new(5, Rules { away, dht_down: true, ..Rules::default() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(7 * DAY - MINUTE);
    let nr = world.nr(only_mail(&world), submission(1), &address("rita@readers"), Outcome::Received);
    world.run(Duration::from_secs(59));
    world.outside.dht_nr.insert(Digest::new([1; 32]), nr);
    world.run(MINUTE);
    assert_eq!(ending(&world, &only_mail(&world)), Some(Ending::Received));
    assert!(world.outside.dsns.is_empty());
}

#[test]
fn nothing_expires_while_the_clock_is_doubtful() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.tell(Input::ClockDoubtful(true));
    world.run(20 * DAY);
    assert_eq!(end_of(&world, 1, "bob@acme"), None);
    world.tell(Input::ClockDoubtful(false));
    world.run(5 * MINUTE);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Expired));
}

#[test]
fn a_clock_that_is_set_while_the_peer_runs_ends_nothing_before_it_was_compared_anew() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(MINUTE);
    world.now.wall = world.now.wall + 20 * DAY;
    world.run(DAY);
    assert_eq!(end_of(&world, 1, "bob@acme"), None);
    world.tell(Input::ClockDoubtful(false));
    world.run(5 * MINUTE);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Expired));
}

#[test]
fn lost_members_do_not_count_when_the_encoding_is_chosen() {
    let mut world = World::new(5, Rules::default());
    let mut smaller = (*roster(5)).clone();
    smaller.lost = smaller.others().take(2).map(|m| m.peer_id).collect();
    world.tell(Input::Roster(Arc::new(smaller)));
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    assert_eq!(world.outside.sealed[0].others, 3);
}

#[test]
fn a_clock_that_is_ahead_at_a_start_ends_nothing_before_it_was_compared() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(MINUTE);
    world.clock_unsure = true;
    world.now.wall = world.now.wall + 20 * DAY;
    world.crash();
    world.run(DAY);
    assert_eq!(end_of(&world, 1, "bob@acme"), None);
    world.tell(Input::ClockDoubtful(false));
    world.run(5 * MINUTE);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Expired));
}

#[test]
fn an_unreadable_spool_file_is_told_and_not_tried_for_ever() {
    let mut world = World::new(5, Rules { spool_broken: true, ..Rules::default() });
    world.submit(1, &["bob@acme"], &[]);
    world.run(MINUTE);
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Lost));
    assert_eq!(world.outside.dsns.len(), 1);
    world.crash();
    world.run(MINUTE);
    assert_eq!(world.outside.spool.len(), 1, "what is left of the file stays for its user");
}

#[test]
fn what_the_postbox_does_not_file_is_asked_for_again() {
    let unknown = [address("nobody@acme")].into();
    let mut world = World::new(5, Rules { unknown, postbox_down: true, ..Rules::default() });
    world.submit(1, &["nobody@acme", "alice@acme"], &[]);
    world.run(MINUTE / 2);
    assert!(world.outside.filed.is_empty() && world.outside.dsns.is_empty());
    world.rules.postbox_down = false;
    world.run(2 * MINUTE);
    assert!(world.outside.filed.contains(&submission(1)) && world.outside.dsns.len() == 1);
    world.run(DAY);
    assert!(world.brain.poll_timeout().is_none(), "nothing is left to wait for: {:?}", world.brain.timers);
}

#[test]
fn a_spool_file_is_dropped_once_and_nothing_is_remembered_of_it() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(3 * DAY);
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Submission(submission(1)) });
    world.run(MINUTE);
    assert_eq!(world.outside.spool_drops, 1);
    let brain = &world.brain;
    assert!(brain.spool_there.is_empty() && brain.spool_free.is_empty() && brain.shown_taken.is_empty());
}

#[test]
fn a_cancel_tombstones_and_tells_who_was_told() {
    let late = [(address("late@far"), START + DAY)].into();
    let mut world = World::new(5, Rules { late, ..answers(&["bob@acme"], Outcome::Received) });
    world.submit(1, &["bob@acme", "carl@acme", "late@far"], &[]);
    world.run(2 * MINUTE);
    let h = only_mail(&world);
    assert!(world.serves(key(2).peer_id(), h), "a member pulls its part, and has not said that it holds it");
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(h) });
    world.settle();
    let expected = vec![
        (address("bob@acme"), CancelAnswer::TooLate),
        (address("carl@acme"), CancelAnswer::Uncertain),
        (address("late@far"), CancelAnswer::Cancelled),
    ];
    assert_eq!(world.replies[&Token(50)], Reply::Cancel(submission(1), expected));
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
    assert_eq!(world.outside.gone_told, [address("carl@acme")]);
    assert!(world.outside.spool.is_empty() && world.outside.blobs.is_empty() && world.outside.dsns.is_empty());
    world.tell(Input::Lookup { token: Token(51), h });
    world.settle();
    assert!(matches!(&world.replies[&Token(51)], Reply::Lookup(Lookup::Gone(bytes)) if !bytes.is_empty()));
}

/// A world with every kind of receiver, run to its end, with a power cut at `fuse`.
fn eventful(fuse: Option<usize>) -> World {
    let mut rules = answers(&["bob@acme", "carl@acme", "rita@readers", "eve@acme", "late@far"], Outcome::Received);
    rules.answers.insert(address("dan@acme"), Outcome::Refused(Refusal::Mismatch));
    rules.late.insert(address("late@far"), START + 3 * MINUTE);
    rules.unknown.insert(address("nobody@acme"));
    rules.away.insert(address("rita@readers"));
    let mut world = World::new(5, rules);
    world.fuse = fuse;
    world.submit(1, &["bob@acme", "rita@readers", "alice@acme"], &["eve@acme"]);
    world.submit(2, &["dan@acme", "carl@acme", "nobody@acme", "late@far"], &[]);
    world.run(10 * MINUTE);
    world.rules.away.clear();
    world.tell(Input::PeerIsBack(peer(&address("rita@readers"))));
    world.run(30 * MINUTE);
    world
}

#[test]
fn r1_r2_r5_a_power_cut_at_any_step_loses_nothing_and_doubles_nothing() {
    let steps = eventful(None).steps;
    assert!(steps > 100, "{steps}");
    for fuse in 1..=steps {
        let world = eventful(Some(fuse));
        for n in [1, 2] {
            let submission = &world.brain.state.submissions[&submission(n)];
            assert!(submission.is_done(), "cut at step {fuse}: {submission:?}");
        }
        for reader in ["bob@acme", "carl@acme", "rita@readers", "eve@acme", "late@far", "dan@acme"] {
            let told: BTreeSet<_> =
                world.outside.taken.iter().filter(|(who, _)| *who == address(reader)).map(|(_, h)| *h).collect();
            assert_eq!(told.len(), 1, "cut at step {fuse}: {reader} was told of {told:?}");
        }
        let dsns: Vec<_> = world.outside.dsns.values().map(ToString::to_string).collect();
        assert_eq!(BTreeSet::from_iter(dsns), BTreeSet::from(["dan@acme".to_owned(), "nobody@acme".to_owned()]));
        assert!(world.outside.filed.contains(&submission(1)), "cut at step {fuse}");
        assert!(world.outside.spool.is_empty(), "cut at step {fuse}: {:?}", world.outside.spool.keys());
        assert!(world.outside.blobs.is_empty(), "cut at step {fuse}: {:?}", world.outside.blobs);
        assert!(world.outside.dht_ns.is_empty(), "cut at step {fuse}: {:?}", world.outside.dht_ns);
        assert_eq!(world.brain.state.open.len(), 0, "cut at step {fuse}");
    }
}

#[test]
fn replaying_the_journal_or_its_compacted_form_gives_the_same_state() {
    let world = eventful(None);
    let mut replayed = Outbox::new(Arc::new(key(1)), roster(5), Notify::DirectFirst);
    world.outside.journal.iter().cloned().for_each(|e| replayed.replay(e));
    assert_eq!(replayed.state, world.brain.state);
    let mut compacted = Outbox::new(Arc::new(key(1)), roster(5), Notify::DirectFirst);
    world.brain.snapshot().into_iter().for_each(|e| compacted.replay(e));
    assert_eq!(compacted.state, world.brain.state);
    assert_eq!(compacted.snapshot(), world.brain.snapshot());
}

#[test]
fn a_submission_that_is_told_twice_is_one() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    let spooled = world.outside.spool[&submission(1)].clone();
    world.tell(Input::Submitted { token: Some(Token(60)), spooled });
    world.run(Duration::from_secs(1));
    assert_eq!(world.replies[&Token(60)], Reply::Accepted);
    assert_eq!(world.outside.sealed.len(), 1);
}

#[test]
fn r8_safe_counts_signed_words_of_members_and_a_later_word_replaces_an_earlier_one() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    let h = only_mail(&world);
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Unsafe"));
    let part = |i| Part::Fragment { k: 3, i };
    for i in 0..4u8 {
        assert_eq!(world.holds(i + 2, h, part(i), HoldingState::Held, START), Reply::HoldingsTaken);
    }
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Safe1"));
    let stranger = world.holds(9, h, part(4), HoldingState::Held, START);
    assert!(matches!(stranger, Reply::Refused(OutboxRefusal::NotMember { .. })));
    world.holds(2, h, part(0), HoldingState::Lost, START.before(MINUTE));
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Safe1"), "an older word changes nothing");
    world.holds(2, h, part(0), HoldingState::Lost, START + MINUTE);
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Safe0"));
    world.tell(Input::AuditMissed { member: key(3).peer_id(), h });
    world.run(Duration::from_secs(1));
    assert!(world.outside.shown[&submission(1)].keywords.contains("$Unsafe"));
    world.crash();
    world.run(Duration::from_secs(1));
    assert_eq!(world.brain.status().submissions[0].mails[0].safe, -1);
    let mut smaller = (*roster(5)).clone();
    smaller.lost.insert(key(4).peer_id());
    world.tell(Input::Roster(Arc::new(smaller)));
    world.settle();
    assert_eq!(world.brain.status().submissions[0].mails[0].safe, -2, "a lost member does not count");
}

#[test]
fn a_250_waits_for_safe_as_far_as_it_is_reached_and_at_most_60_s() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.tell(Input::WaitSafe { token: Token(40), submission: submission(1), f: 0 });
    world.tell(Input::WaitSafe { token: Token(41), submission: submission(1), f: 2 });
    world.run(Duration::from_secs(1));
    let h = only_mail(&world);
    for i in 0..3u8 {
        world.holds(i + 2, h, Part::Fragment { k: 3, i }, HoldingState::Held, START);
    }
    assert_eq!(world.replies[&Token(40)], Reply::Safe { safe: Some(0), reached: true });
    assert!(!world.replies.contains_key(&Token(41)));
    world.run(MINUTE);
    assert_eq!(world.replies[&Token(41)], Reply::Safe { safe: Some(0), reached: false });
}

#[test]
fn members_that_come_back_report_only_buckets_that_differ() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    let h = only_mail(&world);
    world.holds(2, h, Part::Whole, HoldingState::Held, START);
    let mut ask = |token, held: Vec<(MailId, Part)>| {
        let digests = crate::model::holding::bucket_digests(held);
        world.tell(Input::HoldingBuckets { token: Token(token), member: key(2).peer_id(), digests });
        world.settle();
        world.replies[&Token(token)].clone()
    };
    let missed = Missed { said: START, ..Missed::default() };
    assert_eq!(ask(1000, vec![(h, Part::Whole)]), Reply::Differ { differ: vec![], missed: missed.clone() });
    assert_eq!(ask(1001, vec![]), Reply::Differ { differ: vec![h.as_bytes()[0]], missed });
}

#[test]
fn a_long_poll_is_held_until_an_entry_is_durable() {
    let mut world = World::new(5, Rules::default());
    world.settle();
    let since = Cursor::default();
    world.tell(Input::ReadMsglist { token: Token(80), since, wait: MINUTE });
    world.tell(Input::ReadMsglist { token: Token(81), since, wait: Duration::from_secs(5) });
    world.run(Duration::from_secs(10));
    assert_eq!(world.replies[&Token(81)], Reply::Page(Page::default()), "the wait was over");
    assert!(!world.replies.contains_key(&Token(80)));
    world.submit(1, &["bob@acme"], &[]);
    world.settle();
    let Reply::Page(page) = &world.replies[&Token(80)] else { panic!() };
    let run = page.runs[0].verify(&key(1).peer_id(), None).unwrap();
    assert!(matches!(&run.entries[0].0.body, EntryBody::Mail(mail) if mail.h == only_mail(&world)));
}

#[test]
fn long_polls_are_bounded_and_the_oldest_gives_way() {
    let mut world = World::new(5, Rules::default());
    for n in 0..300 {
        world.tell(Input::ReadMsglist { token: Token(n), since: Cursor::default(), wait: MINUTE });
    }
    world.settle();
    assert_eq!(world.brain.polls.len(), POLLS_MAX);
    assert!(world.replies.contains_key(&Token(0)) && !world.replies.contains_key(&Token(299)));
}

#[test]
fn the_chain_goes_on_after_a_restart() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    let before = page(&mut world, Cursor::default()).runs[0].verify(&key(1).peer_id(), None).unwrap();
    world.crash();
    world.submit(2, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    let after = page(&mut world, before.head.at);
    let run = after.runs[0].verify(&key(1).peer_id(), Some(&before.head.chain)).unwrap();
    assert_eq!((run.after, run.head.at.seq), (Seq(1), Seq(2)));
    assert_eq!(run.head.at.epoch, before.head.at.epoch, "a crash alone opens no new epoch");
}

#[test]
fn a_clean_stop_is_the_last_record_and_the_next_event_takes_it_back() {
    let mut world = World::new(5, Rules::default());
    world.settle();
    world.tell(Input::Stopping { token: Token(90) });
    world.settle();
    assert_eq!(world.replies[&Token(90)], Reply::Stopped);
    world.crash();
    assert!(world.brain.stopped_cleanly());
    world.submit(1, &["bob@acme"], &[]);
    world.settle();
    assert!(!world.brain.stopped_cleanly());
}

#[test]
fn a_blob_that_no_record_names_is_deleted_at_start_and_a_missing_one_is_shown() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(1));
    let h = only_mail(&world);
    world.outside.blobs = BTreeSet::from([MailId::new([77; 20])]);
    world.rules.nobody_has.insert(h);
    world.crash();
    world.settle();
    assert!(world.outside.blobs.is_empty());
    assert_eq!(world.brain.status().missing, BTreeSet::from([h]));
}

#[test]
fn an_open_ns_is_sent_again_daily() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["bob@acme"], &[]);
    world.run(3 * DAY + MINUTE);
    assert_eq!(world.outside.taken.len(), 4);
}
