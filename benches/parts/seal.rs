//! Sealing and opening a mail, in memory.

use std::hint::black_box;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{BenchmarkId, Criterion, Throughput};
use roost::model::WallTime;
use roost::seal::{SecretIdentity, open_mail, seal_mail};

use crate::noise;

const NOW: WallTime = WallTime(1_760_000_000_000);

fn identity(address: &str) -> SecretIdentity {
    SecretIdentity::generate(&address.parse().expect("an address"), NOW).expect("keys")
}

/// A mail that is what most bytes of mail are: base64 of something that does not compress.
fn attachment(len: usize) -> Vec<u8> {
    let text = STANDARD.encode(noise(len / 4 * 3));
    let lines: Vec<&str> = (0..text.len()).step_by(76).map(|at| &text[at..text.len().min(at + 76)]).collect();
    format!("From: alice@acme\r\nTo: rita@readers\r\n\r\n{}\r\n", lines.join("\r\n")).into_bytes()
}

/// Words, as in a letter.
fn words(len: usize) -> Vec<u8> {
    let line = b"We meet at the roost at nine, and whoever comes late brings the bread.\r\n";
    let mut mail = b"From: alice@acme\r\nTo: rita@readers\r\n\r\n".to_vec();
    for (n, byte) in noise(len / line.len()).into_iter().enumerate() {
        mail.extend_from_slice(format!("{n} {byte} ").as_bytes());
        mail.extend_from_slice(line);
    }
    mail
}

/// Seal and open, for one receiver and the owner.
pub(crate) fn seal_and_open(criterion: &mut Criterion) {
    let (alice, rita) = (identity("alice@acme"), identity("rita@readers"));
    let receivers = [rita.certificate().clone(), alice.certificate().clone()];
    let mails = [
        ("10 KiB of words", words(10 << 10)),
        ("1 MiB of base64", attachment(1 << 20)),
        ("8 MiB that do not compress", noise(8 << 20)),
    ];
    let seal = |mail: &[u8], out: &mut Vec<u8>| seal_mail(mail, &alice, &receivers, out, NOW).expect("it seals");
    for (name, mail) in &mails {
        let cap = u64::try_from(mail.len()).expect("short");
        let (mut sealed, mut opened) = (Vec::new(), Vec::new());
        seal(mail, &mut sealed);
        open_mail(sealed.as_slice(), &rita, alice.certificate(), cap, &mut opened).expect("it opens");
        assert!(opened == *mail, "what was sealed is opened");
        let mut group = criterion.benchmark_group("seal");
        group.throughput(Throughput::Bytes(cap)).sample_size(20);
        let mut out = Vec::with_capacity(sealed.len() + 4096);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                out.clear();
                seal(black_box(mail), &mut out)
            });
        });
        group.finish();
        let mut group = criterion.benchmark_group("open");
        group.throughput(Throughput::Bytes(cap)).sample_size(20);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                open_mail(black_box(sealed.as_slice()), &rita, alice.certificate(), cap, io::sink()).expect("it opens")
            });
        });
        group.finish();
    }
}
