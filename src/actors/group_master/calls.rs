//! Calls to other peers and reads of the DHT: what comes back is checked here, and what does not hold is dropped with a word
//! in the log. Every call ends in bounded time.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use serde_bytes::ByteBuf;

use super::Kit;
use super::keys::{signed_descriptor, signed_gd};
use crate::core::group::{Beat, BeatAnswer, CallFailed, Errand, GdFound, Input, PeerFound, SignedDescriptor, SignedGd};
use crate::model::card::JoinRequest;
use crate::model::dht::DhtKey;
use crate::model::group::{GroupDescriptor, Heartbeat, HeartbeatAnswer, Member, View};
use crate::model::{Fingerprint, GroupName, PeerId};
use crate::net::peer_answer::NetError;
use crate::seal::keys::Certificate;
use crate::seal::record::{PgpSigned, verify_descriptor, verify_gd};
use crate::wire::Signed;

/// A heartbeat without an answer for so long is missed; shorter than the time between two.
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(5);
/// A join takes a signature and a commit on the other side.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);
/// For a holder of the group key to seal it, or to sign.
pub(super) const KEY_PATIENCE: Duration = Duration::from_secs(30);
/// For one member to send its gd or a certificate.
const ASK_PATIENCE: Duration = Duration::from_secs(8);
/// For the DHT, when nothing else was found.
const DHT_PATIENCE: Duration = Duration::from_secs(20);
/// For the DHT, when a member has answered already: it only shows other candidates then.
const DHT_PATIENCE_MORE: Duration = Duration::from_secs(2);
/// Most candidates that are checked; whoever likes puts some into the DHT.
const CANDIDATES_MAX: usize = 64;
/// Most descriptors of one message that are checked: the members of a group.
const DESCRIPTORS_MAX: usize = 100;

/// What a failed call means to the brain.
fn failed(error: NetError) -> CallFailed {
    match error {
        NetError::Status { code: 400 | 403 | 404 | 413, text, gd_version, .. } => {
            CallFailed::Refused { why: text, gd_version }
        }
        NetError::Status { text, .. } => CallFailed::Unreachable { why: text },
        NetError::Malformed { .. } | NetError::TooLarge { .. } => CallFailed::Bad { why: error.to_string() },
        NetError::Unreachable { why, .. } => CallFailed::Unreachable { why },
        other => CallFailed::Unreachable { why: other.to_string() },
    }
}

pub(super) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, NetError>>,
) -> Result<T, CallFailed> {
    match tokio::time::timeout(patience, call).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(CallFailed::Unreachable { why: format!("no answer within {} s", patience.as_secs()) }),
    }
}

/// A gd that is well signed, by whichever key it carries: the brain compares that with the pinned one.
fn read_gd(bytes: &[u8]) -> Option<SignedGd> {
    match PgpSigned::<GroupDescriptor>::verify(bytes) {
        Ok(signed) => Some(signed_gd(signed)),
        Err(error) => {
            tracing::warn!(%error, "a group descriptor is ignored");
            None
        }
    }
}

/// The same, of an answer.
pub(super) async fn check_gd(bytes: Bytes) -> Option<SignedGd> {
    checked(move || read_gd(&bytes)).await.flatten()
}

fn read_descriptors(all: &[ByteBuf]) -> Vec<SignedDescriptor> {
    let read = all.iter().take(DESCRIPTORS_MAX).map(|bytes| verify_descriptor(bytes));
    let good = read
        .filter_map(|result| result.inspect_err(|error| tracing::warn!(%error, "a peer descriptor is ignored")).ok());
    good.map(signed_descriptor).collect()
}

/// Runs checks where they may take long.
async fn checked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // Only a runtime that goes down cancels it; then nobody waits for the result.
    tokio::task::spawn_blocking(work).await.ok()
}

/// Checks what a heartbeat carries. `trusted`: the caller is a member already, so its descriptors are worth the work; a
/// stranger's are only if the gd that it brings names it.
pub(super) async fn check_beat(mut plain: Heartbeat, caller: PeerId, trusted: bool) -> Beat {
    let (gd, descriptors) = (plain.gd.take(), std::mem::take(&mut plain.descriptors));
    if gd.is_none() && (descriptors.is_empty() || !trusted) {
        return Beat { plain, ..Beat::default() };
    }
    let work = move || {
        let gd = gd.and_then(|bytes| read_gd(&bytes));
        let named = trusted || gd.as_ref().is_some_and(|signed| signed.gd.member(&caller).is_some());
        let descriptors = if named { read_descriptors(&descriptors) } else { Vec::new() };
        (gd, descriptors)
    };
    let (gd, descriptors) = checked(work).await.unwrap_or_default();
    Beat { plain, gd, descriptors }
}

async fn check_answer(mut plain: HeartbeatAnswer) -> BeatAnswer {
    let (gd, view) = (plain.gd.take(), plain.view.take());
    let descriptors = std::mem::take(&mut plain.descriptors);
    if gd.is_none() && view.is_none() && descriptors.is_empty() {
        return BeatAnswer { plain, ..BeatAnswer::default() };
    }
    let work = move || {
        let gd = gd.and_then(|bytes| read_gd(&bytes));
        let view = view.and_then(|bytes| {
            Signed::<View>::verify(&bytes).inspect_err(|error| tracing::warn!(%error, "a view is ignored")).ok()
        });
        (gd, view, read_descriptors(&descriptors))
    };
    let (gd, view, descriptors) = checked(work).await.unwrap_or_default();
    BeatAnswer { plain, view, gd, descriptors }
}

