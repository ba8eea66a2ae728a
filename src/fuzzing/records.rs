//! Targets for the records that peers sign with their PeerId key. A fuzzer cannot forge a signature, so behind the second door of
//! each the payload is the input and a key of the target's own signs it: what a hostile peer would do.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use crate::fragment::{MailName, check_manifest, verify_block};
use crate::model::Digest;
use crate::model::dht::EntryTerms;
use crate::model::group::View;
use crate::model::holding::Holdings;
use crate::model::manifest::Manifest;
use crate::model::msglist::{Cursor, Entry, EntryBody, Epoch, Head, MailEntry, Seq, Tombstone};
use crate::net::fuzzed::dht_frames;
use crate::wire::dht::{Answer, Op, Request, Response};
use crate::wire::laws::{decodes, door, encodes_and_decodes};
use crate::wire::msglist::{Page, Run, chain_next, chain_start, decode_entry, encode_entry};
use crate::wire::{PeerKey, Signed, SignedRecord, decode, encode};

/// The key that the fixtures of earlier versions are signed with.
pub(super) fn owner() -> PeerKey {
    PeerKey::from_seed(&[7; 32])
}

/// As `wire::signed` writes it.
#[derive(Serialize)]
struct Container<'a> {
    #[serde(rename = "p", with = "serde_bytes")]
    payload: &'a [u8],
    #[serde(rename = "s", with = "serde_bytes")]
    signature: &'a [u8],
}

/// `payload` as a record of `kind`, signed by [`owner`].
fn signed(kind: &str, payload: &[u8]) -> Vec<u8> {
    encode(&Container { payload, signature: &owner().sign_bytes(kind, payload) })
}

/// A payload that [`owner`] signed is a record exactly when it decodes and names that peer; then it says what it said.
fn signed_by_owner<T>(payload: &[u8]) -> Option<Signed<T>>
where
    T: SignedRecord + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let value = decode::<T>(payload).ok().filter(|value| *value.signer() == owner().peer_id());
    let verified = Signed::<T>::verify(&signed(T::KIND, payload)).ok();
    assert_eq!(verified.as_deref(), value.as_ref());
    if let Some(value) = &value {
        encodes_and_decodes(value);
    }
    verified
}

/// Whatever is believed without a signature by whoever wrote it: the bytes of a signed record.
fn raw_records(bytes: &[u8]) {
    let _ = Signed::<Tombstone>::verify(bytes);
    let _ = Signed::<Head>::verify(bytes);
    let _ = Signed::<Holdings>::verify(bytes);
    let _ = Signed::<View>::verify(bytes);
    let _ = Signed::<EntryTerms>::verify(bytes);
}

/// A page of a msglist, an entry, and a run of entries under a head that fits them.
pub fn msglist(data: &[u8]) {
    let Some((which, rest)) = door(data, 4) else { return };
    match which {
        0 => {
            let Some(page) = decodes::<Page>(rest) else { return };
            for run in &page.runs {
                run_is_proved(run);
            }
            page.tombstones.iter().for_each(|bytes| raw_records(bytes));
        }
        1 => entry_is_kept(rest),
        2 => entries_under_a_head(rest),
        _ => {
            signed_by_owner::<Head>(rest);
            signed_by_owner::<Tombstone>(rest);
            signed_by_owner::<Holdings>(rest);
            signed_by_owner::<View>(rest);
            raw_records(rest);
        }
    }
}

/// A run that is believed leads from where it starts to its head, without a gap.
fn run_is_proved(run: &Run) {
    let owner = owner().peer_id();
    for known in [None, Some(Digest::new([3; 32]))] {
        let Ok(verified) = run.verify(&owner, known.as_ref()) else { continue };
        let (mut chain, mut seq) = (verified.before, run.after);
        for (entry, bytes) in &verified.entries {
            (chain, seq) = (chain_next(&chain, bytes), seq.next());
            assert_eq!(entry.at, Cursor { epoch: verified.head.at.epoch, seq });
        }
        assert_eq!((chain, seq), (verified.head.chain, verified.head.at.seq));
    }
}

/// An entry that is read is passed on as what reads as it again.
fn entry_is_kept(bytes: &[u8]) {
    let Ok(entry) = decode_entry(bytes) else { return };
    let again = encode_entry(&entry);
    assert_eq!(decode_entry(&again).unwrap(), entry);
    if let EntryBody::Mail(mail) = &entry.body {
        encodes_and_decodes::<MailEntry>(mail);
    }
}

