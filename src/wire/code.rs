//! Cards and invites as one line of text: a prefix that says what it is, then base64url of the encoded record and a check.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cbor::{self, WireError};
use crate::model::card::{Card, Invite};

/// Longest code that is read, characters.
pub(crate) const CODE_MAX: usize = 4096;
/// Bytes of BLAKE3 at the end of a code: a mistyped one is told from a wrong one.
const CHECK_BYTES: usize = 4;

/// Why a line is no card or invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Another prefix.
    #[error("this is no {what}: it does not start with \"{prefix}\"; copy the whole line")]
    Prefix {
        /// What was expected.
        what: &'static str,
        /// How it starts.
        prefix: &'static str,
    },
    /// Cut, mistyped or too long.
    #[error("this {what} is incomplete or mistyped; copy the whole line again")]
    Damaged {
        /// What was expected.
        what: &'static str,
    },
    /// Whole, but of a version that this build does not read.
    #[error("this {what} cannot be read: {source}")]
    Record {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        source: WireError,
    },
}

/// A record with a one-line form.
pub trait Code: Serialize + DeserializeOwned {
    /// What people call it.
    const WHAT: &'static str;
    /// How its line starts.
    const PREFIX: &'static str;
}
impl Code for Card {
    const WHAT: &'static str = "contact card";
    const PREFIX: &'static str = "roost-card:";
}
impl Code for Invite {
    const WHAT: &'static str = "invite";
    const PREFIX: &'static str = "roost-invite:";
}

/// The one-line form.
pub fn to_line<T: Code>(value: &T) -> String {
    let mut bytes = cbor::encode(value);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    format!("{}{}", T::PREFIX, URL_SAFE_NO_PAD.encode(bytes))
}

/// The record in a line; white space around and inside is ignored.
///
/// # Errors
/// [`CodeError`] when it is another kind of line, damaged, or of a later version.
pub fn from_line<T: Code>(line: &str) -> Result<T, CodeError> {
    let damaged = || CodeError::Damaged { what: T::WHAT };
    if line.len() > CODE_MAX {
        return Err(damaged());
    }
    let line: String = line.split_whitespace().collect();
    let text = line.strip_prefix(T::PREFIX).ok_or(CodeError::Prefix { what: T::WHAT, prefix: T::PREFIX })?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged())?;
    let (record, check) = bytes.split_at_checked(bytes.len().saturating_sub(CHECK_BYTES)).ok_or_else(damaged)?;
    if check != &blake3::hash(record).as_bytes()[..CHECK_BYTES] {
        return Err(damaged());
    }
    cbor::decode(record).map_err(|source| CodeError::Record { what: T::WHAT, source })
}