impl Kit {
    pub(super) async fn send_heartbeat(self, peer: PeerId, heartbeat: Heartbeat, errand: Errand) -> Input {
        let result = match within(HEARTBEAT_PATIENCE, self.client.post_heartbeat(peer, &heartbeat)).await {
            Ok(answer) => Ok(Box::new(check_answer(answer).await)),
            Err(failed) => Err(failed),
        };
        Input::HeartbeatAnswered { peer, errand, result }
    }

    pub(super) async fn ask_join(self, peer: PeerId, key: Fingerprint, descriptor: ByteBuf, proof: Vec<u8>) -> Input {
        let request = JoinRequest { descriptor: descriptor.into_vec(), proof };
        let result = match within(JOIN_PATIENCE, self.client.post_join(peer, &request)).await {
            Ok(bytes) => {
                let verified = checked(move || verify_gd(&bytes, &key).map_err(|error| error.to_string())).await;
                let verified = verified.unwrap_or_else(|| Err("this peer is stopping".to_owned()));
                verified.map(signed_gd).map_err(|why| CallFailed::Bad { why })
            }
            Err(failed) => Err(failed),
        };
        Input::JoinAnswered { peer, result }
    }

    pub(super) async fn fetch_gd(self, group: GroupName, ask: Vec<PeerId>) -> Input {
        let dht = self.dht.clone();
        let key = DhtKey::Group(group.clone());
        let from_dht = tokio::spawn(async move { dht.get(key).await });
        let asked = join_all(ask.iter().map(|peer| within(ASK_PATIENCE, self.client.get_group(*peer)))).await;
        let mut found: Vec<Bytes> = Vec::new();
        let mut whys: Vec<String> = Vec::new();
        for (peer, result) in ask.iter().zip(asked) {
            match result {
                Ok(bytes) => found.push(bytes),
                Err(CallFailed::Unreachable { why } | CallFailed::Refused { why, .. } | CallFailed::Bad { why }) => {
                    whys.push(format!("{peer}: {why}"));
                }
            }
        }
        let patience = if found.is_empty() { DHT_PATIENCE } else { DHT_PATIENCE_MORE };
        match tokio::time::timeout(patience, from_dht).await {
            Ok(Ok(Ok(values))) => found.extend(values),
            Ok(Ok(Err(why))) => whys.push(format!("the DHT: {why}")),
            Ok(Err(_)) | Err(_) => whys.push("the DHT: no answer in time".to_owned()),
        }
        // What peers of its own say comes first; the DHT may be full of strangers' candidates.
        let mut seen = BTreeSet::new();
        found.retain(|bytes| seen.insert(bytes.clone()));
        let read = move || found.iter().filter_map(|bytes| read_gd(bytes)).take(CANDIDATES_MAX).collect::<Vec<_>>();
        let mut candidates = checked(read).await.unwrap_or_default();
        candidates.retain(|candidate| candidate.gd.group == group);
        let why = (candidates.is_empty() && !whys.is_empty()).then(|| whys.join("; "));
        Input::GdFetched { group, found: GdFound { candidates, why } }
    }

    pub(super) async fn fetch_peer(self, member: Member, ask: Vec<PeerId>) -> Input {
        let peer = member.peer_id;
        let described = tokio::time::timeout(DHT_PATIENCE, self.dht.get(DhtKey::Peer(member.address.clone()))).await;
        let values = described.ok().and_then(Result::ok).unwrap_or_default();
        let wanted = member.clone();
        let newest = move || {
            // Whoever may, puts entries under an address: only those of the key that the gd names count.
            let read = values.iter().take(CANDIDATES_MAX * 4).filter_map(|bytes| verify_descriptor(bytes).ok());
            let own = read.map(signed_descriptor).filter(|signed| {
                let d = &signed.descriptor;
                (&d.address, d.peer_id, signed.fingerprint) == (&wanted.address, wanted.peer_id, wanted.fingerprint)
            });
            own.max_by_key(|signed| signed.descriptor.sequence)
        };
        let found = match checked(newest).await.flatten() {
            Some(signed) => PeerFound::Descriptor(Box::new(signed)),
            None => self.fetch_certificate(&member, &ask).await.map_or(PeerFound::Nothing, PeerFound::Certificate),
        };
        Input::PeerFetched { peer, found }
    }

    /// The certificate with the fingerprint that the gd names, from the first of these peers that has it.
    async fn fetch_certificate(&self, member: &Member, ask: &[PeerId]) -> Option<Vec<u8>> {
        let calls = ask.iter().map(|peer| within(ASK_PATIENCE, self.client.get_pubkey(*peer, &member.address)));
        for bytes in join_all(calls).await.into_iter().flatten() {
            let parsed = checked(move || Certificate::parse(&bytes)).await;
            match parsed {
                Some(Ok(certificate)) if certificate.fingerprint() == member.fingerprint => {
                    return Some(certificate.as_bytes().to_vec());
                }
                _ => tracing::warn!(address = %member.address, "a peer sent a certificate that the gd does not name"),
            }
        }
        None
    }
}
