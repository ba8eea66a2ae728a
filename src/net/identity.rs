//! The peer's key and PeerIds in libp2p's types, and back. It makes no keys.

use libp2p::identity::Keypair;
use libp2p::multihash::Multihash;

use crate::model::PeerId;
use crate::wire::PeerKey;

/// libp2p has no use for the key: only a broken build says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libp2p refuses this peer's key: {why}; restore identity/ from a backup")]
pub struct KeyRefused {
    /// What libp2p says.
    pub why: String,
}

/// The peer's key as libp2p takes it.
///
/// # Errors
/// [`KeyRefused`] when libp2p refuses it, which no Ed25519 seed makes it do.
pub fn keypair(key: &PeerKey) -> Result<Keypair, KeyRefused> {
    let mut seed = key.seed();
    Keypair::ed25519_from_bytes(&mut seed[..]).map_err(|e| KeyRefused { why: e.to_string() })
}

/// A PeerId as libp2p takes it; none only when the two disagree on its form.
pub fn to_libp2p(peer: &PeerId) -> Option<libp2p::PeerId> {
    let bytes = peer.to_multihash();
    libp2p::PeerId::from_multihash(Multihash::from_bytes(&bytes).ok()?).ok()
}

/// A PeerId from libp2p's; none when it is not that of an Ed25519 key.
pub fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    PeerId::from_multihash(&peer.to_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_peer_id_are_the_same_in_both_worlds() {
        let key = PeerKey::from_seed(&[5; 32]);
        let theirs = keypair(&key).unwrap().public().to_peer_id();
        assert_eq!(from_libp2p(&theirs), Some(key.peer_id()));
        assert_eq!(to_libp2p(&key.peer_id()), Some(theirs));
        assert_eq!(theirs.to_string(), key.peer_id().to_string());
    }
}
