//! Addresses, `name@group`, and their two halves. Compared in lower case; nothing else is folded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest half of an address, in characters (DESIGN.md section 1).
pub const NAME_MAX: usize = 64;

/// Why a text is no address, name or group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@`, or more than one.
    #[error("{text:?} is no address; write name@group, for example alice@acme")]
    Shape {
        /// What was given, cut to 200 characters.
        text: String,
    },
    /// One half has a character that is not allowed, is empty, or is too long.
    #[error("{part:?} is no name: use 1 to 64 of a-z, 0-9, and '.', '-', '_' between them")]
    Name {
        /// The half that is wrong, cut to 200 characters.
        part: String,
    },
}

fn check_name(text: &str) -> Result<String, AddressError> {
    let lower = text.to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inside = |c: char| plain(c) || matches!(c, '.' | '-' | '_');
    let ends_plain = lower.chars().next().is_some_and(plain) && lower.chars().last().is_some_and(plain);
    if lower.len() <= NAME_MAX && ends_plain && lower.chars().all(inside) && !lower.contains("..") {
        Ok(lower)
    } else {
        Err(AddressError::Name { part: text.chars().take(200).collect() })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);
        impl $name {
            /// The name as text, in lower case.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = AddressError;
            fn from_str(text: &str) -> Result<Self, AddressError> {
                check_name(text).map(|name| Self(name.into()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = AddressError;
            fn try_from(text: String) -> Result<Self, AddressError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The half before the `@`.
    LocalName
}
name! {
    /// The name of a group: the half after the `@`.
    GroupName
}

/// `name@group`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    name: LocalName,
    group: GroupName,
}

impl Address {
    /// The address of `name` in `group`.
    pub fn new(name: LocalName, group: GroupName) -> Self {
        Self { name, group }
    }
    /// The half before the `@`.
    pub fn name(&self) -> &LocalName {
        &self.name
    }
    /// The half after the `@`.
    pub fn group(&self) -> &GroupName {
        &self.group
    }
}
impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let shape = || AddressError::Shape { text: text.chars().take(200).collect() };
        let (name, group) = text.split_once('@').ok_or_else(shape)?;
        if group.contains('@') {
            return Err(shape());
        }
        Ok(Self { name: name.parse()?, group: group.parse()? })
    }
}
impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}
impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.group)
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_compare_in_lower_case() {
        let a: Address = "Alice@ACME".parse().unwrap();
        assert_eq!(a, "alice@acme".parse().unwrap());
        assert_eq!(a.to_string(), "alice@acme");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["alice", "a@b@c", "@acme", "alice@", ".a@b", "a.@b", "a..b@c", "a b@c", "ä@b", "a/../b@c"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert!(format!("{}@b", "a".repeat(65)).parse::<Address>().is_err());
        assert!("a.b-c_d9@x-y.z".parse::<Address>().is_ok());
    }
}
