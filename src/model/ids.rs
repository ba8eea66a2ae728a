//! Names of things: fixed-length byte strings that print as hex (ids) or base58 (PeerIds). They never generate themselves.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

/// Why a text or byte string is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The byte string has another length than the id.
    #[error("a {what} has {expected} bytes, not {found}")]
    Length {
        /// Which id was meant.
        what: &'static str,
        /// Bytes the id has.
        expected: usize,
        /// Bytes that were there.
        found: usize,
    },
    /// The text is not the id's printed form.
    #[error("{text:?} is no {what}: {why}")]
    Text {
        /// Which id was meant.
        what: &'static str,
        /// The text as it was given, cut to 80 characters.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn text_error(what: &'static str, text: &str, why: &'static str) -> IdError {
    IdError::Text { what, text: text.chars().take(80).collect(), why }
}

/// Visits bytes, sequences of bytes, or the printed text of an id.
struct IdVisitor<T>(&'static str, fn(&[u8]) -> Result<T, IdError>, fn(&str) -> Result<T, IdError>);

impl<'de, T> Visitor<'de> for IdVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.0)
    }
    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<T, E> {
        (self.1)(v).map_err(E::custom)
    }
    fn visit_byte_buf<E: de::Error>(self, v: Vec<u8>) -> Result<T, E> {
        (self.1)(&v).map_err(E::custom)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<T, E> {
        (self.2)(v).map_err(E::custom)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
            /// The id with these bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
            /// The id in `bytes`.
            ///
            /// # Errors
            /// [`IdError::Length`] when there are more or fewer bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::Length {
                    what: $what,
                    expected: $len,
                    found: bytes.len(),
                })
            }
            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let visitor = IdVisitor($what, Self::from_slice, <Self as FromStr>::from_str);
                if d.is_human_readable() { d.deserialize_str(visitor) } else { d.deserialize_bytes(visitor) }
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

macro_rules! hex_text {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = hex::decode(text).map_err(|_| text_error($what, text, "it is not hexadecimal"))?;
                Self::from_slice(&bytes)
            }
        }
    };
}

id! {
    /// h: SHA-1 of the sealed mail, 40 hex digits. Its name in the outbox, never a proof of its content.
    MailId, 20, "mail id"
}
hex_text!(MailId, "mail id");
id! {
    /// 128 random bits, fixed in the spool before the 250: what "once" is counted by.
    SubmissionId, 16, "submission id"
}
hex_text!(SubmissionId, "submission id");
id! {
    /// BLAKE3, 32 bytes: the proof of content.
    Digest, 32, "BLAKE3 digest"
}
hex_text!(Digest, "BLAKE3 digest");
id! {
    /// Fingerprint of an OpenPGP v4 certificate (RFC 4880 section 12.2), 20 bytes.
    Fingerprint, 20, "fingerprint"
}
hex_text!(Fingerprint, "fingerprint");
id! {
    /// Who a peer is: its Ed25519 public key. Prints as libp2p prints it (base58 of the identity multihash).
    PeerId, 32, "peer id"
}

/// What libp2p puts before the 32 key bytes: identity multihash (0x00) of 36 bytes, protobuf key type Ed25519, 32 bytes of data.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl PeerId {
    /// The multihash that libp2p calls the PeerId, 38 bytes.
    pub fn to_multihash(&self) -> Vec<u8> {
        [&PEER_ID_PREFIX[..], &self.0[..]].concat()
    }
    /// The PeerId in libp2p's multihash form.
    ///
    /// # Errors
    /// [`IdError`] when it is not the identity hash of an Ed25519 key.
    pub fn from_multihash(bytes: &[u8]) -> Result<Self, IdError> {
        match bytes.strip_prefix(&PEER_ID_PREFIX[..]) {
            Some(key) => Self::from_slice(key),
            None => Err(IdError::Length { what: "peer id", expected: 38, found: bytes.len() }),
        }
    }
}
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_multihash()).into_string())
    }
}
impl FromStr for PeerId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > 80 {
            return Err(text_error("peer id", text, "it is too long"));
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| text_error("peer id", text, "it is not base58"))?;
        Self::from_multihash(&bytes).map_err(|_| text_error("peer id", text, "it does not hold an Ed25519 key"))
    }
}

/// 32 secret bytes. They never print and are wiped when dropped (R10).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(#[serde(with = "serde_bytes")] [u8; 32]);

impl Secret {
    /// The secret with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The bytes, for a key derivation or a comparison.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    /// A password for one purpose, derived with BLAKE3's key derivation; `context` names the purpose.
    pub fn derive(&self, context: &str) -> Secret {
        Secret(blake3::derive_key(context, &self.0))
    }
}
impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_prints_as_libp2p_prints_it() {
        let id = PeerId::new([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<PeerId>().unwrap(), id);
    }

    #[test]
    fn hex_ids_round_trip_and_refuse_other_lengths() {
        let h = MailId::new([0xab; 20]);
        assert_eq!(h.to_string().len(), 40);
        assert_eq!(h.to_string().parse::<MailId>().unwrap(), h);
        assert!("abcd".parse::<MailId>().is_err());
        assert!("zz".parse::<MailId>().is_err());
    }

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new([1; 32])), "Secret(…)");
    }
}
