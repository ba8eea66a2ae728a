//! The seeds of the corpora, made by our own encoders and from the fixtures: what a fuzzer starts from. `ROOST_BLESS=1` writes
//! those that are missing.

use serde_bytes::ByteBuf;

use super::records::owner;
use super::sealed::{GROUP, NOW, READER, SENDER};
use crate::model::card::{Card, CardPeer, Invite, JoinRequest};
use crate::model::dht::EntryTerms;
use crate::model::group::{Heartbeat, HeartbeatAnswer, KeyHandover, LeaveStage, PeerAddr};
use crate::model::holding::{Holding, HoldingState, Holdings};
use crate::model::msglist::{Cursor, Ending, Entry, EntryBody, Epoch, Head, Seq, Tombstone};
use crate::model::{Digest, Fingerprint, MailId, Part, Secret, WallTime};
use crate::seal::{decrypt_nr, decrypt_ns, seal_mail, strip_encryption, verify_descriptor, verify_gd};
use crate::store::journal::fuzzed;
use crate::wire::dht::{Answer, Del, Entry as DhtEntry, EntryTombstone, Fetch, List, Listing, Op, Request, Response};
use crate::wire::http::{FragmentList, GivenPart, HoldingsPost, PartsAnswer, PartsPost};
use crate::wire::msglist::{Page, encode_entry};
use crate::wire::notify::Notice;
use crate::wire::{Signed, code, decode, encode};

type Seed = (&'static str, Vec<u8>);

const MAIL: &str = "From: Alice <alice@acme>\r\nTo: bob@acme\r\nMessage-ID: <1@acme>\r\nSubject: =?utf-8?q?=c3=bc?=\r\n\
                    Bcc: c@d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\r\none\r\n\
                    --b\r\nContent-Type: image/png; name*=utf-8''x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n\
                    --b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ndeep\r\n--b--\r\nafter\r\n";

fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `bytes` for a door.
fn at(door: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[b'0' + door], bytes.as_ref()].concat()
}

/// Every seed with its target.
pub(super) fn all() -> Vec<Seed> {
    let parts: [Vec<Seed>; 8] = [text(), cards(), mail(), notices(), keys(), lists(), dht(), http()];
    let mut all = parts.concat();
    all.extend(journal());
    all
}

fn text() -> Vec<Seed> {
    let config = crate::config::reference();
    let own = crate::config::Config::new("alice@acme".parse().unwrap()).to_commented_toml();
    let small = "address = \"a@b\"\nmail = { smtp_port = 1 }\n[net]\nupload_limit = \"20 Mbit/s\"\n";
    let cluster = "[[group]]\nname = \"acme\"\nmembers = [\"a\", \"b\"]\n[group.replication]\nmode = \"full\"\ncopies = 1\n\
                   [[contacts]]\npeer = \"a@acme\"\nwith = [\"b@acme\"]\n[upload_limits]\n\"b@acme\" = \"20 Mbit/s\"\n";
    let two = "[[group]]\nname = \"x\"\nmembers = [\"c\"]\n[[group]]\nname = \"y\"\nmembers = [\"d\"]\n[group.replication]\n\
               fragments = { k = 3, n = 5 }\nlife = \"7 d\"\nwhole_below = \"64 KiB\"\n[quota]\n[net]\nhttps_port = 0\n";
    let mut seeds = vec![
        ("config", config.into_bytes()),
        ("config", own.into_bytes()),
        ("config", small.into()),
        ("cluster_config", cluster.into()),
        ("cluster_config", two.into()),
    ];
    let id = owner().peer_id().to_string();
    let names = ["alice@acme", "a.b-c_d", &id, "0101010101010101010101010101010101010101", "64 KiB", "7 d", "3.17"];
    let more = ["20 Mbit/s", "INBOX/a", "1.2.HEADER", "TEXT", "1.MIME", "", "250 ms"];
    seeds.extend(names.iter().chain(&more).map(|name| ("names", name.as_bytes().to_vec())));
    seeds
}

fn cards() -> Vec<Seed> {
    let addrs = vec![PeerAddr { host: "192.0.2.1".to_owned(), https: 443, libp2p: 4001 }];
    let peers = vec![CardPeer { peer_id: owner().peer_id(), addrs }];
    let group_key = Fingerprint::new([4; 20]);
    let card = Card { address: "alice@acme".parse().unwrap(), group_key, peers: peers.clone() };
    let (group, name) = ("acme".parse().unwrap(), "dave".parse().unwrap());
    let invite = Invite { group, name, group_key, peers, secret: Secret::new([5; 32]), expiry: NOW };
    let lines = [at(0, code::to_line(&card)), at(0, code::to_line(&invite))];
    let records = [at(1, encode(&card)), at(2, encode(&invite))];
    lines.into_iter().chain(records).map(|seed| ("cards", seed)).collect()
}

