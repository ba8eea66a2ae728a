//! Giving up parts that `decide` found to be too many, or of a mail that is over. A part that its owner may count is given up in
//! words before its file goes, so that the safe(f) which the owner shows never counts a part that is gone (R8). An owner that is off,
//! or that the view calls lost, counts what it knew as soon as it is back: until it can be told, the part is held like any other, and
//! readers get it (R2).
//!
//! ```text
//!              tombstone: DropParts -------------------------------------> files gone -> Dropped
//!   DropDue <
//!              too many: Dropped --owner has the word, or is no member--> holders asked once more
//!                  |                  all confirm: DropParts --> files gone      else, and after a restart: Held again
//!                  +--others are placed, or the owner does not answer any more, before it has the word: Held again
//!              expired: Dropped --owner has the word, or is lost--> DropParts --> files gone
//! ```
//!
//! The second question comes after the word: of two members that rely on each other's part at the same time at least one finds that
//! out, since nobody is shown what was given up in words (R3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Replicator;
use super::decide::is_complete;
use super::owner::{Owner, Task, Wait};
use super::types::{Action, Event, Input, PartsDropped};
use crate::core::placement::Held;
use crate::model::holding::{Holding, HoldingState};
use crate::model::{Address, MailId, Now, Part, PeerId};

/// How long a member on its way out waits for others to take over what it holds of one who is no member any more, each time anew
/// when one part was. Whoever joined since does not know of those mails, and who has no source any more never holds its part; the
/// safe(f) that their owner had shown ended with its membership. Others learn within seconds that somebody leaves, and look at what
/// waits every 5 minutes at least.
const TAKE_OVER: Duration = Duration::from_secs(600);
/// Pause before removing files is tried again.
const REMOVE_PAUSE: Duration = Duration::from_secs(60);

/// Parts that were given up in words, whose files are still there. Forgotten by a restart: who confirmed is not known any more then.
#[derive(Debug)]
pub(super) struct GivenUp {
    parts: Vec<Part>,
    /// Who was placed when every one of them confirmed.
    placed: Vec<PeerId>,
    /// Whether they are asked once more.
    asks: bool,
}

impl Owner {
    /// Mails of which parts were given up, and the owner has no word on them to come.
    fn told_of(&self) -> Vec<MailId> {
        let is_told =
            |h: &MailId, given: &GivenUp| given.parts.iter().all(|part| !self.report_of.contains_key(&(*h, *part)));
        self.given_up.iter().filter(|(h, given)| is_told(h, given)).map(|(h, _)| *h).collect()
    }
}

impl Owner {
    /// Whether this peer, on its way out, does not wait any more until others hold what it holds of this one, which is no member.
    pub(super) fn is_given_up_on(&self, now: Now) -> bool {
        self.untaken_since.is_some_and(|since| now.mono.since(since) >= TAKE_OVER)
    }
    /// Parts that were given up in words and may be held again.
    pub(super) fn going(&self) -> usize {
        self.given_up.values().map(|given| given.parts.len()).sum()
    }
    /// Parts of which it does not know yet that they were given up; not of mails that it ended.
    fn untold(&self) -> impl Iterator<Item = (MailId, Part)> {
        let is_given_up = |word: &&Holding| matches!(word.state, HoldingState::Dropped { .. });
        let open = |word: &&Holding| self.mails.contains_key(&word.h) && !self.tombstones.contains_key(&word.h);
        self.reports.values().filter(is_given_up).filter(open).map(|word| (word.h, word.part))
    }
    /// At a start: their files lie here, and go with their mail if that is over before it is known whether they are held again.
    pub(super) fn set_untold_aside(&mut self) {
        for (h, part) in self.untold().collect::<Vec<_>>() {
            if let Some(mail) = self.mails.get_mut(&h) {
                mail.bad.insert(part);
            }
        }
    }
    /// The parts whose files stay at a start: what is held, and what it may still count.
    pub(super) fn parts_to_keep(&self) -> BTreeSet<(MailId, Part)> {
        let held = self.mails.iter().flat_map(|(h, mail)| mail.held.iter().map(|part| (*h, *part)));
        held.chain(self.untold()).collect()
    }
}

impl Replicator {
    /// After a start: holds again what was given up in words that its owner may not have, if it is not missing.
    pub(super) fn hold_untold(&mut self, address: &Address, missing: &[(PeerId, MailId, Part)]) {
        for (owner, h, part) in missing {
            if let Some(mail) = self.owners.mail_mut(owner, h) {
                mail.bad.remove(part);
            }
        }
        let of_address = self.owners.iter().filter(|(_, o)| o.address == *address);
        let untold = of_address.flat_map(|(owner, o)| o.untold().map(|(h, part)| (*owner, h, part)));
        let there = untold.filter(|part| !missing.contains(part));
        self.commit_each(there.map(|(owner, h, part)| Event::Held { owner, h, part }).collect());
    }

