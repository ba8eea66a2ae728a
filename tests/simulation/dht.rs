//! The DHT as one shared model: puts, gets and deletions with delay, refusal and loss. The real one has a simulation of its own.

use std::collections::{BTreeMap, BTreeSet};

use roost::core::outbox::{Announcement, How, NrFrom};
use roost::core::postbox::io::{NrItem, NrSent, NsFrom};
use roost::core::{outbox, postbox};
use roost::model::dht::DhtKey;
use roost::model::notification::{nr_password, ns_password};
use roost::model::{Address, Digest, GroupName, MailId, Secret, SubmissionId, WallTime};

use super::disk::{SealedNr, SealedNs, digest_of};
use super::peer::Tell;
use super::sabotage::Saboteur;
use super::world::{Happening, START, World};

/// All ns are read again after this, as `actors::read_entries` does it: one for which the disk had no room gets another chance.
const FORGET_AFTER_MS: u64 = 3_600_000;

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum DhtValue {
    Ns(Box<SealedNs>),
    Nr(SealedNr),
}

/// A value, and until when who may delete it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) value: DhtValue,
    pub(crate) password: Secret,
    expiry: WallTime,
}

/// What all peers share.
#[derive(Debug, Default)]
pub(crate) struct Dht {
    entries: BTreeMap<DhtKey, BTreeMap<Digest, Entry>>,
    gone: BTreeSet<(DhtKey, Digest)>,
    /// What was deleted once, also if somebody put it back since.
    deleted: BTreeSet<(DhtKey, Digest)>,
    /// All that was ever put.
    pub(crate) once: Vec<(DhtKey, Digest, Entry)>,
    /// When a reader last tried in vain to put its nr for a submission.
    pub(crate) failed: BTreeMap<(SubmissionId, Address), u64>,
}

/// What became of an nr there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NrInDht {
    /// Nobody ever put it.
    Never,
    /// It is not there any more, and nobody deleted it: it was lost, or has expired.
    Lost,
    /// It is there.
    Lies,
    /// Its sender deleted it, as it does with what it has taken.
    Deleted,
}

/// What a peer does there.
#[derive(Debug)]
pub(crate) enum DhtOp {
    PutNs(Box<Announcement>, Box<SealedNs>),
    PutNr(u64, Box<NrItem>),
    WasNrDeleted(u64, Box<NrItem>, Digest),
    DelNs { h: MailId, receiver: Address, ns: Digest, secret: Secret },
    DelOwnNs(Digest, Secret),
    DelNr(Digest, Secret),
    PollNs,
    PollNr,
    FetchGd(GroupName),
}

