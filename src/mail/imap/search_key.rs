//! SEARCH keys (RFC 3501 section 6.4.4), read once and answered from as little as is needed: the message's flags and dates,
//! then its head, then its body. Never reads a file itself.

use imap_types::core::AString;
use imap_types::search::SearchKey;
use mail_parser::DateTime;

use super::Head;
use super::selected::{Numbers, Selected, Shown};
use super::sequence::Ranges;
use crate::core::postbox::access::Flag;
use crate::mime::{header, words};

/// Most keys of one SEARCH.
const KEYS_MAX: usize = 512;
const DAY_SECS: i64 = 86_400;

/// A search key, ready to be asked of each message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    All,
    And(Vec<Key>),
    Or(Box<Key>, Box<Key>),
    Not(Box<Key>),
    Sequence(Ranges),
    Uids(Ranges),
    Flag(Flag),
    Recent,
    Larger(u64),
    Smaller(u64),
    /// INTERNALDATE in these days since the epoch, the last one excluded.
    Internal(i64, i64),
    /// The Date field, in the same way, whatever its time and zone.
    Sent(i64, i64),
    /// A field of this name has this text, in lower case; any field of the name when it is empty.
    Header(String, String),
    /// The text with this number is in the body.
    Body(usize),
    /// It is in the header block (in lower case) or in the body.
    Text(String, usize),
}

/// A search: its key, and the texts that are looked for in bodies, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Search {
    pub(super) key: Key,
    pub(super) texts: Vec<String>,
}

/// What is known of a message so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) sequence: u32,
    pub(super) shown: &'a Shown,
    pub(super) head: Option<&'a Head>,
    /// Which of the texts its body has.
    pub(super) found: Option<&'a [bool]>,
}

impl Search {
    /// Reads the keys; nothing when there are too many.
    pub(super) fn new(keys: &[SearchKey<'_>], selected: &Selected) -> Option<Self> {
        let mut reader = Reader { selected, texts: Vec::new(), keys: 0 };
        let key = Key::And(keys.iter().map(|key| reader.read(key)).collect::<Option<_>>()?);
        Some(Self { key, texts: reader.texts })
    }
}

struct Reader<'a> {
    selected: &'a Selected,
    texts: Vec<String>,
    keys: usize,
}

fn lower(text: &AString<'_>) -> String {
    String::from_utf8_lossy(text.as_ref()).to_lowercase()
}

fn day(date: &imap_types::datetime::NaiveDate) -> i64 {
    date.as_ref().and_hms_opt(0, 0, 0).map_or(0, |time| time.and_utc().timestamp().div_euclid(DAY_SECS))
}

impl Reader<'_> {
    fn read(&mut self, key: &SearchKey<'_>) -> Option<Key> {
        self.keys += 1;
        if self.keys > KEYS_MAX {
            return None;
        }
        let not = |flag| Key::Not(Box::new(Key::Flag(flag)));
        let field = |name: &str, text: &AString<'_>| Key::Header(name.to_owned(), lower(text));
        Some(match key {
            SearchKey::And(keys) => Key::And(keys.as_ref().iter().map(|key| self.read(key)).collect::<Option<_>>()?),
            SearchKey::Or(a, b) => Key::Or(Box::new(self.read(a)?), Box::new(self.read(b)?)),
            SearchKey::Not(key) => Key::Not(Box::new(self.read(key)?)),
            SearchKey::SequenceSet(set) => Key::Sequence(Ranges::new(set, self.selected.largest(Numbers::Sequence))),
            SearchKey::Uid(set) => Key::Uids(Ranges::new(set, self.selected.largest(Numbers::Uids))),
            SearchKey::All => Key::All,
            SearchKey::Answered => Key::Flag(Flag::Answered),
            SearchKey::Deleted => Key::Flag(Flag::Deleted),
            SearchKey::Draft => Key::Flag(Flag::Draft),
            SearchKey::Flagged => Key::Flag(Flag::Flagged),
            SearchKey::Seen => Key::Flag(Flag::Seen),
            SearchKey::Keyword(word) => Key::Flag(Flag::Keyword(word.inner().to_owned())),
            SearchKey::Unanswered => not(Flag::Answered),
            SearchKey::Undeleted => not(Flag::Deleted),
            SearchKey::Undraft => not(Flag::Draft),
            SearchKey::Unflagged => not(Flag::Flagged),
            SearchKey::Unseen => not(Flag::Seen),
            SearchKey::Unkeyword(word) => not(Flag::Keyword(word.inner().to_owned())),
            SearchKey::Recent => Key::Recent,
            SearchKey::Old => Key::Not(Box::new(Key::Recent)),
            SearchKey::New => Key::And(vec![Key::Recent, not(Flag::Seen)]),
            SearchKey::Larger(n) => Key::Larger(u64::from(*n)),
            SearchKey::Smaller(n) => Key::Smaller(u64::from(*n)),
            SearchKey::Before(date) => Key::Internal(i64::MIN, day(date)),
            SearchKey::On(date) => Key::Internal(day(date), day(date) + 1),
            SearchKey::Since(date) => Key::Internal(day(date), i64::MAX),
            SearchKey::SentBefore(date) => Key::Sent(i64::MIN, day(date)),
            SearchKey::SentOn(date) => Key::Sent(day(date), day(date) + 1),
            SearchKey::SentSince(date) => Key::Sent(day(date), i64::MAX),
            SearchKey::Bcc(text) => field("Bcc", text),
            SearchKey::Cc(text) => field("Cc", text),
            SearchKey::From(text) => field("From", text),
            SearchKey::To(text) => field("To", text),
            SearchKey::Subject(text) => field("Subject", text),
            SearchKey::Header(name, text) => {
                Key::Header(String::from_utf8_lossy(name.as_ref()).into_owned(), lower(text))
            }
            SearchKey::Body(text) => Key::Body(self.text(lower(text))),
            SearchKey::Text(text) => Key::Text(lower(text), self.text(lower(text))),
        })
    }

    fn text(&mut self, text: String) -> usize {
        self.texts.push(text);
        self.texts.len() - 1
    }
}

