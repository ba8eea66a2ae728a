//! What an owner restored from an older copy of its disk is told late, in pieces or from elsewhere than a list, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::truth::{
    as_read_by_a_member, cancel, listed, mails_listed, members, members_know, restored_from_before,
    restored_from_before_a_cancel, sent_after_a_copy, silence, tombstone_of,
};
use super::world::{Rules, World, address, fingerprint, key, roster, submission};
use super::{DAY, MINUTE, end_of, ending, only_mail};
use crate::core::outbox::adopt::OwnPage;
use crate::core::outbox::{CancelTarget, EndedAs, Input, Lookup, NrFrom, OutboxRefusal, Reply};
use crate::core::{Brain, Token};
use crate::model::group::Roster;
use crate::model::holding::HoldingState;
use crate::model::msglist::{Cursor, Ending, Seq, Tombstone};
use crate::model::notification::Outcome;
use crate::model::policy::KOfN;
use crate::model::{Encoding, MailId, Part, Policy, WallTime};
use crate::wire::Signed;
use crate::wire::msglist::Page;

#[test]
fn r7_a_journal_torn_anywhere_in_what_was_adopted_leaves_nothing_half_ended() {
    // From before a mail was sent and cancelled: an entry and its tombstone are adopted at once.
    let mut world = World::new(5, Rules::default());
    world.run(MINUTE);
    let backup = world.outside.copy();
    world.submit(1, &["rita@readers", "bob@acme"], &[]);
    world.run(MINUTE);
    let h = only_mail(&world);
    world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(h) });
    world.run(MINUTE);
    members_know(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    let (before, after) = (backup.journal.len(), world.outside.journal.len());
    assert!(after >= before + 4, "mail, two ends, tombstone");
    for kept in before..=after {
        let mut torn = world.outside.copy();
        torn.journal.truncate(kept);
        world.restore(&torn);
        world.run(MINUTE);
        assert_eq!(ending(&world, &h), Some(Ending::Cancelled), "{kept} of {after}");
        for receiver in ["rita@readers", "bob@acme"] {
            assert_eq!(end_of(&world, 1, receiver), Some(EndedAs::Cancelled), "{receiver}, {kept} of {after}");
        }
        assert!(world.brain.state.waiting.is_empty() && world.outside.taken.is_empty(), "{kept} of {after}");
    }
}

/// A restored owner whose members know of no end of its mail, until this one says that it hears of one.
fn restored_and_told_by_none() -> (World, MailId, impl Fn(&mut World)) {
    let (mut world, _, h) = sent_after_a_copy();
    let open = world.outside.copy();
    members_know(&mut world);
    let tombstone = ByteBuf::from(cancel(&mut world, h));
    world.restored = true;
    world.restore(&open);
    world.run(MINUTE);
    world.restored = false;
    let hears = move |world: &mut World| {
        world.rules.own_lists.get_mut(&key(3).peer_id()).unwrap().page.tombstones.push(tombstone.clone());
    };
    (world, h, hears)
}

/// Member 3 says that it holds it, or nothing of it any more.
fn says(world: &mut World, h: MailId, state: HoldingState) {
    let at = world.now.wall;
    world.holds(3, h, Part::Whole, state, at);
}

const GONE: HoldingState = HoldingState::Dropped { served: Vec::new() };

/// Seed 350054378: the only one that had known of the cancel had left, and told it to the others when the owner had read what they know.
#[test]
fn r7_who_gives_up_all_that_it_held_of_an_open_mail_is_asked_once_more_what_it_knows() {
    for stops in [false, true] {
        let (mut world, h, hears) = restored_and_told_by_none();
        if stops {
            world.tell(Input::Stopping { token: Token(90) });
            world.settle();
            world.crash();
            world.run(MINUTE);
        }
        hears(&mut world);
        says(&mut world, h, HoldingState::Held);
        world.run(MINUTE);
        assert_eq!(ending(&world, &h), None, "nobody says that it has ended");
        says(&mut world, h, GONE);
        world.run(MINUTE);
        assert_eq!(ending(&world, &h), Some(Ending::Cancelled), "stopped in between: {stops}");
    }
}

