//! How mails end when they are not simply read: expiry with its DSN, refused unread, several receivers, a 250 that waits.

use std::process::Command;

use roost::cli::demo::smtp_client::SmtpClient;
use roost::console::protocol::{EndedLine, InboxLine, OutboxLine, Request};

use crate::harness::browser::served_bytes;
use crate::harness::{Letter, Mail, Team, wait_for};

/// Reads the newest message in INBOX, as any mail program would, and checks that it is a report as RFC 3464 says.
const REPORT: &str = r#"
import email, imaplib, sys
host, port, login, password, receiver, subject = sys.argv[1:]
imap = imaplib.IMAP4(host, int(port))
imap.login(login, password)
imap.select('INBOX')
uids = imap.uid('SEARCH', 'ALL')[1][0].split()
assert len(uids) == 1, uids
report = email.message_from_bytes(imap.uid('FETCH', uids[0], '(BODY.PEEK[])')[1][0][1])
assert report.get_content_type() == 'multipart/report', report.get_content_type()
assert report.get_param('report-type') == 'delivery-status'
assert not report.defects, report.defects
parts = report.get_payload()
kinds = [part.get_content_type() for part in parts]
assert kinds == ['text/plain', 'message/delivery-status', 'text/rfc822-headers'], kinds
whole, one = parts[1].get_payload()
assert whole['Reporting-MTA'] and whole['Original-Envelope-Id'], whole.as_string()
assert one['Final-Recipient'] == 'rfc822; ' + receiver, one.as_string()
assert one['Action'] == 'failed' and one['Status'] == '4.4.7', one.as_string()
headers = email.message_from_string(parts[2].get_payload())
assert headers['Subject'] == subject, parts[2].get_payload()
assert not any(part.defects for part in report.walk()), [part.defects for part in report.walk()]
imap.logout()
"#;

fn inbox(team: &Team, name: &str) -> Vec<InboxLine> {
    team.ask(name, &Request::Inbox { mailbox: None })
}

fn ended(team: &Team, name: &str) -> Vec<EndedLine> {
    team.ask(name, &Request::OutboxEnded)
}

/// A group whose mail lives for a few seconds.
fn short_lived() -> Team {
    Team::of_text(
        "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 1\nlife = \"8 s\"\n",
    )
}

#[test]
fn what_nobody_takes_in_its_life_expires_everywhere_with_one_dsn_in_inbox() {
    let team = short_lived();
    team.kill(&["bob"]);
    let letter = team.letter("alice", "bob", 70_000);
    team.submit("alice", &["bob"], letter);
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    let reports = wait_for("the DSN is in INBOX", || Some(inbox(&team, "alice")).filter(|inbox| !inbox.is_empty()));
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].subject, "Not delivered to bob@acme");
    if Command::new("python3").arg("--version").output().is_ok_and(|done| done.status.success()) {
        let alice = team.peer("alice");
        let (host, port) = alice.imap.split_once(':').unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", REPORT, host, port, "alice@acme", &alice.password, "bob@acme", "A letter of 70000 bytes"]);
        let done = python.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let ended = ended(&team, "alice");
    assert_eq!(ended[0].receivers.values().collect::<Vec<_>>(), ["expired"]);
    wait_for("carol frees her part", || {
        team.home("carol").mirrored_parts(&team.address("alice")).unwrap().is_empty().then_some(())
    });
    team.kill(&["alice"]);
    team.start(&["alice", "bob"]);
    wait_for("bob's peer and alice's have met", || team.status("bob").group.members.iter().all(|m| m.up).then_some(()));
    assert_eq!(inbox(&team, "alice").len(), 1, "one DSN, also after a crash");
    assert!(inbox(&team, "bob").is_empty(), "an expired mail is announced to nobody");
}

#[test]
fn a_mail_deleted_unread_moves_no_body_byte_sends_no_dsn_and_shows_in_outbox() {
    let team = Team::of_two();
    let letter = team.letter("alice", "bob", 100_000);
    let mail = team.submit("alice", &["bob"], letter);
    let before = team.wait_until_safe(&mail, -1);
    let mut bob = team.reader("bob");
    let uid = bob.sees(&mail);
    bob.imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)")).unwrap();
    bob.imap.command("EXPUNGE").unwrap();
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    let ended = ended(&team, "alice");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].receivers.values().collect::<Vec<_>>(), ["refused"]);
    assert!(inbox(&team, "alice").is_empty(), "no DSN");
    assert!(team.status("bob").pulls.iter().all(|pull| pull.h != before.h), "no body byte moved");
}

