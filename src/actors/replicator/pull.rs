//! Pulling one part: its manifest, then its blocks, each checked before it is written, then durable under its name. Memory
//! does not grow with the mail. It never keeps a byte that does not fit the owner's manifest (R6).

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::replicator::{MirrorFailure, MirrorOrder};
use crate::fragment::stream::FragmentReader;
use crate::fragment::{Codec, FragmentError, Layout, MailName, check_manifest, verify_block};
use crate::model::manifest::Manifest;
use crate::model::{Digest, Encoding, MailId, Part, PeerId};
use crate::net::https_client::PeerClient;
use crate::net::peer_answer::{NetError, PeerBody};
use crate::store::files::{DurableWriter, FILE_MODE, FileError, is_disk_full, write_durable};
use crate::store::home::Home;
use crate::store::manifests::{covers, find};
use crate::wire::Signed;

use super::{NotRebuilt, Rebuild, RebuildOrder};

/// Bytes gathered before they are checked and written on the blocking pool.
const STEP_BYTES: usize = 1024 * 1024;
/// Bytes of a manifest beside its digests: ids, lengths, signature.
const MANIFEST_FRAME_BYTES: u64 = 64 * 1024;
/// Lies that are remembered.
const LIES_MAX: usize = 1024;

/// Why one attempt failed.
pub(super) enum Failure {
    /// The source gave nothing.
    Source(String),
    /// The source gave what does not fit.
    Bad(String),
    /// The mail is gone, says the source.
    Gone(Vec<u8>),
    /// This peer's disk.
    Disk(MirrorFailure),
    /// This peer stops.
    Stopping,
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Gone { tombstone, .. } => Failure::Gone(tombstone),
            NetError::TooLarge { .. } | NetError::Malformed { .. } => Failure::Bad(error.to_string()),
            other => Failure::Source(other.to_string()),
        }
    }
}
impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Failure::Disk(if error.is_disk_full() {
            MirrorFailure::DiskFull
        } else {
            MirrorFailure::Disk { why: error.to_string() }
        })
    }
}
impl From<FragmentError> for Failure {
    fn from(error: FragmentError) -> Self {
        match error {
            FragmentError::Io { source } if is_disk_full(&source) => Failure::Disk(MirrorFailure::DiskFull),
            FragmentError::Io { .. } => Failure::Disk(MirrorFailure::Disk { why: error.to_string() }),
            other => Failure::Bad(other.to_string()),
        }
    }
}

/// A manifest that was checked: signed by the owner, of this mail, consistent, and with the wanted part.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) manifest: Arc<Signed<Manifest>>,
    pub(super) layout: Layout,
}

impl Checked {
    /// Checks a manifest against the order it must fit.
    pub(super) fn new(bytes: &[u8], order: &MirrorOrder) -> Result<Self, Failure> {
        let bad = |why: String| Failure::Bad(format!("manifest: {why}"));
        let manifest = Signed::<Manifest>::verify(bytes).map_err(|e| bad(e.to_string()))?;
        if manifest.owner != order.owner {
            // Another owner gave its own mail this h; whoever serves that one does not lie.
            return Err(Failure::Source("it has a manifest of this h by another owner".to_owned()));
        }
        let name = MailName { h: order.h, length: order.length, digest: order.digest };
        let layout = check_manifest(&manifest, &name).map_err(|e| bad(e.to_string()))?;
        if !covers(manifest.encoding, order.part) {
            // Re-encoded meanwhile, or not yet: that is no lie.
            return Err(Failure::Source(format!("its manifest has no {}", order.part)));
        }
        Ok(Self { manifest: Arc::new(manifest), layout })
    }
}

/// The most bytes that the manifest of a mail may have.
pub(super) fn manifest_limit(length: u64, encoding: Encoding) -> u64 {
    let blocks = Layout::new(length, encoding).map_or(0, |layout| layout.blocks());
    blocks.saturating_mul(u64::try_from(Digest::LEN).unwrap_or(u64::MAX)).saturating_add(MANIFEST_FRAME_BYTES)
}

/// What pulling needs.
#[derive(Clone)]
pub(super) struct Puller {
    pub(super) client: PeerClient,
    pub(super) home: Home,
    pub(super) codec: Codec,
    pub(super) rebuild: Arc<dyn Rebuild>,
    /// Who served what does not fit, oldest first: not asked again for that mail.
    pub(super) lies: Lies,
}

