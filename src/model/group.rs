//! Groups and peers as they describe themselves: group descriptor (gd), peer descriptor (d), view, heartbeat.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::address::{Address, GroupName};
use super::ids::{Digest, Fingerprint, PeerId};
use super::policy::Policy;
use super::time::WallTime;

/// Version of the protocols between peers that this build speaks.
pub const PROTOCOL: u16 = 1;

/// Where a peer can be reached: one host with its two ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerAddr {
    /// IP address or DNS name.
    #[serde(rename = "h")]
    pub host: String,
    /// Port of the HTTPS routes.
    #[serde(rename = "s")]
    pub https: u16,
    /// Port of libp2p over TCP.
    #[serde(rename = "p")]
    pub libp2p: u16,
}

/// Peer descriptor (d), under `name@group` in the DHT. Signed by the peer's OpenPGP key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerDescriptor {
    /// Whose it is.
    #[serde(rename = "a")]
    pub address: Address,
    /// Its PeerId.
    #[serde(rename = "p")]
    pub peer_id: PeerId,
    /// Where it can be reached; at most 8.
    #[serde(rename = "w")]
    pub addrs: Vec<PeerAddr>,
    /// Its minimal OpenPGP certificate, binary.
    #[serde(rename = "c", with = "serde_bytes")]
    pub certificate: Vec<u8>,
    /// The greatest one counts.
    #[serde(rename = "n")]
    pub sequence: u64,
}

/// A member as the gd names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its address.
    #[serde(rename = "a")]
    pub address: Address,
    /// Its PeerId.
    #[serde(rename = "p")]
    pub peer_id: PeerId,
    /// Its OpenPGP certificate's fingerprint.
    #[serde(rename = "f")]
    pub fingerprint: Fingerprint,
}

/// Group descriptor (gd), under `group:NAME` in the DHT. Signed by the group key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescriptor {
    /// Which group.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// The greatest one counts.
    #[serde(rename = "v")]
    pub version: u64,
    /// At most 100, in the order of succession: the founder first, then as they joined.
    #[serde(rename = "m")]
    pub members: Vec<Member>,
    /// How members' mail is kept.
    #[serde(rename = "p")]
    pub policy: Policy,
    /// Who holds the group key.
    #[serde(rename = "k")]
    pub key_holders: BTreeSet<Address>,
    /// Least protocol version that a peer must speak.
    #[serde(rename = "q")]
    pub min_protocol: u16,
    /// The group key's certificate, binary.
    #[serde(rename = "c", with = "serde_bytes")]
    pub group_certificate: Vec<u8>,
    /// When this version was signed.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// How the group key came to be: each earlier key's signed word for the next ([`KeyHandover`]), the oldest first; at most
    /// [`HANDOVERS_MAX`]. Pins follow it.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    pub handovers: Vec<serde_bytes::ByteBuf>,
    /// Digests of the signed versions that this one was made from, the newest first; at most [`BUILT_ON_MAX`]. Who changed one
    /// of two versions that were signed at the same time sees by it which changes are in.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    pub built_on: Vec<Digest>,
    /// Members on their way out: others take over what they hold.
    #[serde(rename = "l", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<Address>,
}

/// Most handovers of the group key that a gd carries: a pin that is further behind is compared by people.
pub const HANDOVERS_MAX: usize = 16;
/// Most versions that a gd says it was made from.
pub const BUILT_ON_MAX: usize = 16;

/// A group key's word for the key after it. Signed by the key before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHandover {
    /// Which group.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// The certificate of the key before, binary.
    #[serde(rename = "c", with = "serde_bytes")]
    pub from_certificate: Vec<u8>,
    /// The key after it.
    #[serde(rename = "n")]
    pub to: Fingerprint,
    /// When it was signed.
    #[serde(rename = "t")]
    pub at: WallTime,
}

/// What a member asks a holder of the group key to write down about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveStage {
    /// It wants to leave: others take over what it holds.
    Begin,
    /// It stays after all.
    Stay,
    /// It goes.
    Go,
}

