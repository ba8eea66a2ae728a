//! What a peer shows of itself, put together from its brains' own status. It decides nothing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::answers;
use super::conflicts;
use super::listing;
use super::protocol::{
    Check, Contact, EndedLine, GroupStatus, MemberStatus, OutboxLine, OutboxPage, PeerStatus, Ports, SealedLine,
};
use super::refused_parts;
use super::seen::Seen;
use super::standing;
use crate::actors::peer::{Listening, Peer};
use crate::actors::shell::Stopped;
use crate::core::outbox::{self, EndedStatus, OutboxStatus, WaitingStatus};
use crate::core::{fetch, group};
use crate::model::{Encoding, Part, SubmissionId, WallTime};

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

/// The own group.
pub(super) async fn group(peer: &Peer) -> Result<GroupStatus, String> {
    Ok(group_status(&peer.group.observe().await.map_err(stopped)?, peer))
}

pub(super) fn group_status(status: &group::Status, peer: &Peer) -> GroupStatus {
    let member = |m: &group::MemberStatus| MemberStatus {
        address: m.address.clone(),
        peer_id: m.peer_id,
        up: m.up.unwrap_or(!m.lost),
        silent_s: m.silent_for.map(|span| span.duration().as_secs()),
        lost: m.lost,
        key_holder: m.key_holder,
        leaving: m.leaving,
    };
    let others = status.members.iter().filter(|m| m.peer_id != status.peer_id && !m.lost && !m.leaving).count();
    let needed = usize::from(status.policy.others_needed());
    // Whoever is lost may be back: what is kept as fragments stays so, and new mail is kept whole.
    let staying = status.members.iter().filter(|m| m.peer_id != status.peer_id && !m.leaving).count();
    let which = if staying < needed { "every mail" } else { "new mail" };
    let degraded = (status.gd_version > 0 && status.members.len() > 1 && others < needed).then(|| {
        format!("the policy needs {needed} members besides a sender, {others} are here: {which} is kept whole at each of them")
    });
    GroupStatus {
        group: peer.config.address.group().clone(),
        version: status.gd_version,
        key: status.group_key.map(|key| key.to_string()),
        policy: status.policy.clone(),
        acting_master: status.acting_master.clone(),
        degraded,
        conflicts: [
            standing::of(status, peer.clock.now().wall),
            conflicts::of_groups(status),
            conflicts::of_keys(status, peer.clock.now().wall),
        ]
        .concat(),
        role: standing::role(status.role).to_owned(),
        members: status.members.iter().map(member).collect(),
        invited: status.open_invites.iter().map(|invite| invite.name.clone()).collect(),
    }
}

/// What waits in the outbox.
pub(super) async fn outbox(peer: &Peer) -> Result<Vec<OutboxLine>, String> {
    let mut lines = listing::page_of(lines(&peer.outbox.observe().await.map_err(stopped)?.submissions));
    listing::subjects(peer, &mut lines).await;
    Ok(lines)
}

