//! What lies in a home's folders, by the names of the files: what a start compares with the journal. It never opens a file,
//! and leaves out every name that this peer did not give.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{FileError, remove_all, remove_durable};
use super::home::Home;
use crate::model::{Address, Digest, MailId, Part, PeerId, SubmissionId};

/// Largest k and i of a fragment's file name that is believed: a group has at most 100 members.
const FRAGMENT_MAX: u8 = 100;

impl Home {
    /// Submissions that wait in the spool.
    ///
    /// # Errors
    /// [`FileError`] when the folder cannot be read.
    pub fn spooled(&self) -> Result<BTreeSet<SubmissionId>, FileError> {
        let mut found = BTreeSet::new();
        each_name(&self.spool_dir(), &mut |name| {
            found.extend(name.strip_suffix(".mail").unwrap_or(name).parse::<SubmissionId>().ok());
        })?;
        Ok(found)
    }

    /// Removes sealed mails of the spool that have no envelope: a crash came before the mail was accepted, or while it was removed.
    ///
    /// # Errors
    /// [`FileError`] when the folder cannot be read or a file cannot be removed.
    pub fn sweep_spool(&self) -> Result<(), FileError> {
        let mut sealed = BTreeSet::new();
        each_name(&self.spool_dir(), &mut |name| {
            sealed.extend(name.strip_suffix(".sealed").and_then(|id| id.parse::<SubmissionId>().ok()));
        })?;
        // By the names in the folder: that a file cannot be looked at does not mean that it is not there.
        let accepted = self.spooled()?;
        sealed.difference(&accepted).try_for_each(|id| remove_durable(&self.spool_sealed(id)))
    }

    /// Mails of which the outbox has any file: the sealed mail, its manifest or its notifications.
    ///
    /// # Errors
    /// [`FileError`] when a folder cannot be read.
    pub fn outbox_mails(&self) -> Result<BTreeSet<MailId>, FileError> {
        let mut found = BTreeSet::new();
        each_sharded(&self.outbox_dir(), &mut |name| {
            let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
            found.extend(stem.parse::<MailId>().ok());
        })?;
        Ok(found)
    }

    /// Removes half-fetched mails but those in `keep`, as far as the disk lets it; says how many were removed.
    ///
    /// # Errors
    /// [`FileError`] when the folder cannot be read or a file cannot be removed.
    pub fn sweep_fetched(&self, keep: &BTreeSet<(MailId, PeerId, u64, Digest)>) -> Result<usize, FileError> {
        let mut found = BTreeSet::new();
        each_name(&self.fetch_dir(), &mut |name| found.extend([self.fetch_dir().join(name)]))?;
        for (h, owner, length, digest) in keep {
            found.remove(&self.fetch_mail(h, owner, *length, digest));
        }
        for path in &found {
            remove_durable(path)?;
        }
        Ok(found.len())
    }

    /// Members that something is held for.
    ///
    /// # Errors
    /// [`FileError`] when the folder cannot be read.
    pub fn mirrored_owners(&self) -> Result<BTreeSet<Address>, FileError> {
        let mut found = BTreeSet::new();
        each_name(&self.mirror_dir(), &mut |name| found.extend(name.parse::<Address>().ok()))?;
        Ok(found)
    }

    /// Parts held for `owner`.
    ///
    /// # Errors
    /// [`FileError`] when a folder cannot be read.
    pub fn mirrored_parts(&self, owner: &Address) -> Result<BTreeSet<(MailId, Part)>, FileError> {
        let mut found = BTreeSet::new();
        each_sharded(&self.mirror_of(owner), &mut |name| found.extend(part_of(name)))?;
        Ok(found)
    }

    /// Manifests kept for `owner`.
    ///
    /// # Errors
    /// [`FileError`] when a folder cannot be read.
    pub fn mirrored_manifests(&self, owner: &Address) -> Result<BTreeSet<MailId>, FileError> {
        let mut found = BTreeSet::new();
        each_sharded(&self.mirror_of(owner), &mut |name| {
            found.extend(name.strip_suffix(".manifest").and_then(|stem| stem.parse::<MailId>().ok()));
        })?;
        Ok(found)
    }

    /// Messages of the local mailboxes.
    ///
    /// # Errors
    /// [`FileError`] when a folder cannot be read.
    pub fn mail_ids(&self) -> Result<BTreeSet<u64>, FileError> {
        let mut found = BTreeSet::new();
        each_sharded(&self.mail_dir(), &mut |name| {
            found.extend(u64::from_str_radix(name, 16).ok().filter(|_| name.len() == 16));
        })?;
        Ok(found)
    }
}

