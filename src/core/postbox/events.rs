//! What the postbox makes durable, and the state that replaying it gives. Applying an event asks for nothing and never fails;
//! each event is whole in itself, so that a torn journal leaves no half of a change.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::access::{BodyState, Flag, FlagChange, MailboxName, MessageKey, Standard};
use super::state::{
    LocalMailbox, Mail, MailKey, MailboxId, NrState, Offer, Origin, PerView, Runs, Slot, Stage, State, Stored, Verdict,
};
use crate::core::few::FewSet;
use crate::model::notification::{Outcome, Refusal};
use crate::model::{Address, Fingerprint, MailId, PeerId, SubmissionId, WallTime};

/// Messages of a mailbox in one event of a compacted journal.
const SLOTS_AT_ONCE: usize = 10_000;
/// UIDs that are left out after a restore: more than any mailbox got since the backup, and room for 4000 restores.
const RESTORED_UIDS: u32 = 1 << 20;

/// What the postbox makes durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the types in `state`")]
pub enum Event {
    /// A mailbox was made; subscribed, with these two UIDVALIDITY.
    #[serde(rename = "mm")]
    MailboxMade { id: MailboxId, name: MailboxName, validity: PerView },
    /// A mailbox was removed with its messages.
    #[serde(rename = "mg")]
    MailboxGone { id: MailboxId, at: WallTime },
    /// Mailboxes have other names.
    #[serde(rename = "mn")]
    MailboxesNamed(Vec<(MailboxId, MailboxName)>),
    /// A mailbox was subscribed or unsubscribed.
    #[serde(rename = "ms")]
    Subscribed { id: MailboxId, yes: bool },
    /// A message of the user's or of this peer's own.
    #[serde(rename = "f")]
    Filed { key: MessageKey, message: Stored, mailbox: MailboxId, flags: BTreeSet<Flag> },
    /// Messages were copied, in the order of their UIDs.
    #[serde(rename = "c")]
    Copied { from: MailboxId, uids: Runs, to: MailboxId },
    /// Messages were moved, in the order of their UIDs.
    #[serde(rename = "v")]
    Moved { from: MailboxId, uids: Runs, to: MailboxId },
    /// Flags were changed.
    #[serde(rename = "g")]
    Flagged { mailbox: MailboxId, uids: Runs, change: Change, flags: BTreeSet<Flag> },
    /// Messages were removed. A stub or card that is in no mailbox any more is thereby refused.
    #[serde(rename = "x")]
    Expunged { mailbox: MailboxId, uids: Runs, at: WallTime },
    /// A mail was announced: a stub in INBOX, a card in Requests with the stub behind it, or refused at once.
    #[serde(rename = "n")]
    Announced { id: MailKey, mail: Box<Mail>, card: Option<(MessageKey, u64)> },
    /// Another sealed form of a known mail was announced.
    #[serde(rename = "o")]
    Offered { id: MailKey, offer: Offer },
    /// The user judged a sender.
    #[serde(rename = "j")]
    Judged { sender: Fingerprint, address: Address, verdict: Verdict, at: WallTime },
    /// Own mail was written to these certificates: they are known senders from now on.
    #[serde(rename = "w")]
    WroteTo(Vec<Fingerprint>),
    /// The body of a mail is here, verified: received, and an nr owed.
    #[serde(rename = "p")]
    Pulled { id: MailKey, at: WallTime },
    /// The body of an own mail in Outbox is here.
    #[serde(rename = "b")]
    BodyHere { key: MessageKey },
    /// A mail is not taken: an nr is owed.
    #[serde(rename = "r")]
    Refused { id: MailKey, why: Refusal, at: WallTime },
    /// A mail can never be had.
    #[serde(rename = "e")]
    Ended { id: MailKey, body: BodyState },
    /// A mail was ended by a clock that was ahead, and lives.
    #[serde(rename = "V")]
    Revived { id: MailKey },
    /// A mail whose ns never came was taken back.
    #[serde(rename = "y")]
    Buried { owner: PeerId, h: MailId, until: WallTime },
    /// Where the nr about an offer is now.
    #[serde(rename = "k")]
    Nr { id: MailKey, h: MailId, state: NrState },
    /// A mail's time is long over.
    #[serde(rename = "z")]
    Forgotten { id: MailKey },
    /// An own submission waits no more.
    #[serde(rename = "d")]
    OutgoingDone { submission: SubmissionId },
    /// This home was restored from a backup: UIDs given out since then are not given out again.
    #[serde(rename = "R")]
    Restored,
    /// Of a compacted journal: a mailbox without its messages.
    #[serde(rename = "K1")]
    KeptMailbox { id: MailboxId, name: MailboxName, subscribed: bool, validity: PerView, next: PerView },
    /// Of a compacted journal: messages of a mailbox. Comes after the messages.
    #[serde(rename = "K2")]
    KeptSlots { id: MailboxId, slots: Vec<(u32, Slot)> },
    /// Of a compacted journal: a message.
    #[serde(rename = "K3")]
    KeptMessage { key: MessageKey, message: Stored },
    /// Of a compacted journal: an incoming mail.
    #[serde(rename = "K4")]
    KeptMail { id: MailKey, mail: Box<Mail> },
    /// Of a compacted journal: something that was filed once.
    #[serde(rename = "K5")]
    KeptLocal { id: SubmissionId, mailbox: Standard, at: WallTime },
    /// Of a compacted journal: an own submission that the user deleted in Outbox.
    #[serde(rename = "K6")]
    KeptHidden { submission: SubmissionId },
    /// Of a compacted journal: the counters, never to go back.
    #[serde(rename = "K7")]
    KeptCounters { key: u64, mailbox: u32, validity: u32 },
}

