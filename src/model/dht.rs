//! DHT entries: key x, value v, password p, validity t; several values per key.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::{Address, GroupName};
use super::ids::{Digest, PeerId, Secret};
use super::time::{Span, WallTime};

/// k: how many of the closest live peers store an entry (Kangasharju et al.).
pub const K_CLOSEST: usize = 8;
/// Largest value, bytes.
pub const VALUE_MAX: usize = 64 * 1024;

/// Longest validity t of an entry.
pub const VALIDITY_MAX: Span = Span::days(60);

/// x: what an entry is stored under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhtKey {
    /// `name@group`: peer descriptors.
    Peer(Address),
    /// `group:NAME`: group descriptors.
    Group(GroupName),
    /// `ns:name@group`: send notifications for a reader.
    Ns(Address),
    /// `nr:name@group`: receive notifications for a sender.
    Nr(Address),
}

impl DhtKey {
    /// H(x): where the key lies in Kademlia's space, and all that travels of it.
    pub fn hash(&self) -> Digest {
        Digest::new(blake3::derive_key("roost 1 dht key", self.to_string().as_bytes()))
    }
}

impl fmt::Display for DhtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DhtKey::Peer(a) => write!(f, "{a}"),
            DhtKey::Group(g) => write!(f, "group:{g}"),
            DhtKey::Ns(a) => write!(f, "ns:{a}"),
            DhtKey::Nr(a) => write!(f, "nr:{a}"),
        }
    }
}

/// What the publisher of an entry signs: (H(x), H(v), H(p), absolute expiry). Any holder can re-put it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryTerms {
    /// H(x).
    #[serde(rename = "x")]
    pub key: Digest,
    /// H(v): BLAKE3 of the value.
    #[serde(rename = "v")]
    pub value: Digest,
    /// H(p): BLAKE3 of the password. Only one who knows p can delete the entry.
    #[serde(rename = "p")]
    pub password: Digest,
    /// When it expires.
    #[serde(rename = "t")]
    pub expiry: WallTime,
    /// Who published it, and signed this.
    #[serde(rename = "w")]
    pub publisher: PeerId,
}

impl EntryTerms {
    /// Names the entry: the same for every renewal of it, which differ in expiry only.
    pub fn id(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("roost 1 dht entry id");
        for part in [self.key.as_bytes(), self.value.as_bytes(), self.password.as_bytes(), self.publisher.as_bytes()] {
            hasher.update(part);
        }
        Digest::new(*hasher.finalize().as_bytes())
    }
}

/// H(p) for the password p.
pub fn password_hash(password: &Secret) -> Digest {
    Digest::new(*blake3::hash(password.expose()).as_bytes())
}

/// H(v) for the value v.
pub fn value_hash(value: &[u8]) -> Digest {
    Digest::new(*blake3::hash(value).as_bytes())
}
