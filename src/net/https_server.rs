//! The HTTPS server between peers: accepts, proves who calls, bounds connections, answers by the table of routes. It never
//! answers a caller whose PeerId is not proven.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer;
use super::peer_api::{ApiError, PeerApi};
use super::routes;
use super::stall::StallGuard;
use super::tap::Tapped;
use super::tls::{TlsIdentity, peer_of};
use super::upload_limit::UploadLimit;
use crate::model::PeerId;

/// What the server bears (R9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerBounds {
    /// Connections in all. Peers that are not known use at most half of them.
    pub connections: usize,
    /// Connections of one PeerId.
    pub per_peer: usize,
    /// Handshakes at once; more wait in the kernel's queue.
    pub handshakes: usize,
    /// A handshake that takes longer is given up.
    pub handshake_timeout: Duration,
    /// A connection without a request, or with half a request head, is closed after this long. Longer than the client keeps
    /// one idle, so that it is the client that closes.
    pub idle_timeout: Duration,
    /// A connection whose other side takes nothing of an answer for this long is closed.
    pub stall_timeout: Duration,
}

impl Default for ServerBounds {
    fn default() -> Self {
        Self {
            connections: 512,
            per_peer: 64,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// Longest request head, bytes: the table's paths and a handful of headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a refused connection may take to hear so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after `accept` failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropping it stops it at once; [`HttpsServer::stop`] lets answers finish.
#[derive(Debug)]
pub struct HttpsServer {
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    slots: Arc<Slots>,
    stop: watch::Sender<Option<Duration>>,
    task: Option<JoinHandle<()>>,
}

impl HttpsServer {
    /// Serves `api` on `listener` as the peer that `tls` is; what is served goes through `limit`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start<A: PeerApi>(
        listener: TcpListener,
        tls: &TlsIdentity,
        api: A,
        limit: Arc<UploadLimit>,
        bounds: ServerBounds,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let slots = Arc::new(Slots { bounds, taken: Mutex::default() });
        let accepted = Arc::new(AtomicU64::new(0));
        let known = api.clone();
        let shared = Arc::new(Shared {
            acceptor: tls.acceptor(),
            router: routes::router(api, limit),
            is_known: Box::new(move |peer| known.is_known(peer)),
            slots: Arc::clone(&slots),
            bounds,
        });
        let (stop, stopped) = watch::channel(None);
        let task = tokio::spawn(run(listener, shared, Arc::clone(&accepted), stopped));
        Ok(Self { addr, accepted, slots, stop, task: Some(task) })
    }
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
    /// TCP connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.slots.taken().all
    }
    /// Takes no new connection, lets answers under way finish for at most `grace`, and ends.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.send_replace(Some(grace));
        if let Some(task) = self.task.take() {
            // It fails only when the runtime is already going down, which ends it as well.
            task.await.ok();
        }
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Shared {
    acceptor: TlsAcceptor,
    router: Router,
    is_known: Box<dyn Fn(&PeerId) -> bool + Send + Sync>,
    slots: Arc<Slots>,
    bounds: ServerBounds,
}

/// Who has how many connections.
#[derive(Debug)]
struct Slots {
    bounds: ServerBounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    strangers: usize,
    per_peer: BTreeMap<PeerId, usize>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    peer: PeerId,
    known: bool,
}

impl Slots {
    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn take(self: &Arc<Self>, peer: PeerId, known: bool) -> Option<Slot> {
        let mut taken = self.taken();
        let of_peer = taken.per_peer.get(&peer).copied().unwrap_or(0);
        let full = taken.all >= self.bounds.connections || of_peer >= self.bounds.per_peer;
        if full || (!known && taken.strangers >= self.bounds.connections / 2) {
            return None;
        }
        taken.all += 1;
        taken.strangers += usize::from(!known);
        taken.per_peer.insert(peer, of_peer + 1);
        Some(Slot { slots: Arc::clone(self), peer, known })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all = taken.all.saturating_sub(1);
        taken.strangers = taken.strangers.saturating_sub(usize::from(!self.known));
        match taken.per_peer.get_mut(&self.peer) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(taken.per_peer.remove(&self.peer)),
        }
    }
}

/// Accepts until told to stop, then waits for what is under way.
async fn run(
    listener: TcpListener,
    shared: Arc<Shared>,
    accepted: Arc<AtomicU64>,
    mut stopped: watch::Receiver<Option<Duration>>,
) {
    let handshakes = Arc::new(Semaphore::new(shared.bounds.handshakes));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&handshakes).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((permit, listener.accept().await?.0))
        };
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = tasks.join_next() => {}
            result = next => match result {
                Ok((permit, tcp)) => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    tasks.spawn(connection(tcp, permit, Arc::clone(&shared), graceful.watcher()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let grace = stopped.borrow().unwrap_or_default();
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::debug!("answers were still under way when the grace was over");
    }
    tasks.shutdown().await;
}

type PeerTls = TlsStream<StallGuard<TcpStream>>;

/// One connection from its handshake to its end.
async fn connection(tcp: TcpStream, handshake: OwnedSemaphorePermit, shared: Arc<Shared>, watcher: Watcher) {
    let accept = accept_tls(tcp, &shared);
    let (peer, stream) = match tokio::time::timeout(shared.bounds.handshake_timeout, accept).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection was refused in its handshake");
            return;
        }
        Err(_) => return,
    };
    let known = (shared.is_known)(&peer);
    let Some(slot) = shared.slots.take(peer, known) else {
        refuse(stream).await;
        return;
    };
    drop(handshake);
    let router = shared.router.clone();
    let service = service_fn(move |request: Request<Incoming>| routes::call(router.clone(), peer, request));
    let http = http(shared.bounds.idle_timeout).serve_connection(TokioIo::new(Tapped::new(stream)), service);
    if let Err(error) = watcher.watch(http).await {
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
    drop(slot);
}

fn http(idle_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(idle_timeout).max_header_size(HEAD_BYTES_MAX);
    // What is told of time is told in signed records; nobody reads this one, and a short mail is not to need a second packet.
    http.auto_date_header(false);
    http
}

async fn accept_tls(tcp: TcpStream, shared: &Shared) -> io::Result<(PeerId, PeerTls)> {
    tcp.set_nodelay(true)?;
    let stream = shared.acceptor.accept(StallGuard::new(tcp, shared.bounds.stall_timeout)).await?;
    let peer = peer_of(stream.get_ref().1.peer_certificates()).map_err(io::Error::other)?;
    Ok((peer, stream))
}

/// Answers one request with 503, so that the caller knows why (R9).
async fn refuse(stream: PeerTls) {
    let full = ApiError::Unavailable {
        why: "This peer has as many connections as it bears; come again later.".to_owned(),
        retry_after: Duration::from_secs(30),
    };
    let service = service_fn(move |_: Request<Incoming>| {
        let answer = answer::error(&full);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let mut http = http(REFUSAL_TIMEOUT);
    let serving = http.keep_alive(false).serve_connection(TokioIo::new(Tapped::new(stream)), service);
    // Whether the caller hears it is its own affair.
    tokio::time::timeout(REFUSAL_TIMEOUT, serving).await.ok();
}
