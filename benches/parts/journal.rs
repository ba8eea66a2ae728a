//! The journal: appends that are on the disk when they return.

use criterion::{BenchmarkId, Criterion, Throughput};
use roost::store::journal::{Journal, Record};

/// Bytes of an event, about.
const EVENT: usize = 300;

fn append(journal: &Journal, count: u64) {
    let waiting: Vec<_> = (0..count)
        .map(|_| journal.append_waiting(vec![Record::new("bench", vec![7; EVENT])]).expect("it is taken"))
        .collect();
    for durable in waiting {
        durable.wait().expect("it is written");
    }
}

/// One append alone, and a hundred that share a commit.
pub(crate) fn journal(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    {
        let (journal, _) = Journal::open(dir.path()).expect("a journal");
        append(&journal, 100);
    }
    let (journal, replay) = Journal::open(dir.path()).expect("a journal");
    let found = replay.filter(|record| record.as_ref().is_ok_and(|record| record.event.len() == EVENT)).count();
    assert_eq!(found, 100, "what was appended is there");
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(20);
    for count in [1u64, 100] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("durable appends", count), |b| b.iter(|| append(&journal, count)));
    }
    group.finish();
}
