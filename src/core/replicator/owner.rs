//! What is known of each other member: its msglist, its mails, its tombstones, what is held and what it was told. The durable
//! part of the replicator's state: it changes only by events, and asks for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_bytes::{ByteBuf, Bytes};

use super::follow::Follow;
use super::give_up::GivenUp;
use super::list::KnownList;
use super::probe::Probe;
use super::report::Reporting;
use super::types::Event;
use super::{MailKey, part_bytes};
use crate::core::about_bytes;
use crate::model::holding::{Holding, HoldingRefusal, HoldingState};
use crate::model::msglist::{Cursor, Ending, Entry, EntryBody, Tombstone};
use crate::model::{Address, Digest, Encoding, MailId, MonoTime, Part, PeerId, WallTime};
use crate::wire::msglist::decode_entry;
use crate::wire::signed::verified_before;

/// A tombstone is kept this long after the mail's expiry (DESIGN.md section 5).
const TOMBSTONE_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Encodings of one mail before its present one that are remembered: a policy changes seldom, and a mail lives 30 days.
const BEFORE_MAX: usize = 16;
/// Most peers that one mail is served to: a mailing to 100 and a group of 100.
pub(super) const SERVED_MAX: usize = 256;
/// Most reports and served-to records in one event of a snapshot: about 1 MiB, where a record holds 16 MiB.
const REPORT_LINES: usize = 10_000;
/// Most conflicts that are kept of one owner.
const CONFLICTS_MAX: usize = 16;

/// What is being done about a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Nothing. Entered when all is as placement says; left when something changes.
    Idle,
    /// Its part is in the queue. Entered when placement names this peer; left when its turn comes.
    Wanted,
    /// Its part is being pulled. Left with the shell's answer.
    Pulling,
    /// Members are asked what they hold, because of a change, or before a part is given up. Left with their answers.
    Asking,
    /// Parts are being given up, in words and then on the disk. Left with the shell's answer, or when others are placed meanwhile.
    Dropping,
    /// It cannot be done now. Left when what is waited for may have changed.
    Waiting(Wait),
}

/// What a mail waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The owner or other holders: until one is back, or its turn to be tried.
    Sources,
    /// Room in the owner's quota: until one of its parts is dropped.
    Quota,
    /// Right blocks: until the owner is back or re-encodes.
    Blocks,
    /// This peer's disk: a timer.
    Disk,
    /// The members that hold what replaces a part here: its turn to be tried, or until one is back.
    Confirmations,
    /// The owner, which is to be told that a part goes: until it is back.
    Owner,
}

/// A mail that an owner's msglist names.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) at: Cursor,
    pub(super) length: u64,
    pub(super) digest: Digest,
    pub(super) expiry: WallTime,
    pub(super) encoding: Encoding,
    /// How its list said that it was kept before, oldest first, the latest [`BEFORE_MAX`].
    pub(super) before: Vec<Encoding>,
    pub(super) held: BTreeSet<Part>,
    pub(super) served: BTreeMap<PeerId, u64>,
    /// Whether its part was chosen by asking the others, and not all of them have answered since that they hold another one.
    pub(super) unsettled: bool,
    /// Marks who was placed when they had answered: whoever was lost then may hold the same.
    pub(super) settled_among: Option<u64>,
    // What follows is found again after a restart.
    pub(super) task: Task,
    /// Parts that did not pass their check, whose files lie here until others take their place or this peer leaves; a start sweeps
    /// them away.
    pub(super) bad: BTreeSet<Part>,
    /// The part that this peer should hold, once that is known.
    pub(super) goal: Option<Part>,
    /// Whether the list named it in this run of the peer: then rank alone gives it its first part.
    pub(super) noted: Option<MonoTime>,
    /// Members whose answers were missing when the goal was chosen.
    pub(super) doubt: BTreeSet<PeerId>,
    /// Whether the members are to be asked what they hold before anything else.
    pub(super) ask_again: bool,
    /// Whether its part was not given by rank in this run of the peer, but chosen by asking others, some of whom may have been
    /// off: then each change of who is placed is a reason to ask again.
    pub(super) chosen: bool,
    /// Whether the list named it so soon after a change of the group that others may have placed it by their view of before.
    pub(super) placed_by_others: bool,
    /// Whether somebody asked and was told that the part which this peer should hold is not here: whoever asks so may take it.
    pub(super) asked_before_held: bool,
    /// When the others are asked whether one of them took the same part at the same time.
    pub(super) confirm_at: Option<MonoTime>,
    /// Marks who was placed when it was last looked at.
    pub(super) placed_mark: Option<u64>,
    /// Bytes served so far, not all of it recorded.
    pub(super) serving: BTreeMap<PeerId, u64>,
    pub(super) tries: u32,
    pub(super) refused: Option<HoldingRefusal>,
}

