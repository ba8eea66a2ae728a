//! The user's word on unknown senders, and what follows from a card or a pin: for the command line and the web page alike. It
//! never grants a key that was not named.

use super::protocol::{Judged, PinnedNow};
use crate::actors::peer::Peer;
use crate::actors::shell::Stopped;
use crate::core::group;
use crate::core::postbox::Verdict;
use crate::core::postbox::io::{RequestInfo, SenderName};
use crate::model::{Address, Fingerprint, GroupName};

/// Who is meant by an address or a fingerprint.
///
/// # Errors
/// A sentence when it is neither.
pub(super) fn sender(who: &str) -> Result<SenderName, String> {
    let who = who.trim();
    let fingerprint = who.parse::<Fingerprint>().map(SenderName::Fingerprint).ok();
    fingerprint.or_else(|| who.parse::<Address>().map(SenderName::Address).ok()).ok_or_else(|| {
        let shown: String = who.chars().take(80).collect();
        format!("{shown:?} is neither an address nor a fingerprint; `roost requests` shows both")
    })
}

/// Judges whoever of that name asks or was judged before. An address that several keys claim is judged only by fingerprint.
///
/// # Errors
/// A sentence: nobody of that name, several, or the peer stops.
pub(super) async fn judge(peer: &Peer, who: &str, verdict: Verdict) -> Result<Judged, String> {
    let name = sender(who)?;
    if let (SenderName::Address(address), Verdict::Granted) = (&name, verdict) {
        let waiting = peer.postbox.requests().await.map_err(stopped)?.waiting;
        let mut keys: Vec<Fingerprint> = waiting.iter().filter(|r| r.from == *address).map(|r| r.sender).collect();
        keys.sort();
        keys.dedup();
        if keys.len() > 1 {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            return Err(format!(
                "{} keys claim to be {address}: {}; compare them with the sender on another way, then name the right one by its fingerprint",
                keys.len(),
                keys.join(", ")
            ));
        }
    }
    match peer.postbox.judge(name, verdict).await.map_err(stopped)? {
        (0, _) => Err(format!("{who} has asked for nothing and was never judged; `roost requests` shows who was")),
        (senders, mails) => Ok(Judged { who: who.trim().to_owned(), senders, mails }),
    }
}

/// Adding a card is a word on its sender: the waiting requests of the exact key that the pinned group names become stubs, and
/// no other key's. Gives how many mails that were.
///
/// # Errors
/// A sentence when the peer stops.
pub(super) async fn card_added(peer: &Peer, address: &Address) -> Result<usize, String> {
    let snapshot = peer.directory.snapshot();
    let Some(group) = snapshot.groups.get(address.group()) else { return Ok(0) };
    let named = group.gd.as_ref().and_then(|gd| gd.member_at(address)).map(|member| member.fingerprint);
    let requests = peer.postbox.requests().await.map_err(stopped)?;
    let fits = |r: &&RequestInfo| {
        r.from == *address && group.goes_by(&r.group_key) && named.is_none_or(|named| named == r.sender)
    };
    let mut keys: Vec<Fingerprint> = requests.waiting.iter().filter(fits).map(|r| r.sender).collect();
    keys.sort();
    keys.dedup();
    if keys.len() > 1 && named.is_none() {
        // Two keys under the same group key, and no gd yet that says which: the user does.
        return Ok(0);
    }
    if let Some(key) = named.filter(|key| requests.senders.iter().any(|(_, sender, _)| sender == key)) {
        // A word that was taken back, or a refusal, is over with the card.
        keys.push(key);
    }
    let mut mails = 0;
    for key in keys {
        let judged = peer.postbox.judge(SenderName::Fingerprint(key), Verdict::Granted).await;
        mails += judged.map_err(stopped)?.1;
    }
    Ok(mails)
}

/// Pins a group's key.
///
/// # Errors
/// A sentence: another key is pinned, or the peer stops.
pub(super) async fn pin(peer: &Peer, group: GroupName, key: Fingerprint) -> Result<PinnedNow, String> {
    let name = group.clone();
    match peer.group.ask(move |token| group::Input::Pin { token, group: name, key }).await.map_err(stopped)? {
        group::Reply::ContactAdded { note, .. } => Ok(PinnedNow { group, key: key.to_string(), note }),
        group::Reply::Refused(why) => Err(why.to_string()),
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_named_by_address_or_fingerprint() {
        assert!(matches!(sender(" alice@acme "), Ok(SenderName::Address(_))));
        assert!(matches!(sender(&Fingerprint::new([7; 20]).to_string()), Ok(SenderName::Fingerprint(_))));
        assert!(sender("alice").unwrap_err().contains("roost requests"));
    }
}
