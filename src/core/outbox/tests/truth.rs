//! Epochs, adoption and the base of the own msglist: an owner restored from an older copy of its disk, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::world::{Outside, Rules, World, address, fingerprint, key, roster, submission};
use super::{DAY, MINUTE, answers, end_of, ending, only_mail, page};
use crate::core::outbox::adopt::{OwnPage, OwnerNote};
use crate::core::outbox::{CancelTarget, Cursor, EndedAs, Event, Input, MailId, Notify, NrFrom, Outbox, Reply};
use crate::core::{Brain, Token};
use crate::model::group::Roster;
use crate::model::holding::HoldingState;
use crate::model::msglist::{Ending, EntryBody, Seq};
use crate::model::notification::Outcome;
use crate::model::{Part, PeerId};
use crate::wire::msglist::Page;

/// What a member that has read all of the list can tell.
pub(super) fn as_read_by_a_member(world: &mut World) -> OwnPage {
    let all = page(world, Cursor::default());
    let mut notes = BTreeMap::new();
    for event in &world.outside.journal {
        if let Event::Sealed { submission, facts, receivers, .. } = event {
            let note = OwnerNote { submission: *submission, receivers: receivers.clone(), facts: None };
            notes.insert(facts.h, note);
        }
    }
    OwnPage { page: all, notes }
}
pub(super) fn members() -> impl Iterator<Item = PeerId> {
    (2..=6).map(|n| key(n).peer_id())
}
/// The members have read what this owner listed.
pub(super) fn members_know(world: &mut World) {
    let known = as_read_by_a_member(world);
    world.rules.own_lists = members().map(|member| (member, known.clone())).collect();
}
pub(super) fn silence(world: &mut World) {
    world.rules.silent = members().collect();
}
/// Reads all of the list as a member does that knows nothing; every run must verify.
pub(super) fn listed(world: &mut World) -> Vec<(Cursor, EntryBody)> {
    let page: Page = page(world, Cursor::default());
    let runs = page.runs.iter().map(|run| run.verify(&key(1).peer_id(), None).unwrap());
    runs.flat_map(|run| run.entries).map(|(entry, _)| (entry.at, entry.body)).collect()
}
pub(super) fn mails_listed(world: &mut World) -> Vec<MailId> {
    let mail = |(_, body): (Cursor, EntryBody)| match body {
        EntryBody::Mail(mail) => Some(mail.h),
        _ => None,
    };
    listed(world).into_iter().filter_map(mail).collect()
}
fn epochs(world: &mut World) -> usize {
    world.brain.state.list.epochs().count()
}

#[test]
fn r5_r7_an_owner_restored_from_an_old_disk_adopts_what_it_listed_since_and_repeats_nothing() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Received));
    world.run(MINUTE);
    // In the backup mail 1 lies in the spool; since then it was sealed and received, and mail 2 waits.
    let late = world.now.wall + Duration::from_secs(10);
    world.rules.late.insert(address("bob@acme"), late);
    world.submit(1, &["bob@acme"], &[]);
    world.settle();
    let backup = world.outside.copy();
    world.run(5 * MINUTE);
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    let (first, second) = (world.sealed_of(1), world.sealed_of(2));
    assert_eq!(ending(&world, &first), Some(Ending::Received));
    let before = listed(&mut world);
    members_know(&mut world);
    world.rules.nobody_has.insert(second);

    world.restore(&backup);
    world.run(5 * MINUTE);
    assert_eq!(ending(&world, &first), Some(Ending::Received), "the tombstone is adopted");
    assert_eq!(end_of(&world, 1, "bob@acme"), Some(EndedAs::Received));
    assert_eq!(end_of(&world, 2, "rita@readers"), None, "what waits, waits again");
    assert!(world.outside.sealed.is_empty(), "nothing is sealed twice");
    assert!(world.outside.taken.is_empty(), "nothing that is gone is announced");
    assert!(world.outside.spool.is_empty(), "what was sealed is not needed in the spool");
    assert_eq!(listed(&mut world), before, "the list goes on as it was, in the same epoch");
    assert_eq!(world.brain.status().missing.into_iter().collect::<Vec<_>>(), [second]);
    let nr = world.nr(second, submission(2), &address("rita@readers"), Outcome::Received);
    world.tell(Input::Nr { from: NrFrom::Direct(Token(70)), nr, signer: fingerprint(&address("rita@readers")) });
    world.settle();
    assert_eq!(ending(&world, &second), Some(Ending::Received), "the reader's word ends an adopted mail");
}

