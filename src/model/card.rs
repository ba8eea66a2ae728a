//! One-line codes that people hand each other: contact cards and invites.

use serde::{Deserialize, Serialize};

use super::address::{Address, GroupName, LocalName};
use super::group::PeerAddr;
use super::ids::{Fingerprint, PeerId, Secret};
use super::time::WallTime;

/// Most members a card or invite names.
pub const CARD_PEERS_MAX: usize = 5;

/// A peer to ask first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardPeer {
    /// Its PeerId.
    #[serde(rename = "p")]
    pub peer_id: PeerId,
    /// Where it can be reached.
    #[serde(rename = "w")]
    pub addrs: Vec<PeerAddr>,
}

/// A contact card: who, and the trust root of its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Whose card it is.
    #[serde(rename = "a")]
    pub address: Address,
    /// The group key's fingerprint: the trust root of every `name@group`.
    #[serde(rename = "k")]
    pub group_key: Fingerprint,
    /// Up to five members.
    #[serde(rename = "m")]
    pub peers: Vec<CardPeer>,
}

/// An invite: for one name, once, until it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The group that invites.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// The name that is invited.
    #[serde(rename = "n")]
    pub name: LocalName,
    /// The group key's fingerprint.
    #[serde(rename = "k")]
    pub group_key: Fingerprint,
    /// Members to join through.
    #[serde(rename = "m")]
    pub peers: Vec<CardPeer>,
    /// The one-time secret. It never travels: a join sends an HMAC under it.
    #[serde(rename = "s")]
    pub secret: Secret,
    /// When it ends.
    #[serde(rename = "x")]
    pub expiry: WallTime,
}

/// What a joining peer sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The signed descriptor of the joining peer (see `seal`): names its address and PeerId and carries its certificate.
    #[serde(rename = "d", with = "serde_bytes")]
    pub descriptor: Vec<u8>,
    /// HMAC-SHA256 under the invite's secret over (PeerId, fingerprint, group key fingerprint).
    #[serde(rename = "h", with = "serde_bytes")]
    pub proof: Vec<u8>,
}
