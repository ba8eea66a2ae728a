//! One file for a mail of the spool: the clear mail, then its envelope, then ten bytes that say how long the envelope is. It knows
//! no envelope from another; what is in it is the spool's affair (`actors/spool.rs`).
//!
//! ```text
//! clear mail | envelope | version 0x02 | 'R' | length of the envelope (u32, big-endian) | CRC-32C of all that follows the mail but itself
//! ```
//!
//! Homes of earlier versions have two files, `spool/SUBMISSION` and `spool/SUBMISSION.envelope`; they are read, never written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take, Write};
use std::path::Path;

use super::files::{FileError, read_bounded};
use super::home::Home;
use crate::model::SubmissionId;

/// Its version, and a byte that a mail's end seldom has there.
const MARK: [u8; 2] = [2, b'R'];
/// Bytes after the envelope.
const FOOTER: u64 = 10;

/// Writes what follows the clear mail.
///
/// # Errors
/// What the operating system says.
pub fn write_envelope(to: &mut impl Write, envelope: &[u8]) -> io::Result<()> {
    let length = u32::try_from(envelope.len()).map_err(io::Error::other)?;
    let follows = [envelope, &MARK, &length.to_be_bytes()].concat();
    to.write_all(&follows)?;
    to.write_all(&crc32c::crc32c(&follows).to_be_bytes())
}

/// The envelope of a mail, of at most `limit` bytes.
///
/// # Errors
/// [`FileError::NotFound`] when it was never accepted, or is gone; [`FileError::Io`] of kind `InvalidData` when its end is damaged.
pub fn read_envelope(home: &Home, submission: &SubmissionId, limit: u64) -> Result<Vec<u8>, FileError> {
    let path = home.spool_file(submission);
    match File::open(&path) {
        Ok(file) => Ok(take_apart(&path, file, limit)?.1),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            read_bounded(&home.spool_envelope_of_version_1(submission), limit)
        }
        Err(e) => Err(FileError::from_io(&path, "open", &e)),
    }
}

/// The clear mail, from its beginning.
///
/// # Errors
/// As [`read_envelope`].
pub fn open_mail(home: &Home, submission: &SubmissionId) -> Result<Take<File>, FileError> {
    let path = home.spool_file(submission);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let path = home.spool_mail_of_version_1(submission);
            return File::open(&path)
                .map(|file| file.take(u64::MAX))
                .map_err(|e| FileError::from_io(&path, "open", &e));
        }
        Err(e) => return Err(FileError::from_io(&path, "open", &e)),
    };
    let (mut file, envelope, length) = footer(&path, file, u64::MAX)?;
    file.rewind().map_err(|e| FileError::from_io(&path, "read", &e))?;
    Ok(file.take(length - envelope - FOOTER))
}

fn damaged(path: &Path, why: &str) -> FileError {
    FileError::from_io(path, "read", &io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The file, the envelope's length and the file's, bytes, once they fit each other.
fn footer(path: &Path, mut file: File, limit: u64) -> Result<(File, u64, u64), FileError> {
    let failed = |e: io::Error| FileError::from_io(path, "read", &e);
    let length = file.metadata().map_err(failed)?.len();
    if length < FOOTER {
        return Err(damaged(path, "its end is missing"));
    }
    let mut end = [0; 6];
    file.seek(SeekFrom::Start(length - FOOTER)).map_err(failed)?;
    file.read_exact(&mut end).map_err(failed)?;
    let [version, mark, bytes @ ..] = end;
    let envelope = u64::from(u32::from_be_bytes(bytes));
    if [version, mark] != MARK || envelope > limit || envelope + FOOTER > length {
        return Err(damaged(path, "its end is not one that this version writes"));
    }
    Ok((file, envelope, length))
}

/// The file and the checked envelope.
fn take_apart(path: &Path, file: File, limit: u64) -> Result<(File, Vec<u8>), FileError> {
    let failed = |e: io::Error| FileError::from_io(path, "read", &e);
    let (mut file, envelope, length) = footer(path, file, limit)?;
    file.seek(SeekFrom::Start(length - envelope - FOOTER)).map_err(failed)?;
    let mut follows = Vec::new();
    Read::by_ref(&mut file).take(envelope + FOOTER).read_to_end(&mut follows).map_err(failed)?;
    let checked =
        follows.split_last_chunk::<4>().filter(|(rest, sum)| crc32c::crc32c(rest) == u32::from_be_bytes(**sum));
    let (rest, _) = checked.ok_or_else(|| damaged(path, "its envelope is not what was written"))?;
    let envelope = rest.len().saturating_sub(usize::try_from(FOOTER).unwrap_or(0) - 4);
    Ok((file, rest[..envelope].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ID: SubmissionId = SubmissionId::new([1; 16]);

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        (dir, home)
    }

    fn text(home: &Home) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        open_mail(home, &ID)?.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn mail_and_envelope_come_back_and_any_damage_of_the_end_is_named() {
        let (_dir, home) = home();
        assert!(read_envelope(&home, &ID, 100).unwrap_err().is_not_found());
        for (mail, envelope) in [(&b"a mail"[..], &b"an envelope"[..]), (b"", b""), (b"x", b"")] {
            let mut file = mail.to_vec();
            write_envelope(&mut file, envelope).unwrap();
            fs::write(home.spool_file(&ID), &file).unwrap();
            assert_eq!(
                (text(&home).unwrap(), read_envelope(&home, &ID, 100).unwrap()),
                (mail.to_vec(), envelope.to_vec())
            );
            for i in mail.len()..file.len() {
                let mut bad = file.clone();
                bad[i] ^= 0x10;
                fs::write(home.spool_file(&ID), &bad).unwrap();
                assert!(matches!(read_envelope(&home, &ID, 100), Err(FileError::Io { .. })), "byte {i}");
            }
            fs::write(home.spool_file(&ID), &file[..file.len() - 1]).unwrap();
            assert!(read_envelope(&home, &ID, 100).is_err() && (mail.len() < 2 || text(&home).is_err()));
        }
    }

    #[test]
    fn the_two_files_of_an_earlier_version_are_read() {
        let (_dir, home) = home();
        fs::write(home.spool_mail_of_version_1(&ID), b"mail").unwrap();
        fs::write(home.spool_envelope_of_version_1(&ID), b"envelope").unwrap();
        assert_eq!(
            (text(&home).unwrap(), read_envelope(&home, &ID, 100).unwrap()),
            (b"mail".to_vec(), b"envelope".to_vec())
        );
    }
}
