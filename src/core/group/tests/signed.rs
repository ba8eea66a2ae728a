//! Signed changes of keys, a member's and a group's, in whatever order a contact hears of them (R11).

use std::collections::BTreeSet;

use super::network::{Network, sign_gd};
use super::{MINUTE, six};
use crate::core::group::{GdFound, Input, Reply, SignedGd};
use crate::model::group::Member;
use crate::model::{Fingerprint, PeerId, Policy};

/// Gds after the one that rita's peer keeps of acme: without carol, then with her and another key.
fn carol_comes_back(net: &mut Network) -> (SignedGd, SignedGd, Member) {
    let held = net.node("rita@readers").brain.pins[&"acme".parse().unwrap()].gd.clone().unwrap();
    let carol = net.member("carol@acme");
    let mut without = held.gd.clone();
    without.version += 1;
    without.members.retain(|member| member.address != carol.address);
    let again = Member { peer_id: PeerId::new([8; 32]), fingerprint: Fingerprint::new([8; 20]), ..carol };
    let mut with = without.clone();
    with.version += 1;
    with.members.push(again.clone());
    (sign_gd(without, held.key), sign_gd(with, held.key), again)
}

/// Rita has a card of acme.
fn six_and_rita() -> Network {
    let mut net = six();
    net.start("rita@readers");
    net.create("rita@readers", Policy::default());
    let Reply::Card(card) = net.ask("bob@acme", |token| Input::MakeCard { token }) else { panic!() };
    net.ask("rita@readers", |token| Input::AddContact { token, card });
    net.pass(MINUTE);
    net
}

fn found(net: &mut Network, candidates: Vec<SignedGd>) {
    let (rita, group) = (net.peer("rita@readers"), "acme".parse().unwrap());
    net.tell(rita, Input::GdFetched { group, found: GdFound { candidates, why: None } });
}

#[test]
fn r11_a_member_that_comes_back_with_another_key_is_shown_in_whatever_order_its_peers_hear_of_it() {
    let mut net = six_and_rita();
    let before = net.member("carol@acme");
    let (without, with, since) = carol_comes_back(&mut net);
    let is_shown = |net: &Network, when: &str| {
        let changes = net.status("rita@readers").key_changes;
        let shown: Vec<_> = changes.iter().map(|c| (c.address.clone(), c.from, c.to)).collect();
        let (from, to) = ((before.peer_id, before.fingerprint), (since.peer_id, since.fingerprint));
        assert_eq!(shown, [(before.address.clone(), from, to)], "{when}");
    };
    for together in [[&without, &with], [&with, &without]] {
        let mut net = six_and_rita();
        found(&mut net, together.map(Clone::clone).to_vec());
        is_shown(&net, "both were found at once");
    }
    // One after the other, with a restart in between: the gd just before does not name her.
    found(&mut net, vec![without]);
    assert_eq!(net.status("rita@readers").key_changes, []);
    net.restart("rita@readers");
    found(&mut net, vec![with.clone()]);
    is_shown(&net, "one after the other");
    // Once is enough: she goes, and comes back as she was.
    for (later, is_named) in [(1, false), (2, true)] {
        let mut next = with.gd.clone();
        next.version += later;
        next.members.retain(|member| is_named || member.address != since.address);
        found(&mut net, vec![sign_gd(next, with.key)]);
        is_shown(&net, "she came back as she was");
    }
    net.restart("rita@readers");
    is_shown(&net, "kept over a restart");
}

#[test]
fn r11_of_candidates_found_at_once_the_end_of_the_chain_is_taken_and_two_of_one_version_are_shown_in_any_order() {
    let mut net = six_and_rita();
    let held = net.node("rita@readers").brain.pins[&"acme".parse().unwrap()].gd.clone().unwrap();
    let next = Fingerprint::new([9; 20]);
    // The key was stolen, and replaced: the thief goes on signing with it.
    let (_, mut theirs, _) = carol_comes_back(&mut net);
    theirs.gd.version += 90;
    let theirs = sign_gd(theirs.gd, held.key);
    let mut replaced = held.gd.clone();
    replaced.version += 1;
    replaced.handovers = vec![serde_bytes::ByteBuf::from(crate::wire::encode(&(held.key, next)))];
    let replaced = sign_gd(replaced, next);
    let mut two = held.gd.clone();
    two.policy.copies += 1;
    let two = sign_gd(two, held.key);
    for candidates in [[&theirs, &two, &replaced], [&replaced, &theirs, &two], [&two, &replaced, &theirs]] {
        let mut net = six_and_rita();
        found(&mut net, candidates.map(Clone::clone).to_vec());
        let status = net.status("rita@readers");
        assert_eq!((status.pins[0].key, status.pins[0].gd_version), (next, Some(replaced.gd.version)));
        assert_eq!(status.rotations.len(), 1, "the change is shown");
        assert_eq!(status.key_changes, [], "what the retired key says of carol is not believed, not for a moment");
        assert_eq!(status.conflicts[0].forked_versions, BTreeSet::from([held.gd.version]));
    }
    // Strangers' candidates, however many, do not hide the true one.
    let stranger = |n: u8| sign_gd(held.gd.clone(), Fingerprint::new([100 + n; 20]));
    let mut many: Vec<SignedGd> = (0..40).map(stranger).collect();
    many.push(replaced);
    found(&mut net, many);
    assert_eq!(net.status("rita@readers").pins[0].key, next);
}
