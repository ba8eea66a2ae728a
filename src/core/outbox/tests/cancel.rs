//! What a cancel comes to, told with holders, readers and power cuts.

use std::time::Duration;

use super::world::{Rules, START, World, address, key, peer, submission};
use super::{DAY, MINUTE, only_mail};
use crate::core::outbox::events::Word;
use crate::core::outbox::{CancelAnswer, CancelTarget, Event, Input, Lookup, Reply};
use crate::core::{Brain as _, Token};
use crate::model::holding::HoldingState;
use crate::model::notification::{Outcome, Refusal};
use crate::model::{Address, MailId, Part, PeerId};

const SECOND: Duration = Duration::from_secs(1);

fn fragment(i: u8) -> Part {
    Part::Fragment { k: 3, i }
}
fn rita() -> Address {
    address("rita@readers")
}
/// A mail to rita, whose peer is away, kept as five fragments by five members.
fn kept(rules: Rules) -> (World, MailId) {
    let away = [rita()].into();
    let mut world = World::new(5, Rules { away, ..rules });
    world.submit(1, &["rita@readers"], &[]);
    world.run(SECOND);
    let h = only_mail(&world);
    for i in 0..5u8 {
        world.serves(key(i + 2).peer_id(), h);
        world.holds(i + 2, h, fragment(i), HoldingState::Held, START);
    }
    (world, h)
}
fn drops(world: &mut World, i: u8, h: MailId, served: Vec<(PeerId, u64)>) {
    let at = world.now.wall;
    world.holds(i + 2, h, fragment(i), HoldingState::Dropped { served }, at);
}
fn cancel(world: &mut World) -> Vec<CancelAnswer> {
    let token = Token(world.fresh());
    world.tell(Input::Cancel { token, target: CancelTarget::Submission(submission(1)) });
    world.settle();
    match &world.replies[&token] {
        Reply::Cancel(_, answers) => answers.iter().map(|(_, answer)| *answer).collect(),
        other => panic!("{other:?}"),
    }
}
fn word(world: &World) -> &'static str {
    world.brain.observe(world.now).ended_lately[0].receivers[0].1
}

#[test]
fn a_cancel_is_uncertain_until_too_few_parts_are_left_unconfirmed() {
    let (mut world, h) = kept(Rules::default());
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    assert_eq!(word(&world), "uncertain");
    for i in 0..2 {
        drops(&mut world, i, h, vec![]);
        assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain], "three parts are left, and three are enough");
    }
    drops(&mut world, 2, h, vec![]);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "two parts are left");
    assert_eq!(word(&world), "cancelled");
    world.crash();
    world.run(MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "also after a crash");
}

#[test]
fn a_holder_that_served_the_reader_keeps_it_uncertain_until_the_reader_says_received() {
    let (mut world, h) = kept(Rules::default());
    cancel(&mut world);
    for i in 0..5 {
        let served = if i == 1 { vec![(peer(&rita()), 0)] } else { vec![] };
        drops(&mut world, i, h, served);
    }
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    let nr = world.nr(h, submission(1), &rita(), Outcome::Received);
    world.outside.dht_nr.insert(crate::model::Digest::new([1; 32]), nr);
    world.run(2 * MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::TooLate], "the DHT is still polled for its word");
    assert_eq!(word(&world), "too late");
    world.crash();
    assert_eq!(cancel(&mut world), [CancelAnswer::TooLate]);
    world.run(DAY);
    assert!(world.brain.poll_timeout().is_none(), "nothing is left to wait for: {:?}", world.brain.timers);
}

#[test]
fn what_this_peer_served_the_reader_itself_keeps_it_uncertain_also_after_a_crash() {
    let (mut world, h) = kept(Rules::default());
    assert!(world.serves(peer(&rita()), h));
    world.crash();
    world.run(SECOND);
    cancel(&mut world);
    (0..5).for_each(|i| drops(&mut world, i, h, vec![]));
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    world.rules.away.clear();
    world.tell(Input::PeerIsBack(peer(&rita())));
    world.run(SECOND);
    assert_eq!(
        cancel(&mut world),
        [CancelAnswer::Cancelled],
        "the reader's peer took the tombstone: it cannot open it"
    );
}

#[test]
fn a_member_that_was_served_and_said_nothing_may_hold_a_part() {
    let (mut world, h) = kept(Rules::default());
    let silent = PeerId::new([77; 32]);
    cancel(&mut world);
    for i in 0..5 {
        let served = if i == 4 { vec![(silent, 70_000)] } else { vec![] };
        drops(&mut world, i, h, served);
    }
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
}

