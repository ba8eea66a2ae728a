//! Manifests: made in one pass over a sealed mail, checked before use, and the check of every block. Never signs; that is
//! the PeerId key's work in `wire::signed`.

use std::io::{self, Read, Write};
use std::sync::Arc;

use sha1::Digest as _;

use super::FragmentError;
use super::code::{Code, Codec};
use super::layout::{LENGTH_MAX, Layout};
use crate::model::manifest::{BLOCK_BYTES, Manifest};
use crate::model::{Digest, Encoding, MailId, PeerId};

/// How a sealed mail is announced: its name, its length and the proof of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailName {
    /// SHA-1 of the sealed mail.
    pub h: MailId,
    /// Its bytes.
    pub length: u64,
    /// Its BLAKE3.
    pub digest: Digest,
}

impl MailName {
    /// The mail that a manifest says it is of.
    pub fn of(manifest: &Manifest) -> Self {
        Self { h: manifest.h, length: manifest.length, digest: manifest.digest }
    }
}

/// Bytes of a digest in [`Manifest::block_digests`].
const DIGEST: usize = Digest::LEN;

/// Makes a manifest of the bytes that are written to it: name, digest of the whole and of every block, in one pass. Keeps
/// one stripe in memory.
#[derive(Debug)]
pub struct ManifestBuilder {
    encoding: Encoding,
    code: Arc<Code>,
    name: sha1::Sha1,
    whole: blake3::Hasher,
    length: u64,
    stripe: Vec<u8>,
    /// Room for the parity of one stripe.
    parity: Vec<Vec<u8>>,
    block_digests: Vec<u8>,
}

impl ManifestBuilder {
    /// A builder for a mail that is kept as `encoding` says.
    ///
    /// # Errors
    /// [`FragmentError::KOfN`] when k and n are impossible.
    pub fn new(encoding: Encoding, codec: &Codec) -> Result<Self, FragmentError> {
        let layout = Layout::new(0, encoding)?;
        let code = codec.code(layout.k(), layout.n())?;
        Ok(Self {
            encoding,
            parity: vec![vec![0; BLOCK_LEN]; usize::from(code.n() - code.k())],
            code,
            name: sha1::Sha1::new(),
            whole: blake3::Hasher::new(),
            length: 0,
            stripe: Vec::new(),
            block_digests: Vec::new(),
        })
    }

    /// The manifest of all that `sealed` yields.
    ///
    /// # Errors
    /// [`FragmentError`] when reading fails, the mail is too long, or k and n are impossible.
    pub fn from_reader(
        mut sealed: impl Read,
        owner: PeerId,
        encoding: Encoding,
        codec: &Codec,
    ) -> Result<Manifest, FragmentError> {
        let mut builder = Self::new(encoding, codec)?;
        let mut buffer = vec![0u8; builder.stripe_bytes()];
        loop {
            match sealed.read(&mut buffer) {
                Ok(0) => return builder.finish(owner),
                Ok(n) => builder.update(&buffer[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FragmentError::Io { source }),
            }
        }
    }

    fn stripe_bytes(&self) -> usize {
        usize::from(self.code.k()) * BLOCK_LEN
    }

    /// Takes the next bytes of the sealed mail.
    ///
    /// # Errors
    /// [`FragmentError::TooLong`] when there are too many of them.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), FragmentError> {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(more);
        if self.length > LENGTH_MAX {
            return Err(FragmentError::TooLong { length: self.length, limit: LENGTH_MAX });
        }
        self.name.update(bytes);
        self.whole.update(bytes);
        let full = self.stripe_bytes();
        while !bytes.is_empty() {
            if self.stripe.is_empty() && bytes.len() >= full {
                let (stripe, rest) = bytes.split_at(full);
                digests(&self.code, stripe, &mut self.parity, &mut self.block_digests)?;
                bytes = rest;
                continue;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(full - self.stripe.len()));
            self.stripe.extend_from_slice(now);
            bytes = rest;
            if self.stripe.len() == full {
                digests(&self.code, &self.stripe, &mut self.parity, &mut self.block_digests)?;
                self.stripe.clear();
            }
        }
        Ok(())
    }

