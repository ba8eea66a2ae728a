//! The shape of a clear mail as its ns carries it: enough to answer every IMAP FETCH that needs no body byte.
//!
//! Made by [`crate::mime`] at the sender, compared with what the reader's own splitter makes of the body. Offsets are bytes
//! from the start of the clear mail.

use serde::{Deserialize, Serialize};

/// Version of the splitter's rules. Both sides must use the same one to agree to the byte.
pub const SPLITTER_VERSION: u8 = 1;

/// A half-open range of bytes of the clear mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Extent {
    /// First byte.
    #[serde(rename = "s")]
    pub start: u64,
    /// One past the last byte.
    #[serde(rename = "e")]
    pub end: u64,
}

impl Extent {
    /// Bytes in it.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
    /// Whether no byte is in it.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// A mail's structure: what the splitter found, in one pass, byte-exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// [`SPLITTER_VERSION`] of the sender.
    #[serde(rename = "v")]
    pub version: u8,
    /// Length of the clear mail in bytes: RFC822.SIZE.
    #[serde(rename = "z")]
    pub size: u64,
    /// The whole mail as one part: `root.header` is the mail's header block with its blank line.
    #[serde(rename = "r")]
    pub root: Node,
}

/// One MIME entity (RFC 2045 section 2.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its header block, the blank line that ends it included.
    #[serde(rename = "h")]
    pub header: Extent,
    /// Its body, without the line break that belongs to the next boundary.
    #[serde(rename = "b")]
    pub body: Extent,
    /// Line breaks in its body (RFC 3501 section 7.4.2, "size of the body in text lines").
    #[serde(rename = "l")]
    pub lines: u64,
    /// What its MIME header fields say, unfolded, otherwise as they stand.
    #[serde(rename = "f")]
    pub fields: Fields,
    /// What its body is.
    #[serde(rename = "k")]
    pub kind: Kind,
}

/// MIME header fields of one entity, with the defaults of RFC 2045 section 5.2 filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Fields {
    /// Media type in lower case, for example `text`.
    #[serde(rename = "t")]
    pub media_type: String,
    /// Media subtype in lower case, for example `plain`.
    #[serde(rename = "u")]
    pub subtype: String,
    /// Content-Type parameters: name in lower case, value unquoted.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<(String, String)>,
    /// Content-ID.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Content-Description.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Content-Transfer-Encoding in lower case, `7bit` when absent.
    #[serde(rename = "e")]
    pub encoding: String,
    /// Content-MD5.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// Content-Disposition with its parameters.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub disposition: Option<(String, Vec<(String, String)>)>,
    /// Content-Language, comma-separated as it stands.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Content-Location.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// What the body of an entity is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Bytes without further structure; also anything nested deeper or wider than the splitter's bounds.
    #[serde(rename = "l")]
    Leaf,
    /// Entities between boundaries.
    #[serde(rename = "m")]
    Multipart(Vec<Node>),
    /// `message/rfc822`: a whole mail. The envelope's fields come from its header block, kept here as it stands.
    #[serde(rename = "r")]
    Message {
        /// The inner header block, blank line included, at most 16 KiB of it.
        #[serde(with = "serde_bytes", rename = "h")]
        header_block: Vec<u8>,
        /// The inner mail.
        #[serde(rename = "n")]
        inner: Box<Node>,
    },
}
