//! Where the peers of a bench are, and how what the reader's peer sends and gets is counted: in network namespaces, the reader's on
//! one side of a wire and everybody else on the other, or all on this machine's loopback. It starts no peer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::bench::outbox::sockets::Meter;
use crate::cli::cluster::surroundings::{StartedWith, Surroundings};
use crate::cli::network::{Carried, Network, Side, inside};
use crate::config::Config;
use crate::model::Address;

/// A wire between the reader's peer and all others.
#[derive(Debug)]
pub(in crate::cli::bench) struct Wire {
    network: Network,
    reader: Address,
}

impl Wire {
    /// A wire to the peer of `reader`.
    ///
    /// # Errors
    /// Why there can be none here.
    pub(in crate::cli::bench) fn new(reader: Address) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { network: Network::wire()?, reader }))
    }

    fn side(&self, peer: &Address) -> Side {
        if *peer == self.reader { Side::East } else { Side::West }
    }

    /// The namespace that a peer is in.
    pub(in crate::cli::bench) fn namespace(&self, peer: &Address) -> String {
        self.network.namespace(self.side(peer))
    }

    /// What came to the reader's side and went from it until now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(in crate::cli::bench) fn carried(&self) -> anyhow::Result<Carried> {
        self.network.carried(Side::East)
    }

    /// Removes it, once nobody is on it.
    pub(in crate::cli::bench) fn remove(&self) {
        self.network.remove();
    }
}

impl Surroundings for Wire {
    fn hosts(&self, peer: &Address) -> Option<(IpAddr, String)> {
        let host = self.side(peer).host();
        Some((host, host.to_string()))
    }

    fn started_with(&self, peer: &Address) -> StartedWith {
        let before = ["ip", "netns", "exec", &self.namespace(peer)].map(OsString::from).to_vec();
        StartedWith { before, variables: BTreeMap::new() }
    }

    fn starts(&self, _peer: &Address, _config: &Config) -> anyhow::Result<()> {
        Ok(())
    }

    fn dial(&self, peer: &Address, port: u16, within: Duration) -> Option<TcpStream> {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        // What is for the user's mail program is on loopback, what is for other peers is not.
        let hosts = [loopback, self.side(peer).host()];
        let dial = move || {
            hosts.iter().find_map(|host| TcpStream::connect_timeout(&SocketAddr::new(*host, port), within).ok())
        };
        inside(&self.namespace(peer), dial).ok().flatten()
    }
}

/// Counts what the reader's peer and the others send each other.
#[derive(Debug)]
pub(in crate::cli::bench) enum Counter {
    /// The wire's end.
    Wire(Arc<Wire>, Carried),
    /// The sockets of the processes.
    Sockets(Box<Meter>, Vec<u32>),
}

impl Counter {
    /// From now on.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(in crate::cli::bench) fn start(wire: Option<&Arc<Wire>>, reader: u32, others: &[u32]) -> anyhow::Result<Self> {
        Ok(match wire {
            Some(wire) => Self::Wire(wire.clone(), wire.carried()?),
            None => Self::Sockets(Box::new(Meter::start(reader, others)?), others.to_vec()),
        })
    }

    /// How it counts, in words.
    pub(in crate::cli::bench) fn how(&self) -> &'static str {
        match self {
            Counter::Wire(..) => {
                "interface counters of the reader's end of a veth pair between network namespaces: whole frames, MTU 1500, no segmentation offload"
            }
            Counter::Sockets(..) => {
                "sock_diag: payload bytes of the TCP connections between the reader's peer and the others, without headers"
            }
        }
    }

    /// Connections that come and go are counted if they are looked at often.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(in crate::cli::bench) fn look(&mut self) -> anyhow::Result<()> {
        match self {
            Counter::Wire(..) => Ok(()),
            Counter::Sockets(meter, _) => meter.look(),
        }
    }

    /// What came and went since the start.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(in crate::cli::bench) fn counted(&mut self) -> anyhow::Result<Carried> {
        self.look()?;
        Ok(match self {
            Counter::Wire(wire, before) => wire.carried()?.since(*before),
            Counter::Sockets(meter, others) => {
                let mut all = Carried::default();
                for moved in others.iter().map(|other| meter.moved(*other)) {
                    all.rx_bytes += moved.received;
                    all.tx_bytes += moved.sent;
                }
                all
            }
        })
    }
}
