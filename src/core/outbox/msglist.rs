//! The own msglist: entries as bytes in a chain, pages that end at a signed head, and readers that wait for one.
//! It forgets an entry only behind a base that its head signs, and never shows one that is not durable.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use crate::model::msglist::{Cursor, Entry, EntryBody, Epoch, Head, Seq};
use crate::model::{Digest, PeerId};
use crate::wire::PeerKey;
use crate::wire::msglist::{Page, Run, chain_next, chain_start, encode_entry};

/// Most entries in one page.
const PAGE_ENTRIES_MAX: usize = 1000;
/// Bytes of entries after which a page ends: a quarter of what a reader takes.
const PAGE_BYTES: usize = 1024 * 1024;
/// Signed heads that are kept, since every member asks for the same pages.
const HEADS_KEPT: usize = 16;

/// One epoch's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
struct EpochList {
    /// Entries at or before this were dropped.
    base_seq: Seq,
    /// The chain value there.
    base_chain: Digest,
    /// Each entry with the chain value after it; the first one stands at `base_seq` + 1.
    entries: Vec<(ByteBuf, Digest)>,
}

impl EpochList {
    fn last(&self) -> Seq {
        Seq(self.base_seq.0.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX)))
    }
    fn chain(&self) -> Digest {
        self.entries.last().map_or(self.base_chain, |(_, chain)| *chain)
    }
    /// The chain value at `seq`, as far as it is known.
    fn chain_at(&self, seq: Seq) -> Option<Digest> {
        match seq.0.checked_sub(self.base_seq.0)? {
            0 => Some(self.base_chain),
            n => self.entries.get(usize::try_from(n - 1).ok()?).map(|(_, chain)| *chain),
        }
    }
    /// Where the entry after `seq` lies in `entries`.
    fn index_after(&self, seq: Seq) -> usize {
        usize::try_from(seq.0.saturating_sub(self.base_seq.0)).unwrap_or(usize::MAX)
    }
}

/// The own msglist, all epochs of it.
#[derive(Debug, Clone)]
pub(super) struct Msglist {
    owner: PeerId,
    epochs: BTreeMap<Epoch, EpochList>,
    /// Up to here the current epoch may be shown; earlier epochs are durable as a whole.
    durable: Cursor,
    heads: BTreeMap<Cursor, ByteBuf>,
}

impl PartialEq for Msglist {
    fn eq(&self, other: &Self) -> bool {
        self.owner == other.owner && self.epochs == other.epochs
    }
}

