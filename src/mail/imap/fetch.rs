//! FETCH (RFC 3501 section 6.4.5). Never sends an empty body, NIL or OK in the place of a body that is not here: messages
//! that can be had are delivered, and the command says NO.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imap_types::fetch::MacroOrMessageDataItemNames;
use imap_types::sequence::SequenceSet;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body_file::BodyFile;
use super::connection::{Connection, Outcome};
use super::fetch_item::{self, Item, Source, Text};
use super::mailbox::some;
use super::respond::{self, Status};
use super::selected::{Numbers, Selected, Shown};
use super::transfer::chosen;
use super::{End, Head, MailStore, bodystructure, envelope};
use crate::core::postbox::access::{BodyState, Flag, MailboxFailure, Uid};

/// Bytes of a body that are in memory at a time.
const CHUNK_BYTES: usize = 128 * 1024;
/// Longest header block of which fields are picked; the splitter keeps no longer one either.
const FIELDS_MAX: u64 = 4 * 1024 * 1024;

/// What a FETCH could not deliver: the first reason counts, one that may pass before one that will not.
#[derive(Debug, Default)]
pub(super) struct Missing(Option<MailboxFailure>);

impl Missing {
    pub(super) fn add(&mut self, failure: MailboxFailure) {
        let may_pass = |failure: &MailboxFailure| matches!(failure, MailboxFailure::Unavailable(_));
        if self.0.as_ref().is_none_or(|known| may_pass(&failure) && !may_pass(known)) {
            self.0 = Some(failure);
        }
    }
    fn status(self) -> Status {
        match self.0 {
            Some(failure) => Status::failed(&failure, None),
            None => Status::ok("done"),
        }
    }
}

/// A message that is being answered.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) sequence: u32,
    pub(super) shown: Shown,
    head: Option<Arc<Head>>,
    sources: Vec<Source>,
}

impl Asked {
    pub(super) fn uid(&self) -> Uid {
        self.shown.message.uid
    }
    /// Whether something is asked that only the body has.
    fn needs_body(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, Source::Body(_) | Source::Fields(..)))
    }
}

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// FETCH.
    pub(super) async fn fetch(
        &mut self,
        set: &SequenceSet,
        names: &MacroOrMessageDataItemNames<'_>,
        numbers: Numbers,
    ) -> Outcome {
        let items = some!(fetch_item::items(names, numbers));
        let Some(selected) = self.state.selected() else { return Ok(Status::bad("select a mailbox first")) };
        let sequences = some!(chosen(selected, set, numbers));
        let mut missing = Missing::default();
        let mut stubs = Vec::new();
        for sequence in sequences {
            let Some(shown) = self.state.selected().and_then(|s| s.get(sequence)).cloned() else { continue };
            let asked = match self.prepare(sequence, shown, &items).await {
                Ok(asked) => asked,
                Err(failure) => {
                    missing.add(failure);
                    continue;
                }
            };
            // What is here is delivered before anything is waited for.
            if asked.needs_body() && asked.shown.message.body != BodyState::Here {
                stubs.push(asked.shown.message.clone());
                continue;
            }
            let body = match asked.needs_body() {
                true => self.body(asked.uid()).await,
                false => Ok(None),
            };
            match body {
                Ok(body) => self.deliver(&asked, &items, body.as_deref(), &mut missing).await?,
                Err(failure) => missing.add(failure),
            }
        }
        self.pull(stubs, &items, &mut missing).await?;
        Ok(missing.status())
    }

    /// Finds where everything asked of a message is.
    pub(super) async fn prepare(&self, sequence: u32, shown: Shown, items: &[Item]) -> Result<Asked, MailboxFailure> {
        let of_head = |item: &Item| matches!(item, Item::Envelope | Item::Body | Item::BodyStructure | Item::Text(_));
        if !items.iter().any(of_head) {
            return Ok(Asked { sequence, shown, head: None, sources: Vec::new() });
        }
        let head = match self.shared.store.head(shown.message.key).await {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MailboxFailure::NoMessage),
            Err(error) => {
                tracing::warn!(%error, uid = shown.message.uid.0, "the head of a message cannot be read");
                return Err(MailboxFailure::Unavailable(format!("the head of a message cannot be read: {error}")));
            }
        };
        let text = |item: &Item| match item {
            Item::Text(text) => Some(text.source(&head)),
            _ => None,
        };
        let sources = items.iter().filter_map(text).collect();
        Ok(Asked { sequence, shown, head: Some(head), sources })
    }

    /// Opens a body that is said to be here.
    async fn body(&self, uid: Uid) -> Result<Option<PathBuf>, MailboxFailure> {
        let Some(mailbox) = self.state.selected().map(|selected| selected.name.clone()) else {
            return Err(MailboxFailure::NoMessage);
        };
        let view = self.state.view().ok_or(MailboxFailure::NoMessage)?;
        super::pull::open_body(&self.shared.store, view, mailbox, uid).await.map(Some)
    }

    /// One `* n FETCH (…)`. When the body turns out not to be usable, nothing of it is sent.
    ///
    /// # Errors
    /// [`End`] when the connection or the file fails after the response began.
    pub(super) async fn deliver(
        &mut self,
        asked: &Asked,
        items: &[Item],
        body: Option<&Path>,
        missing: &mut Missing,
    ) -> Result<(), End> {
        let file = match open(asked, body).await {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(%error, uid = asked.uid().0, "a body cannot be read");
                missing.add(MailboxFailure::Unavailable(format!("the body cannot be read: {error}")));
                return Ok(());
            }
        };
        let read_only = self.state.selected().is_none_or(|selected| selected.read_only);
        let asks = items.iter().any(|item| matches!(item, Item::Text(text) if text.marks_seen));
        // Only together with the body: flags are told behind it then.
        let marks = asks && file.is_some() && !read_only && !asked.shown.message.flags.contains(&Flag::Seen);
        let mut sources = asked.sources.iter();
        let mut separator: &[u8] = b"";
        self.output.buffer.extend_from_slice(format!("* {} FETCH (", asked.sequence).as_bytes());
        for item in items.iter().filter(|item| !(marks && **item == Item::Flags)) {
            self.output.buffer.extend_from_slice(separator);
            separator = b" ";
            match item {
                Item::Text(text) => {
                    let source = sources.next().unwrap_or(&Source::Nowhere);
                    self.write_text(text, source, file.as_ref()).await?;
                }
                item => write_short(&mut self.output.buffer, item, asked),
            }
        }
        if marks {
            self.output.flush().await?;
            let flags = self.mark_seen(asked.uid()).await;
            let message = flags.as_ref().unwrap_or(&asked.shown.message);
            if flags.is_some() || items.contains(&Item::Flags) {
                self.output.buffer.extend_from_slice(b" FLAGS ");
                respond::flags(&mut self.output.buffer, &message.flags, asked.shown.recent);
            }
        }
        self.output.buffer.extend_from_slice(b")\r\n");
        self.output.relieve().await
    }

    async fn write_text(&mut self, text: &Text, source: &Source, file: Option<&BodyFile>) -> Result<(), End> {
        text.write_label(&mut self.output.buffer);
        match (source, file) {
            (Source::Known(bytes), _) => respond::literal(&mut self.output.buffer, bytes),
            (Source::Nowhere, _) => self.output.buffer.extend_from_slice(b"NIL"),
            (Source::Body(extent), Some(file)) => {
                self.output.buffer.extend_from_slice(format!("{{{}}}\r\n", extent.len()).as_bytes());
                self.stream(file, extent.start, extent.len()).await?;
            }
            (Source::Fields(extent, names, not), Some(file)) => {
                let block = file.read(extent.start, extent.len().min(FIELDS_MAX)).await?;
                respond::literal(&mut self.output.buffer, &text.subset(&block, names, *not));
            }
            (Source::Body(_) | Source::Fields(..), None) => {
                return Err(io::Error::other("a body was needed and not opened").into());
            }
        }
        Ok(())
    }

    /// Sends bytes of a body, a chunk at a time.
    async fn stream(&mut self, file: &BodyFile, start: u64, len: u64) -> Result<(), End> {
        let (mut at, end) = (start, start.saturating_add(len));
        while at < end {
            let wanted = (end - at).min(u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX));
            // The literal was promised; when it cannot be read there is no way to take it back but to close.
            let chunk = file.read(at, wanted).await?;
            match chunk.len() < CHUNK_BYTES {
                // Small bodies travel together.
                true => {
                    self.output.buffer.extend_from_slice(&chunk);
                    self.output.relieve().await?;
                }
                false => self.output.stream(&chunk).await?,
            }
            at += wanted;
        }
        Ok(())
    }
}

