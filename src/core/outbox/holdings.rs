//! What the members say they hold, and what follows from it: safe(f). It counts words that were signed, never plans (R8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::events::{Event, Mail, Word};
use super::io::{Action, OutboxRefusal, Reply};
use super::safety::{Held, safe};
use super::{Batch, Outbox, SAFE_WAIT, Timer};
use crate::core::Token;
use crate::model::group::Roster;
use crate::model::holding::{HOLDINGS_BATCH_MAX, Holding, HoldingState, Holdings, bucket_digests};
use crate::model::{MailId, Now, Part, PeerId, SubmissionId, WallTime};
use crate::wire::Signed;

/// How far ahead of this one a member's clock may be.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(300);
/// Most parts of one mail that one member's words are kept about: those of a few encodings.
const PARTS_PER_MEMBER_MAX: usize = 16;

impl Outbox {
    /// A member's word. The answer waits until it is on disk (R1); a word older than the last one is refused. It may be one that took
    /// long; or the member's clock was set back, and to answer that it counts would be a lie (R8).
    pub(super) fn holdings(&mut self, now: Now, token: Token, signed: &Signed<Holdings>) {
        let bad = |why| Reply::Refused(OutboxRefusal::BadBatch { why });
        if !self.is_other_member(&signed.member) {
            return self.out.reply(token, Reply::Refused(OutboxRefusal::NotMember { peer: signed.member }));
        }
        if signed.owner != self.key.peer_id() {
            return self.out.reply(token, bad("it is about another owner's mails"));
        }
        if signed.items.len() > HOLDINGS_BATCH_MAX {
            return self.out.reply(token, bad("it has more than 1000 items"));
        }
        let at = signed.at;
        if signed.items.iter().any(|item| self.is_stale(now, signed.member, at, item)) {
            return self.out.reply(token, bad("a word that was signed later counts already; compare first"));
        }
        // Of several words about one part, the last.
        let last: BTreeMap<(MailId, Part), &Holding> = signed.items.iter().map(|i| ((i.h, i.part), i)).collect();
        let is_news = |item: &&Holding| self.is_news(now, signed.member, at, item) && self.is_answer(signed, item);
        let news = last.into_values().filter(is_news).cloned().collect();
        let mut batch = Batch::default();
        let is_unheard = signed.items.iter().any(|item| !self.is_answer(signed, item));
        let of: BTreeSet<MailId> = signed.items.iter().map(|item| item.h).collect();
        let is_left = self.record_words(&mut batch, signed, news);
        if is_unheard || is_left {
            // The word that its audit missed something went astray: until it hears that, nothing that it says counts.
            batch.act(Action::Hello { peers: [signed.member].into() });
        }
        self.confirm_words(signed.member, at, &signed.items);
        if at <= now.wall + CLOCK_AHEAD_MAX {
            // One from the future was taken while this clock was wrong too.
            let before = self.latest_words.get(&signed.member).copied().filter(|t| *t <= now.wall + CLOCK_AHEAD_MAX);
            self.latest_words.insert(signed.member, at.max(before.unwrap_or_default()));
        }
        self.ask_what_ended(now, signed.member, &signed.items);
        self.moved_on(&of);
        batch.reply(token, Reply::HoldingsTaken);
        self.commit(batch);
    }

    /// Any word about a mail ends its miss. Of who had not heard of that one it ends nothing, as long as something is left to look
    /// at: the miss stands, and is told again. Whether there is such a one.
    fn record_words(&mut self, batch: &mut Batch, signed: &Signed<Holdings>, items: Vec<Holding>) -> bool {
        if items.is_empty() {
            return false;
        }
        let (member, at) = (signed.member, signed.at);
        let missed = items.iter().filter_map(|item| Some((item.h, *self.state.misses.get(&(member, item.h))?)));
        let unheard: BTreeMap<MailId, WallTime> = missed.filter(|(h, _)| !self.has_heard(signed, *h)).collect();
        self.record(batch, Event::Holdings { member, at, items });
        let mut is_left = false;
        for (h, at) in unheard {
            if self.has_lost(&member, &h) {
                self.record(batch, Event::Missed { member, h, at, parts: Vec::new() });
                is_left = true;
            }
        }
        is_left
    }

