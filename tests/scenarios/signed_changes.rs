//! A member's key changes by the group key's signature and by nothing else, and what was true once and is signed is not believed
//! again (R11): old and forged gds and peer descriptors, served by somebody who has a member's keys.

use std::net::TcpListener;

use bytes::Bytes;
use roost::clock::system_wall;
use roost::console::protocol::{GroupChanged, Line, Request};
use roost::model::group::{GroupDescriptor, Heartbeat, HeartbeatAnswer};
use roost::model::{Address, Fingerprint, PeerId};
use roost::seal::record::{sign_gd, verify_descriptor, verify_gd};
use roost::seal::{Certificate, SecretIdentity};
use serde_bytes::ByteBuf;

use crate::harness::hostile::{Hostile, peer_id};
use crate::harness::{Letter, Machine, Mail, Team, wait_for};

/// alice, bob and carol in acme, whole copies; rita has the cards of alice and carol.
fn team() -> Team {
    Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 2\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [\"alice@acme\", \"carol@acme\"]\n",
    )
}

/// The newest gd that the peer of `name` has.
fn gd(team: &Team, asker: &Hostile, name: &str, key: &Fingerprint) -> (Bytes, GroupDescriptor) {
    let peer = peer_id(team, name);
    let bytes = asker.asks(async |client| client.get_group(peer).await).unwrap();
    let gd = verify_gd(&bytes, key).unwrap().into_value();
    (bytes, gd)
}

fn version(team: &Team, name: &str) -> u64 {
    team.status(name).brains["group"]["gd_version"].as_u64().unwrap()
}

/// The version of acme's gd that rita's peer keeps.
fn pinned_version(team: &Team) -> Option<u64> {
    team.status("rita").brains["group"]["pins"][0]["gd_version"].as_u64()
}

fn attention(team: &Team, name: &str, words: &[&str]) -> Option<String> {
    team.status(name).attention.into_iter().find(|line| words.iter().all(|word| line.contains(word)))
}

fn heartbeat(gd_version: u64, gd: Option<&[u8]>, descriptors: &[ByteBuf], wanted: Vec<(PeerId, u64)>) -> Heartbeat {
    let (gd, descriptors) = (gd.map(ByteBuf::from), descriptors.to_vec());
    Heartbeat {
        gd_version,
        gd_digest: None,
        at: system_wall(),
        view_at: None,
        view_digest: None,
        gd,
        descriptors,
        wanted,
    }
}

/// The peer descriptor of `of` that the peer of `name` has, if it is later than `since`.
fn descriptor(team: &Team, member: &Hostile, name: &str, of: &str, since: u64) -> Option<(ByteBuf, u64)> {
    let (asked, wanted) = (peer_id(team, name), peer_id(team, of));
    let beat = heartbeat(0, None, &[], vec![(wanted, since)]);
    let answer = member.asks(async |client| client.post_heartbeat(asked, &beat).await).unwrap();
    let bytes = answer.descriptors.into_iter().next()?;
    let sequence = verify_descriptor(&bytes).unwrap().into_value().sequence;
    Some((bytes, sequence))
}

fn is_read(team: &Team, from: &str, to: &str) {
    let mail = team.submit(from, &[to], team.letter(from, to, 20_000));
    team.reader(to).reads_in_the_end(&mail);
    wait_for("its sender knows", || team.waiting(from).is_empty().then_some(()));
}

