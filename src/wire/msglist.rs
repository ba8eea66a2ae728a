//! The msglist on the wire: entries as bytes in a BLAKE3 chain, and pages that end at a signed head.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::cbor::{WireError, decode, encode};
use super::signed::Signed;
use crate::model::msglist::{Cursor, Entry, EntryBody, Epoch, Head, MailEntry, Seq, SignedTombstone};
use crate::model::{Digest, PeerId};

#[derive(Serialize, Deserialize)]
struct EntryRecord {
    #[serde(rename = "a")]
    at: Cursor,
    #[serde(rename = "k")]
    kind: String,
    #[serde(rename = "b", with = "serde_bytes")]
    body: Vec<u8>,
}

/// The bytes of an entry: what is chained, kept and passed on.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let (kind, body) = match &entry.body {
        EntryBody::Mail(mail) => ("mail", encode(mail)),
        EntryBody::Tombstone(tombstone) => ("tombstone", tombstone.0.clone()),
        EntryBody::Unknown { kind, body } => (kind.as_str(), body.clone()),
    };
    encode(&EntryRecord { at: entry.at, kind: kind.to_owned(), body })
}

/// The entry in `bytes`. A kind that is unknown is kept as it is, and so is a mail that a later version describes in words
/// that this one does not know (another encoding): it must not stop the list that it stands in.
///
/// # Errors
/// [`WireError`] when it is malformed. The signature of a tombstone is checked by whoever uses it.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, WireError> {
    let record: EntryRecord = decode(bytes)?;
    let body = match record.kind.as_str() {
        "mail" => match decode::<MailEntry>(&record.body) {
            Ok(mail) => EntryBody::Mail(mail),
            Err(_) => EntryBody::Unknown { kind: record.kind, body: record.body },
        },
        "tombstone" => EntryBody::Tombstone(SignedTombstone(record.body)),
        _ => EntryBody::Unknown { kind: record.kind, body: record.body },
    };
    Ok(Entry { at: record.at, body })
}

/// The chain value of an epoch before its first entry.
pub fn chain_start(owner: &PeerId, epoch: Epoch) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("roost 1 msglist chain");
    hasher.update(owner.as_bytes());
    hasher.update(&epoch.0.to_be_bytes());
    Digest::new(*hasher.finalize().as_bytes())
}

/// The chain value after `entry`, the chain before it being `before`.
pub fn chain_next(before: &Digest, entry: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes());
    hasher.update(entry);
    Digest::new(*hasher.finalize().as_bytes())
}

/// A run of one epoch's entries as it travels; checked with [`Run::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The entries after `after`, in order, without a gap; each as [`encode_entry`] made it.
    #[serde(rename = "i")]
    pub entries: Vec<ByteBuf>,
    /// The position before the first of them: the cursor that was asked for, or the base of the epoch.
    #[serde(rename = "a")]
    pub after: Seq,
    /// The signed head at the last of them.
    #[serde(rename = "h")]
    pub head: ByteBuf,
    /// A later signed head of the same epoch whose base is [`Run::after`]: given where `head` was signed with an earlier base.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ByteBuf>,
}

/// What `GET /outbox/msglist` and `GET /mirror/{address}/msglist` answer: one run an epoch, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Page {
    /// At most one an epoch. Empty when nothing is new.
    #[serde(rename = "r")]
    pub runs: Vec<Run>,
    /// Whether more can be had at once.
    #[serde(rename = "m")]
    pub more: bool,
    /// Signed tombstones that whoever answers has from elsewhere than the list (a 410, a `/notify`), and the list as it knows it
    /// does not have. On the last page of another's list.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub tombstones: Vec<ByteBuf>,
}

/// A run whose chain and signature fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRun {
    /// The head that was checked.
    pub head: Signed<Head>,
    /// The position before the first entry.
    pub after: Seq,
    /// The chain value there.
    pub before: Digest,
    /// Each entry with its bytes.
    pub entries: Vec<(Entry, Vec<u8>)>,
}

