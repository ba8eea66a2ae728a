//! Modified UTF-7, the form of mailbox names on the wire (RFC 3501 section 5.1.3). Never guesses: what is malformed is no name.

use base64::Engine;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// `name` as it goes on the wire.
pub(crate) fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut shifted: Vec<u8> = Vec::new();
    for c in name.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            unshift(&mut out, &mut shifted);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shifted.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    unshift(&mut out, &mut shifted);
    out
}

fn unshift(out: &mut String, shifted: &mut Vec<u8>) {
    if !shifted.is_empty() {
        out.push('&');
        out.push_str(&BASE64.encode(&*shifted));
        out.push('-');
        shifted.clear();
    }
}

/// The name that `wire` stands for. UTF-8 is taken as it is: some mail programs send it, and it can mean nothing else.
pub(crate) fn decode(wire: &[u8]) -> Option<String> {
    let mut rest = std::str::from_utf8(wire).ok()?;
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (coded, after) = rest[at + 1..].split_once('-')?;
        rest = after;
        if coded.is_empty() {
            out.push('&');
            continue;
        }
        let bytes = BASE64.decode(coded).ok()?;
        let units = bytes.chunks(2).map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
        let units: Vec<u16> = units.collect::<Option<_>>()?;
        out.push_str(&String::from_utf16(&units).ok()?);
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3501_mailbox_names_in_modified_utf7_both_ways() {
        for (name, wire) in [
            ("INBOX", "INBOX"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Entwürfe & mehr", "Entw&APw-rfe &- mehr"),
            ("🦉", "&2D7diQ-"),
            ("a&b", "a&-b"),
        ] {
            assert_eq!(encode(name), wire);
            assert_eq!(decode(wire.as_bytes()).as_deref(), Some(name));
        }
        for bad in ["&", "a&b", "&AP-", "&!!!-", "&2D4-"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(decode("Entwürfe".as_bytes()).as_deref(), Some("Entwürfe"));
        assert_eq!(decode(b"\xff"), None);
    }
}
