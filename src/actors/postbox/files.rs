//! The files of the local mailboxes: `KEY.head` (header block and structure), `KEY.body` (the clear mail), `KEY.signed` (the
//! signature that proves who wrote it). Every function blocks, and has made durable what it says it wrote; none of them decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::actors::spool::{Envelope, SpoolError, read_envelope, read_mail};
use crate::core::postbox::access::MessageKey;
use crate::core::postbox::io::OpenResult;
use crate::mime::{Split, Splitter};
use crate::model::structure::{SPLITTER_VERSION, Structure};
use crate::model::{MailId, PulledMail, SubmissionId};
use crate::seal::{Certificate, Opened, SealError, SecretIdentity, open_mail};
use crate::store::files::{
    DurableWriter, FILE_MODE, FileError, commit_together, read_bounded, remove_all, rename_durable, staged,
    write_durable,
};
use crate::store::home::Home;
use crate::wire;

/// Largest head that is read, bytes: the splitter's bounds on what it keeps, encoded.
const HEAD_MAX: u64 = 8 * 1024 * 1024;
/// Bytes that are split at a time.
const CHUNK: usize = 64 * 1024;
/// Longest clear mail that is opened in memory, bytes. One block of what repeats itself may hold a thousand.
const CLEAR_IN_MEMORY: u64 = 1024 * 1024;
/// Largest own mail that is opened, bytes: above every policy's bound.
const OWN_MAX: u64 = 1 << 40;

/// What is known of a message without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The header block with its blank line, byte for byte.
    #[serde(rename = "h", with = "serde_bytes")]
    pub header_block: Vec<u8>,
    /// The message's structure and size.
    #[serde(rename = "s")]
    pub structure: Structure,
}

impl From<Split> for Head {
    fn from(split: Split) -> Self {
        Self { header_block: split.header_block, structure: split.structure }
    }
}

/// Why the files of a message could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum MailFileError {
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// OpenPGP failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// An own mail is neither in the spool nor in the outbox.
    #[error("the mail {submission} is neither in spool/ nor in outbox/ any more")]
    NoMail {
        /// Which one.
        submission: SubmissionId,
    },
}

/// Where the head of a message lies.
pub fn head_path(home: &Home, key: MessageKey) -> PathBuf {
    home.mail_head(key.0)
}
/// Where the body of a message lies.
pub fn body_path(home: &Home, key: MessageKey) -> PathBuf {
    home.mail_body(key.0)
}
/// Where the signature of a mail lies.
pub fn signed_path(home: &Home, key: MessageKey) -> PathBuf {
    home.mail_signed(key.0)
}

/// Writes a head.
///
/// # Errors
/// [`FileError`]; then nobody may be told that it is there.
pub(super) fn write_head(home: &Home, key: MessageKey, head: &Head) -> Result<u64, FileError> {
    write_durable(&head_path(home, key), &wire::encode(head), FILE_MODE)?;
    Ok(head.structure.size)
}

/// The head of a message; made again from the body when only that is there.
///
/// # Errors
/// `NotFound` when neither is there, `InvalidData` when the head is damaged and the body is not there.
pub(super) fn read_head(home: &Home, key: MessageKey) -> io::Result<Head> {
    let why = match read_bounded(&head_path(home, key), HEAD_MAX) {
        Ok(bytes) => match wire::decode(&bytes) {
            Ok(head) => return Ok(head),
            Err(e) => io::Error::new(io::ErrorKind::InvalidData, e),
        },
        Err(FileError::NotFound { path }) => {
            io::Error::new(io::ErrorKind::NotFound, FileError::NotFound { path }.to_string())
        }
        Err(e) => io::Error::other(e),
    };
    let Ok(file) = File::open(body_path(home, key)) else { return Err(why) };
    let head = Head::from(split_all(file, io::sink())?);
    if let Err(error) = write_head(home, key, &head) {
        tracing::warn!(key = key.0, %error, "the head of a message was made again and could not be kept");
    }
    Ok(head)
}

/// What stands in the place of a message whose files are lost.
pub(super) fn damaged_head() -> Head {
    let text = b"Subject: (this message is damaged on this peer's disk)\r\n\r\n";
    Head::from(crate::mime::split::split(text))
}

