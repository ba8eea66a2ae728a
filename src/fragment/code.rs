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
/// Most choices of k blocks for which one code keeps the coefficients ready. A fetch meets a few of them over and over.
const SOLUTIONS_MAX: usize = 64;
/// Bytes of each block that are worked on at a time: this much of k blocks and of what is made of them stays in the first-level
/// cache.
const STRIP: usize = 4 * 1024;

/// For every block of a stripe, the coefficients by which it follows from k chosen ones.
type Solution = Vec<Vec<u8>>;

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
    /// By the chosen indices, a bit each.
    solutions: Mutex<BTreeMap<u128, Arc<Solution>>>,
}

/// Makes each of `out` of `blocks`, by one row of coefficients each. All have one length.
fn combine<B: AsRef<[u8]>, P: AsMut<[u8]>>(rows: &[&[u8]], blocks: &[B], out: &mut [P]) {
    let len = blocks.first().map_or(0, |block| block.as_ref().len());
    for from in (0..len).step_by(STRIP) {
        let strip = from..len.min(from + STRIP);
        for (j, block) in blocks.iter().enumerate() {
            let block = &block.as_ref()[strip.clone()];
            for (row, out) in rows.iter().zip(out.iter_mut()) {
                let out = &mut out.as_mut()[strip.clone()];
                match j {
                    0 => mul_slice(row[j], block, out),
                    _ => mul_slice_xor(row[j], block, out),
                }
            }
        }
    }
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
            return Ok(Self { k, n, rs: None, rows: Vec::new(), solutions: Mutex::default() });
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
        Ok(Self { k, n, rs: Some(rs), rows, solutions: Mutex::default() })
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
        self.encode_into(data, &mut parity)?;
        Ok(parity)
    }

    /// As [`Code::encode`], into n - k buffers of the blocks' length; allocates nothing that is worth a word.
    ///
    /// # Errors
    /// [`FragmentError::Blocks`] when there are not k blocks and n - k buffers, all of one length.
    pub fn encode_into<B: AsRef<[u8]>, P: AsMut<[u8]>>(
        &self,
        data: &[B],
        parity: &mut [P],
    ) -> Result<(), FragmentError> {
        let len = self.check_data(data)?;
        self.check_room(parity, usize::from(self.n - self.k), len)?;
        let rows: Vec<&[u8]> = self.rows.iter().map(Vec::as_slice).collect();
        combine(&rows, data, parity);
        Ok(())
    }

    fn check_room<P: AsMut<[u8]>>(&self, out: &mut [P], count: usize, len: usize) -> Result<(), FragmentError> {
        if out.len() != count || out.iter_mut().any(|buffer| buffer.as_mut().len() != len) {
            return Err(FragmentError::Blocks { found: out.len(), needed: count });
        }
        Ok(())
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
        combine(&[row], data, &mut [&mut out]);
        Ok(out)
    }

    /// All k data blocks of a stripe, as padded and in order, from any k of its blocks, each with its index. More than k are
    /// welcome; data blocks are used first. What goes in must have been verified: a wrong block makes all that is rebuilt wrong.
    ///
    /// # Errors
    /// [`FragmentError::Blocks`] when fewer than k distinct blocks of one length are given, or an index is not below n.
    pub fn rebuild<B: AsRef<[u8]>>(&self, have: &[(u8, B)]) -> Result<Vec<Vec<u8>>, FragmentError> {
        let len = have.first().map_or(0, |(_, b)| b.as_ref().len());
        let wanted: Vec<u8> = (0..self.k).collect();
        let mut out = vec![vec![0u8; len]; wanted.len()];
        self.rebuild_into(have, &wanted, &mut out)?;
        Ok(out)
    }

    /// Block `i` of a stripe from any k of its blocks: what a member needs that rebuilds a lost fragment.
    ///
    /// # Errors
    /// As [`Code::rebuild`] and [`Code::block`].
    pub fn rebuild_block<B: AsRef<[u8]>>(&self, have: &[(u8, B)], i: u8) -> Result<Vec<u8>, FragmentError> {
        let len = have.first().map_or(0, |(_, b)| b.as_ref().len());
        let mut out = vec![0u8; len];
        self.rebuild_into(have, &[i], &mut [&mut out])?;
        Ok(out)
    }

    /// The blocks `wanted` of a stripe from any k of its blocks, into as many buffers of their length. What is among `have` is
    /// copied; all else costs one row each, data or parity. As with [`Code::rebuild`], `have` must have been verified.
    ///
    /// # Errors
    /// [`FragmentError::Blocks`] when fewer than k distinct blocks of one length are given, an index of them is not below n, or
    /// the buffers do not fit; [`FragmentError::NoSuchBlock`] when one is wanted that the code does not have.
    pub fn rebuild_into<B: AsRef<[u8]>, P: AsMut<[u8]>>(
        &self,
        have: &[(u8, B)],
        wanted: &[u8],
        out: &mut [P],
    ) -> Result<(), FragmentError> {
        let (needed, n) = (usize::from(self.k), usize::from(self.n));
        let len = have.first().map_or(0, |(_, b)| b.as_ref().len());
        let mut slots: Vec<Option<&[u8]>> = vec![None; n];
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
        self.check_room(out, wanted.len(), len)?;
        let chosen: Vec<(usize, &[u8])> =
            slots.iter().enumerate().filter_map(|(i, slot)| Some((i, (*slot)?))).take(needed).collect();
        let solution = self.solution(&chosen)?;
        let blocks: Vec<&[u8]> = chosen.iter().map(|(_, block)| *block).collect();
        let (mut rows, mut made): (Vec<&[u8]>, Vec<&mut [u8]>) = (Vec::new(), Vec::new());
        for (i, buffer) in wanted.iter().zip(out) {
            match (slots.get(usize::from(*i)), solution.get(usize::from(*i))) {
                (Some(Some(block)), _) => buffer.as_mut().copy_from_slice(block),
                (Some(None), Some(row)) => {
                    rows.push(row);
                    made.push(buffer.as_mut());
                }
                _ => return Err(FragmentError::NoSuchBlock { stripe: 0, i: *i }),
            }
        }
        combine(&rows, &blocks, &mut made);
        Ok(())
    }

    /// How every block follows from the chosen ones. Made once for a choice: the unit vectors, rebuilt as if they were blocks.
    fn solution(&self, chosen: &[(usize, &[u8])]) -> Result<Arc<Solution>, FragmentError> {
        let key = chosen.iter().fold(0u128, |key, (i, _)| key | 1 << i);
        let mut solutions = self.solutions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(solution) = solutions.get(&key) {
            return Ok(solution.clone());
        }
        let mut units: Vec<Option<Vec<u8>>> = vec![None; usize::from(self.n)];
        for (j, (i, _)) in chosen.iter().enumerate() {
            let mut unit = vec![0u8; chosen.len()];
            unit[j] = 1;
            units[*i] = Some(unit);
        }
        if let Some(rs) = &self.rs {
            rs.reconstruct(&mut units).map_err(|e| self.failed(e))?;
        }
        let solution: Arc<Solution> = Arc::new(units.into_iter().map(Option::unwrap_or_default).collect());
        if solutions.len() >= SOLUTIONS_MAX {
            solutions.pop_first();
        }
        solutions.insert(key, solution.clone());
        Ok(solution)
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

    #[test]
    fn many_choices_of_blocks_are_kept_within_bounds() {
        let code = Code::new(4, 12).unwrap();
        let blocks = stripe(&code, 10);
        for choice in (0..1u32 << 12).filter(|choice| choice.count_ones() == 4) {
            let have: Vec<_> = blocks.iter().filter(|(i, _)| choice >> i & 1 == 1).cloned().collect();
            assert_eq!(code.rebuild_block(&have, 0).unwrap(), blocks[0].1);
        }
        assert_eq!(code.solutions.lock().unwrap().len(), SOLUTIONS_MAX);
    }

    #[test]
    fn any_choice_of_k_blocks_rebuilds_all_n() {
        for (k, n) in (1u8..=8).flat_map(|n| (1..=n).map(move |k| (k, n))) {
            let code = Code::new(k, n).unwrap();
            let blocks = stripe(&code, 5);
            for choice in (0..1u32 << n).filter(|choice| choice.count_ones() == u32::from(k)) {
                let have: Vec<_> = blocks.iter().filter(|(i, _)| choice >> i & 1 == 1).cloned().collect();
                assert_eq!(code.rebuild(&have).unwrap(), data(k, 5), "{k} of {n}, choice {choice:b}");
                for (i, block) in &blocks {
                    assert_eq!(code.rebuild_block(&have, *i).unwrap(), *block, "{k} of {n}, choice {choice:b}");
                }
            }
        }
    }

    #[test]
    fn buffers_that_do_not_fit_are_refused() {
        let code = Code::new(2, 4).unwrap();
        let b = stripe(&code, 10);
        let room = |count, len| vec![vec![0u8; len]; count];
        assert!(code.encode_into(&data(2, 10), &mut room(1, 10)).is_err());
        assert!(code.encode_into(&data(2, 10), &mut room(2, 9)).is_err());
        assert!(code.rebuild_into(&b[1..3], &[0], &mut room(2, 10)).is_err());
        assert!(code.rebuild_into(&b[1..3], &[0], &mut room(1, 11)).is_err());
        assert!(matches!(code.rebuild_block(&b[1..3], 4), Err(FragmentError::NoSuchBlock { .. })));
    }

    #[test]
    fn blocks_longer_than_a_strip_are_coded_as_the_library_codes_them() {
        let code = Code::new(3, 5).unwrap();
        for len in [STRIP - 1, STRIP, STRIP + 1, 65_536, 3 * STRIP + 7] {
            let data = data(3, len);
            let mut raw = vec![vec![0u8; len]; 2];
            ReedSolomon::new(3, 2).unwrap().encode_sep(&data, &mut raw).unwrap();
            assert_eq!(code.encode(&data).unwrap(), raw);
            let have = [(1, &data[1]), (3, &raw[0]), (4, &raw[1])];
            assert_eq!(code.rebuild(&have).unwrap(), data);
        }
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
