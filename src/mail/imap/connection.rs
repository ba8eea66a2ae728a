//! One connection: commands in, responses out, one after the other. Never ends because of a command that is nonsense.

use std::sync::Arc;
use std::time::Duration;

use imap_types::command::CommandBody;
use imap_types::flag::{StoreResponse, StoreType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::command::{self, Command, Request};
use super::input::{self, Announced, Input, Line};
use super::output::Output;
use super::respond::Status;
use super::selected::{Numbers, Selected};
use super::server::{Shared, stopped};
use super::session::{State, Transition};
use super::{End, MailStore};
use crate::core::postbox::access::{FlagChange, MailboxName, MailboxReply, MailboxRequest, View};

/// How a command ended, or why the connection does.
pub(super) type Outcome = Result<Status, End>;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection<S, R, W> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) input: Input<R>,
    pub(super) output: Output<W>,
    pub(super) state: State,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) failed_logins: u32,
}

/// What came from the mail program.
enum Incoming {
    /// A whole command.
    Whole(Zeroizing<Vec<u8>>),
    /// An APPEND up to its message.
    Append(Command, Announced),
    /// A command beyond the bounds; its tag, and which bound.
    Refused(String, &'static str),
}

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    pub(super) fn new(shared: Arc<Shared<S>>, reader: R, writer: W) -> Self {
        let output = Output::new(writer, shared.config.write_timeout);
        let changes = shared.store.changes();
        Self { shared, input: Input::new(reader), output, state: State::NotAuthenticated, changes, failed_logins: 0 }
    }

    /// Serves until the mail program leaves or the connection ends.
    pub(super) async fn run(mut self) {
        let greeting = format!("* OK [CAPABILITY {}] Roost is ready", self.capabilities());
        self.output.line(&greeting);
        let end = self.commands().await;
        match end {
            Ok(()) => {}
            Err(End::Bye { text }) => self.output.line(&format!("* BYE {text}")),
            Err(error) => tracing::debug!(%error, "an IMAP connection ended"),
        }
        self.output.close().await;
    }

    async fn commands(&mut self) -> Result<(), End> {
        let mut stop = self.shared.stop.clone();
        while !matches!(self.state, State::Logout) {
            self.output.flush().await?;
            // Only between two commands: within a response nothing else may be written.
            let incoming = tokio::select! {
                incoming = self.incoming() => incoming?,
                () = stopped(&mut stop) => return Err(End::Bye { text: "the server is going down" }),
            };
            let (tag, status) = match incoming {
                Incoming::Whole(bytes) => match command::parse(&bytes) {
                    Ok(Command { tag, request }) => (tag, self.perform(request).await?),
                    Err(unreadable) => (unreadable.tag, Status::bad(unreadable.text)),
                },
                Incoming::Append(Command { tag, request }, announced) => {
                    let status = self.append(request, announced).await?;
                    self.sync(true).await?;
                    (tag, status)
                }
                Incoming::Refused(tag, text) => (tag, Status::bad(text)),
            };
            status.write(&mut self.output.buffer, &tag);
        }
        Ok(())
    }

    /// How long to wait for the mail program: a login has to come soon.
    pub(super) fn patience(&self) -> Duration {
        match self.state {
            State::NotAuthenticated => self.shared.config.login_timeout,
            _ => self.shared.config.idle_timeout,
        }
    }

