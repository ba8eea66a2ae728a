//! Removals, grants, keys that are replaced, and two holders that change the group at the same time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::network::{Network, code_of, sign_gd};
use super::{MINUTE, SIX, offered, refusal, six};
use crate::core::group::changes::digest;
use crate::core::group::{GroupError, Input, RecoveryCode, Reply, Role};
use crate::model::policy::KOfN;
use crate::model::{Address, Fingerprint, Policy};

fn at(address: &str) -> Address {
    address.parse().unwrap()
}

fn remove(net: &mut Network, holder: &str, address: &str) -> Reply {
    let address = at(address);
    net.ask(holder, |token| Input::Remove { token, address })
}

fn grant(net: &mut Network, holder: &str, address: &str) -> Reply {
    let address = at(address);
    net.ask(holder, |token| Input::Grant { token, address })
}

fn key(net: &Network, address: &str) -> Fingerprint {
    net.status(address).group_key.unwrap()
}

fn holders(net: &Network, address: &str) -> Vec<String> {
    let members = net.status(address).members;
    members.into_iter().filter(|m| m.key_holder).map(|m| m.address.to_string()).collect()
}

fn names(net: &Network, address: &str) -> BTreeSet<String> {
    net.status(address).members.into_iter().map(|m| m.address.to_string()).collect()
}

#[test]
fn a_removed_member_is_named_no_more_is_told_so_and_comes_back_only_by_a_new_invite() {
    let mut net = six();
    net.pass(MINUTE);
    let error = refusal(remove(&mut net, "bob@acme", "frank@acme"));
    assert!(matches!(error, GroupError::NotKeyHolder { .. }), "{error}");
    assert!(matches!(refusal(remove(&mut net, "alice@acme", "alice@acme")), GroupError::RemoveSelf { .. }));
    assert!(matches!(refusal(remove(&mut net, "alice@acme", "nobody@acme")), GroupError::NoSuchMember { .. }));
    let before = key(&net, "bob@acme");
    assert_eq!(remove(&mut net, "alice@acme", "frank@acme"), Reply::Changed { gd_version: 7, recovery: None });
    net.pass(MINUTE);
    for address in &SIX[..5] {
        assert_eq!(net.status(address).members.len(), 5, "{address}");
    }
    assert_eq!(key(&net, "bob@acme"), before, "who did not hold the key takes none along");
    let status = net.status("frank@acme");
    assert_eq!((status.role, status.gd_version), (Role::Removed, 7), "it is told");
    assert_eq!(net.node("frank@acme").picture.as_ref().unwrap().role, Role::Removed);
    // The invite that it once came by is of no use any more.
    let frank = net.peer("frank@acme");
    let beat = Box::default();
    let reply = net.ask("bob@acme", |token| Input::Heartbeat { token, caller: frank, beat });
    assert!(matches!(refusal(reply), GroupError::NotMember { gd_version: 7, .. }));
    net.restart("frank@acme");
    assert_eq!(net.status("frank@acme").role, Role::Removed, "over a restart");
    let invite = net.invite("alice@acme", "frank");
    assert_eq!(net.join("frank@acme", &invite), Reply::Joined { gd_version: 8, members: 6 });
    assert_eq!(net.status("frank@acme").role, Role::Member);
}

#[test]
fn the_invite_a_member_came_by_does_not_bring_it_back_after_its_removal() {
    let mut net = six();
    let invite = net.invite("alice@acme", "grace");
    net.start("grace@acme");
    net.join("grace@acme", &invite);
    remove(&mut net, "alice@acme", "grace@acme");
    net.pass(MINUTE);
    let error = refusal(net.join("grace@acme", &invite));
    assert!(matches!(&error, GroupError::JoinRefused { why, .. } if why.contains("no open invite")), "{error}");
}

