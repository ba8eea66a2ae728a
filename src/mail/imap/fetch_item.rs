//! What a FETCH asks of each message, and where it is found: in the head, or in the body. Never reads a body.

use imap_types::core::{AString, Vec1};
use imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName, Part, Section as WireSection};

use super::Head;
use super::respond;
use super::respond::Status;
use super::selected::Numbers;
use crate::mime::header::header_fields_subset;
use crate::mime::section::{self, Section, SectionText};
use crate::model::structure::Extent;

/// Most data items of one FETCH.
const ITEMS_MAX: usize = 256;

/// One data item of a FETCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// `FLAGS`
    Flags,
    /// `UID`
    Uid,
    /// `INTERNALDATE`
    InternalDate,
    /// `RFC822.SIZE`
    Size,
    /// `ENVELOPE`
    Envelope,
    /// `BODY`
    Body,
    /// `BODYSTRUCTURE`
    BodyStructure,
    /// Bytes of the message.
    Text(Text),
}

/// A data item that is bytes of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// What the response calls it, for example `BODY[1.MIME]<0>`.
    label: Vec<u8>,
    section: Section,
    /// Only these header fields, or all but these.
    fields: Option<(Vec<String>, bool)>,
    /// First byte and how many.
    partial: Option<(u64, u64)>,
    /// Asking for it without PEEK marks the message as read.
    pub(crate) marks_seen: bool,
}

/// Where the bytes of a [`Text`] are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Known without the body.
    Known(Vec<u8>),
    /// In the body, at these bytes.
    Body(Extent),
    /// In the header block at these bytes of the body, of which these fields are meant.
    Fields(Extent, Vec<String>, bool),
    /// The message has no such section.
    Nowhere,
}

/// The items of a FETCH, in the order in which they are answered.
///
/// # Errors
/// The status when an item is not offered, or there are too many.
pub(crate) fn items(names: &MacroOrMessageDataItemNames<'_>, numbers: Numbers) -> Result<Vec<Item>, Status> {
    let mut items = match names {
        MacroOrMessageDataItemNames::Macro(names) => names.expand().iter().map(item).collect::<Result<Vec<_>, _>>()?,
        MacroOrMessageDataItemNames::MessageDataItemNames(names) => names.iter().map(item).collect::<Result<_, _>>()?,
    };
    if items.is_empty() || items.len() > ITEMS_MAX {
        return Err(Status::bad("FETCH takes 1 to 256 data items"));
    }
    if numbers == Numbers::Uids && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    // Bytes come last: what is short is told before a long literal.
    items.sort_by_key(|item| matches!(item, Item::Text(_)));
    Ok(items)
}

fn item(name: &MessageDataItemName<'_>) -> Result<Item, Status> {
    Ok(match name {
        MessageDataItemName::Flags => Item::Flags,
        MessageDataItemName::Uid => Item::Uid,
        MessageDataItemName::InternalDate => Item::InternalDate,
        MessageDataItemName::Rfc822Size => Item::Size,
        MessageDataItemName::Envelope => Item::Envelope,
        MessageDataItemName::Body => Item::Body,
        MessageDataItemName::BodyStructure => Item::BodyStructure,
        MessageDataItemName::Rfc822 => Item::Text(Text::plain("RFC822", SectionText::Whole, true)),
        MessageDataItemName::Rfc822Header => Item::Text(Text::plain("RFC822.HEADER", SectionText::Header, false)),
        MessageDataItemName::Rfc822Text => Item::Text(Text::plain("RFC822.TEXT", SectionText::Text, true)),
        MessageDataItemName::BodyExt { section, partial, peek } => {
            Item::Text(Text::of_section(section.as_ref(), *partial, *peek))
        }
        MessageDataItemName::Binary { .. } | MessageDataItemName::BinarySize { .. } => {
            return Err(Status::bad("BINARY is not offered; fetch BODY.PEEK[section]"));
        }
    })
}

impl Text {
    fn plain(label: &str, text: SectionText, marks_seen: bool) -> Self {
        let section = Section { part: Vec::new(), text };
        Self { label: label.into(), section, fields: None, partial: None, marks_seen }
    }

