//! Waits until peers answer and groups agree. It only looks.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::bail;

use super::{ClusterDir, make};
use crate::cli::process;
use crate::config::Config;
use crate::config::cluster::Cluster;
use crate::console::protocol::{GroupStatus, Ports, Request};
use crate::model::Address;
use crate::store::home::Home;

/// Longest start of a peer.
const START: Duration = Duration::from_secs(60);
/// Longest time for a group to agree.
const AGREE: Duration = Duration::from_secs(60);
/// Longest wait for one greeting.
const GREETING: Duration = Duration::from_secs(5);
/// How often a peer that never answered gets other ports.
const PORT_TRIES: u32 = 3;

/// Waits until the peer answers SMTP, IMAP, HTTPS and the control socket. One that ends before it ever answered is started
/// again with other ports.
pub(super) fn answers(dir: &ClusterDir, address: &Address) -> anyhow::Result<()> {
    let home = dir.home_of(address);
    for attempt in 1.. {
        let known = dir.state()?.peers.get(address).cloned().unwrap_or_default();
        let runs = || known.pid.is_some_and(|pid| !process::is_gone(pid, &home));
        let mut answered = false;
        process::wait_until(START, || {
            answered = runs() && answers_now(dir, address);
            answered || !runs()
        });
        if answered {
            return dir.remember(address, |peer| peer.answered = true);
        }
        if known.answered || runs() || attempt == PORT_TRIES {
            let what = if runs() { "does not answer" } else { "did not start" };
            bail!(
                "{address} {what}; the end of {}:\n{}",
                Home::at(&home).log_file().display(),
                process::log_tail(&home)
            );
        }
        make::other_ports(dir, address)?;
        dir.spawn(address)?;
    }
    Ok(())
}

fn answers_now(dir: &ClusterDir, address: &Address) -> bool {
    let control = dir.control_of(address).giving_up_after(GREETING);
    let Ok(config) = Config::load(&Home::at(dir.home_of(address)).config_file()) else { return false };
    control.ask::<Ports>(&Request::Ports).is_ok()
        && greets(connect(dir, address, config.mail.smtp_port), "220 ", "QUIT\r\n")
        && greets(connect(dir, address, config.mail.imap_port), "* OK", "z LOGOUT\r\n")
        && connect(dir, address, config.net.https_port).is_some()
}

fn connect(dir: &ClusterDir, address: &Address, port: u16) -> Option<TcpStream> {
    let stream = match &dir.surroundings {
        Some(around) => around.dial(address, port, GREETING)?,
        None => TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), GREETING).ok()?,
    };
    stream.set_read_timeout(Some(GREETING)).ok()?;
    Some(stream)
}

fn greets(stream: Option<TcpStream>, greeting: &str, goodbye: &str) -> bool {
    let Some(mut stream) = stream else { return false };
    let mut start = [0; 4];
    let greeted = stream.read_exact(&mut start).is_ok() && start == greeting.as_bytes();
    // So that the server needs not wait for a client that has gone.
    let _ = stream.write_all(goodbye.as_bytes());
    greeted
}

/// Waits until every peer of the cluster knows the whole of its group, in the founder's version.
pub(super) fn whole_groups(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    let _bar = dir.report.under_way("waiting for the groups to agree");
    for group in &cluster.groups {
        let members: Vec<Address> =
            group.members.iter().map(|name| Address::new(name.clone(), group.name.clone())).collect();
        let Some(founder) = members.first() else { continue };
        let mut unaware = None;
        let agreed = process::wait_until(AGREE, || {
            unaware = match make::status(dir, founder) {
                Ok(known) => unaware_of(dir, &known, &members),
                Err(e) => Some(format!("{e:#}")),
            };
            unaware.is_none()
        });
        if !agreed {
            bail!(
                "the group {} does not agree: {}; run the same command again, it goes on where it stopped",
                group.name,
                unaware.unwrap_or_default()
            );
        }
    }
    Ok(())
}

/// Who does not know all `members` in the founder's version yet, and why.
fn unaware_of(dir: &ClusterDir, founder: &GroupStatus, members: &[Address]) -> Option<String> {
    members.iter().find_map(|address| {
        let known = match make::status(dir, address) {
            Ok(known) => known,
            Err(e) => return Some(format!("{e:#}")),
        };
        if known.version != founder.version || known.key != founder.key {
            return Some(format!("{address} knows version {}, the founder {}", known.version, founder.version));
        }
        let missing = members.iter().find(|member| !known.members.iter().any(|m| m.address == **member))?;
        Some(format!("{address} does not know of {missing}"))
    })
}

/// Waits until each of `peers` knows the last gd that any running member of its group knows.
pub(super) fn last_gd(dir: &ClusterDir, peers: &[Address]) -> anyhow::Result<()> {
    let all: Vec<Address> = dir.state()?.file.peers().map(|(address, _)| address).collect();
    let running: Vec<Address> = dir.running(&all)?.into_iter().map(|(address, _)| address).collect();
    for address in peers {
        let version = |peer: &Address| make::status(dir, peer).map(|group| group.version).unwrap_or_default();
        let last = running.iter().filter(|peer| peer.group() == address.group()).map(version).max().unwrap_or_default();
        if !process::wait_until(AGREE, || version(address) >= last) {
            bail!(
                "{address} runs, but does not know version {last} of its group; `roost status` at its home says more"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_the_right_greeting_counts() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let greets = || greets(TcpStream::connect(address).ok(), "220 ", "QUIT\r\n");
        let served = std::thread::spawn(move || {
            for text in ["220 peer ESMTP\r\n", "554 no\r\n"] {
                listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap();
            }
        });
        assert!(greets());
        assert!(!greets());
        served.join().unwrap();
        assert!(!greets());
    }
}
