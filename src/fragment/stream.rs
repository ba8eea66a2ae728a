//! Blocks out of and into files, stripe by stripe: fragments of a whole mail made on the fly, a mail put together from blocks
//! of any fragments, a held part checked. Never asks a peer, never keeps more than the stripes in flight.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use super::FragmentError;
use super::code::{Code, Codec};
use super::layout::Layout;
use super::manifest::{MailName, check_manifest, verify_block};
use crate::model::manifest::Manifest;
use crate::model::{Digest, Part};

/// Most bytes of parity that an [`Assembler`] keeps for stripes that are not complete. More than 300 stripes of 3 of 5.
pub const PARITY_BYTES_MAX: usize = 64 * 1024 * 1024;

fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Reads a range of a file, and pads it with zeros to `len`.
fn read_padded<R: Read + Seek>(file: &mut R, range: &Range<u64>, len: usize) -> io::Result<Vec<u8>> {
    let mut block = vec![0u8; len];
    if !range.is_empty() {
        file.seek(SeekFrom::Start(range.start))?;
        file.read_exact(&mut block[..bytes(range.end - range.start)])?;
    }
    Ok(block)
}

/// The blocks of one fragment, read from the whole sealed mail; parity is made on the fly, one stripe in memory.
#[derive(Debug)]
pub struct FragmentReader<R> {
    mail: R,
    layout: Layout,
    code: Arc<Code>,
    i: u8,
}

impl<R: Read + Seek> FragmentReader<R> {
    /// The blocks of fragment `i` of the mail in `mail`.
    ///
    /// # Errors
    /// [`FragmentError::NoSuchBlock`] when there is no fragment `i`.
    pub fn new(mail: R, layout: Layout, i: u8, codec: &Codec) -> Result<Self, FragmentError> {
        if i >= layout.n() {
            return Err(FragmentError::NoSuchBlock { stripe: 0, i });
        }
        Ok(Self { mail, layout, code: codec.code(layout.k(), layout.n())?, i })
    }

    /// The fragment's block of a stripe, as padded.
    ///
    /// # Errors
    /// [`FragmentError::NoSuchBlock`] past the last stripe, [`FragmentError::Io`] when reading fails.
    pub fn block(&mut self, stripe: u64) -> Result<Vec<u8>, FragmentError> {
        if stripe >= self.layout.stripes() {
            return Err(FragmentError::NoSuchBlock { stripe, i: self.i });
        }
        let len = bytes(u64::from(self.layout.block_len(stripe)));
        if self.i < self.layout.k() {
            return Ok(read_padded(&mut self.mail, &self.layout.block_range_in_mail(stripe, self.i), len)?);
        }
        let range = self.layout.stripe_range_in_mail(stripe);
        let data = read_padded(&mut self.mail, &range, len * usize::from(self.layout.k()))?;
        let blocks: Vec<&[u8]> = data.chunks_exact(len).collect();
        self.code.block(&blocks, self.i)
    }

    /// The fragment's blocks of a run of stripes, one after the other.
    pub fn blocks(&mut self, stripes: Range<u64>) -> impl Iterator<Item = Result<Vec<u8>, FragmentError>> + '_ {
        stripes.map(|stripe| self.block(stripe))
    }
}

/// Writes a verified block of a fragment to its place in the fragment's file.
///
/// # Errors
/// [`FragmentError::Io`] when writing fails.
pub fn write_fragment_block<W: Write + Seek>(
    layout: &Layout,
    file: &mut W,
    stripe: u64,
    block: &[u8],
) -> Result<(), FragmentError> {
    file.seek(SeekFrom::Start(layout.block_range_in_fragment(stripe).start))?;
    Ok(file.write_all(block)?)
}