    /// Whether a member's last word on some part of a mail is that it is lost, or its owner's audit has it so.
    fn has_lost(&self, member: &PeerId, h: &MailId) -> bool {
        let words = self.state.mails.get(h).into_iter().flat_map(|mail| &mail.holdings);
        words.into_iter().any(|((who, _), word)| who == member && word.state == HoldingState::Lost)
    }

    /// Said once more: a miss takes back what was signed up to then, so the newest word is the one that counts. It is not worth a
    /// record: no request outlives a restart of this peer.
    fn confirm_words(&mut self, member: PeerId, at: WallTime, items: &[Holding]) {
        for item in items {
            let word = self.state.mails.get_mut(&item.h).and_then(|mail| mail.holdings.get_mut(&(member, item.part)));
            if let Some(word) = word.filter(|word| word.state == item.state) {
                word.at = word.at.max(at);
            }
        }
    }

    pub(super) fn is_other_member(&self, peer: &PeerId) -> bool {
        *peer != self.key.peer_id() && self.roster.has(peer)
    }

    fn is_news(&self, now: Now, member: PeerId, at: WallTime, item: &Holding) -> bool {
        let Some(mail) = self.state.mails.get(&item.h) else { return false };
        match mail.holdings.get(&(member, item.part)) {
            Some(word) => !outdates(now, word, at) && word.state != item.state,
            // A member that compares names every part that it has not.
            None if item.state == HoldingState::Lost => false,
            None => mail.holdings.keys().filter(|(who, _)| *who == member).count() < PARTS_PER_MEMBER_MAX,
        }
    }

    /// Whether another word about this part was signed after this one, by a clock that was right. A word that a part is not there is
    /// not kept where it says nothing new: that it is there counts only if it is the latest of all that its member said.
    fn is_stale(&self, now: Now, member: PeerId, at: WallTime, item: &Holding) -> bool {
        let Some(mail) = self.state.mails.get(&item.h) else { return false };
        match mail.holdings.get(&(member, item.part)) {
            Some(word) => outdates(now, word, at) && word.state != item.state,
            None => {
                let is_later = |latest: &WallTime| at < *latest && *latest <= now.wall + CLOCK_AHEAD_MAX;
                item.state == HoldingState::Held && self.latest_words.get(&member).is_some_and(is_later)
            }
        }
    }

    /// When the latest word of a member was signed, of those about mails that are open and those of this run.
    pub(super) fn latest_word(&self, member: &PeerId) -> WallTime {
        let open = self.state.open.iter().filter_map(|h| self.state.mails.get(h));
        let words = open.flat_map(|mail| &mail.holdings).filter(|((who, _), _)| who == member).map(|(_, word)| word.at);
        let words = words.chain(self.latest_words.get(member).copied());
        words.filter(|at| *at <= self.wall + CLOCK_AHEAD_MAX).max().unwrap_or_default()
    }

    /// A word that was signed before a miss may come after it, even after the member was told of it: that a part is there counts
    /// only from who had heard that it was missed, and so has looked.
    fn is_answer(&self, signed: &Holdings, item: &Holding) -> bool {
        item.state != HoldingState::Held || self.has_heard(signed, item.h)
    }

    /// Whether the member had heard what the audit missed of a mail when it signed this.
    fn has_heard(&self, signed: &Holdings, h: MailId) -> bool {
        let which = (signed.member, h);
        match (self.state.misses.get(&which), signed.heard) {
            (None, _) => true,
            (Some(missed), Some(heard)) => heard >= *missed,
            // Of an earlier version.
            (Some(_), None) => self.told_misses.contains(&which),
        }
    }

