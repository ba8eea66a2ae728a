//! Members that are removed while they are there, or leave, in written stories: what the checker excuses of them, and what it does not.

use std::time::Duration;

use roost::core::postbox::MailKey;
use roost::model::msglist::Ending;
use roost::model::{Mode, Span};

use super::absent::{self, DAY, MEMBER, OWNER, RITA, STAYS};
use super::checker::Rule;
use super::clocks::far_ahead;
use super::world::World;

/// Four members and rita, one of whom is to be removed.
fn world() -> World {
    absent::world(Mode::Fragments)
}

impl World {
    /// The group goes on without this member, which hears of it.
    fn is_removed(&mut self, gone: usize, by: usize) {
        self.removes(gone);
        self.change_group(by);
        self.passes(60_000);
        assert_eq!(self.peers[gone].roster.members.len(), 1, "it knows");
    }

    /// From now on each peer has pinned the group's key and goes by descriptors; no key is replaced.
    fn pins_keys(&mut self) {
        self.params.rotations = vec![1000 * DAY];
        self.plan_keys();
        for p in 0..=RITA {
            self.crash(p);
            self.start(p);
        }
        self.passes(60_000);
    }
}

/// Every mail came to the end that its readers and its owner must know of.
fn has_ended_well(world: &mut World) {
    assert!(world.all_ended());
    world.check_outcomes();
    world.is_well();
}

#[test]
fn r7_a_removed_member_keeps_what_it_did_not_know_to_be_gone_and_nothing_else() {
    let mut world = world();
    let h = world.mails(RITA);
    assert!(!world.parts(STAYS, &h).is_empty());
    world.is_removed(STAYS, OWNER);
    world.opens_all(RITA);
    assert!(world.has_read(RITA, &h));
    assert!(!world.parts(STAYS, &h).is_empty(), "nobody tells it");
    world.check_gone();
    world.is_well();

    // Had it known, it would have to be rid of it.
    let owner = world.peers[OWNER].id;
    world.peers[STAYS].disk.ledger.buried_parts.insert((owner, h));
    world.check_gone();
    assert_eq!(world.violation.take().map(|violation| violation.rule), Some(Rule::R7));
    world.peers[STAYS].disk.ledger.buried_parts.remove(&(owner, h));

    // And once the mail is over it is gone there too.
    world.passes(9 * DAY);
    assert!(world.parts(STAYS, &h).is_empty());
    world.check_gone();
    world.is_well();
}

#[test]
fn r7_one_who_was_removed_is_not_held_to_what_the_members_clocks_said() {
    let (mut world, ahead) = (world(), 8 * i64::try_from(DAY).unwrap());
    // Clocks are compared in this run; who jumps when is written below.
    world.params.jumps = far_ahead(&world.params);
    let h = world.mails(RITA);
    assert!(!world.parts(STAYS, &h).is_empty());
    for p in [OWNER, MEMBER] {
        world.jumps(p, ahead);
    }
    world.passes(2 * 60_000);
    assert!(world.peers[STAYS].clock_off, "half of the others say so");
    world.is_removed(STAYS, OWNER);
    for p in [OWNER, MEMBER] {
        world.jumps(p, -ahead);
    }
    world.opens_all(RITA);
    assert!(world.has_read(RITA, &h));
    world.check_gone();
    world.is_well();
    assert!(!world.parts(STAYS, &h).is_empty(), "it has not expired");
    world.passes(9 * DAY);
    assert!(world.parts(STAYS, &h).is_empty(), "nobody answers it, so it goes by its own clock");
    world.check_gone();
    world.is_well();
}

#[test]
fn r2_what_one_showed_to_be_safe_who_was_removed_those_who_stay_keep_for_its_readers() {
    let mut world = world();
    let h = world.mails(RITA);
    world.passes(60_000);
    world.is_removed(OWNER, MEMBER);
    assert_eq!(world.truth.orphans.len(), 1, "it was safe, and rita knew of it");
    world.passes(2 * 60 * 60_000);
    world.goes(OWNER);
    assert!(!world.all_ended(), "rita has not read it");
    world.opens_all(RITA);
    assert!(world.has_read(RITA, &h), "from those who stay");
    has_ended_well(&mut world);
}