#[test]
fn a_removal_that_leaves_the_group_smaller_than_its_policy_goes_ahead() {
    let mut net = six();
    remove(&mut net, "alice@acme", "frank@acme");
    remove(&mut net, "alice@acme", "erin@acme");
    net.pass(MINUTE);
    let status = net.status("bob@acme");
    assert_eq!(status.members.len(), 4);
    assert!(usize::from(status.policy.others_needed()) > 3, "it is shown degraded");
    let policy = Policy { fragments: KOfN { k: 3, n: 6 }, copies: 4, ..Policy::default() };
    let reply = net.ask("alice@acme", |token| Input::SetPolicy { token, policy });
    assert!(matches!(refusal(reply), GroupError::TooSmall { .. }), "a change of the policy is still refused");
}

#[test]
fn a_granted_member_fetches_the_key_and_can_do_what_the_founder_can() {
    let mut net = six();
    net.pass(MINUTE);
    assert!(matches!(refusal(grant(&mut net, "bob@acme", "carol@acme")), GroupError::NotKeyHolder { .. }));
    assert!(matches!(refusal(grant(&mut net, "alice@acme", "rita@readers")), GroupError::NoSuchMember { .. }));
    // Bob is off: the gd names him, and the key comes when he does.
    net.kill("bob@acme");
    assert_eq!(grant(&mut net, "alice@acme", "bob@acme"), Reply::Changed { gd_version: 7, recovery: None });
    net.restart("bob@acme");
    net.pass(MINUTE);
    assert!(net.status("bob@acme").key_holder && net.status("bob@acme").key_here);
    assert_eq!(holders(&net, "frank@acme"), ["alice@acme", "bob@acme"], "the gd says who holds the key");
    net.restart("bob@acme");
    assert!(net.status("bob@acme").key_here, "over a restart");
    net.kill("alice@acme");
    let invite = net.invite("bob@acme", "grace");
    net.start("grace@acme");
    assert_eq!(net.join("grace@acme", &invite), Reply::Joined { gd_version: 8, members: 7 });
    assert!(matches!(remove(&mut net, "bob@acme", "frank@acme"), Reply::Changed { gd_version: 9, recovery: None }));
    let policy = Policy { fragments: KOfN { k: 2, n: 4 }, ..Policy::default() };
    let reply = net.ask("bob@acme", |token| Input::SetPolicy { token, policy });
    assert_eq!(reply, Reply::PolicySet { gd_version: 10 });
}

#[test]
fn r10_the_group_key_is_handed_to_nobody_that_the_gd_does_not_name() {
    let mut net = six();
    net.start("mallory@acme");
    net.pass(MINUTE);
    for caller in ["mallory@acme", "carol@acme"] {
        let caller = net.peer(caller);
        let reply = net.ask("alice@acme", |token| Input::AskKey { token, caller });
        assert!(matches!(refusal(reply), GroupError::NotMember { .. }));
    }
}

#[test]
fn who_is_named_as_a_holder_without_the_key_says_so_until_it_comes() {
    let mut net = six();
    net.pass(MINUTE);
    net.cut_off(&["alice@acme", "carol@acme"]);
    grant(&mut net, "alice@acme", "bob@acme");
    net.pass(MINUTE);
    net.kill("alice@acme");
    net.heal();
    net.pass(5 * MINUTE);
    let status = net.status("bob@acme");
    assert!(status.key_holder && !status.key_here, "carol told of the gd, the key is only at alice");
    let error = refusal(remove(&mut net, "bob@acme", "frank@acme"));
    assert!(error.to_string().contains("alice@acme"), "{error}");
    net.restart("alice@acme");
    net.pass(10 * MINUTE);
    assert!(net.status("bob@acme").key_here);
}

