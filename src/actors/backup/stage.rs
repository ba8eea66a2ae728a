//! The files of one moment under second names, and the one file that they are packed into. Every function blocks.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::HomeCopyError;
use crate::actors::identity::Identity;
use crate::actors::replay::replay;
use crate::core::outbox::{Notify, Outbox};
use crate::core::postbox::Postbox;
use crate::core::postbox::io::Settings;
use crate::model::group::Roster;
use crate::model::{Address, PeerId, Policy, WallTime};
use crate::store::backup::BackupWriter;
use crate::store::files::{FileError, ensure_folder, link_or_copy};
use crate::store::home::Home;
use crate::store::journal::Journal;
use crate::store::listing::later_manifests;
use crate::store::spool_file::is_kept_sealed;
use crate::wire::backup::{BACKUP_VERSION, BackupHead};

/// The journal in a backup, whatever number it has in the home.
const JOURNAL: &str = "journal/00000001.log";
/// How often a newer moment is tried.
const MOMENTS: usize = 50;

/// What holds on to the files of one moment, until [`unstage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The folder with their second names.
    pub folder: PathBuf,
    /// Whose home it is.
    pub address: Address,
    /// Who the peer is.
    pub peer_id: PeerId,
    /// The moment.
    pub made: WallTime,
    /// Bytes of the journal up to that moment; its file goes on.
    pub journal_bytes: u64,
    /// Files that the journal names and this disk has lost, by their path below the home.
    pub missing: Vec<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// Where.
    pub file: PathBuf,
    /// Its length.
    pub length: u64,
    /// How many files it holds.
    pub files: usize,
}

/// A file that the journal of one moment names.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    /// Without it, a restored home would lack something.
    needed: bool,
}

/// Gives the files of one moment second names in `backup/NAME/`. `name` is the process that will pack them.
///
/// # Errors
/// [`HomeCopyError`]; then nothing is left of it.
pub fn stage(
    home: &Home,
    address: &Address,
    identity: &Identity,
    journal: &Journal,
    name: u32,
    now: WallTime,
) -> Result<Staged, HomeCopyError> {
    prune(home);
    let folder = home.backup_dir().join(name.to_string());
    remove_all(&folder)?;
    let stager = Stager { home, address, identity, journal, folder: &folder };
    let staged = stager.run(now);
    if staged.is_err() {
        // What is left is removed by the next backup or start.
        let _ = unstage(&folder);
    }
    staged
}

/// Removes the second names.
///
/// # Errors
/// [`FileError`] when that cannot be done; the next backup or start tries again.
pub fn unstage(folder: &Path) -> Result<(), FileError> {
    remove_all(folder)?;
    // Of the last one; with another backup under way it is not empty and stays.
    let _ = folder.parent().map(fs::remove_dir);
    Ok(())
}

/// Removes what backups left whose process is gone.
pub fn prune(home: &Home) {
    let entries = fs::read_dir(home.backup_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let runs = entry.file_name().to_str().is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !runs && let Err(error) = unstage(&entry.path()) {
            tracing::warn!(%error, "what a backup left cannot be removed");
        }
    }
}

fn remove_all(folder: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::from_io(folder, "remove", &e)),
        _ => Ok(()),
    }
}

struct Stager<'a> {
    home: &'a Home,
    address: &'a Address,
    identity: &'a Identity,
    journal: &'a Journal,
    folder: &'a Path,
}

