//! The request-response protocol `/roost/dht/1`: batches of operations on DHT entries, and their answers. Decoding verifies
//! every signature, value and password, so an [`Entry`] or [`EntryTombstone`] that exists is true; nothing here stores or sends.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::cbor::{WireError, decode, decode_within, encode};
use super::signed::{PeerKey, Signed};
use crate::model::dht::{EntryTerms, VALUE_MAX, password_hash, value_hash};
use crate::model::{Digest, Secret, WallTime};

/// The protocol's name in libp2p.
pub const DHT_PROTOCOL: &str = "/roost/dht/1";
/// Largest request, bytes.
pub const REQUEST_MAX: usize = 2 << 20;
/// Largest response, bytes.
pub const RESPONSE_MAX: usize = 4 << 20;
/// Most operations of one request.
pub const OPS_MAX: usize = 64;
/// Most ids that one operation names.
pub const IDS_MAX: usize = 16_384;

/// An entry: terms that its publisher signed, and the value that they name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    terms: Signed<EntryTerms>,
    value: Bytes,
}

impl Entry {
    /// Publishes `value` under the key with hash `key`; whoever knows `password` can delete it.
    pub fn publish(key: &PeerKey, under: Digest, value: Bytes, password: &Secret, expiry: WallTime) -> Self {
        let terms = EntryTerms {
            key: under,
            value: value_hash(&value),
            password: password_hash(password),
            expiry,
            publisher: key.peer_id(),
        };
        Self { terms: key.sign(terms), value }
    }
    /// The entry that was signed as `terms`.
    ///
    /// # Errors
    /// [`WireError`] when the signature is not the publisher's, the value is another one or too large.
    pub fn verify(terms: &[u8], value: Bytes) -> Result<Self, WireError> {
        if value.len() > VALUE_MAX {
            return Err(WireError::TooLarge { found: value.len(), limit: VALUE_MAX });
        }
        let terms = Signed::<EntryTerms>::verify(terms)?;
        if value_hash(&value) != terms.value {
            return Err(WireError::Malformed { why: "the value is not the one that was signed".to_owned() });
        }
        Ok(Self { terms, value })
    }
    /// What the publisher signed.
    pub fn terms(&self) -> &Signed<EntryTerms> {
        &self.terms
    }
    /// The value.
    pub fn value(&self) -> &Bytes {
        &self.value
    }
}

/// A deletion that proves itself: the terms of the entry and the password they name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryTombstone {
    terms: Signed<EntryTerms>,
    password: Secret,
}

impl EntryTombstone {
    /// The deletion of the entry with these terms.
    ///
    /// # Errors
    /// [`WireError::Malformed`] when `password` is not the entry's.
    pub fn new(terms: Signed<EntryTerms>, password: Secret) -> Result<Self, WireError> {
        if password_hash(&password) != terms.password {
            return Err(WireError::Malformed { why: "the password is not the entry's".to_owned() });
        }
        Ok(Self { terms, password })
    }
    /// The terms of the deleted entry.
    pub fn terms(&self) -> &Signed<EntryTerms> {
        &self.terms
    }
    /// The same deletion for a renewal of the entry; itself when that is another entry or ends earlier.
    pub fn prolonged(self, terms: &Signed<EntryTerms>) -> Self {
        if terms.id() == self.terms.id() && terms.expiry > self.terms.expiry {
            Self { terms: terms.clone(), password: self.password }
        } else {
            self
        }
    }
}

/// One operation. Keys travel as their hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Keep this entry until it expires.
    Put(Entry),
    /// Say what is there under a key.
    List(List),
    /// Hand over these entries, or the tombstones that came in their place.
    Fetch(Fetch),
    /// Delete what has this value and password.
    Del(Del),
    /// Keep this tombstone until it expires, and delete what it names.
    Bury(EntryTombstone),
    /// A kind that this build does not know.
    Unknown {
        /// Its name.
        kind: String,
    },
    /// A known kind that is malformed or forged.
    Invalid {
        /// What is wrong with it.
        why: WireError,
    },
}