#[test]
fn r2_a_mail_of_one_who_was_removed_ends_for_whoever_had_heard_of_it() {
    let mut world = world();
    let h = world.mails(RITA);
    world.is_removed(OWNER, MEMBER);
    assert!(!world.all_ended());
    world.check_outcomes();
    assert_eq!(world.violation.take().map(|violation| violation.rule), Some(Rule::R2), "it waits for rita");
    world.opens_all(RITA);
    assert!(world.has_read(RITA, &h) && world.all_ended());
    world.check_outcomes();
    world.is_well();
}

#[test]
fn r2_what_a_reader_said_to_one_who_forgot_it_and_was_removed_then_is_said_once() {
    let mut world = world();
    let both = [MEMBER, RITA].map(|reader| world.peers[reader].address.clone());
    world.submit_to(OWNER, 1, both.into());
    world.passes(30 * 60_000);
    let h = *world.truth.mails.keys().next().unwrap();
    world.take_image(OWNER);
    world.opens_all(RITA);
    world.restore(OWNER);
    world.passes(60_000);
    world.is_removed(OWNER, MEMBER);
    assert!(world.has_read(RITA, &h) && !world.all_ended());
    world.check_outcomes();
    assert_eq!(world.violation.take().map(|violation| violation.rule), Some(Rule::R2), "it waits for the member");
    world.opens_all(MEMBER);
    assert!(world.has_read(MEMBER, &h) && world.all_ended(), "nobody believes what it would ask rita");
    world.check_outcomes();
    world.is_well();
}

#[test]
fn r2_what_a_reader_said_after_its_owner_came_back_with_an_old_disk_is_not_forgotten() {
    let mut world = world();
    let both = [MEMBER, RITA].map(|reader| world.peers[reader].address.clone());
    world.submit_to(OWNER, 1, both.clone().into());
    world.passes(30 * 60_000);
    let (h, mail) = world.truth.mails.iter().next().unwrap();
    let (h, id) = (*h, mail.submission);
    world.take_image(OWNER);
    world.restore(OWNER);
    world.passes(60_000);
    world.opens_all(RITA);
    let [_, rita] = both;
    let ended = &world.peers[OWNER].disk.ledger.ended;
    assert!(world.has_read(RITA, &h) && ended.contains_key(&(id, rita.clone())), "it was told when it was back");
    world.is_removed(OWNER, MEMBER);
    // Nor would an outbox be excused that lost what it was told.
    assert!(!world.is_excused(&id, &world.truth.letters[&id], &rita));
}

#[test]
fn r2_who_was_removed_reads_what_is_on_its_own_disk_though_nobody_else_is_there() {
    let mut world = absent::world(Mode::Full);
    let h = world.mails(MEMBER);
    assert!(!world.parts(MEMBER, &h).is_empty());
    world.is_removed(MEMBER, OWNER);
    for p in (0..RITA).filter(|p| *p != MEMBER) {
        world.goes(p);
    }
    // What it knows of the mail is read from its disk as well.
    world.crash(MEMBER);
    world.start(MEMBER);
    world.passes(60_000);
    world.opens_all(MEMBER);
    assert!(world.has_read(MEMBER, &h));
    world.is_well();
}

#[test]
fn r2_what_its_owner_has_lost_still_ends_for_a_reader_that_was_removed_and_has_it_itself() {
    let mut world = absent::world(Mode::Full);
    world.take_image(OWNER);
    let h = world.mails(MEMBER);
    let id = world.truth.mails[&h].submission;
    world.is_removed(MEMBER, STAYS);
    world.restore(OWNER);
    world.passes(60_000);
    let owner = world.peers[OWNER].id;
    for p in 0..RITA {
        world.peers[p].disk.parts.retain(|(of, mail, _)| p == MEMBER || (*of, *mail) != (owner, h));
    }
    world.peers[OWNER].disk.blobs.remove(&h);
    world.truth.promised.clear();
    let is_excused = |world: &World| {
        let member = &world.peers[MEMBER].address;
        world.is_excused(&id, &world.truth.letters[&id], member)
    };
    assert!(world.is_unreadable(&h) && !is_excused(&world));
    let part = world.parts(MEMBER, &h).into_iter().next().map(|part| (owner, h, part)).unwrap();
    world.peers[MEMBER].disk.parts.remove(&part);
    assert!(is_excused(&world), "nobody has it");
    world.peers[MEMBER].disk.parts.insert(part);
    world.opens_all(MEMBER);
    assert!(world.has_read(MEMBER, &h));
    has_ended_well(&mut world);
}

