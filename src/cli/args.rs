//! What can be typed: every command, its options and its help, as types. It does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::args::BenchCommand;
use super::drill::args::DrillArgs;
use super::outbox::OutboxArgs;
use crate::model::policy::KOfN;
use crate::model::{Address, ByteSize, Fingerprint, GroupName, LocalName, Mode, Policy, Span};

/// E-mail for a team without a mail server.
#[derive(Debug, Parser)]
#[command(
    name = "roost",
    version,
    about,
    after_help = "First steps:\n  roost demo                              see it work on this machine, nothing to configure\n  \
                  roost init alice@acme                   make a home for your peer\n  \
                  roost up                                run it\n  \
                  roost group create acme                 found a group, then `roost group invite --as bob`\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong use."
)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
    /// Prints one JSON object on one line, the last of standard output; all else goes to standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The peer's home, or a cluster's folder [default: ~/.roost]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows on this machine that a mail survives its sender: real peers, real SMTP and IMAP
    Demo(DemoArgs),
    /// Makes a home: keys, config, an app password; prints what to type into a mail program
    Init(InitArgs),
    /// Runs a peer in the foreground
    Up(UpArgs),
    /// The life of a group: create, invite, join, policy, grant, remove, leave, recover, status
    #[command(subcommand)]
    Group(GroupCommand),
    /// Many peers on this machine from one file
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Sends a mail
    Send(SendArgs),
    /// Lists the messages of a mailbox
    Inbox(InboxArgs),
    /// Opens a message, pulling its body when that is not here
    Read(ReadArgs),
    /// Lists what waits in the outbox, who holds it, and what ended of late without being received
    Outbox(OutboxArgs),
    /// Takes a mail back, as far as it can be
    Cancel(CancelArgs),
    /// Lists first mails of unknown senders, which wait for consent, and the senders that were judged
    Requests,
    /// Accepts a sender: its mail comes to INBOX, now and later
    Accept(AcceptArgs),
    /// Refuses a sender for good
    Refuse(RefuseArgs),
    /// Proves who wrote a kept mail, and that not a byte of it was changed
    Verify(VerifyArgs),
    /// Prints this peer's contact card: one line and a QR code
    Card,
    /// People outside the group: list, add, remove
    #[command(subcommand)]
    Contacts(ContactsCommand),
    /// This peer: what waits, what is safe, who holds what, what needs attention
    Status,
    /// Checks home, rights, config, ports, clock and index
    Doctor(DoctorArgs),
    /// Prints the link to the web page of this peer
    Console,
    /// Measures: the papers' figures and ours
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Makes real peers fail under steady mail, and tells whether every rule held
    Drill(DrillArgs),
    /// Writes identity, keys, config, mail and journal of a peer, running or not, into one file
    Backup(BackupArgs),
}

/// `roost init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  roost init alice@acme --home ~/.roost\n  roost init --restore alice.roost-backup --home ~/.roost"
)]
pub(super) struct InitArgs {
    /// The user's address, name@group
    #[arg(required_unless_present_any = ["new_password", "restore"])]
    pub(super) address: Option<Address>,
    /// Makes the home out of a file that `roost backup` wrote; an address must then be the one in it
    #[arg(long, value_name = "FILE", conflicts_with = "new_password")]
    pub(super) restore: Option<PathBuf>,
    /// Replaces the app password of a home that is there, and changes nothing else
    #[arg(long)]
    pub(super) new_password: bool,
}

/// `roost up`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  roost up --home ~/.roost\n\nStop it with Ctrl-C. ROOST_LOG=debug prints more.")]
pub(super) struct UpArgs {
    /// Runs in a session of its own, as `roost cluster` starts its peers
    #[arg(long, hide = true)]
    pub(super) detached: bool,
}

