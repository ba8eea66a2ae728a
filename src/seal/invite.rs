//! The proof that a joining peer knows an invite's secret, bound to who it is. Never sends the secret, never stores it.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::model::{Fingerprint, PeerId, Secret};

/// Names the purpose, so that the proof is good for nothing else.
const PURPOSE: &[u8] = b"roost 1 join proof\0";

fn mac(secret: &Secret, peer: &PeerId, member: &Fingerprint, group_key: &Fingerprint) -> Hmac<Sha256> {
    // HMAC pads a key of any length to the block; 32 bytes fit in it as they are (RFC 2104 section 2).
    let mut block = [0u8; 64];
    block[..32].copy_from_slice(secret.expose());
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new(&block.into());
    zeroize::Zeroize::zeroize(&mut block);
    // Every field has a fixed length, so the fields cannot run into each other.
    mac.update(PURPOSE);
    mac.update(peer.as_bytes());
    mac.update(member.as_bytes());
    mac.update(group_key.as_bytes());
    mac
}

/// HMAC-SHA256 under the invite's secret over (PeerId, member's fingerprint, group key's fingerprint).
pub fn join_proof(secret: &Secret, peer: &PeerId, member: &Fingerprint, group_key: &Fingerprint) -> [u8; 32] {
    mac(secret, peer, member, group_key).finalize().into_bytes().into()
}

/// Whether `proof` is the join proof of that peer under that secret. Takes the same time whatever byte differs.
pub fn check_join_proof(
    proof: &[u8],
    secret: &Secret,
    peer: &PeerId,
    member: &Fingerprint,
    group_key: &Fingerprint,
) -> bool {
    mac(secret, peer, member, group_key).verify_slice(proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_proof_is_good_for_one_peer_key_group_and_secret() {
        let (secret, peer) = (Secret::new([1; 32]), PeerId::new([2; 32]));
        let (member, group) = (Fingerprint::new([3; 20]), Fingerprint::new([4; 20]));
        let proof = join_proof(&secret, &peer, &member, &group);
        assert!(check_join_proof(&proof, &secret, &peer, &member, &group));
        assert!(!check_join_proof(&proof, &Secret::new([9; 32]), &peer, &member, &group));
        assert!(!check_join_proof(&proof, &secret, &PeerId::new([9; 32]), &member, &group));
        assert!(!check_join_proof(&proof, &secret, &peer, &Fingerprint::new([9; 20]), &group));
        assert!(!check_join_proof(&proof, &secret, &peer, &group, &member));
        assert!(!check_join_proof(&proof[..31], &secret, &peer, &member, &group));
    }

    #[test]
    fn the_proof_is_plain_hmac_sha256_of_the_named_fields() {
        let (secret, peer) = (Secret::new([1; 32]), PeerId::new([2; 32]));
        let (member, group) = (Fingerprint::new([3; 20]), Fingerprint::new([4; 20]));
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.expose()).unwrap();
        mac.update(&[PURPOSE, &[2; 32], &[3; 20], &[4; 20]].concat());
        let expected: [u8; 32] = mac.finalize().into_bytes().into();
        assert_eq!(join_proof(&secret, &peer, &member, &group), expected);
    }
}
