//! The dialogue of one connection: commands in, replies out. Never touches a socket; what it needs of the peer it asks of
//! the port.
//!
//! ```text
//!  Command ──AUTH──▶ Auth ──credentials, *, error──▶ Command
//!     │ ▲
//!     │ └──────────── CRLF.CRLF and its answer ───┐
//!     ├──DATA──▶ Data ────────────────────────────┘
//!     └──QUIT, too many errors or logins──▶ Closed
//! ```

use std::borrow::Cow;

use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MailFrom, RcptTo, Request};

use super::auth::{Credentials, Exchange, ExchangeError, Mechanism, Next};
use super::receive::{Progress, Receiving};
use super::reply::Reply;
use super::{AuthError, RECEIVERS_MAX, ReceiverError, SmtpConfig, SmtpEnvelope, Submit, SubmitError};
use crate::model::Address;

/// Longest command line, line break included: four times what RFC 5321 section 4.5.3.1.4 asks for.
const COMMAND_LINE_MAX: usize = 2048;
/// Longest line of an AUTH exchange (RFC 4954 section 4), and what the connection loop reads at most.
pub const LINE_MAX: usize = 12_288;
/// Wrong logins on a connection; the last one closes it.
const AUTH_FAILURES_MAX: u8 = 3;
/// Commands that made no sense on a connection; the last one closes it.
const ERRORS_MAX: u8 = 20;

#[derive(Debug)]
enum State<S> {
    /// A command is awaited. Entered at the start, left as the picture shows.
    Command,
    /// A response of the mail program is awaited. Entered by AUTH, left when the exchange ends.
    Auth(Exchange),
    /// The text of a mail is awaited. Entered by DATA, left at its end.
    Data(Box<Receiving<S>>),
    /// The connection is to be closed once the reply is out. Never left.
    Closed,
}

#[derive(Debug)]
struct Transaction {
    from: Address,
    receivers: Vec<Address>,
}

/// The session of one connection.
#[derive(Debug)]
pub struct Session<P: Submit> {
    port: P,
    config: SmtpConfig,
    state: State<P::Spool>,
    greeted: bool,
    authenticated: bool,
    auth_failures: u8,
    errors: u8,
    transaction: Option<Transaction>,
}

impl<P: Submit> Session<P> {
    /// A session at its start.
    pub fn new(port: P, config: SmtpConfig) -> Self {
        Self {
            port,
            config,
            state: State::Command,
            greeted: false,
            authenticated: false,
            auth_failures: 0,
            errors: 0,
            transaction: None,
        }
    }

    /// What the server says first.
    pub fn greeting(&self) -> Reply {
        Reply::plain(220, format!("{} ESMTP Roost", self.port.own_address().group()))
    }

    /// Whether the connection is to be closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether bytes go to [`Session::data`] instead of lines to [`Session::line`].
    pub fn takes_data(&self) -> bool {
        matches!(self.state, State::Data(_))
    }

    /// Ends the session.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Answers a line; its line break is part of it.
    pub async fn line(&mut self, line: &[u8]) -> Reply {
        let reply = match std::mem::replace(&mut self.state, State::Command) {
            State::Auth(exchange) => self.auth_response(exchange, line).await,
            State::Command => self.command(line).await,
            // Neither takes lines; the connection loop does not come here.
            state @ (State::Data(_) | State::Closed) => {
                self.state = state;
                Reply::new(421, "4.3.0", "this connection takes no commands")
            }
        };
        self.count(reply)
    }

    /// Answers a line that is longer than [`LINE_MAX`] and was thrown away.
    pub fn overlong_line(&mut self) -> Reply {
        self.state = State::Command;
        self.count(Reply::new(500, "5.5.6", "the line is too long"))
    }

    /// Takes text of a mail; tells how many bytes were taken, and the answer once it is over.
    pub async fn data(&mut self, input: &[u8]) -> (usize, Option<Reply>) {
        let State::Data(receiving) = &mut self.state else { return (0, None) };
        let (taken, progress) = receiving.feed(input, self.config.clock.now().wall).await;
        if progress == Progress::More {
            return (taken, None);
        }
        let next = if progress == Progress::Over { State::Command } else { State::Closed };
        let State::Data(receiving) = std::mem::replace(&mut self.state, next) else { return (taken, None) };
        self.transaction = None;
        let answer = match progress {
            Progress::TooMuch => Err(SubmitError::TooLarge { limit: receiving.max_mail() }),
            Progress::More | Progress::Over => receiving.finish().await,
        };
        let reply = match answer {
            Ok(accepted) => {
                tracing::debug!(submission = %accepted.submission, "mail accepted");
                Reply::new(250, "2.0.0", accepted.text)
            }
            Err(error) => {
                tracing::info!(%error, "mail not accepted");
                Reply::from(&error)
            }
        };
        (taken, Some(reply))
    }