    /// The manifest of what was taken, for `owner` to sign.
    ///
    /// # Errors
    /// [`FragmentError`] when the last stripe cannot be encoded.
    pub fn finish(mut self, owner: PeerId) -> Result<Manifest, FragmentError> {
        if !self.stripe.is_empty() {
            let k = usize::from(self.code.k());
            let block = self.stripe.len().div_ceil(k);
            self.stripe.resize(block * k, 0);
            self.parity.iter_mut().for_each(|parity| parity.truncate(block));
            digests(&self.code, &self.stripe, &mut self.parity, &mut self.block_digests)?;
        }
        Ok(Manifest {
            owner,
            h: MailId::new(self.name.finalize().into()),
            length: self.length,
            digest: Digest::new(*self.whole.finalize().as_bytes()),
            encoding: self.encoding,
            block_bytes: BLOCK_BYTES,
            block_digests: self.block_digests,
        })
    }
}

impl Write for ManifestBuilder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const BLOCK_LEN: usize = BLOCK_BYTES as usize;

/// Adds the digests of the n blocks of a stripe to `to`. `parity` has the blocks' length.
fn digests(code: &Code, stripe: &[u8], parity: &mut [Vec<u8>], to: &mut Vec<u8>) -> Result<(), FragmentError> {
    let data: Vec<&[u8]> = stripe.chunks_exact(stripe.len() / usize::from(code.k())).collect();
    code.encode_into(&data, parity)?;
    for block in data.into_iter().chain(parity.iter().map(Vec::as_slice)) {
        to.extend_from_slice(blake3::hash(block).as_bytes());
    }
    Ok(())
}

/// The layout of a manifest that agrees with itself and with what was announced of the mail. Check its signature first.
///
/// # Errors
/// [`FragmentError`] says what does not fit; nothing of such a manifest may be used.
pub fn check_manifest(manifest: &Manifest, announced: &MailName) -> Result<Layout, FragmentError> {
    let refuse = |why| Err(FragmentError::Manifest { h: manifest.h, why });
    let layout = Layout::new(manifest.length, manifest.encoding)?;
    if manifest.h != announced.h {
        return refuse("it is of another mail");
    }
    if manifest.length != announced.length || manifest.digest != announced.digest {
        return refuse("its length or BLAKE3 is not what was announced");
    }
    if manifest.block_bytes != BLOCK_BYTES {
        return refuse("its blocks are not of 64 KiB");
    }
    let digests = layout.blocks() * 32;
    if u64::try_from(manifest.block_digests.len()) != Ok(digests) {
        return refuse("it has not one digest for every block");
    }
    Ok(layout)
}

