//! The fetch brain with sources made of a few lines each, under virtual time.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::{any, prop_assert, proptest};

use super::short::SHORTS_MAX;
use super::*;
use crate::fragment::Layout;
use crate::model::manifest::{BLOCK_BYTES, Manifest};
use crate::model::msglist::Ending;
use crate::model::{Digest, Encoding, PulledMail, Urgency, WallTime};
use crate::wire::{PeerKey, Signed};

/// How a source behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Good,
    /// Refuses the connection.
    Dead,
    /// Accepts and never answers.
    Silent,
    /// Serves wrong blocks.
    Lying,
    /// Answers the first request and dies.
    Dying,
    /// Shows the owner's word that the mail is gone, and how.
    Over(Ending),
}

struct World {
    brain: Fetch,
    now: Now,
    layout: Layout,
    order: Order,
    manifest: Signed<Manifest>,
    /// The manifest that those serve who hold nothing that it does not name: the mail was kept so before.
    before: Option<Signed<Manifest>>,
    sources: BTreeMap<PeerId, (Way, Offer)>,
    /// What the shell will tell, and when.
    due: Vec<(MonoTime, Input)>,
    cancelled: BTreeSet<RequestId>,
    served: BTreeMap<PeerId, u64>,
    liars: Vec<PeerId>,
    gotten: BTreeMap<u64, BTreeSet<u8>>,
    replies: Vec<Reply>,
    /// By whom they were asked for.
    told: Vec<Token>,
    /// The mail whose file is open is the one of `order`.
    is_mine: bool,
    /// Signs manifests of mails that are not the one of `order`.
    stranger: PeerKey,
}

impl World {
    fn new(blocks: u64, encoding: Encoding, sources: Vec<(Way, Offer)>) -> World {
        let key = PeerKey::from_seed(&[1; 32]);
        let length = blocks * u64::from(BLOCK_BYTES) - 17;
        let layout = Layout::new(length, encoding).unwrap();
        let sources: BTreeMap<PeerId, (Way, Offer)> = sources
            .into_iter()
            .enumerate()
            .map(|(i, s)| (PeerId::new([u8::try_from(i).unwrap() + 10; 32]), s))
            .collect();
        let (h, digest) = (MailId::new([7; 20]), Digest::new([8; 32]));
        let order = Order {
            h,
            length,
            digest,
            owner: key.peer_id(),
            sources: sources.keys().copied().collect(),
            urgency: Urgency::Prompt,
        };
        let manifest = key.sign(Manifest {
            owner: key.peer_id(),
            h,
            length,
            digest,
            encoding,
            block_bytes: BLOCK_BYTES,
            block_digests: Vec::new(),
        });
        World {
            brain: Fetch::default(),
            now: Now { mono: MonoTime(1000), wall: WallTime(1) },
            layout,
            order,
            manifest,
            before: None,
            sources,
            due: Vec::new(),
            cancelled: BTreeSet::new(),
            served: BTreeMap::new(),
            liars: Vec::new(),
            gotten: BTreeMap::new(),
            replies: Vec::new(),
            told: Vec::new(),
            is_mine: true,
            stranger: PeerKey::from_seed(&[2; 32]),
        }
    }

    fn later(&mut self, ms: u64, input: Input) {
        self.due.push((self.now.mono + Duration::from_millis(ms), input));
    }

