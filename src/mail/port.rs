//! The mail programs' servers tied to the peer: logins, the spool for SMTP, the postbox for IMAP. It decides nothing.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::watch;

use super::imap::{self, Head, MailStore, login_view};
use super::smtp::receive::{Progress, Receiving};
use super::smtp::{self, Accepted, RECEIVERS_MAX, ReceiverError, SmtpEnvelope, Submit, SubmitError, Submitted};
use crate::actors::neighbours::freshen;
use crate::actors::outbox::spooled;
use crate::actors::peer::Peer;
use crate::actors::spool::{Begun, SpoolError};
use crate::core::outbox::{Input, Reply};
use crate::core::postbox::access::{MailboxReply, MailboxRequest, MessageKey, View};
use crate::model::{Address, ByteSize, Fingerprint, SubmissionId};

/// Bytes of a file that are read at a time.
const READ_BYTES: usize = 64 * 1024;

/// How often is looked whether the journal waits for room, while something waits for the journal.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(50);

/// The spool as SMTP sees it.
#[derive(Clone)]
pub struct SmtpPort(Arc<Peer>);

impl SmtpPort {
    /// The port of a running peer.
    pub fn new(peer: Arc<Peer>) -> Self {
        Self(peer)
    }
}

/// Checks the app password on the blocking pool: Argon2id is slow.
async fn is_right(peer: &Arc<Peer>, password: &str) -> Result<bool, String> {
    let (login, password) = (peer.identity.login.clone(), zeroize::Zeroizing::new(password.to_owned()));
    let checked = tokio::task::spawn_blocking(move || login.is_right(&password));
    checked.await.map_err(|e| e.to_string())
}

fn is_own_name(peer: &Peer, login: &str) -> bool {
    let login = login.to_ascii_lowercase();
    let address = &peer.config.address;
    let name = login.strip_suffix(&format!("@{}", address.group())).unwrap_or(&login);
    let name = name.strip_suffix("+full").unwrap_or(name);
    name == address.name().as_str()
}

impl Submit for SmtpPort {
    type Spool = SpoolingMail;

    fn own_address(&self) -> Address {
        self.0.config.address.clone()
    }

    async fn authenticate(&self, login: &str, password: &str) -> Result<(), smtp::AuthError> {
        if !is_own_name(&self.0, login) {
            return Err(smtp::AuthError::Refused);
        }
        match is_right(&self.0, password).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(smtp::AuthError::Refused),
            Err(why) => Err(smtp::AuthError::Busy { why }),
        }
    }

    async fn check_receiver(&self, receiver: &Address) -> Result<(), ReceiverError> {
        let snapshot = self.0.directory.snapshot();
        let group = receiver.group();
        if group.as_str().contains('.') && !snapshot.groups.contains_key(group) {
            // A domain of the Internet as far as is known: its mail would wait until it expires.
            return Err(ReceiverError::Outside { address: receiver.to_string() });
        }
        // Where no fresh gd can be had the mail waits in the spool for one.
        let is_unknown = || self.0.directory.snapshot().is_unknown(receiver);
        if is_unknown() && freshen(&self.0.group, group.clone()).await && is_unknown() {
            return Err(ReceiverError::Unknown { address: receiver.clone() });
        }
        Ok(())
    }

    fn max_mail(&self) -> ByteSize {
        self.0.max_mail()
    }

    async fn begin(&self, receivers: &[Address]) -> Result<SpoolingMail, SubmitError> {
        let own = &self.0.config.address;
        if self.0.directory.snapshot().is_unknown(own) {
            // Its group is known and does not name it: whatever it signed nobody would believe.
            return Err(SubmitError::NoMember { own: own.clone() });
        }
        need_room(&self.0).await?;
        let begun = self.0.spool.begin(receivers).map_err(submit_error)?;
        Ok(SpoolingMail { peer: self.0.clone(), begun })
    }
}

fn submit_error(error: SpoolError) -> SubmitError {
    if error.is_disk_full() { SubmitError::DiskFull } else { SubmitError::Internal { why: error.to_string() } }
}

/// A mail on its way into the spool.
pub struct SpoolingMail {
    peer: Arc<Peer>,
    begun: Begun,
}

impl smtp::Spool for SpoolingMail {
    fn submission(&self) -> SubmissionId {
        self.begun.submission()
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), SubmitError> {
        self.begun.write(chunk).await.map_err(submit_error)
    }

    async fn abandon(self) {
        self.begun.abandon().await;
    }

