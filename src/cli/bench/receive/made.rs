//! The mails of the paper's experiment: an empty body and one attachment of an exact length, words or bytes that do not compress.
//! Each is made from its number, the same each time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::args::Kind;
use crate::cli::compose;
use crate::model::{Address, WallTime};

/// Bytes of one encoded line: 57 become 76 letters (RFC 2045).
const BASE64_LINE: usize = 57;
/// Where lines of words end.
const TEXT_LINE: usize = 72;
/// When the first was written; each number is a minute later.
const FIRST: u64 = 1_700_000_000_000;
/// Milliseconds of that minute.
const MINUTE_MS: u64 = 60_000;
/// Different words: with so many, and as unevenly used as in a language, a long text shrinks to two fifths of it, as prose does.
const WORDS: usize = 14_000;
/// Words that each word is often followed by.
const FOLLOWERS: usize = 4;
/// How often it is, of 256.
const FOLLOWED: u8 = 102;

const ONSETS: [&str; 32] = [
    "", "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "ch", "cl", "cr", "dr", "fl",
    "gr", "pl", "pr", "sc", "sh", "sp", "st", "str", "th", "tr",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ea", "ou", "io"];
const ENDS: [&str; 16] = ["", "", "", "n", "r", "l", "s", "t", "m", "d", "ct", "nd", "nt", "st", "ck", "ll"];

/// Bytes that look random and are the same for the same name.
struct Random(blake3::OutputReader);

impl Random {
    fn of(name: &str) -> Self {
        Self(blake3::Hasher::new().update(name.as_bytes()).finalize_xof())
    }
    fn byte(&mut self) -> u8 {
        let mut one = [0];
        self.0.fill(&mut one);
        one[0]
    }
    fn two_bytes(&mut self) -> u16 {
        let mut two = [0; 2];
        self.0.fill(&mut two);
        u16::from_le_bytes(two)
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(usize::from(self.two_bytes()) % from.len().max(1)).copied()
    }
}

/// A language, as far as compression cares: words, how often each is used, and what follows it.
pub(super) struct Language {
    words: Vec<String>,
    /// Which word, by a number that is drawn evenly (Zipf and Mandelbrot).
    drawn: Vec<usize>,
    followers: Vec<[usize; FOLLOWERS]>,
}

impl Language {
    /// The one that all texts of benches are in.
    pub(super) fn new() -> Self {
        let mut random = Random::of("words");
        let mut words = std::collections::BTreeSet::new();
        let mut in_order = Vec::with_capacity(WORDS);
        while in_order.len() < WORDS {
            let syllables = 1 + in_order.len().min(400) / 150 + usize::from(random.byte() % 2);
            let mut word = String::new();
            for _ in 0..syllables {
                for part in [random.pick(&ONSETS), random.pick(&VOWELS), random.pick(&ENDS)] {
                    word.push_str(part.unwrap_or_default());
                }
            }
            if word.len() > 1 && words.insert(word.clone()) {
                in_order.push(word);
            }
        }
        let weight = |rank: u32| (f64::from(rank) + 2.7).powf(-1.07);
        let ranks = || 0..u32::try_from(WORDS).unwrap_or(u32::MAX);
        let all: f64 = ranks().map(weight).sum();
        let (mut drawn, mut reached) = (Vec::with_capacity(1 << 16), 0.0);
        for (word, rank) in ranks().enumerate() {
            reached += weight(rank) / all;
            while drawn.len() < 1 << 16 && u32::try_from(drawn.len()).map_or(0.0, f64::from) < reached * 65_536.0 {
                drawn.push(word);
            }
        }
        drawn.resize(1 << 16, WORDS - 1);
        let mut draw = || drawn.get(usize::from(random.two_bytes())).copied().unwrap_or(0);
        let followers = (0..WORDS).map(|_| [draw(), draw(), draw(), draw()]).collect();
        Self { words: in_order, drawn, followers }
    }

    /// Exactly `length` bytes of it, line breaks as LF, the last byte one.
    fn text(&self, name: &str, length: usize) -> Vec<u8> {
        let mut random = Random::of(name);
        let (mut text, mut line, mut in_sentence, mut word) = (Vec::with_capacity(length + 32), 0, 0, 0_usize);
        while text.len() < length {
            let followers = self.followers.get(word).filter(|_| random.byte() < FOLLOWED);
            let drawn = random.two_bytes();
            word = match followers {
                Some(followers) => followers.get(usize::from(drawn) % FOLLOWERS).copied().unwrap_or(0),
                None => self.drawn.get(usize::from(drawn)).copied().unwrap_or(0),
            };
            let Some(next) = self.words.get(word) else { continue };
            if line + next.len() > TEXT_LINE {
                text.push(b'\n');
                line = 0;
            } else if line > 0 {
                text.push(b' ');
                line += 1;
            }
            let at = text.len();
            text.extend_from_slice(next.as_bytes());
            line += next.len() + 1;
            if in_sentence == 0
                && let Some(first) = text.get_mut(at)
            {
                first.make_ascii_uppercase();
            }
            in_sentence += 1;
            if in_sentence > 4 && random.byte() < 20 {
                text.push(b'.');
                in_sentence = 0;
            }
        }
        text.truncate(length);
        if let Some(last) = text.last_mut() {
            *last = b'\n';
        }
        text
    }
}

/// A mail's number, attachment and people.
pub(super) struct Made<'a> {
    /// What its attachment is made of.
    pub(super) kind: Kind,
    /// The attachment's length.
    pub(super) size: u64,
    /// Its number.
    pub(super) number: u32,
    /// Who writes.
    pub(super) from: &'a Address,
    /// To whom.
    pub(super) to: &'a Address,
}

