//! The connector under the pooled client: from a PeerId to a TLS stream to exactly that peer. It never connects to anybody
//! else, and to no private address unless the directory allows it for this peer.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::locate::{Locate, Located, is_public_ip};
use super::tls::{TlsError, TlsIdentity, peer_of, reason_of};
use crate::model::PeerId;
use crate::model::group::PeerAddr;

/// Most addresses of one peer that are tried: a descriptor has at most 8.
pub(super) const ADDRS_MAX: usize = 8;
/// Most IP addresses of one host name that are tried.
const IPS_MAX: usize = 4;

/// How long a dial may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialTiming {
    /// The next address is tried when the one before has not answered for this long.
    pub stagger: Duration,
    /// All addresses together, TLS handshake included.
    pub total: Duration,
}

impl Default for DialTiming {
    fn default() -> Self {
        Self { stagger: Duration::from_secs(1), total: Duration::from_secs(5) }
    }
}

/// Why a peer could not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The directory knows no address.
    #[error("no address of {peer} is known; it is looked up again when it is next needed")]
    NoAddress {
        /// Who was meant.
        peer: PeerId,
    },
    /// Every address failed.
    #[error("{peer} cannot be reached: {why}")]
    Failed {
        /// Who was meant.
        peer: PeerId,
        /// Each address and what happened there.
        why: String,
    },
    /// Somebody else answers there, and at no other address did it.
    #[error("{answered} answers at the address of {peer}; its descriptor is out of date")]
    WrongPeer {
        /// Who was meant.
        peer: PeerId,
        /// Who answered.
        answered: PeerId,
    },
    /// The request names no peer. Only a bug makes one.
    #[error("{host:?} is no peer's host name")]
    NoPeer {
        /// The authority of the request.
        host: String,
    },
}

/// The authority under which requests to `peer` are pooled: hexadecimal, because authorities compare without regard to case
/// and base58 does not survive that.
pub(super) fn host_of(peer: &PeerId) -> String {
    hex::encode(peer.as_bytes())
}

fn peer_at(uri: &Uri) -> Result<PeerId, DialError> {
    let host = uri.host().unwrap_or_default();
    let bytes = hex::decode(host).unwrap_or_default();
    PeerId::from_slice(&bytes).map_err(|_| DialError::NoPeer { host: host.chars().take(80).collect() })
}

/// Dials peers for hyper's pool.
#[derive(Clone)]
pub(super) struct Connector(Arc<Dialler>);

struct Dialler {
    tls: TlsIdentity,
    locate: Arc<dyn Locate>,
    timing: DialTiming,
}

impl Connector {
    pub(super) fn new(tls: TlsIdentity, locate: Arc<dyn Locate>, timing: DialTiming) -> Self {
        Self(Arc::new(Dialler { tls, locate, timing }))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = PeerStream;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<PeerStream, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialler = Arc::clone(&self.0);
        Box::pin(async move { dialler.dial(peer_at(&uri)?).await })
    }
}

/// What happened at one address.
#[derive(Debug)]
pub(super) enum Miss {
    /// Somebody else answers there.
    WrongPeer(PeerId),
    /// Why nobody does.
    Failed(String),
}

impl Dialler {
    /// Dials what is known, and when that fails what a fresh look at the descriptor tells.
    async fn dial(&self, peer: PeerId) -> Result<PeerStream, DialError> {
        let located = self.locate.locate(peer).await;
        let error = match self.dial_any(peer, &located).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let again = self.locate.locate_again(peer).await;
        if again.addrs.is_empty() || again == located {
            return Err(error);
        }
        self.dial_any(peer, &again).await
    }

