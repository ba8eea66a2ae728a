//! This peer's share of the DHT: entries and tombstones by key, within bounds, until they expire. It never asks other peers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::keep::{Change, Record};
use super::room::{Ledger, Limits, Lot, Room};
use crate::model::dht::{EntryTerms, VALIDITY_MAX, VALUE_MAX, password_hash};
use crate::model::{Digest, PeerId, WallTime};
use crate::wire::Signed;
use crate::wire::dht::{Answer, Del, Entry, EntryTombstone, Fetch, List, Listing, Op, RESPONSE_MAX, Refusal, short_id};

/// How far the clock of a publisher may be ahead: such an entry may seem valid for a little too long.
const CLOCK_GRACE: Duration = Duration::from_secs(600);
/// Values of one response; what does not fit is listed, and fetched by those who lack it.
const VALUES_MAX: usize = 1 << 20;
/// Changes that wait for the disk. What changes beyond is not written: after a restart it is asked of others.
const CHANGES_MAX: usize = 262_144;
/// Tombstones of one answer.
const TOMBSTONES_MAX: usize = 1024;

/// One key's share.
#[derive(Debug, Clone, Default)]
struct Slot {
    live: BTreeMap<Digest, (Entry, Lot)>,
    dead: BTreeMap<Digest, (EntryTombstone, Lot)>,
    /// Names this state; computed when it is asked for.
    print: Option<Digest>,
    /// All of the closest peers have it, and this peer is none of them: the first to go when room is needed.
    handed_over: bool,
}

/// Entries and tombstones, within bounds.
#[derive(Debug, Clone)]
pub(super) struct Store {
    slots: BTreeMap<Digest, Slot>,
    entries: Ledger,
    tombstones: Ledger,
    by_expiry: BTreeSet<(WallTime, Digest, Digest)>,
    known: BTreeSet<PeerId>,
    refused: BTreeMap<Refusal, u64>,
    /// Entries and tombstones that changed since they were written to disk; none when nobody writes them.
    unwritten: Option<BTreeSet<(Digest, Digest)>>,
}

/// How much one response may still carry.
pub(super) struct Budget {
    values: usize,
    all: usize,
}

impl Budget {
    pub(super) fn response() -> Self {
        Self { values: VALUES_MAX, all: RESPONSE_MAX / 4 * 3 }
    }
    /// Without bounds: for what this peer asks of itself.
    pub(super) fn own() -> Self {
        Self { values: usize::MAX, all: usize::MAX }
    }
    fn value(&mut self, entry: &Entry) -> bool {
        let size = 400 + entry.value().len();
        let fits = size <= self.values;
        self.values -= if fits { size } else { 0 };
        fits
    }
    /// The answer, or that it is too much for this response.
    fn charge(&mut self, answer: Answer) -> Answer {
        let size = answer.size();
        if size > self.all {
            return Answer::Refused(Refusal::Busy);
        }
        self.all -= size;
        answer
    }
}

impl Store {
    pub(super) fn new(entries: Limits, tombstones: Limits) -> Self {
        Self {
            slots: BTreeMap::new(),
            entries: Ledger::new(entries),
            tombstones: Ledger::new(tombstones),
            by_expiry: BTreeSet::new(),
            known: BTreeSet::new(),
            refused: BTreeMap::new(),
            unwritten: None,
        }
    }

    /// Does one operation. Expired ones are gone before.
    pub(super) fn serve(&mut self, now: WallTime, op: &Op, budget: &mut Budget) -> Answer {
        self.expire(now);
        let answer = match op {
            Op::Put(entry) => self.put(now, entry),
            Op::List(list) => self.list(list, budget),
            Op::Fetch(fetch) => self.fetch(fetch, budget),
            Op::Del(del) => self.del(now, del),
            Op::Bury(tombstone) => match self.bury(now, tombstone) {
                Ok(()) => Answer::Stored,
                Err(why) => Answer::Refused(why),
            },
            Op::Unknown { .. } => Answer::Unsupported,
            Op::Invalid { .. } => Answer::Refused(Refusal::Invalid),
        };
        if let Answer::Refused(why) = &answer {
            *self.refused.entry(why.clone()).or_default() += 1;
        }
        budget.charge(answer)
    }

    fn lot(&self, terms: &EntryTerms, value_bytes: usize) -> Lot {
        Lot::new(terms.key, terms.publisher, !self.known.contains(&terms.publisher), value_bytes)
    }