#[test]
fn a_lost_part_is_not_confirmed_gone() {
    let (mut world, h) = kept(Rules::default());
    cancel(&mut world);
    for i in 0..3 {
        world.holds(i + 2, h, fragment(i), HoldingState::Lost, START + MINUTE);
    }
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain], "its holder may have served it before");
}

#[test]
fn nothing_is_served_once_a_mail_is_cancelled_and_nothing_more_is_counted() {
    let (mut world, h) = kept(Rules::default());
    world.tell(Input::Served { caller: key(2).peer_id(), mails: vec![(h, 500)] });
    world.settle();
    assert_eq!(world.brain.state.mails[&h].served.as_ref().unwrap().get(&key(2).peer_id()), Some(&500));
    cancel(&mut world);
    assert!(!world.serves(peer(&rita()), h));
    world.tell(Input::Served { caller: key(2).peer_id(), mails: vec![(h, 5000)] });
    world.settle();
    assert!(world.brain.serving.is_empty());
}

#[test]
fn several_mails_are_looked_up_and_written_down_as_served_in_one_record() {
    let away = [rita()].into();
    let mut world = World::new(5, Rules { away, ..Rules::default() });
    for x in 1..=3 {
        world.submit(x, &["rita@readers"], &[]);
    }
    world.run(SECOND);
    let mut mails: Vec<MailId> = world.brain.state.mails.keys().copied().collect();
    assert_eq!(mails.len(), 3);
    world.tell(Input::Cancel { token: Token(900), target: CancelTarget::Mail(mails[2]) });
    world.settle();
    mails.push(MailId::new([99; 20]));
    let (caller, journal) = (key(2).peer_id(), world.outside.journal.len());
    world.tell(Input::ServingAll { token: Token(901), mails: mails.clone(), caller });
    assert!(!world.replies.contains_key(&Token(901)), "not before it is on disk");
    world.settle();
    let Reply::ServeAll(known) = &world.replies[&Token(901)] else { panic!("{:?}", world.replies[&Token(901)]) };
    assert!(matches!(known[..], [Lookup::Owned(_), Lookup::Owned(_), Lookup::Gone(_), Lookup::Unknown]), "{known:?}");
    assert_eq!(world.outside.journal.len() - journal, 2, "two events");
    world.tell(Input::Served { caller, mails: vec![(mails[0], 500), (mails[1], 600), (mails[2], 700)] });
    world.settle();
    let served =
        |h: &MailId| world.brain.state.mails[h].served.as_ref().and_then(|served| served.get(&caller).copied());
    assert_eq!(mails[..3].iter().map(served).collect::<Vec<_>>(), [Some(500), Some(600), None]);
}

#[test]
fn one_mail_is_served_to_a_bounded_number_of_peers() {
    let (mut world, h) = kept(Rules::default());
    let served = (0..300u16).filter(|n| {
        let mut id = [9; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        world.serves(PeerId::new(id), h)
    });
    assert_eq!(served.count(), 256 - 5);
    assert!(world.serves(key(2).peer_id(), h), "one that was served before is served again");
}

#[test]
fn a_mail_from_before_it_was_counted_whom_it_was_served_to_stays_uncertain() {
    let (mut world, h) = kept(Rules::default());
    for event in &mut world.outside.journal {
        if let Event::Sealed { counted, .. } = event {
            *counted = false;
        }
    }
    world.crash();
    world.run(SECOND);
    assert!(world.serves(key(2).peer_id(), h), "it is served all the same");
    cancel(&mut world);
    (0..5).for_each(|i| drops(&mut world, i, h, vec![]));
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
}

#[test]
fn what_the_reader_refused_was_cancelled_in_time() {
    let (mut world, h) = kept(Rules::default());
    cancel(&mut world);
    let nr = world.nr(h, submission(1), &rita(), Outcome::Refused(Refusal::Unread));
    world.outside.dht_nr.insert(crate::model::Digest::new([1; 32]), nr);
    world.run(2 * MINUTE);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled]);
}

#[test]
fn a_reader_is_told_until_its_peer_takes_it_and_not_again() {
    let (mut world, _) = kept(Rules::default());
    cancel(&mut world);
    world.run(DAY);
    let attempts = world.outside.gone_attempts;
    assert!((280..=310).contains(&attempts), "{attempts}: soon at first, then every 5 min");
    world.rules.away.clear();
    world.run(10 * MINUTE);
    assert_eq!((world.outside.gone_told.len(), cancel(&mut world)), (1, vec![CancelAnswer::Cancelled]));
    world.crash();
    world.run(DAY);
    assert_eq!(world.outside.gone_told.len(), 1);
    assert!(world.brain.poll_timeout().is_none(), "nothing is left to wait for: {:?}", world.brain.timers);
}

