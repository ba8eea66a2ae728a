//! A mailing to a hundred, and Bcc: what lies in the outbox, to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use roost::actors::identity::Identity;
use roost::clock::system_wall;
use roost::console::protocol::{OutboxLine, Request};
use roost::model::card::{Card, CardPeer};
use roost::model::group::{GroupDescriptor, Member, PeerAddr};
use roost::model::notification::{Nr, Outcome};
use roost::model::{Address, MailId, Policy};
use roost::seal::{Certificate, SealError, SecretIdentity, open_mail, seal_nr, sign_gd};
use roost::wire::PeerKey;
use roost::wire::notify::Notice;
use serde_json::Value;

use crate::harness::hostile::{Hostile, peer_id};
use crate::harness::{Letter, Mail, Team, wait_for};

const CROWD: usize = 100;

/// A group of a hundred, of whom only the first can be reached: the test plays it.
struct Crowd {
    members: BTreeMap<Address, Arc<SecretIdentity>>,
    first: Hostile,
}

impl Crowd {
    /// Founded; alice has the card of its first member and everybody's certificate.
    fn known_to_alice(team: &Team) -> Self {
        let mut first = Hostile::stranger(team, "r00@crowd");
        let group_key = SecretIdentity::generate_group(&"crowd".parse().unwrap(), system_wall()).unwrap();
        let mut members = BTreeMap::from([(first.address.clone(), first.openpgp.clone())]);
        let mut named = vec![Member {
            address: first.address.clone(),
            peer_id: first.key.peer_id(),
            fingerprint: first.openpgp.fingerprint(),
        }];
        for n in 1..CROWD {
            let address: Address = format!("r{n:02}@crowd").parse().unwrap();
            let openpgp = Arc::new(SecretIdentity::generate(&address, system_wall()).unwrap());
            let seed = [u8::try_from(n).unwrap(); 32];
            let (peer_id, fingerprint) = (PeerKey::from_seed(&seed).peer_id(), openpgp.fingerprint());
            named.push(Member { address: address.clone(), peer_id, fingerprint });
            members.insert(address, openpgp);
        }
        let gd = GroupDescriptor {
            group: "crowd".parse().unwrap(),
            version: 1,
            members: named,
            policy: Policy::default(),
            key_holders: [first.address.clone()].into(),
            min_protocol: 1,
            group_certificate: group_key.certificate().as_bytes().to_vec(),
            at: system_wall(),
            handovers: Vec::new(),
            built_on: Vec::new(),
            leaving: BTreeSet::new(),
        };
        let signed = sign_gd(gd, &group_key, system_wall()).unwrap();
        {
            let mut told = first.lies.told();
            told.gd = Some(Bytes::copy_from_slice(signed.as_bytes()));
            let certificate = |one: &SecretIdentity| Bytes::copy_from_slice(one.certificate().as_bytes());
            told.certificates = members.iter().map(|(address, one)| (address.clone(), certificate(one))).collect();
        }
        let https = first.serve();
        let addrs = vec![PeerAddr { host: "127.0.0.1".to_owned(), https, libp2p: 0 }];
        let peers = vec![CardPeer { peer_id: first.key.peer_id(), addrs }];
        let card = Card { address: first.address.clone(), group_key: group_key.fingerprint(), peers };
        let card = roost::wire::code::to_line(&card);
        let _: Value = team.ask("alice", &Request::ContactAdd { card });
        wait_for("alice has a hundred certificates", || {
            let pins = team.status("alice").brains["group"]["pins"].clone();
            let crowd = pins.as_array()?.iter().find(|pin| pin["group"] == "crowd")?.clone();
            (crowd["certificates"] == CROWD).then_some(())
        });
        Self { members, first }
    }
}

/// The sealed mail as anybody gets it who knows its name.
fn sealed_bytes(by: &Hostile, team: &Team, h: &MailId, length: u64) -> Bytes {
    let (alice, limit) = (peer_id(team, "alice"), usize::try_from(length).unwrap());
    by.asks(async |client| client.get_sealed(alice, h, None).await?.collect(limit).await).unwrap()
}

fn opened(sealed: &[u8], reader: &SecretIdentity, sender: &Certificate) -> Result<Vec<u8>, SealError> {
    let mut clear = Vec::new();
    open_mail(sealed, reader, sender, 1 << 20, &mut clear).map(|_| clear)
}

