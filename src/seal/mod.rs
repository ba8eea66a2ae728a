//! OpenPGP: keys, sealing and opening of mail, ns and nr, signed records, the proof of a join. Never the network or a file by
//! name, and never a secret in a log. The only place that names sequoia.
//!
//! A reader believes nothing that has not come back as `Ok`: what was written before an error is to be thrown away (R6).
//! Time is an argument. Certificates do not expire: who belongs to a group is what its gd says, not a date in a key.

mod deflate;
pub mod handover;
mod huffman;
pub mod invite;
pub mod keys;
mod letters;
pub mod mail;
pub mod notice;
mod packets;
mod proof;
pub mod record;

pub use invite::{check_join_proof, join_proof};
pub use keys::{Certificate, Holder, SecretIdentity};
#[cfg(any(test, feature = "fuzzing"))]
pub use mail::strip_encryption;
pub use mail::{Opened, open_mail, seal_mail, verify_signed};
pub use notice::{
    UnverifiedNr, UnverifiedNs, decrypt_nr, decrypt_ns, open_for_owner, seal_for_owner, seal_nr, seal_ns,
};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use packets::tests_only_encrypt;
#[cfg(test)]
pub(crate) use packets::tests_only_literal;
pub use proof::{SIGNATURE_MAX, is_signature, signed_message};
pub use record::{PgpRecord, PgpSigned, sign_descriptor, sign_gd, verify_descriptor, verify_gd};

use crate::model::Fingerprint;
use crate::model::disk::what_helps;
use crate::wire::WireError;

/// Why something cannot be sealed, opened, signed or believed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The disk or stream under it failed. Says nothing about the mail: try again.
    #[error("reading or writing failed while {doing}: {source}; {}, then try again", what_helps(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// None of this identity's keys opens it.
    #[error("this {what} is not sealed to this peer's key; whoever sent it must seal it to the certificate in use now")]
    NotForMe {
        /// What was to be opened.
        what: &'static str,
    },
    /// More bytes than the place allows, also when only decompression would produce them.
    #[error("this {what} has more than {limit} bytes; nothing of it is kept")]
    BombOrTooLarge {
        /// What was to be opened or sealed.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Not signed, signed by another key, or altered.
    #[error("the signature on this {what} is not a good one of {by}: {why}; nothing of it is used")]
    Signature {
        /// What was to be verified.
        what: &'static str,
        /// Whose signature was expected.
        by: Fingerprint,
        /// What is wrong.
        why: String,
    },
    /// Not the bytes that a peer writes.
    #[error("this {what} is malformed: {why}; nothing of it is used")]
    Malformed {
        /// What was to be read.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Well signed, but it says something that its signer may not say.
    #[error("this {what} is refused: {why}")]
    Refused {
        /// What was to be believed.
        what: &'static str,
        /// What does not fit.
        why: String,
    },
    /// Not a certificate or identity that Roost uses.
    #[error("this certificate is refused: {why}; ask its owner for the one that `roost card` names")]
    Certificate {
        /// What does not fit.
        why: String,
    },
    /// Nobody to seal to, or too many.
    #[error("a mail is sealed to 1 to {limit} receivers, not to {count}; split it")]
    Receivers {
        /// As given.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// The library failed at something that only depends on this peer.
    #[error("OpenPGP failed while {doing}: {why}; check this peer's identity")]
    OpenPgp {
        /// What was being done.
        doing: &'static str,
        /// What the library says.
        why: String,
    },
    /// Not a record of the expected shape.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl SealError {
    pub(crate) fn malformed(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Malformed { what, why: why.to_string() }
    }
    pub(crate) fn refused(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Refused { what, why: why.to_string() }
    }
    pub(crate) fn openpgp(doing: &'static str, why: impl std::fmt::Display) -> Self {
        Self::OpenPgp { doing, why: why.to_string() }
    }
    pub(crate) fn certificate(why: impl std::fmt::Display) -> Self {
        Self::Certificate { why: why.to_string() }
    }
    pub(crate) fn io(doing: &'static str, source: std::io::Error) -> Self {
        Self::Io { doing, source }
    }
}