impl GroupDescriptor {
    /// The member with this PeerId.
    pub fn member(&self, peer: &PeerId) -> Option<&Member> {
        self.members.iter().find(|m| m.peer_id == *peer)
    }
    /// The member with this address.
    pub fn member_at(&self, address: &Address) -> Option<&Member> {
        self.members.iter().find(|m| m.address == *address)
    }
}

/// The acting master's word on who counts as lost. Signed with its PeerId key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Which group.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// The gd it is about.
    #[serde(rename = "v")]
    pub gd_version: u64,
    /// Who says so.
    #[serde(rename = "m")]
    pub master: PeerId,
    /// When, by the master's clock; the latest one counts.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// Members silent for longer than `lost_after`.
    #[serde(rename = "l")]
    pub lost: BTreeSet<PeerId>,
}

/// A member's sign of life, to the first two live members in the order of succession.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The gd version it has.
    #[serde(rename = "v")]
    pub gd_version: u64,
    /// Its wall clock.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// Digest of that gd as it was signed: two holders of the group key may have signed one version each.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub gd_digest: Option<Digest>,
    /// Time of the view that it goes by; the answer carries only another one.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub view_at: Option<WallTime>,
    /// Digest of that view as it was signed: its master may have signed two of one time. Earlier versions do not say.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub view_digest: Option<Digest>,
    /// Its signed gd, when the called member's is older.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub gd: Option<serde_bytes::ByteBuf>,
    /// Signed peer descriptors that the called member may lack: the caller's own, or that of a peer that has just joined.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<serde_bytes::ByteBuf>,
    /// Members whose peer descriptor it asks for, each with the sequence number that it has (0: none).
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<(PeerId, u64)>,
}

/// What a heartbeat is answered with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The gd version the answering member has.
    #[serde(rename = "v")]
    pub gd_version: u64,
    /// Its wall clock.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// Digest of that gd as it was signed.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub gd_digest: Option<Digest>,
    /// The acting master's signed view, when there is one.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub view: Option<serde_bytes::ByteBuf>,
    /// The answering member's signed gd, when the caller's was older.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub gd: Option<serde_bytes::ByteBuf>,
    /// Signed peer descriptors that the caller asked for and the answering member has.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<serde_bytes::ByteBuf>,
}

/// The own group as the other brains need to know it: gd and view together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// This peer.
    pub me: Member,
    /// The group; a peer that has not joined one yet is a group of one.
    pub group: GroupName,
    /// The gd's version; 0 before there is one.
    pub gd_version: u64,
    /// How members' mail is kept.
    pub policy: Policy,
    /// Every member, this one included, in the order of succession.
    pub members: Vec<Member>,
    /// Members that the acting master's view calls lost, and those on their way out: nothing is placed on them.
    pub lost: BTreeSet<PeerId>,
    /// Those of them that are on their way out, as the gd says: what they hold counts until they have gone.
    pub leaving: BTreeSet<PeerId>,
    /// Those on their way out that the view calls lost as well: what they hold does not count, and they go all the same.
    pub silent: BTreeSet<PeerId>,
}

impl Roster {
    /// Every member but this one.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.peer_id != self.me.peer_id)
    }
    /// Every member but this one that is not on its way out: the group as it is to be.
    pub fn staying(&self) -> impl Iterator<Item = &Member> {
        self.others().filter(|m| !self.leaving.contains(&m.peer_id))
    }
    /// Whether what `peer` holds counts: it is a member, and nobody calls it lost.
    pub fn counts(&self, peer: &PeerId) -> bool {
        let is_there = !self.lost.contains(peer) || (self.leaving.contains(peer) && !self.silent.contains(peer));
        self.has(peer) && is_there
    }
    /// Whether `peer` is a member.
    pub fn has(&self, peer: &PeerId) -> bool {
        self.members.iter().any(|m| m.peer_id == *peer)
    }
}
