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

/// The IP address that a multiaddress starts with.
pub(super) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
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
    /// Whether `peer` may be dialled at `addr`.
    pub(super) fn allows(&self, peer: Option<&PeerId>, addr: &Multiaddr) -> bool {
        if self.dial_private || ip_of(addr).is_some_and(is_public_ip) {
            return true;
        }
        let known = match self.known.read() {
            Ok(known) => known,
            // The set is replaced whole, so a writer that panicked left a good one.
            Err(poisoned) => poisoned.into_inner(),
        };
        peer.is_some_and(|peer| known.contains(peer))
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
        let peer = addr.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        if !self.rule.allows(peer.as_ref(), &addr) {
            let why = "the address is private and the peer is nobody this one knows";
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
}