/// Who served what does not fit its manifest: of which mail, of which owner.
pub(super) type Lies = Arc<Mutex<VecDeque<(MailId, PeerId, PeerId)>>>;

impl Puller {
    /// Mirrors one part: from the owner, or of an owner that is off from the others.
    pub(super) async fn mirror(self, order: MirrorOrder) -> Result<(), MirrorFailure> {
        let from_owner = if order.owner_answers { Some(self.pull_from_owner(&order).await) } else { None };
        self.after_owner(&order, from_owner).await
    }

    /// What the owner did not give is had from the others, if it was not asked or has not got it.
    pub(super) async fn after_owner(
        &self,
        order: &MirrorOrder,
        from_owner: Option<Result<(), Failure>>,
    ) -> Result<(), MirrorFailure> {
        let no_source = |why: String| MirrorFailure::NoSource { why };
        match from_owner {
            Some(Ok(())) => Ok(()),
            Some(Err(Failure::Gone(tombstone))) => Err(MirrorFailure::Gone { tombstone }),
            Some(Err(Failure::Disk(failure))) => Err(failure),
            // It may have lost the file: what others have rebuilds it.
            Some(Err(Failure::Source(why))) => self.pull_from_others(order).await.map_err(|failure| match failure {
                Failure::Disk(failure) => failure,
                Failure::Gone(tombstone) => MirrorFailure::Gone { tombstone },
                Failure::Source(others) | Failure::Bad(others) => no_source(format!("owner: {why}; others: {others}")),
                Failure::Stopping => no_source("this peer is stopping".to_owned()),
            }),
            Some(Err(Failure::Stopping)) => Err(no_source("this peer is stopping".to_owned())),
            Some(Err(Failure::Bad(why))) => {
                self.pull_from_others(order).await.map_err(|_| MirrorFailure::BadBlocks { why })
            }
            None => self.pull_from_others(order).await.map_err(|failure| match failure {
                Failure::Disk(failure) => failure,
                Failure::Gone(tombstone) => MirrorFailure::Gone { tombstone },
                Failure::Source(why) | Failure::Bad(why) => no_source(why),
                Failure::Stopping => no_source("this peer is stopping".to_owned()),
            }),
        }
    }

