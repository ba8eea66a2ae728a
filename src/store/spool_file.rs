//! One file for a mail of the spool: the clear mail, then its envelope (`tailed.rs`). It knows no envelope from another; what is in it
//! is the spool's affair (`actors/spool.rs`).
//!
//! Homes of earlier versions have two files, `spool/SUBMISSION` and `spool/SUBMISSION.envelope`; they are read, never written.

use std::fs::File;
use std::io::{self, Read as _, Take, Write};

use super::files::{FileError, read_bounded};
use super::home::Home;
use super::tailed::{self, Mark};
use crate::model::SubmissionId;

/// Its version, and a byte that a mail's end seldom has there.
const MARK: Mark = [2, b'R'];

/// Writes what follows the clear mail.
///
/// # Errors
/// What the operating system says.
pub fn write_envelope(to: &mut impl Write, envelope: &[u8]) -> io::Result<()> {
    tailed::write_second(to, envelope, MARK)
}

/// The envelope of a mail, of at most `limit` bytes.
///
/// # Errors
/// [`FileError::NotFound`] when it was never accepted, or is gone; [`FileError::Io`] of kind `InvalidData` when its end is damaged.
pub fn read_envelope(home: &Home, submission: &SubmissionId, limit: u64) -> Result<Vec<u8>, FileError> {
    match tailed::read_second(&home.spool_file(submission), MARK, limit) {
        Err(e) if e.is_not_found() => read_bounded(&home.spool_envelope_of_version_1(submission), limit),
        read => read,
    }
}

/// The clear mail, from its beginning.
///
/// # Errors
/// As [`read_envelope`].
pub fn open_mail(home: &Home, submission: &SubmissionId) -> Result<Take<File>, FileError> {
    match tailed::open_first(&home.spool_file(submission), MARK) {
        Err(e) if e.is_not_found() => {
            let path = home.spool_mail_of_version_1(submission);
            let opened = File::open(&path).map_err(|e| FileError::from_io(&path, "open", &e))?;
            Ok(opened.take(u64::MAX))
        }
        opened => opened,
    }
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