/// A world that sent a mail after its disk was copied, the copy, and the mail.
pub(super) fn sent_after_a_copy() -> (World, Outside, MailId) {
    let mut world = World::new(5, Rules::default());
    world.run(MINUTE);
    let backup = world.outside.copy();
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let h = only_mail(&world);
    (world, backup, h)
}

/// The sender takes a mail back: the tombstone.
pub(super) fn cancel(world: &mut World, h: MailId) -> Vec<u8> {
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(h) });
    world.run(MINUTE);
    tombstone_of(world, h)
}
pub(super) fn tombstone_of(world: &World, h: MailId) -> Vec<u8> {
    let (at, _) = world.brain.state.mails[&h].tombstone.unwrap();
    world.brain.tombstone_bytes(at).unwrap()
}

/// A world restored from before `rita@readers` was sent a mail, and that mail.
pub(super) fn restored_from_before(nobody_has_it: bool) -> (World, MailId) {
    let (mut world, backup, h) = sent_after_a_copy();
    members_know(&mut world);
    if nobody_has_it {
        world.rules.nobody_has.insert(h);
    }
    world.restore(&backup);
    (world, h)
}

#[test]
fn r2_an_adopted_mail_comes_back_from_the_members_and_goes_on_being_announced() {
    let (mut world, h) = restored_from_before(false);
    world.run(MINUTE);
    assert!(world.outside.blobs.contains(&h) && world.brain.status().missing.is_empty());
    assert_eq!(world.outside.taken, [(address("rita@readers"), h)]);
    assert_eq!(world.outside.recoveries, 1);
    // It stays, and is announced daily as every open mail is.
    world.crash();
    world.run(DAY + MINUTE);
    assert_eq!((world.outside.recoveries, world.outside.taken.len()), (1, 2));
}

#[test]
fn r2_an_adopted_mail_comes_back_from_a_member_that_leaves_too() {
    let (mut world, h) = restored_from_before(true);
    world.run(MINUTE);
    let leaves: BTreeSet<PeerId> = [key(3).peer_id()].into();
    let leaving = Roster { lost: leaves.clone(), leaving: leaves.clone(), ..(*roster(5)).clone() };
    world.tell(Input::Roster(Arc::new(leaving.clone())));
    world.run(DAY);
    assert!(world.outside.recovery_asked.is_superset(&leaves), "what it holds counts");
    world.tell(Input::Roster(Arc::new(Roster { silent: leaves.clone(), ..leaving })));
    world.run(DAY);
    assert!(world.outside.recovery_asked.is_disjoint(&leaves) && !world.outside.blobs.contains(&h));
}

#[test]
fn r2_a_power_cut_at_any_step_of_a_recovery_loses_nothing() {
    for fuse in 1..60 {
        let (mut world, h) = restored_from_before(false);
        (world.steps, world.fuse) = (0, Some(fuse));
        world.run(5 * MINUTE);
        assert!(world.outside.blobs.contains(&h) && world.brain.status().missing.is_empty(), "cut at {fuse}");
        assert!(world.outside.taken.contains(&(address("rita@readers"), h)), "cut at {fuse}");
    }
}