#[test]
fn a_mailing_to_100_is_one_sealed_file_with_one_ns_each_and_is_freed_by_the_last_nr() {
    let team = Team::of_two();
    let crowd = Crowd::known_to_alice(&team);
    let everybody: Vec<Address> = crowd.members.keys().cloned().collect();
    let to: Vec<String> = everybody.iter().map(ToString::to_string).collect();
    let bytes = format!(
        "From: alice@acme\r\nTo: {}\r\nSubject: to all\r\nMessage-ID: <all@acme>\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\n{}",
        to.join(",\r\n "),
        "Hello all of you.\r\n".repeat(3000)
    );
    let letter = Letter { id: "<all@acme>".to_owned(), bytes: bytes.into_bytes() };
    let begin = tokio::time::Instant::now();
    let mail = team.submit_to("alice", &everybody, letter);
    let taken = begin.elapsed();
    let sealed = wait_for("it is sealed", || team.outbox_line(&mail)?.sealed.first().cloned());
    let sealed_after = begin.elapsed();
    wait_for("everybody is told, or the DHT for them", || {
        let line = team.outbox_line(&mail)?;
        line.receivers.values().all(|state| state == "announced").then_some(())
    });
    eprintln!(
        "100 receivers: 250 after {taken:?}, sealed after {sealed_after:?}, all announced after {:?}",
        begin.elapsed()
    );
    assert_eq!(team.outbox_line(&mail).unwrap().sealed.len(), 1);
    assert_eq!(team.home("alice").outbox_mails().unwrap().len(), 1, "one file");

    let alice = Identity::load(&team.home("alice")).unwrap().openpgp;
    let blob = sealed_bytes(&crowd.first, &team, &sealed.h, sealed.length);
    for (address, reader) in &crowd.members {
        let clear = opened(&blob, reader, alice.certificate()).unwrap_or_else(|e| panic!("{address}: {e}"));
        assert!(clear == mail.letter.bytes, "{address} reads something else");
    }
    let submission = team.waiting("alice")[0];
    for (n, (address, reader)) in crowd.members.iter().enumerate() {
        assert!(team.home("alice").outbox_blob(&sealed.h).exists(), "it stays until the last one, and this is {n}");
        let (h, to) = (sealed.h, team.address("alice"));
        let nr = Nr { submission, h, reader: address.clone(), to, outcome: Outcome::Received, at: system_wall() };
        let signed = seal_nr(&nr, reader, alice.certificate(), system_wall()).unwrap();
        let notice = Notice::Nr { to: team.address("alice"), sealed: signed.into() };
        crowd.first.posts(&team, "alice", notice).unwrap();
    }
    wait_for("it is freed", || {
        (team.waiting("alice").is_empty() && !team.home("alice").outbox_blob(&sealed.h).exists()).then_some(())
    });
    wait_for("at bob's too", || {
        team.home("bob").mirrored_parts(&team.address("alice")).unwrap().is_empty().then_some(())
    });
}

/// For each of the packets that come first and say for whom an OpenPGP message is, how many bytes name its reader (RFC 9580,
/// section 5.1.2: version 6, then that count).
fn named_by(message: &[u8]) -> Vec<u8> {
    let mut counts = Vec::new();
    let mut rest = message;
    while rest[0] == 0xc1 {
        let length = usize::from(rest[1]);
        assert!(length < 192 && rest[2] == 6, "a short packet of version 6, not {:02x?}", &rest[..16]);
        counts.push(rest[3]);
        rest = &rest[2 + length..];
    }
    counts
}

#[test]
fn bcc_is_a_file_apart_in_which_nobody_else_is_named_and_no_packet_says_for_whom_it_is() {
    let team = Team::of_three();
    let bytes =
        b"From: alice@acme\r\nTo: bob@acme\r\nBcc: carol@acme\r\nSubject: apart\r\nMessage-ID: <apart@acme>\r\n\
        Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\nNobody sees carol.\r\n";
    let without = String::from_utf8(bytes.to_vec()).unwrap().replace("Bcc: carol@acme\r\n", "");
    let letter = Letter { id: "<apart@acme>".to_owned(), bytes: bytes.to_vec() };
    team.submit("alice", &["bob", "carol"], letter);
    let line = wait_for("it is sealed twice and announced", || {
        let lines: Vec<OutboxLine> = team.ask("alice", &Request::Outbox);
        let line = lines.into_iter().next()?;
        let announced = line.receivers.values().all(|state| state == "announced");
        (announced && line.sealed.len() == 2).then_some(line)
    });
    let stranger = Hostile::stranger(&team, "eve@evil");
    let of = |name: &str| Identity::load(&team.home(name)).unwrap().openpgp;
    let (alice, bob, carol) = (of("alice"), of("bob"), of("carol"));
    let blobs: Vec<Bytes> =
        line.sealed.iter().map(|sealed| sealed_bytes(&stranger, &team, &sealed.h, sealed.length)).collect();
    let opens = |blob: &Bytes, reader: &SecretIdentity| opened(blob, reader, alice.certificate()).ok();
    let (for_bob, for_carol): (Vec<&Bytes>, Vec<&Bytes>) = blobs.iter().partition(|blob| opens(blob, &bob).is_some());
    assert_eq!((for_bob.len(), for_carol.len()), (1, 1));
    assert!(opens(for_bob[0], &carol).is_none(), "carol is no receiver of bob's");
    for (blob, reader) in [(for_bob[0], &bob), (for_carol[0], &carol)] {
        let clear = String::from_utf8(opens(blob, reader).unwrap()).unwrap();
        assert_eq!(clear, without, "the same mail, without Bcc");
        assert_eq!(named_by(blob), [0, 0], "one for the reader and one for alice herself, and neither says so");
        for key in [&alice, &bob, &carol] {
            let print = key.fingerprint();
            let id = &print.as_bytes()[12..];
            assert!(!blob.windows(8).any(|bytes| bytes == id), "a key id stands in the clear");
        }
    }
    let mail = Mail {
        from: "alice".to_owned(),
        letter: Letter { id: "<apart@acme>".to_owned(), bytes: without.into_bytes() },
    };
    for reader in ["bob", "carol"] {
        let mut program = team.reader(reader);
        program.reads_in_the_end(&mail);
        let uid = program.sees(&mail);
        let header = program.imap.fetch(uid, "HEADER", &mut |_, _| {}).unwrap();
        assert!(!String::from_utf8(header).unwrap().contains("carol"));
    }
    wait_for("both are freed", || team.waiting("alice").is_empty().then_some(()));
}
