//! Fields of a header block, found, taken out and replaced to the byte. Never changes a byte that it was not asked for.
//!
//! A field is a line and the lines after it that begin with space or tab. A line without a colon is a field without a name:
//! it is kept where it stands and matches nothing. The first empty line ends the block.

use std::ops::Range;

/// One field of a header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Where it stands in the block, its line breaks included.
    pub range: Range<usize>,
    /// All its bytes, its line breaks included.
    pub raw: &'a [u8],
    /// Its name without white space around it; empty when the line has no colon.
    pub name: &'a [u8],
    /// What follows the colon, folded as it stands.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether this is the field `name`, compared without case.
    pub fn is(&self, name: &str) -> bool {
        !self.name.is_empty() && self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line, without white space around it.
    pub fn unfolded(&self) -> Vec<u8> {
        unfold(self.value)
    }

    /// The value on one line as text; bytes that are no UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.unfolded()).into_owned()
    }
}

/// Iterates over the fields of a header block.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

/// The fields of `block`, in order, up to its first empty line.
pub fn fields(block: &[u8]) -> Fields<'_> {
    Fields { block, at: 0 }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.at;
        let rest = self.block.get(start..)?;
        if rest.is_empty() || is_blank(&rest[..line_len(rest)]) {
            return None;
        }
        let mut end = start + line_len(rest);
        while let Some(b' ' | b'\t') = self.block.get(end) {
            end += line_len(&self.block[end..]);
        }
        self.at = end;
        let raw = &self.block[start..end];
        let (name, value) = match raw[..line_len(raw)].iter().position(|b| *b == b':') {
            Some(colon) => (raw[..colon].trim_ascii(), &raw[colon + 1..]),
            None => (&raw[..0], raw),
        };
        Some(Field { range: start..end, raw, name, value })
    }
}

/// Bytes of the first line of `bytes`, its line break included.
fn line_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1)
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\r\n" | b"\n")
}

/// `value` on one line: line breaks before white space go, the white space stays; what is around the value goes.
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(value.len());
    for line in value.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n").map_or(line, |l| l.strip_suffix(b"\r").unwrap_or(l));
        out.extend_from_slice(line);
    }
    out.trim_ascii().to_vec()
}

/// The first field called `name`.
pub fn first<'a>(block: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(block).find(|field| field.is(name))
}

/// How many fields are called `name`.
pub fn count(block: &[u8], name: &str) -> usize {
    fields(block).filter(|field| field.is(name)).count()
}

/// The line break that `block` uses: that of its first line, CRLF when it has none.
pub fn line_break(block: &[u8]) -> &'static [u8] {
    match block.iter().position(|b| *b == b'\n') {
        Some(at) if at == 0 || block[at - 1] != b'\r' => b"\n",
        _ => b"\r\n",
    }
}