#[test]
fn an_adopted_mail_that_nobody_gives_back_is_asked_for_again_now_and_then_and_when_a_member_is_back() {
    let (mut world, h) = restored_from_before(true);
    world.run(DAY);
    assert_eq!(world.brain.status().missing, BTreeSet::from([h]));
    let tries = world.outside.recoveries;
    assert!((100..400).contains(&tries), "{tries} attempts a day");
    world.rules.nobody_has.clear();
    world.tell(Input::PeerIsBack(key(3).peer_id()));
    world.settle();
    assert!(world.outside.blobs.contains(&h) && world.brain.status().missing.is_empty());
    assert_eq!(world.outside.taken, [(address("rita@readers"), h)]);
}

#[test]
fn r2_an_adopted_mail_that_never_comes_back_ends_with_a_word_to_its_sender() {
    let (mut world, h) = restored_from_before(true);
    world.run(8 * DAY);
    assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Expired));
    assert_eq!(world.outside.dsns.values().collect::<Vec<_>>(), [&address("rita@readers")]);
    let tries = world.outside.recoveries;
    assert_eq!(ending(&world, &h), Some(Ending::Expired));
    world.run(DAY);
    assert_eq!(world.outside.recoveries, tries, "what is over is not asked for");
}

#[test]
fn r1_a_mail_goes_behind_its_durable_tombstone_also_when_its_owner_is_alone() {
    let mut world = World::new(0, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let h = only_mail(&world);
    world.tell(Input::Cancel { token: Token(80), target: CancelTarget::Mail(h) });
    world.settle();
    // A crash tore the tombstone from the end. That is found at the start, which has nobody to wait for.
    world.outside.journal.retain(|e| !matches!(e, Event::Tombstoned { .. }));
    world.outside.blobs.insert(h);
    world.crash();
    world.settle();
    assert!(world.outside.blobs.is_empty() && ending(&world, &h) == Some(Ending::Cancelled));
}

#[test]
fn holdings_told_while_the_members_are_asked_are_those_of_adopted_mails_too() {
    let (mut world, backup, h) = sent_after_a_copy();
    members_know(&mut world);
    world.restore(&backup);
    // The member's word comes before its answer to what it has of the list.
    let reply = world.holds(2, h, Part::Whole, HoldingState::Held, world.now.wall);
    assert_eq!(reply, Reply::HoldingsTaken);
    assert_eq!(world.brain.status().submissions[0].mails[0].holders.len(), 1);
}

#[test]
fn new_entries_wait_for_silent_members_5_s_and_the_spool_does_not() {
    let mut world = World::new(5, Rules::default());
    world.run(MINUTE);
    silence(&mut world);
    world.crash();
    world.submit(1, &["bob@acme"], &[]);
    world.run(Duration::from_secs(4));
    assert_eq!(world.replies[&Token(1)], Reply::Accepted);
    assert!(world.outside.sealed.is_empty() && world.outside.taken.is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!((world.outside.sealed.len(), world.outside.taken.len()), (1, 1));
}

#[test]
fn nobody_answers_a_new_epoch_is_opened_but_not_after_a_clean_stop_or_alone() {
    for (clean, others, restored, expected) in
        [(false, 5, false, 2), (true, 5, false, 1), (true, 5, true, 2), (false, 0, false, 1)]
    {
        let mut world = World::new(others, Rules::default());
        world.run(MINUTE);
        if clean {
            world.tell(Input::Stopping { token: Token(90) });
            world.settle();
        }
        silence(&mut world);
        world.restored = restored;
        world.crash();
        world.run(MINUTE);
        assert_eq!(epochs(&mut world), expected, "clean {clean}, {others} others, restored {restored}");
    }
}

#[test]
fn r7_a_member_that_comes_later_still_tells_and_what_it_tells_is_listed_again() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Received));
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    let first = only_mail(&world);
    world.submit(2, &["carl@acme"], &[]);
    world.run(MINUTE);
    let second = world.sealed_of(2);
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(first) });
    world.run(MINUTE);
    members_know(&mut world);

    silence(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    assert_eq!((epochs(&mut world), ending(&world, &first)), (2, None), "nobody told it");
    world.rules.silent.remove(&key(3).peer_id());
    world.tell(Input::PeerIsBack(key(3).peer_id()));
    world.run(MINUTE);
    assert_eq!(ending(&world, &first), Some(Ending::Cancelled));
    assert!(!world.outside.blobs.contains(&first));
    assert_eq!(ending(&world, &second), None);
    assert!(mails_listed(&mut world).contains(&second), "members that read on learn of it");
    // Told once more by others it is nothing new.
    let before = listed(&mut world);
    world.rules.silent.clear();
    members().for_each(|member| world.tell(Input::PeerIsBack(member)));
    world.run(MINUTE);
    assert_eq!(listed(&mut world), before);
}

