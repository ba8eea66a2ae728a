//! What the peers of a drill run in: networks that can be cut, ways of bad weather, clocks that jump. It says where each peer is and
//! makes its relays; it starts no peer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::args::Name;
use super::relay::{Relay, Sky, Weather};
use super::scene::Skipped;
use crate::cli::cluster::surroundings::{StartedWith, Surroundings};
use crate::cli::compose::random_name;
use crate::cli::network::{Network, Side};
use crate::clock::SHIFT_VARIABLE;
use crate::config::Config;
use crate::config::cluster::Cluster;
use crate::model::Address;

/// Everything is on this machine.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the relays of a peer in bad weather listen, with the ports that it has on [`HERE`].
const IN_BAD_WEATHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 8, 7));

/// The member that bad weather is for, by its place in the group.
pub(super) const SLOW: usize = 3;
/// That weather.
const STORMY: Weather = Weather { delay: Duration::from_millis(120), lost_one_of: 60 };

fn member(file: &Cluster, at: usize) -> Option<Address> {
    let group = file.groups.first()?;
    Some(Address::new(group.members.get(at)?.clone(), group.name.clone()))
}

/// A network, to be made, with the first half of the first group on one side, and everybody else on the other.
fn halves(file: &Cluster) -> anyhow::Result<(Arc<Network>, BTreeMap<Address, Side>)> {
    let network = Network::planned()?;
    let half = file.groups.first().map_or(0, |group| group.members.len() / 2);
    let side = |at: usize| if at < half { Side::East } else { Side::West };
    let sides = file.peers().zip(0..).map(|((address, _), at)| (address, side(at))).collect();
    Ok((Arc::new(network), sides))
}

/// The relays of one peer, and the ports that they are for.
type Relays = (Vec<u16>, Vec<Relay>);

/// Where peers are.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Which side of the network each peer is on, if there is a network.
    pub(super) network: Option<(Arc<Network>, BTreeMap<Address, Side>)>,
    /// Who is reached through bad weather only.
    pub(super) weather: Option<(Address, Sky)>,
    /// Where the clocks' shifts are, a file a peer, if they can jump.
    pub(super) clocks: Option<PathBuf>,
    relays: Mutex<BTreeMap<Address, Relays>>,
}

impl Around {
    /// What a scenario needs for the peers of `file`; nothing when this machine is enough. Nothing of it is made yet.
    pub(super) fn of(name: Name, file: &Cluster) -> anyhow::Result<Option<Arc<Self>>> {
        let around = match name {
            Name::Partition => Self { network: Some(halves(file)?), ..Self::default() },
            Name::SlowMember => {
                Self { weather: member(file, SLOW).map(|who| (who, Sky::of(STORMY))), ..Self::default() }
            }
            Name::ClockJump => {
                let clocks = std::env::temp_dir().join(format!("roost-clocks-{}", &random_name()?[..8]));
                Self { clocks: Some(clocks), ..Self::default() }
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(around)))
    }

    /// Makes it, once it is known who removes it.
    ///
    /// # Errors
    /// [`Skipped`] when that cannot be had here.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        if let Some((network, _)) = &self.network {
            network.make().map_err(|e| Skipped { why: format!("no network can be made here: {e:#}") })?;
        }
        if let Some(clocks) = &self.clocks {
            fs::create_dir(clocks).with_context(|| clocks.display().to_string())?;
        }
        Ok(())
    }

    /// Removes what was made on the machine, once nobody needs it.
    pub(super) fn remove(&self) {
        if let Some((network, _)) = &self.network {
            network.remove();
        }
        if let Some(clocks) = &self.clocks {
            // What cannot be removed is in the system's folder for temporary files.
            let _ = fs::remove_dir_all(clocks);
        }
    }

    fn clock_file(&self, peer: &Address) -> Option<PathBuf> {
        Some(self.clocks.as_ref()?.join(peer.to_string()))
    }

    /// The weather becomes bad, or fair again.
    pub(super) fn storms(&self, bad: bool) {
        if let Some((_, sky)) = &self.weather {
            sky.is_bad(bad);
        }
    }

    /// The clock of a peer jumps, to so many milliseconds ahead of the machine's or behind it.
    pub(super) fn jump(&self, peer: &Address, ms: i64) -> anyhow::Result<()> {
        let file = self.clock_file(peer).context("clocks cannot jump in this scenario")?;
        // Replaced whole: a peer that reads it meanwhile sees the old number or the new one.
        let new = file.with_extension("new");
        fs::write(&new, ms.to_string())
            .and_then(|()| fs::rename(&new, &file))
            .with_context(|| file.display().to_string())
    }

    /// The relays that a peer with these ports needs.
    fn relays(&self, peer: &Address, config: &Config) -> anyhow::Result<Vec<Relay>> {
        let mut relays = Vec::new();
        let net = [config.net.https_port, config.net.libp2p_port];
        if let Some((_, sky)) = self.weather.as_ref().filter(|(who, _)| who == peer) {
            for port in net {
                let (at, to) = (SocketAddr::new(IN_BAD_WEATHER, port), SocketAddr::new(HERE, port));
                relays.push(Relay::start(at, to, None, sky.clone())?);
            }
        }
        if let Some((network, side)) = self.network.as_ref().and_then(|(net, sides)| Some((net, sides.get(peer)?))) {
            // What its user's mail program dials is in its own network; the drill's is elsewhere.
            let own = [config.mail.smtp_port, config.mail.imap_port, config.console.console_port];
            let all = own.map(|port| (port, HERE)).into_iter().chain([(config.net.https_port, side.host())]);
            for (port, host) in all {
                let namespace = Some(network.namespace(*side));
                relays.push(Relay::start((HERE, port).into(), (host, port).into(), namespace, Sky::fair())?);
            }
        }
        Ok(relays)
    }
}

impl Surroundings for Around {
    fn hosts(&self, peer: &Address) -> Option<(IpAddr, String)> {
        if let Some(side) = self.network.as_ref().and_then(|(_, sides)| sides.get(peer)) {
            return Some((side.host(), side.host().to_string()));
        }
        self.weather.as_ref().filter(|(who, _)| who == peer).map(|_| (HERE, IN_BAD_WEATHER.to_string()))
    }

    fn started_with(&self, peer: &Address) -> StartedWith {
        let mut with = StartedWith::default();
        if let Some((network, side)) = self.network.as_ref().and_then(|(net, sides)| Some((net, sides.get(peer)?))) {
            with.before = ["ip", "netns", "exec", &network.namespace(*side)].map(OsString::from).to_vec();
        }
        if let Some(file) = self.clock_file(peer) {
            with.variables.insert(SHIFT_VARIABLE.to_owned(), file.into_os_string());
        }
        with
    }

    fn starts(&self, peer: &Address, config: &Config) -> anyhow::Result<()> {
        if self.network.is_none() && self.weather.is_none() {
            return Ok(());
        }
        let mut all = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = vec![config.net.https_port, config.net.libp2p_port, config.mail.smtp_port, config.mail.imap_port];
        // They stay while the peer is away, and are made anew only for other ports.
        if all.get(peer).is_none_or(|(before, _)| *before != ports) {
            all.insert(peer.clone(), (ports, self.relays(peer, config)?));
        }
        Ok(())
    }
}