impl Stager<'_> {
    fn run(&self, now: WallTime) -> Result<Staged, HomeCopyError> {
        let pinned = self.folder.join(JOURNAL);
        ensure_folder(&self.folder.join("journal"))?;
        let mut gone_before: Option<BTreeSet<PathBuf>> = None;
        for _ in 0..MOMENTS {
            remove_file(&pinned)?;
            let journal_bytes = self.journal.pin(&pinned)?;
            let named = self.named(&pinned, journal_bytes)?;
            let gone = self.link(&named)?;
            // What a later moment still names was not deleted by right: this disk has lost it.
            if gone.is_empty() || gone_before.is_some_and(|before| gone.is_subset(&before)) {
                self.drop_what_is_not(&named)?;
                return Ok(Staged {
                    folder: self.folder.to_owned(),
                    address: self.address.clone(),
                    peer_id: self.identity.peer_id(),
                    made: now,
                    journal_bytes,
                    missing: gone.iter().map(|path| self.below(path).display().to_string()).collect(),
                });
            }
            gone_before = Some(gone);
        }
        Err(HomeCopyError::TooBusy)
    }

    fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(self.home.root()).unwrap_or(path)
    }

    /// What the journal of that moment names, and what every home has. Of each mail what is removed last comes first: what
    /// is found last then says that all before it was there.
    fn named(&self, journal: &Path, good: u64) -> Result<Vec<Named>, HomeCopyError> {
        let home = self.home;
        let me = self.identity.member(self.address);
        let (group, members) = (self.address.group().clone(), vec![me.clone()]);
        let roster = Roster {
            me,
            group,
            gd_version: 0,
            policy: Policy::default(),
            members,
            lost: BTreeSet::new(),
            leaving: BTreeSet::new(),
            silent: BTreeSet::new(),
        };
        let mut outbox = Outbox::new(Arc::new(self.identity.key.clone()), Arc::new(roster), Notify::DirectFirst);
        let mut postbox = Postbox::new(Settings::new(self.address.clone()));
        replay(Journal::read_pinned(journal, good)?, &mut [&mut outbox, &mut postbox])?;
        let mut named = vec![Named { path: home.config_file(), needed: true }];
        for folder in [home.identity_dir(), home.keys_dir()] {
            named.extend(files_in(&folder)?.into_iter().map(|path| Named { path, needed: true }));
        }
        let needed_spool: BTreeSet<_> = outbox.spool_on_disk().collect();
        for submission in &home.spooled()? | &needed_spool {
            let needed = needed_spool.contains(&submission);
            let earlier = [home.spool_mail_of_version_1(&submission), home.spool_envelope_of_version_1(&submission)];
            if earlier.iter().all(|path| path.is_file()) {
                named.extend(earlier.map(|path| Named { path, needed }));
            } else {
                if is_kept_sealed(home, &submission) {
                    named.push(Named { path: home.spool_sealed(&submission), needed });
                }
                named.push(Named { path: home.spool_file(&submission), needed });
            }
        }
        for h in outbox.mails_on_disk() {
            let paths = [home.outbox_blob(h), home.outbox_manifest(h)];
            named.extend(paths.map(|path| Named { path, needed: true }));
            named.push(Named { path: home.outbox_notices_of_version_1(h), needed: false });
            let later = later_manifests(&home.outbox_manifest(h))?;
            named.extend(later.into_iter().map(|path| Named { path, needed: false }));
        }
        for (key, here) in postbox.files_on_disk() {
            if here {
                // Only what came sealed has one.
                named.push(Named { path: home.mail_signed(key.0), needed: false });
                named.push(Named { path: home.mail_body(key.0), needed: true });
            }
            named.push(Named { path: home.mail_head(key.0), needed: true });
        }
        Ok(named)
    }

    /// Links what is not linked yet; gives what is needed and not there.
    fn link(&self, named: &[Named]) -> Result<BTreeSet<PathBuf>, HomeCopyError> {
        let mut gone = BTreeSet::new();
        for Named { path, needed } in named {
            let to = self.folder.join(self.below(path));
            if to.exists() {
                continue;
            }
            if let Some(above) = to.parent() {
                fs::create_dir_all(above).map_err(|e| FileError::from_io(above, "make the folder", &e))?;
            }
            match link_or_copy(path, &to) {
                Ok(()) => {}
                Err(e) if e.is_not_found() => {
                    if *needed {
                        gone.insert(path.clone());
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(gone)
    }

    /// Removes what an earlier moment named and the last one does not, and halves of spooled mails.
    fn drop_what_is_not(&self, named: &[Named]) -> Result<(), HomeCopyError> {
        let keep: BTreeSet<PathBuf> = named.iter().map(|n| self.folder.join(self.below(&n.path))).collect();
        for path in files_below(self.folder)? {
            let is_journal = path == self.folder.join(JOURNAL);
            // Of version 1: a mail without its envelope was never accepted; an envelope without its mail is being removed.
            let in_spool = path.parent().is_some_and(|folder| folder.ends_with("spool"));
            let other_half = match path.extension().and_then(|extension| extension.to_str()) {
                None => Some(path.with_extension("envelope")),
                Some("envelope") => Some(path.with_extension("")),
                Some(_) => None,
            };
            let is_half = in_spool && other_half.is_some_and(|other| !other.exists());
            if !is_journal && (is_half || !keep.contains(&path)) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::from_io(path, "remove", &e)),
        _ => Ok(()),
    }
}

/// The files in a folder that are not temporary.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let listed = |e| FileError::from_io(folder, "list", &e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(listed)? {
        let entry = entry.map_err(listed)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.file_type().map_err(listed)?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Every file below a folder, in order.
fn files_below(folder: &Path) -> Result<BTreeSet<PathBuf>, FileError> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = |e| FileError::from_io(&folder, "list", &e);
        for entry in fs::read_dir(&folder).map_err(listed)? {
            let entry = entry.map_err(listed)?;
            if entry.file_type().map_err(listed)?.is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path());
            }
        }
    }
    Ok(found)
}

/// Packs what was staged into one file at `file`, mode 0600, reads all of it again, and tells how far it is in percent.
///
/// # Errors
/// [`HomeCopyError`]; then `file` is what it was before.
pub fn pack(staged: &Staged, file: &Path, replace: bool, tell: &mut dyn FnMut(u8)) -> Result<Packed, HomeCopyError> {
    let head = BackupHead {
        version: BACKUP_VERSION,
        address: staged.address.clone(),
        peer_id: staged.peer_id,
        made: staged.made,
        build: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut out = BackupWriter::create(file, &head, replace)?;
    let paths = files_below(&staged.folder)?;
    let count = paths.len();
    for (at, path) in paths.iter().enumerate() {
        let name = path.strip_prefix(&staged.folder).unwrap_or(path).to_string_lossy().into_owned();
        let length = if name == JOURNAL {
            staged.journal_bytes
        } else {
            fs::metadata(path).map_err(|e| FileError::from_io(path, "look at", &e))?.len()
        };
        out.add(&name, path, length)?;
        tell(u8::try_from((at + 1) * 100 / count).unwrap_or(100));
    }
    let length = out.finish()?;
    Ok(Packed { file: file.to_owned(), length, files: count })
}
