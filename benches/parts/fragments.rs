//! Encoding and rebuilding one stripe, beside the Reed-Solomon crate alone on buffers that stay in cache; and a whole manifest.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use reed_solomon_erasure::galois_8::ReedSolomon;
use roost::fragment::{Code, Codec, MailName, ManifestBuilder, check_manifest};
use roost::model::{Encoding, PeerId};

use crate::noise;

/// Bytes of a block.
const BLOCK: usize = 64 * 1024;
/// Any k of n: the default, and what a group of fifteen might take.
const CODES: [(u8, u8); 2] = [(3, 5), (10, 14)];

type Blocks = Vec<Vec<u8>>;

fn data(k: u8) -> Blocks {
    noise(usize::from(k) * BLOCK).chunks(BLOCK).map(<[u8]>::to_vec).collect()
}

fn room(count: u8) -> Blocks {
    vec![vec![0; BLOCK]; usize::from(count)]
}

fn raw(k: u8, n: u8) -> ReedSolomon {
    ReedSolomon::new(k.into(), (n - k).into()).expect("a code that exists")
}

fn hash(blocks: &[Vec<u8>]) {
    for block in blocks {
        black_box(blake3::hash(block));
    }
}

/// Parity of one stripe: the crate alone, ours, and ours with the digest of every block.
pub(crate) fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (k, n) in CODES {
        let (raw, ours, data) = (raw(k, n), Code::new(k, n).expect("a code that exists"), data(k));
        let (mut by_raw, mut by_ours) = (room(n - k), room(n - k));
        raw.encode_sep(&data, &mut by_raw).expect("it encodes");
        ours.encode_into(&data, &mut by_ours).expect("it encodes");
        assert!(by_raw == by_ours, "both make the same parity");
        let name = format!("{k} of {n}");
        group.throughput(Throughput::Bytes(u64::from(k) * 65_536));
        group.bench_function(BenchmarkId::new("raw crate", &name), |b| {
            b.iter(|| raw.encode_sep(black_box(&data), &mut by_raw).expect("it encodes"));
        });
        group.bench_function(BenchmarkId::new("code", &name), |b| {
            b.iter(|| ours.encode_into(black_box(&data), &mut by_ours).expect("it encodes"));
        });
        group.bench_function(BenchmarkId::new("code and digests", &name), |b| {
            b.iter(|| {
                ours.encode_into(black_box(&data), &mut by_ours).expect("it encodes");
                hash(&data);
                hash(&by_ours);
            });
        });
    }
    group.finish();
}

/// The lost data blocks of one stripe, as many as may be lost: the crate alone, ours, and ours with the digest of every block
/// that is used or made.
pub(crate) fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebuild");
    for (k, n) in CODES {
        let (raw, ours, data) = (raw(k, n), Code::new(k, n).expect("a code that exists"), data(k));
        let parity = ours.encode(&data).expect("it encodes");
        let lost = n - k;
        let wanted: Vec<u8> = (0..lost.min(k)).collect();
        let all: Vec<(u8, &Vec<u8>)> = (0..n).zip(data.iter().chain(&parity)).collect();
        let have: Vec<(u8, &Vec<u8>)> = all.iter().filter(|(i, _)| !wanted.contains(i)).copied().collect();
        let mut shards: Vec<(Vec<u8>, bool)> =
            all.iter().map(|(i, block)| ((*block).clone(), !wanted.contains(i))).collect();
        let lose = |shards: &mut Vec<(Vec<u8>, bool)>| {
            wanted.iter().for_each(|i| shards[usize::from(*i)].1 = false);
        };
        for i in &wanted {
            shards[usize::from(*i)].0.fill(0);
        }
        raw.reconstruct_data(&mut shards).expect("it rebuilds");
        let mut made = room(u8::try_from(wanted.len()).expect("few"));
        ours.rebuild_into(&have, &wanted, &mut made).expect("it rebuilds");
        for (i, block) in wanted.iter().zip(&made) {
            let i = usize::from(*i);
            assert!(*block == data[i] && shards[i].0 == data[i], "both rebuild what was lost");
        }
        let name = format!("{k} of {n}, {} lost", wanted.len());
        group.throughput(Throughput::Bytes(u64::from(k) * 65_536));
        group.bench_function(BenchmarkId::new("raw crate", &name), |b| {
            b.iter(|| {
                lose(&mut shards);
                raw.reconstruct_data(black_box(&mut shards)).expect("it rebuilds");
            });
        });
        group.bench_function(BenchmarkId::new("code", &name), |b| {
            b.iter(|| ours.rebuild_into(black_box(&have), &wanted, &mut made).expect("it rebuilds"));
        });
        group.bench_function(BenchmarkId::new("code and digests", &name), |b| {
            b.iter(|| {
                have.iter().take(usize::from(k)).for_each(|(_, block)| {
                    black_box(blake3::hash(block));
                });
                ours.rebuild_into(black_box(&have), &wanted, &mut made).expect("it rebuilds");
                hash(&made);
            });
        });
    }
    group.finish();
}

/// Everything that is computed of a sealed mail when it is named: SHA-1, BLAKE3 of the whole and of every block, parity.
pub(crate) fn manifest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifest");
    let (codec, mail) = (Codec::default(), noise(16 << 20));
    for (name, encoding) in [("whole", Encoding::Whole), ("3 of 5", Encoding::Fragments { k: 3, n: 5 })] {
        let make = || ManifestBuilder::from_reader(mail.as_slice(), PeerId::new([1; 32]), encoding, &codec);
        let made = make().expect("a manifest");
        check_manifest(&made, &MailName::of(&made)).expect("it fits itself");
        assert_eq!(made.digest.as_bytes(), blake3::hash(&mail).as_bytes());
        group.throughput(Throughput::Bytes(16 << 20));
        group.bench_function(BenchmarkId::new("16 MiB", name), |b| b.iter(|| make().expect("a manifest")));
    }
    group.finish();
}
