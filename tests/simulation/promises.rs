//! What peers promise, in written stories: which losses of a mail that was shown as safe the checker counts, whose word has to be heard,
//! what a restored owner has to know, when it rests; and what it excuses.

use std::time::Duration;

use roost::core::{Brain, replicator};
use roost::model::dht::DhtKey;
use roost::model::{Digest, MailId, Mode, Part, Policy};
use roost::wire;

use super::absent::{self, DAY, MEMBER, OWNER, RITA, STAYS};
use super::checker::{Promise, Rule};
use super::clocks;
use super::dht::Entry;
use super::disk::Record;
use super::liars::Lie;
use super::world::World;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A mail that three members have whole, and what its owner showed of that.
fn told() -> (World, MailId, Promise) {
    let mut world = absent::world(Mode::Full);
    let h = world.mails(RITA);
    world.note_shown(OWNER);
    let promise = world.truth.shown[&h].clone();
    assert_eq!((promise.safe, promise.whole.len()), (2, 3), "it survives two losses");
    (world, h, promise)
}

impl World {
    /// A member has nothing of a mail any more.
    fn has_nothing(&mut self, p: usize, h: &MailId) {
        let owner = self.peers[OWNER].id;
        self.peers[p].disk.parts.retain(|(of, mail, _)| (*of, mail) != (owner, h));
    }

    /// The same by right, as placement says.
    fn gives_up(&mut self, p: usize, h: &MailId) {
        self.has_nothing(p, h);
        self.truth.moved_away.insert((p, *h), self.t);
    }
}

#[test]
fn r2_what_was_one_copy_too_many_and_is_given_up_by_right_is_not_promised_any_more() {
    let (mut world, h, promise) = told();
    world.params.lies = [Lie::BadBlocks].into();
    world.peers[MEMBER].liar = true;
    world.gives_up(STAYS, &h);
    assert!(!world.is_void(&h, &promise, OWNER), "one still has it");
    world.peers[third_of(&promise)].dead = true;
    assert!(world.is_void(&h, &promise, OWNER), "nobody has: one gave it up, one is lost, and one serves wrong blocks");

    // What it gave up before that was shown is not counted there any more, and what went in another way was not given up.
    let since = Promise { at: world.t + 1, ..promise.clone() };
    assert!(!world.is_void(&h, &since, OWNER));
    world.truth.moved_away.clear();
    assert!(!world.is_void(&h, &promise, OWNER));
    world.gives_up(STAYS, &h);

    // Nor was what it took again, and what then went in another way.
    let part = (world.peers[OWNER].id, h, Part::Whole);
    let held = Record::Replicator(wire::encode(&replicator::Event::Held { owner: part.0, h, part: part.2 }));
    world.append(STAYS, held.clone());
    assert!(world.is_void(&h, &promise, OWNER), "its file has gone since that was written");
    world.peers[STAYS].disk.parts.insert(part);
    world.append(STAYS, held);
    world.has_nothing(STAYS, &h);
    assert!(!world.is_void(&h, &promise, OWNER));
    world.gives_up(STAYS, &h);

    // Nor who gave it up for somebody that has it now.
    let mut promise = Promise { safe: 1, ..promise };
    promise.holders.remove(&MEMBER);
    promise.whole.remove(&MEMBER);
    world.peers[MEMBER].liar = false;
    assert!(!world.is_void(&h, &promise, OWNER), "that one must give it");
    world.peers[MEMBER].in_group = false;
    assert!(world.is_void(&h, &promise, OWNER), "nobody asks who is no member any more");
    (world.peers[MEMBER].in_group, world.peers[MEMBER].dead) = (true, true);
    assert!(world.is_void(&h, &promise, OWNER), "its disk died");
}

/// The third holder.
fn third_of(promise: &Promise) -> usize {
    *promise.holders.iter().find(|m| ![MEMBER, STAYS].contains(m)).unwrap()
}

