//! Laws that several fuzz targets hold their parser to. They never catch what breaks them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{decode, encode};

/// Which of `doors` the first byte chooses, and what goes through it.
pub(crate) fn door(data: &[u8], doors: u8) -> Option<(u8, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((first.wrapping_sub(b'0') % doors, rest))
}

/// A value is encoded to what decodes to it again.
pub(crate) fn encodes_and_decodes<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let again: T =
        decode(&encode(value)).unwrap_or_else(|e| panic!("what was encoded does not decode: {e}; {value:?}"));
    assert!(again == *value, "it was encoded otherwise than it is: {value:?} became {again:?}");
}

/// What decodes holds [`encodes_and_decodes`]; gives it.
pub(crate) fn decodes<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value = decode(bytes).ok()?;
    encodes_and_decodes(&value);
    Some(value)
}

/// What can be read prints as what reads as it again; gives it.
pub(crate) fn reads_as_it_prints<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let printed = value.to_string();
    let again = printed.parse::<T>().ok();
    assert!(again.as_ref() == Some(&value), "{text:?} prints as {printed:?}, which reads as {again:?}");
    Some(value)
}

/// Whether a test fails already: what it leaves behind need not hold.
#[cfg(test)]
pub(crate) fn is_failing() -> bool {
    std::thread::panicking()
}