fn mail() -> Vec<Seed> {
    let body = "From: Alice <alice@acme>\r\nTo: bob@acme\r\nBcc: eve@acme\r\n\r\n..a dot\r\nb\r\n.\r\nQUIT\r\n";
    let whole = format!("MAIL FROM:<alice@acme> SIZE=9 BODY=8BITMIME\r\nRCPT TO:<bob@acme>\r\nDATA\r\n{body}");
    let login = "HELO x\r\nEHLO x\r\nAUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\nNOOP\r\nRSET\r\nVRFY x\r\nHELP\r\nQUIT\r\n";
    let mut seeds: Vec<Seed> = [at(0, login), at(1, whole), at(2, body), at(2, MAIL.to_owned() + ".\r\n")]
        .map(|seed| ("smtp", seed))
        .into_iter()
        .collect();
    let commands = [
        "x CAPABILITY\r\nx ID NIL\r\nx LOGIN {5}\r\nalice {13}\r\ncorrect horse\r\nx NAMESPACE\r\nx LOGOUT\r\n",
        "x UID FETCH 1:* (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (From \"To\")]<0.9>)\r\nx STORE 1:2 +FLAGS.SILENT (\\Seen $x)\r\n",
        "x LIST (SUBSCRIBED) \"\" (\"a/%\" {2+}\r\nb*) RETURN (CHILDREN STATUS (MESSAGES))\r\nx STATUS INBOX (UIDNEXT)\r\n",
        "x APPEND INBOX (\\Seen) \"01-Jan-2024 10:00:00 +0000\" {26+}\r\nFrom: a@b\r\nTo: c@d\r\n\r\nbody\r\nx IDLE\r\nDONE\r\n",
        "x SEARCH CHARSET UTF-8 OR (FROM {3+}\r\nx\u{fc} SINCE 1-Feb-2024) NOT 2:* BODY body\r\nx FETCH 2 BODY[]\r\n",
        "x CREATE a/&APw-\r\nx COPY 1 Trash\r\nx MOVE 1 a/&APw-\r\nx RENAME a/&APw- b\r\nx DELETE b\r\nx EXPUNGE\r\nx CLOSE\r\n",
    ];
    seeds.extend(commands.iter().enumerate().map(|(n, c)| ("imap", at(u8::from(n > 0), c))));
    seeds.push(("imap", at(2, format!("{MAIL}\n=\nx FETCH 1 BODY[1.1]\r\nx SEARCH TEXT deep\r\n"))));
    seeds.push(("imap", at(3, encode(&crate::mime::split::split(MAIL.as_bytes()).structure))));
    seeds.push(("splitter", at(0, MAIL)));
    seeds.push((
        "splitter",
        at(5, "Content-Type: multipart/digest;\r\n boundary=x\n\n--x\n\nSubject: y\n\nz\n--x  \n--x--"),
    ));
    seeds.push(("splitter", at(9, "no header\n\nbody\r\n")));
    seeds
}

fn notices() -> Vec<Seed> {
    let (ns, nr) = (fixture("v1/ns"), fixture("v1/nr"));
    let inside = |sealed: &[u8], who| {
        let mut signed = Vec::new();
        strip_encryption(sealed, who, &mut signed).unwrap();
        signed
    };
    let ns_record = encode(&decrypt_ns(&ns, &READER).unwrap().verify(SENDER.certificate()).unwrap());
    let nr_record = encode(&decrypt_nr(&nr, &SENDER).unwrap().verify(READER.certificate()).unwrap());
    let framed = |what, record: &[u8]| crate::seal::notice::frame(what, record, 10_000, 64).unwrap();
    vec![
        ("ns", at(0, &ns)),
        ("ns", at(1, inside(&ns, &READER))),
        ("ns", at(2, framed("ns", &ns_record))),
        ("ns", at(3, &ns_record)),
        ("ns", at(4, &ns_record)),
        ("nr", at(0, &nr)),
        ("nr", at(1, inside(&nr, &SENDER))),
        ("nr", at(2, framed("nr", &nr_record))),
        ("nr", at(3, &nr_record)),
        ("nr", at(4, &nr_record)),
    ]
}

