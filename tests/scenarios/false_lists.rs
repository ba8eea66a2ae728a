//! What somebody with an owner's keys may say in its msglist, and members' clocks: nothing of it deletes a part, and real mail arrives
//! afterwards (R3, R7).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use roost::clock::system_wall;
use roost::console::protocol::{OutboxLine, Request};
use roost::model::Digest;
use roost::model::msglist::{Cursor, Ending, Entry, EntryBody, Epoch, Head, Seq, SignedTombstone, Tombstone};
use roost::wire::PeerKey;
use roost::wire::msglist::{Page, Run, chain_next, chain_start, decode_entry, encode_entry};
use serde_json::Value;

use crate::harness::hostile::{Hostile, peer_id};
use crate::harness::{Mail, Team, wait_for};

/// Every part that these members hold for alice, with its bytes.
fn parts(team: &Team) -> BTreeMap<PathBuf, Vec<u8>> {
    let owner = team.address("alice");
    let of = |name: &str| {
        let home = team.home(name);
        let held = home.mirrored_parts(&owner).unwrap();
        held.into_iter().map(|(h, part)| home.mirror_part(&owner, &h, part)).collect::<Vec<_>>()
    };
    let all = ["bob", "carol"].into_iter().flat_map(of);
    all.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn submitted(team: &Team, mails: usize) -> Mail {
    let mail = team.submit("alice", &["carol"], team.letter("alice", "carol", 50_000));
    wait_for("all of alice's mail is held by both", || {
        let lines: Vec<OutboxLine> = team.ask("alice", &Request::Outbox);
        let safe = |line: &OutboxLine| line.sealed.first().is_some_and(|sealed| sealed.safe >= 1);
        let announced = |line: &OutboxLine| line.receivers.values().all(|state| state == "announced");
        (lines.len() == mails && lines.iter().all(|line| safe(line) && announced(line))).then_some(())
    });
    mail
}

/// A run of these entries, with the head that `key` signs for it.
fn run(key: &PeerKey, epoch: Epoch, entries: Vec<Vec<u8>>) -> Page {
    let owner = key.peer_id();
    let start = chain_start(&owner, epoch);
    let chain: Digest = entries.iter().fold(start, |chain, entry| chain_next(&chain, entry));
    let at = Cursor { epoch, seq: Seq(u64::try_from(entries.len()).unwrap()) };
    let head = key.sign(Head { owner, at, chain, base_seq: Seq(0), base_chain: start });
    let head = head.as_bytes().to_vec().into();
    let entries = entries.into_iter().map(Into::into).collect();
    Page { runs: vec![Run { entries, after: Seq(0), head, base: None }], ..Page::default() }
}

/// What is tried, each with what it is called.
fn lies(alice: &Hostile, real: &Page, replayed: Page) -> Vec<(&'static str, Page)> {
    let key = &alice.key;
    let entries: Vec<Vec<u8>> = real.runs[0].entries.iter().map(|entry| entry.to_vec()).collect();
    let last = decode_entry(entries.last().unwrap()).unwrap();
    let epoch = last.at.epoch;
    let shorter = entries[..entries.len() - 1].to_vec();
    let mut cut = real.clone();
    cut.runs[0].entries.pop();
    let mut altered = real.clone();
    altered.runs[0].head[20] ^= 1;
    let fork =
        encode_entry(&Entry { at: last.at, body: EntryBody::Unknown { kind: "other".to_owned(), body: vec![1] } });
    let stranger = PeerKey::from_seed(&[66; 32]);
    let EntryBody::Mail(mail) = last.body else { panic!("the last entry is a mail") };
    let (at, expiry) = (system_wall(), system_wall() + Duration::from_secs(86_400));
    let by = stranger.peer_id();
    let mut forged =
        stranger.sign(Tombstone { owner: by, h: mail.h, ending: Ending::Cancelled, at, expiry }).as_bytes().to_vec();
    let place = forged.windows(32).position(|bytes| bytes == by.as_bytes()).unwrap();
    forged[place..place + 32].copy_from_slice(key.peer_id().as_bytes());
    let tombstone =
        Entry { at: Cursor { epoch, seq: last.at.seq.next() }, body: EntryBody::Tombstone(SignedTombstone(forged)) };
    let with_tombstone = [entries, vec![encode_entry(&tombstone)]].concat();
    let later = Epoch(epoch.0 + 1000);
    vec![
        ("an answer without any list", Page::default()),
        ("a replayed list", replayed),
        ("a list cut behind its signature", cut),
        ("a list whose signature was altered", altered),
        ("a list that a stranger signed", run(&stranger, epoch, shorter.clone())),
        ("a shortened list, signed", run(key, epoch, shorter.clone())),
        ("an empty list, signed", run(key, epoch, vec![])),
        ("a forked list, signed", run(key, epoch, [shorter, vec![fork]].concat())),
        ("a tombstone that its owner did not sign", run(key, epoch, with_tombstone)),
        ("an empty list in a later epoch, signed", run(key, later, vec![])),
    ]
}

/// Whether a member has not only asked for alice's list but made of the answer what it makes of it: it asks again, or it says what is
/// wrong with it.
fn has_read(team: &Team, alice: &Hostile, member: &str, what: &str) -> bool {
    let asked = alice.lies.told().asked.get(&peer_id(team, member)).copied().unwrap_or_default();
    let owners = team.status(member).brains["replicator"]["owners"].clone();
    let conflicts = owners.as_array().unwrap().iter().flat_map(|owner| owner["conflicts"].as_array().unwrap().clone());
    // A fork stays in what is shown.
    let is_news =
        |line: &Value| line.as_str().unwrap().contains("contradict each other") == what.starts_with("a forked");
    asked > 1 || (asked > 0 && conflicts.collect::<Vec<_>>().iter().any(is_news))
}

#[test]
fn a_replayed_shortened_empty_forked_or_forged_msglist_deletes_nothing_and_the_mail_is_read_all_the_same() {
    let team = Team::of_three();
    let alice_id = peer_id(&team, "alice");
    let bob = Hostile::with_the_keys_of(&team, "bob");
    let page =
        || bob.asks(async |client| client.get_msglist(alice_id, Cursor::default(), Duration::ZERO).await).unwrap();
    let first = submitted(&team, 1);
    let replayed = page();
    let second = submitted(&team, 2);
    let real = page();
    let held = parts(&team);
    assert_eq!(held.len(), 4, "two mails at two members");
    team.kill(&["alice"]);
    let mut alice = Hostile::with_the_keys_of(&team, "alice");
    alice.serve_in_place_of(&team, "alice");
    for (what, page) in lies(&alice, &real, replayed) {
        alice.lies.told().page = page;
        alice.lies.told().asked.clear();
        // A member that read what does not fit asks again only after a minute, or when it starts.
        team.kill(&["bob", "carol"]);
        team.start(&["bob", "carol"]);
        wait_for(&format!("both members have read {what}"), || {
            ["bob", "carol"].iter().all(|member| has_read(&team, &alice, member, what)).then_some(())
        });
        assert!(parts(&team) == held, "{what}: a part is gone or changed");
        if what.starts_with("a forked") {
            wait_for("the fork is shown", || {
                let attention = team.status("bob").attention;
                attention.iter().any(|line| line.contains("contradict each other")).then_some(())
            });
        }
    }

    // What was read of the lies is no reason for anything, also after a crash.
    team.kill(&["bob", "carol"]);
    team.start(&["bob", "carol"]);
    assert!(parts(&team) == held);
    alice.stop();
    team.start(&["alice"]);
    let mut carol = team.reader("carol");
    carol.reads_in_the_end(&first);
    carol.reads_in_the_end(&second);
    wait_for("alice knows", || team.waiting("alice").is_empty().then_some(()));
    wait_for("and now the parts go", || parts(&team).is_empty().then_some(()));
}

#[test]
fn a_clock_off_by_an_hour_expires_nothing_says_so_and_expires_what_is_due_once_it_is_right() {
    let team = Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 1\nlife = \"6 s\"\n",
    );
    team.kill(&["bob", "carol"]);
    // Their clocks are an hour ahead of alice's: to her that is the same as hers being an hour behind.
    let others = ["bob", "carol"].map(|name| {
        let mut other = Hostile::with_the_keys_of(&team, name);
        other.lies.told().ahead = Duration::from_secs(3600);
        other.serve_in_place_of(&team, name);
        other
    });
    let off =
        || team.status("alice").attention.iter().any(|line| line.contains("nothing is expired until it is right"));
    wait_for("alice says that her clock is off", || off().then_some(()));
    team.submit("alice", &["bob"], team.letter("alice", "bob", 3_000));
    let sent = system_wall();
    // Six seconds of life, ten more in which its reader may still say that it has it, and as many again.
    wait_for("its life has long been over", || (system_wall().since(sent) > Duration::from_secs(32)).then_some(()));
    assert_eq!(team.waiting("alice").len(), 1, "it still waits");
    let reports =
        || -> Vec<roost::console::protocol::InboxLine> { team.ask("alice", &Request::Inbox { mailbox: None }) };
    assert!(reports().is_empty() && off());
    for other in &others {
        other.lies.told().ahead = Duration::ZERO;
    }
    wait_for("once the clocks agree it expires", || team.waiting("alice").is_empty().then_some(()));
    wait_for("with a DSN", || (reports().len() == 1).then_some(()));
    assert!(!off());
}