/// An owner's word that a mail is gone.
#[derive(Debug)]
pub(super) struct KnownTombstone {
    pub(super) expiry: WallTime,
    /// As the owner signed it.
    pub(super) tombstone: ByteBuf,
    /// Whether the owner's list had named the mail before.
    pub(super) named: bool,
}

impl KnownTombstone {
    /// Whether some receiver may never have had the mail.
    pub(super) fn may_have_unread(&self) -> bool {
        verified_before::<Tombstone>(&self.tombstone).is_ok_and(|tombstone| tombstone.ending != Ending::Received)
    }
    fn event(&self, owner: PeerId, h: MailId) -> Event {
        let (expiry, tombstone, named) = (self.expiry, self.tombstone.clone(), self.named);
        Event::Tombstoned { owner, h, expiry, tombstone, named }
    }
}

/// One other member, or one that was.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) address: Address,
    pub(super) list: KnownList,
    pub(super) mails: BTreeMap<MailId, Mail>,
    pub(super) tombstones: BTreeMap<MailId, KnownTombstone>,
    /// Those of them that its list, as it was read here, does not have: told by a 410, or along with another's page.
    unlisted: BTreeMap<ByteBuf, MailId>,
    /// Bytes of the held parts.
    pub(super) bytes: u64,
    /// How many parts are held.
    pub(super) parts: usize,
    /// Mails by their encoding.
    pub(super) by_encoding: BTreeMap<Encoding, usize>,
    /// Mails of which a part was refused.
    pub(super) refused: BTreeSet<MailId>,
    pub(super) forks: BTreeSet<Cursor>,
    /// The latest word on each part that the owner has not acknowledged, numbered.
    pub(super) reports: BTreeMap<u64, Holding>,
    pub(super) report_of: BTreeMap<(MailId, Part), u64>,
    pub(super) next_report: u64,
    // What follows is found again after a restart.
    pub(super) follow: Follow,
    pub(super) wanted: BTreeSet<(Cursor, MailId)>,
    pub(super) waiting: BTreeMap<MailId, Wait>,
    /// When mails expire, until that was acted upon.
    pub(super) expiries: BTreeSet<(WallTime, MailId)>,
    pub(super) reporting: Reporting,
    pub(super) given_up: BTreeMap<MailId, GivenUp>,
    pub(super) probe: Probe,
    /// Whether its files have been looked for since the start. Before that nothing is mirrored for it.
    pub(super) checked: bool,
    pub(super) trouble: Option<String>,
    /// While this peer is on its way out and the owner is no member any more: since when nobody took over what is held of it.
    pub(super) untaken_since: Option<MonoTime>,
}

