//! Values with parameters: Content-Type and Content-Disposition (RFC 2045 section 5.1). RFC 2231 is left as it stands.

use super::header;
use crate::model::structure::Fields;

/// Most parameters that one field keeps.
const PARAMS_MAX: usize = 32;
/// Longest boundary, in bytes. RFC 2046 allows 70; longer ones are about.
pub const BOUNDARY_MAX: usize = 256;

/// A value and its parameters, in bytes as they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parametrised {
    /// What stands before the first semicolon, without comments.
    pub value: Vec<u8>,
    /// Names in lower case, values unquoted.
    pub params: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parametrised {
    /// The first parameter called `name`.
    pub fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.as_slice())
    }

    fn text_params(&self) -> Vec<(String, String)> {
        self.params.iter().map(|(n, v)| (lossy(n), lossy(v))).collect()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// Skips a comment whose opening bracket is taken; comments nest.
    fn comment(&mut self) {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next() {
                Some(b'(') => depth += 1,
                Some(b')') => depth -= 1,
                Some(b'\\') => {
                    self.next();
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// A quoted string whose opening quote is taken.
    fn quoted(&mut self, out: &mut Vec<u8>) {
        while let Some(byte) = self.next() {
            match byte {
                b'"' => return,
                b'\\' => out.extend(self.next()),
                _ => out.push(byte),
            }
        }
    }

    /// Everything up to one of `stops` or the end, quotes undone, comments left out; what stopped it. A bracket inside a
    /// word is no comment: boundaries with brackets and without quotes are about.
    fn until(&mut self, stops: &[u8]) -> (Vec<u8>, Option<u8>) {
        let mut out = Vec::new();
        let mut keep = 0;
        while let Some(byte) = self.next() {
            match byte {
                _ if stops.contains(&byte) => {
                    trim_end(&mut out, keep);
                    return (out, Some(byte));
                }
                b'(' if out.last().is_none_or(u8::is_ascii_whitespace) => self.comment(),
                b'"' => {
                    self.quoted(&mut out);
                    keep = out.len();
                }
                b' ' | b'\t' if out.is_empty() => {}
                _ => out.push(byte),
            }
        }
        trim_end(&mut out, keep);
        (out, None)
    }
}

/// Takes white space off the end, but none of the first `keep` bytes: those were quoted.
fn trim_end(out: &mut Vec<u8>, keep: usize) {
    while out.len() > keep && out.last().is_some_and(u8::is_ascii_whitespace) {
        out.pop();
    }
}

/// Reads an unfolded field value with parameters.
pub fn parse(value: &[u8]) -> Parametrised {
    let mut cursor = Cursor { bytes: value };
    let (value, mut stop) = cursor.until(b";");
    let mut params = Vec::new();
    while stop.is_some() && params.len() < PARAMS_MAX {
        let (name, after) = cursor.until(b";=");
        stop = after;
        if stop == Some(b'=') {
            let (value, after) = cursor.until(b";");
            stop = after;
            if !name.is_empty() {
                params.push((name.to_ascii_lowercase(), value));
            }
        }
    }
    Parametrised { value, params }
}

/// The MIME fields of an entity, and the boundary when it is a multipart with a usable one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entity {
    /// What its structure shows.
    pub fields: Fields,
    /// The boundary, without the two hyphens.
    pub boundary: Option<Vec<u8>>,
}

impl Entity {
    /// Whether the body is a mail as it stands.
    pub fn is_message(&self) -> bool {
        self.fields.media_type == "message" && self.fields.subtype == "rfc822" && self.is_identity()
    }

    /// Whether the transfer encoding leaves the bytes as they are; RFC 2045 section 6.4 allows no other for what has parts.
    fn is_identity(&self) -> bool {
        matches!(self.fields.encoding.as_str(), "7bit" | "8bit" | "binary")
    }
}

/// Reads the MIME fields of `block`. An entity without Content-Type is `text/plain` in US-ASCII, or with `digest` a
/// `message/rfc822` (RFC 2045 section 5.2, RFC 2046 section 5.1.5).
pub fn entity(block: &[u8], digest: bool) -> Entity {
    let text = |name: &str| header::first(block, name).map(|f| f.text()).filter(|t| !t.is_empty());
    let parsed = |name: &str| header::first(block, name).map(|f| parse(&f.unfolded())).filter(|p| !p.value.is_empty());
    let mut fields = Fields {
        id: text("Content-ID"),
        description: text("Content-Description"),
        md5: text("Content-MD5"),
        language: text("Content-Language"),
        location: text("Content-Location"),
        ..Fields::default()
    };
    fields.encoding =
        parsed("Content-Transfer-Encoding").map_or_else(|| "7bit".to_owned(), |p| lossy(&p.value).to_ascii_lowercase());
    fields.disposition = parsed("Content-Disposition").map(|p| (lossy(&p.value), p.text_params()));
    let content_type = parsed("Content-Type");
    let slash = content_type.as_ref().and_then(|p| {
        let at = p.value.iter().position(|b| *b == b'/')?;
        let (t, u) = (p.value[..at].trim_ascii(), p.value[at + 1..].trim_ascii());
        (!t.is_empty() && !u.is_empty()).then(|| (lossy(t).to_ascii_lowercase(), lossy(u).to_ascii_lowercase()))
    });
    let mut boundary = None;
    match (content_type, slash) {
        (Some(p), Some((media_type, subtype))) => {
            (fields.media_type, fields.subtype) = (media_type, subtype);
            fields.params = p.text_params();
            boundary = p.param("boundary").map(|b| b.trim_ascii_end().to_vec());
        }
        _ if digest => (fields.media_type, fields.subtype) = ("message".to_owned(), "rfc822".to_owned()),
        _ => {
            (fields.media_type, fields.subtype) = ("text".to_owned(), "plain".to_owned());
            fields.params = vec![("charset".to_owned(), "us-ascii".to_owned())];
        }
    }
    let mut entity = Entity { fields, boundary: None };
    if entity.fields.media_type == "multipart" && entity.is_identity() {
        entity.boundary = boundary.filter(|b| (1..=BOUNDARY_MAX).contains(&b.len()));
    }
    entity
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(p: &Parametrised) -> Vec<(String, String)> {
        p.text_params()
    }

    #[test]
    fn rfc2045_parameters_quoted_bare_and_commented() {
        let p = parse(
            br#"text/plain (a (nested) comment); charset=us-ascii (Plain text); Name="a \"b\"; c.txt" ; x = y z ;;"#,
        );
        assert_eq!(p.value, b"text/plain");
        assert_eq!(
            pairs(&p),
            [("charset", "us-ascii"), ("name", "a \"b\"; c.txt"), ("x", "y z")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn rfc2231_parameters_stay_as_they_stand() {
        let p = parse(b"attachment; filename*0*=utf-8''a%20; filename*1=\"b\"");
        assert_eq!(p.params[0], (b"filename*0*".to_vec(), b"utf-8''a%20".to_vec()));
        assert_eq!(p.params[1], (b"filename*1".to_vec(), b"b".to_vec()));
    }

    #[test]
    fn broken_values_end_somewhere() {
        for broken in
            [&b""[..], b";", b"=", b"\"", b"a; b=\"c", b"a (", b"a; b=\\", b"a;b;c=", b"\xff\0/\x80;\xff=\xfe"]
        {
            parse(broken);
        }
        assert!(parse("a".repeat(10).as_bytes()).params.is_empty());
        assert_eq!(parse(format!("a{}", ";b=c".repeat(1000)).as_bytes()).params.len(), PARAMS_MAX);
    }

    #[test]
    fn rfc2045_defaults_are_filled_in() {
        let plain = entity(b"Subject: x\r\n\r\n", false).fields;
        assert_eq!(
            (plain.media_type.as_str(), plain.subtype.as_str(), plain.encoding.as_str()),
            ("text", "plain", "7bit")
        );
        assert_eq!(plain.params, [("charset".to_owned(), "us-ascii".to_owned())]);
        assert!(entity(b"\r\n", true).is_message());
        assert_eq!(entity(b"Content-Type: nonsense\r\n\r\n", false).fields.media_type, "text");
    }

    #[test]
    fn rfc2045_an_encoded_multipart_has_no_parts() {
        let block = b"Content-Type: Multipart/Mixed; boundary=\"b \"\r\nContent-Transfer-Encoding: BASE64\r\n\r\n";
        assert_eq!(entity(block, false).boundary, None);
        assert_eq!(entity(&block[..47], false).boundary, Some(b"b".to_vec()));
    }
}
