//! Requests: the cards of first mails from unknown senders, and the user's word on a sender. A card is local: nothing of it
//! leaves this peer, and the sender learns only of a refusal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::io::{RequestInfo, Requests, SenderName};
use super::state::{Mail, MailKey, Stage, Verdict};
use super::{Action, Event, Input, Postbox, Reply};
use crate::core::{Effect, Token};
use crate::mime;
use crate::model::notification::Ns;
use crate::model::{Address, ByteSize, Fingerprint, Now, WallTime};

/// Bytes of the subject that a card shows, encoded as it came.
const SUBJECT_MAX: usize = 500;
/// Certificates that are remembered as written to.
const WROTE_TO_MAX: usize = 100_000;
/// Bytes in one line of it.
const LINE_MAX: usize = 200;

/// The card that asks for consent: an RFC 5322 message made of recorded facts only, so that it is the same each time.
pub(super) fn card(id: MailKey, ns: &Ns, at: WallTime) -> Vec<u8> {
    let subject = mime::header::first(&ns.header_block, "Subject").map(|field| subject_of(&field.unfolded()));
    let subject = subject.filter(|s| !s.is_empty()).unwrap_or_else(|| "(no subject)".to_owned());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "Date: {date}\r\nFrom: <{from}>\r\nTo: <{to}>\r\nSubject: Request: {subject}\r\n\
         Message-ID: <request.{submission}.{sender}@{group}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         {from} has not written to you before and asks to send you a mail.\r\n\r\n\
         \x20   Sender:     {from}\r\n\
         \x20   Key:        {sender}\r\n\
         \x20   Group:      {theirs}\r\n\
         \x20   Group key:  {group_key}\r\n\
         \x20   Size:       {size}\r\n\
         \x20   Expires:    {expires}\r\n\r\n\
         Move this card to INBOX to accept: the mail and all later ones of this sender\r\n\
         come to INBOX. Move it to Junk to refuse the sender for good. Delete it to\r\n\
         refuse this mail only.\r\n\r\n\
         Compare the key with the sender if it matters who that is.\r\n",
        date = rfc5322(at),
        from = ns.from,
        to = ns.to,
        submission = id.submission,
        sender = id.sender,
        group = ns.to.group(),
        theirs = ns.group,
        group_key = ns.group_key,
        size = rounded(ns.structure.size),
        expires = rfc5322(ns.expiry),
    );
    text.into_bytes()
}

/// A moment as RFC 5322 section 3.3 writes it, in UTC.
pub(super) fn rfc5322(at: WallTime) -> String {
    mail_parser::DateTime::from_timestamp(i64::try_from(at.as_secs()).unwrap_or(i64::MAX)).to_rfc822()
}

/// A size as people read it.
fn rounded(bytes: u64) -> String {
    let steps = [(ByteSize::gib(1).0, "GiB"), (ByteSize::mib(1).0, "MiB"), (ByteSize::kib(1).0, "KiB")];
    match steps.iter().find(|(per, _)| bytes >= *per) {
        Some((per, unit)) => format!("{}.{} {unit}", bytes / per, bytes % per * 10 / per),
        None => format!("{bytes} bytes"),
    }
}

/// A subject that cannot bring fields of its own: printable, cut, and folded where it has spaces.
fn subject_of(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut subject = String::new();
    let mut line = 0;
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control()).take(LINE_MAX).collect();
        if subject.len() + word.len() > SUBJECT_MAX {
            break;
        }
        if line > 0 {
            let fold = line + word.len() > LINE_MAX;
            subject.push_str(if fold { "\r\n " } else { " " });
            line = if fold { 0 } else { line };
        }
        subject.push_str(&word);
        line += word.len() + 1;
    }
    subject
}

impl Postbox {
    pub(super) fn list_requests(&mut self, token: Token) {
        let info = |(id, mail): (&MailKey, &Mail)| RequestInfo {
            from: mail.from.clone(),
            sender: id.sender,
            group_key: mail.group_key,
            size: mail.size,
            arrived: mail.arrived,
            expiry: mail.expiry(),
        };
        let mut waiting: Vec<RequestInfo> = self.state.requests(None).map(info).collect();
        waiting.sort_by_key(|request| request.arrived);
        let verdicts = self.state.verdicts.iter();
        let senders = verdicts.map(|(sender, (address, verdict))| (address.clone(), *sender, *verdict)).collect();
        self.out.reply(token, Reply::Requests(Requests { waiting, senders }));
    }

