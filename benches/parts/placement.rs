//! Who holds which part of one mail: at first, and once a holder is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use roost::core::placement::{Held, Place};
use roost::model::{Encoding, MailId, Part, PeerId};

/// Placing one mail 3 of 5 in groups of several sizes.
pub(crate) fn placement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    let encoding = Encoding::Fragments { k: 3, n: 5 };
    for size in [6u8, 20, 100] {
        let members: Vec<PeerId> = (1..size).map(|x| PeerId::new([x; 32])).collect();
        let (h, nobody) = (MailId::new([7; 20]), BTreeSet::new());
        let place = Place { h: &h, encoding, whole_copies: 3, members: &members, lost: &nobody };
        let first: BTreeMap<PeerId, Part> = place.assign(&Held::new());
        let held: Held = first.iter().map(|(member, part)| (*member, BTreeSet::from([*part]))).collect();
        let lost: BTreeSet<PeerId> = first.keys().take(1).copied().collect();
        let after = Place { lost: &lost, ..place };
        let moved = after.assign(&held).iter().filter(|(member, part)| first.get(member) != Some(part)).count();
        assert_eq!((first.len(), moved), (5, usize::from(size > 6)), "only what was lost moves, if anybody is spare");
        group.bench_function(BenchmarkId::new("first", size), |b| b.iter(|| black_box(place).assign(&Held::new())));
        group.bench_function(BenchmarkId::new("one lost", size), |b| b.iter(|| black_box(after).assign(&held)));
    }
    group.finish();
}
