//! A sealed mail on its way to the disk: sealed to its receivers and to its owner, and named while it is written. It gives it no place
//! there, and knows neither spool nor outbox. Blocking.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::actors::identity::Identity;
use crate::fragment::{Codec, FragmentError, ManifestBuilder};
use crate::model::manifest::Manifest;
use crate::model::{Encoding, PeerId, Policy, WallTime};
use crate::seal::{Certificate, SealError, seal_mail};
use crate::store::files::{DurableWriter, FileError, is_disk_full};

/// Why a mail could not be sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealedFileError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// OpenPGP, or reading and writing beneath it.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It cannot be named.
    #[error(transparent)]
    Name(#[from] FragmentError),
}

impl SealedFileError {
    /// Whether there is no room.
    pub(super) fn is_disk_full(&self) -> bool {
        match self {
            Self::File(e) => e.is_disk_full(),
            Self::Seal(SealError::Io { source, .. }) | Self::Name(FragmentError::Io { source }) => is_disk_full(source),
            Self::Seal(_) | Self::Name(_) => false,
        }
    }
}

/// Decides the encoding by the sealed mail's length while it is being written: until `whole_below` bytes came, they wait.
struct Naming<'a> {
    policy: &'a Policy,
    others: usize,
    codec: &'a Codec,
    waiting: Vec<u8>,
    builder: Option<ManifestBuilder>,
}

impl Naming<'_> {
    fn start(&mut self, encoding: Encoding) -> Result<(), FragmentError> {
        let mut builder = ManifestBuilder::new(encoding, self.codec)?;
        builder.update(&std::mem::take(&mut self.waiting))?;
        self.builder = Some(builder);
        Ok(())
    }
    fn update(&mut self, bytes: &[u8]) -> Result<(), FragmentError> {
        if let Some(builder) = &mut self.builder {
            return builder.update(bytes);
        }
        self.waiting.extend_from_slice(bytes);
        let so_far = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let at_most = self.policy.encoding_for(u64::MAX, self.others);
        // Once longer than whole_below, more bytes do not change the encoding.
        if self.policy.encoding_for(so_far, self.others) == at_most {
            self.start(at_most)?;
        }
        Ok(())
    }
    fn finish(mut self, owner: PeerId) -> Result<Manifest, FragmentError> {
        if self.builder.is_none() {
            let so_far = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
            self.start(self.policy.encoding_for(so_far, self.others))?;
        }
        match self.builder {
            Some(builder) => builder.finish(owner),
            None => Err(FragmentError::from(io::Error::other("no builder"))),
        }
    }
}

/// Writes the sealed mail to disk and names it on the way.
struct Tee<'a, 'b> {
    file: &'a mut DurableWriter,
    naming: &'a mut Naming<'b>,
}

impl Write for Tee<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.naming.update(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// How a mail is sealed and named.
pub(super) struct Sealing<'a> {
    /// Where it gets its temporary name.
    pub(super) folder: &'a Path,
    pub(super) identity: &'a Identity,
    pub(super) codec: &'a Codec,
    /// Of the group, now.
    pub(super) policy: &'a Policy,
    /// Other members that may hold a part.
    pub(super) others: usize,
    pub(super) certificates: &'a [Certificate],
    pub(super) now: WallTime,
}

impl Sealing<'_> {
    /// Seals to the receivers, and to the owner itself: what waits can then be read in Outbox without a clear copy.
    ///
    /// # Errors
    /// [`SealedFileError`]; then nothing of it is left.
    pub(super) fn write(&self, clear: impl Read) -> Result<(DurableWriter, Manifest), SealedFileError> {
        let mut all = self.certificates.to_vec();
        let own = self.identity.openpgp.certificate();
        if !all.iter().any(|c| c.fingerprint() == own.fingerprint()) {
            all.push(own.clone());
        }
        let mut file = DurableWriter::create(self.folder)?;
        let (policy, others, codec) = (self.policy, self.others, self.codec);
        let mut naming = Naming { policy, others, codec, waiting: Vec::new(), builder: None };
        let tee = Tee { file: &mut file, naming: &mut naming };
        seal_mail(clear, &self.identity.openpgp, &all, tee, self.now)?;
        let manifest = naming.finish(self.identity.peer_id())?;
        Ok((file, manifest))
    }
}
