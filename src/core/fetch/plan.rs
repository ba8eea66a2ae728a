//! Which block of one mail is asked of whom: the bookkeeping of a fetch, without its life. It never verifies; it is told.
//!
//! A stripe needs any k distinct blocks. Each source offers some block indices; a request is a run of stripes of one index (or
//! of whole stripes, from a source that has the whole mail). Work is handed out in the order of the stripes, so faster sources
//! simply come back sooner. When nothing unasked is left for a source, it is asked for blocks that are overdue elsewhere.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::fragment::Layout;
use crate::fragment::stream::PARITY_BYTES_MAX;
use crate::model::{MonoTime, PeerId};

/// Most blocks of one request: half a mebibyte of whole blocks.
const RUN_BLOCKS_MAX: u64 = 8;
/// Requests under way at one source: one answers while the next is on its way.
const REQUESTS_PER_SOURCE: usize = 2;
/// Blocks of parity that wait for data of their stripes, at most: the 64 MiB that the assembler of a mail keeps.
const PARITY_AHEAD: usize = PARITY_BYTES_MAX / 65_536;
/// A block that is under way this long is also asked of somebody else.
const OVERDUE: Duration = Duration::from_secs(1);

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
    fn indices(&self, k: u8) -> Range<u8> {
        match self {
            Run::Fragment { index, .. } => *index..index.saturating_add(1),
            Run::Whole { .. } => 0..k,
        }
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
#[derive(Debug, Clone)]
struct Usable {
    whole: bool,
    fragments: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Request {
    source: PeerId,
    run: Run,
    /// When its last block came, or it was sent.
    heard: MonoTime,
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
    offers: BTreeMap<PeerId, Usable>,
    under_way: BTreeMap<RequestId, Request>,
}

fn bit(index: u8) -> u128 {
    1u128.checked_shl(u32::from(index)).unwrap_or(0)
}

impl Plan {
    /// No block is there yet.
    pub(super) fn new(layout: Layout) -> Self {
        let count = usize::try_from(layout.stripes()).unwrap_or(usize::MAX);
        let stripes = vec![StripeState::default(); count];
        let mut plan =
            Self { layout, stripes, first_open: 0, complete: 0, offers: BTreeMap::new(), under_way: BTreeMap::new() };
        // Blocks of the last stripe that are all padding need no source.
        if let Some(last) = layout.stripes().checked_sub(1) {
            for i in (0..layout.k()).filter(|i| layout.block_range_in_mail(last, *i).is_empty()) {
                plan.got(last, i);
            }
        }
        plan
    }
    /// The geometry of the mail.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }
    /// What a source offers, from now on.
    pub(super) fn offer(&mut self, source: PeerId, offer: &Offer) {
        let k = self.layout.k();
        // Fragment (1, 0) is the mail itself. Fragments of another k, from before or after a re-encoding, are of no use here.
        let whole = offer.whole || offer.fragments.contains(&(1, 0));
        let fragments = offer.fragments.iter().filter(|(of, _)| *of == k).map(|(_, i)| *i).collect();
        self.offers.insert(source, Usable { whole, fragments });
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
    /// Whether a source is in.
    pub(super) fn has_source(&self, source: &PeerId) -> bool {
        self.offers.contains_key(source)
    }
    /// Block `index` of a stripe is verified and kept. Says whether it was new.
    pub(super) fn got(&mut self, stripe: u64, index: u8) -> bool {
        let k = u32::from(self.layout.k());
        let Some(state) = usize::try_from(stripe).ok().and_then(|at| self.stripes.get_mut(at)) else { return false };
        let was_complete = state.got.count_ones() >= k;
        let new = state.got & bit(index) == 0;
        state.got |= bit(index);
        if !was_complete && state.got.count_ones() >= k {
            self.complete += 1;
        }
        while self.stripes.get(self.first_open).is_some_and(|s| s.got.count_ones() >= k) {
            self.first_open += 1;
        }
        new && !was_complete
    }
    /// A request is over, whatever came of it.
    pub(super) fn ended(&mut self, id: RequestId) {
        let Some(request) = self.under_way.remove(&id) else { return };
        self.recount(&request.run);
    }
    /// A request gave a sign of life.
    pub(super) fn heard(&mut self, id: RequestId, now: MonoTime) {
        if let Some(request) = self.under_way.get_mut(&id) {
            request.heard = now;
        }
    }
    /// Clears the asked bits of a run, but for what other requests ask.
    fn recount(&mut self, run: &Run) {
        let k = self.layout.k();
        for stripe in run.stripes() {
            let mut asked = 0;
            for other in self.under_way.values().filter(|r| r.run.stripes().contains(&stripe)) {
                asked |= other.run.indices(k).map(bit).fold(0, |a, b| a | b);
            }
            if let Some(state) = usize::try_from(stripe).ok().and_then(|at| self.stripes.get_mut(at)) {
                state.asked = asked;
            }
        }
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
    /// Distinct parts that the sources together offer; k of them are enough, and a whole copy counts as k.
    pub(super) fn distinct_parts(&self) -> usize {
        if self.offers.values().any(|o| o.whole) {
            return usize::from(self.layout.k());
        }
        let indices: std::collections::BTreeSet<u8> =
            self.offers.values().flat_map(|o| o.fragments.iter().copied()).collect();
        indices.len()
    }
    /// Requests at a source that gave no sign of life since `before`.
    pub(super) fn silent(&self, before: MonoTime) -> Vec<(RequestId, PeerId)> {
        self.under_way.iter().filter(|(_, r)| r.heard < before).map(|(id, r)| (*id, r.source)).collect()
    }
    /// The next request for a source, if it has room and something to give.
    pub(super) fn next_for(&mut self, source: PeerId, id: RequestId, now: MonoTime) -> Option<Run> {
        let busy = self.under_way.values().filter(|r| r.source == source).count();
        if busy >= REQUESTS_PER_SOURCE {
            return None;
        }
        let offer = self.offers.get(&source)?.clone();
        let run = self.unasked(&offer).or_else(|| self.overdue(source, &offer, now))?;
        let k = self.layout.k();
        for stripe in run.stripes() {
            if let Some(state) = usize::try_from(stripe).ok().and_then(|at| self.stripes.get_mut(at)) {
                state.asked |= run.indices(k).map(bit).fold(0, |a, b| a | b);
            }
        }
        self.under_way.insert(id, Request { source, run: run.clone(), heard: now });
        Some(run)
    }

    /// The first run of stripes that lack blocks which nobody was asked for.
    fn unasked(&self, offer: &Usable) -> Option<Run> {
        let k = u32::from(self.layout.k());
        let lacks = |s: &StripeState| (s.got | s.asked).count_ones() < k;
        if offer.whole {
            let untouched = |s: &StripeState| s.got.count_ones() < k && s.asked == 0;
            return self.run_of(untouched, u64::from(self.layout.k())).map(|stripes| Run::Whole { stripes }).or_else(
                || {
                    // Single blocks are left: the whole mail has the data ones.
                    self.single(|s, i| lacks(s) && (s.got | s.asked) & bit(i) == 0, 0..self.layout.k())
                },
            );
        }
        offer.fragments.iter().find_map(|index| {
            let stripes = self.run_of(|s| lacks(s) && (s.got | s.asked) & bit(*index) == 0, 1)?;
            Some(Run::Fragment { index: *index, stripes })
        })
    }

    /// How many stripes from the first open one on may be asked for: a fast source of parity waits for a slow one of data
    /// before what it brings fills the memory.
    fn stripes_ahead(&self) -> usize {
        let parity = usize::from(self.layout.n().saturating_sub(self.layout.k()));
        PARITY_AHEAD.checked_div(parity).map_or(usize::MAX, |stripes| stripes.max(1))
    }

    /// The first run of stripes for which `wanted` holds, of at most [`RUN_BLOCKS_MAX`] blocks.
    fn run_of(&self, wanted: impl Fn(&StripeState) -> bool, blocks_per_stripe: u64) -> Option<Range<u64>> {
        let end = self.first_open.saturating_add(self.stripes_ahead()).min(self.stripes.len());
        let open = self.stripes.get(self.first_open..end)?;
        let from = self.first_open + open.iter().position(&wanted)?;
        let most = usize::try_from((RUN_BLOCKS_MAX / blocks_per_stripe.max(1)).max(1)).unwrap_or(1);
        let len = self.stripes.get(from..end)?.iter().take(most).take_while(|s| wanted(s)).count();
        let from = u64::try_from(from).ok()?;
        Some(from..from + u64::try_from(len).ok()?)
    }

    fn single(&self, wanted: impl Fn(&StripeState, u8) -> bool, indices: Range<u8>) -> Option<Run> {
        indices.into_iter().find_map(|index| {
            let stripes = self.run_of(|s| wanted(s, index), 1)?;
            Some(Run::Fragment { index, stripes })
        })
    }

    /// A run that is overdue at another source and that this one can give instead.
    fn overdue(&self, source: PeerId, offer: &Usable, now: MonoTime) -> Option<Run> {
        let k = u32::from(self.layout.k());
        let late = self.under_way.values().filter(|r| r.source != source && now.since(r.heard) >= OVERDUE);
        late.filter_map(|request| {
            let mine = |stripe: u64, index: u8| {
                self.under_way.values().any(|r| {
                    r.source == source
                        && r.run.stripes().contains(&stripe)
                        && r.run.indices(self.layout.k()).contains(&index)
                })
            };
            let open = |stripe: &u64, index: u8| {
                let state = usize::try_from(*stripe).ok().and_then(|at| self.stripes.get(at));
                state.is_some_and(|s| s.got.count_ones() < k && s.got & bit(index) == 0) && !mine(*stripe, index)
            };
            let offered: Vec<u8> = if offer.whole { (0..self.layout.k()).collect() } else { offer.fragments.clone() };
            offered.into_iter().find_map(|index| {
                let from = request.run.stripes().find(|s| open(s, index))?;
                let len = (from..request.run.stripes().end).take_while(|s| open(s, index)).count();
                Some(Run::Fragment { index, stripes: from..from + u64::try_from(len).ok()? })
            })
        })
        .next()
    }
    /// Whether requests are under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Encoding;

    #[test]
    fn parity_runs_ahead_of_a_slow_source_of_data_no_further_than_the_memory_for_it() {
        let layout = Layout::new(3 * 65_536 * 2000, Encoding::Fragments { k: 3, n: 5 }).unwrap();
        let mut plan = Plan::new(layout);
        let (slow, third, fourth) = (PeerId::new([1; 32]), PeerId::new([2; 32]), PeerId::new([3; 32]));
        for (peer, i) in [(slow, 0), (third, 3), (fourth, 4)] {
            plan.offer(peer, &Offer { whole: false, fragments: vec![(3, i)] });
        }
        let now = MonoTime(1);
        let mut next = 0;
        let mut parity = |plan: &mut Plan| {
            let mut blocks = 0;
            for source in [third, fourth] {
                while let Some(run) = plan.next_for(source, RequestId(next), now) {
                    for stripe in run.stripes() {
                        run.indices(3).for_each(|i| assert!(plan.got(stripe, i)));
                        blocks += 1;
                    }
                    plan.ended(RequestId(next));
                    next += 1;
                }
            }
            blocks
        };
        assert_eq!(parity(&mut plan), PARITY_AHEAD);
        // Each stripe that the slow one completes makes room for one more.
        (0..8).for_each(|stripe| assert!(plan.got(stripe, 0)));
        assert_eq!(parity(&mut plan), 16);
    }
}
