//! Groups of others: candidates, pins, contact cards, and looks for what changed there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::network::{Network, sign_gd};
use super::{MINUTE, SIX, refusal, six};
use crate::core::group::{Input, Reply};
use crate::model::{Address, Fingerprint, Policy};

#[test]
fn r11_candidates_for_a_group_that_mail_waits_for_are_shown_and_none_is_chosen_until_the_user_pins() {
    let mut net = six();
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let acme: crate::model::GroupName = "acme".parse().unwrap();
    let (rita, key) = (net.peer("rita@readers"), net.node("bob@acme").brain.own_gd().unwrap().key);
    net.tell(rita, Input::Wanted { group: acme.clone() });
    net.pass(Duration::from_secs(5));
    assert_eq!(net.status("rita@readers").candidates[&acme], BTreeSet::from([key]));
    assert!(net.status("rita@readers").pins.is_empty(), "a single one is not chosen either");
    let mut forged = net.node("bob@acme").brain.own_gd().unwrap().gd.clone();
    forged.version = 99;
    let other_key = Fingerprint::new([7; 20]);
    net.publish_gd(sign_gd(forged, other_key));
    net.pass(2 * MINUTE);
    assert_eq!(net.status("rita@readers").candidates[&acme], BTreeSet::from([key, other_key]));
    let (written, group) = (net.node("rita@readers").picture.clone().unwrap(), acme.clone());
    assert_eq!(written.candidates[&acme].len(), 2);
    let pinned = net.ask("rita@readers", |token| Input::Pin { token, group, key });
    assert!(matches!(pinned, Reply::ContactAdded { gd_version: Some(6), .. }), "{pinned:?}");
    let status = net.status("rita@readers");
    assert!(status.candidates.is_empty() && status.pins[0].key == key && status.pins[0].since.is_some(), "{status:?}");
    net.tell(rita, Input::Wanted { group: acme });
    net.tell(rita, Input::Wanted { group: "nobody".parse().unwrap() });
    net.pass(MINUTE);
    let candidates = net.status("rita@readers").candidates;
    assert_eq!(candidates.into_values().collect::<Vec<_>>(), [BTreeSet::new()], "that there is none is shown too");
    net.pass(90 * MINUTE);
    assert!(net.status("rita@readers").candidates.is_empty(), "forgotten once nothing waits for it");
}

#[test]
fn a_contact_card_brings_the_group_its_members_and_their_certificates() {
    let mut net = six();
    net.start("rita@readers");
    let error = refusal(net.ask("rita@readers", |token| Input::MakeCard { token }));
    assert!(error.to_string().contains("create or join a group first"), "{error}");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("bob@acme", |token| Input::MakeCard { token }) else { panic!() };
    assert_eq!(card.peers.len(), 5);
    assert_eq!(card.peers[0].peer_id, net.peer("bob@acme"), "its own place first");

    let reply = net.ask("rita@readers", |token| Input::AddContact { token, card: card.clone() });
    assert_eq!(reply, Reply::ContactAdded { gd_version: Some(6), certificate: true, note: None });
    net.pass(Duration::from_secs(5));
    let status = net.status("rita@readers");
    assert_eq!((status.pins[0].certificates, status.pins[0].members), (6, 6));
    assert_eq!(status.contacts, BTreeSet::from(["bob@acme".parse().unwrap()]));
    let restarted = net.node("rita@readers").picture.clone();
    net.kill("rita@readers");
    net.restart("rita@readers");
    assert_eq!(net.node("rita@readers").picture, restarted, "all of it is durable");

    let mut forged = card.clone();
    forged.group_key = Fingerprint::new([7; 20]);
    let error = refusal(net.ask("rita@readers", |token| Input::AddContact { token, card: forged })).to_string();
    assert!(error.contains(&card.group_key.to_string()) && error.contains(&"07".repeat(20)), "{error}");

    let address: Address = "bob@acme".parse().unwrap();
    let reply = net.ask("rita@readers", |token| Input::RemoveContact { token, address });
    assert_eq!(reply, Reply::ContactRemoved { unpinned: true });
    assert!(net.status("rita@readers").pins.is_empty());
}

#[test]
fn a_pinned_group_that_grows_is_followed_and_an_unreachable_one_is_tried_again() {
    let mut net = six();
    net.pass(MINUTE);
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("alice@acme", |token| Input::MakeCard { token }) else { panic!() };
    let dht = std::mem::take(&mut net.dht);
    for address in SIX {
        net.kill(address);
    }
    let reply = net.ask("rita@readers", |token| Input::AddContact { token, card });
    assert!(matches!(&reply, Reply::ContactAdded { gd_version: None, certificate: false, note: Some(_) }), "{reply:?}");
    net.dht = dht;
    net.pass(5 * MINUTE);
    assert_eq!(net.status("rita@readers").pins[0].certificates, 6, "found in the DHT later");
    for address in SIX {
        net.restart(address);
    }
    net.start("grace@acme");
    let invite = net.invite("alice@acme", "grace");
    net.join("grace@acme", &invite);
    net.pass(61 * MINUTE);
    assert_eq!(net.status("rita@readers").pins[0].gd_version, Some(7));
    assert_eq!(net.status("rita@readers").pins[0].certificates, 7);
}

