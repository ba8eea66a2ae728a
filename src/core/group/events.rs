//! What the group's brain makes durable. It only names; nothing is decided here.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::changes::{Mine, Overtaken};
use super::conflicts::KeyChange;
use super::rotate::Rotation;
use super::types::{SignedDescriptor, SignedGd};
use crate::model::card::CardPeer;
use crate::model::group::Member;
use crate::model::{Address, Digest, Fingerprint, GroupName, LocalName, PeerId, Secret, WallTime};

/// What becomes durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A group's key is the trust root of its names from now on.
    Pinned {
        /// The group.
        group: GroupName,
        /// Its key.
        key: Fingerprint,
        /// When; not written down by earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<WallTime>,
    },
    /// The group is not known any more.
    Unpinned {
        /// The group.
        group: GroupName,
    },
    /// A newer gd of a pinned group.
    Gd(SignedGd),
    /// Somebody else's key signed a gd of a pinned group.
    Rival {
        /// The group.
        group: GroupName,
        /// That key.
        key: Fingerprint,
    },
    /// The pinned key signed two different gds of one version.
    ForkedGd {
        /// The group.
        group: GroupName,
        /// The version.
        version: u64,
    },
    /// A member's key is another since the next gd.
    KeyChanged(KeyChange),
    /// This member of a pinned group was named once and is not any more.
    Former {
        /// As it was named last.
        member: Member,
    },
    /// An invite was handed out.
    Invited {
        /// For this name.
        name: LocalName,
        /// Its secret; only on the disk of the member that invites.
        secret: Secret,
        /// When it ends.
        expiry: WallTime,
    },
    /// An invite was used.
    Admitted {
        /// For this name.
        name: LocalName,
        /// By whom; only this peer may repeat its join.
        by: PeerId,
    },
    /// Where members were when this peer joined.
    Hints {
        /// As the invite names them.
        peers: Vec<CardPeer>,
    },
    /// A contact was added.
    Contact {
        /// Who.
        address: Address,
        /// Members of its group that its card names.
        peers: Vec<CardPeer>,
    },
    /// A contact was removed.
    NoContact {
        /// Who.
        address: Address,
    },
    /// A newer descriptor, of this peer or one that a pinned group's gd names.
    Descriptor(SignedDescriptor),
    /// A certificate whose descriptor could not be had.
    Certificate {
        /// Whose.
        peer: PeerId,
        /// The certificate.
        certificate: ByteBuf,
    },
    /// A newer view of the own group, signed.
    View(ByteBuf),
    /// A pinned group's key is another, as the one before signed.
    KeyRotated(Rotation),
    /// The own group's key is on this disk.
    HoldsKey {
        /// The own group.
        group: GroupName,
        /// Which key.
        key: Fingerprint,
    },
    /// This peer changed the gd.
    Changed(Mine),
    /// Such a change is in, or was made again.
    Settled {
        /// The gd it had become.
        digest: Digest,
    },
    /// Such a change is not in and could not be made again.
    Overtaken(Overtaken),
    /// This peer left its group by its own wish.
    Left {
        /// The gd that does not name it any more.
        gd_version: u64,
    },
}
