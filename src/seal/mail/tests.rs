use std::io::{Read, Write, repeat, sink};

use openpgp::types::SignatureType;
use sequoia_openpgp as openpgp;

use super::*;
use crate::seal::signed_message;

const NOW: WallTime = WallTime(1_700_000_000_000);
const CAP: u64 = 64 << 20;

fn identity(address: &str) -> SecretIdentity {
    SecretIdentity::generate(&address.parse().unwrap(), NOW).unwrap()
}

fn text(length: usize) -> Vec<u8> {
    b"Subject: canary-word\r\n\r\nThe quick brown fox jumps over the lazy dog. "
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn seal(clear: &[u8], from: &SecretIdentity, to: &[&SecretIdentity]) -> Vec<u8> {
    let receivers: Vec<_> = to.iter().map(|r| r.certificate().clone()).collect();
    let mut sealed = Vec::new();
    let read = seal_mail(clear, from, &receivers, &mut sealed, NOW).unwrap();
    assert_eq!(read, u64::try_from(clear.len()).unwrap());
    sealed
}

fn open(sealed: &[u8], me: &SecretIdentity, from: &SecretIdentity) -> Result<Vec<u8>, SealError> {
    let mut clear = Vec::new();
    let opened = open_mail(sealed, me, from.certificate(), CAP, &mut clear)?;
    assert_eq!(opened.length, u64::try_from(clear.len()).unwrap());
    assert_eq!(opened.signed_at, NOW);
    Ok(clear)
}

#[test]
fn every_receiver_opens_the_mail_and_nobody_else_does() {
    let alice = identity("alice@acme");
    let readers = [identity("bob@acme"), identity("carol@beta"), identity("dave@beta")];
    for clear in [vec![], text(1), text(20_000), text(3 << 20), noise(3 << 20)] {
        let sealed = seal(&clear, &alice, &[&readers[0], &readers[1], &readers[2]]);
        for reader in &readers {
            assert_eq!(open(&sealed, reader, &alice).unwrap(), clear);
        }
        assert!(matches!(open(&sealed, &alice, &alice), Err(SealError::NotForMe { .. })));
    }
}

#[test]
fn nothing_of_the_mail_its_sender_or_its_receivers_can_be_seen() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let sealed = seal(&text(50_000), &alice, &[&bob]);
    let key_ids: Vec<Vec<u8>> = [&alice, &bob]
        .iter()
        .flat_map(|id| id.certificate().cert().keys().map(|k| k.key().keyid().as_bytes().to_vec()).collect::<Vec<_>>())
        .collect();
    let words: Vec<&[u8]> = vec![b"canary", b"Subject", b"alice", b"bob", b"acme"];
    for hidden in words.into_iter().chain(key_ids.iter().map(Vec::as_slice)) {
        assert!(!sealed.windows(hidden.len()).any(|w| w == hidden));
    }
}

#[test]
fn a_mail_of_another_sender_is_refused() {
    let (alice, bob, mallory) = (identity("alice@acme"), identity("bob@acme"), identity("mallory@acme"));
    let sealed = seal(&text(5000), &mallory, &[&bob]);
    assert!(matches!(open(&sealed, &bob, &alice), Err(SealError::Signature { .. })));
    let namesake = identity("alice@acme");
    let sealed = seal(&text(5000), &namesake, &[&bob]);
    assert!(matches!(open(&sealed, &bob, &alice), Err(SealError::Signature { .. })));
}

#[test]
fn every_altered_or_missing_byte_is_noticed() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let clear = text(300);
    let sealed = seal(&clear, &alice, &[&bob]);
    for i in 0..sealed.len() {
        let mut altered = sealed.clone();
        altered[i] ^= 0x10;
        let outcome = open(&altered, &bob, &alice);
        // Bits of an encoding that OpenPGP ignores may change; what is believed may not.
        assert!(outcome.is_err() || outcome.unwrap() == clear, "byte {i}");
        assert!(open(&sealed[..i], &bob, &alice).is_err(), "cut at {i}");
    }
    let long = seal(&noise(4 << 20), &alice, &[&bob]);
    for i in [1 << 20, long.len() - 40, long.len() - 1] {
        let mut altered = long.clone();
        altered[i] ^= 1;
        assert!(open(&altered, &bob, &alice).is_err(), "byte {i}");
        assert!(open(&long[..i], &bob, &alice).is_err(), "cut at {i}");
    }
    assert!(open(&[sealed.clone(), sealed].concat(), &bob, &alice).is_err());
}

