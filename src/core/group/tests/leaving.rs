//! Members that leave by their own wish.

use super::network::Network;
use super::{MINUTE, refusal, six};
use crate::core::group::{GroupError, Input, Reply, Role};
use crate::model::group::LeaveStage;

fn leave(net: &mut Network, address: &str, stage: LeaveStage) -> Reply {
    net.ask(address, |token| Input::Leave { token, stage })
}

#[test]
fn a_member_on_its_way_out_is_placed_on_no_more_and_goes_when_it_says_so() {
    let mut net = six();
    net.pass(MINUTE);
    assert!(matches!(leave(&mut net, "frank@acme", LeaveStage::Begin), Reply::Changed { gd_version: 7, .. }));
    assert!(matches!(leave(&mut net, "frank@acme", LeaveStage::Begin), Reply::Changed { gd_version: 7, .. }), "twice");
    net.pass(MINUTE);
    let frank = net.peer("frank@acme");
    for address in ["alice@acme", "frank@acme"] {
        let roster = net.node(address).picture.as_ref().unwrap().roster.clone();
        assert!(roster.lost.contains(&frank) && roster.has(&frank), "{address}");
        let shown = net.status(address).members.into_iter().find(|m| m.peer_id == frank).unwrap();
        assert!(shown.leaving && !shown.lost, "{address}");
    }
    assert!(matches!(leave(&mut net, "frank@acme", LeaveStage::Go), Reply::Changed { gd_version: 8, .. }));
    assert_eq!(net.status("frank@acme").role, Role::Left);
    net.pass(MINUTE);
    assert_eq!(net.status("bob@acme").members.len(), 5);
    net.restart("frank@acme");
    assert_eq!(net.status("frank@acme").role, Role::Left, "over a restart");
    assert!(matches!(refusal(leave(&mut net, "frank@acme", LeaveStage::Go)), GroupError::NoGroup { .. }));
    let invite = net.invite("alice@acme", "frank");
    assert!(matches!(net.join("frank@acme", &invite), Reply::Joined { gd_version: 9, members: 6 }));
    assert_eq!(net.status("frank@acme").role, Role::Member);
    net.restart("frank@acme");
    assert_eq!(net.status("frank@acme").role, Role::Member);
}

#[test]
fn a_member_on_its_way_out_that_falls_silent_is_still_on_its_way_out() {
    let mut net = six();
    net.pass(MINUTE);
    leave(&mut net, "frank@acme", LeaveStage::Begin);
    net.pass(MINUTE);
    let frank = net.peer("frank@acme");
    let roster = |net: &mut Network| net.node("bob@acme").picture.as_ref().unwrap().roster.clone();
    assert!(roster(&mut net).counts(&frank), "it is there");
    net.kill("frank@acme");
    net.pass(MINUTE * 90);
    let roster = roster(&mut net);
    assert!(roster.leaving.contains(&frank) && roster.lost.contains(&frank) && !roster.counts(&frank));
    assert_eq!(roster.staying().count(), 4);
}

#[test]
fn who_thought_better_of_it_stays() {
    let mut net = six();
    net.pass(MINUTE);
    leave(&mut net, "frank@acme", LeaveStage::Begin);
    assert!(matches!(leave(&mut net, "frank@acme", LeaveStage::Stay), Reply::Changed { gd_version: 8, .. }));
    net.pass(MINUTE);
    assert!(net.node("alice@acme").picture.as_ref().unwrap().roster.lost.is_empty());
}

#[test]
fn the_last_holder_of_the_key_hands_it_on_before_it_leaves() {
    let mut net = six();
    net.pass(MINUTE);
    let error = refusal(leave(&mut net, "alice@acme", LeaveStage::Begin)).to_string();
    assert!(error.contains("last that holds the group key") && error.contains("roost group grant"), "{error}");
    let address = "bob@acme".parse().unwrap();
    net.ask("alice@acme", |token| Input::Grant { token, address });
    net.kill("bob@acme");
    let error = refusal(leave(&mut net, "alice@acme", LeaveStage::Go)).to_string();
    assert!(error.contains("no holder of the group key wrote it down"), "{error}");
    net.restart("bob@acme");
    net.pass(MINUTE);
    let before = net.status("alice@acme").group_key;
    assert!(matches!(leave(&mut net, "alice@acme", LeaveStage::Go), Reply::Changed { gd_version: 8, .. }));
    assert_eq!(net.status("alice@acme").role, Role::Left);
    net.pass(MINUTE);
    let status = net.status("carol@acme");
    assert_eq!(status.members.len(), 5);
    assert_ne!(status.group_key, before, "a holder that leaves takes an old key along, not the group's");
    assert!(net.status("bob@acme").key_here);
}

#[test]
fn who_is_alone_has_nobody_to_leave_to() {
    let mut net = Network::new();
    net.start("alice@acme");
    assert!(matches!(refusal(leave(&mut net, "alice@acme", LeaveStage::Begin)), GroupError::NoGroup { .. }));
    net.create("alice@acme", crate::model::Policy::default());
    assert!(matches!(refusal(leave(&mut net, "alice@acme", LeaveStage::Begin)), GroupError::OnlyMember { .. }));
}

#[test]
fn nobody_leaves_for_somebody_else() {
    let mut net = six();
    net.start("mallory@acme");
    let caller = net.peer("mallory@acme");
    let reply = net.ask("alice@acme", |token| Input::AdmitLeave { token, caller, stage: LeaveStage::Go });
    assert!(matches!(refusal(reply), GroupError::NotMember { .. }));
    assert_eq!(net.status("alice@acme").members.len(), 6);
}
