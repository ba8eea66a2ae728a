//! Who is who and where: the snapshot that `GroupMaster` publishes and every shell reads. It never asks anybody anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::model::group::{GroupDescriptor, PeerAddr, Roster};
use crate::model::{Address, Fingerprint, GroupName, PeerId};
use crate::net::locate::{Locate, Located};

/// A peer that this one knows by a verified gd or card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its address; a card names some peers only by PeerId.
    pub address: Option<Address>,
    /// Who it is.
    pub peer_id: PeerId,
    /// Where it was last known to be; it may be dialled there (DESIGN.md section 4, HTTPS).
    pub addrs: Vec<PeerAddr>,
    /// Its OpenPGP certificate, once that was fetched and checked against the gd's fingerprint.
    pub certificate: Option<Arc<Vec<u8>>>,
}

/// A group whose key is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownGroup {
    /// The pinned key: the trust root of every `name@group`.
    pub key: Fingerprint,
    /// Keys that came before it: what is not signed by a key, and only names it, may still name one of these.
    pub retired: BTreeSet<Fingerprint>,
    /// The newest gd that this key signed, once there is one.
    pub gd: Option<Arc<GroupDescriptor>>,
    /// That gd as it was signed.
    pub signed_gd: Arc<Vec<u8>>,
}

/// One consistent picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The own group.
    pub roster: Arc<Roster>,
    /// Pinned groups, the own one among them.
    pub groups: BTreeMap<GroupName, KnownGroup>,
    /// Whose cards were added.
    pub contacts: BTreeSet<Address>,
    /// Known peers.
    pub peers: BTreeMap<PeerId, KnownPeer>,
}

impl KnownGroup {
    /// Whether `key` is the group's, now or before it was replaced.
    pub fn goes_by(&self, key: &Fingerprint) -> bool {
        self.key == *key || self.retired.contains(key)
    }
}

impl Snapshot {
    /// The member of a pinned group that has this address.
    pub fn at(&self, address: &Address) -> Option<&KnownPeer> {
        let gd = self.groups.get(address.group())?.gd.as_ref()?;
        self.peers.get(&gd.member_at(address)?.peer_id)
    }
    /// Whether the address is known not to exist: its group is pinned, and the gd does not name it.
    pub fn is_unknown(&self, address: &Address) -> bool {
        let gd = self.groups.get(address.group()).and_then(|g| g.gd.as_ref());
        gd.is_some_and(|gd| gd.member_at(address).is_none())
    }
}

/// The current [`Snapshot`]; cheap to clone and to read from any thread.
#[derive(Debug, Clone)]
pub struct Directory(Arc<RwLock<Arc<Snapshot>>>);

impl Directory {
    /// A directory that starts with `snapshot`.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(snapshot))))
    }
    /// The picture now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        match self.0.read() {
            Ok(current) => current.clone(),
            // A snapshot is replaced whole, so a writer that panicked left a good one.
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }
    /// Replaces the picture. Only `GroupMaster`'s shell does.
    pub fn publish(&self, snapshot: Snapshot) {
        match self.0.write() {
            Ok(mut current) => *current = Arc::new(snapshot),
            Err(poisoned) => *poisoned.into_inner() = Arc::new(snapshot),
        }
    }
}

/// The directory as the connector sees it. Everybody in it was named by a verified gd, a card or an invite in use, so its
/// private addresses may be dialled too.
#[derive(Debug, Clone)]
pub struct Locator {
    directory: Directory,
    /// `[net] dial_private`.
    dial_private: bool,
    /// Peers that could not be dialled, for whoever looks their descriptors up again.
    failed: mpsc::Sender<PeerId>,
}

impl Locator {
    /// A locator that reports failed dials to `failed`.
    pub fn new(directory: Directory, dial_private: bool, failed: mpsc::Sender<PeerId>) -> Self {
        Self { directory, dial_private, failed }
    }
    fn located(&self, peer: &PeerId) -> Located {
        let snapshot = self.directory.snapshot();
        match snapshot.peers.get(peer) {
            Some(known) => Located { addrs: known.addrs.clone(), private: true },
            None => Located { addrs: Vec::new(), private: self.dial_private },
        }
    }
}

impl Locate for Locator {
    fn locate(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        Box::pin(async move { self.located(&peer) })
    }
    fn locate_again(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        Box::pin(async move {
            // A full queue means that many look-ups are due already; the brain limits them to one a minute a peer.
            let _ = self.failed.try_send(peer);
            Located::default()
        })
    }
}