    fn put(&mut self, now: WallTime, entry: &Entry) -> Answer {
        let terms = entry.terms();
        if let Err(why) = check_expiry(now, terms) {
            return Answer::Refused(why);
        }
        if entry.value().len() > VALUE_MAX {
            return Answer::Refused(Refusal::Invalid);
        }
        let id = terms.id();
        let slot = self.slots.get(&terms.key);
        if let Some((tombstone, _)) = slot.and_then(|s| s.dead.get(&id)) {
            // The deletion outlives every renewal (R7).
            let tombstone = tombstone.clone().prolonged(terms);
            self.prolong(id, tombstone.clone());
            return Answer::Buried(vec![tombstone]);
        }
        if let Some((held, _)) = slot.and_then(|s| s.live.get(&id)) {
            if held.terms().expiry < terms.expiry {
                self.replace(id, entry.clone());
            }
            return Answer::Stored;
        }
        let lot = self.lot(terms, entry.value().len());
        if let Err(why) = self.entries.check(&lot) {
            let made = why == Refusal::Full && self.make_room(&terms.key);
            if !made || self.entries.check(&lot).is_err() {
                return Answer::Refused(why);
            }
        }
        self.entries.add(&lot);
        self.by_expiry.insert((terms.expiry, terms.key, id));
        self.mark(terms.key, id);
        let slot = self.changed(terms.key);
        slot.live.insert(id, (entry.clone(), lot));
        Answer::Stored
    }

    /// The slot of a key, about to change.
    fn changed(&mut self, key: Digest) -> &mut Slot {
        let slot = self.slots.entry(key).or_default();
        slot.print = None;
        slot.handed_over = false;
        slot
    }

    /// Puts a renewal in the place of the entry.
    fn replace(&mut self, id: Digest, entry: Entry) {
        let (key, expiry) = (entry.terms().key, entry.terms().expiry);
        let mut before = None;
        if let Some((held, _)) = self.changed(key).live.get_mut(&id) {
            before = Some(held.terms().expiry);
            *held = entry;
        }
        self.move_expiry(key, id, before, expiry);
    }

    /// Puts a longer tombstone in the place of the one there.
    fn prolong(&mut self, id: Digest, tombstone: EntryTombstone) {
        let (key, expiry) = (tombstone.terms().key, tombstone.terms().expiry);
        let mut before = None;
        if let Some((held, _)) = self.slots.get_mut(&key).and_then(|s| s.dead.get_mut(&id)) {
            before = Some(held.terms().expiry);
            *held = tombstone;
        }
        self.move_expiry(key, id, before, expiry);
    }

    fn move_expiry(&mut self, key: Digest, id: Digest, before: Option<WallTime>, after: WallTime) {
        if let Some(before) = before.filter(|before| *before != after) {
            self.by_expiry.remove(&(before, key, id));
            self.by_expiry.insert((after, key, id));
            self.mark(key, id);
        }
    }

    /// Keeps a tombstone, and deletes what it names.
    pub(super) fn bury(&mut self, now: WallTime, tombstone: &EntryTombstone) -> Result<(), Refusal> {
        let terms = tombstone.terms();
        check_expiry(now, terms)?;
        let (key, id) = (terms.key, terms.id());
        if let Some((held, _)) = self.slots.get(&key).and_then(|s| s.dead.get(&id)) {
            let longer = held.clone().prolonged(terms);
            self.prolong(id, longer);
            return Ok(());
        }
        let lot = self.lot(terms, 0);
        self.tombstones.check(&lot)?;
        let mut tombstone = tombstone.clone();
        if let Some((entry, entry_lot)) = self.changed(key).live.remove(&id) {
            self.by_expiry.remove(&(entry.terms().expiry, key, id));
            self.entries.take(&entry_lot);
            tombstone = tombstone.prolonged(entry.terms());
        }
        self.tombstones.add(&lot);
        self.mark(key, id);
        self.by_expiry.insert((tombstone.terms().expiry, key, id));
        self.changed(key).dead.insert(id, (tombstone, lot));
        Ok(())
    }

    fn del(&mut self, now: WallTime, del: &Del) -> Answer {
        let password = password_hash(&del.password);
        let Some(slot) = self.slots.get(&del.key) else { return Answer::Missing };
        let fits = |terms: &Signed<EntryTerms>| terms.value == del.value && terms.password == password;
        let named: Vec<_> = slot.live.values().map(|(e, _)| e.terms()).filter(|t| t.value == del.value).collect();
        let doomed: Vec<_> = named.iter().filter(|t| fits(t)).map(|t| (*t).clone()).collect();
        let mut buried: Vec<_> = slot.dead.values().map(|(t, _)| t).filter(|t| fits(t.terms())).cloned().collect();
        if doomed.is_empty() && buried.is_empty() {
            return if named.is_empty() { Answer::Missing } else { Answer::Refused(Refusal::WrongPassword) };
        }
        for terms in doomed {
            // The password was compared above, so this is a tombstone.
            let Ok(tombstone) = EntryTombstone::new(terms, del.password.clone()) else { continue };
            match self.bury(now, &tombstone) {
                Ok(()) => buried.push(tombstone),
                Err(why) => return Answer::Refused(why),
            }
        }
        Answer::Buried(buried)
    }