#[test]
fn removing_a_holder_replaces_the_key_and_members_and_contacts_follow_its_signature() {
    let mut net = six();
    net.pass(MINUTE);
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("bob@acme", |token| Input::MakeCard { token }) else { panic!() };
    net.ask("rita@readers", |token| Input::AddContact { token, card: card.clone() });
    for address in ["bob@acme", "carol@acme"] {
        grant(&mut net, "alice@acme", address);
    }
    net.pass(MINUTE);
    let before = key(&net, "alice@acme");
    net.invite("bob@acme", "grace");
    // Carol's laptop is stolen; alice is off, too.
    net.kill("alice@acme");
    let Reply::Changed { gd_version, recovery } = remove(&mut net, "bob@acme", "carol@acme") else { panic!() };
    let since = key(&net, "bob@acme");
    assert_ne!(since, before);
    assert_eq!((gd_version, recovery), (9, Some(code_of(&since))));
    assert!(net.status("bob@acme").open_invites.is_empty(), "an invite is bound to the key that it names");
    net.pass(MINUTE);
    for address in ["bob@acme", "dave@acme", "frank@acme"] {
        let status = net.status(address);
        assert_eq!((status.group_key, status.members.len()), (Some(since), 5), "{address}");
        let rotation = &status.rotations[0];
        assert_eq!((rotation.from, rotation.to, rotation.gd_version), (before, since, 9), "it is shown");
        assert!(status.conflicts.is_empty(), "{:?}", status.conflicts);
    }
    assert_eq!(net.node("bob@acme").keys, BTreeSet::from([since]), "the old key is gone from its disk");
    assert_eq!(net.status("carol@acme").role, Role::Removed);
    net.restart("alice@acme");
    net.pass(5 * MINUTE);
    assert!(net.status("alice@acme").key_here && net.node("alice@acme").keys == BTreeSet::from([since]));
    net.pass(61 * MINUTE);
    let pin = net.status("rita@readers").pins[0].clone();
    assert_eq!((pin.key, pin.gd_version), (since, Some(9)), "a contact's pin moves by the signature");
    assert_eq!(net.status("rita@readers").rotations.len(), 1);
    assert!(net.status("rita@readers").conflicts.is_empty());
    let reply = net.ask("rita@readers", |token| Input::AddContact { token, card });
    assert!(matches!(reply, Reply::ContactAdded { .. }), "an old card is as good: {reply:?}");
    net.restart("rita@readers");
    assert_eq!(net.status("rita@readers").pins[0].key, since, "kept over a restart");
}

#[test]
fn a_notice_that_does_not_fit_the_gd_has_a_newer_one_looked_for_but_not_all_the_time() {
    let mut net = six();
    net.pass(MINUTE);
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("bob@acme", |token| Input::MakeCard { token }) else { panic!() };
    net.ask("rita@readers", |token| Input::AddContact { token, card });
    net.pass(MINUTE * 2);
    grant(&mut net, "alice@acme", "bob@acme");
    net.pass(MINUTE);
    remove(&mut net, "bob@acme", "alice@acme");
    let freshen =
        |net: &mut Network| net.ask("rita@readers", |token| Input::Freshen { token, group: "acme".parse().unwrap() });
    assert_eq!(freshen(&mut net), Reply::Freshened { fresh: true });
    assert_eq!(net.status("rita@readers").pins[0].key, key(&net, "bob@acme"));
    let (asked, began) = (net.node("rita@readers").asked["fetch gd"], net.now);
    (0..3).for_each(|_| assert_eq!(freshen(&mut net), Reply::Freshened { fresh: true }));
    assert_eq!(net.node("rita@readers").asked["fetch gd"], asked + 3);
    assert!(net.now.mono.since(began.mono) >= Duration::from_secs(5), "looks are apart");
}

