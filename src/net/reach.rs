//! Whether a peer answers at each port that it names: dialled anew, never over a connection that is there already. It dials
//! nothing but the addresses it is given, tells of no port before its host has proved to be that peer, and never says what it
//! means.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::dial::{ADDRS_MAX, Miss, allowed, attempt};
use super::peer_answer::millis;
use super::tls::TlsIdentity;
use crate::model::PeerId;
use crate::model::group::PeerAddr;
use crate::wire::http::{Dialled, Reached};

/// Longest wait at one port. Shorter than the asking peer waits for the answer.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Longest reason that is told, in characters.
const WHY_MAX: usize = 200;

/// Dials `addrs`, all at once. The HTTPS port must prove to be `peer`; only then the libp2p port there must take a connection,
/// so that nobody learns from here which ports of other hosts are open. Addresses of this very machine only if `own_machine`:
/// that they answer says nothing of another machine.
pub async fn dial_all(tls: &TlsIdentity, peer: PeerId, addrs: &[PeerAddr], own_machine: bool) -> Vec<Reached> {
    let each = addrs.iter().take(ADDRS_MAX).map(|addr| async move {
        let (https, proved) = timed(dial_https(tls, peer, addr, own_machine)).await;
        let libp2p = match proved {
            Some(ip) => timed(dial_libp2p(addr, ip)).await.0,
            None => {
                Dialled { ms: 0, why: Some("not tried: nobody proved to be this peer at the mail port".to_owned()) }
            }
        };
        Reached { addr: addr.clone(), https, libp2p }
    });
    futures::future::join_all(each).await
}

/// The IP address at which somebody proved to be `peer`.
async fn dial_https(tls: &TlsIdentity, peer: PeerId, addr: &PeerAddr, own_machine: bool) -> Result<IpAddr, String> {
    let mut why = "an address of the machine that tests it, which says nothing of this one".to_owned();
    let ips = allowed(addr, true).await?.into_iter().map(|ip| ip.ip());
    for ip in ips.filter(|ip| own_machine || !is_own_machine(*ip)) {
        let at = PeerAddr { host: ip.to_string(), ..addr.clone() };
        why = match attempt(tls, peer, &at, true).await {
            Ok(_) => return Ok(ip),
            Err(Miss::WrongPeer(answered)) => format!("another peer answers there, {answered}"),
            Err(Miss::Failed(why)) => why,
        };
    }
    Err(why)
}

async fn dial_libp2p(addr: &PeerAddr, ip: IpAddr) -> Result<(), String> {
    let connected = TcpStream::connect(SocketAddr::new(ip, addr.libp2p)).await;
    connected.map(drop).map_err(|error| format!("{}:{}: {error}", addr.host, addr.libp2p))
}

/// Whether an IP address means another machine on each machine.
pub fn is_own_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    ip.is_loopback() || ip.is_unspecified() || link_local
}

async fn timed<T>(dial: impl Future<Output = Result<T, String>>) -> (Dialled, Option<T>) {
    let start = Instant::now();
    let silent = |_| Err(format!("no answer within {} s", DIAL_WITHIN.as_secs()));
    let (done, why) = match timeout(DIAL_WITHIN, dial).await.unwrap_or_else(silent) {
        Ok(done) => (Some(done), None),
        Err(why) => (None, Some(why.chars().take(WHY_MAX).collect())),
    };
    (Dialled { ms: millis(start.elapsed()), why }, done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerKey;
    use tokio::net::TcpListener;

    fn tls() -> TlsIdentity {
        TlsIdentity::new(&PeerKey::from_seed(&[1; 32])).unwrap()
    }

    async fn nobody_called(listener: &TcpListener) -> bool {
        tokio::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err()
    }

    #[tokio::test]
    async fn a_closed_mail_port_is_told_and_no_other_port_of_that_host_is_looked_at() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: port(&closed), libp2p: port(&open) };
        drop(closed);
        let told = dial_all(&tls(), PeerId::new([2; 32]), std::slice::from_ref(&addr), true).await;
        assert_eq!((told.len(), &told[0].addr), (1, &addr));
        assert!(told[0].https.why.as_ref().is_some_and(|why| why.contains("refused")), "{told:?}");
        assert!(told[0].libp2p.why.as_ref().is_some_and(|why| why.contains("not tried")), "{told:?}");
        assert!(nobody_called(&open).await);
    }

    #[tokio::test]
    async fn this_machine_is_dialled_only_when_that_is_allowed_and_few_addresses_are() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "localhost"] {
            let addr = PeerAddr { host: host.to_owned(), https: port, libp2p: port };
            let told = dial_all(&tls(), PeerId::new([2; 32]), &vec![addr; 20], false).await;
            assert_eq!(told.len(), ADDRS_MAX);
            assert!(told.iter().all(|one| one.https.why.is_some() && one.libp2p.why.is_some()), "{told:?}");
        }
        assert!(nobody_called(&listener).await, "nothing was dialled");
    }

    #[test]
    fn loopback_link_local_and_unspecified_addresses_are_every_machines_own() {
        for own in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "::1", "::", "fe80::1", "::ffff:127.0.0.1"]
        {
            assert!(is_own_machine(own.parse().unwrap()), "{own}");
        }
        for other in ["10.0.0.1", "192.168.1.9", "198.51.100.7", "2001:db8::1", "fd00::1"] {
            assert!(!is_own_machine(other.parse().unwrap()), "{other}");
        }
    }
}
