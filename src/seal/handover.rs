//! How a group key is replaced and handed on: the key before signs the key after it, and a key travels only sealed to the
//! certificate of the member that is to hold it. It never decides who may hold it or which key is pinned.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::SealError;
use super::keys::{Certificate, Holder, SecretIdentity};
use super::notice::{decrypt_record, seal_record, verify_record};
use super::record::{PgpRecord, PgpSigned};
use crate::model::group::{GroupDescriptor, HANDOVERS_MAX, KeyHandover};
use crate::model::{Address, Fingerprint, GroupName, WallTime};
use crate::wire;

/// What is sealed to a member that is to hold the group key.
const GROUP_KEY: &str = "group key";

impl PgpRecord for KeyHandover {
    const KIND: &'static str = "key handover";
    fn certificate(&self) -> &[u8] {
        &self.from_certificate
    }
    fn check(&self, signer: &Certificate) -> Result<(), SealError> {
        if *signer.holder() != Holder::Group(self.group.clone()) {
            let why = format_args!("it is of group:{} but {} signed it", self.group, signer.holder());
            return Err(SealError::refused(Self::KIND, why));
        }
        if self.to == signer.fingerprint() {
            return Err(SealError::refused(Self::KIND, "it hands a key over to itself"));
        }
        Ok(())
    }
}

/// The old group key's word for the new one.
///
/// # Errors
/// [`SealError`] when it cannot be signed, or both are one key or of different groups.
pub fn sign_handover(old: &SecretIdentity, new: &Certificate, now: WallTime) -> Result<Vec<u8>, SealError> {
    let Holder::Group(group) = new.holder() else {
        return Err(SealError::refused(KeyHandover::KIND, format_args!("{} is no group", new.holder())));
    };
    let from_certificate = old.certificate().as_bytes().to_vec();
    let handover = KeyHandover { group: group.clone(), from_certificate, to: new.fingerprint(), at: now };
    Ok(PgpSigned::sign(handover, old, now)?.as_bytes().to_vec())
}

/// The keys before the one that signed this gd, the oldest first, each of which signed the next.
///
/// # Errors
/// [`SealError`] when a handover in it is not well signed, or they are no chain that ends at `signer`.
pub fn lineage(gd: &GroupDescriptor, signer: &Certificate) -> Result<Vec<Fingerprint>, SealError> {
    let refuse = |why: &str| Err(SealError::refused(KeyHandover::KIND, why));
    if gd.handovers.len() > HANDOVERS_MAX {
        return refuse("the group descriptor carries more of them than are read");
    }
    let mut keys: Vec<Fingerprint> = Vec::new();
    let mut next = None;
    for bytes in &gd.handovers {
        let handover = PgpSigned::<KeyHandover>::verify(bytes)?;
        let from = handover.signer().fingerprint();
        if handover.group != gd.group || next.is_some_and(|next| next != from) || keys.contains(&from) {
            return refuse("they are not one chain of this group's keys");
        }
        keys.push(from);
        next = Some(handover.to);
    }
    if next.is_some_and(|next| next != signer.fingerprint()) || keys.contains(&signer.fingerprint()) {
        return refuse("the last one names another key than the one that signed the group descriptor");
    }
    Ok(keys)
}

