//! APPEND (RFC 3501 section 6.3.11, RFC 4315, RFC 7889): the message goes to disk as it arrives. Never holds it in memory,
//! and never says OK before it is durable and filed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use imap_types::command::CommandBody;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;

use super::command::Request;
use super::connection::{Connection, Outcome};
use super::input::{Announced, Line};
use super::mailbox::wire_name;
use super::respond::{self, Status};
use super::{End, MailStore};
use crate::core::postbox::access::{MailboxReply, MailboxRequest};
use crate::model::WallTime;
use crate::store::files::{DurableWriter, FileError, is_disk_full};

/// Bytes that are gathered before they go to disk.
const CHUNK_BYTES: usize = 256 * 1024;

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// APPEND whose message is announced.
    pub(super) async fn append(&mut self, request: Request, message: Announced) -> Outcome {
        let prepared = self.prepare_append(request, message).await;
        let (request, path) = match prepared {
            Ok(prepared) => prepared,
            Err(status) if message.waits => return Ok(status),
            Err(status) => {
                // It is on its way already. What is beyond any APPEND is not waited for.
                if message.len > self.shared.config.append_max {
                    return Err(End::Bye { text: "a message beyond APPENDLIMIT was sent without asking" });
                }
                let patience = self.patience();
                self.input.discard(message.len, patience).await?;
                self.end_of_command().await?;
                return Ok(status);
            }
        };
        if message.waits {
            self.output.line("+ send the message");
            self.output.flush().await?;
        }
        let received = self.receive(&path, message.len).await?;
        let ended = self.end_of_command().await;
        let status = match (received, ended?) {
            (Ok(()), true) => {
                let status = self.file(request).await;
                if status.is_ok() {
                    return Ok(status);
                }
                status
            }
            (Ok(()), false) => Status::bad("APPEND takes one message at a time"),
            (Err(status), _) => status,
        };
        // Nobody took the file over. What cannot be removed is swept at the next start.
        let _ = tokio::fs::remove_file(&path).await;
        Ok(status)
    }

    /// Checks what can be checked before the message comes.
    async fn prepare_append(&self, request: Request, message: Announced) -> Result<(MailboxRequest, PathBuf), Status> {
        self.state.allows(&request).map_err(Status::bad)?;
        let Request::Codec(body) = request else { return Err(Status::confused()) };
        let CommandBody::Append { mailbox, flags, date, .. } = *body else { return Err(Status::confused()) };
        let mailbox = Self::mailbox_name(wire_name(&mailbox))?;
        let flags = respond::read_flags(&flags)?;
        if message.len > self.shared.config.append_max {
            let text = format!("a message has at most {} bytes", self.shared.config.append_max);
            return Err(Status::no("TOOBIG", text));
        }
        if message.len == 0 {
            return Err(Status::no("CANNOT", "a message of no bytes is none"));
        }
        if !self.mailboxes().await?.iter().any(|info| info.name == mailbox) {
            return Err(Status::no("TRYCREATE", format!("there is no mailbox {mailbox}")));
        }
        let millis =
            |date: imap_types::datetime::DateTime| u64::try_from(date.as_ref().timestamp_millis()).unwrap_or(0);
        let internal_date = date.map(|date| WallTime(millis(date)));
        let file = self.shared.store.append_path();
        Ok((MailboxRequest::Append { mailbox, file: file.clone(), flags, internal_date }, file))
    }

    /// Whether nothing but the end of the line follows.
    async fn end_of_command(&mut self) -> Result<bool, End> {
        let patience = self.patience();
        Ok(matches!(self.input.line(1024, patience).await?, Line::Whole(line) if line.trim_ascii().is_empty()))
    }

    /// Takes the message to disk; it is read to its end also when the disk fails.
    async fn receive(&mut self, path: &Path, len: u64) -> Result<Result<(), Status>, End> {
        let patience = self.patience();
        let mut sink = Sink::create(path).await;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut left = len;
        while left > 0 {
            left -= self.input.some(&mut chunk, left.min(64 * 1024), patience).await?;
            if chunk.len() >= CHUNK_BYTES - 64 * 1024 || left == 0 {
                (sink, chunk) = sink.write(chunk).await;
            }
        }
        Ok(sink.commit(path.to_owned()).await.map_err(|error| {
            tracing::warn!(%error, "a message could not be appended");
            match is_disk_full(&error) {
                true => Status::no("OVERQUOTA", "the disk is full; free some space and try again"),
                false => Status::no("UNAVAILABLE", format!("the message could not be kept: {error}")),
            }
        }))
    }

    async fn file(&mut self, request: MailboxRequest) -> Status {
        let target = match &request {
            MailboxRequest::Append { mailbox, .. } => Some(mailbox.clone()),
            _ => None,
        };
        match self.ask(request).await {
            MailboxReply::Appended(uid_validity, uid) => {
                Status::ok("filed").with(format!("APPENDUID {uid_validity} {}", uid.0))
            }
            MailboxReply::Failed(failure) => Status::failed(&failure, target.as_ref()),
            _ => Status::confused(),
        }
    }
}

/// Writes off the runtime's threads; remembers its first failure.
#[derive(Debug)]
struct Sink(io::Result<DurableWriter>);

impl Sink {
    async fn create(path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self(blocking(move || DurableWriter::create(&folder).map_err(as_io)).await)
    }
    async fn write(self, chunk: Vec<u8>) -> (Self, Vec<u8>) {
        let Ok(mut writer) = self.0 else { return (self, Vec::new()) };
        let work = move || {
            writer.write_all(&chunk)?;
            Ok((writer, chunk))
        };
        match blocking(work).await {
            Ok((writer, mut chunk)) => {
                chunk.clear();
                (Self(Ok(writer)), chunk)
            }
            Err(error) => (Self(Err(error)), Vec::new()),
        }
    }
    async fn commit(self, path: PathBuf) -> io::Result<()> {
        let writer = self.0?;
        blocking(move || writer.commit(&path).map_err(as_io)).await
    }
}

fn as_io(error: FileError) -> io::Error {
    let kind = if error.is_disk_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
