//! Asks a few members whether they reach this peer, and says what they answered, with what to do. It never believes that it
//! can be reached because it can reach others.

use serde_bytes::ByteBuf;

use super::protocol::{Check, PortDialled, ReachShown};
use crate::actors::peer::{Peer, announced};
use crate::model::group::{PeerAddr, PeerDescriptor};
use crate::model::{Address, PeerId};
use crate::net::peer_answer::NetError;
use crate::seal::record::sign_descriptor;
use crate::wire::http::{ReachAnswer, ReachPost, Reached};

/// Members that are asked: one of them may be behind the same router, and so tell less.
const ASKED_MAX: usize = 3;
/// How often others are asked when none of those answers.
const ROUNDS_MAX: usize = 3;

/// What each of a few members that answer found when it dialled this peer.
///
/// # Errors
/// A sentence, when this peer is stopping.
pub(super) async fn checks(peer: &Peer) -> Result<Vec<Check>, String> {
    let group = peer.group.observe().await.map_err(|stopped| stopped.to_string())?;
    let mut others: Vec<(bool, PeerId, Address)> = group
        .members
        .iter()
        .filter(|m| m.peer_id != group.peer_id)
        .map(|m| (m.lost || m.up == Some(false), m.peer_id, m.address.clone()))
        .collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    others.sort();
    let post = own_descriptor(peer).await?;
    let mut found = Vec::new();
    for some in others.chunks(ASKED_MAX).take(ROUNDS_MAX) {
        let asked = some.iter().map(|(_, id, address)| {
            let post = &post;
            async move { check(address.clone(), peer.client.post_reach(*id, post).await) }
        });
        found.extend(futures::future::join_all(asked).await.into_iter().flatten());
        if found.iter().any(has_tested) {
            break;
        }
    }
    if !found.iter().any(has_tested) {
        let what = "no member tested it; switch one on, or see what is said of each of them here, then run \
                    `roost doctor` again";
        let (check, what) = ("reached by members".to_owned(), what.to_owned());
        found.push(Check { check, ok: false, what, reach: None });
    }
    Ok(found)
}

/// Whether a member dialled back, whatever came of it.
fn has_tested(check: &Check) -> bool {
    check.reach.is_some()
}

/// What this peer says of where it is, signed as its published descriptor is. Its sequence number is the least, so that nobody
/// takes it for a newer one.
async fn own_descriptor(peer: &Peer) -> Result<ReachPost, String> {
    let descriptor = PeerDescriptor {
        address: peer.config.address.clone(),
        peer_id: peer.identity.peer_id(),
        addrs: announced(&peer.config),
        certificate: peer.identity.openpgp.certificate().as_bytes().to_vec(),
        sequence: 0,
    };
    let (identity, now) = (peer.identity.clone(), peer.clock.now().wall);
    let signed = tokio::task::spawn_blocking(move || sign_descriptor(descriptor, &identity.openpgp, now)).await;
    let signed = signed.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    Ok(ReachPost { descriptor: ByteBuf::from(signed.as_bytes().to_vec()) })
}

/// Nothing for a member that did not answer: that it cannot be reached is a check of its own.
fn check(member: Address, answer: Result<ReachAnswer, NetError>) -> Option<Check> {
    let name = format!("reached by {member}");
    let untold = |what: String| Some(Check { check: name.clone(), ok: true, what, reach: None });
    match answer {
        Ok(answer) => {
            let (ok, what) = sentence(&answer.addrs);
            let ports = answer.addrs.iter().flat_map(ports).collect();
            let reach = ReachShown { member, reached: ok, ports };
            Some(Check { check: name, ok, what, reach: Some(reach) })
        }
        Err(NetError::Status { code: 404, .. }) => {
            untold("its Roost is older and cannot test that; update it there, or ask another member".to_owned())
        }
        Err(NetError::Status { code: 403, .. }) => {
            untold("it does not know yet that this peer is a member; run `roost doctor` again in a minute".to_owned())
        }
        Err(NetError::Status { code: 429 | 503, text, .. }) => untold(format!("not tested just now: {text}")),
        Err(_) => None,
    }
}