/// How flags were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Added.
    #[serde(rename = "+")]
    Add,
    /// Removed.
    #[serde(rename = "-")]
    Remove,
    /// Replaced.
    #[serde(rename = "=")]
    Replace,
}

impl From<FlagChange> for Change {
    fn from(change: FlagChange) -> Self {
        match change {
            FlagChange::Add => Change::Add,
            FlagChange::Remove => Change::Remove,
            FlagChange::Replace => Change::Replace,
        }
    }
}

/// What followed from events, for the brain to act on.
#[derive(Debug, Default)]
pub(super) struct Consequences {
    /// Messages whose files are not needed any more.
    pub(super) dead: Vec<MessageKey>,
    /// Mails that were concluded: an nr is owed.
    pub(super) concluded: Vec<MailKey>,
    /// Sealed mails that are not to be pulled any more.
    pub(super) over: Vec<Offer>,
    /// Own submissions that the user deleted in Outbox.
    pub(super) cancelled: Vec<SubmissionId>,
    /// Mailboxes that changed.
    pub(super) touched: BTreeSet<MailboxId>,
    /// UID before and after, in the view of stubs, of what was copied, moved or filed.
    pub(super) placed: Vec<(u32, u32)>,
}

impl State {
    /// Applies an event. What it names and is not there is passed over.
    pub(super) fn apply(&mut self, event: &Event, out: &mut Consequences) {
        match event {
            Event::MailboxMade { id, name, validity } => {
                let next = PerView(1, 1);
                self.make(*id, name, LocalMailbox { subscribed: true, validity: *validity, next, ..<_>::default() });
            }
            Event::MailboxGone { id, at } => self.remove_mailbox(*id, *at, out),
            Event::MailboxesNamed(all) => self.rename(all),
            Event::Subscribed { id, yes } => {
                if let Some(mailbox) = self.mailboxes.get_mut(id) {
                    mailbox.subscribed = *yes;
                }
            }
            Event::Filed { key, message, mailbox, flags } => self.file(*key, message, *mailbox, flags, out),
            Event::Copied { from, uids, to } => self.transfer(*from, uids, *to, false, out),
            Event::Moved { from, uids, to } => self.transfer(*from, uids, *to, true, out),
            Event::Flagged { mailbox, uids, change, flags } => self.flag(*mailbox, uids, *change, flags, out),
            Event::Expunged { mailbox, uids, at } => {
                for uid in uids.iter() {
                    self.take_out(*mailbox, uid, *at, out);
                }
            }
            Event::Announced { id, mail, card } => self.announced(*id, mail, *card, out),
            Event::Offered { id, offer } => self.offered(*id, offer),
            Event::Judged { sender, address, verdict, at } => self.judged(*sender, address, *verdict, *at, out),
            Event::WroteTo(certificates) => self.wrote_to.extend(certificates),
            Event::Pulled { id, at } => {
                if let Some(key) = self.mails.get(id).and_then(|m| m.message) {
                    self.body_here(key, out);
                }
                self.conclude(*id, Outcome::Received, *at, out);
            }
            Event::BodyHere { key } => self.body_here(*key, out),
            Event::Refused { id, why, at } => self.conclude(*id, Outcome::Refused(*why), *at, out),
            Event::Ended { id, body } => self.ended(*id, *body, out),
            Event::Revived { id } => self.revived(*id, out),
            Event::Buried { owner, h, until } => {
                self.buried.insert((*owner, *h), *until);
            }
            Event::Nr { id, h, state } => {
                if let Some(offer) = self.mails.get_mut(id).and_then(|m| m.offer_mut(h)) {
                    offer.nr = *state;
                }
            }
            Event::Forgotten { id } => self.forget(*id),
            Event::OutgoingDone { submission } => {
                if let Some(Some(key)) = self.outgoing.remove(submission) {
                    self.take_out_everywhere(key, WallTime::default(), out);
                }
            }
            Event::Restored => self.skip_uids(),
            kept => self.apply_kept(kept),
        }
    }

