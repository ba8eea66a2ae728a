//! Where peers may be dialled: what a directory answers to the connector, and which IP addresses are public. It never dials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::future::BoxFuture;

use crate::model::PeerId;
use crate::model::group::PeerAddr;

/// Where a peer may be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Located {
    /// Its addresses, best first. Empty when nothing is known of the peer.
    pub addrs: Vec<PeerAddr>,
    /// Whether addresses that are not public may be dialled too: it is a member, a contact, a member of a contact's group,
    /// named in the invite or card in use, or `dial_private` is set. Checked after names are resolved.
    pub private: bool,
}

/// Knows where peers are.
pub trait Locate: Send + Sync + 'static {
    /// What is known now of where `peer` may be dialled; it should answer within a few seconds.
    fn locate(&self, peer: PeerId) -> BoxFuture<'_, Located>;
    /// Called after a failed dial: reads the peer's descriptor again at once, then once a minute at most. Empty when there
    /// is nothing newer.
    fn locate_again(&self, peer: PeerId) -> BoxFuture<'_, Located>;
}

/// Whether anybody on the internet may own this IP address, so that dialling it for a stranger harms no local network.
pub fn is_public_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// RFC 6890 and what came after it: all special blocks are no.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

/// Only global unicast (2000::/3) without its special blocks; an address that carries an IPv4 one is as public as that is.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    if ip.to_ipv4_mapped().is_some() || s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return v4(s[6], s[7]);
    }
    if s[0] == 0x2002 {
        return v4(s[1], s[2]);
    }
    let special = match s[0] {
        0x2001 => s[1] < 0x200 || s[1] == 0xdb8,
        0x3fff => s[1] < 0x1000,
        _ => false,
    };
    s[0] & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6890_special_addresses_are_not_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "2001:db8::1",
            "2002:0a00:0001::1",
            "64:ff9b::10.0.0.1",
            "fec0::1",
            "2001::1",
            "::7f00:1",
        ] {
            assert!(!is_public_ip(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.128.0.1",
            "223.255.255.254",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public_ip(public.parse().unwrap()), "{public}");
        }
    }
}