/// `roost group …`.
#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Founds the group of this peer's address
    #[command(after_help = "Examples:\n  roost group create acme\n  roost group create acme --mode full --copies 2")]
    Create {
        /// Its name: the part of your address after the @
        name: GroupName,
        /// How its members' mail is kept.
        #[command(flatten)]
        policy: PolicyArgs,
    },
    /// Prints an invite: one line and a QR code, good once, for a day
    #[command(after_help = "Examples:\n  roost group invite --as bob\n  roost group invite --as bob --valid 7d")]
    Invite {
        /// The name that the new member gets
        #[arg(long = "as", value_name = "NAME")]
        name: LocalName,
        /// How long it is good, for example "10 min"; at most "30 d"
        #[arg(long, value_name = "SPAN", default_value = "24 h")]
        valid: Span,
    },
    /// Joins a group by an invite; on an empty home it does `init` first
    #[command(after_help = "Example:\n  roost group join roost-invite:…")]
    Join {
        /// The line that `roost group invite` printed
        code: String,
    },
    /// Shows the policy, or changes what is named
    #[command(after_help = "Examples:\n  roost group policy\n  roost group policy --mode fragments --k 3 --n 5")]
    Policy(PolicyArgs),
    /// Has a member hold the group key too: it can then invite, admit, remove, and change the policy
    #[command(after_help = "Example:\n  roost group grant bob@acme")]
    Grant {
        /// The member
        address: Address,
    },
    /// Removes a member; if it held the group key, the key is replaced and a new recovery code printed
    #[command(
        after_help = "Example:\n  roost group remove frank@acme\n\nWhat it sent before stays readable until it ends, while enough of those that hold it stay; members and contacts follow a replaced key by themselves."
    )]
    Remove {
        /// The member
        address: Address,
    },
    /// Leaves the group, once others hold what this peer held and its outbox is empty
    #[command(
        after_help = "Examples:\n  roost group leave\n  roost group leave --now     at once; says what that costs\n  roost group leave --stay    after a leave that was broken off"
    )]
    Leave {
        /// Does not wait
        #[arg(long, conflicts_with = "stay")]
        now: bool,
        /// Stays after all
        #[arg(long)]
        stay: bool,
    },
    /// Takes the group over with its recovery code, when all that held its key are gone
    #[command(
        after_help = "Example:\n  roost group recover roost-recovery:…\n\nThe key is replaced, only this peer holds the new one, and a new recovery code is printed."
    )]
    Recover {
        /// The line that `roost group create` printed
        code: String,
    },
    /// Prints the recovery code of the group's key, at a peer that holds it
    #[command(after_help = "Example:\n  roost group recovery-code")]
    RecoveryCode,
    /// Its members, who is up, who acts, what is degraded
    Status,
}

/// What can be set of a policy.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PolicyArgs {
    /// Whole copies or fragments
    #[arg(long)]
    pub(super) mode: Option<ModeArg>,
    /// Fragments that a reader needs
    #[arg(long)]
    pub(super) k: Option<u8>,
    /// Fragments that members hold, one each, the owner not counted
    #[arg(long)]
    pub(super) n: Option<u8>,
    /// Whole copies at members, the owner not counted: for mode full, and for small mails
    #[arg(long)]
    pub(super) copies: Option<u8>,
    /// Sealed mails smaller than this are kept whole, for example 64KiB
    #[arg(long, value_name = "SIZE")]
    pub(super) whole_below: Option<ByteSize>,
    /// A member silent this long is replaced, for example 1h
    #[arg(long, value_name = "TIME")]
    pub(super) lost_after: Option<Span>,
    /// Largest mail that is taken, for example 1GiB
    #[arg(long, value_name = "SIZE")]
    pub(super) max_mail: Option<ByteSize>,
    /// A mail's validity, at most 30d
    #[arg(long, value_name = "TIME")]
    pub(super) life: Option<Span>,
}

impl PolicyArgs {
    /// Whether nothing is set.
    pub(super) fn is_empty(&self) -> bool {
        let counts = [self.k, self.n, self.copies].iter().all(Option::is_none);
        let sizes = self.whole_below.is_none() && self.max_mail.is_none();
        counts && sizes && self.mode.is_none() && self.lost_after.is_none() && self.life.is_none()
    }

    /// `policy` with what is set.
    pub(super) fn over(&self, policy: Policy) -> Policy {
        let KOfN { k, n } = policy.fragments;
        Policy {
            mode: self.mode.map_or(policy.mode, Mode::from),
            fragments: KOfN { k: self.k.unwrap_or(k), n: self.n.unwrap_or(n) },
            copies: self.copies.unwrap_or(policy.copies),
            whole_below: self.whole_below.unwrap_or(policy.whole_below),
            lost_after: self.lost_after.unwrap_or(policy.lost_after),
            max_mail: self.max_mail.unwrap_or(policy.max_mail),
            life: self.life.unwrap_or(policy.life),
        }
    }
}

