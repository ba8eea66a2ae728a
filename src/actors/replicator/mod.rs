//! Replicator: pulls parts over HTTPS, writes and removes their files, posts reports, reads parts again. It never decides what
//! is held; its brain does.

mod pull;
mod removals;
#[cfg(test)]
mod tests;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_bytes::ByteBuf;
use tokio::task::AbortHandle;

use crate::actors::shell::{EventLog, Handle, Perform, Shell};
use crate::clock::Clock;
use crate::core::replicator::{
    Action, AskFailure, Input, MirrorOrder, Mirrored, PartsDropped, Replicator, SHORT_BYTES, Scrub,
};
use crate::fragment::stream::check_part;
use crate::fragment::{Codec, FragmentError};
use crate::model::group::Roster;
use crate::model::holding::{Holdings, Missed};
use crate::model::msglist::Cursor;
use crate::model::{Address, Digest, MailId, Part, PeerId};
use crate::net::https_client::PeerClient;
use crate::net::peer_answer::NetError;
use crate::store::files::{FileError, remove_all, remove_durable};
use crate::store::home::Home;
use crate::store::listing::remove_manifests;
use crate::wire::PeerKey;
use crate::wire::http::HoldingsPost;
use pull::{Lies, Puller, held_manifest};
use removals::Removals;

/// A mail that is to be put together from whoever has enough of it, because its owner is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildOrder {
    /// Which mail.
    pub h: MailId,
    /// Whose mail.
    pub owner: PeerId,
    /// Length of the sealed mail.
    pub length: u64,
    /// BLAKE3 of the sealed mail.
    pub digest: Digest,
    /// Whom to ask: the owner, and the members that placement names, in rank.
    pub sources: Vec<PeerId>,
}

/// Why a mail could not be put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRebuilt {
    /// There is no room for it on this peer's disk.
    DiskFull,
    /// It cannot be had now, and why.
    NotNow(String),
}

/// Puts a mail together from several holders: what the fetcher does. The peer hands it in, so that actors know no other.
pub trait Rebuild: Send + Sync + 'static {
    /// The whole sealed mail, verified, as an open file; whoever fetched it may remove its name meanwhile. Why not, otherwise.
    fn fetch_whole(&self, order: RebuildOrder) -> BoxFuture<'static, Result<File, NotRebuilt>>;
    /// A peer served the replicator what does not fit the manifest of this mail: it is named and counted as one that served
    /// it to a reader, and not asked again for that mail.
    fn lied(&self, order: RebuildOrder, source: PeerId, why: String) -> BoxFuture<'static, ()>;
}

/// What the replicator works with.
pub struct Tools {
    /// Asks other peers.
    pub client: PeerClient,
    /// Where the parts are.
    pub home: Home,
    /// Makes fragments.
    pub codec: Codec,
    /// Signs holdings.
    pub key: PeerKey,
    /// Puts mails together whose owner is off.
    pub rebuild: Arc<dyn Rebuild>,
}

/// The performer of the replicator's brain.
pub struct Performer {
    tools: Tools,
    /// The question under way to each member about each owner's msglist.
    follows: BTreeMap<(PeerId, PeerId), AbortHandle>,
    lies: Lies,
    removals: Removals,
}

/// Starts the replicator with a brain whose events have been replayed, in the group as it is known now.
pub fn start(
    tools: Tools,
    brain: Replicator,
    roster: Roster,
    log: Arc<dyn EventLog>,
    clock: Clock,
) -> Handle<Replicator> {
    let performer = Performer { tools, follows: BTreeMap::new(), lies: Lies::default(), removals: Removals::default() };
    Shell::start(brain, performer, log, clock, Some(Input::Start(roster)))
}

fn ask_failure(error: &NetError) -> AskFailure {
    let why = error.to_string();
    match error {
        NetError::Status { .. } | NetError::TooLarge { .. } | NetError::Malformed { .. } => AskFailure::Refused { why },
        _ => AskFailure::Unreachable { why },
    }
}

/// What a member says it holds. (1, 0) is how a whole copy is listed.
fn parts_of(fragments: Vec<(u8, u8)>) -> BTreeSet<Part> {
    let mut parts: BTreeSet<Part> = fragments.into_iter().map(|(k, i)| Part::Fragment { k, i }).collect();
    if parts.contains(&Part::Fragment { k: 1, i: 0 }) {
        parts.insert(Part::Whole);
    }
    parts
}