#[test]
fn r7_who_gives_it_up_while_it_is_asked_may_have_made_its_answer_before_that() {
    let (mut world, h, hears) = restored_and_told_by_none();
    let open = world.outside.copy();
    world.restore(&open);
    let member = key(3).peer_id();
    world.rules.unheard = true;
    world.run(MINUTE);
    let (asked, since) = *world.outside.own_list_asked.iter().rfind(|(who, _)| *who == member).unwrap();
    let answer = world.rules.own_lists[&member].clone();
    says(&mut world, h, GONE);
    world.settle();
    hears(&mut world);
    world.rules.unheard = false;
    world.tell(Input::OwnList { member: asked, since, answer: Some(answer) });
    world.settle();
    assert_eq!(ending(&world, &h), None);
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
}

#[test]
fn r9_who_says_for_ever_that_it_gave_something_up_is_asked_ever_more_seldom() {
    let (mut world, h, _) = restored_and_told_by_none();
    let asked = |world: &World| world.outside.own_list_asked.len();
    let mut goes_on = |minutes: u32| {
        let before = asked(&world);
        for _ in 0..minutes {
            says(&mut world, h, GONE);
            world.run(MINUTE);
        }
        asked(&world) - before
    };
    let first = goes_on(60);
    assert!((10..=20).contains(&first), "{first} times in an hour");
    let then = goes_on(60 * 24);
    assert!((280..=288).contains(&then), "{then} times in a day, once in five minutes");
    // Long after that it is as if it were the first time.
    world.run(DAY);
    let before = asked(&world);
    says(&mut world, h, GONE);
    world.run(Duration::from_secs(2));
    assert_eq!(asked(&world), before + 1);
    says(&mut world, h, GONE);
    world.settle();
    assert!(world.brain.may_be_an_old_copy(), "no cancel is sure until then");
    assert_eq!(world.brain.observe(world.now).unread, 0, "nobody who leaves waits for that");
    world.run(Duration::from_secs(2));
    assert_eq!(asked(&world), before + 2);
    assert!(!world.brain.may_be_an_old_copy());
}

