//! The life of one pull: from the first question to the whole file or a failure that says what is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::plan::{Offer, Plan, RequestId};
use super::schedule::Schedule;
use super::{Action, Failure, Fetch, Order, Report, SourceFailure, SourceReport};
use crate::core::peer_score::PeerScores;
use crate::core::{Outgoing, Token};
use crate::fragment::Layout;
use crate::model::manifest::Manifest;
use crate::model::msglist::Ending;
use crate::model::{Digest, MailId, MonoTime, Now, PeerId, PulledMail, Urgency};
use crate::wire::Signed;

/// A pull fails when no verified block came for this long (DESIGN.md section 8).
const SILENCE: Duration = Duration::from_secs(30);
/// A request fails when nothing of it came for this long; its blocks are asked of others long before.
const REQUEST_SILENCE: Duration = Duration::from_secs(10);
/// How often overdue blocks are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// Times that requests of a source failed after which it is given up. What fails at one time counts once.
const STRIKES: u8 = 2;
/// Manifests that are asked for at a time: the first good one is taken, so a slow source does not hold up the start.
const MANIFESTS_AT_ONCE: usize = 3;
/// One more is asked for each time that none came for this long.
const MANIFEST_PATIENCE: Duration = Duration::from_millis(300);

/// What pulls came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Those that ended with the whole mail.
    pub whole: u64,
    /// Those that ended without it.
    pub failed: u64,
    /// Verified bytes, from all sources.
    pub bytes: u64,
}

impl Totals {
    pub(super) fn add(&mut self, report: &Report) {
        *(if report.ok { &mut self.whole } else { &mut self.failed }) += 1;
        self.bytes += report.sources.values().map(|source| source.bytes).sum::<u64>();
    }
}

/// A source of one pull.
#[derive(Debug, Clone, Default)]
struct Source {
    /// Entered when it was asked, left when its offer is here.
    offer: OfferState,
    /// Whether its manifest was asked for, and whether no answer came yet.
    manifest: Asked,
    strikes: u8,
    /// When it got the last of them.
    struck: MonoTime,
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

/// Whether something was asked of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Asked {
    /// Not yet.
    #[default]
    No,
    /// And no answer came yet.
    Waiting,
    /// And it was answered, or is not wanted any more.
    Done,
}

#[derive(Debug)]
enum Phase {
    /// Entered at the start; left with the first good manifest.
    Asking,
    /// Entered with the manifest; left when the file is open.
    Opening(Layout),
    /// Entered when the file is open; left when every stripe is complete.
    Pulling(Schedule),
    /// Entered when every stripe is complete; left when the whole is checked.
    Finishing,
    /// The end.
    Ended(Result<PulledMail, Failure>),
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
    /// When a manifest was last asked for.
    manifest_asked: MonoTime,
    /// The k of the encodings that were tried, each with the largest n, and the k to try next: a mail that moves to another
    /// encoding has parts of two.
    tried: BTreeMap<u8, u8>,
    wanted_k: Option<u8>,
    started: MonoTime,
    first_block: Option<MonoTime>,
    /// When the last verified block came; the start, before there is one.
    last_block: MonoTime,
    /// When to look for overdue blocks and silent requests again.
    look: MonoTime,
    /// Whether a source showed its owner's word that it took the mail back: it is not read any more, whoever still has it (R7).
    is_taken_back: bool,
}

impl Pull {
    pub(super) fn new(now: Now, token: Token, order: Order) -> Self {
        let sources = order.sources.iter().map(|s| (*s, Source::default())).collect();
        Self {
            order,
            waiters: vec![token],
            phase: Phase::Asking,
            sources,
            manifest_asked: now.mono,
            tried: BTreeMap::new(),
            wanted_k: None,
            started: now.mono,
            first_block: None,
            last_block: now.mono,
            look: now.mono + LOOK,
            is_taken_back: false,
        }
    }

    /// Somebody else wants the same mail; it hurries if one of them waits for it.
    pub(super) fn join(&mut self, token: Token, urgency: Urgency) {
        self.waiters.push(token);
        self.order.urgency = self.order.urgency.min(urgency);
    }

    /// What is pulled.
    pub(super) fn order(&self) -> &Order {
        &self.order
    }