#[test]
fn a_bomb_is_refused_at_its_bound() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let mut bomb = Vec::new();
    let receivers = [bob.certificate().clone()];
    seal_mail(repeat(0).take(1 << 30), &alice, &receivers, &mut bomb, NOW).unwrap();
    assert!(bomb.len() < 10 << 20, "{}", bomb.len());
    struct Counting(u64);
    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += u64::try_from(bytes.len()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut out = Counting(0);
    let outcome = open_mail(&bomb[..], &bob, alice.certificate(), 10 << 20, &mut out);
    assert!(matches!(outcome, Err(SealError::BombOrTooLarge { limit, .. }) if limit == 10 << 20));
    assert!(out.0 <= 10 << 20);
    let mut signed = Vec::new();
    strip_encryption(&bomb[..], &bob, &mut signed).unwrap();
    let outcome = verify_signed(&signed[..], alice.certificate(), 10 << 20, sink());
    assert!(matches!(outcome, Err(SealError::BombOrTooLarge { .. })));
}

#[test]
fn a_mail_is_compressed_when_that_helps_and_not_else() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    assert!(seal(&text(1 << 20), &alice, &[&bob]).len() < 1 << 17);
    let noise = noise(1 << 20);
    let sealed = seal(&noise, &alice, &[&bob]);
    assert!(sealed.len() < noise.len() + noise.len() / 100, "{}", sealed.len());
    let base64: Vec<u8> = noise
        .iter()
        .map(|byte| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[usize::from(byte % 64)])
        .collect();
    let twice = base64[..SAMPLED / 8].repeat(8);
    let again = base64[..8_000].chunks(8).flat_map(|eight| [eight, &eight[..6]].concat()).collect::<Vec<_>>();
    assert_eq!(
        [way(&[]), way(&noise), way(&text(300_000)), way(&text(900)), way(&base64), way(&base64[..9_000])],
        [None, None, Some(LONG), Some(SHORT), Some(Way::Letters), Some(Way::Letters)]
    );
    assert_eq!([way(&twice), way(&again), way(&base64[..3_000])], [Some(LONG), Some(SHORT), Some(SHORT)]);
    assert!(seal(&base64, &alice, &[&bob]).len() < base64.len() * 76 / 100);
}

#[test]
fn the_signed_packet_proves_later_who_wrote_the_mail() {
    let (alice, bob, mallory) = (identity("alice@acme"), identity("bob@acme"), identity("mallory@acme"));
    for clear in [text(100), text(3 << 20), noise(3 << 20)] {
        let sealed = seal(&clear, &alice, &[&bob, &mallory]);
        let mut packet = Vec::new();
        let length = strip_encryption(&sealed[..], &bob, &mut packet).unwrap();
        assert_eq!(length, u64::try_from(packet.len()).unwrap());
        let mut proved = Vec::new();
        let opened = verify_signed(&packet[..], alice.certificate(), CAP, &mut proved).unwrap();
        assert_eq!((proved, opened.signed_at), (clear, NOW));
        assert!(verify_signed(&packet[..], mallory.certificate(), CAP, sink()).is_err());
        let middle = packet.len() / 2;
        packet[middle] ^= 1;
        assert!(verify_signed(&packet[..], alice.certificate(), CAP, sink()).is_err());
    }
}

