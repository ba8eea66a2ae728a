//! Addresses in From, To, Cc and Bcc. Never guesses: what is no `name@group` is given as the text it is.

use std::collections::BTreeSet;

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

use super::header;
use crate::model::{Address, AddressError};

/// Most addresses that are read from one header block's fields of one name.
const ADDRESSES_MAX: usize = 10_000;

/// One address of an address field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name, decoded.
    pub name: Option<String>,
    /// What stands between the angle brackets.
    pub address: String,
}

/// Why a header block has no sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// There is no From field.
    #[error("the mail has no From field; give it one with your own address")]
    Missing,
    /// There is more than one From field, so mail programs would disagree about who wrote it.
    #[error("the mail has {found} From fields; leave one, with your own address")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// The From field has no address or several.
    #[error("the From field has {found} addresses; leave one, your own")]
    Addresses {
        /// How many there are.
        found: usize,
    },
    /// The one address in From is no `name@group`.
    #[error("the From field has no address of this network: {source}")]
    Outside {
        /// What is wrong with it.
        source: AddressError,
    },
}

/// All addresses in the fields called `name`, in order, members of named groups of addresses included.
pub fn addresses(block: &[u8], name: &str) -> Vec<Mailbox> {
    let mut found = Vec::new();
    for field in header::fields(block).filter(|field| field.is(name)) {
        let mut line = field.unfolded();
        line.extend_from_slice(b"\r\n");
        if let HeaderValue::Address(list) = MessageStream::new(&line).parse_address() {
            found.extend(list.iter().filter_map(|a| {
                let address = a.address.as_deref()?.to_owned();
                Some(Mailbox { name: a.name.as_deref().map(str::to_owned), address })
            }));
        }
        found.truncate(ADDRESSES_MAX);
    }
    found
}

/// The one address in the one From field.
///
/// # Errors
/// [`SenderError`] when there is no From field or more than one, or it has not exactly one address of the form `name@group`.
pub fn sender(block: &[u8]) -> Result<Address, SenderError> {
    match header::count(block, "From") {
        0 => return Err(SenderError::Missing),
        1 => {}
        found => return Err(SenderError::Fields { found }),
    }
    let from = addresses(block, "From");
    match from.as_slice() {
        [one] => one.address.parse().map_err(|source| SenderError::Outside { source }),
        other => Err(SenderError::Addresses { found: other.len() }),
    }
}

/// The receivers that every reader may see: the addresses of the form `name@group` in To and Cc.
pub fn named_receivers(block: &[u8]) -> BTreeSet<Address> {
    ["To", "Cc"].iter().flat_map(|name| addresses(block, name)).filter_map(|m| m.address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_the_one_address_of_the_one_from_field() {
        let ok = sender(b"From: \"Alice, A.\" <Alice@ACME>\r\n\r\n").unwrap();
        assert_eq!(ok, "alice@acme".parse().unwrap());
        assert_eq!(sender(b"from : alice@acme (Alice)\r\n\r\n").unwrap(), ok);
        assert_eq!(sender(b"From:\r\n =?utf-8?q?Al=C3=ADce?=\r\n <alice@acme>\r\n\r\n").unwrap(), ok);
        assert_eq!(sender(b"To: a@b\r\n\r\n"), Err(SenderError::Missing));
        assert_eq!(sender(b"From: a@b\r\nFROM: c@d\r\n\r\n"), Err(SenderError::Fields { found: 2 }));
        assert_eq!(sender(b"From: a@b, c@d\r\n\r\n"), Err(SenderError::Addresses { found: 2 }));
        assert!(matches!(
            sender(b"From: undisclosed\r\n\r\n"),
            Err(SenderError::Outside { .. } | SenderError::Addresses { .. })
        ));
        assert!(matches!(sender(b"From:\r\n\r\n"), Err(SenderError::Addresses { found: 0 })));
    }

    #[test]
    fn a_display_name_that_looks_like_an_address_is_no_sender() {
        assert_eq!(sender(b"From: \"bob@acme\" <alice@acme>\r\n\r\n").unwrap(), "alice@acme".parse().unwrap());
        assert_eq!(
            sender(b"From: =?utf-8?q?bob=40acme?= <alice@acme>\r\n\r\n").unwrap(),
            "alice@acme".parse().unwrap()
        );
    }

    #[test]
    fn named_receivers_come_from_to_and_cc_and_not_from_bcc() {
        let block = b"To: Bob <bob@acme>, team: carol@acme, dave@acme;\r\nCc: x@outside.example.org (x), nobody\r\nBcc: eve@acme\r\n\r\n";
        let names: Vec<_> = named_receivers(block).iter().map(Address::to_string).collect();
        assert_eq!(names, ["bob@acme", "carol@acme", "dave@acme", "x@outside.example.org"]);
    }
}
