//! Bad input gets a clear answer and loses nothing: what mail programs, configs, disks and invites may throw at a peer.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use roost::cli::demo::smtp_client::SmtpClient;
use roost::clock::system_wall;
use roost::config::set_ports;
use roost::model::card::Invite;
use roost::wire::code::{from_line, to_line};
use serde_json::Value;

use crate::harness::{Letter, Mail, ROOST, Team, wait_for};

const HEAD: &str = "From: alice@acme\r\nTo: bob@acme\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n";

fn roost(home: &Path, args: &[&str]) -> Output {
    Command::new(ROOST).args(args).arg("--home").arg(home).stdin(Stdio::null()).output().unwrap()
}

/// What a command said when it failed.
fn refusal(home: &Path, args: &[&str]) -> String {
    let done = roost(home, args);
    assert_eq!(done.status.code(), Some(1), "{args:?}: {done:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// A mail with its own Message-ID, from alice to bob.
fn mail(number: usize, fields: &str, body: &[u8]) -> Mail {
    let id = format!("<odd.{number}@acme>");
    let bytes = [format!("{HEAD}Message-ID: {id}\r\n{fields}\r\n").as_bytes(), body].concat();
    Mail { from: "alice".to_owned(), letter: Letter { id, bytes } }
}

#[test]
fn odd_mails_arrive_to_the_byte() {
    let team = Team::of_two();
    let every_byte: Vec<u8> = (0..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    let deep: String =
        (0..1500).map(|i| format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n")).collect();
    let broken = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"never closed\r\n";
    let odd = [
        mail(0, "Subject: nothing in it\r\n", b""),
        mail(1, "Subject: every byte\r\n", &[&every_byte[..], b"\r\n"].concat()),
        mail(2, &format!("X-Long: {}\r\n", "a".repeat(10_000)), b"x\r\n"),
        mail(3, broken, b"--never closed\r\nContent-Type: /;;=\r\n\r\nhello\r\n"),
        mail(4, "MIME-Version: 1.0\r\n", &[deep.as_bytes(), b"x\r\n"].concat()),
        mail(5, "Subject: one line\r\n", &[vec![b'y'; 3_000_000], b"\r\n".to_vec()].concat()),
        mail(6, "Subject: dots\r\n", b".\r\n..\r\n.x\r\n"),
        mail(7, "Subject: caf\u{e9} \u{1f426}\r\n", "gr\u{fc}n\r\n".as_bytes()),
    ];
    for mail in &odd {
        team.submit("alice", &["bob"], mail.letter.clone());
    }
    let mut bob = team.reader("bob");
    for mail in &odd {
        bob.reads_every_byte_of(mail);
    }
}

#[test]
fn mails_that_cannot_be_taken_are_refused_with_a_sentence_and_the_next_one_is_taken() {
    let team = Team::of_two();
    let alice = team.peer("alice");
    let mut smtp = SmtpClient::login(&alice.smtp, &alice.address.to_string(), &alice.password).unwrap();
    for (outside, why) in [("bob@example.org", "is outside"), ("nobody@acme", "")] {
        let mut smtp = SmtpClient::login(&alice.smtp, &alice.address.to_string(), &alice.password).unwrap();
        let refused = smtp.submit(&alice.address, &[outside.parse().unwrap()], b"From: alice@acme\r\n\r\nx\r\n");
        let said = refused.expect_err(outside).to_string();
        let code = if why.is_empty() { "550 5.1.1" } else { "550 5.1.2" };
        assert!(said.contains(code) && said.contains(why) && said.contains(outside), "{said}");
    }
    let many_fields: String = (0..60).map(|i| format!("X-{i}: {}\r\n", "a".repeat(900))).collect();
    let refused: [(&str, &[u8]); 7] = [
        ("550 5.6.11", b"From: alice@acme\r\n\r\na bare\nline feed\r\n"),
        ("550 5.6.11", b"From: alice@acme\r\n\r\na bare\rreturn\r\n"),
        ("550 5.6.11", b"From: alice@acme\r\n\r\nx\n.\nMAIL FROM:<alice@acme>\r\n"),
        ("550 5.7.1", b""),
        ("550 5.7.1", b"\r\nno From at all\r\n"),
        ("550 5.7.1", b"From: bob@acme\r\n\r\nsomebody else's name\r\n"),
        ("552 5.3.4", &[HEAD.as_bytes(), many_fields.as_bytes(), b"\r\nx\r\n"].concat()),
    ];
    for (code, bytes) in refused {
        let said = smtp.submit(&alice.address, &[team.address("bob")], bytes).unwrap_err().to_string();
        assert!(said.contains(code) && said.len() > code.len() + 20, "{said}");
    }
    for (line, code) in [
        ("MAIL FROM:<bob@acme>", "550 5.7.1"),
        ("MAIL FROM:<alice@acme> SIZE=99999999999", "552 5.3.4"),
        ("RCPT TO:<bob@acme>", "503"),
        ("DATA", "503"),
    ] {
        let said = smtp.ask("a line", line, 250).unwrap_err().to_string();
        assert!(said.contains(code), "{line}: {said}");
    }
    smtp.ask("MAIL", "MAIL FROM:<alice@acme>", 250).unwrap();
    let said = smtp.ask("RCPT", "RCPT TO:<nobody@acme>", 250).unwrap_err().to_string();
    assert!(said.contains("550 5.1.1"), "{said}");
    smtp.ask("RSET", "RSET", 250).unwrap();
    assert_eq!(team.waiting("alice"), [], "nothing of the refused ones waits");
    let taken = mail(9, "", b"after all of that\r\n");
    smtp.submit(&alice.address, &[team.address("bob")], &taken.letter.bytes).unwrap();
    team.reader("bob").reads_every_byte_of(&taken);
}

#[test]
fn rfc1870_a_mail_over_the_limit_is_refused_with_552_also_when_its_size_was_not_said_before_and_nothing_is_kept() {
    let team = Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 1\nmax_mail = \"256 KiB\"\n",
    );
    let alice = team.peer("alice");
    let bob = [team.address("bob")];
    let large = team.letter("alice", "bob", 300 << 10);
    let mut smtp = SmtpClient::login(&alice.smtp, &alice.address.to_string(), &alice.password).unwrap();
    let said = smtp.submit(&alice.address, &bob, &large.bytes).unwrap_err().to_string();
    assert!(said.contains("552 5.3.4") && said.contains("to MAIL"), "refused before a byte of it was sent: {said}");
    let without_size = |smtp: &mut SmtpClient, letter: &Letter| {
        smtp.ask("MAIL", "MAIL FROM:<alice@acme>", 250).unwrap();
        smtp.ask("RCPT", "RCPT TO:<bob@acme>", 250).unwrap();
        smtp.ask("DATA", "DATA", 354).unwrap();
        let text = String::from_utf8(letter.bytes.clone()).unwrap();
        let stuffed = text.replace("\r\n.", "\r\n..");
        smtp.ask("the mail", &format!("{stuffed}."), 250)
    };
    for _ in 0..3 {
        let said = without_size(&mut smtp, &large).unwrap_err().to_string();
        assert!(said.contains("552 5.3.4") && said.contains("to the mail"), "{said}");
        assert!(said.len() > "552 5.3.4".len() + 20, "with a sentence: {said}");
        assert_eq!(fs::read_dir(team.home_dir("alice").join("spool")).unwrap().count(), 0, "nothing of it is kept");
        assert_eq!(team.waiting("alice"), []);
    }
    let fits = team.letter("alice", "bob", 200 << 10);
    without_size(&mut smtp, &fits).unwrap();
    let mut reader = team.reader("bob");
    reader.reads_in_the_end(&Mail { from: "alice".to_owned(), letter: fits });
    assert!(reader.uids_of(&Mail { from: "alice".to_owned(), letter: large }).is_empty());
}

#[test]
fn on_a_full_disk_smtp_says_452_and_what_was_taken_before_is_still_there() {
    let team = Team::of_two();
    // Bob must not take it before the disk is full.
    team.stop(&["bob", "alice"]);
    let alice = team.peer("alice");
    // The kernel refuses to let any file grow beyond 2 MiB: to the peer that is a disk without room.
    let limited = format!("ulimit -f 4096; exec '{ROOST}' up --home \"$0\"");
    let log = fs::File::create(team.folder().join("limited.log")).unwrap();
    let mut peer = Command::new("sh")
        .args(["-c", &limited])
        .arg(&alice.home)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let login = || SmtpClient::login(&alice.smtp, &alice.address.to_string(), &alice.password);
    let mut smtp = wait_for("alice answers", || login().ok());
    let bob = [team.address("bob")];
    let before = team.letter("alice", "bob", 20_000);
    smtp.submit(&alice.address, &bob, &before.bytes).unwrap();
    let said = smtp.submit(&alice.address, &bob, &team.letter("alice", "bob", 6_000_000).bytes).unwrap_err();
    assert!(said.to_string().contains("452 4.3.1"), "{said}");
    let after = team.letter("alice", "bob", 30_000);
    let mut smtp = login().unwrap();
    smtp.submit(&alice.address, &bob, &after.bytes).unwrap();
    let spooled = fs::read_dir(team.home("alice").root().join("spool")).unwrap().flatten();
    let large = spooled.filter(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 1_000_000)).count();
    assert_eq!(large, 0, "nothing of the refused mail is left");
    peer.kill().unwrap();
    peer.wait().unwrap();
    team.start(&["alice", "bob"]);
    let mut reader = team.reader("bob");
    for letter in [before, after] {
        reader.reads_every_byte_of(&Mail { from: "alice".to_owned(), letter });
    }
}

#[test]
fn a_start_that_cannot_be_says_why_and_leaves_the_home_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("alice");
    assert!(roost(&home, &["init", "alice@acme"]).status.success());
    let path = home.join("config.toml");
    let config = fs::read_to_string(&path).unwrap();

    let lines = config.lines().count();
    fs::write(&path, format!("{config}\n[mail.typo]\nsmtp_prot = 25\n")).unwrap();
    let said = refusal(&home, &["up"]);
    assert!(said.contains("typo") && said.contains("line ") && said.contains("config.toml"), "{said}");
    let line = said.split("line ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()).unwrap();
    assert!(line.parse::<usize>().unwrap() > lines, "{said}");

    // A wrong key within each section, the first and the last.
    for head in ["[mail]", "[net]", "[quota]", "[console]"] {
        let at = config.lines().position(|line| line == head).unwrap_or_else(|| panic!("{head}: {config}"));
        let mut wrong: Vec<&str> = config.lines().collect();
        wrong.insert(at + 1, "smtp_prot = 25");
        fs::write(&path, wrong.join("\n")).unwrap();
        let said = refusal(&home, &["up"]);
        let line = format!("line {},", at + 2);
        assert!(said.contains("smtp_prot") && said.contains(&line) && said.contains("config.toml"), "{line} {said}");
        assert!(said.contains("unknown field") && said.contains("expected"), "{said}");
    }
    fs::write(&path, &config).unwrap();

    let said = refusal(&home, &["init", "bob@acme"]);
    assert!(said.contains("alice@acme") && said.contains("--home"), "{said}");
    let said = refusal(&dir.path().join("nobody"), &["up"]);
    assert!(said.contains("roost init"), "{said}");
}

#[test]
fn each_port_that_is_taken_is_named_with_its_line_in_the_config_and_what_waits_is_not_lost() {
    let team = Team::of_two();
    team.stop(&["bob"]);
    let waiting = team.submit("alice", &["bob"], team.letter("alice", "bob", 30_000));
    wait_for("it is sealed", || team.outbox_line(&waiting)?.sealed.first().map(drop));
    team.stop(&["alice"]);
    let home = team.home_dir("alice");
    let path = home.join("config.toml");
    let config = fs::read_to_string(&path).unwrap();
    for (section, key) in [
        ("mail", "smtp_port"),
        ("mail", "imap_port"),
        ("net", "https_port"),
        ("net", "libp2p_port"),
        ("console", "console_port"),
    ] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let with = set_ports(&path, &config, &[(section, key, port)]).unwrap();
        fs::write(&path, &with).unwrap();
        let line = with.lines().position(|line| line == format!("{key} = {port}")).unwrap() + 1;
        let said = refusal(&home, &["up"]);
        assert!(said.contains(&format!("127.0.0.1:{port}")), "{key}: {said}");
        let place = format!("{key} in {}, line {line}", path.display());
        assert!(said.contains(&place) && said.contains("stop what has the port"), "{place}: {said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), with, "{key}: the config stays");
        // It says so before it is started, too.
        let done = roost(&home, &["doctor"]);
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(!done.status.success() && told.contains(&format!("{port} cannot be listened on")), "{told}");
    }
    fs::write(&path, &config).unwrap();
    team.start(&["alice", "bob"]);
    team.reader("bob").reads_in_the_end(&waiting);
    wait_for("alice knows", || team.waiting("alice").is_empty().then_some(()));
}

#[test]
fn an_invite_is_good_for_as_long_as_was_said_whatever_the_joiners_clock_says() {
    let team = Team::of_two();
    let alice = team.peer("alice").home;
    let carol = team.folder().join("carol");
    assert!(roost(&carol, &["init", "carol@acme"]).status.success());
    here_only(&carol);
    let invited = |valid: &str| {
        let done = roost(&alice, &["group", "invite", "--as", "carol", "--valid", valid, "--json"]);
        let made: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        made["invite"].as_str().unwrap().to_owned()
    };
    let refused = |code: &str| {
        let done = roost(&carol, &["group", "join", code]);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    for (valid, why) in [("31 d", "up to 30 d"), ("0 s", "up to 30 d")] {
        let said = refusal(&alice, &["group", "invite", "--as", "carol", "--valid", valid]);
        assert!(said.contains(why), "{said}");
    }
    let code = invited("1 ms");
    let invite: Invite = from_line(&code).unwrap();
    wait_for("the invite is over", || (system_wall() > invite.expiry).then_some(()));
    let said = refused(&code);
    assert!(said.contains("the invite for carol has expired; ask for a new one"), "{said}");
    // A joiner whose clock is behind, or who altered the line, asks all the same, and the holder of the group key refuses.
    let later = Invite { expiry: system_wall() + Duration::from_secs(3600), ..invite };
    let said = refused(&to_line(&later));
    assert!(said.contains("the group acme refuses") && said.contains("has expired"), "{said}");
    let members = || team.status("alice").group.members.len();
    assert_eq!(members(), 2, "nobody came in");
    let joined = roost(&carol, &["group", "join", &invited("10 min")]);
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    assert_eq!(members(), 3);
}

#[test]
fn a_home_in_use_a_used_invite_and_one_for_another_name_are_refused() {
    let team = Team::of_two();
    let alice = team.peer("alice").home;
    let said = refusal(&alice, &["up"]);
    assert!(said.contains("in use") || said.contains("already"), "{said}");
    let invite = |name: &str| {
        let done = roost(&alice, &["group", "invite", "--as", name, "--json"]);
        let made: Value = serde_json::from_slice(&done.stdout).unwrap();
        made["invite"].as_str().unwrap().to_owned()
    };
    let refused = |home: &Path, code: &str| {
        let done = roost(home, &["group", "join", code]);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let carol = team.folder().join("carol");
    assert!(roost(&carol, &["init", "carol@acme"]).status.success());
    here_only(&carol);
    let code = invite("dave");
    let said = refused(&carol, &code);
    assert!(said.contains("dave") && said.contains("carol"), "{said}");
    let code = invite("carol");
    let joined = roost(&carol, &["group", "join", &code]);
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    // The same line again, by somebody else of that name.
    let other = team.folder().join("other");
    assert!(roost(&other, &["init", "carol@acme"]).status.success());
    here_only(&other);
    let said = refused(&other, &code);
    assert!(said.contains("the invite for carol was used by another peer; ask for a new one"), "{said}");
    let said = refused(&other, "roost-invite:not-one");
    assert!(said.contains("invite"), "{said}");
    let said = refusal(&alice, &["group", "policy", "--mode", "fragments", "--k", "3", "--n", "5", "--copies", "3"]);
    assert!(said.contains("too small") && said.contains("would do"), "{said}");
}

/// There is no network on a machine that builds: the peer tells others its loopback address.
fn here_only(home: &Path) {
    let path = home.join("config.toml");
    let config = fs::read_to_string(&path).unwrap().replace("announce = []", "announce = [\"127.0.0.1\"]");
    let config = config.replace("listen = \"0.0.0.0\"", "listen = \"127.0.0.1\"");
    fs::write(path, config.replace("dial_private = false", "dial_private = true")).unwrap();
}