#[derive(Serialize, Deserialize)]
struct Handed {
    #[serde(rename = "g")]
    group: GroupName,
    #[serde(rename = "a")]
    to: Address,
    #[serde(rename = "k", with = "serde_bytes")]
    key: Vec<u8>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// Seals the group key to a member, signed by `me`, who holds it.
///
/// # Errors
/// [`SealError`] when `key` is no group's or it cannot be sealed.
pub fn seal_group_key(
    key: &SecretIdentity,
    me: &SecretIdentity,
    to: &Certificate,
    now: WallTime,
) -> Result<Vec<u8>, SealError> {
    let (Holder::Group(group), Some(address)) = (key.certificate().holder(), to.address()) else {
        return Err(SealError::refused(GROUP_KEY, "only a group's key is handed on, and only to a peer"));
    };
    let handed = Handed { group: group.clone(), to: address.clone(), key: key.to_bytes()?.to_vec() };
    let record = Zeroizing::new(wire::encode(&handed));
    seal_record(GROUP_KEY, &record, me, to, now)
}

/// Opens what [`seal_group_key`] sealed for `me`; `from` is the member that was asked.
///
/// # Errors
/// [`SealError`] when it is not for this peer, not signed by `from`, of another group, or not the `wanted` key.
pub fn open_group_key(
    sealed: &[u8],
    me: &SecretIdentity,
    from: &Certificate,
    group: &GroupName,
    wanted: &Fingerprint,
) -> Result<SecretIdentity, SealError> {
    let signed = decrypt_record(GROUP_KEY, sealed, me)?;
    let record = Zeroizing::new(verify_record(GROUP_KEY, &signed, from)?);
    let handed: Handed = wire::decode(&record)?;
    if handed.group != *group || me.certificate().address() != Some(&handed.to) {
        return Err(SealError::refused(GROUP_KEY, format_args!("it is for {} of group:{}", handed.to, handed.group)));
    }
    let key = SecretIdentity::from_bytes(&handed.key)?;
    if key.fingerprint() != *wanted {
        let why = format_args!("it is {}, the group's is {wanted}", key.fingerprint());
        return Err(SealError::refused(GROUP_KEY, why));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Policy;
    use crate::seal::record::{sign_gd, verify_gd};
    use serde_bytes::ByteBuf;

    const NOW: WallTime = WallTime(1_700_000_000_000);

    fn group() -> SecretIdentity {
        SecretIdentity::generate_group(&"acme".parse().unwrap(), NOW).unwrap()
    }
    fn peer(address: &str) -> SecretIdentity {
        SecretIdentity::generate(&address.parse().unwrap(), NOW).unwrap()
    }

    fn gd(key: &SecretIdentity, handovers: &[Vec<u8>]) -> GroupDescriptor {
        GroupDescriptor {
            group: "acme".parse().unwrap(),
            version: 9,
            members: Vec::new(),
            policy: Policy::default(),
            key_holders: std::collections::BTreeSet::new(),
            min_protocol: 1,
            group_certificate: key.certificate().as_bytes().to_vec(),
            at: NOW,
            handovers: handovers.iter().cloned().map(ByteBuf::from).collect(),
            built_on: Vec::new(),
            leaving: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn each_key_signs_the_next_and_a_broken_chain_is_refused() {
        let (a, b, c, thief) = (group(), group(), group(), group());
        let hand = |old: &SecretIdentity, new: &SecretIdentity| sign_handover(old, new.certificate(), NOW).unwrap();
        let chain = [hand(&a, &b), hand(&b, &c)];
        let signed = sign_gd(gd(&c, &chain), &c, NOW).unwrap();
        let opened = verify_gd(signed.as_bytes(), &c.fingerprint()).unwrap();
        assert_eq!(lineage(&opened, opened.signer()).unwrap(), [a.fingerprint(), b.fingerprint()]);
        // A key that nobody signed for, a link that is missing, and links in the wrong order.
        assert!(sign_gd(gd(&thief, &chain), &thief, NOW).is_err());
        assert!(sign_gd(gd(&c, &[hand(&a, &b)]), &c, NOW).is_err());
        assert!(sign_gd(gd(&c, &[hand(&b, &c), hand(&a, &b)]), &c, NOW).is_err());
        assert!(sign_gd(gd(&c, &[hand(&a, &b), hand(&thief, &c)]), &c, NOW).is_err());
        // Every altered byte of a link is noticed, or changes nothing.
        for i in 0..chain[1].len() {
            let mut altered = chain.clone();
            altered[1][i] ^= 1;
            let read = lineage(&gd(&c, &altered), c.certificate());
            assert!(read.is_err() || read.unwrap() == [a.fingerprint(), b.fingerprint()], "byte {i}");
        }
        assert!(sign_handover(&a, a.certificate(), NOW).is_err(), "to itself");
        assert!(sign_handover(&a, peer("alice@acme").certificate(), NOW).is_err(), "to a peer");
    }

    #[test]
    fn sixteen_handovers_and_a_hundred_members_fit_a_dht_entry() {
        let keys: Vec<SecretIdentity> = (0..=HANDOVERS_MAX).map(|_| group()).collect();
        let links: Vec<Vec<u8>> =
            keys.windows(2).map(|two| sign_handover(&two[0], two[1].certificate(), NOW).unwrap()).collect();
        let mut large = gd(keys.last().unwrap(), &links);
        large.members = (0..100)
            .map(|i: u8| crate::model::group::Member {
                address: format!("a-rather-long-name-of-a-member-{i}@acme").parse().unwrap(),
                peer_id: crate::model::PeerId::new([i; 32]),
                fingerprint: Fingerprint::new([i; 20]),
            })
            .collect();
        large.built_on = vec![crate::model::Digest::new([1; 32]); crate::model::group::BUILT_ON_MAX];
        let signed = sign_gd(large, keys.last().unwrap(), NOW).unwrap();
        assert!(signed.as_bytes().len() < 48 * 1024, "{}", signed.as_bytes().len());
    }

    #[test]
    fn r10_the_group_key_reaches_only_the_member_it_is_sealed_to() {
        let (key, alice, bob, carol) = (group(), peer("alice@acme"), peer("bob@acme"), peer("carol@acme"));
        let acme: GroupName = "acme".parse().unwrap();
        let sealed = seal_group_key(&key, &alice, bob.certificate(), NOW).unwrap();
        let secret = key.to_bytes().unwrap();
        assert!(!sealed.windows(32).any(|window| secret.windows(32).any(|part| part == window)), "in the clear");
        let wanted = key.fingerprint();
        let opened = open_group_key(&sealed, &bob, alice.certificate(), &acme, &wanted).unwrap();
        assert_eq!(opened.to_bytes().unwrap(), secret);
        assert!(open_group_key(&sealed, &carol, alice.certificate(), &acme, &wanted).is_err(), "somebody else");
        assert!(open_group_key(&sealed, &bob, carol.certificate(), &acme, &wanted).is_err(), "another sender");
        assert!(open_group_key(&sealed, &bob, alice.certificate(), &acme, &group().fingerprint()).is_err());
        let other = "other".parse().unwrap();
        assert!(open_group_key(&sealed, &bob, alice.certificate(), &other, &wanted).is_err());
        assert!(seal_group_key(&alice, &alice, bob.certificate(), NOW).is_err(), "only a group's key");
    }
}
