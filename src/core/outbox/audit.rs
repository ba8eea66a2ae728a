//! The audit of holdings: every member shows one random block of what it confirmed, about once an hour. A miss counts as lost
//! until the member confirms the part anew, after the miss (R8). It never takes silence for a miss, and a passed audit changes
//! nothing and is written nowhere (R12).

use std::collections::BTreeMap;
use std::time::Duration;

use super::events::{Event, State};
use super::holdings::is_held;
use super::io::{Action, AuditMiss};
use super::{Batch, Outbox, Timer};
use crate::core::jitter::Jitter;
use crate::model::holding::HoldingState;
use crate::model::{Address, MailId, Now, Part, PeerId, WallTime};

/// Mails among which one is chosen, however many are open.
const LOOKED_AT_MAX: usize = 4096;

/// When and what is audited.
#[derive(Debug)]
pub(super) struct Audits {
    every: Duration,
    jitter: Jitter,
    missed: BTreeMap<PeerId, u64>,
}

impl Outbox {
    /// Has every member audited this often; `seed` is drawn at random by the shell.
    pub fn audit_every(&mut self, every: Duration, seed: u64) {
        self.audits = Some(Audits {
            every: every.max(Duration::from_secs(1)),
            jitter: Jitter::new(seed),
            missed: BTreeMap::new(),
        });
    }

    /// Plans the audits of members that have none planned.
    pub(super) fn plan_audits(&mut self, now: Now) {
        let Some(audits) = &mut self.audits else { return };
        for member in self.roster.others().map(|m| m.peer_id) {
            if !self.timers.is_set(&Timer::Audit(member)) {
                // Spread, also after a start of many members at once.
                let pause = audits.jitter.between(audits.every / 4, audits.every);
                self.timers.set(Timer::Audit(member), now.mono + pause);
            }
        }
    }

    /// Asks a member for one random block of a random part that it confirmed.
    pub(super) fn audit(&mut self, now: Now, member: PeerId) {
        if !self.is_other_member(&member) {
            return;
        }
        let Some(audits) = &mut self.audits else { return };
        // Names are as good as random, and so is a stretch of them from any point on.
        let mut from = [0; MailId::LEN];
        from[..8].copy_from_slice(&audits.jitter.below(u64::MAX).to_be_bytes());
        let from = MailId::new(from);
        let stretch = self.state.open.range(from..).chain(self.state.open.range(..from)).take(LOOKED_AT_MAX);
        let here = stretch.filter(|h| !self.missing.contains(*h));
        let mails = here.filter_map(|h| self.state.mails.get(h));
        let held: Vec<(MailId, Part)> = mails
            .flat_map(|mail| mail.holdings.iter().map(|(key, word)| (mail.facts.h, key, word)))
            .filter(|(_, (who, _), word)| *who == member && is_held(word))
            .map(|(h, (_, part), _)| (h, *part))
            .collect();
        let count = u64::try_from(held.len()).unwrap_or(u64::MAX);
        let which = usize::try_from(audits.jitter.below(count.max(1))).unwrap_or(0);
        if let Some((h, part)) = held.get(which).copied() {
            let block = audits.jitter.below(u64::MAX);
            self.out.act(Action::Audit { member, h, part, block });
        }
        self.plan_audits(now);
    }

    /// A member could not show what it had confirmed: all that it holds of the mail counts as lost, and it is told to look.
    pub(super) fn audit_missed(&mut self, now: Now, member: PeerId, h: MailId) {
        let Some(mail) = self.state.mails.get(&h).filter(|mail| mail.tombstone.is_none()) else { return };
        let held = mail.holdings.iter().filter(|((who, _), word)| *who == member && is_held(word));
        let parts: Vec<Part> = held.map(|((_, part), _)| *part).collect();
        if parts.is_empty() {
            return;
        }
        if let Some(audits) = &mut self.audits {
            *audits.missed.entry(member).or_default() += 1;
        }
        // What it was told before was about another miss.
        self.told_misses.remove(&(member, h));
        let mut batch = Batch::default();
        self.record(&mut batch, Event::Missed { member, h, at: now.wall, parts });
        batch.act(Action::Hello { peers: [member].into() });
        self.commit(batch);
    }

    /// Whether a miss stands of which the member has not been told yet: nothing that it says is an answer to it.
    pub(super) fn is_untold_miss(&self, member: PeerId, h: MailId) -> bool {
        self.state.misses.contains_key(&(member, h)) && !self.told_misses.contains(&(member, h))
    }

    /// The parts that a member is to look at again before it confirms them; from now on its word counts again.
    pub(super) fn tell_missed(&mut self, member: &PeerId) -> Vec<(MailId, Part)> {
        let missed = self.missed_parts(member);
        self.told_misses.retain(|miss| self.state.misses.contains_key(miss));
        self.told_misses.extend(missed.iter().map(|(h, _)| (*member, *h)));
        missed
    }

    fn missed_parts(&self, member: &PeerId) -> Vec<(MailId, Part)> {
        let of_it = self.state.misses.keys().filter(|(who, _)| who == member);
        let mails = of_it.filter_map(|(_, h)| self.state.mails.get(h));
        let parts = mails.flat_map(|mail| mail.holdings.iter().map(|(key, word)| (mail.facts.h, key, word)));
        parts
            .filter(|(_, (who, _), word)| who == member && word.state == HoldingState::Lost)
            .map(|(h, (_, part), _)| (h, *part))
            .collect()
    }

    /// How many audits each member missed since the start.
    pub(super) fn missed_so_far(&self) -> BTreeMap<Address, u64> {
        let missed = self.audits.iter().flat_map(|audits| &audits.missed);
        let named = |member: &PeerId| self.roster.members.iter().find(|m| m.peer_id == *member);
        missed.filter_map(|(member, n)| Some((named(member)?.address.clone(), *n))).collect()
    }

    /// Misses that nobody has made good yet, as they are shown.
    pub(super) fn shown_misses(&self) -> Vec<AuditMiss> {
        let named = |member: &PeerId| self.roster.members.iter().find(|m| m.peer_id == *member);
        let misses = self.state.misses.iter();
        misses
            .filter_map(|((who, h), at)| Some(AuditMiss { member: named(who)?.address.clone(), h: *h, at: *at }))
            .take(super::show::NAMED_MAX)
            .collect()
    }
}

impl State {
    /// What a member confirmed of a mail is lost, whatever it said before `at`.
    pub(super) fn apply_missed(&mut self, member: PeerId, h: MailId, at: WallTime, parts: &[Part]) {
        let Some(mail) = self.mails.get_mut(&h) else { return };
        for part in parts {
            // By the member's own clock, which may be behind this one: any word that it signs later is a new one, and the very
            // word that was proved wrong is none, however often it comes.
            let said = mail.holdings.get(&(member, *part)).map_or(at, |word| word.at) + Duration::from_millis(1);
            mail.holdings.insert((member, *part), super::events::Word { at: said, state: HoldingState::Lost });
        }
        self.misses.insert((member, h), at);
    }
}
