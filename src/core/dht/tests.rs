use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{ProptestConfig, prop_assert, proptest};

use super::sim::{HOUR, Net, ns, password, text};
use super::{Action, Dht, DhtError, Input, Limits, Place, PutDone, Reply, Room};
use crate::core::{Brain as _, Effect, Token};
use crate::model::dht::K_CLOSEST;
use crate::model::{Digest, MonoTime, Now, PeerId, WallTime};
use crate::wire::PeerKey;
use crate::wire::dht::{Answer, List, Listing, Op, Refusal, Request};

#[test]
fn several_values_of_a_key_are_read_by_every_peer() {
    let mut net = Net::new(20);
    let (a, b) = (net.order[0], net.order[7]);
    for (peer, value) in [(a, "one"), (b, "two"), (a, "three")] {
        let done = net.put(peer, &ns(1), value, 1, HOUR).unwrap();
        assert_eq!((done.stored, done.asked), (K_CLOSEST, K_CLOSEST));
    }
    net.put(a, &ns(2), "other", 1, HOUR).unwrap();
    for peer in net.order.clone() {
        assert_eq!(net.get(peer, &ns(1)), ["one", "three", "two"]);
    }
    assert_eq!(net.get(b, &ns(3)), Vec::<String>::new());
}

#[test]
fn a_lone_peer_keeps_entries_and_hands_them_to_who_comes() {
    let mut net = Net::new(1);
    let alone = net.order[0];
    assert_eq!(net.put(alone, &ns(1), "early", 1, HOUR).unwrap().stored, 1);
    let second = net.start();
    net.pass(Duration::from_secs(3));
    net.kill(alone);
    assert_eq!(net.get(second, &ns(1)), ["early"]);
}

#[test]
fn only_the_password_deletes_and_what_is_deleted_stays_deleted() {
    let mut net = Net::new(12);
    let (a, b) = (net.order[0], net.order[5]);
    net.put(a, &ns(1), "kept", 1, HOUR).unwrap();
    net.put(a, &ns(1), "gone", 2, HOUR).unwrap();
    assert_eq!(net.del(b, &ns(1), "gone", 1), Err(DhtError::WrongPassword));
    assert_eq!(net.del(b, &ns(1), "never there", 1), Err(DhtError::NotFound));
    assert_eq!(net.get(b, &ns(1)), ["gone", "kept"]);
    assert_eq!(net.del(b, &ns(1), "gone", 2), Ok(K_CLOSEST));
    // Twice is no harm, and the password must be right even then.
    assert_eq!(net.del(b, &ns(1), "gone", 2), Ok(K_CLOSEST));
    assert_eq!(net.get(a, &ns(1)), ["kept"]);
    assert_eq!(net.put(a, &ns(1), "gone", 2, HOUR * 2), Err(DhtError::Deleted));
    assert_eq!(net.get(b, &ns(1)), ["kept"]);
    // The tombstone now lasts as long as the renewal would have.
    net.pass(HOUR + Duration::from_secs(60));
    assert_eq!(net.put(a, &ns(1), "gone", 2, HOUR / 2), Err(DhtError::Deleted));
}

#[test]
fn entries_and_tombstones_expire_on_time() {
    let mut net = Net::new(10);
    let a = net.order[0];
    let minute = Duration::from_secs(60);
    net.put(a, &ns(1), "short", 1, minute).unwrap();
    net.put(a, &ns(1), "long", 1, minute * 3).unwrap();
    net.put(a, &ns(1), "deleted", 1, minute).unwrap();
    net.del(a, &ns(1), "deleted", 1).unwrap();
    net.pass(Duration::from_secs(58));
    assert_eq!(net.get(a, &ns(1)), ["long", "short"]);
    net.pass(Duration::from_secs(2));
    assert_eq!(net.get(net.order[3], &ns(1)), ["long"]);
    assert_eq!(net.status(a).tombstones, 0);
    net.pass(minute * 2);
    assert!(net.order.iter().all(|peer| net.status(*peer).keys == 0));
}