    fn perform(&mut self, action: Action) {
        let h = self.order.h;
        let refused = || SourceFailure::Unreachable("refused".to_owned());
        match action {
            Action::AskOffer { source, .. } => match self.sources[&source].0 {
                Way::Dead => self.later(1, Input::Offered { h, source, offer: Err(refused()) }),
                Way::Silent => self.later(8000, Input::Offered { h, source, offer: Err(refused()) }),
                Way::Over(how) => self.later(6, Input::Offered { h, source, offer: Err(SourceFailure::Gone(how)) }),
                _ => {
                    let offer = Ok(self.sources[&source].1.clone());
                    self.later(3, Input::Offered { h, source, offer });
                }
            },
            Action::GetManifest { source, order, .. } => {
                let mut found = self.manifest.clone();
                if order.digest != self.order.digest {
                    let Order { length, digest, owner, .. } = order;
                    found = self.stranger.sign(Manifest { length, digest, owner, ..found.into_value() });
                }
                let holds = &self.sources[&source].1.fragments;
                let older =
                    |m: &&Signed<Manifest>| holds.iter().all(|(_, i)| *i < u8::try_from(parts(m.encoding)).unwrap());
                let found = self.before.as_ref().filter(older).cloned().unwrap_or(found);
                let layout = Layout::new(found.length, found.encoding).unwrap();
                let manifest = Ok((layout, Box::new(found)));
                self.later(2, Input::Manifest { h, source, manifest });
            }
            Action::Open { manifest, .. } => {
                self.is_mine = manifest.digest == self.order.digest;
                self.layout = Layout::new(manifest.length, manifest.encoding).unwrap();
                self.gotten.clear();
                self.later(1, Input::Opened { h, have: Vec::new() });
            }
            Action::Get { source, request, run, .. } => self.serve(source, request, &run),
            Action::Cancel { request } => {
                self.cancelled.insert(request);
            }
            Action::Finish { .. } => {
                let k = usize::from(self.layout.k());
                assert!(
                    (0..self.layout.stripes()).all(|s| self.gotten[&s].len() >= k),
                    "finished without k blocks each"
                );
                let result =
                    if self.is_mine { Ok(PulledMail::File("there".into())) } else { Err("another BLAKE3".to_owned()) };
                self.later(1, Input::Finished { h, result });
            }
            Action::Close { .. } | Action::StopManifest { .. } => {}
            Action::GetShort { order, request } => match self.sources[&order.owner].0 {
                Way::Good => self.later(2, Input::Short { h: order.h, request, result: Ok(Bytes::from_static(&[1])) }),
                Way::Lying => {
                    let lie = Err(SourceFailure::Lied("other bytes".to_owned()));
                    self.later(2, Input::Short { h: order.h, request, result: lie });
                }
                Way::Dead => self.later(1, Input::Short { h: order.h, request, result: Err(refused()) }),
                Way::Over(how) => {
                    let gone = Err(SourceFailure::Gone(how));
                    self.later(2, Input::Short { h: order.h, request, result: gone });
                }
                Way::Silent | Way::Dying => {}
            },
            Action::NameLiar { peer, .. } => self.liars.push(peer),
        }
    }

    fn serve(&mut self, source: PeerId, request: RequestId, run: &Run) {
        let h = self.order.h;
        let served = self.served.entry(source).or_default();
        *served += 1;
        let result = match self.sources[&source].0 {
            Way::Silent => return,
            Way::Lying => Err(SourceFailure::Lied("block 0".to_owned())),
            Way::Dying if *served > 1 => Err(SourceFailure::Unreachable("reset".to_owned())),
            _ => Ok((Duration::from_millis(1), Duration::from_millis(9))),
        };
        if result.is_ok() {
            for stripe in run.stripes() {
                let indices = match run {
                    Run::Fragment { index, .. } => *index..*index + 1,
                    Run::Whole { .. } => 0..self.layout.k(),
                };
                for index in indices {
                    self.gotten.entry(stripe).or_default().insert(index);
                    self.later(9, Input::Block { h, request, stripe, index, bytes: 65536 });
                }
            }
        }
        self.later(10, Input::Ended { h, request, result });
    }

    fn drain(&mut self) {
        while let Some(effect) = self.brain.poll_effect() {
            match effect {
                Effect::Act(action) => self.perform(action),
                Effect::Reply(token, reply) => {
                    self.told.push(token);
                    self.replies.push(reply);
                }
                other => panic!("a fetch commits nothing: {other:?}"),
            }
        }
    }

    /// Runs until the reader is answered; the virtual milliseconds that took.
    fn run(&mut self) -> u64 {
        let order = self.order.clone();
        self.brain.handle(self.now, Input::Want(Token(1), order));
        self.run_until(1)
    }

    /// Runs until so many were answered.
    fn run_until(&mut self, replies: usize) -> u64 {
        let from = self.now.mono;
        for _ in 0..100_000 {
            self.drain();
            if self.replies.len() >= replies {
                return u64::try_from(self.now.mono.since(from).as_millis()).unwrap();
            }
            let next = self.due.iter().map(|(at, _)| *at).min();
            let at = earliest([next, self.brain.poll_timeout()]).expect("somebody has to go on");
            assert!(at >= self.now.mono || next != Some(at));
            self.now = self.now.after(at.since(self.now.mono));
            if let Some(i) = self.due.iter().position(|(due, _)| *due <= self.now.mono) {
                let (_, input) = self.due.remove(i);
                if let Input::Block { request, .. } = &input
                    && self.cancelled.contains(request)
                {
                    continue;
                }
                self.brain.handle(self.now, input);
            } else {
                self.brain.wake(self.now);
            }
        }
        panic!("the fetch does not end");
    }
}

