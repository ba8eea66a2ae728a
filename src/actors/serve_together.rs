//! Short parts of several own mails in one answer, for the members that are to hold them. It never serves a part before it is on disk to
//! whom, nor more than one answer may have.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde_bytes::ByteBuf;

use super::serve_parts::manifest_at;
use crate::core::outbox::Lookup;
use crate::fragment::stream::FragmentReader;
use crate::fragment::{Codec, Layout};
use crate::model::{Encoding, MailId, Part};
use crate::store::home::Home;
use crate::store::manifests;
use crate::wire::http::{GivenPart, PARTS_GIVEN_BYTES, PartsAnswer};

/// An own mail, and which part of it is wanted.
pub struct WantedPart {
    /// Which mail.
    pub h: MailId,
    /// Which part.
    pub part: Part,
    /// Bytes of the sealed mail.
    pub length: u64,
    /// How its fragments are cut.
    pub encoding: Encoding,
}

impl WantedPart {
    /// Bytes of the part; none if the mail has no such part.
    pub fn bytes(&self) -> Option<u64> {
        match self.part {
            Part::Whole => Some(self.length),
            Part::Fragment { .. } => self.layout().map(|(layout, _)| layout.fragment_len()),
        }
    }
    fn layout(&self) -> Option<(Layout, u8)> {
        let Part::Fragment { k, i } = self.part else { return None };
        let layout = Layout::new(self.length, self.encoding).ok()?;
        (layout.k() == k && i < layout.n()).then_some((layout, i))
    }
    /// Reads it. Blocks, so it runs on the blocking pool.
    fn read(&self, home: &Home, codec: &Codec) -> io::Result<Vec<u8>> {
        let blob = home.outbox_blob(&self.h);
        let Some((layout, i)) = self.layout() else { return fs::read(blob) };
        let mut reader = FragmentReader::new(File::open(blob)?, layout, i, codec).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        for stripe in 0..layout.stripes() {
            bytes.extend_from_slice(&reader.block(stripe).map_err(io::Error::other)?);
        }
        Ok(bytes)
    }
}

/// What was asked for, sorted into what may be read and what is gone; what is neither was not served here, or is too long.
pub fn sort(asked: &[(MailId, Part)], known: Vec<Lookup>) -> (Vec<WantedPart>, Vec<(MailId, ByteBuf)>) {
    let (mut wanted, mut gone) = (Vec::new(), Vec::new());
    let mut left = u64::try_from(PARTS_GIVEN_BYTES).unwrap_or(u64::MAX);
    for ((h, part), known) in asked.iter().zip(known) {
        match known {
            Lookup::Owned(facts) => {
                let one = WantedPart { h: *h, part: *part, length: facts.length, encoding: facts.encoding };
                if let Some(rest) = one.bytes().and_then(|bytes| left.checked_sub(bytes)) {
                    left = rest;
                    wanted.push(one);
                }
            }
            Lookup::Gone(tombstone) => gone.push((*h, ByteBuf::from(tombstone))),
            Lookup::Unknown => {}
        }
    }
    (wanted, gone)
}

/// The manifest alone, without what may stand behind it in its file.
fn read_manifest(path: &Path) -> io::Result<Vec<u8>> {
    let (file, length) = manifests::open(path)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads parts and manifests. What cannot be read is left out: whoever asks for it alone is told why.
pub async fn read(home: Home, codec: Codec, wanted: Vec<WantedPart>) -> PartsAnswer {
    let read = tokio::task::spawn_blocking(move || {
        let mut left = PARTS_GIVEN_BYTES;
        let mut parts = Vec::with_capacity(wanted.len());
        for one in wanted {
            let path = manifest_at(home.outbox_manifest(&one.h), one.encoding, None);
            let (Ok(manifest), Ok(bytes)) = (read_manifest(&path), one.read(&home, &codec)) else { continue };
            let Some(rest) = left.checked_sub(manifest.len() + bytes.len()) else { break };
            left = rest;
            let (manifest, bytes) = (ByteBuf::from(manifest), ByteBuf::from(bytes));
            parts.push(GivenPart { h: one.h, part: one.part, manifest, bytes });
        }
        PartsAnswer { parts, gone: Vec::new() }
    });
    // A panic aborts, so a lost task means that this peer stops.
    read.await.unwrap_or_default()
}