fn keys() -> Vec<Seed> {
    let (d, gd) = (fixture("v1/d"), fixture("v1/gd"));
    let descriptor = encode(&verify_descriptor(&d).unwrap().into_value());
    let group = encode(&verify_gd(&gd, &GROUP.fingerprint()).unwrap().into_value());
    let from_certificate = GROUP.certificate().as_bytes().to_vec();
    let handover =
        KeyHandover { group: "readers".parse().unwrap(), from_certificate, to: READER.fingerprint(), at: NOW };
    let mut seeds = vec![
        ("peer_descriptor", at(0, &d)),
        ("peer_descriptor", at(1, &descriptor)),
        ("peer_descriptor", at(2, &descriptor)),
        ("gd", at(0, &gd)),
        ("gd", at(1, &group)),
        ("gd", at(2, encode(&handover))),
        ("gd", at(3, &group)),
    ];
    for text in [MAIL.to_owned(), "a".repeat(3000), "a".repeat(100_000)] {
        let (mut sealed, mut signed) = (Vec::new(), Vec::new());
        seal_mail(text.as_bytes(), &SENDER, &[READER.certificate().clone()], &mut sealed, NOW).unwrap();
        strip_encryption(&sealed[..], &READER, &mut signed).unwrap();
        seeds.extend([("openpgp", at(0, sealed)), ("openpgp", at(1, &signed)), ("openpgp", at(2, &signed))]);
    }
    seeds.push(("openpgp", at(2, crate::seal::tests_only_literal(b"nobody signed this"))));
    seeds.push(("openpgp", at(3, READER.certificate().as_bytes())));
    seeds.push(("openpgp", at(4, fixture("v1/reader.key"))));
    seeds
}

fn lists() -> Vec<Seed> {
    let page: Page = decode(&fixture("v1/msglist-page")).unwrap();
    let owner = owner();
    let (id, h) = (owner.peer_id(), MailId::new([2; 20]));
    let (entry, head) = (page.runs[0].entries[0].to_vec(), page.runs[0].head.to_vec());
    let later = Entry {
        at: Cursor { epoch: Epoch(7), seq: Seq(1) },
        body: EntryBody::Unknown { kind: "later".to_owned(), body: vec![1, 2] },
    };
    let head = Signed::<Head>::verify(&head).unwrap().into_value();
    let tombstone = Tombstone { owner: id, h, ending: Ending::Received, at: NOW, expiry: WallTime(NOW.0 + 1) };
    let items = vec![Holding { h, part: Part::Fragment { k: 3, i: 1 }, state: HoldingState::Held }];
    let holdings = Holdings { member: id, owner: id, at: NOW, items, heard: None };
    let manifest = Signed::<crate::model::manifest::Manifest>::verify(&fixture("v1/manifest")).unwrap().into_value();
    vec![
        ("msglist", at(0, fixture("v1/msglist-page"))),
        ("msglist", at(1, entry)),
        ("msglist", at(1, encode_entry(&later))),
        ("msglist", at(2, [0, 3, 1, 2, 3, 1, 1, 9, 2, 0])),
        ("msglist", at(3, encode(&head))),
        ("msglist", at(3, encode(&tombstone))),
        ("msglist", at(3, encode(&holdings))),
        ("manifest", at(0, fixture("v1/manifest"))),
        ("manifest", at(1, encode(&manifest))),
    ]
}

fn dht() -> Vec<Seed> {
    let (id, password) = (Digest::new([7; 32]), Secret::new([2; 32]));
    let entry = DhtEntry::publish(&owner(), id, bytes::Bytes::from_static(b"value"), &password, WallTime(9));
    let tombstone = EntryTombstone::new(entry.terms().clone(), password.clone()).unwrap();
    let list = List { key: id, values: true, have: vec![id], unless: Some(id) };
    let fetch = Fetch { key: id, ids: vec![id], dead_only: true };
    let del = Del { key: id, value: id, password };
    let ops = vec![
        Op::Put(entry.clone()),
        Op::List(list.clone()),
        Op::Fetch(fetch.clone()),
        Op::Del(del),
        Op::Bury(tombstone.clone()),
        Op::Unknown { kind: "later".to_owned() },
    ];
    let listing =
        Listing { print: Some(id), live: vec![(id, WallTime(3))], dead: vec![5], entries: vec![entry.clone()] };
    let answers = vec![
        Answer::Stored,
        Answer::Buried(vec![tombstone.clone()]),
        Answer::Listing(listing),
        Answer::Fetched { entries: vec![entry.clone()], tombstones: vec![tombstone] },
        Answer::Refused(crate::wire::dht::Refusal::Full),
    ];
    let terms: EntryTerms = entry.terms().clone().into_value();
    vec![
        ("dht", at(0, Request { ops }.encode())),
        ("dht", at(1, Response { answers }.encode())),
        ("dht", at(2, [0, 0, 0, 2, 0, 0, 0, 1, 8, 9, 0, 0, 0, 0, 0, 0, 0, 2])),
        ("dht", at(3, encode(&terms))),
        ("dht", at(4, encode(&list))),
        ("dht", at(4, encode(&fetch))),
        ("dht", at(4, encode(&"full"))),
    ]
}

