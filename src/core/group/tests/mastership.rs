//! Who acts, through deaths, cuts, long times and in large groups.

use std::time::Duration;

use super::network::Network;
use super::{MINUTE, SIX, lost, master, six, six_with};
use crate::core::group::{Beat, BeatAnswer, Errand, Input, Role};
use crate::model::group::{Heartbeat, HeartbeatAnswer, View};
use crate::model::{Policy, Span, WallTime};
use crate::wire::PeerKey;

const HOUR: Duration = Duration::from_secs(3600);

fn agreed_view(net: &Network, addresses: &[&str], by: &str) {
    let first = net.status(addresses[0]).view_at;
    for address in addresses {
        let status = net.status(address);
        assert_eq!(master(net, address), by, "{address}");
        assert_eq!((status.view_at, status.view_by.unwrap().to_string()), (first, by.to_owned()), "{address}");
    }
}

#[test]
fn after_a_cut_into_halves_is_healed_one_acts_all_have_its_view_and_nobody_is_lost() {
    let mut net = six_with(Policy { lost_after: Span::secs(120), ..Policy::default() });
    net.pass(5 * MINUTE);
    net.cut_off(&["alice@acme", "carol@acme", "erin@acme"]);
    net.pass(10 * MINUTE);
    agreed_view(&net, &["alice@acme", "carol@acme", "erin@acme"], "alice@acme");
    agreed_view(&net, &["bob@acme", "dave@acme", "frank@acme"], "bob@acme");
    // Each half sees half: each keeps more copies than are needed, and none fewer.
    assert_eq!(lost(&net, "erin@acme"), ["bob@acme", "dave@acme", "frank@acme"]);
    assert_eq!(lost(&net, "frank@acme"), ["alice@acme", "carol@acme", "erin@acme"]);
    net.heal();
    net.pass(3 * MINUTE);
    agreed_view(&net, &SIX, "alice@acme");
    for address in SIX {
        assert!(lost(&net, address).is_empty(), "{address}");
        assert_eq!(net.status(address).gd_version, 6, "{address}");
    }
    let written = net.events();
    net.pass(10 * MINUTE);
    assert_eq!(net.events(), written, "and then it rests");
}

#[test]
fn each_acting_master_that_dies_is_followed_within_40_s() {
    let mut net = six();
    net.pass(5 * MINUTE);
    for (dies, next) in [("alice@acme", "bob@acme"), ("bob@acme", "carol@acme"), ("carol@acme", "dave@acme")] {
        net.kill(dies);
        net.pass(Duration::from_secs(40));
        assert_eq!(master(&net, next), next, "after {dies}");
        net.pass(MINUTE);
        assert_eq!(net.status("frank@acme").view_by.unwrap().to_string(), next);
    }
}

#[test]
fn the_gd_never_expires_in_a_week_while_any_member_lives() {
    let mut net = Network::new();
    net.group_of(&["alice@acme", "bob@acme", "carol@acme"], Policy::default());
    for day in 0..7 {
        // One after the other dies; the last one is alone for days.
        match day {
            2 => net.kill("alice@acme"),
            4 => net.kill("bob@acme"),
            _ => {}
        }
        for hour in 0..24 {
            net.pass(HOUR);
            assert!(net.gd_expiry > net.now.wall, "day {day}, hour {hour}");
        }
    }
    assert!(net.node("carol@acme").asked["put gd"] >= 5);
}