    /// Closes the session where it has had enough.
    fn count(&mut self, reply: Reply) -> Reply {
        let is_error = matches!(reply.code, 500..=504 | 530 | 538 | 555);
        self.errors = self.errors.saturating_add(u8::from(is_error));
        let reply = if self.errors >= ERRORS_MAX {
            Reply::new(421, "4.7.0", "too many errors; check the mail program's settings")
        } else {
            reply
        };
        if reply.closes() {
            self.state = State::Closed;
        }
        reply
    }

    async fn command(&mut self, line: &[u8]) -> Reply {
        let is_auth = line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"));
        if line.len() > COMMAND_LINE_MAX && !is_auth {
            return Reply::new(500, "5.5.6", "the line is too long");
        }
        match Request::parse(&mut line.iter()) {
            Ok(request) => self.request(request).await,
            Err(error) => syntax(&error),
        }
    }

    async fn request(&mut self, request: Request<Cow<'_, str>>) -> Reply {
        match request {
            Request::Ehlo { .. } => self.ehlo(true),
            Request::Helo { .. } => self.ehlo(false),
            Request::Auth { mechanism, initial_response } => self.auth(mechanism, &initial_response).await,
            Request::Mail { from } => self.mail(&from),
            Request::Rcpt { to } => self.rcpt(&to).await,
            Request::Data => self.begin_data().await,
            Request::Rset => {
                self.transaction = None;
                Reply::new(250, "2.0.0", "forgotten")
            }
            Request::Noop { .. } => Reply::new(250, "2.0.0", "fine"),
            Request::Quit => Reply::new(221, "2.0.0", "bye"),
            Request::Vrfy { .. } => Reply::new(252, "2.0.0", "send a mail and see"),
            Request::Help { .. } => {
                Reply::new(214, "2.0.0", "EHLO AUTH MAIL RCPT DATA RSET NOOP QUIT; the login was printed by roost init")
            }
            _ => Reply::new(502, "5.5.1", "this command is not offered"),
        }
    }

    fn ehlo(&mut self, extended: bool) -> Reply {
        self.greeted = true;
        self.transaction = None;
        let name = self.port.own_address().group().to_string();
        if !extended {
            return Reply::plain(250, name);
        }
        let mut lines = vec![
            name,
            "PIPELINING".to_owned(),
            format!("SIZE {}", self.port.max_mail().bytes()),
            "8BITMIME".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
        ];
        if self.config.channel.takes_passwords() {
            lines.push("AUTH PLAIN LOGIN".to_owned());
        }
        Reply { code: 250, enhanced: None, lines }
    }

    async fn auth(&mut self, mechanism: u64, initial: &str) -> Reply {
        if !self.config.channel.takes_passwords() {
            return Reply::new(538, "5.7.11", "passwords are taken only over TLS or on this machine itself");
        }
        if self.authenticated || self.transaction.is_some() {
            return Reply::new(503, "5.5.1", "you are logged in, or in the middle of a mail");
        }
        let mechanism = match mechanism {
            AUTH_PLAIN => Mechanism::Plain,
            AUTH_LOGIN => Mechanism::Login,
            _ => return Reply::new(504, "5.5.4", "use AUTH PLAIN or AUTH LOGIN"),
        };
        match Exchange::begin(mechanism, Some(initial.as_bytes()).filter(|i| !i.is_empty())) {
            Ok((exchange, next)) => self.auth_next(exchange, next).await,
            Err(error) => exchange_error(error),
        }
    }

    async fn auth_response(&mut self, mut exchange: Exchange, line: &[u8]) -> Reply {
        match exchange.answer(line.trim_ascii()) {
            Ok(next) => self.auth_next(exchange, next).await,
            Err(error) => exchange_error(error),
        }
    }

    async fn auth_next(&mut self, exchange: Exchange, next: Next) -> Reply {
        match next {
            Next::Challenge(text) => {
                self.state = State::Auth(exchange);
                Reply::plain(334, text)
            }
            Next::Check(Credentials { login, password }) => match self.port.authenticate(&login, &password).await {
                Ok(()) => {
                    self.authenticated = true;
                    Reply::new(235, "2.7.0", "welcome")
                }
                Err(AuthError::Refused) => {
                    self.auth_failures = self.auth_failures.saturating_add(1);
                    tracing::warn!(failures = self.auth_failures, "wrong login or password");
                    if self.auth_failures >= AUTH_FAILURES_MAX {
                        Reply::new(421, "4.7.0", "too many wrong logins; check the mail program's settings")
                    } else {
                        Reply::from(&AuthError::Refused)
                    }
                }
                Err(busy @ AuthError::Busy { .. }) => Reply::from(&busy),
            },
        }
    }

    /// What stands before every command of a mail.
    fn not_ready(&self) -> Option<Reply> {
        if !self.greeted {
            return Some(Reply::new(503, "5.5.1", "say EHLO first"));
        }
        (!self.authenticated).then(|| Reply::new(530, "5.7.0", "log in first, with AUTH"))
    }

