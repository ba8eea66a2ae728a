//! The open mailbox as this session has told it to its mail program: sequence numbers, flags, and what changed since. Never
//! renumbers a message without saying so.

use std::collections::{BTreeMap, BTreeSet};

use super::respond;
use super::sequence::Ranges;
use crate::core::postbox::access::{Flag, FlagChange, MailboxInfo, MailboxName, Message, Uid};

/// A message that the mail program knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The message, as it was when the mail program was last told.
    pub(crate) message: Message,
    /// This session is the first that saw it.
    pub(crate) recent: bool,
}

/// The open mailbox.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Its name.
    pub(crate) name: MailboxName,
    /// It was opened by EXAMINE.
    pub(crate) read_only: bool,
    /// Its UIDVALIDITY.
    pub(crate) uid_validity: u32,
    /// Version of which everything was told; none while something was held back.
    version: Option<u64>,
    messages: Vec<Shown>,
    keywords: BTreeSet<String>,
}

/// Which numbers a command speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Sequence numbers.
    Sequence,
    /// UIDs.
    Uids,
}

impl Selected {
    /// The mailbox as it was just opened; messages with a UID above `seen` are recent.
    pub(crate) fn new(info: &MailboxInfo, messages: Vec<Message>, read_only: bool, seen: Uid) -> Self {
        let messages: Vec<Shown> =
            messages.into_iter().map(|message| Shown { recent: message.uid > seen, message }).collect();
        let keywords = messages.iter().flat_map(|shown| keywords(&shown.message)).collect();
        let name = info.name.clone();
        Self { name, read_only, uid_validity: info.uid_validity, version: Some(info.version), messages, keywords }
    }
    /// Its messages in order; the first has sequence number 1.
    pub(crate) fn messages(&self) -> &[Shown] {
        &self.messages
    }
    /// How many messages it has.
    pub(crate) fn exists(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }
    /// How many of them are recent.
    pub(crate) fn recent(&self) -> usize {
        self.messages.iter().filter(|shown| shown.recent).count()
    }
    /// The message with this sequence number.
    pub(crate) fn get(&self, sequence: u32) -> Option<&Shown> {
        self.messages.get(usize::try_from(sequence).ok()?.checked_sub(1)?)
    }
    /// What `*` stands for.
    pub(crate) fn largest(&self, numbers: Numbers) -> u32 {
        match numbers {
            Numbers::Sequence => self.exists(),
            Numbers::Uids => self.messages.last().map_or(0, |shown| shown.message.uid.0),
        }
    }
    /// Sequence numbers of the messages of `ranges`, ascending. UIDs that are not here are passed over.
    pub(crate) fn find(&self, ranges: &Ranges, numbers: Numbers) -> Vec<u32> {
        let wanted = |(sequence, shown): (u32, &Shown)| {
            let number = if numbers == Numbers::Sequence { sequence } else { shown.message.uid.0 };
            ranges.contains(number).then_some(sequence)
        };
        (1u32..).zip(&self.messages).filter_map(wanted).collect()
    }
    /// Sequence number of a UID.
    pub(crate) fn sequence_of(&self, uid: Uid) -> Option<u32> {
        let index = self.messages.binary_search_by_key(&uid, |shown| shown.message.uid).ok()?;
        u32::try_from(index).ok()?.checked_add(1)
    }
    /// Takes over a message as it is now, when the mail program is told by the caller.
    pub(crate) fn update(&mut self, message: Message) {
        if let Ok(index) = self.messages.binary_search_by_key(&message.uid, |shown| shown.message.uid) {
            self.messages[index].message = message;
        }
    }
    /// Whether everything of this version was told.
    pub(crate) fn is_at(&self, info: &MailboxInfo) -> bool {
        self.version == Some(info.version)
    }

    /// The version of which everything was told.
    pub(crate) fn version(&self) -> Option<u64> {
        self.version
    }

    /// Whether something was not told yet.
    pub(crate) fn holds_back(&self) -> bool {
        self.version.is_none()
    }

    /// `* FLAGS` and the keywords in it.
    pub(crate) fn write_flags(&self, out: &mut Vec<u8>) {
        let line = format!("* FLAGS ({})\r\n", self.flag_names());
        out.extend_from_slice(line.as_bytes());
    }
    /// All flags and the keywords in use.
    pub(crate) fn flag_names(&self) -> String {
        let mut names = String::from("\\Answered \\Flagged \\Deleted \\Seen \\Draft");
        for word in &self.keywords {
            names.push(' ');
            names.push_str(word);
        }
        names
    }
    /// `* n FETCH (FLAGS (…))`, with the UID if asked.
    pub(crate) fn write_fetch_flags(&self, out: &mut Vec<u8>, sequence: u32, with_uid: bool) {
        let Some(shown) = self.get(sequence) else { return };
        out.extend_from_slice(format!("* {sequence} FETCH (").as_bytes());
        if with_uid {
            out.extend_from_slice(format!("UID {} ", shown.message.uid.0).as_bytes());
        }
        out.extend_from_slice(b"FLAGS ");
        respond::flags(out, &shown.message.flags, shown.recent);
        out.extend_from_slice(b")\r\n");
    }

