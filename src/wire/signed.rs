//! Records signed with a peer's own Ed25519 key: msglist heads, tombstones, manifests, holdings, views, DHT terms.
//!
//! A [`Signed<T>`] that exists has been verified, or was signed here. The payload is carried as bytes and never re-encoded.

use std::fmt;
use std::ops::Deref;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cbor::{self, WireError};
use crate::model::PeerId;
use crate::model::dht::EntryTerms;
use crate::model::group::View;
use crate::model::holding::Holdings;
use crate::model::manifest::Manifest;
use crate::model::msglist::{Head, SignedTombstone, Tombstone};

/// A record that names its signer.
pub trait SignedRecord: Serialize + DeserializeOwned {
    /// What kind of record it is: part of what is signed, so that one kind cannot pass for another.
    const KIND: &'static str;
    /// The peer whose key must have signed it.
    fn signer(&self) -> &PeerId;
}

macro_rules! signed_record {
    ($type:ty, $kind:literal, $field:ident) => {
        impl SignedRecord for $type {
            const KIND: &'static str = $kind;
            fn signer(&self) -> &PeerId {
                &self.$field
            }
        }
    };
}
signed_record!(Tombstone, "tombstone", owner);
signed_record!(Head, "msglist head", owner);
signed_record!(Manifest, "manifest", owner);
signed_record!(Holdings, "holdings", member);
signed_record!(View, "view", master);
signed_record!(EntryTerms, "dht terms", publisher);

#[derive(Serialize, Deserialize)]
struct Container {
    #[serde(rename = "p", with = "serde_bytes")]
    payload: Vec<u8>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: Vec<u8>,
}

/// A verified record together with the bytes that prove it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed<T> {
    value: T,
    bytes: Vec<u8>,
}

impl<T> Signed<T> {
    /// The encoded form: what travels and what is kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The record itself.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T: SignedRecord> Signed<T> {
    /// Opens the encoded form and checks the signature of the peer that the record names.
    ///
    /// # Errors
    /// [`WireError`] when it is malformed or the signature does not fit.
    pub fn verify(bytes: &[u8]) -> Result<Self, WireError> {
        let container: Container = cbor::decode(bytes)?;
        let value: T = cbor::decode(&container.payload)?;
        verify_bytes(T::KIND, value.signer(), &container.payload, &container.signature)?;
        Ok(Self { value, bytes: bytes.to_vec() })
    }
}

/// What a signed record says that was verified before, and was kept where nobody else writes since.
///
/// # Errors
/// [`WireError`] when it is none.
pub fn verified_before<T: SignedRecord>(bytes: &[u8]) -> Result<T, WireError> {
    let container: Container = cbor::decode(bytes)?;
    cbor::decode(&container.payload)
}

impl<T> Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({:?})", self.value)
    }
}

impl Signed<Tombstone> {
    /// Its form inside a msglist entry.
    pub fn to_entry(&self) -> SignedTombstone {
        SignedTombstone(self.bytes.clone())
    }
}

fn message(kind: &str, payload: &[u8]) -> Vec<u8> {
    [b"roost 1 ", kind.as_bytes(), b"\0", payload].concat()
}

/// Checks that `signer` signed `payload` as a record of `kind`.
///
/// # Errors
/// [`WireError::Signature`] when it did not.
pub fn verify_bytes(kind: &'static str, signer: &PeerId, payload: &[u8], signature: &[u8]) -> Result<(), WireError> {
    let bad = || WireError::Signature { what: kind, signer: signer.to_string() };
    let key = VerifyingKey::from_bytes(signer.as_bytes()).map_err(|_| bad())?;
    let signature = Signature::from_slice(signature).map_err(|_| bad())?;
    key.verify_strict(&message(kind, payload), &signature).map_err(|_| bad())
}

/// A peer's own Ed25519 key: its libp2p identity. Signing is deterministic, so brains may do it. It never prints.
#[derive(Clone)]
pub struct PeerKey(SigningKey);

impl PeerKey {
    /// The key with this seed (RFC 8032 section 5.1.5), 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }
    /// The seed, for `identity/` on disk and for libp2p.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }
    /// The public half.
    pub fn peer_id(&self) -> PeerId {
        PeerId::new(self.0.verifying_key().to_bytes())
    }
    /// Signs `payload` as a record of `kind`.
    pub fn sign_bytes(&self, kind: &str, payload: &[u8]) -> [u8; 64] {
        self.0.sign(&message(kind, payload)).to_bytes()
    }
    /// Signs a record that names this peer as its signer.
    pub fn sign<T: SignedRecord>(&self, value: T) -> Signed<T> {
        debug_assert_eq!(*value.signer(), self.peer_id(), "a {} must name the peer that signs it", T::KIND);
        let payload = cbor::encode(&value);
        let signature = self.sign_bytes(T::KIND, &payload).to_vec();
        let bytes = cbor::encode(&Container { payload, signature });
        Signed { value, bytes }
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", self.peer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::msglist::Ending;
    use crate::model::{MailId, WallTime};

    fn tombstone(owner: PeerId) -> Tombstone {
        Tombstone { owner, h: MailId::new([1; 20]), ending: Ending::Received, at: WallTime(1), expiry: WallTime(2) }
    }

    #[test]
    fn a_signed_record_verifies_and_an_altered_one_does_not() {
        let key = PeerKey::from_seed(&[9; 32]);
        let signed = key.sign(tombstone(key.peer_id()));
        assert_eq!(Signed::<Tombstone>::verify(signed.as_bytes()).unwrap(), signed);
        for i in 0..signed.as_bytes().len() {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[i] ^= 1;
            assert!(Signed::<Tombstone>::verify(&bytes).is_err(), "byte {i}");
        }
    }

    #[test]
    fn a_record_signed_by_somebody_else_is_refused() {
        let (mine, other) = (PeerKey::from_seed(&[1; 32]), PeerKey::from_seed(&[2; 32]));
        let payload = cbor::encode(&tombstone(mine.peer_id()));
        let signature = other.sign_bytes("tombstone", &payload).to_vec();
        let forged = cbor::encode(&Container { payload, signature });
        assert!(matches!(Signed::<Tombstone>::verify(&forged), Err(WireError::Signature { .. })));
    }
}
