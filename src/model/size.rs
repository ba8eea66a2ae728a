//! Sizes as people write them in a config: `"64 KiB"`, `"1 GiB"`, and the error that sizes and spans share.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no size or length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number and a unit of bytes.
    #[error("{text:?} is no size; write a whole number and B, KiB, MiB or GiB, for example \"64 KiB\"")]
    Size {
        /// What was given, cut to 80 characters.
        text: String,
    },
    /// Not a number and a unit of time.
    #[error("{text:?} is no length of time; write a whole number and ms, s, min, h or d, for example \"7 d\"")]
    Span {
        /// What was given, cut to 80 characters.
        text: String,
    },
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// `n` times 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// `n` times 1024² bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// `n` times 1024³ bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}
impl FromStr for ByteSize {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bad = || SizeError::Size { text: text.chars().take(80).collect() };
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let n: u64 = text[..split].parse().map_err(|_| bad())?;
        let unit = text[split..].trim();
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, per) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(bad)?;
        n.checked_mul(*per).map(ByteSize).ok_or_else(bad)
    }
}
impl TryFrom<String> for ByteSize {
    type Error = SizeError;
    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}
impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, per) =
            UNITS.iter().find(|(_, per)| self.0 >= *per && self.0.is_multiple_of(*per)).unwrap_or(&("B", 1));
        write!(f, "{} {unit}", self.0 / per)
    }
}
impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_as_people_write_them() {
        assert_eq!("64 KiB".parse::<ByteSize>().unwrap(), ByteSize::kib(64));
        assert_eq!("8MiB".parse::<ByteSize>().unwrap(), ByteSize::mib(8));
        assert_eq!("17".parse::<ByteSize>().unwrap(), ByteSize(17));
        assert_eq!(ByteSize::gib(1).to_string(), "1 GiB");
        assert_eq!(ByteSize(1500).to_string(), "1500 B");
        for bad in ["", "KiB", "1 KB", "-1 B", "18446744073709551615 GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
