//! What submission does to a header block (RFC 6409 section 8): Bcc goes, a missing Date and Message-ID come. Nothing else.

use mail_parser::DateTime;

use crate::mime::header;
use crate::model::{GroupName, SubmissionId, WallTime};

/// The header block as it is sent.
pub fn complete(block: &[u8], now: WallTime, submission: &SubmissionId, group: &GroupName) -> Vec<u8> {
    let mut added = String::new();
    if header::first(block, "Date").is_none() {
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        added.push_str(&format!("Date: {}\r\n", DateTime::from_timestamp(seconds).to_rfc822()));
    }
    if header::first(block, "Message-ID").is_none() {
        // Derived, so that a replayed submission has the same one, without telling the submission id to those who only
        // see the mail quoted.
        let hash = blake3::derive_key("roost 1 message id", submission.as_bytes());
        added.push_str(&format!("Message-ID: <{}@{group}>\r\n", hex::encode(&hash[..16])));
    }
    header::put_on_top(&header::remove_bcc(block), added.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(block: &[u8]) -> String {
        let group = "acme".parse().unwrap();
        String::from_utf8(complete(block, WallTime(1_000_000_000_000), &SubmissionId::new([7; 16]), &group)).unwrap()
    }

    #[test]
    fn rfc6409_a_missing_date_and_message_id_are_put_on_top() {
        let text = done(b"From: a@acme\r\nSubject: x\r\n\r\n");
        let (added, rest) = text.split_at(text.find("From:").unwrap());
        assert!(added.starts_with("Date: Sun, 9 Sep 2001 01:46:40 +0000\r\nMessage-ID: <"), "{added}");
        assert!(added.ends_with("@acme>\r\n"));
        assert_eq!(rest, "From: a@acme\r\nSubject: x\r\n\r\n");
    }

    #[test]
    fn rfc6409_what_is_there_stays_and_bcc_goes() {
        let block = "date: whenever\r\nBcc: x@y,\r\n z@y\r\nMessage-id: <1@x>\r\n\r\n";
        assert_eq!(done(block.as_bytes()), "date: whenever\r\nMessage-id: <1@x>\r\n\r\n");
    }
}
