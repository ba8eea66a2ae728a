//! One audit: a random block of what a member confirmed is read over HTTPS and checked against the manifest. It never takes a
//! member that cannot be asked for one that has lost something.

use std::ops::Range;
use std::sync::Arc;

use super::Tools;
use crate::core::outbox::{Input, is_word_of};
use crate::fragment::{Layout, MailName, check_manifest, verify_block};
use crate::model::manifest::{BLOCK_BYTES, Manifest};
use crate::model::{MailId, Part, PeerId};
use crate::net::peer_answer::NetError;
use crate::store::manifests;
use crate::wire::Signed;

/// One block of a part: where it lies, and how it is checked.
struct Block {
    manifest: Signed<Manifest>,
    stripe: u64,
    i: u8,
    range: Range<u64>,
    padded: usize,
}

impl Block {
    /// Block number `random` of a part, counted around; none when the part has no such block.
    fn of(manifest: Signed<Manifest>, part: Part, random: u64) -> Option<Self> {
        let layout = check_manifest(&manifest, &MailName::of(&manifest)).ok()?;
        let stripe = random.checked_rem(layout.stripes())?;
        let (i, range) = match part {
            Part::Whole => data_block(&layout, stripe, random)?,
            Part::Fragment { k, i } if k == layout.k() && i < layout.n() => (i, layout.block_range_in_fragment(stripe)),
            Part::Fragment { .. } => return None,
        };
        let padded = usize::try_from(layout.block_len(stripe)).ok()?;
        (!range.is_empty()).then_some(Self { manifest, stripe, i, range, padded })
    }
    fn is_right(&self, bytes: &[u8]) -> bool {
        let mut bytes = bytes.to_vec();
        bytes.resize(self.padded.max(bytes.len()), 0);
        verify_block(&self.manifest, self.stripe, self.i, &bytes).is_ok()
    }
}

/// One of the data blocks of a stripe that is not all padding.
fn data_block(layout: &Layout, stripe: u64, random: u64) -> Option<(u8, Range<u64>)> {
    let blocks = (0..layout.k()).map(|i| (i, layout.block_range_in_mail(stripe, i)));
    let blocks: Vec<_> = blocks.filter(|(_, range)| !range.is_empty()).collect();
    let which = random.rotate_left(32).checked_rem(u64::try_from(blocks.len()).ok()?)?;
    blocks.into_iter().nth(usize::try_from(which).ok()?)
}

/// Reads the block. A miss comes back, and a word that the mail is gone; that all is well, or that nobody can say, does not.
pub(super) async fn audit(tools: Arc<Tools>, (member, h): (PeerId, MailId), part: Part, random: u64) -> Option<Input> {
    let path = tools.home.outbox_manifest(&h);
    let read = tokio::task::spawn_blocking(move || {
        let (_, manifest) = manifests::find(&path, |manifest| manifests::covers(manifest.encoding, part))?;
        Block::of(manifest, part, random)
    });
    let block = read.await.ok().flatten()?;
    let mut told = Input::AuditMissed { member, h };
    let why = match read_block(&tools, &member, &h, part, block.range.clone()).await {
        Ok(bytes) if block.is_right(&bytes) => return None,
        Ok(_) => "it serves another block".to_owned(),
        Err(error @ (NetError::Malformed { .. } | NetError::TooLarge { .. })) => error.to_string(),
        Err(error @ NetError::Status { code: 404, .. }) => error.to_string(),
        Err(NetError::Gone { tombstone, .. }) => {
            let is_true = is_word_of(&tools.identity.peer_id(), &h, &tombstone);
            told = Input::AuditedGone { member, h, tombstone };
            if is_true {
                return Some(told);
            }
            "it says that the mail is gone, which its owner never signed".to_owned()
        }
        Err(error) => {
            tracing::debug!(%member, mail = %h, %error, "a member cannot be audited now");
            return None;
        }
    };
    let snapshot = tools.directory.snapshot();
    let named = snapshot.peers.get(&member).and_then(|peer| peer.address.as_ref());
    let address = named.map_or_else(|| member.to_string(), ToString::to_string);
    tracing::warn!(member = %address, mail = %h, %part, %why,
        "a member could not show a block of what it had confirmed; it counts as lost until it confirms it anew");
    Some(told)
}

async fn read_block(
    tools: &Tools,
    member: &PeerId,
    h: &MailId,
    part: Part,
    range: Range<u64>,
) -> Result<Vec<u8>, NetError> {
    let limit = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
    let body = tools.client.get_part(*member, h, part, Some(range)).await?;
    Ok(body.collect(limit).await?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::{Codec, ManifestBuilder};
    use crate::model::Encoding;
    use crate::wire::PeerKey;

    #[test]
    fn every_block_of_every_part_can_be_asked_for_and_only_the_right_bytes_pass() {
        let mail: Vec<u8> = (0..3u32 * 65_536 + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let key = PeerKey::from_seed(&[1; 32]);
        for encoding in [Encoding::Whole, Encoding::Fragments { k: 3, n: 5 }] {
            let mut builder = ManifestBuilder::new(encoding, &Codec::default()).unwrap();
            builder.update(&mail).unwrap();
            let manifest = key.sign(builder.finish(key.peer_id()).unwrap());
            for random in (0..40u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let block = Block::of(manifest.clone(), Part::Whole, random).unwrap();
                let at = usize::try_from(block.range.start).unwrap()..usize::try_from(block.range.end).unwrap();
                let mut bytes = mail[at].to_vec();
                assert!(block.is_right(&bytes), "{encoding:?} {:?}", block.range);
                bytes[0] ^= 1;
                assert!(!block.is_right(&bytes) && !block.is_right(&[]));
            }
        }
        let none = Block::of(
            key.sign(ManifestBuilder::new(Encoding::Whole, &Codec::default()).unwrap().finish(key.peer_id()).unwrap()),
            Part::Fragment { k: 3, i: 0 },
            1,
        );
        assert!(none.is_none(), "a fragment that the manifest does not have");
    }
}