fn fragment(i: u8) -> Offer {
    Offer { whole: false, fragments: vec![(3, i)] }
}
fn whole() -> Offer {
    Offer { whole: true, fragments: Vec::new() }
}
const THREE_OF_FIVE: Encoding = Encoding::Fragments { k: 3, n: 5 };
fn parts(encoding: Encoding) -> usize {
    if let Encoding::Fragments { n, .. } = encoding { usize::from(n) } else { 1 }
}

#[test]
fn any_k_fragments_are_enough_and_a_silent_sender_delays_nothing() {
    let sources =
        vec![(Way::Silent, whole()), (Way::Good, fragment(4)), (Way::Good, fragment(1)), (Way::Good, fragment(3))];
    let mut world = World::new(300, THREE_OF_FIVE, sources);
    let took = world.run();
    assert!(matches!(world.replies[0], Reply::Fetched(_)));
    assert!(took < 3000, "{took} ms");
}

#[test]
fn a_lying_source_is_named_and_not_asked_again() {
    let sources =
        vec![(Way::Lying, fragment(0)), (Way::Good, fragment(1)), (Way::Good, fragment(2)), (Way::Good, fragment(3))];
    let mut world = World::new(300, THREE_OF_FIVE, sources);
    world.run();
    let liar = PeerId::new([10; 32]);
    assert!(matches!(world.replies[0], Reply::Fetched(_)));
    assert!(world.liars.contains(&liar) && world.served[&liar] <= 2);
    let report = &world.brain.observe(world.now).reports[0];
    assert!(report.sources[&liar].bad_blocks > 0 && report.sources[&liar].bytes == 0);
}

#[test]
fn r6_a_liar_is_not_asked_again_by_the_next_open() {
    let sources = vec![(Way::Lying, fragment(0)), (Way::Good, fragment(1)), (Way::Good, fragment(2))];
    let mut world = World::new(300, THREE_OF_FIVE, sources);
    world.run();
    assert!(matches!(world.replies[..], [Reply::Failed(Failure::TooFew { .. })]), "{:?}", world.replies);
    let liar = PeerId::new([10; 32]);
    let served = world.served[&liar];
    (world.replies, world.due) = (Vec::new(), Vec::new());
    world.run();
    assert!(matches!(world.replies[..], [Reply::Failed(Failure::TooFew { .. })]), "{:?}", world.replies);
    assert_eq!(world.served[&liar], served);
}

#[test]
fn r6_a_lie_that_the_replicator_met_counts_and_its_teller_is_not_asked() {
    let sources =
        vec![(Way::Good, fragment(0)), (Way::Good, fragment(1)), (Way::Good, fragment(2)), (Way::Good, fragment(3))];
    let mut world = World::new(300, THREE_OF_FIVE, sources);
    let (order, liar) = (world.order.clone(), PeerId::new([10; 32]));
    let (source, why) = (liar, "another digest".to_owned());
    world.brain.handle(world.now, Input::Lied { order, source, why });
    world.run();
    assert!(matches!(world.replies[0], Reply::Fetched(_)));
    assert!(world.liars.contains(&liar) && !world.served.contains_key(&liar), "{:?}", world.served);
    assert_eq!(world.brain.observe(world.now).liars[&liar], 1);
}

#[test]
fn with_too_few_parts_the_failure_says_how_many_are_missing() {
    let sources =
        vec![(Way::Dead, whole()), (Way::Good, fragment(1)), (Way::Good, fragment(2)), (Way::Dead, fragment(3))];
    let mut world = World::new(30, THREE_OF_FIVE, sources);
    let took = world.run();
    let Reply::Failed(Failure::TooFew { found, needed, missing, unreachable, .. }) = &world.replies[0] else {
        panic!("{:?}", world.replies)
    };
    assert_eq!((*found, *needed, *missing, *unreachable), (2, 3, 1, 2));
    assert!(took < 10_000, "{took} ms");
}

/// Seed 701088: a mail that could not be had was tried for every five minutes, and each time blocks of it travelled in vain.
#[test]
fn r12_before_enough_parts_are_offered_no_block_travels() {
    let sources =
        vec![(Way::Silent, fragment(0)), (Way::Good, fragment(1)), (Way::Good, fragment(2)), (Way::Dead, fragment(3))];
    let mut world = World::new(30, THREE_OF_FIVE, sources);
    world.run();
    assert!(matches!(world.replies[0], Reply::Failed(Failure::TooFew { .. })), "{:?}", world.replies);
    assert!(world.served.is_empty(), "{:?}", world.served);
}

