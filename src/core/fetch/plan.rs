//! Which blocks of one mail are here, which are asked of whom, and which a source can still be asked for: the bookkeeping of a
//! fetch. It never chooses between sources and never verifies; it is told.
//!
//! A stripe needs any k distinct blocks. Each source offers some block indices; a request is a run of stripes of one index (or
//! of whole stripes, from a source that has the whole mail). A block is *asked* while a request for it is under way that is
//! not overdue; blocks that are only asked for by overdue requests are free to be asked of others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::fragment::Layout;
use crate::fragment::stream::PARITY_BYTES_MAX;
use crate::model::manifest::BLOCK_BYTES;
use crate::model::{MonoTime, PeerId};

/// Bytes of a full block.
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
/// Blocks of parity that wait for the other blocks of their stripes, at most, in all pulls together: the 64 MiB that the
/// assembler of one mail keeps.
const PARITY_AHEAD: usize = PARITY_BYTES_MAX / 65_536;

/// Room for the parity of one pull beside others that keep so much: its share, as far as they leave it. A pull that began
/// alone asks for no more until it is back at its own.
pub(super) fn parity_room(others: impl Iterator<Item = usize>) -> usize {
    let (pulls, kept) = others.fold((1, 0_usize), |(pulls, kept), one| (pulls + 1, kept.saturating_add(one)));
    (PARITY_AHEAD / pulls).min(PARITY_AHEAD.saturating_sub(kept))
}

/// Names a request for blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What one request asks of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Block `index` of each of these stripes, from a fragment.
    Fragment {
        /// Which fragment.
        index: u8,
        /// Which stripes.
        stripes: Range<u64>,
    },
    /// All k data blocks of each of these stripes, by Range of the whole mail.
    Whole {
        /// Which stripes.
        stripes: Range<u64>,
    },
}

impl Run {
    /// The stripes it is about.
    pub fn stripes(&self) -> Range<u64> {
        match self {
            Run::Fragment { stripes, .. } | Run::Whole { stripes } => stripes.clone(),
        }
    }
    /// The indices of each stripe that it brings.
    pub(super) fn indices(&self, k: u8) -> Range<u8> {
        match self {
            Run::Fragment { index, .. } => *index..index.saturating_add(1),
            Run::Whole { .. } => 0..k,
        }
    }
    fn mask(&self, k: u8) -> u128 {
        self.indices(k).map(bit).fold(0, |a, b| a | b)
    }
}

/// What a source has of the mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// The whole sealed mail.
    pub whole: bool,
    /// Fragments (k, i).
    pub fragments: Vec<(u8, u8)>,
}

/// What of an offer fits the manifest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usable {
    /// It has the whole mail.
    pub(super) whole: bool,
    /// The indices that it can be asked for.
    pub(super) mask: u128,
}

/// A request that is under way.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Who was asked.
    pub(super) source: PeerId,
    /// For what.
    pub(super) run: Run,
    /// When.
    pub(super) sent: MonoTime,
    /// When its last bytes came, or it was sent.
    pub(super) heard: MonoTime,
    /// Whether anything came.
    pub(super) answered: bool,
    /// Bytes that came, verified or not yet.
    pub(super) arrived: u64,
    /// Bytes of blocks that came and were verified.
    pub(super) verified: u64,
    /// Bytes that it brings in all.
    pub(super) bytes: u64,
    /// It is overdue: what it brings can be asked of others.
    pub(super) late: bool,
}

/// Blocks of one stripe: a bit each (n is at most 100).
#[derive(Debug, Clone, Copy, Default)]
struct StripeState {
    got: u128,
    asked: u128,
}

/// The blocks of one mail.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    layout: Layout,
    stripes: Vec<StripeState>,
    /// Every stripe before this one is complete.
    first_open: usize,
    complete: u64,
    /// Of each index: stripes that are not complete and have its block.
    ahead: Vec<u64>,
    offers: BTreeMap<PeerId, Usable>,
    under_way: BTreeMap<RequestId, Request>,
    /// Blocks of parity that may be asked for or wait here.
    room: usize,
    /// Blocks of parity in requests under way.
    parity_asked: usize,
}

