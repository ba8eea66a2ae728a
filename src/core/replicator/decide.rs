//! What is to be done about one mail: take a part, ask who holds what, give up a part (`give_up` does), or nothing. It never decides
//! that but for a signed tombstone, for expiry, or when every holder now placed confirmed that it holds its own (R3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::owner::{KnownTombstone, Mail, Task, Wait};
use super::scheme::scheme;
use super::types::Event;
use super::{MailKey, Replicator};
use crate::core::placement::{Held, Place, whole_copies};
use crate::model::{Address, Encoding, MailId, MonoTime, Part, PeerId};

/// Mirrors keep a part this long after the mail's expiry: clocks differ.
pub(super) const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Mails looked at in one step after a change of the group, so that a large outbox does not stop everything else.
const SCAN_STEP: usize = 500;
/// A mail first named this shortly before or after a change of the group may have been placed by members with different views.
pub(super) const SETTLING: Duration = Duration::from_secs(600);
/// After a part was chosen by asking others and taken, they are asked again: another may have chosen it at the same time.
const CONFIRM_CHOICE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(90));
/// The longest sleep towards an expiry, which is wall time: clocks are set now and then.
const EXPIRY_SLEEP: Duration = Duration::from_secs(3600);

/// What a look at a mail concluded.
enum Verdict {
    Rest,
    /// It is over, and nothing of it is here; the part that this peer was to hold, which it may have begun to pull, or any if it had
    /// no place and its owner must know all the same.
    Forget(Option<Part>),
    Drop(Vec<Part>),
    /// Files of parts that are lost go.
    Sweep(Vec<Part>),
    Ask,
    Take(Part),
}

impl Replicator {
    /// Looks at one mail and starts what is to be done. Harmless at any time; does nothing while something is under way for it.
    pub(super) fn evaluate(&mut self, owner: PeerId, h: MailId) {
        self.reconsider_given_up(owner, h);
        self.reconsider_question((owner, h));
        let Some(verdict) = self.judge(&owner, &h) else { return };
        let Some(o) = self.owners.get_mut(&owner) else { return };
        o.waiting.remove(&h);
        let Some(mail) = o.mails.get_mut(&h) else { return };
        match verdict {
            Verdict::Rest => mail.task = Task::Idle,
            Verdict::Forget(part) => {
                let (mut batch, parts) = (Vec::new(), part.into_iter().collect());
                self.flush_served(owner, h, &mut batch);
                // Its owner served this peer perhaps, and must know that nothing came of it.
                self.record(&mut batch, Event::Dropped { owner, h, parts, over: true });
                self.commit(batch, Vec::new());
            }
            Verdict::Drop(parts) => self.drop_parts(owner, h, parts),
            Verdict::Sweep(parts) => {
                mail.task = Task::Dropping;
                self.sweep(owner, h, parts);
            }
            Verdict::Ask => {
                mail.task = Task::Asking;
                if mail.goal.is_some_and(|goal| mail.held.contains(&goal)) {
                    self.questions.ask_later((owner, h));
                } else {
                    self.questions.ask((owner, h));
                }
            }
            Verdict::Take(part) => {
                mail.goal = Some(part);
                mail.task = Task::Wanted;
                let at = mail.at;
                o.wanted.insert((at, h));
            }
        }
    }