    fn mail(&mut self, from: &MailFrom<Cow<'_, str>>) -> Reply {
        if let Some(reply) = self.not_ready() {
            return reply;
        }
        if self.transaction.is_some() {
            return Reply::new(503, "5.5.1", "one mail after the other: DATA or RSET comes first");
        }
        let unasked = from.flags & !(MAIL_BODY_7BIT | MAIL_BODY_8BITMIME) != 0
            || (from.by, from.hold_for, from.hold_until, from.mt_priority) != (0, 0, 0, 0)
            || from.env_id.is_some()
            || from.solicit.is_some()
            || from.trans_id.is_some()
            || from.mtrk.is_some();
        if unasked {
            return Reply::new(555, "5.5.4", "only SIZE, BODY=7BIT, BODY=8BITMIME and AUTH are offered with MAIL FROM");
        }
        let limit = self.port.max_mail();
        if u64::try_from(from.size).is_ok_and(|size| size > limit.bytes()) {
            return Reply::from(&SubmitError::TooLarge { limit });
        }
        let own = self.port.own_address();
        if from.address.parse::<Address>().as_ref() != Ok(&own) {
            let why = format!("MAIL FROM says <{}>", from.address.chars().take(200).collect::<String>());
            return Reply::from(&SubmitError::FromMismatch { why, own });
        }
        self.transaction = Some(Transaction { from: own, receivers: Vec::new() });
        Reply::new(250, "2.1.0", "sender taken")
    }

    async fn rcpt(&mut self, to: &RcptTo<Cow<'_, str>>) -> Reply {
        if let Some(reply) = self.not_ready() {
            return reply;
        }
        let Some(transaction) = &mut self.transaction else {
            return Reply::new(503, "5.5.1", "MAIL FROM comes first");
        };
        if to.flags != 0 || to.orcpt.is_some() || to.rrvs != 0 {
            return Reply::new(555, "5.5.4", "no parameters are offered with RCPT TO");
        }
        let Ok(receiver) = to.address.parse::<Address>() else {
            let address = to.address.chars().take(200).collect();
            return Reply::from(&ReceiverError::Outside { address });
        };
        if transaction.receivers.contains(&receiver) {
            return Reply::new(250, "2.1.5", "receiver taken already");
        }
        if transaction.receivers.len() >= RECEIVERS_MAX {
            return Reply::new(
                452,
                "4.5.3",
                format!("a mail has at most {RECEIVERS_MAX} receivers; send it again to the others"),
            );
        }
        match self.port.check_receiver(&receiver).await {
            Ok(()) => {
                transaction.receivers.push(receiver);
                Reply::new(250, "2.1.5", "receiver taken")
            }
            Err(error) => Reply::from(&error),
        }
    }

    async fn begin_data(&mut self) -> Reply {
        if let Some(reply) = self.not_ready() {
            return reply;
        }
        let Some(transaction) = &self.transaction else {
            return Reply::new(503, "5.5.1", "MAIL FROM and RCPT TO come first");
        };
        if transaction.receivers.is_empty() {
            return Reply::new(554, "5.5.1", "the mail has no receiver that was taken");
        }
        let envelope = SmtpEnvelope { from: transaction.from.clone(), receivers: transaction.receivers.clone() };
        match self.port.begin(&envelope.receivers).await {
            Ok(spool) => {
                self.state = State::Data(Box::new(Receiving::new(spool, envelope, self.port.max_mail())));
                Reply::plain(354, "send the mail, then a line with a single dot")
            }
            Err(error) => Reply::from(&error),
        }
    }
}

fn exchange_error(error: ExchangeError) -> Reply {
    let enhanced = match error {
        ExchangeError::Cancelled => "5.7.0",
        ExchangeError::Malformed => "5.5.2",
    };
    Reply::new(501, enhanced, error.to_string())
}

fn syntax(error: &Error) -> Reply {
    match error {
        Error::UnknownCommand => Reply::new(500, "5.5.1", "there is no such command"),
        Error::InvalidSenderAddress => {
            Reply::new(501, "5.1.7", "MAIL FROM has no address; write MAIL FROM:<name@group>")
        }
        Error::InvalidRecipientAddress => {
            Reply::new(501, "5.1.3", "RCPT TO has no address; write RCPT TO:<name@group>")
        }
        Error::SyntaxError { syntax } => Reply::new(501, "5.5.4", format!("write {syntax}")),
        Error::InvalidParameter { param } => Reply::new(501, "5.5.4", format!("{param} has no such value")),
        Error::UnsupportedParameter { param } => Reply::new(555, "5.5.4", format!("{param} is not offered")),
        _ => Reply::new(500, "5.5.2", "the command cannot be read"),
    }
}
