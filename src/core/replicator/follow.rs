//! Following: each other member's msglist, by cursor and long poll, one request at a time. It never believes a page that does
//! not fit its signed head, and never deletes because of what a page does not say (R3).
//!
//! After a start the lists are caught up before anything is served, so that a peer restored from an old disk serves nothing
//! that is gone (R7): from the owner, or of an absent owner from other members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::decide::{GRACE, SETTLING};
use super::list::{RunRefused, Taken};
use super::owner::{Mail, Wait};
use super::scheme::is_possible;
use super::types::{Action, AskFailure, Event};
use super::{MailKey, Replicator};
use crate::core::earliest;
use crate::model::group::Roster;
use crate::model::msglist::{Cursor, Entry, EntryBody, MailEntry, Tombstone};
use crate::model::{Address, MailId, MonoTime, Part, PeerId};
use crate::wire::Signed;
use crate::wire::http::TOMBSTONE_BYTES_MAX;
use crate::wire::msglist::Page;

/// How long an owner is asked to hold a request when it has nothing new: up to the 300 s that the route allows.
const WAIT: (Duration, Duration) = (Duration::from_secs(240), Duration::from_secs(300));
/// After a page with news the next one is asked for this much later: what is listed meanwhile comes in one page, and is pulled, signed for
/// and told in one piece. A mail that comes alone meets a question that waits already.
pub(super) const GATHER: Duration = Duration::from_millis(100);
/// While short parts of an owner are pulled, its next page waits for them so much longer: more would only queue up here.
const GATHER_LONGER: Duration = Duration::from_millis(80);
/// Pauses towards a member that does not answer (DESIGN.md section 5, step 4: never above 10 s).
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Pause after a list that does not fit: it will not mend itself soon.
const MISFIT_PAUSE: Duration = Duration::from_secs(60);
/// A mail that is older than this when it is first named was placed without this peer, most likely. Clocks differ by less.
const PLACED_LONG_AGO: Duration = Duration::from_secs(300);
/// An empty answer that came sooner than this was not held, so the next question waits.
const HELD_AT_LEAST: Duration = Duration::from_secs(5);
/// With fewer than two answers of other members, one is enough after this long.
const CATCH_UP_SOON: Duration = Duration::from_secs(5);
/// Without any answer this peer serves what it has after this long.
const CATCH_UP_LATE: Duration = Duration::from_secs(60);
/// Most tombstones from elsewhere than the list that are taken from a page.
const LOOSE_MAX: usize = 4096;
/// Other members that are asked for the msglist of an absent owner; two answers are wanted.
const CATCH_UP_ASKED: usize = 8;

/// How one owner's list is read.
#[derive(Debug, Default)]
pub(super) struct Follow {
    pub(super) state: FollowState,
    tries: u32,
    pub(super) unreachable_since: Option<MonoTime>,
    /// Whether it answered at all since the start.
    answered: bool,
    pub(super) behind: bool,
    catch_up: Option<CatchUp>,
}

/// What the reading of one list is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum FollowState {
    /// Not read: its owner is no member. Entered at replay and when it leaves; left when it joins.
    #[default]
    Off,
    /// To be asked at this moment. Entered after every answer; left when the moment comes.
    Due(MonoTime),
    /// Asked. Left with the answer of this round, or for `Due` when the member is known to be back.
    Asked { round: u64, since: MonoTime },
}

/// Reading the list of an owner that has not answered since the start from other members.
#[derive(Debug)]
struct CatchUp {
    started: MonoTime,
    /// Whether the owner failed to answer, so that others are asked.
    others: bool,
    asked: BTreeMap<PeerId, u64>,
    /// Those that have answered to the end.
    done: BTreeSet<PeerId>,
}

impl Follow {
    /// Whether the list has been read since the start, as far as it could be.
    pub(super) fn is_ready(&self) -> bool {
        self.catch_up.is_none()
    }
    /// Whether its owner answers, as far as is known.
    pub(super) fn is_reached(&self) -> bool {
        self.state != FollowState::Off && self.answered && self.unreachable_since.is_none()
    }
}

