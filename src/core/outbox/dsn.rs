//! Delivery status notifications (RFC 3464): what a user is told when a mail came to nothing. Pure text from recorded facts,
//! so that the same failure always gives the same bytes. It quotes nothing of the mail but its Message-ID.

use std::fmt::Write as _;

use super::events::{EndedAs, Facts};
use crate::model::notification::Refusal;
use crate::model::{Address, SubmissionId, WallTime};

/// A DSN to be filed in INBOX, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dsn {
    /// Its own submission id: what "once" is counted by. Follows from submission and receiver.
    pub id: SubmissionId,
    /// The mail it is about.
    pub submission: SubmissionId,
    /// Which receiver it is about.
    pub receiver: Address,
    /// When the mail came to its end.
    pub at: WallTime,
    /// The DSN itself, an RFC 5322 message.
    pub message: Vec<u8>,
}

impl Dsn {
    /// The same with the header block of the mail that it is about, as a third part (RFC 3462 section 2). Without one, or
    /// with one that cannot stand there, it stays as it is.
    #[must_use]
    pub fn with_headers(mut self, header_block: &[u8]) -> Dsn {
        let boundary = format!("dsn-{}", self.id);
        let end = format!("\r\n--{boundary}--\r\n");
        let is_plain =
            !header_block.contains(&0) && header_block.windows(boundary.len()).all(|w| w != boundary.as_bytes());
        if header_block.is_empty() || !is_plain || !self.message.ends_with(end.as_bytes()) {
            return self;
        }
        let eight = if header_block.is_ascii() { "" } else { "Content-Transfer-Encoding: 8bit\r\n" };
        self.message.truncate(self.message.len() - end.len());
        let head = format!("\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\n{eight}\r\n");
        self.message.extend_from_slice(head.as_bytes());
        let fields = header_block.trim_ascii_end();
        self.message.extend_from_slice(fields);
        self.message.extend_from_slice(b"\r\n");
        self.message.extend_from_slice(end.as_bytes());
        self
    }
}

/// The DSN about `receiver` of a mail of `sender`; `None` for an end that sends none.
pub(super) fn build(
    sender: &Address,
    submission: SubmissionId,
    facts: &Facts,
    receiver: &Address,
    why: EndedAs,
    at: WallTime,
) -> Option<Dsn> {
    let (status, action, sentence) = reason(why)?;
    let id = dsn_id(submission, receiver);
    let group = sender.group();
    let boundary = format!("dsn-{id}");
    let date = rfc5322_date(at);
    let accepted = rfc5322_date(facts.at);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "Date: {date}\r\nFrom: Roost <mailer-daemon@{group}>\r\nTo: <{sender}>\r\n\
         Subject: Not delivered to {receiver}\r\nMessage-ID: <dsn.{id}@{group}>\r\n"
    );
    if let Some(message_id) = facts.message_id.as_deref().filter(|id| is_header_safe(id)) {
        let _ = write!(text, "In-Reply-To: {message_id}\r\nReferences: {message_id}\r\n");
    }
    let _ = write!(
        text,
        "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         Your mail of {accepted}\r\n({size} bytes) did not reach\r\n\r\n    {receiver}\r\n\r\n{sentence}\r\n\r\n\
         --{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n\
         Original-Envelope-Id: {submission}\r\nReporting-MTA: x-roost; {sender}\r\nArrival-Date: {accepted}\r\n\r\n\
         Final-Recipient: rfc822; {receiver}\r\nAction: {action}\r\nStatus: {status}\r\n\
         Diagnostic-Code: x-roost; {line}\r\nLast-Attempt-Date: {date}\r\n\r\n--{boundary}--\r\n",
        size = facts.size,
        line = sentence.replace("\r\n", " "),
    );
    Some(Dsn { id, submission, receiver: receiver.clone(), at, message: text.into_bytes() })
}

/// Enhanced status code (RFC 3463), action, and the reason for people.
fn reason(why: EndedAs) -> Option<(&'static str, &'static str, &'static str)> {
    if !why.sends_dsn() {
        return None;
    }
    Some(match why {
        EndedAs::UnknownAddress | EndedAs::Refused(Refusal::UnknownAddress) => {
            ("5.1.1", "failed", "The group of that address does not name such a member.\r\nCheck the address.")
        }
        EndedAs::Refused(Refusal::Mismatch) => (
            "5.7.7",
            "failed",
            "The reader's peer found that the body does not fit what was announced,\r\nand did not take it. Send the mail again.",
        ),
        EndedAs::Refused(Refusal::TooLarge) => (
            "5.3.4",
            "failed",
            "It is larger than the reader's group takes.\r\nSend a smaller one, or its parts one by one.",
        ),
        EndedAs::Expired | EndedAs::Refused(Refusal::Expired) => {
            ("4.4.7", "failed", "It was not fetched before its time was over.\r\nSend it again if it still matters.")
        }
        EndedAs::Lost => (
            "5.3.0",
            "failed",
            "Its file in the spool could not be read any more.\r\nCheck the disk, then send it again.",
        ),
        EndedAs::Received | EndedAs::Filed | EndedAs::Cancelled | EndedAs::Forgotten | EndedAs::Refused(_) => {
            return None;
        }
    })
}

