//! Telling readers: one ns per receiver, direct first, else into the DHT; again daily, and at once when a peer is back. It
//! keeps no ns itself: the sealed bytes lie beside the blob.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::events::{Event, How, SealedFor};
use super::io::{Action, Announcement};
use super::{Batch, Notify, Outbox, Timer};
use crate::model::{Address, MailId, Now, PeerId, SubmissionId, WallTime};

/// An open ns is sent again after this, so that a reader restored from an old disk gets it.
const AGAIN: Duration = Duration::from_secs(86_400);
/// Within this after a start goes what is to be repeated by then.
const REPEATED_WITHIN_S: u64 = 600;
/// A reader whose ns lies only in the DHT is tried itself again after this, if it is no member: entries there live in memory only.
pub(super) const DIRECT_AGAIN: Duration = Duration::from_secs(300);
/// How often the DHT is asked for nr while mails are open.
const POLL: Duration = Duration::from_secs(60);
/// The same when every notification goes through the DHT.
const POLL_DHT: Duration = Duration::from_secs(5);
/// Notifications under way at once.
pub(super) const UNDER_WAY_MAX: usize = 256;

/// Notifications on their way. Nothing in here survives a crash, nor needs to.
#[derive(Debug, Default)]
pub(super) struct Announcing {
    under_way: BTreeSet<(MailId, Address)>,
    queue: BTreeSet<(MailId, Address)>,
    /// When this run put an ns into the DHT. What an earlier run put there may be lost.
    in_dht_since: BTreeMap<(MailId, Address), WallTime>,
    /// When this run repeated what was told before. It is not written down: an idle peer writes nothing (R12).
    repeated: BTreeMap<(MailId, Address), WallTime>,
}

impl Outbox {
    /// A receiver's copy of a mail, with the submission it is of.
    pub(super) fn sealed_for(&self, h: &MailId, receiver: &Address) -> Option<(SubmissionId, &SealedFor)> {
        let mail = self.state.mails.get(h)?;
        let sealed = self.state.receiver(&mail.submission, receiver)?.sealed.as_ref()?;
        Some((mail.submission, sealed)).filter(|(_, sealed)| sealed.h == *h)
    }

    /// Whether a receiver's copy of a mail has not come to its end.
    fn waits(&self, h: &MailId, receiver: &Address) -> bool {
        let mail = self.state.mails.get(h);
        let receiver = mail.and_then(|mail| self.state.receiver(&mail.submission, receiver));
        receiver.is_some_and(|r| r.open().is_some_and(|s| s.h == *h))
    }
    /// Whether what the msglist says of it last is durable.
    fn is_listed(&self, h: &MailId) -> bool {
        self.state.mails.get(h).is_some_and(|mail| mail.entry_at <= self.state.list.durable())
    }
    fn is_open(&self, h: &MailId, receiver: &Address) -> bool {
        self.is_listed(h) && self.waits(h, receiver)
    }

    /// Tells every receiver of a durable mail that was not told within the last day, or not itself, and arms the timers of
    /// the others. After a start there may be many: then each reader's peer is told a few at a time, and what is due again is sent
    /// within some minutes.
    pub(super) fn announce_all(&mut self, now: Now, h: MailId, is_start: bool) {
        // Until the members have answered it is not known what is gone already (R7).
        if self.adoption.holding {
            return;
        }
        let Some(mail) = self.state.mails.get(&h) else { return };
        for receiver in mail.receivers.clone() {
            let Some((_, sealed)) = self.sealed_for(&h, &receiver) else { continue };
            let (told, peer) = (self.told(&h, &receiver, sealed).filter(|(how, _)| *how == How::Direct), sealed.peer);
            // Never longer than that, also when this clock was ahead then.
            let pause = told.map(|(_, at)| (at + AGAIN).since(now.wall).min(AGAIN)).unwrap_or_default();
            let is_open = self.is_open(&h, &receiver);
            if is_open && is_start && told.is_none() {
                self.is_untold_at_start(now, (h, receiver), peer);
            } else if is_open && is_start {
                self.timers.set(Timer::Announce(h, receiver), now.mono + pause.max(spread(&h, self.state.open.len())));
            } else if pause.is_zero() {
                self.announce(h, &receiver);
            } else if is_open {
                self.timers.set(Timer::Announce(h, receiver), now.mono + pause);
            }
        }
        let every = self.poll_every();
        if !self.timers.is_set(&Timer::PollNr) {
            self.timers.set(Timer::PollNr, now.mono + every);
        }
    }

    /// How a receiver was told last, and when.
    fn told(&self, h: &MailId, receiver: &Address, sealed: &SealedFor) -> Option<(How, WallTime)> {
        let repeated = self.announcing.repeated.get(&(*h, receiver.clone()));
        sealed.announced.map(|(how, at)| (how, repeated.copied().unwrap_or(at)))
    }

