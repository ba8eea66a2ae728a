//! Makes what a cluster file names: homes, groups by invite and join, contacts by cards. It does nothing that is done already.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{ClusterDir, PeerState};
use crate::actors::identity::Identity;
use crate::cli::init;
use crate::config::cluster::{Cluster, ClusterGroup};
use crate::config::{Config, set_ports};
use crate::console::protocol::{Contact, GroupStatus, Line, Request};
use crate::model::{Address, LocalName};
use crate::net::ports::free_port;
use crate::store::files::write_durable;
use crate::store::home::Home;

/// Everything is on this machine.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Looks whether homes that are there already are those of the peers of `cluster`.
pub(super) fn check_homes(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    cluster.peers().try_for_each(|(address, _)| {
        let home = Home::at(dir.home_of(&address));
        if home.is_initialised() { is_home_of(&home, &address) } else { Ok(()) }
    })
}

fn is_home_of(home: &Home, address: &Address) -> anyhow::Result<()> {
    let whose = Config::load(&home.config_file())?.address;
    if whose != *address {
        bail!("{} is the home of {whose}, not of {address}; choose another folder with --home", home.root().display());
    }
    Ok(())
}

/// A new app password for a home that was made, while the cluster's file does not know the one it has: a command died in
/// between. A running peer keeps the old one in memory.
fn new_password(home: &Home, address: &Address) -> anyhow::Result<String> {
    is_home_of(home, address)?;
    let _lock = home.lock().with_context(|| format!("{address} gets no new password while its peer runs"))?;
    Ok(Identity::new_password(home)?.expose().to_owned())
}

/// Makes the homes that are missing.
pub(super) fn homes(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    let mut taken = ports_of_all(dir, cluster);
    for (address, _) in cluster.peers() {
        let home = Home::at(dir.home_of(&address));
        let known = dir.state()?.peers.contains_key(&address);
        let password = match (home.is_initialised(), known) {
            (true, true) => continue,
            (true, false) => new_password(&home, &address)?,
            (false, _) => init::make(home.root(), config(dir, cluster, &address, &mut taken)?)?.password,
        };
        dir.file.change(None, |state| {
            state.peers.insert(address.clone(), PeerState { password, ..PeerState::default() });
        })?;
    }
    Ok(())
}

fn config(dir: &ClusterDir, cluster: &Cluster, address: &Address, taken: &mut Vec<u16>) -> anyhow::Result<Config> {
    let mut config = Config::new(address.clone());
    config.mail = cluster.mail.clone();
    config.net = cluster.net.clone();
    config.quota = cluster.quota.clone();
    config.console = cluster.console.clone();
    let hosts = dir.surroundings.as_ref().and_then(|around| around.hosts(address));
    let (listen, announce) = hosts.unwrap_or((HERE, HERE.to_string()));
    config.net.listen = listen;
    config.net.announce = vec![announce];
    config.net.dial_private = true;
    if let Some(limit) = cluster.upload_limits.get(address) {
        config.net.upload_limit = *limit;
    }
    // A port in the cluster file would be the same for every peer, so there each gets its own.
    let [smtp, imap, https, libp2p, console] = fresh_ports(taken)?.map(|(_, _, port)| port);
    taken.extend([smtp, imap, https, libp2p, console]);
    config.mail.smtp_port = smtp;
    config.mail.imap_port = imap;
    config.net.https_port = https;
    config.net.libp2p_port = libp2p;
    config.console.console_port = console;
    Ok(config)
}

fn fresh_ports(taken: &[u16]) -> anyhow::Result<[(&'static str, &'static str, u16); 5]> {
    let mut taken = taken.to_vec();
    let mut fresh = || -> anyhow::Result<u16> {
        let port = free_port(HERE, &taken)?;
        taken.push(port);
        Ok(port)
    };
    Ok([
        ("mail", "smtp_port", fresh()?),
        ("mail", "imap_port", fresh()?),
        ("net", "https_port", fresh()?),
        ("net", "libp2p_port", fresh()?),
        ("console", "console_port", fresh()?),
    ])
}

