//! The audit of holdings: every member shows one random block of what it confirmed, about once an hour. A miss counts as lost
//! until the member confirms the part anew, after the miss (R8). It never takes silence for a miss, and a passed audit changes
//! nothing and is written nowhere (R12).

use std::collections::BTreeMap;
use std::time::Duration;

use super::events::{Event, State, Word};
use super::holdings::is_held;
use super::io::{Action, AuditMiss};
use super::{Batch, Outbox, Timer};
use crate::core::jitter::Jitter;
use crate::model::holding::{Holding, HoldingState, Missed};
use crate::model::msglist::Tombstone;
use crate::model::{Address, MailId, Now, Part, PeerId, WallTime};
use crate::wire::Signed;

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
        if self.state.misses.keys().any(|(who, h)| *who == member && !self.told_misses.contains(&(member, *h))) {
            // It may not have heard of an earlier one.
            self.out.act(Action::Hello { peers: [member].into() });
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
        // Later than any that it may have heard of, whatever this clock does.
        let before = self.state.misses.iter().filter(|((who, _), _)| *who == member).map(|(_, at)| *at).max();
        let at = before.map_or(now.wall, |before| now.wall.max(before + Duration::from_millis(1)));
        let mut batch = Batch::default();
        self.record(&mut batch, Event::Missed { member, h, at, parts });
        batch.act(Action::Hello { peers: [member].into() });
        self.commit(batch);
    }

    /// A member that was to show a block of a mail says that the mail is gone. This peer's own word for that wins (R7), of whichever mail
    /// it is, though those who were asked for the own msglist may have kept it back. But if this peer never signed that this mail is
    /// gone, the member has shown nothing: else it would count for ever (R8).
    pub(super) fn audited_gone(&mut self, now: Now, member: PeerId, h: MailId, tombstone: Vec<u8>) {
        if !is_word_of(&self.key.peer_id(), &h, &tombstone) {
            self.audit_missed(now, member, h);
        }
        self.take_own_tombstone(now, tombstone);
    }

    /// What a member is to look at again before it confirms it; what it signs after it heard that counts again.
    pub(super) fn tell_missed(&mut self, member: &PeerId) -> Missed {
        let parts = self.missed_parts(member);
        self.told_misses.retain(|miss| self.state.misses.contains_key(miss));
        self.told_misses.extend(parts.iter().map(|(h, _)| (*member, *h)));
        let upto = parts.iter().filter_map(|(h, _)| self.state.misses.get(&(*member, *h))).max();
        Missed { upto: upto.copied().unwrap_or_default(), parts, said: self.latest_word(member) }
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

/// Whether this is the signed word of an owner that this mail of its is gone.
pub fn is_word_of(owner: &PeerId, h: &MailId, tombstone: &[u8]) -> bool {
    Signed::<Tombstone>::verify(tombstone).is_ok_and(|word| word.owner == *owner && word.h == *h)
}

impl State {
    /// A member's words about parts.
    pub(super) fn apply_holdings(&mut self, member: PeerId, at: WallTime, items: &[Holding]) {
        for item in items {
            if let Some(mail) = self.mails.get_mut(&item.h) {
                mail.holdings.insert((member, item.part), Word { at, state: item.state.clone() });
                if self.misses.remove(&(member, item.h)).is_some() {
                    // What it signed of the mail's other parts before this word is no answer to the miss either.
                    let of_it = mail.holdings.iter().filter(|((who, _), _)| *who == member);
                    let lost = of_it.filter(|(_, word)| word.state == HoldingState::Lost && word.at < at);
                    let lost: Vec<Part> = lost.map(|((_, part), _)| *part).collect();
                    for part in lost {
                        mail.holdings.insert((member, part), Word { at, state: HoldingState::Lost });
                    }
                }
            }
        }
    }

    /// What a member confirmed of a mail is lost, whatever it said before `at`.
    pub(super) fn apply_missed(&mut self, member: PeerId, h: MailId, at: WallTime, parts: &[Part]) {
        let Some(mail) = self.mails.get_mut(&h) else { return };
        for part in parts {
            // By the member's own clock, which may be behind this one: any word that it signs later is a new one, and the very
            // word that was proved wrong is none, however often it comes.
            let said = mail.holdings.get(&(member, *part)).map_or(at, |word| word.at) + Duration::from_millis(1);
            mail.holdings.insert((member, *part), Word { at: said, state: HoldingState::Lost });
        }
        self.misses.insert((member, h), at);
    }
}
