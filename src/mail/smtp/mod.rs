//! SMTP submission (RFC 6409) for the user's own mail program. Never relays, and never says 250 before the mail is on disk.
//!
//! Participants: the mail program, a [`Session`] per connection, and behind the port [`Submit`] whoever owns the spool.
//! Goals: one mail after the other goes from the socket through the [`Splitter`](crate::mime::Splitter) into the spool
//! without being held in memory; its bytes after the header block are those that were submitted. Non-goals: relaying,
//! delivery, encryption, knowing who the receivers are.
//!
//! What submission changes: Bcc goes, Date and Message-ID come when they are missing (RFC 6409 section 8). Nothing else.

pub mod auth;
pub mod complete;
pub mod data;
#[cfg(any(test, feature = "fuzzing"))]
pub mod memory;
pub mod receive;
pub mod reply;
pub mod server;
pub mod session;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

pub use server::{serve, serve_connection};
pub use session::Session;

use crate::mime::Split;
use crate::model::notification::NS_HEADERS_MAX;
use crate::model::{Address, ByteSize, SubmissionId};

/// Most receivers of one mail.
pub const RECEIVERS_MAX: usize = 100;

/// Who a mail is from and for, as the SMTP commands say; Bcc receivers are only here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpEnvelope {
    /// MAIL FROM: always this peer's own address.
    pub from: Address,
    /// RCPT TO, each once, in the order they came.
    pub receivers: Vec<Address>,
}

/// A mail whose bytes are all in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Who it is from and for.
    pub envelope: SmtpEnvelope,
    /// Header block and structure of the bytes in the spool. The header block is whole.
    pub split: Split,
}

/// The answer to a mail that is durable now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What "once" is counted by.
    pub submission: SubmissionId,
    /// What the mail program is told with the 250, one line.
    pub text: String,
}

/// Why a login is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Wrong login or password.
    #[error("login or password is wrong; the login is your name, the password was printed by roost init")]
    Refused,
    /// It cannot be checked now.
    #[error("the login cannot be checked now: {why}; try again")]
    Busy {
        /// What stands in the way.
        why: String,
    },
}

/// Why a receiver is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// The group is known and has no such member.
    #[error("{address} is not known in its group; check the name")]
    Unknown {
        /// The receiver.
        address: Address,
    },
    /// Mail outside the network.
    #[error(
        "{address} is outside: Roost carries mail only between Roost groups; if it is in one, add its card first (roost contacts add)"
    )]
    Outside {
        /// The receiver as it was given, cut to 200 characters.
        address: String,
    },
    /// It cannot be checked now.
    #[error("{address} cannot be checked now: {why}; try again")]
    Busy {
        /// The receiver.
        address: Address,
        /// What stands in the way.
        why: String,
    },
}

/// Why a mail is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The mail is larger than the group's policy allows.
    #[error("the mail is larger than {limit}, the largest that this group takes; send less or change max_mail")]
    TooLarge {
        /// The bound.
        limit: ByteSize,
    },
    /// Header block and structure do not fit an ns.
    #[error(
        "the mail's header and structure take {found} bytes, at most {NS_HEADERS_MAX} travel with the notification; \
         use fewer receivers in To and Cc or fewer parts"
    )]
    HeadersTooLarge {
        /// Their bytes, or as many as were counted.
        found: u64,
    },
    /// No room in the spool.
    #[error("there is no room on this peer's disk; free some and send again")]
    DiskFull,
    /// MAIL FROM or From is not this peer's address.
    #[error("{why}; this peer sends only as {own}")]
    FromMismatch {
        /// What does not fit.
        why: String,
        /// This peer's address.
        own: Address,
    },
    /// The group does not name this peer any more.
    #[error(
        "{own} is no member of its group any more and sends nothing; `roost group join` with a new invite brings it back"
    )]
    NoMember {
        /// This peer's address.
        own: Address,
    },
    /// A receiver turned out to be unknown or outside.
    #[error("{source}")]
    Receiver {
        /// Which one and why.
        source: ReceiverError,
    },
    /// A CR without LF or an LF without CR: other programs would see other mails in the same bytes.
    #[error("the mail has a bare CR or LF; its lines must end in CRLF (curl: --crlf)")]
    BareLineBreak,
    /// A bound was met that passes.
    #[error("this peer is busy: {why}; try again")]
    Busy {
        /// Which bound.
        why: String,
    },
    /// Something broke; the log says more.
    #[error("this peer could not take the mail: {why}; try again, and look at its log")]
    Internal {
        /// What broke, without secrets.
        why: String,
    },
}

/// The port to whoever owns the spool. Cheap to clone: each connection has one.
pub trait Submit: Clone + Send + Sync + 'static {
    /// A mail that is being written to the spool. Dropped without a commit it leaves nothing behind.
    type Spool: Spool;

    /// This peer's address: the only one that mail is accepted from.
    fn own_address(&self) -> Address;
    /// Checks a login.
    fn authenticate(&self, login: &str, password: &str) -> impl Future<Output = Result<(), AuthError>> + Send;
    /// Whether mail for this receiver can be accepted, as far as that is known without waiting for others.
    fn check_receiver(&self, receiver: &Address) -> impl Future<Output = Result<(), ReceiverError>> + Send;
    /// Largest mail that is taken now; it changes with the group's policy, and when the peer gets its group.
    fn max_mail(&self) -> ByteSize;
    /// Begins a mail to these receivers.
    fn begin(&self, receivers: &[Address]) -> impl Future<Output = Result<Self::Spool, SubmitError>> + Send;
}

/// One mail on its way into the spool.
pub trait Spool: Send + 'static {
    /// Its submission id.
    fn submission(&self) -> SubmissionId;
    /// Appends bytes of the mail.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), SubmitError>> + Send;
    /// Makes the mail and its envelope durable and hands it over. Only an answer of this gives a 250 (R1).
    fn commit(self, mail: Submitted) -> impl Future<Output = Result<Accepted, SubmitError>> + Send;
    /// The mail is refused: when this is over, nothing of it is left. One that is dropped instead is removed a moment later.
    fn abandon(self) -> impl Future<Output = ()> + Send;
}

/// How the connection to the mail program is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Both ends are on this machine; passwords may pass.
    Loopback,
    /// Implicit TLS; passwords may pass.
    Tls,
    /// Neither: AUTH is not offered and refused.
    Open,
}

impl Channel {
    /// Whether a password may pass.
    pub fn takes_passwords(self) -> bool {
        !matches!(self, Channel::Open)
    }
}

/// Bounds and names of the server.
#[derive(Clone)]
pub struct SmtpConfig {
    /// How connections are protected.
    pub channel: Channel,
    /// Reads the time for the Date of a mail that has none.
    pub clock: crate::clock::Clock,
    /// A connection that says nothing, or takes no answer, for so long is closed (RFC 5321 section 4.5.3.2: 5 minutes).
    pub idle: Duration,
    /// Most connections at a time.
    pub connections_max: usize,
    /// How long connections may take to finish once the server is told to stop.
    pub grace: Duration,
}

impl SmtpConfig {
    /// The defaults: loopback.
    pub fn new(clock: crate::clock::Clock) -> Self {
        Self {
            channel: Channel::Loopback,
            clock,
            idle: Duration::from_secs(300),
            connections_max: 64,
            grace: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for SmtpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpConfig").field("channel", &self.channel).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
