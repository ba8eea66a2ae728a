//! What a mail program may ask of the postbox, and what it is answered: the whole contract between `mail/imap` and the brain.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::WallTime;

/// Which of the two logins asks (DESIGN.md section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum View {
    /// `alice`: stubs are shown.
    Stubs,
    /// `alice+full`: a message is shown once its body is here; UIDs and UIDVALIDITY of its own.
    Full,
}

/// Name of a mailbox, UTF-8, `/` between levels. INBOX is compared without case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailboxName(String);

/// Longest name of a mailbox, bytes.
pub const MAILBOX_NAME_MAX: usize = 255;

/// The text is no name of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no name of a mailbox: 1 to 255 bytes, no control characters, no empty level")]
pub struct MailboxNameError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl MailboxName {
    /// The name in `text`.
    ///
    /// # Errors
    /// [`MailboxNameError`] when it is empty, too long, or has control characters or an empty level.
    pub fn new(text: &str) -> Result<Self, MailboxNameError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let fits = !text.is_empty() && text.len() <= MAILBOX_NAME_MAX;
        if !fits || text.chars().any(char::is_control) || text.split('/').any(str::is_empty) {
            return Err(MailboxNameError { text: text.chars().take(80).collect() });
        }
        if text.eq_ignore_ascii_case("inbox") {
            return Ok(Self::inbox());
        }
        Ok(Self(text.to_owned()))
    }
    /// INBOX.
    pub fn inbox() -> Self {
        Self("INBOX".to_owned())
    }
    /// One of the mailboxes that every peer has.
    pub fn standard(which: Standard) -> Self {
        Self(which.name().to_owned())
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The mailboxes that every peer has. They cannot be deleted or renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standard {
    /// Mail of known senders, stubs and bodies.
    Inbox,
    /// Cards of first mails from unknown senders.
    Requests,
    /// Own mail that still waits; deleting there cancels.
    Outbox,
    /// Filed by the mail program.
    Sent,
    /// Filed by the mail program.
    Drafts,
    /// Moving a request here refuses its sender for good.
    Junk,
    /// A stub here is still a stub.
    Trash,
}

impl Standard {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Standard; 7] = [
        Standard::Inbox,
        Standard::Requests,
        Standard::Outbox,
        Standard::Sent,
        Standard::Drafts,
        Standard::Junk,
        Standard::Trash,
    ];
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Standard::Inbox => "INBOX",
            Standard::Requests => "Requests",
            Standard::Outbox => "Outbox",
            Standard::Sent => "Sent",
            Standard::Drafts => "Drafts",
            Standard::Junk => "Junk",
            Standard::Trash => "Trash",
        }
    }
}

/// Unique identifier of a message in one mailbox and view (RFC 3501 section 2.3.1.1); never 0, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub u32);

/// A message's files in `mail/`: `KEY.head` (header block and structure) and, once it is here, `KEY.body` (the clear mail).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageKey(pub u64);

/// A flag or keyword (RFC 3501 section 2.3.2). `\Recent` is the session's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Flag {
    /// `\Seen`; set by the server only together with the body.
    Seen,
    /// `\Answered`
    Answered,
    /// `\Flagged`
    Flagged,
    /// `\Deleted`
    Deleted,
    /// `\Draft`
    Draft,
    /// A keyword, for example `$Forwarded`, or the server's own: `$Sealed`, `$Announced`, `$Safe0`, `$Cancelled`, `$Expired`.
    Keyword(String),
}

/// Where a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BodyState {
    /// On this peer's disk.
    Here,
    /// Not pulled yet: the message is a stub.
    Absent,
    /// Never to be had: the sender took it back.
    Cancelled,
    /// Never to be had: its time was over.
    Expired,
}

/// A message as a mailbox lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its identifier in this mailbox and view.
    pub uid: Uid,
    /// Its files.
    pub key: MessageKey,
    /// Its flags and keywords.
    pub flags: BTreeSet<Flag>,
    /// INTERNALDATE.
    pub internal_date: WallTime,
    /// RFC822.SIZE, exact, also for a stub.
    pub size: u64,
    /// Where its body is.
    pub body: BodyState,
}

/// A mailbox in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Its name.
    pub name: MailboxName,
    /// Which of the standard ones it is.
    pub standard: Option<Standard>,
    /// Whether it is subscribed.
    pub subscribed: bool,
    /// UIDVALIDITY of this view.
    pub uid_validity: u32,
    /// The next UID of this view.
    pub uid_next: Uid,
    /// Messages in this view.
    pub exists: u32,
    /// Messages without `\Seen`.
    pub unseen: u32,
    /// Grows with every change of the mailbox.
    pub version: u64,
}

/// How flags are changed (RFC 3501 section 6.4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagChange {
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
    /// `FLAGS`
    Replace,
}

