//! Addresses of this machine's network interfaces: where a peer that is told nothing else says it can be reached.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Most that are announced.
const ADDRESSES_MAX: usize = 8;

/// Addresses of interfaces that are up and lead somewhere: no loopback, no link-local. Best first: IPv4, then IPv6.
pub fn reachable_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let up =
        |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK);
    let mut addresses: Vec<IpAddr> = interfaces
        .filter(|interface| up(interface.flags))
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 != 0xfe80,
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_not_announced() {
        assert!(reachable_addresses().iter().all(|ip| !ip.is_loopback()));
    }
}
