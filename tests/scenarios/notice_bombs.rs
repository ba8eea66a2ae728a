//! An ns that is itself a decompression bomb is refused with a sentence, and costs the peer that gets it no memory (R9).

use std::fs;

use roost::actors::identity::Identity;
use roost::wire::notify::Notice;

use crate::harness::forged::{bomb_ns, compressed_ns};
use crate::harness::hostile::Hostile;
use crate::harness::{Team, wait_for};

/// What each bomb is once it is inflated: so much of it as fits, deflated, in the largest ns.
const INFLATED: usize = 56 << 20;
/// Most that the peer's memory may grow by, kB: far less than one of the bombs.
const GROWS_KB: u64 = 28 << 10;

/// A number that the kernel tells of the peer of `name`, kB.
fn memory_kb(team: &Team, name: &str, key: &str) -> u64 {
    let pid = team.peer(name).pid.unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn an_ns_that_is_a_bomb_is_refused_with_a_sentence_and_costs_no_memory() {
    let team = Team::of_two_groups();
    let mallory = Hostile::stranger(&team, "dave@acme");
    let rita = Identity::load(&team.home("rita")).unwrap().openpgp.certificate().clone();
    let posts = |sealed: &[u8]| {
        mallory.posts(&team, "rita", Notice::Ns { to: team.address("rita"), sealed: sealed.to_vec().into() })
    };
    // What a first refusal costs once and for all is no matter here.
    posts(&[7; 2000]).unwrap_err();
    let nested = [vec![1], vec![0x81; 3 << 20]].concat();
    let bombs = [
        ("a deflated record", bomb_ns(&vec![0; INFLATED], &rita), 413, "too large"),
        ("OpenPGP's compression", compressed_ns(&vec![0; INFLATED], &rita), 400, "malformed"),
        ("arrays in arrays", bomb_ns(&nested, &rita), 413, "too large"),
        ("arrays in arrays that fit", bomb_ns(&nested[..40_000], &rita), 400, "malformed"),
        ("an array of 2^60", bomb_ns(&[1, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], &rita), 400, "malformed"),
        (
            "a text of 2^60 bytes",
            bomb_ns(&[1, 0xa1, 0x61, b'h', 0x7b, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], &rita),
            400,
            "malformed",
        ),
    ];
    assert!(bombs.iter().all(|(_, sealed, ..)| sealed.len() <= 64 << 10), "they are small enough to be opened");
    let pid = team.peer("rita").pid.unwrap();
    // The most that it ever had counts from here.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let (anonymous, most) = (memory_kb(&team, "rita", "RssAnon:"), memory_kb(&team, "rita", "VmHWM:"));
    for _ in 0..5 {
        for (what, sealed, code, sentence) in &bombs {
            let (status, text) = posts(sealed).expect_err(what);
            eprintln!("{what}: {status} {text}");
            assert!(status == *code && text.contains(sentence), "{what}: {status} {text}");
        }
    }
    let (now, at_most) = (memory_kb(&team, "rita", "RssAnon:"), memory_kb(&team, "rita", "VmHWM:"));
    eprintln!("RssAnon {anonymous} kB, then {now}; at most {at_most} kB of all, {most} before");
    assert!(now < anonymous + GROWS_KB, "RssAnon was {anonymous} kB and is {now} kB");
    assert!(at_most < most + GROWS_KB, "it had {most} kB, and {at_most} kB at most since");
    assert_eq!(team.peer("rita").pid, Some(pid), "the peer lives");
    assert!(team.reader("rita").imap.uid_search("ALL").unwrap().is_empty(), "nothing is filed");

    let mail = team.submit("dave", &["rita"], team.letter("dave", "rita", 30_000));
    team.reader("rita").reads_in_the_end(&mail);
    wait_for("its sender knows", || team.waiting("dave").is_empty().then_some(()));
}