#[test]
fn a_name_that_a_pinned_gd_does_not_have_is_looked_for_at_once() {
    let mut net = six();
    net.pass(MINUTE);
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("alice@acme", |token| Input::MakeCard { token }) else { panic!() };
    let group = card.address.group().clone();
    net.ask("rita@readers", |token| Input::AddContact { token, card });
    net.pass(MINUTE);
    net.start("grace@acme");
    let invite = net.invite("alice@acme", "grace");
    net.join("grace@acme", &invite);
    let names = |net: &mut Network| {
        let picture = net.node("rita@readers").picture.clone().unwrap();
        picture.groups[&group].gd.as_ref().unwrap().member_at(&"grace@acme".parse().unwrap()).is_some()
    };
    assert!(!names(&mut net), "the next look is due in an hour");
    let freshen = |token| Input::Freshen { token, group: group.clone() };
    assert_eq!(net.ask("rita@readers", freshen), Reply::Freshened { fresh: true });
    assert!(names(&mut net), "the picture shows it before the answer");
    let looks = |net: &mut Network| net.node("rita@readers").asked["fetch gd"];
    let (before, began) = (looks(&mut net), net.now);
    assert_eq!(net.ask("rita@readers", freshen), Reply::Freshened { fresh: true });
    assert_eq!(looks(&mut net), before + 1);
    assert!(net.now.mono.since(began.mono) >= Duration::from_secs(1), "looks are apart");
    let unknown = |token| Input::Freshen { token, group: "others".parse().unwrap() };
    assert_eq!(net.ask("rita@readers", unknown), Reply::Freshened { fresh: false });
    net.dht.clear();
    SIX.iter().chain(&["grace@acme"]).for_each(|address| net.kill(address));
    net.pass(MINUTE);
    assert_eq!(net.ask("rita@readers", freshen), Reply::Freshened { fresh: false }, "nobody answers");
}

#[test]
fn whoever_wants_a_mail_of_a_group_pinned_a_moment_ago_waits_until_its_members_are_placed() {
    let mut net = six();
    net.pass(MINUTE);
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("alice@acme", |token| Input::MakeCard { token }) else { panic!() };
    let group = card.address.group().clone();
    let find = |token| Input::Find { token, group: group.clone() };
    assert_eq!(net.ask("rita@readers", find), Reply::Found, "nothing is looked for where nothing is pinned");
    // The group's descriptor is not in the DHT yet when it is pinned.
    let dht = std::mem::take(&mut net.dht);
    let pin = |token| Input::Pin { token, group: group.clone(), key: card.group_key };
    assert!(matches!(net.ask("rita@readers", pin), Reply::ContactAdded { gd_version: None, .. }));
    let began = net.now;
    assert_eq!(net.ask("rita@readers", find), Reply::Found, "it ends though nothing is found");
    assert!(net.now.mono.since(began.mono) >= Duration::from_secs(10));
    net.dht = dht;
    assert_eq!(net.ask("rita@readers", find), Reply::Found);
    let picture = net.node("rita@readers").picture.clone().unwrap();
    let placed = picture.peers.values().filter(|peer| !peer.addrs.is_empty()).count();
    assert_eq!(placed, 7, "six and rita: {picture:?}");
    let asked = net.now;
    assert_eq!(net.ask("rita@readers", find), Reply::Found);
    assert_eq!(net.now, asked, "what is known is answered at once");
}

#[test]
fn a_failed_dial_reads_the_descriptor_again_once_a_minute_at_most() {
    let mut net = six();
    net.pass(MINUTE);
    let erin = net.peer("erin@acme");
    net.kill("erin@acme");
    net.moves("erin@acme", 7777);
    // It comes back while nobody hears its heartbeats; only the DHT knows.
    net.cut_off(&["erin@acme"]);
    net.restart("erin@acme");
    net.pass(Duration::from_secs(20));
    let again = |net: &mut Network| net.ask("bob@acme", |token| Input::LookAgain { token, peer: erin });
    let Reply::Addrs(addrs) = again(&mut net) else { panic!() };
    assert_eq!(addrs[0].https, 7777);
    assert_eq!(again(&mut net), Reply::Addrs(Vec::new()), "nothing newer");
    assert_eq!(net.node("bob@acme").asked["fetch peer"], 1);
    net.pass(MINUTE);
    again(&mut net);
    assert_eq!(net.node("bob@acme").asked["fetch peer"], 2);
}