/// The blocks of a held part that are not what the manifest says: (stripe, index). Empty when all is well. Reads the part
/// once, a block at a time; a file that is too short has bad blocks at its end.
///
/// # Errors
/// [`FragmentError`] when the part is none of this manifest, or reading fails for another reason than its end.
pub fn check_part<R: Read + Seek>(
    manifest: &Manifest,
    part: Part,
    mut file: R,
) -> Result<Vec<(u64, u8)>, FragmentError> {
    let layout = check_manifest(manifest, &MailName::of(manifest))?;
    let indices = match part {
        Part::Whole => 0..layout.k(),
        Part::Fragment { k, i } if k == layout.k() && i < layout.n() => i..i + 1,
        Part::Fragment { i, .. } => return Err(FragmentError::NoSuchBlock { stripe: 0, i }),
    };
    let mut bad = Vec::new();
    for stripe in 0..layout.stripes() {
        let len = bytes(u64::from(layout.block_len(stripe)));
        for i in indices.clone() {
            let range = match part {
                Part::Whole => layout.block_range_in_mail(stripe, i),
                Part::Fragment { .. } => layout.block_range_in_fragment(stripe),
            };
            match read_padded(&mut file, &range, len) {
                Ok(block) if verify_block(manifest, stripe, i, &block).is_ok() => {}
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e.into()),
                _ => bad.push((stripe, i)),
            }
        }
    }
    Ok(bad)
}

/// What became of a block that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not needed any more.
    Spare,
    /// It was taken; its stripe needs more.
    Taken,
    /// It was taken, and its stripe is now written completely.
    StripeDone,
}

/// Puts a sealed mail together from verified blocks of any fragments, in a file. Data blocks are written where they belong at
/// once; parity is kept until its stripe has k blocks, and then rebuilds what is missing.
pub struct Assembler<F> {
    file: F,
    manifest: Arc<Manifest>,
    layout: Layout,
    code: Arc<Code>,
    /// Data blocks in the file, `stripe * k + i`.
    done: Vec<bool>,
    missing: u64,
    parity: BTreeMap<u64, BTreeMap<u8, Vec<u8>>>,
    parity_bytes: usize,
}

impl<F> std::fmt::Debug for Assembler<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Assembler({}, {} blocks missing)", self.manifest.h, self.missing)
    }
}

impl<F: Read + Write + Seek> Assembler<F> {
    /// Starts with an empty file. The manifest must be the announced one ([`check_manifest`]).
    ///
    /// # Errors
    /// [`FragmentError`] when the manifest contradicts itself.
    pub fn new(manifest: Arc<Manifest>, codec: &Codec, file: F) -> Result<Self, FragmentError> {
        let layout = check_manifest(&manifest, &MailName::of(&manifest))?;
        let code = codec.code(layout.k(), layout.n())?;
        let blocks = layout.stripes() * u64::from(layout.k());
        let mut new = Self {
            file,
            manifest,
            layout,
            code,
            done: vec![false; bytes(blocks)],
            missing: blocks,
            parity: BTreeMap::new(),
            parity_bytes: 0,
        };
        // Blocks that are all padding need no source.
        if let Some(last) = layout.stripes().checked_sub(1) {
            for i in 0..layout.k() {
                if layout.block_range_in_mail(last, i).is_empty() {
                    new.mark(last, i);
                }
            }
        }
        Ok(new)
    }