    async fn pull_from_owner(&self, order: &MirrorOrder) -> Result<(), Failure> {
        if self.has_lied(order, order.owner) {
            return Err(Failure::Bad("its owner served what does not fit its msglist entry".to_owned()));
        }
        match self.try_owner(order).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.blame(order, order.owner, failure).await),
        }
    }

    async fn try_owner(&self, order: &MirrorOrder) -> Result<(), Failure> {
        let checked = match self.kept_manifest(order).await {
            Some(kept) => kept,
            None => self.manifest_from(order, order.owner).await?,
        };
        self.part_from(order, checked, order.owner).await
    }

    /// A whole copy straight from another holder; a fragment is cut from the mail, rebuilt from whoever has enough of it.
    async fn pull_from_others(&self, order: &MirrorOrder) -> Result<(), Failure> {
        let mut last = Failure::Source("no other member is placed for it".to_owned());
        let mut checked = self.kept_manifest(order).await;
        let sources: Vec<PeerId> = order.sources.iter().chain([&order.owner]).copied().collect();
        for source in sources.iter().filter(|source| !self.has_lied(order, **source)) {
            if checked.is_none() {
                match self.manifest_from(order, *source).await {
                    Ok(manifest) => checked = Some(manifest),
                    Err(failure @ (Failure::Disk(_) | Failure::Stopping)) => return Err(failure),
                    Err(failure) => {
                        last = self.blame(order, *source, failure).await;
                        continue;
                    }
                }
            }
            let Some(manifest) = checked.clone() else { continue };
            if order.part != Part::Whole {
                return self.cut(order, manifest).await;
            }
            match self.part_from(order, manifest, *source).await {
                Ok(()) => return Ok(()),
                Err(failure @ (Failure::Disk(_) | Failure::Stopping)) => return Err(failure),
                Err(failure) => last = self.blame(order, *source, failure).await,
            }
        }
        Err(last)
    }

    /// Names a peer that served what does not fit (R6).
    pub(super) async fn blame(&self, order: &MirrorOrder, source: PeerId, failure: Failure) -> Failure {
        if let Failure::Bad(why) = &failure {
            {
                let mut lies = self.lies();
                lies.push_back((order.h, order.owner, source));
                if lies.len() > LIES_MAX {
                    lies.pop_front();
                }
            }
            self.rebuild.lied(wanted(order), source, why.clone()).await;
        }
        failure
    }

    pub(super) fn has_lied(&self, order: &MirrorOrder, source: PeerId) -> bool {
        self.lies().contains(&(order.h, order.owner, source))
    }

    fn lies(&self) -> MutexGuard<'_, VecDeque<(MailId, PeerId, PeerId)>> {
        // An entry goes in in one step, so a panic elsewhere leaves only good ones.
        self.lies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest that is on this disk already, if it has the wanted part.
    async fn kept_manifest(&self, order: &MirrorOrder) -> Option<Checked> {
        let (path, order) = (self.home.mirror_manifest(&order.address, &order.h), order.clone());
        let read = tokio::task::spawn_blocking(move || {
            let fits = |m: &Manifest| m.owner == order.owner && covers(m.encoding, order.part);
            Checked::new(find(&path, fits)?.1.as_bytes(), &order).ok()
        });
        read.await.ok().flatten()
    }

    async fn manifest_from(&self, order: &MirrorOrder, source: PeerId) -> Result<Checked, Failure> {
        let limit = usize::try_from(manifest_limit(order.length, order.encoding)).unwrap_or(usize::MAX);
        let bytes = self.client.get_manifest(source, &order.h, limit).await?;
        let (order, home) = (order.clone(), self.home.clone());
        blocking(move || {
            let checked = Checked::new(&bytes, &order)?;
            // Before the part: no part is ever here without what it is checked by.
            write_durable(&manifest_path(&home, &order, &checked), &bytes, FILE_MODE)?;
            Ok(checked)
        })
        .await
    }

    async fn part_from(&self, order: &MirrorOrder, checked: Checked, source: PeerId) -> Result<(), Failure> {
        let client = self.client.with_urgency(order.urgency);
        let mut body = client.get_part(source, &order.h, order.part, None).await?;
        let mut writer =
            PartWriter::new(checked, order.part, self.home.mirror_part(&order.address, &order.h, order.part));
        if body.total() != writer.total() {
            return Err(Failure::Bad(format!("it has {} bytes, not {}", body.total(), writer.total())));
        }
        loop {
            let (step, ended) = gather(&mut body).await?;
            writer = blocking(move || writer.take(&step).map(|()| writer)).await?;
            if ended {
                return blocking(move || writer.finish()).await;
            }
        }
    }

    /// Cuts the wanted fragment from the whole mail, which is put together from other holders.
    async fn cut(&self, order: &MirrorOrder, checked: Checked) -> Result<(), Failure> {
        let Part::Fragment { i, .. } = order.part else { return Err(Failure::Source("it is no fragment".to_owned())) };
        let whole = self.rebuild.fetch_whole(wanted(order)).await.map_err(|failure| match failure {
            NotRebuilt::DiskFull => Failure::Disk(MirrorFailure::DiskFull),
            NotRebuilt::NotNow(why) => Failure::Source(why),
        })?;
        let path = self.home.mirror_part(&order.address, &order.h, order.part);
        let (codec, part) = (self.codec.clone(), order.part);
        blocking(move || {
            let layout = checked.layout;
            let mut reader = FragmentReader::new(whole, layout, i, &codec)?;
            let mut writer = PartWriter::new(checked, part, path);
            for stripe in 0..layout.stripes() {
                writer.take(&reader.block(stripe)?)?;
            }
            writer.finish()
        })
        .await
    }
}

/// Where the manifest of a part goes that is pulled. Parts of an earlier encoding stay until nobody needs them, and their manifest with
/// them.
pub(super) fn manifest_path(home: &Home, order: &MirrorOrder, checked: &Checked) -> PathBuf {
    let first = home.mirror_manifest(&order.address, &order.h);
    if find(&first, |m| m.owner == order.owner).is_some() {
        return home.mirror_manifest_as(&order.address, &order.h, checked.manifest.encoding);
    }
    first
}

/// The whole mail that a part is of, from its owner and those that placement names.
fn wanted(order: &MirrorOrder) -> RebuildOrder {
    let sources = [order.owner].into_iter().chain(order.sources.iter().copied()).collect();
    RebuildOrder { h: order.h, owner: order.owner, length: order.length, digest: order.digest, sources }
}

