//! The msglist: an owner's signed, append-only, hash-chained list of what its outbox holds and no longer holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{Digest, MailId, PeerId};
use super::policy::Encoding;
use super::time::WallTime;

/// A run of the msglist. A new one is opened when an owner cannot learn how far its last one went.
/// The value is the wall time of its opening in milliseconds, so later epochs compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Position in an epoch, counted from 1. 0 is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one; of the last possible one, itself.
    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }
}

/// A reading position, `EPOCH.SEQ`: the last entry that was read. Nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Cursor {
    /// The epoch that is read.
    #[serde(rename = "e")]
    pub epoch: Epoch,
    /// The last entry that was read.
    #[serde(rename = "s")]
    pub seq: Seq,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.seq.0)
    }
}

/// The text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no cursor; it reads EPOCH.SEQ, for example 0.0")]
pub struct CursorError {
    /// What was given, cut to 60 characters.
    pub text: String,
}

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parse = || {
            let (epoch, seq) = text.split_once('.')?;
            Some(Cursor { epoch: Epoch(epoch.parse().ok()?), seq: Seq(seq.parse().ok()?) })
        };
        parse().ok_or_else(|| CursorError { text: text.chars().take(60).collect() })
    }
}

/// One entry. Its position is part of its bytes, so the chain fixes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub at: Cursor,
    /// What it says.
    pub body: EntryBody,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryBody {
    /// The outbox holds this mail. A second one for the same h re-encodes it.
    Mail(MailEntry),
    /// A mail is gone. The bytes of a [`Tombstone`] signed by the owner, so that it proves itself alone.
    Tombstone(SignedTombstone),
    /// A kind that a later version speaks; kept and passed on.
    Unknown {
        /// The kind's name.
        kind: String,
        /// Its bytes.
        body: Vec<u8>,
    },
}

/// A mail in the outbox, as members need to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailEntry {
    /// Its name.
    pub h: MailId,
    /// Length of the sealed mail, bytes.
    #[serde(rename = "n")]
    pub length: u64,
    /// BLAKE3 of the sealed mail.
    #[serde(rename = "b")]
    pub digest: Digest,
    /// When it expires. Mirrors add 24 h of grace.
    #[serde(rename = "x")]
    pub expiry: WallTime,
    /// How the members keep it.
    #[serde(rename = "c")]
    pub encoding: Encoding,
    /// What the owner needs to finish it after a restore (submission id, receivers, ns secret), sealed to the owner.
    #[serde(rename = "o", with = "serde_bytes")]
    pub for_owner: Vec<u8>,
}

/// Why a mail is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every receiver has it.
    Received,
    /// Every receiver answered, and at least one did not take it.
    Refused,
    /// The owner took it back.
    Cancelled,
    /// Its time was over.
    Expired,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Received => "received",
            Ending::Refused => "refused",
            Ending::Cancelled => "cancelled",
            Ending::Expired => "expired",
        })
    }
}

/// The owner's word that a mail is gone, and why. It wins over every entry of every epoch (R7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Whose mail it was.
    #[serde(rename = "ow")]
    pub owner: PeerId,
    /// Its name.
    pub h: MailId,
    /// Why it is gone.
    #[serde(rename = "y")]
    pub ending: Ending,
    /// When the owner said so.
    #[serde(rename = "t")]
    pub at: WallTime,
    /// The mail's expiry; the tombstone itself is kept 30 days longer.
    #[serde(rename = "x")]
    pub expiry: WallTime,
}

/// The encoded form of a signed tombstone (see `wire::signed`). Opaque here; `wire` opens and checks it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedTombstone(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// The signed head of a msglist: everything up to `at` is fixed by `chain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose list it is.
    #[serde(rename = "ow")]
    pub owner: PeerId,
    /// The last entry it covers.
    #[serde(rename = "a")]
    pub at: Cursor,
    /// The chain value after that entry.
    #[serde(rename = "c")]
    pub chain: Digest,
    /// Entries at or before this were dropped: 30 days after the expiry of the last of them. 0 when none was.
    #[serde(rename = "bs")]
    pub base_seq: Seq,
    /// The chain value after `base_seq`.
    #[serde(rename = "bc")]
    pub base_chain: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_after_the_last_possible_one_is_itself() {
        assert_eq!(Seq(1).next(), Seq(2));
        assert_eq!(Seq(u64::MAX).next(), Seq(u64::MAX));
    }

    #[test]
    fn a_cursor_reads_as_it_prints() {
        let c = Cursor { epoch: Epoch(17), seq: Seq(4) };
        assert_eq!(c.to_string().parse::<Cursor>().unwrap(), c);
        for bad in ["", "1", "1.", ".1", "a.b", "1.2.3", "-1.0"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
