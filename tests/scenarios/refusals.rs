//! What strangers and senders with stolen keys try, and how each is refused: a status and a sentence; and real mail arrives all the
//! same, to the byte.

use std::fs;
use std::time::Duration;

use roost::actors::identity::Identity;
use roost::clock::system_wall;
use roost::model::card::JoinRequest;
use roost::model::group::Heartbeat;
use roost::model::holding::Holdings;
use roost::model::msglist::{Cursor, Ending, Tombstone};
use roost::model::notification::{Nr, Ns, Outcome, Refusal};
use roost::model::{PeerId, SubmissionId};
use roost::seal::{SecretIdentity, seal_nr, seal_ns};
use roost::wire::http::HoldingsPost;
use roost::wire::notify::Notice;

use crate::harness::forged::forged_ns;
use crate::harness::hostile::{Hostile, Refused, peer_id};
use crate::harness::{Mail, Team, wait_for};

/// dave's peer is off, and somebody with his keys answers in its place; rita has his card.
fn dave_is_stolen() -> (Team, Hostile, roost::model::Fingerprint) {
    let team = Team::of_two_groups();
    let group_key = team.group_key("dave");
    team.stop(&["dave"]);
    let mut dave = Hostile::with_the_keys_of(&team, "dave");
    dave.serve_in_place_of(&team, "dave");
    (team, dave, group_key)
}

/// Real mail arrives afterwards.
fn real_mail_arrives(team: &Team, from: &str, to: &str) {
    let mail = team.submit(from, &[to], team.letter(from, to, 30_000));
    team.reader(to).reads_in_the_end(&mail);
    wait_for("its sender knows", || team.waiting(from).is_empty().then_some(()));
}

fn said(what: &str, answer: Result<(), Refused>, code: u16, sentence: &str) {
    let (status, text) = answer.expect_err(what);
    assert_eq!(status, code, "{what}: {text}");
    assert!(text.contains(sentence), "{what}: {text}");
}

/// What `by` signed of itself, as if `victim` had.
fn in_the_name_of(victim: PeerId, by: &Hostile, signed: &[u8]) -> Vec<u8> {
    let mut bytes = signed.to_vec();
    let at = bytes.windows(32).position(|window| window == by.key.peer_id().as_bytes()).unwrap();
    bytes[at..at + 32].copy_from_slice(victim.as_bytes());
    bytes
}

fn in_inbox(team: &Team, name: &str) -> usize {
    let mut reader = team.reader(name);
    reader.imap.uid_search("ALL").unwrap().len()
}

#[test]
fn a_forged_turned_expired_or_oversized_ns_is_refused_and_a_replayed_one_files_one_mail() {
    let (team, mut dave, group_key) = dave_is_stolen();
    let clear = b"From: dave@acme\r\nTo: rita@readers\r\nSubject: once\r\nMessage-ID: <once@acme>\r\n\r\nonce\r\n";
    let ns = dave.seals(&team, "rita", group_key, clear);
    let post = |ns: &Ns| dave.posts(&team, "rita", dave.notice(&team, "rita", ns));
    let raw =
        |sealed: Vec<u8>| dave.posts(&team, "rita", Notice::Ns { to: team.address("rita"), sealed: sealed.into() });

    let mallory = Hostile::stranger(&team, "dave@acme");
    let forged = mallory.seals(&team, "rita", group_key, clear);
    said("a forged ns", mallory.posts(&team, "rita", mallory.notice(&team, "rita", &forged)), 400, "not believed");
    let in_daves_name = forged_ns(&ns, Identity::load(&team.home("rita")).unwrap().openpgp.certificate());
    said("an ns that names dave's key and is signed by another", raw(in_daves_name), 400, "is not a good one of");
    // Nobody of acme answers who could say that its key was replaced, so it may be sent again; it files nothing.
    said(
        "another group key",
        post(&Ns { group_key: mallory.openpgp.fingerprint(), ..ns.clone() }),
        503,
        "the key pinned for acme is",
    );
    said("another peer", post(&Ns { owner: PeerId::new([3; 32]), ..ns.clone() }), 400, "does not send from the peer");
    let other = SecretIdentity::generate(&"carl@acme".parse().unwrap(), system_wall()).unwrap();
    let turned = Ns { to: "carl@acme".parse().unwrap(), ..ns.clone() };
    let turned = seal_ns(&turned, &dave.openpgp, other.certificate(), system_wall()).unwrap();
    said("an ns for somebody else", raw(turned), 400, "not sealed to this peer's key");
    said("an expired ns", post(&Ns { expiry: system_wall(), ..ns.clone() }), 400, "expired");
    said("noise", raw(vec![7; 2000]), 400, "malformed");
    said("more than an ns may have", raw(vec![7; 70_000]), 413, "too large");
    let elsewhere = Notice::Ns { to: "carl@acme".parse().unwrap(), sealed: vec![1].into() };
    said("an ns for nobody here", dave.posts(&team, "rita", elsewhere), 400, "does not live here");
    assert_eq!(in_inbox(&team, "rita"), 0);

    let notice = dave.notice(&team, "rita", &ns);
    for _ in 0..20 {
        dave.posts(&team, "rita", notice.clone()).unwrap();
        // Whoever carries it: it proves itself.
        mallory.posts(&team, "rita", notice.clone()).unwrap();
    }
    let altered = b"From: dave@acme\r\nSubject: another\r\n\r\nonce\r\n";
    let other_mail = Ns { submission: ns.submission, ..dave.seals(&team, "rita", group_key, altered) };
    said("another mail under the same submission", post(&other_mail), 400, "announced another mail");
    let letter = crate::harness::Letter { id: "<once@acme>".to_owned(), bytes: clear.to_vec() };
    let mail = Mail { from: "dave".to_owned(), letter };
    team.reader("rita").reads_every_byte_of(&mail);
    dave.posts(&team, "rita", notice.clone()).unwrap();
    team.kill(&["rita"]);
    team.start(&["rita"]);
    dave.posts(&team, "rita", notice).unwrap();
    assert_eq!(in_inbox(&team, "rita"), 1, "once, whatever is replayed, also after a crash");

    dave.stop();
    team.start(&["dave"]);
    real_mail_arrives(&team, "dave", "rita");
}