/// What a page brought.
struct PageTaken {
    new: bool,
    misfit: bool,
}

impl Replicator {
    pub(super) fn on_start(&mut self, roster: Roster) {
        self.clock.start(self.now);
        self.on_roster(roster);
        let started = self.now.mono;
        for (_, owner) in self.owners.iter_mut() {
            owner.checked = false;
            if owner.follow.state != FollowState::Off {
                owner.follow.catch_up =
                    Some(CatchUp { started, others: false, asked: BTreeMap::new(), done: BTreeSet::new() });
            }
        }
        let mut by_address: BTreeMap<Address, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
        for (id, owner) in self.owners.iter_mut() {
            by_address.entry(owner.address.clone()).or_default().insert(*id, owner.parts_to_keep());
            owner.set_untold_aside();
        }
        for (address, parts) in by_address {
            self.out.act(Action::CheckParts { address, parts });
        }
    }

    pub(super) fn on_roster(&mut self, roster: Roster) {
        let mut batch = Vec::new();
        for member in roster.others() {
            let (owner, address) = (member.peer_id, member.address.clone());
            let known = self.owners.get(&owner).map(|o| &o.address);
            if known != Some(&address) {
                let first = known.is_none();
                self.record(&mut batch, Event::Following { owner, address });
                if let Some(o) = self.owners.get_mut(&owner) {
                    // Of a new one nothing can be on the disk yet.
                    o.checked |= first;
                }
            }
        }
        let now = self.now.mono;
        // After a start it is not known how long the group is as it is.
        if self.roster.as_ref().is_none_or(|before| !places_alike(before, &roster)) {
            self.regrouped = Some(now);
        }
        let leaves = roster.leaving.contains(&roster.me.peer_id);
        for (id, owner) in self.owners.iter_mut() {
            owner.untaken_since = (leaves && !roster.has(id)).then(|| owner.untaken_since.unwrap_or(now));
            match (roster.has(id), owner.follow.state) {
                (true, FollowState::Off) => owner.follow.state = FollowState::Due(now),
                (false, FollowState::Due(_) | FollowState::Asked { .. }) => owner.follow = Follow::default(),
                _ => {}
            }
        }
        self.roster = Some(roster);
        self.commit(batch, Vec::new());
        for owner in self.owners.ids() {
            self.remove_given_up(owner);
        }
        self.start_scan();
    }

    pub(super) fn on_peer_is_back(&mut self, peer: PeerId) {
        // Anybody can say hello; only a member holds what something here waits for.
        if !self.roster.as_ref().is_some_and(|roster| roster.has(&peer)) {
            return;
        }
        let now = self.now.mono;
        if let Some(owner) = self.owners.get_mut(&peer)
            && (owner.follow.unreachable_since.is_some() || matches!(owner.follow.state, FollowState::Asked { .. }))
        {
            // A request that was under way may hang on a dead connection: this one replaces it.
            owner.follow.state = FollowState::Due(now);
            owner.follow.tries = 0;
        }
        // It says hello when it has started, and when its audit missed something here.
        self.compare_soon(peer);
        self.retry(|owner, wait| match wait {
            Wait::Sources | Wait::Confirmations => true,
            Wait::Blocks | Wait::Owner => *owner == peer,
            Wait::Quota | Wait::Disk => false,
        });
        self.resolve_doubt(&peer);
    }

    pub(super) fn next_follow(&self) -> Option<MonoTime> {
        earliest(self.owners.iter().map(|(id, o)| match o.follow.state {
            FollowState::Due(at) => Some(if self.mirrors.has_short(id) { at + GATHER_LONGER } else { at }),
            _ => None,
        }))
    }

