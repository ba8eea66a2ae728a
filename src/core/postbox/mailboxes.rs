//! What a mail program asks of its mailboxes. Every answer waits until all it shows is durable, so that no UID that was seen
//! is given to another message after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::access::{
    BodyState, Flag, FlagChange, MailboxFailure, MailboxInfo, MailboxName, MailboxReply, MailboxRequest, Message,
    MessageKey, Standard, Uid, View,
};
use super::change::Changed;
use super::state::{LocalMailbox, MailboxId, Origin, PerView, Runs, Slot, Stored, Verdict};
use super::{Action, Event, Postbox, Reply, Writing};
use crate::core::{Effect, Token};
use crate::model::{Address, Fingerprint, GroupName, Now, WallTime};

/// Mailboxes of one user.
const MAILBOXES_MAX: usize = 1000;
/// Messages of one user.
const MESSAGES_MAX: usize = 1_000_000;
/// Flags and keywords of one message.
const FLAGS_MAX: usize = 64;
/// Bytes of one keyword.
const KEYWORD_MAX: usize = 64;

/// A mail program's message that is being written.
#[derive(Debug)]
pub(super) struct Appending {
    mailbox: MailboxId,
    flags: BTreeSet<Flag>,
    date: WallTime,
}

type Answer = Result<MailboxReply, MailboxFailure>;

fn cannot(why: &str) -> MailboxFailure {
    MailboxFailure::Cannot(why.to_owned())
}

/// Which of the standard mailboxes this is.
fn standard_of(name: &str) -> Option<Standard> {
    Standard::ALL.into_iter().find(|which| which.name() == name)
}

/// Keywords that say what the peer knows, and that nobody else sets.
fn is_servers_own(flag: &Flag) -> bool {
    let Flag::Keyword(word) = flag else { return false };
    let own = ["$Sealed", "$Announced", "$Unsafe", "$Cancelled", "$Expired"];
    let safe = word.strip_prefix("$Safe").is_some_and(|f| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit()));
    safe || own.contains(&word.as_str())
}

/// The name one level up.
fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(parent, _)| parent)
}

/// What of `name` is below `above`, if it is.
fn below<'a>(name: &'a str, above: &str) -> Option<&'a str> {
    name.strip_prefix(above)?.strip_prefix('/')
}

impl Postbox {
    pub(super) fn request(&mut self, now: Now, token: Token, view: View, request: MailboxRequest) {
        let done = match request {
            MailboxRequest::List => Ok(MailboxReply::Mailboxes(self.list(view))),
            MailboxRequest::Open(name) => self.opened_mailbox(view, &name),
            MailboxRequest::OpenUnless { mailbox, version } => match self.find(&mailbox) {
                Ok((_, known)) if known.version == version => Ok(MailboxReply::Unchanged),
                _ => self.opened_mailbox(view, &mailbox),
            },
            MailboxRequest::Body { mailbox, uid } => return self.open_body(now, token, view, &mailbox, uid),
            MailboxRequest::Progress { key } => return self.progress(token, key),
            MailboxRequest::Append { mailbox, file, flags, internal_date } => {
                let date = internal_date.unwrap_or(now.wall);
                return self.append(token, view, &mailbox, file, flags, date);
            }
            MailboxRequest::Flags { mailbox, uids, change, flags } => {
                return self.change_flags(token, view, &mailbox, &uids, change, flags);
            }
            MailboxRequest::Copy { mailbox, uids, to } => {
                return self.transfer(now, token, view, (&mailbox, &uids, &to), false);
            }
            MailboxRequest::Move { mailbox, uids, to } => {
                return self.transfer(now, token, view, (&mailbox, &uids, &to), true);
            }
            MailboxRequest::Expunge { mailbox, uids } => {
                return self.expunge(now, token, view, &mailbox, uids.as_deref());
            }
            MailboxRequest::Create(name) => return self.events_or(token, |brain| brain.create(now, &name)),
            MailboxRequest::Delete(name) => return self.events_or(token, |brain| brain.delete(now, &name)),
            MailboxRequest::Rename { from, to } => return self.events_or(token, |brain| brain.rename(now, &from, &to)),
            MailboxRequest::Subscribe { mailbox, subscribed } => {
                return self.events_or(token, |brain| brain.subscribe(&mailbox, subscribed));
            }
        };
        self.answer(token, done);
    }

