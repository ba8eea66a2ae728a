//! What is known of one owner's msglist: entries as bytes, checked against signed heads. It never removes anything because an
//! entry is missing (R3): it only grows, and forgets what a signed base says is over.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::model::msglist::{Cursor, Entry, Epoch, Head, Seq};
use crate::model::{Digest, PeerId};
use crate::wire::msglist::{Page, Run, chain_next};
use crate::wire::{Signed, WireError};

/// Most bytes of entries in a page that is answered.
const PAGE_BYTES: usize = 512 * 1024;
/// A head is kept at least every so many entries, so that any cursor can be answered with a page that ends at one.
const HEAD_STEP_ENTRIES: u64 = 200;
/// And at least every so many bytes of entries.
const HEAD_STEP_BYTES: usize = 256 * 1024;
/// Most entries that are kept of one owner.
const ENTRIES_MAX: usize = 1_000_000;
/// Most bytes of entries that are kept of one owner: they are in RAM. At 256 bytes each these are as many as are kept.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// A verified run as it goes into the journal: everything that is needed to pass it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRun {
    /// The last entry, where the head stands.
    #[serde(rename = "a")]
    pub at: Cursor,
    /// The position before the first entry.
    #[serde(rename = "f")]
    pub after: Seq,
    /// The chain value there.
    #[serde(rename = "d")]
    pub before: Digest,
    /// The chain value at the head.
    #[serde(rename = "c")]
    pub chain: Digest,
    /// The head's base: what is at or before it is over.
    #[serde(rename = "b")]
    pub base: Seq,
    /// The entries' bytes.
    #[serde(rename = "i")]
    pub entries: Vec<ByteBuf>,
    /// The signed head.
    #[serde(rename = "h")]
    pub head: ByteBuf,
}

/// What a run turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing that was not known.
    Known,
    /// New entries, decoded, and what to record of them.
    New(Vec<Entry>, ReadRun),
}

/// Why nothing of a run is used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RunRefused {
    /// The owner signed two lists that contradict each other at this position (R3: that deletes nothing).
    Fork(Cursor),
    /// It is malformed, not signed, or does not fit itself.
    Bad(WireError),
    /// More entries, or more bytes of them, than are kept of one owner.
    TooLong,
}

#[derive(Debug)]
struct KeptHead {
    chain: Digest,
    bytes: ByteBuf,
}

/// One epoch: entries after `base`, heads at some of them, always at the last.
#[derive(Debug)]
struct KnownEpoch {
    base: Seq,
    base_chain: Digest,
    entries: VecDeque<ByteBuf>,
    /// Bytes of the entries.
    bytes: usize,
    heads: BTreeMap<Seq, KeptHead>,
    tip_chain: Digest,
}

impl KnownEpoch {
    fn tip(&self) -> Seq {
        Seq(self.base.0.saturating_add(count(self.entries.len())))
    }
    /// The entries after `after`, up to and including `to`; both inside what is known.
    fn between(&self, after: Seq, to: Seq) -> impl Iterator<Item = &ByteBuf> {
        let skip = index(after.0.saturating_sub(self.base.0));
        let take = index(to.0.saturating_sub(after.0));
        self.entries.iter().skip(skip).take(take)
    }
    /// The chain value at a position, when that is inside what is known.
    fn chain_at(&self, seq: Seq) -> Option<Digest> {
        if seq < self.base || seq > self.tip() {
            return None;
        }
        if seq == self.tip() {
            return Some(self.tip_chain);
        }
        let nearest = self.heads.range(..=seq).next_back();
        let (from, chain) = nearest.map_or((self.base, self.base_chain), |(at, head)| (*at, head.chain));
        Some(self.between(from, seq).fold(chain, |chain, entry| chain_next(&chain, entry)))
    }
    /// Drops the head before the last one when the two around it are close enough together.
    fn thin_heads(&mut self) {
        let mut back = self.heads.keys().rev();
        let (Some(last), Some(middle)) = (back.next().copied(), back.next().copied()) else { return };
        let from = back.next().copied().unwrap_or(self.base);
        let close = last.0 - from.0 <= HEAD_STEP_ENTRIES
            && self.between(from, last).map(|e| e.len()).sum::<usize>() <= HEAD_STEP_BYTES;
        if close {
            self.heads.remove(&middle);
        }
    }
    fn forget_to(&mut self, base: Seq) {
        let Some(chain) = self.chain_at(base) else { return };
        let forgotten: usize = self.entries.drain(..index(base.0 - self.base.0)).map(|e| e.len()).sum();
        self.bytes = self.bytes.saturating_sub(forgotten);
        self.heads = self.heads.split_off(&base.next());
        (self.base, self.base_chain) = (base, chain);
    }
}

