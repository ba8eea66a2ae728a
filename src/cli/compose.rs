//! Writes a clear mail (RFC 5322) from a text, a subject and files. It reads the files as it goes and never holds one whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::{Address, WallTime};

/// Bytes of one encoded line: 57 become 76 letters (RFC 2045).
const BASE64_LINE: usize = 57;
/// Bytes of UTF-8 in one encoded word: 42 become 56 letters, so that the first one fits on the line of "Subject:".
const WORD_BYTES: usize = 42;
/// Longest line that may travel as it is (RFC 5322).
const LINE_MAX: usize = 998;
/// Where header lines are folded (RFC 5322 recommends 78).
const FOLD_AT: usize = 76;

/// A mail to be written.
#[derive(Debug)]
pub(super) struct Letter<'a> {
    /// The writer.
    pub(super) from: &'a Address,
    /// Receivers.
    pub(super) to: &'a [Address],
    /// Receivers of a copy.
    pub(super) cc: &'a [Address],
    /// The subject.
    pub(super) subject: &'a str,
    /// Its Date.
    pub(super) date: WallTime,
    /// The text, any line breaks.
    pub(super) text: &'a [u8],
    /// Files to attach.
    pub(super) attach: &'a [PathBuf],
}

impl Letter<'_> {
    /// Writes the mail with CRLF line breaks.
    pub(super) fn write(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        self.head(out)?;
        if self.attach.is_empty() {
            return Ok(text_part(self.text, out)?);
        }
        let boundary = format!("roost-{}", random_name()?);
        write!(out, "Content-Type: multipart/mixed;\r\n boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n")?;
        text_part(self.text, out)?;
        for path in self.attach {
            write!(out, "\r\n--{boundary}\r\n")?;
            file_part(path, out).with_context(|| format!("{} cannot be attached", path.display()))?;
        }
        write!(out, "\r\n--{boundary}--\r\n")?;
        Ok(())
    }

    fn head(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        write!(out, "From: {}\r\n", self.from)?;
        for (name, list) in [("To", self.to), ("Cc", self.cc)] {
            if !list.is_empty() {
                let list: Vec<String> = list.iter().map(Address::to_string).collect();
                write!(out, "{name}: {}\r\n", list.join(",\r\n "))?;
            }
        }
        write!(out, "Subject:{}\r\n", subject(self.subject))?;
        write!(out, "Date: {}\r\n", date(self.date))?;
        write!(out, "Message-ID: <{}@{}>\r\n", random_name()?, self.from.group())?;
        out.write_all(b"MIME-Version: 1.0\r\n")?;
        Ok(())
    }
}

/// 128 random bits as hex.
pub(super) fn random_name() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the operating system gives no randomness: {e}"))?;
    Ok(hex::encode(bytes))
}

/// A time as Date shows it, UTC.
pub(super) fn date(at: WallTime) -> String {
    mail_parser::DateTime::from_timestamp(i64::try_from(at.as_secs()).unwrap_or(i64::MAX)).to_rfc822()
}

/// The subject with the space before it: folded when it is long, as encoded words when it is not ASCII.
fn subject(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let ascii = text.is_ascii() && text.split(' ').all(|word| word.len() < LINE_MAX - FOLD_AT);
    let words = if ascii { text.split(' ').map(str::to_owned).collect() } else { encoded_words(&text) };
    let mut out = String::new();
    let mut column = "Subject:".len();
    for word in words {
        // A fold needs something to stand on: an empty word would leave a line of white space alone.
        if column + 1 + word.len() > FOLD_AT && !word.is_empty() && !out.trim_end().is_empty() {
            out.push_str("\r\n");
            column = 0;
        }
        out.push(' ');
        out.push_str(&word);
        column += 1 + word.len();
    }
    out
}

fn encoded_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in text.chars() {
        if words.last().is_some_and(|word| word.len() + c.len_utf8() > WORD_BYTES) {
            words.push(String::new());
        }
        words.iter_mut().last().into_iter().for_each(|word| word.push(c));
    }
    words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect()
}

/// `text` with CRLF for every kind of line break.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    let mut before = 0;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\n' if before == b'\r' => out.push(b'\n'),
            b'\n' => out.extend_from_slice(b"\r\n"),
            _ => out.push(*byte),
        }
        if *byte == b'\r' && text.get(at + 1) != Some(&b'\n') {
            out.push(b'\n');
        }
        before = *byte;
    }
    out
}

fn text_part(text: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut text = with_crlf(text);
    if !text.is_empty() && !text.ends_with(b"\r\n") {
        text.extend_from_slice(b"\r\n");
    }
    let short = text.split(|b| *b == b'\n').all(|line| line.len() < LINE_MAX);
    let charset = if std::str::from_utf8(&text).is_ok() { "utf-8" } else { "unknown-8bit" };
    let plain = short && charset == "utf-8" && !text.contains(&0);
    let encoding = match (plain, text.is_ascii()) {
        (true, true) => "7bit",
        (true, false) => "8bit",
        (false, _) => "base64",
    };
    write!(out, "Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n")?;
    if plain { out.write_all(&text) } else { base64_lines(&mut text.as_slice(), out) }
}

