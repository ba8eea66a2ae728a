//! Reed-Solomon over one stripe: parity from data, data from any k blocks, any single block from data. Never sees a file.
//!
//! The matrix is Vandermonde times the inverse of its top k rows (systematic). Row i follows from k and i alone, so fragment
//! (k, i) is the same whatever n is: a group may raise or lower n without moving what its members hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reed_solomon_erasure::galois_8::{ReedSolomon, mul_slice, mul_slice_xor};

use super::FragmentError;
use crate::model::policy::MEMBERS_MAX;

/// Most codes kept ready. A group has one policy and mails of a few earlier ones.
const CODES_MAX: usize = 16;

type Codes = BTreeMap<(u8, u8), Arc<Code>>;

/// The codes in use, each made once. Cheap to clone and to share.
#[derive(Clone, Default)]
pub struct Codec(Arc<Mutex<Codes>>);

impl Codec {
    /// The code of which any `k` of `n` blocks rebuild a stripe.
    ///
    /// # Errors
    /// [`FragmentError::KOfN`] when there is none.
    pub fn code(&self, k: u8, n: u8) -> Result<Arc<Code>, FragmentError> {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = codes.get(&(k, n)) {
            return Ok(code.clone());
        }
        let code = Arc::new(Code::new(k, n)?);
        if codes.len() >= CODES_MAX {
            codes.pop_first();
        }
        codes.insert((k, n), code.clone());
        Ok(code)
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}

/// One code: any k of n.
pub struct Code {
    k: u8,
    n: u8,
    /// None when n = k: there is no parity, and the crate knows no such code.
    rs: Option<ReedSolomon>,
    /// Coefficients of the rows k..n.
    rows: Vec<Vec<u8>>,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code(any {} of {})", self.k, self.n)
    }
}

impl Code {
    /// The code of which any `k` of `n` blocks rebuild a stripe. [`Codec`] keeps them.
    ///
    /// # Errors
    /// [`FragmentError::KOfN`] when there is none.
    pub fn new(k: u8, n: u8) -> Result<Self, FragmentError> {
        if k == 0 || k > n || n > MEMBERS_MAX {
            return Err(FragmentError::KOfN { k, n });
        }
        if k == n {
            return Ok(Self { k, n, rs: None, rows: Vec::new() });
        }
        let failed = |e: reed_solomon_erasure::Error| FragmentError::Code { k, n, why: e.to_string() };
        let rs = ReedSolomon::new(usize::from(k), usize::from(n - k)).map_err(failed)?;
        // What the identity encodes to is the matrix itself, transposed into rows.
        let mut unit = vec![vec![0u8; usize::from(k)]; usize::from(k)];
        for (j, row) in unit.iter_mut().enumerate() {
            row[j] = 1;
        }
        let mut rows = vec![vec![0u8; usize::from(k)]; usize::from(n - k)];
        rs.encode_sep(&unit, &mut rows).map_err(failed)?;
        Ok(Self { k, n, rs: Some(rs), rows })
    }
    /// Blocks that rebuild a stripe.
    pub fn k(&self) -> u8 {
        self.k
    }
    /// Blocks of a stripe in all.
    pub fn n(&self) -> u8 {
        self.n
    }

    fn failed(&self, e: reed_solomon_erasure::Error) -> FragmentError {
        FragmentError::Code { k: self.k, n: self.n, why: e.to_string() }
    }

    fn check_data<B: AsRef<[u8]>>(&self, data: &[B]) -> Result<usize, FragmentError> {
        let len = data.first().map_or(0, |b| b.as_ref().len());
        if data.len() != usize::from(self.k) || data.iter().any(|b| b.as_ref().len() != len) {
            return Err(FragmentError::Blocks { found: data.len(), needed: usize::from(self.k) });
        }
        Ok(len)
    }

