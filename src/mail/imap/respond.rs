//! The pieces of responses (RFC 3501 section 7) as bytes. Never sends anything.

use std::collections::BTreeSet;

use imap_types::flag::Flag as WireFlag;
use mail_parser::DateTime;

use super::utf7;
use crate::core::postbox::access::{Flag, MailboxFailure, MailboxName};
use crate::model::WallTime;

/// Longest string that is sent quoted; a longer one goes as a literal.
const QUOTED_MAX: usize = 1000;
/// Longest text after a status word.
const TEXT_MAX: usize = 400;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    word: &'static str,
    code: Option<String>,
    text: String,
}

impl Status {
    pub(crate) fn ok(text: impl Into<String>) -> Self {
        Self { word: "OK", code: None, text: text.into() }
    }
    pub(crate) fn no(code: &str, text: impl Into<String>) -> Self {
        Self { word: "NO", code: Some(code.to_owned()), text: text.into() }
    }
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { word: "BAD", code: None, text: text.into() }
    }
    /// Whether the command succeeded.
    pub(crate) fn is_ok(&self) -> bool {
        self.word == "OK"
    }
    /// The same with a response code.
    pub(crate) fn with(mut self, code: String) -> Self {
        self.code = Some(code);
        self
    }
    /// The response to a request that failed; `target` is a mailbox that the mail program could make (RFC 3501 section 7.1).
    pub(crate) fn failed(failure: &MailboxFailure, target: Option<&MailboxName>) -> Self {
        let code = match failure {
            MailboxFailure::NoMailbox(name) if Some(name) == target => "TRYCREATE",
            MailboxFailure::NoMailbox(_) | MailboxFailure::NoMessage | MailboxFailure::Gone(_) => "NONEXISTENT",
            MailboxFailure::Exists(_) => "ALREADYEXISTS",
            MailboxFailure::Cannot(_) => "CANNOT",
            MailboxFailure::Unavailable(_) => "UNAVAILABLE",
            MailboxFailure::Limit(_) => "OVERQUOTA",
        };
        Self::no(code, failure.to_string())
    }
    /// The postbox answered something else than it was asked.
    pub(crate) fn confused() -> Self {
        Self::no("SERVERBUG", "the postbox gave an answer that does not fit; the log says more")
    }
    /// The status line for the command `tag`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, tag: &str) {
        out.extend_from_slice(format!("{tag} {} ", self.word).as_bytes());
        if let Some(code) = &self.code {
            out.extend_from_slice(format!("[{code}] ").as_bytes());
        }
        out.extend_from_slice(plain(&self.text).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// `text` in what a status line may carry.
fn plain(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let text: String = text.replace(['\r', '\n'], " ").chars().map(clean).take(TEXT_MAX).collect();
    if text.is_empty() { "done".to_owned() } else { text }
}

/// Adds `bytes` as a quoted string, or as a literal where it cannot be quoted. NUL cannot be in either and is left out.
pub(crate) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let quotable = |b: &u8| matches!(b, 0x20..=0x7e | b'\t');
    if bytes.len() > QUOTED_MAX || !bytes.iter().all(quotable) {
        let clean: Vec<u8> = bytes.iter().copied().filter(|b| *b != 0).collect();
        literal(out, &clean);
        return;
    }
    out.push(b'"');
    for byte in bytes {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Adds a string, or NIL.
pub(crate) fn nstring(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => string(out, bytes),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Adds a literal: every byte as it is.
pub(crate) fn literal(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{{{}}}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

/// Adds the name of a mailbox.
pub(crate) fn mailbox(out: &mut Vec<u8>, name: &str) {
    string(out, utf7::encode(name).as_bytes());
}

/// A flag as it is written.
pub(crate) fn flag_name(flag: &Flag) -> &str {
    match flag {
        Flag::Seen => "\\Seen",
        Flag::Answered => "\\Answered",
        Flag::Flagged => "\\Flagged",
        Flag::Deleted => "\\Deleted",
        Flag::Draft => "\\Draft",
        Flag::Keyword(word) => word,
    }
}

/// Adds `(flags)`.
pub(crate) fn flags(out: &mut Vec<u8>, flags: &BTreeSet<Flag>, recent: bool) {
    let mut names: Vec<&str> = flags.iter().map(flag_name).collect();
    if recent {
        names.push("\\Recent");
    }
    out.extend_from_slice(format!("({})", names.join(" ")).as_bytes());
}

/// Longest keyword and most flags of one command.
const KEYWORD_MAX: usize = 64;
const FLAGS_MAX: usize = 64;

/// The flags that a mail program gave; `\Recent` and unknown system flags are passed over, as it cannot set them.
///
/// # Errors
/// NO [LIMIT] when there are too many or one is too long.
pub(crate) fn read_flags(flags: &[WireFlag<'_>]) -> Result<BTreeSet<Flag>, Status> {
    let mut out = BTreeSet::new();
    for flag in flags {
        let known = match flag {
            WireFlag::Answered => Flag::Answered,
            WireFlag::Deleted => Flag::Deleted,
            WireFlag::Draft => Flag::Draft,
            WireFlag::Flagged => Flag::Flagged,
            WireFlag::Seen => Flag::Seen,
            WireFlag::Extension(_) => continue,
            WireFlag::Keyword(word) if word.inner().len() <= KEYWORD_MAX => Flag::Keyword(word.inner().to_owned()),
            WireFlag::Keyword(_) => return Err(Status::no("LIMIT", "a keyword has at most 64 characters")),
        };
        out.insert(known);
    }
    if out.len() > FLAGS_MAX { Err(Status::no("LIMIT", "at most 64 flags at a time")) } else { Ok(out) }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// INTERNALDATE in its quotes, in UTC.
pub(crate) fn internal_date(time: WallTime) -> String {
    // Beyond the year 9999 the grammar has no date; the last one it has stands for all of them.
    let secs = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).min(253_402_300_799);
    let date = DateTime::from_timestamp(secs);
    let month = MONTHS[usize::from(date.month.clamp(1, 12)) - 1];
    format!("\"{:2}-{month}-{:04} {:02}:{:02}:{:02} +0000\"", date.day, date.year, date.hour, date.minute, date.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        string(&mut out, bytes);
        out
    }

    #[test]
    fn rfc3501_strings_are_quoted_where_they_can_be() {
        assert_eq!(written(b"a \"b\" \\c"), b"\"a \\\"b\\\" \\\\c\"");
        assert_eq!(written(b""), b"\"\"");
        assert_eq!(written("ü".as_bytes()), "{2}\r\nü".as_bytes());
        assert_eq!(written(b"a\0b\r\nc"), b"{5}\r\nab\r\nc");
    }

    #[test]
    fn rfc3501_internaldate_has_a_day_of_two_places() {
        assert_eq!(internal_date(WallTime(0)), "\" 1-Jan-1970 00:00:00 +0000\"");
        assert_eq!(internal_date(WallTime(1_709_251_199_000)), "\"29-Feb-2024 23:59:59 +0000\"");
        assert_eq!(internal_date(WallTime(u64::MAX)), "\"31-Dec-9999 23:59:59 +0000\"");
    }

    #[test]
    fn rfc5530_failures_have_response_codes_and_one_line() {
        let inbox = MailboxName::inbox();
        let mut out = Vec::new();
        Status::failed(&MailboxFailure::NoMailbox(inbox.clone()), Some(&inbox)).write(&mut out, "a");
        Status::failed(&MailboxFailure::Unavailable("2 of 3\r\nparts".into()), None).write(&mut out, "b");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "a NO [TRYCREATE] there is no mailbox INBOX\r\nb NO [UNAVAILABLE] 2 of 3  parts\r\n");
    }
}
