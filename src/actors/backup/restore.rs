//! A home out of a backup: unpacked beside its place, checked, marked as restored, then renamed. Every function blocks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::HomeCopyError;
use crate::actors::identity::Identity;
use crate::config::Config;
use crate::core::Brain;
use crate::core::postbox::{self, Postbox};
use crate::model::{Address, WallTime};
use crate::store::backup::{Backup, unpack, verify};
use crate::store::files::{FILE_MODE, FileError, ensure_folder, sync_folder, write_durable};
use crate::store::home::Home;
use crate::store::journal::{Journal, Record};
use crate::wire::encode;

/// A home that was restored.
#[derive(Debug)]
pub struct Restored {
    /// What it was made of.
    pub backup: Backup,
    /// Its config.
    pub config: Config,
    /// Its keys.
    pub identity: Identity,
}

/// Makes the home at `path` out of the backup in `file`, which must be that of `address` where one is named.
///
/// # Errors
/// [`HomeCopyError`]; then there is no home at `path`.
pub fn restore(file: &Path, path: &Path, address: Option<&Address>) -> Result<Restored, HomeCopyError> {
    check_free(path)?;
    let backup = verify(file)?;
    if let Some(wanted) = address.filter(|wanted| **wanted != backup.head.address) {
        return Err(HomeCopyError::OtherAddress { wanted: wanted.clone(), found: backup.head.address });
    }
    let beside = beside(path)?;
    let made = make(file, &beside).and_then(|made| {
        check_free(path)?;
        // An empty folder is replaced; anything else at its place makes this fail.
        fs::rename(&beside, path).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty => HomeCopyError::NotEmpty { path: path.to_owned() },
            _ => FileError::from_io(path, "make the restored home", &e).into(),
        })?;
        if let Some(above) = beside.parent() {
            sync_folder(above)?;
        }
        Ok(made)
    });
    if made.is_err() {
        // Unnamed garbage, whatever becomes of it.
        let _ = fs::remove_dir_all(&beside);
    }
    made
}

fn check_free(path: &Path) -> Result<(), HomeCopyError> {
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(HomeCopyError::NotEmpty { path: path.to_owned() }),
        Err(e) => Err(FileError::from_io(path, "look at", &e).into()),
    }
}

/// A name beside `path`, in the same file system unless `path` is a mount.
fn beside(path: &Path) -> Result<PathBuf, HomeCopyError> {
    let no_place = || HomeCopyError::NoPlace { path: path.to_owned() };
    let path = std::path::absolute(path).map_err(|_| no_place())?;
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(no_place()) };
    ensure_folder(above)?;
    Ok(above.join(format!(".{}.restore-{}", name.to_string_lossy(), std::process::id())))
}

fn make(file: &Path, folder: &Path) -> Result<Restored, HomeCopyError> {
    let backup = unpack(file, folder)?;
    let home = Home::at(folder);
    home.create()?;
    let config = Config::load(&home.config_file())?;
    let identity = Identity::load(&home)?;
    let (head, files) = ((&backup.head.address, backup.head.peer_id), (&config.address, identity.peer_id()));
    if head != files {
        let text = |(address, peer): (&Address, _)| format!("{address} ({peer})");
        return Err(HomeCopyError::Mixed { head: text(head), files: text(files) });
    }
    mark(&home, backup.head.made)?;
    Ok(Restored { backup, config, identity })
}

/// Says that this home was restored: to the outbox by a mark, which then does not believe that its msglist ends where the
/// backup does, even if that ended in a clean stop; to the postbox by a record, which then gives out no UID for the second
/// time.
fn mark(home: &Home, made: WallTime) -> Result<(), HomeCopyError> {
    let (journal, replay) = Journal::open(&home.journal_dir())?;
    drop(replay);
    journal.append(vec![Record::new(Postbox::NAME, encode(&postbox::Event::Restored))])?.wait()?;
    let text = format!("from a backup of {} ms since 1970\n", made.0);
    Ok(write_durable(&home.restored_mark(), text.as_bytes(), FILE_MODE)?)
}