pub(super) fn bit(index: u8) -> u128 {
    1u128.checked_shl(u32::from(index)).unwrap_or(0)
}

fn indices(mask: u128) -> impl Iterator<Item = u8> {
    (0..128).filter(move |i| mask & bit(*i) != 0)
}

fn at(stripe: u64) -> usize {
    usize::try_from(stripe).unwrap_or(usize::MAX)
}

fn number(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}

impl Plan {
    /// No block is there yet.
    pub(super) fn new(layout: Layout) -> Self {
        let mut plan = Self {
            layout,
            stripes: vec![StripeState::default(); at(layout.stripes())],
            first_open: 0,
            complete: 0,
            ahead: vec![0; usize::from(layout.n())],
            offers: BTreeMap::new(),
            under_way: BTreeMap::new(),
            room: PARITY_AHEAD,
            parity_asked: 0,
        };
        // Blocks of the last stripe that are all padding need no source.
        if let Some(last) = layout.stripes().checked_sub(1) {
            for i in (0..layout.k()).filter(|i| layout.block_range_in_mail(last, *i).is_empty()) {
                plan.got(last, i);
            }
        }
        plan
    }
    fn k(&self) -> u32 {
        u32::from(self.layout.k())
    }
    /// The geometry of the mail.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }
    /// What a source offers, from now on.
    pub(super) fn offer(&mut self, source: PeerId, offer: &Offer) {
        let (k, n) = (self.layout.k(), self.layout.n());
        // Fragment (1, 0) is the mail itself. Fragments of another k, from before or after a re-encoding, are of no use here.
        let whole = offer.whole || offer.fragments.contains(&(1, 0));
        let held = offer.fragments.iter().filter(|(of, i)| *of == k && *i < n).map(|(_, i)| bit(*i));
        let data = if whole { (0..k).map(bit).fold(0, |a, b| a | b) } else { 0 };
        self.offers.insert(source, Usable { whole, mask: held.fold(data, |a, b| a | b) });
    }
    /// A source is out; what it was asked for can be asked of others.
    pub(super) fn withdraw(&mut self, source: &PeerId) -> Vec<RequestId> {
        self.offers.remove(source);
        let gone: Vec<RequestId> =
            self.under_way.iter().filter(|(_, r)| r.source == *source).map(|(id, _)| *id).collect();
        for id in &gone {
            self.ended(*id);
        }
        gone
    }
    /// What each source that is in offers.
    pub(super) fn offers(&self) -> &BTreeMap<PeerId, Usable> {
        &self.offers
    }
    /// The requests that are under way.
    pub(super) fn under_way(&self) -> &BTreeMap<RequestId, Request> {
        &self.under_way
    }
    /// A request that is under way.
    pub(super) fn request(&mut self, id: RequestId) -> Option<&mut Request> {
        self.under_way.get_mut(&id)
    }
    fn has(&self, stripe: u64, index: u8) -> bool {
        self.stripes.get(at(stripe)).is_some_and(|s| s.got & bit(index) != 0)
    }
    fn is_open(&self, stripe: u64) -> bool {
        self.stripes.get(at(stripe)).is_some_and(|s| s.got.count_ones() < self.k())
    }
    /// Block `index` of a stripe is verified and kept.
    pub(super) fn got(&mut self, stripe: u64, index: u8) {
        let k = self.k();
        let Some(state) = self.stripes.get_mut(at(stripe)) else { return };
        let was_open = state.got.count_ones() < k;
        if !was_open || state.got & bit(index) != 0 || index >= self.layout.n() {
            return;
        }
        state.got |= bit(index);
        let got = state.got;
        if let Some(ahead) = self.ahead.get_mut(usize::from(index)) {
            *ahead += 1;
        }
        if got.count_ones() >= k {
            self.complete += 1;
            for i in indices(got) {
                if let Some(ahead) = self.ahead.get_mut(usize::from(i)) {
                    *ahead = ahead.saturating_sub(1);
                }
            }
        }
        while self.stripes.get(self.first_open).is_some_and(|s| s.got.count_ones() >= k) {
            self.first_open += 1;
        }
    }
    /// A request is over, whatever came of it.
    pub(super) fn ended(&mut self, id: RequestId) -> Option<Request> {
        let request = self.under_way.remove(&id)?;
        self.parity_asked = self.parity_asked.saturating_sub(self.parity_of(&request.run));
        self.recount(&request.run);
        Some(request)
    }
    /// Whether a request is overdue, from now on.
    pub(super) fn set_late(&mut self, id: RequestId, late: bool) {
        let Some(request) = self.under_way.get_mut(&id) else { return };
        if request.late != late {
            request.late = late;
            let run = request.run.clone();
            self.recount(&run);
        }
    }
    /// Reckons anew which blocks of the stripes of a run are asked of somebody.
    fn recount(&mut self, run: &Run) {
        let k = self.layout.k();
        for stripe in run.stripes() {
            let others = self.under_way.values().filter(|r| !r.late && r.run.stripes().contains(&stripe));
            let asked = others.map(|r| r.run.mask(k)).fold(0, |a, b| a | b);
            if let Some(state) = self.stripes.get_mut(at(stripe)) {
                state.asked = asked;
            }
        }
    }
    /// Requests that bring nothing any more that is not here.
    pub(super) fn useless(&self) -> Vec<RequestId> {
        let needed = |r: &Request| r.run.stripes().any(|stripe| self.is_open(stripe) && self.lacks_of(r, stripe));
        self.under_way.iter().filter(|(_, r)| !needed(r)).map(|(id, _)| *id).collect()
    }
    /// Whether a stripe lacks a block that the request brings.
    fn lacks_of(&self, request: &Request, stripe: u64) -> bool {
        request.run.indices(self.layout.k()).any(|i| !self.has(stripe, i))
    }
    /// Whether every stripe has its k blocks.
    pub(super) fn is_complete(&self) -> bool {
        self.first_open >= self.stripes.len()
    }
    /// Percent of the stripes that are complete.
    pub(super) fn percent(&self) -> u8 {
        let total = self.layout.stripes().max(1);
        u8::try_from(self.complete * 100 / total).unwrap_or(100).min(100)
    }
    /// Bytes that are still missing, whoever brings them.
    pub(super) fn missing(&self) -> u64 {
        let open = self.layout.stripes().saturating_sub(self.complete);
        let there: u64 = self.ahead.iter().sum();
        (open * u64::from(self.layout.k())).saturating_sub(there) * BLOCK
    }
    /// Bytes that these indices can still bring.
    pub(super) fn open_bytes(&self, mask: u128) -> u64 {
        let open = self.layout.stripes().saturating_sub(self.complete);
        let ahead = |i: u8| self.ahead.get(usize::from(i)).copied().unwrap_or(0);
        indices(mask).map(|i| open.saturating_sub(ahead(i))).sum::<u64>() * BLOCK
    }
    /// Distinct parts that the sources together offer; k of them are enough, and a whole copy counts as k.
    pub(super) fn distinct_parts(&self) -> usize {
        let all = self.offers.values().fold(0, |a, o| a | o.mask);
        indices(all).count()
    }
    /// Whether the sources that are in have what every open stripe lacks.
    pub(super) fn can_complete(&self) -> bool {
        let all = self.offers.values().fold(0, |a, o| a | o.mask);
        let k = self.k();
        all.count_ones() >= k
            || self
                .stripes
                .iter()
                .skip(self.first_open)
                .all(|s| (s.got | all).count_ones() >= k || s.got.count_ones() >= k)
    }
    /// Stripes from the first open one on in which parity may be asked for: a fast source of parity waits for a slow one of
    /// data before what it brings fills the memory. At most k - 1 blocks of a stripe wait.
    fn parity_end(&self) -> usize {
        let (k, n) = (usize::from(self.layout.k()), usize::from(self.layout.n()));
        let waiting = n.saturating_sub(k).min(k.saturating_sub(1));
        let stripes = self.room.checked_div(waiting).map_or(usize::MAX, |stripes| stripes.max(1));
        // What was asked for while there was more room may lie further ahead. One stripe can always go on.
        let is_full = waiting > 0 && self.parity_kept() >= self.room;
        self.first_open.saturating_add(if is_full { 1 } else { stripes })
    }
    fn may_ask(&self, stripe: usize, index: u8) -> bool {
        index < self.layout.k() || stripe < self.parity_end()
    }