    /// Answers once what is shown is durable.
    fn answer(&mut self, token: Token, answer: Answer) {
        let reply = reply_to(token, answer);
        self.out.commit(Vec::new(), vec![reply]);
    }

    fn answer_after(&mut self, change: Changed, token: Token, reply: MailboxReply) {
        self.durable(change, vec![reply_to(token, Ok(reply))]);
    }

    /// Makes the events durable and says that it is done, or says why there are none.
    fn events_or(&mut self, token: Token, plan: impl FnOnce(&mut Self) -> Result<Vec<Event>, MailboxFailure>) {
        match plan(self) {
            Ok(events) => {
                let change = self.change(events);
                self.answer_after(change, token, MailboxReply::Done);
            }
            Err(failure) => self.answer(token, Err(failure)),
        }
    }

    fn find(&self, name: &MailboxName) -> Result<(MailboxId, &LocalMailbox), MailboxFailure> {
        self.state.mailbox(name).ok_or_else(|| MailboxFailure::NoMailbox(name.clone()))
    }

    fn list(&self, view: View) -> Vec<MailboxInfo> {
        let info = |(name, id)| self.state.mailboxes.get(id).map(|mailbox| info(name, mailbox, view));
        self.state.names.iter().filter_map(info).collect()
    }

    fn opened_mailbox(&self, view: View, name: &MailboxName) -> Answer {
        let (_, mailbox) = self.find(name)?;
        let messages = match view {
            View::Stubs => mailbox.slots.iter().filter_map(|(uid, slot)| self.message(*uid, slot)).collect(),
            View::Full => {
                let slot = |(full, uid): (&u32, &u32)| self.message(*full, mailbox.slots.get(uid)?);
                mailbox.full.iter().filter_map(slot).collect()
            }
        };
        Ok(MailboxReply::Opened { info: info(name, mailbox, view), messages })
    }

    /// A message as it is listed: its own flags, and what the peer says of it.
    fn message(&self, uid: u32, slot: &Slot) -> Option<Message> {
        let stored = self.state.messages.get(&slot.key)?;
        let mut flags: BTreeSet<Flag> = slot.flags.iter().cloned().collect();
        match stored.body {
            BodyState::Cancelled => drop(flags.insert(Flag::Keyword("$Cancelled".to_owned()))),
            BodyState::Expired => drop(flags.insert(Flag::Keyword("$Expired".to_owned()))),
            BodyState::Here | BodyState::Absent => {}
        }
        if let Origin::Outgoing(submission) = &stored.origin {
            flags.extend(self.outbox.keywords(submission));
        }
        let (internal_date, size, body) = (stored.date, stored.size, stored.body);
        Some(Message { uid: Uid(uid), key: slot.key, flags, internal_date, size, body })
    }

    fn open_body(&mut self, now: Now, token: Token, view: View, name: &MailboxName, uid: Uid) {
        let key = self.find(name).and_then(|(_, mailbox)| {
            let slot = mailbox.slot_of(view, uid).and_then(|uid| mailbox.slots.get(&uid));
            slot.map(|slot| slot.key).ok_or(MailboxFailure::NoMessage)
        });
        match key {
            Ok(key) => self.body(now, token, key),
            Err(failure) => self.answer(token, Err(failure)),
        }
    }

    fn append(
        &mut self,
        token: Token,
        view: View,
        name: &MailboxName,
        file: PathBuf,
        mut flags: BTreeSet<Flag>,
        date: WallTime,
    ) {
        flags.retain(|flag| !is_servers_own(flag));
        let room = self.state.messages.len() + self.writing.len() < MESSAGES_MAX;
        let checked = self.target(name).and_then(|id| bounded(&flags).map(|()| id));
        let refused = match checked {
            Ok(id) if room => {
                let key = self.allot();
                self.writing.insert(key, Writing::Append(token, view, Appending { mailbox: id, flags, date }));
                return self.out.act(Action::Adopt { key, file });
            }
            Ok(_) => MailboxFailure::Limit(format!("there are {MESSAGES_MAX} messages already; delete some")),
            Err(failure) => failure,
        };
        self.out.act(Action::Discard { file });
        self.answer(token, Err(refused));
    }

