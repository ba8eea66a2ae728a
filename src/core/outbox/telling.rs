//! Readers whose peers were not told directly yet: their open ns, by peer, tried a few at a time in turn. It never asks once
//! for every ns that waits: what a peer costs that is off does not depend on how many mails wait for its user.
//!
//! ```text
//!   first attempt failed --> untold --its turn: told--> the others follow, more at a time with each that is taken
//!                              ^ '--- not taken: a pause that doubles, then the next few in turn
//!                              '----- at start, what was not told directly by an earlier run
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::announce::{DIRECT_AGAIN, UNDER_WAY_MAX};
use super::{Outbox, RETRY_FIRST, Timer};
use crate::model::{Address, MailId, Now, PeerId};

/// ns in one attempt towards a peer that does not answer: one request carries them all.
const PROBED: usize = 16;

/// Whose peers were not told. Nothing in here survives a crash, nor needs to.
#[derive(Debug, Default)]
pub(super) struct Telling {
    readers: BTreeMap<PeerId, Reader>,
}

/// One peer that was not told of all that is open for it.
#[derive(Debug, Default)]
struct Reader {
    untold: BTreeSet<(MailId, Address)>,
    /// The one that was tried last: the next ones are in turn.
    last: Option<(MailId, Address)>,
    /// Attempts in vain since the last that went well.
    tries: u32,
    /// How many were taken of late, one after the other.
    taken: usize,
}

impl Reader {
    /// The next in turn.
    fn next(&self) -> Vec<(MailId, Address)> {
        let most = (PROBED + self.taken).min(UNDER_WAY_MAX).min(self.untold.len());
        let later = self
            .last
            .iter()
            .flat_map(|last| self.untold.range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded)));
        later.chain(&self.untold).take(most).cloned().collect()
    }
}

impl Outbox {
    /// An open ns that its reader's peer has not; it is tried again in its turn.
    pub(super) fn is_untold(&mut self, now: Now, which: (MailId, Address), peer: PeerId, in_dht: bool) {
        let reader = self.telling.readers.entry(peer).or_default();
        let tries = reader.tries;
        if !reader.untold.insert(which.clone()) {
            reader.taken = 0;
        }
        if !self.timers.is_set(&Timer::Tell(peer)) {
            let pause = self.pause_of_telling(tries, &peer, &which.1, in_dht);
            self.timers.set(Timer::Tell(peer), now.mono + pause);
        }
    }

    /// How long it rests. A member is never left for longer than a few seconds, also when the DHT has its ns: after a partition
    /// that would be found only with the next look there.
    fn pause_of_telling(&self, tries: u32, peer: &PeerId, address: &Address, in_dht: bool) -> Duration {
        let usual = self.pause(tries, Some(peer), address);
        if in_dht && !self.is_member(Some(peer), address) { DIRECT_AGAIN } else { usual }
    }

    /// The same of one that an earlier run may have tried: its turn comes at once.
    pub(super) fn is_untold_at_start(&mut self, now: Now, which: (MailId, Address), peer: PeerId) {
        self.telling.readers.entry(peer).or_default().untold.insert(which);
        self.timers.set_earlier(Timer::Tell(peer), now.mono);
    }

    /// An ns was taken, by its reader's peer or by the DHT: others that wait for the same may be, too.
    pub(super) fn was_taken(&mut self, now: Now, which: &(MailId, Address), peer: PeerId, told: bool) {
        let Some(reader) = self.telling.readers.get_mut(&peer) else { return };
        let was_tried = if told { reader.untold.remove(which) } else { reader.untold.contains(which) };
        if reader.untold.is_empty() {
            return self.forget_reader(&peer);
        }
        if was_tried {
            (reader.tries, reader.taken) = (0, reader.taken.saturating_add(1).min(UNDER_WAY_MAX));
            self.timers.set_earlier(Timer::Tell(peer), now.mono);
        } else if told {
            reader.tries = 0;
            self.timers.set_earlier(Timer::Tell(peer), now.mono + RETRY_FIRST);
        }
    }

    /// Tries the next few that a peer was not told.
    pub(super) fn tell_next(&mut self, now: Now, peer: PeerId) {
        let Some(reader) = self.telling.readers.get_mut(&peer) else { return };
        let some = reader.next();
        let tries = reader.tries;
        let Some((_, address)) = some.last().cloned() else { return self.forget_reader(&peer) };
        let in_dht = some.iter().all(|which| self.is_in_dht(which));
        let pause = self.pause_of_telling(tries, &peer, &address, in_dht);
        self.timers.set(Timer::Tell(peer), now.mono + pause);
        // What is under way says when it ends whether more is worth it.
        if self.announcing_is_busy() {
            return;
        }
        if let Some(reader) = self.telling.readers.get_mut(&peer) {
            reader.tries = tries.saturating_add(1);
            reader.last = some.last().cloned();
        }
        for (h, receiver) in some {
            self.announce(h, &receiver);
        }
    }

    /// A peer is here again: it is told as much as can be under way.
    pub(super) fn tell_all(&mut self, now: Now, peer: &PeerId) {
        if let Some(reader) = self.telling.readers.get_mut(peer) {
            (reader.tries, reader.taken, reader.last) = (0, UNDER_WAY_MAX, None);
            self.tell_next(now, *peer);
        }
    }

    /// A receiver came to its end.
    pub(super) fn needs_no_telling(&mut self, which: &(MailId, Address), peer: &PeerId) {
        if let Some(reader) = self.telling.readers.get_mut(peer) {
            reader.untold.remove(which);
            if reader.untold.is_empty() {
                self.forget_reader(peer);
            }
        }
    }

    fn forget_reader(&mut self, peer: &PeerId) {
        self.telling.readers.remove(peer);
        self.timers.cancel(&Timer::Tell(*peer));
    }
}
