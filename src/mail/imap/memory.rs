//! A postbox in memory, for tests of the server. Never leaves anything on disk but bodies in a temporary folder.

#![allow(clippy::unwrap_used, reason = "it is for tests and fuzz targets")]
#![cfg_attr(not(test), allow(dead_code, reason = "tests use more of it than fuzz targets"))]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tempfile::TempDir;
use tokio::sync::watch;

use super::{AuthError, Head, MailStore, login_view};
use crate::core::postbox::access::{
    BodyState, Flag, MailboxFailure, MailboxInfo, MailboxName, MailboxReply, MailboxRequest, Message, MessageKey,
    Standard, Uid, View,
};
use crate::mime::split::split;
use crate::model::WallTime;
use crate::model::structure::Structure;

pub(crate) const PASSWORD: &str = "correct horse";

#[derive(Debug)]
struct Folder {
    uid_validity: u32,
    next: u32,
    version: u64,
    subscribed: bool,
    messages: Vec<Message>,
}

#[derive(Debug, Default)]
struct Inner {
    folders: BTreeMap<MailboxName, Folder>,
    heads: BTreeMap<MessageKey, Arc<Head>>,
    mails: BTreeMap<MessageKey, Vec<u8>>,
    /// Percent of each pull, as far as a test lets it come.
    percents: BTreeMap<MessageKey, u8>,
    failures: BTreeMap<MessageKey, MailboxFailure>,
    pulls: Vec<Uid>,
    last: u32,
}

/// The postbox.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
    folder: Arc<TempDir>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let mut inner = Inner::default();
        for which in Standard::ALL {
            inner.make(MailboxName::standard(which));
        }
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self { inner: Arc::new(Mutex::new(inner)), changes: watch::Sender::new(0), folder }
    }
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }
    fn body_path(&self, key: MessageKey) -> PathBuf {
        self.folder.path().join(format!("{}.body", key.0))
    }
    /// Puts a mail into a mailbox.
    pub(crate) fn put(&self, mailbox: &str, mail: &[u8], flags: &[Flag]) -> (Uid, MessageKey) {
        let put = self.lock().put(mailbox, mail, flags.iter().cloned().collect(), WallTime(1_704_103_200_000));
        std::fs::write(self.body_path(put.1), mail).unwrap();
        self.changed();
        put
    }
    /// Puts a mail whose body is not here.
    pub(crate) fn put_stub(&self, mailbox: &str, mail: &[u8]) -> (Uid, MessageKey) {
        let (uid, key) = self.put(mailbox, mail, &[]);
        std::fs::remove_file(self.body_path(key)).unwrap();
        self.lock().each(key, |message| message.body = BodyState::Absent);
        self.changed();
        (uid, key)
    }
    /// Puts a stub of which only this is known.
    pub(crate) fn put_described(&self, mailbox: &str, header_block: Vec<u8>, structure: Structure) -> MessageKey {
        let (_, key) = self.put_stub(mailbox, b"");
        let mut inner = self.lock();
        inner.each(key, |message| message.size = structure.size);
        inner.heads.insert(key, Arc::new(Head { header_block, structure }));
        key
    }
    /// The pull of a body gets this far.
    pub(super) fn pulled(&self, key: MessageKey, percent: u8) {
        self.lock().percents.insert(key, percent);
        self.changed();
    }
    /// The body arrives.
    pub(super) fn arrive(&self, key: MessageKey) {
        let mail = self.lock().mails[&key].clone();
        std::fs::write(self.body_path(key), mail).unwrap();
        self.lock().each(key, |message| message.body = BodyState::Here);
        self.changed();
    }
    /// The body cannot be had.
    pub(crate) fn fail(&self, key: MessageKey, failure: MailboxFailure) {
        self.lock().failures.insert(key, failure);
        self.changed();
    }
    /// Something else than this session removes a message.
    pub(super) fn remove(&self, mailbox: &str, uid: Uid) {
        self.lock().folder(mailbox).messages.retain(|message| message.uid != uid);
        self.lock().touch(mailbox);
        self.changed();
    }
    /// Something else than this session changes flags.
    pub(super) fn flag(&self, mailbox: &str, uid: Uid, flag: Flag) {
        for message in &mut self.lock().folder(mailbox).messages {
            if message.uid == uid {
                message.flags.insert(flag.clone());
            }
        }
        self.lock().touch(mailbox);
        self.changed();
    }
    /// UIDs of which the body was asked for while it was not here.
    pub(super) fn pulls(&self) -> Vec<Uid> {
        self.lock().pulls.clone()
    }
    /// The messages of a mailbox.
    pub(super) fn messages(&self, mailbox: &str) -> Vec<Message> {
        self.lock().folder(mailbox).messages.clone()
    }
    /// The bytes of a message.
    pub(super) fn mail(&self, key: MessageKey) -> Vec<u8> {
        self.lock().mails[&key].clone()
    }

    /// A body on disk loses its end.
    pub(super) fn cut_body(&self, key: MessageKey, len: usize) {
        std::fs::write(self.body_path(key), &self.mail(key)[..len]).unwrap();
    }
    /// Files of messages that were being appended.
    pub(super) fn appended_files(&self) -> usize {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| !name.to_string_lossy().ends_with(".body")).count()
    }

    async fn body(&self, mailbox: MailboxName, uid: Uid) -> MailboxReply {
        let mut changes = self.changes.subscribe();
        let mut counted = false;
        loop {
            {
                let mut inner = self.lock();
                let found = inner.folders.get(&mailbox).and_then(|f| f.messages.iter().find(|m| m.uid == uid)).cloned();
                let Some(message) = found else { return MailboxReply::Failed(MailboxFailure::NoMessage) };
                if message.body == BodyState::Here {
                    return MailboxReply::Body(self.body_path(message.key));
                }
                if !std::mem::replace(&mut counted, true) {
                    inner.pulls.push(uid);
                }
                if let Some(failure) = inner.failures.get(&message.key) {
                    return MailboxReply::Failed(failure.clone());
                }
            }
            changes.changed().await.unwrap();
        }
    }
}