#[test]
fn a_power_cut_at_any_step_of_a_cancel_keeps_its_answer_true() {
    let story = |fuse: Option<usize>| {
        let (mut world, h) = kept(Rules::default());
        (world.steps, world.was_served) = (0, false);
        world.fuse = fuse;
        world.tell(Input::Serving { token: Token(8000), h, caller: peer(&rita()) });
        world.settle();
        let was_served = world.was_served;
        cancel_quietly(&mut world);
        cancel_quietly(&mut world);
        (0..5).for_each(|i| drops(&mut world, i, h, vec![]));
        (world, h, was_served)
    };
    let steps = story(None).0.steps;
    assert!(steps > 20, "{steps}");
    for fuse in 1..=steps {
        let (mut world, h, was_served) = story(Some(fuse));
        world.fuse = None;
        world.run(SECOND);
        (0..5).for_each(|i| drops(&mut world, i, h, vec![]));
        let answer = cancel(&mut world);
        assert!(!was_served || answer == [CancelAnswer::Uncertain], "cut at step {fuse}: {answer:?}");
    }
}

fn cancel_quietly(world: &mut World) {
    let token = Token(world.fresh());
    world.tell(Input::Cancel { token, target: CancelTarget::Submission(submission(1)) });
    world.settle();
}

#[test]
fn a_mail_that_was_sealed_twice_is_cancelled_only_when_both_forms_are_out_of_reach() {
    let (mut world, h) = kept(Rules::default());
    // Another form of it from before a restore, which rita can open too, and of which a member holds all.
    let mut other = world.brain.state.mails[&h].clone();
    (other.facts.h, other.served) = (MailId::new([200; 20]), Some([].into()));
    other.holdings = [((key(2).peer_id(), Part::Whole), Word { at: START, state: HoldingState::Held })].into();
    world.replays(Event::KeptMail(other.clone()));
    world.brain.adoption.doubled.insert(other.facts.h);
    cancel(&mut world);
    (0..5).for_each(|i| drops(&mut world, i, h, vec![]));
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    world.tell(Input::GoneTold { h, receiver: rita(), done: true });
    world.run(SECOND);
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain], "a tombstone of one says nothing of the other");
    world.tell(Input::GoneTold { h: other.facts.h, receiver: rita(), done: true });
    world.run(SECOND);
    assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "it took those of both");
}

/// Seed 44032: nobody could tell the clock better, and by the time that it was right the reader was not told any more.
#[test]
fn r12_a_reader_is_told_though_the_clock_was_past_the_end_of_the_mail_for_a_while() {
    let (mut world, _) = kept(Rules::default());
    let right = world.now.wall;
    world.now.wall = right + 45 * DAY;
    world.run(Duration::from_secs(1));
    world.tell(Input::ClockDoubtful(false));
    assert_eq!(cancel(&mut world), [CancelAnswer::Uncertain]);
    world.run(20 * MINUTE);
    world.now.wall = right + 20 * MINUTE;
    world.run(MINUTE);
    world.tell(Input::ClockDoubtful(false));
    world.rules.away.clear();
    world.run(10 * MINUTE);
    assert_eq!((world.outside.gone_told.len(), cancel(&mut world)), (1, vec![CancelAnswer::Cancelled]));
}

/// Seed 380101875: nobody had marked the copy as one, and no member could be heard. The original had served it since.
#[test]
fn r7_an_owner_that_did_not_stop_in_order_is_sure_of_no_cancel_before_its_members_are_heard() {
    for stops in [true, false] {
        let mut world = World::new(5, Rules { away: [rita()].into(), ..Rules::default() });
        world.submit(1, &["rita@readers"], &[]);
        world.run(SECOND);
        if stops {
            world.tell(Input::Stopping { token: Token(90) });
            world.settle();
        }
        world.rules.silent = (2..=6).map(|n| key(n).peer_id()).collect();
        world.crash();
        world.run(MINUTE);
        let sure = if stops { CancelAnswer::Cancelled } else { CancelAnswer::Uncertain };
        assert_eq!(cancel(&mut world), [sure]);
        world.rules.silent.clear();
        world.run(2 * MINUTE);
        assert_eq!(cancel(&mut world), [CancelAnswer::Cancelled], "this disk was as it should be");
    }
}
