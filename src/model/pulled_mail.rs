//! A sealed mail that a reader has pulled. What it is made of is left to the seal.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

/// A sealed mail, whole and verified against length and BLAKE3 of its ns.
#[derive(Clone, PartialEq, Eq)]
pub enum PulledMail {
    /// It lies in this file.
    File(PathBuf),
    /// It was never written. Whoever bounds such mails takes back the room when the last copy of this goes.
    Memory(Bytes),
}

impl fmt::Debug for PulledMail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PulledMail::File(path) => write!(f, "PulledMail({})", path.display()),
            PulledMail::Memory(bytes) => write!(f, "PulledMail({} bytes)", bytes.len()),
        }
    }
}
