use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use bytes::Bytes;

use super::*;
use crate::actors::directory::{KnownGroup, KnownPeer};
use crate::fragment::check_part;
use crate::mime::split::split;
use crate::model::group::Roster;
use crate::model::{ByteSize, Part, WallTime};
use crate::seal::{SecretIdentity, decrypt_ns, open_for_owner, open_mail};
use crate::wire::{PeerKey, Signed};

const NOW: WallTime = WallTime(1_700_000_000_000);
const MAIL: &[u8] = b"From: alice@acme\r\nTo: bob@acme, carol@acme\r\nSubject: hens\r\n\r\nsix of them\r\n";

/// Alice's desk, and the keys of those she writes to.
struct Desk {
    _dir: tempfile::TempDir,
    sealer: Sealer,
    readers: Vec<SecretIdentity>,
    job: SealJob,
}

fn address(name: &str) -> Address {
    name.parse().unwrap()
}

/// A peer with this address that is known with its certificate.
fn known(who: &Address, secret: &SecretIdentity, n: u8) -> (PeerId, KnownPeer) {
    let peer_id = PeerKey::from_seed(&[n; 32]).peer_id();
    let certificate = Some(Arc::new(secret.certificate().as_bytes().to_vec()));
    (peer_id, KnownPeer { address: Some(who.clone()), peer_id, addrs: Vec::new(), certificate })
}

async fn desk(mail: &[u8], policy: Policy) -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let alice = address("alice@acme");
    Identity::create(&home, &alice, NOW).unwrap();
    let identity = Identity::load(&home).unwrap();
    let names = [address("bob@acme"), address("carol@acme")];
    let readers: Vec<SecretIdentity> = names.iter().map(|a| SecretIdentity::generate(a, NOW).unwrap()).collect();
    let peers: BTreeMap<PeerId, KnownPeer> =
        (7u8..).zip(names.iter().zip(&readers)).map(|(n, (who, secret))| known(who, secret, n)).collect();
    let receivers = (7u8..)
        .zip(names.iter().zip(&readers))
        .map(|(n, (who, secret))| (who.clone(), secret.fingerprint(), PeerKey::from_seed(&[n; 32]).peer_id()));
    let receivers = receivers.collect();
    let me = identity.member(&alice);
    let roster = Arc::new(Roster {
        members: vec![me.clone()],
        me,
        group: alice.group().clone(),
        gd_version: 1,
        policy: policy.clone(),
        lost: BTreeSet::new(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    });
    let group = KnownGroup {
        key: Fingerprint::new([5; 20]),
        retired: std::collections::BTreeSet::new(),
        gd: None,
        signed_gd: Arc::default(),
    };
    let groups = BTreeMap::from([(alice.group().clone(), group)]);
    let directory = Directory::new(Snapshot { roster, groups, contacts: BTreeSet::new(), peers });
    let clock = Clock::fixed(NOW);
    let spool = Spool::new(home.clone(), clock.clone());
    let mut begun = spool.begin().unwrap();
    let submission = begun.submission();
    begun.write(Bytes::copy_from_slice(mail)).await.unwrap();
    begun.commit(names.to_vec(), split(mail)).await.unwrap();
    let codec = Arc::new(Codec::default());
    let job = SealJob { submission, receivers, expiry: WallTime(NOW.0 + 1000), policy, others: 5 };
    let fresh = FreshNotices::default();
    let sealer = Sealer { home, address: alice, identity, spool, directory, codec, clock, fresh };
    Desk { _dir: dir, sealer, readers, job }
}