/// Some of what waits in the outbox, and how much that is in all.
pub(super) async fn outbox_page(
    peer: &Peer,
    after: Option<(WallTime, SubmissionId)>,
    last: Option<u32>,
) -> Result<OutboxPage, String> {
    let last = last.map_or(usize::MAX, |last| usize::try_from(last).unwrap_or(usize::MAX));
    let asked = peer.outbox.ask(move |token| outbox::Input::List { token, after, last });
    match asked.await.map_err(stopped)? {
        outbox::Reply::Waiting { some, total } => {
            let mut lines = listing::page_of(lines(&some));
            listing::subjects(peer, &mut lines).await;
            Ok(OutboxPage { total, lines })
        }
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

/// The last that were submitted, as many as a status shows.
pub(super) async fn last_of_outbox(peer: &Peer) -> Result<Vec<WaitingStatus>, String> {
    let asked = peer.outbox.ask(|token| outbox::Input::List { token, after: None, last: listing::SHOWN_MAX });
    match asked.await.map_err(stopped)? {
        outbox::Reply::Waiting { mut some, .. } => {
            let shown = listing::last_of(lines(&some)).len();
            Ok(some.split_off(some.len().saturating_sub(shown)))
        }
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

/// What ended in the outbox of late in another way than being received.
pub(super) async fn outbox_ended(peer: &Peer) -> Result<Vec<EndedLine>, String> {
    Ok(ended(&peer.outbox.observe().await.map_err(stopped)?))
}

fn ended(status: &OutboxStatus) -> Vec<EndedLine> {
    let line = |ended: &EndedStatus| EndedLine {
        submission: ended.submission,
        receivers: ended.receivers.iter().map(|(address, word)| (address.clone(), (*word).to_owned())).collect(),
        size: ended.size,
        at: ended.at,
        ended_at: ended.ended_at,
    };
    listing::page_of(status.ended_lately.iter().map(line).collect())
}

fn lines(waiting: &[WaitingStatus]) -> Vec<OutboxLine> {
    let sealed = |mail: &crate::core::outbox::MailStatus| SealedLine {
        h: mail.h,
        length: mail.length,
        encoding: match mail.encoding {
            Encoding::Whole => "whole".to_owned(),
            Encoding::Fragments { k, n } => format!("fragments {k} of {n}"),
        },
        safe: mail.safe,
        holders: mail.holders.iter().map(|(address, part)| (address.clone(), part_word(*part))).collect(),
        refused: mail
            .refused
            .iter()
            .map(|(who, why)| (who.clone(), refused_parts::in_short(*why).to_owned()))
            .collect(),
    };
    let line = |waiting: &WaitingStatus| OutboxLine {
        submission: waiting.submission,
        subject: None,
        sealed: waiting.mails.iter().map(sealed).collect(),
        receivers: waiting.receivers.iter().map(|(address, state)| (address.clone(), (*state).to_owned())).collect(),
        size: waiting.size,
        at: waiting.at,
    };
    waiting.iter().map(line).collect()
}

fn part_word(part: Part) -> String {
    match part {
        Part::Whole => "whole".to_owned(),
        Part::Fragment { i, .. } => format!("fragment {i}"),
    }
}

/// Contacts, with what is known of each.
pub(super) async fn contacts(peer: &Peer) -> Result<Vec<Contact>, String> {
    let status = peer.group.observe().await.map_err(stopped)?;
    let snapshot = peer.directory.snapshot();
    let contact = |address: &crate::model::Address| {
        let group = snapshot.groups.get(address.group());
        let member = group.and_then(|g| g.gd.as_ref()).and_then(|gd| gd.member_at(address));
        let has_certificate = snapshot.at(address).is_some_and(|known| known.certificate.is_some());
        Contact {
            address: address.clone(),
            group_key: group.map(|g| g.key.to_string()).unwrap_or_default(),
            pinned_since: status.pins.iter().find(|pin| pin.group == *address.group()).and_then(|pin| pin.since),
            fingerprint: member.filter(|_| has_certificate).map(|m| m.fingerprint.to_string()),
        }
    };
    Ok(status.contacts.iter().map(contact).collect())
}

/// Everything.
pub(super) async fn status(peer: &Peer) -> Result<PeerStatus, String> {
    Ok(status_of(peer, &Seen::of(peer).await?))
}

/// The same, of what was seen already.
pub(super) fn status_of(peer: &Peer, seen: &Seen) -> PeerStatus {
    PeerStatus {
        address: peer.config.address.clone(),
        peer_id: peer.identity.peer_id(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: seen.started,
        ports: ports(peer),
        group: group_status(&seen.group, peer),
        candidates: seen.group.candidates.clone(),
        outbox: lines(&seen.outbox.submissions),
        outbox_total: seen.outbox.waiting,
        outbox_ended: ended(&seen.outbox),
        pulls: answers::pulls(peer, &seen.fetch),
        attention: seen.attention.clone(),
        disk_full: seen.disk_full.clone(),
        stored_own_bytes: seen.own_bytes,
        stored_mirror_bytes: seen.mirror_bytes,
        served_bytes: seen.served_bytes,
        brains: BTreeMap::from([
            ("group".to_owned(), json(&seen.group)),
            ("outbox".to_owned(), json(&seen.outbox)),
            ("replicator".to_owned(), json(&seen.replicator)),
            ("fetch".to_owned(), json(&seen.fetch)),
            ("postbox".to_owned(), json(&seen.postbox)),
            ("dht".to_owned(), json(&seen.dht)),
        ]),
    }
}

/// Where it can be reached.
pub(super) fn ports(peer: &Peer) -> Ports {
    let Listening { smtp, imap, https, libp2p, console } = peer.ports;
    Ports {
        smtp: smtp.to_string(),
        imap: imap.to_string(),
        https: https.to_string(),
        libp2p: libp2p.to_string(),
        console: console.map(|addr| addr.to_string()),
    }
}

fn json<T: Serialize>(status: &T) -> Value {
    serde_json::to_value(status).unwrap_or_else(|e| Value::String(format!("no JSON form: {e}")))
}

pub(super) fn attention(
    peer: &Peer,
    group: &group::Status,
    outbox: &OutboxStatus,
    replicator: &crate::core::replicator::Status,
    fetch: &fetch::Status,
    damaged_messages: usize,
) -> Vec<String> {
    let mut sentences = Vec::new();
    if outbox.unsafe_mails > 0 {
        sentences.push(format!("{} mail(s) wait that nobody but this peer can give: keep it on", outbox.unsafe_mails));
    }
    for miss in &outbox.audit_misses {
        sentences.push(format!(
            "{} could not show a part of mail {} that it had confirmed; it does not count until it confirms it anew",
            miss.member, miss.h
        ));
    }
    sentences.extend(outbox.refusals.iter().map(refused_parts::sentence));
    if outbox.missing_mails > 0 {
        sentences.push(format!(
            "{} sealed mail(s) are missing on this disk; they are put together again from what members hold",
            outbox.missing_mails
        ));
    }
    if damaged_messages > 0 {
        sentences.push(format!(
            "{damaged_messages} message(s) in the mailboxes have lost their files on this disk; bring them back from a backup \
             (`roost init --restore`), and have the disk looked at"
        ));
    }
    if outbox.moving > 0 {
        let waits: Vec<String> = outbox.moving_waits_for.iter().map(ToString::to_string).collect();
        let waits = if waits.is_empty() { "the members".to_owned() } else { waits.join(", ") };
        sentences.push(format!(
            "{} mail(s) are on their way to how the policy wants them kept; waiting for {waits}: until then what was held stays held too",
            outbox.moving
        ));
    }
    sentences.extend(group_status(group, peer).degraded);
    if group.clock_off {
        sentences.push(format!(
            "this clock is {} s off the members': nothing is expired until it is right; set it (`timedatectl set-ntp true`), \
             and this peer notices by itself",
            group.clock_offset_ms / 1000
        ));
    }
    sentences.extend(conflicts::of_candidates(group));
    sentences.extend(standing::of(group, peer.clock.now().wall));
    sentences.extend(conflicts::of_groups(group));
    sentences.extend(conflicts::of_keys(group, peer.clock.now().wall));
    sentences.extend(conflicts::of_lists(replicator));
    for lost in group.members.iter().filter(|m| m.lost) {
        sentences.push(format!(
            "{} is lost: others take over what it held; switch it on again, or take it out with `roost group remove {}`",
            lost.address, lost.address
        ));
    }
    let snapshot = peer.directory.snapshot();
    for (liar, times) in &fetch.liars {
        let name = snapshot.peers.get(liar).and_then(|p| p.address.as_ref()).map(ToString::to_string);
        let name = name.unwrap_or_else(|| liar.to_string());
        sentences.push(format!("{name} served wrong bytes {times} time(s): its disk may be failing; tell its user to look at it (`roost doctor` there)"));
    }
    sentences
}

/// What `roost doctor` checks in a running peer.
pub(super) async fn doctor(peer: &Peer) -> Result<Vec<Check>, String> {
    let group = peer.group.observe().await.map_err(stopped)?;
    let check = |check: &str, ok: bool, what: String| Check { check: check.to_owned(), ok, what, reach: None };
    let journal = peer.journal.health();
    let mut checks = vec![
        check(
            "journal",
            journal.is_ok(),
            journal.err().map_or_else(|| "it takes records".to_owned(), |e| e.to_string()),
        ),
        check("clock", !group.clock_off, clock_sentence(group.clock_off, group.clock_offset_ms)),
        check(
            "index",
            true,
            if peer.index_rebuilt {
                "it was rebuilt at this start; nothing is to be done"
            } else {
                "it was opened as it was"
            }
            .to_owned(),
        ),
    ];
    for member in group.members.iter().filter(|m| m.peer_id != group.peer_id) {
        let reached = peer.client.get_group(member.peer_id).await;
        let what = match &reached {
            Ok(_) => "it answers".to_owned(),
            Err(e) => format!("{e}; check that its ports are open and that it runs"),
        };
        checks.push(check(&format!("reach {}", member.address), reached.is_ok(), what));
    }
    checks.extend(super::reach::checks(peer).await?);
    let full = super::full::stores(peer).await;
    let room = full.iter().map(|store| store.what.as_str()).collect::<Vec<_>>().join("; ");
    checks.push(check(
        "room",
        full.is_empty(),
        if full.is_empty() { "every store can write".to_owned() } else { room },
    ));
    Ok(checks)
}

fn clock_sentence(off: bool, offset_ms: i64) -> String {
    let found = format!("{offset_ms} ms off the members' median");
    match off {
        false => found,
        true => format!(
            "{found}: nothing expires here until it is right; set this machine's clock and keep it set \
             (`timedatectl set-ntp true`), this peer notices by itself. If it is right, the members' clocks are wrong: tell them"
        ),
    }
}
