//! The last door before libp2p dials: addresses that are not public are dialled only for peers that may be. It never opens
//! connections itself.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport};

use super::locate::is_public_ip;

type Inner = Boxed<(PeerId, StreamMuxerBox)>;

/// Which peers may be dialled where.
#[derive(Debug, Clone, Default)]
pub(super) struct DialRule {
    dial_private: bool,
    known: Arc<RwLock<BTreeSet<PeerId>>>,
}

/// Where a multiaddress leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// None in memory.
    ip: Option<IpAddr>,
    peer: Option<PeerId>,
}

/// Where `addr` leads, if it has one of the two forms that are dialled: an IP address and a TCP port, or a place in
/// memory; either may be followed by the peer. libp2p reads longer ones from their end, so what stands first in them says
/// nothing.
pub(super) fn target_of(addr: &Multiaddr) -> Option<Target> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        Protocol::Memory(_) => None,
        _ => return None,
    };
    if ip.is_some() && !matches!(parts.next()?, Protocol::Tcp(_)) {
        return None;
    }
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) => return None,
    };
    parts.next().is_none().then_some(Target { ip, peer })
}

/// Whether `addr` leads to this very machine, or nowhere that is known.
pub(super) fn is_local(addr: &Multiaddr) -> bool {
    target_of(addr).is_none_or(|target| target.ip.is_none_or(|ip| ip.to_canonical().is_loopback()))
}

impl DialRule {
    pub(super) fn new(dial_private: bool) -> Self {
        Self { dial_private, known: Arc::default() }
    }
    /// Replaces the peers that may be dialled at private addresses too.
    pub(super) fn know(&self, peers: BTreeSet<PeerId>) {
        match self.known.write() {
            Ok(mut known) => *known = peers,
            Err(poisoned) => *poisoned.into_inner() = peers,
        }
    }
    /// Whether `addr` may be dialled, for `peer` or whoever it names itself. Only plain addresses may.
    pub(super) fn allows(&self, peer: Option<&PeerId>, addr: &Multiaddr) -> bool {
        let Some(target) = target_of(addr) else { return false };
        let peer = match (peer, target.peer) {
            (Some(asked), Some(named)) if *asked != named => return false,
            (asked, named) => asked.copied().or(named),
        };
        if self.dial_private || target.ip.is_some_and(is_public_ip) {
            return true;
        }
        let known = match self.known.read() {
            Ok(known) => known,
            // The set is replaced whole, so a writer that panicked left a good one.
            Err(poisoned) => poisoned.into_inner(),
        };
        peer.is_some_and(|peer| known.contains(&peer))
    }
}

/// A transport behind a [`DialRule`]. It dials from a fresh port always: a shared one makes simultaneous dials collide.
pub(super) struct Gate {
    inner: Inner,
    rule: DialRule,
}

impl Gate {
    pub(super) fn new(inner: Inner, rule: DialRule) -> Self {
        Self { inner, rule }
    }
}

impl Transport for Gate {
    type Output = <Inner as Transport>::Output;
    type Error = <Inner as Transport>::Error;
    type ListenerUpgrade = <Inner as Transport>::ListenerUpgrade;
    type Dial = <Inner as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        if !self.rule.allows(None, &addr) {
            let why = "the address is not plain, or it is private and the peer is nobody this one knows";
            return Err(TransportError::Other(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
        self.inner.dial(addr, DialOpts { port_use: PortUse::New, ..opts })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_for_known_peers() {
        let (member, stranger) = (PeerId::random(), PeerId::random());
        let rule = DialRule::new(false);
        rule.know(BTreeSet::from([member]));
        let private: Multiaddr = "/ip4/192.168.1.5/tcp/1".parse().unwrap();
        let public: Multiaddr = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
        assert!(rule.allows(Some(&member), &private));
        assert!(!rule.allows(Some(&stranger), &private));
        assert!(!rule.allows(None, &private));
        assert!(rule.allows(Some(&stranger), &public));
        assert!(DialRule::new(true).allows(Some(&stranger), &private));
    }

    #[test]
    fn only_plain_addresses_are_dialled() {
        let (member, stranger) = (PeerId::random(), PeerId::random());
        let rule = DialRule::new(false);
        rule.know(BTreeSet::from([member]));
        for odd in [
            "/ip4/8.8.8.8/tcp/1/ip4/127.0.0.1/tcp/6379",
            "/ip4/8.8.8.8/tcp/1/ip6/::1/tcp/6379",
            "/ip4/8.8.8.8/udp/1",
            "/ip4/8.8.8.8",
            "/ip4/8.8.8.8/tcp/1/ws",
            "/ip4/8.8.8.8/memory/1",
            "/dns/example.org/tcp/1",
            "/tcp/1",
        ] {
            let odd: Multiaddr = odd.parse().unwrap();
            assert!(!rule.allows(Some(&stranger), &odd) && !rule.allows(Some(&member), &odd), "{odd}");
            assert!(!DialRule::new(true).allows(Some(&member), &odd), "{odd}");
            let named = odd.clone().with(Protocol::P2p(member));
            assert!(!rule.allows(None, &named) && is_local(&odd), "{named}");
        }
        let plain: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        assert!(rule.allows(None, &plain.clone().with(Protocol::P2p(member))));
        assert!(!rule.allows(None, &plain.clone().with(Protocol::P2p(stranger))));
        // The peer that counts is the one at the end, which is the one that is dialled.
        assert!(!rule.allows(None, &plain.clone().with(Protocol::P2p(member)).with(Protocol::P2p(stranger))));
        assert!(!rule.allows(Some(&member), &plain.with(Protocol::P2p(stranger))));
        let memory: Multiaddr = "/memory/5".parse().unwrap();
        assert!(DialRule::new(true).allows(None, &memory) && !rule.allows(None, &memory));
    }

    #[test]
    fn loopback_addresses_are_local_however_they_are_written() {
        for (addr, local) in [
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip6/::1/tcp/1", true),
            ("/ip6/::ffff:127.0.0.1/tcp/1", true),
            ("/memory/1", true),
            ("/ip4/8.8.8.8/tcp/1", false),
            ("/ip4/10.0.0.1/tcp/1", false),
        ] {
            assert_eq!(is_local(&addr.parse().unwrap()), local, "{addr}");
        }
    }
}