#[test]
fn validity_and_size_are_bounded() {
    let mut net = Net::new(3);
    let a = net.order[0];
    let refused = |why| Err(DhtError::Refused { why, stored: 0 });
    assert_eq!(net.put(a, &ns(1), "x", 1, Duration::ZERO), refused(Refusal::Expired));
    assert_eq!(net.put(a, &ns(1), "x", 1, HOUR * 24 * 61), refused(Refusal::TooLong));
    assert!(net.put(a, &ns(1), "x", 1, HOUR * 24 * 60).is_ok());
    let large = "x".repeat(64 * 1024 + 1);
    assert!(matches!(net.put(a, &ns(1), &large, 1, HOUR), Err(DhtError::TooLarge { .. })));
    assert!(net.put(a, &ns(1), &large[1..], 1, HOUR).is_ok());
}

#[test]
fn a_renewal_prolongs_and_is_still_one_entry() {
    let mut net = Net::new(10);
    let a = net.order[0];
    let first = net.put(a, &ns(1), "x", 1, HOUR).unwrap();
    net.pass(HOUR / 2);
    assert_eq!(net.put(a, &ns(1), "x", 1, HOUR).unwrap().id, first.id);
    net.pass(HOUR - Duration::from_secs(10));
    assert_eq!(net.get(a, &ns(1)), ["x"]);
    net.pass(Duration::from_secs(10));
    assert!(net.get(a, &ns(1)).is_empty());
}

fn small_limits(key: u64, publisher: u64, total: u64) -> Limits {
    let room = |entries| Room { entries, bytes: 1 << 20 };
    Limits { key: room(key), publisher: room(publisher), total: room(total) }
}

#[test]
fn quotas_refuse_strangers_first_and_drop_nothing() {
    let mut net = Net::with_limits(4, small_limits(8, 6, 20), Limits::TOMBSTONES);
    let (stranger, member) = (net.order[0], net.order[1]);
    for peer in net.order.clone() {
        net.tell(peer, Input::Known(BTreeSet::from([member])));
    }
    let full = |why| Err(DhtError::Refused { why, stored: 0 });
    for n in 0..4 {
        net.put(stranger, &ns(1), &format!("stranger {n}"), 1, HOUR).unwrap();
    }
    assert_eq!(net.put(stranger, &ns(1), "one more", 1, HOUR), full(Refusal::KeyFull));
    for n in 0..4 {
        net.put(member, &ns(1), &format!("member {n}"), 1, HOUR).unwrap();
    }
    assert_eq!(net.put(member, &ns(1), "one more", 1, HOUR), full(Refusal::KeyFull));
    assert_eq!(net.get(member, &ns(1)).len(), 8);
    net.put(member, &ns(2), "5", 1, HOUR).unwrap();
    net.put(member, &ns(2), "6", 1, HOUR).unwrap();
    assert_eq!(net.put(member, &ns(2), "7", 1, HOUR), full(Refusal::PublisherFull));
    // What is deleted makes room.
    net.del(member, &ns(2), "5", 1).unwrap();
    net.put(member, &ns(2), "7", 1, HOUR).unwrap();
    assert_eq!(net.status(stranger).refused.keys().collect::<Vec<_>>(), ["key-full", "publisher-full"]);
}

#[test]
fn in_all_there_is_a_bound_too() {
    let mut net = Net::with_limits(2, small_limits(8, 20, 10), Limits::TOMBSTONES);
    let a = net.order[0];
    for n in 0..5 {
        net.put(a, &ns(n), "x", 1, HOUR).unwrap();
    }
    let full = Err(DhtError::Refused { why: Refusal::Full, stored: 0 });
    assert_eq!(net.put(a, &ns(5), "x", 1, HOUR), full, "a stranger gets half");
    for peer in net.order.clone() {
        net.tell(peer, Input::Known(BTreeSet::from([a])));
    }
    for n in 0..10 {
        net.put(a, &ns(n), "x", 1, HOUR).unwrap();
    }
    assert_eq!(net.put(a, &ns(11), "x", 1, HOUR), full);
}

