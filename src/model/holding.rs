//! Holdings: a member's word that it has a part of a mail on its disk, or has lost, refused or dropped it.

use serde::{Deserialize, Serialize};

use super::ids::{MailId, PeerId};
use super::policy::Part;
use super::time::WallTime;

/// Most holdings in one batch.
pub const HOLDINGS_BATCH_MAX: usize = 1000;

/// A member's word about one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The mail.
    pub h: MailId,
    /// The part of it.
    #[serde(rename = "p")]
    pub part: Part,
    /// What became of the part.
    #[serde(rename = "s")]
    pub state: HoldingState,
}

/// What became of a part at a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldingState {
    /// On disk, fsynced, every block checked.
    Held,
    /// Was on disk and is not any more, or did not pass its check.
    Lost,
    /// Not taken.
    Refused(HoldingRefusal),
    /// Given up by right (R3); with the bytes of it that were served, per peer.
    Dropped {
        /// Bytes of the mail served to each peer.
        served: Vec<(PeerId, u64)>,
    },
}

/// Why a member did not take a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldingRefusal {
    /// The owner's quota at this member is used up.
    Quota,
    /// The member's disk is full.
    DiskFull,
    /// The manifest or the blocks do not fit the msglist entry.
    BadBlocks,
}

/// A batch of holdings; signed with the member's PeerId key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Who gives its word.
    #[serde(rename = "m")]
    pub member: PeerId,
    /// Whose mails these are.
    #[serde(rename = "ow")]
    pub owner: PeerId,
    /// When, by the member's clock. A later word about the same part replaces an earlier one.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// At most [`HOLDINGS_BATCH_MAX`].
    #[serde(rename = "i")]
    pub items: Vec<Holding>,
    /// Up to which miss, by the owner's clock, the member had heard of what it is to look at; earlier versions do not say.
    #[serde(rename = "hd", default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<WallTime>,
}

/// What a member could not show when its owner audited it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    /// The parts: each is checked before it is confirmed anew.
    pub parts: Vec<(MailId, Part)>,
    /// When the latest of these misses was, by the owner's clock.
    pub upto: WallTime,
    /// When the latest word of this member that the owner has was signed: by that, a later one must be signed later.
    pub said: WallTime,
}

/// What a member and an owner compare when they meet again, so that only what differs is reported: for each first byte of h
/// eight bytes of BLAKE3 over the parts that are held, in order. 256 times eight bytes.
pub fn bucket_digests(held: impl IntoIterator<Item = (MailId, Part)>) -> Vec<u8> {
    let mut buckets = vec![std::collections::BTreeSet::new(); 256];
    for (h, part) in held {
        buckets[usize::from(h.as_bytes()[0])].insert((h, part));
    }
    let digest = |parts: std::collections::BTreeSet<(MailId, Part)>| {
        let mut hasher = blake3::Hasher::new_derive_key("roost 1 holdings bucket");
        for (h, part) in parts {
            hasher.update(h.as_bytes());
            // Whole is no fragment: no code has k = 0.
            let (k, i) = match part {
                Part::Whole => (0, 0),
                Part::Fragment { k, i } => (k, i),
            };
            hasher.update(&[k, i]);
        }
        let mut eight = [0; 8];
        hasher.finalize_xof().fill(&mut eight);
        eight
    };
    buckets.into_iter().flat_map(digest).collect()
}
