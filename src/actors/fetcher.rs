//! Fetcher: asks sources over HTTPS, verifies every block before it is written, and tells the brain. It never schedules.
//!
//! A mail is put together in memory while it is short, comes soon, and there is room, else in a file.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::task::AbortHandle;

use crate::actors::beside::beside;
use crate::actors::directory::Directory;
use crate::actors::fetch_place::{MemoryRoom, Place};
use crate::actors::shell::{EventLog, Handle, Perform, Shell};
use crate::clock::Clock;
use crate::core::fetch::{Action, Fetch, Input, Offer, Order, RequestId, Run, SourceFailure};
use crate::fragment::stream::Put;
use crate::fragment::{Assembler, Codec, FragmentError, Layout, MailName, check_manifest};
use crate::model::manifest::Manifest;
use crate::model::msglist::Tombstone;
use crate::model::{Digest, MailId, MonoTime, Part, PeerId, PulledMail, Urgency};
use crate::net::body_source::{BodySource, ChunkStream};
use crate::net::https_client::PeerClient;
use crate::net::peer_answer::{NetError, PeerBody};
use crate::store::files::is_disk_full;
use crate::store::home::Home;
use crate::store::room;
use crate::wire::Signed;

/// Bytes of a manifest beside its digests: ids, lengths, signature.
const MANIFEST_FRAME_BYTES: u64 = 64 * 1024;

/// What came of an attempt with one source.
type Tried<T> = Result<T, SourceFailure>;

/// How often at most a request says that bytes arrived which do not make a block yet.
const SIGN_OF_LIFE: Duration = Duration::from_millis(50);

/// Bytes that are read at a time from the own disk.
const OWN_CHUNK: usize = 256 * 1024;

/// What this peer itself holds of other members' mails: a source like any other, without the network.
pub trait OwnParts: Send + Sync + 'static {
    /// The fragments (k, i) of a mail that are here.
    fn fragments(&self, h: MailId) -> BoxFuture<'static, Result<Vec<(u8, u8)>, String>>;
    /// The manifest, as it is kept.
    fn manifest(&self, h: MailId, k: Option<u8>) -> BoxFuture<'static, Result<BodySource, String>>;
    /// A part of it.
    fn part(&self, h: MailId, part: Part) -> BoxFuture<'static, Result<BodySource, String>>;
}

/// Where sources are asked: other peers over HTTPS, this one on its own disk.
#[derive(Clone)]
pub struct Origins {
    /// This peer.
    pub me: PeerId,
    /// What it holds.
    pub own: Arc<dyn OwnParts>,
    /// Asks others.
    pub client: PeerClient,
    /// Who is who, for the log.
    pub directory: Directory,
}

/// An answer's bytes, wherever they come from.
enum Blocks {
    Peer(PeerBody),
    Own(ChunkStream),
}

impl Blocks {
    async fn next(&mut self) -> Tried<Option<Bytes>> {
        match self {
            Blocks::Peer(body) => body.next().await.map_err(|e| unreachable(&e)),
            Blocks::Own(chunks) => {
                chunks.next().await.transpose().map_err(|e| SourceFailure::Unreachable(e.to_string()))
            }
        }
    }
}

