//! The fetch brain: pulls sealed mails from the sender and the members in parallel, any k distinct blocks of each stripe. It
//! never sees a byte: the shell verifies every block against the manifest before it tells (R6).
//!
//! ```text
//!  Want of a short mail whose owner answers --> short --ok--> done
//!   short --failed, or late--> asking
//!  Want --> asking sources (manifest and offers, all at once) --first good manifest--> opening the file
//!   opening --opened, with the blocks an earlier run left--> pulling --every stripe complete--> finishing --ok--> done
//!   asking, pulling --too few parts left, or silent for 30 s--> failed (the next open asks all again)
//! ```

#[cfg(test)]
mod fluid;
mod io;
mod plan;
mod pull;
mod schedule;
mod share;
mod short;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use io::{Action, Event, Failure, Found, Input, Order, Reply, Report, SourceFailure, SourceReport, Status};
pub use plan::{Offer, RequestId, Run};
pub use pull::Totals;
use pull::{Lie, Pull};
pub use share::bound_of_fragments;

use short::{Answering, Short};

use super::peer_score::PeerScores;
use super::{Brain, Effect, Outgoing, Token, earliest};
use crate::model::{MailId, MonoTime, Now, PeerId};

/// Mails that are pulled at a time; the others wait their turn.
const PULLS_MAX: usize = 8;
/// Mails that may wait.
const WAITING_MAX: usize = 1024;
/// Lies that are remembered over pulls.
const LIED_MAX: usize = 1024;
/// Reports of finished pulls that are kept for whoever asks.
const REPORTS_MAX: usize = 64;

/// The brain.
#[derive(Debug, Default)]
pub struct Fetch {
    pulls: BTreeMap<MailId, Pull>,
    shorts: BTreeMap<MailId, Short>,
    answering: Answering,
    waiting: Vec<(Token, Order)>,
    next_request: u64,
    scores: PeerScores,
    reports: Vec<Report>,
    totals: Totals,
    liars: BTreeMap<PeerId, u64>,
    /// Who lied about which mail, oldest first: not asked for it again.
    lied: VecDeque<Lie>,
    out: Outgoing<Fetch>,
}

impl Fetch {
    fn want(&mut self, now: Now, token: Token, order: Order) {
        if let Some(short) = self.shorts.get_mut(&order.h)
            && short.order.is_same_mail(&order)
        {
            return short.waiters.push(token);
        }
        let (may_start, is_short) = (self.may_start(&order), self.is_short(&order));
        match self.pulls.get_mut(&order.h) {
            Some(pull) if pull.order().is_same_mail(&order) => {
                pull.join(token, order.urgency);
                self.settle(now, order.h);
            }
            None if may_start && is_short => self.begin_short(now, token, order),
            None if may_start => {
                let h = order.h;
                let mut pull = Pull::new(now, token, order);
                pull.start(&self.lied, &mut self.out);
                self.pulls.insert(h, pull);
                self.settle(now, h);
            }
            // h is only a name, and anybody may announce another mail by it. One of them at a time: what comes of the one is
            // never told of the other.
            Some(_) | None if self.waiting.len() < WAITING_MAX => self.waiting.push((token, order)),
            Some(_) | None => self.out.reply(token, Reply::Failed(Failure::Busy)),
        }
    }

    /// Whether there is room for it, and nothing is pulled by its h.
    fn may_start(&self, order: &Order) -> bool {
        let room = if self.is_short(order) { self.has_room_for_short() } else { self.pulls.len() < PULLS_MAX };
        room && !self.pulls.contains_key(&order.h) && !self.shorts.contains_key(&order.h)
    }

    /// Starts pulls that wait for their turn, the oldest first.
    fn start_waiting(&mut self, now: Now) {
        while let Some(at) = self.waiting.iter().position(|(_, order)| self.may_start(order)) {
            let (token, order) = self.waiting.remove(at);
            self.want(now, token, order);
        }
    }

    /// Lets a pull go on, and ends it when it is over.
    fn settle(&mut self, now: Now, h: MailId) {
        let others = self.pulls.iter().filter(|(other, _)| **other != h);
        let room = plan::parity_room(others.map(|(_, pull)| pull.parity_kept()));
        let Some(pull) = self.pulls.get_mut(&h) else { return };
        pull.give_room(room);
        pull.go_on(now, &mut self.scores, &mut self.next_request, &mut self.out);
        let Some(ending) = pull.ended(now) else { return };
        let Some(mut pull) = self.pulls.remove(&h) else { return };
        let ok = ending.is_ok();
        let report = pull.report(now, ok);
        let owner = pull.order().owner;
        self.answering.learn(owner, pull.has_offer_of(&owner), &self.scores);
        self.keep_report(report);
        if !ok {
            pull.cancel_all(&mut self.out);
            // What its owner took back is not tried again.
            self.out.act(Action::Close { h, keep: !matches!(ending, Err(Failure::Gone)) });
        }
        let reply = match ending {
            Ok(pulled) => Reply::Fetched(pulled),
            Err(failure) => Reply::Failed(failure),
        };
        self.answer(&pull.waiters, pull.order(), &reply);
        self.start_waiting(now);
    }

    /// Answers those who wait for a mail, and those who wait their turn for it.
    fn answer(&mut self, waiters: &[Token], order: &Order, reply: &Reply) {
        let is_same = |waiting: &mut (Token, Order)| waiting.1.is_same_mail(order);
        let same: Vec<_> = self.waiting.extract_if(.., is_same).map(|(token, _)| token).collect();
        for token in waiters.iter().chain(&same) {
            self.out.reply(*token, reply.clone());
        }
    }