fn sealed(desk: &Desk) -> (Vec<SealedReceiver>, MailEntry) {
    match desk.sealer.seal(&desk.job) {
        Input::Sealed { receivers, entry, .. } => (receivers, entry),
        other => panic!("{other:?}"),
    }
}
fn failure(desk: &Desk) -> SealFailure {
    match desk.sealer.seal(&desk.job) {
        Input::SealFailed { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_blob_opens_for_each_receiver_and_for_the_owner_and_each_has_its_own_ns() {
    let desk = desk(MAIL, Policy::default()).await;
    let (receivers, entry) = sealed(&desk);
    let own = &desk.sealer.identity.openpgp;
    for reader in desk.readers.iter().chain([&**own]) {
        let blob = File::open(desk.sealer.home.outbox_blob(&entry.h)).unwrap();
        let mut clear = Vec::new();
        open_mail(blob, reader, own.certificate(), 1 << 20, &mut clear).unwrap();
        assert_eq!(clear, MAIL);
    }
    assert!(receivers[0].secret != receivers[1].secret);
    for (receiver, reader) in receivers.iter().zip(&desk.readers) {
        let notice = sealed_notice(&desk.sealer.home, &entry.h, &receiver.address).unwrap();
        assert_eq!(value_hash(&notice), receiver.ns);
        let ns = decrypt_ns(&notice, reader).unwrap().verify(own.certificate()).unwrap();
        assert_eq!(
            (ns.h, ns.length, ns.digest, ns.submission),
            (entry.h, entry.length, entry.digest, desk.job.submission)
        );
        assert_eq!(ns.secret, receiver.secret);
        assert!(MAIL.starts_with(&ns.header_block));
    }
    let note: OwnerNote = decode(&open_for_owner(&entry.for_owner, own).unwrap()).unwrap();
    assert_eq!((note.submission, note.receivers), (desk.job.submission, receivers));
}

#[tokio::test]
async fn blob_and_signed_manifest_agree_in_either_encoding() {
    let fragments = Policy { whole_below: ByteSize(0), ..Policy::default() };
    for (policy, encoding) in [(Policy::default(), Encoding::Whole), (fragments, Encoding::Fragments { k: 3, n: 5 })] {
        let desk = desk(MAIL, policy).await;
        let (_, entry) = sealed(&desk);
        assert_eq!(entry.encoding, encoding);
        let path = desk.sealer.home.outbox_manifest(&entry.h);
        let bytes = std::fs::read(&path).unwrap();
        let alone = usize::try_from(manifests::open(&path).unwrap().1).unwrap();
        let manifest = Signed::<Manifest>::verify(&bytes[..alone]).unwrap();
        assert_eq!((manifest.h, manifest.length, manifest.digest), (entry.h, entry.length, entry.digest));
        assert_eq!(manifest.owner, desk.sealer.identity.peer_id());
        let blob = File::open(desk.sealer.home.outbox_blob(&entry.h)).unwrap();
        assert!(check_part(&manifest, Part::Whole, blob).unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_clear_mail_is_nowhere_but_in_the_spool() {
    let desk = desk(MAIL, Policy::default()).await;
    let (_, entry) = sealed(&desk);
    let home = &desk.sealer.home;
    for file in [home.outbox_blob(&entry.h), home.outbox_manifest(&entry.h)] {
        let bytes = std::fs::read(&file).unwrap();
        for canary in [&b"six of them"[..], b"hens"] {
            assert!(!bytes.windows(canary.len()).any(|w| w == canary), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn only_a_mail_that_is_gone_counts_as_lost() {
    let mut desk = desk(MAIL, Policy::default()).await;
    let right = desk.job.receivers[0].1;
    desk.job.receivers[0].1 = Fingerprint::new([9; 20]);
    assert_eq!(failure(&desk), SealFailure::Certificates(vec![address("bob@acme")]));
    desk.job.receivers[0].1 = right;
    let blobs = desk.sealer.home.outbox_dir();
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::write(&blobs, b"in the way").unwrap();
    assert!(matches!(failure(&desk), SealFailure::Again(_)));
    std::fs::remove_file(&blobs).unwrap();
    sealed(&desk);
    desk.sealer.spool.remove(&desk.job.submission).unwrap();
    assert_eq!(failure(&desk), SealFailure::NoSpool);
}
