//! BODY and BODYSTRUCTURE (RFC 3501 section 7.4.2) from a mail's structure. Never reads the mail.

use super::envelope;
use super::respond::{nstring, string};
use crate::model::structure::{Fields, Kind, Node};

/// Adds the body structure of `node`; with `extended` what only BODYSTRUCTURE has.
pub(crate) fn write(out: &mut Vec<u8>, node: &Node, extended: bool) {
    out.push(b'(');
    match &node.kind {
        Kind::Multipart(children) => multipart(out, node, children, extended),
        Kind::Leaf | Kind::Message { .. } => single(out, node, extended),
    }
    out.push(b')');
}

fn multipart(out: &mut Vec<u8>, node: &Node, children: &[Node], extended: bool) {
    for child in children {
        write(out, child, extended);
    }
    if children.is_empty() {
        // The grammar has no multipart without parts.
        out.extend_from_slice(b"(\"text\" \"plain\" NIL NIL NIL \"7bit\" 0 0)");
    }
    out.push(b' ');
    string(out, node.fields.subtype.as_bytes());
    if extended {
        out.push(b' ');
        params(out, &node.fields.params);
        disposition_and_after(out, &node.fields);
    }
}

fn single(out: &mut Vec<u8>, node: &Node, extended: bool) {
    let fields = &node.fields;
    let is_message = matches!(node.kind, Kind::Message { .. });
    let composite = fields.media_type == "multipart" || (fields.media_type == "message" && fields.subtype == "rfc822");
    // What the splitter did not take apart is bytes to the mail program: a composite type would promise parts.
    let (media_type, subtype) = match composite && !is_message {
        true => ("application", "octet-stream"),
        false => (fields.media_type.as_str(), fields.subtype.as_str()),
    };
    string(out, media_type.as_bytes());
    out.push(b' ');
    string(out, subtype.as_bytes());
    out.push(b' ');
    params(out, &fields.params);
    for text in [&fields.id, &fields.description] {
        out.push(b' ');
        nstring(out, text.as_deref().map(str::as_bytes));
    }
    out.push(b' ');
    string(out, fields.encoding.as_bytes());
    out.extend_from_slice(format!(" {}", node.body.len()).as_bytes());
    if let Kind::Message { header_block, inner } = &node.kind {
        out.push(b' ');
        envelope::write(out, header_block);
        out.push(b' ');
        write(out, inner, extended);
    }
    if is_message || media_type == "text" {
        out.extend_from_slice(format!(" {}", node.lines).as_bytes());
    }
    if extended {
        out.push(b' ');
        nstring(out, fields.md5.as_deref().map(str::as_bytes));
        disposition_and_after(out, fields);
    }
}

fn disposition_and_after(out: &mut Vec<u8>, fields: &Fields) {
    out.push(b' ');
    match &fields.disposition {
        Some((kind, list)) => {
            out.push(b'(');
            string(out, kind.as_bytes());
            out.push(b' ');
            params(out, list);
            out.push(b')');
        }
        None => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    language(out, fields.language.as_deref());
    out.push(b' ');
    nstring(out, fields.location.as_deref().map(str::as_bytes));
}

fn language(out: &mut Vec<u8>, languages: Option<&str>) {
    let tags: Vec<&str> = languages.unwrap_or("").split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    match tags[..] {
        [] => out.extend_from_slice(b"NIL"),
        [one] => string(out, one.as_bytes()),
        _ => {
            for (i, tag) in tags.iter().enumerate() {
                out.push(if i == 0 { b'(' } else { b' ' });
                string(out, tag.as_bytes());
            }
            out.push(b')');
        }
    }
}

fn params(out: &mut Vec<u8>, params: &[(String, String)]) {
    if params.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (i, (name, value)) in params.iter().enumerate() {
        out.push(if i == 0 { b'(' } else { b' ' });
        string(out, name.as_bytes());
        out.push(b' ');
        string(out, value.as_bytes());
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::split::split;

    fn written(mail: &[u8], extended: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, &split(mail).structure.root, extended);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc3501_bodystructure_of_text() {
        let mail = b"Content-Type: text/plain; charset=utf-8\r\nContent-Language: de, en\r\n\r\none\r\ntwo\r\n";
        assert_eq!(written(mail, false), "(\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 10 2)");
        assert_eq!(
            written(mail, true),
            "(\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 10 2 NIL NIL (\"de\" \"en\") NIL)"
        );
    }

    #[test]
    fn rfc3501_bodystructure_of_parts_and_a_mail_inside() {
        let mail = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; filename=m.eml\r\n\r\nSubject: in\r\n\r\nx\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <i@x>\r\n\r\nAAAA\r\n--b--\r\n";
        let text = written(mail, false);
        let inner = "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 1 0)";
        let plain = inner.replace(" 1 0)", " 2 0)");
        // The default parameters are the splitter's business; both forms are right.
        let bare = |text: &str| text.replace("(\"charset\" \"us-ascii\")", "NIL");
        assert_eq!(
            bare(&text),
            bare(&format!(
                "({plain}(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 16 (NIL \"in\" NIL NIL NIL NIL NIL NIL NIL NIL) {inner} 2)(\"image\" \"png\" NIL \"<i@x>\" NIL \"base64\" 4) \"mixed\")"
            ))
        );
        let extended = written(mail, true);
        assert!(extended.contains("(\"attachment\" (\"filename\" \"m.eml\")) NIL NIL)"), "{extended}");
        assert!(extended.ends_with("\"mixed\" (\"boundary\" \"b\") NIL NIL NIL)"), "{extended}");
    }
}
