//! Pulling several short parts of one owner: asked for in one request, each checked against its own manifest, and made durable together.
//! It never keeps a byte that does not fit the owner's manifest (R6), and what is wrong with one part does not hold up the others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::pull::{Checked, Failure, PartWriter, Puller, blocking, manifest_path};
use crate::core::replicator::{MirrorFailure, MirrorOrder, Mirrored};
use crate::model::{MailId, Part};
use crate::net::peer_answer::NetError;
use crate::store::files::{DurableWriter, commit_together, staged};
use crate::store::home::Home;
use crate::store::manifests::{covers, find};
use crate::wire::http::{GivenPart, PartsAnswer, PartsPost};

/// Parts that are pulled again, each by requests of its own, at the same time.
const AGAIN_AT_ONCE: usize = 8;

/// Parts that are made durable together: each has two files, and each file a buffer of one block until it is written.
const KEPT_AT_ONCE: usize = 16;

/// An order that its owner's answer did not fill, and why not, if that is known.
type Given = (MirrorOrder, Option<Failure>);

/// A file that has only a temporary name yet, and the name that it is to have.
type Staged = (DurableWriter, PathBuf);

impl Puller {
    /// Mirrors several parts of one owner. `told` hears of those that are here as soon as they are, and of each other one once it is known
    /// what came of it.
    pub(super) async fn mirror_together<T: Future<Output = ()>>(
        self,
        orders: Vec<MirrorOrder>,
        told: impl Fn(Vec<Mirrored>) -> T,
    ) {
        let (here, others) = self.ask_owner_together(orders).await;
        if !here.is_empty() {
            told(here.iter().map(|order| mirrored(order, Ok(()))).collect()).await;
        }
        let mut others = others.into_iter();
        let again = |(order, why): Given| {
            let puller = self.clone();
            async move { puller.alone(order, why).await }
        };
        let mut under_way: FuturesUnordered<_> = others.by_ref().take(AGAIN_AT_ONCE).map(again).collect();
        while let Some(one) = under_way.next().await {
            under_way.extend(others.next().map(again));
            told(vec![one]).await;
        }
    }

    /// One part that did not come with the others: as if it had been ordered alone, but for what is known by now.
    async fn alone(self, order: MirrorOrder, why: Option<Failure>) -> Mirrored {
        let result = match why {
            None => self.mirror(order.clone()).await,
            Some(failure) => {
                let failure = self.blame(&order, order.owner, failure).await;
                self.after_owner(&order, Some(Err(failure))).await
            }
        };
        mirrored(&order, result)
    }

    /// Which parts are here now, and which are not.
    async fn ask_owner_together(&self, orders: Vec<MirrorOrder>) -> (Vec<MirrorOrder>, Vec<Given>) {
        let (liars, orders): (Vec<_>, Vec<_>) = orders.into_iter().partition(|order| self.has_lied(order, order.owner));
        let (mut here, mut others) = (Vec::new(), unknown(liars).collect::<Vec<_>>());
        let answer = match self.ask_together(&orders).await {
            Ok(answer) => answer,
            // It was waited for once, for all of them: the others are asked now.
            Err(error @ (NetError::Unreachable { .. } | NetError::WrongPeer { .. } | NetError::Timeout { .. })) => {
                let why = error.to_string();
                others.extend(orders.into_iter().map(|order| (order, Some(Failure::Source(why.clone())))));
                return (here, others);
            }
            // Of an earlier version, or too busy for that: each part finds out for itself.
            Err(_) => PartsAnswer::default(),
        };
        let mut given: BTreeMap<(MailId, Part), GivenPart> =
            answer.parts.into_iter().map(|one| ((one.h, one.part), one)).collect();
        let mut gone: BTreeMap<MailId, Vec<u8>> =
            answer.gone.into_iter().map(|(h, tombstone)| (h, tombstone.into_vec())).collect();
        let mut to_keep = Vec::new();
        for order in orders {
            match (given.remove(&(order.h, order.part)), gone.remove(&order.h)) {
                (Some(one), _) => to_keep.push((order, one)),
                (None, Some(tombstone)) => others.push((order, Some(Failure::Gone(tombstone)))),
                (None, None) => others.push((order, None)),
            }
        }
        while !to_keep.is_empty() {
            let some = to_keep.split_off(to_keep.len().saturating_sub(KEPT_AT_ONCE));
            let orders: Vec<MirrorOrder> = some.iter().map(|(order, _)| order.clone()).collect();
            let home = self.home.clone();
            match blocking(move || Ok(keep(&home, some))).await {
                Ok((kept, failed)) => {
                    here.extend(kept);
                    others.extend(failed);
                }
                Err(_) => others.extend(unknown(orders)),
            }
        }
        (here, others)
    }

    async fn ask_together(&self, orders: &[MirrorOrder]) -> Result<PartsAnswer, NetError> {
        let Some(first) = orders.first() else { return Ok(PartsAnswer::default()) };
        let post = PartsPost { parts: orders.iter().map(|order| (order.h, order.part)).collect() };
        self.client.with_urgency(first.urgency).post_parts(first.owner, &post).await
    }
}

fn mirrored(order: &MirrorOrder, result: Result<(), MirrorFailure>) -> Mirrored {
    Mirrored { h: order.h, part: order.part, result }
}

/// Orders of which nothing is known yet.
fn unknown(orders: Vec<MirrorOrder>) -> impl Iterator<Item = Given> {
    orders.into_iter().map(|order| (order, None))
}

/// Checks parts and makes those durable that are right; each with its manifest, unless that is here. Which ones are here now, and which
/// are not. Blocks.
fn keep(home: &Home, parts: Vec<(MirrorOrder, GivenPart)>) -> (Vec<MirrorOrder>, Vec<Given>) {
    let (mut here, mut others, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (order, given) in parts {
        match stage(home, &order, &given) {
            Ok(staged) => {
                files.extend(staged);
                here.push(order);
            }
            // It has no manifest for this part now: whoever asks for it alone finds out more.
            Err(Failure::Source(_)) => others.push((order, None)),
            Err(failure) => others.push((order, Some(failure))),
        }
    }
    if let Err(error) = commit_together(files) {
        others.extend(here.drain(..).map(|order| (order, Some(error.clone().into()))));
    }
    (here, others)
}

/// The files of one part, all of it checked; the manifest first, so that no part is ever here without what it is checked by.
fn stage(home: &Home, order: &MirrorOrder, given: &GivenPart) -> Result<Vec<Staged>, Failure> {
    let mut files = Vec::with_capacity(2);
    let first = home.mirror_manifest(&order.address, &order.h);
    let kept = find(&first, |m| m.owner == order.owner && covers(m.encoding, order.part));
    // What lies on this disk and does not fit is no fault of the owner's.
    let checked = match kept.and_then(|(_, kept)| Checked::new(kept.as_bytes(), order).ok()) {
        Some(checked) => checked,
        None => {
            let checked = Checked::new(&given.manifest, order)?;
            files.push(staged(&manifest_path(home, order, &checked), &given.manifest)?);
            checked
        }
    };
    let mut writer = PartWriter::new(checked, order.part, home.mirror_part(&order.address, &order.h, order.part));
    if writer.total() != u64::try_from(given.bytes.len()).unwrap_or(u64::MAX) {
        return Err(Failure::Bad(format!("it has {} bytes, not {}", given.bytes.len(), writer.total())));
    }
    writer.take(&given.bytes)?;
    files.push(writer.whole()?);
    Ok(files)
}