#[test]
fn a_mail_deleted_unread_is_served_by_nobody_whole_or_in_fragments_and_one_that_is_opened_is() {
    // No audit comes between: it serves a block.
    let team = Team::of_text(
        "[mail]\naudit_every = \"30 d\"\n[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\", \"dave\"]\n\
         [group.replication]\nmode = \"fragments\"\nfragments = { k = 2, n = 3 }\ncopies = 2\nwhole_below = \"64 KiB\"\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [\"alice@acme\"]\n",
    );
    let sources = ["alice", "bob", "carol", "dave"];
    let served = || sources.map(|source| served_bytes(&team, source));
    for (size, encoding) in [(20_000, "whole"), (300_000, "fragments")] {
        let announced = || {
            let mail = team.submit("alice", &["rita"], team.letter("alice", "rita", size));
            let sealed = team.wait_until_safe(&mail, 1);
            assert!(sealed.encoding.contains(encoding), "{}", sealed.encoding);
            let parts = if encoding == "whole" { 2 } else { 3 };
            // All of them: what is still on its way to a member would be counted too.
            wait_for("each has its part", || (team.outbox_line(&mail)?.sealed[0].holders.len() == parts).then_some(()));
            (mail, sealed)
        };
        let (deleted, _) = announced();
        let before = served();
        let mut rita = team.reader("rita");
        let uid = rita.sees(&deleted);
        rita.imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)")).unwrap();
        rita.imap.command("EXPUNGE").unwrap();
        wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
        assert_eq!(served(), before, "{encoding}: what alice, bob, carol and dave served");
        let outcomes = ended(&team, "alice").into_iter().flat_map(|line| line.receivers.into_values());
        assert!(outcomes.into_iter().all(|outcome| outcome == "refused"));

        // The counters do count: the same again, opened.
        let (opened, sealed) = announced();
        let before = served();
        rita.reads_every_byte_of(&opened);
        let moved: u64 = served().iter().zip(before).map(|(after, before)| after - before).sum();
        assert!(moved >= sealed.length, "{encoding}: {moved} bytes of {}", sealed.length);
        wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    }
}

#[test]
fn a_mail_to_several_is_one_file_for_to_and_cc_and_one_for_each_bcc_and_oneself_reads_it_too() {
    let team = Team::of_six();
    let alice = team.address("alice");
    let bytes = b"From: alice@acme\r\nTo: bob@acme, alice@acme\r\nCc: rita@readers\r\nSubject: to several\r\n\
        Message-ID: <several@acme>\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\nHello all.\r\n";
    let letter = Letter { id: "<several@acme>".to_owned(), bytes: bytes.to_vec() };
    let mail: Mail = team.submit("alice", &["bob", "rita", "alice", "dave"], letter);
    let mut hers = team.reader("alice");
    assert_eq!(hers.opens(&mail).unwrap(), bytes, "oneself is served from the spool");
    let line: OutboxLine = wait_for("both files are sealed, and the mail is announced", || {
        let line = team.outbox_line(&mail)?;
        let told = line.receivers.iter().all(|(who, state)| *who == alice || state == "announced");
        (told && line.sealed.len() == 2).then_some(line)
    });
    assert_eq!(line.receivers[&alice], "filed");
    let files = || team.home("alice").outbox_mails().unwrap().len();
    assert_eq!(files(), 2);
    for (reader, files_left) in [("bob", 2), ("dave", 1), ("rita", 0)] {
        let got = team.reader(reader).opens(&mail).unwrap();
        assert_eq!(got, bytes, "{reader} reads the same bytes, and no Bcc");
        wait_for("alice has the nr", || {
            let left: Vec<OutboxLine> = team.ask("alice", &Request::Outbox);
            left.first().is_none_or(|line| line.receivers[&team.address(reader)] == "received").then_some(())
        });
        wait_for("the file goes with the last nr for it", || (files() == files_left).then_some(()));
    }
    assert!(team.waiting("alice").is_empty());
    assert!(ended(&team, "alice").is_empty() && inbox(&team, "alice").len() == 1);
}

#[test]
fn a_250_that_waits_says_how_safe_the_mail_is() {
    let team = Team::of_text(
        "[mail]\nsafe_before_yes = 1\n[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\"]\n\
         [group.replication]\nmode = \"full\"\ncopies = 2\n",
    );
    let alice = team.peer("alice");
    let letter = team.letter("alice", "bob", 100_000);
    let mut smtp = SmtpClient::login(&alice.smtp, &alice.address.to_string(), &alice.password).unwrap();
    let reply = smtp.submit(&alice.address, &[team.address("bob")], &letter.bytes).unwrap();
    assert!(reply.code == 250 && reply.text.contains("taken, safe(1), submission "), "{reply:?}");
}
