//! Which source is asked for what, and when: windows from measured rate and delay, what is overdue, what an idle source takes
//! over. It never knows how a block travels; the plan keeps the books.
//!
//! ```text
//!  window of a source   rate * (delay + half a second); before its rate is known: two blocks, and one more for each that came
//!  at the start         each source of which nothing is known begins with stripes of its own
//!  unasked blocks       in the order of the stripes, the fastest source first; one place of each stripe is kept for every
//!                       source that has time to bring its block of all of them, so that slow ones do not take it away
//!  towards the end      windows shrink to half of the time that is left; who would be later than that is asked no more
//!  overdue              silent for three times what a block should take, or not to be done while all the rest is: its blocks
//!                       are free for others, and the source is asked for nothing more until it is heard
//!  nothing unasked      an idle source takes over the block that would come last, if it brings it sooner; the loser is cancelled
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{BLOCK, Plan, Request, RequestId, Run, Usable};
use super::share::{Supply, least_time_us};
use crate::core::peer_score::{Meter, PeerScores};
use crate::model::{MonoTime, PeerId, Urgency};

/// How much of a source's time is asked for ahead, milliseconds, besides its delay: a request every quarter of a second, and
/// little is lost with a source that dies.
const HORIZON_MS: u64 = 500;
/// Blocks that a source is asked for before anything is known of it.
const START_BLOCKS: u64 = 2;
/// Most bytes under way at one source: a gigabit over a tenth of a second.
const WINDOW_MAX: u64 = 16 << 20;
/// Most blocks of one request: four mebibytes.
const RUN_BLOCKS_MAX: u64 = 64;
/// Requests under way at one source. The client keeps as many connections.
const REQUESTS_PER_SOURCE: usize = 4;
/// A request is overdue after a silence of three times what a block should take, but never before the first and always
/// after the second of these, milliseconds.
const OVERDUE_MS: (u64, u64) = (300, 3000);
/// How often overdue requests are looked for, milliseconds.
const LOOK_MS: u64 = 50;
/// Nothing was ever heard of a source: overdue after this, milliseconds.
const OVERDUE_UNKNOWN_MS: u64 = 500;
/// What is not to be done within this and twice the time that all is, is overdue, milliseconds.
const OVERDUE_SLACK_MS: u64 = 500;
/// Bytes a second of a source of which nothing is known, while nothing is known of any.
const GUESS: u64 = 1_250_000;
/// Taking over a block must save this, milliseconds, and a quarter of the time.
const SAVES_MS: u64 = 20;

/// What is known of one source.
#[derive(Debug, Clone, Default)]
struct Line {
    meter: Meter,
    /// From a request to its first bytes, the shortest there was, milliseconds.
    delay_ms: Option<u64>,
    /// Bytes that it brought.
    brought: u64,
}

/// A source at one moment.
#[derive(Debug, Clone, Copy)]
struct Now {
    source: PeerId,
    offer: Usable,
    rate: u64,
    is_measured: bool,
    delay_ms: u64,
    /// Bytes under way.
    in_flight: u64,
    requests: usize,
    /// Something of it is overdue.
    is_stalled: bool,
}

impl Now {
    /// Milliseconds until `bytes` more would be here.
    fn takes_ms(&self, bytes: u64) -> u64 {
        let ms = u128::from(self.in_flight + bytes) * 1000 / u128::from(self.rate.max(1));
        u64::try_from(ms).unwrap_or(u64::MAX).saturating_add(self.delay_ms)
    }
}

/// What is left to do.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// How long it takes at best, milliseconds; none when the sources do not have it all.
    ms: Option<u64>,
    /// The indices of sources that have time to bring all of theirs.
    reserved: u128,
    /// The indices of sources of which nobody knows yet whether they have.
    unknown: u128,
}

/// A pull's blocks and sources.
#[derive(Debug)]
pub(super) struct Schedule {
    plan: Plan,
    lines: BTreeMap<PeerId, Line>,
    /// When overdue requests were last looked for.
    looked: MonoTime,
}