/// Opens the body, if there is one to open, and checks that it is as long as the head says.
async fn open(asked: &Asked, body: Option<&Path>) -> io::Result<Option<BodyFile>> {
    let (Some(path), Some(head)) = (body, &asked.head) else { return Ok(None) };
    BodyFile::open(path.to_path_buf(), head.structure.size).await.map(Some)
}

fn write_short(out: &mut Vec<u8>, item: &Item, asked: &Asked) {
    let message = &asked.shown.message;
    match (item, &asked.head) {
        (Item::Flags, _) => {
            out.extend_from_slice(b"FLAGS ");
            respond::flags(out, &message.flags, asked.shown.recent);
        }
        (Item::Uid, _) => out.extend_from_slice(format!("UID {}", message.uid.0).as_bytes()),
        (Item::InternalDate, _) => {
            out.extend_from_slice(format!("INTERNALDATE {}", respond::internal_date(message.internal_date)).as_bytes());
        }
        (Item::Size, _) => out.extend_from_slice(format!("RFC822.SIZE {}", message.size).as_bytes()),
        (Item::Envelope, Some(head)) => {
            out.extend_from_slice(b"ENVELOPE ");
            envelope::write(out, &head.header_block);
        }
        (Item::Body, Some(head)) => {
            out.extend_from_slice(b"BODY ");
            bodystructure::write(out, &head.structure.root, false);
        }
        (Item::BodyStructure, Some(head)) => {
            out.extend_from_slice(b"BODYSTRUCTURE ");
            bodystructure::write(out, &head.structure.root, true);
        }
        (Item::Envelope | Item::Body | Item::BodyStructure | Item::Text(_), _) => {}
    }
}

/// The message as the session shows it now; nothing once it is gone.
pub(super) fn shown_now(selected: Option<&Selected>, uid: Uid) -> Option<(u32, Shown)> {
    let selected = selected?;
    let sequence = selected.sequence_of(uid)?;
    Some((sequence, selected.get(sequence)?.clone()))
}