    /// A mail program that saw newer messages must not take another one for them, which has their UID.
    fn skip_uids(&mut self) {
        for mailbox in self.mailboxes.values_mut() {
            let PerView(stubs, full) = mailbox.next;
            mailbox.next = PerView(stubs.saturating_add(RESTORED_UIDS), full.saturating_add(RESTORED_UIDS));
        }
    }

    fn apply_kept(&mut self, event: &Event) {
        match event {
            Event::KeptMailbox { id, name, subscribed, validity, next } => {
                let mailbox = LocalMailbox { subscribed: *subscribed, validity: *validity, ..<_>::default() };
                self.make(*id, name, LocalMailbox { next: *next, ..mailbox });
            }
            Event::KeptSlots { id, slots } => {
                let Some(mailbox) = self.mailboxes.get_mut(id) else { return };
                for (uid, slot) in slots {
                    if let Some(message) = self.messages.get_mut(&slot.key) {
                        message.places.push((*id, *uid));
                        mailbox.full.extend(slot.full.map(|full| (full, *uid)));
                        mailbox.slots.insert(*uid, slot.clone());
                    }
                }
            }
            Event::KeptMessage { key, message } => self.insert_message(*key, message),
            Event::KeptMail { id, mail } => {
                self.by_h.extend(mail.offers.iter().map(|o| (o.h, *id)));
                self.mails.insert(*id, (**mail).clone());
            }
            Event::KeptLocal { id, mailbox, at } => {
                self.local.insert((*id, *mailbox), *at);
            }
            Event::KeptHidden { submission } => {
                self.outgoing.insert(*submission, None);
            }
            Event::KeptCounters { key, mailbox, validity } => {
                self.next_key = self.next_key.max(*key);
                self.next_mailbox = self.next_mailbox.max(*mailbox);
                self.next_validity = self.next_validity.max(*validity);
            }
            // Every other kind is applied above.
            _ => {}
        }
    }

    fn make(&mut self, id: MailboxId, name: &MailboxName, mailbox: LocalMailbox) {
        self.next_mailbox = self.next_mailbox.max(id.0.saturating_add(1));
        self.next_validity = self.next_validity.max(mailbox.validity.0.max(mailbox.validity.1).saturating_add(1));
        self.names.insert(name.clone(), id);
        self.mailboxes.insert(id, LocalMailbox { name: name.as_str().to_owned(), ..mailbox });
    }

    fn rename(&mut self, all: &[(MailboxId, MailboxName)]) {
        let moved: BTreeSet<MailboxId> = all.iter().map(|(id, _)| *id).collect();
        self.names.retain(|_, id| !moved.contains(id));
        for (id, name) in all {
            if let Some(mailbox) = self.mailboxes.get_mut(id) {
                name.as_str().clone_into(&mut mailbox.name);
                self.names.insert(name.clone(), *id);
            }
        }
    }

    fn remove_mailbox(&mut self, id: MailboxId, at: WallTime, out: &mut Consequences) {
        let uids: Vec<u32> = self.mailboxes.get(&id).map(|m| m.slots.keys().copied().collect()).unwrap_or_default();
        for uid in uids {
            self.take_out(id, uid, at, out);
        }
        self.mailboxes.remove(&id);
        self.names.retain(|_, other| *other != id);
    }