#[test]
fn a_mail_that_was_kept_as_3_of_4_and_is_now_3_of_6_is_read_from_parts_of_both() {
    // Whoever held a fragment that fits both has the first manifest still, which does not name what the others took later.
    let sources =
        vec![(Way::Good, fragment(0)), (Way::Good, fragment(3)), (Way::Good, fragment(5)), (Way::Dead, fragment(1))];
    let mut world = World::new(30, Encoding::Fragments { k: 3, n: 6 }, sources);
    let key = PeerKey::from_seed(&[1; 32]);
    let encoding = Encoding::Fragments { k: 3, n: 4 };
    world.before = Some(key.sign(Manifest { encoding, ..world.manifest.clone().into_value() }));
    world.run();
    assert!(matches!(world.replies[0], Reply::Fetched(_)), "{:?}", world.replies);
    assert!(world.liars.is_empty());
}

#[test]
fn with_parts_that_two_manifests_name_too_few_are_still_too_few() {
    let sources = vec![(Way::Good, fragment(0)), (Way::Good, fragment(5)), (Way::Dead, fragment(1))];
    let mut world = World::new(30, Encoding::Fragments { k: 3, n: 6 }, sources);
    let key = PeerKey::from_seed(&[1; 32]);
    let encoding = Encoding::Fragments { k: 3, n: 4 };
    world.before = Some(key.sign(Manifest { encoding, ..world.manifest.clone().into_value() }));
    let took = world.run();
    assert!(matches!(world.replies[0], Reply::Failed(Failure::TooFew { .. })), "{:?}", world.replies);
    assert!(took < 10_000, "{took} ms");
}

#[test]
fn whole_copies_share_the_work() {
    let sources = vec![(Way::Good, whole()), (Way::Good, whole())];
    let mut world = World::new(200, Encoding::Whole, sources);
    world.run();
    assert!(matches!(world.replies[0], Reply::Fetched(_)));
    assert!(world.served.values().all(|n| *n > 5), "{:?}", world.served);
}

#[test]
fn two_who_want_the_same_mail_share_one_pull() {
    let mut world = World::new(30, Encoding::Whole, vec![(Way::Good, whole())]);
    let order = world.order.clone();
    world.brain.handle(world.now, Input::Want(Token(9), order));
    world.run();
    assert_eq!(world.replies.len(), 2);
}

#[test]
fn an_ns_that_gives_anothers_h_to_other_bytes_spoils_nothing() {
    let mut world = World::new(30, Encoding::Whole, vec![(Way::Good, whole())]);
    let (mine, owner) = (world.order.clone(), world.stranger.peer_id());
    let foreign = Order { digest: Digest::new([9; 32]), owner, ..mine.clone() };
    for (token, order) in [(1, &foreign), (2, &mine), (3, &foreign), (4, &mine)] {
        world.brain.handle(world.now, Input::Want(Token(token), order.clone()));
    }
    world.run_until(4);
    let answers: BTreeMap<Token, Reply> = world.told.iter().copied().zip(world.replies.iter().cloned()).collect();
    for token in [1, 3] {
        assert!(matches!(answers[&Token(token)], Reply::Failed(Failure::Mismatch { .. })), "{answers:?}");
    }
    for token in [2, 4] {
        assert!(matches!(answers[&Token(token)], Reply::Fetched(_)), "{answers:?}");
    }
    assert_eq!(world.brain.observe(world.now).totals.whole, 1);
}

/// A mail of one block, of an owner that behaves like this, and of a member that has a copy; the owner served another one before.
fn short(owner: Way) -> World {
    let mut world = World::new(1, Encoding::Whole, vec![(Way::Good, whole())]);
    let id = world.order.owner;
    world.sources.insert(id, (Way::Good, whole()));
    world.order.sources.insert(0, id);
    world.run();
    assert!(matches!(world.replies[..], [Reply::Fetched(_)]));
    world.sources.insert(id, (owner, whole()));
    (world.replies, world.due, world.served) = (Vec::new(), Vec::new(), BTreeMap::new());
    world
}

#[test]
fn a_short_mail_of_an_owner_that_answers_takes_one_request() {
    let mut world = short(Way::Good);
    let asked = world.order.clone();
    world.brain.handle(world.now, Input::Want(Token(7), asked.clone()));
    world.brain.handle(world.now, Input::Want(Token(8), asked));
    let effects: Vec<_> = std::iter::from_fn(|| world.brain.poll_effect()).collect();
    assert!(matches!(effects[..], [Effect::Act(Action::GetShort { .. })]), "{effects:?}");
    let Some(Effect::Act(action)) = effects.into_iter().next() else { panic!("no action") };
    world.perform(action);
    world.run_until(2);
    assert!(world.replies.iter().all(|reply| matches!(reply, Reply::Fetched(_))) && world.served.is_empty());
    assert_eq!(world.brain.observe(world.now).totals.whole, 2);
}