    fn of_section(section: Option<&WireSection<'_>>, partial: Option<(u32, std::num::NonZeroU32)>, peek: bool) -> Self {
        let none = None;
        let (part, text, fields) = match section {
            None => (&none, SectionText::Whole, None),
            Some(WireSection::Part(part)) => (&Some(part.clone()), SectionText::Whole, None),
            Some(WireSection::Header(part)) => (part, SectionText::Header, None),
            Some(WireSection::HeaderFields(part, names)) => (part, SectionText::Header, Some((names, false))),
            Some(WireSection::HeaderFieldsNot(part, names)) => (part, SectionText::Header, Some((names, true))),
            Some(WireSection::Text(part)) => (part, SectionText::Text, None),
            Some(WireSection::Mime(part)) => (&Some(part.clone()), SectionText::Mime, None),
        };
        let part = numbers(part.as_ref());
        let label = label(&part, text, fields, partial.map(|(start, _)| start));
        let fields = fields.map(|(names, not)| {
            (names.as_ref().iter().map(|name| String::from_utf8_lossy(name.as_ref()).into_owned()).collect(), not)
        });
        let partial = partial.map(|(start, len)| (u64::from(start), u64::from(len.get())));
        let is_header = matches!(text, SectionText::Header | SectionText::Mime);
        Self { label, section: Section { part, text }, fields, partial, marks_seen: !peek && !is_header }
    }

    /// Adds what the response calls it, and a space.
    pub(crate) fn write_label(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.label);
        out.push(b' ');
    }

    /// Where its bytes are, the partial range applied where it can be.
    pub(crate) fn source(&self, head: &Head) -> Source {
        let known = section::known_header(&head.structure, &head.header_block, &self.section);
        match (section::resolve(&head.structure, &self.section), known, &self.fields) {
            (None, ..) => Source::Nowhere,
            (Some(_), Some(block), Some((names, not))) => {
                Source::Known(self.cut(&header_fields_subset(block, names, *not)))
            }
            (Some(_), Some(block), None) => Source::Known(self.cut(block)),
            (Some(extent), None, Some((names, not))) => Source::Fields(extent, names.clone(), *not),
            (Some(extent), None, None) => Source::Body(self.cut_extent(extent)),
        }
    }

    /// The bytes of a header block that is too long to be in the head.
    pub(crate) fn subset(&self, block: &[u8], names: &[String], not: bool) -> Vec<u8> {
        self.cut(&header_fields_subset(block, names, not))
    }

    fn cut(&self, bytes: &[u8]) -> Vec<u8> {
        let whole = Extent { start: 0, end: u64::try_from(bytes.len()).unwrap_or(u64::MAX) };
        let cut = self.cut_extent(whole);
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
        bytes[index(cut.start)..index(cut.end)].to_vec()
    }

    fn cut_extent(&self, extent: Extent) -> Extent {
        let Some((start, len)) = self.partial else { return extent };
        let start = extent.start.saturating_add(start).min(extent.end);
        Extent { start, end: start.saturating_add(len).min(extent.end) }
    }
}

fn numbers(part: Option<&Part>) -> Vec<u32> {
    part.map(|part| part.0.as_ref().iter().map(|n| n.get()).collect()).unwrap_or_default()
}

fn label(part: &[u32], text: SectionText, fields: Option<(&Vec1<AString<'_>>, bool)>, start: Option<u32>) -> Vec<u8> {
    let mut words: Vec<String> = part.iter().map(u32::to_string).collect();
    match (text, fields) {
        (SectionText::Whole, _) => {}
        (SectionText::Header, None) => words.push("HEADER".into()),
        (SectionText::Header, Some((_, false))) => words.push("HEADER.FIELDS".into()),
        (SectionText::Header, Some((_, true))) => words.push("HEADER.FIELDS.NOT".into()),
        (SectionText::Text, _) => words.push("TEXT".into()),
        (SectionText::Mime, _) => words.push("MIME".into()),
    }
    let mut out = format!("BODY[{}", words.join(".")).into_bytes();
    if let Some((names, _)) = fields {
        for (i, name) in names.as_ref().iter().enumerate() {
            out.extend_from_slice(if i == 0 { b" (" } else { b" " });
            match name {
                AString::Atom(atom) => out.extend_from_slice(atom.inner().as_bytes()),
                AString::String(string) => respond::string(&mut out, string.as_ref()),
            }
        }
        out.push(b')');
    }
    out.push(b']');
    if let Some(start) = start {
        out.extend_from_slice(format!("<{start}>").as_bytes());
    }
    out
}