#[test]
fn r2_a_mail_that_is_adopted_late_expires_with_a_word_to_its_sender() {
    let (mut world, backup, h) = sent_after_a_copy();
    members_know(&mut world);
    silence(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    let shown = |world: &World| world.brain.observe(world.now);
    assert_eq!((shown(&world).mails, shown(&world).unread), (0, 5), "who looks at this only would let it leave");
    world.rules.silent.clear();
    world.outside.hellos.clear();
    world.tell(Input::PeerIsBack(key(3).peer_id()));
    world.run(2 * MINUTE);
    assert_eq!((shown(&world).mails, shown(&world).unread), (1, 0));
    assert_eq!(end_of(&world, 1, "rita@readers"), None);
    assert!(world.outside.hellos.contains(&key(2).peer_id()), "what members said of it before was of no use");
    assert!(world.outside.shown.contains_key(&submission(1)), "it is shown as what waits");
    world.run(8 * DAY);
    assert_eq!(ending(&world, &h), Some(Ending::Expired));
    assert_eq!(world.outside.dsns.len(), 1, "its sender is told");
}

#[test]
fn r2_a_member_that_did_not_answer_in_time_is_asked_again_though_nobody_says_that_it_is_back() {
    let (mut world, h) = restored_from_before_a_cancel(silence);
    world.rules.silent.clear();
    world.run(2 * MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
    // Whoever has answered is left in peace.
    let asked = world.outside.own_list_asked.len();
    world.run(DAY);
    assert_eq!(world.outside.own_list_asked.len(), asked);
}

#[test]
fn r2_an_nr_for_a_mail_that_a_member_may_yet_tell_of_is_put_off_for_ten_minutes() {
    let (mut world, h) = restored_from_before(false);
    silence(&mut world);
    world.crash();
    world.run(MINUTE);
    let rita = address("rita@readers");
    let nr = world.nr(h, submission(1), &rita, Outcome::Received);
    let say = |world: &mut World, token: u64| {
        let from = NrFrom::Direct(Token(token));
        world.tell(Input::Nr { from, nr: nr.clone(), signer: fingerprint(&rita) });
        world.settle();
        world.replies[&Token(token)].clone()
    };
    assert_eq!(say(&mut world, 70), Reply::Refused(OutboxRefusal::NotYet));
    world.run(10 * MINUTE);
    assert!(matches!(say(&mut world, 71), Reply::Refused(OutboxRefusal::BadNr { .. })), "not for ever");
    world.rules.silent.clear();
    world.run(2 * MINUTE);
    assert_eq!(say(&mut world, 72), Reply::NrTaken, "once it was told of");
    assert_eq!(ending(&world, &h), Some(Ending::Received));
}

#[test]
fn r7_a_tombstone_that_no_list_has_wins_too_and_is_listed() {
    let (mut world, backup, h) = sent_after_a_copy();
    // The member has read of the mail, and was told by a 410 that it is gone.
    let read = as_read_by_a_member(&mut world);
    let tombstone = ByteBuf::from(cancel(&mut world, h));
    let page = Page { tombstones: vec![tombstone, ByteBuf::from(b"no tombstone".to_vec())], ..read.page.clone() };
    let told = OwnPage { page, ..read };
    for is_late in [false, true] {
        world.rules.own_lists = members().map(|member| (member, told.clone())).collect();
        if is_late {
            silence(&mut world);
        }
        world.restore(&backup);
        world.run(MINUTE);
        world.rules.silent.clear();
        world.run(2 * MINUTE);
        assert_eq!(ending(&world, &h), Some(Ending::Cancelled), "late: {is_late}");
        assert!(world.outside.taken.is_empty(), "nothing that is gone is announced");
        assert_eq!(mails_listed(&mut world), [h], "and those who read on learn of its end");
        assert_eq!(
            world.outside.gone_told,
            [address("rita@readers")],
            "its reader is told, as if it were cancelled now"
        );
        // Told again at the next start it is nothing new.
        let entries = world.brain.state.list.head();
        world.crash();
        world.run(MINUTE);
        assert_eq!((ending(&world, &h), world.brain.state.list.head()), (Some(Ending::Cancelled), entries));
    }
}

#[test]
fn r4_r7_a_members_own_tombstone_neither_ends_a_mail_nor_hides_the_owners() {
    let (mut world, backup, h) = sent_after_a_copy();
    let read = as_read_by_a_member(&mut world);
    let gone = Tombstone {
        owner: key(3).peer_id(),
        h,
        ending: Ending::Expired,
        at: WallTime(1),
        expiry: world.now.wall + DAY,
    };
    let foreign = OwnPage {
        page: Page { tombstones: vec![ByteBuf::from(key(3).sign(gone).to_entry().0)], ..read.page.clone() },
        ..read.clone()
    };
    world.rules.own_lists = members().map(|member| (member, foreign.clone())).collect();
    world.restore(&backup);
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), None, "R4: only the owner says that its mail is gone");
    assert!(world.outside.blobs.contains(&h));
    // One member knows the true one; what the others say before and after does not hide it.
    let own = ByteBuf::from(cancel(&mut world, h));
    let told = OwnPage { page: Page { tombstones: vec![own], ..read.page.clone() }, ..read };
    world.rules.own_lists.insert(key(4).peer_id(), told);
    world.restore(&backup);
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
}

/// Seed 42081: a mail that was listed anew after the copy was made was not yet durable as adopted when the others were announced.
#[test]
fn r2_a_mail_that_is_adopted_as_listed_anew_goes_on_being_announced() {
    let mut world = World::new(5, Rules { slow_disk: true, ..Rules::default() });
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    let policy = Policy { fragments: KOfN { k: 2, n: 4 }, copies: 3, ..Policy::default() };
    world.tell(Input::Roster(Arc::new(Roster { policy, ..(*roster(5)).clone() })));
    world.run(MINUTE);
    members_know(&mut world);
    world.restore(&backup);
    let before = world.outside.taken.len();
    world.run(3 * DAY + MINUTE);
    assert_eq!(world.outside.taken.len() - before, 3, "once a day");
}