/// Asks what is there under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// H(x).
    #[serde(rename = "x")]
    pub key: Digest,
    /// Whether values are wanted with it; else ids only.
    #[serde(rename = "v")]
    pub values: bool,
    /// Entries whose values the asker has.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    pub have: Vec<Digest>,
    /// The print of a listing that the asker knows: when it is still that, [`Answer::Same`] says so.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<Digest>,
}

/// Asks for entries by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// H(x).
    #[serde(rename = "x")]
    pub key: Digest,
    /// Which.
    #[serde(rename = "i")]
    pub ids: Vec<Digest>,
    /// Whether only tombstones are wanted.
    #[serde(rename = "d", default)]
    pub dead_only: bool,
}

/// Asks for a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Del {
    /// H(x).
    #[serde(rename = "x")]
    pub key: Digest,
    /// H(v).
    #[serde(rename = "v")]
    pub value: Digest,
    /// p.
    #[serde(rename = "p")]
    pub password: Secret,
}

/// What is there under a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Names this state of the key at this peer; none when it keeps nothing there.
    pub print: Option<Digest>,
    /// Live entries and when they expire.
    pub live: Vec<(Digest, WallTime)>,
    /// Tombstones, by [`short_id`]. A claim until [`Fetch`] has brought the tombstone.
    pub dead: Vec<u64>,
    /// Values of some of the live ones.
    pub entries: Vec<Entry>,
}

/// The first eight bytes of an id: enough to see what is worth fetching.
pub fn short_id(id: &Digest) -> u64 {
    id.as_bytes().iter().take(8).fold(0, |n, byte| (n << 8) | u64::from(*byte))
}

/// Why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No room for this key.
    KeyFull,
    /// No room for this publisher.
    PublisherFull,
    /// No room at all.
    Full,
    /// It has expired.
    Expired,
    /// It would be valid for too long.
    TooLong,
    /// The password is not the entry's.
    WrongPassword,
    /// Malformed or forged.
    Invalid,
    /// Too much was asked at once.
    Busy,
    /// A reason that this build does not know.
    Other(String),
}

const REFUSALS: [(&str, Refusal); 8] = [
    ("key-full", Refusal::KeyFull),
    ("publisher-full", Refusal::PublisherFull),
    ("full", Refusal::Full),
    ("expired", Refusal::Expired),
    ("too-long", Refusal::TooLong),
    ("wrong-password", Refusal::WrongPassword),
    ("invalid", Refusal::Invalid),
    ("busy", Refusal::Busy),
];

impl Refusal {
    /// Its name on the wire and in status.
    pub fn code(&self) -> &str {
        match self {
            Refusal::Other(code) => code,
            known => REFUSALS.iter().find(|(_, r)| r == known).map_or("other", |(code, _)| code),
        }
    }
    fn from_code(code: &str) -> Self {
        let known = REFUSALS.iter().find(|(known, _)| *known == code);
        known.map_or_else(|| Refusal::Other(code.chars().take(40).collect()), |(_, refusal)| refusal.clone())
    }
}

/// What an operation is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is kept here now.
    Stored,
    /// It was deleted, now or before.
    Buried(Vec<EntryTombstone>),
    /// There is nothing like that here.
    Missing,
    /// The listing is still the one that the asker knows.
    Same,
    /// What is there.
    Listing(Listing),
    /// Entries and tombstones that were asked for; those that did not fit can be asked for again.
    Fetched {
        /// Live ones.
        entries: Vec<Entry>,
        /// Deleted ones.
        tombstones: Vec<EntryTombstone>,
    },
    /// No, and why.
    Refused(Refusal),
    /// The answering peer does not know the operation, or this build does not know the answer.
    Unsupported,
}

/// A batch of operations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// At most [`OPS_MAX`].
    pub ops: Vec<Op>,
}

/// One answer an operation, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The answers.
    pub answers: Vec<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    #[serde(rename = "k")]
    kind: String,
    #[serde(rename = "b", default, with = "serde_bytes")]
    body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Batch {
    #[serde(rename = "o")]
    items: Vec<Item>,
}

