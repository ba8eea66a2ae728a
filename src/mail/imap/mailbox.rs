//! Commands on whole mailboxes: SELECT, EXAMINE, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE, CLOSE, UNSELECT. Never keeps a
//! mailbox: the postbox does.

use imap_types::mailbox::Mailbox;
use imap_types::status::StatusDataItemName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Outcome};
use super::list_request::StatusItem;
use super::respond::{self, Status};
use super::selected::Selected;
use super::session::Transition;
use super::{End, MailStore};
use crate::core::postbox::access::{Flag, MailboxInfo, MailboxName, MailboxReply, MailboxRequest, Message, Uid, View};

/// The name as it came on the wire.
pub(super) fn wire_name<'a>(mailbox: &'a Mailbox<'_>) -> &'a [u8] {
    match mailbox {
        Mailbox::Inbox => b"INBOX",
        Mailbox::Other(other) => other.as_ref(),
    }
}

/// Gives the status back early where a value was expected.
macro_rules! some {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(status) => return Ok(status),
        }
    };
}
pub(super) use some;

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// Opens a mailbox in the postbox.
    pub(super) async fn open(&self, name: MailboxName) -> Result<(MailboxInfo, Vec<Message>), Status> {
        match self.ask(MailboxRequest::Open(name)).await {
            MailboxReply::Opened { info, messages } => Ok((info, messages)),
            MailboxReply::Failed(failure) => Err(Status::failed(&failure, None)),
            _ => Err(Status::confused()),
        }
    }

    /// Every mailbox.
    pub(super) async fn mailboxes(&self) -> Result<Vec<MailboxInfo>, Status> {
        match self.ask(MailboxRequest::List).await {
            MailboxReply::Mailboxes(list) => Ok(list),
            MailboxReply::Failed(failure) => Err(Status::failed(&failure, None)),
            _ => Err(Status::confused()),
        }
    }

    /// Asks for something that is answered with `Done`.
    async fn ask_done(&self, request: MailboxRequest) -> Status {
        match self.ask(request).await {
            MailboxReply::Done => Status::ok("done"),
            MailboxReply::Failed(failure) => Status::failed(&failure, None),
            _ => Status::confused(),
        }
    }

    /// SELECT and EXAMINE.
    pub(super) async fn select(&mut self, mailbox: &Mailbox<'_>, read_only: bool) -> Outcome {
        // RFC 3501 section 6.3.1: a SELECT that fails leaves no mailbox selected.
        self.apply(Transition::Unselect);
        let name = some!(Self::mailbox_name(wire_name(mailbox)));
        self.changes.mark_unchanged();
        let (info, messages) = some!(self.open(name).await);
        let view = self.state.view().unwrap_or(View::Stubs);
        let seen = self.shared.recent_from(view, &info, !read_only);
        let selected = Selected::new(&info, messages, read_only, seen);
        let out = &mut self.output;
        selected.write_flags(&mut out.buffer);
        match read_only {
            true => out.line("* OK [PERMANENTFLAGS ()] nothing can be changed"),
            false => out.line(&format!("* OK [PERMANENTFLAGS ({} \\*)] flags are kept", selected.flag_names())),
        }
        out.line(&format!("* {} EXISTS", selected.exists()));
        out.line(&format!("* {} RECENT", selected.recent()));
        let unseen = selected.messages().iter().position(|shown| !shown.message.flags.contains(&Flag::Seen));
        if let Some(first) = unseen {
            out.line(&format!("* OK [UNSEEN {}] the first that was not read", first + 1));
        }
        out.line(&format!("* OK [UIDVALIDITY {}] UIDs are valid", info.uid_validity));
        out.line(&format!("* OK [UIDNEXT {}] the next UID", info.uid_next.0));
        self.apply(Transition::Select(Box::new(selected)));
        let code = if read_only { "READ-ONLY" } else { "READ-WRITE" };
        Ok(Status::ok("the mailbox is open").with(code.to_owned()))
    }

    /// CLOSE, which expunges in silence, and UNSELECT (RFC 3691), which does not.
    pub(super) async fn close_mailbox(&mut self, expunge: bool) -> Outcome {
        let selected = self.state.selected().filter(|selected| expunge && !selected.read_only);
        if let Some(mailbox) = selected.map(|selected| selected.name.clone()) {
            let reply = self.ask(MailboxRequest::Expunge { mailbox, uids: None }).await;
            if let MailboxReply::Failed(failure) = reply {
                return Ok(Status::failed(&failure, None));
            }
        }
        self.apply(Transition::Unselect);
        Ok(Status::ok("the mailbox is closed"))
    }

    /// STATUS.
    pub(super) async fn status(&mut self, mailbox: &Mailbox<'_>, names: &[StatusDataItemName]) -> Outcome {
        let name = some!(Self::mailbox_name(wire_name(mailbox)));
        let item = |name: &StatusDataItemName| match name {
            StatusDataItemName::Messages => Ok(StatusItem::Messages),
            StatusDataItemName::Recent => Ok(StatusItem::Recent),
            StatusDataItemName::UidNext => Ok(StatusItem::UidNext),
            StatusDataItemName::UidValidity => Ok(StatusItem::UidValidity),
            StatusDataItemName::Unseen => Ok(StatusItem::Unseen),
            _ => Err(Status::bad("STATUS tells MESSAGES, RECENT, UIDNEXT, UIDVALIDITY and UNSEEN")),
        };
        let items: Vec<StatusItem> = some!(names.iter().map(item).collect());
        let list = some!(self.mailboxes().await);
        let Some(info) = list.iter().find(|info| info.name == name) else {
            return Ok(Status::no("NONEXISTENT", format!("there is no mailbox {name}")));
        };
        self.write_status(info, &items).await?;
        Ok(Status::ok("done"))
    }

    /// `* STATUS` of one mailbox.
    pub(super) async fn write_status(&mut self, info: &MailboxInfo, items: &[StatusItem]) -> Result<(), End> {
        let recent = if items.contains(&StatusItem::Recent) { self.count_recent(info).await } else { 0 };
        let text = |item: &StatusItem| match item {
            StatusItem::Messages => format!("MESSAGES {}", info.exists),
            StatusItem::Recent => format!("RECENT {recent}"),
            StatusItem::UidNext => format!("UIDNEXT {}", info.uid_next.0),
            StatusItem::UidValidity => format!("UIDVALIDITY {}", info.uid_validity),
            StatusItem::Unseen => format!("UNSEEN {}", info.unseen),
        };
        let items: Vec<String> = items.iter().map(text).collect();
        let out = &mut self.output.buffer;
        out.extend_from_slice(b"* STATUS ");
        respond::mailbox(out, info.name.as_str());
        out.extend_from_slice(format!(" ({})\r\n", items.join(" ")).as_bytes());
        self.output.relieve().await
    }

    async fn count_recent(&self, info: &MailboxInfo) -> usize {
        let view = self.state.view().unwrap_or(View::Stubs);
        let seen = self.shared.recent_from(view, info, false);
        if info.exists == 0 || Uid(info.uid_next.0.saturating_sub(1)) <= seen {
            return 0;
        }
        let opened = self.open(info.name.clone()).await;
        opened.map_or(0, |(_, messages)| messages.iter().filter(|message| message.uid > seen).count())
    }

    /// CREATE.
    pub(super) async fn create(&mut self, name: &[u8]) -> Outcome {
        let name = some!(Self::mailbox_name(name));
        Ok(self.ask_done(MailboxRequest::Create(name)).await)
    }

    /// DELETE.
    pub(super) async fn delete(&mut self, mailbox: &Mailbox<'_>) -> Outcome {
        let name = some!(Self::mailbox_name(wire_name(mailbox)));
        let status = self.ask_done(MailboxRequest::Delete(name.clone())).await;
        // Its own session knows that it is gone.
        if status.is_ok() && self.state.selected().is_some_and(|selected| selected.name == name) {
            self.apply(Transition::Unselect);
        }
        Ok(status)
    }

    /// RENAME.
    pub(super) async fn rename(&mut self, from: &Mailbox<'_>, to: &Mailbox<'_>) -> Outcome {
        let from = some!(Self::mailbox_name(wire_name(from)));
        let to = some!(Self::mailbox_name(wire_name(to)));
        Ok(self.ask_done(MailboxRequest::Rename { from, to }).await)
    }

    /// SUBSCRIBE and UNSUBSCRIBE.
    pub(super) async fn subscribe(&mut self, mailbox: &Mailbox<'_>, subscribed: bool) -> Outcome {
        let mailbox = some!(Self::mailbox_name(wire_name(mailbox)));
        Ok(self.ask_done(MailboxRequest::Subscribe { mailbox, subscribed }).await)
    }
}
