//! Which commits wait some milliseconds for others, and share their sync: none that somebody waits for, and none that a mail hangs on.

use std::time::Duration;

use super::world::{Rules, World, address, fingerprint, submission};
use crate::core::outbox::io::Mark;
use crate::core::outbox::{Action, Event, Input, NrFrom, Outbox, Reply};
use crate::core::{Brain, Effect, Token};
use crate::model::holding::HoldingState;
use crate::model::notification::Outcome;
use crate::model::{MailId, Part};

fn durable(sealed: Vec<MailId>) -> Effect<Outbox> {
    Effect::Feed(Input::Durable(Mark { sealed, ..Mark::default() }))
}

#[test]
fn a_commit_waits_only_when_nothing_but_the_word_that_it_is_durable_hangs_on_it() {
    assert!(Outbox::may_wait(&[]));
    assert!(Outbox::may_wait(&[durable(Vec::new())]));
    assert!(!Outbox::may_wait(&[durable(vec![MailId::new([1; 20])])]), "a sealed mail is announced at once");
    let reply = || Effect::Reply(Token(1), Reply::Stopped);
    assert!(!Outbox::may_wait(&[reply()]), "somebody waits for it");
    assert!(!Outbox::may_wait(&[durable(Vec::new()), reply()]));
    let act = Effect::Act(Action::DropBlob { h: MailId::new([1; 20]) });
    assert!(!Outbox::may_wait(&[durable(Vec::new()), act]));
    assert!(!Outbox::may_wait(&[Effect::Feed(Input::ClockDoubtful(false))]), "only that word is known to have time");
}

/// Whether the commits with such an event waited.
fn waited(world: &World, is_one: impl Fn(&Event) -> bool) -> Vec<bool> {
    world.committed.iter().filter(|(events, _)| events.iter().any(&is_one)).map(|(_, waits)| *waits).collect()
}

#[test]
fn submitter_sealing_members_and_readers_wait_for_no_other_commit_and_what_was_announced_does() {
    let mut world = World::new(5, Rules::default());
    world.submit(1, &["rita@readers"], &[]);
    world.run(Duration::from_secs(1));
    let h = world.sealed_of(1);
    assert_eq!(world.holds(2, h, Part::Whole, HoldingState::Held, world.now.wall), Reply::HoldingsTaken);
    let reader = address("rita@readers");
    let nr = world.nr(h, submission(1), &reader, Outcome::Received);
    world.tell(Input::Nr { from: NrFrom::Direct(Token(70)), nr, signer: fingerprint(&reader) });
    world.settle();
    assert_eq!(world.replies[&Token(70)], Reply::NrTaken);

    assert_eq!(waited(&world, |event| matches!(event, Event::Submitted { .. })), [false], "SMTP waits for its 250");
    assert_eq!(waited(&world, |event| matches!(event, Event::Sealed { .. })), [false], "it is announced then");
    assert_eq!(waited(&world, |event| matches!(event, Event::Holdings { .. })), [false], "the member waits");
    assert_eq!(waited(&world, |event| matches!(event, Event::Ended { .. })), [false], "the reader waits");
    let announced = waited(&world, |event| matches!(event, Event::Announced { .. }));
    assert!(!announced.is_empty() && announced.iter().all(|waits| *waits), "it is only shown: {announced:?}");
}
