//! The byte-exact MIME splitter: structure, sections and sizes of a clear mail. Never decodes, repairs or rewrites a body.
//!
//! Sender and reader run the same code over the same bytes and must come to the same [`Structure`], whatever chunks the
//! bytes arrive in. What the splitter cannot make sense of is a part without structure, never an error.

pub mod address;
pub mod header;
pub mod param;
pub mod section;
pub mod split;
pub mod words;

pub use section::{Section, SectionText};
pub use split::{Split, Splitter};

use crate::model::structure::Structure;
use crate::wire::cbor;

/// Bytes that a header block and its structure take in an ns: what the limit
/// [`NS_HEADERS_MAX`](crate::model::notification::NS_HEADERS_MAX) is compared with.
///
/// The block is counted by its length in the mail, also where the splitter kept less of it.
pub fn ns_headers_len(structure: &Structure, header_block: &[u8]) -> u64 {
    let kept = u64::try_from(header_block.len()).unwrap_or(u64::MAX);
    let encoded = u64::try_from(cbor::encode(structure).len()).unwrap_or(u64::MAX);
    structure.root.header.len().max(kept).saturating_add(encoded)
}

#[cfg(test)]
mod tests;
