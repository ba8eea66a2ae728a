//! Reporting: this peer's word on each part to the part's owner, in batches, again and again until the owner has it on its
//! disk. It never says a word that is not durable here first (R1).

use std::collections::BTreeSet;
use std::time::Duration;

use super::Replicator;
use super::owner::{Owner, Wait};
use super::types::{Action, AskFailure, Event};
use crate::core::{Effect, earliest};
use crate::model::holding::{HOLDINGS_BATCH_MAX, Holding, HoldingState, Holdings, Missed, bucket_digests};
use crate::model::{Encoding, MonoTime, Part, PeerId, WallTime};

/// Most served-to records in one batch, so that it stays far below the 1 MiB that the route takes.
const SERVED_IN_BATCH: usize = 8000;
/// Pauses after an owner did not take a batch; it is a member (DESIGN.md section 5, step 4).
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The talk with one owner about what is held for it.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    /// A batch or a comparison is under way.
    busy: bool,
    /// Not before then.
    due: MonoTime,
    tries: u32,
    /// Since the last time it was away, it has not been compared what is held.
    compare: bool,
    /// Up to which miss, by the owner's clock, this run heard of what is to be looked at.
    heard: WallTime,
    /// What was signed last says this time, as far as this run knows: a later word says a later one, wherever the clock was set.
    said: WallTime,
    /// A batch was refused: the owner may have a later word than this run knows of, and says so when it compares.
    compare_first: bool,
}

impl Reporting {
    /// The owner said what its audit missed: what is signed from now on says so.
    pub(super) fn hears(&mut self, missed: &Missed) {
        self.heard = self.heard.max(missed.upto);
        // What was refused was signed by a clock that is wrong, or was: what counts for its owner is all that it has to outdo.
        self.said = if self.compare_first { missed.said } else { self.said.max(missed.said) };
    }
    /// When the next word is signed.
    fn sign_at(&mut self, wall: WallTime) -> WallTime {
        self.said = wall.max(self.said + Duration::from_millis(1));
        self.said
    }
}

impl Owner {
    fn can_be_told(&self) -> bool {
        self.follow.is_reached() && !self.reporting.busy && (!self.reports.is_empty() || self.reporting.compare)
    }
    /// The oldest reports that fit in one batch, and the number of the last of them.
    fn batch(&self) -> (u64, Vec<Holding>) {
        let (mut upto, mut items, mut served) = (0, Vec::new(), 0);
        for (number, holding) in self.reports.iter().take(HOLDINGS_BATCH_MAX) {
            if let HoldingState::Dropped { served: to } = &holding.state {
                served += to.len();
            }
            if served > SERVED_IN_BATCH && !items.is_empty() {
                break;
            }
            upto = *number;
            items.push(holding.clone());
        }
        (upto, items)
    }
}

impl Replicator {
    pub(super) fn next_report(&self) -> Option<MonoTime> {
        earliest(self.owners.iter().map(|(_, o)| o.can_be_told().then_some(o.reporting.due)))
    }

    /// Sends one batch to every owner that has something to be told; once there is none, compares.
    pub(super) fn start_reports(&mut self) {
        let (now, wall) = (self.now.mono, self.now.wall);
        let Some(member) = self.roster.as_ref().map(|r| r.me.peer_id) else { return };
        for (id, o) in self.owners.iter_mut() {
            if !o.can_be_told() || o.reporting.due > now {
                continue;
            }
            o.reporting.busy = true;
            let action = if o.reports.is_empty() || o.reporting.compare_first {
                // What its owner ended is no holding any more, though its parts may still have to go.
                let open = o.mails.iter().filter(|(h, _)| !o.tombstones.contains_key(*h));
                let held = open.flat_map(|(h, mail)| mail.held.iter().map(|part| (*h, *part)));
                Action::CompareHoldings { owner: *id, buckets: bucket_digests(held) }
            } else {
                let (upto, mut items) = o.batch();
                // What is doubted is confirmed once it has passed its check, which says so anew.
                let doubted = |item: &Holding| self.scrubs.doubted.contains(&(*id, item.h, item.part));
                items.retain(|item| item.state != HoldingState::Held || !doubted(item));
                let (heard, at) = (Some(o.reporting.heard), o.reporting.sign_at(wall));
                Action::Report { owner: *id, upto, holdings: Holdings { member, owner: *id, at, items, heard } }
            };
            // Behind everything that was recorded: the word is on this disk before the owner hears it.
            self.out.commit(Vec::new(), vec![Effect::Act(action)]);
        }
    }