#[test]
fn r2_who_says_of_a_mail_for_good_that_it_is_gone_is_a_holder_that_is_lost() {
    let (mut world, h, promise) = told();
    world.params.lies = [Lie::Forks].into();
    for m in &promise.holders {
        world.peers[*m].disk.ledger.learned_gone.insert(h);
    }
    assert!(!world.is_void(&h, &promise, OWNER), "only who signs falsely denies the mails of others");
    for m in [MEMBER, STAYS] {
        world.peers[m].liar = true;
        assert!(!world.is_void(&h, &promise, OWNER), "one still gives it");
    }
    world.peers[third_of(&promise)].liar = true;
    assert!(world.is_void(&h, &promise, OWNER));
}

#[test]
fn r2_what_goes_by_right_after_a_change_of_the_policy_leaves_as_much_as_that_declares() {
    let (mut world, h, promise) = told();
    world.passes(60_000);
    world.change_policy(Policy { copies: 2, ..world.gd.policy.clone() });
    world.passes(60 * 60_000);
    let gone: Vec<usize> = promise.holders.iter().copied().filter(|m| world.parts(*m, &h).is_empty()).collect();
    let left: Vec<usize> = promise.holders.iter().copied().filter(|m| !gone.contains(m)).collect();
    assert_eq!((gone.len(), left.len()), (1, 2), "one copy was too many");
    assert!(world.truth.moved_away.contains_key(&(gone[0], h)));
    world.peers[left[0]].dead = true;
    assert!(!world.is_void(&h, &promise, OWNER), "two copies survive one loss");
    world.peers[left[1]].dead = true;
    assert!(world.is_void(&h, &promise, OWNER));
}

#[test]
fn r8_what_expired_goes_without_a_word_only_to_an_owner_that_does_not_count() {
    let mut world = absent::world(Mode::Fragments);
    let h = world.mails(RITA);
    let (owner, parts) = (world.peers[OWNER].id, world.parts(STAYS, &h).into_iter().collect::<Vec<_>>());
    assert_eq!((world.shown_safe(OWNER, h), parts.len()), (Some(1), 1));
    let drops = |world: &mut World| {
        world.check_drop_told(STAYS, owner, h, &parts);
        world.violation.take().map(|violation| violation.rule)
    };
    assert_eq!(drops(&mut world), Some(Rule::R8), "it lives");
    // As if the clock of its owner had been behind by so much when it was sent.
    world.truth.mails.get_mut(&h).unwrap().expiry.0 -= 9 * DAY;
    assert_eq!(drops(&mut world), Some(Rule::R8), "an owner that is there is told first, though its clock is behind");
    world.peers[STAYS].roster.lost.insert(owner);
    assert_eq!(drops(&mut world), None, "it counts as lost");
    world.truth.mails.get_mut(&h).unwrap().expiry.0 += 9 * DAY;
    assert_eq!(drops(&mut world), Some(Rule::R8), "what lives does not go for that");
}

/// Whether the checker excuses that this reader's word was not heard, had it signed it then.
fn is_unheard(world: &mut World, h: &MailId, reader: usize, signed_at: Option<u64>) -> bool {
    let which = (world.truth.mails[h].submission, world.peers[reader].address.clone());
    if let Some(at) = signed_at {
        world.truth.signed_at.insert(which.clone(), at);
    }
    world.note_unheard(OWNER, which.0, &which.1);
    world.truth.unheard.contains(&which)
}

#[test]
fn r2_a_readers_word_need_not_be_heard_only_if_it_never_met_the_owner_since_it_read() {
    for (reader, chance) in [(MEMBER, 30_000), (RITA, 330_000)] {
        let mut world = absent::world(Mode::Fragments);
        let h = world.mails(reader);
        let until = world.t;
        world.goes(OWNER);
        world.opens_all(reader);
        assert!(world.has_read(reader, &h));
        world.goes(reader);
        world.peers[OWNER].left = false;
        world.start(OWNER);
        assert!(!is_unheard(&mut world, &h, reader, None), "it is in the DHT");
        loses_dht(&mut world);
        assert!(is_unheard(&mut world, &h, reader, None), "it was said to nobody");

        // Read while both were there it would have been said, though the reader is off now.
        assert!(is_unheard(&mut world, &h, reader, Some(until - chance + 1)), "too late");
        assert!(!is_unheard(&mut world, &h, reader, Some(until - chance)));
        // Not on two sides of a partition, nor with a pause between.
        let presence = world.truth.presence.clone();
        world.truth.presence.get_mut(&reader).unwrap().insert(1, (until - chance, Some(1)));
        assert!(is_unheard(&mut world, &h, reader, None));
        world.truth.presence = presence;
        let pause = until - chance / 2;
        world.truth.presence.get_mut(&reader).unwrap().splice(1..1, [(pause, None), (pause + 1, Some(0))]);
        assert!(is_unheard(&mut world, &h, reader, None));
    }
}

