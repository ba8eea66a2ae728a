//! What connects the actors that must not know each other: each gives another a trait, and this is what stands behind it.
//! It only passes on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::dht_client::DhtPort;
use super::directory::Directory;
use super::fetcher::OwnParts;
use super::group_master::GroupDht;
use super::peer_api::SharedApi;
use super::postbox::{DhtNews, DhtValue, Look, NoticeDht, PostboxPort};
use super::replicator::{NotRebuilt, Rebuild, RebuildOrder};
use super::shell::Handle;
use super::{outbox, postbox};
use crate::core::dht::Found;
use crate::core::fetch::{self, Fetch, Order};
use crate::core::group::{self, Group};
use crate::core::outbox::{CancelTarget, Dsn, Input, MailFacts, Outbox, ShownMail};
use crate::core::postbox::access::Standard;
use crate::core::postbox::io::Shown;
use crate::model::dht::{DhtKey, EntryTerms, password_hash};
use crate::model::disk::is_disk_full;
use crate::model::{
    Address, Digest, Fingerprint, GroupName, MailId, Part, PeerId, PulledMail, Secret, SubmissionId, Urgency, WallTime,
};
use crate::net::body_source::BodySource;
use crate::net::peer_api::PeerApi;
use crate::store::files::{DurableWriter, FileError, remove_all};
use crate::store::home::Home;

/// What is there only once every actor has started.
#[derive(Default)]
pub struct Late {
    /// Mailboxes.
    pub postbox: OnceLock<PostboxPort>,
    /// Own mails.
    pub outbox: OnceLock<Handle<Outbox>>,
    /// The fetcher.
    pub fetch: OnceLock<Handle<Fetch>>,
    /// The routes' view of this peer.
    pub api: OnceLock<SharedApi>,
}

/// Behind every neighbour trait.
#[derive(Clone)]
pub struct Neighbours {
    /// Filled while the peer starts.
    pub late: Arc<Late>,
    /// Who is who.
    pub directory: Directory,
    /// Membership.
    pub group: Handle<Group>,
    /// This peer.
    pub me: PeerId,
    /// Where it keeps its files.
    pub home: Home,
}

fn starting() -> String {
    "this peer is still starting".to_owned()
}

/// Has a newer gd of a pinned group looked for; whether the one known then is the newest that can be had.
pub async fn freshen(handle: &Handle<Group>, group: GroupName) -> bool {
    let asked = handle.ask(move |token| group::Input::Freshen { token, group }).await;
    matches!(asked, Ok(group::Reply::Freshened { fresh: true }))
}

