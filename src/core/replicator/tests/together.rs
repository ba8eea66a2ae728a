//! Short parts, asked for and told of together: what is listed in one moment costs one page, one request, one commit and one report,
//! and what comes alone waits for nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::world::{World, h, id};
use crate::core::replicator::follow::GATHER;
use crate::core::replicator::{
    Action, Config, Event, Input, MirrorFailure, MirrorOrder, Mirrored, PartsDropped, Replicator, SHORT_BYTES,
};
use crate::core::{Brain as _, Effect};
use crate::model::holding::{HoldingState, Holdings};
use crate::model::msglist::{Cursor, EntryBody};
use crate::model::{ByteSize, Encoding, MailId, Now, Part};

/// Bob mirrors for alice; the two are the group, so every mail is placed at him.
struct Bob {
    world: World,
    brain: Replicator,
    now: Now,
    /// The question for alice's list that is under way: its round, and what he has read.
    asks: Option<(u64, Cursor)>,
    requests: Vec<Vec<MirrorOrder>>,
    commits: Vec<Vec<Event>>,
    reports: Vec<(u64, Holdings)>,
}

impl Bob {
    fn new() -> Self {
        let mut world = World::new(&["alice", "bob"]);
        let (roster, now) = (world.roster("bob"), world.now);
        // Somebody else's bob: the world's own one does not take part.
        world.kill("bob");
        let brain = Replicator::new(Config { quota: ByteSize::gib(1), seed: 1 });
        let (requests, commits, reports) = (vec![], vec![], vec![]);
        let mut bob = Self { world, brain, now, asks: None, requests, commits, reports };
        bob.tell(Input::Start(roster));
        bob.answered();
        bob
    }
    fn tell(&mut self, input: Input) {
        self.brain.handle(self.now, input);
        self.take();
    }
    fn take(&mut self) {
        let mut queue = VecDeque::new();
        while let Some(effect) = queue.pop_front().or_else(|| self.brain.poll_effect()) {
            match effect {
                Effect::Act(Action::Mirror(orders)) => self.requests.push(orders),
                Effect::Act(Action::Follow { round, since, .. }) => self.asks = Some((round, since)),
                Effect::Act(Action::Report { upto, holdings, .. }) => self.reports.push((upto, holdings)),
                Effect::Act(Action::CheckParts { address, .. }) => {
                    self.brain.handle(self.now, Input::Checked { address, missing: vec![] });
                }
                Effect::Act(Action::CompareHoldings { owner, .. }) => {
                    self.brain.handle(self.now, Input::Compared { owner, result: Ok(vec![]) });
                }
                Effect::Feed(input) => self.brain.handle(self.now, input),
                Effect::Commit { events, then } => {
                    if !events.is_empty() {
                        self.commits.push(events);
                    }
                    queue.extend(then);
                }
                _ => {}
            }
        }
    }
    /// Alice answers what she is asked.
    fn answered(&mut self) {
        let (round, since) = self.asks.take().expect("her list is asked for");
        let page = self.world.outbox("alice").page(since);
        self.tell(Input::Page { owner: id("alice"), from: id("alice"), round, result: Ok(page) });
    }
    fn listed(&mut self, mails: impl IntoIterator<Item = (u8, u64)>) {
        for (x, length) in mails {
            let mail = self.world.mail(x, length, Encoding::Whole);
            self.world.outbox("alice").add(mail);
        }
    }
    fn after(&mut self, pause: Duration) {
        (self.now.mono, self.now.wall) = (self.now.mono + pause, self.now.wall + pause);
        self.brain.wake(self.now);
        self.take();
    }
    fn mirrored(&mut self, results: Vec<(u8, Result<(), MirrorFailure>)>) {
        let result = |(x, result)| Mirrored { h: h(x), part: Part::Whole, result };
        self.tell(Input::Mirrored { owner: id("alice"), results: results.into_iter().map(result).collect() });
    }
    /// What was asked for in each request since the last time.
    fn requested(&mut self) -> Vec<Vec<MailId>> {
        std::mem::take(&mut self.requests).iter().map(|some| some.iter().map(|order| order.h).collect()).collect()
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_mail_that_comes_alone_is_asked_for_at_once_and_told_at_once() {
    let mut bob = Bob::new();
    bob.after(100 * MS);
    bob.listed([(1, 100)]);
    bob.answered();
    assert_eq!(bob.requested(), [[h(1)]]);
    bob.mirrored(vec![(1, Ok(()))]);
    assert_eq!(bob.reports.len(), 1);
    assert_eq!(bob.asks, None, "what is listed now is gathered for a moment");
    bob.after(GATHER);
    assert!(bob.asks.is_some(), "and a question waits for the next one");
}

#[test]
fn what_one_page_lists_is_asked_for_held_and_told_together() {
    let mut bob = Bob::new();
    bob.listed((1..=9).map(|x| (x, 1000)));
    bob.after(100 * MS);
    bob.answered();
    let all: Vec<MailId> = (1..=9).map(h).collect();
    assert_eq!(bob.requested(), [all]);
    bob.commits.clear();
    bob.mirrored((1..=9).map(|x| (x, Ok(()))).collect());
    assert_eq!(bob.commits.iter().map(Vec::len).collect::<Vec<_>>(), [9], "one commit");
    assert_eq!(bob.reports.iter().map(|(_, word)| word.items.len()).collect::<Vec<_>>(), [9], "one signature");
}

#[test]
fn one_bad_part_does_not_hold_up_the_others() {
    let mut bob = Bob::new();
    bob.listed((1..=3).map(|x| (x, 1000)));
    bob.after(100 * MS);
    bob.answered();
    bob.requested();
    bob.mirrored(vec![(1, Ok(())), (3, Ok(()))]);
    let held: Vec<MailId> = bob.reports.iter().flat_map(|(_, word)| word.items.iter().map(|item| item.h)).collect();
    assert_eq!(held, [h(1), h(3)]);
    let upto = bob.reports[0].0;
    bob.tell(Input::Reported { owner: id("alice"), upto, result: Ok(()) });
    bob.mirrored(vec![(2, Err(MirrorFailure::BadBlocks { why: "altered".to_owned() }))]);
    let last = &bob.reports[1].1.items;
    assert!(last.len() == 1 && last[0].h == h(2) && matches!(last[0].state, HoldingState::Refused(_)), "{last:?}");
}

#[test]
fn large_parts_go_alone_and_short_ones_in_requests_of_a_mebibyte() {
    let mut bob = Bob::new();
    bob.listed((1..=20).map(|x| (x, SHORT_BYTES)));
    bob.listed([(21, SHORT_BYTES + 1), (22, 3 << 20)]);
    bob.after(100 * MS);
    bob.answered();
    let mut sizes: Vec<usize> = bob.requested().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 4, 8, 8]);
}