    /// Sends one ns, or queues it while too many are under way.
    pub(super) fn announce(&mut self, h: MailId, receiver: &Address) {
        let which = (h, receiver.clone());
        // The ns lies beside the blob.
        let is_here = !self.adoption.holding && !self.missing.contains(&h);
        if !is_here || !self.waits(&h, receiver) || self.announcing.under_way.contains(&which) {
            return;
        }
        if !self.is_listed(&h) {
            // It was listed anew just now: told of when that is durable.
            self.unlisted.insert(h);
            return;
        }
        self.timers.cancel(&Timer::Announce(h, receiver.clone()));
        if self.announcing.under_way.len() >= UNDER_WAY_MAX {
            self.announcing.queue.insert(which);
            return;
        }
        let Some((submission, sealed)) = self.sealed_for(&h, receiver) else { return };
        let Some(expiry) = self.state.submissions.get(&submission).map(|s| s.facts.expiry) else { return };
        // The DHT drops what was deleted there once. A reader from an old disk, or one whose nr went with this peer's disk, hears
        // of it again only by itself.
        let told = self.told(&h, receiver, sealed);
        let is_repeat = told.is_some_and(|(_, at)| at + AGAIN <= self.wall || at > self.wall);
        let announcement = Announcement {
            h,
            receiver: receiver.clone(),
            peer: sealed.peer,
            secret: sealed.secret.clone(),
            expiry,
            // A reader of an expired mail is asked itself, or not at all.
            direct_first: self.notify == Notify::DirectFirst
                || is_repeat
                || self.is_past(expiry)
                || self.closing.contains(&submission),
            dht: !self.is_past(expiry) && !self.closing.contains(&submission) && !self.is_in_dht(&which),
        };
        self.announcing.queue.remove(&which);
        self.announcing.under_way.insert(which);
        self.out.act(Action::Announce(announcement));
    }

    /// Whether this run put the ns into the DHT within the last day.
    pub(super) fn is_in_dht(&self, which: &(MailId, Address)) -> bool {
        let lately = |at: &WallTime| *at <= self.wall && self.wall.since(*at) < AGAIN;
        self.announcing.in_dht_since.get(which).is_some_and(lately)
    }

    /// Whether so much is under way that more would only wait.
    pub(super) fn announcing_is_busy(&self) -> bool {
        self.announcing.under_way.len() >= UNDER_WAY_MAX / 2
    }

    fn announce_next(&mut self) {
        while self.announcing.under_way.len() < UNDER_WAY_MAX {
            let Some((h, receiver)) = self.announcing.queue.pop_first() else { return };
            self.announce(h, &receiver);
        }
    }

    /// What came of an ns that was sent.
    pub(super) fn announced(&mut self, now: Now, h: MailId, receiver: &Address, how: Option<How>) {
        let which = (h, receiver.clone());
        self.announcing.under_way.remove(&which);
        let Some((submission, sealed)) = self.sealed_for(&h, receiver) else { return };
        let (before, peer, was_in_dht) = (sealed.announced.map(|(how, _)| how), sealed.peer, sealed.in_dht);
        // Also while it is listed anew, in another encoding.
        let is_open = self.waits(&h, receiver);
        // What is only repeated each day is not written down. A time that lies ahead is.
        let is_repeat = sealed.announced.is_some_and(|(before, at)| Some(before) == how && at <= now.wall);
        let must_know = match how {
            Some(How::Direct) => is_open && !is_repeat,
            Some(How::Dht) => !is_repeat || !was_in_dht,
            Some(How::OwnShare) => !was_in_dht,
            None => false,
        };
        if let Some(how) = how.filter(|_| must_know) {
            let mut batch = Batch::default();
            self.announcing.repeated.remove(&which);
            let (receiver, at) = (receiver.clone(), now.wall);
            self.record(&mut batch, Event::Announced { submission, receiver, how, at });
            self.commit(batch);
        } else if is_repeat && is_open {
            self.announcing.repeated.insert(which.clone(), now.wall);
        }
        if is_open {
            self.rest(now, which, how, before, peer);
        } else if matches!(how, Some(How::Dht | How::OwnShare)) {
            // The mail came to its end while its ns was on the way.
            self.delete_ns(h, receiver);
        }
        self.announce_next();
    }

