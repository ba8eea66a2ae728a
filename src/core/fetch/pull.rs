//! The life of one pull: from the first question to the whole file or a failure that says what is missing.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use super::plan::{Offer, Plan, RequestId};
use super::{Action, Failure, Fetch, Order, Report, SourceFailure, SourceReport};
use crate::core::peer_score::PeerScores;
use crate::core::{Outgoing, Token};
use crate::fragment::Layout;
use crate::model::manifest::Manifest;
use crate::model::{Digest, MailId, MonoTime, Now, PeerId};
use crate::wire::Signed;

/// A pull fails when no verified block came for this long (DESIGN.md section 8).
const SILENCE: Duration = Duration::from_secs(30);
/// A request fails when nothing of it came for this long; its blocks are asked of others long before.
const REQUEST_SILENCE: Duration = Duration::from_secs(10);
/// How often overdue blocks are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Failed requests after which a source is given up.
const STRIKES: u8 = 2;
/// Manifests that are asked for at a time.
const MANIFESTS_AT_ONCE: usize = 2;

/// A source of one pull.
#[derive(Debug, Clone, Default)]
struct Source {
    /// Entered when it was asked, left when its offer is here.
    offer: OfferState,
    /// Whether its manifest was asked for.
    manifest_asked: bool,
    strikes: u8,
    report: SourceReport,
}

#[derive(Debug, Clone, Default)]
enum OfferState {
    /// Asked, no answer yet.
    #[default]
    Asked,
    /// It has these parts.
    Has(Offer),
    /// It has nothing, lied, or failed too often.
    Out(SourceFailure),
}

#[derive(Debug)]
enum Phase {
    /// Entered at the start; left with the first good manifest.
    Asking,
    /// Entered with the manifest; left when the file is open.
    Opening(Layout),
    /// Entered when the file is open; left when every stripe is complete.
    Pulling(Plan),
    /// Entered when every stripe is complete; left when the whole is checked.
    Finishing,
    /// The end.
    Ended(Result<PathBuf, Failure>),
}

/// Who lied about which mail. Its owner and digest belong to it: anybody may announce another mail by the same h, with a
/// manifest that no honest source fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lie {
    h: MailId,
    digest: Digest,
    owner: PeerId,
    source: PeerId,
}

impl Lie {
    /// That `source` lied about the mail of `order`.
    pub(super) fn of(order: &Order, source: PeerId) -> Self {
        Self { h: order.h, digest: order.digest, owner: order.owner, source }
    }
}

/// One mail that is pulled.
#[derive(Debug)]
pub(super) struct Pull {
    order: Order,
    /// Whom to answer.
    pub(super) waiters: Vec<Token>,
    phase: Phase,
    sources: BTreeMap<PeerId, Source>,
    manifests_under_way: usize,
    /// Verified bytes of each request under way.
    requests: BTreeMap<RequestId, (PeerId, u64)>,
    started: MonoTime,
    first_block: Option<MonoTime>,
    last_block: MonoTime,
    /// When to look for overdue blocks and silent requests again.
    look: MonoTime,
}

impl Pull {
    pub(super) fn new(now: Now, order: Order) -> Self {
        let sources = order.sources.iter().map(|s| (*s, Source::default())).collect();
        Self {
            order,
            waiters: Vec::new(),
            phase: Phase::Asking,
            sources,
            manifests_under_way: 0,
            requests: BTreeMap::new(),
            started: now.mono,
            first_block: None,
            last_block: now.mono,
            look: now.mono + LOOK,
        }
    }

    /// That `source` lied about this mail.
    pub(super) fn lie_of(&self, source: PeerId) -> Lie {
        Lie::of(&self.order, source)
    }

    /// Asks every source at once, so that a silent one delays nothing; but none that lied about this mail in an earlier pull.
    pub(super) fn start(&mut self, lied: &VecDeque<Lie>, out: &mut Outgoing<Fetch>) {
        for (source, state) in &mut self.sources {
            if lied.contains(&Lie::of(&self.order, *source)) {
                let why = "it served what is not in the manifest, in an earlier pull".to_owned();
                state.offer = OfferState::Out(SourceFailure::Lied(why));
                continue;
            }
            out.act(Action::AskOffer { h: self.order.h, owner: self.order.owner, source: *source });
        }
    }