/// Rita opens what the ns announced; nothing comes, and the sender is told that it does not fit.
fn opened_in_vain(team: &Team, dave: &Hostile, what: &str, id: &str, ns: &Ns) {
    dave.posts(team, "rita", dave.notice(team, "rita", ns)).unwrap_or_else(|why| panic!("{what}: {why:?}"));
    let letter = crate::harness::Letter { id: id.to_owned(), bytes: Vec::new() };
    let refused = team.reader("rita").opens(&Mail { from: "dave".to_owned(), letter });
    assert!(refused.is_err(), "{what}: {} bytes came", refused.unwrap().len());
    answered_as_mismatch(team, dave, what, ns.submission);
}

fn answered_as_mismatch(team: &Team, dave: &Hostile, what: &str, submission: SubmissionId) {
    let outcome = wait_for(&format!("the nr about {what}"), || {
        dave.answers_of(team, "rita").into_iter().find(|nr| nr.submission == submission).map(|nr| nr.outcome)
    });
    assert_eq!(outcome, Outcome::Refused(Refusal::Mismatch), "{what}");
}

/// A number that the kernel tells of the peer of `name`.
fn of_process(team: &Team, name: &str, file: &str, key: &str) -> u64 {
    let pid = team.peer(name).pid.unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    value.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_body_under_anothers_ns_a_structure_that_does_not_fit_and_a_bomb_are_refused_and_named() {
    let (team, mut dave, group_key) = dave_is_stolen();
    let clear = |id: &str| {
        format!("From: dave@acme\r\nTo: rita@readers\r\nMessage-ID: {id}\r\nSubject: {id}\r\n\r\nbody of {id}\r\n")
            .into_bytes()
    };
    let announced = dave.seals(&team, "rita", group_key, &clear("<a@acme>"));
    let another = dave.seals(&team, "rita", group_key, &clear("<b@acme>"));
    let (header_block, structure) = (announced.header_block.clone(), announced.structure.clone());
    let under_anothers = Ns { header_block, structure, ..another };
    opened_in_vain(&team, &dave, "a body under another's ns", "<a@acme>", &under_anothers);

    let mut no_fit = dave.seals(&team, "rita", group_key, &clear("<c@acme>"));
    no_fit.structure.root.lines += 1;
    opened_in_vain(&team, &dave, "a structure that does not fit", "<c@acme>", &no_fit);

    let mut shorter = dave.seals(&team, "rita", group_key, &clear("<d@acme>"));
    shorter.structure.size -= 2;
    opened_in_vain(&team, &dave, "a mail longer than announced", "<d@acme>", &shorter);

    let mut longer = dave.seals(&team, "rita", group_key, &clear("<g@acme>"));
    longer.structure.size += 2;
    opened_in_vain(&team, &dave, "a mail shorter than announced", "<g@acme>", &longer);

    // 300 MB of nothing in a few hundred KB, announced as a small mail.
    let small = dave.seals(&team, "rita", group_key, &clear("<e@acme>"));
    let bomb = [clear("<e@acme>"), vec![b'0'; 300 << 20]].concat();
    let bomb = dave.seals(&team, "rita", group_key, &bomb);
    assert!(bomb.length < 4 << 20, "{} bytes", bomb.length);
    let bomb = Ns { header_block: small.header_block, structure: small.structure, ..bomb };
    let before = of_process(&team, "rita", "io", "wchar:");
    opened_in_vain(&team, &dave, "a decompression bomb", "<e@acme>", &bomb);
    let written = of_process(&team, "rita", "io", "wchar:") - before;
    assert!(written < 60 << 20, "{written} bytes of it were written down");
    let peak_kb = of_process(&team, "rita", "status", "VmHWM:");
    assert!(peak_kb < 250_000, "{peak_kb} KB of memory at most");

    let mut turned = dave.seals(&team, "rita", group_key, &clear("<f@acme>"));
    turned.header_block = b"From: somebody@else\r\nMessage-ID: <f@acme>\r\n\r\n".to_vec();
    dave.posts(&team, "rita", dave.notice(&team, "rita", &turned)).unwrap();
    answered_as_mismatch(&team, &dave, "a From that is not its signer's", turned.submission);

    assert_eq!(in_inbox(&team, "rita"), 0, "nothing of any of them is filed");
    let log = team.log("rita");
    for ns in [&under_anothers, &no_fit, &shorter, &longer, &bomb, &turned] {
        assert!(log.contains(&ns.h.to_string()), "{} is named in the log", ns.h);
    }
    dave.stop();
    team.start(&["dave"]);
    real_mail_arrives(&team, "dave", "rita");
}

#[test]
fn a_forged_nr_frees_nothing_and_a_forged_tombstone_takes_nothing_back() {
    let team = Team::of_three();
    let mail = team.submit("alice", &["carol"], team.letter("alice", "carol", 100_000));
    let h = team.wait_until_safe(&mail, 1).h;
    team.reader("carol").sees(&mail);
    let submission = team.waiting("alice")[0];
    team.kill(&["bob"]);
    let bob = Hostile::with_the_keys_of(&team, "bob");
    let carla = Hostile::stranger(&team, "carol@acme");
    let alice = Identity::load(&team.home("alice")).unwrap();
    let nr = |from: &Hostile, submission| {
        let nr = Nr {
            submission,
            h,
            reader: from.address.clone(),
            to: team.address("alice"),
            outcome: Outcome::Received,
            at: system_wall(),
        };
        let sealed = seal_nr(&nr, &from.openpgp, alice.openpgp.certificate(), system_wall()).unwrap();
        Notice::Nr { to: team.address("alice"), sealed: sealed.into() }
    };
    said("an nr signed by a forged key", carla.posts(&team, "alice", nr(&carla, submission)), 400, "not taken");
    said(
        "a member's nr for a mail to another",
        bob.posts(&team, "alice", nr(&bob, submission)),
        400,
        "no such mail for this reader",
    );
    let other = SubmissionId::new([9; 16]);
    said("a member's nr for another submission", bob.posts(&team, "alice", nr(&bob, other)), 400, "not taken");
    // The reader's own keys, without a word of hers: what is signed must name mail, submission and reader as they belong together.
    let carols = Hostile::with_the_keys_of(&team, "carol");
    let answer = carols.posts(&team, "alice", nr(&carols, other));
    said("the reader's nr for another submission", answer, 400, "mail and submission do not belong together");
    let noise = Notice::Nr { to: team.address("alice"), sealed: vec![1; 500].into() };
    said("noise", carla.posts(&team, "alice", noise), 400, "not taken");
    let elsewhere = Notice::Nr { to: team.address("bob"), sealed: vec![1].into() };
    said("an nr for somebody else", carla.posts(&team, "alice", elsewhere), 400, "does not live here");

    let (at, expiry) = (system_wall(), system_wall() + Duration::from_secs(86_400));
    let word = bob.key.sign(Tombstone { owner: bob.key.peer_id(), h, ending: Ending::Cancelled, at, expiry });
    let of_another = Notice::Tombstone(word.as_bytes().to_vec().into());
    // A member's word about a mail of its own may come before its announcement; it says nothing of alice's mail of that name.
    bob.posts(&team, "carol", of_another).unwrap();
    let forged = Notice::Tombstone(in_the_name_of(peer_id(&team, "alice"), &bob, word.as_bytes()).into());
    said("a tombstone that its owner did not sign", bob.posts(&team, "carol", forged), 400, "signature on a tombstone");
    assert_eq!(team.waiting("alice"), [submission], "it still waits");
    assert!(team.home("alice").outbox_blob(&h).exists());
    team.start(&["bob"]);
    team.reader("carol").reads_every_byte_of(&mail);
    wait_for("the reader's own word frees it", || team.waiting("alice").is_empty().then_some(()));
}

#[test]
fn a_stranger_on_members_routes_is_refused_with_a_sentence_and_so_is_a_word_that_is_not_its_callers() {
    let team = Team::of_three();
    let mail = team.submit("alice", &["carol"], team.letter("alice", "carol", 100_000));
    team.wait_until_safe(&mail, 1);
    let stranger = Hostile::stranger(&team, "mallory@evil");
    let alice = peer_id(&team, "alice");
    let members_only = |what: &str, answer: Result<(), Refused>| said(what, answer, 403, "only members of acme");
    let heartbeat = || Heartbeat {
        gd_version: 99,
        gd_digest: None,
        at: system_wall(),
        view_digest: None,
        view_at: None,
        gd: None,
        descriptors: vec![],
        wanted: vec![],
    };
    members_only(
        "msglist",
        stranger.asks(async |c| c.get_msglist(alice, Cursor::default(), Duration::ZERO).await).map(drop),
    );
    let bob_address = team.address("bob");
    members_only(
        "mirror",
        stranger.asks(async |c| c.get_mirror_msglist(alice, &bob_address, Cursor::default()).await).map(drop),
    );
    let word = |by: &Hostile| {
        let word = Holdings { member: by.key.peer_id(), owner: alice, at: system_wall(), items: vec![], heard: None };
        by.key.sign(word).as_bytes().to_vec()
    };
    let own = HoldingsPost::Batch(word(&stranger).into());
    members_only("holdings", stranger.asks(async |c| c.post_holdings(alice, &own).await).map(drop));
    let buckets = HoldingsPost::Buckets(vec![0; 2048].into());
    members_only("buckets", stranger.asks(async |c| c.post_holdings(alice, &buckets).await).map(drop));
    let beat = stranger.asks(async |c| c.post_heartbeat(alice, &heartbeat()).await).map(drop);
    assert_eq!(beat.unwrap_err().0, 403);
    let (nobody_dials, reach) = stranger.wants_to_be_dialled();
    members_only("reach", stranger.asks(async |c| c.post_reach(alice, &reach).await).map(drop));
    let join = JoinRequest { descriptor: vec![1; 100], proof: vec![2; 32] };
    let (status, text) = stranger.asks(async |c| c.post_join(alice, &join).await).unwrap_err();
    assert!((400..404).contains(&status), "{status} {text}");

    // A member may say only what it holds itself.
    team.kill(&["bob"]);
    let bob = Hostile::with_the_keys_of(&team, "bob");
    let carols = Hostile::with_the_keys_of(&team, "carol");
    let not_its_own = HoldingsPost::Batch(word(&carols).into());
    let answer = bob.asks(async |c| c.post_holdings(alice, &not_its_own).await).map(drop);
    said("another member's word", answer, 400, "only what it holds itself");
    let forged = in_the_name_of(bob.key.peer_id(), &stranger, &word(&stranger));
    let forged = HoldingsPost::Batch(forged.into());
    let answer = bob.asks(async |c| c.post_holdings(alice, &forged).await).map(drop);
    said("a word that bob did not sign", answer, 400, "signature");

    let answer = bob.asks(async |c| c.post_reach(alice, &reach).await).map(drop);
    said("another's addresses", answer, 400, "its own signed peer descriptor");
    assert!(nobody_dials.accept().is_err(), "neither was dialled");

    team.start(&["bob"]);
    team.reader("carol").reads_every_byte_of(&mail);
}

#[test]
fn path_tricks_find_nothing_and_the_one_right_way_to_write_a_path_does() {
    let team = Team::of_two();
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 100_000));
    let h = team.wait_until_safe(&mail, -1).h;
    let stranger = Hostile::stranger(&team, "mallory@evil");
    for path in [
        "/outbox/../group".to_owned(),
        "/outbox/%2e%2e/group".to_owned(),
        "/outbox/..%2f..%2fidentity%2fpeer.key".to_owned(),
        "/outbox/../../identity".to_owned(),
        "//group".to_owned(),
        "/group/".to_owned(),
        format!("/outbox/{h}/"),
        format!("/outbox/{h}%00"),
        format!("/outbox/{}", h.to_string().to_uppercase()),
        format!("/outbox/{h}/../{h}"),
        format!("/outbox/{h}/fragments/03/1"),
        format!("/outbox/{h}/fragments/256/1"),
        format!("/outbox/{h}.manifest"),
        "/mirror/..%2f..@acme/msglist".to_owned(),
        "/pubkey/../identity@acme".to_owned(),
        "/pubkey/Alice@acme".to_owned(),
        "/etc/passwd".to_owned(),
        // Escaped, it would name what is there.
        format!("/outbox/%{:02x}{}", h.to_string().as_bytes()[0], &h.to_string()[1..]),
        "/%67roup".to_owned(),
        "/pubkey/alice%40acme".to_owned(),
    ] {
        let status = stranger.writes(&team, "alice", &format!("GET {path} HTTP/1.1"));
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    assert_eq!(
        stranger.writes(&team, "alice", &format!("GET /outbox/{h} HTTP/1.1")),
        200,
        "the one right way to write it"
    );
    team.reader("bob").reads_every_byte_of(&mail);
}