    /// Asks every owner whose moment has come.
    pub(super) fn start_follows(&mut self) {
        let now = self.now.mono;
        for (id, owner) in self.owners.iter_mut() {
            let pause = if self.mirrors.has_short(id) { GATHER_LONGER } else { Duration::ZERO };
            if !matches!(owner.follow.state, FollowState::Due(at) if at + pause <= now) {
                continue;
            }
            self.round += 1;
            owner.follow.state = FollowState::Asked { round: self.round, since: now };
            // The first answer must come at once: what is served hangs on it.
            let first = !owner.follow.answered || owner.follow.unreachable_since.is_some();
            let wait = if first { 0 } else { self.jitter.between(WAIT.0, WAIT.1).as_secs() };
            self.out.act(Action::Follow {
                owner: *id,
                address: owner.address.clone(),
                from: *id,
                round: self.round,
                since: owner.list.cursor(),
                wait_s: u32::try_from(wait).unwrap_or(u32::MAX),
            });
        }
    }

    pub(super) fn on_page(&mut self, owner: PeerId, from: PeerId, round: u64, result: Result<Page, AskFailure>) {
        if owner != from {
            self.on_mirror_page(owner, from, round, result);
            return;
        }
        let Some(FollowState::Asked { round: asked, since }) = self.owners.get(&owner).map(|o| o.follow.state) else {
            return;
        };
        if asked != round {
            return;
        }
        match result {
            Ok(page) => {
                let behind = self.owners.get(&owner).is_some_and(|o| o.follow.behind);
                let was_away = self.note_answer(&owner);
                let taken = self.take_page(owner, &page, true, was_away || behind);
                self.plan_next(owner, &page, &taken, since, was_away);
                if was_away {
                    self.ask_for_absent(owner);
                    self.on_reachable(owner);
                } else {
                    // A question of holders may have gone astray while its long poll did not.
                    self.resolve_doubt_in_time(&owner);
                }
            }
            Err(why) => self.on_follow_failed(owner, &why),
        }
        self.check_catch_up();
    }

    /// Marks an owner as answering; tells whether it did not before.
    fn note_answer(&mut self, owner: &PeerId) -> bool {
        let Some(o) = self.owners.get_mut(owner) else { return false };
        let was_away = !o.follow.answered || o.follow.unreachable_since.is_some();
        o.follow.answered = true;
        o.follow.unreachable_since = None;
        o.trouble = None;
        was_away
    }

    fn plan_next(&mut self, owner: PeerId, page: &Page, taken: &PageTaken, since: MonoTime, was_away: bool) {
        let now = self.now.mono;
        let Some(o) = self.owners.get_mut(&owner) else { return };
        o.follow.behind = page.more;
        if !page.more || taken.misfit {
            o.follow.catch_up = None;
        }
        let held = now.since(since) >= HELD_AT_LEAST;
        let due = if taken.misfit {
            now + MISFIT_PAUSE
        } else if taken.new && !page.more && !was_away {
            o.follow.tries = 0;
            now + GATHER
        } else if taken.new || held || (was_away && !page.more) {
            o.follow.tries = 0;
            now
        } else {
            o.follow.tries = o.follow.tries.saturating_add(1);
            now + self.jitter.back_off(BACK_OFF.0, BACK_OFF.1, o.follow.tries)
        };
        o.follow.state = FollowState::Due(due);
    }

    fn on_follow_failed(&mut self, owner: PeerId, why: &AskFailure) {
        let now = self.now.mono;
        let Some(o) = self.owners.get_mut(&owner) else { return };
        o.follow.tries = o.follow.tries.saturating_add(1);
        let pause = self.jitter.back_off(BACK_OFF.0, BACK_OFF.1, o.follow.tries);
        o.follow.state = FollowState::Due(now + pause);
        o.follow.unreachable_since.get_or_insert(now);
        o.follow.behind = false;
        o.trouble = Some(why.to_string());
        if let Some(catch_up) = o.follow.catch_up.as_mut() {
            catch_up.others = true;
            self.ask_others(owner);
        }
        self.take_back_untold(owner);
    }