/// The DHT loses all that is there.
fn loses_dht(world: &mut World) {
    for _ in 0..100 {
        world.dht.lose_one();
    }
}

#[test]
fn r2_what_a_reader_could_put_into_the_dht_and_what_its_owner_took_from_there_is_heard() {
    const CHANCE: u64 = 330_000;
    for reader in [MEMBER, RITA] {
        let mut world = absent::world(Mode::Fragments);
        let h = world.mails(reader);
        world.goes(OWNER);
        world.opens_all(reader);
        world.goes(reader);
        let until = world.t;
        let which = (world.truth.mails[&h].submission, world.peers[reader].address.clone());

        // It was never put.
        let before = std::mem::take(&mut world.dht);
        assert!(is_unheard(&mut world, &h, reader, Some(until - CHANCE + 1)), "too late");
        assert!(!is_unheard(&mut world, &h, reader, Some(until - CHANCE)), "its postbox keeps it back");
        world.dht.failed.insert(which.clone(), until - CHANCE + 1);
        assert!(is_unheard(&mut world, &h, reader, None), "it tried in vain, and again too late");
        world.dht.failed.clear();
        world.truth.presence.get_mut(&reader).unwrap().insert(1, (until - CHANCE, Some(1)));
        assert!(is_unheard(&mut world, &h, reader, None), "the DHT is on the other side");

        // It was put, whenever that was, and the owner took it.
        world.dht = before;
        let of_nr = |(key, ..): &&(DhtKey, Digest, Entry)| matches!(key, DhtKey::Nr(_));
        let (key, name, entry) = world.dht.once.iter().find(of_nr).unwrap().clone();
        assert!(!is_unheard(&mut world, &h, reader, None), "it lies there");
        assert!(world.dht.del(key, name, &entry.password));
        assert!(!is_unheard(&mut world, &h, reader, None), "who deletes it has it in its journal");
    }
}

#[test]
fn r2_a_mail_that_a_restored_owner_was_told_of_in_time_is_not_forgotten_later() {
    for is_late in [false, true] {
        let mut world = absent::world(Mode::Fragments);
        world.take_image(OWNER);
        let h = world.mails(RITA);
        let (id, rita) = (world.truth.mails[&h].submission, world.peers[RITA].address.clone());
        world.restore(OWNER);
        if is_late {
            world.peers[OWNER].skew += 45 * i64::try_from(DAY).unwrap();
        }
        world.run(60_000);
        assert_eq!(world.truth.told_in_time.contains_key(&(OWNER, h)), !is_late);
        // As if it had passed it over, and its clock were right again only now.
        world.peers[OWNER].disk.ledger.submitted.remove(&id);
        world.truth.mails.get_mut(&h).unwrap().expiry.0 -= 45 * DAY;
        assert_eq!(world.is_forgotten(&id, &world.truth.letters[&id], &rita), is_late);
    }
}