#[test]
fn r12_what_one_who_was_removed_held_may_still_be_with_it_when_all_others_gave_theirs_up() {
    let mut world = absent::world(Mode::Full);
    let h = world.mails(RITA);
    let id = world.truth.mails[&h].submission;
    world.is_removed(STAYS, OWNER);
    assert!(!world.rests_with_removed(id), "the others hold it too, and say so when they do not");
    world.cancel_this(OWNER, id);
    world.passes(60_000);
    assert_eq!((world.parts(MEMBER, &h).len(), world.parts(STAYS, &h).len()), (0, 1));
    assert!(world.rests_with_removed(id), "that one says nothing any more");

    // A fragment of two is nothing to a reader.
    let mut world = self::world();
    let h = world.mails(RITA);
    let id = world.truth.mails[&h].submission;
    world.is_removed(STAYS, OWNER);
    world.cancel_this(OWNER, id);
    world.passes(60_000);
    assert!(!world.parts(STAYS, &h).is_empty() && !world.rests_with_removed(id));
}

#[test]
fn r2_a_mail_that_one_who_was_removed_ended_by_a_wrong_clock_is_over() {
    let mut world = world();
    let h = world.mails(RITA);
    world.passes(60_000);
    world.is_removed(OWNER, MEMBER);
    world.goes(OWNER);
    assert!(!world.all_ended(), "it was safe, and rita has not read it");
    world.peers[OWNER].disk.ledger.tombstoned.insert(h, Ending::Expired);
    assert!(!world.all_ended(), "its clock was right: it did not live to that day");
    world.peers[OWNER].fooled = vec![(world.wall(OWNER) + Duration::from_millis(30 * DAY), world.t)];
    assert!(world.all_ended());
    world.peers[OWNER].disk.ledger.tombstoned.insert(h, Ending::Received);
    assert!(!world.all_ended(), "nobody has received it");
}

#[test]
fn r7_a_restored_owner_is_told_only_by_whoever_was_a_member_since_it_came_back() {
    let mut world = world();
    let h = world.mails(RITA);
    world.opens_all(RITA);
    world.passes(60_000);
    world.truth.restored.insert(OWNER, world.t);
    assert!(world.is_entombed_elsewhere(&h), "the members have read that it is gone");
    world.passes(60_000);
    let members = std::mem::replace(&mut world.gd.members, vec![OWNER]);
    world.change_group(OWNER);
    assert!(world.is_entombed_elsewhere(&h), "they could be asked until they left");

    // Restored once more, it asks nobody who has left.
    world.truth.restored.insert(OWNER, world.t);
    assert!(!world.is_entombed_elsewhere(&h));
    world.passes(60_000);
    let mut without_owner = world.gd.clone();
    without_owner.members = members.iter().copied().filter(|member| *member != OWNER).collect();
    world.gds.push((world.t, without_owner));
    assert!(!world.is_entombed_elsewhere(&h), "nor one who comes again when it has left itself");
    world.gds.pop();
    world.gd.members = members;
    world.change_group(OWNER);
    assert!(world.is_entombed_elsewhere(&h), "one who comes again is asked again");
}

#[test]
fn r12_a_cancel_that_only_those_had_read_who_left_before_its_owner_came_back_with_an_old_disk_is_forgotten() {
    for come_back_first in [true, false] {
        let mut world = world();
        world.take_image(OWNER);
        let h = world.mails(RITA);
        world.cancel_this(OWNER, world.truth.mails[&h].submission);
        world.passes(60_000);
        assert!(world.unsure_cancel().is_some(), "it was answered before rita was told");
        if come_back_first {
            world.restore(OWNER);
            world.passes(60_000);
        }
        world.gd.members = vec![OWNER];
        world.change_group(OWNER);
        world.passes(60_000);
        if !come_back_first {
            world.restore(OWNER);
            world.passes(60_000);
        }
        assert_eq!(world.unsure_cancel().is_some(), come_back_first, "it asks only whoever is a member");
    }
}