    /// Asks other members for the list of an owner that does not answer after the start: those that have not answered yet, for
    /// they may have been starting too.
    fn ask_others(&mut self, owner: PeerId) {
        let (Some(roster), Some(o)) = (&self.roster, self.owners.get(&owner)) else { return };
        let Some(catch_up) = &o.follow.catch_up else { return };
        let others = roster.others().map(|m| m.peer_id).filter(|m| *m != owner && !roster.lost.contains(m));
        let open = |m: &PeerId| !catch_up.asked.contains_key(m) && !catch_up.done.contains(m);
        let room = CATCH_UP_ASKED.saturating_sub(catch_up.asked.len() + catch_up.done.len());
        for from in others.filter(open).take(room).collect::<Vec<_>>() {
            self.ask_mirror(owner, from);
        }
    }
    /// A member answers since now: it is asked for the lists of those that do not.
    fn ask_for_absent(&mut self, from: PeerId) {
        let waits = |o: &super::owner::Owner| {
            let catch_up = o.follow.catch_up.as_ref().filter(|c| c.others && c.asked.len() < CATCH_UP_ASKED);
            catch_up.is_some_and(|c| !c.asked.contains_key(&from) && !c.done.contains(&from))
        };
        let absent: Vec<PeerId> = self.owners.iter().filter(|(_, o)| waits(o)).map(|(id, _)| *id).collect();
        for owner in absent.into_iter().filter(|owner| *owner != from) {
            self.ask_mirror(owner, from);
        }
    }
    fn ask_mirror(&mut self, owner: PeerId, from: PeerId) {
        let Some(o) = self.owners.get_mut(&owner) else { return };
        let Some(catch_up) = o.follow.catch_up.as_mut() else { return };
        self.round += 1;
        catch_up.asked.insert(from, self.round);
        let (address, since) = (o.address.clone(), o.list.cursor());
        self.out.act(Action::Follow { owner, address, from, round: self.round, since, wait_s: 0 });
    }

    fn on_mirror_page(&mut self, owner: PeerId, from: PeerId, round: u64, result: Result<Page, AskFailure>) {
        let catch_up = self.owners.get_mut(&owner).and_then(|o| o.follow.catch_up.as_mut());
        let Some(catch_up) = catch_up.filter(|c| c.asked.get(&from) == Some(&round)) else { return };
        catch_up.asked.remove(&from);
        if let Ok(page) = result {
            let taken = self.take_page(owner, &page, false, true);
            if page.more && taken.new {
                self.ask_mirror(owner, from);
            } else if let Some(o) = self.owners.get_mut(&owner)
                && let Some(catch_up) = o.follow.catch_up.as_mut()
                && !taken.misfit
            {
                catch_up.done.insert(from);
            }
        }
        self.check_catch_up();
    }

    /// Ends catching up where enough has answered, or where it has been waited for long enough.
    pub(super) fn check_catch_up(&mut self) {
        let now = self.now.mono;
        for (_, owner) in self.owners.iter_mut() {
            let over = owner.follow.catch_up.as_ref().is_some_and(|c| {
                let waited = now.since(c.started);
                let all_answered = c.others && c.asked.is_empty() && !c.done.is_empty();
                c.done.len() >= 2
                    || all_answered
                    || (!c.done.is_empty() && waited >= CATCH_UP_SOON)
                    || waited >= CATCH_UP_LATE
            });
            if over {
                owner.follow.catch_up = None;
            }
        }
    }
    pub(super) fn next_catch_up(&self) -> Option<MonoTime> {
        earliest(self.owners.iter().map(|(_, o)| {
            let catch_up = o.follow.catch_up.as_ref()?;
            let after = if catch_up.done.is_empty() { CATCH_UP_LATE } else { CATCH_UP_SOON };
            Some(catch_up.started + after)
        }))
    }

