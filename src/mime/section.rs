//! IMAP sections (RFC 3501 section 6.4.5) as extents of the clear mail. Never reads the mail itself.

use std::str::FromStr;

use crate::model::structure::{Extent, Kind, Node, Structure};

/// Deepest part number that is read; the splitter goes no deeper.
const NUMBERS_MAX: usize = super::split::DEPTH_MAX;

/// Which piece of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SectionText {
    /// The part itself: the whole mail without part numbers, else the body of the part.
    #[default]
    Whole,
    /// The header block of the mail, or of the mail inside a `message/rfc822` part.
    Header,
    /// The body of the mail, or of the mail inside a `message/rfc822` part.
    Text,
    /// The MIME header of the part.
    Mime,
}

/// A section: part numbers from the outside in, and which piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Part numbers from 1.
    pub part: Vec<u32>,
    /// Which piece of that part.
    pub text: SectionText,
}

/// Why a text is no section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no section; write part numbers with dots between them, then HEADER, TEXT or MIME, for example 1.2.MIME"
)]
pub struct SectionError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl FromStr for Section {
    type Err = SectionError;

    fn from_str(text: &str) -> Result<Self, SectionError> {
        let bad = || SectionError { text: text.chars().take(80).collect() };
        let mut section = Section::default();
        if text.is_empty() {
            return Ok(section);
        }
        for word in text.split('.') {
            if section.text != SectionText::Whole || section.part.len() > NUMBERS_MAX {
                return Err(bad());
            }
            match word.to_ascii_uppercase().as_str() {
                "HEADER" => section.text = SectionText::Header,
                "TEXT" => section.text = SectionText::Text,
                "MIME" if !section.part.is_empty() => section.text = SectionText::Mime,
                number => match number.parse() {
                    Ok(n) if n > 0 && !number.starts_with('+') => section.part.push(n),
                    _ => return Err(bad()),
                },
            }
        }
        Ok(section)
    }
}

/// The part that the numbers name: none of them names the mail itself.
pub fn part<'a>(structure: &'a Structure, numbers: &[u32]) -> Option<&'a Node> {
    let mut node = &structure.root;
    // A mail that is no multipart has one part, number 1: its own body. A part is not its own part.
    let mut is_mail = true;
    for number in numbers {
        if let (false, Kind::Message { inner, .. }) = (is_mail, &node.kind) {
            node = inner;
            is_mail = true;
        }
        match &node.kind {
            Kind::Multipart(children) => {
                let index = usize::try_from(*number).ok()?.checked_sub(1)?;
                node = children.get(index)?;
            }
            Kind::Leaf | Kind::Message { .. } if is_mail && *number == 1 => {}
            Kind::Leaf | Kind::Message { .. } => return None,
        }
        is_mail = false;
    }
    Some(node)
}

/// Where `section` stands in the clear mail; nothing when the mail has no such section.
pub fn resolve(structure: &Structure, section: &Section) -> Option<Extent> {
    let root = &structure.root;
    let node = part(structure, &section.part)?;
    let mail = match &node.kind {
        _ if section.part.is_empty() => Some(root),
        Kind::Message { inner, .. } => Some(inner.as_ref()),
        Kind::Leaf | Kind::Multipart(_) => None,
    };
    match section.text {
        SectionText::Whole if section.part.is_empty() => Some(Extent { start: 0, end: structure.size }),
        SectionText::Whole => Some(node.body),
        SectionText::Header => mail.map(|mail| mail.header),
        SectionText::Text => mail.map(|mail| mail.body),
        SectionText::Mime => (!section.part.is_empty()).then_some(node.header),
    }
}

/// The header block that `section` names, when it is known without the body: of the mail itself from `header_block`, of a
/// mail inside from the structure, if it was kept whole.
pub fn known_header<'a>(structure: &'a Structure, header_block: &'a [u8], section: &Section) -> Option<&'a [u8]> {
    if section.text != SectionText::Header {
        return None;
    }
    let node = part(structure, &section.part)?;
    let (block, extent) = match &node.kind {
        _ if section.part.is_empty() => (header_block, structure.root.header),
        Kind::Message { header_block, inner } => (header_block.as_slice(), inner.header),
        Kind::Leaf | Kind::Multipart(_) => return None,
    };
    u64::try_from(block.len()).is_ok_and(|n| n == extent.len()).then_some(block)
}
