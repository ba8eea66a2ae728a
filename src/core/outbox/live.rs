//! About how many bytes of the journal are alive: what a snapshot would take, without making one. It changes nothing.

use super::events::{Event, State};
use crate::core::about_bytes;

/// What an entry of the msglist takes besides its bytes.
const ENTRY_BESIDES: usize = 20;

impl State {
    /// About how many bytes its snapshot takes.
    pub(super) fn live_bytes(&self) -> u64 {
        let entries = self.list.epochs().flat_map(|epoch| self.list.entries(epoch));
        let entries: usize = entries.map(|entry| entry.len() + ENTRY_BESIDES).sum();
        let gone: usize = self.gone.values().map(|(_, bytes)| bytes.len() + 2 * ENTRY_BESIDES).sum();
        let submissions = about_bytes(self.submissions.iter(), |(id, s)| Event::KeptSubmission(*id, s.clone()));
        let mails = about_bytes(self.mails.values(), |mail| Event::KeptMail(mail.clone()));
        let misses = self.misses.iter();
        let misses = about_bytes(misses, |((member, h), at)| Event::Missed {
            member: *member,
            h: *h,
            at: *at,
            parts: Vec::new(),
        });
        u64::try_from(entries + gone).unwrap_or(u64::MAX).saturating_add(submissions + mails + misses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::few::FewMap;
    use crate::core::outbox::events::{Facts, Submission};
    use crate::model::msglist::{EntryBody, Epoch};
    use crate::model::{PeerId, SubmissionId, WallTime};
    use crate::wire;

    #[test]
    fn it_is_about_what_a_snapshot_takes() {
        let mut state = State::new(PeerId::new([1; 32]));
        assert_eq!(state.live_bytes(), 0);
        state.list.open(Epoch(7));
        for n in 0..1000_u16 {
            let (_, entry) = state.list.next_entry(EntryBody::Unknown { kind: "test".to_owned(), body: vec![7; 300] });
            state.list.append(&entry);
            let mut id = [0; 16];
            id[..2].copy_from_slice(&n.to_be_bytes());
            let message_id = Some("x".repeat(usize::from(n % 50)));
            let facts = Facts { size: u64::from(n), at: WallTime(1), expiry: WallTime(2), message_id };
            state.submissions.insert(SubmissionId::new(id), Submission { facts, receivers: FewMap::default() });
        }
        let exact: usize = state.snapshot().iter().map(|event| wire::encode(event).len()).sum();
        let (exact, about) = (u64::try_from(exact).unwrap(), state.live_bytes());
        assert!(about.abs_diff(exact) < exact / 5, "{about} of {exact}");
    }
}