#[test]
fn r12_a_move_need_not_end_only_for_an_owner_that_waits_for_one_whose_clock_was_ahead_and_taken_for_right() {
    let mut world = absent::world(Mode::Full);
    world.mails(RITA);
    world.change_policy(Policy { mode: Mode::Fragments, ..world.gd.policy.clone() });
    let policy = world.gd.policy.clone();
    let never_arrives = |world: &mut World| {
        world.check_moved();
        world.violation.take().is_some_and(|violation| violation.rule == Rule::R12)
    };
    let mut seen = 0;
    for _ in 0..60_000 {
        world.passes(10);
        let status = world.peers[OWNER].brains.as_ref().unwrap().outbox.observe(world.now(OWNER));
        let mail = &status.submissions[0].mails[0];
        if mail.encoding != policy.encoding_for(mail.length, 3) || !mail.moving || status.moving_waits_for.is_empty() {
            continue;
        }
        seen += 1;
        assert!(never_arrives(&mut world), "it moves");
        for p in 0..RITA {
            let is_waited_for = status.moving_waits_for.contains(&world.peers[p].address);
            world.peers[p].fooled = vec![(world.wall(p) + Duration::from_millis(30 * DAY), world.t)];
            assert_eq!(never_arrives(&mut world), !is_waited_for);
            world.peers[p].fooled.clear();
        }
    }
    assert!(seen > 0 && !never_arrives(&mut world), "it has arrived");
}

#[test]
fn r2_only_a_clock_that_is_ahead_makes_one_that_hears_nobody_take_for_over_what_lives() {
    let mut world = absent::world(Mode::Fragments);
    let in_days = |world: &World, days: i64| world.true_wall() + Duration::from_millis(days.unsigned_abs() * DAY);
    for (days, is_fooled) in [(-45, false), (45, true)] {
        world.peers[OWNER].skew = days * i64::try_from(DAY).unwrap();
        world.trust_clock(OWNER);
        assert_eq!(world.is_fooled_about(OWNER, 0, in_days(&world, 44)), is_fooled);
    }
    assert!(!world.is_fooled_about(OWNER, 0, in_days(&world, 46)), "by that clock this lives");
    // Once the clock is right, what is sent from then on is not over by the one that was wrong, also when it ends before what that said.
    world.jumps(OWNER, -45 * i64::try_from(DAY).unwrap());
    let (until, told) = (world.t, in_days(&world, 45));
    assert!(world.is_fooled_about(OWNER, until, told) && !world.is_fooled_about(OWNER, until + 1, told));
    world.passes(HOUR);
    world.trust_clock(OWNER);
    assert!(world.is_fooled_about(OWNER, until, told) && !world.is_fooled_about(OWNER, world.t, told));
    assert!(!world.is_fooled_about(OWNER, until, in_days(&world, 45)), "no mail of now");
    assert!(world.is_over_for(OWNER, until, told) && !world.is_over_for(OWNER, world.t, told));
}

#[test]
fn r2_a_clock_that_is_ahead_fools_nobody_while_its_peer_is_down() {
    let mut world = absent::world(Mode::Fragments);
    world.jumps(OWNER, 45 * i64::try_from(DAY).unwrap());
    world.trust_clock(OWNER);
    world.passes(HOUR);
    let (until, lives) = (world.t, world.true_wall() + Duration::from_millis(44 * DAY));
    world.goes(OWNER);
    world.passes(HOUR);
    assert!(world.is_fooled_about(OWNER, until, lives) && !world.is_fooled_about(OWNER, until + 1, lives));
    world.peers[OWNER].left = false;
    world.params.jumps = clocks::far_ahead(&world.params);
    world.start(OWNER);
    assert!(!world.is_fooled_about(OWNER, until + 1, lives), "it goes by its clock again only when that was compared");
}

#[test]
fn r12_an_ns_that_nobody_answers_goes_into_the_dht_once_a_day_and_nothing_is_written_for_that() {
    let mut world = absent::world(Mode::Full);
    world.goes(RITA);
    world.mails(RITA);
    world.passes(DAY / 2);
    let rita = world.peers[RITA].address.clone();
    assert!(world.dht.has_ns(&rita));
    loses_dht(&mut world);
    assert!(!world.dht.has_ns(&rita));
    let (commits, messages) = (world.commits.clone(), world.messages.clone());
    world.passes(DAY);
    assert!(world.dht.has_ns(&rita), "it is there anew");
    world.check_rest(DAY / MINUTE, &commits, &messages);
    world.is_well();
}