/// Reads a mail to its end, splits it, and copies it.
fn split_all(mut from: impl Read, mut to: impl Write) -> io::Result<Split> {
    let mut splitter = Splitter::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(splitter.finish()),
            Ok(n) => {
                splitter.feed(&chunk[..n]);
                to.write_all(&chunk[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Copies a clear mail into a message.
fn write_from(home: &Home, key: MessageKey, from: impl Read) -> Result<u64, FileError> {
    let path = body_path(home, key);
    let mut writer = DurableWriter::create(&home.mail_dir())?;
    let split = split_all(from, &mut writer).map_err(|e| FileError::from_io(&path, "write", &e))?;
    writer.commit(&path)?;
    write_head(home, key, &split.into())
}

/// Writes a whole message.
pub(super) fn write_message(home: &Home, key: MessageKey, message: &[u8]) -> Result<u64, FileError> {
    write_from(home, key, message)
}

/// Makes a file in `mail/` the body of a message.
pub(super) fn adopt(home: &Home, key: MessageKey, file: &Path) -> Result<u64, FileError> {
    let failed = |e: &io::Error| FileError::from_io(file, "read", e);
    let opened = File::open(file).map_err(|e| failed(&e))?;
    let split = split_all(opened, io::sink()).map_err(|e| failed(&e))?;
    rename_durable(file, &body_path(home, key))?;
    write_head(home, key, &split.into())
}

/// Copies a mail from the spool.
pub(super) fn write_spooled(
    home: &Home,
    me: &SecretIdentity,
    key: MessageKey,
    submission: &SubmissionId,
) -> Result<u64, MailFileError> {
    Ok(write_from(home, key, read_mail(home, me, submission)?)?)
}

/// Splits what is written to it and passes it on.
struct Tee<W> {
    splitter: Splitter,
    to: W,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.splitter.feed(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Copies an own mail to `to`, from the spool or from one of its sealed forms, and splits it.
fn own_mail<W: Write>(
    home: &Home,
    me: &SecretIdentity,
    submission: &SubmissionId,
    mails: &BTreeSet<MailId>,
    mut new: impl FnMut() -> Result<W, FileError>,
) -> Result<(Split, W), MailFileError> {
    if let Ok(clear) = read_mail(home, me, submission) {
        let mut to = new()?;
        let copied = split_all(clear, &mut to);
        let split = copied.map_err(|e| FileError::from_io(&home.spool_file(submission), "copy", &e))?;
        return Ok((split, to));
    }
    let mut why = MailFileError::NoMail { submission: *submission };
    for h in mails {
        let Ok(sealed) = File::open(home.outbox_blob(h)) else { continue };
        let mut tee = Tee { splitter: Splitter::new(), to: new()? };
        match open_mail(BufReader::with_capacity(CHUNK, sealed), me, me.certificate(), OWN_MAX, &mut tee) {
            Ok(_) => return Ok((tee.splitter.finish(), tee.to)),
            Err(e) => why = e.into(),
        }
    }
    Err(why)
}

/// Writes the head of an own mail.
pub(super) fn write_own_head(
    home: &Home,
    me: &SecretIdentity,
    key: MessageKey,
    submission: &SubmissionId,
    mails: &BTreeSet<MailId>,
) -> Result<u64, MailFileError> {
    let head = match read_envelope(home, submission) {
        // As long as it is in the spool, nothing has to be opened.
        Ok(Envelope { header_block, structure, .. }) => Head { header_block, structure },
        Err(_) => own_mail(home, me, submission, mails, || Ok(io::sink()))?.0.into(),
    };
    Ok(write_head(home, key, &head)?)
}

/// Opens an own mail into the body of a message.
pub(super) fn open_own(
    home: &Home,
    me: &SecretIdentity,
    key: MessageKey,
    submission: &SubmissionId,
    mails: &BTreeSet<MailId>,
) -> OpenResult {
    let opened = own_mail(home, me, submission, mails, || DurableWriter::create(&home.mail_dir()));
    let placed = opened.and_then(|(_, writer)| Ok(writer.commit(&body_path(home, key))?));
    match placed {
        Ok(()) => OpenResult::Here,
        Err(e) => OpenResult::Failed(e.to_string()),
    }
}

/// Opens a pulled mail into the body of a message. Nothing of it is there under its name before all of it was verified: the
/// sender's signature, the size, and header block and structure as its ns announced them (R6).
pub(super) fn open_sealed(
    home: &Home,
    me: &SecretIdentity,
    key: MessageKey,
    sealed: &PulledMail,
    sender: &Certificate,
    (announced, size): (io::Result<Arc<Head>>, u64),
) -> OpenResult {
    let announced = announced.map_err(|e| FileError::from_io(&head_path(home, key), "read", &e).into());
    match announced.and_then(|announced| try_open(home, me, key, sealed, sender, (&announced, size))) {
        Ok(result) => result,
        Err(MailFileError::Seal(e)) if is_mismatch(&e) => OpenResult::Mismatch(e.to_string()),
        Err(e) => OpenResult::Failed(e.to_string()),
    }
}

fn try_open(
    home: &Home,
    me: &SecretIdentity,
    key: MessageKey,
    sealed: &PulledMail,
    sender: &Certificate,
    (announced, size): (&Head, u64),
) -> Result<OpenResult, MailFileError> {
    let open = |path: &Path| {
        let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
        Ok::<_, FileError>(BufReader::with_capacity(CHUNK, file))
    };
    let sealed: Box<dyn Read + Send + Sync + '_> = match sealed {
        PulledMail::File(path) => Box::new(open(path)?),
        PulledMail::Memory(bytes) if size <= CLEAR_IN_MEMORY => {
            return open_short(home, me, key, bytes, sender, announced, size);
        }
        PulledMail::Memory(bytes) => Box::new(&bytes[..]),
    };
    let mut tee = Tee { splitter: Splitter::new(), to: DurableWriter::create(&home.mail_dir())? };
    let opened = open_mail(sealed, me, sender, size, &mut tee)?;
    let found = tee.splitter.finish();
    if let Some(why) = difference(announced, &found, opened.length, size) {
        return Ok(OpenResult::Mismatch(why));
    }
    keep_opened(home, key, &opened, (tee.to, body_path(home, key)))
}

/// The same for a mail that was pulled into memory and is short when it is open, too: nothing is written before all of it was verified.
fn open_short(
    home: &Home,
    me: &SecretIdentity,
    key: MessageKey,
    sealed: &[u8],
    sender: &Certificate,
    announced: &Head,
    size: u64,
) -> Result<OpenResult, MailFileError> {
    let mut tee = Tee { splitter: Splitter::new(), to: Vec::new() };
    let opened = open_mail(sealed, me, sender, size, &mut tee)?;
    if let Some(why) = difference(announced, &tee.splitter.finish(), opened.length, size) {
        return Ok(OpenResult::Mismatch(why));
    }
    keep_opened(home, key, &opened, staged(&body_path(home, key), &tee.to)?)
}

/// Signature and body: a body that came sealed is never there without what proves who wrote it.
fn keep_opened(
    home: &Home,
    key: MessageKey,
    opened: &Opened,
    body: (DurableWriter, PathBuf),
) -> Result<OpenResult, MailFileError> {
    commit_together(vec![staged(&signed_path(home, key), &opened.signature)?, body])?;
    Ok(OpenResult::Here)
}

/// What of the body does not fit its ns.
fn difference(announced: &Head, found: &Split, length: u64, size: u64) -> Option<String> {
    if length != size || announced.structure.size != size {
        return Some(format!("it has {length} bytes, {size} were announced"));
    }
    if found.header_block != announced.header_block {
        return Some("its header block is another one than was announced".to_owned());
    }
    // Only the same rules give the same structure.
    if announced.structure.version == SPLITTER_VERSION && found.structure != announced.structure {
        return Some("its structure is another one than was announced".to_owned());
    }
    None
}

/// Whether it is the mail that is wrong, and not this peer.
fn is_mismatch(error: &SealError) -> bool {
    match error {
        SealError::NotForMe { .. }
        | SealError::BombOrTooLarge { .. }
        | SealError::Signature { .. }
        | SealError::Malformed { .. }
        | SealError::Refused { .. } => true,
        SealError::Io { .. }
        | SealError::Certificate { .. }
        | SealError::Receivers { .. }
        | SealError::OpenPgp { .. }
        | SealError::Wire(_) => false,
    }
}

/// Removes the files of messages. What cannot be removed now is removed by the sweep at the next start.
pub(super) fn remove(home: &Home, keys: &[MessageKey]) {
    for key in keys {
        if let Err(error) = remove_all(&[head_path(home, *key), body_path(home, *key), signed_path(home, *key)]) {
            tracing::warn!(%error, "a file that is not needed any more stays until the next start");
        }
    }
}

/// Removes every file in `mail/` that no message needs; gives the messages that lack a file they need.
pub(super) fn sweep(home: &Home, keep: &BTreeMap<MessageKey, bool>) -> BTreeSet<MessageKey> {
    let folders = fs::read_dir(home.mail_dir()).into_iter().flatten().flatten();
    for file in folders.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten() {
        let path = file.path();
        if !is_needed(&path, keep)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a file that no message needs cannot be removed");
        }
    }
    let lacks = |key: MessageKey, here: bool| {
        let body = !here || body_path(home, key).is_file();
        !body || (!head_path(home, key).is_file() && read_head(home, key).is_err())
    };
    let damaged: BTreeSet<MessageKey> =
        keep.iter().filter(|(key, here)| lacks(**key, **here)).map(|(key, _)| *key).collect();
    if !damaged.is_empty() {
        tracing::error!(messages = damaged.len(), "files in mail/ are missing; restore them from a backup");
    }
    damaged
}

fn is_needed(path: &Path, keep: &BTreeMap<MessageKey, bool>) -> bool {
    let stem = path.file_stem().and_then(|s| s.to_str());
    let Some(key) = stem.and_then(|s| u64::from_str_radix(s, 16).ok()) else {
        // Not a name of ours: whoever put it there knows why.
        return true;
    };
    match (keep.get(&MessageKey(key)), path.extension().and_then(|e| e.to_str())) {
        (Some(_), Some("head")) | (Some(true), Some("body" | "signed")) => true,
        (_, Some("head" | "body" | "signed")) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::seal::seal_mail;
    use crate::store::spool_file;

    const NOW: WallTime = WallTime(1_700_000_000_000);
    const MAIL: &[u8] = b"From: alice@acme\r\nTo: rita@readers\r\nSubject: x\r\n\r\nbody\r\n";

    fn identity(address: &str) -> SecretIdentity {
        SecretIdentity::generate(&address.parse().unwrap(), NOW).unwrap()
    }

    struct Disk {
        _dir: tempfile::TempDir,
        home: Home,
        alice: SecretIdentity,
        rita: SecretIdentity,
        sealed: PathBuf,
    }

    fn disk(mail: &[u8]) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let (alice, rita) = (identity("alice@acme"), identity("rita@readers"));
        let sealed = home.fetch_dir().join("sealed");
        let receivers = [rita.certificate().clone(), alice.certificate().clone()];
        seal_mail(mail, &alice, &receivers, File::create(&sealed).unwrap(), NOW).unwrap();
        write_head(&home, MessageKey(1), &crate::mime::split::split(MAIL).into()).unwrap();
        Disk { _dir: dir, home, alice, rita, sealed }
    }

    fn open(disk: &Disk, sender: &SecretIdentity, size: usize) -> OpenResult {
        let size = u64::try_from(size).unwrap();
        let left = |key| [signed_path(&disk.home, key), body_path(&disk.home, key)].map(|path| fs::read(path).ok());
        let open = |key, pulled| {
            let announced = (read_head(&disk.home, key).map(Arc::new), size);
            let result = open_sealed(&disk.home, &disk.rita, key, &pulled, sender.certificate(), announced);
            (result, left(key))
        };
        let file = open(MessageKey(1), PulledMail::File(disk.sealed.clone()));
        // What was never written is opened alike, and leaves the same files.
        write_head(&disk.home, MessageKey(2), &read_head(&disk.home, MessageKey(1)).unwrap()).unwrap();
        assert_eq!(left(MessageKey(2)), [None, None]);
        let short = open(MessageKey(2), PulledMail::Memory(fs::read(&disk.sealed).unwrap().into()));
        assert_eq!(short, file);
        file.0
    }

    #[test]
    fn a_mail_that_fits_its_ns_is_opened_and_its_signature_kept() {
        let disk = disk(MAIL);
        assert_eq!(open(&disk, &disk.alice, MAIL.len()), OpenResult::Here);
        assert_eq!(fs::read(body_path(&disk.home, MessageKey(1))).unwrap(), MAIL);
        let signature = fs::read(signed_path(&disk.home, MessageKey(1))).unwrap();
        let message = crate::seal::signed_message(&signature, MAIL, u64::try_from(MAIL.len()).unwrap()).unwrap();
        crate::seal::verify_signed(message, disk.alice.certificate(), 1000, io::sink()).unwrap();
    }

    /// One block may hold a thousand when it is open.
    #[test]
    fn r9_a_short_mail_that_is_long_when_it_is_open_is_opened_all_the_same() {
        let long = usize::try_from(CLEAR_IN_MEMORY).unwrap();
        for length in [long, long + 1] {
            let mut mail = MAIL.to_vec();
            mail.resize(length, b'x');
            let disk = disk(&mail);
            assert!(fs::metadata(&disk.sealed).unwrap().len() < 64 * 1024);
            write_head(&disk.home, MessageKey(1), &crate::mime::split::split(&mail).into()).unwrap();
            assert_eq!(open(&disk, &disk.alice, mail.len()), OpenResult::Here);
            assert!(fs::read(body_path(&disk.home, MessageKey(2))).unwrap() == mail);
        }
    }

    #[test]
    fn another_body_signer_or_size_than_announced_is_a_mismatch_and_leaves_no_file() {
        let other = MAIL.to_ascii_uppercase();
        for (mail, by_alice, size) in [(&other[..], true, MAIL.len()), (MAIL, false, MAIL.len()), (MAIL, true, 5)] {
            let disk = disk(mail);
            let sender = if by_alice { &disk.alice } else { &disk.rita };
            assert!(matches!(open(&disk, sender, size), OpenResult::Mismatch(_)));
            assert!(!body_path(&disk.home, MessageKey(1)).exists());
            assert!(!signed_path(&disk.home, MessageKey(1)).exists());
        }
    }

    #[test]
    fn an_own_mail_is_opened_from_spool_or_from_its_sealed_form() {
        let disk = disk(MAIL);
        let (submission, h) = (SubmissionId::new([1; 16]), MailId::new([2; 20]));
        let mails = BTreeSet::from([h]);
        let head = |key| write_own_head(&disk.home, &disk.alice, MessageKey(key), &submission, &mails);
        assert!(matches!(head(5), Err(MailFileError::NoMail { .. })));
        let mut spooled = MAIL.to_vec();
        spool_file::write_envelope(&mut spooled, b"").unwrap();
        fs::write(disk.home.spool_file(&submission), spooled).unwrap();
        assert_eq!(head(5).unwrap(), u64::try_from(MAIL.len()).unwrap());
        fs::remove_file(disk.home.spool_file(&submission)).unwrap();
        rename_durable(&disk.sealed, &disk.home.outbox_blob(&h)).unwrap();
        head(6).unwrap();
        assert_eq!(read_head(&disk.home, MessageKey(5)).unwrap(), read_head(&disk.home, MessageKey(6)).unwrap());
        assert_eq!(open_own(&disk.home, &disk.alice, MessageKey(6), &submission, &mails), OpenResult::Here);
        assert_eq!(fs::read(body_path(&disk.home, MessageKey(6))).unwrap(), MAIL);
    }

    #[test]
    fn the_sweep_keeps_what_is_needed_mends_heads_and_names_what_is_lost() {
        let disk = disk(MAIL);
        let home = &disk.home;
        for key in 2..5 {
            write_message(home, MessageKey(key), MAIL).unwrap();
        }
        fs::remove_file(head_path(home, MessageKey(2))).unwrap();
        fs::remove_file(body_path(home, MessageKey(3))).unwrap();
        write_message(home, MessageKey(0x1002), MAIL).unwrap();
        let keep = BTreeMap::from([1, 2, 3, 4].map(|key| (MessageKey(key), key == 2 || key == 3)));
        assert_eq!(sweep(home, &keep), BTreeSet::from([MessageKey(3)]));
        assert_eq!(read_head(home, MessageKey(2)).unwrap().structure.size, u64::try_from(MAIL.len()).unwrap());
        assert!(!body_path(home, MessageKey(4)).exists(), "the body of a stub is what a crash left");
        assert!(!head_path(home, MessageKey(0x1002)).exists());
    }
}