    async fn dial_any(&self, peer: PeerId, located: &Located) -> Result<PeerStream, DialError> {
        if located.addrs.is_empty() {
            return Err(DialError::NoAddress { peer });
        }
        let mut misses = Vec::new();
        match tokio::time::timeout(self.timing.total, self.race(peer, located, &mut misses)).await {
            Ok(Some(stream)) => return Ok(stream),
            Ok(None) => {}
            Err(_) => misses.push(Miss::Failed(format!("no answer within {} ms", self.timing.total.as_millis()))),
        }
        let wrong = misses.iter().find_map(|miss| match miss {
            Miss::WrongPeer(answered) => Some(*answered),
            Miss::Failed(_) => None,
        });
        if let Some(answered) = wrong {
            return Err(DialError::WrongPeer { peer, answered });
        }
        let whys = misses.iter().map(|miss| match miss {
            Miss::WrongPeer(answered) => answered.to_string(),
            Miss::Failed(why) => why.clone(),
        });
        Err(DialError::Failed { peer, why: whys.collect::<Vec<_>>().join("; ") })
    }

    /// Tries the addresses in order, the next one when the one before has failed or keeps silent; the first that proves to
    /// be `peer` wins and the others are dropped.
    async fn race(&self, peer: PeerId, located: &Located, misses: &mut Vec<Miss>) -> Option<PeerStream> {
        let mut waiting: VecDeque<&PeerAddr> = located.addrs.iter().take(ADDRS_MAX).collect();
        let mut running = FuturesUnordered::new();
        loop {
            if let Some(addr) = waiting.pop_front() {
                running.push(attempt(&self.tls, peer, addr, located.private));
            }
            let missed = tokio::select! {
                Some(result) = running.next() => result,
                () = tokio::time::sleep(self.timing.stagger), if !waiting.is_empty() => continue,
                else => return None,
            };
            match missed {
                Ok(stream) => return Some(stream),
                Err(miss) => misses.push(miss),
            }
            if running.is_empty() && waiting.is_empty() {
                return None;
            }
        }
    }
}

/// Dials one address; whoever answers proved to be `peer`.
pub(super) async fn attempt(
    tls: &TlsIdentity,
    peer: PeerId,
    addr: &PeerAddr,
    private: bool,
) -> Result<PeerStream, Miss> {
    let at = |why: &dyn std::fmt::Display| Miss::Failed(format!("{}:{}: {why}", addr.host, addr.https));
    let allowed = allowed(addr, private).await.map_err(Miss::Failed)?;
    let tcp = TcpStream::connect(&allowed[..]).await.map_err(|e| at(&e))?;
    tcp.set_nodelay(true).map_err(|e| at(&e))?;
    let (connector, name) = tls.connector(peer).map_err(|e| at(&e))?;
    let stream = connector.connect(name, tcp).await.map_err(|e| match reason_of(&e) {
        Some(TlsError::WrongPeer { answered, .. }) => Miss::WrongPeer(*answered),
        _ => at(&e),
    })?;
    match peer_of(stream.get_ref().1.peer_certificates()) {
        Ok(answered) if answered == peer => Ok(PeerStream(TokioIo::new(stream))),
        Ok(answered) => Err(Miss::WrongPeer(answered)),
        Err(e) => Err(at(&e)),
    }
}

/// The socket addresses of an address that may be dialled, with its HTTPS port; never none.
pub(super) async fn allowed(addr: &PeerAddr, private: bool) -> Result<Vec<SocketAddr>, String> {
    let at = |why: &dyn std::fmt::Display| format!("{}:{}: {why}", addr.host, addr.https);
    let ips = resolve(addr).await.map_err(|e| at(&e))?;
    let allowed: Vec<SocketAddr> =
        ips.into_iter().filter(|ip| private || is_public_ip(ip.ip())).take(IPS_MAX).collect();
    if allowed.is_empty() {
        return Err(at(&"a private address, dialled only for members and contacts"));
    }
    Ok(allowed)
}

/// The socket addresses of `addr`: an IP address as it is, a host name by the system's resolver.
async fn resolve(addr: &PeerAddr) -> io::Result<Vec<SocketAddr>> {
    let literal = addr.host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse() {
        Ok(ip) => Ok(vec![SocketAddr::new(ip, addr.https)]),
        Err(_) => Ok(tokio::net::lookup_host((addr.host.as_str(), addr.https)).await?.collect()),
    }
}

/// A TLS stream to a peer whose PeerId was checked.
pub(super) struct PeerStream(TokioIo<TlsStream<TcpStream>>);

impl Connection for PeerStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
