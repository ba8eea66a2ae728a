//! A record and its bytes in a journal file. It never interprets an event.
//!
//! ```text
//! file   = "ROOSTJNL" version(2) batch*            a batch is in `batch.rs`
//! file   = "ROOSTJNL" version(1) frame*            as it was written before there were batches; read, never written
//! frame  = length(u32 LE, of body)  crc32c(u32 LE, of length and body)  body
//! body   = version(1)  name length(u8)  name of the brain (UTF-8)  event (CBOR, the brain's own)
//! ```
//! The checksum covers the length too, so that a run of zeros, which a power cut may leave, is no frame.

use super::error::JournalError;

/// What a journal file starts with: its mark and its version.
pub(super) const HEADER: [u8; 9] = *b"ROOSTJNL\x02";
/// What one starts with that has no batches.
pub(super) const HEADER_V1: [u8; 9] = *b"ROOSTJNL\x01";
/// Bytes of length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// Version of a record's body.
const VERSION: u8 = 1;
/// Longest name of a brain, bytes.
pub const BRAIN_NAME_MAX: usize = 64;
/// Largest body of a record: far above any event, so that a damaged length does not ask for gigabytes.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Shortest body: version, length of the name, one letter.
const BODY_BYTES_MIN: usize = 3;
/// Shortest frame, as a length in a file: head and body.
pub(super) const FRAME_BYTES_MIN: u64 = 11;

/// One event of one brain.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose it is; 1 to [`BRAIN_NAME_MAX`] bytes.
    pub brain: String,
    /// The event, in the brain's own CBOR.
    pub event: Vec<u8>,
}

impl Record {
    /// The record of `event` of `brain`.
    pub fn new(brain: impl Into<String>, event: Vec<u8>) -> Self {
        Self { brain: brain.into(), event }
    }

    /// Appends its frame to `out`; gives the frame's length.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) -> Result<u64, JournalError> {
        let bad = |why: String| JournalError::BadRecord { brain: self.brain.clone(), why };
        let name_len = u8::try_from(self.brain.len()).unwrap_or(u8::MAX);
        if name_len == 0 || usize::from(name_len) > BRAIN_NAME_MAX {
            return Err(bad(format!("a brain's name has 1 to {BRAIN_NAME_MAX} bytes")));
        }
        let body = 2 + self.brain.len() + self.event.len();
        let length = match u32::try_from(body) {
            Ok(length) if body <= RECORD_BYTES_MAX => length.to_le_bytes(),
            _ => return Err(bad(format!("it has {body} bytes, at most {RECORD_BYTES_MAX} are kept"))),
        };
        let start = out.len();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[VERSION, name_len]);
        out.extend_from_slice(self.brain.as_bytes());
        out.extend_from_slice(&self.event);
        let sum = checksum(length, &out[start + HEAD_BYTES..]);
        out[start + 4..start + HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        Ok(u64::try_from(HEAD_BYTES + body).unwrap_or(u64::MAX))
    }

    /// The record in the body of a whole frame.
    pub(super) fn from_body(body: &[u8]) -> Result<Self, String> {
        let (brain, event) = split_body(body)?;
        Ok(Self { brain: brain.to_owned(), event: event.to_vec() })
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An event may hold what must not print (R10).
        write!(f, "Record({}, {} bytes)", self.brain, self.event.len())
    }
}

/// The brain's name and the event in the body of a whole frame.
pub(super) fn split_body(body: &[u8]) -> Result<(&str, &[u8]), String> {
    let (version, rest) = body.split_first().ok_or("it is empty")?;
    if *version != VERSION {
        return Err(format!("it has version {version}, this build reads {VERSION}"));
    }
    let (name_len, rest) = rest.split_first().ok_or("it has no name")?;
    let (name, event) = rest.split_at_checked(usize::from(*name_len)).ok_or("its name is cut off")?;
    let name = std::str::from_utf8(name).map_err(|_| "its name is no UTF-8")?;
    Ok((name, event))
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), body)
}

/// Length of the body and checksum in a frame's head, if a frame can have that length.
pub(super) fn read_head(head: [u8; HEAD_BYTES]) -> Option<(usize, u32)> {
    let [a, b, c, d, e, f, g, h] = head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    let possible = (BODY_BYTES_MIN..=RECORD_BYTES_MAX).contains(&length);
    possible.then_some((length, u32::from_le_bytes([e, f, g, h])))
}

/// Whether `body` is the one that the checksum was made of.
pub(super) fn body_is_whole(body: &[u8], sum: u32) -> bool {
    u32::try_from(body.len()).is_ok_and(|length| checksum(length.to_le_bytes(), body) == sum)
}

/// Whether a whole frame starts `bytes`.
pub(super) fn starts_with_frame(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return false };
    read_head(*head).is_some_and(|(length, sum)| rest.get(..length).is_some_and(|body| body_is_whole(body, sum)))
}