/// Every epoch of an owner's msglist that is known.
#[derive(Debug, Default)]
pub(super) struct KnownList {
    epochs: BTreeMap<Epoch, KnownEpoch>,
}

impl KnownList {
    /// The last position that was read.
    pub(super) fn cursor(&self) -> Cursor {
        self.epochs.last_key_value().map_or(Cursor::default(), |(epoch, e)| Cursor { epoch: *epoch, seq: e.tip() })
    }
    fn len(&self) -> usize {
        self.epochs.values().map(|e| e.entries.len()).sum()
    }
    /// Bytes of the entries.
    pub(super) fn bytes(&self) -> usize {
        self.epochs.values().map(|e| e.bytes).sum()
    }

    /// Checks a run against its signature and against everything known; changes nothing.
    /// `from_owner`: whether the owner itself sent it, so that what does not fit is its own word.
    pub(super) fn check(&self, owner: &PeerId, run: &Run, from_owner: bool) -> Result<Taken, RunRefused> {
        let head = Signed::<Head>::verify(&run.head).map_err(RunRefused::Bad)?;
        let known = self.epochs.get(&head.at.epoch);
        let tip = known.map(|e| e.tip());
        if let Some(epoch) = known
            && head.owner == *owner
            && epoch.chain_at(head.at.seq).is_some_and(|chain| chain != head.chain)
        {
            return Err(RunRefused::Fork(head.at));
        }
        let before = known.and_then(|e| e.chain_at(run.after));
        let verified = run.verify(owner, before.as_ref()).map_err(|why| {
            // A well-signed run on a position that this peer has read, which does not continue what it read there.
            if from_owner && before.is_some() && head.owner == *owner && matches!(why, WireError::Chain { .. }) {
                RunRefused::Fork(head.at)
            } else {
                RunRefused::Bad(why)
            }
        })?;
        if tip.is_some_and(|tip| head.at.seq <= tip) || verified.entries.is_empty() {
            return Ok(Taken::Known);
        }
        let bytes: usize = verified.entries.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.len() + verified.entries.len() > ENTRIES_MAX || self.bytes() + bytes > BYTES_MAX {
            return Err(RunRefused::TooLong);
        }
        // The start of what is new: where this peer stopped reading, or where the run begins if that is later.
        let mut before = verified.before;
        let after = tip.map_or(run.after, |tip| tip.max(run.after));
        let skip = index(after.0.saturating_sub(run.after.0));
        for (_, bytes) in verified.entries.iter().take(skip) {
            before = chain_next(&before, bytes);
        }
        if let Some(epoch) = known.filter(|e| e.tip() == after)
            && epoch.tip_chain != before
        {
            return Err(RunRefused::Fork(head.at));
        }
        let (entries, bytes): (Vec<Entry>, Vec<ByteBuf>) =
            verified.entries.into_iter().skip(skip).map(|(entry, bytes)| (entry, ByteBuf::from(bytes))).unzip();
        let (at, chain, base) = (head.at, head.chain, head.base_seq);
        Ok(Taken::New(entries, ReadRun { at, after, before, chain, base, entries: bytes, head: run.head.clone() }))
    }

    /// Takes what [`KnownList::check`] found new.
    pub(super) fn apply(&mut self, run: &ReadRun) {
        let fresh = || KnownEpoch {
            base: run.after,
            base_chain: run.before,
            entries: VecDeque::new(),
            bytes: 0,
            heads: BTreeMap::new(),
            tip_chain: run.before,
        };
        let epoch = self.epochs.entry(run.at.epoch).or_insert_with(fresh);
        if epoch.tip() != run.after {
            // The owner forgot what lies between; what was read before is still in the mails, and this deletes none.
            *epoch = fresh();
        }
        epoch.bytes += run.entries.iter().map(|e| e.len()).sum::<usize>();
        epoch.entries.extend(run.entries.iter().cloned());
        epoch.tip_chain = run.chain;
        epoch.heads.insert(run.at.seq, KeptHead { chain: run.chain, bytes: run.head.clone() });
        epoch.thin_heads();
        if run.base > epoch.base && run.base < run.at.seq {
            epoch.forget_to(run.base);
        }
    }