    /// The mailbox of this name, if a mail program may put messages there.
    fn target(&self, name: &MailboxName) -> Result<MailboxId, MailboxFailure> {
        let (id, mailbox) = self.find(name)?;
        match standard_of(&mailbox.name) {
            Some(Standard::Requests) => Err(cannot("only this peer puts messages into Requests")),
            Some(Standard::Outbox) => Err(cannot("only this peer puts messages into Outbox; submit them by SMTP")),
            _ => Ok(id),
        }
    }

    pub(super) fn appended(&mut self, token: Token, view: View, key: MessageKey, size: u64, what: Appending) {
        let Appending { mailbox, flags, date } = what;
        let message = Stored::new(Origin::Appended, date, size, BodyState::Here);
        let change = self.change(vec![Event::Filed { key, message, mailbox, flags }]);
        let placed = change.seen.placed.first().map(|(_, uid)| *uid);
        let filed = self.state.mailboxes.get(&mailbox).zip(placed).and_then(|(m, uid)| {
            let shown = shown_uid(m, view, uid)?;
            Some(MailboxReply::Appended(m.validity.of(view), shown))
        });
        let gone = || MailboxReply::Failed(cannot("the mailbox was removed meanwhile"));
        self.answer_after(change, token, filed.unwrap_or_else(gone));
    }

    fn change_flags(
        &mut self,
        token: Token,
        view: View,
        name: &MailboxName,
        uids: &[Uid],
        change: FlagChange,
        mut flags: BTreeSet<Flag>,
    ) {
        flags.retain(|flag| !is_servers_own(flag));
        let planned = self.find(name).and_then(|(id, mailbox)| {
            bounded(&flags)?;
            let mut changing = Vec::new();
            for uid in uids.iter().filter_map(|uid| mailbox.slot_of(view, *uid)) {
                let Some(slot) = mailbox.slots.get(&uid) else { continue };
                let before: BTreeSet<Flag> = slot.flags.iter().cloned().collect();
                let after: BTreeSet<Flag> = match change {
                    FlagChange::Add => before.union(&flags).cloned().collect(),
                    FlagChange::Remove => before.difference(&flags).cloned().collect(),
                    FlagChange::Replace => flags.clone(),
                };
                if after != before {
                    bounded(&after)?;
                    changing.push(uid);
                }
            }
            Ok((id, Runs::of(changing)))
        });
        let (id, uids) = match planned {
            Ok((id, uids)) if !uids.is_empty() => (id, uids),
            Ok(_) => return self.answer(token, Ok(MailboxReply::Changed(Vec::new()))),
            Err(failure) => return self.answer(token, Err(failure)),
        };
        let event = Event::Flagged { mailbox: id, uids: uids.clone(), change: change.into(), flags };
        let done = self.change(vec![event]);
        let shown = |mailbox: &LocalMailbox| {
            let message = |uid| self.message(shown_uid(mailbox, view, uid)?.0, mailbox.slots.get(&uid)?);
            uids.iter().filter_map(message).collect()
        };
        let changed = self.state.mailboxes.get(&id).map(shown).unwrap_or_default();
        self.answer_after(done, token, MailboxReply::Changed(changed));
    }

    fn expunge(&mut self, now: Now, token: Token, view: View, name: &MailboxName, only: Option<&[Uid]>) {
        let found = self.find(name).map(|(id, mailbox)| {
            let chosen: Vec<u32> = match (only, view) {
                (Some(uids), _) => uids.iter().filter_map(|uid| mailbox.slot_of(view, *uid)).collect(),
                (None, View::Stubs) => mailbox.slots.keys().copied().collect(),
                (None, View::Full) => mailbox.full.values().copied().collect(),
            };
            let deleted = |uid: &u32| mailbox.slots.get(uid).is_some_and(|slot| slot.flags.contains(&Flag::Deleted));
            let uids: Vec<u32> = chosen.into_iter().filter(deleted).collect();
            let shown: BTreeSet<Uid> = uids.iter().filter_map(|uid| shown_uid(mailbox, view, *uid)).collect();
            (id, Runs::of(uids), shown)
        });
        match found {
            Ok((_, uids, _)) if uids.is_empty() => self.answer(token, Ok(MailboxReply::Expunged(Vec::new()))),
            Ok((mailbox, uids, shown)) => {
                let change = self.change(vec![Event::Expunged { mailbox, uids, at: now.wall }]);
                self.answer_after(change, token, MailboxReply::Expunged(shown.into_iter().collect()));
            }
            Err(failure) => self.answer(token, Err(failure)),
        }
    }

