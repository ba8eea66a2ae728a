//! The folder layout of a home, as typed paths, and the lock that keeps a second peer out. It never reads or writes what
//! the files mean.
//!
//! ```text
//! HOME/
//!   config.toml  control.sock  lock  identity/  keys/
//!   spool/SUBMISSION.mail          accepted, not on its way yet: the mail and its envelope; a long one may be sealed already, in
//!                                  SUBMISSION.sealed, and then only the envelope is here
//!   outbox/HH/h  h.manifest  h.ns  own sealed mail, its manifest, its open send notifications
//!   mirror/ADDRESS/HH/h[.k.i]      held for a member: whole, or fragment i of any k; h.manifest beside it
//!                                  (h.later/, there and in outbox/: manifests of encodings that came later)
//!   fetch/h  mail/HH/ID            half-fetched; local mailboxes, one file a message
//!   journal/  index/               the events; what can be rebuilt
//!   backup/PID/                    links to the files of one moment, while `roost backup` writes them out
//! ```

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::files::{self, FILE_MODE, FOLDER_MODE, FileError};
use crate::model::{Address, Digest, Encoding, Fingerprint, MailId, Part, PeerId, SubmissionId};

/// Folders that every home has.
const FOLDERS: [&str; 8] = ["identity", "spool", "outbox", "mirror", "mail", "keys", "journal", "fetch"];
/// Longest process id that is read back from the lock file, in bytes.
const PID_BYTES_MAX: u64 = 20;

/// Why a home cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// A peer runs on it.
    #[error("the home {} is in use by the peer with pid {pid}; stop it first", path.display())]
    InUse {
        /// The home.
        path: PathBuf,
        /// The holder's process id, or "unknown".
        pid: String,
    },
    /// Nothing was initialised there.
    #[error("there is no home at {}: it has no config.toml; make one with `roost init ADDRESS --home {}`", path.display(), path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The lock itself cannot be had.
    #[error("could not lock {}: {why}; a home must be on a local disk that this user may write", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The operating system's reason.
        why: String,
    },
    /// A folder or file of it cannot be made or read.
    #[error("the home cannot be used: {0}")]
    File(#[from] FileError),
}

/// A peer's folder. Only paths: it is cheap to clone and holds nothing open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// The right to be the one peer of a home; given back when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

impl Home {
    /// The home at `root`; nothing is touched.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes every folder that is missing, only the user's own to enter, and narrows the rights of those that are there.
    ///
    /// # Errors
    /// [`HomeError::File`] when one cannot be made or its rights not be set.
    pub fn create(&self) -> Result<(), HomeError> {
        files::ensure_folder(&self.root)?;
        for name in FOLDERS {
            let folder = self.root.join(name);
            files::ensure_folder(&folder)?;
            let meta = fs::metadata(&folder).map_err(|e| FileError::from_io(&folder, "look at", &e))?;
            if meta.permissions().mode() & 0o777 != FOLDER_MODE {
                fs::set_permissions(&folder, Permissions::from_mode(FOLDER_MODE))
                    .map_err(|e| FileError::from_io(&folder, "set the rights of", &e))?;
            }
        }
        Ok(())
    }

    /// Whether a peer was initialised here.
    pub fn is_initialised(&self) -> bool {
        self.config_file().is_file()
    }

    /// This home, if a peer was initialised here.
    ///
    /// # Errors
    /// [`HomeError::Missing`] says how to make one.
    pub fn initialised(self) -> Result<Self, HomeError> {
        if self.is_initialised() { Ok(self) } else { Err(HomeError::Missing { path: self.root }) }
    }