impl Dht {
    fn put(&mut self, key: DhtKey, name: Digest, entry: Entry) {
        if !self.gone.contains(&(key.clone(), name)) {
            self.once.push((key.clone(), name, entry.clone()));
            self.entries.entry(key).or_default().insert(name, entry);
        }
    }
    /// Puts what was there once back, though it was deleted, as one does who finds peers that never heard of that.
    pub(crate) fn put_back(&mut self, which: usize, password: Secret) {
        let (key, name, entry) = self.once[which].clone();
        self.gone.remove(&(key.clone(), name));
        self.lay(key, name, Entry { password, ..entry });
    }
    /// Lays an entry there, unless it is there.
    pub(crate) fn lay(&mut self, key: DhtKey, name: Digest, entry: Entry) {
        self.entries.entry(key).or_default().entry(name).or_insert(entry);
    }
    /// Lays an ns there.
    pub(crate) fn lay_ns(&mut self, to: &Address, sealed: SealedNs, password: Secret) {
        let (name, expiry) = (sealed.name(), sealed.ns.expiry);
        self.lay(DhtKey::Ns(to.clone()), name, Entry { value: DhtValue::Ns(Box::new(sealed)), password, expiry });
    }
    /// Whether any is there for this reader.
    pub(crate) fn has_ns(&self, to: &Address) -> bool {
        self.entries.get(&DhtKey::Ns(to.clone())).is_some_and(|entries| !entries.is_empty())
    }
    /// True when it is gone.
    pub(crate) fn del(&mut self, key: DhtKey, name: Digest, password: &Secret) -> bool {
        let Some(entries) = self.entries.get_mut(&key) else { return true };
        if entries.get(&name).is_some_and(|e| e.password != *password) {
            return false;
        }
        if entries.remove(&name).is_some() {
            self.gone.insert((key.clone(), name));
            self.deleted.insert((key, name));
        }
        true
    }
    fn get(&mut self, key: &DhtKey, now: WallTime) -> Vec<(Digest, DhtValue)> {
        let Some(entries) = self.entries.get_mut(key) else { return Vec::new() };
        entries.retain(|_, e| e.expiry > now);
        entries.iter().map(|(name, e)| (*name, e.value.clone())).collect()
    }
    /// What became there of a reader's word on a mail. Of several, what its sender is most likely to have read counts.
    pub(crate) fn nr(&self, to: &Address, submission: &SubmissionId, reader: &Address) -> NrInDht {
        let key = DhtKey::Nr(to.clone());
        let of_it = |(at, _, entry): &&(DhtKey, Digest, Entry)| match &entry.value {
            DhtValue::Nr(sealed) => *at == key && (&sealed.nr.submission, &sealed.nr.reader) == (submission, reader),
            DhtValue::Ns(_) => false,
        };
        let there = |name: &Digest| self.entries.get(&key).is_some_and(|entries| entries.contains_key(name));
        let fate = |name: Digest| match (self.deleted.contains(&(key.clone(), name)), there(&name)) {
            (true, _) => NrInDht::Deleted,
            (_, true) => NrInDht::Lies,
            _ => NrInDht::Lost,
        };
        self.once.iter().filter(of_it).map(|(_, name, _)| fate(*name)).max().unwrap_or(NrInDht::Never)
    }
    /// Loses one entry, if there is one.
    pub(crate) fn lose_one(&mut self) {
        for entries in self.entries.values_mut() {
            if entries.pop_first().is_some() {
                return;
            }
        }
    }
}

impl World {
    /// Starts an operation; what comes of it is told after a while.
    pub(crate) fn dht(&mut self, p: usize, op: DhtOp) {
        self.count_message(p);
        let delay = self.rng.between(5, 200 + self.params.latency_ms);
        let life = self.peers[p].life;
        self.later(delay, Happening::DhtDo { p, life, op });
    }

    /// Does it. That the peer crashed meanwhile does not undo it.
    pub(crate) fn dht_do(&mut self, p: usize, life: u64, op: DhtOp) {
        let works = self.peers[p].side == 0 && !(self.faulty && self.rng.chance(self.params.drop));
        let now = WallTime(START + self.t);
        let me = self.peers[p].address.clone();
        let alive = self.peers[p].life == life;
        match op {
            DhtOp::PutNs(what, sealed) => {
                let name = sealed.name();
                if works {
                    let entry =
                        Entry { value: DhtValue::Ns(sealed), password: ns_password(&what.secret), expiry: what.expiry };
                    self.truth.told_once.insert((what.h, what.receiver.clone()));
                    self.dht.put(DhtKey::Ns(what.receiver.clone()), name, entry);
                }
                let how = works.then_some(How::Dht);
                let input = outbox::Input::Announced { h: what.h, receiver: what.receiver, how };
                self.tell_if(alive, p, Tell::Outbox(input));
            }
            DhtOp::DelNs { h, receiver, ns, secret } => {
                let done = works && self.dht.del(DhtKey::Ns(receiver.clone()), ns, &ns_password(&secret));
                self.tell_if(alive, p, Tell::Outbox(outbox::Input::NsDeleted { h, receiver, done }));
            }
            DhtOp::DelOwnNs(ns, password) if works => drop(self.dht.del(DhtKey::Ns(me), ns, &password)),
            DhtOp::DelNr(nr, secret) if works => drop(self.dht.del(DhtKey::Nr(me), nr, &nr_password(&secret))),
            DhtOp::DelOwnNs(..) | DhtOp::DelNr(..) => {}
            DhtOp::PutNr(batch, item) => {
                let sealed = SealedNr { nr: item.nr.clone(), signer: self.peers[p].fingerprint };
                let name = digest_of(&sealed.nr, &sealed.signer);
                if works {
                    let entry =
                        Entry { value: DhtValue::Nr(sealed), password: item.password.clone(), expiry: item.until };
                    self.dht.put(DhtKey::Nr(item.nr.to.clone()), name, entry);
                } else {
                    self.dht.failed.insert((item.nr.submission, item.nr.reader.clone()), self.t);
                }
                let failed = NrSent::Failed { why: "nobody stores it yet".to_owned(), for_good: false };
                let sent = if works { NrSent::InDht(name) } else { failed };
                self.nr_sent_if(alive, p, batch, &item, sent);
            }
            DhtOp::WasNrDeleted(batch, item, name) => {
                let gone = works && self.dht.gone.contains(&(DhtKey::Nr(item.nr.to.clone()), name));
                let sent = if gone { NrSent::Taken } else { NrSent::InDht(name) };
                self.nr_sent_if(alive, p, batch, &item, sent);
            }
            DhtOp::PollNs => self.polled_ns(alive && works, p, now),
            DhtOp::PollNr => self.polled_nr(alive, works, p, now),
            DhtOp::FetchGd(group) if alive => self.gd_looked_for(p, works, group),
            DhtOp::FetchGd(_) => {}
        }
        if alive {
            self.pump(p);
        }
    }

