//! Messages and waiting mails as lists show them: a page at a time, so that a mailbox of any size fits; subjects decoded for
//! people. It changes nothing.

use std::collections::BTreeSet;

use serde::Serialize;

use super::answers;
use super::protocol::{Decoded, InboxLine, LINE_MAX, OutboxLine};
use crate::actors::peer::Peer;
use crate::core::postbox::access::{BodyState, Flag, Message};
use crate::mime::{header, words};

/// Bytes of one page, as JSON: far below a line's bound, so that the last message of a page fits too.
const PAGE_BYTES: usize = LINE_MAX / 8;
/// Submissions that a status shows.
pub(super) const SHOWN_MAX: usize = 100;
/// Bytes of one field that a list shows; the message itself has the rest.
const FIELD_MAX: usize = 4 * 1024;
/// Waiting mails whose subjects are read at a time.
const SUBJECTS_MAX: usize = 256;

/// The messages after a UID, as many as fit on a page; none at the end.
///
/// # Errors
/// A sentence: no such mailbox, or a message that cannot be read.
pub(super) async fn messages(
    peer: &Peer,
    mailbox: Option<String>,
    after: u32,
    last: Option<u32>,
) -> Result<Vec<InboxLine>, String> {
    let (_, messages) = answers::open(peer, mailbox).await?;
    let skipped = last.map_or(0, |last| messages.len().saturating_sub(usize::try_from(last).unwrap_or(usize::MAX)));
    let mut page = Page::default();
    for message in messages.into_iter().skip(skipped).filter(|message| message.uid.0 > after) {
        let head =
            peer.postbox.head(message.key).await.map_err(|e| format!("{} cannot be read: {e}", message.key.0))?;
        if !page.takes(line(&message, &head.header_block)) {
            break;
        }
    }
    Ok(page.lines)
}

fn line(message: &Message, header_block: &[u8]) -> InboxLine {
    let text = |name: &str| header::first(header_block, name).map(|f| cut(f.text())).unwrap_or_default();
    let (from, subject) = (text("From"), text("Subject"));
    InboxLine {
        uid: message.uid.0,
        decoded: Decoded { from: words::decoded(&from), subject: words::decoded(&subject) },
        from,
        subject,
        date: text("Date"),
        size: message.size,
        body: body_word(message.body).to_owned(),
        flags: flag_words(&message.flags),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > FIELD_MAX {
        text.truncate((0..=FIELD_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default());
    }
    text
}

/// Lines until a page is full; it has at least one.
#[derive(Debug)]
struct Page<T> {
    lines: Vec<T>,
    bytes: usize,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), bytes: 0 }
    }
}

impl<T: Serialize> Page<T> {
    /// Takes a line; `false` when there is no room for it.
    fn takes(&mut self, line: T) -> bool {
        self.bytes += serde_json::to_vec(&line).map_or(PAGE_BYTES, |json| json.len() + 1);
        if self.bytes > PAGE_BYTES && !self.lines.is_empty() {
            return false;
        }
        self.lines.push(line);
        true
    }
}

/// As many lines from the front as fit on a page.
pub(super) fn page_of<T: Serialize>(lines: Vec<T>) -> Vec<T> {
    let mut page = Page::default();
    for line in lines {
        if !page.takes(line) {
            break;
        }
    }
    page.lines
}

/// The same from the end, in the same order, and no more than a status shows.
pub(super) fn last_of<T: Serialize>(mut lines: Vec<T>) -> Vec<T> {
    lines.reverse();
    lines.truncate(SHOWN_MAX);
    let mut page = page_of(lines);
    page.reverse();
    page
}

/// Fills in the subjects of own mails that wait, as far as their header blocks are at hand.
pub(super) async fn subjects(peer: &Peer, lines: &mut [OutboxLine]) {
    for line in lines.iter_mut().take(SUBJECTS_MAX) {
        let Some(block) = peer.postbox.own_header_block(line.submission).await else { continue };
        let subject = header::first(&block, "Subject").map(|field| cut(field.text()));
        line.subject = subject.map(|subject| words::decoded(&subject));
    }
}

fn body_word(body: BodyState) -> &'static str {
    match body {
        BodyState::Here => "here",
        BodyState::Absent => "stub",
        BodyState::Cancelled => "cancelled",
        BodyState::Expired => "expired",
    }
}

fn flag_words(flags: &BTreeSet<Flag>) -> Vec<String> {
    let word = |flag: &Flag| match flag {
        Flag::Seen => "\\Seen".to_owned(),
        Flag::Answered => "\\Answered".to_owned(),
        Flag::Flagged => "\\Flagged".to_owned(),
        Flag::Deleted => "\\Deleted".to_owned(),
        Flag::Draft => "\\Draft".to_owned(),
        Flag::Keyword(keyword) => keyword.clone(),
    };
    flags.iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_its_bound_and_has_at_least_one_line() {
        let mut page = Page::default();
        assert!(page.takes("x".repeat(PAGE_BYTES * 2)), "one that is larger than a page is a page");
        assert!(!page.takes("y".to_owned()));
        let mut page = Page::default();
        let taken = (0..).take_while(|_| page.takes("z".repeat(1000))).count();
        assert!(taken > 500 && page.lines.len() == taken && taken * 1000 < PAGE_BYTES, "{taken}");
    }

    #[test]
    fn the_longest_line_of_a_list_is_far_below_a_lines_bound() {
        let hostile = format!("From: {0}\r\nSubject: {0}\r\nDate: {0}\r\n", "\u{1}ü".repeat(1 << 20));
        let message = Message {
            uid: crate::core::postbox::access::Uid(1),
            key: crate::core::postbox::access::MessageKey(1),
            flags: BTreeSet::new(),
            size: 1,
            internal_date: crate::model::WallTime(0),
            body: BodyState::Here,
        };
        let json = serde_json::to_string(&line(&message, hostile.as_bytes())).unwrap();
        assert!(json.len() < PAGE_BYTES, "{}", json.len());
    }
}
