//! The small bodies of the HTTPS routes that no model type is already, and the most bytes of each. No IO.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::model::group::PeerAddr;
use crate::model::{MailId, Part, WallTime};

/// Most bytes of a `POST /outbox/holdings`: a full batch takes about 100 KB, `dropped` with many readers more.
pub const HOLDINGS_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a heartbeat and of its answer, either of which may carry a gd of 100 members and as many peer descriptors.
pub const HEARTBEAT_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a `POST /group/join`.
pub const JOIN_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a signed gd.
pub const GD_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of an OpenPGP certificate that is taken from a peer.
pub const CERTIFICATE_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a page of a msglist.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of a signed tombstone.
pub const TOMBSTONE_BYTES_MAX: usize = 4 * 1024;
/// Most parts that are asked for in one `POST /outbox/parts`.
pub const PARTS_ASKED_MAX: usize = 64;
/// Most bytes of a `POST /outbox/parts`.
pub const PARTS_POST_BYTES_MAX: usize = 16 * 1024;
/// Bytes of parts and manifests in one answer to it; what does not fit is left out.
pub const PARTS_GIVEN_BYTES: usize = 1536 * 1024;
/// Most bytes of such an answer, with tombstones and what CBOR takes.
pub const PARTS_ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most fragments of one mail that one peer lists: a few encodings of at most 100 each.
pub const FRAGMENTS_LISTED_MAX: usize = 1000;
/// Buckets in which a member and an owner compare what is held: one for each first byte of h.
pub const HOLDING_BUCKETS: usize = 256;
/// Bytes of a bucket's digest.
pub const BUCKET_DIGEST_BYTES: usize = 8;

/// What `GET /outbox/{h}/fragments` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct FragmentList {
    /// Which fragments (k, i) the answering peer holds.
    #[serde(rename = "f")]
    pub fragments: Vec<(u8, u8)>,
}

/// What `POST /outbox/parts` carries, from a member to an owner: short parts of several mails that it is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PartsPost {
    /// Which ones, at most [`PARTS_ASKED_MAX`].
    #[serde(rename = "p")]
    pub parts: Vec<(MailId, Part)>,
}

/// What `POST /outbox/parts` answers. What was asked for and is not in here is to be asked for alone: it does not fit, or cannot be
/// served now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PartsAnswer {
    /// Parts, each with the manifest that its blocks are checked by.
    #[serde(rename = "p", default)]
    pub parts: Vec<GivenPart>,
    /// Mails that are gone, each with the signed tombstone.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<(MailId, ByteBuf)>,
}

/// One part of a [`PartsAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenPart {
    /// Of which mail.
    #[serde(rename = "h")]
    pub h: MailId,
    /// Which part.
    #[serde(rename = "p")]
    pub part: Part,
    /// The manifest as its owner signed it (`Signed<Manifest>`).
    #[serde(rename = "m")]
    pub manifest: ByteBuf,
    /// The part's bytes, as `GET /outbox/{h}` and `GET /outbox/{h}/fragments/{k}/{i}` have them.
    #[serde(rename = "b")]
    pub bytes: ByteBuf,
}

/// What `POST /outbox/holdings` carries, from a member to an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldingsPost {
    /// A signed batch (`Signed<Holdings>`).
    Batch(ByteBuf),
    /// On reconnect: [`HOLDING_BUCKETS`] digests, [`BUCKET_DIGEST_BYTES`] each, of what the member holds for the owner.
    Buckets(ByteBuf),
}

/// What `POST /outbox/holdings` answers: the batch is on disk, or which buckets differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HoldingsAnswer {
    /// First bytes of h whose buckets differ: the member reports those again. Empty for a batch.
    #[serde(rename = "d", default)]
    pub differ: ByteBuf,
    /// Parts of which the member could not show a block: it checks them before it reports them again.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<(MailId, Part)>,
    /// When the latest of these misses was, by the owner's clock; the member says so in the batches that it signs from then on.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub missed_upto: Option<WallTime>,
    /// When the latest word of this member that the owner has was signed, if it has one; earlier versions do not say.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub said: Option<WallTime>,
}

/// What `POST /group/reach` carries, from a member that wants to know whether it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachPost {
    /// The caller's own peer descriptor, signed: the only addresses that are dialled.
    #[serde(rename = "d")]
    pub descriptor: ByteBuf,
}

/// What `POST /group/reach` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ReachAnswer {
    /// Each address that was dialled.
    #[serde(rename = "a", default)]
    pub addrs: Vec<Reached>,
}

/// What came of dialling one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The address.
    #[serde(rename = "a")]
    pub addr: PeerAddr,
    /// Its HTTPS port: whether the caller proved to be there.
    #[serde(rename = "s")]
    pub https: Dialled,
    /// Its libp2p port: whether it takes connections.
    #[serde(rename = "p")]
    pub libp2p: Dialled,
}

/// What came of dialling one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialled {
    /// How long it took, milliseconds.
    #[serde(rename = "t")]
    pub ms: u64,
    /// Why it was not reached; nothing when it was.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn the_small_bodies_round_trip() {
        let list = FragmentList { fragments: vec![(3, 0), (3, 4)] };
        assert_eq!(decode::<FragmentList>(&encode(&list)).unwrap(), list);
        let post = HoldingsPost::Buckets(ByteBuf::from(vec![1; HOLDING_BUCKETS * BUCKET_DIGEST_BYTES]));
        assert_eq!(decode::<HoldingsPost>(&encode(&post)).unwrap(), post);
        let asked = PartsPost { parts: vec![(MailId::new([3; 20]), Part::Whole)] };
        assert_eq!(decode::<PartsPost>(&encode(&asked)).unwrap(), asked);
        let (manifest, bytes) = (ByteBuf::from(vec![1; 9]), ByteBuf::from(vec![2; 70]));
        let given = GivenPart { h: MailId::new([3; 20]), part: Part::Fragment { k: 3, i: 1 }, manifest, bytes };
        let gone = vec![(MailId::new([4; 20]), ByteBuf::from(vec![5]))];
        for parts in [PartsAnswer::default(), PartsAnswer { parts: vec![given], gone }] {
            assert_eq!(decode::<PartsAnswer>(&encode(&parts)).unwrap(), parts);
        }
        let addr = PeerAddr { host: "192.0.2.1".to_owned(), https: 1, libp2p: 2 };
        let (https, libp2p) = (Dialled { ms: 3, why: None }, Dialled { ms: 4, why: Some("silent".to_owned()) });
        let reach = ReachAnswer { addrs: vec![Reached { addr, https, libp2p }] };
        assert_eq!(decode::<ReachAnswer>(&encode(&reach)).unwrap(), reach);
        let answer = HoldingsAnswer {
            differ: ByteBuf::from(vec![0, 255]),
            missed: vec![(MailId::new([3; 20]), Part::Fragment { k: 3, i: 1 })],
            missed_upto: Some(WallTime(7)),
            said: Some(WallTime(8)),
        };
        assert_eq!(decode::<HoldingsAnswer>(&encode(&answer)).unwrap(), answer);
    }
}