    /// Whether an owner may count parts: one that is no member any more counts nothing.
    fn may_count(&self, owner: &PeerId) -> bool {
        self.roster.as_ref().is_some_and(|r| r.has(owner) && r.others().next().is_some())
    }
    /// Whether an owner can be told now that a part goes, or counts nothing any more. What is given up in words is shown to nobody:
    /// while its owner is off, that would keep from readers what they may need, for as long as that lasts.
    pub(super) fn can_tell(&self, owner: &PeerId) -> bool {
        !self.may_count(owner) || self.owners.get(owner).is_some_and(|o| o.follow.is_reached())
    }

    /// An owner does not answer any more: what it was not told of yet is held again, until it is back.
    pub(super) fn take_back_untold(&mut self, owner: PeerId) {
        let given = self.owners.get(&owner).into_iter().flat_map(|o| &o.given_up);
        let untold: Vec<MailId> = given.filter(|(_, given)| !given.asks).map(|(h, _)| *h).collect();
        for h in untold.into_iter().filter(|h| !self.is_over(&owner, h)).collect::<Vec<_>>() {
            let given = self.owners.get_mut(&owner).and_then(|o| o.given_up.remove(&h));
            if let Some(GivenUp { parts, .. }) = given {
                self.hold_again(owner, h, &parts);
                self.look_again(owner, h);
            }
        }
    }

    /// Decides to give up parts. Only once all that was recorded is durable it is done: the tombstone that frees them is part of it.
    pub(super) fn drop_parts(&mut self, owner: PeerId, h: MailId, parts: Vec<Part>) {
        let placed = self.placed(&owner, &h).unwrap_or_default();
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        mail.task = Task::Dropping;
        self.out.commit(Vec::new(), vec![crate::core::Effect::Feed(Input::DropDue { owner, h, parts, placed })]);
    }

    /// Gives them up, unless others were placed while the disk was waited for: those have confirmed nothing yet (R3).
    pub(super) fn on_drop_due(&mut self, owner: PeerId, h: MailId, parts: Vec<Part>, placed: Vec<PeerId>) {
        if self.is_over_for_owner(&owner, &h) {
            return self.remove(owner, h, parts);
        }
        if !self.is_over(&owner, &h) && self.placed(&owner, &h).is_none_or(|now| now != placed) {
            return self.look_again(owner, h);
        }
        let mut batch = Vec::new();
        self.flush_served(owner, h, &mut batch);
        self.record(&mut batch, Event::Dropped { owner, h, parts: parts.clone(), over: false });
        self.commit(batch, Vec::new());
        if let Some(o) = self.owners.get_mut(&owner) {
            o.given_up.insert(h, GivenUp { parts, placed, asks: false });
        }
        self.remove_given_up(owner);
    }

    /// Removes what was given up in words, once the owner has them. One that is no member any more counts nothing.
    pub(super) fn remove_given_up(&mut self, owner: PeerId) {
        let Some(o) = self.owners.get(&owner) else { return };
        let ready = if self.may_count(&owner) { o.told_of() } else { o.given_up.keys().copied().collect() };
        for h in ready {
            let is_over = self.is_over(&owner, &h);
            let Some(o) = self.owners.get_mut(&owner) else { return };
            if is_over {
                let given = o.given_up.remove(&h);
                given.into_iter().for_each(|given| self.remove(owner, h, given.parts));
            } else if let Some(given) = o.given_up.get_mut(&h)
                && !std::mem::replace(&mut given.asks, true)
            {
                self.questions.ask((owner, h));
            }
        }
    }

    /// What was given up in words may wait long for its owner. When the mail is over meanwhile, it goes without that; when others are
    /// placed, who have confirmed nothing yet, it is held again, and looked at like any other.
    pub(super) fn reconsider_given_up(&mut self, owner: PeerId, h: MailId) {
        let given = self.owners.get(&owner).and_then(|o| o.given_up.get(&h)).filter(|given| !given.asks);
        let Some(placed) = given.map(|given| given.placed.clone()) else { return };
        let is_over = self.is_over_for_owner(&owner, &h);
        if !is_over && (self.is_over(&owner, &h) || self.placed(&owner, &h).is_none_or(|now| now == placed)) {
            return;
        }
        let given = self.owners.get_mut(&owner).and_then(|o| o.given_up.remove(&h));
        let Some(GivenUp { parts, .. }) = given else { return };
        if is_over {
            return self.remove(owner, h, parts);
        }
        self.hold_again(owner, h, &parts);
        if let Some(mail) = self.owners.mail_mut(&owner, &h) {
            mail.task = Task::Idle;
            mail.ask_again = true;
        }
    }

    /// Whether nobody counts parts of a mail any more: its owner said that it is gone, or it expired and its owner is lost. For an owner
    /// that is there, whose clock may be another one, it may still live.
    fn is_over_for_owner(&self, owner: &PeerId, h: &MailId) -> bool {
        let counts = self.roster.as_ref().is_some_and(|r| r.counts(owner) && r.others().next().is_some());
        self.is_over(owner, h) && (!counts || self.owners.get(owner).is_some_and(|o| o.tombstones.contains_key(h)))
    }