/// An owner that cancelled a mail, which its members know, and that is restored from before that.
pub(super) fn restored_from_before_a_cancel(rules: impl FnOnce(&mut World)) -> (World, MailId) {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    let h = only_mail(&world);
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(h) });
    world.run(MINUTE);
    members_know(&mut world);
    rules(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), None, "nobody told it");
    (world, h)
}

#[test]
fn r7_a_member_that_is_heard_of_while_it_is_asked_is_asked_again_when_that_comes_to_nothing() {
    let (mut world, h) = restored_from_before_a_cancel(|world| world.rules.unheard = true);
    let member = key(3).peer_id();
    let since = world.outside.own_list_asked.iter().rfind(|(who, _)| *who == member).unwrap().1;
    // The partition ends: the member compares, and only then the question of before is given up.
    let digests = crate::model::holding::bucket_digests([]);
    world.tell(Input::HoldingBuckets { token: Token(60), member, digests });
    world.rules.unheard = false;
    world.tell(Input::OwnList { member, since, answer: None });
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
}

#[test]
fn r7_members_are_asked_from_before_an_epoch_that_was_opened_for_want_of_an_answer() {
    let (mut world, _) = restored_from_before_a_cancel(silence);
    let before = world.outside.own_list_asked.last().unwrap().1;
    assert_eq!((before.seq, epochs(&mut world)), (Seq(1), 2));
    // A member may have read of the second epoch meanwhile, and still know more of the first.
    let asked = world.outside.own_list_asked.len();
    world.tell(Input::PeerIsBack(key(3).peer_id()));
    world.crash();
    world.run(MINUTE);
    let since: BTreeSet<Cursor> = world.outside.own_list_asked[asked..].iter().map(|(_, since)| *since).collect();
    assert_eq!(since, BTreeSet::from([before]), "also after another start");
    // Long after it no mail of before is left.
    world.run(31 * DAY);
    let asked = world.outside.own_list_asked.len();
    world.crash();
    world.run(MINUTE);
    assert!(world.outside.own_list_asked[asked..].iter().all(|(_, since)| since.epoch > before.epoch));
}