#[test]
fn entries_outlive_all_their_first_holders_and_deleted_ones_do_not_come_back() {
    let mut net = Net::new(24);
    let reader = net.order[0];
    for n in 0..10 {
        net.put(reader, &ns(n), &format!("live {n}"), 1, HOUR * 24).unwrap();
        net.put(reader, &ns(n), "dead", 2, HOUR * 24).unwrap();
        net.del(reader, &ns(n), "dead", 2).unwrap();
    }
    // Everybody but the reader is replaced, two at a time.
    for round in 0..12 {
        let victims: Vec<PeerId> = net.alive().into_iter().skip(1).take(2).collect();
        victims.into_iter().for_each(|victim| net.kill(victim));
        net.start();
        net.start();
        net.pass(Duration::from_secs(if round % 2 == 0 { 60 } else { 900 }));
    }
    assert!(net.order[1..24].iter().all(|peer| !net.nodes[peer].alive));
    let newest = *net.order.last().unwrap();
    for n in 0..10 {
        assert_eq!(net.get(newest, &ns(n)), [format!("live {n}")]);
    }
}

#[test]
fn liars_neither_hide_nor_invent_entries() {
    let mut net = Net::new(16);
    let a = net.order[0];
    net.put(a, &ns(1), "true", 1, HOUR).unwrap();
    let mut by_distance = net.order.clone();
    let place = Place::of_key(&ns(1).hash());
    by_distance.sort_by_key(|peer| place.distance(&Place::of_peer(peer)));
    for liar in &by_distance[..5] {
        net.nodes.get_mut(liar).unwrap().liar = true;
    }
    for peer in net.order.clone() {
        assert_eq!(net.get(peer, &ns(1)), ["true"]);
    }
}

#[test]
fn a_poll_brings_what_is_new_and_what_is_gone_and_else_costs_little() {
    let mut net = Net::new(12);
    let (a, b) = (net.order[0], net.order[4]);
    for n in 0..50 {
        net.put(a, &ns(1), &format!("{n} {}", "x".repeat(1000)), 1, HOUR).unwrap();
    }
    let mut have: BTreeSet<Digest> = net.read(b, &ns(1), &BTreeSet::new()).entries.iter().map(|e| e.id).collect();
    assert_eq!(have.len(), 50);
    net.response_bytes = 0;
    let quiet = net.read(b, &ns(1), &have);
    assert!(quiet.entries.is_empty() && quiet.gone.is_empty() && quiet.complete);
    assert!(net.response_bytes < 1000, "{} bytes to say that nothing is new", net.response_bytes);
    let new = net.put(a, &ns(1), "new", 1, HOUR).unwrap().id;
    let put = net.put(a, &ns(1), "soon gone", 1, HOUR).unwrap().id;
    let polled = net.read(b, &ns(1), &have);
    assert_eq!(polled.entries.iter().map(|e| e.id).collect::<BTreeSet<_>>(), BTreeSet::from([new, put]));
    have.extend([new, put]);
    net.del(a, &ns(1), "soon gone", 1).unwrap();
    let polled = net.read(b, &ns(1), &have);
    assert!(polled.entries.is_empty());
    assert_eq!(polled.gone, [put]);
}

#[test]
fn a_poll_does_not_bring_back_what_a_peer_missed_the_deletion_of() {
    let mut net = Net::new(9);
    let reader = net.order[0];
    net.put(reader, &ns(1), "gone", 1, HOUR).unwrap();
    let holder = net.order.iter().copied().find(|peer| *peer != reader && net.status(*peer).entries == 1).unwrap();
    net.kill(holder);
    net.del(reader, &ns(1), "gone", 1).unwrap();
    assert!(net.get(reader, &ns(1)).is_empty());
    // It is back, with what it knew; all others have nothing new to say.
    net.nodes.get_mut(&holder).unwrap().alive = true;
    net.tell(reader, Input::PeerUp(holder));
    assert!(net.get(reader, &ns(1)).is_empty());
    net.pass(Duration::from_millis(20));
    assert_eq!((net.status(holder).entries, net.status(holder).tombstones), (0, 1), "the read told it");
}

