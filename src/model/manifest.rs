//! The manifest: what is needed to check every byte of a sealed mail. Signed by the owner's PeerId key.

use serde::{Deserialize, Serialize};

use super::ids::{Digest, MailId, PeerId};
use super::policy::Encoding;

/// B: bytes of a full block. 64 KiB keeps a stripe in cache and a digest per block at 0.05 %.
pub const BLOCK_BYTES: u32 = 64 * 1024;

/// What is needed to check every block of one encoding of a sealed mail. Geometry is `fragment::layout`'s.
///
/// Encoding `Whole` counts as k = n = 1: the blocks are the mail's own, `BLOCK_BYTES` each, the last one as short as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its owner, the signer.
    #[serde(rename = "ow")]
    pub owner: PeerId,
    /// The sealed mail's name.
    pub h: MailId,
    /// Length of the sealed mail, bytes.
    #[serde(rename = "l")]
    pub length: u64,
    /// BLAKE3 of the whole.
    #[serde(rename = "b")]
    pub digest: Digest,
    /// k and n.
    #[serde(rename = "c")]
    pub encoding: Encoding,
    /// Bytes of a full block: [`BLOCK_BYTES`].
    #[serde(rename = "z")]
    pub block_bytes: u32,
    /// BLAKE3 of every block as padded, stripe by stripe, in each stripe by index 0..n: 32 bytes each.
    #[serde(rename = "d", with = "serde_bytes")]
    pub block_digests: Vec<u8>,
}