    /// Which buckets of what a member holds differ from what it is known to hold.
    pub(super) fn holding_buckets(&mut self, token: Token, member: PeerId, digests: &[u8]) {
        if !self.is_other_member(&member) {
            return self.out.reply(token, Reply::Refused(OutboxRefusal::NotMember { peer: member }));
        }
        self.ask_own_list_of(&member);
        let held = |mail: &Mail| {
            let parts = mail.holdings.iter().filter(|((who, _), word)| *who == member && is_held(word));
            parts.map(|((_, part), _)| (mail.facts.h, *part)).collect::<Vec<_>>()
        };
        let known: Vec<(MailId, Part)> =
            self.state.open.iter().filter_map(|h| self.state.mails.get(h)).flat_map(held).collect();
        let ours = bucket_digests(known);
        if ours.len() != digests.len() {
            let why = "these are not the digests of 256 buckets";
            return self.out.reply(token, Reply::Refused(OutboxRefusal::BadBatch { why }));
        }
        let width = ours.len() / 256;
        let pairs = (0u8..=255).zip(ours.chunks(width).zip(digests.chunks(width)));
        let differ = pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(bucket, _)| bucket).collect();
        let missed = self.tell_missed(&member);
        self.out.reply(token, Reply::Differ { differ, missed });
    }

    /// What each member holds of a mail: members of the group that nobody calls lost.
    pub(super) fn held(&self, mail: &Mail) -> Held {
        let mut held: Held = BTreeMap::new();
        for ((member, part), _) in mail.holdings.iter().filter(|(_, word)| is_held(word)) {
            if self.is_other_member(member) && self.roster.counts(member) {
                held.entry(*member).or_default().insert(*part);
            }
        }
        held
    }

    /// f of safe(f) of a mail.
    pub(super) fn safe_of(&self, mail: &Mail) -> i32 {
        safe(&self.held(mail), mail.facts.encoding)
    }

    /// The least f of a submission's open mails; `None` while it has none.
    pub(super) fn safe_of_submission(&self, id: &SubmissionId) -> Option<i32> {
        let mails = self.state.submissions.get(id)?.mails();
        let open = mails.iter().filter(|h| self.state.open.contains(*h)).filter_map(|h| self.state.mails.get(h));
        open.map(|mail| self.safe_of(mail)).min()
    }

    /// The own group changed, and with it who counts.
    pub(super) fn new_roster(&mut self, now: Now, roster: Arc<Roster>) {
        if *self.roster != *roster {
            self.roster = roster;
            self.count_all();
            self.plan_audits(now);
            self.plan_reencoding();
            for submission in self.state.waiting.clone() {
                self.show(submission);
            }
            self.answer_safe_waits(None);
            self.settle_told();
        }
    }

    /// Answers once safe(f) is what was asked for.
    pub(super) fn wait_safe(&mut self, now: Now, token: Token, submission: SubmissionId, f: i32) {
        self.safe_waits.insert(token, (submission, f));
        self.timers.set(Timer::SafeWait(token), now.mono + SAFE_WAIT);
        self.answer_safe_waits(Some(submission));
    }

    /// Answers those that wait for this submission, or all, if what they wait for is reached or never can be.
    pub(super) fn answer_safe_waits(&mut self, which: Option<SubmissionId>) {
        let waits = self.safe_waits.iter().filter(|(_, (id, _))| which.is_none_or(|which| which == *id));
        let waits: Vec<_> = waits.map(|(token, (id, f))| (*token, *id, *f)).collect();
        for (token, id, f) in waits {
            let Some(submission) = self.state.submissions.get(&id) else {
                self.answer_safe_wait(token, None, false);
                continue;
            };
            let safe = self.safe_of_submission(&id);
            let reached = !submission.needs_spool() && safe.is_none_or(|safe| safe >= f);
            if reached || self.roster.others().next().is_none() {
                self.answer_safe_wait(token, safe, reached);
            }
        }
    }

    fn answer_safe_wait(&mut self, token: Token, safe: Option<i32>, reached: bool) {
        self.safe_waits.remove(&token);
        self.timers.cancel(&Timer::SafeWait(token));
        self.out.reply(token, Reply::Safe { safe, reached });
    }

    /// The 60 s are over.
    pub(super) fn give_up_safe_wait(&mut self, token: Token) {
        if let Some((submission, _)) = self.safe_waits.get(&token) {
            let safe = self.safe_of_submission(&submission.clone());
            self.answer_safe_wait(token, safe, false);
        }
    }
}

/// Whether what was signed at `at` is older than a word that counts. A word from the future was signed, or taken, by a clock that was
/// wrong: it must not outlive the true ones. Of two such words that one counts which its member signed later.
fn outdates(now: Now, word: &Word, at: WallTime) -> bool {
    let is_future = |at: WallTime| at > now.wall + CLOCK_AHEAD_MAX;
    word.at > at && (!is_future(word.at) || is_future(at))
}

/// Whether a word says that the part is there.
pub(super) fn is_held(word: &Word) -> bool {
    word.state == HoldingState::Held
}