#[test]
fn a_caller_is_served_a_mail_four_times_over_and_then_429_and_others_are_served_all_the_same() {
    let team = Team::of_three();
    let mail = team.submit("alice", &["carol"], team.letter("alice", "carol", 200_000));
    let sealed = team.wait_until_safe(&mail, 1);
    let (greedy, other) = (Hostile::stranger(&team, "greedy@evil"), Hostile::stranger(&team, "other@evil"));
    for holder in ["alice", "bob"] {
        let peer = peer_id(&team, holder);
        let get = |by: &Hostile| {
            by.asks(async |client| {
                let body = client.get_sealed(peer, &sealed.h, None).await?;
                body.collect(usize::try_from(sealed.length).unwrap()).await
            })
        };
        for _ in 0..4 {
            assert_eq!(u64::try_from(get(&greedy).unwrap().len()).unwrap(), sealed.length);
        }
        said("the fifth time", get(&greedy).map(drop), 429, "at most four times over in a day");
        let range = greedy.asks(async |client| client.get_sealed(peer, &sealed.h, Some(0..100)).await.map(drop));
        said("a range of it", range, 429, "at most four times");
        let manifest = greedy.asks(async |client| client.get_manifest(peer, &sealed.h, 1 << 20).await.map(drop));
        said("its manifest", manifest, 429, "at most four times");
        assert!(get(&other).is_ok(), "{holder} counts each caller for itself");
    }
    team.reader("carol").reads_every_byte_of(&mail);
}