/// Seeds 606817 and 609723: nobody had the manifest of the encoding that a restored owner was told of, so nobody could keep a part.
#[test]
fn r12_a_restored_owner_makes_the_manifest_of_an_encoding_that_its_members_told_of() {
    let (told, before) = (Encoding::Fragments { k: 3, n: 5 }, Encoding::Fragments { k: 2, n: 4 });
    let policy = Policy { fragments: KOfN { k: 2, n: 4 }, copies: 3, ..Policy::default() };
    let mut world = World::new(5, Rules::default());
    world.tell(Input::Roster(Arc::new(Roster { policy, ..(*roster(5)).clone() })));
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let h = only_mail(&world);
    assert_eq!(world.brain.state.mails[&h].facts.encoding, before);
    let backup = world.outside.copy();
    world.tell(Input::Roster(roster(5)));
    world.run(MINUTE);
    assert!(world.outside.manifests.contains(&(h, told)));
    members_know(&mut world);

    world.restore(&backup);
    assert!(world.outside.manifests.is_empty());
    // The power fails before there is room for it.
    world.rules.disk_full = true;
    world.run(MINUTE);
    assert_eq!(world.brain.state.mails[&h].facts.encoding, told, "as the members keep it");
    world.crash();
    world.run(MINUTE);
    world.rules.disk_full = false;
    world.run(2 * MINUTE);
    assert!(world.outside.manifests.contains(&(h, told)));
    assert_eq!(mails_listed(&mut world), [h, h], "it is listed as it was");
    world.outside.manifests.clear();
    world.run(DAY);
    assert!(world.outside.manifests.is_empty(), "once is enough");
}

/// Seed 2002591: the only member that answered a restored owner said that nothing had come since, though it had read the next entry
/// itself; what was listed at that place again it passed over.
#[test]
fn r12_a_restored_owner_lists_nothing_where_it_may_have_listed_before() {
    let mut world = World::new(5, Rules::default());
    world.run(MINUTE);
    let backup = world.outside.copy();
    members_know(&mut world);
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let place = |world: &mut World| listed(world).last().map(|(at, _)| *at).unwrap();
    let before = place(&mut world);
    world.restored = true;
    world.restore(&backup);
    world.run(MINUTE);
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    let after = place(&mut world);
    assert!(after.epoch > before.epoch, "{after:?} after {before:?}");
}

/// Seed 80011205: the only member that could tell a restored owner of its cancel kept that back when it was asked for the list, and said so
/// at every audit; the owner went on to count what that member had held.
#[test]
fn r7_r8_a_members_answer_to_an_audit_that_a_mail_is_gone_ends_it_if_its_owner_signed_that() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    let h = only_mail(&world);
    let own = cancel(&mut world, h);
    let gone = Signed::<Tombstone>::verify(&own).unwrap();
    let foreign = Tombstone { owner: key(3).peer_id(), h, ending: gone.ending, at: gone.at, expiry: gone.expiry };
    let foreign = key(3).sign(foreign).to_entry().0;
    silence(&mut world);
    world.restore(&backup);
    for tombstone in [foreign, b"no tombstone".to_vec()] {
        world.tell(Input::AuditedGone { member: key(3).peer_id(), h, tombstone });
        world.run(MINUTE);
        assert_eq!(ending(&world, &h), None, "R4: only the owner says that its mail is gone");
    }
    world.tell(Input::AuditedGone { member: key(3).peer_id(), h, tombstone: own.clone() });
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
    assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Cancelled));
    assert!(world.brain.status().submissions.is_empty(), "nothing of it is shown as safe any more");
    // Said again it is nothing new.
    let (entries, written) = (world.brain.state.list.head(), world.outside.journal.len());
    world.tell(Input::AuditedGone { member: key(3).peer_id(), h, tombstone: own });
    world.run(MINUTE);
    assert_eq!((world.brain.state.list.head(), world.outside.journal.len()), (entries, written));
    world.crash();
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
}