    /// Takes what is new and fits; commits it; looks at every mail that it names. What is read `late` may have been placed long
    /// ago: others are asked what they hold of it before a part is taken.
    fn take_page(&mut self, owner: PeerId, page: &Page, from_owner: bool, late: bool) -> PageTaken {
        let mut taken = PageTaken { new: false, misfit: false };
        let mut batch = Vec::new();
        let mut named = BTreeSet::new();
        for run in &page.runs {
            let Some(o) = self.owners.get(&owner) else { break };
            match o.list.check(&owner, run, from_owner) {
                Ok(Taken::Known) => {}
                Ok(Taken::New(entries, run)) => {
                    taken.new = true;
                    for entry in entries {
                        self.take_entry(owner, entry, &mut batch, &mut named);
                    }
                    // Last: a journal torn in the middle of this must not say "read" of what it does not name.
                    self.record(&mut batch, Event::Read { owner, run });
                }
                Err(why) => {
                    // What another epoch says stands for itself; an owner that was restored goes on in one.
                    taken.misfit = true;
                    self.note_misfit(owner, why, &mut batch);
                }
            }
        }
        // An owner says in its list what is gone.
        for bytes in page.tombstones.iter().take(LOOSE_MAX).filter(|_| !from_owner) {
            named.extend(self.take_loose_tombstone(owner, bytes, &mut batch).map(|h| (owner, h)));
        }
        self.commit(batch, Vec::new());
        for (owner, h) in named {
            if let Some(mail) = self.owners.mail_mut(&owner, &h).filter(|_| late) {
                (mail.noted, mail.chosen) = (None, true);
            }
            self.evaluate(owner, h);
        }
        taken
    }

    fn note_misfit(&mut self, owner: PeerId, why: RunRefused, batch: &mut Vec<Event>) {
        let text = match why {
            RunRefused::Fork(at) => {
                if self.owners.get(&owner).is_some_and(|o| !o.forks.contains(&at)) {
                    self.record(batch, Event::Forked { owner, at });
                }
                return;
            }
            RunRefused::Bad(why) => why.to_string(),
            RunRefused::TooLong => {
                "its msglist has more entries, or more bytes, than a mirror keeps; nothing more of it is read"
                    .to_owned()
            }
        };
        if let Some(o) = self.owners.get_mut(&owner) {
            o.trouble = Some(text);
        }
    }

    fn take_entry(&mut self, owner: PeerId, entry: Entry, batch: &mut Vec<Event>, named: &mut BTreeSet<MailKey>) {
        match entry.body {
            EntryBody::Mail(mail) => {
                if self.note_mail(owner, entry.at, &mail, batch) {
                    named.insert((owner, mail.h));
                }
            }
            EntryBody::Tombstone(bytes) => {
                if let Some(h) = self.take_tombstone(owner, &bytes.0, batch) {
                    named.insert((owner, h));
                }
            }
            // Kept with the list and passed on; a later version knows what it means.
            EntryBody::Unknown { .. } => {}
        }
    }

    fn note_mail(&mut self, owner: PeerId, at: Cursor, mail: &MailEntry, batch: &mut Vec<Event>) -> bool {
        let is_of_long_ago = self.is_of_long_ago(mail);
        let Some(o) = self.owners.get_mut(&owner) else { return false };
        // R7: a tombstone wins over every entry of every epoch. What expired long ago is nobody's any more; but what is known goes by
        // the list, which is read once: the clock may be wrong, and nobody there who could tell.
        let known = o.mails.get(&mail.h);
        let expired = mail.expiry + GRACE <= self.now.wall && !self.clock.is_doubtful();
        if o.tombstones.contains_key(&mail.h) || (expired && known.is_none()) {
            return false;
        }
        if known.is_some_and(|k| k.at >= at) {
            return false;
        }
        let contradicts = known.is_some_and(|k| (k.length, k.digest) != (mail.length, mail.digest));
        if contradicts || !is_possible(mail.encoding) {
            o.trouble = Some(format!("its entry {at} for {} is impossible and is ignored", mail.h));
            return false;
        }
        let (h, length, digest, expiry, encoding) = (mail.h, mail.length, mail.digest, mail.expiry, mail.encoding);
        // An owner that names a mail again may have forgotten who holds what.
        let held: Vec<Part> = known.map(|k| k.held.iter().copied().collect()).unwrap_or_default();
        // With the same k some hold parts that stay right, so rank alone does not say what is left for this peer; nor of a mail of long
        // ago, which an owner that came back with an old disk was told of just now. Such an owner may have listed it anew just as long
        // ago: whoever holds something of it asks before that is given up, and who holds nothing before it takes a part.
        let is_new_kind = |k: &Mail| k.encoding.needed() != mail.encoding.needed();
        let by_rank = known.map_or(!is_of_long_ago, |k| is_new_kind(k) && !(is_of_long_ago && k.held.is_empty()));
        self.record(batch, Event::Noted { owner, h, at, length, digest, expiry, encoding });
        if let Some(mail) = self.owners.mail_mut(&owner, &h) {
            mail.noted = by_rank.then_some(self.now.mono);
            mail.chosen = !by_rank;
            // Others may have placed it before they heard of a change that this peer has heard of.
            mail.placed_by_others = self.regrouped.is_some_and(|at| self.now.mono.since(at) <= SETTLING);
        }
        for part in held {
            self.record(batch, Event::Held { owner, h, part });
        }
        true
    }