    fn keep_report(&mut self, report: Report) {
        self.totals.add(&report);
        self.reports.push(report);
        if self.reports.len() > REPORTS_MAX {
            self.reports.remove(0);
        }
    }

    fn lied(&mut self, h: MailId, peer: PeerId, why: &str) {
        if let Some(lie) = self.pulls.get(&h).map(|pull| pull.lie_of(peer)) {
            self.remember(lie);
        }
        self.name_liar(h, peer, why);
    }

    fn name_liar(&mut self, h: MailId, peer: PeerId, why: &str) {
        *self.liars.entry(peer).or_default() += 1;
        self.out.act(Action::NameLiar { h, peer, why: why.to_owned() });
    }

    fn remember(&mut self, lie: Lie) {
        if !self.lied.contains(&lie) {
            self.lied.push_back(lie);
            if self.lied.len() > LIED_MAX {
                self.lied.pop_front();
            }
        }
    }

    /// A peer lied about a mail outside of any pull.
    fn lied_elsewhere(&mut self, order: &Order, source: PeerId, why: &str) {
        self.remember(Lie::of(order, source));
        self.name_liar(order.h, source, why);
    }

    fn source_failed(&mut self, h: MailId, source: PeerId, failure: &SourceFailure) {
        if let SourceFailure::Lied(why) = failure {
            self.lied(h, source, why);
        }
        if let Some(pull) = self.pulls.get_mut(&h) {
            pull.source_failed(source, failure, &mut self.out);
        }
    }

    fn ended(&mut self, now: Now, h: MailId, request: RequestId, result: Result<(Duration, Duration), SourceFailure>) {
        let Some(pull) = self.pulls.get_mut(&h) else { return };
        let Some(asked) = pull.request_ended(now, request, &mut self.scores) else { return };
        if let Err(failure) = result {
            if let SourceFailure::Lied(why) = &failure {
                self.lied(h, asked.0, why);
            }
            if let Some(pull) = self.pulls.get_mut(&h) {
                pull.request_failed(now, asked, &failure, &mut self.out);
            }
        }
        self.settle(now, h);
    }

    fn offered(&mut self, now: Now, h: MailId, source: PeerId, offer: Result<Offer, SourceFailure>) {
        match offer {
            Ok(offer) => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.offered(now, source, offer, &self.scores, &mut self.out);
                }
            }
            Err(failure) => self.source_failed(h, source, &failure),
        }
        self.settle(now, h);
    }

    fn manifest(&mut self, now: Now, h: MailId, source: PeerId, manifest: Found) {
        if let Err(SourceFailure::Lied(why)) = &manifest {
            self.lied(h, source, why);
        }
        if let Some(pull) = self.pulls.get_mut(&h) {
            match manifest {
                Ok((layout, manifest)) => pull.manifest(source, layout, manifest, &mut self.out),
                Err(failure) => pull.manifest_failed(now, source, &failure, &mut self.out),
            }
        }
        self.settle(now, h);
    }
}

impl Brain for Fetch {
    const NAME: &'static str = "fetch";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = Status;

    fn replay(&mut self, event: Event) {
        match event {}
    }
    fn snapshot(&self) -> Vec<Event> {
        Vec::new()
    }
    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Want(token, order) => self.want(now, token, order),
            Input::Progress(token, h) => {
                let short = self.shorts.get(&h).map(|_| 0);
                let percent = self.pulls.get(&h).map(Pull::percent).or(short);
                self.out.reply(token, Reply::Progress(percent));
            }
            Input::Offered { h, source, offer } => self.offered(now, h, source, offer),
            Input::Manifest { h, source, manifest } => self.manifest(now, h, source, manifest),
            Input::Opened { h, have } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.opened(&have, &self.scores);
                }
                self.settle(now, h);
            }
            Input::Arrived { h, request, bytes } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.arrived(now, request, bytes);
                }
                self.settle(now, h);
            }
            Input::Block { h, request, stripe, index, bytes } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.block(now, request, stripe, index, bytes);
                }
                self.settle(now, h);
            }
            Input::Ended { h, request, result } => self.ended(now, h, request, result),
            Input::Lied { order, source, why } => self.lied_elsewhere(&order, source, &why),
            Input::Short { h, request, result } => self.short_ended(now, h, request, result),
            Input::Finished { h, result } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.finished(result);
                }
                self.settle(now, h);
            }
            Input::DiskFailed { h, why, full } => {
                if let Some(pull) = self.pulls.get_mut(&h) {
                    pull.disk_failed(Failure::Disk { why, full }, &mut self.out);
                }
                self.settle(now, h);
            }
        }
    }
    fn wake(&mut self, now: Now) {
        self.turn_from_late_shorts(now);
        let all: Vec<MailId> = self.pulls.keys().copied().collect();
        for h in all {
            if let Some(pull) = self.pulls.get_mut(&h) {
                pull.check_silence(now, &mut self.scores, &mut self.out);
            }
            self.settle(now, h);
        }
    }
    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }
    fn poll_timeout(&self) -> Option<MonoTime> {
        let late = self.shorts.values().map(|short| Some(short.until));
        earliest(self.pulls.values().map(Pull::timeout).chain(late))
    }
    fn observe(&self, _: Now) -> Status {
        let sources = self.pulls.values().flat_map(Pull::sources);
        Status {
            under_way: (self.shorts.keys().map(|h| (*h, 0)))
                .chain(self.pulls.iter().map(|(h, pull)| (*h, pull.percent())))
                .collect(),
            waiting: self.waiting.len(),
            reports: self.reports.clone(),
            totals: self.totals,
            liars: self.liars.clone(),
            scores: sources.filter_map(|s| self.scores.of(s).map(|score| (*s, score))).collect(),
        }
    }
}
