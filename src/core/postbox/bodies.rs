//! Bodies: pulled when they are opened, at once for those who want that, and at 75 % of a mail's life. Nothing is filed that
//! does not fit its ns (R6), and no open is answered before the body is on disk or cannot be had.
//!
//! ```text
//!   Body, or wanted ─▶ Fetching ─fetched─▶ Opening ─here─▶ Pulled (event), replies, nr
//!                        │ failed: the next older offer     └─ does not fit ─▶ Refused (event), nr
//!                        └ none left: replies UNAVAILABLE; a pull that was only wanted is tried again later
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::access::{BodyState, MailboxFailure, MailboxReply, MessageKey};
use super::io::{FetchFailure, OpenResult};
use super::state::{MailKey, Offer, Origin, Stage};
use super::{Action, Event, Postbox, Reply};
use crate::core::{Effect, Token};
use crate::model::notification::Refusal;
use crate::model::{MailId, MonoTime, Now, PeerId, PulledMail};

/// Pulls at a time; as many as the fetcher lets wait.
const PULLS_MAX: usize = 1024;
/// Of these, pulls that nobody waits for: as many as hide the delay of a peer that short mails come from one by one.
const WANTED_AT_ONCE: usize = 16;
/// Opens that wait for the same pull.
const WAITERS_MAX: usize = 64;
/// A pull that nobody waits for is tried again after this, then after twice that, and so on.
const RETRY: Duration = Duration::from_secs(60);
/// And at the latest after this (DESIGN.md section 5, step 4).
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Pulls that failed and are tried again begin this far apart, however many there are.
const APART: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Entered when the fetcher is asked; left when it answers.
    Fetching,
    /// Entered when the sealed mail is here, or is an own one; left when it was opened or does not fit.
    Opening,
}

#[derive(Debug)]
struct Pull {
    phase: Phase,
    /// Which sealed mail; none for an own one.
    h: Option<MailId>,
    /// Sealed forms that are not to be asked for any more in this pull.
    tried: BTreeSet<MailId>,
    /// Whether every one that was tried is gone for good.
    all_gone: bool,
    waiting: Vec<Token>,
    /// The sealed mail, once it was pulled.
    sealed: Option<PulledMail>,
}

#[derive(Debug)]
struct Wanted {
    next: MonoTime,
    attempt: u32,
}

impl Pull {
    /// Removes the sealed mail that was pulled, if there is one.
    fn dropped(&self) -> Option<Action> {
        Some(Action::DropFetched { h: self.h?, sealed: self.sealed.clone()? })
    }
}

/// What is pulled and what is to be.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    pulls: BTreeMap<MessageKey, Pull>,
    /// Bodies that are pulled without anybody waiting for them.
    wanted: BTreeMap<MessageKey, Wanted>,
    /// No pull that failed is tried again before this.
    again_at: MonoTime,
}

impl Bodies {
    /// Pulls under way.
    pub(super) fn under_way(&self) -> usize {
        self.pulls.len()
    }
    /// Whether all bytes of this body are here, and it is being opened.
    pub(super) fn is_opening(&self, key: &MessageKey) -> bool {
        self.pulls.get(key).is_some_and(|pull| pull.phase == Phase::Opening)
    }
    /// This body is to be pulled soon.
    pub(super) fn want(&mut self, now: Now, key: MessageKey) {
        self.wanted.entry(key).or_insert(Wanted { next: now.mono, attempt: 0 });
    }
    /// What failed because of a peer may go now.
    fn at_once(&mut self, now: Now, key: MessageKey) {
        if let Some(wanted) = self.wanted.get_mut(&key) {
            (wanted.next, wanted.attempt) = (now.mono, 0);
        }
    }
}

fn failed(failure: MailboxFailure) -> Reply {
    Reply::Mailbox(MailboxReply::Failed(failure))
}

fn never(body: BodyState) -> MailboxFailure {
    MailboxFailure::Gone(match body {
        BodyState::Cancelled => "its sender took this mail back before it was opened".to_owned(),
        BodyState::Expired => {
            "the time of this mail was over before it was opened; ask its sender to send it again".to_owned()
        }
        BodyState::Here | BodyState::Absent => "nothing is known of this mail any more".to_owned(),
    })
}