impl Msglist {
    /// A list without an epoch.
    pub(super) fn new(owner: PeerId) -> Self {
        Self { owner, epochs: BTreeMap::new(), durable: Cursor::default(), heads: BTreeMap::new() }
    }
    /// Whether no epoch was ever opened: a fresh home.
    pub(super) fn is_fresh(&self) -> bool {
        self.epochs.is_empty()
    }
    /// Opens `epoch`; one that is there already stays as it is.
    pub(super) fn open(&mut self, epoch: Epoch) {
        let base_chain = chain_start(&self.owner, epoch);
        self.epochs.entry(epoch).or_insert(EpochList { base_seq: Seq(0), base_chain, entries: Vec::new() });
    }
    /// The last entry.
    pub(super) fn head(&self) -> Cursor {
        let last = self.epochs.last_key_value();
        last.map(|(epoch, list)| Cursor { epoch: *epoch, seq: list.last() }).unwrap_or_default()
    }
    /// The last entry that may be shown.
    pub(super) fn durable(&self) -> Cursor {
        self.durable
    }
    /// Where the next entry stands.
    pub(super) fn next_at(&self) -> Cursor {
        let head = self.head();
        Cursor { epoch: head.epoch, seq: head.seq.next() }
    }
    /// Bytes of the next entry, if it says `body`.
    pub(super) fn next_entry(&self, body: EntryBody) -> (Cursor, Vec<u8>) {
        let at = self.next_at();
        (at, encode_entry(&Entry { at, body }))
    }
    /// Appends an entry to the current epoch and says where it stands. Its cost does not depend on what is there.
    pub(super) fn append(&mut self, entry: &[u8]) -> Cursor {
        if let Some(mut last) = self.epochs.last_entry() {
            let list = last.get_mut();
            let chain = chain_next(&list.chain(), entry);
            list.entries.push((ByteBuf::from(entry), chain));
        }
        self.head()
    }
    /// Everything up to `upto` is on disk. Whether that is news.
    pub(super) fn mark_durable(&mut self, upto: Cursor) -> bool {
        let news = upto > self.durable;
        self.durable = self.durable.max(upto);
        news
    }
    /// The entry at `at`.
    pub(super) fn entry(&self, at: Cursor) -> Option<&[u8]> {
        let list = self.epochs.get(&at.epoch).filter(|list| at.seq > list.base_seq)?;
        let before = Seq(at.seq.0.checked_sub(1)?);
        list.entries.get(list.index_after(before)).map(|(bytes, _)| bytes.as_slice())
    }
    /// The chain value at `at`, as far as it is known.
    pub(super) fn chain_at(&self, at: Cursor) -> Option<Digest> {
        self.epochs.get(&at.epoch)?.chain_at(at.seq)
    }
    /// The base of an epoch, and the chain value there.
    pub(super) fn base(&self, epoch: Epoch) -> Option<(Seq, Digest)> {
        self.epochs.get(&epoch).map(|list| (list.base_seq, list.base_chain))
    }
    /// Every epoch.
    pub(super) fn epochs(&self) -> impl Iterator<Item = Epoch> {
        self.epochs.keys().copied()
    }
    /// The entries of one epoch after its base, in order.
    pub(super) fn entries(&self, epoch: Epoch) -> impl Iterator<Item = &[u8]> {
        let entries = self.epochs.get(&epoch).map(|list| list.entries.as_slice()).unwrap_or_default();
        entries.iter().map(|(bytes, _)| bytes.as_slice())
    }
    /// Drops the entries at or before `base`, where the chain value is `chain`. A base beyond the last entry drops all.
    pub(super) fn rebase(&mut self, epoch: Epoch, base: Seq, chain: Digest) {
        let Some(list) = self.epochs.get_mut(&epoch).filter(|list| base > list.base_seq) else { return };
        let over = list.index_after(base).min(list.entries.len());
        list.entries.drain(..over);
        (list.base_seq, list.base_chain) = (base, chain);
        self.heads.clear();
    }
    fn durable_end(&self, epoch: Epoch, list: &EpochList) -> Seq {
        match epoch.cmp(&self.durable.epoch) {
            std::cmp::Ordering::Less => list.last(),
            std::cmp::Ordering::Equal => self.durable.seq.min(list.last()),
            std::cmp::Ordering::Greater => list.base_seq,
        }
    }
    /// Where reading goes on after `since`: at its place if that is one, else at the start of each epoch.
    /// A place behind the base is none; then it goes on at the base.
    fn resume_at(&self, since: Cursor) -> Cursor {
        let Some(list) = self.epochs.get(&since.epoch) else { return Cursor::default() };
        if since.seq > self.durable_end(since.epoch, list) {
            return Cursor::default();
        }
        Cursor { seq: since.seq.max(list.base_seq), ..since }
    }
    /// What stands after `since`, as far as it is durable and one page goes. Empty when nothing is new.
    pub(super) fn page(&mut self, since: Cursor, key: &PeerKey) -> Page {
        let since = self.resume_at(since);
        let (mut page, mut heads) = (Page::default(), Vec::new());
        let (mut entries_left, mut bytes_left) = (PAGE_ENTRIES_MAX, PAGE_BYTES);
        for (epoch, list) in self.epochs.range(since.epoch..) {
            let after = if *epoch == since.epoch { since.seq } else { list.base_seq };
            let end = self.durable_end(*epoch, list);
            let (start, stop) = (list.index_after(after), list.index_after(end));
            let mut taken = Vec::new();
            for (bytes, _) in list.entries.get(start..stop).unwrap_or_default() {
                if entries_left == 0 || bytes_left == 0 {
                    page.more = true;
                    break;
                }
                entries_left -= 1;
                bytes_left = bytes_left.saturating_sub(bytes.len());
                taken.push(bytes.clone());
            }
            if !taken.is_empty() {
                let last = start + taken.len() - 1;
                let chain = list.entries.get(last).map_or(list.base_chain, |(_, chain)| *chain);
                let seq = Seq(list.base_seq.0 + u64::try_from(last + 1).unwrap_or(u64::MAX));
                let at = Cursor { epoch: *epoch, seq };
                let (base_seq, base_chain) = (list.base_seq, list.base_chain);
                heads.push(Head { owner: self.owner, at, chain, base_seq, base_chain });
                page.runs.push(Run { entries: taken, after, head: ByteBuf::new(), base: None });
            }
            if page.more {
                break;
            }
        }
        for (run, head) in page.runs.iter_mut().zip(heads) {
            run.head = self.signed_head(head, key);
        }
        page
    }
    fn signed_head(&mut self, head: Head, key: &PeerKey) -> ByteBuf {
        if let Some(kept) = self.heads.get(&head.at) {
            return kept.clone();
        }
        let at = head.at;
        let signed = ByteBuf::from(key.sign(head).as_bytes());
        if self.heads.len() >= HEADS_KEPT {
            self.heads.pop_first();
        }
        self.heads.insert(at, signed.clone());
        signed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PeerKey {
        PeerKey::from_seed(&[5; 32])
    }
    fn entry(list: &Msglist, n: usize) -> Vec<u8> {
        list.next_entry(EntryBody::Unknown { kind: "test".to_owned(), body: vec![7; n] }).1
    }
    fn with_entries(counts: &[(u64, usize)], bytes: usize) -> Msglist {
        let mut list = Msglist::new(key().peer_id());
        for (epoch, count) in counts {
            list.open(Epoch(*epoch));
            for _ in 0..*count {
                let entry = entry(&list, bytes);
                list.append(&entry);
            }
        }
        list.mark_durable(list.head());
        list
    }
    /// Reads to the end as a member does, checking every run.
    fn read_all(list: &mut Msglist) -> (usize, usize) {
        let owner = key().peer_id();
        let (mut since, mut chains, mut entries, mut pages) = (Cursor::default(), BTreeMap::new(), 0, 0);
        loop {
            let page = list.page(since, &key());
            pages += 1;
            for run in &page.runs {
                let known = chains.get(&(since.epoch, run.after)).copied();
                let verified = run.verify(&owner, known.as_ref()).unwrap();
                entries += verified.entries.len();
                since = verified.head.at;
                chains.insert((since.epoch, since.seq), verified.head.chain);
            }
            if !page.more {
                return (entries, pages);
            }
        }
    }

    #[test]
    fn pages_verify_across_epochs_and_bounds() {
        assert_eq!(read_all(&mut with_entries(&[(10, 2500), (20, 3), (30, 0)], 10)), (2503, 3));
        let (entries, pages) = read_all(&mut with_entries(&[(10, 30)], 100_000));
        assert!(entries == 30 && pages > 2, "{pages} pages");
    }

    #[test]
    fn a_page_never_goes_past_what_is_durable() {
        let mut list = with_entries(&[(10, 2)], 10);
        let third = entry(&list, 10);
        list.append(&third);
        let page = list.page(Cursor { epoch: Epoch(10), seq: Seq(1) }, &key());
        assert_eq!((page.runs.len(), page.runs[0].entries.len()), (1, 1));
        assert!(list.page(Cursor { epoch: Epoch(10), seq: Seq(2) }, &key()).runs.is_empty());
        assert!(list.mark_durable(list.head()));
        assert_eq!(list.page(Cursor { epoch: Epoch(10), seq: Seq(2) }, &key()).runs[0].entries[0], third);
    }

    #[test]
    fn what_lies_behind_the_base_is_not_given_and_the_rest_verifies_from_it() {
        let mut list = with_entries(&[(10, 5)], 10);
        let cursor = |seq| Cursor { epoch: Epoch(10), seq: Seq(seq) };
        assert_eq!(list.page(Cursor::default(), &key()).runs.len(), 1, "its head is kept");
        let chain = list.chain_at(cursor(3)).unwrap();
        list.rebase(Epoch(10), Seq(3), chain);
        assert_eq!((list.head(), list.base(Epoch(10))), (cursor(5), Some((Seq(3), chain))));
        for behind in [Cursor::default(), cursor(1), cursor(3)] {
            let page = list.page(behind, &key());
            let run = page.runs[0].verify(&key().peer_id(), None).unwrap();
            assert_eq!((run.after, run.entries.len(), run.head.base_seq), (Seq(3), 2, Seq(3)));
        }
        assert!(list.page(cursor(5), &key()).runs.is_empty());
        assert_eq!((list.entry(cursor(3)), list.entry(cursor(4)).is_some()), (None, true));
    }

    #[test]
    fn an_unknown_epoch_or_a_position_ahead_is_answered_from_the_start_of_each() {
        let mut list = with_entries(&[(10, 2), (20, 1)], 10);
        for odd in [Cursor { epoch: Epoch(15), seq: Seq(1) }, Cursor { epoch: Epoch(20), seq: Seq(9) }] {
            let page = list.page(odd, &key());
            assert_eq!(page.runs.iter().map(|r| r.entries.len()).collect::<Vec<_>>(), [2, 1]);
        }
        let page = list.page(Cursor { epoch: Epoch(10), seq: Seq(2) }, &key());
        assert_eq!(page.runs.len(), 1);
    }
}