#[test]
fn a_members_new_key_that_the_group_key_signed_is_taken_without_a_question_and_shown_to_members_and_contacts() {
    let team = team();
    let key = team.group_key("alice");
    let carol: Address = team.address("carol");
    let before = Certificate::parse(&fs_certificate(&team, "carol")).unwrap().fingerprint();
    is_read(&team, "carol", "rita");
    // Carol's machine is gone with her keys; bob and rita are off while she gets a new one.
    team.kill(&["carol", "bob", "rita"]);
    let _: GroupChanged = team.ask("alice", &Request::GroupRemove { address: carol.clone() });
    let invite: Line = team.ask("alice", &Request::GroupInvite { name: carol.name().clone(), valid: None });
    let mut again = Machine::new(&team.folder(), "carol-again");
    again.roost(&["init", "carol@acme"], "");
    again.reachable_on_loopback();
    again.roost(&["group", "join", &invite.line], "");
    again.start();
    let since = roost::actors::identity::Identity::load(&again.home()).unwrap().openpgp.fingerprint();
    assert_ne!(before, since);

    // The gd without carol and the one with her new key both lie about: whichever is heard of first, the change is shown.
    team.start(&["bob", "rita"]);
    for name in ["bob", "rita"] {
        let shown = wait_for("the change is shown", || {
            attention(&team, name, &["carol@acme has another key since version", &before.to_string()])
        });
        assert!(shown.contains(&since.to_string()), "{shown}");
        let conflict = attention(&team, name, &["other candidates"]);
        assert_eq!(conflict, None, "the group key signed it: that is no conflict");
    }
    assert_eq!(team.group_key("bob"), key, "the group's key is the same");
    let card: Line = team.ask("rita", &Request::Card);
    again.roost(&["contacts", "add", &card.line], "");
    let to_new = team.submit("bob", &["carol"], team.letter("bob", "carol", 20_000));
    let from_new = again.roost(&["send", "--to", "rita@readers", "--subject", "my new laptop"], "It works.\n");
    assert_eq!(from_new["ok"], true);
    wait_for("bob's mail is in the new inbox", || {
        again.inbox().iter().any(|line| line.to_string().contains("A letter of 20000 bytes")).then_some(())
    });
    wait_for("rita believes the new key without being asked", || {
        let mut rita = team.reader("rita");
        (!rita.imap.uid_search("SUBJECT \"my new laptop\"").unwrap().is_empty()).then_some(())
    });
    assert_eq!(team.outbox_line(&to_new).map(|line| line.receivers.len()), Some(1), "it waits until it is opened");

    // Whoever has the old machine is nobody any more.
    let thief = Hostile::with_the_keys_of(&team, "carol");
    let clear = b"From: carol@acme\r\nTo: rita@readers\r\nMessage-ID: <old@acme>\r\n\r\nx\r\n";
    let ns = thief.seals(&team, "rita", key, clear);
    let (status, text) = thief.posts(&team, "rita", thief.notice(&team, "rita", &ns)).unwrap_err();
    assert!(status == 400 && text.contains("not believed"), "{status} {text}");
}

/// The certificate in the home of `name`.
fn fs_certificate(team: &Team, name: &str) -> Vec<u8> {
    let identity = roost::actors::identity::Identity::load(&team.home(name)).unwrap();
    identity.openpgp.certificate().as_bytes().to_vec()
}

#[test]
fn a_members_new_key_that_the_group_key_did_not_sign_is_shown_as_a_conflict_and_not_believed() {
    let team = team();
    let key = team.group_key("alice");
    let mallory = Hostile::stranger(&team, "carol@acme");
    let (real, genuine) = gd(&team, &mallory, "alice", &key);
    let forger = SecretIdentity::generate_group(&"acme".parse().unwrap(), system_wall()).unwrap();
    let mut forged = GroupDescriptor {
        version: genuine.version + 5,
        group_certificate: forger.certificate().as_bytes().to_vec(),
        handovers: Vec::new(),
        ..genuine.clone()
    };
    let carol = forged.members.iter_mut().find(|member| member.address == mallory.address).unwrap();
    (carol.peer_id, carol.fingerprint) = (mallory.key.peer_id(), mallory.openpgp.fingerprint());
    let forged = sign_gd(forged, &forger, system_wall()).unwrap().as_bytes().to_vec();
    // The genuine signature under other words.
    let old = genuine.member_at(&mallory.address).unwrap().fingerprint;
    let at = real.windows(20).position(|bytes| bytes == old.as_bytes()).unwrap();
    let mut altered = real.to_vec();
    altered[at..at + 20].copy_from_slice(mallory.openpgp.fingerprint().as_bytes());

    // Somebody with bob's keys answers alice's heartbeats, and tells it to whoever asks for the gd.
    team.kill(&["bob"]);
    let mut bob = Hostile::with_the_keys_of(&team, "bob");
    bob.lies.told().gd = Some(forged.clone().into());
    bob.lies.told().heartbeat =
        HeartbeatAnswer { gd: Some(ByteBuf::from(forged.clone())), ..HeartbeatAnswer::default() };
    bob.serve_in_place_of(&team, "bob");
    let rival = forger.fingerprint().to_string();
    wait_for("alice is told of another candidate", || attention(&team, "alice", &["other candidates", &rival]));
    let (alice, caller) = (peer_id(&team, "alice"), peer_id(&team, "bob"));
    for untrue in [&forged, &altered] {
        let beat = heartbeat(genuine.version, Some(untrue), &[], Vec::new());
        assert_eq!(caller, bob.key.peer_id());
        // What does not prove itself may be refused or passed over.
        let _ = bob.asks(async |client| client.post_heartbeat(alice, &beat).await);
    }
    for name in ["alice", "carol"] {
        assert_eq!(version(&team, name), genuine.version, "{name}");
        assert_eq!(team.group_key(name), key, "{name}");
        assert_eq!(attention(&team, name, &["has another key"]), None);
    }
    let clear = b"From: carol@acme\r\nTo: alice@acme\r\nMessage-ID: <forged@acme>\r\n\r\nx\r\n";
    for group_key in [key, forger.fingerprint()] {
        let ns = mallory.seals(&team, "alice", group_key, clear);
        let (status, text) = mallory.posts(&team, "alice", mallory.notice(&team, "alice", &ns)).unwrap_err();
        assert!([400, 503].contains(&status) && text.len() > 20, "{status} {text}");
    }
    let forged_mail =
        Mail { from: "carol".to_owned(), letter: Letter { id: "<forged@acme>".to_owned(), bytes: Vec::new() } };
    is_read(&team, "carol", "alice");
    is_read(&team, "alice", "carol");
    assert!(team.reader("alice").uids_of(&forged_mail).is_empty());
    assert_eq!(version(&team, "alice"), genuine.version);
}