#[test]
fn operations_for_one_peer_travel_together() {
    let mut net = Net::new(6);
    let a = net.order[0];
    net.put(a, &ns(0), "warm", 1, HOUR).unwrap();
    net.requests = 0;
    let expiry = net.now.wall + HOUR;
    let put = |n| move |token| Input::Put { token, key: ns(n), value: text("x"), password: password(1), expiry };
    let tokens: Vec<Token> = (0..30).map(|n| net.ask_later(a, put(n))).collect();
    for token in tokens {
        assert!(matches!(net.reply(token), Reply::Put(Ok(PutDone { stored: 6, .. }))));
    }
    assert_eq!(net.requests, 5, "one request to each other peer");
}

#[test]
fn large_values_are_read_in_bounded_responses() {
    let mut net = Net::new(9);
    let (a, b) = (net.order[0], net.order[8]);
    for n in 0..60 {
        net.put(a, &ns(1), &format!("{n:02}{}", "v".repeat(60_000)), 1, HOUR).unwrap();
    }
    for peer in [a, b] {
        assert_eq!(net.get(peer, &ns(1)).len(), 60);
    }
}

#[test]
fn an_idle_network_is_quiet() {
    let mut net = Net::new(6);
    let a = net.order[0];
    for n in 0..20 {
        net.put(a, &ns(n), "x", 1, HOUR * 24).unwrap();
    }
    net.pass(HOUR);
    net.requests = 0;
    net.pass(HOUR);
    // Six peers compare with five others about every ten minutes.
    assert!(net.requests <= 6 * 5 * 8, "{} requests in an idle hour", net.requests);
}

#[test]
fn too_many_requests_at_once_are_refused_and_the_others_done() {
    let mut net = Net::new(3);
    let a = net.order[0];
    let get = |n: usize| move |token| Input::Get { token, key: ns(n), have: BTreeSet::new(), watch: false };
    let tokens: Vec<Token> = (0..1100).map(|n| net.ask_later(a, get(n))).collect();
    let replies: Vec<Reply> = tokens.into_iter().map(|token| net.reply(token)).collect();
    let busy = replies.iter().filter(|r| matches!(r, Reply::Get(Err(DhtError::Busy { .. })))).count();
    assert_eq!(busy, 1100 - 1024);
    assert_eq!(net.status(a).under_way, 0);
}