impl Postbox {
    /// A mail program opens a body.
    pub(super) fn body(&mut self, now: Now, token: Token, key: MessageKey) {
        let Some(message) = self.state.messages.get(&key) else {
            return self.out.reply(token, failed(MailboxFailure::NoMessage));
        };
        match message.body {
            BodyState::Here if self.damaged.contains(&key) => {
                let why = "the file of this message is missing on this peer's disk; restore it from a backup";
                self.out.reply(token, failed(MailboxFailure::Gone(why.to_owned())));
            }
            BodyState::Here => self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::BodyHere(key))]),
            BodyState::Absent => self.open(now, key, Some(token)),
            body => self.out.reply(token, failed(never(body))),
        }
    }

    pub(super) fn progress(&mut self, token: Token, key: MessageKey) {
        let percent = match self.bodies.pulls.get(&key) {
            Some(Pull { phase: Phase::Fetching, h: Some(h), .. }) => {
                return self.out.act(Action::AskProgress { token, h: *h });
            }
            Some(_) => Some(99),
            None => None,
        };
        self.out.reply(token, Reply::Mailbox(MailboxReply::Pulled(percent)));
    }

    fn open(&mut self, now: Now, key: MessageKey, token: Option<Token>) {
        if let Some(pull) = self.bodies.pulls.get_mut(&key) {
            if pull.waiting.len() < WAITERS_MAX {
                pull.waiting.extend(token);
            } else if let Some(token) = token {
                let why = format!("{WAITERS_MAX} opens of this message wait already; wait for them");
                self.out.reply(token, failed(MailboxFailure::Limit(why)));
            }
            return;
        }
        if self.bodies.pulls.len() >= PULLS_MAX {
            let why = format!("{PULLS_MAX} pulls are under way already; try again later");
            if let Some(token) = token {
                self.out.reply(token, failed(MailboxFailure::Limit(why)));
            }
            return;
        }
        let waiting = token.into_iter().collect();
        let pull =
            Pull { phase: Phase::Fetching, h: None, tried: BTreeSet::new(), all_gone: true, waiting, sealed: None };
        self.bodies.pulls.insert(key, pull);
        match self.state.messages.get(&key).map(|m| m.origin.clone()) {
            Some(Origin::Outgoing(submission)) => {
                if let Some(pull) = self.bodies.pulls.get_mut(&key) {
                    pull.phase = Phase::Opening;
                }
                let mails = self.outbox.mails(&submission);
                self.out.act(Action::OpenOwn { key, submission, mails });
            }
            Some(Origin::Mail(id)) => self.fetch_next(now, key, id, never(BodyState::Absent)),
            _ => self.end_pull(now, key, &failed(never(BodyState::Absent))),
        }
    }

    /// The newest sealed form that was not tried, that is not gone and whose time is not over.
    fn next_offer(&self, now: Now, key: MessageKey, id: MailKey) -> Option<&Offer> {
        let tried = &self.bodies.pulls.get(&key)?.tried;
        let mail = self.state.mails.get(&id).filter(|m| m.stage == Stage::Stub)?;
        let lives = |o: &Offer| !self.is_buried(o) && (o.expiry > now.wall || self.clock.is_doubtful());
        let good = |o: &&Offer| !tried.contains(&o.h) && lives(o);
        mail.offers.iter().rev().find(good)
    }

    fn fetch_next(&mut self, now: Now, key: MessageKey, id: MailKey, failure: MailboxFailure) {
        let Some(group) = self.state.mails.get(&id).map(|m| m.group.clone()) else {
            return self.end_pull(now, key, &failed(failure));
        };
        let Some(offer) = self.next_offer(now, key, id).cloned() else {
            return self.end_pull(now, key, &failed(failure));
        };
        let Offer { h, length, digest, owner, .. } = offer;
        if let Some(pull) = self.bodies.pulls.get_mut(&key) {
            (pull.phase, pull.h) = (Phase::Fetching, Some(h));
        }
        self.out.act(Action::Fetch { key, h, length, digest, owner, group });
    }

    pub(super) fn fetched(&mut self, now: Now, key: MessageKey, h: MailId, result: Result<PulledMail, FetchFailure>) {
        let Some(pull) = self.bodies.pulls.get_mut(&key).filter(|p| p.h == Some(h)) else { return };
        let mail = match self.state.messages.get(&key).map(|m| m.origin.clone()) {
            Some(Origin::Mail(id)) => self.state.mails.get(&id).map(|mail| (id, mail)),
            _ => None,
        };
        let Some((id, mail)) = mail else {
            result.into_iter().for_each(|sealed| self.out.act(Action::DropFetched { h, sealed }));
            return self.end_pull(now, key, &failed(MailboxFailure::NoMessage));
        };
        match result {
            Ok(sealed) if !mail.is_open() => {
                // Taken back, or expired, while it was being pulled.
                let gone = match mail.stage {
                    Stage::Gone(body) => never(body),
                    _ => never(BodyState::Absent),
                };
                self.out.act(Action::DropFetched { h, sealed });
                self.end_pull(now, key, &failed(gone));
            }
            Ok(sealed) => {
                (pull.phase, pull.sealed) = (Phase::Opening, Some(sealed.clone()));
                let (sender, from, size) = (id.sender, mail.from.clone(), mail.size);
                self.out.act(Action::OpenSealed { key, sealed, sender, from, size });
            }
            Err(_) if !mail.is_open() => {
                if let Some(offer) = mail.offer(&h) {
                    self.out.act(super::change::half_fetched(offer));
                }
                self.end_pull(now, key, &failed(never(BodyState::Absent)));
            }
            Err(FetchFailure::NotNow(why)) => {
                pull.tried.insert(h);
                pull.all_gone = false;
                self.fetch_next(now, key, id, MailboxFailure::Unavailable(why));
            }
            Err(FetchFailure::Gone(why)) => {
                pull.tried.insert(h);
                let all_gone = pull.all_gone;
                if all_gone && self.next_offer(now, key, id).is_none() {
                    self.commit(vec![Event::Ended { id, body: BodyState::Cancelled }], Vec::new());
                    self.schedule(now, id);
                }
                self.fetch_next(now, key, id, MailboxFailure::Gone(why));
            }
            Err(FetchFailure::Mismatch(why)) => self.mismatch(now, key, h, &why),
        }
    }

    pub(super) fn opened(&mut self, now: Now, key: MessageKey, result: OpenResult) {
        let Some(pull) = self.bodies.pulls.get(&key) else { return };
        let (h, pulled) = (pull.h, pull.dropped());
        let origin = self.state.messages.get(&key).map(|m| m.origin.clone());
        match (result, origin) {
            (_, None) => {
                // Deleted meanwhile: what was written for it is not needed.
                self.out.act(Action::Remove { keys: vec![key] });
                pulled.into_iter().for_each(|action| self.out.act(action));
                self.end_pull(now, key, &failed(MailboxFailure::NoMessage));
            }
            (OpenResult::Here, Some(Origin::Mail(id))) => {
                // Others may be had now, too.
                self.bodies.again_at = now.mono;
                let mut then = self.waiting_replies(key, &Reply::BodyHere(key));
                then.extend(pulled.map(Effect::Act));
                self.commit(vec![Event::Pulled { id, at: now.wall }], then);
                self.schedule(now, id);
            }
            (OpenResult::Here, Some(_)) => {
                let then = self.waiting_replies(key, &Reply::BodyHere(key));
                self.commit(vec![Event::BodyHere { key }], then);
            }
            (OpenResult::Mismatch(why), Some(Origin::Mail(_))) => {
                h.into_iter().for_each(|h| self.mismatch(now, key, h, &why));
            }
            (OpenResult::Mismatch(why) | OpenResult::Failed(why), Some(_)) => {
                self.end_pull(now, key, &failed(MailboxFailure::Unavailable(why)));
            }
        }
    }

    /// What was pulled is not what the ns announced: it is refused, and named.
    fn mismatch(&mut self, now: Now, key: MessageKey, h: MailId, why: &str) {
        let Some(Origin::Mail(id)) = self.state.messages.get(&key).map(|m| m.origin.clone()) else { return };
        if let Some(mail) = self.state.mails.get(&id).cloned() {
            self.name_mismatch(id, &mail, h, why);
        }
        let text =
            format!("what was pulled is not what was announced, so it was refused and its sender is told: {why}");
        let pulled = self.bodies.pulls.get(&key).and_then(Pull::dropped);
        let mut then = self.waiting_replies(key, &failed(MailboxFailure::Gone(text)));
        then.extend(pulled.map(Effect::Act));
        self.commit(vec![Event::Refused { id, why: Refusal::Mismatch, at: now.wall }], then);
        self.schedule(now, id);
    }

    fn waiting_replies(&mut self, key: MessageKey, reply: &Reply) -> Vec<Effect<Postbox>> {
        self.bodies.wanted.remove(&key);
        let waiting = self.bodies.pulls.remove(&key).map(|p| p.waiting).unwrap_or_default();
        waiting.into_iter().map(|token| Effect::Reply(token, reply.clone())).collect()
    }

    /// Ends a pull without a body.
    fn end_pull(&mut self, now: Now, key: MessageKey, reply: &Reply) {
        let Some(pull) = self.bodies.pulls.remove(&key) else { return };
        for token in pull.waiting {
            self.out.reply(token, reply.clone());
        }
        if let Some(wanted) = self.bodies.wanted.get_mut(&key) {
            let pause = RETRY.saturating_mul(1 << wanted.attempt.min(6)).min(RETRY_MAX);
            wanted.attempt += 1;
            wanted.next = now.mono + pause;
        }
    }

    /// Starts pulls that nobody waits for, as many as may run beside each other.
    pub(super) fn pull_wanted(&mut self, now: Now) {
        if self.bodies.wanted.is_empty() {
            return;
        }
        let (messages, wanted) = (&self.state.messages, &mut self.bodies.wanted);
        wanted.retain(|key, _| messages.get(key).is_some_and(|m| m.body == BodyState::Absent));
        let due =
            self.bodies.wanted.iter().filter(|(key, w)| w.next <= now.mono && !self.bodies.pulls.contains_key(key));
        let room = WANTED_AT_ONCE.saturating_sub(self.bodies.pulls.len());
        let (new, again): (Vec<_>, Vec<_>) = due.map(|(key, w)| (w.next, *key, w.attempt)).partition(|due| due.2 == 0);
        // The one that has waited longest, so that all have their turn.
        let again = again.into_iter().filter(|_| self.bodies.again_at <= now.mono).min();
        for (_, key, attempt) in new.into_iter().chain(again).take(room) {
            if attempt > 0 {
                self.bodies.again_at = now.mono + APART;
            }
            self.open(now, key, None);
        }
    }

    pub(super) fn next_pull(&self) -> Option<MonoTime> {
        if self.bodies.pulls.len() >= WANTED_AT_ONCE {
            // The end of one of those starts the next.
            return None;
        }
        let idle = self.bodies.wanted.iter().filter(|(key, _)| !self.bodies.pulls.contains_key(key));
        let again_at = self.bodies.again_at;
        idle.map(|(_, w)| if w.attempt > 0 { w.next.max(again_at) } else { w.next }).min()
    }

    /// Pulls that failed may find their sender now, or a member of its group: that may hold parts of them.
    pub(super) fn sender_is_back(&mut self, now: Now, peer: PeerId) {
        let own = self.roster.as_ref().filter(|roster| roster.has(&peer)).map(|roster| roster.group.clone());
        let keys: Vec<MessageKey> = self.bodies.wanted.keys().copied().collect();
        for key in keys {
            let Some(Origin::Mail(id)) = self.state.messages.get(&key).map(|m| m.origin.clone()) else { continue };
            let Some(mail) = self.state.mails.get(&id) else { continue };
            if own.as_ref() == Some(&mail.group) || mail.offers.iter().any(|o| o.owner == peer) {
                self.bodies.at_once(now, key);
            }
        }
    }
}