    fn insert_message(&mut self, key: MessageKey, message: &Stored) {
        self.next_key = self.next_key.max(key.0.saturating_add(1));
        match &message.origin {
            Origin::Outgoing(submission) => {
                self.outgoing.insert(*submission, Some(key));
            }
            Origin::Local(id, mailbox) => {
                self.local.insert((*id, *mailbox), message.date);
            }
            Origin::Appended | Origin::Mail(_) | Origin::Card(_) | Origin::Candidate(..) => {}
        }
        self.messages.insert(key, message.clone());
    }

    fn file(
        &mut self,
        key: MessageKey,
        message: &Stored,
        mailbox: MailboxId,
        flags: &BTreeSet<Flag>,
        out: &mut Consequences,
    ) {
        self.insert_message(key, message);
        if let Some(uid) = self.place(mailbox, key, flags.iter().cloned().collect(), out) {
            out.placed.push((uid, uid));
        } else {
            // Its mailbox went meanwhile, and with it what was to be filed there.
            self.messages.remove(&key);
            out.dead.push(key);
        }
    }

    /// Puts a message into a mailbox: the next UID, and in the full view too when its body is here.
    fn place(&mut self, id: MailboxId, key: MessageKey, flags: FewSet<Flag>, out: &mut Consequences) -> Option<u32> {
        let (mailbox, message) = (self.mailboxes.get_mut(&id)?, self.messages.get_mut(&key)?);
        let uid = mailbox.next.0;
        mailbox.next.0 = uid.checked_add(1)?;
        let mut full = None;
        if message.body == BodyState::Here {
            full = Some(mailbox.next.1);
            mailbox.full.insert(mailbox.next.1, uid);
            mailbox.next.1 = mailbox.next.1.checked_add(1)?;
        }
        mailbox.slots.insert(uid, Slot { key, flags, full });
        message.places.push((id, uid));
        self.touch(id, out);
        Some(uid)
    }

    pub(super) fn touch(&mut self, id: MailboxId, out: &mut Consequences) {
        self.version += 1;
        if let Some(mailbox) = self.mailboxes.get_mut(&id) {
            mailbox.version = self.version;
        }
        out.touched.insert(id);
    }

    fn transfer(&mut self, from: MailboxId, uids: &Runs, to: MailboxId, moves: bool, out: &mut Consequences) {
        for uid in uids.iter() {
            let Some(slot) = self.mailboxes.get(&from).and_then(|m| m.slots.get(&uid)) else { continue };
            let (key, flags) = (slot.key, slot.flags.clone());
            if let Some(placed) = self.place(to, key, flags, out) {
                out.placed.push((uid, placed));
                if moves {
                    self.take_out(from, uid, WallTime::default(), out);
                }
            }
        }
    }