/// [`Mode`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArg {
    /// Every holder has the whole sealed mail
    Full,
    /// Every holder has one of n fragments; any k rebuild the mail
    Fragments,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Mode {
        match mode {
            ModeArg::Full => Mode::Full,
            ModeArg::Fragments => Mode::Fragments,
        }
    }
}

/// `roost cluster …`. `--home DIR` is the cluster's folder.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Makes and starts every peer of the file; on an existing folder starts what is there and finishes what is missing
    #[command(after_help = "Example:\n  roost cluster up cluster-config/team-of-six.toml --home six")]
    Up {
        /// A file of cluster-config/
        file: PathBuf,
    },
    /// Every peer: its ports, its password, whether it runs
    Status,
    /// Kills peers with SIGKILL, as a power cut would
    #[command(after_help = "Example:\n  roost cluster kill alice@acme bob --home six")]
    Kill(PeersArgs),
    /// Stops peers cleanly
    Stop(PeersArgs),
    /// Starts peers again
    Start(PeersArgs),
    /// Stops every peer; nothing is deleted
    Down,
}

/// Which peers of a cluster.
#[derive(Debug, Args)]
pub(super) struct PeersArgs {
    /// Addresses, or names alone
    #[arg(required = true, value_name = "ADDRESS")]
    pub(super) peers: Vec<String>,
}

/// `roost demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  roost demo\n  roost demo --mode full --size 64MiB\n  roost demo --mail my.eml --keep --home demo"
)]
pub(super) struct DemoArgs {
    /// How the group keeps the mail
    #[arg(long, default_value = "fragments")]
    pub(super) mode: ModeArg,
    /// Length of the attachment
    #[arg(long, default_value = "8MiB", conflicts_with = "mail")]
    pub(super) size: ByteSize,
    /// Members that are killed besides the sender [default: as many as may fail]
    #[arg(long, value_name = "N")]
    pub(super) kill: Option<u8>,
    /// A mail of your own; From and To are replaced, all else stays to the byte
    #[arg(long, value_name = "FILE.eml")]
    pub(super) mail: Option<PathBuf>,
    /// Leaves it running and prints ports and logins
    #[arg(long)]
    pub(super) keep: bool,
}

/// `roost send`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  echo 'See you at nine.' | roost send --to bob@acme --subject Breakfast\n  \
                  roost send --to bob@acme --subject Plans --attach plan.pdf --wait-safe 1 < note.txt\n  \
                  roost send --to bob@acme whole-mail.eml")]
pub(super) struct SendArgs {
    /// Receivers, repeated or with commas; with FILE.eml the envelope's, by default those of its To and Cc
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) to: Vec<Address>,
    /// Receivers of a copy
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) cc: Vec<Address>,
    /// Receivers that the others do not see
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) bcc: Vec<Address>,
    /// The subject
    #[arg(long, default_value = "", conflicts_with = "file")]
    pub(super) subject: String,
    /// A file to attach; may be repeated
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(super) attach: Vec<PathBuf>,
    /// Waits, at most 60 s, until this many more members could be lost; if that is not reached the mail is sent all the same,
    /// and the exit code is 1
    #[arg(long, value_name = "F")]
    pub(super) wait_safe: Option<u8>,
    /// A whole mail (RFC 5322); without it the text is read from standard input
    #[arg(value_name = "FILE.eml")]
    pub(super) file: Option<PathBuf>,
}

/// `roost inbox`.
#[derive(Debug, Args)]
pub(super) struct InboxArgs {
    /// INBOX, Requests, Outbox, Sent, Drafts, Junk, Trash, or one of your own
    pub(super) mailbox: Option<String>,
    /// Only the last N messages
    #[arg(long, value_name = "N")]
    pub(super) last: Option<u32>,
}

/// `roost read`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roost read 3\n  roost read 3 --raw > mail.eml\n  roost read 3 -o mail.eml")]
pub(super) struct ReadArgs {
    /// As `roost inbox` lists it
    pub(super) uid: u32,
    /// INBOX, Requests, Outbox, Sent, Drafts, Junk, Trash, or one of your own
    #[arg(long, value_name = "NAME")]
    pub(super) mailbox: Option<String>,
    /// Prints the mail as it is, every byte
    #[arg(long)]
    pub(super) raw: bool,
    /// Writes the mail, every byte, to a file
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

/// `roost cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each receiver is answered for: `cancelled` (it cannot be read any more), `too late` (the reader has \
                        it), `uncertain` (not known yet; the same command asks again later).\n\nExamples:\n  \
                        roost outbox\n  roost cancel 0f5e0c2a9b7d4e61a2c3d4e5f6a7b8c9"
)]
pub(super) struct CancelArgs {
    /// A submission, or one of its sealed mails, as `roost outbox` shows it
    #[arg(value_name = "ID")]
    pub(super) which: String,
    /// Waits at most this many seconds for `uncertain` to become known
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=600))]
    pub(super) wait: u64,
}