impl Run {
    /// Checks the signature of the head, its owner, and the chain from `known` (the chain value that the reader has for the
    /// position [`Run::after`]); without it the run must start at the epoch's start or at a base that the owner signed.
    ///
    /// # Errors
    /// [`WireError`] says what does not fit. Nothing of such a run may be used (R3).
    pub fn verify(&self, owner: &PeerId, known: Option<&Digest>) -> Result<VerifiedRun, WireError> {
        let chain_error = |why: &str| WireError::Chain { owner: owner.to_string(), why: why.to_owned() };
        let head = Signed::<Head>::verify(&self.head)?;
        if head.owner != *owner {
            return Err(chain_error("it is the head of another owner"));
        }
        let before = match known {
            Some(chain) => *chain,
            None if self.after == Seq(0) => chain_start(owner, head.at.epoch),
            None if self.after == head.base_seq => head.base_chain,
            None => {
                let base = self.base.as_ref().map(|bytes| Signed::<Head>::verify(bytes)).transpose()?;
                let fits = |base: &Signed<Head>| {
                    (base.owner, base.at.epoch, base.base_seq) == (*owner, head.at.epoch, self.after)
                };
                base.filter(fits).ok_or_else(|| chain_error("the run starts in the middle"))?.base_chain
            }
        };
        let mut chain = before;
        let mut at = Cursor { epoch: head.at.epoch, seq: self.after };
        let mut entries = Vec::with_capacity(self.entries.len());
        for bytes in &self.entries {
            let entry = decode_entry(bytes)?;
            let is_last_possible = at.seq.next() == at.seq;
            at.seq = at.seq.next();
            if entry.at != at || is_last_possible {
                return Err(chain_error("an entry is not where it says it is"));
            }
            chain = chain_next(&chain, bytes);
            entries.push((entry, bytes.to_vec()));
        }
        if at != head.at || chain != head.chain {
            return Err(chain_error("the entries do not lead to the head"));
        }
        Ok(VerifiedRun { head, after: self.after, before, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerKey;

    /// A run as it was before it could prove a base.
    #[derive(Serialize)]
    struct EarlierRun {
        #[serde(rename = "i")]
        entries: Vec<ByteBuf>,
        #[serde(rename = "a")]
        after: Seq,
        #[serde(rename = "h")]
        head: ByteBuf,
    }

    #[test]
    fn a_mail_in_words_of_a_later_version_does_not_stop_its_list() {
        let (key, epoch) = (PeerKey::from_seed(&[1; 32]), Epoch(7));
        let start = chain_start(&key.peer_id(), epoch);
        let body = EntryBody::Unknown { kind: "mail".to_owned(), body: encode(&("spiral", 3)) };
        let later = encode_entry(&Entry { at: Cursor { epoch, seq: Seq(1) }, body: body.clone() });
        let at = Cursor { epoch, seq: Seq(1) };
        let chain = chain_next(&start, &later);
        let head = key.sign(Head { owner: key.peer_id(), at, chain, base_seq: Seq(0), base_chain: start });
        let head = ByteBuf::from(head.as_bytes().to_vec());
        let run = Run { entries: vec![ByteBuf::from(later.clone())], after: Seq(0), head, base: None };
        let verified = run.verify(&key.peer_id(), None).unwrap();
        assert_eq!(verified.entries, [(Entry { at, body }, later.clone())]);
        assert_eq!(encode_entry(&verified.entries[0].0), later, "it is passed on as it was signed");
    }

    #[test]
    fn a_run_at_the_last_possible_position_is_refused() {
        let (key, epoch) = (PeerKey::from_seed(&[1; 32]), Epoch(7));
        let at = Cursor { epoch, seq: Seq(u64::MAX) };
        let entry = encode_entry(&Entry { at, body: EntryBody::Unknown { kind: "x".to_owned(), body: vec![] } });
        let before = chain_start(&key.peer_id(), epoch);
        let chain = chain_next(&before, &entry);
        let head = key.sign(Head { owner: key.peer_id(), at, chain, base_seq: at.seq, base_chain: before });
        let head = ByteBuf::from(head.as_bytes().to_vec());
        let run = Run { entries: vec![ByteBuf::from(entry)], after: at.seq, head, base: None };
        assert!(matches!(run.verify(&key.peer_id(), None), Err(WireError::Chain { .. })));
    }

    #[test]
    fn a_run_of_an_earlier_peer_is_read_and_a_base_of_another_owner_proves_nothing() {
        let (key, epoch) = (PeerKey::from_seed(&[1; 32]), Epoch(7));
        let body = EntryBody::Unknown { kind: "test".to_owned(), body: vec![1] };
        let entry = encode_entry(&Entry { at: Cursor { epoch, seq: Seq(2) }, body });
        let before = chain_next(&chain_start(&key.peer_id(), epoch), b"dropped");
        let head = |key: &PeerKey, base_seq, base_chain| {
            let (owner, at) = (key.peer_id(), Cursor { epoch, seq: Seq(2) });
            ByteBuf::from(
                key.sign(Head { owner, at, chain: chain_next(&before, &entry), base_seq, base_chain }).as_bytes(),
            )
        };
        let start = chain_start(&key.peer_id(), epoch);
        let earlier =
            EarlierRun { entries: vec![ByteBuf::from(entry.clone())], after: Seq(1), head: head(&key, Seq(0), start) };
        let mut run: Run = decode(&encode(&earlier)).unwrap();
        assert!(run.verify(&key.peer_id(), Some(&before)).is_ok());
        assert!(run.verify(&key.peer_id(), None).is_err(), "from the middle, and nothing proves it");
        run.base = Some(head(&PeerKey::from_seed(&[2; 32]), Seq(1), before));
        assert!(run.verify(&key.peer_id(), None).is_err());
        run.base = Some(head(&key, Seq(1), before));
        assert_eq!(run.verify(&key.peer_id(), None).unwrap().before, before);
    }
}
