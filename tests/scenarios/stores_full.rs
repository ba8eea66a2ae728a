//! Stores on a disk of their own that is full (a small tmpfs, which only root may mount): nothing is half-stored, whoever has to
//! know is told, and everything goes on by itself once there is room.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Mail, Team, bytes_in, wait_for};

/// A small disk in the place of a folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A disk of `kib` KiB with what is in `folder`; or why there can be none.
    fn at(folder: &Path, kib: u32) -> Result<Self, String> {
        fs::create_dir_all(folder).unwrap();
        let inside: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(inside.is_empty(), "the store is not empty: {inside:?}");
        let options = format!("size={kib}k,mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        match done {
            Ok(done) if done.status.success() => Ok(Self(folder.to_owned())),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    /// There is room.
    fn grows(&self) {
        let done = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its peer may still have files there: the disk goes with the last of them, and the folder can be removed at once.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The stopped peer of `name` has its `store` on a disk of 300 KiB and runs; nothing, with a word, where that cannot be.
fn on_small_disk(team: &Team, name: &str, store: &str) -> Option<SmallDisk> {
    team.stop(&[name]);
    match SmallDisk::at(&team.home_dir(name).join(store), 300) {
        Ok(disk) => {
            team.start(&[name]);
            Some(disk)
        }
        Err(why) => {
            eprintln!("skipped: no small disk can be mounted here: {why}");
            None
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let inside = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    inside.flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::from([path]) }).collect()
}

/// Nothing is in the store but `these`, and manifests, which are whole, as soon as what is tried again is given up again.
fn only_these(team: &Team, name: &str, store: &str, these: &BTreeSet<PathBuf>) {
    let folder = team.home_dir(name).join(store);
    wait_for(&format!("nothing is half-stored in {store}"), || {
        let more = |path: &PathBuf| !these.contains(path) && path.extension().is_none_or(|ending| ending != "manifest");
        (!files(&folder).iter().any(more)).then_some(())
    });
}

/// The owner of the store sees which is full, and that no longer once `full` is over.
fn shows_full(team: &Team, name: &str, store: &str, full: bool) {
    wait_for(&format!("status says whether {store} is full: {full}"), || {
        let shown = team.status(name).disk_full.into_iter().find(|shown| shown.store == store);
        (shown.is_some() == full).then_some(())
    });
}

#[test]
fn a_members_full_mirror_is_told_to_the_owner_holds_nothing_half_and_takes_the_mail_once_there_is_room() {
    let team = Team::of_three();
    let Some(disk) = on_small_disk(&team, "carol", "mirror") else { return };
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 900_000));
    let carol = team.address("carol");
    let said = wait_for("alice is told", || {
        let lines = team.status("alice").attention;
        lines.into_iter().find(|line| line.contains("carol@acme") && line.contains("disk is full"))
    });
    assert!(said.contains("make room"), "it says what helps: {said}");
    let sealed = team.wait_until_safe(&mail, 0);
    assert!(!sealed.holders.contains_key(&carol), "what is not there is not counted: {sealed:?}");
    only_these(&team, "carol", "mirror", &BTreeSet::new());
    let small = team.submit("alice", &["bob"], team.letter("alice", "bob", 3_000));
    team.reader("bob").reads_in_the_end(&small);
    wait_for("a mail that fits is not held up", || (team.waiting("alice").len() == 1).then_some(()));

    disk.grows();
    // A peer that starts does not wait until its disk may have room again.
    team.kill(&["carol"]);
    team.start(&["carol"]);
    let sealed = team.wait_until_safe(&mail, 1);
    assert!(sealed.holders.contains_key(&carol) && sealed.refused.is_empty(), "{sealed:?}");
    wait_for("the owner is told of it no more", || {
        (!team.status("alice").attention.iter().any(|line| line.contains("disk is full"))).then_some(())
    });
    team.reader("bob").reads_every_byte_of(&mail);
}

#[test]
fn a_full_outbox_keeps_the_mail_in_the_spool_and_announces_it_once_there_is_room() {
    let team = Team::of_two();
    let Some(disk) = on_small_disk(&team, "alice", "outbox") else { return };
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 900_000));
    shows_full(&team, "alice", "outbox", true);
    assert!(team.outbox_line(&mail).is_some_and(|line| line.sealed.is_empty()), "it waits, and is not announced");
    // It is sealed already, which makes base64 shorter.
    assert!(bytes_in(&team.home_dir("alice").join("spool")) > 600_000, "it is in the spool");
    only_these(&team, "alice", "outbox", &BTreeSet::new());
    assert!(team.reader("bob").uids_of(&mail).is_empty());

    disk.grows();
    team.reader("bob").reads_in_the_end(&mail);
    assert_eq!(team.reader("bob").uids_of(&mail).len(), 1);
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    shows_full(&team, "alice", "outbox", false);
}

#[test]
fn a_full_mail_store_gives_no_half_mail_and_no_nr_and_the_mail_is_read_once_there_is_room() {
    let team = Team::of_two();
    let Some(disk) = on_small_disk(&team, "bob", "mail") else { return };
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 900_000));
    let mut bob = team.reader("bob");
    bob.sees(&mail);
    let stub = files(&team.home_dir("bob").join("mail"));
    let refused = bob.opens(&mail).expect_err("there is no room for it").to_string();
    assert!(refused.contains("NO ") && refused.contains("free some space"), "it says what helps: {refused}");
    assert_eq!(team.waiting("alice").len(), 1, "it was not said to be received");
    only_these(&team, "bob", "mail", &stub);

    disk.grows();
    let wanted = Mail { from: mail.from.clone(), letter: mail.letter.clone() };
    team.reader("bob").reads_in_the_end(&wanted);
    wait_for("its sender knows", || team.waiting("alice").is_empty().then_some(()));
    shows_full(&team, "bob", "mail", false);
}