/// Whether `bytes` are block `i` of a stripe, as padded (R6). The manifest must have passed [`check_manifest`].
///
/// # Errors
/// [`FragmentError::WrongBlock`] when they are not, [`FragmentError::NoSuchBlock`] when there is none.
pub fn verify_block(manifest: &Manifest, stripe: u64, i: u8, bytes: &[u8]) -> Result<(), FragmentError> {
    let layout = Layout::new(manifest.length, manifest.encoding)?;
    let none = FragmentError::NoSuchBlock { stripe, i };
    let Some(Ok(index)) = layout.digest_index(stripe, i).map(usize::try_from) else {
        return Err(none);
    };
    let Some(expected) = manifest.block_digests.get(index * DIGEST..(index + 1) * DIGEST) else {
        return Err(none);
    };
    let right_length = u32::try_from(bytes.len()) == Ok(layout.block_len(stripe));
    if right_length && blake3::hash(bytes).as_bytes() == expected {
        Ok(())
    } else {
        Err(FragmentError::WrongBlock { h: manifest.h, stripe, i })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KN: Encoding = Encoding::Fragments { k: 3, n: 5 };

    fn mail(length: usize) -> Vec<u8> {
        (0..length).map(|x| u8::try_from((x * 7 + x / 65536 + x / 251) % 256).unwrap()).collect()
    }

    fn manifest(mail: &[u8], encoding: Encoding) -> Manifest {
        ManifestBuilder::from_reader(mail, PeerId::new([1; 32]), encoding, &Codec::default()).unwrap()
    }

    #[test]
    fn a_manifest_names_the_mail_and_fits_itself() {
        for length in [0, 1, 65_535, 65_536, 65_537, 196_607, 196_608, 196_609, 700_000] {
            for encoding in
                [KN, Encoding::Whole, Encoding::Fragments { k: 1, n: 2 }, Encoding::Fragments { k: 2, n: 2 }]
            {
                let mail = mail(length);
                let m = manifest(&mail, encoding);
                let sha1: [u8; 20] = sha1::Sha1::digest(&mail).into();
                let name = MailName {
                    h: MailId::new(sha1),
                    length: m.length,
                    digest: Digest::new(*blake3::hash(&mail).as_bytes()),
                };
                let layout = check_manifest(&m, &name).unwrap();
                for stripe in 0..layout.stripes() {
                    for i in 0..layout.k() {
                        let range = layout.block_range_in_mail(stripe, i);
                        let mut block =
                            mail[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec();
                        block.resize(usize::try_from(layout.block_len(stripe)).unwrap(), 0);
                        verify_block(&m, stripe, i, &block).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn how_the_bytes_arrive_changes_nothing() {
        let mail = mail(500_001);
        let whole = manifest(&mail, KN);
        for step in [1000, 65_536, 196_608, 300_000] {
            let mut builder = ManifestBuilder::new(KN, &Codec::default()).unwrap();
            for part in mail.chunks(step) {
                builder.write_all(part).unwrap();
            }
            assert_eq!(builder.finish(PeerId::new([1; 32])).unwrap(), whole);
        }
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let good = manifest(&mail(300_000), KN);
        let name = MailName::of(&good);
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut m = good.clone();
            change(&mut m);
            check_manifest(&m, &name).is_err()
        };
        assert!(check_manifest(&good, &name).is_ok());
        assert!(refused(&|m| m.block_bytes = 4096));
        assert!(refused(&|m| m.length += 1));
        assert!(refused(&|m| m.h = MailId::new([0; 20])));
        assert!(refused(&|m| m.digest = Digest::new([0; 32])));
        assert!(refused(&|m| m.block_digests.truncate(32)));
        assert!(refused(&|m| m.block_digests.push(0)));
        assert!(refused(&|m| m.encoding = Encoding::Fragments { k: 0, n: 5 }));
        assert!(refused(&|m| m.encoding = Encoding::Fragments { k: 3, n: 200 }));
        assert!(refused(&|m| m.encoding = Encoding::Fragments { k: 3, n: 6 }));
    }

    #[test]
    fn one_altered_bit_of_a_block_is_noticed() {
        let mail = mail(70_000);
        let m = manifest(&mail, Encoding::Whole);
        let mut block = mail[..65_536].to_vec();
        verify_block(&m, 0, 0, &block).unwrap();
        verify_block(&m, 1, 0, &mail[65_536..]).unwrap();
        block[40_000] ^= 1;
        assert!(matches!(verify_block(&m, 0, 0, &block), Err(FragmentError::WrongBlock { .. })));
        assert!(matches!(verify_block(&m, 0, 0, &mail[..65_535]), Err(FragmentError::WrongBlock { .. })));
        assert!(matches!(verify_block(&m, 2, 0, &block), Err(FragmentError::NoSuchBlock { .. })));
        assert!(matches!(verify_block(&m, 0, 1, &block), Err(FragmentError::NoSuchBlock { .. })));
    }
}
