//! Huffman codes as deflate has them (RFC 1951 section 3.2), and the bits they are written with. It knows no block.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How long each symbol's code is, at most `most` bits; 0 for one that is not there. At least two symbols are there, or none is coded.
pub(super) fn code_lengths(counts: &[u32], most: u8) -> Vec<u8> {
    let mut counts = counts.to_vec();
    loop {
        let lengths = unbounded_lengths(&counts);
        if lengths.iter().all(|length| *length <= most) {
            return lengths;
        }
        // Counts that are nearer to each other need shorter codes at most; when each is 1 or 2, they have 10 bits or fewer.
        counts.iter_mut().filter(|count| **count > 0).for_each(|count| *count = *count / 2 + 1);
    }
}

fn unbounded_lengths(counts: &[u32]) -> Vec<u8> {
    let mut lengths = vec![0; counts.len()];
    let present = (0..counts.len()).filter(|symbol| counts[*symbol] > 0);
    let mut heap: BinaryHeap<Reverse<(u32, usize)>> = present.map(|symbol| Reverse((counts[symbol], symbol))).collect();
    if let (1, Some(Reverse((_, only)))) = (heap.len(), heap.peek()) {
        lengths[*only] = 1;
        return lengths;
    }
    // The parent of each symbol, and of each pair: those are numbered behind the symbols.
    let mut parents = vec![0; counts.len()];
    while let (Some(Reverse((least, one))), Some(Reverse((second, other)))) = (heap.pop(), heap.pop()) {
        let pair = parents.len();
        parents.push(pair);
        (parents[one], parents[other]) = (pair, pair);
        heap.push(Reverse((least + second, pair)));
        if heap.len() == 1 {
            break;
        }
    }
    let root = parents.len() - 1;
    let mut depths = vec![0_u8; parents.len()];
    for node in (0..root).rev() {
        let is_there = node >= counts.len() || counts[node] > 0;
        if is_there {
            depths[node] = depths[parents[node]].saturating_add(1);
        }
    }
    lengths.copy_from_slice(&depths[..counts.len()]);
    lengths
}

/// Each symbol's code, as its bits are written: the first one lowest.
pub(super) struct Code {
    codes: Vec<(u64, u32)>,
    longest: u32,
}

impl Code {
    /// The code that these lengths stand for.
    pub(super) fn new(lengths: &[u8]) -> Self {
        let longest = lengths.iter().copied().max().map_or(0, u32::from);
        let mut codes = vec![(0, 0); lengths.len()];
        let mut next = 0_u64;
        for bits in 1..=longest {
            next <<= 1;
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, length)| u32::from(**length) == bits) {
                codes[symbol] = (next.reverse_bits() >> (64 - bits), bits);
                next += 1;
            }
        }
        Self { codes, longest }
    }
}

/// Bits, put together to bytes.
#[derive(Default)]
pub(super) struct BitWriter {
    /// Whole bytes; what is behind `end` is room.
    bytes: Vec<u8>,
    end: usize,
    /// Fewer than eight bits that follow.
    last: u64,
    held: u32,
}

impl BitWriter {
    /// The bytes that are whole.
    pub(super) fn whole_bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
    /// They were taken.
    pub(super) fn drop_whole_bytes(&mut self) {
        self.end = 0;
    }
    /// The lowest bits of `value`, 56 at most.
    pub(super) fn put(&mut self, value: u64, bits: u32) {
        self.make_room(8);
        self.last |= value << self.held;
        self.held += bits;
        self.settle();
    }
    /// Zeros, up to a whole byte.
    pub(super) fn pad(&mut self) {
        self.put(0, (8 - self.held) % 8);
    }
    /// Bytes; a whole byte must have ended.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
    /// One symbol.
    pub(super) fn put_symbol(&mut self, code: &Code, symbol: usize) {
        let (value, bits) = code.codes[symbol];
        self.put(value, bits);
    }
    /// A symbol for each byte.
    pub(super) fn put_all(&mut self, code: &Code, symbols: &[u8]) {
        let Some((codes, _)) = code.codes.split_first_chunk::<256>() else { return };
        // So many fit in beside the seven that may be held.
        let together = usize::try_from(56 / code.longest.max(1)).unwrap_or(1).max(1);
        self.make_room(symbols.len() * 2 + 8);
        for some in symbols.chunks(together) {
            for symbol in some {
                let (value, bits) = codes[usize::from(*symbol)];
                self.last |= value << self.held;
                self.held += bits;
            }
            self.settle();
        }
    }

    fn make_room(&mut self, more: usize) {
        let needed = self.end + more + 8;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
    }

    /// Moves whole bytes out; there must be room for eight.
    fn settle(&mut self) {
        if let Some(room) = self.bytes[self.end..].first_chunk_mut::<8>() {
            *room = self.last.to_le_bytes();
        }
        let whole = self.held / 8;
        self.end += usize::try_from(whole).unwrap_or_default();
        self.last = if whole == 8 { 0 } else { self.last >> (whole * 8) };
        self.held %= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rfc1951_lengths_make_a_full_code_within_the_bound_and_the_frequent_is_never_longer(
            counts in proptest::collection::vec(0..5000_u32, 2..257), steep in any::<bool>()
        ) {
            let mut counts = counts;
            if steep {
                counts.iter_mut().enumerate().for_each(|(i, count)| *count = 1 << (i % 24));
            }
            counts[0] = counts[0].max(1);
            counts[1] = counts[1].max(1);
            let lengths = code_lengths(&counts, 15);
            let full: u64 = lengths.iter().filter(|length| **length > 0).map(|length| 1 << (15 - length)).sum();
            prop_assert_eq!(full, 1 << 15);
            let is_brought = unbounded_lengths(&counts).iter().any(|length| *length > 15);
            for (i, count) in counts.iter().enumerate() {
                prop_assert_eq!(*count > 0, lengths[i] > 0);
                prop_assert!(lengths[i] <= 15);
                // Where the bound was met, counts were brought nearer to each other.
                prop_assert!(is_brought || counts.iter().zip(&lengths).all(|(other, len)| other <= count || lengths[i] == 0 || *len <= lengths[i]));
            }
        }

        #[test]
        fn bits_are_put_together_lowest_first(values in proptest::collection::vec((any::<u64>(), 0..57_u32), 0..100)) {
            let (mut writer, mut expected) = (BitWriter::default(), Vec::new());
            for (value, bits) in values {
                let value = value & ((1 << bits) - 1);
                writer.put(value, bits);
                expected.extend((0..bits).map(|bit| value >> bit & 1 == 1));
            }
            writer.pad();
            let found: Vec<bool> =
                writer.whole_bytes().iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
            prop_assert!(found.len() - expected.len() < 8);
            prop_assert!(found[expected.len()..].iter().all(|bit| !bit));
            prop_assert_eq!(&found[..expected.len()], &expected[..]);
        }
    }
}