#[test]
fn r12_one_who_was_removed_and_does_not_know_a_mail_promises_nothing_of_what_it_was_served_as_a_member() {
    let mut world = world();
    let h = world.mails(MEMBER);
    let id = world.truth.mails[&h].submission;
    world.cancel_this(OWNER, id);
    world.passes(60_000);
    let key = MailKey { sender: world.peers[OWNER].fingerprint, submission: id };
    world.peers[MEMBER].disk.ledger.announced.remove(&key);
    assert!(world.unsure_cancel().is_some(), "the sender is no stranger to it");
    world.is_removed(MEMBER, OWNER);
    assert!(world.unsure_cancel().is_none());
    world.peers[MEMBER].disk.ledger.announced.insert(key);
    assert!(world.unsure_cancel().is_some(), "it would say that it never reads this");
    world.peers[MEMBER].disk.ledger.announced.remove(&key);
    world.truth.served.retain(|(.., to), _| *to != MEMBER);
    assert!(world.unsure_cancel().is_some(), "who was served nothing has read nothing");
}

#[test]
fn r2_who_left_as_its_user_mailed_is_heard_by_nobody_that_goes_by_a_gd_without_it() {
    let mut world = world();
    world.pins_keys();
    world.gd.members.retain(|m| *m != OWNER);
    world.peers[OWNER].in_group = false;
    world.change_group(OWNER);
    world.passes(60_000);
    let both = [MEMBER, RITA].map(|reader| world.peers[reader].address.clone());
    world.submit_to(OWNER, 1, both.clone().into());
    world.passes(2 * 60 * 60_000);
    let (id, letter) = world.truth.letters.first_key_value().unwrap();
    let [member, rita] = both.map(|reader| world.is_excused(id, letter, &reader));
    assert!(member, "its members know that it has left");
    assert!(!rita, "she has heard of it");
    world.opens_all(RITA);
    has_ended_well(&mut world);

    // It is shown as expired in time.
    world.passes(7 * DAY);
    has_ended_well(&mut world);
}

#[test]
fn r2_what_one_mails_who_was_removed_lives_as_long_as_its_own_policy_says() {
    let mut world = world();
    world.params.policy.life = Span::hours(12);
    world.pins_keys();
    world.is_removed(OWNER, MEMBER);
    let member = world.peers[MEMBER].address.clone();
    world.submit_to(OWNER, 1, [member.clone()].into());
    world.passes(60 * 60_000);
    let is_excused = |world: &World| {
        let (id, letter) = world.truth.letters.first_key_value().unwrap();
        world.is_excused(id, letter, &member)
    };
    assert!(is_excused(&world));
    world.passes(6 * DAY);
    assert!(is_excused(&world), "it has not expired");
    world.passes(DAY);
    assert!(!is_excused(&world) && world.all_ended(), "it has, and its user is told");
    world.check_outcomes();
    world.is_well();

    // No journal makes a mail live longer than by one of the two policies.
    let (id, later) = (*world.truth.letters.first_key_value().unwrap().0, world.now(OWNER).wall);
    world.peers[OWNER].disk.ledger.expires.insert(id, later + Span::days(1).duration());
    assert!(!is_excused(&world));
}

#[test]
fn r2_what_a_member_mails_lives_as_long_as_the_policy_of_its_group_says_whatever_its_journal_says() {
    let mut world = world();
    world.params.policy.life = Span::hours(12);
    let rita = world.peers[RITA].address.clone();
    world.mails(RITA);
    world.goes(RITA);
    world.passes(11 * 60 * 60_000);
    let is_excused = |world: &World| {
        let (id, letter) = world.truth.letters.first_key_value().unwrap();
        world.is_excused(id, letter, &rita)
    };
    assert!(is_excused(&world), "she never comes back");
    world.passes(60 * 60_000);
    assert!(!is_excused(&world), "the journal says 7 days");
}