    fn flag(&mut self, id: MailboxId, uids: &Runs, change: Change, flags: &BTreeSet<Flag>, out: &mut Consequences) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        for uid in uids.iter() {
            let Some(slot) = mailbox.slots.get_mut(&uid) else { continue };
            slot.flags = match change {
                Change::Add => slot.flags.iter().chain(flags).cloned().collect(),
                Change::Remove => slot.flags.iter().filter(|flag| !flags.contains(*flag)).cloned().collect(),
                Change::Replace => flags.iter().cloned().collect(),
            };
        }
        self.touch(id, out);
    }

    /// Takes a message out of one mailbox. Gone from the last one, it is gone; what was not read yet is refused by that.
    pub(super) fn take_out(&mut self, id: MailboxId, uid: u32, at: WallTime, out: &mut Consequences) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
        let Some(slot) = mailbox.slots.remove(&uid) else { return };
        if let Some(full) = slot.full {
            mailbox.full.remove(&full);
        }
        self.touch(id, out);
        let Some(message) = self.messages.get_mut(&slot.key) else { return };
        message.places.retain(|place| *place != (id, uid));
        if message.places.is_empty() {
            let origin = message.origin.clone();
            self.messages.remove(&slot.key);
            out.dead.push(slot.key);
            self.died(origin, at, out);
        }
    }

    fn take_out_everywhere(&mut self, key: MessageKey, at: WallTime, out: &mut Consequences) {
        let places = self.messages.get(&key).map(|m| m.places.clone()).unwrap_or_default();
        for (id, uid) in places {
            self.take_out(id, uid, at, out);
        }
    }

    fn died(&mut self, origin: Origin, at: WallTime, out: &mut Consequences) {
        match origin {
            Origin::Mail(id) => {
                if let Some(mail) = self.mails.get_mut(&id) {
                    mail.message = None;
                }
                self.conclude(id, Outcome::Refused(Refusal::Unread), at, out);
            }
            Origin::Card(id) => {
                if let Some(mail) = self.mails.get_mut(&id) {
                    mail.card = None;
                    if mail.stage == Stage::Requested {
                        self.conclude(id, Outcome::Refused(Refusal::Unread), at, out);
                    }
                }
            }
            Origin::Outgoing(submission) => {
                if let Some(shown) = self.outgoing.get_mut(&submission) {
                    *shown = None;
                    out.cancelled.push(submission);
                }
            }
            Origin::Appended | Origin::Local(..) | Origin::Candidate(..) => {}
        }
    }

    /// Gives a mail that is open its outcome. One that is refused has no message any more, but a mismatch and a stub whose
    /// sender was refused are taken out too.
    fn conclude(&mut self, id: MailKey, outcome: Outcome, at: WallTime, out: &mut Consequences) {
        let Some(mail) = self.mails.get_mut(&id).filter(|m| m.is_open()) else { return };
        mail.stage = Stage::Concluded(outcome, at);
        mail.offers.iter_mut().for_each(|offer| offer.nr = NrState::Owed);
        out.over.extend(mail.offers.iter().cloned());
        out.concluded.push(id);
        if outcome != Outcome::Received {
            self.drop_message(id, at, out);
        }
    }

    /// Removes the message of a mail, also one that is in no mailbox yet.
    fn drop_message(&mut self, id: MailKey, at: WallTime, out: &mut Consequences) {
        let Some(key) = self.mails.get_mut(&id).and_then(|m| m.message.take()) else { return };
        self.take_out_everywhere(key, at, out);
        if self.messages.remove(&key).is_some() {
            out.dead.push(key);
        }
    }

    fn announced(&mut self, id: MailKey, mail: &Mail, card: Option<(MessageKey, u64)>, out: &mut Consequences) {
        if self.mails.contains_key(&id) {
            return;
        }
        self.by_h.extend(mail.offers.iter().map(|o| (o.h, id)));
        self.mails.insert(id, mail.clone());
        if let Some(key) = mail.message {
            self.insert_message(key, &Stored::new(Origin::Mail(id), mail.arrived, mail.size, BodyState::Absent));
        }
        match (mail.stage, mail.message, card) {
            (Stage::Stub, Some(key), _) => {
                let inbox = self.standard(Standard::Inbox);
                inbox.and_then(|inbox| self.place(inbox, key, FewSet::default(), out));
            }
            (Stage::Requested, _, Some((card, size))) => {
                self.insert_message(card, &Stored::new(Origin::Card(id), mail.arrived, size, BodyState::Here));
                let requests = self.standard(Standard::Requests);
                requests.and_then(|requests| self.place(requests, card, FewSet::default(), out));
            }
            (Stage::Concluded(..), _, _) => out.concluded.push(id),
            _ => {}
        }
    }

    fn offered(&mut self, id: MailKey, offer: &Offer) {
        let Some(mail) = self.mails.get_mut(&id) else { return };
        let nr = if matches!(mail.stage, Stage::Concluded(..)) { NrState::Owed } else { NrState::None };
        self.by_h.insert((offer.h, id));
        mail.offers.push(Offer { nr, ..offer.clone() });
    }

    fn judged(
        &mut self,
        sender: Fingerprint,
        address: &Address,
        verdict: Verdict,
        at: WallTime,
        out: &mut Consequences,
    ) {
        self.verdicts.insert(sender, (address.clone(), verdict));
        if verdict == Verdict::Withdrawn {
            return;
        }
        let waiting: Vec<MailKey> = self.requests(Some(sender)).map(|(id, _)| *id).collect();
        for id in waiting {
            if verdict == Verdict::Granted {
                self.accept(id, at, out);
            } else {
                self.conclude(id, Outcome::Refused(Refusal::Sender), at, out);
                self.drop_card(id, at, out);
            }
        }
    }

    fn accept(&mut self, id: MailKey, at: WallTime, out: &mut Consequences) {
        let Some(mail) = self.mails.get_mut(&id) else { return };
        mail.stage = Stage::Stub;
        let message = mail.message;
        if let (Some(inbox), Some(key)) = (self.standard(Standard::Inbox), message) {
            self.place(inbox, key, FewSet::default(), out);
        }
        self.drop_card(id, at, out);
    }

    /// Takes a card out of Requests; one that the user filed elsewhere stays there as a note.
    fn drop_card(&mut self, id: MailKey, at: WallTime, out: &mut Consequences) {
        let Some(key) = self.mails.get(&id).and_then(|m| m.card) else { return };
        let requests = self.standard(Standard::Requests);
        let places = self.messages.get(&key).map(|m| m.places.clone()).unwrap_or_default();
        for (mailbox, uid) in places.into_iter().filter(|(mailbox, _)| Some(*mailbox) == requests) {
            self.take_out(mailbox, uid, at, out);
        }
    }

    fn body_here(&mut self, key: MessageKey, out: &mut Consequences) {
        let Some(message) = self.messages.get_mut(&key).filter(|m| m.body != BodyState::Here) else { return };
        message.body = BodyState::Here;
        for (id, uid) in message.places.clone() {
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            if let Some(slot) = mailbox.slots.get_mut(&uid) {
                slot.full = Some(mailbox.next.1);
                mailbox.full.insert(mailbox.next.1, uid);
                mailbox.next.1 = mailbox.next.1.saturating_add(1);
            }
            self.touch(id, out);
        }
    }

    fn ended(&mut self, id: MailKey, body: BodyState, out: &mut Consequences) {
        let Some(mail) = self.mails.get_mut(&id).filter(|m| m.is_open()) else { return };
        let asked = mail.stage == Stage::Requested;
        mail.stage = Stage::Gone(body);
        out.over.extend(mail.offers.iter().cloned());
        let at = mail.arrived;
        if asked {
            self.drop_card(id, at, out);
            self.drop_message(id, at, out);
            return;
        }
        let Some(message) = mail.message.and_then(|key| self.messages.get_mut(&key)) else { return };
        message.body = body;
        for (mailbox, _) in message.places.clone() {
            self.touch(mailbox, out);
        }
    }

    fn forget(&mut self, id: MailKey) {
        let Some(mail) = self.mails.remove(&id) else { return };
        for offer in &mail.offers {
            self.by_h.remove(&(offer.h, id));
        }
    }

    /// Events that bring an empty state to this one.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, id) in &self.names {
            let Some(mailbox) = self.mailboxes.get(id) else { continue };
            let LocalMailbox { subscribed, validity, next, .. } = mailbox;
            let (id, name) = (*id, name.clone());
            events.push(Event::KeptMailbox { id, name, subscribed: *subscribed, validity: *validity, next: *next });
        }
        let message = |(key, stored): (&MessageKey, &Stored)| Event::KeptMessage {
            key: *key,
            message: Stored { places: Vec::new(), ..stored.clone() },
        };
        events.extend(self.messages.iter().map(message));
        for (id, mailbox) in &self.mailboxes {
            let all: Vec<(u32, Slot)> = mailbox.slots.iter().map(|(uid, slot)| (*uid, slot.clone())).collect();
            events.extend(all.chunks(SLOTS_AT_ONCE).map(|slots| Event::KeptSlots { id: *id, slots: slots.to_vec() }));
        }
        let mail = |(id, mail): (&MailKey, &Mail)| Event::KeptMail { id: *id, mail: Box::new(mail.clone()) };
        events.extend(self.mails.iter().map(mail));
        for (sender, (address, verdict)) in &self.verdicts {
            // Comes after the mails and moves none: a granted or refused sender has no waiting request.
            let (sender, address, verdict) = (*sender, address.clone(), *verdict);
            events.push(Event::Judged { sender, address, verdict, at: WallTime::default() });
        }
        let wrote_to: Vec<Fingerprint> = self.wrote_to.iter().copied().collect();
        events.extend(wrote_to.chunks(SLOTS_AT_ONCE).map(|some| Event::WroteTo(some.to_vec())));
        let local = |((id, mailbox), at): (&(SubmissionId, Standard), &WallTime)| Event::KeptLocal {
            id: *id,
            mailbox: *mailbox,
            at: *at,
        };
        events.extend(self.local.iter().map(local));
        let hidden = self.outgoing.iter().filter(|(_, shown)| shown.is_none());
        events.extend(hidden.map(|(submission, _)| Event::KeptHidden { submission: *submission }));
        let buried =
            |((owner, h), until): (&(PeerId, MailId), &WallTime)| Event::Buried { owner: *owner, h: *h, until: *until };
        events.extend(self.buried.iter().map(buried));
        let (key, mailbox, validity) = (self.next_key, self.next_mailbox, self.next_validity);
        events.push(Event::KeptCounters { key, mailbox, validity });
        events
    }
}