    /// The user's word by command: on whoever of that name asks or was judged before.
    pub(super) fn judge(&mut self, now: Now, token: Token, name: &SenderName, verdict: Verdict) {
        let meant = |sender: &Fingerprint, address: &Address| match name {
            SenderName::Fingerprint(wanted) => wanted == sender,
            SenderName::Address(wanted) => wanted == address,
        };
        let mut senders: BTreeMap<Fingerprint, Address> = BTreeMap::new();
        for (sender, (address, _)) in self.state.verdicts.iter().filter(|(s, (a, _))| meant(s, a)) {
            senders.insert(*sender, address.clone());
        }
        for (id, mail) in self.state.requests(None).filter(|(id, mail)| meant(&id.sender, &mail.from)) {
            senders.insert(id.sender, mail.from.clone());
        }
        let asking = |sender: &Fingerprint| self.state.requests(Some(*sender)).count();
        let mails = if verdict == Verdict::Withdrawn { 0 } else { senders.keys().map(asking).sum() };
        let (mut events, mut then) = (Vec::new(), Vec::new());
        for (sender, address) in &senders {
            self.judged(now, *sender, address, verdict, &mut events, &mut then);
        }
        then.push(Effect::Reply(token, Reply::Judged { senders: senders.len(), mails }));
        self.commit(events, then);
    }

    /// What is to be made durable, and done after, for the user's word on one sender.
    pub(super) fn judged(
        &self,
        now: Now,
        sender: Fingerprint,
        address: &Address,
        verdict: Verdict,
        events: &mut Vec<Event>,
        then: &mut Vec<Effect<Postbox>>,
    ) {
        events.push(Event::Judged { sender, address: address.clone(), verdict, at: now.wall });
        if verdict != Verdict::Granted {
            return;
        }
        let waiting: Vec<(&MailKey, &Mail)> = self.state.requests(Some(sender)).collect();
        if let Some((_, mail)) = waiting.first() {
            let (group, group_key) = (mail.group.clone(), mail.group_key);
            then.push(Effect::Act(Action::Pin { address: address.clone(), sender, group, group_key }));
        }
        then.push(Effect::Feed(Input::Filed(waiting.into_iter().map(|(id, _)| *id).collect())));
    }

    /// Own mail goes to these certificates: whoever was written to may answer.
    pub(super) fn wrote_to(&mut self, token: Token, certificates: Vec<Fingerprint>) {
        let known = &self.state.wrote_to;
        let room = WROTE_TO_MAX.saturating_sub(known.len());
        let new: Vec<Fingerprint> = certificates.into_iter().filter(|one| !known.contains(one)).take(room).collect();
        if new.is_empty() {
            self.out.reply(token, Reply::WroteTo);
        } else {
            self.commit(vec![Event::WroteTo(new)], vec![Effect::Reply(token, Reply::WroteTo)]);
        }
    }

    /// Whether this mail still waits for consent.
    pub(super) fn is_request(&self, id: &MailKey) -> bool {
        self.state.mails.get(id).is_some_and(|mail| mail.stage == Stage::Requested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_cannot_smuggle_a_field_and_is_folded() {
        assert_eq!(subject_of(b"a\r\nBcc: x@y\x07 b"), "a Bcc: x@y b");
        let long = subject_of("word ".repeat(200).as_bytes());
        assert!(long.len() <= SUBJECT_MAX + 10 && long.split("\r\n").all(|line| line.len() <= LINE_MAX + 10), "{long}");
        assert_eq!(subject_of("=?utf-8?q?Gr=C3=BC=C3=9Fe?=".as_bytes()), "=?utf-8?q?Gr=C3=BC=C3=9Fe?=");
    }

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!(rounded(900), "900 bytes");
        assert_eq!(rounded(8 * 1024 * 1024 + 600 * 1024), "8.5 MiB");
    }
}