#[test]
fn a_hundred_members_agree_on_who_acts_and_beat_to_two_each() {
    let names: Vec<String> = (0..100).map(|i| format!("m{i:02}@acme")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut net = Network::new();
    net.group_of(&names, Policy::default());
    net.pass(2 * MINUTE);
    assert!(names.iter().all(|name| net.status(name).members.len() == 100));
    agreed_view(&net, &names, "m00@acme");
    for name in &names {
        net.node(name).asked.clear();
    }
    net.pass(5 * MINUTE);
    assert!(names.iter().all(|name| net.node(name).asked.get("beat") == Some(&60)));
    net.kill("m00@acme");
    net.pass(Duration::from_secs(40));
    assert_eq!(master(&net, "m01@acme"), "m01@acme");
    net.pass(MINUTE);
    agreed_view(&net, &names[1..], "m01@acme");
    net.restart("m00@acme");
    net.pass(2 * MINUTE);
    agreed_view(&net, &names, "m00@acme");
}

#[test]
fn r3_a_clock_that_was_found_to_be_off_is_not_trusted_because_nobody_is_heard_any_more() {
    let mut net = six();
    net.node("frank@acme").skew_ms = 8 * 24 * 3_600_000;
    net.pass(2 * MINUTE);
    assert!(net.status("frank@acme").clock_off);
    net.cut_off(&["frank@acme"]);
    net.pass(30 * MINUTE);
    assert!(net.status("frank@acme").clock_off, "nobody said otherwise");
    net.node("frank@acme").skew_ms = 0;
    net.heal();
    net.pass(3 * MINUTE);
    assert!(!net.status("frank@acme").clock_off);
}

#[test]
fn r7_who_is_no_member_any_more_is_not_held_to_what_the_members_clocks_said() {
    // Most clocks that he hears are wrong when frank is removed, and nobody answers him since.
    let mut net = six();
    net.pass(2 * MINUTE);
    for name in ["alice@acme", "bob@acme"] {
        net.node(name).skew_ms = 8 * 24 * 3_600_000;
    }
    net.pass(2 * MINUTE);
    assert!(net.status("frank@acme").clock_off, "they act, so he hears them");
    let address = "frank@acme".parse().unwrap();
    net.ask("alice@acme", |token| Input::Remove { token, address });
    net.pass(MINUTE);
    assert_eq!(net.status("frank@acme").role, Role::Removed);
    assert!(!net.node("frank@acme").picture.as_ref().unwrap().clock_doubtful);
    let status = net.status("frank@acme");
    assert_eq!((status.clock_off, status.clock_offset_ms), (false, 0));

    // A clock that is set afterwards is doubted for a minute, as at a start.
    net.node("frank@acme").skew_ms = 3_600_000;
    let (frank, group) = (net.peer("frank@acme"), "elsewhere".parse().unwrap());
    net.tell(frank, Input::Wanted { group });
    assert!(net.node("frank@acme").brain.current().clock_doubtful);
    net.pass(2 * MINUTE);
    assert!(!net.node("frank@acme").brain.current().clock_doubtful);
}

#[test]
fn r7_the_last_member_is_not_held_to_the_clocks_of_those_who_went() {
    let mut net = Network::new();
    net.group_of(&["alice@acme", "bob@acme", "carol@acme"], Policy::default());
    net.pass(2 * MINUTE);
    for name in ["bob@acme", "carol@acme"] {
        net.node(name).skew_ms = 8 * 24 * 3_600_000;
    }
    net.pass(2 * MINUTE);
    assert!(net.status("alice@acme").clock_off);
    for name in ["bob@acme", "carol@acme"] {
        let address = name.parse().unwrap();
        net.ask("alice@acme", |token| Input::Remove { token, address });
    }
    net.pass(MINUTE);
    assert_eq!(net.status("alice@acme").members.len(), 1);
    assert!(!net.node("alice@acme").picture.as_ref().unwrap().clock_doubtful);
}

/// Found by the drill `clock-jump`: bob heard carol first, whose clock had jumped as far, and for a second or two took his own for
/// right; carol hears alice and bob alone, and went on to do so. Mails that waited for them expired.
#[test]
fn r3_two_clocks_that_jumped_alike_do_not_find_each_other_right() {
    let mut net = six();
    net.pass(2 * MINUTE);
    let far = 9 * 24 * 3_600_000;
    net.node("carol@acme").skew_ms = far;
    net.pass(MINUTE);
    assert!(net.node("carol@acme").brain.current().clock_doubtful);
    net.node("bob@acme").skew_ms = far;
    let (bob, carol) = (net.peer("bob@acme"), net.peer("carol@acme"));
    let at = WallTime(net.now.wall.0 + 9 * 24 * 3_600_000);
    let plain = Heartbeat { at, gd_version: 6, ..Default::default() };
    let beat = Box::new(Beat { plain, ..Default::default() });
    net.tell(bob, Input::Wanted { group: "elsewhere".parse().unwrap() });
    net.ask("bob@acme", |token| Input::Heartbeat { token, caller: carol, beat });
    assert!(net.node("bob@acme").brain.current().clock_doubtful, "the first that he hears");
    for _ in 0..30 {
        net.pass(Duration::from_secs(10));
        for name in ["bob@acme", "carol@acme"] {
            assert!(net.node(name).brain.current().clock_doubtful, "{name}");
        }
        assert!(!net.node("dave@acme").brain.current().clock_doubtful);
    }
    net.node("bob@acme").skew_ms = 0;
    net.node("carol@acme").skew_ms = 0;
    net.pass(2 * MINUTE);
    for name in ["bob@acme", "carol@acme"] {
        assert!(!net.node(name).brain.current().clock_doubtful, "{name} is right again");
    }
}

#[test]
fn clocks_of_most_that_were_set_together_are_right() {
    let mut net = six();
    net.pass(2 * MINUTE);
    for name in ["alice@acme", "bob@acme", "carol@acme", "dave@acme", "erin@acme", "frank@acme"] {
        net.node(name).skew_ms = 3_600_000;
    }
    net.pass(2 * MINUTE);
    for name in ["alice@acme", "bob@acme", "frank@acme"] {
        assert!(!net.node(name).brain.current().clock_doubtful, "{name}");
    }
}

/// The times that a lie may bear: one that is over, soon, and never.
const TIMES: [i64; 5] = [-60_000, 1000, 60_000, 86_400_000, i64::MAX];

/// `by` answers these that carol counts as lost, as nobody else has found.
fn lies(net: &mut Network, by: &str, to: &[&str], ahead_ms: i64) {
    let at = match ahead_ms {
        i64::MAX => WallTime(u64::MAX),
        ms => WallTime(net.now.wall.0.checked_add_signed(ms).unwrap()),
    };
    lies_at(net, by, to, at);
}

/// As [`lies`], in a view of that time.
fn lies_at(net: &mut Network, by: &str, to: &[&str], at: WallTime) {
    let key = PeerKey::from_seed(blake3::hash(by.as_bytes()).as_bytes());
    let (master, gd_version, lost) = (key.peer_id(), 6, [net.peer("carol@acme")].into());
    let view = key.sign(View { group: "acme".parse().unwrap(), gd_version, master, at, lost });
    for address in to {
        let plain = HeartbeatAnswer { gd_version, at: net.now.wall, ..Default::default() };
        let answer = BeatAnswer { plain, view: Some(view.clone()), gd: None, descriptors: Vec::new() };
        let (peer, errand) = (net.peer(address), Errand { regular: false, introduced: false });
        net.tell(peer, Input::HeartbeatAnswered { peer: master, errand, result: Ok(Box::new(answer)) });
    }
}

fn nobody_is_lost(net: &Network, addresses: &[&str]) {
    for address in addresses {
        assert!(lost(net, address).is_empty(), "{address}: {:?}", lost(net, address));
    }
}

#[test]
fn a_master_that_lied_is_believed_once_it_tells_the_truth_whatever_time_its_lie_bore() {
    for ahead in TIMES {
        let mut net = six();
        net.pass(5 * MINUTE);
        lies(&mut net, "alice@acme", &SIX[1..], ahead);
        for address in &SIX[1..] {
            assert_eq!(lost(&net, address), ["carol@acme"], "{address} goes by what the acting master says");
        }
        net.pass(MINUTE);
        agreed_view(&net, &SIX, "alice@acme");
        nobody_is_lost(&net, &SIX);
        let written = net.events();
        net.pass(10 * MINUTE);
        assert_eq!(net.events(), written, "{ahead}: and then it rests");
    }
}

/// Who told both was asked for another one than of that time only, and so by nobody.
#[test]
fn a_false_view_of_the_time_of_the_true_one_goes_when_its_master_tells_the_truth() {
    let mut net = six();
    net.pass(5 * MINUTE);
    let at = net.status("bob@acme").view_at.unwrap();
    lies_at(&mut net, "alice@acme", &SIX[1..], at);
    assert_eq!(lost(&net, "frank@acme"), ["carol@acme"]);
    net.pass(MINUTE);
    agreed_view(&net, &SIX, "alice@acme");
    nobody_is_lost(&net, &SIX);
}

/// It bore the end of time, and no view was ever later: carol was lost for good.
#[test]
fn a_false_view_does_not_outlive_the_master_that_signed_it() {
    for ahead in TIMES {
        let mut net = six();
        net.pass(5 * MINUTE);
        lies(&mut net, "alice@acme", &SIX[1..], ahead);
        net.kill("alice@acme");
        net.pass(3 * MINUTE);
        agreed_view(&net, &SIX[1..], "bob@acme");
        nobody_is_lost(&net, &SIX[1..]);
        assert!(net.status("bob@acme").view_at.unwrap() <= net.now.wall, "{ahead}: its time is not carried on");
        net.kill("bob@acme");
        net.pass(3 * MINUTE);
        agreed_view(&net, &SIX[2..], "carol@acme");
        net.restart("alice@acme");
        net.restart("bob@acme");
        net.pass(3 * MINUTE);
        agreed_view(&net, &SIX, "alice@acme");
        nobody_is_lost(&net, &SIX);
    }
}

/// Its own lie is in its journal, and bears a time that never comes.
#[test]
fn a_master_that_finds_its_own_false_view_at_its_start_takes_over_with_a_true_one() {
    for ahead in TIMES {
        let mut net = six();
        net.pass(5 * MINUTE);
        net.kill("bob@acme");
        net.pass(2 * MINUTE);
        lies(&mut net, "alice@acme", &["alice@acme", "dave@acme"], ahead);
        net.kill("alice@acme");
        net.restart("alice@acme");
        net.restart("bob@acme");
        net.pass(3 * MINUTE);
        agreed_view(&net, &SIX, "alice@acme");
        nobody_is_lost(&net, &SIX);
        assert!(net.status("bob@acme").view_at.unwrap() <= net.now.wall + MINUTE, "{ahead}");
    }
}

/// Every heartbeat of it would be answered with a true one, and each of them written.
#[test]
fn who_does_not_act_is_not_believed_and_makes_nobody_write() {
    for ahead in TIMES {
        let mut net = six();
        net.pass(5 * MINUTE);
        let written = net.events();
        for _ in 0..20 {
            lies(&mut net, "bob@acme", &["alice@acme", "carol@acme", "dave@acme", "erin@acme", "frank@acme"], ahead);
            nobody_is_lost(&net, &SIX);
            net.pass(Duration::from_secs(10));
        }
        agreed_view(&net, &SIX, "alice@acme");
        assert_eq!(net.events(), written, "{ahead}");
    }
}

/// Two that do not see each other, and all others see both: the views of both came to both, and each answered with another.
#[test]
fn two_that_both_act_as_others_see_both_rest() {
    let mut net = six_with(Policy { lost_after: Span::secs(120), ..Policy::default() });
    net.pass(5 * MINUTE);
    net.part("alice@acme", "bob@acme");
    net.pass(10 * MINUTE);
    agreed_view(&net, &["alice@acme", "carol@acme", "dave@acme", "erin@acme", "frank@acme"], "alice@acme");
    assert_eq!(lost(&net, "frank@acme"), ["bob@acme"]);
    let written = net.events();
    net.pass(10 * MINUTE);
    assert_eq!(net.events(), written, "nobody writes");
    net.heal();
    net.pass(3 * MINUTE);
    agreed_view(&net, &SIX, "alice@acme");
    nobody_is_lost(&net, &SIX);
}

#[test]
fn a_master_whose_clock_is_far_off_is_followed_and_so_is_the_one_after_it() {
    for days in [1, 365] {
        let mut net = six_with(Policy { lost_after: Span::secs(120), ..Policy::default() });
        net.pass(5 * MINUTE);
        net.node("alice@acme").skew_ms = days * 86_400_000;
        net.kill("frank@acme");
        net.pass(5 * MINUTE);
        assert_eq!(lost(&net, "erin@acme"), ["frank@acme"], "its clock says nothing about who is silent");
        net.kill("alice@acme");
        net.restart("frank@acme");
        net.pass(5 * MINUTE);
        agreed_view(&net, &SIX[1..], "bob@acme");
        assert_eq!(lost(&net, "erin@acme"), ["alice@acme"]);
        net.node("alice@acme").skew_ms = 0;
        net.restart("alice@acme");
        net.pass(3 * MINUTE);
        agreed_view(&net, &SIX, "alice@acme");
        nobody_is_lost(&net, &SIX);
    }
}
