//! Cards and invites as one line of text: a prefix that says what it is, then base64url of the encoded record and a check.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cbor::{self, WireError};
use crate::model::card::{Card, CardPeer, Invite};
use crate::model::group::PeerAddr;

/// Longest code that is read, characters.
pub(crate) const CODE_MAX: usize = 4096;
/// Bytes of BLAKE3 at the end of a code: a mistyped one is told from a wrong one.
const CHECK_BYTES: usize = 4;

/// Why a line is no card or invite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Another prefix.
    #[error("this is no {what}: it does not start with \"{prefix}\"; copy the whole line")]
    Prefix {
        /// What was expected.
        what: &'static str,
        /// How it starts.
        prefix: &'static str,
    },
    /// Cut, mistyped or too long.
    #[error("this {what} is incomplete or mistyped; copy the whole line again")]
    Damaged {
        /// What was expected.
        what: &'static str,
    },
    /// Whole, but of a version that this build does not read.
    #[error("this {what} cannot be read: {source}")]
    Record {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        source: WireError,
    },
}

/// A record with a one-line form.
pub trait Code: Serialize + DeserializeOwned + Clone {
    /// What people call it.
    const WHAT: &'static str;
    /// How its line starts.
    const PREFIX: &'static str;
    /// The peers that it names, best first: what of them does not fit is left out of the line.
    fn peers(&mut self) -> &mut Vec<CardPeer>;
}
impl Code for Card {
    const WHAT: &'static str = "contact card";
    const PREFIX: &'static str = "roost-card:";
    fn peers(&mut self) -> &mut Vec<CardPeer> {
        &mut self.peers
    }
}
impl Code for Invite {
    const WHAT: &'static str = "invite";
    const PREFIX: &'static str = "roost-invite:";
    fn peers(&mut self) -> &mut Vec<CardPeer> {
        &mut self.peers
    }
}

/// The one-line form, never longer than what is read: of many peers with many or long addresses some are left out, the longest
/// host names first, while each peer has another.
pub fn to_line<T: Code>(value: &T) -> String {
    let mut line = line_of(value);
    let mut value = value.clone();
    while line.len() > CODE_MAX && shorten(value.peers()) {
        line = line_of(&value);
    }
    line
}

fn line_of<T: Code>(value: &T) -> String {
    let mut bytes = cbor::encode(value);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    format!("{}{}", T::PREFIX, URL_SAFE_NO_PAD.encode(bytes))
}

/// Leaves out one address, or the last peer when each has one address at most; false when nothing is left.
fn shorten(peers: &mut Vec<CardPeer>) -> bool {
    let several = peers.iter_mut().filter(|peer| peer.addrs.len() > 1);
    let host = |addrs: &[PeerAddr], at: usize| addrs[at].host.len();
    // Of equals the last.
    let longest = several.filter_map(|peer| {
        let at = (0..peer.addrs.len()).max_by_key(|at| host(&peer.addrs, *at))?;
        Some((host(&peer.addrs, at), at, &mut peer.addrs))
    });
    match longest.max_by_key(|(length, ..)| *length) {
        Some((_, at, addrs)) => drop(addrs.remove(at)),
        None => return peers.pop().is_some(),
    }
    true
}

/// The record in a line; white space around and inside is ignored.
///
/// # Errors
/// [`CodeError`] when it is another kind of line, damaged, or of a later version.
pub fn from_line<T: Code>(line: &str) -> Result<T, CodeError> {
    let damaged = || CodeError::Damaged { what: T::WHAT };
    if line.len() > CODE_MAX {
        return Err(damaged());
    }
    let line: String = line.split_whitespace().collect();
    let text = line.strip_prefix(T::PREFIX).ok_or(CodeError::Prefix { what: T::WHAT, prefix: T::PREFIX })?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged())?;
    let (record, check) = bytes.split_at_checked(bytes.len().saturating_sub(CHECK_BYTES)).ok_or_else(damaged)?;
    if check != &blake3::hash(record).as_bytes()[..CHECK_BYTES] {
        return Err(damaged());
    }
    cbor::decode(record).map_err(|source| CodeError::Record { what: T::WHAT, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fingerprint, PeerId};

    fn card(peers: u8, addrs: u16, host: impl Fn(u8, u16) -> String) -> Card {
        let addr = |peer, n| PeerAddr { host: host(peer, n), https: n, libp2p: n };
        let peer = |peer: u8| CardPeer {
            peer_id: crate::wire::PeerKey::from_seed(&[peer; 32]).peer_id(),
            addrs: (0..addrs).map(|n| addr(peer, n)).collect(),
        };
        let (address, group_key) = ("carol@acme".parse().unwrap(), Fingerprint::new([7; 20]));
        Card { address, group_key, peers: (0..peers).map(peer).collect() }
    }

    #[test]
    fn a_card_that_fits_is_told_whole() {
        let card = card(5, 3, |peer, n| format!("2001:db8:1234:5678:9abc:def0:{peer}:{n}"));
        assert_eq!(from_line::<Card>(&to_line(&card)), Ok(card));
    }

    #[test]
    fn a_card_of_many_long_addresses_can_be_read_and_still_names_every_peer() {
        let long = card(5, 8, |peer, n| format!("{}.peer-{peer}.example", "a-long-label-".repeat(usize::from(n))));
        let read = from_line::<Card>(&to_line(&long)).unwrap();
        let named = |card: &Card| card.peers.iter().map(|peer| peer.peer_id).collect::<Vec<PeerId>>();
        assert_eq!((&read.address, &read.group_key, named(&read)), (&long.address, &long.group_key, named(&long)));
        for (read, long) in read.peers.iter().zip(&long.peers) {
            assert!(!read.addrs.is_empty() && long.addrs.starts_with(&read.addrs), "the shortest stay: {read:?}");
        }
    }

    #[test]
    fn a_card_whose_hosts_are_longer_than_a_line_can_be_read() {
        let read = from_line::<Card>(&to_line(&card(2, 1, |_, _| "x".repeat(CODE_MAX)))).unwrap();
        assert_eq!(read.peers, []);
        let two = card(40, 2, |peer, n| "x".repeat(if peer == 1 && n == 0 { CODE_MAX } else { 9 }));
        let read = from_line::<Card>(&to_line(&two)).unwrap();
        assert!(read.peers.len() > 20 && read.peers[1].addrs == two.peers[1].addrs[1..], "{read:?}");
    }
}