fn http() -> Vec<Seed> {
    let h = "02".repeat(20);
    let sealed = ByteBuf::from(vec![1, 2, 3]);
    let notices = vec![
        Notice::Ns { to: "rita@readers".parse().unwrap(), sealed: sealed.clone() },
        Notice::Tombstone(sealed.clone()),
        Notice::Hello,
    ];
    let join = JoinRequest { descriptor: vec![1], proof: vec![2; 32] };
    let mail = MailId::new([2; 20]);
    let parts = PartsPost { parts: vec![(mail, Part::Whole), (mail, Part::Fragment { k: 3, i: 1 })] };
    let given = GivenPart { h: mail, part: Part::Whole, manifest: sealed.clone(), bytes: sealed.clone() };
    let answer = PartsAnswer { parts: vec![given], gone: vec![(mail, sealed.clone())] };
    let requests = [
        format!("GET /outbox/{h}\nRange: bytes=5-9\nPriority: u=1").into_bytes(),
        format!("GET /outbox/{h}/fragments/3/1\nRange: bytes=-500").into_bytes(),
        format!("GET /outbox/{h}/manifest?k=3").into_bytes(),
        format!("GET /outbox/{}\nRange: bytes=9999-", "00".repeat(20)).into_bytes(),
        b"GET /outbox/msglist?since=3.17&wait=0".to_vec(),
        b"GET /mirror/alice@acme/msglist?since=0.0".to_vec(),
        b"GET /pubkey/alice@acme".to_vec(),
        b"GET /group".to_vec(),
        [b"POST /notify\n\n".to_vec(), encode(&notices)].concat(),
        [b"POST /group/join\n\n".to_vec(), encode(&join)].concat(),
        [b"POST /group/heartbeat\n\n".to_vec(), encode(&Heartbeat::default())].concat(),
        [b"POST /outbox/holdings\n\n".to_vec(), encode(&HoldingsPost::Batch(sealed))].concat(),
        [b"POST /outbox/parts\n\n".to_vec(), encode(&parts)].concat(),
        [b"POST /group/leave\n\n".to_vec(), encode(&LeaveStage::Begin)].concat(),
    ];
    let mut seeds: Vec<Seed> = requests.iter().map(|request| ("http", at(0, request))).collect();
    for text in ["bytes=0-499", "bytes=9500-", "bytes=-500", "bytes=5-4", "bytes 5-9/20", "bytes */20"] {
        seeds.push(("http", at(1, text)));
    }
    seeds.push(("http", at(2, encode(&notices))));
    seeds.push(("http", at(2, encode(&FragmentList { fragments: vec![(3, 1)] }))));
    seeds.push(("http", at(2, encode(&parts))));
    seeds.push(("http", at(2, encode(&answer))));
    seeds.push(("http", at(2, encode(&HeartbeatAnswer::default()))));
    seeds
}

/// Events of each brain as earlier versions wrote them.
fn journal() -> Vec<Seed> {
    let mut seeds = vec![
        ("journal", at(0, fixture("v1/journal/00000001.log"))),
        ("journal", at(0, fixture("v2/journal/00000001.log"))),
    ];
    for (number, brain) in ["outbox", "postbox", "replicator", "group"].into_iter().enumerate() {
        let events = fixture(&format!("v1/events/{brain}"));
        let (mut rest, mut all) = (&events[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
            all.push(u8::try_from(number).unwrap());
            all.extend(u16::try_from(length).unwrap().to_le_bytes());
            all.extend_from_slice(&after[..length]);
            rest = &after[length..];
        }
        seeds.push(("journal", at(1, [&[1, 40, 1], &all[..]].concat())));
        seeds.push(("journal", at(2, &all)));
    }
    let records = [crate::store::Record::new("outbox", vec![1, 2, 3]), crate::store::Record::new("group", vec![4])];
    seeds.push(("journal", at(0, fuzzed::written(&records, 1))));
    seeds
}
