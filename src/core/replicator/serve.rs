//! Answers about what is mirrored here: look-ups for the routes, who was served, and members' msglists. It never answers past
//! what is durable, and not before the msglists were read after a start (R7).

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::Replicator;
use super::owner::{KnownTombstone, Owner, SERVED_MAX};
use super::types::{Event, KnownMail, Lookup, Reply};
use crate::core::{Effect, Token};
use crate::model::msglist::Cursor;
use crate::model::{Address, MailId, PeerId};

/// Most bytes of tombstones from elsewhere in a page.
const LOOSE_BYTES: usize = 256 * 1024;

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

impl Owner {
    /// The tombstones that its list, as it is known here, does not have; at most [`LOOSE_BYTES`] of them.
    fn loose_tombstones(&self) -> Vec<ByteBuf> {
        let mut room = LOOSE_BYTES;
        let fits = |bytes: &&ByteBuf| {
            room = room.saturating_sub(bytes.len());
            room > 0
        };
        self.unlisted().take_while(fits).cloned().collect()
    }
}

fn may_serve(served: &BTreeMap<PeerId, u64>, caller: &PeerId) -> bool {
    served.contains_key(caller) || served.len() < SERVED_MAX
}

impl Replicator {
    pub(super) fn on_lookup(&mut self, token: Token, h: &MailId) {
        let found = self.look_up(h);
        if let Lookup::Known(KnownMail { owner, .. }) = &found
            && let Some(mail) = self.owners.mail_mut(owner, h)
        {
            mail.asked_before_held |= mail.goal.is_none_or(|goal| !mail.held.contains(&goal));
        }
        // What was recorded last may be what the answer tells.
        self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Lookup(found))]);
    }
    fn look_up(&self, h: &MailId) -> Lookup {
        let is_ready = |o: &Owner| o.follow.is_ready();
        let held = |o: &Owner| o.mails.get(h).map_or(0, |mail| mail.held.len());
        let known = self.owners.iter().filter(|(id, o)| o.mails.contains_key(h) && !self.is_over(id, h));
        // Two owners that name the same h: SHA-1 is a name, no proof. The one of which something is held answers.
        let best = known.max_by_key(|(_, o)| held(o));
        // So a tombstone ends its own owner's mail only (R4): it answers where nothing of another's is held.
        if best.is_none_or(|(_, o)| held(o) == 0)
            && let Some(tombstone) = self.tombstone_of(h, best.is_some())
        {
            return Lookup::Gone { tombstone: tombstone.tombstone.to_vec() };
        }
        match best {
            Some((id, o)) if is_ready(o) => o.known(*id, h).map_or(Lookup::Unknown, Lookup::Known),
            Some(_) => Lookup::NotReady,
            None if self.roster.is_some() && self.owners.iter().all(|(_, o)| is_ready(o)) => Lookup::Unknown,
            None => Lookup::NotReady,
        }
    }

    /// The tombstone that answers for a mail: first one whose owner's list had named it. `only_named`: no other.
    fn tombstone_of(&self, h: &MailId, only_named: bool) -> Option<&KnownTombstone> {
        let all = self.owners.iter().filter_map(|(_, o)| o.tombstones.get(h));
        all.filter(|t| t.named || !only_named).max_by_key(|t| t.named)
    }

    pub(super) fn on_serving(&mut self, token: Token, h: MailId, caller: PeerId) {
        let whose = self.owners.iter().find(|(id, o)| {
            let held = o.mails.get(&h).is_some_and(|mail| !mail.held.is_empty());
            held && o.follow.is_ready() && !self.is_over(id, &h)
        });
        if whose.is_some_and(|(id, _)| *id == caller) {
            // Its owner has it anyway; an audit is written nowhere (R12).
            return self.out.reply(token, Reply::Serve(true));
        }
        let served = whose.and_then(|(id, o)| Some((*id, &o.mails.get(&h)?.served)));
        let reply = Effect::Reply(token, Reply::Serve(served.is_some_and(|(_, to)| may_serve(to, &caller))));
        let first =
            served.filter(|(_, to)| may_serve(to, &caller) && !to.contains_key(&caller)).map(|(owner, _)| owner);
        let mut batch = Vec::new();
        if let Some(owner) = first {
            self.record(&mut batch, Event::Served { owner, h, caller, bytes: 0 });
        }
        // Also when it was recorded before: that may not be durable yet.
        self.out.commit(batch, vec![reply]);
    }

    /// Counts bytes that went out. Recorded whenever the count has doubled.
    pub(super) fn on_served(&mut self, h: MailId, caller: PeerId, bytes: u64) {
        let mut batch = Vec::new();
        for owner in self.owners.ids() {
            let Some(mail) = self.owners.mail_mut(&owner, &h) else { continue };
            let Some(recorded) = mail.served.get(&caller).copied() else { continue };
            let total = mail.serving.entry(caller).or_insert(recorded);
            *total = total.saturating_add(bytes);
            let bytes = *total;
            if bytes / 2 >= recorded.max(1) {
                self.record(&mut batch, Event::Served { owner, h, caller, bytes });
            }
        }
        self.commit(batch, Vec::new());
    }
    /// What was served and not recorded yet, before the parts are reported dropped.
    pub(super) fn flush_served(&mut self, owner: PeerId, h: MailId, batch: &mut Vec<Event>) {
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        for (caller, bytes) in std::mem::take(&mut mail.serving) {
            self.record(batch, Event::Served { owner, h, caller, bytes });
        }
    }

    pub(super) fn on_read_msglist(&mut self, token: Token, address: &Address, since: Cursor, caller: &PeerId) {
        let is_member = |id: &PeerId| self.roster.as_ref().is_some_and(|r| r.has(id));
        let known = self.owners.iter().filter(|(_, o)| o.address == *address);
        let page = known.max_by_key(|(id, _)| is_member(id)).map(|(id, o)| {
            let mut page = if id == caller { o.list.page_for_its_owner(since) } else { o.list.page(since) };
            if !page.more {
                page.tombstones = o.loose_tombstones();
            }
            page
        });
        // Never past what is durable here.
        self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Page(page))]);
    }
}