    fn transfer(
        &mut self,
        now: Now,
        token: Token,
        view: View,
        (name, uids, to): (&MailboxName, &[Uid], &MailboxName),
        moves: bool,
    ) {
        let planned = self.plan_transfer(view, name, uids, to, moves);
        let (from, target, uids) = match planned {
            Ok(Transfer::Cancels(mailbox, uids)) => {
                let change = self.change(vec![Event::Expunged { mailbox, uids, at: now.wall }]);
                return self.answer_after(change, token, MailboxReply::Copied { uid_validity: 0, uids: Vec::new() });
            }
            Ok(Transfer::Plain(from, target, uids)) => (from, target, uids),
            Err(failure) => return self.answer(token, Err(failure)),
        };
        let which = standard_of(to.as_str());
        let (mut cards, senders) = self.cards(from, &uids, which);
        let (mut events, mut then) = (Vec::new(), Vec::new());
        for (uid, group, key) in self.chosen(from, &uids, which) {
            cards.insert(uid);
            then.push(Effect::Act(Action::PinCandidate { group, key }));
        }
        let accepts = which == Some(Standard::Inbox) && !cards.is_empty();
        let plain = if accepts { Runs::of(uids.iter().filter(|uid| !cards.contains(uid))) } else { uids };
        if !plain.is_empty() {
            let uids = plain;
            events.push(if moves {
                Event::Moved { from, uids, to: target }
            } else {
                Event::Copied { from, uids, to: target }
            });
        }
        let verdict = if accepts { Verdict::Granted } else { Verdict::Refused };
        for (sender, address) in senders {
            self.judged(now, sender, &address, verdict, &mut events, &mut then);
        }
        if accepts && moves {
            // Cards in Requests are gone by the verdict; this takes those that were moved back from elsewhere.
            events.push(Event::Expunged { mailbox: from, uids: Runs::of(cards), at: now.wall });
        }
        // UIDs as this view shows them must be looked up before a move takes them away.
        let before = self.shown_uids(from, view);
        let change = self.change(events);
        let after = self.state.mailboxes.get(&target);
        let pair = |(old, new): &(u32, u32)| Some((*before.get(old)?, shown_uid(after?, view, *new)?));
        let uids = change.seen.placed.iter().filter_map(pair).collect();
        let uid_validity = after.map_or(0, |m| m.validity.of(view));
        then.insert(0, reply_to(token, Ok(MailboxReply::Copied { uid_validity, uids })));
        self.durable(change, then);
    }

    fn shown_uids(&self, id: MailboxId, view: View) -> BTreeMap<u32, Uid> {
        let Some(mailbox) = self.state.mailboxes.get(&id) else { return BTreeMap::new() };
        match view {
            View::Stubs => mailbox.slots.keys().map(|uid| (*uid, Uid(*uid))).collect(),
            View::Full => mailbox.full.iter().map(|(full, uid)| (*uid, Uid(*full))).collect(),
        }
    }

    fn plan_transfer(
        &self,
        view: View,
        name: &MailboxName,
        uids: &[Uid],
        to: &MailboxName,
        moves: bool,
    ) -> Result<Transfer, MailboxFailure> {
        let (from, mailbox) = self.find(name)?;
        let uids = Runs::of(uids.iter().filter_map(|uid| mailbox.slot_of(view, *uid)));
        if standard_of(&mailbox.name) == Some(Standard::Outbox) {
            self.find(to)?;
            let deletes = moves && standard_of(to.as_str()) == Some(Standard::Trash);
            let why = "mail in Outbox stays there until its receivers have it; deleting it takes it back";
            return if deletes { Ok(Transfer::Cancels(from, uids)) } else { Err(cannot(why)) };
        }
        let target = self.target(to)?;
        let next = self.state.mailboxes.get(&target).map_or(PerView::default(), |m| m.next);
        let used = next.0.max(next.1);
        if u32::try_from(uids.iter().count()).ok().and_then(|count| used.checked_add(count)).is_none() {
            return Err(MailboxFailure::Limit(format!("{to} has given all its UIDs; make another mailbox")));
        }
        Ok(Transfer::Plain(from, target, uids))
    }