    /// Whether it pulls the very mail of this order: the same bytes, of the same owner.
    pub(super) fn is_of(&self, order: &Order) -> bool {
        let mine = &self.order;
        (mine.h, mine.length, mine.digest, mine.owner) == (order.h, order.length, order.digest, order.owner)
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &PeerId> {
        self.sources.keys()
    }

    pub(super) fn percent(&self) -> u8 {
        match &self.phase {
            Phase::Asking | Phase::Opening(_) => 0,
            Phase::Pulling(plan) => plan.percent(),
            Phase::Finishing | Phase::Ended(_) => 100,
        }
    }

    pub(super) fn offered(&mut self, source: PeerId, offer: Offer, out: &mut Outgoing<Fetch>) {
        let Some(state) = self.sources.get_mut(&source) else { return };
        if matches!(state.offer, OfferState::Out(SourceFailure::Lied(_))) {
            return;
        }
        state.offer = OfferState::Has(offer.clone());
        if let Phase::Pulling(plan) = &mut self.phase {
            plan.offer(source, &offer);
        }
        self.ask_manifests(out);
    }

    /// Asks those that have something for the manifest, two at a time, each once.
    fn ask_manifests(&mut self, out: &mut Outgoing<Fetch>) {
        if !matches!(self.phase, Phase::Asking) {
            return;
        }
        for (source, state) in &mut self.sources {
            if self.manifests_under_way >= MANIFESTS_AT_ONCE {
                return;
            }
            if !state.manifest_asked && matches!(state.offer, OfferState::Has(_)) {
                state.manifest_asked = true;
                self.manifests_under_way += 1;
                out.act(Action::GetManifest { order: self.order.clone(), source: *source });
            }
        }
    }

    pub(super) fn manifest(&mut self, layout: Layout, manifest: Box<Signed<Manifest>>, out: &mut Outgoing<Fetch>) {
        let order = &self.order;
        if (manifest.h, manifest.length, manifest.digest, manifest.owner)
            != (order.h, order.length, order.digest, order.owner)
        {
            // The late answer to an earlier pull, of another mail with this h.
            return;
        }
        self.manifests_under_way = self.manifests_under_way.saturating_sub(1);
        if matches!(self.phase, Phase::Asking) {
            self.phase = Phase::Opening(layout);
            out.act(Action::Open { h: self.order.h, manifest });
        }
    }

    pub(super) fn manifest_failed(&mut self, source: PeerId, failure: &SourceFailure, out: &mut Outgoing<Fetch>) {
        self.manifests_under_way = self.manifests_under_way.saturating_sub(1);
        if let Some(state) = self.sources.get_mut(&source) {
            if let SourceFailure::Lied(_) = failure {
                state.report.bad_blocks += 1;
            }
            state.offer = OfferState::Out(failure.clone());
        }
        if let Phase::Pulling(plan) = &mut self.phase {
            plan.withdraw(&source);
        }
        self.ask_manifests(out);
    }

    pub(super) fn opened(&mut self, have: &[(u64, u8)]) {
        let Phase::Opening(layout) = &self.phase else { return };
        let mut plan = Plan::new(*layout);
        for (stripe, index) in have {
            plan.got(*stripe, *index);
        }
        for (source, state) in &self.sources {
            if let OfferState::Has(offer) = &state.offer {
                plan.offer(*source, offer);
            }
        }
        self.phase = Phase::Pulling(plan);
    }

    pub(super) fn block(&mut self, now: Now, request: RequestId, stripe: u64, index: u8, bytes: u64) {
        let Phase::Pulling(plan) = &mut self.phase else { return };
        // What came by a request of an earlier pull is in the file of that one.
        let Some((source, sum)) = self.requests.get_mut(&request) else { return };
        *sum += bytes;
        if let Some(state) = self.sources.get_mut(source) {
            state.report.bytes += bytes;
        }
        plan.got(stripe, index);
        plan.heard(request, now.mono);
        self.last_block = now.mono;
        self.first_block.get_or_insert(now.mono);
    }

    /// Forgets a request; who it was sent to and what came by it.
    pub(super) fn request_ended(&mut self, request: RequestId) -> Option<(PeerId, u64)> {
        if let Phase::Pulling(plan) = &mut self.phase {
            plan.ended(request);
        }
        self.requests.remove(&request)
    }

    /// A source failed: at once when it lied or has nothing, at the second time otherwise.
    pub(super) fn source_failed(&mut self, source: PeerId, failure: &SourceFailure, out: &mut Outgoing<Fetch>) {
        let Some(state) = self.sources.get_mut(&source) else { return };
        if let SourceFailure::Lied(_) = failure {
            state.report.bad_blocks += 1;
        }
        state.strikes += 1;
        let has = matches!(state.offer, OfferState::Has(_));
        if has && matches!(failure, SourceFailure::Unreachable(_)) && state.strikes < STRIKES {
            return;
        }
        state.offer = OfferState::Out(failure.clone());
        if let Phase::Pulling(plan) = &mut self.phase {
            for request in plan.withdraw(&source) {
                self.requests.remove(&request);
                out.act(Action::Cancel { request });
            }
        }
    }

    pub(super) fn finished(&mut self, result: Result<PathBuf, String>) {
        if matches!(self.phase, Phase::Finishing) {
            self.phase = Phase::Ended(result.map_err(|why| Failure::Mismatch { why }));
        }
    }

    pub(super) fn disk_failed(&mut self, why: String, out: &mut Outgoing<Fetch>) {
        self.cancel_all(out);
        self.phase = Phase::Ended(Err(Failure::Disk { why }));
    }

    fn cancel_all(&mut self, out: &mut Outgoing<Fetch>) {
        for (request, _) in std::mem::take(&mut self.requests) {
            out.act(Action::Cancel { request });
        }
    }

    /// Gives up requests of which nothing came for long.
    pub(super) fn check_silence(&mut self, now: Now, out: &mut Outgoing<Fetch>) {
        let Phase::Pulling(plan) = &self.phase else { return };
        let before = MonoTime(now.mono.0.saturating_sub(u64::try_from(REQUEST_SILENCE.as_millis()).unwrap_or(0)));
        for (request, source) in plan.silent(before) {
            out.act(Action::Cancel { request });
            self.request_ended(request);
            let failure = SourceFailure::Unreachable(format!("it was silent for {} s", REQUEST_SILENCE.as_secs()));
            self.source_failed(source, &failure, out);
        }
    }

    /// Hands out requests, and finishes when every stripe is complete.
    pub(super) fn go_on(&mut self, now: Now, scores: &PeerScores, next: &mut u64, out: &mut Outgoing<Fetch>) {
        if self.look <= now.mono {
            self.look = now.mono + LOOK;
        }
        let Phase::Pulling(plan) = &mut self.phase else { return };
        if plan.is_complete() {
            self.cancel_all(out);
            self.phase = Phase::Finishing;
            out.act(Action::Finish { h: self.order.h });
            return;
        }
        let mut sources: Vec<PeerId> = self.sources.keys().filter(|s| plan.has_source(s)).copied().collect();
        // The fastest first: what is left at the end is then not asked of the slowest.
        sources.sort_by_key(|s| std::cmp::Reverse(scores.of(s).map_or(0, |score| score.rate_bytes_s)));
        let k = plan.layout().k();
        let mut asked = true;
        while asked {
            asked = false;
            for source in &sources {
                let request = RequestId(*next);
                if let Some(run) = plan.next_for(*source, request, now.mono) {
                    *next += 1;
                    asked = true;
                    self.requests.insert(request, (*source, 0));
                    out.act(Action::Get { h: self.order.h, source: *source, request, k, run });
                }
            }
        }
    }

    /// How the pull ended, once it has.
    pub(super) fn ended(&mut self, now: Now) -> Option<Result<PathBuf, Failure>> {
        let failure = match &self.phase {
            Phase::Ended(result) => return Some(result.clone()),
            Phase::Finishing | Phase::Opening(_) => return None,
            Phase::Asking if self.manifests_under_way == 0 && !self.may_still_offer() => self.too_few(0, 1),
            Phase::Pulling(plan) if self.requests.is_empty() && !self.is_asking() => {
                self.too_few(plan.distinct_parts(), usize::from(plan.layout().k()))
            }
            Phase::Pulling(plan) if !self.is_asking() && plan.distinct_parts() < usize::from(plan.layout().k()) => {
                // What is left to get from those that remain does not complete the mail; blocks that are here already may.
                if self.last_block + Duration::from_secs(2) > now.mono && plan.is_busy() {
                    return None;
                }
                self.too_few(plan.distinct_parts(), usize::from(plan.layout().k()))
            }
            _ if now.mono.since(self.last_block) >= SILENCE => Failure::Silent { silent_s: SILENCE.as_secs() },
            _ => return None,
        };
        self.phase = Phase::Ended(Err(failure.clone()));
        Some(Err(failure))
    }

    fn is_asking(&self) -> bool {
        self.sources.values().any(|s| matches!(s.offer, OfferState::Asked))
    }

    /// Whether a source may still come up with a manifest.
    fn may_still_offer(&self) -> bool {
        self.sources.values().any(|s| match &s.offer {
            OfferState::Asked => true,
            OfferState::Has(_) => !s.manifest_asked,
            OfferState::Out(_) => false,
        })
    }

    fn too_few(&self, found: usize, needed: usize) -> Failure {
        let out = |wanted: fn(&SourceFailure) -> bool| {
            self.sources.values().filter(|s| matches!(&s.offer, OfferState::Out(f) if wanted(f))).count()
        };
        if out(|f| matches!(f, SourceFailure::Gone)) > 0 {
            return Failure::Gone;
        }
        let unreachable = out(|f| matches!(f, SourceFailure::Unreachable(_)));
        let missing = needed.saturating_sub(found).max(1);
        Failure::TooFew {
            found: needed.saturating_sub(missing),
            needed,
            missing,
            unreachable,
            asked: self.sources.len(),
        }
    }

    /// When to look again.
    pub(super) fn timeout(&self) -> Option<MonoTime> {
        let silence = self.last_block + SILENCE;
        match &self.phase {
            Phase::Asking => Some(silence),
            Phase::Pulling(_) => Some(self.look.min(silence)),
            Phase::Opening(_) | Phase::Finishing | Phase::Ended(_) => None,
        }
    }

    pub(super) fn report(&self, now: Now, ok: bool) -> Report {
        let ms = |from: MonoTime, to: MonoTime| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
        Report {
            h: self.h(),
            sources: self.sources.iter().map(|(peer, s)| (*peer, s.report.clone())).collect(),
            took_ms: ms(self.started, now.mono),
            first_block_ms: self.first_block.map(|at| ms(self.started, at)),
            ok,
        }
    }

    fn h(&self) -> MailId {
        self.order.h
    }
}