impl Inner {
    fn folder(&mut self, mailbox: &str) -> &mut Folder {
        self.folders.get_mut(&MailboxName::new(mailbox).unwrap()).unwrap()
    }
    fn touch(&mut self, mailbox: &str) {
        self.folder(mailbox).version += 1;
    }
    fn make(&mut self, name: MailboxName) {
        self.last += 1;
        let folder = Folder { uid_validity: self.last, next: 1, version: 1, subscribed: true, messages: Vec::new() };
        self.folders.insert(name, folder);
    }
    fn put(&mut self, mailbox: &str, mail: &[u8], flags: BTreeSet<Flag>, date: WallTime) -> (Uid, MessageKey) {
        self.last += 1;
        let key = MessageKey(u64::from(self.last));
        let split = split(mail);
        let size = split.structure.size;
        self.heads.insert(key, Arc::new(Head { header_block: split.header_block, structure: split.structure }));
        self.mails.insert(key, mail.to_vec());
        let folder = self.folder(mailbox);
        let uid = Uid(folder.next);
        folder.next += 1;
        folder.version += 1;
        folder.messages.push(Message { uid, key, flags, internal_date: date, size, body: BodyState::Here });
        (uid, key)
    }
    fn each(&mut self, key: MessageKey, change: impl Fn(&mut Message)) {
        for folder in self.folders.values_mut() {
            for message in folder.messages.iter_mut().filter(|message| message.key == key) {
                change(message);
                folder.version += 1;
            }
        }
    }
    fn info(&self, view: View, name: &MailboxName) -> Option<(MailboxInfo, Vec<Message>)> {
        let folder = self.folders.get(name)?;
        let shown = |m: &&Message| view == View::Stubs || m.body == BodyState::Here;
        let messages: Vec<Message> = folder.messages.iter().filter(shown).cloned().collect();
        let unseen = messages.iter().filter(|m| !m.flags.contains(&Flag::Seen)).count();
        let info = MailboxInfo {
            name: name.clone(),
            standard: Standard::ALL.into_iter().find(|s| s.name() == name.as_str()),
            subscribed: folder.subscribed,
            uid_validity: folder.uid_validity + if view == View::Full { 1_000_000 } else { 0 },
            uid_next: Uid(folder.next),
            exists: u32::try_from(messages.len()).unwrap(),
            unseen: u32::try_from(unseen).unwrap(),
            version: folder.version,
        };
        Some((info, messages))
    }
    /// Copies; gives source and target UIDs.
    fn copy(&mut self, from: &MailboxName, uids: &[Uid], to: &MailboxName) -> Result<MailboxReply, MailboxFailure> {
        if !self.folders.contains_key(to) {
            return Err(MailboxFailure::NoMailbox(to.clone()));
        }
        let messages: Vec<Message> =
            self.folder(from.as_str()).messages.iter().filter(|m| uids.contains(&m.uid)).cloned().collect();
        let target = self.folder(to.as_str());
        let mut pairs = Vec::new();
        for mut message in messages {
            let uid = Uid(target.next);
            target.next += 1;
            pairs.push((message.uid, uid));
            message.uid = uid;
            target.messages.push(message);
        }
        target.version += 1;
        Ok(MailboxReply::Copied { uid_validity: target.uid_validity, uids: pairs })
    }
    fn answer(&mut self, view: View, request: MailboxRequest) -> Result<MailboxReply, MailboxFailure> {
        Ok(match request {
            MailboxRequest::List => {
                let names: Vec<_> = self.folders.keys().cloned().collect();
                MailboxReply::Mailboxes(names.iter().map(|name| self.info(view, name).unwrap().0).collect())
            }
            MailboxRequest::Open(name) | MailboxRequest::OpenUnless { mailbox: name, .. } => {
                let (info, messages) = self.info(view, &name).ok_or(MailboxFailure::NoMailbox(name))?;
                MailboxReply::Opened { info, messages }
            }
            MailboxRequest::Flags { mailbox, uids, change, flags } => {
                let folder = self.folder(mailbox.as_str());
                let mut changed = Vec::new();
                for message in folder.messages.iter_mut().filter(|m| uids.contains(&m.uid)) {
                    let new = super::selected::changed(&message.flags, change, &flags);
                    if new != message.flags {
                        message.flags = new;
                        changed.push(message.clone());
                    }
                }
                folder.version += 1;
                MailboxReply::Changed(changed)
            }
            MailboxRequest::Copy { mailbox, uids, to } => self.copy(&mailbox, &uids, &to)?,
            MailboxRequest::Move { mailbox, uids, to } => {
                let reply = self.copy(&mailbox, &uids, &to)?;
                let folder = self.folder(mailbox.as_str());
                folder.messages.retain(|m| !uids.contains(&m.uid));
                folder.version += 1;
                reply
            }
            MailboxRequest::Expunge { mailbox, uids } => {
                let folder = self.folder(mailbox.as_str());
                let goes = |m: &Message| {
                    m.flags.contains(&Flag::Deleted) && uids.as_ref().is_none_or(|uids| uids.contains(&m.uid))
                };
                let gone = folder.messages.iter().filter(|m| goes(m)).map(|m| m.uid).collect();
                folder.messages.retain(|m| !goes(m));
                folder.version += 1;
                MailboxReply::Expunged(gone)
            }
            MailboxRequest::Progress { key } => MailboxReply::Pulled(self.percents.get(&key).copied()),
            MailboxRequest::Create(name) if self.folders.contains_key(&name) => {
                return Err(MailboxFailure::Exists(name));
            }
            MailboxRequest::Create(name) => {
                self.make(name);
                MailboxReply::Done
            }
            MailboxRequest::Delete(name) if Standard::ALL.iter().any(|s| s.name() == name.as_str()) => {
                return Err(MailboxFailure::Cannot(format!("{name} cannot be deleted")));
            }
            MailboxRequest::Delete(name) => {
                self.folders.remove(&name).ok_or(MailboxFailure::NoMailbox(name))?;
                MailboxReply::Done
            }
            MailboxRequest::Rename { from, to } => {
                let folder = self.folders.remove(&from).ok_or(MailboxFailure::NoMailbox(from))?;
                self.folders.insert(to, folder);
                MailboxReply::Done
            }
            MailboxRequest::Subscribe { mailbox, subscribed } => {
                self.folders.get_mut(&mailbox).ok_or(MailboxFailure::NoMailbox(mailbox))?.subscribed = subscribed;
                MailboxReply::Done
            }
            MailboxRequest::Append { .. } | MailboxRequest::Body { .. } => unreachable!("answered by the caller"),
        })
    }
}