    /// The runs that bring an empty list to this one.
    pub(super) fn snapshot(&self) -> Vec<ReadRun> {
        let mut runs = Vec::new();
        for (epoch, known) in &self.epochs {
            let (mut after, mut before) = (known.base, known.base_chain);
            for (seq, head) in &known.heads {
                let at = Cursor { epoch: *epoch, seq: *seq };
                let entries = known.between(after, *seq).cloned().collect();
                let head_bytes = head.bytes.clone();
                runs.push(ReadRun {
                    at,
                    after,
                    before,
                    chain: head.chain,
                    base: known.base,
                    entries,
                    head: head_bytes,
                });
                (after, before) = (*seq, head.chain);
            }
        }
        runs
    }

    /// The same for its owner, with the last entry of the epoch that it asks about even if it asks for what comes after that: one
    /// restored from an old disk may have listed something else at that place since, and finds it out by nothing else (R7).
    pub(super) fn page_for_its_owner(&self, since: Cursor) -> Page {
        let tip = self.epochs.get(&since.epoch).filter(|known| !known.entries.is_empty()).map(KnownEpoch::tip);
        let last = tip.map_or(since.seq, |tip| Seq(tip.0.saturating_sub(1)));
        self.page(Cursor { seq: since.seq.min(last), ..since })
    }

    /// What comes after `since`, as this peer knows it. An unknown epoch is answered from the start of each.
    pub(super) fn page(&self, since: Cursor) -> Page {
        let first = if self.epochs.contains_key(&since.epoch) { since.epoch } else { Epoch(0) };
        let mut page = Page::default();
        let mut room = PAGE_BYTES;
        for (epoch, known) in self.epochs.range(first..) {
            let read = if *epoch == since.epoch { since.seq } else { known.base };
            let after = read.max(known.base);
            let Some(end) = page_end(known, after, room) else { continue };
            let Some(head) = known.heads.get(&end) else { continue };
            let entries: Vec<ByteBuf> = known.between(after, end).cloned().collect();
            room = room.saturating_sub(entries.iter().map(|e| e.len()).sum());
            // The last head has the newest base: it proves where the run starts to whoever has not read what lies before.
            let newest = known.heads.last_key_value().filter(|(at, _)| after == known.base && **at != end);
            let base = newest.filter(|_| after > Seq(0)).map(|(_, newest)| newest.bytes.clone());
            page.runs.push(Run { entries, after, head: head.bytes.clone(), base });
            // A reader's cursor is in the last epoch it got, so a run that is cut ends the page.
            if end < known.tip() || room == 0 {
                page.more = end < known.tip() || self.epochs.range(Epoch(epoch.0.saturating_add(1))..).next().is_some();
                break;
            }
        }
        page
    }
}