impl Owner {
    /// The signed tombstones that its list does not have.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = &ByteBuf> {
        self.unlisted.keys()
    }
    /// Entries of its list were read.
    fn note_listed(&mut self, entries: &[ByteBuf]) {
        for bytes in entries {
            if self.unlisted.is_empty() {
                return;
            }
            if let Ok(Entry { body: EntryBody::Tombstone(signed), .. }) = decode_entry(bytes) {
                self.unlisted.remove(Bytes::new(&signed.0));
            }
        }
    }
    fn new(address: Address) -> Self {
        Self {
            address,
            list: KnownList::default(),
            mails: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            bytes: 0,
            parts: 0,
            by_encoding: BTreeMap::new(),
            refused: BTreeSet::new(),
            forks: BTreeSet::new(),
            reports: BTreeMap::new(),
            report_of: BTreeMap::new(),
            next_report: 1,
            follow: Follow::default(),
            wanted: BTreeSet::new(),
            waiting: BTreeMap::new(),
            expiries: BTreeSet::new(),
            reporting: Reporting::default(),
            given_up: BTreeMap::new(),
            probe: Probe::default(),
            checked: false,
            trouble: None,
            untaken_since: None,
        }
    }
    /// Queues a word on a part for its owner; it replaces an earlier one on the same part.
    pub(super) fn say(&mut self, h: MailId, part: Part, state: HoldingState) {
        let number = self.next_report;
        self.next_report += 1;
        self.put_report(number, Holding { h, part, state });
    }
    fn put_report(&mut self, number: u64, holding: Holding) {
        if let Some(earlier) = self.report_of.insert((holding.h, holding.part), number) {
            self.reports.remove(&earlier);
        }
        self.reports.insert(number, holding);
    }
    /// The reports in events that each fit well in one record of the journal.
    fn reports_snapshot(&self, owner: PeerId) -> Vec<Event> {
        let mut chunks = vec![Vec::new()];
        let mut lines = 0;
        for (number, holding) in &self.reports {
            let more = match &holding.state {
                HoldingState::Dropped { served } => served.len() + 1,
                HoldingState::Held | HoldingState::Lost | HoldingState::Refused(_) => 1,
            };
            if lines + more > REPORT_LINES && lines > 0 {
                chunks.push(Vec::new());
                lines = 0;
            }
            lines += more;
            if let Some(chunk) = chunks.last_mut() {
                chunk.push((*number, holding.clone()));
            }
        }
        let next = self.next_report;
        let event = |(x, items)| Event::Reports { owner, next, items, more: x > 0 };
        chunks.into_iter().enumerate().map(event).collect()
    }
    fn acknowledge(&mut self, upto: u64) {
        let rest = self.reports.split_off(&upto.saturating_add(1));
        for holding in std::mem::replace(&mut self.reports, rest).into_values() {
            self.report_of.remove(&(holding.h, holding.part));
        }
    }
    fn note(&mut self, h: MailId, mail: Mail) {
        self.expiries.insert((mail.expiry, h));
        *self.by_encoding.entry(mail.encoding).or_default() += 1;
        let before = self.mails.get(&h).map(|known| known.encoding);
        self.one_less(before);
        match self.mails.get_mut(&h) {
            None => {
                self.mails.insert(h, mail);
            }
            Some(known) => {
                if known.expiry != mail.expiry {
                    self.expiries.remove(&(known.expiry, h));
                }
                self.wanted.remove(&(known.at, h));
                known.kept_as(mail.encoding);
                (known.at, known.expiry, known.goal) = (mail.at, mail.expiry, None);
            }
        }
    }
    /// A mail that is not over is looked at when it expires, also if it seemed over before: a clock that was ahead may be right by now.
    pub(super) fn expires_later(&mut self, h: &MailId) {
        if let Some(mail) = self.mails.get(h) {
            self.expiries.insert((mail.expiry, *h));
        }
    }
    /// One mail less of an encoding.
    fn one_less(&mut self, encoding: Option<Encoding>) {
        let Some(encoding) = encoding else { return };
        if let Some(count) = self.by_encoding.get_mut(&encoding) {
            *count -= 1;
            if *count == 0 {
                self.by_encoding.remove(&encoding);
            }
        }
    }
    fn hold(&mut self, h: MailId, part: Part, is_held: bool) {
        let Some(mail) = self.mails.get_mut(&h) else { return };
        let bytes = part_bytes(mail.length, part);
        let changed = if is_held { mail.held.insert(part) } else { mail.held.remove(&part) };
        if is_held {
            mail.bad.remove(&part);
        }
        if changed && is_held {
            self.bytes = self.bytes.saturating_add(bytes);
            self.parts += 1;
            mail.refused = None;
            self.refused.remove(&h);
        } else if changed {
            self.bytes = self.bytes.saturating_sub(bytes);
            self.parts = self.parts.saturating_sub(1);
        }
    }
    fn drop_parts(&mut self, h: MailId, parts: &[Part], over: bool) {
        for part in parts {
            self.hold(h, *part, false);
            let served = self.mails.get(&h).map(|m| m.served.iter().map(|(p, n)| (*p, *n)).collect());
            self.say(h, *part, HoldingState::Dropped { served: served.unwrap_or_default() });
        }
        if over && let Some(mail) = self.mails.remove(&h) {
            self.one_less(Some(mail.encoding));
            self.parts = self.parts.saturating_sub(mail.held.len());
            self.refused.remove(&h);
            self.waiting.remove(&h);
            self.wanted.remove(&(mail.at, h));
            self.expiries.remove(&(mail.expiry, h));
        }
    }
}

