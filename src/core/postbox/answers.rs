//! nr: one for each sealed mail that was concluded, sent until its sender took it. Never sent before the conclusion is on disk.
//!
//! ```text
//!   concluded ─▶ Owed ──direct: 204──▶ Taken ──the sender asks again──▶ Owed
//!                 └─ put into the DHT ─▶ InDht ──direct: 204, or its entry was deleted──▶ Taken
//! ```
//!
//! Attempts count by peer, not by nr: what is due for one peer travels together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::io::{NrItem, NrSent};
use super::state::{MailKey, NrState, Stage};
use super::{Action, Event, Postbox, incoming};
use crate::core::earliest;
use crate::model::notification::{Nr, nr_password};
use crate::model::{MailId, MonoTime, Now, PeerId};

/// nr in one request.
const BATCH_MAX: usize = 64;
/// First pause after a failed attempt; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause towards members of the own group (DESIGN.md section 5).
const PAUSE_MEMBER_MAX: Duration = Duration::from_secs(10);
/// Longest pause towards others, and between looks whether an nr was taken from the DHT.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// One peer that is owed nr.
#[derive(Debug, Default)]
struct Owed {
    open: BTreeSet<(MailKey, MailId)>,
    /// When to try; none while an attempt is under way.
    next: Option<MonoTime>,
    under_way: bool,
    attempt: u32,
    /// When its entries in the DHT are to be looked at again.
    look: MonoTime,
}

/// Who is owed what.
#[derive(Debug, Default)]
pub(super) struct Answers {
    peers: BTreeMap<PeerId, Owed>,
}

impl Answers {
    /// An nr about this mail is owed to `peer`, at once.
    pub(super) fn owe(&mut self, now: Now, peer: PeerId, id: MailKey, h: MailId) {
        let owed = self.peers.entry(peer).or_default();
        if owed.open.insert((id, h)) {
            owed.attempt = 0;
            owed.next = Some(now.mono);
        }
    }
    /// Nothing about this mail is owed any more.
    pub(super) fn done(&mut self, peer: PeerId, id: MailKey, h: MailId) {
        if let Some(owed) = self.peers.get_mut(&peer) {
            owed.open.remove(&(id, h));
            if owed.open.is_empty() && !owed.under_way {
                self.peers.remove(&peer);
            }
        }
    }
    /// When the next attempt is due.
    pub(super) fn next(&self) -> Option<MonoTime> {
        earliest(self.peers.values().filter(|owed| !owed.under_way).map(|owed| owed.next))
    }
}

impl Postbox {
    /// Sends what is due.
    pub(super) fn send_due(&mut self, now: Now) {
        let due = |owed: &Owed| !owed.under_way && owed.next.is_some_and(|at| at <= now.mono);
        let peers: Vec<PeerId> = self.answers.peers.iter().filter(|(_, o)| due(o)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            let items = self.items(now, peer);
            let Some(owed) = self.answers.peers.get_mut(&peer) else { continue };
            if items.is_empty() {
                self.answers.peers.remove(&peer);
                continue;
            }
            owed.under_way = true;
            owed.next = None;
            if owed.look <= now.mono {
                owed.look = now.mono + PAUSE_MAX;
            }
            self.out.act(Action::SendNr { peer, items });
        }
    }

    /// The nr that are open for `peer`: first those that nobody has yet.
    fn items(&mut self, now: Now, peer: PeerId) -> Vec<NrItem> {
        let Some(owed) = self.answers.peers.get_mut(&peer) else { return Vec::new() };
        let (state, me, look) = (&self.state, &self.settings.address, owed.look <= now.mono);
        let item = |(id, h): &(MailKey, MailId)| {
            let mail = state.mails.get(id)?;
            let offer = mail.offer(h).filter(|o| o.nr.is_open())?;
            let Stage::Concluded(outcome, at) = mail.stage else { return None };
            let (submission, to) = (id.submission, mail.from.clone());
            let nr = Nr { submission, h: *h, reader: me.clone(), to, outcome, at };
            let (in_dht, known_there) = match offer.nr {
                NrState::InDht(value) => (Some(value), true),
                _ => (None, false),
            };
            let until = offer.expiry + incoming::REMEMBERED;
            let password = nr_password(&offer.secret);
            let item = NrItem { id: *id, nr, sender: id.sender, password, until, in_dht, look };
            Some((known_there, item))
        };
        let mut items: Vec<(bool, NrItem)> = owed.open.iter().filter_map(item).collect();
        owed.open = items.iter().map(|(_, item)| (item.id, item.nr.h)).collect();
        items.sort_by_key(|(known_there, _)| *known_there);
        items.into_iter().map(|(_, item)| item).take(BATCH_MAX).collect()
    }

    /// What came of an attempt.
    pub(super) fn nr_sent(&mut self, now: Now, peer: PeerId, results: Vec<(MailKey, MailId, NrSent)>) {
        let mut events = Vec::new();
        let mut progress = false;
        let Some(owed) = self.answers.peers.get_mut(&peer) else { return };
        owed.under_way = false;
        for (id, h, sent) in results {
            let Some(before) = self.state.mails.get(&id).and_then(|m| m.offer(&h)).map(|o| o.nr) else { continue };
            let state = match sent {
                NrSent::Taken | NrSent::Failed { for_good: true, .. } => NrState::Taken(now.wall),
                NrSent::InDht(value) => NrState::InDht(value),
                NrSent::Failed { for_good: false, .. } => continue,
            };
            let more_than_a_batch = owed.open.len() > BATCH_MAX;
            if let NrState::Taken(_) = state {
                owed.open.remove(&(id, h));
                progress = true;
            }
            progress |= before == NrState::Owed && more_than_a_batch;
            if before.is_open() && before != state {
                events.push(Event::Nr { id, h, state });
            }
        }
        if owed.open.is_empty() {
            self.answers.peers.remove(&peer);
        } else {
            // An nr that came in meanwhile, or one beyond the batch, goes at once; else the pause grows.
            owed.attempt = if progress { 0 } else { owed.attempt.saturating_add(1) };
            let member = self.roster.as_ref().is_some_and(|roster| roster.has(&peer));
            let most = if member { PAUSE_MEMBER_MAX } else { PAUSE_MAX };
            let pause =
                if progress { Duration::ZERO } else { PAUSE.saturating_mul(1 << owed.attempt.min(9)).min(most) };
            owed.next = Some(owed.next.unwrap_or(now.mono + pause));
        }
        if !events.is_empty() {
            self.commit(events, Vec::new());
        }
    }

    /// A peer that answers again gets what it is owed, and is asked for what could not be pulled.
    pub(super) fn peer_is_back(&mut self, now: Now, peer: PeerId) {
        if let Some(owed) = self.answers.peers.get_mut(&peer) {
            owed.attempt = 0;
            owed.next = Some(now.mono);
        }
        self.sender_is_back(now, peer);
    }
}