    /// Candidates among these messages, if where they go says that the user chose them.
    fn chosen(&self, from: MailboxId, uids: &Runs, to: Option<Standard>) -> Vec<(u32, GroupName, Fingerprint)> {
        let Some(mailbox) = self.state.mailboxes.get(&from).filter(|_| to == Some(Standard::Inbox)) else {
            return Vec::new();
        };
        let candidate = |uid: u32| match &self.state.messages.get(&mailbox.slots.get(&uid)?.key)?.origin {
            Origin::Candidate(group, key) => Some((uid, group.clone(), *key)),
            _ => None,
        };
        uids.iter().filter_map(candidate).collect()
    }

    /// Cards that wait for consent among these messages, if a verdict follows from where they go, and whose they are.
    fn cards(
        &self,
        from: MailboxId,
        uids: &Runs,
        to: Option<Standard>,
    ) -> (BTreeSet<u32>, BTreeMap<Fingerprint, Address>) {
        let (mut cards, mut senders) = (BTreeSet::new(), BTreeMap::new());
        let judges = matches!(to, Some(Standard::Inbox | Standard::Junk));
        let Some(mailbox) = self.state.mailboxes.get(&from).filter(|_| judges) else { return (cards, senders) };
        for uid in uids.iter() {
            let stored = mailbox.slots.get(&uid).and_then(|slot| self.state.messages.get(&slot.key));
            let Some(Origin::Card(id)) = stored.map(|s| s.origin.clone()) else { continue };
            if let Some(mail) = self.state.mails.get(&id).filter(|_| self.is_request(&id)) {
                cards.insert(uid);
                senders.insert(id.sender, mail.from.clone());
            }
        }
        (cards, senders)
    }

    /// Events that make mailboxes with the next free names and UIDVALIDITY.
    pub(super) fn made(&self, now: Now, names: Vec<MailboxName>) -> Vec<Event> {
        // Seconds of the wall clock, so that a mailbox of an older run of the same home never had the same.
        let seconds = u32::try_from(now.wall.as_secs()).unwrap_or(u32::MAX - 1_000_000);
        let mut validity = self.state.next_validity.max(seconds).max(1);
        let mut id = self.state.next_mailbox;
        let mut made = |name| {
            let event = Event::MailboxMade { id: MailboxId(id), name, validity: PerView(validity, validity + 1) };
            (id, validity) = (id + 1, validity + 2);
            event
        };
        names.into_iter().map(&mut made).collect()
    }

    /// The names of `name` and above it that are missing, from the top.
    fn missing(&self, name: &MailboxName) -> Result<Vec<MailboxName>, MailboxFailure> {
        let mut missing = Vec::new();
        let mut at = Some(name.as_str());
        while let Some(text) = at {
            let level = MailboxName::new(text).map_err(|e| cannot(&e.to_string()))?;
            if self.state.names.contains_key(&level) {
                break;
            }
            missing.push(level);
            at = parent(text);
        }
        missing.reverse();
        if self.state.names.len() + missing.len() > MAILBOXES_MAX {
            return Err(MailboxFailure::Limit(format!("there are {MAILBOXES_MAX} mailboxes already; delete some")));
        }
        Ok(missing)
    }

    fn create(&mut self, now: Now, name: &MailboxName) -> Result<Vec<Event>, MailboxFailure> {
        if self.state.names.contains_key(name) {
            return Err(MailboxFailure::Exists(name.clone()));
        }
        let missing = self.missing(name)?;
        Ok(self.made(now, missing))
    }