#[cfg(test)]
impl Owner {
    /// Counts all there is and compares with what is counted as it changes.
    pub(super) fn check_counts(&self) {
        let mut by_encoding = BTreeMap::new();
        self.mails.values().for_each(|mail| *by_encoding.entry(mail.encoding).or_insert(0) += 1);
        assert_eq!(self.by_encoding, by_encoding);
        assert_eq!(self.parts, self.mails.values().map(|mail| mail.held.len()).sum::<usize>());
        assert!(self.mails.iter().all(|(h, mail)| mail.refused.is_some() == self.refused.contains(h)));
        assert!(self.refused.iter().all(|h| self.mails.contains_key(h)));
    }
}

/// Every owner.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<PeerId, Owner>);

impl Owners {
    pub(super) fn get(&self, owner: &PeerId) -> Option<&Owner> {
        self.0.get(owner)
    }
    pub(super) fn get_mut(&mut self, owner: &PeerId) -> Option<&mut Owner> {
        self.0.get_mut(owner)
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Owner)> {
        self.0.iter()
    }
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerId, &mut Owner)> {
        self.0.iter_mut()
    }
    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.0.keys().copied().collect()
    }
    pub(super) fn mail_mut(&mut self, owner: &PeerId, h: &MailId) -> Option<&mut Mail> {
        self.0.get_mut(owner)?.mails.get_mut(h)
    }
    pub(super) fn mail(&self, owner: &PeerId, h: &MailId) -> Option<&Mail> {
        self.0.get(owner)?.mails.get(h)
    }
    /// Up to `most` mails from `from` on, in order, and the one after them.
    pub(super) fn mails_from(&self, from: MailKey, most: usize) -> (Vec<MailKey>, Option<MailKey>) {
        let first = |owner: &PeerId| if *owner == from.0 { from.1 } else { MailId::new([0; 20]) };
        let owners = self.0.range(from.0..);
        let mut all = owners.flat_map(|(owner, o)| o.mails.range(first(owner)..).map(|(h, _)| (*owner, *h)));
        let some = all.by_ref().take(most).collect();
        (some, all.next())
    }
    /// Forgets tombstones whose time is over.
    pub(super) fn forget_tombstones(&mut self, now: WallTime) {
        for owner in self.0.values_mut() {
            owner.tombstones.retain(|_, known| known.expiry + TOMBSTONE_KEPT > now);
            owner.unlisted.retain(|_, h| owner.tombstones.contains_key(h));
        }
    }

    /// Applies one event: the only way in which what is durable changes.
    pub(super) fn apply(&mut self, event: &Event) {
        if let Event::Following { owner, address } = event {
            let known = self.0.entry(*owner).or_insert_with(|| Owner::new(address.clone()));
            known.address = address.clone();
            return;
        }
        let Some(o) = self.0.get_mut(owner_of(event)) else { return };
        match event {
            Event::Following { .. } => {}
            Event::Read { run, .. } => {
                o.note_listed(&run.entries);
                o.list.apply(run);
            }
            Event::Noted { h, at, length, digest, expiry, encoding, .. } => {
                o.note(*h, Mail::new(*at, *length, *digest, *expiry, *encoding));
            }
            Event::Tombstoned { h, expiry, tombstone, named, .. } => {
                // Journals of earlier versions do not say it; there it is known while the mail is.
                let named = *named || o.mails.contains_key(h);
                o.unlisted.insert(tombstone.clone(), *h);
                o.tombstones.insert(*h, KnownTombstone { expiry: *expiry, tombstone: tombstone.clone(), named });
            }
            Event::Held { h, part, .. } => {
                o.hold(*h, *part, true);
                o.say(*h, *part, HoldingState::Held);
            }
            Event::Chosen { h, settled, among, .. } => {
                if let Some(mail) = o.mails.get_mut(h) {
                    (mail.unsettled, mail.settled_among) = (!settled, *among);
                }
            }
            Event::Lost { h, part, .. } => {
                o.hold(*h, *part, false);
                o.say(*h, *part, HoldingState::Lost);
            }
            Event::Refused { h, part, why, .. } => {
                if let Some(mail) = o.mails.get_mut(h) {
                    mail.refused = Some(*why);
                    o.refused.insert(*h);
                }
                o.say(*h, *part, HoldingState::Refused(*why));
            }
            Event::Dropped { h, parts, over, .. } => o.drop_parts(*h, parts, *over),
            Event::Served { h, caller, bytes, .. } => {
                if let Some(mail) = o.mails.get_mut(h) {
                    mail.served.insert(*caller, *bytes);
                }
            }
            Event::Acknowledged { upto, .. } => o.acknowledge(*upto),
            Event::Forked { at, .. } => {
                if o.forks.len() < CONFLICTS_MAX {
                    o.forks.insert(*at);
                }
            }
            Event::Reports { next, items, more, .. } => {
                if !more {
                    o.reports.clear();
                    o.report_of.clear();
                }
                for (number, holding) in items {
                    o.put_report(*number, holding.clone());
                }
                o.next_report = *next;
            }
        }
    }

    /// About how many bytes its snapshot takes.
    pub(super) fn live_bytes(&self) -> u64 {
        let of_one = |(owner, o): (&PeerId, &Owner)| {
            let mails = about_bytes(o.mails.iter(), |(h, mail)| {
                let held = mail.held.iter().map(|part| Event::Held { owner: *owner, h: *h, part: *part });
                let served = mail.served.iter();
                let served = served.map(|(to, n)| Event::Served { owner: *owner, h: *h, caller: *to, bytes: *n });
                let chosen = mail.chosen_event(*owner, *h);
                let events: Vec<Event> =
                    mail.noted_events(*owner, *h).chain(held).chain(chosen).chain(served).collect();
                events
            });
            let tombstones = about_bytes(o.tombstones.iter(), |(h, known)| known.event(*owner, *h));
            let reports: u64 = o.reports_snapshot(*owner).iter().map(encoded).sum();
            mails + tombstones + reports + u64::try_from(o.list.bytes()).unwrap_or(u64::MAX)
        };
        self.0.iter().map(of_one).sum()
    }

    /// Events that bring an empty state to this one.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (owner, o) in &self.0 {
            let owner = *owner;
            events.push(Event::Following { owner, address: o.address.clone() });
            // Before the list, which says of most of them that it has them.
            events.extend(o.tombstones.iter().map(|(h, known)| known.event(owner, *h)));
            events.extend(o.list.snapshot().into_iter().map(|run| Event::Read { owner, run }));
            for (h, mail) in &o.mails {
                events.extend(mail.noted_events(owner, *h));
                events.extend(mail.held.iter().map(|part| Event::Held { owner, h: *h, part: *part }));
                events.extend(mail.chosen_event(owner, *h));
                let served = mail.served.iter();
                events.extend(served.map(|(caller, n)| Event::Served { owner, h: *h, caller: *caller, bytes: *n }));
            }
            events.extend(o.forks.iter().map(|at| Event::Forked { owner, at: *at }));
            events.extend(o.reports_snapshot(owner));
        }
        events
    }
}

