//! Trying again what waits for other members: a few mails of each owner at a time, more while that succeeds. It never asks once
//! for every mail that waits: when a member is back, following it tells so, and everything is looked at again.

use std::time::Duration;

use super::Replicator;
use super::owner::{Owner, Wait};
use crate::core::earliest;
use crate::model::{MailId, MonoTime, PeerId};

/// Pauses between two tries. That a member is back is known within 10 s from following it, so this covers only what changes
/// without that; it stays within the 5 minutes of DESIGN.md section 5, and one mail a try within the packets of an idle group.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Most mails of one owner in one try.
const AT_ONCE_MAX: usize = 256;

/// What is tried again for one owner.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// When; none while nothing waits for members.
    at: Option<MonoTime>,
    tries: u32,
    /// The mail that was tried last: the next ones are in turn.
    last: Option<MailId>,
    at_once: usize,
    /// Something came of it since the last try.
    progress: bool,
}

impl Owner {
    /// The next mails in turn that wait for other members.
    fn next_to_probe(&self, most: usize) -> Vec<MailId> {
        let waits = |(_, wait): &(&MailId, &Wait)| matches!(wait, Wait::Sources | Wait::Confirmations);
        let waiting = || self.waiting.iter().filter(waits).map(|(h, _)| *h);
        let later = waiting().filter(|h| self.probe.last.is_none_or(|last| *h > last));
        let earlier = waiting().filter(|h| self.probe.last.is_some_and(|last| *h <= last));
        later.chain(earlier).take(most).collect()
    }
}

impl Replicator {
    /// A mail of `owner` waits for other members.
    pub(super) fn probe_later(&mut self, owner: &PeerId) {
        let now = self.now.mono;
        if let Some(o) = self.owners.get_mut(owner).filter(|o| o.probe.at.is_none()) {
            o.probe.at = Some(now + self.jitter.back_off(PAUSE.0, PAUSE.1, o.probe.tries.saturating_add(1)));
        }
    }
    /// A mail of `owner` that may have waited goes on, so others may too.
    pub(super) fn probe_went_well(&mut self, owner: &PeerId) {
        let soon = self.now.mono + PAUSE.0;
        if let Some(o) = self.owners.get_mut(owner) {
            o.probe.progress = true;
            o.probe.at = o.probe.at.map(|at| at.min(soon));
        }
    }

    /// Tries what is due.
    pub(super) fn probe_due(&mut self) {
        let now = self.now.mono;
        let mut again = Vec::new();
        for (id, o) in self.owners.iter_mut().filter(|(_, o)| o.probe.at.is_some_and(|at| at <= now)) {
            o.probe.at = None;
            if std::mem::take(&mut o.probe.progress) {
                (o.probe.tries, o.probe.at_once) = (0, (o.probe.at_once * 2).clamp(1, AT_ONCE_MAX));
            } else {
                (o.probe.tries, o.probe.at_once) = (o.probe.tries.saturating_add(1), 1);
            }
            let some = o.next_to_probe(o.probe.at_once);
            if let Some(last) = some.last() {
                o.probe.last = Some(*last);
                o.probe.at = Some(now + self.jitter.back_off(PAUSE.0, PAUSE.1, o.probe.tries.max(1)));
                again.extend(some.into_iter().map(|h| (*id, h)));
            }
        }
        for (owner, h) in again {
            self.evaluate(owner, h);
        }
    }
    pub(super) fn next_probe(&self) -> Option<MonoTime> {
        earliest(self.owners.iter().map(|(_, o)| o.probe.at))
    }
}