    /// Whether a source has said what it has, and is not out since.
    pub(super) fn has_offer_of(&self, source: &PeerId) -> bool {
        self.sources.get(source).is_some_and(|state| matches!(state.offer, OfferState::Has(_)))
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

    pub(super) fn sources(&self) -> impl Iterator<Item = &PeerId> {
        self.sources.keys()
    }

    pub(super) fn percent(&self) -> u8 {
        match &self.phase {
            Phase::Asking | Phase::Opening(_) => 0,
            Phase::Pulling(schedule) => schedule.plan().percent(),
            Phase::Finishing | Phase::Ended(_) => 100,
        }
    }

    pub(super) fn offered(
        &mut self,
        now: Now,
        source: PeerId,
        offer: Offer,
        scores: &PeerScores,
        out: &mut Outgoing<Fetch>,
    ) {
        let Some(state) = self.sources.get_mut(&source) else { return };
        if matches!(state.offer, OfferState::Out(SourceFailure::Lied(_))) {
            return;
        }
        state.offer = OfferState::Has(offer.clone());
        if let Phase::Pulling(schedule) = &mut self.phase {
            schedule.offer(source, &offer, scores);
        }
        self.ask_manifests(now, out);
    }

    fn manifests_under_way(&self) -> usize {
        self.sources.values().filter(|s| s.manifest == Asked::Waiting).count()
    }

    /// Asks those that have something for the manifest, a few at a time, each once.
    fn ask_manifests(&mut self, now: Now, out: &mut Outgoing<Fetch>) {
        if !matches!(self.phase, Phase::Asking) {
            return;
        }
        let waited = now.mono.since(self.manifest_asked) >= MANIFEST_PATIENCE;
        let mut room = MANIFESTS_AT_ONCE.saturating_sub(self.manifests_under_way()).max(usize::from(waited));
        for (source, state) in &mut self.sources {
            if room == 0 {
                return;
            }
            if state.manifest == Asked::No && matches!(state.offer, OfferState::Has(_)) {
                state.manifest = Asked::Waiting;
                self.manifest_asked = now.mono;
                room -= 1;
                out.act(Action::GetManifest { order: self.order.clone(), source: *source, k: self.wanted_k });
            }
        }
    }

    pub(super) fn manifest(
        &mut self,
        source: PeerId,
        layout: Layout,
        manifest: Box<Signed<Manifest>>,
        out: &mut Outgoing<Fetch>,
    ) {
        let order = &self.order;
        if (manifest.h, manifest.length, manifest.digest, manifest.owner)
            != (order.h, order.length, order.digest, order.owner)
        {
            // The late answer to an earlier pull, of another mail with this h.
            return;
        }
        if let Some(state) = self.sources.get_mut(&source) {
            state.manifest = Asked::Done;
        }
        // A source that has only parts of the encoding that was tried has only its manifest.
        if matches!(self.phase, Phase::Asking) && self.tried.get(&layout.k()).is_none_or(|n| layout.n() > *n) {
            self.tried.insert(layout.k(), layout.n());
            self.phase = Phase::Opening(layout);
            self.stop_manifests(out);
            out.act(Action::Open { h: self.order.h, manifest });
        }
    }

    /// The other sources need not send theirs any more.
    fn stop_manifests(&mut self, out: &mut Outgoing<Fetch>) {
        for (source, state) in self.sources.iter_mut().filter(|(_, s)| s.manifest == Asked::Waiting) {
            state.manifest = Asked::Done;
            out.act(Action::StopManifest { h: self.order.h, source: *source });
        }
    }

    pub(super) fn manifest_failed(
        &mut self,
        now: Now,
        source: PeerId,
        failure: &SourceFailure,
        out: &mut Outgoing<Fetch>,
    ) {
        if let Some(state) = self.sources.get_mut(&source) {
            if let SourceFailure::Lied(_) = failure {
                state.report.bad_blocks += 1;
            }
            state.manifest = Asked::Done;
            state.offer = OfferState::Out(failure.clone());
        }
        self.is_taken_back |= *failure == SourceFailure::Gone(Ending::Cancelled);
        if let Phase::Pulling(schedule) = &mut self.phase {
            for request in schedule.withdraw(&source) {
                out.act(Action::Cancel { request });
            }
        }
        self.ask_manifests(now, out);
    }

    pub(super) fn opened(&mut self, have: &[(u64, u8)], scores: &PeerScores) {
        let Phase::Opening(layout) = &self.phase else { return };
        let mut plan = Plan::new(*layout);
        for (stripe, index) in have {
            plan.got(*stripe, *index);
        }
        let mut schedule = Schedule::new(plan);
        for (source, state) in &self.sources {
            if let OfferState::Has(offer) = &state.offer {
                schedule.offer(*source, offer, scores);
            }
        }
        self.phase = Phase::Pulling(schedule);
    }

    pub(super) fn arrived(&mut self, now: Now, request: RequestId, bytes: u64) {
        if let Phase::Pulling(schedule) = &mut self.phase {
            schedule.arrived(now.mono, request, bytes);
        }
    }

    pub(super) fn block(&mut self, now: Now, request: RequestId, stripe: u64, index: u8, bytes: u64) {
        let Phase::Pulling(schedule) = &mut self.phase else { return };
        // What came by a request of an earlier pull is in the file of that one.
        let Some(source) = schedule.plan().under_way().get(&request).map(|r| r.source) else { return };
        if let Some(state) = self.sources.get_mut(&source) {
            state.report.bytes += bytes;
        }
        schedule.block(now.mono, request, (stripe, index), bytes);
        self.last_block = now.mono;
        self.first_block.get_or_insert(now.mono);
    }

    /// Forgets a request; who it was sent to, and when.
    pub(super) fn request_ended(
        &mut self,
        now: Now,
        request: RequestId,
        scores: &mut PeerScores,
    ) -> Option<(PeerId, MonoTime)> {
        let Phase::Pulling(schedule) = &mut self.phase else { return None };
        schedule.ended(now.mono, request, scores)
    }

    /// A request failed that was sent at `sent`. Requests that were under way together fail together: that is one failure.
    pub(super) fn request_failed(
        &mut self,
        now: Now,
        (source, sent): (PeerId, MonoTime),
        failure: &SourceFailure,
        out: &mut Outgoing<Fetch>,
    ) {
        let Some(state) = self.sources.get_mut(&source) else { return };
        let is_same = state.strikes > 0 && sent <= state.struck;
        if !is_same {
            state.strikes += 1;
            state.struck = now.mono;
        }
        if matches!(failure, SourceFailure::Unreachable(_)) && state.strikes < STRIKES {
            return;
        }
        self.source_failed(source, failure, out);
    }

    /// A source is out.
    pub(super) fn source_failed(&mut self, source: PeerId, failure: &SourceFailure, out: &mut Outgoing<Fetch>) {
        let Some(state) = self.sources.get_mut(&source) else { return };
        self.is_taken_back |= *failure == SourceFailure::Gone(Ending::Cancelled);
        if let SourceFailure::Lied(_) = failure {
            state.report.bad_blocks += 1;
        }
        if !matches!(state.offer, OfferState::Out(SourceFailure::Lied(_))) {
            state.offer = OfferState::Out(failure.clone());
        }
        if let Phase::Pulling(schedule) = &mut self.phase {
            for request in schedule.withdraw(&source) {
                out.act(Action::Cancel { request });
            }
        }
    }

    pub(super) fn finished(&mut self, result: Result<PulledMail, String>) {
        if matches!(self.phase, Phase::Finishing) {
            let checked = result.map_err(|why| Failure::Mismatch { why });
            self.phase = Phase::Ended(if self.is_taken_back { Err(Failure::Gone) } else { checked });
        }
    }

    pub(super) fn disk_failed(&mut self, failure: Failure, out: &mut Outgoing<Fetch>) {
        self.cancel_all(out);
        self.phase = Phase::Ended(Err(failure));
    }

    /// Stops all that is under way.
    pub(super) fn cancel_all(&mut self, out: &mut Outgoing<Fetch>) {
        if let Phase::Pulling(schedule) = &self.phase {
            for request in schedule.plan().under_way().keys() {
                out.act(Action::Cancel { request: *request });
            }
        }
        self.stop_manifests(out);
    }

    /// Gives up requests of which nothing came for long, and asks more sources for a manifest that does not come.
    pub(super) fn check_silence(&mut self, now: Now, scores: &mut PeerScores, out: &mut Outgoing<Fetch>) {
        self.ask_manifests(now, out);
        let Phase::Pulling(schedule) = &mut self.phase else { return };
        for (request, source) in schedule.silent(now.mono, REQUEST_SILENCE) {
            out.act(Action::Cancel { request });
            let Some(asked) = self.request_ended(now, request, scores) else { continue };
            let why = format!("it was silent for {} s", REQUEST_SILENCE.as_secs());
            debug_assert_eq!(asked.0, source);
            self.request_failed(now, asked, &SourceFailure::Unreachable(why), out);
        }
    }

    /// Hands out requests, stops those that nobody needs any more, and finishes when every stripe is complete.
    pub(super) fn go_on(&mut self, now: Now, scores: &mut PeerScores, next: &mut u64, out: &mut Outgoing<Fetch>) {
        if self.look <= now.mono {
            self.look = now.mono + LOOK;
        }
        let Phase::Pulling(schedule) = &mut self.phase else { return };
        if schedule.plan().is_complete() {
            self.cancel_all(out);
            self.phase = Phase::Finishing;
            out.act(Action::Finish { h: self.order.h });
            return;
        }
        for request in schedule.plan().useless() {
            schedule.ended(now.mono, request, scores);
            out.act(Action::Cancel { request });
        }
        let (k, urgency) = (schedule.plan().layout().k(), self.order.urgency);
        // Blocks of too few sources make no stripe: of a mail that cannot be had now, and is tried for again and again, none travels.
        if schedule.plan().can_complete() {
            for (request, source, run) in schedule.hand_out(now.mono, urgency, next) {
                out.act(Action::Get { h: self.order.h, source, request, k, run, urgency });
            }
        }
        self.turn_to_other_encoding(now, out);
    }

    fn is_stuck(&self) -> bool {
        match &self.phase {
            Phase::Pulling(schedule) => {
                !self.is_asking() && (schedule.plan().under_way().is_empty() || !schedule.plan().can_complete())
            }
            _ => false,
        }
    }

    /// When too little is left of one encoding, and the sources have enough of another: starts again with that one's manifest.
    /// It may have the same k and a larger n: what fits both is enough only with what the first manifest does not name. Blocks
    /// of the mail itself that are in the file are not pulled again.
    fn turn_to_other_encoding(&mut self, now: Now, out: &mut Outgoing<Fetch>) {
        if !self.is_stuck() {
            return;
        }
        let mut distinct: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        for state in self.sources.values() {
            if let OfferState::Has(offer) = &state.offer {
                offer.fragments.iter().for_each(|(k, i)| {
                    distinct.entry(*k).or_default().insert(*i);
                });
            }
        }
        let tried = &self.tried;
        let is_new = |k: &u8, i: &u8| tried.get(k).is_none_or(|n| i >= n);
        let enough = |(k, indices): &(&u8, &BTreeSet<u8>)| {
            indices.len() >= usize::from(**k) && indices.iter().any(|i| is_new(k, i))
        };
        let Some(k) = distinct.iter().find(enough).map(|(k, _)| *k) else { return };
        for state in self.sources.values_mut() {
            let is_of_it = |(of, i): &(u8, u8)| *of == k && is_new(of, i);
            let has = matches!(&state.offer, OfferState::Has(offer) if offer.fragments.iter().any(is_of_it));
            state.manifest = if has { Asked::No } else { Asked::Done };
        }
        self.cancel_all(out);
        (self.phase, self.wanted_k) = (Phase::Asking, Some(k));
        self.ask_manifests(now, out);
    }

    /// How the pull ended, once it has.
    pub(super) fn ended(&mut self, now: Now) -> Option<Result<PulledMail, Failure>> {
        let failure = match &self.phase {
            Phase::Ended(result) => return Some(result.clone()),
            Phase::Finishing | Phase::Opening(_) => return None,
            _ if self.is_taken_back => Failure::Gone,
            Phase::Asking if self.manifests_under_way() == 0 && !self.may_still_offer() => self.too_few(0, 1),
            Phase::Pulling(schedule) if self.is_stuck() => {
                let plan = schedule.plan();
                self.too_few(plan.distinct_parts(), usize::from(plan.layout().k()))
            }
            _ if now.mono.since(self.last_block) >= SILENCE => Failure::Silent { silent_s: SILENCE.as_secs() },
            _ => return None,
        };
        Some(Err(failure))
    }

    fn is_asking(&self) -> bool {
        self.sources.values().any(|s| matches!(s.offer, OfferState::Asked))
    }

    /// Whether a source may still come up with a manifest.
    fn may_still_offer(&self) -> bool {
        self.sources.values().any(|s| match &s.offer {
            OfferState::Asked => true,
            OfferState::Has(_) => s.manifest == Asked::No,
            OfferState::Out(_) => false,
        })
    }

    fn too_few(&self, found: usize, needed: usize) -> Failure {
        let out = |wanted: fn(&SourceFailure) -> bool| {
            self.sources.values().filter(|s| matches!(&s.offer, OfferState::Out(f) if wanted(f))).count()
        };
        if out(|f| matches!(f, SourceFailure::Gone(_))) > 0 {
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
            Phase::Asking if self.manifests_under_way() > 0 => Some(self.look.min(silence)),
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
            last_block_ms: self.first_block.map(|_| ms(self.started, self.last_block)),
            ok,
        }
    }

    fn h(&self) -> MailId {
        self.order.h
    }

    /// Blocks of parity that wait in memory, or are on their way there.
    pub(super) fn parity_kept(&self) -> usize {
        let Phase::Pulling(schedule) = &self.phase else { return 0 };
        schedule.plan().parity_kept()
    }

    /// How many of them there may be from now on.
    pub(super) fn give_room(&mut self, blocks: usize) {
        if let Phase::Pulling(schedule) = &mut self.phase {
            schedule.give_room(blocks);
        }
    }

    /// Blocks of parity that wait in memory.
    #[cfg(test)]
    pub(super) fn parity_waiting(&self) -> Option<u64> {
        let Phase::Pulling(schedule) = &self.phase else { return None };
        Some(schedule.plan().parity_waiting())
    }

    /// Whether a request is under way.
    #[cfg(test)]
    pub(super) fn has_request(&self, request: RequestId) -> bool {
        matches!(&self.phase, Phase::Pulling(schedule) if schedule.plan().under_way().contains_key(&request))
    }
}