fn ports(reached: &Reached) -> [PortDialled; 2] {
    let PeerAddr { host, https, libp2p } = &reached.addr;
    let shown = |service: &str, port: u16, dialled: &crate::wire::http::Dialled| PortDialled {
        service: service.to_owned(),
        host: host.clone(),
        port,
        reached: dialled.why.is_none(),
        ms: dialled.ms,
        why: dialled.why.clone(),
    };
    [shown("https", *https, &reached.https), shown("libp2p", *libp2p, &reached.libp2p)]
}

/// Whether both ports answer, be it at different addresses, and that in words.
fn sentence(reached: &[Reached]) -> (bool, String) {
    let all: Vec<PortDialled> = reached.iter().flat_map(ports).collect();
    let best = |service: &str| all.iter().find(|port| port.service == service && port.reached);
    let said = |service: &str, purpose: &str| match best(service) {
        Some(port) => format!("{purpose} at {}:{} in {} ms", port.host, port.port, port.ms),
        None => {
            let missed = all.iter().filter(|port| port.service == service);
            let whys: Vec<&str> = missed.filter_map(|port| port.why.as_deref()).collect();
            format!("not {purpose} ({})", if whys.is_empty() { "no address".to_owned() } else { whys.join("; ") })
        }
    };
    let words =
        format!("it reaches {}, {}", said("https", "the mail port (HTTPS)"), said("libp2p", "the DHT port (libp2p)"));
    let closed =
        |service: &str| best(service).is_none().then(|| all.iter().find(|port| port.service == service)).flatten();
    let mut open: Vec<u16> = [closed("https"), closed("libp2p")].into_iter().flatten().map(|port| port.port).collect();
    open.dedup();
    if !all.is_empty() && open.is_empty() {
        return (true, words);
    }
    let open: Vec<String> = open.iter().map(ToString::to_string).collect();
    let next = format!(
        "open TCP port {} in this machine's firewall; behind a router (NAT) forward it to this machine, and set `announce` \
         under [net] in config.toml to the address at which members find it",
        open.join(" and ")
    );
    (false, format!("{words}; {next}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::Dialled;

    fn dialled(why: Option<&str>) -> Dialled {
        Dialled { ms: 12, why: why.map(str::to_owned) }
    }

    fn reached(host: &str, https: Option<&str>, libp2p: Option<&str>) -> Reached {
        let addr = PeerAddr { host: host.to_owned(), https: 4430, libp2p: 4431 };
        Reached { addr, https: dialled(https), libp2p: dialled(libp2p) }
    }

    #[test]
    fn each_port_is_told_apart_and_what_is_closed_comes_with_the_next_step() {
        let (ok, what) = sentence(&[reached("198.51.100.7", None, None)]);
        assert!(ok && what.contains("198.51.100.7:4430 in 12 ms") && what.contains("198.51.100.7:4431"), "{what}");
        let (ok, what) = sentence(&[reached("198.51.100.7", Some("refused"), None)]);
        assert!(!ok && what.contains("refused") && what.contains("open TCP port 4430 in"), "{what}");
        let (ok, what) = sentence(&[reached("198.51.100.7", Some("silent"), Some("silent"))]);
        assert!(!ok && what.contains("open TCP port 4430 and 4431") && what.contains("NAT"), "{what}");
        let elsewhere = [reached("10.0.0.7", Some("no route"), Some("no route")), reached("198.51.100.7", None, None)];
        assert!(sentence(&elsewhere).0, "one address is enough");
        assert!(!sentence(&[]).0);
    }

    #[test]
    fn a_member_that_cannot_test_it_is_no_reason_to_worry() {
        let bob: Address = "bob@acme".parse().unwrap();
        let status = |code| {
            let peer = PeerId::new([1; 32]);
            Err(NetError::Status { peer, code, text: "x".to_owned(), retry_after_s: None, gd_version: None })
        };
        for code in [403, 404, 429, 503] {
            assert!(check(bob.clone(), status(code)).is_some_and(|check| check.ok && check.reach.is_none()), "{code}");
        }
        assert_eq!(check(bob, status(500)), None);
    }
}