impl Key {
    /// Whether the message matches; nothing while that cannot be told from what is known.
    pub(super) fn answer(&self, known: &Known<'_>) -> Option<bool> {
        let message = &known.shown.message;
        match self {
            Key::All => Some(true),
            Key::And(keys) => all(keys.iter().map(|key| key.answer(known))),
            Key::Or(a, b) => {
                let none = all([a, b].map(|key| key.answer(known).map(|answer| !answer)).into_iter());
                none.map(|none| !none)
            }
            Key::Not(key) => key.answer(known).map(|answer| !answer),
            Key::Sequence(ranges) => Some(ranges.contains(known.sequence)),
            Key::Uids(ranges) => Some(ranges.contains(message.uid.0)),
            Key::Flag(Flag::Keyword(word)) => Some(
                message
                    .flags
                    .iter()
                    .any(|flag| matches!(flag, Flag::Keyword(known) if known.eq_ignore_ascii_case(word))),
            ),
            Key::Flag(flag) => Some(message.flags.contains(flag)),
            Key::Recent => Some(known.shown.recent),
            Key::Larger(n) => Some(message.size > *n),
            Key::Smaller(n) => Some(message.size < *n),
            Key::Internal(from, to) => {
                let secs = i64::try_from(message.internal_date.as_secs()).unwrap_or(i64::MAX);
                Some((*from..*to).contains(&secs.div_euclid(DAY_SECS)))
            }
            Key::Sent(from, to) => known.head.map(|head| sent_day(head).is_some_and(|day| (*from..*to).contains(&day))),
            Key::Header(name, text) => known.head.map(|head| has_field(&head.header_block, name, text)),
            Key::Body(text) => known.found.and_then(|found| found.get(*text).copied()),
            Key::Text(text, number) => match known.head.map(|head| header_has(&head.header_block, text)) {
                Some(true) => Some(true),
                _ => known.found.and_then(|found| found.get(*number).copied()).filter(|_| known.head.is_some()),
            },
        }
    }
}

/// False when one is false, true when all are true, else unknown.
fn all(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut whole = Some(true);
    for answer in answers {
        match answer {
            Some(false) => return Some(false),
            Some(true) => {}
            None => whole = None,
        }
    }
    whole
}

/// The day in the Date field as it is written there.
fn sent_day(head: &Head) -> Option<i64> {
    let text = header::first(&head.header_block, "Date")?.text();
    let date = DateTime::parse_rfc822(&format!("{text}\r\n")).filter(DateTime::is_valid)?;
    let midnight = DateTime { hour: 0, minute: 0, second: 0, tz_hour: 0, tz_minute: 0, ..date };
    Some(midnight.to_timestamp().div_euclid(DAY_SECS))
}

fn has_field(block: &[u8], name: &str, text: &str) -> bool {
    header::fields(block)
        .filter(|field| field.is(name))
        .any(|field| text.is_empty() || value_has(&field.unfolded(), text))
}

fn header_has(block: &[u8], text: &str) -> bool {
    header::fields(block).any(|field| {
        String::from_utf8_lossy(field.name).to_lowercase().contains(text) || value_has(&field.unfolded(), text)
    })
}

/// Whether a value has the text, as it stands or with its encoded words decoded (RFC 2047).
fn value_has(value: &[u8], text: &str) -> bool {
    if String::from_utf8_lossy(value).to_lowercase().contains(text) {
        return true;
    }
    words::decoded(&String::from_utf8_lossy(value)).to_lowercase().contains(text)
}
