//! Whether a peer answers at each port that it names: dialled anew, never over a connection that is there already. It dials
//! nothing but the addresses it is given, and tells what happened, never what it means.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::dial::{Miss, allowed, attempt};
use super::peer_answer::millis;
use super::tls::TlsIdentity;
use crate::model::PeerId;
use crate::model::group::PeerAddr;
use crate::wire::http::{Dialled, Reached};

/// Longest wait at one port. Shorter than the asking peer waits for the answer.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Addresses that are tried; a descriptor has at most 8, most have one or two.
const ADDRS_MAX: usize = 4;
/// Longest reason that is told, in characters.
const WHY_MAX: usize = 200;

/// Dials the first [`ADDRS_MAX`] of `addrs`, all at once, at both ports. The HTTPS port must prove to be `peer`; the libp2p
/// port must take a connection. Private addresses only if `private`.
pub async fn dial_all(tls: &TlsIdentity, peer: PeerId, addrs: &[PeerAddr], private: bool) -> Vec<Reached> {
    let each = addrs.iter().take(ADDRS_MAX).map(|addr| async move {
        let https = timed(async {
            match attempt(tls, peer, addr, private).await {
                Ok(_) => Ok(()),
                Err(Miss::WrongPeer(answered)) => Err(format!("another peer answers there, {answered}")),
                Err(Miss::Failed(why)) => Err(why),
            }
        });
        let libp2p = timed(async {
            let ips: Vec<SocketAddr> = allowed(addr, private).await?;
            let ports: Vec<SocketAddr> = ips.into_iter().map(|ip| SocketAddr::new(ip.ip(), addr.libp2p)).collect();
            let connected = TcpStream::connect(&ports[..]).await;
            connected.map(drop).map_err(|error| format!("{}:{}: {error}", addr.host, addr.libp2p))
        });
        let (https, libp2p) = tokio::join!(https, libp2p);
        Reached { addr: addr.clone(), https, libp2p }
    });
    futures::future::join_all(each).await
}

async fn timed(dial: impl Future<Output = Result<(), String>>) -> Dialled {
    let start = Instant::now();
    let done = timeout(DIAL_WITHIN, dial).await;
    let silent = || Err(format!("no answer within {} s", DIAL_WITHIN.as_secs()));
    let why = done.unwrap_or_else(|_| silent()).err().map(|why| why.chars().take(WHY_MAX).collect());
    Dialled { ms: millis(start.elapsed()), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerKey;
    use tokio::net::TcpListener;

    fn tls() -> TlsIdentity {
        TlsIdentity::new(&PeerKey::from_seed(&[1; 32])).unwrap()
    }

    #[tokio::test]
    async fn a_closed_port_is_told_from_one_that_takes_connections() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: port(&closed), libp2p: port(&open) };
        drop(closed);
        let told = dial_all(&tls(), PeerId::new([2; 32]), std::slice::from_ref(&addr), true).await;
        assert_eq!((told.len(), &told[0].addr), (1, &addr));
        assert!(told[0].https.why.as_ref().is_some_and(|why| why.contains("refused")), "{told:?}");
        assert_eq!(told[0].libp2p.why, None);
    }

    #[tokio::test]
    async fn a_private_address_is_dialled_only_when_that_is_allowed_and_few_addresses_are() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: port, libp2p: port };
        let told = dial_all(&tls(), PeerId::new([2; 32]), &vec![addr; 20], false).await;
        assert_eq!(told.len(), ADDRS_MAX);
        for one in told {
            for dialled in [one.https, one.libp2p] {
                assert!(dialled.why.is_some_and(|why| why.contains("private address")));
            }
        }
        let nobody = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(nobody.is_err(), "nothing was dialled");
    }
}