    /// The first run of at most `most` blocks that nobody was asked for, of those that `offer` has. In each stripe one place
    /// stays free for every index in `reserved`: they belong to sources that have time to bring all of theirs. With `alone`
    /// only stripes count of which nothing is here or asked for.
    pub(super) fn unasked(&self, offer: Usable, (reserved, alone): (u128, bool), most: u64) -> Option<Run> {
        let k = self.layout.k();
        if offer.whole && k > 1 {
            let untouched = |_: usize, s: &StripeState| s.got == 0 && s.asked == 0;
            let from = (self.first_open..self.stripes.len()).find(|i| untouched(*i, &self.stripes[*i]));
            if let Some(from) = from {
                let stripes = self.extend(from, most / u64::from(k), untouched);
                return Some(Run::Whole { stripes });
            }
        }
        let reserved = reserved & !offer.mask;
        let free = |s: &StripeState| {
            let taken = s.got | s.asked;
            if alone && taken != 0 {
                return 0;
            }
            if s.got.count_ones() < self.k() && (taken | reserved).count_ones() < self.k() {
                offer.mask & !taken
            } else {
                0
            }
        };
        let open = self.stripes.iter().enumerate().skip(self.first_open);
        let (from, index) =
            open.filter_map(|(i, s)| Some((i, indices(free(s)).find(|index| self.may_ask(i, *index))?))).next()?;
        let stripes = self.extend(from, most, |i, s| free(s) & bit(index) != 0 && self.may_ask(i, index));
        Some(Run::Fragment { index, stripes })
    }