    /// Whether a mail was sent so long ago, as its expiry says, that it was placed before it was named here. A clock in doubt does not
    /// say: by one that is ahead every new mail would be an old one, and whoever places it would ask all others first.
    fn is_of_long_ago(&self, mail: &MailEntry) -> bool {
        let Some(roster) = self.roster.as_ref().filter(|_| !self.clock.is_doubtful()) else { return false };
        self.now.wall.since(mail.expiry.before(roster.policy.life.duration())) > PLACED_LONG_AGO
    }

    /// Takes a tombstone of the owner's list; of which mail it is, when it is new.
    fn take_tombstone(&mut self, owner: PeerId, bytes: &[u8], batch: &mut Vec<Event>) -> Option<MailId> {
        let Some(tombstone) = signed_by(owner, bytes) else {
            let o = self.owners.get_mut(&owner)?;
            o.trouble = Some("a tombstone in its msglist is not signed by it, and frees nothing".to_owned());
            return None;
        };
        self.note_tombstone(owner, &tombstone, bytes, batch)
    }

    /// Takes a tombstone from elsewhere than the list, of a mail that the list named; of which one it is, when it is new.
    pub(super) fn take_loose_tombstone(
        &mut self,
        owner: PeerId,
        bytes: &[u8],
        batch: &mut Vec<Event>,
    ) -> Option<MailId> {
        let tombstone = signed_by(owner, bytes).filter(|_| bytes.len() <= TOMBSTONE_BYTES_MAX)?;
        self.owners.get(&owner)?.mails.get(&tombstone.h)?;
        self.note_tombstone(owner, &tombstone, bytes, batch)
    }

    fn note_tombstone(
        &mut self,
        owner: PeerId,
        tombstone: &Tombstone,
        bytes: &[u8],
        batch: &mut Vec<Event>,
    ) -> Option<MailId> {
        let o = self.owners.get(&owner)?;
        if o.tombstones.contains_key(&tombstone.h) {
            return None;
        }
        let (h, expiry, named) = (tombstone.h, tombstone.expiry, o.mails.contains_key(&tombstone.h));
        self.record(batch, Event::Tombstoned { owner, h, expiry, tombstone: ByteBuf::from(bytes.to_vec()), named });
        Some(h)
    }
}

/// Whether mails are placed among the same members.
fn places_alike(one: &Roster, other: &Roster) -> bool {
    let members = |roster: &Roster| roster.members.iter().map(|member| member.peer_id).collect::<BTreeSet<_>>();
    one.lost == other.lost && members(one) == members(other)
}

fn signed_by(owner: PeerId, bytes: &[u8]) -> Option<Signed<Tombstone>> {
    Signed::<Tombstone>::verify(bytes).ok().filter(|tombstone| tombstone.owner == owner)
}

impl Mail {
    /// Whether the list named it in this run of the peer not longer ago than `span`.
    pub(super) fn noted_within(&self, now: MonoTime, span: Duration) -> bool {
        self.noted.is_some_and(|at| now.since(at) <= span)
    }
}