impl Mail {
    pub(super) fn new(at: Cursor, length: u64, digest: Digest, expiry: WallTime, encoding: Encoding) -> Self {
        Self {
            at,
            length,
            digest,
            expiry,
            encoding,
            before: Vec::new(),
            held: BTreeSet::new(),
            served: BTreeMap::new(),
            unsettled: false,
            settled_among: None,
            task: Task::Idle,
            bad: BTreeSet::new(),
            goal: None,
            noted: None,
            doubt: BTreeSet::new(),
            ask_again: false,
            chosen: true,
            placed_by_others: false,
            asked_before_held: false,
            confirm_at: None,
            placed_mark: None,
            serving: BTreeMap::new(),
            tries: 0,
            refused: None,
        }
    }
    /// It is kept in another way from now on.
    fn kept_as(&mut self, encoding: Encoding) {
        let before = std::mem::replace(&mut self.encoding, encoding);
        self.before.retain(|known| ![before, encoding].contains(known));
        if before != encoding {
            self.before.push(before);
        }
        if self.before.len() > BEFORE_MAX {
            self.before.remove(0);
        }
    }
    /// What tells that its part was chosen, if that may still matter.
    fn chosen_event(&self, owner: PeerId, h: MailId) -> Option<Event> {
        let (settled, among) = (!self.unsettled, self.settled_among);
        (self.unsettled || among.is_some()).then_some(Event::Chosen { owner, h, settled, among })
    }
    /// What brings it to how it is kept now, by way of how it was kept before.
    fn noted_events(&self, owner: PeerId, h: MailId) -> impl Iterator<Item = Event> {
        let Self { at, length, digest, expiry, .. } = *self;
        let all = self.before.iter().chain([&self.encoding]);
        all.map(move |encoding| Event::Noted { owner, h, at, length, digest, expiry, encoding: *encoding })
    }
}

