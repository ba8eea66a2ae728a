//! The fetch brain against sources that are uplinks: a fluid model under virtual time. Each source shares its rate evenly
//! among its requests, answers after its delay, and may die, lie, fall silent or become slow at any moment.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, prop_assert, prop_oneof, proptest};
use proptest::test_runner::{Config, RngSeed};

use super::plan::BLOCK;
use super::*;
use crate::fragment::Layout;
use crate::model::manifest::Manifest;
use crate::model::{Digest, Encoding, PulledMail, Urgency, WallTime};
use crate::wire::{PeerKey, Signed};

/// What goes wrong with a source, and when, microseconds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Its connections are refused and broken from then on.
    Dead(u64),
    /// It accepts and sends nothing from then on.
    Silent(u64),
    /// It serves a wrong block from then on.
    Lies(u64),
    /// It sends 1 KB/s from then on.
    Slow(u64),
}

impl Fault {
    fn lasts(self) -> bool {
        self == Fault::None
    }
}

/// A source.
#[derive(Debug, Clone)]
struct Uplink {
    offer: Offer,
    /// Bytes a second.
    rate: u64,
    delay_us: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Flow {
    source: PeerId,
    /// Bytes flow from then on.
    from_us: u64,
    blocks: VecDeque<(u64, u8, u64)>,
    /// Bytes of the first of its blocks that are here, thousandths.
    here: u128,
}

struct Fluid {
    brain: Fetch,
    us: u64,
    layout: Layout,
    order: Order,
    manifest: Signed<Manifest>,
    uplinks: BTreeMap<PeerId, Uplink>,
    due: Vec<(u64, Input)>,
    flows: BTreeMap<RequestId, Flow>,
    here: BTreeMap<u64, BTreeSet<u8>>,
    have: Vec<(u64, u8)>,
    reply: Option<Reply>,
    last_block_us: u64,
    first_block_us: Option<u64>,
    most_parity: u64,
    asked_after_lie: bool,
    liars: BTreeSet<PeerId>,
    duplicates: u64,
}

const KILO: u64 = 1000;

fn peer(i: usize) -> PeerId {
    PeerId::new([u8::try_from(i).unwrap() + 10; 32])
}

impl Fluid {
    fn new(length: u64, encoding: Encoding, uplinks: Vec<Uplink>) -> Self {
        let key = PeerKey::from_seed(&[1; 32]);
        let layout = Layout::new(length, encoding).unwrap();
        let uplinks: BTreeMap<PeerId, Uplink> = uplinks.into_iter().enumerate().map(|(i, u)| (peer(i), u)).collect();
        let (h, digest, owner) = (MailId::new([7; 20]), Digest::new([8; 32]), key.peer_id());
        let order =
            Order { h, length, digest, owner, sources: uplinks.keys().copied().collect(), urgency: Urgency::Prompt };
        let block_digests = Vec::new();
        let manifest = Manifest { owner, h, length, digest, encoding, block_bytes: 65_536, block_digests };
        Self {
            brain: Fetch::default(),
            us: 1_000_000,
            layout,
            order,
            manifest: key.sign(manifest),
            uplinks,
            due: Vec::new(),
            flows: BTreeMap::new(),
            here: BTreeMap::new(),
            have: Vec::new(),
            reply: None,
            last_block_us: 0,
            first_block_us: None,
            most_parity: 0,
            asked_after_lie: false,
            liars: BTreeSet::new(),
            duplicates: 0,
        }
    }
    fn now(&self) -> Now {
        Now { mono: MonoTime(self.us / 1000), wall: WallTime(1) }
    }
    fn since_start(&self) -> u64 {
        self.us - 1_000_000
    }
    fn is(&self, source: &PeerId, fault: fn(u64) -> Fault) -> bool {
        let at = match self.uplinks[source].fault {
            Fault::None => return false,
            Fault::Dead(at) | Fault::Silent(at) | Fault::Lies(at) | Fault::Slow(at) => at,
        };
        self.uplinks[source].fault == fault(at) && self.since_start() >= at
    }
    /// Bytes a second of one of `shared` requests.
    fn rate(&self, source: &PeerId) -> u64 {
        if self.is(source, Fault::Silent) {
            return 0;
        }
        let sharing = self.flows.values().filter(|f| f.source == *source && f.from_us <= self.us).count();
        let rate = if self.is(source, Fault::Slow) { KILO } else { self.uplinks[source].rate };
        rate / u64::try_from(sharing.max(1)).unwrap()
    }
    fn later(&mut self, us: u64, input: Input) {
        self.due.push((self.us + us, input));
    }