impl outbox::Neighbours for Neighbours {
    fn freshen(&self, group: &GroupName) -> BoxFuture<'static, bool> {
        let (handle, group) = (self.group.clone(), group.clone());
        Box::pin(async move { freshen(&handle, group).await })
    }
    fn want_group(&self, name: &GroupName) {
        let (handle, group) = (self.group.clone(), name.clone());
        // A brain that stopped looks for nothing.
        tokio::spawn(async move { handle.tell(group::Input::Wanted { group }).await });
    }
    fn file_spooled(&self, submission: SubmissionId) -> BoxFuture<'static, Result<(), String>> {
        let late = self.late.clone();
        Box::pin(async move {
            let postbox = late.postbox.get().ok_or_else(starting)?;
            postbox.file_spooled(submission, Standard::Inbox).await
        })
    }
    fn file_dsn(&self, dsn: Dsn) -> BoxFuture<'static, Result<(), String>> {
        let late = self.late.clone();
        Box::pin(async move {
            let postbox = late.postbox.get().ok_or_else(starting)?;
            postbox.file_message(dsn.id, dsn.at, dsn.message).await
        })
    }
    fn own_header_block(&self, submission: SubmissionId) -> BoxFuture<'static, Option<Vec<u8>>> {
        let late = self.late.clone();
        Box::pin(async move { late.postbox.get()?.own_header_block(submission).await })
    }
    fn fetch_own(&self, facts: &MailFacts, sources: Vec<PeerId>) -> BoxFuture<'static, Result<File, String>> {
        let (late, owner, home) = (self.late.clone(), self.me, self.home.clone());
        let order = Order {
            h: facts.h,
            length: facts.length,
            digest: facts.digest,
            owner,
            sources,
            urgency: Urgency::Background,
        };
        Box::pin(async move {
            let fetch = late.fetch.get().ok_or_else(starting)?;
            fetch_file(fetch.clone(), &home, order).await.map_err(|failure| match failure {
                NotRebuilt::DiskFull => "this peer's disk is full".to_owned(),
                NotRebuilt::NotNow(why) => why,
            })
        })
    }
    fn show(&self, shown: ShownMail) -> BoxFuture<'static, ()> {
        let late = self.late.clone();
        let ShownMail { submission, keywords, at, mails, done, .. } = shown;
        Box::pin(async move {
            if let Some(postbox) = late.postbox.get() {
                // A postbox that stopped is shown everything again at the next start.
                let _ = postbox
                    .show(Shown {
                        submission,
                        keywords: keywords.into_iter().collect(),
                        at,
                        mails: mails.into_iter().collect(),
                        done,
                    })
                    .await;
            }
        })
    }
    fn show_only(&self, submissions: BTreeSet<SubmissionId>) -> BoxFuture<'static, ()> {
        let late = self.late.clone();
        Box::pin(async move {
            if let Some(postbox) = late.postbox.get() {
                let input = crate::core::postbox::Input::ShowOnly(submissions);
                let _ = postbox.handle().tell(input).await;
            }
        })
    }
}

impl postbox::Neighbours for Neighbours {
    fn is_known_sender(&self, from: &Address, _: Fingerprint) -> bool {
        // The postbox checked the key against the gd of the pinned group. Whoever was written to or granted it knows itself;
        // others of a contact's group ask first.
        let snapshot = self.directory.snapshot();
        snapshot.contacts.contains(from) && snapshot.at(from).is_some()
    }
    fn cancel(&self, submission: SubmissionId) -> BoxFuture<'static, ()> {
        let late = self.late.clone();
        Box::pin(async move {
            let Some(outbox) = late.outbox.get() else { return };
            let ask = move |token| Input::Cancel { token, target: CancelTarget::Submission(submission) };
            match outbox.ask(ask).await {
                Ok(answer) => tracing::info!(%submission, ?answer, "a mail was deleted in Outbox"),
                Err(stopped) => tracing::warn!(%submission, %stopped, "a mail was not taken back"),
            }
        })
    }
    fn pin(&self, sender: &Address, group: &GroupName, group_key: Fingerprint) -> BoxFuture<'static, ()> {
        let (handle, sender, group) = (self.group.clone(), sender.clone(), group.clone());
        Box::pin(async move {
            match handle.ask(move |token| group::Input::Pin { token, group, key: group_key }).await {
                Ok(answer) => tracing::info!(%sender, ?answer, "the group of a granted sender is pinned"),
                Err(stopped) => tracing::warn!(%sender, %stopped, "the group of a granted sender is not pinned"),
            }
        })
    }
    fn freshen(&self, group: &GroupName) -> BoxFuture<'static, bool> {
        outbox::Neighbours::freshen(self, group)
    }
    fn find(&self, group: &GroupName) -> BoxFuture<'static, ()> {
        let (handle, group) = (self.group.clone(), group.clone());
        // A peer that is stopping finds nobody, and pulls nothing either.
        Box::pin(async move { drop(handle.ask(move |token| group::Input::Find { token, group }).await) })
    }
    fn pin_candidate(&self, group: &GroupName, key: Fingerprint) -> BoxFuture<'static, ()> {
        let (handle, group) = (self.group.clone(), group.clone());
        Box::pin(async move {
            let name = group.clone();
            match handle.ask(move |token| group::Input::Pin { token, group: name, key }).await {
                Ok(answer) => tracing::info!(%group, %key, ?answer, "a candidate was chosen: its group is pinned"),
                Err(stopped) => tracing::warn!(%group, %key, %stopped, "a candidate was chosen and is not pinned"),
            }
        })
    }
}