    /// The verdict on a mail; none while it is not to be touched.
    fn judge(&mut self, owner: &PeerId, h: &MailId) -> Option<Verdict> {
        let over = self.is_over(owner, h);
        let placed = self.placed(owner, h)?;
        let roster = self.roster.as_ref()?;
        // Whoever left, or was removed, is a group of one: nothing is placed there, though it knows of the mails.
        let (me, is_alone) = (roster.me.peer_id, roster.others().next().is_none());
        let chosen = self.owners.mail(owner, h)?.goal.is_some();
        let rank_part = if chosen { None } else { self.by_rank(owner, h, &me) };
        let o = self.owners.get_mut(owner)?;
        let checked = o.checked;
        if !over {
            o.expires_later(h);
        }
        let mail = o.mails.get_mut(h)?;
        if !checked || matches!(mail.task, Task::Pulling | Task::Asking | Task::Dropping) {
            return None;
        }
        mail.placed_mark.get_or_insert_with(|| mark_of(&placed));
        let is_complete = is_complete(mail.encoding, placed.len());
        if mail.task == Task::Wanted {
            o.wanted.remove(&(mail.at, *h));
            mail.task = Task::Idle;
        }
        if over {
            let parts: Vec<Part> = mail.held.union(&mail.bad).copied().collect();
            // Before a mail counts as taken back, all who were served have spoken: this peer perhaps, which is a reader too.
            let some_part =
                || o.tombstones.get(h).is_some_and(KnownTombstone::may_have_unread).then(|| any_part(mail.encoding));
            let meant = mail.goal.or(rank_part).or_else(some_part);
            return Some(if parts.is_empty() { Verdict::Forget(meant) } else { Verdict::Drop(parts) });
        }
        if is_alone {
            // Of what is lost nothing is made again here, and nobody will tell when the mail is gone.
            let lost: Vec<Part> = mail.bad.iter().copied().collect();
            return Some(if lost.is_empty() { Verdict::Rest } else { Verdict::Sweep(lost) });
        }
        if !placed.contains(&me) {
            mail.goal = None;
            // Without a spare member nobody takes over what is here: it counts until its owner keeps the mail in another way.
            return Some(if mail.held.is_empty() || !is_complete { Verdict::Rest } else { Verdict::Ask });
        }
        let confirm = mail.confirm_at.take_if(|at| *at <= self.now.mono).is_some();
        if std::mem::take(&mut mail.ask_again) || confirm {
            return Some(Verdict::Ask);
        }
        let kind = scheme(mail.encoding, placed.len());
        let goal = mail.goal.filter(|part| kind.fits(*part));
        mail.goal = goal.or_else(|| mail.held.iter().copied().find(|part| kind.fits(*part)));
        if mail.goal.is_none() && (mail.encoding == Encoding::Whole || mail.noted.is_some()) {
            mail.goal = rank_part;
        }
        let Some(goal) = mail.goal else { return Some(Verdict::Ask) };
        if !mail.held.contains(&goal) {
            let is_late = mail.expiry <= self.now.wall && !self.clock.is_doubtful();
            return Some(if is_late { Verdict::Rest } else { Verdict::Take(goal) });
        }
        Some(if mail.held.len() > 1 && is_complete { Verdict::Ask } else { Verdict::Rest })
    }

    /// Whether a mail is gone by its owner's word, or expired long enough ago.
    pub(super) fn is_over(&self, owner: &PeerId, h: &MailId) -> bool {
        let Some(o) = self.owners.get(owner) else { return false };
        let expired = |mail: &Mail| !self.clock.is_doubtful() && mail.expiry + GRACE <= self.now.wall;
        o.tombstones.contains_key(h) || o.mails.get(h).is_some_and(expired)
    }