impl Made<'_> {
    /// The mail, with CRLF line breaks.
    pub(super) fn write(&self, language: &Language) -> Vec<u8> {
        let Self { kind, size, number, from, to } = self;
        let name = format!("{} {size} {number}", kind.name());
        let tag = blake3::hash(name.as_bytes()).to_hex();
        let tag = tag.get(..24).unwrap_or_default();
        let (length, boundary) = (usize::try_from(*size).unwrap_or(0), format!("=_bnd_{tag}"));
        let (file, content, encoding, body) = match kind {
            Kind::Text => {
                let text = language.text(&name, length);
                (format!("note-{number:06}.txt"), "text/plain; charset=utf-8", "quoted-printable", crlf(&text))
            }
            Kind::Binary | Kind::Eml => {
                let mut bytes = vec![0; length];
                Random::of(&name).0.fill(&mut bytes);
                (format!("blob-{number:06}.bin"), "application/octet-stream", "base64", base64_lines(&bytes))
            }
        };
        let date = compose::date(WallTime(FIRST.saturating_add(u64::from(*number).saturating_mul(MINUTE_MS))));
        let mut mail = format!(
            "From: {from}\r\nTo: {to}\r\nSubject: {} message {number:06} of {size}\r\nDate: {date}\r\nMessage-ID: <{tag}.{number}@{}>\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\r\n--{boundary}\r\n\
             Content-Type: {content}; name=\"{file}\"\r\nContent-Transfer-Encoding: {encoding}\r\n\
             Content-Disposition: attachment; filename=\"{file}\"\r\n\r\n",
            kind.name(),
            from.group(),
        )
        .into_bytes();
        mail.extend_from_slice(&body);
        mail.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        mail
    }
}

/// Short lines of ASCII without an equals sign are quoted-printable as they are.
fn crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 32);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / BASE64_LINE * 78 + 80);
    for line in bytes.chunks(BASE64_LINE) {
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_the_same_each_time_and_as_long_as_its_encoding_makes_it() {
        let language = Language::new();
        let (from, to) = ("sam@acme".parse().unwrap(), "rita@readers".parse().unwrap());
        let mail = |kind, size| Made { kind, size, number: 7, from: &from, to: &to }.write(&language);
        let (text, binary) = (mail(Kind::Text, 100 << 10), mail(Kind::Binary, 100 << 10));
        assert_eq!(text, mail(Kind::Text, 100 << 10));
        assert!(text.len() > 102_400 && text.len() < 106_000, "{}", text.len());
        assert!(binary.len() > 138_000 && binary.len() < 142_000, "{}", binary.len());
        let lines = text.split(|byte| *byte == b'\n');
        assert!(lines.clone().all(|line| line.len() < 90 && !line.starts_with(b".")));
    }

    #[test]
    fn the_attachment_has_exactly_its_length() {
        let language = Language::new();
        for length in [1, 1024, 10_240] {
            let text = language.text("x", length);
            assert!(text.len() == length && text.ends_with(b"\n"));
        }
    }
}