impl OwnParts for Neighbours {
    fn fragments(&self, h: MailId) -> BoxFuture<'static, Result<Vec<(u8, u8)>, String>> {
        let (late, me) = (self.late.clone(), self.me);
        Box::pin(async move {
            let api = late.api.get().ok_or_else(starting)?;
            api.fragments(me, h).await.map(|list| list.fragments).map_err(|e| e.to_string())
        })
    }
    fn manifest(&self, h: MailId, k: Option<u8>) -> BoxFuture<'static, Result<BodySource, String>> {
        let (late, me) = (self.late.clone(), self.me);
        Box::pin(async move {
            let api = late.api.get().ok_or_else(starting)?;
            api.manifest(me, h, k).await.map_err(|e| e.to_string())
        })
    }
    fn part(&self, h: MailId, part: Part) -> BoxFuture<'static, Result<BodySource, String>> {
        let (late, me) = (self.late.clone(), self.me);
        Box::pin(async move {
            let api = late.api.get().ok_or_else(starting)?;
            let body = match part {
                Part::Whole => api.sealed(me, h).await,
                Part::Fragment { k, i } => api.fragment(me, h, k, i).await,
            };
            body.map_err(|e| e.to_string())
        })
    }
}

/// The DHT as the group needs it.
pub struct DhtForGroup(pub DhtPort);

impl GroupDht for DhtForGroup {
    fn put(&self, key: DhtKey, value: Bytes, password: Secret, expiry: WallTime) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(put(&self.0, key, value, password, expiry))
    }
    fn get(&self, key: DhtKey) -> BoxFuture<'_, Result<Vec<Bytes>, String>> {
        Box::pin(get(&self.0, key))
    }
}

/// The DHT as the postbox needs it.
pub struct DhtForPostbox {
    /// The DHT.
    pub dht: DhtPort,
    /// This peer: the publisher of its own nr.
    pub me: PeerId,
}

impl NoticeDht for DhtForPostbox {
    fn put(&self, key: DhtKey, value: Bytes, password: Secret, expiry: WallTime) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match self.dht.put(key, value, password, expiry).await {
                // The own share of the DHT goes with this peer: nobody finds anything there while it is off.
                Ok(done) if done.elsewhere > 0 => Ok(()),
                Ok(_) => Err("no other peer stores it yet".to_owned()),
                Err(e) => Err(e.to_string()),
            }
        })
    }
    fn poll(&self, key: DhtKey, have: BTreeSet<Digest>) -> BoxFuture<'_, Result<DhtNews, String>> {
        Box::pin(async move {
            let done = self.dht.watch(key, have).await.map_err(|e| e.to_string())?;
            let value = |found: Found| DhtValue { id: found.id, publisher: found.publisher, value: found.value };
            // A peer that has just started may have found nobody yet but itself.
            let sure = done.complete && done.asked > 1 && done.answered * 2 > done.asked;
            Ok(DhtNews { values: done.entries.into_iter().map(value).collect(), gone: done.gone, sure })
        })
    }
    fn get(&self, key: DhtKey) -> BoxFuture<'_, Result<Vec<Bytes>, String>> {
        Box::pin(get(&self.dht, key))
    }
    fn look(&self, key: DhtKey, value: Digest, password: Secret) -> BoxFuture<'_, Result<Look, String>> {
        let (publisher, password) = (self.me, password_hash(&password));
        // An entry's id does not depend on its expiry: a renewed entry is the same one.
        let id = EntryTerms { key: key.hash(), value, password, expiry: WallTime::default(), publisher }.id();
        Box::pin(async move {
            let done = self.dht.poll(key, BTreeSet::from([id])).await.map_err(|e| e.to_string())?;
            // A few silent peers may be the ones that have it.
            let is_sure = done.complete && done.answered * 2 > done.asked;
            Ok(match (done.gone.contains(&id), done.kept.contains(&id)) {
                (true, _) => Look::Deleted,
                (false, false) if is_sure => Look::Missing,
                _ => Look::There,
            })
        })
    }
    fn del(&self, key: DhtKey, value: Digest, password: Secret) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.dht.del(key, value, password).await.map(drop).map_err(|e| e.to_string()) })
    }
}

