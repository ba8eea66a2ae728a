//! One version byte, then CBOR (RFC 8949). Unknown map keys are ignored; trailing bytes are an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version byte of everything encoded here. A peer reads this version and the one before.
pub const VERSION: u8 = 1;
/// Deepest nesting that is decoded: a MIME tree of 32 levels takes three levels of CBOR each.
const DEPTH_MAX: usize = 128;

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No bytes.
    #[error("the record is empty")]
    Empty,
    /// A version that this build does not read.
    #[error("the record has version {found}, this build reads {VERSION}; update this peer")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Not CBOR of the expected shape.
    #[error("the record is malformed: {why}")]
    Malformed {
        /// What the decoder says.
        why: String,
    },
    /// More bytes than the place allows.
    #[error("the record has {found} bytes, at most {limit} are read")]
    TooLarge {
        /// Its bytes.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// The signature does not fit the payload and the key it names.
    #[error("the signature on a {what} of {signer} is not valid")]
    Signature {
        /// Which kind of record.
        what: &'static str,
        /// Whom the record names as its signer.
        signer: String,
    },
    /// The hash chain of a msglist does not fit its signed head.
    #[error("the msglist of {owner} does not fit its signed head: {why}")]
    Chain {
        /// Whose list.
        owner: String,
        /// What does not fit.
        why: String,
    },
}

/// The bytes of `value`: version byte and CBOR.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing to a Vec cannot fail, and every type that is encoded here has a CBOR form; a type that has not is a bug that
    // its own round-trip test shows. An empty tail decodes as malformed, so nothing wrong is believed even then.
    if ciborium::into_writer(value, &mut bytes).is_err() {
        bytes.truncate(1);
    }
    bytes
}

/// The value in `bytes`.
///
/// # Errors
/// [`WireError`] when the version is unknown, the CBOR is not of the expected shape, or bytes are left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (version, mut rest) = bytes.split_first().ok_or(WireError::Empty)?;
    if *version != VERSION {
        return Err(WireError::Version { found: *version });
    }
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|e| WireError::Malformed { why: e.to_string() })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(WireError::Malformed { why: format!("{} bytes left over", rest.len()) })
    }
}

/// As [`decode`], of at most `limit` bytes.
///
/// # Errors
/// As [`decode`], and [`WireError::TooLarge`].
pub fn decode_within<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLarge { found: bytes.len(), limit });
    }
    decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MailId, WallTime};

    #[test]
    fn what_is_encoded_decodes_and_the_rest_is_refused() {
        let value = (MailId::new([3; 20]), WallTime(5), "x".to_owned());
        let bytes = encode(&value);
        assert_eq!(decode::<(MailId, WallTime, String)>(&bytes).unwrap(), value);
        assert!(decode::<(MailId, WallTime, String)>(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode::<(MailId, WallTime, String)>(&[bytes.clone(), vec![0]].concat()).is_err());
        assert_eq!(decode::<u8>(&[9, 1]), Err(WireError::Version { found: 9 }));
        assert_eq!(decode::<u8>(&[]), Err(WireError::Empty));
    }

    #[test]
    fn unknown_keys_are_ignored() {
        #[derive(serde::Serialize)]
        struct Newer {
            a: u8,
            later: &'static str,
        }
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Older {
            a: u8,
        }
        assert_eq!(decode::<Older>(&encode(&Newer { a: 7, later: "x" })).unwrap(), Older { a: 7 });
    }
}