/// What a mail program asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxRequest {
    /// Every mailbox. Answered with `Mailboxes`.
    List,
    /// One mailbox and its messages, ascending by UID. Answered with `Opened`.
    Open(MailboxName),
    /// The same unless it is what it was at this version. Answered with `Opened` or `Unchanged`.
    OpenUnless {
        /// Which.
        mailbox: MailboxName,
        /// As an earlier answer said.
        version: u64,
    },
    /// Changes flags; unknown UIDs are passed over. Answered with `Changed`.
    Flags {
        /// Where.
        mailbox: MailboxName,
        /// Which messages.
        uids: Vec<Uid>,
        /// How.
        change: FlagChange,
        /// Which flags.
        flags: BTreeSet<Flag>,
    },
    /// Copies messages; all or none. Answered with `Copied`.
    Copy {
        /// From where.
        mailbox: MailboxName,
        /// Which messages.
        uids: Vec<Uid>,
        /// To where.
        to: MailboxName,
    },
    /// Moves messages (RFC 6851); all or none. A request that is moved to INBOX grants its sender. Answered with `Copied`.
    Move {
        /// From where.
        mailbox: MailboxName,
        /// Which messages.
        uids: Vec<Uid>,
        /// To where.
        to: MailboxName,
    },
    /// Removes messages for good: those of `uids`, or all, that have `\Deleted`. Answered with `Expunged`.
    Expunge {
        /// Where.
        mailbox: MailboxName,
        /// Only these.
        uids: Option<Vec<Uid>>,
    },
    /// Files a message that lies, durable, at `file` (a temporary file in `mail/` that the postbox takes over). Answered with `Appended`.
    Append {
        /// Where.
        mailbox: MailboxName,
        /// The clear mail.
        file: PathBuf,
        /// Its flags.
        flags: BTreeSet<Flag>,
        /// INTERNALDATE; now when absent.
        internal_date: Option<WallTime>,
    },
    /// Opens a body: pulls it when it is not here. Answered with `Body` once it is here or cannot be had.
    Body {
        /// Where.
        mailbox: MailboxName,
        /// Which message.
        uid: Uid,
    },
    /// How far the pull of a body is. Answered with `Pulled`.
    Progress {
        /// The message.
        key: MessageKey,
    },
    /// Makes a mailbox, and its parents. Answered with `Done`.
    Create(MailboxName),
    /// Removes a mailbox with its messages. Answered with `Done`.
    Delete(MailboxName),
    /// Renames a mailbox and what is below it. Answered with `Done`.
    Rename {
        /// Its name.
        from: MailboxName,
        /// Its new name.
        to: MailboxName,
    },
    /// Subscribes or unsubscribes. Answered with `Done`.
    Subscribe {
        /// Which mailbox.
        mailbox: MailboxName,
        /// Whether it is subscribed from now on.
        subscribed: bool,
    },
}

/// What a mail program is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxReply {
    /// Every mailbox.
    Mailboxes(Vec<MailboxInfo>),
    /// One mailbox and its messages, ascending by UID.
    Opened {
        /// The mailbox.
        info: MailboxInfo,
        /// Its messages.
        messages: Vec<Message>,
    },
    /// The mailbox is what it was.
    Unchanged,
    /// Messages whose flags are different now, as they are now.
    Changed(Vec<Message>),
    /// Source and target UID of each message, with the target's UIDVALIDITY; empty when targets are new messages (a request).
    Copied {
        /// UIDVALIDITY of the target.
        uid_validity: u32,
        /// Source and target.
        uids: Vec<(Uid, Uid)>,
    },
    /// What was removed.
    Expunged(Vec<Uid>),
    /// UIDVALIDITY and UID of the filed message.
    Appended(u32, Uid),
    /// The clear mail lies at this path, whole and checked.
    Body(PathBuf),
    /// Percent of the pull that runs, if one runs.
    Pulled(Option<u8>),
    /// It is done.
    Done,
    /// It is not, and why.
    Failed(MailboxFailure),
}

/// Why a request failed; the session turns each into a response code (RFC 5530).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxFailure {
    /// `[NONEXISTENT]`, or `[TRYCREATE]` for a target.
    #[error("there is no mailbox {0}")]
    NoMailbox(MailboxName),
    /// `[NONEXISTENT]`
    #[error("there is no such message")]
    NoMessage,
    /// `[ALREADYEXISTS]`
    #[error("there is a mailbox {0} already")]
    Exists(MailboxName),
    /// `[CANNOT]`
    #[error("{0}")]
    Cannot(String),
    /// `[UNAVAILABLE]`: the body cannot be had now; how many parts or members are missing. The next open asks all again.
    #[error("{0}")]
    Unavailable(String),
    /// `[NONEXISTENT]`: the body can never be had.
    #[error("{0}")]
    Gone(String),
    /// `[OVERQUOTA]` or `[LIMIT]`.
    #[error("{0}")]
    Limit(String),
}