    /// Locks the home for this process.
    ///
    /// # Errors
    /// [`HomeError::InUse`] names the process that holds it; [`HomeError::Lock`] when locking itself fails.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.lock_file();
        let failed = |e: io::Error| HomeError::Lock { path: path.clone(), why: e.to_string() };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(HomeError::InUse { path: self.root.clone(), pid: holder(&file) });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        // Informs the one who is refused; the lock is the kernel's, so this need not be durable.
        file.set_len(0).map_err(failed)?;
        file.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
        Ok(HomeLock { _file: file })
    }

    /// Whether a process holds the lock, as the kernel's list says. It never takes the lock, which would keep out a peer that
    /// starts at this moment; where there is no such list, it says no.
    pub fn is_locked(&self) -> bool {
        let Ok(meta) = fs::metadata(self.lock_file()) else { return false };
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let inode = format!(":{}", meta.ino());
        locks.lines().any(|lock| lock.contains(" FLOCK ") && lock.split(' ').any(|word| word.ends_with(&inode)))
    }

    /// Removes what a crash left of temporary files; gives their number. Only while the home is locked.
    ///
    /// # Errors
    /// [`HomeError::File`] when a folder cannot be read or a file not be removed.
    pub fn sweep(&self, _lock: &HomeLock) -> Result<usize, HomeError> {
        let mut removed = 0;
        for name in FOLDERS {
            removed += files::sweep_temporaries(&self.root.join(name))?;
        }
        Ok(removed)
    }

    /// `config.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("config.toml")
    }
    /// `control.sock`: the commands talk to the peer here.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }
    /// `lock`, with the process id of the peer that runs.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// There after a restore, until the members were asked for what this peer listed since the backup.
    pub fn restored_mark(&self) -> PathBuf {
        self.root.join("restored")
    }
    /// `log`: where a peer that was started in the background prints.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("log")
    }
    /// `identity/`: the secret keys.
    pub fn identity_dir(&self) -> PathBuf {
        self.root.join("identity")
    }
    /// The secret key file `name` in `identity/`.
    pub fn identity_file(&self, name: &'static str) -> PathBuf {
        self.identity_dir().join(name)
    }
    /// `keys/`: other peers' certificates.
    pub fn keys_dir(&self) -> PathBuf {
        self.root.join("keys")
    }
    /// The certificate with this fingerprint in `keys/`.
    pub fn key_file(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.keys_dir().join(fingerprint.to_string())
    }
    /// `spool/`: accepted, not on its way yet.
    pub fn spool_dir(&self) -> PathBuf {
        self.root.join("spool")
    }
    /// The clear mail of one submission in `spool/` with its envelope ([`super::spool_file`]).
    pub fn spool_file(&self, submission: &SubmissionId) -> PathBuf {
        self.spool_mail_of_version_1(submission).with_extension("mail")
    }
    /// The mail of one submission in `spool/` that was sealed while it came in; its envelope alone is in [`Home::spool_file`] then.
    pub fn spool_sealed(&self, submission: &SubmissionId) -> PathBuf {
        self.spool_mail_of_version_1(submission).with_extension("sealed")
    }
    /// The clear mail of one submission in `spool/`, as earlier versions wrote it.
    pub fn spool_mail_of_version_1(&self, submission: &SubmissionId) -> PathBuf {
        self.spool_dir().join(submission.to_string())
    }
    /// The envelope that earlier versions wrote after it: the commit point.
    pub fn spool_envelope_of_version_1(&self, submission: &SubmissionId) -> PathBuf {
        self.spool_mail_of_version_1(submission).with_extension("envelope")
    }
    /// `outbox/`: this peer's own sealed mails.
    pub fn outbox_dir(&self) -> PathBuf {
        self.root.join("outbox")
    }
    /// A sealed mail in the outbox.
    pub fn outbox_blob(&self, h: &MailId) -> PathBuf {
        sharded(&self.outbox_dir(), h, "")
    }
    /// The manifest beside a sealed mail in the outbox.
    pub fn outbox_manifest(&self, h: &MailId) -> PathBuf {
        sharded(&self.outbox_dir(), h, ".manifest")
    }
    /// The manifest of a sealed mail in the outbox for an encoding that it got after it was sealed.
    pub fn outbox_manifest_as(&self, h: &MailId, encoding: Encoding) -> PathBuf {
        sharded(&self.outbox_dir(), h, LATER).join(encoding_name(encoding))
    }
    /// The open send notifications of a sealed mail in the outbox of a home of the first version: now behind its manifest.
    pub fn outbox_notices_of_version_1(&self, h: &MailId) -> PathBuf {
        sharded(&self.outbox_dir(), h, ".ns")
    }
    /// `mirror/`: what is held for other members.
    pub fn mirror_dir(&self) -> PathBuf {
        self.root.join("mirror")
    }
    /// What is held for `owner`.
    pub fn mirror_of(&self, owner: &Address) -> PathBuf {
        self.mirror_dir().join(owner.to_string())
    }
    /// One part held for `owner`.
    pub fn mirror_part(&self, owner: &Address, h: &MailId, part: Part) -> PathBuf {
        let ending = match part {
            Part::Whole => String::new(),
            Part::Fragment { k, i } => format!(".{k}.{i}"),
        };
        sharded(&self.mirror_of(owner), h, &ending)
    }
    /// The manifest that the parts of this mail of `owner` are checked by.
    pub fn mirror_manifest(&self, owner: &Address, h: &MailId) -> PathBuf {
        sharded(&self.mirror_of(owner), h, ".manifest")
    }
    /// The manifest of this mail of `owner` for an encoding that it got after it was mirrored first.
    pub fn mirror_manifest_as(&self, owner: &Address, h: &MailId, encoding: Encoding) -> PathBuf {
        sharded(&self.mirror_of(owner), h, LATER).join(encoding_name(encoding))
    }
    /// `fetch/`: half-fetched mails.
    pub fn fetch_dir(&self) -> PathBuf {
        self.root.join("fetch")
    }
    /// The half-fetched mail h of `owner` with this length and BLAKE3: anybody may announce other bytes by the same h.
    pub fn fetch_mail(&self, h: &MailId, owner: &PeerId, length: u64, digest: &Digest) -> PathBuf {
        self.fetch_dir().join(format!("{h}-{owner}-{length}-{digest}"))
    }
    /// `mail/`: the messages of the local mailboxes.
    pub fn mail_dir(&self) -> PathBuf {
        self.root.join("mail")
    }
    /// One message of the local mailboxes.
    pub fn mail_file(&self, id: u64) -> PathBuf {
        // By the low byte: ids are counted up, so the folders fill evenly.
        self.mail_dir().join(format!("{:02x}", id & 0xff)).join(format!("{id:016x}"))
    }
    /// Header block and structure of a message.
    pub fn mail_head(&self, id: u64) -> PathBuf {
        self.mail_file(id).with_extension("head")
    }
    /// The clear mail of a message.
    pub fn mail_body(&self, id: u64) -> PathBuf {
        self.mail_file(id).with_extension("body")
    }
    /// What proves who wrote a message.
    pub fn mail_signed(&self, id: u64) -> PathBuf {
        self.mail_file(id).with_extension("signed")
    }
    /// `backup/`: what backups that are being written hold on to; gone when they are done.
    pub fn backup_dir(&self) -> PathBuf {
        self.root.join("backup")
    }
    /// `journal/`.
    pub fn journal_dir(&self) -> PathBuf {
        self.root.join("journal")
    }
    /// `index/`.
    pub fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }
}