    /// The next command, its literals included.
    async fn incoming(&mut self) -> Result<Incoming, End> {
        let mut bytes: Zeroizing<Vec<u8>> = Zeroizing::default();
        let mut refused = None;
        loop {
            let patience = self.patience();
            let line = match self.input.line(input::COMMAND_MAX, patience).await? {
                Line::Whole(line) => line,
                // Its tag is in the line itself, unless literals came before.
                Line::TooLong(begin) => {
                    let tag = command::tag_of(if bytes.is_empty() { &begin } else { &bytes });
                    return Ok(Incoming::Refused(tag, "a command has at most 64 KiB"));
                }
            };
            let start = bytes.len();
            if refused.is_none() {
                bytes.extend_from_slice(&line);
            }
            let Some(literal) = input::announced(&line) else {
                return Ok(match refused {
                    Some(text) => Incoming::Refused(command::tag_of(&bytes), text),
                    None if bytes.len() > input::COMMAND_MAX => {
                        Incoming::Refused(command::tag_of(&bytes), "a command has at most 64 KiB")
                    }
                    None => Incoming::Whole(bytes),
                });
            };
            if let (None, Some(command)) = (refused, command::append_before_literal(&bytes, start + literal.at)) {
                return Ok(Incoming::Append(command, literal));
            }
            let room = u64::try_from(input::COMMAND_MAX.saturating_sub(bytes.len())).unwrap_or(0);
            if refused.is_none() && literal.len <= input::LITERAL_MAX.min(room) {
                self.literal(literal, &mut bytes).await?;
                continue;
            }
            refused = Some("a literal has at most 8 KiB, and a command 64 KiB");
            if literal.waits {
                // It waits for leave, which it does not get: the command ends here.
                return Ok(Incoming::Refused(command::tag_of(&bytes), "a literal has at most 8 KiB"));
            }
            if literal.len > input::DISCARD_MAX {
                return Err(End::Bye { text: "a literal far beyond 8 KiB was sent without asking" });
            }
            self.input.discard(literal.len, patience).await?;
        }
    }

    async fn literal(&mut self, literal: Announced, bytes: &mut Vec<u8>) -> Result<(), End> {
        if literal.waits {
            self.output.line("+ go on");
            self.output.flush().await?;
        }
        let patience = self.patience();
        let mut left = literal.len;
        while left > 0 {
            left -= self.input.some(bytes, left, patience).await?;
        }
        Ok(())
    }

    /// What this server can. Told before the login too: Python's imaplib asks only once, before it.
    pub(super) fn capabilities(&self) -> String {
        let mechanisms = match self.state {
            State::NotAuthenticated => "AUTH=PLAIN AUTH=LOGIN ",
            _ => "",
        };
        format!(
            "IMAP4rev1 LITERAL+ SASL-IR {mechanisms}ID ENABLE IDLE UIDPLUS MOVE UNSELECT NAMESPACE CHILDREN SPECIAL-USE \
             LIST-EXTENDED LIST-STATUS APPENDLIMIT={}",
            self.shared.config.append_max
        )
    }

    /// Changes the state.
    pub(super) fn apply(&mut self, transition: Transition) {
        let state = std::mem::replace(&mut self.state, State::Logout);
        self.state = state.apply(transition);
    }

    /// Asks the postbox in this session's view.
    pub(super) async fn ask(&self, request: MailboxRequest) -> MailboxReply {
        let view = self.state.view().unwrap_or(View::Stubs);
        self.shared.store.request(view, request).await
    }

    async fn perform(&mut self, request: Request) -> Outcome {
        if let Err(text) = self.state.allows(&request) {
            return Ok(Status::bad(text));
        }
        let may_expunge = !request.holds_numbers();
        let status = match request {
            Request::List(list) => self.list(&list).await,
            Request::Create(name) => self.create(&name).await,
            Request::Namespace => {
                self.output.line("* NAMESPACE ((\"\" \"/\")) NIL NIL");
                Ok(Status::ok("done"))
            }
            Request::Codec(body) => self.perform_codec(*body).await,
        }?;
        self.sync(may_expunge).await?;
        Ok(status)
    }