    fn perform(&mut self, action: Action) {
        let h = self.order.h;
        let refused = || SourceFailure::Unreachable("refused".to_owned());
        match action {
            Action::GetShort { .. } => panic!("none of these mails is short"),
            Action::AskOffer { source, .. } | Action::GetManifest { source, .. } if self.is(&source, Fault::Silent) => {
            }
            Action::AskOffer { source, .. } => {
                let uplink = self.uplinks[&source].clone();
                let offer = if self.is(&source, Fault::Dead) { Err(refused()) } else { Ok(uplink.offer) };
                self.later(uplink.delay_us, Input::Offered { h, source, offer });
            }
            Action::GetManifest { source, .. } => {
                let manifest = Ok((self.layout, Box::new(self.manifest.clone())));
                let took = self.uplinks[&source].delay_us;
                self.later(took, Input::Manifest { h, source, manifest });
            }
            Action::Open { .. } => {
                let have = self.have.clone();
                for (stripe, index) in &have {
                    self.here.entry(*stripe).or_default().insert(*index);
                }
                self.later(500, Input::Opened { h, have });
            }
            Action::Get { source, request, run, .. } => {
                self.asked_after_lie |= self.liars.contains(&source);
                if self.is(&source, Fault::Dead) {
                    return self.later(500, Input::Ended { h, request, result: Err(refused()) });
                }
                let len = |s: u64, i: u8| match run {
                    Run::Whole { .. } => self.layout.block_range_in_mail(s, i).count(),
                    Run::Fragment { .. } => usize::try_from(self.layout.block_len(s)).unwrap(),
                };
                let all = run.stripes().flat_map(|s| run.indices(self.layout.k()).map(move |i| (s, i)));
                let blocks = all.map(|(s, i)| (s, i, u64::try_from(len(s, i)).unwrap())).filter(|b| b.2 > 0).collect();
                let from_us = self.us + self.uplinks[&source].delay_us;
                if !self.is(&source, Fault::Silent) {
                    self.later(self.uplinks[&source].delay_us, Input::Arrived { h, request, bytes: 0 });
                }
                self.flows.insert(request, Flow { source, from_us, blocks, here: 0 });
            }
            Action::Cancel { request } => drop(self.flows.remove(&request)),
            Action::Finish { .. } => {
                let k = usize::from(self.layout.k());
                let pads = |s: u64, i: &u8| self.layout.block_range_in_mail(s, *i).is_empty();
                let whole = |s: u64| {
                    let here = &self.here[&s];
                    here.len() >= k || (0..self.layout.k()).all(|i| here.contains(&i) || pads(s, &i))
                };
                assert!((0..self.layout.stripes()).all(whole), "finished without k blocks of each stripe");
                self.later(1000, Input::Finished { h, result: Ok(PulledMail::File("there".into())) });
            }
            Action::Close { .. } | Action::StopManifest { .. } => {}
            Action::NameLiar { peer, .. } => drop(self.liars.insert(peer)),
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.brain.poll_effect() {
            match effect {
                Effect::Act(action) => self.perform(action),
                Effect::Reply(_, reply) => self.reply = Some(reply),
                other => panic!("a fetch commits nothing: {other:?}"),
            }
        }
        let parity = self.brain.pulls.values().filter_map(Pull::parity_waiting).max();
        self.most_parity = self.most_parity.max(parity.unwrap_or(0));
    }

    /// Bytes a second of each request that is answered now.
    fn rates(&self) -> BTreeMap<PeerId, u64> {
        self.uplinks.keys().map(|source| (*source, self.rate(source))).collect()
    }

    /// When the next thing happens.
    fn next_us(&self, rates: &BTreeMap<PeerId, u64>) -> u64 {
        let block = |flow: &Flow| {
            let rate = u128::from(rates[&flow.source]);
            let left =
                flow.blocks.front().map_or(0, |b| u128::from(b.2) * 1000 - flow.here.min(u128::from(b.2) * 1000));
            if flow.from_us > self.us {
                return flow.from_us;
            }
            let us = (left * 1000).checked_div(rate).map_or(u64::MAX / 2, |us| u64::try_from(us).unwrap());
            self.us.saturating_add(us + 1)
        };
        let faults = self.uplinks.values().filter_map(|u| match u.fault {
            Fault::Dead(at) | Fault::Silent(at) | Fault::Lies(at) | Fault::Slow(at) => Some(1_000_000 + at),
            Fault::None => None,
        });
        let timer = self.brain.poll_timeout().map(|at| (at.0 * 1000).max(self.us + 1));
        let events = self.due.iter().map(|(at, _)| *at).chain(self.flows.values().map(block)).chain(timer);
        events.chain(faults.filter(|at| *at > self.us)).min().expect("somebody has to go on").max(self.us)
    }

    /// Lets bytes flow until `until`, and tells what came.
    fn flow(&mut self, until: u64, rates: &BTreeMap<PeerId, u64>) -> Vec<Input> {
        let h = self.order.h;
        let mut told = Vec::new();
        let from = self.us;
        self.us = until;
        let broken: Vec<RequestId> =
            self.flows.iter().filter(|(_, f)| self.is(&f.source, Fault::Dead)).map(|(id, _)| *id).collect();
        for request in broken {
            self.flows.remove(&request);
            told.push(Input::Ended { h, request, result: Err(SourceFailure::Unreachable("reset".to_owned())) });
        }
        let lying: BTreeSet<PeerId> = self.uplinks.keys().filter(|s| self.is(s, Fault::Lies)).copied().collect();
        let mut done = Vec::new();
        for (request, flow) in &mut self.flows {
            if flow.from_us > from {
                continue;
            }
            flow.here += u128::from(until - from) * u128::from(rates[&flow.source]) / 1000;
            while let Some((stripe, index, bytes)) = flow.blocks.front().copied() {
                if flow.here < u128::from(bytes) * 1000 {
                    break;
                }
                flow.here -= u128::from(bytes) * 1000;
                flow.blocks.pop_front();
                if lying.contains(&flow.source) {
                    told.push(Input::Ended {
                        h,
                        request: *request,
                        result: Err(SourceFailure::Lied("block".to_owned())),
                    });
                    done.push(*request);
                    break;
                }
                self.duplicates += u64::from(!self.here.entry(stripe).or_default().insert(index));
                self.last_block_us = until;
                self.first_block_us.get_or_insert(until);
                told.push(Input::Block { h, request: *request, stripe, index, bytes });
            }
            if flow.blocks.is_empty() && !done.contains(request) {
                told.push(Input::Ended { h, request: *request, result: Ok((Duration::ZERO, Duration::ZERO)) });
                done.push(*request);
            }
        }
        done.iter().for_each(|request| drop(self.flows.remove(request)));
        told
    }

    /// Runs until the reader is answered.
    fn run(&mut self) -> Reply {
        let order = self.order.clone();
        self.brain.handle(self.now(), Input::Want(Token(1), order));
        for _ in 0..2_000_000 {
            self.drain();
            if let Some(reply) = self.reply.take() {
                return reply;
            }
            let rates = self.rates();
            let next = self.next_us(&rates);
            for input in self.flow(next, &rates) {
                // What a request tells after it was cancelled never arrives.
                let known = match &input {
                    Input::Block { request, .. } => self.brain.pulls.values().any(|p| p.has_request(*request)),
                    _ => true,
                };
                if known {
                    self.brain.handle(self.now(), input);
                }
            }
            self.drain();
            while let Some(i) = self.due.iter().position(|(due, _)| *due <= self.us) {
                let (_, input) = self.due.remove(i);
                self.brain.handle(self.now(), input);
                self.drain();
            }
            if self.brain.poll_timeout().is_some_and(|at| at.0 * 1000 <= self.us) {
                self.brain.wake(self.now());
            }
        }
        panic!("the fetch does not end");
    }

    /// Sealed bytes a second, from the first request to the last verified block.
    fn reached(&self) -> u64 {
        self.layout.length() * 1_000_000 / (self.last_block_us - 1_000_000).max(1)
    }
    /// The bound, bytes a second, of those uplinks for which `counts` holds.
    fn bound(&self, counts: impl Fn(&Uplink) -> bool) -> f64 {
        let rates = |whole: bool| -> Vec<u64> {
            self.uplinks.values().filter(|u| counts(u) && u.offer.whole == whole).map(|u| u.rate).collect()
        };
        let whole: u64 = rates(true).iter().sum();
        bound_of_fragments(&rates(false), self.layout.k()) + float(whole)
    }
}

fn float(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

/// Bytes a second of so many Mbit/s.
fn mbit(rate: u64) -> u64 {
    rate * 125_000
}

fn fragment(i: usize, rate: u64, fault: Fault) -> Uplink {
    let offer = Offer { whole: false, fragments: vec![(3, u8::try_from(i).unwrap())] };
    Uplink { offer, rate, delay_us: 1500, fault }
}
fn whole(rate: u64, fault: Fault) -> Uplink {
    Uplink { offer: Offer { whole: true, fragments: Vec::new() }, rate, delay_us: 1500, fault }
}

const MIB: u64 = 1 << 20;

/// Fetches 32 MiB from these uplinks; says which part of the bound was reached, in percent.
fn percent(uplinks: Vec<Uplink>) -> f64 {
    let n = u8::try_from(uplinks.len()).unwrap();
    let encoding = if uplinks[0].offer.whole { Encoding::Whole } else { Encoding::Fragments { k: 3, n } };
    let mut fluid = Fluid::new(32 * MIB + 12_345, encoding, uplinks);
    let reply = fluid.run();
    assert!(matches!(reply, Reply::Fetched(_)), "{reply:?}");
    float(fluid.reached()) / fluid.bound(|u| u.fault.lasts()) * 100.0
}

const UPLINKS: [[u64; 5]; 2] = [[20, 20, 20, 20, 20], [5, 10, 20, 40, 80]];

#[test]
fn fragments_reach_the_bound() {
    for rates in UPLINKS {
        let all = rates.iter().enumerate().map(|(i, rate)| fragment(i, mbit(*rate), Fault::None)).collect();
        let percent = percent(all);
        assert!(percent >= 97.0, "{rates:?}: {percent}");
    }
}

#[test]
fn whole_copies_by_range_reach_the_bound() {
    for rates in UPLINKS {
        let percent = percent(rates.iter().map(|rate| whole(mbit(*rate), Fault::None)).collect());
        assert!(percent >= 97.0, "{rates:?}: {percent}");
    }
}

#[test]
fn one_source_with_a_fault_costs_no_more_than_that_source() {
    for rates in UPLINKS {
        for fault in [
            Fault::Dead(0),
            Fault::Dead(1_200_000),
            Fault::Silent(0),
            Fault::Silent(1_000_000),
            Fault::Slow(0),
            Fault::Lies(0),
        ] {
            // Where all are alike, one stands for all.
            for bad in if rates[0] == rates[4] { 2..3 } else { 0..5 } {
                let of = |i: usize| if i == bad { fault } else { Fault::None };
                let all = rates.iter().enumerate();
                let fragments = percent(all.clone().map(|(i, rate)| fragment(i, mbit(*rate), of(i))).collect());
                let whole = percent(all.map(|(i, rate)| whole(mbit(*rate), of(i))).collect());
                assert!(fragments >= 95.0 && whole >= 95.0, "{rates:?} {fault:?} at {bad}: {fragments} {whole}");
            }
        }
    }
}

#[test]
fn four_sources_with_four_faults_cost_no_more_than_themselves() {
    let faults = [Fault::Dead(0), Fault::Dead(1_200_000), Fault::Slow(0), Fault::Lies(0)];
    let of = |i: usize| faults.get(i).copied().unwrap_or(Fault::None);
    let fragments = percent((0..9).map(|i| fragment(i, mbit(20), of(i))).collect());
    let whole = percent((0..9).map(|i| whole(mbit(20), of(i))).collect());
    assert!(fragments >= 95.0 && whole >= 95.0, "{fragments} {whole}");
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let at = 0u64..4_000_000;
    prop_oneof![
        3 => Just(Fault::None),
        1 => at.clone().prop_map(Fault::Dead),
        1 => at.clone().prop_map(Fault::Silent),
        1 => at.clone().prop_map(Fault::Lies),
        1 => at.prop_map(Fault::Slow),
    ]
}

proptest! {
    // The same cases every time: rare mixes are looked for with more cases and other seeds, not by chance.
    #![proptest_config(Config { cases: 16, rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..Config::default() })]

    #[test]
    fn lasting_sources_of_any_rates_and_delays_reach_95_percent_of_the_bound(
        rates in proptest::collection::vec(4u64..40, 3..9), delays in proptest::collection::vec(500u64..40_000, 9), fragmented: bool
    ) {
        let make = |(i, rate): (usize, &u64)| {
            let uplink = if fragmented { fragment(i, mbit(*rate), Fault::None) } else { whole(mbit(*rate), Fault::None) };
            Uplink { delay_us: delays[i], ..uplink }
        };
        let uplinks: Vec<Uplink> = rates.iter().enumerate().map(make).collect();
        let n = u8::try_from(uplinks.len()).unwrap();
        let encoding = if fragmented { Encoding::Fragments { k: 3, n } } else { Encoding::Whole };
        // Long enough, 5 s at least, that the few round trips at the start are not what is measured.
        let mut fluid = Fluid::new(mbit(rates.iter().sum()) * 5, encoding, uplinks);
        let reply = fluid.run();
        prop_assert!(matches!(reply, Reply::Fetched(_)));
        let (reached, bound) = (float(fluid.reached()), fluid.bound(|_| true));
        prop_assert!(reached >= 0.95 * bound, "{:.1} %", reached / bound * 100.0);
        prop_assert!(reached <= 1.001 * bound, "more than can be: {:.1} %", reached / bound * 100.0);
    }

    #[test]
    fn a_fetch_ends_whole_exactly_when_enough_sources_last(
        faults in proptest::collection::vec(any_fault(), 3..9), rates in proptest::collection::vec(5u64..60, 9), stripes in 1u64..60
    ) {
        let uplinks: Vec<Uplink> = faults.iter().enumerate().map(|(i, f)| fragment(i, mbit(rates[i]), *f)).collect();
        let n = u8::try_from(uplinks.len()).unwrap();
        let mut fluid = Fluid::new(stripes * 3 * BLOCK - 7, Encoding::Fragments { k: 3, n }, uplinks);
        let lasting = faults.iter().filter(|f| f.lasts()).count();
        let reply = fluid.run();
        if lasting >= 3 {
            prop_assert!(matches!(reply, Reply::Fetched(_)), "{reply:?}");
        }
        // Who dies from the start is of no use, and neither is who is silent or lies from then on.
        let never = |f: &&Fault| matches!(f, Fault::Dead(0) | Fault::Silent(0) | Fault::Lies(0));
        if faults.len() - faults.iter().filter(never).count() < 3 {
            prop_assert!(matches!(reply, Reply::Failed(_)), "{reply:?}");
        }
        prop_assert!(!fluid.asked_after_lie, "a liar was asked again");
        let liars: BTreeSet<PeerId> = (0..faults.len()).filter(|i| matches!(faults[*i], Fault::Lies(_))).map(peer).collect();
        prop_assert!(fluid.liars.is_subset(&liars));
    }

    #[test]
    fn what_waits_in_memory_is_bounded(rates in proptest::collection::vec(1u64..200, 5)) {
        let uplinks = rates.iter().enumerate().map(|(i, rate)| fragment(i, mbit(*rate), Fault::None)).collect();
        let mut fluid = Fluid::new(700 * 3 * BLOCK, Encoding::Fragments { k: 3, n: 5 }, uplinks);
        prop_assert!(matches!(fluid.run(), Reply::Fetched(_)));
        prop_assert!(fluid.most_parity <= 1024, "{} blocks", fluid.most_parity);
    }

    #[test]
    fn a_fetch_goes_on_from_the_blocks_of_an_earlier_run(have in proptest::collection::btree_set((0u64..40, 0u8..3), 0..120)) {
        let uplinks: Vec<Uplink> = (0..5).map(|i| fragment(i, mbit(20), Fault::None)).collect();
        let mut fluid = Fluid::new(40 * 3 * BLOCK, Encoding::Fragments { k: 3, n: 5 }, uplinks);
        fluid.have = have.iter().copied().collect();
        prop_assert!(matches!(fluid.run(), Reply::Fetched(_)));
        let report = fluid.brain.observe(fluid.now()).reports[0].clone();
        let bytes: u64 = report.sources.values().map(|s| s.bytes).sum();
        let missing = (120 - u64::try_from(have.len()).unwrap()) * BLOCK;
        prop_assert!(bytes >= missing && bytes <= missing + 12 * BLOCK, "{bytes} for {missing}");
    }
}

#[test]
fn a_silent_sender_and_a_dead_member_do_not_delay_the_first_block() {
    let mut uplinks = vec![whole(mbit(20), Fault::Silent(0)), fragment(0, mbit(20), Fault::Dead(0))];
    uplinks.extend((1..5).map(|i| fragment(i, mbit(20), Fault::None)));
    let mut fluid = Fluid::new(8 * MIB, Encoding::Fragments { k: 3, n: 5 }, uplinks);
    assert!(matches!(fluid.run(), Reply::Fetched(_)));
    let first_ms = (fluid.first_block_us.unwrap() - 1_000_000) / 1000;
    assert!(first_ms <= 70, "{first_ms} ms");
}

#[test]
fn what_nobody_waits_for_is_pulled_once() {
    for rates in [UPLINKS[0], UPLINKS[1], [1, 90, 3, 50, 2]] {
        for length in [MIB / 2, 2 * MIB, 16 * MIB] {
            let all = rates.iter().enumerate().map(|(i, rate)| fragment(i, mbit(*rate), Fault::None)).collect();
            let mut fluid = Fluid::new(length, Encoding::Fragments { k: 3, n: 5 }, all);
            fluid.order.urgency = Urgency::Background;
            assert!(matches!(fluid.run(), Reply::Fetched(_)));
            let report = fluid.brain.observe(fluid.now()).reports[0].clone();
            let bytes: u64 = report.sources.values().map(|s| s.bytes).sum();
            // Parity of the last stripe is as long as its longest block.
            assert!(bytes <= length + 3 * BLOCK, "{rates:?}: {bytes} of {length}, {} twice", fluid.duplicates);
        }
    }
}

#[test]
fn little_is_asked_for_twice() {
    for rates in UPLINKS {
        let all = rates.iter().enumerate().map(|(i, rate)| fragment(i, mbit(*rate), Fault::None)).collect();
        let mut fluid = Fluid::new(64 * MIB, Encoding::Fragments { k: 3, n: 5 }, all);
        assert!(matches!(fluid.run(), Reply::Fetched(_)));
        let report = fluid.brain.observe(fluid.now()).reports[0].clone();
        let bytes: u64 = report.sources.values().map(|s| s.bytes).sum();
        assert!(bytes <= 64 * MIB / 100 * 102, "{rates:?}: {bytes}, {} twice", fluid.duplicates);
    }
}
