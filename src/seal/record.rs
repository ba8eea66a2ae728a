//! Records signed with an OpenPGP key that are no secret: peer descriptors by a peer's key, gd by the group key. Never
//! decides which fingerprint to trust: that is pinned by the caller (R11).
//!
//! The payload is carried as bytes and never re-encoded. What is signed is "roost 1 ", the kind of the record, a zero byte and
//! the payload, in a detached signature.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::ops::Deref;

use openpgp::parse::Parse as _;
use openpgp::parse::stream::DetachedVerifierBuilder;
use openpgp::serialize::stream::{Message, Signer};
use openpgp::types::HashAlgorithm;
use sequoia_openpgp as openpgp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::SealError;
use super::handover;
use super::keys::{Certificate, Holder, POLICY, SecretIdentity, judgement_day};
use super::packets::{Failure, Helper};
use crate::model::dht::VALUE_MAX;
use crate::model::group::{GroupDescriptor, PeerDescriptor};
use crate::model::policy::MEMBERS_MAX;
use crate::model::{Fingerprint, WallTime};
use crate::wire;

/// Largest signed record, bytes: it must fit in a DHT entry.
pub const PGP_RECORD_MAX: usize = VALUE_MAX;
/// Most addresses of a peer.
const ADDRS_MAX: usize = 8;
/// Longest host name, characters (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 253;

/// A record that carries the certificate of the key that signs it.
pub trait PgpRecord: Serialize + DeserializeOwned {
    /// What kind of record it is: part of what is signed.
    const KIND: &'static str;
    /// The certificate of its signer, as it is carried.
    fn certificate(&self) -> &[u8];
    /// Checks what the record says against its signer.
    ///
    /// # Errors
    /// [`SealError::Refused`] says what its signer may not say.
    fn check(&self, signer: &Certificate) -> Result<(), SealError>;
}

#[derive(Serialize, Deserialize)]
struct Container {
    #[serde(rename = "p", with = "serde_bytes")]
    payload: Vec<u8>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: Vec<u8>,
}

/// A record whose signature and content have been checked, or that was signed here, with the bytes that prove it.
#[derive(Clone, PartialEq, Eq)]
pub struct PgpSigned<T> {
    value: T,
    signer: Certificate,
    bytes: Vec<u8>,
}

impl<T> PgpSigned<T> {
    /// The encoded form: what travels and what is kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The certificate of its signer.
    pub fn signer(&self) -> &Certificate {
        &self.signer
    }
    /// The record itself.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for PgpSigned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for PgpSigned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgpSigned({:?} by {:?})", self.value, self.signer)
    }
}

fn signed_bytes(kind: &str, payload: &[u8]) -> Vec<u8> {
    [b"roost 1 ", kind.as_bytes(), b"\0", payload].concat()
}

impl<T: PgpRecord> PgpSigned<T> {
    /// Signs a record that carries the certificate of `key`.
    ///
    /// # Errors
    /// [`SealError::Refused`] when the record would not be believed, so that a wrong one is never published.
    pub fn sign(value: T, key: &SecretIdentity, now: WallTime) -> Result<Self, SealError> {
        if value.certificate() != key.certificate().as_bytes() {
            return Err(SealError::refused(T::KIND, "it carries another certificate than its signer's"));
        }
        value.check(key.certificate())?;
        let payload = wire::encode(&value);
        let signature = sign_detached(&signed_bytes(T::KIND, &payload), key, now)?;
        let bytes = wire::encode(&Container { payload, signature });
        if bytes.len() > PGP_RECORD_MAX {
            return Err(SealError::BombOrTooLarge { what: T::KIND, limit: limit() });
        }
        Ok(Self { value, signer: key.certificate().clone(), bytes })
    }

    /// Opens the encoded form, and checks the signature by the certificate inside and what the record says.
    ///
    /// # Errors
    /// [`SealError`] says what does not fit. Nothing of such a record may be used.
    pub fn verify(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > PGP_RECORD_MAX {
            return Err(SealError::BombOrTooLarge { what: T::KIND, limit: limit() });
        }
        let container: Container = wire::decode(bytes)?;
        let value: T = wire::decode(&container.payload)?;
        let signer = Certificate::parse(value.certificate())?;
        verify_detached(T::KIND, &signed_bytes(T::KIND, &container.payload), &container.signature, &signer)?;
        value.check(&signer)?;
        Ok(Self { value, signer, bytes: bytes.to_vec() })
    }
}

fn limit() -> u64 {
    u64::try_from(PGP_RECORD_MAX).unwrap_or(u64::MAX)
}