    /// Runs `use_place` with where a mail is to be placed.
    pub(super) fn with_place<T>(
        &self,
        owner: &PeerId,
        h: &MailId,
        use_place: impl FnOnce(&Place<'_>) -> T,
    ) -> Option<T> {
        let roster = self.roster.as_ref()?;
        let encoding = self.owners.mail(owner, h)?.encoding;
        let members: Vec<PeerId> = roster.members.iter().map(|m| m.peer_id).filter(|m| m != owner).collect();
        let whole_copies = whole_copies(roster, owner);
        Some(use_place(&Place { h, encoding, whole_copies, members: &members, lost: &roster.lost }))
    }
    /// The members that should hold a part of a mail, in rank.
    pub(super) fn placed(&self, owner: &PeerId, h: &MailId) -> Option<Vec<PeerId>> {
        self.with_place(owner, h, |place| place.placed())
    }
    /// Marks who should hold a part of a mail.
    fn placed_mark(&self, owner: &PeerId, h: &MailId) -> Option<u64> {
        self.placed(owner, h).map(|placed| mark_of(&placed))
    }
    /// The part of a member at first placement, when nobody holds anything.
    fn by_rank(&self, owner: &PeerId, h: &MailId, member: &PeerId) -> Option<Part> {
        self.with_place(owner, h, |place| place.assign(&Held::new()).get(member).copied())?
    }

    pub(super) fn on_holders(
        &mut self,
        owner: PeerId,
        h: MailId,
        answers: &BTreeMap<PeerId, BTreeSet<Part>>,
        gone: &[Vec<u8>],
    ) {
        self.questions.answered();
        self.take_word_of_end(owner, gone);
        if self.asks_once_more(&owner, &h) {
            return self.on_asked_once_more(owner, h, answers);
        }
        let Some(placed) = self.placed(&owner, &h) else { return };
        let Some(me) = self.roster.as_ref().map(|r| r.me.peer_id) else { return };
        let over = self.is_over(&owner, &h);
        let mut known: Held = answers.clone();
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        mail.task = Task::Idle;
        if over {
            self.evaluate(owner, h);
            return;
        }
        known.insert(me, mail.held.clone());
        mail.doubt = placed.iter().filter(|m| !known.contains_key(*m)).copied().collect();
        self.questions.doubt(&mail.doubt);
        let doubt: Vec<PeerId> = mail.doubt.iter().copied().collect();
        for member in doubt {
            // A member that is off but not lost is taken to hold what rank gave it, unless somebody else does.
            let guess = self.by_rank(&owner, &h, &member);
            if let Some(part) = guess.filter(|part| !known.values().any(|held| held.contains(part))) {
                known.insert(member, BTreeSet::from([part]));
            }
        }
        let Some(mut assigned) = self.with_place(&owner, &h, |place| place.assign(&known)) else { return };
        if let Some(free) = self.instead_of_twin(&owner, &h, me, answers, &known) {
            assigned.insert(me, free);
        }
        self.conclude(owner, h, me, &assigned, answers);
    }

    /// Takes the owner's own word that a mail is gone from whoever was asked what it holds. Nobody follows the list of an owner that is
    /// no member any more, so those may be all who can tell.
    fn take_word_of_end(&mut self, owner: PeerId, gone: &[Vec<u8>]) {
        let mut batch = Vec::new();
        let ended = gone.iter().find_map(|tombstone| self.take_loose_tombstone(owner, tombstone, &mut batch));
        self.commit(batch, Vec::new());
        if let Some(ended) = ended {
            self.evaluate(owner, ended);
        }
    }

    /// Plans to ask whether somebody else took the part that was chosen here by asking; a restart forgets the plan, but not that
    /// there was a choice. What rank gave is no better if it came late, for want of room say, and somebody heard meanwhile that it
    /// is not here: that one may have taken it, and asked again too early to find it here. Nor is it if another may have had it by
    /// rank before the group changed, and asked before this peer knew of the mail.
    pub(super) fn confirm_choice(&mut self, owner: PeerId, h: MailId, batch: &mut Vec<Event>) {
        let now = self.now.mono;
        let at = now + self.jitter.between(CONFIRM_CHOICE.0, CONFIRM_CHOICE.1);
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        let is_late = std::mem::take(&mut mail.asked_before_held) && !mail.noted_within(now, CONFIRM_CHOICE.0);
        let is_contested = std::mem::take(&mut mail.placed_by_others);
        if mail.encoding != Encoding::Whole && (mail.noted.is_none() || is_late || is_contested) {
            mail.chosen = true;
            mail.confirm_at = Some(at);
            self.timers.insert((at, owner, h));
            self.record(batch, Event::Chosen { owner, h, settled: false, among: None });
        }
    }

    /// A part that nobody holds, when another placed member holds the only one that this peer has: members that read the list
    /// with different views take the same. Whoever finds that moves, for the other may never ask. That both move does no harm:
    /// what one holds too many is given up by rank.
    fn instead_of_twin(
        &self,
        owner: &PeerId,
        h: &MailId,
        me: PeerId,
        answers: &BTreeMap<PeerId, BTreeSet<Part>>,
        known: &Held,
    ) -> Option<Part> {
        let mail = self.owners.mail(owner, h)?;
        let Encoding::Fragments { k, n } = mail.encoding else { return None };
        // What is left of other encodings goes by itself, and says nothing of who holds one too many.
        let single = |parts: &BTreeSet<Part>| fitting(mail.encoding, parts) == 1;
        let is_mine = |part: &&Part| single(&mail.held) && fits(mail.encoding, **part);
        let mine = mail.held.iter().find(is_mine)?;
        // Who holds another one besides, which nobody else has, gives up this one: it has moved already.
        let is_elsewhere =
            |member: &PeerId, part: &Part| known.iter().any(|(m, held)| m != member && held.contains(part));
        let is_no_news =
            |member: &PeerId, part: &Part| part == mine || !fits(mail.encoding, *part) || is_elsewhere(member, part);
        let is_twin = |(member, parts): (&PeerId, &BTreeSet<Part>)| {
            *member != me && parts.contains(mine) && parts.iter().all(|part| is_no_news(member, part))
        };
        if !answers.iter().any(is_twin) {
            return None;
        }
        self.placed(owner, h).filter(|placed| placed.contains(&me))?;
        let mut all = (0..n).map(|i| Part::Fragment { k, i });
        let free = all.clone().find(|part| !known.values().any(|held| held.contains(part)));
        // What is named only by members that name several is as good as free: they are to keep one of them, or lie. They are no
        // true twins either: with one of those nobody would ever come to rest.
        let has_true_twin = || answers.iter().any(|which| single(which.1) && is_twin(which));
        let is_spare = |part: &Part| !known.values().any(|held| single(held) && held.contains(part));
        free.or_else(|| all.find(is_spare).filter(|_| has_true_twin()))
    }

    /// After the answers: sets the part to hold, and gives up others if every holder now placed confirmed its own (R3).
    fn conclude(
        &mut self,
        owner: PeerId,
        h: MailId,
        me: PeerId,
        assigned: &BTreeMap<PeerId, Part>,
        answers: &BTreeMap<PeerId, BTreeSet<Part>>,
    ) {
        let among = self.placed_mark(&owner, &h);
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        mail.goal = assigned.get(&me).copied();
        let missing = mail.goal.filter(|part| !mail.held.contains(part));
        let extras: Vec<Part> = mail.held.iter().copied().filter(|part| mail.goal != Some(*part)).collect();
        // While lost members leave places empty, what is too much elsewhere makes up for them.
        let is_complete = is_complete(mail.encoding, assigned.len());
        if missing.is_some() || extras.is_empty() || !is_complete {
            // Somebody who holds the same would have given this peer another goal.
            let is_settled = missing.is_none() && mail.doubt.is_empty();
            if is_settled && (mail.unsettled || mail.settled_among.is_some_and(|mark| Some(mark) != among)) {
                self.commit_each(vec![Event::Chosen { owner, h, settled: true, among }]);
            }
            self.evaluate(owner, h);
            return;
        }
        let others = assigned.iter().filter(|(member, _)| **member != me);
        let confirmed =
            others.clone().all(|(member, part)| answers.get(member).is_some_and(|held| held.contains(part)));
        // Nobody placed means nobody confirmed.
        if confirmed && !assigned.is_empty() {
            mail.tries = 0;
            self.probe_went_well(&owner);
            if self.can_tell(&owner) {
                self.drop_parts(owner, h, extras);
            } else {
                self.wait(owner, h, Wait::Owner, None);
            }
        } else {
            self.wait(owner, h, Wait::Confirmations, None);
        }
    }

    /// Puts a mail aside until something changes, or until a timer that doubles each time; what waits for members is tried in turn.
    pub(super) fn wait(&mut self, owner: PeerId, h: MailId, wait: Wait, pause: Option<(Duration, Duration)>) {
        let over = self.is_over(&owner, &h);
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        mail.task = Task::Waiting(wait);
        mail.tries = mail.tries.saturating_add(1);
        let tries = mail.tries;
        if let Some((first, most)) = pause {
            let at = self.now.mono + self.jitter.back_off(first, most, tries);
            self.timers.insert((at, owner, h));
        }
        if let Some(o) = self.owners.get_mut(&owner) {
            o.waiting.insert(h, wait);
            if !over {
                o.expires_later(&h);
            }
        }
        if matches!(wait, Wait::Sources | Wait::Confirmations) {
            self.probe_later(&owner);
        }
    }
    /// Looks again at the waiting mails for which something may have changed.
    pub(super) fn retry(&mut self, changed: impl Fn(&PeerId, Wait) -> bool) {
        let mut again = Vec::new();
        for (id, owner) in self.owners.iter() {
            again.extend(owner.waiting.iter().filter(|(_, wait)| changed(id, **wait)).map(|(h, _)| (*id, *h)));
        }
        for (owner, h) in again {
            self.evaluate(owner, h);
        }
    }
    /// Every file of an address was looked for: what is missing is lost, and from now on its owners' mails are looked after.
    pub(super) fn on_checked(&mut self, address: &Address, missing: Vec<(PeerId, MailId, Part)>) {
        self.hold_untold(address, &missing);
        let mut lost = Vec::new();
        for (owner, h, part) in missing {
            // Of a mail that is over the files went by right, just before this peer stopped: that is told as dropped.
            let held = self.owners.mail(&owner, &h).is_some_and(|m| m.held.contains(&part));
            if held && !self.is_over(&owner, &h) {
                lost.push(Event::Lost { owner, h, part });
            }
        }
        self.commit_each(lost);
        for (_, owner) in self.owners.iter_mut().filter(|(_, o)| o.address == *address) {
            owner.checked = true;
        }
        self.plan_scrubs(address);
        self.confirm_after_start(address);
        self.start_scan();
    }

    /// Whose answer was missing when a part was chosen is not known any more after a start. Where the choice was not settled, or was
    /// among others, or rank would not give this peer what it holds, the others are asked once more.
    fn confirm_after_start(&mut self, address: &Address) {
        let Some(me) = self.roster.as_ref().map(|r| r.me.peer_id) else { return };
        let of_address = self.owners.iter().filter(|(_, o)| o.address == *address);
        let held: Vec<MailKey> = of_address
            .flat_map(|(owner, o)| o.mails.iter().map(move |(h, mail)| (*owner, *h, mail)))
            .filter(|(.., mail)| mail.encoding != Encoding::Whole && fitting(mail.encoding, &mail.held) == 1)
            .map(|(owner, h, _)| (owner, h))
            .collect();
        for (owner, h) in held {
            let by_rank = self.by_rank(&owner, &h, &me);
            let among = self.placed_mark(&owner, &h);
            let at = self.now.mono + self.jitter.between(CONFIRM_CHOICE.0, CONFIRM_CHOICE.1);
            let Some(mail) = self.owners.mail_mut(&owner, &h) else { continue };
            let among_others = mail.settled_among.is_some_and(|mark| Some(mark) != among);
            if mail.unsettled || among_others || by_rank.is_some_and(|part| !mail.held.contains(&part)) {
                mail.confirm_at = Some(at);
                self.timers.insert((at, owner, h));
            }
        }
    }

    /// Looks at every mail again, in steps.
    pub(super) fn start_scan(&mut self) {
        self.scan = self.owners.ids().first().map(|owner| (*owner, MailId::new([0; 20])));
        self.step_scan();
    }
    pub(super) fn step_scan(&mut self) {
        let Some(from) = self.scan.take() else { return };
        let (some, next) = self.owners.mails_from(from, SCAN_STEP);
        self.scan = next;
        for key in some {
            self.look_after_change(key);
        }
    }
    fn look_after_change(&mut self, (owner, h): MailKey) {
        let Some(mark) = self.placed_mark(&owner, &h) else { return };
        let now = self.now.mono;
        let Some(me) = self.roster.as_ref().map(|r| r.me.peer_id) else { return };
        let by_rank = self.by_rank(&owner, &h, &me);
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        if mail.placed_mark.replace(mark).is_some_and(|before| before != mark) {
            mail.tries = 0;
            mail.doubt.clear();
            let unsettled = mail.goal.is_some_and(|goal| !mail.held.contains(&goal));
            if mail.encoding != Encoding::Whole {
                // One that was not placed may have kept a part that somebody else now holds too.
                let kept_one = mail.goal.is_none() && !mail.held.is_empty();
                // Another may have taken the same by a view in which this one was lost, and hold it by rank now.
                let is_elsewhere = mail.goal.is_some_and(|goal| by_rank != Some(goal));
                let chosen = mail.chosen || is_elsewhere;
                mail.ask_again |= unsettled || kept_one || chosen || mail.noted_within(now, SETTLING);
                // Others hold what rank would give this peer now: rank alone counts at first placement only.
                mail.noted = None;
            }
        }
        self.evaluate(owner, h);
    }

    /// Looks at the mails whose expiry and grace are over.
    pub(super) fn expire(&mut self) {
        if self.clock.is_doubtful() {
            return;
        }
        let now = self.now.wall;
        let mut over = Vec::new();
        for (id, owner) in self.owners.iter_mut() {
            while let Some((at, h)) = owner.expiries.first().copied()
                && at + GRACE <= now
            {
                owner.expiries.remove(&(at, h));
                over.push((*id, h));
            }
        }
        for (owner, h) in over {
            self.evaluate(owner, h);
        }
        // A tombstone costs little; looking at all of them at every wake would not.
        if self.clock.has_stood(self.now) && self.forget_at.is_none_or(|at| at <= self.now.mono) {
            self.forget_at = Some(self.now.mono + EXPIRY_SLEEP);
            self.owners.forget_tombstones(now);
        }
    }
    /// When the next mail expires, by the monotonic clock.
    pub(super) fn next_expiry(&self) -> Option<MonoTime> {
        let first = self.owners.iter().filter_map(|(_, o)| o.expiries.first()).map(|(at, _)| *at).min();
        first.filter(|_| !self.clock.is_doubtful()).map(|wall| {
            let until = (wall + GRACE).since(self.now.wall);
            self.now.mono + until.clamp(Duration::from_secs(1), EXPIRY_SLEEP)
        })
    }
}

/// Whether as many members are placed as an encoding has parts. A mail that is kept whole is placed at as many as there are.
pub(super) fn is_complete(encoding: Encoding, placed: usize) -> bool {
    placed >= scheme(encoding, placed).places()
}

/// Whether a part is of this encoding; one that is not is left from another.
fn fits(encoding: Encoding, part: Part) -> bool {
    scheme(encoding, 1).fits(part)
}

/// How many of these parts are of this encoding.
fn fitting(encoding: Encoding, parts: &BTreeSet<Part>) -> usize {
    parts.iter().filter(|part| fits(encoding, **part)).count()
}

/// One of the parts of a mail that is kept so.
fn any_part(encoding: Encoding) -> Part {
    match encoding {
        Encoding::Whole => Part::Whole,
        Encoding::Fragments { k, .. } => Part::Fragment { k, i: 0 },
    }
}

/// A short name of a set of members in rank, to notice that it changed.
fn mark_of(placed: &[PeerId]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for member in placed {
        hasher.update(member.as_bytes());
    }
    let mut mark = [0; 8];
    mark.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(mark)
}
