//! What sender and reader tell each other about one mail: the send notification (ns) and the receive notification (nr).

use serde::{Deserialize, Serialize};

use super::address::{Address, GroupName};
use super::ids::{Digest, Fingerprint, MailId, PeerId, Secret, SubmissionId};
use super::structure::Structure;
use super::time::WallTime;

/// Largest header block with structure, in bytes, that an ns carries; above it SMTP says 552.
pub const NS_HEADERS_MAX: usize = 48 * 1024;
/// The clear ns is padded to steps of this many bytes, so its length tells little.
pub const NS_PADDING: usize = 1024;

/// Send notification: all that a reader needs to show a stub and to pull and check the body. Travels sealed to the reader
/// and signed by the sender's OpenPGP key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ns {
    /// What "once" is counted by.
    #[serde(rename = "s")]
    pub submission: SubmissionId,
    /// The sealed mail's name.
    pub h: MailId,
    /// Length of the sealed mail, bytes.
    #[serde(rename = "n")]
    pub length: u64,
    /// BLAKE3 of the sealed mail.
    #[serde(rename = "b")]
    pub digest: Digest,
    /// The reader this ns is for: a sealed ns cannot be turned to somebody else.
    #[serde(rename = "to")]
    pub to: Address,
    /// The sender.
    #[serde(rename = "fr")]
    pub from: Address,
    /// The sender's OpenPGP certificate.
    #[serde(rename = "fp")]
    pub from_fingerprint: Fingerprint,
    /// The sender's PeerId, the signer of the manifest.
    #[serde(rename = "ow")]
    pub owner: PeerId,
    /// The sender's group.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// The sender's group's key.
    #[serde(rename = "gf")]
    pub group_key: Fingerprint,
    /// When the mail expires.
    #[serde(rename = "x")]
    pub expiry: WallTime,
    /// The clear mail's header block with its blank line, byte for byte.
    #[serde(rename = "hb", with = "serde_bytes")]
    pub header_block: Vec<u8>,
    /// The clear mail's structure and size.
    #[serde(rename = "st")]
    pub structure: Structure,
    /// From it both DHT passwords are derived.
    #[serde(rename = "k")]
    pub secret: Secret,
}

impl Ns {
    /// Password of the ns in the DHT.
    pub fn ns_password(&self) -> Secret {
        ns_password(&self.secret)
    }
    /// Password of the nr in the DHT.
    pub fn nr_password(&self) -> Secret {
        nr_password(&self.secret)
    }
}

/// Password of the ns that carries `secret`.
pub fn ns_password(secret: &Secret) -> Secret {
    secret.derive("roost 1 ns password")
}

/// Password of the nr that answers the ns that carries `secret`.
pub fn nr_password(secret: &Secret) -> Secret {
    secret.derive("roost 1 nr password")
}

/// Receive notification: the reader's signed word. Travels sealed to the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nr {
    /// The mail it is about.
    #[serde(rename = "s")]
    pub submission: SubmissionId,
    /// The sealed mail it is about.
    pub h: MailId,
    /// Who gives this word.
    #[serde(rename = "re")]
    pub reader: Address,
    /// Whose mail it is: an nr cannot be turned to somebody else.
    #[serde(rename = "to")]
    pub to: Address,
    /// What became of the mail.
    #[serde(rename = "o")]
    pub outcome: Outcome,
    /// When, by the reader's clock.
    #[serde(rename = "t")]
    pub at: WallTime,
}

/// What a reader says became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Pulled, verified, filed.
    Received,
    /// Not taken, and why.
    Refused(Refusal),
}

/// Why a reader did not take a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Deleted without being opened. Sends no DSN.
    Unread,
    /// The reader does not want mail of this sender. Sends no DSN.
    Sender,
    /// The address is not this peer's.
    UnknownAddress,
    /// The body, its signature or From do not fit the ns.
    Mismatch,
    /// It expired before it was pulled.
    Expired,
    /// It is larger than the reader's group takes.
    TooLarge,
}