#[derive(Serialize, Deserialize)]
struct EntryRecord {
    #[serde(rename = "t")]
    terms: ByteBuf,
    #[serde(rename = "v")]
    value: Bytes,
}

#[derive(Serialize, Deserialize)]
struct TombstoneRecord {
    #[serde(rename = "t")]
    terms: ByteBuf,
    #[serde(rename = "p")]
    password: Secret,
}

#[derive(Serialize, Deserialize)]
struct ListingRecord {
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    print: Option<Digest>,
    #[serde(rename = "l")]
    live: Vec<(Digest, WallTime)>,
    #[serde(rename = "d")]
    dead: Vec<u64>,
    #[serde(rename = "e")]
    entries: Vec<EntryRecord>,
}

#[derive(Serialize, Deserialize)]
struct FetchedRecord {
    #[serde(rename = "e")]
    entries: Vec<EntryRecord>,
    #[serde(rename = "d")]
    tombstones: Vec<TombstoneRecord>,
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        Self { terms: ByteBuf::from(entry.terms.as_bytes()), value: entry.value.clone() }
    }
}
impl EntryRecord {
    fn verify(self) -> Result<Entry, WireError> {
        Entry::verify(&self.terms, self.value)
    }
}
impl From<&EntryTombstone> for TombstoneRecord {
    fn from(tombstone: &EntryTombstone) -> Self {
        Self { terms: ByteBuf::from(tombstone.terms.as_bytes()), password: tombstone.password.clone() }
    }
}
impl TombstoneRecord {
    fn verify(self) -> Result<EntryTombstone, WireError> {
        EntryTombstone::new(Signed::verify(&self.terms)?, self.password)
    }
}

fn item<T: Serialize>(kind: &str, body: &T) -> Item {
    Item { kind: kind.to_owned(), body: encode(body) }
}

fn bare(kind: &str) -> Item {
    Item { kind: kind.to_owned(), body: Vec::new() }
}

/// What of it verifies: a forged part is as if it had not been sent.
fn verified<R, T>(records: Vec<R>, verify: fn(R) -> Result<T, WireError>) -> Vec<T> {
    records.into_iter().filter_map(|record| verify(record).ok()).collect()
}

fn limited(ids: usize) -> Result<(), WireError> {
    if ids > IDS_MAX {
        return Err(WireError::Malformed { why: format!("it names {ids} entries, at most {IDS_MAX} are read") });
    }
    Ok(())
}

impl Op {
    fn to_item(&self) -> Item {
        match self {
            Op::Put(entry) => item("put", &EntryRecord::from(entry)),
            Op::List(list) => item("list", list),
            Op::Fetch(fetch) => item("fetch", fetch),
            Op::Del(del) => item("del", del),
            Op::Bury(tombstone) => item("bury", &TombstoneRecord::from(tombstone)),
            Op::Unknown { kind } => bare(kind),
            Op::Invalid { .. } => bare("invalid"),
        }
    }
    fn parse(item: Item) -> Result<Self, WireError> {
        Ok(match item.kind.as_str() {
            "put" => Op::Put(decode::<EntryRecord>(&item.body)?.verify()?),
            "list" => {
                let list: List = decode(&item.body)?;
                limited(list.have.len())?;
                Op::List(list)
            }
            "fetch" => {
                let fetch: Fetch = decode(&item.body)?;
                limited(fetch.ids.len())?;
                Op::Fetch(fetch)
            }
            "del" => Op::Del(decode(&item.body)?),
            "bury" => Op::Bury(decode::<TombstoneRecord>(&item.body)?.verify()?),
            _ => Op::Unknown { kind: item.kind.chars().take(40).collect() },
        })
    }
    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        match self {
            Op::Put(entry) => 400 + entry.value.len(),
            Op::List(list) => 120 + 34 * list.have.len(),
            Op::Fetch(fetch) => 60 + 34 * fetch.ids.len(),
            Op::Del(_) | Op::Unknown { .. } | Op::Invalid { .. } => 160,
            Op::Bury(_) => 400,
        }
    }
}

