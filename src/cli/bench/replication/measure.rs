//! What keeping mails costs, read from outside: files in the members' homes, processor time, what the loopback carried. It changes
//! nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::cli::bench::cpu;
use crate::fragment::Layout;
use crate::model::{Encoding, MailId, Part};

/// Bytes of a block as `stat` counts them.
const STAT_BLOCK: u64 = 512;

/// What lies in files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli::bench) struct Stored {
    /// Lengths of all files: parts and manifests.
    pub(in crate::cli::bench) bytes: u64,
    /// What the file system gave them, in whole blocks.
    pub(super) allocated: u64,
    /// How many there are.
    pub(super) files: u64,
}

impl Stored {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            allocated: self.allocated + other.allocated,
            files: self.files + other.files,
        }
    }
}

/// The files in `folder` and below whose names begin with one of `mails`; of every mail when there is none.
pub(in crate::cli::bench) fn stored(folder: &Path, mails: &[MailId]) -> Stored {
    let names: Vec<String> = mails.iter().map(ToString::to_string).collect();
    stored_named(folder, &names)
}

fn stored_named(folder: &Path, names: &[String]) -> Stored {
    let mut all = Stored::default();
    // A file that goes while it is looked at is not there.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let found = match entry.metadata() {
            Ok(meta) if meta.is_dir() => stored_named(&entry.path(), names),
            Ok(meta) if names.is_empty() || names.iter().any(|h| name.starts_with(h)) => {
                Stored { bytes: meta.len(), allocated: meta.blocks() * STAT_BLOCK, files: 1 }
            }
            _ => Stored::default(),
        };
        all = all.and(found);
    }
    all
}

/// Bytes of one part of a sealed mail of `length` bytes.
pub(super) fn part_bytes(length: u64, part: Part) -> u64 {
    match part {
        Part::Whole => length,
        Part::Fragment { k, .. } => {
            Layout::new(length, Encoding::Fragments { k, n: k }).map_or(0, |layout| layout.fragment_len())
        }
    }
}

/// Parts that must be read from members to make one anew while the owner is off: k fragments, or one copy.
pub(super) fn parts_to_rebuild(part: Part) -> u64 {
    match part {
        Part::Whole => 1,
        Part::Fragment { k, .. } => u64::from(k),
    }
}

/// Processor time that a process has used, seconds; nothing when it is gone.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    cpu::seconds(pid).unwrap_or(0.0)
}

/// Bytes that a process had written to disk.
pub(super) fn written_bytes(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

/// What the loopback interface carried, whoever sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Loopback {
    /// Bytes, with all headers.
    pub(super) bytes: u64,
    /// Packets.
    pub(super) packets: u64,
}

/// What it carried until now.
pub(super) fn loopback() -> Loopback {
    loopback_in(&fs::read_to_string("/proc/net/dev").unwrap_or_default())
}

fn loopback_in(devices: &str) -> Loopback {
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let mut numbers = line.into_iter().flat_map(str::split_whitespace).map(|n| n.parse().unwrap_or(0));
    Loopback { bytes: numbers.next().unwrap_or(0), packets: numbers.next().unwrap_or(0) }
}

/// A count as a number that can be divided.
pub(in crate::cli::bench) fn real(count: u64) -> f64 {
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_mails_that_are_meant_are_counted_with_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (MailId::new([1; 20]), MailId::new([2; 20]));
        fs::create_dir_all(dir.path().join("m0@acme/01")).unwrap();
        fs::write(dir.path().join(format!("m0@acme/01/{one}.3.1")), vec![1; 5000]).unwrap();
        fs::write(dir.path().join(format!("m0@acme/01/{one}.manifest")), vec![1; 100]).unwrap();
        fs::write(dir.path().join(format!("m0@acme/01/{two}")), vec![1; 7]).unwrap();
        let found = stored(dir.path(), &[one]);
        assert_eq!((found.bytes, found.files), (5100, 2));
        assert!(found.allocated >= 5100, "{found:?}");
        assert_eq!(stored(dir.path(), &[]).files, 3);
    }

    #[test]
    fn a_fragment_is_a_kth_of_its_mail() {
        assert_eq!(part_bytes(3 << 20, Part::Fragment { k: 3, i: 4 }), 1 << 20);
        assert_eq!(part_bytes(77, Part::Whole), 77);
        assert_eq!(parts_to_rebuild(Part::Fragment { k: 3, i: 4 }), 3);
    }

    #[test]
    fn what_the_kernel_tells_is_read() {
        let devices = "Inter-|   Receive\n face |bytes    packets errs\n    lo: 1234 56 0 0\n  eth0: 9 9 0 0\n";
        assert_eq!(loopback_in(devices), Loopback { bytes: 1234, packets: 56 });
        assert_eq!(real(u64::from(u32::MAX) + 1), 4_294_967_296.0);
    }
}