fn sign_detached(message: &[u8], key: &SecretIdentity, now: WallTime) -> Result<Vec<u8>, SealError> {
    let failed = |e: openpgp::anyhow::Error| SealError::openpgp("signing", e);
    let mut signature = Vec::new();
    let time = key.signing_time(now);
    let mut signer = Signer::new(Message::new(&mut signature), key.signer())
        .and_then(|s| s.hash_algo(HashAlgorithm::SHA256))
        .and_then(|s| s.creation_time(time).detached().build())
        .map_err(failed)?;
    signer.write_all(message).map_err(|e| SealError::io("signing", e))?;
    signer.finalize().map_err(failed)?;
    Ok(signature)
}

fn verify_detached(
    what: &'static str,
    message: &[u8],
    signature: &[u8],
    signer: &Certificate,
) -> Result<(), SealError> {
    let failure = Failure::default();
    let helper = Helper::new(what, None, signer, &failure);
    let mut verifier = DetachedVerifierBuilder::from_bytes(signature)
        .and_then(|b| b.with_policy(&*POLICY, judgement_day(), helper))
        .map_err(|e| failure.take(what, e))?;
    verifier.verify_bytes(message).map_err(|e| failure.take(what, e))?;
    let unchecked = || SealError::Signature { what, by: signer.fingerprint(), why: "it was never checked".to_owned() };
    verifier.helper_ref().good.as_ref().map(|_| ()).ok_or_else(unchecked)
}

impl PgpRecord for PeerDescriptor {
    const KIND: &'static str = "peer descriptor";
    fn certificate(&self) -> &[u8] {
        &self.certificate
    }
    fn check(&self, signer: &Certificate) -> Result<(), SealError> {
        let refuse = |why: String| Err(SealError::refused(Self::KIND, why));
        if signer.address() != Some(&self.address) {
            return refuse(format!("it is of {} but {} signed it", self.address, signer.holder()));
        }
        if self.addrs.len() > ADDRS_MAX {
            return refuse(format!("it names {} addresses, at most {ADDRS_MAX} are read", self.addrs.len()));
        }
        if self.addrs.iter().any(|a| a.host.is_empty() || a.host.len() > HOST_MAX) {
            return refuse("it names a host of no length or of more than 253 characters".to_owned());
        }
        Ok(())
    }
}

impl PgpRecord for GroupDescriptor {
    const KIND: &'static str = "group descriptor";
    fn certificate(&self) -> &[u8] {
        &self.group_certificate
    }
    fn check(&self, signer: &Certificate) -> Result<(), SealError> {
        let refuse = |why: String| Err(SealError::refused(Self::KIND, why));
        if *signer.holder() != Holder::Group(self.group.clone()) {
            return refuse(format!("it is of group:{} but {} signed it", self.group, signer.holder()));
        }
        if self.members.len() > usize::from(MEMBERS_MAX) {
            return refuse(format!("it names {} members, at most {MEMBERS_MAX} are allowed", self.members.len()));
        }
        let (mut addresses, mut peers, mut keys) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for member in &self.members {
            if *member.address.group() != self.group {
                return refuse(format!("it names {} as a member of {}", member.address, self.group));
            }
            let new = addresses.insert(&member.address) && peers.insert(member.peer_id);
            if !(new && keys.insert(member.fingerprint)) {
                return refuse(format!("it names {}, its PeerId or its fingerprint twice", member.address));
            }
        }
        if let Some(holder) = self.key_holders.iter().find(|h| *h.group() != self.group) {
            return refuse(format!("it names {holder} as a holder of the key of {}", self.group));
        }
        handover::lineage(self, signer)?;
        self.policy.clone().check().map(|_| ()).map_err(|e| SealError::refused(Self::KIND, e))
    }
}

/// Signs a peer descriptor with the peer's own key.
///
/// # Errors
/// [`SealError::Refused`] when it does not fit that key.
pub fn sign_descriptor(
    descriptor: PeerDescriptor,
    me: &SecretIdentity,
    now: WallTime,
) -> Result<PgpSigned<PeerDescriptor>, SealError> {
    PgpSigned::sign(descriptor, me, now)
}

/// Opens a peer descriptor that is signed by the certificate it carries and whose address is that certificate's. Whether that
/// certificate and PeerId are the member's is for the gd to say.
///
/// # Errors
/// [`SealError`] says what does not fit.
pub fn verify_descriptor(bytes: &[u8]) -> Result<PgpSigned<PeerDescriptor>, SealError> {
    PgpSigned::verify(bytes)
}