    fn list(&mut self, list: &List, budget: &mut Budget) -> Answer {
        let print = self.print(&list.key);
        if list.unless.is_some() && list.unless == print {
            return Answer::Same;
        }
        let Some(slot) = self.slots.get(&list.key) else { return Answer::Listing(Listing::default()) };
        let have: BTreeSet<&Digest> = list.have.iter().collect();
        let wanted = slot.live.iter().filter(|(id, _)| list.values && !have.contains(id));
        let entries = wanted.map(|(_, (e, _))| e).filter(|e| budget.value(e)).cloned().collect();
        Answer::Listing(Listing {
            print,
            live: slot.live.iter().map(|(id, (e, _))| (*id, e.terms().expiry)).collect(),
            dead: slot.dead.keys().map(short_id).collect(),
            entries,
        })
    }

    fn fetch(&self, fetch: &Fetch, budget: &mut Budget) -> Answer {
        let Some(slot) = self.slots.get(&fetch.key) else { return Answer::Missing };
        let ids: BTreeSet<&Digest> = fetch.ids.iter().collect();
        let live = ids.iter().filter_map(|id| slot.live.get(*id)).map(|(e, _)| e);
        let dead = ids.iter().filter_map(|id| slot.dead.get(*id)).map(|(t, _)| t);
        Answer::Fetched {
            entries: live.filter(|e| !fetch.dead_only && budget.value(e)).cloned().collect(),
            tombstones: dead.take(TOMBSTONES_MAX).cloned().collect(),
        }
    }

    /// Names the state of a key: equal at two peers that keep the same. None when nothing is kept there.
    pub(super) fn print(&mut self, key: &Digest) -> Option<Digest> {
        let slot = self.slots.get_mut(key)?;
        if slot.print.is_none() {
            let mut hasher = blake3::Hasher::new_derive_key("roost 1 dht listing");
            for (id, (entry, _)) in &slot.live {
                hasher.update(id.as_bytes()).update(&entry.terms().expiry.0.to_be_bytes());
            }
            hasher.update(b"dead");
            for id in slot.dead.keys() {
                hasher.update(id.as_bytes());
            }
            slot.print = Some(Digest::new(*hasher.finalize().as_bytes()));
        }
        slot.print
    }

    /// What another peer lacks, given its listing; and which of the entries here it says are deleted.
    pub(super) fn compare(&self, key: &Digest, theirs: &Listing, most: usize) -> (Vec<Op>, Vec<Digest>) {
        let Some(slot) = self.slots.get(key) else { return (Vec::new(), Vec::new()) };
        let dead: BTreeSet<u64> = theirs.dead.iter().copied().collect();
        let live: BTreeMap<Digest, WallTime> = theirs.live.iter().copied().collect();
        let claimed = slot.live.keys().filter(|id| dead.contains(&short_id(id))).copied().collect();
        let lacked = slot.live.iter().filter(|(id, (entry, _))| {
            !dead.contains(&short_id(id)) && live.get(id).is_none_or(|expiry| *expiry < entry.terms().expiry)
        });
        let bury = slot.dead.iter().filter(|(id, _)| !dead.contains(&short_id(id)));
        let bury = bury.map(|(_, (tombstone, _))| Op::Bury(tombstone.clone()));
        (bury.chain(lacked.map(|(_, (entry, _))| Op::Put(entry.clone()))).take(most).collect(), claimed)
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: WallTime) {
        while let Some((expiry, key, id)) = self.by_expiry.first().copied() {
            if expiry > now {
                break;
            }
            self.by_expiry.pop_first();
            self.mark(key, id);
            let slot = self.changed(key);
            let (live, dead) = (slot.live.remove(&id), slot.dead.remove(&id));
            if slot.live.is_empty() && slot.dead.is_empty() {
                self.slots.remove(&key);
            }
            live.iter().for_each(|(_, lot)| self.entries.take(lot));
            dead.iter().for_each(|(_, lot)| self.tombstones.take(lot));
        }
    }

    pub(super) fn next_expiry(&self) -> Option<WallTime> {
        self.by_expiry.first().map(|(expiry, _, _)| *expiry)
    }