/// The farthest head whose entries after `after` fit in `room`, or the first one if none does; none when nothing is new.
fn page_end(known: &KnownEpoch, after: Seq, room: usize) -> Option<Seq> {
    let mut end = None;
    let (mut from, mut bytes) = (after, 0);
    for seq in known.heads.range(after.next()..).map(|(seq, _)| *seq) {
        bytes += known.between(from, seq).map(|e| e.len()).sum::<usize>();
        if end.is_some() && bytes > room {
            break;
        }
        (end, from) = (Some(seq), seq);
    }
    end
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::msglist::EntryBody;
    use crate::wire::PeerKey;
    use crate::wire::msglist::{chain_start, encode_entry};

    #[test]
    fn a_list_of_few_but_huge_entries_is_bounded_too() {
        let (key, epoch) = (PeerKey::from_seed(&[1; 32]), Epoch(7));
        let owner = key.peer_id();
        let start = chain_start(&owner, epoch);
        let entry = |seq| {
            let body = EntryBody::Unknown { kind: "test".to_owned(), body: vec![0; 1000] };
            encode_entry(&Entry { at: Cursor { epoch, seq: Seq(seq) }, body })
        };
        let run = |after: u64, before: &Digest| {
            let bytes = entry(after + 1);
            let (at, chain) = (Cursor { epoch, seq: Seq(after + 1) }, chain_next(before, &bytes));
            let head = key.sign(Head { owner, at, chain, base_seq: Seq(0), base_chain: start });
            let head = ByteBuf::from(head.as_bytes().to_vec());
            (Run { entries: vec![ByteBuf::from(bytes)], after: Seq(after), head, base: None }, chain)
        };
        let mut list = KnownList::default();
        let (first, chain) = run(0, &start);
        let Ok(Taken::New(_, taken)) = list.check(&owner, &first, true) else { panic!("it fits") };
        list.apply(&taken);
        assert_eq!(list.bytes(), first.entries[0].len());
        let (second, _) = run(1, &chain);
        list.epochs.get_mut(&epoch).unwrap().bytes = BYTES_MAX - second.entries[0].len() + 1;
        assert_eq!(list.check(&owner, &second, true), Err(RunRefused::TooLong));
        list.epochs.get_mut(&epoch).unwrap().bytes -= 1;
        assert!(matches!(list.check(&owner, &second, true), Ok(Taken::New(..))));
    }

    /// An owner's whole msglist: entries of each epoch, each entry's bytes, and the head that stood there.
    struct Written {
        owner: PeerId,
        epochs: Vec<(Epoch, Vec<(ByteBuf, ByteBuf)>)>,
    }

    impl Written {
        /// Epochs with so many entries; the base follows so far behind.
        fn new(lengths: &[u64], behind: u64) -> Self {
            let key = PeerKey::from_seed(&[1; 32]);
            let owner = key.peer_id();
            let epoch = |(number, length): (u64, &u64)| {
                let epoch = Epoch(number);
                let mut chains = vec![chain_start(&owner, epoch)];
                let write = |seq: u64| {
                    let at = Cursor { epoch, seq: Seq(seq) };
                    let body = EntryBody::Unknown { kind: "test".to_owned(), body: seq.to_be_bytes().to_vec() };
                    let bytes = encode_entry(&Entry { at, body });
                    let chain = chain_next(&chains[index(seq) - 1], &bytes);
                    chains.push(chain);
                    let base_seq = Seq(seq.saturating_sub(behind));
                    let base_chain = chains[index(base_seq.0)];
                    let head = key.sign(Head { owner, at, chain, base_seq, base_chain });
                    (ByteBuf::from(bytes), ByteBuf::from(head.as_bytes()))
                };
                (epoch, (1..=*length).map(write).collect())
            };
            Self { owner, epochs: (1..).zip(lengths).map(epoch).collect() }
        }
        /// What somebody knows who read so many entries, asking again behind each of `stops`.
        fn read(&self, entries: usize, stops: &[usize]) -> KnownList {
            let (mut list, mut left) = (KnownList::default(), entries);
            for (epoch, all) in &self.epochs {
                let mut from = 0;
                let here = left.min(all.len());
                left -= here;
                for stop in (1..=here).filter(|n| *n == here || stops.contains(n)) {
                    let entries = all[from..stop].iter().map(|(entry, _)| entry.clone()).collect();
                    let head = all[stop - 1].1.clone();
                    let run = Run { entries, after: Seq(count(from)), head, base: None };
                    let Ok(Taken::New(_, new)) = list.check(&self.owner, &run, true) else {
                        panic!("{epoch:?} up to {stop}")
                    };
                    list.apply(&new);
                    from = stop;
                }
            }
            list
        }
        /// What the first knows once the second has told it all.
        fn merged(&self, mut list: KnownList, other: &KnownList) -> KnownList {
            loop {
                let page = other.page(list.cursor());
                for run in &page.runs {
                    if let Taken::New(_, new) = list.check(&self.owner, run, false).unwrap() {
                        list.apply(&new);
                    }
                }
                if !page.more {
                    return list;
                }
            }
        }
    }

    /// What it says of each epoch: base, entries, and the chain at its end.
    fn known(list: &KnownList) -> Vec<(Epoch, Seq, Digest, Vec<ByteBuf>, Digest)> {
        let of = |(epoch, e): (&Epoch, &KnownEpoch)| {
            (*epoch, e.base, e.base_chain, e.entries.iter().cloned().collect(), e.tip_chain)
        };
        list.epochs.iter().map(of).collect()
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            lengths in proptest::collection::vec(1u64..12, 1..4),
            behind in 1u64..14,
            shares in proptest::array::uniform3(0usize..=100),
            stops in proptest::array::uniform3(proptest::collection::vec(1usize..12, 0..4)),
        ) {
            let written = Written::new(&lengths, behind);
            let all: u64 = lengths.iter().sum();
            let read = |n: usize| written.read(index(all) * shares[n] / 100, &stops[n]);
            let (a, b, c) = (|| read(0), || read(1), || read(2));
            proptest::prop_assert_eq!(known(&written.merged(a(), &b())), known(&written.merged(b(), &a())));
            let left = written.merged(written.merged(a(), &b()), &c());
            let right = written.merged(a(), &written.merged(b(), &c()));
            proptest::prop_assert_eq!(known(&left), known(&right));
            proptest::prop_assert_eq!(known(&written.merged(a(), &a())), known(&a()));
            let joined = written.merged(a(), &b());
            proptest::prop_assert_eq!(known(&written.merged(written.merged(a(), &b()), &b())), known(&joined));
            // What one of them knew is not gone but behind the base that the owner signed.
            let newest = [a(), b()].iter().map(KnownList::cursor).max();
            proptest::prop_assert_eq!(Some(joined.cursor()), newest);
        }
    }
}
