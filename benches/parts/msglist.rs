//! The msglist: entries as bytes in their chain, and a page of them checked by a member.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use roost::model::msglist::{Cursor, Entry, EntryBody, Epoch, Head, MailEntry, Seq};
use roost::model::{Digest, Encoding, MailId, WallTime};
use roost::wire::PeerKey;
use roost::wire::msglist::{Run, chain_next, chain_start, encode_entry};
use serde_bytes::ByteBuf;

/// Entries of a page.
const ENTRIES: u64 = 1000;
/// Bytes that an owner seals to itself with each mail, about.
const FOR_OWNER: usize = 500;

fn entry(seq: u64) -> Entry {
    let mut h = [0; 20];
    h[..8].copy_from_slice(&seq.to_be_bytes());
    let body = EntryBody::Mail(MailEntry {
        h: MailId::new(h),
        length: 100_000,
        digest: Digest::new([9; 32]),
        expiry: WallTime(1_760_000_000_000),
        encoding: Encoding::Fragments { k: 3, n: 5 },
        for_owner: vec![5; FOR_OWNER],
    });
    Entry { at: Cursor { epoch: Epoch(1), seq: Seq(seq) }, body }
}

/// An owner adds an entry; a member checks a page of a thousand.
pub(crate) fn msglist(criterion: &mut Criterion) {
    let key = PeerKey::from_seed(&[1; 32]);
    let start = chain_start(&key.peer_id(), Epoch(1));
    let entries: Vec<ByteBuf> = (1..=ENTRIES).map(|seq| ByteBuf::from(encode_entry(&entry(seq)))).collect();
    let chain = entries.iter().fold(start, |chain, bytes| chain_next(&chain, bytes));
    let at = Cursor { epoch: Epoch(1), seq: Seq(ENTRIES) };
    let head = Head { owner: key.peer_id(), at, chain, base_seq: Seq(0), base_chain: start };
    let signed = ByteBuf::from(key.sign(head.clone()).as_bytes().to_vec());
    let run = Run { entries, after: Seq(0), head: signed, base: None };
    let verified = run.verify(&key.peer_id(), None).expect("it is right");
    assert_eq!(verified.entries.last().map(|(last, _)| last), Some(&entry(ENTRIES)));

    let mut group = criterion.benchmark_group("msglist");
    let one = entry(7);
    group.bench_function("add an entry", |b| b.iter(|| chain_next(&start, &encode_entry(black_box(&one)))));
    group.bench_function("sign a head", |b| b.iter(|| key.sign(black_box(head.clone()))));
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("check a page of 1000", |b| {
        b.iter(|| black_box(&run).verify(&key.peer_id(), None).expect("it is right"));
    });
    group.finish();
}