/// Asks each of the members at the same time. One that says the mail is not there holds nothing; one that does not answer is
/// left out, and so is one that says the mail is gone: what it sent to show that comes second, not verified.
async fn ask_holders(
    client: PeerClient,
    h: MailId,
    members: Vec<PeerId>,
) -> (BTreeMap<PeerId, BTreeSet<Part>>, Vec<Vec<u8>>) {
    let ask = |member: PeerId| {
        let client = client.clone();
        async move { (member, client.get_fragments(member, &h).await) }
    };
    let mut asked: FuturesUnordered<_> = members.into_iter().map(ask).collect();
    let (mut answers, mut gone) = (BTreeMap::new(), Vec::new());
    while let Some((member, answer)) = asked.next().await {
        match answer {
            Ok(fragments) => drop(answers.insert(member, parts_of(fragments))),
            Err(NetError::Status { code: 404, .. }) => drop(answers.insert(member, BTreeSet::new())),
            Err(NetError::Gone { tombstone, .. }) => gone.push(tombstone),
            Err(_) => {}
        }
    }
    (answers, gone)
}

/// Looks for the files of an address: removes what nobody named, and says what is missing. A part without its manifest can be
/// neither checked nor served, so it counts as missing.
fn check_parts(
    home: &Home,
    address: &Address,
    parts: BTreeMap<PeerId, BTreeSet<(MailId, Part)>>,
) -> Result<Vec<(PeerId, MailId, Part)>, FileError> {
    let found = home.mirrored_parts(address)?;
    let manifests = home.mirrored_manifests(address)?;
    let named: BTreeSet<(MailId, Part)> = parts.values().flatten().copied().collect();
    let mails: BTreeSet<MailId> = named.iter().map(|(h, _)| *h).collect();
    for (h, part) in found.difference(&named) {
        remove_durable(&home.mirror_part(address, h, *part))?;
    }
    for h in manifests.difference(&mails) {
        remove_manifests(&home.mirror_manifest(address, h))?;
    }
    let is_there = |h: &MailId, part: &Part| found.contains(&(*h, *part)) && manifests.contains(h);
    let all = parts.into_iter().flat_map(|(owner, set)| set.into_iter().map(move |(h, part)| (owner, h, part)));
    Ok(all.filter(|(_, h, part)| !is_there(h, part)).collect())
}

/// Reads a part and checks every block.
fn scrub(home: &Home, owner: &PeerId, address: &Address, h: &MailId, part: Part) -> Scrub {
    let unknown = |why: String| Scrub::Unknown { why };
    let Some(manifest) = held_manifest(&home.mirror_manifest(address, h), owner, part) else { return Scrub::Bad };
    let file = match File::open(home.mirror_part(address, h, part)) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Scrub::Bad,
        Err(e) => return unknown(e.to_string()),
    };
    match check_part(&manifest, part, file) {
        Ok(bad) if bad.is_empty() => Scrub::Good,
        // A disk that cannot read a sector has lost what was there.
        Ok(_) | Err(FragmentError::Io { .. }) => Scrub::Bad,
        Err(other) => unknown(other.to_string()),
    }
}

/// Removes the files of some parts, and the manifest when nothing of the mail stays.
fn remove_parts(home: &Home, address: &Address, h: &MailId, parts: &[Part], last: bool) -> Result<(), FileError> {
    remove_all(&parts.iter().map(|part| home.mirror_part(address, h, *part)).collect::<Vec<_>>())?;
    if last { remove_manifests(&home.mirror_manifest(address, h)) } else { Ok(()) }
}

impl Performer {
    /// Runs file work on the blocking pool and tells what came of it. A panic aborts, so a lost task means this peer stops.
    fn work(&self, back: &Handle<Replicator>, work: impl FnOnce(&Home) -> Input + Send + 'static) {
        let (home, back) = (self.tools.home.clone(), back.clone());
        tokio::spawn(async move {
            if let Ok(input) = tokio::task::spawn_blocking(move || work(&home)).await {
                // A stopped brain needs no answer; the same holds below.
                let _ = back.tell(input).await;
            }
        });
    }
    /// Asks other peers and tells what came of it.
    fn ask(&self, back: &Handle<Replicator>, ask: impl Future<Output = Input> + Send + 'static) -> AbortHandle {
        let back = back.clone();
        let task = tokio::spawn(async move {
            let input = ask.await;
            let _ = back.tell(input).await;
        });
        task.abort_handle()
    }

