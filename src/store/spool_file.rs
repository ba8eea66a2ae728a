//! One file for a mail of the spool: the clear mail, then its envelope (`tailed.rs`). Of a mail that was sealed while it came in there are
//! two: the sealed mail, and one with the envelope alone. It knows no envelope from another; what is in it is the spool's affair
//! (`actors/spool.rs`).
//!
//! Homes of earlier versions have two files, `spool/SUBMISSION` and `spool/SUBMISSION.envelope`; they are read, never written.

use std::fs::File;
use std::io::{self, Read as _, Take, Write};
use std::path::Path;

use super::files::{FileError, read_bounded};
use super::home::Home;
use super::tailed::{self, Mark};
use crate::model::SubmissionId;

/// Its version, and a byte that a mail's end seldom has there.
const MARK: Mark = [2, b'R'];

/// The same of one whose mail is sealed, and beside it.
const SEALED_MARK: Mark = [3, b'R'];

/// A mail of the spool.
#[derive(Debug)]
pub enum Kept {
    /// The clear mail, from its beginning.
    Clear(Take<File>),
    /// The mail as it was sealed while it came in.
    Sealed(File),
}

/// Writes what follows the clear mail.
///
/// # Errors
/// What the operating system says.
pub fn write_envelope(to: &mut impl Write, envelope: &[u8]) -> io::Result<()> {
    tailed::write_second(to, envelope, MARK)
}

/// Writes the envelope of a mail that is sealed, and beside it.
///
/// # Errors
/// What the operating system says.
pub fn write_envelope_of_sealed(to: &mut impl Write, envelope: &[u8]) -> io::Result<()> {
    tailed::write_second(to, envelope, SEALED_MARK)
}

fn is_of_another_form(error: &FileError) -> bool {
    matches!(error, FileError::Io { kind: io::ErrorKind::InvalidData, .. })
}

/// The envelope of a mail, of at most `limit` bytes.
///
/// # Errors
/// [`FileError::NotFound`] when it was never accepted, or is gone; [`FileError::Io`] of kind `InvalidData` when its end is damaged.
pub fn read_envelope(home: &Home, submission: &SubmissionId, limit: u64) -> Result<Vec<u8>, FileError> {
    let path = home.spool_file(submission);
    match tailed::read_second(&path, MARK, limit) {
        Err(e) if e.is_not_found() => read_bounded(&home.spool_envelope_of_version_1(submission), limit),
        Err(e) if is_of_another_form(&e) => tailed::read_second(&path, SEALED_MARK, limit),
        read => read,
    }
}

/// Whether the mail is, or should be, sealed beside its envelope.
pub fn is_kept_sealed(home: &Home, submission: &SubmissionId) -> bool {
    tailed::open_first(&home.spool_file(submission), SEALED_MARK).is_ok()
}

/// The mail.
///
/// # Errors
/// As [`read_envelope`].
pub fn open_mail(home: &Home, submission: &SubmissionId) -> Result<Kept, FileError> {
    let open = |path: &Path| File::open(path).map_err(|e| FileError::from_io(path, "open", &e));
    let path = home.spool_file(submission);
    match tailed::open_first(&path, MARK) {
        Err(e) if e.is_not_found() => Ok(Kept::Clear(open(&home.spool_mail_of_version_1(submission))?.take(u64::MAX))),
        Err(e) if is_of_another_form(&e) => {
            tailed::open_first(&path, SEALED_MARK)?;
            Ok(Kept::Sealed(open(&home.spool_sealed(submission))?))
        }
        opened => opened.map(Kept::Clear),
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
        match open_mail(home, &ID)? {
            Kept::Clear(mut mail) => mail.read_to_end(&mut bytes).unwrap(),
            Kept::Sealed(mut mail) => mail.read_to_end(&mut bytes).unwrap(),
        };
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

    #[test]
    fn a_sealed_mail_lies_beside_its_envelope_and_damage_of_that_is_named() {
        let (_dir, home) = home();
        let mut file = Vec::new();
        write_envelope_of_sealed(&mut file, b"an envelope").unwrap();
        fs::write(home.spool_file(&ID), &file).unwrap();
        assert!(open_mail(&home, &ID).unwrap_err().is_not_found());
        fs::write(home.spool_sealed(&ID), b"sealed").unwrap();
        assert!(matches!(open_mail(&home, &ID), Ok(Kept::Sealed(_))));
        assert_eq!(
            (text(&home).unwrap(), read_envelope(&home, &ID, 100).unwrap()),
            (b"sealed".to_vec(), b"an envelope".to_vec())
        );
        for i in 0..file.len() {
            let mut bad = file.clone();
            bad[i] ^= 0x10;
            fs::write(home.spool_file(&ID), &bad).unwrap();
            assert!(matches!(read_envelope(&home, &ID, 100), Err(FileError::Io { .. })), "byte {i}");
        }
    }
}