    /// The n - k parity blocks of a stripe, from its k data blocks as padded.
    ///
    /// # Errors
    /// [`FragmentError::Blocks`] when there are not k blocks of one length.
    pub fn encode<B: AsRef<[u8]>>(&self, data: &[B]) -> Result<Vec<Vec<u8>>, FragmentError> {
        let len = self.check_data(data)?;
        let mut parity = vec![vec![0u8; len]; usize::from(self.n - self.k)];
        if let (Some(rs), true) = (&self.rs, len > 0) {
            rs.encode_sep(data, &mut parity).map_err(|e| self.failed(e))?;
        }
        Ok(parity)
    }

    /// Block `i` of a stripe, from its k data blocks as padded. Costs one row, not n - k.
    ///
    /// # Errors
    /// [`FragmentError`] when there are not k blocks of one length, or no block `i`.
    pub fn block<B: AsRef<[u8]>>(&self, data: &[B], i: u8) -> Result<Vec<u8>, FragmentError> {
        let len = self.check_data(data)?;
        if let Some(block) = data.get(usize::from(i)) {
            return Ok(block.as_ref().to_vec());
        }
        let row = self.rows.get(usize::from(i - self.k)).ok_or(FragmentError::NoSuchBlock { stripe: 0, i })?;
        let mut out = vec![0u8; len];
        for (j, (factor, block)) in row.iter().zip(data).enumerate() {
            match j {
                0 => mul_slice(*factor, block.as_ref(), &mut out),
                _ => mul_slice_xor(*factor, block.as_ref(), &mut out),
            }
        }
        Ok(out)
    }

