//! The life of groups, told with paired brains in memory under virtual time.

mod changes;
mod claims;
mod contacts;
mod leaving;
mod lives;
mod mastership;
mod network;
mod signed;

use std::collections::BTreeSet;
use std::time::Duration;

use network::{Network, sign_descriptor, sign_gd};

use super::changes::digest;
use super::{Event, GdFound, GroupError, INVITE_VALIDITY, Input, Reply, Role, SignedGd};
use crate::core::Brain;
use crate::model::policy::{KOfN, MEMBERS_MAX};
use crate::model::{Fingerprint, Policy, Secret, Span};
use crate::seal::{check_join_proof, join_proof};

const SIX: [&str; 6] = ["alice@acme", "bob@acme", "carol@acme", "dave@acme", "erin@acme", "frank@acme"];
const MINUTE: Duration = Duration::from_secs(60);

fn six() -> Network {
    six_with(Policy::default())
}

fn six_with(policy: Policy) -> Network {
    let mut net = Network::new();
    net.group_of(&SIX, policy);
    net
}

fn refusal(reply: Reply) -> GroupError {
    match reply {
        Reply::Refused(error) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn lost(net: &Network, address: &str) -> Vec<String> {
    let members = net.status(address).members;
    members.into_iter().filter(|m| m.lost).map(|m| m.address.to_string()).collect()
}

fn master(net: &Network, address: &str) -> String {
    net.status(address).acting_master.unwrap().to_string()
}

#[test]
fn six_peers_form_a_group_and_know_each_other_at_once() {
    let mut net = six();
    net.pass(Duration::from_secs(2));
    for address in SIX {
        let status = net.status(address);
        assert_eq!(status.gd_version, 6, "{address}");
        assert_eq!(status.members.len(), 6);
        assert_eq!(status.role, if address == SIX[0] { Role::Founder } else { Role::Member });
        assert_eq!(status.key_holder, address == SIX[0]);
        let picture = net.node(address).picture.clone().unwrap();
        assert_eq!(picture.roster.members.len(), 6);
        for other in SIX {
            let known = &picture.peers[&net.peer(other)];
            assert!(known.certificate.is_some() && !known.addrs.is_empty(), "{address} does not know {other}");
        }
        assert_eq!(net.node(address).asked.get("fetch peer"), None, "the DHT was not needed");
    }
    net.pass(MINUTE);
    assert_eq!(net.status("frank@acme").view_by.unwrap().to_string(), "alice@acme");
}

#[test]
fn a_peer_creates_only_the_group_of_its_address_and_once() {
    let mut net = Network::new();
    net.start("alice@acme");
    let ask = |net: &mut Network, group: &str, policy: Policy| {
        let group = group.parse().unwrap();
        net.ask("alice@acme", |token| Input::CreateGroup { token, group, policy })
    };
    assert!(matches!(refusal(ask(&mut net, "other", Policy::default())), GroupError::OtherGroup { .. }));
    let impossible = Policy { copies: 0, ..Policy::default() };
    assert!(matches!(refusal(ask(&mut net, "acme", impossible)), GroupError::Policy(_)));
    assert_eq!(net.status("alice@acme").role, Role::Alone);
    let Reply::Created { recovery, .. } = ask(&mut net, "acme", Policy::default()) else { panic!() };
    assert_eq!(format!("{recovery:?}"), "RecoveryCode(…)");
    assert!(matches!(refusal(ask(&mut net, "acme", Policy::default())), GroupError::HasGroup { .. }));
}

#[test]
fn an_invite_serves_one_peer_once_and_that_peer_again() {
    let mut net = six();
    let invite = net.invite("alice@acme", "grace");
    net.start("grace@acme");
    let joined = net.join("grace@acme", &invite);
    assert_eq!(joined, Reply::Joined { gd_version: 7, members: 7 });
    assert_eq!(net.join("grace@acme", &invite), joined, "the same peer may repeat its join");

    // Another peer with the same name and the same invite.
    let alice = net.peer("alice@acme");
    let imposter = {
        net.start("grace@other");
        net.member("grace@other")
    };
    let mut descriptor = net.node("grace@acme").brain.own.clone().unwrap().descriptor;
    descriptor.peer_id = imposter.peer_id;
    let signed = sign_descriptor(descriptor, imposter.fingerprint);
    let proof = join_proof(&invite.secret, &imposter.peer_id, &imposter.fingerprint, &invite.group_key).to_vec();
    let caller = imposter.peer_id;
    let descriptor = Box::new(signed);
    let reply = net.ask("alice@acme", |token| Input::AdmitJoin { token, caller, descriptor, proof });
    assert!(matches!(refusal(reply), GroupError::Used { .. }));
    assert_eq!(net.status("alice@acme").gd_version, 7);
    assert!(net.status("alice@acme").open_invites.is_empty());
    assert_ne!(alice, caller);
}

#[test]
fn an_invite_for_another_name_or_over_is_refused() {
    let mut net = six();
    let invite = net.invite("alice@acme", "grace");
    net.start("heidi@acme");
    assert!(matches!(refusal(net.join("heidi@acme", &invite)), GroupError::OtherName { .. }));
    net.start("grace@acme");
    net.pass(24 * 60 * MINUTE + MINUTE);
    assert!(matches!(refusal(net.join("grace@acme", &invite)), GroupError::Expired { .. }));
    // A joiner whose clock is behind asks, and the holder refuses.
    let mut late = invite.clone();
    late.expiry = net.now.wall + MINUTE;
    let error = refusal(net.join("grace@acme", &late));
    assert!(matches!(&error, GroupError::JoinRefused { why, .. } if why.contains("has expired")), "{error}");
}

#[test]
fn a_forged_proof_is_refused() {
    let mut net = six();
    let mut invite = net.invite("alice@acme", "grace");
    invite.secret = Secret::new([9; 32]);
    net.start("grace@acme");
    let error = refusal(net.join("grace@acme", &invite));
    assert!(matches!(&error, GroupError::JoinRefused { why, .. } if why.contains("proof")), "{error}");
    assert_eq!(net.status("alice@acme").gd_version, 6);
    // A proof that was made for another peer is none for this one.
    let member = net.member("grace@acme");
    let bob = net.member("bob@acme");
    let stolen = join_proof(&invite.secret, &bob.peer_id, &bob.fingerprint, &invite.group_key);
    assert!(!check_join_proof(&stolen, &invite.secret, &member.peer_id, &member.fingerprint, &invite.group_key));
}

#[test]
fn a_join_that_reaches_nobody_says_where_it_tried() {
    let mut net = six();
    let invite = net.invite("alice@acme", "grace");
    net.start("grace@acme");
    net.kill("alice@acme");
    let error = refusal(net.join("grace@acme", &invite));
    assert!(matches!(&error, GroupError::Unreachable { tried, .. } if tried.contains("127.0.0.1:4000")), "{error}");
    net.restart("alice@acme");
    assert!(matches!(net.join("grace@acme", &invite), Reply::Joined { .. }));
}

#[test]
fn a_join_that_failed_leaves_nothing_that_a_restart_would_not() {
    let mut net = six();
    let invite = net.invite("alice@acme", "grace");
    net.start("grace@acme");
    net.pass(MINUTE);
    let before = net.node("grace@acme").brain.snapshot();
    net.kill("alice@acme");
    assert!(matches!(refusal(net.join("grace@acme", &invite)), GroupError::Unreachable { .. }));
    assert_eq!(net.node("grace@acme").brain.snapshot(), before);
    let alice = net.peer("alice@acme");
    let picture = net.node("grace@acme").picture.as_ref().unwrap();
    assert!(!picture.peers.contains_key(&alice), "its connector dials the invite's peers no more");
}

#[test]
fn invites_that_are_over_make_room_and_are_as_many_after_a_restart() {
    let mut net = six();
    let ask = |net: &mut Network, name: &str| {
        let name = name.parse().unwrap();
        net.ask("alice@acme", |token| Input::Invite {
            token,
            name,
            secret: Secret::new([1; 32]),
            valid: INVITE_VALIDITY,
        })
    };
    // Five were used a moment ago.
    for n in 5..MEMBERS_MAX {
        assert!(matches!(ask(&mut net, &format!("n{n}")), Reply::Invite(_)));
    }
    assert!(matches!(refusal(ask(&mut net, "grace")), GroupError::TooManyInvites { open: 100 }));
    net.pass(24 * 60 * MINUTE + MINUTE);
    for name in ["grace", "heidi", "grace"] {
        assert!(matches!(ask(&mut net, name), Reply::Invite(_)));
    }
    let before = net.node("alice@acme").brain.snapshot();
    let invites = before.iter().filter(|event| matches!(event, Event::Invited { .. })).count();
    assert_eq!(invites, usize::from(MEMBERS_MAX));
    assert_eq!(net.status("alice@acme").open_invites.len(), 2);
    net.kill("alice@acme");
    net.restart("alice@acme");
    assert_eq!(net.node("alice@acme").brain.snapshot(), before);
}

#[test]
fn only_a_key_holder_invites_and_no_name_twice() {
    let mut net = six();
    let ask = |net: &mut Network, who: &str, name: &str| {
        let name = name.parse().unwrap();
        net.ask(who, |token| Input::Invite { token, name, secret: Secret::new([1; 32]), valid: INVITE_VALIDITY })
    };
    let error = refusal(ask(&mut net, "bob@acme", "grace"));
    assert!(error.to_string().contains("ask alice@acme"), "{error}");
    assert!(matches!(refusal(ask(&mut net, "alice@acme", "bob")), GroupError::NameTaken { .. }));
}

#[test]
fn a_policy_that_the_group_is_too_small_for_is_refused_with_those_that_would_do() {
    let mut net = six();
    let set = |net: &mut Network, policy: Policy| net.ask("alice@acme", |token| Input::SetPolicy { token, policy });
    let large = Policy { fragments: KOfN { k: 3, n: 6 }, copies: 4, ..Policy::default() };
    let error = refusal(set(&mut net, large)).to_string();
    assert!(error.contains("any 3 of 6") && error.contains("n up to 5") && error.contains("any 3 of 5"), "{error}");
    let policy = Policy { fragments: KOfN { k: 2, n: 4 }, ..Policy::default() };
    assert_eq!(set(&mut net, policy.clone()), Reply::PolicySet { gd_version: 7 });
    net.pass(Duration::from_secs(1));
    for address in SIX {
        assert_eq!(net.status(address).policy, policy, "{address}");
    }
    assert_eq!(set(&mut net, policy), Reply::PolicySet { gd_version: 7 }, "what holds already is no change");
}

#[test]
fn a_dead_acting_master_is_followed_within_40_s_and_takes_over_again() {
    let mut net = six();
    net.pass(5 * MINUTE);
    assert_eq!(master(&net, "frank@acme"), "alice@acme");
    net.kill("alice@acme");
    net.pass(Duration::from_secs(40));
    assert_eq!(master(&net, "bob@acme"), "bob@acme");
    net.pass(Duration::from_secs(20));
    assert_eq!(master(&net, "frank@acme"), "bob@acme");
    assert_eq!(net.status("frank@acme").view_by.unwrap().to_string(), "bob@acme");
    assert_eq!(lost(&net, "frank@acme"), Vec::<String>::new(), "lost_after is 1 h");
    net.restart("alice@acme");
    net.pass(MINUTE);
    for address in SIX {
        assert_eq!(master(&net, address), "alice@acme", "{address}");
        assert_eq!(net.status(address).view_by.unwrap().to_string(), "alice@acme", "{address}");
    }
}

#[test]
fn who_is_silent_for_lost_after_is_lost_and_who_is_heard_again_is_not() {
    let mut net = six_with(Policy { lost_after: Span::secs(120), ..Policy::default() });
    net.pass(5 * MINUTE);
    net.kill("dave@acme");
    net.pass(Duration::from_secs(100));
    assert!(lost(&net, "frank@acme").is_empty());
    net.pass(Duration::from_secs(50));
    for address in ["alice@acme", "bob@acme", "frank@acme"] {
        assert_eq!(lost(&net, address), ["dave@acme"], "{address}");
        let dave = net.peer("dave@acme");
        assert_eq!(net.node(address).picture.as_ref().unwrap().roster.lost, BTreeSet::from([dave]));
    }
    // The master goes too: who was lost stays so under the next one, and the old master joins them.
    net.kill("alice@acme");
    net.pass(4 * MINUTE);
    assert_eq!(lost(&net, "frank@acme"), ["alice@acme", "dave@acme"]);
    net.restart("dave@acme");
    net.restart("alice@acme");
    net.pass(MINUTE);
    for address in SIX {
        assert!(lost(&net, address).is_empty(), "{address}");
    }
}

#[test]
fn a_master_that_sees_fewer_than_half_marks_nobody_lost_and_two_masters_become_one() {
    let mut net = six_with(Policy { lost_after: Span::secs(60), ..Policy::default() });
    net.pass(5 * MINUTE);
    net.cut_off(&["alice@acme", "bob@acme"]);
    net.pass(5 * MINUTE);
    assert_eq!(master(&net, "bob@acme"), "alice@acme");
    assert!(lost(&net, "bob@acme").is_empty(), "two of six see fewer than half");
    assert_eq!(master(&net, "frank@acme"), "carol@acme");
    assert_eq!(lost(&net, "frank@acme"), ["alice@acme", "bob@acme"]);
    net.heal();
    net.pass(3 * MINUTE);
    for address in SIX {
        assert_eq!(master(&net, address), "alice@acme", "{address}");
        assert_eq!(net.status(address).view_by.unwrap().to_string(), "alice@acme", "{address}");
        assert!(lost(&net, address).is_empty(), "{address}");
    }
}

#[test]
fn an_idle_group_writes_nothing_and_beats_to_two_members() {
    let mut net = six();
    net.pass(5 * MINUTE);
    let written = net.events();
    for address in SIX {
        net.node(address).asked.clear();
    }
    net.pass(10 * MINUTE);
    assert_eq!(net.events(), written);
    for address in SIX {
        assert_eq!(net.node(address).asked.get("beat"), Some(&120), "{address}");
        assert_eq!(net.node(address).asked.len(), 1, "{address}: {:?}", net.node(address).asked);
    }
}

#[test]
fn gd_and_descriptors_are_put_again_at_half_life_by_one_member_each() {
    let mut net = six();
    net.pass(MINUTE);
    for address in SIX {
        net.node(address).asked.clear();
    }
    net.pass(24 * 60 * MINUTE);
    let puts: Vec<usize> = SIX.iter().map(|a| net.node(a).asked.get("put gd").copied().unwrap_or(0)).collect();
    assert_eq!(puts, [2, 0, 0, 0, 0, 0]);
    assert!(SIX.iter().all(|a| net.node(a).asked["put descriptor"] == 2));
}

#[test]
fn a_member_that_was_away_learns_the_newer_gd_and_address_from_heartbeats() {
    let mut net = six();
    net.pass(MINUTE);
    net.kill("frank@acme");
    net.kill("erin@acme");
    net.moves("erin@acme", 7777);
    net.restart("erin@acme");
    let invite = net.invite("alice@acme", "grace");
    net.start("grace@acme");
    net.join("grace@acme", &invite);
    net.restart("frank@acme");
    net.pass(Duration::from_secs(15));
    assert_eq!(net.status("frank@acme").gd_version, 7);
    let (erin, grace) = (net.peer("erin@acme"), net.peer("grace@acme"));
    let peers = &net.node("frank@acme").picture.as_ref().unwrap().peers;
    assert_eq!(peers[&erin].addrs[0].https, 7777);
    assert!(peers[&grace].certificate.is_some());
}

fn offered(net: &mut Network, to: &str, candidate: SignedGd) {
    let group = candidate.gd.group.clone();
    let peer = net.peer(to);
    net.tell(peer, Input::GdFetched { group, found: GdFound { candidates: vec![candidate], why: None } });
}

#[test]
fn an_older_gd_is_ignored_and_another_keys_gd_is_a_conflict() {
    let mut net = six();
    net.pass(MINUTE);
    let newest = net.node("bob@acme").brain.own_gd().unwrap().clone();
    let mut older = newest.gd.clone();
    older.version = 3;
    older.members.truncate(3);
    offered(&mut net, "bob@acme", sign_gd(older, newest.key));
    assert_eq!((net.status("bob@acme").gd_version, net.status("bob@acme").members.len()), (6, 6));
    assert!(net.status("bob@acme").conflicts.is_empty());

    let mut forged = newest.gd.clone();
    forged.version = 99;
    forged.members.truncate(2);
    let other_key = Fingerprint::new([7; 20]);
    offered(&mut net, "bob@acme", sign_gd(forged, other_key));
    let status = net.status("bob@acme");
    assert_eq!((status.gd_version, status.members.len()), (6, 6));
    assert_eq!(status.conflicts[0].others, BTreeSet::from([other_key]));
    assert_eq!(status.conflicts[0].pinned, newest.key);

    // Of two that one key signed the one with the smaller digest is taken, wherever it comes first.
    let mut forks = (0..).map(|at| {
        let mut fork = newest.gd.clone();
        fork.at.0 += at;
        fork.members.truncate(2);
        sign_gd(fork, newest.key)
    });
    let greater = forks.find(|fork| digest(fork) > digest(&newest)).unwrap();
    offered(&mut net, "bob@acme", greater);
    assert_eq!(net.status("bob@acme").conflicts[0].forked_versions, BTreeSet::from([6]));
    assert_eq!(net.status("bob@acme").members.len(), 6);
    let smaller = forks.find(|fork| digest(fork) < digest(&newest)).unwrap();
    offered(&mut net, "bob@acme", smaller);
    assert_eq!(net.status("bob@acme").members.len(), 2);
    let shown = net.status("bob@acme").conflicts;
    net.restart("bob@acme");
    assert_eq!(net.status("bob@acme").conflicts, shown, "kept over a restart");
}

#[test]
fn r11_a_members_key_changes_only_by_the_group_key_and_the_change_is_shown_and_kept() {
    let mut net = six();
    net.pass(MINUTE);
    let newest = net.node("bob@acme").brain.own_gd().unwrap().clone();
    let mut changed = newest.gd.clone();
    changed.version = 7;
    let carol = changed.members.iter_mut().find(|m| m.address == "carol@acme".parse().unwrap()).unwrap();
    let before = carol.fingerprint;
    carol.fingerprint = Fingerprint::new([9; 20]);
    offered(&mut net, "bob@acme", sign_gd(changed.clone(), Fingerprint::new([7; 20])));
    assert!(net.status("bob@acme").key_changes.is_empty(), "somebody else signed it");
    assert_eq!(net.status("bob@acme").gd_version, 6);
    offered(&mut net, "bob@acme", sign_gd(changed, newest.key));
    net.restart("bob@acme");
    let status = net.status("bob@acme");
    assert_eq!((status.gd_version, status.key_changes.len()), (7, 1));
    let change = &status.key_changes[0];
    assert_eq!(
        (change.address.to_string(), change.from.1, change.to.1),
        ("carol@acme".to_owned(), before, Fingerprint::new([9; 20]))
    );
}

#[test]
fn a_clock_that_is_off_the_members_median_is_told() {
    let mut net = six();
    net.node("bob@acme").skew_ms = 600_000;
    net.pass(2 * MINUTE);
    let status = net.status("bob@acme");
    assert!(status.clock_off && (590_000..610_000).contains(&status.clock_offset_ms), "{}", status.clock_offset_ms);
    assert!(net.node("bob@acme").picture.as_ref().unwrap().clock_off);
    for address in ["alice@acme", "frank@acme"] {
        assert!(!net.status(address).clock_off, "{address}");
    }
}

#[test]
fn after_a_start_the_clock_is_doubtful_until_a_members_agrees() {
    let mut net = six();
    net.pass(MINUTE);
    let doubtful = |net: &mut Network| net.node("bob@acme").picture.as_ref().unwrap().clock_doubtful;
    assert!(!doubtful(&mut net));
    net.kill("bob@acme");
    net.node("bob@acme").skew_ms = 30 * 86_400_000;
    net.restart("bob@acme");
    assert!(net.node("bob@acme").brain.current().clock_doubtful, "before anybody answered");
    net.pass(5 * MINUTE);
    assert!(doubtful(&mut net) && net.status("bob@acme").clock_off);
    net.node("bob@acme").skew_ms = 0;
    net.pass(MINUTE);
    assert!(!doubtful(&mut net) && !net.status("bob@acme").clock_off);
}

#[test]
fn a_clock_that_is_set_while_the_peer_runs_is_doubtful_before_anybody_answered() {
    let mut net = six();
    net.pass(MINUTE);
    assert!(!net.node("bob@acme").brain.current().clock_doubtful);
    net.node("bob@acme").skew_ms = 30 * 86_400_000;
    let (bob, group) = (net.peer("bob@acme"), "elsewhere".parse().unwrap());
    net.tell(bob, Input::Wanted { group });
    assert!(net.node("bob@acme").brain.current().clock_doubtful, "whatever it is told first");
    net.pass(5 * MINUTE);
    assert!(net.status("bob@acme").clock_off, "it was compared");
    net.node("bob@acme").skew_ms = 0;
    net.pass(2 * MINUTE);
    assert!(!net.node("bob@acme").brain.current().clock_doubtful, "and again once it is right");
}

#[test]
fn a_clock_is_compared_as_soon_as_a_member_calls() {
    let mut net = six();
    net.pass(MINUTE);
    net.node("bob@acme").skew_ms = 600_000;
    for caller in ["carol@acme", "dave@acme", "erin@acme", "frank@acme"].map(|name| net.peer(name)) {
        let plain = crate::model::group::Heartbeat { at: net.now.wall, gd_version: 6, ..Default::default() };
        let beat = Box::new(super::Beat { plain, ..Default::default() });
        net.ask("bob@acme", |token| Input::Heartbeat { token, caller, beat });
    }
    assert!(net.node("bob@acme").picture.as_ref().unwrap().clock_doubtful, "no heartbeat of its own was due");
}

#[test]
fn a_peer_that_hears_nobody_trusts_its_clock_after_a_minute_and_one_without_members_at_once() {
    let mut net = Network::new();
    net.start("alice@acme");
    assert!(!net.node("alice@acme").picture.as_ref().unwrap().clock_doubtful);
    let mut net = six();
    net.pass(MINUTE);
    for address in SIX {
        net.kill(address);
    }
    net.restart("bob@acme");
    assert!(net.node("bob@acme").brain.current().clock_doubtful);
    net.pass(Duration::from_secs(59));
    assert!(net.node("bob@acme").brain.current().clock_doubtful);
    net.pass(Duration::from_secs(2));
    assert!(!net.node("bob@acme").picture.as_ref().unwrap().clock_doubtful);
    assert!(!net.status("bob@acme").clock_off);
}

#[test]
fn a_stranger_is_no_member_and_gets_no_answer_to_a_heartbeat() {
    let mut net = six();
    net.start("mallory@acme");
    let caller = net.peer("mallory@acme");
    let beat = Box::default();
    let reply = net.ask("alice@acme", |token| Input::Heartbeat { token, caller, beat });
    assert!(matches!(refusal(reply), GroupError::NotMember { gd_version: 6, .. }));
}

#[test]
fn what_was_replayed_from_a_compacted_journal_is_the_same_again() {
    let mut net = six();
    net.pass(5 * MINUTE);
    net.invite("alice@acme", "grace");
    let before = net.node("alice@acme").brain.snapshot();
    net.kill("alice@acme");
    net.restart("alice@acme");
    assert_eq!(net.node("alice@acme").brain.snapshot(), before);
}