impl Answer {
    fn to_item(&self) -> Item {
        match self {
            Answer::Stored => bare("stored"),
            Answer::Buried(tombstones) => {
                item("buried", &tombstones.iter().map(TombstoneRecord::from).collect::<Vec<_>>())
            }
            Answer::Missing => bare("missing"),
            Answer::Same => bare("same"),
            Answer::Listing(listing) => {
                let entries = listing.entries.iter().map(EntryRecord::from).collect();
                let Listing { print, live, dead, .. } = listing.clone();
                item("listing", &ListingRecord { print, live, dead, entries })
            }
            Answer::Fetched { entries, tombstones } => {
                let entries = entries.iter().map(EntryRecord::from).collect();
                let tombstones = tombstones.iter().map(TombstoneRecord::from).collect();
                item("fetched", &FetchedRecord { entries, tombstones })
            }
            Answer::Refused(refusal) => item("refused", &refusal.code()),
            Answer::Unsupported => bare("unsupported"),
        }
    }
    fn parse(item: Item) -> Result<Self, WireError> {
        Ok(match item.kind.as_str() {
            "stored" => Answer::Stored,
            "buried" => Answer::Buried(verified(decode::<Vec<TombstoneRecord>>(&item.body)?, TombstoneRecord::verify)),
            "missing" => Answer::Missing,
            "same" => Answer::Same,
            "listing" => {
                let ListingRecord { print, live, dead, entries } = decode(&item.body)?;
                limited(live.len().max(dead.len()))?;
                Answer::Listing(Listing { print, live, dead, entries: verified(entries, EntryRecord::verify) })
            }
            "fetched" => {
                let FetchedRecord { entries, tombstones } = decode(&item.body)?;
                let entries = verified(entries, EntryRecord::verify);
                Answer::Fetched { entries, tombstones: verified(tombstones, TombstoneRecord::verify) }
            }
            "refused" => Answer::Refused(Refusal::from_code(&decode::<String>(&item.body)?)),
            _ => Answer::Unsupported,
        })
    }
    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        match self {
            Answer::Buried(tombstones) => 40 + 400 * tombstones.len(),
            Answer::Listing(listing) => {
                let values: usize = listing.entries.iter().map(|e| 400 + e.value.len()).sum();
                100 + 46 * listing.live.len() + 9 * listing.dead.len() + values
            }
            Answer::Fetched { entries, tombstones } => {
                let values: usize = entries.iter().map(|e| 400 + e.value.len()).sum();
                60 + values + 400 * tombstones.len()
            }
            Answer::Stored | Answer::Missing | Answer::Same | Answer::Refused(_) | Answer::Unsupported => 60,
        }
    }
}

fn batch(bytes: &[u8], limit: usize) -> Result<Vec<Item>, WireError> {
    let Batch { items } = decode_within(bytes, limit)?;
    if items.len() > OPS_MAX {
        return Err(WireError::Malformed {
            why: format!("{} operations in one batch, at most {OPS_MAX} are read", items.len()),
        });
    }
    Ok(items)
}

impl Request {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&Batch { items: self.ops.iter().map(Op::to_item).collect() })
    }
    /// The request in `bytes`; operations that are unknown or forged are in it as such.
    ///
    /// # Errors
    /// [`WireError`] when it is no batch, or too large.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let parse = |item| Op::parse(item).unwrap_or_else(|why| Op::Invalid { why });
        Ok(Self { ops: batch(bytes, REQUEST_MAX)?.into_iter().map(parse).collect() })
    }
}