#[test]
fn what_peers_never_write_is_refused_unread() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let unsigned = packets::tests_only_encrypt(&packets::tests_only_literal(b"hello"), bob.certificate());
    assert!(matches!(open(&unsigned, &bob, &alice), Err(SealError::Signature { .. })));
    let marker = packets::tests_only_encrypt(&[0xca, 3, b'P', b'G', b'P'], bob.certificate());
    assert!(matches!(open(&marker, &bob, &alice), Err(SealError::Malformed { .. })));
    assert!(open(b"", &bob, &alice).is_err() && open(b"plain text", &bob, &alice).is_err());
    let mut signed = Vec::new();
    strip_encryption(&seal(&text(10), &alice, &[&bob])[..], &bob, &mut signed).unwrap();
    assert!(open(&signed, &bob, &alice).is_err(), "not encrypted");
    assert!(strip_encryption(&signed[..], &bob, sink()).is_err());
    let sealed = seal(&text(10), &alice, &[&bob]);
    for more in [&sealed[..], &signed[..], &[0xca, 3, b'P', b'G', b'P']] {
        let outcome = strip_encryption(&[&sealed[..], more].concat()[..], &bob, sink());
        assert!(matches!(outcome, Err(SealError::Malformed { .. })), "something follows: {outcome:?}");
    }
}

#[test]
fn what_could_not_be_proven_later_is_refused() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    for (kind, note, is_proven) in
        [(SignatureType::Binary, 100, true), (SignatureType::Text, 100, false), (SignatureType::Binary, 20_000, false)]
    {
        let signed = packets::tests_only_signed(b"hens\n", &alice, kind, note);
        let sealed = packets::tests_only_encrypt(&signed, bob.certificate());
        let mut clear = Vec::new();
        let opened = open_mail(&sealed[..], &bob, alice.certificate(), CAP, &mut clear);
        assert_eq!(opened.is_ok(), is_proven, "{opened:?}");
        let Ok(opened) = opened else {
            assert!(matches!(opened, Err(SealError::Signature { .. })), "{opened:?}");
            continue;
        };
        let again = signed_message(&opened.signature, &clear[..], 5).unwrap();
        assert!(verify_signed(again, alice.certificate(), CAP, sink()).is_ok());
    }
}

#[test]
fn a_failing_disk_is_never_blamed_on_the_mail() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is on fire"))
        }
    }
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let sealed = seal(&noise(3 << 20), &alice, &[&bob]);
    for good in [0, 10, 1000, 2 << 20] {
        let outcome = open_mail(sealed[..good].chain(Failing), &bob, alice.certificate(), CAP, sink());
        assert!(matches!(outcome, Err(SealError::Io { .. })), "{good}: {outcome:?}");
        let outcome = strip_encryption(sealed[..good].chain(Failing), &bob, sink());
        assert!(matches!(outcome, Err(SealError::Io { .. })), "{good}: {outcome:?}");
    }
    let clear = text(10);
    let receivers = [bob.certificate().clone()];
    assert!(matches!(seal_mail(clear.chain(Failing), &alice, &receivers, sink(), NOW), Err(SealError::Io { .. })));
}

#[test]
fn a_full_disk_is_said_with_what_helps() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let sealed = seal(&noise(3 << 20), &alice, &[&bob]);
    let opened = open_mail(&sealed[..], &bob, alice.certificate(), CAP, Full).map(|_| ());
    let stripped = strip_encryption(&sealed[..], &bob, Full).map(|_| ());
    let again = seal_mail(&text(10)[..], &alice, &[bob.certificate().clone()], Full, NOW).map(|_| ());
    for outcome in [opened, stripped, again] {
        let said = outcome.unwrap_err().to_string();
        assert!(said.contains("free some space") && !said.contains("check the disk"), "{said}");
    }
}

#[test]
fn nobody_or_too_many_to_seal_to_is_an_error() {
    let alice = identity("alice@acme");
    let to = |count| seal_mail(&b"x"[..], &alice, &vec![alice.certificate().clone(); count], sink(), NOW);
    assert!(matches!(to(0), Err(SealError::Receivers { count: 0, .. })));
    assert!(matches!(to(1001), Err(SealError::Receivers { .. })));
    assert!(to(100).is_ok());
}

#[test]
fn a_sender_whose_clock_was_put_back_is_still_believed() {
    let (alice, bob) = (identity("alice@acme"), identity("bob@acme"));
    let mut sealed = Vec::new();
    let past = WallTime(NOW.0 - 30 * 24 * 3_600_000);
    seal_mail(&b"x"[..], &alice, &[bob.certificate().clone()], &mut sealed, past).unwrap();
    open_mail(&sealed[..], &bob, alice.certificate(), CAP, sink()).unwrap();
}