fn dsn_id(submission: SubmissionId, receiver: &Address) -> SubmissionId {
    let mut hasher = blake3::Hasher::new_derive_key("roost 1 dsn id");
    hasher.update(submission.as_bytes());
    hasher.update(receiver.to_string().as_bytes());
    let mut id = [0; SubmissionId::LEN];
    hasher.finalize_xof().fill(&mut id);
    SubmissionId::new(id)
}

fn is_header_safe(text: &str) -> bool {
    text.len() < 900 && text.starts_with('<') && text.ends_with('>') && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A moment as RFC 5322 section 3.3 writes it, in UTC.
fn rfc5322_date(at: WallTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let secs = at.as_secs();
    let days = secs / 86_400;
    // Days since 1 March of year 0 in the Gregorian calendar, whose 400 years have 146 097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let pick = |names: &[&'static str], n: u64| usize::try_from(n).ok().and_then(|n| names.get(n).copied());
    format!(
        "{}, {day} {} {year:04} {:02}:{:02}:{:02} +0000",
        pick(&DAYS, days % 7).unwrap_or_default(),
        pick(&MONTHS, month).unwrap_or_default(),
        secs / 3600 % 24,
        secs / 60 % 60,
        secs % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(message_id: Option<&str>) -> Facts {
        Facts {
            size: 1234,
            at: WallTime(1_000_000_000_000),
            expiry: WallTime(1_000_600_000_000),
            message_id: message_id.map(str::to_owned),
        }
    }
    fn dsn(message_id: Option<&str>, why: EndedAs) -> Option<Dsn> {
        let (alice, rita) = ("alice@acme".parse().unwrap(), "rita@readers".parse().unwrap());
        let submission = SubmissionId::new([3; 16]);
        build(&alice, submission, &facts(message_id), &rita, why, WallTime(1_709_164_800_000))
    }

    #[test]
    fn rfc3464_a_report_has_its_three_fields_and_parses() {
        let dsn = dsn(Some("<a@acme>"), EndedAs::Expired).unwrap();
        let text = String::from_utf8(dsn.message.clone()).unwrap();
        for part in [
            "Final-Recipient: rfc822; rita@readers\r\n",
            "Action: failed\r\nStatus: 4.4.7\r\n",
            "Original-Envelope-Id: 03030303030303030303030303030303\r\n",
            "In-Reply-To: <a@acme>\r\n",
            "report-type=delivery-status",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.split("\r\n").all(|line| line.len() < 200 && !line.contains('\n')), "{text}");
        let parsed = mail_parser::MessageParser::default().parse(&dsn.message).unwrap();
        assert_eq!(parsed.part(0).unwrap().sub_parts().unwrap().len(), 2);
    }

    #[test]
    fn rfc3462_the_header_block_of_the_mail_is_attached_and_nothing_of_its_body() {
        let block = b"From: alice@acme\r\nSubject: gr\xc3\xbc\xc3\x9fe\r\n\r\n";
        let dsn = dsn(None, EndedAs::Expired).unwrap().with_headers(block);
        let parsed = mail_parser::MessageParser::default().parse(&dsn.message).unwrap();
        let parts = parsed.part(0).unwrap().sub_parts().unwrap();
        assert_eq!(parts.len(), 3);
        let text = String::from_utf8(dsn.message.clone()).unwrap();
        let third = text.split_once("text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n").unwrap().1;
        assert!(third.starts_with("From: alice@acme\r\nSubject: grüße\r\n\r\n--dsn-"), "{third}");
        let again = dsn.clone().with_headers(format!("X: dsn-{}\r\n\r\n", dsn.id).as_bytes());
        assert_eq!(again, dsn, "what would end the part early is left out");
    }

    #[test]
    fn a_dsn_is_the_same_each_time_and_only_for_failures() {
        assert_eq!(dsn(None, EndedAs::Lost), dsn(None, EndedAs::Lost));
        for quiet in [EndedAs::Received, EndedAs::Cancelled, EndedAs::Refused(Refusal::Unread)] {
            assert_eq!(dsn(None, quiet), None);
        }
    }

    #[test]
    fn a_message_id_cannot_smuggle_a_header() {
        let text = String::from_utf8(dsn(Some("<a>\r\nBcc: x@y>"), EndedAs::Lost).unwrap().message).unwrap();
        assert!(!text.contains("Bcc"));
    }

    #[test]
    fn rfc5322_dates_are_right_around_leap_days() {
        assert_eq!(rfc5322_date(WallTime(0)), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc5322_date(WallTime(1_709_164_800_000)), "Thu, 29 Feb 2024 00:00:00 +0000");
        assert_eq!(rfc5322_date(WallTime(1_709_251_199_000)), "Thu, 29 Feb 2024 23:59:59 +0000");
        assert_eq!(rfc5322_date(WallTime(4_102_444_800_000)), "Fri, 1 Jan 2100 00:00:00 +0000");
    }
}
