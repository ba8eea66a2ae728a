//! One file for two things that come and go together: the first as it is, then the second, then ten bytes that say how long the second
//! is. A file less to be made, synced and removed. It knows nothing of what they are.
//!
//! ```text
//! first | second | mark (2 bytes) | length of the second (u32, big-endian) | CRC-32C of all that follows the first but itself
//! ```

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::files::FileError;

/// A version, and a letter that says what the second thing is.
pub type Mark = [u8; 2];

/// Bytes after the second thing.
const FOOTER: u64 = 10;

/// Writes what follows the first thing.
///
/// # Errors
/// What the operating system says.
pub fn write_second(to: &mut impl Write, second: &[u8], mark: Mark) -> io::Result<()> {
    let length = u32::try_from(second.len()).map_err(io::Error::other)?;
    let mut footer = [0; 10];
    footer[..2].copy_from_slice(&mark);
    footer[2..6].copy_from_slice(&length.to_be_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(second), &footer[..6]);
    footer[6..].copy_from_slice(&sum.to_be_bytes());
    to.write_all(second)?;
    to.write_all(&footer)
}

/// The first thing, from its beginning.
///
/// # Errors
/// [`FileError::NotFound`]; [`FileError::Io`] of kind `InvalidData` when there is no second thing of this mark behind it.
pub fn open_first(path: &Path, mark: Mark) -> Result<Take<File>, FileError> {
    let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
    let (mut file, second, length) = footer(path, file, mark, u64::MAX)?;
    file.rewind().map_err(|e| FileError::from_io(path, "read", &e))?;
    Ok(file.take(length - second - FOOTER))
}

/// How long the first thing is: the whole file, where no second of this mark is behind it. It does not check the second.
///
/// # Errors
/// What the operating system says.
pub fn first_length(file: &File, mark: Mark) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let Some(at) = length.checked_sub(FOOTER) else { return Ok(length) };
    let mut end = [0; 6];
    file.read_exact_at(&mut end, at)?;
    let [version, letter, bytes @ ..] = end;
    let first = at.checked_sub(u64::from(u32::from_be_bytes(bytes)));
    Ok(first.filter(|_| [version, letter] == mark).unwrap_or(length))
}

/// The second thing, of at most `limit` bytes, checked.
///
/// # Errors
/// As [`open_first`]; the same when it is longer or not what was written.
pub fn read_second(path: &Path, mark: Mark, limit: u64) -> Result<Vec<u8>, FileError> {
    let failed = |e: io::Error| FileError::from_io(path, "read", &e);
    let file = File::open(path).map_err(|e| FileError::from_io(path, "open", &e))?;
    let (mut file, second, length) = footer(path, file, mark, limit)?;
    file.seek(SeekFrom::Start(length - second - FOOTER)).map_err(failed)?;
    let mut follows = Vec::new();
    Read::by_ref(&mut file).take(second + FOOTER).read_to_end(&mut follows).map_err(failed)?;
    let checked =
        follows.split_last_chunk::<4>().is_some_and(|(rest, sum)| crc32c::crc32c(rest) == u32::from_be_bytes(*sum));
    if !checked {
        return Err(damaged(path, "what is kept at its end is not what was written"));
    }
    follows.truncate(usize::try_from(second).unwrap_or(0));
    Ok(follows)
}

/// The first thing in a file whose bytes are these, by what the end says of the second: all of them, where no second of this mark is
/// behind it. Whether the second is whole is not looked at, so that damage of it does not touch the first. By chance a file without a
/// second may end as one with it; whoever can tell tries all of its bytes, too.
pub fn first_of(bytes: &[u8], mark: Mark) -> &[u8] {
    let found = bytes.split_last_chunk::<4>().and_then(|(rest, _)| {
        let (before, [version, letter, length @ ..]) = rest.split_last_chunk::<6>()?;
        let at = before.len().checked_sub(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        ([*version, *letter] == mark).then_some(&bytes[..at])
    });
    found.unwrap_or(bytes)
}

fn damaged(path: &Path, why: &str) -> FileError {
    FileError::from_io(path, "read", &io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The file, the second thing's length and the file's, bytes, once they fit each other.
fn footer(path: &Path, mut file: File, mark: Mark, limit: u64) -> Result<(File, u64, u64), FileError> {
    let failed = |e: io::Error| FileError::from_io(path, "read", &e);
    let length = file.metadata().map_err(failed)?.len();
    if length < FOOTER {
        return Err(damaged(path, "its end is missing"));
    }
    let mut end = [0; 6];
    file.seek(SeekFrom::Start(length - FOOTER)).map_err(failed)?;
    file.read_exact(&mut end).map_err(failed)?;
    let [version, letter, bytes @ ..] = end;
    let second = u64::from(u32::from_be_bytes(bytes));
    if [version, letter] != mark || second > limit || second + FOOTER > length {
        return Err(damaged(path, "its end is not one that this version writes"));
    }
    Ok((file, second, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = [1, b'T'];

    #[test]
    fn both_things_come_back_and_any_damage_of_the_end_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("both");
        assert!(read_second(&path, MARK, 100).unwrap_err().is_not_found());
        for (first, second) in [(&b"the first"[..], &b"the second"[..]), (b"", b""), (b"x", b"")] {
            let mut bytes = first.to_vec();
            write_second(&mut bytes, second, MARK).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let mut read = Vec::new();
            open_first(&path, MARK).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!((read, read_second(&path, MARK, 100).unwrap()), (first.to_vec(), second.to_vec()));
            assert_eq!((first_of(&bytes, MARK), first_of(&bytes, [2, b'T'])), (first, &bytes[..]));
            let length = |mark| usize::try_from(first_length(&File::open(&path).unwrap(), mark).unwrap()).unwrap();
            assert_eq!((length(MARK), length([2, b'T'])), (first.len(), bytes.len()));
            for i in first.len()..bytes.len() {
                let mut bad = bytes.clone();
                bad[i] ^= 0x10;
                std::fs::write(&path, &bad).unwrap();
                assert!(matches!(read_second(&path, MARK, 100), Err(FileError::Io { .. })), "byte {i}");
                // The second and its sum are the second's; only where the first ends must be right.
                let names_the_end = (bytes.len() - 10..bytes.len() - 4).contains(&i);
                assert_eq!(first_of(&bad, MARK) == first, !names_the_end, "byte {i}");
            }
            for end in 0..bytes.len() {
                std::fs::write(&path, &bytes[..end]).unwrap();
                assert!(read_second(&path, MARK, 100).is_err());
                assert_eq!(first_of(&bytes[..end], MARK), &bytes[..end]);
            }
        }
    }

    #[test]
    fn a_second_thing_above_its_bound_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let mut bytes = Vec::new();
        write_second(&mut bytes, &[7; 100], MARK).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_second(&path, MARK, 99).is_err() && read_second(&path, MARK, 100).is_ok());
    }
}