#[test]
fn an_operation_from_a_later_version_is_answered_with_unsupported() {
    let mut net = Net::new(2);
    let (a, b) = (net.order[0], net.order[1]);
    let list = List { key: ns(1).hash(), values: true, have: vec![], unless: None };
    let ops = vec![Op::Unknown { kind: "later".to_owned() }, Op::List(list)];
    let dht = &mut net.nodes.get_mut(&a).unwrap().dht;
    dht.handle(net.now, Input::Serve { channel: 1, from: b, request: Request { ops } });
    let Some(Effect::Act(Action::Respond { channel: 1, response })) = dht.poll_effect() else { panic!() };
    assert_eq!(response.answers, [Answer::Unsupported, Answer::Listing(Listing::default())]);
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8),
    Del(usize, u8),
    WrongDel(usize, u8),
    Kill(usize),
    Start,
    Pass(u64),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::{Just, Strategy as _, any, prop_oneof};
    let place = || (0..3usize, 0..6u8);
    prop_oneof![
        4 => place().prop_map(|(k, v)| Step::Put(k, v)),
        2 => place().prop_map(|(k, v)| Step::Del(k, v)),
        1 => place().prop_map(|(k, v)| Step::WrongDel(k, v)),
        2 => any::<usize>().prop_map(Step::Kill),
        2 => Just(Step::Start),
        2 => (0..900u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES asks for more.
        cases: ProptestConfig::default().cases / 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn whatever_happens_live_values_are_read_and_deleted_ones_are_not(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let mut net = Net::new(14);
        let publisher = net.order[0];
        let mut live: BTreeMap<(usize, u8), WallTime> = BTreeMap::new();
        let mut dead = BTreeSet::new();
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    let validity = Duration::from_secs(600 * (1 + u64::from(v)));
                    let expiry = net.now.wall + validity;
                    match net.put(publisher, &ns(k), &format!("{v}"), v, validity) {
                        Ok(_) => drop(live.insert((k, v), expiry)),
                        Err(e) => prop_assert!(e == DhtError::Deleted && dead.contains(&(k, v)), "{e}"),
                    }
                }
                Step::Del(k, v) => {
                    if net.del(publisher, &ns(k), &format!("{v}"), v).is_ok() {
                        live.remove(&(k, v));
                        dead.insert((k, v));
                    }
                }
                Step::WrongDel(k, v) => {
                    let refused = net.del(publisher, &ns(k), &format!("{v}"), v + 100);
                    prop_assert!(refused.is_err());
                }
                Step::Kill(n) => {
                    let alive = net.alive();
                    if alive.len() > 9 {
                        net.kill(alive[1 + n % (alive.len() - 1)]);
                        net.pass(Duration::from_secs(20));
                    }
                }
                Step::Start => {
                    net.start();
                }
                Step::Pass(secs) => net.pass(Duration::from_secs(secs)),
            }
            let reader = *net.alive().last().unwrap();
            for k in 0..3 {
                let found = net.get(reader, &ns(k));
                let now = net.now.wall;
                let live = live.iter().filter(|((key, _), expiry)| *key == k && **expiry > now);
                let expected: Vec<String> = live.map(|((_, v), _)| format!("{v}")).collect();
                prop_assert!(found == expected, "{found:?} instead of {expected:?}");
            }
        }
    }
}

#[test]
fn a_watch_asks_few_while_nothing_is_new_and_sees_what_is() {
    for peers in [7, 30] {
        let mut net = Net::new(peers);
        let (reader, writer) = (net.order[0], net.order[1]);
        let first = net.put(writer, &ns(1), "old", 1, HOUR).unwrap().id;
        let asked = |net: &Net| net.status(reader).requests;
        let mut have = BTreeSet::new();
        assert_eq!(net.look(reader, &ns(1), &have, true).entries.len(), 1, "the first one reads all");
        have.insert(first);
        net.read(reader, &ns(1), &have);
        let before = asked(&net);
        for _ in 0..3 {
            let done = net.look(reader, &ns(1), &have, true);
            assert_eq!((done.entries.len(), done.kept, done.complete), (0, vec![first], true));
        }
        assert_eq!(asked(&net) - before, 6, "two peers each");
        let second = net.put(writer, &ns(1), "new", 1, HOUR).unwrap().id;
        let done = net.look(reader, &ns(1), &have, true);
        assert_eq!(done.entries.iter().map(|found| found.id).collect::<Vec<_>>(), [second]);
        assert!(done.answered > 4, "as soon as something is new, all are asked");
        have.insert(second);
        net.read(reader, &ns(1), &have);
        net.del(writer, &ns(1), "new", 1).unwrap();
        assert_eq!(net.look(reader, &ns(1), &have, true).gone, [second]);
        have.remove(&second);
        let before = asked(&net);
        for _ in 0..11 {
            net.look(reader, &ns(1), &have, true);
        }
        assert!(asked(&net) - before >= 20 + 6, "now and then all are asked");
    }
}