    /// An open ns rests after an attempt that ended so: a day when it is in good hands, else until its reader's turn.
    fn rest(&mut self, now: Now, which: (MailId, Address), how: Option<How>, before: Option<How>, peer: PeerId) {
        if how == Some(How::Dht) {
            self.announcing.in_dht_since.insert(which.clone(), self.wall);
        }
        let in_dht = self.is_in_dht(&which);
        // One that the reader's peer took is in good hands; then it is only the daily repeat that failed.
        let rests = how == Some(How::Direct)
            || (how.is_none() && before == Some(How::Direct))
            || (self.notify == Notify::Dht && in_dht);
        if matches!(how, Some(How::Direct | How::Dht)) {
            self.was_taken(now, &which, peer, rests);
        }
        if rests {
            self.timers.set(Timer::Announce(which.0, which.1), now.mono + AGAIN);
        } else {
            self.is_untold(now, which, peer, in_dht);
        }
    }

    /// A receiver came to its end: nothing more is sent to it.
    pub(super) fn stop_announcing(&mut self, h: MailId, receiver: &Address) {
        let which = (h, receiver.clone());
        self.announcing.queue.remove(&which);
        self.announcing.in_dht_since.remove(&which);
        self.announcing.repeated.remove(&which);
        if let Some(peer) = self.sealed_for(&h, receiver).map(|(_, sealed)| sealed.peer) {
            self.needs_no_telling(&which, &peer);
        }
        self.timers.cancel(&Timer::Announce(h, receiver.clone()));
    }

    /// Deletes the ns of a receiver that has ended.
    pub(super) fn delete_ns(&mut self, h: MailId, receiver: &Address) {
        if let Some((_, sealed)) = self.sealed_for(&h, receiver).filter(|(_, sealed)| sealed.in_dht) {
            let (ns, secret) = (sealed.ns, sealed.secret.clone());
            self.out.act(Action::DeleteNs { h, receiver: receiver.clone(), ns, secret });
        }
    }

    /// What came of deleting an ns; it is tried again until the ns has expired by itself.
    pub(super) fn ns_deleted(&mut self, now: Now, h: MailId, receiver: &Address, done: bool) {
        let Some((submission, sealed)) = self.sealed_for(&h, receiver).filter(|(_, sealed)| sealed.in_dht) else {
            return;
        };
        let peer = sealed.peer;
        let expired = self.state.mails.get(&h).is_none_or(|mail| self.is_past(mail.facts.expiry));
        if done || expired {
            let mut batch = Batch::default();
            self.record(&mut batch, Event::NsDeleted { submission, receiver: receiver.clone() });
            self.commit(batch);
        } else {
            let pause = self.pause(u32::MAX, Some(&peer), receiver);
            self.timers.set(Timer::DeleteNs(h, receiver.clone()), now.mono + pause);
        }
    }

    /// A peer is back: what it was not told directly, it is told now, and a member's certificate is asked for.
    pub(super) fn peer_is_back(&mut self, now: Now, peer: &PeerId) {
        self.tell_all(now, peer);
        let back: Vec<Address> =
            self.roster.members.iter().filter(|m| m.peer_id == *peer).map(|m| m.address.clone()).collect();
        for address in back {
            self.find_certificate(&address);
        }
        self.tell_gone_to(peer);
        self.ask_own_list_of(peer);
    }

    /// Tells the members, and the readers of open mails, that this peer is here again.
    pub(super) fn say_hello(&mut self) {
        let open = |h: &MailId| self.state.mails.get(h);
        let receivers = self.state.open.iter().filter_map(open).flat_map(|mail| {
            mail.receivers.iter().filter_map(|address| self.state.receiver(&mail.submission, address))
        });
        let readers = receivers.filter_map(|r| r.open()).map(|sealed| sealed.peer);
        let members = self.roster.others().map(|member| member.peer_id);
        let peers: BTreeSet<PeerId> = readers.chain(members).collect();
        if !peers.is_empty() {
            self.out.act(Action::Hello { peers });
        }
    }

    fn poll_every(&self) -> Duration {
        match self.notify {
            Notify::DirectFirst => POLL,
            Notify::Dht => POLL_DHT,
        }
    }

    /// Asks the DHT for nr, and again later as long as a mail is open.
    pub(super) fn poll_nr(&mut self, now: Now) {
        self.out.act(Action::PollNr);
        if !self.state.open.is_empty() || self.is_any_uncertain(now) {
            let every = self.poll_every();
            self.timers.set(Timer::PollNr, now.mono + every);
        }
    }
}

/// When after a start the ns of a mail, one of `among`, is repeated that is due by then: about one a second, but all within some minutes.
fn spread(h: &MailId, among: usize) -> Duration {
    let within = u64::try_from(among).unwrap_or(u64::MAX).clamp(1, REPEATED_WITHIN_S);
    let drawn = h.as_bytes().iter().fold(0_u64, |sum, byte| (sum * 256 + u64::from(*byte)) % within);
    Duration::from_secs(drawn)
}
