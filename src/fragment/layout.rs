//! The geometry of one encoding of one sealed mail: which bytes are which block. Pure arithmetic, never a byte of content.
//!
//! ```text
//!              fragment 0   fragment 1   fragment 2 | fragment 3   fragment 4        k = 3, n = 5
//! stripe 0     block 0      block 1      block 2    | parity 3     parity 4          64 KiB each
//! stripe 1     block 0      block 1      block 2    | parity 3     parity 4          64 KiB each
//! last stripe  block 0      block 1      block 2 00 | parity 3     parity 4          ceil(rest / k) each, padded with zeros
//! ```

use std::ops::Range;

use super::FragmentError;
use crate::model::Encoding;
use crate::model::manifest::BLOCK_BYTES;
use crate::model::policy::MEMBERS_MAX;

/// Longest sealed mail that is cut in stripes, bytes. Far above any `max_mail`, and small enough that no product overflows.
pub const LENGTH_MAX: u64 = 1 << 40;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Which bytes of a sealed mail, and of its fragments, are which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    length: u64,
    k: u8,
    n: u8,
}

impl Layout {
    /// The layout of a sealed mail of `length` bytes; `Whole` counts as k = n = 1.
    ///
    /// # Errors
    /// [`FragmentError::KOfN`] or [`FragmentError::TooLong`] when there is none.
    pub fn new(length: u64, encoding: Encoding) -> Result<Self, FragmentError> {
        let (k, n) = match encoding {
            Encoding::Whole => (1, 1),
            Encoding::Fragments { k, n } => (k, n),
        };
        if k == 0 || k > n || n > MEMBERS_MAX {
            return Err(FragmentError::KOfN { k, n });
        }
        if length > LENGTH_MAX {
            return Err(FragmentError::TooLong { length, limit: LENGTH_MAX });
        }
        Ok(Self { length, k, n })
    }
    /// Length of the sealed mail, bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
    /// Blocks of a stripe that rebuild it.
    pub fn k(&self) -> u8 {
        self.k
    }
    /// Blocks of a stripe in all.
    pub fn n(&self) -> u8 {
        self.n
    }
    /// Bytes of the mail in a full stripe.
    pub fn stripe_bytes(&self) -> u64 {
        u64::from(self.k) * BLOCK
    }
    /// Stripes; zero for an empty mail.
    pub fn stripes(&self) -> u64 {
        self.length.div_ceil(self.stripe_bytes())
    }
    /// Blocks of all stripes together, parity included.
    pub fn blocks(&self) -> u64 {
        self.stripes() * u64::from(self.n)
    }
    /// Bytes of each block of a stripe; zero past the last stripe.
    pub fn block_len(&self, stripe: u64) -> u32 {
        let stripes = self.stripes();
        if stripe >= stripes {
            return 0;
        }
        if stripe + 1 < stripes {
            return BLOCK_BYTES;
        }
        let rest = self.length - stripe * self.stripe_bytes();
        // At most BLOCK_BYTES: the last stripe holds at most k full blocks.
        u32::try_from(rest.div_ceil(u64::from(self.k))).unwrap_or(BLOCK_BYTES)
    }
    /// Where the block of a stripe lies in a fragment's file; empty past the last stripe.
    pub fn block_range_in_fragment(&self, stripe: u64) -> Range<u64> {
        let start = stripe.min(self.stripes()) * BLOCK;
        let start = start.min(self.fragment_len());
        start..start + u64::from(self.block_len(stripe))
    }
    /// Where data block `i` of a stripe lies in the sealed mail, without its padding. Empty when it is all padding, when it is
    /// parity (`i >= k`), and past the last stripe.
    pub fn block_range_in_mail(&self, stripe: u64, i: u8) -> Range<u64> {
        if i >= self.k || stripe >= self.stripes() {
            return self.length..self.length;
        }
        let len = u64::from(self.block_len(stripe));
        let start = (stripe * self.stripe_bytes() + u64::from(i) * len).min(self.length);
        start..(start + len).min(self.length)
    }
    /// Bytes of the mail in a stripe: where they lie. Empty past the last stripe.
    pub fn stripe_range_in_mail(&self, stripe: u64) -> Range<u64> {
        let start = stripe.min(self.stripes()) * self.stripe_bytes();
        let start = start.min(self.length);
        start..(start + self.stripe_bytes()).min(self.length)
    }
    /// Bytes of a fragment's file.
    pub fn fragment_len(&self) -> u64 {
        match self.stripes().checked_sub(1) {
            None => 0,
            Some(last) => last * BLOCK + u64::from(self.block_len(last)),
        }
    }
    /// Which of the manifest's digests is that of block `i` of a stripe; none when there is no such block.
    pub fn digest_index(&self, stripe: u64, i: u8) -> Option<u64> {
        (stripe < self.stripes() && i < self.n).then(|| stripe * u64::from(self.n) + u64::from(i))
    }
    /// The stripe and data block that hold a byte of the sealed mail; none past its end.
    pub fn block_at(&self, offset: u64) -> Option<(u64, u8)> {
        if offset >= self.length {
            return None;
        }
        let stripe = offset / self.stripe_bytes();
        let inside = offset % self.stripe_bytes();
        let i = inside / u64::from(self.block_len(stripe)).max(1);
        u8::try_from(i).ok().map(|i| (stripe, i))
    }
    /// The stripes whose blocks a byte range of a fragment's file touches.
    pub fn stripes_in_fragment_range(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.fragment_len());
        if range.start >= end { 0..0 } else { range.start / BLOCK..end.div_ceil(BLOCK) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn layout(length: u64, k: u8, n: u8) -> Layout {
        Layout::new(length, Encoding::Fragments { k, n }).unwrap()
    }

    fn check_tiling(l: Layout) {
        let mut at = 0;
        for stripe in 0..l.stripes() {
            assert_eq!(l.stripe_range_in_mail(stripe).start, at);
            for i in 0..l.k() {
                let range = l.block_range_in_mail(stripe, i);
                assert!(range.is_empty() || range.start == at, "{l:?} {stripe} {i}");
                for offset in [range.start, range.end.saturating_sub(1)] {
                    assert!(range.is_empty() || l.block_at(offset) == Some((stripe, i)), "{l:?} {offset}");
                }
                assert!(range.end - range.start <= u64::from(l.block_len(stripe)));
                at = range.end.max(at);
            }
            assert_eq!(l.stripe_range_in_mail(stripe).end, at);
        }
        assert_eq!(at, l.length(), "{l:?}");
        let mut at = 0;
        for stripe in 0..l.stripes() {
            let range = l.block_range_in_fragment(stripe);
            assert_eq!(range.start, at);
            assert!(range.end > at);
            at = range.end;
        }
        assert_eq!(at, l.fragment_len());
        assert!(l.block_range_in_fragment(l.stripes()).is_empty());
        assert!(l.block_at(l.length()).is_none() && l.block_range_in_mail(l.stripes(), 0).is_empty());
    }

    #[test]
    fn blocks_tile_the_mail_at_every_awkward_length() {
        for (k, n) in [(1, 1), (1, 3), (2, 2), (3, 5), (7, 9), (100, 100)] {
            let stripe = u64::from(k) * BLOCK;
            for length in [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, stripe - 1, stripe, stripe + 1, 2 * stripe + 1] {
                check_tiling(layout(length, k, n));
            }
        }
    }

    #[test]
    fn an_empty_mail_has_no_stripe() {
        let l = layout(0, 3, 5);
        assert_eq!((l.stripes(), l.blocks(), l.fragment_len(), l.block_len(0)), (0, 0, 0, 0));
        assert_eq!(l.digest_index(0, 0), None);
    }

    #[test]
    fn the_last_stripe_is_as_short_as_it_can_be() {
        let l = layout(3 * BLOCK + 4, 3, 5);
        assert_eq!((l.stripes(), l.block_len(0), l.block_len(1)), (2, BLOCK_BYTES, 2));
        assert_eq!(l.block_range_in_mail(1, 1), 3 * BLOCK + 2..3 * BLOCK + 4);
        assert!(l.block_range_in_mail(1, 2).is_empty());
        assert_eq!((l.digest_index(1, 4), l.digest_index(1, 5), l.digest_index(2, 0)), (Some(9), None, None));
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for (k, n) in [(0, 1), (2, 1), (1, 101)] {
            assert!(matches!(Layout::new(1, Encoding::Fragments { k, n }), Err(FragmentError::KOfN { .. })));
        }
        assert!(matches!(Layout::new(LENGTH_MAX + 1, Encoding::Whole), Err(FragmentError::TooLong { .. })));
        assert_eq!(Layout::new(LENGTH_MAX, Encoding::Whole).unwrap().fragment_len(), LENGTH_MAX);
    }

    proptest! {
        #[test]
        fn blocks_tile_any_mail((k, n) in (1u8..=100).prop_flat_map(|n| (1..=n, proptest::strategy::Just(n))), length in 0u64..20_000_000) {
            check_tiling(layout(length, k, n));
        }

        #[test]
        fn a_range_of_a_fragment_touches_exactly_its_stripes(length in 1u64..5_000_000, a in 0u64..2_000_000, len in 1u64..300_000) {
            let l = layout(length, 3, 5);
            let stripes = l.stripes_in_fragment_range(a..a + len);
            for stripe in 0..l.stripes() {
                let block = l.block_range_in_fragment(stripe);
                let touches = block.start < a + len && a < block.end;
                prop_assert_eq!(touches, stripes.contains(&stripe));
            }
            prop_assert!(stripes.end <= l.stripes());
        }
    }
}