#[test]
fn a_group_that_was_switched_off_as_a_whole_still_knows_what_was_put_and_what_was_deleted() {
    let mut net = Net::new(6);
    let peers = net.order.clone();
    for n in 0..20 {
        net.put(peers[0], &ns(n), "live", 1, HOUR * 24).unwrap();
        net.put(peers[0], &ns(n), "short", 1, HOUR).unwrap();
        net.put(peers[0], &ns(n), "gone", 1, HOUR * 24).unwrap();
    }
    net.pass(Duration::from_secs(10));
    let old = net.nodes[&peers[5]].disk.clone();
    for n in 0..20 {
        net.del(peers[1], &ns(n), "gone", 1).unwrap();
    }
    net.pass(Duration::from_secs(10));
    let writes: Vec<usize> = peers.iter().map(|peer| net.nodes[peer].writes).collect();
    net.pass(HOUR / 2);
    let idle: Vec<usize> = peers.iter().map(|peer| net.nodes[peer].writes).collect();
    assert_eq!(writes, idle, "an idle peer writes nothing");
    for peer in &peers {
        net.kill(*peer);
    }
    // One was restored from an older disk.
    net.nodes.get_mut(&peers[5]).unwrap().disk = old;
    net.pass(HOUR);
    for peer in peers.iter().rev() {
        net.restart(*peer);
    }
    net.pass(Duration::from_secs(60));
    for peer in &peers {
        assert_eq!(net.status(*peer).entries, 20, "what expired meanwhile is not taken");
        for n in 0..20 {
            assert_eq!(net.get(*peer, &ns(n)), ["live"]);
        }
    }
    net.pass(Duration::from_secs(10));
    for peer in &peers {
        assert_eq!(net.nodes[peer].disk.len(), 40, "each disk has what its peer has");
        assert_eq!(net.status(*peer).unwritten, 0);
    }
}

#[test]
fn what_was_on_disk_comes_back_within_the_bounds() {
    let mut net = Net::new(1);
    let peer = net.order[0];
    for n in 0..10 {
        net.put(peer, &ns(n), "x", 1, HOUR).unwrap();
    }
    net.pass(Duration::from_secs(10));
    assert_eq!(net.nodes[&peer].disk.len(), 10);
    net.kill(peer);
    net.limits.0 = small_limits(10, 3, 10);
    net.restart(peer);
    net.pass(Duration::from_secs(10));
    assert_eq!((net.status(peer).entries, net.nodes[&peer].disk.len()), (3, 3));
}

#[test]
fn a_disk_that_is_full_is_tried_again_later() {
    let mut dht = Dht::new(PeerKey::from_seed(&[1; 32]), 1).kept_on_disk();
    let mut now = Now { mono: MonoTime(0), wall: WallTime(1_000_000) };
    let expiry = now.wall + HOUR;
    let put = Input::Put { token: Token(1), key: ns(1), value: text("x"), password: password(1), expiry };
    dht.handle(now, Input::Start);
    dht.handle(now, put);
    let look_up = |dht: &mut Dht| {
        std::iter::from_fn(|| dht.poll_effect()).find_map(|effect| match effect {
            Effect::Act(Action::FindClosest { key }) => Some(key),
            _ => None,
        })
    };
    let key = look_up(&mut dht).unwrap();
    dht.handle(now, Input::Closest { key, peers: Vec::new() });
    for tries in 0..3 {
        let mut changes = None;
        while changes.is_none() {
            now = now.after(dht.poll_timeout().unwrap().since(now.mono));
            dht.wake(now);
            changes = std::iter::from_fn(|| dht.poll_effect()).find_map(|effect| match effect {
                Effect::Act(Action::Keep { changes }) => Some(changes.len()),
                _ => None,
            });
        }
        assert_eq!((changes, dht.observe(now).unwritten), (Some(1), 1));
        assert!(now.mono >= MonoTime(0) + Duration::from_secs(60) * tries);
        dht.handle(now, Input::Kept(tries == 2));
    }
    assert_eq!(dht.observe(now).unwritten, 0);
}