    /// An owner answers again, or for the first time since the start: it may have what others' mails wait for, too.
    pub(super) fn on_reachable(&mut self, owner: PeerId) {
        self.compare_soon(owner);
        self.retry(|whose, wait| match wait {
            Wait::Sources | Wait::Confirmations => true,
            Wait::Blocks | Wait::Owner => *whose == owner,
            Wait::Quota | Wait::Disk => false,
        });
        self.resolve_doubt(&owner);
    }

    /// What is held for an owner is compared with what it knows, at once.
    pub(super) fn compare_soon(&mut self, owner: PeerId) {
        let now = self.now.mono;
        if let Some(o) = self.owners.get_mut(&owner) {
            o.reporting.compare = true;
            o.reporting.tries = 0;
            o.reporting.due = now;
        }
    }

    pub(super) fn on_reported(&mut self, owner: PeerId, upto: u64, result: Result<(), AskFailure>) {
        if let (Err(AskFailure::Refused { .. }), Some(o)) = (&result, self.owners.get_mut(&owner)) {
            o.reporting.compare_first = true;
        }
        if self.on_told(&owner, result.is_ok()) && result.is_ok() {
            let mut batch = Vec::new();
            self.record(&mut batch, Event::Acknowledged { owner, upto });
            self.commit(batch, Vec::new());
            self.remove_given_up(owner);
        }
    }

    /// The answer to a comparison: says again all that is known of the buckets that differ.
    pub(super) fn on_compared(&mut self, owner: PeerId, result: Result<Vec<u8>, AskFailure>) {
        if !self.on_told(&owner, result.is_ok()) {
            return;
        }
        let Ok(differ) = result else { return };
        let Some(o) = self.owners.get_mut(&owner) else { return };
        (o.reporting.compare, o.reporting.compare_first) = (false, false);
        let mut events = Vec::new();
        for (h, mail) in
            o.mails.iter().filter(|(h, _)| differ.contains(&h.as_bytes()[0]) && !o.tombstones.contains_key(*h))
        {
            let h = *h;
            let sure = mail.held.iter().filter(|part| !self.scrubs.doubted.contains(&(owner, h, **part)));
            events.extend(sure.map(|part| Event::Held { owner, h, part: *part }));
            // What the owner may think is here, and is not: whichever part that is, also where placement names this peer no more,
            // and where the mail was kept in another way before: this disk may be older than the move.
            let encodings = mail.before.iter().chain([&mail.encoding]);
            let missing = encodings.flat_map(|encoding| parts_of(*encoding)).chain(mail.goal);
            let missing = missing.filter(|part| !mail.held.contains(part));
            let missing: BTreeSet<Part> = missing.collect();
            events.extend(missing.into_iter().map(|part| Event::Lost { owner, h, part }));
        }
        self.commit_each(events);
    }

    /// Ends what was under way; after a failure the next try waits. Whether the owner is still known.
    fn on_told(&mut self, owner: &PeerId, taken: bool) -> bool {
        let now = self.now.mono;
        let Some(o) = self.owners.get_mut(owner) else { return false };
        o.reporting.busy = false;
        if taken {
            o.reporting.tries = 0;
        } else {
            o.reporting.tries = o.reporting.tries.saturating_add(1);
            o.reporting.due = now + self.jitter.back_off(BACK_OFF.0, BACK_OFF.1, o.reporting.tries);
        }
        true
    }
}

/// Every part that a mail is kept in.
fn parts_of(encoding: Encoding) -> Vec<Part> {
    match encoding {
        Encoding::Whole => vec![Part::Whole],
        Encoding::Fragments { k, n } => (0..n).map(|i| Part::Fragment { k, i }).collect(),
    }
}