async fn put(dht: &DhtPort, key: DhtKey, value: Bytes, password: Secret, expiry: WallTime) -> Result<(), String> {
    match dht.put(key, value, password, expiry).await {
        Ok(done) if done.stored > 0 => Ok(()),
        Ok(_) => Err("nobody stores it yet".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

async fn get(dht: &DhtPort, key: DhtKey) -> Result<Vec<Bytes>, String> {
    let done = dht.get(key).await.map_err(|e| e.to_string())?;
    Ok(done.entries.into_iter().map(|entry| entry.value).collect())
}

fn wanted(order: RebuildOrder) -> Order {
    let RebuildOrder { h, owner, length, digest, sources } = order;
    Order { h, length, digest, owner, sources, urgency: Urgency::Background }
}

/// The whole mail as an open file.
async fn fetch_file(fetch: Handle<Fetch>, home: &Home, order: Order) -> Result<File, NotRebuilt> {
    let folder = home.fetch_dir();
    let not_now = |why: String| NotRebuilt::NotNow(why);
    match fetch.ask(move |token| fetch::Input::Want(token, order)).await {
        Ok(fetch::Reply::Fetched(pulled)) => {
            let opened = tokio::task::spawn_blocking(move || open_pulled(&folder, &pulled));
            opened.await.map_err(|e| not_now(e.to_string()))?
        }
        Ok(fetch::Reply::Failed(fetch::Failure::Disk { full: true, .. })) => Err(NotRebuilt::DiskFull),
        Ok(fetch::Reply::Failed(failure)) => Err(not_now(failure.to_string())),
        Ok(fetch::Reply::Progress(_)) => Err(not_now("the fetcher answered another question".to_owned())),
        Err(stopped) => Err(not_now(stopped.to_string())),
    }
}

/// A pulled mail as an open file without a name, one that was never written by way of a file in `folder`. Blocking.
fn open_pulled(folder: &Path, pulled: &PulledMail) -> Result<File, NotRebuilt> {
    let failed = |path: &Path, e: &io::Error| {
        if is_disk_full(e) { NotRebuilt::DiskFull } else { NotRebuilt::NotNow(format!("{}: {e}", path.display())) }
    };
    let not_now = |e: FileError| NotRebuilt::NotNow(e.to_string());
    match pulled {
        PulledMail::File(path) => {
            let file = File::open(path).map_err(|e| failed(path, &e))?;
            // The open file stays readable; its name is not needed any more, and the next start removes it too.
            remove_all(std::slice::from_ref(path)).map_err(not_now)?;
            Ok(file)
        }
        PulledMail::Memory(bytes) => {
            // Its temporary name goes with the writer, whether it could be written or not.
            let mut writer = DurableWriter::create(folder).map_err(not_now)?;
            writer.write_all(bytes).map_err(|e| failed(folder, &e))?;
            let path = writer.settle().map_err(not_now)?;
            File::open(path).map_err(|e| failed(path, &e))
        }
    }
}

/// The fetcher as the replicator needs it.
pub struct RebuildByFetch(pub Handle<Fetch>, pub Home);

impl Rebuild for RebuildByFetch {
    fn fetch_whole(&self, order: RebuildOrder) -> BoxFuture<'static, Result<File, NotRebuilt>> {
        let (fetch, home) = (self.0.clone(), self.1.clone());
        Box::pin(async move { fetch_file(fetch, &home, wanted(order)).await })
    }
    fn lied(&self, order: RebuildOrder, source: PeerId, why: String) -> BoxFuture<'static, ()> {
        let (fetch, order) = (self.0.clone(), wanted(order));
        Box::pin(async move {
            // A stopped brain has nobody to tell any more.
            let _ = fetch.tell(fetch::Input::Lied { order, source, why }).await;
        })
    }
}