    /// Whether the holders of a mail are asked once more before a part of it goes.
    pub(super) fn asks_once_more(&self, owner: &PeerId, h: &MailId) -> bool {
        self.owners.get(owner).and_then(|o| o.given_up.get(h)).is_some_and(|given| given.asks)
    }

    /// They have answered, or not.
    pub(super) fn on_asked_once_more(&mut self, owner: PeerId, h: MailId, answers: &BTreeMap<PeerId, BTreeSet<Part>>) {
        let given = self.owners.get_mut(&owner).and_then(|o| o.given_up.remove(&h));
        let Some(GivenUp { parts, placed, .. }) = given else { return };
        if self.is_over(&owner, &h) || self.all_confirm(&owner, &h, &placed, answers) {
            self.remove(owner, h, parts);
        } else {
            self.hold_again(owner, h, &parts);
            self.look_again(owner, h);
        }
    }

    /// Whether those that were placed still are, and each of them holds its own; this one too, if it is among them.
    fn all_confirm(
        &self,
        owner: &PeerId,
        h: &MailId,
        before: &[PeerId],
        answers: &BTreeMap<PeerId, BTreeSet<Part>>,
    ) -> bool {
        let (Some(mail), Some(me)) = (self.owners.mail(owner, h), self.roster.as_ref().map(|r| r.me.peer_id)) else {
            return false;
        };
        let mut known: Held = answers.clone();
        known.insert(me, mail.held.clone());
        let Some(assigned) = self.with_place(owner, h, |place| place.assign(&known)) else { return false };
        let holds = |(member, part): (&PeerId, &Part)| known.get(member).is_some_and(|held| held.contains(part));
        self.placed(owner, h).is_some_and(|placed| placed == before)
            && is_complete(mail.encoding, assigned.len())
            && assigned.iter().all(holds)
    }

    fn remove(&mut self, owner: PeerId, h: MailId, parts: Vec<Part>) {
        let Some(address) = self.owners.get(&owner).map(|o| o.address.clone()) else { return };
        let Some(mail) = self.owners.mail(&owner, &h) else { return };
        let last = mail.held.iter().all(|part| parts.contains(part));
        let is_gone = self.owners.get(&owner).is_some_and(|o| o.tombstones.contains_key(&h));
        let action = Action::DropParts { owner, address, h, parts, last };
        if is_gone {
            // The tombstone may have come while others were asked: it is durable first.
            self.out.commit(Vec::new(), vec![crate::core::Effect::Act(action)]);
        } else {
            self.out.act(action);
        }
    }

    /// Removes files of parts that were lost, once that is durable.
    pub(super) fn sweep(&mut self, owner: PeerId, h: MailId, parts: Vec<Part>) {
        let Some(address) = self.owners.get(&owner).map(|o| o.address.clone()) else { return };
        let last = self.owners.mail(&owner, &h).is_some_and(|mail| mail.held.is_empty());
        let action = Action::DropParts { owner, address, h, parts, last };
        self.out.commit(Vec::new(), vec![crate::core::Effect::Act(action)]);
    }

    /// Files that are there after all: what was said of them is taken back.
    fn hold_again(&mut self, owner: PeerId, h: MailId, parts: &[Part]) {
        let Some(mail) = self.owners.mail(&owner, &h) else { return };
        let dropped = parts.iter().filter(|part| !mail.held.contains(part) && !mail.bad.contains(part));
        self.commit_each(dropped.map(|part| Event::Held { owner, h, part: *part }).collect());
    }
    fn look_again(&mut self, owner: PeerId, h: MailId) {
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        mail.task = Task::Idle;
        mail.ask_again = true;
        self.evaluate(owner, h);
    }

    pub(super) fn on_parts_dropped(&mut self, PartsDropped { owner, h, parts, result }: PartsDropped) {
        let over = self.is_over(&owner, &h);
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        mail.task = Task::Idle;
        if let Err(why) = result {
            if let Some(o) = self.owners.get_mut(&owner) {
                o.trouble = Some(format!("parts of {h} cannot be removed: {why}"));
            }
            self.hold_again(owner, h, &parts);
            self.timers.insert((self.now.mono + REMOVE_PAUSE, owner, h));
            return;
        }
        mail.bad.retain(|part| !parts.contains(part));
        if mail.held.iter().any(|part| parts.contains(part)) {
            let over = over && mail.held.iter().all(|part| parts.contains(part));
            let mut batch = Vec::new();
            self.flush_served(owner, h, &mut batch);
            self.record(&mut batch, Event::Dropped { owner, h, parts, over });
            self.commit(batch, Vec::new());
        }
        let now = self.now.mono;
        if let Some(since) = self.owners.get_mut(&owner).and_then(|o| o.untaken_since.as_mut()) {
            *since = now;
        }
        self.mirrors.space_freed();
        self.retry(|whose, wait| wait == Wait::Disk || (wait == Wait::Quota && *whose == owner));
        self.evaluate(owner, h);
    }
}