/// The owner starts anew, and one member tells it the last entry of three that it read, then, asked for all, all of them.
fn starts_and_is_told(world: &mut World, read: &OwnPage) {
    world.rules.unheard = true;
    let group = world.brain.roster.clone();
    world.crash();
    world.tell(Input::Roster(group));
    world.settle();
    let member = key(3).peer_id();
    let (mut run, last) = (read.page.runs[0].clone(), read.page.runs[0].entries.len() - 1);
    (run.after, run.entries) = (Seq(2), run.entries.split_off(last));
    let tail = OwnPage { page: Page { runs: vec![run], ..read.page.clone() }, ..read.clone() };
    let since = world.outside.own_list_asked.last().unwrap().1;
    assert!(!tail.reaches_beyond(since) && tail.reaches_beyond(Cursor::default()));
    world.tell(Input::OwnList { member, since, answer: Some(tail) });
    world.settle();
    assert_eq!(world.outside.own_list_asked.last(), Some(&(member, Cursor::default())), "it is read from the start");
    world.tell(Input::OwnList { member, since: Cursor::default(), answer: Some(read.clone()) });
    world.settle();
}

/// Seed 80009897: an owner that does not know that its disk is an old one listed other mails where a member had read on before, and
/// heard of those only after another start.
#[test]
fn r7_an_owner_that_listed_other_mails_where_a_member_read_on_learns_it_from_the_last_entry_alone() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    world.submit(2, &["rita@readers"], &[]);
    world.submit(3, &["rita@readers"], &[]);
    world.run(MINUTE);
    let read = as_read_by_a_member(&mut world);
    let mails = mails_listed(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    world.submit(4, &["rita@readers"], &[]);
    world.submit(5, &["rita@readers"], &[]);
    world.run(MINUTE);
    let others = mails_listed(&mut world);
    assert_eq!((mails.len(), others.len(), mails[0]), (3, 3, others[0]));
    assert_eq!(world.brain.state.list.epochs().count(), 1, "others stand where those stood");

    starts_and_is_told(&mut world, &read);
    world.run(MINUTE);
    assert_eq!(world.brain.state.list.epochs().count(), 2);
    let listed = mails_listed(&mut world);
    assert!(mails.iter().chain(&others).all(|h| listed.contains(h)), "and whoever reads on hears of all of them");

    // What stood there is told of at every start. It says nothing against what the later epoch says.
    let now = Encoding::Fragments { k: 2, n: 4 };
    let policy = Policy { fragments: KOfN { k: 2, n: 4 }, copies: 3, ..Policy::default() };
    world.tell(Input::Roster(Arc::new(Roster { policy, ..(*roster(5)).clone() })));
    world.run(MINUTE);
    let is_kept_so = |world: &World| world.brain.state.mails.values().all(|mail| mail.facts.encoding == now);
    assert!(is_kept_so(&world) && world.brain.state.mails.len() == 5);
    let head = world.brain.state.list.head();
    for start in 1..=2 {
        starts_and_is_told(&mut world, &read);
        assert!(is_kept_so(&world), "start {start}");
        world.run(MINUTE);
        assert_eq!(world.brain.state.list.head(), head, "start {start}: nothing is listed anew");
    }
}

#[test]
fn r2_r7_a_mail_that_is_long_over_does_not_come_back_with_what_members_read_elsewhere() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(MINUTE);
    let backup = world.outside.copy();
    world.submit(2, &["rita@readers"], &[]);
    world.run(MINUTE);
    let h = world.sealed_of(2);
    members_know(&mut world);
    silence(&mut world);
    world.run(10 * DAY);
    world.outside.dsns.clear();
    // Nobody answers, so it opens another epoch, and is told late.
    world.restore(&backup);
    world.run(MINUTE);
    world.rules.silent.clear();
    world.run(DAY);
    assert_eq!(ending(&world, &h), Some(Ending::Expired));
    assert_eq!(world.outside.dsns.len(), 2, "that of the first mail, too");
    world.run(27 * DAY);
    world.submit(3, &["rita@readers"], &[]);
    world.run(DAY);
    let forgot = |world: &World| !world.brain.state.mails.contains_key(&h) && !world.brain.state.gone.contains_key(&h);
    assert!(forgot(&world), "30 days after its expiry");
    world.outside.dsns.clear();
    let head = world.brain.state.list.head();
    world.crash();
    world.run(DAY);
    assert!(world.outside.own_list_asked.last().unwrap().1.epoch < head.epoch, "members are asked from before");
    assert!(forgot(&world) && world.outside.dsns.is_empty(), "its sender was told");
    assert_eq!(world.brain.state.list.head(), head);
}