    async fn commit(self, mail: Submitted) -> Result<Accepted, SubmitError> {
        let submission = self.begun.submission();
        let stopping = |_| SubmitError::Busy { why: "it is stopping".to_owned() };
        // All that may find no room comes before the envelope. With it on the disk the mail is this peer's to deliver, also
        // after a crash: from there on nobody may be told 452.
        need_room(&self.peer).await?;
        // Whoever was written to may answer without asking first.
        let written_to = certificates_of(&self.peer, mail.envelope.receivers.iter());
        let known = unless_full(&self.peer, self.peer.postbox.wrote_to(written_to)).await;
        known.ok_or(SubmitError::DiskFull)?.map_err(stopping)?;
        let envelope = self.begun.commit(mail.envelope.receivers, mail.split).await.map_err(submit_error)?;
        let spooled = spooled(submission, &envelope);
        let ask = move |token| Input::Submitted { token: Some(token), spooled };
        // Its own task, so that the outbox hears of it also when the disk becomes full meanwhile.
        let asked = tokio::spawn(self.peer.outbox.ask(ask));
        let stopped = |_| SubmitError::Busy { why: "it is stopping".to_owned() };
        let asked = unless_full(&self.peer, asked).await.transpose().map_err(stopped)?;
        match asked.transpose().map_err(stopping)? {
            Some(Reply::Accepted) => {}
            // The disk became full in this very moment. The spool is what a start reads: the mail is taken, and safe.
            None => {
                let text =
                    format!("taken, submission {submission}; the disk is full now, and it is sent once there is room");
                return Ok(Accepted { submission, text });
            }
            Some(Reply::Full { waiting }) => {
                let spool = self.peer.spool.clone();
                let removed = tokio::task::spawn_blocking(move || spool.remove(&submission)).await;
                removed.map_err(|e| SubmitError::Internal { why: e.to_string() })?.map_err(submit_error)?;
                return Err(SubmitError::Busy { why: format!("{waiting} mails wait in its outbox already") });
            }
            Some(other) => return Err(SubmitError::Internal { why: format!("an unexpected answer: {other:?}") }),
        }
        Ok(Accepted { submission, text: safe_text(&self.peer, submission).await })
    }
}

/// A mail is not begun while its events would find no room.
async fn need_room(peer: &Peer) -> Result<(), SubmitError> {
    if peer.journal.has_room().await { Ok(()) } else { Err(SubmitError::DiskFull) }
}

/// What a brain answers once its events are in the journal; nothing when the journal begins to wait for room instead.
async fn unless_full<T>(peer: &Peer, answer: impl Future<Output = T>) -> Option<T> {
    let full = async {
        while !peer.journal.is_waiting_for_room() {
            tokio::time::sleep(LOOK_FOR_ROOM).await;
        }
    };
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = full => None,
    }
}

/// The certificates that the gds of pinned groups name for these addresses.
fn certificates_of<'a>(peer: &Peer, receivers: impl Iterator<Item = &'a Address>) -> Vec<Fingerprint> {
    let snapshot = peer.directory.snapshot();
    let own = &peer.config.address;
    let named = |address: &Address| {
        let gd = snapshot.groups.get(address.group())?.gd.as_ref()?;
        gd.member_at(address).map(|member| member.fingerprint)
    };
    receivers.filter(|address| *address != own).filter_map(named).collect()
}

/// What the 250 says. With `safe_before_yes` it waits until the mail is safe, and says how safe it is.
async fn safe_text(peer: &Peer, submission: SubmissionId) -> String {
    let wanted = peer.config.mail.safe_before_yes;
    if wanted == 0 {
        return format!("taken, submission {submission}");
    }
    let ask = move |token| Input::WaitSafe { token, submission, f: i32::from(wanted) };
    let reached = match peer.outbox.ask(ask).await {
        Ok(Reply::Safe { safe, reached }) => reached_text(safe, reached, wanted),
        _ => "not yet at other members".to_owned(),
    };
    format!("taken, {reached}, submission {submission}")
}

/// What was reached of the safe(f) that was waited for.
fn reached_text(safe: Option<i32>, reached: bool, wanted: u8) -> String {
    match safe {
        Some(safe) if reached => format!("safe({safe})"),
        Some(safe @ 0..) => format!("safe({safe}) and not yet safe({wanted})"),
        Some(_) => format!("unsafe so far: this peer must stay on until it is safe({wanted})"),
        None if reached => "and needs no other members".to_owned(),
        None => "not yet sealed, and so not yet at other members".to_owned(),
    }
}