#[test]
fn an_owner_that_fails_is_late_or_lies_delays_the_others_by_half_a_second_at_most() {
    for (owner, within_ms) in [(Way::Dead, 100), (Way::Silent, 600), (Way::Lying, 100)] {
        let mut world = short(owner);
        let took = world.run();
        assert!(matches!(world.replies[..], [Reply::Fetched(_)]), "{owner:?}: {:?}", world.replies);
        assert!(took < within_ms, "{owner:?}: {took} ms");
        assert_eq!(world.liars.contains(&world.order.owner), owner == Way::Lying);
        // It is not asked alone again before it has served something.
        let (now, order) = (world.now, Order { h: MailId::new([9; 20]), ..world.order.clone() });
        world.brain.handle(now, Input::Want(Token(9), order));
        let effects: Vec<_> = std::iter::from_fn(|| world.brain.poll_effect()).collect();
        assert!(matches!(effects[0], Effect::Act(Action::AskOffer { .. })), "{owner:?}: {effects:?}");
    }
}

/// Seed 30001911: the reader had heard of the cancel, came back with an old disk, and read what a member still had to which the
/// owner, removed from the group, cannot speak any more.
#[test]
fn r7_what_its_owner_took_back_is_not_read_from_whoever_still_has_it() {
    for blocks in [1, 300] {
        let mut world =
            World::new(blocks, Encoding::Whole, vec![(Way::Over(Ending::Cancelled), whole()), (Way::Good, whole())]);
        world.run();
        assert!(matches!(world.replies[..], [Reply::Failed(Failure::Gone)]), "{blocks}: {:?}", world.replies);
    }
    let mut world = short(Way::Over(Ending::Cancelled));
    world.run();
    assert!(matches!(world.replies[..], [Reply::Failed(Failure::Gone)]), "{:?}", world.replies);
    assert!(world.served.is_empty(), "nobody else is asked");
    // What is over in another way was taken from nobody: whoever finds it may have it.
    let mut world = World::new(300, Encoding::Whole, vec![(Way::Over(Ending::Expired), whole()), (Way::Good, whole())]);
    world.run();
    assert!(matches!(world.replies[..], [Reply::Fetched(_)]), "{:?}", world.replies);
}

#[test]
fn many_short_mails_wait_their_turn_and_no_disk_is_their_affair() {
    let mut world = short(Way::Good);
    for x in 0..40 {
        let order = Order { h: MailId::new([100 + x; 20]), ..world.order.clone() };
        world.brain.handle(world.now, Input::Want(Token(u64::from(x)), order));
    }
    let mut asked = Vec::new();
    while let Some(Effect::Act(Action::GetShort { order, request })) = world.brain.poll_effect() {
        asked.push((order.h, request));
    }
    assert_eq!(asked.len(), SHORTS_MAX);
    // Of a pull of the same mail before.
    let full = Input::DiskFailed { h: asked[0].0, why: "no room".to_owned(), full: true };
    world.brain.handle(world.now, full);
    for (h, request) in asked {
        world.brain.handle(world.now, Input::Short { h, request, result: Ok(Bytes::from_static(&[1])) });
    }
    world.drain();
    let fetched = world.replies.iter().filter(|reply| matches!(reply, Reply::Fetched(_))).count();
    assert_eq!((fetched, world.replies.len()), (SHORTS_MAX, SHORTS_MAX), "{:?}", world.replies);
    world.run_until(40);
}

proptest! {
    #[test]
    fn with_k_good_sources_every_mix_of_bad_ones_ends_well(
        bad in proptest::collection::vec(any::<u8>(), 0..3), blocks in 1u64..80, good in proptest::collection::btree_set(0u8..5, 3..=5)
    ) {
        let way = |b: &u8| [Way::Dead, Way::Silent, Way::Lying, Way::Dying][usize::from(*b) % 4];
        let mut sources: Vec<(Way, Offer)> = good.iter().map(|i| (Way::Good, fragment(*i))).collect();
        sources.extend(bad.iter().map(|b| (way(b), if b % 2 == 0 { whole() } else { fragment(b % 5) })));
        let mut world = World::new(blocks, THREE_OF_FIVE, sources);
        let took = world.run();
        prop_assert!(matches!(world.replies[0], Reply::Fetched(_)), "{:?}", world.replies);
        prop_assert!(took < 30_000);
    }
}