/// The next bytes of a body, up to a step, and whether they are the last.
async fn gather(body: &mut PeerBody) -> Result<(Vec<u8>, bool), Failure> {
    let mut step = Vec::new();
    while step.len() < STEP_BYTES {
        match body.next().await? {
            Some(chunk) => step.extend_from_slice(&chunk),
            None => return Ok((step, true)),
        }
    }
    Ok((step, false))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Failure::Stopping))
}

/// Checks the blocks of one part in order, writes them, and gives the file its name once all are there.
pub(super) struct PartWriter {
    checked: Checked,
    part: Part,
    path: PathBuf,
    file: Option<DurableWriter>,
    /// Stripe and index of the next block.
    next: (u64, u8),
    rest: Vec<u8>,
}

impl PartWriter {
    pub(super) fn new(checked: Checked, part: Part, path: PathBuf) -> Self {
        let index = match part {
            Part::Whole => 0,
            Part::Fragment { i, .. } => i,
        };
        Self { checked, part, path, file: None, next: (0, index), rest: Vec::new() }
    }
    pub(super) fn total(&self) -> u64 {
        match self.part {
            Part::Whole => self.checked.layout.length(),
            Part::Fragment { .. } => self.checked.layout.fragment_len(),
        }
    }
    /// Bytes of the next block as they travel and lie on the disk; none after the last.
    fn next_len(&self) -> Option<usize> {
        let (stripe, i) = self.next;
        let layout = &self.checked.layout;
        let range = match self.part {
            Part::Whole => layout.block_range_in_mail(stripe, i),
            Part::Fragment { .. } => layout.block_range_in_fragment(stripe),
        };
        (stripe < layout.stripes()).then(|| usize::try_from(range.end - range.start).unwrap_or(usize::MAX))
    }
    fn advance(&mut self) {
        let (stripe, i) = self.next;
        self.next = match self.part {
            Part::Whole if i + 1 < self.checked.layout.k() => (stripe, i + 1),
            Part::Whole => (stripe + 1, 0),
            Part::Fragment { .. } => (stripe + 1, i),
        };
    }
    /// Takes the next bytes; every block that is complete with them is checked and written.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.rest.extend_from_slice(bytes);
        let gathered = std::mem::take(&mut self.rest);
        let mut rest = &gathered[..];
        while let Some(len) = self.next_len()
            && rest.len() >= len
        {
            let (block, after) = rest.split_at(len);
            self.check(block)?;
            self.write(block)?;
            rest = after;
            self.advance();
        }
        self.rest = rest.to_vec();
        Ok(())
    }
    fn check(&self, block: &[u8]) -> Result<(), Failure> {
        let (stripe, i) = self.next;
        let full = usize::try_from(self.checked.layout.block_len(stripe)).unwrap_or(usize::MAX);
        if block.len() == full {
            return Ok(verify_block(&self.checked.manifest, stripe, i, block)?);
        }
        // The end of a whole mail: digests are of blocks as padded.
        let mut padded = block.to_vec();
        padded.resize(full.max(block.len()), 0);
        Ok(verify_block(&self.checked.manifest, stripe, i, &padded)?)
    }
    fn write(&mut self, block: &[u8]) -> Result<(), Failure> {
        let written = self.file()?.write_all(block);
        written.map_err(|e| FileError::from_io(&self.path, "write", &e).into())
    }
    fn file(&mut self) -> Result<&mut DurableWriter, Failure> {
        if self.file.is_none() {
            let folder = self.path.parent().unwrap_or(&self.path);
            self.file = Some(DurableWriter::create(folder)?);
        }
        self.file.as_mut().ok_or(Failure::Stopping)
    }
    /// Gives the part its name, durably (R1).
    fn finish(self) -> Result<(), Failure> {
        let (file, path) = self.whole()?;
        Ok(file.commit(&path)?)
    }
    /// The part, if all of it is there, and the name that it is to have.
    pub(super) fn whole(mut self) -> Result<(DurableWriter, PathBuf), Failure> {
        if self.next_len().is_some() || !self.rest.is_empty() {
            return Err(Failure::Bad("it ended in the middle of a block".to_owned()));
        }
        self.file()?;
        self.file.take().map(|file| (file, self.path)).ok_or(Failure::Stopping)
    }
}

/// The manifest of a held part, checked against its signature and itself.
pub(super) fn held_manifest(path: &std::path::Path, owner: &PeerId, part: Part) -> Option<Manifest> {
    find(path, |m| m.owner == *owner && covers(m.encoding, part)).map(|(_, manifest)| manifest.into_value())
}
