//! What the parts of a peer cost on one thread, measured with Criterion. See benches/README.md; it never starts a peer.

mod fragments;
mod journal;
mod msglist;
mod placement;
mod seal;

use std::time::Duration;

use criterion::Criterion;

/// Bytes that do not compress, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"benches").finalize_xof().fill(&mut bytes);
    bytes
}

fn main() {
    let quick = Criterion::default().sample_size(40).warm_up_time(Duration::from_secs(1));
    let mut criterion = quick.measurement_time(Duration::from_secs(3)).configure_from_args();
    fragments::encode(&mut criterion);
    fragments::rebuild(&mut criterion);
    fragments::manifest(&mut criterion);
    seal::seal_and_open(&mut criterion);
    placement::placement(&mut criterion);
    msglist::msglist(&mut criterion);
    journal::journal(&mut criterion);
    criterion.final_summary();
}