impl MailStore for Memory {
    async fn authenticate(&self, login: &str, password: &str) -> Result<View, AuthError> {
        let view = login_view(&"alice@acme".parse().unwrap(), login);
        view.filter(|_| password == PASSWORD).ok_or(AuthError::Refused)
    }
    async fn request(&self, view: View, request: MailboxRequest) -> MailboxReply {
        match request {
            MailboxRequest::Body { mailbox, uid } => self.body(mailbox, uid).await,
            MailboxRequest::Append { mailbox, file, flags, internal_date } => {
                let mail = std::fs::read(&file).unwrap();
                let date = internal_date.unwrap_or(WallTime(1_704_103_200_000));
                let (uid, key) = self.lock().put(mailbox.as_str(), &mail, flags, date);
                std::fs::rename(file, self.body_path(key)).unwrap();
                let validity = self.lock().folder(mailbox.as_str()).uid_validity;
                self.changed();
                MailboxReply::Appended(validity, uid)
            }
            request => {
                let asks = matches!(
                    request,
                    MailboxRequest::List
                        | MailboxRequest::Open(_)
                        | MailboxRequest::OpenUnless { .. }
                        | MailboxRequest::Progress { .. }
                );
                let reply = self.lock().answer(view, request).unwrap_or_else(MailboxReply::Failed);
                if !asks {
                    self.changed();
                }
                reply
            }
        }
    }
    async fn head(&self, key: MessageKey) -> io::Result<Arc<Head>> {
        self.lock().heads.get(&key).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    fn append_path(&self) -> PathBuf {
        let mut inner = self.lock();
        inner.last += 1;
        self.folder.path().join(format!("{}.new", inner.last))
    }
}