    /// Drops one key that was handed over. False when there is none.
    fn make_room(&mut self, but: &Digest) -> bool {
        let Some(key) = self.slots.iter().find(|(k, s)| s.handed_over && *k != but).map(|(k, _)| *k) else {
            return false;
        };
        let Some(slot) = self.slots.remove(&key) else { return false };
        for (id, (entry, lot)) in slot.live {
            self.by_expiry.remove(&(entry.terms().expiry, key, id));
            self.entries.take(&lot);
            self.mark(key, id);
        }
        for (id, (tombstone, lot)) in slot.dead {
            self.mark(key, id);
            self.by_expiry.remove(&(tombstone.terms().expiry, key, id));
            self.tombstones.take(&lot);
        }
        true
    }

    /// Notes that all of the closest peers keep what is here, and that this peer is none of them.
    pub(super) fn hand_over(&mut self, key: &Digest) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.handed_over = true;
        }
    }

    /// Keys that this peer answers for.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Digest> {
        self.slots.iter().filter(|(_, slot)| !slot.handed_over).map(|(key, _)| key)
    }

    pub(super) fn key_count(&self) -> usize {
        self.slots.len()
    }

    /// Learns which publishers a verified gd names, and counts anew who is a stranger.
    pub(super) fn know(&mut self, known: BTreeSet<PeerId>) {
        self.known = known;
        for slot in self.slots.values_mut() {
            for (_, lot) in slot.live.values_mut() {
                restate(&mut self.entries, lot, &self.known);
            }
            for (_, lot) in slot.dead.values_mut() {
                restate(&mut self.tombstones, lot, &self.known);
            }
        }
    }

    /// The publishers that verified gds name.
    pub(super) fn known(&self) -> impl Iterator<Item = &PeerId> {
        self.known.iter()
    }
    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.known.contains(peer)
    }

    /// From now on changes are noted for the disk.
    pub(super) fn track_changes(&mut self) {
        self.unwritten = Some(BTreeSet::new());
    }

    /// Notes a change for the disk.
    pub(super) fn mark(&mut self, key: Digest, id: Digest) {
        if let Some(unwritten) = self.unwritten.as_mut().filter(|unwritten| unwritten.len() < CHANGES_MAX) {
            unwritten.insert((key, id));
        }
    }

    /// How many changes wait for the disk.
    pub(super) fn changes(&self) -> usize {
        self.unwritten.as_ref().map_or(0, BTreeSet::len)
    }

    /// The next of them, as it is now.
    pub(super) fn next_change(&mut self) -> Option<Change> {
        let (key, id) = self.unwritten.as_mut()?.pop_first()?;
        let slot = self.slots.get(&key);
        let live = slot.and_then(|slot| slot.live.get(&id)).map(|(entry, _)| Record::Live(entry.clone()));
        let dead = || slot.and_then(|slot| slot.dead.get(&id)).map(|(tombstone, _)| Record::Dead(tombstone.clone()));
        Some(Change { key, id, record: live.or_else(dead) })
    }

    /// Takes what was on disk; what is not taken is noted as a change.
    pub(super) fn restore(&mut self, now: WallTime, record: &Record) {
        let place = record.place();
        let was_unwritten = self.unwritten.as_ref().is_some_and(|unwritten| unwritten.contains(&place));
        let taken = match record {
            Record::Live(entry) => matches!(self.put(now, entry), Answer::Stored),
            Record::Dead(tombstone) => self.bury(now, tombstone).is_ok(),
        };
        match self.unwritten.as_mut() {
            Some(unwritten) if taken && !was_unwritten => drop(unwritten.remove(&place)),
            _ => self.mark(place.0, place.1),
        }
    }

    pub(super) fn entries(&self) -> Room {
        self.entries.total()
    }
    pub(super) fn tombstones(&self) -> Room {
        self.tombstones.total()
    }
    pub(super) fn refused(&self) -> impl Iterator<Item = (&Refusal, u64)> {
        self.refused.iter().map(|(why, count)| (why, *count))
    }
}

fn restate(ledger: &mut Ledger, lot: &mut Lot, known: &BTreeSet<PeerId>) {
    let stranger = !known.contains(&lot.publisher);
    if lot.stranger != stranger {
        ledger.take(lot);
        lot.stranger = stranger;
        ledger.add(lot);
    }
}

fn check_expiry(now: WallTime, terms: &EntryTerms) -> Result<(), Refusal> {
    if terms.expiry <= now {
        return Err(Refusal::Expired);
    }
    if terms.expiry > now + VALIDITY_MAX.duration() + CLOCK_GRACE { Err(Refusal::TooLong) } else { Ok(()) }
}
