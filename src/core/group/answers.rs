//! What the group's brain answers and publishes. It only names; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::error::GroupError;
use super::status::Role;
use super::types::RecoveryCode;
use super::unpinned::Candidates;
use crate::model::card::{Card, Invite};
use crate::model::group::{GroupDescriptor, HeartbeatAnswer, PeerAddr, Roster};
use crate::model::{Address, Fingerprint, GroupName, PeerId};

/// What requests are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The group exists.
    Created {
        /// The group's key.
        key: Fingerprint,
        /// Print it once.
        recovery: RecoveryCode,
    },
    /// Hand this to whoever is invited.
    Invite(Invite),
    /// This peer is a member.
    Joined {
        /// Version of the gd that names it.
        gd_version: u64,
        /// How many members there are.
        members: usize,
    },
    /// The signed gd that names the caller.
    Admitted(ByteBuf),
    /// The policy is in the gd of this version.
    PolicySet {
        /// The version.
        gd_version: u64,
    },
    /// It is in the gd of this version.
    Changed {
        /// The version.
        gd_version: u64,
        /// The key is another since: that of before is of no use any more.
        recovery: Option<RecoveryCode>,
    },
    /// Seal this group key to this certificate, and hand it over.
    HandKey {
        /// Which key.
        key: Fingerprint,
        /// To whom.
        to: Vec<u8>,
    },
    /// The answer to a heartbeat.
    Heartbeat(HeartbeatAnswer),
    /// The own contact card.
    Card(Card),
    /// The group is pinned and the contact kept.
    ContactAdded {
        /// The newest gd of the group, if it could be had already.
        gd_version: Option<u64>,
        /// Whether the contact's certificate is here: mail can be sealed to it at once.
        certificate: bool,
        /// What could not be had yet and why; it is tried again.
        note: Option<String>,
    },
    /// The contact is gone.
    ContactRemoved {
        /// It was the last of its group, which is not pinned any more.
        unpinned: bool,
    },
    /// Where the group's members are is known, or could not be learned in time.
    Found,
    /// The look for a newer gd ended.
    Freshened {
        /// Whether the one known now is the newest that can be had; else nobody answered.
        fresh: bool,
    },
    /// Where the peer is, if that is newer than what was known; else empty.
    Addrs(Vec<PeerAddr>),
    /// No, and why.
    Refused(GroupError),
}

/// Who is who and where: what the other brains and shells need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The own group.
    pub roster: Arc<Roster>,
    /// What this peer is in it.
    pub role: Role,
    /// Pinned groups, the own one among them.
    pub groups: BTreeMap<GroupName, PinnedGroup>,
    /// Whose cards were added.
    pub contacts: BTreeSet<Address>,
    /// Every peer that may be dialled anywhere: members of pinned groups, and those that a card or invite in use names.
    pub peers: BTreeMap<PeerId, Located>,
    /// Groups that mail waits for and whose key is not pinned, with the keys that say they are theirs.
    pub candidates: Candidates,
    /// This peer's clock is off its members'.
    pub clock_off: bool,
    /// It is off, or was not compared yet since the start: nothing may expire here.
    pub clock_doubtful: bool,
}

/// A group whose key is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedGroup {
    /// The pinned key.
    pub key: Fingerprint,
    /// Keys that came before it.
    pub retired: BTreeSet<Fingerprint>,
    /// The newest gd that it signed.
    pub gd: Option<Arc<GroupDescriptor>>,
    /// That gd as it was signed.
    pub signed_gd: Arc<Vec<u8>>,
}

/// A known peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its address; a card or invite names some peers only by PeerId.
    pub address: Option<Address>,
    /// Where it was last known to be.
    pub addrs: Vec<PeerAddr>,
    /// Its certificate, checked.
    pub certificate: Option<Arc<Vec<u8>>>,
}
