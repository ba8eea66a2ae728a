//! Homes that are backed up while they change, lost, and restored.

use std::collections::BTreeSet;
use std::fs;

use super::stage::{Staged, pack, stage, unstage};
use super::*;
use crate::actors::identity::Identity;
use crate::clock::system_wall;
use crate::config::Config;
use crate::core::Brain;
use crate::core::outbox::{Event, Outbox};
use crate::core::postbox::access::{BodyState, MessageKey};
use crate::core::postbox::{Event as PostboxEvent, Origin, Stored};
use crate::model::msglist::Epoch;
use crate::model::{SubmissionId, WallTime};
use crate::store::files::write_durable;
use crate::store::home::Home;
use crate::store::journal::{Journal, Record};
use crate::wire::encode;

struct Peer {
    dir: tempfile::TempDir,
    home: Home,
    identity: Identity,
    address: Address,
    journal: Journal,
}

impl Peer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home"));
        home.create().unwrap();
        let address: Address = "alice@acme".parse().unwrap();
        Identity::create(&home, &address, system_wall()).unwrap();
        let identity = Identity::load(&home).unwrap();
        let config = Config::new(address.clone()).to_commented_toml();
        write_durable(&home.config_file(), config.as_bytes(), 0o600).unwrap();
        let (journal, _) = Journal::open(&home.journal_dir()).unwrap();
        let peer = Self { dir, home, identity, address, journal };
        peer.write(Outbox::NAME, &Event::EpochOpened(Epoch(1)));
        peer
    }
    fn write<E: serde::Serialize>(&self, brain: &str, event: &E) {
        self.journal.append(vec![Record::new(brain, encode(event))]).unwrap().wait().unwrap();
    }
    /// A message with its files.
    fn message(&self, key: u64) {
        for path in [self.home.mail_signed(key), self.home.mail_body(key), self.home.mail_head(key)] {
            write_durable(&path, b"x", 0o600).unwrap();
        }
        let origin = Origin::Appended;
        let message = Stored::new(origin, WallTime(0), 1, BodyState::Here);
        self.write("postbox", &PostboxEvent::KeptMessage { key: MessageKey(key), message });
    }
    fn stage(&self) -> Staged {
        stage(&self.home, &self.address, &self.identity, &self.journal, std::process::id(), WallTime(5)).unwrap()
    }
    fn names(staged: &Staged) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![staged.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => drop(found.insert(path.strip_prefix(&staged.folder).unwrap().display().to_string())),
                }
            }
        }
        found
    }
}

const ALWAYS: [&str; 5] =
    ["config.toml", "identity/openpgp.key", "identity/password.argon2id", "identity/peer.key", "journal/00000001.log"];

#[test]
fn a_backup_holds_what_its_moment_names_and_nothing_else() {
    let peer = Peer::new();
    peer.message(10);
    fs::write(peer.home.mail_dir().join("stray"), "x").unwrap();
    write_durable(&peer.home.mail_body(11), b"not announced yet", 0o600).unwrap();
    write_durable(&peer.home.keys_dir().join("group-acme.key"), b"k", 0o600).unwrap();
    let (spooled, half) = (SubmissionId::new([1; 16]), SubmissionId::new([2; 16]));
    let earlier = SubmissionId::new([3; 16]);
    write_durable(&peer.home.spool_file(&spooled), b"x", 0o600).unwrap();
    write_durable(&peer.home.spool_mail_of_version_1(&earlier), b"x", 0o600).unwrap();
    write_durable(&peer.home.spool_envelope_of_version_1(&earlier), b"x", 0o600).unwrap();
    write_durable(&peer.home.spool_mail_of_version_1(&half), b"never accepted", 0o600).unwrap();
    let staged = peer.stage();
    let mut expected: BTreeSet<String> = ALWAYS.iter().map(|&name| name.to_owned()).collect();
    expected.extend(["head", "body", "signed"].map(|end| format!("mail/0a/000000000000000a.{end}")));
    expected.extend([
        "keys/group-acme.key".to_owned(),
        format!("spool/{spooled}.mail"),
        format!("spool/{earlier}"),
        format!("spool/{earlier}.envelope"),
    ]);
    assert_eq!(Peer::names(&staged), expected);
    assert_eq!(staged.missing, Vec::<String>::new());
    unstage(&staged.folder).unwrap();
    assert!(!peer.home.backup_dir().exists());
}

#[test]
fn a_file_that_is_lost_is_named_and_one_that_was_deleted_by_right_is_not_missed() {
    let peer = Peer::new();
    peer.message(10);
    peer.message(11);
    fs::remove_file(peer.home.mail_body(11)).unwrap();
    let staged = peer.stage();
    assert_eq!(staged.missing, ["mail/0b/000000000000000b.body"]);
    assert!(Peer::names(&staged).contains("mail/0a/000000000000000a.body"));
    // Once more under the same name, as a process that was killed would have left it.
    assert_eq!(peer.stage().missing.len(), 1);
}

#[test]
fn what_a_dead_backup_left_is_removed() {
    let peer = Peer::new();
    let left = peer.home.backup_dir().join("4194305");
    fs::create_dir_all(&left).unwrap();
    prune(&peer.home);
    assert!(!left.exists());
}

#[test]
fn a_restored_home_says_that_it_is_one_to_outbox_and_postbox() {
    let peer = Peer::new();
    peer.write(Outbox::NAME, &Event::CleanStop);
    let file = peer.dir.path().join("alice.backup");
    let staged = peer.stage();
    // What comes later is not in it.
    peer.write(Outbox::NAME, &Event::EpochOpened(Epoch(99)));
    let packed = pack(&staged, &file, false, &mut |_| {}).unwrap();
    assert_eq!(packed.files, ALWAYS.len());

    let place = peer.dir.path().join("new");
    let other: Address = "bob@acme".parse().unwrap();
    assert!(matches!(restore(&file, &place, Some(&other)), Err(HomeCopyError::OtherAddress { .. })));
    assert!(matches!(restore(&file, peer.home.root(), None), Err(HomeCopyError::NotEmpty { .. })));
    assert!(!place.exists());
    fs::create_dir(&place).unwrap();
    let restored = restore(&file, &place, Some(&peer.address)).unwrap();
    assert_eq!(restored.identity.peer_id(), peer.identity.peer_id());
    assert_eq!(restored.backup.head.made, WallTime(5));
    let (journal, replay) = Journal::open(&Home::at(&place).journal_dir()).unwrap();
    drop(journal);
    let last = replay.last().unwrap().unwrap();
    assert_eq!((last.brain.as_str(), last.event), ("postbox", encode(&PostboxEvent::Restored)));
    assert!(Home::at(&place).restored_mark().exists());
    let left: Vec<_> = fs::read_dir(peer.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "home, backup, new: {left:?}");
}

#[test]
fn a_damaged_backup_makes_no_home() {
    let peer = Peer::new();
    let file = peer.dir.path().join("alice.backup");
    pack(&peer.stage(), &file, false, &mut |_| {}).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let place = peer.dir.path().join("deep/new");
    assert!(restore(&file, &place, None).is_err());
    assert!(!place.exists());
}
