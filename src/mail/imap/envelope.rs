//! ENVELOPE (RFC 3501 section 7.4.2) from a header block. Never decodes or corrects a field.

use super::addresses::{self, Entry};
use super::respond::{nstring, string};
use crate::mime::header;

/// Adds the ENVELOPE of the mail with this header block.
pub(crate) fn write(out: &mut Vec<u8>, block: &[u8]) {
    let text = |name: &str| header::first(block, name).map(|field| field.unfolded());
    let from = list(block, "From");
    let or_from = |entries: Vec<Entry>| if entries.is_empty() { from.clone() } else { entries };
    out.push(b'(');
    nstring(out, text("Date").as_deref());
    out.push(b' ');
    nstring(out, text("Subject").as_deref());
    let lists = [
        from.clone(),
        or_from(list(block, "Sender")),
        or_from(list(block, "Reply-To")),
        list(block, "To"),
        list(block, "Cc"),
        list(block, "Bcc"),
    ];
    for entries in lists {
        out.push(b' ');
        write_list(out, &entries);
    }
    for name in ["In-Reply-To", "Message-ID"] {
        out.push(b' ');
        nstring(out, text(name).as_deref());
    }
    out.push(b')');
}

/// The addresses in all fields of that name.
fn list(block: &[u8], name: &str) -> Vec<Entry> {
    header::fields(block).filter(|field| field.is(name)).flat_map(|field| addresses::parse(field.value)).collect()
}

fn write_list(out: &mut Vec<u8>, entries: &[Entry]) {
    if entries.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for entry in entries {
        match entry {
            Entry::Mailbox { name, route, local, host } => {
                out.push(b'(');
                nstring(out, name.as_deref());
                out.push(b' ');
                nstring(out, route.as_deref());
                out.push(b' ');
                string(out, local);
                out.push(b' ');
                string(out, host);
                out.push(b')');
            }
            Entry::GroupBegin(name) => {
                out.extend_from_slice(b"(NIL NIL ");
                string(out, name);
                out.extend_from_slice(b" NIL)");
            }
            Entry::GroupEnd => out.extend_from_slice(b"(NIL NIL NIL NIL)"),
        }
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3501_envelope_fills_sender_and_reply_to_from_from() {
        let block = b"Date: Mon, 1 Jan 2024 10:00:00 +0100\r\nSubject: =?utf-8?q?H=C3=A9?= \"x\"\r\nFrom: Al <al@acme>\r\nTo: team: bob@acme;\r\nMessage-ID: <1@acme>\r\n\r\n";
        let mut out = Vec::new();
        write(&mut out, block);
        let al = "((\"Al\" NIL \"al\" \"acme\"))";
        let expected = format!(
            "(\"Mon, 1 Jan 2024 10:00:00 +0100\" \"=?utf-8?q?H=C3=A9?= \\\"x\\\"\" {al} {al} {al} ((NIL NIL \"team\" NIL)(NIL NIL \"bob\" \"acme\")(NIL NIL NIL NIL)) NIL NIL NIL \"<1@acme>\")"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rfc3501_envelope_of_a_mail_without_fields_is_nil() {
        let mut out = Vec::new();
        write(&mut out, b"\r\n");
        assert_eq!(out, b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    }
}