impl Response {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&Batch { items: self.answers.iter().map(Answer::to_item).collect() })
    }
    /// The response in `bytes`, without what is forged in it.
    ///
    /// # Errors
    /// [`WireError`] when it is no batch, or too large.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let parse = |item| Answer::parse(item).unwrap_or(Answer::Unsupported);
        Ok(Self { answers: batch(bytes, RESPONSE_MAX)?.into_iter().map(parse).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let key = PeerKey::from_seed(&[4; 32]);
        let value = Bytes::from_static(b"value");
        Entry::publish(&key, Digest::new([1; 32]), value, &Secret::new([2; 32]), WallTime(9))
    }

    #[test]
    fn every_operation_and_answer_round_trips() {
        let (entry, id) = (entry(), Digest::new([7; 32]));
        let tombstone = EntryTombstone::new(entry.terms().clone(), Secret::new([2; 32])).unwrap();
        let (key, password) = (id, Secret::new([2; 32]));
        let ops = vec![
            Op::Put(entry.clone()),
            Op::List(List { key, values: true, have: vec![id], unless: Some(id) }),
            Op::Fetch(Fetch { key, ids: vec![id], dead_only: true }),
            Op::Del(Del { key, value: id, password }),
            Op::Bury(tombstone.clone()),
        ];
        let request = Request { ops };
        assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        let listing = Listing {
            print: Some(id),
            live: vec![(id, WallTime(3))],
            dead: vec![short_id(&id)],
            entries: vec![entry.clone()],
        };
        let mut answers = vec![
            Answer::Stored,
            Answer::Buried(vec![tombstone.clone()]),
            Answer::Missing,
            Answer::Same,
            Answer::Listing(listing),
            Answer::Fetched { entries: vec![entry], tombstones: vec![tombstone] },
            Answer::Refused(Refusal::Other("later".to_owned())),
            Answer::Unsupported,
        ];
        answers.extend(REFUSALS.iter().map(|(_, refusal)| Answer::Refused(refusal.clone())));
        let response = Response { answers };
        assert_eq!(Response::decode(&response.encode()).unwrap(), response);
    }

    #[test]
    fn an_unknown_operation_is_no_error_of_the_batch() {
        let items = vec![bare("later"), Op::Put(entry()).to_item(), bare("put")];
        let ops = Request::decode(&encode(&Batch { items })).unwrap().ops;
        assert_eq!(ops[0], Op::Unknown { kind: "later".to_owned() });
        assert_eq!(ops[1], Op::Put(entry()));
        assert!(matches!(ops[2], Op::Invalid { .. }));
    }

    #[test]
    fn forged_entries_and_deletions_do_not_decode() {
        let good = entry();
        let terms = ByteBuf::from(good.terms().as_bytes());
        let other_value = EntryRecord { terms: terms.clone(), value: Bytes::from_static(b"other") };
        let mut altered = terms.clone();
        *altered.last_mut().unwrap() ^= 1;
        let altered = EntryRecord { terms: altered, value: good.value().clone() };
        let wrong = TombstoneRecord { terms, password: Secret::new([3; 32]) };
        let items = vec![item("put", &other_value), item("put", &altered), item("bury", &wrong)];
        let ops = Request::decode(&encode(&Batch { items })).unwrap().ops;
        assert!(ops.iter().all(|op| matches!(op, Op::Invalid { .. })), "{ops:?}");
        let fetched = FetchedRecord { entries: vec![other_value, altered], tombstones: vec![wrong] };
        let answers = Response::decode(&encode(&Batch { items: vec![item("fetched", &fetched)] })).unwrap().answers;
        assert_eq!(answers, vec![Answer::Fetched { entries: vec![], tombstones: vec![] }]);
    }

    #[test]
    fn sizes_and_counts_are_bounded() {
        let items = (0..=OPS_MAX).map(|_| bare("list")).collect();
        assert!(Request::decode(&encode(&Batch { items })).is_err());
        assert!(matches!(Request::decode(&vec![1; REQUEST_MAX + 1]), Err(WireError::TooLarge { .. })));
        let key = PeerKey::from_seed(&[4; 32]);
        let large = Bytes::from(vec![0; VALUE_MAX + 1]);
        let large = Entry::publish(&key, Digest::new([1; 32]), large, &Secret::new([2; 32]), WallTime(9));
        assert!(matches!(
            Entry::verify(large.terms().as_bytes(), large.value().clone()),
            Err(WireError::TooLarge { .. })
        ));
    }
}