    fn follow(&mut self, back: &Handle<Replicator>, follow: Follow) {
        let key = (follow.owner, follow.from);
        let task = self.ask(back, follow.run(self.tools.client.clone()));
        self.follows.retain(|_, task| !task.is_finished());
        if let Some(earlier) = self.follows.insert(key, task) {
            earlier.abort();
        }
    }
    fn mirror(&self, back: &Handle<Replicator>, orders: Vec<MirrorOrder>) {
        let Some(owner) = orders.first().map(|order| order.owner) else { return };
        let Tools { client, home, codec, rebuild, .. } = &self.tools;
        let (client, home, codec, rebuild) = (client.clone(), home.clone(), codec.clone(), rebuild.clone());
        let puller = Puller { client, home, codec, rebuild, lies: self.lies.clone() };
        if let [order] = &orders[..]
            && !(order.owner_answers && order.bytes() <= SHORT_BYTES)
        {
            let (h, part, order) = (order.h, order.part, order.clone());
            self.ask(back, async move {
                let result = puller.mirror(order).await;
                Input::Mirrored { owner, results: vec![Mirrored { h, part, result }] }
            });
            return;
        }
        let back = back.clone();
        tokio::spawn(puller.mirror_together(orders, move |results| {
            let told = back.tell(Input::Mirrored { owner, results });
            // A stopped brain needs no answer.
            async move { told.await.unwrap_or_default() }
        }));
    }
    fn report(&self, back: &Handle<Replicator>, owner: PeerId, upto: u64, holdings: Holdings) {
        let signed = self.tools.key.sign(holdings);
        let post = HoldingsPost::Batch(ByteBuf::from(signed.as_bytes().to_vec()));
        let client = self.tools.client.clone();
        self.ask(back, async move {
            let result = client.post_holdings(owner, &post).await.map(drop).map_err(|e| ask_failure(&e));
            Input::Reported { owner, upto, result }
        });
    }
    fn compare(&self, back: &Handle<Replicator>, owner: PeerId, buckets: Vec<u8>) {
        let client = self.tools.client.clone();
        let told = back.clone();
        self.ask(back, async move {
            let mut answer = client.post_holdings(owner, &HoldingsPost::Buckets(ByteBuf::from(buckets))).await;
            let parts = answer.as_mut().map(|answer| std::mem::take(&mut answer.missed)).unwrap_or_default();
            let upto = answer.as_ref().ok().and_then(|answer| answer.missed_upto).unwrap_or_default();
            let said = answer.as_ref().ok().and_then(|answer| answer.said).unwrap_or_default();
            if answer.is_ok() {
                let _ = told.tell(Input::Missed { owner, missed: Missed { parts, upto, said } }).await;
            }
            let result = answer.map(|answer| answer.differ.into_vec()).map_err(|e| ask_failure(&e));
            Input::Compared { owner, result }
        });
    }
    fn check(&self, back: &Handle<Replicator>, address: Address, parts: BTreeMap<PeerId, BTreeSet<(MailId, Part)>>) {
        self.work(back, move |home| {
            let missing = check_parts(home, &address, parts).unwrap_or_else(|error| {
                tracing::warn!(%address, %error, "the parts held for a member cannot be listed; the weekly check will tell");
                Vec::new()
            });
            Input::Checked { address, missing }
        });
    }
}

/// One question for a msglist.
struct Follow {
    owner: PeerId,
    address: Address,
    from: PeerId,
    round: u64,
    since: Cursor,
    wait: Duration,
}

impl Follow {
    async fn run(self, client: PeerClient) -> Input {
        let Self { owner, address, from, round, since, wait } = self;
        let page = if owner == from {
            client.get_msglist(from, since, wait).await
        } else {
            client.get_mirror_msglist(from, &address, since).await
        };
        Input::Page { owner, from, round, result: page.map_err(|e| ask_failure(&e)) }
    }
}

impl Perform<Replicator> for Performer {
    fn perform(&mut self, action: Action, back: &Handle<Replicator>) {
        match action {
            Action::Follow { owner, address, from, round, since, wait_s } => {
                let wait = Duration::from_secs(wait_s.into());
                self.follow(back, Follow { owner, address, from, round, since, wait });
            }
            Action::CheckParts { address, parts } => self.check(back, address, parts),
            Action::AskHolders { owner, h, members } => {
                let client = self.tools.client.clone();
                self.ask(back, async move {
                    let (answers, gone) = ask_holders(client, h, members).await;
                    Input::Holders { owner, h, answers, gone }
                });
            }
            Action::Mirror(orders) => self.mirror(back, orders),
            Action::DropParts { owner, address, h, parts, last } => {
                let home = self.tools.home.clone();
                self.removals.remove(back, move || {
                    let result = remove_parts(&home, &address, &h, &parts, last).map_err(|e| e.to_string());
                    PartsDropped { owner, h, parts, result }
                });
            }
            Action::Report { owner, upto, holdings } => self.report(back, owner, upto, holdings),
            Action::CompareHoldings { owner, buckets } => self.compare(back, owner, buckets),
            Action::Scrub { owner, address, h, part } => self.work(back, move |home| {
                let result = scrub(home, &owner, &address, &h, part);
                if result != Scrub::Good {
                    tracing::warn!(mail = %h, %part, ?result, "a held part did not pass its check");
                }
                Input::Scrubbed { owner, h, part, result }
            }),
        }
    }
}