#[test]
fn r11_a_stolen_key_that_was_replaced_moves_nobody() {
    let mut net = six();
    net.pass(MINUTE);
    grant(&mut net, "alice@acme", "carol@acme");
    net.pass(MINUTE);
    let (old, held) = (key(&net, "alice@acme"), net.node("carol@acme").brain.own_gd().unwrap().gd.clone());
    remove(&mut net, "alice@acme", "carol@acme");
    net.pass(MINUTE);
    let since = key(&net, "bob@acme");
    // The thief signs a later gd with the old key, and hands the old key over to one of its own.
    let mut forged = held.clone();
    forged.version = 99;
    offered(&mut net, "bob@acme", sign_gd(forged.clone(), old));
    assert_eq!((key(&net, "bob@acme"), net.status("bob@acme").gd_version), (since, 8));
    assert!(net.status("bob@acme").conflicts.is_empty(), "old ones lie about for a day");
    let own = Fingerprint::new([7; 20]);
    forged.handovers = vec![serde_bytes::ByteBuf::from(crate::wire::encode(&(old, own)))];
    offered(&mut net, "bob@acme", sign_gd(forged.clone(), own));
    assert_eq!((key(&net, "bob@acme"), net.status("bob@acme").gd_version), (since, 8));
    assert_eq!(net.status("bob@acme").conflicts[0].others, BTreeSet::from([own]), "shown, never chosen");
    // Whoever sees both before it moved moves to neither.
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let dht = std::mem::take(&mut net.dht);
    let pin = |token| Input::Pin { token, group: "acme".parse().unwrap(), key: old };
    net.ask("rita@readers", pin);
    net.dht = dht;
    let legitimate = net.node("bob@acme").brain.own_gd().unwrap().clone();
    let (rita, group) = (net.peer("rita@readers"), "acme".parse().unwrap());
    let candidates = vec![sign_gd(forged, own), legitimate];
    net.tell(rita, Input::GdFetched { group, found: crate::core::group::GdFound { candidates, why: None } });
    let status = net.status("rita@readers");
    assert_eq!((status.pins[0].key, status.pins[0].gd_version), (old, None));
    assert_eq!(status.conflicts[0].others, BTreeSet::from([own, since]));
}

#[test]
fn the_recovery_code_acts_for_the_group_when_all_holders_are_gone() {
    let mut net = six();
    net.pass(MINUTE);
    net.kill("alice@acme");
    let code = code_of(&key(&net, "bob@acme"));
    let recover = |net: &mut Network, code: &RecoveryCode| {
        let code = code.clone();
        net.ask("bob@acme", |token| Input::Recover { token, code })
    };
    let wrong = code_of(&Fingerprint::new([1; 20]));
    assert!(matches!(refusal(recover(&mut net, &wrong)), GroupError::Recovery { .. }));
    let Reply::Changed { gd_version: 7, recovery: Some(newer) } = recover(&mut net, &code) else { panic!() };
    assert_ne!(newer, code);
    net.pass(MINUTE);
    assert_eq!(holders(&net, "frank@acme"), ["bob@acme"]);
    assert_eq!(remove(&mut net, "bob@acme", "alice@acme"), Reply::Changed { gd_version: 8, recovery: None });
    assert!(matches!(refusal(recover(&mut net, &code)), GroupError::Recovery { .. }), "a code is good once");
    let invite = net.invite("bob@acme", "grace");
    net.start("grace@acme");
    assert!(matches!(net.join("grace@acme", &invite), Reply::Joined { gd_version: 9, .. }));
    net.restart("alice@acme");
    net.pass(MINUTE);
    assert_eq!(net.status("alice@acme").role, Role::Removed);
}

/// Alice and bob hold the key, three members each are on each side of a cut, and each side changes the group.
fn two_sides() -> Network {
    let mut net = six();
    net.pass(MINUTE);
    grant(&mut net, "alice@acme", "bob@acme");
    net.pass(MINUTE);
    net.cut_off(&["alice@acme", "carol@acme", "erin@acme"]);
    net.pass(2 * MINUTE);
    net
}

fn all_agree(net: &mut Network, addresses: &[&str]) {
    let first = digest(net.node(addresses[0]).brain.own_gd().unwrap());
    for address in addresses {
        assert_eq!(digest(net.node(address).brain.own_gd().unwrap()), first, "{address}");
        assert!(net.status(address).overtaken.is_empty(), "{address}");
    }
}

