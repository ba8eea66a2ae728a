//! Candidates for groups that mail waits for, as cards in Requests: the user chooses by moving one to INBOX. It never chooses
//! itself, and a card that the user took away is not shown again before the next start.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::access::{BodyState, Standard};
use super::state::{Origin, Runs, Stored};
use super::{Action, Event, Postbox, Writing, requests};
use crate::core::group::Candidates;
use crate::model::{Address, Fingerprint, GroupName, Now, WallTime};

/// Cards of candidates that lie in Requests at a time.
const CARDS_MAX: usize = 200;

/// A key that says it is a group's.
pub(super) type Candidate = (GroupName, Fingerprint);

/// The card: an RFC 5322 message made of recorded facts only.
fn card(to: &Address, (group, key): &Candidate, of: usize, at: WallTime) -> Vec<u8> {
    let mut text = String::new();
    let others = match of {
        1 => "No other key says so, as far as is known.".to_owned(),
        of => format!("{of} keys say so: there is a card for each of them."),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "Date: {date}\r\nFrom: <{to}>\r\nTo: <{to}>\r\nSubject: Is this the key of {group}?\r\n\
         Message-ID: <candidate.{group}.{key}@{own}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         Mail of yours waits for somebody of the group {group}, and no key of that group\r\n\
         is pinned here. This key says that it is the group's:\r\n\r\n\
         \x20   Group:      {group}\r\n\
         \x20   Group key:  {key}\r\n\r\n\
         {others}\r\n\
         Anybody can make such a key. Compare it with somebody of the group on another\r\n\
         way; then move this card to INBOX, and the key is pinned and your mail goes out.\r\n\
         Or add a contact card: `roost contacts add CARD`.\r\n",
        date = requests::rfc5322(at),
        own = to.group(),
    );
    text.into_bytes()
}

impl Postbox {
    fn shown_candidates(&self) -> BTreeSet<Candidate> {
        let shown = self.state.messages.values().filter_map(|message| match &message.origin {
            Origin::Candidate(group, key) => Some((group.clone(), *key)),
            _ => None,
        });
        let written = self.writing.values().filter_map(|writing| match writing {
            Writing::Candidate(candidate, _) => Some(candidate.clone()),
            _ => None,
        });
        shown.chain(written).collect()
    }

    /// The candidates of all groups that mail waits for: cards of others go, new ones are written.
    pub(super) fn candidates(&mut self, now: Now, candidates: &Candidates) {
        let wanted: BTreeSet<Candidate> =
            candidates.iter().flat_map(|(group, keys)| keys.iter().map(|key| (group.clone(), *key))).collect();
        let shown = self.shown_candidates();
        // Those of a group that is looked for and not found again stay: the user may have to look twice.
        let over = |candidate: &Candidate| {
            !wanted.contains(candidate) && candidates.get(&candidate.0).is_none_or(|keys| !keys.is_empty())
        };
        self.take_cards_out(now, &shown.iter().filter(|one| over(one)).cloned().collect());
        self.dismissed.retain(|candidate| wanted.contains(candidate));
        let room = CARDS_MAX.saturating_sub(shown.len());
        let new = wanted.into_iter().filter(|one| !shown.contains(one) && !self.dismissed.contains(one));
        for candidate in new.take(room).collect::<Vec<_>>() {
            let of = candidates.get(&candidate.0).map_or(0, BTreeSet::len);
            let message = card(&self.settings.address, &candidate, of, now.wall);
            let key = self.allot();
            self.dismissed.insert(candidate.clone());
            self.writing.insert(key, Writing::Candidate(candidate, now.wall));
            self.out.act(Action::WriteMessage { key, message });
        }
    }

    pub(super) fn candidate_written(
        &mut self,
        (group, key_of_group): Candidate,
        at: WallTime,
        key: super::MessageKey,
        size: u64,
    ) {
        let Some(mailbox) = self.state.standard(Standard::Requests) else {
            return self.out.act(Action::Remove { keys: vec![key] });
        };
        let message = Stored::new(Origin::Candidate(group, key_of_group), at, size, BodyState::Here);
        self.commit(vec![Event::Filed { key, message, mailbox, flags: BTreeSet::new() }], Vec::new());
    }

    /// Takes the cards of these candidates out of Requests; one that the user filed elsewhere stays there as a note.
    fn take_cards_out(&mut self, now: Now, over: &BTreeSet<Candidate>) {
        let Some(requests) = self.state.standard(Standard::Requests).filter(|_| !over.is_empty()) else { return };
        let Some(mailbox) = self.state.mailboxes.get(&requests) else { return };
        let is_over = |key: &super::MessageKey| match self.state.messages.get(key).map(|message| &message.origin) {
            Some(Origin::Candidate(group, key)) => over.contains(&(group.clone(), *key)),
            _ => false,
        };
        let uids = Runs::of(mailbox.slots.iter().filter(|(_, slot)| is_over(&slot.key)).map(|(uid, _)| *uid));
        if !uids.is_empty() {
            self.commit(vec![Event::Expunged { mailbox: requests, uids, at: now.wall }], Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_names_group_and_key_and_says_how_many_there_are() {
        let candidate = ("acme".parse().unwrap(), Fingerprint::new([7; 20]));
        let text = String::from_utf8(card(&"rita@readers".parse().unwrap(), &candidate, 2, WallTime(0))).unwrap();
        assert!(text.contains("Subject: Is this the key of acme?\r\n") && text.contains("2 keys say so"), "{text}");
        assert!(text.contains(&candidate.1.to_string()) && text.lines().all(|line| line.len() < 100), "{text}");
    }
}
