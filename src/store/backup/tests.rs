//! Backups that are written, read, damaged in every way that a disk or a stranger can think of, and refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::model::{PeerId, WallTime};
use crate::wire::backup::{BACKUP_VERSION, BackupHead};
use crate::wire::{PeerKey, encode};

/// A backup as version 1 wrote it: two files, a byte each in the middle of nowhere; its keys are nobody's.
const FIXTURE_V1: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/backup/home.tar"));

fn peer() -> PeerId {
    PeerKey::from_seed(&[7; 32]).peer_id()
}

fn head() -> BackupHead {
    BackupHead {
        version: BACKUP_VERSION,
        address: "alice@acme".parse().unwrap(),
        peer_id: peer(),
        made: WallTime(1_700_000_000_000),
        build: "1".to_owned(),
    }
}

/// A home of two files, and the backup of it.
fn backed_up(dir: &Path) -> PathBuf {
    fs::write(dir.join("c"), b"address = \"alice@acme\"\n").unwrap();
    fs::write(dir.join("m"), vec![9; 100_000]).unwrap();
    let path = dir.join("b.tar");
    let mut out = BackupWriter::create(&path, &head(), false).unwrap();
    out.add("config.toml", &dir.join("c"), 23).unwrap();
    out.add("mail/0a/000000000000000a.body", &dir.join("m"), 99_999).unwrap();
    assert_eq!(out.finish().unwrap(), fs::metadata(&path).unwrap().len());
    path
}

#[test]
fn what_was_backed_up_is_unpacked_and_only_its_users_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = backed_up(dir.path());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let home = dir.path().join("home");
    let backup = unpack(&path, &home).unwrap();
    assert_eq!(backup, verify(&path).unwrap());
    assert_eq!((backup.head, backup.files.len()), (head(), 2));
    let body = home.join("mail/0a/000000000000000a.body");
    assert_eq!(fs::read(&body).unwrap(), vec![9; 99_999]);
    assert_eq!(fs::metadata(&body).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_backup_of_version_1_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.tar");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/backup/home.tar");
    if std::env::var_os("ROOST_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::copy(backed_up(dir.path()), &file).unwrap();
    }
    fs::write(&path, FIXTURE_V1).unwrap();
    let backup = verify(&path).unwrap();
    assert_eq!(backup.head, head());
    assert_eq!(backup.files[0].path, "config.toml");
    assert_eq!(backup.bytes(), 100_022);
}

#[test]
fn a_flipped_bit_anywhere_a_cut_and_an_added_byte_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = backed_up(dir.path());
    let whole = fs::read(&path).unwrap();
    // Every byte of the records, and some of the long file between them.
    let places = (0..4096).chain((4096..whole.len() - 5000).step_by(997)).chain(whole.len() - 5000..whole.len() - 1024);
    for at in places.step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        // What stands behind the text of the digest has no meaning; all else is refused.
        let in_padding = at >= whole.len() - 1536 + 64;
        let in_digest_header = (whole.len() - 2048..whole.len() - 1536).contains(&at);
        assert!(verify(&path).is_err() || in_padding || in_digest_header, "byte {at}");
    }
    for length in [0, 100, 2048, whole.len() / 2, whole.len() - 1024, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(verify(&path), Err(BackupError::Damaged { .. })), "{length} bytes");
    }
    fs::write(&path, [whole.as_slice(), &[0]].concat()).unwrap();
    assert!(verify(&path).is_err());
}

#[test]
fn what_is_there_is_replaced_only_when_asked_and_a_failed_backup_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = backed_up(dir.path());
    let before = fs::read(&path).unwrap();
    assert!(matches!(BackupWriter::create(&path, &head(), false), Err(BackupError::Exists { .. })));
    let mut out = BackupWriter::create(&path, &head(), true).unwrap();
    let short = out.add("config.toml", &dir.path().join("c"), 24).unwrap_err();
    assert!(matches!(short, BackupError::Changed { expected: 24, found: 23, .. }), "{short}");
    drop(out);
    assert_eq!(fs::read(&path).unwrap(), before);
    BackupWriter::create(&path, &head(), true).unwrap().finish().unwrap();
    assert!(verify(&path).unwrap().files.is_empty());
}

/// A tar with these entries, closed as a backup is.
fn forged(path: &Path, entries: &[(&str, &[u8], tar::EntryType)]) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8], kind| {
        let mut header = tar::Header::new_gnu();
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(u64::try_from(bytes.len()).unwrap());
        header.set_entry_type(kind);
        header.set_cksum();
        tar.append(&header, bytes).unwrap();
    };
    entries.iter().for_each(|(name, bytes, kind)| add(name, bytes, *kind));
    let mut files = Vec::new();
    for (path, bytes, _) in entries.iter().filter(|(name, ..)| *name != HEAD_ENTRY) {
        let (length, digest) = copy_hashed(*bytes, io::sink()).unwrap();
        let digest = crate::model::Digest::new(*digest.as_bytes());
        files.push(crate::wire::backup::BackupFile { path: (*path).to_owned(), length, digest });
    }
    add(LIST_ENTRY, &encode(&crate::wire::backup::BackupList { files }), tar::EntryType::Regular);
    let digest = blake3::hash(tar.get_ref());
    let mut header = tar::Header::new_gnu();
    header.set_path(DIGEST_ENTRY).unwrap();
    header.set_size(64);
    header.set_cksum();
    tar.append(&header, digest.to_hex().as_bytes()).unwrap();
    fs::write(path, tar.into_inner().unwrap()).unwrap();
}

#[test]
fn a_forged_backup_writes_nothing_outside_of_the_home() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.tar");
    let file = tar::EntryType::Regular;
    let head = encode(&head());
    forged(&path, &[(HEAD_ENTRY, &head, file), ("keys/group-acme.key", b"k", file)]);
    assert_eq!(verify(&path).unwrap().files.len(), 1);
    let bad = [
        ("../evil", file),
        ("/etc/evil", file),
        ("mail/../../evil", file),
        ("mail/0a/../x", file),
        ("keys/.hidden", file),
        ("keys/a/b", file),
        ("index/db", file),
        ("control.sock", file),
        ("keys/link", tar::EntryType::Symlink),
        ("keys/dir", tar::EntryType::Directory),
    ];
    for (name, kind) in bad {
        forged(&path, &[(HEAD_ENTRY, &head, file), (name, b"", kind)]);
        assert!(matches!(verify(&path), Err(BackupError::Damaged { .. })), "{name}");
        let home = dir.path().join("home");
        assert!(unpack(&path, &home).is_err(), "{name}");
        fs::remove_dir_all(&home).unwrap();
    }
    forged(&path, &[(HEAD_ENTRY, &head, file), ("keys/a", b"1", file), ("keys/a", b"2", file)]);
    assert!(verify(&path).is_err(), "a name twice");
    forged(&path, &[("keys/a", b"1", file)]);
    assert!(verify(&path).is_err(), "no head");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_backup_of_a_newer_build_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.tar");
    let newer = BackupHead { version: BACKUP_VERSION + 1, ..head() };
    BackupWriter::create(&path, &newer, false).unwrap().finish().unwrap_err();
    forged(&path, &[(HEAD_ENTRY, &encode(&newer), tar::EntryType::Regular)]);
    assert!(matches!(verify(&path), Err(BackupError::Newer { found: 2, known: 1, .. })));
}