    /// All k data blocks of a stripe, as padded and in order, from any k of its blocks, each with its index. More than k are
    /// welcome; data blocks are used first. What goes in must have been verified: a wrong block makes all that is rebuilt wrong.
    ///
    /// # Errors
    /// [`FragmentError::Blocks`] when fewer than k distinct blocks of one length are given, or an index is not below n.
    pub fn rebuild<B: AsRef<[u8]>>(&self, have: &[(u8, B)]) -> Result<Vec<Vec<u8>>, FragmentError> {
        let needed = usize::from(self.k);
        let len = have.first().map_or(0, |(_, b)| b.as_ref().len());
        let mut slots: Vec<Option<&[u8]>> = vec![None; usize::from(self.n)];
        let mut usable = true;
        for (i, block) in have {
            match slots.get_mut(usize::from(*i)) {
                Some(slot) if block.as_ref().len() == len => *slot = Some(block.as_ref()),
                _ => usable = false,
            }
        }
        let found = slots.iter().flatten().count();
        if !usable || found < needed {
            return Err(FragmentError::Blocks { found, needed });
        }
        let complete = slots.iter().take(needed).all(Option::is_some);
        let mut left = needed;
        let mut shards: Vec<Option<Vec<u8>>> = slots
            .into_iter()
            .map(|slot| {
                let block = slot.filter(|_| left > 0)?;
                left -= 1;
                Some(block.to_vec())
            })
            .collect();
        if let (Some(rs), false, true) = (&self.rs, complete, len > 0) {
            rs.reconstruct_data(&mut shards).map_err(|e| self.failed(e))?;
        }
        shards.truncate(needed);
        Ok(shards.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Block `i` of a stripe from any k of its blocks: what a member needs that rebuilds a lost fragment.
    ///
    /// # Errors
    /// As [`Code::rebuild`] and [`Code::block`].
    pub fn rebuild_block<B: AsRef<[u8]>>(&self, have: &[(u8, B)], i: u8) -> Result<Vec<u8>, FragmentError> {
        if let Some((_, block)) = have.iter().find(|(at, _)| *at == i) {
            return Ok(block.as_ref().to_vec());
        }
        self.block(&self.rebuild(have)?, i)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;

    fn data(k: u8, len: usize) -> Vec<Vec<u8>> {
        let byte = |j: usize, x: usize| u8::try_from((j * 131 + x * 31 + x / 7 + 5) % 251).unwrap();
        (0..usize::from(k)).map(|j| (0..len).map(|x| byte(j, x)).collect()).collect()
    }

    fn stripe(code: &Code, len: usize) -> Vec<(u8, Vec<u8>)> {
        let data = data(code.k(), len);
        let parity = code.encode(&data).unwrap();
        (0..code.n()).zip(data.into_iter().chain(parity)).collect()
    }

    #[test]
    fn any_k_of_n_rebuild_the_stripe() {
        let codec = Codec::default();
        for n in 1..=8u8 {
            for k in 1..=n {
                let code = codec.code(k, n).unwrap();
                let blocks = stripe(&code, 33);
                for choice in 0..1u32 << n {
                    if choice.count_ones() != u32::from(k) {
                        continue;
                    }
                    let have: Vec<_> = blocks.iter().filter(|(i, _)| choice >> i & 1 == 1).cloned().collect();
                    assert_eq!(code.rebuild(&have).unwrap(), data(k, 33), "{k} of {n}: {choice:b}");
                    for (i, block) in &blocks {
                        assert_eq!(code.rebuild_block(&have, *i).unwrap(), *block);
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_n() {
        for (k, n) in [(1, 2), (2, 3), (3, 5), (5, 9), (10, 20), (40, 60)] {
            let (small, large) = (Code::new(k, n).unwrap(), Code::new(k, n + 2).unwrap());
            let all = Code::new(k, MEMBERS_MAX).unwrap();
            let data = data(k, 100);
            assert_eq!(small.encode(&data).unwrap(), large.encode(&data).unwrap()[..usize::from(n - k)]);
            for i in 0..n {
                assert_eq!(small.block(&data, i).unwrap(), all.block(&data, i).unwrap());
            }
        }
    }

    #[test]
    fn one_of_n_is_replication_and_n_of_n_has_no_parity() {
        let one = Code::new(1, 4).unwrap();
        assert!(stripe(&one, 50).iter().all(|(_, b)| *b == data(1, 50)[0]));
        let all = Code::new(4, 4).unwrap();
        assert!(all.encode(&data(4, 50)).unwrap().is_empty());
        assert!(all.block(&data(4, 50), 4).is_err());
        assert_eq!(Code::new(1, 1).unwrap().rebuild(&[(0, vec![7; 3])]).unwrap(), [vec![7; 3]]);
    }

    #[test]
    fn too_few_blocks_or_odd_ones_are_refused() {
        let code = Code::new(2, 4).unwrap();
        let b = stripe(&code, 10);
        let bad = |have: &[(u8, Vec<u8>)]| matches!(code.rebuild(have), Err(FragmentError::Blocks { .. }));
        assert!(bad(&[]) && bad(&b[..1]) && bad(&[b[0].clone(), b[0].clone()]));
        assert!(bad(&[b[0].clone(), (3, vec![0; 9])]) && bad(&[b[0].clone(), (4, vec![0; 10]), b[1].clone()]));
        assert!(code.encode(&data(3, 10)).is_err() && code.encode(&[vec![1], vec![1, 2]]).is_err());
        assert!(Code::new(0, 3).is_err() && Code::new(4, 3).is_err() && Code::new(1, 101).is_err());
    }

    #[test]
    fn the_codec_keeps_a_bounded_number_of_codes() {
        let codec = Codec::default();
        for n in 1..=40 {
            codec.code(1, n).unwrap();
        }
        assert_eq!(codec.0.lock().unwrap().len(), CODES_MAX);
    }

    proptest! {
        #[test]
        fn any_random_k_of_n_rebuild_the_stripe(
            (k, n) in (1u8..=100).prop_flat_map(|n| (1..=n, proptest::strategy::Just(n))),
            order in proptest::collection::vec(any::<u32>(), 100),
            len in 1usize..200,
        ) {
            let code = Code::new(k, n).unwrap();
            let mut have = stripe(&code, len);
            have.sort_by_key(|(i, _)| order[usize::from(*i)]);
            have.truncate(usize::from(k));
            prop_assert_eq!(code.rebuild(&have).unwrap(), data(k, len));
        }
    }
}
