//! Reading what the system has in memory already, without waiting for a disk. It never blocks, so that it may run where nothing
//! else of this layer may: whoever gets nothing reads on the blocking pool, as ever.

use std::fs::File;

use bytes::{Bytes, BytesMut};

/// `len` bytes of `file` from `start` on, if all of them are in the page cache. A system without `RWF_NOWAIT` (preadv2(2)) never
/// says so.
pub fn read_if_cached(file: &File, start: u64, len: usize) -> Option<Bytes> {
    // preadv2(2) takes an offset of -1 for wherever the file was read last.
    i64::try_from(start.checked_add(u64::try_from(len).ok()?)?).ok()?;
    let mut bytes = BytesMut::zeroed(len);
    let mut have = 0;
    while have < len {
        let at = start.checked_add(u64::try_from(have).ok()?)?;
        have += read_now(file, bytes.get_mut(have..)?, at).filter(|read| *read > 0)?;
    }
    Some(bytes.freeze())
}

#[cfg(target_os = "linux")]
fn read_now(file: &File, bytes: &mut [u8], at: u64) -> Option<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    preadv2(file, &mut [std::io::IoSliceMut::new(bytes)], at, ReadWriteFlags::NOWAIT).ok()
}

#[cfg(not(target_os = "linux"))]
fn read_now(_: &File, _: &mut [u8], _: u64) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn what_was_just_written_is_read_and_nothing_beyond_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        // Where the system cannot say, nothing is the answer, whatever is asked for.
        let can_say = read_now(&file, &mut [0], 0) == Some(1);
        for (start, len) in [(0, 100_000), (99_999, 1), (50_000, 50_000)] {
            assert_eq!(read_if_cached(&file, start, len), can_say.then(|| vec![7; len].into()));
        }
        file.rewind().unwrap();
        for (start, len) in [(99_999, 2), (u64::MAX, 2), (u64::MAX - 2, 2), (1 << 63, 1), (u64::MAX, 0)] {
            assert!(read_if_cached(&file, start, len).is_none(), "{start} {len}");
        }
        assert_eq!(read_if_cached(&file, 0, 0).unwrap().len(), 0);
    }
}