impl Schedule {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, lines: BTreeMap::new(), looked: MonoTime(0) }
    }
    /// How many blocks of parity may be kept from now on.
    pub(super) fn give_room(&mut self, blocks: usize) {
        self.plan.give_room(blocks);
    }
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }
    /// A source is in; what is known of it from before is where its window starts.
    pub(super) fn offer(&mut self, source: PeerId, offer: &super::Offer, scores: &PeerScores) {
        self.plan.offer(source, offer);
        self.lines.entry(source).or_insert_with(|| {
            let score = scores.of(&source);
            Line { meter: Meter::starting_at(score), delay_ms: score.map(|s| s.delay_ms), brought: 0 }
        });
    }
    /// A source is out; gives what was asked of it.
    pub(super) fn withdraw(&mut self, source: &PeerId) -> Vec<RequestId> {
        if let Some(line) = self.lines.get_mut(source) {
            line.meter.rests();
        }
        self.plan.withdraw(source)
    }
    /// Bytes of a request came that are not a whole block yet.
    pub(super) fn arrived(&mut self, now: MonoTime, id: RequestId, bytes: u64) {
        let Some(request) = self.plan.request(id) else { return };
        let waited = (!request.answered).then(|| ms(request.sent, now));
        request.answered = true;
        request.arrived = request.arrived.saturating_add(bytes);
        request.heard = now;
        let source = request.source;
        self.plan.set_late(id, false);
        let Some(line) = self.lines.get_mut(&source) else { return };
        line.meter.arrived(now, bytes);
        if let Some(waited) = waited {
            line.delay_ms = Some(line.delay_ms.map_or(waited, |delay| delay.min(waited)));
        }
    }
    /// A block of a request is verified and kept.
    pub(super) fn block(&mut self, now: MonoTime, id: RequestId, (stripe, index): (u64, u8), bytes: u64) {
        self.plan.got(stripe, index);
        let Some(request) = self.plan.request(id) else { return };
        request.verified = request.verified.saturating_add(bytes);
        let new = request.verified.saturating_sub(request.arrived);
        let source = request.source;
        self.arrived(now, id, new);
        if let Some(line) = self.lines.get_mut(&source) {
            line.brought = line.brought.saturating_add(bytes);
        }
    }
    /// A request is over; who was asked and when.
    pub(super) fn ended(
        &mut self,
        now: MonoTime,
        id: RequestId,
        scores: &mut PeerScores,
    ) -> Option<(PeerId, MonoTime)> {
        let request = self.plan.ended(id)?;
        let source = request.source;
        if let Some(line) = self.lines.get_mut(&source) {
            if let Some(rate) = line.meter.rate(now, BLOCK) {
                scores.measured(source, rate, Duration::from_millis(line.delay_ms.unwrap_or_default()));
            }
            if !self.plan.busy().contains(&source) {
                line.meter.rests();
            }
        }
        Some((source, request.sent))
    }
    /// Requests of which nothing came for this long.
    pub(super) fn silent(&self, now: MonoTime, patience: Duration) -> Vec<(RequestId, PeerId)> {
        let silent = |r: &Request| now.since(r.heard) >= patience;
        self.plan.under_way().iter().filter(|(_, r)| silent(r)).map(|(id, r)| (*id, r.source)).collect()
    }

    /// The requests that go out now.
    pub(super) fn hand_out(
        &mut self,
        now: MonoTime,
        urgency: Urgency,
        next: &mut u64,
    ) -> Vec<(RequestId, PeerId, Run)> {
        let mut out = Vec::new();
        if ms(self.looked, now) >= LOOK_MS {
            self.looked = now;
            self.mark_late(now);
        }
        let mut sources = self.sources(now);
        // The fastest first: they need a place in every stripe, and what is left at the end is not asked of the slowest.
        sources.sort_by_key(|s| (std::cmp::Reverse(s.rate), s.source));
        let rest = self.rest(&sources);
        let owners: BTreeMap<PeerId, Now> = sources.iter().map(|s| (s.source, *s)).collect();
        for source in &mut sources {
            while let Some(run) = self.next_for(source, rest, &owners, urgency) {
                self.send(source, run, now, next, &mut out);
            }
        }
        if self.plan.under_way().values().all(|r| r.late) && !self.plan.is_complete() {
            // Whoever was held back is better than nobody.
            for source in sources.iter_mut().filter(|s| s.requests == 0) {
                if let Some(run) = self.plan.unasked(source.offer, (0, false), 1) {
                    self.send(source, run, now, next, &mut out);
                }
            }
        }
        out
    }

    fn send(
        &mut self,
        source: &mut Now,
        run: Run,
        now: MonoTime,
        next: &mut u64,
        out: &mut Vec<(RequestId, PeerId, Run)>,
    ) {
        let id = RequestId(*next);
        *next += 1;
        self.plan.asks(id, source.source, run.clone(), now);
        source.in_flight += self.plan.request(id).map_or(BLOCK, |r| r.bytes);
        source.requests += 1;
        if let Some(line) = self.lines.get_mut(&source.source) {
            line.meter.starts(now);
        }
        out.push((id, source.source, run));
    }

    /// Every source that is in, as it is now.
    fn sources(&self, now: MonoTime) -> Vec<Now> {
        let rates: Vec<u64> = self.lines.values().filter_map(|line| line.meter.rate(now, BLOCK)).collect();
        let sum: u64 = rates.iter().sum();
        let guess = sum.checked_div(u64::try_from(rates.len()).unwrap_or(0)).unwrap_or(GUESS);
        let source = |(source, offer): (&PeerId, &Usable)| {
            let mine = || self.plan.under_way().values().filter(|r| r.source == *source);
            let line = self.lines.get(source);
            let measured = line.and_then(|line| line.meter.rate(now, BLOCK));
            // Of a source that is silent from the start not more is expected than if a block came right now.
            let silence = mine().map(|r| ms(r.heard, now)).max().unwrap_or(0);
            Now {
                source: *source,
                offer: *offer,
                rate: measured.unwrap_or_else(|| guess.min(BLOCK * 1000 / silence.max(1))),
                is_measured: measured.is_some(),
                delay_ms: line.and_then(|line| line.delay_ms).unwrap_or(0),
                in_flight: mine().map(|r| r.bytes.saturating_sub(r.arrived)).sum(),
                requests: mine().count(),
                is_stalled: mine().any(|r| r.late),
            }
        };
        self.plan.offers().iter().map(source).collect()
    }

    /// How long the rest takes, and who has time to bring all of theirs.
    fn rest(&self, sources: &[Now]) -> Rest {
        let supply = |s: &Now| Supply { rate: s.rate, bytes: self.plan.open_bytes(s.offer.mask) };
        let supplies: Vec<Supply> = sources.iter().map(supply).collect();
        // A place in every stripe is only kept for sources that have one block of each.
        let one = |s: &&Now| !s.offer.whole && s.offer.mask.count_ones() == 1 && !s.is_stalled;
        let unknown = sources.iter().filter(one).filter(|s| !s.is_measured).fold(0, |a, s| a | s.offer.mask);
        let Some(us) = least_time_us(&supplies, self.plan.missing()) else {
            return Rest { ms: None, reserved: 0, unknown };
        };
        let known = sources.iter().zip(&supplies).filter(|(s, _)| one(s) && s.is_measured);
        let reserved = known.filter(|(_, supply)| supply.ends_before(us)).fold(0, |a, (s, _)| a | s.offer.mask);
        Rest { ms: Some(us / 1000), reserved, unknown }
    }

    /// The next request for a source, if its window has room and it has something to give.
    fn next_for(&self, source: &Now, rest: Rest, owners: &BTreeMap<PeerId, Now>, urgency: Urgency) -> Option<Run> {
        let window = self.window(source, rest);
        let is_full = source.requests > 0 && source.in_flight * 2 > window;
        if source.is_stalled || is_full || source.requests >= REQUESTS_PER_SOURCE {
            return None;
        }
        // Who would be later than all the others together only holds them up.
        let soonest = owners.values().filter(|o| !o.is_stalled).map(|o| o.takes_ms(BLOCK)).min().unwrap_or(0);
        let is_too_late = rest
            .ms
            .map(|left| left.max(soonest))
            .is_some_and(|left| source.takes_ms(BLOCK) > left.saturating_add(left / 4).saturating_add(SAVES_MS));
        if is_too_late && (source.is_measured || source.requests > 0) {
            return None;
        }
        let most = (window / 2).div_ceil(BLOCK).clamp(1, RUN_BLOCKS_MAX);
        // Nobody knows yet who is fast. Each begins with stripes of its own, so that slow ones do not fill up stripes in which
        // fast ones then have no place.
        let sparing = (rest.reserved | rest.unknown, false);
        let (first, second) = if source.is_measured { (sparing, (0, true)) } else { ((0, true), sparing) };
        let unasked = |(reserved, alone)| self.plan.unasked(source.offer, (reserved, alone), most);
        unasked(first).or_else(|| unasked(second)).or_else(|| unasked((rest.reserved, false))).or_else(|| {
            // What is under way elsewhere and not overdue is asked for twice only where somebody waits.
            (urgency == Urgency::Prompt).then(|| self.take_over(source, most, owners))?
        })
    }

    /// Bytes that a source should have under way.
    fn window(&self, source: &Now, rest: Rest) -> u64 {
        if !source.is_measured {
            let brought = self.lines.get(&source.source).map_or(0, |line| line.brought);
            return (START_BLOCKS * BLOCK + brought).min(WINDOW_MAX);
        }
        let horizon = rest.ms.map_or(HORIZON_MS, |left| HORIZON_MS.min(left / 2));
        (source.rate.saturating_mul(source.delay_ms.min(2000) + horizon) / 1000).clamp(BLOCK, WINDOW_MAX)
    }

    /// Finds what is overdue, and what is not any more.
    fn mark_late(&mut self, now: MonoTime) {
        let sources: BTreeMap<PeerId, Now> = self.sources(now).into_iter().map(|s| (s.source, s)).collect();
        let all: Vec<Now> = sources.values().copied().collect();
        let rest = self.rest(&all);
        let judged: Vec<(RequestId, bool)> = self
            .plan
            .under_way()
            .iter()
            .filter_map(|(id, request)| {
                let source = sources.get(&request.source)?;
                let is_late = self.is_silent(request, source, now) || is_hopeless(request, source, rest);
                Some((*id, is_late))
            })
            .collect();
        for (id, is_late) in judged {
            self.plan.set_late(id, is_late);
        }
    }

    fn is_silent(&self, request: &Request, source: &Now, now: MonoTime) -> bool {
        let silence = ms(request.heard, now);
        if !source.is_measured {
            return silence >= OVERDUE_UNKNOWN_MS;
        }
        let requests = u64::try_from(source.requests).unwrap_or(1).max(1);
        // The rate before this silence: the silence itself makes it less.
        let settled = self.lines.get(&source.source).and_then(|line| line.meter.rate(request.heard, BLOCK));
        let block_ms = (BLOCK * 1000 * requests).checked_div(settled.unwrap_or(source.rate)).unwrap_or(u64::MAX);
        let (least, most) = OVERDUE_MS;
        silence >= (block_ms.saturating_add(source.delay_ms).saturating_mul(3)).clamp(least, most)
    }

    /// What an idle source takes over: the block that would come last, and others before it in its run.
    fn take_over(&self, source: &Now, most: u64, owners: &BTreeMap<PeerId, Now>) -> Option<Run> {
        let mine = source.takes_ms(BLOCK);
        let mut worst: Option<(u64, &Request)> = None;
        for request in self.plan.under_way().values().filter(|r| r.source != source.source) {
            let Some(owner) = owners.get(&request.source) else { continue };
            let awaited = self.plan.awaited(request);
            let comes = comes_ms(request, owner, awaited.len());
            let can = awaited.last().is_some_and(|(s, i)| self.plan.instead(source.offer, *s, *i).is_some());
            if can && mine + mine / 4 + SAVES_MS < comes && worst.is_none_or(|(latest, _)| comes > latest) {
                worst = Some((comes, request));
            }
        }
        let (_, request) = worst?;
        let (owner, awaited) = (owners.get(&request.source)?, self.plan.awaited(request));
        let (stripe, index) = *awaited.last()?;
        let index = self.plan.instead(source.offer, stripe, index)?;
        let mut from = stripe;
        for (taken, (at, (s, i))) in (2..).zip(awaited.iter().enumerate().rev().skip(1)) {
            let saves = source.takes_ms(taken * BLOCK) + SAVES_MS < comes_ms(request, owner, at + 1);
            if taken > most || *s + 1 != from || self.plan.instead(source.offer, *s, *i) != Some(index) || !saves {
                break;
            }
            from = *s;
        }
        Some(Run::Fragment { index, stripes: from..stripe + 1 })
    }
}

/// When the `nth` block that a request still brings will be here, milliseconds from now.
fn comes_ms(request: &Request, owner: &Now, nth: usize) -> u64 {
    let begun = request.arrived.saturating_sub(request.verified);
    let bytes = (u64::try_from(nth).unwrap_or(u64::MAX).saturating_mul(BLOCK)).saturating_sub(begun);
    // Requests at one source share its rate.
    let requests = u128::try_from(owner.requests).unwrap_or(1).max(1);
    let ms = u128::from(bytes).saturating_mul(1000) * requests / u128::from(owner.rate.max(1));
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// Whether all the rest will be here long before the end of this request.
fn is_hopeless(request: &Request, source: &Now, rest: Rest) -> bool {
    let left = u128::from(request.bytes.saturating_sub(request.arrived));
    let Some(rest) = rest.ms else { return false };
    let requests = u128::try_from(source.requests).unwrap_or(1).max(1);
    let ms = left * 1000 * requests / u128::from(source.rate.max(1));
    source.is_measured && ms > u128::from(rest.saturating_mul(2).saturating_add(OVERDUE_SLACK_MS))
}

fn ms(from: MonoTime, to: MonoTime) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
