//! A mail to somebody outside the group survives its sender and two members.

use std::fs;
use std::process::Command;

use crate::harness::Team;

/// Opens the one message whose Message-ID is given, as any mail program would, and writes its bytes to a file.
const IMAPLIB: &str = r#"
import imaplib, sys, time
host, port, login, password, message_id, out = sys.argv[1:]
imap = imaplib.IMAP4(host, int(port))
imap.login(login, password)
for _ in range(600):
    imap.select('INBOX')
    found = imap.uid('SEARCH', 'HEADER', 'Message-ID', message_id)[1][0].split()
    if found:
        break
    time.sleep(0.1)
status, data = imap.uid('FETCH', found[0], '(BODY.PEEK[])')
assert status == 'OK', (status, data)
open(out, 'wb').write(data[0][1])
imap.logout()
"#;

#[test]
fn an_outsider_reads_20_mb_after_the_sender_and_two_holders_were_killed() {
    let team = Team::of_six();
    let letter = team.letter("alice", "rita", 20_000_000);
    let mail = team.submit("alice", &["rita"], letter);
    let sealed = team.wait_until_safe(&mail, 2);
    assert_eq!(sealed.encoding, "fragments 3 of 5");
    assert_eq!(sealed.holders.len(), 5);
    let holders: Vec<String> = sealed.holders.keys().map(|holder| holder.name().to_string()).collect();
    team.kill(&["alice", &holders[0], &holders[1]]);

    if Command::new("python3").arg("--version").output().is_ok_and(|done| done.status.success()) {
        let out = team.folder().join("got.eml");
        let rita = team.peer("rita");
        let (host, port) = rita.imap.split_once(':').unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", IMAPLIB, host, port, "rita@readers", &rita.password, &mail.letter.id]).arg(&out);
        let done = python.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(fs::read(&out).unwrap() == mail.letter.bytes, "imaplib got other bytes than were submitted");
    } else {
        eprintln!("python3 is not installed: the mail is opened by the test's own client only");
    }
    team.reader("rita").reads_every_byte_of(&mail);

    let status = team.status("rita");
    let pull = status.pulls.iter().find(|pull| pull.h == sealed.h && pull.ok).expect("the pull is shown");
    let gave: Vec<&str> = pull.sources.iter().filter(|s| s.bytes > 0).map(|s| s.address.as_str()).collect();
    assert!(gave.len() >= 3, "{gave:?}");
    for dead in ["alice".to_owned(), holders[0].clone(), holders[1].clone()] {
        assert!(!gave.contains(&format!("{dead}@acme").as_str()), "{dead} is dead, and gave something: {gave:?}");
    }
}

#[test]
fn the_mail_is_freed_everywhere_once_the_outsider_has_it() {
    let team = Team::of_six();
    let letter = team.letter("alice", "rita", 300_000);
    let mail = team.submit("alice", &["rita"], letter);
    let sealed = team.wait_until_safe(&mail, 2);
    team.reader("rita").reads_every_byte_of(&mail);
    crate::harness::wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    for holder in sealed.holders.keys() {
        crate::harness::wait_for("the members free their parts", || {
            let parts = team.home(holder.name().as_str()).mirrored_parts(&team.address("alice")).unwrap();
            parts.is_empty().then_some(())
        });
    }
}