impl Origins {
    async fn fragments(&self, h: MailId, owner: PeerId, source: PeerId) -> Tried<Vec<(u8, u8)>> {
        if source == self.me {
            return self.own.fragments(h).await.map_err(SourceFailure::Unreachable);
        }
        self.client.get_fragments(source, &h).await.map_err(|e| gone_or(&e, h, owner))
    }
    async fn manifest(&self, order: &Order, source: PeerId, k: Option<u8>, limit: usize) -> Tried<Bytes> {
        if source != self.me {
            let got = match k {
                Some(k) => self.client.get_manifest_for(source, &order.h, k, limit).await,
                None => self.client.get_manifest(source, &order.h, limit).await,
            };
            return got.map_err(|e| gone_or(&e, order.h, order.owner));
        }
        let body = self.own.manifest(order.h, k).await.map_err(SourceFailure::Unreachable)?;
        let len = body.len();
        let mut chunks = Blocks::Own(body.into_chunks(0..len.min(u64::try_from(limit).unwrap_or(u64::MAX)), OWN_CHUNK));
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
    /// All of a short mail, of the announced length and BLAKE3.
    async fn short(&self, order: &Order) -> Tried<Vec<u8>> {
        let (h, owner) = (order.h, order.owner);
        let mut body = if owner == self.me {
            let body = self.own.part(h, Part::Whole).await.map_err(SourceFailure::Unreachable)?;
            Blocks::Own(body.into_chunks(0..order.length, OWN_CHUNK))
        } else {
            let client = self.client.with_urgency(order.urgency);
            let body = client.get_part(owner, &h, Part::Whole, None).await;
            Blocks::Peer(body.map_err(|e| gone_or(&e, h, owner))?)
        };
        let length = usize::try_from(order.length).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(length.min(OWN_CHUNK));
        while let Some(chunk) = body.next().await? {
            if bytes.len() + chunk.len() > length {
                return Err(SourceFailure::Lied(format!("it is longer than the {length} bytes that were announced")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() == length && Digest::new(*blake3::hash(&bytes).as_bytes()) == order.digest {
            return Ok(bytes);
        }
        // A connection that breaks is no lie; the length of an answer is checked where it is read.
        Err(SourceFailure::Lied("its bytes are not those that were announced".to_owned()))
    }
    async fn part(&self, get: &Get, part: Part, range: Range<u64>) -> Tried<Blocks> {
        let (h, source) = (get.h, get.source);
        if source == self.me {
            let body = self.own.part(h, part).await.map_err(SourceFailure::Unreachable)?;
            return Ok(Blocks::Own(body.into_chunks(range, OWN_CHUNK)));
        }
        let client = self.client.with_urgency(get.urgency);
        client.get_part(source, &h, part, Some(range)).await.map(Blocks::Peer).map_err(|e| unreachable(&e))
    }
}

/// A mail whose blocks are being put together.
#[derive(Clone)]
struct OpenMail {
    layout: Layout,
    /// Where its file is, or would be.
    path: PathBuf,
    in_memory_until: Option<MonoTime>,
    assembler: Arc<Mutex<Option<Assembler<Place>>>>,
}

/// The performer of the fetch brain.
pub struct Fetcher {
    origins: Origins,
    home: Home,
    codec: Arc<Codec>,
    clock: Clock,
    mails: Arc<Mutex<BTreeMap<MailId, OpenMail>>>,
    memory: MemoryRoom,
    requests: BTreeMap<RequestId, AbortHandle>,
    manifests: BTreeMap<(MailId, PeerId), AbortHandle>,
}

/// Starts the fetcher.
pub fn start(origins: Origins, home: Home, codec: Arc<Codec>, clock: Clock, log: Arc<dyn EventLog>) -> Handle<Fetch> {
    let mails = Arc::default();
    let (requests, manifests) = (BTreeMap::new(), BTreeMap::new());
    let memory = MemoryRoom::default();
    let performer = Fetcher { origins, home, codec, clock: clock.clone(), mails, memory, requests, manifests };
    Shell::start(Fetch::default(), performer, log, clock, None)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Blocks are verified before they count, so a panic elsewhere leaves nothing wrong behind.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn unreachable(error: &NetError) -> SourceFailure {
    match error {
        NetError::Status { code: 404, .. } => SourceFailure::Nothing,
        NetError::TooLarge { .. } | NetError::Malformed { .. } => SourceFailure::Lied(error.to_string()),
        other => SourceFailure::Unreachable(other.to_string()),
    }
}

/// The failure of a source that says the mail is gone: believed only with the owner's signed word (R3).
fn gone_or(error: &NetError, h: MailId, owner: PeerId) -> SourceFailure {
    if let NetError::Gone { tombstone, .. } = error {
        return match Signed::<Tombstone>::verify(tombstone) {
            Ok(t) if t.h == h && t.owner == owner => SourceFailure::Gone(t.ending),
            // Another owner gave its own mail this h, and ended that: no lie, and no word on this mail.
            Ok(t) if t.h == h => SourceFailure::Nothing,
            _ => SourceFailure::Lied("its tombstone is not the owner's".to_owned()),
        };
    }
    unreachable(error)
}

async fn ask_offer(origins: Origins, h: MailId, owner: PeerId, source: PeerId) -> Tried<Offer> {
    let fragments = origins.fragments(h, owner, source).await?;
    if fragments.is_empty() {
        return Err(SourceFailure::Nothing);
    }
    Ok(Offer { whole: fragments.contains(&(1, 0)), fragments })
}

/// Most bytes of the manifest of a mail that are read, where mails are at most `max_sealed`. They are in RAM at once.
fn manifest_limit(length: u64, max_sealed: u64) -> usize {
    // A digest of 32 bytes for each block of up to 100 indices: less than a sixteenth of the mail.
    usize::try_from(length.min(max_sealed) / 16 + MANIFEST_FRAME_BYTES).unwrap_or(usize::MAX)
}

async fn get_manifest(
    origins: Origins,
    order: Order,
    source: PeerId,
    k: Option<u8>,
) -> Tried<(Layout, Box<Signed<Manifest>>)> {
    let limit = manifest_limit(order.length, origins.directory.snapshot().roster.policy.max_sealed());
    let bytes = origins.manifest(&order, source, k, limit).await?;
    let lied = |why: String| SourceFailure::Lied(format!("manifest: {why}"));
    let checked = beside(bytes.len(), move || {
        let manifest = Signed::<Manifest>::verify(&bytes).map_err(|e| lied(e.to_string()))?;
        if manifest.owner != order.owner {
            // Another owner gave its own mail this h; whoever serves that one does not lie.
            return Err(SourceFailure::Nothing);
        }
        let name = MailName { h: order.h, length: order.length, digest: order.digest };
        let layout = check_manifest(&manifest, &name).map_err(|e| lied(e.to_string()))?;
        Ok((layout, Box::new(manifest)))
    });
    checked.await.unwrap_or_else(|_| Err(SourceFailure::Unreachable("this peer is stopping".to_owned())))
}

/// A mail of one block, from its owner: its ns says all that is needed to check it.
async fn get_short(origins: Origins, order: &Order, request: RequestId) -> Input {
    let h = order.h;
    let result = origins.short(order).await.map(Bytes::from);
    Input::Short { h, request, result }
}

/// What one request needs.
struct Get {
    origins: Origins,
    clock: Clock,
    mail: OpenMail,
    back: Handle<Fetch>,
    h: MailId,
    source: PeerId,
    request: RequestId,
    k: u8,
    run: Run,
    urgency: Urgency,
}

/// When the brain was last told of bytes of a block that is not whole yet, and how many had come then.
type Told = Option<(MonoTime, usize)>;

/// Why a request ended before its end.
enum Broken {
    Source(SourceFailure),
    Disk(FragmentError),
    Stopped,
}

impl From<SourceFailure> for Broken {
    fn from(failure: SourceFailure) -> Self {
        Broken::Source(failure)
    }
}

fn disk_failed(h: MailId, error: &FragmentError) -> Input {
    let full = matches!(error, FragmentError::Io { source } if is_disk_full(source));
    Input::DiskFailed { h, why: error.to_string(), full }
}

impl Get {
    async fn run(self) {
        let started = self.clock.now().mono;
        let mut first = None;
        let outcome = self.blocks(&mut first).await;
        let took = self.clock.now().mono.since(started);
        let result = match outcome {
            Ok(()) => Ok((first.unwrap_or(took), took)),
            Err(Broken::Source(failure)) => Err(failure),
            Err(Broken::Disk(error)) => {
                // A stopped brain needs no answer; the same holds below.
                let _ = self.back.hand_in(disk_failed(self.h, &error)).await;
                return;
            }
            Err(Broken::Stopped) => return,
        };
        let _ = self.back.hand_in(Input::Ended { h: self.h, request: self.request, result }).await;
    }

    async fn body(&self) -> Tried<Blocks> {
        let layout = &self.mail.layout;
        let stripes = self.run.stripes();
        let last = stripes.end.saturating_sub(1);
        let (part, range) = match self.run {
            // Fragment (1, 0) is the whole mail, and that is how its holders know it.
            Run::Fragment { index, .. } if self.k > 1 => {
                let range =
                    layout.block_range_in_fragment(stripes.start).start..layout.block_range_in_fragment(last).end;
                (Part::Fragment { k: self.k, i: index }, range)
            }
            Run::Fragment { .. } | Run::Whole { .. } => {
                let range = layout.stripe_range_in_mail(stripes.start).start..layout.stripe_range_in_mail(last).end;
                (Part::Whole, range)
            }
        };
        self.origins.part(self, part, range).await
    }

    /// Reads block after block, verifies it into the file, and tells.
    async fn blocks(&self, first: &mut Option<Duration>) -> Result<(), Broken> {
        let started = self.clock.now().mono;
        let mut body = self.body().await?;
        let mut buffer: Vec<u8> = Vec::new();
        // Told of at once when the first bytes come: that is how the brain learns of the delay.
        let mut told = None;
        for (stripe, index, travels) in self.expected() {
            told = told.map(|_| (self.clock.now().mono, buffer.len()));
            while buffer.len() < travels {
                match body.next().await? {
                    Some(chunk) => buffer.extend_from_slice(&chunk),
                    None => return Err(SourceFailure::Unreachable("it broke off".to_owned()).into()),
                }
                told = self.sign_of_life(told, buffer.len().min(travels)).await?;
            }
            let rest = buffer.split_off(travels);
            let mut block = std::mem::replace(&mut buffer, rest);
            let len = usize::try_from(self.mail.layout.block_len(stripe)).unwrap_or(usize::MAX);
            block.resize(len.max(travels), 0);
            if !self.put(stripe, index, block).await? {
                // No room for it now: unheard of by the brain, it is asked for again.
                continue;
            }
            first.get_or_insert(self.clock.now().mono.since(started));
            let bytes = u64::try_from(travels).unwrap_or(u64::MAX);
            let input = Input::Block { h: self.h, request: self.request, stripe, index, bytes };
            self.back.tell(input).await.map_err(|_| Broken::Stopped)?;
        }
        Ok(())
    }

    /// Tells that bytes came of a block that is not whole yet, the first time and after every moment of silence.
    async fn sign_of_life(&self, told: Told, here: usize) -> Result<Told, Broken> {
        let now = self.clock.now().mono;
        if told.is_some_and(|(at, _)| now.since(at) < SIGN_OF_LIFE) {
            return Ok(told);
        }
        let before = told.map_or(0, |(_, before)| before);
        let bytes = u64::try_from(here.saturating_sub(before)).unwrap_or(u64::MAX);
        let input = Input::Arrived { h: self.h, request: self.request, bytes };
        self.back.tell(input).await.map_err(|_| Broken::Stopped)?;
        Ok(Some((now, here)))
    }

    /// Stripe, index and length on the way of each block that the answer carries, in order.
    fn expected(&self) -> Vec<(u64, u8, usize)> {
        let layout = &self.mail.layout;
        let len = |range: Range<u64>| usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let stripes = self.run.stripes();
        match self.run {
            Run::Fragment { index, .. } if self.k > 1 => {
                stripes.map(|s| (s, index, len(layout.block_range_in_fragment(s)))).collect()
            }
            Run::Fragment { .. } | Run::Whole { .. } => stripes
                .flat_map(|s| (0..layout.k()).map(move |i| (s, i)))
                .map(|(s, i)| (s, i, len(layout.block_range_in_mail(s, i))))
                .filter(|(_, _, len)| *len > 0)
                .collect(),
        }
    }

    /// Puts a verified block into the file; false when there is no room for it before stripes that are begun are done.
    async fn put(&self, stripe: u64, index: u8, block: Vec<u8>) -> Result<bool, Broken> {
        let (assembler, path) = (self.mail.assembler.clone(), self.mail.path.clone());
        let put = move || match lock(&assembler).as_mut() {
            Some(assembler) => assembler.put(stripe, index, &block).inspect_err(|error| {
                if let FragmentError::Io { source } = error {
                    room::ran_out(&path, source);
                }
            }),
            None => Ok(Put::Spare),
        };
        // A block in memory is checked and copied in less time than another thread takes to wake.
        let now = self.clock.now().mono;
        let is_quick = self.mail.in_memory_until.is_some_and(|until| now < until);
        let put = if is_quick { Ok(put()) } else { tokio::task::spawn_blocking(put).await };
        match put {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(FragmentError::TooManyInFlight { .. })) => Ok(false),
            Ok(Err(e @ FragmentError::Io { .. })) => Err(Broken::Disk(e)),
            Ok(Err(wrong @ (FragmentError::WrongBlock { .. } | FragmentError::NoSuchBlock { .. }))) => {
                Err(SourceFailure::Lied(wrong.to_string()).into())
            }
            Ok(Err(other)) => Err(Broken::Disk(other)),
            Err(_) => Err(Broken::Stopped),
        }
    }
}

impl Fetcher {
    fn open(&self, h: MailId, manifest: Signed<Manifest>, back: Handle<Fetch>) {
        let path = self.home.fetch_mail(&h, &manifest.owner, manifest.length, &manifest.digest);
        let (codec, mails) = (self.codec.clone(), self.mails.clone());
        let (memory, clock) = (self.memory.clone(), self.clock.clone());
        tokio::spawn(async move {
            let opened = tokio::task::spawn_blocking(move || {
                let place = memory.open(&path, manifest.length, &clock)?;
                let in_memory_until = place.in_memory_until();
                let assembler = Assembler::resume(Arc::new(manifest.into_value()), &codec, place)?;
                let layout = *assembler.layout();
                let all = (0..layout.stripes()).flat_map(|s| (0..layout.k()).map(move |i| (s, i)));
                let have: Vec<(u64, u8)> = all.filter(|(s, i)| assembler.has(*s, *i)).collect();
                let assembler = Arc::new(Mutex::new(Some(assembler)));
                lock(&mails).insert(h, OpenMail { layout, path, in_memory_until, assembler });
                Ok::<_, FragmentError>(have)
            });
            let input = match opened.await {
                Ok(Ok(have)) => Input::Opened { h, have },
                Ok(Err(e)) => disk_failed(h, &e),
                Err(_) => return,
            };
            let _ = back.hand_in(input).await;
        });
    }

    fn finish(&self, h: MailId, back: Handle<Fetch>) {
        let Some(mail) = lock(&self.mails).remove(&h) else { return };
        tokio::spawn(async move {
            let finished = tokio::task::spawn_blocking(move || finish(&mail));
            if let Ok(result) = finished.await {
                let _ = back.hand_in(Input::Finished { h, result }).await;
            }
        });
    }
}

/// Leaves the blocks that came where the next try finds them.
fn leave(mail: &OpenMail) {
    let left = lock(&mail.assembler).take().map_or(Ok(()), |assembler| assembler.into_file().leave());
    if let Err(error) = left {
        tracing::debug!(path = %mail.path.display(), %error, "a mail that was pulled in part is pulled anew");
    }
}

/// Checks the whole. A file that does not fit is removed: its blocks fit the manifest, so another try would end the same.
fn finish(mail: &OpenMail) -> Result<PulledMail, String> {
    let Some(assembler) = lock(&mail.assembler).take() else { return Err("it was closed".to_owned()) };
    match assembler.finish() {
        Ok(Place::File(_)) => Ok(PulledMail::File(mail.path.clone())),
        Ok(Place::Memory(memory)) => Ok(PulledMail::Memory(memory.into())),
        Err(e) => {
            let removed = std::fs::remove_file(&mail.path);
            if let Some(kept) = removed.err().filter(|e| e.kind() != io::ErrorKind::NotFound) {
                tracing::warn!(path = %mail.path.display(), %kept, "a pulled file that does not fit its announcement stays");
            }
            Err(e.to_string())
        }
    }
}

impl Perform<Fetch> for Fetcher {
    fn perform(&mut self, action: Action, back: &Handle<Fetch>) {
        let (origins, back) = (self.origins.clone(), back.clone());
        match action {
            Action::AskOffer { h, owner, source } => {
                tokio::spawn(async move {
                    let offer = ask_offer(origins, h, owner, source).await;
                    let _ = back.hand_in(Input::Offered { h, source, offer }).await;
                });
            }
            Action::GetManifest { order, source, k } => {
                let h = order.h;
                let task = tokio::spawn(async move {
                    let manifest = get_manifest(origins, order, source, k).await;
                    let _ = back.hand_in(Input::Manifest { h, source, manifest }).await;
                });
                self.manifests.retain(|_, task| !task.is_finished());
                self.manifests.insert((h, source), task.abort_handle());
            }
            Action::StopManifest { h, source } => {
                if let Some(task) = self.manifests.remove(&(h, source)) {
                    task.abort();
                }
            }
            Action::Open { h, manifest } => self.open(h, *manifest, back),
            Action::Get { h, source, request, k, run, urgency } => {
                let Some(mail) = lock(&self.mails).get(&h).cloned() else { return };
                let get = Get { origins, clock: self.clock.clone(), mail, back, h, source, request, k, run, urgency };
                self.requests.retain(|_, task| !task.is_finished());
                self.requests.insert(request, tokio::spawn(get.run()).abort_handle());
            }
            Action::GetShort { order, request } => {
                let task = tokio::spawn(async move {
                    let input = get_short(origins, &order, request).await;
                    let _ = back.hand_in(input).await;
                });
                self.requests.retain(|_, task| !task.is_finished());
                self.requests.insert(request, task.abort_handle());
            }
            Action::Cancel { request } => {
                if let Some(task) = self.requests.remove(&request) {
                    task.abort();
                }
            }
            Action::Finish { h } => self.finish(h, back),
            Action::Close { h, keep } => {
                if let Some(mail) = lock(&self.mails).remove(&h).filter(|_| keep) {
                    tokio::task::spawn_blocking(move || leave(&mail));
                }
            }
            Action::NameLiar { h, peer, why } => {
                let snapshot = self.origins.directory.snapshot();
                let address =
                    snapshot.peers.get(&peer).and_then(|known| known.address.as_ref()).map(ToString::to_string);
                let address = address.unwrap_or_else(|| "nobody known".to_owned());
                tracing::warn!(%address, %peer, mail = %h, %why, "a peer served what is not in the manifest; it is not asked again for this mail");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::path::Path;

    use super::*;
    use crate::model::msglist::Ending;
    use crate::model::{Digest, Policy, WallTime};
    use crate::wire::PeerKey;

    #[test]
    fn a_manifest_is_read_as_far_as_a_mail_of_the_group_needs_and_not_as_its_ns_says() {
        let most = Policy::default().max_sealed();
        let limit = manifest_limit(most, most);
        assert_eq!(manifest_limit(u64::MAX, most), limit);
        assert!(limit < 80 << 20 && manifest_limit(0, most) < limit);
    }

    #[test]
    fn a_tombstone_of_another_owner_for_the_same_h_is_neither_a_lie_nor_the_end() {
        let (alice, bob) = (PeerKey::from_seed(&[1; 32]), PeerKey::from_seed(&[2; 32]));
        let h = MailId::new([7; 20]);
        let said_by = |key: &PeerKey, h| {
            let (ending, at, expiry) = (Ending::Cancelled, WallTime(1), WallTime(2));
            let word = key.sign(Tombstone { owner: key.peer_id(), h, ending, at, expiry });
            NetError::Gone { peer: bob.peer_id(), tombstone: word.as_bytes().to_vec() }
        };
        let owner = alice.peer_id();
        assert_eq!(gone_or(&said_by(&alice, h), h, owner), SourceFailure::Gone(Ending::Cancelled));
        assert_eq!(gone_or(&said_by(&bob, h), h, owner), SourceFailure::Nothing);
        let other = said_by(&alice, MailId::new([8; 20]));
        assert!(matches!(gone_or(&other, h, owner), SourceFailure::Lied(_)));
    }

    #[test]
    fn two_mails_by_one_h_are_put_together_in_two_files() {
        let home = Home::at(Path::new("/nowhere"));
        let h = MailId::new([7; 20]);
        let owners = [1, 2].map(|x| PeerKey::from_seed(&[x; 32]).peer_id());
        let all = [(0, 5, 1), (1, 5, 1), (0, 6, 1), (0, 5, 2)];
        let name = |(o, len, d): (usize, u64, u8)| home.fetch_mail(&h, &owners[o], len, &Digest::new([d; 32]));
        let names: BTreeSet<PathBuf> = all.into_iter().map(name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|n| n.file_name().is_some_and(|n| n.len() < 255)));
    }
}
