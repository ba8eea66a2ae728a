//! The IMAP4rev1 server (RFC 3501) for the user's own mail program. Never decides about mail: it asks the postbox, and it
//! never says OK to a body that was not delivered.
//!
//! Participants: a mail program on loopback, this server, and a [`MailStore`] that stands for the postbox.
//!
//! Goals: what mail programs expect (Thunderbird, mutt, phones, Python's imaplib, curl), bodies pulled only when their text
//! is asked for, bounded memory whatever a body's size. Non-goals: TLS (the listener is on loopback), search indexes, rights.
//!
//! ```text
//!   bytes ──▶ input ──▶ command ──▶ connection ──▶ MailStore
//!                                    │  session: which commands are allowed now
//!                                    │  selected: sequence numbers, what changed
//!   bytes ◀── output ◀── respond, envelope, bodystructure
//! ```

mod addresses;
mod append;
mod auth;
mod body_file;
mod bodystructure;
mod command;
mod connection;
mod cursor;
mod envelope;
mod fetch;
mod fetch_item;
mod idle;
mod input;
mod list;
mod list_request;
mod mailbox;
mod output;
mod pull;
mod respond;
mod search;
mod search_key;
mod search_text;
mod selected;
mod sequence;
mod server;
mod session;
mod transfer;
mod utf7;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::core::postbox::access::{MailboxReply, MailboxRequest, MessageKey, View};
use crate::model::structure::Structure;

pub use auth::login_view;
pub use server::{serve, serve_connection};

/// What is known of a message without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The header block, its empty line included.
    pub header_block: Vec<u8>,
    /// The shape of the mail.
    pub structure: Structure,
}

/// Why a login was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Name and password do not belong together, or the name is not this peer's.
    #[error("no such login; use this peer's name and its app password")]
    Refused,
    /// It cannot be told now.
    #[error("logins cannot be checked now: {reason}; try again")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// What the server needs of the postbox.
pub trait MailStore: Clone + Send + Sync + 'static {
    /// Which view the login opens; [`login_view`] reads its name.
    ///
    /// # Errors
    /// [`AuthError`] when it opens none.
    fn authenticate(&self, login: &str, password: &str) -> impl Future<Output = Result<View, AuthError>> + Send;
    /// Asks the postbox. A `Body` request is answered when the body is here or cannot be had; the caller may stop waiting.
    fn request(&self, view: View, request: MailboxRequest) -> impl Future<Output = MailboxReply> + Send;
    /// What is known of a message without its body.
    ///
    /// # Errors
    /// `NotFound` when the message is gone.
    fn head(&self, key: MessageKey) -> impl Future<Output = io::Result<Arc<Head>>> + Send;
    /// Grows whenever any mailbox changed.
    fn changes(&self) -> watch::Receiver<u64>;
    /// A name in `mail/` that nobody uses, for a message that is being appended.
    fn append_path(&self) -> PathBuf;
}

/// The bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImapConfig {
    /// Connections at a time; a mail program opens up to five for each login.
    pub connections: usize,
    /// How long a connection may stay without a command (RFC 3501 section 5.4: at least 30 minutes).
    pub idle_timeout: Duration,
    /// How long a connection may take to log in.
    pub login_timeout: Duration,
    /// How long the mail program may take to read what was sent to it.
    pub write_timeout: Duration,
    /// Failed logins until the connection is closed.
    pub auth_attempts: u32,
    /// Pause after a failed login.
    pub auth_pause: Duration,
    /// How often `* OK still pulling` is sent while a body is pulled.
    pub progress_every: Duration,
    /// Bodies pulled at a time for one FETCH.
    pub pulls: usize,
    /// Largest message that APPEND takes, bytes.
    pub append_max: u64,
    /// How long connections may go on after the server was told to stop.
    pub grace: Duration,
}

impl Default for ImapConfig {
    fn default() -> Self {
        Self {
            connections: 64,
            idle_timeout: Duration::from_secs(30 * 60),
            login_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(5 * 60),
            auth_attempts: 5,
            auth_pause: Duration::from_secs(1),
            progress_every: Duration::from_secs(5),
            pulls: 4,
            append_max: 1 << 30,
            grace: Duration::from_secs(2),
        }
    }
}

/// Why a connection ends before the mail program logs out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The mail program is gone.
    #[error("the mail program closed the connection")]
    Closed,
    /// The connection or a file failed in the middle of a response.
    #[error("the connection cannot go on: {source}; the mail program connects again by itself")]
    Io {
        /// What failed.
        #[from]
        source: io::Error,
    },
    /// The server ends it, and tells the mail program why.
    #[error("the server closed the connection: {text}")]
    Bye {
        /// What the mail program is told.
        text: &'static str,
    },
}
