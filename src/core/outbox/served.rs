//! To whom this peer serves its own mails, and how much: written down before the first byte goes out, so that a cancel can
//! tell the truth after any crash. It never decides who may have a mail.

use super::events::Event;
use super::io::{Lookup, Reply};
use super::{Batch, Outbox};
use crate::core::Token;
use crate::model::{MailId, PeerId};

/// Most peers that one mail is served to: a mailing to 100 and a group of 100.
const SERVED_MAX: usize = 256;

impl Outbox {
    /// Bytes of an own mail are about to be served; answered once it is on disk to whom.
    pub(super) fn serving(&mut self, token: Token, h: MailId, caller: PeerId) {
        let mut batch = Batch::default();
        if !self.note_serving(&mut batch, h, caller) {
            return self.out.reply(token, Reply::Serve(false));
        }
        // Also when it was recorded before: that may not be durable yet.
        batch.reply(token, Reply::Serve(true));
        self.commit(batch);
    }

    /// The same for several mails, in one record.
    pub(super) fn serving_all(&mut self, token: Token, mails: &[MailId], caller: PeerId) {
        let mut batch = Batch::default();
        let mut known = Vec::with_capacity(mails.len());
        for h in mails {
            known.push(match self.lookup(h) {
                Lookup::Owned(_) if !self.note_serving(&mut batch, *h, caller) => Lookup::Unknown,
                found => found,
            });
        }
        batch.reply(token, Reply::ServeAll(known));
        self.commit(batch);
    }

    /// Records to whom a mail is about to be served; whether it may be.
    fn note_serving(&mut self, batch: &mut Batch, h: MailId, caller: PeerId) -> bool {
        let open = self.as_listed(&h).filter(|(mail, _)| mail.tombstone.is_none());
        let Some((mail, _)) = open else { return false };
        let is_first = mail.served.as_ref().is_some_and(|served| !served.contains_key(&caller));
        if is_first && mail.served.as_ref().is_some_and(|served| served.len() >= SERVED_MAX) {
            return false;
        }
        if is_first {
            self.record(batch, Event::Served { h, caller, bytes: 0 });
        }
        true
    }

    /// Counts bytes that went out. Recorded whenever the count has doubled.
    pub(super) fn served(&mut self, caller: PeerId, mails: &[(MailId, u64)]) {
        let mut batch = Batch::default();
        for (h, bytes) in mails {
            self.count_served(&mut batch, *h, caller, *bytes);
        }
        self.commit(batch);
    }

    fn count_served(&mut self, batch: &mut Batch, h: MailId, caller: PeerId, bytes: u64) {
        let open = self.state.mails.get(&h).filter(|mail| mail.tombstone.is_none());
        let Some(recorded) = open.and_then(|mail| mail.served.as_ref()?.get(&caller).copied()) else {
            self.serving.remove(&(h, caller));
            return;
        };
        let total = self.serving.entry((h, caller)).or_insert(recorded);
        *total = total.saturating_add(bytes);
        let bytes = *total;
        if bytes / 2 >= recorded.max(1) {
            self.record(batch, Event::Served { h, caller, bytes });
        }
    }

    /// A mail is gone: nothing more of it is counted.
    pub(super) fn stop_counting(&mut self, h: MailId) {
        let first = (h, PeerId::new([0; PeerId::LEN]));
        let of_it: Vec<_> = self.serving.range(first..).map(|(which, _)| *which).take_while(|(m, _)| *m == h).collect();
        for which in of_it {
            self.serving.remove(&which);
        }
    }
}