/// How the folder of a mail's later manifests ends. It is a folder, so that a mail that has none costs no listing.
const LATER: &str = ".later";

/// The name of a later encoding's manifest in that folder.
fn encoding_name(encoding: Encoding) -> String {
    match encoding {
        Encoding::Whole => "whole".to_owned(),
        Encoding::Fragments { k, n } => format!("{k}-{n}"),
    }
}

/// `FOLDER/HH/h` and an ending, HH being the first byte of h.
fn sharded(folder: &Path, h: &MailId, ending: &str) -> PathBuf {
    let name = h.to_string();
    folder.join(&name[..2]).join(format!("{name}{ending}"))
}

fn holder(file: &File) -> String {
    let mut pid = String::new();
    let read = file.take(PID_BYTES_MAX).read_to_string(&mut pid);
    let digits = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
    if read.is_ok() && digits { pid } else { "unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_home_is_only_its_users_own() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("deep/peer"));
        home.create().unwrap();
        assert_eq!(mode(home.root()), 0o700);
        for name in FOLDERS {
            assert_eq!(mode(&home.root().join(name)), 0o700, "{name}");
        }
        fs::set_permissions(home.identity_dir(), Permissions::from_mode(0o755)).unwrap();
        home.create().unwrap();
        assert_eq!(mode(&home.identity_dir()), 0o700);
    }

    #[test]
    fn paths_are_those_of_the_design() {
        let home = Home::at("/h");
        let h = MailId::new([0xab; 20]);
        let hex = "ab".repeat(20);
        let bob: Address = "bob@acme".parse().unwrap();
        let is = |path: PathBuf, text: &str| assert_eq!(path, Path::new(text));
        is(home.outbox_blob(&h), &format!("/h/outbox/ab/{hex}"));
        is(home.outbox_manifest(&h), &format!("/h/outbox/ab/{hex}.manifest"));
        is(home.outbox_notices_of_version_1(&h), &format!("/h/outbox/ab/{hex}.ns"));
        is(home.mirror_part(&bob, &h, Part::Whole), &format!("/h/mirror/bob@acme/ab/{hex}"));
        is(home.mirror_part(&bob, &h, Part::Fragment { k: 3, i: 4 }), &format!("/h/mirror/bob@acme/ab/{hex}.3.4"));
        is(home.mirror_manifest(&bob, &h), &format!("/h/mirror/bob@acme/ab/{hex}.manifest"));
        is(home.mail_file(0x1234), "/h/mail/34/0000000000001234");
        is(home.spool_file(&SubmissionId::new([1; 16])), &format!("/h/spool/{}.mail", "01".repeat(16)));
    }

    #[test]
    fn a_second_peer_on_a_home_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        assert!(!home.is_locked());
        let lock = home.lock().unwrap();
        assert!(home.is_locked());
        let error = home.lock().unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.ends_with(&format!("is in use by the peer with pid {pid}; stop it first")), "{error}");
        drop(lock);
        home.lock().unwrap();
    }

    #[test]
    fn a_place_without_a_home_says_how_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = Home::at(dir.path()).initialised().unwrap_err().to_string();
        assert!(error.contains("roost init ADDRESS --home"), "{error}");
        fs::write(dir.path().join("config.toml"), "").unwrap();
        assert!(Home::at(dir.path()).initialised().is_ok());
    }

    #[test]
    fn the_sweep_goes_through_every_folder() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        for folder in [home.outbox_dir(), home.spool_dir(), home.journal_dir()] {
            fs::write(folder.join(".9-9.tmp"), "x").unwrap();
        }
        let lock = home.lock().unwrap();
        assert_eq!(home.sweep(&lock).unwrap(), 3);
    }
}
