use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use tokio::runtime::Builder;

use super::*;
use crate::actors::directory::{KnownGroup, KnownPeer};
use crate::actors::presealer::{Presealer, Room};
use crate::actors::spool::Begun;
use crate::fragment::check_part;
use crate::mime::split::split;
use crate::model::group::{GroupDescriptor, Member, PROTOCOL, Roster};
use crate::model::{ByteSize, Encoding, Part, Policy, WallTime};
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

fn gd(me: &Member, names: &[Address], receivers: &[(Address, Fingerprint, PeerId)]) -> GroupDescriptor {
    let others = receivers.iter().map(|(address, fingerprint, peer_id)| Member {
        address: address.clone(),
        peer_id: *peer_id,
        fingerprint: *fingerprint,
    });
    GroupDescriptor {
        group: names[0].group().clone(),
        version: 1,
        members: std::iter::once(me.clone()).chain(others).collect(),
        policy: Policy::default(),
        key_holders: BTreeSet::new(),
        min_protocol: PROTOCOL,
        group_certificate: Vec::new(),
        at: NOW,
        handovers: Vec::new(),
        built_on: Vec::new(),
        leaving: BTreeSet::new(),
    }
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
    let receivers: Vec<_> = receivers.collect();
    let me = identity.member(&alice);
    let roster = Arc::new(Roster {
        members: vec![me.clone()],
        me: me.clone(),
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
        gd: Some(Arc::new(gd(&me, &names, &receivers))),
        signed_gd: Arc::default(),
    };
    let groups = BTreeMap::from([(alice.group().clone(), group)]);
    let directory = Directory::new(Snapshot { roster, groups, contacts: BTreeSet::new(), peers });
    let clock = Clock::fixed(NOW);
    let codec = Arc::new(Codec::default());
    let spool = Spool::sealing(Presealer {
        home: home.clone(),
        identity: identity.clone(),
        directory: directory.clone(),
        codec: codec.clone(),
        clock: clock.clone(),
        room: Room::default(),
    });
    let mut begun = spool.begin(&names).unwrap();
    let submission = begun.submission();
    begun.write(Bytes::copy_from_slice(mail)).await.unwrap();
    begun.commit(names.to_vec(), split(mail)).await.unwrap();
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

/// A mail that is longer than what waits in memory.
fn long_mail(to: &str) -> Vec<u8> {
    format!("From: alice@acme\r\nTo: {to}\r\nSubject: hens\r\n\r\n{}", "six of them\r\n".repeat(20_000)).into_bytes()
}

async fn submit(desk: &Desk, mail: &[u8], to: &[Address]) -> SubmissionId {
    let mut begun = desk.sealer.spool.begin(to).unwrap();
    for chunk in mail.chunks(30_000) {
        begun.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let submission = begun.submission();
    begun.commit(to.to_vec(), split(mail)).await.unwrap();
    submission
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn has_clear_text(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes.windows(11).any(|w| w == b"six of them")
}

/// A desk where a long mail to both readers came in.
async fn presealed_desk() -> (Desk, Vec<u8>) {
    let mut desk = desk(MAIL, Policy::default()).await;
    let mail = long_mail("bob@acme, carol@acme");
    desk.job.submission = submit(&desk, &mail, &[address("bob@acme"), address("carol@acme")]).await;
    desk.job.others = 0;
    (desk, mail)
}

fn opened(desk: &Desk, h: &MailId, reader: &SecretIdentity) -> Result<Vec<u8>, SealError> {
    let blob = File::open(desk.sealer.home.outbox_blob(h)).unwrap();
    let mut clear = Vec::new();
    open_mail(blob, reader, desk.sealer.identity.openpgp.certificate(), 1 << 20, &mut clear).map(|_| clear)
}

#[tokio::test]
async fn a_long_mail_is_sealed_while_it_comes_in_and_written_once() {
    let (desk, mail) = presealed_desk().await;
    let (home, submission) = (&desk.sealer.home, desk.job.submission);
    let files = [home.spool_file(&submission), home.spool_sealed(&submission)];
    assert!(files.iter().all(|file| !has_clear_text(file)));
    let (receivers, entry) = sealed(&desk);
    assert_eq!(receivers.len(), 2);
    assert_eq!(inode(&home.outbox_blob(&entry.h)), inode(&files[1]), "it is the same file");
    // Once more, as after a failure behind it.
    assert_eq!(sealed(&desk).1.h, entry.h);
    desk.sealer.spool.remove(&submission).unwrap();
    assert!(files.iter().all(|file| !file.exists()));
    for reader in desk.readers.iter().chain([&*desk.sealer.identity.openpgp]) {
        assert!(opened(&desk, &entry.h, reader).unwrap() == mail);
    }
    let blob = File::open(home.outbox_blob(&entry.h)).unwrap();
    let manifest = manifests::find(&home.outbox_manifest(&entry.h), |_| true).unwrap().1;
    assert!(check_part(&manifest, Part::Whole, blob).unwrap().is_empty());
}

#[tokio::test]
async fn what_was_sealed_for_others_than_now_or_by_an_earlier_run_is_sealed_anew() {
    let (mut desk, mail) = presealed_desk().await;
    let submission = desk.job.submission;
    let everybody = std::mem::take(&mut desk.job.receivers);
    desk.job.receivers = vec![everybody[0].clone()];
    let (_, entry) = sealed(&desk);
    assert!(opened(&desk, &entry.h, &desk.readers[0]).unwrap() == mail);
    assert!(matches!(opened(&desk, &entry.h, &desk.readers[1]), Err(SealError::NotForMe { .. })));
    desk.job.receivers = everybody;
    let first = sealed(&desk).1;
    assert_eq!(inode(&desk.sealer.home.outbox_blob(&first.h)), inode(&desk.sealer.home.spool_sealed(&submission)));
    desk.sealer.spool = Spool::new(desk.sealer.home.clone(), Clock::fixed(NOW));
    let envelopes = desk.sealer.spool.spooled().unwrap();
    assert!(envelopes.iter().any(|(id, envelope)| *id == submission && envelope.receivers.len() == 2));
    let again = sealed(&desk).1;
    assert_ne!(again.h, first.h);
    assert!(opened(&desk, &again.h, &desk.readers[1]).unwrap() == mail);
}

#[tokio::test]
async fn a_policy_that_changed_since_gives_it_another_encoding_and_not_another_name() {
    let (mut desk, _) = presealed_desk().await;
    let first = sealed(&desk).1;
    (desk.job.policy, desk.job.others) = (Policy { whole_below: ByteSize(0), ..Policy::default() }, 5);
    let entry = sealed(&desk).1;
    assert_eq!((entry.h, entry.length, entry.digest), (first.h, first.length, first.digest));
    assert_eq!((first.encoding, entry.encoding), (Encoding::Whole, Encoding::Fragments { k: 3, n: 5 }));
}

#[tokio::test]
async fn a_mail_to_a_bcc_oneself_or_somebody_unknown_waits_in_clear() {
    let desk = desk(MAIL, Policy::default()).await;
    for (named, to) in [
        ("bob@acme", vec!["bob@acme", "carol@acme"]),
        ("bob@acme, alice@acme", vec!["bob@acme", "alice@acme"]),
        ("bob@acme, eve@acme", vec!["bob@acme", "eve@acme"]),
        ("eve@other", vec!["eve@other"]),
    ] {
        let to: Vec<Address> = to.into_iter().map(address).collect();
        let submission = submit(&desk, &long_mail(named), &to).await;
        assert!(has_clear_text(&desk.sealer.home.spool_file(&submission)), "{named}");
        assert!(!desk.sealer.home.spool_sealed(&submission).exists());
    }
}

/// A long mail, half of which came and is being sealed.
async fn begin_long(desk: &Desk) -> Begun {
    let mut begun = desk.sealer.spool.begin(&[address("bob@acme")]).unwrap();
    for chunk in long_mail("bob@acme")[..150_000].chunks(30_000) {
        begun.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert!(begun.is_sealing());
    begun
}

#[test]
fn a_thread_that_cannot_seal_any_more_refuses_the_mail_and_nothing_stays() {
    // Its one thread is busy until sealing has begun.
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let desk = desk(MAIL, Policy::default()).await;
        let (home, mail) = (&desk.sealer.home, long_mail("bob@acme"));
        let (before, away) = (home.spool_dir(), home.outbox_dir().join("away"));
        std::fs::rename(&before, &away).unwrap();
        std::fs::write(&before, b"in the way").unwrap();
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || waits.recv().is_err());
        let mut begun = begin_long(&desk).await;
        let submission = begun.submission();
        drop(go_on);
        assert!(busy.await.unwrap(), "it waits until the other end goes");
        let mut failed = None;
        for chunk in mail[150_000..].chunks(30_000) {
            failed = failed.or(begun.write(Bytes::copy_from_slice(chunk)).await.err());
        }
        let failed = match failed {
            Some(failed) => failed,
            None => begun.commit(vec![address("bob@acme")], split(&mail)).await.unwrap_err(),
        };
        assert!(!failed.to_string().is_empty());
        std::fs::remove_file(&before).unwrap();
        std::fs::rename(&away, &before).unwrap();
        assert_eq!(desk.sealer.spool.spooled().unwrap().len(), 1);
        assert!(desk.sealer.spool.presealed(&submission).is_none());
    });
}

#[tokio::test]
async fn a_sealed_mail_that_gets_no_manifest_leaves_no_blob_in_the_outbox() {
    let (desk, _) = presealed_desk().await;
    let h = desk.sealer.spool.presealed(&desk.job.submission).unwrap().manifest().h;
    let (blob, manifest) = (desk.sealer.home.outbox_blob(&h), desk.sealer.home.outbox_manifest(&h));
    std::fs::create_dir_all(manifest.join("in the way")).unwrap();
    failure(&desk);
    assert!(!blob.exists() && desk.sealer.home.spool_sealed(&desk.job.submission).exists());
    std::fs::remove_dir_all(&manifest).unwrap();
    assert_eq!(sealed(&desk).1.h, h);
}

#[tokio::test]
async fn a_long_mail_that_breaks_off_leaves_nothing_and_an_orphan_goes_at_the_start() {
    let desk = desk(MAIL, Policy::default()).await;
    let (home, spool) = (&desk.sealer.home, &desk.sealer.spool);
    let names =
        || std::fs::read_dir(home.spool_dir()).unwrap().map(|entry| entry.unwrap().path()).collect::<BTreeSet<_>>();
    let only = BTreeSet::from([home.spool_file(&desk.job.submission)]);
    begin_long(&desk).await.abandon().await;
    assert_eq!(names(), only);
    let begun = begin_long(&desk).await;
    while names() == only {
        tokio::task::yield_now().await;
    }
    drop(begun);
    // The thread ends at the next word that does not come.
    while names() != only {
        tokio::task::yield_now().await;
    }
    std::fs::write(home.spool_sealed(&SubmissionId::new([9; 16])), b"x").unwrap();
    spool.spooled().unwrap();
    assert_eq!(names(), only);
}