    /// Stripes from `from` on for which `wanted` holds, at least one and at most `most`.
    fn extend(&self, from: usize, most: u64, wanted: impl Fn(usize, &StripeState) -> bool) -> Range<u64> {
        let rest = self.stripes.iter().enumerate().skip(from).take(at(most.max(1)));
        let len = rest.take_while(|(i, s)| *i == from || wanted(*i, s)).count();
        number(from)..number(from + len)
    }

    /// Blocks of a request that are not here and of use, in the order in which they come: stripe and index.
    pub(super) fn awaited(&self, request: &Request) -> Vec<(u64, u8)> {
        let k = self.layout.k();
        let all = request.run.stripes().flat_map(|s| request.run.indices(k).map(move |i| (s, i)));
        all.filter(|(s, i)| self.is_open(*s) && !self.has(*s, *i)).collect()
    }

    /// The index by which a source could bring, instead of block `index`, what a stripe lacks; none when it cannot, or when
    /// more than is lacking is asked for already.
    pub(super) fn instead(&self, offer: Usable, stripe: u64, index: u8) -> Option<u8> {
        let state = self.stripes.get(at(stripe))?;
        let (lacking, asked) = (self.k().saturating_sub(state.got.count_ones()), state.asked & !state.got);
        if lacking == 0 || asked.count_ones() > lacking {
            return None;
        }
        let allowed = |i: &u8| self.may_ask(at(stripe), *i);
        let fresh = indices(offer.mask & !(state.got | state.asked)).find(allowed);
        fresh.or_else(|| {
            let covering =
                |r: &&Request| r.run.stripes().contains(&stripe) && r.run.indices(self.layout.k()).contains(&index);
            let askers = self.under_way.values().filter(covering).count();
            (askers < 2 && asked.count_ones() <= lacking && offer.mask & !state.got & bit(index) != 0).then_some(index)
        })
    }

    /// A request goes out.
    pub(super) fn asks(&mut self, id: RequestId, source: PeerId, run: Run, now: MonoTime) {
        let k = self.layout.k();
        for stripe in run.stripes() {
            if let Some(state) = self.stripes.get_mut(at(stripe)) {
                state.asked |= run.mask(k);
            }
        }
        let len = |s: u64, i: u8| match run {
            Run::Whole { .. } => {
                self.layout.block_range_in_mail(s, i).end - self.layout.block_range_in_mail(s, i).start
            }
            Run::Fragment { .. } => u64::from(self.layout.block_len(s)),
        };
        let bytes = run.stripes().flat_map(|s| run.indices(k).map(move |i| (s, i))).map(|(s, i)| len(s, i)).sum();
        let request = Request {
            source,
            run,
            sent: now,
            heard: now,
            answered: false,
            arrived: 0,
            verified: 0,
            bytes,
            late: false,
        };
        self.parity_asked = self.parity_asked.saturating_add(self.parity_of(&request.run));
        self.under_way.insert(id, request);
    }

