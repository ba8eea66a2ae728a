//! What a peer of a cluster runs in when that is not simply this machine: a network of its own, another clock. It starts no peer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Config;
use crate::model::Address;

/// What a process is started with, besides the program and its home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct StartedWith {
    /// Words before the program: one that becomes it.
    pub(in crate::cli) before: Vec<OsString>,
    /// Variables of its environment.
    pub(in crate::cli) variables: BTreeMap<String, OsString>,
}

/// The surroundings of a cluster's peers.
pub(in crate::cli) trait Surroundings: Debug + Send + Sync {
    /// Where this peer listens and where it says that others reach it; nothing for loopback.
    fn hosts(&self, peer: &Address) -> Option<(IpAddr, String)>;
    /// What it is started with.
    fn started_with(&self, peer: &Address) -> StartedWith;
    /// It is about to start, with these ports.
    ///
    /// # Errors
    /// When its surroundings cannot be made.
    fn starts(&self, peer: &Address, config: &Config) -> anyhow::Result<()>;
    /// A connection to a port of this peer, from where it is; by default on this machine's own loopback.
    fn dial(&self, _peer: &Address, port: u16, within: Duration) -> Option<TcpStream> {
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), within).ok()
    }
}