#[test]
fn two_admissions_at_the_same_time_are_both_in_after_the_sides_meet() {
    let mut net = two_sides();
    // The version is the same on both sides, whichever digest is the smaller.
    let (left, right) = (net.invite("alice@acme", "grace"), net.invite("bob@acme", "heidi"));
    net.start("heidi@acme");
    assert!(matches!(net.join("heidi@acme", &right), Reply::Joined { gd_version: 8, .. }));
    net.start("grace@acme");
    net.cut_off(&["alice@acme", "carol@acme", "erin@acme", "grace@acme"]);
    assert!(matches!(net.join("grace@acme", &left), Reply::Joined { gd_version: 8, .. }));
    net.heal();
    net.pass(3 * MINUTE);
    let all: Vec<&str> = SIX.iter().copied().chain(["grace@acme", "heidi@acme"]).collect();
    all_agree(&mut net, &all);
    assert_eq!(names(&net, "frank@acme"), all.iter().map(|a| (*a).to_owned()).collect());
    assert_eq!(net.status("grace@acme").role, Role::Member);
    let shown = |address: &&str| net.status(address).conflicts.iter().any(|c| c.forked_versions == BTreeSet::from([8]));
    assert!(all.iter().any(shown), "whoever saw both says so");
    let written = net.events();
    net.pass(10 * MINUTE);
    assert_eq!(net.events(), written, "and then it rests");
}

#[test]
fn the_side_with_fewer_versions_makes_its_change_again_on_top_of_the_other() {
    let mut net = two_sides();
    let policy = Policy { fragments: KOfN { k: 1, n: 3 }, ..Policy::default() };
    let set = policy.clone();
    net.ask("alice@acme", |token| Input::SetPolicy { token, policy: set });
    for name in ["frank@acme", "dave@acme"] {
        remove(&mut net, "bob@acme", name);
    }
    // Alice forgets nothing that was durable.
    net.kill("alice@acme");
    net.heal();
    net.restart("alice@acme");
    net.pass(3 * MINUTE);
    all_agree(&mut net, &["alice@acme", "bob@acme", "carol@acme", "erin@acme"]);
    assert_eq!(net.status("bob@acme").policy, policy);
    assert_eq!(net.status("carol@acme").members.len(), 4, "what was removed stays so");
}

#[test]
fn a_key_replaced_on_one_side_wins_and_the_other_sides_admission_is_made_again_under_it() {
    let mut net = two_sides();
    grant(&mut net, "alice@acme", "carol@acme");
    let invite = net.invite("bob@acme", "grace");
    net.start("grace@acme");
    net.join("grace@acme", &invite);
    remove(&mut net, "bob@acme", "frank@acme");
    let Reply::Changed { recovery: Some(_), .. } = remove(&mut net, "alice@acme", "carol@acme") else { panic!() };
    let since = key(&net, "alice@acme");
    net.heal();
    net.pass(10 * MINUTE);
    let all = ["alice@acme", "bob@acme", "dave@acme", "erin@acme", "grace@acme"];
    all_agree(&mut net, &all);
    assert_eq!(names(&net, "erin@acme"), all.iter().map(|a| (*a).to_owned()).collect());
    assert_eq!(key(&net, "grace@acme"), since);
    assert!(net.status("bob@acme").key_here);
}

#[test]
fn a_member_that_was_removed_after_its_admission_is_not_admitted_again() {
    let mut net = six();
    net.pass(MINUTE);
    grant(&mut net, "alice@acme", "bob@acme");
    net.pass(MINUTE);
    let invite = net.invite("alice@acme", "grace");
    net.start("grace@acme");
    net.join("grace@acme", &invite);
    net.pass(MINUTE);
    remove(&mut net, "bob@acme", "grace@acme");
    net.pass(5 * MINUTE);
    net.kill("alice@acme");
    net.restart("alice@acme");
    net.pass(Duration::from_secs(600));
    assert_eq!(net.status("bob@acme").gd_version, 9);
    assert!(!names(&net, "alice@acme").contains("grace@acme"));
}
