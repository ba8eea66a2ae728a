//! Where a peer listens, and where it says that it can be reached, by its configuration. It opens nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Config;
use crate::model::group::PeerAddr;
use crate::net::interfaces::reachable_addresses;
use crate::net::reach::is_own_machine;

/// Where a peer listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// SMTP submission.
    pub smtp: SocketAddr,
    /// IMAP.
    pub imap: SocketAddr,
    /// HTTPS routes.
    pub https: SocketAddr,
    /// libp2p.
    pub libp2p: SocketAddr,
    /// The web page, when it is on.
    pub console: Option<SocketAddr>,
}

impl Listening {
    /// What the configuration says.
    pub(super) fn of(config: &Config) -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = |port| SocketAddr::from((config.net.listen, port));
        Self {
            smtp: loopback(config.mail.smtp_port),
            imap: loopback(config.mail.imap_port),
            https: listen(config.net.https_port),
            libp2p: listen(config.net.libp2p_port),
            console: config.console.enabled.then(|| loopback(config.console.console_port)),
        }
    }
}

/// Where this peer says that it can be reached: `[net] announce`, else the addresses of this machine.
pub fn announced(config: &Config) -> Vec<PeerAddr> {
    let mut hosts = config.net.announce.clone();
    if hosts.is_empty() {
        hosts = match config.net.listen {
            ip if !ip.is_unspecified() => vec![ip.to_string()],
            _ => reachable_addresses().iter().map(ToString::to_string).collect(),
        };
    }
    if hosts.is_empty() {
        hosts.push(IpAddr::V4(Ipv4Addr::LOCALHOST).to_string());
    }
    let (https, libp2p) = (config.net.https_port, config.net.libp2p_port);
    hosts.into_iter().map(|host| PeerAddr { host, https, libp2p }).collect()
}

/// Whether other peers of the group may run on this very machine: then its own addresses are worth a dial.
pub(super) fn on_one_machine(config: &Config) -> bool {
    let own = |addr: &PeerAddr| addr.host.parse().is_ok_and(is_own_machine);
    config.net.dial_private || announced(config).iter().any(own)
}