/// Signs a gd with the group key.
///
/// # Errors
/// [`SealError::Refused`] when it does not fit that key, its members are not distinct, or its policy is impossible.
pub fn sign_gd(
    gd: GroupDescriptor,
    group_key: &SecretIdentity,
    now: WallTime,
) -> Result<PgpSigned<GroupDescriptor>, SealError> {
    PgpSigned::sign(gd, group_key, now)
}

/// Opens a gd that is signed by the group key with the `pinned` fingerprint.
///
/// # Errors
/// [`SealError`] says what does not fit; [`SealError::Refused`] when another key signed it.
pub fn verify_gd(bytes: &[u8], pinned: &Fingerprint) -> Result<PgpSigned<GroupDescriptor>, SealError> {
    let gd = PgpSigned::<GroupDescriptor>::verify(bytes)?;
    if gd.signer().fingerprint() != *pinned {
        let found = gd.signer().fingerprint();
        let why = format_args!("its group key is {found}, the one pinned here is {pinned}");
        return Err(SealError::refused(GroupDescriptor::KIND, why));
    }
    Ok(gd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::group::{Member, PeerAddr};
    use crate::model::{PeerId, Policy};

    const NOW: WallTime = WallTime(1_700_000_000_000);

    fn identity(address: &str) -> SecretIdentity {
        SecretIdentity::generate(&address.parse().unwrap(), NOW).unwrap()
    }

    fn descriptor(me: &SecretIdentity) -> PeerDescriptor {
        PeerDescriptor {
            address: me.certificate().address().unwrap().clone(),
            peer_id: PeerId::new([1; 32]),
            addrs: vec![PeerAddr { host: "192.0.2.1".to_owned(), https: 443, libp2p: 4001 }],
            certificate: me.certificate().as_bytes().to_vec(),
            sequence: 3,
        }
    }

    fn group_key() -> SecretIdentity {
        SecretIdentity::generate_group(&"acme".parse().unwrap(), NOW).unwrap()
    }

    fn gd(key: &SecretIdentity, members: u8) -> GroupDescriptor {
        let member = |i: u8| Member {
            address: format!("m{i}@acme").parse().unwrap(),
            peer_id: PeerId::new([i; 32]),
            fingerprint: Fingerprint::new([i; 20]),
        };
        GroupDescriptor {
            group: "acme".parse().unwrap(),
            version: 1,
            members: (0..members).map(member).collect(),
            policy: Policy::default(),
            key_holders: BTreeSet::from(["m0@acme".parse().unwrap()]),
            min_protocol: 1,
            group_certificate: key.certificate().as_bytes().to_vec(),
            at: NOW,
            handovers: Vec::new(),
            built_on: Vec::new(),
            leaving: BTreeSet::new(),
        }
    }

    fn raw<T: PgpRecord>(kind: &str, value: &T, key: &SecretIdentity) -> Vec<u8> {
        let payload = wire::encode(value);
        let signature = sign_detached(&signed_bytes(kind, &payload), key, NOW).unwrap();
        wire::encode(&Container { payload, signature })
    }

    #[test]
    fn a_descriptor_verifies_and_every_altered_byte_is_noticed() {
        let alice = identity("alice@acme");
        let signed = sign_descriptor(descriptor(&alice), &alice, NOW).unwrap();
        assert_eq!(verify_descriptor(signed.as_bytes()).unwrap(), signed);
        assert_eq!(signed.signer(), alice.certificate());
        for i in 0..signed.as_bytes().len() {
            let mut bytes = signed.as_bytes().to_vec();
            bytes[i] ^= 1;
            let outcome = verify_descriptor(&bytes);
            // Hints in the unhashed area of a signature may change; what is believed may not.
            assert!(outcome.is_err() || *outcome.unwrap() == *signed, "byte {i}");
        }
        assert!(verify_descriptor(&vec![1; PGP_RECORD_MAX + 1]).is_err());
    }

    #[test]
    fn a_forged_descriptor_is_refused() {
        let (alice, mallory) = (identity("alice@acme"), identity("mallory@acme"));
        let good = descriptor(&alice);
        let forged = raw(PeerDescriptor::KIND, &good, &mallory);
        assert!(matches!(verify_descriptor(&forged), Err(SealError::Signature { .. })));
        let other_kind = raw("group descriptor", &good, &alice);
        assert!(matches!(verify_descriptor(&other_kind), Err(SealError::Signature { .. })));
        let not_mine = PeerDescriptor { address: "alice@acme".parse().unwrap(), ..descriptor(&mallory) };
        assert!(matches!(
            verify_descriptor(&raw(PeerDescriptor::KIND, &not_mine, &mallory)),
            Err(SealError::Refused { .. })
        ));
        assert!(sign_descriptor(good.clone(), &mallory, NOW).is_err());
        let many = PeerDescriptor { addrs: vec![good.addrs[0].clone(); 9], ..good.clone() };
        assert!(verify_descriptor(&raw(PeerDescriptor::KIND, &many, &alice)).is_err());
        let long = PeerAddr { host: "h".repeat(254), https: 1, libp2p: 1 };
        assert!(sign_descriptor(PeerDescriptor { addrs: vec![long], ..good }, &alice, NOW).is_err());
    }

    #[test]
    fn a_gd_is_believed_only_under_the_pinned_key() {
        let (key, other) = (group_key(), group_key());
        let signed = sign_gd(gd(&key, 5), &key, NOW).unwrap();
        assert_eq!(verify_gd(signed.as_bytes(), &key.fingerprint()).unwrap(), signed);
        let under_other = verify_gd(signed.as_bytes(), &other.fingerprint());
        assert!(matches!(under_other, Err(SealError::Refused { .. })));
        let forged = raw(GroupDescriptor::KIND, &gd(&key, 5), &other);
        assert!(matches!(verify_gd(&forged, &key.fingerprint()), Err(SealError::Signature { .. })));
        let by_peer = identity("acme@acme");
        let mut gd = gd(&key, 5);
        gd.group_certificate = by_peer.certificate().as_bytes().to_vec();
        let forged = raw(GroupDescriptor::KIND, &gd, &by_peer);
        assert!(matches!(verify_gd(&forged, &by_peer.fingerprint()), Err(SealError::Refused { .. })));
    }

    #[test]
    fn a_gd_of_a_hundred_members_fits_and_impossible_ones_are_refused() {
        let key = group_key();
        let signed = sign_gd(gd(&key, 100), &key, NOW).unwrap();
        assert!(signed.as_bytes().len() < PGP_RECORD_MAX / 2, "{}", signed.as_bytes().len());
        let refused = |change: &dyn Fn(&mut GroupDescriptor)| {
            let mut gd = gd(&key, 5);
            change(&mut gd);
            let bytes = raw(GroupDescriptor::KIND, &gd, &key);
            matches!(verify_gd(&bytes, &key.fingerprint()), Err(SealError::Refused { .. }))
        };
        assert!(refused(&|gd| gd.members = super::tests::gd(&key, 101).members));
        assert!(refused(&|gd| gd.members[1].address = gd.members[0].address.clone()));
        assert!(refused(&|gd| gd.members[1].peer_id = gd.members[0].peer_id));
        assert!(refused(&|gd| gd.members[1].fingerprint = gd.members[0].fingerprint));
        assert!(refused(&|gd| gd.members[1].address = "m1@beta".parse().unwrap()));
        assert!(refused(&|gd| gd.key_holders = BTreeSet::from(["m0@beta".parse().unwrap()])));
        assert!(refused(&|gd| gd.policy.fragments.k = 0));
        assert!(refused(&|gd| gd.group = "beta".parse().unwrap()));
    }

    #[test]
    fn a_gd_of_a_later_version_with_more_keys_opens() {
        use ciborium::Value;

        /// The value under `key` of a map.
        fn at<'a>(map: &'a mut Value, key: &str) -> &'a mut Value {
            let pairs = map.as_map_mut().unwrap();
            &mut pairs.iter_mut().find(|(name, _)| name.as_text() == Some(key)).unwrap().1
        }
        fn add_key(map: &mut Value) {
            map.as_map_mut().unwrap().push((Value::from("later"), Value::from(1)));
        }

        let key = group_key();
        let known = gd(&key, 3);
        let mut later: Value = wire::decode(&wire::encode(&known)).unwrap();
        add_key(&mut later);
        add_key(at(&mut later, "p"));
        add_key(at(at(&mut later, "p"), "fragments"));
        let payload = wire::encode(&later);
        let signature = sign_detached(&signed_bytes(GroupDescriptor::KIND, &payload), &key, NOW).unwrap();
        let bytes = wire::encode(&Container { payload, signature });
        let opened = verify_gd(&bytes, &key.certificate().fingerprint()).unwrap();
        assert_eq!(*opened, known);
        assert_eq!(opened.as_bytes(), bytes, "it is handed on with what is not understood");
    }
}
