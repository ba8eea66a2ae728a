//! Scrubbing: held parts are read again and checked, one at a time, each about once a week by default. It never reads more than one part
//! at a time, and repairs nothing itself: a bad part is lost, reported, and mirrored again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Replicator;
use super::types::{Action, Event, Scrub};
use crate::model::holding::Missed;
use crate::model::{Address, MailId, MonoTime, Part, PeerId};

/// How often each part is checked, unless told otherwise. Disks go bad over months; a week finds it while others still have theirs.
const EVERY: Duration = Duration::from_secs(7 * 86_400);
/// Never more often than this.
const EVERY_LEAST: Duration = Duration::from_secs(1);
/// Checks of a start begin after this, or sooner where a round is shorter: a start has enough to do.
const FIRST: Duration = Duration::from_secs(60);
/// Pause after a part could not be read for another reason than being bad.
const AGAIN: Duration = Duration::from_secs(3600);

/// When which part is checked.
#[derive(Debug)]
pub(super) struct Scrubs {
    every: Duration,
    due: BTreeSet<(MonoTime, PeerId, MailId, Part)>,
    /// Parts that are confirmed again only once they have passed a check: their owner's audit missed them.
    pub(super) doubted: BTreeSet<(PeerId, MailId, Part)>,
    under_way: bool,
}

impl Default for Scrubs {
    fn default() -> Self {
        Self { every: EVERY, due: BTreeSet::new(), doubted: BTreeSet::new(), under_way: false }
    }
}

impl Scrubs {
    pub(super) fn next(&self) -> Option<MonoTime> {
        if self.under_way { None } else { self.due.first().map(|(at, ..)| *at) }
    }
}

impl Replicator {
    /// Has every held part checked this often.
    pub fn scrub_every(&mut self, every: Duration) {
        self.scrubs.every = every.max(EVERY_LEAST);
    }
    /// After a start: spreads the checks of an address's parts over the whole time.
    pub(super) fn plan_scrubs(&mut self, address: &Address) {
        for (id, owner) in self.owners.iter().filter(|(_, o)| o.address == *address) {
            for (h, part) in owner.mails.iter().flat_map(|(h, mail)| mail.held.iter().map(move |part| (h, part))) {
                let at = self.now.mono + self.jitter.between(FIRST.min(self.scrubs.every / 2), self.scrubs.every);
                self.scrubs.due.insert((at, *id, *h, *part));
            }
        }
    }
    /// Plans the next check of a part that has just been written or checked.
    pub(super) fn plan_scrub(&mut self, owner: PeerId, h: MailId, part: Part) {
        self.scrubs.doubted.remove(&(owner, h, part));
        let at = self.now.mono + self.jitter.between(self.scrubs.every * 3 / 4, self.scrubs.every);
        self.scrubs.due.insert((at, owner, h, part));
    }
    /// Starts the check that is due, if none is under way.
    pub(super) fn start_scrub(&mut self) {
        while !self.scrubs.under_way
            && let Some((at, owner, h, part)) = self.scrubs.due.first().copied()
            && at <= self.now.mono
        {
            self.scrubs.due.remove(&(at, owner, h, part));
            let Some(o) = self.owners.get(&owner) else { continue };
            if o.mails.get(&h).is_some_and(|mail| mail.held.contains(&part)) {
                self.scrubs.under_way = true;
                self.out.act(Action::Scrub { owner, address: o.address.clone(), h, part });
            }
        }
    }
    pub(super) fn on_scrubbed(&mut self, owner: PeerId, h: MailId, part: Part, result: &Scrub) {
        self.scrubs.under_way = false;
        let doubted = !matches!(result, Scrub::Unknown { .. }) && self.scrubs.doubted.remove(&(owner, h, part));
        match result {
            Scrub::Good => {
                self.plan_scrub(owner, h, part);
                let held = self.owners.mail(&owner, &h).is_some_and(|mail| mail.held.contains(&part));
                if doubted && held {
                    let mut batch = Vec::new();
                    self.record(&mut batch, Event::Held { owner, h, part });
                    self.commit(batch, Vec::new());
                }
            }
            Scrub::Bad => self.part_is_bad(owner, h, part),
            Scrub::Unknown { .. } => {
                self.scrubs.due.insert((self.now.mono + AGAIN, owner, h, part));
            }
        }
    }
    /// The owner could not be shown these parts: those that are held are checked next.
    pub(super) fn on_missed(&mut self, owner: PeerId, missed: Missed) {
        if let Some(o) = self.owners.get_mut(&owner) {
            o.reporting.hears(&missed);
        }
        for (h, part) in missed.parts {
            let held = self.owners.mail(&owner, &h).is_some_and(|mail| mail.held.contains(&part));
            if held && self.scrubs.doubted.insert((owner, h, part)) {
                self.scrubs.due.insert((self.now.mono, owner, h, part));
            }
        }
    }
    /// A held part is bad or gone: it is lost, its owner is told, and it is mirrored again.
    pub(super) fn part_is_bad(&mut self, owner: PeerId, h: MailId, part: Part) {
        if self.owners.mail(&owner, &h).is_some_and(|mail| mail.held.contains(&part)) {
            let mut batch = Vec::new();
            self.record(&mut batch, Event::Lost { owner, h, part });
            if let Some(mail) = self.owners.mail_mut(&owner, &h) {
                mail.bad.insert(part);
                // Whoever asks while it is gone may take it: rank alone counts at first placement only.
                mail.noted = None;
            }
            self.commit(batch, Vec::new());
            self.evaluate(owner, h);
        }
    }
}
