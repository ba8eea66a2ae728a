//! Doors into the journal for the fuzz targets: files without the thread that writes them. Never in an ordinary build.

#![allow(clippy::unwrap_used, reason = "a target panics where the disk under it fails")]

use std::fs;

use super::batch::batch;
use super::record::{HEADER, Record};
use super::replay::{self, Replay};

/// Where the last whole batch of this file ends, and the records up to there; nothing when it is no journal or damaged.
pub(crate) fn read(file: &[u8]) -> Option<(u64, Vec<Record>)> {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    let path = FOLDER.with(|folder| folder.path().join("00000001.log"));
    fs::write(&path, file).unwrap();
    let found = replay::check(&path).ok()?;
    assert_eq!(found.length, u64::try_from(file.len()).unwrap());
    let records = Replay::open(&path, found.good).unwrap();
    // A body of another version passes the checksum, and is found here.
    let records: Vec<Record> = records.collect::<Result<_, _>>().ok()?;
    Some((found.good, records))
}

/// The file that appends of so many records each leave.
pub(crate) fn written(records: &[Record], each: usize) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for part in records.chunks(each) {
        let mut frames = Vec::new();
        part.iter().for_each(|record| assert!(record.write_to(&mut frames).is_ok()));
        bytes.extend(batch(&frames, u64::try_from(bytes.len()).unwrap()));
    }
    bytes
}
