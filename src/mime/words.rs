//! Encoded words (RFC 2047) in fields of a header, decoded for people. It never changes what is stored or sent.

use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

/// The text of an unstructured field with its encoded words decoded; text without any as it is.
pub fn decoded(field: &str) -> String {
    if !field.contains("=?") {
        return field.to_owned();
    }
    let line = [field.as_bytes(), b"\r\n"].concat();
    match MessageStream::new(&line).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        _ => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc2047_encoded_words_are_decoded_and_the_rest_stays() {
        assert_eq!(decoded("=?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?iso-8859-1?q?K=F6ln?="), "Grüße aus Köln");
        assert_eq!(decoded("=?utf-8?B?w7w=?= =?utf-8?B?w7w=?="), "üü", "white space between two of them goes");
        for plain in ["", "plain", "a =? b", "2 < 3 & 4"] {
            assert_eq!(decoded(plain), plain);
        }
    }
}