/// `roost accept`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  roost accept rita@readers\n  roost accept --undo rita@readers     take the word back: later mails ask again"
)]
pub(super) struct AcceptArgs {
    /// The sender's address, or its key's fingerprint when several keys claim one address
    pub(super) who: String,
    /// Takes an earlier accept or refuse back: the sender's later mails ask again
    #[arg(long)]
    pub(super) undo: bool,
}

/// `roost refuse`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  roost refuse rita@readers\n\nTake it back with `roost accept --undo rita@readers`."
)]
pub(super) struct RefuseArgs {
    /// The sender's address, or its key's fingerprint
    pub(super) who: String,
}

/// `roost verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roost verify 3\n  roost verify saved.eml\n  roost verify 3 --export proof\n\n\
                  proof/mail.signed is an OpenPGP message: `gpg --import proof/sender.pgp` and `gpg --decrypt proof/mail.signed` check it.")]
pub(super) struct VerifyArgs {
    /// A UID as `roost inbox` lists it, or a copy of the mail in a file, compared to the byte
    #[arg(value_name = "UID|FILE")]
    pub(super) what: String,
    /// INBOX, Junk, Trash, or one of your own
    #[arg(long, value_name = "NAME")]
    pub(super) mailbox: Option<String>,
    /// Writes the signed mail and the certificate there, for a third person
    #[arg(long, value_name = "DIR")]
    pub(super) export: Option<PathBuf>,
}

/// `roost contacts …`.
#[derive(Debug, Subcommand)]
pub(super) enum ContactsCommand {
    /// Everybody whose card was added
    List,
    /// Adds somebody by their card, or pins a group's key
    #[command(
        after_help = "Examples:\n  roost contacts add roost-card:…\n  roost contacts add --group readers --key 4172e088cc8e74279a9d315df0aadfb15c96705d"
    )]
    Add {
        /// The line that `roost card` printed
        #[arg(required_unless_present = "group", conflicts_with = "group")]
        card: Option<String>,
        /// A group whose key is pinned
        #[arg(long, requires = "key")]
        group: Option<GroupName>,
        /// The fingerprint of its key, 40 hex digits
        #[arg(long, requires = "group", value_name = "FINGERPRINT")]
        key: Option<Fingerprint>,
    },
    /// Removes somebody
    Remove {
        /// Whom
        address: Address,
    },
}

/// `roost backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  roost backup alice.roost-backup\n\nThe file holds secret keys and mail in the clear. \
                  `roost init --restore FILE --home DIR` makes a home of it."
)]
pub(super) struct BackupArgs {
    /// The file to write
    pub(super) file: PathBuf,
    /// Replaces a file that is there already
    #[arg(long)]
    pub(super) force: bool,
}

/// `roost doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Removes the index, so that the next start rebuilds it; only while the peer is stopped
    #[arg(long)]
    pub(super) rebuild_index: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn several_receivers_and_a_mail_file_are_told_apart() {
        let cli =
            Cli::try_parse_from(["roost", "send", "--to", "a@b,c@d", "--to", "g@h", "--cc", "e@f", "x.eml"]).unwrap();
        let Command::Send(send) = cli.command else { panic!("not send") };
        assert_eq!((send.to.len(), send.cc.len(), send.file), (3, 1, Some("x.eml".into())));
        let cli = Cli::try_parse_from(["roost", "send", "x.eml", "--to", "a@b", "--json", "--home", "h"]).unwrap();
        assert!(cli.json && cli.home == Some("h".into()));
    }

    #[test]
    fn a_policy_changes_only_where_something_is_set() {
        let args = PolicyArgs { k: Some(2), mode: Some(ModeArg::Full), ..PolicyArgs::default() };
        assert!(PolicyArgs::default().is_empty() && !args.is_empty());
        let policy = args.over(Policy::default());
        assert_eq!((policy.fragments, policy.mode, policy.copies), (KOfN { k: 2, n: 5 }, Mode::Full, 3));
    }
}