#[test]
fn a_mail_sealed_again_before_a_member_told_of_the_first_form_ends_in_both_with_one_word() {
    let mut world = World::new(5, Rules::default());
    let late = world.now.wall + Duration::from_secs(10);
    world.rules.late.insert(address("rita@readers"), late);
    world.submit(1, &["rita@readers"], &[]);
    world.settle();
    let backup = world.outside.copy();
    world.run(MINUTE);
    let first = only_mail(&world);
    members_know(&mut world);
    silence(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    world.rules.silent.clear();
    world.tell(Input::PeerIsBack(key(2).peer_id()));
    world.run(MINUTE);
    assert_eq!(world.brain.state.open.len(), 2);
    // The reader opened the first form; the second changed nothing for it.
    let nr = world.nr(first, submission(1), &address("rita@readers"), Outcome::Received);
    world.tell(Input::Nr { from: NrFrom::Direct(Token(70)), nr, signer: fingerprint(&address("rita@readers")) });
    world.settle();
    assert_eq!(world.replies[&Token(70)], Reply::NrTaken);
    assert!(world.brain.state.open.is_empty() && world.brain.state.waiting.is_empty());
}

#[test]
fn a_list_that_forked_is_mended_by_a_new_epoch_that_says_everything_again() {
    let (mut world, backup, first) = sent_after_a_copy();
    members_know(&mut world);
    let told = world.rules.own_lists.clone();
    // Restored, with a clean stop in its journal and nobody there: it goes on at the same place with something else.
    silence(&mut world);
    world.restore(&backup);
    world.replays(Event::CleanStop);
    world.run(MINUTE);
    world.submit(2, &["bob@acme"], &[]);
    world.run(MINUTE);
    let second = world.sealed_of(2);
    assert_eq!(epochs(&mut world), 1);
    world.rules.own_lists = told;
    world.rules.silent.clear();
    world.tell(Input::PeerIsBack(key(2).peer_id()));
    world.run(MINUTE);
    assert_eq!(epochs(&mut world), 2);
    let newest = world.brain.state.list.head().epoch;
    let again: BTreeSet<MailId> = listed(&mut world)
        .into_iter()
        .filter(|(at, _)| at.epoch == newest)
        .filter_map(|(_, body)| if let EntryBody::Mail(mail) = body { Some(mail.h) } else { None })
        .collect();
    assert_eq!(again, BTreeSet::from([first, second]));
    world.crash();
    world.run(MINUTE);
    assert_eq!(epochs(&mut world), 2, "once mended it rests");
}

#[test]
fn r3_entries_are_dropped_30_days_after_expiry_behind_a_signed_base_and_the_rest_stays() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Received));
    world.submit(1, &["bob@acme"], &[]);
    world.submit(2, &["rita@readers"], &[]);
    world.run(36 * DAY);
    world.submit(3, &["bob@acme"], &[]);
    world.run(MINUTE);
    assert_eq!(mails_listed(&mut world).len(), 3, "not before 30 days have passed since expiry");
    world.run(2 * DAY);
    world.submit(4, &["bob@acme"], &[]);
    world.run(MINUTE);
    assert_eq!(mails_listed(&mut world), [world.sealed_of(3), world.sealed_of(4)]);
    assert_eq!(world.brain.state.mails.len(), 2, "what is over is forgotten");
    let page = page(&mut world, Cursor::default());
    let head = page.runs[0].verify(&key(1).peer_id(), None).unwrap().head;
    assert!(head.base_seq > Seq(0), "{head:?}");
    let (state, snapshot) = (world.brain.state.clone(), world.brain.snapshot());
    world.crash();
    assert_eq!(world.brain.state, state, "replaying gives the same");
    let mut compacted = Outbox::new(Arc::new(key(1)), super::roster(5), Notify::DirectFirst);
    snapshot.into_iter().for_each(|event| compacted.replay(event));
    assert_eq!(compacted.state, state, "and so does the compacted journal");
}

#[test]
fn r3_a_clock_that_is_far_ahead_drops_no_entries_before_it_has_stood_for_hours() {
    let mut world = World::new(5, answers(&["bob@acme"], Outcome::Received));
    world.submit(1, &["bob@acme"], &[]);
    world.run(2 * DAY);
    world.now.wall = world.now.wall + 60 * DAY;
    world.run(Duration::from_secs(1));
    // Nobody is there to tell it better.
    world.tell(Input::ClockDoubtful(false));
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    assert_eq!(mails_listed(&mut world), [world.sealed_of(1), world.sealed_of(2)]);
}

#[test]
fn a_foreign_or_forged_list_is_not_adopted() {
    let (mut world, backup, _) = sent_after_a_copy();
    let mut forged = as_read_by_a_member(&mut world);
    let last = forged.page.runs[0].entries.pop().unwrap();
    let mut altered = last.into_vec();
    altered[40] ^= 1;
    forged.page.runs[0].entries.push(altered.into());
    world.rules.own_lists = members().map(|member| (member, forged.clone())).collect();
    world.restore(&backup);
    world.run(MINUTE);
    assert!(world.brain.state.mails.is_empty());
}