    fn tell_if(&mut self, alive: bool, p: usize, tell: Tell) {
        if alive {
            self.tell(p, tell);
        }
    }
    fn nr_sent_if(&mut self, alive: bool, p: usize, batch: u64, item: &NrItem, sent: NrSent) {
        if alive {
            self.nr_result(p, batch, (item.id, item.nr.h, sent));
        }
    }

    fn polled_ns(&mut self, heard: bool, p: usize, now: WallTime) {
        if !heard {
            return;
        }
        let (t, peer) = (self.t, &mut self.peers[p]);
        if peer.read_since.is_none_or(|since| t - since >= FORGET_AFTER_MS) {
            peer.read.clear();
            peer.read_since = Some(t);
        }
        let life = peer.life;
        for (name, value) in self.dht.get(&DhtKey::Ns(self.peers[p].address.clone()), now) {
            if let DhtValue::Ns(sealed) = value
                && self.peers[p].life == life
                && self.peers[p].read.insert(name)
                && (sealed.signer == sealed.ns.from_fingerprint || self.is(Saboteur::BelievesAnyNs))
            {
                self.take_ns(p, NsFrom::Dht(name), *sealed);
            }
        }
    }

    fn polled_nr(&mut self, alive: bool, works: bool, p: usize, now: WallTime) {
        if !alive {
            return;
        }
        self.peers[p].polling_nr = false;
        if !works {
            return;
        }
        for (name, value) in self.dht.get(&DhtKey::Nr(self.peers[p].address.clone()), now) {
            if let DhtValue::Nr(sealed) = value {
                self.take_nr(p, NrFrom::Dht(name), sealed);
            }
        }
    }

    /// What the postbox asks of the DHT about ns.
    pub(crate) fn delete_own_ns(&mut self, p: usize, value: Digest, password: Secret) {
        self.dht(p, DhtOp::DelOwnNs(value, password));
    }

    /// One nr of a batch has its result; the last one ends the batch.
    pub(crate) fn nr_result(&mut self, p: usize, batch: u64, result: (postbox::MailKey, MailId, NrSent)) {
        let Some(all) = self.peers[p].nr_batches.get_mut(&batch) else { return };
        all.results.push(result);
        all.left -= 1;
        if all.left == 0
            && let Some(all) = self.peers[p].nr_batches.remove(&batch)
        {
            self.tell(p, Tell::Postbox(postbox::Input::NrSent { peer: all.peer, results: all.results }));
        }
    }
}