    fn delete(&mut self, now: Now, name: &MailboxName) -> Result<Vec<Event>, MailboxFailure> {
        let (id, mailbox) = self.find(name)?;
        if standard_of(&mailbox.name).is_some() {
            return Err(cannot("this mailbox belongs to every peer and cannot be deleted"));
        }
        if self.state.names.keys().any(|other| below(other.as_str(), name.as_str()).is_some()) {
            return Err(cannot("there are mailboxes below it; delete those first"));
        }
        Ok(vec![Event::MailboxGone { id, at: now.wall }])
    }

    fn rename(&mut self, now: Now, from: &MailboxName, to: &MailboxName) -> Result<Vec<Event>, MailboxFailure> {
        let (id, mailbox) = self.find(from)?;
        if standard_of(&mailbox.name).is_some() {
            return Err(cannot("this mailbox belongs to every peer and cannot be renamed"));
        }
        if self.state.names.contains_key(to) {
            return Err(MailboxFailure::Exists(to.clone()));
        }
        if below(to.as_str(), from.as_str()).is_some() {
            return Err(cannot("a mailbox cannot be moved below itself"));
        }
        let mut named = vec![(id, to.clone())];
        for (name, id) in &self.state.names {
            let Some(rest) = below(name.as_str(), from.as_str()) else { continue };
            let new = MailboxName::new(&format!("{to}/{rest}")).map_err(|e| cannot(&e.to_string()))?;
            if self.state.names.contains_key(&new) {
                return Err(MailboxFailure::Exists(new));
            }
            named.push((*id, new));
        }
        let above = match parent(to.as_str()) {
            Some(text) => self.missing(&MailboxName::new(text).map_err(|e| cannot(&e.to_string()))?)?,
            None => Vec::new(),
        };
        let mut events = self.made(now, above);
        events.push(Event::MailboxesNamed(named));
        Ok(events)
    }

    fn subscribe(&mut self, name: &MailboxName, yes: bool) -> Result<Vec<Event>, MailboxFailure> {
        let (id, mailbox) = self.find(name)?;
        Ok(if mailbox.subscribed == yes { Vec::new() } else { vec![Event::Subscribed { id, yes }] })
    }
}

/// What a COPY or MOVE comes to.
enum Transfer {
    /// Messages go from one mailbox to another.
    Plain(MailboxId, MailboxId, Runs),
    /// Mail in Outbox that is moved to Trash is taken back.
    Cancels(MailboxId, Runs),
}

fn reply_to(token: Token, answer: Answer) -> Effect<Postbox> {
    Effect::Reply(token, Reply::Mailbox(answer.unwrap_or_else(MailboxReply::Failed)))
}

/// The UID that `view` shows for the message with this UID in the view of stubs.
fn shown_uid(mailbox: &LocalMailbox, view: View, uid: u32) -> Option<Uid> {
    match view {
        View::Stubs => Some(Uid(uid)),
        View::Full => mailbox.slots.get(&uid)?.full.map(Uid),
    }
}

fn info(name: &MailboxName, mailbox: &LocalMailbox, view: View) -> MailboxInfo {
    let unseen = |slot: &&Slot| (view == View::Stubs || slot.full.is_some()) && !slot.flags.contains(&Flag::Seen);
    let exists = match view {
        View::Stubs => mailbox.slots.len(),
        View::Full => mailbox.full.len(),
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    MailboxInfo {
        name: name.clone(),
        standard: standard_of(&mailbox.name),
        subscribed: mailbox.subscribed,
        uid_validity: mailbox.validity.of(view),
        uid_next: Uid(mailbox.next.of(view)),
        exists: count(exists),
        unseen: count(mailbox.slots.values().filter(unseen).count()),
        version: mailbox.version,
    }
}

fn bounded(flags: &BTreeSet<Flag>) -> Result<(), MailboxFailure> {
    let long = flags.iter().any(|flag| matches!(flag, Flag::Keyword(word) if word.len() > KEYWORD_MAX));
    if long || flags.len() > FLAGS_MAX {
        let why = format!("a message has at most {FLAGS_MAX} flags, and a keyword at most {KEYWORD_MAX} bytes");
        return Err(MailboxFailure::Limit(why));
    }
    Ok(())
}