    async fn perform_codec(&mut self, body: CommandBody<'static>) -> Outcome {
        let numbers = |uid| if uid { Numbers::Uids } else { Numbers::Sequence };
        match body {
            CommandBody::Login { username, password } => {
                self.login(username.as_ref(), password.declassify().as_ref()).await
            }
            CommandBody::Authenticate { mechanism, initial_response } => {
                let initial = initial_response.as_ref().map(|secret| secret.declassify().as_ref());
                self.authenticate(&mechanism, initial).await
            }
            CommandBody::Select { mailbox } => self.select(&mailbox, false).await,
            CommandBody::Examine { mailbox } => self.select(&mailbox, true).await,
            CommandBody::Status { mailbox, item_names } => self.status(&mailbox, &item_names).await,
            CommandBody::Delete { mailbox } => self.delete(&mailbox).await,
            CommandBody::Rename { from, to } => self.rename(&from, &to).await,
            CommandBody::Subscribe { mailbox } => self.subscribe(&mailbox, true).await,
            CommandBody::Unsubscribe { mailbox } => self.subscribe(&mailbox, false).await,
            CommandBody::Close => self.close_mailbox(true).await,
            CommandBody::Unselect => self.close_mailbox(false).await,
            CommandBody::Expunge => self.expunge(None).await,
            CommandBody::ExpungeUid { sequence_set } => self.expunge(Some(&sequence_set)).await,
            CommandBody::Idle => self.idle().await,
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid } => {
                self.fetch(&sequence_set, &macro_or_item_names, numbers(uid)).await
            }
            CommandBody::Search { charset, criteria, uid } => {
                self.search(charset.as_ref(), criteria.as_ref(), numbers(uid)).await
            }
            CommandBody::Store { sequence_set, kind, response, flags, uid } => {
                let change = match kind {
                    StoreType::Add => FlagChange::Add,
                    StoreType::Remove => FlagChange::Remove,
                    StoreType::Replace => FlagChange::Replace,
                };
                self.store(&sequence_set, change, &flags, response == StoreResponse::Silent, numbers(uid)).await
            }
            CommandBody::Copy { sequence_set, mailbox, uid } => {
                self.transfer(&sequence_set, &mailbox, numbers(uid), false).await
            }
            CommandBody::Move { sequence_set, mailbox, uid } => {
                self.transfer(&sequence_set, &mailbox, numbers(uid), true).await
            }
            other => Ok(self.perform_small(&other)),
        }
    }

    /// The commands that ask nothing.
    fn perform_small(&mut self, body: &CommandBody<'_>) -> Status {
        match body {
            CommandBody::Capability => {
                let line = format!("* CAPABILITY {}", self.capabilities());
                self.output.line(&line);
            }
            // What changed is told after every command.
            CommandBody::Noop | CommandBody::Check => {}
            CommandBody::Id { .. } => {
                self.output.line(concat!("* ID (\"name\" \"roost\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")"));
            }
            // Nothing that is offered has to be enabled.
            CommandBody::Enable { .. } => self.output.line("* ENABLED"),
            CommandBody::Logout => {
                self.output.line("* BYE see you");
                self.apply(Transition::Logout);
            }
            other => return Status::bad(format!("{} is not offered", other.name())),
        }
        Status::ok("done")
    }

    /// Tells what changed in the open mailbox, if anything did anywhere.
    pub(super) async fn sync(&mut self, may_expunge: bool) -> Result<(), End> {
        if self.state.selected().is_none() {
            return Ok(());
        }
        // Fails only when the postbox is gone; the next request says so.
        let changed = self.changes.has_changed().unwrap_or(true);
        let held_back = may_expunge && self.state.selected().is_some_and(Selected::holds_back);
        if changed || held_back { self.sync_now(may_expunge).await } else { Ok(()) }
    }

    /// Tells what changed in the open mailbox.
    pub(super) async fn sync_now(&mut self, may_expunge: bool) -> Result<(), End> {
        let Some(selected) = self.state.selected() else { return Ok(()) };
        let mailbox = selected.name.clone();
        // Most changes are of other mailboxes, and this one may be large.
        let request = match selected.version() {
            Some(version) => MailboxRequest::OpenUnless { mailbox, version },
            None => MailboxRequest::Open(mailbox),
        };
        self.changes.mark_unchanged();
        match self.ask(request).await {
            MailboxReply::Unchanged => Ok(()),
            MailboxReply::Opened { info, messages } => {
                let view = self.state.view().unwrap_or(View::Stubs);
                let Some(selected) = self.state.selected_mut() else { return Ok(()) };
                if selected.uid_validity != info.uid_validity {
                    return Err(End::Bye { text: "the mailbox was replaced; select it again" });
                }
                if !selected.is_at(&info) {
                    let seen = self.shared.recent_from(view, &info, !selected.read_only);
                    selected.refresh(&info, messages, seen, may_expunge, &mut self.output.buffer);
                }
                Ok(())
            }
            MailboxReply::Failed(_) => Err(End::Bye { text: "the mailbox is gone; select another" }),
            _ => Err(End::Bye { text: "the postbox gave an answer that does not fit" }),
        }
    }

    /// The name of a mailbox as the postbox knows it.
    pub(super) fn mailbox_name(wire: &[u8]) -> Result<MailboxName, Status> {
        let name = super::utf7::decode(wire).ok_or_else(|| Status::no("CANNOT", "the name is no modified UTF-7"))?;
        MailboxName::new(&name).map_err(|error| Status::no("CANNOT", error.to_string()))
    }
}