    /// Takes over the mailbox as it is now and tells what changed. Without `may_expunge` messages that are gone keep their
    /// sequence numbers until a later call (RFC 3501 section 7.4.1). Messages with a UID above `seen` are recent.
    pub(crate) fn refresh(
        &mut self,
        info: &MailboxInfo,
        messages: Vec<Message>,
        seen: Uid,
        may_expunge: bool,
        out: &mut Vec<u8>,
    ) {
        let last = self.messages.last().map(|shown| shown.message.uid);
        let mut now: BTreeMap<Uid, Message> = messages.into_iter().map(|message| (message.uid, message)).collect();
        let gone: Vec<usize> =
            (0..self.messages.len()).filter(|i| !now.contains_key(&self.messages[*i].message.uid)).collect();
        self.version = (may_expunge || gone.is_empty()).then_some(info.version);
        if may_expunge {
            for index in gone.iter().rev() {
                self.messages.remove(*index);
                out.extend_from_slice(format!("* {} EXPUNGE\r\n", index + 1).as_bytes());
            }
        }
        let mut changed = Vec::new();
        for (sequence, shown) in (1u32..).zip(&mut self.messages) {
            if let Some(message) = now.remove(&shown.message.uid) {
                if message.flags != shown.message.flags {
                    changed.push(sequence);
                }
                shown.message = message;
            }
        }
        let fresh = now.into_values().filter(|message| last.is_none_or(|last| message.uid > last));
        let before = self.messages.len();
        self.messages.extend(fresh.map(|message| Shown { recent: message.uid > seen, message }));
        self.write_new_keywords(out);
        if self.messages.len() > before {
            let counts = format!("* {} EXISTS\r\n* {} RECENT\r\n", self.exists(), self.recent());
            out.extend_from_slice(counts.as_bytes());
        }
        for sequence in changed {
            self.write_fetch_flags(out, sequence, false);
        }
    }

    /// Tells keywords that no message had before.
    pub(crate) fn write_new_keywords(&mut self, out: &mut Vec<u8>) {
        let before = self.keywords.len();
        self.keywords.extend(self.messages.iter().flat_map(|shown| keywords(&shown.message)));
        if self.keywords.len() > before {
            self.write_flags(out);
        }
    }
}

fn keywords(message: &Message) -> impl Iterator<Item = String> {
    message.flags.iter().filter_map(|flag| match flag {
        Flag::Keyword(word) => Some(word.clone()),
        _ => None,
    })
}

/// `flags` after a change.
pub(crate) fn changed(flags: &BTreeSet<Flag>, change: FlagChange, by: &BTreeSet<Flag>) -> BTreeSet<Flag> {
    match change {
        FlagChange::Add => flags.union(by).cloned().collect(),
        FlagChange::Remove => flags.difference(by).cloned().collect(),
        FlagChange::Replace => by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::postbox::access::{BodyState, MessageKey};
    use crate::model::WallTime;

    fn message(uid: u32, flags: &[Flag]) -> Message {
        let flags = flags.iter().cloned().collect();
        Message { uid: Uid(uid), key: MessageKey(1), flags, internal_date: WallTime(0), size: 1, body: BodyState::Here }
    }

    fn info(version: u64) -> MailboxInfo {
        let name = MailboxName::inbox();
        MailboxInfo {
            name,
            standard: None,
            subscribed: true,
            uid_validity: 1,
            uid_next: Uid(9),
            exists: 0,
            unseen: 0,
            version,
        }
    }

    fn refreshed(selected: &mut Selected, version: u64, messages: Vec<Message>, may_expunge: bool) -> String {
        let mut out = Vec::new();
        selected.refresh(&info(version), messages, Uid(4), may_expunge, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc3501_expunge_waits_while_sequence_numbers_are_in_use() {
        let start = vec![message(1, &[]), message(2, &[]), message(4, &[])];
        let mut selected = Selected::new(&info(1), start, false, Uid(4));
        let now = vec![message(2, &[Flag::Seen]), message(5, &[])];
        let held = refreshed(&mut selected, 2, now.clone(), false);
        assert_eq!(held, "* 4 EXISTS\r\n* 1 RECENT\r\n* 2 FETCH (FLAGS (\\Seen))\r\n");
        assert!(!selected.is_at(&info(2)));
        assert_eq!(refreshed(&mut selected, 2, now, true), "* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n");
        assert!(selected.is_at(&info(2)));
        assert_eq!(selected.sequence_of(Uid(5)), Some(2));
        assert_eq!(selected.find(&Ranges::new(&"5:*".parse().unwrap(), 5), Numbers::Uids), [2]);
    }

    #[test]
    fn new_keywords_are_told_before_they_are_used() {
        let mut selected = Selected::new(&info(1), vec![message(1, &[])], false, Uid(0));
        let told = refreshed(&mut selected, 2, vec![message(1, &[Flag::Keyword("$Safe0".into())])], true);
        assert!(told.starts_with("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Safe0)\r\n"), "{told}");
        assert!(told.ends_with("* 1 FETCH (FLAGS ($Safe0 \\Recent))\r\n"), "{told}");
    }
}
