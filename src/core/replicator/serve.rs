//! Answers about what is mirrored here: look-ups for the routes, who was served, and members' msglists. It never answers past
//! what is durable, and not before the msglists were read after a start (R7).

use super::Replicator;
use super::owner::{Owner, SERVED_MAX};
use super::types::{Event, KnownMail, Lookup, Reply};
use crate::core::{Effect, Token};
use crate::model::msglist::Cursor;
use crate::model::{Address, MailId, PeerId};

impl Owner {
    fn known(&self, owner: PeerId, h: &MailId) -> Option<KnownMail> {
        let mail = self.mails.get(h)?;
        Some(KnownMail {
            owner,
            address: self.address.clone(),
            length: mail.length,
            digest: mail.digest,
            encoding: mail.encoding,
            parts: mail.held.clone(),
        })
    }
}

impl Replicator {
    pub(super) fn on_lookup(&mut self, token: Token, h: &MailId) {
        let found = self.look_up(h);
        // What was recorded last may be what the answer tells.
        self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Lookup(found))]);
    }
    fn look_up(&self, h: &MailId) -> Lookup {
        let gone = self.owners.iter().find_map(|(_, o)| o.tombstones.get(h));
        if let Some((_, tombstone)) = gone {
            return Lookup::Gone { tombstone: tombstone.to_vec() };
        }
        let is_ready = |o: &Owner| o.follow.is_ready();
        let known = self.owners.iter().filter(|(id, o)| o.mails.contains_key(h) && !self.is_over(id, h));
        // Two owners that name the same h: SHA-1 is a name, no proof. The one of which something is held answers.
        match known.max_by_key(|(_, o)| o.mails.get(h).map_or(0, |mail| mail.held.len())) {
            Some((id, o)) if is_ready(o) => o.known(*id, h).map_or(Lookup::Unknown, Lookup::Known),
            Some(_) => Lookup::NotReady,
            None if self.roster.is_some() && self.owners.iter().all(|(_, o)| is_ready(o)) => Lookup::Unknown,
            None => Lookup::NotReady,
        }
    }

    pub(super) fn on_serving(&mut self, token: Token, h: MailId, caller: PeerId, bytes: u64) {
        let whose = self.owners.iter().find(|(id, o)| {
            let held = o.mails.get(&h).is_some_and(|mail| !mail.held.is_empty());
            held && o.follow.is_ready() && !self.is_over(id, &h)
        });
        let owner = whose.map(|(id, _)| *id);
        let mut batch = Vec::new();
        let may = owner.is_some_and(|owner| self.count_served(owner, h, caller, bytes, &mut batch));
        let reply = Reply::Serve(may);
        if batch.is_empty() {
            self.out.reply(token, reply);
        } else {
            self.out.commit(batch, vec![Effect::Reply(token, reply)]);
        }
    }

    /// Counts bytes about to be served. Recorded the first time, and whenever the count has doubled since.
    fn count_served(&mut self, owner: PeerId, h: MailId, caller: PeerId, bytes: u64, batch: &mut Vec<Event>) -> bool {
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return false };
        let recorded = mail.served.get(&caller).copied();
        if recorded.is_none() && mail.served.len() >= SERVED_MAX {
            return false;
        }
        let total = mail.serving.entry(caller).or_insert_with(|| recorded.unwrap_or(0));
        *total = total.saturating_add(bytes);
        let bytes = *total;
        if recorded.is_none_or(|recorded| bytes / 2 >= recorded.max(1)) {
            self.record(batch, Event::Served { owner, h, caller, bytes });
        }
        true
    }
    /// What was served and not recorded yet, before the parts are reported dropped.
    pub(super) fn flush_served(&mut self, owner: PeerId, h: MailId, batch: &mut Vec<Event>) {
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        for (caller, bytes) in std::mem::take(&mut mail.serving) {
            self.record(batch, Event::Served { owner, h, caller, bytes });
        }
    }

    pub(super) fn on_read_msglist(&mut self, token: Token, address: &Address, since: Cursor) {
        let is_member = |id: &PeerId| self.roster.as_ref().is_some_and(|r| r.has(id));
        let known = self.owners.iter().filter(|(_, o)| o.address == *address);
        let page = known.max_by_key(|(id, _)| is_member(id)).map(|(_, o)| o.list.page(since));
        // Never past what is durable here.
        self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Page(page))]);
    }
}
