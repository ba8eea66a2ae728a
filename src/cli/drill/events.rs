//! What a drill sees, in order, with the moment of each. It holds what was seen from outside, and judges nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A mail of a drill: they are numbered.
pub(super) type MailNo = u32;

/// A rule of the design, by its number: 2 is R2.
pub(super) type Rule = u8;

/// What a peer answers who is asked to take a mail back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Nobody can read it any more.
    Cancelled,
    /// The reader has it.
    TooLate,
    /// Not known yet.
    Uncertain,
}

/// How a peer went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// SIGKILL, as by a power cut.
    Killed,
    /// A clean stop.
    Stopped,
    /// It is there, and answers nobody: SIGSTOP, or cut off.
    Silent,
}

/// More was shown than the disks bear out, before the look at them and after it, twice in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Short {
    /// Who shows it.
    pub(super) owner: String,
    /// Members that are said to hold what is not on their disks.
    pub(super) lacks: Vec<String>,
    /// From before the first question to its peer until after the last.
    pub(super) look: Duration,
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// SMTP said 250.
    Taken {
        /// Which mail.
        mail: MailNo,
        /// At whose peer.
        from: String,
    },
    /// SMTP said no, in these words.
    Refused {
        /// Which mail.
        mail: MailNo,
        /// Its words.
        said: String,
    },
    /// The connection broke before an answer: it may have been taken or not.
    Unclear {
        /// Which mail.
        mail: MailNo,
    },
    /// A reader begins to open it.
    Opening {
        /// Which mail.
        mail: MailNo,
    },
    /// A reader has it.
    Opened {
        /// Which mail.
        mail: MailNo,
        /// Whether it is what was submitted, to the byte.
        identical: bool,
    },
    /// It could not be had, or its peer went away while it was opened.
    NotHad {
        /// Which mail.
        mail: MailNo,
        /// Whether the reader's peer was there to say so.
        answered: bool,
    },
    /// Its sender's peer was asked to take it back.
    CancelSaid {
        /// Which mail.
        mail: MailNo,
        /// The answer.
        word: Word,
    },
    /// Its sender has so many notices that it failed.
    Told {
        /// Which mail.
        mail: MailNo,
        /// How many.
        times: u32,
    },
    /// It is so many times in the reader's mailboxes at the end.
    Copies {
        /// Which mail.
        mail: MailNo,
        /// How many times.
        copies: u32,
    },
    /// It is no longer on its sender's disk, where it was.
    Freed {
        /// Which mail.
        mail: MailNo,
    },
    /// What safe(f) its sender's peer shows, and what the disks of the members it names bear out.
    Claimed {
        /// Which mail.
        mail: MailNo,
        /// As it is shown.
        shown: i32,
        /// As counted on disks.
        counted: i32,
        /// Who is said to hold what.
        holders: String,
        /// Where it is not as it is said.
        short: Option<Short>,
    },
    /// Parts of a mail that ended are still on a disk.
    Remains {
        /// Which mail.
        mail: MailNo,
        /// On whose.
        peer: String,
    },
    /// Disks were searched for clear mail.
    Searched {
        /// How many files.
        files: usize,
    },
    /// A clear mail is on a disk where it must not be.
    Clear {
        /// On whose.
        peer: String,
        /// In which file.
        file: String,
    },
    /// A peer goes away.
    Down {
        /// Which.
        peer: String,
        /// How.
        how: Gone,
    },
    /// It is back.
    Up {
        /// Which.
        peer: String,
    },
    /// All that was due came to an end.
    Settled {
        /// How long it took since the load stopped.
        took: Duration,
        /// What did not, when something did not.
        open: Vec<String>,
    },
    /// It was looked whether anybody still writes to any file of a home but its log.
    Rests {
        /// What was written last, when somebody does.
        written: Option<String>,
    },
    /// What all peers together sent while nothing was to be done.
    Idle {
        /// Packets.
        sent: u64,
        /// How many peers there are.
        peers: usize,
        /// For how long it was counted.
        took: Duration,
        /// Between two heartbeats, as the policy wants.
        beat: Duration,
    },
    /// The keys and members that a peer goes by.
    Pins {
        /// Which peer.
        peer: String,
        /// How they differ from those before the drill, if they do.
        differ: Option<String>,
    },
    /// The most memory that a peer had.
    Memory {
        /// Which peer.
        peer: String,
        /// Bytes.
        bytes: u64,
    },
    /// Something that only one scenario looks at.
    Checked {
        /// For which rule.
        rule: Rule,
        /// Whether it is so.
        ok: bool,
        /// What was looked at.
        why: String,
    },
}

/// An event and its moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Since the drill's start.
    pub(super) at: Duration,
    /// What was seen.
    pub(super) event: Event,
}

/// Everything seen so far. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Log {
    start: Instant,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Log {
    /// Nothing yet; time starts now.
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), seen: Arc::default() }
    }
    /// Since the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }
    /// Something was seen.
    pub(super) fn add(&self, event: Event) {
        let mut seen = self.lock();
        // Under the lock, so that moments follow each other.
        let at = self.now();
        seen.push(Seen { at, event });
    }
    /// The answer of `look` to all that was seen.
    pub(super) fn look<T>(&self, look: impl FnOnce(&[Seen]) -> T) -> T {
        look(&self.lock())
    }
    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        // What a thread that died had pushed is whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
