//! Carries notices to other peers: those for one peer that come within a moment travel together. It knows no mail and never
//! tries again by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::model::PeerId;
use crate::net::https_client::PeerClient;
use crate::net::peer_answer::NetError;
use crate::wire::notify::{NOTIFY_BATCH_MAX, NOTIFY_BYTES_MAX, Notice};

/// How long a notice waits for others to the same peer.
const GATHER: Duration = Duration::from_millis(2);
/// Requests under way to one peer. What comes while one is waits, and travels together in the next: under load, bursts grow
/// instead of connections.
const UNDER_WAY: usize = 1;
/// Bytes of notices in one request: what the route takes, less room for names and framing.
const BATCH_BYTES: usize = NOTIFY_BYTES_MAX - 256 * NOTIFY_BATCH_MAX;

/// `POST /notify`.
pub(super) trait Post: Send + Sync + 'static {
    /// Posts notices; `Ok` once the peer has all of them on disk.
    fn post(&self, peer: PeerId, notices: Vec<Notice>) -> BoxFuture<'static, Result<(), NetError>>;
}

impl Post for PeerClient {
    fn post(&self, peer: PeerId, notices: Vec<Notice>) -> BoxFuture<'static, Result<(), NetError>> {
        let client = self.clone();
        Box::pin(async move { client.post_notify(peer, &notices).await })
    }
}

/// A notice, and who wants to know whether it was taken.
struct Item {
    notice: Notice,
    taken: oneshot::Sender<bool>,
}

/// What waits for one peer, and how many carry to it.
#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    carriers: usize,
}

/// Gathers notices by peer. The outbox bounds how many wait.
pub(super) struct Courier {
    post: Box<dyn Post>,
    queues: Mutex<BTreeMap<PeerId, Queue>>,
}

impl Courier {
    pub(super) fn new(post: impl Post) -> Arc<Self> {
        Arc::new(Self { post: Box::new(post), queues: Mutex::default() })
    }

    /// Whether the peer has the notice on disk.
    pub(super) async fn send(self: Arc<Self>, peer: PeerId, notice: Notice) -> bool {
        let (taken, told) = oneshot::channel();
        let one_more = {
            let mut queues = self.queues();
            let queue = queues.entry(peer).or_default();
            queue.items.push(Item { notice, taken });
            // Whoever was told of the first notice takes what comes until it leaves.
            let one_more = queue.items.len() == 1 && queue.carriers < UNDER_WAY;
            queue.carriers += usize::from(one_more);
            one_more
        };
        if one_more {
            tokio::spawn(self.carry(peer));
        }
        told.await.unwrap_or(false)
    }

    /// Carries what waits for a peer, until nothing does.
    async fn carry(self: Arc<Self>, peer: PeerId) {
        tokio::time::sleep(GATHER).await;
        while let Some(items) = self.take(peer) {
            self.deliver(peer, items).await;
        }
    }

    /// All that waits for a peer; where nothing does, its carrier is done.
    fn take(&self, peer: PeerId) -> Option<Vec<Item>> {
        let mut queues = self.queues();
        let queue = queues.get_mut(&peer)?;
        let items = std::mem::take(&mut queue.items);
        if !items.is_empty() {
            return Some(items);
        }
        queue.carriers -= 1;
        if queue.carriers == 0 {
            queues.remove(&peer);
        }
        None
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<PeerId, Queue>> {
        // A push or a removal leaves a good map, whoever panicked after it.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn deliver(&self, peer: PeerId, items: Vec<Item>) {
        for batch in batches(items) {
            let notices: Vec<Notice> = batch.iter().map(|item| item.notice.clone()).collect();
            match self.post.post(peer, notices).await {
                Ok(()) => tell(batch, true),
                // One bad notice must not keep the others back: each is heard for itself.
                Err(NetError::Status { .. }) if batch.len() > 1 => {
                    for item in batch {
                        let taken = self.post.post(peer, vec![item.notice.clone()]).await.is_ok();
                        tell(vec![item], taken);
                    }
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, notices = batch.len(), "notices were not taken");
                    tell(batch, false);
                }
            }
        }
    }
}