/// The manifests of later encodings that belong to the first one, `h.manifest`.
///
/// # Errors
/// [`FileError`] when their folder cannot be read.
pub fn later_manifests(first: &Path) -> Result<BTreeSet<PathBuf>, FileError> {
    let (mut found, folder) = (BTreeSet::new(), first.with_extension("later"));
    each_name(&folder, &mut |name| {
        // A half-written one has a name of its own.
        if !name.starts_with('.') {
            found.insert(folder.join(name));
        }
    })?;
    Ok(found)
}

/// Removes the manifests of a mail, `h.manifest` the last: as long as that is there, the next start finds what is left. After a
/// power cut they may be there again ([`remove_all`]).
///
/// # Errors
/// [`FileError`] when their folder cannot be read or a file cannot be removed.
pub fn remove_manifests(first: &Path) -> Result<(), FileError> {
    let folder = first.with_extension("later");
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(FileError::from_io(&folder, "remove", &e)),
        _ => {}
    }
    remove_all(&[first.to_path_buf()])
}

fn part_of(name: &str) -> Option<(MailId, Part)> {
    let mut pieces = name.split('.');
    let h = pieces.next()?.parse().ok()?;
    let part = match (pieces.next(), pieces.next(), pieces.next()) {
        (None, None, None) => Part::Whole,
        (Some(k), Some(i), None) => Part::Fragment { k: k.parse().ok()?, i: i.parse().ok()? },
        _ => return None,
    };
    match part {
        Part::Fragment { k, i } if k == 0 || k > FRAGMENT_MAX || i >= FRAGMENT_MAX => None,
        part => Some((h, part)),
    }
}

/// Every name in the folders HH of `folder`.
fn each_sharded(folder: &Path, found: &mut dyn FnMut(&str)) -> Result<(), FileError> {
    let mut shards = Vec::new();
    each_name(folder, &mut |name| {
        if name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            shards.push(name.to_owned());
        }
    })?;
    shards.iter().try_for_each(|shard| each_name(&folder.join(shard), found))
}

/// Every name in `folder` that is UTF-8; none when there is no such folder.
fn each_name(folder: &Path, found: &mut dyn FnMut(&str)) -> Result<(), FileError> {
    let listed = |e| FileError::from_io(folder, "list", &e);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(listed(e)),
    };
    for entry in entries {
        if let Some(name) = entry.map_err(listed)?.file_name().to_str() {
            found(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::files::write_durable;

    #[test]
    fn what_is_written_is_listed_and_strange_names_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let (a, b) = (MailId::new([1; 20]), MailId::new([2; 20]));
        let bob: Address = "bob@acme".parse().unwrap();
        let (submission, earlier) = (SubmissionId::new([5; 16]), SubmissionId::new([6; 16]));
        let fragment = Part::Fragment { k: 3, i: 4 };
        let paths = [
            home.outbox_blob(&a),
            home.outbox_manifest(&a),
            home.outbox_notices_of_version_1(&b),
            home.outbox_dir().join("01/README"),
            home.outbox_dir().join("lost+found/x"),
            home.mirror_part(&bob, &a, Part::Whole),
            home.mirror_part(&bob, &b, fragment),
            home.mirror_manifest(&bob, &b),
            home.mirror_of(&bob).join(format!("02/{b}.0.1")),
            home.mirror_of(&bob).join(format!("02/{b}.3.4.5")),
            home.spool_file(&submission),
            home.spool_mail_of_version_1(&earlier),
            home.spool_envelope_of_version_1(&earlier),
            home.spool_dir().join(".1-1.tmp"),
            home.mail_file(77),
        ];
        for path in &paths {
            write_durable(path, b"x", 0o600).unwrap();
        }
        assert_eq!(home.outbox_mails().unwrap(), [a, b].into());
        assert_eq!(home.mirrored_owners().unwrap(), [bob.clone()].into());
        assert_eq!(home.mirrored_parts(&bob).unwrap(), [(a, Part::Whole), (b, fragment)].into());
        assert_eq!(home.mirrored_manifests(&bob).unwrap(), [b].into());
        assert_eq!(home.spooled().unwrap(), [submission, earlier].into());
        assert_eq!(home.mail_ids().unwrap(), [77].into());
    }

    #[test]
    fn half_fetched_files_that_nobody_needs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let of = |n: u8| (MailId::new([n; 20]), PeerId::new([n; 32]), 9, Digest::new([n; 32]));
        let path = |(h, owner, length, digest)| home.fetch_mail(&h, &owner, length, &digest);
        for n in [1, 2] {
            write_durable(&path(of(n)), b"x", 0o600).unwrap();
        }
        assert_eq!(home.sweep_fetched(&BTreeSet::from([of(1)])).unwrap(), 1);
        assert!(path(of(1)).exists() && !path(of(2)).exists());
    }

    #[test]
    fn a_member_that_nothing_is_held_for_has_no_parts() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert!(home.mirrored_parts(&"eve@acme".parse().unwrap()).unwrap().is_empty());
    }
}