/// An owner that nobody tells of a mail that it sent since its copy was made, but that the mail is gone; and what members have read of it.
fn knows_only_the_end(ends: impl FnOnce(&mut World, MailId)) -> (World, MailId) {
    let (mut world, backup, h) = sent_after_a_copy();
    // They were off when it came to its end.
    members_know(&mut world);
    ends(&mut world, h);
    let tombstone = tombstone_of(&world, h);
    silence(&mut world);
    world.restore(&backup);
    world.run(MINUTE);
    world.tell(Input::AuditedGone { member: key(3).peer_id(), h, tombstone });
    world.settle();
    assert!(world.brain.state.gone.contains_key(&h) && world.brain.state.mails.is_empty());
    world.outside.dsns.clear();
    world.outside.gone_told.clear();
    (world, h)
}

/// Seed 320034490: the mail was passed over for its end that was known, so its sender heard nothing of it.
#[test]
fn r2_a_mail_whose_end_was_told_first_ends_as_that_says_with_a_word_to_its_sender() {
    let (mut world, h) = knows_only_the_end(|world, h| {
        world.run(8 * DAY);
        assert_eq!(ending(world, &h), Some(Ending::Expired));
    });
    let known = world.outside.copy();
    for at_start in [false, true] {
        silence(&mut world);
        world.restore(&known);
        if at_start {
            world.rules.silent.clear();
        }
        world.run(MINUTE);
        world.rules.silent.clear();
        world.run(2 * MINUTE);
        assert_eq!(ending(&world, &h), Some(Ending::Expired), "at the start: {at_start}");
        assert_eq!(end_of(&world, 1, "rita@readers"), Some(EndedAs::Expired));
        assert_eq!(world.outside.dsns.len(), 1, "its sender is told, at the start: {at_start}");
        assert!(world.outside.taken.is_empty(), "and nobody that it is there");
        // Told again at the next start it is nothing new.
        let head = world.brain.state.list.head();
        world.crash();
        world.run(MINUTE);
        assert_eq!((world.outside.dsns.len(), world.brain.state.list.head()), (1, head));
    }
}

#[test]
fn r7_a_mail_whose_end_was_told_first_is_never_open_wherever_the_journal_is_torn() {
    let (mut world, h) = knows_only_the_end(|world, h| {
        world.tell(Input::Cancel { token: Token(50), target: CancelTarget::Mail(h) });
        world.run(MINUTE);
    });
    let before = world.outside.journal.len();
    world.rules.silent.clear();
    world.crash();
    let is_gone = |world: &mut World| {
        world.tell(Input::Lookup { token: Token(60), h });
        world.settle();
        matches!(world.replies.remove(&Token(60)), Some(Reply::Lookup(Lookup::Gone(_))))
    };
    assert!(is_gone(&mut world), "also before new entries may be made");
    world.run(MINUTE);
    assert_eq!(ending(&world, &h), Some(Ending::Cancelled));
    assert_eq!(world.outside.gone_told, [address("rita@readers")], "its reader is told that it was taken back");
    let after = world.outside.journal.len();
    assert!(after >= before + 3, "mail, end, tombstone");
    let whole = world.outside.copy();
    silence(&mut world);
    for kept in before..=after {
        let mut torn = whole.copy();
        torn.journal.truncate(kept);
        world.restore(&torn);
        assert!(is_gone(&mut world), "{kept} of {after}");
        world.run(MINUTE);
        assert!(is_gone(&mut world) && world.brain.state.open.is_empty(), "{kept} of {after}");
        assert!(world.outside.taken.is_empty(), "{kept} of {after}");
    }
}
