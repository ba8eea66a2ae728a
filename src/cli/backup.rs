//! `roost backup` and `roost init --restore`: a home into one file, and one file into a home. It never overwrites a home.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::args::BackupArgs;
use super::control::{Control, ControlError};
use super::output::{self, Shown};
use super::progress::Progress;
use crate::actors::backup::{Packed, Staged, pack, restore as restore_home, stage, unstage};
use crate::actors::identity::Identity;
use crate::clock::system_wall;
use crate::config::Config;
use crate::console::protocol::Request;
use crate::model::{Address, PeerId, WallTime};
use crate::store::home::Home;
use crate::store::journal::Journal;

/// What a backup holds, for everybody who gets hold of it.
const SECRET: &str = "It holds secret keys and mail in the clear: whoever has the file can read this mail and be this peer. \
                      Keep it where nobody else can read it.";

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    address: Address,
    peer_id: PeerId,
    file: PathBuf,
    made: WallTime,
    length: u64,
    files: usize,
    /// Files that the home itself has lost.
    missing: Vec<String>,
    /// `true`: the file is as secret as the home.
    secret: bool,
}

/// `roost backup FILE`.
///
/// # Errors
/// When the home cannot be read as of one moment, or the file not be written and read again.
pub(super) fn run(home: &Path, args: &BackupArgs) -> anyhow::Result<Shown> {
    let home = Home::at(home).initialised()?;
    if !args.force && args.file.symlink_metadata().is_ok() {
        anyhow::bail!("{} is there already; choose another name, or replace it with --force", args.file.display());
    }
    let staged = hold(&home)?;
    let progress = Progress::start("writing");
    let packed = pack(&staged, &args.file, args.force, &mut |percent| progress.at("writing", Some(percent)));
    drop(progress);
    // Before the error, if there is one: what is held takes room.
    unstage(&staged.folder)?;
    shown(staged, packed?)
}

/// Holds on to the files of one moment: of a running peer through it, else under the home's lock.
fn hold(home: &Home) -> anyhow::Result<Staged> {
    let pid = std::process::id();
    let folder = std::path::absolute(home.root())?;
    match Control::of(&folder).ask::<Staged>(&Request::Backup { pid }) {
        Err(ControlError::NoPeer { .. }) => {}
        answered => return Ok(answered?),
    }
    let home = Home::at(folder);
    let _lock = home.lock()?;
    let config = Config::load(&home.config_file())?;
    let identity = Identity::load(&home)?;
    let (journal, replay) = Journal::open(&home.journal_dir())?;
    drop(replay);
    Ok(stage(&home, &config.address, &identity, &journal, pid, system_wall())?)
}

fn shown(staged: Staged, packed: Packed) -> anyhow::Result<Shown> {
    let Staged { address, peer_id, made, missing, .. } = staged;
    let Packed { file, length, files } = packed;
    let mut text = format!(
        "{} is a backup of {address}: {files} files, {}, written and read again.\n{SECRET}\n",
        file.display(),
        output::size(length)
    );
    if !missing.is_empty() {
        text.push_str(&format!(
            "NOT IN IT, because this home has lost them: {} file(s), the first is {}. `roost doctor` says more.\n",
            missing.len(),
            missing[0]
        ));
    }
    text.push_str("Members' parts and the index are left out: they are fetched again.\n");
    Shown::of(&Written { address, peer_id, file, made, length, files, missing, secret: true }, text)
}

/// What was restored.
#[derive(Debug, Serialize)]
struct Made {
    address: Address,
    peer_id: PeerId,
    fingerprint: String,
    home: PathBuf,
    /// The moment that the home is of.
    made: WallTime,
    files: usize,
    bytes: u64,
    smtp: String,
    imap: String,
    login: String,
}

/// `roost init --restore FILE`.
///
/// # Errors
/// When the backup is not whole, is another's, or the home is not empty. Then there is no new home.
pub(super) fn restore(home: &Path, file: &Path, address: Option<&Address>) -> anyhow::Result<Shown> {
    let restored = restore_home(file, home, address).with_context(|| format!("{} is not restored", file.display()))?;
    let (config, head) = (restored.config, restored.backup.head.clone());
    let made = Made {
        address: config.address.clone(),
        peer_id: head.peer_id,
        fingerprint: restored.identity.openpgp.fingerprint().to_string(),
        home: home.to_owned(),
        made: head.made,
        files: restored.backup.files.len(),
        bytes: restored.backup.bytes(),
        smtp: format!("127.0.0.1:{}", config.mail.smtp_port),
        imap: format!("127.0.0.1:{}", config.mail.imap_port),
        login: config.address.to_string(),
    };
    let age = system_wall().since(head.made);
    let text = format!(
        "This is the home of {} again, as it was {} ago: {}\n\n\
         Ports, login and app password are the old ones (`roost init --new-password` makes another password).\n\
         Never start a home that was restored elsewhere as well: both would be the same peer.\n\n\
         Next: roost up --home {}\n",
        made.address,
        output::seconds(age),
        made.home.display(),
        made.home.display()
    );
    Shown::of(&made, text)
}
