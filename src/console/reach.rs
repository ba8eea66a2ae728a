//! Asks a few members whether they reach this peer, and says what they answered, with what to do. It never believes that it
//! can be reached because it can reach others.

use std::time::Duration;

use futures::future::BoxFuture;
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
/// Longest wait before members that were asked just now are asked once more.
const WAIT_MAX: Duration = Duration::from_secs(5);

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
    let client = peer.client.clone();
    let ask = move |id: PeerId| -> BoxFuture<'static, _> {
        let (client, post) = (client.clone(), post.clone());
        Box::pin(async move { client.post_reach(id, &post).await })
    };
    Ok(ask_round(&others, &ask).await)
}

/// Asks a few members after the other until one of them tested it; who did not, because it was asked a moment ago or tests
/// others, is asked once more.
async fn ask_round(
    others: &[(bool, PeerId, Address)],
    ask: &(impl Fn(PeerId) -> BoxFuture<'static, Answer> + Sync),
) -> Vec<Check> {
    let mut said: Vec<Said> = Vec::new();
    for some in others.chunks(ASKED_MAX).take(ROUNDS_MAX) {
        let asked = some.iter().map(|(_, id, address)| said_by(*id, address.clone(), ask(*id)));
        said.extend(futures::future::join_all(asked).await);
        if said.iter().any(Said::has_tested) {
            break;
        }
    }
    let later = said.iter().filter_map(|one| one.later).max();
    if let Some(later) = later.filter(|_| !said.iter().any(Said::has_tested)) {
        tokio::time::sleep(later.min(WAIT_MAX)).await;
        let (again, kept): (Vec<Said>, Vec<Said>) = said.into_iter().partition(|one| one.later.is_some());
        said = kept;
        let asked = again.into_iter().map(|one| said_by(one.id, one.member, ask(one.id)));
        said.extend(futures::future::join_all(asked).await);
    }
    let tested = said.iter().any(Said::has_tested);
    let busy = said.iter().any(|one| one.later.is_some());
    let mut found: Vec<Check> = said.into_iter().filter_map(|one| one.check).collect();
    if !tested {
        let what = if busy {
            "not tested just now, see what is said of each of them here; run `roost doctor` again in a few seconds"
        } else {
            "no member tested it; switch one on, or see what is said of each of them here, then run `roost doctor` again"
        };
        let check = "reached by members".to_owned();
        found.push(Check { check, ok: busy, what: what.to_owned(), reach: None });
    }
    found
}

/// What a member answers.
type Answer = Result<ReachAnswer, NetError>;

/// What came of asking one member.
struct Said {
    id: PeerId,
    member: Address,
    /// Nothing when it did not answer.
    check: Option<Check>,
    /// It answers a test after so long.
    later: Option<Duration>,
}

impl Said {
    /// Whether the member dialled back, whatever came of it.
    fn has_tested(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.reach.is_some())
    }
}

async fn said_by(id: PeerId, member: Address, answer: BoxFuture<'static, Answer>) -> Said {
    let answer = answer.await;
    let later = match &answer {
        Err(NetError::Status { code: 429 | 503, retry_after_s, .. }) => {
            Some(retry_after_s.map_or(WAIT_MAX, Duration::from_secs))
        }
        _ => None,
    };
    Said { id, check: check(member.clone(), answer), member, later }
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
    use std::sync::Mutex;

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

    /// What is said after these members answered so, one after the other, and how often each was asked.
    async fn asked(answers: Vec<(u8, Result<ReachAnswer, NetError>)>) -> (Vec<Check>, usize) {
        let mut others: Vec<(bool, PeerId, Address)> = answers
            .iter()
            .map(|(n, _)| (false, PeerId::new([*n; 32]), format!("member{n}@acme").parse().unwrap()))
            .collect();
        others.dedup();
        let (count, answers) = (answers.len(), Mutex::new(answers));
        let ask = |id: PeerId| -> BoxFuture<'static, _> {
            let mut answers = answers.lock().unwrap();
            let next = answers.iter().position(|(n, _)| PeerId::new([*n; 32]) == id).expect("an answer");
            Box::pin(std::future::ready(answers.remove(next).1))
        };
        let said = ask_round(&others, &ask).await;
        (said, count - answers.into_inner().unwrap().len())
    }

    fn refusal(code: u16) -> Result<ReachAnswer, NetError> {
        let peer = PeerId::new([1; 32]);
        Err(NetError::Status { peer, code, text: "later".to_owned(), retry_after_s: Some(3), gd_version: None })
    }

    fn tested() -> Result<ReachAnswer, NetError> {
        Ok(ReachAnswer { addrs: vec![reached("198.51.100.7", None, None)] })
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_were_asked_a_moment_ago_are_asked_once_more_and_not_taken_for_members_that_are_off() {
        let (said, calls) = asked(vec![(1, refusal(429)), (1, tested()), (2, refusal(503)), (2, tested())]).await;
        assert!(calls == 4 && said.iter().all(|check| check.ok && check.reach.is_some()), "{said:?}");
        let (said, calls) = asked(vec![(1, tested()), (2, refusal(429))]).await;
        assert!(calls == 2 && said.len() == 2 && said.iter().all(|check| check.ok), "one is enough: {said:?}");
        let (said, calls) = asked(vec![(1, refusal(429)), (1, refusal(429))]).await;
        assert!(calls == 2 && said.iter().all(|check| check.ok), "a note, no fault: {said:?}");
        assert!(said.last().unwrap().what.contains("again in a few seconds"), "{said:?}");
        let (said, calls) = asked(vec![(1, refusal(500)), (2, refusal(404))]).await;
        assert!(calls == 2 && !said.last().unwrap().ok, "nobody can test it: {said:?}");
        assert!(said.last().unwrap().what.contains("no member tested it"), "{said:?}");
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