/// The fields called one of `names`, or with `not` all others, as they stand, and an empty line after them: what IMAP
/// calls `HEADER.FIELDS` and `HEADER.FIELDS.NOT`.
pub fn header_fields_subset<N: AsRef<str>>(block: &[u8], names: &[N], not: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields(block) {
        if names.iter().any(|name| field.is(name.as_ref())) != not {
            out.extend_from_slice(field.raw);
            if !field.raw.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// `block` without the fields called one of `names`; every other byte stays.
pub fn remove_fields(block: &[u8], names: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len());
    let mut at = 0;
    for field in fields(block) {
        if names.iter().any(|name| field.is(name)) {
            out.extend_from_slice(&block[at..field.range.start]);
            at = field.range.end;
        }
    }
    out.extend_from_slice(&block[at..]);
    out
}

/// `block` without the fields that tell who got a blind copy: Bcc and Resent-Bcc.
pub fn remove_bcc(block: &[u8]) -> Vec<u8> {
    remove_fields(block, &["Bcc", "Resent-Bcc"])
}

/// `block` with whole fields, line breaks included, before its own. A first line that begins with white space would become
/// part of what is put before it, so it stays first.
pub fn put_on_top(block: &[u8], lines: &[u8]) -> Vec<u8> {
    let stays = match fields(block).next() {
        Some(field) if field.raw.starts_with(b" ") || field.raw.starts_with(b"\t") => field.range.end,
        _ => 0,
    };
    let mut out = block[..stays].to_vec();
    if stays > 0 && !out.ends_with(b"\n") {
        out.extend_from_slice(line_break(block));
    }
    out.extend_from_slice(lines);
    out.extend_from_slice(&block[stays..]);
    out
}

/// `block` with `name: value` in the place of the first field of that name, and without its other fields of that name. A
/// field that is missing is put on top. Every other byte stays.
///
/// Line breaks in `value` become spaces, so that a value cannot bring fields of its own.
pub fn replace_field(block: &[u8], name: &str, value: &str) -> Vec<u8> {
    let clean: String = value.chars().map(|c| if matches!(c, '\r' | '\n' | '\0') { ' ' } else { c }).collect();
    let mut line = format!("{name}: {clean}").into_bytes();
    line.extend_from_slice(line_break(block));
    let Some(place) = first(block, name).map(|field| field.range) else {
        return put_on_top(block, &line);
    };
    let mut out = block[..place.start].to_vec();
    out.extend_from_slice(&line);
    out.extend_from_slice(&remove_fields(&block[place.end..], &[name]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"From: a@b\r\nbcc : x@y,\r\n z@y\r\nno colon here\r\nSubject: one\r\n\ttwo\r\nBCC: q@y\r\n\r\n";

    #[test]
    fn fields_are_found_folded_and_without_case() {
        let names: Vec<_> = fields(BLOCK).map(|f| String::from_utf8_lossy(f.name).into_owned()).collect();
        assert_eq!(names, ["From", "bcc", "", "Subject", "BCC"]);
        assert_eq!(first(BLOCK, "subject").unwrap().text(), "one\ttwo");
        assert_eq!(first(BLOCK, "Bcc").unwrap().text(), "x@y, z@y");
        assert_eq!(count(BLOCK, "bcc"), 2);
        assert_eq!(first(BLOCK, ""), None);
    }

    #[test]
    fn bcc_goes_and_every_other_byte_stays() {
        assert_eq!(remove_bcc(BLOCK), b"From: a@b\r\nno colon here\r\nSubject: one\r\n\ttwo\r\n\r\n");
        assert_eq!(remove_bcc(b"A: b\nBcc: c"), b"A: b\n");
        assert_eq!(remove_bcc(b"A: b\r\n\r\nBcc: in the body"), b"A: b\r\n\r\nBcc: in the body");
    }

    #[test]
    fn rfc3501_header_fields_subset_and_not() {
        assert_eq!(
            header_fields_subset(BLOCK, &["SUBJECT", "from"], false),
            b"From: a@b\r\nSubject: one\r\n\ttwo\r\n\r\n"
        );
        assert_eq!(header_fields_subset(BLOCK, &["Bcc", "Subject"], true), b"From: a@b\r\nno colon here\r\n\r\n");
        assert_eq!(header_fields_subset(b"A: b", &["a"], false), b"A: b\r\n\r\n");
        assert_eq!(header_fields_subset::<&str>(b"", &[], false), b"\r\n");
    }

    #[test]
    fn a_field_is_replaced_where_it_stands() {
        assert_eq!(
            replace_field(BLOCK, "Bcc", "n@m"),
            b"From: a@b\r\nBcc: n@m\r\nno colon here\r\nSubject: one\r\n\ttwo\r\n\r\n"
        );
        assert_eq!(put_on_top(b" odd", b"A: b\r\n"), b" odd\r\nA: b\r\n");
        assert_eq!(replace_field(b"A: b\n\n", "To", "n@m\r\nEvil: 1"), b"To: n@m  Evil: 1\nA: b\n\n");
    }

    #[test]
    fn a_block_of_nothing_but_a_blank_line_has_no_fields() {
        for block in [&b""[..], b"\r\n", b"\n", b"\n\nA: b\n"] {
            assert_eq!(fields(block).count(), 0);
        }
        assert_eq!(fields(b" leading\r\nA: b").count(), 2);
    }
}