#[test]
fn short_parts_under_way_are_bounded_and_the_rest_follows() {
    let mut bob = Bob::new();
    bob.listed((1..=200).map(|x| (x, 10)));
    bob.after(100 * MS);
    bob.answered();
    let first = bob.requested();
    assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [64]);
    bob.mirrored((1..=10).map(|x| (x, Ok(()))).collect());
    assert_eq!(bob.requested().concat(), (65..=74).map(h).collect::<Vec<_>>());
}

#[test]
fn the_next_page_waits_a_little_for_parts_under_way_and_not_for_long() {
    let mut bob = Bob::new();
    bob.listed([(1, 100)]);
    bob.after(100 * MS);
    bob.answered();
    bob.after(GATHER + 30 * MS);
    assert_eq!(bob.asks, None, "a part is under way");
    bob.after(50 * MS);
    assert!(bob.asks.is_some(), "it may take long");
    bob.listed([(2, 100)]);
    bob.answered();
    bob.after(GATHER + 10 * MS);
    bob.mirrored(vec![(1, Ok(())), (2, Ok(()))]);
    assert!(bob.asks.is_some(), "nothing is under way any more");
}

#[test]
fn parts_of_many_mails_that_ended_are_given_up_in_one_record() {
    let mut bob = Bob::new();
    bob.listed((1..=5).map(|x| (x, 100)));
    bob.after(100 * MS);
    bob.answered();
    bob.mirrored((1..=5).map(|x| (x, Ok(()))).collect());
    let expiry = bob.now.wall + Duration::from_secs(86_400);
    for x in 1..=5 {
        let tombstone = bob.world.outbox("alice").tombstone(h(x), expiry).to_entry();
        bob.world.outbox("alice").append(EntryBody::Tombstone(tombstone));
    }
    bob.after(100 * MS);
    bob.commits.clear();
    bob.answered();
    let tombstoned = bob.commits.iter().filter(|events| events.len() >= 5).count();
    assert_eq!((bob.commits.len(), tombstoned), (1, 1), "{:?}", bob.commits);
    let dropped =
        (1..=5).map(|x| PartsDropped { owner: id("alice"), h: h(x), parts: vec![Part::Whole], result: Ok(()) });
    bob.tell(Input::PartsDropped(dropped.collect()));
    assert_eq!(bob.commits.iter().map(Vec::len).skip(1).collect::<Vec<_>>(), [5]);
}