    /// Blocks of parity that are here and wait for their stripes: what the memory of a fetch consists of.
    pub(super) fn parity_waiting(&self) -> u64 {
        self.ahead.iter().skip(usize::from(self.layout.k())).sum()
    }
    /// The same, with those that are on their way.
    pub(super) fn parity_kept(&self) -> usize {
        at(self.parity_waiting()).saturating_add(self.parity_asked)
    }
    /// How much parity may be kept from now on.
    pub(super) fn give_room(&mut self, blocks: usize) {
        self.room = blocks;
    }
    fn parity_of(&self, run: &Run) -> usize {
        match run {
            Run::Fragment { index, stripes } if *index >= self.layout.k() => {
                at(stripes.end.saturating_sub(stripes.start))
            }
            Run::Fragment { .. } | Run::Whole { .. } => 0,
        }
    }

    /// The sources that something is asked of.
    pub(super) fn busy(&self) -> BTreeSet<PeerId> {
        self.under_way.values().map(|r| r.source).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Encoding;

    fn peers() -> [PeerId; 3] {
        [1, 2, 3].map(|i| PeerId::new([i; 32]))
    }

    fn plan(stripes: u64, offers: [(PeerId, u8); 3]) -> Plan {
        let layout = Layout::new(3 * BLOCK * stripes, Encoding::Fragments { k: 3, n: 5 }).unwrap();
        let mut plan = Plan::new(layout);
        for (peer, i) in offers {
            plan.offer(peer, &Offer { whole: false, fragments: vec![(3, i)] });
        }
        plan
    }

    #[test]
    fn parity_runs_ahead_of_a_slow_source_of_data_no_further_than_the_memory_for_it() {
        let [slow, third, fourth] = peers();
        let mut plan = plan(2000, [(slow, 0), (third, 3), (fourth, 4)]);
        let mut next = 0;
        let mut parity = |plan: &mut Plan| {
            let mut blocks = 0;
            for source in [third, fourth] {
                while let Some(run) = plan.unasked(plan.offers()[&source], (0, false), 8) {
                    plan.asks(RequestId(next), source, run.clone(), MonoTime(1));
                    for stripe in run.stripes() {
                        run.indices(3).for_each(|i| plan.got(stripe, i));
                        blocks += 1;
                    }
                    plan.ended(RequestId(next));
                    next += 1;
                }
            }
            blocks
        };
        assert_eq!(parity(&mut plan), PARITY_AHEAD);
        assert_eq!(plan.parity_waiting(), number(PARITY_AHEAD));
        // Each stripe that the slow one completes makes room for one more.
        (0..8).for_each(|stripe| plan.got(stripe, 0));
        assert_eq!(parity(&mut plan), 16);
    }

    /// Asks for whatever parity may be asked for, and has it come at once.
    fn all_parity(plan: &mut Plan, source: PeerId) {
        while let Some(run) = plan.unasked(plan.offers()[&source], (0, false), 8) {
            plan.asks(RequestId(1), source, run.clone(), MonoTime(1));
            for stripe in run.stripes() {
                run.indices(3).for_each(|i| plan.got(stripe, i));
            }
            plan.ended(RequestId(1));
        }
    }

    #[test]
    fn the_parity_of_all_pulls_together_has_the_memory_of_one() {
        let [slow, third, fourth] = peers();
        let mut pulls: Vec<Plan> = (0..8).map(|_| plan(2000, [(slow, 0), (third, 3), (fourth, 4)])).collect();
        let kept = |pulls: &[Plan]| pulls.iter().map(Plan::parity_kept).collect::<Vec<_>>();
        // The first one begins alone, and the others while it keeps all there is.
        for active in 1..=8 {
            for turn in 0..active {
                let others: Vec<usize> = kept(&pulls[..active]);
                let others = others.into_iter().enumerate().filter(|(i, _)| *i != turn).map(|(_, kept)| kept);
                let room = parity_room(others);
                pulls[turn].give_room(room);
                all_parity(&mut pulls[turn], third);
                all_parity(&mut pulls[turn], fourth);
            }
            let all: usize = kept(&pulls).into_iter().sum();
            // Each can always go on with one stripe.
            assert!(all <= PARITY_AHEAD + 2 * active, "{active} pulls: {:?}", kept(&pulls));
        }
        assert_eq!(kept(&pulls)[0], PARITY_AHEAD);
        assert!(kept(&pulls)[1..].iter().all(|kept| *kept <= 2));
        // What the first one works off, the others may have, up to an equal share each.
        (0..400).for_each(|stripe| pulls[0].got(stripe, 0));
        for turn in (0..8).rev() {
            let others = kept(&pulls).into_iter().enumerate().filter(|(i, _)| *i != turn).map(|(_, kept)| kept);
            let room = parity_room(others);
            pulls[turn].give_room(room);
            all_parity(&mut pulls[turn], third);
            all_parity(&mut pulls[turn], fourth);
        }
        let kept = kept(&pulls);
        assert!(kept.iter().sum::<usize>() <= PARITY_AHEAD + 16 && kept.iter().all(|kept| *kept <= 256), "{kept:?}");
        assert_eq!(kept[7], PARITY_AHEAD / 8);
    }

    #[test]
    fn a_place_is_kept_for_sources_that_have_time_to_bring_all_of_theirs() {
        let [a, b, c] = peers();
        let mut plan = plan(10, [(a, 0), (b, 1), (c, 2)]);
        plan.asks(RequestId(1), a, Run::Fragment { index: 0, stripes: 0..10 }, MonoTime(1));
        let reserved = bit(3) | bit(4);
        assert_eq!(plan.unasked(plan.offers()[&b], (reserved, false), 4), None);
        assert_eq!(
            plan.unasked(plan.offers()[&b], (bit(3), false), 4),
            Some(Run::Fragment { index: 1, stripes: 0..4 })
        );
        assert_eq!(plan.unasked(plan.offers()[&b], (0, true), 4), None);
        assert_eq!(plan.missing(), 30 * BLOCK);
        assert_eq!(plan.open_bytes(bit(1) | bit(2)), 20 * BLOCK);
    }

    #[test]
    fn what_is_overdue_can_be_asked_of_others_and_the_loser_is_useless() {
        let [a, b, c] = peers();
        let mut plan = plan(4, [(a, 0), (b, 1), (c, 2)]);
        for (id, source, index) in [(1, a, 0), (2, b, 1), (3, c, 2)] {
            plan.asks(RequestId(id), source, Run::Fragment { index, stripes: 0..4 }, MonoTime(1));
        }
        let extra = Usable { whole: false, mask: bit(4) };
        assert_eq!(plan.unasked(extra, (0, false), 9), None);
        plan.set_late(RequestId(1), true);
        assert_eq!(plan.unasked(extra, (0, false), 9), Some(Run::Fragment { index: 4, stripes: 0..4 }));
        plan.asks(RequestId(4), c, Run::Fragment { index: 4, stripes: 0..4 }, MonoTime(2));
        for stripe in 0..4 {
            [1, 2].iter().for_each(|i| plan.got(stripe, *i));
        }
        assert_eq!(plan.useless(), [RequestId(2), RequestId(3)]);
        (0..4).for_each(|stripe| plan.got(stripe, 4));
        assert!(plan.is_complete() && plan.missing() == 0);
        assert_eq!(plan.useless().len(), 4);
    }

    #[test]
    fn with_blocks_from_an_earlier_run_fewer_sources_are_enough() {
        let [a, b, _] = peers();
        let mut plan = plan(3, [(a, 0), (b, 1), (b, 1)]);
        assert!(!plan.can_complete());
        (0..3).for_each(|stripe| plan.got(stripe, 2));
        assert!(plan.can_complete() && plan.distinct_parts() == 2);
    }
}