fn file_part(path: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut file = File::open(path)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    write!(
        out,
        "Content-Type: {}\r\nContent-Disposition: attachment;\r\n {}\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        media_type(path),
        file_name(&name)
    )?;
    base64_lines(&mut file, out)
}

/// The parameter that names a file: quoted, or as RFC 2231 wants it when it is not plain ASCII.
fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ';
    if name.chars().all(plain) {
        return format!("filename=\"{name}\"");
    }
    let letters = name.bytes().map(|b| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    });
    format!("filename*=utf-8''{}", letters.collect::<String>())
}

/// What mail programs open well by name; all else is bytes.
fn media_type(path: &Path) -> &'static str {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

/// Everything of `from` as lines of base64.
pub(super) fn base64_lines(from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut chunk = Vec::new();
    let mut line = String::new();
    loop {
        chunk.clear();
        let limit = u64::try_from(BASE64_LINE * 1024).unwrap_or(u64::MAX);
        if from.take(limit).read_to_end(&mut chunk)? == 0 {
            return Ok(());
        }
        for bytes in chunk.chunks(BASE64_LINE) {
            line.clear();
            STANDARD.encode_string(bytes, &mut line);
            line.push_str("\r\n");
            out.write_all(line.as_bytes())?;
        }
    }
}

/// Copies a mail with CRLF for every line break that is not one already.
pub(super) fn copy_with_crlf(from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    let mut before = 0;
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        let mut start = 0;
        for (at, byte) in chunk[..read].iter().enumerate() {
            if *byte == b'\n' && before != b'\r' {
                out.write_all(&chunk[start..at])?;
                out.write_all(b"\r")?;
                start = at;
            }
            before = *byte;
        }
        out.write_all(&chunk[start..read])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders as _};

    fn letter(subject: &str, text: &[u8], attach: &[PathBuf]) -> Vec<u8> {
        let from = "alice@acme".parse().unwrap();
        let to = ["bob@acme".parse().unwrap(), "rita@readers".parse().unwrap()];
        let letter = Letter { from: &from, to: &to, cc: &[], subject, date: WallTime(1_700_000_000_000), text, attach };
        let mut out = Vec::new();
        letter.write(&mut out).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Prüfung \"1\".pdf");
        let content: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[1]).collect();
        std::fs::write(&path, &content).unwrap();
        let subject = "Grüße an alle, die morgen zur Prüfung kommen, und an alle anderen auch";
        let mail = letter(subject, "Früh um\nneun.".as_bytes(), &[path]);
        let parsed = MessageParser::new().parse(&mail).unwrap();
        assert_eq!(parsed.subject(), Some(subject));
        assert_eq!(parsed.body_text(0).unwrap(), "Früh um\r\nneun.\r\n");
        let attachment = parsed.attachment(0).unwrap();
        assert_eq!(attachment.attachment_name(), Some("Prüfung \"1\".pdf"));
        assert_eq!(attachment.contents(), content);
        assert_eq!(parsed.to().unwrap().iter().count(), 2);
        assert_eq!(parsed.date().unwrap().to_timestamp(), 1_700_000_000);
        assert!(mail.split(|b| *b == b'\n').all(|line| line.len() <= 79 && (line.is_empty() || line.ends_with(b"\r"))));
    }

    #[test]
    fn a_subject_brings_no_fields_of_its_own_and_long_ones_fold() {
        let mail = letter("one\r\nBcc: eve@acme", b"", &[]);
        assert!(String::from_utf8(mail).unwrap().contains("Subject: one  Bcc: eve@acme\r\n"));
        let long = "word ".repeat(60);
        let mail = letter(long.trim(), b"", &[]);
        let text = String::from_utf8(mail.clone()).unwrap();
        assert!(text.lines().all(|line| line.len() <= 78), "{text}");
        assert_eq!(MessageParser::new().parse(&mail).unwrap().subject(), Some(long.trim()));
    }

    #[test]
    fn text_that_cannot_travel_as_it_is_goes_as_base64() {
        for text in [vec![b'x'; 5000], b"a\0b".to_vec(), vec![0xff, 0xfe]] {
            let mail = String::from_utf8(letter("s", &text, &[])).unwrap();
            assert!(mail.contains("Content-Transfer-Encoding: base64"), "{mail}");
        }
        assert!(String::from_utf8(letter("s", b"plain", &[])).unwrap().ends_with("7bit\r\n\r\nplain\r\n"));
    }

    #[test]
    fn every_kind_of_line_break_becomes_crlf() {
        assert_eq!(with_crlf(b"a\nb\r\nc\rd"), b"a\r\nb\r\nc\r\nd");
        let mut out = Vec::new();
        copy_with_crlf(&mut &b"a\nb\r\n\nc"[..], &mut out).unwrap();
        assert_eq!(out, b"a\r\nb\r\n\r\nc");
    }
}