/// Bodies of entries, each behind its length, put into a list that is then signed: it verifies, and gives each back.
fn entries_under_a_head(mut rest: &[u8]) {
    let (key, epoch) = (owner(), Epoch(7));
    let mut chain = chain_start(&key.peer_id(), epoch);
    let (mut entries, mut bytes, mut seq) = (Vec::new(), Vec::new(), Seq(0));
    while let Some((head, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(head[1]).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        seq = seq.next();
        let kind = ["mail", "tombstone", "later"][usize::from(head[0] % 3)].to_owned();
        let unknown = Entry { at: Cursor { epoch, seq }, body: EntryBody::Unknown { kind, body: body.to_vec() } };
        let encoded = encode_entry(&unknown);
        chain = chain_next(&chain, &encoded);
        entries.push(decode_entry(&encoded).unwrap());
        bytes.push(ByteBuf::from(encoded));
    }
    let start = chain_start(&key.peer_id(), epoch);
    let at = Cursor { epoch, seq };
    let head = key.sign(Head { owner: key.peer_id(), at, chain, base_seq: Seq(0), base_chain: start });
    let run = Run { entries: bytes, after: Seq(0), head: ByteBuf::from(head.as_bytes()), base: None };
    let verified = run.verify(&key.peer_id(), None).unwrap();
    assert!(verified.entries.iter().map(|(entry, _)| entry).eq(&entries));
    let page = Page { runs: vec![run], more: false, tombstones: Vec::new() };
    encodes_and_decodes(&page);
}

/// A manifest: one that is believed has a digest for every block, and its geometry covers the mail to the byte.
pub fn manifest(data: &[u8]) {
    let Some((which, rest)) = door(data, 2) else { return };
    let manifest = match which {
        0 => Signed::<Manifest>::verify(rest).ok(),
        _ => signed_by_owner::<Manifest>(rest),
    };
    let Some(manifest) = manifest else { return };
    let Ok(layout) = check_manifest(&manifest, &MailName::of(&manifest)) else {
        assert!(verify_block(&manifest, 0, 0, &[]).is_err());
        return;
    };
    let stripes = layout.stripes();
    for stripe in [0, 1, stripes / 2, stripes.saturating_sub(1), stripes, u64::MAX] {
        let blocks = (0..layout.k()).map(|i| layout.block_range_in_mail(stripe, i));
        let whole = layout.stripe_range_in_mail(stripe);
        let covered: u64 = blocks.map(|range| range.end - range.start).sum();
        assert_eq!(covered, whole.end - whole.start, "stripe {stripe} of {layout:?}");
        for i in [0, layout.n() - 1, layout.n(), u8::MAX] {
            assert!(verify_block(&manifest, stripe, i, b"not this block").is_err());
        }
    }
    for at in [0, layout.length() / 2, layout.length().saturating_sub(1), layout.length()] {
        let block = layout.block_at(at);
        assert_eq!(block.is_some(), at < layout.length());
        assert!(block.is_none_or(|(stripe, i)| layout.block_range_in_mail(stripe, i).contains(&at)));
    }
}

/// `/roost/dht/1`: requests, responses, their frames, and entries whose terms are well signed.
pub fn dht(data: &[u8]) {
    let Some((which, rest)) = door(data, 5) else { return };
    match which {
        0 => drop(Request::decode(rest).map(|request| request_again(&request))),
        1 => drop(Response::decode(rest).map(|response| response_again(&response))),
        2 => dht_frames(rest),
        3 => drop(signed_by_owner::<EntryTerms>(rest)),
        // Bodies of operations and answers without the batch around them, each under every name.
        _ => {
            for kind in ["put", "list", "fetch", "del", "bury"] {
                drop(Request::decode(&batch_of(kind, rest)).map(|request| request_again(&request)));
            }
            for kind in ["buried", "listing", "fetched", "refused"] {
                drop(Response::decode(&batch_of(kind, rest)).map(|response| response_again(&response)));
            }
        }
    }
}

/// As `wire::dht` writes one item of a batch.
fn batch_of(kind: &str, body: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Item<'a> {
        k: &'a str,
        #[serde(with = "serde_bytes")]
        b: &'a [u8],
    }
    #[derive(Serialize)]
    struct Batch<'a> {
        o: [Item<'a>; 1],
    }
    encode(&Batch { o: [Item { k: kind, b: body }] })
}

/// What can be sent comes out as it went in; what is invalid cannot.
fn request_again(request: &Request) {
    let ops = request.ops.iter().filter(|op| !matches!(op, Op::Invalid { .. } | Op::Unknown { .. }));
    let sent = Request { ops: ops.cloned().collect() };
    assert!(sent.ops.iter().all(|op| op.size() > 0));
    assert_eq!(Request::decode(&sent.encode()).unwrap(), sent);
}

fn response_again(response: &Response) {
    assert!(response.answers.iter().map(Answer::size).all(|size| size > 0));
    assert_eq!(&Response::decode(&response.encode()).unwrap(), response);
}