/// Submits the mail in a file as if a mail program had: the same checks, the same spool. Lines may end in LF alone, as files
/// on this machine do.
///
/// # Errors
/// Why it is not taken, in a sentence.
pub async fn submit_file(peer: &Arc<Peer>, file: PathBuf, receivers: Vec<Address>) -> Result<SubmissionId, String> {
    let port = SmtpPort::new(peer.clone());
    if receivers.is_empty() || receivers.len() > RECEIVERS_MAX {
        return Err(format!(
            "a mail goes to 1 to {RECEIVERS_MAX} receivers, not {}; send it in several parts",
            receivers.len()
        ));
    }
    for receiver in &receivers {
        port.check_receiver(receiver).await.map_err(|e| e.to_string())?;
    }
    let read = |e: io::Error| format!("{} cannot be read: {e}", file.display());
    let opened = tokio::fs::File::open(&file).await.map_err(read)?;
    let mut lines = tokio::io::BufReader::with_capacity(READ_BYTES, opened);
    let spool = port.begin(&receivers).await.map_err(|e| e.to_string())?;
    let envelope = SmtpEnvelope { from: port.own_address(), receivers };
    let mut mail = Receiving::new(spool, envelope, port.max_mail());
    let mut text = Vec::with_capacity(READ_BYTES * 2);
    // A mail begins at a line's start, as after a line's end.
    let mut before = b'\n';
    loop {
        text.clear();
        let chunk = lines.fill_buf().await.map_err(read)?;
        let length = chunk.len();
        stuff(chunk, &mut before, &mut text);
        lines.consume(length);
        if length == 0 {
            text.extend_from_slice(if before == b'\n' { b".\r\n" } else { b"\r\n.\r\n" });
        }
        let (_, progress) = mail.feed(&text, peer.clock.now().wall).await;
        if progress != Progress::More {
            return mail.finish().await.map(|accepted| accepted.submission).map_err(|e| e.to_string());
        }
    }
}

/// The bytes of a file as SMTP carries them (RFC 5321 section 4.5.2): lines end in CRLF, a dot at a line's start is doubled.
/// `before` is the byte that came last, which may have been in an earlier chunk.
fn stuff(bytes: &[u8], before: &mut u8, text: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            // A CR that came before is part of this line's end; one is enough.
            b'\n' if *before != b'\r' => text.extend_from_slice(b"\r\n"),
            b'.' if *before == b'\n' => text.extend_from_slice(b".."),
            other => text.push(*other),
        }
        *before = *byte;
    }
}

/// The postbox as IMAP sees it.
#[derive(Clone)]
pub struct ImapPort(Arc<Peer>);

impl ImapPort {
    /// The port of a running peer.
    pub fn new(peer: Arc<Peer>) -> Self {
        Self(peer)
    }
}

impl MailStore for ImapPort {
    async fn authenticate(&self, login: &str, password: &str) -> Result<View, imap::AuthError> {
        let view = login_view(&self.0.config.address, login).ok_or(imap::AuthError::Refused)?;
        match is_right(&self.0, password).await {
            Ok(true) => Ok(view),
            Ok(false) => Err(imap::AuthError::Refused),
            Err(reason) => Err(imap::AuthError::Unavailable { reason }),
        }
    }

    async fn request(&self, view: View, request: MailboxRequest) -> MailboxReply {
        self.0.postbox.request(view, request).await
    }

    async fn head(&self, key: MessageKey) -> io::Result<Arc<Head>> {
        let head = self.0.postbox.head(key).await?;
        Ok(Arc::new(Head { header_block: head.header_block.clone(), structure: head.structure.clone() }))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.postbox.changes()
    }

    fn append_path(&self) -> PathBuf {
        self.0.postbox.append_path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5321_line_ends_and_dots_are_the_same_however_a_file_is_cut() {
        for size in 1..=5 {
            let (mut before, mut text) = (b'\n', Vec::new());
            for chunk in b"a\r\nb\n.c\r\n".chunks(size) {
                // As `submit_file` does: what went before is not looked at again.
                let mut stuffed = Vec::new();
                stuff(chunk, &mut before, &mut stuffed);
                text.extend(stuffed);
            }
            assert_eq!(text.as_slice(), b"a\r\nb\r\n..c\r\n", "in chunks of {size}");
        }
    }

    #[test]
    fn the_250_says_how_safe_the_mail_is_and_never_more() {
        assert_eq!(reached_text(Some(2), true, 2), "safe(2)");
        assert_eq!(reached_text(Some(0), false, 2), "safe(0) and not yet safe(2)");
        assert!(reached_text(Some(-1), false, 2).starts_with("unsafe so far"));
        assert!(reached_text(None, false, 1).starts_with("not yet sealed"));
        assert_eq!(reached_text(None, true, 1), "and needs no other members");
    }
}
