//! STORE, COPY, MOVE and EXPUNGE. Never changes anything by itself: the postbox does, and says what came of it.

use std::collections::BTreeSet;

use imap_types::flag::Flag as WireFlag;
use imap_types::mailbox::Mailbox;
use imap_types::sequence::SequenceSet;
use tokio::io::{AsyncRead, AsyncWrite};

use super::MailStore;
use super::connection::{Connection, Outcome};
use super::mailbox::{some, wire_name};
use super::respond::{self, Status};
use super::selected::{Numbers, Selected, changed};
use super::sequence::{Ranges, uid_set};
use crate::core::postbox::access::{Flag, FlagChange, MailboxReply, MailboxRequest, Message, Uid};

/// The sequence numbers that `set` names in the open mailbox.
///
/// # Errors
/// BAD when it names a sequence number beyond the last message (RFC 3501 section 9, seq-number).
pub(super) fn chosen(selected: &Selected, set: &SequenceSet, numbers: Numbers) -> Result<Vec<u32>, Status> {
    let ranges = Ranges::new(set, selected.largest(numbers));
    if numbers == Numbers::Sequence && ranges.last() > selected.exists() {
        // Mail programs ask for 1:* or 1:1 of an empty mailbox; there is nothing wrong with an empty answer.
        if selected.exists() > 0 {
            return Err(Status::bad(format!("the mailbox has {} messages", selected.exists())));
        }
    }
    Ok(selected.find(&ranges, numbers))
}

fn uids(selected: &Selected, sequences: &[u32]) -> Vec<Uid> {
    sequences.iter().filter_map(|sequence| selected.get(*sequence)).map(|shown| shown.message.uid).collect()
}

fn no_mailbox() -> Status {
    Status::bad("select a mailbox first")
}

fn read_only() -> Status {
    Status::no("CANNOT", "the mailbox was opened with EXAMINE; SELECT it to change it")
}

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// STORE.
    pub(super) async fn store(
        &mut self,
        set: &SequenceSet,
        change: FlagChange,
        flags: &[WireFlag<'_>],
        silent: bool,
        numbers: Numbers,
    ) -> Outcome {
        let flags = some!(respond::read_flags(flags));
        let Some(selected) = self.state.selected() else { return Ok(no_mailbox()) };
        if selected.read_only {
            return Ok(read_only());
        }
        let sequences = some!(chosen(selected, set, numbers));
        let request = MailboxRequest::Flags {
            mailbox: selected.name.clone(),
            uids: uids(selected, &sequences),
            change,
            flags: flags.clone(),
        };
        let messages = match self.ask(request).await {
            MailboxReply::Changed(messages) => messages,
            MailboxReply::Failed(failure) => return Ok(Status::failed(&failure, None)),
            _ => return Ok(Status::confused()),
        };
        let Some(selected) = self.state.selected_mut() else { return Ok(no_mailbox()) };
        let mut surprising = BTreeSet::new();
        for message in messages {
            let before = selected.sequence_of(message.uid).and_then(|n| Some((n, selected.get(n)?)));
            if let Some((sequence, shown)) = before
                && changed(&shown.message.flags, change, &flags) != message.flags
            {
                surprising.insert(sequence);
            }
            selected.update(message);
        }
        selected.write_new_keywords(&mut self.output.buffer);
        for sequence in sequences {
            // Silence is asked for what the mail program can work out itself.
            if !silent || surprising.contains(&sequence) {
                selected.write_fetch_flags(&mut self.output.buffer, sequence, numbers == Numbers::Uids);
            }
        }
        Ok(Status::ok("done"))
    }

    /// Sets `\Seen` on a message whose body was delivered; gives its flags as they are then.
    pub(super) async fn mark_seen(&mut self, uid: Uid) -> Option<Message> {
        let mailbox = self.state.selected()?.name.clone();
        let flags = BTreeSet::from([Flag::Seen]);
        let reply = self.ask(MailboxRequest::Flags { mailbox, uids: vec![uid], change: FlagChange::Add, flags }).await;
        let MailboxReply::Changed(messages) = reply else { return None };
        let message = messages.into_iter().find(|message| message.uid == uid)?;
        self.state.selected_mut()?.update(message.clone());
        Some(message)
    }

    /// COPY and MOVE (RFC 6851).
    pub(super) async fn transfer(
        &mut self,
        set: &SequenceSet,
        to: &Mailbox<'_>,
        numbers: Numbers,
        moving: bool,
    ) -> Outcome {
        let to = some!(Self::mailbox_name(wire_name(to)));
        let Some(selected) = self.state.selected() else { return Ok(no_mailbox()) };
        if moving && selected.read_only {
            return Ok(read_only());
        }
        let mailbox = selected.name.clone();
        let uids = uids(selected, &some!(chosen(selected, set, numbers)));
        if uids.is_empty() {
            return Ok(Status::ok("no message was named"));
        }
        let request = match moving {
            true => MailboxRequest::Move { mailbox, uids, to: to.clone() },
            false => MailboxRequest::Copy { mailbox, uids, to: to.clone() },
        };
        let code = match self.ask(request).await {
            MailboxReply::Copied { uids, .. } if uids.is_empty() => None,
            MailboxReply::Copied { uid_validity, uids } => {
                let (from, to): (Vec<Uid>, Vec<Uid>) = uids.into_iter().unzip();
                Some(format!("COPYUID {uid_validity} {} {}", uid_set(from), uid_set(to)))
            }
            MailboxReply::Failed(failure) => return Ok(Status::failed(&failure, Some(&to))),
            _ => return Ok(Status::confused()),
        };
        let done = Status::ok("done");
        let status = match (code, moving) {
            (Some(code), true) => {
                // RFC 6851 section 4.3: before the EXPUNGE responses.
                self.output.line(&format!("* OK [{code}] moved"));
                done
            }
            (Some(code), false) => done.with(code),
            (None, _) => done,
        };
        self.sync_now(true).await?;
        Ok(status)
    }

    /// EXPUNGE, and UID EXPUNGE (RFC 4315).
    pub(super) async fn expunge(&mut self, set: Option<&SequenceSet>) -> Outcome {
        let Some(selected) = self.state.selected() else { return Ok(no_mailbox()) };
        if selected.read_only {
            return Ok(read_only());
        }
        let uids = match set {
            Some(set) => Some(uids(selected, &some!(chosen(selected, set, Numbers::Uids)))),
            None => None,
        };
        let request = MailboxRequest::Expunge { mailbox: selected.name.clone(), uids };
        match self.ask(request).await {
            MailboxReply::Expunged(_) => {}
            MailboxReply::Failed(failure) => return Ok(Status::failed(&failure, None)),
            _ => return Ok(Status::confused()),
        }
        self.sync_now(true).await?;
        Ok(Status::ok("done"))
    }
}
