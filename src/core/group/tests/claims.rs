//! What a notification claims, against a pin that may be behind (R2, R11).

use std::collections::BTreeSet;

use super::network::Network;
use super::{MINUTE, six};
use crate::core::group::{Claim, Known, Standing, judge};
use crate::model::Fingerprint;
use crate::model::group::GroupDescriptor;

const OLD: [u8; 20] = [1; 20];
const NOW: [u8; 20] = [2; 20];
const LATER: [u8; 20] = [3; 20];

/// How a claim of `from` under a key stands to a pin of `NOW`, which came after `OLD`.
fn stands(net: &Network, gd: Option<&GroupDescriptor>, from: &str, key: [u8; 20], is_over: bool) -> Standing {
    let (address, group) = (from.parse().unwrap(), "acme".parse().unwrap());
    let fingerprint = net.member(from).fingerprint;
    let (pinned, retired) = (Fingerprint::new(NOW), BTreeSet::from([Fingerprint::new(OLD)]));
    let claim = Claim { from: &address, fingerprint, group_key: Fingerprint::new(key) };
    judge(&claim, &Known { group: &group, key: &pinned, retired: &retired, gd }, is_over)
}

#[test]
fn an_ns_that_names_the_key_before_or_the_key_after_is_not_refused_for_it() {
    let mut net = six();
    net.pass(MINUTE);
    let gd = net.node("bob@acme").brain.own_gd().unwrap().gd.clone();
    net.start("grace@acme");
    let alice = net.peer("alice@acme");
    for is_over in [false, true] {
        for key in [OLD, NOW] {
            assert_eq!(stands(&net, Some(&gd), "alice@acme", key, is_over), Standing::Named(alice));
            assert_eq!(stands(&net, None, "alice@acme", key, is_over), Standing::Pinned);
            // It may have joined since.
            assert!(matches!(stands(&net, Some(&gd), "grace@acme", key, is_over), Standing::NotYet(_)));
        }
        for (gd, from) in [(Some(&gd), "alice@acme"), (Some(&gd), "grace@acme"), (None, "alice@acme")] {
            // A gd that tells of the key may be on its way, and it may name who joined since: it is waited for, not for ever.
            let standing = stands(&net, gd, from, LATER, is_over);
            let waits = matches!(standing, Standing::NotYet(_));
            assert!(waits != is_over, "{from}: {standing:?}");
            assert!(waits || matches!(standing, Standing::Forged(_)));
        }
    }
}

#[test]
fn r11_a_key_that_the_group_does_not_name_for_its_member_is_forged() {
    let mut net = six();
    net.pass(MINUTE);
    let mut gd = net.node("bob@acme").brain.own_gd().unwrap().gd.clone();
    gd.members[0].fingerprint = Fingerprint::new([9; 20]);
    for key in [OLD, NOW] {
        assert!(matches!(stands(&net, Some(&gd), "alice@acme", key, true), Standing::Forged(_)));
    }
}