#[test]
fn strangers_first_mails_are_limited_with_429_and_a_sentence_and_a_known_sender_passes() {
    let team = Team::of_two_groups();
    let group_key = team.group_key("dave");
    let _: serde_json::Value =
        team.ask("rita", &roost::console::protocol::Request::ContactRemove { address: team.address("dave") });
    // His first mail is a real one, so that rita's peer has read his descriptor.
    let asking = team.submit("dave", &["rita"], team.letter("dave", "rita", 3_000));
    wait_for("dave asks", || {
        let requests: roost::core::postbox::io::Requests =
            team.ask("rita", &roost::console::protocol::Request::Requests);
        (requests.waiting.len() == 1).then_some(())
    });
    team.stop(&["dave"]);
    let mut dave = Hostile::with_the_keys_of(&team, "dave");
    dave.serve_in_place_of(&team, "dave");
    let first = |n: usize| {
        let clear =
            format!("From: dave@acme\r\nTo: rita@readers\r\nMessage-ID: <{n}@acme>\r\nSubject: {n}\r\n\r\nx\r\n");
        dave.notice(&team, "rita", &dave.seals(&team, "rita", group_key, clear.as_bytes()))
    };
    for n in 0..2 {
        dave.posts(&team, "rita", first(n)).unwrap();
    }
    said("a fourth first mail", dave.posts(&team, "rita", first(3)), 429, "wait for this user's consent already");
    assert_eq!(in_inbox(&team, "rita"), 0);
    let _: roost::console::protocol::Judged = team.ask(
        "rita",
        &roost::console::protocol::Request::Judge {
            who: "dave@acme".to_owned(),
            verdict: roost::core::postbox::Verdict::Granted,
        },
    );
    wait_for("the three are in INBOX", || (in_inbox(&team, "rita") == 3).then_some(()));
    for n in 4..10 {
        dave.posts(&team, "rita", first(n)).unwrap();
    }
    wait_for("a known sender is not limited", || (in_inbox(&team, "rita") == 9).then_some(()));
    dave.stop();
    team.start(&["dave"]);
    team.reader("rita").reads_in_the_end(&asking);
    real_mail_arrives(&team, "dave", "rita");
}