    /// Goes on with a file that an earlier run left: every block in it that passes its check counts.
    ///
    /// # Errors
    /// As [`Assembler::new`], and when the file cannot be read.
    pub fn resume(manifest: Arc<Manifest>, codec: &Codec, file: F) -> Result<Self, FragmentError> {
        let mut new = Self::new(manifest, codec, file)?;
        for stripe in 0..new.layout.stripes() {
            for i in 0..new.layout.k() {
                match new.read(stripe, i) {
                    Ok(block) if verify_block(&new.manifest, stripe, i, &block).is_ok() => new.mark(stripe, i),
                    Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e.into()),
                    _ => {}
                }
            }
        }
        Ok(new)
    }

    fn at(&self, stripe: u64, i: u8) -> usize {
        bytes(stripe * u64::from(self.layout.k()) + u64::from(i))
    }

    fn mark(&mut self, stripe: u64, i: u8) {
        let at = self.at(stripe, i);
        if let Some(done) = self.done.get_mut(at)
            && !*done
        {
            *done = true;
            self.missing -= 1;
        }
    }

    fn read(&mut self, stripe: u64, i: u8) -> io::Result<Vec<u8>> {
        let len = bytes(u64::from(self.layout.block_len(stripe)));
        read_padded(&mut self.file, &self.layout.block_range_in_mail(stripe, i), len)
    }

    fn write(&mut self, stripe: u64, i: u8, block: &[u8]) -> io::Result<()> {
        let range = self.layout.block_range_in_mail(stripe, i);
        self.file.seek(SeekFrom::Start(range.start))?;
        self.file.write_all(&block[..bytes(range.end - range.start)])?;
        self.mark(stripe, i);
        Ok(())
    }

    /// The layout of the mail.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// Whether data block `i` of a stripe is in the file.
    pub fn has(&self, stripe: u64, i: u8) -> bool {
        i < self.layout.k() && self.done.get(self.at(stripe, i)).copied().unwrap_or(false)
    }
    /// Blocks that a stripe still needs, of whatever index it has not got.
    pub fn stripe_missing(&self, stripe: u64) -> u8 {
        let k = self.layout.k();
        let data = (0..k).filter(|i| self.has(stripe, *i)).count();
        let have = data + self.parity.get(&stripe).map_or(0, BTreeMap::len);
        k.saturating_sub(u8::try_from(have).unwrap_or(k))
    }
    /// Data blocks that are not in the file yet.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Takes block `i` of a stripe, if it is what the manifest says.
    ///
    /// # Errors
    /// [`FragmentError::WrongBlock`] when it is not; then nothing has changed. [`FragmentError::TooManyInFlight`] when parity
    /// of too many unfinished stripes would be kept. [`FragmentError::Io`] when the file cannot be read or written.
    pub fn put(&mut self, stripe: u64, i: u8, block: &[u8]) -> Result<Put, FragmentError> {
        verify_block(&self.manifest, stripe, i, block)?;
        let kept = self.parity.get(&stripe).is_some_and(|p| p.contains_key(&i));
        if self.has(stripe, i) || kept || (0..self.layout.k()).all(|i| self.has(stripe, i)) {
            return Ok(Put::Spare);
        }
        if i < self.layout.k() {
            self.write(stripe, i, block)?;
        } else {
            if self.stripe_missing(stripe) > 1 && self.parity_bytes + block.len() > PARITY_BYTES_MAX {
                return Err(FragmentError::TooManyInFlight { limit: PARITY_BYTES_MAX });
            }
            self.parity.entry(stripe).or_default().insert(i, block.to_vec());
            self.parity_bytes += block.len();
        }
        if self.stripe_missing(stripe) > 0 {
            return Ok(Put::Taken);
        }
        self.rebuild(stripe)?;
        Ok(Put::StripeDone)
    }

    fn rebuild(&mut self, stripe: u64) -> Result<(), FragmentError> {
        let parity = self.parity.remove(&stripe).unwrap_or_default();
        self.parity_bytes -= parity.values().map(Vec::len).sum::<usize>();
        let lacking: Vec<u8> = (0..self.layout.k()).filter(|i| !self.has(stripe, *i)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let mut have: Vec<(u8, Vec<u8>)> = parity.into_iter().collect();
        for i in (0..self.layout.k()).filter(|i| !lacking.contains(i)) {
            have.push((i, self.read(stripe, i)?));
        }
        let len = bytes(u64::from(self.layout.block_len(stripe)));
        let mut rebuilt = vec![vec![0u8; len]; lacking.len()];
        self.code.rebuild_into(&have, &lacking, &mut rebuilt)?;
        for (i, block) in lacking.into_iter().zip(&rebuilt) {
            verify_block(&self.manifest, stripe, i, block)
                .map_err(|_| FragmentError::Manifest { h: self.manifest.h, why: "its parity does not fit its data" })?;
            self.write(stripe, i, block)?;
        }
        Ok(())
    }

    /// The file as it is, for another try.
    pub fn into_file(self) -> F {
        self.file
    }
    /// The file, once every block is there and the whole has the BLAKE3 that was announced.
    ///
    /// # Errors
    /// [`FragmentError::Incomplete`] or [`FragmentError::WrongWhole`]; then nothing of the file may be used.
    pub fn finish(mut self) -> Result<F, FragmentError> {
        if self.missing > 0 {
            return Err(FragmentError::Incomplete { h: self.manifest.h, missing: self.missing });
        }
        self.file.flush()?;
        self.file.seek(SeekFrom::Start(0))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader((&mut self.file).take(self.manifest.length))?;
        let found = Digest::new(*hasher.finalize().as_bytes());
        if found != self.manifest.digest {
            return Err(FragmentError::WrongWhole { h: self.manifest.h, expected: self.manifest.digest, found });
        }
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::fragment::ManifestBuilder;
    use crate::model::{Encoding, PeerId};

    struct Kept {
        mail: Vec<u8>,
        manifest: Arc<Manifest>,
        codec: Codec,
        layout: Layout,
    }

    fn kept(length: usize, k: u8, n: u8) -> Kept {
        let mail: Vec<u8> = (0..length).map(|x| u8::try_from((x * 7 + x / 65536 + x / 251) % 256).unwrap()).collect();
        let codec = Codec::default();
        let encoding = Encoding::Fragments { k, n };
        let manifest = ManifestBuilder::from_reader(&mail[..], PeerId::new([1; 32]), encoding, &codec).unwrap();
        let layout = Layout::new(manifest.length, encoding).unwrap();
        Kept { mail, manifest: Arc::new(manifest), codec, layout }
    }

    impl Kept {
        fn fragment(&self, i: u8) -> FragmentReader<Cursor<&[u8]>> {
            FragmentReader::new(Cursor::new(&self.mail[..]), self.layout, i, &self.codec).unwrap()
        }
        fn assembler(&self) -> Assembler<Cursor<Vec<u8>>> {
            Assembler::new(self.manifest.clone(), &self.codec, Cursor::new(Vec::new())).unwrap()
        }
    }

    #[test]
    fn every_fragment_on_disk_passes_its_check_and_a_changed_or_short_one_does_not() {
        let kept = kept(400_001, 3, 5);
        for i in 0..5 {
            let part = Part::Fragment { k: 3, i };
            let mut file = Cursor::new(Vec::new());
            let blocks: Vec<_> = kept.fragment(i).blocks(0..3).map(Result::unwrap).collect();
            for stripe in [2, 0, 1] {
                write_fragment_block(&kept.layout, &mut file, stripe, &blocks[bytes(stripe)]).unwrap();
            }
            assert_eq!(u64::try_from(file.get_ref().len()).unwrap(), kept.layout.fragment_len());
            assert!(check_part(&kept.manifest, part, &mut file).unwrap().is_empty());
            file.get_mut()[70_000] ^= 4;
            assert_eq!(check_part(&kept.manifest, part, &mut file).unwrap(), [(1, i)]);
            file.get_mut().truncate(131_072);
            assert_eq!(check_part(&kept.manifest, part, &mut file).unwrap(), [(1, i), (2, i)]);
        }
        assert!(check_part(&kept.manifest, Part::Fragment { k: 2, i: 0 }, Cursor::new(vec![])).is_err());
        assert!(check_part(&kept.manifest, Part::Whole, Cursor::new(&kept.mail)).unwrap().is_empty());
        assert!(FragmentReader::new(Cursor::new(&kept.mail), kept.layout, 5, &kept.codec).is_err());
    }

    #[test]
    fn a_wrong_block_changes_nothing_and_is_named() {
        let kept = kept(300_000, 3, 5);
        let mut assembler = kept.assembler();
        let mut block = kept.fragment(4).block(0).unwrap();
        block[5] ^= 1;
        let refused = assembler.put(0, 4, &block);
        assert!(matches!(refused, Err(FragmentError::WrongBlock { stripe: 0, i: 4, .. })));
        assert_eq!(assembler.stripe_missing(0), 3);
        assert!(matches!(assembler.finish(), Err(FragmentError::Incomplete { missing: 6, .. })));
    }

    #[test]
    fn a_fetch_goes_on_from_the_blocks_in_its_file() {
        let kept = kept(500_000, 3, 5);
        let mut first = kept.assembler();
        for i in [0, 1, 2] {
            first.put(0, i, &kept.fragment(i).block(0).unwrap()).unwrap();
        }
        first.put(2, 1, &kept.fragment(1).block(2).unwrap()).unwrap();
        let mut file = first.file;
        file.get_mut()[10] ^= 1;
        let mut second = Assembler::resume(kept.manifest.clone(), &kept.codec, file).unwrap();
        assert_eq!((second.stripe_missing(0), second.stripe_missing(1), second.stripe_missing(2)), (1, 3, 2));
        for stripe in 0..3 {
            for i in [3, 4, 0] {
                second.put(stripe, i, &kept.fragment(i).block(stripe).unwrap()).unwrap();
            }
        }
        assert_eq!(second.finish().unwrap().into_inner(), kept.mail);
    }

    #[test]
    fn a_manifest_whose_parity_is_a_lie_is_found_out() {
        let kept = kept(100, 2, 3);
        let mut lie = Manifest::clone(&kept.manifest);
        let parity = vec![9u8; 50];
        lie.block_digests[64..96].copy_from_slice(blake3::hash(&parity).as_bytes());
        let mut assembler = Assembler::new(Arc::new(lie), &kept.codec, Cursor::new(Vec::new())).unwrap();
        assembler.put(0, 2, &parity).unwrap();
        let outcome = assembler.put(0, 0, &kept.mail[..50]);
        assert!(matches!(outcome, Err(FragmentError::Manifest { .. })));
    }

    #[test]
    fn parity_of_unfinished_stripes_is_bounded() {
        let kept = kept(2 * 65_536 * 1100, 2, 3);
        let mut assembler = kept.assembler();
        let mut parity = kept.fragment(2);
        let refused = (0..1100).find_map(|s| assembler.put(s, 2, &parity.block(s).unwrap()).err());
        assert!(matches!(refused, Some(FragmentError::TooManyInFlight { .. })));
        assert_eq!(assembler.put(0, 0, &kept.fragment(0).block(0).unwrap()).unwrap(), Put::StripeDone);
        assert_eq!(assembler.put(0, 2, &parity.block(0).unwrap()).unwrap(), Put::Spare);
    }

    #[test]
    fn an_empty_mail_is_whole_at_once() {
        assert!(kept(0, 3, 5).assembler().finish().unwrap().into_inner().is_empty());
    }

    #[test]
    fn mails_about_as_long_as_a_block_or_a_stripe_come_back_from_any_three_fragments_on_disk() {
        let (block, stripe) = (65_536, 3 * 65_536);
        let about = |len: usize| [len - 1, len, len + 1];
        let lengths = [1, 2, 3, 4].into_iter().chain(about(block)).chain(about(stripe)).chain(about(2 * stripe));
        for length in lengths {
            let kept = kept(length, 3, 5);
            let stripes = kept.layout.stripes();
            for choice in (0..1u8 << 5).filter(|choice| choice.count_ones() == 3) {
                let mut assembler = kept.assembler();
                for i in (0..5).filter(|i| choice >> i & 1 == 1) {
                    let mut file = Cursor::new(Vec::new());
                    for (at, made) in (0..stripes).zip(kept.fragment(i).blocks(0..stripes)) {
                        write_fragment_block(&kept.layout, &mut file, at, &made.unwrap()).unwrap();
                    }
                    assert_eq!(u64::try_from(file.get_ref().len()).unwrap(), kept.layout.fragment_len(), "{length}");
                    for at in 0..stripes {
                        let range = kept.layout.block_range_in_fragment(at);
                        assembler.put(at, i, &file.get_ref()[bytes(range.start)..bytes(range.end)]).unwrap();
                    }
                }
                assert!(assembler.finish().unwrap().into_inner() == kept.mail, "{length} bytes, {choice:05b}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_k_blocks_of_each_stripe_put_the_mail_together(
            (k, n) in (1u8..=12).prop_flat_map(|n| (1..=n, proptest::strategy::Just(n))),
            length in 1usize..900_000,
            order in proptest::collection::vec(any::<u16>(), 180),
        ) {
            let kept = kept(length, k, n);
            let mut assembler = kept.assembler();
            for stripe in 0..kept.layout.stripes() {
                let mut indices: Vec<u8> = (0..n).collect();
                indices.sort_by_key(|i| order[(bytes(stripe) * 12 + usize::from(*i)) % order.len()]);
                for i in indices {
                    assembler.put(stripe, i, &kept.fragment(i).block(stripe).unwrap()).unwrap();
                }
                prop_assert_eq!(assembler.stripe_missing(stripe), 0);
            }
            prop_assert!(assembler.parity.is_empty() && assembler.parity_bytes == 0);
            prop_assert_eq!(assembler.finish().unwrap().into_inner(), kept.mail);
        }
    }
}