#[test]
fn an_old_gd_and_an_old_descriptor_that_are_genuine_replace_no_newer_ones_and_lead_nobody_to_the_old_place() {
    let team = team();
    let key = team.group_key("alice");
    let stolen = Hostile::with_the_keys_of(&team, "bob");
    let (old_gd, old) = gd(&team, &stolen, "alice", &key);
    let (old_place, sequence) =
        wait_for("carol knows where alice is", || descriptor(&team, &stolen, "carol", "alice", 0));
    wait_for("rita has acme's gd", || (pinned_version(&team)? >= old.version).then_some(()));

    // A newer gd, and a newer place.
    let _: GroupChanged = team.ask("alice", &Request::GroupGrant { address: team.address("carol") });
    let newer = version(&team, "alice");
    assert!(newer > old.version);
    let old_port = team.https_port("alice");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    team.configure("alice", "net", &format!("https_port = {free}"));
    let old_door = TcpListener::bind(("127.0.0.1", old_port)).unwrap();
    old_door.set_nonblocking(true).unwrap();
    for name in ["carol", "bob"] {
        wait_for("they follow", || (version(&team, name) == newer).then_some(()));
        wait_for("they know", || descriptor(&team, &stolen, name, "alice", sequence));
    }
    // A contact looks once an hour, and when it starts.
    team.kill(&["rita"]);
    team.start(&["rita"]);
    wait_for("rita follows", || (pinned_version(&team)? == newer).then_some(()));
    is_read(&team, "rita", "alice");

    // Somebody with bob's keys tells everybody how it was.
    team.kill(&["bob"]);
    let mut bob = stolen;
    bob.lies.told().gd = Some(old_gd.clone());
    bob.lies.told().heartbeat = HeartbeatAnswer {
        gd: Some(ByteBuf::from(old_gd.to_vec())),
        descriptors: vec![old_place.clone()],
        ..HeartbeatAnswer::default()
    };
    bob.serve_in_place_of(&team, "bob");
    while old_door.accept().is_ok() {}
    let carol = peer_id(&team, "carol");
    for gd_version in [old.version, newer, newer + 50] {
        let beat = heartbeat(gd_version, Some(&old_gd), std::slice::from_ref(&old_place), Vec::new());
        let answer = bob.asks(async |client| client.post_heartbeat(carol, &beat).await).unwrap();
        assert_eq!(answer.gd_version, newer, "carol stays with the newer one");
    }
    wait_for("carol heard it of him too, when she asked him", || bob.lies.told().beaten.contains(&carol).then_some(()));
    // A contact that starts asks the members for the gd: only he answers.
    team.kill(&["rita", "alice", "carol"]);
    team.start(&["rita"]);
    let rita = peer_id(&team, "rita");
    wait_for("rita got the old gd of him", || bob.lies.told().gd_given.contains(&rita).then_some(()));
    team.rests(&["rita"]);
    assert_eq!(pinned_version(&team), Some(newer), "rita stays with the newer one");
    team.start(&["alice", "carol"]);
    assert_eq!((version(&team, "carol"), version(&team, "alice")), (newer, newer));
    let held = descriptor(&team, &bob, "carol", "alice", 0).unwrap().1;
    assert!(held > sequence, "carol still knows the newer place");
    is_read(&team, "carol", "alice");
    is_read(&team, "rita", "alice");
    assert!(old_door.accept().is_err(), "nobody was led to where alice is no more");
    bob.stop();
    team.start(&["bob"]);
    is_read(&team, "bob", "alice");
}