/// Whoever asked may have gone away; then nobody wants to know.
fn tell(batch: Vec<Item>, taken: bool) {
    for item in batch {
        let _ = item.taken.send(taken);
    }
}

/// Cuts where the route's bounds are met.
fn batches(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = length(&item.notice);
        match batches.last_mut().filter(|last| last.len() < NOTIFY_BATCH_MAX && bytes + more <= BATCH_BYTES) {
            Some(last) => {
                bytes += more;
                last.push(item);
            }
            None => {
                bytes = more;
                batches.push(vec![item]);
            }
        }
    }
    batches
}

fn length(notice: &Notice) -> usize {
    match notice {
        Notice::Ns { sealed, .. } | Notice::Nr { sealed, .. } => sealed.len(),
        Notice::Tombstone(bytes) => bytes.len(),
        Notice::Hello => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_bytes::ByteBuf;

    /// Refuses what has a 0 in it; remembers how many notices came together.
    #[derive(Clone, Default)]
    struct Peer(Arc<Mutex<Vec<usize>>>);

    impl Post for Peer {
        fn post(&self, peer: PeerId, notices: Vec<Notice>) -> BoxFuture<'static, Result<(), NetError>> {
            self.0.lock().unwrap().push(notices.len());
            let bad = notices.iter().any(|n| matches!(n, Notice::Tombstone(bytes) if bytes.contains(&0)));
            let no = NetError::Status { peer, code: 400, text: String::new(), retry_after_s: None, gd_version: None };
            Box::pin(async move { if bad { Err(no) } else { Ok(()) } })
        }
    }
    fn notice(bytes: &[u8]) -> Notice {
        Notice::Tombstone(ByteBuf::from(bytes))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_to_one_peer_travels_together() {
        let peer = Peer::default();
        let courier = Courier::new(peer.clone());
        let (bob, carol) = (PeerId::new([1; 32]), PeerId::new([2; 32]));
        let sends = (0..300).map(|n| courier.clone().send(if n == 0 { carol } else { bob }, notice(&[1])));
        assert!(futures::future::join_all(sends).await.into_iter().all(|taken| taken));
        let mut together = peer.0.lock().unwrap().clone();
        together.sort_unstable();
        assert_eq!(together, [1, 43, 256]);
    }

    /// Takes a second for each request, and remembers how many were under way at most, and how many notices each had.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<(usize, usize, Vec<usize>)>>);

    impl Post for Slow {
        fn post(&self, _: PeerId, notices: Vec<Notice>) -> BoxFuture<'static, Result<(), NetError>> {
            let seen = self.0.clone();
            Box::pin(async move {
                {
                    let mut seen = seen.lock().unwrap();
                    seen.0 += 1;
                    seen.1 = seen.1.max(seen.0);
                    seen.2.push(notices.len());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.lock().unwrap().0 -= 1;
                Ok(())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_requests_are_under_way_travels_together_in_the_next() {
        let peer = Slow::default();
        let courier = Courier::new(peer.clone());
        let send = |n: u64| {
            let courier = courier.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(100 * n)).await;
                courier.send(PeerId::new([1; 32]), notice(&[1])).await
            }
        };
        assert!(futures::future::join_all((0..40).map(send)).await.into_iter().all(|taken| taken));
        let seen = peer.0.lock().unwrap();
        assert_eq!((seen.0, seen.1), (0, UNDER_WAY));
        assert_eq!(seen.2.iter().sum::<usize>(), 40);
        assert!(seen.2.len() <= 12, "{:?}", seen.2);
        assert!(courier.queues().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_notice_does_not_keep_the_others_back() {
        let courier = Courier::new(Peer::default());
        let bob = PeerId::new([1; 32]);
        let sends = [1u8, 0, 2].map(|n| courier.clone().send(bob, notice(&[n])));
        assert_eq!(futures::future::join_all(sends).await, [true, false, true]);
    }

    #[test]
    fn large_notices_are_cut_at_the_routes_bound() {
        let item = || Item { notice: notice(&[1; 1024 * 1024]), taken: oneshot::channel().0 };
        let sizes: Vec<usize> = batches((0..7).map(|_| item()).collect()).iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 3, 1]);
    }
}