/// Ports that peers of this cluster have, running or not.
fn ports_of_all(dir: &ClusterDir, cluster: &Cluster) -> Vec<u16> {
    let config = |address: Address| Config::load(&Home::at(dir.home_of(&address)).config_file()).ok();
    let configs = cluster.peers().filter_map(|(address, _)| config(address));
    configs
        .flat_map(|c| [c.mail.smtp_port, c.mail.imap_port, c.net.https_port, c.net.libp2p_port, c.console.console_port])
        .filter(|port| *port != 0)
        .collect()
}

/// Gives a peer that never answered other ports: somebody took one between the choice and the start.
pub(super) fn other_ports(dir: &ClusterDir, address: &Address) -> anyhow::Result<()> {
    let path = Home::at(dir.home_of(address)).config_file();
    let taken = ports_of_all(dir, &dir.state()?.file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = set_ports(&path, &text, &fresh_ports(&taken)?)?;
    Ok(write_durable(&path, text.as_bytes(), 0o600)?)
}

/// Founds the groups that are missing, and lets their members join.
pub(super) fn groups(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    for group in &cluster.groups {
        let bar = dir.report.under_way(&format!("making the group {}", group.name));
        let Some((founder, others)) = group.members.split_first() else { continue };
        let founder = Address::new(founder.clone(), group.name.clone());
        let known = status(dir, &founder)?;
        if known.key.is_none() {
            let request = Request::GroupCreate { group: group.name.clone(), policy: group.replication.clone() };
            let _: Value = ask(dir, &founder, &request)?;
        } else if known.policy != group.replication {
            let _: GroupStatus = ask(dir, &founder, &Request::GroupPolicy { policy: group.replication.clone() })
                .with_context(|| {
                    format!("the group {} keeps its mail by another policy than the file's", group.name)
                })?;
        }
        for (at, name) in others.iter().enumerate() {
            if let Some(bar) = &bar {
                let percent = u8::try_from(at * 100 / others.len()).ok();
                bar.at(&format!("{name} joins {}", group.name), percent);
            }
            join(dir, group, &founder, name)?;
        }
    }
    Ok(())
}

fn join(dir: &ClusterDir, group: &ClusterGroup, founder: &Address, name: &LocalName) -> anyhow::Result<()> {
    let address = Address::new(name.clone(), group.name.clone());
    if status(dir, &address)?.key.is_some() {
        return Ok(());
    }
    let invite: Line = ask(dir, founder, &Request::GroupInvite { name: name.clone(), valid: None })?;
    let _: GroupStatus = ask(dir, &address, &Request::GroupJoin { code: invite.line })?;
    Ok(())
}

/// Exchanges the cards that are missing.
pub(super) fn contacts(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    let pairs: Vec<(&Address, &Address)> =
        cluster.contacts.iter().flat_map(|c| c.with.iter().map(move |other| (&c.peer, other))).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let bar = dir.report.under_way("exchanging cards");
    for (at, (one, other)) in pairs.iter().enumerate() {
        if let Some(bar) = &bar {
            bar.at(&format!("{one} and {other} exchange cards"), u8::try_from(at * 100 / pairs.len()).ok());
        }
        add(dir, one, other)?;
        add(dir, other, one)?;
    }
    Ok(())
}

fn add(dir: &ClusterDir, at: &Address, whose: &Address) -> anyhow::Result<()> {
    let known: Vec<Contact> = ask(dir, at, &Request::Contacts)?;
    if known.iter().any(|contact| contact.address == *whose) {
        return Ok(());
    }
    let card: Line = ask(dir, whose, &Request::Card)?;
    let _: Contact = ask(dir, at, &Request::ContactAdd { card: card.line })?;
    Ok(())
}

/// The group as one peer sees it.
pub(super) fn status(dir: &ClusterDir, address: &Address) -> anyhow::Result<GroupStatus> {
    ask(dir, address, &Request::GroupStatus)
}

fn ask<T: serde::de::DeserializeOwned>(dir: &ClusterDir, address: &Address, request: &Request) -> anyhow::Result<T> {
    dir.control_of(address).ask_telling(request, &mut |_, _| {}).with_context(|| address.to_string())
}