fn encoded(event: &Event) -> u64 {
    u64::try_from(crate::wire::encode(event).len()).unwrap_or(u64::MAX)
}

fn owner_of(event: &Event) -> &PeerId {
    match event {
        Event::Following { owner, .. }
        | Event::Read { owner, .. }
        | Event::Noted { owner, .. }
        | Event::Tombstoned { owner, .. }
        | Event::Held { owner, .. }
        | Event::Chosen { owner, .. }
        | Event::Lost { owner, .. }
        | Event::Refused { owner, .. }
        | Event::Dropped { owner, .. }
        | Event::Served { owner, .. }
        | Event::Acknowledged { owner, .. }
        | Event::Forked { owner, .. }
        | Event::Reports { owner, .. } => owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_reports_are_compacted_in_events_that_fit_in_a_record() {
        let owner = PeerId::new([1; 32]);
        let mut owners = Owners::default();
        owners.apply(&Event::Following { owner, address: "alice@acme".parse().unwrap() });
        let caller = |x: usize| PeerId::new([u8::try_from(x).unwrap(); 32]);
        let served = |x: u16| (0..SERVED_MAX).map(|c| (caller(c), u64::MAX - u64::from(x))).collect();
        for x in 0..2000_u16 {
            let mut h = [0; 20];
            h[..2].copy_from_slice(&x.to_be_bytes());
            let o = owners.get_mut(&owner).unwrap();
            o.say(MailId::new(h), Part::Whole, HoldingState::Dropped { served: served(x) });
        }
        let events = owners.snapshot();
        let most = events.iter().map(|e| crate::wire::encode(e).len()).max().unwrap();
        assert!(most < 2 << 20, "{most}");
        let mut again = Owners::default();
        events.iter().for_each(|e| again.apply(e));
        let (a, b) = (owners.get(&owner).unwrap(), again.get(&owner).unwrap());
        assert_eq!((&a.reports, &a.report_of, a.next_report), (&b.reports, &b.report_of, b.next_report));
    }
}
