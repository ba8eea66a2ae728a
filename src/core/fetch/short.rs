//! Mails of one block: their BLAKE3 is in the ns, so neither a manifest nor an offer is needed to check them, and one request to
//! their owner is a whole pull. Only owners that answered of late are asked so; one that fails or is late delays the ordinary pull,
//! which asks everybody, by a moment at most.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::pull::Lie;
use super::{Action, Failure, Fetch, Order, Reply, Report, RequestId, SourceFailure, SourceReport};
use crate::core::Token;
use crate::core::peer_score::PeerScores;
use crate::model::manifest::BLOCK_BYTES;
use crate::model::msglist::Ending;
use crate::model::{MailId, MonoTime, Now, PeerId, PulledMail};

/// Short mails that are pulled at a time: enough to hide the delay of their owner, and each may want a connection, which costs as much
/// as a mail.
pub(super) const SHORTS_MAX: usize = 8;
/// How long an owner is waited for alone: some times as long as it took of late, within these bounds.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(500));
/// How many times as long.
const PATIENCE_TIMES: u32 = 4;
/// Most owners that are remembered.
const OWNERS_MAX: usize = 512;

/// One mail that is asked of its owner alone.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) order: Order,
    /// Whom to answer.
    pub(super) waiters: Vec<Token>,
    request: RequestId,
    started: MonoTime,
    /// When everybody is asked.
    pub(super) until: MonoTime,
}

/// Owners that served something of late, and how long the first bytes took.
#[derive(Debug, Default)]
pub(super) struct Answering(BTreeMap<PeerId, Duration>);

impl Answering {
    fn note(&mut self, owner: PeerId, took: Duration) {
        if self.0.len() >= OWNERS_MAX {
            self.0.clear();
        }
        let before = self.0.get(&owner).copied().unwrap_or(took);
        self.0.insert(owner, (before * 3 + took) / 4);
    }
    /// After an ordinary pull: whether its owner is there.
    pub(super) fn learn(&mut self, owner: PeerId, has_answered: bool, scores: &PeerScores) {
        if !has_answered {
            self.0.remove(&owner);
            return;
        }
        let took = scores.of(&owner).map_or(PATIENCE.0, |score| Duration::from_millis(score.delay_ms));
        self.note(owner, took);
    }
}

impl Fetch {
    /// Whether a mail is asked of its owner alone.
    pub(super) fn is_short(&self, order: &Order) -> bool {
        let may_ask = order.sources.contains(&order.owner) && !self.lied.contains(&Lie::of(order, order.owner));
        order.length <= u64::from(BLOCK_BYTES) && self.answering.0.contains_key(&order.owner) && may_ask
    }
    pub(super) fn has_room_for_short(&self) -> bool {
        self.shorts.len() < SHORTS_MAX
    }

    /// Asks the owner of a short mail for it.
    pub(super) fn begin_short(&mut self, now: Now, token: Token, order: Order) {
        let took = self.answering.0.get(&order.owner).copied().unwrap_or_default();
        let until = now.mono + (took * PATIENCE_TIMES).clamp(PATIENCE.0, PATIENCE.1);
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.out.act(Action::GetShort { order: order.clone(), request });
        self.shorts.insert(order.h, Short { order, waiters: vec![token], request, started: now.mono, until });
    }

    pub(super) fn short_ended(
        &mut self,
        now: Now,
        h: MailId,
        request: RequestId,
        result: Result<Bytes, SourceFailure>,
    ) {
        let Some(short) = self.shorts.remove(&h) else { return };
        if short.request != request {
            // The late answer to an earlier one.
            self.shorts.insert(h, short);
            return;
        }
        let owner = short.order.owner;
        match result {
            Ok(bytes) => {
                let took = now.mono.since(short.started);
                self.answering.note(owner, took);
                self.keep_report(short.report(took));
                self.answer(&short.waiters, &short.order, &Reply::Fetched(PulledMail::Memory(bytes)));
                self.start_waiting(now);
            }
            Err(SourceFailure::Gone(Ending::Cancelled)) => {
                self.answer(&short.waiters, &short.order, &Reply::Failed(Failure::Gone));
                self.start_waiting(now);
            }
            Err(failure) => {
                if let SourceFailure::Lied(why) = &failure {
                    self.lied_elsewhere(&short.order, owner, why);
                }
                self.pull_after(now, short);
            }
        }
    }

    /// Asks everybody for what owners do not send in time.
    pub(super) fn turn_from_late_shorts(&mut self, now: Now) {
        let late: Vec<MailId> =
            self.shorts.iter().filter(|(_, short)| short.until <= now.mono).map(|(h, _)| *h).collect();
        for short in late.iter().filter_map(|h| self.shorts.remove(h)).collect::<Vec<_>>() {
            self.out.act(Action::Cancel { request: short.request });
            self.pull_after(now, short);
        }
    }

    /// The owner is not asked alone again until it has served something.
    fn pull_after(&mut self, now: Now, short: Short) {
        self.answering.0.remove(&short.order.owner);
        for token in short.waiters {
            self.want(now, token, short.order.clone());
        }
    }
}

impl Short {
    fn report(&self, took: Duration) -> Report {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let source = SourceReport { bytes: self.order.length, bad_blocks: 0 };
        Report {
            h: self.order.h,
            sources: BTreeMap::from([(self.order.owner, source)]),
            took_ms: ms,
            first_block_ms: Some(ms),
            last_block_ms: Some(ms),
            ok: true,
        }
    }
}
