//! Puts an own mail together again that this disk has not: the mail from what members hold, its manifest and its ns made anew.
//! It keeps nothing that is not the very mail, and the mail last: as long as it is not there, the next start begins again.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::sync::Arc;

use super::Tools;
use super::seal::{Opened, Sealer};
use crate::core::outbox::{Input, RecoverJob};
use crate::fragment::{Layout, ManifestBuilder};
use crate::mime::split::Splitter;
use crate::model::{Address, Digest};
use crate::seal::open_mail;
use crate::store::files::DurableWriter;

/// Bytes that are read at a time.
const CHUNK: usize = 256 * 1024;

/// The answer to [`crate::core::outbox::Action::Recover`].
pub(super) async fn recover(tools: Arc<Tools>, sealer: Arc<Sealer>, job: RecoverJob) -> Option<Input> {
    let h = job.facts.h;
    let result = match tools.neighbours.fetch_own(&job.facts, job.sources.clone()).await {
        Ok(file) => tokio::task::spawn_blocking(move || keep(&sealer, &job, file)).await.ok()?,
        Err(why) => Err(why),
    };
    match &result {
        Ok(_) => tracing::info!(mail = %h, "a mail that this disk had lost is here again"),
        Err(why) => tracing::warn!(mail = %h, %why, "a mail that this disk has lost is not to be had now"),
    }
    Some(Input::Recovered { h, result })
}

/// Makes mail, manifest and ns durable, the mail last. Blocking.
fn keep(sealer: &Sealer, job: &RecoverJob, mut sealed: File) -> Result<Vec<(Address, Digest)>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut copy =
        Copying { from: &mut sealed, to: DurableWriter::create(&sealer.home.outbox_dir()).map_err(|e| text(&e))? };
    let owner = sealer.identity.peer_id();
    let manifest = ManifestBuilder::from_reader(&mut copy, owner, job.facts.encoding, &sealer.codec);
    let manifest = manifest.map_err(|e| text(&e))?;
    let writer = copy.to;
    let facts = &job.facts;
    if (manifest.h, manifest.length, manifest.digest) != (facts.h, facts.length, facts.digest) {
        return Err("what members gave is not the mail".to_owned());
    }
    Layout::new(manifest.length, manifest.encoding).map_err(|e| text(&e))?;
    sealed.rewind().map_err(|e| text(&e))?;
    let opened = open(sealer, &sealed)?;
    let (notices, names) = sealer.notices(job, &opened).map_err(|e| format!("{e:?}"))?;
    sealer.keep_again(writer, manifest, &notices).map_err(|e| text(&e))?;
    Ok(names)
}

/// Header block and structure of the clear mail: what its ns carry.
fn open(sealer: &Sealer, sealed: &File) -> Result<Opened, String> {
    let cap = sealer.directory.snapshot().roster.policy.max_sealed();
    let mut splitting = Splitting(Splitter::new());
    let (me, reader) = (&sealer.identity.openpgp, BufReader::with_capacity(CHUNK, sealed));
    open_mail(reader, me, me.certificate(), cap, &mut splitting).map_err(|e| e.to_string())?;
    let split = splitting.0.finish();
    Ok(Opened { header_block: split.header_block, structure: split.structure })
}

/// What is read is written as well.
struct Copying<'a> {
    from: &'a mut File,
    to: DurableWriter,
}

impl Read for Copying<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(bytes)?;
        self.to.write_all(bytes.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

/// What is written is split, and not kept.
struct Splitting(Splitter);

impl Write for Splitting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.feed(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
