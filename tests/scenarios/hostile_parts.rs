//! A member that serves fragments of another mail, or manifests that contradict themselves: the reader takes nothing of it, names
//! it, and opens the mail from the others (R6).

use std::fs;

use bytes::Bytes;
use roost::actors::identity::Identity;
use roost::model::manifest::Manifest;
use roost::model::{Digest, Encoding, MailId, Part};
use roost::wire::{PeerKey, Signed};

use crate::harness::hostile::Hostile;
use crate::harness::{Mail, Reader, Team, wait_for};

/// A mail, what carol has of it, and its manifest.
struct Kept {
    mail: Mail,
    h: MailId,
    fragment: (u8, u8, Bytes),
    manifest: Signed<Manifest>,
}

fn keep(team: &Team, mail: Mail, seen: &[Kept]) -> Kept {
    let sealed = wait_for("it is announced and safe", || {
        let lines = team.status("alice").outbox;
        let line = lines.into_iter().find(|line| seen.iter().all(|kept| line.sealed.iter().all(|s| s.h != kept.h)))?;
        let announced = line.receivers.values().all(|state| state == "announced");
        line.sealed.into_iter().next().filter(|sealed| announced && sealed.safe >= 2 && sealed.holders.len() == 5)
    });
    let (home, alice, h) = (team.home("carol"), team.address("alice"), sealed.h);
    let parts = home.mirrored_parts(&alice).unwrap();
    let (_, part) = parts.iter().find(|(of, _)| *of == h).expect("carol has a fragment");
    let Part::Fragment { k, i } = *part else { panic!("{part}") };
    let bytes = fs::read(home.mirror_part(&alice, &h, *part)).unwrap();
    let manifest = fs::read(home.mirror_manifest(&alice, &h)).unwrap();
    let manifest = Signed::<Manifest>::verify(&manifest).unwrap();
    Kept { mail, h, fragment: (k, i, Bytes::from(bytes)), manifest }
}

/// What the hostile member says of a mail.
type Lie = fn(&Kept, &Kept, &PeerKey, &PeerKey) -> (Signed<Manifest>, Bytes);

/// The manifest altered, and signed with the owner's own key: what only a broken owner can do.
fn altered(kept: &Kept, owner: &PeerKey, alter: impl FnOnce(&mut Manifest)) -> (Signed<Manifest>, Bytes) {
    let mut manifest = kept.manifest.clone().into_value();
    alter(&mut manifest);
    (owner.sign(manifest), kept.fragment.2.clone())
}

const OTHERS_SIGNATURE: &str = "a manifest that the member signed itself";

const LIES: [(&str, Lie); 8] = [
    ("a fragment of another mail", |kept, other, _, _| (kept.manifest.clone(), other.fragment.2.clone())),
    ("the manifest of another mail", |_, other, _, _| (other.manifest.clone(), other.fragment.2.clone())),
    (OTHERS_SIGNATURE, |kept, _, _, member| {
        let manifest = Manifest { owner: member.peer_id(), ..kept.manifest.clone().into_value() };
        (member.sign(manifest), kept.fragment.2.clone())
    }),
    ("fewer digests than blocks", |kept, _, owner, _| {
        altered(kept, owner, |manifest| manifest.block_digests.truncate(32 * 3))
    }),
    ("more stripes than its length has", |kept, _, owner, _| {
        altered(kept, owner, |manifest| manifest.block_digests.extend_from_within(..32 * 5))
    }),
    ("another length", |kept, _, owner, _| altered(kept, owner, |manifest| manifest.length += 1)),
    ("another BLAKE3", |kept, _, owner, _| altered(kept, owner, |manifest| manifest.digest = Digest::new([7; 32]))),
    ("k = 0", |kept, _, owner, _| {
        altered(kept, owner, |manifest| manifest.encoding = Encoding::Fragments { k: 0, n: 5 })
    }),
];

/// Whether a pull of the mail says of carol that she lied.
fn is_named(team: &Team, h: &MailId) -> bool {
    let status = team.status("rita");
    let mut pulls = status.pulls.iter().filter(|pull| pull.h == *h);
    pulls.any(|pull| pull.sources.iter().any(|s| s.address == "carol@acme" && s.bad_blocks > 0))
}

/// The mail cannot be had of her, who is asked; and she is named, if that was a lie.
fn is_found_out(team: &Team, carol: &Hostile, rita: &mut Reader, kept: &Kept, what: &str) {
    wait_for(&format!("{what}: she is asked, and named"), || {
        let no = rita.opens(&kept.mail).expect_err(what);
        assert!(no.is_unavailable(), "{what}: {no}");
        let was_asked = carol.lies.told().manifests_given.contains(&kept.h);
        // What another owner signed is not of this mail: that two mails have one h is no lie of whoever serves the other one.
        let is_named = is_named(team, &kept.h);
        let is_lie = what != OTHERS_SIGNATURE;
        assert!(is_lie || !is_named, "{what}: nobody is named for it");
        (if is_lie { is_named } else { was_asked }).then_some(())
    });
}

#[test]
fn r6_who_serves_parts_of_another_mail_or_a_manifest_that_contradicts_itself_is_named_and_the_others_are_enough() {
    let team = Team::of_six();
    let mut kept: Vec<Kept> = Vec::new();
    for _ in 0..=LIES.len() {
        let mail = team.submit("alice", &["rita"], team.letter("alice", "rita", 500_000));
        kept.push(keep(&team, mail, &kept));
    }
    let mut rita = team.reader("rita");
    for kept in &kept {
        rita.sees(&kept.mail);
    }
    let owner = Identity::load(&team.home("alice")).unwrap().key.clone();
    let mut carol = Hostile::with_the_keys_of(&team, "carol");
    let other = kept.pop().expect("one more than lies");
    for (kept, (_, lie)) in kept.iter().zip(LIES) {
        let (manifest, bytes) = lie(kept, &other, &owner, &carol.key);
        let (k, i, _) = kept.fragment;
        let mut told = carol.lies.told();
        told.mails.insert(kept.h, (Bytes::new(), Bytes::copy_from_slice(manifest.as_bytes())));
        told.fragments.insert((kept.h, k, i), bytes);
    }
    // She alone is there: whichever manifest is refused, is hers.
    team.kill(&["alice", "bob", "carol", "dave", "erin", "frank"]);
    carol.serve_in_place_of(&team, "carol");
    let mut lies = kept.iter().zip(LIES).rev().collect::<Vec<_>>();
    let fragment = lies.pop().expect("the first lie is the fragment");
    for (kept, (what, _)) in lies {
        is_found_out(&team, &carol, &mut rita, kept, what);
    }
    // With two others her fragment is the third that is needed.
    team.start(&["bob", "dave"]);
    is_found_out(&team, &carol, &mut rita, fragment.0, fragment.1.0);
    team.start(&["erin"]);
    for kept in kept.iter().chain([&other]) {
        rita.reads_in_the_end(&kept.mail);
    }
    let lines = team.status("rita").attention;
    assert!(lines.iter().any(|line| line.contains("carol@acme")), "{lines:?}");
    carol.stop();
}
